/*
 * Keys and signatures of manifests, Ed25519 (RFC 8032) by OpenSSL. What is signed is a text of two
 * lines that names the manifest's SHA-256, so that a key in other hands (a token, another program)
 * can sign it too. Signatures lie in a file of their own, a JSON object a line: signing changes
 * nothing that was signed.
 */
#include "base/check.h"
#include "base/json.h"
#include "partition/manifest_private.h"
#include "partition/shown.h"

#include <dirent.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SIGNATURE_BYTES = 64,
    SIGNATURE_TEXT = 88, /* in base64 */
    MAX_NAME = 128,
    MAX_PEM_BYTES = 1 << 20,
    MAX_SIG_BYTES = MANIFEST_MAX_KEYS * 1024,
};

/* What a key signs; "%s" is the manifest's SHA-256. */
#define SIGNED_TEXT "witan manifest 1\nsha256:%s\n"
enum { SIGNED_BYTES = sizeof(SIGNED_TEXT) - 3 + MANIFEST_DIGEST_HEX };

struct message {
    char text[SIGNED_BYTES + 1];
};

static struct message message_of(const struct digest *digest)
{
    struct message m;
    char hex[MANIFEST_DIGEST_HEX + 1];
    digest_hex(digest, hex);
    snprintf(m.text, sizeof m.text, SIGNED_TEXT, hex);
    return m;
}

/* With what OpenSSL says of its newest failure. */
static enum status key_error(struct error *err, const char *path, const char *expected)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: expected %s: %s", path, expected,
                     reason ? reason : "found none");
}

static enum status key_id(EVP_PKEY *key, struct digest *id, struct error *err)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    if (len <= 0)
        return error_set(err, ERR_NO_MEMORY, "no memory for a public key");
    enum status st = hash_parts(&(struct hash_part){der, (size_t)len}, 1, id, err);
    OPENSSL_free(der);
    return st;
}

static enum status check_kind(const char *path, EVP_PKEY *key, struct error *err)
{
    if (EVP_PKEY_is_a(key, "ED25519"))
        return OK;
    const char *name = EVP_PKEY_get0_type_name(key);
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: expected an Ed25519 key, found %s: make one with `witan manifest keygen`",
                     path, name ? name : "another");
}

/* --- trust --- */

struct trusted {
    char name[MAX_NAME]; /* of its file */
    struct digest id;
    EVP_PKEY *key;
    bool has_signed;
};

struct trust {
    struct trusted keys[MANIFEST_MAX_KEYS];
    int count;
};

static void trust_fini(struct trust *t)
{
    for (int i = 0; i < t->count; i++)
        EVP_PKEY_free(t->keys[i].key);
    t->count = 0;
}

static struct trusted *trust_find(struct trust *t, const struct digest *id)
{
    for (int i = 0; i < t->count; i++)
        if (digest_equal(&t->keys[i].id, id))
            return &t->keys[i];
    return NULL;
}

/* Names go into messages and answers: one line of UTF-8, whatever the file is called. */
static void make_plain(char *name)
{
    json_t *utf8 = json_string(name);
    for (unsigned char *c = (unsigned char *)name; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c >= 0x80 && !utf8))
            *c = '?';
    json_decref(utf8);
}

/* Takes `key` over. One that is known already counts once. */
static enum status trust_add(struct trust *t, const char *path, EVP_PKEY *key, struct error *err)
{
    struct digest id;
    enum status st = check_kind(path, key, err);
    if (st == OK)
        st = key_id(key, &id, err);
    if (st == OK && !trust_find(t, &id)) {
        if (t->count == MANIFEST_MAX_KEYS) {
            st = error_set(err, ERR_LIMIT, "%s: expected at most %d keys, found more", path,
                           MANIFEST_MAX_KEYS);
        } else {
            struct trusted *k = &t->keys[t->count++];
            const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
            size_t len = strlen(base);
            if (len > 4 && strcmp(base + len - 4, ".pem") == 0)
                len -= 4;
            snprintf(k->name, sizeof k->name, "%.*s", (int)len, base);
            make_plain(k->name);
            k->id = id;
            k->key = key;
            return OK;
        }
    }
    EVP_PKEY_free(key);
    return st;
}

