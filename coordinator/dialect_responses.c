/* OpenAI's Responses API: see dialect.h. No state. Events and objects: OpenAI's API reference. An
 * answer is a list of items: what was thought, the message, calls. */
#include "coordinator/dialect.h"
#include "coordinator/responses_request.h"

#include <string.h>

/* --- objects -----------------------------------------------------------------------------------
 */

/* "rs_...", "msg_..." and "fc_..." follow from the response's own id and the item's place. */
static json_t *item_id(const struct openai_head *h, const char *word, int32_t index)
{
    char words[96];
    snprintf(words, sizeof words, "%s_%s_%d", word, h->id + strlen(dialect_responses.id), index);
    return json_string(words);
}

/* The part that holds an item's text. */
static json_t *part_of(bool reasoning, const char *text, size_t len)
{
    return reasoning ? json_pack("{s:s, s:s%}", "type", "reasoning_text", "text", text, len)
                     : json_pack("{s:s, s:s%, s:[], s:[]}", "type", "output_text", "text", text,
                                 len, "annotations", "logprobs");
}

/* `part` NULL: none yet. */
static json_t *item_of(const struct openai_head *h, bool reasoning, int32_t index,
                       const char *status, json_t *part)
{
    json_t *content = part ? json_pack("[o]", part) : json_array();
    json_t *id = item_id(h, reasoning ? "rs" : "msg", index);
    return reasoning
               ? json_pack("{s:o, s:s, s:[], s:o, s:n, s:s}", "id", id, "type", "reasoning",
                           "summary", "content", content, "encrypted_content", "status", status)
               : json_pack("{s:o, s:s, s:s, s:s, s:o}", "id", id, "type", "message", "status",
                           status, "role", "assistant", "content", content);
}

static json_t *call_of(const struct openai_head *h, int32_t index, const char *status,
                       const char *id, const char *name, const char *arguments, size_t len)
{
    return json_pack("{s:o, s:s, s:s, s:s, s:s, s:o}", "id", item_id(h, "fc", index), "type",
                     "function_call", "status", status, "call_id", id, "name", name, "arguments",
                     json_stringn(len ? arguments : "", len));
}

static json_t *usage_of(const struct openai_usage *u)
{
    if (!u)
        return json_null();
    return json_pack("{s:I, s:{s:I}, s:I, s:{s:I}, s:I}", "input_tokens",
                     (json_int_t)u->prompt_tokens, "input_tokens_details", "cached_tokens",
                     (json_int_t)u->cached_tokens, "output_tokens",
                     (json_int_t)u->completion_tokens, "output_tokens_details", "reasoning_tokens",
                     (json_int_t)u->reasoning_tokens, "total_tokens",
                     (json_int_t)(u->prompt_tokens + u->completion_tokens));
}

/* `output` and `error` are taken over; `error` may be NULL. */
static json_t *response_of(const struct openai_head *h, const char *status, json_t *output,
                           const struct openai_usage *usage, json_t *error)
{
    bool cut = strcmp(status, "incomplete") == 0;
    json_t *why = cut ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null();
    return json_pack("{s:s, s:s, s:I, s:s, s:o, s:o, s:s, s:o, s:n, s:b, s:b, s:s, s:[], s:o}",
                     "id", h->id, "object", "response", "created_at", (json_int_t)h->created,
                     "status", status, "error", error ? error : json_null(), "incomplete_details",
                     why, "model", h->model, "output", output, "previous_response_id",
                     "parallel_tool_calls", 1, "store", 0, "tool_choice", "auto", "tools", "usage",
                     usage_of(usage));
}

static const char *status_of(const char *finish)
{
    return strcmp(finish, "length") == 0 ? "incomplete" : "completed";
}

/* --- streams -----------------------------------------------------------------------------------
 */

/* Takes `v` over, an object, and gives it type and number. */
static enum status put(struct buf *b, const struct openai_head *h, const char *type, json_t *v,
                       struct error *err)
{
    json_t *event = json_pack("{s:s, s:i}", "type", type, "sequence_number", h->telling->events++);
    if (v && event && json_object_update(event, v) != 0) {
        json_decref(event);
        event = NULL;
    }
    if (!v) {
        json_decref(event);
        event = NULL;
    }
    json_decref(v);
    return dialect_put_event(b, type, event, err);
}

static enum status write_first(struct buf *b, const struct openai_head *h, int32_t index,
                               struct error *err)
{
    static const char *const types[] = {"response.created", "response.in_progress"};
    (void)index;
    for (int i = 0; i < 2; i++)
        TRY(put(
            b, h, types[i],
            json_pack("{s:o}", "response", response_of(h, "in_progress", json_array(), NULL, NULL)),
            err));
    return OK;
}

