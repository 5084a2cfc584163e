/*
 * The local transport: ranks are threads of one process and read each other's buffers.
 *
 * A group is what the ranks of one communicator share: a barrier, a record a rank says what it
 * calls with, an arena for short payloads, and a mailbox a rank for point to point. A world ties a
 * group to all groups split from it, so that an abort reaches every wait. Groups and worlds are
 * counted by their handles; the last comm_destroy frees them.
 *
 * Two rules carry the rest:
 * - Every collective meets once after filling its record, so record and arena halves alternate: the
 *   half of call k is written again in call k + 2, whose writer has passed the meeting of k + 1,
 *   where every reader of k had arrived.
 * - A meeting succeeds for all its ranks or fails for all, because it advances and the abort bit is
 *   set in the same word. Who passes it while buffers of other ranks are in use also passes the
 *   closing barrier, which an abort cannot cut short: no rank returns while a peer still touches
 *   its buffers.
 */
#include "transport/transport.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/word.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LOCAL_MAX_RANKS = 1024,
    LOCAL_LINE = WORD_LINE,
    /* Payloads that go through the arena with one meeting; longer ones are read in place with two.
     * Of all ranks together; less for sums, which every rank then adds up in full (measured). */
    LOCAL_ARENA_BYTES = 64 * 1024,
    LOCAL_SUMS_BYTES = 16 * 1024,
    LOCAL_LINE_DOUBLES = LOCAL_LINE / sizeof(double),
    LOCAL_BLOCK_DOUBLES = 512, /* of a partial sum kept in the first-level cache */
    LOCAL_ARRIVE_PAUSE_US = 100,
};

/* ---- words that threads wait on ---- */

/* Bit 0 of every word's value; once set it stays. The rest belongs to the word's user. */
#define LOCAL_ABORTED 1u

static uint32_t local_wait(struct word *w, uint32_t seen, struct word_patience p)
{
    return word_wait(w, seen, p, false, 0);
}

static void local_wake(struct word *w)
{
    word_wake(w, false);
}

static void word_abort(struct word *w)
{
    atomic_fetch_or(&w->value, LOCAL_ABORTED);
    local_wake(w);
}

/* ---- what ranks share ---- */

struct local_group;

struct local_world {
    struct word_patience patience;
    pthread_mutex_t lock;
    struct local_group *groups; /* list, under lock */
    bool aborted;               /* under lock */
    /* Written once before the first abort bit is set, read after one was seen. */
    int abort_rank;
    char abort_why[sizeof((struct error *)0)->msg];
};

enum local_call { LOCAL_ALLREDUCE, LOCAL_ALLGATHER, LOCAL_BROADCAST, LOCAL_SPLIT };

/* What a rank calls with; equal in all ranks but for `buf` and split's numbers. */
struct local_record {
    _Alignas(LOCAL_LINE) enum local_call call;
    int root;
    size_t bytes;
    void *buf;
    int color, key;
    struct local_group *made;
};

/* A rank's outgoing message. The word holds 0 (empty), 1 + the receiver (posted), or
 * LOCAL_CLAIMED (being copied), shifted by one for the abort bit. */
struct local_mail {
    _Alignas(LOCAL_LINE) struct word state;
    const void *buf;
    size_t bytes;
};

enum { LOCAL_CLAIMED = LOCAL_MAX_RANKS + 1 };

struct local_group {
    struct local_world *world;
    struct local_group *next, **link; /* world->groups */
    _Atomic int handles;
    int size;
    _Alignas(
        LOCAL_LINE) struct word meeting; /* meetings so far, shifted by one for the abort bit */
    _Alignas(LOCAL_LINE) _Atomic int arrived;
    unsigned char *arena[2];         /* LOCAL_ARENA_BYTES each */
    struct local_record *records[2]; /* [size] each */
    struct local_mail *mail;         /* [size] */
    _Atomic uint32_t *came;          /* [size]: calls of arrive so far */
};

struct local_comm {
    struct comm base;
    struct local_group *group;
    int world_rank;
    unsigned half; /* of arena and records, for the next call */
};

static const struct comm_ops local_ops;

