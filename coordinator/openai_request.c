/* Parsing the bodies of OpenAI requests: see openai_request.h. No state: one table of fields, each
 * with the function that reads it; those of sampling are in openai_sampling.c. */
#include "coordinator/openai_request.h"
#include "base/check.h"
#include "coordinator/openai_fields.h"
#include "partition/shown.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* What must be looked at again when all fields are read. */
struct reading {
    struct openai_request *r;
    enum openai_kind kind;
    int32_t max_tokens, max_completion_tokens; /* -1: absent */
    int32_t top_logprobs;                      /* -1: absent */
    bool has_stream_options;
    bool has_prompt;
    json_t *thinking; /* enable_thinking at the top */
    json_t *effort;   /* what reasoning_effort makes of it */
};

typedef enum status read_field(struct reading *in, const char *name, json_t *v, struct error *err);

/* --- fields ------------------------------------------------------------------------------------
 */

static enum status read_model(struct reading *in, const char *name, json_t *v, struct error *err)
{
    if (!json_is_string(v))
        return openai_mistyped(name, "a string", v, err);
    in->r->model = json_string_value(v);
    return OK;
}

static enum status read_messages(struct reading *in, const char *name, json_t *v, struct error *err)
{
    (void)name;
    in->r->messages = v;
    return openai_check_messages(v, err);
}

static enum status read_stream(struct reading *in, const char *name, json_t *v, struct error *err)
{
    return openai_read_bool(name, v, &in->r->stream, err);
}

static enum status read_stream_options(struct reading *in, const char *name, json_t *v,
                                       struct error *err)
{
    const char *key;
    json_t *option;
    if (!json_is_object(v))
        return openai_mistyped(name, "an object", v, err);
    in->has_stream_options = true;
    json_object_foreach(v, key, option)
    {
        bool *usage = strcmp(key, "include_usage") == 0            ? &in->r->include_usage
                      : strcmp(key, "continuous_usage_stats") == 0 ? &in->r->continuous_usage
                                                                   : NULL;
        char path[64];
        snprintf(path, sizeof path, "stream_options.%s", usage ? key : "");
        if (!usage && strcmp(key, "include_obfuscation") != 0)
            continue;
        if (usage && !json_is_null(option))
            TRY(openai_read_bool(path, option, usage, err));
        else if (!usage && !json_is_false(option) && !json_is_null(option))
            return error_set(err, ERR_UNSUPPORTED,
                             "stream_options.%s: not supported (only false is)", key);
    }
    return OK;
}

static enum status read_n(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int64_t n = 0;
    TRY(openai_read_int(name, v, 1, OPENAI_MAX_N, &n, err));
    in->r->n = (int32_t)n;
    return OK;
}

static enum status read_best_of(struct reading *in, const char *name, json_t *v, struct error *err)
{
    return openai_read_int32(name, v, 1, OPENAI_MAX_N, &in->r->best_of, err);
}

/* 0, which draws nothing, is for completions that echo: check_together looks. */
static enum status read_max_tokens(struct reading *in, const char *name, json_t *v,
                                   struct error *err)
{
    int32_t least = in->kind == OPENAI_COMPLETION ? 0 : 1;
    return openai_read_int32(name, v, least, INT32_MAX, &in->max_tokens, err);
}

static enum status read_max_completion_tokens(struct reading *in, const char *name, json_t *v,
                                              struct error *err)
{
    return openai_read_int32(name, v, 1, INT32_MAX, &in->max_completion_tokens, err);
}

/* chat has a boolean `logprobs`, completions a number of them, where 0 asks for some already. */
static enum status read_logprobs(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int32_t top = 0;
    bool wanted = true;
    if (in->kind == OPENAI_CHAT)
        TRY(openai_read_bool(name, v, &wanted, err));
    else
        TRY(openai_read_int32(name, v, 0, SAMPLING_MAX_LOGPROBS, &top, err));
    in->r->logprobs = wanted ? 1 + top : 0;
    return OK;
}

static enum status read_top_logprobs(struct reading *in, const char *name, json_t *v,
                                     struct error *err)
{
    return openai_read_int32(name, v, 0, SAMPLING_MAX_LOGPROBS, &in->top_logprobs, err);
}

