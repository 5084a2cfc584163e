/*
 * An HTTP/1.1 response as its bytes come (RFC 9112), and server-sent events in its body (the HTML
 * standard, 9.2). Everything from outside has a limit. No I/O; one thread at a time.
 */
#ifndef WITAN_CLI_LOAD_RESPONSE_H
#define WITAN_CLI_LOAD_RESPONSE_H

#include "base/buf.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LOAD_MAX_LINE_BYTES = 16 << 10,
    LOAD_MAX_HEAD_BYTES = 64 << 10, /* all header lines, and all trailers */
    LOAD_MAX_EVENT_BYTES = 4 << 20,
};

struct load_response {
    int state;
    bool head_done; /* `status` and what follows are known */
    bool done;      /* the whole response is here */
    int status;
    bool keep_alive; /* the connection may serve another request */
    bool chunked, has_length;
    int64_t left; /* bytes of the body, or of the chunk */
    size_t head_bytes;
    double retry_after_s;  /* -1: it did not say, in seconds */
    char content_type[64]; /* lower case, without parameters */
    struct buf line;
};

void load_response_init(struct load_response *r);
void load_response_fini(struct load_response *r);
/* For the next response, keeping the memory. */
void load_response_reset(struct load_response *r);

/* Takes bytes from data until a piece of the body is at hand, the response is done or the bytes are
 * used up; *used tells how many. The piece points into `data`; its length may be 0. */
enum status load_response_feed(struct load_response *r, const char *data, size_t len, size_t *used,
                               const char **body, size_t *body_len, struct error *err);

/* The connection has ended: fine where a body without a length ends so; sets `done`. */
enum status load_response_end(struct load_response *r, struct error *err);

/* --- events --- */

struct load_sse {
    struct buf line, data;
    bool begun, after_cr, has_data;
};

void load_sse_init(struct load_sse *s);
void load_sse_fini(struct load_sse *s);
void load_sse_reset(struct load_sse *s);

/* Calls on_event with the data of each event that has become whole, NUL-terminated, valid in the
 * call alone; what it returns ends the feeding where it is not OK. ERR_LIMIT past the limits. */
enum status load_sse_feed(struct load_sse *s, const char *bytes, size_t len,
                          enum status (*on_event)(void *user, const char *data, size_t len,
                                                  struct error *err),
                          void *user, struct error *err);

#endif
