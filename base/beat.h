/*
 * A thread's pulse: it counts what it does, for others to see that it gets on (worker/progress.h).
 */
#ifndef WITAN_BASE_BEAT_H
#define WITAN_BASE_BEAT_H

#include <stdatomic.h>

/* Where the calling thread counts; NULL, as at first: nowhere. Written by this thread alone, read
 * by any. */
extern _Thread_local atomic_ullong *beat_count;

static inline void beat(void)
{
    atomic_ullong *n = beat_count;
    if (n)
        atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

#endif
