/*
 * What a group's prefix cache likely holds: the prompts that it was sent last, as hashes of chains
 * of blocks, so that a prompt that begins like one of them can go there (routing.c). It is a guess:
 * the group's own cache (worker/blocks.h) compares tokens and decides, so a wrong one costs time
 * and never changes an answer.
 *
 * Least recently used chains are forgotten. Of a chain its beginning is always the newer: what is
 * known of a prompt is a prefix of it without gaps.
 *
 * 24 bytes an entry and 8 of buckets: 2.1 MB a group, taken at once.
 * Owned by its group, on the loop thread.
 */
#ifndef WITAN_COORDINATOR_PREFIXES_H
#define WITAN_COORDINATOR_PREFIXES_H

#include <stdint.h>

enum {
    PREFIXES_MOST = 65536, /* blocks that are remembered: 4 million tokens */
    PREFIXES_CHAIN = 4096, /* of one prompt: 262,144 tokens; what is beyond is not looked at */
};

/* Hashes of the full blocks (KV_BLOCK tokens) that a prompt begins with, each of all up to it:
 * hashes[PREFIXES_CHAIN]. Prompts of different domains share none. Returns how many. */
int32_t prefixes_chain(uint64_t domain, const int32_t *ids, int32_t count, uint64_t *hashes);

struct prefixes;

/* `seed`: random, so that nobody outside can aim at one bucket. */
struct prefixes *prefixes_create(uint64_t seed);
void prefixes_destroy(struct prefixes *p); /* NULL is fine */

/* Blocks that the chain begins with and that are remembered. */
int32_t prefixes_find(const struct prefixes *p, const uint64_t *hashes, int32_t count);

/* Remembers the chain as the newest and forgets the oldest beyond `most` blocks, 1 to
 * PREFIXES_MOST. */
void prefixes_note(struct prefixes *p, const uint64_t *hashes, int32_t count, int32_t most);

/* Everything: the group's cache is gone. */
void prefixes_forget(struct prefixes *p);

int32_t prefixes_count(const struct prefixes *p);

#endif
