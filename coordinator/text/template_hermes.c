/*
 * The Qwen3 and Qwen2.5 templates that print tools and calls as JSON. They share one shape and
 * differ in what rules_of says. No state.
 *
 * A turn is <|im_start|>ROLE \n TEXT <|im_end|> \n. Consecutive tool results share one user turn.
 * Reasoning is kept only in the turns after the last real user query, since models are trained to
 * answer without the reasoning of earlier answers.
 */
#include "coordinator/text/template_family.h"

#include <string.h>

struct rules {
    bool strings_only;       /* content that is not a string counts as empty */
    bool reasoning;          /* answers are split into reasoning and text */
    bool switchable;         /* enable_thinking=false closes the reasoning in the prompt */
    const char *answer_open; /* the prompt's last words */
    const char *system;      /* the system message where there is none; NULL: no turn then */
    bool quoted_strings;     /* `arguments` that are a string are printed as JSON prints it */
};

#define ANSWER_OPEN "<|im_start|>assistant\n"

static const char default_system[] =
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

static const struct rules rules_of[TEMPLATE_COUNT] = {
    [TEMPLATE_QWEN3] = {false, true, true, ANSWER_OPEN, NULL, false},
    [TEMPLATE_QWEN3_REV] = {true, true, true, ANSWER_OPEN, NULL, false},
    [TEMPLATE_QWEN3_INSTRUCT_2507] = {true, false, false, ANSWER_OPEN, NULL, false},
    [TEMPLATE_QWEN3_THINKING_2507] = {true, true, false, ANSWER_OPEN "<think>\n", NULL, false},
    [TEMPLATE_QWEN2_5] = {false, false, false, ANSWER_OPEN, default_system, true},
};

/* One rendering under way. */
struct hermes {
    const struct rules *rules;
    const struct template_conversation *c;
    size_t last_query; /* the index of the last real user query */
    struct template_out *o;
};

static struct template_text content_of(const struct hermes *h, const struct template_message *m)
{
    if (h->rules->strings_only && m->kind != TEMPLATE_CONTENT_STRING)
        return (struct template_text){"", 0};
    return m->text;
}

/* ---- the system turn ---- */

