/* coordinator/auth: keys made, listed and checked, and files that are refused. */
#include "tests/unit/partition/folder.h"

#include "coordinator/auth.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define REST "\"scopes\":[\"raw\"],\"created\":\"2026-01-31T12:00:00Z\"}\n"
#define LINE_A "{\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A "\"," REST
#define LINE_B "{\"id\":\"b\",\"name\":\"y\",\"sha256\":\"" HASH_B "\"," REST

/* A file with this text and mode, loaded. */
static enum status load(const char *text, mode_t mode, struct auth **out, struct error *err)
{
    struct folder f = folder_make();
    folder_puts(&f, "keys", text);
    assert_int_equal(chmod(folder_path(&f, "keys"), mode), 0);
    enum status st = auth_load(folder_path(&f, "keys"), out, err);
    folder_remove(&f);
    return st;
}

#define REFUSES(case_name, text, ...)                                                              \
    static void case_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        struct auth *a = NULL;                                                                     \
        struct error err;                                                                          \
        SAYS(load(text, 0600, &a, &err), ERR_INVALID, &err, "/keys: ", __VA_ARGS__);               \
        assert_null(a);                                                                            \
    }

REFUSES(not_json, LINE_A "\n\nkey\n", "line 4")
REFUSES(not_an_object, "[]\n", "line 1: expected an object", "found an array")
REFUSES(field_missing, "{\"id\":\"a\",\"name\":\"x\"," REST, "line 1: sha256: expected a string",
        "found nothing")
REFUSES(unknown_field,
        LINE_A "{\"until\":1,\"id\":\"b\",\"name\":\"y\",\"sha256\":\"" HASH_B "\"," REST,
        "line 2: expected id, name, sha256", "found \"until\"")
REFUSES(unknown_scope,
        "{\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A
        "\",\"scopes\":[\"all\"],\"created\":\"now\"}\n",
        "line 1: scopes: expected some of generate, raw, admin, priority", "found \"all\"")
REFUSES(no_scopes,
        "{\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A "\",\"scopes\":[],\"created\":\"now\"}",
        "line 1: scopes: expected a list of words", "found an empty one")
REFUSES(scopes_of_wrong_type,
        "{\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A
        "\",\"scopes\":[1],\"created\":\"now\"}",
        "line 1: scopes: expected a word", "found an integer")
REFUSES(short_hash, "{\"id\":\"a\",\"name\":\"x\",\"sha256\":\"abc\"," REST,
        "line 1: sha256: expected 64 hex digits", "found \"abc\"")
REFUSES(hash_in_capitals,
        "{\"id\":\"a\",\"name\":\"x\",\"sha256\":"
        "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"," REST,
        "line 1: sha256: expected 64 hex digits")
REFUSES(id_with_space, "{\"id\":\"a b\",\"name\":\"x\",\"sha256\":\"" HASH_A "\"," REST,
        "line 1: id: expected", "found \"a b\"")
REFUSES(name_with_newline, "{\"id\":\"a\",\"name\":\"x\\ny\",\"sha256\":\"" HASH_A "\"," REST,
        "line 1: name: expected", "found \"x?y\"")
REFUSES(id_twice, LINE_A "{\"id\":\"a\",\"name\":\"y\",\"sha256\":\"" HASH_B "\"," REST,
        "expected each id once", "\"a\" again")
REFUSES(tenant_of_wrong_type,
        "{\"tenant\":1,\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A "\"," REST,
        "line 1: tenant: expected a string")
REFUSES(tenant_empty,
        "{\"tenant\":\"\",\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A "\"," REST,
        "line 1: tenant: expected 1 to 128")
#define WITH(field) "{" field ",\"id\":\"a\",\"name\":\"x\",\"sha256\":\"" HASH_A "\"," REST
REFUSES(expires_of_wrong_type, WITH("\"expires\":1"), "line 1: expires: expected a string")
REFUSES(expires_null, WITH("\"expires\":null"), "line 1: expires: expected a string")
REFUSES(expires_without_zone, WITH("\"expires\":\"2027-01-31T12:00:00\""),
        "line 1: expires: expected a time like \"2027-01-31T12:00:00Z\"")
