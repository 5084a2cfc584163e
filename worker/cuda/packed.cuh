/*
 * product.cuh's product for weights that stay packed: a lane copies 16 bytes of a row, which hold
 * what it needs of 2 (e4m3) or 4 (4 bits) blocks of 32 columns, and widens them to bf16, exactly,
 * on their way to the tensor cores. stages.h has their layout and the order of sums; the functions
 * have product.cuh's names, so that a kernel is one for all weights.
 *
 * A unit is 64 bytes of a row: a piece for each of the four lanes that share it.
 */
#ifndef WITAN_WORKER_CUDA_PACKED_CUH
#define WITAN_WORKER_CUDA_PACKED_CUH

#include "worker/cuda/common.cuh"
#include "worker/cuda/product.cuh"
#include "worker/cuda/stages.h"

/* Tags: the weights that a kernel is made for. */
struct weights_bf16 {
    DEVICE int row_bytes(int cols)
    {
        return cols * 2;
    }
};

/* v: a lane's piece; r: of block `part` its eight elements in pairs. word: the block's scale as it
 * lies in memory. odd: as the piece's `odd` said. */
struct weights_e4m3 {
    static const int parts = 2;

    DEVICE int row_bytes(int cols)
    {
        return (cols + 63) / 64 * 64;
    }

    /* Has any of them no number? */
    DEVICE bool odd(const uint4 &v)
    {
        const uint32_t mask = 0x7f7f7f7fu, one = 0x01010101u;
        return ((((v.x & mask) + one) | ((v.y & mask) + one) | ((v.z & mask) + one) |
                 ((v.w & mask) + one)) &
                0x80808080u) != 0;
    }

    /* Two codes in the low bytes of halves. As bf16 their exponent is 120 too small: 2^120. */
    DEVICE uint32_t pair(uint32_t v, bool odd)
    {
        uint32_t r = bf16x2_fma((v << 8 & 0x80008000u) | (v << 4 & 0x07f007f0u), 0x7b807b80u,
                                0x80008000u);
        if (odd)
            r |= (((v & 0x007f007fu) + 0x00010001u) >> 7 & 0x00010001u) * 0x7fffu;
        return r;
    }

    DEVICE void widen(uint32_t (&r)[4], const uint4 &v, int part, uint32_t, bool odd)
    {
        const uint32_t a = part == 0 ? v.x : v.z, b = part == 0 ? v.y : v.w;
        r[0] = pair(a, odd), r[1] = pair(a >> 8, odd);
        r[2] = pair(b, odd), r[3] = pair(b >> 8, odd);
    }

    DEVICE float scale(uint32_t word)
    {
        return __uint_as_float(word);
    }
};

struct weights_int4 {
    static const int parts = 4;

    DEVICE int row_bytes(int cols)
    {
        return (cols + 127) / 128 * 64;
    }

    DEVICE bool odd(const uint4 &)
    {
        return false;
    }

    /* 128 + q and 128 + zero are bf16 whose last bits are q's and zero's. */
    DEVICE void widen(uint32_t (&r)[4], const uint4 &v, int part, uint32_t word, bool)
    {
        const uint32_t q = part == 0 ? v.x : part == 1 ? v.y : part == 2 ? v.z : v.w;
        const uint32_t zero = 0xc300c300u + (word & CUDA_INT4_ZERO) * 0x00010001u;
#pragma unroll
        for (int i = 0; i < 4; i++)
            r[i] = bf16x2_fma((q >> 4 * i & 0x000f000fu) | 0x43004300u, 0x3f803f80u, zero);
    }

    DEVICE float scale(uint32_t word)
    {
        return __uint_as_float(word & ~(uint32_t)CUDA_INT4_ZERO);
    }
};

/* A lane's rows, from its piece of the first unit on; of x from its first column on. Its second
 * row of each matrix lies so much further on. */
template <class W, int MATRICES, int NT> struct packed_rows {
    const uint4 *w[MATRICES];
    const uint32_t *scale[MATRICES];
    int w_second, scale_second;
    const uint16_t *x[NT];
    int group_shift;
};

/* A warp's ring: units, each a lane's pieces of weights and of one eight of tokens, and the word of
 * a scale for each row: of the block that is the lane's own number among four. */
template <class W, int MATRICES, int NT> struct packed_ring {
    static const int units = 4, columns = units * W::parts * PRODUCT_BLOCK;
    static const bool tokens = NT == 1;
    static const int pieces = MATRICES * 2 + (tokens ? W::parts : 0);
    static const int unit_pieces = pieces * 32 + MATRICES * 2 * 32 / 4; /* 16 bytes each */
    static const int bytes = units * unit_pieces * 16;
};

template <class W, int MATRICES, int NT> struct packed_stream {
    uint4 *ring;
    packed_rows<W, MATRICES, NT> rows;
    int fetched, slot; /* the next unit from memory; where the next lies in the ring */
    int k, end;        /* the next column, and that behind the last */
};

