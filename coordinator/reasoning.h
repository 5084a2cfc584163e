/*
 * Tells a model's reasoning from its answer while the text streams. Reasoning stands between
 * <think> and the first </think>; whether the text starts inside is known from the prompt. Newlines
 * next to the tags belong to neither part (the chat templates write them back). One thread.
 */
#ifndef WITAN_COORDINATOR_REASONING_H
#define WITAN_COORDINATOR_REASONING_H

#include "base/buf.h"

#include <stdbool.h>

enum reasoning_state {
    REASONING_START,  /* nothing but white space so far: <think> may come */
    REASONING_OPENED, /* behind <think>: newlines are dropped */
    REASONING_INSIDE,
    REASONING_CLOSED, /* behind </think>: newlines are dropped */
    REASONING_ANSWER,
};

struct reasoning {
    enum reasoning_state state;
    struct buf held; /* what may yet be a tag, or newlines before one */
};

void reasoning_init(struct reasoning *r, bool inside);
void reasoning_fini(struct reasoning *r);

/* Takes text in; appends what is certain to one or both. */
enum status reasoning_push(struct reasoning *r, const char *text, size_t len, struct buf *reasoning,
                           struct buf *answer, struct error *err);

/* The stream has ended: what was held is text of the part that it stood in. */
enum status reasoning_flush(struct reasoning *r, struct buf *reasoning, struct buf *answer,
                            struct error *err);

#endif
