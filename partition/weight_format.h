/*
 * Quantised checkpoints: what a config.json's quantization_config says, which weights it covers,
 * what a cut of them weighs, and where a cut may lie. Pure; any thread.
 *
 * Formats, all of Hugging Face Transformers' quantization_config:
 *   fp8   e4m3 with one fp32 scale for each block of weight_block_size [rows, columns]
 *         (`weight_scale_inv`, bf16 in some exports); activations quantised as they come.
 *   gptq  `qweight` (32 / bits columns a word), `scales` (fp16) and `qzeros` for each group of
 *         group_size columns of a row (32 / bits rows of zeros a word), `g_idx` (a group's number
 *         for each column).
 *   awq   the same without g_idx, with 32 / bits rows a word of qweight.
 * Embedding, lm_head, norms and router are never quantised: a file that says otherwise is refused.
 */
#ifndef WITAN_PARTITION_WEIGHT_FORMAT_H
#define WITAN_PARTITION_WEIGHT_FORMAT_H

#include "base/json.h"
#include "partition/inventory.h"

/* "plain", "fp8", "gptq", "awq". */
const char *weight_format_name(enum weight_format format);

/* Fills c->quant from the quantization_config of `root`, a config.json; none or null is plain. What
 * this build cannot read is refused in one line naming field, expected and found. `c` has its
 * layers and their kinds already. */
enum status weight_format_parse(const char *what, const json_t *root, struct model_config *c,
                                struct error *err);

/* Is the weight of this role and layer stored quantised? */
bool weight_format_covers(const struct quantization *q, enum weight_role role, int32_t layer);

/* May a cut lie after the first `at` of `total` rows (or columns) of a covered weight? */
bool weight_format_row_border(const struct quantization *q, int64_t at, int64_t total);
bool weight_format_column_border(const struct quantization *q, int64_t at, int64_t total);

/* Rows, or columns, of a block, for messages; 0 when no cut is possible. */
int32_t weight_format_block_rows(const struct quantization *q);
int32_t weight_format_block_columns(const struct quantization *q);

/* Bytes of rows [row, row + rows) and columns [col, col + cols) of a covered weight, with the
 * scales, zeros and indices that belong to them. */
uint64_t weight_format_bytes(const struct quantization *q, int64_t row, int64_t rows, int64_t col,
                             int64_t cols);

#endif
