/*
 * Groups that stand still and ranks that are slow, by their heartbeats: what hang.h and slow.h find
 * is acted upon. On the loop thread.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/members_private.h"

#include <stdlib.h>
#include <string.h>

static bool watched(const struct group *g)
{
    return (g->state == GROUP_READY || g->state == GROUP_PROVING) && g->attached == group_world(g);
}

static int64_t timeout_ns(const struct members *m)
{
    return (int64_t)m->core->config->limits.step_timeout_s * 1000000000;
}

void watch_hello(struct member *r)
{
    int64_t now = hang_clock_now(&r->members->clock, clock_now_ns());
    r->hang = (struct hang_rank){.rank = r->hello->rank,
                                 .host = r->hello->host,
                                 .pid = r->hello->pid,
                                 .heard_ns = now,
                                 .moved_ns = now};
}

void watch_anew(struct member *r)
{
    r->hang.heard_ns = r->hang.moved_ns = hang_clock_now(&r->members->clock, clock_now_ns());
}

void watch_heartbeat(struct member *r, const Witan__Cluster__V1__Heartbeat *h)
{
    hang_heard(&r->hang, h, hang_clock_now(&r->members->clock, clock_now_ns()));
}

/* Every rank that is watched is silent, and they are on more than one host. */
static bool everyone_silent(const struct members *m, int64_t now)
{
    const char *host = NULL;
    bool several = false;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        for (int32_t k = 0; watched(g) && k < group_world(g); k++) {
            const struct hang_rank *r = &g->ranks[k]->hang;
            if (!hang_silent(r, timeout_ns(m), now))
                return false;
            several = several || (host && strcmp(host, r->host) != 0);
            host = r->host;
        }
    }
    return several;
}

static void watch_group(struct group *g, bool everyone, int64_t now)
{
    const struct hang_rank *ranks[MAX_WORLD] = {NULL};
    const struct hang_rules rules = {
        .timeout_ns = timeout_ns(g->members),
        .layers = g->members->core->served.config.layers,
        .stuck = g->state == GROUP_READY, /* a first step may have much to prepare */
        .everyone = everyone,
    };
    char why[1000];
    for (int32_t i = 0; i < group_world(g); i++)
        ranks[i] = &g->ranks[i]->hang;
    enum hang_kind kind = hang_judge(ranks, group_world(g), &rules, now, why, sizeof why);
    if (kind == HANG_NONE)
        return;
    g->hangs[kind]++;
    group_lose(g, everyone ? RPC_ABORTED : RPC_FAILED_PRECONDITION, why);
}

/* The ranks of one pipeline stage do the same work. */
static void compare_stage(struct group *g, int32_t begin, int32_t count, int64_t now)
{
    struct slow_rank *ranks[MAX_WORLD] = {NULL};
    struct slow_sample samples[MAX_WORLD] = {{0}};
    for (int32_t i = 0; i < count; i++) {
        struct member *r = g->ranks[begin + i];
        const Witan__Cluster__V1__Engine *e = r->engine;
        ranks[i] = &r->slow;
        samples[i] = (struct slow_sample){e ? e->forward_seconds - e->collective_seconds : 0,
                                          e ? r->step : 0};
    }
    slow_window(ranks, samples, count, now);
    for (int32_t i = 0; i < count; i++) {
        const struct hang_rank *r = &g->ranks[begin + i]->hang;
        if (slow_tell(ranks[i], now))
            log_warn("group %s: rank %u (%s, pid %llu) is slow: for %lld s it has computed %.1f "
                     "times as long as its peers, %.1f ms a step, and they wait for it: look for "
                     "heat, other processes and memory on that host",
                     g->config->name, r->rank, r->host, (unsigned long long)r->pid,
                     (long long)((now - ranks[i]->slow_ns) / 1000000000) + SLOW_WINDOW_S,
                     ranks[i]->ratio, ranks[i]->step_s * 1e3);
    }
}

static void compare_ranks(struct group *g, int64_t now)
{
    const struct layout *l = &g->deployment.plan->layout;
    for (int32_t s = 0; s < l->pp; s++)
        compare_stage(g, s * l->w, l->w, now);
}

void members_watch(struct members *m)
{
    int64_t now = hang_clock_now(&m->clock, clock_now_ns());
    bool everyone = everyone_silent(m, now), compare = now >= m->compare_ns;
    if (compare)
        m->compare_ns = now + (int64_t)SLOW_WINDOW_S * 1000000000;
    share_watch(m->share, now);
    for (uint32_t i = 0; i < m->count && !m->stopping; i++) {
        struct group *g = &m->groups[i];
        if (watched(g))
            watch_group(g, everyone, now);
        if (compare && watched(g))
            compare_ranks(g, now);
    }
}
