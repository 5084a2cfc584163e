/* Other APIs than OpenAI's chat over real sockets: their answers, streams, errors and keys. That
 * their own clients understand them is shown in tests/clients. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/http_fixture.h"
#include "tests/unit/coordinator/json_at.h"

#define CLAUDE "/v1/messages"
#define RESPONSES "/v1/responses"
#define ASK(fields)                                                                                \
    "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]," fields "}"
#define INPUT(fields) "{\"max_output_tokens\":2,\"input\":\"hi\"," fields "}"

static void assert_at(const json_t *root, const char *path, const char *expected)
{
    const char *found = json_string_value(at(root, path));
    if (!found || strcmp(found, expected) != 0)
        fail_msg("%s: expected %s, found %s", path, expected, found ? found : "nothing");
}

static void whole_answers(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CLAUDE, "", ASK("\"seed\":100"))->code, 200);
    assert_string_equal(header(&answer, "x-witan-seed"), "100");
    json_t *root = body_of(&answer);
    assert_at(root, "content.0.thinking", "hm");
    assert_at(root, "content.1.text", "w0 w1 ");
    assert_at(root, "stop_reason", "max_tokens");
    assert_int_equal(json_integer_value(at(root, "usage.input_tokens")),
                     1); /* the rest is cached */
    json_decref(root);
    assert_int_equal(call("POST", RESPONSES, "", INPUT("\"seed\":100"))->code, 200);
    root = body_of(&answer);
    assert_at(root, "output.0.content.0.text", "hm");
    assert_at(root, "output.1.content.0.text", "w0 w1 ");
    assert_at(root, "status", "incomplete");
    json_decref(root);
    finish();
}

static void streams(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CLAUDE, "", ASK("\"seed\":100,\"stream\":true"))->code, 200);
    assert_string_equal(header(&answer, "content-type"), "text/event-stream; charset=utf-8");
    assert_int_equal(count_of(answer.body.data, "event: content_block_start\n"), 2);
    assert_int_equal(count_of(answer.body.data, "\"text_delta\""), 2);
    assert_int_equal(count_of(answer.body.data, "event: message_stop\n"), 1);
    assert_int_equal(count_of(answer.body.data, "[DONE]"), 0);
    assert_int_equal(call("POST", RESPONSES, "", INPUT("\"seed\":100,\"stream\":true"))->code, 200);
    assert_int_equal(count_of(answer.body.data, "event: response.output_text.delta\n"), 2);
    assert_int_equal(count_of(answer.body.data, "event: response.incomplete\n"), 1);
    finish();
}

static void a_stream_that_breaks_says_so(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("POST", CLAUDE, "", ASK("\"seed\":400,\"stream\":true"))->code, 200);
    assert_non_null(strstr(answer.body.data, "event: error\ndata: {\"type\":\"error\",\"error\":{"
                                             "\"type\":\"overloaded_error\""));
    assert_int_equal(call("POST", RESPONSES, "", INPUT("\"seed\":400,\"stream\":true"))->code, 200);
    assert_non_null(strstr(answer.body.data, "event: response.failed\n"));
    assert_int_equal(call("POST", CLAUDE, "", ASK("\"seed\":400"))->code, 503);
    finish();
}

static void errors_have_the_shape_of_the_route(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int code;
        const char *type, *words;
    } cases[] = {
        {"{", 400, "invalid_request_error", "body: "},
        {"{}", 400, "invalid_request_error", "max_tokens: expected an integer, found nothing"},
        {ASK("\"model\":\"other\""), 404, "not_found_error", "model: "},
        {ASK("\"seed\":500"), 503, "overloaded_error", "no group"},
        {ASK("\"seed\":600"), 429, "rate_limit_error", "too many"},
        {ASK("\"seed\":700"), 400, "invalid_request_error", "context: "},
    };
    begin();
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        assert_int_equal(call("POST", CLAUDE, "", cases[i].body)->code, cases[i].code);
        json_t *root = body_of(&answer);
        assert_at(root, "type", "error");
        assert_at(root, "error.type", cases[i].type);
        const char *words = json_string_value(at(root, "error.message"));
        assert_int_equal(strncmp(words, cases[i].words, strlen(cases[i].words)), 0);
        assert_true(json_is_string(at(root, "request_id")));
        json_decref(root);
    }
    assert_refused(call("POST", RESPONSES, "", "{\"input\":3}"), 400, "input", NULL);
    finish();
}

