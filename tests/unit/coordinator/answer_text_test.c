/* Ids to text, and logprobs that stay with their text. */
#include "tests/unit/unit.h"

#include "coordinator/answer_text.h"
#include "coordinator/text/chat_text.h"

static struct chat_text *words;
static struct answer_text t;

/* The id of the token that is this one byte. */
static int32_t byte_id(unsigned char byte)
{
    for (int32_t id = 0; id < chat_vocab(words); id++) {
        const char *bytes;
        size_t len;
        assert_int_equal(tokenizer_token_bytes(words->tokenizer, (uint32_t)id, &bytes, &len, NULL),
                         OK);
        if (len == 1 && (unsigned char)bytes[0] == byte)
            return id;
    }
    fail_msg("no token is the byte %d", byte);
    return -1;
}

static int32_t special(const char *text)
{
    uint32_t id = 0;
    assert_int_equal(tokenizer_id_of_token(words->tokenizer, text, strlen(text), &id, NULL), OK);
    return (int32_t)id;
}

static void begin(bool split, bool inside, const char *stop)
{
    struct error err;
    if (!words && chat_text_load(WITAN_SOURCE_DIR "/deploy/lexicon/model", false, &words, &err))
        fail_msg("%s", err.msg);
    const struct generation_params p = {.split_reasoning = split,
                                        .in_reasoning = inside,
                                        .stop = &stop,
                                        .stop_count = stop ? 1 : 0};
    assert_int_equal(answer_text_init(&t, words->tokenizer, &p, &err), OK);
}

/* One token; its logprob is its number, counted from 0. */
static int pushed;

static void push_id(int32_t id, bool end)
{
    const struct token_logprobs l = {.logprob = -(float)pushed++, .rank = 1};
    struct error err;
    assert_int_equal(answer_text_push(&t, id, end, &l, &err), OK);
}

static void push(const char *bytes)
{
    for (; *bytes; bytes++)
        push_id(byte_id((unsigned char)*bytes), false);
}

/* Tokens of a part that may be told now, as "0@0 1@1 " (number and offset; "!" behind the end). */
static const char *told(enum part part)
{
    static char line[256];
    struct told_token k;
    size_t n = 0;
    line[0] = '\0';
    while (answer_text_next(&t, part, &k)) {
        assert_int_equal(k.part, part);
        n += (size_t)snprintf(line + n, sizeof line - n, "%d@%d%s ", (int)-k.logprobs->logprob,
                              (int)k.offset, k.end ? "!" : "");
    }
    return line;
}

static void settle(bool last, bool stopped, const char *answer)
{
    struct error err;
    bool found;
    assert_int_equal(answer_text_settle(&t, last, &found, &err), OK);
    assert_int_equal(found, stopped);
    assert_int_equal(t.answer.len, strlen(answer));
    if (*answer)
        assert_memory_equal(t.answer.data, answer, strlen(answer));
}

static void end(void)
{
    answer_text_fini(&t);
    pushed = 0;
}

static void a_token_is_told_with_its_text(void **state)
{
    (void)state;
    begin(false, false, NULL);
    push("a");
    settle(false, false, "a");
    assert_string_equal(told(PART_REASONING), "");
    assert_string_equal(told(PART_CONTENT), "0@0 ");
    answer_text_clear(&t);
    push("bc");
    settle(false, false, "bc");
    assert_string_equal(told(PART_CONTENT), "1@1 2@2 ");
    answer_text_clear(&t);
    push_id(special("<|im_end|>"), true);
    settle(true, false, "");
    assert_string_equal(told(PART_CONTENT), "3@3! ");
    end();
}

static void pieces_of_a_character_wait_for_it(void **state)
{
    (void)state;
    begin(false, false, NULL);
    push("\xe2\x82");
    settle(false, false, "");
    assert_string_equal(told(PART_CONTENT), "");
    push("\xac");
    push("x");
    settle(false, false, "\xe2\x82\xacx");
    assert_string_equal(told(PART_CONTENT), "0@0 1@0 2@0 3@1 ");
    answer_text_clear(&t);
    push("\xe2");
    settle(true, false, "\xef\xbf\xbd"); /* never whole */
    assert_string_equal(told(PART_CONTENT), "4@2 ");
    end();
}

