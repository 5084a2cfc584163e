/*
 * What has happened to groups of late: losses, drains, restarts, readiness. The last EVENTS_KEPT of
 * them, for the operator's view. A plain struct of fixed size; the loop thread's.
 */
#ifndef WITAN_COORDINATOR_EVENTS_H
#define WITAN_COORDINATOR_EVENTS_H

#include <stdint.h>

enum { EVENTS_KEPT = 64 };

struct event_told {
    uint64_t number;  /* 1, 2, ... of this coordinator */
    int64_t unix_s;   /* when */
    char group[64];   /* whose; cut where it is longer */
    char what[24];    /* "ready", "lost", "drained", ... */
    char words[1024]; /* why, or more of it; "" */
};

/* All zero: none yet. */
struct events {
    uint64_t count; /* told since the start */
    struct event_told ring[EVENTS_KEPT];
};

/* Takes the place of the oldest where all are full. Texts are copied, and cut. */
void events_tell(struct events *e, const char *group, const char *what, const char *words);

/* How many there are, and the i-th of them, the oldest first. */
uint32_t events_kept(const struct events *e);
const struct event_told *events_at(const struct events *e, uint32_t i);

#endif
