/* OpenAI's JSON as it is written, read back with jansson. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/json_at.h"

#include "coordinator/openai_response.h"

#include <math.h>

static const struct openai_head chat = {.id = "chatcmpl-1",
                                        .model = "m\"x",
                                        .fingerprint = "cpu-1-kv8",
                                        .created = 1700000000,
                                        .chat = true};
static const struct openai_head text = {
    .id = "cmpl-1", .model = "m", .created = 1700000000, .usage = true};
static const char odd[] = "a\"\\\n\t\x01\xe2\x82\xac </script>";

static struct buf b;

static void begin(void)
{
    buf_fini(&b);
    buf_init(&b, 1 << 20);
}

static json_t *parsed(const char *data, size_t len)
{
    struct error err;
    json_t *root = NULL;
    if (json_parse("written", data, len, &root, &err) != OK)
        fail_msg("%s: %s", err.msg, data);
    return root;
}

/* The one event that was written; the buffer is cleared. */
static json_t *event(void)
{
    assert_true(b.len > 8 && strncmp(b.data, "data: ", 6) == 0);
    assert_string_equal(b.data + b.len - 2, "\n\n");
    assert_ptr_equal(memchr(b.data, '\n', b.len), b.data + b.len - 2);
    json_t *root = parsed(b.data + 6, b.len - 8);
    buf_clear(&b);
    return root;
}

static void assert_text(const json_t *root, const char *path, const char *expected)
{
    const char *found = json_string_value(at(root, path));
    assert_non_null(found);
    assert_string_equal(found, expected);
}

static void assert_number(const json_t *root, const char *path, int64_t expected)
{
    assert_true(json_is_integer(at(root, path)));
    assert_int_equal(json_integer_value(at(root, path)), expected);
}

