/* Bodies of the Responses API to chat bodies: see responses_request.h. No state. */
#include "coordinator/responses_request.h"
#include "base/check.h"
#include "coordinator/translate.h"
#include "partition/shown.h"

/* --- text --------------------------------------------------------------------------------------
 */

static enum status add_part(const json_t *part, const char *path, json_t *parts, struct error *err)
{
    TRY(translate_check(path, TRANSLATE_OBJECT, part, err));
    const json_t *type = json_object_get(part, "type"), *text;
    bool refusal = translate_is(type, "refusal");
    if (!refusal && !translate_is(type, "input_text") && !translate_is(type, "output_text"))
        return translate_bad_type(path, type, "input_text and output_text are", err);
    TRY(translate_need(part, path, refusal ? "refusal" : "text", TRANSLATE_STRING, &text, err));
    return translate_add(parts, translate_part(text), err);
}

/* A string, or an array of parts: to `parts`. */
static enum status add_texts(const json_t *v, const char *path, json_t *parts, struct error *err)
{
    if (json_is_string(v))
        return translate_add(parts, translate_part(v), err);
    if (!json_is_array(v))
        return error_set(err, ERR_INVALID, "%s: expected a string or an array of parts, found %s",
                         path, json_type_words(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        char at[TRANSLATE_PATH_BYTES];
        translate_path(at, "%s[%zu]", path, i);
        TRY(add_part(json_array_get(v, i), at, parts, err));
    }
    return OK;
}

/* --- items -------------------------------------------------------------------------------------
 */

static enum status add_message(struct translate_turn *t, const json_t *item, const char *path,
                               struct error *err)
{
    const json_t *role;
    char at[TRANSLATE_PATH_BYTES];
    TRY(translate_need(item, path, "role", TRANSLATE_STRING, &role, err));
    translate_path(at, "%s.content", path);
    if (translate_is(role, "assistant")) {
        if (json_array_size(t->parts) > 0)
            TRY(translate_end_turn(t, err));
        return add_texts(json_object_get(item, "content"), at, t->parts, err);
    }
    if (!translate_is(role, "user") && !translate_is(role, "system") &&
        !translate_is(role, "developer"))
        return error_set(err, ERR_INVALID,
                         "%s.role: expected user, assistant, system or developer, found \"%s\"",
                         path, shown(json_string_value(role)).s);
    TRY(translate_end_turn(t, err));
    json_t *parts = json_array();
    TRY(translate_add(t->messages, json_pack("{s:O, s:o}", "role", role, "content", parts), err));
    return add_texts(json_object_get(item, "content"), at, parts, err);
}

static enum status add_call(struct translate_turn *t, const json_t *item, const char *path,
                            struct error *err)
{
    const json_t *id, *name, *arguments;
    TRY(translate_need(item, path, "call_id", TRANSLATE_STRING, &id, err));
    TRY(translate_need(item, path, "name", TRANSLATE_STRING, &name, err));
    TRY(translate_need(item, path, "arguments", TRANSLATE_STRING, &arguments, err));
    return translate_add(t->calls, translate_call(id, name, arguments), err);
}

static enum status add_output(struct translate_turn *t, const json_t *item, const char *path,
                              struct error *err)
{
    const json_t *id;
    char at[TRANSLATE_PATH_BYTES];
    TRY(translate_need(item, path, "call_id", TRANSLATE_STRING, &id, err));
    TRY(translate_end_turn(t, err));
    json_t *parts = json_array();
    TRY(translate_add(
        t->messages,
        json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", parts), err));
    translate_path(at, "%s.output", path);
    return add_texts(json_object_get(item, "output"), at, parts, err);
}

/* The texts of one of a reasoning item's lists. *found: there were some. */
static enum status add_thoughts(struct translate_turn *t, const json_t *item, const char *path,
                                const char *key, bool *found, struct error *err)
{
    const json_t *list, *text;
    TRY(translate_get(item, path, key, TRANSLATE_ARRAY, &list, err));
    for (size_t i = 0; i < json_array_size(list); i++) {
        char at[TRANSLATE_PATH_BYTES];
        translate_path(at, "%s.%s[%zu]", path, key, i);
        TRY(translate_check(at, TRANSLATE_OBJECT, json_array_get(list, i), err));
        TRY(translate_need(json_array_get(list, i), at, "text", TRANSLATE_STRING, &text, err));
        TRY(translate_think(t, text, err));
        *found = true;
    }
    return OK;
}

/* The thought itself where there is one, else what was told of it. */
static enum status add_reasoning(struct translate_turn *t, const json_t *item, const char *path,
                                 struct error *err)
{
    bool found = false;
    if (json_array_size(t->parts) > 0 || json_array_size(t->calls) > 0)
        TRY(translate_end_turn(t, err));
    TRY(add_thoughts(t, item, path, "content", &found, err));
    return found ? OK : add_thoughts(t, item, path, "summary", &found, err);
}

static enum status add_item(struct translate_turn *t, const json_t *item, size_t i,
                            struct error *err)
{
    const json_t *type;
    char path[TRANSLATE_PATH_BYTES];
    translate_path(path, "input[%zu]", i);
    TRY(translate_check(path, TRANSLATE_OBJECT, item, err));
    TRY(translate_get(item, path, "type", TRANSLATE_STRING, &type, err));
    if (!type || translate_is(type, "message"))
        return add_message(t, item, path, err);
    if (translate_is(type, "function_call"))
        return add_call(t, item, path, err);
    if (translate_is(type, "function_call_output"))
        return add_output(t, item, path, err);
    if (translate_is(type, "reasoning"))
        return add_reasoning(t, item, path, err);
    return translate_bad_type(
        path, type, "message, reasoning, function_call and function_call_output are", err);
}

static enum status add_items(const json_t *input, json_t *messages, struct error *err)
{
    struct translate_turn t;
    enum status st = OK;
    size_t count = json_array_size(input);
    if (count < 1 || count > OPENAI_MAX_MESSAGES)
        return error_set(err, ERR_INVALID, "input: expected 1 to %d items, found %zu",
                         (int)OPENAI_MAX_MESSAGES, count);
    translate_turn_init(&t, messages, true);
    for (size_t i = 0; i < count && st == OK; i++)
        st = add_item(&t, json_array_get(input, i), i, err);
    if (st == OK)
        st = translate_end_turn(&t, err);
    translate_turn_fini(&t);
    return st;
}

static enum status add_input(const json_t *body, json_t *out, struct error *err)
{
    const json_t *instructions, *input = json_object_get(body, "input");
    json_t *messages = json_array();
    TRY(translate_put(out, "messages", messages, err));
    TRY(translate_get(body, "", "instructions", TRANSLATE_STRING, &instructions, err));
    if (instructions)
        TRY(translate_add(messages,
                          json_pack("{s:s, s:O}", "role", "system", "content", instructions), err));
    if (json_is_array(input))
        return add_items(input, messages, err);
    if (!json_is_string(input))
        return error_set(err, ERR_INVALID, "input: expected a string or an array, found %s",
                         json_type_words(input));
    return translate_add(messages, json_pack("{s:s, s:O}", "role", "user", "content", input), err);
}

/* --- tools -------------------------------------------------------------------------------------
 */

static enum status add_tool(json_t *tools, const json_t *tool, size_t i, struct error *err)
{
    const json_t *name, *description, *parameters, *strict;
    char path[TRANSLATE_PATH_BYTES];
    translate_path(path, "tools[%zu]", i);
    TRY(translate_check(path, TRANSLATE_OBJECT, tool, err));
    if (!translate_is(json_object_get(tool, "type"), "function"))
        return translate_bad_type(path, json_object_get(tool, "type"), "function is", err);
    TRY(translate_need(tool, path, "name", TRANSLATE_STRING, &name, err));
    TRY(translate_get(tool, path, "description", TRANSLATE_STRING, &description, err));
    TRY(translate_get(tool, path, "parameters", TRANSLATE_OBJECT, &parameters, err));
    TRY(translate_get(tool, path, "strict", TRANSLATE_BOOL, &strict, err));
    return translate_add(tools, translate_tool(name, description, parameters), err);
}

/* "auto" without tools is what clients send anyway. */
static enum status add_choice(const json_t *body, json_t *out, struct error *err)
{
    const json_t *choice = json_object_get(body, "tool_choice"), *name;
    if (!choice || json_is_null(choice) ||
        (translate_is(choice, "auto") && !json_object_get(out, "tools")))
        return OK;
    if (json_is_string(choice))
        return translate_put(out, "tool_choice", json_incref((json_t *)choice), err);
    TRY(translate_check("tool_choice", TRANSLATE_OBJECT, choice, err));
    if (!translate_is(json_object_get(choice, "type"), "function"))
        return translate_bad_type("tool_choice", json_object_get(choice, "type"), "function is",
                                  err);
    TRY(translate_need(choice, "tool_choice", "name", TRANSLATE_STRING, &name, err));
    return translate_put(out, "tool_choice",
                         json_pack("{s:s, s:{s:O}}", "type", "function", "function", "name", name),
                         err);
}

/* --- the rest of the body ----------------------------------------------------------------------
 */

/* text.format has the schema's fields beside its type, chat's response_format in an object. */
static enum status add_format(const json_t *body, json_t *out, struct error *err)
{
    const json_t *text, *format, *verbosity, *type;
    TRY(translate_get(body, "", "text", TRANSLATE_OBJECT, &text, err));
    if (!text)
        return OK;
    TRY(translate_get(text, "text", "verbosity", TRANSLATE_STRING, &verbosity, err));
    if (verbosity && !translate_is(verbosity, "medium"))
        return error_set(err, ERR_UNSUPPORTED, "text.verbosity: not supported (only medium is)");
    TRY(translate_get(text, "text", "format", TRANSLATE_OBJECT, &format, err));
    if (!format)
        return OK;
    TRY(translate_need(format, "text.format", "type", TRANSLATE_STRING, &type, err));
    if (translate_is(type, "text"))
        return OK;
    if (translate_is(type, "json_schema"))
        return translate_put(out, "response_format",
                             json_pack("{s:O, s:O}", "type", type, "json_schema", format), err);
    return translate_put(out, "response_format", json_pack("{s:O}", "type", type), err);
}

static enum status add_effort(const json_t *body, json_t *out, struct error *err)
{
    static const struct translate_field fields[] = {
        {"effort", TRANSLATE_STRING, "reasoning_effort"}, {0}};
    const json_t *reasoning;
    TRY(translate_get(body, "", "reasoning", TRANSLATE_OBJECT, &reasoning, err));
    return reasoning ? translate_fields(reasoning, "reasoning", fields, out, err) : OK;
}

/* Only the lists of logprobs would be anything here. */
static enum status check_include(const json_t *body, struct error *err)
{
    const json_t *include;
    TRY(translate_get(body, "", "include", TRANSLATE_ARRAY, &include, err));
    for (size_t i = 0; i < json_array_size(include); i++) {
        char path[TRANSLATE_PATH_BYTES];
        translate_path(path, "include[%zu]", i);
        TRY(translate_check(path, TRANSLATE_STRING, json_array_get(include, i), err));
        if (translate_is(json_array_get(include, i), "message.output_text.logprobs"))
            return error_set(err, ERR_UNSUPPORTED, "%s: logprobs are not supported here", path);
    }
    return OK;
}

static enum status refuse_others(const json_t *body, struct error *err)
{
    static const char *const names[] = {"previous_response_id", "conversation", "background",
                                        "prompt"};
    const json_t *top, *truncation;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        TRY(translate_refuse(body, "", names[i], err));
    TRY(translate_get(body, "", "top_logprobs", TRANSLATE_INTEGER, &top, err));
    if (json_integer_value(top) != 0)
        return error_set(err, ERR_UNSUPPORTED, "top_logprobs: not supported (only 0 is)");
    TRY(translate_get(body, "", "truncation", TRANSLATE_STRING, &truncation, err));
    if (truncation && !translate_is(truncation, "disabled"))
        return error_set(err, ERR_UNSUPPORTED, "truncation: not supported (only disabled is)");
    return check_include(body, err);
}

static enum status translate(const json_t *body, json_t *out, struct error *err)
{
    static const struct translate_field fields[] = {
        {"model", TRANSLATE_STRING, "model"},
        {"stream", TRANSLATE_BOOL, "stream"},
        {"max_output_tokens", TRANSLATE_INTEGER, "max_tokens"},
        {"temperature", TRANSLATE_NUMBER, "temperature"},
        {"top_p", TRANSLATE_NUMBER, "top_p"},
        {"seed", TRANSLATE_INTEGER, "seed"},                       /* ours: the API has none */
        {"thinking_budget", TRANSLATE_INTEGER, "thinking_budget"}, /* likewise */
        {"parallel_tool_calls", TRANSLATE_BOOL, "parallel_tool_calls"},
        {"store", TRANSLATE_BOOL, NULL},
        {"metadata", TRANSLATE_OBJECT, NULL},
        {"max_tool_calls", TRANSLATE_INTEGER, NULL}, /* of tools that servers run */
        {0},
    };
    TRY(refuse_others(body, err));
    TRY(translate_fields(body, "", fields, out, err));
    TRY(translate_tools(body, add_tool, out, err));
    TRY(add_choice(body, out, err));
    TRY(add_format(body, out, err));
    TRY(add_effort(body, out, err));
    return add_input(body, out, err);
}

enum status responses_translate(const json_t *body, enum openai_kind *kind, json_t **out,
                                struct error *err)
{
    (void)kind;
    *out = json_object();
    enum status st = *out ? translate(body, *out, err)
                          : error_set(err, ERR_NO_MEMORY, "body: no memory");
    if (st == OK)
        return OK;
    json_decref(*out);
    *out = NULL;
    return st;
}
