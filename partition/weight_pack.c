/* Packed weights, and panels: see weight_pack.h. No state. */
#include "partition/weight_pack.h"
#include "base/check.h"
#include "partition/weight_format.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 32,        /* columns that the tensor cores take at once */
    PIECE = 8,         /* of them a lane's */
    UNIT = 64,         /* bytes: a piece of 16 for each of four lanes */
    WHOLE_ROW = 30,    /* group_shift */
    INT4_MAX_ZERO = 31 /* what the lowest bits of a scale's word hold */
};

const char *weight_form_name(enum weight_form form)
{
    static const char *const names[] = {
#define X(form, words) words,
        WEIGHT_FORMS(X)
#undef X
    };
    return names[form];
}

/* -1: no power of 2, or too small. */
static int32_t group_shift(const struct quantization *q)
{
    int32_t shift = 5;
    if (q->block_cols == 0)
        return WHOLE_ROW;
    while (shift < WHOLE_ROW && 1 << shift < q->block_cols)
        shift++;
    return 1 << shift == q->block_cols ? shift : -1;
}

static enum weight_form panels_form(const struct inventory *inv, const struct weight *w)
{
    bool table = w->role == WEIGHT_EMBED || w->role == WEIGHT_LM_HEAD;
    if (weight_role_is_vector(w->role) || w->role == WEIGHT_ROUTER || w->cols % PANEL_BLOCK != 0 ||
        (w->role == WEIGHT_O && inv->head_dim % PANEL_BLOCK != 0))
        return FORM_VALUES;
    return inv->mode == WEIGHTS_INT8 || table ? FORM_PANELS8 : FORM_PANELS4;
}

enum weight_form weight_form(const struct inventory *inv, const struct weight *w)
{
    const struct quantization *q = &inv->quant;
    if (inv->mode == WEIGHTS_INT8 || inv->mode == WEIGHTS_INT4)
        return panels_form(inv, w);
    if (inv->mode == WEIGHTS_PUBLISHED || !w->quantized)
        return FORM_VALUES;
    bool whole =
        true; /* what is multiplied with it in one go is packed too, and leaves are whole */
    if (w->role == WEIGHT_GATE || w->role == WEIGHT_UP)
        whole = weight_format_covers(q, WEIGHT_GATE, w->layer) &&
                weight_format_covers(q, WEIGHT_UP, w->layer);
    else if (w->role == WEIGHT_O)
        whole = inv->head_dim % BLOCK == 0;
    if (!whole || group_shift(q) < 0 || q->act_order)
        return FORM_BF16;
    if (q->format == FORMAT_FP8)
        return FORM_E4M3;
    return q->bits == 4 && (w->file < 0 || w->scales.dtype != DTYPE_F32) ? FORM_INT4 : FORM_BF16;
}

/* Columns of a unit. */
static int64_t unit_columns(enum weight_form form)
{
    return form == FORM_E4M3 ? UNIT : 2 * UNIT;
}

static int64_t cut_up(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}

struct weight_shape weight_shape(const struct inventory *inv, const struct weight *w, int64_t rows,
                                 int64_t cols)
{
    struct weight_shape s = {.form = weight_form(inv, w)};
    if (s.form == FORM_VALUES || s.form == FORM_BF16) {
        size_t each = s.form == FORM_BF16 ? sizeof(uint16_t) : dtype_size(w->dtype);
        s.row_bytes = (uint64_t)cols * each;
        s.scales_at = s.used = s.bytes = (uint64_t)rows * s.row_bytes;
        return s;
    }
    if (weight_panel_bits(s.form)) {
        s.row_bytes = panel_bytes((int32_t)cols, weight_panel_bits(s.form));
        s.scales_at = s.used = s.bytes = (uint64_t)panel_count((int32_t)rows) * s.row_bytes;
        return s;
    }
    s.group_shift = group_shift(&inv->quant);
    s.scale_rows = s.form == FORM_E4M3 ? inv->quant.block_rows : 1;
    s.groups = cut_up(cols, (int64_t)1 << s.group_shift);
    s.row_bytes = (uint64_t)cut_up(cols, unit_columns(s.form)) * UNIT;
    s.scales_at = (uint64_t)rows * s.row_bytes;
    s.used = s.scales_at + (uint64_t)(cut_up(rows, s.scale_rows) * s.groups) * sizeof(uint32_t);
    s.bytes = (s.used + UNIT - 1) / UNIT * UNIT;
    return s;
}

/* --- rows --------------------------------------------------------------------------------------
 */

/* Where a column's block and lane have their word in the row: those of 8 elements in 4 bits, the
 * first of two of 4 elements in e4m3. */
