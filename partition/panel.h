/*
 * Panels: weights of 8 and 4 bits in the order in which the CPU's kernels take them.
 *
 * A matrix [rows, cols] is cut into panels of PANEL_ROWS rows, and a panel into blocks of
 * PANEL_BLOCK columns. In a block each row has a scale and a code for each column, and
 *
 *   weight[row][col] = scale[block][row] * code[block][row][col]      (fp32; code in [-127, 127])
 *
 * A panel lies in memory as
 *
 *   scales   bf16 [blocks][PANEL_ROWS], up to a multiple of 64 bytes
 *   codes    [blocks][PANEL_QUADS][PANEL_ROWS][4]: a quad is 4 columns of each row, 64 bytes
 *
 * In 8 bits a code is the byte code + 128. In 4 bits it is an index into panel_codebook, whose
 * entries are such bytes; quads 2i and 2i + 1 of a block share 64 bytes, the first in the lower
 * halves. Rows past the matrix, and blocks of zeros, have scale 0 and bytes PANEL_ZERO8 or
 * PANEL_ZERO4.
 *
 * Bits a weight: 8.5 and 4.5. A row's scales and codes do not depend on how the matrix is cut by
 * rows, or by columns at multiples of PANEL_BLOCK: every layout has the same values.
 */
#ifndef WITAN_PARTITION_PANEL_H
#define WITAN_PARTITION_PANEL_H

#include <stdint.h>

enum {
    PANEL_ROWS = 16,
    PANEL_BLOCK = 32, /* columns that share a scale */
    PANEL_QUADS = PANEL_BLOCK / 4,
    PANEL_BLOCK8 = PANEL_ROWS * PANEL_BLOCK,     /* bytes of a block's codes in 8 bits */
    PANEL_BLOCK4 = PANEL_ROWS * PANEL_BLOCK / 2, /* in 4 bits */
    PANEL_ZERO8 = 128,
    PANEL_ZERO4 = 0x77, /* two of the index that is nearest to code 0 */
};

static inline int32_t panel_blocks(int32_t cols)
{
    return (cols + PANEL_BLOCK - 1) / PANEL_BLOCK;
}

static inline int32_t panel_count(int32_t rows)
{
    return (rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* Bytes of a panel's scales, and of a panel; `bits` 8 or 4. */
static inline uint64_t panel_scale_bytes(int32_t cols)
{
    uint64_t bytes = (uint64_t)panel_blocks(cols) * PANEL_ROWS * 2;
    return (bytes + 63) / 64 * 64;
}

static inline uint64_t panel_bytes(int32_t cols, int bits)
{
    uint64_t block = bits == 4 ? PANEL_BLOCK4 : PANEL_BLOCK8;
    return panel_scale_bytes(cols) + (uint64_t)panel_blocks(cols) * block;
}

/* What the panels' kernels take for one thread beside it: two panels' codes in 8 bits, and
 * PANEL_PREPARED rows of activations in the order of worker/cpu/dot.h. */
enum { PANEL_PREPARED = 64 };

static inline uint64_t panel_scratch_codes(int32_t cols)
{
    return 2 * (uint64_t)panel_blocks(cols) * PANEL_BLOCK8;
}

static inline uint64_t panel_scratch_bytes(int32_t cols)
{
    return panel_scratch_codes(cols) +
           PANEL_PREPARED * (uint64_t)panel_blocks(cols) * PANEL_BLOCK * 2;
}

/* Codes of 4 bits as bytes code + 128, ascending. */
extern const uint8_t panel_codebook[16];

/*
 * Makes a panel, on a border of 2, of x [rows, cols]: at most PANEL_ROWS rows of a multiple of
 * PANEL_BLOCK columns; `bits` 8 or 4. In 8 bits a block's largest value is a code of 120 to 127
 * in size; in 4 bits scales have either sign. Scale and codes are those of the least squared error
 * among scales tried. A block whose values are all below 2^-100 becomes zeros. Returns -1, or where
 * x has its first NaN or value above 2^100 in size; the panel is then any. Pure; any thread.
 */
int64_t panel_pack(const float *x, int32_t rows, int32_t cols, int bits, void *panel);

/* Row `row` of a panel as out[cols]. */
void panel_row(const void *panel, int32_t row, int32_t cols, int bits, float *out);

#endif
