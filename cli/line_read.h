/*
 * Lines from a person: edited, with history and completion, where standard input and standard error
 * are a terminal that can, else as the terminal gives them. One of it in a process, one thread.
 */
#ifndef WITAN_CLI_LINE_READ_H
#define WITAN_CLI_LINE_READ_H

#include "cli/line_edit.h"

struct line_read {
    struct line_edit edit;
    const char *const *words; /* what Tab knows of, NULL ends them; the caller's */
    bool edits;               /* else the terminal does, line by line */
    bool marks_pastes;        /* the terminal is asked to */
    char *plain;              /* a line of getline's */
    size_t plain_cap;
};

void line_read_open(struct line_read *l, const struct line_history *history,
                    const char *const *words);
void line_read_close(struct line_read *l);

/* One line without its end: *line lives until the next call. LINE_DONE, LINE_GOES_ON, LINE_BREAK
 * (an interrupt, too) or LINE_END. The terminal is as it was before when this returns. */
enum line_event line_read_next(struct line_read *l, const char *prompt, const char **line);

/* For a signal's handler: the terminal as it was before, in the middle of a line too. */
void line_read_restore(void);

#endif
