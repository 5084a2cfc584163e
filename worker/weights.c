/* Loading a rank's slices: see weights.h. */
#include "worker/weights.h"
#include "base/check.h"
#include "base/clock.h"
#include "partition/manifest.h"
#include "partition/weight_read.h"
#include "worker/cpu/vec.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, READ_CHUNK = 8 << 20 };

/* What the loader's threads share. A job is a run of rows of one slice. */
struct load_job {
    const struct weight *weight;
    int64_t row, rows; /* in the checkpoint's matrix */
    int64_t col, cols;
    char *to;
};

/* A chunk of a file and one of the jobs that want bytes of it. */
struct load_piece {
    int file;
    uint32_t chunk;
    int64_t job;
};

struct load {
    const struct checkpoint *ck;
    const struct inventory *inv;
    struct load_job *jobs; /* those of plain weights first */
    int64_t count, cap, plain;
    /* With a manifest: sorted; and where each chunk's begin, with one more at the end. */
    struct load_piece *pieces;
    int64_t piece_count, piece_cap;
    int64_t *chunks;
    int64_t items; /* that threads take: jobs, or chunks */
    atomic_llong next;
    atomic_ullong done;
    uint64_t total;
    pthread_mutex_t lock; /* over `err`, `last_report` and the progress call */
    struct error err;
    int64_t last_report;
    weights_progress progress;
    void *progress_arg;
};

/* Puts the weight's name before the message. */
static void name_weight(struct error *err, const struct weight *w)
{
    const char *words = weight_role_words(w->role);
    if (w->expert >= 0)
        error_prefix(err, "%s of layer %d expert %d: ", words, w->layer, w->expert);
    else if (w->layer >= 0)
        error_prefix(err, "%s of layer %d: ", words, w->layer);
    else
        error_prefix(err, "%s: ", words);
}

static void load_fail(struct load *l, const struct weight *w, const struct error *e)
{
    pthread_mutex_lock(&l->lock);
    if (l->err.code == OK) {
        l->err = *e;
        name_weight(&l->err, w);
    }
    pthread_mutex_unlock(&l->lock);
    atomic_store(&l->next, l->items); /* the other threads stop */
}

static void load_report(struct load *l, uint64_t bytes)
{
    uint64_t done = atomic_fetch_add(&l->done, bytes) + bytes;
    if (!l->progress)
        return;
    /* Only the end must be said: for the rest nobody waits. */
    if (done == l->total)
        pthread_mutex_lock(&l->lock);
    else if (pthread_mutex_trylock(&l->lock) != 0)
        return;
    done = atomic_load(&l->done); /* so that no later report says less */
    int64_t now = clock_now_ns();
    if (now - l->last_report > 100000000 || done == l->total) {
        l->last_report = now;
        l->progress(l->progress_arg, done, l->total);
    }
    pthread_mutex_unlock(&l->lock);
}

static enum status load_one(struct load *l, const struct load_job *j, struct error *err)
{
    const struct weight *w = j->weight;
    const struct quant_rect rect = {j->row, j->rows, j->col, j->cols};
    if (w->store != STORE_PLAIN)
        return weight_read(l->ck, l->inv, w, &rect, (float *)(void *)j->to, err);
    size_t each = dtype_size(w->dtype), run = (size_t)j->cols * each;
    uint64_t at = w->offset + (uint64_t)j->row * w->row_stride + (uint64_t)j->col * each;
    if (run == w->row_stride)
        return checkpoint_read(l->ck, w->file, at, j->to, run * (size_t)j->rows, err);
    for (int64_t r = 0; r < j->rows; r++)
        TRY(checkpoint_read(l->ck, w->file, at + (uint64_t)r * w->row_stride,
                            j->to + (size_t)r * run, run, err));
    return OK;
}

static void load_thread(void *arg, int thread)
{
    (void)thread;
    struct load *l = arg;
    int64_t i;
    while ((i = atomic_fetch_add(&l->next, 1)) < l->items) {
        const struct load_job *j = &l->jobs[i];
        struct error err;
        if (load_one(l, j, &err) != OK)
            load_fail(l, j->weight, &err);
        else
            load_report(l, (uint64_t)j->rows * (uint64_t)j->cols * dtype_size(j->weight->dtype));
    }
}

