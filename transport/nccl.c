/*
 * The NCCL transport: see nccl.h. Communicators are non-blocking, so that no call waits for another
 * rank without a deadline: what NCCL has not done at once is asked after (`settle`).
 *
 * A rank that does not come cannot be named by NCCL, and NCCL's init waits for it. So ranks say by
 * the inner communicator that they have arrived (transport.h, arrive) before each init and after.
 */
#include "transport/nccl.h"
#include "base/check.h"
#include "base/clock.h"
#include "transport/nccl_library.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    NCCL_SPIN_NS = 1000000,     /* how long a wait polls without sleeping */
    NCCL_PAUSE_US = 50,         /* between polls after that */
    NCCL_LATE_MS = 2000,        /* after a deadline, for the other ranks to say the same */
    NCCL_FINALIZE_MS = 5000,    /* until a communicator that is quiet is aborted instead */
    NCCL_RANKS_IN_MESSAGE = 300 /* bytes for a list of ranks */
};

static const char staged_instead[] = "run with --collectives staged";

/* Where a rank is: what the others are told. */
struct place {
    char host[65], boot[40];
    char gpu[64], model[128];
    int version;
};

struct nccl {
    struct nccl_library lib;
    struct comm *world;
    void *stream;
    int64_t init_ms, step_ms;
    bool (*meet)(void *arg);
    void *arg;
    char version[24];
    struct place mine, *places; /* [world's size] */
    bool placed;                /* places are known */
    bool *here;                 /* [world's size], for arrive */
    /* Over what follows, and the handles: an abort may come from any thread. */
    pthread_mutex_t lock;
    struct nccl_comm *comms; /* list */
    struct error failed;     /* code OK: nothing has */
    bool stuck;              /* a finalize has not ended */
    /* The engine thread's, for messages: what it put on the stream last; name NULL: nothing. */
    struct {
        const char *what, *name;
        size_t bytes;
    } last;
};

struct nccl_comm {
    struct comm base;
    struct nccl *n;
    struct comm *inner;
    bool owns_inner, one_machine;
    const char *name;
    int *members;       /* [size]: ranks of the world */
    nccl_handle handle; /* NULL: not yet, or aborted */
    bool aborting;      /* by this thread */
    pthread_t aborter;
    struct nccl_comm *next, **link;
};

static struct nccl_comm *nccl_comm(struct comm *c)
{
    return (struct nccl_comm *)c;
}

/* ---- words for messages ---- */

static bool append(char *out, size_t bytes, const char *text)
{
    size_t used = strlen(out), more = strlen(text);
    if (used + more + 1 > bytes)
        return false;
    memcpy(out + used, text, more + 1);
    return true;
}

/* "rank 3 (node-b)"; `rank` of the world. */
static void rank_text(const struct nccl *n, int rank, char *out, size_t bytes)
{
    if (n->placed)
        snprintf(out, bytes, "rank %d (%s)", rank, n->places[rank].host);
    else
        snprintf(out, bytes, "rank %d", rank);
}

/* Those of `size` ranks that are not here, as many as there is room for; members NULL: the world's.
 */
static void missing_text(const struct nccl *n, const int *members, int size, const bool *here,
                         char out[NCCL_RANKS_IN_MESSAGE])
{
    out[0] = '\0';
    for (int i = 0; i < size; i++) {
        char one[96], next[100];
        if (here[i])
            continue;
        rank_text(n, members ? members[i] : i, one, sizeof one);
        snprintf(next, sizeof next, "%s%s", out[0] ? ", " : "", one);
        if (!append(out, NCCL_RANKS_IN_MESSAGE - 5, next)) {
            strcat(out, " ...");
            return;
        }
    }
}

static void own_text(const struct nccl *n, char out[96])
{
    rank_text(n, n->world->rank, out, 96);
}

/* ---- failing ---- */

struct abort_job {
    int (*abort)(nccl_handle c);
    nccl_handle handle;
};

