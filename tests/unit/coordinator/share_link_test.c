/* A coordinator that dials a home that the test plays: how it uses its groups, and what it makes of
 * words that are wrong, of silence, and of releases that share nothing. */
#include "tests/unit/coordinator/peers.h"

static const int none = 0, one = 1, second = 1;

/* --- a home ------------------------------------------------------------------------------------
 */

struct fake_home {
    struct cluster certificates; /* its folder alone */
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_method method;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct rpc_call *call; /* the stream that is open; a reference; NULL: none is */
    _Atomic(int) refuses;  /* hellos, with this code */
    share_request *got[64];
    int count, taken, dials;
    struct cluster c; /* that dials it */
};

static void send_reply(struct fake_home *h, share_reply *m)
{
    struct error err;
    struct rpc_call *call;
    pthread_mutex_lock(&h->lock);
    call = h->call ? rpc_call_ref(h->call) : NULL;
    pthread_mutex_unlock(&h->lock);
    if (call)
        rpc_send(call, &m->base, &err); /* to a call that has ended: nothing */
    rpc_call_unref(call);
}

static void say_welcome(struct fake_home *h)
{
    share_reply m = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    Witan__Cluster__V1__ShareWelcome welcome = WITAN__CLUSTER__V1__SHARE_WELCOME__INIT;
    welcome.software_version = "0.1.0";
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME;
    m.welcome = &welcome;
    send_reply(h, &m);
}

static void home_open(struct rpc_call *call, void *arg)
{
    struct fake_home *h = arg;
    rpc_call_set_user(call, h);
    pthread_mutex_lock(&h->lock);
    rpc_call_unref(h->call);
    h->call = rpc_call_ref(call);
    h->dials++;
    pthread_mutex_unlock(&h->lock);
}

static void home_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct fake_home *h = user;
    const share_request *m = (const share_request *)message;
    if (m->body_case == WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_HELLO) {
        if (h->refuses != RPC_OK)
            rpc_finish(call, (enum rpc_code)h->refuses, "model.name: expected another");
        else
            say_welcome(h);
        return;
    }
    pthread_mutex_lock(&h->lock);
    CHECK(h->count < (int)COUNT_OF(h->got), "too many messages");
    h->got[h->count++] = (share_request *)rpc_keep_message(call, message);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static void home_half_close(struct rpc_call *call, void *user)
{
    (void)user;
    rpc_finish(call, RPC_OK, NULL);
}

static void home_start(struct fake_home *h, const char *method, const char *yaml)
{
    struct error err;
    struct pki_files files;
    char text[400];
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    cluster_issue(&h->certificates);
    h->method = (struct rpc_method){
        .name = method,
        .request = &witan__cluster__v1__share_request__descriptor,
        .client_streams = true,
        .on_open = home_open,
        .handlers = {.on_message = home_message, .on_half_close = home_half_close},
        .arg = h,
    };
    assert_int_equal(pki_load(h->certificates.dir, "coordinator", &files, &err), OK);
    struct rpc_tls tls = {.ca = files.ca, .cert = files.cert, .key = files.key};
    assert_int_equal(rpc_create(1000, NULL, NULL, &h->rpc, &err), OK);
    assert_int_equal(
        rpc_server_create(h->rpc, "127.0.0.1:0", &tls, &h->method, 1, &h->server, &err), OK);
    pki_files_fini(&files);
    snprintf(text, sizeof text, "%speers: [\"127.0.0.1:%d\"]\n", yaml, rpc_server_port(h->server));
    cluster_start_beside(&h->c, &h->certificates, "", text);
}

static void home_stop_serving(struct fake_home *h)
{
    if (!h->server)
        return;
    rpc_server_stop(h->server, 0);
    rpc_call_unref(h->call);
    rpc_destroy(h->rpc);
    h->server = NULL;
}

static void home_stop(struct fake_home *h)
{
    cluster_stop(&h->c);
    home_stop_serving(h);
    for (int i = 0; i < h->count; i++)
        witan__cluster__v1__share_request__free_unpacked(h->got[i], NULL);
    cluster_remove(h->certificates.dir);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
}

