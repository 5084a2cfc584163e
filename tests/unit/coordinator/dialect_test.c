/* What dialects write: whole answers, streams event by event, and errors. */
#include "tests/unit/unit.h"
#include "tests/unit/coordinator/json_at.h"

#include "base/check.h"
#include "coordinator/dialect.h"

static const struct openai_usage usage = {10, 4, 5, 2, 0};
static struct telling telling;
static struct openai_head head;
static struct buf b;

static void begin(const char *id)
{
    buf_fini(&b);
    telling_fini(&telling);
    buf_init(&b, 1 << 20);
    telling_init(&telling, 1 << 20);
    head = (struct openai_head){.id = id,
                                .model = "m",
                                .created = 1700000000,
                                .chat = true,
                                .prompt_tokens = 10,
                                .telling = &telling};
}

/* The stream of a thought of two pieces and a message of two. */
static void stream(const struct dialect *d, const char *finish)
{
    struct error err;
    static const char *const pieces[] = {"h", "m", "w\"", "\n\xe2\x82\xac"};
    assert_int_equal(d->first(&b, &head, 0, &err), OK);
    for (size_t i = 0; i < COUNT_OF(pieces); i++)
        assert_int_equal(d->text(&b, &head, 0, i < 2, pieces[i], strlen(pieces[i]), NULL, &err),
                         OK);
    assert_int_equal(d->text(&b, &head, 0, false, "", 0, NULL, &err), OK);
    assert_int_equal(d->finish(&b, &head, 0, finish, NULL, &err), OK);
    assert_int_equal(d->end(&b, &head, &usage, &err), OK);
}

static void whole(const struct dialect *d, const char *finish)
{
    struct error err;
    struct openai_choice c = {.content = "w\"\n",
                              .content_len = 3,
                              .reasoning = "hm",
                              .reasoning_len = 2,
                              .finish = finish};
    assert_int_equal(d->answer(&b, &head, &c, 1, &usage, &err), OK);
}

/* Content, a call in two pieces, one that is whole, and more content; a third call breaks off. */
static const struct openai_piece calling[] = {
    {.call = -1, .text = "I ", .len = 2},
    {.call = 0, .id = "call_1_0", .name = "f", .text = "{\"a\": ", .len = 6},
    {.call = 0, .text = "1}", .len = 2, .end = true},
    {.call = 1, .id = "call_1_1", .name = "g", .text = "{}", .len = 2, .end = true},
    {.call = -1, .text = "go", .len = 2},
    {.call = 2, .id = "call_1_2", .name = "g", .text = "{\"b", .len = 3},
};

static void calls(const struct dialect *d)
{
    struct error err;
    assert_int_equal(d->pieces(&b, &head, 0, calling, 2, NULL, &err), OK);
    assert_int_equal(d->pieces(&b, &head, 0, calling + 2, 4, NULL, &err), OK);
    assert_int_equal(d->finish(&b, &head, 0, "tool_calls", NULL, &err), OK);
}

static void whole_calls(const struct dialect *d)
{
    struct error err;
    static const struct openai_piece all[] = {
        {.call = 0, .id = "call_1_0", .name = "f", .text = "{\"a\": 1}", .len = 8},
        {.call = 1, .id = "call_1_1", .name = "g", .text = "{\"b", .len = 3},
    };
    struct openai_choice c = {.calls = all, .call_count = 2, .finish = "tool_calls"};
    assert_int_equal(d->answer(&b, &head, &c, 1, &usage, &err), OK);
}

/* What was written is `expected` as JSON. */
static void assert_json(const char *found, size_t len, const char *expected)
{
    struct error err;
    json_t *a = NULL, *e = NULL;
    if (json_parse("written", found, len, &a, &err) ||
        json_parse("expected", expected, strlen(expected), &e, &err))
        fail_msg("%s: %.*s", err.msg, (int)len, found);
    if (!json_equal(a, e))
        fail_msg("found %.*s\nexpected %s", (int)len, found, expected);
    json_decref(a);
    json_decref(e);
}

