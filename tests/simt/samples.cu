/* Sample kernels with faults to plant: see samples.cuh. `F` is a constant, so that a kernel without
 * a fault is what its reader would write. */
#include "tests/simt/samples.cuh"

#include "worker/cuda/device.cuh"

#include <type_traits>

static const unsigned ALL = 0xffffffffu;

/* Calls with the fault as a constant: NO_FAULT, or one of the kernel's own, FIRST to LAST. */
template <int FIRST, int LAST, class C> static int with_fault(fault_kind f, C call)
{
    if (f == NO_FAULT)
        return call(std::integral_constant<fault_kind, NO_FAULT>());
    if (f == FIRST)
        return call(std::integral_constant<fault_kind, (fault_kind)FIRST>());
    if constexpr (FIRST < LAST)
        return with_fault<FIRST + 1, LAST>(f, call);
    return -1;
}

/* ---- row_sum: a block a row ---- */

template <fault_kind F> static __device__ float warp_sum(float x)
{
    for (int step = F == TOO_FEW_STEPS ? 8 : 16; step > 0; step /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(F == NOT_IN_MASK ? 0xffffu : ALL, x, step));
    return x;
}

template <fault_kind F> static __global__ void row_sum(const float *x, int columns, float *out)
{
    __shared__ float partial[32];
    const float *row = x + (size_t)blockIdx.x * columns;
    int lane = lane_id(), warp = threadIdx.x / 32, warps = blockDim.x / 32;
    if (F == EXIT_BEFORE_BARRIER && (int)threadIdx.x >= columns)
        return;

    float sum = 0.0f;
    int bound = F == BOUND_OFF_BY_ONE ? columns + 1 : columns;
    for (int i = threadIdx.x; i < bound; i += blockDim.x)
        sum = __fadd_rn(sum, row[i]);
    sum = warp_sum<F>(sum);
    if (lane == 0)
        partial[F == PAST_SHARED ? warp + 32 : warp] = sum;
    if (F == BARRIER_IN_BRANCH) {
        if (warp < 2)
            __syncthreads();
    } else if (F == TWO_BARRIERS) {
        if (warp < 2)
            __syncthreads();
        else
            __syncthreads();
    } else if (F != DROPPED_BARRIER) {
        __syncthreads();
    }

    if (warp > 0)
        return;
    if (F == SHUFFLE_IN_BRANCH && lane >= warps)
        out[0] = out[0]; /* these lanes go another way and never meet the others */
    else if (F == SHUFFLE_FROM_ABSENT)
        sum = __shfl_sync(1u << lane, partial[0], 31);
    else
        sum = warp_sum<F>(lane < warps || F == UNWRITTEN_SHARED ? partial[lane] : 0.0f);
    if (lane == 0)
        out[blockIdx.x] = sum;
    if (F == SHUFFLE_IN_BRANCH)
        __syncwarp();
}

int run_row_sum(enum fault_kind f, const float *x, int rows, int columns, float *out, int threads)
{
    auto call = [&](auto fault) {
        return launch(row_sum<fault()>, {dim3(rows), dim3(threads), 0, nullptr, false}, x, columns,
                      out);
    };
    return with_fault<DROPPED_BARRIER, TOO_FEW_STEPS>(f, call);
}

/* ---- gemm_bf16: 64 x 64 of C a block of 4 warps, 32 columns of K at a time, two buffers ---- */

enum { TILE = 64, TILE_K = 32, PITCH = TILE_K + 8 }; /* pitch: rows on different banks */

template <fault_kind F> struct gemm_tile {
    static const int pitch = F == MISALIGNED_ROWS ? TILE_K + 4 : PITCH;
    static const int elements = TILE * pitch;
};

/* One tile of A or B on its way into shared memory: rows and columns beyond the edges are zeros. */
template <fault_kind F>
static __device__ void load_tile(uint16_t *tile, const uint16_t *x, int row0, int rows, int k0,
                                 int k)
{
    for (int i = threadIdx.x; i < TILE * TILE_K / 8; i += blockDim.x) {
        int row = i / (TILE_K / 8), column = i % (TILE_K / 8) * 8;
        bool inside = (row0 + row < rows || F == PAST_LAST_ROW) &&
                      (k0 + column < k || F == PAST_LAST_K);
        const uint16_t *from = inside ? x + (size_t)(row0 + row) * k + k0 + column : x;
        uint16_t *to = tile + row * gemm_tile<F>::pitch + column;
        if (F == MISALIGNED_ROWS) {
            cp_async<8>(to, from, inside ? 8 : 0);
            cp_async<8>(to + 4, from + 4, inside ? 8 : 0);
        } else {
            cp_async<16>(to, from, inside ? 16 : 0);
        }
    }
}

