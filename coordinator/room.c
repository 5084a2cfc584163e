/*
 * Whether a group takes one more request into its queue: see members.h. A queue has three bounds:
 * so many requests, so many tokens of their prompts, and so long a wait, as backlog_wait_s of
 * admission.h has it. What was let in once and has lost its group passes them, and so do the later
 * choices of an answer: those before them, of the same instant, are no queue of others.
 */
#include "base/clock.h"
#include "coordinator/members_private.h"

static const enum metrics_limit NONE = METRICS_LIMIT_COUNT; /* there is room */

/* What to tell one whose answer was let in, but does not fit into what a leader can hold. */
static const double FULL_RETRY_S = 5.0;

/* Requests that have not begun: by what was sent there, or more where the cache holds fewer, as of
 * the last heartbeat. */
static int32_t queued(const struct group *g)
{
    int32_t all = g->active + g->others;
    int32_t beyond = all - g->deployment.limits.max_seqs;
    int32_t told = g->waiting < (uint32_t)all ? (int32_t)g->waiting : all;
    return told > beyond ? told : beyond;
}

/* Batch work is turned away at half of what others may wait. A tenant of whom nobody waits comes in
 * at twice as much: tenants have equal shares, so it does not wait behind one who asks for more. */
static double most_s(const struct core *core, const struct generation_params *p, double wait_s)
{
    double most = core->config->limits.waiting_ms * (p->priority > 0 ? 0.5e-3 : 1e-3);
    if (wait_s <= most || !core->identity || generation_waits(core, p->tenant))
        return most;
    return 2.0 * most;
}

static enum metrics_limit room_left(const struct group *g, const struct generation_params *p,
                                    struct room *r)
{
    const struct core *core = g->members->core;
    int64_t tokens = backlog_tokens(&g->backlog);
    if (queued(g) >= core->config->limits.waiting)
        return METRICS_LIMIT_WAITING;
    if (tokens > 0 && tokens + p->prompt_len > core->config->limits.waiting_tokens)
        return METRICS_LIMIT_WAITING_TOKENS;
    r->until_s = r->wait_s - p->deadline_ms * 1e-3;
    if (p->deadline_ms > 0 && r->until_s > 0.0)
        return METRICS_LIMIT_DEADLINE;
    r->until_s = r->wait_s - most_s(core, p, r->wait_s);
    return r->until_s > 0.0 ? METRICS_LIMIT_WAITING_MS : NONE;
}

struct room group_room(const struct group *g, const struct generation_params *p, bool accepted)
{
    struct room r = {.limit = NONE};
    if (accepted) {
        r.limit = queued(g) < (int32_t)MEMBERS_MOST_WAITING ? NONE : METRICS_LIMIT_WAITING;
        return r;
    }
    r.wait_s = backlog_wait_s(&g->backlog, p->priority, clock_now_ns());
    if (g->via_wait_s > r.wait_s) /* others ask there too */
        r.wait_s = g->via_wait_s;
    r.until_s = r.wait_s;
    r.limit = room_left(g, p, &r);
    return r;
}

bool room_is_there(const struct room *r)
{
    return r->limit == NONE;
}

enum status group_refuses(const struct group *g, const struct room *r, bool accepted,
                          struct error *err)
{
    struct core *core = g->members->core;
    const char *name = g->config->name;
    if (accepted) {
        core->retry_s = admission_spread_s(FULL_RETRY_S, core_draw_seed());
        return error_set(err, ERR_NO_MEMORY,
                         "%d requests wait in group %s, as many as it can hold: try again in %d s",
                         queued(g), name, core->retry_s);
    }
    if (r->limit == METRICS_LIMIT_WAITING)
        return core_refuse(core, r->limit, r->until_s, err,
                           "%d requests wait in group %s, as many as may (limits.waiting)",
                           queued(g), name);
    if (r->limit == METRICS_LIMIT_WAITING_TOKENS)
        return core_refuse(core, r->limit, r->until_s, err,
                           "prompts of %lld tokens wait in group %s, as much as may "
                           "(limits.waiting_tokens)",
                           (long long)backlog_tokens(&g->backlog), name);
    if (r->limit == METRICS_LIMIT_DEADLINE)
        return core_refuse(core, r->limit, r->until_s, err,
                           "the request would wait about %.1f s in group %s, and its deadline is "
                           "sooner",
                           r->wait_s, name);
    return core_refuse(core, r->limit, r->until_s, err,
                       "the request would wait about %.1f s in group %s, longer than it may "
                       "(limits.waiting_ms)",
                       r->wait_s, name);
}

enum status members_admit(const struct members *m, const struct generation_params *p,
                          struct error *err)
{
    const struct group *full = NULL;
    struct room why = {.limit = NONE};
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        if (!group_takes_new(g))
            continue;
        struct room r = group_room(g, p, false);
        if (room_is_there(&r))
            return OK;
        if (!full || r.wait_s < why.wait_s) {
            full = g;
            why = r;
        }
    }
    return full ? group_refuses(full, &why, false, err) : OK;
}
