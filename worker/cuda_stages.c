/*
 * The CUDA backend's stages, and the weights that they take: see cuda_backend.h. A stage is
 * launched and not waited for; where a step is replayed it does nothing.
 */
#include "worker/cuda_private.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdlib.h>

/* What a stage launches, unless it is being replayed. */
#define STAGE(be, name, call)                                                                      \
    do {                                                                                           \
        if ((be)->mode != STEP_REPLAY)                                                             \
            cuda_note(be, call, name);                                                             \
    } while (0)

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
    be->ffn = be->memory.alloc(&be->memory, bytes, false);
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
        st = be->memory.put(&be->memory, be->ffn, bytes, table, bytes, bytes, 1, err);
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
    return (struct cuda_kv){(cuda_bf16 *)(void *)kv->data, kv->heads, kv->row,
                            kv->dtype == KV_INT8};
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

static void cuda_stage_draw(struct backend *be, const struct batch *b, float *logits,
                            int32_t shards, int32_t padded)
{
    (void)shards; /* those that hold ids below the limit follow from `padded` */
    if (be->mode == STEP_RECORD)
        return;
    bool all = be->mode == STEP_REPLAY && be->gathered;
    be->logit_rows = all ? be->batch.logits : b->logits;
    be->draws = b->draws;
    if (be->mode == STEP_REPLAY) {
        cuda_replay_segment(be);
        be->mode = STEP_PLAIN;
    }
    bool cuts = false;
    for (int32_t i = 0; i < b->draws; i++)
        cuts |= b->draw[i].sampling.top_k > 0 || b->draw[i].sampling.top_p < 1.0f;
    const struct cuda_logits l = {logits, be->logit_rows, padded};
    cuda_note(be,
              be->cuda->sample(b->draws, be->device_draw, be->edits, &l, b->vocab_limit, cuts,
                               be->sample_work, be->drawn, be->stream),
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
        return be->memory.get(&be->memory, rows, logits, (size_t)b->logits * row, err);
    for (int32_t i = 0; i < b->logits; i++)
        for (int32_t s = 0; s < shards; s++)
            TRY(be->memory.get(&be->memory, rows + ((int64_t)i * shards + s) * padded,
                               logits + ((int64_t)s * be->logit_rows + i) * padded, row, err));
    return OK;
}

/* --- the table --- */

const struct kernels cuda_kernels = {
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
