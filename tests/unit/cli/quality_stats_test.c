/* KL divergence, perplexity and their errors against values computed by hand. */
#include "tests/unit/unit.h"

#include "cli/quality_stats.h"

#include <math.h>

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-6 * (1e-3 + fabs(expected))))
        fail_msg("expected %.12g, found %.12g", expected, found);
}

static void add(struct quality *q, const float *p, const float *other, int32_t vocab, int32_t next)
{
    struct error err;
    if (quality_add(q, p, other, vocab, next, &err) != OK)
        fail_msg("%s", err.msg);
}

static void begin(struct quality *q)
{
    struct error err;
    assert_int_equal(quality_begin(q, &err), OK);
}

/* p = (3/4, 1/4), q = (1/2, 1/2), whatever is added to all logits of one:
 * KL = 3/4 log(3/2) + 1/4 log(1/2). */
static void one_position(void **state)
{
    const float p[] = {logf(3) + 5, 5}, other[] = {-40, -40};
    struct quality q;
    struct quality_figures f;
    (void)state;
    quality_init(&q);
    begin(&q);
    add(&q, p, other, 2, 1);
    quality_figures(&q, &f);
    assert_int_equal(f.positions, 1);
    assert_int_equal(f.sequences, 1);
    assert_near(f.kl, 0.75 * log(1.5) + 0.25 * log(0.5));
    assert_near(f.kl_p99, f.kl);
    assert_near(f.kl_max, f.kl);
    assert_near(f.perplexity, 4);
    assert_near(f.perplexity_other, 2);
    assert_near(f.rise, log(0.5));
    assert_near(f.same_top, 1); /* of equal ones the lower id */
    assert_true(isnan(f.kl_error) && isnan(f.rise_error));
    quality_fini(&q);
}

/* The direction counts: KL(q || p) is another number. */
static void published_weights_weigh(void **state)
{
    const float p[] = {0, 0}, other[] = {logf(3), 0};
    struct quality q;
    struct quality_figures f;
    (void)state;
    quality_init(&q);
    begin(&q);
    add(&q, p, other, 2, 0);
    quality_figures(&q, &f);
    assert_near(f.kl, 0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25));
    assert_near(f.relative_error, 0); /* of zeros there is none */
    quality_fini(&q);
}

/* Three sequences of 1, 2 and 1 positions with KL k, 0 + k, 0: mean k/2; sums less mean times
 * length: k/2, 0, -k/2; the error sqrt(3/2 (k^2/4 + k^2/4)) / 4 = k sqrt(3)/8. */
static void errors_over_sequences(void **state)
{
    const float p[] = {logf(3), 0}, even[] = {0, 0}, other_top[] = {0, logf(3)};
    const double k = 0.75 * log(1.5) + 0.25 * log(0.5);
    struct quality q;
    struct quality_figures f;
    (void)state;
    quality_init(&q);
    begin(&q);
    add(&q, p, even, 2, 0);
    begin(&q);
    add(&q, p, p, 2, 1);
    add(&q, p, even, 2, 0);
    begin(&q);
    add(&q, p, p, 2, 0);
    quality_figures(&q, &f);
    assert_int_equal(f.positions, 4);
    assert_int_equal(f.sequences, 3);
    assert_near(f.kl, k / 2);
    assert_near(f.kl_error, k * sqrt(3) / 8);
    assert_near(f.kl_p99, k);
    assert_near(f.perplexity, exp(-(3 * log(0.75) + log(0.25)) / 4));
    assert_near(f.perplexity_other, exp(-(2 * log(0.5) + log(0.75) + log(0.25)) / 4));
    assert_near(f.rise, (2 * log(1.5)) / 4);
    assert_near(f.rise_error, log(1.5) * sqrt(3) / 8);
    assert_near(f.relative_error, sqrt(2.0 / 4));
    assert_near(f.same_top, 1);
    add(&q, p, other_top, 2, 0);
    quality_figures(&q, &f);
    assert_near(f.same_top, 0.8);
    assert_near(f.kl_max, 0.5 * log(3));
    quality_fini(&q);
}

/* The difference of logits that float sums would lose: KL is about (e^2)/2 p (1 - p). */
static void small_differences(void **state)
{
    const float p[] = {20, 20}, other[] = {20, 20.00006103515625f};
    struct quality q;
    struct quality_figures f;
    (void)state;
    quality_init(&q);
    begin(&q);
    add(&q, p, other, 2, 0);
    quality_figures(&q, &f);
    assert_true(fabs(f.kl / (0.125 * 0x1p-28) - 1) < 1e-4);
    quality_fini(&q);
}

static void refusals(void **state)
{
    const float good[] = {1, 2}, bad[] = {1, NAN};
    struct quality q;
    struct error err;
    (void)state;
    quality_init(&q);
    begin(&q);
    assert_int_equal(quality_add(&q, good, bad, 2, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "logit 1 of position 0"));
    assert_int_equal(quality_add(&q, bad, good, 2, 0, &err), ERR_INVALID);
    assert_int_equal(q.positions, 0);
    quality_fini(&q);
}

/* More positions and sequences than are there at first. */
static void many(void **state)
{
    const float p[] = {0, 0}, other[] = {logf(3), 0};
    struct quality q;
    struct quality_figures f;
    (void)state;
    quality_init(&q);
    for (int i = 0; i < 3000; i++) {
        begin(&q);
        add(&q, p, i < 2960 ? p : other, 2, 0);
    }
    quality_figures(&q, &f);
    assert_int_equal(f.positions, 3000);
    assert_int_equal(f.sequences, 3000);
    assert_near(f.kl_p99, f.kl_max); /* 40 of 3000 are more than one in a hundred */
    assert_near(f.kl, f.kl_max * 40 / 3000);
    quality_fini(&q);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(one_position),
    cmocka_unit_test(published_weights_weigh),
    cmocka_unit_test(errors_over_sequences),
    cmocka_unit_test(small_differences),
    cmocka_unit_test(refusals),
    cmocka_unit_test(many),
};

UNIT_MAIN(tests)
