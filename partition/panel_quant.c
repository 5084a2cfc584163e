/*
 * Values to panels and back: see panel.h. No state. Every step is one IEEE operation or an
 * integer's in a fixed order, so all machines and all vector widths give the same bytes.
 */
#include "base/check.h"
#include "partition/panel.h"

#include <math.h>
#include <string.h>

enum {
    SCALES = 8,     /* tried in 8 bits */
    REST = 1 << 11, /* of a code while they are tried */
    LEVELS = 16,
    SIZES = 8,     /* of a block's largest value among codes, tried with both signs */
    UNIT = 1 << 14 /* of a block's largest value while scales are tried */
};

/* Past them a block's values are no weights, or nothing. */
static const float largest = 0x1p100f, smallest = 0x1p-100f;

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* To the nearest bf16, ties to even. */
static float round_bf16(float f)
{
    uint32_t bits = bits_of(f);
    return from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u);
}

/* The body of what is compiled for several widths of vectors. */
#define EVERY_WIDTH static inline __attribute__((always_inline))

/* To nearest, ties to even, where |f| < 2^22. */
EVERY_WIDTH int32_t round_int(float f)
{
    const float shift = 0x1.8p23f;
    int32_t bits;
    f += shift;
    memcpy(&bits, &f, sizeof bits);
    return bits - 0x4b400000;
}

/* The bits of the largest |x| of a block: above those of `largest` of NaNs too. */
EVERY_WIDTH uint32_t largest_bits(const float *x)
{
    int32_t top = 0;
    for (int i = 0; i < PANEL_BLOCK; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        top = bits > top ? bits : top;
    }
    return (uint32_t)top;
}

/* --- 8 bits ------------------------------------------------------------------------------------
 */

/* The squared error of a block's nearest codes by a scale, in squares of scale / REST. */
EVERY_WIDTH int32_t error8(const float *x, float scale)
{
    float inverse = 1.0f / scale;
    int32_t sum = 0;
    for (int i = 0; i < PANEL_BLOCK; i++) {
        float t = x[i] * inverse;
        int32_t left = round_int((t - (float)round_int(t)) * REST);
        sum += left * left;
    }
    return sum;
}

/* Of the scale that makes the largest value 127 or -127, which leaves the least rounding to each,
 * and the next greater bf16s, the one whose codes chance to fit best: a sixth less squared error.
 * |x| / scale is at most 127 x (1 + 2^-8), so no code leaves [-127, 127]. */
EVERY_WIDTH float quantise8(const float *x, float top, uint8_t *codes)
{
    float first = round_bf16(top / 127.0f), scale = first;
    double least = (double)first * (double)first * error8(x, first);
    for (uint32_t i = 1; i < SCALES; i++) {
        float next = from_bits(bits_of(first) + (i << 16));
        double error = (double)next * (double)next * error8(x, next);
        scale = error < least ? next : scale;
        least = error < least ? error : least;
    }
    for (int i = 0; i < PANEL_BLOCK; i++)
        codes[i] = (uint8_t)(round_int(x[i] / scale) + 128);
    return scale;
}

/* --- 4 bits ------------------------------------------------------------------------------------
 */

/* What is known of panel_codebook before any block. */
struct search {
    int16_t level[LEVELS], step[LEVELS]; /* codes, and from each to the one above */
    float border[LEVELS];                /* between a level and the one above, in codes */
    int16_t borders[SIZES][LEVELS];      /* in units, where the largest value is of each size */
};

static void search_init(struct search *s)
{
    static const float sizes[SIZES] = {80, 89, 97, 106, 114, 123, 131, 140};
    for (int k = 0; k < LEVELS; k++)
        s->level[k] = (int16_t)(panel_codebook[k] - 128);
    for (int k = 0; k < LEVELS - 1; k++) {
        s->step[k] = (int16_t)(s->level[k + 1] - s->level[k]);
        s->border[k] = 0.5f * (float)(s->level[k] + s->level[k + 1]);
        for (int i = 0; i < SIZES; i++)
            s->borders[i][k] = (int16_t)round_int(s->border[k] * ((float)UNIT / sizes[i]));
    }
}

/* With x's nearest codes: the sums of x * code and code * code. The scale that fits these codes
 * best is their ratio, and what it leaves of the sum of x^2 is less by xc^2 / cc. */
struct fit {
    int32_t xc, cc;
};

EVERY_WIDTH struct fit fit_codes(const struct search *s, const int16_t *x, const int16_t *border)
{
    int16_t code[PANEL_BLOCK];
    struct fit f = {0, 0};
    for (int i = 0; i < PANEL_BLOCK; i++)
        code[i] = s->level[0];
    for (int k = 0; k < LEVELS - 1; k++) {
        int16_t above = border[k], step = s->step[k];
        for (int i = 0; i < PANEL_BLOCK; i++)
            code[i] = (int16_t)(code[i] + (-(x[i] > above) & step));
    }
    for (int i = 0; i < PANEL_BLOCK; i++) {
        f.xc += x[i] * code[i];
        f.cc += code[i] * code[i];
    }
    return f;
}

