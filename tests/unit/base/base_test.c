/* base: errors, buffers, JSON access. */
#include "tests/unit/unit.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"

static void error_prefix_puts_words_before(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(error_set(&err, ERR_INVALID, "found %d", 3), ERR_INVALID);
    error_prefix(&err, "config.json: ");
    assert_string_equal(err.msg, "config.json: found 3");
}

static void error_advise_puts_words_behind(void **state)
{
    (void)state;
    struct error err;
    char path[sizeof err.msg];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    error_set(&err, ERR_IO, "found %d", 3);
    assert_int_equal(error_advise(&err, ERR_IO, "fetch %s again", "it"), ERR_IO);
    assert_string_equal(err.msg, "found 3: fetch it again");
    error_advise(&err, ERR_IO, "%s", path);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    error_advise(&err, ERR_IO, "no room");
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    assert_int_equal(error_advise(NULL, ERR_IO, "nobody listens"), ERR_IO);
}

static void buf_keeps_its_limit(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    buf_init(&b, 10);
    assert_int_equal(buf_puts(&b, "0123456789", &err), OK);
    assert_int_equal(buf_puts(&b, "x", &err), ERR_LIMIT);
    assert_int_equal(buf_append(&b, "x", SIZE_MAX, &err), ERR_LIMIT);
    assert_int_equal(b.len, 10);
    assert_string_equal(b.data, "0123456789");
    buf_fini(&b);
}

static void buf_json_string_escapes(void **state)
{
    (void)state;
    struct buf b;
    struct error err;
    buf_init(&b, 100);
    assert_int_equal(buf_json_string(&b, "a\"\\\n\x01\x1f z", 8, &err), OK);
    assert_string_equal(b.data, "\"a\\\"\\\\\\n\\u0001\\u001f z\"");
    buf_clear(&b);
    b.limit = 5;
    assert_int_equal(buf_json_string(&b, "abcdef", 6, &err), ERR_LIMIT);
    assert_int_equal(b.len, 0);
    buf_fini(&b);
}

static void json_parse_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "{",
        "{} x",       "{\"a\":1,\"a\":2}",
        "\"s\"",      "{\"a\":1e999}",
        "[\"\xff\"]", "[\"\\u0000\"]",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct error err;
        json_t *root = NULL;
        assert_int_equal(json_parse("in", bad[i], strlen(bad[i]), &root, &err), ERR_INVALID);
        assert_null(root);
        assert_non_null(strstr(err.msg, "in: "));
    }
    char deep[200];
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    struct error err;
    json_t *root;
    assert_int_equal(json_parse("in", deep, 130, &root, &err), ERR_INVALID);
    assert_int_equal(json_parse("in", deep + 1, 128, &root, &err), OK);
    json_decref(root);
}

static void json_fields_name_expected_and_found(void **state)
{
    (void)state;
    struct error err;
    json_t *root;
    const char *text = "{\"n\":3,\"s\":\"x\",\"z\":null}";
    assert_int_equal(json_parse("f", text, strlen(text), &root, &err), OK);
    int64_t n = 7;
    assert_int_equal(json_get_int(root, "f", "n", true, 0, 5, &n, &err), OK);
    assert_int_equal(n, 3);
    assert_int_equal(json_get_int(root, "f", "n", true, 4, 5, &n, &err), ERR_INVALID);
    assert_string_equal(err.msg, "f: n: expected 4 to 5, found 3");
    assert_int_equal(json_get_int(root, "f", "s", true, 0, 5, &n, &err), ERR_INVALID);
    assert_string_equal(err.msg, "f: s: expected an integer, found a string");
    n = 9;
    assert_int_equal(json_get_int(root, "f", "z", false, 0, 5, &n, &err), OK);
    assert_int_equal(n, 9);
    assert_int_equal(json_get_int(root, "f", "absent", true, 0, 5, &n, &err), ERR_INVALID);
    json_decref(root);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(error_prefix_puts_words_before),
    cmocka_unit_test(error_advise_puts_words_behind),
    cmocka_unit_test(buf_keeps_its_limit),
    cmocka_unit_test(buf_json_string_escapes),
    cmocka_unit_test(json_parse_refuses),
    cmocka_unit_test(json_fields_name_expected_and_found),
};

UNIT_MAIN(tests)
