/* Tools over HTTP: what a generation is asked, and how its calls are told. */
#include "tests/unit/coordinator/http_fixture.h"
#include "tests/unit/coordinator/json_at.h"

#define CHAT "/v1/chat/completions"
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOLS                                                                                      \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}},"          \
    "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define KEY "Idempotency-Key: k1\r\n"

static const char *text_at(const json_t *root, const char *path)
{
    const char *text = json_string_value(at(root, path));
    if (!text)
        fail_msg("no text at %s", path);
    return text;
}

static json_t *parsed(const char *text, size_t len)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    assert_non_null(root);
    return root;
}

/* The id up to its number, which is the answer's own. */
static void assert_id(const json_t *root, const char *path, const char *name, const char *number)
{
    char expected[128];
    snprintf(expected, sizeof expected, "call_%s_%s", name, number);
    assert_string_equal(text_at(root, path), expected);
}

static void a_whole_answer(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CHAT, "", "{" MESSAGES "," TOOLS ",\"n\":2,\"seed\":900}")->code,
                     200);
    assert_int_equal(fake_params.calls, CALLS_HERMES);
    assert_false(fake_params.one_call);
    json_t *root = parsed(answer.body.data, answer.body.len);
    const char *name = text_at(root, "id") + strlen("chatcmpl-");
    assert_string_equal(text_at(root, "choices.0.message.content"), "I look. Done.");
    assert_string_equal(text_at(root, "choices.0.finish_reason"), "tool_calls");
    assert_int_equal(json_array_size(at(root, "choices.0.message.tool_calls")), 2);
    assert_id(root, "choices.0.message.tool_calls.0.id", name, "0");
    assert_id(root, "choices.0.message.tool_calls.1.id", name, "1");
    assert_id(root, "choices.1.message.tool_calls.0.id", name, "128");
    assert_string_equal(text_at(root, "choices.0.message.tool_calls.0.type"), "function");
    assert_string_equal(text_at(root, "choices.0.message.tool_calls.0.function.name"), "f");
    assert_string_equal(text_at(root, "choices.0.message.tool_calls.0.function.arguments"),
                        "{\"a\": \"b\"}");
    assert_string_equal(text_at(root, "choices.1.message.tool_calls.1.function.name"), "g");
    assert_string_equal(text_at(root, "choices.1.message.tool_calls.1.function.arguments"), "{}");
    json_decref(root);
    finish();
}

/* All of a stream's arguments, content and last finish reason; the number of events. */
static int read_stream(const char *text, char arguments[2][64], char *content, char *finish_reason)
{
    int events = 0;
    arguments[0][0] = arguments[1][0] = content[0] = '\0';
    for (const char *p = strstr(text, "data: {"); p; p = strstr(p, "data: {"), events++) {
        p += strlen("data: ");
        json_t *root = parsed(p, strcspn(p, "\n")), *c;
        size_t i;
        const json_t *more = at(root, "choices.0.delta.content");
        if (json_is_string(more))
            strcat(content, json_string_value(more));
        json_array_foreach((json_t *)at(root, "choices.0.delta.tool_calls"), i, c)
            strcat(arguments[json_integer_value(json_object_get(c, "index"))],
                   text_at(c, "function.arguments"));
        if (json_is_string(at(root, "choices.0.finish_reason")))
            strcpy(finish_reason, text_at(root, "choices.0.finish_reason"));
        json_decref(root);
    }
    return events;
}

static void a_stream(void **state)
{
    (void)state;
    begin();
    char arguments[2][64], content[64], reason[64] = "";
    call("POST", CHAT, KEY, "{" MESSAGES "," TOOLS ",\"stream\":true,\"seed\":900}");
    assert_int_equal(answer.code, 200);
    /* who speaks, four steps, the end */
    assert_int_equal(read_stream(answer.body.data, arguments, content, reason), 6);
    assert_string_equal(content, "I look. Done.");
    assert_string_equal(arguments[0], "{\"a\": \"b\"}");
    assert_string_equal(arguments[1], "{}");
    assert_string_equal(reason, "tool_calls");
    char first[4096];
    snprintf(first, sizeof first, "%s", answer.body.data);
    const char *id = strstr(first, "\"id\":\"call_");
    assert_non_null(id);
    assert_non_null(strstr(id, "_0\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                               "\"arguments\":\"{\"}}]}"));
    /* The same request has the same ids. */
    call("POST", CHAT, KEY, "{" MESSAGES "," TOOLS ",\"stream\":true,\"seed\":900}");
    const char *again = strstr(answer.body.data, "\"id\":\"call_");
    assert_non_null(again);
    assert_memory_equal(again, id, strcspn(id, ","));
    finish();
}

