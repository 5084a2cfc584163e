/* Anthropic's Messages API: see dialect.h. No state. Events and objects: Anthropic's API reference.
 */
#include "base/check.h"
#include "coordinator/anthropic_request.h"
#include "coordinator/dialect.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Clients send a thought back with its signature, and demand one; ours proves nothing. */
static const char signature[] = "d2l0YW4=";

static const char *stop_reason(const struct telling *t, const char *finish)
{
    if (*t->stop)
        return "stop_sequence";
    if (strcmp(finish, "length") == 0)
        return "max_tokens";
    return strcmp(finish, "tool_calls") == 0 ? "tool_use" : "end_turn";
}

/* Tokens that the prefix cache had are counted apart, as Anthropic does. */
static json_t *usage_of(const struct openai_usage *u)
{
    return json_pack("{s:I, s:i, s:I, s:I, s:{s:I}}", "input_tokens",
                     (json_int_t)(u->prompt_tokens - u->cached_tokens),
                     "cache_creation_input_tokens", 0, "cache_read_input_tokens",
                     (json_int_t)u->cached_tokens, "output_tokens",
                     (json_int_t)u->completion_tokens, "output_tokens_details", "thinking_tokens",
                     (json_int_t)u->reasoning_tokens);
}

static json_t *message_of(const struct openai_head *h, json_t *content, const char *reason,
                          json_t *usage)
{
    const char *stop = reason && *h->telling->stop ? h->telling->stop : NULL;
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", h->id, "type", "message",
                     "role", "assistant", "model", h->model, "content", content, "stop_reason",
                     reason, "stop_sequence", stop, "usage", usage);
}

/* --- streams -----------------------------------------------------------------------------------
 */

static enum status write_first(struct buf *b, const struct openai_head *h, int32_t index,
                               struct error *err)
{
    (void)index;
    json_t *usage = json_pack("{s:I, s:i, s:i, s:i}", "input_tokens", (json_int_t)h->prompt_tokens,
                              "cache_creation_input_tokens", 0, "cache_read_input_tokens", 0,
                              "output_tokens", 0);
    TRY(dialect_put_event(b, "message_start",
                          json_pack("{s:s, s:o}", "type", "message_start", "message",
                                    message_of(h, json_array(), NULL, usage)),
                          err));
    return dialect_put_event(b, "ping", json_pack("{s:s}", "type", "ping"), err);
}

static enum status write_delta(struct buf *b, const struct telling *t, const char *type,
                               const char *field, const char *text, size_t len, struct error *err)
{
    return dialect_put_event(b, "content_block_delta",
                             json_pack("{s:s, s:i, s:{s:s, s:s%}}", "type", "content_block_delta",
                                       "index", t->blocks - 1, "delta", "type", type, field, text,
                                       len),
                             err);
}

static enum status close_block(struct buf *b, struct telling *t, struct error *err)
{
    if (t->open == TOLD_NOTHING)
        return OK;
    if (t->open == TOLD_THOUGHT)
        TRY(write_delta(b, t, "signature_delta", "signature", signature, sizeof signature - 1,
                        err));
    t->open = TOLD_NOTHING;
    return dialect_put_event(
        b, "content_block_stop",
        json_pack("{s:s, s:i}", "type", "content_block_stop", "index", t->blocks - 1), err);
}

/* `block` is taken over. */
static enum status open_block(struct buf *b, struct telling *t, json_t *block, struct error *err)
{
    return dialect_put_event(b, "content_block_start",
                             json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index",
                                       t->blocks++, "content_block", block),
                             err);
}

static enum status write_text(struct buf *b, const struct openai_head *h, int32_t index,
                              bool reasoning, const char *text, size_t len,
                              const struct openai_logprobs *logprobs, struct error *err)
{
    struct telling *t = h->telling;
    (void)index, (void)logprobs;
    if (len == 0)
        return OK;
    if (t->open != (reasoning ? TOLD_THOUGHT : TOLD_TEXT)) {
        TRY(close_block(b, t, err));
        TRY(open_block(b, t,
                       reasoning ? json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "",
                                             "signature", "")
                                 : json_pack("{s:s, s:s}", "type", "text", "text", ""),
                       err));
        t->open = reasoning ? TOLD_THOUGHT : TOLD_TEXT;
    }
    return reasoning ? write_delta(b, t, "thinking_delta", "thinking", text, len, err)
                     : write_delta(b, t, "text_delta", "text", text, len, err);
}

/* Content and calls: a block each, in order. */
static enum status write_pieces(struct buf *b, const struct openai_head *h, int32_t index,
                                const struct openai_piece *pieces, int32_t count,
                                const struct openai_logprobs *logprobs, struct error *err)
{
    struct telling *t = h->telling;
    for (const struct openai_piece *p = pieces; p < pieces + count; p++) {
        if (p->call < 0) {
            TRY(write_text(b, h, index, false, p->text, p->len, logprobs, err));
            continue;
        }
        if (p->name) {
            TRY(close_block(b, t, err));
            TRY(open_block(b, t,
                           json_pack("{s:s, s:s, s:s, s:{}}", "type", "tool_use", "id", p->id,
                                     "name", p->name, "input"),
                           err));
            t->open = TOLD_CALL;
        }
        if (p->len > 0)
            TRY(write_delta(b, t, "input_json_delta", "partial_json", p->text, p->len, err));
        if (p->end)
            TRY(close_block(b, t, err));
    }
    return OK;
}

