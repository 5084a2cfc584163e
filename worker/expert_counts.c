/* Tokens of each expert: see expert_counts.h. No other state. */
#include "worker/expert_counts.h"

#include <stdlib.h>

static bool counts_here(const struct model_config *config, const struct plan *plan,
                        const struct rank_plan *rank)
{
    bool any = false;
    for (int32_t i = rank->layers.begin; i < rank->layers.end; i++)
        any |= config->layer_is_moe[i] != 0;
    return any && rank->rank % plan->layout.w == 0 &&
           (int64_t)range_size(rank->layers) * config->experts <= EXPERT_COUNTS_MAX;
}

enum status expert_counts_create(const struct model_config *config, const struct plan *plan,
                                 const struct rank_plan *rank, struct expert_counts **out,
                                 struct error *err)
{
    *out = NULL;
    if (!counts_here(config, plan, rank))
        return OK;
    struct expert_counts *c = calloc(1, sizeof *c);
    if (c) {
        *c = (struct expert_counts){.layers = rank->layers, .experts = config->experts};
        c->tokens = calloc((size_t)expert_counts_size(c), sizeof *c->tokens);
    }
    if (!c || !c->tokens) {
        free(c);
        return error_set(err, ERR_NO_MEMORY, "no memory for counts of experts");
    }
    *out = c;
    return OK;
}

void expert_counts_destroy(struct expert_counts *c)
{
    if (!c)
        return;
    free(c->tokens);
    free(c);
}

/* One writer: a load and a store, and nothing that other cores have to wait for. */
void expert_counts_add(struct expert_counts *c, int32_t layer, const int32_t *chosen,
                       int32_t choices)
{
    atomic_ullong *tokens = c->tokens + (int64_t)layer * c->experts;
    for (int32_t i = 0; i < choices; i++) {
        atomic_ullong *n = &tokens[chosen[i]];
        atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
}

uint64_t expert_counts_read(const struct expert_counts *c, uint64_t *out)
{
    uint64_t sum = 0;
    for (int32_t i = 0; i < expert_counts_size(c); i++) {
        out[i] = atomic_load_explicit(&c->tokens[i], memory_order_relaxed);
        sum += out[i];
    }
    return sum;
}
