/*
 * Sixteen float lanes, the same on every machine: the CPU kernels (ops.c) are written once against
 * this and compiled once for each instruction set, so that every build gives the same bits.
 *
 * What makes that true: every operation here is one correctly rounded IEEE operation a lane (fma
 * included), sums over lanes follow one fixed tree, and nothing is left to the compiler's choice of
 * contraction (-ffp-contract=off).
 *
 * OPS_AVX512, OPS_AVX2, OPS_NEON or none (portable C) is chosen by the build. With WITAN_SIMDE a
 * flavour runs on machines without it (tests).
 */
#ifndef WITAN_WORKER_CPU_VEC_H
#define WITAN_WORKER_CPU_VEC_H

#include "worker/cpu/ops.h"

#include <stdint.h>
#include <string.h>

#if defined(WITAN_SIMDE)
#define SIMDE_ENABLE_NATIVE_ALIASES
#endif
#if defined(WITAN_SIMDE) && defined(OPS_NEON)
#include <simde/arm/neon.h>
#elif defined(WITAN_SIMDE)
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#elif defined(OPS_NEON)
#include <arm_neon.h>
#elif defined(OPS_AVX512) || defined(OPS_AVX2)
#include <immintrin.h>
#endif

/* Without SIMD a v16 is an array, and forcing every use inline makes compilers crawl. */
#if defined(OPS_AVX512) || defined(OPS_AVX2) || defined(OPS_NEON)
#define VEC_INLINE static inline __attribute__((always_inline, unused))
#else
#define VEC_INLINE static inline __attribute__((unused))
#endif

