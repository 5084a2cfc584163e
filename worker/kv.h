/*
 * The paged KV cache of one rank: a pool of blocks of KV_BLOCK positions, each holding K and V of
 * those positions for every layer and KV head of the rank. Which sequence owns a block is the
 * scheduler's business (rank 0); every rank uses the same block numbers.
 *
 * Inside a block K lies transposed, [row][KV_BLOCK], so that positions are lanes when scores are
 * computed; V lies [KV_BLOCK][row]. row = head_row(head_dim), its padding zero. Of int8
 * (worker/kv8_inline.h) the scales follow the elements of K, and of V: bf16
 * [kv8_groups(row)][KV_BLOCK].
 */
#ifndef WITAN_WORKER_KV_H
#define WITAN_WORKER_KV_H

#include "partition/plan.h"
#include "worker/memory.h"

struct kv_cache {
    struct memory *memory;
    char *data; /* owned, of `memory`; [layers][blocks][kv_heads][K, V][KV_BLOCK * row] */
    enum kv_dtype dtype;
    int32_t layers;
    int32_t blocks;
    int32_t heads;
    int32_t row;
};

/* One layer's view. */
struct kv_layer {
    char *data;
    enum kv_dtype dtype;
    int32_t heads;
    int32_t row;
};

/* Allocates and touches `blocks` blocks. */
enum status kv_init(struct kv_cache *kv, const struct model_config *config,
                    const struct rank_plan *rank, enum kv_dtype dtype, int32_t blocks,
                    struct memory *memory, struct error *err);
void kv_fini(struct kv_cache *kv);

/* Zeroes these blocks in every layer, between steps: 2 x kv_heads x kv_tile_bytes x layers bytes
 * each. */
enum status kv_wipe(const struct kv_cache *kv, const int32_t *blocks, int32_t count,
                    struct error *err);

static inline struct kv_layer kv_layer_of(const struct kv_cache *kv, int32_t layer)
{
    size_t bytes = (size_t)kv->blocks * (size_t)kv->heads * 2 * kv_tile_bytes(kv->dtype, kv->row);
    return (struct kv_layer){kv->data + (size_t)layer * bytes, kv->dtype, kv->heads, kv->row};
}

/* K of a block and local KV head; V follows it by kv_tile_bytes. */
static inline char *kv_tile(const struct kv_layer *kv, int32_t block, int32_t head)
{
    size_t tile = kv_tile_bytes(kv->dtype, kv->row);
    return kv->data + ((size_t)block * (size_t)kv->heads + (size_t)head) * 2 * tile;
}

/* The scales of an int8 tile. */
static inline uint16_t *kv8_scales(char *tile, int32_t row)
{
    return (uint16_t *)(void *)(tile + (size_t)KV_BLOCK * (size_t)row);
}

#endif
