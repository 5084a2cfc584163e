/*
 * Chat, completions and what other APIs call so: one exchange, one generation a choice (best_of
 * draws more choices than it tells), whole or as a stream, in the words of the route's API. An
 * answer belongs to its exchange: it ends when all its generations have, when one fails, or when
 * the client goes away, which cancels the rest.
 */
#include "coordinator/http_api.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/calls.h"
#include "coordinator/http_answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MAX_ANSWER_BYTES = 512 << 20,
    MAX_LISTED = 2 << 20, /* tokens in all lists of logprobs, under 100 bytes each */
};

/* --- life --------------------------------------------------------------------------------------
 */

static void choice_init(struct choice *c, struct answer *a, int32_t index)
{
    c->answer = a;
    c->index = index;
    c->prompt = &a->prompts[index / a->best_of];
    c->tells_prompt = index % a->best_of == 0;
    c->at = a->resume ? a->resume->position.at[index] : resume_nowhere();
    buf_init(&c->content, HTTP_MAX_TEXT_BYTES);
    buf_init(&c->reasoning, HTTP_MAX_TEXT_BYTES);
    openai_logprobs_init(&c->logprobs, a->head.chat, a->logprobs > 1, HTTP_MAX_TEXT_BYTES);
}

static void name_answer(struct answer *a)
{
    char name[RESUME_NAME_BYTES + 1];
    if (a->resume)
        resume_name(&a->resume->claim.key, name);
    snprintf(a->id, sizeof a->id, "%s%s", a->x->dialect->id, a->resume ? name : a->x->id);
}

/* Takes `resume` over. */
static struct answer *answer_create(struct exchange *x, const struct openai_request *r, bool chat,
                                    struct http_resume *resume)
{
    int32_t prompts = chat ? 1 : r->prompt_count, count = r->best_of * prompts;
    struct answer *a = check_calloc(1, sizeof *a + (size_t)count * sizeof a->choices[0]);
    a->x = x;
    a->core = x->core;
    a->stream = r->stream;
    a->n = r->n;
    a->best_of = r->best_of;
    a->logprobs = r->logprobs;
    a->prompts = check_calloc((size_t)prompts, sizeof *a->prompts);
    a->prompt_count = prompts;
    a->count = count;
    a->resume = resume;
    if (resume)
        resume->claim.user = a;
    name_answer(a);
    a->head = (struct openai_head){
        .id = a->id,
        .model = x->core->served.name,
        .fingerprint = x->core->served.numerics_class,
        .created = resume ? resume->position.created : (int64_t)time(NULL),
        .chat = chat,
        .usage = r->include_usage,
        .so_far = r->continuous_usage ? &a->so_far : NULL,
    };
    buf_init(&a->out, MAX_ANSWER_BYTES);
    telling_init(&a->telling, HTTP_MAX_TEXT_BYTES);
    a->telling.began_ns = clock_now_ns();
    a->head.telling = &a->telling;
    for (int32_t i = 0; i < count; i++)
        choice_init(&a->choices[i], a, i);
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
        http_calls_fini(&c->calls);
        openai_logprobs_fini(&c->logprobs);
    }
    for (int32_t i = 0; i < a->encoded; i++)
        told_prompt_fini(&a->prompts[i]);
    free(a->prompts);
    http_resume_destroy(a->resume);
    buf_fini(&a->out);
    telling_fini(&a->telling);
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
    case ERR_IO: /* the audit log cannot be written */
        return 503;
    case ERR_CANCELLED:
        return 504;
    case ERR_INVALID:
        return 502;
    case ERR_CONFLICT:
        return 409;
    case ERR_LIMIT: /* the answer is larger than one may be */
        return 400;
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
            exchange_come_again(x);
        if (code == 409)
            exchange_header(x, "x-should-retry", "false");
        exchange_fail(x, code, status_name(why->code), why->msg);
        return;
    }
    struct openai_failure f = {why->msg, http_error_type(code), NULL, status_name(why->code), code,
                               x->id};
    buf_clear(&a->out);
    if (x->dialect->stream_error(&a->out, &a->head, &f, NULL) == OK &&
        !exchange_send(x, a->out.data, a->out.len))
        return;
    answer_destroy(a);
    exchange_end(x);
}

