/* coordinator/identity: keys and tokens at one door, and files that change under it. */
#include "tests/unit/partition/folder.h"
#include "tests/unit/coordinator/issuer.h"

#include "base/log.h"
#include "coordinator/identity.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

enum { NOW = 1800000000 };

#define CLAIMS(more)                                                                               \
    "{\"iss\":\"https://id.example\",\"aud\":\"witan\",\"sub\":\"zoe\",\"exp\":1800000300" more "}"
#define GENERATE ",\"scope\":\"generate\""

struct bench {
    struct folder folder;
    struct config config;
    struct identity *identity;
    struct issuer issuer;
    struct buf token;
    char keys[512], jwks[512], key[AUTH_KEY_BYTES + 1];
    struct auth_caller caller;
    struct error err;
};

static void put_jwks(struct bench *b)
{
    struct buf text;
    buf_init(&text, 1 << 16);
    issuer_jwks(&b->issuer, &text);
    folder_puts(&b->folder, "jwks", text.data);
    assert_int_equal(chmod(b->jwks, 0644), 0);
    buf_fini(&text);
}

static void set_up(struct bench *b, bool keys, bool jwks)
{
    *b = (struct bench){.folder = folder_make()};
    log_set_level(LOG_ERROR + 1);
    buf_init(&b->token, 1 << 16);
    assert_int_equal(config_init(&b->config, &b->err), OK);
    snprintf(b->keys, sizeof b->keys, "%s", folder_path(&b->folder, "keys"));
    snprintf(b->jwks, sizeof b->jwks, "%s", folder_path(&b->folder, "jwks"));
    b->issuer = issuer_make();
    if (keys) {
        assert_int_equal(auth_create_key(b->keys, "a", NULL, AUTH_RAW, b->key, &b->err), OK);
        b->config.listen.keys = strdup(b->keys);
    }
    if (jwks) {
        put_jwks(b);
        b->config.auth.jwks = strdup(b->jwks);
        b->config.auth.issuer = strdup("https://id.example");
        b->config.auth.audience = strdup("witan");
    }
    if (identity_create(&b->config, &b->identity, &b->err) != OK)
        fail_msg("%s", b->err.msg);
}

static void tear_down(struct bench *b)
{
    identity_destroy(b->identity);
    config_fini(&b->config);
    issuer_free(&b->issuer);
    buf_fini(&b->token);
    folder_remove(&b->folder);
}

static enum status check_at(struct bench *b, const char *credentials, int64_t now_s)
{
    char header[8192 + 64];
    snprintf(header, sizeof header, "Bearer %s", credentials);
    return identity_check(b->identity, header, now_s, &b->caller, &b->err);
}

static enum status check(struct bench *b, const char *credentials)
{
    return check_at(b, credentials, NOW);
}

static const char *token(struct bench *b, const char *claims)
{
    return issuer_token(&b->issuer, ISSUER_EC, HEADER_EC, claims, &b->token);
}

static struct identity_counts counts(struct bench *b)
{
    struct identity_counts c;
    identity_count(b->identity, &c);
    return c;
}

static void without_files_all_is_open(void **state)
{
    (void)state;
    struct bench b;
    set_up(&b, false, false);
    assert_null(b.identity);
    assert_int_equal(identity_check(NULL, NULL, NOW, &b.caller, &b.err), OK);
    assert_int_equal(b.caller.scopes, AUTH_ALL);
    assert_string_equal(b.caller.id, "-");
    identity_tick(NULL);
    identity_reload(NULL);
    tear_down(&b);
}

static void keys_and_tokens(void **state)
{
    (void)state;
    struct bench b;
    set_up(&b, true, true);
    assert_int_equal(check(&b, b.key), OK);
    assert_int_equal(b.caller.scopes, AUTH_RAW);
    assert_int_equal(check(&b, token(&b, CLAIMS(GENERATE))), OK);
    assert_int_equal(b.caller.scopes, AUTH_GENERATE);
    assert_memory_equal(b.caller.id, "oidc-", 5);
    uint64_t tenant = b.caller.tenant;
    assert_int_equal(check(&b, b.token.data), OK); /* remembered */
    assert_true(b.caller.tenant == tenant && b.caller.scopes == AUTH_GENERATE);
    SAYS(identity_check(b.identity, NULL, NOW, &b.caller, &b.err), ERR_NOT_FOUND, &b.err,
         "expected an API key");
    SAYS(check(&b, "wk-guess"), ERR_NOT_FOUND, &b.err, "46 characters");
    struct identity_counts c = counts(&b);
    assert_true(c.refused[AUTH_REFUSED_NONE] == 1 && c.refused[AUTH_REFUSED_MALFORMED] == 1);
    assert_true(c.files[IDENTITY_KEYS].keys == 1 && c.files[IDENTITY_JWKS].keys == 3);
    tear_down(&b);
}

