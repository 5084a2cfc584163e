/* Values, fields that change nothing, and messages: see openai_fields.h. No state. */
#include "coordinator/openai_fields.h"
#include "base/check.h"
#include "partition/shown.h"

#include <string.h>

/* --- values ------------------------------------------------------------------------------------
 */

enum status openai_mistyped(const char *path, const char *expected, const json_t *found,
                            struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found %s", path, expected,
                     json_type_words(found));
}

enum status openai_read_int(const char *path, const json_t *v, int64_t min, int64_t max,
                            int64_t *out, struct error *err)
{
    if (!json_is_integer(v))
        return openai_mistyped(path, "an integer", v, err);
    *out = json_integer_value(v);
    if (*out < min || *out > max)
        return error_set(err, ERR_INVALID, "%s: expected %lld to %lld, found %lld", path,
                         (long long)min, (long long)max, (long long)*out);
    return OK;
}

enum status openai_read_int32(const char *path, const json_t *v, int32_t min, int32_t max,
                              int32_t *out, struct error *err)
{
    int64_t x = 0;
    TRY(openai_read_int(path, v, min, max, &x, err));
    *out = (int32_t)x;
    return OK;
}

enum status openai_read_bool(const char *path, const json_t *v, bool *out, struct error *err)
{
    if (!json_is_boolean(v))
        return openai_mistyped(path, "true or false", v, err);
    *out = json_is_true(v);
    return OK;
}

/* --- fields that change nothing ----------------------------------------------------------------
 */

enum {
    CHAT = 1 << OPENAI_CHAT,
    COMPLETION = 1 << OPENAI_COMPLETION,
    BOTH = CHAT | COMPLETION,
};

enum neutral {
    ANYTHING,  /* a note for the provider */
    ONLY_NULL, /* no other value is neutral */
    ONLY_FALSE,
    ONLY_TRUE,
    ONLY_ONE,
    ONLY_EMPTY,   /* [] or {} */
    ONLY_NONE,    /* "none" */
    ONLY_AS_TEXT, /* ["text"] */
};

static const char *const neutral_words[] = {
    [ANYTHING] = "anything",  [ONLY_NULL] = "null",
    [ONLY_FALSE] = "false",   [ONLY_TRUE] = "true",
    [ONLY_ONE] = "1",         [ONLY_EMPTY] = "an empty one",
    [ONLY_NONE] = "\"none\"", [ONLY_AS_TEXT] = "[\"text\"]",
};

static const struct {
    const char *name;
    unsigned kinds;
    enum neutral neutral;
} fields[] = {
    {"user", BOTH, ANYTHING},
    {"metadata", BOTH, ANYTHING},
    {"store", BOTH, ANYTHING},
    {"service_tier", BOTH, ANYTHING},
    {"safety_identifier", BOTH, ANYTHING},
    {"prompt_cache_key", BOTH, ANYTHING},
    {"prompt_cache_retention", BOTH, ANYTHING},
    {"functions", CHAT, ONLY_EMPTY},
    {"function_call", CHAT, ONLY_NONE},
    {"length_penalty", BOTH, ONLY_ONE},
    {"echo", CHAT, ONLY_FALSE},
    {"suffix", COMPLETION, ONLY_NULL},
    {"audio", CHAT, ONLY_NULL},
    {"modalities", CHAT, ONLY_AS_TEXT},
    {"prediction", CHAT, ONLY_NULL},
    {"verbosity", CHAT, ONLY_NULL},
    {"web_search_options", CHAT, ONLY_NULL},
    {"enable_search", CHAT, ONLY_FALSE},
    {"guided_json", BOTH, ONLY_NULL},
    {"guided_regex", BOTH, ONLY_NULL},
    {"guided_choice", BOTH, ONLY_NULL},
    {"guided_grammar", BOTH, ONLY_NULL},
    {"structured_outputs", BOTH, ONLY_NULL},
    {"grammar", BOTH, ONLY_NULL},
    {"json_schema", BOTH, ONLY_NULL},
    {"truncate_prompt_tokens", BOTH, ONLY_NULL},
    {"bad_words", BOTH, ONLY_EMPTY},
    {"skip_special_tokens", BOTH, ONLY_TRUE},
    {"spaces_between_special_tokens", BOTH, ONLY_TRUE},
    {"include_stop_str_in_output", BOTH, ONLY_FALSE},
    {"use_beam_search", BOTH, ONLY_FALSE},
    {"add_generation_prompt", CHAT, ONLY_TRUE},
    {"continue_final_message", CHAT, ONLY_FALSE},
    {"chat_template", CHAT, ONLY_NULL},
    {"documents", CHAT, ONLY_EMPTY},
};

static bool is_string(const json_t *v, const char *s)
{
    return json_is_string(v) && strcmp(json_string_value(v), s) == 0;
}

