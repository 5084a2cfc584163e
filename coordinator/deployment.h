/*
 * What a group is to hold: its layout, its limits with everything filled in, and each rank's
 * slices. Made from the checkpoint's headers alone when the coordinator starts; KV blocks wait for
 * the ranks' memory. Owned by the loop thread.
 */
#ifndef WITAN_COORDINATOR_DEPLOYMENT_H
#define WITAN_COORDINATOR_DEPLOYMENT_H

#include "coordinator/config.h"
#include "partition/plan.h"

struct deployment {
    struct plan *plan;           /* owned */
    struct engine_limits limits; /* threads 0: each rank its share of its host's cores */
    struct memory_plan *memory;  /* [plan->world] without the KV cache; owned */
    uint64_t *kv_block_bytes;    /* [plan->world]; owned */
};

/* Refuses a layout that cannot work, in one line. `inv` is bound. */
enum status deployment_init(struct deployment *d, const struct model_config *model,
                            const struct inventory *inv, const struct config *config,
                            const struct config_group *group, int32_t context, struct error *err);
void deployment_fini(struct deployment *d);

/*
 * Fills limits.kv_blocks when the configuration left it open: what every sequence may need at most,
 * or what fits into 85 % of each rank's share of its host's memory. `share_bytes`: [world].
 * ERR_NO_MEMORY when not even one full sequence fits: names the rank and the numbers.
 */
enum status deployment_size_cache(struct deployment *d, const uint64_t *share_bytes,
                                  struct error *err);

#endif