/* --- with a manifest: chunk by chunk ---
 * A thread reads a chunk into a buffer of its own, proves it there, and copies from that buffer
 * what any job wants of it. So each chunk is read and hashed once, what is used is what was proven,
 * and while one thread hashes others read. */

/* What the job wants of the chunk that lies in `from`, at `begin` of the file; the bytes copied. */
static uint64_t copy_piece(const struct load_job *j, uint64_t begin, size_t len, const char *from)
{
    const struct weight *w = j->weight;
    size_t each = dtype_size(w->dtype);
    uint64_t stride = w->row_stride, run = (uint64_t)j->cols * each, end = begin + len;
    uint64_t first = w->offset + (uint64_t)j->row * stride + (uint64_t)j->col * each;
    uint64_t rows = (uint64_t)j->rows, copied = 0;
    if (run == stride) { /* all of it is one run */
        stride = run *= rows;
        rows = 1;
    }
    for (uint64_t r = begin > first ? (begin - first) / stride : 0; r < rows; r++) {
        uint64_t at = first + r * stride;
        uint64_t low = at > begin ? at : begin, high = at + run < end ? at + run : end;
        if (at >= end)
            break;
        if (low >= high)
            continue;
        memcpy(j->to + r * run + (low - at), from + (low - begin), high - low);
        copied += high - low;
    }
    return copied;
}

static enum status load_chunk(struct load *l, int64_t i, char *buffer, struct error *err)
{
    const struct load_piece *p = &l->pieces[l->chunks[i]];
    const struct load_piece *end = &l->pieces[l->chunks[i + 1]];
    uint64_t begin = (uint64_t)p->chunk * MANIFEST_CHUNK_BYTES, copied = 0;
    size_t len = 0;
    TRY(checkpoint_read_chunk(l->ck, p->file, p->chunk, buffer, &len, err));
    for (; p < end; p++) {
        const struct load_job *j = &l->jobs[p->job];
        uint64_t bytes = copy_piece(j, begin, len, buffer);
        copied += weight_role_is_vector(j->weight->role) ? 0 : bytes;
    }
    load_report(l, copied);
    return OK;
}

static void load_chunks_thread(void *arg, int thread)
{
    (void)thread;
    struct load *l = arg;
    struct error err;
    int64_t i;
    char *buffer = NULL;
    while ((i = atomic_fetch_add(&l->next, 1)) < l->items) {
        enum status st = ERR_NO_MEMORY;
        if (!buffer)
            buffer = malloc(MANIFEST_CHUNK_BYTES);
        if (buffer)
            st = load_chunk(l, i, buffer, &err);
        else
            error_set(&err, st, "no memory for a chunk of %d bytes", MANIFEST_CHUNK_BYTES);
        if (st != OK)
            load_fail(l, l->jobs[l->pieces[l->chunks[i]].job].weight, &err);
    }
    free(buffer);
}

static int by_chunk(const void *a, const void *b)
{
    const struct load_piece *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    if (x->chunk != y->chunk)
        return x->chunk < y->chunk ? -1 : 1;
    return x->job < y->job ? -1 : x->job > y->job;
}

static enum status push_piece(struct load *l, struct load_piece piece, struct error *err)
{
    if (l->piece_count == l->piece_cap) {
        l->piece_cap = l->piece_cap ? 2 * l->piece_cap : 256;
        struct load_piece *p = realloc(l->pieces, (size_t)l->piece_cap * sizeof *p);
        if (!p)
            return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
        l->pieces = p;
    }
    l->pieces[l->piece_count++] = piece;
    return OK;
}

