/* The pool of KV blocks: see blocks.h. */
#include "worker/blocks.h"
#include "base/check.h"
#include "partition/plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NONE = -1 };

struct block {
    struct prefix after;
    uint64_t serial; /* 0: not kept */
    uint64_t hash;
    int32_t holds;
    int32_t chain;          /* the next of its bucket */
    bool dirty;             /* in the list of those to be wiped */
    int32_t before, behind; /* kept and held by nobody: neighbours in order of release; free: behind
                               is the next free one */
};

struct blocks {
    int32_t count;
    bool cache;
    uint64_t next_serial;
    uint64_t seed; /* of the hash: nobody outside can aim at one bucket */
    struct block *block;
    int32_t (*tokens)[KV_BLOCK]; /* [count], of kept ones */
    int32_t *bucket;             /* [mask + 1]: the first of each chain */
    uint64_t mask;
    int32_t free; /* first of the list */
    int32_t free_count;
    int32_t oldest, newest; /* kept and held by nobody */
    int32_t cached;
    uint64_t evicted;
    int32_t *dirty; /* [count], of which dirty_count; NULL: nobody asks */
    int32_t dirty_count;
};

enum status blocks_create(int32_t count, bool cache, struct blocks **out, struct error *err)
{
    struct blocks *b = calloc(1, sizeof *b);
    uint64_t buckets = 1;
    while (buckets < (uint64_t)count)
        buckets *= 2;
    if (b) {
        b->block = calloc((size_t)count, sizeof *b->block);
        b->tokens = calloc((size_t)count, sizeof *b->tokens);
        b->bucket = malloc(buckets * sizeof *b->bucket);
    }
    if (!b || !b->block || !b->tokens || !b->bucket) {
        blocks_destroy(b);
        return error_set(err, ERR_NO_MEMORY, "no memory to keep book of %d KV blocks", count);
    }
    b->count = b->free_count = count;
    b->cache = cache;
    b->next_serial = 1;
    if (getrandom(&b->seed, sizeof b->seed, GRND_NONBLOCK) != (ssize_t)sizeof b->seed)
        b->seed = 0x9E3779B97F4A7C15u;
    b->mask = buckets - 1;
    for (uint64_t i = 0; i < buckets; i++)
        b->bucket[i] = NONE;
    for (int32_t i = 0; i < count; i++)
        b->block[i].behind = i + 1 < count ? i + 1 : NONE;
    b->free = count > 0 ? 0 : NONE;
    b->oldest = b->newest = NONE;
    *out = b;
    return OK;
}

void blocks_destroy(struct blocks *b)
{
    if (!b)
        return;
    free(b->block);
    free(b->tokens);
    free(b->bucket);
    free(b->dirty);
    free(b);
}

