/* What groups are asked and answer, as messages; generations are the test's own. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/members_private.h"

#include <math.h>

typedef Witan__Cluster__V1__SequenceTokens sequence_tokens;
typedef Witan__Cluster__V1__TokenLogprobs token_logprobs_message;

/* --- in generations' place --- */

static int told;
static struct drawn last;
static struct token_logprobs drawn_ones[4], prompt_ones[4];

bool generation_tokens(struct core *core, const struct drawn *d)
{
    (void)core;
    told++;
    last = *d;
    for (int32_t i = 0; d->logprobs && i < d->count; i++)
        drawn_ones[i] = d->logprobs[i];
    for (int32_t i = 0; d->prompt_logprobs && i < d->prompt_count; i++)
        prompt_ones[i] = d->prompt_logprobs[i];
    return true;
}

/* --- the cases --- */

static void submits_say_all_that_is_wanted(void **state)
{
    (void)state;
    static struct submit_parts p;
    const struct logit_bias bias[] = {{9, -100}, {4, 2.5f}};
    const int32_t stop_ids[] = {6, 7, 8}, prompt[] = {1, 2};
    struct generation_params g = {
        .prompt = prompt,
        .prompt_len = 2,
        .sampling = {.temperature = 0.7f, .top_p = 0.8f, .min_p = 0.1f, .top_k = 20, .seed = 5},
        .shaping = {.repetition_penalty = 1.5f,
                    .presence_penalty = -2,
                    .frequency_penalty = 0.5f,
                    .min_tokens = 5,
                    .bias_count = 2,
                    .bias = bias,
                    .stop_id_count = 3,
                    .stop_ids = stop_ids},
        .logprobs = 21,
        .prompt_logprobs = 1,
        .tenant = 3,
        .prefix_domain = UINT64_MAX,
        .priority = -1,
        .deadline_ms = 7,
        .ignore_eos = true,
        .constraint = {.kind = CONSTRAINT_JSON_OBJECT, .thought = CONSTRAINT_IN_THOUGHT},
        .thinking = {.count = 2, .most = 9, .open = 4, .close = 5, .inside = true, .ids = {5, 6}},
    };
    const int32_t answer[] = {31, 32};
    struct journal j;
    journal_init(&j, &g, 9, 1000);
    journal_add(&j, answer, 2);
    submit_fill(&p, &j, 1000);
    const Witan__Cluster__V1__Submit *s = &p.submit;
    const Witan__Cluster__V1__Sampling *h = s->sampling;
    assert_true(s->n_prompt == 2 && s->prompt[0] == 1 && s->prompt[1] == 2 && s->ignore_eos);
    assert_true(s->max_tokens == 9 && s->n_answer == 2 && s->answer[1] == 32);
    assert_int_equal(s->prompt_told, 0);
    assert_int_equal(s->constraint->kind,
                     WITAN__CLUSTER__V1__CONSTRAINT_KIND__CONSTRAINT_JSON_OBJECT);
    assert_int_equal(s->constraint->thought, WITAN__CLUSTER__V1__THOUGHT__THOUGHT_OPEN);
    assert_true(s->thinking->n_ids == 2 && s->thinking->ids[0] == 5 && s->thinking->ids[1] == 6);
    assert_true(s->thinking->most == 9 && s->thinking->open == 4 && s->thinking->close == 5 &&
                s->thinking->inside);
    assert_true(s->tenant == 3 && s->prefix_domain == UINT64_MAX && s->priority == -1 &&
                s->deadline_ms == 7);
    assert_int_equal(s->logprobs->top, 20);
    assert_int_equal(s->prompt_logprobs->top, 0);
    assert_true(h->temperature == 0.7f && h->top_p == 0.8f && h->min_p == 0.1f && h->top_k == 20 &&
                h->seed == 5);
    assert_true(h->repetition_penalty == 1.5f && h->presence_penalty == -2 &&
                h->frequency_penalty == 0.5f && h->min_tokens == 5);
    assert_true(h->n_bias_ids == 2 && h->n_biases == 2 && h->bias_ids[0] == 9 &&
                h->biases[0] == -100 && h->bias_ids[1] == 4 && h->biases[1] == 2.5f);
    assert_true(h->n_stop_ids == 3 && h->stop_ids[2] == 8);
    j.prompt_told = 2;
    submit_fill(&p, &j, 1000 + 6100000);
    assert_true(s->prompt_told == 2 && s->deadline_ms == 1);
    j.params.logprobs = j.params.prompt_logprobs = 0;
    j.params.constraint.kind = CONSTRAINT_NONE;
    j.params.thinking.count = 0;
    submit_fill(&p, &j, 1000);
    assert_true(!s->logprobs && !s->prompt_logprobs && !s->constraint && !s->thinking);
    journal_fini(&j);
}

/* A message that is right, and all that it points to. */
struct parts {
    sequence_tokens s;
    token_logprobs_message l[4], *pointers[4];
    int32_t ids[2], top_ids[2];
    float top[2];
};

