/*
 * An issuer of tokens: a key of each kind, their JSON Web Key Set, and tokens that say what a test
 * wants. Included by one file of a program.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_ISSUER_H
#define WITAN_TESTS_UNIT_COORDINATOR_ISSUER_H

#include "tests/unit/unit.h"

#include "base/buf.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>

enum { ISSUER_RSA, ISSUER_EC, ISSUER_ED, ISSUER_KEYS };

#define HEADER_RSA "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"r1\"}"
#define HEADER_EC "{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"e1\"}"
#define HEADER_ED "{\"alg\":\"EdDSA\",\"kid\":\"d1\"}"

struct issuer {
    EVP_PKEY *keys[ISSUER_KEYS];
};

static inline struct issuer issuer_make(void)
{
    struct issuer i = {
        {EVP_RSA_gen(2048), EVP_EC_gen("P-256"), EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")}};
    for (int k = 0; k < ISSUER_KEYS; k++)
        assert_non_null(i.keys[k]);
    return i;
}

static inline void issuer_free(struct issuer *i)
{
    for (int k = 0; k < ISSUER_KEYS; k++)
        EVP_PKEY_free(i->keys[k]);
}

/* Behind what `out` has. */
static inline void issuer_encode(struct buf *out, const void *bytes, size_t len)
{
    unsigned char text[4096];
    assert_true(len < 3000);
    int n = EVP_EncodeBlock(text, bytes, (int)len);
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (int i = 0; i < n; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    assert_int_equal(buf_append(out, text, (size_t)n, NULL), OK);
}

/* ,"name":"number" */
static inline void issuer_number(struct buf *out, const char *name, const EVP_PKEY *key,
                                 const char *param, int pad)
{
    unsigned char bytes[512];
    BIGNUM *n = NULL;
    assert_int_equal(EVP_PKEY_get_bn_param(key, param, &n), 1);
    int len = pad ? BN_bn2binpad(n, bytes, pad) : BN_bn2bin(n, bytes);
    buf_printf(out, NULL, ",\"%s\":\"", name);
    issuer_encode(out, bytes, (size_t)len);
    buf_puts(out, "\"", NULL);
    BN_free(n);
}

/* One key as a JWK, of this id and with these fields more (",..." or ""). */
static inline void issuer_jwk(const struct issuer *i, int key, const char *id, const char *more,
                              struct buf *out)
{
    static const char *const types[] = {"RSA", "EC\",\"crv\":\"P-256", "OKP\",\"crv\":\"Ed25519"};
    unsigned char raw[32];
    size_t len = sizeof raw;
    buf_printf(out, NULL, "{\"kty\":\"%s\",\"kid\":\"%s\"%s", types[key], id, more);
    if (key == ISSUER_RSA) {
        issuer_number(out, "n", i->keys[key], OSSL_PKEY_PARAM_RSA_N, 0);
        issuer_number(out, "e", i->keys[key], OSSL_PKEY_PARAM_RSA_E, 0);
    } else if (key == ISSUER_EC) {
        issuer_number(out, "x", i->keys[key], OSSL_PKEY_PARAM_EC_PUB_X, 32);
        issuer_number(out, "y", i->keys[key], OSSL_PKEY_PARAM_EC_PUB_Y, 32);
    } else {
        assert_int_equal(EVP_PKEY_get_raw_public_key(i->keys[key], raw, &len), 1);
        buf_puts(out, ",\"x\":\"", NULL);
        issuer_encode(out, raw, len);
        buf_puts(out, "\"", NULL);
    }
    buf_puts(out, "}", NULL);
}

/* All three, as "r1", "e1", "d1", with one for another use and one of another kind between. */
static inline void issuer_jwks(const struct issuer *i, struct buf *out)
{
    static const char *const ids[] = {"r1", "e1", "d1"};
    static const char *const more[] = {",\"use\":\"sig\",\"alg\":\"RS256\"", "",
                                       ",\"alg\":\"EdDSA\""};
    buf_puts(out, "{\"keys\":[{\"kty\":\"RSA\",\"use\":\"enc\",\"n\":\"AQ\",\"e\":\"AQAB\"},",
             NULL);
    for (int k = 0; k < ISSUER_KEYS; k++) {
        issuer_jwk(i, k, ids[k], more[k], out);
        buf_puts(out, ",", NULL);
    }
    buf_puts(out, "{\"kty\":\"EC\",\"crv\":\"P-521\",\"kid\":\"big\"}]}", NULL);
}

static inline void issuer_sign(EVP_PKEY *key, const char *text, size_t len, struct buf *out)
{
    unsigned char signature[512], raw[64];
    size_t n = sizeof signature;
    EVP_MD_CTX *m = EVP_MD_CTX_new();
    const EVP_MD *digest = EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
    assert_int_equal(EVP_DigestSignInit(m, NULL, digest, NULL, key), 1);
    assert_int_equal(EVP_DigestSign(m, signature, &n, (const unsigned char *)text, len), 1);
    EVP_MD_CTX_free(m);
    if (!EVP_PKEY_is_a(key, "EC")) {
        issuer_encode(out, signature, n);
        return;
    }
    const unsigned char *der = signature;
    ECDSA_SIG *s = d2i_ECDSA_SIG(NULL, &der, (long)n);
    assert_non_null(s);
    BN_bn2binpad(ECDSA_SIG_get0_r(s), raw, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(s), raw + 32, 32);
    ECDSA_SIG_free(s);
    issuer_encode(out, raw, sizeof raw);
}

/* HEADER.CLAIMS.SIGNATURE, which `out` then holds alone. */
static inline const char *issuer_token(const struct issuer *i, int key, const char *header,
                                       const char *claims, struct buf *out)
{
    buf_clear(out);
    issuer_encode(out, header, strlen(header));
    buf_puts(out, ".", NULL);
    issuer_encode(out, claims, strlen(claims));
    struct buf text = {0};
    buf_init(&text, 1 << 16);
    assert_int_equal(buf_append(&text, out->data, out->len, NULL), OK);
    buf_puts(out, ".", NULL);
    issuer_sign(i->keys[key], text.data, text.len, out);
    buf_fini(&text);
    return out->data;
}

#endif
