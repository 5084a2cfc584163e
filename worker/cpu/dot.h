/*
 * Dot products of codes for the panels' kernels (panels.c): a quad is 4 columns of PANEL_ROWS rows,
 * bytes code + 128 (partition/panel.h), and meets 4 activations' codes of [-127, 127]. The result
 * is exact whatever the way:
 *
 * - OPS_VNNI: vpdpbusd, which multiplies bytes by bytes and adds in 32 bits, of 512 bits with
 *   OPS_AVX512 and of 256 with OPS_AVX2.
 * - OPS_AVX512, OPS_AVX2 without it: vpmaddubsw adds two products in 16 bits and would saturate at
 * 2 x 255 x 127. So activations are split, x = 16 high + low with high in [-8, 8] and low in [-8,
 * 7]: no sum of a block's PANEL_BLOCK / 2 products passes 16 x 255 x 8 = 32640.
 * - OPS_NEON: signed bytes by signed bytes (dot_neon.h).
 * - Portable C.
 */
#ifndef WITAN_WORKER_CPU_DOT_H
#define WITAN_WORKER_CPU_DOT_H

#include "partition/panel.h"
#include "worker/cpu/vec.h"

#if defined(OPS_AVX512) || defined(OPS_AVX2) || defined(OPS_NEON)
VEC_INLINE int32_t dot_quad(const int8_t *x)
{
    int32_t quad;
    memcpy(&quad, x, sizeof quad);
    return quad;
}
#endif

#if defined(OPS_AVX512)

#if defined(WITAN_SIMDE) /* whose own alias takes the arguments of another */
#undef _mm512_madd_epi16
#define _mm512_madd_epi16(a, b) simde_mm512_madd_epi16(a, b)
#endif

VEC_INLINE v16 dot_float(__m512i a)
{
#if defined(WITAN_SIMDE)
    int32_t d[16];
    float t[16];
    _mm512_storeu_si512(d, a);
    for (int i = 0; i < 16; i++)
        t[i] = (float)d[i];
    return _mm512_loadu_ps(t);
#else
    return _mm512_cvtepi32_ps(a);
#endif
}

typedef __m512i codes; /* a quad of a panel */

VEC_INLINE codes codes_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}
VEC_INLINE void codes_store(uint8_t *p, codes w)
{
    _mm512_storeu_si512(p, w);
}
/* Two quads from 64 bytes of indices. */
VEC_INLINE void codes_of_indices(const uint8_t *p, codes w[2])
{
    const __m512i book = _mm512_broadcast_i32x4(
        _mm_loadu_si128((const __m128i *)(const void *)panel_codebook));
    const __m512i low = _mm512_set1_epi8(15);
    __m512i pair = _mm512_loadu_si512(p);
    w[0] = _mm512_shuffle_epi8(book, _mm512_and_si512(pair, low));
    w[1] = _mm512_shuffle_epi8(book, _mm512_and_si512(_mm512_srli_epi16(pair, 4), low));
}

#elif defined(OPS_AVX2)

typedef struct {
    __m256i lo, hi;
} codes;

VEC_INLINE codes codes_load(const uint8_t *p)
{
    return (codes){_mm256_loadu_si256((const __m256i *)(const void *)p),
                   _mm256_loadu_si256((const __m256i *)(const void *)(p + 32))};
}
VEC_INLINE void codes_store(uint8_t *p, codes w)
{
    _mm256_storeu_si256((__m256i *)(void *)p, w.lo);
    _mm256_storeu_si256((__m256i *)(void *)(p + 32), w.hi);
}
VEC_INLINE void codes_of_indices(const uint8_t *p, codes w[2])
{
    const __m256i book = _mm256_broadcastsi128_si256(
        _mm_loadu_si128((const __m128i *)(const void *)panel_codebook));
    const __m256i low = _mm256_set1_epi8(15);
    codes pair = codes_load(p);
    w[0].lo = _mm256_shuffle_epi8(book, _mm256_and_si256(pair.lo, low));
    w[0].hi = _mm256_shuffle_epi8(book, _mm256_and_si256(pair.hi, low));
    w[1].lo = _mm256_shuffle_epi8(book, _mm256_and_si256(_mm256_srli_epi16(pair.lo, 4), low));
    w[1].hi = _mm256_shuffle_epi8(book, _mm256_and_si256(_mm256_srli_epi16(pair.hi, 4), low));
}

#elif defined(OPS_NEON)

#include "worker/cpu/dot_neon.h"

#else

typedef struct {
    uint8_t b[PANEL_ROWS * 4];
} codes;

VEC_INLINE codes codes_load(const uint8_t *p)
{
    codes w;
    memcpy(w.b, p, sizeof w.b);
    return w;
}
VEC_INLINE void codes_store(uint8_t *p, codes w)
{
    memcpy(p, w.b, sizeof w.b);
}
VEC_INLINE void codes_of_indices(const uint8_t *p, codes w[2])
{
    for (int i = 0; i < PANEL_ROWS * 4; i++) {
        w[0].b[i] = panel_codebook[p[i] & 15];
        w[1].b[i] = panel_codebook[p[i] >> 4];
    }
}

#endif

/*
 * struct dot sums a block. dot_begin and dot_end take the block's bias; x of dot_add points to
 * DOT_QUAD bytes, as dot_prepare has written them where DOT_PREPARES.
 */
#if defined(OPS_VNNI) && defined(OPS_AVX512)

