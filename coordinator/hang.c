/* Who keeps a group from going on: see hang.h. No state. */
#include "coordinator/hang.h"
#include "partition/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PHASE(name) WITAN__CLUSTER__V1__PHASE__PHASE_##name

int64_t hang_clock_now(struct hang_clock *c, int64_t now_ns)
{
    int64_t most = (int64_t)HANG_MOST_MS * 1000000, passed = c->last_ns ? now_ns - c->last_ns : 1;
    c->ran_ns += passed < 0 ? 0 : passed < most ? passed : most;
    c->last_ns = now_ns;
    return c->ran_ns;
}

uint32_t hang_beat_ms(int32_t timeout_s)
{
    int64_t ms = (int64_t)timeout_s * 1000 / HANG_BEATS;
    return (uint32_t)(ms < HANG_MAX_BEAT_MS ? ms : HANG_MAX_BEAT_MS);
}

void hang_heard(struct hang_rank *r, const Witan__Cluster__V1__Heartbeat *h, int64_t now_ns)
{
    bool moved = h->progress != r->progress || h->step != r->step || (int)h->phase != r->phase;
    r->heard_ns = now_ns;
    if (moved || r->moved_ns == 0)
        r->moved_ns = now_ns;
    r->progress = h->progress;
    r->step = h->step;
    r->phase = (int)h->phase;
    r->layer = h->layer;
    r->meets = h->meets;
    r->busy = h->running > 0 || h->waiting > 0;
}

/* --- words -------------------------------------------------------------------------------------
 */

struct line {
    char *at;
    size_t size, len;
};

static void put(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->at + l->len, l->size - l->len, fmt, ap);
    va_end(ap);
    size_t left = l->size - l->len - 1;
    l->len += n < 0 ? 0 : (size_t)n < left ? (size_t)n : left;
}

static double seconds(int64_t ns)
{
    return (double)ns * 1e-9;
}

/* "in phase forward at step 812 (layer 12 of 48)" */
static void put_place(struct line *l, const struct hang_rank *r, int32_t layers)
{
    static const char *const names[] = {"starting", "loading", "idle",
                                        "waiting",  "forward", "stopping"};
    bool known = r->phase >= 0 && r->phase < (int)(sizeof names / sizeof *names);
    put(l, "in phase %s%s at step %llu", known ? names[r->phase] : "unknown",
        r->meets ? " (in a collective)" : "", (unsigned long long)r->step);
    if (r->phase != PHASE(FORWARD) || r->progress == 0)
        return;
    if (r->layer > (uint32_t)layers)
        put(l, " (behind the last layer)");
    else if (r->layer > 0)
        put(l, " (layer %u of %d)", r->layer, layers);
}

static void put_rank(struct line *l, const struct hang_rank *r)
{
    put(l, "rank %u (%s, pid %llu)", r->rank, r->host, (unsigned long long)r->pid);
}

/* Which of the ranks a sentence is about. */
struct chosen {
    const struct hang_rank *const *ranks;
    int32_t count;
    const bool *is;
};

enum { LISTED = 8 }; /* of ranks or hosts in a sentence */

static bool host_is_new(const struct chosen *c, int32_t i)
{
    for (int32_t k = 0; k < i; k++)
        if (c->is[k] && strcmp(c->ranks[k]->host, c->ranks[i]->host) == 0)
            return false;
    return true;
}

static int32_t count_hosts(const struct chosen *c)
{
    int32_t n = 0;
    for (int32_t i = 0; i < c->count; i++)
        n += c->is[i] && host_is_new(c, i);
    return n;
}

/* "node1, node2 and node3" */
static void put_hosts(struct line *l, const struct chosen *c)
{
    int32_t all = count_hosts(c), done = 0;
    for (int32_t i = 0; i < c->count && done < LISTED; i++)
        if (c->is[i] && host_is_new(c, i)) {
            put(l, "%s%s", done == 0 ? "" : done + 1 == all ? " and " : ", ", c->ranks[i]->host);
            done++;
        }
    if (all > LISTED)
        put(l, " and %d more", all - LISTED);
}

/* "ranks 1, 2 and 5" */
static void put_ranks(struct line *l, const struct chosen *c, int32_t all)
{
    int32_t done = 0;
    put(l, "ranks ");
    for (int32_t i = 0; i < c->count && done < LISTED; i++)
        if (c->is[i]) {
            put(l, "%s%u", done == 0 ? "" : done + 1 == all ? " and " : ", ", c->ranks[i]->rank);
            done++;
        }
    if (all > LISTED)
        put(l, " and %d more", all - LISTED);
}

/* --- silence -----------------------------------------------------------------------------------
 */

bool hang_silent(const struct hang_rank *r, int64_t timeout_ns, int64_t now_ns)
{
    return now_ns - r->heard_ns > timeout_ns / 2;
}

enum { MAX_RANKS = MAX_WORLD };

/* The one that was heard longest ago; NULL: none is silent. */
static const struct hang_rank *find_silent(const struct hang_rank *const *ranks, int32_t count,
                                           const struct hang_rules *rules, int64_t now_ns, bool *is,
                                           int32_t *found)
{
    const struct hang_rank *first = NULL;
    *found = 0;
    for (int32_t i = 0; i < count; i++) {
        is[i] = hang_silent(ranks[i], rules->timeout_ns, now_ns);
        *found += is[i];
        if (is[i] && (!first || ranks[i]->heard_ns < first->heard_ns))
            first = ranks[i];
    }
    return first;
}