/* Each step's event tells how far it is, so that a stream goes on behind any of them. */
static void positions_are_of_steps(void **state)
{
    (void)state;
    begin();
    call("POST", CHAT, KEY, "{" MESSAGES "," TOOLS ",\"stream\":true,\"seed\":900}");
    const char *p = strstr(answer.body.data, "\"arguments\":\"{\"");
    assert_non_null(p);
    while (strncmp(p, "id: ", 4) != 0)
        p--;
    char last[200], headers[400], content[64], arguments[2][64], reason[64] = "";
    snprintf(last, sizeof last, "%.*s", (int)strcspn(p + 4, "\n"), p + 4);
    assert_non_null(strstr(last, "/2-")); /* two tokens */
    snprintf(headers, sizeof headers, KEY "Last-Event-ID: %s\r\n", last);
    call("POST", CHAT, headers, "{" MESSAGES "," TOOLS ",\"stream\":true,\"seed\":900}");
    assert_int_equal(answer.code, 200);
    assert_int_equal(fake_params.after.tokens, 2);
    assert_int_equal(read_stream(answer.body.data, arguments, content, reason), 3);
    assert_string_equal(content, " Done.");
    assert_string_equal(arguments[0], "\"a\": \"b\"}");
    assert_string_equal(arguments[1], "{}");
    assert_string_equal(reason, "tool_calls");
    finish();
}

static void what_is_asked_is_passed_on(void **state)
{
    (void)state;
    begin();
    call("POST", CHAT, "", "{" MESSAGES ",\"max_tokens\":1}");
    assert_int_equal(fake_params.calls, CALLS_NONE);
    int without = fake_prompt_len;
    call("POST", CHAT, "", "{" MESSAGES "," TOOLS ",\"tool_choice\":\"none\",\"max_tokens\":1}");
    assert_int_equal(answer.code, 200);
    assert_int_equal(fake_params.calls, CALLS_NONE);
    assert_int_equal(fake_prompt_len, without); /* the model is told of none */
    call("POST", CHAT, "",
         "{" MESSAGES "," TOOLS ",\"parallel_tool_calls\":false,\"seed\":900,\"max_tokens\":9}");
    assert_int_equal(fake_params.calls, CALLS_HERMES);
    assert_true(fake_params.one_call);
    assert_true(fake_prompt_len > without + 50);
    call("POST", "/tokenize", "", "{" MESSAGES "," TOOLS "}");
    json_t *root = parsed(answer.body.data, answer.body.len);
    assert_int_equal(json_integer_value(at(root, "count")), fake_prompt_len);
    json_decref(root);
    /* What comes back of earlier calls goes into the prompt; arguments must be JSON. */
    call(
        "POST", CHAT, "",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":"
        "null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":"
        "\"f\","
        "\"arguments\":\"{\\\"a\\\": 1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_1\","
        "\"content\":\"2\"}],\"max_tokens\":1}");
    assert_int_equal(answer.code, 200);
    assert_true(fake_prompt_len > without);
    call("POST", CHAT, "",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","
         "\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"{a: 1}\"}}]}],\"max_tokens\":1}");
    assert_int_equal(answer.code, 400);
    root = parsed(answer.body.data, answer.body.len);
    assert_string_equal(text_at(root, "error.param"),
                        "messages[1].tool_calls[0].function.arguments");
    json_decref(root);
    finish();
}

/* Arguments as models write them, beyond what jansson holds, at each door and for each template:
 * the prompt has them, and it is one and the same. */
