/* Parsing the bodies of OpenAI requests: see openai_request.h. No state: one table of fields, each
 * with the function that reads it. */
#include "coordinator/openai_request.h"
#include "base/check.h"
#include "coordinator/openai_fields.h"
#include "partition/shown.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What must be looked at again when all fields are read. */
struct reading {
    struct openai_request *r;
    enum openai_kind kind;
    int32_t max_completion_tokens; /* 0: absent */
    int32_t best_of;               /* 0: absent */
    bool has_stream_options;
    bool has_prompt;
    json_t *thinking; /* enable_thinking at the top */
};

typedef enum status read_field(struct reading *in, const char *name, json_t *v, struct error *err);

static enum status mistyped(const char *path, const char *expected, const json_t *found,
                            struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found %s", path, expected,
                     json_type_words(found));
}

/* --- values ------------------------------------------------------------------------------------
 */

static enum status read_int(const char *path, const json_t *v, int64_t min, int64_t max,
                            int64_t *out, struct error *err)
{
    if (!json_is_integer(v))
        return mistyped(path, "an integer", v, err);
    *out = json_integer_value(v);
    if (*out < min || *out > max)
        return error_set(err, ERR_INVALID, "%s: expected %lld to %lld, found %lld", path,
                         (long long)min, (long long)max, (long long)*out);
    return OK;
}

static enum status read_int32(const char *path, const json_t *v, int32_t min, int32_t *out,
                              struct error *err)
{
    int64_t x = 0;
    TRY(read_int(path, v, min, INT32_MAX, &x, err));
    *out = (int32_t)x;
    return OK;
}

static enum status read_bool(const char *path, const json_t *v, bool *out, struct error *err)
{
    if (!json_is_boolean(v))
        return mistyped(path, "true or false", v, err);
    *out = json_is_true(v);
    return OK;
}

/* A number as the sampler holds it, so that bounds are checked on the value that it uses. */
static enum status read_float(const char *path, const json_t *v, float *out, struct error *err)
{
    if (!json_is_number(v))
        return mistyped(path, "a number", v, err);
    *out = (float)json_number_value(v);
    return OK;
}

static enum status out_of_bounds(const char *path, const char *bounds, const json_t *v,
                                 struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found %g", path, bounds,
                     json_number_value(v));
}

/* --- fields ------------------------------------------------------------------------------------
 */

static enum status read_model(struct reading *in, const char *name, json_t *v, struct error *err)
{
    if (!json_is_string(v))
        return mistyped(name, "a string", v, err);
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
    return read_bool(name, v, &in->r->stream, err);
}

static enum status read_stream_options(struct reading *in, const char *name, json_t *v,
                                       struct error *err)
{
    const char *key;
    json_t *option;
    if (!json_is_object(v))
        return mistyped(name, "an object", v, err);
    in->has_stream_options = true;
    json_object_foreach(v, key, option)
    {
        if (strcmp(key, "include_usage") == 0) {
            if (!json_is_null(option))
                TRY(read_bool("stream_options.include_usage", option, &in->r->include_usage, err));
        } else if (strcmp(key, "include_obfuscation") != 0 &&
                   strcmp(key, "continuous_usage_stats") != 0) {
            return error_set(err, ERR_INVALID, "unknown field \"stream_options.%s\"", shown(key).s);
        } else if (!json_is_false(option) && !json_is_null(option)) {
            return error_set(err, ERR_UNSUPPORTED,
                             "stream_options.%s: not supported (only false is)", key);
        }
    }
    return OK;
}

static enum status read_n(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int64_t n = 0;
    TRY(read_int(name, v, 1, OPENAI_MAX_N, &n, err));
    in->r->n = (int32_t)n;
    return OK;
}

static enum status read_best_of(struct reading *in, const char *name, json_t *v, struct error *err)
{
    return read_int32(name, v, 1, &in->best_of, err);
}

static enum status read_max_tokens(struct reading *in, const char *name, json_t *v,
                                   struct error *err)
{
    return read_int32(name, v, 1, &in->r->max_tokens, err);
}

static enum status read_max_completion_tokens(struct reading *in, const char *name, json_t *v,
                                              struct error *err)
{
    return read_int32(name, v, 1, &in->max_completion_tokens, err);
}

static enum status read_temperature(struct reading *in, const char *name, json_t *v,
                                    struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x == 0.0f || (x >= 0.001f && x <= 1000.0f)))
        return out_of_bounds(name, "0 or 0.001 to 1000", v, err);
    in->r->sampling.temperature = fabsf(x); /* -0 is 0 */
    return OK;
}

static enum status read_top_p(struct reading *in, const char *name, json_t *v, struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x > 0.0f && x <= 1.0f))
        return out_of_bounds(name, "above 0, at most 1", v, err);
    in->r->sampling.top_p = x;
    return OK;
}

static enum status read_min_p(struct reading *in, const char *name, json_t *v, struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x >= 0.0f && x <= 1.0f))
        return out_of_bounds(name, "0 to 1", v, err);
    in->r->sampling.min_p = fabsf(x);
    return OK;
}

/* -1 is what other servers take for off. */
static enum status read_top_k(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int32_t x;
    TRY(read_int32(name, v, -1, &x, err));
    in->r->sampling.top_k = x > 0 ? x : 0;
    return OK;
}

static enum status read_seed(struct reading *in, const char *name, json_t *v, struct error *err)
{
    int64_t x = 0;
    TRY(read_int(name, v, INT64_MIN, INT64_MAX, &x, err));
    in->r->sampling.seed = (uint64_t)x;
    in->r->has_seed = true;
    return OK;
}

