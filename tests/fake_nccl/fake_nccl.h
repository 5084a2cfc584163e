/*
 * What tests tell the NCCL that they made up (fake_nccl.c): `fake_nccl` of the opened library
 * returns the one struct fake_nccl. Set before a run; counters are read after it.
 */
#ifndef WITAN_TESTS_FAKE_NCCL_H
#define WITAN_TESTS_FAKE_NCCL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct fake_nccl {
    int version;
    int polls;       /* an init or operation stays in progress for so many polls */
    bool init_hangs; /* no init ends */
    bool id_fails;   /* no identifier is made */
    bool finalize_hangs;
    bool sums_wrong;   /* by one */
    bool record_fails; /* what is recorded is refused */
    int patience_ms;   /* until an operation that others do not join fails */
    /* What befalls the operations of rank `at_rank` of a communicator (-1: of all) from number
     * `at` on, counted by communicator: */
    int at_rank, at;
    bool stream_hangs; /* they are never done: busy() */
    bool never_queued; /* they stay in progress */
    int async_error;   /* an ncclResult_t; 0: none. They seem to work, and are found by polling */
    _Atomic bool
        abort_waits; /* an abort does not return until this is false, as with graphs that live */
    /* NULL, or where the calling thread's stream is recorded: keeps a copy of the argument, has
     * the function called with it at each run and returns true. */
    bool (*record)(int (*fn)(const void *arg), const void *arg, size_t bytes);
    /* Of the communicators that this thread made: will an operation never be done? */
    bool (*busy)(void);
    _Atomic int inits, operations, destroyed, aborted;
};

#endif
