/* Bodies of other APIs as chat bodies, compared as JSON; what is refused, in which words. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/dialect.h"
#include "coordinator/ollama_request.h"

static const struct generation_config defaults = {
    .temperature = 0.6f, .top_p = 0.95f, .top_k = 20, .repetition_penalty = 1.25f};

/* What `body` becomes is the JSON `expected`, and a request that is taken. */
static void becomes(const struct dialect *d, enum openai_kind kind, const char *body,
                    const char *expected)
{
    struct error err = {0};
    json_t *root = NULL, *wanted = NULL, *out = NULL;
    if (json_parse("body", body, strlen(body), &root, &err) ||
        json_parse("expected", expected, strlen(expected), &wanted, &err) ||
        d->translate(root, &kind, &out, &err))
        fail_msg("%s: %s", body, err.msg);
    char *found = json_dumps(out, JSON_COMPACT);
    if (!json_equal(out, wanted))
        fail_msg("%s became %s, not %s", body, found, expected);
    free(found);
    json_decref(out);
    json_decref(wanted);
    json_decref(root);
}

static void taken(const struct dialect *d, const char *body, enum openai_kind *kind,
                  struct openai_request *r)
{
    struct error err = {0};
    *kind = OPENAI_CHAT;
    if (dialect_read(d, kind, body, strlen(body), &defaults, r, &err) != OK)
        fail_msg("%s: %s", body, err.msg);
}

static void refused(const struct dialect *d, const char *body, enum status code, const char *words)
{
    struct error err = {0};
    struct openai_request r;
    enum openai_kind kind = OPENAI_CHAT;
    enum status st = dialect_read(d, &kind, body, strlen(body), &defaults, &r, &err);
    if (st != code || strncmp(err.msg, words, strlen(words)) != 0)
        fail_msg("%s: %s: %s", body, status_name(st), err.msg);
    assert_null(r.root);
}

/* --- Anthropic ---------------------------------------------------------------------------------
 */

#define CLAUDE "\"max_tokens\":9,\"model\":\"m\""
#define CHATTED "\"max_tokens\":9,\"model\":\"m\",\"enable_thinking\":false"

static void anthropic_bodies(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_anthropic;
    becomes(d, OPENAI_CHAT,
            "{" CLAUDE ",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"system\":\"s\","
            "\"stop_sequences\":[\"a\"],\"temperature\":0.5,\"top_p\":1,\"top_k\":3,\"seed\":-4,"
            "\"stream\":true,\"metadata\":{\"user_id\":\"u\"},\"wisdom\":[1]}",
            "{" CHATTED ",\"stop\":[\"a\"],\"temperature\":0.5,\"top_p\":1,\"top_k\":3,\"seed\":-4,"
            "\"stream\":true,\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\","
            "\"text\":\"s\"}]},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]"
            "}]}");
    becomes(d, OPENAI_TOKENIZE, "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}",
            "{\"enable_thinking\":false,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
            "\"text\",\"text\":\"\"}]}]}");
    struct openai_request r;
    enum openai_kind kind;
    taken(d,
          "{" CLAUDE
          ",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"thinking\":{\"type\":"
          "\"enabled\",\"budget_tokens\":8},\"system\":null,\"tools\":[]}",
          &kind, &r);
    assert_int_equal(r.max_tokens, 9);
    assert_true(r.default_max_tokens); /* cut to what fits */
    assert_true(json_is_true(json_object_get(r.kwargs, "enable_thinking")));
    assert_int_equal(r.thinking_budget, 1 + 8);
    openai_request_fini(&r);
}