static void *abort_main(void *arg)
{
    struct abort_job job = *(struct abort_job *)arg;
    free(arg);
    job.abort(job.handle);
    return NULL;
}

/* Under n->lock. NCCL tells the GPU to give up at once, but returns only when no recorded graph
 * refers to the communicator: so a thread of its own waits for that. */
static void start_abort(struct nccl_comm *c)
{
    struct abort_job *job = malloc(sizeof *job);
    if (!c->handle) {
        free(job);
        return;
    }
    if (job)
        *job = (struct abort_job){c->n->lib.abort, c->handle};
    c->aborting = job && pthread_create(&c->aborter, NULL, abort_main, job) == 0;
    if (!c->aborting) {
        c->n->lib.abort(c->handle);
        free(job);
    }
    c->handle = NULL;
}

/* Ends all communicators of this rank; the first reason stays. Takes n->lock. */
static enum status nccl_fail(struct nccl *n, const struct error *why, struct error *err)
{
    pthread_mutex_lock(&n->lock);
    if (n->failed.code == OK) {
        n->failed = *why;
        for (struct nccl_comm *c = n->comms; c; c = c->next)
            start_abort(c);
    }
    if (err)
        *err = n->failed;
    pthread_mutex_unlock(&n->lock);
    return ERR_PEER;
}

/* Of an operation after that. */
static enum status has_failed(struct nccl *n, struct error *err)
{
    pthread_mutex_lock(&n->lock);
    if (err)
        *err = n->failed;
    pthread_mutex_unlock(&n->lock);
    return ERR_PEER;
}

/* What NCCL says of a result that is not success. */
static enum status result_failed(struct nccl_comm *c, const char *what, int result,
                                 struct error *err)
{
    struct nccl *n = c->n;
    struct error e;
    char own[96];
    own_text(n, own);
    pthread_mutex_lock(&n->lock);
    const char *more = n->lib.last_error(c->handle);
    error_set(&e, ERR_PEER, "%s: NCCL: %s among the %d ranks of %s: %s%s%s: %s", own, what,
              c->base.size, c->name, n->lib.error_text(result), more && *more ? ": " : "",
              more ? more : "",
              result == NCCL_REMOTE_ERROR
                  ? "a process of another rank or the network to it has gone: look at the other "
                    "ranks' logs"
                  : "look at this rank's log with NCCL_DEBUG=INFO");
    pthread_mutex_unlock(&n->lock);
    return nccl_fail(n, &e, err);
}

/* ---- waiting for NCCL ---- */

/* False: the communicator has been aborted. */
static bool ask(struct nccl_comm *c, int *result)
{
    struct nccl *n = c->n;
    pthread_mutex_lock(&n->lock);
    bool there = c->handle != NULL;
    if (there) {
        int asked = n->lib.async_error(c->handle, result);
        *result = asked != NCCL_OK ? asked : *result;
    }
    pthread_mutex_unlock(&n->lock);
    return there;
}

static bool passed(int64_t start_ns, int64_t ms)
{
    return ms > 0 && clock_now_ns() - start_ns >= ms * 1000000;
}

static void pause_after(int64_t start_ns)
{
    if (clock_now_ns() - start_ns > NCCL_SPIN_NS)
        usleep(NCCL_PAUSE_US);
}

/* Until what NCCL has begun is on the stream, or an init has ended. */
static enum status settle(struct nccl_comm *c, const char *what, int result, struct error *err)
{
    struct nccl *n = c->n;
    int64_t start = clock_now_ns();
    while (result == NCCL_IN_PROGRESS) {
        if (passed(start, n->init_ms)) {
            struct error e;
            char own[96];
            own_text(n, own);
            error_set(&e, ERR_PEER,
                      "%s: NCCL has not connected the %d ranks of %s within %g s, for %s, though "
                      "all have arrived: look at this rank's log with NCCL_DEBUG=INFO, and whether "
                      "the machines reach each other over the interfaces of NCCL_SOCKET_IFNAME; "
                      "else %s",
                      own, c->base.size, c->name, (double)n->init_ms * 1e-3, what, staged_instead);
            return nccl_fail(n, &e, err);
        }
        pause_after(start);
        if (!ask(c, &result))
            return has_failed(n, err);
    }
    return result == NCCL_OK ? OK : result_failed(c, what, result, err);
}

