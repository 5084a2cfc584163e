/* Tokens checked: see jwt.h. No state. */
#include "coordinator/jwt.h"

#include "base/check.h"
#include "base/json.h"
#include "coordinator/auth_private.h"
#include "coordinator/base64url.h"
#include "coordinator/jwt_private.h"
#include "partition/shown.h"

#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    MAX_SIGNATURE = 1024, /* of RSA with 8192 bits */
    ES256_HALF = 32,
    MAX_DER = 80, /* of two numbers of 32 bytes */
    MAX_LIST = 64,
    SUBJECT_BYTES = 8, /* of the digest that stands for a subject */
};

/* Seconds that a claim may say, and that sums of two stay below. */
static const double MAX_TIME = 1e15;

static enum status refuse(enum auth_refusal what, enum auth_refusal *why)
{
    *why = what;
    return ERR_INVALID;
}

/* --- the parts ---------------------------------------------------------------------------------
 */

/* HEADER.CLAIMS.SIGNATURE, in base64url. */
struct parts {
    const char *at[3];
    size_t len[3];
};

static bool split(const char *token, size_t len, struct parts *p)
{
    const char *end = token + len;
    for (int i = 0; i < 3; i++) {
        const char *dot = memchr(token, '.', (size_t)(end - token));
        if (!dot != (i == 2))
            return false;
        p->at[i] = token;
        p->len[i] = (size_t)((dot ? dot : end) - token);
        token = dot ? dot + 1 : end;
        if (p->len[i] == 0)
            return false;
    }
    return true;
}

/* A part as the JSON object that it is. */
static enum status decode_json(const char *what, const char *text, size_t len, json_t **out,
                               struct error *err)
{
    unsigned char bytes[JWT_MAX_BYTES];
    size_t n = base64url_bytes(len);
    if (!base64url_decode(text, len, bytes))
        return error_set(err, ERR_INVALID, "%s: expected base64url", what);
    TRY(json_parse(what, (const char *)bytes, n, out, err));
    if (json_is_object(*out))
        return OK;
    json_decref(*out);
    *out = NULL;
    return error_set(err, ERR_INVALID, "%s: expected an object", what);
}

/* --- the header --------------------------------------------------------------------------------
 */

static bool is_type(const char *type)
{
    static const char *const known[] = {"JWT", "at+jwt", "application/at+jwt", "application/jwt"};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strcasecmp(type, known[i]) == 0)
            return true;
    return false;
}

static enum status find_algorithm(const char *word, enum jwt_algorithm *out, enum auth_refusal *why,
                                  struct error *err)
{
    for (int i = 0; i < JWT_ALGORITHM_COUNT; i++)
        if (strcmp(word, jwt_algorithm_words[i]) == 0) {
            *out = (enum jwt_algorithm)i;
            return OK;
        }
    error_set(err, ERR_INVALID, "alg: expected RS256, ES256 or EdDSA, found \"%s\"", shown(word).s);
    return refuse(AUTH_REFUSED_ALGORITHM, why);
}

static enum status choose_key(const struct jwks *k, const char *id, enum jwt_algorithm algorithm,
                              const struct jwk **out, enum auth_refusal *why, struct error *err)
{
    char ids[200];
    *out = jwks_find(k, id);
    if (!*out) {
        jwks_print_ids(k, ids, sizeof ids);
        error_set(err, ERR_INVALID, "kid: expected a key of auth.jwks (%s), found \"%s\"", ids,
                  shown(id).s);
        return refuse(AUTH_REFUSED_KEY_ID, why);
    }
    if ((*out)->algorithm == algorithm)
        return OK;
    error_set(err, ERR_INVALID, "alg: expected %s, as the key \"%s\" is for, found %s",
              jwt_algorithm_words[(*out)->algorithm], shown(id).s, jwt_algorithm_words[algorithm]);
    return refuse(AUTH_REFUSED_ALGORITHM, why);
}