static enum status write_finish(struct buf *b, const struct openai_head *h, int32_t index,
                                const char *finish, const struct openai_logprobs *logprobs,
                                struct error *err)
{
    (void)index, (void)logprobs;
    h->telling->finish = finish;
    return close_block(b, h->telling, err);
}

static enum status write_end(struct buf *b, const struct openai_head *h,
                             const struct openai_usage *usage, struct error *err)
{
    const char *stop = *h->telling->stop ? h->telling->stop : NULL;
    TRY(dialect_put_event(b, "message_delta",
                          json_pack("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta",
                                    "stop_reason", stop_reason(h->telling, h->telling->finish),
                                    "stop_sequence", stop, "usage", usage_of(usage)),
                          err));
    return dialect_put_event(b, "message_stop", json_pack("{s:s}", "type", "message_stop"), err);
}

/* --- whole answers -----------------------------------------------------------------------------
 */

/* A call that broke off has no input, and nobody should run it: it is left out. */
static bool add_use(json_t *content, const struct openai_piece *c)
{
    json_t *input = dialect_arguments(c->text, c->len);
    if (input)
        json_array_append_new(content, json_pack("{s:s, s:s, s:s, s:o}", "type", "tool_use", "id",
                                                 c->id, "name", c->name, "input", input));
    return input != NULL;
}

static enum status write_answer(struct buf *b, const struct openai_head *h,
                                const struct openai_choice *c, int32_t count,
                                const struct openai_usage *usage, struct error *err)
{
    (void)count;
    json_t *content = json_array();
    if (c->reasoning_len > 0)
        json_array_append_new(content,
                              json_pack("{s:s, s:s%, s:s}", "type", "thinking", "thinking",
                                        c->reasoning, c->reasoning_len, "signature", signature));
    if (c->content_len > 0)
        json_array_append_new(
            content, json_pack("{s:s, s:s%}", "type", "text", "text", c->content, c->content_len));
    bool used = false;
    for (int32_t i = 0; i < c->call_count; i++)
        used |= add_use(content, &c->calls[i]);
    bool none = strcmp(c->finish, "tool_calls") == 0 && !used;
    const char *reason = none ? "end_turn" : stop_reason(h->telling, c->finish);
    return dialect_put(b, message_of(h, content, reason, usage_of(usage)), err);
}

/* --- models ------------------------------------------------------------------------------------
 */

static json_t *model_of(const struct openai_model *m)
{
    char when[32];
    struct tm utc;
    time_t created = (time_t)m->created;
    if (!gmtime_r(&created, &utc) || strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(when, sizeof when, "1970-01-01T00:00:00Z"); /* a date that no calendar has */
    return json_pack("{s:s, s:o, s:o, s:s, s:s, s:i, s:i}", "type", "model", "id",
                     dialect_lossy(m->id), "display_name", dialect_lossy(m->id), "created_at", when,
                     "lifecycle", "active", "max_input_tokens", (int)m->max_model_len, "max_tokens",
                     (int)m->max_model_len);
}

static enum status write_model(struct buf *b, const struct openai_model *m, struct error *err)
{
    return dialect_put(b, model_of(m), err);
}

static enum status write_models(struct buf *b, const struct openai_model *m, struct error *err)
{
    return dialect_put(b,
                       json_pack("{s:[o], s:b, s:o, s:o}", "data", model_of(m), "has_more", false,
                                 "first_id", dialect_lossy(m->id), "last_id", dialect_lossy(m->id)),
                       err);
}

/* --- errors ------------------------------------------------------------------------------------
 */

static const char *error_type(int status)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {
        {400, "invalid_request_error"}, {401, "authentication_error"},
        {403, "permission_error"},      {404, "not_found_error"},
        {405, "invalid_request_error"}, {409, "invalid_request_error"},
        {413, "request_too_large"},     {429, "rate_limit_error"},
        {503, "overloaded_error"},      {504, "timeout_error"},
    };
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (types[i].status == status)
            return types[i].type;
    return "api_error";
}

static json_t *error_of(const struct openai_failure *f)
{
    return json_pack("{s:s, s:{s:s, s:o}, s:s?}", "type", "error", "error", "type",
                     error_type(f->status), "message", dialect_lossy(f->message), "request_id",
                     f->request);
}

static enum status write_error(struct buf *b, const struct openai_failure *f, struct error *err)
{
    return dialect_put(b, error_of(f), err);
}

static enum status write_stream_error(struct buf *b, const struct openai_head *h,
                                      const struct openai_failure *f, struct error *err)
{
    (void)h;
    return dialect_put_event(b, "error", error_of(f), err);
}

static const struct dialect_name names[] = {
    {"tool_choice.function.name", "tool_choice.name"},
    {"stop", "stop_sequences"},
    {"enable_thinking", "thinking"},
    {"thinking_budget", "thinking.budget_tokens"},
    {"parallel_tool_calls", "tool_choice.disable_parallel_tool_use"},
    {0},
};

const struct dialect dialect_anthropic = {
    .id = "msg_",
    .stream_type = "text/event-stream; charset=utf-8",
    .quiet = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    .request_id = "request-id",
    .translate = anthropic_translate,
    .names = names,
    .flat_tools = true,
    .arguments = "input",
    .first = write_first,
    .text = write_text,
    .pieces = write_pieces,
    .finish = write_finish,
    .end = write_end,
    .answer = write_answer,
    .models = write_models,
    .model = write_model,
    .error = write_error,
    .stream_error = write_stream_error,
};
