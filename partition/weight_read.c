/* Cuts of weights: see weight_read.h. No state. */
#include "partition/weight_read.h"
#include "base/check.h"
#include "partition/weight_format.h"

#include <stdlib.h>
#include <string.h>

static struct weight_piece *add_piece(struct weight_cut *cut, int file, uint64_t offset,
                                      uint64_t stride, uint64_t run, int64_t rows)
{
    CHECK(cut->count < WEIGHT_MAX_PIECES, "%d pieces", cut->count);
    struct weight_piece *p = &cut->pieces[cut->count++];
    *p = (struct weight_piece){file, offset, stride, run, rows, cut->bytes};
    if (run == stride) { /* all of it is one run */
        p->stride = p->run = run * (uint64_t)rows;
        p->rows = 1;
    }
    cut->bytes += (run * (uint64_t)rows + 7) / 8 * 8;
    return p;
}

static struct quant_rect widen(const struct quant_rect *rect, int64_t rows, int64_t cols)
{
    struct quant_rect out = {.row = rect->row / rows * rows, .col = rect->col / cols * cols};
    out.rows = (rect->row + rect->rows + rows - 1) / rows * rows - out.row;
    out.cols = (rect->col + rect->cols + cols - 1) / cols * cols - out.col;
    return out;
}

/* --- scales ------------------------------------------------------------------------------------
 */

/* The rectangle of scales, whose rows have `row` values. */
static void add_scales(struct weight_cut *cut, int64_t row, const struct quant_rect *rect)
{
    const struct weight_part *p = &cut->weight->scales;
    size_t size = dtype_size(p->dtype);
    add_piece(cut, p->file, p->offset + (uint64_t)(rect->row * row + rect->col) * size,
              (uint64_t)row * size, (uint64_t)rect->cols * size, rect->rows);
}

static float half_of(enum dtype dtype, uint16_t h)
{
    return dtype == DTYPE_BF16 ? quant_bf16(h) : quant_f16(h);
}

static void widen_values(enum dtype dtype, const void *from, float *to, int64_t count)
{
    if (dtype == DTYPE_F32) {
        memcpy(to, from, (size_t)count * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, (const char *)from + (size_t)i * sizeof half, sizeof half);
        to[i] = half_of(dtype, half);
    }
}

/* `count` scales as fp32: NULL, and the error set, when there is no memory. */
static float *scales_of(const struct weight *w, const void *staged, int64_t count,
                        struct error *err)
{
    float *scales = malloc((size_t)count * sizeof *scales);
    if (scales)
        widen_values(w->scales.dtype, staged, scales, count);
    else
        error_set(err, ERR_NO_MEMORY, "no memory for %lld scales", (long long)count);
    return scales;
}

/* --- FP8 ---------------------------------------------------------------------------------------
 */

/* The rectangle of blocks that the cut touches; all columns of them. */
static struct quant_rect fp8_blocks(const struct quantization *q, const struct weight_cut *cut)
{
    const struct quant_rect *rect = &cut->rect;
    int64_t first = rect->row / q->block_rows;
    int64_t end = (rect->row + rect->rows - 1) / q->block_rows + 1;
    int64_t across = (cut->weight->cols + q->block_cols - 1) / q->block_cols;
    return (struct quant_rect){first, end - first, 0, across};
}

static void cut_fp8(const struct quantization *q, struct weight_cut *cut)
{
    const struct weight *w = cut->weight;
    const struct quant_rect *rect = &cut->rect;
    struct quant_rect blocks = fp8_blocks(q, cut);
    add_piece(cut, w->file, w->offset + (uint64_t)rect->row * w->row_stride + rect->col,
              w->row_stride, (uint64_t)rect->cols, rect->rows);
    add_scales(cut, blocks.cols, &blocks);
}

static enum status convert_fp8(const struct quantization *q, const struct weight_cut *cut,
                               const char *staged, float *out, struct error *err)
{
    const struct quant_rect *rect = &cut->rect;
    struct quant_rect blocks = fp8_blocks(q, cut);
    float *scales = scales_of(cut->weight, staged + cut->pieces[1].at, blocks.rows * blocks.cols,
                              err);
    if (!scales)
        return ERR_NO_MEMORY;
    const struct quant_fp8 view = {
        .values = (const uint8_t *)staged + cut->pieces[0].at,
        .stride = rect->cols,
        .scales = scales + rect->col / q->block_cols,
        .scale_stride = blocks.cols,
        .block_rows = q->block_rows,
        .block_cols = q->block_cols,
        .skip_rows = rect->row - blocks.row * q->block_rows,
        .skip_cols = rect->col % q->block_cols,
    };
    quant_fp8(&view, &(struct quant_rect){0, rect->rows, 0, rect->cols}, out);
    free(scales);
    return OK;
}

