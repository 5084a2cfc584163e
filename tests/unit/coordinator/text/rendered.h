/* For tests of the templates: conversations in JSON, and what must hold of every rendered one. */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_TEXT_RENDERED_H
#define WITAN_TESTS_UNIT_COORDINATOR_TEXT_RENDERED_H

#include "coordinator/text/template.h"

#include <jansson.h>

static const char *const special_tokens[] = {
    "<|im_start|>", "<|im_end|>",   "<think>",         "</think>",
    "<tool_call>",  "</tool_call>", "<tool_response>", "</tool_response>",
};

static inline json_t *parse(const char *text, size_t len)
{
    json_error_t je;
    json_t *v = json_loadb(text, len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &je);
    if (!v)
        fail_msg("%s in %.200s", je.text, text);
    return v;
}

static inline bool is_special(const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof special_tokens / sizeof *special_tokens; i++) {
        if (strlen(special_tokens[i]) == len && memcmp(text, special_tokens[i], len) == 0)
            return true;
    }
    return false;
}

static inline void check_spans(const struct template_rendered *r)
{
    size_t end = 0;
    for (size_t i = 0; i < r->span_count; i++) {
        struct template_span s = r->spans[i];
        assert_true(s.begin >= end && s.end <= r->len && s.begin < s.end);
        assert_true(is_special(r->text + s.begin, s.end - s.begin));
        end = s.end;
    }
    assert_int_equal(r->text[r->len], '\0');
}

#endif
