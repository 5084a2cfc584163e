/*
 * Keys of the audit log: Ed25519 (RFC 8032) that signs heads, the public halves that an auditor
 * trusts, and the auditor's own key of HMAC-SHA256 (RFC 2104). Files as `witan manifest keygen`
 * makes them: PEM; a key's id is the SHA-256 of its public half as DER, in hex. By OpenSSL; any
 * thread.
 */
#ifndef WITAN_COORDINATOR_AUDIT_KEYS_H
#define WITAN_COORDINATOR_AUDIT_KEYS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    AUDIT_SIGNATURE_TEXT = 88, /* 64 bytes in base64 */
    AUDIT_KEY_ID = 64,         /* hex digits */
    AUDIT_MAX_TRUSTED = 64,
    AUDIT_HMAC_KEY_BYTES = 32,
};

struct audit_signer;

/* A private key that its owner alone can read; one under a passphrase is refused. */
enum status audit_signer_open(const char *path, struct audit_signer **out, struct error *err);
void audit_signer_close(struct audit_signer *s);
const char *audit_signer_id(const struct audit_signer *s);
enum status audit_sign(const struct audit_signer *s, const char *text,
                       char signature[AUDIT_SIGNATURE_TEXT + 1], struct error *err);

struct audit_trust;

/* A PEM file of public keys, or a folder of NAME.pem. */
enum status audit_trust_open(const char *path, struct audit_trust **out, struct error *err);
void audit_trust_close(struct audit_trust *t);

enum audit_trusted { AUDIT_SIGNED, AUDIT_STRANGER, AUDIT_BROKEN };

/* Did the key of this id sign the text? */
enum audit_trusted audit_trust_check(const struct audit_trust *t, const char *id, const char *text,
                                     const char *signature);

struct audit_hmac_key {
    uint8_t b[AUDIT_HMAC_KEY_BYTES];
};

/* A file of 64 hex digits that its owner alone can read; made with mode 0600 where there is none.
 */
enum status audit_hmac_key_make(const char *path, struct error *err);
enum status audit_hmac_key_read(const char *path, struct audit_hmac_key *out, struct error *err);

/* Of the line "witan audit WHAT 1\n" and the ids, four bytes each, the lowest first. */
enum status audit_hmac(const struct audit_hmac_key *key, const char *what, const int32_t *ids,
                       int32_t count, char hex[65], struct error *err);

#endif
