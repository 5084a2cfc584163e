/* Bodies of OpenAI requests: what is taken, what is refused and in which words. */
#include "tests/unit/unit.h"

#include "base/buf.h"
#include "base/check.h"
#include "coordinator/openai_request.h"

#include <math.h>

static const struct generation_config defaults = {
    .temperature = 0.6f, .top_p = 0.95f, .min_p = 0.0f, .top_k = 20, .repetition_penalty = 1.25f};

static enum status parse(enum openai_kind kind, const char *body, struct openai_request *r,
                         struct error *err)
{
    return openai_request_parse(kind, body, strlen(body), &defaults, r, err);
}

static struct openai_request taken(enum openai_kind kind, const char *body)
{
    struct openai_request r;
    struct error err = {0};
    if (parse(kind, body, &r, &err) != OK)
        fail_msg("%s: %s", body, err.msg);
    return r;
}

static void refused(enum openai_kind kind, const char *body, enum status code, const char *msg,
                    const char *param)
{
    struct openai_request r;
    struct error err = {0};
    char found[OPENAI_PARAM_BYTES];
    assert_int_equal(parse(kind, body, &r, &err), code);
    if (msg)
        assert_string_equal(err.msg, msg);
    openai_error_param(err.msg, found);
    assert_string_equal(found, param);
    assert_null(r.root);
    assert_null(r.prompts);
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* A chat body with these fields more. */
static const char *chat(const char *fields)
{
    static char body[4096];
    snprintf(body, sizeof body, "{" MESSAGES "%s%s}", *fields ? "," : "", fields);
    return body;
}

static void takes_a_chat(void **state)
{
    (void)state;
    struct openai_request r = taken(
        OPENAI_CHAT,
        chat("\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
             "\"n\":3,\"stop\":[\"a\",\"b\"],\"max_tokens\":7,\"temperature\":0.5,\"top_p\":0.25,"
             "\"top_k\":-1,\"min_p\":0.125,\"seed\":-1,\"ignore_eos\":true,"
             "\"chat_template_kwargs\":{\"enable_thinking\":false}"));
    assert_string_equal(r.model, "m");
    assert_true(r.stream && r.include_usage && r.ignore_eos && r.has_seed);
    assert_int_equal(r.n, 3);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stop[1], "b");
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.sampling.temperature == 0.5f && r.sampling.top_p == 0.25f);
    assert_true(r.sampling.min_p == 0.125f);
    assert_int_equal(r.sampling.top_k, 0);
    assert_true(r.sampling.seed == UINT64_MAX);
    assert_true(json_is_false(json_object_get(r.kwargs, "enable_thinking")));
    openai_request_fini(&r);
}

static void absent_fields_have_defaults(void **state)
{
    (void)state;
    struct openai_request r = taken(OPENAI_CHAT, chat("\"temperature\":null,\"stop\":null"));
    assert_null(r.model);
    assert_null(r.kwargs);
    assert_false(r.stream || r.has_seed || r.ignore_eos);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.max_tokens, 0);
    assert_true(r.sampling.temperature == 0.6f && r.sampling.top_p == 0.95f);
    assert_int_equal(r.sampling.top_k, 20);
    assert_true(r.shaping.repetition_penalty == 1.25f && r.shaping.presence_penalty == 0.0f);
    assert_int_equal(r.logprobs + r.prompt_logprobs + r.priority + r.shaping.bias_count, 0);
    assert_int_equal(r.best_of, 1);
    assert_true(r.default_max_tokens);
    openai_request_fini(&r);
    r = taken(OPENAI_COMPLETION, "{\"prompt\":\"x\"}");
    assert_int_equal(r.max_tokens, OPENAI_DEFAULT_COMPLETION_TOKENS);
    assert_true(r.default_max_tokens);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"max_tokens\":5,\"max_completion_tokens\":9"));
    assert_int_equal(r.max_tokens, 9);
    assert_false(r.default_max_tokens);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"temperature\":-0.0,\"stop\":\"x\",\"enable_thinking\":true"));
    assert_false(signbit(r.sampling.temperature));
    assert_int_equal(r.stop_count, 1);
    assert_true(json_is_true(json_object_get(r.kwargs, "enable_thinking")));
    openai_request_fini(&r);
}

