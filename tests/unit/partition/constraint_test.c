/* What an answer must be, byte by byte: partition/constraint.c, held against jansson. */
#include "base/check.h"
#include "partition/constraint.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include <jansson.h>
#include <string.h>

static const struct constraint object = {.kind = CONSTRAINT_JSON_OBJECT,
                                         .thought = CONSTRAINT_NO_THOUGHT};

/* --- the oracle ---------------------------------------------------------------------------------
 */

static bool parses(const char *text, size_t len)
{
    json_error_t error;
    json_t *v = json_loadb(text, len, 0, &error);
    bool is = json_is_object(v);
    json_decref(v);
    return is;
}

static bool takes(const struct constraint *c, const char *text, size_t len,
                  struct constraint_state *s)
{
    constraint_start(c, s);
    for (size_t i = 0; i < len; i++)
        if (!constraint_take(c, s, (unsigned char)text[i]))
            return false;
    return true;
}

static bool is_whole(const char *text, size_t len)
{
    struct constraint_state s;
    return takes(&object, text, len, &s) && constraint_closing(&object, &s) == 0;
}

/* Longer than the automaton's bounds have it, of which jansson knows nothing. */
static bool beyond_bounds(const char *text, size_t len)
{
    int digits = 0, spaces = 0, most = CONSTRAINT_DIGITS;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        bool exponent = i > 0 && (c == '+' || c == '-') &&
                        (text[i - 1] == 'e' || text[i - 1] == 'E');
        spaces = strchr(" \n\r\t", c) && c ? spaces + 1 : 0;
        digits = c >= '0' && c <= '9' ? digits + 1 : 0;
        if (digits == 0)
            most = c == 'e' || c == 'E' || exponent ? CONSTRAINT_EXPONENT_DIGITS
                                                    : CONSTRAINT_DIGITS;
        if (digits > most || spaces > CONSTRAINT_SPACES)
            return true;
    }
    return len > 0 && strchr(" \n\r\t", text[len - 1]); /* nothing follows the last brace */
}

/* Appends the shortest ending, byte by byte. */
static size_t close_text(const struct constraint *c, struct constraint_state *s, char *text,
                         size_t len, size_t cap)
{
    for (int32_t left = constraint_closing(c, s); left > 0; left--) {
        struct constraint_state next = *s;
        int b = 0;
        for (; b < 256; b++) {
            next = *s;
            if (constraint_take(c, &next, (unsigned char)b) &&
                constraint_closing(c, &next) == left - 1)
                break;
        }
        assert_true(b < 256 && len < cap);
        text[len++] = (char)b;
        *s = next;
    }
    return len;
}

/* --- cases --------------------------------------------------------------------------------------
 */