/* What clients print beside an error, and operators look for in the log. */
static void requests_have_names(void **state)
{
    (void)state;
    char name[64];
    begin();
    assert_int_equal(call("POST", CLAUDE, "x-request-id: mine\r\n", ASK("\"seed\":100"))->code,
                     200);
    assert_int_equal(strlen(header(&answer, "request-id")), 24);
    assert_string_equal(header(&answer, "x-request-id"), "mine");
    assert_int_equal(call("POST", CLAUDE, "", ASK("\"seed\":100,\"stream\":true"))->code, 200);
    snprintf(name, sizeof name, "%s", header(&answer, "request-id"));
    assert_string_equal(header(&answer, "x-request-id"), name);
    assert_int_equal(call("POST", CLAUDE, "", "{")->code, 400);
    json_t *root = body_of(&answer);
    assert_at(root, "request_id", header(&answer, "request-id"));
    json_decref(root);
    assert_int_equal(call("POST", RESPONSES, "", INPUT("\"seed\":100"))->code, 200);
    assert_null(header(&answer, "request-id"));
    assert_int_equal(strlen(header(&answer, "x-request-id")), 24);
    finish();
}

#define VERSION "anthropic-version: 2023-06-01\r\n"

/* Where two APIs share a path, Anthropic's clients say who they are. */
static void models_as_the_client_knows_them(void **state)
{
    (void)state;
    begin();
    assert_int_equal(call("GET", "/v1/models?limit=20", VERSION, "")->code, 200);
    json_t *root = body_of(&answer);
    assert_at(root, "data.0.type", "model");
    assert_at(root, "data.0.id", "tiny");
    assert_at(root, "data.0.created_at", "2023-11-14T22:13:20Z");
    assert_at(root, "last_id", "tiny");
    assert_true(json_is_false(at(root, "has_more")));
    json_decref(root);
    assert_int_equal(call("GET", "/v1/models/tiny", VERSION, "")->code, 200);
    root = body_of(&answer);
    assert_at(root, "display_name", "tiny");
    assert_int_equal(json_integer_value(at(root, "max_input_tokens")), 4096);
    json_decref(root);
    const char *absent[] = {"/v1/models/other", "/v2"};
    for (size_t i = 0; i < COUNT_OF(absent); i++) {
        assert_int_equal(call("GET", absent[i], VERSION, "")->code, 404);
        root = body_of(&answer);
        assert_at(root, "error.type", "not_found_error");
        json_decref(root);
    }
    assert_int_equal(call("GET", "/v1/models", "", "")->code, 200);
    root = body_of(&answer);
    assert_at(root, "data.0.object", "model");
    json_decref(root);
    /* Routes of one API alone are as they were. */
    assert_int_equal(call("POST", "/tokenize", VERSION, "{\"prompt\":\"a\"}")->code, 200);
    assert_refused(call("POST", "/v1/completions", VERSION, "{\"prompt\":3}"), 400, "prompt", NULL);
    finish();
}

static void lengths_are_bounds(void **state)
{
    (void)state;
    begin();
    call("POST", CLAUDE, "", ASK("\"seed\":100"));
    assert_true(fake_params.default_max_tokens && fake_params.max_tokens == 2);
    call("POST", "/v1/chat/completions", "",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"seed\":100,\"max_tokens\":2}");
    assert_true(!fake_params.default_max_tokens && fake_params.max_tokens == 2);
    finish();
}

static void a_repeated_key_gives_the_same_answer(void **state)
{
    (void)state;
    static const char key[] = "Idempotency-Key: k1\r\n";
    char first[64], id[64];
    begin();
    /* The fake talks by its seed: a key's own would be anything. */
    assert_int_equal(call("POST", CLAUDE, key, ASK("\"seed\":100,\"stream\":true"))->code, 200);
    assert_int_equal(count_of(answer.body.data, "\nid: "), 0);
    snprintf(first, sizeof first, "%.*s", 30, strstr(answer.body.data, "msg_"));
    assert_int_equal(call("POST", CLAUDE, key, ASK("\"seed\":100,\"stream\":true"))->code, 200);
    snprintf(id, sizeof id, "%.*s", 30, strstr(answer.body.data, "msg_"));
    assert_string_equal(first, id);
    assert_int_equal(
        call("POST", CLAUDE, "Idempotency-Key: k1\r\nLast-Event-ID: x\r\n", ASK("\"stream\":true"))
            ->code,
        400);
    assert_non_null(strstr(answer.body.data, "Last-Event-ID: streams of /v1/messages have no"));
    finish();
}

static void tokens_are_counted(void **state)
{
    (void)state;
    begin();
    call("POST", CLAUDE, "", ASK("\"seed\":100"));
    int32_t len = fake_prompt_len;
    assert_int_equal(call("POST", CLAUDE "/count_tokens", "",
                          "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}")
                         ->code,
                     200);
    json_t *root = body_of(&answer);
    assert_int_equal(json_integer_value(at(root, "input_tokens")), len);
    json_decref(root);
    finish();
}

