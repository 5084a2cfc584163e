/* template_normalise: messages as the templates take them. */
#include "tests/unit/unit.h"

#include "tests/unit/coordinator/text/rendered.h"

static void normalise_makes_messages_plain(void **state)
{
    (void)state;
    static const char in[] =
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}],\"name\":\"n\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
        "{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"k\\\":1}\"}},"
        "{\"name\":\"g\",\"arguments\":{\"k\":2}},{\"name\":\"h\",\"arguments\":\"\"},"
        "{\"function\":{\"name\":\"i\",\"arguments\":null}},{\"name\":\"j\"}]},"
        "{\"role\":\"tool\"},{\"role\":\"user\",\"content\":\"s\",\"tool_calls\":null}]";
    static const char expected[] =
        "[{\"role\":\"user\",\"content\":\"ab\",\"name\":\"n\"},"
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":["
        "{\"id\":\"1\",\"function\":{\"name\":\"f\",\"arguments\":{\"k\":1}}},"
        "{\"name\":\"g\",\"arguments\":{\"k\":2}},{\"name\":\"h\",\"arguments\":{}},"
        "{\"function\":{\"name\":\"i\",\"arguments\":{}}},{\"name\":\"j\",\"arguments\":{}}]},"
        "{\"role\":\"tool\",\"content\":\"\"},"
        "{\"role\":\"user\",\"content\":\"s\",\"tool_calls\":null}]";
    json_t *messages = parse(in, strlen(in));
    json_t *before = json_deep_copy(messages);
    json_t *wanted = parse(expected, strlen(expected));
    json_t *plain = NULL;
    struct error err;
    assert_int_equal(template_normalise(messages, &plain, &err), OK);
    assert_true(json_equal(plain, wanted));
    assert_true(json_equal(messages, before)); /* the caller's are untouched */
    json_decref(plain);
    json_decref(wanted);
    json_decref(before);
    json_decref(messages);
}

/* What models write and jansson does not hold comes back as it was, whatever the template. */
static void arguments_may_be_beyond_jansson(void **state)
{
    (void)state;
#define LARGE "123456789012345678901234567890"
    static const char object[] = "{\"a\": " LARGE ", \"b\": \"x\\ud83c\", \"c\": [" LARGE
                                 ", 1e999], "
                                 "\"d\\u0000\": \"</tool_call>\", \"e\": true}";
    static const char hermes[] = "\", \"arguments\": {\"a\": " LARGE;
    static const char coder[] = "<function=f>\n<parameter=a>\n" LARGE
                                "\n</parameter>\n<parameter=b>\n"
                                "x\xef\xbf\xbd\n</parameter>\n<parameter=c>\n[" LARGE
                                ", 1e999]\n</parameter>\n<parameter=d\xef\xbf\xbd>\n</tool_call>\n"
                                "</parameter>\n<parameter=e>\nTrue\n</parameter>\n</function>";
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s, s:[{s:{s:s, s:s}}]}, {s:s, s:s}]", "role",
                                 "user", "content", "u", "role", "assistant", "content", "",
                                 "tool_calls", "function", "name", "f", "arguments", object, "role",
                                 "tool", "content", "r");
    json_t *plain = NULL, *again = NULL;
    struct error err;
    assert_int_equal(template_normalise(messages, &plain, &err), OK);
    assert_int_equal(template_normalise(plain, &again, &err), OK);
    assert_true(json_equal(plain, again));
    for (int kind = 0; kind < TEMPLATE_COUNT; kind++) {
        struct template_rendered r;
        if (kind == TEMPLATE_QWEN3GUARD_GEN) /* which shows no calls */
            continue;
        assert_int_equal(
            template_render((enum template_kind)kind, plain, NULL, NULL, 1 << 20, &r, &err), OK);
        if (!strstr(r.text, kind == TEMPLATE_QWEN3_CODER ? coder : hermes) ||
            (kind != TEMPLATE_QWEN3_CODER && !strstr(r.text, object)))
            fail_msg("%s", r.text);
        check_spans(&r);
        template_rendered_fini(&r);
    }
    json_decref(again);
    json_decref(plain);
    json_decref(messages);
#undef LARGE
}

static void normalise_refuses_what_render_refuses(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "messages: expected an array"},
        {"[{\"role\":\"user\",\"content\":true}]", "messages[0].content: expected"},
        {"[{\"role\":\"a\",\"tool_calls\":[{\"name\":\"f\",\"arguments\":\"x\"}]}]",
         "messages[0].tool_calls[0].arguments: expected"},
        {"[{\"role\":\"a\",\"tool_calls\":[{\"name\":\"f\",\"arguments\":[]}]}]",
         "messages[0].tool_calls[0].arguments: expected an object or a JSON string, found an "
         "array"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *messages = parse(cases[i][0], strlen(cases[i][0]));
        json_t *plain = NULL;
        struct error err;
        assert_int_equal(template_normalise(messages, &plain, &err), ERR_INVALID);
        assert_null(plain);
        assert_non_null(strstr(err.msg, cases[i][1]));
        json_decref(messages);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(normalise_makes_messages_plain),
    cmocka_unit_test(arguments_may_be_beyond_jansson),
    cmocka_unit_test(normalise_refuses_what_render_refuses),
};

UNIT_MAIN(tests)
