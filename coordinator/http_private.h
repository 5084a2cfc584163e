/*
 * Inside the HTTP door: the server (http.c), its connections (http_conn.c), its exchanges
 * (http_exchange.c), what evhttp refuses (http_refused.c) and TLS (http_tls.c).
 *
 * What evhttp 2.1.12 does not do is done here. It tells nobody of a connection before its first
 * request, so connections are met in the callback that makes their bufferevents. Its timeouts count
 * from the last byte and cut quiet streams, so none of them is used and a tick looks after
 * deadlines. It does not see a client leave before the answer begins, and ends the process when
 * such a client sends more, so reading is taken from it for that time. A chunk's length may be a
 * line without an end, so the input has a limit of its own. Over TLS it may take an earlier write
 * for the end of an answer, so its callback for writing is guarded.
 */
#ifndef WITAN_COORDINATOR_HTTP_PRIVATE_H
#define WITAN_COORDINATOR_HTTP_PRIVATE_H

#include "coordinator/http.h"
#include "coordinator/http_exchange.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <openssl/ssl.h>

struct conn {
    struct http *http;
    struct conn *prev, *next;        /* of http->conns, or `next` of http->arriving */
    struct evhttp_connection *evcon; /* NULL while arriving */
    struct bufferevent *bev;
    int fd;
    int64_t deadline_ns; /* for the whole next request */
    size_t received;     /* bytes of the request that is being received */
    uint64_t acked;      /* bytes that the client's kernel has acknowledged, when last looked at */
    int64_t taken_ns;    /* when it last took all, or some; while answering */
    int64_t looked_ns;
    bool began;         /* its first byte is here */
    bool doomed;        /* closed at the next tick or before */
    bool answering;     /* from dispatch until the answer is sent */
    bool refused;       /* evhttp has said something by itself, to be said again */
    struct exchange *x; /* from dispatch until the answer is given */
};

struct http {
    struct http *next_server; /* of http.c's list */
    struct core *core;
    struct evhttp *evhttp;
    struct evconnlistener *listener; /* evhttp's */
    SSL_CTX *tls;                    /* NULL: plaintext */
    struct event *meet;              /* adopts what arrived */
    struct event *tick;
    struct event *reword; /* of what evhttp has said by itself */
    struct conn *conns, *arriving;
    struct conn **by_fd; /* [fd_cap] */
    int fd_cap;
    int count;  /* of conns and arriving */
    int active; /* conns that are answering */
    bool stopping;
    size_t receiving; /* sum of conns' `received` */
    size_t input_limit, receiving_limit;
    int64_t timeout_ns;      /* to receive a request */
    int64_t read_timeout_ns; /* for a client to take something of what it is sent */
    int64_t accept_ns;       /* when to accept again after a failure; 0: accepting */
    int64_t complained_ns;   /* of failing accepts */
};

/* --- http_conn.c --- */

/* evhttp's callback for a new connection's bufferevent. */
struct bufferevent *conn_arrive(struct event_base *base, void *http);
/* Event callback: takes charge of the connections that arrived. */
void conn_meet(evutil_socket_t fd, short what, void *http);
/* The connection of a request; NULL for none of ours. */
struct conn *conn_of(struct http *h, struct evhttp_connection *evcon);
/* The request is whole: the time for it no longer runs, and evhttp reads no more. */
void conn_begin_answer(struct conn *c);
/* After every call that makes evhttp send. Over TLS a bufferevent tells of written output later,
 * and evhttp would take what was written before for the end of the answer, and cut it. */
void conn_guard(struct conn *c);
/* evhttp's callback when an answer is sent: the next request may come. */
void conn_answered(struct evhttp_request *req, void *conn);
/* Closes; its exchange is told. */
void conn_close(struct conn *c);
/* Deadlines, doomed connections, quiet streams. */
void conn_tick_all(struct http *h, int64_t now_ns);

/* --- http_refused.c --- */

/* evbuffer's callback of a connection's output. */
void conn_on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *conn);
/* Event callback: what evhttp refused by itself since the last time is said in JSON. */
void conn_reword(evutil_socket_t fd, short what, void *http);

/* --- http_stuck.c --- */

/* Has the client taken nothing, though something waits for it, for read_timeout_ns? To be asked
 * again and again while an answer is under way. */
bool conn_is_stuck(struct conn *c, int64_t now_ns);

/* --- http_exchange.c --- */

/* evhttp's callback for every request. */
void exchange_dispatch(struct evhttp_request *req, void *http);
/* The connection closes under it. */
void exchange_lost(struct exchange *x);
/* Says that the stream lives when it was quiet for HTTP_COMMENT_S. */
void exchange_comment(struct exchange *x, int64_t now_ns);

/* --- http_tls.c --- */

enum status http_tls_create(const struct config_tls *config, SSL_CTX **out, struct error *err);
/* Says goodbye before the connection is freed, without waiting. */
void http_tls_goodbye(struct bufferevent *bev);

#endif