static void whole_chats(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_choice c[2] = {{.content = odd,
                                  .content_len = sizeof odd - 1,
                                  .reasoning = "why",
                                  .reasoning_len = 3,
                                  .finish = "stop"},
                                 {.index = 1, .finish = "length"}};
    struct openai_usage u = {10, 4, 5, 2, 1.25};
    assert_int_equal(openai_write_answer(&b, &chat, c, 2, &u, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "id", "chatcmpl-1");
    assert_text(root, "object", "chat.completion");
    assert_text(root, "model", "m\"x");
    assert_true(json_real_value(at(root, "usage.energy_joules")) == 1.25);
    assert_text(root, "system_fingerprint", "cpu-1-kv8");
    assert_number(root, "created", 1700000000);
    assert_text(root, "choices.0.message.role", "assistant");
    assert_text(root, "choices.0.message.content", odd);
    assert_text(root, "choices.0.message.reasoning_content", "why");
    assert_text(root, "choices.0.finish_reason", "stop");
    assert_text(root, "choices.1.message.content", "");
    assert_null(at(root, "choices.1.message.reasoning_content"));
    assert_number(root, "choices.1.index", 1);
    assert_number(root, "usage.total_tokens", 15);
    assert_number(root, "usage.completion_tokens_details.reasoning_tokens", 2);
    assert_number(root, "usage.prompt_tokens_details.cached_tokens", 4);
    assert_true(json_is_null(at(root, "choices.0.logprobs")));
    assert_null(at(root, "prompt_logprobs"));
    json_decref(root);
}

static void whole_completions(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_choice c = {.content = "x", .content_len = 1, .finish = "length"};
    struct openai_usage u = {.prompt_tokens = 1, .completion_tokens = 1};
    assert_int_equal(openai_write_answer(&b, &text, &c, 1, &u, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "object", "text_completion");
    assert_text(root, "choices.0.text", "x");
    assert_true(json_is_null(at(root, "choices.0.logprobs")));
    json_decref(root);
}

static void chat_chunks(void **state)
{
    (void)state;
    begin();
    struct error err;
    assert_int_equal(openai_write_first(&b, &chat, 1, &err), OK);
    json_t *root = event();
    assert_text(root, "object", "chat.completion.chunk");
    assert_number(root, "choices.0.index", 1);
    assert_text(root, "choices.0.delta.role", "assistant");
    assert_true(json_is_null(at(root, "choices.0.finish_reason")));
    assert_null(at(root, "usage"));
    json_decref(root);
    assert_int_equal(openai_write_text(&b, &chat, 0, false, odd, sizeof odd - 1, NULL, &err), OK);
    root = event();
    assert_text(root, "choices.0.delta.content", odd);
    assert_null(at(root, "choices.0.delta.role"));
    json_decref(root);
    assert_int_equal(openai_write_text(&b, &chat, 0, true, "t", 1, NULL, &err), OK);
    root = event();
    assert_text(root, "choices.0.delta.reasoning_content", "t");
    json_decref(root);
    assert_int_equal(openai_write_finish(&b, &chat, 0, "stop", NULL, &err), OK);
    root = event();
    assert_int_equal(json_object_size(at(root, "choices.0.delta")), 0);
    assert_text(root, "choices.0.finish_reason", "stop");
    json_decref(root);
}

static void completion_chunks(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_usage u = {.prompt_tokens = 3, .completion_tokens = 4};
    assert_int_equal(openai_write_first(&b, &text, 0, &err), OK);
    assert_int_equal(b.len, 0);
    assert_int_equal(openai_write_text(&b, &text, 0, false, "t", 1, NULL, &err), OK);
    json_t *root = event();
    assert_text(root, "choices.0.text", "t");
    assert_true(json_is_null(at(root, "usage")));
    json_decref(root);
    assert_int_equal(openai_write_finish(&b, &text, 2, "length", NULL, &err), OK);
    root = event();
    assert_text(root, "choices.0.text", "");
    assert_number(root, "choices.0.index", 2);
    json_decref(root);
    assert_int_equal(openai_write_usage(&b, &text, &u, &err), OK);
    root = event();
    assert_int_equal(json_array_size(at(root, "choices")), 0);
    assert_number(root, "usage.total_tokens", 7);
    json_decref(root);
    assert_int_equal(openai_write_done(&b, &err), OK);
    assert_string_equal(b.data, "data: [DONE]\n\n");
}

static void chunks_tell_usage_so_far(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_usage u = {.prompt_tokens = 3, .completion_tokens = 1};
    struct openai_head head = chat;
    head.so_far = &u;
    assert_int_equal(openai_write_text(&b, &head, 0, false, "t", 1, NULL, &err), OK);
    json_t *root = event();
    assert_number(root, "usage.total_tokens", 4);
    json_decref(root);
}

/* Two tokens, the second half a character, each with the likeliest in its place. */
static const struct openai_logprob two[] = {
    {{7, "a\"", 2, -0.5f, 1}, 1, {{7, "a\"", 2, -0.5f, 1}}},
    {{9, " \xf0\x9f", 3, -20000.0f, 3}, 2, {{8, "b", 1, -0.25f, 1}, {4, "", 0, -1.5f, 2}}},
};

static void chat_logprobs(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_logprobs l;
    openai_logprobs_init(&l, true, true, 1 << 20);
    struct openai_choice c = {.finish = "stop", .logprobs = &l};
    struct openai_usage u = {0};
    assert_int_equal(openai_write_answer(&b, &chat, &c, 1, &u, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_int_equal(json_array_size(at(root, "choices.0.logprobs.content")), 0);
    json_decref(root);
    buf_clear(&b);
    for (int i = 0; i < 2; i++)
        assert_int_equal(openai_logprobs_add_chat(&l, false, &two[i], &err), OK);
    assert_int_equal(openai_logprobs_add_chat(&l, true, &two[0], &err), OK);
    assert_int_equal(openai_write_answer(&b, &chat, &c, 1, &u, &err), OK);
    root = parsed(b.data, b.len);
    const json_t *p = at(root, "choices.0.logprobs");
    assert_int_equal(json_array_size(at(p, "content")), 2);
    assert_int_equal(json_array_size(at(p, "reasoning_content")), 1);
    assert_true(json_is_null(at(p, "refusal")));
    assert_text(p, "content.0.token", "a\"");
    assert_true(json_number_value(at(p, "content.0.logprob")) == -0.5);
    assert_number(p, "content.0.bytes.1", '"');
    assert_text(p, "content.0.top_logprobs.0.token", "a\"");
    assert_text(p, "content.1.token", " \\xf0\\x9f");
    assert_number(p, "content.1.bytes.2", 0x9f);
    assert_true(json_number_value(at(p, "content.1.logprob")) == -9999.0);
    assert_text(p, "content.1.top_logprobs.0.token", "b");
    assert_true(json_number_value(at(p, "content.1.top_logprobs.1.logprob")) == -1.5);
    assert_int_equal(json_array_size(at(p, "content.1.top_logprobs.1.bytes")), 0);
    json_decref(root);
    openai_logprobs_fini(&l);
}

static void completion_logprobs(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_logprobs prompt, l;
    openai_logprobs_init(&prompt, false, true, 1 << 20);
    openai_logprobs_init(&l, false, true, 1 << 20);
    assert_int_equal(openai_logprobs_add_text(&prompt, &two[0], false, 0, &err), OK);
    assert_int_equal(openai_logprobs_join(&l, &prompt, &err), OK);
    openai_logprobs_clear(&prompt);
    assert_int_equal(openai_logprobs_add_text(&prompt, &two[1], true, 2, &err), OK);
    assert_int_equal(openai_logprobs_join(&l, &prompt, &err), OK);
    assert_int_equal(openai_write_text(&b, &text, 0, false, "x", 1, &l, &err), OK);
    json_t *root = event();
    const json_t *p = at(root, "choices.0.logprobs");
    assert_text(p, "tokens.0", "a\"");
    assert_text(p, "tokens.1", "bytes: \\xf0\\x9f");
    assert_true(json_is_null(at(p, "token_logprobs.0")) && json_is_null(at(p, "top_logprobs.0")));
    assert_true(json_number_value(at(p, "token_logprobs.1")) == -9999.0);
    assert_int_equal(json_object_size(at(p, "top_logprobs.1")), 3);
    assert_true(json_number_value(at(p, "top_logprobs.1.b")) == -0.25);
    assert_number(p, "text_offset.1", 2);
    json_decref(root);
    l.top = false;
    assert_int_equal(openai_write_finish(&b, &text, 0, "stop", &l, &err), OK);
    root = event();
    assert_true(json_is_null(at(root, "choices.0.logprobs.top_logprobs")));
    json_decref(root);
    openai_logprobs_clear(&l);
    assert_int_equal(openai_write_finish(&b, &text, 0, "stop", &l, &err), OK);
    root = event();
    assert_true(json_is_null(at(root, "choices.0.logprobs")));
    json_decref(root);
    openai_logprobs_fini(&prompt);
    openai_logprobs_fini(&l);
}

static void logprobs_survive_json(void **state)
{
    (void)state;
    struct error err;
    struct openai_logprobs l;
    openai_logprobs_init(&l, true, true, 1 << 20);
    float logprob = -1.5f;
    for (int i = 0; i < 1000; i++) {
        struct openai_logprob t = {.token = {.bytes = "x", .len = 1, .logprob = logprob}};
        assert_int_equal(openai_logprobs_add_chat(&l, false, &t, &err), OK);
        json_t *root = parsed(l.lists[0].data, l.lists[0].len);
        assert_true((float)json_number_value(at(root, "logprob")) == logprob);
        json_decref(root);
        openai_logprobs_clear(&l);
        logprob = nextafterf(logprob, 0.0f);
    }
    openai_logprobs_fini(&l);
}

static void prompt_logprobs(void **state)
{
    (void)state;
    struct error err;
    struct buf list;
    struct openai_choice c = {.finish = "stop", .prompt_logprobs = &list};
    struct openai_usage u = {0};
    buf_init(&list, 1 << 20);
    assert_int_equal(openai_prompt_logprobs_add(&list, &two[0], false, &err), OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(openai_prompt_logprobs_add(&list, &two[i], true, &err), OK);
    for (int i = 0; i < 2; i++) {
        begin();
        assert_int_equal(openai_write_answer(&b, i ? &chat : &text, &c, 1, &u, &err), OK);
        json_t *root = parsed(b.data, b.len);
        const json_t *p = at(i ? root : at(root, "choices.0"), "prompt_logprobs");
        assert_int_equal(json_array_size(p), 3);
        assert_true(json_is_null(at(p, "0")));
        assert_int_equal(json_object_size(json_array_get(p, 1)), 1);
        const json_t *second = json_array_get(p, 2);
        assert_int_equal(json_object_size(second), 3);
        assert_number(json_object_get(second, "9"), "rank", 3);
        assert_text(json_object_get(second, "9"), "decoded_token", " \\xf0\\x9f");
        assert_text(json_object_get(second, "8"), "decoded_token", "b");
        assert_number(json_object_get(second, "4"), "rank", 2);
        json_decref(root);
    }
    buf_fini(&list);
}

static void errors_have_openai_shape(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_failure f = {
        .message = "it \xff\xe2\x82 broke", .type = "server_error", .param = ""};
    assert_int_equal(openai_write_error(&b, &f, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "error.message", "it \xef\xbf\xbd\xef\xbf\xbd broke");
    assert_text(root, "error.type", "server_error");
    assert_true(json_is_null(at(root, "error.param")));
    assert_true(json_is_null(at(root, "error.code")));
    json_decref(root);
    buf_clear(&b);
    f = (struct openai_failure){.message = "m", .type = "t", .param = "p", .code = "c"};
    assert_int_equal(openai_write_error_event(&b, &f, &err), OK);
    root = event();
    assert_text(root, "error.param", "p");
    assert_text(root, "error.code", "c");
    json_decref(root);
}

static void models_and_tokens(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_model m = {.id = "m", .created = 17, .max_model_len = 4096};
    uint32_t ids[] = {1, 4000000000u};
    assert_int_equal(openai_write_models(&b, &m, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "object", "list");
    assert_text(root, "data.0.id", "m");
    assert_number(root, "data.0.max_model_len", 4096);
    assert_null(strstr(b.data, "manifest"));
    json_decref(root);
    buf_clear(&b);
    m.digest = "abcd";
    m.signers = "alice, \"b\"";
    assert_int_equal(openai_write_model(&b, &m, &err), OK);
    root = parsed(b.data, b.len);
    assert_text(root, "manifest.digest", "abcd");
    assert_text(root, "manifest.signers", "alice, \"b\"");
    json_decref(root);
    buf_clear(&b);
    assert_int_equal(openai_write_tokens(&b, ids, 2, 4096, &err), OK);
    root = parsed(b.data, b.len);
    assert_number(root, "count", 2);
    assert_number(root, "tokens.1", 4000000000);
    json_decref(root);
    buf_clear(&b);
    assert_int_equal(openai_write_prompt(&b, NULL, 0, &err), OK);
    assert_string_equal(b.data, "{\"prompt\":\"\"}");
}

static void limits_are_kept(void **state)
{
    (void)state;
    begin();
    struct error err;
    b.limit = 100;
    assert_int_equal(openai_write_text(&b, &chat, 0, false, odd, sizeof odd - 1, NULL, &err),
                     ERR_LIMIT);
    struct openai_failure f = {.message = odd, .type = "t"};
    b.limit = 10;
    buf_clear(&b);
    assert_int_equal(openai_write_error(&b, &f, &err), ERR_LIMIT);
}

static void whole_messages_with_calls(void **state)
{
    (void)state;
    begin();
    struct error err;
    const struct openai_piece calls[] = {
        {.call = 0, .id = "call_x_0", .name = "f", .text = "{\"a\": \"\\n\"}", .len = 11},
        {.call = 1, .id = "call_x_1", .name = "g\"", .text = "{}", .len = 2},
    };
    const struct openai_choice c[2] = {
        {.calls = calls, .call_count = 2, .finish = "tool_calls"},
        {.index = 1,
         .content = "hm",
         .content_len = 2,
         .calls = calls,
         .call_count = 1,
         .finish = "tool_calls"},
    };
    const struct openai_usage u = {10, 4, 5, 2, NAN};
    assert_int_equal(openai_write_answer(&b, &chat, c, 2, &u, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_true(json_is_null(at(root, "choices.0.message.content")));
    assert_int_equal(json_array_size(at(root, "choices.0.message.tool_calls")), 2);
    assert_null(at(root, "choices.0.message.tool_calls.0.index"));
    assert_null(at(root, "usage.energy_joules")); /* not known */
    assert_text(root, "choices.0.message.tool_calls.0.id", "call_x_0");
    assert_text(root, "choices.0.message.tool_calls.0.type", "function");
    assert_text(root, "choices.0.message.tool_calls.0.function.name", "f");
    assert_text(root, "choices.0.message.tool_calls.0.function.arguments", "{\"a\": \"\\n\"}");
    assert_text(root, "choices.0.message.tool_calls.1.function.name", "g\"");
    assert_text(root, "choices.0.finish_reason", "tool_calls");
    assert_text(root, "choices.1.message.content", "hm");
    assert_int_equal(json_array_size(at(root, "choices.1.message.tool_calls")), 1);
    json_decref(root);
}

static void pieces_are_one_event(void **state)
{
    (void)state;
    begin();
    struct error err;
    const struct openai_piece first[] = {
        {.call = -1, .text = "I ", .len = 2},
        {.call = 0, .id = "call_x_0", .name = "f", .text = "{\"a\"", .len = 4},
        {.call = 0, .text = "}", .len = 1, .end = true},
        {.call = -1, .text = "look", .len = 4},
        {.call = 1, .id = "call_x_1", .name = "g", .text = ""},
    };
    assert_int_equal(openai_write_pieces(&b, &chat, 2, first, 5, NULL, &err), OK);
    json_t *root = event();
    assert_number(root, "choices.0.index", 2);
    assert_text(root, "choices.0.delta.content", "I look");
    assert_int_equal(json_array_size(at(root, "choices.0.delta.tool_calls")), 2);
    assert_number(root, "choices.0.delta.tool_calls.0.index", 0);
    assert_text(root, "choices.0.delta.tool_calls.0.id", "call_x_0");
    assert_text(root, "choices.0.delta.tool_calls.0.type", "function");
    assert_text(root, "choices.0.delta.tool_calls.0.function.arguments", "{\"a\"}");
    assert_number(root, "choices.0.delta.tool_calls.1.index", 1);
    assert_text(root, "choices.0.delta.tool_calls.1.function.arguments", "");
    assert_true(json_is_null(at(root, "choices.0.finish_reason")));
    json_decref(root);

    const struct openai_piece more = {.call = 1, .text = "{", .len = 1};
    assert_int_equal(openai_write_pieces(&b, &chat, 0, &more, 1, NULL, &err), OK);
    root = event();
    assert_null(at(root, "choices.0.delta.content"));
    assert_number(root, "choices.0.delta.tool_calls.0.index", 1);
    assert_null(at(root, "choices.0.delta.tool_calls.0.id"));
    assert_null(at(root, "choices.0.delta.tool_calls.0.function.name"));
    assert_text(root, "choices.0.delta.tool_calls.0.function.arguments", "{");
    json_decref(root);

    const struct openai_piece end = {.call = 1, .text = "", .end = true};
    assert_int_equal(openai_write_pieces(&b, &chat, 0, &end, 1, NULL, &err), OK);
    assert_int_equal(b.len, 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(whole_messages_with_calls),
    cmocka_unit_test(pieces_are_one_event),
    cmocka_unit_test(whole_chats),
    cmocka_unit_test(whole_completions),
    cmocka_unit_test(chat_chunks),
    cmocka_unit_test(completion_chunks),
    cmocka_unit_test(chunks_tell_usage_so_far),
    cmocka_unit_test(chat_logprobs),
    cmocka_unit_test(completion_logprobs),
    cmocka_unit_test(logprobs_survive_json),
    cmocka_unit_test(prompt_logprobs),
    cmocka_unit_test(errors_have_openai_shape),
    cmocka_unit_test(models_and_tokens),
    cmocka_unit_test(limits_are_kept),
};

UNIT_MAIN(tests)
