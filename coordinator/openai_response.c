/* Writing OpenAI's JSON: see openai_response.h. No state. */
#include "coordinator/openai_response.h"
#include "coordinator/text/utf8.h"

#include <string.h>

static enum status put_string(struct buf *b, const char *s, struct error *err)
{
    return buf_json_string(b, s, strlen(s), err);
}

/* `name` with its punctuation, then the text as a JSON string. */
static enum status put_field(struct buf *b, const char *name, const char *text, size_t len,
                             struct error *err)
{
    TRY(buf_puts(b, name, err));
    return buf_json_string(b, len ? text : "", len, err);
}

static enum status put_or_null(struct buf *b, const char *name, const char *text, struct error *err)
{
    if (text && *text)
        return put_field(b, name, text, strlen(text), err);
    TRY(buf_puts(b, name, err));
    return buf_puts(b, "null", err);
}

/* Up to and with the opening bracket of the choices. */
static enum status put_head(struct buf *b, const struct openai_head *h, const char *object,
                            struct error *err)
{
    TRY(buf_puts(b, "{\"id\":", err));
    TRY(put_string(b, h->id, err));
    TRY(buf_printf(b, err, ",\"object\":\"%s\",\"created\":%lld,\"model\":", object,
                   (long long)h->created));
    TRY(put_string(b, h->model, err));
    TRY(put_or_null(b, ",\"system_fingerprint\":", h->fingerprint, err));
    return buf_puts(b, ",\"choices\":[", err);
}

/* `cached_tokens` below 0: the details are not known yet. */
static enum status put_usage(struct buf *b, const struct openai_usage *u, struct error *err)
{
    TRY(buf_printf(b, err,
                   ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                   "\"total_tokens\":%lld",
                   (long long)u->prompt_tokens, (long long)u->completion_tokens,
                   (long long)(u->prompt_tokens + u->completion_tokens)));
    if (u->cached_tokens < 0)
        return buf_puts(b, "}", err);
    TRY(buf_printf(b, err,
                   ",\"prompt_tokens_details\":{\"cached_tokens\":%lld},"
                   "\"completion_tokens_details\":{\"reasoning_tokens\":%lld}",
                   (long long)u->cached_tokens, (long long)u->reasoning_tokens));
    if (u->joules > 0)
        TRY(buf_printf(b, err, ",\"energy_joules\":%.6g", u->joules));
    return buf_puts(b, "}", err);
}

/* --- tool calls --------------------------------------------------------------------------------
 */

static enum status put_call(struct buf *b, const char *comma, const struct openai_piece *c,
                            const struct buf *arguments, bool stream, struct error *err)
{
    TRY(buf_printf(b, err, "%s{", comma));
    if (stream)
        TRY(buf_printf(b, err, "\"index\":%d,", c->call));
    if (c->name) {
        TRY(put_field(b, "\"id\":", c->id, strlen(c->id), err));
        TRY(put_field(b, ",\"type\":\"function\",\"function\":{\"name\":", c->name, strlen(c->name),
                      err));
        TRY(put_field(b, ",\"arguments\":", arguments->data, arguments->len, err));
    } else {
        TRY(put_field(b, "\"function\":{\"arguments\":", arguments->data, arguments->len, err));
    }
    return buf_puts(b, "}}", err);
}

/* --- whole answers -----------------------------------------------------------------------------
 */

/* The calls that begin in these pieces, and more of one that began before, as elements of
 * tool_calls; all pieces of a call follow one another, but for content. `stream`: told in pieces.
 */
static enum status put_calls(struct buf *b, const struct openai_piece *pieces, int32_t count,
                             bool stream, struct error *err)
{
    struct buf text;
    const char *comma = "";
    enum status st = OK;
    buf_init(&text, b->limit);
    for (int32_t i = 0; i < count && st == OK;) {
        const struct openai_piece *first = &pieces[i];
        buf_clear(&text);
        for (; i < count && st == OK && pieces[i].call == first->call; i++)
            st = buf_append(&text, pieces[i].text, pieces[i].len, err);
        if (st == OK && first->call >= 0 && (first->name || text.len > 0)) {
            st = put_call(b, comma, first, &text, stream, err);
            comma = ",";
        }
    }
    buf_fini(&text);
    return st;
}

/* Content is null where there are calls alone. */
static enum status put_content(struct buf *b, const struct openai_choice *c, struct error *err)
{
    static const char name[] = ",\"message\":{\"role\":\"assistant\",\"content\":";
    if (c->content_len > 0 || c->call_count == 0)
        return put_field(b, name, c->content, c->content_len, err);
    return put_or_null(b, name, NULL, err);
}

