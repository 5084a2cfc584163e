/* Who would wait how long, and when refused requests are told to come again. */
#include "coordinator/admission.h"
#include "tests/unit/unit.h"

#include <math.h>

static int64_t at(double seconds)
{
    return (int64_t)((1000 + seconds) * 1e9);
}

static void the_rate_tells_when(void **state)
{
    (void)state;
    struct admission a = {0};
    for (int i = 0; i < 640; i++) /* 10 a second for 64 s */
        admission_ended(&a, at(i * 0.1));
    assert_int_equal(admission_retry_s(&a, 1, at(63.9)), 1);
    assert_int_equal(admission_retry_s(&a, 10, at(63.9)), 1);
    assert_int_equal(admission_retry_s(&a, 100, at(63.9)), 10);
    assert_int_equal(admission_retry_s(&a, 200, at(63.9)), 20);
    assert_int_equal(admission_retry_s(&a, 100000, at(63.9)), ADMISSION_RETRY_MAX_S);
    /* Half the window later nothing has ended since. */
    assert_int_equal(admission_retry_s(&a, 100, at(79.9)), 20);
    assert_int_equal(admission_retry_s(&a, 1, at(200)), ADMISSION_RETRY_MAX_S);
}

static void what_was_long_ago_is_forgotten(void **state)
{
    (void)state;
    struct admission a = {0};
    for (int i = 0; i < 1000; i++)
        admission_ended(&a, at(0));
    admission_ended(&a, at(31)); /* the window still reaches the first second */
    assert_int_equal(admission_retry_s(&a, 100, at(31)), 4);
    admission_ended(&a, at(40)); /* and here no longer */
    assert_int_equal(admission_retry_s(&a, 2, at(40)), 26);
    admission_ended(&a, at(500));
    assert_int_equal(admission_retry_s(&a, 1, at(500)), 22);
}

static void a_fresh_one_guesses_within_bounds(void **state)
{
    (void)state;
    struct admission a = {0};
    assert_int_equal(admission_retry_s(&a, 1, at(0)), ADMISSION_RETRY_MAX_S);
    assert_int_equal(admission_retry_s(&a, 0, at(0)), ADMISSION_RETRY_MAX_S);
    for (int i = 0; i < 20; i++)
        admission_ended(&a, at(0.01 * i));
    assert_int_equal(admission_retry_s(&a, 1, at(1)), 1); /* of two seconds, not of 32 */
    assert_int_equal(admission_retry_s(&a, 205, at(1)), 20);
    assert_int_equal(admission_retry_s(&a, INT32_MAX, at(1)), ADMISSION_RETRY_MAX_S);
}

static void refused_together_do_not_come_together(void **state)
{
    (void)state;
    assert_int_equal(admission_spread_s(10, 0), 8);
    assert_int_equal(admission_spread_s(10, UINT64_MAX), 12);
    assert_int_equal(admission_spread_s(0.1, 0), ADMISSION_RETRY_MIN_S);
    /* Those that wait longest, too. */
    assert_int_equal(admission_spread_s(1e300, 0), 40);
    assert_int_equal(admission_spread_s(1e300, UINT64_MAX), ADMISSION_RETRY_MAX_S);
    assert_int_equal(admission_spread_s(ADMISSION_RETRY_MAX_S, 1ull << 63), 50);
    assert_int_equal(admission_spread_s(NAN, 0), ADMISSION_RETRY_MIN_S);
}

static void assert_about(double a, double b)
{
    if (!(fabs(a - b) <= 0.05 * fabs(b)))
        fail_msg("expected about %g, found %g", b, a);
}

/* `count` requests of 100 tokens are there and each `each_s` one begins, and one comes for it. */
static double go_on(struct backlog *b, double from, int count, double each_s)
{
    double t = from;
    for (int i = 0; i < count; i++) {
        t += each_s;
        backlog_begin(b, 0, 100, at(t));
        backlog_remove(b, 0, 0, at(t));
        backlog_add(b, 0, 100, at(t));
    }
    return t;
}