static inline float bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* IEEE binary16, subnormals included; exact. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu, m = h & 0x3ffu;
    uint32_t bits;
    float f;
    if (exponent == 0) {
        f = (float)m * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | m << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#if defined(OPS_AVX512)

typedef __m512 v16, vr;
enum { V_REGISTER = 16 };

VEC_INLINE v16 v_zero(void)
{
    return _mm512_setzero_ps();
}
VEC_INLINE v16 v_set(float a)
{
    return _mm512_set1_ps(a);
}
VEC_INLINE v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
VEC_INLINE v16 v_load_bf16(const uint16_t *p)
{
#if defined(WITAN_SIMDE)
    float t[16];
    for (int i = 0; i < 16; i++)
        t[i] = bf16_to_f32(p[i]);
    return _mm512_loadu_ps(t);
#else
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
#endif
}
VEC_INLINE v16 v_load_f16(const uint16_t *p)
{
#if defined(WITAN_SIMDE)
    float t[16];
    for (int i = 0; i < 16; i++)
        t[i] = f16_to_f32(p[i]);
    return _mm512_loadu_ps(t);
#else
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#endif
}
VEC_INLINE v16 v_load_i8(const int8_t *p)
{
#if defined(WITAN_SIMDE)
    float t[16];
    for (int i = 0; i < 16; i++)
        t[i] = (float)p[i];
    return _mm512_loadu_ps(t);
#else
    __m128i narrow = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(narrow));
#endif
}
VEC_INLINE void v_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
VEC_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
VEC_INLINE v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
VEC_INLINE v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
VEC_INLINE v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
VEC_INLINE v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
/* a > b ? a : b */
VEC_INLINE v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
VEC_INLINE v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
/* p * 2^n, where the low bits of t's representation hold n; no overflow by the caller's range. */
VEC_INLINE v16 v_scale2(v16 p, v16 t)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
/* A bit for each lane that is a NaN; that is at least b's and neither a NaN. */
VEC_INLINE uint32_t v_nans(v16 a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
VEC_INLINE uint32_t v_at_least(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
VEC_INLINE __m256 half_sum(v16 a)
{
    __m256 hi = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
    return _mm256_add_ps(_mm512_castps512_ps256(a), hi);
}

#elif defined(OPS_AVX2)

typedef struct {
    __m256 lo, hi;
} v16;
typedef __m256 vr;
enum { V_REGISTER = 8 };

#define V_PAIR(op)                                                                                 \
    (v16)                                                                                          \
    {                                                                                              \
        op(a.lo, b.lo), op(a.hi, b.hi)                                                             \
    }

VEC_INLINE v16 v_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
VEC_INLINE v16 v_set(float a)
{
    return (v16){_mm256_set1_ps(a), _mm256_set1_ps(a)};
}
VEC_INLINE v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
VEC_INLINE vr r_zero(void)
{
    return _mm256_setzero_ps();
}
VEC_INLINE vr r_load(const float *p)
{
    vr a = _mm256_loadu_ps(p);
    __asm__("" : "+x"(a)); /* in a register: gcc would load it anew for each fma that uses it */
    return a;
}
/* Both halves of the register get all eight, and one shuffle puts each into the upper half of its
 * lane: that leaves the ports of fma alone, as shifting would not. */
VEC_INLINE vr r_load_bf16(const uint16_t *p)
{
    const __m256i to = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1,
                                        -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(all, to));
}
VEC_INLINE vr r_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
VEC_INLINE vr r_fma(vr a, vr b, vr c)
{
    return _mm256_fmadd_ps(a, b, c);
}
VEC_INLINE v16 v_join(const vr part[2])
{
    return (v16){part[0], part[1]};
}
VEC_INLINE v16 v_load_bf16(const uint16_t *p)
{
    return (v16){r_load_bf16(p), r_load_bf16(p + 8)};
}
VEC_INLINE v16 v_load_f16(const uint16_t *p)
{
    return (v16){r_load_f16(p), r_load_f16(p + 8)};
}
VEC_INLINE __m256 load8_i8(const int8_t *p)
{
    __m128i narrow = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(narrow));
}
VEC_INLINE v16 v_load_i8(const int8_t *p)
{
    return (v16){load8_i8(p), load8_i8(p + 8)};
}
VEC_INLINE void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
VEC_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
VEC_INLINE v16 v_add(v16 a, v16 b)
{
    return V_PAIR(_mm256_add_ps);
}
VEC_INLINE v16 v_sub(v16 a, v16 b)
{
    return V_PAIR(_mm256_sub_ps);
}
VEC_INLINE v16 v_mul(v16 a, v16 b)
{
    return V_PAIR(_mm256_mul_ps);
}
VEC_INLINE v16 v_div(v16 a, v16 b)
{
    return V_PAIR(_mm256_div_ps);
}
VEC_INLINE v16 v_max(v16 a, v16 b)
{
    return V_PAIR(_mm256_max_ps);
}
VEC_INLINE v16 v_min(v16 a, v16 b)
{
    return V_PAIR(_mm256_min_ps);
}
VEC_INLINE __m256 scale8(__m256 p, __m256 t)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
VEC_INLINE v16 v_scale2(v16 p, v16 t)
{
    return (v16){scale8(p.lo, t.lo), scale8(p.hi, t.hi)};
}
VEC_INLINE uint32_t v_nans(v16 a)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q)) << 8;
}
VEC_INLINE uint32_t v_at_least(v16 a, v16 b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)) << 8;
}
VEC_INLINE __m256 half_sum(v16 a)
{
    return _mm256_add_ps(a.lo, a.hi);
}

#elif defined(OPS_NEON)

#include "worker/cpu/vec_neon.h"

#else /* portable */

typedef struct {
    float f[16];
} v16, vr;
enum { V_REGISTER = 16 };

#define V_EACH(expr)                                                                               \
    v16 r;                                                                                         \
    for (int i = 0; i < 16; i++)                                                                   \
        r.f[i] = (expr);                                                                           \
    return r

VEC_INLINE v16 v_set(float a)
{
    V_EACH(a);
}
VEC_INLINE v16 v_zero(void)
{
    return v_set(0.0f);
}
VEC_INLINE v16 v_load(const float *p)
{
    V_EACH(p[i]);
}
VEC_INLINE v16 v_load_bf16(const uint16_t *p)
{
    V_EACH(bf16_to_f32(p[i]));
}
VEC_INLINE v16 v_load_f16(const uint16_t *p)
{
    V_EACH(f16_to_f32(p[i]));
}
VEC_INLINE v16 v_load_i8(const int8_t *p)
{
    V_EACH((float)p[i]);
}
VEC_INLINE void v_store(float *p, v16 a)
{
    memcpy(p, a.f, sizeof a.f);
}
VEC_INLINE v16 v_fma(v16 a, v16 b, v16 c)
{
    V_EACH(__builtin_fmaf(a.f[i], b.f[i], c.f[i]));
}
VEC_INLINE v16 v_add(v16 a, v16 b)
{
    V_EACH(a.f[i] + b.f[i]);
}
VEC_INLINE v16 v_sub(v16 a, v16 b)
{
    V_EACH(a.f[i] - b.f[i]);
}
VEC_INLINE v16 v_mul(v16 a, v16 b)
{
    V_EACH(a.f[i] * b.f[i]);
}
VEC_INLINE v16 v_div(v16 a, v16 b)
{
    V_EACH(a.f[i] / b.f[i]);
}
VEC_INLINE v16 v_max(v16 a, v16 b)
{
    V_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}