static enum status put_message(struct buf *b, const struct openai_choice *c, struct error *err)
{
    TRY(put_content(b, c, err));
    if (c->reasoning_len > 0)
        TRY(put_field(b, ",\"reasoning_content\":", c->reasoning, c->reasoning_len, err));
    if (c->call_count > 0) {
        TRY(buf_puts(b, ",\"tool_calls\":[", err));
        TRY(put_calls(b, c->calls, c->call_count, false, err));
        TRY(buf_puts(b, "]", err));
    }
    return buf_puts(b, ",\"refusal\":null}", err);
}

static enum status put_prompt_logprobs(struct buf *b, const struct openai_choice *c,
                                       struct error *err)
{
    if (!c->prompt_logprobs)
        return OK;
    TRY(buf_puts(b, ",\"prompt_logprobs\":[", err));
    TRY(buf_append(b, c->prompt_logprobs->data ? c->prompt_logprobs->data : "",
                   c->prompt_logprobs->len, err));
    return buf_puts(b, "]", err);
}

enum status openai_write_answer(struct buf *b, const struct openai_head *head,
                                const struct openai_choice *choices, int32_t count,
                                const struct openai_usage *usage, struct error *err)
{
    TRY(put_head(b, head, head->chat ? "chat.completion" : "text_completion", err));
    for (int32_t i = 0; i < count; i++) {
        const struct openai_choice *c = &choices[i];
        TRY(buf_printf(b, err, "%s{\"index\":%d", i > 0 ? "," : "", c->index));
        if (head->chat)
            TRY(put_message(b, c, err));
        else
            TRY(put_field(b, ",\"text\":", c->content, c->content_len, err));
        TRY(openai_logprobs_write(b, c->logprobs, true, err));
        if (!head->chat)
            TRY(put_prompt_logprobs(b, c, err));
        TRY(put_or_null(b, ",\"finish_reason\":", c->finish, err));
        TRY(buf_puts(b, "}", err));
    }
    TRY(buf_puts(b, "]", err));
    if (head->chat)
        TRY(put_prompt_logprobs(b, &choices[0], err));
    TRY(put_usage(b, usage, err));
    return buf_puts(b, "}", err);
}

/* --- streams -----------------------------------------------------------------------------------
 */

static enum status begin_event(struct buf *b, const struct openai_head *h, struct error *err)
{
    if (h->position)
        TRY(buf_printf(b, err, "id: %s\n", h->position));
    TRY(buf_puts(b, "data: ", err));
    return put_head(b, h, h->chat ? "chat.completion.chunk" : "text_completion", err);
}

static enum status end_event(struct buf *b, const struct openai_head *h, struct error *err)
{
    if (!h->so_far)
        return buf_puts(b, h->usage ? "],\"usage\":null}\n\n" : "]}\n\n", err);
    TRY(buf_puts(b, "]", err));
    TRY(put_usage(b, h->so_far, err));
    return buf_puts(b, "}\n\n", err);
}

/* A chunk of one choice: `name`, then the text as its value. */
static enum status put_chunk(struct buf *b, const struct openai_head *head, int32_t index,
                             const char *name, const char *text, size_t len,
                             const struct openai_logprobs *logprobs, struct error *err)
{
    TRY(begin_event(b, head, err));
    TRY(buf_printf(b, err, "{\"index\":%d,", index));
    TRY(put_field(b, name, text, len, err));
    if (head->chat)
        TRY(buf_puts(b, "}", err));
    TRY(openai_logprobs_write(b, logprobs, false, err));
    TRY(buf_puts(b, ",\"finish_reason\":null}", err));
    return end_event(b, head, err);
}

enum status openai_write_first(struct buf *b, const struct openai_head *head, int32_t index,
                               struct error *err)
{
    if (!head->chat)
        return OK;
    return put_chunk(b, head, index, "\"delta\":{\"role\":\"assistant\",\"content\":", "", 0, NULL,
                     err);
}

enum status openai_write_text(struct buf *b, const struct openai_head *head, int32_t index,
                              bool reasoning, const char *text, size_t len,
                              const struct openai_logprobs *logprobs, struct error *err)
{
    const char *name = !head->chat ? "\"text\":"
                       : reasoning ? "\"delta\":{\"reasoning_content\":"
                                   : "\"delta\":{\"content\":";
    return put_chunk(b, head, index, name, text, len, logprobs, err);
}

/* Of all content among them. */
static enum status put_content_of(struct buf *b, const struct openai_piece *pieces, int32_t count,
                                  struct error *err)
{
    struct buf text;
    enum status st = OK;
    buf_init(&text, b->limit);
    for (int32_t i = 0; i < count && st == OK; i++)
        if (pieces[i].call < 0)
            st = buf_append(&text, pieces[i].text, pieces[i].len, err);
    if (st == OK)
        st = put_field(b, "\"content\":", text.data, text.len, err);
    buf_fini(&text);
    return st;
}