static enum status read_header(const struct jwks *k, const json_t *header, const struct jwk **out,
                               enum auth_refusal *why, struct error *err)
{
    const char *word = NULL, *id = NULL, *type = "JWT";
    enum jwt_algorithm algorithm = JWT_RS256;
    *why = AUTH_REFUSED_MALFORMED;
    TRY(json_get_string(header, "header", "alg", true, &word, err));
    TRY(find_algorithm(word, &algorithm, why, err));
    if (json_object_get(header, "crit"))
        return error_set(err, ERR_INVALID, "crit: expected no extensions that must be understood");
    TRY(json_get_string(header, "header", "typ", false, &type, err));
    if (!is_type(type))
        return error_set(err, ERR_INVALID, "typ: expected \"JWT\" or \"at+jwt\", found \"%s\"",
                         shown(type).s);
    *why = AUTH_REFUSED_KEY_ID;
    TRY(json_get_string(header, "header", "kid", true, &id, err));
    return choose_key(k, id, algorithm, out, why, err);
}

/* --- the signature -----------------------------------------------------------------------------
 */

/* ES256 has two numbers of 32 bytes one behind the other; OpenSSL wants them in DER. 0: it is none.
 */
static size_t der_of(const unsigned char *signature, size_t len, unsigned char der[MAX_DER])
{
    ECDSA_SIG *s = len == 2 * ES256_HALF ? ECDSA_SIG_new() : NULL;
    BIGNUM *x = s ? BN_bin2bn(signature, ES256_HALF, NULL) : NULL;
    BIGNUM *y = s ? BN_bin2bn(signature + ES256_HALF, ES256_HALF, NULL) : NULL;
    int n = 0;
    if (x && y && ECDSA_SIG_set0(s, x, y) == 1) {
        x = y = NULL; /* the signature's now */
        n = i2d_ECDSA_SIG(s, NULL) <= MAX_DER ? i2d_ECDSA_SIG(s, &der) : 0;
    }
    BN_free(x);
    BN_free(y);
    ECDSA_SIG_free(s);
    return n > 0 ? (size_t)n : 0;
}

static bool verify(const struct jwk *key, const char *text, size_t text_len,
                   const unsigned char *signature, size_t len)
{
    unsigned char der[MAX_DER];
    if (key->algorithm == JWT_ES256) {
        len = der_of(signature, len, der);
        signature = der;
    }
    EVP_MD_CTX *m = EVP_MD_CTX_new();
    CHECK(m, "no memory for a digest");
    const EVP_MD *digest = key->algorithm == JWT_EDDSA ? NULL : EVP_sha256();
    bool right = len > 0 && EVP_DigestVerifyInit(m, NULL, digest, NULL, key->key) == 1 &&
                 EVP_DigestVerify(m, signature, len, (const unsigned char *)text, text_len) == 1;
    EVP_MD_CTX_free(m);
    ERR_clear_error();
    return right;
}

static enum status check_signature(const struct jwk *key, const struct parts *p,
                                   enum auth_refusal *why, struct error *err)
{
    unsigned char signature[MAX_SIGNATURE];
    size_t len = base64url_bytes(p->len[2]);
    size_t signed_len = p->len[0] + 1 + p->len[1];
    if (len <= sizeof signature && base64url_decode(p->at[2], p->len[2], signature) &&
        verify(key, p->at[0], signed_len, signature, len))
        return OK;
    error_set(err, ERR_INVALID, "the signature is not that of the key \"%s\"", shown(key->id).s);
    return refuse(AUTH_REFUSED_SIGNATURE, why);
}

/* --- the claims --------------------------------------------------------------------------------
 */

/* Unix time, which may have a fraction. False in *there: it is absent. */
static enum status read_time(const json_t *claims, const char *name, int64_t *out, bool *there,
                             struct error *err)
{
    const json_t *v = json_object_get(claims, name);
    *there = v != NULL;
    if (!v)
        return OK;
    double seconds = json_is_number(v) ? json_number_value(v) : -1.0;
    if (!(seconds >= 0.0 && seconds < MAX_TIME))
        return error_set(err, ERR_INVALID, "%s: expected unix time, found %s", name,
                         json_is_number(v) ? "a number out of bounds" : json_type_words(v));
    *out = (int64_t)seconds;
    return OK;
}

