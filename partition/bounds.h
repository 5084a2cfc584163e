/*
 * What a step must at least do on one rank: the bytes that must come from its memory and the
 * operations of its matrix products. Divided by what the machine gives, the larger is the time that
 * no engine goes below. Pure; any thread.
 */
#ifndef WITAN_PARTITION_BOUNDS_H
#define WITAN_PARTITION_BOUNDS_H

#include "partition/plan.h"

struct step_shape {
    int64_t rows;      /* tokens fed */
    int64_t sequences; /* that they belong to */
    double depth;      /* positions that a row attends to, on average */
    double cached;     /* positions that each sequence has at the end of the step */
    int64_t logits;    /* rows that want logits */
};

struct step_bounds {
    double bytes;
    double flops; /* two a multiply-add */
};

/* `rows` sequences of one token each, after `depth` positions. */
static inline struct step_shape step_decode(int64_t rows, double depth)
{
    return (struct step_shape){rows, rows, depth, depth, rows};
}

/* A prompt in one step. */
static inline struct step_shape step_prefill(int64_t tokens)
{
    return (struct step_shape){tokens, 1, 0.5 * (double)(tokens + 1), (double)tokens, 1};
}

/*
 * Weights once, as plan_memory counts them, but of the embedding the rows' own, and of experts as
 * many as rows that choose top_k at random and independently are expected to meet: all x (1 - (1 -
 * top_k / experts)^rows). The KV cache of every sequence once. Activations are not counted.
 */
struct step_bounds plan_bounds(const struct model_config *config, const struct inventory *inv,
                               const struct rank_plan *rank, enum kv_dtype kv_dtype,
                               const struct step_shape *step);

#endif