static uint8_t *word_of(uint8_t *row, enum weight_form form, int64_t col)
{
    int64_t columns = unit_columns(form), block = col % columns / BLOCK, lane = col % BLOCK / PIECE;
    return row + col / columns * UNIT + lane * (UNIT / 4) + block * (form == FORM_E4M3 ? 8 : 4);
}

static void put_e4m3(uint8_t *row, int64_t col, uint8_t code)
{
    static const uint8_t place[] = {0, 2, 1, 3};
    word_of(row, FORM_E4M3, col)[col % PIECE / 4 * 4 + place[col % 4]] = code;
}

static void put_int4(uint8_t *row, int64_t col, uint32_t code)
{
    int64_t i = col % PIECE;
    word_of(row, FORM_INT4, col)[i / 4 + i % 2 * 2] |= (uint8_t)(code << i / 2 % 2 * 4);
}

/* --- FP8 ---------------------------------------------------------------------------------------
 */

static float scale_of(enum dtype dtype, const void *from, int64_t i)
{
    uint16_t half;
    float f;
    if (dtype == DTYPE_F32) {
        memcpy(&f, (const char *)from + (size_t)i * sizeof f, sizeof f);
        return f;
    }
    memcpy(&half, (const char *)from + (size_t)i * sizeof half, sizeof half);
    return dtype == DTYPE_BF16 ? quant_bf16(half) : quant_f16(half);
}

static void pack_fp8(const struct quantization *q, const struct weight_cut *cut,
                     const struct weight_shape *s, const char *staged, uint8_t *rows, float *scales)
{
    const struct quant_rect *rect = &cut->rect;
    const uint8_t *codes = (const uint8_t *)staged + cut->pieces[0].at;
    const char *from = staged + cut->pieces[1].at;
    int64_t across = cut_up(cut->weight->cols, q->block_cols), skip = rect->col / q->block_cols;
    for (int64_t r = 0; r < rect->rows; r++)
        for (int64_t c = 0; c < rect->cols; c++)
            put_e4m3(rows + (uint64_t)r * s->row_bytes, c, codes[r * rect->cols + c]);
    for (int64_t b = 0; b < cut_up(rect->rows, q->block_rows); b++)
        for (int64_t g = 0; g < s->groups; g++)
            scales[b * s->groups + g] = scale_of(cut->weight->scales.dtype, from,
                                                 b * across + skip + g);
}

/* --- groups of 4 bits --------------------------------------------------------------------------
 */

/* Pieces as weight_read.c cuts them. */
enum { GROUP_QWEIGHT, GROUP_QZEROS, GROUP_SCALES, GROUP_ORDER };

static enum status check_order(const struct weight_cut *cut, const char *staged, int64_t size,
                               struct error *err)
{
    for (int64_t i = 0; cut->weight->order.file >= 0 && i < cut->rect.cols; i++) {
        int32_t found;
        memcpy(&found, staged + cut->pieces[GROUP_ORDER].at + (size_t)i * sizeof found,
               sizeof found);
        int64_t at = cut->rect.col + i;
        if (found != at / size)
            return error_set(err, ERR_INVALID,
                             "g_idx[%lld]: expected %lld, since desc_act is false, found %d",
                             (long long)at, (long long)(at / size), found);
    }
    return OK;
}

/* Words of the cut's rows, of the integers of an input (AWQ) or of eight (GPTQ). */
static uint32_t word_at(const char *words, int64_t i)
{
    uint32_t word;
    memcpy(&word, words + (size_t)i * sizeof word, sizeof word);
    return word;
}

static uint32_t word_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* The cut's rows lie in whole words; with g_idx the scales of all groups were read. */
static enum status pack_groups(const struct quantization *q, const struct weight_cut *cut,
                               const struct weight_shape *s, const char *staged, uint8_t *rows,
                               uint32_t *scales, struct error *err)
{
    enum { A_WORD = 8 };
    static const int awq_place[] = {0, 4, 1, 5, 2, 6, 3, 7};
    const struct weight *w = cut->weight;
    const struct quant_rect *rect = &cut->rect;
    bool gptq = q->format == FORMAT_GPTQ;
    int64_t size = q->block_cols ? q->block_cols : w->cols, words = rect->rows / A_WORD;
    int64_t first = w->order.file >= 0 ? rect->col / size : 0;
    const char *codes = staged + cut->pieces[GROUP_QWEIGHT].at;
    const char *zeros = staged + cut->pieces[GROUP_QZEROS].at;
    const char *from = staged + cut->pieces[GROUP_SCALES].at;
    TRY(check_order(cut, staged, size, err));
    memset(rows, 0, (size_t)rect->rows * s->row_bytes);
    for (int64_t r = 0; r < rect->rows; r++) {
        int64_t at = r / A_WORD;
        int shift = 4 * (gptq ? (int)(r % A_WORD) : awq_place[r % A_WORD]);
        for (int64_t c = 0; c < rect->cols; c++) {
            uint32_t code = gptq ? word_at(codes, c / A_WORD * rect->rows + r) >> c % A_WORD * 4
                                 : word_at(codes, c * words + at) >> shift;
            put_int4(rows + (uint64_t)r * s->row_bytes, c, code & 15);
        }
        for (int64_t g = 0; g < s->groups; g++) {
            uint32_t zero = (word_at(zeros, (first + g) * words + at) >> shift & 15) + gptq;
            float scale = scale_of(w->scales.dtype, from, (first + g) * rect->rows + r);
            uint32_t bits = word_bits(scale);
            CHECK((bits & INT4_MAX_ZERO) == 0, "a scale of 16 bits");
            scales[r * s->groups + g] = bits | zero;
        }
    }
    return OK;
}

