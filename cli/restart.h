/*
 * When a group of `witan serve` that has ended is started again: the first time soon, then after
 * waits that double up to a bound, with jitter, until it has served for a while. Nothing is given
 * up: a machine that comes back after a day is served again.
 *
 * Pure; times are clock_now_ns()'s.
 */
#ifndef WITAN_CLI_RESTART_H
#define WITAN_CLI_RESTART_H

#include <stdbool.h>
#include <stdint.h>

enum {
    RESTART_FIRST_MS = 1000,
    RESTART_MOST_MS = 60000,
    RESTART_SOUND_MS = 60000, /* who served so long begins with the first wait again */
};

/* Of one group; zero at first. */
struct restart {
    bool served;      /* once, so that it can: what never did is not started again */
    int32_t tries;    /* ends since it was sound */
    int64_t ready_ns; /* since when it serves; 0: it does not */
    int64_t due_ns;   /* when to start it; 0: it is not to be */
    bool planned;     /* it was told to end, to be started again */
};

void restart_ready(struct restart *r, int64_t now_ns);

/* It has ended: notes when to start it and returns in how many milliseconds, half to all of the
 * wait, as `random` says; 0 after an end that was planned, which counts as no try. */
int32_t restart_plan(struct restart *r, int64_t now_ns, uint32_t random);

#endif