static void a_stop_string_takes_its_tokens_along(void **state)
{
    (void)state;
    begin(false, false, "bcd");
    push("ab");
    settle(false, false, "a");
    assert_string_equal(told(PART_CONTENT), "0@0 ");
    answer_text_clear(&t);
    push("b");
    settle(false, false, "b"); /* the first b was none of it */
    assert_string_equal(told(PART_CONTENT), "1@1 ");
    answer_text_clear(&t);
    push("cdz");
    settle(false, true, "");
    assert_string_equal(told(PART_CONTENT), "");
    end();
}

static void what_was_held_is_told_at_the_end(void **state)
{
    (void)state;
    begin(false, false, "bcd");
    push("abc");
    settle(false, false, "a");
    assert_string_equal(told(PART_CONTENT), "0@0 ");
    answer_text_clear(&t);
    settle(true, false, "bc");
    assert_string_equal(told(PART_CONTENT), "1@1 2@2 ");
    end();
}

static void the_thought_has_tokens_of_its_own(void **state)
{
    (void)state;
    begin(true, true, NULL);
    push("hm</think>");
    settle(false, false, "");
    assert_int_equal(t.thought.len, 2);
    assert_int_equal(t.reasoning_tokens, 10);
    assert_string_equal(told(PART_CONTENT), "");
    assert_string_equal(told(PART_REASONING), "0@0 1@1 2@2 3@3 4@4 5@5 6@6 7@7 8@8 9@9 ");
    answer_text_clear(&t);
    push("\n");
    push("\xe2\x82");
    settle(false, false, "");
    assert_string_equal(told(PART_REASONING), "10@10 ");
    assert_string_equal(told(PART_CONTENT), "");
    push("\xac");
    settle(false, false, "\xe2\x82\xac");
    assert_string_equal(told(PART_CONTENT), "11@11 12@11 13@11 ");
    assert_int_equal(t.reasoning_tokens, 10);
    end();
}

/* White space may be followed by <think>: whose it is shows later. */
static void the_first_tokens_wait_for_their_part(void **state)
{
    (void)state;
    for (int thinks = 0; thinks < 2; thinks++) {
        begin(true, false, NULL);
        push(" ");
        settle(false, false, "");
        assert_string_equal(told(PART_CONTENT), "");
        assert_string_equal(told(PART_REASONING), "");
        push(thinks ? "<think>" : "x");
        settle(false, false, thinks ? "" : " x");
        assert_string_equal(told(PART_CONTENT), thinks ? "" : "0@0 1@1 ");
        assert_string_equal(told(PART_REASONING), thinks ? "0@0 1@1 2@2 3@3 4@4 5@5 6@6 7@7 " : "");
        end();
    }
    begin(true, false, NULL);
    push(" ");
    settle(true, false, " ");
    assert_string_equal(told(PART_CONTENT), "0@0 ");
    end();
}

