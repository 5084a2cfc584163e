/* Elementary functions with fixed bits: see detmath.h; their bodies, detmath_inline.h. No state. */
#include "worker/detmath.h"

#include "worker/detmath_inline.h"

double det_exp(double x)
{
    return detmath_exp(x);
}

double det_log(double x)
{
    return detmath_log(x);
}

void det_sincos(double x, double *sin_x, double *cos_x)
{
    detmath_sincos(x, sin_x, cos_x);
}
