/* What translators share: see translate.h. No state. */
#include "coordinator/translate.h"
#include "base/buf.h"
#include "base/json.h"
#include "partition/shown.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- taking ------------------------------------------------------------------------------------
 */

enum { MAX_THOUGHTS_BYTES = 64 << 20 };

void translate_path(char out[TRANSLATE_PATH_BYTES], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, TRANSLATE_PATH_BYTES, fmt, ap);
    va_end(ap);
}

static const char *const type_words[] = {
    [TRANSLATE_STRING] = "a string", [TRANSLATE_OBJECT] = "an object",
    [TRANSLATE_ARRAY] = "an array",  [TRANSLATE_INTEGER] = "an integer",
    [TRANSLATE_NUMBER] = "a number", [TRANSLATE_BOOL] = "true or false",
};

static bool is_of(const json_t *v, enum translate_type type)
{
    switch (type) {
    case TRANSLATE_STRING:
        return json_is_string(v);
    case TRANSLATE_OBJECT:
        return json_is_object(v);
    case TRANSLATE_ARRAY:
        return json_is_array(v);
    case TRANSLATE_INTEGER:
        return json_is_integer(v);
    case TRANSLATE_NUMBER:
        return json_is_number(v);
    case TRANSLATE_BOOL:
        return json_is_boolean(v);
    }
    return false;
}

enum status translate_check(const char *path, enum translate_type type, const json_t *v,
                            struct error *err)
{
    if (is_of(v, type))
        return OK;
    return error_set(err, ERR_INVALID, "%s: expected %s, found %s", path, type_words[type],
                     json_type_words(v));
}

static void join_path(char out[TRANSLATE_PATH_BYTES], const char *path, const char *key)
{
    translate_path(out, "%s%s%s", path, *path ? "." : "", key);
}

enum status translate_need(const json_t *obj, const char *path, const char *key,
                           enum translate_type type, const json_t **out, struct error *err)
{
    char full[TRANSLATE_PATH_BYTES];
    join_path(full, path, key);
    *out = json_object_get(obj, key);
    return translate_check(full, type, *out, err);
}

enum status translate_get(const json_t *obj, const char *path, const char *key,
                          enum translate_type type, const json_t **out, struct error *err)
{
    *out = NULL;
    if (!json_object_get(obj, key) || json_is_null(json_object_get(obj, key)))
        return OK;
    return translate_need(obj, path, key, type, out, err);
}

bool translate_is(const json_t *v, const char *word)
{
    return json_is_string(v) && strcmp(json_string_value(v), word) == 0;
}

/* --- refusing ----------------------------------------------------------------------------------
 */

enum status translate_refuse(const json_t *obj, const char *path, const char *key,
                             struct error *err)
{
    char full[TRANSLATE_PATH_BYTES];
    const json_t *v = json_object_get(obj, key);
    if (!v || json_is_null(v) || json_is_false(v) ||
        (json_is_integer(v) && json_integer_value(v) == 0) ||
        (json_is_string(v) && json_string_length(v) == 0) ||
        (json_is_array(v) && json_array_size(v) == 0) ||
        (json_is_object(v) && json_object_size(v) == 0))
        return OK;
    join_path(full, path, key);
    return error_set(err, ERR_UNSUPPORTED, "%s: not supported (leave it out)", full);
}

enum status translate_bad_type(const char *path, const json_t *type, const char *only,
                               struct error *err)
{
    char full[TRANSLATE_PATH_BYTES];
    join_path(full, path, "type");
    TRY(translate_check(full, TRANSLATE_STRING, type, err));
    return error_set(err, ERR_UNSUPPORTED, "%s: \"%s\" is not supported (only %s)", full,
                     shown(json_string_value(type)).s, only);
}

/* --- putting -----------------------------------------------------------------------------------
 */

enum status translate_put(json_t *obj, const char *key, json_t *value, struct error *err)
{
    if (json_object_set_new(obj, key, value) == 0)
        return OK;
    return error_set(err, ERR_NO_MEMORY, "%s: no memory", key);
}

