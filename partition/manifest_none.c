/*
 * Builds of the engine alone have no libcrypto: in place of manifest_hash.c and manifest_sign.c,
 * every manifest is refused.
 */
#include "partition/manifest_private.h"

static enum status none(struct error *err)
{
    return error_set(
        err, ERR_UNSUPPORTED,
        "manifests: this build of the engine alone has no libcrypto to prove them with");
}

enum status hash_parts(const struct hash_part *parts, int count, struct digest *out,
                       struct error *err)
{
    (void)parts, (void)count;
    *out = (struct digest){0};
    return none(err);
}

enum status quick_sum(const void *bytes, size_t len, struct quick_sum *out, struct error *err)
{
    (void)bytes, (void)len;
    *out = (struct quick_sum){0};
    return none(err);
}

enum status hasher_create(struct hasher **out, struct error *err)
{
    *out = NULL;
    return none(err);
}

enum status hasher_add(struct hasher *h, const void *data, size_t len, struct error *err)
{
    (void)h, (void)data, (void)len;
    return none(err);
}

enum status hasher_end(struct hasher *h, struct digest *out, struct error *err)
{
    (void)h;
    *out = (struct digest){0};
    return none(err);
}

void hasher_destroy(struct hasher *h)
{
    (void)h;
}

enum status manifest_check_signatures(const char *path, const struct digest *digest,
                                      const char *trust, int threshold, char **signers,
                                      struct error *err)
{
    (void)path, (void)digest, (void)trust, (void)threshold;
    *signers = NULL;
    return none(err);
}

enum status manifest_keygen(const char *base, char id[MANIFEST_DIGEST_HEX + 1], struct error *err)
{
    (void)base;
    id[0] = '\0';
    return none(err);
}

enum status manifest_sign(const char *path, const char *key_path, const char *name,
                          char id[MANIFEST_DIGEST_HEX + 1], struct error *err)
{
    (void)path, (void)key_path, (void)name;
    id[0] = '\0';
    return none(err);
}
