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
    RESTART_HEARD_MS = 30000, /* to hear of ranks that were started again, at least */
};

/* Of one group; zero at first. */
struct restart {
    bool served;      /* once, so that it can: what never did is not started again */
    int32_t tries;    /* ends since it was sound */
    int64_t ready_ns; /* since when it serves; 0: it does not */
    int64_t due_ns;   /* when to start it; 0: it is not to be */
    bool planned;     /* it was told to end, to be started again */
    int64_t begun_ns; /* when it was started; 0: its ranks have been heard of since, or it ended */
    int64_t heard_ms; /* the longest that its ranks took to be there; 0: they never were */
    int32_t unheard;  /* starts in a row of which nothing was heard in time */
};

void restart_ready(struct restart *r, int64_t now_ns);

/* It was started; and its ranks are there. */
void restart_begun(struct restart *r, int64_t now_ns);
void restart_heard(struct restart *r, int64_t now_ns);

/* How long a start may take until its ranks are heard of, at most `most_ms`: a launcher that meets
 * a network just cut can wait for ever. Four times what they took before, doubled for each start in
 * a row of which nothing was heard; `most_ms` while nothing is known. */
int64_t restart_patience_ms(const struct restart *r, int64_t most_ms);

/* It has ended: notes when to start it and returns in how many milliseconds, half to all of the
 * wait, as `random` says; 0 after an end that was planned, which counts as no try. */
int32_t restart_plan(struct restart *r, int64_t now_ns, uint32_t random);

#endif
