/* Two coordinators in one process, and ranks that the test plays: requests of the one in a group of
 * the other, and what becomes of them when the group, the link or a coordinator goes. */
#include "tests/unit/coordinator/peers.h"

#include "coordinator/drain.h"

/* The home has its certificates removed last, so it is stopped last. */
struct pair {
    struct cluster home, far;
};

static const char patient[] = "limits: {failovers: 1, failover_timeout_s: 60}\n";

static void pair_start_with(struct pair *p, const char *home, const char *far)
{
    char yaml[600];
    cluster_start(&p->home, home);
    snprintf(yaml, sizeof yaml, "%speers: [\"127.0.0.1:%d\"]\n", far,
             members_port(p->home.core->members));
    cluster_start_beside(&p->far, &p->home, "", yaml);
}

/* A group of one rank at home, which the other reaches. */
static void pair_start(struct pair *p, struct fake_rank *r)
{
    pair_start_with(p, patient, patient);
    fake_serve(&p->home, r);
    cluster_wait_ready(&p->home, true);
    until(&p->far, &p->home, is_through, NULL);
}

static void pair_stop(struct pair *p)
{
    cluster_stop(&p->far);
    cluster_stop(&p->home);
}

static const told *submitted(struct fake_rank *r)
{
    const told *m = fake_next(r);
    assert_int_equal(m->body_case, SUBMIT);
    return m;
}

