/*
 * The HTTP door: the OpenAI-compatible API over HTTP/1.1 with server-sent events, on libevent's
 * evhttp. Everything here belongs to the loop thread.
 *
 * Everything that a client can make grow has a bound: connections, headers, bodies, the time to
 * send a request, bodies that are on their way at once, unread output, requests sent ahead.
 */
#ifndef WITAN_COORDINATOR_HTTP_H
#define WITAN_COORDINATOR_HTTP_H

#include "coordinator/core.h"

struct http;

enum {
    HTTP_MAX_HEADERS_BYTES = 64 << 10,
    HTTP_MAX_UNSENT_BYTES = 1 << 20, /* of one stream; over it the reader is too slow: cut */
    HTTP_MAX_AHEAD_BYTES = 64 << 10, /* kept of what a client sends while it is answered */
    HTTP_COMMENT_S = 15,             /* a quiet stream says that it lives */
};

/* Listens on config->listen.http, with TLS when listen.tls says so. *out is NULL, with OK, for
 * "off"; all functions take that. Raises the limit of open files and ignores SIGPIPE. */
enum status http_create(struct core *core, struct http **out, struct error *err);

/* New requests get 503 and a closed connection from here on; answers under way go on. */
void http_stop(struct http *h);

/* Requests being answered, the unsent rest of an answer included. */
int http_active(const struct http *h);

/* Cuts what is open and cancels its generations. */
void http_destroy(struct http *h);

/* The port listened on, for "host:0". 0 when off. */
int http_port(const struct http *h);

#endif
