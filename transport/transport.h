/*
 * Collectives between the ranks of one worker group, behind one table of functions: `local` (ranks
 * are threads of one process) and `mpi` (processes; those of one machine meet in its memory, see
 * meeting.h), and over these, for what lies on a device, `staged` and `nccl` (nccl.h). Only
 * worker/model.c, worker/moe.c and the engine's step hand-over call these.
 *
 * Contract, for every operation on a communicator:
 * - Collective: all its ranks call the same operations with the same sizes in the same order, each
 *   from one thread (the rank's engine thread). Sizes that differ are a broken invariant.
 * - Blocking; on return the buffers are the caller's again. `nccl`'s all-reduce, all-gather, send
 *   and recv return once they are on the device's stream, whose the buffers then are until it has
 *   run so far.
 * - After a failure (ERR_PEER: another rank aborted or died) the communicator and all its relatives
 *   are unusable; only comm_destroy is allowed.
 * - Allocates nothing after creation but what the library underneath does; a message of any size.
 *
 * All-reduce is of exact sums only: its callers add multiples of 2^-32 below 2^20 in fp64, where
 * addition is exact, so that no algorithm and no number of ranks changes a bit
 * (docs/architecture.md, "How the promise is kept").
 */
#ifndef WITAN_TRANSPORT_TRANSPORT_H
#define WITAN_TRANSPORT_TRANSPORT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

struct comm_ops {
    const char *name; /* "local", "mpi", "staged", "nccl" */
    /* x[count] becomes the sum over ranks, in place. */
    enum status (*allreduce_f64)(struct comm *c, double *x, size_t count, struct error *err);
    /* recv[size * bytes]: every rank's `bytes` bytes in rank order. `send` may not overlap recv. */
    enum status (*allgather)(struct comm *c, const void *send, size_t bytes, void *recv,
                             struct error *err);
    /* x[bytes] of rank `root` to all. */
    enum status (*broadcast)(struct comm *c, int root, void *x, size_t bytes, struct error *err);
    /* Point to point, matched in order between one pair; sizes must agree. */
    enum status (*send)(struct comm *c, int to, const void *x, size_t bytes, struct error *err);
    enum status (*recv)(struct comm *c, int from, void *x, size_t bytes, struct error *err);
    /* Collective: ranks with equal `color` form a new communicator, ordered by (key, old rank). */
    enum status (*split)(struct comm *c, int color, int key, struct comm **out, struct error *err);
    /* Collective: the ranks that share one machine's memory form a new communicator each, in their
     * order. */
    enum status (*split_node)(struct comm *c, struct comm **out, struct error *err);
    /* Collective, and not held up by a rank that does not come: waits until all ranks have called
     * it or `ms` have passed (0: without end), polling. here[size] says which had. Where one had
     * not, only arrive, abort and destroy are left. Not for steps: it may allocate. */
    enum status (*arrive)(struct comm *c, int64_t ms, bool *here, struct error *err);
    /* NULL: no. See comm_capturable. */
    bool (*capturable)(const struct comm *c);
    /* Wakes every rank of the group with ERR_PEER (`local`) or ends the job (`mpi`). Not
     * collective; any thread of this rank. `why` is printed with the rank. */
    void (*abort)(struct comm *c, const char *why);
    /* Releases this rank's handle. Children before parents. */
    void (*destroy)(struct comm *c);
};

/* First member of every implementation's communicator. */
struct comm {
    const struct comm_ops *ops;
    int rank;
    int size;
};

/* What a rank's thread runs under comm_local_run. `world` belongs to the runner. */
typedef enum status (*comm_rank_fn)(struct comm *world, void *arg, struct error *err);

/*
 * Runs `fn` on `size` threads (1..1024), one a rank, rank 0 on the calling thread, and waits for
 * all. Returns OK, or the status of the rank that failed first with its message ("rank 3: ..." but
 * for rank 0). A rank that returns an error aborts the others' waits, so that no thread is left
 * behind.
 */
enum status comm_local_run(int size, comm_rank_fn fn, void *arg, struct error *err);

/*
 * The world of this MPI job (MPI_Init_thread on first use). *out is destroyed before
 * comm_mpi_finalize. Without MPI in the build: ERR_UNSUPPORTED.
 */
enum status comm_mpi_world(struct comm **out, struct error *err);

/* MPI_Finalize, where comm_mpi_world has initialised it. Collective. */
void comm_mpi_finalize(void);

/*
 * Collective: every rank gives the status of what it just did alone; all return OK, or the status
 * and message of the lowest rank that failed ("rank 3: ..." where another rank's). For errors
 * between collectives, so that one bad rank does not leave the others waiting in the next one.
 */
enum status comm_agree(struct comm *c, enum status mine, struct error *err);

/*
 * Collective over ranks of one machine (split_node): `bytes` of zeroed memory at a page's border
 * that all of them see. ERR_UNSUPPORTED, for all, where a rank may not open what another made (its
 * process is another user's or hidden from it). Each rank gives its own mapping back with
 * comm_unshare, which is not collective; the memory goes with the last.
 */
struct shared_memory {
    void *at;
    size_t bytes; /* mapped: some more than asked for */
};

enum status comm_share(struct comm *node, size_t bytes, struct shared_memory *out,
                       struct error *err);
void comm_unshare(struct shared_memory *m);

/*
 * A device's memory by way of the host's: all-reduce, all-gather, send and recv of the new
 * communicator take pointers that `get` and `put` understand and go in pieces through `buffer`, one
 * at a time; the rest is inner's. `get` comes after all work on what it reads. Inner stays its
 * owner's and lives longer. Not collective.
 */
struct comm_stage {
    /* Before any of them; false: it is not to be done now (worker/kernels.h, meet). */
    bool (*meet)(void *arg);
    enum status (*get)(void *arg, void *to, const void *from, size_t bytes, struct error *err);
    enum status (*put)(void *arg, void *to, const void *from, size_t bytes, struct error *err);
    void *arg;
    void *buffer; /* of the host */
    size_t bytes; /* of it: a multiple of 8, and of at least 8 for each rank and one more */
};

enum status comm_staged(struct comm *inner, const struct comm_stage *stage, struct comm **out,
                        struct error *err);

/* A rank by itself, for what needs nothing of a communicator but the shorthands below, comm_agree
 * and comm_share; not destroyed. */
static inline struct comm comm_alone(void)
{
    return (struct comm){.ops = NULL, .rank = 0, .size = 1};
}

/* Shorthands; a communicator of one rank does no work in any of them. */
static inline enum status comm_allreduce_f64(struct comm *c, double *x, size_t count,
                                             struct error *err)
{
    return c->size == 1 ? OK : c->ops->allreduce_f64(c, x, count, err);
}

static inline enum status comm_broadcast(struct comm *c, int root, void *x, size_t bytes,
                                         struct error *err)
{
    return c->size == 1 ? OK : c->ops->broadcast(c, root, x, bytes, err);
}

/* All-reduce, all-gather, send and recv do nothing but put work on their device's stream, so that a
 * graph of that stream may hold them. */
static inline bool comm_capturable(const struct comm *c)
{
    return c->size == 1 || (c->ops->capturable && c->ops->capturable(c));
}

#endif
