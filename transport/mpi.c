/*
 * The MPI transport: ranks are processes that mpirun has started. The only file that sees mpi.h.
 *
 * Ranks of one machine meet in memory that they share (meeting.h) for all but messages from one to
 * one. Where a communicator spans machines, all-reduce sums on each machine first, then their first
 * ranks sum by MPI, and spread it; all-gather and broadcast are MPI's. The sums are exact, so that
 * the order of this does not matter.
 *
 * State: whether comm_mpi_world has initialised MPI, and whether it has been said that ranks cannot
 * share memory, of the main thread. Every rank calls MPI from
 * one thread at a time (MPI_THREAD_FUNNELED), but for abort, which does nothing but end the job.
 *
 * A rank that waits in an operation polls inside the library; where ranks share cores the launcher
 * sets mpi_yield_when_idle.
 */
#include "transport/transport.h"

#if WITAN_HAVE_MPI

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/meeting.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The library counts in int: longer payloads go in pieces. A test builds this file with a few bytes
 * to walk that path. A multiple of 8. */
#ifndef COMM_PIECE_BYTES
#define COMM_PIECE_BYTES ((size_t)1 << 30)
#endif

enum { COMM_TAG = 0, COMM_TAG_ARRIVE = 1, COMM_ARRIVE_PAUSE_US = 200 };

/* All owned. */
struct mpi_comm {
    struct comm base;
    MPI_Comm handle;
    /* Of ranks of one machine, unless they cannot share memory. */
    struct meeting *meeting;
    struct shared_memory shared;
    /* Of ranks of several machines, where one has two or more: this machine's ranks, and where this
     * is the first of them, the machines' first ranks. */
    struct comm *machine;
    MPI_Comm firsts; /* or MPI_COMM_NULL */
};

static const struct comm_ops mpi_ops;
static bool mpi_initialised_here;
static bool mpi_told_of_sharing;

/* OK, or what the library says about `code`. Ranks that disagree on a size are a broken invariant,
 * which the library notices where the receiver's is smaller. */
static enum status mpi_status(int code, const char *call, struct error *err)
{
    if (code == MPI_SUCCESS)
        return OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int len, class = MPI_ERR_OTHER;
    MPI_Error_string(code, text, &len);
    MPI_Error_class(code, &class);
    CHECK(class != MPI_ERR_TRUNCATE, "%s: ranks call it with different sizes: %s", call, text);
    return error_set(err, class == MPI_ERR_NO_MEM ? ERR_NO_MEMORY : ERR_PEER, "%s: %s", call, text);
}

static size_t mpi_piece(size_t left)
{
    return left < COMM_PIECE_BYTES ? left : COMM_PIECE_BYTES;
}

static MPI_Comm mpi_handle(const struct comm *base)
{
    return ((const struct mpi_comm *)base)->handle;
}

static struct meeting *mpi_meeting(const struct comm *base)
{
    return ((const struct mpi_comm *)base)->meeting;
}

static enum status mpi_sum(MPI_Comm handle, double *x, size_t count, struct error *err)
{
    const size_t piece = COMM_PIECE_BYTES / sizeof *x;
    for (size_t at = 0; at < count; at += piece) {
        int n = (int)(count - at < piece ? count - at : piece);
        TRY(mpi_status(MPI_Allreduce(MPI_IN_PLACE, x + at, n, MPI_DOUBLE, MPI_SUM, handle),
                       "MPI_Allreduce", err));
    }
    return OK;
}

static enum status mpi_allreduce_f64(struct comm *base, double *x, size_t count, struct error *err)
{
    const struct mpi_comm *c = (const struct mpi_comm *)base;
    if (c->meeting)
        return meeting_allreduce_f64(c->meeting, x, count, err);
    if (!c->machine)
        return mpi_sum(c->handle, x, count, err);
    TRY(comm_allreduce_f64(c->machine, x, count, err));
    if (c->firsts != MPI_COMM_NULL)
        TRY(mpi_sum(c->firsts, x, count, err));
    return comm_broadcast(c->machine, 0, x, count * sizeof *x, err);
}

