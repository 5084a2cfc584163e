/* OpenAI's JSON as it is written, read back with jansson. */
#include "tests/unit/unit.h"

#include "base/json.h"
#include "coordinator/openai_response.h"
#include "proto/versions.h"

static const struct openai_head chat = {"chatcmpl-1", "m\"x", 1700000000, true, false};
static const struct openai_head text = {"cmpl-1", "m", 1700000000, false, true};
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

static const json_t *at(const json_t *v, const char *path)
{
    char words[128], *save = NULL;
    snprintf(words, sizeof words, "%s", path);
    for (char *w = strtok_r(words, ".", &save); w; w = strtok_r(NULL, ".", &save))
        v = *w >= '0' && *w <= '9' ? json_array_get(v, (size_t)atoi(w)) : json_object_get(v, w);
    return v;
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
    struct openai_choice c[2] = {{0, odd, sizeof odd - 1, "why", 3, "stop"},
                                 {1, NULL, 0, NULL, 0, "length"}};
    struct openai_usage u = {10, 5, 2};
    assert_int_equal(openai_write_answer(&b, &chat, c, 2, &u, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "id", "chatcmpl-1");
    assert_text(root, "object", "chat.completion");
    assert_text(root, "model", "m\"x");
    assert_text(root, "system_fingerprint", NUMERICS_CLASS_CPU);
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
    json_decref(root);
}

static void whole_completions(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_choice c = {0, "x", 1, NULL, 0, "length"};
    struct openai_usage u = {1, 1, 0};
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
    assert_int_equal(openai_write_text(&b, &chat, 0, false, odd, sizeof odd - 1, &err), OK);
    root = event();
    assert_text(root, "choices.0.delta.content", odd);
    assert_null(at(root, "choices.0.delta.role"));
    json_decref(root);
    assert_int_equal(openai_write_text(&b, &chat, 0, true, "t", 1, &err), OK);
    root = event();
    assert_text(root, "choices.0.delta.reasoning_content", "t");
    json_decref(root);
    assert_int_equal(openai_write_finish(&b, &chat, 0, "stop", &err), OK);
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
    struct openai_usage u = {3, 4, 0};
    assert_int_equal(openai_write_first(&b, &text, 0, &err), OK);
    assert_int_equal(b.len, 0);
    assert_int_equal(openai_write_text(&b, &text, 0, false, "t", 1, &err), OK);
    json_t *root = event();
    assert_text(root, "choices.0.text", "t");
    assert_true(json_is_null(at(root, "usage")));
    json_decref(root);
    assert_int_equal(openai_write_finish(&b, &text, 2, "length", &err), OK);
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

static void errors_have_openai_shape(void **state)
{
    (void)state;
    begin();
    struct error err;
    struct openai_failure f = {"it \xff\xe2\x82 broke", "server_error", "", NULL};
    assert_int_equal(openai_write_error(&b, &f, &err), OK);
    json_t *root = parsed(b.data, b.len);
    assert_text(root, "error.message", "it \xef\xbf\xbd\xef\xbf\xbd broke");
    assert_text(root, "error.type", "server_error");
    assert_true(json_is_null(at(root, "error.param")));
    assert_true(json_is_null(at(root, "error.code")));
    json_decref(root);
    buf_clear(&b);
    f = (struct openai_failure){"m", "t", "p", "c"};
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
    assert_int_equal(openai_write_text(&b, &chat, 0, false, odd, sizeof odd - 1, &err), ERR_LIMIT);
    struct openai_failure f = {odd, "t", NULL, NULL};
    b.limit = 10;
    buf_clear(&b);
    assert_int_equal(openai_write_error(&b, &f, &err), ERR_LIMIT);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(whole_chats),
    cmocka_unit_test(whole_completions),
    cmocka_unit_test(chat_chunks),
    cmocka_unit_test(completion_chunks),
    cmocka_unit_test(errors_have_openai_shape),
    cmocka_unit_test(models_and_tokens),
    cmocka_unit_test(limits_are_kept),
};

UNIT_MAIN(tests)
