/* Tools, tool_choice and reasoning_effort of chat requests. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/openai_request.h"

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define TWO "\"tools\":[" TOOL("f") "," TOOL("g") "]"

static enum status parse(const char *fields, struct openai_request *r, struct error *err)
{
    static const struct generation_config defaults = {.temperature = 1.0f, .top_p = 1.0f};
    static char body[1 << 16];
    snprintf(body, sizeof body, "{" MESSAGES ",%s}", fields);
    return openai_request_parse(OPENAI_CHAT, body, strlen(body), &defaults, r, err);
}

static struct openai_request taken(const char *fields)
{
    struct openai_request r;
    struct error err = {0};
    if (parse(fields, &r, &err) != OK)
        fail_msg("%s: %s", fields, err.msg);
    return r;
}

static void refused(const char *fields, enum status code, const char *param, const char *msg)
{
    struct openai_request r;
    struct error err = {0};
    char found[OPENAI_PARAM_BYTES];
    if (parse(fields, &r, &err) != code)
        fail_msg("%s: not refused so: %s", fields, err.msg);
    openai_error_param(err.msg, found);
    assert_string_equal(found, param);
    if (msg)
        assert_string_equal(err.msg, msg);
}

static void tools_are_taken(void **state)
{
    (void)state;
    struct openai_request r = taken(
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":"
        "\"d\",\"parameters\":{\"type\":\"object\"},\"strict\":false}}],\"tool_choice\":\"auto\"");
    assert_int_equal(json_array_size(r.tools), 1);
    assert_int_equal(r.tool_choice, OPENAI_TOOLS_AUTO);
    assert_true(r.parallel_tool_calls);
    openai_request_fini(&r);
    r = taken(TWO ",\"tool_choice\":\"none\",\"parallel_tool_calls\":false");
    assert_int_equal(json_array_size(r.tools), 2);
    assert_int_equal(r.tool_choice, OPENAI_TOOLS_NONE);
    assert_false(r.parallel_tool_calls);
    openai_request_fini(&r);
    r = taken("\"tools\":[],\"tool_choice\":\"auto\"");
    assert_null(r.tools);
    openai_request_fini(&r);
    r = taken("\"tools\":null,\"tool_choice\":null,\"parallel_tool_calls\":null");
    assert_null(r.tools);
    openai_request_fini(&r);
    r = taken("\"tools\":[" TOOL("mcp.fs:read-file/2") ",{\"type\":\"function\",\"function\":{"
                                                       "\"name\":\"\xe5\xa4\xa9\",\"description\":"
                                                       "null,\"parameters\":null,\"strict\":null,"
                                                       "\"x\":1},\"cache_control\":{}}]");
    assert_int_equal(json_array_size(r.tools), 2);
    openai_request_fini(&r);
}

static void bad_tools_are_named(void **state)
{
    (void)state;
    refused("\"tools\":{}", ERR_INVALID, "tools", "tools: expected an array, found an object");
    refused("\"tools\":[1]", ERR_INVALID, "tools[0]",
            "tools[0]: expected an object, found an integer");
    refused("\"tools\":[" TOOL("f") ",{\"type\":\"function\",\"function\":{}}]", ERR_INVALID,
            "tools[1].function.name", "tools[1].function.name: expected a string, found nothing");
    refused("\"tools\":[{\"type\":\"function\"}]", ERR_INVALID, "tools[0].function",
            "tools[0].function: expected an object, found nothing");
    refused("\"tools\":[{\"function\":{\"name\":\"f\"}}]", ERR_INVALID, "tools[0].type", NULL);
    refused("\"tools\":[{\"type\":\"web_search\"}]", ERR_UNSUPPORTED, "tools[0].type",
            "tools[0].type: not supported (only \"function\" is)");
    refused("\"tools\":[" TOOL("") "]", ERR_INVALID, "tools[0].function.name", NULL);
    refused("\"tools\":[" TOOL("a b") "]", ERR_INVALID, "tools[0].function.name", NULL);
    refused("\"tools\":[" TOOL("a>b") "]", ERR_INVALID, "tools[0].function.name", NULL);
    refused("\"tools\":[" TOOL("a\\u0000") "]", ERR_INVALID, "", NULL);
    refused("\"tools\":[" TOOL("f") "," TOOL("g") "," TOOL("f") "]", ERR_INVALID,
            "tools[2].function.name",
            "tools[2].function.name: expected a name of its own, found that of tools[0]: \"f\"");
    static const char *const fields[][2] = {
        {"description", "1"}, {"parameters", "[]"}, {"strict", "\"yes\""}};
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        char body[200], param[64];
        snprintf(body, sizeof body,
                 "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"%s\":%s}}]",
                 fields[i][0], fields[i][1]);
        snprintf(param, sizeof param, "tools[0].function.%s", fields[i][0]);
        refused(body, ERR_INVALID, param, NULL);
    }
}

static void tools_have_bounds(void **state)
{
    (void)state;
    for (int count = OPENAI_MAX_TOOLS; count <= OPENAI_MAX_TOOLS + 1; count++) {
        static char body[1 << 16];
        size_t n = (size_t)snprintf(body, sizeof body, "\"tools\":[");
        for (int i = 0; i < count; i++)
            n += (size_t)snprintf(body + n, sizeof body - n,
                                  "%s{\"type\":\"function\",\"function\":{\"name\":\"f%d\"}}",
                                  i > 0 ? "," : "", i);
        snprintf(body + n, sizeof body - n, "]");
        if (count > OPENAI_MAX_TOOLS) {
            refused(body, ERR_INVALID, "tools", "tools: expected at most 512, found 513");
        } else {
            struct openai_request r = taken(body);
            openai_request_fini(&r);
        }
    }
    char name[400];
    snprintf(name, sizeof name,
             "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"%0129d\"}}]", 0);
    refused(name, ERR_INVALID, "tools[0].function.name",
            "tools[0].function.name: expected 1 to 128 bytes, found 129");
}

#define NAMED(name) "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"

static void choices_fit_the_tools(void **state)
{
    (void)state;
    refused("\"tool_choice\":\"any\"", ERR_INVALID, "tool_choice", NULL);
    refused("\"tool_choice\":1", ERR_INVALID, "tool_choice", NULL);
    refused("\"tool_choice\":\"required\"", ERR_INVALID, "tool_choice",
            "tool_choice: expected it only with tools");
    refused(NAMED("f"), ERR_INVALID, "tool_choice", NULL);
    refused(TWO "," NAMED("h"), ERR_INVALID, "tool_choice.function.name",
            "tool_choice.function.name: expected the name of one of the tools, found \"h\"");
    refused(NAMED("h") "," TWO, ERR_INVALID, "tool_choice.function.name", NULL);
    refused(TWO ",\"tool_choice\":{\"type\":\"function\"}", ERR_INVALID, "tool_choice.function",
            NULL);
    refused(TWO ",\"tool_choice\":{\"type\":\"allowed_tools\"}", ERR_UNSUPPORTED,
            "tool_choice.type", NULL);
    refused(TWO ",\"tool_choice\":\"required\",\"response_format\":{\"type\":\"json_object\"}",
            ERR_INVALID, "response_format", NULL);
    refused(TWO ",\"response_format\":{\"type\":\"json_object\"}", ERR_UNSUPPORTED,
            "response_format", NULL);
    struct openai_request r = taken(
        TWO ",\"tool_choice\":\"none\",\"response_format\":{\"type\":\"json_object\"}");
    assert_true(r.json_object);
    openai_request_fini(&r);
    r = taken(TWO ",\"tool_choice\":\"required\"");
    assert_int_equal(r.tool_choice, OPENAI_TOOLS_REQUIRED);
    openai_request_fini(&r);
    r = taken(TWO "," NAMED("g"));
    assert_int_equal(r.tool_choice, OPENAI_TOOLS_NAMED);
    assert_string_equal(r.tool_name, "g");
    openai_request_fini(&r);
    refused(TWO ",\"parallel_tool_calls\":1", ERR_INVALID, "parallel_tool_calls", NULL);
}

/* What the template is told: -1 nothing, else 0 or 1. */
static int thinks(const char *fields)
{
    struct openai_request r = taken(fields);
    const json_t *v = json_object_get(r.kwargs, "enable_thinking");
    int found = v ? json_is_true(v) : -1;
    openai_request_fini(&r);
    return found;
}

