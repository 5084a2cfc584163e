/* Groups taken out of service on purpose, with ranks that the test plays: what they still get,
 * where their requests go, and how they come back. */
#include "tests/unit/coordinator/cluster.h"
#include "coordinator/drain.h"
#include "coordinator/members_private.h"

typedef Witan__Cluster__V1__CoordinatorMessage told;

enum {
    SUBMIT = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT,
    CANCEL = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL,
    STOP = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP,
};

static const char two_groups[] = "groups: [{name: g0}, {name: g1}]\n"
                                 "limits: {failovers: 1, failover_timeout_s: 60}\n";

/* --- requests --- */

struct answer {
    struct cluster *c;
    struct generation *g;
    enum status started;
    struct error err;
    int32_t ids, seen_ids;
    bool ended, seen_end;
    struct generation_end end;
};

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part, (void)text, (void)len;
}

static void on_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                   int32_t count)
{
    (void)ids, (void)logprobs;
    ((struct answer *)user)->ids += count;
}

static void on_end(void *user, const struct generation_end *end)
{
    struct answer *a = user;
    a->ended = true;
    a->end = *end;
}

static const struct generation_sink sink = {.on_text = on_text, .on_ids = on_ids, .on_end = on_end};

static void start_one(void *arg)
{
    static const int32_t prompt[] = {65, 66, 67};
    struct answer *a = arg;
    struct generation_params p = {
        .prompt = prompt, .prompt_len = 3, .max_tokens = 4, .sampling = {.top_p = 1}};
    a->started = generation_start(a->c->core, &p, &sink, a, &a->g, &a->err);
}

static void start(struct cluster *c, struct answer *a)
{
    *a = (struct answer){.c = c};
    on_loop(c, start_one, a);
}

static void look(void *arg)
{
    struct answer *a = arg;
    a->seen_ids = a->ids;
    a->seen_end = a->ended;
}

static void tick(void *arg)
{
    struct cluster *c = arg;
    members_tick(c->core->members);
    generation_tick(c->core);
}

static void wait_ids(struct answer *a, int32_t count)
{
    for (int i = 0; i < 10000 && a->seen_ids < count; i++) {
        usleep(1000);
        on_loop(a->c, look, a);
    }
    assert_int_equal(a->seen_ids, count);
}