enum { DOT_QUAD = 4, DOT_PREPARES = 0 };

typedef struct {
    __m512i d;
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    return (dot){_mm512_set1_epi32(bias)};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    return (dot){_mm512_dpbusd_epi32(a.d, w, _mm512_set1_epi32(dot_quad(x)))};
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    (void)bias;
    return dot_float(a.d);
}

#elif defined(OPS_VNNI)

enum { DOT_QUAD = 4, DOT_PREPARES = 0 };

#if defined(WITAN_SIMDE)
#define DOT_DPBUSD _mm256_dpbusd_epi32
#else
#define DOT_DPBUSD _mm256_dpbusd_avx_epi32
#endif

typedef codes dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    return (dot){_mm256_set1_epi32(bias), _mm256_set1_epi32(bias)};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    __m256i quad = _mm256_set1_epi32(dot_quad(x));
    return (dot){DOT_DPBUSD(a.lo, w.lo, quad), DOT_DPBUSD(a.hi, w.hi, quad)};
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    (void)bias;
    return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}

#elif defined(OPS_AVX512)

enum { DOT_QUAD = 8, DOT_PREPARES = 1 };

typedef struct {
    __m512i low, high;
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    (void)bias;
    return (dot){_mm512_setzero_si512(), _mm512_setzero_si512()};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    __m512i low = _mm512_maddubs_epi16(w, _mm512_set1_epi32(dot_quad(x)));
    __m512i high = _mm512_maddubs_epi16(w, _mm512_set1_epi32(dot_quad(x + 4)));
    return (dot){_mm512_add_epi16(a.low, low), _mm512_add_epi16(a.high, high)};
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    __m512i low = _mm512_madd_epi16(a.low, _mm512_set1_epi16(1));
    __m512i high = _mm512_madd_epi16(a.high, _mm512_set1_epi16(16));
    __m512i sum = _mm512_add_epi32(low, high);
    return dot_float(_mm512_add_epi32(sum, _mm512_set1_epi32(bias)));
}

#elif defined(OPS_AVX2)

enum { DOT_QUAD = 8, DOT_PREPARES = 1 };

typedef struct {
    codes low, high;
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    (void)bias;
    __m256i zero = _mm256_setzero_si256();
    return (dot){{zero, zero}, {zero, zero}};
}
VEC_INLINE codes dot_half(codes a, codes w, const int8_t *x)
{
    __m256i quad = _mm256_set1_epi32(dot_quad(x));
    return (codes){_mm256_add_epi16(a.lo, _mm256_maddubs_epi16(w.lo, quad)),
                   _mm256_add_epi16(a.hi, _mm256_maddubs_epi16(w.hi, quad))};
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    return (dot){dot_half(a.low, w, x), dot_half(a.high, w, x + 4)};
}
VEC_INLINE __m256 dot_join(__m256i low, __m256i high, int32_t bias)
{
    low = _mm256_madd_epi16(low, _mm256_set1_epi16(1));
    high = _mm256_madd_epi16(high, _mm256_set1_epi16(16));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(low, high), _mm256_set1_epi32(bias));
    return _mm256_cvtepi32_ps(sum);
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    return (v16){dot_join(a.low.lo, a.high.lo, bias), dot_join(a.low.hi, a.high.hi, bias)};
}

#elif !defined(OPS_NEON)

enum { DOT_QUAD = 4, DOT_PREPARES = 0 };

typedef struct {
    int32_t d[PANEL_ROWS];
} dot;

VEC_INLINE dot dot_begin(int32_t bias)
{
    dot a;
    for (int i = 0; i < PANEL_ROWS; i++)
        a.d[i] = bias;
    return a;
}
VEC_INLINE dot dot_add(dot a, codes w, const int8_t *x)
{
    for (int i = 0; i < PANEL_ROWS; i++) {
        const uint8_t *b = w.b + 4 * i;
        a.d[i] += b[0] * x[0] + b[1] * x[1] + b[2] * x[2] + b[3] * x[3];
    }
    return a;
}
VEC_INLINE v16 dot_end(dot a, int32_t bias)
{
    (void)bias;
    V_EACH((float)a.d[i]);
}

#endif

/* Of n codes of activations, a multiple of PANEL_BLOCK, what dot_add reads: 2 n bytes, for each
 * quad the 4 low parts, then the 4 high ones. */
#if defined(OPS_AVX512) || defined(OPS_AVX2)
VEC_INLINE void dot_prepare(const int8_t *x, int32_t n, int8_t *out)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low_of = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1));
    const __m256i carry_of = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    for (int32_t k = 0; k < n; k += PANEL_BLOCK) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + k));
        __m256i l = _mm256_and_si256(a, nibble);
        __m256i h = _mm256_and_si256(_mm256_srli_epi16(a, 4), nibble);
        __m256i low = _mm256_shuffle_epi8(low_of, l);
        __m256i high = _mm256_add_epi8(_mm256_shuffle_epi8(low_of, h),
                                       _mm256_shuffle_epi8(carry_of, l));
        __m256i even = _mm256_unpacklo_epi32(low, high), odd = _mm256_unpackhi_epi32(low, high);
        __m256i *to = (__m256i *)(void *)(out + 2 * k);
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
    }
}
#else
VEC_INLINE void dot_prepare(const int8_t *x, int32_t n, int8_t *out)
{
    (void)x, (void)n, (void)out;
}
#endif

#endif
