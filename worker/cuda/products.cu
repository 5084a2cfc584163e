/*
 * Matrix products (stages.h says which): weights stream once from memory to the tensor cores, a
 * warp a strip of 16 weight rows (product.cuh), so that a step of few tokens runs at the speed of
 * memory. A block's warps take neighbouring strips; which tiles of tokens, leaves or strips a warp
 * takes is chosen for speed and changes no bit. Steps of many rows go to tiles.cu.
 */
#include "worker/cuda/common.cuh"
#include "worker/cuda/epilogue.cuh"
#include "worker/cuda/heads.cuh"
#include "worker/cuda/packed.cuh"
#include "worker/cuda/product.cuh"
#include "worker/cuda/stages.h"
#include "worker/cuda/tiles.h"

#include <type_traits>

/* A block has at most MAX_WARPS. Work is cut into about ENOUGH_WARPS where it can be: some 16 on
 * each multiprocessor of a large GPU, whose loads together cover the latency of its memory. Like
 * the rings' depths, these follow from sizes and latencies alone: no GPU has run this yet. */
enum { MAX_WARPS = 4, ENOUGH_WARPS = 2048 };

/* Bytes of a row that a warp asks for ahead of its ring where it waits for the launch before: of
 * ENOUGH_WARPS strips 32 MiB, which the L2 cache of such a GPU holds. */
enum { PREFETCH = 1024 };

/* The most eights of tokens in a tile, as far as the registers go. */
enum { GEMM_TILE = 8, LEAF_TILE = 4, UP_TILE = 4 };

/* ---- How work is cut, on the host ---- */

/* Warps of a block: few where there are few units, so that these spread over the device. */
static int warps_of(int64_t units)
{
    return units >= ENOUGH_WARPS ? MAX_WARPS : units >= ENOUGH_WARPS / 2 ? 2 : 1;
}

/* Into how many pieces, at most `most`, each of `units` is cut for there to be enough. */
static int cut_of(int64_t units, int64_t most)
{
    int64_t want = units > 0 ? pieces(ENOUGH_WARPS, units) : 1;
    return (int)(want < most ? want : most > 1 ? most : 1);
}

/* Calls f with the weights' tag and the eights of tokens of a tile, MOST or fewer, as a constant.
 */
template <int MOST, class W, class F> static int with_tile(int32_t tokens, W weights, F f)
{
    if constexpr (MOST > 1)
        if (tokens <= MOST / 2 * PRODUCT_TOKENS)
            return with_tile<MOST / 2>(tokens, weights, f);
    return f(weights, std::integral_constant<int, MOST>());
}

template <int MOST, class F>
static int with_kernel(const struct cuda_format &format, int32_t tokens, F f)
{
    switch (format.type) {
    case CUDA_E4M3:
        return with_tile<MOST>(tokens, weights_e4m3(), f);
    case CUDA_INT4:
        return with_tile<MOST>(tokens, weights_int4(), f);
    default:
        return with_tile<MOST>(tokens, weights_bf16(), f);
    }
}

/* ---- What kernels share ---- */

/* The strip of the warp: its block's in y. */
DEVICE int strip_of_warp()
{
    return (int)(blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32);
}

/* The warp's ring, of `bytes`. */
DEVICE uint4 *ring_of_warp(int bytes)
{
    SHARED_DYNAMIC(uint4, rings);
    return rings + threadIdx.x / 32 * (unsigned)bytes / 16;
}

/* Into the L2 cache, while the launch before still runs: PREFETCH bytes of each row of a strip,
 * from column `begin` on. */
template <class W>
DEVICE void prefetch_strip(const uint16_t *w, int first_row, int strip, int rows, int cols,
                           int begin)
{
    int lane = lane_id(), row = first_row + min(strip * PRODUCT_ROWS + lane / 2, rows - 1);
    int bytes = W::row_bytes(cols), first = W::row_bytes(begin);
    const char *from = (const char *)w + (size_t)row * (size_t)bytes;
    for (int at = first + lane % 2 * 128; at < min(first + PREFETCH, bytes); at += 256)
        prefetch_l2(from + at);
}

