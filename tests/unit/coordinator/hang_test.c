/* Who is blamed for a group that stands still, by its heartbeats alone; time is the test's. */
#include "tests/unit/unit.h"

#include "coordinator/hang.h"

#include <string.h>

#define PHASE(name) WITAN__CLUSTER__V1__PHASE__PHASE_##name

enum { RANKS = 4, LAYERS = 48, S = 1000, TIMEOUT_S = 4 }; /* times are in ms here */

static const int64_t ms = 1000000;
static const char *const hosts[RANKS] = {"node1", "node1", "node2", "node2"};

struct group {
    struct hang_rank ranks[RANKS];
    const struct hang_rank *list[RANKS];
    int32_t count;
    struct hang_rules rules;
    char why[1000];
};

static void make(struct group *g, int32_t count)
{
    memset(g, 0, sizeof *g);
    g->count = count;
    g->rules = (struct hang_rules){
        .timeout_ns = TIMEOUT_S * S * ms, .layers = LAYERS, .stuck = true};
    for (int32_t i = 0; i < count; i++) {
        g->ranks[i] = (struct hang_rank){.rank = (uint32_t)i,
                                         .host = hosts[i],
                                         .pid = 4710 + (uint64_t)i,
                                         .heard_ns = 1,
                                         .moved_ns = 1};
        g->list[i] = &g->ranks[i];
    }
}

struct beat {
    int phase;
    uint64_t progress, step;
    uint32_t layer;
    bool meets;
    uint32_t running;
};

static void hear(struct group *g, int32_t rank, int64_t at_ms, struct beat b)
{
    Witan__Cluster__V1__Heartbeat h = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    h.phase = (Witan__Cluster__V1__Phase)b.phase;
    h.progress = b.progress;
    h.step = b.step;
    h.layer = b.layer;
    h.meets = b.meets;
    h.running = b.running;
    hang_heard(&g->ranks[rank], &h, at_ms * ms);
}

static enum hang_kind judge(struct group *g, int64_t at_ms)
{
    return hang_judge(g->list, g->count, &g->rules, at_ms * ms, g->why, sizeof g->why);
}

/* Each second from `from` to `to`, both ranks as they are. */
static void hear_for(struct group *g, int64_t from_s, int64_t to_s, const struct beat *beats)
{
    for (int64_t s = from_s; s <= to_s; s++)
        for (int32_t i = 0; i < g->count; i++)
            hear(g, i, s * S, beats[i]);
}

#define FINE(g, at)                                                                                \
    do {                                                                                           \
        if (judge(g, at))                                                                          \
            fail_msg("at %d ms: expected nothing, found: %s", (int)(at), (g)->why);                \
    } while (0)
#define BLAMED(g, at, kind, words)                                                                 \
    do {                                                                                           \
        assert_int_equal(judge(g, at), kind);                                                      \
        assert_string_equal((g)->why, words);                                                      \
    } while (0)

static const struct beat forward = {PHASE(FORWARD), 5000, 812, 12, false, 3};
static const struct beat meets = {PHASE(FORWARD), 5001, 812, 12, true, 0};

/* --- silence --- */

static void silent_rank_is_named_with_its_last_place(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear(&g, 0, 10 * S, meets);
    hear(&g, 1, 10 * S, forward);
    hear(&g, 0, 13 * S, meets);
    FINE(&g, 14 * S);
    BLAMED(&g, 14 * S + 200, HANG_RANK_SILENT,
           "rank 1 (node1, pid 4711) has been silent for 4.2 s, last heard in phase forward at "
           "step 812 (layer 12 of 48): its process is stopped, its host is down, or the network to "
           "it is cut");
}

static void silence_while_idle_or_between_steps_counts_too(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear(&g, 0, 10 * S, (struct beat){PHASE(IDLE), 9, 7, 49, false, 0});
    hear(&g, 1, 14 * S, (struct beat){PHASE(IDLE), 9, 7, 49, false, 0});
    BLAMED(&g, 14 * S + 100, HANG_RANK_SILENT,
           "rank 0 (node1, pid 4710) has been silent for 4.1 s, last heard in phase idle at step "
           "7: its process is stopped, its host is down, or the network to it is cut");
}

static void silent_host_is_named(void **state)
{
    (void)state;
    struct group g;
    make(&g, 4);
    hear_for(&g, 10, 10, (struct beat[]){meets, meets, forward, meets});
    hear(&g, 3, 10 * S + 700, meets); /* heard a little later than the other of its host */
    for (int64_t s = 11; s <= 14; s++)
        for (int32_t i = 0; i < 2; i++)
            hear(&g, i, s * S, meets);
    BLAMED(&g, 14 * S + 100, HANG_RANKS_SILENT,
           "ranks 2 and 3 on node2 have been silent for 4.1 s; rank 2 was last heard in phase "
           "forward at step 812 (layer 12 of 48): that host is down, or the network to it is cut");
}

