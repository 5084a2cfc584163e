/*
 * An NCCL for machines without GPUs: as much of nccl.h as transport/nccl_library.h lists, between
 * threads of one process over the host's memory, which is what the emulator's device memory is. An
 * operation is done when its call returns, as the emulator's streams are; what a real one would do
 * later, or never, is injected (fake_nccl.h). What a caller may not do is ncclInvalidUsage: an
 * operation before the last has left ncclInProgress, say. Loaded by path, by tests alone.
 *
 * State: one lock over all of it. A clique is what an identifier's communicators share.
 */
#include "tests/fake_nccl/fake_nccl.h"
#include "transport/nccl_library.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    MAX_RANKS = 64
};

/* What a rank calls with. */
struct call {
    const void *from;
    void *to;
    size_t count;
    int kind;
};

/* A message on its way to one rank of one other. */
struct mail {
    const void *from;
    size_t count;
    bool posted;
};

struct clique {
    struct nccl_id id;
    int size, joined, left;
    unsigned round; /* of meetings */
    int arrived;
    bool aborted;
    struct call calls[MAX_RANKS];
    struct mail mail[MAX_RANKS][MAX_RANKS];
    struct clique *next;
};

struct ncclComm {
    struct clique *clique;
    int rank;
    bool ready;      /* its init has ended */
    int polls;       /* before the last call has */
    bool never;      /* it will not */
    int async_error; /* from now on */
    bool stuck;      /* an operation of it will never be done */
    int operations;
    pthread_t maker;
    struct ncclComm *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct clique *cliques;
static struct ncclComm *comms;
static uint64_t last_id;

static bool busy(void)
{
    bool stuck = false;
    pthread_mutex_lock(&lock);
    for (const struct ncclComm *c = comms; c; c = c->next)
        stuck = stuck || (c->stuck && pthread_equal(c->maker, pthread_self()));
    pthread_mutex_unlock(&lock);
    return stuck;
}

static struct fake_nccl control = {
    .version = 23004, .patience_ms = 60000, .at_rank = -1, .at = -1, .busy = busy};

struct fake_nccl *fake_nccl(void);

struct fake_nccl *fake_nccl(void)
{
    return &control;
}

int ncclGetVersion(int *version);
int ncclGetUniqueId(struct nccl_id *id);
int ncclCommInitRankConfig(nccl_handle *out, int size, struct nccl_id id, int rank,
                           struct nccl_config *config);
int ncclCommFinalize(nccl_handle c);
int ncclCommDestroy(nccl_handle c);
int ncclCommAbort(nccl_handle c);
const char *ncclGetErrorString(int result);
const char *ncclGetLastError(nccl_handle c);
int ncclCommGetAsyncError(nccl_handle c, int *result);
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, nccl_handle c,
                  void *stream);
int ncclAllGather(const void *from, void *to, size_t count, int type, nccl_handle c, void *stream);
int ncclSend(const void *from, size_t count, int type, int peer, nccl_handle c, void *stream);
int ncclRecv(void *to, size_t count, int type, int peer, nccl_handle c, void *stream);

int ncclGetVersion(int *version)
{
    *version = control.version;
    return NCCL_OK;
}

int ncclGetUniqueId(struct nccl_id *id)
{
    if (control.id_fails)
        return SYSTEM_ERROR;
    pthread_mutex_lock(&lock);
    last_id++;
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, &last_id, sizeof last_id);
    pthread_mutex_unlock(&lock);
    return NCCL_OK;
}

/* ---- communicators ---- */

static struct clique *join(const struct nccl_id *id, int size)
{
    struct clique *q = cliques;
    while (q && memcmp(&q->id, id, sizeof *id) != 0)
        q = q->next;
    if (!q) {
        q = calloc(1, sizeof *q);
        if (!q)
            abort();
        q->id = *id;
        q->size = size;
        q->next = cliques;
        cliques = q;
    }
    q->joined++;
    return q;
}

static void leave(struct clique *q)
{
    if (++q->left < q->joined)
        return;
    struct clique **at = &cliques;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    free(q);
}

