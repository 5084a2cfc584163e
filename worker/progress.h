/*
 * How far a rank's engine thread has come, for its heartbeats: whoever watches tells a long step
 * from one that stands still. Written by the engine thread alone, read by the tick.
 */
#ifndef WITAN_WORKER_PROGRESS_H
#define WITAN_WORKER_PROGRESS_H

#include <stdatomic.h>
#include <stdint.h>

struct rank_progress {
    atomic_ullong count; /* grows with each layer, collective and phase, on CPUs each task too */
    atomic_int layer;    /* of the model, from 1: that the forward pass is in; 0: before the first;
                            one behind a stage's last: it has run them all */
    atomic_int meets;    /* in so many collectives: waits for other ranks, or moves their bytes */
};

static inline void progress_step(struct rank_progress *p)
{
    atomic_store_explicit(&p->count, atomic_load_explicit(&p->count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

static inline void progress_layer(struct rank_progress *p, int32_t layer)
{
    atomic_store_explicit(&p->layer, layer, memory_order_relaxed);
    progress_step(p);
}

/* by 1: a collective begins; by -1: it has ended. */
static inline void progress_meets(struct rank_progress *p, int by)
{
    atomic_store_explicit(&p->meets, atomic_load_explicit(&p->meets, memory_order_relaxed) + by,
                          memory_order_relaxed);
    progress_step(p);
}

#endif