/* What a kernel needs for its weights, by their tag. blocks: how many are to fit a multiprocessor,
 * so that the compiler neither spills for more nor takes registers as if there were one; 0: it
 * chooses well. */
template <class W, int MATRICES, int NT> struct product_kind {
    typedef packed_rows<W, MATRICES, NT> rows;
    typedef packed_stream<W, MATRICES, NT> stream;
    typedef packed_ring<W, MATRICES, NT> ring;
    static const int blocks = NT == 1 ? 4 : NT == 2 ? 3 : 2;
};

template <int MATRICES, int NT> struct product_kind<weights_bf16, MATRICES, NT> {
    typedef product_rows<MATRICES, NT> rows;
    typedef product_stream<MATRICES, NT> stream;
    typedef product_ring<MATRICES, NT> ring;
    static const int blocks = 0;
};

/* Row g + 8 `half` of a strip, or the last: never past the edge. */
DEVICE int product_row(int strip, int half, int rows)
{
    return min(strip * PRODUCT_ROWS + lane_id() / 4 + 8 * half, rows - 1);
}

/* Matrix i: a strip of its rows [first, first + rows). */
template <int MATRICES, int NT>
DEVICE void product_weights(product_rows<MATRICES, NT> &to, int i, const uint16_t *data,
                            const void *, const struct cuda_format &, int first, int strip,
                            int rows, int cols)
{
    for (int half = 0; half < 2; half++)
        to.w[i][half] = data + (size_t)(first + product_row(strip, half, rows)) * (size_t)cols;
}

template <class W, int MATRICES, int NT>
DEVICE void product_weights(packed_rows<W, MATRICES, NT> &to, int i, const uint16_t *data,
                            const void *scale, const struct cuda_format &format, int first,
                            int strip, int rows, int cols)
{
    const int columns = W::parts * PRODUCT_BLOCK;
    size_t units = (size_t)((cols + columns - 1) / columns);
    size_t groups = (size_t)(((cols - 1) >> format.group_shift) + 1);
    to.group_shift = format.group_shift;
    int row = first + product_row(strip, 0, rows), second = first + product_row(strip, 1, rows);
    to.w[i] = (const uint4 *)data + (size_t)row * units * 4;
    to.scale[i] = (const uint32_t *)scale + (size_t)(row / format.scale_rows) * groups;
    to.w_second = (second - row) * (int)units * 4;
    to.scale_second = (second / format.scale_rows - row / format.scale_rows) * (int)groups;
}

/* Starts copies of a unit's weights and scales. */
template <class W, int MATRICES, int NT>
DEVICE void packed_fetch_weights(packed_stream<W, MATRICES, NT> &s, int unit, int slot)
{
    typedef packed_ring<W, MATRICES, NT> ring;
    int k = unit * W::parts * PRODUCT_BLOCK;
    uint4 *to = s.ring + slot * ring::unit_pieces;
    uint32_t *words = (uint32_t *)(to + ring::pieces * 32) + lane_id();
    if (k >= s.end)
        return;
    int own = min(k + lane_id() % W::parts * PRODUCT_BLOCK, s.end - 1) >> s.rows.group_shift;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            cp_async<16>(to + (2 * i + half) * 32 + lane_id(),
                         s.rows.w[i] + (unit * 4 + half * s.rows.w_second));
            cp_async<4>(words + (2 * i + half) * 32,
                        s.rows.scale[i] + (own + half * s.rows.scale_second));
        }
}

/* The same of its tokens, zeros past the end, which makes its copies whole. */
template <class W, int MATRICES, int NT>
DEVICE void packed_fetch_tokens(packed_stream<W, MATRICES, NT> &s, int unit, int slot)
{
    typedef packed_ring<W, MATRICES, NT> ring;
    int k = unit * W::parts * PRODUCT_BLOCK, mine = lane_id() % 4 * 8;
    uint4 *to = s.ring + slot * ring::unit_pieces + MATRICES * 2 * 32 + lane_id();
#pragma unroll
    for (int part = 0; ring::tokens && part < W::parts; part++) {
        int at = k + part * PRODUCT_BLOCK, bytes = at + mine < s.end ? 16 : 0;
        cp_async_cached(to + part * 32, s.rows.x[0] + (bytes ? at : 0), bytes);
    }
    cp_async_commit();
}

/* As of product.cuh; a leaf begins at a multiple of 32. */
template <class W, int MATRICES, int NT>
DEVICE void product_open(packed_stream<W, MATRICES, NT> &s,
                         const packed_rows<W, MATRICES, NT> &rows, uint4 *ring, int begin, int,
                         int end)
{
    s.ring = ring;
    s.rows = rows;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
        s.rows.w[i] += lane_id() % 4;
#pragma unroll
    for (int n = 0; n < NT; n++)
        s.rows.x[n] += lane_id() % 4 * 8;
    s.k = begin, s.end = end;
    s.fetched = begin / (W::parts * PRODUCT_BLOCK);
    for (int slot = 0; slot < packed_ring<W, MATRICES, NT>::units; slot++)
        packed_fetch_weights(s, s.fetched + slot, slot);
}

