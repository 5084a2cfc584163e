/* What is refused, and how, when there are too many requests or they would wait too long. */
#include "tests/unit/coordinator/generations.h"

static void assert_told_to_come_again(const struct answer *a, const char *words)
{
    assert_int_equal(a->started, ERR_NO_MEMORY);
    if (!strstr(a->err.msg, words) || !strstr(a->err.msg, "try again in "))
        fail_msg("expected \"%s\", found \"%s\"", words, a->err.msg);
}

static void a_tenant_has_no_more_than_its_share(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {requests: 3, tenant_requests: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a[0], 7);
    start_as(&c, &a[1], 7);
    start_as(&c, &more, 7);
    assert_told_to_come_again(&more, "2 requests of this tenant are under way, as many as it may "
                                     "have (limits.tenant_requests)");
    start_as(&c, &a[2], 8);
    start_as(&c, &more, 9);
    assert_told_to_come_again(&more,
                              "3 requests are under way, as many as may be (limits.requests)");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a[i].started, OK);
        assert_int_equal(fake_next(&r)->submit->tenant, a[i].tenant);
    }
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

static void say_load(struct fake_rank *r, uint32_t waiting, uint32_t kv_blocks)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    beat.waiting = waiting;
    beat.kv_blocks = kv_blocks;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    fake_send(r, &m);
}

struct capacity_ask {
    const struct cluster *c;
    int64_t tokens;
};

static void ask_capacity(void *arg)
{
    struct capacity_ask *a = arg;
    a->tokens = members_capacity(a->c->core->members);
}

/* The heartbeat has come when its cache has. */
static void wait_capacity(struct cluster *c, int64_t tokens)
{
    struct capacity_ask a = {.c = c, .tokens = -1};
    for (int i = 0; i < 3000 && a.tokens != tokens; i++) {
        on_loop(c, ask_capacity, &a);
        usleep(1000);
    }
    assert_int_equal(a.tokens, tokens);
}

/* What can never run is refused with the numbers, before it goes anywhere. */
static void what_no_cache_holds_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 62};
    cluster_start(&c, "limits: {context: 128}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    say_load(&r, 0, 1);
    wait_capacity(&c, KV_BLOCK);
    a.c = &c;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_LIMIT);
    assert_string_equal(a.err.msg,
                        "context: the prompt has 3 tokens and max_tokens is 62, and this model's "
                        "maximum context length is 64 tokens (the KV cache holds no more): at most "
                        "61 for the answer");
    a.max_tokens = 0;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, OK);
    assert_int_equal(fake_next(&r)->submit->max_tokens, 61);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

