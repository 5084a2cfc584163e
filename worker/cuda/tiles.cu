/*
 * Matrix products of many rows, by tiles (tiles.h, tiles.cuh). A block takes one tile; ragged edges
 * take the smallest kind of tile that holds them, and what lies past an edge is a copy of a row
 * before it whose results nobody stores.
 *
 * What bounds them, on an H200 of 132 multiprocessors at 1.755 GHz. Tensor cores: mma.sync does
 * about two thirds of the 2048 multiply-adds a cycle and multiprocessor that are the peak. Shared
 * memory, 128 bytes a cycle: a warp of 64 x 64 reads 8 KiB and its share of the copies is 3 KiB for
 * 64 mma, 88 cycles of some 96. The L2 cache, about 24 bytes a cycle and multiprocessor: a tile
 * reads 2 x (128 + TOKENS) bytes for 128 x TOKENS multiply-adds, so 1024, 768 and 512 multiply-adds
 * a cycle for tiles of 256, 128 and 64 tokens. That is the least, and so is predicted: 50 %, 37 %
 * and 25 % of the peak. None of it is measured.
 */
#include "worker/cuda/tiles.h"

#include "worker/cuda/common.cuh"
#include "worker/cuda/epilogue.cuh"
#include "worker/cuda/tiles.cuh"

enum { GEMM_TOKENS = 256, LEAF_TOKENS = 128, LEAST_TOKENS = 64 };

/* ---- Which kernel, on the host ---- */

/* Of a large GPU: multiprocessors, bytes a cycle of all its memory, and multiply-adds a cycle of a
 * multiprocessor at which the kernels of products.cu end, whose warps read 16 rows of weights for
 * at most 32 or 64 tokens. */
enum { MULTIPROCESSORS = 132, MEMORY_BYTES = 2700, SKINNY_SPEED = 300 };
/* Cycles of a tile before its first product and after its last. */
enum { TILE_CYCLES = 4000 };

/* Multiply-adds a cycle of a tile: what the L2 cache feeds (above). Exact sums cost conversions and
 * fp64 besides, about as much again. */
static double tile_speed(int tokens, bool exact)
{
    double speed = 24.0 * TILE_ROWS * tokens / (2.0 * (TILE_ROWS + tokens));
    return exact ? speed / 2 : speed;
}

/* The estimate, in cycles, is the larger of what memory takes for the weights, once, and of the
 * products: spread evenly in the kernels of products.cu; in waves of one tile a multiprocessor
 * here, so that few large tiles lose to many small ones. */
int tiles_choose(struct tiles_work work)
{
    double all = (double)work.groups * (double)work.rows * (double)work.cols;
    double memory = 2 * all / MEMORY_BYTES;
    double best = all * (double)work.tokens / MULTIPROCESSORS / SKINNY_SPEED;
    int chosen = 0;
    for (int tokens = LEAST_TOKENS; tokens <= (work.exact ? LEAF_TOKENS : GEMM_TOKENS);
         tokens *= 2) {
        int64_t tiles = work.groups * pieces(work.rows, TILE_ROWS) * pieces(work.tokens, tokens);
        double one = TILE_CYCLES +
                     (double)work.cols * TILE_ROWS * tokens / tile_speed(tokens, work.exact);
        double cycles = (double)pieces(tiles, MULTIPROCESSORS) * one;
        if (cycles < best && memory < best)
            best = cycles, chosen = tokens;
    }
    return chosen;
}

/* Calls f with a tile of `tokens`, at most MOST. */
template <int MOST, class F> static int with_tile(int tokens, F f)
{
    if constexpr (MOST > LEAST_TOKENS)
        if (tokens < MOST)
            return with_tile<MOST / 2>(tokens, f);
    return f(tile<MOST>());
}

/* ---- What kernels share ---- */

/* First of all. The launch after may start its blocks where the last ones of this leave room. */
DEVICE void start()
{
    grid_dependency_wait();
    grid_dependency_launch();
}

/* Writes where the tile's rows begin, at most `rows` of `cols` from each matrix: weights(r) and
 * tokens(i) say where row r of the tile's weights and token i of its tokens do. */
template <class T, class W, class X>
DEVICE void tile_rows(const tile_shared<T> &shared, W weights, X tokens)
{
    for (int r = (int)threadIdx.x; r < T::rows; r += TILE_THREADS)
        shared.row[r] = r < TILE_ROWS ? weights(r) : tokens(r - TILE_ROWS);
}