/* Token g of the tile's n-th eight, or the last before `end`. */
DEVICE int token_loaded(int first, int n, int end)
{
    return min(first + n * PRODUCT_TOKENS + lane_id() / 4, end - 1);
}

/* The token whose sums the lane has in d[..][n][2 half + which]. */
DEVICE int token_summed(int first, int n, int which)
{
    return first + n * PRODUCT_TOKENS + lane_id() % 4 * 2 + which;
}

/* ---- cuda_gemm: x tiles of tokens, y strips of all parts ---- */

struct gemm_parts {
    struct cuda_part part[CUDA_MAX_PARTS];
    int first[CUDA_MAX_PARTS + 1]; /* strips */
};

template <class W, int NT>
static __global__ void __launch_bounds__(32 * MAX_WARPS, (product_kind<W, 1, NT>::blocks))
    gemm(const uint16_t *x, const int32_t *index, int m, int cols, struct gemm_parts parts)
{
    int strip = strip_of_warp(), first = 0, token = (int)blockIdx.x * NT * PRODUCT_TOKENS;
    struct cuda_part p = parts.part[0];
    if (strip >= parts.first[CUDA_MAX_PARTS])
        return;
#pragma unroll
    for (int i = 1; i < CUDA_MAX_PARTS; i++)
        if (strip >= parts.first[i])
            p = parts.part[i], first = parts.first[i];
    strip -= first;

    typedef product_kind<W, 1, NT> kind;
    typename kind::rows rows;
    typename kind::stream stream;
    product_sums<1, NT> sums;
    product_weights(rows, 0, p.w.data, p.w.scale, p.w.format, 0, strip, p.w.rows, cols);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        int i = token_loaded(token, n, m);
        rows.x[n] = x + (size_t)(index ? index[i] : i) * (size_t)cols;
    }
    product_open(stream, rows, ring_of_warp(kind::ring::bytes), 0, cols, cols);
    prefetch_strip<W>(p.w.data, 0, strip, p.w.rows, cols, kind::ring::columns);
    grid_dependency_wait();
    grid_dependency_launch();
    product_join(stream);
    product_leaf(stream, sums, cols);
    product_close();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int j = strip * PRODUCT_ROWS + lane_id() / 4 + 8 * half;
        if (j >= p.w.rows)
            continue;
        float bias = p.bias ? p.bias[j] : 0.0f;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int which = 0; which < 2; which++) {
                int i = token_summed(token, n, which);
                float s = sums.d[0][n][2 * half + which];
                if (i < m)
                    p.y[i * p.ldy + j] = p.bias ? __fadd_rn(s, bias) : s;
            }
    }
}

/* Parts of one format. */
static int gemm_of(const cuda_bf16 *x, const int32_t *index, int32_t m,
                   const struct cuda_part *parts, int32_t count, cuda_stream stream)
{
    struct gemm_parts all = {};
    int64_t strips = 0, rows = 0;
    for (int32_t i = 0; i < CUDA_MAX_PARTS; i++) {
        all.first[i] = (int)strips;
        if (i < count) {
            all.part[i] = parts[i];
            strips += pieces(parts[i].w.rows, PRODUCT_ROWS), rows += parts[i].w.rows;
        }
    }
    all.first[CUDA_MAX_PARTS] = (int)strips;
    if (m <= 0 || strips == 0)
        return 0;
    int tokens = parts[0].w.format.type == CUDA_BF16
                     ? tiles_choose({1, m, rows, parts[0].w.cols, false})
                     : 0;
    if (tokens > 0)
        return tiles_gemm(tokens, x, index, m, parts, count, stream);
    return with_kernel<GEMM_TILE>(parts[0].w.format, m, [&](auto weights, auto tile) {
        typedef decltype(weights) W;
        const int nt = decltype(tile)::value;
        int64_t tiles = pieces(m, nt * PRODUCT_TOKENS), warps = warps_of(strips * tiles);
        dim3 grid((unsigned)tiles, (unsigned)pieces(strips, warps));
        size_t shared = (size_t)warps * product_kind<W, 1, nt>::ring::bytes;
        return launch(gemm<W, nt>,
                      {grid, dim3(32 * (unsigned)warps), shared, (device_stream)stream, true}, x,
                      index, m, parts[0].w.cols, all);
    });
}

