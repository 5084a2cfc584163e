/* Energy from what ranks say to what requests are told: over losses of groups and calls that end
 * before their time, it adds up to what was counted. */
#include "tests/unit/coordinator/generations.h"

#include <math.h>

/* A rank 0 that counts its host's processors. */
struct counting {
    struct fake_rank *r;
    double all, steps;
};

static Witan__Cluster__V1__Energy *
energy_of(const struct counting *k, Witan__Cluster__V1__Energy *e, Witan__Cluster__V1__Joules *j)
{
    *e = (Witan__Cluster__V1__Energy)WITAN__CLUSTER__V1__ENERGY__INIT;
    *j = (Witan__Cluster__V1__Joules)WITAN__CLUSTER__V1__JOULES__INIT;
    j->all = k->all;
    j->steps = k->steps;
    e->host = j;
    return e;
}

static void beat(const struct counting *k)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat h = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Energy e;
    Witan__Cluster__V1__Joules j;
    h.energy = energy_of(k, &e, &j);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &h;
    fake_send(k->r, &m);
}

/* A step of a second that took `joules`, after a pause that took one: of it `of[i]` seconds and so
 * many tokens are the i-th request's, from positions[i] on; ~position: a chunk of a prompt draws
 * nothing. */
static void step(struct counting *k, double joules, const Witan__Cluster__V1__Submit *const *of,
                 const double *seconds, const int32_t *positions, size_t count,
                 Witan__Cluster__V1__Finish finish)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Tokens t = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens s[4], *pointers[4];
    Witan__Cluster__V1__Energy e;
    Witan__Cluster__V1__Joules j;
    int32_t token = 'a' - 33;
    k->all += joules + 1;
    k->steps += joules;
    for (size_t i = 0; i < count; i++) {
        s[i] = (Witan__Cluster__V1__SequenceTokens)WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
        s[i].request_id = of[i]->request_id;
        s[i].attempt = of[i]->attempt;
        s[i].epoch = of[i]->epoch;
        s[i].step_seconds = seconds[i];
        s[i].position = positions[i] < 0 ? ~positions[i] : positions[i];
        s[i].ids = &token;
        s[i].n_ids = positions[i] < 0 ? 0 : 1;
        s[i].finish = positions[i] < 0 ? WITAN__CLUSTER__V1__FINISH__FINISH_NONE : finish;
        s[i].metered = true; /* which a rank cannot say */
        s[i].joules = 1e6;
        pointers[i] = &s[i];
    }
    t.sequences = pointers;
    t.n_sequences = count;
    t.energy = energy_of(k, &e, &j);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &t;
    fake_send(k->r, &m);
}

/* The next request; cancels are passed over. */
static const Witan__Cluster__V1__Submit *next_submit(struct fake_rank *r)
{
    const told *m = fake_next(r);
    while (m->body_case != WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT)
        m = fake_next(r);
    return m->submit;
}

struct sums {
    struct cluster *c;
    double all, requests, idle, other, pending;
};

static void add_up(void *arg)
{
    struct sums *s = arg;
    const struct members *m = s->c->core->members;
    *s = (struct sums){.c = s->c};
    for (uint32_t i = 0; i < m->count; i++) {
        const struct joules *j = &m->groups[i].joules;
        s->all += j->all;
        s->requests += j->requests;
        s->idle += j->idle;
        s->other += j->other;
        s->pending += j->pending;
    }
}

static void near(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-6))
        fail_msg("expected %.9g, found %.9g", expected, found);
}

/* Waits until so much has been heard of. */
static struct sums sums_at(struct cluster *c, double all)
{
    struct sums s = {.c = c};
    for (int i = 0; i < 30000 && !(s.all > all - 1e-6); i++) {
        on_loop(c, add_up, &s);
        usleep(1000);
    }
    near(s.all, all);
    near(s.requests + s.idle + s.other + s.pending, s.all);
    return s;
}

