/*
 * The kernels of weights in panels (panels.c) by the names that ops.c puts into its tables: one set
 * an instruction set, OPS_NAME its name. What each computes stands in ops.h.
 */
#ifndef WITAN_WORKER_CPU_PANELS_H
#define WITAN_WORKER_CPU_PANELS_H

#include "worker/cpu/ops.h"

#define PANELS_CAT_(a, b) a##b
#define PANELS_CAT(a, b) PANELS_CAT_(a, b)

#define PANELS_DECLARE(set)                                                                        \
    void PANELS_CAT(panels_quantise_, set)(const float *x, int32_t n, int32_t leaf,                \
                                           const struct act *out, int64_t row);                    \
    void PANELS_CAT(panels_gemm_, set)(const struct act *x, const int32_t *rows, int32_t m,        \
                                       const struct matrix *w, int32_t p0, int32_t p1,             \
                                       struct ahead next, float *y, int64_t ldy, void *scratch);   \
    float PANELS_CAT(panels_gemm_leaf_, set)(                                                      \
        const struct act *x, int64_t first, int32_t m, const struct matrix *w, int32_t leaf,       \
        int32_t p0, int32_t p1, struct ahead next, const float *scale, const int32_t *out,         \
        double *sum, int64_t ldsum, void *scratch);

#endif