/* The scale, in units a code, of the best fit of all sizes and both signs. */
EVERY_WIDTH float find_scale(const struct search *s, const float *x, float top)
{
    int16_t unit[2][PANEL_BLOCK];
    float to_units = (float)UNIT / top;
    for (int i = 0; i < PANEL_BLOCK; i++) {
        unit[0][i] = (int16_t)round_int(x[i] * to_units);
        unit[1][i] = (int16_t)-unit[0][i];
    }
    double xc = 0, cc = 1, sign = 1;
    for (int flip = 0; flip < 2; flip++)
        for (int i = 0; i < SIZES; i++) {
            struct fit f = fit_codes(s, unit[flip], s->borders[i]);
            double sum = f.xc, squares = f.cc;
            if (sum * sum * cc > xc * xc * squares) {
                xc = sum;
                cc = squares;
                sign = flip ? -1 : 1;
            }
        }
    return (float)(sign * xc / cc) * (top / UNIT);
}

EVERY_WIDTH float quantise4(const struct search *s, const float *x, float top, uint8_t *codes)
{
    float scale = round_bf16(find_scale(s, x, top)), t[PANEL_BLOCK];
    int32_t index[PANEL_BLOCK];
    for (int i = 0; i < PANEL_BLOCK; i++) {
        t[i] = x[i] / scale;
        index[i] = 0;
    }
    for (int k = 0; k < LEVELS - 1; k++) {
        float above = s->border[k];
        for (int i = 0; i < PANEL_BLOCK; i++)
            index[i] += t[i] > above;
    }
    for (int i = 0; i < PANEL_BLOCK; i++)
        codes[i] = (uint8_t)index[i];
    return scale;
}

/* --- panels ------------------------------------------------------------------------------------
 */

/* A block's codes of one row among those of its panel. */
EVERY_WIDTH void put_codes(uint8_t *block, int bits, int32_t row, const uint8_t *codes)
{
    for (int q = 0; q < PANEL_QUADS; q++) {
        uint8_t *to = block + ((bits == 4 ? q / 2 : q) * PANEL_ROWS + row) * 4;
        for (int i = 0; i < 4; i++) {
            uint8_t code = codes[4 * q + i];
            to[i] = (uint8_t)(bits == 4 && q % 2 ? to[i] | code << 4 : code);
        }
    }
}

EVERY_WIDTH int64_t pack_rows(const struct search *s, const float *x, int32_t rows, int32_t cols,
                              int bits, uint16_t *scales, uint8_t *blocks)
{
    int64_t size = bits == 4 ? PANEL_BLOCK4 : PANEL_BLOCK8;
    for (int32_t r = 0; r < rows; r++)
        for (int32_t b = 0; b < cols / PANEL_BLOCK; b++) {
            const float *from = x + (int64_t)r * cols + b * PANEL_BLOCK;
            uint32_t top = largest_bits(from);
            uint8_t codes[PANEL_BLOCK];
            float scale;
            if (top > bits_of(largest))
                return from - x;
            if (top < bits_of(smallest))
                continue;
            scale = bits == 4 ? quantise4(s, from, from_bits(top), codes)
                              : quantise8(from, from_bits(top), codes);
            scales[b * PANEL_ROWS + r] = (uint16_t)(bits_of(scale) >> 16);
            put_codes(blocks + b * size, bits, r, codes);
        }
    return -1;
}

typedef int64_t pack_fn(const struct search *s, const float *x, int32_t rows, int32_t cols,
                        int bits, uint16_t *scales, uint8_t *blocks);

static int64_t pack_any(const struct search *s, const float *x, int32_t rows, int32_t cols,
                        int bits, uint16_t *scales, uint8_t *blocks)
{
    return pack_rows(s, x, rows, cols, bits, scales, blocks);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static int64_t pack_avx2(const struct search *s, const float *x,
                                                         int32_t rows, int32_t cols, int bits,
                                                         uint16_t *scales, uint8_t *blocks)
{
    return pack_rows(s, x, rows, cols, bits, scales, blocks);
}
#endif

static pack_fn *choose(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        return pack_avx2;
#endif
    return pack_any;
}

int64_t panel_pack(const float *x, int32_t rows, int32_t cols, int bits, void *panel)
{
    CHECK(cols % PANEL_BLOCK == 0 && rows > 0 && rows <= PANEL_ROWS, "%d rows of %d", rows, cols);
    uint8_t *blocks = (uint8_t *)panel + panel_scale_bytes(cols);
    struct search s;
    search_init(&s);
    memset(panel, 0, panel_scale_bytes(cols));
    memset(blocks, bits == 4 ? PANEL_ZERO4 : PANEL_ZERO8,
           panel_bytes(cols, bits) - panel_scale_bytes(cols));
    int64_t at = choose()(&s, x, rows, cols, bits, panel, blocks);
    if (at < 0)
        return -1;
    while (fabsf(x[at]) <= largest)
        at++;
    return at;
}

void panel_row(const void *panel, int32_t row, int32_t cols, int bits, float *out)
{
    const uint8_t *blocks = (const uint8_t *)panel + panel_scale_bytes(cols);
    int64_t size = bits == 4 ? PANEL_BLOCK4 : PANEL_BLOCK8;
    for (int32_t c = 0; c < cols; c++) {
        int32_t q = c % PANEL_BLOCK / 4, b = c / PANEL_BLOCK;
        uint16_t half;
        uint8_t code = blocks[b * size + ((bits == 4 ? q / 2 : q) * PANEL_ROWS + row) * 4 + c % 4];
        memcpy(&half, (const char *)panel + (b * PANEL_ROWS + row) * sizeof half, sizeof half);
        if (bits == 4)
            code = panel_codebook[q % 2 ? code >> 4 : code & 15];
        out[c] = from_bits((uint32_t)half << 16) * (float)(code - 128);
    }
}