static void ollama_routes(void **state)
{
    (void)state;
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
#define TWO "\"options\":{\"seed\":100,\"num_predict\":2}}"
    begin();
    assert_int_equal(call("POST", "/api/chat", "", "{\"model\":\"tiny:latest\"," HI TWO)->code,
                     200);
    assert_string_equal(header(&answer, "content-type"), "application/x-ndjson");
    assert_int_equal(count_of(answer.body.data, "\n"), 4); /* a thought, two words, the end */
    assert_int_equal(count_of(answer.body.data, "\"done\":true"), 1);
    assert_int_equal(
        call("POST", "/api/generate", "", "{\"prompt\":\"x\",\"raw\":true,\"stream\":false," TWO)
            ->code,
        200);
    json_t *root = body_of(&answer);
    assert_at(root, "response", "w0 w1 ");
    json_decref(root);
    assert_int_equal(call("POST", "/api/generate", "", "{\"model\":\"tiny\"}")->code, 200);
    assert_non_null(strstr(answer.body.data, "\"done_reason\":\"load\""));
    assert_int_equal(call("POST", "/api/chat", "", "{\"model\":\"huge\"}")->code, 404);
    assert_int_equal(strncmp(answer.body.data, "{\"error\":\"model: ", 17), 0);
    assert_int_equal(call("POST", "/api/show", "", "{\"model\":\"tiny\"}")->code, 200);
    assert_int_equal(call("POST", "/api/show", "", "{}")->code, 400);
    assert_int_equal(call("GET", "/api/tags", "", "")->code, 200);
    assert_int_equal(call("GET", "/api/version", "", "")->code, 200);
    assert_int_equal(call("POST", "/api/pull", "", "{\"model\":\"tiny\"}")->code, 501);
    assert_int_equal(call("GET", "/api/nothing", "", "")->code, 405);
    /* A path of its own is not one of those that are refused, whatever the method. */
    assert_int_equal(call("POST", "/api/tags", "", "{}")->code, 405);
    assert_string_equal(header(&answer, "allow"), "GET, HEAD, OPTIONS");
    assert_int_equal(call("OPTIONS", "/api/tags", "", "")->code, 204);
    assert_string_equal(header(&answer, "allow"), "GET, HEAD, OPTIONS");
    assert_int_equal(call("POST", "/api/chat", "", "{" HI "\"options\":{\"seed\":400}}")->code,
                     200);
    assert_non_null(strstr(answer.body.data, "\n{\"error\":\"group g0 was lost\"}\n"));
    finish();
}

/* The fake says content, a call in three pieces, one that is whole, and content again. */
static void calls_over_every_door(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body, *event, *last;
        int calls;
    } doors[] = {
        {CLAUDE,
         ASK("\"seed\":900,\"stream\":true,\"tools\":[{\"name\":\"f\",\"input_schema\":{}}]"),
         "\"type\":\"tool_use\"", "\"stop_reason\":\"tool_use\"", 2},
        {RESPONSES,
         INPUT("\"seed\":900,\"stream\":true,\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]"),
         "event: response.function_call_arguments.done", "event: response.completed", 2},
        {"/api/chat",
         "{" HI "\"options\":{\"seed\":900},\"tools\":[{\"type\":\"function\",\"function\":{"
         "\"name\":\"f\"}}]}",
         "\"tool_calls\":[{", "\"done_reason\":\"stop\"", 2},
    };
    begin();
    for (size_t i = 0; i < COUNT_OF(doors); i++) {
        assert_int_equal(call("POST", doors[i].path, "", doors[i].body)->code, 200);
        assert_int_equal(fake_params.calls, CALLS_HERMES);
        assert_int_equal(count_of(answer.body.data, doors[i].event), doors[i].calls);
        assert_int_equal(count_of(answer.body.data, doors[i].last), 1);
        assert_int_equal(count_of(answer.body.data, "\" Done.\""), i == 1 ? 5 : 1);
    }
    assert_int_equal(
        call("POST", CLAUDE, "",
             ASK("\"seed\":900,\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],"
                 "\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}"))
            ->code,
        200);
    assert_true(fake_params.one_call);
    json_t *root = body_of(&answer);
    assert_at(root, "content.0.text", "I look. Done.");
    assert_at(root, "content.1.name", "f");
    assert_at(root, "content.1.input.a", "b");
    assert_at(root, "content.2.name", "g");
    assert_at(root, "stop_reason", "tool_use");
    json_decref(root);
    finish();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(calls_over_every_door),
    cmocka_unit_test(ollama_routes),
    cmocka_unit_test(whole_answers),
    cmocka_unit_test(streams),
    cmocka_unit_test(a_stream_that_breaks_says_so),
    cmocka_unit_test(errors_have_the_shape_of_the_route),
    cmocka_unit_test(requests_have_names),
    cmocka_unit_test(models_as_the_client_knows_them),
    cmocka_unit_test(lengths_are_bounds),
    cmocka_unit_test(a_repeated_key_gives_the_same_answer),
    cmocka_unit_test(tokens_are_counted),
};

UNIT_MAIN(tests)
