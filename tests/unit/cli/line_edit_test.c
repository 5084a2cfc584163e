/* Editing a line: keys in, text and a row of the terminal out. */
#include "tests/unit/unit.h"

#include "cli/line_edit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct line_history history;
static struct line_edit edit;

static void set_up(void)
{
    line_edit_init(&edit, &history);
}

static void tear_down(void)
{
    line_edit_fini(&edit);
    line_history_fini(&history);
}

static enum line_event keys(const char *bytes)
{
    enum line_event event = LINE_EDITS;
    for (; *bytes; bytes++)
        event = line_edit_byte(&edit, (unsigned char)*bytes);
    return event;
}

static void expect(const char *bytes, const char *text, size_t cursor)
{
    line_edit_clear(&edit);
    keys(bytes);
    assert_string_equal(edit.text.data ? edit.text.data : "", text);
    assert_int_equal(edit.cursor, cursor);
}

static void moves_and_cuts(void **state)
{
    (void)state;
    set_up();
    expect("abc", "abc", 3);
    expect("abc\x02\x02X", "aXbc", 2);
    expect("abc\x1b[D\x1b[DX\x1b[CY", "aXbYc", 4);
    expect("abc\x01X\x05Y", "XabcY", 5);
    expect("abc\x1b[HX\x1b[FY", "XabcY", 5);
    expect("abc\x7f\x08", "a", 1);
    expect("abc\x01\x1b[3~\x04", "c", 0);
    expect("one two\x17", "one ", 4);
    expect("one two\x1b\x7f", "one ", 4);
    expect("one two\x01\x1b"
           "d",
           " two", 0);
    expect("one two\x1b[1;5DX", "one Xtwo", 5);
    expect("one two\x01\x1b"
           "fX",
           "oneX two", 4);
    expect("one two\x02\x02\x0b", "one t", 5);
    expect("one two\x02\x02\x15", "wo", 0);
    expect("\x7f\x1b[D\x1b[3~\x17\x15\x0b", "", 0);
    tear_down();
}

/* U+00E9; e and U+0301, which goes with it; U+65E5. */
static void characters_are_whole(void **state)
{
    (void)state;
    set_up();
    expect("a\xc3\xa9\x7f", "a", 1);
    expect("ae\xcc\x81\x7f", "a", 1);
    expect("ae\xcc\x81\x02X", "aXe\xcc\x81", 2);
    expect("ae\xcc\x81z\x01\x06\x06X", "ae\xcc\x81Xz", 5);
    expect("\xe6\x97\xa5\x02\x04", "", 0);
    expect("a\xff\xc3(\xe6\x97)b", "a()b", 4); /* what is no UTF-8 is not taken */
    expect("a\xc2\x9b"
           "b",
           "ab", 2); /* C1 */
    tear_down();
}

static void events(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(keys("a\r"), LINE_DONE);
    assert_int_equal(keys("a\n"), LINE_DONE);
    assert_int_equal(keys("\x1b\r"), LINE_GOES_ON);
    assert_int_equal(keys("\x1b[13;3u"), LINE_GOES_ON);
    assert_int_equal(keys("\x03"), LINE_BREAK);
    assert_int_equal(keys("\x04"), LINE_EDITS);
    line_edit_clear(&edit);
    assert_int_equal(keys("\x04"), LINE_END);
    assert_int_equal(keys("\t"), LINE_COMPLETES);
    assert_int_equal(keys("\x1a"), LINE_SUSPENDS);
    assert_int_equal(keys("\x1b[999;999;999;999;999;999q\x1b[200"), LINE_EDITS);
    assert_int_equal(keys("\x1b\x1b[D\x1bOP\x1b[1;2P"), LINE_EDITS);
    assert_int_equal(edit.text.len, 0);
    tear_down();
}

/* A paste is text: newlines, tabs, and no keys. */
static void pastes(void **state)
{
    (void)state;
    set_up();
    assert_int_equal(keys("\x1b[200~a\rb\tc\x03\x1b[Dd\x1b[201~e"), LINE_EDITS);
    assert_string_equal(edit.text.data, "a\nb\tcde");
    assert_int_equal(keys("\r"), LINE_DONE);
    tear_down();
}

