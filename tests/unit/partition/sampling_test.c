/* Bounds of sampling parameters: partition/sampling.c. */
#include "partition/sampling.h"
#include "tests/unit/unit.h"

#include <math.h>
#include <string.h>

enum { VOCAB = 100 };

static void refused(const struct shaping *s, const char *message)
{
    struct error err;
    assert_int_equal(shaping_check(s, VOCAB, &err), ERR_INVALID);
    assert_string_equal(err.msg, message);
}

static void what_is_off_is_fine(void **state)
{
    (void)state;
    struct error err;
    const struct shaping zero = {0}, one = {.repetition_penalty = 1.0f};
    assert_int_equal(shaping_check(&zero, VOCAB, &err), OK);
    assert_false(shaping_needs_history(&zero));
    assert_false(shaping_needs_history(&one));
}

static void bounds_are_named(void **state)
{
    (void)state;
    struct shaping s = {.repetition_penalty = -0.5f};
    refused(&s, "repetition_penalty -0.5: expected above 0, at most 10");
    s = (struct shaping){.repetition_penalty = NAN};
    refused(&s, "repetition_penalty nan: expected above 0, at most 10");
    s = (struct shaping){.presence_penalty = 2.5f};
    refused(&s, "presence_penalty 2.5: expected -2 to 2");
    s = (struct shaping){.frequency_penalty = -2.5f};
    refused(&s, "frequency_penalty -2.5: expected -2 to 2");
    s = (struct shaping){.min_tokens = -1};
    refused(&s, "min_tokens -1: expected 0 or more");
}

static void lists_are_bounded(void **state)
{
    (void)state;
    struct logit_bias bias[] = {{5, 1.0f}, {VOCAB, 1.0f}};
    struct shaping s = {.bias = bias, .bias_count = 2};
    refused(&s, "logit_bias[1]: expected a token id from 0 to 99, found 100");
    bias[1] = (struct logit_bias){5, -1.0f};
    refused(&s, "logit_bias: token 5 is named twice");
    bias[1] = (struct logit_bias){6, 100.5f};
    refused(&s, "logit_bias 100.5: expected -100 to 100");
    s.bias_count = SAMPLING_MAX_BIASES + 1;
    refused(&s, "logit_bias: expected at most 1024 tokens, found 1025");
    const int32_t stop[] = {-1};
    s = (struct shaping){.stop_ids = stop, .stop_id_count = 1};
    refused(&s, "stop_token_ids[0]: expected a token id from 0 to 99, found -1");
    s.stop_id_count = SAMPLING_MAX_STOP_IDS + 1;
    refused(&s, "stop_token_ids: expected at most 64, found 65");
}

static void penalties_need_history(void **state)
{
    (void)state;
    const struct shaping a = {.repetition_penalty = 1.1f}, b = {.presence_penalty = 0.5f},
                         c = {.frequency_penalty = -0.5f};
    assert_true(shaping_needs_history(&a));
    assert_true(shaping_needs_history(&b));
    assert_true(shaping_needs_history(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_off_is_fine),
        cmocka_unit_test(bounds_are_named),
        cmocka_unit_test(lists_are_bounded),
        cmocka_unit_test(penalties_need_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