REFUSES(expires_on_no_day, WITH("\"expires\":\"2027-02-31T12:00:00Z\""),
        "line 1: expires: expected a time like", "found \"2027-02-31T12:00:00Z\"")
REFUSES(no_requests_at_all, WITH("\"requests_per_minute\":0"),
        "line 1: requests_per_minute: expected")
REFUSES(tokens_of_wrong_type, WITH("\"tokens_per_minute\":\"many\""),
        "line 1: tokens_per_minute: expected an integer")
REFUSES(too_many_at_once, WITH("\"concurrent\":1048577"), "line 1: concurrent: expected")
REFUSES(key_twice, LINE_A "{\"id\":\"b\",\"name\":\"y\",\"sha256\":\"" HASH_A "\"," REST,
        "expected each sha256 once")

static void long_line(void **state)
{
    (void)state;
    char text[4096];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct auth *a = NULL;
    struct error err;
    SAYS(load(text, 0600, &a, &err), ERR_INVALID, &err, "line 1: expected at most 2048 bytes");
}

static void file_that_others_can_write(void **state)
{
    (void)state;
    static const mode_t modes[] = {0620, 0602, 0666};
    struct auth *a = NULL;
    struct error err;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        SAYS(load(LINE_A, modes[i], &a, &err), ERR_INVALID, &err,
             "expected a file that only its owner can write", "found mode 06");
    assert_int_equal(load(LINE_A, 0644, &a, &err), OK);
    auth_destroy(a);
}

static void file_missing(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct auth *a = NULL;
    struct error err;
    SAYS(auth_load(folder_path(&f, "keys"), &a, &err), ERR_NOT_FOUND, &err, "/keys",
         "No such file");
    SAYS(auth_load(f.path, &a, &err), ERR_INVALID, &err, "found no regular file");
    folder_remove(&f);
}

static void keys_are_listed(void **state)
{
    (void)state;
    struct auth *a = NULL;
    struct error err;
    assert_int_equal(load(LINE_B "\r\n  \n" LINE_A, 0600, &a, &err), OK);
    assert_int_equal(auth_count(a), 2);
    struct auth_entry e = auth_entry_at(a, 0);
    assert_string_equal(e.id, "b");
    assert_string_equal(e.name, "y");
    assert_string_equal(e.created, "2026-01-31T12:00:00Z");
    assert_int_equal(e.scopes, AUTH_RAW);
    assert_string_equal(auth_entry_at(a, 1).id, "a");
    auth_destroy(a);
    assert_int_equal(load("", 0600, &a, &err), OK);
    assert_int_equal(auth_count(a), 0);
    auth_destroy(a);
    assert_int_equal(auth_count(NULL), 0);
    auth_destroy(NULL);
}

enum { NOW = 1800000000 }; /* 2027-01-15T08:00:00Z */

static enum status check(const struct auth *a, const char *scheme, const char *key,
                         uint32_t *scopes, const char **id, struct error *err)
{
    char header[256];
    snprintf(header, sizeof header, "%s%s", scheme ? scheme : "", key ? key : "");
    static struct auth_caller caller;
    enum auth_refusal why;
    struct auth_caller found;
    TRY(auth_check(a, scheme ? header : NULL, NOW, &found, &why, err));
    caller = found;
    *scopes = caller.scopes;
    *id = caller.id;
    return OK;
}

