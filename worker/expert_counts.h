/*
 * How many tokens each expert of a rank's layers was given since the rank was loaded, whatever they
 * were fed for: prompts, tokens drawn and fed back, what a preemption has computed again. All ranks
 * of a stage route alike, so the first of each counts for all. Written by the engine thread alone,
 * read by any: a reader may see one layer a step ahead of the next.
 */
#ifndef WITAN_WORKER_EXPERT_COUNTS_H
#define WITAN_WORKER_EXPERT_COUNTS_H

#include "partition/plan.h"

#include <stdatomic.h>

enum { EXPERT_COUNTS_MAX = 1 << 16 }; /* that are kept, and told the coordinator */

struct expert_counts {
    struct range layers;   /* of the model */
    int32_t experts;       /* of a layer; those of dense layers stay at 0 */
    atomic_ullong *tokens; /* [layers][experts]; owned */
};

/* *out is NULL where this rank is to count none: it is not its stage's first, has no layer with
 * experts, or there are more than EXPERT_COUNTS_MAX. */
enum status expert_counts_create(const struct model_config *config, const struct plan *plan,
                                 const struct rank_plan *rank, struct expert_counts **out,
                                 struct error *err);
void expert_counts_destroy(struct expert_counts *c); /* NULL is fine */

/* Counts; for `out` of expert_counts_read. */
static inline int32_t expert_counts_size(const struct expert_counts *c)
{
    return range_size(c->layers) * c->experts;
}

/* chosen[choices]: experts of rows in a layer, of this rank's from 0. */
void expert_counts_add(struct expert_counts *c, int32_t layer, const int32_t *chosen,
                       int32_t choices);

/* Copies all into out[expert_counts_size] and returns their sum. */
uint64_t expert_counts_read(const struct expert_counts *c, uint64_t *out);

#endif
