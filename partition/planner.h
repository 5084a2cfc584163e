/*
 * Which layouts a model can have on a cluster, what each needs and carries, and which come first.
 * Pure: from the config and the cluster's numbers alone. Any thread; a survey does not change once
 * made.
 *
 * Devices are numbered node by node; replica g of a layout takes devices [g * ranks, (g + 1) *
 * ranks), in the order of its ranks.
 */
#ifndef WITAN_PARTITION_PLANNER_H
#define WITAN_PARTITION_PLANNER_H

#include "partition/plan.h"

enum { PLANNER_MAX_NEAREST = 4 };

struct cluster_shape {
    int32_t nodes;
    int32_t devices;       /* of one node; nodes x devices at most MAX_WORLD */
    uint64_t memory_bytes; /* that a rank may fill on one device; 0 = not known, all fits */
};

struct planner_wish {
    struct layout layout; /* pp, tp, ep to keep; 0 = any */
    bool all;             /* also layouts that leave devices idle or straddle nodes */
    int32_t sequences;    /* to run at once, over all replicas */
    int32_t context;      /* tokens of each */
    int32_t step_tokens;  /* tokens of one step of a replica */
    int32_t threads;      /* compute threads of a rank */
    enum kv_dtype kv_dtype;
};

/* One rank's memory, its KV cache for the replica's share of the sequences. */
struct planner_rank {
    struct memory_plan memory;
    int64_t sequences; /* of whole contexts that fit beside the rest; INT64_MAX where not known */
};

struct planner_layout {
    struct layout layout;
    int32_t replicas;
    int32_t share;            /* sequences of a replica */
    int32_t fullest;          /* the rank that needs most */
    struct planner_rank rank; /* its memory; `sequences` is the least of all ranks */
    bool fits;                /* every rank holds its share */
    int32_t calls;            /* collectives of a step, over all stages */
    int32_t calls_cross;      /* those between nodes */
    uint64_t bytes_a_row;     /* payload of all of them for one row of the batch */
    bool tp_crosses;          /* attention's all-reduce goes between nodes */
};

struct planner_refusal {
    struct layout layout;
    char why[LAYOUT_WHY_BYTES];
    struct layout nearest[PLANNER_MAX_NEAREST]; /* legal ones of as many ranks or fewer */
    int nearest_count;
};

struct survey {
    struct planner_layout *layouts; /* owned: those that fit first, then by collectives between
                                     * nodes (fewest), sequences (most), collectives (fewest) */
    int32_t layout_count;
    struct planner_refusal *refusals; /* owned */
    int32_t refusal_count;
};

/* A replica's limits under the wish: the share, and rows for it. */
struct engine_limits planner_limits(const struct planner_wish *wish, int32_t replicas);

/* What a rank needs, and how many contexts fit. */
struct planner_rank planner_rank_of(const struct model_config *config, const struct inventory *inv,
                                    const struct plan *plan, const struct rank_plan *rank,
                                    const struct engine_limits *limits,
                                    const struct cluster_shape *cluster);

/* Does a collective of this rank leave its node in any of the replicas? */
bool planner_crosses(const struct plan *plan, const struct rank_plan *rank, enum plan_comm comm,
                     const struct cluster_shape *cluster, int32_t replicas);

/* One layout on the cluster; ERR_INVALID as layout_check says, or when it has more ranks than there
 * are devices. Where `plan_out` is not NULL it gets the sketch (plan_destroy). */
enum status planner_layout_of(const struct model_config *config, const struct inventory *inv,
                              const struct cluster_shape *cluster, const struct planner_wish *wish,
                              struct layout layout, struct planner_layout *out,
                              struct plan **plan_out, struct error *err);

/* All layouts with w = max(tp, ep) that the wish leaves open, on all devices: replicas fill them.
 */
enum status planner_survey(const struct model_config *config, const struct inventory *inv,
                           const struct cluster_shape *cluster, const struct planner_wish *wish,
                           struct survey **out, struct error *err);
void survey_destroy(struct survey *s);

#endif