static void anthropic_blocks(void **state)
{
    (void)state;
    becomes(&dialect_anthropic, OPENAI_CHAT,
            "{" CLAUDE ",\"messages\":["
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{}"
            "},{\"type\":\"text\",\"text\":\"b\"}]},"
            "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"x\","
            "\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"d\"},{\"type\":"
            "\"thinking\",\"thinking\":\"y\"},{\"type\":\"text\",\"text\":\"c\"},{\"type\":"
            "\"tool_use\",\"id\":\"1\",\"name\":\"f\",\"input\":{\"k\":[1,{}]}}]},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"1\","
            "\"content\":\"r\",\"is_error\":true},{\"type\":\"tool_result\",\"tool_use_id\":\"2\","
            "\"content\":[{\"type\":\"text\",\"text\":\"q\"}]},{\"type\":\"tool_result\","
            "\"tool_use_id\":\"3\"},{\"type\":\"text\",\"text\":\"go\"}]}]}",
            "{" CHATTED ",\"messages\":["
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
            "\"text\":\"b\"}]},"
            "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"c\"}],"
            "\"reasoning_content\":\"xy\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
            "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"k\\\":[1,{}]}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":[{\"type\":\"text\",\"text\":"
            "\"Error: \"},{\"type\":\"text\",\"text\":\"r\"}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"2\",\"content\":[{\"type\":\"text\",\"text\":"
            "\"q\"}]},{\"role\":\"tool\",\"tool_call_id\":\"3\",\"content\":[]},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"go\"}]}]}");
}

static void anthropic_tools(void **state)
{
    (void)state;
    static const struct {
        const char *choice, *becomes;
    } choices[] = {
        {"{\"type\":\"auto\",\"disable_parallel_tool_use\":true}",
         "\"tool_choice\":\"auto\",\"parallel_tool_calls\":false"},
        {"{\"type\":\"any\"}", "\"tool_choice\":\"required\""},
        {"{\"type\":\"none\"}", "\"tool_choice\":\"none\""},
        {"{\"type\":\"tool\",\"name\":\"f\"}",
         "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"},
    };
    for (size_t i = 0; i < COUNT_OF(choices); i++) {
        char body[1024], expected[1024];
        snprintf(body, sizeof body,
                 "{" CLAUDE ",\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"tools\":[{"
                 "\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},{"
                 "\"type\":\"custom\",\"name\":\"g\",\"input_schema\":{}}],\"tool_choice\":%s}",
                 choices[i].choice);
        snprintf(expected, sizeof expected,
                 "{" CHATTED ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                 "\"text\":\"\"}]}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                 "\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}},{\"type\":"
                 "\"function\",\"function\":{\"name\":\"g\",\"parameters\":{}}}],%s}",
                 choices[i].becomes);
        becomes(&dialect_anthropic, OPENAI_CHAT, body, expected);
    }
}

static void anthropic_refusals(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_anthropic;
#define SAYS(content) "{" CLAUDE ",\"messages\":[{\"role\":\"user\",\"content\":" content "}]}"
#define SAID(content)                                                                              \
    "{" CLAUDE ",\"messages\":[{\"role\":\"assistant\",\"content\":" content                       \
    "},{\"role\":\"user\",\"content\":\"\"}]}"
#define WITH(fields) "{" CLAUDE ",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]," fields "}"
    refused(d, "[]", ERR_INVALID, "body: expected a JSON object, found an array");
    refused(d, "", ERR_INVALID, "body: ");
    refused(d, "{\"max_tokens\":1}", ERR_INVALID, "messages: expected an array, found nothing");
    refused(d, "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}", ERR_INVALID,
            "max_tokens: expected an integer, found nothing");
    refused(d, SAYS("[{\"type\":\"text\",\"text\":3}]"), ERR_INVALID,
            "messages[0].content[0].text: expected a string, found an integer");
    refused(d, SAYS("3"), ERR_INVALID, "messages[0].content: expected a string or an array of");
    refused(d, SAYS("[3]"), ERR_INVALID, "messages[0].content[0]: expected an object, found an");
    refused(d, SAYS("[{\"type\":\"image\"}]"), ERR_UNSUPPORTED,
            "messages[0].content[0].type: \"image\" is not supported (only text and tool_result");
    refused(d, SAYS("[{\"text\":\"a\"}]"), ERR_INVALID, "messages[0].content[0].type: expected a");
    refused(d, SAYS("[{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"f\",\"input\":{}}]"),
            ERR_UNSUPPORTED, "messages[0].content[0].type: \"tool_use\" is not");
    refused(d, SAYS("[{\"type\":\"tool_result\",\"content\":\"\"}]"), ERR_INVALID,
            "messages[0].content[0].tool_use_id: expected a string, found nothing");
    refused(d,
            SAYS("[{\"type\":\"tool_result\",\"tool_use_id\":\"1\",\"content\":[{\"type\":"
                 "\"image\"}]}]"),
            ERR_UNSUPPORTED, "messages[0].content[0].content[0].type: \"image\"");
    refused(d, SAID("[{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"f\",\"input\":3}]"),
            ERR_INVALID, "messages[0].content[0].input: expected an object, found an integer");
    refused(d, SAID("[{\"type\":\"thinking\"}]"), ERR_INVALID,
            "messages[0].content[0].thinking: expected a string");
    refused(d, "{" CLAUDE ",\"messages\":[{\"role\":\"assistant\",\"content\":\"So\"}]}",
            ERR_UNSUPPORTED, "messages[0].role: an answer that is begun");
    refused(d, WITH("\"system\":[{\"type\":\"text\"}]"), ERR_INVALID, "system[0].text: expected a");
    refused(d, WITH("\"stop_sequences\":\"a\""), ERR_INVALID, "stop_sequences: expected an array");
    refused(d, WITH("\"stop_sequences\":[\"a\",\"\"]"), ERR_INVALID,
            "stop_sequences[1]: expected 1 to 1024 bytes");
    refused(d, WITH("\"temperature\":\"hot\""), ERR_INVALID, "temperature: expected a number");
    refused(d, WITH("\"top_p\":2"), ERR_INVALID, "top_p: expected above 0");
    refused(d, WITH("\"thinking\":{\"type\":\"x\"}"), ERR_INVALID, "thinking.type: expected enab");
    refused(d, WITH("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":\"1\"}"), ERR_INVALID,
            "thinking.budget_tokens: expected an integer");
    refused(d, WITH("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}"), ERR_INVALID,
            "thinking.budget_tokens: expected fewer than max_tokens, 9, found 9");
    refused(d, WITH("\"thinking\":{\"type\":\"disabled\",\"budget_tokens\":-1}"), ERR_INVALID,
            "thinking.budget_tokens: expected 0 to 2147483646, found -1");
    refused(d, WITH("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2147483647}"),
            ERR_INVALID, "thinking.budget_tokens: expected 0 to 2147483646, found 2147483647");
    refused(d, WITH("\"tools\":[{\"name\":\"f\"}]"), ERR_INVALID,
            "tools[0].input_schema: expected an object, found nothing");
    refused(d, WITH("\"tools\":[{\"type\":\"bash_20250124\",\"name\":\"bash\"}]"), ERR_UNSUPPORTED,
            "tools[0].type: \"bash_20250124\" is not supported");
    refused(d, WITH("\"tools\":[{\"name\":\"f g\",\"input_schema\":{}}]"), ERR_INVALID,
            "tools[0].name: expected no white space");
    refused(d,
            WITH("\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":"
                 "\"tool\",\"name\":\"g\"}"),
            ERR_INVALID, "tool_choice.name: expected the name of one of the tools");
    refused(d, WITH("\"tool_choice\":{\"type\":\"tool\"}"), ERR_INVALID, "tool_choice.name: expec");
    refused(d, WITH("\"mcp_servers\":[{}]"), ERR_UNSUPPORTED, "mcp_servers: not supported");
    refused(d, WITH("\"output_config\":{\"format\":{\"type\":\"json_schema\"}}"), ERR_UNSUPPORTED,
            "output_config.format: not supported");
#undef SAYS
#undef SAID
#undef WITH
}

/* --- Responses ---------------------------------------------------------------------------------
 */

static void responses_bodies(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_responses;
    becomes(d, OPENAI_CHAT,
            "{\"model\":\"m\",\"input\":\"hi\",\"instructions\":\"s\",\"stream\":false,"
            "\"max_output_tokens\":5,\"temperature\":1,\"top_p\":0.5,\"seed\":3,\"store\":true,"
            "\"tool_choice\":\"auto\",\"parallel_tool_calls\":true,\"tools\":[],\"truncation\":"
            "\"disabled\",\"text\":{\"format\":{\"type\":\"text\"},\"verbosity\":\"medium\"},"
            "\"include\":[\"reasoning.encrypted_content\"],\"reasoning\":{\"effort\":\"none\"},"
            "\"previous_response_id\":null,\"background\":false,\"metadata\":{},\"wisdom\":1}",
            "{\"model\":\"m\",\"stream\":false,\"max_tokens\":5,\"temperature\":1,\"top_p\":0.5,"
            "\"seed\":3,\"parallel_tool_calls\":true,\"reasoning_effort\":\"none\",\"messages\":[{"
            "\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"hi\"}]}");
    becomes(
        d, OPENAI_CHAT,
        "{\"input\":\"\",\"text\":{\"format\":{\"type\":\"json_object\"}},\"reasoning\":{"
        "\"effort\":\"low\",\"summary\":\"auto\"}}",
        "{\"response_format\":{\"type\":\"json_object\"},\"reasoning_effort\":\"low\",\"messages\":"
        "[{\"role\":\"user\",\"content\":\"\"}]}");
    becomes(d, OPENAI_CHAT,
            "{\"input\":\"\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\""
            ",\"parameters\":{},\"strict\":false}],\"tool_choice\":{\"type\":\"function\",\"name\":"
            "\"f\"}}",
            "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"tools\":[{\"type\":\"function\""
            ",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{}}}],"
            "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}");
}

static void responses_items(void **state)
{
    (void)state;
    becomes(&dialect_responses, OPENAI_CHAT,
            "{\"input\":["
            "{\"role\":\"developer\",\"content\":\"s\"},"
            "{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\""
            ":\"a\"}]},"
            "{\"type\":\"reasoning\",\"id\":\"rs\",\"summary\":[{\"type\":\"summary_text\",\"text\""
            ":\"z\"}],\"content\":[{\"type\":\"reasoning_text\",\"text\":\"x\"}]},"
            "{\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\","
            "\"text\":\"b\",\"annotations\":[]}]},"
            "{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\",\"arguments\":\"{}\"},"
            "{\"type\":\"function_call\",\"call_id\":\"2\",\"name\":\"g\",\"arguments\":\"{}\"},"
            "{\"type\":\"function_call_output\",\"call_id\":\"1\",\"output\":\"r\"},"
            "{\"type\":\"function_call_output\",\"call_id\":\"2\",\"output\":[{\"type\":"
            "\"input_text\",\"text\":\"q\"}]},"
            "{\"type\":\"reasoning\",\"summary\":[{\"text\":\"y\"}]},"
            "{\"role\":\"assistant\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":\"d\"},"
            "{\"role\":\"user\",\"content\":\"e\"}]}",
            "{\"messages\":["
            "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"s\"}]},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
            "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"b\"}],"
            "\"reasoning_content\":\"x\",\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\","
            "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"2\",\"type\":"
            "\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":[{\"type\":\"text\",\"text\":"
            "\"r\"}]},{\"role\":\"tool\",\"tool_call_id\":\"2\",\"content\":[{\"type\":\"text\","
            "\"text\":\"q\"}]},"
            "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"c\"}],"
            "\"reasoning_content\":\"y\"},"
            "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"d\"}]},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"e\"}]}]}");
}

static void responses_refusals(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_responses;
#define WITH(fields) "{\"input\":\"\"," fields "}"
#define ITEM(item) "{\"input\":[" item "]}"
    refused(d, "{}", ERR_INVALID, "input: expected a string or an array, found nothing");
    refused(d, "{\"input\":[]}", ERR_INVALID, "input: expected 1 to 65536 items, found 0");
    refused(d, ITEM("3"), ERR_INVALID, "input[0]: expected an object, found an integer");
    refused(d, ITEM("{\"content\":\"\"}"), ERR_INVALID, "input[0].role: expected a string");
    refused(d, ITEM("{\"role\":\"x\",\"content\":\"\"}"), ERR_INVALID,
            "input[0].role: expected us");
    refused(d, ITEM("{\"role\":\"user\"}"), ERR_INVALID, "input[0].content: expected a string or");
    refused(d, ITEM("{\"role\":\"user\",\"content\":[{\"type\":\"input_file\"}]}"), ERR_UNSUPPORTED,
            "input[0].content[0].type: \"input_file\" is not supported");
    refused(d, ITEM("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":1}]}"),
            ERR_INVALID, "input[0].content[0].text: expected a string, found an integer");
    refused(d, ITEM("{\"type\":\"item_reference\",\"id\":\"x\"}"), ERR_UNSUPPORTED,
            "input[0].type: \"item_reference\" is not supported");
    refused(d, ITEM("{\"type\":\"function_call\",\"call_id\":\"1\",\"name\":\"f\"}"), ERR_INVALID,
            "input[0].arguments: expected a string, found nothing");
    refused(d, ITEM("{\"type\":\"reasoning\",\"summary\":[3]}"), ERR_INVALID,
            "input[0].summary[0]: expected an object");
    refused(d, WITH("\"previous_response_id\":\"r\""), ERR_UNSUPPORTED,
            "previous_response_id: not supported");
    refused(d, WITH("\"conversation\":\"c\""), ERR_UNSUPPORTED, "conversation: not supported");
    refused(d, WITH("\"background\":true"), ERR_UNSUPPORTED, "background: not supported");
    refused(d, WITH("\"prompt\":{\"id\":\"p\"}"), ERR_UNSUPPORTED, "prompt: not supported");
    refused(d, WITH("\"truncation\":\"auto\""), ERR_UNSUPPORTED, "truncation: not supported");
    refused(d, WITH("\"include\":[\"message.output_text.logprobs\"]"), ERR_UNSUPPORTED,
            "include[0]");
    refused(d, WITH("\"top_logprobs\":2"), ERR_UNSUPPORTED, "top_logprobs: not supported");
    refused(d, WITH("\"max_output_tokens\":0"), ERR_INVALID, "max_output_tokens: expected 1 to");
    refused(d, WITH("\"instructions\":[]"), ERR_INVALID, "instructions: expected a string");
    refused(d, WITH("\"text\":{\"verbosity\":\"low\"}"), ERR_UNSUPPORTED, "text.verbosity: not");
    refused(d, WITH("\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":{}}}"),
            ERR_UNSUPPORTED, "text.format");
    refused(d, WITH("\"reasoning\":{\"effort\":\"brute\"}"), ERR_INVALID,
            "reasoning.effort: expec");
    refused(d, WITH("\"tools\":[{\"type\":\"web_search\"}]"), ERR_UNSUPPORTED,
            "tools[0].type: \"web_search\" is not supported (only function is)");
    refused(d, WITH("\"tools\":[{\"type\":\"function\"}]"), ERR_INVALID, "tools[0].name: expected");
#undef WITH
#undef ITEM
}