static void created_keys_open_what_they_may(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char one[AUTH_KEY_BYTES + 1], two[AUTH_KEY_BYTES + 1];
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    struct error err;
    mode_t old = umask(0);
    assert_int_equal(auth_create_key(path, "Zoë's \"laptop\"", NULL, AUTH_GENERATE, one, &err), OK);
    umask(old);
    assert_int_equal(auth_create_key(path, "ops", NULL, AUTH_RAW | AUTH_ADMIN, two, &err), OK);
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 07777, 0600);
    assert_int_equal(strlen(one), AUTH_KEY_BYTES);
    assert_memory_equal(one, "wk-", 3);
    assert_string_not_equal(one, two);

    struct auth *a = NULL;
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), 2);
    assert_string_equal(auth_entry_at(a, 0).name, "Zoë's \"laptop\"");
    uint32_t scopes = 0;
    const char *id = NULL;
    assert_int_equal(check(a, "Bearer ", one, &scopes, &id, &err), OK);
    assert_int_equal(scopes, AUTH_GENERATE);
    assert_string_equal(id, auth_entry_at(a, 0).id);
    assert_int_equal(check(a, "bearer   ", two, &scopes, &id, &err), OK);
    assert_int_equal(scopes, AUTH_RAW | AUTH_ADMIN);
    assert_string_equal(id, auth_entry_at(a, 1).id);
    auth_destroy(a);

    /* The file holds no key. */
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(file_read_all(path, 1 << 20, &text, &len, &err), OK);
    assert_null(strstr(text, one + 3));
    free(text);
    folder_remove(&f);
}

static void other_keys_do_not_open(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char key[AUTH_KEY_BYTES + 1], other[AUTH_KEY_BYTES + 1], bad[AUTH_KEY_BYTES + 2];
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    struct error err;
    assert_int_equal(auth_create_key(path, "a", NULL, AUTH_ALL, key, &err), OK);
    assert_int_equal(auth_create_key(folder_path(&f, "others"), "b", NULL, AUTH_ALL, other, &err),
                     OK);
    struct auth *a = NULL;
    assert_int_equal(auth_load(path, &a, &err), OK);
    uint32_t scopes = 77;
    const char *id = "none";
    SAYS(check(a, NULL, NULL, &scopes, &id, &err), ERR_NOT_FOUND, &err, "expected an API key",
         "found none");
    SAYS(check(a, "Bearer ", other, &scopes, &id, &err), ERR_NOT_FOUND, &err, "unknown");
    SAYS(check(a, "Basic ", key, &scopes, &id, &err), ERR_NOT_FOUND, &err, "Bearer");
    SAYS(check(a, "", key, &scopes, &id, &err), ERR_NOT_FOUND, &err, "Bearer");
    SAYS(check(a, "Bearer ", "", &scopes, &id, &err), ERR_NOT_FOUND, &err, "46 characters");
    for (int i = 0; i < AUTH_KEY_BYTES; i++) {
        memcpy(bad, key, sizeof key);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        assert_int_equal(check(a, "Bearer ", bad, &scopes, &id, &err), ERR_NOT_FOUND);
        assert_null(strstr(err.msg, key + 20)); /* a message holds no key */
    }
    snprintf(bad, sizeof bad, "%sA", key);
    assert_int_equal(check(a, "Bearer ", bad, &scopes, &id, &err), ERR_NOT_FOUND);
    key[AUTH_KEY_BYTES - 1] = '\0';
    assert_int_equal(check(a, "Bearer ", key, &scopes, &id, &err), ERR_NOT_FOUND);
    assert_int_equal(scopes, 77);
    assert_string_equal(id, "none");
    auth_destroy(a);
    folder_remove(&f);
}

static void without_keys_all_is_open(void **state)
{
    (void)state;
    struct auth_caller caller = {.tenant = 7};
    enum auth_refusal why;
    struct error err;
    assert_int_equal(auth_check(NULL, NULL, NOW, &caller, &why, &err), OK);
    assert_int_equal(caller.scopes, AUTH_ALL);
    assert_string_equal(caller.id, "-");
    assert_int_equal(caller.tenant, 0);
    assert_int_equal(auth_check(NULL, "Basic x", NOW, &caller, &why, &err), OK);
}

