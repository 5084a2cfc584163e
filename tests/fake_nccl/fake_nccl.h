/*
 * What tests tell the NCCL that they made up (fake_nccl.c): `fake_nccl` of the opened library
 * returns the one struct fake_nccl. Set before a run; counters are read after it.
 */
#ifndef WITAN_TESTS_FAKE_NCCL_H
#define WITAN_TESTS_FAKE_NCCL_H

#include <stdatomic.h>
#include <stdbool.h>

struct fake_nccl {
    int version;
    int polls;       /* an init or operation stays in progress for so many polls */
    bool init_hangs; /* no init ends */
    bool id_fails;   /* no identifier is made */
    bool finalize_hangs;
    int patience_ms; /* until an operation that others do not join fails */
    /* What befalls the operations of rank `at_rank` of a communicator (-1: of all) from number
     * `at` on, counted by communicator: */
    int at_rank, at;
    bool stream_hangs; /* they are never done: busy() */
    bool never_queued; /* they stay in progress */
    int async_error;   /* an ncclResult_t; 0: none. They seem to work, and are found by polling */
    /* Of this thread's communicators: is there an operation that will never be done? */
    bool (*busy)(void);
    _Atomic int inits, operations, destroyed, aborted;
};

#endif