/* One block of a PEM file. */
static enum status trust_block(struct trust *t, const char *path, const char *kind,
                               const unsigned char *der, long len, struct error *err)
{
    if (strstr(kind, "PRIVATE KEY"))
        return error_set(err, ERR_INVALID,
                         "%s: expected public keys, found a private one: keep it where manifests "
                         "are signed, and put its .pem here",
                         path);
    const unsigned char *at = der;
    EVP_PKEY *key = strcmp(kind, PEM_STRING_PUBLIC) == 0 ? d2i_PUBKEY(NULL, &at, len) : NULL;
    if (!key || at != der + len) {
        EVP_PKEY_free(key);
        ERR_clear_error();
        return error_set(
            err, ERR_INVALID, "%s: expected a public key, found %s%s", path,
            key ? "more than one in a block" : "another block: ", key ? "" : shown(kind).s);
    }
    return trust_add(t, path, key, err);
}

static enum status trust_parse(struct trust *t, const char *path, const char *text, size_t len,
                               struct error *err)
{
    char *kind, *header;
    unsigned char *der;
    long der_len;
    int found = 0;
    enum status st = OK;
    BIO *b = BIO_new_mem_buf(text, (int)len);
    if (!b)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
    while (st == OK && PEM_read_bio(b, &kind, &header, &der, &der_len) == 1) {
        found++;
        st = trust_block(t, path, kind, der, der_len, err);
        OPENSSL_free(kind);
        OPENSSL_free(header);
        OPENSSL_free(der);
    }
    BIO_free(b);
    bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (st == OK && (found == 0 || !at_end))
        return key_error(err, path, "PEM public keys (BEGIN PUBLIC KEY)");
    ERR_clear_error();
    return st;
}

static enum status trust_read(struct trust *t, const char *path, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_read_all(path, MAX_PEM_BYTES, &text, &len, err));
    enum status st = trust_parse(t, path, text, len, err);
    free(text);
    return st;
}

static int is_pem(const struct dirent *e)
{
    size_t len = strlen(e->d_name);
    return e->d_name[0] != '.' && len > 4 && strcmp(e->d_name + len - 4, ".pem") == 0;
}

static enum status trust_load(struct trust *t, const char *path, struct error *err)
{
    struct stat s;
    struct dirent **names = NULL;
    char file[PATH_MAX];
    if (stat(path, &s) != 0)
        return errno != ENOENT
                   ? error_errno(err, errno, "%s", path)
                   : error_set(err, ERR_NOT_FOUND,
                               "%s: expected the public keys to trust (a PEM file, or a folder of "
                               "NAME.pem), found nothing: say where they lie on this host",
                               path);
    if (!S_ISDIR(s.st_mode))
        return trust_read(t, path, err);
    int n = scandir(path, &names, is_pem, alphasort);
    enum status st = n < 0 ? error_errno(err, errno, "%s", path) : OK;
    for (int i = 0; i < n; i++) {
        if (st == OK && snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name) < PATH_MAX)
            st = trust_read(t, file, err);
        free(names[i]);
    }
    free(names);
    if (st == OK && t->count == 0)
        st = error_set(err, ERR_INVALID, "%s: expected public keys (NAME.pem), found none", path);
    return st;
}

/* --- the file of signatures --- */

struct signature {
    struct digest key;
    char name[MAX_NAME];
    unsigned char bytes[SIGNATURE_BYTES];
};

struct signatures {
    struct signature list[MANIFEST_MAX_KEYS];
    int count;
};

static enum status parse_signature(const char *what, const json_t *obj, struct signature *s,
                                   struct error *err)
{
    const char *key, *text, *name = "";
    unsigned char raw[SIGNATURE_TEXT / 4 * 3 + 1];
    char again[SIGNATURE_TEXT + 1];
    if (!json_is_object(obj))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                         json_type_words(obj));
    TRY(json_get_string(obj, what, "key", true, &key, err));
    TRY(json_get_string(obj, what, "name", false, &name, err));
    TRY(json_get_string(obj, what, "signature", true, &text, err));
    if (strlen(key) != MANIFEST_DIGEST_HEX || !digest_from_hex(key, &s->key))
        return error_set(err, ERR_INVALID, "%s: key: expected %d hex digits, found \"%s\"", what,
                         MANIFEST_DIGEST_HEX, shown(key).s);
    snprintf(s->name, sizeof s->name, "%s", name);
    bool good = strlen(text) == SIGNATURE_TEXT &&
                EVP_DecodeBlock(raw, (const unsigned char *)text, SIGNATURE_TEXT) > 0;
    if (good) {
        memcpy(s->bytes, raw, sizeof s->bytes);
        EVP_EncodeBlock((unsigned char *)again, s->bytes, sizeof s->bytes);
        good = strcmp(again, text) == 0;
    }
    if (!good)
        return error_set(err, ERR_INVALID,
                         "%s: signature: expected %d bytes in base64, found \"%s\"", what,
                         SIGNATURE_BYTES, shown(text).s);
    return OK;
}