/* The events that were written, "TYPE JSON", are these, each with the fields `more` too. */
static void assert_events(const char *const (*expected)[2], size_t count)
{
    const char *at = b.data;
    for (size_t i = 0; i < count; i++) {
        char line[64];
        int n = snprintf(line, sizeof line, "event: %s\ndata: ", expected[i][0]);
        if (strncmp(at, line, (size_t)n) != 0)
            fail_msg("event %zu: expected %s, found %.80s", i, expected[i][0], at);
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_json(at + n, (size_t)(end - at - n), expected[i][1]);
        at = end + 2;
    }
    assert_string_equal(at, "");
}

/* --- Anthropic ---------------------------------------------------------------------------------
 */

#define AT(i) "{\"type\":\"content_block_delta\",\"index\":" #i ",\"delta\":"

static void anthropic_streams(void **state)
{
    (void)state;
    static const char *const events[][2] = {
        {"message_start",
         "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":"
         "\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
         "\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":0,"
         "\"cache_read_input_tokens\":0,\"output_tokens\":0}}}"},
        {"ping", "{\"type\":\"ping\"}"},
        {"content_block_start",
         "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\","
         "\"thinking\":\"\",\"signature\":\"\"}}"},
        {"content_block_delta", AT(0) "{\"type\":\"thinking_delta\",\"thinking\":\"h\"}}"},
        {"content_block_delta", AT(0) "{\"type\":\"thinking_delta\",\"thinking\":\"m\"}}"},
        {"content_block_delta", AT(0) "{\"type\":\"signature_delta\",\"signature\":\"d2l0YW4=\"}}"},
        {"content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}"},
        {"content_block_start",
         "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\","
         "\"text\":\"\"}}"},
        {"content_block_delta", AT(1) "{\"type\":\"text_delta\",\"text\":\"w\\\"\"}}"},
        {"content_block_delta", AT(1) "{\"type\":\"text_delta\",\"text\":\"\\n\xe2\x82\xac\"}}"},
        {"content_block_stop", "{\"type\":\"content_block_stop\",\"index\":1}"},
        {"message_delta",
         "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":"
         "null},\"usage\":{\"input_tokens\":6,\"cache_creation_input_tokens\":0,"
         "\"cache_read_input_tokens\":4,\"output_tokens\":5,\"output_tokens_details\":{"
         "\"thinking_tokens\":2}}}"},
        {"message_stop", "{\"type\":\"message_stop\"}"},
    };
    begin("msg_1");
    stream(&dialect_anthropic, "length");
    assert_events(events, COUNT_OF(events));
}

static void anthropic_answers(void **state)
{
    (void)state;
    begin("msg_1");
    whole(&dialect_anthropic, "stop");
    assert_json(b.data, b.len,
                "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\","
                "\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":"
                "\"d2l0YW4=\"},{\"type\":\"text\",\"text\":\"w\\\"\\n\"}],\"stop_reason\":"
                "\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":6,"
                "\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":4,\"output_tokens\":"
                "5,\"output_tokens_details\":{\"thinking_tokens\":2}}}");
}

#define BEGIN(i, block)                                                                            \
    {                                                                                              \
        "content_block_start",                                                                     \
            "{\"type\":\"content_block_start\",\"index\":" #i ",\"content_block\":" block "}"      \
    }
#define DELTA(i, delta)                                                                            \
    {                                                                                              \
        "content_block_delta", AT(i) delta "}"                                                     \
    }
#define STOP(i)                                                                                    \
    {                                                                                              \
        "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":" #i "}"                 \
    }
#define USE(id, name, input)                                                                       \
    "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"" name "\",\"input\":" input "}"

