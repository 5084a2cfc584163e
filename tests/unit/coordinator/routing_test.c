/* Which of two groups a request goes to: where its beginning is cached, unless that group is much
 * busier. The test plays both. */
#include "tests/unit/coordinator/cluster.h"
#include "coordinator/members_private.h"

enum { LONG = 20 * KV_BLOCK };

struct asked {
    struct cluster *c;
    struct generation *g;
    enum status started;
    struct error err;
    int32_t prompt[LONG];
    int32_t len;
    uint64_t domain;
    bool json;     /* it is to be an object */
    int32_t most;  /* tokens of its thought and 1; 0: no bound */
    int32_t group; /* that it went to */
};

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part, (void)text, (void)len;
}

static void on_end(void *user, const struct generation_end *end)
{
    (void)end;
    ((struct asked *)user)->g = NULL;
}

static const struct generation_sink sink = {.on_text = on_text, .on_end = on_end};

static void start(void *arg)
{
    struct asked *a = arg;
    const struct members *m = a->c->core->members;
    struct generation_params p = {.prompt = a->prompt,
                                  .prompt_len = a->len,
                                  .max_tokens = 4,
                                  .prefix_domain = a->domain,
                                  .sampling = {.top_p = 1}};
    p.thinking_budget = a->most;
    p.split_reasoning = p.in_reasoning = a->most > 0;
    p.max_tokens = a->most > 0 ? 90 : 4;
    p.constraint.kind = a->json ? CONSTRAINT_JSON_OBJECT : CONSTRAINT_NONE;
    int32_t before = m->groups[0].active;
    a->started = generation_start(a->c->core, &p, &sink, a, &a->g, &a->err);
    a->group = m->groups[0].active == before;
}

static void cancel(void *arg)
{
    generation_cancel(((struct asked *)arg)->g);
}

/* Asks with `same` tokens that prompts share and then others of its own; tells which group. */
static int32_t ask(struct cluster *c, struct asked *a, int32_t same, int32_t own)
{
    static int32_t unlike;
    a->c = c;
    a->len = same + own;
    unlike++;
    for (int32_t i = 0; i < a->len; i++)
        a->prompt[i] = i < same ? 100 + i % 50 : unlike % 90;
    on_loop(c, start, a);
    if (a->started != OK && !a->json && !a->most)
        fail_msg("%s", a->err.msg);
    return a->group;
}

static void ask_both_ready(void *arg)
{
    struct cluster *c = *(struct cluster **)arg;
    ((struct cluster **)arg)[1] = members_all_ready(c->core->members) ? c : NULL;
}

static void begin(struct cluster *c, struct fake_rank r[2], const char *limits)
{
    struct cluster *both[2] = {c, NULL};
    char yaml[300];
    snprintf(yaml, sizeof yaml, "groups: [{name: g0}, {name: g1}]\nlimits: {context: 2048%s}\n",
             limits);
    cluster_start(c, yaml);
    fake_serve(c, &r[0]);
    cluster_wait_ready(c, true);
    fake_serve_with(c, &r[1], (struct fake_hello){.group = "g1"}, "");
    for (int i = 0; i < 3000 && !both[1]; i++) {
        on_loop(c, ask_both_ready, both);
        usleep(1000);
    }
    assert_non_null(both[1]);
}

static void end(struct cluster *c, struct fake_rank r[2])
{
    fake_release(&r[0]);
    fake_release(&r[1]);
    cluster_stop(c);
}

static void owes_nothing(void *arg)
{
    const struct members *m = ((struct cluster *)arg)->core->members;
    for (uint32_t i = 0; i < m->count; i++)
        assert_true(m->groups[i].owed == 0 && m->groups[i].active == 0);
}

static void a_prefix_goes_where_it_is_cached(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    static struct asked a[3], busy[12];
    begin(&c, r, "");
    assert_int_equal(ask(&c, &busy[0], 0, 70), 0); /* equal: the first */
    assert_int_equal(ask(&c, &a[0], 1024, 9), 1);  /* less busy */
    on_loop(&c, cancel, &a[0]);
    on_loop(&c, cancel, &busy[0]);
    /* Its next turn finds it there, though the other would have been chosen. */
    assert_int_equal(ask(&c, &a[0], 1024, 200), 1);
    assert_int_equal(c.core->metrics.routed[METRICS_BY_PREFIX], 1);
    assert_int_equal(c.core->metrics.routed[METRICS_BY_LOAD], 2);
    /* Nobody else's: another domain goes by load. */
    a[1].domain = 5;
    assert_int_equal(ask(&c, &a[1], 1024, 9), 0);
    on_loop(&c, cancel, &a[1]);
    /* 1,024 tokens outweigh the one there, which has 201 to compute, and two more of 9, not a
     * fourth. */
    assert_int_equal(ask(&c, &busy[0], 1024, 9), 1);
    assert_int_equal(ask(&c, &busy[1], 1024, 9), 1);
    assert_int_equal(ask(&c, &busy[2], 1024, 9), 1);
    assert_int_equal(ask(&c, &busy[3], 1024, 9), 0);
    for (int i = 0; i < 4; i++)
        on_loop(&c, cancel, &busy[i]);
    on_loop(&c, cancel, &a[0]);
    on_loop(&c, owes_nothing, &c);
    end(&c, r);
}

