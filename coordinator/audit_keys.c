/* Keys of the audit log: see audit_keys.h. */
#include "coordinator/audit_keys.h"
#include "base/buf.h"
#include "base/file.h"
#include "coordinator/audit_line.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

enum { MAX_PEM_BYTES = 1 << 20, SIGNATURE_BYTES = 64 };

/* With what OpenSSL says of its newest failure. */
static enum status key_error(struct error *err, const char *path, const char *expected)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: expected %s: %s", path, expected,
                     reason ? reason : "found none");
}

/* An Ed25519 key's id. */
static enum status key_id(const char *path, EVP_PKEY *key, char id[AUDIT_KEY_ID + 1],
                          struct error *err)
{
    unsigned char *der = NULL;
    struct digest d;
    if (!EVP_PKEY_is_a(key, "ED25519"))
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected an Ed25519 key, found another kind: make one with `witan "
                         "manifest keygen`",
                         path);
    int len = i2d_PUBKEY(key, &der);
    if (len <= 0)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    enum status st = hash_parts(&(struct hash_part){der, (size_t)len}, 1, &d, err);
    OPENSSL_free(der);
    if (st == OK)
        audit_hex(&d, id);
    return st;
}

/* --- signing --- */

struct audit_signer {
    EVP_PKEY *key;
    char id[AUDIT_KEY_ID + 1];
};

/* Nobody sits at a coordinator's terminal. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return 0;
}

enum status audit_signer_open(const char *path, struct audit_signer **out, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_check_secret(path, err));
    TRY(file_read_all(path, MAX_PEM_BYTES, &text, &len, err));
    BIO *b = BIO_new_mem_buf(text, (int)len);
    EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL) : NULL;
    BIO_free(b);
    OPENSSL_cleanse(text, len);
    free(text);
    if (!key)
        return key_error(err, path, "a PEM private key without a passphrase");
    struct audit_signer *s = calloc(1, sizeof *s);
    enum status st = s ? key_id(path, key, s->id, err)
                       : error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    if (st != OK) {
        EVP_PKEY_free(key);
        free(s);
        return st;
    }
    s->key = key;
    *out = s;
    return OK;
}

void audit_signer_close(struct audit_signer *s)
{
    if (!s)
        return;
    EVP_PKEY_free(s->key);
    free(s);
}

const char *audit_signer_id(const struct audit_signer *s)
{
    return s->id;
}

enum status audit_sign(const struct audit_signer *s, const char *text,
                       char signature[AUDIT_SIGNATURE_TEXT + 1], struct error *err)
{
    unsigned char raw[SIGNATURE_BYTES];
    size_t len = sizeof raw;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, s->key) == 1 &&
                EVP_DigestSign(ctx, raw, &len, (const unsigned char *)text, strlen(text)) == 1 &&
                len == sizeof raw;
    EVP_MD_CTX_free(ctx);
    if (!good)
        return key_error(err, "audit.key", "a signature");
    EVP_EncodeBlock((unsigned char *)signature, raw, sizeof raw);
    return OK;
}

/* --- trust --- */

struct audit_trust {
    int count;
    struct {
        char id[AUDIT_KEY_ID + 1];
        EVP_PKEY *key;
    } keys[AUDIT_MAX_TRUSTED];
};

static bool fits(EVP_PKEY *key, const char *text, const unsigned char raw[SIGNATURE_BYTES])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, raw, SIGNATURE_BYTES, (const unsigned char *)text,
                                 strlen(text)) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

/* The one spelling of 64 bytes. */
static bool decode(const char *text, unsigned char raw[SIGNATURE_BYTES])
{
    unsigned char wide[AUDIT_SIGNATURE_TEXT / 4 * 3 + 1];
    char again[AUDIT_SIGNATURE_TEXT + 1];
    if (strlen(text) != AUDIT_SIGNATURE_TEXT ||
        EVP_DecodeBlock(wide, (const unsigned char *)text, AUDIT_SIGNATURE_TEXT) <= 0)
        return false;
    memcpy(raw, wide, SIGNATURE_BYTES);
    EVP_EncodeBlock((unsigned char *)again, raw, SIGNATURE_BYTES);
    return strcmp(again, text) == 0;
}

enum audit_trusted audit_trust_check(const struct audit_trust *t, const char *id, const char *text,
                                     const char *signature)
{
    unsigned char raw[SIGNATURE_BYTES];
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->keys[i].id, id) == 0)
            return decode(signature, raw) && fits(t->keys[i].key, text, raw) ? AUDIT_SIGNED
                                                                             : AUDIT_BROKEN;
    return AUDIT_STRANGER;
}

/* Takes `key` over. */
static enum status trust_add(struct audit_trust *t, const char *path, EVP_PKEY *key,
                             struct error *err)
{
    enum status st = t->count < AUDIT_MAX_TRUSTED
                         ? key_id(path, key, t->keys[t->count].id, err)
                         : error_set(err, ERR_LIMIT, "%s: expected at most %d keys, found more",
                                     path, (int)AUDIT_MAX_TRUSTED);
    if (st != OK) {
        EVP_PKEY_free(key);
        return st;
    }
    t->keys[t->count++].key = key;
    return OK;
}

/* One block of a PEM file. */
static enum status trust_block(struct audit_trust *t, const char *path, const char *kind,
                               const unsigned char *der, long len, struct error *err)
{
    const unsigned char *at = der;
    EVP_PKEY *key = strcmp(kind, PEM_STRING_PUBLIC) == 0 ? d2i_PUBKEY(NULL, &at, len) : NULL;
    if (key && at == der + len)
        return trust_add(t, path, key, err);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: expected public keys, found %s%s", path,
                     strstr(kind, "PRIVATE") ? "a private one: keep that where the log is written, "
                                               "and give its .pem"
                                             : "a block of another kind: ",
                     strstr(kind, "PRIVATE") ? "" : kind);
}

