/*
 * One sequence from prompt ids to text: see core.h. A generation lives in the core's table from its
 * start to its end; tokens find it by id, and what is not of the current attempt is dropped.
 *
 * When its group is lost it is asked of another one with the tokens that its sink has been told, as
 * a new attempt; while no group is ready it is held, without one.
 *
 * With an audit log what a group says is kept (drawn.h) until the record of the request's start is
 * durable.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/answer_text.h"
#include "coordinator/audit_request.h"
#include "coordinator/charge.h"
#include "coordinator/drain.h"
#include "coordinator/drawn.h"
#include "coordinator/members.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert((int)GENERATION_MAX_STOPS == (int)STOP_MAX_COUNT, "one bound");

struct generation {
    struct generation *next; /* of the table's chain */
    struct core *core;
    struct group *group; /* NULL: held, or not submitted yet */
    struct journal journal;
    uint64_t id;
    uint64_t tenant;
    struct quota_ticket charge;
    uint32_t attempt; /* from 1 on */
    uint32_t moves;   /* of these, those that its group was not lost for */
    int64_t started_ns;
    int64_t lost_ns; /* when its group was lost, until its next token; 0: it is well */
    struct metrics_request times;
    enum metrics_end ended; /* what its release counts as */
    const struct generation_sink *sink;
    void *user;
    int64_t bytes;             /* of core->bytes */
    struct generation_end end; /* counts as they grow */
    struct answer_text text;
    uint32_t check;          /* of the tokens drawn, as long as they are not told */
    uint64_t ticket;         /* of its start in the audit log */
    struct drawn_queue kept; /* until that is durable */
    bool begun;              /* a group has been asked */
    bool heard;              /* and has answered something */
    bool cancelled;          /* by its sink, while it is called */
    bool calling;
};

