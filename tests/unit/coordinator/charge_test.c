/* coordinator/charge: what requests take of their tenant's quotas, and give back, with a rank that
 * the test plays. That no minute has more than its limit: quota_test. */
#include "tests/unit/coordinator/generations.h"

#include "coordinator/charge.h"

static void assert_refused(const struct answer *a, const char *words)
{
    assert_int_equal(a->started, ERR_NO_MEMORY);
    if (!strstr(a->err.msg, words) || !strstr(a->err.msg, "try again in "))
        fail_msg("%s", a->err.msg);
}

struct left {
    struct cluster *c;
    uint64_t tenant;
    struct quota_left requests, tokens;
};

static void look_left(void *arg)
{
    struct left *l = arg;
    quota_look(l->c->core->quota, &(struct quota_key){0}, l->tenant, clock_now_ns(), &l->requests,
               &l->tokens);
}

static void assert_left(struct cluster *c, uint64_t tenant, int64_t requests, int64_t tokens)
{
    struct left l = {.c = c, .tenant = tenant};
    on_loop(c, look_left, &l);
    assert_int_equal(l.requests.left, requests);
    assert_int_equal(l.tokens.left, tokens);
}

/* A prompt of 3 tokens and 5 to be drawn. */
static void tokens_are_reserved_and_given_back(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[2] = {{.prompt = {65, 66, 67}, .max_tokens = 5, .tenant = 7}}, more;
    const int32_t id = 70;
    const told *m = begin(&c, &r, &a[0],
                          "auth: {quotas: {requests_per_minute: 9, tokens_per_minute: 20}}\n"
                          "limits: {context: 64}\n");
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    for (int i = 0; i < 3000 && a[0].seen_ids == 0; i++) {
        on_loop(&c, look, &a[0]);
        usleep(1000);
    }
    assert_int_equal(a[0].seen_ids, 1);
    start_as(&c, &a[1], 7);
    assert_int_equal(a[1].started, OK);
    assert_left(&c, 7, 7, 20 - 16);
    start_as(&c, &more, 7);
    assert_refused(&more,
                   "this tenant has used or reserved 16 tokens in the last minute, of 20 that "
                   "it may, and the request needs 8 (tokens_per_minute)");
    assert_left(&c, 7, 7, 20 - 16);
    assert_left(&c, 8, 9, 20); /* another's */
    on_loop(&c, cancel, &a[0]);
    assert_left(&c, 7, 7, 20 - 4 - 8); /* its prompt, and the token that it was told */
    start_as(&c, &more, 7);
    assert_int_equal(more.started, OK);
    on_loop(&c, cancel, &more);
    on_loop(&c, cancel, &a[1]);
    assert_left(&c, 7, 6, 20 - 4 - 3 - 3);
    end(&c, &r);
}

static void what_no_group_takes_costs_nothing(void **state)
{
    (void)state;
    struct cluster c;
    struct answer a;
    cluster_start(
        &c, "auth: {quotas: {requests_per_minute: 2, tokens_per_minute: 9, concurrent: 1}}\n");
    for (int i = 0; i < 5; i++) {
        start_as(&c, &a, 7);
        assert_int_equal(a.started, ERR_PEER);
    }
    assert_left(&c, 7, 2, 9);
    cluster_stop(&c);
}

static void ask_at_the_door(void *arg)
{
    struct answer *a = arg;
    const struct auth_caller caller = {.tenant = a->tenant};
    a->started = core_admit(a->c->core, &caller, 0, 0, &a->err);
}

/* Over a quota nothing of the request is read; choices of one request are as many answers. */
static void the_door_asks_first(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[2], more = {.c = &c, .tenant = 7};
    cluster_start(&c, "auth: {quotas: {requests_per_minute: 2, concurrent: 2}}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    on_loop(&c, ask_at_the_door, &more);
    assert_int_equal(more.started, OK);
    for (int i = 0; i < 2; i++) {
        a[i] = (struct answer){.c = &c, .prompt = {65, 66, 67}, .max_tokens = 5, .tenant = 7};
        a[i].accepted = i > 0;
        on_loop(&c, start, &a[i]);
        assert_int_equal(a[i].started, OK);
    }
    assert_left(&c, 7, 1, 0);
    on_loop(&c, ask_at_the_door, &more);
    assert_refused(&more, "2 requests of this tenant are under way, of 2 that may be (concurrent)");
    on_loop(&c, cancel, &a[0]);
    on_loop(&c, ask_at_the_door, &more);
    assert_int_equal(more.started, OK);
    start_as(&c, &a[0], 7);
    assert_int_equal(a[0].started, OK);
    on_loop(&c, ask_at_the_door, &more);
    assert_refused(&more, "this tenant has made 2 requests in the last minute, of 2 that it may "
                          "(requests_per_minute)");
    for (int i = 0; i < 2; i++)
        on_loop(&c, cancel, &a[i]);
    end(&c, &r);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tokens_are_reserved_and_given_back),
    cmocka_unit_test(what_no_group_takes_costs_nothing),
    cmocka_unit_test(the_door_asks_first),
};

UNIT_MAIN(tests)