static void silent_hosts_are_named(void **state)
{
    (void)state;
    struct group g;
    make(&g, 3);
    hear_for(&g, 10, 10, (struct beat[]){forward, forward, forward});
    BLAMED(&g, 14 * S + 100, HANG_RANKS_SILENT,
           "ranks 0, 1 and 2 on node1 and node2 have been silent for 4.1 s; rank 0 was last heard "
           "in phase forward at step 812 (layer 12 of 48): those hosts are down, or the network to "
           "them is cut");
    g.rules.everyone = true;
    BLAMED(&g, 14 * S + 100, HANG_ALL_SILENT,
           "all ranks of all groups have been silent for 4.1 s: this coordinator's own host is "
           "probably cut off from theirs");
}

static void starting_group_is_watched_for_silence_alone(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    g.rules.stuck = false;
    hear_for(&g, 10, 60, (struct beat[]){meets, forward});
    FINE(&g, 60 * S + 900);
    assert_true(judge(&g, 64 * S + 100));
}

/* --- standing still --- */

static void who_computes_is_blamed_and_not_who_waits(void **state)
{
    (void)state;
    struct group g;
    for (int32_t culprit = 0; culprit < 2; culprit++) {
        make(&g, 2);
        struct beat beats[] = {culprit == 0 ? forward : meets, culprit == 1 ? forward : meets};
        hear_for(&g, 10, 14, beats);
        FINE(&g, 14 * S);
        assert_int_equal(judge(&g, 14 * S + 100), HANG_RANK_STUCK);
        char expected[300];
        snprintf(expected, sizeof expected,
                 "rank %d (node1, pid %d) has made no progress for 4.1 s in phase forward at step "
                 "812 (layer 12 of 48), and the others wait for it: its process or its device "
                 "hangs",
                 culprit, 4710 + culprit);
        assert_string_equal(g.why, expected);
    }
}

static void alone_it_is_blamed_too(void **state)
{
    (void)state;
    struct group g;
    make(&g, 1);
    hear_for(&g, 10, 14, &forward);
    BLAMED(&g, 14 * S + 100, HANG_RANK_STUCK,
           "rank 0 (node1, pid 4710) has made no progress for 4.1 s in phase forward at step 812 "
           "(layer 12 of 48): its process or its device hangs");
}

static void who_has_not_woken_is_blamed(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear_for(&g, 10, 14,
             (struct beat[]){{PHASE(WAITING), 90, 812, 49, true, 2},
                             {PHASE(IDLE), 80, 812, 49, false, 0}});
    assert_true(judge(&g, 14 * S + 100));
    assert_non_null(strstr(g.why, "rank 1 (node1, pid 4711) has made no progress for 4.1 s in "
                                  "phase idle at step 812, and the others wait for it"));
}

static void rank_0_may_hang_between_steps(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear_for(&g, 10, 14,
             (struct beat[]){{PHASE(WAITING), 90, 812, 49, false, 2},
                             {PHASE(WAITING), 80, 812, 49, true, 0}});
    assert_true(judge(&g, 14 * S + 100));
    assert_non_null(strstr(g.why, "rank 0 (node1, pid 4710) has made no progress"));
}

/* Nor with sequences that only wait to be run. */
static void rank_0_may_hang_before_the_first_sequence(void **state)
{
    (void)state;
    struct group g;
    Witan__Cluster__V1__Heartbeat h = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    make(&g, 1);
    h.phase = WITAN__CLUSTER__V1__PHASE__PHASE_WAITING;
    h.progress = 90;
    h.step = 812;
    for (int64_t s = 10; s <= 14; s++)
        hang_heard(&g.ranks[0], &h, s * S * ms);
    FINE(&g, 14 * S + 100);
    h.waiting = 1;
    hang_heard(&g.ranks[0], &h, 14 * S * ms + 200 * ms);
    BLAMED(&g, 14 * S + 300, HANG_RANK_STUCK,
           "rank 0 (node1, pid 4710) has made no progress for 4.3 s in phase waiting at step 812: "
           "its process or its device hangs");
}

static void all_wait_at_one_place(void **state)
{
    (void)state;
    struct group g;
    make(&g, 4);
    hear_for(&g, 10, 14, (struct beat[]){meets, meets, meets, meets});
    BLAMED(&g, 14 * S + 500, HANG_ALL_WAIT,
           "all ranks have waited for each other for 4.5 s in phase forward (in a collective) at "
           "step 812 (layer 12 of 48): the network is cut, or has lost what they sent, between "
           "node1 and node2");
    make(&g, 2);
    hear_for(&g, 10, 14, (struct beat[]){meets, meets});
    BLAMED(&g, 14 * S + 500, HANG_ALL_WAIT,
           "all ranks have waited for each other for 4.5 s in phase forward (in a collective) at "
           "step 812 (layer 12 of 48): their transport hangs on node1");
}

static void who_waits_where_others_have_passed(void **state)
{
    (void)state;
    struct group g;
    make(&g, 3);
    struct beat behind = {PHASE(FORWARD), 4000, 812, 11, true, 0};
    hear_for(&g, 10, 14, (struct beat[]){meets, meets, behind});
    BLAMED(&g, 14 * S + 500, HANG_RANK_BEHIND,
           "rank 2 (node2, pid 4712) has made no progress for 4.5 s in phase forward (in a "
           "collective) at step 812 (layer 11 of 48), which the others have passed: the network "
           "from them to node2 is cut, or its process hangs");
}

