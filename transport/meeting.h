/*
 * Collectives between ranks that see the same memory: threads, or processes of one machine
 * (comm_share). `mpi` meets here where all ranks of a communicator are of one machine.
 *
 * The contract is transport.h's: collective, one thread a rank, the same sizes in the same order,
 * nothing allocated by a call, a message of any size (in pieces). A rank that waits looks, yields,
 * then sleeps. Who waits for a process that has ended learns it within seconds: ERR_PEER.
 */
#ifndef WITAN_TRANSPORT_MEETING_H
#define WITAN_TRANSPORT_MEETING_H

#include "base/error.h"

#include <stddef.h>

enum { MEETING_MAX_RANKS = 1024 };

/* One rank's handle. */
struct meeting;

/* The memory that so many ranks meet in: 1 MiB and a little for two, at most 16 MiB and a little
 * for as many as there may be. */
size_t meeting_bytes(int size);

/*
 * `at`: `bytes` of zeroed memory at a page's border that is all ranks' and no one else's, mapped
 * until meeting_destroy; less than meeting_bytes makes pieces shorter. Not collective. `idle` (may
 * be NULL) is called with `arg` now and then while a wait is long, by the thread that waits.
 */
enum status meeting_create(void *at, size_t bytes, int rank, int size, void (*idle)(void *arg),
                           void *arg, struct meeting **out, struct error *err);

/* Collective, once, before all else: waits until all ranks are here. */
enum status meeting_start(struct meeting *m, struct error *err);

enum status meeting_allreduce_f64(struct meeting *m, double *x, size_t count, struct error *err);
enum status meeting_allgather(struct meeting *m, const void *send, size_t bytes, void *recv,
                              struct error *err);
/* The root does not wait until the others have it. */
enum status meeting_broadcast(struct meeting *m, int root, void *x, size_t bytes,
                              struct error *err);

/* Not collective. The memory stays its owner's. NULL is allowed. */
void meeting_destroy(struct meeting *m);

#endif
