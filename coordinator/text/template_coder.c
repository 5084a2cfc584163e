/*
 * The Qwen3-Coder template: tools and calls as XML, no reasoning. No state.
 *
 * A tool's fields are printed by type: objects and arrays as JSON, everything else as Python's
 * str() has it, so booleans read True and null None.
 */
#include "coordinator/text/json_text.h"
#include "coordinator/text/template_family.h"

#include <stdio.h>
#include <string.h>

/* ---- tools ---- */

static const char default_system[] =
    "You are Qwen, a helpful AI assistant that can interact with a computer to solve tasks.";
static const char tools_head[] =
    "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>";
static const char tools_tail[] =
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO "
    "suffix:\n\n<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\n"
    "value_1\n</parameter>\n<parameter=example_parameter_2>\n"
    "This is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>\n"
    "</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block "
    "must be nested within <tool_call></tool_call> XML tags\n"
    "- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the "
    "function call, but NOT after\n"
    "- If there is no function call available, answer the question like normal with your current "
    "knowledge and do not tell the user about function calls\n</IMPORTANT>";

static struct template_text key_text(const char *key)
{
    return (struct template_text){key, strlen(key)};
}

static enum status write_field_value(struct template_out *o, const json_t *v, struct error *err)
{
    return json_is_object(v) || json_is_array(v) ? template_json(o, v, err)
                                                 : template_str(o, v, err);
}

/* A line <KEY>VALUE</KEY> for each field of `object` whose key is not among `handled` (ends in
 * NULL); nothing when it is no object. */
static enum status write_other_fields(struct template_out *o, const json_t *object,
                                      const char *const *handled, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        const char *const *h = handled;
        while (*h && strcmp(*h, key) != 0)
            h++;
        if (*h)
            continue;
        TRY(template_literal(o, "\n<", err));
        TRY(template_plain(o, key_text(key), err));
        TRY(template_literal(o, ">", err));
        TRY(write_field_value(o, value, err));
        TRY(template_literal(o, "</", err));
        TRY(template_plain(o, key_text(key), err));
        TRY(template_literal(o, ">", err));
    }
    return OK;
}

static enum status write_description(struct template_out *o, const json_t *object,
                                     struct error *err)
{
    const json_t *description = json_object_get(object, "description");
    if (!description)
        return OK;
    TRY(template_literal(o, "\n<description>", err));
    TRY(template_str_stripped(o, description, err));
    return template_literal(o, "</description>", err);
}

static enum status write_parameter(struct template_out *o, const char *name, const json_t *fields,
                                   struct error *err)
{
    static const char *const handled[] = {"name", "type", "description", NULL};
    TRY(template_literal(o, "\n<parameter>\n<name>", err));
    TRY(template_plain(o, key_text(name), err));
    TRY(template_literal(o, "</name>", err));
    const json_t *type = json_object_get(fields, "type");
    if (type) {
        TRY(template_literal(o, "\n<type>", err));
        TRY(template_str(o, type, err));
        TRY(template_literal(o, "</type>", err));
    }
    TRY(write_description(o, fields, err));
    TRY(write_other_fields(o, fields, handled, err));
    return template_literal(o, "\n</parameter>", err);
}

static enum status write_tool(struct template_out *o, const json_t *tool, struct error *err)
{
    static const char *const handled[] = {"type", "name", "description", "parameters", NULL};
    static const char *const handled_parameters[] = {"type", "properties", NULL};
    TRY(template_literal(o, "\n<function>\n<name>", err));
    TRY(template_plain(o, template_text_of(json_object_get(tool, "name")), err));
    TRY(template_literal(o, "</name>", err));
    TRY(write_description(o, tool, err));
    TRY(template_literal(o, "\n<parameters>", err));
    const json_t *parameters = json_object_get(tool, "parameters");
    const char *name;
    json_t *fields;
    json_object_foreach(json_object_get(parameters, "properties"), name, fields)
    {
        TRY(write_parameter(o, name, fields, err));
    }
    TRY(write_other_fields(o, parameters, handled_parameters, err));
    TRY(template_literal(o, "\n</parameters>", err));
    TRY(write_other_fields(o, tool, handled, err));
    return template_literal(o, "\n</function>", err);
}

/* The object that describes tool `i`: its "function" when it has one, else the tool itself. */
static enum status find_function(const json_t *tools, size_t i, const json_t **out,
                                 struct error *err)
{
    char path[64];
    const json_t *tool = json_array_get(tools, i);
    const json_t *function = json_object_get(tool, "function");
    const char *field = "";
    if (function) {
        tool = function;
        field = ".function";
    }
    const json_t *name = json_object_get(tool, "name");
    snprintf(path, sizeof path, "tools[%zu]%s%s", i, field, json_is_object(tool) ? ".name" : "");
    if (!json_is_object(tool))
        return template_mistyped(path, "an object", tool, err);
    if (!json_is_string(name))
        return template_mistyped(path, "a string", name, err);
    *out = tool;
    return OK;
}

static enum status write_tools(const json_t *tools, struct template_out *o, struct error *err)
{
    TRY(template_literal(o, tools_head, err));
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *function = NULL;
        TRY(find_function(tools, i, &function, err));
        enum status st = write_tool(o, function, err);
        if (st != OK) {
            error_prefix(err, "tools[%zu]: ", i);
            return st;
        }
    }
    return template_literal(o, tools_tail, err);
}

