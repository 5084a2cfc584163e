/*
 * The CPU operations: see ops.h for what each computes and in which order. Compiled once for each
 * instruction set (OPS_NAME and OPS_AVX512 or OPS_AVX2 come from the build); vec.h makes them
 * agree.
 */
#include "worker/cpu/ops.h"
#include "worker/cpu/vec.h"

#include <math.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define STR_(a) #a
#define STR(a) STR_(a)

/* Output tile: TILE_M x TILE_N accumulators of 16 lanes. Any size gives the same bits; more than
 * the registers hold is slow, and without SIMD it is slow to compile too. */
#if defined(OPS_AVX512)
enum { TILE_M = 4, TILE_N = 4 };
#elif defined(OPS_AVX2)
enum { TILE_M = 1, TILE_N = 4 };
#else
enum { TILE_M = 1, TILE_N = 4 };
#endif

VEC_INLINE v16 load_weight(const void *p, int64_t i, enum dtype t)
{
    if (t == DTYPE_BF16)
        return v_load_bf16((const uint16_t *)p + i);
    if (t == DTYPE_F16)
        return v_load_f16((const uint16_t *)p + i);
    return v_load((const float *)p + i);
}

VEC_INLINE v16 load_weight_part(const void *p, int64_t i, int n, enum dtype t)
{
    float f[16] = {0};
    for (int l = 0; l < n; l++) {
        if (t == DTYPE_BF16)
            f[l] = bf16_to_f32(((const uint16_t *)p)[i + l]);
        else if (t == DTYPE_F16)
            f[l] = f16_to_f32(((const uint16_t *)p)[i + l]);
        else
            f[l] = ((const float *)p)[i + l];
    }
    return v_load(f);
}

/* acc[i][j] = lanes of dot(x[i], w[j]) over columns [k0, k1). */
VEC_INLINE void tile_dot(const float *const *x, int mr, const void *const *w, int nr, enum dtype t,
                         int32_t k0, int32_t k1, v16 acc[TILE_M][TILE_N])
{
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++)
            acc[i][j] = v_zero();
    int32_t k = k0;
    for (; k + 16 <= k1; k += 16) {
        v16 b[TILE_N];
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++)
            b[j] = load_weight(w[j], k, t);
#pragma GCC unroll 4
        for (int i = 0; i < mr; i++) {
            v16 a = v_load(x[i] + k);
#pragma GCC unroll 4
            for (int j = 0; j < nr; j++)
                acc[i][j] = v_fma(a, b[j], acc[i][j]);
        }
    }
    if (k < k1) {
        int n = (int)(k1 - k);
#pragma GCC unroll 4
        for (int i = 0; i < mr; i++) {
            v16 a = v_load_part(x[i] + k, n, 0.0f);
#pragma GCC unroll 4
            for (int j = 0; j < nr; j++)
                acc[i][j] = v_fma(a, load_weight_part(w[j], k, n, t), acc[i][j]);
        }
    }
}

VEC_INLINE void row_sums(const v16 *acc, int nr, float out[TILE_N])
{
    if (nr == TILE_N)
        v_sum4(acc[0], acc[1], acc[2], acc[3], out);
    else
        for (int j = 0; j < nr; j++)
            out[j] = v_sum(acc[j]);
}

/* What the tiles of one call share. */
struct gemm_job {
    const float *x;
    int64_t ldx;
    const int32_t *rows;
    const struct matrix *w;
    float *y;
    int64_t ldy;
    int32_t n0;
    /* gemm_leaf only */
    int32_t leaf;
    const float *scale;
    const int32_t *out;
    double *sum;
    int64_t ldsum;
    float largest;
};

VEC_INLINE void tile_pointers(const struct gemm_job *g, int32_t i0, int mr, int32_t j0, int nr,
                              const float **x, const void **w)
{
    for (int i = 0; i < mr; i++) {
        int64_t row = g->rows ? g->rows[i0 + i] : i0 + i;
        x[i] = g->x + row * g->ldx;
    }
    for (int j = 0; j < nr; j++)
        w[j] = (const char *)g->w->data +
               (size_t)(j0 + j) * (size_t)g->w->cols * (g->w->dtype == DTYPE_F32 ? 4 : 2);
}

