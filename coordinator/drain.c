/* Groups taken out of service on purpose: see drain.h. */
#include "coordinator/drain.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/members_private.h"

#include <stdio.h>
#include <string.h>

bool group_takes_new(const struct group *g)
{
    return g->state == GROUP_READY && !g->drained && g->restart == RESTART_NONE &&
           (!g->via || g->via_takes);
}

static bool others_take(const struct group *g)
{
    const struct members *m = g->members;
    for (uint32_t i = 0; i < m->count; i++)
        if (&m->groups[i] != g && group_takes_new(&m->groups[i]))
            return true;
    return false;
}

static enum status find(struct members *m, const char *name, struct group **out, struct error *err)
{
    *out = members_find(m, name);
    return *out ? OK : error_set(err, ERR_NOT_FOUND, "this cluster has no group \"%.80s\"", name);
}

bool drain_restarting(const struct members *m)
{
    for (uint32_t i = 0; i < m->count && !m->stopping; i++)
        if (m->groups[i].restart != RESTART_NONE)
            return true;
    return false;
}

/* Only its home can tell its ranks anything. */
static enum status not_here(const struct group *g, struct error *err)
{
    if (!g->via)
        return OK;
    return error_set(err, ERR_INVALID,
                     "the ranks of group %s are at the coordinator at %s: ask that one (--address)",
                     g->config->name, share_address(g->via));
}

/* --- asked -------------------------------------------------------------------------------------
 */

static void undo_drain(struct group *g)
{
    if (g->drained) {
        log_info("group %s: takes requests again", g->config->name);
        events_tell(&g->members->events, g->config->name, "undrained", "takes requests again");
        g->members->notify(g->config->name, "undrained", "");
    }
    g->drained = g->ends = false;
    generation_resume(g->members->core);
}

static enum status begin_drain(struct group *g, bool force, struct error *err)
{
    if (g->drained)
        return OK;
    if (group_takes_new(g) && !force && !others_take(g))
        return error_set(err, ERR_INVALID,
                         "group %s is the only one that takes requests: new ones would be refused "
                         "(503) until `witan drain %s --undo`; --force does it",
                         g->config->name, g->config->name);
    g->drained = true;
    g->drained_ns = clock_now_ns();
    g->moved = false;
    log_info("group %s: draining: takes nothing new, %d requests run there", g->config->name,
             g->active);
    events_tell(&g->members->events, g->config->name, "drained", "takes nothing new");
    g->members->notify(g->config->name, "drained", "");
    return OK;
}

enum status drain_group(struct members *m, const char *name, bool undo, bool force,
                        uint32_t *requests, struct error *err)
{
    struct group *g;
    TRY(find(m, name, &g, err));
    if (g->restart != RESTART_NONE)
        return error_set(err, ERR_INVALID, "group %s restarts: wait until it is ready", name);
    if (!undo)
        TRY(not_here(g, err));
    if (undo)
        undo_drain(g);
    else
        TRY(begin_drain(g, force, err));
    *requests = (uint32_t)g->active;
    return OK;
}

enum status drain_stop(struct members *m, const char *name, uint32_t within_s, bool force,
                       uint32_t *requests, struct error *err)
{
    struct group *g;
    TRY(find(m, name, &g, err));
    TRY(not_here(g, err));
    if (!g->config->external)
        return error_set(err, ERR_INVALID,
                         "the ranks of group %s are started by `witan serve`, which would start "
                         "them again: `witan drain %s`, or `witan restart %s`",
                         name, name, name);
    if (g->restart != RESTART_NONE)
        return error_set(err, ERR_INVALID, "group %s restarts: wait until it is ready", name);
    if (g->state != GROUP_READY) {
        struct error why;
        group_why_not(g, &why);
        return error_set(err, ERR_INVALID, "nothing to end: %.900s", why.msg);
    }
    TRY(begin_drain(g, force, err));
    if (within_s == 0)
        within_s = (uint32_t)m->core->config->limits.drain_timeout_s;
    g->ends = true;
    g->end_by_ns = clock_now_ns() + (int64_t)within_s * 1000000000;
    *requests = (uint32_t)g->active;
    group_drain_tick(g, clock_now_ns());
    return OK;
}

