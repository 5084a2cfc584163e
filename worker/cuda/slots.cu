/* Rows of slots, packed and combined again: see fast.h. */
#include "worker/cuda/common.cuh"
#include "worker/cuda/epilogue.cuh"
#include "worker/cuda/fast.h"

enum { WARPS = 8, THREADS = 32 * WARPS };

/* ---- cuda_pack_rows: a warp a row ---- */

static __global__ void __launch_bounds__(THREADS)
    pack_rows(const uint16_t *x, const int32_t *index, const int32_t *live, int m, int cols,
              uint16_t *out)
{
    int i = (int)(blockIdx.x * WARPS + threadIdx.x / 32);
    if (i >= m || (live && i >= *live))
        return;
    const uint4 *from = (const uint4 *)(x + (size_t)index[i] * (size_t)cols);
    uint4 *to = (uint4 *)(out + (size_t)i * (size_t)cols);
    for (int k = lane_id(); k < cols / 8; k += 32)
        to[k] = from[k];
}

int cuda_pack_rows(const cuda_bf16 *x, const int32_t *index, const int32_t *live, int32_t m,
                   int32_t cols, cuda_bf16 *out, cuda_stream stream)
{
    if (m <= 0 || cols <= 0)
        return 0;
    return launch(
        pack_rows,
        {dim3((unsigned)pieces(m, WARPS)), dim3(THREADS), 0, (device_stream)stream, false}, x,
        index, live, m, cols, out);
}

/* ---- cuda_combine_slots: a block a row ---- */

/* The slot of `row` among an expert's, whose rows ascend; -1: none. */
DEVICE int slot_of(const struct cuda_route &route, int expert, int row)
{
    int begin = route.first[expert], end = route.first[expert + 1], stop = end;
    while (begin < end) {
        int middle = begin + (end - begin) / 2;
        if (route.row[middle] < row)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin < stop && route.row[begin] == row ? begin : -1;
}

static __global__ void __launch_bounds__(THREADS)
    combine_slots(int count, struct cuda_route route, const float *y, struct leaf_sum a)
{
    __shared__ int found[CUDA_FAST_EXPERTS], slot[CUDA_MAX_TOP_K], slots;
    int row = (int)blockIdx.x;
    for (int e = (int)threadIdx.x; e < count; e += THREADS)
        found[e] = slot_of(route, e, row);
    __syncthreads();
    if (threadIdx.x < 32) {
        int n = 0;
        for (int first = 0; first < count; first += 32) {
            int e = first + lane_id(), s = e < count ? found[e] : -1;
            unsigned have = __ballot_sync(ALL_LANES, s >= 0);
            int at = n + __popc(have & ((1u << lane_id()) - 1));
            if (s >= 0 && at < CUDA_MAX_TOP_K)
                slot[at] = s;
            n += __popc(have);
        }
        if (lane_id() == 0)
            slots = min(n, (int)CUDA_MAX_TOP_K);
    }
    __syncthreads();
    unsigned beyond = 0;
    for (int j = 4 * (int)threadIdx.x; j < a.rows; j += 4 * THREADS) {
        float s[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int i = 0; i < slots; i++) {
            float weight = route.weight[slot[i]];
            float4 v = *(const float4 *)(y + (size_t)slot[i] * (size_t)a.rows + (size_t)j);
            s[0] = __fadd_rn(s[0], __fmul_rn(weight, v.x));
            s[1] = __fadd_rn(s[1], __fmul_rn(weight, v.y));
            s[2] = __fadd_rn(s[2], __fmul_rn(weight, v.z));
            s[3] = __fadd_rn(s[3], __fmul_rn(weight, v.w));
        }
        double *to = a.sum + (size_t)row * (size_t)a.rows + (size_t)j;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            beyond += !(fabsf(s[i]) < a.limit); /* a NaN too */
            to[i] = exact_round(s[i]);
        }
    }
    leaves_count_beyond(a, beyond);
}

int cuda_combine_slots(int32_t rows, int32_t count, int32_t hidden, struct cuda_route route,
                       int32_t leaves, const float *y, double *sum,
                       unsigned long long *out_of_range, cuda_stream stream)
{
    if (rows <= 0 || hidden <= 0)
        return 0;
    return launch(combine_slots,
                  {dim3((unsigned)rows), dim3(THREADS), 0, (device_stream)stream, false}, count,
                  route, y, leaf_sum_of(hidden, 0, 0, leaves, sum, out_of_range));
}
