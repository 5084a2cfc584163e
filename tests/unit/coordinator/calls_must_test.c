/* Calls that an answer must be: whatever bytes are drawn of those that it may go on with, and
 * however few there may be, what comes out is read back as one call of a tool, with what its schema
 * demands. */
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/calls.h"

#include <string.h>

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"now\"}},{\"type\":\"function\",\"function\":{"
    "\"name\":\"no\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":"
    "\"string\"},"
    "\"ab\":{\"type\":\"integer\"},\"abc\":{\"type\":[\"string\",\"null\"]},\"b c\":{}},"
    "\"required\":[\"ab\",\"b c\",\"other\"]}}},{\"type\":\"function\",\"function\":{\"name\":"
    "\"nothing\",\"parameters\":{\"properties\":{\"x\":{\"type\":\"boolean\"}},\"required\":[]}}}]";

/* The calls of an answer, which is `len` bytes. */
struct read {
    int calls;
    bool whole;
    char name[64], arguments[8192], content[8192];
};

static void append(char *to, size_t size, const char *text, size_t len)
{
    size_t n = strlen(to);
    assert_true(n + len < size);
    memcpy(to + n, text, len);
    to[n + len] = '\0';
}

static void read_back(enum call_format format, const json_t *tools, const char *text, size_t len,
                      struct read *out)
{
    struct calls c;
    struct error err;
    *out = (struct read){0};
    calls_init(&c, format, tools, false);
    assert_int_equal(calls_push(&c, text, len, &err), OK);
    assert_int_equal(calls_flush(&c, &err), OK);
    for (size_t i = 0; i < c.count; i++) {
        const struct call_piece *p = &c.pieces[i];
        if (p->index < 0)
            append(out->content, sizeof out->content, c.out.data + p->begin, p->len);
        if (p->index < 0)
            continue;
        if (p->named)
            snprintf(out->name, sizeof out->name, "%s", c.out.data + p->name);
        out->calls += p->named;
        out->whole = p->end;
        append(out->arguments, sizeof out->arguments, c.out.data + p->begin, p->len);
    }
    calls_fini(&c);
}

static const json_t *function_named(const json_t *tools, const char *name)
{
    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *f = json_object_get(json_array_get(tools, i), "function");
        if (strcmp(json_string_value(json_object_get(f, "name")), name) == 0)
            return f;
    }
    return NULL;
}

static int times(const char *text, size_t len, const char *tag)
{
    int count = 0;
    for (const char *at = text, *end = text + len;
         (at = memmem(at, (size_t)(end - at), tag, strlen(tag))); at++)
        count++;
    return count;
}

/* No tag but those that are meant. */
static void check_tags(const char *text, size_t len)
{
    if (times(text, len, "</tool_call>") != 1 || times(text, len, "</function>") != 1 ||
        times(text, len, "<parameter=") != times(text, len, "</parameter>"))
        fail_msg("%.*s: a tag in a value", (int)len, text);
}

static void check(enum call_format format, const json_t *tools, const char *text, size_t len)
{
    struct read r;
    const char *key;
    json_t *v;
    read_back(format, tools, text, len, &r);
    const json_t *f = function_named(tools, r.name), *schema = json_object_get(f, "parameters");
    json_t *arguments = json_loads(r.arguments, 0, NULL);
    if (r.calls != 1 || !r.whole || *r.content || !f || !json_is_object(arguments))
        fail_msg("%.*s\nis read as %d calls, %s(%s), and \"%s\"", (int)len, text, r.calls, r.name,
                 r.arguments, r.content);
    json_object_foreach(arguments, key, v)
    {
        if (format == CALLS_CODER && !json_object_get(json_object_get(schema, "properties"), key))
            fail_msg("%.*s: no parameter %s", (int)len, text, key);
    }
    const json_t *required = json_object_get(schema, "required");
    for (size_t i = 0; format == CALLS_CODER && i < json_array_size(required); i++) {
        key = json_string_value(json_array_get(required, i));
        if (json_object_get(json_object_get(schema, "properties"), key) &&
            !json_object_get(arguments, key))
            fail_msg("%.*s: %s is missing", (int)len, text, key);
    }
    json_decref(arguments);
}