/* What events about the open item's part begin with. */
static json_t *at_part(const struct openai_head *h)
{
    const struct telling *t = h->telling;
    return json_pack("{s:o, s:i, s:i}", "item_id",
                     item_id(h, t->open == TOLD_THOUGHT ? "rs" : "msg", t->blocks - 1),
                     "output_index", t->blocks - 1, "content_index", 0);
}

/* The same with another field; `v` is taken over. */
static json_t *part_with(const struct openai_head *h, const char *name, json_t *v)
{
    json_t *event = at_part(h);
    if (event && json_object_set_new(event, name, v) == 0)
        return event;
    json_decref(event);
    return NULL;
}

/* output_text's events have a list of logprobs besides. */
static json_t *with_logprobs(json_t *event, bool reasoning)
{
    if (event && !reasoning)
        json_object_set_new(event, "logprobs", json_array());
    return event;
}

static enum status open_item(struct buf *b, const struct openai_head *h, bool reasoning,
                             struct error *err)
{
    struct telling *t = h->telling;
    t->open = reasoning ? TOLD_THOUGHT : TOLD_TEXT;
    int32_t index = t->blocks++;
    TRY(put(b, h, "response.output_item.added",
            json_pack("{s:i, s:o}", "output_index", index, "item",
                      item_of(h, reasoning, index, "in_progress", NULL)),
            err));
    return put(b, h, "response.content_part.added", part_with(h, "part", part_of(reasoning, "", 0)),
               err);
}

/* Keeps the item for the response's end. */
static enum status keep_item(struct telling *t, const json_t *item, struct error *err)
{
    if (t->items.len > 0)
        TRY(buf_puts(&t->items, ",", err));
    return dialect_put(&t->items, json_incref((json_t *)item), err);
}

/* The open item is over. Takes `item` over, as it is in the end. */
static enum status end_item(struct buf *b, const struct openai_head *h, json_t *item,
                            struct error *err)
{
    struct telling *t = h->telling;
    t->open = TOLD_NOTHING;
    buf_clear(&t->text);
    enum status st = keep_item(t, item, err);
    if (st == OK)
        st = put(b, h, "response.output_item.done",
                 json_pack("{s:i, s:O}", "output_index", t->blocks - 1, "item", item), err);
    json_decref(item);
    return st;
}

static enum status close_call(struct buf *b, const struct openai_head *h, const char *status,
                              struct error *err)
{
    const struct telling *t = h->telling;
    const char *text = t->text.len ? t->text.data : "";
    TRY(put(b, h, "response.function_call_arguments.done",
            json_pack("{s:o, s:i, s:s, s:s%}", "item_id", item_id(h, "fc", t->blocks - 1),
                      "output_index", t->blocks - 1, "name", t->name.data, "arguments", text,
                      t->text.len),
            err));
    return end_item(
        b, h, call_of(h, t->blocks - 1, status, t->id.data, t->name.data, text, t->text.len), err);
}

static enum status close_item(struct buf *b, const struct openai_head *h, const char *status,
                              struct error *err)
{
    const struct telling *t = h->telling;
    bool reasoning = t->open == TOLD_THOUGHT;
    if (t->open == TOLD_NOTHING)
        return OK;
    if (t->open == TOLD_CALL) /* it broke off */
        return close_call(b, h, "incomplete", err);
    const char *text = t->text.data;
    size_t len = t->text.len;
    TRY(put(b, h, reasoning ? "response.reasoning_text.done" : "response.output_text.done",
            with_logprobs(part_with(h, "text", json_stringn(text, len)), reasoning), err));
    TRY(put(b, h, "response.content_part.done", part_with(h, "part", part_of(reasoning, text, len)),
            err));
    return end_item(
        b, h, item_of(h, reasoning, t->blocks - 1, status, part_of(reasoning, text, len)), err);
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
        TRY(close_item(b, h, "completed", err));
        TRY(open_item(b, h, reasoning, err));
    }
    TRY(buf_append(&t->text, text, len, err));
    return put(b, h, reasoning ? "response.reasoning_text.delta" : "response.output_text.delta",
               with_logprobs(part_with(h, "delta", json_stringn(text, len)), reasoning), err);
}

static enum status open_call(struct buf *b, const struct openai_head *h,
                             const struct openai_piece *p, struct error *err)
{
    struct telling *t = h->telling;
    TRY(close_item(b, h, "completed", err));
    buf_clear(&t->id);
    buf_clear(&t->name);
    TRY(buf_puts(&t->id, p->id, err));
    TRY(buf_puts(&t->name, p->name, err));
    t->open = TOLD_CALL;
    int32_t index = t->blocks++;
    return put(b, h, "response.output_item.added",
               json_pack("{s:i, s:o}", "output_index", index, "item",
                         call_of(h, index, "in_progress", p->id, p->name, "", 0)),
               err);
}