static void developers_are_the_system(void **state)
{
    (void)state;
    struct openai_request r = taken(
        OPENAI_CHAT, "{\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
                     "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]},"
                     "{\"role\":\"assistant\",\"content\":\"y\",\"refusal\":null,"
                     "\"annotations\":[],\"reasoning_content\":\"z\"},"
                     "{\"role\":\"tool\",\"content\":\"1\",\"tool_call_id\":\"c\"}]}");
    const json_t *first = json_array_get(r.messages, 0);
    assert_string_equal(json_string_value(json_object_get(first, "role")), "system");
    openai_request_fini(&r);
}

static void takes_every_kind_of_prompt(void **state)
{
    (void)state;
    struct openai_request r = taken(OPENAI_COMPLETION, "{\"prompt\":\"ab\"}");
    assert_int_equal(r.prompt_count, 1);
    assert_false(r.prompt_ids);
    assert_int_equal(r.prompts[0].len, 2);
    openai_request_fini(&r);
    r = taken(OPENAI_COMPLETION, "{\"prompt\":[\"a\",\"\"]}");
    assert_int_equal(r.prompt_count, 2);
    assert_string_equal(r.prompts[0].text, "a");
    openai_request_fini(&r);
    r = taken(OPENAI_COMPLETION, "{\"prompt\":[5,6,2147483647]}");
    assert_int_equal(r.prompt_count, 1);
    assert_true(r.prompt_ids);
    assert_int_equal(r.prompts[0].len, 3);
    assert_int_equal(r.prompts[0].ids[2], INT32_MAX);
    openai_request_fini(&r);
    r = taken(OPENAI_COMPLETION, "{\"prompt\":[[1],[2,3]],\"n\":2,\"best_of\":2}");
    assert_int_equal(r.prompt_count, 2);
    assert_int_equal(r.prompts[1].ids[1], 3);
    openai_request_fini(&r);
    r = taken(OPENAI_DETOKENIZE, "{\"tokens\":[]}");
    assert_int_equal(r.prompts[0].len, 0);
    openai_request_fini(&r);
    r = taken(OPENAI_TOKENIZE, "{\"prompt\":\"\"}");
    openai_request_fini(&r);
    r = taken(OPENAI_TOKENIZE, chat(""));
    assert_non_null(r.messages);
    openai_request_fini(&r);
}

