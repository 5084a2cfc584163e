/*
 * The product of a block's tile: TILE_ROWS rows of weights with TOKENS rows of activations, bit for
 * bit what product.cuh gives. Eight warps share what they read through stages in shared memory, of
 * two blocks of 32 columns each, that cp.async fills while the tensor cores are at earlier ones.
 *
 * A stage is two planes, one a block of columns, of 64 bytes a row: weights, then tokens. So eight
 * neighbouring lanes, which a load of 16 bytes serves at once, find the pieces of their two rows in
 * 128 consecutive bytes: all banks, once. In the second plane rows 2 i and 2 i + 1 lie swapped, so
 * that the eight copies that bring 128 bytes of one row to both planes meet all banks as well.
 *
 * Of block b a lane reads elements 32 b + 8 t .. + 7 of its rows, which is all that both of its mma
 * take of them (stages.h): the loads are plain ones of 16 bytes.
 */
#ifndef WITAN_WORKER_CUDA_TILES_CUH
#define WITAN_WORKER_CUDA_TILES_CUH

#include "worker/cuda/product.cuh"

enum { TILE_ROWS = 128, TILE_WARPS = 8, TILE_THREADS = 32 * TILE_WARPS, TILE_STAGES = 3 };

/* A tile of TOKENS: how its warps lie, `down` weights and `across` tokens, each with mt sixteens of
 * weight rows and nt eights of tokens. Counts of shared memory are in pieces of 16 bytes. */
template <int TOKENS> struct tile {
    static const int tokens = TOKENS;
    static const int down = TOKENS >= 128 ? 2 : 4, across = TILE_WARPS / down;
    static const int mt = TILE_ROWS / PRODUCT_ROWS / down, nt = TOKENS / PRODUCT_TOKENS / across;
    static const int rows = TILE_ROWS + TOKENS;
    static const int plane = rows * 4, stage = 2 * plane;
    /* Behind the stages: where each row begins, and of tokens a weight and a number. */
    static const int stages = TILE_STAGES * stage, bytes = stages * 16 + rows * 8 + TOKENS * 8 + 16;
};

/* The parts of a block's shared memory. */
template <class T> struct tile_shared {
    uint4 *stages;
    const uint16_t **row; /* [T::rows]: weights, then tokens */
    float *weight;        /* [T::tokens] */
    int *target;          /* [T::tokens] */
};

template <class T> DEVICE tile_shared<T> tile_shared_of(uint4 *begin)
{
    const uint16_t **row = (const uint16_t **)(begin + T::stages);
    float *weight = (float *)(row + T::rows);
    return {begin, row, weight, (int *)(weight + T::tokens)};
}

/* A warp's sums: d[i][n][e] is of weight row tile_weight(i, e) and token tile_token(n, e). */
template <class T> struct tile_sums {
    float d[T::mt][T::nt][4];
};

template <class T> DEVICE int tile_weight(int i, int e)
{
    int warp = (int)threadIdx.x / 32 / T::across;
    return (warp * T::mt + i) * PRODUCT_ROWS + lane_id() / 4 + e / 2 * 8;
}

template <class T> DEVICE int tile_token(int n, int e)
{
    int warp = (int)threadIdx.x / 32 % T::across;
    return (warp * T::nt + n) * PRODUCT_TOKENS + lane_id() % 4 * 2 + e % 2;
}

/* Stages on their way into shared memory. */
template <class T> struct tile_copies {
    tile_shared<T> shared;
    struct product_place at; /* of the thread's plane in the next stage */
    int leaf, end;
};

/* Starts copies of the next stage, to `slot`; columns past their leaf's end become zeros. BATCH
 * rows at a time, as the registers allow. */
