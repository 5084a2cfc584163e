/*
 * Connections of the HTTP door: see http_private.h. Each lives from the callback that makes its
 * bufferevent until evhttp closes it, in one list and in a table by descriptor.
 */
#include "coordinator/http_private.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const int64_t LOOK_EVERY_NS = 1000000000; /* at what a client has taken */

static const char full[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                           "Retry-After: 1\r\nContent-Length: 0\r\n\r\n";

/* --- arriving ----------------------------------------------------------------------------------
 */

static struct bufferevent *make_bufferevent(struct http *h, struct event_base *base, bool *doomed)
{
    SSL *ssl = h->tls ? SSL_new(h->tls) : NULL;
    struct bufferevent *bev = NULL;
    if (ssl)
        bev = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE);
    if (h->tls && !bev) {
        /* evhttp would go on in plaintext: this one is closed before it reads a byte. */
        SSL_free(ssl);
        *doomed = true;
    }
    return bev ? bev : bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
}

struct bufferevent *conn_arrive(struct event_base *base, void *http)
{
    struct http *h = http;
    struct conn *c = check_calloc(1, sizeof *c);
    c->bev = make_bufferevent(h, base, &c->doomed);
    CHECK(c->bev, "no memory for a connection");
    c->http = h;
    c->fd = -1;
    c->next = h->arriving;
    h->arriving = c;
    h->count++;
    bufferevent_incref(c->bev); /* until it is met */
    event_active(h->meet, EV_TIMEOUT, 0);
    return c->bev;
}

static void list_remove(struct conn *c)
{
    if (c->prev)
        c->prev->next = c->next;
    else
        c->http->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
}

static void set_place(struct http *h, int fd, struct conn *c)
{
    if (fd >= h->fd_cap) {
        int cap = fd < 512 ? 1024 : 2 * fd;
        struct conn **places = check_calloc((size_t)cap, sizeof *places);
        if (h->by_fd)
            memcpy(places, h->by_fd, (size_t)h->fd_cap * sizeof *places);
        free(h->by_fd);
        h->by_fd = places;
        h->fd_cap = cap;
    }
    h->by_fd[fd] = c;
}

static void doom(struct conn *c)
{
    if (!c->doomed)
        event_active(c->http->tick, EV_TIMEOUT, 0);
    c->doomed = true;
}

static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *conn)
{
    struct conn *c = conn;
    struct http *h = c->http;
    if (info->n_added == 0)
        return;
    if (!c->began && !c->answering) {
        c->began = true;
        c->deadline_ns = clock_now_ns() + h->timeout_ns;
    }
    c->received += info->n_added;
    h->receiving += info->n_added;
    if (!c->answering &&
        (evbuffer_get_length(input) > h->input_limit || h->receiving > h->receiving_limit))
        doom(c);
}

/* evhttp frees the connection: the one place where all of them end. */
static void on_closed(struct evhttp_connection *evcon, void *conn)
{
    struct conn *c = conn;
    struct http *h = c->http;
    (void)evcon;
    if (c->x)
        exchange_lost(c->x);
    evbuffer_remove_cb(bufferevent_get_input(c->bev), on_input, c);
    evbuffer_remove_cb(bufferevent_get_output(c->bev), conn_on_output, c);
    if (h->tls)
        http_tls_goodbye(c->bev);
    h->by_fd[c->fd] = NULL;
    h->receiving -= c->received;
    h->active -= c->answering;
    h->core->metrics.connections = --h->count;
    list_remove(c);
    free(c);
}

static void set_watermark(struct conn *c)
{
    /* Over the limit of the input, so that on_input sees what passes it. */
    size_t high = c->answering ? HTTP_MAX_AHEAD_BYTES : 2 * c->http->input_limit;
    bufferevent_setwatermark(c->bev, EV_READ, 0, high);
}

