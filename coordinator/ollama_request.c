/* Ollama's bodies to chat bodies: see ollama_request.h. No state. */
#include "coordinator/ollama_request.h"
#include "base/check.h"
#include "coordinator/translate.h"
#include "partition/shown.h"

/* --- messages ----------------------------------------------------------------------------------
 */

static enum status add_call(json_t *calls, const json_t *call, const char *path, struct error *err)
{
    const json_t *id, *function, *name, *arguments;
    char at[TRANSLATE_PATH_BYTES];
    TRY(translate_check(path, TRANSLATE_OBJECT, call, err));
    TRY(translate_get(call, path, "id", TRANSLATE_STRING, &id, err));
    TRY(translate_need(call, path, "function", TRANSLATE_OBJECT, &function, err));
    translate_path(at, "%s.function", path);
    TRY(translate_need(function, at, "name", TRANSLATE_STRING, &name, err));
    TRY(translate_arguments(function, at, "arguments", &arguments, err));
    return translate_add(calls, translate_call(id, name, arguments), err);
}

static enum status add_calls(const json_t *message, const char *path, json_t *out,
                             struct error *err)
{
    const json_t *list;
    TRY(translate_get(message, path, "tool_calls", TRANSLATE_ARRAY, &list, err));
    if (json_array_size(list) == 0)
        return OK;
    json_t *calls = json_array();
    TRY(translate_put(out, "tool_calls", calls, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        char at[TRANSLATE_PATH_BYTES];
        translate_path(at, "%s.tool_calls[%zu]", path, i);
        TRY(add_call(calls, json_array_get(list, i), at, err));
    }
    return OK;
}

static enum status add_message(json_t *messages, const json_t *message, size_t i, struct error *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    static const struct translate_field fields[] = {
        {"role", TRANSLATE_STRING, "role"},
        {"content", TRANSLATE_STRING, "content"},
        {"thinking", TRANSLATE_STRING, "reasoning_content"},
        {"tool_call_id", TRANSLATE_STRING, "tool_call_id"},
        {"tool_name", TRANSLATE_STRING, NULL},
        {0},
    };
    char path[TRANSLATE_PATH_BYTES];
    const json_t *role;
    translate_path(path, "messages[%zu]", i);
    TRY(translate_check(path, TRANSLATE_OBJECT, message, err));
    TRY(translate_need(message, path, "role", TRANSLATE_STRING, &role, err));
    bool known = false;
    for (size_t k = 0; k < COUNT_OF(roles); k++)
        known = known || translate_is(role, roles[k]);
    if (!known)
        return error_set(err, ERR_INVALID,
                         "%s.role: expected system, user, assistant or tool, found \"%s\"", path,
                         shown(json_string_value(role)).s);
    TRY(translate_refuse(message, path, "images", err));
    json_t *out = json_object();
    TRY(translate_add(messages, out, err));
    TRY(translate_fields(message, path, fields, out, err));
    return add_calls(message, path, out, err);
}

static enum status add_messages(const json_t *body, json_t *out, struct error *err)
{
    const json_t *list;
    json_t *messages = json_array();
    TRY(translate_put(out, "messages", messages, err));
    TRY(translate_need(body, "", "messages", TRANSLATE_ARRAY, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(add_message(messages, json_array_get(list, i), i, err));
    return OK;
}

/* --- options -----------------------------------------------------------------------------------
 */

/* Other samplers than ours, unless they are off. */
static enum status refuse_samplers(const json_t *options, struct error *err)
{
    static const char *const off_at_one[] = {"typical_p", "tfs_z"};
    TRY(translate_refuse(options, "options", "mirostat", err));
    for (size_t i = 0; i < COUNT_OF(off_at_one); i++) {
        const json_t *v;
        TRY(translate_get(options, "options", off_at_one[i], TRANSLATE_NUMBER, &v, err));
        if (v && json_number_value(v) != 1.0)
            return error_set(err, ERR_UNSUPPORTED, "options.%s: not supported (only 1 is)",
                             off_at_one[i]);
    }
    return OK;
}

static enum status add_stop(const json_t *options, json_t *out, struct error *err)
{
    const json_t *stop = json_object_get(options, "stop");
    if (!stop || json_is_null(stop))
        return OK;
    if (!json_is_string(stop))
        TRY(translate_check("options.stop", TRANSLATE_ARRAY, stop, err));
    return translate_put(out, "stop", json_incref((json_t *)stop), err);
}

/* A length below 0 is none: up to the end or the context. */
static enum status add_options(const json_t *body, json_t *out, struct error *err)
{
    static const struct translate_field fields[] = {
        {"temperature", TRANSLATE_NUMBER, "temperature"},
        {"top_p", TRANSLATE_NUMBER, "top_p"},
        {"top_k", TRANSLATE_INTEGER, "top_k"},
        {"min_p", TRANSLATE_NUMBER, "min_p"},
        {"seed", TRANSLATE_INTEGER, "seed"},
        {"repeat_penalty", TRANSLATE_NUMBER, "repetition_penalty"},
        {"presence_penalty", TRANSLATE_NUMBER, "presence_penalty"},
        {"frequency_penalty", TRANSLATE_NUMBER, "frequency_penalty"},
        {0},
    };
    const json_t *options, *most;
    TRY(translate_get(body, "", "options", TRANSLATE_OBJECT, &options, err));
    if (!options)
        return OK;
    TRY(refuse_samplers(options, err));
    TRY(translate_fields(options, "options", fields, out, err));
    TRY(add_stop(options, out, err));
    TRY(translate_get(options, "options", "num_predict", TRANSLATE_INTEGER, &most, err));
    if (!most || json_integer_value(most) < 0)
        return OK;
    return translate_put(out, "max_tokens", json_incref((json_t *)most), err);
}

/* --- the rest of the body ----------------------------------------------------------------------
 */

/* "json", or a schema. */
static enum status add_format(const json_t *body, json_t *out, struct error *err)
{
    const json_t *format = json_object_get(body, "format");
    if (!format || json_is_null(format) || translate_is(format, ""))
        return OK;
    if (translate_is(format, "json"))
        return translate_put(out, "response_format", json_pack("{s:s}", "type", "json_object"),
                             err);
    if (!json_is_object(format))
        return error_set(err, ERR_INVALID, "format: expected \"json\" or a schema, found %s",
                         json_type_words(format));
    return translate_put(out, "response_format",
                         json_pack("{s:s, s:{s:s, s:O}}", "type", "json_schema", "json_schema",
                                   "name", "format", "schema", format),
                         err);
}

/* true, false, or how much: which is true. */
static enum status add_think(const json_t *body, json_t *out, struct error *err)
{
    const json_t *think = json_object_get(body, "think");
    if (!think || json_is_null(think))
        return OK;
    if (!json_is_boolean(think) && !json_is_string(think))
        return error_set(err, ERR_INVALID, "think: expected true, false or a string, found %s",
                         json_type_words(think));
    return translate_put(out, "enable_thinking", json_boolean(!json_is_false(think)), err);
}

static enum status add_common(const json_t *body, json_t *out, struct error *err)
{
    static const struct translate_field fields[] = {{"model", TRANSLATE_STRING, "model"}, {0}};
    const json_t *stream;
    TRY(translate_refuse(body, "", "logprobs", err));
    TRY(translate_refuse(body, "", "top_logprobs", err));
    TRY(translate_fields(body, "", fields, out, err));
    TRY(translate_get(body, "", "stream", TRANSLATE_BOOL, &stream, err));
    TRY(translate_put(out, "stream", json_boolean(!json_is_false(stream)), err));
    TRY(add_options(body, out, err));
    return add_format(body, out, err);
}

static enum status translate_chat(const json_t *body, enum openai_kind *kind, json_t *out,
                                  struct error *err)
{
    const json_t *tools;
    (void)kind;
    TRY(add_common(body, out, err));
    TRY(add_think(body, out, err));
    TRY(translate_get(body, "", "tools", TRANSLATE_ARRAY, &tools, err));
    if (json_array_size(tools) > 0) /* OpenAI's form */
        TRY(translate_put(out, "tools", json_incref((json_t *)tools), err));
    return add_messages(body, out, err);
}

static enum status translate_generate(const json_t *body, enum openai_kind *kind, json_t *out,
                                      struct error *err)
{
    static const char *const refused[] = {"template", "context", "suffix", "images"};
    const json_t *raw, *prompt, *system;
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        TRY(translate_refuse(body, "", refused[i], err));
    TRY(translate_need(body, "", "prompt", TRANSLATE_STRING, &prompt, err));
    TRY(translate_get(body, "", "system", TRANSLATE_STRING, &system, err));
    TRY(translate_get(body, "", "raw", TRANSLATE_BOOL, &raw, err));
    TRY(add_common(body, out, err));
    if (json_is_true(raw)) {
        *kind = OPENAI_COMPLETION;
        return translate_put(out, "prompt", json_incref((json_t *)prompt), err);
    }
    TRY(add_think(body, out, err));
    json_t *messages = json_array();
    TRY(translate_put(out, "messages", messages, err));
    if (json_string_length(system) > 0)
        TRY(translate_add(messages, json_pack("{s:s, s:O}", "role", "system", "content", system),
                          err));
    return translate_add(messages, json_pack("{s:s, s:O}", "role", "user", "content", prompt), err);
}

static enum status translate(const json_t *body, enum openai_kind *kind, json_t **out,
                             enum status (*fill)(const json_t *body, enum openai_kind *kind,
                                                 json_t *out, struct error *err),
                             struct error *err)
{
    *out = json_object();
    enum status st = *out ? fill(body, kind, *out, err)
                          : error_set(err, ERR_NO_MEMORY, "body: no memory");
    if (st == OK)
        return OK;
    json_decref(*out);
    *out = NULL;
    return st;
}

enum status ollama_translate_chat(const json_t *body, enum openai_kind *kind, json_t **out,
                                  struct error *err)
{
    return translate(body, kind, out, translate_chat, err);
}

enum status ollama_translate_generate(const json_t *body, enum openai_kind *kind, json_t **out,
                                      struct error *err)
{
    return translate(body, kind, out, translate_generate, err);
}

bool ollama_only_loads(const json_t *body)
{
    const json_t *messages = json_object_get(body, "messages");
    const json_t *prompt = json_object_get(body, "prompt");
    bool says = messages && !json_is_null(messages) &&
                !(json_is_array(messages) && json_array_size(messages) == 0);
    return json_is_object(body) && !says &&
           (!prompt || json_is_null(prompt) || translate_is(prompt, ""));
}
