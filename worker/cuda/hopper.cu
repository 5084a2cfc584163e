/*
 * Matrix products for many rows on Hopper (fast.h): blocks that stay, each taking every so-manieth
 * tile of 128 rows x 256 weight rows. One warp group has tiles of 64 columns copied into a ring in
 * shared memory by TMA; two others, of 64 rows each, multiply them by wgmma and write the results.
 * While these write, the next tile's ring fills.
 *
 * One shape of tile for all: 128 x 256 keeps 128 sums a thread, all that the registers hold beside
 * addresses, and reads 80 bytes of shared memory a clock of the tensor cores, of 128 that it gives.
 * It also is what makes a row's bits independent of how many rows there are.
 */
#include "worker/cuda/common.cuh"
#include "worker/cuda/epilogue.cuh"
#include "worker/cuda/fast.h"
#include "worker/cuda/hopper.cuh"

#include <string.h>
#include <type_traits>

enum {
    TILE_M = 128,                      /* rows of x */
    TILE_N = 256,                      /* rows of w */
    TILE_K = 64,                       /* columns: 128 bytes */
    BOX = 128,                         /* rows of a copy */
    STAGES = 4,                        /* of the ring: a power of 2 */
    GROUP = 128,                       /* threads of a warp group */
    CONSUMERS = TILE_M / 64,           /* warp groups that multiply */
    THREADS = GROUP * (1 + CONSUMERS), /* the first group copies */
    COPY_REGISTERS = 40,               /* of the 168 that a thread begins with, */
    SUM_REGISTERS = 232,               /* for the groups with sums */
    STAGE_BYTES = (TILE_M + TILE_N) * TILE_K * 2,
};

struct ring {
    uint16_t x[STAGES][TILE_M * TILE_K];
    uint16_t w[STAGES][TILE_N * TILE_K];
    uint64_t full[STAGES];  /* one arrival, and the bytes */
    uint64_t empty[STAGES]; /* an arrival of every warp that multiplies */
    int first[CUDA_FAST_EXPERTS + 1];
};

enum { RING_ALIGN = 1024, SHARED_BYTES = (int)sizeof(ring) + RING_ALIGN };
static_assert(SHARED_BYTES <= 227 * 1024, "what a block may have");

/* What a tile is made of: boxes of x and of two matrices (or one), from these rows on. */
struct tile {
    const CUtensorMap *x, *w[2];
    int x_row, w_row[2];
    int live;  /* rows of x that matter */
    int part;  /* of a dense product */
    int slot;  /* of experts: the first */
    int begin; /* the first column of the result */
};

/* ---- The ring ---- */

DEVICE struct ring *ring_open()
{
    SHARED_DYNAMIC(unsigned char, bytes);
    uint32_t at = device_shared_address(bytes);
    struct ring *r = (struct ring *)(bytes + ((RING_ALIGN - at % RING_ALIGN) % RING_ALIGN));
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(&r->full[i], 1);
            mbarrier_init(&r->empty[i], CONSUMERS * GROUP / 32);
        }
        mbarrier_init_fence();
    }
    return r; /* before __syncthreads */
}

/* Has a tile's blocks of columns copied as the ring becomes empty. step: blocks so far, of all
 * tiles. By one thread. */
DEVICE void ring_fill(struct ring *r, unsigned &step, const struct tile &t, int blocks)
{
    for (int b = 0; b < blocks; b++, step++) {
        unsigned stage = step % STAGES, phase = step / STAGES & 1;
        uint64_t *full = &r->full[stage];
        mbarrier_wait(&r->empty[stage], phase ^ 1);
        mbarrier_arrive_expect(full, STAGE_BYTES);
        tma_load(r->x[stage], t.x, b * TILE_K, t.x_row, full);
        tma_load(r->w[stage], t.w[0], b * TILE_K, t.w_row[0], full);
        tma_load(r->w[stage] + BOX * TILE_K, t.w[1], b * TILE_K, t.w_row[1], full);
    }
}

DEVICE void ring_release(struct ring *r, unsigned step)
{
    if (lane_id() == 0)
        mbarrier_arrive(&r->empty[step % STAGES]);
}

