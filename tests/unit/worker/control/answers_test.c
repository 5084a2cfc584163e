/* From the scheduler's callbacks to one message a step; the engine is the test's own. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "worker/control/answers.h"

enum { SEQS = 2, PROMPT = 6 };

static const struct engine_limits limits = {.max_seqs = SEQS, .max_logits = SEQS};

/* --- in the engine's place --- */

static struct request asked[64];
static uint64_t count, cancelled;

enum status engine_submit(struct engine *e, const struct request *request, uint64_t *id,
                          struct error *err)
{
    (void)e, (void)err;
    CHECK(count < COUNT_OF(asked), "requests");
    asked[count] = *request;
    *id = count++;
    return OK;
}

bool engine_cancel(struct engine *e, uint64_t id)
{
    (void)e;
    cancelled = id;
    asked[id].on_token(asked[id].user, -1, FINISH_CANCELLED);
    return true;
}

static void draw(uint64_t q, int32_t token, enum finish finish)
{
    asked[q].on_token(asked[q].user, token, finish);
}

/* Of the token at `pos`: its logprob says the position, `top` likeliest ones beside it. */
static void score(uint64_t q, int32_t pos, int32_t top)
{
    struct logprobs l = {.logprob = (float)-pos, .rank = pos + 1, .count = top};
    for (int32_t i = 0; i < top; i++) {
        l.top[i].id = 100 * pos + i;
        l.top[i].logprob = (float)-i;
    }
    asked[q].on_logprobs(asked[q].user, pos, &l);
}

static struct answers *begin(void)
{
    struct answers *a;
    struct error err;
    count = 0;
    assert_int_equal(answers_create(&limits, &a, &err), OK);
    return a;
}

static void submit(struct answers *a, uint64_t id, int32_t logprobs, int32_t prompt_logprobs)
{
    struct error err;
    int32_t prompt[PROMPT] = {0};
    const struct command c = {.kind = COMMAND_SUBMIT,
                              .key = {.request_id = id, .attempt = 1, .epoch = 5},
                              .prompt = prompt,
                              .prompt_len = PROMPT,
                              .max_tokens = 99,
                              .logprobs = logprobs,
                              .prompt_logprobs = prompt_logprobs};
    assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
}

static const Witan__Cluster__V1__SequenceTokens *said(struct answers *a, size_t i, size_t of)
{
    const Witan__Cluster__V1__Tokens *t = answers_message(a, 3);
    assert_int_equal(t->n_sequences, of);
    return t->sequences[i];
}

/* --- the cases --- */

/* What an attempt before has told is not told again: positions go on behind it. */
static void an_answer_goes_on_where_it_was(void **state)
{
    (void)state;
    struct answers *a = begin();
    struct error err;
    int32_t prompt[PROMPT] = {0}, drawn[] = {31, 32};
    const struct command c = {.key = {.request_id = 4, .attempt = 2, .epoch = 5},
                              .prompt = prompt,
                              .prompt_len = PROMPT,
                              .max_tokens = 9,
                              .answer = drawn,
                              .answer_len = 2,
                              .prompt_told = 3,
                              .prompt_logprobs = 1};
    assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
    assert_true(asked[0].answer_len == 2 && asked[0].answer[1] == 32);
    assert_int_equal(asked[0].prompt_told, 3);
    asked[0].on_start(asked[0].user, 1);
    draw(0, 33, FINISH_NONE);
    const Witan__Cluster__V1__SequenceTokens *s = said(a, 0, 1);
    assert_true(s->request_id == 4 && s->attempt == 2 && s->epoch == 5);
    assert_int_equal(s->position, 2);
    assert_true(s->n_ids == 1 && s->ids[0] == 33);
    assert_int_equal(s->cached_tokens, 0); /* with the first token alone */
    answers_destroy(a);
}

/* Of steps that fed it: with its tokens, alone where a chunk of a prompt drew none, and at its end;
 * nothing where energy is not counted. */