static void draw(struct fake_rank *r, const told *m, int32_t position, bool last)
{
    int32_t id = 'a' - 33;
    fake_say_tokens(
        r, m->submit->request_id, m->submit->attempt, m->submit->epoch, position, &id, 1,
        last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH : WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
}

static void begin(struct pair *p, struct answer *a)
{
    *a = (struct answer){.c = &p->far};
    on_loop(&p->far, answer_start, a);
    if (a->started != OK)
        fail_msg("%s", a->err.msg);
}

static void is_well(const struct answer *a)
{
    if (a->end.reason != GENERATION_LENGTH)
        fail_msg("%s", a->end.err.msg);
    assert_int_equal(a->ids, 4);
}

static const int none = 0, one = 1;

static void requests_run_in_the_group_of_another(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a;
    pair_start(&p, &r);
    begin(&p, &a);
    const told *m = submitted(&r);
    assert_int_equal(m->submit->n_prompt, 3);
    assert_int_equal(m->submit->max_tokens, 4);
    assert_true(m->submit->epoch == p.home.core->epoch);
    assert_int_equal(p.home.core->members->groups[0].active, 1);
    for (int32_t i = 0; i < 4; i++)
        draw(&r, m, i, i == 3);
    until(&p.far, &p.home, has_ended, &a);
    is_well(&a);
    assert_string_equal(a.end.err.msg, "");
    until(&p.home, NULL, relays_are, &none);
    assert_int_equal(p.home.core->members->groups[0].active, 0);
    assert_int_equal(p.far.core->members->groups[0].active, 0);
    fake_release(&r);
    pair_stop(&p);
}

static void both_use_it_at_once(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer far, near = {.c = &p.home};
    pair_start(&p, &r);
    begin(&p, &far);
    const told *first = submitted(&r);
    on_loop(&p.home, answer_start, &near);
    const told *second = submitted(&r);
    assert_true(first->submit->request_id != second->submit->request_id);
    for (int32_t i = 0; i < 4; i++) {
        draw(&r, second, i, i == 3);
        draw(&r, first, i, i == 3);
    }
    until(&p.far, &p.home, has_ended, &far);
    until(&p.home, &p.far, has_ended, &near);
    is_well(&far);
    is_well(&near);
    fake_release(&r);
    pair_stop(&p);
}

static void a_cancelled_one_is_cancelled_there(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a;
    pair_start(&p, &r);
    begin(&p, &a);
    const told *m = submitted(&r), *c;
    on_loop(&p.far, answer_cancel, &a);
    c = fake_next(&r);
    assert_int_equal(c->body_case, CANCEL);
    assert_true(c->cancel->request_id == m->submit->request_id);
    assert_true(c->cancel->epoch == p.home.core->epoch);
    until(&p.home, &p.far, relays_are, &none);
    draw(&r, m, 0, false); /* too late: nobody's */
    fake_release(&r);
    pair_stop(&p);
}

/* The home loses its group: the request is held, and goes on where it was when the group is back.
 */
static void a_lost_group_is_awaited(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a;
    pair_start(&p, &r);
    begin(&p, &a);
    draw(&r, submitted(&r), 0, false);
    until(&p.far, &p.home, has_ids, &a);
    fake_release(&r);
    until(&p.far, &p.home, is_held, &one);
    until(&p.home, &p.far, relays_are, &none);
    fake_serve(&p.home, &r);
    const told *m = submitted(&r);
    assert_int_equal(m->submit->n_answer, 1);
    for (int32_t i = 1; i < 4; i++)
        draw(&r, m, i, i == 3);
    until(&p.far, &p.home, has_ended, &a);
    is_well(&a);
    fake_release(&r);
    pair_stop(&p);
}

/* The home dies: its ranks attach here, and what was held goes on in them. */
static void a_dead_home_is_replaced(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r, again;
    struct answer a;
    pair_start(&p, &r);
    begin(&p, &a);
    draw(&r, submitted(&r), 0, false);
    until(&p.far, &p.home, has_ids, &a);
    fake_release(&r);
    p.home.borrowed = true; /* the folder is still needed */
    cluster_stop(&p.home);
    until(&p.far, NULL, is_held, &one);
    until(&p.far, NULL, is_not_through, NULL);
    fake_serve(&p.far, &again);
    const told *m = submitted(&again);
    assert_int_equal(m->submit->n_answer, 1);
    for (int32_t i = 1; i < 4; i++)
        draw(&again, m, i, i == 3);
    until(&p.far, NULL, has_ended, &a);
    is_well(&a);
    fake_release(&again);
    p.far.borrowed = false;
    cluster_stop(&p.far);
}

static void ranks_are_sent_home(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r, stray;
    char words[64];
    pair_start(&p, &r);
    fake_open_on(&stray, p.far.channel);
    fake_say_hello(&stray, (struct fake_hello){.world = 1, .incarnation = 2});
    assert_int_equal(fake_wait_closed(&stray), RPC_UNAVAILABLE);
    snprintf(words, sizeof words, "served by the coordinator at 127.0.0.1:%d",
             members_port(p.home.core->members));
    assert_non_null(strstr(stray.message, words));
    fake_release(&stray);
    fake_release(&r);
    pair_stop(&p);
}

/* Where rank 0 is, there the others belong. */
static void ranks_follow_the_first(void **state)
{
    (void)state;
    static const char two[] = "groups: [{name: g0, tp: 2}]\n";
    struct pair p;
    struct fake_rank first, second;
    pair_start_with(&p, two, two);
    fake_open_on(&second, p.far.channel);
    fake_say_hello(&second, (struct fake_hello){.rank = 1, .world = 2, .loaded = true});
    fake_open_on(&first, p.home.channel);
    fake_say_hello(&first, (struct fake_hello){.rank = 0, .world = 2, .loaded = true});
    int64_t end = clock_now_ns() + (int64_t)DEADLINE_S * 1000000000;
    bool closed = false;
    while (!closed && clock_now_ns() < end) {
        on_loop(&p.home, peers_time, &p.home);
        on_loop(&p.far, peers_time, &p.far);
        pthread_mutex_lock(&second.lock);
        closed = second.closed;
        pthread_mutex_unlock(&second.lock);
        usleep(3000);
    }
    assert_int_equal(fake_wait_closed(&second), RPC_UNAVAILABLE);
    assert_non_null(strstr(second.message, "attach there"));
    fake_release(&second);
    fake_release(&first);
    pair_stop(&p);
}

struct drain_ask {
    struct cluster *c;
    bool restart, undo;
    enum status st;
    struct error err;
};

static void drain(void *arg)
{
    struct drain_ask *d = arg;
    uint32_t requests;
    d->st = d->restart ? drain_restart(d->c->core->members, "g0", true, &requests, &d->err)
                       : drain_group(d->c->core->members, "g0", d->undo, true, &requests, &d->err);
}

static void drains_are_the_homes(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    char words[64];
    pair_start(&p, &r);
    snprintf(words, sizeof words, "at the coordinator at 127.0.0.1:%d: ask that one",
             members_port(p.home.core->members));
    for (int i = 0; i < 2; i++) {
        struct drain_ask d = {.c = &p.far, .restart = i == 1};
        on_loop(&p.far, drain, &d);
        assert_int_equal(d.st, ERR_INVALID);
        if (!strstr(d.err.msg, words))
            fail_msg("%s", d.err.msg);
    }
    fake_release(&r);
    pair_stop(&p);
}

static bool takes_nothing(struct cluster *c, const void *arg)
{
    (void)arg;
    return !group_takes_new(&c->core->members->groups[0]);
}

/* A group that drains at home takes nothing new from anybody, and keeps what runs. */
static void a_draining_group_keeps_what_runs(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a, refused = {.c = &p.far};
    struct drain_ask d = {.c = &p.home};
    pair_start(&p, &r);
    begin(&p, &a);
    const told *m = submitted(&r);
    on_loop(&p.home, drain, &d);
    assert_int_equal(d.st, OK);
    until(&p.far, &p.home, takes_nothing, NULL);
    on_loop(&p.far, answer_start, &refused);
    assert_int_equal(refused.started, ERR_PEER);
    assert_non_null(strstr(refused.err.msg, "takes no requests at the coordinator at 127.0.0.1"));
    for (int32_t i = 0; i < 4; i++)
        draw(&r, m, i, i == 3);
    until(&p.far, &p.home, has_ended, &a);
    is_well(&a);
    fake_release(&r);
    pair_stop(&p);
}

static bool waits_for_ranks(struct cluster *c, const void *arg)
{
    (void)arg;
    return c->core->members->groups[0].state == GROUP_WAITING;
}

/* A group that restarts ends what other coordinators have there only after it has given it back. */
static void a_restart_gives_requests_back(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a;
    struct drain_ask d = {.c = &p.home, .restart = true};
    pair_start(&p, &r);
    begin(&p, &a);
    const told *m = submitted(&r);
    draw(&r, m, 0, false);
    until(&p.far, &p.home, has_ids, &a);
    on_loop(&p.home, drain, &d);
    if (d.st != OK)
        fail_msg("%s", d.err.msg);
    until(&p.far, &p.home, is_held, &one);
    m = fake_next(&r);
    assert_int_equal(m->body_case, CANCEL);
    m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP);
    fake_release(&r);
    until(&p.home, &p.far, waits_for_ranks, NULL);
    fake_serve_with(&p.home, &r, (struct fake_hello){.incarnation = 2}, "");
    m = submitted(&r);
    assert_int_equal(m->submit->n_answer, 1);
    for (int32_t i = 1; i < 4; i++)
        draw(&r, m, i, i == 3);
    until(&p.far, &p.home, has_ended, &a);
    is_well(&a);
    fake_release(&r);
    pair_stop(&p);
}