/* d = the products of rows 64 `group` .. + 63 of the tile's x. */
DEVICE void ring_multiply(struct ring *r, unsigned &step, float (&d)[128], int group, int blocks)
{
    __syncwarp(); /* lanes come here by different ways */
    for (int b = 0; b < blocks; b++, step++) {
        unsigned stage = step % STAGES;
        mbarrier_wait(&r->full[stage], step / STAGES & 1);
        uint64_t x = wgmma_tile(r->x[stage] + group * 64 * TILE_K), w = wgmma_tile(r->w[stage]);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < TILE_K / 16; k++)
            wgmma_m64n256k16_bf16(d, x + 2 * k, w + 2 * k, b > 0 || k > 0);
        wgmma_commit();
        wgmma_wait<1>();
        if (b > 0)
            ring_release(r, step - 1);
    }
    wgmma_wait_sums(d);
    ring_release(r, step - 1);
}

/* The same for rows that do not matter. */
DEVICE void ring_skip(struct ring *r, unsigned &step, int blocks)
{
    for (int b = 0; b < blocks; b++, step++) {
        mbarrier_wait(&r->full[step % STAGES], step / STAGES & 1);
        ring_release(r, step);
    }
}

/* ---- A block's life. JOB: tile(n, t, shared) gives the n-th tile, or false past the last; blocks;
 * write(t, group, d) ---- */

template <class JOB, class STATE> DEVICE void run_tiles(const JOB &job, struct ring *r, STATE state)
{
    struct tile t;
    unsigned step = 0;
    int group = __shfl_sync(ALL_LANES, (int)threadIdx.x / GROUP, 0) - 1;
    if (group < 0) {
        registers_give<COPY_REGISTERS>();
        if (threadIdx.x == 0)
            for (int n = (int)blockIdx.x; job.tile(n, state, t); n += (int)gridDim.x) {
                job.acquire(t);
                ring_fill(r, step, t, job.blocks);
            }
    } else {
        registers_take<SUM_REGISTERS>();
        for (int n = (int)blockIdx.x; job.tile(n, state, t); n += (int)gridDim.x) {
            if (64 * group >= t.live) {
                ring_skip(r, step, job.blocks);
                continue;
            }
            float d[128];
            ring_multiply(r, step, d, group, job.blocks);
            job.write(t, group, d);
        }
    }
}

/* The row of the tile of whose sums the thread has d[4 i + 2 half ..]; the first of two columns. */
DEVICE int row_of(int group, int half)
{
    return 64 * group + (int)threadIdx.x % GROUP / 32 * 16 + lane_id() / 4 + 8 * half;
}

DEVICE int column_of(int i)
{
    return 8 * i + lane_id() % 4 * 2;
}

/* Two neighbours, the second where it is `inside`; together where `pairs` says that they lie so. */
DEVICE void store(float *to, float a, float b, bool inside, bool pairs)
{
    if (inside && pairs) {
        *(float2 *)to = make_float2(a, b);
    } else {
        to[0] = a;
        if (inside)
            to[1] = b;
    }
}

/* ---- One matrix product, or several of the same x ---- */

struct dense_part {
    CUtensorMap w;
    float *y;
    const float *bias;
    int64_t ldy;
    int rows, first; /* weight rows; tiles before */
    int pairs;       /* y's rows and columns 2 j lie at multiples of 8 bytes */
};

