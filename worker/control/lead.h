/*
 * What ranks do between Ready and the end, on their engine threads: rank 0 leads, the others
 * follow.
 *
 * Parking: a rank that waits inside the transport burns a core. So when rank 0 has had nothing to
 * do for LEAD_IDLE_MS it parks all ranks (STEP_PARK), and they wait outside: rank 0 for commands,
 * the others for the Wake that rank 0 asks the coordinator to send before it runs its next step.
 * All start parked. Wakes are numbered from 1: the one after n parks has a number above n, whatever
 * the order in which parks and wakes reach a rank.
 */
#ifndef WITAN_WORKER_CONTROL_LEAD_H
#define WITAN_WORKER_CONTROL_LEAD_H

#include "worker/control/attach.h"
#include "worker/engine.h"

enum {
    /* Waking costs a rank two hops over the coordinator, some hundred microseconds; waiting ten
     * milliseconds for the next request of a busy group costs little power. */
    LEAD_IDLE_MS = 10,
};

/*
 * Each returns OK after a Stop in order. `lost`: the stream has ended, and `err` says why; then
 * every request has been ended, this rank is parked, waits for nobody and can lead or follow again
 * on another stream. `world`: ranks. `parks`: of this rank so far, 0 at first; counted on.
 */
enum status lead(struct attach *a, struct engine *e, const struct engine_limits *limits, int world,
                 uint64_t *parks, bool *lost, struct error *err);
enum status follow(struct attach *a, struct engine *e, uint64_t *parks, bool *lost,
                   struct error *err);

#endif
