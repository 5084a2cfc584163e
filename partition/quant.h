/*
 * Quantised weights to fp32, value for value: what the formats' own readers give, bit for bit. Pure
 * functions over blocks in memory, for any rectangle of a matrix; no state, any thread.
 *
 * A matrix is [rows, cols] = [outputs, inputs] here whatever order its file has. Every function
 * writes rect->rows x rect->cols values, densely, to `out`. All integers are little-endian as in
 * the files.
 */
#ifndef WITAN_PARTITION_QUANT_H
#define WITAN_PARTITION_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct quant_rect {
    int64_t row, rows;
    int64_t col, cols;
};

/* --- floating point ----------------------------------------------------------------------------
 */

float quant_bf16(uint16_t h);
float quant_f16(uint16_t h); /* IEEE 754 binary16, subnormals included */

/* OCP FP8 E4M3 ("e4m3fn"): bias 7, no infinities, 0x7f and 0xff are NaN, largest 448. */
float quant_e4m3(uint8_t v);

/*
 * FP8 in blocks, as DeepSeek-V3 and Qwen3-FP8 publish it: `weight` of e4m3 and `weight_scale_inv`
 * with one fp32 (or bf16, widened) factor for each block of block_rows x block_cols, the last ones
 * cut short. value = e4m3 x factor, one rounding to fp32.
 */
struct quant_fp8 {
    const uint8_t *values; /* of (row 0, col 0) of the view that rects address */
    int64_t stride;        /* bytes from a row to the next */
    const float *scales;   /* [.., scale_stride]: of that view's first block */
    int64_t scale_stride;
    int64_t block_rows, block_cols;
    int64_t skip_rows, skip_cols; /* rows and columns of the first block that lie before the view */
};

void quant_fp8(const struct quant_fp8 *m, const struct quant_rect *rect, float *out);

/* --- integers in groups of inputs --------------------------------------------------------------
 */

enum quant_packing { QUANT_GPTQ, QUANT_AWQ };

/*
 * Unsigned integers of `bits` in words of 32 bits, the first in the lowest bits:
 *   value = scale[group, output] x (q[input, output] - zero[group, output]), exact in fp32 for
 *   scales of 16 bits.
 * GPTQ (AutoGPTQ, format "gptq"): a word of qweight [inputs / (32 / bits), outputs] holds
 * consecutive inputs; qzeros [groups, outputs / (32 / bits)] hold consecutive outputs' zeros minus
 * one. The group of an input is g_idx[input] where there is one, else input / group_size.
 * AWQ (AutoAWQ, version "gemm", 4 bits): words of both qweight [inputs, outputs / 8] and qzeros
 * [groups, outputs / 8] hold outputs in the order 0, 2, 4, 6, 1, 3, 5, 7; zeros are as they are.
 * Scales are [groups, outputs] in both.
 */
struct quant_groups {
    enum quant_packing packing;
    int32_t bits; /* 4; GPTQ: or 8 */
    /* A view whose first input and output lie on the borders of words. */
    const uint32_t *qweight;
    const uint32_t *qzeros;
    const float *scales;
    int64_t outputs;      /* of the view: the row lengths of all three follow */
    const int32_t *group; /* [inputs of the view]: row of qzeros and scales, each within them */
};

void quant_groups(const struct quant_groups *m, const struct quant_rect *rect, float *out);

/* --- GGML's blocks -----------------------------------------------------------------------------
 */

/* Numbers as GGUF files carry them (ggml_type). */
enum ggml_type {
    GGML_F32 = 0,
    GGML_F16 = 1,
    GGML_Q4_0 = 2,
    GGML_Q8_0 = 8,
    GGML_Q4_K = 12,
    GGML_Q5_K = 13,
    GGML_Q6_K = 14,
    GGML_BF16 = 30,
};

enum { GGML_MAX_BLOCK = 256 };

struct ggml_layout {
    const char *name;
    int32_t elements; /* of a block, consecutive in a row */
    int32_t bytes;
};

/* NULL for a type that this build does not read. */
const struct ggml_layout *ggml_layout(uint32_t type);

/*
 * Columns [col, col + cols) of one row, whose blocks begin at `row`. value, all in fp32:
 *   Q8_0  d x q                     q int8, d fp16 for 32
 *   Q4_0  d x (q - 8)               q 4 bits
 *   Q4_K  (d x s) x q - (dmin x m)  q 4 bits, s and m 6 bits for 32, d and dmin fp16 for 256
 *   Q5_K  the same with q of 5 bits
 *   Q6_K  (d x s) x (q - 32)        q 6 bits, s int8 for 16, d fp16 for 256
 * Only the subtraction of Q4_K and Q5_K rounds.
 */
void quant_ggml_row(enum ggml_type type, const void *row, int64_t col, int64_t cols, float *out);

#endif
