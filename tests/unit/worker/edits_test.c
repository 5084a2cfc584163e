/* Lists of changed logits against a plain count over all tokens before, for every draw. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/edits.h"

#include <math.h>

enum { VOCAB = 60, PROMPT = 40, ANSWER = 50, MOST = 200 };

static struct edits *edits_of(const struct shaping *s, const int32_t *prompt, int32_t prompt_len,
                              const int32_t *ends, int32_t end_count)
{
    struct edits *e = NULL;
    struct error err;
    if (edits_create(s, prompt, prompt_len, ANSWER, ends, end_count, &e, &err) != OK)
        fail_msg("%s", err.msg);
    return e;
}

/* What the definition says of one token. */
static struct logit_edit expected_of(const struct shaping *s, const int32_t *tokens,
                                     int32_t prompt_len, int32_t length, const int32_t *ends,
                                     int32_t end_count, int32_t id)
{
    int32_t before = 0, drawn = 0;
    bool banned = false;
    double bias = 0.0;
    for (int32_t i = 0; i < length; i++) {
        before += tokens[i] == id;
        drawn += i >= prompt_len && tokens[i] == id;
    }
    for (int32_t i = 0; i < s->bias_count; i++)
        bias = s->bias[i].id == id ? (double)s->bias[i].bias : bias;
    for (int32_t i = 0; i < end_count; i++)
        banned = banned || (ends[i] == id && length - prompt_len < s->min_tokens);
    for (int32_t i = 0; i < s->stop_id_count; i++)
        banned = banned || (s->stop_ids[i] == id && length - prompt_len < s->min_tokens);
    banned = banned || bias == -100.0;
    if (drawn > 0)
        bias -= (double)s->presence_penalty + (double)s->frequency_penalty * drawn;
    bool repeats = s->repetition_penalty != 0.0f && s->repetition_penalty != 1.0f;
    return (struct logit_edit){id, banned ? -INFINITY : (float)bias, repeats && before > 0};
}

static void check_list(const struct edits *e, const struct shaping *s, const int32_t *tokens,
                       int32_t prompt_len, int32_t length, const int32_t *ends, int32_t end_count)
{
    struct logit_edit list[MOST];
    int32_t n = e ? edits_write(e, length - prompt_len, VOCAB, list) : 0, at = 0;
    assert_true(!e || (n <= edits_most(e) && edits_most(e) <= MOST));
    for (int32_t id = 0; id < VOCAB; id++) {
        struct logit_edit x = expected_of(s, tokens, prompt_len, length, ends, end_count, id);
        bool any = x.repeated || x.add != 0.0f;
        if (any != (at < n && list[at].id == id))
            fail_msg("token %d of %d: expected %s", id, length, any ? "an edit" : "none");
        if (!any)
            continue;
        assert_true(list[at].add == x.add && list[at].repeated == x.repeated);
        at++;
    }
    assert_int_equal(at, n);
}

static void lists_follow_the_tokens(void **state)
{
    (void)state;
    static const float repetitions[] = {0.0f, 1.0f, 1.05f, 0.5f}, others[] = {0.0f, 0.3f, -2.0f};
    uint64_t rng = 1;
    int changed = 0;
    for (int trial = 0; trial < 500; trial++) {
        int32_t tokens[PROMPT + ANSWER], stops[3], ends[] = {3, 59};
        struct logit_bias bias[5];
        struct shaping s = {.repetition_penalty = repetitions[random_int(&rng, 0, 3)],
                            .presence_penalty = others[random_int(&rng, 0, 2)],
                            .frequency_penalty = others[random_int(&rng, 0, 2)],
                            .min_tokens = random_int(&rng, 0, 1) * random_int(&rng, 0, 20),
                            .bias = bias,
                            .bias_count = random_int(&rng, 0, 5),
                            .stop_ids = stops,
                            .stop_id_count = random_int(&rng, 0, 3)};
        int32_t prompt_len = random_int(&rng, 1, PROMPT), end_count = random_int(&rng, 0, 2);
        for (int32_t i = 0; i < PROMPT + ANSWER; i++) /* some of them padding */
            tokens[i] = random_int(&rng, 0, i < prompt_len ? VOCAB + 9 : VOCAB - 1);
        for (int32_t i = 0; i < 5; i++)
            bias[i] = (struct logit_bias){i * 11 + random_int(&rng, 0, 10),
                                          i == 2 ? -100.0f : random_float(&rng, 5.0)};
        for (int32_t i = 0; i < 3; i++)
            stops[i] = random_int(&rng, 0, VOCAB - 1);
        struct edits *e = edits_of(&s, tokens, prompt_len, ends, end_count);
        changed += e != NULL;
        for (int32_t length = prompt_len; length < prompt_len + ANSWER; length++) {
            check_list(e, &s, tokens, prompt_len, length, ends, end_count);
            if (e && length < PROMPT + ANSWER)
                edits_drew(e, tokens[length]);
        }
        edits_destroy(e);
    }
    assert_true(changed > 300 && changed < 500);
}

/* Penalty and bias make one addition, rounded once. */
static void an_addition_is_rounded_once(void **state)
{
    (void)state;
    const struct logit_bias bias = {7, 16777216.0f / 262144.0f};
    const struct shaping s = {
        .presence_penalty = 1.9f, .frequency_penalty = 0.1f, .bias = &bias, .bias_count = 1};
    const int32_t prompt = 1;
    struct logit_edit list[2];
    struct edits *e = edits_of(&s, &prompt, 1, NULL, 0);
    for (int i = 0; i < 3; i++)
        edits_drew(e, 7);
    assert_int_equal(edits_write(e, 3, VOCAB, list), 1);
    double exact = 64.0 - ((double)1.9f + 3 * (double)0.1f);
    assert_true(list[0].add == (float)exact && list[0].repeated == 0);
    assert_true(edits_penalty(e) == 1.0f);
    edits_destroy(e);
}

static void nothing_to_change_takes_no_memory(void **state)
{
    (void)state;
    const int32_t prompt[] = {1, 2}, stop = 5;
    const struct shaping none = {.repetition_penalty = 1.0f, .stop_ids = &stop, .stop_id_count = 1};
    const struct logit_bias bans[] = {{1, -100.0f}, {2, -99.5f}, {3, -100.0f}};
    struct shaping s = {.bias = bans, .bias_count = 3, .stop_ids = &stop, .stop_id_count = 1};
    assert_null(edits_of(&none, prompt, 2, &stop, 1));
    assert_int_equal(edits_most_bans(&s, 2), 2);
    s.min_tokens = 1;
    assert_int_equal(edits_most_bans(&s, 2), 5);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(lists_follow_the_tokens),
    cmocka_unit_test(an_addition_is_rounded_once),
    cmocka_unit_test(nothing_to_change_takes_no_memory),
};

UNIT_MAIN(tests)
