/*
 * Weights in other forms than the file's values, by inventory->mode. WEIGHTS_PACKED: quantised ones
 * for a backend that multiplies them as they are: the published values and scales, every one
 * exactly, in the order of struct cuda_format (worker/cuda/stages.h); what has no such form becomes
 * bf16. WEIGHTS_INT8 and WEIGHTS_INT4: matrices of any source in panels (panel.h), rounded. Pure;
 * any thread.
 */
#ifndef WITAN_PARTITION_WEIGHT_PACK_H
#define WITAN_PARTITION_WEIGHT_PACK_H

#include "partition/panel.h"
#include "partition/weight_read.h"

/* X(enumerator, words) */
#define WEIGHT_FORMS(X)                                                                            \
    X(FORM_VALUES, "values") /* weight->dtype, row-major */                                        \
    X(FORM_BF16, "BF16")     /* the same, rounded from fp32 */                                     \
    X(FORM_E4M3, "E4M3")                                                                           \
    X(FORM_INT4, "INT4")                                                                           \
    X(FORM_PANELS8, "8-bit panels") /* from the slice's first row on; for CPUs */                  \
    X(FORM_PANELS4, "4-bit panels")

enum weight_form {
#define X(form, words) form,
    WEIGHT_FORMS(X)
#undef X
};

const char *weight_form_name(enum weight_form form);

/*
 * Packed are: FP8 and 4-bit groups (scales of 16 bits) whose groups have a power of 2 of columns,
 * 32 at least, or all; of o_proj where head_dim is a multiple of 32, of gate and up where both are
 * quantised; and not in activation order (desc_act), where a group's columns lie anywhere.
 *
 * In panels are, of either mode, q, k, v, o, gate, up, down, embedding and lm_head, where their
 * columns are a multiple of PANEL_BLOCK, and of o_proj head_dim. What is not stays FORM_VALUES.
 */
enum weight_form weight_form(const struct inventory *inv, const struct weight *w);

/* 8 or 4; 0 of what is not in panels. */
static inline int weight_panel_bits(enum weight_form form)
{
    return form == FORM_PANELS8 ? 8 : form == FORM_PANELS4 ? 4 : 0;
}

/* `rows` x `cols` of a weight, from borders of its blocks on. */
struct weight_shape {
    enum weight_form form;
    int32_t group_shift,
        scale_rows;     /* packed: a scale is of 2^group_shift columns of so many rows */
    int64_t groups;     /* scales of a row */
    uint64_t row_bytes; /* in panels: of a panel, panel_bytes */
    uint64_t scales_at; /* from the first row on; in panels, which hold their own, the end */
    uint64_t used;      /* the last scale's end */
    uint64_t bytes;     /* packed and in panels: a multiple of 64 */
};
struct weight_shape weight_shape(const struct inventory *inv, const struct weight *w, int64_t rows,
                                 int64_t cols);

/*
 * The cut's rows (row_bytes each) and, of packed ones, their scales, from its bytes `staged` as
 * weight_convert takes them. The cut begins at a border of blocks and ends at one or at the edge.
 * ERR_INVALID where g_idx is not the order that desc_act false says. In panels its rows are panels'
 * from the first on: a slice is cut every multiple of PANEL_ROWS rows of its own, and columns at
 * multiples of PANEL_BLOCK; ERR_INVALID names row and column of the weight where a value is no
 * number, or above 2^100 in size.
 */
enum status weight_pack(const struct inventory *inv, const struct weight_cut *cut,
                        const void *staged, void *rows, void *scales, struct error *err);

#endif
