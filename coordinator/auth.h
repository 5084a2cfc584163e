/*
 * API keys. A key is "wk-" and 43 characters of base64url: 256 random bits. The file keeps one JSON
 * object a line: {"id", "name", "sha256" (of the whole key, hex), "scopes" [..], "created" (UTC,
 * "2026-01-31T12:00:00Z"), "tenant" (may be absent)}; a key has so much entropy that a plain hash
 * is enough. The file must not be writable by others.
 *
 * A tenant is whose the requests are: tenants get equal shares of the engine, and prefixes of
 * prompts are shared within one (limits.prefix_cache). Keys that name the same tenant are one; a
 * key that names none is a tenant by itself, by its id.
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
    X(ADMIN, "admin")       /* status, metrics */                                                  \
    X(PRIORITY, "priority") /* requests that go before others' */

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
enum { AUTH_ALL = AUTH_GENERATE | AUTH_RAW | AUTH_ADMIN | AUTH_PRIORITY };

struct auth; /* a set of keys; NULL stands for "no keys demanded" everywhere below */

enum { AUTH_MAX_KEYS = 100000, AUTH_KEY_BYTES = 46 };

/* Refuses, with the line: unknown fields and scopes, an id or a key that is there twice. */
enum status auth_load(const char *path, struct auth **out, struct error *err);
void auth_destroy(struct auth *a);

/* Who asks. Without keys: all scopes, id "-", tenant 0. */
struct auth_caller {
    uint32_t scopes;
    const char *id;  /* the key's; lives as long as the set */
    uint64_t tenant; /* the first 8 bytes of SHA-256 of its name, the first the highest */
};

/*
 * `header`: the value of Authorization ("Bearer wk-..."), NULL when absent. OK: *caller is set.
 * ERR_NOT_FOUND: absent, malformed or unknown key: 401. Compares in constant time.
 */
enum status auth_check(const struct auth *a, const char *header, struct auth_caller *caller,
                       struct error *err);

/* May a key of these scopes ask for this priority (-1 goes before 0 goes before 1)? If not
 * ERR_INVALID, whose message is for the client: 403. */
enum status auth_check_priority(uint32_t scopes, int32_t priority, struct error *err);

/* Draws a key, appends its line to the file (made with mode 0600 when absent) and gives the key
 * itself, once: key[AUTH_KEY_BYTES + 1]. `tenant` may be NULL: none is named. */
enum status auth_create_key(const char *path, const char *name, const char *tenant, uint32_t scopes,
                            char *key, struct error *err);

/* "generate,raw" to bits; ERR_INVALID names what there is. And back, for people. */
enum status auth_parse_scopes(const char *words, uint32_t *scopes, struct error *err);
enum status auth_print_scopes(uint32_t scopes, struct buf *out, struct error *err);

/* The keys in the file's order; texts live as long as `a`. */
struct auth_entry {
    const char *id, *name, *created;
    const char *tenant; /* NULL: none is named */
    uint32_t scopes;
};
size_t auth_count(const struct auth *a);
struct auth_entry auth_entry_at(const struct auth *a, size_t i);

#endif
