/* The pieces of a norm over a row of the residual stream, whichever kernel makes it. Thread t of
 * NORM_THREADS has columns 4 t .. + 3 of every 4 x NORM_THREADS; lanes_sum joins a warp's squares,
 * warps' are added in their order. */
#ifndef WITAN_WORKER_CUDA_NORM_CUH
#define WITAN_WORKER_CUDA_NORM_CUH

#include "worker/cuda/common.cuh"

enum { NORM_THREADS = 256 };

/* 1 / sqrt(mean + eps) */
DEVICE float rms_scale(float sum_of_squares, int n, float eps)
{
    float mean = __fdiv_rn(sum_of_squares, (float)n);
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

DEVICE float4 add_rounded(float4 x, double2 low, double2 high)
{
    return make_float4(__fadd_rn(x.x, (float)low.x), __fadd_rn(x.y, (float)low.y),
                       __fadd_rn(x.z, (float)high.x), __fadd_rn(x.w, (float)high.y));
}

DEVICE float norm_add_squares(float4 v, float squares)
{
    squares = __fmaf_rn(v.x, v.x, squares);
    squares = __fmaf_rn(v.y, v.y, squares);
    squares = __fmaf_rn(v.z, v.z, squares);
    return __fmaf_rn(v.w, v.w, squares);
}

/* bf16(norm * (v * r)) */
DEVICE uint2 normed(float4 v, float4 norm, float r)
{
    return make_uint2(
        bf16x2_from_f32(__fmul_rn(norm.x, __fmul_rn(v.x, r)), __fmul_rn(norm.y, __fmul_rn(v.y, r))),
        bf16x2_from_f32(__fmul_rn(norm.z, __fmul_rn(v.z, r)),
                        __fmul_rn(norm.w, __fmul_rn(v.w, r))));
}

#endif