static void objects_are_taken_and_nothing_else(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        " \n{ }",
        "{\"a\":1}",
        "{\"a\" : [ ] , \"b\":{},\"c\":[1,-0,0.5,1e9,2E+10,3.25e-7,-12]}",
        "{\"\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\\uD800\\uDFFF\"}",
        "{\"x\":[true,false,null,\"\x7f\xc2\x80\xe0\xa0\x80\xed\x9f\xbf\xf0\x90\x80\x80\xf4\x8f\xbf"
        "\xbf\"]}",
        "{\"a\":999999999999999999,\"b\":0.999999999999999999e99}",
    };
    static const char *const bad[] = {
        "",
        "[]",
        "1",
        "null",
        "\"a\"",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":+1}",
        "{\"a\":1e}",
        "{\"a\":-}",
        "{\"a\":tru}",
        "{\"a\":True}",
        "{\"a\":[1,]}",
        "{\"a\":[1}",
        "{\"a\":1]",
        "{} ",
        "{}{}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"\xc0\x80\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\xf4\x90\x80\x80\"}",
        "{\"a\":\"\x80\"}",
        "{\"a\":\"\xe2\x82\"}",
        "{\"a\":1/**/}",
        "<think>x</think>{}",
    };
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_true(is_whole(good[i], strlen(good[i])));
        assert_true(parses(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(is_whole(bad[i], strlen(bad[i])));
}

static void what_has_no_end_is_bounded(void **state)
{
    (void)state;
    char text[300];
    struct constraint_state s;
    memset(text, ' ', sizeof text);
    assert_true(takes(&object, text, CONSTRAINT_SPACES, &s));
    assert_false(takes(&object, text, CONSTRAINT_SPACES + 1, &s));
    memset(text, '9', sizeof text);
    memcpy(text, "{\"a\":", 5);
    assert_true(takes(&object, text, 5 + CONSTRAINT_DIGITS, &s));
    assert_false(takes(&object, text, 5 + CONSTRAINT_DIGITS + 1, &s));
    memset(text, '[', sizeof text);
    memcpy(text, "{\"a\":", 5);
    assert_true(takes(&object, text, 5 + CONSTRAINT_DEPTH - 1, &s));
    assert_int_equal(constraint_closing(&object, &s), CONSTRAINT_DEPTH);
    assert_false(takes(&object, text, 5 + CONSTRAINT_DEPTH, &s));
}

/* vllm 18819 and 50948: the constraint begins behind the thought. */
static void a_thought_comes_before(void **state)
{
    (void)state;
    static const struct constraint may = {.kind = CONSTRAINT_JSON_OBJECT,
                                          .thought = CONSTRAINT_MAY_THINK};
    static const struct constraint in = {.kind = CONSTRAINT_JSON_OBJECT,
                                         .thought = CONSTRAINT_IN_THOUGHT};
    struct constraint_state s;
#define TAKES(c, text) takes(&(c), text, sizeof(text) - 1, &s)
    assert_true(TAKES(may, "{}") && constraint_closing(&may, &s) == 0);
    assert_true(TAKES(may, "\n<think>\nso {\xff < </ </think>\n\n{}") &&
                constraint_closing(&may, &s) == 0);
    assert_false(TAKES(may, "<thin{"));
    assert_false(TAKES(may, "<think></think><think>"));
    assert_true(TAKES(in, "a<</think>{\"a\":1}") && constraint_closing(&in, &s) == 0);
    assert_true(TAKES(in, "{}") && constraint_closing(&in, &s) == 10 && constraint_is_free(&s));
    assert_true(TAKES(in, "x</thi") && constraint_closing(&in, &s) == 5);
    assert_false(TAKES(in, "</think>no"));
    assert_int_equal(constraint_least_tokens(&object), 3);
    assert_int_equal(constraint_least_tokens(&in), 11);
#undef TAKES
}

static const char call_text[] =
    "}\n</tool_call>\0<tool_call>\n{\"name\": \"add\", \"arguments\": \0"
    "<tool_call>\n{\"name\": \"adder\", \"arguments\": \0"
    "<tool_call>\n{\"name\": \"sum\", \"arguments\": ";

static struct constraint call_of(enum constraint_thought thought)
{
    return (struct constraint){.kind = CONSTRAINT_CALL,
                               .thought = thought,
                               .text = call_text,
                               .text_len = sizeof call_text,
                               .heads = 3};
}

static void a_call_is_a_head_an_object_and_the_tail(void **state)
{
    (void)state;
    const struct constraint c = call_of(CONSTRAINT_NO_THOUGHT);
    struct constraint_state s;
    char text[200];
#define CALL(name, behind) "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " behind
#define TAKES(text) takes(&c, text, sizeof(text) - 1, &s)
    assert_true(TAKES(CALL("add", "{}}\n</tool_call>")) && constraint_closing(&c, &s) == 0);
    assert_true(TAKES("\n" CALL("adder", "{\"a\": [1]}}\n</tool_call>")));
    assert_true(TAKES(CALL("sum", "{\"a\": \"}\"}}\n")) && constraint_is_free(&s));
    assert_false(TAKES(CALL("su", "")));
    assert_false(TAKES(CALL("added", "")));
    assert_false(TAKES(CALL("add", "[]")));
    assert_false(TAKES(CALL("add", "{}\n")));
    assert_false(TAKES("{}"));
    assert_false(TAKES(CALL("add", "{}}\n</tool_call>\n")));
#undef TAKES
    static const enum constraint_thought thoughts[] = {CONSTRAINT_NO_THOUGHT, CONSTRAINT_MAY_THINK,
                                                       CONSTRAINT_IN_THOUGHT};
    static const char *const begins[] = {
        "", "<", "<t", "<to", "<th", "<tool_call>\n{\"name\": \"a", CALL("sum", "{\"x\": [\"")};
    for (size_t i = 0; i < COUNT_OF(thoughts); i++)
        for (size_t k = 0; k < COUNT_OF(begins); k++) {
            const struct constraint with = call_of(thoughts[i]);
            size_t len = strlen(begins[k]);
            if (!takes(&with, begins[k], len, &s))
                continue;
            memcpy(text, begins[k], len);
            len = close_text(&with, &s, text, len, sizeof text);
            assert_memory_equal(text + len - 14, "}\n</tool_call>", 14);
        }
#undef CALL
}

static void heads_that_are_none_are_refused(void **state)
{
    (void)state;
    struct error err;
    const struct shaping none = {0};
    struct constraint c = call_of(CONSTRAINT_NO_THOUGHT);
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), OK);
    c.heads = 2;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c.heads = 0;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c = call_of(CONSTRAINT_NO_THOUGHT);
    c.text_len--;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c = (struct constraint){.kind = CONSTRAINT_CALL, .text = "}\0b\0a", .text_len = 6, .heads = 2};
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c.text = "}\0a\0ab";
    c.text_len = 7;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    /* heads that no answer could begin with */
    c.text = "}\0\na\0b";
    c.text_len = 7;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c = (struct constraint){
        .kind = CONSTRAINT_CALL, .text = "}\0<think>a", .text_len = 11, .heads = 1};
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    c.text = "}\0<t";
    c.text_len = 5;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    static char large[UINT16_MAX + 4] = "}";
    memset(large + 2, 'a', UINT16_MAX + 1);
    c.text = large;
    c.text_len = sizeof large;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), ERR_INVALID);
    large[UINT16_MAX + 2] = '\0';
    c.text_len--;
    assert_int_equal(constraint_check(&c, &none, false, 0, &err), OK);
}

