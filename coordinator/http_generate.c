/*
 * POST /v1/chat/completions and /v1/completions: one exchange, one generation a choice, whole or as
 * a stream. An answer belongs to its exchange: it ends when all its generations have, when one
 * fails, or when the client goes away, which cancels the rest.
 */
#include "coordinator/http_api.h"
#include "base/check.h"
#include "base/log.h"
#include "coordinator/openai_response.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_TEXT_BYTES = 64 << 20, /* of one choice */
    MAX_ANSWER_BYTES = 512 << 20,
    MAX_ID = 48,
};

struct choice {
    struct answer *answer;
    struct generation *generation; /* NULL: not started, or over */
    int32_t index;
    bool counts_prompt;            /* the first of its prompt: usage counts a prompt once */
    struct buf content, reasoning; /* without a stream */
    const char *finish;
};

struct answer {
    struct exchange *x;
    struct core *core;
    struct openai_head head;
    char id[MAX_ID];
    bool stream;
    struct openai_usage usage;
    int32_t running;
    struct buf out; /* events or the whole answer, written here first */
    int32_t count;
    struct choice choices[]; /* [count] */
};

/* --- life --------------------------------------------------------------------------------------
 */

static struct answer *answer_create(struct exchange *x, const struct openai_request *r, bool chat)
{
    int32_t count = r->n * (chat ? 1 : r->prompt_count);
    struct answer *a = check_calloc(1, sizeof *a + (size_t)count * sizeof a->choices[0]);
    a->x = x;
    a->core = x->core;
    a->stream = r->stream;
    a->count = count;
    snprintf(a->id, sizeof a->id, "%s-%s", chat ? "chatcmpl" : "cmpl", x->id);
    a->head = (struct openai_head){
        .id = a->id,
        .model = x->core->served.name,
        .created = (int64_t)time(NULL),
        .chat = chat,
        .usage = r->include_usage,
    };
    buf_init(&a->out, MAX_ANSWER_BYTES);
    for (int32_t i = 0; i < count; i++) {
        struct choice *c = &a->choices[i];
        c->answer = a;
        c->index = i;
        c->counts_prompt = i % r->n == 0;
        buf_init(&c->content, MAX_TEXT_BYTES);
        buf_init(&c->reasoning, MAX_TEXT_BYTES);
    }
    return a;
}

/* Cancels what runs. The exchange is ended by the caller, or has gone. */
static void answer_destroy(struct answer *a)
{
    for (int32_t i = 0; i < a->count; i++) {
        struct choice *c = &a->choices[i];
        if (c->generation)
            generation_cancel(c->generation);
        buf_fini(&c->content);
        buf_fini(&c->reasoning);
    }
    buf_fini(&a->out);
    free(a);
}

static void on_gone(void *answer)
{
    answer_destroy(answer);
}

/* --- failing -----------------------------------------------------------------------------------
 */

static int failure_code(const struct error *err)
{
    switch (err->code) {
    case ERR_PEER:
        return 503;
    case ERR_CANCELLED:
        return 504;
    case ERR_INVALID:
        return 502;
    default:
        return 500;
    }
}

/* Ends the answer with an error, in its stream when there is one. */
static void answer_fail(struct answer *a, const struct error *why)
{
    struct exchange *x = a->x;
    int code = failure_code(why);
    log_warn("http: %s: failed: %s", x->id, status_name(why->code));
    if (!a->stream) {
        answer_destroy(a);
        if (code == 503)
            exchange_header(x, "Retry-After", "5");
        exchange_fail(x, code, status_name(why->code), why->msg);
        return;
    }
    struct openai_failure f = {why->msg, http_error_type(code), NULL, status_name(why->code)};
    buf_clear(&a->out);
    if (openai_write_error_event(&a->out, &f, NULL) == OK &&
        !exchange_send(x, a->out.data, a->out.len))
        return;
    answer_destroy(a);
    exchange_end(x);
}

/* Sends what was written to a->out, or fails the answer. False: the answer is gone. */
static bool answer_send(struct answer *a, enum status st, const struct error *err)
{
    if (st == OK && a->out.len > 0 && !exchange_send(a->x, a->out.data, a->out.len))
        return false;
    buf_clear(&a->out);
    if (st == OK)
        return true;
    answer_fail(a, err);
    return false;
}

/* --- ending ------------------------------------------------------------------------------------
 */

static enum status write_answer(struct answer *a, struct error *err)
{
    struct openai_choice *choices = check_calloc((size_t)a->count, sizeof *choices);
    for (int32_t i = 0; i < a->count; i++) {
        const struct choice *c = &a->choices[i];
        choices[i] = (struct openai_choice){
            .index = c->index,
            .content = c->content.data,
            .content_len = c->content.len,
            .reasoning = c->reasoning.data,
            .reasoning_len = c->reasoning.len,
            .finish = c->finish,
        };
    }
    enum status st = openai_write_answer(&a->out, &a->head, choices, a->count, &a->usage, err);
    free(choices);
    return st;
}

static void finish_whole(struct answer *a)
{
    struct error err;
    struct exchange *x = a->x;
    if (write_answer(a, &err) != OK) {
        answer_fail(a, &err);
        return;
    }
    exchange_reply(x, 200, "application/json", a->out.data, a->out.len);
    answer_destroy(a);
}

