/*
 * Attention over tiles of the KV cache: see attention_ops.h. Compiled once for each instruction
 * set, as ops.c is. What is loaded of a tile, and widened, is used for several queries while it is
 * in registers.
 */
#include "worker/cpu/attention_ops.h"
#include "worker/cpu/vec.h"

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

/* Queries that are worked on at once, at most, and vectors of the tile with so many queries: as
 * the registers hold. Any give the same bits: see TILE_M in ops.c. */
#if defined(OPS_AVX512)
enum { QUERIES = 4, COLS = 4 };
#define COLS_OF(nq) 4
#elif defined(OPS_AVX2) || defined(OPS_NEON)
enum { QUERIES = 4, COLS = 4 };
#define COLS_OF(nq) (4 / (nq))
#else
enum { QUERIES = 1, COLS = 4 };
#define COLS_OF(nq) 4
#endif

struct tile {
    const struct attention_queries *a;
    const void *k, *v;
    int64_t ahead;
    bool first;
    float *was, *now; /* [n] a join's factors: of what is there, and of this tile */
};

VEC_INLINE v16 load_kv(const void *p, int64_t i, enum kv_dtype t)
{
    if (t == KV_INT8)
        return v_load_i8((const int8_t *)p + i);
    return t == KV_F32 ? v_load((const float *)p + i) : v_load_bf16((const uint16_t *)p + i);
}

/* Vectors of elements [i, i + 16 * nc), and a step towards those `ahead`. */
VEC_INLINE void load_cols(const void *p, int64_t i, int nc, enum kv_dtype t, int64_t ahead,
                          v16 out[COLS])
{
    int64_t each = t == KV_F32 ? 4 : t == KV_BF16 ? 2 : 1;
    for (int64_t b = 0; b < 16 * nc * each; b += 64)
        __builtin_prefetch((const char *)p + i * each + ahead + b, 0, 2);
#pragma GCC unroll 4
    for (int j = 0; j < nc; j++)
        out[j] = load_kv(p, i + 16 * j, t);
}

/* The end of the elements that share a scale with element d: all of them but for int8. */
VEC_INLINE int32_t group_end(int32_t d, int32_t hd, enum kv_dtype t)
{
    return t == KV_INT8 && d + KV8_GROUP < hd ? d + KV8_GROUP : hd;
}

/* Of an int8 tile, those of the group of element d. */
VEC_INLINE const uint16_t *group_scales(const void *tile, int32_t d, int32_t hd)
{
    const uint16_t *scales = (const uint16_t *)(const void *)((const char *)tile + KV_BLOCK * hd);
    return scales + d / KV8_GROUP * KV_BLOCK;
}

VEC_INLINE void clear(int nq, int nc, v16 acc[QUERIES][COLS])
{
#pragma GCC unroll 4
    for (int i = 0; i < nq; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++)
            acc[i][j] = v_zero();
}

/* acc[i][j] += w[i * stride] * b[j] */
VEC_INLINE void add_products(const float *w, int64_t stride, int nq, const v16 b[COLS], int nc,
                             v16 acc[QUERIES][COLS])
{
#pragma GCC unroll 4
    for (int i = 0; i < nq; i++) {
        v16 a = v_set(w[i * stride]);
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++)
            acc[i][j] = v_fma(a, b[j], acc[i][j]);
    }
}

/* Positions are lanes: those of [p, p + 16 * nc), which may be past the sequence's; there old or
 * zero keys lie, whose scores are not used. */