static void what_was_given_comes_back(void **state)
{
    (void)state;
#define USER "{\"role\":\"user\",\"content\":\"hi\"}"
#define OBJECT "{\"a\":[123456789012345678901234567890],\"b\":\"\\ud83c\"}"
#define STRING "\"{\\\"a\\\":[123456789012345678901234567890],\\\"b\\\":\\\"\\\\ud83c\\\"}\""
    static const struct {
        const char *path, *body;
    } doors[] = {
        {CHAT, "{\"max_tokens\":2,\"messages\":[" USER
               ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":"
               "\"function\",\"function\":{\"name\":\"f\",\"arguments\":" STRING
               "}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"2\"}]}"},
        {"/v1/responses",
         "{\"max_output_tokens\":2,\"input\":[" USER
         ",{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\",\"arguments\":" STRING
         "},{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":\"2\"}]}"},
        {"/v1/messages",
         "{\"max_tokens\":2,\"thinking\":{\"type\":\"enabled\"},"
         "\"messages\":[" USER
         ",{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"f\","
         "\"input\":" OBJECT "}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
         "\"tool_use_id\":\"1\",\"content\":\"2\"}]}]}"},
        {"/api/chat",
         "{\"options\":{\"num_predict\":2},\"messages\":[" USER
         ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":"
         "\"f\",\"arguments\":" OBJECT
         "}}]},{\"role\":\"tool\",\"tool_name\":\"f\",\"content\":\"2\"}]}"},
    };
    static const enum template_kind kinds[] = {TEMPLATE_QWEN3, TEMPLATE_QWEN2_5,
                                               TEMPLATE_QWEN3_CODER};
    begin();
    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        int first = 0;
        core.served.text->template = kinds[k];
        for (size_t i = 0; i < COUNT_OF(doors); i++) {
            call("POST", doors[i].path, "", doors[i].body);
            if (answer.code != 200)
                fail_msg("%s: %d %s", doors[i].path, answer.code, answer.body.data);
            first = i == 0 ? fake_prompt_len : first;
            assert_true(first > 30);
            assert_int_equal(fake_prompt_len, first);
        }
    }
    finish();
#undef USER
#undef OBJECT
#undef STRING
}

/* The schemas of the request are what its values are converted by. */
static void the_template_chooses_the_format(void **state)
{
    (void)state;
    begin();
    core.served.text->template = TEMPLATE_QWEN3_CODER;
    call("POST", CHAT, "", "{" MESSAGES "," TOOLS ",\"seed\":900}");
    assert_int_equal(answer.code, 200);
    assert_int_equal(fake_params.calls, CALLS_CODER);
    assert_non_null(fake_params.tools);
    call("POST", CHAT, "", "{" MESSAGES "," TOOLS ",\"seed\":900,\"tool_choice\":\"required\"}");
    assert_int_equal(answer.code, 200);
    assert_int_equal(fake_params.constraint.kind, CONSTRAINT_CODER);
    assert_int_equal(fake_params.constraint.heads, 2);
    call("POST", CHAT, "",
         "{" MESSAGES ",\"tool_choice\":\"required\",\"tools\":[{\"type\":\"function\","
         "\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a>\":{}}}}}]}");
    assert_int_equal(answer.code, 400);
    json_t *refused = parsed(answer.body.data, answer.body.len);
    assert_string_equal(text_at(refused, "error.param"), "tools[0].function.parameters.properties");
    json_decref(refused);
    core.served.text->template = TEMPLATE_QWEN3GUARD_GEN;
    call("POST", CHAT, "", "{" MESSAGES "," TOOLS ",\"seed\":900}");
    assert_int_equal(answer.code, 400);
    json_t *root = parsed(answer.body.data, answer.body.len);
    assert_string_equal(text_at(root, "error.param"), "tools");
    assert_string_equal(text_at(root, "error.code"), "unsupported");
    json_decref(root);
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(the_template_chooses_the_format),
    cmocka_unit_test(a_whole_answer),
    cmocka_unit_test(a_stream),
    cmocka_unit_test(positions_are_of_steps),
    cmocka_unit_test(what_is_asked_is_passed_on),
    cmocka_unit_test(what_was_given_comes_back),
};

UNIT_MAIN(tests)