/* All ranks of `over` come here in time, or those that do not are named. */
static enum status all_arrive(struct nccl *n, struct comm *over, const int *members,
                              const char *where, struct error *err)
{
    char missing[NCCL_RANKS_IN_MESSAGE];
    TRY(over->ops->arrive(over, n->init_ms, n->here, err));
    missing_text(n, members, over->size, n->here, missing);
    if (!missing[0])
        return OK;
    struct error e;
    error_set(&e, ERR_PEER,
              "NCCL: %s: not there within %g s: %s: look at what these ranks do, in their logs",
              where, (double)n->init_ms * 1e-3, missing);
    return nccl_fail(n, &e, err);
}

/* ---- operations ---- */

enum op_kind { OP_SUM, OP_GATHER, OP_SEND, OP_RECV };

struct op {
    enum op_kind kind;
    const void *from;
    void *to;
    size_t count; /* doubles of a sum, else bytes */
    int peer;
};

static const char *const op_names[] = {
    [OP_SUM] = "an all-reduce",
    [OP_GATHER] = "an all-gather",
    [OP_SEND] = "a send",
    [OP_RECV] = "a receive",
};

static int op_start(const struct nccl_comm *c, const struct op *op)
{
    const struct nccl_library *l = &c->n->lib;
    void *stream = c->n->stream;
    switch (op->kind) {
    case OP_SUM:
        return l->all_reduce(op->from, op->to, op->count, NCCL_TYPE_F64, NCCL_OP_SUM, c->handle,
                             stream);
    case OP_GATHER:
        return l->all_gather(op->from, op->to, op->count, NCCL_TYPE_BYTE, c->handle, stream);
    case OP_SEND:
        return l->send(op->from, op->count, NCCL_TYPE_BYTE, op->peer, c->handle, stream);
    case OP_RECV:
        break;
    }
    return l->recv(op->to, op->count, NCCL_TYPE_BYTE, op->peer, c->handle, stream);
}

/* Puts it on the stream. */
static enum status op_run(struct comm *base, const struct op *op, struct error *err)
{
    struct nccl_comm *c = nccl_comm(base);
    struct nccl *n = c->n;
    int result = NCCL_OK;
    if (op->count == 0 || (n->meet && !n->meet(n->arg)))
        return OK;
    n->last.what = op_names[op->kind];
    n->last.name = c->name;
    n->last.bytes = op->count * (op->kind == OP_SUM ? sizeof(double) : 1);
    pthread_mutex_lock(&n->lock);
    bool there = c->handle != NULL;
    if (there)
        result = op_start(c, op);
    pthread_mutex_unlock(&n->lock);
    return there ? settle(c, op_names[op->kind], result, err) : has_failed(n, err);
}

static enum status nccl_allreduce_f64(struct comm *c, double *x, size_t count, struct error *err)
{
    return op_run(c, &(struct op){OP_SUM, x, x, count, 0}, err);
}

static enum status nccl_allgather(struct comm *c, const void *send, size_t bytes, void *recv,
                                  struct error *err)
{
    return op_run(c, &(struct op){OP_GATHER, send, recv, bytes, 0}, err);
}

static enum status nccl_send(struct comm *c, int to, const void *x, size_t bytes, struct error *err)
{
    CHECK(to >= 0 && to < c->size && to != c->rank, "rank %d sends to %d of %d", c->rank, to,
          c->size);
    return op_run(c, &(struct op){OP_SEND, x, NULL, bytes, to}, err);
}

