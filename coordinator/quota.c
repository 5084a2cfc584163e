/* Quotas of keys and tenants: see quota.h. State: a table of who has asked of late. */
#include "coordinator/quota.h"
#include "base/check.h"

#include <stdlib.h>

enum { SLOTS = 13, FIRST_SWEEP = 1024, BUCKETS = 1 << 14 };
static const int64_t SLOT_NS = 5000000000, SWEEP_NS = 1000000000;

/* Of the slots at - SLOTS + 1 to at. */
struct series {
    int64_t at, sum;
    int64_t slots[SLOTS]; /* by number, modulo SLOTS */
};

struct quota_entry {
    struct quota_entry *next; /* of its bucket */
    uint64_t id;
    bool tenant;
    struct series requests, tokens;
    int64_t reserved;
    int32_t running;
};

struct quota {
    struct quota_limits tenants;
    uint32_t count, sweep_at;
    int64_t swept_ns;
    struct quota_entry *buckets[BUCKETS];
};

/* --- a minute ----------------------------------------------------------------------------------
 */

static int64_t slot_of(int64_t now_ns)
{
    return now_ns / SLOT_NS;
}

static void advance(struct series *s, int64_t slot)
{
    for (int64_t i = s->at + 1; i <= slot && i <= s->at + SLOTS; i++) {
        s->sum -= s->slots[i % SLOTS];
        s->slots[i % SLOTS] = 0;
    }
    s->at = slot > s->at ? slot : s->at;
}

static void add(struct series *s, int64_t slot, int64_t n)
{
    advance(s, slot);
    s->slots[s->at % SLOTS] += n;
    s->sum += n;
}

static void take_back(struct series *s, int64_t slot, int64_t n)
{
    if (slot <= s->at - SLOTS)
        return;
    s->slots[slot % SLOTS] -= n;
    s->sum -= n;
}

/* Until so many are no longer counted; 0: there are not so many. */
static int64_t wait_ns(const struct series *s, int64_t excess, int64_t now_ns)
{
    for (int64_t i = s->at < SLOTS ? 0 : s->at - SLOTS + 1; i <= s->at; i++) {
        excess -= s->slots[i % SLOTS];
        if (excess <= 0)
            return (i + SLOTS) * SLOT_NS - now_ns;
    }
    return 0;
}

/* --- who has asked -----------------------------------------------------------------------------
 */

struct quota *quota_create(const struct quota_limits *tenants)
{
    struct quota *q = check_calloc(1, sizeof *q);
    q->tenants = *tenants;
    q->sweep_at = FIRST_SWEEP;
    return q;
}

void quota_destroy(struct quota *q)
{
    for (size_t i = 0; q && i < BUCKETS; i++)
        for (struct quota_entry *e = q->buckets[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    free(q);
}

static void refresh(struct quota_entry *e, int64_t now_ns)
{
    advance(&e->requests, slot_of(now_ns));
    advance(&e->tokens, slot_of(now_ns));
}

/* Forgets those of whom nothing is counted: they are as if they had never asked. */
static void sweep(struct quota *q, int64_t now_ns)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct quota_entry **at = &q->buckets[i]; *at;) {
            struct quota_entry *e = *at;
            refresh(e, now_ns);
            if (e->running > 0 || e->requests.sum > 0 || e->tokens.sum > 0) {
                at = &e->next;
                continue;
            }
            *at = e->next;
            free(e);
            q->count--;
        }
    q->swept_ns = now_ns;
    q->sweep_at = q->count * 2 < FIRST_SWEEP ? FIRST_SWEEP : q->count * 2;
    if (q->sweep_at > QUOTA_MAX)
        q->sweep_at = QUOTA_MAX;
}

/* A key's id and a tenant's may be the same number. */
static struct quota_entry **bucket_of(struct quota *q, uint64_t id, bool tenant)
{
    return &q->buckets[(((id >> 32) ^ id) * 2 + tenant) % BUCKETS];
}

static struct quota_entry *find(struct quota *q, uint64_t id, bool tenant, int64_t now_ns)
{
    struct quota_entry *e = *bucket_of(q, id, tenant);
    while (e && (e->id != id || e->tenant != tenant))
        e = e->next;
    if (e)
        refresh(e, now_ns);
    return e;
}

