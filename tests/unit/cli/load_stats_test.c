/* Statistics of a load against values computed by hand. */
#include "tests/unit/unit.h"

#include "cli/load_stats.h"
#include "tests/unit/cli/load_runs.h"

static void assert_near(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-9 * (1 + fabs(expected))))
        fail_msg("expected %.12g, found %.12g", expected, found);
}

static struct load_stats stats_of(const struct load_run *run, const struct load_slo *slo)
{
    struct load_stats s;
    struct error err;
    assert_int_equal(load_stats_make(run, slo, &s, &err), OK);
    return s;
}

/* The values that numpy.percentile gives for these. */
static void quantiles_are_linear(void **state)
{
    const double one[] = {5}, two[] = {1, 3}, five[] = {1, 2, 4, 8, 16};
    (void)state;
    assert_near(load_quantile(one, 1, 0.99), 5);
    assert_near(load_quantile(two, 2, 0.5), 2);
    assert_near(load_quantile(two, 2, 0.9), 2.8);
    assert_near(load_quantile(five, 5, 0.5), 4);
    assert_near(load_quantile(five, 5, 0.9), 12.8);
    assert_near(load_quantile(five, 5, 0.99), 15.68);
    assert_near(load_quantile(five, 5, 0), 1);
    assert_near(load_quantile(five, 5, 1), 16);
}

/* Unsorted, a warm-up, one that failed, late sending, a chunk of several tokens. */
static void a_run(struct load_run *run)
{
    *run = run_make("concurrency 2");
    run_add(run, -500, 0, CHUNKS(1, 2, 3), 3)->warm_up = true;
    run_add(run, 40, 40, CHUNKS(60, 70, 100), 5);
    run_add(run, 0, 0, CHUNKS(20, 30, 40, 50), 4)->cached_tokens = 8;
    strcpy(run_add(run, 50, 0, CHUNKS(10, 20), 2)->error, "cut off: after 2 tokens");
    run_add(run, 100, 0, CHUNKS(100), 1);
    run->ended_ns = 1000 * MS + 250 * MS; /* the failed one's end */
}

static void latencies_of_a_run(void **state)
{
    struct load_run run;
    (void)state;
    a_run(&run);
    struct load_stats s = stats_of(&run, NULL);
    const struct load_dist *d = s.dist;
    /* From intended: 20, 100, 100 ms; from sending: 20, 60, 100. */
    assert_int_equal(d[LOAD_TTFT].count, 3);
    assert_near(d[LOAD_TTFT].mean, 0.220 / 3);
    assert_near(d[LOAD_TTFT].p50, 0.100);
    assert_near(d[LOAD_TTFT].max, 0.100);
    assert_near(d[LOAD_TTFT_SENT].p50, 0.060);
    assert_near(d[LOAD_TTFT_SENT].p90, 0.092);
    /* (100 - 60) / 4 and (50 - 20) / 3; one token has none. */
    assert_int_equal(d[LOAD_TPOT].count, 2);
    assert_near(d[LOAD_TPOT].p50, 0.010);
    /* 10, 30 and 10, 10, 10. */
    assert_int_equal(d[LOAD_ITL].count, 5);
    assert_near(d[LOAD_ITL].mean, 0.014);
    assert_near(d[LOAD_ITL].p90, 0.022);
    assert_near(d[LOAD_ITL].p99, 0.0292);
    /* 140, 50, 100. */
    assert_near(d[LOAD_E2E].p50, 0.100);
    assert_near(d[LOAD_E2E].p99, 0.1392);
    load_run_fini(&run);
}

static void rates_of_a_run(void **state)
{
    struct load_run run;
    (void)state;
    a_run(&run);
    run.energy_j = 5;
    struct load_stats s = stats_of(&run, NULL);
    assert_int_equal(s.counted, 4);
    assert_int_equal(s.succeeded, 3);
    assert_int_equal(s.failed, 1);
    assert_int_equal(s.warm_ups, 1);
    assert_true(s.usage);
    assert_near(s.window_s, 0.25);
    assert_near(s.requests_per_s, 12);
    assert_near(s.output_tokens_per_s, 40);
    assert_near(s.total_tokens_per_s, 160);
    assert_near(s.in_flight, 0.29 / 0.25);
    assert_near(s.cached_share, 8 / 30.0);
    assert_near(s.tokens_per_chunk, 10 / 8.0);
    assert_near(s.joules_per_token, 0.5);
    assert_near(s.wh_output, 0.5 / 3.6);
    assert_near(s.wh_total, 5.0 / 40 / 3.6);
    assert_true(isnan(s.goodput));
    load_run_fini(&run);
}

static void goodput_needs_every_bound(void **state)
{
    struct load_run run;
    struct load_slo slo;
    struct error err;
    const struct {
        const char *bounds;
        double kept;
    } cases[] = {
        {"ttft:1000", 3},       {"ttft:50", 1}, {"tpot:9.5", 1},         {"e2e:100", 2},
        {"ttft:100,e2e:99", 1}, {"ttft:10", 0}, {"tpot:10,ttft:100", 3},
    };
    (void)state;
    a_run(&run);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(load_slo_parse(cases[i].bounds, &slo, &err), OK);
        assert_near(stats_of(&run, &slo).goodput, cases[i].kept / 0.25);
    }
    slo = LOAD_SLO_NONE;
    assert_true(isnan(stats_of(&run, &slo).goodput));
    load_run_fini(&run);
}

