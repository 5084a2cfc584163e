/* coordinator/jwt, jwks, base64url: tokens that are taken, and every way in which one is not. */
#include "tests/unit/partition/folder.h"
#include "tests/unit/coordinator/issuer.h"

#include "coordinator/base64url.h"
#include "coordinator/jwt.h"

#include <sys/stat.h>

enum { NOW = 1800000000 }; /* 2027-01-15T08:00:00Z */

static const struct jwt_rules rules = {.issuer = "https://id.example",
                                       .audience = "witan",
                                       .tenant_claim = "org",
                                       .scopes_claim = "scope",
                                       .leeway_s = 60};

#define CLAIMS(more)                                                                               \
    "{\"iss\":\"https://id.example\",\"aud\":\"witan\",\"sub\":\"zoe\",\"org\":\"team a\","        \
    "\"exp\":1800000300" more "}"
#define GOOD CLAIMS(",\"iat\":1799999990,\"nbf\":1799999990,\"scope\":\"openid generate raw\"")

/* --- base64url --- */

static void base64url_has_one_form(void **state)
{
    (void)state;
    unsigned char out[8];
    assert_true(base64url_decode("-_-_", 4, out));
    assert_memory_equal(out, "\xfb\xff\xbf", 3);
    assert_true(base64url_decode("QUI", 3, out) && base64url_bytes(3) == 2);
    assert_memory_equal(out, "AB", 2);
    assert_true(base64url_decode("QQ", 2, out) && base64url_bytes(2) == 1);
    assert_true(base64url_decode("", 0, out) && base64url_bytes(0) == 0);
    static const char *const bad[] = {"Q", "QR", "QUJ", "QUI=", "QU I", "+/+/", "QQ==", "QUIAB"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(base64url_decode(bad[i], strlen(bad[i]), out));
}

/* --- sets of keys --- */

static enum status parse(const char *text, struct error *err)
{
    struct jwks *k = NULL;
    enum status st = jwks_parse("set", text, strlen(text), &k, err);
    jwks_destroy(k);
    return st;
}

#define REFUSES_SET(text, ...)                                                                     \
    do {                                                                                           \
        struct error set_err;                                                                      \
        SAYS(parse(text, &set_err), ERR_INVALID, &set_err, "set: ", __VA_ARGS__);                  \
    } while (0)

static void unsound_sets_are_refused(void **state)
{
    (void)state;
    REFUSES_SET("{}", "keys: expected a list, found nothing");
    REFUSES_SET("[]", "keys: expected a list");
    REFUSES_SET("{\"keys\":[]}", "expected a key for signatures", "none among 0");
    REFUSES_SET("{\"keys\":[1]}", "keys[0]: expected an object, found an integer");
    REFUSES_SET("{\"keys\":[{}]}", "keys[0]: kty: expected a string");
    REFUSES_SET("{\"keys\":[],\"keys\":[]}", "");
    REFUSES_SET("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}", "found a symmetric one");
    REFUSES_SET("{\"keys\":[{\"kty\":\"EC\",\"d\":\"AAAA\"}]}", "found a private one");
    REFUSES_SET("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\"}]}", "none among 1");
    REFUSES_SET("{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
                "keys[0]: n: expected 2048 to 8192 bits, found 17");
    REFUSES_SET("{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"AQAB\",\"e\":\"Ag\"}]}",
                "e: expected an odd number");
    REFUSES_SET("{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"AQ==\",\"e\":\"AQAB\"}]}",
                "n: expected 1 to 1024 bytes in base64url");
    REFUSES_SET("{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
                "kid: expected 1 to 256 bytes");
    REFUSES_SET("{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
                "kid: expected a string");
    /* A point that lies on no curve. */
    REFUSES_SET("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\","
                "\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\","
                "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\"}]}",
                "expected a sound public key");
}

static void ids_are_there_once(void **state)
{
    (void)state;
    struct issuer i = issuer_make();
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_puts(&text, "{\"keys\":[", NULL);
    issuer_jwk(&i, ISSUER_ED, "a", "", &text);
    buf_puts(&text, ",", NULL);
    issuer_jwk(&i, ISSUER_EC, "a", "", &text);
    buf_puts(&text, "]}", NULL);
    REFUSES_SET(text.data, "keys[1]: kid: expected each id once, found \"a\" again");
    buf_fini(&text);
    issuer_free(&i);
}

static void sets_are_read_from_files(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct issuer i = issuer_make();
    struct buf text;
    struct jwks *k = NULL;
    struct error err;
    char path[512];
    buf_init(&text, 1 << 16);
    issuer_jwks(&i, &text);
    snprintf(path, sizeof path, "%s", folder_path(&f, "set"));
    SAYS(jwks_load(path, &k, &err), ERR_NOT_FOUND, &err, "/set: No such file");
    folder_puts(&f, "set", text.data);
    chmod(path, 0666);
    SAYS(jwks_load(path, &k, &err), ERR_INVALID, &err, "only its owner can write");
    chmod(path, 0644);
    assert_int_equal(jwks_load(path, &k, &err), OK);
    assert_int_equal(jwks_count(k), ISSUER_KEYS);
    jwks_destroy(k);
    jwks_destroy(NULL);
    buf_fini(&text);
    issuer_free(&i);
    folder_remove(&f);
}

/* --- tokens --- */

struct bench {
    struct issuer issuer, other; /* the other's keys have the same ids and are in no set */
    struct jwks *set;
    struct buf token;
    struct jwt_claims claims;
    enum auth_refusal why;
    struct error err;
};

static struct bench set_up(void)
{
    struct bench b = {.issuer = issuer_make(), .other = issuer_make()};
    struct buf text;
    buf_init(&text, 1 << 16);
    buf_init(&b.token, 1 << 16);
    issuer_jwks(&b.issuer, &text);
    if (jwks_parse("set", text.data, text.len, &b.set, &b.err) != OK)
        fail_msg("%s", b.err.msg);
    buf_fini(&text);
    return b;
}

static void tear_down(struct bench *b)
{
    jwks_destroy(b->set);
    issuer_free(&b->issuer);
    issuer_free(&b->other);
    buf_fini(&b->token);
}

static enum status check_at(struct bench *b, int64_t now_s)
{
    return jwt_check(b->set, &rules, b->token.data, b->token.len, now_s, &b->claims, &b->why,
                     &b->err);
}

static enum status check(struct bench *b, int key, const char *header, const char *claims)
{
    issuer_token(&b->issuer, key, header, claims, &b->token);
    return check_at(b, NOW);
}

#define REFUSES(reason, status_of, ...)                                                            \
    do {                                                                                           \
        SAYS(status_of, ERR_INVALID, &b.err, __VA_ARGS__);                                         \
        assert_int_equal(b.why, AUTH_REFUSED_##reason);                                            \
    } while (0)

static void tokens_of_each_algorithm(void **state)
{
    (void)state;
    static const char *const headers[] = {HEADER_RSA, HEADER_EC, HEADER_ED};
    struct bench b = set_up();
    for (int key = 0; key < ISSUER_KEYS; key++) {
        if (check(&b, key, headers[key], GOOD) != OK)
            fail_msg("%s: %s", headers[key], b.err.msg);
        assert_int_equal(b.claims.caller.scopes, AUTH_GENERATE | AUTH_RAW);
        /* printf 'team a' | sha256sum; printf zoe | sha256sum */
        assert_true(b.claims.caller.tenant == 0x35a6220627021916);
        assert_memory_equal(b.claims.caller.id, "oidc-", 5);
        assert_int_equal(strlen(b.claims.caller.id), 5 + 16);
        assert_null(strstr(b.claims.caller.id, "zoe"));
        assert_true(b.claims.from_s == 1799999930 && b.claims.until_s == 1800000360);
    }
    tear_down(&b);
}

static void scopes_of_either_form(void **state)
{
    (void)state;
    struct bench b = set_up();
    static const struct {
        const char *claims;
        uint32_t scopes;
    } cases[] = {
        {CLAIMS(""), 0},
        {CLAIMS(",\"scope\":\"\""), 0},
        {CLAIMS(",\"scope\":\"openid\""), 0},
        {CLAIMS(",\"scope\":\" admin  priority \""), AUTH_ADMIN | AUTH_PRIORITY},
        {CLAIMS(",\"scope\":[\"generate\",\"else\",1]"), AUTH_GENERATE},
        {CLAIMS(",\"scope\":[\"generate raw\"]"), 0},
        {CLAIMS(",\"scope\":\"GENERATE\""), 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(check(&b, ISSUER_ED, HEADER_ED, cases[i].claims), OK);
        assert_int_equal(b.claims.caller.scopes, cases[i].scopes);
    }
    REFUSES(CLAIMS, check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"scope\":7")),
            "scope: expected words");
    tear_down(&b);
}

/* Signed by HMAC with what is public, which a check that believes the header would take. */
static void hmac_token(struct bench *b, const char *key, size_t len)
{
    static const char header[] = "{\"alg\":\"HS256\",\"kid\":\"r1\"}";
    unsigned char mac[32];
    buf_clear(&b->token);
    issuer_encode(&b->token, header, sizeof header - 1);
    buf_puts(&b->token, ".", NULL);
    issuer_encode(&b->token, GOOD, sizeof GOOD - 1);
    HMAC(EVP_sha256(), key, (int)len, (const unsigned char *)b->token.data, b->token.len, mac,
         NULL);
    buf_puts(&b->token, ".", NULL);
    issuer_encode(&b->token, mac, sizeof mac);
}

static void other_algorithms_are_refused(void **state)
{
    (void)state;
    struct bench b = set_up();
    static const char *const words[] = {"none",  "None",  "HS256", "HS512", "RS384",
                                        "PS256", "ES384", "",      "rs256"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char header[80];
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"r1\"}", words[i]);
        REFUSES(ALGORITHM, check(&b, ISSUER_RSA, header, GOOD), "alg: expected RS256, ES256");
    }
    /* Without a signature at all. */
    issuer_token(&b.issuer, ISSUER_RSA, "{\"alg\":\"none\"}", GOOD, &b.token);
    b.token.len = (size_t)(strrchr(b.token.data, '.') + 1 - b.token.data);
    REFUSES(MALFORMED, check_at(&b, NOW), "three parts");
    hmac_token(&b, "r1", 2);
    REFUSES(ALGORITHM, check_at(&b, NOW), "found \"HS256\"");
    /* A key is for one algorithm. */
    REFUSES(ALGORITHM, check(&b, ISSUER_EC, "{\"alg\":\"ES256\",\"kid\":\"r1\"}", GOOD),
            "alg: expected RS256, as the key \"r1\" is for, found ES256");
    REFUSES(ALGORITHM, check(&b, ISSUER_RSA, "{\"alg\":\"RS256\",\"kid\":\"d1\"}", GOOD),
            "alg: expected EdDSA");
    REFUSES(SIGNATURE, check(&b, ISSUER_EC, HEADER_RSA, GOOD), "not that of the key \"r1\"");
    tear_down(&b);
}

