/* Ranks slower than those that do the same work. */
#include "tests/unit/unit.h"

#include "coordinator/slow.h"

enum { RANKS = 3 };

static const int64_t s = 1000000000;

struct group {
    struct slow_rank ranks[RANKS], *list[RANKS];
    struct slow_sample now[RANKS];
    int64_t now_ns;
};

static void make(struct group *g)
{
    *g = (struct group){.now_ns = 1};
    for (int i = 0; i < RANKS; i++)
        g->list[i] = &g->ranks[i];
}

/* One window later, with so many steps of each[i] milliseconds. */
static void window(struct group *g, int32_t count, uint64_t steps, const double *each)
{
    for (int i = 0; i < count; i++) {
        g->now[i].steps += steps;
        g->now[i].compute_s += (double)steps * each[i] * 1e-3;
    }
    g->now_ns += SLOW_WINDOW_S * s;
    slow_window(g->list, g->now, count, g->now_ns);
}

static void near(double found, double expected)
{
    assert_true(found > expected - 1e-6 && found < expected + 1e-6);
}

static void ratio_is_to_the_median(void **state)
{
    (void)state;
    struct group g;
    make(&g);
    const double each[] = {10, 20, 12};
    window(&g, 3, 50, each); /* the first one only begins */
    near(g.ranks[1].ratio, 0);
    window(&g, 3, 50, each);
    near(g.ranks[0].ratio, 10.0 / 12);
    near(g.ranks[1].ratio, 20.0 / 12);
    near(g.ranks[2].ratio, 1);
    near(g.ranks[1].step_s, 20e-3);
    make(&g);
    window(&g, 2, 50, each);
    window(&g, 2, 50, each); /* of two: to the faster one */
    near(g.ranks[0].ratio, 1);
    near(g.ranks[1].ratio, 2);
}

static void told_after_half_a_minute_and_once_a_minute(void **state)
{
    (void)state;
    struct group g;
    make(&g);
    const double each[] = {10, 16, 10}, fine[] = {10, 15, 10};
    int told = 0;
    window(&g, 3, 50, each);
    for (int64_t begin = g.now_ns; g.now_ns < begin + 200 * s;) {
        window(&g, 3, 50, each);
        bool now = slow_tell(g.list[1], g.now_ns);
        assert_false(slow_tell(g.list[1], g.now_ns));
        assert_false(slow_tell(g.list[0], g.now_ns));
        if (now && told++ == 0)
            assert_int_equal((g.now_ns - begin) / s, SLOW_AFTER_S + SLOW_WINDOW_S);
    }
    assert_int_equal(told, 3); /* at 35, 95 and 155 s */
    window(&g, 3, 50, fine);   /* once below, it begins anew */
    assert_int_equal(g.ranks[1].slow_ns, 0);
    window(&g, 3, 50, each);
    for (int i = 0; i < SLOW_AFTER_S / SLOW_WINDOW_S - 1; i++)
        assert_false(slow_tell(g.list[1], g.now_ns + i * SLOW_WINDOW_S * s));
}

static void idle_windows_say_nothing(void **state)
{
    (void)state;
    struct group g;
    make(&g);
    const double each[] = {10, 20, 10};
    window(&g, 3, 50, each);
    window(&g, 3, 50, each);
    int64_t since = g.ranks[1].slow_ns;
    assert_true(since > 0);
    window(&g, 3, SLOW_STEPS - 1, (double[]){10, 10, 10});
    window(&g, 3, 0, each);
    near(g.ranks[1].ratio, 2);
    assert_int_equal(g.ranks[1].slow_ns, since);
}

static void figures_that_go_back_or_are_none(void **state)
{
    (void)state;
    struct group g;
    make(&g);
    const double each[] = {10, 20, 10};
    window(&g, 3, 50, each);
    window(&g, 3, 50, (double[]){-10, 20, 10});
    near(g.ranks[1].ratio, 0);
    g.now[0].steps = 1; /* a rank that started anew */
    slow_window(g.list, g.now, 3, g.now_ns += s);
    near(g.ranks[1].ratio, 0);
    window(&g, 3, 50, (double[]){0, 0, 0}); /* nothing to compare with */
    near(g.ranks[1].ratio, 0);
    assert_int_equal(g.ranks[1].slow_ns, 0);
    slow_window(g.list, g.now, 0, g.now_ns);
    window(&g, 1, 50, each); /* alone */
    near(g.ranks[0].ratio, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ratio_is_to_the_median),
    cmocka_unit_test(told_after_half_a_minute_and_once_a_minute),
    cmocka_unit_test(idle_windows_say_nothing),
    cmocka_unit_test(figures_that_go_back_or_are_none),
};

UNIT_MAIN(tests)
