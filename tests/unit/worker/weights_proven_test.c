/*
 * Loading under a manifest: the same bytes as without one for every layout, and no byte of a file
 * that changed after it was opened.
 */
#include "tests/unit/worker/signed_model.h"

enum { ALIGNMENT = 64 }; /* of slices in struct weights' arena */

struct progress {
    uint64_t done, total;
};

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    *(struct progress *)arg = (struct progress){done, total};
}

static enum status load(const struct model *m, struct checkpoint *ck, const struct plan *p,
                        int rank, struct weights **out, struct error *err)
{
    struct progress progress = {0};
    must(weights_create(&m->config, m->inv, p, &p->ranks[rank], memory_host(), out, err), err);
    enum status st = weights_load(*out, m->inv, ck, p, &p->ranks[rank], NULL, NULL, on_progress,
                                  &progress, err);
    if (st == OK) {
        assert_int_equal(progress.done, progress.total);
    } else {
        weights_destroy(*out);
        *out = NULL;
    }
    return st;
}

static void check_equal(const struct model *m, const struct rank_plan *rank,
                        const struct weights *a, const struct weights *b)
{
    const char *x = a->arena, *y = b->arena;
    size_t vectors = 0;
    assert_int_equal(a->bytes, b->bytes);
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *w = &m->inv->weights[s->weight];
        size_t bytes = (size_t)s->rows * (size_t)s->cols * dtype_size(w->dtype);
        if (weight_role_is_vector(w->role)) {
            vectors += (size_t)s->rows * (size_t)s->cols;
            continue;
        }
        assert_memory_equal(x, y, bytes);
        bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        x += bytes;
        y += bytes;
    }
    assert_memory_equal(a->vectors, b->vectors, vectors * sizeof *a->vectors);
}

/* All ranks of a plan as threads of one machine, each with its own view of the files. */
struct world {
    const struct model *m;
    const struct plan *p;
    struct weights *weights[8];
};

static enum status load_in_world(struct comm *comm, void *arg, struct error *err)
{
    struct world *w = arg;
    const struct model *m = w->m;
    struct checkpoint *ck = NULL;
    TRY(checkpoint_open_proven(m->s.files.path, m->manifest, &ck, err));
    const struct rank_plan *rank = &w->p->ranks[comm->rank];
    struct weights **out = &w->weights[comm->rank];
    enum status st = weights_create(&m->config, m->inv, w->p, rank, memory_host(), out, err);
    if (st == OK)
        st = weights_load(*out, m->inv, ck, w->p, rank, comm, comm, NULL, NULL, err);
    checkpoint_close(ck);
    return st;
}

static void check_layouts(const char *dir)
{
    static const struct layout layouts[] = {
        {1, 1, 1, 0}, {1, 2, 1, 0}, {1, 2, 2, 0}, {2, 1, 2, 0}, {1, 1, 3, 0}};
    struct model m = model_open(dir);
    struct checkpoint *plain = NULL;
    struct error err;
    int used = 0;
    must(checkpoint_open(m.s.files.path, &plain, &err), &err);
    for (size_t i = 0; i < COUNT_OF(layouts); i++) {
        struct plan *p = NULL;
        struct layout layout = layouts[i];
        if (layout_check(&m.config, &layout, &err) != OK)
            continue;
        must(plan_create(&m.config, m.inv, layout, &p, &err), &err);
        struct world w = {.m = &m, .p = p};
        assert_true(p->world <= (int)COUNT_OF(w.weights));
        must(comm_local_run(p->world, load_in_world, &w, &err), &err);
        for (int r = 0; r < p->world; r++) {
            struct weights *a = NULL, *b = NULL;
            must(load(&m, m.ck, p, r, &a, &err), &err);
            must(load(&m, plain, p, r, &b, &err), &err);
            check_equal(&m, &p->ranks[r], a, b);
            check_equal(&m, &p->ranks[r], w.weights[r], b);
            weights_destroy(w.weights[r]);
            weights_destroy(a);
            weights_destroy(b);
        }
        plan_destroy(p);
        used++;
    }
    assert_true(used > 1);
    checkpoint_close(plain);
    model_close(&m);
}

static void equal_to_loading_without(void **state)
{
    (void)state;
    static const char *const names[] = {"dense", "fused", "sharded", "tied",
                                        "odd",   "gqa16", "qwen2",   "qwen3"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_layouts(golden(names[i]));
}

static void quantised_weights(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq", "gptq_order", "awq", "gguf", "gguf_k"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_layouts(quantised(names[i]));
}

/* Of 31 MB: slices that begin in one chunk and end in the next. */
static void equal_over_borders_of_chunks(void **state)
{
    (void)state;
    check_layouts(WITAN_SOURCE_DIR "/deploy/lexicon/model");
}

/* Every shard in turn, at its first and last byte and in the middle, after all was opened. */
static void files_that_change_after_opening(void **state)
{
    (void)state;
    struct model m = model_open(golden("sharded"));
    struct plan *p = NULL;
    struct weights *w = NULL;
    struct error err;
    must(plan_create(&m.config, m.inv, (struct layout){1, 1, 1, 0}, &p, &err), &err);
    for (int file = 0; file < checkpoint_file_count(m.ck); file++) {
        uint64_t bytes = checkpoint_file_bytes(m.ck, file);
        const uint64_t at[] = {0, bytes / 2, bytes - 1};
        for (size_t i = 0; i < COUNT_OF(at); i++) {
            const char *name = checkpoint_file_name(m.ck, file);
            flip_bit(folder_path(&m.s.files, name), at[i], (int)(i * 3 % 8));
            SAYS(load(&m, m.ck, p, 0, &w, &err), ERR_INVALID, &err, name, "chunk 0");
            flip_bit(folder_path(&m.s.files, name), at[i], (int)(i * 3 % 8));
        }
    }
    must(load(&m, m.ck, p, 0, &w, &err), &err);
    weights_destroy(w);
    w = NULL;
    const char *last = checkpoint_file_name(m.ck, 5);
    assert_int_equal(truncate(folder_path(&m.s.files, last), 1000), 0);
    SAYS(load(&m, m.ck, p, 0, &w, &err), ERR_IO, &err, last,
         "found the end at 1000: the file was cut short after it was opened; fetch it again");
    plan_destroy(p);
    model_close(&m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(equal_to_loading_without),
    cmocka_unit_test(quantised_weights),
    cmocka_unit_test(equal_over_borders_of_chunks),
    cmocka_unit_test(files_that_change_after_opening),
};

UNIT_MAIN(tests)
