/*
 * Which group a request goes to, and what is sent there: see members.h. On the loop thread.
 */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/members_private.h"
#include "proto/versions.h"

#include <string.h>

typedef Witan__Cluster__V1__CoordinatorMessage coordinator_message;

_Static_assert((int)CONFIG_MAX_GROUPS <= 64, "a bit for each group");

static bool proven(const struct group *g)
{
    int64_t probe = g->members->core->config->limits.probe_s;
    int64_t most = 3 * probe > PROVEN_AT_LEAST_S ? 3 * probe : PROVEN_AT_LEAST_S;
    return group_takes_new(g) && clock_now_ns() - g->proven_ns < most * 1000000000;
}

enum status group_why_not(const struct group *g, struct error *err)
{
    if (g->state == GROUP_WAITING)
        return error_set(err, ERR_PEER, "group %s waits for its ranks%s: %d of %d are there%s%s",
                         g->config->name,
                         g->config->external ? ", which are started elsewhere" : "", g->attached,
                         group_world(g), *g->message ? "; before: " : "", g->message);
    if (g->state == GROUP_LOADING)
        return error_set(err, ERR_PEER, "group %s is loading: %d of %d ranks are done",
                         g->config->name, g->loaded, group_world(g));
    if (g->state != GROUP_READY)
        return error_set(err, ERR_PEER, "group %s is %s%s%s", g->config->name,
                         group_state_name(g->state), *g->message ? ": " : "", g->message);
    if (g->via && !group_takes_new(g))
        return error_set(err, ERR_PEER,
                         "group %s takes no requests at the coordinator at %s, which has its ranks",
                         g->config->name, share_address(g->via));
    if (!group_takes_new(g))
        return error_set(err, ERR_PEER, "group %s is draining", g->config->name);
    return error_set(err, ERR_PEER, "group %s has run no forward pass for %.0f s", g->config->name,
                     (double)(clock_now_ns() - g->proven_ns) * 1e-9);
}

enum status core_ready(const struct core *core, struct error *err)
{
    const struct members *m = core->members;
    enum status st = OK;
    if (m->stopping)
        return error_set(err, ERR_PEER, "the coordinator is stopping");
    for (uint32_t i = 0; i < m->count; i++) {
        if (proven(&m->groups[i]))
            return OK;
        if (st == OK)
            st = group_why_not(&m->groups[i], err);
    }
    return st;
}

/* Tokens that its KV cache holds: as rank 0 says, before that as it was told to; 0: not known. */
static int64_t capacity(const struct group *g)
{
    int64_t blocks = g->kv_blocks;
    if (blocks == 0)
        blocks = g->deployment.limits.kv_blocks;
    return blocks * KV_BLOCK;
}

/* Tokens drawn in one numerics class go on in no other. */
static bool same_class(const struct group *g, const struct journal *j)
{
    return !*j->class || strcmp(j->class, g->class) == 0;
}

/* Ranks of the release before know no answers to go on with. */
static bool goes_on(const struct group *g, const struct journal *j)
{
    return g->protocol >= CLUSTER_PROTOCOL_ANSWERS || (j->answer_len == 0 && j->prompt_told <= 1);
}

/* --- choosing ----------------------------------------------------------------------------------
 *
 * All groups give the same bits, so only time is at stake. A new request waits for the prompts that
 * are to be computed before its own and for what of its own the group's cache does not have; and
 * those that run there slow it down. All in tokens of prompts, the group with the lowest sum of
 *
 *   tokens of its prompt that are not cached there
 *   + tokens of prompts that the group was sent and has not answered yet, cached ones left out
 *   + LOAD_TOKENS for each request on it
 *
 * LOAD_TOKENS is about what a short request costs, its answer included: a prefix of 2,048 tokens
 * outweighs 8 requests more. A group whose batch is full comes after all that have room, as waiting
 * for an answer of others to end costs more than any prompt; one whose queue has no room for it
 * (room.c) is not asked. With one group nothing is counted.
 */
enum { LOAD_TOKENS = 256 };

struct candidate {
    struct group *group; /* NULL: there is none */
    bool full;
    int32_t cached; /* of the prompt's tokens, as was noted */
    int64_t cost;
};