/* Neither nbf nor iat may lie ahead. */
static enum status check_begun(const json_t *claims, const char *name, const struct jwt_rules *r,
                               int64_t now_s, int64_t *from_s, enum auth_refusal *why,
                               struct error *err)
{
    char then[AUTH_TIME_BYTES], now[AUTH_TIME_BYTES];
    int64_t at = 0;
    bool there;
    TRY(read_time(claims, name, &at, &there, err));
    if (there && at - r->leeway_s > *from_s)
        *from_s = at - r->leeway_s;
    if (!there || now_s >= at - r->leeway_s)
        return OK;
    error_set(err, ERR_INVALID, "%s: the token is of %s, and it is %s (auth.leeway_s: %d)", name,
              auth_print_time(at, then), auth_print_time(now_s, now), r->leeway_s);
    return refuse(AUTH_REFUSED_NOT_YET, why);
}

static enum status check_times(const json_t *claims, const struct jwt_rules *r, int64_t now_s,
                               struct jwt_claims *out, enum auth_refusal *why, struct error *err)
{
    char then[AUTH_TIME_BYTES], now[AUTH_TIME_BYTES];
    int64_t ends = 0;
    bool there;
    out->from_s = 0;
    TRY(read_time(claims, "exp", &ends, &there, err));
    if (!there)
        return error_set(err, ERR_INVALID, "exp: expected unix time, found nothing");
    out->until_s = ends + r->leeway_s;
    if (now_s >= out->until_s) {
        error_set(err, ERR_INVALID, "exp: the token has expired, at %s, and it is %s",
                  auth_print_time(ends, then), auth_print_time(now_s, now));
        return refuse(AUTH_REFUSED_EXPIRED, why);
    }
    TRY(check_begun(claims, "nbf", r, now_s, &out->from_s, why, err));
    return check_begun(claims, "iat", r, now_s, &out->from_s, why, err);
}

static enum status check_issuer(const json_t *claims, const struct jwt_rules *r,
                                enum auth_refusal *why, struct error *err)
{
    const char *issuer = NULL;
    TRY(json_get_string(claims, "claims", "iss", true, &issuer, err));
    if (strcmp(issuer, r->issuer) == 0)
        return OK;
    error_set(err, ERR_INVALID, "iss: expected \"%s\" (auth.issuer), found \"%s\"",
              shown(r->issuer).s, shown(issuer).s);
    return refuse(AUTH_REFUSED_ISSUER, why);
}

/* One name, or a list of them. */
static enum status check_audience(const json_t *claims, const struct jwt_rules *r,
                                  enum auth_refusal *why, struct error *err)
{
    const json_t *v = json_object_get(claims, "aud");
    const char *found = json_is_string(v) ? json_string_value(v) : "";
    bool named = strcmp(found, r->audience) == 0;
    if (!json_is_string(v) && (!json_is_array(v) || json_array_size(v) > MAX_LIST))
        return error_set(err, ERR_INVALID,
                         "aud: expected a string or a list of at most %d, found %s", (int)MAX_LIST,
                         json_is_array(v) ? "more" : json_type_words(v));
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        found = json_string_value(json_array_get(v, i));
        if (!found)
            return error_set(err, ERR_INVALID, "aud: expected strings, found %s",
                             json_type_words(json_array_get(v, i)));
        named |= strcmp(found, r->audience) == 0;
    }
    if (named)
        return OK;
    error_set(err, ERR_INVALID, "aud: expected \"%s\" (auth.audience), found \"%s\"",
              shown(r->audience).s, shown(found).s);
    return refuse(AUTH_REFUSED_AUDIENCE, why);
}

/* Words that are no scope here are somebody else's. */
static enum status read_scopes(const json_t *claims, const char *name, uint32_t *scopes,
                               struct error *err)
{
    const json_t *v = json_object_get(claims, name);
    *scopes = 0;
    if (json_is_string(v))
        for (const char *s = json_string_value(v); *s;) {
            size_t len = strcspn(s, " ");
            *scopes |= auth_scope_of(s, len);
            s += len + (s[len] == ' ');
        }
    else if (json_is_array(v) && json_array_size(v) <= MAX_LIST)
        for (size_t i = 0; i < json_array_size(v); i++) {
            const json_t *word = json_array_get(v, i);
            if (json_is_string(word))
                *scopes |= auth_scope_of(json_string_value(word), json_string_length(word));
        }
    else if (v)
        return error_set(err, ERR_INVALID,
                         "%s: expected words with spaces between or a list of at most %d, found %s",
                         shown(name).s, (int)MAX_LIST,
                         json_is_array(v) ? "more" : json_type_words(v));
    return OK;
}