VEC_INLINE v16 v_min(v16 a, v16 b)
{
    V_EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]);
}
VEC_INLINE float scale1(float p, float t)
{
    uint32_t pb, tb;
    memcpy(&pb, &p, sizeof pb);
    memcpy(&tb, &t, sizeof tb);
    pb += tb << 23;
    memcpy(&p, &pb, sizeof p);
    return p;
}
VEC_INLINE v16 v_scale2(v16 p, v16 t)
{
    V_EACH(scale1(p.f[i], t.f[i]));
}
VEC_INLINE uint32_t v_nans(v16 a)
{
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= (uint32_t)(a.f[i] != a.f[i]) << i;
    return bits;
}
VEC_INLINE uint32_t v_at_least(v16 a, v16 b)
{
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++)
        bits |= (uint32_t)(a.f[i] >= b.f[i]) << i;
    return bits;
}

#endif

/*
 * As many lanes as a register has (vr): 16, or 8 of AVX2, where a v16 is a lower and an upper half,
 * or 4 of NEON.
 */
#if defined(OPS_AVX512) || !(defined(OPS_AVX2) || defined(OPS_NEON))
VEC_INLINE vr r_zero(void)
{
    return v_zero();
}
VEC_INLINE vr r_load(const float *p)
{
    return v_load(p);
}
VEC_INLINE vr r_load_bf16(const uint16_t *p)
{
    return v_load_bf16(p);
}
VEC_INLINE vr r_load_f16(const uint16_t *p)
{
    return v_load_f16(p);
}
VEC_INLINE vr r_fma(vr a, vr b, vr c)
{
    return v_fma(a, b, c);
}
VEC_INLINE v16 v_join(const vr part[1])
{
    return part[0];
}
#endif

/*
 * Sums over lanes, one tree everywhere: 16 -> 8 -> 4 by adding the upper half to the lower, then
 * (0 + 2) + (1 + 3). v_sum8: of eight vectors, whose trees share their additions. NEON's stand in
 * vec_neon.h.
 */
#if defined(OPS_AVX512) || defined(OPS_AVX2)
VEC_INLINE __m128 quarter_sum(v16 a)
{
    __m256 h = half_sum(a);
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}
/* The halves of a added, and those of b: of registers, then of halves. The order of the two in a
 * sum does not matter. */
VEC_INLINE __m256 fold8(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21));
}
VEC_INLINE __m256 fold4(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_blend_ps(a, b, 0xcc), _mm256_shuffle_ps(a, b, 0x4e));
}
VEC_INLINE void v_sum8(const v16 *a, float out[8])
{
    __m256 r0 = fold8(half_sum(a[0]), half_sum(a[4])), r1 = fold8(half_sum(a[1]), half_sum(a[5]));
    __m256 r2 = fold8(half_sum(a[2]), half_sum(a[6])), r3 = fold8(half_sum(a[3]), half_sum(a[7]));
    _mm256_storeu_ps(out, _mm256_hadd_ps(fold4(r0, r1), fold4(r2, r3)));
}
VEC_INLINE float v_sum(v16 a)
{
    float q[4];
    _mm_storeu_ps(q, quarter_sum(a));
    return (q[0] + q[2]) + (q[1] + q[3]);
}
#elif !defined(OPS_NEON)
VEC_INLINE float v_sum(v16 a)
{
    float h[8], q[4];
    for (int i = 0; i < 8; i++)
        h[i] = a.f[i] + a.f[i + 8];
    for (int i = 0; i < 4; i++)
        q[i] = h[i] + h[i + 4];
    return (q[0] + q[2]) + (q[1] + q[3]);
}
VEC_INLINE void v_sum8(const v16 *a, float out[8])
{
    for (int i = 0; i < 8; i++)
        out[i] = v_sum(a[i]);
}
#endif