template <bool SUM> struct dense {
    CUtensorMap x;
    struct dense_part part[CUDA_MAX_PARTS];
    struct leaf_sum sum; /* of SUM, which has one part */
    int m, blocks, m_tiles, tiles;

    struct none {
    };

    /* Tiles of one run of weight rows are neighbours: blocks at work share weights. */
    __device__ __forceinline__ bool tile(int n, const none &, struct tile &t) const
    {
        if (n >= tiles)
            return false;
        int column = n / m_tiles, p = 0;
#pragma unroll
        for (int i = 1; i < CUDA_MAX_PARTS; i++)
            if (column >= part[i].first)
                p = i;
        t.x = &x;
        t.w[0] = t.w[1] = &part[p].w;
        t.x_row = n % m_tiles * TILE_M;
        t.begin = t.w_row[0] = (column - part[p].first) * TILE_N;
        t.w_row[1] = t.w_row[0] + BOX;
        t.live = m - t.x_row;
        t.part = p;
        return true;
    }

    __device__ __forceinline__ void acquire(const struct tile &) const
    {
    }

    __device__ __forceinline__ void write(const struct tile &t, int group,
                                          const float (&d)[128]) const
    {
        const struct dense_part &p = part[t.part];
        unsigned beyond = 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row_of(group, half);
            if (row >= t.live)
                continue;
            int64_t i = t.x_row + row;
#pragma unroll
            for (int e = 0; e < 32; e++) {
                int j = t.begin + column_of(e);
                float a = d[4 * e + 2 * half], b = d[4 * e + 2 * half + 1];
                if (j >= p.rows)
                    break;
                bool inside = j + 1 < p.rows;
                if constexpr (SUM) {
                    double *to = sum.sum + i * sum.rows + j;
                    beyond += !(fabsf(a) < sum.limit) + (inside && !(fabsf(b) < sum.limit));
                    if (inside && p.pairs) {
                        *(double2 *)to = make_double2(exact_round(a), exact_round(b));
                    } else {
                        to[0] = exact_round(a);
                        if (inside)
                            to[1] = exact_round(b);
                    }
                } else {
                    if (p.bias) {
                        a = __fadd_rn(a, p.bias[j]);
                        b = inside ? __fadd_rn(b, p.bias[j + 1]) : 0.0f;
                    }
                    store(p.y + i * p.ldy + j, a, b, inside, p.pairs);
                }
            }
        }
        if constexpr (SUM)
            leaves_count_beyond(sum, beyond);
    }
};

/* ---- Products of every expert with its slots ---- */

template <bool UP> struct grouped {
    CUtensorMap x;
    const struct cuda_fast_ffn *ffn;
    const int32_t *first;
    int count, rows; /* experts; columns of the result */
    int blocks, n_tiles;
    uint16_t *h; /* UP: [slots, rows]; else */
    float *y;

    /* Where a block is among the tiles: these before those of `expert`. */
    struct place {
        const int *first;
        int expert, before;
    };

    /* UP: a tile's weight rows are 128 of gate, then the same of up, so that both halves of an
     * activation meet in one thread. */
    __device__ __forceinline__ bool tile(int n, struct place &at, struct tile &t) const
    {
        int slots = 0, m_tiles = 0;
        for (;; at.expert++) {
            if (at.expert == count)
                return false;
            slots = at.first[at.expert + 1] - at.first[at.expert];
            m_tiles = (slots + TILE_M - 1) / TILE_M;
            if (n - at.before < m_tiles * n_tiles)
                break;
            at.before += m_tiles * n_tiles;
        }
        int here = n - at.before, m = here % m_tiles, column = here / m_tiles;
        const struct cuda_map *w[2] = {&ffn[at.expert].gate, &ffn[at.expert].up};
        if (!UP)
            w[0] = w[1] = &ffn[at.expert].down;
        t.x = &x;
        t.w[0] = (const CUtensorMap *)w[0];
        t.w[1] = (const CUtensorMap *)w[1];
        t.slot = t.x_row = at.first[at.expert] + m * TILE_M;
        t.begin = t.w_row[0] = column * (UP ? BOX : TILE_N);
        t.w_row[1] = t.w_row[0] + (UP ? 0 : BOX);
        t.live = slots - m * TILE_M;
        return true;
    }

    __device__ __forceinline__ void acquire(const struct tile &t) const
    {
        tensor_map_acquire(t.w[0]);
        if (UP)
            tensor_map_acquire(t.w[1]);
    }

    __device__ __forceinline__ void write(const struct tile &t, int group,
                                          const float (&d)[128]) const
    {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row_of(group, half);
            if (row >= t.live)
                continue;
            size_t at = (size_t)(t.slot + row) * (size_t)rows;
#pragma unroll
            for (int e = 0; e < (UP ? 16 : 32); e++) {
                int j = t.begin + column_of(e), i = 4 * e + 2 * half;
                if (j >= rows) /* a multiple of 8: so is j + 1 */
                    break;
                if constexpr (UP)
                    *(uint32_t *)(h + at + (size_t)j) = bf16x2_from_f32(
                        silu_mul(d[i], d[64 + i]), silu_mul(d[i + 1], d[64 + i + 1]));
                else
                    *(float2 *)(y + at + (size_t)j) = make_float2(d[i], d[i + 1]);
            }
        }
    }
};