/* --- Ollama ------------------------------------------------------------------------------------
 */

static void ollama_bodies(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_ollama_chat;
    becomes(
        d, OPENAI_CHAT,
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"images\":[]},{"
        "\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"x\",\"tool_calls\":[{\"function\""
        ":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]},{\"role\":\"tool\",\"content\":\"r\","
        "\"tool_name\":\"f\"}],\"options\":{\"temperature\":1,\"top_p\":0.5,\"top_k\":2,\"min_p\":"
        "0,"
        "\"seed\":3,\"num_predict\":4,\"stop\":[\"a\"],\"repeat_penalty\":1.5,"
        "\"presence_penalty\":1,\"frequency_penalty\":-1,\"num_ctx\":99,\"mirostat\":0,"
        "\"typical_p\":1.0},\"think\":true,\"format\":\"json\",\"keep_alive\":\"5m\",\"tools\":[],"
        "\"wisdom\":1}",
        "{\"model\":\"m\",\"stream\":true,\"temperature\":1,\"top_p\":0.5,\"top_k\":2,\"min_p\":0,"
        "\"seed\":3,\"max_tokens\":4,\"stop\":[\"a\"],\"repetition_penalty\":1.5,"
        "\"presence_penalty\":1,\"frequency_penalty\":-1,\"enable_thinking\":true,"
        "\"response_format\":{\"type\":\"json_object\"},\"messages\":[{\"role\":\"user\","
        "\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"x\","
        "\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\",\"content\":\"r\"}]}");
    becomes(
        d, OPENAI_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"stream\":false,\"think\":\"low\","
        "\"format\":{\"type\":\"object\"},\"options\":{\"num_predict\":-1}}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"stream\":false,"
        "\"enable_thinking\":true,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{"
        "\"name\":\"format\",\"schema\":{\"type\":\"object\"}}}}");
    becomes(
        &dialect_ollama_generate, OPENAI_CHAT,
        "{\"prompt\":\"p\",\"system\":\"s\",\"think\":false,\"images\":null,\"context\":[]}",
        "{\"stream\":true,\"enable_thinking\":false,\"messages\":[{\"role\":\"system\",\"content\":"
        "\"s\"},{\"role\":\"user\",\"content\":\"p\"}]}");
    struct openai_request r;
    enum openai_kind kind;
    taken(&dialect_ollama_generate, "{\"prompt\":\"p\",\"raw\":true,\"think\":true}", &kind, &r);
    assert_int_equal(kind, OPENAI_COMPLETION);
    assert_string_equal(r.prompts[0].text, "p");
    assert_int_equal(r.max_tokens, 0); /* up to the context, not OpenAI's 16 */
    openai_request_fini(&r);
}