static enum status read_echo(struct reading *in, const char *name, json_t *v, struct error *err)
{
    return openai_read_bool(name, v, &in->r->echo, err);
}

static enum status add_stop(struct openai_request *r, const char *path, const json_t *v,
                            struct error *err)
{
    if (!json_is_string(v))
        return openai_mistyped(path, "a string", v, err);
    size_t len = json_string_length(v);
    if (len < 1 || len > OPENAI_MAX_STOP_BYTES)
        return error_set(err, ERR_INVALID, "%s: expected 1 to %d bytes, found %zu", path,
                         (int)OPENAI_MAX_STOP_BYTES, len);
    r->stop[r->stop_count++] = json_string_value(v);
    return OK;
}

static enum status read_stop(struct reading *in, const char *name, json_t *v, struct error *err)
{
    if (json_is_string(v))
        return add_stop(in->r, name, v, err);
    if (!json_is_array(v))
        return openai_mistyped(name, "a string or an array of strings", v, err);
    size_t count = json_array_size(v);
    if (count > OPENAI_MAX_STOPS)
        return error_set(err, ERR_INVALID, "%s: expected at most %d strings, found %zu", name,
                         (int)OPENAI_MAX_STOPS, count);
    for (size_t i = 0; i < count; i++) {
        char path[32];
        snprintf(path, sizeof path, "stop[%zu]", i);
        TRY(add_stop(in->r, path, json_array_get(v, i), err));
    }
    return OK;
}

static enum status read_kwargs(struct reading *in, const char *name, json_t *v, struct error *err)
{
    if (!json_is_object(v))
        return openai_mistyped(name, "an object", v, err);
    in->r->kwargs = json_copy(v);
    return in->r->kwargs ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", name);
}

static enum status read_thinking(struct reading *in, const char *name, json_t *v, struct error *err)
{
    bool ignored;
    in->thinking = v;
    return openai_read_bool(name, v, &ignored, err);
}

static enum status read_effort(struct reading *in, const char *name, json_t *v, struct error *err)
{
    bool thinks;
    (void)name;
    TRY(openai_read_effort(v, &thinks, err));
    in->effort = thinks ? json_true() : json_false(); /* which are never freed */
    return OK;
}

/* Alibaba's name goes before vLLM's. */
static enum status read_budget(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int32_t most = 0;
    TRY(openai_read_int32(name, v, 0, INT32_MAX - 1, &most, err));
    bool own = strcmp(name, "thinking_budget") == 0;
    if (own || json_is_null(json_object_get(in->r->root, "thinking_budget")) ||
        !json_object_get(in->r->root, "thinking_budget"))
        in->r->thinking_budget = most + 1;
    return OK;
}

static enum status read_tools(struct reading *in, const char *name, json_t *v, struct error *err)
{
    (void)name;
    return openai_read_tools(in->r, v, err);
}

static enum status read_tool_choice(struct reading *in, const char *name, json_t *v,
                                    struct error *err)
{
    (void)name;
    return openai_read_tool_choice(in->r, v, err);
}

static enum status read_parallel(struct reading *in, const char *name, json_t *v, struct error *err)
{
    return openai_read_bool(name, v, &in->r->parallel_tool_calls, err);
}

/* {"type": "text"} or {"type": "json_object"}. */
static enum status read_response_format(struct reading *in, const char *name, json_t *v,
                                        struct error *err)
{
    if (!json_is_object(v))
        return openai_mistyped(name, "an object", v, err);
    const json_t *type = json_object_get(v, "type");
    if (!json_is_string(type))
        return openai_mistyped("response_format.type", "a string", type, err);
    const char *s = json_string_value(type);
    in->r->json_object = strcmp(s, "json_object") == 0;
    if (!in->r->json_object && strcmp(s, "text") != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "response_format: not supported: type \"%s\" (only \"text\" and "
                         "\"json_object\" are)",
                         shown(s).s);
    if (json_object_get(v, "json_schema") && !json_is_null(json_object_get(v, "json_schema")))
        return error_set(err, ERR_UNSUPPORTED, "response_format.json_schema: not supported");
    return OK;
}

/* --- prompts -----------------------------------------------------------------------------------
 */

