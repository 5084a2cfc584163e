/* Calls that an answer must be, as a constraint: see calls.h. No state. */
#include "base/check.h"
#include "coordinator/calls_private.h"

#include <stdlib.h>
#include <string.h>

/* What stands around the arguments of a call of HERMES. */
static const char before_name[] = "<tool_call>\n{\"name\": \"",
                  behind_name[] = "\", \"arguments\": ", behind_arguments[] = "}\n</tool_call>";

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *head_of(const char *name)
{
    size_t size = sizeof before_name + strlen(name) + sizeof behind_name;
    char *head = check_calloc(1, size);
    memcpy(head, before_name, sizeof before_name - 1);
    memcpy(head + strlen(head), name, strlen(name));
    memcpy(head + strlen(head), behind_name, sizeof behind_name - 1);
    return head;
}

enum status calls_must(enum call_format format, const json_t *tools, const char *name,
                       struct buf *text, struct constraint *out, struct error *err)
{
    char *heads[CONSTRAINT_MAX_HEADS];
    size_t count = 0;
    enum status st = OK;
    if (format != CALLS_HERMES)
        return error_set(err, ERR_UNSUPPORTED,
                         "tool_choice: not supported for this model, which does not write calls "
                         "as JSON (only \"auto\" and \"none\" are)");
    for (size_t i = 0; i < json_array_size(tools) && count < CONSTRAINT_MAX_HEADS; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const char *own = json_string_value(json_object_get(function, "name"));
        if (own && (!name || strcmp(own, name) == 0))
            heads[count++] = head_of(own);
    }
    qsort(heads, count, sizeof *heads, by_text);
    buf_clear(text);
    st = buf_append(text, behind_arguments, sizeof behind_arguments, err);
    for (size_t i = 0; i < count; i++) {
        if (st == OK)
            st = buf_append(text, heads[i], strlen(heads[i]) + 1, err);
        free(heads[i]);
    }
    TRY(st);
    if (text->len > CONSTRAINT_MAX_TEXT)
        return error_set(err, ERR_INVALID,
                         "tool_choice: expected tools whose names have at most %d bytes together, "
                         "with %zu for each tool besides, found %zu in all",
                         (int)CONSTRAINT_MAX_TEXT, sizeof before_name + sizeof behind_name,
                         text->len);
    *out = (struct constraint){.kind = CONSTRAINT_CALL,
                               .text = text->data,
                               .text_len = (uint32_t)text->len,
                               .heads = (uint16_t)count};
    return OK;
}
