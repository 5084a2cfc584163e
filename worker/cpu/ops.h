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
 * - With weights in panels (partition/panel.h) activations are codes of 8 bits. Spans of ACT_SPAN
 * columns, counted from the start of the row or of the leaf (the last may be shorter), share a
 * scale: a = the largest |x| of the span; scale = a * (1/127), code = x * (127 / a) rounded to
 * nearest, ties to even (all zero where a or 127 / a is not finite). A dot product is, from 0, a
 * chain over spans of fma(g, activation's scale, sum), where g is, from 0, a chain over the span's
 * blocks of fma(d, weight's scale, g), and d the exact sum of the products of codes. Leaves are
 * rounded as above.
 */
#ifndef WITAN_WORKER_CPU_OPS_H
#define WITAN_WORKER_CPU_OPS_H

#include "partition/checkpoint.h"
#include "partition/panel.h"
#include "partition/plan.h"
#include "worker/cpu/attention_ops.h"
#include "worker/cpu/rows.h"
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

enum { ACT_SPAN = 64 };

/* Rows of activations as codes of 8 bits, in memory of the caller, on borders of 64. */
struct act {
    int8_t *code;   /* [rows][blocks * PANEL_BLOCK]; 0 past the row's end */
    float *scale;   /* [rows][blocks]: that of the block's span */
    int32_t *bias;  /* [rows][blocks]: -128 times the sum of the block's codes */
    int32_t blocks; /* panel_blocks(columns) */
};

/* Weights that are read soon: to be asked for in time. Nothing: {0}. */
struct ahead {
    const char *data;
    uint64_t bytes;
};

struct cpu_ops {
    const char *name;            /* as cpu_ops_name says it; emulated ones with _ for - */
    const struct cpu_rows *rows; /* passes over rows of logits */
    const struct cpu_attention *attention;

    /* y[i * ldy + j - n0] = dot(x row i, w row j) for i < m, j in [n0, n1). x row i is x + rows[i]
     * * ldx, or x + i * ldx where rows is NULL; its length is w->cols. next: weights that this
     * thread reads after these, to ask for them meanwhile; it changes no result. */
    void (*gemm)(const float *x, int64_t ldx, const int32_t *rows, int32_t m,
                 const struct matrix *w, int32_t n0, int32_t n1, struct ahead next, float *y,
                 int64_t ldy);

    /* sum[out[i] * ldsum + j - n0] += exact sum over leaves of scale[i] * dot(x row i, w row j),
     * for j in [n0, n1). `out` NULL is i, `scale` NULL is 1. Returns the largest |leaf|, for the
     * check of the range in which sums are exact. */
    float (*gemm_leaf)(const float *x, int64_t ldx, int32_t m, const struct matrix *w, int32_t leaf,
                       int32_t n0, int32_t n1, struct ahead next, const float *scale,
                       const int32_t *out, double *sum, int64_t ldsum);

    /* Row `row` of `out` = x[n]; spans begin anew every `leaf` columns, a multiple of PANEL_BLOCK
     * (0: never). A NaN or infinity makes its span's products NaN. */
    void (*quantise)(const float *x, int32_t n, int32_t leaf, const struct act *out, int64_t row);

    /* gemm and gemm_leaf with a matrix in panels (w->shape.form FORM_PANELS8 or
     * FORM_PANELS4) for panels [p0, p1), that is columns j in [p0 * PANEL_ROWS, p1 *
     * PANEL_ROWS) below w->rows; y and sum as above with n0 = p0 * PANEL_ROWS. Row i is row rows[i]
     * of x, or i; of gemm_panels_leaf row first + i. scratch: panel_scratch_bytes(w->cols), on a
     * border of 64. Any m gives the same bits. */
    void (*gemm_panels)(const struct act *x, const int32_t *rows, int32_t m, const struct matrix *w,
                        int32_t p0, int32_t p1, struct ahead next, float *y, int64_t ldy,
                        void *scratch);
    float (*gemm_panels_leaf)(const struct act *x, int64_t first, int32_t m, const struct matrix *w,
                              int32_t leaf, int32_t p0, int32_t p1, struct ahead next,
                              const float *scale, const int32_t *out, double *sum, int64_t ldsum,
                              void *scratch);

    /* y = x * (1 / sqrt(mean(x^2) + eps)) * w over n elements. x and y may be the same. */
    void (*rms_norm)(const float *x, const float *w, int32_t n, float eps, float *y);

    /* g = silu(g) * u = g / (1 + e^-g) * u, over n elements. */
    void (*silu_mul)(float *g, const float *u, int32_t n);

    /* x becomes softmax(x) over n elements, in place. */
    void (*softmax)(float *x, int32_t n);
};

/* What every processor runs. */
const struct cpu_ops *cpu_ops_portable(void);

/* Name i of all sets, the best first, whether or not they run here; those that end in -simde are
 * emulated, in test builds. NULL past the last. */
const char *cpu_ops_name(int i);

/* By name, or for "auto" the best that this processor runs. ERR_UNSUPPORTED names what it lacks. */
enum status cpu_ops_choose(const char *name, const struct cpu_ops **out, struct error *err);

#endif
