/*
 * Elementary functions in double precision with the same bits on every machine: the C library's may
 * differ between versions and processors, and the forward pass and the sampler must not. Explicit
 * fma, no tables. Errors are against a correctly rounded result (tests/unit/worker/detmath_test.c).
 */
#ifndef WITAN_WORKER_DETMATH_H
#define WITAN_WORKER_DETMATH_H

/* e^x for |x| <= 700; beyond, 0 or the largest double. Within 2 ulp. */
double det_exp(double x);

/* Natural logarithm of a positive normal number. Within 2 ulp. */
double det_log(double x);

/* Sine and cosine of |x| <= 2^22 radians (positions times RoPE frequencies). Absolute error under
 * 2^-50. */
void det_sincos(double x, double *sin_x, double *cos_x);

#endif