static struct candidate weigh(struct group *g, const struct journal *j, const uint64_t *hashes,
                              int32_t blocks)
{
    int32_t load = g->active + g->others;
    struct candidate c = {.group = g, .full = load >= g->deployment.limits.max_seqs};
    if (g->prefixes)
        c.cached = prefixes_find(g->prefixes, hashes, blocks) * KV_BLOCK;
    c.cost = j->params.prompt_len - c.cached + g->owed + (int64_t)LOAD_TOKENS * load;
    return c;
}

static bool better(const struct candidate *a, const struct candidate *b)
{
    if (!b->group || a->full != b->full)
        return !b->group || b->full;
    return a->cost < b->cost;
}

/* Holding an answer to a form, and ending a thought in it, is for ranks that know how. */
static bool keeps_form(const struct group *g, const struct journal *j)
{
    return (uint32_t)j->params.constraint.kind <= g->constraints;
}

static bool keeps(const struct group *g, const struct journal *j)
{
    return keeps_form(g, j) && (j->params.thinking.count == 0 || g->thinking);
}

/* A group that is not ready, and that may be able to once it is. */
static bool may_keep(const struct group *g, const struct journal *j)
{
    return !group_takes_new(g) &&
           (g->heard                                       ? keeps(g, j)
            : j->params.constraint.kind != CONSTRAINT_NONE ? !config_cuda(g->members->core->config)
                                                           : true);
}

/* One that can keep the request's form is not ready, or may be one that can. */
static bool others_may_keep(const struct members *m, const struct journal *j)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (may_keep(&m->groups[i], j))
            return true;
    return false;
}

static bool can_take(const struct group *g, const struct journal *j)
{
    int64_t tokens = (int64_t)j->params.prompt_len + j->max_tokens;
    return group_takes_new(g) && same_class(g, j) && goes_on(g, j) && keeps(g, j) &&
           (capacity(g) == 0 || capacity(g) >= tokens);
}

/* Of the groups that take requests and whose cache can hold the whole sequence, but for those of
 * the bits in `tried`. *refusing: one whose queue has no room. */
static struct candidate choose(struct members *m, const struct journal *j, int32_t blocks,
                               uint64_t tried, const struct group **refusing)
{
    struct candidate best = {0};
    for (uint32_t i = 0; i < m->count; i++) {
        struct group *g = &m->groups[i];
        if (tried >> i & 1 || !can_take(g, j))
            continue;
        struct room r = group_room(g, &j->params, j->accepted);
        if (!room_is_there(&r)) {
            *refusing = g;
            continue;
        }
        struct candidate c = weigh(g, j, m->hashes, blocks);
        if (better(&c, &best))
            best = c;
    }
    return best;
}

/* The group has it now, and will have its prompt in its cache. */
static void place(const struct candidate *c, struct journal *j, int32_t blocks)
{
    struct group *g = c->group;
    int64_t most = capacity(g) / KV_BLOCK;
    memcpy(j->class, g->class, sizeof j->class);
    j->owed = j->params.prompt_len - c->cached;
    g->owed += j->owed;
    j->waits = j->owed + j->answer_len;
    backlog_add(&g->backlog, j->params.priority, j->waits, clock_now_ns());
    g->active++;
    if (g->prefixes && blocks > 0)
        prefixes_note(g->prefixes, g->members->hashes, blocks,
                      most > 0 && most < PREFIXES_MOST ? (int32_t)most : PREFIXES_MOST);
}

void group_place(struct group *g, struct journal *j)
{
    const struct members *m = g->members;
    const struct generation_params *p = &j->params;
    int32_t blocks = m->hashes
                         ? prefixes_chain(p->prefix_domain, p->prompt, p->prompt_len - 1, m->hashes)
                         : 0;
    struct candidate c = weigh(g, j, m->hashes, blocks);
    place(&c, j, blocks);
}

/* Why no group can be asked. All groups are of one class at a time (members.c), so one that has
 * another than the request's stays alone. */
