/*
 * Passes over a row of logits: see rows.h. Compiled once for each instruction set, as ops.c is.
 */
#include "worker/cpu/rows.h"
#include "worker/cpu/ops.h"
#include "worker/cpu/vec.h"
#include "worker/sampler_inline.h"

#include <math.h>

#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)

static bool op_maxima(const float *x, int32_t n, float *maxima)
{
    uint32_t nans = 0;
    for (int32_t b = 0; b < n; b += ROW_BLOCK) {
        int32_t end = b + ROW_BLOCK < n ? b + ROW_BLOCK : n, i = b;
        v16 m0 = v_set(-INFINITY), m1 = m0;
        for (; i + 32 <= end; i += 32) {
            v16 x0 = v_load(x + i), x1 = v_load(x + i + 16);
            nans |= v_nans(x0) | v_nans(x1);
            m0 = v_max(m0, x0);
            m1 = v_max(m1, x1);
        }
        for (; i < end; i += 16) {
            v16 x0 = end - i < 16 ? v_load_part(x + i, end - i, -INFINITY) : v_load(x + i);
            nans |= v_nans(x0);
            m0 = v_max(m0, x0);
        }
        *maxima++ = v_hmax(v_max(m0, m1));
    }
    return nans == 0;
}

static int32_t op_at_least(const float *x, int32_t n, float least, int32_t first, int32_t *ids)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i += 16) {
        v16 a = n - i < 16 ? v_load_part(x + i, n - i, -INFINITY) : v_load(x + i);
        uint32_t lanes = v_at_least(a, v_set(least));
        if (n - i < 16)
            lanes &= (1u << (n - i)) - 1u;
        for (; lanes; lanes &= lanes - 1)
            ids[count++] = first + i + __builtin_ctz(lanes);
    }
    return count;
}

static double op_sum_exp(const float *x, int32_t n, float max)
{
    double sum = 0.0;
    for (int32_t b = 0; b < n; b += ROW_BLOCK) {
        int32_t end = b + ROW_BLOCK < n ? b + ROW_BLOCK : n;
        v16 s = v_zero();
        for (int32_t i = b; i < end; i += 16) {
            v16 a = end - i < 16 ? v_load_part(x + i, end - i, -INFINITY) : v_load(x + i);
            /* v_exp stops at e^-87, which a sum of 1 and more does not feel. */
            s = v_add(s, v_exp(v_sub(a, v_set(max))));
        }
        sum += (double)v_sum(s);
    }
    return sum;
}

/* detmath_exp and sampler_mass of eight, for x in [-23, 0]: the same operations, one by one. */
enum { MASSES = 8 };

VEC_INLINE void add_masses(const float *x, double max, double t, double sum[MASSES])
{
    const double round = 0x1.8p52, shift = 1572864.0;
    for (int l = 0; l < MASSES; l++) {
        double a = (double)x[l] / t - max / t;
        a = (max - (double)x[l]) > 22.95 * t ? -23.0 : a;
        double scaled = __builtin_fma(a, 0x1.71547652b82fep0, round), n = scaled - round;
        double r = __builtin_fma(-n, DETMATH_LN2_LO, __builtin_fma(-n, DETMATH_LN2_HI, a));
        uint64_t bits; /* whose low ones are n's: 2^n */
        double power;
        memcpy(&bits, &scaled, sizeof bits);
        bits = (bits + 1023) << 52;
        memcpy(&power, &bits, sizeof power);
        sum[l] += (detmath_exp_near(r) * power + shift) - shift;
    }
}

static double op_mass(const float *x, int32_t n, float max, float temperature)
{
    double sum[MASSES] = {0}, all = 0.0;
    int32_t i = 0;
    for (; i + MASSES <= n; i += MASSES)
        add_masses(x + i, (double)max, (double)temperature, sum);
    for (; i < n; i++)
        if (!((double)max - (double)x[i] > 22.95 * (double)temperature))
            all += sampler_mass(x[i], max, temperature);
    for (int l = 0; l < MASSES; l++)
        all += sum[l];
    return all;
}