/* --- groups ------------------------------------------------------------------------------------
 */

/* Pieces in this order; the last only where there is one. */
enum { GROUP_QWEIGHT, GROUP_QZEROS, GROUP_SCALES, GROUP_ORDER };

/* What a cut of a weight in groups needs of it. */
struct group_view {
    bool gptq;
    int64_t a_word;         /* integers of a word */
    int64_t size;           /* inputs of a group */
    struct quant_rect wide; /* the rectangle up to borders of words */
    int64_t first, groups;
};

static struct group_view group_view(const struct quantization *q, const struct weight_cut *cut)
{
    const struct weight *w = cut->weight;
    struct group_view v = {.gptq = q->format == FORMAT_GPTQ,
                           .a_word = 32 / q->bits,
                           .size = q->block_cols ? q->block_cols : w->cols};
    v.wide = widen(&cut->rect, v.a_word, v.gptq ? v.a_word : 1);
    v.groups = (w->cols + v.size - 1) / v.size;
    if (w->order.file < 0) { /* else any input may be of any group */
        v.first = v.wide.col / v.size;
        v.groups = (v.wide.col + v.wide.cols - 1) / v.size + 1 - v.first;
    }
    return v;
}

static void cut_groups(const struct quantization *q, struct weight_cut *cut)
{
    const struct weight *w = cut->weight;
    struct group_view v = group_view(q, cut);
    int64_t word = v.wide.row / v.a_word, words = v.wide.rows / v.a_word; /* of outputs */
    /* qweight: rows of words of inputs (GPTQ) or of inputs; columns of outputs or their words. */
    struct quant_rect qw = v.gptq
                               ? (struct quant_rect){v.wide.col / v.a_word, v.wide.cols / v.a_word,
                                                     v.wide.row, v.wide.rows}
                               : (struct quant_rect){v.wide.col, v.wide.cols, word, words};
    add_piece(cut, w->file, w->offset + (uint64_t)qw.row * w->row_stride + (uint64_t)qw.col * 4,
              w->row_stride, (uint64_t)qw.cols * 4, qw.rows);
    uint64_t zero_row = (uint64_t)(w->rows / v.a_word) * 4;
    add_piece(cut, w->zeros.file,
              w->zeros.offset + (uint64_t)v.first * zero_row + (uint64_t)word * 4, zero_row,
              (uint64_t)words * 4, v.groups);
    add_scales(cut, w->rows, &(struct quant_rect){v.first, v.groups, v.wide.row, v.wide.rows});
    if (w->order.file >= 0) {
        uint64_t run = (uint64_t)v.wide.cols * sizeof(int32_t);
        add_piece(cut, w->order.file, w->order.offset + (uint64_t)v.wide.col * sizeof(int32_t), run,
                  run, 1);
    }
}

/* The group of each input of the view, less the first group. */
static enum status fill_groups(const struct group_view *v, const int32_t *order, int32_t *group,
                               struct error *err)
{
    for (int64_t i = 0; i < v->wide.cols; i++) {
        group[i] = order ? order[i] : (int32_t)((v->wide.col + i) / v->size - v->first);
        if (group[i] < 0 || group[i] >= v->groups)
            return error_set(err, ERR_INVALID, "g_idx[%lld]: expected 0 to %lld, found %d",
                             (long long)(v->wide.col + i), (long long)v->groups - 1, group[i]);
    }
    return OK;
}

static enum status convert_groups(const struct quantization *q, const struct weight_cut *cut,
                                  const char *staged, float *out, struct error *err)
{
    const struct weight *w = cut->weight;
    const struct quant_rect *rect = &cut->rect;
    struct group_view v = group_view(q, cut);
    const void *order = w->order.file >= 0 ? staged + cut->pieces[GROUP_ORDER].at : NULL;
    int32_t *group = malloc((size_t)v.wide.cols * sizeof *group);
    float *scales = scales_of(w, staged + cut->pieces[GROUP_SCALES].at, v.groups * v.wide.rows,
                              err);
    enum status st = ERR_NO_MEMORY;
    if (!group)
        error_set(err, st, "no memory for %lld groups", (long long)v.wide.cols);
    else if (scales)
        st = fill_groups(&v, order, group, err);
    if (st == OK) {
        const struct quant_groups view = {
            .packing = v.gptq ? QUANT_GPTQ : QUANT_AWQ,
            .bits = q->bits,
            .qweight = (const void *)(staged + cut->pieces[GROUP_QWEIGHT].at),
            .qzeros = (const void *)(staged + cut->pieces[GROUP_QZEROS].at),
            .scales = scales,
            .outputs = v.wide.rows,
            .group = group,
        };
        quant_groups(&view,
                     &(struct quant_rect){rect->row - v.wide.row, rect->rows,
                                          rect->col - v.wide.col, rect->cols},
                     out);
    }
    free(scales);
    free(group);
    return st;
}