/* Another answer to the same request takes its place. */
static void on_taken(void *answer, const struct error *why)
{
    answer_fail(answer, why);
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

/* --- how far a stream was told -----------------------------------------------------------------
 */

/* All choices compute in one class, which is known once a group has been asked. */
static void note_class(const struct choice *c)
{
    struct http_resume *r = c->answer->resume;
    if (r && !*r->position.class && c->generation)
        snprintf(r->position.class, sizeof r->position.class, "%s",
                 generation_class(c->generation));
}

/* The event to be written tells this choice up to here. Of the others it says what their own last
 * events told: more of them may be drawn, and wait for theirs. */
static void note_position(struct choice *c)
{
    struct answer *a = c->answer;
    if (!a->resume)
        return;
    note_class(c);
    a->resume->position.at[c->index] = c->at;
    a->head.position = http_resume_text(a->resume);
}

/* The header that tells the seeds, in the order of the choices: the answer can be had again. */
static void tell_seeds(struct answer *a, struct choice *const *told, int32_t count)
{
    char words[OPENAI_MAX_CHOICES * 21 + 1];
    size_t at = 0;
    for (int32_t i = 0; i < count && told[i]; i++)
        at += (size_t)snprintf(words + at, sizeof words - at, "%s%lld", i > 0 ? "," : "",
                               (long long)told[i]->seed);
    exchange_header(a->x, "x-witan-seed", words);
}

/* --- ending ------------------------------------------------------------------------------------
 */

static void finish_whole(struct answer *a)
{
    struct error err;
    struct exchange *x = a->x;
    struct choice *chosen[OPENAI_MAX_CHOICES] = {0};
    int32_t count = answer_choose(a, chosen);
    if (answer_write(a, chosen, count, &err) != OK) {
        answer_fail(a, &err);
        return;
    }
    tell_seeds(a, chosen, count);
    exchange_reply(x, 200, "application/json", a->out.data, a->out.len);
    answer_destroy(a);
}

static void finish_stream(struct answer *a)
{
    struct error err;
    struct exchange *x = a->x;
    if (a->head.usage && a->resume) {
        a->head.usage = !a->resume->position.usage; /* told before */
        a->resume->position.usage = true;
        a->head.position = http_resume_text(a->resume);
    }
    enum status st = x->dialect->end(&a->out, &a->head, &a->usage, &err);
    if (!answer_send(a, st, &err))
        return;
    answer_destroy(a);
    exchange_end(x);
}

/* --- what generations tell ---------------------------------------------------------------------
 */

/* Chunks tell the usage of their choice so far, where that is asked for. */
static void count_so_far(struct answer *a, const struct choice *c)
{
    a->so_far = (struct openai_usage){
        .prompt_tokens = (int64_t)c->prompt->ids.len,
        .cached_tokens = -1,
        .completion_tokens = c->drawn,
    };
}

static void on_text(void *user, enum part part, const char *text, size_t len)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    struct error err;
    bool reasoning = part == PART_REASONING;
    if (!a->stream) {
        if (buf_append(reasoning ? &c->reasoning : &c->content, text, len, &err) != OK)
            answer_fail(a, &err);
        return;
    }
    c->at.begun = true;
    c->at.thought = reasoning;
    count_so_far(a, c);
    note_position(c);
    enum status st = a->x->dialect->text(&a->out, &a->head, c->index, reasoning, text, len,
                                         &c->logprobs, &err);
    openai_logprobs_clear(&c->logprobs);
    answer_send(a, st, &err);
}

/* What distinguishes it from other answers: the id without the API's word. */
static const char *own_name(const struct answer *a)
{
    return a->id + strlen(a->x->dialect->id);
}

