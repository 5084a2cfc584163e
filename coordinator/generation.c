/*
 * One sequence from prompt ids to text: see core.h. A generation lives in the core's table from its
 * start to its end; tokens find it by id, and what is not exactly the next position of the current
 * attempt is dropped.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/members.h"
#include "coordinator/reasoning.h"
#include "coordinator/stop.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_LIMIT = 64 << 20 };

_Static_assert((int)GENERATION_MAX_STOPS == (int)STOP_MAX_COUNT, "one bound");

struct generation {
    struct generation *next; /* of the table's chain */
    struct core *core;
    struct group *group;
    uint64_t id;
    uint32_t attempt;
    int64_t started_ns;
    const struct generation_sink *sink;
    void *user;
    struct generation_end end; /* counts as they grow */
    bool split;
    struct detok detok;
    struct reasoning reasoning;
    struct stop stop;
    struct buf raw, thought, plain, answer; /* text on its way through the stages of one push */
    bool cancelled;                         /* by its sink, while it is called */
    bool calling;
};

static struct generation **place(struct core *core, uint64_t id)
{
    struct generation **at = &core->table[id % COUNT_OF(core->table)];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void release(struct generation *g)
{
    *place(g->core, g->id) = g->next;
    if (g->group)
        members_done(g->group);
    g->core->running--;
    g->core->done++;
    reasoning_fini(&g->reasoning);
    stop_fini(&g->stop);
    buf_fini(&g->raw);
    buf_fini(&g->thought);
    buf_fini(&g->plain);
    buf_fini(&g->answer);
    free(g);
}

enum status generation_fits(const struct core *core, int32_t prompt_len, struct error *err)
{
    if (prompt_len < core->served.context)
        return OK;
    return error_set(
        err, ERR_LIMIT,
        "context: the prompt has %d tokens, and prompt and answer together may have %d", prompt_len,
        core->served.context);
}

static enum status check(struct core *core, const struct generation_params *p, int32_t *max_tokens,
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
    TRY(generation_fits(core, p->prompt_len, err));
    TRY(sampling_check(&p->sampling, err));
    if (p->max_tokens < 0)
        return error_set(err, ERR_INVALID, "max_tokens: expected 1 or more, found %d",
                         p->max_tokens);
    int32_t room = core->served.context - p->prompt_len;
    *max_tokens = p->max_tokens == 0 || p->max_tokens > room ? room : p->max_tokens;
    if (core->running >= core->config->limits.requests)
        return error_set(err, ERR_NO_MEMORY,
                         "%d requests are running, as many as are allowed "
                         "(limits.requests): try again",
                         core->running);
    return OK;
}

static struct generation *allocate(struct core *core, const struct generation_params *p)
{
    struct generation *g = check_calloc(1, sizeof *g);
    g->core = core;
    g->id = ++core->next_id;
    g->end.id = g->id;
    g->attempt = 1;
    g->started_ns = clock_now_ns();
    g->split = p->split_reasoning;
    g->end.prompt_tokens = p->prompt_len;
    g->end.seed = p->sampling.seed;
    detok_init(&g->detok, core->served.text->tokenizer, true);
    reasoning_init(&g->reasoning, p->in_reasoning);
    buf_init(&g->raw, TEXT_LIMIT);
    buf_init(&g->thought, TEXT_LIMIT);
    buf_init(&g->plain, TEXT_LIMIT);
    buf_init(&g->answer, TEXT_LIMIT);
    core->running++;
    *place(core, g->id) = g;
    return g;
}

enum status generation_start(struct core *core, const struct generation_params *params,
                             const struct generation_sink *sink, void *user,
                             struct generation **out, struct error *err)
{
    int32_t max_tokens = 0;
    TRY(check(core, params, &max_tokens, err));
    struct generation *g = allocate(core, params);
    g->sink = sink;
    g->user = user;
    enum status st = stop_init(&g->stop, params->stop, params->stop_count, err);
    if (st == OK)
        st = members_submit(core->members, g->id, g->attempt, params, max_tokens, &g->group, err);
    if (st != OK) {
        core->done--;
        release(g);
        return st;
    }
    *out = g;
    return OK;
}

void generation_cancel(struct generation *g)
{
    members_cancel(g->group, g->id, g->attempt);
    g->cancelled = true;
    if (!g->calling)
        release(g);
}

/* --- text --------------------------------------------------------------------------------------
 */

static bool is_reasoning(const struct generation *g)
{
    return g->split &&
           (g->reasoning.state == REASONING_OPENED || g->reasoning.state == REASONING_INSIDE);
}

/* raw -> thought and plain -> answer. *stopped: a stop string appeared in the answer. */
static enum status sort_text(struct generation *g, bool last, bool *stopped, struct error *err)
{
    struct buf *plain = g->split ? &g->plain : &g->raw;
    if (g->split)
        TRY(reasoning_push(&g->reasoning, g->raw.data, g->raw.len, &g->thought, &g->plain, err));
    if (g->split && last)
        TRY(reasoning_flush(&g->reasoning, &g->thought, &g->plain, err));
    TRY(stop_push(&g->stop, plain->data ? plain->data : "", plain->len, &g->answer, stopped, err));
    return last && !*stopped ? stop_flush(&g->stop, &g->answer, err) : OK;
}

static void tell_text(struct generation *g)
{
    if (g->thought.len > 0)
        g->sink->on_text(g->user, PART_REASONING, g->thought.data, g->thought.len);
    if (g->answer.len > 0 && !g->cancelled)
        g->sink->on_text(g->user, PART_CONTENT, g->answer.data, g->answer.len);
    buf_clear(&g->raw);
    buf_clear(&g->thought);
    buf_clear(&g->plain);
    buf_clear(&g->answer);
}

/* The text of the ids; the end token itself says nothing. */
static enum status take_ids(struct generation *g, const struct drawn *d, struct error *err)
{
    for (int32_t i = 0; i < d->count; i++) {
        bool before = is_reasoning(g);
        if (!(d->stopped && i == d->count - 1))
            TRY(detok_push(&g->detok, (uint32_t)d->ids[i], &g->raw, err));
        g->end.completion_tokens++;
        if (before)
            g->end.reasoning_tokens++;
    }
    return OK;
}

/* --- what the group tells ----------------------------------------------------------------------
 */

static void finish(struct generation *g, enum generation_reason reason, const struct error *why)
{
    g->end.reason = reason;
    if (why)
        g->end.err = *why;
    g->calling = true;
    if (!g->cancelled)
        g->sink->on_end(g->user, &g->end);
    release(g);
}

/* One step's ids of this sequence; ends it when they are its last. */
static void take(struct generation *g, const struct drawn *d)
{
    struct error err;
    bool over = d->stopped || d->full || d->failed, stopped = false;
    g->calling = true;
    if (d->count > 0 && g->sink->on_ids)
        g->sink->on_ids(g->user, d->ids, d->count);
    enum status st = take_ids(g, d, &err);
    if (st == OK && over)
        st = detok_flush(&g->detok, &g->raw, &err);
    if (st == OK)
        st = sort_text(g, over, &stopped, &err);
    if (st == OK && !g->cancelled)
        tell_text(g);
    g->calling = false;
    if (g->cancelled) {
        release(g);
    } else if (st != OK || stopped) {
        if (!over)
            members_cancel(g->group, g->id, g->attempt);
        finish(g, st != OK ? GENERATION_FAILED : GENERATION_STOP, st != OK ? &err : NULL);
    } else if (d->failed) {
        error_set(&err, ERR_INVALID, "%s", d->error && *d->error ? d->error : "the engine failed");
        finish(g, GENERATION_FAILED, &err);
    } else if (over) {
        finish(g, d->stopped ? GENERATION_STOP : GENERATION_LENGTH, NULL);
    }
}

void generation_tokens(struct core *core, const struct drawn *d)
{
    struct generation *g = *place(core, d->id);
    if (!g || d->epoch != core->epoch || d->attempt != g->attempt)
        return; /* cancelled meanwhile, or an attempt that was given up */
    if (d->position != g->end.completion_tokens) {
        struct error err;
        error_set(&err, ERR_PEER, "its group sent position %d of the answer where %d follows",
                  d->position, g->end.completion_tokens);
        members_cancel(g->group, g->id, g->attempt);
        finish(g, GENERATION_FAILED, &err);
        return;
    }
    take(g, d);
}

/* Ends all that `dead` says, with the error it gives. */
static void sweep(struct core *core, bool (*dead)(const struct generation *g, const void *arg),
                  const void *arg, const struct error *why, bool cancel)
{
    for (size_t i = 0; i < COUNT_OF(core->table); i++) {
        for (struct generation *g = core->table[i], *next; g; g = next) {
            next = g->next;
            if (!dead(g, arg))
                continue;
            if (cancel)
                members_cancel(g->group, g->id, g->attempt);
            finish(g, GENERATION_FAILED, why);
            next = core->table[i]; /* its sink may have ended others */
        }
    }
}

static bool on_group(const struct generation *g, const void *group)
{
    return g->group == group;
}

void generation_lost(struct core *core, const struct group *group, const struct error *why)
{
    sweep(core, on_group, group, why, false);
}

static bool too_old(const struct generation *g, const void *oldest_ns)
{
    return g->started_ns < *(const int64_t *)oldest_ns;
}

void generation_tick(struct core *core)
{
    int32_t seconds = core->config->limits.answer_timeout_s;
    int64_t oldest = clock_now_ns() - (int64_t)seconds * 1000000000;
    struct error err;
    error_set(&err, ERR_CANCELLED, "the answer took more than %d seconds (limits.answer_timeout_s)",
              seconds);
    sweep(core, too_old, &oldest, &err, true);
}