VEC_INLINE void cols_scores(const struct tile *x, int32_t i0, int nq, int32_t p, int nc,
                            enum kv_dtype t)
{
    int32_t hd = x->a->hd;
    const float *q = x->a->q + (int64_t)i0 * hd;
    float *scores = x->a->scratch + (int64_t)i0 * KV_BLOCK + p;
    for (int32_t d0 = 0; d0 < hd; d0 = group_end(d0, hd, t)) {
        v16 acc[QUERIES][COLS], k[COLS];
        clear(nq, nc, acc);
        for (int32_t d = d0, end = group_end(d0, hd, t); d < end; d++) {
            load_cols(x->k, (int64_t)d * KV_BLOCK + p, nc, t, x->ahead, k);
            add_products(q + d, hd, nq, k, nc, acc);
        }
#pragma GCC unroll 4
        for (int i = 0; i < nq; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nc; j++) {
                float *to = scores + i * KV_BLOCK + 16 * j;
                if (t == KV_INT8)
                    acc[i][j] = v_fma(acc[i][j],
                                      v_load_bf16(group_scales(x->k, d0, hd) + p + 16 * j),
                                      d0 == 0 ? v_zero() : v_load(to));
                v_store(to, acc[i][j]);
            }
    }
}

VEC_INLINE void block_scores(const struct tile *x, int32_t i0, int nq, enum kv_dtype t)
{
    int32_t count = x->a->count[i0], p = 0;
    for (; p + 16 * (COLS_OF(nq) - 1) < count; p += 16 * COLS_OF(nq))
        cols_scores(x, i0, nq, p, COLS_OF(nq), t);
    for (; p < count; p += 16)
        cols_scores(x, i0, nq, p, 1, t);
}

/* o of elements [d, d + 16 * nc), with weights w[nq][KV_BLOCK]; joined to what is there. */
VEC_INLINE void cols_values(const struct tile *x, const float *w, int32_t i0, int nq, int32_t d,
                            int nc, enum kv_dtype t)
{
    int32_t hd = x->a->hd, count = x->a->count[i0];
    v16 acc[QUERIES][COLS], v[COLS];
    clear(nq, nc, acc);
    for (int32_t p = 0; p < count; p++) {
        load_cols(x->v, (int64_t)p * hd + d, nc, t, x->ahead, v);
        add_products(w + p, KV_BLOCK, nq, v, nc, acc);
    }
#pragma GCC unroll 4
    for (int i = 0; i < nq; i++) {
        float *o = x->a->o + (int64_t)(i0 + i) * hd + d;
        v16 was = v_set(x->was[i0 + i]), now = v_set(x->now[i0 + i]);
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++)
            v_store(o + 16 * j,
                    x->first ? acc[i][j] : v_fma(v_load(o + 16 * j), was, v_mul(acc[i][j], now)));
    }
}

/* Of int8, a group's weights are first multiplied by its scales. */
VEC_INLINE void block_values(const struct tile *x, int32_t i0, int nq, enum kv_dtype t)
{
    float scaled[QUERIES * KV_BLOCK];
    const float *w = x->a->scratch + (int64_t)i0 * KV_BLOCK;
    int32_t hd = x->a->hd;
    for (int32_t d0 = 0; d0 < hd; d0 = group_end(d0, hd, t)) {
        int32_t d = d0, end = group_end(d0, hd, t);
        const uint16_t *scales = group_scales(x->v, d0, hd);
        for (int p = 0; t == KV_INT8 && p < nq * KV_BLOCK; p += 16)
            v_store(scaled + p, v_mul(v_load(w + p), v_load_bf16(scales + p % KV_BLOCK)));
        const float *weights = t == KV_INT8 ? scaled : w;
        int nc = t == KV_INT8 && COLS_OF(nq) > 2 ? 2 : COLS_OF(nq); /* a group has no more */
        for (; d + 16 * nc <= end; d += 16 * nc)
            cols_values(x, weights, i0, nq, d, nc, t);
        for (; d < end; d += 16)
            cols_values(x, weights, i0, nq, d, 1, t);
    }
}

/* x = e^(x - m) of a whole row, with m the largest; returns the sum. */
VEC_INLINE float softmax_tile(float *x, float *m)
{
    v16 e[4], top = v_load(x), sum = v_zero();
    for (int j = 1; j < 4; j++)
        top = v_max(top, v_load(x + 16 * j));
    *m = v_hmax(top);
    top = v_set(*m);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        e[j] = v_exp(v_sub(v_load(x + 16 * j), top));
    for (int j = 0; j < 4; j++) {
        v_store(x + 16 * j, e[j]);
        sum = v_add(sum, e[j]);
    }
    return v_sum(sum);
}