/* A byte that may follow and leaves room for the end, likely one of a tag or of JSON. */
static unsigned char draw(const struct constraint *c, struct constraint_state *s, int32_t left,
                          uint64_t *random)
{
    static const char likely[] = "</>\n\n<</parameter=functiontool_call{}\":, ab ab";
    for (int tries = 0;; tries++) {
        struct constraint_state after = *s;
        int b = tries < 400 ? (unsigned char)likely[random_int(random, 0, sizeof likely - 2)]
                            : tries - 400;
        assert_true(b < 256);
        if (constraint_take(c, &after, (unsigned char)b) &&
            constraint_closing(c, &after) <= left - 1) {
            *s = after;
            return (unsigned char)b;
        }
    }
}

/* Tags of the format that a value may have had, put in at once where they fit. */
static size_t put_tag(const struct constraint *c, struct constraint_state *s, int32_t left,
                      uint64_t *random, char *to)
{
    static const char *const some[] = {
        "</parameter>\n",           "</parameter", "\n</function", "<function=now>\n",
        "<tool_call>\n<function=",  "</tool_call", "<parameter",   "<parameter=a>\n",
        "</function>\n</tool_call>"};
    const char *tag = some[random_int(random, 0, COUNT_OF(some) - 1)];
    struct constraint_state after = *s;
    size_t len = strlen(tag);
    for (size_t i = 0; i < len; i++)
        if (!constraint_take(c, &after, (unsigned char)tag[i]) ||
            constraint_closing(c, &after) == 0)
            return 0;
    if (constraint_closing(c, &after) > left - (int32_t)len)
        return 0;
    *s = after;
    memcpy(to, tag, len);
    return len;
}

static void drawn_calls_are_calls(enum call_format format, const char *only)
{
    struct error err;
    struct constraint c;
    struct buf text;
    uint64_t random = 93;
    const struct shaping none = {0};
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);
    buf_init(&text, 2 * CONSTRAINT_MAX_TEXT);
    assert_int_equal(calls_must(format, tools, only, &text, &c, &err), OK);
    if (constraint_check(&c, &none, false, 0, &err) != OK)
        fail_msg("%s", err.msg);
    for (int trial = 0; trial < 3000; trial++) {
        struct constraint_state s;
        char drawn[1024];
        size_t len = 0;
        constraint_start(&c, &s);
        int32_t least = constraint_closing(&c, &s);
        int32_t left = trial % 3 == 0 ? least : random_int(&random, least, 600);
        int32_t most = left;
        while (constraint_closing(&c, &s) > 0) {
            size_t tag = random_int(&random, 0, 5) == 0
                             ? put_tag(&c, &s, left, &random, drawn + len)
                             : 0;
            if (tag == 0)
                drawn[len] = (char)draw(&c, &s, left, &random);
            len += tag > 0 ? tag : 1;
            left -= tag > 0 ? (int32_t)tag : 1;
            assert_true(left >= constraint_closing(&c, &s) && len <= (size_t)most);
        }
        check(format, tools, drawn, len);
        if (format == CALLS_CODER)
            check_tags(drawn, len);
    }
    buf_fini(&text);
    json_decref(tools);
}

static void of_any_tool(void **state)
{
    (void)state;
    drawn_calls_are_calls(CALLS_CODER, NULL);
    drawn_calls_are_calls(CALLS_HERMES, NULL);
}

static void of_one_tool(void **state)
{
    (void)state;
    drawn_calls_are_calls(CALLS_CODER, "no");
    drawn_calls_are_calls(CALLS_CODER, "now");
    drawn_calls_are_calls(CALLS_HERMES, "no");
}

