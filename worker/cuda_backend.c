/*
 * The CUDA backend: see cuda_backend.h. A stage is launched on one stream and not waited for; the
 * first error is kept, with the stage's name, until `finish`. A step's batch goes to the device in
 * one copy. Decode steps are recorded at the start and then run again (cuda_graphs.h), all but the
 * draw: what it launches depends on what is asked for.
 */
#include "worker/cuda_backend.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/cuda_fast.h"
#include "worker/cuda_graphs.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPIN_NS = 5000000, PAUSE_US = 50 }; /* of a wait under a watch */

enum { SLOTS = 2 };

enum step_mode {
    STEP_PLAIN,
    STEP_RECORD, /* stages are recorded, ranks do not meet */
    STEP_REPLAY, /* stages do nothing: what was recorded runs where ranks meet, and at the end */
};

/* The host's side of a step, pinned: one is filled while the other's is still being read. */
struct step_slot {
    struct cuda_draw *draw; /* [max_seqs], where what goes to the device begins */
    int32_t *batch;         /* behind them */
    int32_t *drawn;         /* [max_seqs]: what comes back */
    unsigned long long *out_of_range;
    cuda_event done;
};

struct backend {
    const struct cuda_plugin *cuda;
    int device;
    cuda_stream stream;
    struct cuda_watch watch; /* look NULL: nobody */
    struct memory memory;    /* this backend's: its functions find their way back */
    struct model_config config;
    struct cuda_attention attention;
    struct engine_limits limits;
    int32_t max_blocks; /* of all tables of a step */
    /* The step's numbers: here, one slot after the other, and there. */
    struct step_slot slots[SLOTS];
    int32_t slot, ended, finished; /* the one that is filled; steps under way; the last to finish */
    struct cuda_draw *device_draw;
    int32_t *device_batch; /* behind it */
    struct cuda_batch batch;
    struct cuda_graphs graphs;
    enum step_mode mode;
    struct recorded_step *step; /* but for STEP_PLAIN */
    int32_t segment;            /* the next of it to be replayed */
    bool gathered;              /* its logits, by what is recorded: all rows of the recording */
    int32_t draws;              /* of this step */
    int32_t logit_rows;         /* of this step in a shard, as gathered */
    int32_t *drawn;             /* [max_seqs], on the device */
    void *sample_work;
    void *partial;                    /* of attention */
    void *router_zeros;               /* as stages.h asks */
    struct cuda_ffn *ffn;             /* as weights->ffns, of all layers */
    const struct ffn *ffn_of;         /* weights->ffns */
    unsigned long long *out_of_range; /* on the device */
    struct cuda_fast fast;
    struct error err; /* the first, since it was created */
};

static struct backend *backend_of(struct memory *m)
{
    return (struct backend *)((char *)m - offsetof(struct backend, memory));
}

static enum status cuda_failed(const struct backend *be, int code, const char *what,
                               struct error *err)
{
    return error_set(err, ERR_IO, "GPU %d: %s: %s", be->device, what, be->cuda->error_text(code));
}

/* Keeps the first failure. */
static void note(struct backend *be, int code, const char *stage)
{
    if (code != 0 && be->err.code == OK)
        cuda_failed(be, code, stage, &be->err);
}

/* Until the stream has run, or up to the event where there is one. Under a watch it is asked, at
 * first without a pause, for decode steps take a few milliseconds. */
static enum status wait_for(struct backend *be, cuda_event event, const char *what,
                            struct error *err)
{
    const struct cuda_plugin *c = be->cuda;
    int64_t start = clock_now_ns();
    bool done = false;
    int e = 0;
    if (!be->watch.look)
        e = event ? c->event_wait(event) : c->wait(be->stream);
    while (be->watch.look && e == 0 && !done) {
        e = event ? c->event_query(event, &done) : c->query(be->stream, &done);
        int64_t waited = clock_now_ns() - start;
        if (e != 0 || done || waited < SPIN_NS)
            continue;
        TRY(be->watch.look(be->watch.arg, what, waited / 1000000, err));
        usleep(PAUSE_US);
    }
    return e == 0 ? OK : cuda_failed(be, e, what, err);
}

/* What a stage launches, unless it is being replayed. */
#define STAGE(be, name, call)                                                                      \
    do {                                                                                           \
        if ((be)->mode != STEP_REPLAY)                                                             \
            note(be, call, name);                                                                  \
    } while (0)

/* --- memory --- */

static void *device_alloc(struct memory *m, uint64_t bytes, bool zero)
{
    struct backend *be = backend_of(m);
    void *p = NULL;
    if (be->cuda->use(be->device) != 0 || be->cuda->alloc(&p, bytes ? bytes : 1) != 0)
        return NULL;
    if (zero && (be->cuda->zero(p, bytes, be->stream) != 0 || be->cuda->wait(be->stream) != 0)) {
        be->cuda->free(p);
        return NULL;
    }
    return p;
}