static void other_headers_are_refused(void **state)
{
    (void)state;
    struct bench b = set_up();
    REFUSES(MALFORMED, check(&b, ISSUER_ED, "[]", GOOD), "header: expected an object");
    REFUSES(MALFORMED, check(&b, ISSUER_ED, "{\"kid\":\"d1\"}", GOOD), "alg: expected a string");
    REFUSES(MALFORMED, check(&b, ISSUER_ED, "{\"alg\":[\"EdDSA\"],\"kid\":\"d1\"}", GOOD), "alg");
    REFUSES(MALFORMED,
            check(&b, ISSUER_ED, "{\"alg\":\"none\",\"alg\":\"EdDSA\",\"kid\":\"d1\"}", GOOD),
            "duplicate");
    REFUSES(MALFORMED,
            check(&b, ISSUER_ED, "{\"alg\":\"EdDSA\",\"kid\":\"d1\",\"crit\":[\"b64\"]}", GOOD),
            "crit: expected no extensions");
    REFUSES(MALFORMED,
            check(&b, ISSUER_ED, "{\"alg\":\"EdDSA\",\"kid\":\"d1\",\"typ\":\"logout+jwt\"}", GOOD),
            "typ: expected \"JWT\" or \"at+jwt\", found \"logout+jwt\"");
    REFUSES(KEY_ID, check(&b, ISSUER_ED, "{\"alg\":\"EdDSA\"}", GOOD), "kid: expected a string");
    REFUSES(KEY_ID, check(&b, ISSUER_ED, "{\"alg\":\"EdDSA\",\"kid\":\"old\"}", GOOD),
            "kid: expected a key of auth.jwks (\"r1\", \"e1\", \"d1\"), found \"old\"");
    /* Keys that come along are not looked at. */
    REFUSES(KEY_ID,
            check(&b, ISSUER_ED,
                  "{\"alg\":\"EdDSA\",\"jwk\":{\"kty\":\"OKP\"},\"jku\":\"https://x\"}", GOOD),
            "kid");
    tear_down(&b);
}

