/*
 * What a group's energy went to: its requests, the time between steps, and the rest. Ranks count
 * (Energy in cluster.proto); rank 0 says of each request what its share of the steps' time was; the
 * energy of steps goes to requests by these shares (docs/decisions.md, 106).
 *
 * Rank 0's processors are read at the end of each step, others and GPUs about once a second: in
 * between a counter is taken to go on as it did, a step's second like another, and what it then
 * turns out to differ by is in the price of the steps that follow, by which none costs more than
 * twice or less than half of what was expected. So at any time
 *
 *   all = requests + idle + other + pending
 *
 * to rounding, with `pending` small: below 0 where steps were told before ranks had counted.
 *
 * Of one group; the loop thread's.
 */
#ifndef WITAN_COORDINATOR_JOULES_H
#define WITAN_COORDINATOR_JOULES_H

#include "proto/cluster.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* One counter of a rank. */
struct joules_source {
    bool counts, begun, rated;
    double all, steps; /* as last heard */
    double since;      /* of steps, since `at` */
    double at;         /* seconds of steps that had been told then */
    double rate;       /* joules a second of steps, before `at` */
};

struct joules_rank {
    bool known; /* it has said what it counts, the last time too */
    struct joules_source host, gpu;
};

struct joules {
    struct joules_rank *ranks; /* [world]; owned */
    int32_t world;
    double seconds; /* of steps, as shares told */
    double all, idle, requests, other, pending;
    bool any; /* this group has been metered */
};

void joules_init(struct joules *j, int32_t world);
void joules_fini(struct joules *j);

/* `e` NULL: not known. `host_share`: what part of its host's processors is this group's, others
 * having the rest. Figures that are no figures (below the last, above 1e15) begin anew. */
void joules_heard(struct joules *j, int32_t rank, const Witan__Cluster__V1__Energy *e,
                  double host_share);

/* Before any of it is told: fills `metered` and `joules` of each sequence of what rank 0 says. */
void joules_step(struct joules *j, Witan__Cluster__V1__Tokens *t, double host_share);

/* And after: did a request take it? */
void joules_told(struct joules *j, const Witan__Cluster__V1__SequenceTokens *s, bool taken);

/* Do all ranks say what they count? */
bool joules_known(const struct joules *j);

/* The rank's stream has ended; what it says next, if it comes again, is counted from there. */
void joules_gone(struct joules *j, int32_t rank);

/* The group is lost: nobody tells what its last steps were for. */
void joules_lost(struct joules *j);

#endif