static void on_pieces(void *user, const struct told_piece *told, int32_t count)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    struct error err;
    if (!a->stream) {
        if (http_calls_keep(&c->calls, own_name(a), c->index, told, count, &c->content, &err) != OK)
            answer_fail(a, &err);
        return;
    }
    c->at.begun = true;
    c->at.thought = false;
    count_so_far(a, c);
    note_position(c);
    struct openai_piece *pieces = http_calls_named(own_name(a), c->index, told, count);
    enum status st = a->x->dialect->pieces(&a->out, &a->head, c->index, pieces, count, &c->logprobs,
                                           &err);
    free(pieces);
    if (a->out.len > 0)
        openai_logprobs_clear(&c->logprobs);
    answer_send(a, st, &err);
}

static void on_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                   int32_t count)
{
    struct choice *c = user;
    struct telling *t = &c->answer->telling;
    if (t->first_ns == 0)
        t->first_ns = clock_now_ns();
    note_class(c);
    resume_add(&c->at, ids, count);
    c->drawn += count;
    for (int32_t i = 0; logprobs && i < count; i++)
        c->logprob += (double)logprobs[i].logprob;
}

/* A stream keeps none. */
static enum status count_listed(struct answer *a, int64_t tokens, struct error *err)
{
    a->listed += a->stream ? 0 : tokens;
    if (a->listed <= MAX_LISTED)
        return OK;
    return error_set(err, ERR_LIMIT,
                     "logprobs: the answer would list more than %d tokens: ask for fewer of the "
                     "likeliest or fewer answers, or stream",
                     (int)MAX_LISTED);
}

/* Chat lists the tokens of the message, completions all: the end's too. */
static void on_told(void *user, const struct told_token *t)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    struct openai_logprob p;
    struct error err;
    if (a->logprobs == 0 || (a->head.chat && t->end))
        return;
    enum status st = count_listed(a, a->logprobs, &err);
    if (st == OK)
        st = told_logprob(a->core, t->id, t->logprobs, a->logprobs - 1, &p, &err);
    if (st == OK && a->head.chat)
        st = openai_logprobs_add_chat(&c->logprobs, t->part == PART_REASONING, &p, &err);
    else if (st == OK)
        st = openai_logprobs_add_text(&c->logprobs, &p, true, c->prompt->chars + t->offset, &err);
    if (st != OK)
        answer_fail(a, &err);
}

static void on_prompt(void *user, int32_t position, const struct token_logprobs *logprobs,
                      int32_t count)
{
    struct choice *c = user;
    struct error err;
    enum status st = count_listed(c->answer, (int64_t)count * c->prompt->wanted, &err);
    if (st == OK)
        st = told_prompt_take(c->prompt, position, logprobs, count, &err);
    if (st != OK)
        answer_fail(c->answer, &err);
}

static void count_usage(struct answer *a, const struct choice *c, const struct generation_end *end)
{
    if (c->tells_prompt) {
        a->usage.prompt_tokens += end->prompt_tokens;
        a->usage.cached_tokens += end->cached_tokens;
    }
    a->usage.completion_tokens += end->completion_tokens;
    a->usage.reasoning_tokens += end->reasoning_tokens;
    a->usage.joules += end->metered ? end->joules : NAN; /* of all choices, or not known */
}

/* False: the answer is gone. */
static bool tell_finish(struct answer *a, struct choice *c)
{
    struct error err;
    if (c->at.ended)
        return true; /* before */
    c->at.begun = c->at.ended = true;
    c->at.thought = false;
    count_so_far(a, c);
    note_position(c);
    enum status st = a->x->dialect->finish(&a->out, &a->head, c->index, c->finish, &c->logprobs,
                                           &err);
    return answer_send(a, st, &err);
}

static void on_end(void *user, const struct generation_end *end)
{
    struct choice *c = user;
    struct answer *a = c->answer;
    c->generation = NULL;
    a->running--;
    if (end->reason == GENERATION_FAILED) {
        answer_fail(a, &end->err);
        return;
    }
    c->finish = end->reason != GENERATION_STOP ? "length" : end->calls > 0 ? "tool_calls" : "stop";
    count_usage(a, c, end);
    a->telling.ended_ns = clock_now_ns();
    snprintf(a->telling.stop, sizeof a->telling.stop, "%s", end->stop ? end->stop : "");
    if ((a->stream && !tell_finish(a, c)) || a->running > 0)
        return;
    if (a->stream)
        finish_stream(a);
    else
        finish_whole(a);
}