struct leave_ask {
    struct cluster *c;
    bool stop;
};

static void leave(void *arg)
{
    struct leave_ask *l = arg;
    if (l->stop)
        members_stop(l->c->core->members, "the coordinator is stopping");
    else
        members_leave(l->c->core->members);
}

static bool is_gone(struct cluster *c, const void *arg)
{
    (void)arg;
    return share_gone(c->core->members->share);
}

/* A home that is told to end lets what runs there end, and takes nothing new. */
static void a_home_leaves_in_order(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    struct answer a;
    struct leave_ask l = {.c = &p.home};
    pair_start(&p, &r);
    begin(&p, &a);
    const told *m = submitted(&r);
    on_loop(&p.home, leave, &l);
    until(&p.far, &p.home, takes_nothing, NULL);
    assert_true(is_through(&p.far, NULL));
    for (int32_t i = 0; i < 4; i++)
        draw(&r, m, i, i == 3);
    until(&p.far, &p.home, has_ended, &a);
    is_well(&a);
    l.stop = true;
    on_loop(&p.home, leave, &l);
    until(&p.far, NULL, is_not_through, NULL);
    until(&p.home, NULL, is_gone, NULL);
    fake_release(&r);
    pair_stop(&p);
}

/* Ranks that it has not started need not end with it. */
static void a_home_lets_others_ranks_go(void **state)
{
    (void)state;
    static const char theirs[] = "groups: [{name: g0, external: true}]\n";
    struct pair p;
    struct fake_rank r, again;
    struct leave_ask l = {.c = &p.home, .stop = true};
    pair_start_with(&p, theirs, theirs);
    fake_serve_with(&p.home, &r, (struct fake_hello){.coordinators = 2}, "");
    cluster_wait_ready(&p.home, true);
    until(&p.far, &p.home, is_through, NULL);
    on_loop(&p.home, leave, &l);
    assert_int_equal(fake_wait_closed(&r), RPC_UNAVAILABLE);
    assert_string_equal(r.message, "this coordinator ends: attach to another");
    fake_release(&r);
    until(&p.far, NULL, is_not_through, NULL);
    fake_serve(&p.far, &again);
    cluster_wait_ready(&p.far, true);
    fake_release(&again);
    pair_stop(&p);
}

