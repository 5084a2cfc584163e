/* A coordinator that is dialled by a peer that the test plays: who may use its groups, what it
 * takes from them, and what it does with words that are wrong. */
#include "tests/unit/coordinator/peers.h"

static const int none = 0, one = 1;

/* --- hello --- */

static void worker_certificates_are_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_peer p;
    cluster_start(&c, "");
    peer_open(&c, &p, "worker");
    peer_say_hello(&c, &p, NULL);
    assert_int_equal(peer_wait_closed(&p), RPC_PERMISSION_DENIED);
    assert_non_null(strstr(p.message, "expected a coordinator's (urn:witan:coordinator), found "
                                      "\"urn:witan:worker:*:*:\""));
    peer_release(&p);
    cluster_stop(&c);
}

#define CHANGES(name, statement)                                                                   \
    static void name(Witan__Cluster__V1__ShareHello *h)                                            \
    {                                                                                              \
        statement;                                                                                 \
    }
CHANGES(older, h->protocol_version = 0)
CHANGES(newer, h->protocol_version = h->protocol_oldest = 99)
CHANGES(model, h->model_name = "other")
CHANGES(manifest, h->manifest_digest = "00ff")
CHANGES(shape, h->model_shape = "3 layers\nof width 4")
CHANGES(weights, h->weights = "int4")
CHANGES(device, h->device = "cuda")
CHANGES(kv, h->kv_dtype = "int8")
CHANGES(vocab, h->vocab_limit++)
CHANGES(context, h->context = 17)
CHANGES(no_epoch, h->epoch = 0)

static uint64_t own_epoch;
CHANGES(itself, h->epoch = own_epoch)

static void each_difference_is_named(void **state)
{
    (void)state;
    static const struct {
        void (*change)(Witan__Cluster__V1__ShareHello *h);
        int code;
        const char *words;
    } cases[] = {
        {older, RPC_FAILED_PRECONDITION, "speaks protocol version 0"},
        {newer, RPC_FAILED_PRECONDITION, "install releases next to each other"},
        {model, RPC_FAILED_PRECONDITION,
         "model.name: the coordinator that was dialled has "
         "\"lexicon\", the one that dials \"other\""},
        {manifest, RPC_FAILED_PRECONDITION,
         "model.manifest (SHA-256): the coordinator that was "
         "dialled has \"none\", the one that dials \"00ff\""},
        {shape, RPC_FAILED_PRECONDITION, "the one that dials \"3 layers?of width 4\""},
        {weights, RPC_FAILED_PRECONDITION,
         "model.weights: the coordinator that was dialled has "
         "\"published\", the one that dials \"int4\""},
        {device, RPC_FAILED_PRECONDITION, "model.device"},
        {kv, RPC_FAILED_PRECONDITION, "limits.kv: "},
        {vocab, RPC_FAILED_PRECONDITION, "the tokenizer's vocabulary: "},
        {context, RPC_FAILED_PRECONDITION, "the one that dials \"17\""},
        {itself, RPC_FAILED_PRECONDITION, "a coordinator dials itself"},
        {no_epoch, RPC_INVALID_ARGUMENT, "epoch: expected 1 or more"},
    };
    struct cluster c;
    cluster_start(&c, "");
    own_epoch = c.core->epoch;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_peer p;
        peer_open(&c, &p, "coordinator");
        peer_say_hello(&c, &p, cases[i].change);
        assert_int_equal(peer_wait_closed(&p), cases[i].code);
        if (!strstr(p.message, cases[i].words))
            fail_msg("expected \"%s\", found \"%s\"", cases[i].words, p.message);
        peer_release(&p);
    }
    until(&c, NULL, stream_count, &none);
    assert_int_equal(c.core->members->share->refusals, COUNT_OF(cases));
    cluster_stop(&c);
}

static void say_nothing(struct fake_peer *p)
{
    share_request m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    peer_send(p, &m);
}

static void the_first_word_is_hello(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_peer p;
    cluster_start(&c, "");
    peer_open(&c, &p, "coordinator");
    peer_say_submit(&p, 1, 1, 1, NULL);
    assert_int_equal(peer_wait_closed(&p), RPC_INVALID_ARGUMENT);
    peer_release(&p);
    peer_open(&c, &p, "coordinator");
    say_nothing(&p);
    assert_int_equal(peer_wait_closed(&p), RPC_INVALID_ARGUMENT);
    peer_release(&p);
    peer_link(&c, &p);
    say_nothing(&p); /* of a later release */
    peer_say_hello(&c, &p, NULL);
    assert_int_equal(peer_wait_closed(&p), RPC_INVALID_ARGUMENT);
    assert_string_equal(p.message, "a second hello on one stream");
    peer_release(&p);
    cluster_stop(&c);
}

