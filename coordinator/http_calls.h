/*
 * The tool calls of one choice of an HTTP answer: named, and kept where there is no stream. On the
 * loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_CALLS_H
#define WITAN_COORDINATOR_HTTP_CALLS_H

#include "coordinator/calls.h"
#include "coordinator/openai_response.h"

enum { HTTP_CALL_ID_BYTES = 80 };

struct http_call {
    char id[HTTP_CALL_ID_BYTES];
    char name[CALLS_MAX_NAME + 1];
    struct buf arguments;
};

struct http_calls {
    struct http_call *all; /* [count], at most CALLS_MAX */
    int32_t count;
};

/* Zeroed is empty. */
void http_calls_fini(struct http_calls *c);
int64_t http_calls_bytes(const struct http_calls *c);

/* Keeps pieces of calls, and content in `content`. `answer`: its id without the API's word before;
 * `choice`: which of it. */
enum status http_calls_keep(struct http_calls *c, const char *answer, int32_t choice,
                            const struct told_piece *pieces, int32_t count, struct buf *content,
                            struct error *err);

/* What is kept, [c->count]; and pieces as they come, [count], which point into `pieces`. A call's
 * id is call_ANSWER_NUMBER: the same whenever the answer is computed again, and no other call's.
 * Both are released with free. */
struct openai_piece *http_calls_kept(const struct http_calls *c);
struct openai_piece *http_calls_named(const char *answer, int32_t choice,
                                      const struct told_piece *pieces, int32_t count);

#endif