template <class W, int MATRICES, int NT> DEVICE void product_join(packed_stream<W, MATRICES, NT> &s)
{
    for (int slot = 0; slot < packed_ring<W, MATRICES, NT>::units; slot++)
        packed_fetch_tokens(s, s.fetched++, slot);
    s.slot = 0;
}

/* What a lane holds of one unit. */
template <int MATRICES> struct packed_unit {
    uint4 w[MATRICES][2];
    uint32_t scale[MATRICES][2];
    bool odd;
};

/* The unit in the ring's slot. */
template <class W, int MATRICES, int NT>
DEVICE void packed_take(const packed_stream<W, MATRICES, NT> &s, packed_unit<MATRICES> &u)
{
    typedef packed_ring<W, MATRICES, NT> ring;
    const uint4 *from = s.ring + s.slot * ring::unit_pieces;
    const uint32_t *words = (const uint32_t *)(from + ring::pieces * 32);
    u.odd = false;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u.w[i][half] = from[(2 * i + half) * 32 + lane_id()];
            u.scale[i][half] = words[(2 * i + half) * 32 + lane_id()];
            u.odd |= W::odd(u.w[i][half]);
        }
}

/* Block `part` of the unit, whose first column is k, multiplied into dot; word: its scales. */
template <class W, int MATRICES, int NT>
DEVICE void packed_block(const packed_stream<W, MATRICES, NT> &s, const packed_unit<MATRICES> &u,
                         int part, int k, uint32_t (&word)[MATRICES][2],
                         product_sums<MATRICES, NT> &dot)
{
    typedef packed_ring<W, MATRICES, NT> ring;
    const int columns = W::parts * PRODUCT_BLOCK;
    product_block<MATRICES, NT> b;
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const uint4 *x = ring::tokens ? s.ring + s.slot * ring::unit_pieces +
                                            (2 * MATRICES + part) * 32 + lane_id()
                                      : (const uint4 *)(s.rows.x[n] + k);
        b.x[n][0] = b.x[n][1] = b.x[n][2] = b.x[n][3] = 0;
        if (ring::tokens || k + lane_id() % 4 * 8 < s.end)
            product_piece(b.x[n], x);
    }
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            word[i][half] = u.scale[i][half];
            if (1 << s.rows.group_shift < columns) /* else one for the whole unit */
                word[i][half] = __shfl_sync(ALL_LANES, u.scale[i][half], lane_id() / 4 * 4 + part);
            W::widen(b.w[i][half], u.w[i][half], part, word[i][half], u.odd);
        }
    product_multiply(dot, b);
}

/* acc = scale x dot + acc, and dot begins anew. */
template <class W, int MATRICES, int NT>
DEVICE void packed_scale(product_sums<MATRICES, NT> &acc, product_sums<MATRICES, NT> &dot,
                         const uint32_t (&word)[MATRICES][2])
{
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                acc.d[i][n][e] = __fmaf_rn(W::scale(word[i][e / 2]), dot.d[i][n][e],
                                           acc.d[i][n][e]);
                dot.d[i][n][e] = 0.0f;
            }
}

template <class W, int MATRICES, int NT>
DEVICE void product_leaf(packed_stream<W, MATRICES, NT> &s, product_sums<MATRICES, NT> &sums,
                         int leaf)
{
    typedef packed_ring<W, MATRICES, NT> ring;
    const int columns = W::parts * PRODUCT_BLOCK, stop = s.k + leaf;
    product_sums<MATRICES, NT> dot;
#pragma unroll
    for (int i = 0; i < MATRICES; i++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums.d[i][n][e] = dot.d[i][n][e] = 0.0f;
#pragma unroll 1
    while (s.k < stop) {
        int first = s.k / columns * columns;
        packed_unit<MATRICES> unit;
        cp_async_wait<ring::units - 1>();
        packed_take(s, unit);
#pragma unroll
        for (int part = 0; part < W::parts; part++) {
            int k = first + part * PRODUCT_BLOCK, next = k + PRODUCT_BLOCK;
            if (k < s.k || k >= stop)
                continue;
            uint32_t word[MATRICES][2];
            packed_block(s, unit, part, k, word, dot);
            if (next >= stop || (next & ((1 << s.rows.group_shift) - 1)) == 0)
                packed_scale<W>(sums, dot, word);
        }
        s.k = min(first + columns, stop);
        if (s.k == first + columns) {
            packed_fetch_weights(s, s.fetched, s.slot); /* where the unit just multiplied lay */
            packed_fetch_tokens(s, s.fetched++, s.slot);
            s.slot = (s.slot + 1) % ring::units;
        }
    }
}

#endif
