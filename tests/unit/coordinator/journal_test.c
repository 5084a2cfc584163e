/* What a request is asked again with. */
#include "tests/unit/unit.h"

#include "coordinator/journal.h"

static void keeps_copies_of_its_own(void **state)
{
    (void)state;
    struct logit_bias bias[] = {{9, -100}, {4, 2.5f}};
    int32_t stop_ids[] = {6, 7, 8}, prompt[] = {1, 2};
    const char *const stop[] = {"x"};
    struct generation_params p = {
        .prompt = prompt,
        .prompt_len = 2,
        .shaping = {.bias_count = 2, .bias = bias, .stop_id_count = 3, .stop_ids = stop_ids},
        .prompt_logprobs = 1,
        .stop = stop,
        .stop_count = 1,
    };
    struct journal j;
    journal_init(&j, &p, 5, 0);
    prompt[1] = stop_ids[2] = bias[0].id = -7;
    assert_true(j.params.prompt[0] == 1 && j.params.prompt[1] == 2);
    assert_true(j.params.shaping.bias[0].id == 9 && j.params.shaping.bias[1].bias == 2.5f);
    assert_int_equal(j.params.shaping.stop_ids[2], 8);
    assert_int_equal(j.params.stop_count, 0);
    assert_true(j.prompt_told == 1 && j.max_tokens == 5 && !*j.class);
    assert_int_equal(journal_left_ms(&j, INT64_MAX), 0);
    journal_fini(&j);
}

static void takes_an_answer_of_any_length(void **state)
{
    (void)state;
    enum { TOKENS = 5000 };
    const int32_t prompt[] = {1};
    const struct generation_params p = {.prompt = prompt, .prompt_len = 1};
    struct journal j;
    int32_t ids[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = 7 * i;
    journal_init(&j, &p, TOKENS, 0);
    for (int32_t i = 0, count = 0; i < TOKENS; i += count) { /* 0, 1, 4, 13, ... at once */
        journal_add(&j, ids + i, 0);
        count = count * 3 + 1 < TOKENS - i ? count * 3 + 1 : TOKENS - i;
        journal_add(&j, ids + i, count);
        assert_in_range(j.answer_cap, j.answer_len, TOKENS);
    }
    assert_int_equal(j.answer_len, TOKENS);
    assert_memory_equal(j.answer, ids, sizeof ids);
    journal_fini(&j);
}

static void a_deadline_counts_from_the_first_attempt(void **state)
{
    (void)state;
    const int32_t prompt[] = {1};
    const struct generation_params p = {.prompt = prompt, .prompt_len = 1, .deadline_ms = 10};
    struct journal j;
    journal_init(&j, &p, 1, 5000000);
    assert_int_equal(journal_left_ms(&j, 5000000), 10);
    assert_int_equal(journal_left_ms(&j, 5000001), 10);
    assert_int_equal(journal_left_ms(&j, 14999999), 1);
    assert_int_equal(journal_left_ms(&j, 15000000), -1);
    journal_fini(&j);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(keeps_copies_of_its_own),
    cmocka_unit_test(takes_an_answer_of_any_length),
    cmocka_unit_test(a_deadline_counts_from_the_first_attempt),
};

UNIT_MAIN(tests)
