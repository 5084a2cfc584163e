/* What is guessed from a text, and how much. */
#include "tests/unit/unit.h"

#include "worker/guess.h"

/* Guesses behind a text of small numbers; the room behind it is for them. */
static int32_t guesses(const char *text, int32_t most, int32_t *out)
{
    int32_t tokens[64] = {0}, known = 0;
    for (; text[known]; known++)
        tokens[known] = text[known];
    int32_t n = guess_next(tokens, known, most);
    memcpy(out, tokens + known, (size_t)n * sizeof *out);
    return n;
}

static void expect(const char *text, const char *words)
{
    int32_t out[16], n = guesses(text, (int32_t)strlen(words), out);
    assert_int_equal(n, strlen(words));
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(out[i], words[i]);
}

static void what_followed_follows_again(void **state)
{
    (void)state;
    expect("the cat sat. the c", "at s");
    expect("abcd-abce-xbc", "e-x"); /* the last time */
    expect("abcd-xbce-abc", "d-x"); /* a longer match goes before a later one */
    expect("abab", "ababab");       /* over the end of what is known */
    int32_t out[4];
    assert_int_equal(guesses("abcdefg", 4, out), 0);
    assert_int_equal(guesses("xa-ya-za", 4, out), 0); /* one token is not enough */
}

static void far_back_is_not_looked_at(void **state)
{
    (void)state;
    static int32_t tokens[GUESS_LOOKS_BACK + 16];
    int32_t known = GUESS_LOOKS_BACK + 8;
    for (int32_t i = 0; i < known; i++)
        tokens[i] = i;
    tokens[2] = tokens[known - 2]; /* the last two at 2 and 3, too far back */
    tokens[3] = tokens[known - 1];
    assert_int_equal(guess_next(tokens, known, 4), 0);
    tokens[20] = tokens[known - 2];
    tokens[21] = tokens[known - 1];
    assert_int_equal(guess_next(tokens, known, 4), 4);
    assert_int_equal(tokens[known], 22);
}

/* More where all were right, fewer where not, none where none was; and another try later. */
static void success_decides_how_many(void **state)
{
    (void)state;
    struct guess g;
    guess_init(&g, 10);
    assert_int_equal(g.tries, 2);
    guess_note(&g, 2, 2);
    guess_note(&g, 4, 4);
    guess_note(&g, 8, 8);
    assert_int_equal(g.tries, 10);
    guess_note(&g, 10, 3);
    assert_int_equal(g.tries, 4);
    guess_note(&g, 4, 0);
    guess_note(&g, 2, 0);
    assert_int_equal(g.tries, 1);
    int32_t rests[3] = {0};
    for (int i = 0; i < 3; i++) {
        guess_note(&g, 1, 0);
        assert_int_equal(g.tries, 0);
        for (; g.tries == 0; rests[i]++)
            guess_rest(&g);
        assert_int_equal(g.tries, 1);
    }
    assert_int_equal(rests[1], 2 * rests[0]);
    assert_int_equal(rests[2], 2 * rests[1]);
    guess_init(&g, 0);
    for (int i = 0; i < 1000; i++)
        guess_rest(&g);
    assert_int_equal(g.tries, 0);
}

static void nothing_to_guess_from_ends_looking(void **state)
{
    (void)state;
    struct guess g;
    guess_init(&g, 4);
    int32_t looks = 0;
    for (; g.tries > 0; looks++)
        guess_note(&g, 0, 0);
    assert_in_range(looks, 4, 64);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_followed_follows_again),
    cmocka_unit_test(far_back_is_not_looked_at),
    cmocka_unit_test(success_decides_how_many),
    cmocka_unit_test(nothing_to_guess_from_ends_looking),
};

UNIT_MAIN(tests)
