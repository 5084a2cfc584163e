/*
 * An answer as it streams onto standard output: on a terminal with its thinking, dimmed or between
 * words that tell it, and without control characters; elsewhere the answer alone, as it is. White
 * space at the start of a part is left out, for it says nothing. One thread at a time.
 */
#ifndef WITAN_CLI_DISPLAY_H
#define WITAN_CLI_DISPLAY_H

#include "base/buf.h"

#include <stdbool.h>

struct display {
    struct buf whole; /* the answer without its thinking */
    bool terminal;
    bool styled; /* the terminal takes escape sequences, and its user wants them */
    bool thinking;
    bool begun; /* something has been shown of the part at hand */
};

void display_init(struct display *d, size_t limit_bytes);
void display_fini(struct display *d);

/* Which part the text from here on belongs to. */
void display_thinking(struct display *d, bool thinking);
/* Whole characters. */
void display_text(struct display *d, const char *text, size_t len);
/* Ends the line. */
void display_end(struct display *d);

/* For a signal's handler: a terminal that is left dimmed by a thought is so no longer. */
void display_undim(void);

#endif