static void finish_stream(struct answer *a)
{
    struct error err;
    struct exchange *x = a->x;
    enum status st = OK;
    if (a->head.usage)
        st = openai_write_usage(&a->out, &a->head, &a->usage, &err);
    if (st == OK)
        st = openai_write_done(&a->out, &err);
    if (!answer_send(a, st, &err))
        return;
    answer_destroy(a);
    exchange_end(x);
}

/* --- what generations tell ---------------------------------------------------------------------
 */

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    struct error err;
    bool reasoning = part == PART_REASONING;
    if (a->stream) {
        enum status st = openai_write_text(&a->out, &a->head, c->index, reasoning, text, len, &err);
        answer_send(a, st, &err);
    } else if (buf_append(reasoning ? &c->reasoning : &c->content, text, len, &err) != OK) {
        answer_fail(a, &err);
    }
}

static void on_end(void *user, const struct generation_end *end)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    struct error err;
    c->generation = NULL;
    a->running--;
    if (end->reason == GENERATION_FAILED) {
        answer_fail(a, &end->err);
        return;
    }
    c->finish = end->reason == GENERATION_STOP ? "stop" : "length";
    if (c->counts_prompt)
        a->usage.prompt_tokens += end->prompt_tokens;
    a->usage.completion_tokens += end->completion_tokens;
    a->usage.reasoning_tokens += end->reasoning_tokens;
    if (a->stream) {
        enum status st = openai_write_finish(&a->out, &a->head, c->index, c->finish, &err);
        if (!answer_send(a, st, &err))
            return;
    }
    if (a->running > 0)
        return;
    if (a->stream)
        finish_stream(a);
    else
        finish_whole(a);
}

static const struct generation_sink sink = {.on_text = on_text, .on_end = on_end};

/* --- starting ----------------------------------------------------------------------------------
 */

/* The header that tells the seeds, in the order of the choices: the answer can be had again. */
static void tell_seeds(struct answer *a, uint64_t seed, int32_t n)
{
    char words[OPENAI_MAX_CHOICES * 21 + 1];
    size_t at = 0;
    for (int32_t i = 0; i < a->count; i++)
        at += (size_t)snprintf(words + at, sizeof words - at, "%s%lld", i > 0 ? "," : "",
                               (long long)(seed + (uint64_t)(i % n)));
    exchange_header(a->x, "x-witan-seed", words);
}

/* The n choices of one prompt. */
static enum status start_prompt(struct answer *a, const struct openai_request *r, int32_t first,
                                const struct token_ids *ids, bool thinking, struct error *err)
{
    struct generation_params p = {
        .prompt = (const int32_t *)ids->data,
        .prompt_len = (int32_t)ids->len,
        .max_tokens = r->max_tokens,
        .sampling = r->sampling,
        .ignore_eos = r->ignore_eos,
        .split_reasoning = a->head.chat,
        .in_reasoning = thinking,
        .stop = r->stop,
        .stop_count = r->stop_count,
    };
    for (int32_t i = 0; i < r->n; i++) {
        struct choice *c = &a->choices[first + i];
        p.sampling.seed = r->sampling.seed + (uint64_t)i;
        TRY(generation_start(a->core, &p, &sink, c, &c->generation, err));
        a->running++;
    }
    return OK;
}

/* False: the answer is gone and its exchange answered. */
static bool start_all(struct answer *a, const struct openai_request *r)
{
    struct exchange *x = a->x;
    struct error err;
    for (int32_t first = 0; first < a->count; first += r->n) {
        struct token_ids ids;
        bool thinking;
        if (!http_encode(x, r, first / r->n, &ids, &thinking)) {
            answer_destroy(a);
            return false;
        }
        enum status st = start_prompt(a, r, first, &ids, thinking, &err);
        token_ids_fini(&ids);
        if (st != OK) {
            answer_destroy(a);
            http_refuse(x, &err);
            return false;
        }
    }
    return true;
}

static void begin_stream(struct answer *a)
{
    struct error err;
    enum status st = OK;
    exchange_stream(a->x, on_gone, a);
    for (int32_t i = 0; i < a->count && st == OK; i++)
        st = openai_write_first(&a->out, &a->head, i, &err);
    answer_send(a, st, &err);
}

static void generate(struct exchange *x, enum openai_kind kind)
{
    struct openai_request r;
    if (!http_read_request(x, kind, &r))
        return;
    if (!r.has_seed) /* one that every JSON reader can hold and send back */
        r.sampling.seed = core_draw_seed() >> 11;
    struct answer *a = answer_create(x, &r, kind == OPENAI_CHAT);
    bool started = start_all(a, &r);
    if (started)
        tell_seeds(a, r.sampling.seed, r.n);
    openai_request_fini(&r);
    if (started && a->stream)
        begin_stream(a);
    else if (started)
        exchange_wait(x, on_gone, a);
}

void http_chat(struct exchange *x)
{
    generate(x, OPENAI_CHAT);
}

void http_completion(struct exchange *x)
{
    generate(x, OPENAI_COMPLETION);
}