static void anthropic_calls(void **state)
{
    (void)state;
    static const char *const events[][2] = {
        BEGIN(0, "{\"type\":\"text\",\"text\":\"\"}"),
        DELTA(0, "{\"type\":\"text_delta\",\"text\":\"I \"}"),
        STOP(0),
        BEGIN(1, USE("call_1_0", "f", "{}")),
        DELTA(1, "{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\": \"}"),
        DELTA(1, "{\"type\":\"input_json_delta\",\"partial_json\":\"1}\"}"),
        STOP(1),
        BEGIN(2, USE("call_1_1", "g", "{}")),
        DELTA(2, "{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}"),
        STOP(2),
        BEGIN(3, "{\"type\":\"text\",\"text\":\"\"}"),
        DELTA(3, "{\"type\":\"text_delta\",\"text\":\"go\"}"),
        STOP(3),
        BEGIN(4, USE("call_1_2", "g", "{}")),
        DELTA(4, "{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"b\"}"),
        STOP(4),
    };
    begin("msg_1");
    calls(&dialect_anthropic);
    assert_events(events, COUNT_OF(events));
    buf_clear(&b);
    whole_calls(&dialect_anthropic);
    json_t *root = NULL;
    assert_int_equal(json_parse("written", b.data, b.len, &root, NULL), OK);
    assert_int_equal(json_array_size(at(root, "content")), 1); /* what broke off is left out */
    assert_string_equal(json_string_value(at(root, "content.0.name")), "f");
    assert_int_equal(json_integer_value(at(root, "content.0.input.a")), 1);
    assert_string_equal(json_string_value(at(root, "stop_reason")), "tool_use");
    json_decref(root);
}

static void anthropic_stop_sequences(void **state)
{
    (void)state;
    struct error err;
    json_t *root = NULL;
    begin("msg_1");
    strcpy(telling.stop, "END");
    whole(&dialect_anthropic, "stop");
    assert_int_equal(json_parse("written", b.data, b.len, &root, &err), OK);
    assert_string_equal(json_string_value(at(root, "stop_reason")), "stop_sequence");
    assert_string_equal(json_string_value(at(root, "stop_sequence")), "END");
    json_decref(root);
    buf_clear(&b);
    assert_int_equal(dialect_anthropic.finish(&b, &head, 0, "stop", NULL, &err), OK);
    assert_int_equal(dialect_anthropic.end(&b, &head, &usage, &err), OK);
    assert_non_null(
        strstr(b.data, "{\"stop_reason\":\"stop_sequence\",\"stop_sequence\":\"END\"}"));
}

static void anthropic_errors(void **state)
{
    (void)state;
    struct error err;
    struct openai_failure f = {
        .message = "x: \xe2\x82", .type = "t", .param = "x", .status = 429, .request = "r1"};
    begin("msg_1");
    assert_int_equal(dialect_anthropic.error(&b, &f, &err), OK);
#define LIMITED                                                                                    \
    "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"x: "               \
    "\xef\xbf\xbd\"},\"request_id\":\"r1\"}"
    assert_json(b.data, b.len, LIMITED);
    buf_clear(&b);
    assert_int_equal(dialect_anthropic.stream_error(&b, &head, &f, &err), OK);
    static const char *const events[][2] = {{"error", LIMITED}};
    assert_events(events, 1);
}

/* --- Responses ---------------------------------------------------------------------------------
 */

#define HEAD(state, why)                                                                           \
    "{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1700000000,\"status\":\"" state     \
    "\",\"error\":null,\"incomplete_details\":" why ",\"model\":\"m\",\"previous_response_id\":"   \
    "null,\"parallel_tool_calls\":true,\"store\":false,\"tool_choice\":\"auto\",\"tools\":[],"     \
    "\"output\":"
#define THOUGHT(state, content)                                                                    \
    "{\"id\":\"rs_1_0\",\"type\":\"reasoning\",\"summary\":[],\"content\":" content                \
    ",\"encrypted_content\":null,\"status\":\"" state "\"}"
#define THINKS(text) "{\"type\":\"reasoning_text\",\"text\":\"" text "\"}"
#define MESSAGE(state, content)                                                                    \
    "{\"id\":\"msg_1_1\",\"type\":\"message\",\"status\":\"" state                                 \
    "\",\"role\":\"assistant\",\"content\":" content "}"
#define SAYS(text)                                                                                 \
    "{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}"