static void tampered_tokens_are_refused(void **state)
{
    (void)state;
    static const char *const headers[] = {HEADER_RSA, HEADER_EC, HEADER_ED};
    struct bench b = set_up();
    for (int key = 0; key < ISSUER_KEYS; key++) {
        issuer_token(&b.other, key, headers[key], GOOD, &b.token);
        REFUSES(SIGNATURE, check_at(&b, NOW), "the signature is not that of the key");
        assert_int_equal(check(&b, key, headers[key], GOOD), OK);
        /* Each character of it but those of the last, whose low bits must be 0. */
        for (size_t at = 0; at < b.token.len; at += 7) {
            char was = b.token.data[at];
            b.token.data[at] = was == 'A' ? 'B' : 'A';
            assert_int_equal(check_at(&b, NOW), ERR_INVALID);
            assert_int_not_equal(b.why, AUTH_REFUSED_EXPIRED);
            b.token.data[at] = was;
        }
        for (size_t len = 0; len < b.token.len; len += 11) {
            assert_int_equal(
                jwt_check(b.set, &rules, b.token.data, len, NOW, &b.claims, &b.why, &b.err),
                ERR_INVALID);
        }
        assert_int_equal(check_at(&b, NOW), OK);
    }
    /* Claims of one, signature of another. */
    char first[4096];
    snprintf(first, sizeof first, "%s",
             issuer_token(&b.issuer, ISSUER_ED, HEADER_ED, GOOD, &b.token));
    issuer_token(&b.issuer, ISSUER_ED, HEADER_ED, CLAIMS(",\"scope\":\"admin\""), &b.token);
    strcpy(strrchr(b.token.data, '.'), strrchr(first, '.'));
    REFUSES(SIGNATURE, check_at(&b, NOW), "signature");
    tear_down(&b);
}