static bool same_format(const struct cuda_format &a, const struct cuda_format &b)
{
    return a.type == b.type && (a.type == CUDA_BF16 ||
                                (a.group_shift == b.group_shift && a.scale_rows == b.scale_rows));
}

int cuda_gemm(const cuda_bf16 *x, const int32_t *index, int32_t m, const struct cuda_part *parts,
              int32_t count, cuda_stream stream)
{
    for (int32_t begin = 0, end; begin < count; begin = end) {
        for (end = begin + 1;
             end < count && same_format(parts[begin].w.format, parts[end].w.format); end++)
            ;
        int code = gemm_of(x, index, m, parts + begin, end - begin, stream);
        if (code != 0)
            return code;
    }
    return 0;
}

/* ---- cuda_qkv of few rows: a block a head, a warp a strip of it; its sums go through shared
 * memory to warps that each finish rows of the head. x tiles of tokens, y heads of q, k and v ----
 */

enum { QKV_WARPS = CUDA_MAX_HEAD / PRODUCT_ROWS };

struct qkv_job {
    struct head_job h;
    struct cuda_part part[3]; /* y is not used */
    const uint16_t *xn;
};

/* From one token to the next: no bank conflicts. */
DEVICE int qkv_pitch(int head_dim)
{
    return head_dim + 4;
}

template <class W, int NT>
static __global__ void __launch_bounds__(32 * QKV_WARPS, ((product_kind<W, 1, NT>::blocks + 1) / 2))
    qkv(struct qkv_job job)
{
    const struct cuda_attention &a = job.h.a;
    int which = (int)blockIdx.y < a.q_heads ? 0 : (int)blockIdx.y < a.q_heads + a.kv_heads ? 1 : 2;
    int head = (int)blockIdx.y - (which > 0 ? a.q_heads : 0) - (which > 1 ? a.kv_heads : 0);
    const struct cuda_part p = which == 0 ? job.part[0] : which == 1 ? job.part[1] : job.part[2];
    int first = head * a.head_dim;
    int strip = (int)threadIdx.x / 32, token = (int)blockIdx.x * NT * PRODUCT_TOKENS;
    int cols = p.w.cols, m = job.h.b.rows;

    typedef product_kind<W, 1, NT> kind;
    typename kind::rows rows;
    typename kind::stream stream;
    product_sums<1, NT> sums;
    product_weights(rows, 0, p.w.data, p.w.scale, p.w.format, first, strip, a.head_dim, cols);
#pragma unroll
    for (int n = 0; n < NT; n++)
        rows.x[n] = job.xn + (size_t)token_loaded(token, n, m) * (size_t)cols;
    product_open(stream, rows, ring_of_warp(kind::ring::bytes), 0, cols, cols);
    prefetch_strip<W>(p.w.data, first, strip, a.head_dim, cols, kind::ring::columns);
    grid_dependency_wait();
    grid_dependency_launch();
    product_join(stream);
    product_leaf(stream, sums, cols);
    product_close();

    SHARED_DYNAMIC(float, y); /* [8 NT][qkv_pitch], where the rings were */
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 4; e++) {
        int j = strip * PRODUCT_ROWS + lane_id() / 4 + e / 2 * 8;
        if (j >= a.head_dim)
            continue;
        float bias = p.bias ? p.bias[first + j] : 0.0f;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float s = sums.d[0][n][e];
            y[token_summed(0, n, e % 2) * qkv_pitch(a.head_dim) + j] = p.bias ? __fadd_rn(s, bias)
                                                                              : s;
        }
    }
    __syncthreads();
    int end = min(m - token, NT * PRODUCT_TOKENS);
    for (int i = strip; i < end; i += (int)blockDim.x / 32)
        head_finish(job.h, token + i, (int)blockIdx.y, y + i * qkv_pitch(a.head_dim));
}

