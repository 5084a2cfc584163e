/* Reading quantised weights: see weight_read.h. No state. */
#include "partition/weight_read.h"
#include "base/check.h"
#include "partition/weight_format.h"

#include <stdlib.h>
#include <string.h>

/* One call: where bytes come from, and memory that is given back at its end. */
struct reading {
    const struct checkpoint *ck;
    const struct quantization *quant;
    const struct weight *w;
    struct error *err;
    void *owned[4];
    int owned_count;
};

/* NULL, and the error set, when there is none. */
static void *take(struct reading *r, uint64_t count, size_t size)
{
    void *p = malloc(count ? count * size : 1);
    CHECK(r->owned_count < (int)COUNT_OF(r->owned), "%d buffers", r->owned_count);
    if (p)
        r->owned[r->owned_count++] = p;
    else
        error_set(r->err, ERR_NO_MEMORY, "no memory for %llu bytes of a quantised weight",
                  (unsigned long long)(count * size));
    return p;
}

/* `rows` runs of `run` bytes, `stride` apart, one after the other into `to`. */
static enum status read_runs(const struct reading *r, int file, uint64_t offset, uint64_t stride,
                             uint64_t run, int64_t rows, void *to)
{
    if (run == stride)
        return checkpoint_read(r->ck, file, offset, to, run * (uint64_t)rows, r->err);
    for (int64_t i = 0; i < rows; i++)
        TRY(checkpoint_read(r->ck, file, offset + (uint64_t)i * stride, (char *)to + i * run, run,
                            r->err));
    return OK;
}

/* The rectangle of `scales`, whose rows have `row` values, widened to fp32. */
static enum status read_scales(const struct reading *r, int64_t row, const struct quant_rect *rect,
                               float *to)
{
    const struct weight_part *p = &r->w->scales;
    size_t size = dtype_size(p->dtype), n = (size_t)rect->rows * (size_t)rect->cols;
    TRY(read_runs(r, p->file, p->offset + (uint64_t)(rect->row * row + rect->col) * size,
                  (uint64_t)row * size, (uint64_t)rect->cols * size, rect->rows, to));
    for (size_t i = n; p->dtype != DTYPE_F32 && i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const char *)to + i * sizeof half, sizeof half);
        to[i] = p->dtype == DTYPE_BF16 ? quant_bf16(half) : quant_f16(half);
    }
    return OK;
}

static enum status read_fp8(struct reading *r, const struct quant_rect *rect, float *out)
{
    const struct weight *w = r->w;
    int64_t block_rows = r->quant->block_rows, block_cols = r->quant->block_cols;
    int64_t first = rect->row / block_rows, end = (rect->row + rect->rows - 1) / block_rows + 1;
    int64_t across = (w->cols + block_cols - 1) / block_cols;
    uint8_t *values = take(r, (uint64_t)rect->rows * (uint64_t)rect->cols, 1);
    float *scales = take(r, (uint64_t)(end - first) * (uint64_t)across, sizeof *scales);
    if (!values || !scales)
        return ERR_NO_MEMORY;
    TRY(read_runs(r, w->file, w->offset + (uint64_t)rect->row * w->row_stride + rect->col,
                  w->row_stride, (uint64_t)rect->cols, rect->rows, values));
    TRY(read_scales(r, across, &(struct quant_rect){first, end - first, 0, across}, scales));
    const struct quant_fp8 view = {
        .values = values,
        .stride = rect->cols,
        .scales = scales + rect->col / block_cols,
        .scale_stride = across,
        .block_rows = block_rows,
        .block_cols = block_cols,
        .skip_rows = rect->row - first * block_rows,
        .skip_cols = rect->col % block_cols,
    };
    quant_fp8(&view, &(struct quant_rect){0, rect->rows, 0, rect->cols}, out);
    return OK;
}

/* --- groups ------------------------------------------------------------------------------------
 */

/* Groups of inputs [begin, begin + count) into `group`, less the first, and how many there are. */
static enum status read_order(const struct reading *r, int64_t begin, int64_t count, int32_t *group,
                              int64_t *first, int64_t *groups)
{
    const struct weight *w = r->w;
    int64_t size = r->quant->block_cols ? r->quant->block_cols : w->cols;
    int64_t all = (w->cols + size - 1) / size, low = all, high = 0;
    if (w->order.file >= 0)
        TRY(checkpoint_read(r->ck, w->order.file, w->order.offset + (uint64_t)begin * sizeof *group,
                            group, (size_t)count * sizeof *group, r->err));
    else
        for (int64_t i = 0; i < count; i++)
            group[i] = (int32_t)((begin + i) / size);
    for (int64_t i = 0; i < count; i++) {
        if (group[i] < 0 || group[i] >= all)
            return error_set(r->err, ERR_INVALID, "g_idx[%lld]: expected 0 to %lld, found %d",
                             (long long)(begin + i), (long long)all - 1, group[i]);
        low = group[i] < low ? group[i] : low;
        high = group[i] > high ? group[i] : high;
    }
    for (int64_t i = 0; i < count; i++)
        group[i] -= (int32_t)low;
    *first = low;
    *groups = high - low + 1;
    return OK;
}