int ncclCommInitRankConfig(nccl_handle *out, int size, struct nccl_id id, int rank,
                           struct nccl_config *config)
{
    if (config->size < sizeof *config || config->magic != NCCL_CONFIG_MAGIC ||
        config->blocking != 0 || size > MAX_RANKS || rank < 0 || rank >= size)
        return INVALID_ARGUMENT;
    struct ncclComm *c = calloc(1, sizeof *c);
    if (!c)
        return INTERNAL_ERROR;
    pthread_mutex_lock(&lock);
    c->clique = join(&id, size);
    c->rank = rank;
    c->polls = control.polls + 1;
    c->never = control.init_hangs;
    c->maker = pthread_self();
    c->next = comms;
    comms = c;
    *out = c;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&control.inits, 1);
    return c->clique->size == size ? NCCL_IN_PROGRESS : INVALID_ARGUMENT;
}

int ncclCommGetAsyncError(nccl_handle c, int *result)
{
    pthread_mutex_lock(&lock);
    bool all = c->clique->joined == c->clique->size;
    if (c->polls > 0 && all && !c->never)
        c->polls--;
    *result = c->polls > 0 || c->never ? NCCL_IN_PROGRESS : c->async_error;
    c->ready = c->ready || *result == NCCL_OK;
    pthread_mutex_unlock(&lock);
    return NCCL_OK;
}

int ncclCommFinalize(nccl_handle c)
{
    pthread_mutex_lock(&lock);
    int result = c->ready && !c->async_error ? NCCL_IN_PROGRESS : INVALID_USAGE;
    c->polls = control.polls + 1;
    c->never = control.finalize_hangs;
    pthread_mutex_unlock(&lock);
    return result;
}

static void release(nccl_handle c)
{
    struct ncclComm **at = &comms;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    leave(c->clique);
    free(c);
}

int ncclCommDestroy(nccl_handle c)
{
    pthread_mutex_lock(&lock);
    release(c);
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&control.destroyed, 1);
    return NCCL_OK;
}

int ncclCommAbort(nccl_handle c)
{
    pthread_mutex_lock(&lock);
    c->clique->aborted = true;
    pthread_cond_broadcast(&changed);
    release(c);
    pthread_mutex_unlock(&lock);
    while (control.abort_waits)
        usleep(1000);
    atomic_fetch_add(&control.aborted, 1);
    return NCCL_OK;
}