/* A subject may be somebody's name, and ids are written to logs: its digest stands for it. */
static enum status name_caller(const json_t *claims, char id[AUTH_MAX_ID + 1], struct error *err)
{
    const char *subject = NULL;
    unsigned char hash[AUTH_HASH_BYTES];
    TRY(json_get_string(claims, "claims", "sub", true, &subject, err));
    if (!*subject)
        return error_set(err, ERR_INVALID, "sub: expected who it is, found \"\"");
    if (!EVP_Digest(subject, strlen(subject), hash, NULL, EVP_sha256(), NULL))
        return error_set(err, ERR_IO, "SHA-256 failed");
    size_t n = (size_t)snprintf(id, AUTH_MAX_ID + 1, "oidc-");
    for (int i = 0; i < SUBJECT_BYTES; i++)
        n += (size_t)snprintf(id + n, AUTH_MAX_ID + 1 - n, "%02x", hash[i]);
    return OK;
}

static enum status read_tenant(const json_t *claims, const char *name, uint64_t *tenant,
                               struct error *err)
{
    const char *text = NULL;
    TRY(json_get_string(claims, "claims", name, true, &text, err));
    if (!auth_is_name(text))
        return error_set(
            err, ERR_INVALID,
            "%s: expected a tenant's name of 1 to %d bytes without control characters, "
            "found \"%s\"",
            shown(name).s, (int)AUTH_MAX_NAME, shown(text).s);
    return auth_tenant_id(text, tenant, err);
}

static enum status check_claims(const json_t *claims, const struct jwt_rules *r, int64_t now_s,
                                struct jwt_claims *out, enum auth_refusal *why, struct error *err)
{
    *out = (struct jwt_claims){0};
    *why = AUTH_REFUSED_CLAIMS;
    TRY(check_issuer(claims, r, why, err));
    TRY(check_audience(claims, r, why, err));
    TRY(check_times(claims, r, now_s, out, why, err));
    TRY(name_caller(claims, out->caller.id, err));
    TRY(read_tenant(claims, r->tenant_claim, &out->caller.tenant, err));
    return read_scopes(claims, r->scopes_claim, &out->caller.scopes, err);
}

enum status jwt_read_claims(const struct jwt_rules *r, const char *text, size_t len, int64_t now_s,
                            struct jwt_claims *out, enum auth_refusal *why, struct error *err)
{
    json_t *claims = NULL;
    *why = AUTH_REFUSED_CLAIMS;
    TRY(json_parse("claims", text, len, &claims, err));
    enum status st = json_is_object(claims)
                         ? check_claims(claims, r, now_s, out, why, err)
                         : error_set(err, ERR_INVALID, "claims: expected an object");
    json_decref(claims);
    return st;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static enum status check_signed(const struct jwks *k, const struct parts *p, enum auth_refusal *why,
                                struct error *err)
{
    json_t *header = NULL;
    const struct jwk *key = NULL;
    *why = AUTH_REFUSED_MALFORMED;
    TRY(decode_json("header", p->at[0], p->len[0], &header, err));
    enum status st = read_header(k, header, &key, why, err);
    json_decref(header);
    TRY(st);
    return check_signature(key, p, why, err);
}

enum status jwt_check(const struct jwks *k, const struct jwt_rules *r, const char *token,
                      size_t len, int64_t now_s, struct jwt_claims *out, enum auth_refusal *why,
                      struct error *err)
{
    struct parts p;
    json_t *claims = NULL;
    *why = AUTH_REFUSED_MALFORMED;
    if (len > JWT_MAX_BYTES)
        return error_set(err, ERR_INVALID, "expected at most %d bytes, found %zu",
                         (int)JWT_MAX_BYTES, len);
    if (!split(token, len, &p))
        return error_set(err, ERR_INVALID, "expected three parts with dots between");
    TRY(check_signed(k, &p, why, err));
    *why = AUTH_REFUSED_CLAIMS;
    TRY(decode_json("claims", p.at[1], p.len[1], &claims, err));
    enum status st = check_claims(claims, r, now_s, out, why, err);
    json_decref(claims);
    return st;
}