#define USAGE                                                                                      \
    ",\"usage\":{\"input_tokens\":10,\"input_tokens_details\":{\"cached_tokens\":4},"              \
    "\"output_tokens\":5,\"output_tokens_details\":{\"reasoning_tokens\":2},\"total_tokens\":15}}"
#define EVENT(type, n, fields)                                                                     \
    {                                                                                              \
        "response." type, "{\"type\":\"response." type "\",\"sequence_number\":" #n "," fields "}" \
    }
#define OF(item, i) "\"item_id\":\"" item "\",\"output_index\":" #i ",\"content_index\":0,"

static void responses_streams(void **state)
{
    (void)state;
    static const char *const events[][2] = {
        EVENT("created", 0, "\"response\":" HEAD("in_progress", "null") "[],\"usage\":null}"),
        EVENT("in_progress", 1, "\"response\":" HEAD("in_progress", "null") "[],\"usage\":null}"),
        EVENT("output_item.added", 2, "\"output_index\":0,\"item\":" THOUGHT("in_progress", "[]")),
        EVENT("content_part.added", 3, OF("rs_1_0", 0) "\"part\":" THINKS("")),
        EVENT("reasoning_text.delta", 4, OF("rs_1_0", 0) "\"delta\":\"h\""),
        EVENT("reasoning_text.delta", 5, OF("rs_1_0", 0) "\"delta\":\"m\""),
        EVENT("reasoning_text.done", 6, OF("rs_1_0", 0) "\"text\":\"hm\""),
        EVENT("content_part.done", 7, OF("rs_1_0", 0) "\"part\":" THINKS("hm")),
        EVENT("output_item.done", 8,
              "\"output_index\":0,\"item\":" THOUGHT("completed", "[" THINKS("hm") "]")),
        EVENT("output_item.added", 9, "\"output_index\":1,\"item\":" MESSAGE("in_progress", "[]")),
        EVENT("content_part.added", 10, OF("msg_1_1", 1) "\"part\":" SAYS("")),
        EVENT("output_text.delta", 11, OF("msg_1_1", 1) "\"delta\":\"w\\\"\",\"logprobs\":[]"),
        EVENT("output_text.delta", 12,
              OF("msg_1_1", 1) "\"delta\":\"\\n\xe2\x82\xac\",\"logprobs\":[]"),
        EVENT("output_text.done", 13,
              OF("msg_1_1", 1) "\"text\":\"w\\\"\\n\xe2\x82\xac\",\"logprobs\":[]"),
        EVENT("content_part.done", 14, OF("msg_1_1", 1) "\"part\":" SAYS("w\\\"\\n\xe2\x82\xac")),
        EVENT("output_item.done", 15,
              "\"output_index\":1,\"item\":" MESSAGE("incomplete",
                                                     "[" SAYS("w\\\"\\n\xe2\x82\xac") "]")),
        EVENT(
            "incomplete", 16,
            "\"response\":" HEAD("incomplete", "{\"reason\":\"max_output_tokens\"}") "[" THOUGHT(
                "completed",
                "[" THINKS("hm") "]") "," MESSAGE("incomplete",
                                                  "[" SAYS("w\\\"\\n\xe2\x82\xac") "]") "]" USAGE),
    };
    begin("resp_1");
    stream(&dialect_responses, "length");
    assert_events(events, COUNT_OF(events));
}

#define CALL(state, i, name, arguments)                                                            \
    "{\"id\":\"fc_1_" #i "\",\"type\":\"function_call\",\"status\":\"" state                       \
    "\",\"call_id\":\"call_1_" name "\",\"arguments\":\"" arguments "\"}"
#define ADDED(n, i, item) EVENT("output_item.added", n, "\"output_index\":" #i ",\"item\":" item)
#define DONE(n, i, item) EVENT("output_item.done", n, "\"output_index\":" #i ",\"item\":" item)
#define OF_CALL(i) "\"item_id\":\"fc_1_" #i "\",\"output_index\":" #i ","
#define MORE(n, i, text)                                                                           \
    EVENT("function_call_arguments.delta", n, OF_CALL(i) "\"delta\":\"" text "\"")
