/*
 * The elementary functions against the C library's in long double (64 bits of precision, so its
 * error is under a thousandth of the units counted here), and their special arguments.
 */
#include "tests/unit/unit.h"

#include "tests/unit/random.h"
#include "worker/cpu/vec.h"
#include "worker/detmath.h"
#include "worker/detmath_inline.h"

#include <float.h>
#include <math.h>

/* |found - expected| in units of the last place of `expected` as a double. */
static double ulps(double found, long double expected)
{
    int e;
    frexpl(expected, &e);
    return (double)fabsl((long double)found - expected) / ldexp(1.0, e - DBL_MANT_DIG);
}

static void exp_is_within_two_ulp(void **state)
{
    (void)state;
    uint64_t rng = 1;
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        double scale = i % 4 == 0 ? 700.0 : i % 4 == 1 ? 20.0 : i % 4 == 2 ? 1.0 : 1e-6;
        double x = (2.0 * random_unit(&rng) - 1.0) * scale;
        double u = ulps(det_exp(x), expl((long double)x));
        worst = u > worst ? u : worst;
    }
    print_message("det_exp: %.3f ulp\n", worst);
    assert_true(worst <= 2.0);
}

static void exp_at_its_borders(void **state)
{
    (void)state;
    assert_true(det_exp(0.0) == 1.0 && det_exp(-0.0) == 1.0);
    assert_true(ulps(det_exp(700.0), expl(700.0L)) <= 2.0);
    assert_true(ulps(det_exp(-700.0), expl(-700.0L)) <= 2.0);
    assert_true(det_exp(700.0001) == DBL_MAX && det_exp(INFINITY) == DBL_MAX);
    assert_true(det_exp(-700.0001) == 0.0 && det_exp(-INFINITY) == 0.0);
    assert_true(det_exp(DBL_MIN) == 1.0 && det_exp(-DBL_TRUE_MIN) == 1.0);
}

static void log_is_within_two_ulp(void **state)
{
    (void)state;
    uint64_t rng = 2;
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        double u01 = random_unit(&rng) + 0x1p-60, x = u01;
        if (i % 4 == 1)
            x = 1.0 + (u01 - 0.5) * 1e-3; /* where the result is near zero */
        else if (i % 4 == 2)
            x = ldexp(0.5 + u01 / 2, random_int(&rng, -1020, 1020));
        else if (i % 4 == 3)
            x = 1.0 - ldexp(1.0, -random_int(&rng, 1, 53));
        double u = ulps(det_log(x), logl((long double)x));
        worst = u > worst ? u : worst;
    }
    print_message("det_log: %.3f ulp\n", worst);
    assert_true(worst <= 2.0);
}

static void log_at_its_borders(void **state)
{
    (void)state;
    assert_true(det_log(1.0) == 0.0);
    assert_true(ulps(det_log(DBL_MIN), logl((long double)DBL_MIN)) <= 2.0);
    assert_true(ulps(det_log(DBL_MAX), logl((long double)DBL_MAX)) <= 2.0);
    for (int e = -1000; e <= 1000; e += 50)
        assert_true(ulps(det_log(ldexp(1.0, e)), logl(ldexpl(1.0L, e))) <= 2.0);
    /* The sampler's least and greatest uniform numbers give finite noise. */
    assert_true(isfinite(det_log(-det_log(0x1p-54))));
    assert_true(isfinite(det_log(-det_log(1.0 - 0x1p-53))));
}

static void sincos_is_within_its_bound(void **state)
{
    (void)state;
    uint64_t rng = 3;
    double worst = 0.0;
    for (int i = 0; i < 400000; i++) {
        double scale = i % 3 == 0 ? 0x1p22 : i % 3 == 1 ? 40960.0 : 4.0;
        double x = (2.0 * random_unit(&rng) - 1.0) * scale, s, c;
        if (i % 5 == 0)
            x = (double)(float)x; /* angles are rounded to fp32 */
        if (i % 7 == 0)
            x = rint(x / 1.5707963267948966) * 1.5707963267948966; /* near zeros */
        det_sincos(x, &s, &c);
        double ds = (double)fabsl((long double)s - sinl((long double)x));
        double dc = (double)fabsl((long double)c - cosl((long double)x));
        worst = ds > worst ? ds : worst;
        worst = dc > worst ? dc : worst;
    }
    print_message("det_sincos: 2^%.2f\n", log2(worst));
    assert_true(worst < 0x1p-50);
}

static void sincos_at_its_borders(void **state)
{
    (void)state;
    double s, c;
    det_sincos(0.0, &s, &c);
    assert_true(s == 0.0 && c == 1.0);
    const double far[] = {0x1p22, -0x1p22, 1e-300, -1e-300, 0.78539816339744831};
    for (unsigned i = 0; i < sizeof far / sizeof *far; i++) {
        det_sincos(far[i], &s, &c);
        assert_true(fabsl((long double)s - sinl((long double)far[i])) < 0x1p-50L);
        assert_true(fabsl((long double)c - cosl((long double)far[i])) < 0x1p-50L);
        double t, d;
        det_sincos(-far[i], &t, &d);
        assert_true(t == -s && d == c);
    }
}

/* What kernels for GPUs use must be the CPU kernels' exponential, bit for bit. */
static void expf_has_the_bits_of_the_cpu_kernels(void **state)
{
    (void)state;
    uint64_t rng = 4;
    for (int i = 0; i < 100000; i++) {
        float x = (2.0f * (float)random_unit(&rng) - 1.0f) * (i % 2 ? 100.0f : 1.0f), lanes[16];
        float found = detmath_expf(x);
        v_store(lanes, v_exp(v_set(x)));
        assert_memory_equal(&found, lanes, sizeof found);
    }
}

/* Of NaNs also the one that GPUs give, 0x7fffffff. */
static void expf_of_a_nan_is_a_nan(void **state)
{
    (void)state;
    const uint32_t bits[] = {0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu, 0x7fc00001u};
    for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++) {
        float x;
        memcpy(&x, &bits[i], sizeof x);
        assert_true(isnan(detmath_expf(x)));
    }
}

/* clang-format off: a case a line, as tests/CMakeLists.txt reads them */
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(exp_is_within_two_ulp),
    cmocka_unit_test(exp_at_its_borders),
    cmocka_unit_test(log_is_within_two_ulp),
    cmocka_unit_test(log_at_its_borders),
    cmocka_unit_test(sincos_is_within_its_bound),
    cmocka_unit_test(sincos_at_its_borders),
    cmocka_unit_test(expf_has_the_bits_of_the_cpu_kernels),
    cmocka_unit_test(expf_of_a_nan_is_a_nan),
};
/* clang-format on */

UNIT_MAIN(tests)