/* The cores that this process may use. */
static int local_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static struct local_world *world_create(int size)
{
    struct local_world *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->patience = word_patience(size, local_cores());
    w->abort_rank = -1;
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

static void world_destroy(struct local_world *w)
{
    if (!w)
        return;
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void group_abort(struct local_group *g)
{
    word_abort(&g->meeting);
    for (int i = 0; i < g->size; i++)
        word_abort(&g->mail[i].state);
}

/* The first abort of the world counts, later ones do nothing. */
static void world_abort(struct local_world *w, int rank, const char *why)
{
    pthread_mutex_lock(&w->lock);
    if (!w->aborted) {
        w->aborted = true;
        w->abort_rank = rank;
        snprintf(w->abort_why, sizeof w->abort_why, "%s", why);
        for (struct local_group *g = w->groups; g; g = g->next)
            group_abort(g);
    }
    pthread_mutex_unlock(&w->lock);
}

/* The error of every operation that an abort has cut short. */
static enum status world_error(const struct local_world *w, struct error *err)
{
    return error_set(err, ERR_PEER, "rank %d aborted: %s", w->abort_rank, w->abort_why);
}

static void group_enlist(struct local_group *g)
{
    struct local_world *w = g->world;
    pthread_mutex_lock(&w->lock);
    g->next = w->groups;
    g->link = &w->groups;
    if (g->next)
        g->next->link = &g->next;
    w->groups = g;
    if (w->aborted)
        group_abort(g);
    pthread_mutex_unlock(&w->lock);
}

/* Of a group that group_enlist may not have seen yet. */
static void group_unlist(struct local_group *g)
{
    pthread_mutex_lock(&g->world->lock);
    if (g->link) {
        *g->link = g->next;
        if (g->next)
            g->next->link = g->link;
    }
    pthread_mutex_unlock(&g->world->lock);
}

static void group_free(struct local_group *g)
{
    if (!g)
        return;
    group_unlist(g);
    free(g->arena[0]);
    free(g->records[0]);
    free(g->mail);
    free(g->came);
    free(g);
}

/* A group of `size` handles, in its world's list. NULL when there is no memory. */
static struct local_group *group_create(struct local_world *world, int size)
{
    size_t n = (size_t)size;
    struct local_group *g = aligned_zalloc(sizeof *g);
    if (!g)
        return NULL;
    g->world = world;
    g->size = size;
    atomic_init(&g->handles, size);
    g->arena[0] = aligned_zalloc(2 * LOCAL_ARENA_BYTES);
    g->records[0] = aligned_zalloc(2 * n * sizeof *g->records[0]);
    g->mail = aligned_zalloc(n * sizeof *g->mail);
    g->came = aligned_zalloc(n * sizeof *g->came);
    if (!g->arena[0] || !g->records[0] || !g->mail || !g->came) {
        group_free(g);
        return NULL;
    }
    g->arena[1] = g->arena[0] + LOCAL_ARENA_BYTES;
    g->records[1] = g->records[0] + n;
    group_enlist(g);
    return g;
}

static void group_release(struct local_group *g)
{
    if (atomic_fetch_sub_explicit(&g->handles, 1, memory_order_acq_rel) == 1)
        group_free(g);
}

static void local_init(struct local_comm *c, struct local_group *g, int rank, int world_rank)
{
    *c = (struct local_comm){
        .base = {.ops = &local_ops, .rank = rank, .size = g->size},
        .group = g,
        .world_rank = world_rank,
    };
}

/* ---- the barrier ---- */

/* Counts this rank in; true for the last one, which then has to advance the meeting. */
static bool group_arrive(struct local_group *g)
{
    if (atomic_fetch_add_explicit(&g->arrived, 1, memory_order_acq_rel) + 1 < g->size)
        return false;
    atomic_store_explicit(&g->arrived, 0, memory_order_relaxed);
    return true;
}

/* All ranks meet: OK in all of them, or ERR_PEER in all of them after an abort. */
static enum status group_meet(struct local_group *g, struct error *err)
{
    uint32_t seen = atomic_load_explicit(&g->meeting.value, memory_order_acquire);
    if (seen & LOCAL_ABORTED)
        return world_error(g->world, err);
    if (group_arrive(g)) {
        uint32_t expected = seen;
        if (!atomic_compare_exchange_strong(&g->meeting.value, &expected, seen + 2))
            return world_error(g->world, err);
        local_wake(&g->meeting);
        return OK;
    }
    uint32_t now = local_wait(&g->meeting, seen, g->world->patience);
    return (now | LOCAL_ABORTED) == (seen | LOCAL_ABORTED) ? world_error(g->world, err) : OK;
}

/* The closing barrier: all ranks have passed a meeting and come here without another wait, so it
 * ends, abort or not. */
static void group_close(struct local_group *g)
{
    uint32_t seen = atomic_load_explicit(&g->meeting.value, memory_order_acquire);
    if (group_arrive(g)) {
        atomic_fetch_add(&g->meeting.value, 2);
        local_wake(&g->meeting);
        return;
    }
    uint32_t now = seen;
    while ((now | LOCAL_ABORTED) == (seen | LOCAL_ABORTED))
        now = local_wait(&g->meeting, now, g->world->patience);
}

/* ---- collectives ---- */

static const char *const local_call_names[] = {
    [LOCAL_ALLREDUCE] = "all-reduce",
    [LOCAL_ALLGATHER] = "all-gather",
    [LOCAL_BROADCAST] = "broadcast",
    [LOCAL_SPLIT] = "split",
};

/* Publishes what this rank calls with, meets, and checks that all do the same (against rank 0, so
 * that all are equal). *records are the ranks' then, *arena this call's half. */
static enum status local_meet(struct local_comm *c, const struct local_record *mine,
                              const struct local_record **records, struct error *err)
{
    struct local_group *g = c->group;
    struct local_record *r = g->records[c->half];
    c->half ^= 1;
    r[c->base.rank] = *mine;
    TRY(group_meet(g, err));
    CHECK(r[0].call == mine->call && r[0].bytes == mine->bytes && r[0].root == mine->root,
          "rank %d calls %s of %zu bytes, root %d; rank 0 %s of %zu bytes, root %d", c->base.rank,
          local_call_names[mine->call], mine->bytes, mine->root, local_call_names[r[0].call],
          r[0].bytes, r[0].root);
    *records = r;
    return OK;
}

static void local_copy(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

static void add_f64(double *restrict sum, const double *restrict x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += x[i];
}

/* Short: every rank lays its numbers into the arena and adds up all of them itself. */
static enum status allreduce_arena(struct local_comm *c, double *x, size_t count, size_t stride,
                                   struct error *err)
{
    const double *all = (const double *)(const void *)c->group->arena[c->half];
    double *mine = (double *)(void *)c->group->arena[c->half] + stride * (size_t)c->base.rank;
    const struct local_record *records;
    struct local_record r = {.call = LOCAL_ALLREDUCE, .bytes = count * sizeof *x};
    local_copy(mine, x, count * sizeof *x);
    TRY(local_meet(c, &r, &records, err));
    local_copy(x, all, count * sizeof *x);
    for (size_t rank = 1; rank < (size_t)c->base.size; rank++)
        add_f64(x, all + rank * stride, count);
    return OK;
}

/* Elements [begin, end) of all ranks' buffers become their sum. */
static void reduce_slice(const struct local_record *records, int size, size_t begin, size_t end)
{
    double sum[LOCAL_BLOCK_DOUBLES];
    for (size_t at = begin; at < end; at += LOCAL_BLOCK_DOUBLES) {
        size_t n = end - at < LOCAL_BLOCK_DOUBLES ? end - at : LOCAL_BLOCK_DOUBLES;
        memcpy(sum, (const double *)records[0].buf + at, n * sizeof *sum);
        for (int rank = 1; rank < size; rank++)
            add_f64(sum, (const double *)records[rank].buf + at, n);
        for (int rank = 0; rank < size; rank++)
            memcpy((double *)records[rank].buf + at, sum, n * sizeof *sum);
    }
}

/* Long: rank r sums slice r of all buffers in place. Slices are whole cache lines. */
static enum status allreduce_slices(struct local_comm *c, double *x, size_t count,
                                    struct error *err)
{
    size_t size = (size_t)c->base.size, rank = (size_t)c->base.rank;
    size_t lines = (count + LOCAL_LINE_DOUBLES - 1) / LOCAL_LINE_DOUBLES;
    size_t begin = lines * rank / size * LOCAL_LINE_DOUBLES;
    size_t end = lines * (rank + 1) / size * LOCAL_LINE_DOUBLES;
    const struct local_record *records;
    struct local_record r = {.call = LOCAL_ALLREDUCE, .bytes = count * sizeof *x, .buf = x};
    TRY(local_meet(c, &r, &records, err));
    reduce_slice(records, c->base.size, begin, end < count ? end : count);
    group_close(c->group);
    return OK;
}

static enum status local_allreduce_f64(struct comm *base, double *x, size_t count,
                                       struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    if (base->size == 1)
        return OK;
    size_t room = LOCAL_SUMS_BYTES / sizeof *x / (size_t)base->size;
    size_t stride = (count + LOCAL_LINE_DOUBLES - 1) / LOCAL_LINE_DOUBLES * LOCAL_LINE_DOUBLES;
    if (count <= room && stride <= room)
        return allreduce_arena(c, x, count, stride, err);
    return allreduce_slices(c, x, count, err);
}

static enum status local_allgather(struct comm *base, const void *send, size_t bytes, void *recv,
                                   struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    size_t size = (size_t)base->size, rank = (size_t)base->rank;
    unsigned char *arena = c->group->arena[c->half], *to = recv;
    bool short_one = bytes <= LOCAL_ARENA_BYTES / size;
    const struct local_record *records;
    /* The record's `buf` is only read from in an all-gather. */
    struct local_record r = {.call = LOCAL_ALLGATHER, .bytes = bytes, .buf = (void *)send};
    if (short_one)
        local_copy(arena + rank * bytes, send, bytes);
    TRY(local_meet(c, &r, &records, err));
    if (short_one) {
        local_copy(to, arena, size * bytes);
        return OK;
    }
    for (size_t i = 0; i < size; i++)
        memcpy(to + i * bytes, records[i].buf, bytes);
    group_close(c->group);
    return OK;
}

static enum status local_broadcast(struct comm *base, int root, void *x, size_t bytes,
                                   struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    CHECK(root >= 0 && root < base->size, "root %d of %d ranks", root, base->size);
    unsigned char *arena = c->group->arena[c->half];
    bool short_one = bytes <= LOCAL_ARENA_BYTES, sends = base->rank == root;
    const struct local_record *records;
    struct local_record r = {.call = LOCAL_BROADCAST, .bytes = bytes, .root = root, .buf = x};
    if (short_one && sends)
        local_copy(arena, x, bytes);
    TRY(local_meet(c, &r, &records, err));
    if (!sends)
        local_copy(x, short_one ? arena : records[root].buf, bytes);
    if (!short_one)
        group_close(c->group);
    return OK;
}

/* ---- point to point ---- */

static uint32_t mail_posted(int to)
{
    return (uint32_t)(to + 1) << 1;
}

static enum status local_send(struct comm *base, int to, const void *x, size_t bytes,
                              struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    struct local_group *g = c->group;
    struct local_mail *m = &g->mail[base->rank];
    CHECK(to >= 0 && to < base->size && to != base->rank, "rank %d sends to %d of %d", base->rank,
          to, base->size);
    m->buf = x;
    m->bytes = bytes;
    uint32_t now = 0;
    if (!atomic_compare_exchange_strong(&m->state.value, &now, mail_posted(to)))
        return world_error(g->world, err);
    local_wake(&m->state);
    now = mail_posted(to);
    /* Until it is empty, or aborted before the receiver claimed it. */
    while (now >> 1 != 0) {
        if (now == (mail_posted(to) | LOCAL_ABORTED))
            return world_error(g->world, err);
        now = local_wait(&m->state, now, g->world->patience);
    }
    return OK;
}

static enum status local_recv(struct comm *base, int from, void *x, size_t bytes, struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    struct local_group *g = c->group;
    CHECK(from >= 0 && from < base->size && from != base->rank, "rank %d receives from %d of %d",
          base->rank, from, base->size);
    struct local_mail *m = &g->mail[from];
    uint32_t now = atomic_load_explicit(&m->state.value, memory_order_acquire);
    for (;;) {
        if (now & LOCAL_ABORTED)
            return world_error(g->world, err);
        if (now != mail_posted(base->rank))
            now = local_wait(&m->state, now, g->world->patience);
        else if (atomic_compare_exchange_strong(&m->state.value, &now, LOCAL_CLAIMED << 1))
            break;
    }
    CHECK(m->bytes == bytes, "rank %d receives %zu bytes, rank %d sends %zu", base->rank, bytes,
          from, m->bytes);
    local_copy(x, m->buf, bytes);
    atomic_fetch_and(&m->state.value, LOCAL_ABORTED);
    local_wake(&m->state);
    return OK;
}

/* ---- split, abort, destroy ---- */

/* Where rank `me` comes among the ranks of its colour. */
struct local_place {
    int rank, size;
    int first; /* the old rank of the new rank 0 */
};

static struct local_place split_place(const struct local_record *r, int size, int me)
{
    struct local_place p = {.first = me};
    for (int i = 0; i < size; i++) {
        if (r[i].color != r[me].color)
            continue;
        p.size++;
        if (r[i].key < r[me].key || (i < me && r[i].key == r[me].key))
            p.rank++;
        if (r[i].key < r[p.first].key || (i < p.first && r[i].key == r[p.first].key))
            p.first = i;
    }
    return p;
}

/* Two meetings: over colours and keys, then over the groups that the new ranks 0 have made. */
static enum status local_split(struct comm *base, int color, int key, struct comm **out,
                               struct error *err)
{
    struct local_comm *c = (struct local_comm *)base;
    const struct local_record *records;
    struct local_record r = {.call = LOCAL_SPLIT, .color = color, .key = key};
    CHECK(color >= 0, "split by color %d", color);
    TRY(local_meet(c, &r, &records, err));
    struct local_place p = split_place(records, base->size, base->rank);
    if (p.rank == 0)
        r.made = group_create(c->group->world, p.size);
    enum status st = local_meet(c, &r, &records, err);
    if (st != OK) {
        group_free(r.made);
        return st;
    }
    struct local_group *made = records[p.first].made;
    if (!made)
        return error_set(err, ERR_NO_MEMORY, "no memory for a group of %d ranks", p.size);
    struct local_comm *child = malloc(sizeof *child);
    if (!child) {
        group_release(made);
        return error_set(err, ERR_NO_MEMORY, "no memory for a communicator");
    }
    local_init(child, made, p.rank, c->world_rank);
    *out = &child->base;
    return OK;
}

/* Threads of one process share its memory. */
static enum status local_split_node(struct comm *c, struct comm **out, struct error *err)
{
    return local_split(c, 0, c->rank, out, err);
}

/* Who has called it as often as this rank; true for all. */
static bool all_came(struct local_group *g, uint32_t calls, bool *here)
{
    bool all = true;
    for (int i = 0; i < g->size; i++) {
        uint32_t ahead = atomic_load_explicit(&g->came[i], memory_order_acquire) - calls;
        here[i] = ahead <= INT32_MAX; /* modulo 2^32 */
        all = all && here[i];
    }
    return all;
}

static enum status local_arrive(struct comm *base, int64_t ms, bool *here, struct error *err)
{
    struct local_group *g = ((struct local_comm *)base)->group;
    int64_t start = clock_now_ns();
    uint32_t calls = atomic_fetch_add_explicit(&g->came[base->rank], 1, memory_order_release) + 1;
    while (!all_came(g, calls, here)) {
        if (atomic_load_explicit(&g->meeting.value, memory_order_acquire) & LOCAL_ABORTED)
            return world_error(g->world, err);
        if (ms > 0 && clock_now_ns() - start >= ms * 1000000)
            break;
        usleep(LOCAL_ARRIVE_PAUSE_US);
    }
    return OK;
}

static void local_abort(struct comm *base, const char *why)
{
    struct local_comm *c = (struct local_comm *)base;
    log_error("rank %d aborts: %s", c->world_rank, why);
    world_abort(c->group->world, c->world_rank, why);
}

/* Of communicators that split has made; comm_local_run keeps the world's handles itself. */
static void local_destroy(struct comm *base)
{
    struct local_comm *c = (struct local_comm *)base;
    if (!c)
        return;
    group_release(c->group);
    free(c);
}

static const struct comm_ops local_ops = {
    .name = "local",
    .allreduce_f64 = local_allreduce_f64,
    .allgather = local_allgather,
    .broadcast = local_broadcast,
    .send = local_send,
    .recv = local_recv,
    .split = local_split,
    .split_node = local_split_node,
    .arrive = local_arrive,
    .abort = local_abort,
    .destroy = local_destroy,
};

/* ---- running a function on all ranks ---- */

struct local_runner {
    struct local_comm comm;
    comm_rank_fn fn;
    void *arg;
    pthread_t thread;
    enum status status;
    struct error err;
};

/* One rank, from the meeting at which all threads exist to its abort on failure. */
static void *runner_main(void *arg)
{
    struct local_runner *r = arg;
    log_set_rank(r->comm.base.rank);
    r->status = group_meet(r->comm.group, &r->err);
    if (r->status == OK)
        r->status = r->fn(&r->comm.base, r->arg, &r->err);
    if (r->status != OK)
        world_abort(r->comm.group->world, r->comm.base.rank, r->err.msg);
    return NULL;
}

/* Ranks 1 and up on threads of their own; returns how many there are with the calling thread. When
 * one cannot be started the others do not get past their first meeting. */
static int runners_start(struct local_runner *runners, int size, struct error *err)
{
    for (int i = 1; i < size; i++) {
        int rc = pthread_create(&runners[i].thread, NULL, runner_main, &runners[i]);
        if (rc != 0) {
            error_errno(err, rc, "starting the thread of rank %d of %d", i, size);
            world_abort(runners[0].comm.group->world, 0, "a thread cannot be started");
            return i;
        }
    }
    return size;
}

/* The error of the rank that failed first: the one whose abort counted. */
static enum status runners_result(const struct local_runner *runners, int size, int first,
                                  struct error *err)
{
    if (first < 0 || runners[first].status == OK)
        for (first = 0; first < size && runners[first].status == OK; first++)
            ;
    if (first == size)
        return OK;
    /* An error that they agreed on (comm_agree) is every rank's; rank 0's words say whose it was.
     */
    if (runners[first].status != ERR_PEER && runners[0].status == runners[first].status)
        first = 0;
    if (err) {
        *err = runners[first].err;
        if (first != 0) /* rank 0 speaks for the command itself */
            error_prefix(err, "rank %d: ", first);
    }
    return runners[first].status;
}

static enum status runners_run(struct local_runner *runners, int size, struct error *err)
{
    int rank_before = log_rank();
    int started = runners_start(runners, size, err);
    if (started == size)
        runner_main(&runners[0]);
    log_set_rank(rank_before);
    for (int i = 1; i < started; i++)
        pthread_join(runners[i].thread, NULL);
    if (started < size)
        return err ? err->code : ERR_IO;
    return runners_result(runners, size, runners[0].comm.group->world->abort_rank, err);
}

enum status comm_local_run(int size, comm_rank_fn fn, void *arg, struct error *err)
{
    if (size < 1 || size > LOCAL_MAX_RANKS)
        return error_set(err, ERR_INVALID, "ranks: expected 1..%d, found %d", LOCAL_MAX_RANKS,
                         size);
    struct local_runner *runners = calloc((size_t)size, sizeof *runners);
    struct local_world *world = world_create(size);
    struct local_group *group = world ? group_create(world, size) : NULL;
    enum status st = ERR_NO_MEMORY;
    if (!runners || !group) {
        error_set(err, st, "no memory for %d ranks", size);
        goto out;
    }
    for (int i = 0; i < size; i++) {
        runners[i].fn = fn;
        runners[i].arg = arg;
        local_init(&runners[i].comm, group, i, i);
    }
    st = runners_run(runners, size, err);
out:
    group_free(group);
    world_destroy(world);
    free(runners);
    return st;
}
