/*
 * The MPI transport: ranks are processes that mpirun has started. The only file that sees mpi.h.
 *
 * State: whether comm_mpi_world has initialised MPI, of the main thread. Every rank calls MPI from
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

struct mpi_comm {
    struct comm base;
    MPI_Comm handle; /* owned */
};

static const struct comm_ops mpi_ops;
static bool mpi_initialised_here;

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

static enum status mpi_allreduce_f64(struct comm *base, double *x, size_t count, struct error *err)
{
    const size_t piece = COMM_PIECE_BYTES / sizeof *x;
    for (size_t at = 0; at < count; at += piece) {
        int n = (int)(count - at < piece ? count - at : piece);
        TRY(mpi_status(
            MPI_Allreduce(MPI_IN_PLACE, x + at, n, MPI_DOUBLE, MPI_SUM, mpi_handle(base)),
            "MPI_Allreduce", err));
    }
    return OK;
}

static enum status mpi_broadcast(struct comm *base, int root, void *x, size_t bytes,
                                 struct error *err)
{
    unsigned char *p = x;
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

/* Takes `handle` over, also on failure. */
static enum status mpi_wrap(MPI_Comm handle, struct comm **out, struct error *err)
{
    enum status st;
    struct mpi_comm *c = malloc(sizeof *c);
    if (!c) {
        st = error_set(err, ERR_NO_MEMORY, "no memory for a communicator");
        goto fail;
    }
    *c = (struct mpi_comm){.base.ops = &mpi_ops, .handle = handle};
    st = mpi_status(MPI_Comm_set_errhandler(handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler",
                    err);
    if (st == OK)
        st = mpi_status(MPI_Comm_rank(handle, &c->base.rank), "MPI_Comm_rank", err);
    if (st == OK)
        st = mpi_status(MPI_Comm_size(handle, &c->base.size), "MPI_Comm_size", err);
    if (st != OK)
        goto fail;
    *out = &c->base;
    return OK;
fail:
    free(c);
    MPI_Comm_free(&handle);
    return st;
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

static void mpi_destroy(struct comm *base)
{
    struct mpi_comm *c = (struct mpi_comm *)base;
    if (!c)
        return;
    MPI_Comm_free(&c->handle);
    free(c);
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