/* Who named a tenant is one with all others who did; who did not stands alone. */
static void tenants_are_told_apart(void **state)
{
    (void)state;
    struct folder f = folder_make();
    enum { TEAM_A, AGAIN, TEAM_B, ALONE, ALONE_TOO, KEYS };
    static const char *const tenants[KEYS] = {"team a", "team a", "team b", NULL, NULL};
    char path[512], key[KEYS][AUTH_KEY_BYTES + 1], header[256];
    uint64_t id[KEYS];
    struct auth_caller caller;
    enum auth_refusal why;
    struct auth *a = NULL;
    struct error err;
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    for (int i = 0; i < KEYS; i++) {
        const struct auth_terms terms = {.tenant = tenants[i]};
        assert_int_equal(auth_create_key(path, "x", &terms, AUTH_RAW, key[i], &err), OK);
    }
    assert_int_equal(auth_load(path, &a, &err), OK);
    for (int i = 0; i < KEYS; i++) {
        snprintf(header, sizeof header, "Bearer %s", key[i]);
        assert_int_equal(auth_check(a, header, NOW, &caller, &why, &err), OK);
        id[i] = caller.tenant;
        const char *told = auth_entry_at(a, (size_t)i).tenant;
        assert_true(tenants[i] ? told && strcmp(told, tenants[i]) == 0 : !told);
    }
    /* printf 'team a' | sha256sum */
    assert_true(id[TEAM_A] == 0x35a6220627021916);
    assert_true(id[AGAIN] == id[TEAM_A]);
    assert_true(id[TEAM_B] != id[TEAM_A]);
    assert_true(id[ALONE] != id[ALONE_TOO] && id[ALONE] != id[TEAM_A] && id[ALONE] != 0);
    auth_destroy(a);
    const struct auth_terms bad = {.tenant = "b\tc"};
    SAYS(auth_create_key(path, "a", &bad, AUTH_RAW, key[0], &err), ERR_INVALID, &err,
         "tenant: expected 1 to 128 bytes", "found \"b?c\"");
    folder_remove(&f);
}

static void going_before_others_needs_its_scope(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(auth_check_priority(AUTH_GENERATE, 0, &err), OK);
    assert_int_equal(auth_check_priority(AUTH_GENERATE, 1, &err), OK);
    assert_int_equal(auth_check_priority(AUTH_PRIORITY, -1, &err), OK);
    assert_int_equal(auth_check_priority(AUTH_ALL, -1, &err), OK);
    SAYS(auth_check_priority(AUTH_GENERATE | AUTH_RAW | AUTH_ADMIN, -1, &err), ERR_INVALID, &err,
         "priority: -1 needs a key with the scope priority");
}

static void creating_refuses(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[AUTH_KEY_BYTES + 1];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    struct error err;
    SAYS(auth_create_key(path, "", NULL, AUTH_RAW, key, &err), ERR_INVALID, &err,
         "name: expected 1 to");
    SAYS(auth_create_key(path, "a\nb", NULL, AUTH_RAW, key, &err), ERR_INVALID, &err,
         "found \"a?b\"");
    SAYS(auth_create_key(path, "\xff", NULL, AUTH_RAW, key, &err), ERR_INVALID, &err, "UTF-8");
    SAYS(auth_create_key(path, "a", NULL, 0, key, &err), ERR_INVALID, &err,
         "scopes: expected some");
    SAYS(auth_create_key(path, "a", NULL, 16, key, &err), ERR_INVALID, &err,
         "scopes: expected some");
    assert_int_not_equal(access(path, F_OK), 0);
    /* A file that holds something else is not written to. */
    folder_puts(&f, "keys", "root:x:0\n");
    chmod(path, 0600);
    SAYS(auth_create_key(path, "a", NULL, AUTH_RAW, key, &err), ERR_INVALID, &err, "/keys: line 1");
    assert_int_equal(key[0], 0);
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_size, 9);
    chmod(path, 0666);
    SAYS(auth_create_key(path, "a", NULL, AUTH_RAW, key, &err), ERR_INVALID, &err,
         "found mode 0666");
    folder_remove(&f);
}