/* NULL: too many are known. */
static struct quota_entry *make(struct quota *q, uint64_t id, bool tenant, int64_t now_ns)
{
    if (q->count >= q->sweep_at && (q->count < QUOTA_MAX || now_ns - q->swept_ns >= SWEEP_NS))
        sweep(q, now_ns);
    if (q->count >= QUOTA_MAX)
        return NULL;
    struct quota_entry *e = check_calloc(1, sizeof *e);
    struct quota_entry **bucket = bucket_of(q, id, tenant);
    *e = (struct quota_entry){.next = *bucket, .id = id, .tenant = tenant};
    refresh(e, now_ns);
    *bucket = e;
    q->count++;
    return e;
}

/* One that is known, or a new one, for which `keep` is not forgotten (NULL: nobody). */
static struct quota_entry *know(struct quota *q, uint64_t id, bool tenant, int64_t now_ns,
                                struct quota_entry *keep)
{
    struct quota_entry *e = find(q, id, tenant, now_ns);
    if (e)
        return e;
    if (keep)
        keep->running++;
    e = make(q, id, tenant, now_ns);
    if (keep)
        keep->running--;
    return e;
}

/* --- asking ------------------------------------------------------------------------------------
 */

static bool any(const struct quota_limits *l)
{
    return l->requests > 0 || l->tokens > 0 || l->concurrent > 0;
}

/* The least that must be left: a request larger than a whole minute comes in when all of one is. */
static int64_t tokens_needed(const struct quota_limits *l, const struct quota_ask *ask)
{
    int64_t need = ask->prompt + (ask->open && ask->answer > 0 ? 1 : ask->answer);
    return need < l->tokens ? need : l->tokens;
}

static int64_t tokens_reserved(const struct quota_limits *l, const struct quota_entry *e,
                               const struct quota_ask *ask)
{
    int64_t all = ask->prompt + ask->answer, left = l->tokens - e->tokens.sum - e->reserved;
    if (l->tokens == 0)
        return 0;
    return ask->open && all > left ? left : all;
}

static bool refuse(struct quota_refusal *why, const struct quota_refusal *what)
{
    *why = *what;
    return false;
}

static bool fits(const struct quota_entry *e, const struct quota_limits *l,
                 const struct quota_ask *ask, int64_t now_ns, struct quota_refusal *why)
{
    int64_t requests = e->requests.sum, tokens = e->tokens.sum + e->reserved;
    int64_t need = tokens_needed(l, ask);
    if (l->requests > 0 && ask->request && requests >= l->requests)
        return refuse(why, &(struct quota_refusal){
                               QUOTA_REQUESTS, e->tenant, l->requests, requests, 1,
                               wait_ns(&e->requests, requests + 1 - l->requests, now_ns)});
    if (l->tokens > 0 && tokens + need > l->tokens)
        return refuse(
            why, &(struct quota_refusal){QUOTA_TOKENS, e->tenant, l->tokens, tokens, need,
                                         wait_ns(&e->tokens, tokens + need - l->tokens, now_ns)});
    if (l->concurrent > 0 && e->running >= l->concurrent)
        return refuse(why, &(struct quota_refusal){QUOTA_CONCURRENT, e->tenant, l->concurrent,
                                                   e->running, 1, 0});
    return true;
}

/* The key's and the tenant's limits, in the order of a ticket. */
struct side {
    const struct quota_limits *limits;
    uint64_t id;
};

static void sides_of(const struct quota *q, const struct quota_key *key, uint64_t tenant,
                     struct side sides[2])
{
    sides[0] = (struct side){&key->limits, key->id};
    sides[1] = (struct side){&q->tenants, tenant};
}

bool quota_check(struct quota *q, const struct quota_key *key, uint64_t tenant, int64_t now_ns,
                 struct quota_refusal *why)
{
    const struct quota_ask ask = {.prompt = 1, .request = true};
    struct side sides[2];
    sides_of(q, key, tenant, sides);
    for (int i = 0; i < 2; i++) {
        const struct quota_entry *e = any(sides[i].limits) ? find(q, sides[i].id, i == 1, now_ns)
                                                           : NULL;
        if (e && !fits(e, sides[i].limits, &ask, now_ns, why))
            return false;
    }
    return true;
}

