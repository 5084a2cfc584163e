/*
 * Collectives between GPUs by NCCL, behind the table of transport.h. Of the new communicators
 * all-reduce, all-gather, send and recv take memory of the rank's GPU and are put on its stream:
 * the buffers are the stream's until it has run so far, and what goes wrong there is found by who
 * waits for it, with nccl_watch. The rest is done by the inner communicator (`mpi`, `local`), over
 * the host's memory. Only this and transport/nccl.c know NCCL, which is opened when it is asked
 * for.
 *
 * Whatever fails between GPUs ends all of a rank's communicators (ncclCommAbort): every later
 * operation says why, with ERR_PEER. CUDA graphs that hold their operations are destroyed before
 * them: NCCL waits for that.
 */
#ifndef WITAN_TRANSPORT_NCCL_H
#define WITAN_TRANSPORT_NCCL_H

#include "transport/transport.h"

/* One rank's: the library, its GPU, all its communicators. */
struct nccl;

struct nccl_options {
    const char *library; /* a path; NULL: libnccl.so.2 from where the loader looks */
    void *stream;        /* CUDA's */
    /* Copied: the GPU's UUID, its model, and this machine (NULL: its name and boot). */
    const char *gpu, *gpu_model, *host;
    int64_t init_ms; /* until all ranks have arrived, and until an init has ended; 0: no bound */
    int64_t step_ms; /* that nccl_watch gives the stream; 0: no bound */
    /* NULL, or asked before each operation on device memory; false: it is not to be done now. */
    bool (*meet)(void *arg);
    void *arg;
};

/*
 * Collective over `world`, which lives longer: opens the library and sees whether NCCL can serve
 * these ranks. Their GPUs are the calling threads' current devices. The same answer for all, one
 * line that says what to do: ERR_NOT_FOUND and ERR_UNSUPPORTED where another transport may serve
 * (no library, an old or differing one, ranks that share a GPU, GPUs of several models); ERR_PEER
 * where a rank has not come.
 */
enum status nccl_create(struct comm *world, const struct nccl_options *options, struct nccl **out,
                        struct error *err);

/* After its communicators. */
void nccl_destroy(struct nccl *n);

/*
 * A communicator over the ranks of `inner`, which is the world or was split from it and lives
 * longer. Collective over the world: every rank makes its own, in the same order. `name` (static)
 * is for messages. Its init ends by the deadline or with the names of the ranks that it misses.
 * Thread: the rank's engine thread, which all its operations but abort are for too.
 */
enum status comm_nccl(struct nccl *n, struct comm *inner, const char *name, struct comm **out,
                      struct error *err);

/*
 * For a rank that has waited `waited_ms` for its stream to run `what`, by the thread of its
 * operations: OK, wait on; ERR_PEER: an operation on it has failed, or the deadline has passed.
 * Then all communicators of this rank are aborted, the stream runs out, and the message names
 * the ranks to look at.
 */
enum status nccl_watch(struct nccl *n, const char *what, int64_t waited_ms, struct error *err);

/* "2.28.9" */
const char *nccl_version(const struct nccl *n);

#endif