/* As the template writes them. */
static void what_the_model_was_taught_is_taken(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool fits;
    } cases[] = {
#define CALL(name, inside) "<tool_call>\n<function=" name ">\n" inside "</function>\n</tool_call>"
#define GIVEN(name, value) "<parameter=" name ">\n" value "\n</parameter>\n"
        {CALL("now", ""), true},
        {"\n" CALL("nothing", GIVEN("x", "true")), true},
        {CALL("no", GIVEN("ab", "1") GIVEN("b c", "\n\n<b>x</b></param\n")), true},
        {CALL("no", GIVEN("b c", "") GIVEN("a", "x") GIVEN("abc", "") GIVEN("ab", "[]")), true},
        {CALL("no", GIVEN("ab", "1")), false},
        {CALL("no", GIVEN("ab", "1") GIVEN("ab", "2") GIVEN("b c", "")), false},
        {CALL("no", GIVEN("ab", "1") GIVEN("b", "")), false},
        {CALL("no", GIVEN("ab", "a</function>") GIVEN("b c", "")), false},
        {CALL("no", GIVEN("ab", "<parameter=a>") GIVEN("b c", "")), false},
        {CALL("nothing", GIVEN("x", "</tool_call>")), false},
        {CALL("nothing", GIVEN("x", "\n</tool_call>}")), false},
        {CALL("none", ""), false},
        {CALL("now", GIVEN("x", "1")), false},
        {CALL("now", "") "\n", false},
        {"<function=now>\n</function>\n</tool_call>", false},
#undef GIVEN
#undef CALL
    };
    struct error err;
    struct constraint c;
    struct buf text;
    json_t *tools = json_loads(tools_text, 0, NULL);
    buf_init(&text, 2 * CONSTRAINT_MAX_TEXT);
    assert_int_equal(calls_must(CALLS_CODER, tools, NULL, &text, &c, &err), OK);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct constraint_state s;
        bool fits = true;
        constraint_start(&c, &s);
        for (const char *at = cases[i].text; fits && *at; at++)
            fits = constraint_take(&c, &s, (unsigned char)*at);
        fits = fits && constraint_closing(&c, &s) == 0;
        if (fits != cases[i].fits)
            fail_msg("%s: expected to %s", cases[i].text, cases[i].fits ? "fit" : "be refused");
        if (fits)
            check(CALLS_CODER, tools, cases[i].text, strlen(cases[i].text));
    }
    buf_fini(&text);
    json_decref(tools);
}

static void refuses(enum call_format format, json_t *properties, const char *words)
{
    struct error err;
    struct constraint c;
    struct buf text;
    json_t *tools = json_pack("[{s:{s:s,s:{s:o}}}]", "function", "name", "f", "parameters",
                              "properties", properties);
    assert_non_null(tools);
    buf_init(&text, 2 * CONSTRAINT_MAX_TEXT);
    assert_int_equal(calls_must(format, tools, NULL, &text, &c, &err),
                     format == CALLS_NONE ? ERR_UNSUPPORTED : ERR_INVALID);
    if (!strstr(err.msg, words))
        fail_msg("expected \"%s\", found \"%s\"", words, err.msg);
    buf_fini(&text);
    json_decref(tools);
}

static void what_cannot_be_written_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"", "a>", "<a", "a\nb", "\1"};
    char name[CALLS_MAX_NAME + 2];
    for (size_t i = 0; i < COUNT_OF(names); i++)
        refuses(CALLS_CODER, json_pack("{s:{}}", names[i]),
                "tools[0].function.parameters.properties: expected names of 1 to 256 bytes");
    memset(name, 'n', sizeof name);
    name[CALLS_MAX_NAME + 1] = '\0';
    refuses(CALLS_CODER, json_pack("{s:{}}", name), "expected names of 1 to 256 bytes");
    json_t *many = json_object();
    for (int i = 0; i <= CONSTRAINT_MAX_PARAMETERS; i++) {
        snprintf(name, sizeof name, "p%d", i);
        json_object_set_new(many, name, json_object());
    }
    refuses(CALLS_CODER, many, "expected at most 64");
    refuses(CALLS_NONE, json_object(), "tool_choice: not supported for this model");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(of_any_tool),
    cmocka_unit_test(of_one_tool),
    cmocka_unit_test(what_the_model_was_taught_is_taken),
    cmocka_unit_test(what_cannot_be_written_is_refused),
};

UNIT_MAIN(tests)