static int64_t choice_bytes(const void *user)
{
    const struct choice *c = user;
    const struct answer *a = c->answer;
    size_t bytes = c->content.cap + c->reasoning.cap + a->out.cap / (size_t)a->count;
    bytes += (size_t)http_calls_bytes(&c->calls);
    bytes += (a->telling.text.cap + a->telling.items.cap) / (size_t)a->count;
    for (size_t i = 0; i < COUNT_OF(c->logprobs.lists); i++)
        bytes += c->logprobs.lists[i].cap;
    return (int64_t)bytes;
}

static const struct generation_sink sink = {
    .on_text = on_text,
    .on_pieces = on_pieces,
    .on_ids = on_ids,
    .on_told = on_told,
    .on_prompt = on_prompt,
    .on_end = on_end,
    .bytes = choice_bytes,
};

/* --- starting ----------------------------------------------------------------------------------
 */

static struct generation_params params_of(const struct answer *a, const struct openai_request *r,
                                          const struct told_prompt *prompt, bool thinking)
{
    int32_t scored = r->best_of > r->n && r->logprobs == 0; /* best_of compares logprobs */
    bool calls = r->tools && r->tool_choice != OPENAI_TOOLS_NONE && a->x->dialect->pieces;
    return (struct generation_params){
        .prompt = (const int32_t *)prompt->ids.data,
        .prompt_len = (int32_t)prompt->ids.len,
        .max_tokens = r->max_tokens,
        .default_max_tokens = r->default_max_tokens,
        .prompt_only = r->prompt_only,
        .sampling = r->sampling,
        .shaping = r->shaping,
        .constraint.kind = r->json_object ? CONSTRAINT_JSON_OBJECT : CONSTRAINT_NONE,
        .thinking_budget = r->thinking_budget,
        .logprobs = scored ? 1 : r->logprobs,
        .tenant = a->x->tenant,
        .quota = a->x->caller.quota,
        .prefix_domain = config_prefix_domain(a->core->config, a->x->tenant),
        .priority = r->priority,
        .ignore_eos = r->ignore_eos,
        .split_reasoning = a->head.chat,
        .in_reasoning = thinking,
        .calls = calls ? calls_format(a->core->served.text->template) : CALLS_NONE,
        .tools = r->tools,
        .one_call = !r->parallel_tool_calls,
        .stop = r->stop,
        .stop_count = r->stop_count,
        .origin = {.door = "http", .api = a->x->route, .key = a->x->key, .request = a->x->id},
    };
}

/* From where it was told before. */
static void go_on(struct choice *c, struct generation_params *p)
{
    const struct http_resume *r = c->answer->resume;
    if (!r || !r->position.resumed)
        return;
    p->after = c->at;
    p->numerics_class = *r->position.class ? r->position.class : NULL;
    c->drawn = c->at.tokens;
}

/* The choices of one prompt; the first asks for the prompt's logprobs. */
static enum status start_prompt(struct answer *a, const struct openai_request *r, int32_t first,
                                bool thinking, struct error *err)
{
    struct told_prompt *prompt = a->choices[first].prompt;
    struct generation_params p = params_of(a, r, prompt, thinking);
    struct buf form;
    buf_init(&form, 2 * CONSTRAINT_MAX_TEXT);
    enum status st = OK;
    if (r->tool_choice == OPENAI_TOOLS_REQUIRED || r->tool_choice == OPENAI_TOOLS_NAMED)
        st = calls_must(p.calls, r->tools, r->tool_name, &form, &p.constraint, err);
    for (int32_t i = 0; i < a->best_of && st == OK; i++) {
        struct choice *c = &a->choices[first + i];
        c->seed = p.sampling.seed = r->sampling.seed + (uint64_t)i;
        p.prompt_logprobs = i == 0 ? prompt->wanted : 0;
        p.accepted = c->index > 0; /* with the first */
        p.same_prompt = i > 0;
        p.replaces = c->index == 0 && a->replaces;
        p.origin.choice = c->index;
        go_on(c, &p);
        st = generation_start(a->core, &p, &sink, c, &c->generation, err);
        a->running += st == OK;
    }
    buf_fini(&form);
    return st == OK ? told_prompt_begin(prompt, err) : st;
}

