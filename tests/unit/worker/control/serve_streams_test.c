/* Ranks whose stream to the coordinator ends: they attach again, or end. */
#include "tests/unit/worker/control/ranks.h"

/* Two ranks that may attach again, and a request that would run for long, begun. */
static struct fake *busy_up(struct group *g, int32_t timeout_s, bool busy)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(two);
    p.reattach_timeout_s = timeout_s;
    p.dir = "deploy/lexicon/model";
    p.context = 1024;
    group_start(g, f, 2);
    fake_bring_up(f, &p);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
    if (busy) {
        fake_submit(f, &q);
        FAKE_WAIT(f, f->count > 2);
    }
    return f;
}

/* The same plan again, with another epoch: the next `stream` of each rank. */
static void plan_again(struct fake *f, int stream, struct fake_plan *p)
{
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].hellos == stream);
        assert_true(f->ranks[i].loaded);
        assert_int_equal(f->ranks[i].incarnation, f->ranks[0].incarnation);
    }
    f->epoch++;
    p->reattach_timeout_s = 60;
    p->dir = "deploy/lexicon/model";
    p->context = 1024;
    fake_plan(f, p);
}

/* Ranks serve again, having loaded nothing: the same tokens in another epoch. */
static void assert_serves_again(struct fake *f, int stream, const double load_seconds[2])
{
    struct fake_plan p = plan_for(two);
    plan_again(f, stream, &p);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].ready);
        assert_true(f->ranks[i].reattached);
        assert_true(f->ranks[i].load_seconds == load_seconds[i]);
    }
    pthread_mutex_lock(&f->mutex);
    uint64_t wakes = f->ranks[0].wakes;
    f->count = 0; /* what the epoch before drew */
    pthread_mutex_unlock(&f->mutex);
    static int32_t first[ANSWER], again[ANSWER];
    for (uint64_t id = 10; id < 12; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = 5};
        fake_submit(f, &q);
        FAKE_WAIT(f, fake_ended(f, id));
        assert_int_equal(fake_answer(f, id, id == 10 ? first : again, ANSWER), ANSWER);
        for (int i = 0; i < 2; i++)
            wait_parked(f, &f->ranks[i]);
    }
    assert_memory_equal(first, again, sizeof first);
    for (int i = 0; i < f->count; i++)
        assert_true(f->tokens[i].request_id >= 10); /* nothing of the request before runs */
    assert_int_equal(f->ranks[0].wakes, wakes + 2); /* both sides have counted on */
}

static void ranks_attach_again_and_keep_what_they_hold(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, true);
    const double load_seconds[2] = {f->ranks[0].load_seconds, f->ranks[1].load_seconds};
    int port = rpc_server_port(f->server);
    for (int stream = 2; stream < 4; stream++) { /* in the middle of a step, then parked */
        fake_vanish(f);
        int held = hold_port(port);
        usleep(300000);
        close(held);
        fake_listen(f, port);
        assert_serves_again(f, stream, load_seconds);
    }
    group_down(&g, f);
}

/* The coordinator sends the others home, and all come again. */
static void one_stream_s_end_ends_no_rank(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        struct group g;
        struct fake *f = busy_up(&g, 60, true);
        const double load_seconds[2] = {f->ranks[0].load_seconds, f->ranks[1].load_seconds};
        fake_cut(f, cut, RPC_UNAVAILABLE);
        FAKE_WAIT(f, f->ranks[cut].closed || f->ranks[cut].hellos == 2);
        fake_cut(f, 1 - cut, RPC_ABORTED);
        assert_serves_again(f, 2, load_seconds);
        group_down(&g, f);
    }
}

static void a_changed_plan_ends_the_group(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    struct fake_plan p = plan_for(two);
    p.max_seqs = 7;
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    plan_again(f, 2, &p);
    group_wait(&g, ERR_INVALID);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, *f->ranks[i].failed);
        assert_string_equal(f->ranks[i].failed,
                            "plan: limits.max_seqs: this rank has loaded with 3, and the "
                            "coordinator now says 7: the group starts again");
        assert_false(f->ranks[i].ready);
    }
    fake_end(f);
}

/* No second try where the coordinator says that none will help. */
static void a_refusal_ends_a_loaded_rank(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    fake_refuse(f, RPC_PERMISSION_DENIED);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_UNAVAILABLE);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "PERMISSION_DENIED: as the test asks"));
    fake_end(f);
}

static void nobody_is_waited_for_for_ever(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 1, false);
    fake_vanish(f);
    group_wait(&g, ERR_LIMIT);
    assert_non_null(strstr(g.err.msg, "no coordinator has taken this rank back within 1 s "
                                      "(limits.reattach_timeout_s): it ends; last: coordinator "));
    fake_end(f);
}

static void stop_reaches_ranks_that_wait_for_their_plan(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    for (int i = 0; i < 2; i++)
        FAKE_WAIT(f, f->ranks[i].hellos == 2);
    group_down(&g, f);
}

/* Whether or not a rank has looked at its plan before: the others would wait for it. */
static void stop_behind_a_plan_ends_all_in_order(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    struct fake_plan p = plan_for(two);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    plan_again(f, 2, &p);
    group_down(&g, f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ranks_attach_again_and_keep_what_they_hold),
    cmocka_unit_test(one_stream_s_end_ends_no_rank),
    cmocka_unit_test(a_changed_plan_ends_the_group),
    cmocka_unit_test(a_refusal_ends_a_loaded_rank),
    cmocka_unit_test(nobody_is_waited_for_for_ever),
    cmocka_unit_test(stop_reaches_ranks_that_wait_for_their_plan),
    cmocka_unit_test(stop_behind_a_plan_ends_all_in_order),
};

UNIT_MAIN(tests)