static void device_free(struct memory *m, void *p)
{
    struct backend *be = backend_of(m);
    if (p && be->cuda->use(be->device) == 0)
        be->cuda->free(p);
}

static enum status device_put(struct memory *m, void *to, uint64_t to_stride, const void *from,
                              uint64_t from_stride, uint64_t run, uint64_t rows, struct error *err)
{
    struct backend *be = backend_of(m);
    int e = be->cuda->use(be->device);
    if (e == 0)
        e = be->cuda->put(to, to_stride, from, from_stride, run, rows, be->stream);
    return e == 0 ? wait_for(be, NULL, "copying to it", err)
                  : cuda_failed(be, e, "copying to it", err);
}

static enum status device_get(struct memory *m, void *to, const void *from, uint64_t bytes,
                              struct error *err)
{
    struct backend *be = backend_of(m);
    int e = be->cuda->use(be->device);
    if (e == 0 && be->watch.look) /* the copy below may wait by itself */
        TRY(wait_for(be, NULL, "copying from it", err));
    if (e == 0)
        e = be->cuda->get(to, from, bytes, be->stream);
    return e == 0 ? wait_for(be, NULL, "copying from it", err)
                  : cuda_failed(be, e, "copying from it", err);
}

static struct memory *cuda_memory(struct backend *be)
{
    return &be->memory;
}

/* --- weights --- */

static bool packed(const struct matrix *m)
{
    return m->shape.form == FORM_E4M3 || m->shape.form == FORM_INT4;
}

static struct cuda_format format(const struct matrix *m)
{
    if (!packed(m))
        return (struct cuda_format){.type = CUDA_BF16};
    return (struct cuda_format){.type = m->shape.form == FORM_E4M3 ? CUDA_E4M3 : CUDA_INT4,
                                .group_shift = m->shape.group_shift,
                                .scale_rows = m->shape.scale_rows};
}

static const void *scales(const struct matrix *m)
{
    return packed(m) ? (const char *)m->data + m->shape.scales_at : NULL;
}

static struct cuda_matrix matrix(const struct matrix *m)
{
    return (struct cuda_matrix){
        .data = m->data, .rows = m->rows, .cols = m->cols, .scale = scales(m), .format = format(m)};
}

static enum status check_matrix(const struct matrix *m, const char *what, struct error *err)
{
    if (m->rows == 0 || m->cols == 0)
        return OK;
    if (m->dtype != DTYPE_BF16 && !packed(m))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected BF16, found %s in memory: the CUDA backend reads bf16, FP8, "
                         "GPTQ and AWQ checkpoints; run this one on CPUs",
                         what, dtype_name(m->dtype));
    if (m->cols % 8 != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected a multiple of 8 columns, found %d: run this model on CPUs",
                         what, m->cols);
    return OK;
}

static enum status check_layer(const struct layer_weights *l, struct error *err)
{
    TRY(check_matrix(&l->q, "q_proj", err));
    TRY(check_matrix(&l->k, "k_proj", err));
    TRY(check_matrix(&l->v, "v_proj", err));
    TRY(check_matrix(&l->o, "o_proj", err));
    TRY(check_matrix(&l->router, "mlp.gate", err));
    for (int32_t e = 0; e < l->ffn_count; e++) {
        TRY(check_matrix(&l->ffn[e].gate, "gate_proj", err));
        TRY(check_matrix(&l->ffn[e].up, "up_proj", err));
        TRY(check_matrix(&l->ffn[e].down, "down_proj", err));
    }
    return OK;
}

/* The experts' pointers, for kernels that take all of a layer's. */
static enum status send_ffns(struct backend *be, const struct weights *w, struct error *err)
{
    int64_t count = 0;
    for (int32_t i = 0; i < w->layer_count; i++)
        count += w->layers[i].ffn_count;
    struct cuda_ffn *table = calloc((size_t)count + 1, sizeof *table);
    uint64_t bytes = (uint64_t)count * sizeof *table;
    be->ffn = device_alloc(&be->memory, bytes, false);
    be->ffn_of = w->ffns;
    if (!table || !be->ffn) {
        free(table);
        return error_set(err, ERR_NO_MEMORY, "GPU %d: no memory for %" PRId64 " experts' places",
                         be->device, count);
    }
    for (int64_t i = 0; i < count; i++)
        table[i] = (struct cuda_ffn){.gate = w->ffns[i].gate.data,
                                     .up = w->ffns[i].up.data,
                                     .down = w->ffns[i].down.data,
                                     .gate_scale = scales(&w->ffns[i].gate),
                                     .up_scale = scales(&w->ffns[i].up),
                                     .down_scale = scales(&w->ffns[i].down)};
    enum status st = OK;
    if (count > 0)
        st = device_put(&be->memory, be->ffn, bytes, table, bytes, bytes, 1, err);
    free(table);
    return st;
}