static void line_left_open_is_ended(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[AUTH_KEY_BYTES + 1];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    folder_write(&f, "keys", LINE_A, sizeof LINE_A - 2);
    chmod(path, 0600);
    struct error err;
    struct auth *a = NULL;
    assert_int_equal(auth_create_key(path, "b", NULL, AUTH_RAW, key, &err), OK);
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), 2);
    auth_destroy(a);
    folder_remove(&f);
}

enum { CREATORS = 4, KEYS_EACH = 8 };

static void *create_some(void *arg)
{
    const char *path = (const char *)arg;
    char key[AUTH_KEY_BYTES + 1];
    for (int i = 0; i < KEYS_EACH; i++)
        if (auth_create_key(path, "many", NULL, AUTH_RAW, key, NULL) != OK)
            return arg;
    return NULL;
}

static void creators_at_once(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    pthread_t threads[CREATORS];
    for (int i = 0; i < CREATORS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, create_some, path), 0);
    for (int i = 0; i < CREATORS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    struct error err;
    struct auth *a = NULL;
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), CREATORS * KEYS_EACH);
    auth_destroy(a);
    folder_remove(&f);
}

/* 3000 keys in one file: each is found, and by its own id. */
static void many_keys(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct folder f = folder_make();
    struct error err;
    char key[AUTH_KEY_BYTES + 1], path[512];
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    assert_int_equal(auth_create_key(path, "first", NULL, AUTH_ADMIN, key, &err), OK);
    FILE *out = fopen(path, "a");
    assert_non_null(out);
    for (int i = 0; i < MANY; i++)
        fprintf(out, "{\"id\":\"i%d\",\"name\":\"x\",\"sha256\":\"%064x\"," REST, i, i * 7919);
    assert_int_equal(fclose(out), 0);
    struct auth *a = NULL;
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), MANY + 1);
    uint32_t scopes = 0;
    const char *id = NULL;
    assert_int_equal(check(a, "Bearer ", key, &scopes, &id, &err), OK);
    assert_int_equal(scopes, AUTH_ADMIN);
    auth_destroy(a);
    folder_remove(&f);
}

static void scopes_are_parsed(void **state)
{
    (void)state;
    uint32_t scopes = 77;
    struct error err;
    SAYS(auth_parse_scopes("", &scopes, &err), ERR_INVALID, &err, "generate, raw, admin",
         "found \"\"");
    SAYS(auth_parse_scopes("raw,", &scopes, &err), ERR_INVALID, &err, "found \"\"");
    SAYS(auth_parse_scopes("raw,Admin", &scopes, &err), ERR_INVALID, &err, "found \"Admin\"");
    SAYS(auth_parse_scopes("ra", &scopes, &err), ERR_INVALID, &err, "found \"ra\"");
    assert_int_equal(scopes, 77);
    assert_int_equal(auth_parse_scopes("admin,generate,admin", &scopes, &err), OK);
    assert_int_equal(scopes, AUTH_ADMIN | AUTH_GENERATE);
    struct buf out;
    buf_init(&out, 100);
    assert_int_equal(auth_print_scopes(scopes, &out, &err), OK);
    assert_string_equal(out.data, "generate,admin");
    buf_fini(&out);
}

/* --- bounds of a key --- */

static void a_key_expires(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[AUTH_KEY_BYTES + 1], header[256];
    const struct auth_terms terms = {.expires_s = NOW + 60};
    struct auth_caller caller;
    enum auth_refusal why = AUTH_REFUSED_NONE;
    struct auth *a = NULL;
    struct error err;
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    assert_int_equal(auth_create_key(path, "a", &terms, AUTH_RAW, key, &err), OK);
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_true(auth_entry_at(a, 0).expires_s == NOW + 60);
    snprintf(header, sizeof header, "Bearer %s", key);
    assert_int_equal(auth_check(a, header, NOW, &caller, &why, &err), OK);
    assert_int_equal(auth_check(a, header, NOW + 59, &caller, &why, &err), OK);
    SAYS(auth_check(a, header, NOW + 60, &caller, &why, &err), ERR_NOT_FOUND, &err, "has expired",
         "2027-01-15T08:01:00Z");
    assert_int_equal(why, AUTH_REFUSED_EXPIRED);
    header[strlen(header) - 1] = header[strlen(header) - 1] == 'A' ? 'B' : 'A';
    SAYS(auth_check(a, header, NOW + 60, &caller, &why, &err), ERR_NOT_FOUND, &err, "unknown");
    assert_int_equal(why, AUTH_REFUSED_UNKNOWN);
    auth_destroy(a);
    folder_remove(&f);
}

