/* Tools, and how much to think, of chat requests: see openai_fields.h. No state. */
#include "base/check.h"
#include "coordinator/openai_fields.h"
#include "partition/shown.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 128, PATH = 64 };

static bool is(const json_t *v, const char *s)
{
    return json_is_string(v) && strcmp(json_string_value(v), s) == 0;
}

/* --- tools -------------------------------------------------------------------------------------
 */

/* A name that every template can write and every parser read back. */
static enum status check_name(const char *path, const json_t *v, struct error *err)
{
    size_t len = json_string_length(v);
    const char *s = json_string_value(v);
    if (!json_is_string(v))
        return openai_mistyped(path, "a string", v, err);
    if (len < 1 || len > MAX_NAME)
        return error_set(err, ERR_INVALID, "%s: expected 1 to %d bytes, found %zu", path,
                         (int)MAX_NAME, len);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == 0x7f || strchr("<>\"\\", s[i]))
            return error_set(err, ERR_INVALID,
                             "%s: expected no white space, control characters, quotes, backslashes "
                             "or angle brackets, found byte 0x%02x at %zu",
                             path, (unsigned char)s[i], i);
    return OK;
}

static enum status check_type(const char *path, const json_t *v, struct error *err)
{
    if (!json_is_string(v))
        return openai_mistyped(path, "a string", v, err);
    if (!is(v, "function"))
        return error_set(err, ERR_UNSUPPORTED, "%s: not supported (only \"function\" is)", path);
    return OK;
}

/* Fields of a function: those that may be absent or null. */
static enum status check_fields(const char *path, const json_t *function, struct error *err)
{
    static const struct {
        const char *name;
        json_type type;
        const char *words;
    } fields[] = {
        {"description", JSON_STRING, "a string"},
        {"parameters", JSON_OBJECT, "an object"},
        {"strict", JSON_TRUE, "true or false"},
    };
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const json_t *v = json_object_get(function, fields[i].name);
        char field[PATH + 32];
        if (!v || json_is_null(v) || json_typeof(v) == fields[i].type ||
            (fields[i].type == JSON_TRUE && json_is_false(v)))
            continue;
        snprintf(field, sizeof field, "%s.%s", path, fields[i].name);
        return openai_mistyped(field, fields[i].words, v, err);
    }
    return OK;
}

static const json_t *name_of(const json_t *tools, size_t i)
{
    return json_object_get(json_object_get(json_array_get(tools, i), "function"), "name");
}

static enum status check_tool(const json_t *tools, size_t i, struct error *err)
{
    const json_t *tool = json_array_get(tools, i), *function = json_object_get(tool, "function");
    char path[PATH];
    snprintf(path, sizeof path, "tools[%zu]", i);
    if (!json_is_object(tool))
        return openai_mistyped(path, "an object", tool, err);
    snprintf(path, sizeof path, "tools[%zu].type", i);
    TRY(check_type(path, json_object_get(tool, "type"), err));
    snprintf(path, sizeof path, "tools[%zu].function", i);
    if (!json_is_object(function))
        return openai_mistyped(path, "an object", function, err);
    TRY(check_fields(path, function, err));
    snprintf(path, sizeof path, "tools[%zu].function.name", i);
    TRY(check_name(path, name_of(tools, i), err));
    for (size_t k = 0; k < i; k++)
        if (json_equal(name_of(tools, k), name_of(tools, i)))
            return error_set(err, ERR_INVALID,
                             "%s: expected a name of its own, found that of tools[%zu]: \"%s\"",
                             path, k, shown(json_string_value(name_of(tools, i))).s);
    return OK;
}

enum status openai_read_tools(struct openai_request *r, json_t *v, struct error *err)
{
    if (!json_is_array(v))
        return openai_mistyped("tools", "an array", v, err);
    if (json_array_size(v) > OPENAI_MAX_TOOLS)
        return error_set(err, ERR_INVALID, "tools: expected at most %d, found %zu",
                         (int)OPENAI_MAX_TOOLS, json_array_size(v));
    for (size_t i = 0; i < json_array_size(v); i++)
        TRY(check_tool(v, i, err));
    r->tools = json_array_size(v) > 0 ? v : NULL;
    return OK;
}

enum status openai_read_tool_choice(struct openai_request *r, json_t *v, struct error *err)
{
    static const char *const words[] = {[OPENAI_TOOLS_AUTO] = "auto",
                                        [OPENAI_TOOLS_NONE] = "none",
                                        [OPENAI_TOOLS_REQUIRED] = "required"};
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (!is(v, words[i]))
            continue;
        r->tool_choice = (enum openai_tool_choice)i;
        return OK;
    }
    if (json_is_string(v))
        return error_set(err, ERR_INVALID,
                         "tool_choice: expected auto, none, required or an object, found \"%s\"",
                         shown(json_string_value(v)).s);
    if (!json_is_object(v))
        return openai_mistyped("tool_choice", "a string or an object", v, err);
    const json_t *function = json_object_get(v, "function");
    TRY(check_type("tool_choice.type", json_object_get(v, "type"), err));
    if (!json_is_object(function))
        return openai_mistyped("tool_choice.function", "an object", function, err);
    TRY(check_name("tool_choice.function.name", json_object_get(function, "name"), err));
    r->tool_choice = OPENAI_TOOLS_NAMED;
    r->tool_name = json_string_value(json_object_get(function, "name"));
    return OK;
}

enum status openai_check_tools(const struct openai_request *r, struct error *err)
{
    bool known = r->tool_choice != OPENAI_TOOLS_NAMED;
    if (r->json_object && r->tools && r->tool_choice == OPENAI_TOOLS_AUTO)
        return error_set(
            err, ERR_UNSUPPORTED,
            "response_format: json_object is not supported with tools (with tool_choice "
            "none it is)");
    if (r->tool_choice == OPENAI_TOOLS_AUTO || r->tool_choice == OPENAI_TOOLS_NONE)
        return OK;
    if (!r->tools)
        return error_set(err, ERR_INVALID, "tool_choice: expected it only with tools");
    for (size_t i = 0; i < json_array_size(r->tools) && !known; i++)
        known = is(name_of(r->tools, i), r->tool_name);
    if (!known)
        return error_set(err, ERR_INVALID,
                         "tool_choice.function.name: expected the name of one of the tools, found "
                         "\"%s\"",
                         shown(r->tool_name).s);
    if (r->json_object)
        return error_set(err, ERR_INVALID,
                         "response_format: expected text where tool_choice demands a call");
    return OK;
}

/* --- thinking ----------------------------------------------------------------------------------
 */

enum status openai_read_effort(json_t *v, bool *thinks, struct error *err)
{
    static const struct {
        const char *name;
        bool thinks;
    } efforts[] = {{"none", false},  {"minimal", false}, {"low", true},
                   {"medium", true}, {"high", true},     {"xhigh", true}};
    if (!json_is_string(v))
        return openai_mistyped("reasoning_effort", "a string", v, err);
    for (size_t i = 0; i < COUNT_OF(efforts); i++) {
        if (!is(v, efforts[i].name))
            continue;
        *thinks = efforts[i].thinks;
        return OK;
    }
    return error_set(err, ERR_INVALID,
                     "reasoning_effort: expected none, minimal, low, medium, high or xhigh, found "
                     "\"%s\"",
                     shown(json_string_value(v)).s);
}