static struct quant_rect widen(const struct quant_rect *rect, int64_t rows, int64_t cols)
{
    struct quant_rect out = {.row = rect->row / rows * rows, .col = rect->col / cols * cols};
    out.rows = (rect->row + rect->rows + rows - 1) / rows * rows - out.row;
    out.cols = (rect->col + rect->cols + cols - 1) / cols * cols - out.col;
    return out;
}

static enum status read_groups(struct reading *r, const struct quant_rect *rect, float *out)
{
    const struct weight *w = r->w;
    bool gptq = r->quant->format == FORMAT_GPTQ;
    int64_t a_word = 32 / r->quant->bits, first = 0, groups = 0;
    struct quant_rect wide = widen(rect, a_word, gptq ? a_word : 1);
    int64_t word = wide.row / a_word, words = wide.rows / a_word; /* of outputs */
    /* qweight: rows of words of inputs (GPTQ) or of inputs; columns of outputs or their words. */
    struct quant_rect q = gptq ? (struct quant_rect){wide.col / a_word, wide.cols / a_word,
                                                     wide.row, wide.rows}
                               : (struct quant_rect){wide.col, wide.cols, word, words};
    int32_t *group = take(r, (uint64_t)wide.cols, sizeof *group);
    if (!group)
        return ERR_NO_MEMORY;
    TRY(read_order(r, wide.col, wide.cols, group, &first, &groups));
    uint32_t *qweight = take(r, (uint64_t)q.rows * (uint64_t)q.cols, sizeof *qweight);
    uint32_t *qzeros = take(r, (uint64_t)groups * (uint64_t)words, sizeof *qzeros);
    float *scales = take(r, (uint64_t)groups * (uint64_t)wide.rows, sizeof *scales);
    if (!qweight || !qzeros || !scales)
        return ERR_NO_MEMORY;
    TRY(read_runs(r, w->file, w->offset + (uint64_t)q.row * w->row_stride + (uint64_t)q.col * 4,
                  w->row_stride, (uint64_t)q.cols * 4, q.rows, qweight));
    uint64_t zero_row = (uint64_t)(w->rows / a_word) * 4;
    TRY(read_runs(r, w->zeros.file, w->zeros.offset + (uint64_t)first * zero_row + word * 4,
                  zero_row, (uint64_t)words * 4, groups, qzeros));
    TRY(read_scales(r, w->rows, &(struct quant_rect){first, groups, wide.row, wide.rows}, scales));
    const struct quant_groups view = {
        .packing = gptq ? QUANT_GPTQ : QUANT_AWQ,
        .bits = r->quant->bits,
        .qweight = qweight,
        .qzeros = qzeros,
        .scales = scales,
        .outputs = wide.rows,
        .group = group,
    };
    quant_groups(
        &view,
        &(struct quant_rect){rect->row - wide.row, rect->rows, rect->col - wide.col, rect->cols},
        out);
    return OK;
}

/* --- GGML's blocks -----------------------------------------------------------------------------
 */

static enum status read_ggml(struct reading *r, const struct quant_rect *rect, float *out)
{
    const struct weight *w = r->w;
    const struct ggml_layout *l = ggml_layout((uint32_t)w->ggml);
    struct quant_rect wide = widen(rect, 1, l->elements);
    uint64_t run = (uint64_t)(wide.cols / l->elements) * (uint64_t)l->bytes;
    uint64_t skip = (uint64_t)(wide.col / l->elements) * (uint64_t)l->bytes;
    uint8_t *blocks = take(r, run * (uint64_t)rect->rows, 1);
    if (!blocks)
        return ERR_NO_MEMORY;
    TRY(read_runs(r, w->file, w->offset + (uint64_t)rect->row * w->row_stride + skip, w->row_stride,
                  run, rect->rows, blocks));
    for (int64_t i = 0; i < rect->rows; i++)
        quant_ggml_row(w->ggml, blocks + (uint64_t)i * run, rect->col - wide.col, rect->cols,
                       out + i * rect->cols);
    return OK;
}

enum status weight_read(const struct checkpoint *ck, const struct inventory *inv,
                        const struct weight *w, const struct quant_rect *rect, float *out,
                        struct error *err)
{
    struct reading r = {.ck = ck, .quant = &inv->quant, .w = w, .err = err};
    CHECK(rect->row >= 0 && rect->row + rect->rows <= w->rows && rect->rows > 0, "rows");
    CHECK(rect->col >= 0 && rect->col + rect->cols <= w->cols && rect->cols > 0, "columns");
    enum status st = OK;
    switch (w->store) {
    case STORE_PLAIN:
        CHECK(false, "a plain weight is read as it is");
    case STORE_FP8:
        st = read_fp8(&r, rect, out);
        break;
    case STORE_GROUPS:
        st = read_groups(&r, rect, out);
        break;
    case STORE_GGML:
        st = read_ggml(&r, rect, out);
        break;
    }
    for (int i = 0; i < r.owned_count; i++)
        free(r.owned[i]);
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