static int32_t op_before(const float *x, int32_t n, float y, int32_t place)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i += 16) {
        v16 a = n - i < 16 ? v_load_part(x + i, n - i, -INFINITY) : v_load(x + i);
        uint32_t larger = v_at_least(a, v_set(y)) & ~v_at_least(v_set(y), a);
        uint32_t equal = v_at_least(a, v_set(y)) & v_at_least(v_set(y), a);
        if (i + 16 > place)
            equal &= i >= place ? 0 : (1u << (place - i)) - 1u;
        if (n - i < 16)
            equal &= (1u << (n - i)) - 1u;
        count += __builtin_popcount(larger | equal);
    }
    return count;
}

/* --- Philox4x32-10 over many tokens ---
 *
 * Eight counters at once, each word in the lower half of a 64-bit lane; what stands in the upper
 * half is never looked at. */

#if defined(OPS_AVX512)

typedef __m512i w8;

VEC_INLINE w8 w_set(uint32_t a)
{
    return _mm512_set1_epi64((long long)a);
}
VEC_INLINE w8 w_count(uint32_t first)
{
    const long long f = (long long)first;
    return _mm512_set_epi64(f + 7, f + 6, f + 5, f + 4, f + 3, f + 2, f + 1, f);
}
VEC_INLINE w8 w_mul(w8 a, w8 b)
{
    return _mm512_mul_epu32(a, b);
}
VEC_INLINE w8 w_high(w8 a)
{
    return _mm512_srli_epi64(a, 32);
}
VEC_INLINE w8 w_xor(w8 a, w8 b)
{
    return _mm512_xor_si512(a, b);
}
/* A bit for each lane whose word is at least `least`. */
VEC_INLINE uint32_t w_at_least(w8 a, w8 least)
{
    a = _mm512_and_si512(a, _mm512_set1_epi64(0xffffffff));
    return (uint32_t)_mm512_cmpge_epu64_mask(a, least);
}

#elif defined(OPS_AVX2)

typedef struct {
    __m256i lo, hi;
} w8;

