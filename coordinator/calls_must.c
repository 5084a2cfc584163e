/* Calls that an answer must be, as a constraint: see calls.h. No state. */
#include "base/check.h"
#include "coordinator/calls_private.h"
#include "partition/shown.h"

#include <stdlib.h>
#include <string.h>

/* What stands around the arguments of a call: of HERMES, */
static const char before_name[] = "<tool_call>\n{\"name\": \"",
                  behind_name[] = "\", \"arguments\": ", behind_arguments[] = "}\n</tool_call>";
/* and of CODER. */
static const char before_function[] = "<tool_call>\n<function=", behind_function[] = ">\n",
                  behind_parameters[] = "</function>\n</tool_call>";

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum status put(struct buf *b, const char *text, struct error *err)
{
    return buf_append(b, text, strlen(text), err);
}

/* --- parameters of CODER ------------------------------------------------------------------------
 */

static bool is_required(const json_t *schema, const char *name)
{
    const json_t *required = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *own = json_string_value(json_array_get(required, i));
        if (own && strcmp(own, name) == 0)
            return true;
    }
    return false;
}

/* One that a reader of the format would not find again. */
static bool is_name(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == '<' || name[i] == '>')
            return false;
    return len >= 1 && len <= CALLS_MAX_NAME;
}

static enum status gather(const json_t *schema, size_t tool,
                          const char *names[CONSTRAINT_MAX_PARAMETERS], size_t *count,
                          struct error *err)
{
    const char *name;
    json_t *v;
    *count = 0;
    json_object_foreach(json_object_get(schema, "properties"), name, v)
    {
        if (!is_name(name))
            return error_set(err, ERR_INVALID,
                             "tools[%zu].function.parameters.properties: expected names of 1 to %d "
                             "bytes without <, > and control characters, found \"%s\"",
                             tool, (int)CALLS_MAX_NAME, shown(name).s);
        if (*count == CONSTRAINT_MAX_PARAMETERS)
            return error_set(err, ERR_INVALID,
                             "tools[%zu].function.parameters.properties: expected at most %d with "
                             "this tool_choice",
                             tool, (int)CONSTRAINT_MAX_PARAMETERS);
        names[(*count)++] = name;
    }
    return OK;
}

/* As it stands behind <parameter=: so it is sorted. */
static int by_name(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    size_t n = 0;
    while (x[n] && x[n] == y[n])
        n++;
    int p = x[n] ? (unsigned char)x[n] : '>', q = y[n] ? (unsigned char)y[n] : '>';
    return p - q;
}

static enum status put_parameters(const json_t *schema, size_t tool, struct buf *out,
                                  struct error *err)
{
    const char *names[CONSTRAINT_MAX_PARAMETERS];
    size_t count;
    TRY(gather(schema, tool, names, &count, err));
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        TRY(put(out, is_required(schema, names[i]) ? "\1!" : "\1?", err));
        TRY(put(out, names[i], err));
        TRY(put(out, behind_function, err));
    }
    return OK;
}

/* --- calls --------------------------------------------------------------------------------------
 */

/* With its NUL; the caller's to free. */
static enum status make_head(enum call_format format, const json_t *function, size_t tool,
                             char **out, struct error *err)
{
    const char *name = json_string_value(json_object_get(function, "name"));
    bool hermes = format == CALLS_HERMES;
    struct buf b;
    buf_init(&b, CONSTRAINT_MAX_TEXT);
    enum status st = put(&b, hermes ? before_name : before_function, err);
    if (st == OK)
        st = put(&b, name, err);
    if (st == OK)
        st = put(&b, hermes ? behind_name : behind_function, err);
    if (st == OK && !hermes)
        st = put_parameters(json_object_get(function, "parameters"), tool, &b, err);
    if (st == OK)
        st = buf_append(&b, "", 1, err);
    if (st == OK) {
        *out = check_calloc(1, b.len);
        memcpy(*out, b.data, b.len);
    }
    buf_fini(&b);
    return st;
}

static enum status make_heads(enum call_format format, const json_t *tools, const char *name,
                              char *heads[CONSTRAINT_MAX_HEADS], size_t *count, struct error *err)
{
    for (size_t i = 0; i < json_array_size(tools) && *count < CONSTRAINT_MAX_HEADS; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        if (!own || (name && strcmp(own, name) != 0))
            continue;
        TRY(make_head(format, function, i, &heads[*count], err));
        ++*count;
    }
    return OK;
}

static enum status join(const char *tail, char *const *heads, size_t count, struct buf *text,
                        struct error *err)
{
    buf_clear(text);
    TRY(buf_append(text, tail, strlen(tail) + 1, err));
    for (size_t i = 0; i < count; i++)
        TRY(buf_append(text, heads[i], strlen(heads[i]) + 1, err));
    return OK;
}

enum status calls_must(enum call_format format, const json_t *tools, const char *name,
                       struct buf *text, struct constraint *out, struct error *err)
{
    char *heads[CONSTRAINT_MAX_HEADS];
    size_t count = 0;
    if (format != CALLS_HERMES && format != CALLS_CODER)
        return error_set(err, ERR_UNSUPPORTED,
                         "tool_choice: not supported for this model, which writes no calls (only "
                         "\"auto\" and \"none\" are)");
    enum status st = make_heads(format, tools, name, heads, &count, err);
    qsort(heads, count, sizeof *heads, by_text);
    if (st == OK)
        st = join(format == CALLS_HERMES ? behind_arguments : behind_parameters, heads, count, text,
                  err);
    for (size_t i = 0; i < count; i++)
        free(heads[i]);
    if (st == ERR_LIMIT || (st == OK && text->len > CONSTRAINT_MAX_TEXT))
        return error_set(err, ERR_INVALID,
                         "tool_choice: expected tools whose names, and for Qwen3-Coder those of "
                         "their parameters, have at most %d bytes together, some 50 for each tool "
                         "besides",
                         (int)CONSTRAINT_MAX_TEXT);
    TRY(st);
    *out = (struct constraint){.kind = format == CALLS_HERMES ? CONSTRAINT_CALL : CONSTRAINT_CODER,
                               .text = text->data,
                               .text_len = (uint32_t)text->len,
                               .heads = (uint16_t)count};
    return OK;
}