static void errors_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *msg, *param;
    } bad[] = {
        {"\"stream\":1", "stream: expected true or false, found an integer", "stream"},
        {"\"n\":0", "n: expected 1 to 16, found 0", "n"},
        {"\"n\":17", "n: expected 1 to 16, found 17", "n"},
        {"\"n\":1.0", "n: expected an integer, found a real number", "n"},
        {"\"model\":[]", "model: expected a string, found an array", "model"},
        {"\"temperature\":-1", "temperature: expected 0 or 0.001 to 1000, found -1", "temperature"},
        {"\"temperature\":0.0005", "temperature: expected 0 or 0.001 to 1000, found 0.0005",
         "temperature"},
        {"\"temperature\":1e300", "temperature: expected 0 or 0.001 to 1000, found 1e+300",
         "temperature"},
        {"\"temperature\":\"1\"", "temperature: expected a number, found a string", "temperature"},
        {"\"top_p\":0", "top_p: expected above 0, at most 1, found 0", "top_p"},
        {"\"top_p\":1e-60", "top_p: expected above 0, at most 1, found 1e-60", "top_p"},
        {"\"min_p\":1.5", "min_p: expected 0 to 1, found 1.5", "min_p"},
        {"\"top_k\":-2", "top_k: expected -1 to 2147483647, found -2", "top_k"},
        {"\"seed\":1.5", "seed: expected an integer, found a real number", "seed"},
        {"\"max_tokens\":0", "max_tokens: expected 1 to 2147483647, found 0", "max_tokens"},
        {"\"max_tokens\":2147483648", "max_tokens: expected 1 to 2147483647, found 2147483648",
         "max_tokens"},
        {"\"stop\":[\"a\",\"\"]", "stop[1]: expected 1 to 1024 bytes, found 0", "stop[1]"},
        {"\"stop\":[1]", "stop[0]: expected a string, found an integer", "stop[0]"},
        {"\"stop\":{}", "stop: expected a string or an array of strings, found an object", "stop"},
        {"\"stream_options\":{\"include_usage\":true}",
         "stream_options: expected only with stream true", "stream_options"},
        {"\"chat_template_kwargs\":1", "chat_template_kwargs: expected an object, found an integer",
         "chat_template_kwargs"},
        {"\"enable_thinking\":0", "enable_thinking: expected true or false, found an integer",
         "enable_thinking"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(OPENAI_CHAT, chat(bad[i].fields), ERR_INVALID, bad[i].msg, bad[i].param);
}

static void unknown_fields_are_passed_over(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{" MESSAGES ",\"prompt\":\"x\",\"temprature\":1,\"a\\nb\":[{}]}",
        "{" MESSAGES ",\"stream\":true,\"stream_options\":{\"x\":1}}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\",\"x\":1}]}",
    };
    for (size_t i = 0; i < COUNT_OF(bodies); i++) {
        struct openai_request r = taken(OPENAI_CHAT, bodies[i]);
        assert_true(r.sampling.temperature == defaults.temperature);
        assert_int_equal(r.prompt_count, 0);
        openai_request_fini(&r);
    }
    struct openai_request r = taken(OPENAI_TOKENIZE,
                                    "{\"prompt\":\"x\",\"add_special_tokens\":true}");
    openai_request_fini(&r);
}

static void bad_messages_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *messages, *msg, *param;
    } bad[] = {
        {"1", "messages: expected an array, found an integer", "messages"},
        {"[]", "messages: expected 1 to 65536, found 0", "messages"},
        {"[1]", "messages[0]: expected an object, found an integer", "messages[0]"},
        {"[{\"content\":\"x\"}]", "messages[0].role: expected a string, found nothing",
         "messages[0].role"},
        {"[{\"role\":4}]", "messages[0].role: expected a string, found an integer",
         "messages[0].role"},
        {"[{\"role\":\"robot\"}]",
         "messages[0].role: expected system, developer, user, assistant or tool, found \"robot\"",
         "messages[0].role"},
        {"[{\"role\":\"user\",\"name\":1}]",
         "messages[0].name: expected a string, found an integer", "messages[0].name"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"messages\":%s}", bad[i].messages);
        refused(OPENAI_CHAT, body, ERR_INVALID, bad[i].msg, bad[i].param);
    }
    refused(OPENAI_CHAT, "{}", ERR_INVALID, "messages: expected an array, found nothing",
            "messages");
}

