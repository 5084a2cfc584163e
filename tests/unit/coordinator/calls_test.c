/* Tool calls told from content, whatever the pieces. */
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/calls.h"
#include "coordinator/reasoning.h"
#include "tests/unit/coordinator/calls_cases.h"
#include "tests/unit/coordinator/calls_telling.h"

#include <stdbool.h>

/* Told of the text in pieces: of 1 to `most` bytes where there is a source of them, else whole. */
static void run(enum call_format format, const char *text, size_t len, uint64_t *random, int most,
                bool flush, struct telling *t)
{
    struct calls c;
    struct error err;
    telling_init(t);
    calls_init(&c, format, telling_tools(), false);
    for (size_t at = 0, n; at < len; at += n) {
        n = random ? (size_t)random_int(random, 1, most) : len;
        n = n < len - at ? n : len - at;
        assert_int_equal(calls_push(&c, text + at, n, &err), OK);
        telling_take(t, &c);
    }
    if (flush) {
        assert_int_equal(calls_flush(&c, &err), OK);
        telling_take(t, &c);
        telling_mend(t);
    }
    calls_fini(&c);
}

static void check_case(enum call_format format, const struct calls_case *k)
{
    struct telling t;
    run(format, k->text, strlen(k->text), NULL, 0, true, &t);
    if (strcmp(t.text, k->told) != 0)
        fail_msg("%s:\n%s\nis told as\n%s\nexpected\n%s", k->name, k->text, t.text, k->told);
}

static void hermes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(hermes_cases); i++)
        check_case(CALLS_HERMES, &hermes_cases[i]);
}

static void coder(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(coder_cases); i++)
        check_case(CALLS_CODER, &coder_cases[i]);
}

/* After every prefix of the text, and at its end, the pieces make no difference. */
static void check_splits(enum call_format format, const char *text, uint64_t *random, int splits)
{
    size_t len = strlen(text);
    struct telling whole, split;
    run(format, text, len, NULL, 0, true, &whole);
    for (int i = 0; i < splits; i++) {
        run(format, text, len, random, random_int(random, 1, 16), true, &split);
        assert_string_equal(split.text, whole.text);
        size_t n = (size_t)random_int(random, 0, (int32_t)len);
        run(format, text, n, NULL, 0, false, &whole);
        run(format, text, n, random, 4, false, &split);
        assert_string_equal(split.text, whole.text);
        run(format, text, len, NULL, 0, true, &whole);
        assert_true(strncmp(split.text, whole.text, split.len) == 0); /* nothing is taken back */
    }
}

static void pieces_make_no_difference(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (size_t i = 0; i < COUNT_OF(hermes_cases); i++)
        check_splits(CALLS_HERMES, hermes_cases[i].text, &random, 50);
    for (size_t i = 0; i < COUNT_OF(coder_cases); i++)
        check_splits(CALLS_CODER, coder_cases[i].text, &random, 50);
}

/* Texts put together at random from what means something. */
static void nor_in_any_text(void **state)
{
    (void)state;
    static const char *const words[] = {"<tool_call>",
                                        "</tool_call>",
                                        "<function=f>",
                                        "<function=",
                                        "</function>",
                                        "<parameter=s>",
                                        "<parameter=ns>",
                                        "<parameter=i>",
                                        "</parameter>",
                                        "{\"name\": \"f\"",
                                        ", \"arguments\": ",
                                        "{",
                                        "}",
                                        "{\"a\": 1}",
                                        "\"",
                                        "\n",
                                        " ",
                                        "x",
                                        "null",
                                        "12",
                                        "<",
                                        ">",
                                        "\\",
                                        ",",
                                        ":",
                                        "{\"name\": \"f\", \"arguments\": {\"a\": \"",
                                        "\"}}",
                                        "[",
                                        "]",
                                        "</tool_",
                                        "nul"};
    uint64_t random = 7;
    for (int i = 0; i < 4000; i++) {
        char text[600] = "";
        for (int n = random_int(&random, 1, 14); n > 0; n--)
            strcat(text, words[(size_t)random_int(&random, 0, COUNT_OF(words) - 1)]);
        check_splits(i % 2 ? CALLS_HERMES : CALLS_CODER, text, &random, 2);
    }
}

/* Where no call is told, all of the text is content, byte for byte. */
static void nothing_is_lost(void **state)
{
    (void)state;
    static const char *const words[] = {
        "<tool_call>", "</tool_call>", "{\"name\": ", "\"f", "\"f\"", "<function=f", "{",
        "}",           "\n",           " ",           "\"",  ",",     ":",           "<"};
    uint64_t random = 9;
    int plain = 0;
    for (int i = 0; i < 4000; i++) {
        char text[400] = "";
        struct telling t;
        for (int n = random_int(&random, 1, 12); n > 0; n--)
            strcat(text, words[(size_t)random_int(&random, 0, COUNT_OF(words) - 1)]);
        run(i % 2 ? CALLS_HERMES : CALLS_CODER, text, strlen(text), &random, 3, true, &t);
        if (strstr(t.text, "{{"))
            continue;
        assert_string_equal(t.text, text);
        plain++;
    }
    assert_true(plain > 1000);
}