/* Ends with 4 tokens. */
static void finish(struct fake_rank *r, const Witan__Cluster__V1__Submit *q, struct answer *a)
{
    static const int32_t ids[] = {40, 41, 42, 43};
    int32_t begun = (int32_t)q->n_answer;
    fake_say_tokens(r, q->request_id, q->attempt, q->epoch, begun, ids + begun, 4 - q->n_answer,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_ids(a, 4);
    assert_true(a->seen_end);
    assert_int_equal(a->end.reason, GENERATION_LENGTH);
}

static const told *next(struct fake_rank *r, int kind)
{
    const told *m = fake_next(r);
    assert_int_equal(m->body_case, kind);
    return m;
}

/* --- orders --- */

struct order {
    struct cluster *c;
    const char *group;
    bool restart, undo, force, stop;
    uint32_t within_s;
    enum status st;
    struct error err;
    uint32_t requests;
};

static void run_order(void *arg)
{
    struct order *o = arg;
    struct members *m = o->c->core->members;
    if (o->restart)
        o->st = drain_restart(m, o->group, o->force, &o->requests, &o->err);
    else if (o->stop)
        o->st = drain_stop(m, o->group, o->within_s, o->force, &o->requests, &o->err);
    else
        o->st = drain_group(m, o->group, o->undo, o->force, &o->requests, &o->err);
}

static uint32_t ordered(struct order o)
{
    on_loop(o.c, run_order, &o);
    if (o.st != OK)
        fail_msg("%s", o.err.msg);
    return o.requests;
}

static void refused(struct order o, enum status st, const char *words)
{
    on_loop(o.c, run_order, &o);
    assert_int_equal(o.st, st);
    if (!strstr(o.err.msg, words))
        fail_msg("expected \"%s\", found \"%s\"", words, o.err.msg);
}

struct state_ask {
    struct cluster *c;
    uint32_t group;
    enum group_state state;
    enum group_restart restart;
};

static void ask_state(void *arg)
{
    struct state_ask *a = arg;
    const struct group *g = &a->c->core->members->groups[a->group];
    a->state = g->state;
    a->restart = g->restart;
}

static void wait_state(struct cluster *c, uint32_t group, enum group_state state,
                       enum group_restart restart)
{
    struct state_ask a = {.c = c, .group = group, .state = GROUP_LOST};
    for (int i = 0; i < 10000; i++) {
        on_loop(c, tick, c);
        on_loop(c, ask_state, &a);
        if (a.state == state && a.restart == restart)
            return;
        usleep(1000);
    }
    fail_msg("group %u: state %d, restart %d", group, (int)a.state, (int)a.restart);
}

static void begin(struct cluster *c, struct fake_rank *r, uint32_t groups, const char *yaml)
{
    cluster_start(c, yaml);
    fake_serve(c, &r[0]);
    if (groups > 1)
        fake_serve_with(c, &r[1], (struct fake_hello){.group = "g1"}, "");
    for (uint32_t i = 0; i < groups; i++)
        wait_state(c, i, GROUP_READY, RESTART_NONE);
    cluster_wait_ready(c, true);
}

static void end(struct cluster *c, struct fake_rank *r, uint32_t groups)
{
    for (uint32_t i = 0; i < groups; i++)
        fake_release(&r[i]);
    cluster_wait_ready(c, false);
    cluster_stop(c);
}

/* --- draining --- */

static void a_drained_group_takes_nothing_new(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a, b;
    begin(&c, r, 2, two_groups);
    start(&c, &a);
    const told *first = next(&r[0], SUBMIT);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0"}), 1);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0"}), 1); /* twice is once */
    start(&c, &b);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &b);
    finish(&r[0], first->submit, &a);
    refused((struct order){.c = &c, .group = "g1"}, ERR_INVALID,
            "group g1 is the only one that takes requests: new ones would be refused (503)");
    refused((struct order){.c = &c, .group = "g1", .restart = true}, ERR_INVALID,
            "they would wait until it is back; --force does it");
    refused((struct order){.c = &c, .group = "g7"}, ERR_NOT_FOUND, "no group \"g7\"");
    assert_int_equal(ordered((struct order){.c = &c, .group = "g1", .force = true}), 0);
    start(&c, &a);
    assert_int_equal(a.started, ERR_PEER);
    assert_string_equal(a.err.msg, "group g0 is draining");
    cluster_wait_ready(&c, false);
    ordered((struct order){.c = &c, .group = "g0", .undo = true});
    start(&c, &a);
    finish(&r[0], next(&r[0], SUBMIT)->submit, &a);
    end(&c, r, 2);
    /* Who starts the next coordinator is told, once each time. */
    const char *told_of = strstr(cluster_states, "g0 drained;g1 drained;g0 undrained;");
    assert_non_null(told_of);
    assert_true(strstr(cluster_states, "drained;") == told_of + 3);
}

/* Kept over the loss of its group, which then serves nobody until it is undone. */
static void draining_outlives_a_loss(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a;
    begin(&c, r, 2, two_groups);
    ordered((struct order){.c = &c, .group = "g0"});
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    fake_serve(&c, &r[0]);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    start(&c, &a);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &a);
    end(&c, r, 2);
}

static void shift_drain(void *arg)
{
    struct group *g = &((struct cluster *)arg)->core->members->groups[0];
    g->drained_ns -= 601 * (int64_t)1000000000;
}

/* What takes too long goes on elsewhere from where it was; that is no loss. */
static void what_does_not_end_is_moved(void **state)
{
    (void)state;
    static const int32_t ids[] = {40, 41};
    struct cluster c;
    struct fake_rank r[2];
    struct answer a;
    begin(&c, r, 2, two_groups);
    start(&c, &a);
    const told *m = next(&r[0], SUBMIT);
    fake_say_tokens(&r[0], m->submit->request_id, 1, m->submit->epoch, 0, ids, 2,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 2);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0"}), 1);
    on_loop(&c, tick, &c);
    on_loop(&c, shift_drain, &c);
    on_loop(&c, tick, &c);
    assert_int_equal(next(&r[0], CANCEL)->cancel->attempt, 1);
    m = next(&r[1], SUBMIT);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 2);
    assert_int_equal(c.core->metrics.moved, 1);
    /* failovers: 1 is still there to be spent. */
    ordered((struct order){.c = &c, .group = "g0", .undo = true});
    fake_release(&r[1]);
    m = next(&r[0], SUBMIT);
    assert_int_equal(m->submit->attempt, 3);
    finish(&r[0], m->submit, &a);
    end(&c, r, 1);
}

