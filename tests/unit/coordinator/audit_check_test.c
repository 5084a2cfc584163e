/* coordinator/audit_check and audit_line: every edit of a log is found, and where. */
#include "tests/unit/coordinator/audit_folder.h"
#include "tests/unit/random.h"

#include "base/log.h"

enum { RECORDS = 60, MAX_LINES = 200, EDITS = 300 };

/* A sound log of several starts, heads in its middle too. */
struct book {
    struct audit_folder f;
    char *text;
    size_t len;
    int lines;
    size_t at[MAX_LINES + 1]; /* where each begins, and the end */
};

static struct book book_make(void)
{
    struct book b = {.f = audit_folder_make()};
    struct audit_summary sum;
    struct error err;
    log_set_level(LOG_ERROR + 1);
    for (int start = 0; start < 3; start++) {
        struct audit *a = audit_folder_open(&b.f);
        for (int i = 0; i < RECORDS / 3; i++)
            audit_event(
                a, i % 2 ? "request_end" : "request_start",
                json_pack("{s:i, s:s, s:f}", "n", i, "id", "0123456789abcdef-1", "x", 0.1 * i));
        audit_close(a);
    }
    is_sound(&b.f, &sum);
    assert_true(sum.signed_heads >= 3);
    done(file_read_all(b.f.log, 1 << 20, &b.text, &b.len, &err), &err);
    for (size_t i = 0; i < b.len; i++)
        if (b.text[i] == '\n') {
            assert_true(b.lines < MAX_LINES);
            b.at[++b.lines] = i + 1;
        }
    assert_int_equal(b.lines, sum.lines);
    return b;
}

static void book_remove(struct book *b)
{
    free(b->text);
    audit_folder_remove(&b->f);
}

/* --- edits: each gives the new text, and the line, of the new text, where it must be found -------
 */

struct edit {
    char *text;
    size_t len;
    int line, other; /* either of the two; from 1 */
    const char *what;
};

static void put(struct edit *e, const struct book *b, size_t from, size_t to)
{
    memcpy(e->text + e->len, b->text + from, to - from);
    e->len += to - from;
}

static void put_line(struct edit *e, const struct book *b, int line)
{
    put(e, b, b->at[line], b->at[line + 1]);
}

/* A byte becomes another, newlines among them. */
static void flip(struct edit *e, const struct book *b, uint64_t *seed)
{
    int line = random_int(seed, 0, b->lines - 1);
    size_t at = b->at[line] + random_u64(seed) % (b->at[line + 1] - b->at[line]);
    put(e, b, 0, b->len);
    e->text[at] = (char)(e->text[at] ^ 1 << random_int(seed, 0, 7));
    e->line = e->other = line + 1;
    e->what = "flip";
}

static void remove_line(struct edit *e, const struct book *b, uint64_t *seed)
{
    int line = random_int(seed, 0, b->lines - 2);
    put(e, b, 0, b->at[line]);
    put(e, b, b->at[line + 1], b->len);
    e->line = e->other = line + 1;
    e->what = "delete";
}

static void swap(struct edit *e, const struct book *b, uint64_t *seed)
{
    int first = random_int(seed, 0, b->lines - 2);
    int second = random_int(seed, first + 1, b->lines - 1);
    for (int i = 0; i < b->lines; i++)
        put_line(e, b, i == first ? second : i == second ? first : i);
    e->line = e->other = first + 1;
    e->what = "swap";
}

/* The file ends within a line. */
static void truncate_text(struct edit *e, const struct book *b, uint64_t *seed)
{
    int line = random_int(seed, 0, b->lines - 1);
    size_t bytes = b->at[line + 1] - b->at[line];
    put(e, b, 0, b->at[line] + 1 + random_u64(seed) % (bytes - 1));
    e->line = e->other = line + 1;
    e->what = "truncate";
}

/* A copy of one of its records, or one that the editor has made to fit. */
static void insert(struct edit *e, const struct book *b, uint64_t *seed)
{
    int line = random_int(seed, 0, b->lines), copy = random_int(seed, 0, b->lines - 1);
    bool forged = line > 0 && line < b->lines && random_int(seed, 0, 1) == 1;
    struct error err;
    put(e, b, 0, b->at[line]);
    if (forged) {
        struct audit_record r;
        struct buf out;
        done(audit_line_read("it", b->text + b->at[line - 1], b->at[line] - b->at[line - 1] - 1, &r,
                             &err),
             &err);
        struct audit_chain chain = {.seq = r.seq + 1, .prev = r.own};
        struct audit_time at = {.wall_ms = r.wall_ms, .mono_ms = r.mono_ms};
        buf_init(&out, AUDIT_MAX_LINE);
        done(audit_line_write(&chain, "request_start", "{\"n\":7}", &at, &out, &err), &err);
        memcpy(e->text + e->len, out.data, out.len);
        e->len += out.len;
        buf_fini(&out);
        json_decref(r.root);
    } else {
        put_line(e, b, copy);
    }
    put(e, b, b->at[line], b->len);
    e->line = line + 1;
    /* Two equal lines beside each other: either was there before. */
    e->other = forged || copy == line - 1 ? e->line - !forged
               : copy == line             ? e->line + 1
                                          : e->line;
    e->what = forged ? "insert forged" : "insert copy";
}