static void the_wait_is_what_is_ahead_at_the_rate_so_far(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 200, .slots = 1000};
    assert_true(backlog_wait_s(&b, 0, at(0)) == 0.0);
    for (int i = 0; i < 50; i++)
        backlog_add(&b, 0, 100, at(0));
    assert_int_equal(backlog_tokens(&b), 5000);
    assert_true(backlog_wait_s(&b, 0, at(1)) == 0.0); /* nobody knows yet */
    double t = go_on(&b, 0, 400, 0.05);               /* 2000 tokens a second */
    assert_about(backlog_wait_s(&b, 0, at(t)), 2.5);
    t = go_on(&b, t, 400, 0.1); /* it has become slower */
    assert_about(backlog_wait_s(&b, 0, at(t)), 5.0);
    /* A group that stands still is slower and slower. */
    assert_true(backlog_wait_s(&b, 0, at(t + 30)) > 15);
}

/* A group that was busy up to the time that is given, and that nobody waits for any more. */
static struct backlog busy_until(double *t)
{
    struct backlog b = {.step_tokens = 200, .slots = 1000};
    for (int i = 0; i < 10; i++)
        backlog_add(&b, 0, 100, at(0));
    *t = go_on(&b, 0, 100, 0.1);
    for (int i = 0; i < 10; i++)
        backlog_remove(&b, 0, 100, at(*t));
    assert_int_equal(backlog_tokens(&b), 0);
    return b;
}

/* A pause without any backlog says nothing about the rate. */
static void idle_time_does_not_count(void **state)
{
    (void)state;
    double t;
    struct backlog b = busy_until(&t);
    backlog_add(&b, 0, 150, at(t + 5));
    assert_true(backlog_wait_s(&b, 0, at(t + 7)) == 0.0); /* the next step takes it */
    backlog_add(&b, 0, 850, at(t + 7));
    assert_about(backlog_wait_s(&b, 0, at(t + 7)), 1.0);
}

/* And after a long one nothing is known: what was measured was another load's. */
static void a_long_pause_forgets_the_rate(void **state)
{
    (void)state;
    double t;
    struct backlog b = busy_until(&t);
    backlog_add(&b, 0, 150, at(t + 5)); /* no backlog */
    backlog_add(&b, 0, 20000, at(t + 10));
    assert_true(backlog_wait_s(&b, 0, at(t + 10)) == 0.0);
    assert_true(backlog_wait_s(&b, 0, at(t + 11)) == 0.0);
    backlog_begin(&b, 0, 20000, at(t + 12));
    backlog_add(&b, 0, 20000, at(t + 12));
    assert_about(backlog_wait_s(&b, 0, at(t + 12)), 2);
}

static void priorities_wait_behind_their_own(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 10, .slots = 1000};
    backlog_add(&b, -1, 100, at(0));
    backlog_add(&b, 0, 300, at(0));
    backlog_add(&b, 1, 600, at(0));
    assert_true(backlog_wait_s(&b, -1, at(10)) > 0.0);
    assert_about(backlog_wait_s(&b, 0, at(10)), 4 * backlog_wait_s(&b, -1, at(10)));
    assert_about(backlog_wait_s(&b, 1, at(10)), 10 * backlog_wait_s(&b, -1, at(10)));
    backlog_remove(&b, -1, 100, at(10));
    assert_true(backlog_wait_s(&b, -1, at(20)) == 0.0);
}

/* Few tokens, but every slot is taken: the rate at which slots fall free counts. */
static void slots_count_too(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 4096, .slots = 4};
    for (int i = 0; i < 12; i++)
        backlog_add(&b, 0, 10, at(0));
    for (int i = 0; i < 4; i++)
        backlog_begin(&b, 0, 10, at(0));
    for (int i = 0; i < 200; i++) { /* one ends each second, and another begins */
        backlog_remove(&b, 0, 0, at(i + 1));
        backlog_begin(&b, 0, 10, at(i + 1));
        backlog_add(&b, 0, 10, at(i + 1));
    }
    assert_about(backlog_wait_s(&b, 0, at(200)), 8);
}

