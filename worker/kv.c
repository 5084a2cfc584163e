/* The KV cache's memory: see kv.h. */
#include "worker/kv.h"

#include "base/check.h"

enum status kv_init(struct kv_cache *kv, const struct model_config *config,
                    const struct rank_plan *rank, enum kv_dtype dtype, int32_t blocks,
                    struct memory *memory, struct error *err)
{
    uint64_t bytes = (uint64_t)blocks * plan_kv_block_bytes(config, rank, dtype);
    *kv = (struct kv_cache){
        .memory = memory,
        .data = memory->alloc(memory, bytes, true),
        .dtype = dtype,
        .layers = range_size(rank->layers),
        .blocks = blocks,
        .heads = range_size(rank->kv_heads),
        .row = head_row(config->head_dim),
    };
    if (!kv->data)
        return error_set(err, ERR_NO_MEMORY,
                         "no memory for a KV cache of %d blocks, %llu bytes; lower --context or "
                         "--max-seqs",
                         blocks, (unsigned long long)bytes);
    return OK;
}

void kv_fini(struct kv_cache *kv)
{
    if (kv->memory)
        kv->memory->free(kv->memory, kv->data);
    *kv = (struct kv_cache){0};
}

enum status kv_wipe(const struct kv_cache *kv, const int32_t *blocks, int32_t count,
                    struct error *err)
{
    uint64_t bytes = (uint64_t)kv->heads * 2 * kv_tile_bytes(kv->dtype, kv->row);
    for (int32_t i = 0; i < count; i++) {
        CHECK(blocks[i] >= 0 && blocks[i] < kv->blocks, "block %d of %d", blocks[i], kv->blocks);
        for (int32_t layer = 0; layer < kv->layers && bytes > 0; layer++) {
            const struct kv_layer l = kv_layer_of(kv, layer);
            TRY(kv->memory->clear(kv->memory, kv_tile(&l, blocks[i], 0), bytes, err));
        }
    }
    return OK;
}