static void bad_prompts_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *msg, *param;
    } bad[] = {
        {"{}", "prompt: expected a string or an array, found an object", "prompt"},
        {"[]", "prompt: it is empty", "prompt"},
        {"[1,\"a\"]", "prompt[1]: expected a token id, found a string", "prompt[1]"},
        {"[-1]", "prompt[0]: expected a token id, found one that none has", "prompt[0]"},
        {"[2147483648]", "prompt[0]: expected a token id, found one that none has", "prompt[0]"},
        {"[\"a\",1]", "prompt[1]: expected a string, found an integer", "prompt[1]"},
        {"[[1],2]", "prompt[1]: expected an array of token ids, found an integer", "prompt[1]"},
        {"[[1],[true]]", "prompt[1][0]: expected a token id, found a boolean", "prompt[1][0]"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char body[256];
        snprintf(body, sizeof body, "{\"prompt\":%s}", bad[i].prompt);
        refused(OPENAI_COMPLETION, body, ERR_INVALID, bad[i].msg, bad[i].param);
    }
    refused(OPENAI_COMPLETION, "{}", ERR_INVALID,
            "prompt: expected a string or an array, found nothing", "prompt");
    refused(OPENAI_TOKENIZE, "{}", ERR_INVALID, "prompt: expected it or messages, found neither",
            "prompt");
    refused(OPENAI_TOKENIZE, "{\"prompt\":[1]}", ERR_INVALID,
            "prompt: expected a string, found an array", "prompt");
    refused(OPENAI_DETOKENIZE, "{\"tokens\":\"x\"}", ERR_INVALID,
            "tokens: expected an array of token ids, found a string", "tokens");
}

static void takes_a_bound_of_thoughts(void **state)
{
    (void)state;
    struct openai_request r = taken(OPENAI_CHAT, chat("\"thinking_budget\":0"));
    assert_int_equal(r.thinking_budget, 1);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"thinking_token_budget\":9,\"thinking_budget\":7"));
    assert_int_equal(r.thinking_budget, 8);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"thinking_budget\":7,\"thinking_token_budget\":9"));
    assert_int_equal(r.thinking_budget, 8);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"thinking_budget\":null,\"thinking_token_budget\":9"));
    assert_int_equal(r.thinking_budget, 10);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"thinking_budget\":null"));
    assert_int_equal(r.thinking_budget, 0);
    openai_request_fini(&r);
    refused(OPENAI_CHAT, chat("\"thinking_budget\":-1"), ERR_INVALID,
            "thinking_budget: expected 0 to 2147483646, found -1", "thinking_budget");
    refused(OPENAI_CHAT, chat("\"thinking_budget\":2.5"), ERR_INVALID, NULL, "thinking_budget");
    refused(OPENAI_CHAT, chat("\"thinking_token_budget\":true"), ERR_INVALID, NULL,
            "thinking_token_budget");
}

static void what_is_not_done_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *field, *neutral, *other;
    } known[] = {
        {"functions", "[]", "[{}]"},
        {"response_format", "{\"type\":\"text\"}", "{\"type\":\"json_schema\"}"},
        {"echo", "false", "true"},
        {"audio", "null", "{}"},
        {"modalities", "[\"text\"]", "[\"text\",\"audio\"]"},
        {"prediction", "null", "{}"},
        {"guided_json", "null", "{}"},
        {"enable_search", "false", "true"},
        {"continue_final_message", "false", "true"},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        char fields[256];
        snprintf(fields, sizeof fields, "\"%s\":%s", known[i].field, known[i].neutral);
        struct openai_request r = taken(OPENAI_CHAT, chat(fields));
        openai_request_fini(&r);
        snprintf(fields, sizeof fields, "\"%s\":null", known[i].field);
        r = taken(OPENAI_CHAT, chat(fields));
        openai_request_fini(&r);
        snprintf(fields, sizeof fields, "\"%s\":%s", known[i].field, known[i].other);
        refused(OPENAI_CHAT, chat(fields), ERR_UNSUPPORTED, NULL, known[i].field);
    }
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"suffix\":\"y\"}", ERR_UNSUPPORTED, NULL,
            "suffix");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"best_of\":2,\"stream\":true}", ERR_UNSUPPORTED,
            "best_of: not supported with stream (only up to n is)", "best_of");
    refused(OPENAI_CHAT, chat("\"stream\":true,\"prompt_logprobs\":0"), ERR_UNSUPPORTED,
            "prompt_logprobs: not supported with stream", "prompt_logprobs");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":0,\"stream\":true}",
            ERR_UNSUPPORTED, "echo: not supported with logprobs and stream", "echo");
}