static enum status cuda_prepare(struct backend *be, const struct weights *w, struct error *err)
{
    TRY(check_matrix(&w->embed, "embed_tokens", err));
    TRY(check_matrix(&w->lm_head, "lm_head", err));
    for (int32_t i = 0; i < w->layer_count; i++)
        TRY(check_layer(&w->layers[i], err));
    TRY(send_ffns(be, w, err));
    return cuda_fast_prepare(&be->fast, &be->config, &be->limits, w, err);
}

/* --- a step's batch --- */

/* Rows of one sequence stand together and share a table: each table goes over once. */
static int32_t flatten_tables(const struct backend *be, const struct batch *b, int32_t *table,
                              int32_t *blocks)
{
    int32_t used = 0;
    for (int32_t i = 0, end; i < b->rows; i = end) {
        int32_t last = b->pos[i];
        for (end = i; end < b->rows && b->block_table[end] == b->block_table[i]; end++) {
            table[end] = used;
            last = b->pos[end] > last ? b->pos[end] : last;
        }
        int32_t n = last / KV_BLOCK + 1;
        CHECK(used + n <= be->max_blocks, "%d blocks of a step's tables", used + n);
        memcpy(blocks + used, b->block_table[i], (size_t)n * sizeof *blocks);
        used += n;
    }
    return used;
}

/* The step's batch in a buffer at `at`, here or on the device. */
static struct cuda_batch lay_out(int32_t *at, int32_t rows, int32_t logits, int32_t longest,
                                 const int32_t *drawn)
{
    return (struct cuda_batch){
        .rows = rows,
        .live = at,
        .token = at + 1,
        .pos = at + 1 + rows,
        .table = at + 1 + 2 * rows,
        .logit_row = at + 1 + 3 * rows,
        .blocks = at + 1 + 3 * rows + logits,
        .drawn = drawn,
        .longest = longest,
        .logits = logits,
    };
}

/* Copies of the last row, with tables of their own; returns the blocks in use. */
static int32_t fill_up(const struct backend *be, const struct batch *b, int32_t rows, int32_t *at,
                       int32_t used)
{
    int32_t last = b->rows - 1, n = b->pos[last] / KV_BLOCK + 1;
    int32_t *token = at + 1, *pos = token + rows, *table = pos + rows, *logit = table + rows;
    int32_t *blocks = logit + rows;
    for (int32_t i = b->rows; i < rows; i++, used += n) {
        CHECK(used + n <= be->max_blocks, "%d blocks of a step's tables", used + n);
        token[i] = token[last];
        pos[i] = pos[last];
        logit[i] = i;
        table[i] = used;
        memcpy(blocks + used, b->block_table[last], (size_t)n * sizeof *blocks);
    }
    return used;
}

/* One row of each sequence, all of which want logits: what is recorded. */
static bool is_decode(const struct batch *b)
{
    for (int32_t i = 1; i < b->rows; i++)
        if (b->block_table[i] == b->block_table[i - 1])
            return false;
    return b->logits == b->rows;
}

static size_t draw_bytes(const struct engine_limits *l)
{
    return (size_t)l->max_seqs * sizeof(struct cuda_draw);
}

static void lay_out_draws(struct backend *be, const struct batch *b)
{
    CHECK(b->draws <= be->limits.max_seqs, "%d draws", b->draws);
    for (int32_t i = 0; i < b->draws; i++) {
        const struct draw *d = &b->draw[i];
        be->slots[be->slot].draw[i] = (struct cuda_draw){.row = d->row,
                                                         .position = d->position,
                                                         .seed = d->sampling.seed,
                                                         .temperature = d->sampling.temperature,
                                                         .top_p = d->sampling.top_p,
                                                         .min_p = d->sampling.min_p,
                                                         .top_k = d->sampling.top_k};
    }
}

