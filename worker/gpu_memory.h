/*
 * What a rank's GPU must hold, against what it has: refused before anything is allocated there, and
 * the KV cache sized when everything else is. Ranks of a machine that share a GPU share its memory
 * evenly. For the rank's engine thread.
 */
#ifndef WITAN_WORKER_GPU_MEMORY_H
#define WITAN_WORKER_GPU_MEMORY_H

#include "worker/model.h"

/* X(field, words): a rank's memory on its GPU by purpose, in bytes. */
#define GPU_PURPOSES(X)                                                                            \
    X(weights, "weights")                                                                          \
    X(kv_cache, "KV cache")                                                                        \
    X(activations, "activations")                                                                  \
    X(batch, "batch, tables and sampling")                                                         \
    X(logits, "logits")                                                                            \
    X(partial, "attention partials")                                                               \
    X(fast, "fast products")

struct gpu_need {
#define X(field, words) uint64_t field;
    GPU_PURPOSES(X)
#undef X
};

/* What the rank will allocate; limits->kv_blocks 0: a KV cache of one full context, the least. */
struct gpu_need gpu_need_of(const struct cuda_plugin *cuda, const struct model_config *config,
                            const struct inventory *inv, const struct plan *plan,
                            const struct rank_plan *rank, const struct engine_limits *limits);
uint64_t gpu_need_total(const struct gpu_need *n);

/*
 * Opens m->device and compares the needs of all ranks on it, as limits->gpu_percent allows, with
 * what is free. ERR_NO_MEMORY: the needs by purpose, and what would fit. Fills m->memory_plan.
 * Collective over m->world.
 */
enum status gpu_memory_check(struct model *m, const struct inventory *inv, struct error *err);

/*
 * When all but the KV cache is allocated: fills m->limits.kv_blocks, where it is 0, with what is
 * left of the GPUs, at most max_seqs full contexts, the same on all ranks, and logs where every
 * byte is. ERR_NO_MEMORY where not one full context is left. Collective over m->world.
 */
enum status gpu_memory_size_cache(struct model *m, struct error *err);

#endif
