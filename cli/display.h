/*
 * An answer as it streams onto standard output: thinking dimmed on a terminal and left out
 * elsewhere, white space at the start of a part left out, for it says nothing. One thread at a
 * time.
 */
#ifndef WITAN_CLI_DISPLAY_H
#define WITAN_CLI_DISPLAY_H

#include "base/buf.h"

#include <stdbool.h>

struct display {
    struct buf whole; /* the answer without its thinking */
    bool terminal;
    bool thinking;
    bool begun; /* something has been shown of the part at hand */
};

void display_init(struct display *d, size_t limit_bytes);
void display_fini(struct display *d);

/* Which part the text from here on belongs to. */
void display_thinking(struct display *d, bool thinking);
void display_text(struct display *d, const char *text, size_t len);
/* Ends the line. */
void display_end(struct display *d);

#endif