int cuda_qkv(const struct cuda_batch *b, const struct cuda_attention *a, const cuda_bf16 *xn,
             const struct cuda_part *parts, const float *q_norm, const float *k_norm,
             const float *rope, cuda_bf16 *q, struct cuda_kv kv, cuda_stream stream)
{
    int32_t heads = a->q_heads + 2 * a->kv_heads;
    if (b->rows <= 0 || heads == 0)
        return 0;
    bool same = same_format(parts[0].w.format, parts[1].w.format) &&
                same_format(parts[0].w.format, parts[2].w.format);
    if (b->rows > CUDA_QKV_ROWS || !same) {
        int e = cuda_gemm(xn, NULL, b->rows, parts, 3, stream);
        return e ? e
                 : cuda_finish_qkv(b, a, q_norm, k_norm, rope, parts[0].y, parts[1].y, q, kv,
                                   stream);
    }
    struct qkv_job job = {head_job_of(b, a, q_norm, k_norm, rope, q, kv), {}, xn};
    for (int i = 0; i < 3; i++)
        job.part[i] = parts[i];
    return with_kernel<GEMM_TILE>(parts[0].w.format, b->rows, [&](auto weights, auto tile) {
        typedef decltype(weights) W;
        const int nt = decltype(tile)::value;
        int64_t warps = pieces(a->head_dim, PRODUCT_ROWS);
        dim3 grid((unsigned)pieces(b->rows, nt * PRODUCT_TOKENS), (unsigned)heads);
        size_t rings = (size_t)warps * product_kind<W, 1, nt>::ring::bytes;
        size_t sums = sizeof(float) * nt * PRODUCT_TOKENS * (size_t)(a->head_dim + 4);
        return launch(qkv<W, nt>,
                      {grid, dim3(32 * (unsigned)warps), rings > sums ? rings : sums,
                       (device_stream)stream, true},
                      job);
    });
}

/* ---- cuda_fill_padding ---- */

static __global__ void fill_padding(int begin, int end, float *y, int64_t ldy)
{
    int j = begin + (int)(blockIdx.x * blockDim.x + threadIdx.x);
    grid_dependency_wait();
    grid_dependency_launch();
    if (j < end)
        y[(int64_t)blockIdx.y * ldy + j] = __int_as_float((int)0xff800000u);
}

int cuda_fill_padding(int32_t m, int32_t begin, int32_t end, float *y, int64_t ldy,
                      cuda_stream stream)
{
    if (m <= 0 || begin >= end)
        return 0;
    dim3 grid((unsigned)pieces(end - begin, 256), (unsigned)m);
    return launch(fill_padding, {grid, dim3(256), 0, (device_stream)stream, true}, begin, end, y,
                  ldy);
}

/* ---- Exact sums of leaves ---- */

/* Adds leaves [begin, end) of one strip to the sums of a tile's tokens: to row row[n][which] of
 * sum with weight[n][which]; row -1: no such token. */
template <class W, bool WAIT, int NT>
DEVICE void add_leaves(const struct leaf_sum &s, const typename product_kind<W, 1, NT>::rows &rows,
                       uint4 *ring, int strip, int begin, int end, const int (&row)[NT][2],
                       const float (&weight)[NT][2])
{
    typename product_kind<W, 1, NT>::stream stream;
    double sum[NT][4];
    unsigned beyond = 0;
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[n][e] = 0.0;
    int j = strip * PRODUCT_ROWS + lane_id() / 4;
    product_open(stream, rows, ring, begin * s.leaf, s.leaf, min(end * s.leaf, s.cols));
    if constexpr (WAIT) {
        grid_dependency_wait();
        grid_dependency_launch();
    }
    product_join(stream);
    for (int leaf = begin; leaf < end; leaf++) {
        product_sums<1, NT> dot;
        product_leaf(stream, dot, min(s.leaf, s.cols - leaf * s.leaf));
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float x = __fmul_rn(weight[n][e % 2], dot.d[0][n][e]);
                bool there = row[n][e % 2] >= 0 && j + e / 2 * 8 < s.rows;
                beyond += there && !(fabsf(x) < s.limit); /* a NaN too */
                sum[n][e] = __dadd_rn(sum[n][e], exact_round(x));
            }
    }
    product_close();
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (row[n][e % 2] >= 0 && j + e / 2 * 8 < s.rows)
                atomicAdd(s.sum + (size_t)row[n][e % 2] * (size_t)s.rows + (size_t)(j + e / 2 * 8),
                          sum[n][e]);
    leaves_count_beyond(s, beyond);
}