static enum status write_system(const struct template_input *in, struct template_out *o,
                                struct error *err)
{
    const struct template_message *first = &in->conversation.messages[0];
    /* The template asks for the content, not for the role: without one the default speaks. */
    bool has_system = template_role_is(first, "system") && first->kind != TEMPLATE_CONTENT_MISSING;
    if (!has_system && !in->tools)
        return OK;
    TRY(template_literal(o, "<|im_start|>system\n", err));
    if (has_system)
        TRY(template_plain(o, first->text, err));
    else
        TRY(template_literal(o, default_system, err));
    if (in->tools)
        TRY(write_tools(in->tools, o, err));
    return template_literal(o, "<|im_end|>\n", err);
}

/* ---- turns ---- */

/* `value` NULL: its text as it is. */
static enum status write_argument(struct template_out *o, struct template_text name,
                                  const json_t *value, struct template_text text, struct error *err)
{
    TRY(template_literal(o, "<parameter=", err));
    TRY(template_plain(o, name, err));
    TRY(template_literal(o, ">\n", err));
    TRY(value ? write_field_value(o, value, err) : template_plain(o, text, err));
    return template_literal(o, "\n</parameter>\n", err);
}

static enum status write_arguments(struct template_out *o, const json_t *arguments,
                                   struct error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)arguments, name, value)
    {
        TRY(write_argument(o, key_text(name), value, (struct template_text){"", 0}, err));
    }
    return OK;
}

/* Of an object that jansson does not hold: those members that it does not are written as they are,
 * strings near to what they are. */
static enum status write_text_arguments(struct template_out *o, struct template_text object,
                                        struct error *err)
{
    struct json_span name, value;
    enum status st = OK;
    for (size_t at = 0; st == OK && json_text_member((struct json_span){object.data, object.len},
                                                     &at, &name, &value);) {
        json_t *key = json_text_load_near(name.data, name.len);
        json_t *v = json_loadb(value.data, value.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
        if (!v && *value.data == '"')
            v = json_text_load_near(value.data, value.len);
        st = key ? write_argument(o, template_text_of(key), v,
                                  (struct template_text){value.data, value.len}, err)
                 : error_set(err, ERR_NO_MEMORY, "no memory for a parameter");
        json_decref(key);
        json_decref(v);
    }
    return st;
}

static enum status write_call(const struct template_input *in, size_t i, size_t j,
                              struct template_out *o, struct error *err)
{
    struct template_call call;
    TRY(template_call_get(&in->conversation, i, j, &call, err));
    if (call.arguments)
        TRY(template_call_need_arguments(&call, err));
    TRY(template_literal(o, "\n<tool_call>\n<function=", err));
    TRY(template_plain(o, template_text_of(call.name), err));
    TRY(template_literal(o, ">\n", err));
    json_t *parsed = NULL;
    bool text = json_is_string(call.arguments);
    if (text)
        TRY(template_call_parse(&call, &parsed, err));
    enum status st = text && !parsed
                         ? write_text_arguments(o, template_text_of(call.arguments), err)
                         : write_arguments(o, parsed ? parsed : call.arguments, err);
    json_decref(parsed);
    if (st != OK) {
        error_prefix(err, "%s.arguments: ", call.path);
        return st;
    }
    return template_literal(o, "</function>\n</tool_call>", err);
}

static enum status write_calls(const struct template_input *in, size_t i, struct template_out *o,
                               struct error *err)
{
    const struct template_message *m = &in->conversation.messages[i];
    TRY(template_literal(o, "<|im_start|>assistant", err));
    struct template_text content = template_strip(m->text);
    if (m->kind == TEMPLATE_CONTENT_STRING && content.len) {
        TRY(template_literal(o, "\n", err));
        TRY(template_plain(o, content, err));
        TRY(template_literal(o, "\n", err));
    }
    for (size_t j = 0; j < json_array_size(m->calls); j++)
        TRY(write_call(in, i, j, o, err));
    return template_literal(o, "<|im_end|>\n", err);
}

static enum status write_turn(const struct template_message *m, struct template_out *o,
                              struct error *err)
{
    TRY(template_literal(o, "<|im_start|>", err));
    TRY(template_plain(o, template_text_of(m->role), err));
    TRY(template_literal(o, "\n", err));
    TRY(template_plain(o, m->text, err));
    return template_literal(o, "<|im_end|>\n", err);
}

/* `first` is the first message of the loop, which leaves a leading system message out. A result
 * that comes first opens no turn: the template asks for a message before it. */
static enum status write_result(const struct template_conversation *c, size_t first, size_t i,
                                struct template_out *o, struct error *err)
{
    const struct template_message *m = &c->messages[i];
    if (i > first && !template_role_is(m - 1, "tool"))
        TRY(template_literal(o, "<|im_start|>user\n", err));
    TRY(template_literal(o, "<tool_response>\n", err));
    if (m->content)
        TRY(template_str(o, m->content, err));
    TRY(template_literal(o, "\n</tool_response>\n", err));
    if (i + 1 == c->count || !template_role_is(m + 1, "tool"))
        TRY(template_literal(o, "<|im_end|>\n", err));
    return OK;
}

enum status template_coder(const struct template_input *in, struct template_out *o,
                           struct error *err)
{
    const struct template_conversation *c = &in->conversation;
    TRY(write_system(in, o, err));
    size_t first = template_role_is(&c->messages[0], "system") ? 1 : 0;
    for (size_t i = first; i < c->count; i++) {
        const struct template_message *m = &c->messages[i];
        if (template_role_is(m, "assistant") && json_array_size(m->calls))
            TRY(write_calls(in, i, o, err));
        else if (template_role_is(m, "tool"))
            TRY(write_result(c, first, i, o, err));
        else
            TRY(write_turn(m, o, err));
    }
    return in->generation_prompt ? template_literal(o, "<|im_start|>assistant\n", err) : OK;
}
