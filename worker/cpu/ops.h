/*
 * The CPU backend's single-thread operations, one table an instruction set, all giving the same
 * bits. stages.c composes them into the engine's fused stages and spreads them over threads.
 *
 * Arithmetic, fixed for the numerics class cpu-1:
 * - A dot product of fp32 activations with weights (exact to fp32): element k goes to lane k mod
 * 16, each lane a chain of fma in the order of k, lanes past the end add 0 x 0, then the tree of
 * v_sum.
 * - A leaf is such a dot product over at most `leaf` columns, rounded to a multiple of 2^-32;
 * leaves are added in fp64, which is exact below 2^20 (see exact_round).
 */
#ifndef WITAN_WORKER_CPU_OPS_H
#define WITAN_WORKER_CPU_OPS_H

#include "partition/checkpoint.h"
#include "partition/plan.h"
#include "worker/weights.h"

#include <stdbool.h>
#include <stdint.h>

/* Rounds to a multiple of 2^-32, ties to even: in [-2^20, 2^20] the sum with 1.5 x 2^20 has units
 * of 2^-32 in its last place. */
static inline double exact_round(double x)
{
    const double shift = 1572864.0;
    return (x + shift) - shift;
}

struct cpu_ops {
    const char *name; /* "avx512", "avx2", "portable" */

    /* y[i * ldy + j - n0] = dot(x row i, w row j) for i < m, j in [n0, n1). x row i is x + rows[i]
     * * ldx, or x + i * ldx where rows is NULL; its length is w->cols. */
    void (*gemm)(const float *x, int64_t ldx, const int32_t *rows, int32_t m,
                 const struct matrix *w, int32_t n0, int32_t n1, float *y, int64_t ldy);

    /* sum[out[i] * ldsum + j - n0] += exact sum over leaves of scale[i] * dot(x row i, w row j),
     * for j in [n0, n1). `out` NULL is i, `scale` NULL is 1. Returns the largest |leaf|, for the
     * check of the range in which sums are exact. */
    float (*gemm_leaf)(const float *x, int64_t ldx, int32_t m, const struct matrix *w, int32_t leaf,
                       int32_t n0, int32_t n1, const float *scale, const int32_t *out, double *sum,
                       int64_t ldsum);

    /* y = x * (1 / sqrt(mean(x^2) + eps)) * w over n elements. x and y may be the same. */
    void (*rms_norm)(const float *x, const float *w, int32_t n, float eps, float *y);

    /* g = silu(g) * u = g / (1 + e^-g) * u, over n elements. */
    void (*silu_mul)(float *g, const float *u, int32_t n);

    /* x becomes softmax(x) over n elements, in place. */
    void (*softmax)(float *x, int32_t n);

    /* One tile of attention for the `group` query heads that share a KV head: positions [0, count),
     * count <= KV_BLOCK. q: [group][hd] already scaled; k: [hd][KV_BLOCK] (transposed), v:
     * [KV_BLOCK][hd], of kv_dtype; hd a multiple of 16. Gives the tile's maximum m[group], sum of
     * exponentials l[group] and weighted values o[group][hd]. scores: scratch [group][KV_BLOCK]. */
    void (*attention_tile)(const float *q, int32_t group, int32_t hd, const void *k, const void *v,
                           enum kv_dtype kv_dtype, int32_t count, float *scores, float *m, float *l,
                           float *o);

    /* Joins a tile's (m, l, o) to the running (rm, rl, ro) of one head: both are rescaled by
     * e^(their maximum - the larger one). */
    void (*attention_join)(float m, float l, const float *o, int32_t hd, float *rm, float *rl,
                           float *ro);
};

/* The tables that this build has; NULL where the instruction set was not compiled in. */
const struct cpu_ops *cpu_ops_portable(void);
const struct cpu_ops *cpu_ops_avx2(void);
const struct cpu_ops *cpu_ops_avx512(void);
const struct cpu_ops *cpu_ops_avx512_simde(void); /* emulated; in test builds */

/* By name, or for "auto" the best that this processor runs. ERR_UNSUPPORTED names what it lacks. */
enum status cpu_ops_choose(const char *name, const struct cpu_ops **out, struct error *err);

#endif
