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

/* Scales of a position in an int8 cache's K, or V. */
DEVICE int kv8_groups(int row)
{
    return (row + CUDA_KV8_GROUP - 1) / CUDA_KV8_GROUP;
}

/* What K of a block and KV head takes, as elements of bf16, and V after it. */
DEVICE int kv_tile_size(const cuda_kv &kv)
{
    return kv.int8 ? CUDA_KV_BLOCK / 2 * (kv.row + 2 * kv8_groups(kv.row)) : CUDA_KV_BLOCK * kv.row;
}

/* K [row][CUDA_KV_BLOCK] of a batch row's sequence in the block of position `pos`; V
 * [CUDA_KV_BLOCK][row] follows it. */
DEVICE cuda_bf16 *kv_tile(const cuda_kv &kv, const cuda_batch &b, int i, int pos, int head)
{
    int block = b.blocks[b.table[i] + pos / CUDA_KV_BLOCK];
    return kv.data + ((size_t)block * kv.heads + head) * 2 * kv_tile_size(kv);
}

#endif
