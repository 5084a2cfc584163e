/*
 * One rank's engine: runs steps. Rank 0 schedules and speaks with its caller; every other rank
 * follows the step descriptions that rank 0 broadcasts. One thread a rank, the engine thread, calls
 * all of this.
 */
#ifndef WITAN_WORKER_ENGINE_H
#define WITAN_WORKER_ENGINE_H

#include "worker/model.h"
#include "worker/scheduler.h"

struct engine;

struct engine_options {
    int32_t chunk;       /* most prompt tokens of one sequence a step; 0 = max_rows */
    int32_t vocab_limit; /* ids from here on are never drawn (padding); 0 = config.vocab */
};

/* Collective. The model stays the caller's. */
enum status engine_create(struct model *model, const struct engine_options *options,
                          struct engine **out, struct error *err);
void engine_destroy(struct engine *e);

/* Ranks other than 0: runs steps until rank 0 stops. */
enum status engine_follow(struct engine *e, struct error *err);

/* Rank 0 only, from here on. */
enum status engine_submit(struct engine *e, const struct request *request, uint64_t *id,
                          struct error *err);
/* Between steps, not from a request's callback. False when there is none of this id. */
bool engine_cancel(struct engine *e, uint64_t id);

/* Runs one step over all ranks; *ran is false, and no rank is bothered, when there is nothing to
 * do. */
enum status engine_step(struct engine *e, bool *ran, struct error *err);

/* Lets the other ranks return from engine_follow. */
enum status engine_stop(struct engine *e, struct error *err);

struct engine_stats {
    uint64_t steps;
    uint64_t rows;
    uint64_t drawn;
    int64_t forward_ns; /* in model_forward */
    int64_t draw_ns;    /* in the sampler */
};

const struct engine_stats *engine_stats(const struct engine *e);

#endif
