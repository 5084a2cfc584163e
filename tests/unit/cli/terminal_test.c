/* Text from elsewhere on a terminal: what is left of it. */
#include "tests/unit/unit.h"

#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void expect_clean(const char *text, const char *expected)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    assert_int_equal(terminal_clean(&out, text, strlen(text), NULL), OK);
    assert_string_equal(out.data ? out.data : "", expected);
    buf_fini(&out);
}

static void text_stays(void **state)
{
    (void)state;
    expect_clean("", "");
    expect_clean("a\tb\n\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x8e\xbb",
                 "a\tb\n\xc3\xa9 \xe6\x97\xa5 \xf0\x9f\x8e\xbb");
    expect_clean("\xd7\xa9\xe2\x80\x8f", "\xd7\xa9\xe2\x80\x8f"); /* U+200F belongs to texts */
}

static void controls_are_spelt(void **state)
{
    (void)state;
    expect_clean("\x1b[2J", "\\x1b[2J");
    expect_clean("a\x08\x07\x7f", "a\\x08\\x07\\x7f");
    expect_clean("\xc2\x9b"
                 "31m",
                 "\\u009b31m");
    expect_clean("\xe2\x80\xae"
                 "abc\xe2\x81\xa6",
                 "\\u202e"
                 "abc\\u2066");
    expect_clean("one\r\ntwo\rthree", "one\ntwothree");
}

/* No byte of the C0, C1 or DEL kind but newline and tab comes out, whatever goes in. */
static void any_bytes(void **state)
{
    (void)state;
    char text[64];
    srand(1);
    for (int round = 0; round < 20000; round++) {
        struct buf out;
        buf_init(&out, 1 << 12);
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)(rand() >> 7);
        assert_int_equal(terminal_clean(&out, text, sizeof text, NULL), OK);
        for (size_t i = 0; i < out.len; i++) {
            unsigned char c = (unsigned char)out.data[i];
            assert_true(c >= ' ' || c == '\n' || c == '\t');
            assert_int_not_equal(c, 0x7f);
            assert_false(c == 0xc2 && (unsigned char)out.data[i + 1] < 0xa0);
        }
        buf_fini(&out);
    }
}

static void a_pipe_is_no_terminal(void **state)
{
    (void)state;
    int ends[2], columns, rows;
    assert_int_equal(pipe(ends), 0);
    setenv("TERM", "xterm", 1);
    assert_false(terminal_moves(ends[1]));
    assert_false(terminal_styles(ends[1]));
    terminal_size(ends[1], &columns, &rows);
    assert_int_equal(columns, 80);
    assert_int_equal(rows, 24);
    close(ends[0]);
    close(ends[1]);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(text_stays),
    cmocka_unit_test(controls_are_spelt),
    cmocka_unit_test(any_bytes),
    cmocka_unit_test(a_pipe_is_no_terminal),
};

UNIT_MAIN(tests)