static enum status read_ids(const char *path, const json_t *v, struct openai_prompt *out,
                            struct error *err)
{
    size_t count = json_array_size(v);
    out->ids = calloc(count ? count : 1, sizeof *out->ids);
    if (!out->ids)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu ids", path, count);
    out->len = count;
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(v, i);
        json_int_t x = json_is_integer(id) ? json_integer_value(id) : -1;
        if (x < 0 || x > INT32_MAX)
            return error_set(err, ERR_INVALID, "%s[%zu]: expected a token id, found %s", path, i,
                             json_is_integer(id) ? "one that none has" : json_type_words(id));
        out->ids[i] = (uint32_t)x;
    }
    return OK;
}

static enum status add_prompts(struct openai_request *r, const char *name, size_t count,
                               struct error *err)
{
    if (count > OPENAI_MAX_CHOICES)
        return error_set(err, ERR_INVALID, "%s: expected at most %d prompts, found %zu", name,
                         (int)OPENAI_MAX_CHOICES, count);
    r->prompts = calloc(count, sizeof *r->prompts);
    if (!r->prompts)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", name);
    r->prompt_count = (int32_t)count;
    return OK;
}

static enum status read_one_of_many(struct openai_request *r, size_t i, const json_t *v,
                                    struct error *err)
{
    char path[32];
    snprintf(path, sizeof path, "prompt[%zu]", i);
    if (r->prompt_ids ? !json_is_array(v) : !json_is_string(v))
        return openai_mistyped(path, r->prompt_ids ? "an array of token ids" : "a string", v, err);
    if (r->prompt_ids)
        return read_ids(path, v, &r->prompts[i], err);
    r->prompts[i].text = json_string_value(v);
    r->prompts[i].len = json_string_length(v);
    return OK;
}

/* A string, strings, ids, or arrays of ids. */
static enum status read_prompt(struct reading *in, const char *name, json_t *v, struct error *err)
{
    struct openai_request *r = in->r;
    in->has_prompt = true;
    if (json_is_string(v)) {
        TRY(add_prompts(r, name, 1, err));
        r->prompts[0].text = json_string_value(v);
        r->prompts[0].len = json_string_length(v);
        return OK;
    }
    if (!json_is_array(v) || in->kind == OPENAI_TOKENIZE)
        return openai_mistyped(
            name, in->kind == OPENAI_TOKENIZE ? "a string" : "a string or an array", v, err);
    if (json_array_size(v) == 0)
        return error_set(err, ERR_INVALID, "%s: it is empty", name);
    const json_t *first = json_array_get(v, 0);
    r->prompt_ids = json_is_integer(first) || json_is_array(first);
    if (json_is_integer(first)) {
        TRY(add_prompts(r, name, 1, err));
        return read_ids(name, v, &r->prompts[0], err);
    }
    TRY(add_prompts(r, name, json_array_size(v), err));
    for (size_t i = 0; i < json_array_size(v); i++)
        TRY(read_one_of_many(r, i, json_array_get(v, i), err));
    return OK;
}

static enum status read_tokens(struct reading *in, const char *name, json_t *v, struct error *err)
{
    if (!json_is_array(v))
        return openai_mistyped(name, "an array of token ids", v, err);
    in->has_prompt = true;
    in->r->prompt_ids = true;
    TRY(add_prompts(in->r, name, 1, err));
    return read_ids(name, v, &in->r->prompts[0], err);
}

/* --- the body ----------------------------------------------------------------------------------
 */

enum {
    CHAT = 1 << OPENAI_CHAT,
    COMPLETION = 1 << OPENAI_COMPLETION,
    BOTH = CHAT | COMPLETION,
    TOKENIZE = 1 << OPENAI_TOKENIZE,
    DETOKENIZE = 1 << OPENAI_DETOKENIZE,
};

