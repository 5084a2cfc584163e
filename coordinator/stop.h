/*
 * Stop strings over a stream of text: what comes in goes out as soon as it cannot be the beginning
 * of a stop string any more; at the first stop string that appears the text ends before it. One
 * thread.
 */
#ifndef WITAN_COORDINATOR_STOP_H
#define WITAN_COORDINATOR_STOP_H

#include "base/buf.h"

#include <stdbool.h>

enum { STOP_MAX_COUNT = 16, STOP_MAX_BYTES = 1024 };

struct stop {
    char *strings[STOP_MAX_COUNT]; /* owned */
    size_t lengths[STOP_MAX_COUNT];
    int count;
    struct buf held;   /* text that may yet be part of a stop string */
    const char *found; /* the one that appeared, of `strings`; NULL: none has */
};

/* ERR_INVALID for an empty or too long string, or too many; `out` is then empty. */
enum status stop_init(struct stop *s, const char *const *strings, int count, struct error *err);
void stop_fini(struct stop *s);

/* Takes text in and appends to `out` what is certain. *found: a stop string appeared; what came
 * after it is dropped. Without strings it passes everything through. */
enum status stop_push(struct stop *s, const char *text, size_t len, struct buf *out, bool *found,
                      struct error *err);

/* The stream has ended: appends what was held. */
enum status stop_flush(struct stop *s, struct buf *out, struct error *err);

#endif