static void ollama_refusals(void **state)
{
    (void)state;
    const struct dialect *d = &dialect_ollama_chat;
#define WITH(fields) "{\"messages\":[{\"role\":\"user\",\"content\":\"\"}]," fields "}"
#define SAYS(message) "{\"messages\":[" message "]}"
    refused(d, "{}", ERR_INVALID, "messages: expected an array, found nothing");
    refused(d, SAYS("3"), ERR_INVALID, "messages[0]: expected an object, found an integer");
    refused(d, SAYS("{\"role\":\"x\"}"), ERR_INVALID, "messages[0].role: expected system, user");
    refused(d, SAYS("{\"role\":\"user\",\"content\":[]}"), ERR_INVALID,
            "messages[0].content: expected a string, found an array");
    refused(d, SAYS("{\"role\":\"user\",\"images\":[\"x\"]}"), ERR_UNSUPPORTED,
            "messages[0].images: not supported");
    refused(d,
            SAYS("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                 "\"arguments\":[]}}]}"),
            ERR_INVALID,
            "messages[0].tool_calls[0].function.arguments: expected an object, found an array");
    refused(d, WITH("\"options\":{\"top_k\":\"x\"}"), ERR_INVALID,
            "options.top_k: expected an integer, found a string");
    refused(d, WITH("\"options\":{\"repeat_penalty\":99}"), ERR_INVALID,
            "options.repeat_penalty: expected above 0, at most 10, found 99");
    refused(d, WITH("\"options\":{\"num_predict\":0}"), ERR_INVALID,
            "options.num_predict: expected 1 to");
    refused(d, WITH("\"options\":{\"stop\":[\"\"]}"), ERR_INVALID, "options.stop[0]: expected 1");
    refused(d, WITH("\"options\":{\"stop\":3}"), ERR_INVALID, "options.stop: expected an array");
    refused(d, WITH("\"options\":{\"mirostat\":1}"), ERR_UNSUPPORTED, "options.mirostat: not sup");
    refused(d, WITH("\"options\":{\"tfs_z\":0.5}"), ERR_UNSUPPORTED, "options.tfs_z: not suppor");
    refused(d, WITH("\"format\":\"xml\""), ERR_INVALID, "format: expected \"json\" or a schema");
    refused(d, WITH("\"format\":{}"), ERR_UNSUPPORTED, "format");
    refused(d, WITH("\"think\":3"), ERR_INVALID, "think: expected true, false or a string");
    refused(d, WITH("\"stream\":1"), ERR_INVALID, "stream: expected true or false");
    refused(d, WITH("\"logprobs\":true"), ERR_UNSUPPORTED, "logprobs: not supported");
    refused(&dialect_ollama_generate, "{\"prompt\":[]}", ERR_INVALID, "prompt: expected a string");
    refused(&dialect_ollama_generate, "{\"prompt\":\"a\",\"suffix\":\"b\"}", ERR_UNSUPPORTED,
            "suffix: not supported");
    refused(&dialect_ollama_generate, "{\"prompt\":\"a\",\"context\":[1]}", ERR_UNSUPPORTED,
            "context: not supported");
#undef WITH
#undef SAYS
}