static void ask_both_ready(void *arg)
{
    struct cluster **ask = arg;
    const struct group *g = ask[0]->core->members->groups;
    ask[1] = g[0].state == GROUP_READY && g[1].state == GROUP_READY ? ask[0] : NULL;
}

/* Each attempt's energy is the request's, of the group that was lost too. */
static void a_lost_attempt_is_paid_for(void **state)
{
    (void)state;
    struct cluster c, *ask[2] = {&c, NULL};
    struct fake_rank r[2];
    struct answer a = {.c = &c, .prompt = {65, 66, 67}, .max_tokens = 3};
    cluster_start(&c, "groups: [{name: g0}, {name: g1}]\n"
                      "limits: {failovers: 1, failover_timeout_s: 60}\n");
    fake_serve(&c, &r[0]);
    fake_serve_with(&c, &r[1], (struct fake_hello){.group = "g1", .host = "other"}, "");
    for (int i = 0; i < 30000 && !ask[1]; i++) {
        on_loop(&c, ask_both_ready, ask);
        usleep(1000);
    }
    struct counting k[2] = {{.r = &r[0], .all = 500, .steps = 100}, {.r = &r[1]}};
    beat(&k[0]);
    beat(&k[1]);
    on_loop(&c, start, &a);
    const Witan__Cluster__V1__Submit *q = next_submit(&r[0]);
    step(&k[0], 20, &q, (double[]){1}, (int32_t[]){~0}, 1, 0); /* a chunk of its prompt */
    step(&k[0], 8, &q, (double[]){1}, (int32_t[]){0}, 1, 0);
    sums_at(&c, 30);
    fake_release(&r[0]);
    q = next_submit(&r[1]);
    assert_int_equal(q->attempt, 2);
    step(&k[1], 30, &q, (double[]){1}, (int32_t[]){~1}, 1, 0);
    step(&k[1], 5, &q, (double[]){1}, (int32_t[]){1}, 1, 0);
    step(&k[1], 5, &q, (double[]){1}, (int32_t[]){2}, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_LENGTH);
    assert_true(a.end.metered);
    near(a.end.joules, 20 + 8 + 30 + 5 + 5);
    struct sums s = sums_at(&c, 73);
    near(s.requests, 68);
    near(s.idle, 5);
    near(s.pending, 0);
    end(&c, &r[1]);
}

/* What a request takes after it was called off is nobody's; a rank that does not count leaves all
 * of its group's requests without a figure. */
static void what_nobody_waits_for_is_other(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a, b;
    cluster_start(&c, "");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    struct counting k = {.r = &r};
    beat(&k);
    start_as(&c, &a, 1);
    const Witan__Cluster__V1__Submit *q[2] = {next_submit(&r)};
    start_as(&c, &b, 2);
    q[1] = next_submit(&r);
    step(&k, 16, q, (double[]){0.75, 0.25}, (int32_t[]){0, 0}, 2, 0);
    sums_at(&c, 17);
    on_loop(&c, cancel, &a);
    step(&k, 16, q, (double[]){0.75, 0.25}, (int32_t[]){1, 1}, 2,
         WITAN__CLUSTER__V1__FINISH__FINISH_STOP);
    wait_end(&b);
    assert_true(b.end.metered);
    near(b.end.joules, 8);
    struct sums s = sums_at(&c, 34);
    near(s.requests, 12 + 8);
    near(s.other, 12);
    start_as(&c, &a, 1);
    q[0] = next_submit(&r);
    step(&k, 4, q, (double[]){1}, (int32_t[]){0}, 1, 0);
    fake_say_tokens(&r, q[0]->request_id, q[0]->attempt, q[0]->epoch, 1, (int32_t[]){64}, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_STOP); /* it has stopped counting */
    wait_end(&a);
    assert_false(a.end.metered);
    end(&c, &r);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_lost_attempt_is_paid_for),
    cmocka_unit_test(what_nobody_waits_for_is_other),
};

UNIT_MAIN(tests)