static void cuda_begin(struct backend *be, const struct batch *b)
{
    const struct step_slot *slot = &be->slots[be->slot];
    int32_t rows = b->rows, logits = b->logits, *at = slot->batch, longest = 0;
    CHECK(be->ended < SLOTS, "%d steps under way", be->ended);
    CHECK(rows <= be->limits.max_rows && logits <= be->limits.max_logits, "%d rows, %d logits",
          rows, logits);
    if (be->mode == STEP_RECORD) {
        be->batch = lay_out(be->device_batch, rows, logits, be->step->longest, be->drawn);
        note(be, be->cuda->record_begin(be->stream), "recording");
        return;
    }
    for (int32_t i = 0; i < rows; i++)
        longest = b->pos[i] + 1 > longest ? b->pos[i] + 1 : longest;
    be->step = is_decode(b) ? cuda_graphs_find(&be->graphs, rows, longest) : NULL;
    be->mode = be->step ? STEP_REPLAY : STEP_PLAIN;
    be->segment = 0;
    be->draws = 0;
    if (be->step)
        rows = logits = be->step->rows;

    *at = b->rows;
    memcpy(at + 1, b->token, (size_t)b->rows * sizeof *at);
    memcpy(at + 1 + rows, b->pos, (size_t)b->rows * sizeof *at);
    if (b->logits > 0)
        memcpy(at + 1 + 3 * rows, b->logit_row, (size_t)b->logits * sizeof *at);
    int32_t fixed = 1 + 3 * rows + logits;
    int32_t blocks = flatten_tables(be, b, at + 1 + 2 * rows, at + fixed);
    if (be->step)
        blocks = fill_up(be, b, rows, at, blocks);
    fixed += blocks;
    lay_out_draws(be, b);
    be->batch = lay_out(be->device_batch, rows, logits, longest, be->drawn);
    if (!be->step) { /* recorded steps have no runs */
        struct cuda_batch *batch = &be->batch;
        batch->unit = (const struct cuda_unit *)(be->device_batch + fixed);
        batch->runs = be->cuda->attention_units(&be->attention, rows, at + 1 + rows,
                                                at + 1 + 2 * rows, (struct cuda_unit *)(at + fixed),
                                                &batch->alone);
        fixed += 2 * (batch->runs + batch->alone);
    }
    size_t bytes = draw_bytes(&be->limits) + (size_t)fixed * sizeof *at;
    note(be, be->cuda->put(be->device_draw, bytes, slot->draw, bytes, bytes, 1, be->stream),
         "batch");
}

/* --- recorded steps --- */

static bool cuda_record(struct backend *be, int32_t i, struct batch *b)
{
    if (i >= be->graphs.count) {
        const struct recorded_step *last = i > 0 ? &be->graphs.steps[i - 1] : NULL;
        if (last && be->err.code == OK)
            log_info("GPU %d: %d decode steps recorded, up to %d rows, %d nodes in the largest",
                     be->device, i, last->rows, last->nodes);
        return false;
    }
    be->step = &be->graphs.steps[i];
    be->mode = STEP_RECORD;
    *b = (struct batch){.rows = be->step->rows, .logits = be->step->rows};
    return true;
}

static void replay_segment(struct backend *be)
{
    const struct recorded_step *s = be->step;
    CHECK(be->segment < s->count, "segment %d of %d", be->segment, s->count);
    note(be, be->cuda->graph_run(s->segments[be->segment++], be->stream), "a recorded step");
}

static bool cuda_meet(struct backend *be, bool captured)
{
    be->gathered = captured; /* the last to meet before a draw gather its logits */
    if (be->mode == STEP_PLAIN || (be->mode == STEP_RECORD && captured))
        return true;
    if (captured)
        return false;
    if (be->mode == STEP_REPLAY) {
        replay_segment(be);
        return true;
    }
    note(be, recorded_step_cut(be->step, be->cuda, be->stream), "recording");
    note(be, be->cuda->record_begin(be->stream), "recording");
    return false;
}

int32_t cuda_backend_recorded(const struct backend *be, int32_t rows, int32_t longest,
                              int32_t *segments)
{
    const struct recorded_step *s = cuda_graphs_find(&be->graphs, rows, longest);
    *segments = s ? s->count : 0;
    return s ? s->nodes : 0;
}

/* --- stages: float pointers of activations hold bf16 where stages.h says so --- */

static void cuda_stage_embed(struct backend *be, const struct batch *b, const struct matrix *w,
                             int32_t first_row, int32_t hidden, float *x, double *sum)
{
    (void)b;
    struct cuda_matrix m = matrix(w);
    m.cols = hidden; /* a rank without rows of the vocabulary too */
    STAGE(be, "embed", be->cuda->embed(&be->batch, m, first_row, x, sum, be->stream));
}

static void cuda_stage_rope_angles(struct backend *be, const struct batch *b,
                                   const float *frequency, float scale, int32_t head_dim,
                                   float *rope)
{
    (void)b;
    STAGE(be, "rope_angles",
          be->cuda->rope_angles(&be->batch, frequency, scale, head_dim, rope, be->stream));
}

static void cuda_stage_add_norm(struct backend *be, int32_t rows, int32_t hidden, double *sum,
                                float *x, const float *norm, float eps, float *xn)
{
    STAGE(be, "add_norm",
          be->cuda->add_norm(rows, hidden, sum, x, norm, eps, (cuda_bf16 *)(void *)xn, be->stream));
}

static struct cuda_kv cache(const struct kv_layer *kv)
{
    return (struct cuda_kv){(cuda_bf16 *)(void *)kv->data, kv->heads, kv->row};
}