static void a_peer_that_dials_again_replaces_itself(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_peer old, new;
    struct fake_rank r;
    cluster_start(&c, "");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    peer_link(&c, &old);
    peer_say_submit(&old, 1, 1, 1, NULL);
    assert_int_equal(fake_next(&r)->body_case, SUBMIT);
    peer_link(&c, &new);
    assert_int_equal(peer_wait_closed(&old), RPC_ABORTED);
    assert_int_equal(fake_next(&r)->body_case, CANCEL);
    until(&c, NULL, relays_are, &none);
    peer_release(&old);
    peer_release(&new);
    fake_release(&r);
    cluster_stop(&c);
}

/* --- submits --- */

/* A served group and a peer that may use it. */
static void begin(struct cluster *c, struct fake_rank *r, struct fake_peer *p)
{
    cluster_start(c, "limits: {context: 64}\n");
    fake_serve(c, r);
    cluster_wait_ready(c, true);
    const Witan__Cluster__V1__GroupState *g = peer_link(c, p);
    assert_true(g->ready && g->takes_new && g->has_leader);
    assert_string_equal(g->group, "g0");
    assert_string_equal(g->numerics_class, NUMERICS_CLASS_CPU);
    assert_int_equal(g->start, 1);
    assert_int_equal(g->others, 0);
}

static void end(struct cluster *c, struct fake_rank *r, struct fake_peer *p)
{
    peer_release(p);
    fake_release(r);
    cluster_wait_ready(c, false);
    until(c, NULL, relays_are, &none);
    assert_int_equal(c->core->members->groups[0].active, 0);
    cluster_stop(c);
}

static const Witan__Cluster__V1__SequenceTokens *next_tokens(struct fake_peer *p)
{
    const share_reply *m = peer_next(p, false);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__SHARE_REPLY__BODY_TOKENS);
    assert_int_equal(m->tokens->n_sequences, 1);
    return m->tokens->sequences[0];
}

static void tokens_come_back_in_the_peers_ids(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    int32_t ids[] = {5, 6};
    begin(&c, &r, &p);
    peer_say_submit(&p, 99, 3, 1, NULL);
    const told *m = fake_next(&r);
    assert_int_equal(m->body_case, SUBMIT);
    assert_true(m->submit->epoch == c.core->epoch && m->submit->attempt == 1);
    uint64_t id = m->submit->request_id;
    /* Of another epoch, attempt, or request: nobody's. */
    fake_say_tokens(&r, id, 1, 7, 0, ids, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, id, 2, c.core->epoch, 0, ids, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, 99, 3, 7, 0, ids, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, id, 1, c.core->epoch, 0, ids, 2, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, id, 1, c.core->epoch, 2, ids, 1, WITAN__CLUSTER__V1__FINISH__FINISH_STOP);
    const Witan__Cluster__V1__SequenceTokens *t = next_tokens(&p);
    assert_true(t->request_id == 99 && t->attempt == 3 && t->epoch == 7);
    assert_int_equal(t->n_ids, 2);
    t = next_tokens(&p);
    assert_int_equal(t->position, 2);
    assert_int_equal(t->finish, WITAN__CLUSTER__V1__FINISH__FINISH_STOP);
    until(&c, NULL, relays_are, &none);
    end(&c, &r, &p);
}

#define SPOILS(name, statement)                                                                    \
    static void name(Witan__Cluster__V1__ShareSubmit *m)                                           \
    {                                                                                              \
        Witan__Cluster__V1__Submit *q = m->submit;                                                 \
        statement;                                                                                 \
    }
static int32_t many[4096];
SPOILS(no_prompt, q->n_prompt = 0)
SPOILS(negative_id, q->prompt[1] = -1)
SPOILS(large_id, q->prompt[1] = INT32_MAX)
SPOILS(long_prompt, (q->prompt = many, q->n_prompt = 65))
SPOILS(long_answer, q->max_tokens = 62)
SPOILS(negative_tokens, q->max_tokens = -1)
SPOILS(no_sampling, q->sampling = NULL)
SPOILS(bad_top_p, q->sampling->top_p = 2)
SPOILS(bad_penalty, q->sampling->presence_penalty = 3)
SPOILS(bad_min_tokens, q->sampling->min_tokens = -1)
SPOILS(half_bias, (q->sampling->bias_ids = many, q->sampling->n_bias_ids = 1))
SPOILS(many_biases, (q->sampling->bias_ids = many, q->sampling->n_bias_ids = 1025,
                     q->sampling->biases = (float *)(void *)many, q->sampling->n_biases = 1025))
