/*
 * API keys. A key is "wk-" and 43 characters of base64url: 256 random bits. The file keeps one JSON
 * object a line: {"id", "name", "sha256" (of the whole key, hex), "scopes" [..], "created" (UTC,
 * "2026-01-31T12:00:00Z")}; a key has so much entropy that a plain hash is enough. The file must
 * not be writable by others.
 *
 * A set is immutable once read: any thread.
 */
#ifndef WITAN_COORDINATOR_AUTH_H
#define WITAN_COORDINATOR_AUTH_H

#include "base/buf.h"
#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* X(name, words): bits of a key's scopes. */
#define AUTH_SCOPES(X)                                                                             \
    X(GENERATE, "generate") /* chat, completions, models, tokenize */                              \
    X(RAW, "raw")           /* token ids and special tokens in prompts */                          \
    X(ADMIN, "admin")       /* status */

enum auth_scope_bit {
#define X(name, words) AUTH_BIT_##name,
    AUTH_SCOPES(X)
#undef X
};
enum auth_scope {
#define X(name, words) AUTH_##name = 1 << AUTH_BIT_##name,
    AUTH_SCOPES(X)
#undef X
};
enum { AUTH_ALL = AUTH_GENERATE | AUTH_RAW | AUTH_ADMIN };

struct auth; /* a set of keys; NULL stands for "no keys demanded" everywhere below */

enum { AUTH_MAX_KEYS = 100000, AUTH_KEY_BYTES = 46 };

/* Refuses, with the line: unknown fields and scopes, an id or a key that is there twice. */
enum status auth_load(const char *path, struct auth **out, struct error *err);
void auth_destroy(struct auth *a);

/*
 * `header`: the value of Authorization ("Bearer wk-..."), NULL when absent. OK: *scopes and *id
 * (the key's, static "-" without keys, as long as `a`) are set. ERR_NOT_FOUND: absent, malformed or
 * unknown key: 401. Compares in constant time.
 */
enum status auth_check(const struct auth *a, const char *header, uint32_t *scopes, const char **id,
                       struct error *err);

/* Draws a key, appends its line to the file (made with mode 0600 when absent) and gives the key
 * itself, once: key[AUTH_KEY_BYTES + 1]. */
enum status auth_create_key(const char *path, const char *name, uint32_t scopes, char *key,
                            struct error *err);

/* "generate,raw" to bits; ERR_INVALID names what there is. And back, for people. */
enum status auth_parse_scopes(const char *words, uint32_t *scopes, struct error *err);
enum status auth_print_scopes(uint32_t scopes, struct buf *out, struct error *err);

/* The keys in the file's order; texts live as long as `a`. */
struct auth_entry {
    const char *id, *name, *created;
    uint32_t scopes;
};
size_t auth_count(const struct auth *a);
struct auth_entry auth_entry_at(const struct auth *a, size_t i);

#endif