/* Whole records, from the end on: the second file knows. */
static void cut(struct edit *e, const struct book *b, uint64_t *seed)
{
    int left = random_int(seed, 1, b->lines - 1);
    put(e, b, 0, b->at[left]);
    e->line = e->other = left;
    e->what = "cut";
}

static struct found check_text(const struct book *b, const char *text, size_t len, bool heads,
                               struct audit_summary *sum)
{
    FILE *f = fopen(b->f.log, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    return verify(&b->f, heads, sum);
}

/* The first thing found is the edit. */
static void is_found(const struct book *b, const struct edit *e, int number)
{
    struct audit_summary sum;
    struct found all = check_text(b, e->text, e->len, true, &sum);
    if (all.count == 0)
        fail_msg("edit %d: %s at line %d: nothing was found", number, e->what, e->line);
    if (all.heads[0] || (all.line[0] != e->line && all.line[0] != e->other))
        fail_msg("edit %d: %s at line %d (or %d) of %d: found:\n%s", number, e->what, e->line,
                 e->other, b->lines, all.words);
}

static void random_edits_are_found_in_their_place(void **state)
{
    (void)state;
    static void (*const edits[])(struct edit * e, const struct book *b, uint64_t *seed) = {
        flip, remove_line, swap, truncate_text, insert, cut};
    struct book b = book_make();
    char *text = malloc(3 * b.len);
    uint64_t seed = 20261122;
    for (int i = 0; i < EDITS; i++) {
        struct edit e = {.text = text};
        edits[i % 6](&e, &b, &seed);
        if (e.len == b.len && memcmp(text, b.text, b.len) == 0)
            fail_msg("edit %d changed nothing", i);
        is_found(&b, &e, i);
    }
    free(text);
    book_remove(&b);
}

/* Bytes from everywhere. */
static void any_byte_that_changes_is_found(void **state)
{
    (void)state;
    struct book b = book_make();
    char *text = malloc(b.len);
    memcpy(text, b.text, b.len);
    struct audit_summary sum;
    for (size_t i = 0; i < b.len; i += 61) {
        text[i] = (char)(text[i] ^ 1);
        struct found all = check_text(&b, text, b.len, true, &sum);
        text[i] = b.text[i];
        int line = 1;
        while (b.at[line] <= i)
            line++;
        if (all.count == 0 || all.line[0] != line)
            fail_msg("byte %zu, line %d: found %s", i, line, all.words);
    }
    free(text);
    book_remove(&b);
}

/* --- what a log alone cannot tell --- */

static void a_cut_needs_the_second_file(void **state)
{
    (void)state;
    struct book b = book_make();
    struct audit_summary sum;
    struct found all = check_text(&b, b.text, b.at[b.lines - 2], false, &sum);
    assert_int_equal(all.count, 0);
    all = check_text(&b, b.text, b.at[b.lines - 2], true, &sum);
    assert_int_equal(all.count, 1);
    assert_int_equal(all.line[0], b.lines - 2);
    assert_non_null(strstr(all.words, "cut off behind this line"));
    all = check_text(&b, "", 0, true, &sum);
    assert_true(all.count > 0);
    book_remove(&b);
}

/* All of it written anew, with hashes that fit: without the key there is no head. */
static void a_log_written_anew(void **state)
{
    (void)state;
    struct book b = book_make();
    struct audit_folder other = audit_folder_make();
    struct audit_summary sum;
    struct audit *a = audit_folder_open(&other);
    audit_event(a, "request_start", json_object());
    audit_close(a);
    struct audit_trust *mine = other.trust;
    other.trust = b.f.trust; /* the auditor's */
    struct found all = verify(&other, false, &sum);
    assert_true(all.count > 0);
    assert_non_null(strstr(all.words, "a key that is not trusted"));
    assert_non_null(strstr(all.words, "no head in it is signed by a trusted key"));
    assert_int_equal(sum.signed_heads, 0);
    /* Even by the right key: not the second file's log. */
    snprintf(other.heads, sizeof other.heads, "%s", b.f.heads);
    all = verify(&other, true, &sum);
    assert_non_null(strstr(all.words, "the second file has"));
    other.trust = mine;
    audit_folder_remove(&other);
    book_remove(&b);
}

/* What is wrong with the second file is said of it. */
static void a_second_file_that_was_changed(void **state)
{
    (void)state;
    struct book b = book_make();
    struct audit_summary sum;
    struct error err;
    char *text;
    size_t len;
    done(file_read_all(b.f.heads, 1 << 20, &text, &len, &err), &err);
    text[25] = (char)(text[25] ^ 1); /* of the chain's name */
    folder_write(&b.f.files, "audit.heads", text, len);
    struct found all = verify(&b.f, true, &sum);
    assert_int_equal(all.count, 1);
    assert_true(all.heads[0]);
    text[25] = (char)(text[25] ^ 1);
    folder_write(&b.f.files, "audit.heads", text, len - 3);
    all = verify(&b.f, true, &sum);
    assert_int_equal(all.count, 1);
    assert_true(all.heads[0]);
    free(text);
    book_remove(&b);
}

static void without_keys_signatures_are_not_looked_at(void **state)
{
    (void)state;
    struct book b = book_make();
    struct audit_summary sum;
    struct audit_trust *trust = b.f.trust;
    b.f.trust = NULL;
    struct found all = verify(&b.f, true, &sum);
    assert_int_equal(all.count, 0);
    assert_int_equal(sum.signed_heads, 0);
    assert_true(sum.heads > 0);
    b.f.trust = trust;
    struct error err;
    assert_int_equal(audit_verify("/nowhere", NULL, NULL, NULL, NULL, &sum, &err), ERR_NOT_FOUND);
    book_remove(&b);
}

/* --- lines --- */

#define ZERO "0000000000000000000000000000000000000000000000000000000000000000"
#define LINE(fields, kind, mono, seq, time)                                                        \
    "{\"fields\":" fields ",\"kind\":\"" kind "\",\"mono_ms\":" mono ",\"prev\":\"" ZERO           \
    "\",\"seq\":" seq ",\"time\":\"" time "\"}"
#define TIME "2026-01-31T12:00:00.007Z"

static void a_line_is_as_documented(void **state)
{
    (void)state;
    static const char line[] = LINE("{\"n\":1}", "number", "5", "0", TIME);
    struct audit_record r;
    struct audit_chain chain = {0};
    struct error err;
    struct buf out;
    done(audit_line_read("it", line, sizeof line - 1, &r, &err), &err);
    assert_string_equal(r.kind, "number");
    assert_int_equal(r.mono_ms, 5);
    assert_int_equal(r.wall_ms, 1769860800007);
    buf_init(&out, AUDIT_MAX_LINE);
    done(audit_line_write(&chain, r.kind, "{\"n\":1}",
                          &(struct audit_time){.wall_ms = r.wall_ms, .mono_ms = 5}, &out, &err),
         &err);
    assert_string_equal(out.data, LINE("{\"n\":1}", "number", "5", "0", TIME) "\n");
    assert_int_equal(chain.seq, 1);
    assert_memory_equal(&chain.prev, &r.own, sizeof r.own);
    buf_fini(&out);
    json_decref(r.root);
}

static void lines_that_are_none(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "",
        "{}",
        "[]",
        "{\"fields\":{}}",
        LINE("[]", "number", "5", "0", TIME),
        LINE("{}", "Number", "5", "0", TIME),
        LINE("{}", "", "5", "0", TIME),
        LINE("{}", "number", "-5", "0", TIME),
        LINE("{}", "number", "5", "-1", TIME),
        LINE("{}", "number", "5", "9223372036854775807", TIME),
        LINE("{}", "number", "5", "0", "2026-02-31T12:00:00.000Z"),
        LINE("{}", "number", "5", "0", "2026-01-31T12:00:00Z"),
        LINE("{}", "number", "5", "0", "2026-01-31 12:00:00.000Z"),
        LINE("{}", "number", "5.0", "0", TIME),
        LINE("{}", "number", "05", "0", TIME),
        LINE("{} ", "number", "5", "0", TIME),
        LINE("{\"b\":1,\"a\":2}", "number", "5", "0", TIME),
        LINE("{\"a\":\"\\u0041\"}", "number", "5", "0", TIME),
        LINE("{\"a\":1.0e0}", "number", "5", "0", TIME),
        LINE("{}", "number", "5", "0", TIME) " ",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct audit_record r;
        struct error err;
        if (audit_line_read("it", lines[i], strlen(lines[i]), &r, &err) != ERR_INVALID)
            fail_msg("taken: %s", lines[i]);
        assert_null(r.root);
        assert_memory_equal(err.msg, "it: ", 4);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(random_edits_are_found_in_their_place),
    cmocka_unit_test(any_byte_that_changes_is_found),
    cmocka_unit_test(a_cut_needs_the_second_file),
    cmocka_unit_test(a_log_written_anew),
    cmocka_unit_test(a_second_file_that_was_changed),
    cmocka_unit_test(without_keys_signatures_are_not_looked_at),
    cmocka_unit_test(a_line_is_as_documented),
    cmocka_unit_test(lines_that_are_none),
};

UNIT_MAIN(tests)
