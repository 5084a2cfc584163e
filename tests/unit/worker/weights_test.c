/*
 * Loading: every element of every rank's slices equals that of the whole tensor in the file, for
 * the golden checkpoints and many layouts; progress reaches its total; a file cut short is named.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "partition/weight_read.h"
#include "worker/cpu/vec.h"
#include "worker/model.h"
#include "worker/weights.h"

#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

enum { MAX_RANKS = 32 };

struct golden {
    char dir[512];
    struct model_config config;
    struct inventory *inv;
    struct checkpoint *ck;
};

static void must(enum status st, const struct error *err)
{
    if (st != OK)
        fail_msg("%s", err->msg);
}

static struct golden golden_open(const char *dir)
{
    struct golden g;
    struct generation_config generation;
    struct error err;
    snprintf(g.dir, sizeof g.dir, "%s", dir);
    must(config_load(dir, &g.config, &generation, &err), &err);
    must(checkpoint_open(dir, &g.ck, &err), &err);
    must(inventory_create(&g.config, &g.inv, &err), &err);
    must(inventory_bind(g.inv, &g.config, g.ck, &err), &err);
    return g;
}

static void golden_close(struct golden *g)
{
    inventory_destroy(g->inv);
    checkpoint_close(g->ck);
}

static const char *golden_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/tests/golden/oracle/%s", WITAN_SOURCE_DIR, name);
    return path;
}

/* The whole matrix as it is to lie in memory, dense, read row by row apart from the loader. */
static unsigned char *whole_of(const struct golden *g, const struct weight *w)
{
    size_t run = (size_t)w->cols * dtype_size(w->dtype);
    unsigned char *bytes = check_calloc((size_t)w->rows, run);
    struct error err;
    if (w->store != STORE_PLAIN)
        must(weight_read(g->ck, g->inv, w, &(struct quant_rect){0, w->rows, 0, w->cols},
                         (float *)(void *)bytes, &err),
             &err);
    for (int64_t r = 0; w->store == STORE_PLAIN && r < w->rows; r++)
        must(checkpoint_read(g->ck, w->file, w->offset + (uint64_t)r * w->row_stride,
                             bytes + (size_t)r * run, run, &err),
             &err);
    return bytes;
}

static const float *vector_in(const struct weights *w, const struct rank_plan *r,
                              const struct weight *t)
{
    if (t->layer < 0)
        return w->final_norm;
    const struct layer_weights *l = &w->layers[t->layer - r->layers.begin];
    switch (t->role) {
    case WEIGHT_INPUT_NORM:
        return l->input_norm;
    case WEIGHT_POST_NORM:
        return l->post_norm;
    case WEIGHT_Q_NORM:
        return l->q_norm;
    case WEIGHT_K_NORM:
        return l->k_norm;
    case WEIGHT_Q_BIAS:
        return l->q_bias;
    case WEIGHT_K_BIAS:
        return l->k_bias;
    case WEIGHT_V_BIAS:
        return l->v_bias;
    default:
        return NULL;
    }
}

static const struct matrix *matrix_in(const struct weights *w, const struct rank_plan *r,
                                      const struct weight *t)
{
    if (t->layer < 0)
        return t->role == WEIGHT_EMBED ? &w->embed : &w->lm_head;
    const struct layer_weights *l = &w->layers[t->layer - r->layers.begin];
    const struct ffn *f = l->ffn_count > 0
                              ? &l->ffn[t->expert < 0 ? 0 : t->expert - r->experts.begin]
                              : NULL;
    switch (t->role) {
    case WEIGHT_Q:
        return &l->q;
    case WEIGHT_K:
        return &l->k;
    case WEIGHT_V:
        return &l->v;
    case WEIGHT_O:
        return &l->o;
    case WEIGHT_ROUTER:
        return &l->router;
    case WEIGHT_GATE:
        return &f->gate;
    case WEIGHT_UP:
        return &f->up;
    default:
        return &f->down;
    }
}

