/* How the int8 KV cache rounds: scales, codes, and what is not a number. */
#include "tests/unit/random.h"
#include "tests/unit/unit.h"
#include "base/check.h"

#include "worker/cpu/vec.h"
#include "worker/kv8_inline.h"

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float scale_of(float greatest)
{
    return kv8_scale(kv8_magnitude(greatest));
}

/* Every scale is a bf16, is enough for the greatest, and no larger than it must be. */
static void scales_are_rounded_up(void **state)
{
    (void)state;
    uint64_t rng = 1;
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = (uint32_t)random_u64(&rng) & 0x7fffffffu;
        float x, scale;
        bits = i % 4 ? bits : bits & 0x00ffffffu; /* subnormal ones, and nearly */
        memcpy(&x, &bits, sizeof x);
        if (!isfinite(x))
            continue;
        scale = kv8_scale(kv8_magnitude(i % 2 ? x : -x));
        assert_int_equal(bits_of(scale) & 0xffffu, 0);
        float least = x / 127.0f, below = bf16_to_f32((uint16_t)((bits_of(scale) >> 16) - 1));
        assert_true(scale >= least && (scale == 0.0f || below < least));
        if (scale > 0.0f) {
            assert_in_range(kv8_code(x, scale), x < 0x1p-100f ? 0 : 126, 127);
            assert_int_equal(kv8_code(-x, scale), -kv8_code(x, scale));
        }
    }
    assert_true(scale_of(127.0f) == 1.0f);
    assert_int_equal(kv8_code(127.0f, 1.0f), 127);
}

static void codes_are_the_nearest(void **state)
{
    (void)state;
    uint64_t rng = 2;
    for (int i = 0; i < 200000; i++) {
        float greatest = (float)(random_unit(&rng) * 100.0), scale = scale_of(greatest);
        float x = (float)(random_unit(&rng) * (double)greatest);
        int code = kv8_code(x, scale);
        assert_true(fabs((double)x - (double)scale * code) <= 0.5000001 * (double)scale);
    }
    static const struct {
        float x;
        int code;
    } ties[] = {{0.5f, 0},   {1.5f, 2},     {2.5f, 2},     {-0.5f, 0},      {-1.5f, -2},
                {-2.5f, -2}, {125.5f, 126}, {126.5f, 126}, {-126.5f, -126}, {0.0f, 0}};
    for (size_t i = 0; i < COUNT_OF(ties); i++)
        assert_int_equal(kv8_code(ties[i].x, 1.0f), ties[i].code);
}

/* Zeros, and what is too small for any scale, are kept as zeros. */
static void zeros_have_scale_zero(void **state)
{
    (void)state;
    const float small[] = {0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 0x1.fp-144f};
    for (size_t i = 0; i < COUNT_OF(small); i++) {
        assert_int_equal(bits_of(scale_of(small[i])), 0);
        assert_int_equal(kv8_code(small[i], 0.0f), 0);
    }
}

/* What is not finite makes its group NaN, whatever else is in it. */
static void not_finite_makes_nan(void **state)
{
    (void)state;
    const float odd[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        uint32_t greatest = kv8_magnitude(3.4e38f), m = kv8_magnitude(odd[i]);
        assert_true(m > greatest);
        float scale = kv8_scale(m);
        assert_true(isnan(scale));
        assert_true(isnan(bf16_to_f32(f32_to_bf16(scale))));
        assert_int_equal(kv8_code(odd[i], scale), 0);
        assert_int_equal(kv8_code(1.0f, scale), 0);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(scales_are_rounded_up),
    cmocka_unit_test(codes_are_the_nearest),
    cmocka_unit_test(zeros_have_scale_zero),
    cmocka_unit_test(not_finite_makes_nan),
};

UNIT_MAIN(tests)