VEC_INLINE void tile_plain(struct gemm_job *g, int32_t i0, int mr, int32_t j0, int nr, enum dtype t)
{
    const float *x[TILE_M];
    const void *w[TILE_N];
    v16 acc[TILE_M][TILE_N];
    tile_pointers(g, i0, mr, j0, nr, x, w);
    tile_dot(x, mr, w, nr, t, 0, g->w->cols, acc);
    for (int i = 0; i < mr; i++) {
        float s[TILE_N];
        row_sums(acc[i], nr, s);
        for (int j = 0; j < nr; j++)
            g->y[(i0 + i) * g->ldy + j0 - g->n0 + j] = s[j];
    }
}

VEC_INLINE void tile_leaf(struct gemm_job *g, int32_t i0, int mr, int32_t j0, int nr, enum dtype t)
{
    const float *x[TILE_M];
    const void *w[TILE_N];
    v16 acc[TILE_M][TILE_N];
    tile_pointers(g, i0, mr, j0, nr, x, w);
    for (int32_t k = 0; k < g->w->cols; k += g->leaf) {
        int32_t end = k + g->leaf < g->w->cols ? k + g->leaf : g->w->cols;
        tile_dot(x, mr, w, nr, t, k, end, acc);
        for (int i = 0; i < mr; i++) {
            float s[TILE_N];
            row_sums(acc[i], nr, s);
            float scale = g->scale ? g->scale[i0 + i] : 1.0f;
            int64_t row = g->out ? g->out[i0 + i] : i0 + i;
            double *sum = g->sum + row * g->ldsum + j0 - g->n0;
            for (int j = 0; j < nr; j++) {
                float leaf = scale * s[j];
                /* Written so that a NaN counts as too large and stays. */
                g->largest = fabsf(leaf) <= g->largest || g->largest != g->largest ? g->largest
                                                                                   : fabsf(leaf);
                sum[j] += exact_round((double)leaf);
            }
        }
    }
}

/* All tiles of columns [n0, n1) for m rows. Weights outermost: each is read from memory once for a
 * block of rows that stays in the second-level cache. */
#define TILES(tile, t)                                                                             \
    do {                                                                                           \
        int32_t j_ = n0;                                                                           \
        for (; j_ + TILE_N <= n1; j_ += TILE_N) {                                                  \
            int32_t i_ = i0;                                                                       \
            for (; i_ + TILE_M <= i1; i_ += TILE_M)                                                \
                tile(g, i_, TILE_M, j_, TILE_N, t);                                                \
            for (; i_ < i1; i_++)                                                                  \
                tile(g, i_, 1, j_, TILE_N, t);                                                     \
        }                                                                                          \
        for (; j_ < n1; j_++)                                                                      \
            for (int32_t i_ = i0; i_ < i1; i_++)                                                   \
                tile(g, i_, 1, j_, 1, t);                                                          \
    } while (0)

#define DEFINE_TILES(name, tile)                                                                   \
    static void name(struct gemm_job *g, int32_t i0, int32_t i1, int32_t n0, int32_t n1)           \
    {                                                                                              \
        switch (g->w->dtype) {                                                                     \
        case DTYPE_BF16:                                                                           \
            TILES(tile, DTYPE_BF16);                                                               \
            break;                                                                                 \
        case DTYPE_F16:                                                                            \
            TILES(tile, DTYPE_F16);                                                                \
            break;                                                                                 \
        case DTYPE_F32:                                                                            \
            TILES(tile, DTYPE_F32);                                                                \
            break;                                                                                 \
        }                                                                                          \
    }

DEFINE_TILES(tiles_plain, tile_plain)
DEFINE_TILES(tiles_leaf, tile_leaf)

/* Rows of activations that fit half a second-level cache of 1 MiB beside the weights. */
static int32_t row_block(int32_t cols)
{
    int32_t rows = (512 * 1024) / (cols * 4) / TILE_M * TILE_M;
    return rows < TILE_M ? TILE_M : rows;
}

