/*
 * One HTTP request and its answer, as handlers see them. A handler either replies before it
 * returns, or takes the exchange on with exchange_wait or exchange_stream and ends it later. When
 * an exchange has ended, by a reply or because its client went away, its memory is gone. All on the
 * loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_EXCHANGE_H
#define WITAN_COORDINATOR_HTTP_EXCHANGE_H

#include "base/buf.h"
#include "coordinator/core.h"

struct conn;
struct dialect;
struct evhttp_request;

enum http_method { HTTP_GET, HTTP_POST };

struct exchange {
    struct core *core;
    struct conn *conn;
    struct evhttp_request *req;
    const char *route; /* the path of the table, for logs */
    const struct dialect *dialect;
    char *rest;               /* owned: what the path has in place of the route's "*", decoded */
    struct auth_caller caller;
    uint32_t scopes;          /* of the caller, enum auth_scope */
    const char *key;          /* its id */
    uint64_t tenant;          /* whose it is (auth.h) */
    char id[25];              /* random, hex */
    void (*gone)(void *user); /* the client went away; the exchange with it */
    void *user;
    bool streaming;
    int64_t last_sent_ns;
};

/* A path that ends in "/" and "*" takes all that begin so. */
struct http_route {
    enum http_method method;
    const char *path;
    uint32_t scope; /* that the key must have; 0: no key needed */
    void (*handle)(struct exchange *x);
    /* Of its answers and errors; NULL: Anthropic's for a request that has its header, else
     * OpenAI's. */
    const struct dialect *dialect;
};

/* The body, valid until the handler returns. */
void exchange_body(struct exchange *x, const char **data, size_t *len);

/* A header of the request, NULL when absent; ERR_INVALID: it is there twice. */
enum status exchange_request_header(struct exchange *x, const char *name, const char **value,
                                    struct error *err);

/* A header of the answer; before the reply or the stream. */
void exchange_header(struct exchange *x, const char *name, const char *value);
/* Retry-After of 4 to 6 s, for 503: clients that were cut off together do not come back together.
 */
void exchange_come_again(struct exchange *x);

/* --- answers: each ends the exchange --- */

void exchange_reply(struct exchange *x, int code, const char *content_type, const char *data,
                    size_t len);

/* An error in the shape of the route's API; the type follows from the code, `param` from the
 * message where it names a field. `word` is the shape's code, or NULL. */
void exchange_fail(struct exchange *x, int code, const char *word, const char *message);

/* The type that goes with an HTTP status: "invalid_request_error". */
const char *http_error_type(int code);

/* --- answers that take time --- */

/* The handler returns without a reply, which comes later; gone(user) if the client leaves first.
 * Not called for an exchange that ends by a reply. */
void exchange_wait(struct exchange *x, void (*gone)(void *user), void *user);

/* The same and begins a stream of events. */
void exchange_stream(struct exchange *x, void (*gone)(void *user), void *user);

/* Sends events. False: the client reads too slowly and was cut; `gone` has been called. */
bool exchange_send(struct exchange *x, const char *data, size_t len);

/* Ends the exchange of a stream. */
void exchange_end(struct exchange *x);

#endif
