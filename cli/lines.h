/* JSON lines in, JSON lines out: what the commands that answer a line with a line share. */
#ifndef WITAN_CLI_LINES_H
#define WITAN_CLI_LINES_H

#include "base/buf.h"
#include "base/error.h"

#include <jansson.h>

enum { LINES_MAX_BYTES = 64 << 20 };

/* Appends the answer to one line's object to `out`, without a newline. */
typedef enum status (*lines_answer)(void *state, const json_t *in, struct buf *out,
                                    struct error *err);

/* Answers standard input's lines on standard output, each flushed; an error, or a line that is not
 * an object or is over LINES_MAX_BYTES, becomes {"error": "line 3: ..."} in its place. Strings may
 * hold NUL characters. `command` names the program in messages. Returns the process's exit code: 1
 * when a line was an error. */
int lines_run(const char *command, lines_answer answer, void *state);

#endif