static struct generation **place(struct core *core, uint64_t id)
{
    struct generation **at = &core->table[id % COUNT_OF(core->table)];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static bool held(const struct generation *g)
{
    return g->begun && !g->group;
}

/* Of one with its exchange and connection, without what grows. */
enum { OWN_BYTES = 8 << 10 };

/* Counts what it takes now. */
static void weigh(struct generation *g)
{
    int64_t now = (int64_t)sizeof *g + OWN_BYTES + journal_bytes(&g->journal) +
                  answer_text_bytes(&g->text);
    if (g->sink && g->sink->bytes)
        now += g->sink->bytes(g->user);
    g->core->bytes += now - g->bytes;
    g->bytes = now;
}

static void audit_end(const struct generation *g)
{
    const struct audit_ended e = {
        .journal = &g->journal,
        .end = &g->end,
        .group = g->group,
        .how = g->ended,
        .failovers = g->attempt - 1 - g->moves,
        .moves = g->moves,
        .began_ns = g->started_ns,
        .first_ns = g->times.first_ns,
        .joules = g->end.metered ? g->end.joules : -1,
    };
    audit_request_end(g->core, &e);
}

/* What it has used of its quotas; one that no group was asked for has used nothing. */
static void settle(struct generation *g, int64_t now_ns)
{
    int64_t prompt = g->journal.params.same_prompt ? 0 : g->end.prompt_tokens;
    if (g->begun)
        quota_settle(&g->charge, prompt + g->end.completion_tokens, now_ns);
    else
        quota_return(&g->charge, now_ns);
}

static void release(struct generation *g)
{
    *place(g->core, g->id) = g->next;
    drawn_clear(&g->kept);
    if (g->begun)
        audit_end(g);
    settle(g, clock_now_ns());
    if (g->group)
        members_done(g->group, &g->journal);
    g->core->bytes -= g->bytes;
    g->core->held -= held(g);
    g->core->running--;
    g->core->done++;
    if (g->begun) {
        int64_t now = clock_now_ns();
        admission_ended(&g->core->admission, now);
        metrics_end(&g->core->metrics, &g->times, g->ended, now);
    }
    answer_text_fini(&g->text);
    journal_fini(&g->journal);
    free(g);
}

/* Refuses what can never fit, with the numbers; *max_tokens: how many may be drawn. Clients know
 * such a refusal by its words: "prompt is too long", "this model's maximum context length is". */
static enum status check_room(struct core *core, const struct generation_params *p,
                              int32_t *max_tokens, struct error *err)
{
    int64_t context = core->served.context, cache = members_capacity(core->members);
    bool small = cache > 0 && cache < context;
    int64_t most = small ? cache : context, room = most - p->prompt_len;
    const char *why = small ? " (the KV cache holds no more)" : "";
    *max_tokens = 0;
    if (p->prompt_only ? room < 0 : room < 1)
        return error_set(err, ERR_LIMIT,
                         "context: the prompt is too long: it has %d tokens, and this model's "
                         "maximum context length is %lld tokens%s%s",
                         p->prompt_len, (long long)most, why,
                         p->prompt_only ? "" : ", the answer's with them");
    if (p->prompt_only)
        return OK;
    if (p->max_tokens > room && !p->default_max_tokens)
        return error_set(err, ERR_LIMIT,
                         "context: the prompt has %d tokens and max_tokens is %d, and this model's "
                         "maximum context length is %lld tokens%s: at most %lld for the answer",
                         p->prompt_len, p->max_tokens, (long long)most, why, (long long)room);
    *max_tokens = p->max_tokens == 0 || p->max_tokens > room ? (int32_t)room : p->max_tokens;
    return OK;
}

static enum status check_wanted(const char *field, int32_t wanted, struct error *err)
{
    if (wanted >= 0 && wanted <= 1 + SAMPLING_MAX_LOGPROBS)
        return OK;
    return error_set(err, ERR_INVALID, "%s: expected 0 to %d, found %d", field,
                     (int)SAMPLING_MAX_LOGPROBS, wanted - 1);
}

int32_t core_retry_s(const struct core *core)
{
    return core->retry_s;
}

/* When what is beyond all groups' slots will have ended. */
static int32_t drained_s(const struct core *core)
{
    const struct config *c = core->config;
    int64_t at_once = (int64_t)c->limits.sequences * c->groups_count;
    int64_t ahead = core->running > at_once ? core->running - at_once : 1;
    return admission_retry_s(&core->admission, (int32_t)ahead, clock_now_ns());
}

enum status core_refuse(struct core *core, enum metrics_limit limit, double wait_s,
                        struct error *err, const char *fmt, ...)
{
    char words[500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    core->metrics.refused[limit]++;
    core->retry_s = admission_spread_s(wait_s > 0.0 ? wait_s : drained_s(core), core_draw_seed());
    return error_set(err, ERR_NO_MEMORY, "%s: try again in %d s", words, core->retry_s);
}

/* A look through the table costs microseconds, and only new requests ask for it. */
static int32_t running_of(const struct core *core, uint64_t tenant)
{
    int32_t count = 0;
    for (size_t i = 0; i < COUNT_OF(core->table); i++)
        for (const struct generation *g = core->table[i]; g; g = g->next)
            count += g->tenant == tenant;
    return count;
}

/* Too many at once are refused here, before they cost anything. */
static enum status admit(struct core *core, uint64_t tenant, struct error *err)
{
    int32_t most = core->config->limits.requests, own = core->config->limits.tenant_requests;
    int64_t mb = (core->bytes + core->doors) >> 20;
    if (core->running >= most)
        return core_refuse(core, METRICS_LIMIT_REQUESTS, 0.0, err,
                           "%d requests are under way, as many as may be (limits.requests)",
                           core->running);
    if (mb >= core->config->limits.memory_mb)
        return core_refuse(core, METRICS_LIMIT_MEMORY, 0.0, err,
                           "the requests under way take %lld MB of memory, as much as they may "
                           "(limits.memory_mb)",
                           (long long)mb);
    if (own > 0 && running_of(core, tenant) >= own)
        return core_refuse(core, METRICS_LIMIT_TENANT, 0.0, err,
                           "%d requests of this tenant are under way, as many as it may have "
                           "(limits.tenant_requests)",
                           own);
    return OK;
}

enum status core_admit(struct core *core, const struct auth_caller *caller, int32_t priority,
                       uint32_t deadline_ms, struct error *err)
{
    struct generation_params p = {.prompt_len = 1,
                                  .tenant = caller->tenant,
                                  .priority = priority,
                                  .deadline_ms = deadline_ms};
    if (priority < -1 || priority > 1)
        return OK; /* generation_start says what is wrong with it */
    TRY(charge_check(core, caller, err));
    TRY(admit(core, caller->tenant, err));
    return members_admit(core->members, &p, err);
}

bool generation_waits(const struct core *core, uint64_t tenant)
{
    for (size_t i = 0; i < COUNT_OF(core->table); i++)
        for (const struct generation *g = core->table[i]; g; g = g->next)
            if (g->tenant == tenant && g->journal.waits > 0)
                return true;
    return false;
}

enum status generation_check(const struct core *core, const struct generation_params *p,
                             struct error *err)
{
    if (p->prompt_len < 1)
        return error_set(err, ERR_INVALID, "prompt: it is empty");
    for (int32_t i = 0; i < p->prompt_len; i++)
        if (p->prompt[i] < 0 || p->prompt[i] >= core->served.vocab)
            return error_set(err, ERR_INVALID,
                             "prompt[%d]: expected a token id from 0 to %d, "
                             "found %d",
                             i, core->served.vocab - 1, p->prompt[i]);
    TRY(sampling_check(&p->sampling, err));
    TRY(shaping_check(&p->shaping, core->served.vocab, err));
    if (p->constraint.kind < CONSTRAINT_NONE || p->constraint.kind >= CONSTRAINT_KINDS)
        return error_set(err, ERR_UNSUPPORTED, "response_format: not one that this release knows");
    TRY(constraint_check(&p->constraint, &p->shaping, p->ignore_eos, p->max_tokens, err));
    TRY(thinking_check(&p->thinking, &p->constraint, core->served.vocab, p->max_tokens, err));
    TRY(check_wanted("logprobs", p->logprobs, err));
    TRY(check_wanted("prompt_logprobs", p->prompt_logprobs, err));
    if (p->priority < -1 || p->priority > 1)
        return error_set(err, ERR_INVALID, "priority: expected -1 to 1, found %d", p->priority);
    if (p->max_tokens < 0)
        return error_set(err, ERR_INVALID, "max_tokens: expected 1 or more, found %d",
                         p->max_tokens);
    if (p->max_tokens > 0 && !p->default_max_tokens && p->shaping.min_tokens > p->max_tokens)
        return error_set(err, ERR_INVALID, "min_tokens: expected at most max_tokens, %d, found %d",
                         p->max_tokens, p->shaping.min_tokens);
    return OK;
}

static enum status check(struct core *core, const struct generation_params *p, int32_t *max_tokens,
                         struct error *err)
{
    TRY(generation_check(core, p, err));
    TRY(check_room(core, p, max_tokens, err));
    TRY(constraint_check(&p->constraint, &p->shaping, p->ignore_eos, *max_tokens, err));
    return p->replaces ? OK : admit(core, p->tenant, err);
}

static struct generation *allocate(struct core *core, const struct generation_params *p,
                                   int32_t max_tokens)
{
    struct generation *g = check_calloc(1, sizeof *g);
    g->core = core;
    g->id = ++core->next_id;
    g->end.id = g->id;
    g->attempt = 1;
    g->tenant = p->tenant;
    g->ended = METRICS_CANCELLED;
    g->started_ns = clock_now_ns();
    journal_init(&g->journal, p, max_tokens, g->started_ns);
    g->end.prompt_tokens = p->prompt_len;
    g->end.seed = p->sampling.seed;
    g->check = resume_nowhere().check;
    core->running++;
    *place(core, g->id) = g;
    return g;
}

/* Its group is restarting and comes back: a new request waits like one that had begun there. */
static void await_group(struct generation *g, const struct error *why)
{
    g->core->held++;
    g->lost_ns = g->started_ns;
    g->end.err = *why;
}

/* Was the model that is served taught to think? What a model of no known template does is open. */
static bool may_think(const struct core *core)
{
    switch (core->served.text->template) {
    case TEMPLATE_QWEN3_INSTRUCT_2507:
    case TEMPLATE_QWEN3_CODER:
    case TEMPLATE_QWEN2_5:
    case TEMPLATE_QWEN3GUARD_GEN:
        return false;
    default:
        return core->served.text->think_close != UINT32_MAX;
    }
}

/* Tokens at a prompt's end in which a thought that it closed ends: `</think>` and an empty line,
 * which is one token or two. An answer that begins anew has more behind an earlier thought's end.
 */
enum { THOUGHT_END_TOKENS = 4 };

/* What may come before content of a form: a thought, unless nobody tells it apart, the model has
 * none, or the prompt has just closed one. */
static enum constraint_thought thought_before(const struct core *core,
                                              const struct generation_params *p)
{
    uint32_t close = core->served.text->think_close;
    if (!p->split_reasoning || p->in_reasoning)
        return p->in_reasoning ? CONSTRAINT_IN_THOUGHT : CONSTRAINT_NO_THOUGHT;
    for (int32_t i = p->prompt_len - 1; i >= 0 && i >= p->prompt_len - THOUGHT_END_TOKENS; i--)
        if ((uint32_t)p->prompt[i] == close)
            return CONSTRAINT_NO_THOUGHT;
    return may_think(core) ? CONSTRAINT_MAY_THINK : CONSTRAINT_NO_THOUGHT;
}

/* Where the answer's thought is ended, if it comes to that: never where there is none, or where
 * max_tokens ends the answer before. What an answer must be keeps its room behind the thought. */
static enum status bound_thought(const struct core *core, int32_t max_tokens,
                                 struct generation_params *p, struct error *err)
{
    if (p->thinking_budget == 0 || p->prompt_only || !may_think(core))
        return OK;
    if (core->served.thinking.count == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "thinking_budget: not supported for this model, whose words have no tag "
                         "that ends a thought");
    enum constraint_thought thought = thought_before(core, p);
    if (thought == CONSTRAINT_NO_THOUGHT)
        return OK;
    if (p->constraint.kind != CONSTRAINT_NONE &&
        tokenizer_is_special(core->served.text->tokenizer, core->served.text->think_close))
        return error_set(err, ERR_UNSUPPORTED,
                         "thinking_budget: not supported for this model beside an answer of a "
                         "form: its </think> is a special token, which no form has");
    struct thinking t = core->served.thinking;
    t.most = p->thinking_budget - 1;
    t.inside = thought == CONSTRAINT_IN_THOUGHT;
    int32_t room = thinking_room(&t, &p->constraint, max_tokens);
    if (room < 0 && p->constraint.kind != CONSTRAINT_NONE)
        return error_set(err, ERR_INVALID,
                         "max_tokens: expected at least %d, with room behind a thought that "
                         "thinking_budget ends for what the answer must be, found %d",
                         max_tokens - room, max_tokens);
    if (t.most > room && p->constraint.kind == CONSTRAINT_NONE)
        return OK; /* max_tokens ends it before */
    t.most = t.most > room ? room : t.most;
    p->thinking = t;
    return OK;
}

enum status generation_start(struct core *core, const struct generation_params *params,
                             const struct generation_sink *sink, void *user,
                             struct generation **out, struct error *err)
{
    int32_t max_tokens = 0;
    struct generation_params p = *params;
    if (p.constraint.kind != CONSTRAINT_NONE)
        p.constraint.thought = thought_before(core, params);
    params = &p;
    TRY(audit_admit(core->audit, err));
    TRY(check(core, params, &max_tokens, err));
    TRY(bound_thought(core, max_tokens, &p, err));
    struct quota_ticket charge;
    TRY(charge_take(core, params, max_tokens, &charge, err));
    struct generation *g = allocate(core, params, max_tokens);
    g->charge = charge;
    g->sink = sink;
    g->user = user;
    enum status st = answer_text_init(&g->text, core->served.text->tokenizer, params, err);
    if (st == OK)
        st = members_submit(core->members, g->id, g->attempt, &g->journal, &g->group, err);
    if (st == ERR_PEER && drain_restarting(core->members)) {
        await_group(g, err);
        st = OK;
    }
    if (st != OK) {
        core->done--;
        release(g);
        return st;
    }
    g->begun = g->journal.accepted = true;
    g->ticket = audit_request_start(core, g->id, params, &g->journal, g->group);
    weigh(g);
    metrics_begin(&core->metrics, &g->times, g->end.prompt_tokens, g->started_ns);
    *out = g;
    return OK;
}

/* Its group need not go on. */
static void call_off(struct generation *g)
{
    if (g->group)
        members_cancel(g->group, g->id, g->attempt);
}

const char *generation_class(const struct generation *g)
{
    return g->journal.class;
}

void generation_cancel(struct generation *g)
{
    call_off(g);
    g->cancelled = true;
    if (!g->calling)
        release(g);
}

/* --- text --------------------------------------------------------------------------------------
 */

static void tell_tokens(struct generation *g, enum part part)
{
    struct told_token t;
    while (!g->cancelled && answer_text_next(&g->text, part, &t))
        if (g->sink->on_told)
            g->sink->on_told(g->user, &t);
}

static void tell_text(struct generation *g)
{
    struct answer_text *t = &g->text;
    tell_tokens(g, PART_REASONING);
    if (t->thought.len > 0 && !g->cancelled)
        g->sink->on_text(g->user, PART_REASONING, t->thought.data, t->thought.len);
    tell_tokens(g, PART_CONTENT);
    if (t->answer.len > 0 && !g->cancelled)
        g->sink->on_text(g->user, PART_CONTENT, t->answer.data, t->answer.len);
    int32_t count;
    const struct told_piece *pieces = answer_text_pieces(t, &count);
    if (count > 0 && !g->cancelled)
        g->sink->on_pieces(g->user, pieces, count);
    answer_text_clear(t);
}

static enum status take_ids(struct generation *g, const struct drawn *d, struct error *err)
{
    for (int32_t i = 0; i < d->count; i++) {
        bool end = d->stopped && i == d->count - 1;
        TRY(answer_text_push(&g->text, d->ids[i], end, d->logprobs ? &d->logprobs[i] : NULL, err));
    }
    journal_add(&g->journal, d->ids, d->count);
    g->end.completion_tokens += d->count;
    g->end.reasoning_tokens = g->text.reasoning_tokens;
    return OK;
}

/* --- what was told before ----------------------------------------------------------------------
 */

static enum status contradicts(const struct generation *g, struct error *err)
{
    const struct resume_at *after = &g->journal.params.after;
    return error_set(err, ERR_CONFLICT,
                     "the answer cannot be resumed: its first %d tokens, computed again in class "
                     "%s, are not those that were told before (found %d with check %08x, expected "
                     "check %08x): ask again from the beginning",
                     after->tokens, g->journal.class, g->journal.answer_len, g->check,
                     after->check);
}

/* Of the first tokens nobody is told; where their thought alone was told, what they say behind it
 * stays to be. */
static void drop_told(struct generation *g)
{
    struct told_token ignored;
    bool thought = g->journal.params.after.thought;
    while (answer_text_next(&g->text, PART_REASONING, &ignored) ||
           (!thought && answer_text_next(&g->text, PART_CONTENT, &ignored)))
        ;
    buf_clear(&g->text.thought);
    if (!thought)
        answer_text_clear_content(&g->text);
}

/* Takes from *d those tokens that were told before. *stopped: so was a stop string. */
static enum status take_told(struct generation *g, struct drawn *d, bool *stopped,
                             struct error *err)
{
    const struct resume_at *after = &g->journal.params.after;
    struct drawn told = *d;
    int32_t left = after->tokens - g->journal.answer_len;
    if (left <= 0 || (d->count == 0 && !d->stopped && !d->full))
        return OK;
    told.count = left < d->count ? left : d->count;
    told.stopped = d->stopped && told.count == d->count;
    g->check = resume_check(g->check, told.ids, told.count);
    TRY(take_ids(g, &told, err));
    TRY(answer_text_settle(&g->text, told.count == d->count && (d->stopped || d->full), stopped,
                           err));
    drop_told(g);
    if (told.count == left ? g->check != after->check : *stopped || d->stopped || d->full)
        return contradicts(g, err);
    d->position += told.count;
    d->ids += told.count;
    d->logprobs = d->logprobs ? d->logprobs + told.count : NULL;
    d->count -= told.count;
    return OK;
}

/* --- what the group tells ----------------------------------------------------------------------
 */

static void finish(struct generation *g, enum generation_reason reason, const struct error *why)
{
    g->end.reason = reason;
    g->end.calls = g->text.calls.whole;
    g->end.stop = g->text.stop.found;
    g->ended = reason == GENERATION_STOP           ? METRICS_STOP
               : reason == GENERATION_LENGTH       ? METRICS_LENGTH
               : why && why->code == ERR_CANCELLED ? METRICS_TIMED_OUT
                                                   : METRICS_FAILED;
    if (why)
        g->end.err = *why;
    g->calling = true;
    if (!g->cancelled)
        g->sink->on_end(g->user, &g->end);
    release(g);
}

static void tell_prompt(struct generation *g, const struct drawn *d)
{
    if (g->end.completion_tokens == 0 && d->cached_tokens > 0)
        g->end.cached_tokens = d->cached_tokens;
    g->journal.prompt_told += d->prompt_count;
    if (d->prompt_count > 0 && g->sink->on_prompt)
        g->sink->on_prompt(g->user, d->prompt_position, d->prompt_logprobs, d->prompt_count);
}

static void note_tokens(struct generation *g, int32_t count, int64_t now_ns)
{
    struct metrics *m = &g->core->metrics;
    metrics_tokens(m, &g->times, count, now_ns);
    if (g->lost_ns == 0 || count == 0)
        return;
    histogram_add(&m->broken, (double)(now_ns - g->lost_ns) * 1e-9);
    g->lost_ns = 0;
}

/* Takes what a step drew and tells what of it was not told before. */
static enum status take_and_tell(struct generation *g, const struct drawn *drawn, bool over,
                                 bool *stopped, struct error *err)
{
    struct drawn d = *drawn;
    TRY(take_told(g, &d, stopped, err));
    if (d.count > 0 && g->sink->on_ids && !*stopped && !g->cancelled)
        g->sink->on_ids(g->user, d.ids, d.logprobs, d.count);
    if (!*stopped) {
        TRY(take_ids(g, &d, err));
        TRY(answer_text_settle(&g->text, over, stopped, err));
    }
    if (!g->cancelled && g->journal.answer_len >= g->journal.params.after.tokens)
        tell_text(g);
    return OK;
}

/* One step's ids of this sequence; ends it when they are its last. */
static void take(struct generation *g, const struct drawn *d)
{
    struct error err;
    bool over = d->stopped || d->full || d->failed, stopped = false;
    note_tokens(g, d->count, clock_now_ns());
    if (d->count > 0 || over)
        members_prefilled(g->group, &g->journal);
    g->calling = true;
    tell_prompt(g, d);
    enum status st = take_and_tell(g, d, over, &stopped, &err);
    g->calling = false;
    if (!g->cancelled)
        weigh(g);
    if (g->cancelled) {
        release(g);
    } else if (st != OK || stopped) {
        if (!over)
            call_off(g);
        finish(g, st != OK ? GENERATION_FAILED : GENERATION_STOP, st != OK ? &err : NULL);
    } else if (d->failed) {
        error_set(&err, d->late ? ERR_CANCELLED : ERR_INVALID, "%s",
                  d->error && *d->error ? d->error : "the engine failed");
        finish(g, GENERATION_FAILED, &err);
    } else if (over) {
        finish(g, d->stopped ? GENERATION_STOP : GENERATION_LENGTH, NULL);
    }
}

/* What the group sent out of turn, or NULL. */
static const char *out_of_turn(const struct generation *g, const struct drawn *d)
{
    const struct journal *j = &g->journal;
    if (d->position != j->answer_len || d->count > j->max_tokens - j->answer_len)
        return "the answer's tokens";
    if (d->count > 0 && !d->logprobs != !(j->params.logprobs > 0))
        return "the answer's logprobs";
    int32_t left = j->prompt_told > 0 ? g->end.prompt_tokens - j->prompt_told - d->prompt_count : 0;
    if (d->prompt_count > 0 && d->prompt_position != j->prompt_told)
        return "the prompt's logprobs";
    if (left < 0 || (left > 0 && (d->count > 0 || d->full)))
        return "too many or too few of the prompt's logprobs";
    return NULL;
}

/* What its group has said, once it may be told. */
static void hear(struct generation *g, const struct drawn *d)
{
    const char *wrong = out_of_turn(g, d);
    if (wrong) {
        struct error err;
        error_set(&err, ERR_PEER,
                  "its group sent %s out of turn: position %d of the answer where %d follows, %d "
                  "of the prompt where %d follows",
                  wrong, d->position, g->end.completion_tokens, d->prompt_position,
                  g->journal.prompt_told);
        call_off(g);
        finish(g, GENERATION_FAILED, &err);
        return;
    }
    take(g, d);
}

/* Tells what was kept. False: that has ended it. */
static bool hear_kept(struct generation *g)
{
    struct core *core = g->core;
    uint64_t id = g->id;
    for (struct drawn_copy *c; (c = drawn_next(&g->kept)) != NULL;) {
        hear(g, &c->d);
        free(c);
        if (*place(core, id) != g)
            return false;
    }
    return true;
}

/* What an attempt took that was given up is the request's too. */
static void note_joules(struct generation *g, const struct drawn *d)
{
    g->end.joules += d->metered ? d->joules : 0;
    if (d->attempt == g->attempt)
        g->end.metered = d->metered && (g->end.metered || !g->heard);
    g->heard |= d->attempt == g->attempt;
}

bool generation_tokens(struct core *core, const struct drawn *d)
{
    struct generation *g = *place(core, d->id);
    if (!g || d->epoch != core->epoch || d->attempt > g->attempt)
        return false; /* cancelled meanwhile */
    note_joules(g, d);
    if (d->attempt != g->attempt)
        return true;
    if (!audit_is_durable(core->audit, g->ticket))
        drawn_keep(&g->kept, d);
    else if (hear_kept(g))
        hear(g, d);
    return true;
}

/* Ends all that `dead` says, with the error it gives. */
static void sweep(struct core *core, bool (*dead)(const struct generation *g, const void *arg),
                  const void *arg, const struct error *why)
{
    for (size_t i = 0; i < COUNT_OF(core->table); i++) {
        for (struct generation *g = core->table[i], *next; g; g = next) {
            /* release() unlinks what it frees. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
            next = g->next;
            if (!dead(g, arg))
                continue;
            call_off(g);
            struct error err = *why;
            if (held(g))
                error_prefix(&err, "%.700s; ", g->end.err.msg);
            finish(g, GENERATION_FAILED, &err);
            next = core->table[i]; /* its sink may have ended others */
        }
    }
}

/* --- going on elsewhere -------------------------------------------------------------------------
 */

/* A group's leader takes so many requests and tokens at a time without refusing any: the others
 * wait for the next turn, a second later. */
enum { RESUME_REQUESTS = 1024, RESUME_TOKENS = 4 << 20 };

/* What became of the requests of a lost group. */
struct failover {
    int32_t resumed, held, ended;
    int64_t tokens; /* of the resumed */
};

/* Asks a group to go on with one that is held; it stays so while none is ready. */
static void resume(struct generation *g, struct failover *f)
{
    struct core *core = g->core;
    struct error err;
    if (f->resumed >= RESUME_REQUESTS || f->tokens >= RESUME_TOKENS) {
        f->held++;
        return;
    }
    f->tokens += g->journal.params.prompt_len + g->journal.answer_len;
    enum status st = members_submit(core->members, g->id, g->attempt, &g->journal, &g->group, &err);
    if (st == OK) {
        core->held--;
        core->metrics.resumed++;
        f->resumed++;
        audit_request_moved(core, g->id, g->group, g->end.err.msg);
    } else if ((st == ERR_PEER && !core->ending) || st == ERR_NO_MEMORY) {
        f->held++;
    } else {
        if (st == ERR_PEER)
            error_set(&err, st, "the coordinator is stopping, and no group is ready");
        error_prefix(&err, "%.600s; ", g->end.err.msg);
        /* Who has been told a part of it could only ask to be refused. */
        if (st != ERR_CONFLICT || g->journal.params.after.tokens == 0)
            err.code = ERR_PEER;
        f->ended++;
        finish(g, GENERATION_FAILED, &err);
    }
}

/* Nothing of the attempt that was lost counts any more. */
static void take_away(struct generation *g, const char *what)
{
    members_done(g->group, &g->journal);
    drawn_clear(&g->kept);
    g->group = NULL;
    g->core->held++;
    g->attempt++;
    if (g->lost_ns == 0) /* since its last token, however often it is lost meanwhile */
        g->lost_ns = clock_now_ns();
    error_set(&g->end.err, ERR_PEER, "%s", what);
}

static void lose(struct generation *g, const char *what, struct failover *f)
{
    int32_t most = g->core->config->limits.failovers, losses;
    take_away(g, what);
    losses = (int32_t)(g->attempt - 1 - g->moves);
    if (losses <= most) {
        resume(g, f);
        return;
    }
    struct error err;
    error_set(&err, ERR_PEER, "%.800s; it has lost its group %d times (limits.failovers: %d)", what,
              losses, most);
    f->ended++;
    finish(g, GENERATION_FAILED, &err);
}

static void move(struct generation *g, const char *what, struct failover *f)
{
    call_off(g);
    take_away(g, what);
    g->moves++;
    g->core->metrics.moved++;
    resume(g, f);
}

const struct group *generation_group(struct core *core, uint64_t id, uint32_t attempt)
{
    const struct generation *g = *place(core, id);
    return g && g->attempt == attempt ? g->group : NULL;
}

void generation_returned(struct core *core, uint64_t id, uint32_t attempt, const char *why)
{
    struct generation *g = *place(core, id);
    struct failover f = {0};
    char what[1000];
    if (!g || g->attempt != attempt || !g->group)
        return;
    snprintf(what, sizeof what, "its group did not take it: %s", why);
    take_away(g, what);
    g->moves++;
    resume(g, &f);
}

/* All of a group, one by one. */
static struct failover each_of(struct core *core, const struct group *group, const char *what,
                               void (*fn)(struct generation *g, const char *what,
                                          struct failover *f))
{
    struct failover f = {0};
    for (size_t i = 0; i < COUNT_OF(core->table); i++) {
        for (struct generation *g = core->table[i], *next; g; g = next) {
            next = g->next;
            if (g->group != group)
                continue;
            int32_t ended = f.ended;
            fn(g, what, &f);
            if (f.ended != ended)
                next = core->table[i]; /* its sink may have ended others */
        }
    }
    return f;
}

void generation_lost(struct core *core, struct group *group, const char *name, const char *why)
{
    char what[1000];
    snprintf(what, sizeof what, "group %s was lost: %s", name, why);
    struct failover f = each_of(core, group, what, lose);
    if (f.resumed + f.held + f.ended > 0)
        log_warn(
            "group %s: of its requests %d go on in another group, %d wait for one (up to %d s: "
            "limits.failover_timeout_s), %d have ended",
            name, f.resumed, f.held, core->config->limits.failover_timeout_s, f.ended);
}

void generation_moved(struct core *core, struct group *group, const char *name)
{
    char what[200];
    snprintf(what, sizeof what, "group %.100s was taken out of service", name);
    struct failover f = each_of(core, group, what, move);
    log_info(
        "group %s: %d of its requests are moved to another group, %d wait for one (up to %d s: "
        "limits.failover_timeout_s), %d have ended",
        name, f.resumed, f.held, core->config->limits.failover_timeout_s, f.ended);
}

void generation_resume(struct core *core)
{
    struct failover f = {0};
    if (core->held == 0)
        return;
    for (size_t i = 0; i < COUNT_OF(core->table); i++) {
        for (struct generation *g = core->table[i], *next; g; g = next) {
            /* release() unlinks what it frees. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
            next = g->next;
            int32_t ended = f.ended;
            if (held(g))
                resume(g, &f);
            if (f.ended != ended)
                next = core->table[i]; /* its sink may have ended others */
        }
    }
    if (f.resumed > 0)
        log_warn("%d requests that had lost their group go on, %d wait", f.resumed, f.held);
}

void generation_end_held(struct core *core)
{
    core->ending = true;
    generation_resume(core);
}

/* --- the audit log ------------------------------------------------------------------------------
 */

static bool any(const struct generation *g, const void *arg)
{
    (void)arg;
    return g->begun;
}

/* Its start will never be there. */
static bool unrecorded(const struct generation *g, const void *arg)
{
    (void)arg;
    return g->ticket == AUDIT_LOST && !audit_is_durable(g->core->audit, g->ticket);
}

void generation_audited(struct core *core)
{
    struct error err;
    if (!core->audit)
        return;
    if (audit_admit(core->audit, &err) != OK) {
        sweep(core, any, NULL, &err);
        return;
    }
    error_set(&err, ERR_IO, "the audit log had no room to record it");
    sweep(core, unrecorded, NULL, &err);
    for (size_t i = 0; i < COUNT_OF(core->table); i++) {
        for (struct generation *g = core->table[i], *next; g; g = next) {
            /* release() unlinks what it frees. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
            next = g->next;
            if (g->kept.first && audit_is_durable(core->audit, g->ticket) && !hear_kept(g))
                next = core->table[i]; /* its sink may have ended others */
        }
    }
}

/* --- time --------------------------------------------------------------------------------------
 */

static bool too_old(const struct generation *g, const void *oldest_ns)
{
    return g->started_ns < *(const int64_t *)oldest_ns;
}

static bool queued_too_long(const struct generation *g, const void *oldest_ns)
{
    return g->end.completion_tokens == 0 && too_old(g, oldest_ns);
}

static bool held_too_long(const struct generation *g, const void *oldest_ns)
{
    return held(g) && g->lost_ns < *(const int64_t *)oldest_ns;
}

static bool held_past_deadline(const struct generation *g, const void *now_ns)
{
    return held(g) && journal_left_ms(&g->journal, *(const int64_t *)now_ns) < 0;
}

/* No group was there in time for those that wait for one. */
static void end_held(struct core *core, int64_t now)
{
    int32_t most = core->config->limits.failover_timeout_s;
    int64_t oldest = now - (int64_t)most * 1000000000;
    struct error err;
    if (core->held == 0)
        return;
    error_set(&err, ERR_CANCELLED, "deadline: the answer was not done in its time");
    sweep(core, held_past_deadline, &now, &err);
    error_set(&err, ERR_PEER, "no group was ready within %d s (limits.failover_timeout_s)", most);
    sweep(core, held_too_long, &oldest, &err);
}

void generation_tick(struct core *core)
{
    int32_t answer = core->config->limits.answer_timeout_s;
    int32_t queue = core->config->limits.queue_timeout_s;
    int64_t now = clock_now_ns(), oldest = now - (int64_t)answer * 1000000000;
    struct error err;
    error_set(&err, ERR_CANCELLED, "the answer took more than %d seconds (limits.answer_timeout_s)",
              answer);
    sweep(core, too_old, &oldest, &err);
    generation_audited(core);
    end_held(core, now);
    generation_resume(core);
    if (queue == 0)
        return;
    oldest = now - (int64_t)queue * 1000000000;
    error_set(&err, ERR_CANCELLED, "no token came within %d seconds (limits.queue_timeout_s)",
              queue);
    sweep(core, queued_too_long, &oldest, &err);
}