template <bool SUM>
static __global__ void __launch_bounds__(THREADS, 1)
    dense_product(const __grid_constant__ struct dense<SUM> job)
{
    struct ring *r = ring_open();
    __syncthreads();
    run_tiles(job, r, typename dense<SUM>::none());
}

template <bool UP>
static __global__ void __launch_bounds__(THREADS, 1)
    grouped_product(const __grid_constant__ struct grouped<UP> job)
{
    struct ring *r = ring_open();
    for (int e = (int)threadIdx.x; e <= job.count; e += THREADS)
        r->first[e] = job.first[e];
    __syncthreads();
    run_tiles(job, r, typename grouped<UP>::place{r->first, 0, 0});
}

/* ---- The host's side ---- */

/* The driver's function, found through the run-time library, so that nothing links to the driver.
 * Once a process; NULL where the driver has none. */
static decltype(&cuTensorMapEncodeTiled) find_encoder()
{
    void *found = NULL;
    cudaDriverEntryPointQueryResult how;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &how) != cudaSuccess ||
        how != cudaDriverEntryPointSuccess)
        return NULL;
    return (decltype(&cuTensorMapEncodeTiled))found;
}

/* The map of [rows, cols] bf16, in boxes of 128 rows and 64 columns. */
static int make_map(CUtensorMap *map, const cuda_bf16 *data, int64_t rows, int64_t cols)
{
    static const auto encode = find_encoder();
    if (!encode)
        return (int)cudaErrorNotSupported;
    const cuuint64_t dims[] = {(cuuint64_t)cols, (cuuint64_t)rows};
    const cuuint64_t strides[] = {(cuuint64_t)cols * 2};
    const cuuint32_t box[] = {TILE_K, BOX}, steps[] = {1, 1};
    CUresult e = encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)data, dims, strides, box,
                        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return e == CUDA_SUCCESS ? 0 : (int)cudaErrorInvalidValue;
}

/* As many blocks as run at once, or tiles if these are fewer. */
static int blocks_of(int64_t tiles, unsigned *out)
{
    int device = 0, count = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    *out = (unsigned)(tiles < count ? tiles : count);
    return (int)e;
}

template <class JOB>
static int run(void (*kernel)(JOB), const JOB &job, int64_t tiles, cuda_stream stream)
{
    unsigned blocks = 0;
    int code = blocks_of(tiles, &blocks);
    if (code != 0)
        return code;
    return launch(kernel, {dim3(blocks), dim3(THREADS), SHARED_BYTES, (device_stream)stream, false},
                  job);
}

int cuda_fast_maps(const struct cuda_ffn *ffn, int32_t count, int32_t columns, int32_t hidden,
                   struct cuda_fast_ffn *out)
{
    for (int32_t i = 0; columns > 0 && hidden > 0 && i < count; i++) {
        const struct {
            const cuda_bf16 *data;
            int32_t rows, cols;
            struct cuda_map *map;
        } each[] = {{ffn[i].gate, columns, hidden, &out[i].gate},
                    {ffn[i].up, columns, hidden, &out[i].up},
                    {ffn[i].down, hidden, columns, &out[i].down}};
        for (const auto &m : each) {
            CUtensorMap map;
            static_assert(sizeof map == sizeof *m.map, "CUDA's map");
            int code = make_map(&map, m.data, m.rows, m.cols);
            if (code != 0)
                return code;
            memcpy(m.map, &map, sizeof map);
        }
    }
    return 0;
}

