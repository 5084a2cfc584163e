/* See orders.cuh. */
#include "tests/simt/orders.cuh"

#include "worker/cuda/device.cuh"

#include <stdint.h>

static __global__ void subgroups(bool wrong, int *out)
{
    __shared__ int slot[32];
    int lane = lane_id();
    slot[lane] = lane;
    __syncwarp(0xffu << (lane & 24));
    out[lane] = slot[wrong ? (lane + 8) % 32 : lane ^ 5];
}

static __global__ void lane_chain(bool wrong, int *out)
{
    __shared__ int slot;
    int lane = lane_id();
    if (lane == 0) {
        slot = 7;
        __syncwarp(0x3);
    } else if (lane == 1) {
        __syncwarp(wrong ? 0x6 : 0x3);
        __syncwarp(wrong ? 0x3 : 0x6);
    } else if (lane == 2) {
        __syncwarp(0x6);
        out[0] = slot;
    }
}

static __global__ void warp_chain(bool wrong, int *out)
{
    __shared__ int slot[32];
    int lane = lane_id(), warp = threadIdx.x / 32;
    if (warp == 0) {
        slot[lane] = lane;
        named_barrier_sync(1, 64);
    } else if (warp == 1) {
        named_barrier_sync(wrong ? 2 : 1, 64);
        named_barrier_sync(wrong ? 1 : 2, 64);
    } else {
        named_barrier_sync(2, 64);
        out[lane] = slot[31 - lane];
    }
}

static __global__ void halves(bool wrong, int *out)
{
    __shared__ __align__(4) uint16_t half[128];
    half[threadIdx.x] = (uint16_t)threadIdx.x;
    if (!wrong)
        __syncthreads();
    if (threadIdx.x < 64)
        out[threadIdx.x] = ((const int *)half)[63 - threadIdx.x];
}

static __global__ void atomic_read(bool wrong, int *out, int *scratch)
{
    atomicAdd(scratch, 1);
    if (!wrong)
        __syncthreads();
    out[threadIdx.x] = *scratch;
}

static __global__ void readers(bool wrong, int *out)
{
    __shared__ int slot;
    if (threadIdx.x == 0)
        slot = 1;
    __syncthreads();
    out[threadIdx.x] = slot;
    if (!wrong)
        __syncthreads();
    if (threadIdx.x == 77)
        slot = 2;
}

static __global__ void blocks(bool wrong, int *out, int *scratch)
{
    int block = blockIdx.x;
    scratch[64 * block + threadIdx.x] = threadIdx.x;
    __syncthreads();
    int from = wrong ? 3 - block : block;
    out[64 * block + threadIdx.x] = scratch[64 * from + 63 - threadIdx.x];
}

static __global__ void shuffle(bool wrong, int *out)
{
    __shared__ int slot[32];
    int lane = lane_id();
    slot[lane] = lane;
    if (wrong)
        lane = __shfl_sync(0xffffffffu, lane, lane);
    else
        __syncwarp();
    out[lane] = slot[31 - lane];
}

static __global__ void ticket(bool wrong, int *out, int *scratch)
{
    int lane = lane_id(), before = 0;
    scratch[32 + 32 * blockIdx.x + lane] = lane;
    if (!wrong)
        __syncwarp();
    if (lane == 0) {
        __threadfence();
        before = atomicAdd(scratch, 1);
    }
    before = __shfl_sync(0xffffffffu, before, 0);
    __syncwarp();
    if (before == (int)gridDim.x - 1)
        for (int i = 0; i < (int)gridDim.x; i++)
            out[32 * i + lane] = scratch[32 + 32 * i + 31 - lane];
}

