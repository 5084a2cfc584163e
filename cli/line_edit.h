/*
 * Editing one line, as its keys come: text, cursor, and the lines before it. Knows no terminal:
 * bytes go in, and what one row of a terminal should show comes out without any escape sequence.
 * One thread.
 */
#ifndef WITAN_CLI_LINE_EDIT_H
#define WITAN_CLI_LINE_EDIT_H

#include "cli/line_history.h"

#include <stdbool.h>

enum line_event {
    LINE_EDITS,     /* it goes on: draw it again */
    LINE_DONE,      /* Enter */
    LINE_GOES_ON,   /* Alt-Enter: another line belongs to it */
    LINE_BREAK,     /* Ctrl-C */
    LINE_END,       /* Ctrl-D where nothing is written, or the end of input */
    LINE_COMPLETES, /* Tab */
    LINE_SUSPENDS,  /* Ctrl-Z */
};

struct line_edit {
    struct buf text; /* valid UTF-8 */
    size_t cursor;   /* in bytes, at a character's border */
    const struct line_history *history;
    size_t shown;      /* which line of it; history->count: the one that is being written */
    struct buf draft;  /* that one, while another is shown */
    char sequence[16]; /* a key or a character that has not come whole */
    size_t sequence_len;
    bool pasting; /* between the marks of a paste: newlines belong to the text */
};

void line_edit_init(struct line_edit *e, const struct line_history *history); /* must outlive it */
void line_edit_fini(struct line_edit *e);
void line_edit_clear(struct line_edit *e);

/* One byte from the keyboard. Keys that mean nothing, and bytes that are no UTF-8, change nothing.
 */
enum line_event line_edit_byte(struct line_edit *e, unsigned char byte);

/* Text at the cursor: nothing where it would pass LINE_MAX_BYTES. */
void line_edit_insert(struct line_edit *e, const char *text, size_t len);

/* What Tab makes of a line that is the beginning of some of `words` (NULL ends them): the longest
 * beginning that these share is filled in. Where that adds nothing and there are several, *choices
 * gets what each could go on with. */
void line_edit_complete(struct line_edit *e, const char *const *words, struct buf *choices);

/* One row of `columns` cells: from its left border the prompt and as much of the text as shows the
 * cursor, which is left where it belongs. `prompt` is ASCII. */
void line_edit_draw(const struct line_edit *e, const char *prompt, int columns, struct buf *out);
/* The same with all of the text, however many rows it takes: what stays when it is done. */
void line_edit_draw_whole(const struct line_edit *e, const char *prompt, struct buf *out);

#endif