/* Which chunks the plain jobs need, each once. */
static enum status find_chunks(struct load *l, struct error *err)
{
    for (int64_t i = 0; i < l->plain; i++) {
        const struct load_job *j = &l->jobs[i];
        const struct weight *w = j->weight;
        size_t each = dtype_size(w->dtype);
        uint64_t first = w->offset + (uint64_t)j->row * w->row_stride + (uint64_t)j->col * each;
        uint64_t last = first + (uint64_t)(j->rows - 1) * w->row_stride + (uint64_t)j->cols * each -
                        1;
        for (uint64_t c = first / MANIFEST_CHUNK_BYTES; c <= last / MANIFEST_CHUNK_BYTES; c++)
            TRY(push_piece(l, (struct load_piece){w->file, (uint32_t)c, i}, err));
    }
    if (l->piece_count > 0)
        qsort(l->pieces, (size_t)l->piece_count, sizeof *l->pieces, by_chunk);
    l->chunks = calloc((size_t)l->piece_count + 1, sizeof *l->chunks);
    if (!l->chunks)
        return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
    for (int64_t i = 0; i < l->piece_count; i++) {
        const struct load_piece *p = &l->pieces[i], *before = p - 1;
        if (i == 0 || p->file != before->file || p->chunk != before->chunk)
            l->chunks[l->items++] = i;
    }
    l->chunks[l->items] = l->piece_count;
    return OK;
}

static enum status load_push(struct load *l, struct load_job job, struct error *err)
{
    int64_t each = job.cols * (int64_t)dtype_size(job.weight->dtype);
    int64_t step = READ_CHUNK / each > 0 ? READ_CHUNK / each : 1;
    for (int64_t r = 0; r < job.rows; r += step) {
        if (l->count == l->cap) {
            l->cap = l->cap ? 2 * l->cap : 256;
            struct load_job *p = realloc(l->jobs, (size_t)l->cap * sizeof *p);
            if (!p)
                return error_set(err, ERR_NO_MEMORY, "no memory for the loader's list");
            l->jobs = p;
        }
        struct load_job part = job;
        part.row = job.row + r;
        part.rows = job.rows - r < step ? job.rows - r : step;
        part.to = job.to + r * each;
        l->jobs[l->count++] = part;
    }
    return OK;
}

static size_t slice_bytes(const struct inventory *inv, const struct slice *s)
{
    size_t n = (size_t)s->rows * (size_t)s->cols * dtype_size(inv->weights[s->weight].dtype);
    return (n + ALIGN - 1) / ALIGN * ALIGN;
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

/* Counts the FFN blocks of each layer and gives each its place. */
static enum status allocate(struct weights *w, const struct model_config *config,
                            const struct inventory *inv, const struct rank_plan *rank,
                            struct error *err)
{
    size_t vectors = 0, ffns = 0;
    w->layer_count = range_size(rank->layers);
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        if (weight_role_is_vector(inv->weights[s->weight].role))
            vectors += (size_t)s->rows * (size_t)s->cols;
        else
            w->bytes += slice_bytes(inv, s);
    }
    w->layers = calloc((size_t)w->layer_count, sizeof *w->layers);
    w->arena = aligned_alloc(ALIGN, w->bytes ? w->bytes : ALIGN);
    w->vectors = calloc(vectors ? vectors : 1, sizeof *w->vectors);
    int32_t experts = range_size(rank->experts) > 0 ? range_size(rank->experts) : 1;
    w->ffns = calloc((size_t)w->layer_count * (size_t)experts, sizeof *w->ffns);
    if (!w->layers || !w->arena || !w->vectors || !w->ffns)
        return error_set(err, ERR_NO_MEMORY, "no memory for %llu bytes of weights",
                         (unsigned long long)w->bytes);
    for (int32_t i = 0; i < w->layer_count; i++) {
        bool moe = config->layer_is_moe[rank->layers.begin + i];
        w->layers[i].ffn = w->ffns + ffns;
        w->layers[i].ffn_count = moe ? range_size(rank->experts) : 1;
        ffns += (size_t)w->layers[i].ffn_count;
    }
    return OK;
}

/* Vectors are kilobytes: read at once, or with a manifest from the chunks that others need too. */
static enum status read_vector(struct load *l, const struct weight *t, const struct slice *s,
                               float *to, struct error *err)
{
    if (checkpoint_is_proven(l->ck))
        return load_push(l, (struct load_job){t, s->row, s->rows, 0, s->cols, (char *)to}, err);
    size_t n = (size_t)s->rows * (size_t)s->cols;
    uint64_t at = t->offset + (uint64_t)s->row * t->row_stride;
    enum status st = checkpoint_read(l->ck, t->file, at, to, n * dtype_size(t->dtype), err);
    if (st != OK)
        name_weight(err, t);
    return st;
}