static enum status nccl_recv(struct comm *c, int from, void *x, size_t bytes, struct error *err)
{
    CHECK(from >= 0 && from < c->size && from != c->rank, "rank %d receives from %d of %d", c->rank,
          from, c->size);
    return op_run(c, &(struct op){OP_RECV, NULL, x, bytes, from}, err);
}

static enum status nccl_broadcast(struct comm *c, int root, void *x, size_t bytes,
                                  struct error *err)
{
    struct comm *inner = nccl_comm(c)->inner;
    return inner->ops->broadcast(inner, root, x, bytes, err);
}

static enum status nccl_split_node(struct comm *c, struct comm **out, struct error *err)
{
    struct comm *inner = nccl_comm(c)->inner;
    return inner->ops->split_node(inner, out, err);
}

static enum status nccl_arrive(struct comm *c, int64_t ms, bool *here, struct error *err)
{
    struct comm *inner = nccl_comm(c)->inner;
    return inner->ops->arrive(inner, ms, here, err);
}

static bool nccl_capturable(const struct comm *base)
{
    const struct nccl_comm *c = (const struct nccl_comm *)base;
    return c->one_machine || c->n->lib.version >= NCCL_CAPTURES_NODES;
}

static void nccl_abort(struct comm *base, const char *why)
{
    struct nccl_comm *c = nccl_comm(base);
    struct error e;
    error_set(&e, ERR_PEER, "rank %d aborted: %s", c->n->world->rank, why);
    c->inner->ops->abort(c->inner, why); /* first, so that the others say why */
    nccl_fail(c->n, &e, NULL);
}

/* ---- life of a communicator ---- */

static void enlist(struct nccl_comm *c)
{
    struct nccl *n = c->n;
    pthread_mutex_lock(&n->lock);
    c->next = n->comms;
    c->link = &n->comms;
    if (c->next)
        c->next->link = &c->next;
    n->comms = c;
    pthread_mutex_unlock(&n->lock);
}

/* What it held, which is then the caller's alone. */
static nccl_handle unlist(struct nccl_comm *c)
{
    pthread_mutex_lock(&c->n->lock);
    nccl_handle handle = c->handle;
    c->handle = NULL;
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    pthread_mutex_unlock(&c->n->lock);
    return handle;
}

/* In order where the other ranks do so too, else by force. */
static void close_handle(struct nccl *n, nccl_handle handle)
{
    int64_t start = clock_now_ns();
    int result = n->stuck ? NCCL_REMOTE_ERROR : n->lib.finalize(handle);
    while (result == NCCL_IN_PROGRESS && !n->stuck) {
        pause_after(start);
        int asked = n->lib.async_error(handle, &result);
        result = asked != NCCL_OK ? asked : result;
        n->stuck = result == NCCL_IN_PROGRESS && passed(start, NCCL_FINALIZE_MS);
    }
    if (result == NCCL_OK)
        n->lib.destroy(handle);
    else
        n->lib.abort(handle);
}

/* What an abort still waits for after this long, it waits for alone. */
static void join_abort(const struct nccl_comm *c)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += NCCL_FINALIZE_MS / 1000;
    if (pthread_timedjoin_np(c->aborter, NULL, &until) != 0)
        pthread_detach(c->aborter);
}

static void nccl_comm_destroy(struct comm *base)
{
    struct nccl_comm *c = nccl_comm(base);
    nccl_handle handle = unlist(c);
    if (handle)
        close_handle(c->n, handle);
    if (c->aborting)
        join_abort(c);
    if (c->owns_inner && c->inner)
        c->inner->ops->destroy(c->inner);
    free(c->members);
    free(c);
}

static enum status nccl_split(struct comm *base, int color, int key, struct comm **out,
                              struct error *err);

static const struct comm_ops nccl_ops = {
    .name = "nccl",
    .allreduce_f64 = nccl_allreduce_f64,
    .allgather = nccl_allgather,
    .broadcast = nccl_broadcast,
    .send = nccl_send,
    .recv = nccl_recv,
    .split = nccl_split,
    .split_node = nccl_split_node,
    .arrive = nccl_arrive,
    .capturable = nccl_capturable,
    .abort = nccl_abort,
    .destroy = nccl_comm_destroy,
};