static bool is_told_twice(struct cluster *c, const void *arg)
{
    (void)arg;
    const struct share *s = c->core->members->share;
    return s->links[0].twice || s->links[1].twice;
}

/* Its two streams would end each other without end, and with each the groups. */
static void a_peer_of_two_names_is_dialled_by_one(void **state)
{
    (void)state;
    char yaml[200];
    struct pair p;
    struct fake_rank r;
    cluster_start(&p.home, "");
    int port = members_port(p.home.core->members);
    snprintf(yaml, sizeof yaml, "peers: [\"127.0.0.1:%d\", \"localhost:%d\"]\n", port, port);
    cluster_start_beside(&p.far, &p.home, "", yaml);
    fake_serve(&p.home, &r);
    cluster_wait_ready(&p.home, true);
    until(&p.far, &p.home, is_told_twice, NULL);
    until(&p.far, &p.home, is_through, NULL);
    assert_in_range(p.far.core->members->groups[0].losses, 0, 2);
    fake_release(&r);
    pair_stop(&p);
}

/* They would look for a coordinator that they do not know. */
static void a_home_stops_ranks_that_know_no_other(void **state)
{
    (void)state;
    static const char theirs[] = "groups: [{name: g0, external: true}]\n";
    struct pair p;
    struct fake_rank r;
    struct leave_ask l = {.c = &p.home, .stop = true};
    pair_start_with(&p, theirs, theirs);
    fake_serve(&p.home, &r);
    cluster_wait_ready(&p.home, true);
    until(&p.far, &p.home, is_through, NULL);
    on_loop(&p.home, leave, &l);
    assert_int_equal(fake_next(&r)->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP);
    fake_release(&r);
    pair_stop(&p);
}

static void status_names_the_home(void **state)
{
    (void)state;
    struct pair p;
    struct fake_rank r;
    Witan__Inference__V1__GetStatusResponse *s = check_calloc(1, sizeof *s);
    char address[32];
    pair_start(&p, &r);
    witan__inference__v1__get_status_response__init(s);
    members_status(p.far.core->members, s); /* nothing else happens there now */
    snprintf(address, sizeof address, "127.0.0.1:%d", members_port(p.home.core->members));
    assert_string_equal(s->groups[0]->through, address);
    assert_string_equal(s->groups[0]->state, "ready");
    assert_string_equal(s->groups[0]->numerics_class, NUMERICS_CLASS_CPU);
    assert_int_equal(s->groups[0]->n_ranks, 0);
    witan__inference__v1__get_status_response__free_unpacked(s, NULL);
    fake_release(&r);
    pair_stop(&p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(requests_run_in_the_group_of_another),
    cmocka_unit_test(both_use_it_at_once),
    cmocka_unit_test(a_cancelled_one_is_cancelled_there),
    cmocka_unit_test(a_lost_group_is_awaited),
    cmocka_unit_test(a_dead_home_is_replaced),
    cmocka_unit_test(ranks_are_sent_home),
    cmocka_unit_test(ranks_follow_the_first),
    cmocka_unit_test(drains_are_the_homes),
    cmocka_unit_test(a_draining_group_keeps_what_runs),
    cmocka_unit_test(a_restart_gives_requests_back),
    cmocka_unit_test(a_home_leaves_in_order),
    cmocka_unit_test(a_home_lets_others_ranks_go),
    cmocka_unit_test(a_peer_of_two_names_is_dialled_by_one),
    cmocka_unit_test(a_home_stops_ranks_that_know_no_other),
    cmocka_unit_test(status_names_the_home),
};

UNIT_MAIN(tests)