SPOILS(many_stops, (q->sampling->stop_ids = many, q->sampling->n_stop_ids = 65))
SPOILS(bad_priority, q->priority = 2)
SPOILS(whole_answer, (q->answer = many, q->n_answer = 4))
SPOILS(bad_told, q->prompt_told = 4)
static int32_t wrong_id = -5;
SPOILS(bad_answer, (q->answer = &wrong_id, q->n_answer = 1))
static Witan__Cluster__V1__LogprobsWanted too_many = WITAN__CLUSTER__V1__LOGPROBS_WANTED__INIT;
SPOILS(many_logprobs, (too_many.top = 21, q->logprobs = &too_many))
static Witan__Cluster__V1__Thinking thought = WITAN__CLUSTER__V1__THINKING__INIT;
SPOILS(endless_thought, (thought.n_ids = 0, q->thinking = &thought))
SPOILS(many_ends, (thought.ids = many, thought.n_ids = 129, q->thinking = &thought))
SPOILS(bad_end, (thought.ids = &wrong_id, thought.n_ids = 1, q->thinking = &thought))

static void what_would_not_be_let_in_fails(void **state)
{
    (void)state;
    static const struct {
        void (*spoil)(Witan__Cluster__V1__ShareSubmit *m);
        const char *words;
    } cases[] = {
        {no_prompt, "prompt: it is empty"},
        {negative_id, "prompt[1]: expected a token id"},
        {large_id, "prompt[1]: expected a token id"},
        {long_prompt, "context: "},
        {long_answer, "context: "},
        {negative_tokens, "max_tokens"},
        {no_sampling, "sampling: "},
        {bad_top_p, "top_p"},
        {bad_penalty, "presence_penalty"},
        {bad_min_tokens, "min_tokens"},
        {half_bias, "logit_bias"},
        {many_biases, "logit_bias"},
        {many_stops, "stop_token_ids"},
        {bad_priority, "priority"},
        {whole_answer, "answer: expected fewer than max_tokens"},
        {bad_answer, "answer[0]: expected a token id"},
        {bad_told, "prompt_told"},
        {many_logprobs, "logprobs"},
        {endless_thought, "thinking: expected at most 128 ids"},
        {many_ends, "thinking: expected at most 128 ids"},
        {bad_end, "thinking: ids[0]: expected a token below"},
    };
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        peer_say_submit(&p, i + 1, 1, 1, cases[i].spoil);
        const Witan__Cluster__V1__SequenceTokens *t = next_tokens(&p);
        assert_int_equal(t->request_id, i + 1);
        assert_int_equal(t->finish, WITAN__CLUSTER__V1__FINISH__FINISH_ERROR);
        if (!strstr(t->error, cases[i].words))
            fail_msg("expected \"%s\", found \"%s\"", cases[i].words, t->error);
    }
    assert_int_equal(members_relays(c.core->members), 0);
    end(&c, &r, &p);
}

SPOILS(other_group, m->group = "g7"; (void)q)
SPOILS(other_epoch, q->epoch = 8)
SPOILS(no_id, q->request_id = 0)
SPOILS(no_submit, m->submit = NULL; (void)q)

static void what_cannot_run_here_is_returned(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    peer_say_submit(&p, 1, 1, 1, other_group);
    peer_say_submit(&p, 2, 4, 0, NULL); /* meant for an earlier start */
    for (uint64_t i = 1; i <= 2; i++) {
        const share_reply *m = peer_next(&p, false);
        assert_int_equal(m->body_case, WITAN__CLUSTER__V1__SHARE_REPLY__BODY_RETURNED);
        assert_int_equal(m->returned->request_id, i);
        assert_int_equal(m->returned->attempt, i == 1 ? 1 : 4);
        assert_non_null(strstr(m->returned->why, i == 1 ? "group \"g7\" is not of" : "meanwhile"));
    }
    end(&c, &r, &p);
}

static void what_breaks_the_protocol_ends_the_stream(void **state)
{
    (void)state;
    void (*const spoils[])(Witan__Cluster__V1__ShareSubmit * m) = {other_epoch, no_id, no_submit,
                                                                   NULL};
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    for (size_t i = 0; i < COUNT_OF(spoils); i++) {
        if (i > 0)
            peer_link(&c, &p);
        if (!spoils[i]) { /* the same attempt twice */
            peer_say_submit(&p, 5, 1, 1, NULL);
            assert_int_equal(fake_next(&r)->body_case, SUBMIT);
        }
        peer_say_submit(&p, 5, 1, 1, spoils[i]);
        assert_int_equal(peer_wait_closed(&p), RPC_INVALID_ARGUMENT);
        if (i + 1 < COUNT_OF(spoils))
            peer_release(&p);
    }
    until(&c, NULL, relays_are, &none);
    assert_int_equal(fake_next(&r)->body_case, CANCEL);
    end(&c, &r, &p);
}

