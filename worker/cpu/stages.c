/*
 * The CPU backend: the fused stages of worker/kernels.h composed from the single-thread operations
 * of ops.h, spread over the rank's pool. How work is cut among threads never changes a bit: every
 * output element is computed whole by one thread.
 */
#include "base/check.h"
#include "worker/cpu/ops.h"
#include "worker/cpu/vec.h"
#include "worker/detmath.h"
#include "worker/kernels.h"
#include "worker/sampler.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Columns of an FFN strip: a thread computes gate and up of one strip and joins them in cache. */
enum { STRIP = 32, GRAIN = 4 };

struct backend {
    const struct cpu_ops *ops;
    struct pool *pool;
    int threads;
    char *scratch; /* [threads][scratch_bytes]; owned */
    uint64_t scratch_bytes;
    atomic_ullong range_exceeded;
    int32_t draws;           /* at most */
    int32_t *drawn;          /* [draws] */
    float *row;              /* [padded vocabulary]: one that ranks have in shards */
    struct sampler *sampler; /* NULL: this rank draws nothing */
};

static float *scratch_of(struct backend *be, int thread)
{
    return (float *)(void *)(be->scratch + (size_t)thread * be->scratch_bytes);
}

static void count_range(struct backend *be, float largest, int32_t leaves)
{
    if (!(largest < 1048576.0f / (float)leaves))
        atomic_fetch_add_explicit(&be->range_exceeded, 1, memory_order_relaxed);
}

/* --- embedding ------------------------------------------------------------------------------- */

