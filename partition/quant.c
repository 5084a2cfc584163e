/*
 * Quantised weights to fp32: see quant.h. The layouts of blocks are those of the ggml documentation
 * (quantisation types of GGUF), of the OCP 8-bit floating point specification and of AutoGPTQ's and
 * AutoAWQ's checkpoints.
 */
#include "partition/quant.h"
#include "base/check.h"

#include <string.h>

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float quant_bf16(uint16_t h)
{
    return from_bits((uint32_t)h << 16);
}

float quant_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, m = h & 0x3ffu;
    if (exponent == 0) {
        float f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    return from_bits(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | m << 13);
}

float quant_e4m3(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80u) << 24, exponent = (v >> 3) & 0xfu, m = v & 7u;
    if ((v & 0x7f) == 0x7f)
        return from_bits(sign | 0x7fc00000u);
    if (exponent == 0) {
        float f = (float)m * 0x1p-9f;
        return sign ? -f : f;
    }
    return from_bits(sign | (exponent + 120) << 23 | m << 20);
}

void quant_fp8(const struct quant_fp8 *m, const struct quant_rect *rect, float *out)
{
    for (int64_t r = rect->row; r < rect->row + rect->rows; r++) {
        const uint8_t *v = m->values + r * m->stride;
        const float *scales = m->scales + (r + m->skip_rows) / m->block_rows * m->scale_stride;
        for (int64_t c = rect->col; c < rect->col + rect->cols; c++)
            *out++ = quant_e4m3(v[c]) * scales[(c + m->skip_cols) / m->block_cols];
    }
}

/* Where, in a word, AWQ keeps the output of that place among eight. */
static int awq_place(int64_t output)
{
    static const int places[] = {0, 4, 1, 5, 2, 6, 3, 7};
    return places[output % 8];
}

/* The integers of one output are a column of words (GPTQ) or of places in words (AWQ). */
void quant_groups(const struct quant_groups *m, const struct quant_rect *rect, float *out)
{
    CHECK(m->bits == 4 || (m->bits == 8 && m->packing == QUANT_GPTQ), "%d bits", m->bits);
    int64_t a_word = 32 / m->bits, words = m->outputs / a_word;
    uint32_t mask = (1u << m->bits) - 1;
    bool gptq = m->packing == QUANT_GPTQ;
    for (int64_t o = rect->row; o < rect->row + rect->rows; o++) {
        int64_t at = o / a_word;
        int shift = (gptq ? (int)(o % a_word) : awq_place(o)) * m->bits;
        for (int64_t i = rect->col; i < rect->col + rect->cols; i++) {
            int64_t g = m->group[i];
            int32_t zero = (int32_t)(m->qzeros[g * words + at] >> shift & mask) + (gptq ? 1 : 0);
            uint32_t q = gptq ? m->qweight[i / a_word * m->outputs + o] >> i % a_word * m->bits
                              : m->qweight[i * words + at] >> shift;
            *out++ = m->scales[g * m->outputs + o] * (float)((int32_t)(q & mask) - zero);
        }
    }
}

/* --- GGML's blocks -----------------------------------------------------------------------------
 */

enum {
    SMALL = 32,  /* elements of a Q8_0 or Q4_0 block */
    LARGE = 256, /* of a K block */
    K_SCALES = 12,
};

const struct ggml_layout *ggml_layout(uint32_t type)
{
    static const struct ggml_layout layouts[] = {
        [GGML_F32] = {"F32", 1, 4},
        [GGML_F16] = {"F16", 1, 2},
        [GGML_Q4_0] = {"Q4_0", SMALL, 2 + SMALL / 2},
        [GGML_Q8_0] = {"Q8_0", SMALL, 2 + SMALL},
        [GGML_Q4_K] = {"Q4_K", LARGE, 4 + K_SCALES + LARGE / 2},
        [GGML_Q5_K] = {"Q5_K", LARGE, 4 + K_SCALES + LARGE / 8 + LARGE / 2},
        [GGML_Q6_K] = {"Q6_K", LARGE, LARGE / 2 + LARGE / 4 + LARGE / 16 + 2},
        [GGML_BF16] = {"BF16", 1, 2},
    };
    return type < COUNT_OF(layouts) && layouts[type].name ? &layouts[type] : NULL;
}

static uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* 2 bytes d, 32 int8. */
static void block_q8_0(const uint8_t *b, float *out)
{
    float d = quant_f16(load16(b));
    for (int i = 0; i < SMALL; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

/* 2 bytes d, 16 bytes: element i in the low half of byte i, i + 16 in its high half. */
static void block_q4_0(const uint8_t *b, float *out)
{
    float d = quant_f16(load16(b));
    for (int i = 0; i < SMALL / 2; i++) {
        out[i] = d * (float)((b[2 + i] & 15) - 8);
        out[i + SMALL / 2] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

/* The scale and minimum of 32 elements, `j` of 8, of 6 bits each. For j < 4 they are the low 6 bits
 * of bytes j and j + 4; for the others 4 bits lie in byte j + 4 and the upper 2 above the former.
 */
static void k_scale(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/*
 * Q4_K: 2 bytes d, 2 bytes dmin, 12 bytes of scales, 128 bytes: each 32 bytes hold 64 elements, the
 * first 32 in the low halves. Q5_K has 32 bytes of fifth bits before them: bit j of byte i is that
 * of element i of the 32 elements j.
 */
static void block_q45_k(const uint8_t *b, bool five, float *out)
{
    float d = quant_f16(load16(b)), dmin = quant_f16(load16(b + 2));
    const uint8_t *high = b + 4 + K_SCALES, *low = high + (five ? LARGE / 8 : 0);
    for (int j = 0; j < LARGE / 32; j++) {
        int scale, min;
        k_scale(b + 4, j, &scale, &min);
        float factor = d * (float)scale, offset = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int q = low[j / 2 * 32 + i] >> j % 2 * 4 & 15;
            if (five)
                q |= (high[i] >> j & 1) << 4;
            out[j * 32 + i] = factor * (float)q - offset;
        }
    }
}

/*
 * 128 bytes of lower 4 bits, 64 bytes of upper 2 bits, 16 int8 scales, 2 bytes d. In each half of
 * 128 elements, of four runs of 32: runs 0 and 2 share 32 bytes (low and high halves), runs 1 and 3
 * the next 32, and all four share the 32 bytes of upper bits, run r at bit 2r.
 */
static void block_q6_k(const uint8_t *b, float *out)
{
    const uint8_t *scales = b + LARGE / 2 + LARGE / 4;
    float d = quant_f16(load16(scales + LARGE / 16));
    for (int e = 0; e < LARGE; e++) {
        int half = e / 128, run = e % 128 / 32, i = e % 32;
        int low = b[half * 64 + run % 2 * 32 + i] >> run / 2 * 4 & 15;
        int high = b[LARGE / 2 + half * 32 + i] >> run * 2 & 3;
        out[e] = d * (float)(int8_t)scales[e / 16] * (float)((low | high << 4) - 32);
    }
}

static void one_block(enum ggml_type type, const uint8_t *b, float *out)
{
    uint32_t bits;
    switch (type) {
    case GGML_F32:
        memcpy(&bits, b, sizeof bits);
        *out = from_bits(bits);
        break;
    case GGML_F16:
        *out = quant_f16(load16(b));
        break;
    case GGML_BF16:
        *out = quant_bf16(load16(b));
        break;
    case GGML_Q8_0:
        block_q8_0(b, out);
        break;
    case GGML_Q4_0:
        block_q4_0(b, out);
        break;
    case GGML_Q4_K:
        block_q45_k(b, false, out);
        break;
    case GGML_Q5_K:
        block_q45_k(b, true, out);
        break;
    case GGML_Q6_K:
        block_q6_k(b, out);
        break;
    }
}

void quant_ggml_row(enum ggml_type type, const void *row, int64_t col, int64_t cols, float *out)
{
    const struct ggml_layout *l = ggml_layout(type);
    CHECK(l, "ggml type %d", (int)type);
    float block[GGML_MAX_BLOCK];
    for (int64_t c = col; c < col + cols;) {
        int64_t skip = c % l->elements, n = l->elements - skip;
        const uint8_t *b = (const uint8_t *)row + c / l->elements * l->bytes;
        n = n < col + cols - c ? n : col + cols - c;
        if (skip == 0 && n == l->elements) {
            one_block(type, b, out);
        } else {
            one_block(type, b, block);
            memcpy(out, block + skip, (size_t)n * sizeof *out);
        }
        out += n;
        c += n;
    }
}