static void only_the_attempt_that_runs_is_cancelled(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    peer_say_submit(&p, 5, 1, 1, NULL);
    uint64_t id = fake_next(&r)->submit->request_id;
    peer_say_cancel(&p, 4, 1, 7);
    peer_say_cancel(&p, 5, 2, 7);
    peer_say_cancel(&p, 5, 1, 8);
    peer_say_submit(&p, 5, 2, 1, NULL); /* the attempt before is given up */
    const told *m = fake_next(&r);
    assert_int_equal(m->body_case, CANCEL);
    assert_true(m->cancel->request_id == id);
    id = fake_next(&r)->submit->request_id;
    peer_say_cancel(&p, 5, 2, 7);
    m = fake_next(&r);
    assert_int_equal(m->body_case, CANCEL);
    assert_true(m->cancel->request_id == id);
    end(&c, &r, &p);
}

/* A stream that ends takes its requests with it. */
static void a_peer_that_goes_is_called_off(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    for (uint64_t i = 1; i <= 3; i++) {
        peer_say_submit(&p, i, 1, 1, NULL);
        assert_int_equal(fake_next(&r)->body_case, SUBMIT);
    }
    peer_release(&p);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fake_next(&r)->body_case, CANCEL);
    until(&c, NULL, relays_are, &none);
    peer_link(&c, &p);
    end(&c, &r, &p);
}

static void relays_are_bounded(void **state)
{
    (void)state;
    enum { MANY = MEMBERS_MOST_WAITING + 8 };
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    begin(&c, &r, &p);
    for (uint64_t i = 1; i <= MANY; i++) {
        while (rpc_queued(p.call) > 512)
            usleep(200);
        peer_say_submit(&p, i, 1, 1, NULL);
    }
    const share_reply *m = peer_next(&p, false);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__SHARE_REPLY__BODY_RETURNED);
    assert_int_equal(m->returned->request_id, MEMBERS_MOST_WAITING + 1);
    assert_non_null(strstr(m->returned->why, "takes no more requests there"));
    static const int most = MEMBERS_MOST_WAITING;
    until(&c, NULL, relays_are, &most);
    end(&c, &r, &p);
}

/* --- states of groups --- */

static void changes_are_told_at_once(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    cluster_start(&c, "");
    const Witan__Cluster__V1__GroupState *g = peer_link(&c, &p);
    assert_false(g->ready || g->takes_new || g->has_leader);
    assert_non_null(strstr(g->message, "waits for its ranks: 0 of 1"));
    fake_serve(&c, &r);
    do
        g = peer_next(&p, true)->group;
    while (!g->ready);
    assert_true(g->takes_new && g->start == 1);
    fake_release(&r);
    do
        g = peer_next(&p, true)->group;
    while (g->ready);
    assert_non_null(strstr(g->message, "group g0 is lost"));
    peer_release(&p);
    until(&c, NULL, stream_count, &none);
    cluster_stop(&c);
}

static void metrics_count_peers(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct fake_peer p;
    struct buf page;
    struct error err;
    begin(&c, &r, &p);
    peer_say_submit(&p, 1, 1, 1, NULL);
    assert_int_equal(fake_next(&r)->body_case, SUBMIT);
    until(&c, NULL, relays_are, &one);
    buf_init(&page, 1 << 20);
    assert_int_equal(metrics_page(c.core, &page, &err), OK);
    assert_non_null(strstr(page.data, "\nwitan_peer_streams 1\n"));
    assert_non_null(strstr(page.data, "\nwitan_relayed_requests 1\n"));
    assert_non_null(strstr(page.data, "\nwitan_group_requests{group=\"g0\"} 1\n"));
    buf_fini(&page);
    end(&c, &r, &p);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(worker_certificates_are_refused),
    cmocka_unit_test(each_difference_is_named),
    cmocka_unit_test(the_first_word_is_hello),
    cmocka_unit_test(a_peer_that_dials_again_replaces_itself),
    cmocka_unit_test(tokens_come_back_in_the_peers_ids),
    cmocka_unit_test(what_would_not_be_let_in_fails),
    cmocka_unit_test(what_cannot_run_here_is_returned),
    cmocka_unit_test(what_breaks_the_protocol_ends_the_stream),
    cmocka_unit_test(only_the_attempt_that_runs_is_cancelled),
    cmocka_unit_test(a_peer_that_goes_is_called_off),
    cmocka_unit_test(relays_are_bounded),
    cmocka_unit_test(changes_are_told_at_once),
    cmocka_unit_test(metrics_count_peers),
};

UNIT_MAIN(tests)