/* A warp's 32 x 32 of the tile's product. */
template <fault_kind F>
static __device__ void multiply_tile(const uint16_t *a, const uint16_t *b, int row0, int column0,
                                     float (&d)[2][4][4])
{
    const int pitch = gemm_tile<F>::pitch;
    int lane = lane_id();
    for (int k = 0; k < TILE_K; k += 16) {
        uint32_t fa[2][4], fb[4][2];
        for (int i = 0; i < 2; i++)
            ldmatrix_x4(fa[i], a + (row0 + 16 * i + lane % 16) * pitch + k + lane / 16 * 8);
        for (int j = 0; j < 4; j++) {
            const uint16_t *row = b + (column0 + 8 * j + lane % 8) * pitch + k + lane / 8 % 2 * 8;
            if (F == TRANSPOSED_B)
                ldmatrix_x2_trans(fb[j], row);
            else
                ldmatrix_x2(fb[j], row);
        }
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 4; j++)
                mma_m16n8k16_bf16(d[i][j], fa[i], fb[j]);
    }
}

template <fault_kind F>
static __device__ void store_tile(float *c, int m, int n, int row0, int column0,
                                  const float (&d)[2][4][4])
{
    int lane = lane_id(), stride = F == WRONG_STRIDE ? n - 1 : n;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++) {
                int row = row0 + 16 * i + lane / 4 + e / 2 * 8;
                int column = column0 + 8 * j + lane % 4 * 2 + e % 2;
                if (row < m && (column < n || F == STORE_PAST_EDGE))
                    c[(size_t)row * stride + column] = d[i][j][e];
            }
}

template <fault_kind F>
static __global__ void __launch_bounds__(128)
    gemm_bf16(const uint16_t *__restrict__ a, const uint16_t *__restrict__ b, float *c, int m,
              int n, int k)
{
    SHARED_DYNAMIC(uint16_t, smem); /* [2 buffers][a, b][TILE][pitch] */
    const int elements = gemm_tile<F>::elements;
    int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE, warp = threadIdx.x / 32;
    int tiles = (k + TILE_K - 1) / TILE_K;
    float d[2][4][4] = {};

    grid_dependency_wait();
    for (int t = -1; t < tiles; t++) {
        if (t + 1 < tiles) { /* the next tile, while this one is computed */
            uint16_t *next = smem + (t + 1) % 2 * 2 * elements;
            load_tile<F>(next, a, row0, m, (t + 1) * TILE_K, k);
            load_tile<F>(next + elements, b, column0, n, (t + 1) * TILE_K, k);
        }
        cp_async_commit();
        if (t < 0)
            continue;
        if (F != NO_COPY_WAIT && F != WAIT_LEAVES_ONE)
            cp_async_wait<1>();
        else if (F == WAIT_LEAVES_ONE)
            cp_async_wait<2>();
        if (F != NO_BARRIER_AFTER_WAIT)
            __syncthreads();
        const uint16_t *now = smem + (F == WRONG_BUFFER ? t + 1 : t) % 2 * 2 * elements;
        multiply_tile<F>(now, now + elements, warp / 2 * 32, warp % 2 * 32, d);
        if (F != NO_BARRIER_BEFORE_COPY)
            __syncthreads();
    }
    grid_dependency_launch();
    store_tile<F>(c, m, n, row0 + warp / 2 * 32, column0 + warp % 2 * 32, d);
}

int run_gemm_bf16(enum fault_kind f, const uint16_t *a, const uint16_t *b, float *c, int m, int n,
                  int k)
{
    auto call = [&](auto fault) {
        dim3 grid((n + TILE - 1) / TILE, (m + TILE - 1) / TILE);
        size_t bytes = 4 * gemm_tile<fault()>::elements * sizeof(uint16_t);
        return launch(gemm_bf16<fault()>, {grid, dim3(128), bytes, nullptr, true}, a, b, c, m, n,
                      k);
    };
    return with_fault<NO_COPY_WAIT, STORE_PAST_EDGE>(f, call);
}

/* ---- softmax_rows: a warp a row; each lane's part is kept in shared memory between passes ---- */

enum { SOFTMAX_WARPS = 4, SOFTMAX_LONGEST = 256 };

template <fault_kind F> static __device__ float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = max(x, __shfl_xor_sync(ALL, x, step));
    return x;
}

template <fault_kind F>
static __global__ void softmax_rows(const float *x, const int *first, const float *scale, int rows,
                                    float *y)
{
    __shared__ float kept[SOFTMAX_WARPS][SOFTMAX_LONGEST];
    int lane = lane_id(), warp = threadIdx.x / 32, row = blockIdx.x * SOFTMAX_WARPS + warp;
    if (row >= rows)
        return;
    int begin = first[row], length = first[row + 1] - begin;
    if (F == PAST_RAGGED_LENGTH)
        length = (length + 31) / 32 * 32;
    float by = scale[F == WRONG_SCALE ? (row + 1) % rows : row];
    float *mine = kept[warp];

    if (F == MISALIGNED_VECTOR) {
        for (int i = 4 * lane; i + 4 <= length; i += 128) {
            float4 v = *(const float4 *)(x + begin + i);
            mine[i] = v.x, mine[i + 1] = v.y, mine[i + 2] = v.z, mine[i + 3] = v.w;
        }
        for (int i = length / 4 * 4 + lane; i < length; i += 32)
            mine[i] = x[begin + i];
    } else {
        for (int i = length - 1 - lane; i >= 0; i -= 32) /* from the end: others' elements below */
            mine[i] = x[begin + i];
    }
    if (F != NO_SYNCWARP)
        __syncwarp();
    float top = -INFINITY;
    for (int i = lane; i < length; i += 32)
        top = max(top, __fmul_rn(by, mine[i]));
    top = warp_max<F>(top);
    float sum = 0.0f;
    for (int i = lane; i < length; i += 32) {
        mine[i] = detmath_expf(__fsub_rn(__fmul_rn(by, mine[i]), top));
        sum = __fadd_rn(sum, mine[i]);
    }
    sum = warp_sum<NO_FAULT>(sum);
    float *out = F == WRITES_INPUT ? const_cast<float *>(x) : y;
    int to = F == ROW_OF_ANOTHER ? first[row / 2 * 2] : begin;
    for (int i = lane; i < length; i += 32)
        out[to + i] = __fdiv_rn(mine[i], sum);
}

