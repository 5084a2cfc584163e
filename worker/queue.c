/* Sequences that wait: see queue.h. */
#include "worker/queue.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3, BUCKETS = QUEUE_TENANTS, SHARED = 0 };

struct tenant {
    uint64_t key;
    uint64_t service;
    int32_t sequences; /* that wait or run; with any it is active */
    int32_t at;        /* active: in queue.active */
    struct {
        struct sequence *first, *last;
        int32_t at; /* with any: in queue.waiting */
    } class[CLASSES];
    struct tenant *chain;           /* the next of its bucket */
    struct tenant *before, *behind; /* idle: neighbours in order of idling */
};

struct queue {
    struct tenant tenants[QUEUE_TENANTS]; /* [SHARED] stands for all beyond the bound */
    int32_t used;                         /* of these, from the first on */
    struct tenant *bucket[BUCKETS];
    struct tenant *oldest, *newest; /* idle ones */
    struct tenant *active[QUEUE_TENANTS];
    int32_t active_count;
    struct tenant *waiting[CLASSES][QUEUE_TENANTS]; /* those with sequences that wait */
    int32_t waiting_count[CLASSES];
    uint64_t least; /* service of the least served, when somebody last became active or idle */
    struct sequence *first, *last; /* all that wait */
    int32_t count;
};

enum status queue_create(struct queue **out, struct error *err)
{
    struct queue *q = calloc(1, sizeof *q);
    if (!q)
        return error_set(err, ERR_NO_MEMORY, "no memory for the queue");
    q->used = SHARED + 1;
    *out = q;
    return OK;
}

void queue_destroy(struct queue *q)
{
    free(q);
}

static struct tenant **bucket_of(struct queue *q, uint64_t key)
{
    return &q->bucket[(key * 0x9E3779B97F4A7C15u >> 32) % BUCKETS];
}

static struct tenant *find(struct queue *q, uint64_t key)
{
    struct tenant *t = *bucket_of(q, key);
    while (t && t->key != key)
        t = t->chain;
    return t;
}

static void stop_idling(struct queue *q, struct tenant *t)
{
    *(t->before ? &t->before->behind : &q->oldest) = t->behind;
    *(t->behind ? &t->behind->before : &q->newest) = t->before;
}

static void start_idling(struct queue *q, struct tenant *t)
{
    t->before = q->newest;
    t->behind = NULL;
    *(q->newest ? &q->newest->behind : &q->oldest) = t;
    q->newest = t;
}

/* A place for a tenant that is not remembered; it idles. NULL: all others are active. */
static struct tenant *make(struct queue *q, uint64_t key)
{
    struct tenant *t = q->used < QUEUE_TENANTS ? &q->tenants[q->used] : q->oldest;
    if (!t)
        return NULL;
    if (t == q->oldest) {
        struct tenant **link = bucket_of(q, t->key);
        while (*link != t)
            link = &(*link)->chain;
        *link = t->chain;
        stop_idling(q, t);
    } else {
        q->used++;
    }
    *t = (struct tenant){.key = key};
    t->chain = *bucket_of(q, key);
    *bucket_of(q, key) = t;
    start_idling(q, t);
    return t;
}

static void note_least(struct queue *q)
{
    if (q->active_count == 0)
        return;
    q->least = q->active[0]->service;
    for (int32_t i = 1; i < q->active_count; i++)
        if (q->active[i]->service < q->least)
            q->least = q->active[i]->service;
}

void queue_enter(struct queue *q, struct sequence *s)
{
    struct tenant *t = find(q, s->request.tenant);
    t = t ? t : make(q, s->request.tenant);
    t = t ? t : &q->tenants[SHARED];
    s->tenant = t;
    if (t->sequences++ > 0)
        return;
    if (t != &q->tenants[SHARED])
        stop_idling(q, t);
    note_least(q);
    if (t->service < q->least)
        t->service = q->least;
    t->at = q->active_count;
    q->active[q->active_count++] = t;
}

void queue_leave(struct queue *q, struct sequence *s)
{
    struct tenant *t = s->tenant;
    if (--t->sequences > 0)
        return;
    note_least(q);
    q->active[t->at] = q->active[--q->active_count];
    q->active[t->at]->at = t->at;
    if (t != &q->tenants[SHARED])
        start_idling(q, t);
}

static int32_t class_of(const struct sequence *s)
{
    return s->request.priority + 1;
}

/* Into its tenant's list by id: new ones belong to the end, preempted ones near the beginning. */
static void insert(struct tenant *t, int32_t c, struct sequence *s)
{
    struct sequence *behind = t->class[c].first;
    if (t->class[c].last && t->class[c].last->id < s->id)
        behind = NULL;
    while (behind && behind->id < s->id)
        behind = behind->next;
    s->next = behind;
    s->before = behind ? behind->before : t->class[c].last;
    *(s->before ? &s->before->next : &t->class[c].first) = s;
    *(behind ? &behind->before : &t->class[c].last) = s;
}

void queue_add(struct queue *q, struct sequence *s)
{
    int32_t c = class_of(s);
    struct tenant *t = s->tenant;
    CHECK(c >= 0 && c < CLASSES, "class %d", c);
    if (!t->class[c].first) {
        t->class[c].at = q->waiting_count[c];
        q->waiting[c][q->waiting_count[c]++] = t;
    }
    insert(t, c, s);
    s->older = q->last;
    s->newer = NULL;
    *(q->last ? &q->last->newer : &q->first) = s;
    q->last = s;
    q->count++;
}

void queue_remove(struct queue *q, struct sequence *s)
{
    int32_t c = class_of(s);
    struct tenant *t = s->tenant;
    *(s->before ? &s->before->next : &t->class[c].first) = s->next;
    *(s->next ? &s->next->before : &t->class[c].last) = s->before;
    if (!t->class[c].first) {
        int32_t at = t->class[c].at;
        q->waiting[c][at] = q->waiting[c][--q->waiting_count[c]];
        q->waiting[c][at]->class[c].at = at;
    }
    *(s->older ? &s->older->newer : &q->first) = s->newer;
    *(s->newer ? &s->newer->older : &q->last) = s->older;
    q->count--;
}

void queue_charge(const struct sequence *s, int32_t rows)
{
    s->tenant->service += (uint64_t)rows;
}

static bool comes_before(const struct tenant *a, const struct tenant *b, int32_t c)
{
    return a->service != b->service ? a->service < b->service
                                    : a->class[c].first->id < b->class[c].first->id;
}

struct sequence *queue_first(const struct queue *q)
{
    for (int32_t c = 0; c < CLASSES; c++) {
        const struct tenant *best = q->waiting_count[c] > 0 ? q->waiting[c][0] : NULL;
        for (int32_t i = 1; i < q->waiting_count[c]; i++)
            if (comes_before(q->waiting[c][i], best, c))
                best = q->waiting[c][i];
        if (best)
            return best->class[c].first;
    }
    return NULL;
}

struct sequence *queue_oldest(const struct queue *q)
{
    return q->first;
}

int32_t queue_count(const struct queue *q)
{
    return q->count;
}