/* --- ending --- */

static const char two_external[] =
    "groups: [{name: g0, external: true}, {name: g1, external: true}]\n"
    "limits: {failovers: 1, failover_timeout_s: 60}\n";

static void shift_end(void *arg)
{
    struct group *g = &((struct cluster *)arg)->core->members->groups[0];
    assert_true(g->end_by_ns > clock_now_ns() + 500 * (int64_t)1000000000);
    g->end_by_ns -= 601 * (int64_t)1000000000;
}

/* A job's ranks end once nothing runs there, and what takes too long goes on in the next job's
 * group. Those that come again serve without more words. */
static void a_group_ends_and_hands_over(void **state)
{
    (void)state;
    static const int32_t ids[] = {40, 41};
    struct cluster c;
    struct fake_rank r[2];
    struct answer a, b;
    begin(&c, r, 2, two_external);
    start(&c, &a);
    const told *m = next(&r[0], SUBMIT);
    fake_say_tokens(&r[0], m->submit->request_id, 1, m->submit->epoch, 0, ids, 2,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 2);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0", .stop = true, .within_s = 7}),
                     1);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0", .stop = true}), 1);
    refused((struct order){.c = &c, .group = "g1", .stop = true}, ERR_INVALID,
            "group g1 is the only one that takes requests");
    start(&c, &b);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &b);
    on_loop(&c, tick, &c);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE); /* its request still runs */
    on_loop(&c, shift_end, &c);
    on_loop(&c, tick, &c);
    assert_int_equal(next(&r[0], CANCEL)->cancel->attempt, 1);
    next(&r[0], STOP);
    m = next(&r[1], SUBMIT);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 2);
    finish(&r[1], m->submit, &a);
    wait_state(&c, 0, GROUP_STOPPING, RESTART_NONE);
    refused((struct order){.c = &c, .group = "g0", .stop = true}, ERR_INVALID, "nothing to end: ");
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    fake_serve(&c, &r[0]);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    ordered((struct order){.c = &c, .group = "g1", .stop = true});
    next(&r[1], STOP);
    fake_release(&r[1]);
    start(&c, &a);
    finish(&r[0], next(&r[0], SUBMIT)->submit, &a);
    assert_non_null(strstr(cluster_states, "g0 drained;g0 stopping;g0 undrained;g0 waiting;"));
    assert_null(strstr(cluster_states, "lost"));
    end(&c, r, 1);
}

/* Where nobody else takes it, a request waits for the next job. */
static void the_last_group_ends_by_force(void **state)
{
    (void)state;
    static const int32_t id = 40;
    struct cluster c;
    struct fake_rank r;
    struct answer a;
    begin(&c, &r, 1,
          "groups: [{name: g0, external: true}]\nlimits: {failovers: 1, failover_timeout_s: 60}\n");
    start(&c, &a);
    const told *m = next(&r, SUBMIT);
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 1);
    refused((struct order){.c = &c, .group = "g0", .stop = true}, ERR_INVALID, "the only one");
    ordered((struct order){.c = &c, .group = "g0", .stop = true, .force = true});
    on_loop(&c, shift_end, &c);
    on_loop(&c, tick, &c);
    next(&r, CANCEL);
    next(&r, STOP);
    fake_release(&r);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    fake_serve(&c, &r);
    m = next(&r, SUBMIT);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 1);
    finish(&r, m->submit, &a);
    end(&c, &r, 1);
}

/* `witan serve` would start its ranks again at once; and an end can be undone. */
static void who_cannot_end_and_who_need_not(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a;
    begin(&c, r, 2, "groups: [{name: g0}, {name: g1, external: true}]\n");
    refused((struct order){.c = &c, .group = "g0", .stop = true}, ERR_INVALID,
            "the ranks of group g0 are started by `witan serve`");
    refused((struct order){.c = &c, .group = "g7", .stop = true}, ERR_NOT_FOUND, "no group \"g7\"");
    ordered((struct order){.c = &c, .group = "g0"});
    start(&c, &a);
    const told *m = next(&r[1], SUBMIT);
    ordered((struct order){.c = &c, .group = "g1", .stop = true, .force = true});
    ordered((struct order){.c = &c, .group = "g1", .undo = true});
    finish(&r[1], m->submit, &a);
    on_loop(&c, tick, &c);
    wait_state(&c, 1, GROUP_READY, RESTART_NONE);
    start(&c, &a);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &a);
    end(&c, r, 2);
}