static void takes_what_shapes_sampling(void **state)
{
    (void)state;
    struct openai_request r = taken(
        OPENAI_CHAT,
        chat("\"presence_penalty\":-2,\"frequency_penalty\":1.5,\"repetition_penalty\":1.1,"
             "\"logit_bias\":{\"0\":-100,\"2147483647\":0.5},\"stop_token_ids\":[7,0],"
             "\"min_tokens\":3,\"priority\":-1,\"logprobs\":true,\"top_logprobs\":20,"
             "\"prompt_logprobs\":4"));
    assert_true(r.shaping.presence_penalty == -2.0f && r.shaping.frequency_penalty == 1.5f);
    assert_true(r.shaping.repetition_penalty == 1.1f);
    assert_int_equal(r.shaping.bias_count, 2);
    assert_int_equal(r.shaping.bias[0].id, 0);
    assert_true(r.shaping.bias[0].bias == -100.0f && r.shaping.bias[1].bias == 0.5f);
    assert_int_equal(r.shaping.bias[1].id, INT32_MAX);
    assert_int_equal(r.shaping.stop_id_count, 2);
    assert_int_equal(r.shaping.stop_ids[0], 7);
    assert_int_equal(r.shaping.min_tokens, 3);
    assert_int_equal(r.priority, -1);
    assert_int_equal(r.logprobs, 21);
    assert_int_equal(r.prompt_logprobs, 5);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"logprobs\":true,\"logit_bias\":{},\"stop_token_ids\":[]"));
    assert_int_equal(r.logprobs, 1);
    assert_int_equal(r.shaping.bias_count + r.shaping.stop_id_count, 0);
    openai_request_fini(&r);
    r = taken(OPENAI_CHAT, chat("\"logprobs\":false,\"top_logprobs\":0"));
    assert_int_equal(r.logprobs, 0);
    openai_request_fini(&r);
}

static void takes_what_completions_add(void **state)
{
    (void)state;
    struct openai_request r = taken(OPENAI_COMPLETION,
                                    "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":5,"
                                    "\"max_tokens\":0,\"n\":2,\"best_of\":4}");
    assert_true(r.echo && r.prompt_only && !r.default_max_tokens);
    assert_int_equal(r.logprobs, 6);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.best_of, 4);
    openai_request_fini(&r);
    r = taken(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":0,\"stream\":true,"
                                 "\"stream_options\":{\"continuous_usage_stats\":true}}");
    assert_true(r.continuous_usage && !r.include_usage && !r.prompt_only);
    assert_int_equal(r.logprobs, 1);
    openai_request_fini(&r);
}