static const struct {
    const char *name;
    unsigned kinds;
    read_field *read;
} fields[] = {
    {"model", BOTH | TOKENIZE | DETOKENIZE, read_model},
    {"messages", CHAT | TOKENIZE, read_messages},
    {"prompt", COMPLETION | TOKENIZE, read_prompt},
    {"tokens", DETOKENIZE, read_tokens},
    {"stream", BOTH, read_stream},
    {"stream_options", BOTH, read_stream_options},
    {"n", BOTH, read_n},
    {"best_of", COMPLETION, read_best_of},
    {"stop", BOTH, read_stop},
    {"max_tokens", BOTH, read_max_tokens},
    {"max_completion_tokens", CHAT, read_max_completion_tokens},
    {"chat_template_kwargs", CHAT | TOKENIZE, read_kwargs},
    {"enable_thinking", CHAT | TOKENIZE, read_thinking},
    {"reasoning_effort", CHAT | TOKENIZE, read_effort},
    {"thinking_budget", CHAT, read_budget},
    {"thinking_token_budget", CHAT, read_budget},
    {"tools", CHAT | TOKENIZE, read_tools},
    {"tool_choice", CHAT, read_tool_choice},
    {"parallel_tool_calls", CHAT, read_parallel},
    {"logprobs", BOTH, read_logprobs},
    {"top_logprobs", CHAT, read_top_logprobs},
    {"echo", COMPLETION, read_echo},
    {"response_format", BOTH, read_response_format},
};

static enum status read_one(struct reading *in, const char *name, json_t *v, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if ((fields[i].kinds & (1u << in->kind)) && strcmp(fields[i].name, name) == 0)
            return json_is_null(v) ? OK : fields[i].read(in, name, v, err);
    enum status st = ERR_NOT_FOUND;
    if ((1u << in->kind) & BOTH)
        st = openai_sampling_field(in->r, name, v, err);
    if (st == ERR_NOT_FOUND)
        st = openai_neutral_field(in->kind, name, v, err);
    return st == ERR_NOT_FOUND ? OK : st; /* one that nobody knows is passed over */
}

/* enable_thinking at the top goes before that of chat_template_kwargs, which goes before
 * reasoning_effort. */
static enum status add_thinking(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (!in->thinking && !json_object_get(r->kwargs, "enable_thinking"))
        in->thinking = in->effort;
    if (!in->thinking)
        return OK;
    if (!r->kwargs)
        r->kwargs = json_object();
    if (!r->kwargs || json_object_set(r->kwargs, "enable_thinking", in->thinking) != 0)
        return error_set(err, ERR_NO_MEMORY, "enable_thinking: no memory");
    return OK;
}

/* n, best_of and the prompts. */
static enum status check_choices(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (r->best_of == 0)
        r->best_of = r->n;
    if (r->best_of < r->n)
        return error_set(err, ERR_INVALID, "best_of: expected at least n, %d, found %d", r->n,
                         r->best_of);
    if (r->best_of > r->n && r->stream)
        return error_set(err, ERR_UNSUPPORTED,
                         "best_of: not supported with stream (only up to n is)");
    if (r->prompt_count * r->best_of > OPENAI_MAX_CHOICES)
        return error_set(err, ERR_INVALID, "%s: expected at most %d answers in all, found %d",
                         r->best_of > r->n ? "best_of" : "n", (int)OPENAI_MAX_CHOICES,
                         r->prompt_count * r->best_of);
    return OK;
}

static enum status check_lengths(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    int32_t most = in->max_completion_tokens > 0 ? in->max_completion_tokens : in->max_tokens;
    if (most == 0 && !r->echo)
        return error_set(err, ERR_INVALID, "max_tokens: expected 0 only with echo");
    if (most > 0 && r->shaping.min_tokens > most)
        return error_set(err, ERR_INVALID, "min_tokens: expected at most max_tokens, %d, found %d",
                         most, r->shaping.min_tokens);
    r->prompt_only = most == 0;
    r->default_max_tokens = most < 0;
    r->max_tokens = most > 0                        ? most
                    : in->kind == OPENAI_COMPLETION ? OPENAI_DEFAULT_COMPLETION_TOKENS
                                                    : 0;
    return OK;
}

static enum status check_logprobs(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (in->top_logprobs > 0 && r->logprobs == 0)
        return error_set(err, ERR_INVALID, "top_logprobs: expected only with logprobs true");
    if (in->top_logprobs > 0)
        r->logprobs = 1 + in->top_logprobs;
    if (r->prompt_logprobs > 0 && r->stream)
        return error_set(err, ERR_UNSUPPORTED, "prompt_logprobs: not supported with stream");
    if (r->echo && r->logprobs > 0 && r->stream)
        return error_set(err, ERR_UNSUPPORTED, "echo: not supported with logprobs and stream");
    return OK;
}