VEC_INLINE float v_hmax(v16 a)
{
    float f[16];
    v_store(f, a);
    float m = f[0];
    for (int i = 1; i < 16; i++)
        m = f[i] > m ? f[i] : m;
    return m;
}

/* The first `n` lanes from memory, the others zero (or `fill`). */
VEC_INLINE v16 v_load_part(const float *p, int n, float fill)
{
    float t[16];
    for (int i = 0; i < 16; i++)
        t[i] = i < n ? p[i] : fill;
    return v_load(t);
}
VEC_INLINE void v_store_part(float *p, v16 a, int n)
{
    float t[16];
    v_store(t, a);
    for (int i = 0; i < n; i++)
        p[i] = t[i];
}

/*
 * e^x, x clamped to [-87, 88]: x = n ln2 + r by Cody and Waite, then Taylor's polynomial of degree
 * 7 on |r| <= ln2 / 2 (remainder under 2^-31), n added to the exponent. Within 2 units in the last
 * place.
 */
VEC_INLINE v16 v_exp(v16 x)
{
    x = v_max(v_min(x, v_set(88.0f)), v_set(-87.0f));
    const v16 round = v_set(12582912.0f); /* 1.5 x 2^23: adding it rounds to an integer */
    v16 t = v_fma(x, v_set(1.44269504088896341f), round);
    v16 n = v_sub(t, round);
    v16 r = v_fma(n, v_set(-0.693145751953125f), x);
    r = v_fma(n, v_set(-1.42860682030941723e-6f), r);
    v16 p = v_set(1.0f / 5040.0f);
    p = v_fma(p, r, v_set(1.0f / 720.0f));
    p = v_fma(p, r, v_set(1.0f / 120.0f));
    p = v_fma(p, r, v_set(1.0f / 24.0f));
    p = v_fma(p, r, v_set(1.0f / 6.0f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_scale2(p, t);
}

/* The largest of x[n]. */
static inline __attribute__((unused)) float v_row_max(const float *x, int32_t n)
{
    v16 m = v_load_part(x, n < 16 ? (int)n : 16, x[0]);
    for (int32_t k = 16; k < n; k += 16)
        m = v_max(m, n - k >= 16 ? v_load(x + k) : v_load_part(x + k, (int)(n - k), x[0]));
    return v_hmax(m);
}

/* x = e^(x - max), lanes past n zero in the sum; returns the sum. */
static inline __attribute__((unused)) float v_exp_row(float *x, int32_t n, float max)
{
    v16 sum = v_zero(), shift = v_set(max);
    int32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        v16 e = v_exp(v_sub(v_load(x + k), shift));
        v_store(x + k, e);
        sum = v_add(sum, e);
    }
    if (k < n) {
        int rest = (int)(n - k);
        v_store_part(x + k, v_exp(v_sub(v_load_part(x + k, rest, max), shift)), rest);
        sum = v_add(sum, v_load_part(x + k, rest, 0.0f));
    }
    return v_sum(sum);
}

/* Adds leaves s[n] times scale to sum[n], n <= 16, and keeps the bits of each lane's largest |leaf|
 * in largest[n]: in the order of bits NaN is above infinity, which is above all numbers. A constant
 * n is worth a branch: the compiler then knows its vectors. */
VEC_INLINE void add_leaf(const float *s, int n, float scale, double *sum, uint32_t *largest)
{
    float leaf[16] = {0}, size[16] = {0};
    uint32_t bits[16];
    for (int j = 0; j < n; j++) {
        leaf[j] = scale * s[j];
        size[j] = __builtin_fabsf(leaf[j]);
    }
    memcpy(bits, size, sizeof bits);
    for (int j = 0; j < n; j++)
        largest[j] = bits[j] > largest[j] ? bits[j] : largest[j];
    for (int j = 0; j < n; j++)
        sum[j] += exact_round((double)leaf[j]);
}

#endif
