/*
 * A MoE layer's norm, router and routes in one launch, for the few rows of a decode step: see
 * cuda_router in stages.h. A block has a tile of eight rows and a strip of sixteen experts. It
 * norms its rows itself, as every other strip's does: that costs less than a launch. The last block
 * of a tile to be done writes x back and chooses; the last of all sorts the slots. Each step has
 * the bits of the stage that it stands for: the norm is norm.cuh's, the product product.cuh's, the
 * choice routing.cuh's.
 */
#include "worker/cuda/epilogue.cuh"
#include "worker/cuda/norm.cuh"
#include "worker/cuda/routing.cuh"

enum {
    THREADS = NORM_THREADS,
    WARPS = THREADS / 32,
    TILE = 8,   /* rows: of an mma; a warp each when they choose */
    STRIP = 16, /* experts */
    BLOCK = 32, /* columns of two mma */
    AHEAD =
        32, /* blocks of weights on their way: 32 KiB, asked for before the launch before ends */
    SPREAD = 32,                   /* columns between rows in shared memory: no bank conflicts */
    WORDS = CUDA_ROUTER_ROWS / 32, /* of an expert's set of rows */
    SHARED_LIMIT = 98 * 1024,      /* what devices from sm_80 on give a block */
};
static_assert(WARPS == TILE, "a warp a row");
static_assert(CUDA_ROUTER_ZEROS >= (1 + CUDA_ROUTER_ROWS / TILE) * sizeof(unsigned), "a tile each");

struct router_job {
    double *sum;
    float *x;
    const float *norm;
    float eps;
    const uint16_t *w;
    int rows, hidden, experts, top_k, renormalise, begin, end;
    unsigned *arrived; /* [1 + tiles]: of all tiles, of each one's strips; zero between launches */
    uint16_t *xn;
    float *logits;
    struct cuda_route route;
};

/* The residual stream's next state, of four columns. */
DEVICE float4 router_sum(const router_job &j, size_t at)
{
    float4 v = *(const float4 *)(j.x + at);
    if (!j.sum)
        return v;
    const double2 *from = (const double2 *)(j.sum + at);
    return add_rounded(v, from[0], from[1]);
}

/* xn of the tile's rows into shared memory, zeros for rows past the last; the strip's share of it
 * into global memory. */
DEVICE void router_norm(const router_job &j, int first, int count, uint16_t *tile)
{
    __shared__ float of_warp[TILE][WARPS];
    int warp = threadIdx.x / 32;
    for (int n = 0; n < count; n++) {
        float squares = 0.0f;
        for (int i = 4 * threadIdx.x; i < j.hidden; i += 4 * THREADS)
            squares = norm_add_squares(router_sum(j, (size_t)(first + n) * j.hidden + i), squares);
        squares = lanes_sum(squares, 32);
        if (lane_id() == 0)
            of_warp[n][warp] = squares;
    }
    __syncthreads();
    for (int n = 0; n < TILE; n++) {
        float squares = n < count ? of_warp[n][0] : 0.0f;
        for (int w = 1; n < count && w < WARPS; w++)
            squares = __fadd_rn(squares, of_warp[n][w]);
        float r = rms_scale(squares, j.hidden, j.eps);
        for (int i = 4 * threadIdx.x; i < j.hidden; i += 4 * THREADS) {
            uint2 y = make_uint2(0, 0);
            if (n < count) {
                size_t at = (size_t)(first + n) * j.hidden + i;
                y = normed(router_sum(j, at), *(const float4 *)(j.norm + i), r);
                if (i / 128 % gridDim.x == blockIdx.x)
                    *(uint2 *)(j.xn + at) = y;
            }
            *(uint2 *)(tile + n * (j.hidden + SPREAD) + i) = y;
        }
    }
}

/* A lane's part of the strip's weights: see product.cuh. */
struct router_stream {
    const uint16_t *w[2]; /* from the lane's first column on */
    uint4 *ring;          /* the lane's first piece */
    int fetched, mine;
};