static const share_request *home_next(struct fake_home *h)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&h->lock);
    while (h->taken == h->count)
        if (pthread_cond_timedwait(&h->changed, &h->lock, &t) != 0)
            break;
    const share_request *m = h->taken < h->count ? h->got[h->taken++] : NULL;
    pthread_mutex_unlock(&h->lock);
    assert_non_null(m);
    return m;
}

static const Witan__Cluster__V1__Submit *home_submit(struct fake_home *h)
{
    const share_request *m = home_next(h);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_SUBMIT);
    return m->submit->submit;
}

struct state_said {
    const char *group, *class;
    bool not_ready, takes_nothing;
    uint64_t start;
    uint32_t kv_blocks;
};

static void say_state(struct fake_home *h, struct state_said s)
{
    share_reply m = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    Witan__Cluster__V1__GroupState g = WITAN__CLUSTER__V1__GROUP_STATE__INIT;
    g.group = (char *)(s.group ? s.group : "g0");
    g.numerics_class = (char *)(s.class ? s.class : NUMERICS_CLASS_CPU);
    g.ready = !s.not_ready;
    g.takes_new = !s.takes_nothing;
    g.start = s.start ? s.start : 1;
    g.protocol = CLUSTER_PROTOCOL_VERSION;
    g.max_seqs = 8;
    g.kv_blocks = g.kv_blocks_free = s.kv_blocks ? s.kv_blocks : 1000;
    g.message = s.not_ready ? "it was\nlost" : "";
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP;
    m.group = &g;
    send_reply(h, &m);
}

static void say_tokens(struct fake_home *h, uint64_t id, uint32_t attempt, uint64_t epoch,
                       int32_t position, bool last)
{
    int32_t drawn = 'a' - 33;
    share_reply m = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT, *list = &s;
    s.request_id = id;
    s.attempt = attempt;
    s.epoch = epoch;
    s.position = position;
    s.ids = &drawn;
    s.n_ids = 1;
    s.finish = last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                    : WITAN__CLUSTER__V1__FINISH__FINISH_NONE;
    tokens.sequences = &list;
    tokens.n_sequences = 1;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_TOKENS;
    m.tokens = &tokens;
    send_reply(h, &m);
}

static void say_returned(struct fake_home *h, uint64_t id, uint32_t attempt)
{
    share_reply m = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    Witan__Cluster__V1__Returned r = WITAN__CLUSTER__V1__RETURNED__INIT;
    r.request_id = id;
    r.attempt = attempt;
    r.why = "it is\nfull";
    m.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_RETURNED;
    m.returned = &r;
    send_reply(h, &m);
}

static const char share[] = "/witan.cluster.v1.Cluster/Share";
static const char patient[] = "limits: {failovers: 1, failover_timeout_s: 60}\n";
static const char two_groups[] = "groups: [{name: g0}, {name: g1}]\n"
                                 "limits: {failovers: 1, failover_timeout_s: 60}\n";

static bool is_up(struct cluster *c, const void *arg)
{
    (void)arg;
    return c->core->members->share->links[0].up;
}

static bool is_down(struct cluster *c, const void *arg)
{
    const struct share_link *l = &c->core->members->share->links[0];
    (void)arg;
    return !l->up && !l->call && l->retry_ns > 0;
}

/* A home whose first group is ready, and a request in it. */
static const Witan__Cluster__V1__Submit *begin(struct fake_home *h, struct answer *a,
                                               const char *yaml)
{
    home_start(h, share, yaml);
    until(&h->c, NULL, is_up, NULL);
    say_state(h, (struct state_said){0});
    until(&h->c, NULL, is_through, NULL);
    *a = (struct answer){.c = &h->c};
    on_loop(&h->c, answer_start, a);
    if (a->started != OK)
        fail_msg("%s", a->err.msg);
    return home_submit(h);
}