int run_softmax_rows(enum fault_kind f, const float *x, const int *first, const float *scale,
                     int rows, float *y)
{
    auto call = [&](auto fault) {
        dim3 grid((rows + SOFTMAX_WARPS - 1) / SOFTMAX_WARPS);
        return launch(softmax_rows<fault()>, {grid, dim3(32 * SOFTMAX_WARPS), 0, nullptr, false}, x,
                      first, scale, rows, y);
    };
    return with_fault<PAST_RAGGED_LENGTH, ROW_OF_ANOTHER>(f, call);
}

/* ---- histogram: counted in shared memory, then added up ---- */

template <fault_kind F>
static __global__ void histogram(const uint8_t *x, int n, int bins, int *counts)
{
    SHARED_DYNAMIC(int, mine); /* [bins] */
    for (int b = threadIdx.x; b < bins && F != NOT_CLEARED; b += blockDim.x)
        mine[b] = 0;
    if (F != NO_BARRIER_AFTER_CLEAR)
        __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        if (F == PLAIN_ADD_SHARED)
            mine[x[i]]++;
        else
            atomicAdd(&mine[x[i]], 1);
    __syncthreads();
    for (int b = threadIdx.x; b < bins; b += blockDim.x)
        if (F == PLAIN_ADD_GLOBAL)
            counts[b] += mine[b];
        else
            atomicAdd(&counts[b], mine[b]);
}

int run_histogram(enum fault_kind f, const uint8_t *x, int n, int bins, int *counts)
{
    auto call = [&](auto fault) {
        size_t bytes = (size_t)bins * sizeof(int) / (fault() == SHARED_TOO_SMALL ? 2 : 1);
        return launch(histogram<fault()>, {dim3(5), dim3(96), bytes, nullptr, false}, x, n, bins,
                      counts);
    };
    return with_fault<PLAIN_ADD_SHARED, SHARED_TOO_SMALL>(f, call);
}

/* ---- total ---- */

template <fault_kind F>
static __global__ void total(const float *x, int n, float *partial, unsigned *ticket, float *out)
{
    __shared__ bool last;
    int lane = threadIdx.x; /* one warp */
    float sum = 0.0f;
    for (int i = blockIdx.x * 32 + lane; i < n; i += gridDim.x * 32)
        sum = __fadd_rn(sum, x[i]);
    sum = warp_sum<NO_FAULT>(sum);
    if (lane == 0) {
        partial[blockIdx.x] = sum;
        if (F != NO_FENCE)
            __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last)
        return;
    sum = 0.0f;
    for (int i = lane; i < (int)gridDim.x; i += 32)
        sum = __fadd_rn(sum, partial[i]);
    sum = warp_sum<NO_FAULT>(sum);
    if (lane == 0)
        *out = sum;
}

int run_total(enum fault_kind f, const float *x, int n, float *partial, unsigned *ticket,
              float *out, int blocks)
{
    auto call = [&](auto fault) {
        return launch(total<fault()>, {dim3(blocks), dim3(32), 0, nullptr, false}, x, n, partial,
                      ticket, out);
    };
    return with_fault<NO_FENCE, NO_FENCE>(f, call);
}

/* ---- handover: warp 0 fills, warp 1 empties; barrier 1: full, barrier 2: empty ---- */

template <fault_kind F> static __global__ void handover(const float *x, int rounds, float *y)
{
    __shared__ float slot[32];
    int lane = lane_id();
    for (int r = 0; r < rounds; r++) {
        if (threadIdx.x < 32) {
            if (r > 0)
                named_barrier_sync(2, 64);
            slot[lane] = __fmul_rn(2.0f, x[32 * r + lane]);
            if (F != NO_ARRIVAL || r < rounds - 1)
                named_barrier_arrive(1, 64);
        } else {
            named_barrier_sync(1, 64);
            y[32 * r + lane] = slot[31 - lane];
            if (r < rounds - 1)
                named_barrier_arrive(2, 64);
        }
    }
}

int run_handover(enum fault_kind f, const float *x, int rounds, float *y)
{
    auto call = [&](auto fault) {
        return launch(handover<fault()>, {dim3(1), dim3(64), 0, nullptr, false}, x, rounds, y);
    };
    return with_fault<NO_ARRIVAL, NO_ARRIVAL>(f, call);
}