static const char tools_head[] =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
static const char tools_tail[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

static enum status write_tools(const json_t *tools, struct template_out *o, struct error *err)
{
    TRY(template_literal(o, tools_head, err));
    for (size_t i = 0; i < json_array_size(tools); i++) {
        TRY(template_literal(o, "\n", err));
        enum status st = template_json(o, json_array_get(tools, i), err);
        if (st != OK) {
            error_prefix(err, "tools[%zu]: ", i);
            return st;
        }
    }
    return template_literal(o, tools_tail, err);
}

/* The system message's own words. With tools, Qwen2.5's template prints what is no string as Python
 * does. */
static enum status write_system_words(const struct hermes *h, bool printed, struct error *err)
{
    const struct template_message *first = &h->c->messages[0];
    if (!template_role_is(first, "system"))
        return template_literal(h->o, h->rules->system, err);
    if (printed && first->content)
        return template_str(h->o, first->content, err);
    return template_plain(h->o, first->text, err);
}

static enum status write_system(const struct hermes *h, const json_t *tools, struct error *err)
{
    bool speaks = template_role_is(&h->c->messages[0], "system") || h->rules->system;
    if (!speaks && !tools)
        return OK;
    TRY(template_literal(h->o, "<|im_start|>system\n", err));
    if (speaks)
        TRY(write_system_words(h, tools && h->rules->system, err));
    if (tools) {
        if (speaks)
            TRY(template_literal(h->o, "\n\n", err));
        TRY(write_tools(tools, h->o, err));
    }
    return template_literal(h->o, "<|im_end|>\n", err);
}

/* ---- answers ---- */

/* The last place of `word` in `t`, or its first; NULL when it is not there. */
static const char *find_last(struct template_text t, const char *word)
{
    size_t len = strlen(word);
    for (size_t i = t.len; i >= len; i--) {
        if (memcmp(t.data + i - len, word, len) == 0)
            return t.data + i - len;
    }
    return NULL;
}

static const char *find_first(struct template_text t, const char *word)
{
    return memmem(t.data, t.len, word, strlen(word));
}

static struct template_text tail_from(struct template_text t, const char *from)
{
    return (struct template_text){from, (size_t)(t.data + t.len - from)};
}

/* Content that holds </think> came with its reasoning in it: what stands before the first </think>
 * (after the last <think> there) is the reasoning, what stands after the last one is the answer. */
static void split_reasoning(struct template_text *content, struct template_text *reasoning)
{
    const char *first = find_first(*content, "</think>");
    if (!first)
        return;
    const char *last = find_last(*content, "</think>");
    struct template_text r = {content->data, (size_t)(first - content->data)};
    r = template_rstrip_newlines(r);
    const char *open = find_last(r, "<think>");
    if (open)
        r = tail_from(r, open + strlen("<think>"));
    *reasoning = template_lstrip_newlines(r);
    *content = template_lstrip_newlines(tail_from(*content, last + strlen("</think>")));
}

static enum status write_arguments(const struct hermes *h, const struct template_call *call,
                                   struct error *err)
{
    json_t *held = NULL;
    bool quoted = h->rules->quoted_strings;
    if (!json_is_string(call->arguments))
        return template_json(h->o, call->arguments, err);
    if (quoted && template_call_parse(call, &held, NULL) == OK && !held)
        quoted = false; /* an object that template_normalise left as it is */
    json_decref(held);
    return quoted ? template_json(h->o, call->arguments, err)
                  : template_plain(h->o, template_text_of(call->arguments), err);
}

static enum status write_call(const struct hermes *h, size_t i, size_t j, struct error *err)
{
    struct template_call call;
    TRY(template_call_get(h->c, i, j, &call, err));
    TRY(template_call_need_arguments(&call, err));
    TRY(template_literal(h->o, "<tool_call>\n{\"name\": \"", err));
    TRY(template_plain(h->o, template_text_of(call.name), err));
    TRY(template_literal(h->o, "\", \"arguments\": ", err));
    enum status st = write_arguments(h, &call, err);
    if (st != OK) {
        error_prefix(err, "%s.arguments: ", call.path);
        return st;
    }
    return template_literal(h->o, "}\n</tool_call>", err);
}

static enum status write_answer(const struct hermes *h, size_t i, struct error *err)
{
    const struct template_message *m = &h->c->messages[i];
    struct template_text content = content_of(h, m);
    struct template_text reasoning = {"", 0};
    if (h->rules->reasoning && m->reasoning)
        reasoning = template_text_of(m->reasoning);
    else if (h->rules->reasoning)
        split_reasoning(&content, &reasoning);

    TRY(template_literal(h->o, ANSWER_OPEN, err));
    bool last = i + 1 == h->c->count;
    if (h->rules->reasoning && i > h->last_query && (last || reasoning.len)) {
        reasoning = template_rstrip_newlines(template_lstrip_newlines(reasoning));
        TRY(template_literal(h->o, "<think>\n", err));
        TRY(template_plain(h->o, reasoning, err));
        TRY(template_literal(h->o, "\n</think>\n\n", err));
        TRY(template_plain(h->o, template_lstrip_newlines(content), err));
    } else {
        TRY(template_plain(h->o, content, err));
    }
    for (size_t j = 0; j < json_array_size(m->calls); j++) {
        if (j > 0 || content.len)
            TRY(template_literal(h->o, "\n", err));
        TRY(write_call(h, i, j, err));
    }
    return template_literal(h->o, "<|im_end|>\n", err);
}

/* ---- the other turns ---- */

static enum status write_turn(const struct hermes *h, size_t i, struct error *err)
{
    const struct template_message *m = &h->c->messages[i];
    TRY(template_literal(h->o, "<|im_start|>", err));
    TRY(template_plain(h->o, template_text_of(m->role), err));
    TRY(template_literal(h->o, "\n", err));
    TRY(template_plain(h->o, content_of(h, m), err));
    return template_literal(h->o, "<|im_end|>\n", err);
}

static enum status write_result(const struct hermes *h, size_t i, struct error *err)
{
    const struct template_message *m = &h->c->messages[i];
    if (i == 0 || !template_role_is(m - 1, "tool"))
        TRY(template_literal(h->o, "<|im_start|>user", err));
    TRY(template_literal(h->o, "\n<tool_response>\n", err));
    if (h->rules->strings_only)
        TRY(template_plain(h->o, content_of(h, m), err));
    else if (m->content)
        TRY(template_str(h->o, m->content, err));
    TRY(template_literal(h->o, "\n</tool_response>", err));
    if (i + 1 == h->c->count || !template_role_is(m + 1, "tool"))
        TRY(template_literal(h->o, "<|im_end|>\n", err));
    return OK;
}

static bool text_has_ends(struct template_text t, const char *begin, const char *end)
{
    size_t begin_len = strlen(begin);
    size_t end_len = strlen(end);
    return t.len >= begin_len && t.len >= end_len && memcmp(t.data, begin, begin_len) == 0 &&
           memcmp(t.data + t.len - end_len, end, end_len) == 0;
}

/* The last user message that is not wholly a tool's result; the last message when there is none. */
static size_t find_last_query(const struct hermes *h)
{
    for (size_t i = h->c->count; i-- > 0;) {
        const struct template_message *m = &h->c->messages[i];
        if (!template_role_is(m, "user"))
            continue;
        if (h->rules->strings_only && m->kind != TEMPLATE_CONTENT_STRING)
            continue;
        if (!text_has_ends(m->text, "<tool_response>", "</tool_response>"))
            return i;
    }
    return h->c->count - 1;
}

static enum status write_message(const struct hermes *h, size_t i, struct error *err)
{
    const struct template_message *m = &h->c->messages[i];
    if (template_role_is(m, "user") || (template_role_is(m, "system") && i > 0))
        return write_turn(h, i, err);
    if (template_role_is(m, "assistant"))
        return write_answer(h, i, err);
    if (template_role_is(m, "tool"))
        return write_result(h, i, err);
    return OK; /* the first system message is written already; other roles have no turn */
}

enum status template_hermes(enum template_kind kind, const struct template_input *in,
                            struct template_out *o, struct error *err)
{
    struct hermes h = {.rules = &rules_of[kind], .c = &in->conversation, .o = o};
    h.last_query = find_last_query(&h);
    TRY(write_system(&h, in->tools, err));
    for (size_t i = 0; i < h.c->count; i++)
        TRY(write_message(&h, i, err));
    if (!in->generation_prompt)
        return OK;
    TRY(template_literal(o, h.rules->answer_open, err));
    if (h.rules->switchable && in->no_thinking)
        TRY(template_literal(o, "<think>\n\n</think>\n\n", err));
    return OK;
}