/* All four tokens of the answer come, in the words of this submit. */
static void answer_all(struct fake_home *h, const Witan__Cluster__V1__Submit *q, struct answer *a)
{
    for (int32_t i = (int32_t)q->n_answer; i < 4; i++)
        say_tokens(h, q->request_id, q->attempt, q->epoch, i, i == 3);
    until(&h->c, NULL, has_ended, a);
    if (a->end.reason != GENERATION_LENGTH)
        fail_msg("%s", a->end.err.msg);
    assert_int_equal(a->ids, 4);
}

/* --- cases --- */

static void what_is_asked_is_whole(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
    assert_true(q->epoch == h.c.core->epoch);
    assert_int_equal(q->n_prompt, 3);
    assert_string_equal(h.got[0]->submit->group, "g0");
    assert_int_equal(h.got[0]->submit->start, 1);
    answer_all(&h, q, &a);
    assert_int_equal(h.c.core->members->groups[0].active, 0);
    home_stop(&h);
}

/* Words of other epochs, attempts and requests are nobody's. */
static void only_its_own_words_count(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
    say_tokens(&h, q->request_id, q->attempt, q->epoch + 1, 0, false);
    say_tokens(&h, q->request_id, q->attempt + 1, q->epoch, 0, false);
    say_tokens(&h, q->request_id + 9, 1, q->epoch, 0, false);
    say_returned(&h, q->request_id + 9, 1);
    say_returned(&h, q->request_id, q->attempt + 1);
    answer_all(&h, q, &a);
    home_stop(&h);
}

/* A request in a group that has its ranks here is none of a peer's business. */
static void it_cannot_answer_for_others(void **state)
{
    (void)state;
    struct fake_home h;
    struct fake_rank r;
    struct answer a = {.c = &h.c};
    home_start(&h, share, two_groups);
    fake_serve(&h.c, &r);
    cluster_wait_ready(&h.c, true);
    on_loop(&h.c, answer_start, &a);
    const told *m = fake_next(&r);
    assert_int_equal(m->body_case, SUBMIT);
    until(&h.c, NULL, is_up, NULL);
    say_tokens(&h, m->submit->request_id, 1, m->submit->epoch, 0, true);
    say_returned(&h, m->submit->request_id, 1);
    say_state(&h, (struct state_said){.group = "g1"});
    until(&h.c, NULL, is_through, &second);
    assert_int_equal(a.ids, 0);
    int32_t id = 'a' - 33;
    for (int32_t i = 0; i < 4; i++)
        fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, i, &id, 1,
                        i == 3 ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                               : WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    until(&h.c, NULL, has_ended, &a);
    assert_int_equal(a.ids, 4);
    fake_release(&r);
    home_stop(&h);
}

/* It goes on when the home says that it takes requests, in a new attempt; none of
 * limits.failovers is spent. */
static void what_comes_back_goes_on(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(q->attempt, i);
        say_returned(&h, q->request_id, q->attempt);
        until(&h.c, NULL, is_held, &one);
        assert_false(group_takes_new(&h.c.core->members->groups[0]));
        say_state(&h, (struct state_said){0});
        until(&h.c, NULL, is_held, &none);
        q = home_submit(&h);
    }
    answer_all(&h, q, &a);
    home_stop(&h);
}

static void a_link_that_ends_is_dialled_again(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
    say_tokens(&h, q->request_id, 1, q->epoch, 0, false);
    until(&h.c, NULL, has_ids, &a);
    pthread_mutex_lock(&h.lock);
    rpc_finish(h.call, RPC_UNAVAILABLE, "going");
    pthread_mutex_unlock(&h.lock);
    until(&h.c, NULL, is_held, &one);
    until(&h.c, NULL, is_up, NULL);
    pthread_mutex_lock(&h.lock);
    int dials = h.dials;
    pthread_mutex_unlock(&h.lock);
    assert_int_equal(dials, 2);
    say_state(&h, (struct state_said){0});
    q = home_submit(&h);
    assert_int_equal(q->attempt, 2);
    assert_int_equal(q->n_answer, 1);
    answer_all(&h, q, &a);
    home_stop(&h);
}