static enum status write_call(struct buf *b, const struct openai_head *h,
                              const struct openai_piece *p, struct error *err)
{
    struct telling *t = h->telling;
    if (p->name)
        TRY(open_call(b, h, p, err));
    if (p->len > 0) {
        TRY(buf_append(&t->text, p->text, p->len, err));
        TRY(put(b, h, "response.function_call_arguments.delta",
                json_pack("{s:o, s:i, s:s%}", "item_id", item_id(h, "fc", t->blocks - 1),
                          "output_index", t->blocks - 1, "delta", p->text, p->len),
                err));
    }
    return p->end ? close_call(b, h, "completed", err) : OK;
}

static enum status write_pieces(struct buf *b, const struct openai_head *h, int32_t index,
                                const struct openai_piece *pieces, int32_t count,
                                const struct openai_logprobs *logprobs, struct error *err)
{
    for (const struct openai_piece *p = pieces; p < pieces + count; p++) {
        if (p->call < 0)
            TRY(write_text(b, h, index, false, p->text, p->len, logprobs, err));
        else
            TRY(write_call(b, h, p, err));
    }
    return OK;
}

static enum status write_finish(struct buf *b, const struct openai_head *h, int32_t index,
                                const char *finish, const struct openai_logprobs *logprobs,
                                struct error *err)
{
    (void)index, (void)logprobs;
    h->telling->finish = finish;
    return close_item(b, h, status_of(finish), err);
}

/* What was told, as the response's output. NULL: no memory. */
static json_t *output_of(const struct telling *t)
{
    struct buf list;
    json_t *output = NULL;
    buf_init(&list, t->items.len + 2);
    if (buf_puts(&list, "[", NULL) == OK &&
        buf_append(&list, t->items.data ? t->items.data : "", t->items.len, NULL) == OK &&
        buf_puts(&list, "]", NULL) == OK)
        output = json_loadb(list.data, list.len, JSON_ALLOW_NUL, NULL);
    buf_fini(&list);
    return output;
}

static enum status write_end(struct buf *b, const struct openai_head *h,
                             const struct openai_usage *usage, struct error *err)
{
    const char *status = status_of(h->telling->finish);
    char type[32];
    snprintf(type, sizeof type, "response.%s", status);
    return put(
        b, h, type,
        json_pack("{s:o}", "response", response_of(h, status, output_of(h->telling), usage, NULL)),
        err);
}

/* --- whole answers -----------------------------------------------------------------------------
 */

static enum status write_answer(struct buf *b, const struct openai_head *h,
                                const struct openai_choice *c, int32_t count,
                                const struct openai_usage *usage, struct error *err)
{
    (void)count;
    const char *status = status_of(c->finish), *text = c->call_count > 0 ? "completed" : status;
    json_t *output = json_array();
    if (c->reasoning_len > 0)
        json_array_append_new(output, item_of(h, true, 0, c->content_len > 0 ? "completed" : text,
                                              part_of(true, c->reasoning, c->reasoning_len)));
    if (c->content_len > 0)
        json_array_append_new(output, item_of(h, false, (int32_t)json_array_size(output), text,
                                              part_of(false, c->content, c->content_len)));
    for (int32_t i = 0; i < c->call_count; i++) {
        json_t *arguments = dialect_arguments(c->calls[i].text, c->calls[i].len);
        json_array_append_new(output,
                              call_of(h, (int32_t)json_array_size(output),
                                      arguments ? "completed" : "incomplete", c->calls[i].id,
                                      c->calls[i].name, c->calls[i].text, c->calls[i].len));
        json_decref(arguments);
    }
    return dialect_put(b, response_of(h, status, output, usage, NULL), err);
}

static enum status write_stream_error(struct buf *b, const struct openai_head *h,
                                      const struct openai_failure *f, struct error *err)
{
    json_t *why = json_pack("{s:s, s:o}", "code",
                            f->status == 429 ? "rate_limit_exceeded" : "server_error", "message",
                            dialect_lossy(f->message));
    return put(
        b, h, "response.failed",
        json_pack("{s:o}", "response", response_of(h, "failed", output_of(h->telling), NULL, why)),
        err);
}

static const struct dialect_name names[] = {
    {"tool_choice.function.name", "tool_choice.name"},
    {"max_tokens", "max_output_tokens"},
    {"messages", "input"},
    {"response_format", "text.format"},
    {"reasoning_effort", "reasoning.effort"},
    {0},
};

const struct dialect dialect_responses = {
    .id = "resp_",
    .stream_type = "text/event-stream; charset=utf-8",
    .quiet = ": waiting\n\n",
    .translate = responses_translate,
    .names = names,
    .flat_tools = true,
    .first = write_first,
    .text = write_text,
    .pieces = write_pieces,
    .finish = write_finish,
    .end = write_end,
    .answer = write_answer,
    .error = openai_write_error,
    .stream_error = write_stream_error,
};