/* --- restarting --- */

static void a_group_is_restarted(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a, b;
    begin(&c, r, 2, two_groups);
    start(&c, &a);
    const told *first = next(&r[0], SUBMIT);
    assert_int_equal(ordered((struct order){.c = &c, .group = "g0", .restart = true}), 1);
    refused((struct order){.c = &c, .group = "g1", .restart = true}, ERR_INVALID,
            "group g0 restarts already (1 requests are left on it): one at a time");
    refused((struct order){.c = &c, .group = "g0"}, ERR_INVALID, "wait until it is ready");
    start(&c, &b);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &b);
    on_loop(&c, tick, &c); /* not before its request has ended */
    finish(&r[0], first->submit, &a);
    on_loop(&c, tick, &c);
    next(&r[0], STOP);
    wait_state(&c, 0, GROUP_STOPPING, RESTART_STOPPING);
    /* Late words of what it was are no fault. */
    fake_say_tokens(&r[0], 99, 1, first->submit->epoch, 0, (int32_t[]){40}, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED);
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_STARTING);
    refused((struct order){.c = &c, .group = "g1", .restart = true}, ERR_INVALID, "restarts");
    fake_serve(&c, &r[0]);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    assert_non_null(strstr(cluster_states, "g0 stopping;g0 waiting;g0 loading;g0 ready;"));
    assert_null(strstr(cluster_states, "lost"));
    start(&c, &a);
    finish(&r[0], next(&r[0], SUBMIT)->submit, &a);
    end(&c, r, 2);
}

/* The other one is lost as this one drains: then this one stays. */
static void the_last_one_is_not_restarted(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a, b;
    begin(&c, r, 2, two_groups);
    start(&c, &a);
    const told *m = next(&r[0], SUBMIT);
    ordered((struct order){.c = &c, .group = "g0", .restart = true});
    start(&c, &b);
    next(&r[1], SUBMIT);
    fake_release(&r[1]);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    finish(&r[0], m->submit, &a);
    finish(&r[0], next(&r[0], SUBMIT)->submit, &b);
    end(&c, r, 1);
}

/* Where nobody else answers, requests wait for it: those under way and new ones. */
static void the_only_group_is_restarted_by_force(void **state)
{
    (void)state;
    static const int32_t id = 40;
    struct cluster c;
    struct fake_rank r;
    struct answer a, b;
    begin(&c, &r, 1, "limits: {failovers: 1, failover_timeout_s: 60}\n");
    start(&c, &a);
    const told *m = next(&r, SUBMIT);
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 1);
    ordered((struct order){.c = &c, .group = "g0", .restart = true, .force = true});
    next(&r, CANCEL);
    next(&r, STOP);
    start(&c, &b);
    assert_int_equal(b.started, OK);
    fake_release(&r);
    wait_state(&c, 0, GROUP_WAITING, RESTART_STARTING);
    fake_serve(&c, &r);
    const Witan__Cluster__V1__Submit *q[2] = {next(&r, SUBMIT)->submit, next(&r, SUBMIT)->submit};
    int old = q[0]->n_answer == 1 ? 0 : 1;
    assert_true(q[old]->attempt == 2 && q[old]->n_answer == 1 && q[1 - old]->n_answer == 0);
    finish(&r, q[old], &a);
    finish(&r, q[1 - old], &b);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    end(&c, &r, 1);
}

static void shift_stop(void *arg)
{
    struct group *g = &((struct cluster *)arg)->core->members->groups[0];
    g->since_ns -= (GROUP_STOP_S + 1) * (int64_t)1000000000;
}

/* A rank that does not end is sent home; one that cannot start ends the restart. */
static void a_restart_that_fails_is_over(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    begin(&c, r, 2, two_groups);
    ordered((struct order){.c = &c, .group = "g0", .restart = true});
    next(&r[0], STOP);
    on_loop(&c, shift_stop, &c);
    on_loop(&c, tick, &c);
    assert_int_equal(fake_wait_closed(&r[0]), RPC_FAILED_PRECONDITION);
    assert_non_null(strstr(r[0].message, "have not ended within 10 s of being told to"));
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    refused((struct order){.c = &c, .group = "g0", .restart = true}, ERR_INVALID,
            "nothing to restart: group g0 waits for its ranks: 0 of 1 are there");
    fake_serve(&c, &r[0]);
    wait_state(&c, 0, GROUP_READY, RESTART_NONE);
    ordered((struct order){.c = &c, .group = "g0", .restart = true});
    next(&r[0], STOP);
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_STARTING);
    fake_open_on(&r[0], c.channel);
    fake_say_hello(&r[0], (struct fake_hello){.world = 1});
    fake_next(&r[0]);
    fake_release(&r[0]);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    end(&c, r + 1, 1);
}