static void check_vector(const float *found, const struct slice *s, const unsigned char *whole,
                         const struct weight *t)
{
    assert_non_null(found);
    for (int64_t i = 0; i < s->rows * s->cols; i++) {
        uint16_t h;
        float expected;
        if (t->dtype == DTYPE_F32) {
            memcpy(&expected, whole + 4 * (s->row + i), sizeof expected);
        } else {
            memcpy(&h, whole + 2 * (s->row + i), sizeof h);
            expected = t->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
        }
        assert_memory_equal(&found[i], &expected, sizeof expected);
    }
}

static void check_matrix(const struct matrix *m, const struct slice *s, const unsigned char *whole,
                         const struct weight *t)
{
    size_t each = dtype_size(t->dtype), run = (size_t)s->cols * each;
    assert_int_equal(m->dtype, t->dtype);
    assert_int_equal(m->rows, s->rows);
    assert_int_equal(m->cols, s->cols);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    for (int64_t r = 0; r < s->rows; r++)
        assert_memory_equal((const unsigned char *)m->data + (size_t)r * run,
                            whole + (size_t)((s->row + r) * t->cols + s->col) * each, run);
}

/* A packed matrix's value, taken apart as struct cuda_format (worker/cuda/stages.h) says. */
static float packed_value(const struct matrix *m, int64_t row, int64_t col)
{
    const struct weight_shape *s = &m->shape;
    bool e4m3 = s->form == FORM_E4M3;
    const uint8_t *data = m->data;
    int64_t unit = e4m3 ? 64 : 128, block = col % unit / 32, lane = col % 32 / 8, i = col % 8;
    const uint8_t *piece = data + (uint64_t)row * s->row_bytes + col / unit * 64 + lane * 16;
    uint32_t word;
    float scale;
    memcpy(&word,
           data + s->scales_at +
               (row / s->scale_rows * s->groups + (col >> s->group_shift)) * (int64_t)sizeof word,
           sizeof word);
    uint32_t bits = e4m3 ? word : word & ~31u;
    memcpy(&scale, &bits, sizeof scale);
    if (e4m3)
        return scale * quant_e4m3(piece[8 * block + i / 4 * 4 + (int64_t[]){0, 2, 1, 3}[i % 4]]);
    memcpy(&bits, piece + 4 * block, sizeof bits);
    return scale * (float)((int)(bits >> (4 * (i / 2) + 16 * (i % 2)) & 15) - (int)(word & 31));
}

static uint16_t rounded_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Every value is the one that others get as fp32; nothing lies between but zeros. */
static void check_packed(const struct matrix *m, const struct slice *s, const unsigned char *whole,
                         const struct weight *t)
{
    assert_int_equal(m->rows, s->rows);
    assert_int_equal(m->cols, s->cols);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    assert_int_equal(m->shape.bytes % 64, 0);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->cols; c++) {
            float expected;
            memcpy(&expected, whole + (size_t)((s->row + r) * t->cols + s->col + c) * 4, 4);
            if (m->shape.form == FORM_BF16) {
                assert_int_equal(m->dtype, DTYPE_BF16);
                assert_int_equal(((const uint16_t *)m->data)[r * s->cols + c],
                                 rounded_to_bf16(expected));
            } else {
                assert_true(packed_value(m, r, c) == expected);
            }
        }
    for (uint64_t i = m->shape.used; i < m->shape.bytes; i++)
        assert_int_equal(((const uint8_t *)m->data)[i], 0);
}

/* The whole as fp32, whatever it is stored as. */
static float *whole_values(const unsigned char *whole, const struct weight *t)
{
    size_t count = (size_t)t->rows * (size_t)t->cols;
    float *values = check_calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        uint16_t h;
        memcpy(&h, whole + 2 * i, sizeof h);
        if (t->dtype == DTYPE_F32)
            memcpy(&values[i], whole + 4 * i, sizeof values[i]);
        else
            values[i] = t->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    }
    return values;
}

