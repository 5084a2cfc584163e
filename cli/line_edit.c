/* Editing one line: see line_edit.h. */
#include "cli/line_edit.h"
#include "base/check.h"
#include "cli/terminal.h"
#include "coordinator/text/utf8.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { CTRL_A = 1, CTRL_B, CTRL_C, CTRL_D, CTRL_E, CTRL_F, TAB = 9, NEWLINE, CTRL_K, RETURN = 13 };
enum { CTRL_N = 14, CTRL_P = 16, CTRL_U = 21, CTRL_W = 23, CTRL_Z = 26, ESCAPE = 27, RUBOUT = 127 };

/* --- the text ----------------------------------------------------------------------------------
 */

void line_edit_init(struct line_edit *e, const struct line_history *history)
{
    *e = (struct line_edit){.history = history, .shown = history->count};
    buf_init(&e->text, LINE_MAX_BYTES);
    buf_init(&e->draft, LINE_MAX_BYTES);
}

void line_edit_fini(struct line_edit *e)
{
    buf_fini(&e->text);
    buf_fini(&e->draft);
}

void line_edit_clear(struct line_edit *e)
{
    buf_clear(&e->text);
    buf_clear(&e->draft);
    e->cursor = e->sequence_len = 0;
    e->pasting = false;
    e->shown = e->history->count;
}

void line_edit_insert(struct line_edit *e, const char *text, size_t len)
{
    size_t behind = e->text.len - e->cursor;
    if (buf_append(&e->text, text, len, NULL) != OK)
        return;
    char *at = e->text.data + e->cursor;
    memmove(at + len, at, behind);
    memcpy(at, text, len);
    e->cursor += len;
}

/* Takes out what lies between two borders; the cursor goes to the first. */
static void cut(struct line_edit *e, size_t from, size_t to)
{
    if (from == to)
        return;
    memmove(e->text.data + from, e->text.data + to, e->text.len - to + 1);
    e->text.len -= to - from;
    e->cursor = from;
}

/* The border before or behind a place; characters that have no cells go with the one before. */
static size_t step_back(const struct line_edit *e, size_t at)
{
    while (at > 0) {
        do
            at--;
        while (at > 0 && ((unsigned char)e->text.data[at] & 0xc0) == 0x80);
        size_t i = at;
        if (terminal_width(utf8_decode(e->text.data, &i)) > 0 ||
            (unsigned char)e->text.data[at] < ' ')
            break;
    }
    return at;
}

static size_t step_on(const struct line_edit *e, size_t at)
{
    if (at < e->text.len)
        utf8_decode(e->text.data, &at);
    while (at < e->text.len) {
        size_t next = at;
        if (terminal_width(utf8_decode(e->text.data, &next)) > 0 || e->text.data[at] == '\n' ||
            e->text.data[at] == '\t')
            break;
        at = next;
    }
    return at;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t';
}

static size_t word_back(const struct line_edit *e)
{
    size_t at = e->cursor;
    while (at > 0 && is_space(e->text.data[at - 1]))
        at--;
    while (at > 0 && !is_space(e->text.data[at - 1]))
        at--;
    return at;
}

static size_t word_on(const struct line_edit *e)
{
    size_t at = e->cursor;
    while (at < e->text.len && is_space(e->text.data[at]))
        at++;
    while (at < e->text.len && !is_space(e->text.data[at]))
        at++;
    return at;
}

/* Shows another line of the history; the one that is being written stays the last of them. */
static void recall(struct line_edit *e, size_t which)
{
    const struct line_history *h = e->history;
    if (which > h->count || which == e->shown)
        return;
    if (e->shown == h->count) {
        buf_clear(&e->draft);
        if (e->text.len > 0)
            buf_append(&e->draft, e->text.data, e->text.len, NULL);
    }
    const char *line = which < h->count ? h->lines[which] : e->draft.len > 0 ? e->draft.data : "";
    e->shown = which;
    buf_clear(&e->text);
    utf8_append_lossy(&e->text, line, strlen(line), NULL);
    e->cursor = e->text.len;
}

/* --- keys --------------------------------------------------------------------------------------
 */

enum action {
    NOTHING,
    BACK,
    ON,
    HOME,
    LAST,
    WORD_BACK,
    WORD_ON,
    OLDER,
    NEWER,
    DELETE,
    BACKSPACE,
    CUT_WORD_BACK,
    CUT_WORD_ON,
    CUT_BEFORE,
    CUT_BEHIND,
};