/* ---- cuda_gemm_leaf: x tiles of tokens, y strips, z runs of leaves ---- */

template <class W, int NT>
static __global__ void __launch_bounds__(32 * MAX_WARPS, (product_kind<W, 1, NT>::blocks))
    gemm_leaf(const uint16_t *x, int m, struct cuda_matrix w, struct leaf_sum s)
{
    int strip = strip_of_warp(), token = (int)blockIdx.x * NT * PRODUCT_TOKENS, begin, end;
    if (strip * PRODUCT_ROWS >= s.rows)
        return;
    leaves_of_run(s, (int)blockIdx.z, (int)gridDim.z, &begin, &end);

    typedef product_kind<W, 1, NT> kind;
    typename kind::rows rows;
    int row[NT][2];
    float weight[NT][2];
    product_weights(rows, 0, w.data, w.scale, w.format, 0, strip, s.rows, s.cols);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        rows.x[n] = x + (size_t)token_loaded(token, n, m) * (size_t)s.cols;
        for (int which = 0; which < 2; which++) {
            int i = token_summed(token, n, which);
            row[n][which] = i < m ? i : -1;
            weight[n][which] = 1.0f;
        }
    }
    add_leaves<W, true>(s, rows, ring_of_warp(kind::ring::bytes), strip, begin, end, row, weight);
}

int cuda_gemm_leaf(const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaf,
                   int32_t leaves, double *sum, unsigned long long *out_of_range,
                   cuda_stream stream)
{
    if (m <= 0 || w.rows <= 0 || w.cols <= 0)
        return 0;
    int tokens = w.format.type != CUDA_BF16 ? 0 : tiles_choose({1, m, w.rows, w.cols, true});
    if (tokens > 0)
        return tiles_gemm_leaf(tokens, x, m, w, leaf, leaves, sum, out_of_range, stream);
    struct leaf_sum s = leaf_sum_of(w.rows, w.cols, leaf, leaves, sum, out_of_range);
    return with_kernel<LEAF_TILE>(w.format, m, [&](auto weights, auto tile) {
        typedef decltype(weights) W;
        const int nt = decltype(tile)::value;
        int64_t tiles = pieces(m, nt * PRODUCT_TOKENS), strips = pieces(w.rows, PRODUCT_ROWS);
        int runs = cut_of(strips * tiles, pieces(w.cols, leaf));
        int64_t warps = warps_of(strips * tiles * runs);
        dim3 grid((unsigned)tiles, (unsigned)pieces(strips, warps), (unsigned)runs);
        size_t shared = (size_t)warps * product_kind<W, 1, nt>::ring::bytes;
        return launch(gemm_leaf<W, nt>,
                      {grid, dim3(32 * (unsigned)warps), shared, (device_stream)stream, true}, x, m,
                      w, s);
    });
}

/* ---- cuda_ffn_up: x shares of an expert's tiles of slots, y strips of columns, z experts ---- */

struct up {
    const struct cuda_ffn *ffn;
    struct cuda_format format;
    struct cuda_route route;
    const uint16_t *xn;
    uint16_t *h;
    int columns, hidden;
};

/* Slots [first, end) of one expert, at most NT eights of them. */
template <class W, int NT>
DEVICE void up_tile(const struct up &a, const struct cuda_ffn &ffn, uint4 *ring, int strip,
                    int first, int end)
{
    if constexpr (NT > 1)
        if (end - first <= NT / 2 * PRODUCT_TOKENS) {
            up_tile<W, NT / 2>(a, ffn, ring, strip, first, end);
            return;
        }
    typedef product_kind<W, 2, NT> kind;
    static_assert(kind::ring::bytes <= product_kind<W, 2, 1>::ring::bytes, "the kernel's ring");
    typename kind::rows rows;
    typename kind::stream stream;
    product_sums<2, NT> sums;
    product_weights(rows, 0, ffn.gate, ffn.gate_scale, a.format, 0, strip, a.columns, a.hidden);
    product_weights(rows, 1, ffn.up, ffn.up_scale, a.format, 0, strip, a.columns, a.hidden);
#pragma unroll
    for (int n = 0; n < NT; n++)
        rows.x[n] = a.xn + (size_t)a.route.row[token_loaded(first, n, end)] * (size_t)a.hidden;
    product_open(stream, rows, ring, 0, a.hidden, a.hidden);
    product_join(stream);
    product_leaf(stream, sums, a.hidden);
    product_close();
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int slot = token_summed(first, n, e % 2);
            int j = strip * PRODUCT_ROWS + lane_id() / 4 + e / 2 * 8;
            if (slot < end && j < a.columns)
                a.h[(size_t)slot * (size_t)a.columns + (size_t)j] = bf16_from_f32(
                    silu_mul(sums.d[0][n][e], sums.d[1][n][e]));
        }
}