enum status translate_add(json_t *array, json_t *value, struct error *err)
{
    if (json_array_append_new(array, value) == 0)
        return OK;
    return error_set(err, ERR_NO_MEMORY, "no memory for a message");
}

enum status translate_fields(const json_t *obj, const char *path,
                             const struct translate_field *fields, json_t *out, struct error *err)
{
    for (; fields->name; fields++) {
        const json_t *v;
        TRY(translate_get(obj, path, fields->name, fields->type, &v, err));
        if (v && fields->openai)
            TRY(translate_put(out, fields->openai, json_incref((json_t *)v), err));
    }
    return OK;
}

/* --- pieces of a chat body ---------------------------------------------------------------------
 */

json_t *translate_part(const json_t *text)
{
    return json_pack("{s:s, s:O}", "type", "text", "text", text);
}

json_t *translate_call(const json_t *id, const json_t *name, const json_t *arguments)
{
    char *text = json_is_string(arguments) ? NULL : json_dumps(arguments, JSON_COMPACT);
    json_t *string = text ? json_string(text) : json_incref((json_t *)arguments);
    free(text);
    return json_pack("{s:s, s:{s:O, s:o}, s:O*}", "type", "function", "function", "name", name,
                     "arguments", string, "id", id);
}

enum status translate_arguments(const json_t *obj, const char *path, const char *key,
                                const json_t **out, struct error *err)
{
    *out = json_object_get(obj, key);
    return json_is_string(*out) ? OK : translate_need(obj, path, key, TRANSLATE_OBJECT, out, err);
}

json_t *translate_tool(const json_t *name, const json_t *description, const json_t *parameters)
{
    return json_pack("{s:s, s:{s:O, s:O*, s:O*}}", "type", "function", "function", "name", name,
                     "description", description, "parameters", parameters);
}

enum status translate_tools(const json_t *body,
                            enum status (*add)(json_t *tools, const json_t *tool, size_t i,
                                               struct error *err),
                            json_t *out, struct error *err)
{
    const json_t *list;
    TRY(translate_get(body, "", "tools", TRANSLATE_ARRAY, &list, err));
    if (json_array_size(list) == 0)
        return OK;
    json_t *tools = json_array();
    TRY(translate_put(out, "tools", tools, err));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(add(tools, json_array_get(list, i), i, err));
    return OK;
}

/* --- messages ----------------------------------------------------------------------------------
 */

void translate_turn_init(struct translate_turn *t, json_t *messages, bool assistant)
{
    *t = (struct translate_turn){
        .messages = messages, .assistant = assistant, .parts = json_array(), .calls = json_array()};
    buf_init(&t->thoughts, MAX_THOUGHTS_BYTES);
}

void translate_turn_fini(struct translate_turn *t)
{
    json_decref(t->parts);
    json_decref(t->calls);
    buf_fini(&t->thoughts);
}

enum status translate_think(struct translate_turn *t, const json_t *text, struct error *err)
{
    t->thought = true;
    return buf_append(&t->thoughts, json_string_value(text), json_string_length(text), err);
}

enum status translate_end_turn(struct translate_turn *t, struct error *err)
{
    if (json_array_size(t->parts) == 0 && json_array_size(t->calls) == 0 && !t->thought)
        return OK;
    json_t *thoughts = t->thought
                           ? json_stringn(t->thoughts.data ? t->thoughts.data : "", t->thoughts.len)
                           : NULL;
    json_t *m = json_pack("{s:s, s:O, s:o*}", "role", t->assistant ? "assistant" : "user",
                          "content", t->parts, "reasoning_content", thoughts);
    if (json_array_size(t->calls) > 0 && json_object_set(m, "tool_calls", t->calls) != 0)
        return error_set(err, ERR_NO_MEMORY, "no memory for a message");
    json_t *messages = t->messages;
    bool assistant = t->assistant;
    translate_turn_fini(t);
    translate_turn_init(t, messages, assistant);
    return translate_add(messages, m, err);
}