static void no_more_wait_than_may(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[5], more;
    cluster_start(&c, "limits: {sequences: 2, waiting: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 4; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
    }
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more,
                              "2 requests wait in group g0, as many as may (limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 4; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* The choices of one answer are started in one instant: the first is judged, and those after it do
 * not queue behind it. */
static void an_answer_is_let_in_once(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[8], more;
    cluster_start(&c, "limits: {sequences: 1, waiting: 1, waiting_tokens: 3, requests: 8, "
                      "context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 8; i++) {
        a[i] = (struct answer){.c = &c, .prompt = {65, 66, 67}, .max_tokens = 5, .accepted = i > 0};
        on_loop(&c, start, &a[i]);
        assert_int_equal(a[i].started, OK);
    }
    a[0].accepted = true;
    more = a[0];
    on_loop(&c, start, &more);
    assert_told_to_come_again(&more, "(limits.requests)"); /* this holds for all */
    on_loop(&c, cancel, &a[7]);
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more, "(limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 7; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* One that takes an older one's place asks for no room, however little there is. */
static void what_replaces_another_finds_room(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a, more = {.c = &c, .prompt = {65, 66, 67}, .max_tokens = 5};
    cluster_start(&c, "limits: {sequences: 1, waiting: 1, waiting_tokens: 1, requests: 1, "
                      "tenant_requests: 1, memory_mb: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a, 0);
    assert_int_equal(a.started, OK);
    c.core->doors = 9 << 20;
    on_loop(&c, start, &more);
    assert_int_equal(more.started, ERR_NO_MEMORY);
    more.replaces = true;
    on_loop(&c, start, &more);
    assert_int_equal(more.started, OK);
    fake_release(&r);
    wait_end(&a);
    wait_end(&more);
    cluster_stop(&c);
}

/* A cache that is too small for all slots makes requests wait that a count alone would not see. */
static void the_groups_own_word_on_waiting_counts(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {sequences: 8, waiting: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 3; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
    }
    say_load(&r, 2, 5);
    wait_capacity(&c, 5 * KV_BLOCK);
    start_as(&c, &more, 0);
    assert_told_to_come_again(&more, "(limits.waiting)");
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

/* A first token of `m`, and what comes of it is seen. */
static void say_first(struct cluster *c, struct fake_rank *r, const told *m, struct answer *a)
{
    const int32_t id = 70;
    fake_say_tokens(r, m->submit->request_id, 1, m->submit->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    for (int i = 0; i < 3000 && a->seen_ids == 0; i++) {
        on_loop(c, look, a);
        usleep(1000);
    }
    assert_int_equal(a->seen_ids, 1);
}

/* One that is larger than the bound comes in where nothing else waits. */
static void prompts_that_wait_are_bounded(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[3], more;
    cluster_start(&c, "limits: {waiting_tokens: 2, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 3; i++) {
        start_as(&c, &a[i], 0);
        assert_int_equal(a[i].started, OK);
        const told *m = fake_next(&r);
        start_as(&c, &more, 0);
        assert_told_to_come_again(&more, "prompts of 3 tokens wait in group g0, as much as may "
                                         "(limits.waiting_tokens)");
        say_first(&c, &r, m, &a[i]);
    }
    fake_release(&r);
    for (int i = 0; i < 3; i++)
        wait_end(&a[i]);
    cluster_stop(&c);
}

struct admit_ask {
    struct cluster *c;
    uint64_t tenant;
    int32_t priority;
    uint32_t deadline_ms;
    enum status status;
    struct error err;
    int32_t retry_s;
};

static void ask_admit(void *arg)
{
    struct admit_ask *a = arg;
    const struct auth_caller caller = {.tenant = a->tenant};
    a->status = core_admit(a->c->core, &caller, a->priority, a->deadline_ms, &a->err);
    a->retry_s = core_retry_s(a->c->core);
}

static int32_t refused_retry_s; /* what the last was told */

static void assert_admitted(struct cluster *c, uint64_t tenant, int32_t priority,
                            uint32_t deadline_ms, const char *refused)
{
    struct admit_ask a = {
        .c = c, .tenant = tenant, .priority = priority, .deadline_ms = deadline_ms};
    on_loop(c, ask_admit, &a);
    if (!refused) {
        assert_int_equal(a.status, OK);
        return;
    }
    assert_int_equal(a.status, ERR_NO_MEMORY);
    assert_in_range(a.retry_s, 1, 60);
    if (!strstr(a.err.msg, refused))
        fail_msg("expected \"%s\", found \"%s\"", refused, a.err.msg);
    refused_retry_s = a.retry_s;
}

/* One slot, taken, and one request behind it: how long another would wait is known from then on. */
static void nobody_waits_longer_than_may(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a[2];
    cluster_start(&c, "limits: {sequences: 1, step_tokens: 1, waiting_ms: 600000, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    for (int i = 0; i < 2; i++)
        start_as(&c, &a[i], 0);
    const told *m = fake_next(&r);
    assert_int_equal(fake_next(&r)->submit->n_prompt, 3);
    usleep(100000);
    say_first(&c, &r, m, &a[0]);
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 0, 1, "and its deadline is sooner");
    c.config.limits.waiting_ms = 1;
    assert_admitted(&c, 7, 0, 0, "longer than it may (limits.waiting_ms)");
    assert_admitted(&c, 7, 1, 0, "longer than it may (limits.waiting_ms)");
    assert_admitted(&c, 7, -1, 0, NULL); /* nobody is before it */
    fake_release(&r);
    for (int i = 0; i < 2; i++)
        wait_end(&a[i]);
    assert_int_equal(c.core->metrics.refused[METRICS_LIMIT_WAITING_MS], 2);
    assert_int_equal(c.core->metrics.refused[METRICS_LIMIT_DEADLINE], 1);
    assert_int_equal(c.core->bytes, 0);
    cluster_stop(&c);
}

/* Puts a wait of 1000 s before whoever comes with priority 0. */
static void make_wait(void *arg)
{
    struct cluster *c = arg;
    struct backlog *b = &c->core->members->groups[0].backlog;
    b->tokens[1] += 1000 - backlog_tokens(b);
    b->begun = b->busy_s = 1000;
    b->count = 1;
    b->seen_ns = clock_now_ns();
}

static void unmake_wait(void *arg)
{
    struct cluster *c = arg;
    c->core->members->groups[0].backlog.tokens[1] -= 997;
    c->core->identity = NULL;
}

/* Batch work is let in at half of the bound, a tenant of whom nobody waits at twice. */
static void who_waits_how_long(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a;
    cluster_start(&c, "limits: {sequences: 1, step_tokens: 1, waiting_ms: 1500000, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    start_as(&c, &a, 3);
    on_loop(&c, make_wait, &c);
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 1, 0, "(limits.waiting_ms)");
    c.config.limits.waiting_ms = 750000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    c.core->identity = (struct identity *)&c; /* there are keys, so tenants; nobody looks inside */
    assert_admitted(&c, 7, 0, 0, NULL);
    assert_admitted(&c, 7, 1, 0, "(limits.waiting_ms)");
    assert_admitted(&c, 3, 0, 0, "(limits.waiting_ms)");
    c.config.limits.waiting_ms = 400000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    /* When there is room is told, not how long one would wait then: 1000 s and what has
     * passed, or 990 less. */
    c.config.limits.waiting_ms = 495000;
    assert_admitted(&c, 7, 0, 0, "(limits.waiting_ms)");
    assert_in_range(refused_retry_s, 8, 30);
    assert_admitted(&c, 7, 0, 990000, "and its deadline is sooner");
    assert_in_range(refused_retry_s, 8, 30);
    c.config.limits.waiting_ms = 990000;
    assert_admitted(&c, 3, 0, 0, "(limits.waiting_ms)");
    assert_in_range(refused_retry_s, 8, 30);
    on_loop(&c, unmake_wait, &c);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

struct fed_ask {
    struct cluster *c;
    struct backlog seen;
};

static void ask_fed(void *arg)
{
    struct fed_ask *a = arg;
    a->seen = a->c->core->members->groups[0].backlog;
}

static void say_fed(struct cluster *c, struct fake_rank *r, uint64_t rows)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Engine engine = WITAN__CLUSTER__V1__ENGINE__INIT;
    struct fed_ask a = {.c = c};
    engine.prompt_rows = rows;
    beat.engine = &engine;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    fake_send(r, &m);
    for (int i = 0; i < 3000 && a.seen.told != rows; i++) {
        on_loop(c, ask_fed, &a);
        usleep(1000);
    }
    assert_true(a.seen.told == rows);
    assert_true(a.seen.fed == 0.0);
}

/* What its ranks have fed before they came is not of those that wait now. */
static void ranks_come_with_a_past(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    for (uint64_t i = 1; i <= 2; i++) {
        fake_serve(&c, &r);
        cluster_wait_ready(&c, true);
        say_fed(&c, &r, i * 5000000);
        fake_release(&r);
        cluster_wait_ready(&c, false);
    }
    cluster_stop(&c);
}

static void memory_is_bounded(void **state)
{
    (void)state;
    enum { ENOUGH = 200 };
    static struct answer a[ENOUGH];
    struct cluster c;
    struct fake_rank r;
    int count = 0;
    cluster_start(&c, "limits: {memory_mb: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    do
        start_as(&c, &a[count], 0);
    while (a[count].started == OK && ++count < ENOUGH);
    assert_in_range(count, 20, ENOUGH - 1);
    assert_told_to_come_again(&a[count], "take 1 MB of memory, as much as they may "
                                         "(limits.memory_mb)");
    assert_admitted(&c, 7, -1, 0, "(limits.memory_mb)");
    fake_release(&r);
    for (int i = 0; i < count; i++)
        wait_end(&a[i]);
    assert_int_equal(c.core->bytes, 0);
    cluster_stop(&c);
}

/* Its first token makes a request safe from limits.queue_timeout_s. */
static void waiting_has_an_end(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 9}, begun;
    begin(&c, &r, &a, "limits: {queue_timeout_s: 1, context: 64}\n");
    start_as(&c, &begun, 0);
    say_first(&c, &r, fake_next(&r), &begun);
    for (int i = 0; i < 3000 && !a.seen_end; i++) {
        on_loop(&c, tick, &c);
        on_loop(&c, look, &a);
        usleep(10000);
    }
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_CANCELLED);
    assert_string_equal(a.end.err.msg, "no token came within 1 seconds (limits.queue_timeout_s)");
    assert_int_equal(fake_next(&r)->body_case,
                     WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    on_loop(&c, look, &begun);
    assert_int_equal(begun.seen_ids, 1);
    assert_false(begun.seen_end);
    fake_release(&r);
    wait_end(&begun);
    cluster_stop(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_tenant_has_no_more_than_its_share),
    cmocka_unit_test(what_no_cache_holds_is_refused),
    cmocka_unit_test(no_more_wait_than_may),
    cmocka_unit_test(an_answer_is_let_in_once),
    cmocka_unit_test(what_replaces_another_finds_room),
    cmocka_unit_test(the_groups_own_word_on_waiting_counts),
    cmocka_unit_test(prompts_that_wait_are_bounded),
    cmocka_unit_test(nobody_waits_longer_than_may),
    cmocka_unit_test(who_waits_how_long),
    cmocka_unit_test(ranks_come_with_a_past),
    cmocka_unit_test(memory_is_bounded),
    cmocka_unit_test(waiting_has_an_end),
};

UNIT_MAIN(tests)