static void shares_of_steps_are_told(void **state)
{
    (void)state;
    struct answers *a = begin();
    submit(a, 71, 0, 0);
    submit(a, 72, 0, 0);
    asked[0].on_share(asked[0].user, 0.5);
    said(a, 0, 0);
    answers_tell_shares(a, true);
    asked[0].on_share(asked[0].user, 0.25);
    draw(0, 10, FINISH_NONE);
    asked[1].on_share(asked[1].user, 0.75);
    const Witan__Cluster__V1__SequenceTokens *s = said(a, 0, 2);
    assert_true(s->request_id == 71 && s->n_ids == 1 && s->step_seconds == 0.25);
    s = said(a, 1, 2);
    assert_true(s->request_id == 72 && s->n_ids == 0 && s->position == 0);
    assert_true(s->step_seconds == 0.75 && !s->metered);
    assert_int_equal(s->finish, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    answers_clear(a);
    asked[0].on_share(asked[0].user, 1);
    draw(0, 11, FINISH_STOP);
    s = said(a, 0, 1);
    assert_true(s->position == 1 && s->step_seconds == 1);
    answers_destroy(a);
}

static void a_request_is_handed_over_whole(void **state)
{
    (void)state;
    struct answers *a = begin();
    struct error err;
    int32_t prompt[] = {1, 2}, stop_id = 4;
    const struct logit_bias bias = {7, -100};
    struct command c = {.key = {.request_id = 1},
                        .prompt = prompt,
                        .prompt_len = 2,
                        .max_tokens = 3,
                        .sampling = {.seed = 8},
                        .shaping = {.min_tokens = 2,
                                    .bias = &bias,
                                    .bias_count = 1,
                                    .stop_ids = &stop_id,
                                    .stop_id_count = 1},
                        .tenant = 11,
                        .prefix_domain = 12,
                        .priority = -1,
                        .deadline_ns = 13};
    assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
    const struct request *r = &asked[0];
    assert_int_equal(r->shaping.bias->id, 7);
    assert_int_equal(*r->shaping.stop_ids, 4);
    assert_true(r->shaping.min_tokens == 2 && r->tenant == 11 && r->prefix_domain == 12 &&
                r->priority == -1 && r->deadline_ns == 13 && r->sampling.seed == 8);
    assert_null(r->on_logprobs); /* which would cost a row of logits kept */
    assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
    assert_int_equal(count, 1); /* in flight already */
    draw(0, 9, FINISH_STOP);
    c.logprobs = 3;
    c.prompt_logprobs = 1;
    assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
    assert_true(asked[1].logprobs == 3 && asked[1].prompt_logprobs == 1 && asked[1].on_logprobs);
    answers_destroy(a);
}

static void tokens_of_a_step_go_together(void **state)
{
    (void)state;
    struct answers *a = begin();
    submit(a, 71, 0, 0);
    submit(a, 72, 0, 0);
    asked[0].on_start(asked[0].user, 4);
    draw(0, 10, FINISH_NONE);
    draw(0, 11, FINISH_NONE);
    draw(1, 20, FINISH_NONE);
    draw(1, 21, FINISH_LENGTH);
    const Witan__Cluster__V1__SequenceTokens *s = said(a, 0, 2);
    assert_true(s->request_id == 71 && s->attempt == 1 && s->epoch == 5);
    assert_true(s->position == 0 && s->n_ids == 2 && s->ids[0] == 10 && s->ids[1] == 11);
    assert_int_equal(s->cached_tokens, 4);
    assert_int_equal(s->finish, WITAN__CLUSTER__V1__FINISH__FINISH_NONE);
    s = said(a, 1, 2);
    assert_true(s->request_id == 72 && s->n_ids == 2 && s->ids[1] == 21 && s->cached_tokens == 0);
    assert_int_equal(s->finish, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    answers_clear(a);
    said(a, 0, 0);
    /* Two steps land, then a cancellation; another request takes the first one's place. */
    submit(a, 73, 0, 0);
    draw(0, 12, FINISH_NONE);
    draw(2, 30, FINISH_NONE);
    draw(0, 13, FINISH_NONE);
    draw(0, -1, FINISH_DEADLINE);
    submit(a, 74, 0, 0);
    draw(3, 40, FINISH_NONE);
    s = said(a, 0, 4);
    assert_true(s->position == 2 && s->n_ids == 1 && s->ids[0] == 12 && s->cached_tokens == 0);
    s = said(a, 2, 4);
    assert_true(s->request_id == 71 && s->position == 3 && s->n_ids == 1 && s->ids[0] == 13);
    assert_int_equal(s->finish, WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE);
    s = said(a, 3, 4);
    assert_true(s->request_id == 74 && s->position == 0 && s->ids[0] == 40);
    answers_destroy(a);
}

static void logprobs_stand_beside_their_tokens(void **state)
{
    (void)state;
    struct answers *a = begin();
    submit(a, 71, 21, 1);
    submit(a, 72, 2, 0);
    score(0, 1, 0);
    score(0, 2, 0);
    const Witan__Cluster__V1__SequenceTokens *s = said(a, 0, 1);
    assert_true(s->n_ids == 0 && s->n_logprobs == 0 && s->n_prompt_logprobs == 2);
    assert_int_equal(s->prompt_position, 1);
    assert_true(s->prompt_logprobs[1]->logprob == -2);
    answers_clear(a);
    for (int32_t pos = 3; pos < PROMPT; pos++)
        score(0, pos, 0);
    score(0, PROMPT, 20);
    draw(0, 10, FINISH_NONE);
    score(1, PROMPT, 1);
    draw(1, 20, FINISH_STOP);
    score(0, PROMPT + 1, 20);
    draw(0, 11, FINISH_LENGTH);
    s = said(a, 0, 3);
    assert_true(s->n_prompt_logprobs == 3 && s->prompt_position == 3 && s->n_logprobs == 1);
    assert_true(s->prompt_logprobs[0]->logprob == -3 && s->prompt_logprobs[2]->logprob == -5);
    const Witan__Cluster__V1__TokenLogprobs *l = s->logprobs[0];
    assert_true(l->logprob == -PROMPT && l->rank == PROMPT + 1);
    assert_true(l->n_top_ids == 20 && l->n_top_logprobs == 20);
    assert_true(l->top_ids[19] == 100 * PROMPT + 19 && l->top_logprobs[19] == -19);
    l = said(a, 1, 3)->logprobs[0];
    assert_true(l->n_top_ids == 1 && l->top_ids[0] == 100 * PROMPT);
    s = said(a, 2, 3);
    assert_true(s->position == 1 && s->n_logprobs == 1 && s->logprobs[0]->logprob == -PROMPT - 1);
    answers_destroy(a);
}

/* Deadlines may end all that waits in one step, while all that runs draws what it can. */
static void there_is_room_for_the_worst_step(void **state)
{
    (void)state;
    struct answers *a = begin();
    struct error err;
    static struct request all[ANSWERS_WAITING + SEQS];
    int32_t prompt = 0;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        const struct command c = {.key = {.request_id = i + 1},
                                  .prompt = &prompt,
                                  .prompt_len = 1,
                                  .max_tokens = 9,
                                  .logprobs = 21};
        count = 0;
        assert_int_equal(answers_submit(a, NULL, &c, &err), OK);
        all[i] = asked[0];
    }
    const struct command more = {.key = {.request_id = 99999}, .prompt = &prompt, .prompt_len = 1};
    assert_int_equal(answers_submit(a, NULL, &more, &err), ERR_LIMIT);
    const struct logprobs l = {.count = 20};
    for (int step = 0; step < SCHED_MAX_FLIGHTS; step++)
        for (int q = 0; q < SEQS; q++)
            for (int i = 0; i < ANSWERS_STEP_TOKENS; i++) {
                all[q].on_logprobs(all[q].user, 1, &l);
                all[q].on_token(all[q].user, i, FINISH_NONE);
            }
    for (size_t i = 0; i < COUNT_OF(all); i++)
        all[i].on_token(all[i].user, -1, FINISH_DEADLINE);
    const Witan__Cluster__V1__Tokens *t = answers_message(a, 1);
    assert_int_equal(t->n_sequences, SCHED_MAX_FLIGHTS * SEQS + COUNT_OF(all));
    assert_int_equal(t->sequences[0]->n_ids, ANSWERS_STEP_TOKENS);
    assert_int_equal(t->sequences[0]->n_logprobs, ANSWERS_STEP_TOKENS);
    assert_true(answers_full(a));
    answers_destroy(a);
}

static void a_cancellation_is_told(void **state)
{
    (void)state;
    struct answers *a = begin();
    const struct command c = {.key = {.request_id = 72, .attempt = 1, .epoch = 5}};
    submit(a, 71, 0, 0);
    submit(a, 72, 0, 0);
    answers_cancel(a, NULL, &c);
    assert_int_equal(cancelled, 1);
    answers_cancel(a, NULL, &c); /* there is none any more */
    const Witan__Cluster__V1__SequenceTokens *s = said(a, 0, 1);
    assert_true(s->request_id == 72 && s->n_ids == 0);
    assert_int_equal(s->finish, WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED);
    answers_destroy(a);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(shares_of_steps_are_told),
    cmocka_unit_test(a_request_is_handed_over_whole),
    cmocka_unit_test(an_answer_goes_on_where_it_was),
    cmocka_unit_test(tokens_of_a_step_go_together),
    cmocka_unit_test(logprobs_stand_beside_their_tokens),
    cmocka_unit_test(there_is_room_for_the_worst_step),
    cmocka_unit_test(a_cancellation_is_told),
};

UNIT_MAIN(tests)
