/*
 * Bearer tokens of an OIDC issuer: JSON Web Tokens (RFC 7519) signed by one of the keys of a JSON
 * Web Key Set (RFC 7517) that lies in a file. Nothing is ever fetched: the file is the operator's,
 * who renews it (docs/operations.md).
 *
 * RS256, ES256 and EdDSA with Ed25519 (RFC 7518, 8037) and nothing else: "none", and HMAC, for
 * which a public key would be the secret, are refused before anything is computed, and a key is
 * used with the one algorithm that it is for. Keys that a token brings along (jwk, jku, x5c, x5u)
 * are never looked at.
 *
 * A set is immutable once read: any thread.
 */
#ifndef WITAN_COORDINATOR_JWT_H
#define WITAN_COORDINATOR_JWT_H

#include "coordinator/auth.h"

enum {
    JWT_MAX_BYTES = 8 << 10, /* of a token */
    JWKS_MAX_BYTES = 256 << 10,
    JWKS_MAX_KEYS = 64,
    JWT_MAX_TEXT = 256, /* of a key id, an issuer, an audience, a claim's name */
};

/* What tokens must say. */
struct jwt_rules {
    const char *issuer, *audience;
    const char *tenant_claim; /* whose value is the tenant's name */
    const char *scopes_claim; /* words with spaces between, or a list of words */
    int32_t leeway_s;         /* by which clocks may differ */
};

/* Who a token speaks for, and when: from from_s on, before until_s (unix time, leeway included). */
struct jwt_claims {
    struct auth_caller caller;
    int64_t from_s, until_s;
};

struct jwks;

/* Keys for other uses and algorithms are passed over. Refuses a file that others can write, one
 * without a key that is of use, one with a private or a symmetric key, two keys of one id. */
enum status jwks_load(const char *path, struct jwks **out, struct error *err);
enum status jwks_parse(const char *what, const char *text, size_t len, struct jwks **out,
                       struct error *err);
void jwks_destroy(struct jwks *k); /* NULL is fine */
size_t jwks_count(const struct jwks *k);

/* Checks the signature, then the claims. ERR_INVALID with *why, and in `err` what is wrong: for the
 * log, since it helps who makes up tokens. Never quotes the token itself. */
enum status jwt_check(const struct jwks *k, const struct jwt_rules *r, const char *token,
                      size_t len, int64_t now_s, struct jwt_claims *out, enum auth_refusal *why,
                      struct error *err);

/* The claims of a token whose signature is right; for tests and fuzzers too. */
enum status jwt_read_claims(const struct jwt_rules *r, const char *text, size_t len, int64_t now_s,
                            struct jwt_claims *out, enum auth_refusal *why, struct error *err);

#endif