bool quota_take(struct quota *q, const struct quota_key *key, uint64_t tenant,
                const struct quota_ask *ask, int64_t now_ns, struct quota_ticket *ticket,
                struct quota_refusal *why)
{
    struct quota_ticket t = {.slot = slot_of(now_ns), .request = ask->request};
    struct side sides[2];
    sides_of(q, key, tenant, sides);
    *ticket = (struct quota_ticket){0};
    for (int i = 0; i < 2; i++) {
        if (!any(sides[i].limits))
            continue;
        t.of[i] = know(q, sides[i].id, i == 1, now_ns, t.of[0]);
        if (!t.of[i])
            return refuse(why, &(struct quota_refusal){.limit = QUOTA_FULL,
                                                       .tenant = i == 1,
                                                       .most = QUOTA_MAX,
                                                       .used = QUOTA_MAX,
                                                       .wanted = 1});
    }
    for (int i = 0; i < 2; i++)
        if (t.of[i] && !fits(t.of[i], sides[i].limits, ask, now_ns, why))
            return false;
    for (int i = 0; i < 2; i++) {
        if (!t.of[i])
            continue;
        t.reserved[i] = tokens_reserved(sides[i].limits, t.of[i], ask);
        t.of[i]->reserved += t.reserved[i];
        t.of[i]->running++;
        add(&t.of[i]->requests, t.slot, ask->request);
    }
    *ticket = t;
    return true;
}

static void let_go(struct quota_ticket *t, int i)
{
    t->of[i]->reserved -= t->reserved[i];
    t->of[i]->running--;
    CHECK(t->of[i]->running >= 0 && t->of[i]->reserved >= 0, "%d requests, %lld tokens",
          t->of[i]->running, (long long)t->of[i]->reserved);
}

void quota_settle(struct quota_ticket *t, int64_t tokens, int64_t now_ns)
{
    for (int i = 0; i < 2; i++) {
        if (!t->of[i])
            continue;
        let_go(t, i);
        add(&t->of[i]->tokens, slot_of(now_ns), tokens);
    }
    *t = (struct quota_ticket){0};
}

void quota_return(struct quota_ticket *t, int64_t now_ns)
{
    for (int i = 0; i < 2; i++) {
        if (!t->of[i])
            continue;
        let_go(t, i);
        refresh(t->of[i], now_ns);
        take_back(&t->of[i]->requests, t->slot, t->request);
    }
    *t = (struct quota_ticket){0};
}

/* --- what is left ------------------------------------------------------------------------------
 */

static int64_t reset_ns(const struct series *s, bool reserved, int64_t now_ns)
{
    int64_t from = s->at < SLOTS ? 0 : s->at - SLOTS + 1;
    if (reserved)
        return (s->at + SLOTS) * SLOT_NS - now_ns;
    for (int64_t i = s->at; i >= from; i--)
        if (s->slots[i % SLOTS] > 0)
            return (i + SLOTS) * SLOT_NS - now_ns;
    return 0;
}

static void look(struct quota_left *out, int64_t limit, const struct series *s, int64_t reserved,
                 int64_t now_ns)
{
    int64_t left = limit - (s ? s->sum + reserved : 0);
    left = left > 0 ? left : 0;
    if (limit == 0 || (out->limit > 0 && out->left <= left))
        return;
    *out = (struct quota_left){limit, left, s ? reset_ns(s, reserved > 0, now_ns) : 0};
}

void quota_look(struct quota *q, const struct quota_key *key, uint64_t tenant, int64_t now_ns,
                struct quota_left *requests, struct quota_left *tokens)
{
    struct side sides[2];
    *requests = *tokens = (struct quota_left){0};
    sides_of(q, key, tenant, sides);
    for (int i = 0; i < 2; i++) {
        const struct quota_limits *l = sides[i].limits;
        const struct quota_entry *e = any(l) ? find(q, sides[i].id, i == 1, now_ns) : NULL;
        look(requests, l->requests, e ? &e->requests : NULL, 0, now_ns);
        look(tokens, l->tokens, e ? &e->tokens : NULL, e ? e->reserved : 0, now_ns);
    }
}