DEVICE const uint16_t *row_of(const uint16_t *w, int row, int cols)
{
    return w + (size_t)row * (size_t)cols;
}

/* A tile of the experts' slots. */
struct tile_of_slots {
    int expert, strip, first, end;
};

/* Tile `item` of all: experts in order, of each its `strips` in order, of each strip the tiles of
 * `tokens` slots. So blocks that run at once share weights. False: there is no such tile. Whole
 * warps, which all find the same: the sums of 32 experts' tiles at a time. */
DEVICE bool find_tile(const int32_t *first, int count, int strips, int tokens, int item,
                      struct tile_of_slots *out)
{
    int before = 0; /* tiles of the experts before these 32 */
    for (int expert = lane_id(); expert - lane_id() < count; expert += 32) {
        int begin = 0, end = 0;
        if (expert < count)
            begin = first[expert], end = first[expert + 1];
        int mine = (end - begin + tokens - 1) / tokens * strips, upto = mine;
        for (int step = 1; step < 32; step *= 2) {
            int other = __shfl_up_sync(ALL_LANES, upto, (unsigned)step);
            upto += lane_id() >= step ? other : 0;
        }
        unsigned after = __ballot_sync(ALL_LANES, item < before + upto);
        if (after) {
            int lane = __ffs((int)after) - 1;
            int at = item - before - __shfl_sync(ALL_LANES, upto - mine, lane);
            int tiles = __shfl_sync(ALL_LANES, mine, lane) / strips;
            begin = __shfl_sync(ALL_LANES, begin, lane);
            end = __shfl_sync(ALL_LANES, end, lane);
            *out = {expert - lane_id() + lane, at / tiles, begin + at % tiles * tokens, end};
            out->end = min(out->first + tokens, end);
            return true;
        }
        before += __shfl_sync(ALL_LANES, upto, 31);
    }
    return false;
}

/* The most tiles that `slots` of at most `count` experts come to. */
static int64_t tiles_of_slots(int64_t slots, int64_t count, int64_t tokens)
{
    return slots / tokens + (count < slots ? count : slots);
}

/* ---- cuda_gemm: x tiles of tokens, y strips of all parts ---- */

struct gemm_parts {
    struct cuda_part part[CUDA_MAX_PARTS];
    int first[CUDA_MAX_PARTS + 1]; /* strips */
};

template <class T>
DEVICE void gemm_tile(uint4 *memory, const uint16_t *x, const int32_t *index, int first, int m,
                      int cols, const struct cuda_part &p, int strip)
{
    if constexpr (T::tokens > LEAST_TOKENS)
        if (m - first <= T::tokens / 2) {
            gemm_tile<tile<T::tokens / 2>>(memory, x, index, first, m, cols, p, strip);
            return;
        }
    tile_shared<T> shared = tile_shared_of<T>(memory);
    tile_rows(
        shared,
        [&](int r) { return row_of(p.w.data, min(strip * TILE_ROWS + r, p.w.rows - 1), cols); },
        [&](int i) {
            int from = min(first + i, m - 1);
            return row_of(x, index ? index[from] : from, cols);
        });
    tile_leaves<T, true>(shared, 0, cols, cols, [&](const tile_sums<T> &sums) {
#pragma unroll
        for (int i = 0; i < T::mt; i++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int j = strip * TILE_ROWS + tile_weight<T>(i, 2 * half);
                if (j >= p.w.rows)
                    continue;
                float bias = p.bias ? p.bias[j] : 0.0f;
#pragma unroll
                for (int n = 0; n < T::nt; n++)
#pragma unroll
                    for (int which = 0; which < 2; which++) {
                        int token = first + tile_token<T>(n, which);
                        float s = sums.d[i][n][2 * half + which];
                        if (token < m)
                            p.y[token * p.ldy + j] = p.bias ? __fadd_rn(s, bias) : s;
                    }
            }
    });
}

template <int TOKENS>
static __global__ void __launch_bounds__(TILE_THREADS, TOKENS < GEMM_TOKENS ? 2 : 1)
    tile_gemm(const uint16_t *x, const int32_t *index, int m, int cols, struct gemm_parts parts)
{
    SHARED_DYNAMIC(uint4, memory);
    start();
    int strip = (int)blockIdx.y, first = 0;
    struct cuda_part p = parts.part[0];
#pragma unroll
    for (int i = 1; i < CUDA_MAX_PARTS; i++)
        if (strip >= parts.first[i])
            p = parts.part[i], first = parts.first[i];
    gemm_tile<tile<TOKENS>>(memory, x, index, (int)blockIdx.x * TOKENS, m, cols, p, strip - first);
}