/* --- all of them -------------------------------------------------------------------------------
 */

/* To nearest, ties to even; NaN stays one. */
static uint16_t to_bf16(float f)
{
    uint32_t bits = word_bits(f);
    return f != f ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static enum status pack_bf16(const struct inventory *inv, const struct weight_cut *cut,
                             const void *staged, uint16_t *out, struct error *err)
{
    size_t count = (size_t)cut->rect.rows * (size_t)cut->rect.cols;
    float *values = malloc(count * sizeof *values);
    if (!values)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu values of a weight", count);
    enum status st = weight_convert(inv, cut, staged, values, err);
    for (size_t i = 0; st == OK && i < count; i++)
        out[i] = to_bf16(values[i]);
    free(values);
    return st;
}

/* --- panels ------------------------------------------------------------------------------------
 */

static enum status no_number(const struct weight_cut *cut, int64_t at, float found,
                             struct error *err)
{
    const struct quant_rect *rect = &cut->rect;
    return error_set(err, ERR_INVALID,
                     "row %lld, column %lld: expected a number of at most 2^100 in size, found %g",
                     (long long)(rect->row + at / rect->cols),
                     (long long)(rect->col + at % rect->cols), (double)found);
}

static enum status pack_panels(const struct inventory *inv, const struct weight_cut *cut,
                               const struct weight_shape *s, const void *staged, char *panels,
                               struct error *err)
{
    int64_t rows = cut->rect.rows, cols = cut->rect.cols;
    size_t count = (size_t)rows * (size_t)cols;
    float *values = malloc(count * sizeof *values);
    if (!values)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu values of a weight", count);
    enum status st = weight_convert(inv, cut, staged, values, err);
    for (int64_t r = 0; st == OK && r < rows; r += PANEL_ROWS) {
        int64_t n = rows - r < PANEL_ROWS ? rows - r : PANEL_ROWS, first = r * cols;
        int64_t bad = panel_pack(values + first, (int32_t)n, (int32_t)cols,
                                 weight_panel_bits(s->form),
                                 panels + (uint64_t)(r / PANEL_ROWS) * s->row_bytes);
        if (bad >= 0)
            st = no_number(cut, first + bad, values[first + bad], err);
    }
    free(values);
    return st;
}

static bool border(int64_t at, int64_t block, int64_t edge)
{
    return at % block == 0 || at == edge;
}

enum status weight_pack(const struct inventory *inv, const struct weight_cut *cut,
                        const void *staged, void *rows, void *scales, struct error *err)
{
    const struct weight *w = cut->weight;
    const struct quant_rect *rect = &cut->rect;
    const struct quantization *q = &inv->quant;
    struct weight_shape s = weight_shape(inv, w, rect->rows, rect->cols);
    CHECK(s.form != FORM_VALUES, "%s is not packed", weight_role_words(w->role));
    if (s.form == FORM_BF16)
        return pack_bf16(inv, cut, staged, rows, err);
    if (weight_panel_bits(s.form))
        return pack_panels(inv, cut, &s, staged, rows, err);
    int64_t columns = q->block_cols ? q->block_cols : w->cols;
    CHECK(rect->row % q->block_rows == 0 && rect->col % columns == 0 &&
              border(rect->row + rect->rows, q->block_rows, w->rows) &&
              border(rect->col + rect->cols, columns, w->cols),
          "%s: a cut inside a block", weight_role_words(w->role));
    if (s.form == FORM_INT4)
        return pack_groups(q, cut, &s, staged, rows, scales, err);
    memset(rows, 0, (size_t)rect->rows * s.row_bytes);
    pack_fp8(q, cut, &s, staged, rows, scales);
    return OK;
}
