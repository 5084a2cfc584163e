/*
 * What the terminal may be sent: whether colours and sequences are welcome there, and text from
 * elsewhere (a model, a server, a file) made fit for it. No state, any thread.
 */
#ifndef WITAN_CLI_TERMINAL_H
#define WITAN_CLI_TERMINAL_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdio.h>

/* A terminal that takes escape sequences: neither a pipe nor TERM=dumb. */
bool terminal_moves(int fd);
/* And whose user wants them in a text: NO_COLOR is not set. */
bool terminal_styles(int fd);

/* Its size in cells; 80 by 24 where it is not known. */
void terminal_size(int fd, int *columns, int *rows);

/* Cells of a character: 0, 1 or 2. */
int terminal_width(uint32_t code_point);

/* Appends text as a terminal may have it: newlines, tabs and what is printed. Other control
 * characters (C0, DEL, C1) and those that reorder text are spelt, "\x1b", "\u202e"; a carriage
 * return is left out; what is not UTF-8 becomes U+FFFD. */
enum status terminal_clean(struct buf *out, const char *text, size_t len, struct error *err);

/* Writes `before` as it is, `text` made so, and a newline. */
void terminal_say(FILE *f, const char *before, const char *text);

#endif