#define ALL(n, i, name, text)                                                                      \
    EVENT("function_call_arguments.done", n,                                                       \
          OF_CALL(i) "\"name\":\"" name "\",\"arguments\":\"" text "\"")
#define SPOKEN(i, state, content)                                                                  \
    "{\"id\":\"msg_1_" #i "\",\"type\":\"message\",\"status\":\"" state                            \
    "\",\"role\":\"assistant\",\"content\":" content "}"

static void responses_calls(void **state)
{
    (void)state;
    static const char *const events[][2] = {
        ADDED(0, 0, SPOKEN(0, "in_progress", "[]")),
        EVENT("content_part.added", 1, OF("msg_1_0", 0) "\"part\":" SAYS("")),
        EVENT("output_text.delta", 2, OF("msg_1_0", 0) "\"delta\":\"I \",\"logprobs\":[]"),
        EVENT("output_text.done", 3, OF("msg_1_0", 0) "\"text\":\"I \",\"logprobs\":[]"),
        EVENT("content_part.done", 4, OF("msg_1_0", 0) "\"part\":" SAYS("I ")),
        DONE(5, 0, SPOKEN(0, "completed", "[" SAYS("I ") "]")),
        ADDED(6, 1, CALL("in_progress", 1, "0\",\"name\":\"f", "")),
        MORE(7, 1, "{\\\"a\\\": "),
        MORE(8, 1, "1}"),
        ALL(9, 1, "f", "{\\\"a\\\": 1}"),
        DONE(10, 1, CALL("completed", 1, "0\",\"name\":\"f", "{\\\"a\\\": 1}")),
        ADDED(11, 2, CALL("in_progress", 2, "1\",\"name\":\"g", "")),
        MORE(12, 2, "{}"),
        ALL(13, 2, "g", "{}"),
        DONE(14, 2, CALL("completed", 2, "1\",\"name\":\"g", "{}")),
        ADDED(15, 3, SPOKEN(3, "in_progress", "[]")),
        EVENT("content_part.added", 16, OF("msg_1_3", 3) "\"part\":" SAYS("")),
        EVENT("output_text.delta", 17, OF("msg_1_3", 3) "\"delta\":\"go\",\"logprobs\":[]"),
        EVENT("output_text.done", 18, OF("msg_1_3", 3) "\"text\":\"go\",\"logprobs\":[]"),
        EVENT("content_part.done", 19, OF("msg_1_3", 3) "\"part\":" SAYS("go")),
        DONE(20, 3, SPOKEN(3, "completed", "[" SAYS("go") "]")),
        ADDED(21, 4, CALL("in_progress", 4, "2\",\"name\":\"g", "")),
        MORE(22, 4, "{\\\"b"),
        ALL(23, 4, "g", "{\\\"b"),
        DONE(24, 4, CALL("incomplete", 4, "2\",\"name\":\"g", "{\\\"b")),
    };
    begin("resp_1");
    calls(&dialect_responses);
    assert_events(events, COUNT_OF(events));
    buf_clear(&b);
    whole_calls(&dialect_responses);
    json_t *root = NULL;
    assert_int_equal(json_parse("written", b.data, b.len, &root, NULL), OK);
    assert_string_equal(json_string_value(at(root, "output.0.call_id")), "call_1_0");
    assert_string_equal(json_string_value(at(root, "output.0.arguments")), "{\"a\": 1}");
    assert_string_equal(json_string_value(at(root, "output.0.status")), "completed");
    assert_string_equal(json_string_value(at(root, "output.1.status")), "incomplete");
    assert_string_equal(json_string_value(at(root, "status")), "completed");
    json_decref(root);
}

static void responses_answers(void **state)
{
    (void)state;
    begin("resp_1");
    whole(&dialect_responses, "stop");
    assert_json(
        b.data, b.len,
        HEAD("completed", "null") "[" THOUGHT("completed", "[" THINKS("hm") "]") "," MESSAGE(
            "completed", "[" SAYS("w\\\"\\n") "]") "]" USAGE);
}

