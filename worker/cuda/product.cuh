/*
 * The one product that all matrix stages are made of: a warp multiplies 16 rows of weights with
 * 8 NT rows of activations ("tokens") in the order that stages.h fixes. NT, how many loads are
 * under way and who the other rows are change no bit of a row, so that hosts choose them by speed
 * alone.
 *
 * Weights are A of mma.m16n8k16, each byte read once a tile of tokens; activations are B. With
 * g = lane / 4, t = lane % 4, a lane reads of block b (32 columns) the eight elements 32 b + 8 t
 * .. + 7 of weight rows g and g + 8 and of tokens g, g + 8, ...; it ends up with weight rows g and
 * g + 8 of tokens 2 t and 2 t + 1 of every eight.
 *
 * At few tokens the memory's latency is all there is, and few warps must keep much on its way: each
 * lane copies the 16-byte pieces that it will want through a ring in shared memory, which no other
 * lane touches, so that nothing but its own copies is waited for. The first weights may be on their
 * way before the launch that makes the tokens has ended (product_open, product_join).
 */
#ifndef WITAN_WORKER_CUDA_PRODUCT_CUH
#define WITAN_WORKER_CUDA_PRODUCT_CUH

#include "worker/cuda/device.cuh"

enum { PRODUCT_ROWS = 16, PRODUCT_TOKENS = 8, PRODUCT_BLOCK = 32 };

/* A lane's rows, of MATRICES of equal shape that are multiplied with the same tokens. Rows past an
 * edge: any other, whose results are not used. */
template <int MATRICES, int NT> struct product_rows {
    const uint16_t *w[MATRICES][2];
    const uint16_t *x[NT];
};

/* d[matrix][n][e]: weight row g + 8 (e / 2), token 8 n + 2 t + e % 2. */
template <int MATRICES, int NT> struct product_sums {
    float d[MATRICES][NT][4];
};

/* What a lane holds of one block of columns. */
template <int MATRICES, int NT> struct product_block {
    uint32_t w[MATRICES][2][4];
    uint32_t x[NT][4];
};

/* A warp's ring: blocks, each of pieces of 16 bytes a lane. Tokens pass through it but where they
 * are so many that reading them again from the L1 cache costs less than the ring's detour. */
template <int MATRICES, int NT> struct product_ring {
    static const int blocks = NT == 1 ? 8 : 4, columns = blocks * PRODUCT_BLOCK;
    static const bool tokens = NT <= 2;
    static const int pieces = MATRICES * 2 + (tokens ? NT : 0);
    static const int bytes = blocks * pieces * 32 * 16;
};

/* A block's first column, and the end of its leaf. */
struct product_place {
    int k, stop;
};

/* Blocks of consecutive leaves on their way to the tensor cores. */
template <int MATRICES, int NT> struct product_stream {
    uint4 *ring;                         /* the lane's first piece */
    product_rows<MATRICES, NT> rows;     /* from the lane's first column on */
    product_block<MATRICES, NT> block;   /* the next to be multiplied */
    struct product_place fetched, taken; /* the next blocks from memory and from the ring */
    int fetch_slot, take_slot;
    int mine, leaf, end;
};

DEVICE void product_advance(struct product_place *at, int leaf, int end)
{
    at->k += PRODUCT_BLOCK;
    if (at->k >= at->stop) {
        at->k = at->stop;
        at->stop = min(at->stop + leaf, end);
    }
}

/* Starts copies of a block's weights; columns past the leaf's end become zeros. */
template <int MATRICES, int NT>
DEVICE void product_fetch_weights(product_stream<MATRICES, NT> &s, struct product_place at,
                                  int slot)
{
    int bytes = at.k + s.mine < at.stop ? 16 : 0;
    uint4 *to = s.ring + slot * (product_ring<MATRICES, NT>::pieces * 32);
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            cp_async<16>(to + (2 * i + half) * 32, s.rows.w[i][half] + at.k, bytes);
}

/* The same of the next block's tokens, which makes its copies whole. */
template <int MATRICES, int NT> DEVICE void product_fetch_tokens(product_stream<MATRICES, NT> &s)
{
    typedef product_ring<MATRICES, NT> ring;
    int k = s.fetched.k, bytes = k + s.mine < s.fetched.stop ? 16 : 0;
    uint4 *to = s.ring + s.fetch_slot * (ring::pieces * 32);
#pragma unroll
    for (int n = 0; ring::tokens && n < NT; n++)
        cp_async_cached(to + (2 * MATRICES + n) * 32, s.rows.x[n] + k, bytes);
    cp_async_commit();
    s.fetch_slot = (s.fetch_slot + 1) % ring::blocks;
    product_advance(&s.fetched, s.leaf, s.end);
}