static void bad_shaping_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *msg, *param;
    } bad[] = {
        {"\"presence_penalty\":2.5", "presence_penalty: expected -2 to 2, found 2.5",
         "presence_penalty"},
        {"\"frequency_penalty\":-3", "frequency_penalty: expected -2 to 2, found -3",
         "frequency_penalty"},
        {"\"repetition_penalty\":0", "repetition_penalty: expected above 0, at most 10, found 0",
         "repetition_penalty"},
        {"\"repetition_penalty\":\"x\"", "repetition_penalty: expected a number, found a string",
         "repetition_penalty"},
        {"\"logit_bias\":[]",
         "logit_bias: expected an object of token ids and numbers, found an array", "logit_bias"},
        {"\"logit_bias\":{\"x\":1}", "logit_bias: expected token ids as keys, found \"x\"",
         "logit_bias"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias: expected token ids as keys, found \"-1\"",
         "logit_bias"},
        {"\"logit_bias\":{\"05\":1}", "logit_bias: expected token ids as keys, found \"05\"",
         "logit_bias"},
        {"\"logit_bias\":{\"2147483648\":1}",
         "logit_bias: expected token ids as keys, found \"2147483648\"", "logit_bias"},
        {"\"logit_bias\":{\"5\":101}", "logit_bias.5: expected -100 to 100, found 101",
         "logit_bias.5"},
        {"\"logit_bias\":{\"5\":null}", "logit_bias.5: expected a number, found null",
         "logit_bias.5"},
        {"\"stop_token_ids\":7", "stop_token_ids: expected an array of token ids, found an integer",
         "stop_token_ids"},
        {"\"stop_token_ids\":[-1]", "stop_token_ids[0]: expected 0 to 2147483647, found -1",
         "stop_token_ids[0]"},
        {"\"min_tokens\":-1", "min_tokens: expected 0 to 2147483647, found -1", "min_tokens"},
        {"\"min_tokens\":5,\"max_tokens\":4", "min_tokens: expected at most max_tokens, 4, found 5",
         "min_tokens"},
        {"\"priority\":2", "priority: expected -1 to 1, found 2", "priority"},
        {"\"logprobs\":1", "logprobs: expected true or false, found an integer", "logprobs"},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs: expected 0 to 20, found 21",
         "top_logprobs"},
        {"\"top_logprobs\":1", "top_logprobs: expected only with logprobs true", "top_logprobs"},
        {"\"prompt_logprobs\":-1", "prompt_logprobs: expected 0 to 20, found -1",
         "prompt_logprobs"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(OPENAI_CHAT, chat(bad[i].fields), ERR_INVALID, bad[i].msg, bad[i].param);
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"max_tokens\":0}", ERR_INVALID,
            "max_tokens: expected 0 only with echo", "max_tokens");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":21}", ERR_INVALID,
            "logprobs: expected 0 to 20, found 21", "logprobs");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"logprobs\":true}", ERR_INVALID,
            "logprobs: expected an integer, found a boolean", "logprobs");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"n\":3,\"best_of\":2}", ERR_INVALID,
            "best_of: expected at least n, 3, found 2", "best_of");
    refused(OPENAI_COMPLETION, "{\"prompt\":\"x\",\"best_of\":17}", ERR_INVALID,
            "best_of: expected 1 to 16, found 17", "best_of");
}

static void long_lists_are_refused(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{" MESSAGES ",\"logit_bias\":{", NULL);
    for (int i = 0; i <= SAMPLING_MAX_BIASES; i++)
        buf_printf(&b, NULL, "%s\"%d\":1", i > 0 ? "," : "", i);
    buf_puts(&b, "}}", NULL);
    refused(OPENAI_CHAT, b.data, ERR_INVALID,
            "logit_bias: expected at most 1024 tokens, found 1025", "logit_bias");
    buf_clear(&b);
    buf_puts(&b, "{" MESSAGES ",\"stop_token_ids\":[0", NULL);
    for (int i = 0; i < SAMPLING_MAX_STOP_IDS; i++)
        buf_puts(&b, ",0", NULL);
    buf_puts(&b, "]}", NULL);
    refused(OPENAI_CHAT, b.data, ERR_INVALID, "stop_token_ids: expected at most 64, found 65",
            "stop_token_ids");
    buf_fini(&b);
}

static void notes_are_taken(void **state)
{
    (void)state;
    struct openai_request r = taken(
        OPENAI_CHAT, chat("\"user\":\"u\",\"metadata\":{\"a\":\"b\"},\"store\":true,"
                          "\"service_tier\":\"auto\",\"safety_identifier\":\"s\","
                          "\"prompt_cache_key\":\"k\",\"parallel_tool_calls\":true"));
    openai_request_fini(&r);
}

static void too_many_answers_are_refused(void **state)
{
    (void)state;
    refused(OPENAI_COMPLETION,
            "{\"n\":16,\"prompt\":[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]}",
            ERR_INVALID, "n: expected at most 128 answers in all, found 144", "n");
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, "{\"prompt\":[", NULL);
    for (int i = 0; i < OPENAI_MAX_CHOICES; i++)
        buf_puts(&b, "\"a\",", NULL);
    buf_puts(&b, "\"a\"]}", NULL);
    refused(OPENAI_COMPLETION, b.data, ERR_INVALID,
            "prompt: expected at most 128 prompts, found 129", "prompt");
    buf_fini(&b);
}