/* --- what was given comes back -----------------------------------------------------------------
 */

#define LARGE "{\"a\":123456789012345678901234567890,\"b\":\"\\ud83c\",\"c\":\"\\u0000\"}"
#define EIGHT(s) s s s s s s s s
#define DEEP "{\"a\":" EIGHT("[[[[[[[[") EIGHT("]]]]]]]]") "}"

/* The arguments of the first message's first call are this text. */
static void arguments_are(const struct dialect *d, const char *before, const char *arguments,
                          const char *behind)
{
    struct openai_request r;
    enum openai_kind kind;
    char body[2048];
    snprintf(body, sizeof body, "%s%s%s", before, arguments, behind);
    taken(d, body, &kind, &r);
    const json_t *message = json_array_get(r.messages, 0);
    const json_t *call = json_array_get(json_object_get(message, "tool_calls"), 0);
    const json_t *text = json_object_get(json_object_get(call, "function"), "arguments");
    assert_string_equal(json_string_value(text), arguments);
    openai_request_fini(&r);
}

static void arguments_come_back(void **state)
{
    (void)state;
    static const char *const texts[] = {"{\"a\":[1,\"x\"]}", LARGE, DEEP};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        arguments_are(&dialect_anthropic,
                      "{" CLAUDE ",\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":"
                      "\"tool_use\",\"id\":\"1\",\"name\":\"f\",\"input\":",
                      texts[i], "}]},{\"role\":\"user\",\"content\":\"\"}]}");
        arguments_are(&dialect_ollama_chat,
                      "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{"
                      "\"function\":{\"name\":\"f\",\"arguments\":",
                      texts[i], "}}]},{\"role\":\"user\",\"content\":\"\"}]}");
    }
    refused(&dialect_anthropic,
            "{" CLAUDE ",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud83c\"}]}", ERR_INVALID,
            "body: line 1");
    refused(&dialect_ollama_chat,
            "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}],\"options\":{"
            "\"seed\":123456789012345678901234567890}}",
            ERR_INVALID, "body: line 1");
}

static void ollama_loads(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool loads;
    } cases[] = {
        {"{\"model\":\"m\"}", true},
        {"{\"messages\":[],\"keep_alive\":0}", true},
        {"{\"prompt\":\"\"}", true},
        {"{\"prompt\":\"a\"}", false},
        {"{\"messages\":[{}]}", false},
        {"{\"messages\":3}", false},
        {"[]", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *body = NULL;
        assert_int_equal(json_parse("body", cases[i].body, strlen(cases[i].body), &body, NULL), OK);
        assert_int_equal(ollama_only_loads(body), cases[i].loads);
        json_decref(body);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ollama_bodies),       cmocka_unit_test(ollama_refusals),
    cmocka_unit_test(arguments_come_back), cmocka_unit_test(ollama_loads),
    cmocka_unit_test(anthropic_bodies),    cmocka_unit_test(anthropic_blocks),
    cmocka_unit_test(anthropic_tools),     cmocka_unit_test(anthropic_refusals),
    cmocka_unit_test(responses_bodies),    cmocka_unit_test(responses_items),
    cmocka_unit_test(responses_refusals),
};

UNIT_MAIN(tests)