static bool is_neutral(enum neutral neutral, const json_t *v)
{
    switch (neutral) {
    case ANYTHING:
        return true;
    case ONLY_NULL:
        return json_is_null(v);
    case ONLY_FALSE:
        return json_is_false(v);
    case ONLY_TRUE:
        return json_is_true(v);
    case ONLY_ONE:
        return json_is_number(v) && json_number_value(v) == 1.0;
    case ONLY_EMPTY:
        return (json_is_array(v) && json_array_size(v) == 0) ||
               (json_is_object(v) && json_object_size(v) == 0);
    case ONLY_NONE:
        return is_string(v, "none");
    case ONLY_AS_TEXT:
        return json_is_array(v) && json_array_size(v) == 1 &&
               is_string(json_array_get(v, 0), "text");
    }
    return false;
}

enum status openai_neutral_field(enum openai_kind kind, const char *name, const json_t *value,
                                 struct error *err)
{
    unsigned bit = 1u << kind;
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        if (!(fields[i].kinds & bit) || strcmp(fields[i].name, name) != 0)
            continue;
        if (json_is_null(value) || is_neutral(fields[i].neutral, value))
            return OK;
        return error_set(err, ERR_UNSUPPORTED, "%s: not supported (only %s is)", name,
                         neutral_words[fields[i].neutral]);
    }
    return ERR_NOT_FOUND;
}

/* --- messages ----------------------------------------------------------------------------------
 */

/* Fields of a message. `only_null`: what clients that send an answer back leave in it. */
static const struct {
    const char *name;
    bool only_null;
} message_fields[] = {
    {"role", false},         {"content", false},    {"reasoning_content", false},
    {"name", false},         {"tool_calls", false}, {"tool_call_id", false},
    {"refusal", true},       {"audio", true},       {"annotations", true},
    {"function_call", true},
};

static const char *const roles[] = {"system", "user", "assistant", "tool"};

static enum status check_message_field(size_t i, const char *name, const json_t *v,
                                       struct error *err)
{
    for (size_t k = 0; k < COUNT_OF(message_fields); k++) {
        if (strcmp(message_fields[k].name, name) != 0)
            continue;
        if (!message_fields[k].only_null || json_is_null(v) ||
            (json_is_array(v) && json_array_size(v) == 0))
            return OK;
        return error_set(err, ERR_UNSUPPORTED, "messages[%zu].%s: not supported (only null is)", i,
                         name);
    }
    return OK;
}

static enum status check_text_field(size_t i, const json_t *message, const char *name,
                                    struct error *err)
{
    const json_t *v = json_object_get(message, name);
    if (!v || json_is_null(v) || json_is_string(v))
        return OK;
    return error_set(err, ERR_INVALID, "messages[%zu].%s: expected a string, found %s", i, name,
                     json_type_words(v));
}

static enum status check_role(size_t i, json_t *message, struct error *err)
{
    const json_t *role = json_object_get(message, "role");
    if (!json_is_string(role))
        return error_set(err, ERR_INVALID, "messages[%zu].role: expected a string, found %s", i,
                         json_type_words(role));
    for (size_t k = 0; k < COUNT_OF(roles); k++)
        if (is_string(role, roles[k]))
            return OK;
    if (!is_string(role, "developer"))
        return error_set(err, ERR_INVALID,
                         "messages[%zu].role: expected system, developer, user, assistant or "
                         "tool, found \"%s\"",
                         i, shown(json_string_value(role)).s);
    if (json_object_set_new(message, "role", json_string("system")) != 0)
        return error_set(err, ERR_NO_MEMORY, "messages[%zu].role: no memory", i);
    return OK;
}

enum status openai_check_messages(json_t *messages, struct error *err)
{
    if (!json_is_array(messages))
        return error_set(err, ERR_INVALID, "messages: expected an array, found %s",
                         json_type_words(messages));
    size_t count = json_array_size(messages);
    if (count < 1 || count > OPENAI_MAX_MESSAGES)
        return error_set(err, ERR_INVALID, "messages: expected 1 to %d, found %zu",
                         (int)OPENAI_MAX_MESSAGES, count);
    for (size_t i = 0; i < count; i++) {
        json_t *message = json_array_get(messages, i), *v;
        const char *name;
        if (!json_is_object(message))
            return error_set(err, ERR_INVALID, "messages[%zu]: expected an object, found %s", i,
                             json_type_words(message));
        TRY(check_role(i, message, err));
        json_object_foreach(message, name, v)
        {
            TRY(check_message_field(i, name, v, err));
        }
        TRY(check_text_field(i, message, "name", err));
        TRY(check_text_field(i, message, "tool_call_id", err));
    }
    return OK;
}