static void tokens_alone(void **state)
{
    (void)state;
    struct bench b;
    set_up(&b, false, true);
    assert_int_equal(check(&b, token(&b, CLAIMS(""))), OK);
    assert_int_equal(b.caller.scopes, 0);
    SAYS(identity_check(b.identity, NULL, NOW, &b.caller, &b.err), ERR_NOT_FOUND, &b.err,
         "expected a bearer token", "found none");
    SAYS(check(&b, "wk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), ERR_NOT_FOUND, &b.err,
         "expected a bearer token");
    tear_down(&b);
}

/* Whatever is wrong, the words are the same; the counts tell. */
static void refused_tokens_learn_nothing(void **state)
{
    (void)state;
    struct bench b;
    char first[1024];
    set_up(&b, true, true);
    static const struct {
        const char *claims;
        enum auth_refusal why;
    } cases[] = {
        {"{\"iss\":\"x\",\"aud\":\"witan\",\"sub\":\"z\",\"exp\":1800000300}", AUTH_REFUSED_ISSUER},
        {"{\"iss\":\"https://id.example\",\"aud\":\"x\",\"sub\":\"z\",\"exp\":1800000300}",
         AUTH_REFUSED_AUDIENCE},
        {"{\"iss\":\"https://id.example\",\"aud\":\"witan\",\"sub\":\"z\",\"exp\":1700000000}",
         AUTH_REFUSED_EXPIRED},
        {CLAIMS(",\"nbf\":1800000290"), AUTH_REFUSED_NOT_YET},
        {"{\"iss\":\"https://id.example\",\"aud\":\"witan\",\"exp\":1800000300}",
         AUTH_REFUSED_CLAIMS},
    };
    SAYS(check(&b, "a.b.c"), ERR_INVALID, &b.err, "the bearer token was not accepted");
    snprintf(first, sizeof first, "%s", b.err.msg);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(check(&b, token(&b, cases[i].claims)), ERR_INVALID);
        assert_string_equal(b.err.msg, first);
        assert_true(counts(&b).refused[cases[i].why] == 1);
    }
    tear_down(&b);
}

static void remembered_tokens_expire(void **state)
{
    (void)state;
    struct bench b;
    set_up(&b, true, true);
    token(&b, CLAIMS(",\"nbf\":1799999900"));
    assert_int_equal(check(&b, b.token.data), OK);
    assert_int_equal(check_at(&b, b.token.data, 1800000359), OK);
    assert_int_equal(check_at(&b, b.token.data, 1800000360), ERR_INVALID);
    assert_int_equal(check_at(&b, b.token.data, 1799999839), ERR_INVALID); /* the clock jumps */
    assert_int_equal(check(&b, b.token.data), OK);
    struct identity_counts c = counts(&b);
    assert_true(c.refused[AUTH_REFUSED_EXPIRED] == 1 && c.refused[AUTH_REFUSED_NOT_YET] == 1);
    tear_down(&b);
}

/* --- files that change --- */

static void keys_come_and_go(void **state)
{
    (void)state;
    struct bench b;
    char second[AUTH_KEY_BYTES + 1], id[AUTH_MAX_ID + 1];
    set_up(&b, true, true);
    assert_int_equal(check(&b, b.key), OK);
    snprintf(id, sizeof id, "%s", b.caller.id);
    assert_int_equal(auth_create_key(b.keys, "b", NULL, AUTH_ADMIN, second, &b.err), OK);
    assert_int_equal(check(&b, second), ERR_NOT_FOUND);
    identity_tick(b.identity);
    assert_int_equal(check(&b, second), OK);
    assert_int_equal(auth_revoke_key(b.keys, id, &b.err), OK);
    identity_tick(b.identity);
    SAYS(check(&b, b.key), ERR_NOT_FOUND, &b.err, "unknown");
    assert_int_equal(check(&b, second), OK);
    assert_true(counts(&b).files[IDENTITY_KEYS].loads == 3);
    assert_true(counts(&b).files[IDENTITY_JWKS].loads == 1);
    identity_tick(b.identity); /* nothing is new */
    assert_true(counts(&b).files[IDENTITY_KEYS].loads == 3);
    identity_reload(b.identity);
    assert_true(counts(&b).files[IDENTITY_KEYS].loads == 4);
    assert_true(counts(&b).files[IDENTITY_JWKS].loads == 2);
    tear_down(&b);
}

static void assert_stale(struct bench *b, bool stale, uint64_t failures)
{
    struct identity_counts c = counts(b);
    assert_true(c.files[IDENTITY_KEYS].stale == stale);
    assert_true(c.files[IDENTITY_KEYS].failures == failures);
}