static void other_forms_are_refused(void **state)
{
    (void)state;
    struct bench b = set_up();
    static const char *const texts[] = {
        ".", "..", "...", "a.b", "a.b.c.d", "e30.e30.", ".e30.e30", "e30.e30.e3!", "e30.e30.e30"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        buf_clear(&b.token);
        buf_puts(&b.token, texts[i], NULL);
        assert_int_equal(check_at(&b, NOW), ERR_INVALID);
        assert_int_equal(b.why, AUTH_REFUSED_MALFORMED);
    }
    buf_clear(&b.token);
    for (int i = 0; i <= JWT_MAX_BYTES; i++)
        buf_puts(&b.token, "A", NULL);
    REFUSES(MALFORMED, check_at(&b, NOW), "expected at most 8192 bytes, found 8193");
    tear_down(&b);
}

static void tokens_have_their_time(void **state)
{
    (void)state;
    struct bench b = set_up();
    assert_int_equal(check(&b, ISSUER_ED, HEADER_ED, GOOD), OK);
    assert_int_equal(check_at(&b, 1800000359), OK); /* exp and leeway */
    REFUSES(EXPIRED, check_at(&b, 1800000360), "exp: the token has expired",
            "2027-01-15T08:05:00Z");
    assert_int_equal(check_at(&b, 1799999930), OK); /* nbf and leeway */
    REFUSES(NOT_YET, check_at(&b, 1799999929), "nbf: the token is of 2027-01-15T07:59:50Z");
    REFUSES(NOT_YET, check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"iat\":1800000061")), "iat: ");
    assert_int_equal(check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"iat\":1800000060.5")), OK);
    REFUSES(CLAIMS, check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"nbf\":\"now\"")),
            "nbf: expected unix time, found a string");
    REFUSES(CLAIMS, check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"nbf\":1e300")), "out of bounds");
    REFUSES(CLAIMS, check(&b, ISSUER_ED, HEADER_ED, CLAIMS(",\"iat\":-1")), "out of bounds");
    REFUSES(CLAIMS,
            check(&b, ISSUER_ED, HEADER_ED,
                  "{\"iss\":\"https://id.example\",\"aud\":\"witan\",\"sub\":\"z\",\"org\":\"a\"}"),
            "exp: expected unix time, found nothing");
    tear_down(&b);
}