static enum status parse_signatures(const char *path, const char *text, size_t len,
                                    struct signatures *out, struct error *err)
{
    char what[MANIFEST_MAX_FOLDER + 32];
    const char *at = text, *end = text + len;
    for (int line = 1; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((newline ? newline : end) - at);
        snprintf(what, sizeof what, "%s: line %d", path, line);
        if (n > 0) {
            json_t *root = NULL;
            if (out->count == MANIFEST_MAX_KEYS)
                return error_set(err, ERR_LIMIT, "%s: expected at most %d signatures, found more",
                                 path, MANIFEST_MAX_KEYS);
            TRY(json_parse(what, at, n, &root, err));
            enum status st = parse_signature(what, root, &out->list[out->count++], err);
            json_decref(root);
            TRY(st);
        }
        at += n + 1;
    }
    return OK;
}

enum status manifest_parse_signatures(const char *what, const char *text, size_t len, int *count,
                                      struct error *err)
{
    struct signatures *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory", what);
    enum status st = parse_signatures(what, text, len, s, err);
    *count = s->count;
    free(s);
    return st;
}

static enum status read_signatures(const char *path, struct signatures *out, struct error *err)
{
    char sig[MANIFEST_MAX_FOLDER];
    char *text;
    size_t len;
    out->count = 0;
    TRY(manifest_sig_path(path, sig, sizeof sig, err));
    TRY(file_read_all(sig, MAX_SIG_BYTES, &text, &len, err));
    enum status st = parse_signatures(sig, text, len, out, err);
    free(text);
    return st;
}

static enum status write_signatures(const char *path, const struct signatures *s, struct error *err)
{
    char sig[MANIFEST_MAX_FOLDER], hex[MANIFEST_DIGEST_HEX + 1], base64[SIGNATURE_TEXT + 1];
    struct buf out;
    buf_init(&out, MAX_SIG_BYTES);
    enum status st = manifest_sig_path(path, sig, sizeof sig, err);
    for (int i = 0; st == OK && i < s->count; i++) {
        digest_hex(&s->list[i].key, hex);
        EVP_EncodeBlock((unsigned char *)base64, s->list[i].bytes, SIGNATURE_BYTES);
        st = buf_printf(&out, err, "{\"key\": \"%s\", \"name\": ", hex);
        if (st == OK)
            st = buf_json_string(&out, s->list[i].name, strlen(s->list[i].name), err);
        if (st == OK)
            st = buf_printf(&out, err, ", \"signature\": \"%s\"}\n", base64);
    }
    if (st == OK)
        st = file_write(sig, out.data, out.len, 0644, true, err);
    buf_fini(&out);
    return st;
}

/* --- checking --- */

static bool fits(const struct signature *s, EVP_PKEY *key, const struct message *m)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, s->bytes, sizeof s->bytes, (const unsigned char *)m->text,
                                 SIGNED_BYTES) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return good;
}

/* Names of the trusted keys that have signed, or have not; as many as fit. */
static void list_names(const struct trust *t, bool has_signed, struct buf *out)
{
    for (int i = 0; i < t->count; i++)
        if (t->keys[i].has_signed == has_signed)
            (void)buf_printf(out, NULL, "%s%s", out->len ? ", " : "", t->keys[i].name);
}