static enum status read_ignore_eos(struct reading *in, const char *name, json_t *v,
                                   struct error *err)
{
    return read_bool(name, v, &in->r->ignore_eos, err);
}

static enum status add_stop(struct openai_request *r, const char *path, const json_t *v,
                            struct error *err)
{
    if (!json_is_string(v))
        return mistyped(path, "a string", v, err);
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
        return mistyped(name, "a string or an array of strings", v, err);
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
        return mistyped(name, "an object", v, err);
    in->r->kwargs = json_copy(v);
    return in->r->kwargs ? OK : error_set(err, ERR_NO_MEMORY, "%s: no memory", name);
}

static enum status read_thinking(struct reading *in, const char *name, json_t *v, struct error *err)
{
    bool ignored;
    in->thinking = v;
    return read_bool(name, v, &ignored, err);
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
        return mistyped(path, r->prompt_ids ? "an array of token ids" : "a string", v, err);
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
        return mistyped(name, in->kind == OPENAI_TOKENIZE ? "a string" : "a string or an array", v,
                        err);
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
        return mistyped(name, "an array of token ids", v, err);
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
    {"temperature", BOTH, read_temperature},
    {"top_p", BOTH, read_top_p},
    {"top_k", BOTH, read_top_k},
    {"min_p", BOTH, read_min_p},
    {"seed", BOTH, read_seed},
    {"ignore_eos", BOTH, read_ignore_eos},
    {"chat_template_kwargs", CHAT | TOKENIZE, read_kwargs},
    {"enable_thinking", CHAT | TOKENIZE, read_thinking},
};

static enum status read_one(struct reading *in, const char *name, json_t *v, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if ((fields[i].kinds & (1u << in->kind)) && strcmp(fields[i].name, name) == 0)
            return json_is_null(v) ? OK : fields[i].read(in, name, v, err);
    enum status st = openai_neutral_field(in->kind, name, v, err);
    if (st == ERR_NOT_FOUND)
        return error_set(err, ERR_INVALID, "unknown field \"%s\"", shown(name).s);
    return st;
}

static enum status add_thinking(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (!in->thinking)
        return OK;
    if (!r->kwargs)
        r->kwargs = json_object();
    if (!r->kwargs || json_object_set(r->kwargs, "enable_thinking", in->thinking) != 0)
        return error_set(err, ERR_NO_MEMORY, "enable_thinking: no memory");
    return OK;
}

/* What one field alone does not show. */
static enum status check_together(struct reading *in, struct error *err)
{
    struct openai_request *r = in->r;
    if (in->kind == OPENAI_CHAT && !r->messages)
        return mistyped("messages", "an array", NULL, err);
    if (in->kind == OPENAI_COMPLETION && !in->has_prompt)
        return mistyped("prompt", "a string or an array", NULL, err);
    if (in->kind == OPENAI_DETOKENIZE && !in->has_prompt)
        return mistyped("tokens", "an array of token ids", NULL, err);
    if (in->kind == OPENAI_TOKENIZE && in->has_prompt == (r->messages != NULL))
        return error_set(err, ERR_INVALID, "prompt: expected it or messages, found %s",
                         in->has_prompt ? "both" : "neither");
    if (in->has_stream_options && !r->stream)
        return error_set(err, ERR_INVALID, "stream_options: expected only with stream true");
    if (in->best_of > r->n)
        return error_set(err, ERR_UNSUPPORTED, "best_of: not supported (only up to n is)");
    if (r->prompt_count * r->n > OPENAI_MAX_CHOICES)
        return error_set(err, ERR_INVALID, "n: expected at most %d answers in all, found %d",
                         (int)OPENAI_MAX_CHOICES, r->prompt_count * r->n);
    if (in->max_completion_tokens > 0)
        r->max_tokens = in->max_completion_tokens;
    if (in->kind == OPENAI_COMPLETION && r->max_tokens == 0)
        r->max_tokens = OPENAI_DEFAULT_COMPLETION_TOKENS;
    return add_thinking(in, err);
}

static enum status read_body(struct reading *in, const char *body, size_t len, struct error *err)
{
    const char *name;
    json_t *v;
    if (len == 0)
        return error_set(err, ERR_INVALID, "body: expected a JSON object, found nothing");
    TRY(json_parse("body", body, len, &in->r->root, err));
    if (!json_is_object(in->r->root))
        return error_set(err, ERR_INVALID, "body: expected a JSON object, found %s",
                         json_type_words(in->r->root));
    json_object_foreach(in->r->root, name, v)
    {
        TRY(read_one(in, name, v, err));
    }
    return check_together(in, err);
}

enum status openai_request_parse(enum openai_kind kind, const char *body, size_t len,
                                 const struct generation_config *defaults,
                                 struct openai_request *out, struct error *err)
{
    *out = (struct openai_request){
        .n = 1,
        .sampling = {.temperature = defaults->temperature,
                     .top_p = defaults->top_p,
                     .min_p = defaults->min_p,
                     .top_k = defaults->top_k},
    };
    struct reading in = {.r = out, .kind = kind};
    enum status st = read_body(&in, body, len, err);
    if (st != OK)
        openai_request_fini(out);
    return st;
}

void openai_request_fini(struct openai_request *r)
{
    for (int32_t i = 0; i < r->prompt_count; i++)
        free(r->prompts[i].ids);
    free(r->prompts);
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