static float element(const struct matrix *w, int64_t i)
{
    if (w->dtype == DTYPE_F32)
        return ((const float *)w->data)[i];
    uint16_t h = ((const uint16_t *)w->data)[i];
    return w->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

static void cpu_embed(struct backend *be, const struct batch *b, const struct matrix *w,
                      int32_t first_row, int32_t hidden, float *x, double *sum)
{
    (void)be;
    memset(x, 0, (size_t)b->rows * (size_t)hidden * sizeof *x);
    for (int32_t i = 0; i < b->rows; i++) {
        double *to = sum + (int64_t)i * hidden;
        int32_t row = b->token[i] - first_row;
        bool here = row >= 0 && row < w->rows;
        for (int32_t j = 0; j < hidden; j++) /* + 0 makes -0 what a sum over ranks makes it */
            to[j] = here ? (double)element(w, (int64_t)row * hidden + j) + 0.0 : 0.0;
    }
}

/* --- RoPE ------------------------------------------------------------------------------------- */

static void cpu_rope_angles(struct backend *be, const struct batch *b, const float *frequency,
                            float scale, int32_t head_dim, float *rope)
{
    (void)be;
    int32_t half = head_dim / 2;
    for (int32_t i = 0; i < b->rows; i++) {
        float *cosines = rope + (int64_t)i * head_dim, *sines = cosines + half;
        for (int32_t d = 0; d < half; d++) {
            float angle = (float)b->pos[i] * frequency[d];
            double s, c;
            det_sincos((double)angle, &s, &c);
            cosines[d] = (float)c * scale;
            sines[d] = (float)s * scale;
        }
    }
}

/* Half-split rotation (x_d, x_{d + half}) of one head. */
static void rotate(const float *x, const float *rope, int32_t head_dim, float *y)
{
    int32_t half = head_dim / 2;
    const float *c = rope, *s = rope + half;
    for (int32_t d = 0; d < half; d++) {
        float a = x[d], b = x[d + half];
        y[d] = a * c[d] - b * s[d];
        y[d + half] = b * c[d] + a * s[d];
    }
}

/* --- residual and norm ------------------------------------------------------------------------ */

struct add_norm_job {
    struct backend *be;
    int32_t rows, hidden;
    const double *sum;
    float *x;
    const float *norm;
    float eps;
    float *xn;
};

static void add_norm_thread(void *arg, int thread)
{
    struct add_norm_job *j = arg;
    int64_t begin, end;
    pool_part(j->rows, 1, j->be->threads, thread, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float *x = j->x + i * j->hidden;
        const double *sum = j->sum ? j->sum + i * j->hidden : NULL;
        for (int32_t k = 0; sum && k < j->hidden; k++)
            x[k] += (float)sum[k];
        if (j->norm)
            j->be->ops->rms_norm(x, j->norm, j->hidden, j->eps, j->xn + i * j->hidden);
    }
}

static void cpu_add_norm(struct backend *be, int32_t rows, int32_t hidden, double *sum, float *x,
                         const float *norm, float eps, float *xn)
{
    struct add_norm_job j = {be, rows, hidden, sum, x, norm, eps, xn};
    pool_run(be->pool, add_norm_thread, &j);
}

/* --- q, k, v ---------------------------------------------------------------------------------- */

struct qkv_job {
    struct backend *be;
    const struct batch *b;
    const struct attention *a;
    const struct layer_weights *w;
    const float *xn, *rope;
    float *q_tmp, *kv_tmp, *q;
    const struct kv_layer *kv;
    float q_scale;
};

/* The part of columns [begin, end) of the joined q, k, v that lies in `w`, whose columns begin at
 * `first`; `bias` (may be NULL) is added to the finished dot products. */
static void project_part(const struct qkv_job *j, const struct matrix *w, const float *bias,
                         int64_t first, int64_t begin, int64_t end, float *y, int64_t ldy)
{
    int64_t n0 = begin > first ? begin - first : 0;
    int64_t n1 = end - first < w->rows ? end - first : w->rows;
    if (n0 < n1)
        j->be->ops->gemm(j->xn, w->cols, NULL, j->b->rows, w, (int32_t)n0, (int32_t)n1, y + n0,
                         ldy);
    for (int32_t i = 0; bias && i < j->b->rows; i++)
        for (int64_t n = n0; n < n1; n++)
            y[i * ldy + n] += bias[n];
}

static void project_thread(void *arg, int thread)
{
    struct qkv_job *j = arg;
    const struct layer_weights *w = j->w;
    int64_t nq = w->q.rows, nk = w->k.rows, begin, end;
    pool_part(nq + 2 * nk, GRAIN, j->be->threads, thread, &begin, &end);
    project_part(j, &w->q, w->q_bias, 0, begin, end, j->q_tmp, nq);
    project_part(j, &w->k, w->k_bias, nq, begin, end, j->kv_tmp, 2 * nk);
    project_part(j, &w->v, w->v_bias, nq + nk, begin, end, j->kv_tmp + nk, 2 * nk);
}

/* q head: norm where the model has one, rotate, scale, pad. */
static void finish_q(const struct qkv_job *j, int64_t row, int32_t head)
{
    const struct attention *a = j->a;
    int32_t heads = range_size(a->q_heads);
    float *x = j->q_tmp + (row * heads + head) * a->head_dim;
    float *y = j->q + (row * heads + head) * a->row;
    if (j->w->q_norm)
        j->be->ops->rms_norm(x, j->w->q_norm, a->head_dim, a->eps, x);
    rotate(x, j->rope + row * a->head_dim, a->head_dim, y);
    for (int32_t d = 0; d < a->head_dim; d++)
        y[d] *= j->q_scale;
    for (int32_t d = a->head_dim; d < a->row; d++)
        y[d] = 0.0f;
}

static void cache_put(const struct kv_layer *kv, char *tile, int64_t at, float f)
{
    if (kv->dtype == KV_F32)
        ((float *)(void *)tile)[at] = f;
    else
        ((uint16_t *)(void *)tile)[at] = f32_to_bf16(f);
}

/* k head: norm where the model has one, rotate; k and v into the cache. */
static void finish_kv(const struct qkv_job *j, int64_t row, int32_t head, float *scratch)
{
    const struct attention *a = j->a;
    int32_t heads = range_size(a->kv_heads), pos = j->b->pos[row];
    float *k = j->kv_tmp + (row * 2 * heads + head) * a->head_dim;
    const float *v = k + (int64_t)heads * a->head_dim;
    char *k_tile = kv_tile(j->kv, j->b->block_table[row][pos / KV_BLOCK], head);
    char *v_tile = k_tile + kv_tile_bytes(j->kv->dtype, a->row);
    int64_t slot = pos % KV_BLOCK;
    if (j->w->k_norm)
        j->be->ops->rms_norm(k, j->w->k_norm, a->head_dim, a->eps, k);
    rotate(k, j->rope + row * a->head_dim, a->head_dim, scratch);
    for (int32_t d = 0; d < a->head_dim; d++) {
        cache_put(j->kv, k_tile, (int64_t)d * KV_BLOCK + slot, scratch[d]);
        cache_put(j->kv, v_tile, slot * a->row + d, v[d]);
    }
}

static void finish_thread(void *arg, int thread)
{
    struct qkv_job *j = arg;
    int32_t q_heads = range_size(j->a->q_heads), kv_heads = range_size(j->a->kv_heads);
    int32_t heads = q_heads + kv_heads;
    int64_t begin, end;
    pool_part((int64_t)j->b->rows * heads, 1, j->be->threads, thread, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / heads;
        int32_t head = (int32_t)(i % heads);
        if (head < q_heads)
            finish_q(j, row, head);
        else
            finish_kv(j, row, head - q_heads, scratch_of(j->be, thread));
    }
}

static void cpu_qkv(struct backend *be, const struct batch *b, const struct attention *a,
                    const struct layer_weights *w, const float *xn, const float *rope, float *q_tmp,
                    float *kv_tmp, float *q, const struct kv_layer *kv)
{
    struct qkv_job j = {be, b, a, w, xn, rope, q_tmp, kv_tmp, q, kv, 0.0f};
    j.q_scale = 1.0f / __builtin_sqrtf((float)a->head_dim);
    pool_run(be->pool, project_thread, &j);
    pool_run(be->pool, finish_thread, &j);
}

/* --- attention -------------------------------------------------------------------------------- */

struct attention_job {
    struct backend *be;
    const struct batch *b;
    const struct attention *a;
    const float *q;
    const struct kv_layer *kv;
    float *out;
};

/* Tiles in the order of the sequence, joined one by one: online softmax with a fixed order. */
static void attend(const struct attention_job *j, int64_t row, int32_t kv_head, float *scratch)
{
    const struct attention *a = j->a;
    int32_t first = kv_head * a->group, last = first + a->group, heads = range_size(a->q_heads);
    first = first > a->q_heads.begin ? first : a->q_heads.begin;
    last = last < a->q_heads.end ? last : a->q_heads.end;
    int32_t n = last - first, hd = a->row, length = j->b->pos[row] + 1;
    float *scores = scratch, *o = scores + (int64_t)n * KV_BLOCK, *ro = o + (int64_t)n * hd;
    float *m = ro + (int64_t)n * hd, *l = m + n, *rm = l + n, *rl = rm + n;
    const float *q = j->q + (row * heads + first - a->q_heads.begin) * hd;
    for (int32_t t = 0; t * KV_BLOCK < length; t++) {
        int32_t count = length - t * KV_BLOCK < KV_BLOCK ? length - t * KV_BLOCK : KV_BLOCK;
        const char *k = kv_tile(j->kv, j->b->block_table[row][t], kv_head - a->kv_heads.begin);
        const char *v = k + kv_tile_bytes(j->kv->dtype, hd);
        bool start = t == 0;
        j->be->ops->attention_tile(q, n, hd, k, v, j->kv->dtype, count, scores, start ? rm : m,
                                   start ? rl : l, start ? ro : o);
        for (int32_t h = 0; !start && h < n; h++)
            j->be->ops->attention_join(m[h], l[h], o + (int64_t)h * hd, hd, &rm[h], &rl[h],
                                       ro + (int64_t)h * hd);
    }
    for (int32_t h = 0; h < n; h++) {
        float *to = j->out + (row * heads + first + h - a->q_heads.begin) * a->head_dim;
        for (int32_t d = 0; d < a->head_dim; d++)
            to[d] = ro[(int64_t)h * hd + d] / rl[h];
    }
}

static void attention_thread(void *arg, int thread)
{
    struct attention_job *j = arg;
    int64_t heads = range_size(j->a->kv_heads), items = j->b->rows * heads;
    /* Interleaved, since later rows of a prompt see more positions. */
    for (int64_t i = thread; i < items; i += j->be->threads)
        attend(j, i / heads, j->a->kv_heads.begin + (int32_t)(i % heads),
               scratch_of(j->be, thread));
}

static void cpu_attention(struct backend *be, const struct batch *b, const struct attention *a,
                          const float *q, const struct kv_layer *kv, float *out)
{
    struct attention_job j = {be, b, a, q, kv, out};
    pool_run(be->pool, attention_thread, &j);
}

/* --- exact row-parallel projections ------------------------------------------------------------
 */

struct exact_job {
    struct backend *be;
    int32_t rows, hidden, leaf, leaves;
    const struct matrix *o; /* o_proj */
    const struct ffn *ffn;  /* or ffn_down */
    int32_t count;
    const struct route *route;
    const float *x;
    double *sum;
};

static void exact_thread(void *arg, int thread)
{
    struct exact_job *j = arg;
    int64_t begin, end;
    pool_part(j->hidden, GRAIN, j->be->threads, thread, &begin, &end);
    int32_t n0 = (int32_t)begin, n1 = (int32_t)end;
    double *sum = j->sum + begin;
    for (int32_t i = 0; i < j->rows; i++)
        memset(sum + (int64_t)i * j->hidden, 0, (size_t)(end - begin) * sizeof *sum);
    float largest = 0.0f;
    if (j->o)
        largest = j->be->ops->gemm_leaf(j->x, j->o->cols, j->rows, j->o, j->leaf, n0, n1, NULL,
                                        NULL, sum, j->hidden);
    for (int32_t e = 0; !j->o && e < j->count; e++) {
        int32_t s = j->route->first[e], m = j->route->first[e + 1] - s;
        const struct matrix *down = &j->ffn[e].down;
        if (m == 0 || down->cols == 0)
            continue;
        float top = j->be->ops->gemm_leaf(j->x + (int64_t)s * down->cols, down->cols, m, down,
                                          j->leaf, n0, n1, j->route->weight + s, j->route->row + s,
                                          sum, j->hidden);
        largest = top <= largest || largest != largest ? largest : top; /* a NaN stays */
    }
    count_range(j->be, largest, j->leaves);
}

static void cpu_o_proj(struct backend *be, int32_t rows, const struct attention *a,
                       const struct matrix *o, const float *attn, double *sum)
{
    struct exact_job j = {.be = be,
                          .rows = rows,
                          .hidden = o->rows,
                          .leaf = a->head_dim,
                          .leaves = a->leaves,
                          .o = o,
                          .x = attn,
                          .sum = sum};
    pool_run(be->pool, exact_thread, &j);
}

static void cpu_ffn_down(struct backend *be, int32_t rows, const struct ffn *ffn, int32_t count,
                         const struct route *route, int32_t hidden, int32_t leaves, const float *h,
                         double *sum)
{
    struct exact_job j = {.be = be,
                          .rows = rows,
                          .hidden = hidden,
                          .leaf = FFN_BLOCK,
                          .leaves = leaves,
                          .ffn = ffn,
                          .count = count,
                          .route = route,
                          .x = h,
                          .sum = sum};
    pool_run(be->pool, exact_thread, &j);
}

/* --- routing -----------------------------------------------------------------------------------
 */

/* The top_k largest probabilities, ties to the lower id, in descending order. */
static void choose_experts(float *p, int32_t experts, int32_t top_k, bool renormalise,
                           int32_t *chosen, float *weight)
{
    float total = 0.0f;
    for (int32_t k = 0; k < top_k; k++) {
        int32_t best = 0;
        for (int32_t e = 1; e < experts; e++)
            if (p[e] > p[best])
                best = e;
        chosen[k] = best;
        weight[k] = p[best];
        total += p[best];
        p[best] = -1.0f;
    }
    for (int32_t k = 0; renormalise && k < top_k; k++)
        weight[k] /= total;
}

struct router_job {
    struct backend *be;
    int32_t rows, top_k;
    const struct matrix *w;
    bool renormalise;
    const float *xn;
    float *logits;
    struct route *route;
};

static void router_thread(void *arg, int thread)
{
    struct router_job *j = arg;
    int64_t begin, end;
    pool_part(j->rows, 1, j->be->threads, thread, &begin, &end);
    int32_t experts = j->w->rows;
    float *logits = j->logits + begin * experts;
    j->be->ops->gemm(j->xn + begin * j->w->cols, j->w->cols, NULL, (int32_t)(end - begin), j->w, 0,
                     experts, logits, experts);
    for (int64_t i = begin; i < end; i++, logits += experts) {
        j->be->ops->softmax(logits, experts);
        choose_experts(logits, experts, j->top_k, j->renormalise, j->route->chosen + i * j->top_k,
                       j->route->chosen_weight + i * j->top_k);
    }
}

static void cpu_router(struct backend *be, int32_t rows, const struct residual *r,
                       const struct matrix *w, int32_t top_k, bool renormalise, struct range local,
                       float *logits, struct route *route)
{
    struct router_job j = {be, rows, top_k, w, renormalise, r->xn, logits, route};
    cpu_add_norm(be, rows, r->hidden, r->sum, r->x, r->norm, r->eps, r->xn);
    pool_run(be->pool, router_thread, &j);
    /* Slots by expert: a counting sort of the choices that fall to this rank. */
    int32_t count = range_size(local), *first = route->first;
    memset(first, 0, ((size_t)count + 1) * sizeof *first);
    for (int32_t i = 0; i < rows * top_k; i++) {
        int32_t e = route->chosen[i] - local.begin;
        if (e >= 0 && e < count)
            first[e + 1]++;
    }
    for (int32_t e = 0; e < count; e++)
        first[e + 1] += first[e];
    for (int32_t i = 0; i < rows * top_k; i++) {
        int32_t e = route->chosen[i] - local.begin;
        if (e < 0 || e >= count)
            continue;
        route->row[first[e]] = i / top_k;
        route->weight[first[e]++] = route->chosen_weight[i];
    }
    for (int32_t e = count; e > 0; e--)
        first[e] = first[e - 1];
    first[0] = 0;
}

static void cpu_route_dense(struct backend *be, int32_t rows, struct route *route)
{
    (void)be;
    route->first[0] = 0;
    route->first[1] = rows;
    for (int32_t i = 0; i < rows; i++) {
        route->row[i] = i;
        route->weight[i] = 1.0f;
    }
}

/* --- FFN up ------------------------------------------------------------------------------------
 */

struct ffn_job {
    struct backend *be;
    const struct ffn *ffn;
    int32_t count, hidden;
    const struct route *route;
    const float *xn;
    float *h;
};

/* Columns [c0, c1) of one expert's h for its slots, in blocks of rows whose `up` fits the scratch.
 */
static void ffn_strip(const struct ffn_job *j, int32_t e, int32_t c0, int32_t c1, float *up)
{
    const struct ffn *f = &j->ffn[e];
    int32_t cols = f->gate.rows, width = c1 - c0;
    int32_t block = (int32_t)(j->be->scratch_bytes / sizeof *up / STRIP);
    for (int32_t s = j->route->first[e]; s < j->route->first[e + 1]; s += block) {
        int32_t m = j->route->first[e + 1] - s;
        m = m < block ? m : block;
        const int32_t *rows = j->route->row + s;
        float *h = j->h + (int64_t)s * cols + c0;
        j->be->ops->gemm(j->xn, j->hidden, rows, m, &f->gate, c0, c1, h, cols);
        j->be->ops->gemm(j->xn, j->hidden, rows, m, &f->up, c0, c1, up, width);
        for (int32_t i = 0; i < m; i++)
            j->be->ops->silu_mul(h + (int64_t)i * cols, up + (int64_t)i * width, width);
    }
}

static void ffn_up_thread(void *arg, int thread)
{
    struct ffn_job *j = arg;
    int32_t turn = 0;
    for (int32_t e = 0; e < j->count; e++) {
        if (j->route->first[e] == j->route->first[e + 1])
            continue;
        int32_t cols = j->ffn[e].gate.rows;
        for (int32_t c = 0; c < cols; c += STRIP)
            if (turn++ % j->be->threads == thread)
                ffn_strip(j, e, c, c + STRIP < cols ? c + STRIP : cols, scratch_of(j->be, thread));
    }
}

static void cpu_ffn_up(struct backend *be, const struct ffn *ffn, int32_t count,
                       const struct route *route, int32_t hidden, const float *xn, float *h)
{
    struct ffn_job j = {be, ffn, count, hidden, route, xn, h};
    pool_run(be->pool, ffn_up_thread, &j);
}

/* --- lm_head -----------------------------------------------------------------------------------
 */

struct head_job {
    struct backend *be;
    const struct batch *b;
    const struct matrix *w;
    int32_t padded;
    const float *xn;
    int32_t hidden;
    float *logits;
};

static void head_thread(void *arg, int thread)
{
    struct head_job *j = arg;
    int64_t begin, end;
    pool_part(j->w->rows, GRAIN, j->be->threads, thread, &begin, &end);
    if (begin < end)
        j->be->ops->gemm(j->xn, j->hidden, j->b->logit_row, j->b->logits, j->w, (int32_t)begin,
                         (int32_t)end, j->logits + begin, j->padded);
}

static void cpu_lm_head(struct backend *be, const struct batch *b, const struct matrix *w,
                        int32_t padded, const float *xn, int32_t hidden, float *logits)
{
    struct head_job j = {be, b, w, padded, xn, hidden, logits};
    pool_run(be->pool, head_thread, &j);
    for (int32_t i = 0; i < b->logits; i++)
        for (int32_t n = w->rows; n < padded; n++)
            logits[(int64_t)i * padded + n] = -INFINITY;
}

/* --- drawing -----------------------------------------------------------------------------------
 */

/* A row of logits, as ranks have gathered it, in one piece. */
static void join_shards(const float *logits, int32_t shards, int32_t rows, int32_t padded,
                        int32_t row, float *out)
{
    for (int32_t s = 0; s < shards; s++)
        memcpy(out + (int64_t)s * padded, logits + ((int64_t)s * rows + row) * padded,
               (size_t)padded * sizeof *out);
}

static void cpu_draw(struct backend *be, const struct batch *b, const float *logits, int32_t shards,
                     int32_t padded)
{
    CHECK(b->draws <= be->draws, "%d draws of %d", b->draws, be->draws);
    for (int32_t i = 0; i < b->draws; i++) {
        const struct draw *d = &b->draw[i];
        const float *row = logits + (int64_t)d->row * padded;
        if (shards > 1) {
            join_shards(logits, shards, b->logits, padded, d->row, be->row);
            row = be->row;
        }
        be->drawn[i] = sampler_draw(be->sampler, row, b->vocab_limit, &d->sampling, d->position);
    }
}

static enum status cpu_read_logits(struct backend *be, const struct batch *b, const float *logits,
                                   int32_t shards, int32_t padded, float *rows, struct error *err)
{
    (void)be;
    (void)err;
    for (int32_t i = 0; i < b->logits; i++)
        join_shards(logits, shards, b->logits, padded, i, rows + (int64_t)i * shards * padded);
    return OK;
}

/* --- life --------------------------------------------------------------------------------------
 */

static struct memory *cpu_memory(struct backend *be)
{
    (void)be;
    return memory_host();
}

static enum status cpu_prepare(struct backend *be, const struct weights *w, struct error *err)
{
    (void)be;
    (void)w;
    (void)err;
    return OK;
}

static void cpu_begin(struct backend *be, const struct batch *b)
{
    (void)be;
    (void)b;
}

static const int32_t *cpu_drawn(const struct backend *be)
{
    return be->drawn;
}

/* A stage has run when it returns. */
static void cpu_end(struct backend *be)
{
    (void)be;
}

static enum status cpu_finish(struct backend *be, struct error *err)
{
    (void)be;
    (void)err;
    return OK;
}

static uint64_t cpu_range_exceeded(const struct backend *be)
{
    return atomic_load(&be->range_exceeded);
}

static void cpu_destroy(struct backend *be)
{
    if (!be)
        return;
    sampler_destroy(be->sampler);
    free(be->row);
    free(be->drawn);
    free(be->scratch);
    free(be);
}

enum status cpu_backend_create(const char *ops, struct pool *pool, uint64_t scratch_bytes,
                               int32_t draws, int32_t vocab, const struct kernels **kernels,
                               struct backend **out, struct error *err)
{
    static const struct kernels table = {
        .name = "cpu",
        .memory = cpu_memory,
        .prepare = cpu_prepare,
        .begin = cpu_begin,
        .embed = cpu_embed,
        .rope_angles = cpu_rope_angles,
        .add_norm = cpu_add_norm,
        .qkv = cpu_qkv,
        .attention = cpu_attention,
        .o_proj = cpu_o_proj,
        .router = cpu_router,
        .route_dense = cpu_route_dense,
        .ffn_up = cpu_ffn_up,
        .ffn_down = cpu_ffn_down,
        .lm_head = cpu_lm_head,
        .draw = cpu_draw,
        .drawn = cpu_drawn,
        .read_logits = cpu_read_logits,
        .end = cpu_end,
        .finish = cpu_finish,
        .range_exceeded = cpu_range_exceeded,
        .destroy = cpu_destroy,
    };
    const struct cpu_ops *chosen;
    TRY(cpu_ops_choose(ops, &chosen, err));
    struct backend *be = calloc(1, sizeof *be);
    if (!be)
        return error_set(err, ERR_NO_MEMORY, "no memory for the CPU backend");
    be->ops = chosen;
    be->pool = pool;
    be->threads = pool_threads(pool);
    be->scratch_bytes = scratch_bytes;
    be->scratch = aligned_zalloc((size_t)be->threads * scratch_bytes);
    be->draws = draws;
    be->drawn = calloc((size_t)draws + 1, sizeof *be->drawn);
    be->row = calloc((size_t)vocab + 1, sizeof *be->row);
    enum status st = OK;
    if (!be->scratch || !be->drawn || !be->row)
        st = error_set(err, ERR_NO_MEMORY, "no memory for the threads' scratch");
    if (st == OK && draws > 0)
        st = sampler_create(vocab, &be->sampler, err);
    if (st != OK) {
        cpu_destroy(be);
        return st;
    }
    *kernels = &table;
    *out = be;
    return OK;
}
