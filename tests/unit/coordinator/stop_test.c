/* Stop strings: what ends the text, what is held back, and that pieces make no difference. */
#include "coordinator/stop.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

/* Pushes `text` in pieces of random sizes (0: in one); gives what came out and whether it stopped.
 */
static bool run(const char *const *strings, int count, const char *text, uint64_t *random,
                char *result, size_t size)
{
    struct stop s;
    struct buf out;
    struct error err;
    bool found = false;
    size_t len = strlen(text);
    buf_init(&out, 1 << 20);
    assert_int_equal(stop_init(&s, strings, count, &err), OK);
    for (size_t at = 0; at < len && !found;) {
        size_t n = random ? 1 + (size_t)random_int(random, 0, 2) : len;
        n = n < len - at ? n : len - at;
        assert_int_equal(stop_push(&s, text + at, n, &out, &found, &err), OK);
        at += n;
    }
    if (!found)
        assert_int_equal(stop_flush(&s, &out, &err), OK);
    snprintf(result, size, "%s", out.data ? out.data : "");
    stop_fini(&s);
    buf_fini(&out);
    return found;
}

static void ends_before_the_first(void **state)
{
    (void)state;
    const char *const strings[] = {"END", "\n\n"};
    char out[64];
    assert_true(run(strings, 2, "one two END three", NULL, out, sizeof out));
    assert_string_equal(out, "one two ");
    assert_true(run(strings, 2, "a\n\nEND", NULL, out, sizeof out));
    assert_string_equal(out, "a");
    assert_false(run(strings, 2, "EN\nD E", NULL, out, sizeof out));
    assert_string_equal(out, "EN\nD E");
}

/* Which one it was does not depend on the pieces either. */
static void the_one_that_ended_it_is_known(void **state)
{
    (void)state;
    const char *const strings[] = {"abcd", "ab", "xab"};
    for (size_t piece = 1; piece <= 5; piece += 4) {
        struct stop s;
        struct buf out;
        struct error err;
        bool found = false;
        buf_init(&out, 100);
        assert_int_equal(stop_init(&s, strings, 3, &err), OK);
        for (size_t at = 0; at < 5 && !found; at += piece) {
            assert_null(s.found);
            assert_int_equal(stop_push(&s, "xabcd" + at, piece, &out, &found, &err), OK);
        }
        assert_true(found);
        assert_string_equal(s.found, "xab");
        stop_fini(&s);
        buf_fini(&out);
    }
}

static void what_is_complete_first_wins(void **state)
{
    (void)state;
    const char *const strings[] = {"abcd", "bc"};
    char out[64];
    assert_true(run(strings, 2, "xabcd", NULL, out, sizeof out));
    assert_string_equal(out, "xa");
}

static void holds_back_only_what_may_begin_one(void **state)
{
    (void)state;
    const char *const strings[] = {"stop"};
    struct stop s;
    struct buf out;
    struct error err;
    bool found;
    buf_init(&out, 100);
    assert_int_equal(stop_init(&s, strings, 1, &err), OK);
    assert_int_equal(stop_push(&s, "a st", 4, &out, &found, &err), OK);
    assert_string_equal(out.data, "a ");
    assert_int_equal(stop_push(&s, "s", 1, &out, &found, &err), OK);
    assert_string_equal(out.data, "a st");
    assert_false(found);
    stop_fini(&s);
    buf_fini(&out);
}

static void pieces_make_no_difference(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (int i = 0; i < 20000; i++) {
        char text[32], a[32], b[32], one[6], two[6];
        const char *const strings[] = {one, two};
        size_t len = (size_t)random_int(&random, 0, 29);
        for (size_t j = 0; j < len; j++)
            text[j] = (char)('a' + random_int(&random, 0, 1));
        text[len] = '\0';
        snprintf(one, sizeof one, "%.*s", 1 + random_int(&random, 0, 3), "aabab");
        snprintf(two, sizeof two, "%.*s", 1 + random_int(&random, 0, 3), "babba");
        bool whole = run(strings, 2, text, NULL, a, sizeof a);
        assert_int_equal(run(strings, 2, text, &random, b, sizeof b), whole);
        assert_string_equal(a, b);
    }
}

static void refuses_bad_strings(void **state)
{
    (void)state;
    struct stop s;
    struct error err;
    const char *const empty[] = {"a", ""};
    const char *many[17];
    for (int i = 0; i < 17; i++)
        many[i] = "x";
    assert_int_equal(stop_init(&s, empty, 2, &err), ERR_INVALID);
    assert_string_equal(err.msg, "stop[1]: expected 1 to 1024 bytes, found 0");
    assert_int_equal(stop_init(&s, many, 17, &err), ERR_INVALID);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(ends_before_the_first),
    cmocka_unit_test(what_is_complete_first_wins),
    cmocka_unit_test(the_one_that_ended_it_is_known),
    cmocka_unit_test(holds_back_only_what_may_begin_one),
    cmocka_unit_test(pieces_make_no_difference),
    cmocka_unit_test(refuses_bad_strings),
};

UNIT_MAIN(tests)