/* What nobody reads is the same in every run: that of panel_pack. */
static void check_rows_past(const struct matrix *m, int bits)
{
    const uint8_t *last = (const uint8_t *)m->data + m->shape.bytes - m->shape.row_bytes;
    for (uint64_t i = 0; m->rows % PANEL_ROWS > 0 && i < m->shape.row_bytes; i++) {
        bool codes = i >= panel_scale_bytes(m->cols);
        uint64_t row = codes ? i / 4 % PANEL_ROWS : i / 2 % PANEL_ROWS;
        if (row >= (uint64_t)(m->rows % PANEL_ROWS))
            assert_int_equal(last[i], !codes ? 0 : bits == 4 ? PANEL_ZERO4 : PANEL_ZERO8);
    }
}

/* Each row of the slice is a cut of that row of the whole's panels, and near to its values. */
static void check_panels(const struct matrix *m, const struct slice *s, const unsigned char *whole,
                         const struct weight *t)
{
    int bits = weight_panel_bits(m->shape.form);
    int32_t cols = (int32_t)t->cols;
    float *values = whole_values(whole, t), *row = check_calloc((size_t)cols, sizeof *row);
    float *cut = check_calloc((size_t)m->cols, sizeof *cut);
    char *panel = check_calloc(1, panel_bytes(cols, bits));
    double error = 0, size = 0;
    assert_int_equal(m->rows, s->rows);
    assert_int_equal(m->cols, s->cols);
    assert_int_equal((uintptr_t)m->data % 64, 0);
    assert_int_equal(m->shape.bytes, (uint64_t)panel_count(m->rows) * panel_bytes(m->cols, bits));
    for (int64_t r = 0; r < s->rows; r++) {
        const float *from = values + (s->row + r) * cols;
        assert_int_equal(panel_pack(from, 1, cols, bits, panel), -1);
        panel_row(panel, 0, cols, bits, row);
        panel_row((const char *)m->data + (uint64_t)(r / PANEL_ROWS) * m->shape.row_bytes,
                  (int32_t)(r % PANEL_ROWS), m->cols, bits, cut);
        assert_memory_equal(cut, row + s->col, (size_t)m->cols * sizeof *cut);
        for (int64_t c = 0; c < s->cols; c++) {
            double d = (double)cut[c] - (double)from[s->col + c];
            error += d * d;
            size += (double)from[s->col + c] * (double)from[s->col + c];
        }
    }
    double bound = bits == 4 ? 0.1 : 0.01; /* of the root mean square */
    assert_true(size > 0 && error < bound * bound * size);
    check_rows_past(m, bits);
    free(values);
    free(row);
    free(cut);
    free(panel);
}

/* Which form a slice has is said by its role and its whole columns alone. */
static int expected_bits(const struct golden *g, const struct weight *t)
{
    bool int4 = g->inv->mode == WEIGHTS_INT4;
    if (t->cols % 32 != 0 || (t->role == WEIGHT_O && g->config.head_dim % 32 != 0))
        return 0;
    switch (t->role) {
    case WEIGHT_EMBED:
    case WEIGHT_LM_HEAD:
        return 8;
    case WEIGHT_Q:
    case WEIGHT_K:
    case WEIGHT_V:
    case WEIGHT_O:
    case WEIGHT_GATE:
    case WEIGHT_UP:
    case WEIGHT_DOWN:
        return int4 ? 4 : 8;
    default:
        return 0;
    }
}

struct progress {
    uint64_t done, total;
};

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    if (done > p->done)
        p->done = done;
    p->total = total;
}

static enum status load(const struct golden *g, const struct plan *p, int rank,
                        struct progress *progress, struct weights **out, struct error *err)
{
    must(weights_create(&g->config, g->inv, p, &p->ranks[rank], memory_host(), out, err), err);
    return weights_load(*out, g->inv, g->ck, p, &p->ranks[rank], NULL, NULL, on_progress, progress,
                        err);
}

