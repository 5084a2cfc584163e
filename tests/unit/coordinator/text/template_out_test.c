/* coordinator/text/template_out: values printed as Python prints them. */
#include "tests/unit/unit.h"

#include "base/json.h"
#include "coordinator/text/template_out.h"

#include <math.h>

static void floats_print_as_python_prints_them(void **state)
{
    (void)state;
    static const struct {
        double x;
        const char *expected;
    } cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-2.5, "-2.5"},
        {100.0, "100.0"},
        {0.1, "0.1"},
        {0.0001, "0.0001"},
        {0.00012345, "0.00012345"},
        {0.00001, "1e-05"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {9999999999999998.0, "9999999999999998.0"},
        {123456.789, "123456.789"},
        {1.5e300, "1.5e+300"},
        {1e22, "1e+22"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {0x1p-44, "5.684341886080802e-14"}, /* 17 digits rounded to 16 do not read back */
        {9007199254740993.0, "9007199254740992.0"},
        {1.0 / 3, "0.3333333333333333"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[TEMPLATE_FLOAT_CHARS];
        template_float(cases[i].x, text);
        assert_string_equal(text, cases[i].expected);
    }
    for (int e = -1074; e < 1024; e++) {
        char text[TEMPLATE_FLOAT_CHARS];
        template_float(ldexp(-1.0, e), text);
        assert_true(strtod(text, NULL) == ldexp(-1.0, e));
    }
}

static void strings_print_as_python_prints_them(void **state)
{
    (void)state;
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"[\"a\"]", "['a']"},
        {"[\"it's\"]", "[\"it's\"]"},
        {"[\"'\\\"\"]", "['\\'\"']"},
        {"[\"\\\"\"]", "['\"']"},
        {"[\"\\\\\\n\\r\\t\\b\"]", "['\\\\\\n\\r\\t\\x08']"},
        {"[\"\\u0000\\u007f\\u0085\\u00a0\\u00ad\\u00e9\"]",
         "['\\x00\\x7f\\x85\\xa0\\xad\xc3\xa9']"},
        {"[\"\\u2028\\u3000\\ue000\\u4e2d\"]", "['\\u2028\\u3000\\ue000\xe4\xb8\xad']"},
        {"[\"\\ud83d\\ude00\\udbff\\udfff\"]", "['\xf0\x9f\x98\x80\\U0010ffff']"},
        {"{\"a\":{\"b'\":[]}}", "{'a': {\"b'\": []}}"},
        {"\"it's\"", "it's"},
        {"-0", "0"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"null", "None"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct template_out o = {0};
        struct error err;
        json_t *v = json_loads(cases[i].json, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        buf_init(&o.text, 1000);
        assert_int_equal(template_str(&o, v, &err), OK);
        assert_string_equal(o.text.data, cases[i].expected);
        buf_fini(&o.text);
        json_decref(v);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(floats_print_as_python_prints_them),
    cmocka_unit_test(strings_print_as_python_prints_them),
};

UNIT_MAIN(tests)
