/* Loading a rank's slices: see weights.h. */
#include "worker/weights.h"
#include "base/check.h"
#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGN = 64,
    CONVERT_BYTES = 8 << 20, /* of fp32 that one thread converts at a time */
};

static struct weight_shape slice_shape(const struct inventory *inv, const struct slice *s)
{
    return weight_shape(inv, &inv->weights[s->weight], s->rows, s->cols);
}

static uint64_t slice_bytes(const struct inventory *inv, const struct slice *s)
{
    return (slice_shape(inv, s).bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Where a slice's matrix is named in struct weights; NULL for vectors. */
static struct matrix *matrix_of(struct weights *w, const struct rank_plan *rank,
                                const struct weight *t)
{
    if (t->role == WEIGHT_EMBED)
        return &w->embed;
    if (t->role == WEIGHT_LM_HEAD)
        return &w->lm_head;
    if (weight_role_is_vector(t->role))
        return NULL;
    struct layer_weights *l = &w->layers[t->layer - rank->layers.begin];
    struct ffn *f = NULL;
    if (l->ffn_count > 0)
        f = &l->ffn[t->expert >= 0 ? t->expert - rank->experts.begin : 0];
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
    case WEIGHT_DOWN:
        return &f->down;
    default:
        CHECK(false, "no matrix for role %d", (int)t->role);
        return NULL;
    }
}

/* Where a slice's vector is named. */
static const float **vector_of(struct weights *w, const struct rank_plan *rank,
                               const struct weight *t)
{
    if (t->role == WEIGHT_FINAL_NORM)
        return &w->final_norm;
    struct layer_weights *l = &w->layers[t->layer - rank->layers.begin];
    switch (t->role) {
    case WEIGHT_INPUT_NORM:
        return &l->input_norm;
    case WEIGHT_POST_NORM:
        return &l->post_norm;
    case WEIGHT_Q_NORM:
        return &l->q_norm;
    case WEIGHT_K_NORM:
        return &l->k_norm;
    case WEIGHT_Q_BIAS:
        return &l->q_bias;
    case WEIGHT_K_BIAS:
        return &l->k_bias;
    case WEIGHT_V_BIAS:
        return &l->v_bias;
    default:
        CHECK(false, "no vector for role %d", (int)t->role);
        return NULL;
    }
}

/* Up to a page's border, so that files are read into it around the page cache. */
static size_t arena_bytes(const struct weights *w)
{
    return (size_t)((w->bytes + w->vector_bytes) / FILE_PAGE + 1) * FILE_PAGE;
}

/* Counts the FFN blocks of each layer and gives each its place. */
static enum status allocate(struct weights *w, const struct model_config *config,
                            const struct inventory *inv, const struct rank_plan *rank,
                            struct memory *memory, struct error *err)
{
    size_t ffns = 0;
    w->layer_count = range_size(rank->layers);
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        if (weight_role_is_vector(inv->weights[s->weight].role))
            w->vector_bytes += (uint64_t)s->rows * (uint64_t)s->cols * sizeof *w->vectors;
        else
            w->bytes += slice_bytes(inv, s);
    }
    w->layers = calloc((size_t)w->layer_count, sizeof *w->layers);
    w->memory = memory;
    w->arena = memory->alloc(memory, arena_bytes(w), false);
    int32_t experts = range_size(rank->experts) > 0 ? range_size(rank->experts) : 1;
    w->ffns = calloc((size_t)w->layer_count * (size_t)experts, sizeof *w->ffns);
    if (!w->layers || !w->arena || !w->ffns)
        return error_set(err, ERR_NO_MEMORY, "no memory for %llu bytes of weights",
                         (unsigned long long)(w->bytes + w->vector_bytes));
    w->vectors = (float *)(void *)((char *)w->arena + w->bytes);
    for (int32_t i = 0; i < w->layer_count; i++) {
        bool moe = config->layer_is_moe[rank->layers.begin + i];
        w->layers[i].ffn = w->ffns + ffns;
        w->layers[i].ffn_count = moe ? range_size(rank->experts) : 1;
        ffns += (size_t)w->layers[i].ffn_count;
    }
    return OK;
}

/* Gives every slice its place in the arena, in the order of the inventory. What lies between two
 * is zero: these bytes are the same in every run. */
static enum status bind_all(struct weights *w, const struct inventory *inv,
                            const struct rank_plan *rank, struct error *err)
{
    static const char zeros[ALIGN];
    char *at = w->arena;
    float *vector = w->vectors;
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *t = &inv->weights[s->weight];
        if (weight_role_is_vector(t->role)) {
            *vector_of(w, rank, t) = vector;
            vector += s->rows * s->cols;
            continue;
        }
        struct weight_shape shape = slice_shape(inv, s);
        *matrix_of(w, rank,
                   t) = (struct matrix){.data = at,
                                        .dtype = shape.form == FORM_BF16 ? DTYPE_BF16 : t->dtype,
                                        .rows = (int32_t)s->rows,
                                        .cols = (int32_t)s->cols,
                                        .shape = shape};
        uint64_t used = shape.used, gap = slice_bytes(inv, s) - used;
        if (gap > 0)
            TRY(w->memory->put(w->memory, at + used, gap, zeros, gap, gap, 1, err));
        at += used + gap;
    }
    return OK;
}

