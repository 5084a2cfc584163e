/*
 * The CPU backend: the fused stages of worker/kernels.h composed from the single-thread operations
 * of ops.h, spread over the rank's pool. How work is cut among threads never changes a bit: every
 * output element is computed whole by one thread.
 */
#include "base/beat.h"
#include "base/check.h"
#include "worker/cpu/stages_private.h"
#include "worker/cpu/vec.h"
#include "worker/detmath.h"
#include "worker/kv8_inline.h"
#include "worker/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a thread draws with. */
struct drawer {
    struct sampler *sampler;
    float *row; /* [padded vocabulary]: one that ranks have in shards */
};

/* --- embedding ------------------------------------------------------------------------------- */

static float element(const struct matrix *w, int64_t i)
{
    if (w->dtype == DTYPE_F32)
        return ((const float *)w->data)[i];
    uint16_t h = ((const uint16_t *)w->data)[i];
    return w->dtype == DTYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

struct embed_job {
    struct backend *be;
    const struct batch *b;
    const struct matrix *w;
    int32_t first_row, hidden;
    float *x;
    double *sum;
};

/* A row of `w` as fp32. */
static void read_row(const struct matrix *w, int32_t row, float *out)
{
    if (in_panels(w)) {
        int bits = weight_panel_bits(w->shape.form);
        const char *panel = (const char *)w->data +
                            (uint64_t)(row / PANEL_ROWS) * panel_bytes(w->cols, bits);
        panel_row(panel, row % PANEL_ROWS, w->cols, bits, out);
        return;
    }
    for (int32_t k = 0; k < w->cols; k++)
        out[k] = element(w, (int64_t)row * w->cols + k);
}

static void embed_row(const struct embed_job *j, int64_t i)
{
    int32_t row = j->b->token[i] - j->first_row, hidden = j->hidden;
    bool here = row >= 0 && row < j->w->rows;
    float *x = j->x + i * hidden;
    double *to = j->sum + i * hidden;
    if (here)
        read_row(j->w, row, x);
    for (int32_t k = 0; k < hidden; k++) /* + 0 makes -0 what a sum over ranks makes it */
        to[k] = here ? (double)x[k] + 0.0 : 0.0;
    memset(x, 0, (size_t)hidden * sizeof *x);
}

static void embed_thread(void *arg, int thread)
{
    const struct embed_job *j = arg;
    int64_t begin, end;
    pool_part(j->b->rows, 1, j->be->threads, thread, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        embed_row(j, i);
}

static void cpu_embed(struct backend *be, const struct batch *b, const struct matrix *w,
                      int32_t first_row, int32_t hidden, float *x, double *sum)
{
    struct embed_job j = {be, b, w, first_row, hidden, x, sum};
    if (b->rows == 1)
        embed_row(&j, 0);
    else
        pool_run(be->pool, embed_thread, &j);
}

/* --- RoPE ------------------------------------------------------------------------------------- */

struct rope_job {
    struct backend *be;
    const struct batch *b;
    const float *frequency;
    float scale;
    int32_t head_dim;
    float *rope;
};

static void rope_row(const struct rope_job *j, int64_t i)
{
    int32_t half = j->head_dim / 2;
    float *cosines = j->rope + i * j->head_dim, *sines = cosines + half;
    for (int32_t d = 0; d < half; d++) {
        float angle = (float)j->b->pos[i] * j->frequency[d];
        double s, c;
        det_sincos((double)angle, &s, &c);
        cosines[d] = (float)c * j->scale;
        sines[d] = (float)s * j->scale;
    }
}

static void rope_thread(void *arg, int thread)
{
    const struct rope_job *j = arg;
    int64_t begin, end;
    pool_part(j->b->rows, 1, j->be->threads, thread, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        rope_row(j, i);
}

static void cpu_rope_angles(struct backend *be, const struct batch *b, const float *frequency,
                            float scale, int32_t head_dim, float *rope)
{
    struct rope_job j = {be, b, frequency, scale, head_dim, rope};
    if (b->rows == 1)
        rope_row(&j, 0);
    else
        pool_run(be->pool, rope_thread, &j);
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
    int32_t rows;
    struct residual r;
};

void add_norm_rows(struct backend *be, const struct residual *r, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++) {
        float *x = r->x + i * r->hidden, *xn = r->xn + i * r->hidden;
        const double *sum = r->sum ? r->sum + i * r->hidden : NULL;
        for (int32_t k = 0; sum && k < r->hidden; k++)
            x[k] += (float)sum[k];
        if (r->norm)
            be->ops->rms_norm(x, r->norm, r->hidden, r->eps, xn);
        if (r->norm && be->norm.code)
            be->ops->quantise(xn, r->hidden, 0, &be->norm, i);
    }
}

static void add_norm_thread(void *arg, int thread)
{
    const struct add_norm_job *j = arg;
    int64_t begin, end;
    pool_part(j->rows, 1, j->be->threads, thread, &begin, &end);
    add_norm_rows(j->be, &j->r, begin, end);
}

static void cpu_add_norm(struct backend *be, int32_t rows, int32_t hidden, double *sum, float *x,
                         const float *norm, float eps, float *xn)
{
    struct add_norm_job j = {be, rows, {hidden, sum, x, norm, eps, xn}};
    if (rows == 1)
        add_norm_rows(be, &j.r, 0, 1);
    else
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
    int32_t task; /* units of q, k and v, one behind the other */
    struct pool_tasks tasks;
};

/* The part of units [begin, end) of the joined q, k, v that lies in `w`, whose units begin at
 * `first`; `bias` (may be NULL) is added to the finished dot products. */
static void project_part(const struct qkv_job *j, int thread, const struct matrix *w,
                         const float *bias, int32_t first, int32_t begin, int32_t end,
                         struct ahead next, float *y, int64_t ldy)
{
    int32_t u0 = begin > first ? begin - first : 0, units = panel_count(w->rows);
    int32_t u1 = end - first < units ? end - first : units;
    if (u0 >= u1)
        return;
    int32_t n0 = u0 * PANEL_ROWS, n1 = unit_end(w, u1);
    multiply(j->be, thread, j->xn, NULL, j->b->rows, w, u0, u1, next, y + n0, ldy);
    for (int32_t i = 0; bias && i < j->b->rows; i++)
        for (int64_t n = n0; n < n1; n++)
            y[i * ldy + n] += bias[n];
}

/* What task t reads first. */
static struct ahead qkv_ahead(const struct qkv_job *j, int64_t t)
{
    const struct matrix *const parts[] = {&j->w->q, &j->w->k, &j->w->v};
    int64_t unit = t * j->task;
    for (int i = 0; t >= 0 && i < 3; i++) {
        if (unit < panel_count(parts[i]->rows))
            return ahead_of(parts[i], (int32_t)unit);
        unit -= panel_count(parts[i]->rows);
    }
    return (struct ahead){0};
}

static void project(struct qkv_job *j, int thread)
{
    const struct layer_weights *w = j->w;
    int64_t nq = w->q.rows, nk = w->k.rows;
    int32_t uq = panel_count(w->q.rows), uk = panel_count(w->k.rows);
    for (int64_t t = pool_take(&j->tasks), after; t >= 0;
         t = after >= 0 ? after : pool_take(&j->tasks)) {
        beat();
        after = pool_take_ahead(&j->tasks, j->be->threads);
        struct ahead next = qkv_ahead(j, after);
        int32_t begin = (int32_t)t * j->task, end = begin + j->task;
        struct ahead k = end > uq ? ahead_of(&w->k, 0) : next;
        struct ahead v = end > uq + uk ? ahead_of(&w->v, 0) : next;
        project_part(j, thread, &w->q, w->q_bias, 0, begin, end, k, j->q_tmp, nq);
        project_part(j, thread, &w->k, w->k_bias, uq, begin, end, v, j->kv_tmp, 2 * nk);
        project_part(j, thread, &w->v, w->v_bias, uq + uk, begin, end, next, j->kv_tmp + nk,
                     2 * nk);
    }
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

/* Row or column `slot` of a tile: element d of the head goes to first + d * stride. */
static void cache_put(const struct kv_layer *kv, char *tile, const float *x, int32_t n,
                      int64_t first, int64_t stride)
{
    float *f = (float *)(void *)tile;
    uint16_t *h = (uint16_t *)(void *)tile;
    for (int32_t d = 0; d < n; d++) {
        if (kv->dtype == KV_F32)
            f[first + d * stride] = x[d];
        else
            h[first + d * stride] = f32_to_bf16(x[d]);
    }
}

/* The same in int8; `scale`: of the position's first group. */
static void cache_put_int8(char *tile, uint16_t *scale, const float *x, int32_t n, int64_t first,
                           int64_t stride)
{
    int8_t *to = (int8_t *)tile + first;
    for (int32_t d0 = 0; d0 < n; d0 += KV8_GROUP, scale += KV_BLOCK) {
        int32_t d1 = d0 + KV8_GROUP < n ? d0 + KV8_GROUP : n;
        uint32_t greatest = 0;
        for (int32_t d = d0; d < d1; d++) {
            uint32_t m = kv8_magnitude(x[d]);
            greatest = m > greatest ? m : greatest;
        }
        float s = kv8_scale(greatest);
        *scale = f32_to_bf16(s);
        for (int32_t d = d0; d < d1; d++)
            to[d * stride] = kv8_code(x[d], s);
    }
}

/* One position's K (transposed) or V in a tile. */
static void cache_head(const struct kv_layer *kv, char *tile, const float *x, int32_t n,
                       int32_t slot, bool transposed)
{
    int64_t first = transposed ? slot : (int64_t)slot * kv->row, stride = transposed ? KV_BLOCK : 1;
    if (kv->dtype == KV_INT8)
        cache_put_int8(tile, kv8_scales(tile, kv->row) + slot, x, n, first, stride);
    else
        cache_put(kv, tile, x, n, first, stride);
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
    if (j->w->k_norm)
        j->be->ops->rms_norm(k, j->w->k_norm, a->head_dim, a->eps, k);
    rotate(k, j->rope + row * a->head_dim, a->head_dim, scratch);
    cache_head(j->kv, k_tile, scratch, a->head_dim, pos % KV_BLOCK, true);
    cache_head(j->kv, v_tile, v, a->head_dim, pos % KV_BLOCK, false);
}

static void finish(struct qkv_job *j, int thread)
{
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

static void qkv_thread(void *arg, int thread)
{
    struct qkv_job *j = arg;
    project(j, thread);
    pool_meet(j->be->pool);
    finish(j, thread);
}

static void cpu_qkv(struct backend *be, const struct batch *b, const struct attention *a,
                    const struct layer_weights *w, const float *xn, const float *rope, float *q_tmp,
                    float *kv_tmp, float *q, const struct kv_layer *kv)
{
    struct qkv_job j = {.be = be,
                        .b = b,
                        .a = a,
                        .w = w,
                        .xn = xn,
                        .rope = rope,
                        .q_tmp = q_tmp,
                        .kv_tmp = kv_tmp,
                        .q = q,
                        .kv = kv,
                        .q_scale = 1.0f / __builtin_sqrtf((float)a->head_dim)};
    int32_t units = panel_count(w->q.rows) + panel_count(w->k.rows) + panel_count(w->v.rows);
    j.task = task_units(be, &w->q, units, b->rows);
    j.tasks.count = (units + j.task - 1) / j.task;
    pool_run(be->pool, qkv_thread, &j);
}

/* --- lm_head -----------------------------------------------------------------------------------
 */

struct head_job {
    struct backend *be;
    const struct batch *b;
    const struct matrix *w;
    int32_t padded;
    const float *xn;
    float *logits;
    int32_t task; /* units */
    struct pool_tasks tasks;
};

static void head_thread(void *arg, int thread)
{
    struct head_job *j = arg;
    int32_t units = panel_count(j->w->rows);
    for (int64_t t = pool_take(&j->tasks), after; t >= 0;
         t = after >= 0 ? after : pool_take(&j->tasks)) {
        beat();
        after = pool_take_ahead(&j->tasks, j->be->threads);
        struct ahead next = ahead_of(j->w, after < 0 ? -1 : (int32_t)after * j->task);
        int32_t u0 = (int32_t)t * j->task, u1 = units - u0 < j->task ? units : u0 + j->task;
        multiply(j->be, thread, j->xn, j->b->logit_row, j->b->logits, j->w, u0, u1, next,
                 j->logits + (int64_t)u0 * PANEL_ROWS, j->padded);
    }
}

static void cpu_lm_head(struct backend *be, const struct batch *b, const struct matrix *w,
                        int32_t padded, const float *xn, int32_t hidden, float *logits)
{
    (void)hidden;
    int32_t units = panel_count(w->rows);
    struct head_job j = {.be = be, .b = b, .w = w, .padded = padded, .xn = xn, .logits = logits};
    j.task = task_units(be, w, units, b->logits);
    j.tasks.count = b->logits > 0 ? (units + j.task - 1) / j.task : 0;
    if (j.tasks.count > 0)
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

struct draw_job {
    struct backend *be;
    const struct batch *b;
    float *logits;
    int32_t shards, padded;
    atomic_int next;
};

static void draw_thread(void *arg, int thread)
{
    struct draw_job *j = arg;
    const struct batch *b = j->b;
    const struct drawer *w = &j->be->drawers[thread];
    for (int i; (i = atomic_fetch_add_explicit(&j->next, 1, memory_order_relaxed)) < b->draws;) {
        const struct draw *d = &b->draw[i];
        float *row = j->logits + (int64_t)d->row * j->padded;
        if (j->shards > 1 || d->mask) {
            join_shards(j->logits, j->shards, b->logits, j->padded, d->row, w->row);
            row = w->row;
        }
        sampler_edit(w->sampler, row, d->edit, d->edits, d->repetition_penalty);
        if (d->mask)
            sampler_mask(row, b->vocab_limit, d->mask);
        j->be->drawn[i] = sampler_draw(w->sampler, row, b->vocab_limit, &d->sampling, d->position);
        sampler_restore(w->sampler, row, d->edit, d->edits);
    }
}

static void cpu_draw(struct backend *be, const struct batch *b, float *logits, int32_t shards,
                     int32_t padded)
{
    struct draw_job j = {be, b, logits, shards, padded, 0};
    CHECK(b->draws <= be->draws, "%d draws of %d", b->draws, be->draws);
    if (b->draws == 1)
        draw_thread(&j, 0);
    else if (b->draws > 0)
        pool_run(be->pool, draw_thread, &j);
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
    for (int i = 0; be->drawers && i < be->threads; i++) {
        sampler_destroy(be->drawers[i].sampler);
        free(be->drawers[i].row);
    }
    free(be->drawers);
    free(be->drawn);
    free(be->scratch);
    free(be->codes);
    free(be);
}

static enum status create_drawers(struct backend *be, int32_t vocab, struct error *err)
{
    be->drawers = calloc((size_t)be->threads, sizeof *be->drawers);
    for (int i = 0; be->drawers && i < be->threads; i++) {
        be->drawers[i].row = calloc((size_t)vocab, sizeof(float));
        if (!be->drawers[i].row)
            return error_set(err, ERR_NO_MEMORY, "no memory for a row of %d logits", vocab);
        TRY(sampler_create(be->ops->rows, vocab, &be->drawers[i].sampler, err));
    }
    return be->drawers ? OK : error_set(err, ERR_NO_MEMORY, "no memory to draw with");
}

/* Rows of `blocks` in all, taken from *at on. */
static struct act take_codes(char **at, uint64_t blocks)
{
    struct act a = {.code = (int8_t *)*at};
    a.scale = (float *)(void *)(*at + blocks * PANEL_BLOCK);
    a.bias = (int32_t *)(void *)(a.scale + blocks);
    *at = (char *)(a.bias + blocks);
    return a;
}

static enum status create_codes(struct backend *be, const struct code_blocks *room,
                                struct error *err)
{
    /* Each begins on a border of 64. */
    be->room = *room;
    uint64_t *each[] = {&be->room.norm, &be->room.attn, &be->room.h}, blocks = 0;
    for (size_t i = 0; i < COUNT_OF(each); i++) {
        *each[i] = (*each[i] + 15) / 16 * 16;
        blocks += *each[i];
    }
    be->codes = aligned_zalloc(blocks * CODE_BLOCK_BYTES);
    if (!be->codes)
        return error_set(err, ERR_NO_MEMORY, "no memory for activations as codes");
    char *at = be->codes;
    be->norm = take_codes(&at, be->room.norm);
    be->attn = take_codes(&at, be->room.attn);
    be->h = take_codes(&at, be->room.h);
    be->norm.blocks = panel_blocks(room->hidden);
    return OK;
}

enum status cpu_backend_create(const char *ops, struct pool *pool, uint64_t scratch_bytes,
                               const struct code_blocks *codes, int32_t draws, int32_t vocab,
                               const struct kernels **kernels, struct backend **out,
                               struct error *err)
{
    static const struct kernels table = {
        .name = "cpu",
        .masks = true,
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
    be->scratch_bytes = (scratch_bytes + 63) / 64 * 64;
    be->panel_bytes = codes ? panel_scratch_bytes(codes->widest) : 0;
    be->scratch = aligned_zalloc((size_t)be->threads * (be->scratch_bytes + be->panel_bytes));
    be->draws = draws;
    be->drawn = calloc((size_t)draws + 1, sizeof *be->drawn);
    enum status st = OK;
    if (!be->scratch || !be->drawn)
        st = error_set(err, ERR_NO_MEMORY, "no memory for the threads' scratch");
    if (st == OK && codes)
        st = create_codes(be, codes, err);
    if (st == OK && draws > 0)
        st = create_drawers(be, vocab, err);
    if (st != OK) {
        cpu_destroy(be);
        return st;
    }
    *kernels = &table;
    *out = be;
    return OK;
}