/* --- releases side by side --- */

static void serve_as(struct cluster *c, struct fake_rank *r, const char *group, uint32_t version,
                     uint32_t oldest)
{
    fake_serve_with(c, r, (struct fake_hello){.group = group, .version = version, .oldest = oldest},
                    "");
}

/* As a rolling upgrade has them: a group of the release before and one of this; what the new one
 * loses before it has begun to answer the old one takes, and an answer waits for one that can go on
 * with it. */
static void the_release_before_serves_beside_this_one(void **state)
{
    (void)state;
    static const int32_t id = 40;
    struct cluster c;
    struct fake_rank r[2];
    struct answer a, b;
    cluster_start(&c, two_groups);
    _Static_assert(CLUSTER_PROTOCOL_OLDEST == CLUSTER_PROTOCOL_VERSION - 1, "one release apart");
    serve_as(&c, &r[0], "g0", CLUSTER_PROTOCOL_VERSION, CLUSTER_PROTOCOL_OLDEST);
    serve_as(&c, &r[1], "g1", CLUSTER_PROTOCOL_VERSION - 1, 0);
    for (uint32_t i = 0; i < 2; i++)
        wait_state(&c, i, GROUP_READY, RESTART_NONE);
    start(&c, &a);
    const told *m = next(&r[0], SUBMIT);
    fake_say_tokens(&r[0], m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_ids(&a, 1);
    start(&c, &b);
    finish(&r[1], next(&r[1], SUBMIT)->submit, &b); /* each serves */
    ordered((struct order){.c = &c, .group = "g1"});
    start(&c, &b);
    next(&r[0], SUBMIT);
    ordered((struct order){.c = &c, .group = "g1", .undo = true});
    fake_release(&r[0]);
    m = next(&r[1], SUBMIT);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 0);
    finish(&r[1], m->submit, &b);
    wait_state(&c, 0, GROUP_WAITING, RESTART_NONE);
    /* The other comes back as a release after ours, which speaks our version too. */
    serve_as(&c, &r[0], "g0", CLUSTER_PROTOCOL_VERSION + 1, CLUSTER_PROTOCOL_VERSION);
    m = next(&r[0], SUBMIT);
    assert_true(m->submit->attempt == 2 && m->submit->n_answer == 1);
    finish(&r[0], m->submit, &a);
    end(&c, r, 2);
}

static void releases_further_apart_are_refused(void **state)
{
    (void)state;
    static const struct fake_hello hellos[] = {
        {.world = 1, .version = CLUSTER_PROTOCOL_VERSION + 1},
        {.world = 1,
         .version = CLUSTER_PROTOCOL_VERSION + 2,
         .oldest = CLUSTER_PROTOCOL_VERSION + 1},
    };
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    for (size_t i = 0; i < COUNT_OF(hellos); i++) {
        fake_open_on(&r, c.channel);
        fake_say_hello(&r, hellos[i]);
        assert_int_equal(fake_wait_closed(&r), RPC_FAILED_PRECONDITION);
        assert_non_null(strstr(r.message, "install releases next to each other"));
        fake_release(&r);
    }
    cluster_stop(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_drained_group_takes_nothing_new),
    cmocka_unit_test(draining_outlives_a_loss),
    cmocka_unit_test(what_does_not_end_is_moved),
    cmocka_unit_test(a_group_ends_and_hands_over),
    cmocka_unit_test(the_last_group_ends_by_force),
    cmocka_unit_test(who_cannot_end_and_who_need_not),
    cmocka_unit_test(a_group_is_restarted),
    cmocka_unit_test(the_last_one_is_not_restarted),
    cmocka_unit_test(the_only_group_is_restarted_by_force),
    cmocka_unit_test(a_restart_that_fails_is_over),
    cmocka_unit_test(the_release_before_serves_beside_this_one),
    cmocka_unit_test(releases_further_apart_are_refused),
};

UNIT_MAIN(tests)