/* `w` is what a rank loaded. */
static void check_weights(const struct golden *g, const struct plan *p, int rank,
                          const struct weights *w)
{
    const struct rank_plan *r = &p->ranks[rank];
    uint64_t matrices = 0, vectors = 0;
    for (int32_t i = 0; i < r->slice_count; i++) {
        const struct slice *s = &r->slices[i];
        const struct weight *t = &g->inv->weights[s->weight];
        unsigned char *whole = whole_of(g, t);
        if (weight_role_is_vector(t->role)) {
            check_vector(vector_in(w, r, t), s, whole, t);
            vectors += (uint64_t)(s->rows * s->cols) * dtype_size(t->dtype);
        } else if (weight_panel_bits(matrix_in(w, r, t)->shape.form)) {
            assert_int_equal(weight_panel_bits(matrix_in(w, r, t)->shape.form),
                             expected_bits(g, t));
            check_panels(matrix_in(w, r, t), s, whole, t);
            matrices += matrix_in(w, r, t)->shape.bytes;
        } else if (matrix_in(w, r, t)->shape.form != FORM_VALUES) {
            assert_true(g->inv->mode == WEIGHTS_PACKED && t->quantized);
            check_packed(matrix_in(w, r, t), s, whole, t);
            matrices += matrix_in(w, r, t)->shape.bytes;
        } else {
            assert_false(g->inv->mode == WEIGHTS_PACKED && t->quantized);
            if (g->inv->mode == WEIGHTS_INT8 || g->inv->mode == WEIGHTS_INT4)
                assert_int_equal(expected_bits(g, t), 0);
            check_matrix(matrix_in(w, r, t), s, whole, t);
            matrices += (uint64_t)s->rows * (uint64_t)s->cols * dtype_size(t->dtype);
        }
        free(whole);
    }
    assert_true(w->bytes >= matrices);
    if (g->inv->mode != WEIGHTS_PUBLISHED) { /* what the plan says is what was allocated */
        struct engine_limits none = {.max_rows = 1, .max_seqs = 1, .max_logits = 1, .context = 1};
        assert_true(w->bytes < matrices + 64 * (uint64_t)r->slice_count); /* borders */
        assert_int_equal(plan_memory(&g->config, g->inv, p, r, &none).weights, matrices + vectors);
    }
    if (g->config.tied_embeddings && r->stage == p->layout.pp - 1)
        assert_ptr_equal(w->lm_head.data, w->embed.data);
}

static uint64_t checkpoint_bytes(const struct golden *g)
{
    uint64_t bytes = 0;
    for (int i = 0; i < checkpoint_file_count(g->ck); i++)
        bytes += checkpoint_file_bytes(g->ck, i);
    return bytes;
}

static void check_alone(const struct golden *g, const struct plan *p, int rank)
{
    struct weights *w = NULL;
    struct progress progress = {0};
    struct error err;
    must(load(g, p, rank, &progress, &w, &err), &err);
    check_weights(g, p, rank, w);
    assert_true(progress.total > 0 && progress.total <= checkpoint_bytes(g));
    assert_int_equal(progress.done, progress.total);
    weights_destroy(w);
}

/* All ranks of a plan as threads of one machine. */
struct world {
    const struct golden *g;
    struct plan *p;
    struct checkpoint *ck[MAX_RANKS];
    struct weights *weights[MAX_RANKS];
    struct progress progress[MAX_RANKS];
};

static struct world world_open(const struct golden *g, struct layout layout)
{
    struct world w = {.g = g};
    struct error err;
    if (plan_create(&g->config, g->inv, layout, &w.p, &err) != OK) {
        print_message("%s\n", err.msg);
        return w;
    }
    assert_true(w.p->world <= MAX_RANKS);
    for (int rank = 0; rank < w.p->world; rank++)
        must(checkpoint_open(g->dir, &w.ck[rank], &err), &err);
    return w;
}

