/* See load_answer.h. No state. */
#include "cli/load_answer.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

static bool has_text(const json_t *o, const char *key)
{
    return json_string_length(json_object_get(o, key)) > 0;
}

/* Text of completions; content, reasoning (under both of its names) and tool calls of chats. */
static bool holds_tokens(const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    return has_text(choice, "text") || has_text(delta, "content") ||
           has_text(delta, "reasoning_content") || has_text(delta, "reasoning") ||
           json_array_size(json_object_get(delta, "tool_calls")) > 0;
}

static enum status take_usage(struct load_answer *a, const json_t *usage, struct error *err)
{
    int64_t prompt = 0, output = 0, cached = 0;
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    TRY(json_get_int(usage, "usage", "prompt_tokens", true, 0, INT32_MAX, &prompt, err));
    TRY(json_get_int(usage, "usage", "completion_tokens", false, 0, INT32_MAX, &output, err));
    if (json_is_object(details))
        TRY(json_get_int(details, "usage.prompt_tokens_details", "cached_tokens", false, 0,
                         INT32_MAX, &cached, err));
    a->usage = true;
    a->prompt_tokens = (int32_t)prompt;
    a->output_tokens = (int32_t)output;
    a->cached_tokens = (int32_t)cached;
    return OK;
}

/* As one line in `out`. */
static void copy_words(const char *words, size_t len, char *out, size_t size)
{
    struct error line;
    error_set(&line, ERR_INVALID, "%.*s", (int)(len < size ? len : size - 1), words);
    snprintf(out, size, "%s", line.msg);
}

/* {"error": {"message": ...}}, {"error": "..."}, {"message": ...}; NULL: none of them. */
static const char *message_of(const json_t *o)
{
    const json_t *error = json_object_get(o, "error");
    const char *words = json_string_value(json_object_get(error, "message"));
    if (!words)
        words = json_string_value(error);
    return words ? words : json_string_value(json_object_get(o, "message"));
}

static enum status take_event(struct load_answer *a, const json_t *event, bool *tokens,
                              struct error *err)
{
    const json_t *choices = json_object_get(event, "choices"), *choice;
    const json_t *usage = json_object_get(event, "usage"), *error = json_object_get(event, "error");
    size_t i;
    if (error && !json_is_null(error)) {
        const char *words = message_of(event);
        words = words ? words : "an error without a message";
        copy_words(words, strlen(words), a->failed, sizeof a->failed);
        return OK;
    }
    json_array_foreach(choices, i, choice)
    {
        *tokens = *tokens || holds_tokens(choice);
        a->finished = a->finished || json_is_string(json_object_get(choice, "finish_reason"));
    }
    return json_is_object(usage) ? take_usage(a, usage, err) : OK;
}

enum status load_answer_event(struct load_answer *a, const char *data, size_t len, bool *tokens,
                              struct error *err)
{
    json_error_t why;
    *tokens = false;
    if (len == 6 && memcmp(data, "[DONE]", 6) == 0) {
        a->done = true;
        return OK;
    }
    json_t *event = json_loadb(data, len, JSON_ALLOW_NUL,
                               &why); /* a model may draw any character */
    if (!event)
        return error_set(err, ERR_INVALID, "event: column %d: %s", why.column, why.text);
    enum status st = json_is_object(event)
                         ? take_event(a, event, tokens, err)
                         : error_set(err, ERR_INVALID, "event: expected an object, found %s",
                                     json_type_words(event));
    json_decref(event);
    return st;
}

void load_answer_error(const char *body, size_t len, char *out, size_t size)
{
    json_t *o = NULL;
    const char *words = json_parse("body", body, len, &o, NULL) == OK ? message_of(o) : NULL;
    if (!words && len == 0)
        words = "without a word";
    copy_words(words ? words : body, words ? strlen(words) : len, out, size);
    json_decref(o);
}
