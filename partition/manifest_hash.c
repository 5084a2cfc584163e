/* SHA-256 by OpenSSL, quick sums by xxHash: see hash.h and manifest_private.h. No state. */
#include "partition/manifest_private.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct hasher {
    EVP_MD_CTX *ctx;
};

static enum status failed(struct error *err)
{
    error_set(err, ERR_NO_MEMORY, "SHA-256: OpenSSL failed");
    return ERR_NO_MEMORY;
}

enum status hasher_create(struct hasher **out, struct error *err)
{
    struct hasher *h = calloc(1, sizeof *h);
    if (!h || !(h->ctx = EVP_MD_CTX_new()) || !EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL)) {
        hasher_destroy(h);
        return failed(err);
    }
    *out = h;
    return OK;
}

enum status hasher_add(struct hasher *h, const void *data, size_t len, struct error *err)
{
    return len == 0 || EVP_DigestUpdate(h->ctx, data, len) ? OK : failed(err);
}

enum status hasher_end(struct hasher *h, struct digest *out, struct error *err)
{
    unsigned len = 0;
    bool done = EVP_DigestFinal_ex(h->ctx, out->b, &len) && len == sizeof out->b &&
                EVP_DigestInit_ex(h->ctx, NULL, NULL);
    return done ? OK : failed(err);
}

void hasher_destroy(struct hasher *h)
{
    if (!h)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

enum status hash_parts(const struct hash_part *parts, int count, struct digest *out,
                       struct error *err)
{
    struct hasher *h = NULL;
    TRY(hasher_create(&h, err));
    enum status st = OK;
    for (int i = 0; st == OK && i < count; i++)
        st = hasher_add(h, parts[i].data, parts[i].len, err);
    if (st == OK)
        st = hasher_end(h, out, err);
    hasher_destroy(h);
    return st;
}

enum status quick_sum(const void *bytes, size_t len, struct quick_sum *out, struct error *err)
{
    XXH128_canonical_t sum;
    (void)err;
    XXH128_canonicalFromHash(&sum, XXH3_128bits(bytes, len));
    _Static_assert(sizeof out->b == sizeof sum.digest, "128 bits");
    memcpy(out->b, sum.digest, sizeof out->b);
    return OK;
}