static enum status mpi_broadcast(struct comm *base, int root, void *x, size_t bytes,
                                 struct error *err)
{
    unsigned char *p = x;
    if (mpi_meeting(base))
        return meeting_broadcast(mpi_meeting(base), root, x, bytes, err);
    for (size_t at = 0; at < bytes; at += COMM_PIECE_BYTES)
        TRY(mpi_status(
            MPI_Bcast(p + at, (int)mpi_piece(bytes - at), MPI_BYTE, root, mpi_handle(base)),
            "MPI_Bcast", err));
    return OK;
}

/* A share too long for one call: each rank's is broadcast in its turn. */
static enum status mpi_allgather(struct comm *base, const void *send, size_t bytes, void *recv,
                                 struct error *err)
{
    unsigned char *to = recv;
    if (mpi_meeting(base))
        return meeting_allgather(mpi_meeting(base), send, bytes, recv, err);
    if (bytes == 0)
        return OK;
    if (bytes <= COMM_PIECE_BYTES)
        return mpi_status(
            MPI_Allgather(send, (int)bytes, MPI_BYTE, recv, (int)bytes, MPI_BYTE, mpi_handle(base)),
            "MPI_Allgather", err);
    memcpy(to + (size_t)base->rank * bytes, send, bytes);
    for (int root = 0; root < base->size; root++)
        TRY(mpi_broadcast(base, root, to + (size_t)root * bytes, bytes, err));
    return OK;
}

/* Of at least one message, so that an empty one also waits for its receiver. */
static enum status mpi_send(struct comm *base, int to, const void *x, size_t bytes,
                            struct error *err)
{
    const unsigned char *p = x;
    size_t at = 0;
    CHECK(to >= 0 && to < base->size && to != base->rank, "rank %d sends to %d of %d", base->rank,
          to, base->size);
    do {
        TRY(mpi_status(
            MPI_Send(p + at, (int)mpi_piece(bytes - at), MPI_BYTE, to, COMM_TAG, mpi_handle(base)),
            "MPI_Send", err));
        at += COMM_PIECE_BYTES;
    } while (at < bytes);
    return OK;
}

static enum status mpi_recv(struct comm *base, int from, void *x, size_t bytes, struct error *err)
{
    unsigned char *p = x;
    size_t at = 0;
    CHECK(from >= 0 && from < base->size && from != base->rank, "rank %d receives from %d of %d",
          base->rank, from, base->size);
    do {
        MPI_Status got;
        int expected = (int)mpi_piece(bytes - at), found;
        TRY(mpi_status(MPI_Recv(p + at, expected, MPI_BYTE, from, COMM_TAG, mpi_handle(base), &got),
                       "MPI_Recv", err));
        TRY(mpi_status(MPI_Get_count(&got, MPI_BYTE, &found), "MPI_Get_count", err));
        CHECK(found == expected, "rank %d expects %d bytes of rank %d, found %d", base->rank,
              expected, from, found);
        at += COMM_PIECE_BYTES;
    } while (at < bytes);
    return OK;
}

/* Frees also what is half made. */
static void mpi_destroy(struct comm *base)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    if (!c)
        return;
    meeting_destroy(c->meeting);
    comm_unshare(&c->shared);
    mpi_destroy(c->machine);
    if (c->firsts != MPI_COMM_NULL)
        MPI_Comm_free(&c->firsts);
    MPI_Comm_free(&c->handle);
    free(c);
}

/* What a rank has sent by MPI may move on only while it calls the library. */
static void mpi_idle(void *arg)
{
    int found;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, mpi_handle(arg), &found, MPI_STATUS_IGNORE);
}

/* Of ranks of one machine. Where they cannot share memory they meet by the library. */
static enum status mpi_meet(struct mpi_comm *c, struct error *err)
{
    struct meeting *m = NULL;
    struct error why;
    if (c->base.size > MEETING_MAX_RANKS)
        return OK;
    enum status st = comm_share(&c->base, meeting_bytes(c->base.size), &c->shared, &why);
    if (st == OK)
        st = comm_agree(&c->base,
                        meeting_create(c->shared.at, meeting_bytes(c->base.size), c->base.rank,
                                       c->base.size, mpi_idle, c, &m, &why),
                        &why);
    if (st == OK) {
        c->meeting = m;
        return meeting_start(m, err);
    }
    meeting_destroy(m);
    comm_unshare(&c->shared);
    if (c->base.rank == 0 && !mpi_told_of_sharing)
        log_warn("ranks of a machine meet by MPI, which is slower than in memory that they share: "
                 "%s: start them as one user in one container",
                 why.msg);
    mpi_told_of_sharing = true;
    return OK;
}