static void cuda_stage_qkv(struct backend *be, const struct batch *b, const struct attention *a,
                           const struct layer_weights *w, const float *xn, const float *rope,
                           float *q_tmp, float *kv_tmp, float *q, const struct kv_layer *kv)
{
    (void)b;
    (void)a;
    int64_t nq = w->q.rows, nk = w->k.rows;
    const struct cuda_part parts[] = {
        {matrix(&w->q), w->q_bias, q_tmp, nq},
        {matrix(&w->k), w->k_bias, kv_tmp, 2 * nk},
        {matrix(&w->v), w->v_bias, kv_tmp + nk, 2 * nk},
    };
    if (cuda_fast_takes(&be->fast, b->rows)) {
        STAGE(be, "qkv products, fast",
              be->fast.table->gemm((const cuda_bf16 *)(const void *)xn, b->rows, parts,
                                   COUNT_OF(parts), be->stream));
        STAGE(be, "qkv, fast",
              be->fast.table->finish_qkv(&be->batch, &be->attention, w->q_norm, w->k_norm, rope,
                                         q_tmp, kv_tmp, (cuda_bf16 *)(void *)q, cache(kv),
                                         be->stream));
        return;
    }
    STAGE(be, "qkv",
          be->cuda->qkv(&be->batch, &be->attention, (const cuda_bf16 *)(const void *)xn, parts,
                        w->q_norm, w->k_norm, rope, (cuda_bf16 *)(void *)q, cache(kv), be->stream));
}

static void cuda_stage_attention(struct backend *be, const struct batch *b,
                                 const struct attention *a, const float *q,
                                 const struct kv_layer *kv, float *out)
{
    (void)b;
    (void)a;
    STAGE(be, "attention",
          be->cuda->attention_run(&be->batch, &be->attention, (const cuda_bf16 *)(const void *)q,
                                  cache(kv), be->partial, (cuda_bf16 *)(void *)out, be->stream));
}

static void cuda_stage_o_proj(struct backend *be, int32_t rows, const struct attention *a,
                              const struct matrix *o, const float *attn, double *sum)
{
    const cuda_bf16 *x = (const cuda_bf16 *)(const void *)attn;
    if (cuda_fast_takes(&be->fast, rows))
        STAGE(be, "o_proj, fast",
              be->fast.table->gemm_sum(x, rows, matrix(o), a->leaves, sum, be->out_of_range,
                                       be->stream));
    else
        STAGE(be, "o_proj",
              be->cuda->gemm_leaf(x, rows, matrix(o), a->head_dim, a->leaves, sum, be->out_of_range,
                                  be->stream));
}

static struct cuda_route cuda_route_of(const struct route *r)
{
    return (struct cuda_route){r->chosen, r->chosen_weight, r->first, r->row, r->weight};
}

static void cuda_stage_router(struct backend *be, int32_t rows, const struct residual *r,
                              const struct matrix *w, int32_t top_k, bool renormalise,
                              struct range local, float *logits, struct route *route)
{
    STAGE(be, "router",
          be->cuda->router(rows, r->hidden, r->sum, r->x, r->norm, r->eps, matrix(w), top_k,
                           renormalise, local.begin, local.end, be->router_zeros,
                           (cuda_bf16 *)(void *)r->xn, logits, cuda_route_of(route), be->stream));
}

static void cuda_stage_route_dense(struct backend *be, int32_t rows, struct route *route)
{
    STAGE(be, "route_dense", be->cuda->route_dense(rows, cuda_route_of(route), be->stream));
}

/* At most so many slots are this rank's: all choices, or a dense layer's rows. */
static int32_t slots_of(const struct backend *be, const struct ffn *ffn, int32_t count)
{
    (void)ffn;
    int32_t k = be->config.top_k > 0 ? be->config.top_k : 1;
    k = k < count ? k : count; /* an expert takes a row once */
    return be->batch.rows * k;
}

static void cuda_stage_ffn_up(struct backend *be, const struct ffn *ffn, int32_t count,
                              const struct route *route, int32_t hidden, const float *xn, float *h)
{
    int32_t columns = count > 0 ? ffn[0].gate.rows : 0;
    if (columns == 0)
        return;
    if (cuda_fast_takes(&be->fast, be->batch.rows)) {
        STAGE(be, "ffn_up, fast",
              be->fast.table->ffn_up(be->fast.maps + (ffn - be->ffn_of), count,
                                     slots_of(be, ffn, count), columns, hidden,
                                     cuda_route_of(route), (const cuda_bf16 *)(const void *)xn,
                                     be->fast.work, (cuda_bf16 *)(void *)h, be->stream));
        return;
    }
    STAGE(be, "ffn_up",
          be->cuda->ffn_up(be->ffn + (ffn - be->ffn_of), format(&ffn->gate), count,
                           slots_of(be, ffn, count), columns, hidden, cuda_route_of(route),
                           (const cuda_bf16 *)(const void *)xn, (cuda_bf16 *)(void *)h,
                           be->stream));
}

