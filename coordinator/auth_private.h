/* What those share who read, write and check who may ask: auth.c, auth_file.c, jwt.c, jwks.c. Any
 * thread; no state. */
#ifndef WITAN_COORDINATOR_AUTH_PRIVATE_H
#define WITAN_COORDINATOR_AUTH_PRIVATE_H

#include "coordinator/auth.h"

#include <stdbool.h>
#include <sys/stat.h>

enum {
    AUTH_HASH_BYTES = 32,
    AUTH_MAX_NAME = 128, /* of a key or a tenant */
    AUTH_MAX_LINE = 2048,
    AUTH_SCOPE_COUNT = 4,
};

extern const char *const auth_scope_words[AUTH_SCOPE_COUNT];

/* A bit, or 0 for a word that is none. */
uint32_t auth_scope_of(const char *word, size_t len);

/* 1 to AUTH_MAX_NAME bytes of UTF-8 without control characters. */
bool auth_is_name(const char *s);

/* The number that goes with a tenant's name. */
enum status auth_tenant_id(const char *name, uint64_t *id, struct error *err);

/* SHA-256 of a key, which has AUTH_KEY_BYTES. */
enum status auth_hash_key(const char *key, unsigned char hash[AUTH_HASH_BYTES], struct error *err);

/* Who can write the file can let themselves in. */
enum status auth_check_mode(const char *path, const struct stat *s, struct error *err);

/* "2026-01-31T12:00:00Z" alone; false for any other text. */
bool auth_read_time(const char *text, int64_t *time_s);

#endif
