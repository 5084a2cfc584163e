/* What becomes of requests when ranks answer rightly or wrongly, or when what is asked is wrong. */
#include "tests/unit/coordinator/generations.h"

static void tokens_become_text(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 2};
    const told *m = begin(&c, &r, &a, "");
    assert_int_equal(m->submit->n_prompt, 3);
    assert_int_equal(m->submit->max_tokens, 2);
    int32_t h = 'H' - 33, i = 'i' - 33; /* byte-level ids of printable ASCII begin at '!' */
    fake_say_tokens(&r, m->submit->request_id, m->submit->attempt, m->submit->epoch, 0, &h, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, m->submit->request_id, m->submit->attempt, m->submit->epoch, 1, &i, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    wait_end(&a);
    assert_string_equal(a.text, "Hi");
    assert_int_equal(a.end.reason, GENERATION_LENGTH);
    assert_int_equal(a.end.completion_tokens, 2);
    assert_int_equal(a.ids, 2);
    end(&c, &r);
}

/* Fencing: another epoch or attempt is nothing; another position ends the request. */
static void only_the_current_attempt_counts(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    uint64_t id = m->submit->request_id, epoch = m->submit->epoch;
    int32_t x = 'x' - 33, y = 'y' - 33;
    fake_say_tokens(&r, id, 1, epoch - 1, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id, 2, epoch, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id + 9, 1, epoch, 0, &x, 1, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    fake_say_tokens(&r, id, 1, epoch, 0, &y, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    fake_say_tokens(&r, id, 1, epoch, 0, &y, 1, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_end(&a);
    assert_string_equal(a.text, "y");
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_non_null(strstr(a.end.err.msg, "position 0 of the answer where 1 follows"));
    m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    assert_int_equal(m->cancel->request_id, id);
    end(&c, &r);
}

static void a_stop_string_cancels_the_rest(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .stop = {"bc"}, .stops = 1};
    const told *m = begin(&c, &r, &a, "");
    int32_t ids[] = {'a' - 33, 'b' - 33, 'c' - 33};
    for (int32_t i = 0; i < 3; i++)
        fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, i, &ids[i], 1,
                        WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    wait_end(&a);
    assert_string_equal(a.text, "a");
    assert_int_equal(a.end.reason, GENERATION_STOP);
    m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL);
    end(&c, &r);
}

/* Its group ends it; nothing is sent there any more. */
static void a_deadline_ends_a_request(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    assert_int_equal(m->submit->deadline_ms, 2500);
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, 0, NULL, 0,
                    WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_CANCELLED);
    assert_non_null(strstr(a.end.err.msg, "deadline"));
    end(&c, &r);
}

/* A rank whose words do not hold together is not believed any further. */
static void broken_tokens_lose_the_rank(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5};
    const told *m = begin(&c, &r, &a, "");
    fake_say_tokens(&r, m->submit->request_id, 1, m->submit->epoch, -1, NULL, 0,
                    WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    assert_int_equal(fake_wait_closed(&r), RPC_INVALID_ARGUMENT);
    assert_string_equal(r.message, "tokens of request 1: position: expected 0 or more");
    wait_end(&a);
    assert_int_equal(a.end.err.code, ERR_PEER);
    end(&c, &r);
}

static void losing_the_group_ends_its_requests(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 67}};
    begin(&c, &r, &a, "");
    fake_release(&r);
    wait_end(&a);
    assert_int_equal(a.end.reason, GENERATION_FAILED);
    assert_int_equal(a.end.err.code, ERR_PEER);
    assert_non_null(strstr(a.end.err.msg, "group g0 was lost: rank 0 (test, pid 4711)"));
    assert_non_null(strstr(a.end.err.msg, "; no group was ready within 1 s (limits.failover_"));
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_PEER);
    /* It may come again. */
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    assert_string_equal(cluster_states,
                        "g0 loading;g0 ready;g0 lost;g0 waiting;g0 loading;g0 ready;");
    end(&c, &r);
}

