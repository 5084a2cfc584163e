/* A conversation checked and taken apart: see template_message.h. No state. */
#include "coordinator/text/template_message.h"
#include "base/json.h"
#include "coordinator/text/json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum status template_mistyped(const char *path, const char *expected, const json_t *found,
                              struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found %s", path, expected,
                     json_type_words(found));
}

static enum status mistyped_field(size_t i, const char *field, const char *expected,
                                  const json_t *found, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "messages[%zu].%s", i, field);
    return template_mistyped(path, expected, found, err);
}

/* NULL for null, so that absent and null are one case. */
static const json_t *present(const json_t *v)
{
    return json_is_null(v) ? NULL : v;
}

/* ---- content ---- */

static enum status bad_part_type(const char *path, const json_t *type, struct error *err)
{
    if (json_is_string(type))
        return error_set(err, ERR_INVALID, "%s.type: expected \"text\", found \"%.40s\"", path,
                         json_string_value(type));
    return error_set(err, ERR_INVALID, "%s.type: expected \"text\", found %s", path,
                     json_type_words(type));
}

static enum status check_part(size_t i, size_t j, const json_t *part, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "messages[%zu].content[%zu]", i, j);
    if (!json_is_object(part))
        return template_mistyped(path, "an object", part, err);
    const json_t *type = json_object_get(part, "type");
    if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0)
        return bad_part_type(path, type, err);
    const json_t *text = json_object_get(part, "text");
    if (!json_is_string(text)) {
        snprintf(path, sizeof path, "messages[%zu].content[%zu].text", i, j);
        return template_mistyped(path, "a string", text, err);
    }
    return OK;
}

static enum status join_parts(struct template_message *m, size_t i, struct error *err)
{
    size_t total = 0;
    for (size_t j = 0; j < json_array_size(m->content); j++) {
        const json_t *part = json_array_get(m->content, j);
        TRY(check_part(i, j, part, err));
        total += json_string_length(json_object_get(part, "text"));
    }
    m->joined = malloc(total + 1);
    if (!m->joined)
        return error_set(err, ERR_NO_MEMORY, "messages[%zu].content: no memory for %zu bytes", i,
                         total);
    char *p = m->joined;
    for (size_t j = 0; j < json_array_size(m->content); j++) {
        const json_t *text = json_object_get(json_array_get(m->content, j), "text");
        memcpy(p, json_string_value(text), json_string_length(text));
        p += json_string_length(text);
    }
    *p = '\0';
    m->text = (struct template_text){m->joined, total};
    return OK;
}

static enum status read_content(struct template_message *m, size_t i, struct error *err)
{
    m->text = (struct template_text){"", 0};
    if (!m->content) {
        m->kind = TEMPLATE_CONTENT_MISSING;
    } else if (json_is_null(m->content)) {
        m->kind = TEMPLATE_CONTENT_NULL;
    } else if (json_is_string(m->content)) {
        m->kind = TEMPLATE_CONTENT_STRING;
        m->text = template_text_of(m->content);
    } else if (json_is_array(m->content)) {
        m->kind = TEMPLATE_CONTENT_PARTS;
        return join_parts(m, i, err);
    } else {
        return mistyped_field(i, "content", "a string, null or an array of text parts", m->content,
                              err);
    }
    return OK;
}

/* ---- messages ---- */

static enum status read_message(struct template_message *m, size_t i, const json_t *json,
                                struct error *err)
{
    if (!json_is_object(json))
        return error_set(err, ERR_INVALID, "messages[%zu]: expected an object, found %s", i,
                         json_type_words(json));
    m->role = json_object_get(json, "role");
    if (!json_is_string(m->role))
        return mistyped_field(i, "role", "a string", m->role, err);
    m->content = json_object_get(json, "content");
    TRY(read_content(m, i, err));
    m->reasoning = present(json_object_get(json, "reasoning_content"));
    if (m->reasoning && !json_is_string(m->reasoning))
        return mistyped_field(i, "reasoning_content", "a string or null", m->reasoning, err);
    m->calls = present(json_object_get(json, "tool_calls"));
    if (m->calls && !json_is_array(m->calls))
        return mistyped_field(i, "tool_calls", "an array or null", m->calls, err);
    return OK;
}

enum status template_conversation_init(struct template_conversation *c, const json_t *messages,
                                       struct error *err)
{
    *c = (struct template_conversation){0};
    if (!json_is_array(messages))
        return template_mistyped("messages", "an array", messages, err);
    size_t count = json_array_size(messages);
    if (count == 0)
        return error_set(err, ERR_INVALID, "messages: expected at least one message, found none");
    if (count > TEMPLATE_MAX_MESSAGES)
        return error_set(err, ERR_LIMIT, "messages: expected at most %d, found %zu",
                         (int)TEMPLATE_MAX_MESSAGES, count);
    c->messages = calloc(count, sizeof *c->messages);
    if (!c->messages)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu messages", count);
    c->count = count;
    for (size_t i = 0; i < count; i++) {
        enum status st = read_message(&c->messages[i], i, json_array_get(messages, i), err);
        if (st != OK) {
            template_conversation_fini(c);
            return st;
        }
    }
    return OK;
}

void template_conversation_fini(struct template_conversation *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->messages[i].joined);
    free(c->messages);
    *c = (struct template_conversation){0};
}

bool template_role_is(const struct template_message *m, const char *role)
{
    size_t len = strlen(role);
    return json_string_length(m->role) == len && memcmp(json_string_value(m->role), role, len) == 0;
}

/* ---- tool calls ---- */

