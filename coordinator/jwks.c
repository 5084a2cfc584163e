/* A JSON Web Key Set from a file: see jwt.h. */
#include "coordinator/jwt_private.h"

#include "base/check.h"
#include "base/json.h"
#include "coordinator/auth_private.h"
#include "coordinator/base64url.h"
#include "partition/shown.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    P256_BYTES = 32,
    ED25519_BYTES = 32,
    RSA_MIN_BITS = 2048,
    RSA_MAX_BITS = 8192,
    MAX_NUMBER = RSA_MAX_BITS / 8, /* bytes of a field */
};

const char *const jwt_algorithm_words[] = {"RS256", "ES256", "EdDSA"};

struct jwks {
    size_t count;
    struct jwk keys[JWKS_MAX_KEYS];
};

void jwks_destroy(struct jwks *k)
{
    for (size_t i = 0; k && i < k->count; i++) {
        free(k->keys[i].id);
        EVP_PKEY_free(k->keys[i].key);
    }
    free(k);
}

size_t jwks_count(const struct jwks *k)
{
    return k ? k->count : 0;
}

const struct jwk *jwks_find(const struct jwks *k, const char *id)
{
    for (size_t i = 0; i < k->count; i++)
        if (strcmp(k->keys[i].id, id) == 0)
            return &k->keys[i];
    return NULL;
}

void jwks_print_ids(const struct jwks *k, char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; i < k->count && n + 1 < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s\"%s\"", i ? ", " : "", k->keys[i].id);
}

/* --- numbers -----------------------------------------------------------------------------------
 */

struct number {
    unsigned char bytes[MAX_NUMBER];
    size_t len;
};

/* `exactly` 0: at most MAX_NUMBER bytes. */
static enum status read_number(const json_t *obj, const char *what, const char *field,
                               size_t exactly, struct number *out, struct error *err)
{
    const char *text = NULL;
    TRY(json_get_string(obj, what, field, true, &text, err));
    size_t len = strlen(text);
    out->len = base64url_bytes(len);
    if (out->len == 0 || out->len > MAX_NUMBER || (exactly > 0 && out->len != exactly) ||
        !base64url_decode(text, len, out->bytes))
        return error_set(err, ERR_INVALID,
                         "%s: %s: expected %s%zu bytes in base64url, found %zu "
                         "characters",
                         what, field, exactly ? "" : "1 to ",
                         exactly ? exactly : (size_t)MAX_NUMBER, len);
    return OK;
}

/* --- keys --------------------------------------------------------------------------------------
 */

static enum status unsound(const char *what, struct error *err)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return error_set(err, ERR_INVALID, "%s: expected a sound public key: %s", what,
                     reason ? reason : "found none");
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *make = params ? EVP_PKEY_CTX_new_from_name(NULL, type, NULL) : NULL;
    if (!make || EVP_PKEY_fromdata_init(make) != 1 ||
        EVP_PKEY_fromdata(make, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(make);
    EVP_PKEY_CTX *check = key ? EVP_PKEY_CTX_new(key, NULL) : NULL;
    if (key && (!check || EVP_PKEY_public_check(check) != 1)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(check);
    return key;
}

static enum status make_rsa(const json_t *obj, const char *what, EVP_PKEY **out, struct error *err)
{
    struct number n, e;
    TRY(read_number(obj, what, "n", 0, &n, err));
    TRY(read_number(obj, what, "e", 0, &e, err));
    if (e.len > 4 || e.bytes[e.len - 1] % 2 == 0 || (e.len == 1 && e.bytes[0] < 3))
        return error_set(err, ERR_INVALID, "%s: e: expected an odd number of 3 to 2^32", what);
    BIGNUM *modulus = BN_bin2bn(n.bytes, (int)n.len, NULL);
    BIGNUM *exponent = BN_bin2bn(e.bytes, (int)e.len, NULL);
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    int bits = modulus ? BN_num_bits(modulus) : 0;
    enum status st = OK;
    if (bits < RSA_MIN_BITS)
        st = error_set(err, ERR_INVALID, "%s: n: expected %d to %d bits, found %d", what,
                       RSA_MIN_BITS, RSA_MAX_BITS, bits);
    else if (exponent && b && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_N, modulus) &&
             OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_RSA_E, exponent))
        params = OSSL_PARAM_BLD_to_param(b);
    if (st == OK && !(*out = key_from("RSA", params)))
        st = unsound(what, err);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(b);
    BN_free(modulus);
    BN_free(exponent);
    return st;
}

static enum status make_ec(const json_t *obj, const char *what, EVP_PKEY **out, struct error *err)
{
    struct number x, y;
    unsigned char point[1 + 2 * P256_BYTES] = {4}; /* uncompressed */
    char group[] = "P-256";
    TRY(read_number(obj, what, "x", P256_BYTES, &x, err));
    TRY(read_number(obj, what, "y", P256_BYTES, &y, err));
    memcpy(point + 1, x.bytes, P256_BYTES);
    memcpy(point + 1 + P256_BYTES, y.bytes, P256_BYTES);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point),
        OSSL_PARAM_construct_end(),
    };
    *out = key_from("EC", params);
    return *out ? OK : unsound(what, err);
}