static void world_close(struct world *w)
{
    for (int rank = 0; rank < MAX_RANKS; rank++) {
        weights_destroy(w->weights[rank]);
        checkpoint_close(w->ck[rank]);
    }
    plan_destroy(w->p);
}

static enum status load_in_world(struct comm *comm, void *arg, struct error *err)
{
    struct world *w = arg;
    int r = comm->rank;
    const struct rank_plan *rank = &w->p->ranks[r];
    weights_destroy(w->weights[r]);
    TRY(weights_create(&w->g->config, w->g->inv, w->p, rank, memory_host(), &w->weights[r], err));
    return weights_load(w->weights[r], w->g->inv, w->ck[r], w->p, rank, comm, comm, on_progress,
                        &w->progress[r], err);
}

/* What they read together is the checkpoint once, if they need all of it. */
static void check_together(struct world *w)
{
    struct error err;
    must(comm_local_run(w->p->world, load_in_world, w, &err), &err);
    for (int rank = 0; rank < w->p->world; rank++) {
        check_weights(w->g, w->p, rank, w->weights[rank]);
        assert_int_equal(w->progress[rank].total, w->progress[0].total);
        assert_int_equal(w->progress[rank].done, w->progress[0].total);
    }
    assert_true(w->progress[0].total <= checkpoint_bytes(w->g));
}

static void check_layouts_of(const char *dir, enum weight_mode mode, const struct layout *layouts,
                             int count)
{
    struct golden g = golden_open(dir);
    g.inv->mode = mode;
    for (int i = 0; i < count; i++) {
        struct world w = world_open(&g, layouts[i]);
        for (int rank = 0; w.p && rank < w.p->world; rank++)
            check_alone(&g, w.p, rank);
        if (w.p)
            check_together(&w);
        world_close(&w);
    }
    golden_close(&g);
}

static void check_layouts(const char *name, const struct layout *layouts, int count)
{
    check_layouts_of(golden_path(name), WEIGHTS_PUBLISHED, layouts, count);
}

static const struct layout layouts[] = {{1, 1, 1, 0}, {1, 2, 0, 0}, {2, 1, 1, 0}, {2, 2, 2, 0},
                                        {1, 1, 2, 0}, {1, 2, 1, 4}, {1, 3, 1, 0}};