static void too_many_messages_are_refused(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 16 << 20);
    buf_puts(&b, "{\"messages\":[", NULL);
    for (int i = 0; i < OPENAI_MAX_MESSAGES; i++)
        buf_puts(&b, "{\"role\":\"user\"},", NULL);
    buf_puts(&b, "{\"role\":\"user\"}]}", NULL);
    refused(OPENAI_CHAT, b.data, ERR_INVALID, "messages: expected 1 to 65536, found 65537",
            "messages");
    buf_fini(&b);
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "\"s\"",
        "{} {}",
        "{\"n\":1,\"n\":1}",
        "{\"temperature\":NaN}",
        "{\"temperature\":1e999}",
        "{\"seed\":9223372036854775808}",
        "{\"model\":\"\xff\"}",
        "{\"model\":\"\\u0000\"}",
        "{\"model\":\"\\ud800\"}",
        "{\"n\":01}",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(OPENAI_CHAT, bad[i], ERR_INVALID, NULL, "");
    char deep[4096] = "{\"metadata\":";
    memset(deep + strlen(deep), '[', 64);
    refused(OPENAI_CHAT, deep, ERR_INVALID, "body: nested deeper than 64 at byte 75", "");
    struct openai_request r;
    struct error err;
    assert_int_equal(openai_request_parse(OPENAI_CHAT, "{\"n\":1\0}", 8, &defaults, &r, &err),
                     ERR_INVALID);
    /* In words of ours: jansson's tell of a flag. */
    static const char *const nul[] = {"{\"model\":\"\\u0000\"}", "{\"\\u0000\":1}"};
    for (size_t i = 0; i < COUNT_OF(nul); i++) {
        assert_int_equal(parse(OPENAI_CHAT, nul[i], &r, &err), ERR_INVALID);
        assert_non_null(strstr(err.msg, ": a string with \\u0000 in it, which is not supported"));
    }
}

static void params_are_found_in_messages(void **state)
{
    (void)state;
    static const struct {
        const char *msg, *param;
    } cases[] = {
        {"messages[2].content[0].text: expected a string", "messages[2].content[0].text"},
        {"unknown field \"a\"b\"", "a\"b"},
        {"body: line 1: what", ""},
        {"a sentence: with a colon", ""},
        {"", ""},
        {":", ""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char param[OPENAI_PARAM_BYTES];
        openai_error_param(cases[i].msg, param);
        assert_string_equal(param, cases[i].param);
    }
    char lengthy[400], param[OPENAI_PARAM_BYTES];
    memset(lengthy, 'a', sizeof lengthy);
    memcpy(lengthy + 300, ": x", 4);
    openai_error_param(lengthy, param);
    assert_string_equal(param, "");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(takes_a_chat),
    cmocka_unit_test(absent_fields_have_defaults),
    cmocka_unit_test(developers_are_the_system),
    cmocka_unit_test(takes_every_kind_of_prompt),
    cmocka_unit_test(errors_name_the_field),
    cmocka_unit_test(unknown_fields_are_passed_over),
    cmocka_unit_test(bad_messages_are_named),
    cmocka_unit_test(bad_prompts_are_named),
    cmocka_unit_test(takes_a_bound_of_thoughts),
    cmocka_unit_test(what_is_not_done_is_refused_by_name),
    cmocka_unit_test(takes_what_shapes_sampling),
    cmocka_unit_test(takes_what_completions_add),
    cmocka_unit_test(bad_shaping_is_named),
    cmocka_unit_test(long_lists_are_refused),
    cmocka_unit_test(notes_are_taken),
    cmocka_unit_test(too_many_answers_are_refused),
    cmocka_unit_test(too_many_messages_are_refused),
    cmocka_unit_test(bad_json_is_refused),
    cmocka_unit_test(params_are_found_in_messages),
};

UNIT_MAIN(tests)