static enum status make_ed25519(const json_t *obj, const char *what, EVP_PKEY **out,
                                struct error *err)
{
    struct number x;
    TRY(read_number(obj, what, "x", ED25519_BYTES, &x, err));
    *out = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x.bytes, ED25519_BYTES);
    return *out ? OK : unsound(what, err);
}

/* --- a set -------------------------------------------------------------------------------------
 */

/* The text of a field, "" when it is absent. */
static enum status optional(const json_t *obj, const char *what, const char *field,
                            const char **out, struct error *err)
{
    *out = "";
    return json_get_string(obj, what, field, false, out, err);
}

/* True: a key that this server could check signatures with, by its type; *algorithm is set. */
static bool is_of_use(const char *type, const char *curve, const char *use, const char *word,
                      enum jwt_algorithm *algorithm)
{
    if (strcmp(type, "RSA") == 0)
        *algorithm = JWT_RS256;
    else if (strcmp(type, "EC") == 0 && strcmp(curve, "P-256") == 0)
        *algorithm = JWT_ES256;
    else if (strcmp(type, "OKP") == 0 && strcmp(curve, "Ed25519") == 0)
        *algorithm = JWT_EDDSA;
    else
        return false;
    bool alone = strcmp(word, jwt_algorithm_words[*algorithm]) == 0 ||
                 (*algorithm == JWT_EDDSA && strcmp(word, "Ed25519") == 0);
    return (!*use || strcmp(use, "sig") == 0) && (!*word || alone);
}

static enum status no_secrets(const json_t *obj, const char *what, const char *type,
                              struct error *err)
{
    if (strcmp(type, "oct") == 0 || json_object_get(obj, "k"))
        return error_set(
            err, ERR_INVALID,
            "%s: expected public keys, found a symmetric one: tokens by HMAC are never "
            "taken; remove it",
            what);
    if (json_object_get(obj, "d"))
        return error_set(err, ERR_INVALID,
                         "%s: expected public keys, found a private one: it is not secret any more",
                         what);
    return OK;
}

static enum status add_key(struct jwks *k, const json_t *obj, const char *what, struct error *err)
{
    const char *type = NULL, *curve, *use, *word, *id;
    struct jwk key = {0};
    if (!json_is_object(obj))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                         json_type_words(obj));
    TRY(json_get_string(obj, what, "kty", true, &type, err));
    TRY(no_secrets(obj, what, type, err));
    TRY(optional(obj, what, "crv", &curve, err));
    TRY(optional(obj, what, "use", &use, err));
    TRY(optional(obj, what, "alg", &word, err));
    if (!is_of_use(type, curve, use, word, &key.algorithm))
        return OK;
    TRY(json_get_string(obj, what, "kid", true, &id, err));
    if (!*id || strlen(id) > JWT_MAX_TEXT)
        return error_set(err, ERR_INVALID, "%s: kid: expected 1 to %d bytes, found %zu", what,
                         (int)JWT_MAX_TEXT, strlen(id));
    if (jwks_find(k, id))
        return error_set(err, ERR_INVALID, "%s: kid: expected each id once, found \"%s\" again",
                         what, shown(id).s);
    if (key.algorithm == JWT_RS256)
        TRY(make_rsa(obj, what, &key.key, err));
    else if (key.algorithm == JWT_ES256)
        TRY(make_ec(obj, what, &key.key, err));
    else
        TRY(make_ed25519(obj, what, &key.key, err));
    key.id = strdup(id);
    CHECK(key.id, "no memory for a key's id");
    k->keys[k->count++] = key;
    return OK;
}

static enum status add_keys(struct jwks *k, const json_t *root, const char *what, struct error *err)
{
    const json_t *list = json_object_get(root, "keys");
    if (!json_is_array(list))
        return error_set(err, ERR_INVALID, "%s: keys: expected a list, found %s", what,
                         json_type_words(list));
    if (json_array_size(list) > JWKS_MAX_KEYS)
        return error_set(err, ERR_INVALID, "%s: keys: expected at most %d, found %zu", what,
                         (int)JWKS_MAX_KEYS, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        char place[SHOWN_BYTES + 40];
        snprintf(place, sizeof place, "%.200s: keys[%zu]", what, i);
        TRY(add_key(k, json_array_get(list, i), place, err));
    }
    if (k->count > 0)
        return OK;
    return error_set(err, ERR_INVALID,
                     "%s: expected a key for signatures by RS256, ES256 or EdDSA (Ed25519), found "
                     "none among %zu",
                     what, json_array_size(list));
}

enum status jwks_parse(const char *what, const char *text, size_t len, struct jwks **out,
                       struct error *err)
{
    json_t *root = NULL;
    TRY(json_parse(what, text, len, &root, err));
    struct jwks *k = check_calloc(1, sizeof *k);
    enum status st = add_keys(k, root, what, err);
    json_decref(root);
    if (st == OK)
        *out = k;
    else
        jwks_destroy(k);
    return st;
}

enum status jwks_load(const char *path, struct jwks **out, struct error *err)
{
    struct stat s;
    char *text = NULL;
    size_t len = 0;
    if (stat(path, &s) != 0)
        return error_errno(err, errno, "%s", path);
    TRY(auth_check_mode(path, &s, err));
    TRY(file_read_all(path, JWKS_MAX_BYTES, &text, &len, err));
    enum status st = jwks_parse(path, text, len, out, err);
    free(text);
    return st;
}