/* Starts copies of the next block of columns. */
DEVICE void router_fetch(router_stream &s, int hidden)
{
    int k = s.fetched++ * BLOCK, bytes = k + s.mine < hidden ? 16 : 0;
    uint4 *to = s.ring + (s.fetched - 1) % AHEAD * 64;
    for (int half = 0; half < 2; half++)
        cp_async<16>(to + 32 * half, s.w[half] + (bytes ? k : 0), bytes);
    cp_async_commit();
}

DEVICE void router_open(router_stream &s, const router_job &j, int strip, uint4 *ring)
{
    int lane = lane_id();
    s.mine = lane % 4 * 8;
    s.ring = ring + lane;
    s.fetched = 0;
    for (int half = 0; half < 2; half++) {
        int row = min(strip * STRIP + lane / 4 + 8 * half, j.experts - 1);
        s.w[half] = j.w + (size_t)row * j.hidden + (s.mine < j.hidden ? s.mine : 0);
    }
    for (int b = 0; b < AHEAD; b++)
        router_fetch(s, j.hidden);
}

/* The strip's logits of the tile's rows, by one warp. */
DEVICE void router_product(router_stream &s, const router_job &j, int strip, int first,
                           const uint16_t *tile)
{
    int lane = lane_id();
    const uint16_t *x = tile + lane / 4 * (j.hidden + SPREAD) + s.mine;
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int b = 0; b * BLOCK < j.hidden; b++) {
        cp_async_wait<AHEAD - 1>();
        const uint4 *from = s.ring + b % AHEAD * 64;
        const uint4 low = from[0], high = from[32];
        uint4 y = make_uint4(0, 0, 0, 0);
        if (b * BLOCK + s.mine < j.hidden)
            y = *(const uint4 *)(x + b * BLOCK);
        const uint32_t a0[4] = {low.x, high.x, low.y, high.y}, x0[2] = {y.x, y.y};
        const uint32_t a1[4] = {low.z, high.z, low.w, high.w}, x1[2] = {y.z, y.w};
        mma_m16n8k16_bf16(d, a0, x0);
        mma_m16n8k16_bf16(d, a1, x1);
        router_fetch(s, j.hidden);
    }
    cp_async_wait_all();
    for (int e = 0; e < 4; e++) {
        int expert = strip * STRIP + lane / 4 + e / 2 * 8, row = first + lane % 4 * 2 + e % 2;
        if (expert < j.experts && row < j.rows)
            j.logits[(size_t)row * j.experts + expert] = d[e];
    }
}

/* Is this the last of `blocks` blocks to come here? What they did before is then done, and *arrived
 * zero again. */
DEVICE bool last_to_arrive(unsigned *arrived, unsigned blocks)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(arrived, 1u) == blocks - 1;
        if (last)
            atomicExch(arrived, 0u);
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* The slots by expert, rows ascending: each expert's set of rows, then how many lie before. */
DEVICE void router_slots(const router_job &j, unsigned *sets)
{
    int local = j.end - j.begin, choices = j.rows * j.top_k, lane = lane_id();
    int *first = (int *)(sets + local * WORDS);
    for (int i = threadIdx.x; i < local * WORDS; i += THREADS)
        sets[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < choices; i += THREADS) {
        int e = j.route.chosen[i] - j.begin, row = i / j.top_k;
        if (e >= 0 && e < local)
            atomicOr(&sets[e * WORDS + row / 32], 1u << row % 32);
    }
    __syncthreads();
    int before = 0;
    for (int e = lane; threadIdx.x < 32 && e < local + lane; e += 32) {
        int own = 0;
        for (int w = 0; e < local && w < WORDS; w++)
            own += __popc(sets[e * WORDS + w]);
        int upto = own;
        for (int step = 1; step < 32; step *= 2) {
            int other = __shfl_up_sync(ALL_LANES, upto, step);
            upto += lane >= step ? other : 0;
        }
        if (e < local)
            j.route.first[e] = first[e] = before + upto - own;
        before += __shfl_sync(ALL_LANES, upto, 31);
    }
    if (threadIdx.x == 0)
        j.route.first[local] = before;
    __syncthreads();
    for (int i = threadIdx.x; i < choices; i += THREADS) {
        int e = j.route.chosen[i] - j.begin, row = i / j.top_k;
        if (e < 0 || e >= local)
            continue;
        int at = first[e] + __popc(sets[e * WORDS + row / 32] & ((1u << row % 32) - 1u));
        for (int w = 0; w < row / 32; w++)
            at += __popc(sets[e * WORDS + w]);
        j.route.row[at] = row;
        j.route.weight[at] = j.route.chosen_weight[i];
    }
}