static void claims_that_must_be_there(void **state)
{
    (void)state;
    struct bench b = set_up();
#define WITHOUT(iss, aud, rest) "{" iss aud rest "\"exp\":1800000300}"
#define ISS "\"iss\":\"https://id.example\","
#define AUD "\"aud\":\"witan\","
#define SUB "\"sub\":\"zoe\",\"org\":\"a\","
#define ED(text) check(&b, ISSUER_ED, HEADER_ED, text)
    REFUSES(CLAIMS, ED(WITHOUT("", AUD, SUB)), "iss: expected a string");
    REFUSES(ISSUER, ED(WITHOUT("\"iss\":\"https://id.example/\",", AUD, SUB)),
            "iss: expected \"https://id.example\" (auth.issuer), found \"https://id.example/\"");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, "", SUB)), "aud: expected a string or a list", "found nothing");
    REFUSES(AUDIENCE, ED(WITHOUT(ISS, "\"aud\":\"other\",", SUB)),
            "aud: expected \"witan\" (auth.audience), found \"other\"");
    REFUSES(AUDIENCE, ED(WITHOUT(ISS, "\"aud\":[],", SUB)), "aud: expected \"witan\"");
    REFUSES(AUDIENCE, ED(WITHOUT(ISS, "\"aud\":[\"a\",\"b\"],", SUB)), "aud: expected \"witan\"");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, "\"aud\":[\"witan\",1],", SUB)), "aud: expected strings");
    assert_int_equal(ED(WITHOUT(ISS, "\"aud\":[\"a\",\"witan\"],", SUB)), OK);
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"org\":\"a\",")), "sub: expected a string");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"sub\":\"\",\"org\":\"a\",")), "sub: expected who");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"sub\":\"z\",")), "org: expected a string");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"sub\":\"z\",\"org\":\"\",")), "org: expected a tenant");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"sub\":\"z\",\"org\":\"a\\nb\",")),
            "org: expected a tenant");
    REFUSES(CLAIMS, ED(WITHOUT(ISS, AUD, "\"sub\":\"z\",\"org\":\"a\\u0000b\",")), "claims: ");
    REFUSES(CLAIMS, ED("[1]"), "claims: expected an object");
    REFUSES(CLAIMS, ED(GOOD " x"), "claims: ");
    tear_down(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(base64url_has_one_form),       cmocka_unit_test(unsound_sets_are_refused),
    cmocka_unit_test(ids_are_there_once),           cmocka_unit_test(sets_are_read_from_files),
    cmocka_unit_test(tokens_of_each_algorithm),     cmocka_unit_test(scopes_of_either_form),
    cmocka_unit_test(other_algorithms_are_refused), cmocka_unit_test(other_headers_are_refused),
    cmocka_unit_test(tampered_tokens_are_refused),  cmocka_unit_test(other_forms_are_refused),
    cmocka_unit_test(tokens_have_their_time),       cmocka_unit_test(claims_that_must_be_there),
};

UNIT_MAIN(tests)
