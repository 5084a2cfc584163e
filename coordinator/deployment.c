/* What a group is to hold: see deployment.h. */
#include "coordinator/deployment.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static struct engine_limits limits_of(const struct config *c, int32_t context)
{
    struct engine_limits l = {
        .max_rows = c->limits.step_tokens,
        .max_seqs = c->limits.sequences,
        .context = context,
        .kv_blocks = c->limits.kv_blocks,
        .threads = c->limits.threads,
        .gpu_percent = c->limits.gpu_percent,
    };
    CHECK(kv_dtype_named(c->limits.kv, &l.kv_dtype), "limits.kv %s was not checked", c->limits.kv);
    if (l.max_rows < l.max_seqs)
        l.max_rows = l.max_seqs;
    _Static_assert((int)CONFIG_MAX_SPECULATE == (int)MAX_GUESSES, "one bound");
    l.max_logits = plan_max_logits(&l, c->limits.speculate);
    return l;
}

enum status deployment_init(struct deployment *d, const struct model_config *model,
                            const struct inventory *inv, const struct config *config,
                            const struct config_group *group, int32_t context, struct error *err)
{
    struct layout layout = {.pp = group->pp, .tp = group->tp, .ep = group->ep, .w = group->w};
    *d = (struct deployment){.limits = limits_of(config, context)};
    TRY(layout_check(model, &layout, err));
    TRY(plan_create(model, inv, layout, &d->plan, err));
    size_t world = (size_t)d->plan->world;
    d->memory = check_calloc(world, sizeof *d->memory);
    d->kv_block_bytes = check_calloc(world, sizeof *d->kv_block_bytes);
    struct engine_limits none = d->limits;
    none.kv_blocks = 0;
    none.threads = none.threads ? none.threads : 1;
    for (size_t i = 0; i < world; i++) {
        const struct rank_plan *r = &d->plan->ranks[i];
        d->memory[i] = plan_memory(model, inv, d->plan, r, &none);
        d->kv_block_bytes[i] = plan_kv_block_bytes(model, r, d->limits.kv_dtype);
    }
    return OK;
}

void deployment_fini(struct deployment *d)
{
    plan_destroy(d->plan);
    free(d->memory);
    free(d->kv_block_bytes);
    *d = (struct deployment){0};
}

enum status deployment_size_cache(struct deployment *d, const uint64_t *share_bytes,
                                  struct error *err)
{
    if (d->limits.kv_blocks > 0)
        return OK;
    int64_t one = (d->limits.context + KV_BLOCK - 1) / KV_BLOCK;
    int64_t blocks = one * d->limits.max_seqs;
    for (int32_t i = 0; i < d->plan->world; i++) {
        uint64_t fixed = memory_plan_total(&d->memory[i]), room = share_bytes[i] / 100 * 85;
        int64_t fit = room > fixed ? (int64_t)((room - fixed) / d->kv_block_bytes[i]) : 0;
        if (fit < one)
            return error_set(err, ERR_NO_MEMORY,
                             "rank %d needs %.1f GB for weights and buffers and %.1f GB for the KV "
                             "cache of one sequence of %d tokens, and its share of its host's "
                             "memory is %.1f GB: more ranks or hosts, or a smaller limits.context",
                             i, (double)fixed * 1e-9,
                             (double)one * (double)d->kv_block_bytes[i] * 1e-9, d->limits.context,
                             (double)share_bytes[i] * 1e-9);
        blocks = fit < blocks ? fit : blocks;
    }
    d->limits.kv_blocks = blocks > INT32_MAX ? INT32_MAX : (int32_t)blocks;
    return OK;
}