int tiles_gemm(int tokens, const cuda_bf16 *x, const int32_t *index, int32_t m,
               const struct cuda_part *parts, int32_t count, cuda_stream stream)
{
    struct gemm_parts all = {};
    int64_t strips = 0;
    for (int32_t i = 0; i < CUDA_MAX_PARTS; i++) {
        all.first[i] = (int)strips;
        if (i < count) {
            all.part[i] = parts[i];
            strips += pieces(parts[i].w.rows, TILE_ROWS);
        }
    }
    all.first[CUDA_MAX_PARTS] = (int)strips;
    if (m <= 0 || strips == 0)
        return 0;
    return with_tile<GEMM_TOKENS>(tokens, [&](auto kind) {
        typedef decltype(kind) T;
        dim3 grid((unsigned)pieces(m, T::tokens), (unsigned)strips);
        return launch(tile_gemm<T::tokens>,
                      {grid, dim3(TILE_THREADS), T::bytes, (device_stream)stream, true}, x, index,
                      m, parts[0].w.cols, all);
    });
}

/* ---- cuda_ffn_up: a block of x for each tile of slots and TILE_ROWS / 2 columns ---- */

struct tile_up {
    const struct cuda_ffn *ffn;
    struct cuda_route route;
    const uint16_t *xn;
    uint16_t *h;
    int count, columns, hidden;
};

/* A warp's sixteens of weight rows are gate's columns, then up's same ones, so that its lanes have
 * both of each. */
template <class T>
DEVICE void up_tile(uint4 *memory, const struct tile_up &a, const struct tile_of_slots &at)
{
    if constexpr (T::tokens > LEAST_TOKENS)
        if (at.end - at.first <= T::tokens / 2) {
            up_tile<tile<T::tokens / 2>>(memory, a, at);
            return;
        }
    const int half = T::mt / 2 * PRODUCT_ROWS, first = at.strip * (TILE_ROWS / 2);
    const struct cuda_ffn ffn = a.ffn[at.expert];
    tile_shared<T> shared = tile_shared_of<T>(memory);
    tile_rows(
        shared,
        [&](int r) {
            int column = first + r / (2 * half) * half + r % half;
            return row_of(r % (2 * half) < half ? ffn.gate : ffn.up, min(column, a.columns - 1),
                          a.hidden);
        },
        [&](int i) { return row_of(a.xn, a.route.row[min(at.first + i, at.end - 1)], a.hidden); });
    tile_leaves<T, true>(shared, 0, a.hidden, a.hidden, [&](const tile_sums<T> &sums) {
#pragma unroll
        for (int i = 0; i < T::mt / 2; i++)
#pragma unroll
            for (int n = 0; n < T::nt; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int slot = at.first + tile_token<T>(n, e), r = tile_weight<T>(i, e);
                    int j = first + r / (2 * half) * half + r % half;
                    if (slot < at.end && j < a.columns)
                        a.h[(size_t)slot * (size_t)a.columns + (size_t)j] = bf16_from_f32(
                            silu_mul(sums.d[i][n][e], sums.d[i + T::mt / 2][n][e]));
                }
    });
}

template <int TOKENS>
static __global__ void __launch_bounds__(TILE_THREADS, TOKENS < GEMM_TOKENS ? 2 : 1)
    tile_ffn_up(struct tile_up a)
{
    SHARED_DYNAMIC(uint4, memory);
    start();
    struct tile_of_slots at;
    int strips = (a.columns + TILE_ROWS / 2 - 1) / (TILE_ROWS / 2);
    if (find_tile(a.route.first, a.count, strips, TOKENS, (int)blockIdx.x, &at))
        up_tile<tile<TOKENS>>(memory, a, at);
}

int tiles_ffn_up(int tokens, const struct cuda_ffn *ffn, int32_t count, int32_t slots,
                 int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                 cuda_bf16 *h, cuda_stream stream)
{
    if (count <= 0 || slots <= 0 || columns <= 0)
        return 0;
    struct tile_up a = {ffn, route, xn, h, count, columns, hidden};
    return with_tile<GEMM_TOKENS>(tokens, [&](auto kind) {
        typedef decltype(kind) T;
        int64_t tiles = tiles_of_slots(slots, count, T::tokens) * pieces(columns, TILE_ROWS / 2);
        return launch(
            tile_ffn_up<T::tokens>,
            {dim3((unsigned)tiles), dim3(TILE_THREADS), T::bytes, (device_stream)stream, true}, a);
    });
}