/* What was read as it lies in the file becomes fp32, which is exact. */
static void widen_vector(const struct weight *t, const struct slice *s, float *to)
{
    size_t n = (size_t)s->rows * (size_t)s->cols;
    const uint16_t *half = (const uint16_t *)(const void *)to;
    for (size_t i = n; t->dtype != DTYPE_F32 && i-- > 0;) {
        uint16_t h;
        memcpy(&h, &half[i], sizeof h);
        to[i] = t->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
    }
}

static void widen_vectors(struct weights *w, const struct inventory *inv,
                          const struct rank_plan *rank)
{
    float *vector = w->vectors;
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *t = &inv->weights[s->weight];
        if (!weight_role_is_vector(t->role))
            continue;
        widen_vector(t, s, vector);
        vector += s->rows * s->cols;
    }
}

static enum status place_slices(struct load *l, struct weights *w, const struct inventory *inv,
                                const struct rank_plan *rank, struct error *err)
{
    char *at = w->arena;
    float *vector = w->vectors;
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *t = &inv->weights[s->weight];
        if (weight_role_is_vector(t->role)) {
            TRY(read_vector(l, t, s, vector, err));
            *vector_of(w, rank, t) = vector;
            vector += s->rows * s->cols;
            continue;
        }
        *matrix_of(w, rank, t) = (struct matrix){
            .data = at, .dtype = t->dtype, .rows = (int32_t)s->rows, .cols = (int32_t)s->cols};
        TRY(load_push(l, (struct load_job){t, s->row, s->rows, s->col, s->cols, at}, err));
        at += slice_bytes(inv, s);
        l->total += (uint64_t)s->rows * (uint64_t)s->cols * dtype_size(t->dtype);
    }
    return OK;
}

/* Plain weights first, then what is converted in the order of the files: with a manifest one chunk
 * after the other. */
static int by_place(const void *a, const void *b)
{
    const struct load_job *x = a, *y = b;
    const struct weight *v = x->weight, *w = y->weight;
    if ((v->store != STORE_PLAIN) != (w->store != STORE_PLAIN))
        return v->store != STORE_PLAIN ? 1 : -1;
    if (v->file != w->file)
        return v->file < w->file ? -1 : 1;
    if (v->offset != w->offset)
        return v->offset < w->offset ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

static enum status run_jobs(struct load *l, struct pool *pool, struct error *err)
{
    if (l->count > 0)
        qsort(l->jobs, (size_t)l->count, sizeof *l->jobs, by_place);
    while (l->plain < l->count && l->jobs[l->plain].weight->store == STORE_PLAIN)
        l->plain++;
    if (checkpoint_is_proven(l->ck)) {
        TRY(find_chunks(l, err));
        pool_run(pool, load_chunks_thread, l);
        atomic_store(&l->next, l->plain);
    }
    l->items = l->count;
    if (l->err.code == OK)
        pool_run(pool, load_thread, l);
    if (l->err.code != OK)
        *err = l->err;
    return l->err.code;
}

enum status weights_load(const struct model_config *config, const struct inventory *inv,
                         const struct checkpoint *ck, const struct plan *plan,
                         const struct rank_plan *rank, struct pool *pool, weights_progress progress,
                         void *progress_arg, struct weights **out, struct error *err)
{
    struct weights *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(err, ERR_NO_MEMORY, "no memory for weights");
    struct load l = {.ck = ck, .inv = inv, .progress = progress, .progress_arg = progress_arg};
    pthread_mutex_init(&l.lock, NULL);
    enum status st;
    TRY_OUT(st, allocate(w, config, inv, rank, err));
    TRY_OUT(st, place_slices(&l, w, inv, rank, err));
    TRY_OUT(st, run_jobs(&l, pool, err));
out:
    free(l.jobs);
    free(l.pieces);
    free(l.chunks);
    pthread_mutex_destroy(&l.lock);
    if (st != OK) {
        weights_destroy(w);
        return st;
    }
    widen_vectors(w, inv, rank);
    if (config->tied_embeddings && rank->stage == plan->layout.pp - 1)
        w->lm_head = w->embed;
    *out = w;
    return OK;
}

void weights_destroy(struct weights *w)
{
    if (!w)
        return;
    free(w->layers);
    free(w->arena);
    free(w->vectors);
    free(w->ffns);
    free(w);
}
