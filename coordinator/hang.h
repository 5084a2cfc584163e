/*
 * What heartbeats tell of a group that stands still: which rank is to blame, in one line for the
 * operator. Pure functions of what was heard; the caller passes the time.
 *
 * Time is that of a hang_clock, in which only the time counts that this process ran: whoever was
 * stopped itself (SIGSTOP, a suspended virtual machine, a callback that took long) has not listened
 * and accuses nobody. It comes of the monotonic clock, so the wall clock may jump.
 */
#ifndef WITAN_COORDINATOR_HANG_H
#define WITAN_COORDINATOR_HANG_H

#include "proto/cluster.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HANG_TICK_MS = 250,      /* how often hang_clock_now is to be called at least */
    HANG_MOST_MS = 500,      /* what passes between two calls counts as so much at most */
    HANG_BEATS = 4,          /* heartbeats in a step timeout, at least */
    HANG_MAX_BEAT_MS = 1000, /* between two heartbeats */
};

struct hang_clock {
    int64_t last_ns; /* of the last call; 0: there was none */
    int64_t ran_ns;
};

/* The clock's time, from 1 on. `now_ns`: clock_now_ns(). */
int64_t hang_clock_now(struct hang_clock *c, int64_t now_ns);

/* What is known of one rank. Times are a hang_clock's. */
struct hang_rank {
    uint32_t rank;
    const char *host; /* the owner's */
    uint64_t pid;
    int64_t heard_ns; /* its last heartbeat */
    int64_t moved_ns; /* the last one that told of progress */
    uint64_t progress, step;
    int phase;
    uint32_t layer;
    bool meets;
    bool busy; /* rank 0: sequences run */
};

/* Takes a heartbeat in. */
void hang_heard(struct hang_rank *r, const Witan__Cluster__V1__Heartbeat *h, int64_t now_ns);

/* How often ranks are to send one. */
uint32_t hang_beat_ms(int32_t timeout_s);

struct hang_rules {
    int64_t timeout_ns; /* without a heartbeat, or without progress in a step */
    int32_t layers;     /* of the model */
    bool stuck;         /* progress is looked at, and not heartbeats alone */
    bool everyone;      /* hang_silent is true of all ranks of all groups, on several hosts */
};

/* It has missed two heartbeats in a row: where others are accused, it is too. */
bool hang_silent(const struct hang_rank *r, int64_t timeout_ns, int64_t now_ns);

/* X(NAME, words): what is found of a group that stands still. */
#define HANG_KINDS(X)                                                                              \
    X(RANK_SILENT, "rank_silent")   /* stopped, its host down, or cut off from us */               \
    X(RANKS_SILENT, "ranks_silent") /* several: their hosts are */                                 \
    X(ALL_SILENT, "all_silent")     /* of all groups: our own host is cut off */                   \
    X(RANK_STUCK, "rank_stuck")     /* it computes, or its device does, without an end */          \
    X(RANK_BEHIND, "rank_behind")   /* it waits where the others have passed */                    \
    X(ALL_WAIT, "all_wait")         /* for each other: what they sent is lost */

enum hang_kind {
    HANG_NONE,
#define X(name, words) HANG_##name,
    HANG_KINDS(X)
#undef X
        HANG_KIND_COUNT,
};

/* "rank_silent"; `kind` is not HANG_NONE. */
const char *hang_kind_name(enum hang_kind kind);

/* Does the group of ranks[count] stand still? Then `why` says who is to blame. */
enum hang_kind hang_judge(const struct hang_rank *const *ranks, int32_t count,
                          const struct hang_rules *rules, int64_t now_ns, char *why, size_t size);

#endif