template <class W, int NT>
static __global__ void __launch_bounds__(32 * MAX_WARPS, (product_kind<W, 2, NT>::blocks))
    ffn_up(struct up a)
{
    const int size = NT * PRODUCT_TOKENS;
    int expert = (int)blockIdx.z, strip = strip_of_warp();
    if (strip * PRODUCT_ROWS >= a.columns)
        return;
    const struct cuda_ffn ffn = a.ffn[expert];
    if (gridDim.z == 1) { /* which expert it is needs no router */
        prefetch_strip<W>(ffn.gate, 0, strip, a.columns, a.hidden, 0);
        prefetch_strip<W>(ffn.up, 0, strip, a.columns, a.hidden, 0);
    }
    grid_dependency_wait();
    grid_dependency_launch();
    int end = a.route.first[expert + 1], slot = a.route.first[expert] + (int)blockIdx.x * size;
    if (slot >= end)
        return;
    uint4 *ring = ring_of_warp(product_kind<W, 2, 1>::ring::bytes);
    for (; slot < end; slot += (int)gridDim.x * size)
        up_tile<W, NT>(a, ffn, ring, strip, slot, min(slot + size, end));
}

int cuda_ffn_up(const struct cuda_ffn *ffn, struct cuda_format format, int32_t count, int32_t slots,
                int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                cuda_bf16 *h, cuda_stream stream)
{
    if (count <= 0 || slots <= 0 || columns <= 0)
        return 0;
    int64_t active = count < slots ? count : slots;
    int tokens = format.type != CUDA_BF16 ? 0
                                          : tiles_choose({active, pieces(slots, active),
                                                          2 * (int64_t)columns, hidden, false});
    if (tokens > 0)
        return tiles_ffn_up(tokens, ffn, count, slots, columns, hidden, route, xn, h, stream);
    struct up a = {ffn, format, route, xn, h, columns, hidden};
    return with_kernel<UP_TILE>(format, slots, [&](auto weights, auto tile) {
        typedef decltype(weights) W;
        const int nt = decltype(tile)::value;
        int64_t strips = pieces(columns, PRODUCT_ROWS);
        int shares = cut_of(strips * active, pieces(slots, nt * PRODUCT_TOKENS));
        int64_t warps = warps_of(strips * active * shares);
        dim3 grid((unsigned)shares, (unsigned)pieces(strips, warps), (unsigned)count);
        size_t shared = (size_t)warps * product_kind<W, 2, 1>::ring::bytes;
        return launch(ffn_up<W, nt>,
                      {grid, dim3(32 * (unsigned)warps), shared, (device_stream)stream, true}, a);
    });
}

/* ---- cuda_ffn_down: x shares of an expert's tiles of slots, y strips of hidden, z experts' runs
 * of leaves ---- */

struct down {
    const struct cuda_ffn *ffn;
    struct cuda_format format;
    struct cuda_route route;
    const uint16_t *h;
    struct leaf_sum s;
    int runs;
};

