/* Lengths and arrivals: their distributions by fixed seeds, and what their flags may say. */
#include "cli/load_random.h"
#include "tests/unit/unit.h"

#include <math.h>

enum { MANY = 200000 };

static struct load_length length(const char *text)
{
    struct load_length l;
    struct error err;
    assert_int_equal(load_length_parse(text, &l, &err), OK);
    return l;
}

/* Mean and variance of many draws. */
static void moments(const char *text, double *mean, double *variance)
{
    struct load_length l = length(text);
    struct load_rng r;
    double sum = 0, squares = 0;
    load_rng_init(&r, 7, 1);
    for (int i = 0; i < MANY; i++) {
        double x = load_length_draw(&l, &r);
        sum += x;
        squares += x * x;
    }
    *mean = sum / MANY;
    *variance = squares / MANY - *mean * *mean;
}

static void draws_lengths_of_the_distribution(void **state)
{
    (void)state;
    double mean, variance;
    moments("512", &mean, &variance);
    assert_true(mean == 512 && variance == 0);
    moments("uniform:10:20", &mean, &variance); /* of 11 values: (11^2 - 1) / 12 */
    assert_true(fabs(mean - 15) < 0.05 && fabs(variance - 10) < 0.15);
    moments("normal:500:50", &mean, &variance);
    assert_true(fabs(mean - 500) < 0.6 && fabs(variance - 2500) < 40);
    moments("lognormal:500:100", &mean, &variance);
    assert_true(fabs(mean - 500) < 1.2 && fabs(variance - 10000) < 250);
}

static void lengths_stay_in_their_bounds(void **state)
{
    (void)state;
    struct load_rng r;
    struct load_length low = length("normal:2:500"), even = length("uniform:3:4");
    int32_t least = INT32_MAX, seen[2] = {0};
    load_rng_init(&r, 1, 1);
    for (int i = 0; i < 10000; i++) {
        int32_t n = load_length_draw(&low, &r), m = load_length_draw(&even, &r);
        least = n < least ? n : least;
        assert_true(m == 3 || m == 4);
        seen[m - 3]++;
    }
    assert_int_equal(least, 1);
    assert_true(seen[0] > 4500 && seen[1] > 4500);
}

static void refuses_bad_words(void **state)
{
    (void)state;
    static const char *const bad_lengths[] = {
        "",           "0",           "-5",          "5.5",
        "x",          "uniform:5",   "uniform:9:5", "uniform:1:2.5",
        "normal:5",   "normal::5",   "normal:5:",   "normal:5:1x",
        "1048577",    "uniform:0:5", "exp:5",       "lognormal:0:1",
        "normal:5:-1"};
    static const char *const bad_arrivals[] = {
        "", "Poisson", "burst", "burst:", "burst:0", "burst:-1", "burst:2x", "burst:1000001"};
    struct load_length l;
    struct load_arrivals a;
    struct error err;
    for (size_t i = 0; i < sizeof bad_lengths / sizeof *bad_lengths; i++) {
        if (load_length_parse(bad_lengths[i], &l, &err) != ERR_INVALID)
            fail_msg("took the length \"%s\"", bad_lengths[i]);
        assert_non_null(strstr(err.msg, "uniform:FROM:TO"));
    }
    for (size_t i = 0; i < sizeof bad_arrivals / sizeof *bad_arrivals; i++)
        if (load_arrivals_parse(bad_arrivals[i], &a, &err) != ERR_INVALID)
            fail_msg("took the arrivals \"%s\"", bad_arrivals[i]);
}

/* Gaps of a Poisson process are exponential: their deviation is their mean, and how many come in a
 * second varies as much as it is on average. */
static void poisson_arrivals_are_independent(void **state)
{
    (void)state;
    struct load_arrivals a = {.rate = 100};
    struct error err;
    double sum = 0, squares = 0, before = 0, products = 0;
    int64_t last = 0;
    static int per_second[4000];
    int used = 0;
    assert_int_equal(load_arrivals_parse("poisson", &a, &err), OK);
    load_rng_init(&a.rng, 5, 5);
    for (int i = 0; i < MANY; i++) {
        int64_t at = load_arrivals_next(&a);
        assert_true(at >= last);
        double gap = (double)(at - last) * 1e-9;
        sum += gap;
        squares += gap * gap;
        products += (gap - 0.01) * (before - 0.01);
        before = gap;
        last = at;
        if (at / 1000000000 < 4000 && at / 1000000000 >= used)
            used = (int)(at / 1000000000) + 1;
        if (at / 1000000000 < 4000)
            per_second[at / 1000000000]++;
    }
    double mean = sum / MANY, variance = squares / MANY - mean * mean;
    assert_true(fabs(mean - 0.01) < 0.0001);
    assert_true(fabs(variance - 0.0001) < 0.000003);
    assert_true(fabs(products / MANY) < 0.000001); /* a gap says nothing of the next */
    assert_true(used > 1900);
    double count_sum = 0, count_squares = 0;
    for (int i = 0; i < 1900; i++) {
        count_sum += per_second[i];
        count_squares += (double)per_second[i] * per_second[i];
    }
    double count_mean = count_sum / 1900;
    assert_true(fabs(count_mean - 100) < 1.2);
    assert_true(fabs(count_squares / 1900 - count_mean * count_mean - 100) < 12);
}

static void other_arrivals_come_when_they_must(void **state)
{
    (void)state;
    struct load_arrivals even = {.rate = 4}, burst = {.rate = 4}, all = {.rate = INFINITY};
    struct error err;
    assert_int_equal(load_arrivals_parse("constant", &even, &err), OK);
    assert_int_equal(load_arrivals_parse("burst:3", &burst, &err), OK);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(load_arrivals_next(&even), (int64_t)i * 250000000);
        assert_int_equal(load_arrivals_next(&burst), (int64_t)(i / 3) * 750000000);
        assert_int_equal(load_arrivals_next(&all), 0);
    }
}

static void the_same_seed_is_the_same_load(void **state)
{
    (void)state;
    struct load_rng a, b, other, stream;
    load_rng_init(&a, 9, 2);
    load_rng_init(&b, 9, 2);
    load_rng_init(&other, 10, 2);
    load_rng_init(&stream, 9, 3);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = load_rng_next(&a);
        assert_true(x == load_rng_next(&b));
        equal += x == load_rng_next(&other);
        equal += x == load_rng_next(&stream);
        double u = load_rng_unit(&a);
        assert_true(u > 0 && u <= 1 && u == load_rng_unit(&b));
        assert_true(load_rng_below(&a, 7) < 7);
        load_rng_next(&b);
    }
    assert_int_equal(equal, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(draws_lengths_of_the_distribution),
    cmocka_unit_test(lengths_stay_in_their_bounds),
    cmocka_unit_test(refuses_bad_words),
    cmocka_unit_test(poisson_arrivals_are_independent),
    cmocka_unit_test(other_arrivals_come_when_they_must),
    cmocka_unit_test(the_same_seed_is_the_same_load),
};

UNIT_MAIN(tests)