static void parts_init(struct parts *p)
{
    *p = (struct parts){.s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT, .ids = {10, 11}};
    for (int i = 0; i < 4; i++) {
        witan__cluster__v1__token_logprobs__init(&p->l[i]);
        p->pointers[i] = &p->l[i];
        p->l[i].logprob = (float)-i;
        p->l[i].rank = i + 1;
    }
    p->top_ids[1] = 77;
    p->top[1] = -0.5f;
    p->l[1].top_ids = p->top_ids;
    p->l[1].top_logprobs = p->top;
    p->l[1].n_top_ids = p->l[1].n_top_logprobs = 2;
    p->s.request_id = 4;
    p->s.attempt = 2;
    p->s.epoch = 9;
    p->s.ids = p->ids;
    p->s.n_ids = 2;
    p->s.logprobs = p->pointers;
    p->s.n_logprobs = 2;
    p->s.prompt_logprobs = p->pointers + 2;
    p->s.n_prompt_logprobs = 2;
    p->s.prompt_position = 1;
    p->s.cached_tokens = 16;
}

static void tokens_are_passed_on_whole(void **state)
{
    (void)state;
    struct parts p;
    parts_init(&p);
    assert_null(tokens_wrong(&p.s));
    tokens_tell(NULL, &p.s);
    assert_true(last.id == 4 && last.attempt == 2 && last.epoch == 9 && last.position == 0);
    assert_true(last.count == 2 && last.ids[1] == 11 && last.cached_tokens == 16);
    assert_true(!last.stopped && !last.full && !last.failed && !last.late);
    assert_true(last.prompt_count == 2 && last.prompt_position == 1);
    assert_true(drawn_ones[0].count == 0 && drawn_ones[1].count == 2 && drawn_ones[1].rank == 2 &&
                drawn_ones[1].logprob == -1);
    assert_true(drawn_ones[1].top_ids[1] == 77 && drawn_ones[1].top_logprobs[1] == -0.5f);
    assert_true(prompt_ones[0].logprob == -2 && prompt_ones[1].logprob == -3);
    p.s.n_logprobs = p.s.n_prompt_logprobs = 0;
    assert_null(tokens_wrong(&p.s));
    tokens_tell(NULL, &p.s);
    assert_true(!last.logprobs && !last.prompt_logprobs && last.prompt_count == 0);
}

static void ends_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        Witan__Cluster__V1__Finish finish;
        bool stopped, full, failed, late;
    } cases[] = {
        {WITAN__CLUSTER__V1__FINISH__FINISH_STOP, .stopped = true},
        {WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH, .full = true},
        {WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED, .failed = true},
        {WITAN__CLUSTER__V1__FINISH__FINISH_ERROR, .failed = true},
        {WITAN__CLUSTER__V1__FINISH__FINISH_DEADLINE, .failed = true, .late = true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct parts p;
        parts_init(&p);
        p.s.finish = cases[i].finish;
        tokens_tell(NULL, &p.s);
        assert_int_equal(last.stopped, cases[i].stopped);
        assert_int_equal(last.full, cases[i].full);
        assert_int_equal(last.failed, cases[i].failed);
        assert_int_equal(last.late, cases[i].late);
        if (last.late)
            assert_non_null(strstr(last.error, "deadline"));
    }
}

static void what_does_not_hold_together_is_named(void **state)
{
    (void)state;
    enum { POSITION, FEW, CACHED, PROMPT, UNEVEN, MANY, NOT_A_NUMBER, CASES };
    static const char *const words[CASES] = {
        [POSITION] = "position: expected 0",
        [FEW] = "logprobs: expected one for each of ids",
        [CACHED] = "cached_tokens: expected 0 or more",
        [PROMPT] = "prompt_position: expected 1 or more",
        [UNEVEN] = "expected as many top_logprobs as top_ids",
        [MANY] = "at most 20",
        [NOT_A_NUMBER] = "expected numbers",
    };
    for (int i = 0; i < CASES; i++) {
        struct parts p;
        parts_init(&p);
        p.s.position = i == POSITION ? -1 : 0;
        p.s.n_logprobs = i == FEW ? 1 : 2;
        p.s.cached_tokens = i == CACHED ? -1 : 0;
        p.s.prompt_position = i == PROMPT ? 0 : 1;
        p.l[3].n_top_ids = i == UNEVEN ? 1 : 0;
        p.l[1].n_top_ids = p.l[1].n_top_logprobs = i == MANY ? 21 : 2;
        p.l[0].logprob = i == NOT_A_NUMBER ? nanf("") : 0;
        const char *wrong = tokens_wrong(&p.s);
        assert_non_null(wrong);
        if (!strstr(wrong, words[i]))
            fail_msg("expected \"%s\", found \"%s\"", words[i], wrong);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(submits_say_all_that_is_wanted),
    cmocka_unit_test(tokens_are_passed_on_whole),
    cmocka_unit_test(ends_are_told_apart),
    cmocka_unit_test(what_does_not_hold_together_is_named),
};

UNIT_MAIN(tests)
