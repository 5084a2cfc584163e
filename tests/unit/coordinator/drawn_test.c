/* coordinator/drawn: what a group said is kept whole, and in order. */
#include "tests/unit/unit.h"

#include "coordinator/drawn.h"

static void what_was_said_is_kept(void **state)
{
    (void)state;
    struct drawn_queue q = {0};
    int32_t ids[] = {7, 8, 9}, tops[] = {1, 2, 3};
    float values[] = {-1.0f, -2.0f, -3.0f};
    char why[] = "a word";
    struct token_logprobs l[3] = {
        {.logprob = -0.5f, .rank = 1, .count = 3, .top_ids = tops, .top_logprobs = values},
        {.logprob = -0.6f, .rank = 2, .count = 1, .top_ids = tops, .top_logprobs = values},
        {.logprob = -0.7f, .rank = 3},
    };
    const struct drawn said = {.id = 5,
                               .attempt = 2,
                               .position = 4,
                               .ids = ids,
                               .count = 3,
                               .logprobs = l,
                               .prompt_logprobs = l,
                               .prompt_position = 1,
                               .prompt_count = 2,
                               .failed = true,
                               .error = why};
    drawn_keep(&q, &said);
    drawn_keep(&q, &(struct drawn){.id = 6, .count = 0});
    memset(ids, 0, sizeof ids);
    memset(tops, 0, sizeof tops);
    memset(values, 0, sizeof values);
    memset(why, 'x', sizeof why - 1);
    memset(l, 0, sizeof l);
    struct drawn_copy *c = drawn_next(&q);
    assert_int_equal(c->d.id, 5);
    assert_int_equal(c->d.ids[2], 9);
    assert_string_equal(c->d.error, "a word");
    assert_int_equal(c->d.logprobs[0].top_ids[2], 3);
    assert_true(c->d.logprobs[0].top_logprobs[2] == -3.0f);
    assert_int_equal(c->d.logprobs[2].rank, 3);
    assert_int_equal(c->d.prompt_logprobs[1].top_ids[0], 1);
    free(c);
    c = drawn_next(&q);
    assert_int_equal(c->d.id, 6);
    assert_null(c->d.error);
    free(c);
    assert_null(drawn_next(&q));
    drawn_keep(&q, &said);
    drawn_clear(&q);
    assert_null(drawn_next(&q));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_was_said_is_kept),
};

UNIT_MAIN(tests)