static void a_key_has_quotas(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[2][AUTH_KEY_BYTES + 1], header[256];
    const struct auth_terms terms = {.tenant = "t", .quotas = {60, 10000, 4}};
    struct auth_caller caller;
    enum auth_refusal why;
    struct auth *a = NULL;
    struct error err;
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    assert_int_equal(auth_create_key(path, "a", &terms, AUTH_RAW, key[0], &err), OK);
    assert_int_equal(auth_create_key(path, "b", NULL, AUTH_RAW, key[1], &err), OK);
    assert_int_equal(auth_load(path, &a, &err), OK);
    snprintf(header, sizeof header, "Bearer %s", key[0]);
    assert_int_equal(auth_check(a, header, NOW, &caller, &why, &err), OK);
    assert_int_equal(caller.quota.limits.requests, 60);
    assert_int_equal(caller.quota.limits.tokens, 10000);
    assert_int_equal(caller.quota.limits.concurrent, 4);
    assert_true(caller.quota.id != 0);
    snprintf(header, sizeof header, "Bearer %s", key[1]);
    assert_int_equal(auth_check(a, header, NOW, &caller, &why, &err), OK);
    assert_true(caller.quota.id == 0 && caller.quota.limits.requests == 0);
    assert_int_equal(auth_entry_at(a, 0).quotas.tokens, 10000);
    auth_destroy(a);
    folder_remove(&f);
}

static void expiries_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t at;
    } good[] = {{"1h", NOW + 3600},
                {"90d", NOW + 90 * 86400},
                {"2027-01-16", 1800057600},
                {"2027-01-15T08:00:01Z", NOW + 1}};
    static const char *const bad[] = {
        "",          "90",          "d",        "90m",        "90d ",       "-1d",
        "2027-1-16", "2027-01-16 ", "tomorrow", "2027-13-01", "2027-02-29", "2027-01-16T25:00:00Z"};
    static const char *const behind[] = {"2027-01-15", "2027-01-15T08:00:00Z", "0d", "36501d",
                                         "9999-12-31"};
    struct error err;
    int64_t at = 77;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(auth_parse_expiry(good[i].text, NOW, &at, &err), OK);
        assert_true(at == good[i].at);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        SAYS(auth_parse_expiry(bad[i], NOW, &at, &err), ERR_INVALID, &err, "expires: expected");
    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++)
        assert_int_equal(auth_parse_expiry(behind[i], NOW, &at, &err), ERR_INVALID);
}

/* --- revoking --- */

static void a_key_is_revoked(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[3][AUTH_KEY_BYTES + 1], id[AUTH_MAX_ID + 1], header[256];
    struct auth_caller caller;
    enum auth_refusal why;
    struct auth *a = NULL;
    struct error err;
    struct stat s;
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(auth_create_key(path, "a", NULL, AUTH_RAW, key[i], &err), OK);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(auth_load(path, &a, &err), OK);
    snprintf(id, sizeof id, "%s", auth_entry_at(a, 1).id);
    auth_destroy(a);
    SAYS(auth_revoke_key(path, "nobody", &err), ERR_NOT_FOUND, &err, "found none \"nobody\"");
    assert_int_equal(auth_revoke_key(path, id, &err), OK);
    SAYS(auth_revoke_key(path, id, &err), ERR_NOT_FOUND, &err, "expected the id of a key");
    assert_int_equal(stat(path, &s), 0);
    assert_int_equal(s.st_mode & 07777, 0640);
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), 2);
    for (int i = 0; i < 3; i++) {
        snprintf(header, sizeof header, "Bearer %s", key[i]);
        assert_int_equal(auth_check(a, header, NOW, &caller, &why, &err) == OK, i != 1);
    }
    auth_destroy(a);
    /* What cannot be read is left as it is. */
    folder_puts(&f, "keys", LINE_A "broken\n");
    chmod(path, 0600);
    SAYS(auth_revoke_key(path, "a", &err), ERR_INVALID, &err, "line 2");
    folder_remove(&f);
}