enum status drain_restart(struct members *m, const char *name, bool force, uint32_t *requests,
                          struct error *err)
{
    struct group *g;
    TRY(find(m, name, &g, err));
    TRY(not_here(g, err));
    for (uint32_t i = 0; i < m->count; i++)
        if (m->groups[i].restart != RESTART_NONE)
            return error_set(err, ERR_INVALID,
                             "group %s restarts already (%d requests are left on it): one at a "
                             "time",
                             m->groups[i].config->name, m->groups[i].active);
    if (g->state != GROUP_READY) {
        struct error why;
        group_why_not(g, &why);
        return error_set(err, ERR_INVALID, "nothing to restart: %.900s", why.msg);
    }
    if (group_takes_new(g) && !force && !others_take(g))
        return error_set(err, ERR_INVALID,
                         "group %s is the only one that takes requests: they would wait until it "
                         "is back; --force does it",
                         name);
    g->restart = RESTART_DRAINING;
    g->restart_ns = clock_now_ns();
    g->alone = force || g->drained;
    g->moved = false;
    log_info("group %s: restarting: takes nothing new, %d requests run there", name, g->active);
    events_tell(&g->members->events, name, "restarting", "takes nothing new until it is back");
    *requests = (uint32_t)g->active;
    group_drain_tick(g, g->restart_ns);
    return OK;
}

/* --- as time goes on ---------------------------------------------------------------------------
 */

/* What runs there goes on elsewhere, or is held. */
static void move(struct group *g)
{
    g->moved = true;
    share_return_all(g->members->share, g, "its group was taken out of service");
    generation_moved(g->members->core, g, g->config->name);
}

/* What would stand in for it has gone meanwhile. */
static void give_up(struct group *g)
{
    g->restart = RESTART_NONE;
    snprintf(g->message, sizeof g->message,
             "its restart was given up, as no other group takes requests any more");
    log_warn("group %s: %s", g->config->name, g->message);
    events_tell(&g->members->events, g->config->name, "restart given up", g->message);
    generation_resume(g->members->core);
}

static void drain_for_restart(struct group *g, int64_t since)
{
    int64_t most = (int64_t)g->members->core->config->limits.drain_timeout_s * 1000000000;
    if (!g->alone && !others_take(g)) {
        give_up(g);
        return;
    }
    /* Where no other group takes them, new requests wait until this one is back: the sooner the
     * better. */
    if (g->active > 0 && (since > most || !others_take(g)))
        move(g);
    if (g->active > 0)
        return;
    g->restart = RESTART_STOPPING;
    group_stop(g, "it is restarted");
}

static void drain_for_end(struct group *g, int64_t now)
{
    if (g->state != GROUP_READY)
        return;
    if (g->active > 0 && now >= g->end_by_ns)
        move(g);
    if (g->active == 0)
        group_stop(g, "it was drained for its ranks to end");
}

void group_drain_tick(struct group *g, int64_t now)
{
    const struct config *c = g->members->core->config;
    int64_t most = (int64_t)c->limits.drain_timeout_s * 1000000000;
    int64_t start = (int64_t)c->limits.start_timeout_s * 1000000000;
    if (g->restart == RESTART_DRAINING) {
        drain_for_restart(g, now - g->restart_ns);
    } else if (g->restart == RESTART_STARTING && now - g->restart_ns > start) {
        g->restart = RESTART_NONE;
        log_warn("group %s: not back within %d s of its restart (limits.start_timeout_s)",
                 g->config->name, c->limits.start_timeout_s);
    } else if (g->ends) {
        drain_for_end(g, now);
    } else if (g->drained && !g->moved && g->active > 0 && now - g->drained_ns > most &&
               others_take(g)) {
        move(g);
    }
}

void group_drain_state(struct group *g)
{
    if (g->ends && g->state == GROUP_WAITING)
        undo_drain(g);
    if (g->restart == RESTART_NONE)
        return;
    if (g->state == GROUP_WAITING && g->restart == RESTART_STOPPING) {
        g->restart = RESTART_STARTING;
        g->restart_ns = clock_now_ns(); /* limits.start_timeout_s counts from here */
    } else if (g->state == GROUP_READY) {
        log_info("group %s: restarted", g->config->name);
        events_tell(&g->members->events, g->config->name, "restarted", "");
        g->restart = RESTART_NONE;
    } else if (g->state == GROUP_LOST) {
        log_warn("group %s: its restart has failed: %s", g->config->name, g->message);
        events_tell(&g->members->events, g->config->name, "restart failed", g->message);
        g->restart = RESTART_NONE;
    }
}