/* It was lost there and is ready again before anybody could tell. */
static void another_start_is_another_group(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
    assert_int_equal(q->attempt, 1);
    say_state(&h, (struct state_said){.start = 2});
    q = home_submit(&h);
    assert_int_equal(q->attempt, 2);
    assert_int_equal(h.got[h.taken - 1]->submit->start, 2);
    answer_all(&h, q, &a);
    home_stop(&h);
}

static void a_group_that_goes_is_named(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    begin(&h, &a, patient);
    say_state(&h, (struct state_said){.not_ready = true});
    until(&h.c, NULL, is_held, &one);
    const char *why = h.c.core->members->groups[0].message;
    if (!strstr(why, "served through the coordinator at 127.0.0.1:") || !strstr(why, "it was?lost"))
        fail_msg("%s", why);
    on_loop(&h.c, answer_cancel, &a);
    home_stop(&h);
}

/* No word for longer than limits.step_timeout_s, 3 s at least. */
static void silence_closes_a_link(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a;
    begin(&h, &a, "limits: {failovers: 1, failover_timeout_s: 60, step_timeout_s: 1}\n");
    until(&h.c, NULL, is_held, &one);
    assert_non_null(strstr(h.c.core->members->groups[0].message, "it has been silent for 3 s"));
    on_loop(&h.c, answer_cancel, &a);
    home_stop(&h);
}

static bool is_dead(struct cluster *c, const void *arg)
{
    return is_down(c, arg) && strstr(c->core->members->share->links[0].logged, arg);
}

static int64_t pause_s(const struct cluster *c)
{
    return (c->core->members->share->links[0].retry_ns - clock_now_ns()) / 1000000000;
}

static void an_older_release_is_tried_seldom(void **state)
{
    (void)state;
    struct fake_home h;
    home_start(&h, "/witan.cluster.v1.Cluster/Other", "");
    until(&h.c, NULL, is_dead, "UNIMPLEMENTED");
    assert_in_range(pause_s(&h.c), 15, 40);
    home_stop(&h);
}

static void a_refusal_is_tried_seldom(void **state)
{
    (void)state;
    struct fake_home h;
    home_start(&h, share, "");
    h.refuses = RPC_FAILED_PRECONDITION;
    until(&h.c, NULL, is_dead, "FAILED_PRECONDITION: model.name: expected another");
    assert_in_range(pause_s(&h.c), 15, 40);
    home_stop(&h);
}

static void nobody_there_is_tried_again(void **state)
{
    (void)state;
    struct fake_home h;
    home_start(&h, share, "");
    home_stop_serving(&h);
    until(&h.c, NULL, is_dead, "UNAVAILABLE");
    assert_in_range(pause_s(&h.c) + 1, 0, 10);
    home_stop(&h);
}

static void no_class(struct fake_home *h, const Witan__Cluster__V1__Submit *q)
{
    (void)q;
    say_state(h, (struct state_said){.class = ""});
}

static void bad_position(struct fake_home *h, const Witan__Cluster__V1__Submit *q)
{
    say_tokens(h, q->request_id, q->attempt, q->epoch, -1, false);
}

static void two_welcomes(struct fake_home *h, const Witan__Cluster__V1__Submit *q)
{
    (void)q;
    say_welcome(h);
}