template <int BATCH, class T> DEVICE void tile_fetch(tile_copies<T> &c, int slot)
{
    const int apart = TILE_THREADS / 8;
    static_assert(T::rows % (BATCH * apart) == 0, "whole batches");
    int plane = (int)threadIdx.x / 4 % 2, piece = (int)threadIdx.x % 4;
    int first = (int)threadIdx.x / 8, k = c.at.k + 8 * piece, bytes = k < c.at.stop ? 16 : 0;
    uint4 *to = c.shared.stages + slot * T::stage + plane * T::plane + piece;
#pragma unroll
    for (int i = 0; i < T::rows; i += BATCH * apart) {
        const uint16_t *from[BATCH]; /* read at once: nothing moves past a copy */
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            from[j] = c.shared.row[i + j * apart + first];
#pragma unroll
        for (int j = 0; j < BATCH; j++)
            cp_async<16>(to + (i + j * apart + (first ^ plane)) * 4, from[j] + k, bytes);
    }
    cp_async_commit();
    product_advance(&c.at, c.leaf, c.end);
    product_advance(&c.at, c.leaf, c.end);
}

/* Adds a block's products. w and x: the lane's pieces in the rows where its warp's begin. */
template <class T> DEVICE void tile_multiply(tile_sums<T> &sums, const uint4 *w, const uint4 *x)
{
    uint32_t token[T::nt][4];
#pragma unroll
    for (int n = 0; n < T::nt; n++)
        product_piece(token[n], x + n * 8 * 4);
#pragma unroll
    for (int i = 0; i < T::mt; i++) {
        uint32_t row[2][4];
        product_piece(row[0], w + 2 * i * 8 * 4);
        product_piece(row[1], w + (2 * i + 1) * 8 * 4);
#pragma unroll
        for (int part = 0; part < 4; part += 2) {
            const uint32_t a[4] = {row[0][part], row[1][part], row[0][part + 1], row[1][part + 1]};
#pragma unroll
            for (int n = 0; n < T::nt; n++) {
                const uint32_t b[2] = {token[n][part], token[n][part + 1]};
                mma_m16n8k16_bf16(sums.d[i][n], a, b);
            }
        }
    }
}

template <class T> DEVICE void tile_clear(tile_sums<T> &sums)
{
#pragma unroll
    for (int i = 0; i < T::mt; i++)
#pragma unroll
        for (int n = 0; n < T::nt; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums.d[i][n][e] = 0.0f;
}

/* The products over columns [begin, end) in leaves of `leaf`, all multiples of 8: fold(sums) takes
 * each leaf's. ONE: there is one. All threads of the block together, once the rows' table is
 * written; when they come back, shared memory may be written again. */
template <class T, bool ONE, class F>
DEVICE void tile_leaves(const tile_shared<T> &shared, int begin, int leaf, int end, F fold)
{
    const int batch = ONE ? T::rows / (TILE_THREADS / 8) : 2;
    const int g = lane_id() / 4, t = lane_id() % 4, warp = (int)threadIdx.x / 32;
    const int w = warp / T::across * T::mt * PRODUCT_ROWS * 4;
    const int x = (TILE_ROWS + warp % T::across * T::nt * PRODUCT_TOKENS) * 4;
    tile_copies<T> copies = {shared, {begin, min(begin + leaf, end)}, leaf, end};
    tile_sums<T> sums;
    struct product_place at = copies.at; /* the next block to be multiplied */
    int slot = 0;
    __syncthreads();
    if (threadIdx.x / 4 % 2)
        product_advance(&copies.at, leaf, end);
#pragma unroll
    for (int s = 0; s < TILE_STAGES - 1; s++)
        tile_fetch<batch>(copies, s);
    tile_clear(sums);
#pragma unroll 1
    while (at.k < end) {
        const uint4 *stage = shared.stages + slot * T::stage;
        cp_async_wait<TILE_STAGES - 2>();
        __syncthreads();
#pragma unroll
        for (int plane = 0; plane < 2; plane++) {
            const uint4 *mine = stage + plane * T::plane + (g ^ plane) * 4 + t;
            if (at.k >= end)
                break;
            tile_multiply(sums, mine + w, mine + x);
            if (plane == 0) /* where the stage before this one lay, with the tensor cores busy */
                tile_fetch<batch>(copies, (slot + TILE_STAGES - 1) % TILE_STAGES);
            if (!ONE && at.k + PRODUCT_BLOCK >= at.stop) {
                fold(sums);
                tile_clear(sums);
            }
            product_advance(&at, leaf, end);
        }
        slot = (slot + 1) % TILE_STAGES;
    }
    cp_async_wait<0>();
    __syncthreads();
    if (ONE) /* behind the loop, or its addresses would take up the loop's registers */
        fold(sums);
}

#endif
