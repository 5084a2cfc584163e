/* Elementary functions with fixed bits: see detmath.h. No state. */
#include "worker/detmath.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static double scale2(double x, int n)
{
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double p;
    memcpy(&p, &bits, sizeof p);
    return x * p;
}

/* ln 2 and pi / 2 in two parts, the first with trailing zeros so that n times it is exact. */
static const double LN2_HI = 0x1.62e42fefa3800p-1, LN2_LO = 0x1.ef35793c76730p-45;

double det_exp(double x)
{
    if (x > 700.0)
        return DBL_MAX;
    if (x < -700.0)
        return 0.0;
    const double round = 0x1.8p52;
    double n = fma(x, 0x1.71547652b82fep0, round) - round;
    double r = fma(-n, LN2_LO, fma(-n, LN2_HI, x));
    /* Taylor to degree 13 on |r| <= 0.347: remainder under 2^-58. */
    double p = 1.0 / 6227020800.0;
    static const double c[] = {1.0 / 479001600.0,
                               1.0 / 39916800.0,
                               1.0 / 3628800.0,
                               1.0 / 362880.0,
                               1.0 / 40320.0,
                               1.0 / 5040.0,
                               1.0 / 720.0,
                               1.0 / 120.0,
                               1.0 / 24.0,
                               1.0 / 6.0,
                               0.5,
                               1.0,
                               1.0};
    for (unsigned i = 0; i < sizeof c / sizeof *c; i++)
        p = fma(p, r, c[i]);
    return scale2(p, (int)n);
}

double det_log(double x)
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
    return fma((double)e, LN2_HI, fma((double)e, LN2_LO, tail) + 2.0 * s);
}

void det_sincos(double x, double *sin_x, double *cos_x)
{
    const double round = 0x1.8p52;
    const double pio2_hi = 0x1.921fb54400000p0, pio2_mid = 0x1.0b4611a600000p-34,
                 pio2_lo = 0x1.3198a2e037073p-69;
    double n = fma(x, 0x1.45f306dc9c883p-1, round) - round;
    double r = fma(-n, pio2_lo, fma(-n, pio2_mid, fma(-n, pio2_hi, x)));
    double z = r * r;
    /* Taylor on |r| <= pi / 4: sine to r^17, cosine to r^18; remainders under 2^-60. */
    double s = 1.0 / 355687428096000.0;
    static const double sc[] = {
        -1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
        -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    for (unsigned i = 0; i < sizeof sc / sizeof *sc; i++)
        s = fma(s, z, sc[i]);
    s = fma(s * z, r, r);
    double c = -1.0 / 6402373705728000.0;
    static const double cc[] = {1.0 / 20922789888000.0,
                                -1.0 / 87178291200.0,
                                1.0 / 479001600.0,
                                -1.0 / 3628800.0,
                                1.0 / 40320.0,
                                -1.0 / 720.0,
                                1.0 / 24.0,
                                -0.5,
                                1.0};
    for (unsigned i = 0; i < sizeof cc / sizeof *cc; i++)
        c = fma(c, z, cc[i]);
    switch ((int64_t)n & 3) {
    case 0:
        *sin_x = s;
        *cos_x = c;
        break;
    case 1:
        *sin_x = c;
        *cos_x = -s;
        break;
    case 2:
        *sin_x = -s;
        *cos_x = -c;
        break;
    default:
        *sin_x = -c;
        *cos_x = s;
        break;
    }
}