/* What a reader of the log should know: memory and rounding are not those of the checkpoint, or not
 * those that were asked for. */
static void tell_of_others(const struct inventory *inv, const struct rank_plan *rank)
{
    bool panels = inv->mode == WEIGHTS_INT8 || inv->mode == WEIGHTS_INT4;
    enum weight_form other = panels ? FORM_VALUES : FORM_BF16;
    int32_t count = 0;
    uint64_t bytes = 0;
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct weight *t = &inv->weights[rank->slices[i].weight];
        struct weight_shape s = slice_shape(inv, &rank->slices[i]);
        if (s.form != other || weight_role_is_vector(t->role) || t->role == WEIGHT_ROUTER)
            continue;
        count++;
        bytes += s.bytes;
    }
    if (count > 0 && panels)
        log_warn("%d matrices do not become %s (%.1f MB): expected columns, and of o_proj head_dim "
                 "too, to be a multiple of %d",
                 count, weight_mode_name(inv->mode), (double)bytes * 1e-6, PANEL_BLOCK);
    else if (count > 0)
        log_warn(
            "%d quantised matrices become bf16 in memory (%.1f MB): this backend packs FP8 and "
            "4-bit groups of 32, 64, 128, ... columns without desc_act",
            count, (double)bytes * 1e-6);
}

enum status weights_create(const struct model_config *config, const struct inventory *inv,
                           const struct plan *plan, const struct rank_plan *rank,
                           struct memory *memory, struct weights **out, struct error *err)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NO_MEMORY, "no memory for weights");
    enum status st = allocate(w, config, inv, rank, memory, err);
    if (st == OK)
        st = bind_all(w, inv, rank, err);
    if (st != OK) {
        weights_destroy(w);
        return st;
    }
    tell_of_others(inv, rank);
    if (config->tied_embeddings && rank->stage == plan->layout.pp - 1)
        w->lm_head = w->embed;
    *out = w;
    return OK;
}

/* --- what to read --- */

/* What is to be converted goes in runs of rows, so that threads share the work. */
static enum status push_rows(struct load_wants *wants, const struct inventory *inv,
                             const struct weight *t, const struct slice *s, char *to,
                             struct error *err)
{
    struct weight_shape shape = slice_shape(inv, s);
    bool pack = shape.form != FORM_VALUES;
    bool convert = pack || t->store != STORE_PLAIN || weight_role_is_vector(t->role);
    int64_t row = s->cols * (int64_t)sizeof(float), rows = 1; /* of `row` bytes in memory */
    int64_t step = !convert ? s->rows : CONVERT_BYTES / row > 0 ? CONVERT_BYTES / row : 1;
    if (pack) { /* whole blocks, or panels */
        int64_t block = weight_panel_bits(shape.form) ? PANEL_ROWS : inv->quant.block_rows;
        rows = weight_panel_bits(shape.form) ? PANEL_ROWS : 1;
        row = (int64_t)shape.row_bytes;
        step = step < block ? block : step / block * block;
    }
    for (int64_t r = 0; r < s->rows; r += step) {
        const struct quant_rect rect = {s->row + r, s->rows - r < step ? s->rows - r : step, s->col,
                                        s->cols};
        struct load_want want = {weight_cut(inv, t, &rect), to ? to + r / rows * row : NULL,
                                 convert, pack, NULL};
        if (to && shape.scale_rows > 0)
            want.scales = to + shape.scales_at +
                          (uint64_t)(r / shape.scale_rows * shape.groups) * sizeof(uint32_t);
        TRY(load_wants_push(wants, &want, err));
    }
    return OK;
}

/* Where bind_all has put it. */
static char *place_of(struct weights *w, const struct rank_plan *rank, const struct weight *t)
{
    const void *data = weight_role_is_vector(t->role) ? (const void *)*vector_of(w, rank, t)
                                                      : matrix_of(w, rank, t)->data;
    return (char *)(uintptr_t)data; /* in the arena, which is this rank's to write */
}

/* All that a rank wants, into `w`; NULL: of another rank of the machine, which is counted, not
 * placed. */
static enum status want_all(struct load_wants *wants, struct weights *w,
                            const struct inventory *inv, const struct rank_plan *rank,
                            struct error *err)
{
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *t = &inv->weights[s->weight];
        TRY(push_rows(wants, inv, t, s, w ? place_of(w, rank, t) : NULL, err));
    }
    return OK;
}

