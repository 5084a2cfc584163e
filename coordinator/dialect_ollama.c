/* Ollama's chat and generate: see dialect.h. No state. Objects: Ollama's API documentation. A
 * stream is lines of JSON; generate has `response` where chat has `message`. */
#include "coordinator/dialect.h"
#include "coordinator/ollama_request.h"

#include <string.h>
#include <time.h>

static json_t *time_of(int64_t unix_time)
{
    char words[32];
    time_t t = (time_t)unix_time;
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(words, sizeof words, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(words);
}

/* What every line begins with. `thought` is left out when it is empty. */
static json_t *line_of(const struct openai_head *h, bool chat, const char *text, size_t len,
                       const char *thought, size_t thought_len)
{
    json_t *said = json_stringn(len ? text : "", len);
    json_t *thinking = thought_len > 0 ? json_stringn(thought, thought_len) : NULL;
    if (!chat)
        return json_pack("{s:s, s:o, s:o, s:o*}", "model", h->model, "created_at",
                         time_of(h->created), "response", said, "thinking", thinking);
    return json_pack("{s:s, s:o, s:{s:s, s:o, s:o*}}", "model", h->model, "created_at",
                     time_of(h->created), "message", "role", "assistant", "content", said,
                     "thinking", thinking);
}

/* Takes both over; `more`'s fields come behind `line`'s. NULL: no memory. */
static json_t *joined(json_t *line, json_t *more)
{
    bool good = line && more && json_object_update(line, more) == 0;
    json_decref(more);
    if (good)
        return line;
    json_decref(line);
    return NULL;
}

/* Durations in ns: the prompt's is the time to the first token, waiting with it. */
static json_t *end_of(const struct telling *t, const char *finish, const struct openai_usage *u)
{
    const char *reason = strcmp(finish, "length") == 0 ? finish : "stop"; /* calls too */
    int64_t first = t->first_ns > 0 ? t->first_ns : t->ended_ns;
    return json_pack("{s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "done", 1, "done_reason", reason,
                     "total_duration", (json_int_t)(t->ended_ns - t->began_ns), "load_duration",
                     (json_int_t)0, "prompt_eval_count", (json_int_t)u->prompt_tokens,
                     "prompt_eval_duration", (json_int_t)(first - t->began_ns), "eval_count",
                     (json_int_t)u->completion_tokens, "eval_duration",
                     (json_int_t)(t->ended_ns - first));
}

/* --- streams -----------------------------------------------------------------------------------
 */

static enum status put_line(struct buf *b, json_t *line, struct error *err)
{
    TRY(dialect_put(b, line, err));
    return buf_puts(b, "\n", err);
}

static enum status write_first(struct buf *b, const struct openai_head *h, int32_t index,
                               struct error *err)
{
    (void)b, (void)h, (void)index, (void)err;
    return OK;
}

static enum status put_text(struct buf *b, const struct openai_head *h, bool chat, bool reasoning,
                            const char *text, size_t len, struct error *err)
{
    if (len == 0)
        return OK;
    json_t *line = reasoning ? line_of(h, chat, NULL, 0, text, len)
                             : line_of(h, chat, text, len, NULL, 0);
    return put_line(b, joined(line, json_pack("{s:b}", "done", 0)), err);
}

static enum status chat_text(struct buf *b, const struct openai_head *h, int32_t index,
                             bool reasoning, const char *text, size_t len,
                             const struct openai_logprobs *logprobs, struct error *err)
{
    (void)index, (void)logprobs;
    return put_text(b, h, true, reasoning, text, len, err);
}

static enum status generate_text(struct buf *b, const struct openai_head *h, int32_t index,
                                 bool reasoning, const char *text, size_t len,
                                 const struct openai_logprobs *logprobs, struct error *err)
{
    (void)index, (void)logprobs;
    return put_text(b, h, false, reasoning, text, len, err);
}

/* {"id", "function": {"name", "arguments"}}. NULL: it broke off, and nobody should run it. */
static json_t *call_of(const char *id, const char *name, const char *arguments, size_t len)
{
    json_t *object = dialect_arguments(arguments, len);
    return object ? json_pack("{s:s, s:{s:s, s:o}}", "id", id, "function", "name", name,
                              "arguments", object)
                  : NULL;
}

/* Gives the line's message its calls, which are taken over. */
static json_t *with_calls(json_t *line, json_t *calls)
{
    if (json_object_set_new(json_object_get(line, "message"), "tool_calls", calls) == 0)
        return line;
    json_decref(line);
    return NULL;
}

/* Arguments are an object, so a call is told when it is whole. */
static enum status put_call(struct buf *b, const struct openai_head *h,
                            const struct openai_piece *p, struct error *err)
{
    struct telling *t = h->telling;
    if (p->name) {
        buf_clear(&t->id);
        buf_clear(&t->name);
        buf_clear(&t->text);
        TRY(buf_puts(&t->id, p->id, err));
        TRY(buf_puts(&t->name, p->name, err));
    }
    TRY(buf_append(&t->text, p->text, p->len, err));
    if (!p->end)
        return OK;
    json_t *call = call_of(t->id.data, t->name.data, t->text.data, t->text.len);
    if (!call)
        return OK;
    json_t *line = with_calls(line_of(h, true, NULL, 0, NULL, 0), json_pack("[o]", call));
    return put_line(b, joined(line, json_pack("{s:b}", "done", 0)), err);
}

static enum status chat_pieces(struct buf *b, const struct openai_head *h, int32_t index,
                               const struct openai_piece *pieces, int32_t count,
                               const struct openai_logprobs *logprobs, struct error *err)
{
    (void)index, (void)logprobs;
    for (const struct openai_piece *p = pieces; p < pieces + count; p++) {
        if (p->call < 0)
            TRY(put_text(b, h, true, false, p->text, p->len, err));
        else
            TRY(put_call(b, h, p, err));
    }
    return OK;
}

static enum status write_finish(struct buf *b, const struct openai_head *h, int32_t index,
                                const char *finish, const struct openai_logprobs *logprobs,
                                struct error *err)
{
    (void)b, (void)index, (void)logprobs, (void)err;
    h->telling->finish = finish;
    return OK;
}

static enum status chat_end(struct buf *b, const struct openai_head *h,
                            const struct openai_usage *usage, struct error *err)
{
    const struct telling *t = h->telling;
    return put_line(b, joined(line_of(h, true, NULL, 0, NULL, 0), end_of(t, t->finish, usage)),
                    err);
}

static enum status generate_end(struct buf *b, const struct openai_head *h,
                                const struct openai_usage *usage, struct error *err)
{
    const struct telling *t = h->telling;
    return put_line(b, joined(line_of(h, false, NULL, 0, NULL, 0), end_of(t, t->finish, usage)),
                    err);
}

/* --- whole answers and errors ------------------------------------------------------------------
 */

static enum status put_answer(struct buf *b, const struct openai_head *h, bool chat,
                              const struct openai_choice *c, const struct openai_usage *usage,
                              struct error *err)
{
    json_t *line = line_of(h, chat, c->content, c->content_len, c->reasoning, c->reasoning_len);
    json_t *calls = json_array();
    for (int32_t i = 0; i < c->call_count; i++) {
        const struct openai_piece *p = &c->calls[i];
        json_array_append_new(calls, call_of(p->id, p->name, p->text, p->len));
    }
    if (json_array_size(calls) > 0)
        line = with_calls(line, json_incref(calls));
    json_decref(calls);
    return dialect_put(b, joined(line, end_of(h->telling, c->finish, usage)), err);
}

static enum status chat_answer(struct buf *b, const struct openai_head *h,
                               const struct openai_choice *choices, int32_t count,
                               const struct openai_usage *usage, struct error *err)
{
    (void)count;
    return put_answer(b, h, true, choices, usage, err);
}

static enum status generate_answer(struct buf *b, const struct openai_head *h,
                                   const struct openai_choice *choices, int32_t count,
                                   const struct openai_usage *usage, struct error *err)
{
    (void)count;
    return put_answer(b, h, false, choices, usage, err);
}

static enum status write_error(struct buf *b, const struct openai_failure *f, struct error *err)
{
    return dialect_put(b, json_pack("{s:o}", "error", dialect_lossy(f->message)), err);
}

static enum status write_stream_error(struct buf *b, const struct openai_head *h,
                                      const struct openai_failure *f, struct error *err)
{
    (void)h;
    TRY(write_error(b, f, err));
    return buf_puts(b, "\n", err);
}

static const struct dialect_name names[] = {
    {"temperature", "options.temperature"},
    {"top_p", "options.top_p"},
    {"top_k", "options.top_k"},
    {"min_p", "options.min_p"},
    {"stop", "options.stop"},
    {"max_tokens", "options.num_predict"},
    {"repetition_penalty", "options.repeat_penalty"},
    {"presence_penalty", "options.presence_penalty"},
    {"frequency_penalty", "options.frequency_penalty"},
    {"response_format", "format"},
    {"enable_thinking", "think"},
    {0},
};

const struct dialect dialect_ollama_chat = {
    .id = "ollama-",
    .stream_type = "application/x-ndjson",
    .latest = true,
    .translate = ollama_translate_chat,
    .names = names,
    .arguments = "arguments",
    .first = write_first,
    .text = chat_text,
    .pieces = chat_pieces,
    .finish = write_finish,
    .end = chat_end,
    .answer = chat_answer,
    .error = write_error,
    .stream_error = write_stream_error,
};

const struct dialect dialect_ollama_generate = {
    .id = "ollama-",
    .stream_type = "application/x-ndjson",
    .latest = true,
    .translate = ollama_translate_generate,
    .names = names,
    .first = write_first,
    .text = generate_text,
    .finish = write_finish,
    .end = generate_end,
    .answer = generate_answer,
    .error = write_error,
    .stream_error = write_stream_error,
};