const char *ncclGetErrorString(int result)
{
    static const char *const names[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= 0 && result < 8 ? names[result] : "unknown result code";
}

const char *ncclGetLastError(nccl_handle c)
{
    (void)c;
    return "";
}

/* ---- operations ---- */

/* Under the lock: false when the others are gone or do not come. */
static bool wait_changed(const struct clique *q, const struct timespec *until)
{
    return !q->aborted && pthread_cond_timedwait(&changed, &lock, until) != ETIMEDOUT;
}

static struct timespec patience(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += control.patience_ms / 1000;
    t.tv_nsec += control.patience_ms % 1000 * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

/* All of a clique meet; whatever stands in `calls` is then everybody's. */
static int meet(struct clique *q)
{
    struct timespec until = patience();
    unsigned round = q->round;
    if (++q->arrived == q->size) {
        q->arrived = 0;
        q->round++;
        pthread_cond_broadcast(&changed);
    }
    while (q->round == round)
        if (!wait_changed(q, &until))
            return INTERNAL_ERROR;
    return NCCL_OK;
}

static void add(const struct clique *q, double *sum, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sum[i] = control.sums_wrong;
        for (int r = q->size - 1; r >= 0; r--) /* not the order of other transports */
            sum[i] += ((const double *)q->calls[r].from)[i];
    }
}

/* Everybody reads what all have sent, then writes. */
static int collective(nccl_handle c, const struct call *mine)
{
    struct clique *q = c->clique;
    size_t n = mine->count;
    q->calls[c->rank] = *mine;
    int result = meet(q);
    if (result != NCCL_OK)
        return result;
    for (int r = 0; r < q->size; r++)
        if (q->calls[r].count != n || q->calls[r].kind != mine->kind)
            return INVALID_ARGUMENT;
    bool sum = mine->kind == NCCL_TYPE_F64;
    size_t bytes = sum ? n * sizeof(double) : n * (size_t)q->size;
    char *all = malloc(bytes);
    if (!all)
        return INTERNAL_ERROR;
    if (sum)
        add(q, (double *)(void *)all, n);
    else
        for (int r = 0; r < q->size; r++)
            memcpy(all + (size_t)r * n, q->calls[r].from, n);
    result = meet(q);
    if (result == NCCL_OK)
        memcpy(mine->to, all, bytes);
    free(all);
    return result;
}

/* The sender leaves when the receiver has copied. */
static int hand_on(nccl_handle c, int peer, const struct call *mine)
{
    struct clique *q = c->clique;
    struct timespec until = patience();
    struct mail *m = mine->from ? &q->mail[c->rank][peer] : &q->mail[peer][c->rank];
    if (mine->from) {
        *m = (struct mail){mine->from, mine->count, true};
        pthread_cond_broadcast(&changed);
        while (m->posted)
            if (!wait_changed(q, &until))
                return INTERNAL_ERROR;
        return NCCL_OK;
    }
    while (!m->posted)
        if (!wait_changed(q, &until))
            return INTERNAL_ERROR;
    bool same = m->count == mine->count;
    if (same)
        memcpy(mine->to, m->from, mine->count);
    m->posted = false;
    pthread_cond_broadcast(&changed);
    return same ? NCCL_OK : INVALID_ARGUMENT;
}

/* One operation, now or at each run of a recording. peer -1: a collective. */
struct operation {
    nccl_handle c;
    int peer;
    struct call mine;
};

/* Does it, or what is to befall it. Under the lock. */
static int perform(const struct operation *o)
{
    struct ncclComm *c = o->c;
    int number = c->operations++;
    bool befalls = control.at >= 0 && number >= control.at &&
                   (control.at_rank < 0 || control.at_rank == c->rank);
    atomic_fetch_add(&control.operations, 1);
    if (befalls && control.stream_hangs)
        c->stuck = true;
    else if (befalls && control.never_queued)
        c->never = true;
    else if (befalls && control.async_error)
        c->async_error = control.async_error;
    else
        return o->peer < 0 ? collective(c, &o->mine) : hand_on(c, o->peer, &o->mine);
    return NCCL_OK;
}

static int run_recorded(const void *arg)
{
    const struct operation *o = arg;
    pthread_mutex_lock(&lock);
    int result = perform(o);
    pthread_mutex_unlock(&lock);
    return result;
}

static int run(nccl_handle c, int peer, struct call mine)
{
    const struct operation o = {c, peer, mine};
    int result = NCCL_OK;
    pthread_mutex_lock(&lock);
    if (!c->ready || c->polls > 0 || c->never || peer >= c->clique->size)
        result = INVALID_USAGE;
    else if (!control.record || !control.record(run_recorded, &o, sizeof o))
        result = perform(&o);
    else if (control.record_fails)
        result = INTERNAL_ERROR;
    if (result == NCCL_OK)
        c->polls = control.polls;
    if (result == NCCL_OK && (c->polls > 0 || c->never))
        result = NCCL_IN_PROGRESS;
    pthread_mutex_unlock(&lock);
    return result;
}

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, nccl_handle c,
                  void *stream)
{
    (void)stream;
    if (type != NCCL_TYPE_F64 || op != NCCL_OP_SUM)
        return INVALID_ARGUMENT;
    return run(c, -1, (struct call){from, to, count, type});
}

int ncclAllGather(const void *from, void *to, size_t count, int type, nccl_handle c, void *stream)
{
    (void)stream;
    return type == NCCL_TYPE_BYTE ? run(c, -1, (struct call){from, to, count, type})
                                  : INVALID_ARGUMENT;
}

int ncclSend(const void *from, size_t count, int type, int peer, nccl_handle c, void *stream)
{
    (void)stream;
    return type == NCCL_TYPE_BYTE && peer >= 0
               ? run(c, peer, (struct call){from, NULL, count, type})
               : INVALID_ARGUMENT;
}

#ifndef FAKE_NCCL_LACKS_RECV
int ncclRecv(void *to, size_t count, int type, int peer, nccl_handle c, void *stream)
{
    (void)stream;
    return type == NCCL_TYPE_BYTE && peer >= 0 ? run(c, peer, (struct call){NULL, to, count, type})
                                               : INVALID_ARGUMENT;
}
#endif
