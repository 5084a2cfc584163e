/*
 * What a rank's heartbeats say of its GPU: kept for `witan status`, and log lines for what an
 * operator must know at once: clocks held down by power or heat, memory errors, and the driver's
 * error reports (Xid). Owned by a member; the loop thread's.
 */
#ifndef WITAN_COORDINATOR_GPUS_H
#define WITAN_COORDINATOR_GPUS_H

#include "proto/cluster.pb-c.h"
#include "proto/inference.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    GPU_FIGURES = 9,       /* kinds that this release knows: 0 to here */
    GPU_MAX_XIDS = 16,     /* of a heartbeat; the last ones */
    GPU_WARN_EVERY_S = 60, /* clocks that go up and down are told of once in so long */
};

struct gpu_view {
    bool has[GPU_FIGURES];
    double value[GPU_FIGURES];
    uint32_t xids[GPU_MAX_XIDS]; /* the last, oldest first */
    int32_t xids_held;
    uint64_t xid_count;
    bool held_down;    /* clocks, at the last heartbeat */
    int64_t warned_ns; /* of clocks; 0: never */
    double errors;     /* uncorrected, of which has been told */
    bool errors_known;
};

/* `who` names the rank in log lines; `gpu` NULL: the heartbeat says nothing of one. Kinds that are
 * not known, and values that are no figures (below 0, above 1e15), are left out. */
void gpu_heard(struct gpu_view *v, const char *who, const Witan__Cluster__V1__Gpu *gpu,
               int64_t now_ns);

/* Into a status, which owns what is added. */
void gpu_put(const struct gpu_view *v, Witan__Inference__V1__Rank *out);

#endif