static __global__ void ticket_again(bool wrong, int *out, int *scratch)
{
    __shared__ bool last;
    scratch[64 + 64 * blockIdx.x + threadIdx.x] = 1;
    __syncthreads();
    if (threadIdx.x == 0) {
        if (!wrong)
            __threadfence();
        last = atomicAdd(&scratch[0], 1) == (int)gridDim.x - 1;
        if (!wrong)
            __threadfence();
    }
    __syncthreads();
    if (!last)
        return;
    atomicAdd(&scratch[1 + threadIdx.x % 2], 1);
    out[threadIdx.x] = scratch[64 + 64 * ((blockIdx.x + 1) % gridDim.x) + threadIdx.x];
}

static __global__ void copy(bool wrong, int *out, const int *scratch)
{
    __shared__ __align__(16) int slot[128];
    cp_async<4>(&slot[threadIdx.x], &scratch[threadIdx.x]);
    cp_async_wait_all();
    if (!wrong)
        __syncthreads();
    out[threadIdx.x] = slot[127 - threadIdx.x];
}

static __global__ void write_one(int *scratch)
{
    scratch[blockIdx.x] = blockIdx.x;
}

static __global__ void read_one(bool wrong, int *out, int *scratch)
{
    if (wrong)
        scratch[blockIdx.x] = blockIdx.x;
    out[blockIdx.x] = scratch[gridDim.x - 1 - blockIdx.x];
}

/* scratch[64 ...]: weights, which no launch wrote, are read before the wait. */
static __global__ void overlapping(bool wrong, int *out, int *scratch)
{
    int weight = scratch[64 + blockIdx.x];
    if (!wrong && threadIdx.x == 0)
        grid_dependency_wait();
    __syncthreads();
    if (threadIdx.x == 1)
        out[blockIdx.x] = weight + scratch[gridDim.x - 1 - blockIdx.x];
    grid_dependency_launch();
}

static __global__ void between(bool wrong)
{
    if (!wrong)
        grid_dependency_wait();
    grid_dependency_launch();
}

int run_order(enum order_kind kind, bool wrong, int *out, int *scratch)
{
    auto shape = [](int grid, int block) {
        return launch_shape{dim3(grid), dim3(block), 0, nullptr, false};
    };
    switch (kind) {
    case ORDER_SUBGROUPS:
        return launch(subgroups, shape(1, 32), wrong, out);
    case ORDER_LANE_CHAIN:
        return launch(lane_chain, shape(1, 32), wrong, out);
    case ORDER_WARP_CHAIN:
        return launch(warp_chain, shape(1, 96), wrong, out);
    case ORDER_HALVES:
        return launch(halves, shape(1, 128), wrong, out);
    case ORDER_ATOMIC_READ:
        return launch(atomic_read, shape(1, 96), wrong, out, scratch);
    case ORDER_READERS:
        return launch(readers, shape(1, 128), wrong, out);
    case ORDER_BLOCKS:
        return launch(blocks, shape(4, 64), wrong, out, scratch);
    case ORDER_SHUFFLE:
        return launch(shuffle, shape(1, 32), wrong, out);
    case ORDER_TICKET:
        return launch(ticket, shape(5, 32), wrong, out, scratch);
    case ORDER_TICKET_AGAIN:
        return launch(ticket_again, shape(5, 64), wrong, out, scratch);
    case ORDER_COPY:
        return launch(copy, shape(1, 128), wrong, out, (const int *)scratch);
    case ORDER_NEXT_LAUNCH: {
        int code = launch(write_one, shape(32, 1), scratch);
        return code ? code : launch(read_one, shape(32, 1), wrong, out, scratch);
    }
    default: {
        launch_shape overlap = shape(32, 64);
        overlap.overlap = true;
        int code = launch(write_one, shape(32, 1), scratch);
        if (!code && kind != ORDER_OVERLAP)
            code = launch(between, overlap, wrong && kind == ORDER_OVERLAP_LINK);
        wrong = wrong && kind != ORDER_OVERLAP_LINK;
        return code ? code : launch(overlapping, overlap, wrong, out, scratch);
    }
    }
}