static enum line_event act(struct line_edit *e, enum action action)
{
    size_t at = e->cursor;
    switch (action) {
    case NOTHING:
        break;
    case BACK:
        e->cursor = step_back(e, at);
        break;
    case ON:
        e->cursor = step_on(e, at);
        break;
    case HOME:
        e->cursor = 0;
        break;
    case LAST:
        e->cursor = e->text.len;
        break;
    case WORD_BACK:
        e->cursor = word_back(e);
        break;
    case WORD_ON:
        e->cursor = word_on(e);
        break;
    case OLDER:
        recall(e, e->shown > 0 ? e->shown - 1 : 0);
        break;
    case NEWER:
        recall(e, e->shown + 1);
        break;
    case DELETE:
        cut(e, at, step_on(e, at));
        break;
    case BACKSPACE:
        cut(e, step_back(e, at), at);
        break;
    case CUT_WORD_BACK:
        cut(e, word_back(e), at);
        break;
    case CUT_WORD_ON:
        cut(e, at, word_on(e));
        break;
    case CUT_BEFORE:
        cut(e, 0, at);
        break;
    case CUT_BEHIND:
        cut(e, at, e->text.len);
        break;
    }
    return LINE_EDITS;
}

/* What stands behind ESC. */
static const struct {
    const char *bytes;
    enum action action;
} keys[] = {
    {"[A", OLDER},
    {"OA", OLDER},
    {"[B", NEWER},
    {"OB", NEWER},
    {"[C", ON},
    {"OC", ON},
    {"[D", BACK},
    {"OD", BACK},
    {"[H", HOME},
    {"OH", HOME},
    {"[1~", HOME},
    {"[7~", HOME},
    {"[F", LAST},
    {"OF", LAST},
    {"[4~", LAST},
    {"[8~", LAST},
    {"[3~", DELETE},
    {"[1;5C", WORD_ON},
    {"[1;3C", WORD_ON},
    {"f", WORD_ON},
    {"[1;5D", WORD_BACK},
    {"[1;3D", WORD_BACK},
    {"b", WORD_BACK},
    {"d", CUT_WORD_ON},
    {"\x7f", CUT_WORD_BACK},
};

static bool is(const struct line_edit *e, const char *bytes)
{
    return strlen(bytes) == e->sequence_len - 1 &&
           memcmp(e->sequence + 1, bytes, e->sequence_len - 1) == 0;
}

/* A sequence is whole: ESC and a byte, or ESC [ or ESC O up to a letter. */
static bool is_whole(const struct line_edit *e)
{
    size_t n = e->sequence_len;
    unsigned char last = (unsigned char)e->sequence[n - 1];
    if (n == 1)
        return false;
    if (n == 2)
        return last != '[' && last != 'O';
    return last >= 0x40 && last < 0x7f;
}

static enum line_event press(struct line_edit *e)
{
    enum line_event event = LINE_EDITS;
    if (is(e, "[200~"))
        e->pasting = true;
    else if (is(e, "[201~"))
        e->pasting = false;
    else if (e->pasting)
        event = LINE_EDITS;
    else if (is(e, "\r") || is(e, "\n") || is(e, "[13;3u") || is(e, "[27;3;13~"))
        event = LINE_GOES_ON;
    else
        for (size_t i = 0; i < COUNT_OF(keys); i++)
            if (is(e, keys[i].bytes))
                act(e, keys[i].action);
    e->sequence_len = 0;
    return event;
}

static enum line_event control(struct line_edit *e, unsigned char byte)
{
    switch (byte) {
    case RETURN:
    case NEWLINE:
        return LINE_DONE;
    case TAB:
        return LINE_COMPLETES;
    case CTRL_C:
        return LINE_BREAK;
    case CTRL_D:
        return e->text.len == 0 ? LINE_END : act(e, DELETE);
    case CTRL_Z:
        return LINE_SUSPENDS;
    case CTRL_A:
        return act(e, HOME);
    case CTRL_B:
        return act(e, BACK);
    case CTRL_E:
        return act(e, LAST);
    case CTRL_F:
        return act(e, ON);
    case CTRL_K:
        return act(e, CUT_BEHIND);
    case CTRL_N:
        return act(e, NEWER);
    case CTRL_P:
        return act(e, OLDER);
    case CTRL_U:
        return act(e, CUT_BEFORE);
    case CTRL_W:
        return act(e, CUT_WORD_BACK);
    case '\b':
    case RUBOUT:
        return act(e, BACKSPACE);
    default:
        return LINE_EDITS;
    }
}

/* A byte of a character of several; what cannot be one is dropped. */
static void take_utf8(struct line_edit *e, unsigned char byte)
{
    e->sequence[e->sequence_len++] = (char)byte;
    struct utf8_head head = utf8_head(e->sequence, e->sequence_len);
    if (head.kind == UTF8_INCOMPLETE)
        return;
    size_t i = 0;
    bool c1 = head.kind == UTF8_CHAR && utf8_decode(e->sequence, &i) < 0xa0;
    if (head.kind == UTF8_CHAR && !c1)
        line_edit_insert(e, e->sequence, e->sequence_len);
    e->sequence_len = 0;
}