/* False: the answer is gone and its exchange answered. */
static bool start_all(struct answer *a, const struct openai_request *r)
{
    struct exchange *x = a->x;
    struct error err;
    for (int32_t i = 0; i < a->prompt_count; i++) {
        struct token_ids ids;
        bool thinking;
        if (!http_encode(x, r, i, &ids, &thinking)) {
            answer_destroy(a);
            return false;
        }
        told_prompt_init(&a->prompts[i], a->core, r, &ids);
        a->encoded++;
        if (start_prompt(a, r, i * a->best_of, thinking, &err) != OK) {
            answer_destroy(a);
            http_refuse(x, &err);
            return false;
        }
    }
    return true;
}

/* What stands before the first text of a choice: who speaks, or the prompt. */
static enum status write_first(struct answer *a, struct choice *c, struct error *err)
{
    const struct told_prompt *p = c->prompt;
    if (c->at.begun || !(a->head.chat || p->echo))
        return OK;
    c->at.begun = true;
    a->head.prompt_tokens = (int64_t)p->ids.len;
    count_so_far(a, c);
    note_position(c);
    TRY(a->x->dialect->first(&a->out, &a->head, c->index, err));
    if (!p->echo)
        return OK;
    return a->x->dialect->text(&a->out, &a->head, c->index, false, p->text.data, p->text.len, NULL,
                               err);
}

static void begin_stream(struct answer *a)
{
    struct error err;
    enum status st = OK;
    struct choice *told[OPENAI_MAX_CHOICES] = {0};
    tell_seeds(a, told, answer_choose(a, told));
    exchange_stream(a->x, on_gone, a);
    for (int32_t i = 0; i < a->count && st == OK; i++)
        st = write_first(a, &a->choices[i], &err);
    answer_send(a, st, &err);
}

/* False: refused. */
static bool check_priority(struct exchange *x, const struct openai_request *r)
{
    struct error err;
    if (auth_check_priority(x->scopes, r->priority, &err) == OK)
        return true;
    exchange_fail(x, 403, "insufficient_scope", err.msg);
    return false;
}

/* False: refused, before its prompt has cost anything. */
static bool admitted(struct exchange *x, int32_t priority)
{
    struct error err;
    if (core_admit(x->core, &x->caller, priority, 0, &err) == OK)
        return true;
    http_refuse(x, &err);
    return false;
}

static void generate(struct exchange *x, enum openai_kind kind)
{
    struct openai_request r;
    bool replaces = http_resume_replaces(x);
    /* What even the highest priority would be refused need not be read. */
    if ((!replaces && !admitted(x, -1)) || !http_read_request(x, &kind, &r))
        return;
    struct http_resume *resume;
    int32_t choices = r.best_of * (kind == OPENAI_CHAT ? 1 : r.prompt_count);
    if (!check_priority(x, &r) || (!replaces && !admitted(x, r.priority)) ||
        !http_resume_create(x, &r, choices, on_taken, &resume)) {
        openai_request_fini(&r);
        return;
    }
    if (!r.has_seed) /* one that every JSON reader can hold and send back */
        r.sampling.seed = (resume ? resume_seed(&resume->claim.key) : core_draw_seed()) >> 11;
    struct answer *a = answer_create(x, &r, kind == OPENAI_CHAT, resume);
    a->replaces = replaces;
    bool started = start_all(a, &r);
    openai_request_fini(&r);
    if (!started)
        return;
    http_tell_quota(x);
    if (a->stream)
        begin_stream(a);
    else
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