/* Enlisted, without a handle; the inner communicator stays the caller's. */
static enum status comm_create(struct nccl *n, struct comm *inner, const char *name,
                               struct nccl_comm **out, struct error *err)
{
    struct nccl_comm *c = calloc(1, sizeof *c);
    int *members = calloc((size_t)inner->size, sizeof *members);
    if (!c || !members) {
        free(c);
        free(members);
        return error_set(err, ERR_NO_MEMORY, "no memory for a communicator");
    }
    *c = (struct nccl_comm){
        .base = {.ops = &nccl_ops, .rank = inner->rank, .size = inner->size},
        .n = n,
        .inner = inner,
        .name = name,
        .members = members,
    };
    enlist(c);
    *out = c;
    return OK;
}

static enum status make_id(struct nccl_comm *c, struct nccl_id *id, struct error *err)
{
    int result = c->base.rank == 0 ? c->n->lib.get_unique_id(id) : NCCL_OK;
    return result == NCCL_OK ? OK : result_failed(c, "an identifier", result, err);
}

/* Who is in it, and what to find each other by. Collective over inner. */
static enum status exchange(struct nccl_comm *c, struct nccl_id *id, struct error *err)
{
    struct comm *inner = c->inner;
    const struct nccl *n = c->n;
    int own = n->world->rank;
    TRY(inner->ops->allgather(inner, &own, sizeof own, c->members, err));
    const struct place *first = &n->places[c->members[0]];
    c->one_machine = true;
    for (int i = 1; i < inner->size; i++) {
        const struct place *p = &n->places[c->members[i]];
        if (strcmp(p->host, first->host) != 0 || strcmp(p->boot, first->boot) != 0)
            c->one_machine = false;
    }
    TRY(comm_agree(inner, make_id(c, id, err), err));
    return comm_broadcast(inner, 0, id, sizeof *id, err);
}

static enum status init(struct nccl_comm *c, const struct nccl_id *id, struct error *err)
{
    struct nccl *n = c->n;
    struct nccl_config config = {
        .size = sizeof config,
        .magic = NCCL_CONFIG_MAGIC,
        .version = NCCL_CONFIG_VERSION,
        .blocking = 0,
        .cga_cluster_size = NCCL_CONFIG_UNDEFINED,
        .min_ctas = NCCL_CONFIG_UNDEFINED,
        .max_ctas = NCCL_CONFIG_UNDEFINED,
        .split_share = NCCL_CONFIG_UNDEFINED,
    };
    int result = NCCL_OK;
    pthread_mutex_lock(&n->lock);
    bool failed = n->failed.code != OK;
    if (!failed)
        result = n->lib.init(&c->handle, c->base.size, *id, c->base.rank, &config);
    pthread_mutex_unlock(&n->lock);
    return failed ? has_failed(n, err) : settle(c, "its init", result, err);
}

/* Collective over `over`, whose ranks in the world are `members` (NULL: it is the world). `mine`:
 * how making `c` went here. Gives it up where this fails. */
static enum status connect(struct nccl *n, struct nccl_comm *c, enum status mine, struct comm *over,
                           const int *members, struct error *err)
{
    struct nccl_id id = {{0}};
    enum status st = all_arrive(n, over, members, "before an init", err);
    if (st == OK)
        st = comm_agree(over, mine, err);
    CHECK(c || st != OK, "nothing to connect of %d ranks", over->size);
    if (st == OK)
        st = exchange(c, &id, err);
    if (st == OK)
        st = init(c, &id, err);
    if (st == OK)
        st = all_arrive(n, over, members, "after an init", err);
    if (st != OK && c)
        nccl_comm_destroy(&c->base);
    return st;
}