/* What a model writes as its template would: with the tags put back, the fields are the text. */
static void fields_and_tags_are_the_text(void **state)
{
    (void)state;
    static const char *const contents[] = {"", "I look.", "a < b", "One\n\ntwo."};
    static const char *const values[] = {"{}", "{\"a\": 1}", "{\"q\": \"}{ <b>\"}",
                                         "{\"x\": [1, {\"y\": null}]}"};
    uint64_t random = 3;
    for (int i = 0; i < 1000; i++) {
        char text[600], told[600];
        const char *content = contents[random_int(&random, 0, 3)];
        size_t n = (size_t)snprintf(text, sizeof text, "%s", content);
        size_t m = (size_t)snprintf(told, sizeof told, "%s", content);
        for (int k = random_int(&random, 1, 3); k > 0; k--) {
            const char *value = values[random_int(&random, 0, 3)];
            n += (size_t)snprintf(text + n, sizeof text - n,
                                  "%s<tool_call>\n{\"name\": \"f%d\", \"arguments\": %s}\n"
                                  "</tool_call>",
                                  n > 0 ? "\n" : "", k, value);
            m += (size_t)snprintf(told + m, sizeof told - m, "{{f%d|%s}}", k, value);
        }
        struct telling t;
        run(CALLS_HERMES, text, n, &random, 8, true, &t);
        assert_string_equal(t.text, told);
    }
}

static void thoughts_come_first(void **state)
{
    (void)state;
    uint64_t random = 13;
    for (size_t i = 0; i < COUNT_OF(thought_cases) * 200; i++) {
        const char *text = thought_cases[i / 200].text;
        size_t len = strlen(text);
        struct reasoning r;
        struct buf thought, content;
        struct error err;
        struct telling t;
        buf_init(&thought, 4096);
        buf_init(&content, 4096);
        reasoning_init(&r, thought_cases[i / 200].inside);
        for (size_t at = 0, n; at < len; at += n) {
            n = (size_t)random_int(&random, 1, 6);
            n = n < len - at ? n : len - at;
            assert_int_equal(reasoning_push(&r, text + at, n, &thought, &content, &err), OK);
        }
        assert_int_equal(reasoning_flush(&r, &thought, &content, &err), OK);
        run(CALLS_HERMES, content.data ? content.data : "", content.len, &random, 4, true, &t);
        assert_string_equal(thought.data ? thought.data : "", thought_cases[i / 200].thought);
        assert_string_equal(t.text, thought_cases[i / 200].told);
        reasoning_fini(&r);
        buf_fini(&thought);
        buf_fini(&content);
    }
}