enum status openai_write_pieces(struct buf *b, const struct openai_head *head, int32_t index,
                                const struct openai_piece *pieces, int32_t count,
                                const struct openai_logprobs *logprobs, struct error *err)
{
    bool content = false, calls = false;
    for (int32_t i = 0; i < count; i++) {
        content = content || (pieces[i].call < 0 && pieces[i].len > 0);
        calls = calls || (pieces[i].call >= 0 && (pieces[i].name || pieces[i].len > 0));
    }
    if (!content && !calls)
        return OK;
    TRY(begin_event(b, head, err));
    TRY(buf_printf(b, err, "{\"index\":%d,\"delta\":{", index));
    if (content)
        TRY(put_content_of(b, pieces, count, err));
    if (calls) {
        TRY(buf_printf(b, err, "%s\"tool_calls\":[", content ? "," : ""));
        TRY(put_calls(b, pieces, count, true, err));
        TRY(buf_puts(b, "]", err));
    }
    TRY(buf_puts(b, "}", err));
    TRY(openai_logprobs_write(b, logprobs, false, err));
    TRY(buf_puts(b, ",\"finish_reason\":null}", err));
    return end_event(b, head, err);
}

enum status openai_write_finish(struct buf *b, const struct openai_head *head, int32_t index,
                                const char *finish, const struct openai_logprobs *logprobs,
                                struct error *err)
{
    TRY(begin_event(b, head, err));
    TRY(buf_printf(b, err, "{\"index\":%d,%s", index,
                   head->chat ? "\"delta\":{}" : "\"text\":\"\""));
    TRY(openai_logprobs_write(b, logprobs, false, err));
    TRY(buf_puts(b, ",\"finish_reason\":", err));
    TRY(put_string(b, finish, err));
    TRY(buf_puts(b, "}", err));
    return end_event(b, head, err);
}

enum status openai_write_usage(struct buf *b, const struct openai_head *head,
                               const struct openai_usage *usage, struct error *err)
{
    TRY(begin_event(b, head, err));
    TRY(buf_puts(b, "]", err));
    TRY(put_usage(b, usage, err));
    return buf_puts(b, "}\n\n", err);
}

enum status openai_write_done(struct buf *b, struct error *err)
{
    return buf_puts(b, "data: [DONE]\n\n", err);
}

/* --- errors ------------------------------------------------------------------------------------
 */

/* Messages may quote a body's bytes, cut anywhere. */
static enum status put_lossy(struct buf *b, const char *s, struct error *err)
{
    struct buf clean;
    buf_init(&clean, b->limit);
    enum status st = utf8_append_lossy(&clean, s, strlen(s), err);
    if (st == OK)
        st = buf_json_string(b, clean.data ? clean.data : "", clean.len, err);
    buf_fini(&clean);
    return st;
}

enum status openai_write_error(struct buf *b, const struct openai_failure *f, struct error *err)
{
    TRY(buf_puts(b, "{\"error\":{\"message\":", err));
    TRY(put_lossy(b, f->message, err));
    TRY(put_or_null(b, ",\"type\":", f->type, err));
    TRY(put_or_null(b, ",\"param\":", f->param, err));
    TRY(put_or_null(b, ",\"code\":", f->code, err));
    return buf_puts(b, "}}", err);
}

enum status openai_write_error_event(struct buf *b, const struct openai_failure *f,
                                     struct error *err)
{
    TRY(buf_puts(b, "data: ", err));
    TRY(openai_write_error(b, f, err));
    return buf_puts(b, "\n\n", err);
}

/* --- the rest ----------------------------------------------------------------------------------
 */

enum status openai_write_model(struct buf *b, const struct openai_model *m, struct error *err)
{
    TRY(buf_puts(b, "{\"id\":", err));
    TRY(put_string(b, m->id, err));
    TRY(buf_printf(b, err,
                   ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"witan\","
                   "\"max_model_len\":%d",
                   (long long)m->created, m->max_model_len));
    if (m->digest) {
        TRY(buf_printf(b, err, ",\"manifest\":{\"digest\":\"%s\",\"signers\":", m->digest));
        TRY(put_string(b, m->signers, err));
        TRY(buf_puts(b, "}", err));
    }
    return buf_puts(b, "}", err);
}

enum status openai_write_models(struct buf *b, const struct openai_model *m, struct error *err)
{
    TRY(buf_puts(b, "{\"object\":\"list\",\"data\":[", err));
    TRY(openai_write_model(b, m, err));
    return buf_puts(b, "]}", err);
}

enum status openai_write_tokens(struct buf *b, const uint32_t *ids, size_t count,
                                int32_t max_model_len, struct error *err)
{
    TRY(buf_printf(b, err, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", count,
                   max_model_len));
    for (size_t i = 0; i < count; i++)
        TRY(buf_printf(b, err, "%s%u", i > 0 ? "," : "", ids[i]));
    return buf_puts(b, "]}", err);
}

enum status openai_write_prompt(struct buf *b, const char *text, size_t len, struct error *err)
{
    TRY(put_field(b, "{\"prompt\":", text, len, err));
    return buf_puts(b, "}", err);
}
