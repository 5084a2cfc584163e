/*
 * Lines that were written before, for whoever edits the next: in memory, and in a file where the
 * user asks for one. One thread.
 */
#ifndef WITAN_CLI_LINE_HISTORY_H
#define WITAN_CLI_LINE_HISTORY_H

#include "base/buf.h"

#include <stdbool.h>

enum { LINE_HISTORY = 1000, LINE_MAX_BYTES = 1 << 20 };

struct line_history {
    char *lines[LINE_HISTORY]; /* oldest first; owned */
    size_t count;
};

/* Leaves out an empty line and one like the last, and is false then; of too many the oldest is
 * dropped. */
bool line_history_add(struct line_history *h, const char *line);
void line_history_fini(struct line_history *h);

/* Adds what a file holds: a JSON string a line. One that is absent is made, for its owner alone;
 * one that others may read is refused, and one that is no history: of several lines more than half
 * are no such string. Fewer are left out, and *skipped says how many. One that has grown long is
 * cut to what is kept in memory, and to 32 MiB. */
enum status line_history_read(struct line_history *h, const char *path, size_t *skipped,
                              struct error *err);
/* Appends one line to the file, or nothing: a line over LINE_MAX_BYTES or that is no UTF-8 is left
 * out, ERR_LIMIT where the file would pass 64 MiB, ERR_IO where not all of it could be written. */
enum status line_history_append(const char *path, const char *line, struct error *err);

#endif