static void effort_is_thinking_or_none(void **state)
{
    (void)state;
    static const char *const on[] = {"low", "medium", "high", "xhigh"}, *const off[] = {"none",
                                                                                        "minimal"};
    char field[64];
    for (size_t i = 0; i < COUNT_OF(on); i++) {
        snprintf(field, sizeof field, "\"reasoning_effort\":\"%s\"", on[i]);
        assert_int_equal(thinks(field), 1);
    }
    for (size_t i = 0; i < COUNT_OF(off); i++) {
        snprintf(field, sizeof field, "\"reasoning_effort\":\"%s\"", off[i]);
        assert_int_equal(thinks(field), 0);
    }
    assert_int_equal(thinks("\"reasoning_effort\":null"), -1);
    /* What says it outright goes before it. */
    assert_int_equal(thinks("\"reasoning_effort\":\"none\",\"enable_thinking\":true"), 1);
    assert_int_equal(
        thinks(
            "\"chat_template_kwargs\":{\"enable_thinking\":false},\"reasoning_effort\":\"high\""),
        0);
    refused("\"reasoning_effort\":\"much\"", ERR_INVALID, "reasoning_effort", NULL);
    refused("\"reasoning_effort\":3", ERR_INVALID, "reasoning_effort", NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tools_are_taken),
    cmocka_unit_test(bad_tools_are_named),
    cmocka_unit_test(tools_have_bounds),
    cmocka_unit_test(choices_fit_the_tools),
    cmocka_unit_test(effort_is_thinking_or_none),
};

UNIT_MAIN(tests)
