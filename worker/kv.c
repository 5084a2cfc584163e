/* The KV cache's memory: see kv.h. */
#include "worker/kv.h"

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