static void cuda_stage_ffn_down(struct backend *be, int32_t rows, const struct ffn *ffn,
                                int32_t count, const struct route *route, int32_t hidden,
                                int32_t leaves, const float *h, double *sum)
{
    int32_t columns = count > 0 ? ffn[0].gate.rows : 0;
    if (columns == 0)
        return;
    if (cuda_fast_takes(&be->fast, rows)) {
        STAGE(be, "ffn_down, fast",
              be->fast.table->ffn_down(
                  rows, be->fast.maps + (ffn - be->ffn_of), count, slots_of(be, ffn, count),
                  columns, hidden, cuda_route_of(route), leaves, (const cuda_bf16 *)(const void *)h,
                  be->fast.work, sum, be->out_of_range, be->stream));
        return;
    }
    STAGE(be, "ffn_down",
          be->cuda->ffn_down(rows, be->ffn + (ffn - be->ffn_of), format(&ffn->down), count,
                             slots_of(be, ffn, count), columns, hidden, cuda_route_of(route),
                             leaves, (const cuda_bf16 *)(const void *)h, sum, be->out_of_range,
                             be->stream));
}

static void cuda_stage_lm_head(struct backend *be, const struct batch *b, const struct matrix *w,
                               int32_t padded, const float *xn, int32_t hidden, float *logits)
{
    const struct cuda_part part = {matrix(w), NULL, logits, padded};
    if (b->logits == 0)
        return;
    const cuda_bf16 *x = (const cuda_bf16 *)(const void *)xn;
    if (cuda_fast_takes(&be->fast, b->logits)) {
        STAGE(be, "lm_head's rows",
              be->fast.table->pack_rows(x, be->batch.logit_row, NULL, b->logits, hidden,
                                        be->fast.work, be->stream));
        STAGE(be, "lm_head, fast",
              be->fast.table->gemm(be->fast.work, b->logits, &part, 1, be->stream));
    } else {
        STAGE(be, "lm_head",
              be->cuda->gemm(x, be->batch.logit_row, b->logits, &part, 1, be->stream));
    }
    STAGE(be, "lm_head's padding",
          be->cuda->fill_padding(b->logits, w->rows, padded, logits, padded, be->stream));
}

static void cuda_stage_draw(struct backend *be, const struct batch *b, const float *logits,
                            int32_t shards, int32_t padded)
{
    (void)shards; /* those that hold ids below the limit follow from `padded` */
    if (be->mode == STEP_RECORD)
        return;
    bool all = be->mode == STEP_REPLAY && be->gathered;
    be->logit_rows = all ? be->batch.logits : b->logits;
    be->draws = b->draws;
    if (be->mode == STEP_REPLAY) {
        replay_segment(be);
        be->mode = STEP_PLAIN;
    }
    bool cuts = false;
    for (int32_t i = 0; i < b->draws; i++)
        cuts |= b->draw[i].sampling.top_k > 0 || b->draw[i].sampling.top_p < 1.0f;
    const struct cuda_logits l = {logits, be->logit_rows, padded};
    note(be,
         be->cuda->sample(b->draws, be->device_draw, &l, b->vocab_limit, cuts, be->sample_work,
                          be->drawn, be->stream),
         "draw");
}

static const int32_t *cuda_drawn(const struct backend *be)
{
    return be->slots[be->finished].drawn;
}

static enum status cuda_read_logits(struct backend *be, const struct batch *b, const float *logits,
                                    int32_t shards, int32_t padded, float *rows, struct error *err)
{
    size_t row = (size_t)padded * sizeof *rows;
    if (shards == 1)
        return device_get(&be->memory, rows, logits, (size_t)b->logits * row, err);
    for (int32_t i = 0; i < b->logits; i++)
        for (int32_t s = 0; s < shards; s++)
            TRY(device_get(&be->memory, rows + ((int64_t)i * shards + s) * padded,
                           logits + ((int64_t)s * be->logit_rows + i) * padded, row, err));
    return OK;
}

/* --- life --- */

static void cuda_end(struct backend *be)
{
    const struct step_slot *slot = &be->slots[be->slot];
    if (be->mode == STEP_RECORD)
        note(be, recorded_step_cut(be->step, be->cuda, be->stream), "recording");
    if (be->mode == STEP_REPLAY)
        replay_segment(be);
    be->mode = STEP_PLAIN;
    if (be->draws > 0)
        note(be,
             be->cuda->get(slot->drawn, be->drawn, (size_t)be->draws * sizeof *be->drawn,
                           be->stream),
             "drawn tokens");
    note(be,
         be->cuda->get(slot->out_of_range, be->out_of_range, sizeof *be->out_of_range, be->stream),
         "end");
    note(be, be->cuda->event_record(slot->done, be->stream), "end");
    be->slot = (be->slot + 1) % SLOTS;
    be->ended++;
}

static enum status cuda_finish(struct backend *be, struct error *err)
{
    CHECK(be->ended > 0, "no step has ended");
    be->finished = (be->slot + SLOTS - be->ended) % SLOTS;
    be->ended--;
    struct error e;
    if (wait_for(be, be->slots[be->finished].done, "a stage of this step", &e) != OK &&
        be->err.code == OK)
        be->err = e;
    if (be->err.code != OK && err)
        *err = be->err;
    return be->err.code;
}

