/* Charts: round ticks that cover the values, text that stays text, drawings without points. */
#include "tests/unit/unit.h"

#include "cli/load_svg.h"
#include "tests/unit/random.h"

#include "base/check.h"

#include <math.h>

static void assert_ticks(double lo, double hi, bool log, const double *expected, size_t count)
{
    double ticks[LOAD_SVG_TICKS];
    assert_int_equal(load_svg_ticks(lo, hi, log, ticks), count);
    for (size_t i = 0; i < count; i++) {
        if (!(fabs(ticks[i] - expected[i]) <= 1e-9 * fabs(expected[i])))
            fail_msg("%g to %g, tick %zu: expected %g, found %g", lo, hi, i, expected[i], ticks[i]);
    }
}

#define TICKS(lo, hi, log, ...)                                                                    \
    assert_ticks(lo, hi, log, (const double[]){__VA_ARGS__},                                       \
                 sizeof((const double[]){__VA_ARGS__}) / sizeof(double))

static void ticks_are_round(void **state)
{
    (void)state;
    TICKS(0, 100, false, 0, 20, 40, 60, 80, 100);
    TICKS(0, 101, false, 0, 20, 40, 60, 80, 100, 120);
    TICKS(39, 124, false, 20, 40, 60, 80, 100, 120, 140);
    TICKS(0, 0.03, false, 0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03);
    TICKS(0, 0, false, 0, 0.2, 0.4, 0.6, 0.8, 1);
    TICKS(5, 170, true, 5, 10, 20, 50, 100, 200);
    TICKS(0.3, 40, true, 0.2, 0.5, 1, 2, 5, 10, 20, 50);
    TICKS(0.001, 3000, true, 0.001, 0.01, 0.1, 1, 10, 100, 1000, 5000);
    TICKS(10, 10, true, 10, 20);
}

/* Over many ranges: they rise, they cover, there are neither too few nor too many. */
static void ticks_cover(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 20000; i++) {
        double ticks[LOAD_SVG_TICKS];
        double lo = pow(10, random_unit(&seed) * 12 - 6), hi = lo * pow(10, random_unit(&seed) * 9);
        bool log = i % 2;
        size_t n = load_svg_ticks(lo, hi, log, ticks);
        if (n < 2 || n > (log ? 20 : 9) || ticks[0] > lo * (1 + 1e-9) ||
            ticks[n - 1] < hi * (1 - 1e-9))
            fail_msg("%g to %g: %zu ticks from %g to %g", lo, hi, n, ticks[0], ticks[n - 1]);
        for (size_t k = 1; k < n; k++)
            assert_true(ticks[k] > ticks[k - 1]);
    }
}

/* The chart of one series as text; the caller frees it. */
static char *drawn(const struct load_svg_series *series, bool log)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    assert_non_null(out);
    const struct load_svg_chart chart = {.title = "a <title> & \"more\"",
                                         .said = "it's\x01said",
                                         .x = {.words = "x", .from_zero = true},
                                         .y = {.words = "y", .log = log, .from_zero = true},
                                         .series = series,
                                         .count = 1};
    load_svg_chart(out, &chart);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void words_are_escaped(void **state)
{
    const double x[] = {1, 2}, y[] = {3, 4};
    char labels[2][24] = {"<8>", "\xff"};
    const struct load_svg_series s = {
        .name = "</text>", .kind = LOAD_SVG_POINTS, .x = x, .y = y, .count = 2, .labels = labels};
    (void)state;
    char *text = drawn(&s, false);
    assert_non_null(strstr(text, "a &#60;title&#62; &#38; &#34;more&#34;"));
    assert_non_null(strstr(text, "it&#39;s?said"));
    assert_non_null(strstr(text, "&#60;/text&#62;"));
    assert_non_null(strstr(text, "&#60;8&#62;</text>"));
    assert_non_null(strstr(text, ">?</text>"));
    free(text);
}

static void nothing_to_draw(void **state)
{
    const double x[] = {1, 2}, y[] = {0, NAN};
    const struct load_svg_series none = {.name = "n", .kind = LOAD_SVG_LINE},
                                 unfit = {.name = "n", .x = x, .y = y, .count = 2};
    (void)state;
    char *text = drawn(&none, false);
    assert_non_null(strstr(text, "Nothing was measured."));
    free(text);
    text = drawn(&unfit, true); /* a logarithm of 0 */
    assert_non_null(strstr(text, "Nothing was measured."));
    assert_null(strstr(text, "nan"));
    free(text);
}

/* Corners of steps and the place of values. */
static void values_lie_where_they_should(void **state)
{
    const double x[] = {0, 5, 10}, y[] = {0, 10, 5};
    const struct load_svg_series s = {.kind = LOAD_SVG_BARS, .x = x, .y = y, .count = 3};
    (void)state;
    char *text = drawn(&s, false);
    /* Plot: x 56 to 398, y 30 to 220; the last y is not used. */
    assert_non_null(strstr(text, "d=\"M56.0 220.0L56.0 220.0L227.0 220.0L227.0 30.0L398.0 30.0"
                                 "L398.0 220.0z\""));
    free(text);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ticks_are_round),
    cmocka_unit_test(ticks_cover),
    cmocka_unit_test(words_are_escaped),
    cmocka_unit_test(nothing_to_draw),
    cmocka_unit_test(values_lie_where_they_should),
};

UNIT_MAIN(tests)