/* Weights from scores; m, l and the factors of 16 queries from i0 on. */
static void block_weights(const struct tile *x, int32_t i0)
{
    const struct attention_queries *a = x->a;
    float m[16] = {0}, l[16] = {0};
    for (int32_t i = i0; i < a->n && i < i0 + 16; i++) {
        float *s = a->scratch + (int64_t)i * KV_BLOCK;
        int32_t count = a->count[i];
        if (count == KV_BLOCK) {
            l[i - i0] = softmax_tile(s, &m[i - i0]);
        } else {
            m[i - i0] = v_row_max(s, count);
            l[i - i0] = v_exp_row(s, count, m[i - i0]);
        }
    }
    v16 tm = v_load(m), tl = v_load(l), rm = v_load(a->m + i0), top = v_max(tm, rm);
    v16 was = v_exp(v_sub(rm, top)), now = v_exp(v_sub(tm, top));
    v_store(x->was + i0, was);
    v_store(x->now + i0, now);
    v_store(a->m + i0, x->first ? tm : top);
    v_store(a->l + i0, x->first ? tl : v_fma(v_load(a->l + i0), was, v_mul(tl, now)));
}

/* Queries from i on that are worked on together: they see as much as each other. */
VEC_INLINE int block_size(const struct attention_queries *a, int32_t i)
{
    int nq = QUERIES;
    while (nq > 1 && (i + nq > a->n || a->count[i + nq - 1] != a->count[i]))
        nq /= 2;
    return nq;
}

#define BLOCK(fn, x, i, nq, t)                                                                     \
    do {                                                                                           \
        if (QUERIES >= 4 && (nq) == 4)                                                             \
            fn(x, i, QUERIES >= 4 ? 4 : 1, t);                                                     \
        else if (QUERIES >= 2 && (nq) == 2)                                                        \
            fn(x, i, QUERIES >= 2 ? 2 : 1, t);                                                     \
        else                                                                                       \
            fn(x, i, 1, t);                                                                        \
    } while (0)

/* The first block brings the next tile's lines, the others have no more to bring. */
VEC_INLINE void tile_of(struct tile *x, int64_t ahead, enum kv_dtype t)
{
    int32_t n = x->a->n;
    for (int32_t i = 0, nq; i < n; i += nq) {
        nq = block_size(x->a, i);
        x->ahead = i == 0 ? ahead : 0;
        BLOCK(block_scores, x, i, nq, t);
    }
    for (int32_t i = 0; i < n; i += 16)
        block_weights(x, i);
    for (int32_t i = 0, nq; i < n; i += nq) {
        nq = block_size(x->a, i);
        x->ahead = i == 0 ? ahead : 0;
        BLOCK(block_values, x, i, nq, t);
    }
}

static void op_tile(const struct attention_queries *a, const void *k, const void *v,
                    enum kv_dtype kv_dtype, bool first, int64_t ahead)
{
    float *was = a->scratch + (int64_t)a->n * KV_BLOCK;
    struct tile x = {
        .a = a, .k = k, .v = v, .first = first, .was = was, .now = was + (a->n + 15) / 16 * 16};
    switch (kv_dtype) {
    case KV_BF16:
        tile_of(&x, ahead, KV_BF16);
        break;
    case KV_F32:
        tile_of(&x, ahead, KV_F32);
        break;
    case KV_INT8:
        tile_of(&x, ahead, KV_INT8);
        break;
    }
}

static void op_join(float m, float l, const float *o, int32_t hd, float *rm, float *rl, float *ro)
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

extern const struct cpu_attention CAT(cpu_attention_, OPS_NAME); /* for ops.c */

const struct cpu_attention CAT(cpu_attention_, OPS_NAME) = {
    .tile = op_tile,
    .join = op_join,
};
