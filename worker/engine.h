/*
 * One rank's engine: runs steps. Rank 0 schedules and speaks with its caller; every other rank
 * follows the step descriptions that rank 0 broadcasts. One thread a rank, the engine thread, calls
 * all of this.
 */
#ifndef WITAN_WORKER_ENGINE_H
#define WITAN_WORKER_ENGINE_H

#include "base/histogram.h"
#include "worker/model.h"
#include "worker/scheduler.h"

struct engine;

/* Where a rank is: in the forward pass, or waiting for the next step. */
enum engine_phase { ENGINE_WAITING, ENGINE_FORWARD };

struct engine_options {
    int32_t chunk;       /* most prompt tokens of one sequence a step; 0 = max_rows */
    int32_t vocab_limit; /* ids from here on are never drawn (padding); 0 = config.vocab */
    int32_t stall_ms;    /* as struct sched_options has it; 0 = no bound */
    bool no_prefix_cache;
    bool wipe; /* KV blocks are zeroed when nobody has them any more; the same on all ranks */
    int32_t speculate; /* tokens guessed ahead of each sequence a step; 0 = none */
    /* May be NULL. Called by the engine thread at the begin and end of each step. */
    void (*on_phase)(void *user, enum engine_phase phase);
    void *user;
};

/* Collective. The model stays the caller's. */
enum status engine_create(struct model *model, const struct engine_options *options,
                          struct engine **out, struct error *err);
void engine_destroy(struct engine *e);

/* Ranks other than 0: runs steps until rank 0 stops or parks. A parked rank waits outside the
 * transport, where waiting burns a core, until it has been told elsewhere that rank 0 is about to
 * run a step, and follows again. */
enum engine_left { ENGINE_STOPPED, ENGINE_PARKED };
enum status engine_follow(struct engine *e, enum engine_left *why, struct error *err);

/* Rank 0 only, from here on. */
enum status engine_submit(struct engine *e, const struct request *request, uint64_t *id,
                          struct error *err);
/* The tokens' bytes, without which no request may have a constraint; they become the engine's,
 * whatever happens. Those that it has been told first stay. ERR_UNSUPPORTED: this engine can keep
 * no constraint. */
enum status engine_words(struct engine *e, struct words *words, struct error *err);
/* Between steps, not from a request's callback. False when there is none of this id. */
bool engine_cancel(struct engine *e, uint64_t id);

/* Runs one step over all ranks; *ran is false, and no rank is bothered, when there is nothing to
 * do. */
enum status engine_step(struct engine *e, bool *ran, struct error *err);

/* Let the other ranks return from engine_follow: for good, or until the next step. */
enum status engine_stop(struct engine *e, struct error *err);
enum status engine_park(struct engine *e, struct error *err);

/* With sequences running or waiting the next engine_step runs a step. */
struct engine_load {
    int32_t running, waiting; /* sequences */
    int32_t kv_blocks_free, kv_blocks;
    int32_t kv_blocks_cached; /* of the free ones, those kept for their prefix */
};

void engine_load(const struct engine *e, struct engine_load *out);

struct engine_stats {
    uint64_t steps;
    uint64_t rows;
    uint64_t drawn;
    int64_t forward_ns;       /* in model_forward, which draws */
    struct sched_stats sched; /* rank 0: after its last step */
};

const struct engine_stats *engine_stats(const struct engine *e);

/* What an operator is shown of a rank: the above, and on rank 0 how its steps were. */
struct engine_figures {
    struct engine_stats stats;
    int64_t collective_ns; /* struct model's */
    int32_t kv_blocks_cached;
    struct histogram prompt_step, decode_step; /* seconds of steps, those that fed prompts apart */
    struct histogram sequences;                /* of a step */
    struct histogram overhead; /* seconds of a step that the forward pass had no part in */
    struct histogram queue;    /* seconds from submission to the first step; the caller's to fill */
};

void engine_figures(const struct engine *e, struct engine_figures *out);

#endif