static enum status trust_read(struct audit_trust *t, const char *path, struct error *err)
{
    char *text, *kind, *header;
    unsigned char *der;
    long der_len;
    size_t len;
    int before = t->count;
    enum status st = OK;
    TRY(file_read_all(path, MAX_PEM_BYTES, &text, &len, err));
    BIO *b = BIO_new_mem_buf(text, (int)len);
    while (st == OK && b && PEM_read_bio(b, &kind, &header, &der, &der_len) == 1) {
        st = trust_block(t, path, kind, der, der_len, err);
        OPENSSL_free(kind);
        OPENSSL_free(header);
        OPENSSL_free(der);
    }
    bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    BIO_free(b);
    free(text);
    if (st == OK && (t->count == before || !at_end))
        return key_error(err, path, "PEM public keys (BEGIN PUBLIC KEY)");
    ERR_clear_error();
    return st;
}

static int is_pem(const struct dirent *e)
{
    size_t len = strlen(e->d_name);
    return e->d_name[0] != '.' && len > 4 && strcmp(e->d_name + len - 4, ".pem") == 0;
}

static enum status trust_folder(struct audit_trust *t, const char *path, struct error *err)
{
    struct dirent **names = NULL;
    char file[PATH_MAX];
    int n = scandir(path, &names, is_pem, alphasort);
    enum status st = n < 0    ? error_errno(err, errno, "%s", path)
                     : n == 0 ? error_set(err, ERR_INVALID,
                                          "%s: expected public keys (NAME.pem), found none", path)
                              : OK;
    for (int i = 0; i < n; i++) {
        if (st == OK && snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) < PATH_MAX)
            st = trust_read(t, file, err);
        free(names[i]);
    }
    free(names);
    return st;
}

enum status audit_trust_open(const char *path, struct audit_trust **out, struct error *err)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return error_errno(err, errno, "%s", path);
    struct audit_trust *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    enum status st = S_ISDIR(s.st_mode) ? trust_folder(t, path, err) : trust_read(t, path, err);
    if (st != OK) {
        audit_trust_close(t);
        return st;
    }
    *out = t;
    return OK;
}

void audit_trust_close(struct audit_trust *t)
{
    if (!t)
        return;
    for (int i = 0; i < t->count; i++)
        EVP_PKEY_free(t->keys[i].key);
    free(t);
}

/* --- the auditor's key --- */

enum status audit_hmac_key_make(const char *path, struct error *err)
{
    struct digest d;
    char text[AUDIT_DIGEST_HEX + 2];
    _Static_assert(sizeof d.b == AUDIT_HMAC_KEY_BYTES, "one spelling");
    while (getrandom(d.b, sizeof d.b, 0) != (ssize_t)sizeof d.b)
        if (errno != EINTR)
            return error_errno(err, errno, "random bytes");
    audit_hex(&d, text);
    text[AUDIT_DIGEST_HEX] = '\n';
    enum status st = file_write(path, text, AUDIT_DIGEST_HEX + 1, 0600, false, err);
    OPENSSL_cleanse(text, sizeof text);
    OPENSSL_cleanse(&d, sizeof d);
    return st;
}

enum status audit_hmac_key_read(const char *path, struct audit_hmac_key *out, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_check_secret(path, err));
    TRY(file_read_all(path, MAX_PEM_BYTES, &text, &len, err));
    size_t end = len > 0 && text[len - 1] == '\n' ? len - 1 : len;
    long got = 0;
    text[end] = '\0';
    bool good = end == 2 * (size_t)AUDIT_HMAC_KEY_BYTES && strspn(text, "0123456789abcdef") == end;
    unsigned char *raw = good ? OPENSSL_hexstr2buf(text, &got) : NULL;
    good = raw && got == AUDIT_HMAC_KEY_BYTES;
    if (good)
        memcpy(out->b, raw, sizeof out->b);
    OPENSSL_clear_free(raw, raw ? (size_t)got : 0);
    OPENSSL_cleanse(text, len);
    free(text);
    return good ? OK
                : error_set(err, ERR_INVALID,
                            "%s: expected %d hex digits, found something else: make a key with "
                            "`witan audit hmac-key`",
                            path, 2 * AUDIT_HMAC_KEY_BYTES);
}

enum status audit_hmac(const struct audit_hmac_key *key, const char *what, const int32_t *ids,
                       int32_t count, char hex[65], struct error *err)
{
    char line[64];
    struct digest d;
    unsigned len = 0;
    size_t head = (size_t)snprintf(line, sizeof line, "witan audit %.16s 1\n", what);
    unsigned char *text = malloc(head + (size_t)count * 4);
    hex[0] = '\0';
    if (!text)
        return error_set(err, ERR_NO_MEMORY, "no memory for %d token ids", count);
    memcpy(text, line, head);
    for (int32_t i = 0; i < count; i++)
        for (int k = 0; k < 4; k++)
            text[head + 4 * (size_t)i + (size_t)k] = (unsigned char)((uint32_t)ids[i] >> 8 * k);
    bool good = HMAC(EVP_sha256(), key->b, sizeof key->b, text, head + (size_t)count * 4, d.b,
                     &len) &&
                len == sizeof d.b;
    free(text);
    if (!good)
        return error_set(err, ERR_NO_MEMORY, "HMAC-SHA256: OpenSSL failed");
    audit_hex(&d, hex);
    return OK;
}
