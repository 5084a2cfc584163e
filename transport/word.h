/*
 * A number that threads or processes wait on: they look at it for a while, then let others have the
 * core, then sleep. Kept by who waits and who changes it; `local` and `meeting` are.
 */
#ifndef WITAN_TRANSPORT_WORD_H
#define WITAN_TRANSPORT_WORD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { WORD_LINE = 64 }; /* bytes of a cache line */

/* Zeroes to begin with. */
struct word {
    _Atomic uint32_t value;
    _Atomic uint32_t sleepers; /* who may be inside futex wait: spares the wake-up call */
};

/* How long a wait looks at its word before it sleeps. */
struct word_patience {
    int spins;  /* pauses of some 40 ns */
    int yields; /* of about 0.3 us where no other thread wants the core */
};

/* For so many ranks on so many cores. */
struct word_patience word_patience(int ranks, int cores);

/* Waits until the value is not `seen`, and asleep for no longer than `ms` (0: without end); returns
 * what it is then. `shared`: who changes it may be another process. Any thread. */
uint32_t word_wait(struct word *w, uint32_t seen, struct word_patience p, bool shared, int ms);

/* After a change of the value that is sequentially consistent. */
void word_wake(struct word *w, bool shared);

#endif