/* The batch of the one that has it is full: waiting there costs more. */
static void no_prefix_is_worth_a_queue(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    static struct asked a[4];
    begin(&c, r, ", sequences: 2");
    assert_int_equal(ask(&c, &a[0], 1280, 0), 0);
    on_loop(&c, cancel, &a[0]);
    assert_int_equal(ask(&c, &a[0], 1280, 0), 0);
    assert_int_equal(ask(&c, &a[1], 1280, 0), 0);
    assert_int_equal(ask(&c, &a[2], 1280, 0), 1);
    for (int i = 0; i < 3; i++)
        on_loop(&c, cancel, &a[i]);
    end(&c, r);
}

static void ask_first_done(void *arg)
{
    struct cluster *c = *(struct cluster **)arg;
    ((struct cluster **)arg)[1] = c->core->members->groups[0].owed == 0 ? c : NULL;
}

/* What waits to be computed counts, until its first token is there. */
static void long_prompts_weigh_until_they_are_computed(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    static struct asked a[4];
    int32_t id = 40;
    begin(&c, r, ", prefix_cache: 'off'");
    assert_int_equal(ask(&c, &a[0], 0, 1200), 0);
    assert_int_equal(ask(&c, &a[1], 0, 64), 1);
    assert_int_equal(ask(&c, &a[2], 0, 64), 1); /* two requests, but less to compute */
    const Witan__Cluster__V1__Submit *q = fake_next(&r[0])->submit;
    fake_say_tokens(&r[0], q->request_id, 1, q->epoch, 0, &id, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    struct cluster *first[2] = {&c, NULL};
    for (int i = 0; i < 3000 && !first[1]; i++) {
        usleep(1000);
        on_loop(&c, ask_first_done, first);
    }
    assert_non_null(first[1]);
    assert_int_equal(ask(&c, &a[3], 0, 64), 0);
    for (int i = 0; i < 4; i++)
        on_loop(&c, cancel, &a[i]);
    on_loop(&c, owes_nothing, &c);
    end(&c, r);
}

/* A group that comes back has nothing of what it was sent. */
static void a_lost_group_is_forgotten(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    static struct asked a;
    struct cluster *both[2] = {&c, NULL};
    begin(&c, r, "");
    assert_int_equal(ask(&c, &a, 1280, 0), 0);
    on_loop(&c, cancel, &a);
    fake_release(&r[0]);
    for (both[1] = &c; both[1];)
        on_loop(&c, ask_both_ready, both);
    assert_int_equal(ask(&c, &a, 1280, 0), 1);
    on_loop(&c, cancel, &a);
    fake_serve(&c, &r[0]);
    while (!both[1])
        on_loop(&c, ask_both_ready, both);
    assert_int_equal(ask(&c, &a, 1280, 0), 1);
    on_loop(&c, cancel, &a);
    end(&c, r);
}

/* Only a rank that says so is asked to hold an answer to a form, and told tokens' bytes once. */
static void forms_go_to_those_who_can_keep_them(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    static struct asked a[4] = {{.json = true}, {.json = true}, {.json = true}, {.json = true}};
    struct cluster *both[2] = {&c, NULL};
    cluster_start(&c, "groups: [{name: g0}, {name: g1}]\nlimits: {context: 2048}\n");
    fake_serve(&c, &r[0]);
    cluster_wait_ready(&c, true);
    ask(&c, &a[0], 0, 70);
    assert_int_equal(a[0].started, ERR_PEER); /* nobody knows what the other can */
    assert_non_null(strstr(a[0].err.msg, "response_format: json_object is not supported by group"));
    fake_serve_with(&c, &r[1], (struct fake_hello){.group = "g1", .constraints = true}, "");
    while (!both[1])
        on_loop(&c, ask_both_ready, both);
    ask(&c, &a[1], 0, 70);
    assert_true(a[1].g && a[1].group == 1);
    assert_int_equal(ask(&c, &a[2], 0, 70), 1);
    const Witan__Cluster__V1__CoordinatorMessage *m = fake_next(&r[1]);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS);
    assert_true(m->words->n_lengths == (size_t)c.core->served.vocab &&
                m->words->kinds.len == m->words->n_lengths && m->words->text.len > 256);
    for (int i = 0; i < 2; i++) {
        m = fake_next(&r[1]);
        assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
        assert_true(m->submit->constraint && m->submit->constraint->kind == 1);
    }
    on_loop(&c, cancel, &a[1]);
    on_loop(&c, cancel, &a[2]);
    fake_release(&r[1]); /* it may come again, */
    for (both[1] = &c; both[1];)
        on_loop(&c, ask_both_ready, both);
    ask(&c, &a[3], 0, 70);
    assert_int_equal(a[3].started, ERR_PEER);
    fake_serve_with(&c, &r[1], (struct fake_hello){.group = "g1"}, ""); /* but as another */
    while (!both[1])
        on_loop(&c, ask_both_ready, both);
    ask(&c, &a[3], 0, 70);
    assert_int_equal(a[3].started, ERR_UNSUPPORTED);
    end(&c, r);
}