static void who_is_silent_is_blamed_by_those_who_wait_for_it(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear(&g, 0, 10 * S, meets);
    hear(&g, 1, 10 * S, forward);
    for (int64_t at = 10500; at <= 14500; at += 500)
        hear(&g, 0, at, meets);
    g.ranks[1].moved_ns = g.ranks[0].moved_ns; /* what stands is found at the same time */
    assert_true(judge(&g, 14 * S + 1));
    assert_non_null(strstr(g.why, "rank 1 (node1, pid 4711) has been silent"));
}

/* --- what must never be blamed --- */

static void long_step_that_gets_on(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    struct beat works = forward;
    for (int64_t s = 10; s < 600; s++) {
        works.progress++; /* a task of one layer each second, for ten minutes */
        hear(&g, 0, s * S, meets);
        hear(&g, 1, s * S, works);
        FINE(&g, s * S + 999);
    }
}

static void idle_and_waiting_ranks_may_stand(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    const struct beat idle = {PHASE(IDLE), 90, 812, 49, false, 0};
    const struct beat between = {PHASE(WAITING), 90, 812, 49, true, 0};
    hear_for(&g, 10, 1000, (struct beat[]){idle, idle});
    FINE(&g, 1000 * S + 900);
    hear_for(&g, 1001, 2000, (struct beat[]){idle, between});
    FINE(&g, 2000 * S + 900);
    hear_for(&g, 2001, 2001, (struct beat[]){forward, meets}); /* what went before does not count */
    FINE(&g, 2001 * S + 900);
}

static void release_before_tells_no_progress(void **state)
{
    (void)state;
    struct group g;
    make(&g, 2);
    hear_for(&g, 10, 100, (struct beat[]){{PHASE(FORWARD), 0, 812, 0, false, 3}, meets});
    FINE(&g, 100 * S + 900);
    assert_true(judge(&g, 104 * S + 100)); /* but it is heard */
    assert_non_null(strstr(g.why, "silent"));
}

/* --- the clock --- */

static void own_pause_is_forgiven(void **state)
{
    (void)state;
    struct hang_clock c = {0};
    struct group g;
    make(&g, 2);
    int64_t now = 123456789 * ms, ran = 0;
    for (int i = 0; i < 100; i++, now += HANG_TICK_MS * ms)
        ran = hang_clock_now(&c, now);
    assert_int_equal(ran, 1 + 99 * (int64_t)HANG_TICK_MS * ms);
    hear_for(&g, ran / ms / S, ran / ms / S, (struct beat[]){forward, meets});
    int64_t after = hang_clock_now(&c, now + 3600 * S * ms); /* stopped for an hour */
    assert_int_equal(after - ran, HANG_MOST_MS * ms);
    FINE(&g, after / ms);
    assert_int_equal(hang_clock_now(&c, now), after); /* never backwards */
}

static void beats_are_four_a_timeout(void **state)
{
    (void)state;
    assert_int_equal(hang_beat_ms(1), 250);
    assert_int_equal(hang_beat_ms(2), 500);
    assert_int_equal(hang_beat_ms(4), 1000);
    assert_int_equal(hang_beat_ms(3600), 1000);
}

static void long_lines_are_cut(void **state)
{
    (void)state;
    struct group g;
    make(&g, 4);
    hear_for(&g, 10, 10, (struct beat[]){forward, forward, forward, forward});
    for (size_t size = 1; size < 300; size++) {
        memset(g.why, 'x', sizeof g.why);
        assert_true(hang_judge(g.list, 4, &g.rules, 20 * S * ms, g.why, size));
        assert_in_range(strlen(g.why), 0, size - 1);
        assert_int_equal(g.why[size], 'x');
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(silent_rank_is_named_with_its_last_place),
    cmocka_unit_test(silence_while_idle_or_between_steps_counts_too),
    cmocka_unit_test(silent_host_is_named),
    cmocka_unit_test(silent_hosts_are_named),
    cmocka_unit_test(starting_group_is_watched_for_silence_alone),
    cmocka_unit_test(who_computes_is_blamed_and_not_who_waits),
    cmocka_unit_test(alone_it_is_blamed_too),
    cmocka_unit_test(who_has_not_woken_is_blamed),
    cmocka_unit_test(rank_0_may_hang_between_steps),
    cmocka_unit_test(rank_0_may_hang_before_the_first_sequence),
    cmocka_unit_test(all_wait_at_one_place),
    cmocka_unit_test(who_waits_where_others_have_passed),
    cmocka_unit_test(who_is_silent_is_blamed_by_those_who_wait_for_it),
    cmocka_unit_test(long_step_that_gets_on),
    cmocka_unit_test(idle_and_waiting_ranks_may_stand),
    cmocka_unit_test(release_before_tells_no_progress),
    cmocka_unit_test(own_pause_is_forgiven),
    cmocka_unit_test(beats_are_four_a_timeout),
    cmocka_unit_test(long_lines_are_cut),
};

UNIT_MAIN(tests)
