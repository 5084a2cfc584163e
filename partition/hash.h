/*
 * SHA-256 of parts and of chunks, by OpenSSL, and sums that only find damage, by xxHash; a build of
 * the engine alone has neither and says so (ERR_UNSUPPORTED). No state; any thread.
 */
#ifndef WITAN_PARTITION_HASH_H
#define WITAN_PARTITION_HASH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest {
    uint8_t b[32];
};

bool digest_equal(const struct digest *a, const struct digest *b);

struct hash_part {
    const void *data;
    size_t len;
};

enum { HASH_MAX_PARTS = 3 };

/* SHA-256 of the parts, one after the other. */
enum status hash_parts(const struct hash_part *parts, int count, struct digest *out,
                       struct error *err);

/* Of a chunk, as a tree over chunks has it: SHA-256 of a byte 0 and the bytes
 * (partition/manifest_tree.c). */
enum status tree_leaf(const void *bytes, size_t len, struct digest *out, struct error *err);

/* XXH3's 128 bits in their canonical order: of bytes that somebody trusted wrote, as fast as memory
 * is read. */
struct quick_sum {
    uint8_t b[16];
};

enum status quick_sum(const void *bytes, size_t len, struct quick_sum *out, struct error *err);

#endif