/* This machine's ranks of `c`, in their order. A test builds this file with so many of the world's
 * ranks passing for a machine. */
static enum status split_machine(const struct mpi_comm *c, MPI_Comm *out, struct error *err)
{
#ifdef COMM_MACHINE_RANKS
    int world;
    TRY(mpi_status(MPI_Comm_rank(MPI_COMM_WORLD, &world), "MPI_Comm_rank", err));
    return mpi_status(MPI_Comm_split(c->handle, world / COMM_MACHINE_RANKS, c->base.rank, out),
                      "MPI_Comm_split", err);
#else
    return mpi_status(
        MPI_Comm_split_type(c->handle, MPI_COMM_TYPE_SHARED, c->base.rank, MPI_INFO_NULL, out),
        "MPI_Comm_split_type", err);
#endif
}

static enum status mpi_wrap(MPI_Comm handle, struct comm **out, struct error *err);

/* Chooses how the ranks of `c` meet. */
static enum status mpi_connect(struct mpi_comm *c, struct error *err)
{
    MPI_Comm machine;
    int here, most;
    if (c->base.size == 1)
        return OK;
    TRY(split_machine(c, &machine, err));
    enum status st = mpi_status(MPI_Comm_size(machine, &here), "MPI_Comm_size", err);
    if (st == OK)
        st = mpi_status(MPI_Allreduce(&here, &most, 1, MPI_INT, MPI_MAX, c->handle),
                        "MPI_Allreduce", err);
    if (st != OK || most == c->base.size || most == 1) {
        MPI_Comm_free(&machine);
        TRY(st);
        return most == 1 ? OK : mpi_meet(c, err);
    }
    TRY(mpi_wrap(machine, &c->machine, err));
    int color = c->machine->rank == 0 ? 0 : MPI_UNDEFINED;
    return mpi_status(MPI_Comm_split(c->handle, color, c->base.rank, &c->firsts), "MPI_Comm_split",
                      err);
}

/* Takes `handle` over, also on failure. */
static enum status mpi_wrap(MPI_Comm handle, struct comm **out, struct error *err)
{
    struct mpi_comm *c = malloc(sizeof *c);
    if (!c) {
        MPI_Comm_free(&handle);
        return error_set(err, ERR_NO_MEMORY, "no memory for a communicator");
    }
    *c = (struct mpi_comm){.base.ops = &mpi_ops, .handle = handle, .firsts = MPI_COMM_NULL};
    enum status st = mpi_status(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN),
                                "MPI_Comm_set_errhandler", err);
    if (st == OK)
        st = mpi_status(MPI_Comm_rank(handle, &c->base.rank), "MPI_Comm_rank", err);
    if (st == OK)
        st = mpi_status(MPI_Comm_size(handle, &c->base.size), "MPI_Comm_size", err);
    if (st == OK)
        st = mpi_connect(c, err);
    if (st != OK) {
        mpi_destroy(&c->base);
        return st;
    }
    *out = &c->base;
    return OK;
}

static enum status mpi_split(struct comm *base, int color, int key, struct comm **out,
                             struct error *err)
{
    MPI_Comm handle;
    CHECK(color >= 0, "split by color %d", color);
    TRY(mpi_status(MPI_Comm_split(mpi_handle(base), color, key, &handle), "MPI_Comm_split", err));
    return mpi_wrap(handle, out, err);
}

static enum status mpi_split_node(struct comm *base, struct comm **out, struct error *err)
{
    MPI_Comm handle;
    TRY(mpi_status(MPI_Comm_split_type(mpi_handle(base), MPI_COMM_TYPE_SHARED, base->rank,
                                       MPI_INFO_NULL, &handle),
                   "MPI_Comm_split_type", err));
    return mpi_wrap(handle, out, err);
}

/* A receive from every other rank, and an empty message to it, which nobody waits for. */
static enum status arrive_start(struct comm *base, MPI_Request *from, MPI_Request *to,
                                struct error *err)
{
    for (int i = 0; i < base->size; i++) {
        if (i == base->rank)
            continue;
        TRY(mpi_status(MPI_Irecv(NULL, 0, MPI_BYTE, i, COMM_TAG_ARRIVE, mpi_handle(base), &from[i]),
                       "MPI_Irecv", err));
        TRY(mpi_status(MPI_Isend(NULL, 0, MPI_BYTE, i, COMM_TAG_ARRIVE, mpi_handle(base), &to[i]),
                       "MPI_Isend", err));
    }
    return OK;
}