static void whole_and_cut_dense(void **state)
{
    (void)state;
    check_layouts("dense", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_with_biases(void **state)
{
    (void)state;
    check_layouts("qwen2", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_fused(void **state)
{
    (void)state;
    check_layouts("fused", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_sharded(void **state)
{
    (void)state;
    check_layouts("sharded", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_tied(void **state)
{
    (void)state;
    check_layouts("tied", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_odd(void **state)
{
    (void)state;
    static const struct layout more[] = {{1, 1, 5, 0}, {1, 3, 5, 15}, {2, 6, 2, 0}};
    check_layouts("odd", layouts, COUNT_OF(layouts));
    check_layouts("odd", more, COUNT_OF(more));
}

static void whole_and_cut_others(void **state)
{
    (void)state;
    check_layouts("gqa16", layouts, COUNT_OF(layouts));
    check_layouts("headdim", layouts, COUNT_OF(layouts));
    check_layouts("nonorm", layouts, COUNT_OF(layouts));
}

static void whole_and_cut_quantised(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq", "gptq_order", "awq", "gguf", "gguf_k"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/tests/golden/quantised/%s", WITAN_SOURCE_DIR, names[i]);
        check_layouts_of(dir, WEIGHTS_PUBLISHED, layouts, COUNT_OF(layouts));
    }
}

static void whole_and_cut_packed(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq", "gptq_order", "awq"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/tests/golden/quantised/%s", WITAN_SOURCE_DIR, names[i]);
        check_layouts_of(dir, WEIGHTS_PACKED, layouts, COUNT_OF(layouts));
    }
}

static void check_panels_of(const char *folder, const char *name)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s/tests/golden/%s/%s", WITAN_SOURCE_DIR, folder, name);
    check_layouts_of(dir, WEIGHTS_INT8, layouts, COUNT_OF(layouts));
    check_layouts_of(dir, WEIGHTS_INT4, layouts, COUNT_OF(layouts));
}

/* bf16, fp16 and fp32, with columns that fit and others. */
static void whole_and_cut_in_panels(void **state)
{
    (void)state;
    static const char *const names[] = {"dense", "gqa16",   "headdim", "nonorm", "odd",
                                        "qwen2", "sharded", "tied",    "yarn"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_panels_of("oracle", names[i]);
}

static void whole_and_cut_quantised_in_panels(void **state)
{
    (void)state;
    static const char *const names[] = {"fp8", "gptq", "gptq_order", "awq", "gguf", "gguf_k"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        check_panels_of("quantised", names[i]);
}

/* A copy of a golden checkpoint's files in a folder that the test may spoil. */
static void copy_folder(const char *from, const char *to)
{
    DIR *d = opendir(from);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d))) {
        char a[1024], b[1024], bytes[4096];
        snprintf(a, sizeof a, "%s/%s", from, e->d_name);
        snprintf(b, sizeof b, "%s/%s", to, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        FILE *in = fopen(a, "rb"), *out = fopen(b, "wb");
        assert_true(in && out);
        for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;)
            assert_int_equal(fwrite(bytes, 1, n, out), n);
        fclose(in);
        assert_int_equal(fclose(out), 0);
    }
    closedir(d);
}

static void remove_folder(const char *path)
{
    DIR *d = opendir(path);
    assert_non_null(d);
    struct dirent *e;
    while ((e = readdir(d))) {
        char file[1024];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file);
    }
    closedir(d);
    rmdir(path);
}

/* A name of a weight, as a message must begin with. */
static bool names_weight(const char *msg)
{
    for (int role = 0; role < WEIGHT_ROLE_COUNT; role++) {
        const char *words = weight_role_words((enum weight_role)role);
        size_t n = strlen(words);
        if (strncmp(msg, words, n) == 0 && (msg[n] == ':' || msg[n] == ' '))
            return true;
    }
    return false;
}

static void check_names(const struct error *err, const char *file)
{
    const char *msg = err->msg;
    int rank = 0, skip = 0;
    if (sscanf(msg, "rank %d: %n", &rank, &skip) == 1)
        msg += skip;
    if (!strstr(msg, file) || !names_weight(msg) || strchr(msg, '\n'))
        fail_msg("expected a weight and %s in: %s", file, err->msg);
}

/* By one rank alone, or by all of several: whichever meets it, all end with its words. */
static void check_refused(struct world *w, const char *file)
{
    struct weights *alone = NULL;
    struct progress progress = {0};
    struct error err;
    if (w->p->world == 1) {
        assert_int_equal(load(w->g, w->p, 0, &progress, &alone, &err), ERR_IO);
        weights_destroy(alone);
        check_names(&err, file);
        assert_true(progress.done < progress.total || progress.total == 0);
    }
    assert_int_equal(comm_local_run(w->p->world, load_in_world, w, &err), ERR_IO);
    check_names(&err, file);
}

/* A file that loses its end after opening: norms or matrices, whichever it holds. Nothing leaks
 * (AddressSanitizer). */
static void check_truncated(const char *name, int file, uint64_t keep_percent)
{
    char dir[] = "/tmp/witan_test_XXXXXX", path[1024];
    assert_non_null(mkdtemp(dir));
    copy_folder(golden_path(name), dir);
    struct golden g = golden_open(dir);
    struct world one = world_open(&g, (struct layout){1, 1, 1, 0});
    struct world three = world_open(&g, (struct layout){1, 1, 1, 3});
    assert_true(one.p && three.p);
    snprintf(path, sizeof path, "%s/%s", dir, checkpoint_file_name(g.ck, file));
    off_t bytes = (off_t)(checkpoint_file_bytes(g.ck, file) * keep_percent / 100);
    assert_int_equal(truncate(path, bytes), 0);
    check_refused(&one, checkpoint_file_name(g.ck, file));
    check_refused(&three, checkpoint_file_name(g.ck, file));
    world_close(&one);
    world_close(&three);
    golden_close(&g);
    remove_folder(dir);
}

static void a_truncated_file_is_named(void **state)
{
    (void)state;
    for (uint64_t percent = 0; percent < 100; percent += 20)
        check_truncated("odd", 0, percent);
    for (int file = 0; file < 6; file++) {
        check_truncated("sharded", file, 50);
        check_truncated("sharded", file, 99);
    }
}

/* Puts a value into the stored matrix of a copy. */
static void spoil(const struct golden *g, const struct weight *t, int64_t row, int64_t col,
                  uint16_t bf16)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", g->dir, checkpoint_file_name(g->ck, t->file));
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(
        fseek(f, (long)(t->offset + (uint64_t)row * t->row_stride) + 2 * col, SEEK_SET), 0);
    assert_int_equal(fwrite(&bf16, sizeof bf16, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

/* Of panels, which have no code for it; as published it is what it is. */
static void what_is_no_number_is_named(void **state)
{
    (void)state;
    static const uint16_t values[] = {0x7fc0, 0x7f80, 0xff80}; /* NaN and both infinities */
    static const char *const found[] = {"found nan", "found inf", "found -inf"};
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        char dir[] = "/tmp/witan_test_XXXXXX";
        struct weights *w = NULL;
        struct progress progress = {0};
        struct error err;
        assert_non_null(mkdtemp(dir));
        copy_folder(golden_path("sharded"), dir);
        struct golden g = golden_open(dir);
        struct world one = world_open(&g, (struct layout){1, 1, 1, 0});
        const struct weight *t = &g.inv->weights[inventory_find(g.inv, WEIGHT_K, 1, -1)];
        assert_int_equal(t->dtype, DTYPE_BF16);
        spoil(&g, t, 13, 31, values[i]);
        must(load(&g, one.p, 0, &progress, &w, &err), &err);
        weights_destroy(w);
        for (enum weight_mode mode = WEIGHTS_INT8; mode <= WEIGHTS_INT4; mode++) {
            w = NULL;
            g.inv->mode = mode;
            assert_int_equal(load(&g, one.p, 0, &progress, &w, &err), ERR_INVALID);
            weights_destroy(w);
            check_names(&err, checkpoint_file_name(g.ck, t->file));
            if (!strstr(err.msg, "k_proj of layer 1: ") || !strstr(err.msg, found[i]) ||
                !strstr(err.msg, "row 13, column 31: expected a number"))
                fail_msg("%s", err.msg);
        }
        world_close(&one);
        golden_close(&g);
        remove_folder(dir);
    }
}

static enum status create_on_gpus(struct comm *world, void *arg, struct error *err)
{
    static const char plugin = 0; /* is never looked at */
    const struct model_options *asked = arg;
    struct model_options o = *asked;
    struct model *m = NULL;
    o.cuda = (const struct cuda_plugin *)(const void *)&plugin;
    return model_create(&o, world, &m, err);
}

static void panels_are_refused_on_gpus(void **state)
{
    (void)state;
    struct error err;
    struct model_options o = {
        .dir = golden_path("sharded"),
        .weights = WEIGHTS_INT4,
        .layout = {1, 1, 1, 0},
        .limits = {.max_rows = 1, .max_seqs = 1, .max_logits = 1, .context = 64, .threads = 1},
    };
    assert_int_equal(comm_local_run(1, create_on_gpus, &o, &err), ERR_UNSUPPORTED);
    if (!strstr(err.msg, "--weights: expected published with --device cuda") ||
        !strstr(err.msg, "found int4"))
        fail_msg("%s", err.msg);
}

static enum status create_unlike(struct comm *world, void *arg, struct error *err)
{
    const struct model_options *asked = arg;
    struct model_options o = *asked;
    struct model *m = NULL;
    o.weights = world->rank == 1 ? WEIGHTS_INT8 : WEIGHTS_INT4;
    return model_create(&o, world, &m, err);
}

/* Ranks whose weights differ would add up sums of two kinds. */
static void ranks_must_have_the_same(void **state)
{
    (void)state;
    struct error err;
    struct model_options o = {
        .dir = golden_path("sharded"),
        .layout = {1, 2, 2, 0},
        .limits = {.max_rows = 1, .max_seqs = 1, .max_logits = 1, .context = 64, .threads = 1},
    };
    assert_int_equal(comm_local_run(2, create_unlike, &o, &err), ERR_INVALID);
    if (!strstr(err.msg, "weights: expected int4, as rank 0 has them, found int8"))
        fail_msg("%s", err.msg);
}

/* Made-up panels have codes that exist, one scale, and nothing in rows past the matrix. */
static void check_made(const struct matrix *m)
{
    int bits = weight_panel_bits(m->shape.form);
    float *row = check_calloc((size_t)m->cols, sizeof *row);
    double squares = 0;
    for (int32_t r = 0; r < m->rows; r++) {
        const char *panel = (const char *)m->data + (uint64_t)(r / 16) * m->shape.row_bytes;
        panel_row(panel, r % 16, m->cols, bits, row);
        for (int32_t c = 0; c < m->cols; c++)
            squares += (double)row[c] * (double)row[c];
    }
    double mean = squares / ((double)m->rows * m->cols);
    assert_true(fabs(mean * m->cols - 1) < 0.25); /* of variance 1 / cols */
    for (uint64_t i = 0; bits == 8 && i < m->shape.bytes; i++)
        if (i % m->shape.row_bytes >= panel_scale_bytes(m->cols))
            assert_int_not_equal(((const uint8_t *)m->data)[i], 0);
    check_rows_past(m, bits);
    free(row);
}

static void panels_made_up(void **state)
{
    (void)state;
    static const char *const names[] = {"sharded", "tied", "gqa16", "yarn"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        for (enum weight_mode mode = WEIGHTS_INT8; mode <= WEIGHTS_INT4; mode++) {
            struct golden g = golden_open(golden_path(names[i]));
            struct world one = world_open(&g, (struct layout){1, 1, 1, 0});
            const struct rank_plan *r = &one.p->ranks[0];
            struct weights *w = NULL;
            struct error err;
            int seen = 0;
            g.inv->mode = mode;
            must(weights_create(&g.config, g.inv, one.p, r, memory_host(), &w, &err), &err);
            must(weights_random(w, 5, &err), &err);
            for (int32_t k = 0; k < r->slice_count; k++) {
                const struct weight *t = &g.inv->weights[r->slices[k].weight];
                if (weight_role_is_vector(t->role) || expected_bits(&g, t) == 0)
                    continue;
                check_made(matrix_in(w, r, t));
                seen++;
            }
            assert_true(seen > 0);
            weights_destroy(w);
            world_close(&one);
            golden_close(&g);
        }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(whole_and_cut_dense),
    cmocka_unit_test(whole_and_cut_with_biases),
    cmocka_unit_test(whole_and_cut_fused),
    cmocka_unit_test(whole_and_cut_sharded),
    cmocka_unit_test(whole_and_cut_tied),
    cmocka_unit_test(whole_and_cut_odd),
    cmocka_unit_test(whole_and_cut_others),
    cmocka_unit_test(whole_and_cut_quantised),
    cmocka_unit_test(whole_and_cut_packed),
    cmocka_unit_test(whole_and_cut_in_panels),
    cmocka_unit_test(whole_and_cut_quantised_in_panels),
    cmocka_unit_test(a_truncated_file_is_named),
    cmocka_unit_test(what_is_no_number_is_named),
    cmocka_unit_test(panels_made_up),
    cmocka_unit_test(panels_are_refused_on_gpus),
    cmocka_unit_test(ranks_must_have_the_same),
};

UNIT_MAIN(tests)
