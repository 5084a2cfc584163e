/* What several kernel files share: sums and maxima over a warp, where a row's KV tiles lie. */
#ifndef WITAN_WORKER_CUDA_COMMON_CUH
#define WITAN_WORKER_CUDA_COMMON_CUH

#include "worker/cuda/device.cuh"
#include "worker/cuda/stages.h"

static const unsigned ALL_LANES = 0xffffffffu;

/* The sum over groups of `lanes` lanes, a power of 2, by halves: every lane gets the same bits. */
DEVICE float lanes_sum(float x, int lanes)
{
    for (int step = lanes / 2; step > 0; step /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

DEVICE float lanes_max(float x, int lanes)
{
    for (int step = lanes / 2; step > 0; step /= 2)
        x = max(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

/* K [row][CUDA_KV_BLOCK] of a batch row's sequence in the block of position `pos`; V
 * [CUDA_KV_BLOCK][row] follows it. */
DEVICE cuda_bf16 *kv_tile(const cuda_kv &kv, const cuda_batch &b, int i, int pos, int head)
{
    int block = b.blocks[b.table[i] + pos / CUDA_KV_BLOCK];
    return kv.data + ((size_t)block * kv.heads + head) * 2 * CUDA_KV_BLOCK * kv.row;
}

#endif
