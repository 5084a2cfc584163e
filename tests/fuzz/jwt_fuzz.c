/*
 * Any bytes as what an issuer says. Input: a byte that chooses a set of keys, a token, claims
 * alone, or claims behind a signature that is right (a header, a line's end, claims), then the
 * text. What is refused must say why in one line; what is accepted has a caller with an id and a
 * time.
 */
#include "base/check.h"
#include "coordinator/jwt.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NOW = 1800000000, MAX_TEXT = 6000 };

static const struct jwt_rules rules = {.issuer = "https://id.example",
                                       .audience = "witan",
                                       .tenant_claim = "sub",
                                       .scopes_claim = "scope",
                                       .leeway_s = 60};

/* RFC 8032, section 7.1, test 1: its key pair, as public as can be. */
static const unsigned char secret[32] = {
    0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
    0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};
static const char set_text[] = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"d1\","
                               "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"},"
                               "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e1\","
                               "\"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\","
                               "\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}";

static const struct jwks *the_set(void)
{
    static struct jwks *set;
    struct error err;
    if (!set)
        CHECK(jwks_parse("set", set_text, sizeof set_text - 1, &set, &err) == OK, "%s", err.msg);
    return set;
}

static char *encode(char *out, const void *bytes, size_t len)
{
    int n = EVP_EncodeBlock((unsigned char *)out, bytes, (int)len);
    while (n > 0 && out[n - 1] == '=')
        n--;
    for (int i = 0; i < n; i++)
        out[i] = out[i] == '+' ? '-' : out[i] == '/' ? '_' : out[i];
    return out + n;
}

/* "HEADER\nCLAIMS" as a token whose signature is right; its length. */
static size_t sign(const char *text, size_t len, char out[4 * MAX_TEXT])
{
    unsigned char signature[64];
    size_t n = sizeof signature;
    const char *line = memchr(text, '\n', len), *end = text + len;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret, sizeof secret);
    EVP_MD_CTX *m = EVP_MD_CTX_new();
    CHECK(key && m, "no memory");
    line = line ? line : end;
    char *at = encode(out, text, (size_t)(line - text));
    *at++ = '.';
    at = encode(at, line < end ? line + 1 : end, line < end ? (size_t)(end - line - 1) : 0);
    CHECK(EVP_DigestSignInit(m, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestSign(m, signature, &n, (unsigned char *)out, (size_t)(at - out)) == 1,
          "no signature");
    *at++ = '.';
    at = encode(at, signature, n);
    EVP_MD_CTX_free(m);
    EVP_PKEY_free(key);
    return (size_t)(at - out);
}

static void check_refusal(enum status st, const struct error *err)
{
    CHECK(err->code == st && err->msg[0], "%s", err->msg);
    CHECK(!strchr(err->msg, '\n') && strlen(err->msg) < sizeof err->msg - 1, "%s", err->msg);
}

static void check_claims(enum status st, const struct jwt_claims *c, enum auth_refusal why,
                         const struct error *err)
{
    if (st != OK) {
        CHECK(st == ERR_INVALID && (int)why < (int)AUTH_REFUSAL_COUNT, "%d", why);
        check_refusal(st, err);
        return;
    }
    CHECK(strlen(c->caller.id) == 21 && !(c->caller.scopes & ~(uint32_t)AUTH_ALL), "%s",
          c->caller.id);
    CHECK(c->from_s <= NOW && c->until_s > NOW, "%lld", (long long)c->until_s);
}

static void set_of_keys(const char *text, size_t len)
{
    struct jwks *k = NULL;
    struct error err = {.code = OK};
    enum status st = jwks_parse("set", text, len, &k, &err);
    if (st != OK)
        check_refusal(st, &err);
    else
        CHECK(jwks_count(k) > 0 && jwks_count(k) <= JWKS_MAX_KEYS, "%zu", jwks_count(k));
    jwks_destroy(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char made[4 * MAX_TEXT];
    struct jwt_claims claims;
    enum auth_refusal why = AUTH_REFUSED_NONE;
    struct error err = {.code = OK};
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    size_t len = size - 1;
    enum status st = OK;
    switch (data[0] % 4) {
    case 0:
        set_of_keys(text, len);
        return 0;
    case 1:
        st = jwt_check(the_set(), &rules, text, len, NOW, &claims, &why, &err);
        break;
    case 2:
        st = jwt_read_claims(&rules, text, len, NOW, &claims, &why, &err);
        break;
    default:
        len = len > MAX_TEXT ? MAX_TEXT : len;
        len = sign(text, len, made);
        st = jwt_check(the_set(), &rules, made, len, NOW, &claims, &why, &err);
    }
    check_claims(st, &claims, why, &err);
    return 0;
}
