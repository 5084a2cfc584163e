/* Reasoning and answer told apart, whatever the pieces. */
#include "coordinator/reasoning.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

static void run(bool inside, const char *text, uint64_t *random, char *thought, char *answer)
{
    struct reasoning r;
    struct buf t, a;
    struct error err;
    size_t len = strlen(text);
    buf_init(&t, 1 << 20);
    buf_init(&a, 1 << 20);
    reasoning_init(&r, inside);
    for (size_t at = 0; at < len;) {
        size_t n = random ? 1 + (size_t)random_int(random, 0, 3) : len;
        n = n < len - at ? n : len - at;
        assert_int_equal(reasoning_push(&r, text + at, n, &t, &a, &err), OK);
        at += n;
    }
    assert_int_equal(reasoning_flush(&r, &t, &a, &err), OK);
    snprintf(thought, 256, "%s", t.data ? t.data : "");
    snprintf(answer, 256, "%s", a.data ? a.data : "");
    reasoning_fini(&r);
    buf_fini(&t);
    buf_fini(&a);
}

static const struct {
    bool inside;
    const char *text, *thought, *answer;
} cases[] = {
    {false, "plain", "", "plain"},
    {false, "<think>\nwhy\n</think>\n\nbecause", "why", "because"},
    {false, "\n <think>why</think>so", "why", "so"},
    {true, "why\n\nelse\n</think>\n\nbecause\n", "why\n\nelse", "because\n"},
    {true, "cut off <", "cut off <", ""},
    {true, "cut off </thi", "cut off </thi", ""},
    {true, "cut off\n", "cut off\n", ""},
    {false, "<thin ice", "", "<thin ice"},
    {false, "<thi", "", "<thi"},
    {false, "a <think> b </think> c", "", "a <think> b </think> c"},
    {true, "a</think>b</think>c", "a", "b</think>c"},
    {true, "</think>", "", ""},
    {true, "</think>\n\n", "", ""},
    {false, "  \n spaced", "", "  \n spaced"},
    {true, "x <</think>y", "x <", "y"},
    {true, "x\n</thin\n</think>y", "x\n</thin", "y"},
    {false, "", "", ""},
};

static void tells_them_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char thought[256], answer[256];
        run(cases[i].inside, cases[i].text, NULL, thought, answer);
        assert_string_equal(thought, cases[i].thought);
        assert_string_equal(answer, cases[i].answer);
    }
}

static void pieces_make_no_difference(void **state)
{
    (void)state;
    static const char *const words[] = {"<think>", "</think>", "\n", "a", "<", "</th", " ", "ink>"};
    uint64_t random = 11;
    for (int i = 0; i < 20000; i++) {
        char text[200] = "", t1[256], a1[256], t2[256], a2[256];
        bool inside = random_int(&random, 0, 1);
        for (size_t n = (size_t)random_int(&random, 0, 11); n > 0; n--)
            strcat(text, words[(size_t)random_int(&random, 0, 7)]);
        run(inside, text, NULL, t1, a1);
        run(inside, text, &random, t2, a2);
        assert_string_equal(t1, t2);
        assert_string_equal(a1, a2);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tells_them_apart),
    cmocka_unit_test(pieces_make_no_difference),
};

UNIT_MAIN(tests)