static void responses_failures(void **state)
{
    (void)state;
    struct error err;
    struct openai_failure f = {.message = "lost", .type = "t", .status = 503, .request = "r1"};
    begin("resp_1");
    assert_int_equal(dialect_responses.text(&b, &head, 0, false, "x", 1, NULL, &err), OK);
    buf_clear(&b);
    assert_int_equal(dialect_responses.stream_error(&b, &head, &f, &err), OK);
    assert_int_equal(strncmp(b.data, "event: response.failed\ndata: ", 29), 0);
    json_t *root = NULL;
    assert_int_equal(json_parse("written", b.data + 29, b.len - 31, &root, &err), OK);
    assert_string_equal(json_string_value(at(root, "response.status")), "failed");
    assert_string_equal(json_string_value(at(root, "response.error.message")), "lost");
    assert_string_equal(json_string_value(at(root, "response.error.code")), "server_error");
    json_decref(root);
    buf_clear(&b);
    assert_int_equal(dialect_responses.error(&b, &f, &err), OK); /* OpenAI's */
    assert_int_equal(strncmp(b.data, "{\"error\":{\"message\":\"lost\"", 26), 0);
}

/* --- Ollama ------------------------------------------------------------------------------------
 */

#define LINE "{\"model\":\"m\",\"created_at\":\"2023-11-14T22:13:20Z\","
#define SAID(fields) LINE "\"message\":{\"role\":\"assistant\"," fields "}"
#define GOES_ON ",\"done\":false}"
#define ENDS(reason)                                                                               \
    ",\"done\":true,\"done_reason\":\"" reason "\",\"total_duration\":90,\"load_duration\":0,"     \
    "\"prompt_eval_count\":10,\"prompt_eval_duration\":20,\"eval_count\":5,\"eval_duration\":70}"

static void assert_lines(const char *const *expected, size_t count)
{
    const char *at = b.data;
    for (size_t i = 0; i < count; i++) {
        const char *end = strchr(at, '\n');
        assert_non_null(end);
        assert_json(at, (size_t)(end - at), expected[i]);
        at = end + 1;
    }
    assert_string_equal(at, "");
}

static void begin_timed(void)
{
    begin("ollama-1");
    telling.began_ns = 10;
    telling.first_ns = 30;
    telling.ended_ns = 100;
}

static void ollama_streams(void **state)
{
    (void)state;
    static const char *const chat[] = {
        SAID("\"content\":\"\",\"thinking\":\"h\"") GOES_ON,
        SAID("\"content\":\"\",\"thinking\":\"m\"") GOES_ON,
        SAID("\"content\":\"w\\\"\"") GOES_ON,
        SAID("\"content\":\"\\n\xe2\x82\xac\"") GOES_ON,
        SAID("\"content\":\"\"") ENDS("length"),
    };
    static const char *const generate[] = {
        LINE "\"response\":\"\",\"thinking\":\"h\"" GOES_ON,
        LINE "\"response\":\"\",\"thinking\":\"m\"" GOES_ON,
        LINE "\"response\":\"w\\\"\"" GOES_ON,
        LINE "\"response\":\"\\n\xe2\x82\xac\"" GOES_ON,
        LINE "\"response\":\"\"" ENDS("stop"),
    };
    begin_timed();
    stream(&dialect_ollama_chat, "length");
    assert_lines(chat, COUNT_OF(chat));
    begin_timed();
    stream(&dialect_ollama_generate, "stop");
    assert_lines(generate, COUNT_OF(generate));
}

#define CALLS(id, name, arguments)                                                                 \
    "\"content\":\"\",\"tool_calls\":[{\"id\":\"" id "\",\"function\":{\"name\":\"" name           \
    "\",\"arguments\":" arguments "}}]"

