/*
 * A rank that computes slower than those that do the same work: a processor held down by heat, a
 * neighbour on its cores, memory in the wrong place. All steps of its group wait for it. Pure
 * functions; times are a hang_clock's (hang.h).
 */
#ifndef WITAN_COORDINATOR_SLOW_H
#define WITAN_COORDINATOR_SLOW_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SLOW_WINDOW_S = 5,  /* figures of so long are compared */
    SLOW_STEPS = 4,     /* a window with fewer says nothing */
    SLOW_AFTER_S = 30,  /* of windows one after another before the operator is told, */
    SLOW_EVERY_S = 60,  /* and then so often */
    SLOW_PERCENT = 150, /* of the median */
};

/* What a rank's heartbeats have said so far: seconds of the forward pass outside collectives. */
struct slow_sample {
    double compute_s;
    uint64_t steps;
};

struct slow_rank {
    struct slow_sample begin; /* of the window */
    bool begun;
    double step_s;   /* of computing a step, in the last window */
    double ratio;    /* to the median of its peers; 0: not known */
    int64_t slow_ns; /* since when it has been above SLOW_PERCENT; 0: it is not */
    int64_t told_ns; /* 0: never */
};

/* A window has ended: `now` are the figures of all count ranks that do the same work, at most
 * MAX_WORLD. */
void slow_window(struct slow_rank *const *ranks, const struct slow_sample *now, int32_t count,
                 int64_t now_ns);

/* Is the operator to be told of it now? Counts as told. */
bool slow_tell(struct slow_rank *r, int64_t now_ns);

#endif