/* One prompt that takes minutes: what of it is done is known from the group's own count. */
static void a_long_prompt_goes_on(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 100, .slots = 8};
    backlog_fed(&b, 5000);
    backlog_add(&b, 0, 20000, at(0));
    backlog_begin(&b, 0, 20000, at(100)); /* 200 tokens a second */
    backlog_fed(&b, 25000);
    backlog_remove(&b, 0, 0, at(100));
    backlog_add(&b, 0, 100, at(100)); /* the next step's */
    backlog_begin(&b, 0, 100, at(100.5));
    backlog_add(&b, 0, 20000, at(105));
    backlog_fed(&b, 35000);
    assert_about(backlog_wait_s(&b, 0, at(155)), 50);
    backlog_fed(&b, 7); /* it was started again */
    assert_true(backlog_wait_s(&b, 0, at(156)) > 50);
}

/* A short one that begins beside it takes its own tokens of what is done, and no more. */
static void progress_is_kept_as_others_begin(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 100, .slots = 8};
    backlog_fed(&b, 0);
    backlog_add(&b, 0, 20000, at(0));
    backlog_add(&b, 0, 100, at(0));
    backlog_fed(&b, 10100);
    backlog_begin(&b, 0, 100, at(50));
    backlog_remove(&b, 0, 0, at(50));
    assert_about(backlog_wait_s(&b, 0, at(50)), 49.5); /* 10000 are done, and 10000 left */
    /* What begins before it is told is no progress of others, once it is. */
    backlog_add(&b, 0, 300, at(50));
    backlog_begin(&b, 0, 300, at(50));
    backlog_fed(&b, 10400);
    assert_about(backlog_wait_s(&b, 0, at(50)), 48);
    /* What was computed for nobody is forgotten. */
    backlog_remove(&b, 0, 20000, at(50));
    backlog_add(&b, 0, 20000, at(50));
    assert_true(backlog_wait_s(&b, 0, at(50)) > 1000);
}

/* Sequences that gave way are computed again: such tokens do not add up to a wait of nothing. */
static void what_is_fed_twice_does_not_add_up(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 200, .slots = 1000};
    uint64_t fed = 0;
    double t = 0;
    for (int i = 0; i < 50; i++)
        backlog_add(&b, 0, 100, at(0));
    for (int i = 0; i < 200; i++) { /* 1000 tokens a second, and 100 more */
        t = go_on(&b, t, 10, 0.1);
        backlog_fed(&b, fed += 1100);
    }
    double wait = backlog_wait_s(&b, 0, at(t));
    if (!(wait > 2.5 && wait < 5.5))
        fail_msg("expected about 5, or little less, found %g", wait);
}

/* Ranks that come again, or that a new coordinator finds, have fed millions before. */
static void what_was_fed_before_is_no_progress(void **state)
{
    (void)state;
    struct backlog b = {.step_tokens = 100, .slots = 8};
    for (int i = 0; i < 2; i++) {
        backlog_attached(&b);
        backlog_add(&b, 0, 20000, at(100 * i));
        backlog_fed(&b, (uint64_t)(i + 1) * 1000000);
        assert_true(backlog_wait_s(&b, 0, at(100 * i + 10)) > 1000);
        backlog_remove(&b, 0, 20000, at(100 * i + 10));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_rate_tells_when),
    cmocka_unit_test(what_was_long_ago_is_forgotten),
    cmocka_unit_test(a_fresh_one_guesses_within_bounds),
    cmocka_unit_test(refused_together_do_not_come_together),
    cmocka_unit_test(the_wait_is_what_is_ahead_at_the_rate_so_far),
    cmocka_unit_test(idle_time_does_not_count),
    cmocka_unit_test(a_long_pause_forgets_the_rate),
    cmocka_unit_test(priorities_wait_behind_their_own),
    cmocka_unit_test(slots_count_too),
    cmocka_unit_test(a_long_prompt_goes_on),
    cmocka_unit_test(progress_is_kept_as_others_begin),
    cmocka_unit_test(what_is_fed_twice_does_not_add_up),
    cmocka_unit_test(what_was_fed_before_is_no_progress),
};

UNIT_MAIN(tests)