/* --- GGML's blocks -----------------------------------------------------------------------------
 */

static void cut_ggml(struct weight_cut *cut)
{
    const struct weight *w = cut->weight;
    const struct ggml_layout *l = ggml_layout((uint32_t)w->ggml);
    struct quant_rect wide = widen(&cut->rect, 1, l->elements);
    uint64_t run = (uint64_t)(wide.cols / l->elements) * (uint64_t)l->bytes;
    uint64_t skip = (uint64_t)(wide.col / l->elements) * (uint64_t)l->bytes;
    add_piece(cut, w->file, w->offset + (uint64_t)wide.row * w->row_stride + skip, w->row_stride,
              run, wide.rows);
}

static void convert_ggml(const struct weight_cut *cut, const char *staged, float *out)
{
    const struct quant_rect *rect = &cut->rect;
    const struct ggml_layout *l = ggml_layout((uint32_t)cut->weight->ggml);
    struct quant_rect wide = widen(rect, 1, l->elements);
    int64_t run = wide.cols / l->elements * l->bytes;
    for (int64_t i = 0; i < rect->rows; i++)
        quant_ggml_row(cut->weight->ggml, staged + i * run, rect->col - wide.col, rect->cols,
                       out + i * rect->cols);
}

/* --- all of them -------------------------------------------------------------------------------
 */

struct weight_cut weight_cut(const struct inventory *inv, const struct weight *w,
                             const struct quant_rect *rect)
{
    struct weight_cut cut = {.weight = w, .rect = *rect};
    size_t each = dtype_size(w->dtype);
    CHECK(rect->row >= 0 && rect->row + rect->rows <= w->rows && rect->rows > 0, "rows");
    CHECK(rect->col >= 0 && rect->col + rect->cols <= w->cols && rect->cols > 0, "columns");
    switch (w->store) {
    case STORE_PLAIN:
        add_piece(&cut, w->file,
                  w->offset + (uint64_t)rect->row * w->row_stride + (uint64_t)rect->col * each,
                  w->row_stride, (uint64_t)rect->cols * each, rect->rows);
        break;
    case STORE_FP8:
        cut_fp8(&inv->quant, &cut);
        break;
    case STORE_GROUPS:
        cut_groups(&inv->quant, &cut);
        break;
    case STORE_GGML:
        cut_ggml(&cut);
        break;
    }
    return cut;
}

enum status weight_convert(const struct inventory *inv, const struct weight_cut *cut,
                           const void *staged, float *out, struct error *err)
{
    const struct weight *w = cut->weight;
    switch (w->store) {
    case STORE_PLAIN:
        widen_values(w->dtype, staged, out, cut->rect.rows * cut->rect.cols);
        return OK;
    case STORE_FP8:
        return convert_fp8(&inv->quant, cut, staged, out, err);
    case STORE_GROUPS:
        return convert_groups(&inv->quant, cut, staged, out, err);
    case STORE_GGML:
        convert_ggml(cut, staged, out);
        break;
    }
    return OK;
}

enum status weight_read(const struct checkpoint *ck, const struct inventory *inv,
                        const struct weight *w, const struct quant_rect *rect, float *out,
                        struct error *err)
{
    struct weight_cut cut = weight_cut(inv, w, rect);
    char *staged = malloc(cut.bytes);
    enum status st = OK;
    if (!staged)
        st = error_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of a weight", cut.bytes);
    for (int i = 0; i < cut.count; i++) {
        const struct weight_piece *p = &cut.pieces[i];
        for (int64_t r = 0; st == OK && r < p->rows; r++)
            st = checkpoint_read(ck, p->file, p->offset + (uint64_t)r * p->stride,
                                 staged + p->at + (uint64_t)r * p->run, p->run, err);
    }
    if (st == OK)
        st = weight_convert(inv, &cut, staged, out, err);
    free(staged);
    return st;
}

uint64_t weight_stored_bytes(const struct inventory *inv, const struct weight *w,
                             const struct quant_rect *rect)
{
    if (w->quantized)
        return weight_format_bytes(&inv->quant, rect->row, rect->rows, rect->col, rect->cols);
    if (w->store != STORE_GGML)
        return (uint64_t)rect->rows * (uint64_t)rect->cols * dtype_size(w->dtype);
    const struct ggml_layout *l = ggml_layout((uint32_t)w->ggml);
    struct quant_rect wide = widen(rect, 1, l->elements);
    return (uint64_t)(wide.rows * (wide.cols / l->elements)) * (uint64_t)l->bytes;
}