static enum status arrive_poll(struct comm *base, MPI_Request *from, bool *here, bool *all,
                               struct error *err)
{
    *all = true;
    for (int i = 0; i < base->size; i++) {
        int done = 1; /* a finished one is MPI_REQUEST_NULL from then on */
        if (i != base->rank)
            TRY(mpi_status(MPI_Test(&from[i], &done, MPI_STATUS_IGNORE), "MPI_Test", err));
        here[i] = done != 0;
        *all = *all && here[i];
    }
    return OK;
}

static enum status mpi_arrive(struct comm *base, int64_t ms, bool *here, struct error *err)
{
    int64_t start = clock_now_ns();
    MPI_Request *from = malloc(2 * (size_t)base->size * sizeof *from);
    bool all = false;
    if (!from)
        return error_set(err, ERR_NO_MEMORY, "no memory to wait for %d ranks", base->size);
    MPI_Request *to = from + base->size;
    for (int i = 0; i < base->size; i++)
        from[i] = to[i] = MPI_REQUEST_NULL;
    enum status st = arrive_start(base, from, to, err);
    while (st == OK) {
        st = arrive_poll(base, from, here, &all, err);
        if (st != OK || all || (ms > 0 && clock_now_ns() - start >= ms * 1000000))
            break;
        usleep(COMM_ARRIVE_PAUSE_US);
    }
    for (int i = 0; i < base->size; i++) {
        if (from[i] != MPI_REQUEST_NULL) {
            MPI_Cancel(&from[i]);
            MPI_Request_free(&from[i]);
        }
        if (to[i] != MPI_REQUEST_NULL)
            MPI_Request_free(&to[i]);
    }
    free(from);
    return st;
}

/* Does not return: the job ends. */
static void mpi_abort(struct comm *base, const char *why)
{
    log_error("rank %d aborts: %s", base->rank, why);
    MPI_Abort(mpi_handle(base), 1);
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .allreduce_f64 = mpi_allreduce_f64,
    .allgather = mpi_allgather,
    .broadcast = mpi_broadcast,
    .send = mpi_send,
    .recv = mpi_recv,
    .split = mpi_split,
    .split_node = mpi_split_node,
    .arrive = mpi_arrive,
    .abort = mpi_abort,
    .destroy = mpi_destroy,
};

/* MPI_Init_thread unless it has run; FUNNELED is the least that our threads need. */
static enum status mpi_start(struct error *err)
{
    int running, finished, level;
    TRY(mpi_status(MPI_Initialized(&running), "MPI_Initialized", err));
    TRY(mpi_status(MPI_Finalized(&finished), "MPI_Finalized", err));
    if (finished)
        return error_set(err, ERR_UNSUPPORTED, "MPI is finalized and cannot be started again");
    if (!running) {
        TRY(mpi_status(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "MPI_Init_thread",
                       err));
        mpi_initialised_here = true;
    }
    TRY(mpi_status(MPI_Query_thread(&level), "MPI_Query_thread", err));
    if (level < MPI_THREAD_FUNNELED)
        return error_set(err, ERR_UNSUPPORTED, "MPI has thread level %d, expected at least %d",
                         level, MPI_THREAD_FUNNELED);
    return mpi_status(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                      "MPI_Comm_set_errhandler", err);
}

enum status comm_mpi_world(struct comm **out, struct error *err)
{
    MPI_Comm handle;
    TRY(mpi_start(err));
    TRY(mpi_status(MPI_Comm_dup(MPI_COMM_WORLD, &handle), "MPI_Comm_dup", err));
    return mpi_wrap(handle, out, err);
}

void comm_mpi_finalize(void)
{
    if (mpi_initialised_here)
        MPI_Finalize();
    mpi_initialised_here = false;
}

#else

enum status comm_mpi_world(struct comm **out, struct error *err)
{
    (void)out;
    return error_set(err, ERR_UNSUPPORTED, "this build has no MPI (cmake -DWITAN_MPI=ON)");
}

void comm_mpi_finalize(void)
{
}

#endif