/* Half a file, none, one that others can write: what was read before stays. */
static void a_broken_file_changes_nothing(void **state)
{
    (void)state;
    struct bench b;
    char *text = NULL;
    size_t len = 0;
    set_up(&b, true, true);
    assert_int_equal(file_read_all(b.keys, 1 << 16, &text, &len, &b.err), OK);
    folder_write(&b.folder, "keys", text, len / 2);
    for (int i = 0; i < 3; i++) {
        identity_tick(b.identity);
        assert_int_equal(check(&b, b.key), OK);
        assert_int_equal(identity_check(b.identity, NULL, NOW, &b.caller, &b.err), ERR_NOT_FOUND);
        assert_stale(&b, true, 1);
    }
    assert_int_equal(unlink(b.keys), 0);
    for (int i = 0; i < 3; i++) {
        identity_tick(b.identity);
        assert_int_equal(check(&b, b.key), OK);
        assert_stale(&b, true, 2);
    }
    folder_write(&b.folder, "keys", text, len);
    assert_int_equal(chmod(b.keys, 0666), 0);
    identity_tick(b.identity);
    assert_stale(&b, true, 3);
    assert_int_equal(chmod(b.keys, 0600), 0);
    identity_tick(b.identity);
    assert_stale(&b, false, 3);
    assert_int_equal(check(&b, b.key), OK);
    /* An empty one is sound: nobody has a key. */
    folder_write(&b.folder, "keys", "", 0);
    identity_tick(b.identity);
    assert_int_equal(check(&b, b.key), ERR_NOT_FOUND);
    assert_stale(&b, false, 3);
    free(text);
    tear_down(&b);
}

static void an_issuer_changes_its_keys(void **state)
{
    (void)state;
    struct bench b;
    char old[4096];
    set_up(&b, true, true);
    snprintf(old, sizeof old, "%s", token(&b, CLAIMS("")));
    assert_int_equal(check(&b, old), OK);
    struct issuer before = b.issuer;
    b.issuer = issuer_make();
    assert_int_equal(check(&b, token(&b, CLAIMS(""))), ERR_INVALID);
    folder_puts(&b.folder, "jwks", "{\"keys\":");
    identity_tick(b.identity);
    assert_int_equal(check(&b, old), OK);
    put_jwks(&b);
    identity_tick(b.identity);
    assert_int_equal(check(&b, old), ERR_INVALID); /* though it was remembered */
    assert_int_equal(check(&b, token(&b, CLAIMS(""))), OK);
    assert_true(counts(&b).refused[AUTH_REFUSED_SIGNATURE] == 2);
    issuer_free(&before);
    tear_down(&b);
}

static void the_first_file_must_be_sound(void **state)
{
    (void)state;
    struct bench b;
    struct identity *i = NULL;
    set_up(&b, true, true);
    folder_puts(&b.folder, "jwks", "{}");
    SAYS(identity_create(&b.config, &i, &b.err), ERR_INVALID, &b.err, "/jwks: keys: expected");
    assert_int_equal(unlink(b.jwks), 0);
    SAYS(identity_create(&b.config, &i, &b.err), ERR_NOT_FOUND, &b.err, "auth.jwks: ", "/jwks");
    assert_null(i);
    tear_down(&b);
}

/* Threads ask while files are read again. */
struct asking {
    struct bench *b;
    atomic_bool stop;
    atomic_int wrong, asked;
};

static void *keep_asking(void *arg)
{
    struct asking *a = arg;
    struct auth_caller caller;
    struct error err;
    char key[64], made[4096];
    snprintf(key, sizeof key, "Bearer %s", a->b->key);
    snprintf(made, sizeof made, "Bearer %s", a->b->token.data);
    while (!a->stop) {
        a->wrong += identity_check(a->b->identity, key, NOW, &caller, &err) != OK;
        a->wrong += identity_check(a->b->identity, made, NOW, &caller, &err) != OK;
        a->asked++;
    }
    return NULL;
}

static void asking_while_files_change(void **state)
{
    (void)state;
    struct bench b;
    struct asking a = {.b = &b};
    pthread_t threads[2];
    char more[AUTH_KEY_BYTES + 1];
    set_up(&b, true, true);
    token(&b, CLAIMS(GENERATE));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, keep_asking, &a), 0);
    for (int i = 0; i < 20 || a.asked < 100; i++) {
        if (i < 20)
            assert_int_equal(auth_create_key(b.keys, "more", NULL, AUTH_RAW, more, &b.err), OK);
        identity_reload(b.identity);
    }
    a.stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(a.wrong, 0);
    tear_down(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(without_files_all_is_open),
    cmocka_unit_test(keys_and_tokens),
    cmocka_unit_test(tokens_alone),
    cmocka_unit_test(refused_tokens_learn_nothing),
    cmocka_unit_test(remembered_tokens_expire),
    cmocka_unit_test(keys_come_and_go),
    cmocka_unit_test(a_broken_file_changes_nothing),
    cmocka_unit_test(an_issuer_changes_its_keys),
    cmocka_unit_test(the_first_file_must_be_sound),
    cmocka_unit_test(asking_while_files_change),
};

UNIT_MAIN(tests)