static uint64_t hash_of(const struct blocks *b, struct prefix after, const int32_t *tokens)
{
    uint64_t h = (b->seed ^ after.id) * 0xFF51AFD7ED558CCDu + after.domain;
    for (int i = 0; i < KV_BLOCK; i++) {
        h = (h ^ (h >> 29) ^ (uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
    }
    return h ^ (h >> 32);
}

static bool is_it(const struct blocks *b, int32_t i, uint64_t hash, struct prefix after,
                  const int32_t *tokens)
{
    const struct block *k = &b->block[i];
    return k->hash == hash && k->after.id == after.id && k->after.domain == after.domain &&
           memcmp(b->tokens[i], tokens, sizeof b->tokens[i]) == 0;
}

static int32_t kept_as(const struct blocks *b, uint64_t hash, struct prefix after,
                       const int32_t *tokens)
{
    int32_t i = b->bucket[hash & b->mask];
    while (i != NONE && !is_it(b, i, hash, after, tokens))
        i = b->block[i].chain;
    return i;
}

/* Out of the order of release: somebody holds it again, or it goes. */
static void take_out(struct blocks *b, int32_t i)
{
    struct block *k = &b->block[i];
    *(k->before == NONE ? &b->oldest : &b->block[k->before].behind) = k->behind;
    *(k->behind == NONE ? &b->newest : &b->block[k->behind].before) = k->before;
    b->cached--;
}

enum status blocks_note_dirty(struct blocks *b, struct error *err)
{
    if (!b->dirty)
        b->dirty = calloc((size_t)b->count, sizeof *b->dirty);
    return b->dirty
               ? OK
               : error_set(err, ERR_NO_MEMORY, "no memory to keep book of %d KV blocks", b->count);
}

int32_t blocks_dirty(const struct blocks *b, const int32_t **list)
{
    *list = b->dirty;
    return b->dirty_count;
}

void blocks_wiped(struct blocks *b)
{
    for (int32_t i = 0; i < b->dirty_count; i++)
        b->block[b->dirty[i]].dirty = false;
    b->dirty_count = 0;
}

static void note_dirty(struct blocks *b, int32_t i)
{
    if (!b->dirty)
        return;
    memset(b->tokens[i], 0, sizeof b->tokens[i]);
    if (!b->block[i].dirty)
        b->dirty[b->dirty_count++] = i;
    b->block[i].dirty = true;
}

static int32_t evict(struct blocks *b)
{
    int32_t i = b->oldest;
    if (i == NONE)
        return NONE;
    struct block *k = &b->block[i];
    int32_t *link = &b->bucket[k->hash & b->mask];
    while (*link != i)
        link = &b->block[*link].chain;
    *link = k->chain;
    take_out(b, i);
    k->serial = 0;
    note_dirty(b, i);
    b->evicted++;
    return i;
}

int32_t blocks_take(struct blocks *b)
{
    int32_t i = b->free;
    if (i != NONE) {
        b->free = b->block[i].behind;
        b->free_count--;
    } else {
        i = evict(b);
    }
    if (i != NONE)
        b->block[i].holds = 1;
    return i;
}

int32_t blocks_find(struct blocks *b, struct prefix after, const int32_t *tokens)
{
    if (!b->cache)
        return NONE;
    int32_t i = kept_as(b, hash_of(b, after, tokens), after, tokens);
    if (i != NONE && b->block[i].holds++ == 0)
        take_out(b, i);
    return i;
}

struct prefix blocks_keep(struct blocks *b, struct prefix after, const int32_t *tokens,
                          int32_t block)
{
    if (!b->cache)
        return after;
    uint64_t hash = hash_of(b, after, tokens);
    int32_t same = kept_as(b, hash, after, tokens);
    if (same != NONE)
        return blocks_prefix(b, same);
    struct block *k = &b->block[block];
    CHECK(k->holds > 0 && k->serial == 0, "block %d: held %d times, serial %llu", block, k->holds,
          (unsigned long long)k->serial);
    k->after = after;
    k->serial = b->next_serial++;
    k->hash = hash;
    k->chain = b->bucket[hash & b->mask];
    b->bucket[hash & b->mask] = block;
    memcpy(b->tokens[block], tokens, sizeof b->tokens[block]);
    return blocks_prefix(b, block);
}

struct prefix blocks_prefix(const struct blocks *b, int32_t block)
{
    return (struct prefix){.id = b->block[block].serial};
}

void blocks_release(struct blocks *b, int32_t block)
{
    struct block *k = &b->block[block];
    CHECK(k->holds > 0, "block %d is held by nobody", block);
    if (--k->holds > 0)
        return;
    if (k->serial == 0) {
        note_dirty(b, block);
        k->behind = b->free;
        b->free = block;
        b->free_count++;
        return;
    }
    k->before = b->newest;
    k->behind = NONE;
    *(b->newest == NONE ? &b->oldest : &b->block[b->newest].behind) = block;
    b->newest = block;
    b->cached++;
}

int32_t blocks_free(const struct blocks *b)
{
    return b->free_count + b->cached;
}

int32_t blocks_cached(const struct blocks *b)
{
    return b->cached;
}

uint64_t blocks_evicted(const struct blocks *b)
{
    return b->evicted;
}

/* Lists end, and have as many entries as their counts say. */
static void check_lists(const struct blocks *b)
{
    int32_t free = 0, cached = 0, before = NONE;
    for (int32_t i = b->free; i != NONE && free <= b->count; i = b->block[i].behind, free++)
        CHECK(b->block[i].holds == 0 && b->block[i].serial == 0, "block %d is not free", i);
    for (int32_t i = b->oldest; i != NONE && cached <= b->count; i = b->block[i].behind, cached++) {
        CHECK(b->block[i].holds == 0 && b->block[i].serial > 0 && b->block[i].before == before,
              "block %d: held %d times, serial %llu, before it %d", i, b->block[i].holds,
              (unsigned long long)b->block[i].serial, b->block[i].before);
        before = i;
    }
    CHECK(free == b->free_count && cached == b->cached && before == b->newest,
          "%d free of %d, %d cached of %d", free, b->free_count, cached, b->cached);
}

void blocks_check(const struct blocks *b, const int32_t *holds)
{
    int32_t held = 0;
    for (int32_t i = 0; i < b->count; i++) {
        const struct block *k = &b->block[i];
        CHECK(k->holds == holds[i], "block %d: held %d times, expected %d", i, k->holds, holds[i]);
        held += k->holds > 0;
        CHECK(k->serial < b->next_serial, "block %d: serial %llu", i,
              (unsigned long long)k->serial);
        for (int32_t j = 0; j < KV_BLOCK && k->serial > 0; j++)
            CHECK(b->tokens[i][j] >= 0, "block %d: token %d is not known", i, j);
        if (k->serial > 0)
            CHECK(kept_as(b, k->hash, k->after, b->tokens[i]) == i, "block %d cannot be found", i);
    }
    check_lists(b);
    CHECK(held + b->free_count + b->cached == b->count, "%d held, %d free, %d cached of %d", held,
          b->free_count, b->cached, b->count);
}