static enum status too_few(const char *path, const char *trust, const struct trust *t,
                           int threshold, int found, const struct signature *stranger,
                           struct error *err)
{
    struct buf missing;
    char other[256] = "", id[MANIFEST_DIGEST_HEX + 1];
    buf_init(&missing, 300);
    list_names(t, false, &missing);
    if (stranger) {
        digest_hex(&stranger->key, id);
        snprintf(other, sizeof other,
                 "; there is one by a key that is not trusted (\"%.60s\", "
                 "%.16s...)",
                 stranger->name, id);
    }
    error_set(err, ERR_INVALID,
              "%s: expected valid signatures by %d of the %d keys in %s, found %d%s; not by: %s. "
              "Sign it with `witan manifest sign`%s",
              path, threshold, t->count, shown(trust).s, found, other,
              missing.data ? missing.data : "",
              stranger ? ", or put that key's .pem there if you trust it" : "");
    buf_fini(&missing);
    return ERR_INVALID;
}

static enum status count_signatures(const char *path, const struct digest *digest,
                                    const char *trust, int threshold, struct trust *t,
                                    struct signatures *s, struct error *err)
{
    char id[MANIFEST_DIGEST_HEX + 1];
    const struct signature *stranger = NULL;
    struct message m = message_of(digest);
    int found = 0;
    for (int i = 0; i < s->count; i++) {
        struct trusted *k = trust_find(t, &s->list[i].key);
        if (!k) {
            stranger = &s->list[i];
            continue;
        }
        digest_hex(&k->id, id);
        if (!fits(&s->list[i], k->key, &m))
            return error_set(err, ERR_INVALID,
                             "%s.sig: signature of key %s (%.16s...): expected one of this "
                             "manifest, found another: the manifest changed after it was signed; "
                             "take the signed one, or sign this with `witan manifest sign`",
                             path, k->name, id);
        found += !k->has_signed;
        k->has_signed = true;
    }
    return found >= threshold ? OK : too_few(path, trust, t, threshold, found, stranger, err);
}

enum status manifest_check_signatures(const char *path, const struct digest *digest,
                                      const char *trust, int threshold, char **signers,
                                      struct error *err)
{
    struct trust *t = calloc(1, sizeof *t);
    struct signatures *s = calloc(1, sizeof *s);
    struct buf names;
    enum status st = OK;
    buf_init(&names, (size_t)MANIFEST_MAX_KEYS * (MAX_NAME + 2));
    if (!t || !s) {
        st = error_set(err, ERR_NO_MEMORY, "%s: no memory", path);
        goto out;
    }
    TRY_OUT(st, trust_load(t, trust, err));
    if (threshold < 1 || threshold > t->count) {
        st = error_set(err, ERR_INVALID, "%s: expected a threshold of 1 to its %d keys, found %d",
                       trust, t->count, threshold);
        goto out;
    }
    st = read_signatures(path, s, err);
    if (st != OK && st != ERR_NOT_FOUND) /* none at all: say who should */
        goto out;
    TRY_OUT(st, count_signatures(path, digest, trust, threshold, t, s, err));
    list_names(t, true, &names);
    *signers = names.data;
    names.data = NULL;
out:
    buf_fini(&names);
    if (t)
        trust_fini(t);
    free(t);
    free(s);
    return st;
}

/* --- making --- */

/* The two PEM texts of a key, in memory that BIO_free releases. */
static bool pem_of(EVP_PKEY *key, BIO **secret, BIO **open)
{
    *secret = BIO_new(BIO_s_secmem());
    *open = BIO_new(BIO_s_mem());
    return *secret && *open &&
           PEM_write_bio_PKCS8PrivateKey(*secret, key, NULL, NULL, 0, NULL, NULL) == 1 &&
           PEM_write_bio_PUBKEY(*open, key) == 1;
}

static enum status write_pair(const char *base, BIO *secret, BIO *open, struct error *err)
{
    char key_path[MANIFEST_MAX_FOLDER], pem_path[MANIFEST_MAX_FOLDER];
    char *text = NULL;
    if (strlen(base) + 5 > sizeof key_path)
        return error_set(err, ERR_INVALID, "%.100s: expected a path of fewer than %zu bytes", base,
                         sizeof key_path - 4);
    snprintf(key_path, sizeof key_path, "%s.key", base);
    snprintf(pem_path, sizeof pem_path, "%s.pem", base);
    long len = BIO_get_mem_data(secret, &text);
    TRY(file_write(key_path, text, (size_t)len, 0600, false, err));
    len = BIO_get_mem_data(open, &text);
    enum status st = file_write(pem_path, text, (size_t)len, 0644, false, err);
    if (st != OK)
        unlink(key_path);
    return st;
}