enum line_event line_edit_byte(struct line_edit *e, unsigned char byte)
{
    if (e->sequence_len > 0 && e->sequence[0] == ESCAPE) {
        if (byte == ESCAPE)
            e->sequence_len = 0; /* the one before stood alone */
        else if (e->sequence_len == sizeof e->sequence)
            e->sequence_len--; /* too long for any key: its end is awaited */
        e->sequence[e->sequence_len++] = (char)byte;
        return is_whole(e) ? press(e) : LINE_EDITS;
    }
    if (byte >= 0x80) {
        take_utf8(e, byte);
        return LINE_EDITS;
    }
    e->sequence_len = 0;
    if (byte == ESCAPE) {
        e->sequence[e->sequence_len++] = ESCAPE;
        return LINE_EDITS;
    }
    bool newline = e->pasting && (byte == RETURN || byte == NEWLINE);
    if (newline || (e->pasting && byte == TAB) || (byte >= ' ' && byte < RUBOUT)) {
        char c = newline ? '\n' : (char)byte;
        line_edit_insert(e, &c, 1);
        return LINE_EDITS;
    }
    return e->pasting ? LINE_EDITS : control(e, byte);
}

/* --- completion --------------------------------------------------------------------------------
 */

static size_t shared_length(const char *a, const char *b, size_t most)
{
    size_t n = 0;
    while (n < most && a[n] && a[n] == b[n])
        n++;
    return n;
}

/* The words that could come next, each once. */
static void list_choices(const struct line_edit *e, const char *const *words, struct buf *out)
{
    size_t from = e->text.len, before = 0;
    const char *last = "";
    while (from > 0 && e->text.data[from - 1] != ' ')
        from--;
    for (size_t i = 0; words[i]; i++) {
        if (strncmp(words[i], e->text.data, e->text.len) != 0)
            continue;
        const char *word = words[i] + from;
        size_t len = strcspn(word, " ");
        if (len != before || strncmp(word, last, len) != 0)
            buf_printf(out, NULL, "%s%.*s", out->len > 0 ? "  " : "", (int)len, word);
        last = word;
        before = len;
    }
}

void line_edit_complete(struct line_edit *e, const char *const *words, struct buf *choices)
{
    const char *first = NULL;
    size_t shared = 0, matches = 0;
    if (e->text.len == 0 || e->cursor != e->text.len)
        return;
    for (size_t i = 0; words[i]; i++) {
        if (strncmp(words[i], e->text.data, e->text.len) != 0)
            continue;
        shared = first ? shared_length(first, words[i], shared) : strlen(words[i]);
        first = first ? first : words[i];
        matches++;
    }
    if (shared > e->text.len)
        line_edit_insert(e, first + e->text.len, shared - e->text.len);
    else if (matches > 1)
        list_choices(e, words, choices);
}

/* --- drawing -----------------------------------------------------------------------------------
 */

/* What stands for the character at *i in a row, and its cells. */
static const char *cell(const struct line_edit *e, size_t *i, int *width, size_t *len)
{
    size_t from = *i;
    uint32_t c = utf8_decode(e->text.data, i);
    *width = terminal_width(c);
    *len = *i - from;
    if (c != '\n' && c != '\t' && c >= ' ' && (c < 0x7f || c >= 0xa0))
        return e->text.data + from;
    const char *shown = c == '\n' ? "\xe2\x86\xb5" : c == '\t' ? " " : "?"; /* U+21B5 */
    *width = 1;
    *len = strlen(shown);
    return shown;
}

/* Cells of text[from] to text[to]. */
static int cells(const struct line_edit *e, size_t from, size_t to)
{
    int all = 0, width;
    size_t len;
    while (from < to) {
        cell(e, &from, &width, &len);
        all += width;
    }
    return all;
}

/* Appends from `from` up to `to`, at most so many cells; returns how many. */
static int draw(const struct line_edit *e, size_t from, size_t to, int room, struct buf *out)
{
    int all = 0, width;
    size_t len;
    while (from < to) {
        const char *shown = cell(e, &from, &width, &len);
        if (width > room - all)
            break;
        all += width;
        buf_append(out, shown, len, NULL);
    }
    return all;
}

void line_edit_draw(const struct line_edit *e, const char *prompt, int columns, struct buf *out)
{
    /* The last cell stays free: a terminal may go to the next row behind it. */
    int room = columns - 1 - (int)strlen(prompt);
    room = room > 2 ? room : 2;
    size_t from = 0;
    int before = cells(e, 0, e->cursor), width;
    while (before > room - 1 && from < e->cursor) {
        size_t len;
        cell(e, &from, &width, &len);
        before -= width;
    }
    buf_printf(out, NULL, "\r%s", prompt);
    int drawn = draw(e, from, e->text.len, room, out);
    buf_printf(out, NULL, "%*s\r%s", room - drawn, "", prompt);
    draw(e, from, e->cursor, room, out);
}

void line_edit_draw_whole(const struct line_edit *e, const char *prompt, struct buf *out)
{
    buf_printf(out, NULL, "\r%s", prompt);
    draw(e, 0, e->text.len, INT_MAX, out);
}