static void many_tokens_may_wait(void **state)
{
    (void)state;
    begin(false, false, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    push("x");
    settle(false, false, "x");
    assert_string_equal(told(PART_CONTENT), "0@0 ");
    answer_text_clear(&t);
    for (int i = 0; i < 50; i++)
        push("a");
    settle(false, false, "");
    assert_int_equal(t.held_count, 50);
    push("b");
    settle(false, false, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
    struct told_token k;
    for (int i = 1; i <= 51; i++) {
        assert_true(answer_text_next(&t, PART_CONTENT, &k));
        assert_int_equal((int)-k.logprobs->logprob, i);
        assert_int_equal(k.offset, i);
    }
    assert_false(answer_text_next(&t, PART_CONTENT, &k));
    end();
}

static void without_logprobs_nothing_is_held(void **state)
{
    (void)state;
    struct error err;
    begin(false, false, NULL);
    assert_int_equal(answer_text_push(&t, byte_id('a'), false, NULL, &err), OK);
    settle(true, false, "a");
    assert_string_equal(told(PART_CONTENT), "");
    assert_null(t.held);
    end();
}

static void begin_calls(bool inside, const char *stop, bool one)
{
    struct error err;
    const struct generation_params p = {.split_reasoning = true,
                                        .in_reasoning = inside,
                                        .stop = &stop,
                                        .stop_count = stop ? 1 : 0,
                                        .calls = CALLS_HERMES,
                                        .one_call = one};
    begin(false, false, NULL); /* the words */
    end();
    assert_int_equal(answer_text_init(&t, words->tokenizer, &p, &err), OK);
}

/* Pieces that are certain, as "text" and "0f:arguments." */
static const char *pieces(bool last, bool stopped)
{
    static char line[400];
    struct error err;
    bool found;
    int32_t count;
    size_t n = 0;
    line[0] = '\0';
    assert_int_equal(answer_text_settle(&t, last, &found, &err), OK);
    assert_int_equal(found, stopped);
    assert_int_equal(t.answer.len, 0);
    const struct told_piece *p = answer_text_pieces(&t, &count);
    for (int32_t i = 0; i < count; i++) {
        if (p[i].name)
            n += (size_t)snprintf(line + n, sizeof line - n, "%d%s:", p[i].call, p[i].name);
        n += (size_t)snprintf(line + n, sizeof line - n, "%.*s%s", (int)p[i].len, p[i].text,
                              p[i].end ? "." : "");
    }
    answer_text_clear(&t);
    return line;
}

static void calls_are_told_behind_the_thought(void **state)
{
    (void)state;
    begin_calls(true, NULL, false);
    push("<tool_call>hm</think>\n\nso\n<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":");
    assert_string_equal(pieces(false, false), "so0f:{\"a\":");
    push("1}");
    assert_string_equal(pieces(false, false), "1");
    push("}\n</tool_call>\n");
    assert_string_equal(pieces(false, false), "}.");
    push("<tool_call>{");
    assert_string_equal(pieces(false, false), "");
    assert_string_equal(pieces(true, false), "\n<tool_call>{");
    assert_int_equal(t.calls.whole, 1);
    end();
}

static void a_stop_string_ends_a_call(void **state)
{
    (void)state;
    begin_calls(false, "STOP", false);
    push("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"xST");
    assert_string_equal(pieces(false, false), "0f:{\"a\":\"x");
    push("OP\"}}</tool_call>");
    assert_string_equal(pieces(false, true), "");
    assert_int_equal(t.calls.whole, 0);
    end();
    begin_calls(false, "</tool_call>", false); /* as agents without tools have it */
    push("<tool_call>{\"name\":\"f\"}</tool_call>");
    assert_string_equal(pieces(false, true), "0f:{}.");
    end();
}

static void one_call_may_end_the_answer(void **state)
{
    (void)state;
    begin_calls(false, NULL, true);
    push("a<tool_call>{\"name\":\"f\"");
    assert_string_equal(pieces(false, false), "a");
    push("}</tool_call>b");
    assert_string_equal(pieces(false, true), "0f:{}.");
    end();
}

/* They come with the text that is told next, of whatever kind. */
static void tokens_of_calls_are_told(void **state)
{
    (void)state;
    begin_calls(false, NULL, false);
    push("<tool_call>{\"name\":");
    assert_string_equal(pieces(false, false), "");
    assert_string_equal(told(PART_CONTENT),
                        "0@0 1@1 2@2 3@3 4@4 5@5 6@6 7@7 8@8 9@9 10@10 11@11 12@12 13@13 14@14 "
                        "15@15 16@16 17@17 18@18 ");
    push("\"f\"}");
    assert_string_equal(pieces(true, false), "0f:{}.");
    assert_string_equal(told(PART_CONTENT), "19@19 20@20 21@21 22@22 ");
    end();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_token_is_told_with_its_text),
    cmocka_unit_test(pieces_of_a_character_wait_for_it),
    cmocka_unit_test(a_stop_string_takes_its_tokens_along),
    cmocka_unit_test(what_was_held_is_told_at_the_end),
    cmocka_unit_test(the_thought_has_tokens_of_its_own),
    cmocka_unit_test(the_first_tokens_wait_for_their_part),
    cmocka_unit_test(many_tokens_may_wait),
    cmocka_unit_test(without_logprobs_nothing_is_held),
    cmocka_unit_test(calls_are_told_behind_the_thought),
    cmocka_unit_test(a_stop_string_ends_a_call),
    cmocka_unit_test(one_call_may_end_the_answer),
    cmocka_unit_test(tokens_of_calls_are_told),
};

UNIT_MAIN(tests)