enum status manifest_keygen(const char *base, char id[MANIFEST_DIGEST_HEX + 1], struct error *err)
{
    BIO *secret = NULL, *open = NULL;
    struct digest digest;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    enum status st = key && pem_of(key, &secret, &open) ? key_id(key, &digest, err)
                                                        : key_error(err, base, "a new Ed25519 key");
    if (st == OK)
        st = write_pair(base, secret, open, err);
    if (st == OK)
        digest_hex(&digest, id);
    BIO_free(secret);
    BIO_free(open);
    EVP_PKEY_free(key);
    return st;
}

static enum status read_private(const char *path, EVP_PKEY **out, struct error *err)
{
    char *text;
    size_t len;
    TRY(file_check_secret(path, err));
    TRY(file_read_all(path, MAX_PEM_BYTES, &text, &len, err));
    BIO *b = BIO_new_mem_buf(text, (int)len);
    EVP_PKEY *key = b ? PEM_read_bio_PrivateKey(b, NULL, NULL, NULL) : NULL;
    BIO_free(b);
    OPENSSL_cleanse(text, len);
    free(text);
    if (!key)
        return key_error(err, path, "a PEM private key");
    enum status st = check_kind(path, key, err);
    if (st != OK)
        EVP_PKEY_free(key);
    else
        *out = key;
    return st;
}

static enum status sign_with(EVP_PKEY *key, const char *name, const struct digest *digest,
                             struct signature *out, struct error *err)
{
    struct message m = message_of(digest);
    size_t len = sizeof out->bytes;
    TRY(key_id(key, &out->key, err));
    snprintf(out->name, sizeof out->name, "%s", name ? name : "");
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
                EVP_DigestSign(ctx, out->bytes, &len, (const unsigned char *)m.text,
                               SIGNED_BYTES) == 1 &&
                len == sizeof out->bytes;
    EVP_MD_CTX_free(ctx);
    return good ? OK : key_error(err, "the key", "a signature");
}

/* Replaces an older signature of the same key. */
static enum status put(struct signatures *s, const struct signature *one, const char *path,
                       struct error *err)
{
    int i = 0;
    while (i < s->count && !digest_equal(&s->list[i].key, &one->key))
        i++;
    if (i == MANIFEST_MAX_KEYS)
        return error_set(err, ERR_LIMIT, "%s.sig: expected at most %d signatures, found as many",
                         path, MANIFEST_MAX_KEYS);
    s->list[i] = *one;
    s->count = i == s->count ? i + 1 : s->count;
    return OK;
}

/* Nobody signs what nobody could open. */
static enum status read_to_sign(const char *path, struct digest *digest, struct error *err)
{
    char *text;
    size_t len;
    struct manifest *m = NULL;
    TRY(manifest_read_text(path, &text, &len, digest, err));
    enum status st = manifest_parse(path, text, len, &m, err);
    manifest_close(m);
    free(text);
    return st;
}

enum status manifest_sign(const char *path, const char *key_path, const char *name,
                          char id[MANIFEST_DIGEST_HEX + 1], struct error *err)
{
    struct digest digest;
    struct signature one = {0};
    EVP_PKEY *key = NULL;
    if (name && strlen(name) >= MAX_NAME)
        return error_set(err, ERR_INVALID, "name: expected fewer than %d bytes, found %zu",
                         MAX_NAME, strlen(name));
    TRY(read_to_sign(path, &digest, err));
    TRY(read_private(key_path, &key, err));
    enum status st = ERR_NO_MEMORY;
    struct signatures *s = calloc(1, sizeof *s);
    if (s)
        st = sign_with(key, name, &digest, &one, err);
    else
        error_set(err, st, "%s: no memory", path);
    if (st == OK) {
        st = read_signatures(path, s, err);
        if (st == ERR_NOT_FOUND)
            st = OK;
    }
    if (st == OK)
        st = put(s, &one, path, err);
    if (st == OK)
        st = write_signatures(path, s, err);
    if (st == OK)
        digest_hex(&one.key, id);
    EVP_PKEY_free(key);
    free(s);
    return st;
}
