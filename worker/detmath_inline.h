/*
 * The elementary functions of detmath.h as inline functions, in what C, C++ and CUDA have in
 * common: every operation is one correctly rounded IEEE operation and fma is explicit, so a CPU and
 * a GPU give the same bits (build without contraction: -ffp-contract=off, nvcc -fmad=false).
 * detmath.c makes detmath.h's functions of these; kernels use them as they are.
 */
#ifndef WITAN_WORKER_DETMATH_INLINE_H
#define WITAN_WORKER_DETMATH_INLINE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define DETMATH static __host__ __device__ __forceinline__
#else
#define DETMATH static inline __attribute__((unused))
#endif

/* ln 2 in two parts, the first with trailing zeros so that n times it is exact. */
#define DETMATH_LN2_HI 0x1.62e42fefa3800p-1
#define DETMATH_LN2_LO 0x1.ef35793c76730p-45

DETMATH double detmath_scale2(double x, int n)
{
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double p;
    memcpy(&p, &bits, sizeof p);
    return x * p;
}

/* e^r for |r| <= 0.347: Taylor to degree 13, remainder under 2^-58. */
DETMATH double detmath_exp_near(double r)
{
    double p = 1.0 / 6227020800.0;
    p = fma(p, r, 1.0 / 479001600.0);
    p = fma(p, r, 1.0 / 39916800.0);
    p = fma(p, r, 1.0 / 3628800.0);
    p = fma(p, r, 1.0 / 362880.0);
    p = fma(p, r, 1.0 / 40320.0);
    p = fma(p, r, 1.0 / 5040.0);
    p = fma(p, r, 1.0 / 720.0);
    p = fma(p, r, 1.0 / 120.0);
    p = fma(p, r, 1.0 / 24.0);
    p = fma(p, r, 1.0 / 6.0);
    p = fma(p, r, 0.5);
    p = fma(p, r, 1.0);
    p = fma(p, r, 1.0);
    return p;
}

/* det_exp */
DETMATH double detmath_exp(double x)
{
    if (x > 700.0)
        return DBL_MAX;
    if (x < -700.0)
        return 0.0;
    const double round = 0x1.8p52;
    double n = fma(x, 0x1.71547652b82fep0, round) - round;
    double r = fma(-n, DETMATH_LN2_LO, fma(-n, DETMATH_LN2_HI, x));
    return detmath_scale2(detmath_exp_near(r), (int)n);
}

/* det_log */
DETMATH double detmath_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int e = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    /* ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.1716: odd series to s^23. */
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = 1.0 / 23.0;
    for (int k = 21; k >= 3; k -= 2)
        p = fma(p, z, 1.0 / (double)k);
    double tail = 2.0 * s * z * p;
    return fma((double)e, DETMATH_LN2_HI, fma((double)e, DETMATH_LN2_LO, tail) + 2.0 * s);
}

/* det_sincos */
DETMATH void detmath_sincos(double x, double *sin_x, double *cos_x)
{
    const double round = 0x1.8p52;
    const double pio2_hi = 0x1.921fb54400000p0, pio2_mid = 0x1.0b4611a600000p-34,
                 pio2_lo = 0x1.3198a2e037073p-69;
    double n = fma(x, 0x1.45f306dc9c883p-1, round) - round;
    double r = fma(-n, pio2_lo, fma(-n, pio2_mid, fma(-n, pio2_hi, x)));
    double z = r * r;
    /* Taylor on |r| <= pi / 4: sine to r^17, cosine to r^18; remainders under 2^-60. */
    double s = 1.0 / 355687428096000.0;
    s = fma(s, z, -1.0 / 1307674368000.0);
    s = fma(s, z, 1.0 / 6227020800.0);
    s = fma(s, z, -1.0 / 39916800.0);
    s = fma(s, z, 1.0 / 362880.0);
    s = fma(s, z, -1.0 / 5040.0);
    s = fma(s, z, 1.0 / 120.0);
    s = fma(s, z, -1.0 / 6.0);
    s = fma(s * z, r, r);
    double c = -1.0 / 6402373705728000.0;
    c = fma(c, z, 1.0 / 20922789888000.0);
    c = fma(c, z, -1.0 / 87178291200.0);
    c = fma(c, z, 1.0 / 479001600.0);
    c = fma(c, z, -1.0 / 3628800.0);
    c = fma(c, z, 1.0 / 40320.0);
    c = fma(c, z, -1.0 / 720.0);
    c = fma(c, z, 1.0 / 24.0);
    c = fma(c, z, -0.5);
    c = fma(c, z, 1.0);
    int quarter = (int)((int64_t)n & 3);
    double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sin_x = quarter & 2 ? -a : a;
    *cos_x = quarter == 1 || quarter == 2 ? -b : b;
}

/* e^x in single precision with the bits of the CPU kernels' v_exp (worker/cpu/vec.h), where it is
 * explained. Within 2 units in the last place on [-87, 88], to which x is clamped. A NaN gives a
 * NaN, whatever its bits: a GPU's, all ones, would not outlive the sum of exponents. */
DETMATH float detmath_expf(float x)
{
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float round = 12582912.0f;
    float t = fmaf(x, 1.44269504088896341f, round);
    float n = t - round;
    float r = fmaf(n, -0.693145751953125f, x);
    r = fmaf(n, -1.42860682030941723e-6f, r);
    float p = 1.0f / 5040.0f;
    p = fmaf(p, r, 1.0f / 720.0f);
    p = fmaf(p, r, 1.0f / 120.0f);
    p = fmaf(p, r, 1.0f / 24.0f);
    p = fmaf(p, r, 1.0f / 6.0f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t p_bits, t_bits;
    memcpy(&p_bits, &p, sizeof p_bits);
    memcpy(&t_bits, &t, sizeof t_bits);
    p_bits += t_bits << 23;
    memcpy(&p, &p_bits, sizeof p);
    return x != x ? x : p;
}

#endif