enum status comm_nccl(struct nccl *n, struct comm *inner, const char *name, struct comm **out,
                      struct error *err)
{
    struct nccl_comm *c = NULL;
    enum status st = comm_create(n, inner, name, &c, err);
    TRY(connect(n, c, st, n->world, NULL, err));
    *out = &c->base;
    return OK;
}

static enum status nccl_split(struct comm *base, int color, int key, struct comm **out,
                              struct error *err)
{
    struct nccl_comm *parent = nccl_comm(base), *c = NULL;
    struct comm *inner;
    TRY(parent->inner->ops->split(parent->inner, color, key, &inner, err));
    enum status st = comm_create(parent->n, inner, parent->name, &c, err);
    if (c)
        c->owns_inner = true;
    st = connect(parent->n, c, st, parent->inner, parent->members, err);
    if (st != OK) {
        if (!c)
            inner->ops->destroy(inner);
        return st;
    }
    *out = &c->base;
    return OK;
}

/* ---- watching the stream ---- */

/* The deadline has passed: who else waits? A rank that does not is the one to look at. */
static enum status late(struct nccl *n, const char *what, struct error *err)
{
    char own[96], missing[NCCL_RANKS_IN_MESSAGE], last[160] = "no collective";
    struct error e, ignored;
    own_text(n, own);
    if (n->last.name)
        snprintf(last, sizeof last, "%s of %zu bytes among %s", n->last.what, n->last.bytes,
                 n->last.name);
    error_set(&e, ERR_PEER,
              "%s: its GPU has not finished %s within %g s; the last that it was given is %s", own,
              what, (double)n->step_ms * 1e-3, last);
    if (n->world->ops->arrive(n->world, NCCL_LATE_MS, n->here, &ignored) != OK)
        return nccl_fail(n, &e, err);
    missing_text(n, NULL, n->world->size, n->here, missing);
    if (!missing[0])
        error_advise(&e, ERR_PEER,
                     "all ranks wait like this: look for Xid errors in the machines' kernel logs, "
                     "at `nvidia-smi nvlink -s` and at the network between them");
    else
        error_advise(&e, ERR_PEER,
                     "not waiting for a GPU: %s: look at what these ranks do, in their logs",
                     missing);
    return nccl_fail(n, &e, err);
}

enum status nccl_watch(struct nccl *n, const char *what, int64_t waited_ms, struct error *err)
{
    struct nccl_comm *bad = NULL;
    int result = NCCL_OK;
    pthread_mutex_lock(&n->lock);
    bool failed = n->failed.code != OK;
    for (struct nccl_comm *c = n->comms; c && !bad; c = c->next) {
        if (!c->handle)
            continue;
        int asked = n->lib.async_error(c->handle, &result);
        result = asked != NCCL_OK ? asked : result;
        if (result != NCCL_OK && result != NCCL_IN_PROGRESS)
            bad = c;
    }
    pthread_mutex_unlock(&n->lock);
    if (failed)
        return has_failed(n, err);
    if (bad)
        return result_failed(bad, what, result, err);
    if (n->step_ms > 0 && waited_ms >= n->step_ms)
        return late(n, what, err);
    return OK;
}

/* ---- a rank's NCCL ---- */

static void copy_text(char *to, size_t bytes, const char *from)
{
    snprintf(to, bytes, "%s", from ? from : "");
}

/* This machine: its name, and its boot where machines share a name. */
static void find_host(struct place *p)
{
    if (gethostname(p->host, sizeof p->host) != 0)
        copy_text(p->host, sizeof p->host, "unnamed");
    p->host[sizeof p->host - 1] = '\0';
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f)
        return;
    if (fgets(p->boot, (int)sizeof p->boot, f))
        p->boot[strcspn(p->boot, "\n")] = '\0';
    fclose(f);
}

