/* Anthropic's bodies to chat bodies: see anthropic_request.h. No state. */
#include "coordinator/anthropic_request.h"
#include "base/check.h"
#include "coordinator/translate.h"
#include "partition/shown.h"

/* --- text --------------------------------------------------------------------------------------
 */

/* Adds a text block's text to `parts`. */
static enum status add_text(const json_t *block, const char *path, json_t *parts, struct error *err)
{
    const json_t *text;
    TRY(translate_need(block, path, "text", TRANSLATE_STRING, &text, err));
    return translate_add(parts, translate_part(text), err);
}

/* A string, or an array of text blocks: to `parts`. */
static enum status add_texts(const json_t *v, const char *path, json_t *parts, struct error *err)
{
    if (json_is_string(v))
        return translate_add(parts, translate_part(v), err);
    if (!json_is_array(v))
        return error_set(err, ERR_INVALID, "%s: expected a string or an array of blocks, found %s",
                         path, json_type_words(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *block = json_array_get(v, i);
        char at[TRANSLATE_PATH_BYTES];
        translate_path(at, "%s[%zu]", path, i);
        TRY(translate_check(at, TRANSLATE_OBJECT, block, err));
        if (!translate_is(json_object_get(block, "type"), "text"))
            return translate_bad_type(at, json_object_get(block, "type"), "text is", err);
        TRY(add_text(block, at, parts, err));
    }
    return OK;
}

/* --- messages ----------------------------------------------------------------------------------
 */

static enum status add_thinking(struct translate_turn *t, const json_t *block, const char *path,
                                struct error *err)
{
    const json_t *text;
    TRY(translate_need(block, path, "thinking", TRANSLATE_STRING, &text, err));
    return translate_think(t, text, err);
}

static enum status add_use(struct translate_turn *t, const json_t *block, const char *path,
                           struct error *err)
{
    const json_t *id, *name, *input;
    TRY(translate_need(block, path, "id", TRANSLATE_STRING, &id, err));
    TRY(translate_need(block, path, "name", TRANSLATE_STRING, &name, err));
    TRY(translate_arguments(block, path, "input", &input, err));
    return translate_add(t->calls, translate_call(id, name, input), err);
}

/* A message of its own. The model is told of an error in words: templates have no other place. */
static enum status add_result(struct translate_turn *t, const json_t *block, const char *path,
                              struct error *err)
{
    const json_t *id, *is_error, *content = json_object_get(block, "content");
    char at[TRANSLATE_PATH_BYTES];
    TRY(translate_need(block, path, "tool_use_id", TRANSLATE_STRING, &id, err));
    TRY(translate_get(block, path, "is_error", TRANSLATE_BOOL, &is_error, err));
    TRY(translate_end_turn(t, err));
    json_t *parts = json_array();
    TRY(translate_add(
        t->messages,
        json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", parts), err));
    if (json_is_true(is_error))
        TRY(translate_add(parts, json_pack("{s:s, s:s}", "type", "text", "text", "Error: "), err));
    translate_path(at, "%s.content", path);
    return content && !json_is_null(content) ? add_texts(content, at, parts, err) : OK;
}

static enum status add_block(struct translate_turn *t, const json_t *block, const char *path,
                             struct error *err)
{
    TRY(translate_check(path, TRANSLATE_OBJECT, block, err));
    const json_t *type = json_object_get(block, "type");
    if (translate_is(type, "text"))
        return add_text(block, path, t->parts, err);
    if (!t->assistant && translate_is(type, "tool_result"))
        return add_result(t, block, path, err);
    if (t->assistant && translate_is(type, "thinking"))
        return add_thinking(t, block, path, err);
    if (t->assistant && translate_is(type, "tool_use"))
        return add_use(t, block, path, err);
    if (t->assistant && translate_is(type, "redacted_thinking"))
        return OK; /* not ours, and nobody's to read */
    return translate_bad_type(
        path, type, t->assistant ? "text, thinking and tool_use are" : "text and tool_result are",
        err);
}

static enum status add_content(struct translate_turn *t, const json_t *content, const char *path,
                               struct error *err)
{
    if (!json_is_array(content))
        return add_texts(content, path, t->parts, err);
    for (size_t i = 0; i < json_array_size(content); i++) {
        char at[TRANSLATE_PATH_BYTES];
        translate_path(at, "%s[%zu]", path, i);
        TRY(add_block(t, json_array_get(content, i), at, err));
    }
    return OK;
}

static enum status add_message(json_t *messages, const json_t *message, size_t i, struct error *err)
{
    const json_t *role;
    char path[TRANSLATE_PATH_BYTES];
    translate_path(path, "messages[%zu]", i);
    TRY(translate_check(path, TRANSLATE_OBJECT, message, err));
    TRY(translate_need(message, path, "role", TRANSLATE_STRING, &role, err));
    if (!translate_is(role, "user") && !translate_is(role, "assistant"))
        return error_set(err, ERR_INVALID, "%s.role: expected user or assistant, found \"%s\"",
                         path, shown(json_string_value(role)).s);
    struct translate_turn t;
    translate_turn_init(&t, messages, translate_is(role, "assistant"));
    translate_path(path, "messages[%zu].content", i);
    enum status st = add_content(&t, json_object_get(message, "content"), path, err);
    if (st == OK)
        st = translate_end_turn(&t, err);
    translate_turn_fini(&t);
    return st;
}

static enum status add_system(const json_t *body, json_t *messages, struct error *err)
{
    const json_t *system = json_object_get(body, "system");
    if (!system || json_is_null(system))
        return OK;
    json_t *parts = json_array();
    TRY(translate_add(messages, json_pack("{s:s, s:o}", "role", "system", "content", parts), err));
    return add_texts(system, "system", parts, err);
}

static enum status add_messages(const json_t *body, json_t *out, struct error *err)
{
    const json_t *list;
    json_t *messages = json_array();
    TRY(translate_put(out, "messages", messages, err));
    TRY(add_system(body, messages, err));
    TRY(translate_need(body, "", "messages", TRANSLATE_ARRAY, &list, err));
    size_t count = json_array_size(list);
    if (count < 1 || count > OPENAI_MAX_MESSAGES)
        return error_set(err, ERR_INVALID, "messages: expected 1 to %d, found %zu",
                         (int)OPENAI_MAX_MESSAGES, count);
    for (size_t i = 0; i < count; i++)
        TRY(add_message(messages, json_array_get(list, i), i, err));
    const json_t *last = json_array_get(list, count - 1);
    if (!translate_is(json_object_get(last, "role"), "assistant"))
        return OK;
    return error_set(err, ERR_UNSUPPORTED,
                     "messages[%zu].role: an answer that is begun already is not supported (end "
                     "with a message of the user)",
                     count - 1);
}

/* --- tools -------------------------------------------------------------------------------------
 */

static enum status add_tool(json_t *tools, const json_t *tool, size_t i, struct error *err)
{
    const json_t *type, *name, *description, *schema;
    char path[TRANSLATE_PATH_BYTES];
    translate_path(path, "tools[%zu]", i);
    TRY(translate_check(path, TRANSLATE_OBJECT, tool, err));
    TRY(translate_get(tool, path, "type", TRANSLATE_STRING, &type, err));
    if (type && !translate_is(type, "custom"))
        return translate_bad_type(path, type, "custom is", err);
    TRY(translate_need(tool, path, "name", TRANSLATE_STRING, &name, err));
    TRY(translate_get(tool, path, "description", TRANSLATE_STRING, &description, err));
    TRY(translate_need(tool, path, "input_schema", TRANSLATE_OBJECT, &schema, err));
    return translate_add(tools, translate_tool(name, description, schema), err);
}

static enum status add_choice(const json_t *body, json_t *out, struct error *err)
{
    const json_t *choice, *type, *alone, *name;
    TRY(translate_get(body, "", "tool_choice", TRANSLATE_OBJECT, &choice, err));
    if (!choice)
        return OK;
    TRY(translate_need(choice, "tool_choice", "type", TRANSLATE_STRING, &type, err));
    TRY(translate_get(choice, "tool_choice", "disable_parallel_tool_use", TRANSLATE_BOOL, &alone,
                      err));
    if (json_is_true(alone))
        TRY(translate_put(out, "parallel_tool_calls", json_false(), err));
    if (translate_is(type, "tool")) {
        TRY(translate_need(choice, "tool_choice", "name", TRANSLATE_STRING, &name, err));
        return translate_put(
            out, "tool_choice",
            json_pack("{s:s, s:{s:O}}", "type", "function", "function", "name", name), err);
    }
    const char *word = translate_is(type, "auto")   ? "auto"
                       : translate_is(type, "any")  ? "required"
                       : translate_is(type, "none") ? "none"
                                                    : NULL;
    if (!word)
        return error_set(err, ERR_INVALID,
                         "tool_choice.type: expected auto, any, tool or none, found \"%s\"",
                         shown(json_string_value(type)).s);
    return translate_put(out, "tool_choice", json_string(word), err);
}

/* --- the body ----------------------------------------------------------------------------------
 */

/* Where tokens are counted too, and where there is to be no thought. */
static enum status check_budget(const json_t *budget, struct error *err)
{
    json_int_t n = json_integer_value(budget);
    if (!budget || (n >= 0 && n < INT32_MAX))
        return OK;
    return error_set(err, ERR_INVALID, "thinking.budget_tokens: expected 0 to %d, found %lld",
                     (int)(INT32_MAX - 1), (long long)n);
}

/* Of a thought that may be: some tokens, and fewer than the answer may have. */
static enum status add_budget(const json_t *body, const json_t *budget, json_t *out,
                              struct error *err)
{
    const json_t *most = json_object_get(body, "max_tokens"); /* absent where tokens are counted */
    if (json_is_integer(most) && json_integer_value(budget) >= json_integer_value(most))
        return error_set(err, ERR_INVALID,
                         "thinking.budget_tokens: expected fewer than max_tokens, %lld, found %lld",
                         (long long)json_integer_value(most),
                         (long long)json_integer_value(budget));
    return translate_put(out, "thinking_budget", json_incref((json_t *)budget), err);
}

/* Without `thinking` there is none, as in Anthropic's API. */
static enum status add_mode(const json_t *body, json_t *out, struct error *err)
{
    const json_t *thinking, *type = NULL, *budget = NULL;
    TRY(translate_get(body, "", "thinking", TRANSLATE_OBJECT, &thinking, err));
    if (thinking) {
        TRY(translate_need(thinking, "thinking", "type", TRANSLATE_STRING, &type, err));
        TRY(translate_get(thinking, "thinking", "budget_tokens", TRANSLATE_INTEGER, &budget, err));
    }
    TRY(check_budget(budget, err));
    bool thinks = translate_is(type, "enabled") || translate_is(type, "adaptive");
    if (type && !thinks && !translate_is(type, "disabled"))
        return error_set(err, ERR_INVALID,
                         "thinking.type: expected enabled, adaptive or disabled, found \"%s\"",
                         shown(json_string_value(type)).s);
    if (thinks && budget)
        TRY(add_budget(body, budget, out, err));
    return translate_put(out, "enable_thinking", json_boolean(thinks), err);
}

static enum status add_stops(const json_t *body, json_t *out, struct error *err)
{
    const json_t *stops;
    TRY(translate_get(body, "", "stop_sequences", TRANSLATE_ARRAY, &stops, err));
    for (size_t i = 0; i < json_array_size(stops); i++) {
        char path[TRANSLATE_PATH_BYTES];
        translate_path(path, "stop_sequences[%zu]", i);
        TRY(translate_check(path, TRANSLATE_STRING, json_array_get(stops, i), err));
    }
    return stops ? translate_put(out, "stop", json_incref((json_t *)stops), err) : OK;
}

static enum status add_sampling(const json_t *body, json_t *out, struct error *err)
{
    static const struct translate_field fields[] = {
        {"stream", TRANSLATE_BOOL, "stream"},
        {"temperature", TRANSLATE_NUMBER, "temperature"},
        {"top_p", TRANSLATE_NUMBER, "top_p"},
        {"top_k", TRANSLATE_INTEGER, "top_k"},
        {"seed", TRANSLATE_INTEGER, "seed"}, /* ours: Anthropic has none */
        {"metadata", TRANSLATE_OBJECT, NULL},
        {"service_tier", TRANSLATE_STRING, NULL},
        {0},
    };
    const json_t *most;
    TRY(translate_need(body, "", "max_tokens", TRANSLATE_INTEGER, &most, err));
    TRY(translate_put(out, "max_tokens", json_incref((json_t *)most), err));
    TRY(add_stops(body, out, err));
    return translate_fields(body, "", fields, out, err);
}

static enum status refuse_others(const json_t *body, struct error *err)
{
    static const char *const names[] = {"mcp_servers", "container", "output_format"};
    const json_t *config;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        TRY(translate_refuse(body, "", names[i], err));
    TRY(translate_get(body, "", "output_config", TRANSLATE_OBJECT, &config, err));
    return config ? translate_refuse(config, "output_config", "format", err) : OK;
}

static enum status translate(const json_t *body, enum openai_kind kind, json_t *out,
                             struct error *err)
{
    static const struct translate_field model[] = {{"model", TRANSLATE_STRING, "model"}, {0}};
    TRY(translate_fields(body, "", model, out, err));
    TRY(refuse_others(body, err));
    TRY(translate_tools(body, add_tool, out, err));
    if (kind == OPENAI_CHAT) {
        TRY(add_choice(body, out, err));
        TRY(add_sampling(body, out, err));
    }
    TRY(add_messages(body, out, err));
    return add_mode(body, out, err);
}

enum status anthropic_translate(const json_t *body, enum openai_kind *kind, json_t **out,
                                struct error *err)
{
    *out = json_object();
    enum status st = *out ? translate(body, *kind, *out, err)
                          : error_set(err, ERR_NO_MEMORY, "body: no memory");
    if (st == OK)
        return OK;
    json_decref(*out);
    *out = NULL;
    return st;
}
