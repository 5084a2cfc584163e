/* The HTTP server: its listener, its life, its clock. See http.h; state: struct http. */
#include "coordinator/http_private.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    BACKLOG = 4096,
    TICK_US = 250000,
    SPARE_FILES = 1024,      /* beside connections */
    BODIES_AT_ONCE = 64,     /* largest bodies that may be on their way together */
    INPUT_SLACK = 256 << 10, /* of one connection's input over body and headers */
    ACCEPT_PAUSE_MS = 100,   /* after an accept that failed for want of descriptors */
    COMPLAIN_EVERY_S = 10,
};

/* --- listening ---------------------------------------------------------------------------------
 */

/* The servers of this process. evhttp makes itself the argument of its listener's callbacks, so the
 * one for errors has to look for the door that it belongs to. Loop thread. */
static struct http *servers;

/* Without this an accept that fails for want of descriptors is tried again at once, for ever. */
static void on_accept_error(struct evconnlistener *listener, void *evhttp)
{
    struct http *h = servers;
    while (h && h->evhttp != evhttp)
        h = h->next_server;
    CHECK(h, "a listener without a server");
    int why = EVUTIL_SOCKET_ERROR();
    int64_t now = clock_now_ns();
    evconnlistener_disable(listener);
    h->accept_ns = now + ACCEPT_PAUSE_MS * 1000000LL;
    if (h->complained_ns == 0 || now - h->complained_ns > COMPLAIN_EVERY_S * 1000000000LL) {
        log_error("http: cannot accept connections: %s", strerror(why));
        h->complained_ns = now;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *http)
{
    struct http *h = http;
    int64_t now = clock_now_ns();
    (void)fd;
    (void)what;
    if (h->accept_ns != 0 && now >= h->accept_ns) {
        h->accept_ns = 0;
        evconnlistener_enable(h->listener);
    }
    conn_tick_all(h, now);
}

static void raise_file_limit(int connections)
{
    struct rlimit r;
    rlim_t wanted = (rlim_t)connections + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0 || r.rlim_cur >= wanted)
        return;
    r.rlim_cur = r.rlim_max == RLIM_INFINITY || r.rlim_max > wanted ? wanted : r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    if (r.rlim_cur < wanted)
        log_warn("http: %d connections are allowed, but only %llu open files", connections,
                 (unsigned long long)r.rlim_cur);
}

static enum status listen_on(struct http *h, const char *address, struct error *err)
{
    char host[256], service[16];
    int port;
    TRY(address_split(address, host, &port, err));
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    snprintf(service, sizeof service, "%d", port);
    int failed = getaddrinfo(*host ? host : NULL, service, &hints, &found);
    if (failed)
        return error_set(err, ERR_INVALID, "listen.http: %s: %s", address, gai_strerror(failed));
    h->listener = evconnlistener_new_bind(loop_base(h->core->loop), NULL, NULL,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC |
                                              LEV_OPT_REUSEABLE,
                                          BACKLOG, found->ai_addr, (int)found->ai_addrlen);
    int why = errno;
    freeaddrinfo(found);
    if (!h->listener)
        return error_errno(err, why, "listen.http: cannot listen on %s", address);
    CHECK(evhttp_bind_listener(h->evhttp, h->listener), "no memory to listen");
    evconnlistener_set_error_cb(h->listener, on_accept_error);
    return OK;
}

/* --- life --------------------------------------------------------------------------------------
 */

static void configure(struct http *h)
{
    size_t body = (size_t)h->core->config->limits.body_kb << 10;
    h->read_timeout_ns = h->core->config->limits.read_timeout_s * 1000000000LL;
    h->timeout_ns = h->core->config->limits.request_timeout_s * 1000000000LL;
    h->input_limit = body + HTTP_MAX_HEADERS_BYTES + INPUT_SLACK;
    h->receiving_limit = BODIES_AT_ONCE * h->input_limit;
    evhttp_set_max_body_size(h->evhttp, (ev_ssize_t)body);
    evhttp_set_max_headers_size(h->evhttp, HTTP_MAX_HEADERS_BYTES);
    evhttp_set_default_content_type(h->evhttp, NULL);
    evhttp_set_allowed_methods(h->evhttp, UINT16_MAX); /* all: the routes decide */
    /* A body that is too large is read to its end, or a client that sends it all before it reads
     * would see a reset instead of the 413. */
    evhttp_set_flags(h->evhttp, EVHTTP_SERVER_LINGERING_CLOSE);
    evhttp_set_bevcb(h->evhttp, conn_arrive, h);
    evhttp_set_gencb(h->evhttp, exchange_dispatch, h);
}

static enum status start(struct http *h, struct error *err)
{
    const struct config *config = h->core->config;
    struct event_base *base = loop_base(h->core->loop);
    struct timeval tick = {.tv_usec = TICK_US};
    if (config->listen.tls.cert)
        TRY(http_tls_create(&config->listen.tls, &h->tls, err));
    h->evhttp = evhttp_new(base);
    h->meet = event_new(base, -1, 0, conn_meet, h);
    h->reword = event_new(base, -1, 0, conn_reword, h);
    h->tick = event_new(base, -1, EV_PERSIST, on_tick, h);
    if (!h->evhttp || !h->meet || !h->reword || !h->tick || event_add(h->tick, &tick) != 0)
        return error_set(err, ERR_NO_MEMORY, "no memory for the HTTP door");
    configure(h);
    return listen_on(h, config->listen.http, err);
}

_Static_assert(offsetof(struct sockaddr_in6, sin6_port) == offsetof(struct sockaddr_in, sin_port),
               "http_port reads either");

enum status http_create(struct core *core, struct http **out, struct error *err)
{
    *out = NULL;
    if (!core->config->listen.http || strcmp(core->config->listen.http, "off") == 0)
        return OK;
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    raise_file_limit(core->config->limits.connections);
    struct http *h = check_calloc(1, sizeof *h);
    h->core = core;
    h->next_server = servers;
    servers = h;
    enum status st = start(h, err);
    if (st != OK) {
        http_destroy(h);
        return st;
    }
    log_info("http: listening on %s (port %d)%s", core->config->listen.http, http_port(h),
             h->tls ? ", TLS" : "");
    *out = h;
    return OK;
}

void http_stop(struct http *h)
{
    if (!h || h->stopping)
        return;
    h->stopping = true;
    for (struct conn *c = h->conns; c; c = c->next)
        if (!c->answering && !c->began)
            c->deadline_ns = 0; /* nothing is on its way */
}

int http_active(const struct http *h)
{
    return h ? h->active : 0;
}

int http_port(const struct http *h)
{
    struct sockaddr_in6 a = {0}; /* an IPv4 address has its port at the same place */
    socklen_t len = sizeof a;
    if (!h || getsockname(evconnlistener_get_fd(h->listener), (struct sockaddr *)&a, &len) != 0)
        return 0;
    return ntohs(a.sin6_port);
}

void http_destroy(struct http *h)
{
    if (!h)
        return;
    struct http **at = &servers;
    while (*at != h)
        at = &(*at)->next_server;
    *at = h->next_server;
    if (h->meet)
        conn_meet(-1, 0, h); /* so that every connection is one that its close is told of */
    if (h->evhttp)
        evhttp_free(h->evhttp); /* listener and connections too */
    if (h->meet)
        event_free(h->meet);
    if (h->reword)
        event_free(h->reword);
    if (h->tick)
        event_free(h->tick);
    SSL_CTX_free(h->tls);
    free(h->by_fd);
    free(h);
}