static enum status check_versions(const struct nccl *n, int a, int b, struct error *err)
{
    const struct place *p = &n->places[a], *q = &n->places[b];
    char one[96], other[96], first[24], second[24];
    if (p->version == q->version)
        return OK;
    rank_text(n, a, one, sizeof one);
    rank_text(n, b, other, sizeof other);
    nccl_version_text(p->version, first);
    nccl_version_text(q->version, second);
    return error_set(err, ERR_UNSUPPORTED,
                     "NCCL: expected one version, found %s on %s and %s on %s: install the same on "
                     "all machines, or %s",
                     first, one, second, other, staged_instead);
}

static enum status check_gpus(const struct nccl *n, int a, int b, struct error *err)
{
    const struct place *p = &n->places[a], *q = &n->places[b];
    char one[96], other[96];
    rank_text(n, a, one, sizeof one);
    rank_text(n, b, other, sizeof other);
    if (strcmp(p->gpu, q->gpu) == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "NCCL: expected a GPU for each rank, found %s (%s) under both %s and %s: "
                         "start fewer ranks on this machine, or %s",
                         p->gpu, p->model, one, other, staged_instead);
    if (strcmp(p->model, q->model) != 0)
        return error_set(err, ERR_INVALID,
                         "expected GPUs of one model in a group, found %s under %s and %s under "
                         "%s: lay the group over machines of one kind",
                         p->model, one, q->model, other);
    return OK;
}

/* Can these ranks meet by NCCL? The same answer in all. */
static enum status check_places(const struct nccl *n, struct error *err)
{
    int size = n->world->size;
    for (int b = 1; b < size; b++)
        TRY(check_versions(n, 0, b, err));
    for (int b = 1; b < size; b++)
        for (int a = 0; a < b; a++)
            TRY(check_gpus(n, a, b, err));
    return OK;
}

static enum status gather_places(struct nccl *n, struct error *err)
{
    struct comm *w = n->world;
    if (w->size == 1)
        n->places[0] = n->mine;
    else
        TRY(w->ops->allgather(w, &n->mine, sizeof n->mine, n->places, err));
    n->placed = true;
    return check_places(n, err);
}

/* This rank alone. */
static enum status open_here(struct nccl *n, const struct nccl_options *o, struct error *err)
{
    TRY(nccl_library_open(o->library, &n->lib, err));
    if (o->host)
        copy_text(n->mine.host, sizeof n->mine.host, o->host);
    else
        find_host(&n->mine);
    copy_text(n->mine.gpu, sizeof n->mine.gpu, o->gpu);
    copy_text(n->mine.model, sizeof n->mine.model, o->gpu_model);
    n->mine.version = n->lib.version;
    nccl_version_text(n->lib.version, n->version);
    return OK;
}

enum status nccl_create(struct comm *world, const struct nccl_options *o, struct nccl **out,
                        struct error *err)
{
    struct nccl *n = calloc(1, sizeof *n);
    struct place *places = calloc((size_t)world->size, sizeof *places);
    bool *here = calloc((size_t)world->size, sizeof *here);
    if (!n || !places || !here) {
        free(n);
        free(places);
        free(here);
        return error_set(err, ERR_NO_MEMORY, "no memory for NCCL's communicators");
    }
    n->world = world;
    n->stream = o->stream;
    n->init_ms = o->init_ms;
    n->step_ms = o->step_ms;
    n->meet = o->meet;
    n->arg = o->arg;
    n->places = places;
    n->here = here;
    pthread_mutex_init(&n->lock, NULL);
    enum status st = all_arrive(n, world, NULL, "at the start", err);
    if (st == OK)
        st = comm_agree(world, open_here(n, o, err), err);
    if (st == OK)
        st = gather_places(n, err);
    if (st != OK) {
        nccl_destroy(n);
        return st;
    }
    *out = n;
    return OK;
}

void nccl_destroy(struct nccl *n)
{
    if (!n)
        return;
    CHECK(!n->comms, "%s is still there", n->comms->name);
    pthread_mutex_destroy(&n->lock);
    free(n->places);
    free(n->here);
    free(n);
}

const char *nccl_version(const struct nccl *n)
{
    return n->version;
}