static void op_gemm(const float *x, int64_t ldx, const int32_t *rows, int32_t m,
                    const struct matrix *w, int32_t n0, int32_t n1, float *y, int64_t ldy)
{
    struct gemm_job g = {.x = x, .ldx = ldx, .rows = rows, .w = w, .y = y, .ldy = ldy, .n0 = n0};
    int32_t block = row_block(w->cols);
    for (int32_t i = 0; i < m; i += block)
        tiles_plain(&g, i, i + block < m ? i + block : m, n0, n1);
}

static float op_gemm_leaf(const float *x, int64_t ldx, int32_t m, const struct matrix *w,
                          int32_t leaf, int32_t n0, int32_t n1, const float *scale,
                          const int32_t *out, double *sum, int64_t ldsum)
{
    struct gemm_job g = {.x = x,
                         .ldx = ldx,
                         .w = w,
                         .leaf = leaf,
                         .scale = scale,
                         .out = out,
                         .sum = sum,
                         .ldsum = ldsum,
                         .n0 = n0};
    int32_t block = row_block(w->cols);
    for (int32_t i = 0; i < m; i += block)
        tiles_leaf(&g, i, i + block < m ? i + block : m, n0, n1);
    return g.largest;
}

static void op_rms_norm(const float *x, const float *w, int32_t n, float eps, float *y)
{
    v16 acc = v_zero();
    int32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        v16 a = v_load(x + k);
        acc = v_fma(a, a, acc);
    }
    if (k < n) {
        v16 a = v_load_part(x + k, (int)(n - k), 0.0f);
        acc = v_fma(a, a, acc);
    }
    float r = 1.0f / __builtin_sqrtf(v_sum(acc) / (float)n + eps);
    v16 scale = v_set(r);
    for (k = 0; k + 16 <= n; k += 16)
        v_store(y + k, v_mul(v_load(w + k), v_mul(v_load(x + k), scale)));
    for (; k < n; k++)
        y[k] = w[k] * (x[k] * r);
}

VEC_INLINE v16 silu_mul16(v16 g, v16 u)
{
    v16 e = v_exp(v_sub(v_zero(), g));
    return v_mul(v_div(g, v_add(v_set(1.0f), e)), u);
}

static void op_silu_mul(float *g, const float *u, int32_t n)
{
    int32_t k = 0;
    for (; k + 16 <= n; k += 16)
        v_store(g + k, silu_mul16(v_load(g + k), v_load(u + k)));
    if (k < n) {
        int rest = (int)(n - k);
        v_store_part(g + k,
                     silu_mul16(v_load_part(g + k, rest, 0.0f), v_load_part(u + k, rest, 0.0f)),
                     rest);
    }
}

static float row_max(const float *x, int32_t n)
{
    v16 m = v_load_part(x, n < 16 ? (int)n : 16, x[0]);
    for (int32_t k = 16; k < n; k += 16)
        m = v_max(m, n - k >= 16 ? v_load(x + k) : v_load_part(x + k, (int)(n - k), x[0]));
    return v_hmax(m);
}

/* x = e^(x - max), lanes past n zero in the sum; returns the sum. */
static float exp_row(float *x, int32_t n, float max)
{
    v16 sum = v_zero(), shift = v_set(max);
    int32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        v16 e = v_exp(v_sub(v_load(x + k), shift));
        v_store(x + k, e);
        sum = v_add(sum, e);
    }
    if (k < n) {
        int rest = (int)(n - k);
        v_store_part(x + k, v_exp(v_sub(v_load_part(x + k, rest, max), shift)), rest);
        sum = v_add(sum, v_load_part(x + k, rest, 0.0f));
    }
    return v_sum(sum);
}

static void op_softmax(float *x, int32_t n)
{
    float sum = exp_row(x, n, row_max(x, n));
    v16 d = v_set(sum);
    int32_t k = 0;
    for (; k + 16 <= n; k += 16)
        v_store(x + k, v_div(v_load(x + k), d));
    for (; k < n; k++)
        x[k] /= sum;
}

VEC_INLINE v16 load_kv(const void *p, int64_t i, enum kv_dtype t)
{
    return t == KV_F32 ? v_load((const float *)p + i) : v_load_bf16((const uint16_t *)p + i);
}

/* Positions are lanes: scores[p] = sum over d of q[d] k[d][p], a chain of fma in the order of d.
 * The whole tile is computed; positions past `count` hold old or zero keys and are not used. */