static void bounded_thoughts_go_to_those_who_can_end_them(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    static struct asked none = {.most = 8}, some = {.most = 8}, much = {.most = 91},
                        tight = {.most = 1000, .json = true};
    cluster_start(&c, "limits: {context: 2048}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    ask(&c, &none, 0, 70);
    assert_int_equal(none.started, ERR_UNSUPPORTED);
    assert_string_equal(none.err.msg, "thinking_budget is not supported by group g0, whose ranks "
                                      "are of an older release, and no other is ready");
    fake_release(&r);
    cluster_wait_ready(&c, false);
    fake_serve_with(&c, &r, (struct fake_hello){.thinking = true, .constraints = true}, "");
    cluster_wait_ready(&c, true);
    ask(&c, &some, 0, 70);
    assert_int_equal(some.started, OK);
    const Witan__Cluster__V1__Thinking *t = fake_next(&r)->submit->thinking;
    const struct thinking *own = &c.core->served.thinking;
    assert_true(t && t->most == 7 && t->inside && t->open == own->open && t->close == own->close);
    assert_true(own->count > 10 && t->n_ids == (size_t)own->count);
    assert_memory_equal(t->ids, own->ids, t->n_ids * sizeof *t->ids);
    ask(&c, &much, 0, 70); /* max_tokens ends it before */
    assert_int_equal(much.started, OK);
    assert_true(fake_next(&r)->submit->thinking->most == 90);
    on_loop(&c, cancel, &much);
    much.most = 92;
    fake_next(&r); /* the cancel */
    ask(&c, &much, 0, 70);
    assert_int_equal(much.started, OK);
    assert_null(fake_next(&r)->submit->thinking);
    ask(&c, &tight, 0, 70); /* {} and the end have room behind it */
    assert_int_equal(tight.started, OK);
    fake_next(&r); /* the words */
    assert_int_equal(fake_next(&r)->submit->thinking->most, 90 - own->count - 3);
    on_loop(&c, cancel, &some);
    on_loop(&c, cancel, &much);
    on_loop(&c, cancel, &tight);
    fake_release(&r);
    cluster_stop(&c);
}

/* Told the words, lost, and back again: it is told anew. */
static void words_are_said_on_each_stream(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    static struct asked a[2] = {{.json = true}, {.json = true}};
    cluster_start(&c, "limits: {context: 2048}\n");
    for (int i = 0; i < 2; i++) {
        fake_serve_with(&c, &r, (struct fake_hello){.constraints = true}, "");
        cluster_wait_ready(&c, true);
        ask(&c, &a[i], 0, 70);
        assert_int_equal(fake_next(&r)->body_case,
                         WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS);
        assert_int_equal(fake_next(&r)->body_case,
                         WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
        on_loop(&c, cancel, &a[i]);
        fake_release(&r);
        cluster_wait_ready(&c, false);
    }
    cluster_stop(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_prefix_goes_where_it_is_cached),
    cmocka_unit_test(no_prefix_is_worth_a_queue),
    cmocka_unit_test(long_prompts_weigh_until_they_are_computed),
    cmocka_unit_test(a_lost_group_is_forgotten),
    cmocka_unit_test(forms_go_to_those_who_can_keep_them),
    cmocka_unit_test(bounded_thoughts_go_to_those_who_can_end_them),
    cmocka_unit_test(words_are_said_on_each_stream),
};

UNIT_MAIN(tests)