static void wrong_words_close_the_link(void **state)
{
    (void)state;
    static const struct {
        void (*say)(struct fake_home *h, const Witan__Cluster__V1__Submit *q);
        const char *words;
    } cases[] = {{no_class, "ready without a numerics class"},
                 {bad_position, "position: expected 0 or more"},
                 {two_welcomes, "must be a welcome, and no other"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_home h;
        struct answer a;
        const Witan__Cluster__V1__Submit *q = begin(&h, &a, patient);
        cases[i].say(&h, q);
        until(&h.c, NULL, is_held, &one);
        until(&h.c, NULL, is_dead, cases[i].words);
        assert_in_range(pause_s(&h.c), 15, 40);
        on_loop(&h.c, answer_cancel, &a);
        home_stop(&h);
    }
}

/* Another class beside groups that compute already, and groups that nobody has here. */
static void strangers_are_not_used(void **state)
{
    (void)state;
    struct fake_home h;
    struct fake_rank r;
    home_start(&h, share, two_groups);
    fake_serve(&h.c, &r);
    cluster_wait_ready(&h.c, true);
    until(&h.c, NULL, is_up, NULL);
    say_state(&h, (struct state_said){.group = "g1", .class = "cpu-1-int4"});
    say_state(&h, (struct state_said){.group = "g9"});
    say_state(&h, (struct state_said){.group = "g1", .class = NUMERICS_CLASS_CPU});
    until(&h.c, NULL, is_through, &second);
    assert_string_equal(h.c.core->members->groups[1].class, NUMERICS_CLASS_CPU);
    fake_release(&r);
    home_stop(&h);
}

/* A rank of another class than what is served through a peer. */
static void ranks_of_another_class_are_refused(void **state)
{
    (void)state;
    struct fake_home h;
    struct fake_rank r;
    home_start(&h, share, two_groups);
    until(&h.c, NULL, is_up, NULL);
    say_state(&h, (struct state_said){.group = "g1", .class = "cpu-1-int4"});
    until(&h.c, NULL, is_through, &second);
    fake_open_on(&r, h.c.channel);
    fake_say_hello(&r, (struct fake_hello){.world = 1});
    assert_int_equal(fake_wait_closed(&r), RPC_FAILED_PRECONDITION);
    assert_non_null(
        strstr(r.message, "numerics class cpu-1: group g1, through the coordinator at"));
    fake_release(&r);
    home_stop(&h);
}

/* The bound of what fits is the home's cache. */
static void the_homes_cache_bounds_requests(void **state)
{
    (void)state;
    struct fake_home h;
    struct answer a = {.c = &h.c, .prompt_len = 33, .max_tokens = 32};
    home_start(&h, share, "");
    until(&h.c, NULL, is_up, NULL);
    say_state(&h, (struct state_said){.kv_blocks = 1});
    until(&h.c, NULL, is_through, NULL);
    on_loop(&h.c, answer_start, &a);
    assert_int_equal(a.started, ERR_LIMIT);
    assert_non_null(strstr(a.err.msg, "the KV cache holds"));
    home_stop(&h);
}

static void metrics_tell_links(void **state)
{
    (void)state;
    struct fake_home h;
    struct buf page;
    struct error err;
    char line[100];
    home_start(&h, share, "");
    for (int up = 0; up < 2; up++) {
        if (up)
            until(&h.c, NULL, is_up, NULL);
        buf_init(&page, 1 << 20);
        assert_int_equal(metrics_page(h.c.core, &page, &err), OK);
        snprintf(line, sizeof line, "\nwitan_peer_linked{peer=\"127.0.0.1:%d\"} %d\n",
                 rpc_server_port(h.server), up);
        assert_non_null(strstr(page.data, line));
        buf_fini(&page);
    }
    home_stop(&h);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_asked_is_whole),
    cmocka_unit_test(only_its_own_words_count),
    cmocka_unit_test(it_cannot_answer_for_others),
    cmocka_unit_test(what_comes_back_goes_on),
    cmocka_unit_test(a_link_that_ends_is_dialled_again),
    cmocka_unit_test(another_start_is_another_group),
    cmocka_unit_test(a_group_that_goes_is_named),
    cmocka_unit_test(silence_closes_a_link),
    cmocka_unit_test(an_older_release_is_tried_seldom),
    cmocka_unit_test(a_refusal_is_tried_seldom),
    cmocka_unit_test(nobody_there_is_tried_again),
    cmocka_unit_test(wrong_words_close_the_link),
    cmocka_unit_test(strangers_are_not_used),
    cmocka_unit_test(ranks_of_another_class_are_refused),
    cmocka_unit_test(the_homes_cache_bounds_requests),
    cmocka_unit_test(metrics_tell_links),
};

UNIT_MAIN(tests)