/* What one field alone does not show. */
static enum status check_together(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (in->kind == OPENAI_CHAT && !r->messages)
        return openai_mistyped("messages", "an array", NULL, err);
    if (in->kind == OPENAI_COMPLETION && !in->has_prompt)
        return openai_mistyped("prompt", "a string or an array", NULL, err);
    if (in->kind == OPENAI_DETOKENIZE && !in->has_prompt)
        return openai_mistyped("tokens", "an array of token ids", NULL, err);
    if (in->kind == OPENAI_TOKENIZE && in->has_prompt == (r->messages != NULL))
        return error_set(err, ERR_INVALID, "prompt: expected it or messages, found %s",
                         in->has_prompt ? "both" : "neither");
    if (in->has_stream_options && !r->stream)
        return error_set(err, ERR_INVALID, "stream_options: expected only with stream true");
    TRY(openai_check_tools(r, err));
    TRY(check_choices(in, err));
    TRY(check_lengths(in, err));
    TRY(check_logprobs(in, err));
    return add_thinking(in, err);
}

static enum status read_body(struct reading *in, struct error *err)
{
    const char *name;
    json_t *v;
    if (!json_is_object(in->r->root))
        return error_set(err, ERR_INVALID, "body: expected a JSON object, found %s",
                         json_type_words(in->r->root));
    json_object_foreach(in->r->root, name, v)
    {
        TRY(read_one(in, name, v, err));
    }
    return check_together(in, err);
}

enum status openai_request_read(enum openai_kind kind, json_t *root,
                                const struct generation_config *defaults,
                                struct openai_request *out, struct error *err)
{
    *out = (struct openai_request){
        .root = root,
        .n = 1,
        .parallel_tool_calls = true,
        .sampling = {.temperature = defaults->temperature,
                     .top_p = defaults->top_p,
                     .min_p = defaults->min_p,
                     .top_k = defaults->top_k},
        .shaping = {.repetition_penalty = defaults->repetition_penalty},
    };
    struct reading in = {
        .r = out, .kind = kind, .max_tokens = -1, .max_completion_tokens = -1, .top_logprobs = -1};
    enum status st = read_body(&in, err);
    if (st != OK)
        openai_request_fini(out);
    return st;
}

enum status openai_body_parse(const char *body, size_t len, json_t **root, struct error *err)
{
    if (len == 0)
        return error_set(err, ERR_INVALID, "body: expected a JSON object, found nothing");
    return json_parse("body", body, len, root, err);
}

enum status openai_request_parse(enum openai_kind kind, const char *body, size_t len,
                                 const struct generation_config *defaults,
                                 struct openai_request *out, struct error *err)
{
    json_t *root = NULL;
    *out = (struct openai_request){0};
    TRY(openai_body_parse(body, len, &root, err));
    return openai_request_read(kind, root, defaults, out, err);
}

void openai_request_fini(struct openai_request *r)
{
    for (int32_t i = 0; i < r->prompt_count; i++)
        free(r->prompts[i].ids);
    free(r->prompts);
    free(r->bias);
    free(r->stop_ids);
    json_decref(r->kwargs);
    json_decref(r->root);
    *r = (struct openai_request){0};
}

void openai_error_param(const char *msg, char out[OPENAI_PARAM_BYTES])
{
    static const char unknown[] = "unknown field \"";
    const char *end;
    out[0] = '\0';
    if (strncmp(msg, unknown, sizeof unknown - 1) == 0) {
        msg += sizeof unknown - 1;
        end = strrchr(msg, '"');
    } else {
        end = msg;
        while (isalnum((unsigned char)*end) || (*end && strchr("_.[]", *end)))
            end++;
        if (*end != ':' || strncmp(msg, "body:", 5) == 0)
            return;
    }
    if (end && end > msg && end - msg < OPENAI_PARAM_BYTES) {
        memcpy(out, msg, (size_t)(end - msg));
        out[end - msg] = '\0';
    }
}