cuda_stream cuda_backend_stream(const struct backend *be)
{
    return be->stream;
}

void cuda_backend_watch(struct backend *be, const struct cuda_watch *watch)
{
    be->watch = *watch;
}

static uint64_t cuda_range_exceeded(const struct backend *be)
{
    return *be->slots[be->finished].out_of_range;
}

static void cuda_destroy(struct backend *be)
{
    if (!be)
        return;
    be->cuda->use(be->device);
    cuda_graphs_fini(&be->graphs, be->cuda);
    cuda_fast_fini(&be->fast);
    void *there[] = {be->device_draw,  be->drawn, be->sample_work, be->partial,
                     be->router_zeros, be->ffn,   be->out_of_range};
    for (size_t i = 0; i < COUNT_OF(there); i++)
        device_free(&be->memory, there[i]);
    for (size_t i = 0; i < SLOTS; i++) {
        struct step_slot *slot = &be->slots[i];
        if (slot->draw)
            be->cuda->free_host(slot->draw);
        if (slot->drawn)
            be->cuda->free_host(slot->drawn);
        if (slot->out_of_range)
            be->cuda->free_host(slot->out_of_range);
        if (slot->done)
            be->cuda->event_destroy(slot->done);
    }
    be->cuda->stream_destroy(be->stream);
    free(be);
}

static enum status check_model(const struct backend *be, struct error *err)
{
    const struct model_config *c = &be->config;
    if (be->limits.kv_dtype != KV_BF16)
        return error_set(err, ERR_UNSUPPORTED,
                         "the CUDA backend keeps the KV cache in bf16: leave out --kv f32");
    if (be->limits.fast && c->quant.format != FORMAT_PLAIN)
        return error_set(err, ERR_UNSUPPORTED,
                         "--fast has products of bf16 weights alone, and this model's are "
                         "quantised: leave it out");
    if (be->attention.row > CUDA_MAX_HEAD || c->top_k > CUDA_MAX_TOP_K)
        return error_set(
            err, ERR_UNSUPPORTED,
            "the CUDA backend has heads of at most %d and %d experts a token, found %d "
            "and %d: run this model on CPUs",
            CUDA_MAX_HEAD, CUDA_MAX_TOP_K, c->head_dim, c->top_k);
    if (c->head_dim % 8 != 0) /* a leaf of o_proj begins at a multiple of 16 bytes */
        return error_set(err, ERR_UNSUPPORTED,
                         "attention heads: expected a head_dim that is a multiple of 8, found %d: "
                         "run this model on CPUs",
                         c->head_dim);
    return OK;
}

static struct cuda_attention attention_of(const struct model_config *config,
                                          const struct rank_plan *rank)
{
    return (struct cuda_attention){
        .q_begin = rank->q_heads.begin,
        .q_heads = range_size(rank->q_heads),
        .kv_begin = rank->kv_heads.begin,
        .kv_heads = range_size(rank->kv_heads),
        .group = config->q_heads / config->kv_heads,
        .head_dim = config->head_dim,
        .row = head_row(config->head_dim),
        .eps = config->rms_eps,
    };
}

/* KV blocks of all tables of a step. */
static int64_t table_blocks(const struct engine_limits *l)
{
    return (int64_t)l->max_seqs * ((l->context + KV_BLOCK - 1) / KV_BLOCK);
}

struct cuda_backend_bytes cuda_backend_bytes(const struct cuda_plugin *plugin,
                                             const struct model_config *config,
                                             const struct rank_plan *rank,
                                             const struct engine_limits *l)
{
    struct cuda_attention a = attention_of(config, rank);
    uint64_t ffns = 0;
    int32_t shards = 0;
    if (rank->layers.end == config->layers) /* the last stage draws */
        shards = (config->vocab + rank->vocab_padded - 1) / rank->vocab_padded;
    for (int32_t i = rank->layers.begin; i < rank->layers.end; i++)
        ffns += config->layer_is_moe[i] ? (uint64_t)range_size(rank->experts) : 1;
    return (struct cuda_backend_bytes){
        .batch = draw_bytes(l) + (1 + 5 * (uint64_t)l->max_rows + (uint64_t)l->max_logits +
                                  (uint64_t)table_blocks(l)) *
                                     sizeof(int32_t),
        .tables = ffns * sizeof(struct cuda_ffn) + sizeof(unsigned long long) + CUDA_ROUTER_ZEROS,
        .sampling = (uint64_t)l->max_seqs * sizeof(int32_t) +
                    (shards > 0 ? plugin->sample_bytes(l->max_seqs, shards) : 0),
        .partial = plugin->attention_bytes(l->max_rows, l->context, &a),
        .fast = l->fast ? cuda_fast_bytes(config, l, ffns) : 0,
    };
}

