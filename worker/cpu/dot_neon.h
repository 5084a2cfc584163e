/* Dot products of codes (dot.h) in NEON: bytes become signed codes as they are loaded, so that
 * there is no bias to take off. */
#ifndef WITAN_WORKER_CPU_DOT_NEON_H
#define WITAN_WORKER_CPU_DOT_NEON_H

typedef struct {
    int8x16_t q[4];
} codes;

VEC_INLINE int8x16_t codes_signed(uint8x16_t bytes)
{
    return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
}
VEC_INLINE codes codes_load(const uint8_t *p)
{
    codes w;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        w.q[i] = codes_signed(vld1q_u8(p + 16 * i));
    return w;
}
#if !defined(OPS_I8MM)
VEC_INLINE void codes_store(uint8_t *p, codes w)
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        vst1q_u8(p + 16 * i, veorq_u8(vreinterpretq_u8_s8(w.q[i]), vdupq_n_u8(128)));
}
#endif
VEC_INLINE void codes_of_indices(const uint8_t *p, codes w[2])
{
    const int8x16_t book = codes_signed(vld1q_u8(panel_codebook));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        uint8x16_t pair = vld1q_u8(p + 16 * i);
        w[0].q[i] = vqtbl1q_s8(book, vandq_u8(pair, vdupq_n_u8(15)));
        w[1].q[i] = vqtbl1q_s8(book, vshrq_n_u8(pair, 4));
    }
}

enum { DOT_QUAD = 4, DOT_PREPARES = 0 };

#if defined(OPS_DOTPROD) /* sdot, which multiplies bytes by bytes and adds in 32 bits */

typedef struct {
    int32x4_t q[4];
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    int32x4_t zero = vdupq_n_s32(0);
    (void)bias;
    return (dot){{zero, zero, zero, zero}};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    int8x16_t quad = vreinterpretq_s8_s32(vdupq_n_s32(dot_quad(x)));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        a.q[i] = vdotq_s32(a.q[i], w.q[i], quad);
    return a;
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    (void)bias;
    V_FOUR(vcvtq_f32_s32(a.q[i]));
}

#else

/* Sums of two columns each: rows 4 i and 4 i + 1 in lo[i], the two after in hi[i]. */
typedef struct {
    int32x4_t lo[4], hi[4];
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    int32x4_t zero = vdupq_n_s32(0);
    (void)bias;
    return (dot){{zero, zero, zero, zero}, {zero, zero, zero, zero}};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    int8x8_t quad = vreinterpret_s8_s32(vdup_n_s32(dot_quad(x)));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a.lo[i] = vpadalq_s16(a.lo[i], vmull_s8(vget_low_s8(w.q[i]), quad));
        a.hi[i] = vpadalq_s16(a.hi[i], vmull_s8(vget_high_s8(w.q[i]), quad));
    }
    return a;
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    (void)bias;
    V_FOUR(vcvtq_f32_s32(vpaddq_s32(a.lo[i], a.hi[i])));
}

#endif

#if defined(OPS_I8MM)

/* Rows 0 and 1 of a by rows 0 and 1 of b, 8 columns each. */
VEC_INLINE int32x4_t dot_mmla(int32x4_t sum, int8x16_t a, int8x16_t b)
{
#if defined(WITAN_SIMDE) /* which has had it since 0.8 alone */
    int8_t x[16], y[16];
    int32_t s[4];
    vst1q_s8(x, a);
    vst1q_s8(y, b);
    vst1q_s32(s, sum);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 8; k++)
            s[i] += x[i / 2 * 8 + k] * y[i % 2 * 8 + k];
    return vld1q_s32(s);
#else
    return vmmlaq_s32(sum, a, b);
#endif
}

/* Two quads of a panel as signed codes, 8 columns of rows 2 i and 2 i + 1 in each 16 bytes i. */
VEC_INLINE void codes_pair(uint8_t *p, const codes w[2])
{
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        int32x4_t a = vreinterpretq_s32_s8(w[0].q[i]), b = vreinterpretq_s32_s8(w[1].q[i]);
        vst1q_u8(p + 32 * i, vreinterpretq_u8_s32(vzip1q_s32(a, b)));
        vst1q_u8(p + 32 * i + 16, vreinterpretq_u8_s32(vzip2q_s32(a, b)));
    }
}

/* q[i]: two rows of activations with rows 2 i and 2 i + 1 of a panel. */
typedef struct {
    int32x4_t q[8];
} dot_pair;

VEC_INLINE dot_pair dot_pair_begin(void)
{
    dot_pair a;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        a.q[i] = vdupq_n_s32(0);
    return a;
}
/* w as codes_pair wrote it, and 8 columns of either row. */
VEC_INLINE dot_pair dot_pair_add(dot_pair a, const uint8_t *w, const int8_t *x0, const int8_t *x1)
{
    int8x16_t x = vcombine_s8(vld1_s8(x0), vld1_s8(x1));
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        a.q[i] = dot_mmla(a.q[i], x, vreinterpretq_s8_u8(vld1q_u8(w + 16 * i)));
    return a;
}
/* Of its first or second row. */
VEC_INLINE v16 dot_pair_end(dot_pair a, int row)
{
    V_FOUR(vcvtq_f32_s32(
        row == 0 ? vcombine_s32(vget_low_s32(a.q[2 * i]), vget_low_s32(a.q[2 * i + 1]))
                 : vcombine_s32(vget_high_s32(a.q[2 * i]), vget_high_s32(a.q[2 * i + 1]))));
}

#endif

#endif
