/* When a group is started again. */
#include "tests/unit/unit.h"

#include "cli/restart.h"

static const int64_t ms = 1000000;

static void waits_double_up_to_a_bound(void **state)
{
    (void)state;
    static const int32_t waits[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
    struct restart low = {0}, high = {0};
    restart_ready(&low, 5 * ms);
    restart_ready(&high, 5 * ms);
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        assert_int_equal(restart_plan(&low, 9 * ms, 0), waits[i] / 2);
        assert_int_equal(low.due_ns, (9 + waits[i] / 2) * ms);
        assert_in_range(restart_plan(&high, 9 * ms, UINT32_MAX), waits[i] - 1, waits[i]);
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(restart_plan(&low, 9 * ms, 0), 30000);
}

static void who_has_served_begins_anew(void **state)
{
    (void)state;
    struct restart r = {0};
    assert_false(r.served);
    for (int i = 0; i < 4; i++)
        restart_plan(&r, 0, 0);
    restart_ready(&r, 1 * ms);
    assert_true(r.served);
    assert_int_equal(restart_plan(&r, RESTART_SOUND_MS * ms, 0), 8000); /* not long enough */
    restart_ready(&r, 1 * ms);
    assert_int_equal(restart_plan(&r, (RESTART_SOUND_MS + 1) * ms, 0), 500);
    assert_int_equal(restart_plan(&r, INT64_MAX / 2, 0), 1000); /* it has not served since */
}

static void a_planned_end_is_no_try(void **state)
{
    (void)state;
    struct restart r = {0};
    restart_ready(&r, 1 * ms);
    restart_plan(&r, 2 * ms, 0);
    r.planned = true;
    assert_int_equal(restart_plan(&r, 3 * ms, UINT32_MAX), 0);
    assert_int_equal(r.due_ns, 3 * ms);
    assert_false(r.planned);
    assert_int_equal(restart_plan(&r, 4 * ms, 0), 1000); /* and this end was none */
    r.planned = true;
    restart_ready(&r, 5 * ms); /* it was not heard of, and the group serves on */
    assert_int_equal(restart_plan(&r, 6 * ms, 0), 2000);
}

static void a_start_is_waited_for_as_long_as_starts_take(void **state)
{
    (void)state;
    enum { MOST = 3600000 };
    struct restart r = {0};
    assert_int_equal(restart_patience_ms(&r, MOST), MOST); /* nothing is known */
    restart_begun(&r, 7 * ms);
    restart_heard(&r, 1006 * ms);
    assert_int_equal(r.heard_ms, 1000);
    restart_heard(&r, 99999 * ms); /* not since it was started: ranks that attached again */
    assert_int_equal(r.heard_ms, 1000);
    assert_int_equal(restart_patience_ms(&r, MOST), RESTART_HEARD_MS);
    assert_int_equal(restart_patience_ms(&r, 20000), 20000);
    restart_begun(&r, 1 * ms);
    restart_heard(&r, 20000 * ms);
    assert_int_equal(restart_patience_ms(&r, MOST), 80000); /* the longest, four times */
    restart_begun(&r, 1);
    restart_heard(&r, 5 * ms);
    assert_int_equal(restart_patience_ms(&r, MOST), 80000);
    for (r.unheard = 1; r.unheard < 5; r.unheard++)
        assert_int_equal(restart_patience_ms(&r, MOST), 80000 << r.unheard);
    r.unheard = 40;
    assert_int_equal(restart_patience_ms(&r, MOST), MOST);
    restart_begun(&r, 1);
    restart_heard(&r, 2);
    assert_int_equal(r.unheard, 0);
}

static void an_end_is_no_arrival(void **state)
{
    (void)state;
    struct restart r = {0};
    restart_begun(&r, 1 * ms);
    restart_plan(&r, 2 * ms, 0);
    restart_heard(&r, 900 * ms);
    assert_int_equal(r.heard_ms, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_start_is_waited_for_as_long_as_starts_take),
    cmocka_unit_test(an_end_is_no_arrival),
    cmocka_unit_test(waits_double_up_to_a_bound),
    cmocka_unit_test(who_has_served_begins_anew),
    cmocka_unit_test(a_planned_end_is_no_try),
};

UNIT_MAIN(tests)