VEC_INLINE void tile_scores(const float *q, int32_t hd, const void *k, enum kv_dtype t,
                            float *scores)
{
    v16 s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
    for (int32_t d = 0; d < hd; d++) {
        v16 a = v_set(q[d]);
        int64_t at = (int64_t)d * KV_BLOCK;
        s0 = v_fma(a, load_kv(k, at, t), s0);
        s1 = v_fma(a, load_kv(k, at + 16, t), s1);
        s2 = v_fma(a, load_kv(k, at + 32, t), s2);
        s3 = v_fma(a, load_kv(k, at + 48, t), s3);
    }
    v_store(scores, s0);
    v_store(scores + 16, s1);
    v_store(scores + 32, s2);
    v_store(scores + 48, s3);
}

/* o[d] = sum over positions of p[pos] v[pos][d], in the order of positions. */
VEC_INLINE void tile_values(const float *p, int32_t count, int32_t hd, const void *v,
                            enum kv_dtype t, float *o)
{
    int32_t d = 0;
    for (; d + 64 <= hd; d += 64) {
        v16 a0 = v_zero(), a1 = v_zero(), a2 = v_zero(), a3 = v_zero();
        for (int32_t i = 0; i < count; i++) {
            v16 w = v_set(p[i]);
            int64_t at = (int64_t)i * hd + d;
            a0 = v_fma(w, load_kv(v, at, t), a0);
            a1 = v_fma(w, load_kv(v, at + 16, t), a1);
            a2 = v_fma(w, load_kv(v, at + 32, t), a2);
            a3 = v_fma(w, load_kv(v, at + 48, t), a3);
        }
        v_store(o + d, a0);
        v_store(o + d + 16, a1);
        v_store(o + d + 32, a2);
        v_store(o + d + 48, a3);
    }
    for (; d < hd; d += 16) {
        v16 a = v_zero();
        for (int32_t i = 0; i < count; i++)
            a = v_fma(v_set(p[i]), load_kv(v, (int64_t)i * hd + d, t), a);
        v_store(o + d, a);
    }
}

VEC_INLINE void tile_of(const float *q, int32_t group, int32_t hd, const void *k, const void *v,
                        enum kv_dtype t, int32_t count, float *scores, float *m, float *l, float *o)
{
    for (int32_t h = 0; h < group; h++) {
        float *s = scores + (int64_t)h * KV_BLOCK;
        tile_scores(q + (int64_t)h * hd, hd, k, t, s);
        m[h] = row_max(s, count);
        l[h] = exp_row(s, count, m[h]);
        tile_values(s, count, hd, v, t, o + (int64_t)h * hd);
    }
}

static void op_attention_tile(const float *q, int32_t group, int32_t hd, const void *k,
                              const void *v, enum kv_dtype kv_dtype, int32_t count, float *scores,
                              float *m, float *l, float *o)
{
    if (kv_dtype == KV_F32)
        tile_of(q, group, hd, k, v, KV_F32, count, scores, m, l, o);
    else
        tile_of(q, group, hd, k, v, KV_BF16, count, scores, m, l, o);
}

static void op_attention_join(float m, float l, const float *o, int32_t hd, float *rm, float *rl,
                              float *ro)
{
    float top = m > *rm ? m : *rm;
    float f[16];
    v_store(f, v_exp(v_sub(v_load_part((const float[]){*rm, m}, 2, top), v_set(top))));
    v16 a = v_set(f[0]), b = v_set(f[1]);
    *rl = __builtin_fmaf(*rl, f[0], l * f[1]);
    *rm = top;
    for (int32_t d = 0; d < hd; d += 16)
        v_store(ro + d, v_fma(v_load(ro + d), a, v_mul(v_load(o + d), b)));
}

const struct cpu_ops *CAT(cpu_ops_, OPS_NAME)(void)
{
    static const struct cpu_ops table = {
        .name = STR(OPS_NAME),
        .gemm = op_gemm,
        .gemm_leaf = op_gemm_leaf,
        .rms_norm = op_rms_norm,
        .silu_mul = op_silu_mul,
        .softmax = op_softmax,
        .attention_tile = op_attention_tile,
        .attention_join = op_attention_join,
    };
    return &table;
}
