/* One streamed answer of an OpenAI-compatible server, event by event. Plain memory, one thread. */
#ifndef WITAN_CLI_LOAD_ANSWER_H
#define WITAN_CLI_LOAD_ANSWER_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_answer {
    bool done;     /* "[DONE]" came */
    bool finished; /* a finish_reason came */
    bool usage;    /* the three below are the server's */
    int32_t prompt_tokens, output_tokens, cached_tokens;
    char failed[120]; /* the server's error in the stream; "": none */
};

/* Takes the data of one event. *tokens: it holds a piece of the answer (of text, reasoning or a
 * tool call); not one that only begins or ends it. ERR_INVALID for what is not such an event. */
enum status load_answer_event(struct load_answer *a, const char *data, size_t len, bool *tokens,
                              struct error *err);

/* The message of an error's body, as one line, for `out`; the body's beginning where there is none.
 */
void load_answer_error(const char *body, size_t len, char *out, size_t size);

#endif
