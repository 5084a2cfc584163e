/* JSON that jansson does not hold. */
#include "coordinator/text/json_text.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include <string.h>

static void near_values(void **state)
{
    (void)state;
    static const struct {
        const char *text, *near; /* NULL: none */
    } cases[] = {
        {"{\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\"]}",
         "{\"a\": [1, -2.5e3, true, null, \"x\\n\\u00e9\"]}"},
        {"9223372036854775807", "9223372036854775807"},
        {"9223372036854775808", "9223372036854775808e0"},
        {"-9223372036854775809", "-9223372036854775809e0"},
        {"[123456789012345678901234567890]", "[1.2345678901234568e29]"},
        {"[1e999,-1E+999,1.5e-999]", "[1e308,-1e308,0.0]"},
        {"\"\\ud83c\\udf27\"", "\"\\ud83c\\udf27\""},
        {"\"\\ud83c\"", "\"\\ufffd\""},
        {"\"\\udf27\\ud83c!\"", "\"\\ufffd\\ufffd!\""},
        {"\"\\uD83C\\u0041\"", "\"\\ufffdA\""},
        {"\"\\ud83c\\\\udf27\"", "\"\\ufffd\\\\udf27\""},
        {"{\"a\\u0000b\": \"\\u0000\"}", "{\"a\\ufffdb\": \"\\ufffd\"}"},
        {"\"99999999999999999999 \\\" \\\\ud83c\"", "\"99999999999999999999 \\\" \\\\ud83c\""},
        {"{\"a\":1,\"a\":2}", "{\"a\":2}"},
        {"", NULL},
        {"-", NULL},
        {"[1", NULL},
        {"\"\\u12", NULL},
        {"\"\\", NULL},
        {"{\"a\":99999999999999999999,}", NULL},
        {"0123", NULL},
        {"\"\\uzzzz\"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *v = json_text_load_near(cases[i].text, strlen(cases[i].text)), *wanted = NULL;
        if (cases[i].near)
            wanted = json_loads(cases[i].near, JSON_DECODE_ANY, NULL);
        if (!v != !cases[i].near || (v && !json_equal(v, wanted)))
            fail_msg("%s", cases[i].text);
        json_decref(v);
        json_decref(wanted);
    }
}

static void members_in_turn(void **state)
{
    (void)state;
    static const char text[] =
        " { \"a\" : 1 , \"b\\\"\":{\"c\":[\"}\",{}]},\"\": \"x,y}\" ,\"d\":-2e5}";
    static const char *const wanted[][2] = {
        {"\"a\"", "1"},
        {"\"b\\\"\"", "{\"c\":[\"}\",{}]}"},
        {"\"\"", "\"x,y}\""},
        {"\"d\"", "-2e5"},
    };
    struct json_span name, value, all = {text, strlen(text)};
    size_t at = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        assert_true(json_text_member(all, &at, &name, &value));
        assert_int_equal(name.len, strlen(wanted[i][0]));
        assert_memory_equal(name.data, wanted[i][0], name.len);
        assert_int_equal(value.len, strlen(wanted[i][1]));
        assert_memory_equal(value.data, wanted[i][1], value.len);
    }
    assert_false(json_text_member(all, &at, &name, &value));
}

static void quotes(const char *text, const char *wanted)
{
    struct buf b;
    struct error err;
    buf_init(&b, 4096);
    assert_int_equal(json_text_quote_members(text, strlen(text), "in", &b, &err), OK);
    assert_string_equal(b.data, wanted);
    buf_fini(&b);
}

#define EIGHT(s) s s s s s s s s
#define DEEP(open, close) EIGHT(open open open open) open close EIGHT(close close close close)

static void members_become_strings(void **state)
{
    (void)state;
    static const char *const same[] = {
        "{\"in\":{\"a\":1},\"out\":{\"a\":99999999999999999999}}",
        "{\"in\":{\"in\":{\"in\":{\"a\":1},\"b\":[{}]}},\"out\":{\"a\":99999999999999999999}}",
        "{\"in\":99999999999999999999}",
        "{\"in\":[{\"a\":99999999999999999999}]}",
        "{\"x\":\"in\",\"y\":{\"a\":99999999999999999999}}",
        "\"in\"",
        "\"in\":",
        "{\"a\":\"\\\"in\\\":{1\"}",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        quotes(same[i], same[i]);
    quotes("[{\"in\" : {\"a\":99999999999999999999}, \"in\":{}}]",
           "[{\"in\" : \"{\\\"a\\\":99999999999999999999}\", \"in\":{}}]");
    quotes("{\"in\":{\"in\":{\"a\":\"\\ud83c}\"}}}",
           "{\"in\":\"{\\\"in\\\":{\\\"a\\\":\\\"\\\\ud83c}\\\"}}\"}");
    quotes("{\"in\":{\"a\":" DEEP("[", "]") "}}", "{\"in\":\"{\\\"a\\\":" DEEP("[", "]") "}\"}");
    quotes("{\"in\":{\"a\":1", "{\"in\":\"{\\\"a\\\":1\"");
}

/* Any text: the sanitizers look on, and what jansson holds stays what it is. */
static void any_text(void **state)
{
    (void)state;
    static const char *const words[] = {"{",     "}",       "[",         "]",
                                        "\"",    "\\",      ":",         ",",
                                        "1e999", "\"in\":", "\\u",       "\\ud83c",
                                        " ",     "-",       "12",        "null",
                                        "\"a\"", "{}",      "\\u0000\"", "99999999999999999999"};
    uint64_t random = 21;
    for (int i = 0; i < 20000; i++) {
        char text[400] = "";
        for (int n = random_int(&random, 0, 14); n > 0; n--)
            strcat(text, words[random_int(&random, 0, sizeof words / sizeof *words - 1)]);
        size_t len = strlen(text), at = 0;
        struct json_span name, value;
        struct buf b;
        json_t *held = json_loadb(text, len, JSON_DECODE_ANY, NULL);
        json_t *near = json_text_load_near(text, len);
        assert_true(!held || json_equal(held, near));
        json_decref(held);
        json_decref(near);
        for (int members = 0; json_text_member((struct json_span){text, len}, &at, &name, &value);
             members++)
            assert_true(members < 400 && value.len > 0 && value.data + value.len <= text + len);
        buf_init(&b, 4096);
        assert_int_equal(json_text_quote_members(text, len, "in", &b, NULL), OK);
        buf_fini(&b);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(near_values),
    cmocka_unit_test(members_in_turn),
    cmocka_unit_test(members_become_strings),
    cmocka_unit_test(any_text),
};

UNIT_MAIN(tests)