static bool allocate_slot(struct backend *be, struct step_slot *slot, uint64_t there,
                          uint64_t drawn)
{
    if (be->cuda->alloc_host((void **)&slot->draw, there) != 0 ||
        be->cuda->alloc_host((void **)&slot->drawn, drawn) != 0 ||
        be->cuda->alloc_host((void **)&slot->out_of_range, sizeof *slot->out_of_range) != 0 ||
        be->cuda->event_create(&slot->done) != 0)
        return false;
    memset(slot->draw, 0, draw_bytes(&be->limits));
    slot->batch = (int32_t *)(void *)(slot->draw + be->limits.max_seqs);
    *slot->out_of_range = 0;
    return true;
}

static enum status allocate(struct backend *be, const struct rank_plan *rank, struct error *err)
{
    const struct engine_limits *l = &be->limits;
    int64_t tables = table_blocks(l);
    if (tables > INT32_MAX)
        return error_set(err, ERR_LIMIT, "%d sequences of %d tokens are too many KV blocks",
                         l->max_seqs, l->context);
    be->max_blocks = (int32_t)tables;
    TRY(cuda_graphs_init(&be->graphs, l, err));
    struct cuda_backend_bytes n = cuda_backend_bytes(be->cuda, &be->config, rank, l);
    uint64_t drawn = (uint64_t)l->max_seqs * sizeof *be->drawn;
    be->device_draw = device_alloc(&be->memory, n.batch, false);
    be->drawn = device_alloc(&be->memory, drawn, true);
    be->sample_work = device_alloc(&be->memory, n.sampling - drawn, false);
    be->partial = device_alloc(&be->memory, n.partial, true); /* as stages.h asks */
    be->router_zeros = device_alloc(&be->memory, CUDA_ROUTER_ZEROS, true);
    be->out_of_range = device_alloc(&be->memory, sizeof *be->out_of_range, true);
    bool there = be->device_draw && be->drawn && be->sample_work && be->partial &&
                 be->router_zeros && be->out_of_range;
    for (size_t i = 0; there && i < SLOTS; i++)
        there = allocate_slot(be, &be->slots[i], n.batch, drawn);
    if (!there)
        return error_set(err, ERR_NO_MEMORY,
                         "GPU %d: no memory for %" PRIu64 " bytes of a step's buffers: lower "
                         "--step-tokens, --max-seqs or --context",
                         be->device, n.batch + n.sampling + n.partial);
    be->device_batch = (int32_t *)(void *)(be->device_draw + l->max_seqs);
    return OK;
}

enum status cuda_backend_create(const struct cuda_plugin *plugin, int device,
                                const struct model_config *config, const struct rank_plan *rank,
                                const struct engine_limits *limits, const struct kernels **kernels,
                                struct backend **out, struct error *err)
{
    static const struct kernels table = {
        .name = "cuda",
        .memory = cuda_memory,
        .prepare = cuda_prepare,
        .begin = cuda_begin,
        .record = cuda_record,
        .meet = cuda_meet,
        .embed = cuda_stage_embed,
        .rope_angles = cuda_stage_rope_angles,
        .add_norm = cuda_stage_add_norm,
        .qkv = cuda_stage_qkv,
        .attention = cuda_stage_attention,
        .o_proj = cuda_stage_o_proj,
        .router = cuda_stage_router,
        .route_dense = cuda_stage_route_dense,
        .ffn_up = cuda_stage_ffn_up,
        .ffn_down = cuda_stage_ffn_down,
        .lm_head = cuda_stage_lm_head,
        .draw = cuda_stage_draw,
        .ahead = true,
        .drawn = cuda_drawn,
        .read_logits = cuda_read_logits,
        .end = cuda_end,
        .finish = cuda_finish,
        .range_exceeded = cuda_range_exceeded,
        .destroy = cuda_destroy,
    };
    struct backend *be = calloc(1, sizeof *be);
    if (!be)
        return error_set(err, ERR_NO_MEMORY, "no memory for the CUDA backend");
    be->cuda = plugin;
    be->device = device;
    be->memory = (struct memory){false, device_alloc, device_free, device_put, device_get};
    be->config = *config;
    be->limits = *limits;
    be->attention = attention_of(config, rank);
    struct cuda_device_info info;
    enum status st = check_model(be, err);
    if (st == OK)
        st = cuda_plugin_device(plugin, device, &info, err);
    int e = st == OK ? plugin->stream_create(&be->stream) : 0;
    if (e != 0)
        st = cuda_failed(be, e, "opening it", err);
    if (st != OK) {
        free(be);
        return st;
    }
    st = allocate(be, rank, err);
    if (st == OK && limits->fast)
        st = cuda_fast_init(&be->fast, plugin, device, &be->memory, err);
    if (st != OK) {
        cuda_destroy(be);
        return st;
    }
    *kernels = &table;
    *out = be;
    return OK;
}