static void goes_through_history(void **state)
{
    (void)state;
    set_up();
    assert_true(line_history_add(&history, "one"));
    assert_true(line_history_add(&history, "two"));
    assert_false(line_history_add(&history, "two"));
    assert_false(line_history_add(&history, ""));
    expect("new\x1b[A", "two", 3);
    expect("new\x1b[A\x1b[A\x1b[A\x10", "one", 3);
    expect("new\x1b[A\x1b[A\x1b[B", "two", 3);
    expect("new\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B\x0e", "new", 3);
    expect("new\x1b[A!\x1b[B", "new", 3);
    for (int i = 0; i < LINE_HISTORY + 5; i++) {
        char line[16];
        snprintf(line, sizeof line, "%d", i);
        line_history_add(&history, line);
    }
    assert_int_equal(history.count, LINE_HISTORY);
    assert_string_equal(history.lines[0], "5");
    tear_down();
}

static const char *const words[] = {"/help",       "/save ",      "/set seed ",
                                    "/set top-k ", "/set top-p ", NULL};

static void expect_completed(const char *line, const char *text, const char *choices)
{
    struct buf list;
    buf_init(&list, 1000);
    line_edit_clear(&edit);
    keys(line);
    line_edit_complete(&edit, words, &list);
    assert_string_equal(edit.text.data ? edit.text.data : "", text);
    assert_string_equal(list.data ? list.data : "", choices);
    buf_fini(&list);
}

static void completes(void **state)
{
    (void)state;
    set_up();
    expect_completed("/h", "/help", "");
    expect_completed("/help", "/help", "");
    expect_completed("/s", "/s", "/save  /set");
    expect_completed("/se", "/set ", "");
    expect_completed("/set ", "/set ", "seed  top-k  top-p");
    expect_completed("/set t", "/set top-", "");
    expect_completed("/x", "/x", "");
    expect_completed("", "", "");
    expect_completed("/h\x02", "/h", ""); /* not at the line's end */
    tear_down();
}

static void expect_row(const char *line, int columns, const char *row)
{
    struct buf out;
    buf_init(&out, 1000);
    line_edit_clear(&edit);
    keys(line);
    line_edit_draw(&edit, "> ", columns, &out);
    assert_string_equal(out.data, row);
    buf_fini(&out);
}

/* The row never reaches its last cell, and has the cursor in sight. */
static void draws(void **state)
{
    (void)state;
    set_up();
    expect_row("", 8, "\r>      \r> ");
    expect_row("ab\x02", 8, "\r> ab   \r> a");
    expect_row("abcdefgh", 8, "\r> efgh \r> efgh");
    expect_row("abcdefgh\x01", 8, "\r> abcde\r> ");
    expect_row("\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", 8,
               "\r> \xe6\x9c\xac\xe8\xaa\x9e \r> \xe6\x9c\xac\xe8\xaa\x9e");
    expect_row("\x1b[200~a\nb\tc\x1b[201~", 9,
               "\r> a\xe2\x86\xb5"
               "b c \r> a\xe2\x86\xb5"
               "b c");
    expect_row("abcdefgh", 1, "\r> h \r> h");
    tear_down();
}

/* Any bytes at all leave valid text, a cursor inside it, and rows without a control character. */
static void any_keys(void **state)
{
    (void)state;
    set_up();
    static const char likely[] = "\x1b[]ABCDOHF~123;5\r\n\t\x01\x04\x05\x0b\x15\x17\x7f\xc3\xa9 ab";
    srand(2);
    line_history_add(&history, "before\nthis");
    for (int i = 0; i < 300000; i++) {
        struct buf row;
        bool any = rand() % 4 == 0;
        line_edit_byte(&edit, any ? (unsigned char)(rand() >> 7)
                                  : (unsigned char)likely[rand() % (int)(sizeof likely - 1)]);
        assert_true(edit.cursor <= edit.text.len);
        if (i % 16 != 0)
            continue;
        buf_init(&row, 1 << 20);
        line_edit_draw(&edit, "> ", 20, &row);
        for (size_t k = 0; k < row.len; k++)
            assert_true((unsigned char)row.data[k] >= ' ' || row.data[k] == '\r');
        buf_fini(&row);
        if (edit.text.len > 200)
            line_edit_clear(&edit);
    }
    tear_down();
}