static __global__ void __launch_bounds__(THREADS, 2) router(router_job j)
{
    SHARED_DYNAMIC(uint4, memory); /* [AHEAD][2][32] weights; xn, then keys, then sets and places */
    uint16_t *tile = (uint16_t *)(memory + AHEAD * 64);
    int strip = blockIdx.x, first = blockIdx.y * TILE, count = min(j.rows - first, (int)TILE);
    int warp = threadIdx.x / 32;
    router_stream s;
    if (warp == 0)
        router_open(s, j, strip, memory);
    for (int i = AHEAD * BLOCK * STRIP + threadIdx.x * 64; i < STRIP * j.hidden;
         i += THREADS * 64) {
        /* the columns after those that are on their way, 64 of a row at a time */
        int row = min(strip * STRIP + i / 64 % STRIP, j.experts - 1);
        prefetch_l2(j.w + (size_t)row * j.hidden + min(i / 64 / STRIP * 64, j.hidden - 1));
    }
    grid_dependency_wait();
    grid_dependency_launch();
    router_norm(j, first, count, tile);
    __syncthreads();
    if (warp == 0)
        router_product(s, j, strip, first, tile);
    if (!last_to_arrive(j.arrived + 1 + blockIdx.y, gridDim.x))
        return;

    int row = first + warp;
    if (warp < count)
        route_choose(j.logits + (size_t)row * j.experts, j.experts, j.top_k, j.renormalise,
                     (unsigned *)tile + warp * j.experts, j.route.chosen + (size_t)row * j.top_k,
                     j.route.chosen_weight + (size_t)row * j.top_k);
    bool all = last_to_arrive(j.arrived, gridDim.y);
    for (int n = 0; j.sum && n < count; n++)
        for (int i = 4 * threadIdx.x; i < j.hidden; i += 4 * THREADS) {
            size_t at = (size_t)(first + n) * j.hidden + i;
            *(float4 *)(j.x + at) = router_sum(j, at);
            *(double2 *)(j.sum + at) = make_double2(0.0, 0.0);
            *(double2 *)(j.sum + at + 2) = make_double2(0.0, 0.0);
        }
    if (all)
        router_slots(j, (unsigned *)tile);
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

int cuda_router(int32_t rows, int32_t hidden, double *sum, float *x, const float *norm, float eps,
                struct cuda_matrix w, int32_t top_k, int32_t renormalise, int32_t begin,
                int32_t end, void *zeros, cuda_bf16 *xn, float *logits, struct cuda_route route,
                cuda_stream stream)
{
    if (rows == 0)
        return 0;
    size_t tile = sizeof(uint16_t) * TILE * (size_t)(hidden + SPREAD);
    size_t keys = sizeof(unsigned) * TILE * (size_t)w.rows;
    size_t sets = sizeof(unsigned) * (WORDS + 1) * (size_t)(end - begin);
    size_t bytes = AHEAD * 64 * sizeof(uint4) + most(tile, most(keys, sets));
    if (rows > CUDA_ROUTER_ROWS || bytes > SHARED_LIMIT) {
        const struct cuda_part part = {w, NULL, logits, w.rows};
        int e = cuda_add_norm(rows, hidden, sum, x, norm, eps, xn, stream);
        if (!e)
            e = cuda_gemm(xn, NULL, rows, &part, 1, stream);
        return e ? e
                 : cuda_route_experts(rows, w.rows, top_k, renormalise, begin, end, logits, route,
                                      stream);
    }
    router_job j = {sum,
                    x,
                    norm,
                    eps,
                    w.data,
                    rows,
                    hidden,
                    w.rows,
                    top_k,
                    renormalise,
                    begin,
                    end,
                    (unsigned *)zeros,
                    xn,
                    logits,
                    route};
    dim3 grid((unsigned)pieces(w.rows, STRIP), (unsigned)pieces(rows, TILE));
    return launch(router, {grid, dim3(THREADS), bytes, (device_stream)stream, true}, j);
}