static void bounds_are_checked(void **state)
{
    static const char *const bad[] = {"",         "ttft",      "ttft:",      "ttft:0",  "ttft:-1",
                                      "ttft:1ms", "itl:5",     "ttft:1,",    ",ttft:1", "ttft:nan",
                                      "e2e:inf",  "tpot:1 ,e", "e2e:1,e2e:2"};
    struct load_slo slo = {1, 2, 3};
    struct error err;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(load_slo_parse(bad[i], &slo, &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, "expected bounds in ms"));
    }
    assert_near(slo.e2e_s, 3); /* as it was */
    assert_int_equal(load_slo_parse("e2e:1500,ttft:200", &slo, &err), OK);
    assert_near(slo.ttft_s, 0.2);
    assert_near(slo.e2e_s, 1.5);
    assert_true(isinf(slo.tpot_s));
}

/* The fewest figures are kept, and none is invented. */
static void nothing_succeeded(void **state)
{
    struct load_run run = run_make("none");
    struct load_slo slo = {.ttft_s = 1, .tpot_s = 1, .e2e_s = 1};
    (void)state;
    strcpy(run_add(&run, 0, 0, NULL, 0, 0)->error, "refused: connection refused");
    run.ended_ns = run.began_ns + 500 * MS;
    struct load_stats s = stats_of(&run, &slo);
    assert_int_equal(s.failed, 1);
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++) {
        assert_int_equal(s.dist[m].count, 0);
        assert_true(isnan(s.dist[m].p99) && isnan(s.dist[m].mean));
    }
    assert_near(s.requests_per_s, 0);
    assert_near(s.goodput, 0);
    assert_true(isnan(s.cached_share) && isnan(s.tokens_per_chunk) && isnan(s.joules_per_token));
    assert_true(isnan(s.wh_output) && isnan(s.wh_total));
    load_run_fini(&run);
}

static void one_request_of_one_token(void **state)
{
    struct load_run run = run_make("one");
    (void)state;
    run_add(&run, 0, 0, CHUNKS(25), 1);
    struct load_stats s = stats_of(&run, NULL);
    assert_near(s.dist[LOAD_TTFT].p50, 0.025);
    assert_near(s.dist[LOAD_TTFT].p99, 0.025);
    assert_near(s.dist[LOAD_E2E].max, 0.025);
    assert_int_equal(s.dist[LOAD_TPOT].count, 0);
    assert_int_equal(s.dist[LOAD_ITL].count, 0);
    assert_near(s.output_tokens_per_s, 40);
    load_run_fini(&run);
}

static void an_answer_without_tokens(void **state)
{
    struct load_run run = run_make("silent");
    struct load_slo slo = {.ttft_s = 10, .tpot_s = INFINITY, .e2e_s = INFINITY};
    (void)state;
    run_add(&run, 0, 0, NULL, 0, 0)->usage = false;
    run.ended_ns = run.began_ns + 100 * MS;
    struct load_stats s = stats_of(&run, &slo);
    assert_int_equal(s.succeeded, 1);
    assert_int_equal(s.silent, 1);
    assert_false(s.usage);
    assert_int_equal(s.dist[LOAD_TTFT].count, 0);
    assert_near(s.goodput, 0);
    load_run_fini(&run);
}

static void an_empty_run(void **state)
{
    struct load_run run = run_make("empty");
    (void)state;
    struct load_stats s = stats_of(&run, NULL);
    assert_int_equal(s.counted, 0);
    assert_near(s.window_s, 0);
    assert_near(s.output_tokens_per_s, 0);
    load_run_fini(&run);
}

static void failures_by_kind(void **state)
{
    struct load_run run = run_make("failing");
    (void)state;
    for (int i = 0; i < 12; i++)
        snprintf(run_add(&run, i, 0, NULL, 0, 0)->error, sizeof run.records->error, "kind %d: %d",
                 i == 11 ? 3 : i, i);
    struct load_stats s = stats_of(&run, NULL);
    size_t all = 0;
    assert_int_equal(s.failure_kinds, LOAD_MAX_KINDS);
    for (size_t i = 0; i < s.failure_kinds; i++)
        all += s.failures[i].count;
    assert_int_equal(all, 12);
    assert_string_equal(s.failures[0].kind, "other"); /* kinds 7 to 10 */
    assert_int_equal(s.failures[0].count, 4);
    assert_string_equal(s.failures[1].kind, "kind 3");
    assert_string_equal(s.failures[1].example, "kind 3: 3");
    assert_int_equal(s.failures[1].count, 2);
    load_run_fini(&run);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(quantiles_are_linear),
    cmocka_unit_test(latencies_of_a_run),
    cmocka_unit_test(rates_of_a_run),
    cmocka_unit_test(goodput_needs_every_bound),
    cmocka_unit_test(bounds_are_checked),
    cmocka_unit_test(nothing_succeeded),
    cmocka_unit_test(one_request_of_one_token),
    cmocka_unit_test(an_answer_without_tokens),
    cmocka_unit_test(an_empty_run),
    cmocka_unit_test(failures_by_kind),
};

UNIT_MAIN(tests)