/* ---- Exact sums of leaves ---- */

/* Adds leaves [begin, end) of one strip of a tile, whose rows are written, to the sums: token i's
 * to row target[i] of sum, with weight[i]; -1: no such token. alone: nothing else is added to
 * these sums, so that they are just stored. */
template <class T>
DEVICE void add_leaves(const struct leaf_sum &s, const tile_shared<T> &shared, int strip, int begin,
                       int end, bool alone)
{
    double sum[T::mt][T::nt][4];
    unsigned beyond = 0;
#pragma unroll
    for (int i = 0; i < T::mt; i++)
#pragma unroll
        for (int n = 0; n < T::nt; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sum[i][n][e] = 0.0;
    if (threadIdx.x == 0)
        shared.target[T::tokens] = strip; /* to be kept out of registers, which are all in use */
    tile_leaves<T, false>(
        shared, begin * s.leaf, s.leaf, min(end * s.leaf, s.cols), [&](const tile_sums<T> &dot) {
            int first = shared.target[T::tokens] * TILE_ROWS;
#pragma unroll
            for (int n = 0; n < T::nt; n++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int token = tile_token<T>(n, e);
                    float weight = shared.weight[token];
                    bool there = shared.target[token] >= 0;
#pragma unroll
                    for (int i = 0; i < T::mt; i++) {
                        float x = __fmul_rn(weight, dot.d[i][n][e]);
                        bool row = first + tile_weight<T>(i, e) < s.rows;
                        beyond += there && row && !(fabsf(x) < s.limit); /* a NaN too */
                        sum[i][n][e] = __dadd_rn(sum[i][n][e], exact_round(x));
                    }
                }
        });
#pragma unroll
    for (int i = 0; i < T::mt; i++)
#pragma unroll
        for (int n = 0; n < T::nt; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                int j = shared.target[T::tokens] * TILE_ROWS + tile_weight<T>(i, e);
                int row = shared.target[tile_token<T>(n, e)];
                double *to = s.sum + (size_t)row * (size_t)s.rows + (size_t)j;
                if (row < 0 || j >= s.rows)
                    continue;
                if (alone)
                    *to = sum[i][n][e];
                else
                    atomicAdd(to, sum[i][n][e]);
            }
    leaves_count_beyond(s, beyond);
}

/* ---- cuda_gemm_leaf: x tiles of tokens, y strips, z runs of leaves ---- */

template <class T>
DEVICE void leaf_tile(uint4 *memory, const uint16_t *x, int first, int m, const uint16_t *w,
                      const struct leaf_sum &s)
{
    if constexpr (T::tokens > LEAST_TOKENS)
        if (m - first <= T::tokens / 2) {
            leaf_tile<tile<T::tokens / 2>>(memory, x, first, m, w, s);
            return;
        }
    tile_shared<T> shared = tile_shared_of<T>(memory);
    int strip = (int)blockIdx.y, begin, end;
    tile_rows(
        shared, [&](int r) { return row_of(w, min(strip * TILE_ROWS + r, s.rows - 1), s.cols); },
        [&](int i) { return row_of(x, min(first + i, m - 1), s.cols); });
    for (int i = (int)threadIdx.x; i < T::tokens; i += TILE_THREADS) {
        shared.weight[i] = 1.0f;
        shared.target[i] = first + i < m ? first + i : -1;
    }
    leaves_of_run(s, (int)blockIdx.z, (int)gridDim.z, &begin, &end);
    add_leaves(s, shared, strip, begin, end, gridDim.z == 1);
}

template <int TOKENS>
static __global__ void __launch_bounds__(TILE_THREADS, 1)
    tile_gemm_leaf(const uint16_t *x, int m, const uint16_t *w, struct leaf_sum s)
{
    SHARED_DYNAMIC(uint4, memory);
    start();
    leaf_tile<tile<TOKENS>>(memory, x, (int)blockIdx.x * TOKENS, m, w, s);
}

/* Into how many runs `leaves` are cut so that `tiles` come near to filling the device. */
static int64_t runs_of(int64_t tiles, int64_t leaves)
{
    int64_t want = tiles > 0 ? MULTIPROCESSORS / tiles : 1;
    return want < 1 ? 1 : want < leaves ? want : leaves;
}

int tiles_gemm_leaf(int tokens, const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaf,
                    int32_t leaves, double *sum, unsigned long long *out_of_range,
                    cuda_stream stream)
{
    if (m <= 0 || w.rows <= 0 || w.cols <= 0)
        return 0;
    struct leaf_sum s = leaf_sum_of(w.rows, w.cols, leaf, leaves, sum, out_of_range);
    return with_tile<LEAF_TOKENS>(tokens, [&](auto kind) {
        typedef decltype(kind) T;
        int64_t tiles = pieces(m, T::tokens), strips = pieces(w.rows, TILE_ROWS);
        dim3 grid((unsigned)tiles, (unsigned)strips,
                  (unsigned)runs_of(tiles * strips, pieces(w.cols, leaf)));
        return launch(tile_gemm_leaf<T::tokens>,
                      {grid, dim3(TILE_THREADS), T::bytes, (device_stream)stream, true}, x, m,
                      w.data, s);
    });
}

/* ---- cuda_ffn_down: a block of x for each tile of slots, strip of hidden and run of leaves ----
 */

struct tile_down {
    const struct cuda_ffn *ffn;
    struct cuda_route route;
    const uint16_t *h;
    struct leaf_sum s;
    int count, runs;
};

template <class T>
DEVICE void down_tile(uint4 *memory, const struct tile_down &a, const struct tile_of_slots &at)
{
    if constexpr (T::tokens > LEAST_TOKENS)
        if (at.end - at.first <= T::tokens / 2) {
            down_tile<tile<T::tokens / 2>>(memory, a, at);
            return;
        }
    tile_shared<T> shared = tile_shared_of<T>(memory);
    const uint16_t *w = a.ffn[at.expert].down;
    int strip = at.strip / a.runs, begin, end;
    tile_rows(
        shared,
        [&](int r) { return row_of(w, min(strip * TILE_ROWS + r, a.s.rows - 1), a.s.cols); },
        [&](int i) { return row_of(a.h, min(at.first + i, at.end - 1), a.s.cols); });
    for (int i = (int)threadIdx.x; i < T::tokens; i += TILE_THREADS) {
        bool there = at.first + i < at.end;
        shared.weight[i] = there ? a.route.weight[at.first + i] : 0.0f;
        shared.target[i] = there ? a.route.row[at.first + i] : -1;
    }
    leaves_of_run(a.s, at.strip % a.runs, a.runs, &begin, &end);
    add_leaves(a.s, shared, strip, begin, end, false);
}

template <int TOKENS>
static __global__ void __launch_bounds__(TILE_THREADS, 1) tile_ffn_down(struct tile_down a)
{
    SHARED_DYNAMIC(uint4, memory);
    start();
    struct tile_of_slots at;
    int strips = (a.s.rows + TILE_ROWS - 1) / TILE_ROWS * a.runs;
    if (find_tile(a.route.first, a.count, strips, TOKENS, (int)blockIdx.x, &at))
        down_tile<tile<TOKENS>>(memory, a, at);
}

int tiles_ffn_down(int tokens, const struct cuda_ffn *ffn, int32_t count, int32_t slots,
                   int32_t columns, int32_t hidden, struct cuda_route route, int32_t leaves,
                   const cuda_bf16 *h, double *sum, unsigned long long *out_of_range,
                   cuda_stream stream)
{
    if (count <= 0 || slots <= 0 || columns <= 0 || hidden <= 0)
        return 0;
    struct tile_down a = {
        ffn,   route, h, leaf_sum_of(hidden, columns, CUDA_FFN_BLOCK, leaves, sum, out_of_range),
        count, 1};
    return with_tile<LEAF_TOKENS>(tokens, [&](auto kind) {
        typedef decltype(kind) T;
        int64_t tiles = tiles_of_slots(slots, count, T::tokens) * pieces(hidden, TILE_ROWS);
        a.runs = (int)runs_of(tiles, pieces(columns, CUDA_FFN_BLOCK));
        tiles *= a.runs;
        return launch(
            tile_ffn_down<T::tokens>,
            {dim3((unsigned)tiles), dim3(TILE_THREADS), T::bytes, (device_stream)stream, true}, a);
    });
}
