/* Histograms against counting by hand. */
#include "base/histogram.h"
#include "tests/unit/unit.h"

#include <math.h>

static const struct histogram_bounds three = {.count = 3, .at = {1, 2, 4}};

static void values_fall_under_their_bound(void **state)
{
    struct histogram h;
    const double values[] = {-1, 0.5, 1, 1.5, 2, 3, 4, 4.5, 1e300};
    (void)state;
    histogram_init(&h, &three);
    for (size_t i = 0; i < sizeof values / sizeof *values - 1; i++)
        histogram_add(&h, values[i]);
    assert_int_equal(h.counts[0], 3); /* a bound is under itself */
    assert_int_equal(h.counts[1], 2);
    assert_int_equal(h.counts[2], 2);
    assert_int_equal(h.counts[3], 1);
    assert_true(h.sum == 15.5);
    histogram_add(&h, 1e300);
    assert_int_equal(h.counts[3], 2);
    assert_int_equal(histogram_total(&h), 9);
}

static void what_is_no_number_is_left_out(void **state)
{
    struct histogram h;
    (void)state;
    histogram_init(&h, &histogram_seconds);
    histogram_add(&h, NAN);
    assert_int_equal(histogram_total(&h), 0);
    assert_true(h.sum == 0);
}

static void bounds_of_its_own_ascend(void **state)
{
    const struct histogram_bounds *all[] = {&histogram_seconds, &histogram_sizes};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        assert_in_range(all[k]->count, 1, HISTOGRAM_MAX_BOUNDS);
        for (int32_t i = 1; i < all[k]->count; i++)
            assert_true(all[k]->at[i] > all[k]->at[i - 1]);
    }
    /* Each value lands where a search from the left would put it. */
    struct histogram h;
    for (int32_t i = 0; i < histogram_seconds.count; i++) {
        histogram_init(&h, &histogram_seconds);
        histogram_add(&h, histogram_seconds.at[i]);
        histogram_add(&h, nextafter(histogram_seconds.at[i], 1e9));
        assert_int_equal(h.counts[i], 1);
        assert_int_equal(h.counts[i + 1], 1);
    }
}

static void merging_adds(void **state)
{
    struct histogram a, b, other;
    (void)state;
    const struct histogram_bounds same = three;
    histogram_init(&a, &three);
    histogram_init(&b, &same);
    histogram_init(&other, &histogram_sizes);
    histogram_add(&a, 1);
    histogram_add(&b, 1);
    histogram_add(&b, 9);
    histogram_add(&other, 1);
    assert_true(histogram_merge(&a, &b));
    assert_int_equal(a.counts[0], 2);
    assert_int_equal(a.counts[3], 1);
    assert_true(a.sum == 11);
    assert_false(histogram_merge(&a, &other));
    assert_int_equal(histogram_total(&a), 3);
    assert_true(a.sum == 11);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(values_fall_under_their_bound),
    cmocka_unit_test(what_is_no_number_is_left_out),
    cmocka_unit_test(bounds_of_its_own_ascend),
    cmocka_unit_test(merging_adds),
};

UNIT_MAIN(tests)