/* --- together with the machine's other ranks --- */

/* What each rank of the machine wants. */
struct wishes {
    int32_t *ranks; /* [count]: of the world */
    struct load_wants *wants;
    int count;
};

static void wishes_fini(struct wishes *w)
{
    for (int i = 0; w->wants && i < w->count; i++)
        load_wants_fini(&w->wants[i]);
    free(w->wants);
    free(w->ranks);
}

/* Collective: who is here. */
static enum status find_ranks(struct wishes *w, int32_t rank, struct comm *world, struct comm *node,
                              struct error *err)
{
    enum status st = OK;
    w->count = node->size;
    w->ranks = calloc((size_t)node->size, sizeof *w->ranks);
    w->wants = calloc((size_t)node->size, sizeof *w->wants);
    if (!w->ranks || !w->wants)
        st = error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
    TRY(comm_agree(world, st, err));
    w->ranks[0] = rank;
    return node->size == 1 ? OK : node->ops->allgather(node, &rank, sizeof rank, w->ranks, err);
}

static enum status prepare(struct wishes *wishes, struct weights *w, const struct inventory *inv,
                           struct checkpoint *ck, const struct plan *plan, int me,
                           struct loader **loader, struct error *err)
{
    for (int i = 0; i < wishes->count; i++) {
        const struct rank_plan *r = &plan->ranks[wishes->ranks[i]];
        TRY(want_all(&wishes->wants[i], i == me ? w : NULL, inv, r, err));
    }
    return loader_create(ck, inv, wishes->wants, wishes->count, me, w->memory, loader, err);
}

static enum status run(struct loader *loader, struct comm *world, struct comm *node,
                       load_progress progress, void *progress_arg, struct error *err)
{
    enum status st = loader_run(loader, node, progress, progress_arg, err);
    if (st != OK && st != ERR_PEER && node->size < world->size)
        log_error("%s", err->msg); /* other machines may take minutes more */
    return comm_agree(world, st, err);
}

enum status weights_load(struct weights *w, const struct inventory *inv, struct checkpoint *ck,
                         const struct plan *plan, const struct rank_plan *rank, struct comm *world,
                         struct comm *node, load_progress progress, void *progress_arg,
                         struct error *err)
{
    struct comm alone = comm_alone();
    struct wishes wishes = {0};
    struct loader *loader = NULL;
    world = world ? world : &alone;
    node = node ? node : &alone;
    enum status st;
    TRY_OUT(st, find_ranks(&wishes, rank->rank, world, node, err));
    st = prepare(&wishes, w, inv, ck, plan, node->rank, &loader, err);
    TRY_OUT(st, comm_agree(world, st, err));
    TRY_OUT(st, run(loader, world, node, progress, progress_arg, err));
    w->loading_bytes = loader_buffer_bytes(loader);
out:
    loader_destroy(loader);
    wishes_fini(&wishes);
    return st;
}

enum status weights_map(struct weights *w, int fd, uint64_t offset, struct error *err)
{
    size_t used = (size_t)(w->bytes + w->vector_bytes);
    if (!w->memory->host)
        return error_set(err, ERR_UNSUPPORTED, "these weights do not lie in the host's memory");
    w->mapped = true; /* a mmap that fails may leave a hole */
    if (mmap(w->arena, used, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset) == MAP_FAILED) {
        error_errno(err, errno, "mmap of %zu bytes", used);
    } else if (mlock2(w->arena, used, MLOCK_ONFAULT) != 0) {
        error_set(err, ERR_LIMIT,
                  "%zu bytes may not be locked in memory: %s (`ulimit -l unlimited`, or "
                  "LimitMEMLOCK=infinity of a systemd unit, makes starts quicker)",
                  used, strerror(errno));
    } else {
        madvise(w->arena, used, MADV_HUGEPAGE); /* no matter where it cannot */
        if (madvise(w->arena, FILE_PAGE, MADV_POPULATE_READ) == 0 || errno != EINVAL)
            return OK;
        error_set(err, ERR_UNSUPPORTED, "this kernel has no MADV_POPULATE_READ (Linux 5.14)");
    }
    weights_unmap(w);
    return err->code;
}

void weights_unmap(struct weights *w)
{
    if (!w->mapped)
        return;
    w->mapped = false;
    void *p = mmap(w->arena, arena_bytes(w), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(p == w->arena, "memory in place of a file's pages: %s", strerror(errno));
    madvise(p, arena_bytes(w), MADV_HUGEPAGE);
}

void weights_destroy(struct weights *w)
{
    if (!w)
        return;
    weights_unmap(w); /* the allocator has its pages back */
    free(w->layers);
    w->memory->free(w->memory, w->arena);
    free(w->ffns);
    free(w);
}