template <class W, int NT>
DEVICE void down_tile(const struct down &a, const struct cuda_ffn &ffn, uint4 *ring, int strip,
                      int first, int end, int leaf_begin, int leaf_end)
{
    if constexpr (NT > 1)
        if (end - first <= NT / 2 * PRODUCT_TOKENS) {
            down_tile<W, NT / 2>(a, ffn, ring, strip, first, end, leaf_begin, leaf_end);
            return;
        }
    typedef product_kind<W, 1, NT> kind;
    static_assert(kind::ring::bytes <= product_kind<W, 1, 1>::ring::bytes, "the kernel's ring");
    typename kind::rows rows;
    int row[NT][2];
    float weight[NT][2];
    product_weights(rows, 0, ffn.down, ffn.down_scale, a.format, 0, strip, a.s.rows, a.s.cols);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        rows.x[n] = a.h + (size_t)token_loaded(first, n, end) * (size_t)a.s.cols;
        for (int which = 0; which < 2; which++) {
            int slot = token_summed(first, n, which);
            row[n][which] = slot < end ? a.route.row[slot] : -1;
            weight[n][which] = slot < end ? a.route.weight[slot] : 0.0f;
        }
    }
    add_leaves<W, false>(a.s, rows, ring, strip, leaf_begin, leaf_end, row, weight);
}

template <class W, int NT>
static __global__ void __launch_bounds__(32 * MAX_WARPS, (product_kind<W, 1, NT>::blocks))
    ffn_down(struct down a)
{
    const int size = NT * PRODUCT_TOKENS;
    int expert = (int)blockIdx.z / a.runs, strip = strip_of_warp(), begin, leaf_end;
    if (strip * PRODUCT_ROWS >= a.s.rows)
        return;
    const struct cuda_ffn ffn = a.ffn[expert];
    if ((int)gridDim.z == a.runs) { /* which expert it is needs no router */
        leaves_of_run(a.s, (int)blockIdx.z, a.runs, &begin, &leaf_end);
        prefetch_strip<W>(ffn.down, 0, strip, a.s.rows, a.s.cols, begin * a.s.leaf);
    }
    grid_dependency_wait();
    grid_dependency_launch();
    int slot = a.route.first[expert] + (int)blockIdx.x * size, end = a.route.first[expert + 1];
    if (slot >= end)
        return;
    leaves_of_run(a.s, (int)blockIdx.z % a.runs, a.runs, &begin, &leaf_end);
    uint4 *ring = ring_of_warp(product_kind<W, 1, 1>::ring::bytes);
    for (; slot < end; slot += (int)gridDim.x * size)
        down_tile<W, NT>(a, ffn, ring, strip, slot, min(slot + size, end), begin, leaf_end);
}

int cuda_ffn_down(int32_t rows, const struct cuda_ffn *ffn, struct cuda_format format,
                  int32_t count, int32_t slots, int32_t columns, int32_t hidden,
                  struct cuda_route route, int32_t leaves, const cuda_bf16 *h, double *sum,
                  unsigned long long *out_of_range, cuda_stream stream)
{
    if (rows <= 0 || hidden <= 0 || count <= 0 || slots <= 0 || columns <= 0)
        return 0;
    int64_t active = count < slots ? count : slots;
    int tokens = format.type != CUDA_BF16
                     ? 0
                     : tiles_choose({active, pieces(slots, active), hidden, columns, true});
    if (tokens > 0)
        return tiles_ffn_down(tokens, ffn, count, slots, columns, hidden, route, leaves, h, sum,
                              out_of_range, stream);
    struct down a = {ffn,
                     format,
                     route,
                     h,
                     leaf_sum_of(hidden, columns, CUDA_FFN_BLOCK, leaves, sum, out_of_range),
                     1};
    int32_t most = rows < slots ? rows : slots; /* of one expert */
    return with_kernel<LEAF_TILE>(format, most, [&](auto weights, auto tile) {
        typedef decltype(weights) W;
        const int nt = decltype(tile)::value;
        int64_t strips = pieces(hidden, PRODUCT_ROWS);
        a.runs = cut_of(strips * active, pieces(columns, CUDA_FFN_BLOCK));
        int shares = cut_of(strips * active * a.runs, pieces(most, nt * PRODUCT_TOKENS));
        int64_t warps = warps_of(strips * active * a.runs * shares);
        dim3 grid((unsigned)shares, (unsigned)pieces(strips, warps), (unsigned)(count * a.runs));
        size_t shared = (size_t)warps * product_kind<W, 1, 1>::ring::bytes;
        return launch(ffn_down<W, nt>,
                      {grid, dim3(32 * (unsigned)warps), shared, (device_stream)stream, true}, a);
    });
}
