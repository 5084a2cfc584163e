/* What a group was sent: see prefixes.h. A hash table whose entries are also in a list by use. */
#include "coordinator/prefixes.h"
#include "base/check.h"
#include "partition/plan.h"

#include <stdlib.h>
#include <string.h>

enum { NONE = -1, BUCKETS = 2 * PREFIXES_MOST };

struct entry {
    uint64_t hash;
    int32_t chain;        /* of its bucket */
    int32_t newer, older; /* `older` links the free ones too */
};

struct prefixes {
    uint64_t seed;
    int32_t count, free, newest, oldest;
    struct entry entry[PREFIXES_MOST];
    int32_t bucket[BUCKETS];
};

int32_t prefixes_chain(uint64_t domain, const int32_t *ids, int32_t count, uint64_t *hashes)
{
    int32_t blocks = count / KV_BLOCK;
    uint64_t h = domain * 0xFF51AFD7ED558CCDu + 1;
    blocks = blocks < PREFIXES_CHAIN ? blocks : PREFIXES_CHAIN;
    for (int32_t b = 0; b < blocks; b++) {
        for (int32_t i = 0; i < KV_BLOCK; i++)
            h = (h ^ (h >> 29) ^ (uint32_t)ids[b * KV_BLOCK + i]) * 0x9E3779B97F4A7C15u;
        hashes[b] = h ^= h >> 32;
    }
    return blocks;
}

struct prefixes *prefixes_create(uint64_t seed)
{
    struct prefixes *p = check_calloc(1, sizeof *p);
    p->seed = seed * 0x9E3779B97F4A7C15u | 1; /* small ones too */
    prefixes_forget(p);
    return p;
}

void prefixes_destroy(struct prefixes *p)
{
    free(p);
}

void prefixes_forget(struct prefixes *p)
{
    for (int32_t i = 0; i < BUCKETS; i++)
        p->bucket[i] = NONE;
    for (int32_t i = 0; i < PREFIXES_MOST; i++)
        p->entry[i].older = i + 1 < PREFIXES_MOST ? i + 1 : NONE;
    p->count = p->free = 0;
    p->newest = p->oldest = NONE;
}

int32_t prefixes_count(const struct prefixes *p)
{
    return p->count;
}

static uint32_t bucket_of(const struct prefixes *p, uint64_t hash)
{
    return (uint32_t)(hash * p->seed >> 32) % BUCKETS;
}

static int32_t find(const struct prefixes *p, uint64_t hash)
{
    int32_t i = p->bucket[bucket_of(p, hash)];
    while (i != NONE && p->entry[i].hash != hash)
        i = p->entry[i].chain;
    return i;
}

int32_t prefixes_find(const struct prefixes *p, const uint64_t *hashes, int32_t count)
{
    /* No block is known without those before it. */
    int32_t known = 0;
    while (known < count) {
        int32_t middle = known + (count - known) / 2;
        if (find(p, hashes[middle]) != NONE)
            known = middle + 1;
        else
            count = middle;
    }
    return known;
}

/* --- the list by use ---------------------------------------------------------------------------
 */

static void unlink_entry(struct prefixes *p, int32_t i)
{
    const struct entry *e = &p->entry[i];
    *(e->newer != NONE ? &p->entry[e->newer].older : &p->newest) = e->older;
    *(e->older != NONE ? &p->entry[e->older].newer : &p->oldest) = e->newer;
}

static void make_newest(struct prefixes *p, int32_t i)
{
    p->entry[i].newer = NONE;
    p->entry[i].older = p->newest;
    *(p->newest != NONE ? &p->entry[p->newest].newer : &p->oldest) = i;
    p->newest = i;
}

static void forget_oldest(struct prefixes *p)
{
    int32_t i = p->oldest, *link = &p->bucket[bucket_of(p, p->entry[i].hash)];
    while (*link != i)
        link = &p->entry[*link].chain;
    *link = p->entry[i].chain;
    unlink_entry(p, i);
    p->entry[i].older = p->free;
    p->free = i;
    p->count--;
}

static int32_t add(struct prefixes *p, uint64_t hash)
{
    int32_t i = p->free, *first = &p->bucket[bucket_of(p, hash)];
    p->free = p->entry[i].older;
    p->entry[i].hash = hash;
    p->entry[i].chain = *first;
    *first = i;
    p->count++;
    return i;
}

void prefixes_note(struct prefixes *p, const uint64_t *hashes, int32_t count, int32_t most)
{
    count = count < most ? count : most;
    for (int32_t b = count - 1; b >= 0; b--) { /* so that the beginning is the newest */
        int32_t i = find(p, hashes[b]);
        if (i != NONE) {
            unlink_entry(p, i);
        } else {
            if (p->count >= most)
                forget_oldest(p);
            i = add(p, hashes[b]);
        }
        make_newest(p, i);
    }
    while (p->count > most)
        forget_oldest(p);
}