static void ollama_calls(void **state)
{
    (void)state;
    static const char *const lines[] = {
        SAID("\"content\":\"I \"") GOES_ON, SAID(CALLS("call_1_0", "f", "{\"a\":1}")) GOES_ON,
        SAID(CALLS("call_1_1", "g", "{}")) GOES_ON,
        SAID("\"content\":\"go\"") GOES_ON, /* what broke off is left out */
    };
    begin_timed();
    calls(&dialect_ollama_chat);
    assert_lines(lines, COUNT_OF(lines));
    begin_timed();
    whole_calls(&dialect_ollama_chat);
    assert_json(b.data, b.len, SAID(CALLS("call_1_0", "f", "{\"a\":1}")) ENDS("stop"));
}

/* What the scanner of calls lets pass and readers of JSON do not. */
static void odd_arguments_break_no_answer(void **state)
{
    (void)state;
    static const char large[] = "{\"a\": 123456789012345678901}",
                      huge[] = "{\"a\": 1e999, \"b\": \"x\\ud83c\"}";
    static const struct openai_piece odd[] = {
        {.call = 0,
         .id = "call_1_0",
         .name = "f",
         .text = large,
         .len = sizeof large - 1,
         .end = true},
        {.call = 1,
         .id = "call_1_1",
         .name = "g",
         .text = huge,
         .len = sizeof huge - 1,
         .end = true},
    };
    static const char *const lines[] = {
        SAID(CALLS("call_1_0", "f", "{\"a\":1.2345678901234568e20}")) GOES_ON,
        SAID(CALLS("call_1_1", "g", "{\"a\":1e308,\"b\":\"x\\ufffd\"}")) GOES_ON,
    };
    struct error err;
    struct openai_choice c = {.calls = odd + 1, .call_count = 1, .finish = "tool_calls"};
    begin_timed();
    assert_int_equal(dialect_ollama_chat.pieces(&b, &head, 0, odd, 2, NULL, &err), OK);
    assert_lines(lines, COUNT_OF(lines));
    begin("msg_1");
    assert_int_equal(dialect_anthropic.answer(&b, &head, &c, 1, &usage, &err), OK);
    assert_int_equal(buf_append(&b, "", 1, &err), OK);
    assert_non_null(strstr(b.data, "\"tool_use\",\"id\":\"call_1_1\""));
}

static void ollama_answers_and_errors(void **state)
{
    (void)state;
    struct error err;
    static const char *const refusal[] = {"{\"error\":\"no\"}"};
    struct openai_failure f = {.message = "no", .status = 400};
    begin_timed();
    whole(&dialect_ollama_chat, "stop");
    assert_json(b.data, b.len, SAID("\"content\":\"w\\\"\\n\",\"thinking\":\"hm\"") ENDS("stop"));
    begin_timed();
    whole(&dialect_ollama_generate, "length");
    assert_json(b.data, b.len, LINE "\"response\":\"w\\\"\\n\",\"thinking\":\"hm\"" ENDS("length"));
    begin_timed();
    assert_int_equal(dialect_ollama_chat.stream_error(&b, &head, &f, &err), OK);
    assert_lines(refusal, 1);
}

static void limits_are_kept(void **state)
{
    (void)state;
    static const struct dialect *const all[] = {&dialect_anthropic, &dialect_responses,
                                                &dialect_ollama_chat, &dialect_ollama_generate};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        struct error err;
        begin("resp_1");
        b.limit = 40;
        assert_int_equal(all[i]->text(&b, &head, 0, false, "0123456789", 10, NULL, &err),
                         ERR_LIMIT);
    }
    buf_fini(&b);
    telling_fini(&telling);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(anthropic_streams),
    cmocka_unit_test(anthropic_answers),
    cmocka_unit_test(anthropic_errors),
    cmocka_unit_test(responses_streams),
    cmocka_unit_test(responses_answers),
    cmocka_unit_test(responses_failures),
    cmocka_unit_test(ollama_streams),
    cmocka_unit_test(ollama_answers_and_errors),
    cmocka_unit_test(anthropic_stop_sequences),
    cmocka_unit_test(anthropic_calls),
    cmocka_unit_test(responses_calls),
    cmocka_unit_test(ollama_calls),
    cmocka_unit_test(odd_arguments_break_no_answer),
    cmocka_unit_test(limits_are_kept),
};

UNIT_MAIN(tests)
