/*
 * What follows a product, whichever kernel made it (products.cu, tiles.cu): exact sums of leaves,
 * and the activation between an expert's halves.
 */
#ifndef WITAN_WORKER_CUDA_EPILOGUE_CUH
#define WITAN_WORKER_CUDA_EPILOGUE_CUH

#include "worker/cuda/device.cuh"

/* On the host: how many of `size` hold n. */
static inline int64_t pieces(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

/* What the leaves of one stage share. */
struct leaf_sum {
    double *sum; /* [tokens, rows] */
    unsigned long long *out_of_range;
    int rows, cols, leaf;
    float limit; /* leaves not below it are counted */
};

static inline struct leaf_sum leaf_sum_of(int32_t rows, int32_t cols, int32_t leaf, int32_t leaves,
                                          double *sum, unsigned long long *out_of_range)
{
    return {sum, out_of_range, rows, cols, leaf, 1048576.0f / (float)leaves};
}

/* exact_round of worker/cpu/ops.h. */
DEVICE double exact_round(float x)
{
    const double shift = 1572864.0;
    return __dsub_rn(__dadd_rn((double)x, shift), shift);
}

/* The leaves of one of `runs` runs of them. */
DEVICE void leaves_of_run(const struct leaf_sum &s, int run, int runs, int *begin, int *end)
{
    int leaves = (s.cols + s.leaf - 1) / s.leaf;
    *begin = (int)((int64_t)leaves * run / runs);
    *end = (int)((int64_t)leaves * (run + 1) / runs);
}

/* Counts a warp's leaves beyond the limit. All lanes together. */
DEVICE void leaves_count_beyond(const struct leaf_sum &s, unsigned beyond)
{
    beyond = __reduce_add_sync(0xffffffffu, beyond);
    if (beyond > 0 && lane_id() == 0)
        atomicAdd(s.out_of_range, (unsigned long long)beyond);
}

DEVICE float silu_mul(float g, float u)
{
    float e = detmath_expf(__fsub_rn(0.0f, g));
    return __fmul_rn(__fdiv_rn(g, __fadd_rn(1.0f, e)), u);
}

#endif