/* Arguments are told while they come, not when they are whole. */
static void arguments_stream(void **state)
{
    (void)state;
    struct telling t;
    static const struct {
        enum call_format format;
        const char *text, *told;
    } cases[] = {
        {CALLS_HERMES, "<tool_call>\n{\"name\": \"f\"", ""},
        {CALLS_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {", "{{f|{"},
        {CALLS_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"wo",
         "{{f|{\"a\": \"wo"},
        {CALLS_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}", "{{f|{\"a\": 1"},
        {CALLS_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
         "{{f|{\"a\": 1}}}"},
        {CALLS_CODER, "<tool_call>\n<function=f>\n", ""},
        {CALLS_CODER, "<tool_call>\n<function=f>\n<parameter=s>", "{{f|{\"s\": \""},
        {CALLS_CODER, "<tool_call>\n<function=f>\n<parameter=s>\nsome wo", "{{f|{\"s\": \"some wo"},
        {CALLS_CODER, "<tool_call>\n<function=f>\n<parameter=s>\nwo\n</para", "{{f|{\"s\": \"wo"},
        {CALLS_CODER, "<tool_call>\n<function=f>\n<parameter=i>\n12", "{{f|{\"i\": "},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        run(cases[i].format, cases[i].text, strlen(cases[i].text), NULL, 0, false, &t);
        assert_string_equal(t.text, cases[i].told);
    }
}

static void templates_have_their_format(void **state)
{
    (void)state;
    assert_int_equal(calls_format(TEMPLATE_QWEN3), CALLS_HERMES);
    assert_int_equal(calls_format(TEMPLATE_QWEN3_THINKING_2507), CALLS_HERMES);
    assert_int_equal(calls_format(TEMPLATE_QWEN2_5), CALLS_HERMES);
    assert_int_equal(calls_format(TEMPLATE_QWEN3_CODER), CALLS_CODER);
    assert_int_equal(calls_format(TEMPLATE_QWEN3GUARD_GEN), CALLS_NONE);
    assert_int_equal(calls_format(TEMPLATE_COUNT), CALLS_NONE);
}

/* Of the schemas a reference is held. */
static void schemas_outlive_their_request(void **state)
{
    (void)state;
    static const char text[] = FUNCTION("f", PARAMETER("i", "12"));
    struct calls c;
    struct error err;
    struct telling t;
    telling_init(&t);
    json_t *own = json_deep_copy(telling_tools());
    calls_init(&c, CALLS_CODER, own, false);
    json_decref(own);
    assert_int_equal(calls_push(&c, text, strlen(text), &err), OK);
    telling_take(&t, &c);
    assert_string_equal(t.text, "{{f|{\"i\": 12}}}");
    calls_fini(&c);
}

static void the_first_call_may_be_the_last(void **state)
{
    (void)state;
    static const char text[] = "a" CALL("{\"name\":\"f\",\"arguments\":{}}")
        CALL("{\"name\":\"g\",\"arguments\":{}}") "b";
    struct calls c;
    struct error err;
    struct telling t;
    telling_init(&t);
    calls_init(&c, CALLS_HERMES, NULL, true);
    for (size_t i = 0; i < strlen(text); i++)
        assert_int_equal(calls_push(&c, text + i, 1, &err), OK);
    assert_int_equal(calls_flush(&c, &err), OK);
    telling_take(&t, &c);
    assert_true(c.over);
    assert_int_equal(c.whole, 1);
    assert_string_equal(t.text, "a{{f|{}}}");
    calls_fini(&c);
}

static void everything_has_a_bound(void **state)
{
    (void)state;
    static const char one[] = CALL("{\"name\":\"f\",\"arguments\":{}}");
    struct calls c;
    struct error err;
    calls_init(&c, CALLS_HERMES, NULL, false);
    for (int i = 0; i < CALLS_MAX + 1; i++)
        assert_int_equal(calls_push(&c, one, strlen(one), &err), OK);
    assert_int_equal(calls_flush(&c, &err), OK);
    assert_int_equal(c.whole, CALLS_MAX);
    assert_int_equal(c.pieces[c.count - 1].index, -1); /* the tags of the last are content */
    assert_int_equal(c.pieces[c.count - 1].len, strlen(one));
    calls_fini(&c);

    static char deep[8 * JSON_SCAN_MAX_DEPTH];
    size_t n = (size_t)snprintf(deep, sizeof deep, "<tool_call>{\"name\":\"f\",\"arguments\":");
    size_t from = n;
    for (int i = 0; i < JSON_SCAN_MAX_DEPTH; i++)
        n += (size_t)snprintf(deep + n, sizeof deep - n, "{\"a\":");
    struct telling t;
    run(CALLS_HERMES, deep, n, NULL, 0, true, &t);
    assert_non_null(strstr(t.text, "~~"));
    assert_true(n > from);

    static char name[2 * CALLS_MAX_NAME];
    for (int len = CALLS_MAX_NAME; len <= CALLS_MAX_NAME + 1; len++) {
        n = (size_t)snprintf(name, sizeof name, "<function=%0*d></function>", len, 0);
        run(CALLS_CODER, name, n, NULL, 0, true, &t);
        assert_true((strstr(t.text, "{{") != NULL) == (len == CALLS_MAX_NAME));
        n = (size_t)snprintf(name, sizeof name, "<tool_call>{\"name\":\"%0*d\"}", len, 0);
        run(CALLS_HERMES, name, n, NULL, 0, true, &t);
        assert_true((strstr(t.text, "{{") != NULL) == (len == CALLS_MAX_NAME));
    }
}

/* White space that never ends, held strings: what is waited for is not read again and again. */
static void long_waits_cost_little(void **state)
{
    (void)state;
    struct calls c;
    struct error err;
    calls_init(&c, CALLS_HERMES, NULL, false);
    for (int i = 0; i < 300000; i++)
        assert_int_equal(calls_push(&c, "\n\n\n\n", 4, &err), OK);
    assert_int_equal(c.count, 0);
    assert_int_equal(calls_push(&c, "<tool_call>{\"arguments\":{\"a\":\"", 30, &err), OK);
    for (int i = 0; i < 300000; i++)
        assert_int_equal(calls_push(&c, "word", 4, &err), OK);
    assert_int_equal(calls_push(&c, "\"},\"name\":\"f\"}", 14, &err), OK);
    assert_int_equal(c.whole, 1);
    assert_int_equal(c.pieces[0].len, 8 + 1200000);
    calls_fini(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(hermes),
    cmocka_unit_test(coder),
    cmocka_unit_test(pieces_make_no_difference),
    cmocka_unit_test(nor_in_any_text),
    cmocka_unit_test(nothing_is_lost),
    cmocka_unit_test(fields_and_tags_are_the_text),
    cmocka_unit_test(thoughts_come_first),
    cmocka_unit_test(arguments_stream),
    cmocka_unit_test(templates_have_their_format),
    cmocka_unit_test(schemas_outlive_their_request),
    cmocka_unit_test(the_first_call_may_be_the_last),
    cmocka_unit_test(everything_has_a_bound),
    cmocka_unit_test(long_waits_cost_little),
};

UNIT_MAIN(tests)