/* --- random texts -------------------------------------------------------------------------------
 */

struct text {
    char bytes[4096];
    size_t len;
};

static void put(struct text *t, const char *s)
{
    size_t n = strlen(s);
    if (t->len + n < sizeof t->bytes) {
        memcpy(t->bytes + t->len, s, n);
        t->len += n;
    }
}

static void put_any(struct text *t, uint64_t *seed, const char *const *of, int count)
{
    put(t, of[random_int(seed, 0, count - 1)]);
}

static void put_string(struct text *t, uint64_t *seed)
{
    static const char *const parts[] = {"a",
                                        "key",
                                        "\\n",
                                        "\\u00e9",
                                        "\\ud83d\\ude00",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x98\x80",
                                        "\\\"",
                                        " "};
    put(t, "\"");
    for (int n = random_int(seed, 0, 4); n > 0; n--)
        put_any(t, seed, parts, COUNT_OF(parts));
    put(t, "\"");
}

static void put_value(struct text *t, uint64_t *seed, int depth)
{
    static const char *const plain[] = {"true", "false", "null", "0", "-1.5e+3", "12", "7E2"};
    static const char *const spaces[] = {"", "", " ", "\n  "};
    int kind = random_int(seed, depth > 5 ? 2 : 0, 3);
    if (kind == 2)
        put_string(t, seed);
    if (kind == 3)
        put_any(t, seed, plain, COUNT_OF(plain));
    if (kind > 1)
        return;
    put(t, kind ? "[" : "{");
    for (int i = 0, n = random_int(seed, 0, 3); i < n; i++) {
        put(t, i > 0 ? "," : "");
        put_any(t, seed, spaces, COUNT_OF(spaces));
        if (!kind) {
            put_string(t, seed);
            put_any(t, seed, spaces, COUNT_OF(spaces));
            put(t, ":");
        }
        put_value(t, seed, depth + 1);
        put_any(t, seed, spaces, COUNT_OF(spaces));
    }
    put(t, kind ? "]" : "}");
}

