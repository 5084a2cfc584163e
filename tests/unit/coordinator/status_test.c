/* What `witan status` is told of groups, with ranks that the test plays: how often each was lost
 * and why the last time, and what it waits for. */
#include "tests/unit/coordinator/cluster.h"

typedef Witan__Inference__V1__GetStatusResponse reply;

struct ask {
    const struct cluster *c;
    reply *out;
};

static void take(void *arg)
{
    struct ask *a = arg;
    members_status(a->c->core->members, a->out);
}

/* To be freed by witan__inference__v1__get_status_response__free_unpacked. */
static reply *status_of(struct cluster *c)
{
    struct ask a = {.c = c, .out = check_calloc(1, sizeof *a.out)};
    witan__inference__v1__get_status_response__init(a.out);
    on_loop(c, take, &a);
    return a.out;
}

static void wait_state(struct cluster *c, const char *state)
{
    char found[64] = "";
    for (int i = 0; i < 3000 && strcmp(found, state) != 0; i++) {
        reply *s = status_of(c);
        snprintf(found, sizeof found, "%s", s->groups[0]->state);
        witan__inference__v1__get_status_response__free_unpacked(s, NULL);
        usleep(1000);
    }
    assert_string_equal(found, state);
}

static void assert_losses(struct cluster *c, uint64_t losses, uint64_t failed_starts,
                          const char *message, const char *last)
{
    reply *s = status_of(c);
    const Witan__Inference__V1__Group *g = s->groups[0];
    assert_int_equal(g->losses, losses);
    assert_int_equal(g->failed_starts, failed_starts);
    assert_string_equal(g->message, message);
    if (!strstr(g->last_loss, last))
        fail_msg("expected \"%s\", found \"%s\"", last, g->last_loss);
    if (*last)
        assert_true(g->last_loss_seconds_ago >= 0 && g->last_loss_seconds_ago < 300);
    else
        assert_true(!*g->last_loss && g->last_loss_seconds_ago < 0);
    witan__inference__v1__get_status_response__free_unpacked(s, NULL);
}

static void a_loss_is_told_when_it_is_ready_again(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    assert_losses(&c, 0, 0, "", "");
    for (uint64_t losses = 0; losses < 2; losses++) {
        fake_serve(&c, &r);
        wait_state(&c, "ready");
        assert_losses(&c, losses, 0, "",
                      losses == 0 ? "" : "rank 0 (test, pid 4711) is gone in phase ");
        fake_release(&r);
        wait_state(&c, "waiting for ranks");
    }
    cluster_stop(&c);
}

static void a_start_that_fails_is_told_apart(void **state)
{
    (void)state;
    static const char gone[] = "rank 0 (test, pid 4711) is gone in phase ";
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    fake_open_on(&r, c.channel);
    fake_say_hello(&r, (struct fake_hello){.world = 1});
    fake_next(&r);
    fake_release(&r);
    wait_state(&c, "waiting for ranks");
    reply *s = status_of(&c);
    assert_non_null(strstr(s->groups[0]->message, gone)); /* until it is ready */
    witan__inference__v1__get_status_response__free_unpacked(s, NULL);
    fake_serve(&c, &r);
    wait_state(&c, "ready");
    assert_losses(&c, 0, 1, "", gone);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
}

struct ready_ask {
    const struct core *core;
    enum status st;
    struct error err;
};

static void ask_ready(void *arg)
{
    struct ready_ask *a = arg;
    a->st = core_ready(a->core, &a->err);
}

/* Nobody here will start them. */
static void a_group_of_others_waits_for_them(void **state)
{
    (void)state;
    static const char waits[] = "its ranks are started elsewhere: 0 of 1 are there";
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "groups: [{name: g0, external: true}]\n");
    assert_losses(&c, 0, 0, waits, "");
    struct ready_ask ready = {.core = c.core};
    on_loop(&c, ask_ready, &ready);
    assert_int_equal(ready.st, ERR_PEER);
    assert_non_null(strstr(ready.err.msg,
                           "group g0 waits for its ranks, which are started elsewhere: 0 "
                           "of 1 are there"));
    fake_serve(&c, &r);
    wait_state(&c, "ready");
    assert_losses(&c, 0, 0, "", "");
    fake_release(&r);
    wait_state(&c, "waiting for ranks");
    assert_losses(&c, 1, 0, waits, "rank 0 (test, pid 4711) is gone");
    cluster_stop(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_loss_is_told_when_it_is_ready_again),
    cmocka_unit_test(a_start_that_fails_is_told_apart),
    cmocka_unit_test(a_group_of_others_waits_for_them),
};

UNIT_MAIN(tests)