DEVICE void product_piece(uint32_t (&r)[4], const uint4 *from)
{
    const uint4 v = *from;
    r[0] = v.x, r[1] = v.y, r[2] = v.z, r[3] = v.w;
}

/* The next block, out of the ring. */
template <int MATRICES, int NT>
DEVICE void product_take(product_stream<MATRICES, NT> &s, product_block<MATRICES, NT> &b)
{
    typedef product_ring<MATRICES, NT> ring;
    const uint4 *from = s.ring + s.take_slot * (ring::pieces * 32);
    bool inside = s.taken.k + s.mine < s.taken.stop;
#pragma unroll
    for (int n = 0; !ring::tokens && n < NT; n++) {
        b.x[n][0] = b.x[n][1] = b.x[n][2] = b.x[n][3] = 0;
        if (inside)
            product_piece(b.x[n], (const uint4 *)(s.rows.x[n] + s.taken.k));
    }
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            product_piece(b.w[i][half], from + (2 * i + half) * 32);
#pragma unroll
    for (int n = 0; ring::tokens && n < NT; n++)
        product_piece(b.x[n], from + (2 * MATRICES + n) * 32);
    s.take_slot = (s.take_slot + 1) % ring::blocks;
    product_advance(&s.taken, s.leaf, s.end);
}

/* The block's two mma for every matrix and eight tokens. */
template <int MATRICES, int NT>
DEVICE void product_multiply(product_sums<MATRICES, NT> &sums, const product_block<MATRICES, NT> &b)
{
#pragma unroll
    for (int part = 0; part < 4; part += 2)
#pragma unroll
        for (int i = 0; i < MATRICES; i++) {
            const uint32_t a[4] = {b.w[i][0][part], b.w[i][1][part], b.w[i][0][part + 1],
                                   b.w[i][1][part + 1]};
#pragma unroll
            for (int n = 0; n < NT; n++) {
                const uint32_t x[2] = {b.x[n][part], b.x[n][part + 1]};
                mma_m16n8k16_bf16(sums.d[i][n], a, x);
            }
        }
}

/* Begins with the leaf of columns [begin, begin + leaf), of which `end` is the last one's end; all
 * are multiples of 8. ring: product_ring::bytes of shared memory, the warp's own. Reads weights
 * alone: tokens may still be written by the launch before. product_join comes next. */
template <int MATRICES, int NT>
DEVICE void product_open(product_stream<MATRICES, NT> &s, const product_rows<MATRICES, NT> &rows,
                         uint4 *ring, int begin, int leaf, int end)
{
    const int blocks = product_ring<MATRICES, NT>::blocks;
    s.ring = ring + lane_id();
    s.rows = rows;
    s.mine = lane_id() % 4 * 8;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
        s.rows.w[i][0] += s.mine, s.rows.w[i][1] += s.mine;
#pragma unroll
    for (int n = 0; n < NT; n++)
        s.rows.x[n] += s.mine;
    s.leaf = leaf, s.end = end;
    s.fetched.k = s.taken.k = begin;
    s.fetched.stop = s.taken.stop = min(begin + leaf, end);
    s.fetch_slot = s.take_slot = 0;
#pragma unroll
    for (int b = 0; b < blocks; b++) {
        product_fetch_weights(s, s.fetched, b);
        product_advance(&s.fetched, leaf, end);
    }
    s.fetched = s.taken; /* of the tokens */
}

/* The tokens are there. */
template <int MATRICES, int NT> DEVICE void product_join(product_stream<MATRICES, NT> &s)
{
    const int blocks = product_ring<MATRICES, NT>::blocks;
#pragma unroll
    for (int b = 0; b < blocks; b++)
        product_fetch_tokens(s);
    cp_async_wait<blocks - 1>();
    product_take(s, s.block);
}

/* sums = the products over the next leaf, which has `columns`. All lanes of a warp together. */
template <int MATRICES, int NT>
DEVICE void product_leaf(product_stream<MATRICES, NT> &s, product_sums<MATRICES, NT> &sums,
                         int columns)
{
    const int blocks = product_ring<MATRICES, NT>::blocks;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums.d[i][n][e] = 0.0f;
#pragma unroll 2
    for (; columns > 0; columns -= PRODUCT_BLOCK) {
        product_block<MATRICES, NT> next;
        cp_async_wait<blocks - 2>();
        product_take(s, next);
        product_multiply(sums, s.block);
        product_fetch_weights(s, s.fetched, s.fetch_slot); /* where the block just multiplied lay */
        product_fetch_tokens(s);
        s.block = next;
    }
}

/* Before the ring is used again. */
DEVICE void product_close()
{
    cp_async_wait<0>();
}

#endif