static void a_bad_request_is_refused(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    struct answer a = {.prompt = {65, 66, 1 << 30}};
    cluster_start(&c, "limits: {requests: 1, context: 64}\n");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    a.c = &c;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_INVALID);
    a.prompt[2] = 5;
    a.max_tokens = -1;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_INVALID);
    a.max_tokens = 62;
    on_loop(&c, start, &a);
    assert_int_equal(a.started, ERR_LIMIT);
    assert_string_equal(a.err.msg,
                        "context: the prompt has 3 tokens and max_tokens is 62, and this model's "
                        "maximum context length is 64 tokens: at most 61 for the answer");
    a.default_max_tokens = true; /* cut to what fits */
    on_loop(&c, start, &a);
    assert_int_equal(a.started, OK);
    assert_int_equal(fake_next(&r)->submit->max_tokens, 61);
    struct answer b = a;
    b.logprobs = 22;
    on_loop(&c, start, &b);
    assert_int_equal(b.started, ERR_INVALID);
    assert_string_equal(b.err.msg, "logprobs: expected 0 to 20, found 21");
    b.logprobs = 0;
    on_loop(&c, start, &b);
    assert_int_equal(b.started, ERR_NO_MEMORY);
    fake_release(&r);
    wait_end(&a);
    cluster_stop(&c);
}

/* The first token, with or without its logprobs. */
static void fake_say_logprobs(struct fake_rank *r, uint64_t id, uint64_t epoch,
                              Witan__Cluster__V1__TokenLogprobs *l)
{
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    int32_t token = 5;
    s.request_id = id;
    s.attempt = 1;
    s.epoch = epoch;
    s.ids = &token;
    s.n_ids = 1;
    s.logprobs = &l;
    s.n_logprobs = l ? 1 : 0;
    fake_say_sequence(r, &s);
}

/* A group that forgets logprobs, or tells some that nobody asked for, is not believed. */
static void logprobs_come_with_their_tokens(void **state)
{
    (void)state;
    for (int wanted = 0; wanted < 2; wanted++) {
        struct cluster c;
        struct fake_rank r;
        struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .logprobs = wanted};
        const told *m = begin(&c, &r, &a, "");
        Witan__Cluster__V1__TokenLogprobs l = WITAN__CLUSTER__V1__TOKEN_LOGPROBS__INIT;
        fake_say_logprobs(&r, m->submit->request_id, m->submit->epoch, wanted ? NULL : &l);
        wait_end(&a);
        assert_int_equal(a.end.err.code, ERR_PEER);
        assert_non_null(strstr(a.end.err.msg, "sent the answer's logprobs out of turn"));
        assert_int_equal(a.ids, 0);
        end(&c, &r);
    }
}

static void logprobs_of_the_prompt_come_whole(void **state)
{
    (void)state;
    static const struct {
        int32_t from, to, then; /* of 3 tokens: positions 1 and 2 */
        enum generation_reason reason;
    } cases[] = {
        {1, 2, 3, GENERATION_LENGTH}, /* in two pieces */
        {1, 2, 2, GENERATION_FAILED}, /* one is missing */
        {2, 3, 3, GENERATION_FAILED}, /* the first is */
        {1, 4, 4, GENERATION_FAILED}, /* one too many */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cluster c;
        struct fake_rank r;
        struct answer a = {.prompt = {65, 66, 67}, .max_tokens = 5, .prompt_logprobs = 1};
        const told *m = begin(&c, &r, &a, "");
        assert_int_equal(m->submit->prompt_logprobs->top, 0);
        fake_say_prompt(&r, m->submit, cases[i].from, cases[i].to, false);
        fake_say_prompt(&r, m->submit, cases[i].to, cases[i].then, true);
        wait_end(&a);
        assert_int_equal(a.end.reason, cases[i].reason);
        if (cases[i].reason == GENERATION_FAILED)
            assert_non_null(strstr(a.end.err.msg, "the prompt's logprobs out of turn"));
        assert_int_equal(a.prompt_told, i == 0 ? 2 : i == 1 ? 1 : 0);
        end(&c, &r);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tokens_become_text),
    cmocka_unit_test(only_the_current_attempt_counts),
    cmocka_unit_test(a_stop_string_cancels_the_rest),
    cmocka_unit_test(a_deadline_ends_a_request),
    cmocka_unit_test(broken_tokens_lose_the_rank),
    cmocka_unit_test(losing_the_group_ends_its_requests),
    cmocka_unit_test(a_bad_request_is_refused),
    cmocka_unit_test(logprobs_come_with_their_tokens),
    cmocka_unit_test(logprobs_of_the_prompt_come_whole),
};

UNIT_MAIN(tests)