/* Puts ".name" or ".arguments" behind the call's path for the message. */
static enum status mistyped_in_call(const struct template_call *call, const char *field,
                                    const char *expected, const json_t *found, struct error *err)
{
    char path[sizeof call->path + 16];
    snprintf(path, sizeof path, "%s.%s", call->path, field);
    return template_mistyped(path, expected, found, err);
}

enum status template_call_get(const struct template_conversation *c, size_t i, size_t j,
                              struct template_call *call, struct error *err)
{
    const json_t *outer = json_array_get(c->messages[i].calls, j);
    *call = (struct template_call){.function = outer};
    snprintf(call->path, sizeof call->path, "messages[%zu].tool_calls[%zu]", i, j);
    if (!json_is_object(outer))
        return template_mistyped(call->path, "an object", outer, err);
    const json_t *function = present(json_object_get(outer, "function"));
    if (function) {
        if (!json_is_object(function))
            return mistyped_in_call(call, "function", "an object", function, err);
        call->function = function;
        snprintf(call->path, sizeof call->path, "messages[%zu].tool_calls[%zu].function", i, j);
    }
    call->name = json_object_get(call->function, "name");
    if (!json_is_string(call->name))
        return mistyped_in_call(call, "name", "a string", call->name, err);
    call->arguments = json_object_get(call->function, "arguments");
    return present(call->arguments) ? template_call_need_arguments(call, err) : OK;
}

enum status template_call_need_arguments(const struct template_call *call, struct error *err)
{
    if (json_is_object(call->arguments) || json_is_string(call->arguments))
        return OK;
    return mistyped_in_call(call, "arguments", "an object or a JSON string", call->arguments, err);
}

enum status template_call_parse(const struct template_call *call, json_t **out, struct error *err)
{
    /* A model's own earlier output: json_parse would refuse the double keys and NUL characters that
     * Python takes, and with them every later turn of the conversation. */
    struct template_text t = template_text_of(call->arguments);
    json_error_t je;
    json_t *v = t.len ? json_loadb(t.data, t.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &je)
                      : json_object();
    bool held = v != NULL;
    if (!held && t.len)
        v = json_text_load_near(t.data, t.len);
    if (!v && t.len && je.line >= 0) /* without memory jansson names no line */
        return error_set(err, ERR_INVALID,
                         "%s.arguments: expected an object or a JSON string: line %d column %d: %s",
                         call->path, je.line, je.column, je.text);
    if (!v)
        return error_set(err, ERR_NO_MEMORY, "%s.arguments: no memory to parse them", call->path);
    enum status st = OK;
    if (!json_is_object(v))
        st = mistyped_in_call(call, "arguments", "an object in the JSON string", v, err);
    *out = st == OK && held ? json_incref(v) : NULL;
    json_decref(v);
    return st;
}

/* ---- normalising ---- */

static enum status no_memory(struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for the messages' copy");
}

/* `value` is taken over, NULL when it could not be made. */
static enum status put(json_t *object, const char *key, json_t *value, struct error *err)
{
    return json_object_set_new(object, key, value) == 0 ? OK : no_memory(err);
}

/* A copy of call `j` with an object as arguments, or their text where jansson cannot hold them. */
static enum status normal_call(const struct template_conversation *c, size_t i, size_t j,
                               json_t *calls, struct error *err)
{
    struct template_call call;
    TRY(template_call_get(c, i, j, &call, err));
    json_t *arguments = NULL;
    if (json_is_string(call.arguments))
        TRY(template_call_parse(&call, &arguments, err));
    if (!arguments)
        arguments = call.arguments && !json_is_null(call.arguments)
                        ? json_incref((json_t *)call.arguments)
                        : json_object();
    json_t *outer = json_copy(json_array_get(c->messages[i].calls, j));
    bool wrapped = call.function != json_array_get(c->messages[i].calls, j);
    json_t *function = wrapped ? json_copy((json_t *)call.function) : json_incref(outer);
    enum status st = put(function, "arguments", arguments, err);
    if (st == OK && wrapped)
        st = put(outer, "function", json_incref(function), err);
    json_decref(function);
    if (st == OK && json_array_append(calls, outer) != 0)
        st = no_memory(err);
    json_decref(outer);
    return st;
}

static enum status normal_calls(const struct template_conversation *c, size_t i, json_t *message,
                                struct error *err)
{
    json_t *calls = json_array();
    enum status st = calls ? OK : no_memory(err);
    for (size_t j = 0; st == OK && j < json_array_size(c->messages[i].calls); j++)
        st = normal_call(c, i, j, calls, err);
    if (st == OK)
        st = put(message, "tool_calls", json_incref(calls), err);
    json_decref(calls);
    return st;
}

static enum status normal_message(const struct template_conversation *c, size_t i, json_t *message,
                                  struct error *err)
{
    const struct template_message *m = &c->messages[i];
    if (m->kind != TEMPLATE_CONTENT_STRING)
        TRY(put(message, "content", json_stringn(m->text.data, m->text.len), err));
    return m->calls ? normal_calls(c, i, message, err) : OK;
}

enum status template_normalise(const json_t *messages, json_t **out, struct error *err)
{
    struct template_conversation c;
    TRY(template_conversation_init(&c, messages, err));
    json_t *copy = json_array();
    enum status st = copy ? OK : no_memory(err);
    for (size_t i = 0; st == OK && i < c.count; i++) {
        json_t *message = json_copy(json_array_get(messages, i));
        st = message ? normal_message(&c, i, message, err) : no_memory(err);
        if (st == OK && json_array_append(copy, message) != 0)
            st = no_memory(err);
        json_decref(message);
    }
    template_conversation_fini(&c);
    if (st == OK)
        *out = copy;
    else
        json_decref(copy);
    return st;
}
