/*
 * The tree over a file's chunks, as RFC 9162 (section 2.1.1) defines it: a leaf is SHA-256 of a
 * byte 0 and the chunk, a node SHA-256 of a byte 1 and its two children, so that neither can be
 * taken for the other; of n > 1 leaves the left child holds the largest power of two below n. The
 * root of nothing is SHA-256 of nothing. Pure.
 */
#include "base/check.h"
#include "partition/manifest_private.h"

#include <string.h>

enum status tree_leaf(const void *bytes, size_t len, struct digest *out, struct error *err)
{
    static const uint8_t zero = 0;
    const struct hash_part parts[] = {{&zero, 1}, {bytes, len}};
    return hash_parts(parts, COUNT_OF(parts), out, err);
}

static enum status node(const struct digest *left, const struct digest *right, struct digest *out,
                        struct error *err)
{
    static const uint8_t one = 1;
    const struct hash_part parts[] = {
        {&one, 1}, {left->b, sizeof left->b}, {right->b, sizeof right->b}};
    return hash_parts(parts, COUNT_OF(parts), out, err);
}

enum status tree_root(const struct digest *leaves, uint32_t count, struct digest *out,
                      struct error *err)
{
    if (count == 0)
        return hash_parts(NULL, 0, out, err);
    if (count == 1) {
        *out = leaves[0];
        return OK;
    }
    uint32_t left = 1;
    while (left < count - left)
        left *= 2;
    struct digest l, r;
    TRY(tree_root(leaves, left, &l, err));
    TRY(tree_root(leaves + left, count - left, &r, err));
    return node(&l, &r, out, err);
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

void digest_hex(const struct digest *d, char hex[MANIFEST_DIGEST_HEX + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof d->b; i++) {
        hex[2 * i] = digits[d->b[i] >> 4];
        hex[2 * i + 1] = digits[d->b[i] & 15];
    }
    hex[MANIFEST_DIGEST_HEX] = '\0';
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool digest_from_hex(const char *hex, struct digest *out)
{
    for (size_t i = 0; i < sizeof out->b; i++) {
        int high = digit(hex[2 * i]), low = high < 0 ? -1 : digit(hex[2 * i + 1]);
        if (low < 0)
            return false;
        out->b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

uint32_t chunks_of(uint64_t bytes)
{
    return (uint32_t)(bytes / MANIFEST_CHUNK_BYTES + (bytes % MANIFEST_CHUNK_BYTES != 0));
}

size_t chunk_length(uint64_t file_bytes, uint32_t chunk)
{
    uint64_t begin = (uint64_t)chunk * MANIFEST_CHUNK_BYTES;
    CHECK(begin < file_bytes, "chunk %u of %llu bytes", chunk, (unsigned long long)file_bytes);
    uint64_t left = file_bytes - begin;
    return left < MANIFEST_CHUNK_BYTES ? (size_t)left : MANIFEST_CHUNK_BYTES;
}
