/*
 * What the headers Idempotency-Key and Last-Event-ID make of an HTTP answer: see resume.h. Only
 * dialects with positions tell places inside their streams; with the others a repeated key gives
 * the same answer again from its beginning. On the loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_RESUME_H
#define WITAN_COORDINATOR_HTTP_RESUME_H

#include "coordinator/http_exchange.h"
#include "coordinator/openai_request.h"
#include "coordinator/resume.h"

struct http_resume {
    struct resume_claim claim;
    struct resume_position position; /* of what is told */
    struct buf text;                 /* the position in words */
};

/* Is an answer to the very same request under way, by key, path and body? Then this one takes its
 * place, and needs no more room than there is. */
bool http_resume_replaces(struct exchange *x);

/*
 * Reads the headers of a request and claims its key; an older answer of the same request ends with
 * that. *out: NULL without a key, else released with http_resume_destroy; whoever takes it sets
 * claim.user for `taken` before the loop goes on. False: answered with an error.
 */
bool http_resume_create(struct exchange *x, const struct openai_request *r, int32_t choices,
                        void (*taken)(void *user, const struct error *why),
                        struct http_resume **out);
void http_resume_destroy(struct http_resume *r); /* NULL is fine */

/* The id of an event that tells all up to the position; until the next call. */
const char *http_resume_text(struct http_resume *r);

#endif