static void mutate(struct text *t, uint64_t *seed)
{
    static const char likely[] = "{}[]\",:\\0123456789eE+-.tfnulad \n\x80\xbf\xc3\xed\xf4<";
    for (int n = random_int(seed, 1, 2); n > 0 && t->len > 0; n--) {
        size_t at = (size_t)random_int(seed, 0, (int32_t)t->len - 1);
        char c = likely[random_int(seed, 0, (int32_t)sizeof likely - 2)];
        if (random_int(seed, 0, 2) == 0) { /* out, else another, or one more */
            memmove(t->bytes + at, t->bytes + at + 1, --t->len - at);
        } else if (random_int(seed, 0, 1) == 0) {
            t->bytes[at] = c;
        } else if (t->len < sizeof t->bytes) {
            memmove(t->bytes + at + 1, t->bytes + at, t->len++ - at);
            t->bytes[at] = c;
        }
    }
}

/* Accepts exactly what jansson parses as an object, within the bounds. */
static void random_texts_are_as_jansson_has_them(void **state)
{
    (void)state;
    uint64_t seed = 86;
    int whole = 0, broken = 0;
    for (int i = 0; i < 40000; i++) {
        struct text t = {.len = 0};
        put_value(&t, &seed, 0);
        if (i % 3 != 0)
            mutate(&t, &seed);
        bool expected = parses(t.bytes, t.len), found = is_whole(t.bytes, t.len);
        if (expected != found && !(expected && beyond_bounds(t.bytes, t.len)))
            fail_msg("%.*s: jansson %s it", (int)t.len, t.bytes, expected ? "takes" : "refuses");
        whole += found;
        broken += !found;
    }
    assert_true(whole > 4000 && broken > 4000);
}

/* Wherever bytes at random lead, as many bytes as constraint_closing says make an object of it. */
static void every_state_can_be_closed(void **state)
{
    (void)state;
    uint64_t seed = 87;
    for (int i = 0; i < 3000; i++) {
        struct constraint_state s;
        struct text t = {.len = 0};
        constraint_start(&object, &s);
        for (int n = random_int(&seed, 0, 200), tries = 0; n > 0 && tries < 4000; tries++) {
            struct constraint_state next = s;
            int32_t before = constraint_closing(&object, &s);
            char b = (char)random_int(&seed, 0, 255);
            if (!constraint_take(&object, &next, (unsigned char)b) ||
                (constraint_closing(&object, &next) == 0 && n > 1))
                continue;
            assert_true(constraint_closing(&object, &next) >= before - 1);
            t.bytes[t.len++] = b;
            s = next;
            n--;
        }
        t.len = close_text(&object, &s, t.bytes, t.len, sizeof t.bytes);
        if (!parses(t.bytes, t.len))
            fail_msg("%.*s", (int)t.len, t.bytes);
    }
}

static void what_cannot_be_kept_is_named(void **state)
{
    (void)state;
    struct error err;
    const struct logit_bias ban = {7, -100.0f};
    const struct shaping none = {0}, least = {.min_tokens = 1},
                         bans = {.bias = &ban, .bias_count = 1};
    assert_int_equal(constraint_check(&object, &none, false, 3, &err), OK);
    assert_int_equal(constraint_check(&object, &none, false, 2, &err), ERR_INVALID);
    assert_string_equal(err.msg, "max_tokens: expected at least 3, which a JSON object may take, "
                                 "found 2");
    assert_int_equal(constraint_check(&object, &none, true, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "ignore_eos: "));
    assert_int_equal(constraint_check(&object, &least, false, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "min_tokens: "));
    assert_int_equal(constraint_check(&object, &bans, false, 0, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "logit_bias: "));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_are_taken_and_nothing_else),
        cmocka_unit_test(what_has_no_end_is_bounded),
        cmocka_unit_test(a_thought_comes_before),
        cmocka_unit_test(a_call_is_a_head_an_object_and_the_tail),
        cmocka_unit_test(heads_that_are_none_are_refused),
        cmocka_unit_test(random_texts_are_as_jansson_has_them),
        cmocka_unit_test(every_state_can_be_closed),
        cmocka_unit_test(what_cannot_be_kept_is_named),
    };
    (void)shared_path;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