static enum hang_kind say_silent(struct line *l, const struct chosen *c, int32_t found,
                                 const struct hang_rank *first, const struct hang_rules *rules,
                                 int64_t now_ns)
{
    double age = seconds(now_ns - first->heard_ns);
    if (rules->everyone) {
        put(l,
            "all ranks of all groups have been silent for %.1f s: this coordinator's own host is "
            "probably cut off from theirs",
            age);
        return HANG_ALL_SILENT;
    }
    if (found == 1) {
        put_rank(l, first);
        put(l, " has been silent for %.1f s, last heard ", age);
        put_place(l, first, rules->layers);
        put(l, ": its process is stopped, its host is down, or the network to it is cut");
        return HANG_RANK_SILENT;
    }
    put_ranks(l, c, found);
    put(l, " on ");
    put_hosts(l, c);
    put(l, " have been silent for %.1f s; rank %u was last heard ", age, first->rank);
    put_place(l, first, rules->layers);
    put(l, count_hosts(c) == 1 ? ": that host is down, or the network to it is cut"
                               : ": those hosts are down, or the network to them is cut");
    return HANG_RANKS_SILENT;
}

/* --- standing still ----------------------------------------------------------------------------
 */

/* Between steps a rank may wait for ever, but rank 0 with sequences to run. */
static bool in_step(const struct hang_rank *r)
{
    return r->phase == PHASE(FORWARD) || (r->phase == PHASE(WAITING) && r->busy);
}

/* A rank that is in a step, where none of the group has moved for the timeout: as long as one does,
 * the others may wait for it. A rank that does not tell its progress (one of the release before) is
 * believed to get on. */
static const struct hang_rank *find_stuck(const struct hang_rank *const *ranks, int32_t count,
                                          const struct hang_rules *rules, int64_t now_ns)
{
    const struct hang_rank *found = NULL;
    for (int32_t i = 0; i < count; i++) {
        if (ranks[i]->progress == 0 || now_ns - ranks[i]->moved_ns <= rules->timeout_ns)
            return NULL;
        if (in_step(ranks[i]) && (!found || ranks[i]->moved_ns > found->moved_ns))
            found = ranks[i];
    }
    return found;
}

static bool waits(const struct hang_rank *r)
{
    return r->meets || (r->phase == PHASE(WAITING) && !r->busy);
}

static int compare_places(const struct hang_rank *a, const struct hang_rank *b)
{
    if (a->step != b->step)
        return a->step < b->step ? -1 : 1;
    /* What a rank between steps has as its layer is of the step before. */
    uint32_t la = a->phase == PHASE(FORWARD) ? a->layer : 0;
    uint32_t lb = b->phase == PHASE(FORWARD) ? b->layer : 0;
    return la < lb ? -1 : la > lb;
}

/* Who computes where others wait for it; else who has come least far; *even: none has come less far
 * than another. */
static const struct hang_rank *find_culprit(const struct hang_rank *const *ranks, int32_t count,
                                            bool *even)
{
    const struct hang_rank *computes = NULL, *least = ranks[0];
    *even = true;
    for (int32_t i = 0; i < count; i++) {
        const struct hang_rank *r = ranks[i];
        if (!waits(r) && (!computes || compare_places(r, computes) < 0))
            computes = r;
        *even = *even && compare_places(r, ranks[0]) == 0;
        if (compare_places(r, least) < 0)
            least = r;
    }
    *even = *even && !computes;
    return computes ? computes : least;
}

static enum hang_kind say_stuck(struct line *l, const struct chosen *all,
                                const struct hang_rank *stands, const struct hang_rules *rules,
                                int64_t now_ns)
{
    bool even;
    const struct hang_rank *r = find_culprit(all->ranks, all->count, &even);
    double age = seconds(now_ns - stands->moved_ns);
    if (even && all->count > 1) {
        put(l, "all ranks have waited for each other for %.1f s ", age);
        put_place(l, stands, rules->layers);
        put(l, count_hosts(all) == 1
                   ? ": their transport hangs on "
                   : ": the network is cut, or has lost what they sent, between ");
        put_hosts(l, all);
        return HANG_ALL_WAIT;
    }
    put_rank(l, r);
    put(l, " has made no progress for %.1f s ", age);
    put_place(l, r, rules->layers);
    if (waits(r))
        put(l,
            ", which the others have passed: the network from them to %s is cut, or its process "
            "hangs",
            r->host);
    else if (all->count > 1)
        put(l, ", and the others wait for it: its process or its device hangs");
    else
        put(l, ": its process or its device hangs");
    return waits(r) ? HANG_RANK_BEHIND : HANG_RANK_STUCK;
}

const char *hang_kind_name(enum hang_kind kind)
{
    static const char *const names[] = {
#define X(name, words) [HANG_##name] = words,
        HANG_KINDS(X)
#undef X
    };
    return names[kind];
}

enum hang_kind hang_judge(const struct hang_rank *const *ranks, int32_t count,
                          const struct hang_rules *rules, int64_t now_ns, char *why, size_t size)
{
    bool is[MAX_RANKS];
    struct line l = {why, size, 0};
    int32_t found;
    const struct hang_rank *stands = NULL; /* of those that do, the one that did last */
    count = count < MAX_RANKS ? count : MAX_RANKS;
    *why = '\0';
    const struct hang_rank *first = find_silent(ranks, count, rules, now_ns, is, &found);
    if (rules->stuck)
        stands = find_stuck(ranks, count, rules, now_ns);
    /* Who waits for a rank that is silent may be found first. */
    if (first && (stands || now_ns - first->heard_ns > rules->timeout_ns))
        return say_silent(&l, &(struct chosen){ranks, count, is}, found, first, rules, now_ns);
    if (!stands)
        return HANG_NONE;
    memset(is, true, sizeof is);
    return say_stuck(&l, &(struct chosen){ranks, count, is}, stands, rules, now_ns);
}