int cuda_fast_gemm(const cuda_bf16 *x, int32_t m, const struct cuda_part *parts, int32_t count,
                   cuda_stream stream)
{
    struct dense<false> job = {
    };
    int64_t tiles = 0;
    for (int32_t i = 0; i < CUDA_MAX_PARTS; i++) {
        struct dense_part *p = &job.part[i];
        p->first = (int)tiles;
        if (i >= count || parts[i].w.rows == 0)
            continue;
        int code = m > 0 ? make_map(&p->w, parts[i].w.data, parts[i].w.rows, parts[i].w.cols) : 0;
        if (code != 0)
            return code;
        p->y = parts[i].y;
        p->bias = parts[i].bias;
        p->ldy = parts[i].ldy;
        p->rows = parts[i].w.rows;
        p->pairs = p->ldy % 2 == 0 && (uintptr_t)p->y % 8 == 0;
        tiles += pieces(p->rows, TILE_N);
    }
    if (m <= 0 || tiles == 0)
        return 0;
    int code = make_map(&job.x, x, m, parts[0].w.cols);
    if (code != 0)
        return code;
    job.m = m;
    job.blocks = (int)pieces(parts[0].w.cols, TILE_K);
    job.m_tiles = (int)pieces(m, TILE_M);
    tiles *= job.m_tiles;
    job.tiles = (int)tiles;
    return run(dense_product<false>, job, tiles, stream);
}

int cuda_fast_gemm_sum(const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaves,
                       double *sum, unsigned long long *out_of_range, cuda_stream stream)
{
    if (m <= 0 || w.rows <= 0)
        return 0;
    struct dense<true> job = {
    };
    int code = make_map(&job.x, x, m, w.cols);
    if (code == 0)
        code = make_map(&job.part[0].w, w.data, w.rows, w.cols);
    if (code != 0)
        return code;
    int64_t n_tiles = pieces(w.rows, TILE_N);
    job.part[0].rows = w.rows;
    job.part[0].pairs = w.rows % 2 == 0;
    job.part[1].first = job.part[2].first = (int)n_tiles;
    job.sum = leaf_sum_of(w.rows, w.cols, w.cols, leaves, sum, out_of_range);
    job.m = m;
    job.blocks = (int)pieces(w.cols, TILE_K);
    job.m_tiles = (int)pieces(m, TILE_M);
    job.tiles = (int)(n_tiles * job.m_tiles);
    return run(dense_product<true>, job, job.tiles, stream);
}

/* Experts' products of x [slots, cols] with `rows` rows of weights each, into h (UP) or y. */
template <bool UP>
static int run_grouped(const cuda_bf16 *x, const struct cuda_fast_ffn *maps, int32_t count,
                       int32_t slots, int32_t rows, int32_t cols, const struct cuda_route &route,
                       uint16_t *h, float *y, cuda_stream stream)
{
    grouped<UP> job = {};
    int code = make_map(&job.x, x, slots, cols);
    if (code != 0)
        return code;
    job.ffn = maps;
    job.first = route.first;
    job.count = count;
    job.rows = rows;
    job.blocks = (int)pieces(cols, TILE_K);
    job.n_tiles = (int)pieces(rows, UP ? BOX : TILE_N);
    job.h = h;
    job.y = y;
    int64_t most = (pieces(slots, TILE_M) + (count < slots ? count : slots)) * job.n_tiles;
    return run(grouped_product<UP>, job, most, stream);
}

int cuda_fast_ffn_up(const struct cuda_fast_ffn *maps, int32_t count, int32_t slots,
                     int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                     cuda_bf16 *packed, cuda_bf16 *h, cuda_stream stream)
{
    if (count <= 0 || slots <= 0 || columns <= 0)
        return 0;
    if (count > CUDA_FAST_EXPERTS)
        return (int)cudaErrorInvalidValue;
    int code = cuda_pack_rows(xn, route.row, route.first + count, slots, hidden, packed, stream);
    if (code != 0)
        return code;
    return run_grouped<true>(packed, maps, count, slots, columns, hidden, route, h, NULL, stream);
}

int cuda_fast_ffn_down(int32_t rows, const struct cuda_fast_ffn *maps, int32_t count, int32_t slots,
                       int32_t columns, int32_t hidden, struct cuda_route route, int32_t leaves,
                       const cuda_bf16 *h, float *y, double *sum, unsigned long long *out_of_range,
                       cuda_stream stream)
{
    if (rows <= 0 || hidden <= 0 || count <= 0 || slots <= 0 || columns <= 0)
        return 0; /* sum is zero */
    if (count > CUDA_FAST_EXPERTS)
        return (int)cudaErrorInvalidValue;
    int code = run_grouped<false>(h, maps, count, slots, hidden, columns, route, NULL, y, stream);
    if (code != 0)
        return code;
    return cuda_combine_slots(rows, count, hidden, route, leaves, y, sum, out_of_range, stream);
}