static enum status none_to_ask(struct members *m, const struct journal *j, struct error *err)
{
    for (uint32_t i = 0; i < m->count && !m->stopping; i++)
        if (group_takes_new(&m->groups[i]) && !same_class(&m->groups[i], j))
            return error_set(err, ERR_CONFLICT,
                             "the answer began in numerics class %s, and group %s computes in %s, "
                             "whose tokens are others: ask again from the beginning",
                             j->class, m->groups[i].config->name, m->groups[i].class);
    for (uint32_t i = 0; i < m->count && !m->stopping; i++)
        if (group_takes_new(&m->groups[i]) && !keeps(&m->groups[i], j))
            return error_set(err, j->accepted || others_may_keep(m, j) ? ERR_PEER : ERR_UNSUPPORTED,
                             "%s is not supported by group %s, whose ranks %sare of an older "
                             "release, and no other is ready",
                             keeps_form(&m->groups[i], j) ? "thinking_budget"
                             : j->params.constraint.kind >= CONSTRAINT_CALL
                                 ? "tool_choice: a call that must be"
                                 : "response_format: json_object",
                             m->groups[i].config->name,
                             keeps_form(&m->groups[i], j) ? "" : "compute on GPUs or ");
    TRY(core_ready(m->core, err));
    return error_set(err, ERR_PEER, "no group is ready");
}

int64_t members_capacity(const struct members *m)
{
    int64_t most = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        int64_t tokens = capacity(&m->groups[i]);
        if (m->groups[i].state == GROUP_READY && tokens > most)
            most = tokens;
    }
    return most;
}

static enum status submit_to(struct group *g, uint64_t id, uint32_t attempt,
                             const struct journal *j, struct error *err)
{
    struct submit_parts parts;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    submit_fill(&parts, j, clock_now_ns());
    parts.submit.request_id = id;
    parts.submit.attempt = attempt;
    parts.submit.epoch = g->members->core->epoch;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT;
    message.submit = &parts.submit;
    enum status st = g->via ? OK : words_send(g, &parts.submit, err);
    if (st == OK)
        st = g->via ? share_submit(g->via, g, &parts.submit, err)
                    : rpc_send(g->ranks[0]->call, &message.base, err);
    if (st == ERR_LIMIT)
        return core_refuse(g->members->core, METRICS_LIMIT_WAITING, 1.0, err,
                           "group %s is not taking requests as fast as they come", g->config->name);
    if (st != OK)
        return error_set(err, ERR_PEER, "group %s is going away", g->config->name);
    return OK;
}

enum status members_submit(struct members *m, uint64_t id, uint32_t attempt, struct journal *j,
                           struct group **group, struct error *err)
{
    uint64_t tried = 0;
    enum status st = ERR_PEER;
    struct candidate c;
    const struct group *refusing = NULL;
    /* A prompt's last token is always computed. */
    int32_t blocks = m->hashes ? prefixes_chain(j->params.prefix_domain, j->params.prompt,
                                                j->params.prompt_len - 1, m->hashes)
                               : 0;
    /* A stream may have ended that is not known to be lost yet: then another group. */
    while (st == ERR_PEER && !m->stopping && (c = choose(m, j, blocks, tried, &refusing)).group) {
        tried |= (uint64_t)1 << (c.group - m->groups);
        st = submit_to(c.group, id, attempt, j, err);
    }
    if (!tried && refusing) {
        struct room r = group_room(refusing, &j->params, j->accepted);
        return group_refuses(refusing, &r, j->accepted, err);
    }
    if (!tried)
        return none_to_ask(m, j, err);
    TRY(st);
    place(&c, j, blocks);
    m->core->metrics.routed[c.cached > 0 ? METRICS_BY_PREFIX : METRICS_BY_LOAD]++;
    *group = c.group;
    return OK;
}

void members_cancel(struct group *g, uint64_t id, uint32_t attempt)
{
    Witan__Cluster__V1__Cancel cancel = WITAN__CLUSTER__V1__CANCEL__INIT;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    cancel.request_id = id;
    cancel.attempt = attempt;
    cancel.epoch = g->members->core->epoch;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL;
    message.cancel = &cancel;
    if (g->via)
        share_cancel(g->via, &cancel);
    else if (g->state == GROUP_READY)
        member_send(g->ranks[0], &message);
}

void members_prefilled(struct group *g, struct journal *j)
{
    g->owed -= j->owed;
    j->owed = 0;
    if (j->waits > 0)
        backlog_begin(&g->backlog, j->params.priority, j->waits, clock_now_ns());
    j->waits = 0;
}

void members_done(struct group *g, struct journal *j)
{
    g->owed -= j->owed;
    backlog_remove(&g->backlog, j->params.priority, j->waits, clock_now_ns());
    j->owed = j->waits = 0;
    g->active--;
}
