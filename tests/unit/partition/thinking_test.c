/* Where a thought is ended, and what is refused. */
#include "base/check.h"
#include "tests/unit/unit.h"

#include "partition/thinking.h"

enum { OPEN = 90, CLOSE = 91, VOCAB = 100 };

static struct thinking three(int32_t most, bool inside)
{
    return (struct thinking){.count = 3,
                             .most = most,
                             .open = OPEN,
                             .close = CLOSE,
                             .inside = inside,
                             .ids = {5, CLOSE, 6}};
}

/* What an answer becomes of which `drawn` is drawn, each "a" to "z" a token, "<" and ">" the tags:
 * what ends it as digits. */
static void check(struct thinking t, const char *drawn, const char *expected)
{
    char got[64] = "";
    bool open = t.count > 0;
    for (int32_t i = 0; drawn[i]; i++) {
        int32_t token = drawn[i] == '<' ? OPEN : drawn[i] == '>' ? CLOSE : 10 + drawn[i] - 'a';
        int32_t is = thinking_token(&t, open, i, token);
        open = thinking_after(&t, open, i, is);
        int32_t at = i - thinking_end(&t);
        bool ends = is != token;
        got[i] = ends ? (char)('1' + at) : drawn[i];
        assert_true(!ends || is == t.ids[at]);
    }
    assert_string_equal(got, expected);
}

static void a_thought_is_ended_where_it_is_open(void **state)
{
    (void)state;
    check(three(4, true), "abcdefghi", "abcd123hi");
    check(three(0, true), "abcdef", "123def");
    check(three(4, true), "abc>efghi", "abc>efghi"); /* the model has, just in time */
    check(three(4, true), "abcd>fghi", "abcd>fghi"); /* with so many it is not too long */
    check(three(4, true), "abcde>ghi", "abcd1>3hi"); /* and a token too late */
    check(three(0, true), ">bcd", ">bcd");
    check(three(4, true), "abc>ef<hijklm", "abc>ef<hijklm");
    check(three(4, false), "<bcdefghij", "<bcde123ij");
    check(three(0, false), "<bcdef", "<123ef");
    check(three(4, false), "abcdefghij", "abcdefghij"); /* it has not thought */
    check(three(4, false), "a<cdefghij", "a<cdefghij");
    check(three(4, false), "<>cdefghij", "<>cdefghij");
    check(three(9, true), "abcd", "abcd");
    check((struct thinking){0}, "<abcd", "<abcd");
}

static void what_does_not_hold_together_is_refused(void **state)
{
    (void)state;
    struct error err;
    const struct constraint none = {0}, object = {.kind = CONSTRAINT_JSON_OBJECT,
                                                  .thought = CONSTRAINT_IN_THOUGHT};
    struct thinking t = three(4, true);
    assert_int_equal(thinking_check(&t, &none, VOCAB, 4, &err), OK);
    assert_int_equal(thinking_check(&t, &none, VOCAB, 3, &err), ERR_INVALID);
    assert_string_equal(err.msg, "thinking: most: expected 0 to 3, for which max_tokens leaves "
                                 "room, found 4");
    /* 4, 3 that end it, {} and the end of the sequence */
    assert_int_equal(thinking_room(&t, &object, 10), 4);
    assert_int_equal(thinking_check(&t, &object, VOCAB, 10, &err), OK);
    assert_int_equal(thinking_check(&t, &object, VOCAB, 9, &err), ERR_INVALID);
    t.inside = false;
    assert_int_equal(thinking_check(&t, &object, VOCAB, 10, &err), ERR_INVALID);
    assert_int_equal(thinking_check(&t, &object, VOCAB, 11, &err), OK);
    t.most = -1;
    assert_int_equal(thinking_check(&t, &none, VOCAB, 4, &err), ERR_INVALID);
    t = three(4, true);
    t.ids[1] = 7;
    assert_int_equal(thinking_check(&t, &none, VOCAB, 9, &err), ERR_INVALID);
    assert_string_equal(err.msg, "thinking: expected 91 among ids, which ends a thought");
    const int32_t wrong[] = {-1, VOCAB, OPEN};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        t = three(4, true);
        t.ids[2] = wrong[i];
        assert_int_equal(thinking_check(&t, &none, VOCAB, 9, &err), ERR_INVALID);
    }
    t.count = THINKING_MAX_END + 1;
    assert_int_equal(thinking_check(&t, &none, VOCAB, 9, &err), ERR_INVALID);
    t.count = -1;
    assert_int_equal(thinking_check(&t, &none, VOCAB, 9, &err), ERR_INVALID);
    t.count = 0;
    assert_int_equal(thinking_check(&t, &none, VOCAB, 9, &err), OK);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_thought_is_ended_where_it_is_open),
    cmocka_unit_test(what_does_not_hold_together_is_refused),
};

UNIT_MAIN(tests)