static void adopt(struct conn *c, struct evhttp_connection *evcon)
{
    struct http *h = c->http;
    int one = 1;
    c->evcon = evcon;
    c->fd = (int)bufferevent_getfd(c->bev);
    c->prev = NULL;
    c->next = h->conns;
    if (h->conns)
        h->conns->prev = c;
    h->conns = c;
    set_place(h, c->fd, c);
    evhttp_connection_set_closecb(evcon, on_closed, c);
    evbuffer_add_cb(bufferevent_get_input(c->bev), on_input, c);
    evbuffer_add_cb(bufferevent_get_output(c->bev), conn_on_output, c);
    c->deadline_ns = clock_now_ns() + h->timeout_ns;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    set_watermark(c);
    h->core->metrics.connections = h->count;
    if (!c->doomed && h->count <= h->core->config->limits.connections)
        return;
    h->core->metrics.refused[METRICS_LIMIT_CONNECTIONS] += !c->doomed;
    if (!h->tls)
        send(c->fd, full, sizeof full - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    conn_close(c);
}

void conn_meet(evutil_socket_t fd, short what, void *http)
{
    struct http *h = http;
    (void)fd;
    (void)what;
    while (h->arriving) {
        struct conn *c = h->arriving;
        bufferevent_event_cb told = NULL;
        void *evcon = NULL;
        h->arriving = c->next;
        bufferevent_getcb(c->bev, NULL, NULL, &told, &evcon);
        if (told) { /* evhttp's callbacks carry its connection */
            bufferevent_decref(c->bev);
            adopt(c, evcon);
        } else { /* evhttp gave it up already */
            bufferevent_decref(c->bev);
            h->count--;
            free(c);
        }
    }
}

struct conn *conn_of(struct http *h, struct evhttp_connection *evcon)
{
    int fd = (int)bufferevent_getfd(evhttp_connection_get_bufferevent(evcon));
    struct conn *c = fd >= 0 && fd < h->fd_cap ? h->by_fd[fd] : NULL;
    return c && c->evcon == evcon ? c : NULL;
}

void conn_close(struct conn *c)
{
    evhttp_connection_free(c->evcon); /* calls on_closed */
}

/* --- from request to request -------------------------------------------------------------------
 */

static void forget_received(struct conn *c)
{
    c->http->receiving -= c->received;
    c->received = 0;
}

void conn_begin_answer(struct conn *c)
{
    bufferevent_event_cb on_event;
    void *arg;
    c->answering = true;
    c->taken_ns = clock_now_ns();
    c->http->active++;
    forget_received(c);
    /* evhttp stops reading here, and would not see the client leave; with its own callback it would
     * end the process at the first byte of the next request. */
    bufferevent_getcb(c->bev, NULL, NULL, &on_event, &arg);
    bufferevent_setcb(c->bev, NULL, NULL, on_event, arg);
    set_watermark(c);
    bufferevent_enable(c->bev, EV_READ);
}

/* evhttp's callback for output that was written: one function for all connections. */
static bufferevent_data_cb evhttp_wrote;

static void on_wrote(struct bufferevent *bev, void *evcon)
{
    if (evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        evhttp_wrote(bev, evcon);
}

void conn_guard(struct conn *c)
{
    bufferevent_data_cb wrote;
    bufferevent_event_cb on_event;
    void *evcon;
    bufferevent_getcb(c->bev, NULL, &wrote, &on_event, &evcon);
    if (wrote == on_wrote)
        return;
    evhttp_wrote = wrote;
    bufferevent_setcb(c->bev, NULL, on_wrote, on_event, evcon);
}

void conn_answered(struct evhttp_request *req, void *conn)
{
    struct conn *c = conn;
    (void)req;
    c->answering = false;
    c->http->active--;
    forget_received(c);
    c->began = evbuffer_get_length(bufferevent_get_input(c->bev)) > 0;
    c->deadline_ns = clock_now_ns() + (c->http->stopping ? 0 : c->http->timeout_ns);
    set_watermark(c);
}

static bool does_not_read(struct conn *c, int64_t now_ns)
{
    if (!c->answering || now_ns - c->looked_ns < LOOK_EVERY_NS)
        return false;
    c->looked_ns = now_ns;
    if (!conn_is_stuck(c, now_ns))
        return false;
    c->http->core->metrics.slow[METRICS_HTTP]++;
    log_info("http: a client that took nothing for %d s was cut (limits.read_timeout_s)",
             c->http->core->config->limits.read_timeout_s);
    return true;
}

/* What clients have not yet read of their answers, and what has come of their requests. */
static void weigh_all(struct http *h)
{
    size_t bytes = h->receiving;
    for (const struct conn *c = h->conns; c; c = c->next)
        bytes += evbuffer_get_length(bufferevent_get_output(c->bev));
    h->core->doors = (int64_t)bytes;
}

void conn_tick_all(struct http *h, int64_t now_ns)
{
    weigh_all(h);
    for (struct conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        if (c->doomed || (!c->answering && now_ns >= c->deadline_ns)) {
            if (c->doomed)
                log_warn("http: a connection sent more than is allowed and was closed");
            conn_close(c);
        } else if (does_not_read(c, now_ns)) {
            conn_close(c);
        } else if (c->x && c->x->streaming) {
            exchange_comment(c->x, now_ns);
        }
    }
}