VEC_INLINE w8 w_set(uint32_t a)
{
    return (w8){_mm256_set1_epi64x((long long)a), _mm256_set1_epi64x((long long)a)};
}
VEC_INLINE w8 w_count(uint32_t first)
{
    const long long f = (long long)first;
    return (w8){_mm256_set_epi64x(f + 3, f + 2, f + 1, f),
                _mm256_set_epi64x(f + 7, f + 6, f + 5, f + 4)};
}
VEC_INLINE w8 w_mul(w8 a, w8 b)
{
    return (w8){_mm256_mul_epu32(a.lo, b.lo), _mm256_mul_epu32(a.hi, b.hi)};
}
VEC_INLINE w8 w_high(w8 a)
{
    return (w8){_mm256_srli_epi64(a.lo, 32), _mm256_srli_epi64(a.hi, 32)};
}
VEC_INLINE w8 w_xor(w8 a, w8 b)
{
    return (w8){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
VEC_INLINE uint32_t w_at_least4(__m256i a, __m256i least)
{
    a = _mm256_and_si256(a, _mm256_set1_epi64x(0xffffffff)); /* both are then small and signed */
    __m256i below = _mm256_cmpgt_epi64(least, a);
    return ~(uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(below)) & 15u;
}
VEC_INLINE uint32_t w_at_least(w8 a, w8 least)
{
    return w_at_least4(a.lo, least.lo) | w_at_least4(a.hi, least.hi) << 4;
}

#else /* portable */

typedef struct {
    uint64_t u[8];
} w8;

#define W_EACH(expr)                                                                               \
    w8 r;                                                                                          \
    for (int i = 0; i < 8; i++)                                                                    \
        r.u[i] = (expr);                                                                           \
    return r

VEC_INLINE w8 w_set(uint32_t a)
{
    W_EACH(a);
}
VEC_INLINE w8 w_count(uint32_t first)
{
    W_EACH((uint64_t)first + (uint64_t)i);
}
VEC_INLINE w8 w_mul(w8 a, w8 b)
{
    W_EACH((a.u[i] & 0xffffffffu) * (b.u[i] & 0xffffffffu));
}
VEC_INLINE w8 w_high(w8 a)
{
    W_EACH(a.u[i] >> 32);
}
VEC_INLINE w8 w_xor(w8 a, w8 b)
{
    W_EACH(a.u[i] ^ b.u[i]);
}
VEC_INLINE uint32_t w_at_least(w8 a, w8 least)
{
    uint32_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits |= (uint32_t)((a.u[i] & 0xffffffffu) >= least.u[i]) << i;
    return bits;
}

#endif

/* Counters under way together: enough to hide how long a multiplication takes. */
enum { CHAINS = 4, TOGETHER = 8 * CHAINS };

/* The first word of sampler_philox of (id, position, 0, 0), for ids first, first + 1, ... The first
 * two rounds know of words that are zero or the same in all, the last needs one product only. */
VEC_INLINE void first_words(uint64_t seed, uint32_t position, uint32_t first, w8 out[CHAINS])
{
    const uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    const w8 v0 = w_set(m0), v1 = w_set(m1);
    /* Round 1: c0 = position ^ k0 in all, c1 = 0, c2 = high(m0 id) ^ k1, c3 = low(m0 id). */
    uint64_t a2 = (uint64_t)m0 * (position ^ k0); /* round 2's, in all */
    w8 c0[CHAINS], c1[CHAINS], c2[CHAINS], c3[CHAINS];
    uint32_t k02 = k0 + 0x9E3779B9u, k12 = k1 + 0xBB67AE85u;
#pragma GCC unroll 4
    for (int j = 0; j < CHAINS; j++) {
        w8 a = w_mul(v0, w_count(first + 8u * (uint32_t)j));
        w8 b = w_mul(v1, w_xor(w_high(a), w_set(k1)));
        c0[j] = w_xor(w_high(b), w_set(k02));
        c1[j] = b;
        c2[j] = w_xor(a, w_set((uint32_t)(a2 >> 32) ^ k12));
        c3[j] = w_set((uint32_t)a2);
    }
    k0 = k02, k1 = k12;
    for (int round = 3; round < 10; round++) {
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
#pragma GCC unroll 4
        for (int j = 0; j < CHAINS; j++) {
            w8 a = w_mul(v0, c0[j]), b = w_mul(v1, c2[j]);
            c0[j] = w_xor(w_xor(w_high(b), c1[j]), w_set(k0));
            c2[j] = w_xor(w_xor(w_high(a), c3[j]), w_set(k1));
            c1[j] = b;
            c3[j] = a;
        }
    }
    k0 += 0x9E3779B9u;
#pragma GCC unroll 4
    for (int j = 0; j < CHAINS; j++)
        out[j] = w_xor(w_xor(w_high(w_mul(v1, c2[j])), c1[j]), w_set(k0));
}

static int32_t op_lucky(uint64_t seed, int32_t position, int32_t first, int32_t n, uint32_t least,
                        int32_t *ids)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i += TOGETHER) {
        w8 words[CHAINS];
        uint32_t lanes = 0;
        first_words(seed, (uint32_t)position, (uint32_t)(first + i), words);
#pragma GCC unroll 4
        for (int j = 0; j < CHAINS; j++)
            lanes |= w_at_least(words[j], w_set(least)) << 8 * j;
        if (n - i < TOGETHER)
            lanes &= (1u << (n - i)) - 1u;
        for (; lanes; lanes &= lanes - 1)
            ids[count++] = first + i + __builtin_ctz(lanes);
    }
    return count;
}

extern const struct cpu_rows CAT(cpu_rows_, OPS_NAME); /* for ops.c */

const struct cpu_rows CAT(cpu_rows_, OPS_NAME) = {
    .maxima = op_maxima,
    .at_least = op_at_least,
    .sum_exp = op_sum_exp,
    .mass = op_mass,
    .before = op_before,
    .lucky = op_lucky,
};