static void history_in_a_file(void **state)
{
    (void)state;
    set_up();
    struct error err;
    struct stat found;
    size_t skipped;
    char path[] = "/tmp/witan-history-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK); /* makes it */
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    assert_int_equal(line_history_append(path, "a \"b\"\nc\x1b", &err), OK);
    assert_int_equal(line_history_append(path, "d", &err), OK);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(history.count, 2);
    assert_string_equal(history.lines[0], "a \"b\"\nc\x1b");
    for (int i = 0; i < 2 * LINE_HISTORY; i++)
        assert_int_equal(line_history_append(path, i % 2 ? "e" : "f", &err), OK);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK); /* and cuts it */
    line_history_fini(&history);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(history.count, LINE_HISTORY);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_size, 4 * LINE_HISTORY);
    chmod(path, 0644);
    assert_int_not_equal(line_history_read(&history, path, &skipped, &err), OK);
    chmod(path, 0600);
    unlink(path);
    tear_down();
}

static char *history_with(const char *text, size_t len)
{
    static char path[32];
    strcpy(path, "/tmp/witan-history-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    close(fd);
    return path;
}

static off_t size_of(const char *path)
{
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    return found.st_size;
}

static void bad_lines_of_a_history(void **state)
{
    (void)state;
    static const char some[] =
        "\"a\"\n\n\"cut of\n\"b\xff\"\n\"\0\"\n3\n\"b\"\n\"c\"\n\"d\"\n\"e\"\n\"f",
                      none[] = "Dear reader,\n\"a\"\nthis is\nno history";
    set_up();
    struct error err;
    size_t skipped;
    const char *path = history_with(some, sizeof some - 1);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(skipped, 5);
    assert_int_equal(history.count, 5);
    assert_string_equal(history.lines[4], "e");
    assert_int_equal(line_history_append(path, "g", &err), OK); /* not onto the "f" */
    line_history_fini(&history);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(history.count, 6);
    assert_string_equal(history.lines[5], "g");
    unlink(path);
    path = history_with("\"cut", 4);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(skipped, 1);
    unlink(path);
    path = history_with(none, sizeof none - 1);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "3 of 4 lines"));
    assert_int_equal(size_of(path), sizeof none - 1);
    unlink(path);
    tear_down();
}

static void a_history_has_limits(void **state)
{
    (void)state;
    set_up();
    struct error err;
    size_t skipped;
    struct rlimit old, small = {.rlim_cur = 9};
    const char *path = history_with("\"a\"\n", 4);
    char *line = malloc(LINE_MAX_BYTES + 2);
    assert_non_null(line);
    memset(line, 'x', LINE_MAX_BYTES + 1);
    line[LINE_MAX_BYTES + 1] = '\0';
    assert_int_equal(line_history_append(path, line, &err), OK); /* left out */
    assert_int_equal(line_history_append(path, "b\xff", &err), OK);
    assert_int_equal(size_of(path), 4);
    line[LINE_MAX_BYTES] = '\0';
    assert_int_equal(line_history_append(path, line, &err), OK);
    assert_int_equal(size_of(path), 4 + LINE_MAX_BYTES + 3);
    free(line);
    /* A line that is written in part is taken back. */
    assert_int_equal(truncate(path, 4), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    enum status st = line_history_append(path, "does not fit", &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(st, ERR_IO);
    assert_non_null(strstr(err.msg, "only 5 of a line's 15 bytes"));
    assert_int_equal(size_of(path), 4);
    /* A file at its limit takes no more, and is cut when it is read. */
    assert_int_equal(truncate(path, (64 << 20) - 3), 0);
    assert_int_equal(line_history_append(path, "b", &err), ERR_LIMIT);
    assert_int_equal(line_history_read(&history, path, &skipped, &err), OK);
    assert_int_equal(skipped, 1);
    assert_int_equal(size_of(path), 4);
    unlink(path);
    tear_down();
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(moves_and_cuts),
    cmocka_unit_test(characters_are_whole),
    cmocka_unit_test(events),
    cmocka_unit_test(pastes),
    cmocka_unit_test(goes_through_history),
    cmocka_unit_test(completes),
    cmocka_unit_test(draws),
    cmocka_unit_test(any_keys),
    cmocka_unit_test(history_in_a_file),
    cmocka_unit_test(bad_lines_of_a_history),
    cmocka_unit_test(a_history_has_limits),
};

UNIT_MAIN(tests)
