/*
 * API keys. A key is "wk-" and 43 characters of base64url: 256 random bits. The file keeps one JSON
 * object a line: {"id", "name", "sha256" (of the whole key, hex), "scopes" [..], "created" (UTC,
 * "2026-01-31T12:00:00Z")} and, where they are wanted, "tenant", "expires" (UTC, the same form),
 * "requests_per_minute", "tokens_per_minute" and "concurrent" (quota.h). A key has so much entropy
 * that a plain hash is enough. The file must not be writable by others.
 *
 * A tenant is whose the requests are: tenants get equal shares of the engine, and prefixes of
 * prompts are shared within one (limits.prefix_cache). Keys that name the same tenant are one; a
 * key that names none is a tenant by itself, by its id.
 *
 * A set is immutable once read: any thread. Who asks the doors, by a key or by a token of somebody
 * else's, and what happens when the file changes: identity.h.
 */
#ifndef WITAN_COORDINATOR_AUTH_H
#define WITAN_COORDINATOR_AUTH_H

#include "base/buf.h"
#include "base/error.h"
#include "coordinator/quota.h"

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

/* X(NAME, words): why somebody is not let in. */
#define AUTH_REFUSALS(X)                                                                           \
    X(NONE, "none")           /* nothing was shown */                                              \
    X(MALFORMED, "malformed") /* neither a key nor a token */                                      \
    X(UNKNOWN, "unknown")     /* no key of this file */                                            \
    X(EXPIRED, "expired")                                                                          \
    /* Of tokens alone: */                                                                         \
    X(ALGORITHM, "algorithm")                                                                      \
    X(KEY_ID, "key_id") /* its signer is not known */                                              \
    X(SIGNATURE, "signature")                                                                      \
    X(NOT_YET, "not_yet")                                                                          \
    X(ISSUER, "issuer")                                                                            \
    X(AUDIENCE, "audience")                                                                        \
    X(CLAIMS, "claims") /* one that must be there is not, or is of another form */

enum auth_refusal {
#define X(name, words) AUTH_REFUSED_##name,
    AUTH_REFUSALS(X)
#undef X
        AUTH_REFUSAL_COUNT,
};

struct auth; /* a set of keys; NULL stands for "no keys demanded" everywhere below */

enum { AUTH_MAX_KEYS = 100000, AUTH_KEY_BYTES = 46, AUTH_MAX_ID = 64 };

/* Refuses, with the line: unknown fields and scopes, an id or a key that is there twice. */
enum status auth_load(const char *path, struct auth **out, struct error *err);
void auth_destroy(struct auth *a);

/* Who asks. Without keys: all scopes, id "-", tenant 0. Plain memory: outlives the set. */
struct auth_caller {
    uint32_t scopes;
    char id[AUTH_MAX_ID + 1];
    uint64_t tenant; /* the first 8 bytes of SHA-256 of its name, the first the highest */
    struct quota_key quota;
};

/*
 * `header`: the value of Authorization ("Bearer wk-..."), NULL when absent; `now_s`: unix time. OK:
 * *caller is set. ERR_NOT_FOUND: absent, malformed, unknown or expired key, and *why: 401. Compares
 * in constant time.
 */
enum status auth_check(const struct auth *a, const char *header, int64_t now_s,
                       struct auth_caller *caller, enum auth_refusal *why, struct error *err);

/* May a key of these scopes ask for this priority (-1 goes before 0 goes before 1)? If not
 * ERR_INVALID, whose message is for the client: 403. */
enum status auth_check_priority(uint32_t scopes, int32_t priority, struct error *err);

/* --- the file: auth_file.c --- */

/* What a key is made with, all zero: nothing. */
struct auth_terms {
    const char *tenant; /* NULL: none is named */
    int64_t expires_s;  /* unix time; 0: never */
    struct quota_limits quotas;
};

/* Draws a key, appends its line to the file (made with mode 0600 when absent) and gives the key
 * itself, once: key[AUTH_KEY_BYTES + 1]. `terms` may be NULL: none. */
enum status auth_create_key(const char *path, const char *name, const struct auth_terms *terms,
                            uint32_t scopes, char *key, struct error *err);

/* Takes the line of the key of this id out of the file, which another one replaces whole.
 * ERR_NOT_FOUND: it has none. */
enum status auth_revoke_key(const char *path, const char *id, struct error *err);

/* "90d" or "12h" from now on, "2027-01-31" (when that day begins in UTC) or "2027-01-31T12:00:00Z";
 * ERR_INVALID for others, and for what lies behind. */
enum status auth_parse_expiry(const char *text, int64_t now_s, int64_t *expires_s,
                              struct error *err);

/* "generate,raw" to bits; ERR_INVALID names what there is. And back, for people. */
enum status auth_parse_scopes(const char *words, uint32_t *scopes, struct error *err);
enum status auth_print_scopes(uint32_t scopes, struct buf *out, struct error *err);

/* "2026-01-31T12:00:00Z" of unix time. */
enum { AUTH_TIME_BYTES = 32 };
const char *auth_print_time(int64_t time_s, char out[AUTH_TIME_BYTES]);

/* The keys in the file's order; texts live as long as `a`. */
struct auth_entry {
    const char *id, *name, *created;
    const char *tenant; /* NULL: none is named */
    uint32_t scopes;
    int64_t expires_s; /* 0: never */
    struct quota_limits quotas;
};
size_t auth_count(const struct auth *a);
struct auth_entry auth_entry_at(const struct auth *a, size_t i);

#endif