static void *revoke_some(void *arg)
{
    const char *path = (const char *)arg;
    for (int i = 0; i < KEYS_EACH; i++) {
        struct auth *a = NULL;
        if (auth_load(path, &a, NULL) != OK)
            return arg;
        char id[AUTH_MAX_ID + 1];
        snprintf(id, sizeof id, "%s", auth_entry_at(a, 0).id);
        auth_destroy(a);
        if (auth_revoke_key(path, id, NULL) != OK)
            return arg;
    }
    return NULL;
}

/* A file that is replaced under those who wait for it: no key is lost. */
static void creating_while_others_revoke(void **state)
{
    (void)state;
    struct folder f = folder_make();
    char path[512], key[AUTH_KEY_BYTES + 1];
    pthread_t threads[CREATORS];
    struct auth *a = NULL;
    struct error err;
    snprintf(path, sizeof path, "%s", folder_path(&f, "keys"));
    for (int i = 0; i < KEYS_EACH; i++)
        assert_int_equal(auth_create_key(path, "old", NULL, AUTH_RAW, key, &err), OK);
    for (int i = 0; i < CREATORS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i == 0 ? revoke_some : create_some, path), 0);
    for (int i = 0; i < CREATORS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(auth_load(path, &a, &err), OK);
    assert_int_equal(auth_count(a), (CREATORS - 1) * KEYS_EACH);
    for (size_t i = 0; i < auth_count(a); i++)
        assert_string_equal(auth_entry_at(a, i).name, "many");
    auth_destroy(a);
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(expires_of_wrong_type),
    cmocka_unit_test(expires_null),
    cmocka_unit_test(expires_without_zone),
    cmocka_unit_test(expires_on_no_day),
    cmocka_unit_test(no_requests_at_all),
    cmocka_unit_test(tokens_of_wrong_type),
    cmocka_unit_test(too_many_at_once),
    cmocka_unit_test(a_key_expires),
    cmocka_unit_test(a_key_has_quotas),
    cmocka_unit_test(expiries_are_parsed),
    cmocka_unit_test(a_key_is_revoked),
    cmocka_unit_test(creating_while_others_revoke),
    cmocka_unit_test(not_json),
    cmocka_unit_test(not_an_object),
    cmocka_unit_test(field_missing),
    cmocka_unit_test(unknown_field),
    cmocka_unit_test(unknown_scope),
    cmocka_unit_test(no_scopes),
    cmocka_unit_test(scopes_of_wrong_type),
    cmocka_unit_test(short_hash),
    cmocka_unit_test(hash_in_capitals),
    cmocka_unit_test(id_with_space),
    cmocka_unit_test(name_with_newline),
    cmocka_unit_test(id_twice),
    cmocka_unit_test(tenant_of_wrong_type),
    cmocka_unit_test(tenant_empty),
    cmocka_unit_test(key_twice),
    cmocka_unit_test(long_line),
    cmocka_unit_test(file_that_others_can_write),
    cmocka_unit_test(file_missing),
    cmocka_unit_test(keys_are_listed),
    cmocka_unit_test(created_keys_open_what_they_may),
    cmocka_unit_test(other_keys_do_not_open),
    cmocka_unit_test(without_keys_all_is_open),
    cmocka_unit_test(tenants_are_told_apart),
    cmocka_unit_test(going_before_others_needs_its_scope),
    cmocka_unit_test(creating_refuses),
    cmocka_unit_test(line_left_open_is_ended),
    cmocka_unit_test(creators_at_once),
    cmocka_unit_test(many_keys),
    cmocka_unit_test(scopes_are_parsed),
};

UNIT_MAIN(tests)
