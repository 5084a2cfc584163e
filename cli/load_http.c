/* See load_http.h. State: struct load_http and its connections, the event base's thread's. */
#include "cli/load_http.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/load_answer.h"
#include "cli/load_response.h"
#include "cli/load_url.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    MAX_REQUEST_BYTES = 256 << 20,
    MAX_BODY_BYTES = 4 << 20, /* of an answer that is no stream; what is over is dropped */
    SPARE_DESCRIPTORS = 64,
};

/* A question of our own: load_http_models. */
struct probe {
    bool over;
    char kind[32], words[256]; /* why it failed; "": it did not */
    int status;
    struct buf body;
};

/* One connection. Idle, it has neither flight nor probe. */
struct conn {
    struct load_http *h;
    struct conn *next, *prev; /* all of them */
    struct bufferevent *bev;
    struct load_flight *flight;
    struct probe *probe;
    bool connected, kept, heard; /* kept: from an earlier request */
    int64_t now_ns;              /* when the bytes at hand were read */
    struct buf request;          /* until bytes come back */
    struct load_response response;
    struct load_sse sse;
    struct load_answer answer;
    struct buf body;
};

struct load_http {
    struct load_client client;
    struct load_http_options o;
    struct event_base *base;
    struct load_url url;
    int address; /* the one that answered */
    SSL_CTX *tls;
    struct conn *conns;
    struct conn **idle; /* [o.most] the newest last */
    int32_t idle_count;
    char words[300];
};

/* --- connections -------------------------------------------------------------------------------
 */

static void on_read(struct bufferevent *bev, void *conn);
static void on_event(struct bufferevent *bev, short what, void *conn);

static void leave_idle(struct conn *c)
{
    struct load_http *h = c->h;
    for (int32_t i = 0; i < h->idle_count; i++) {
        if (h->idle[i] != c)
            continue;
        memmove(&h->idle[i], &h->idle[i + 1],
                (size_t)(h->idle_count - i - 1) * sizeof(struct conn *));
        h->idle_count--;
        return;
    }
}

static void conn_close(struct conn *c)
{
    if (!c->flight && !c->probe)
        leave_idle(c);
    if (c->prev)
        c->prev->next = c->next;
    else
        c->h->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    if (c->bev)
        bufferevent_free(c->bev);
    ERR_clear_error();
    buf_fini(&c->request);
    buf_fini(&c->body);
    load_response_fini(&c->response);
    load_sse_fini(&c->sse);
    free(c);
}

static struct conn *conn_create(struct load_http *h)
{
    struct conn *c = check_calloc(1, sizeof *c);
    c->h = h;
    buf_init(&c->request, MAX_REQUEST_BYTES);
    buf_init(&c->body, MAX_BODY_BYTES);
    load_response_init(&c->response);
    load_sse_init(&c->sse);
    c->next = h->conns;
    if (h->conns)
        h->conns->prev = c;
    h->conns = c;
    return c;
}

/* The question at hand is over; its connection is closed or idle. */
static void tell_end(struct load_flight *f, struct probe *p)
{
    if (p)
        p->over = true;
    if (f) {
        f->call = NULL;
        load_flight_end(f);
    }
}

static void conn_fail(struct conn *c, const char *kind, const char *words)
{
    struct load_flight *f = c->flight;
    struct probe *p = c->probe;
    if (f) {
        load_flight_fail(f, kind, "%s", words);
        f->record.http_status = c->response.head_done ? c->response.status : 0;
    }
    if (p) {
        snprintf(p->kind, sizeof p->kind, "%s", kind);
        snprintf(p->words, sizeof p->words, "%s", words);
    }
    conn_close(c);
    tell_end(f, p);
}

/* A connection on its way; -1 with errno where it fails at once, which libevent would forget. */
static int dial(const struct load_http *h)
{
    const struct sockaddr *to = (const struct sockaddr *)&h->url.addresses[h->address];
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, to, h->url.lengths[h->address]) == 0 || errno == EINPROGRESS)
        return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

static struct bufferevent *wrap(const struct load_http *h, int fd)
{
    if (!h->tls)
        return bufferevent_socket_new(h->base, fd, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = load_tls_begin(h->tls, &h->url);
    struct bufferevent *bev = ssl ? bufferevent_openssl_socket_new(h->base, fd, ssl,
                                                                   BUFFEREVENT_SSL_CONNECTING,
                                                                   BEV_OPT_CLOSE_ON_FREE)
                                  : NULL;
    if (bev) /* the response itself tells whether it is whole */
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    return bev;
}

/* False with errno. */
static bool conn_open(struct conn *c)
{
    int fd = dial(c->h);
    if (fd < 0)
        return false;
    c->bev = wrap(c->h, fd);
    CHECK(c->bev, "no memory for a connection");
    bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    return bufferevent_socket_connect(c->bev, NULL, 0) == 0;
}

/* Sends c->request, over a connection that is made first where there is none. */
static void conn_send(struct conn *c)
{
    if (!c->bev && !conn_open(c)) {
        char words[128];
        snprintf(words, sizeof words, "%.80s: %.40s", c->h->url.authority, strerror(errno));
        conn_fail(c, LOAD_UNREACHABLE, words);
        return;
    }
    if (bufferevent_write(c->bev, c->request.data, c->request.len) != 0)
        conn_fail(c, LOAD_LOST, "no memory to send a request");
}

/* A connection that was kept has ended as the request went out: the server had closed it before,
 * and sees the request for the first time on a new one. */
static void send_again(struct conn *old)
{
    struct conn *c = conn_create(old->h);
    struct buf request = c->request;
    c->request = old->request;
    old->request = request;
    c->flight = old->flight;
    c->probe = old->probe;
    if (c->flight)
        c->flight->call = c;
    conn_close(old); /* while it still counts as one at work */
    conn_send(c);
}

/* --- answers -----------------------------------------------------------------------------------
 */

static enum status on_sse(void *conn, const char *data, size_t len, struct error *err)
{
    struct conn *c = conn;
    bool tokens;
    TRY(load_answer_event(&c->answer, data, len, &tokens, err));
    if (tokens)
        load_flight_chunk(c->flight, c->now_ns);
    return OK;
}

static bool is_stream(const struct conn *c)
{
    return c->flight && c->response.status == 200 &&
           strcmp(c->response.content_type, "text/event-stream") == 0;
}

static enum status take_body(struct conn *c, const char *body, size_t len, struct error *err)
{
    if (is_stream(c))
        return load_sse_feed(&c->sse, body, len, on_sse, c, err);
    size_t room = c->body.limit - c->body.len;
    return buf_append(&c->body, body, len < room ? len : room, err);
}

static void judge_stream(struct conn *c)
{
    struct load_flight *f = c->flight;
    const struct load_answer *a = &c->answer;
    struct load_record *r = &f->record;
    if (a->usage) {
        r->usage = true;
        r->prompt_tokens = a->prompt_tokens;
        r->output_tokens = a->output_tokens;
        r->cached_tokens = a->cached_tokens;
        if (r->chunks == 0 && a->output_tokens > 0)
            load_flight_chunk(f, c->now_ns); /* tokens without a text */
    }
    if (*a->failed)
        load_flight_fail(f, LOAD_FAILED, "%s", a->failed);
    else if (!a->done && !a->finished)
        load_flight_fail(f, LOAD_LOST, "the stream ended before the answer did");
}

static void judge(struct conn *c)
{
    struct load_flight *f = c->flight;
    int status = c->response.status;
    char words[120];
    f->record.http_status = status;
    f->retry_after_s = c->response.retry_after_s;
    if (is_stream(c)) {
        judge_stream(c);
    } else if (status == 200) {
        load_flight_fail(f, LOAD_MALFORMED, "Content-Type: expected text/event-stream, found %s",
                         *c->response.content_type ? c->response.content_type : "none");
    } else {
        char kind[24];
        snprintf(kind, sizeof kind, "%s %d",
                 status == 429 || status == 503 ? LOAD_REFUSED : LOAD_ANSWERED, status);
        load_answer_error(c->body.data ? c->body.data : "", c->body.len, words, sizeof words);
        load_flight_fail(f, kind, "%s", words);
    }
}

static void conn_done(struct conn *c, bool may_keep)
{
    struct load_http *h = c->h;
    struct load_flight *f = c->flight;
    struct probe *p = c->probe;
    if (f)
        judge(c);
    if (p) {
        p->status = c->response.status;
        struct buf body = p->body;
        p->body = c->body;
        c->body = body;
    }
    if (may_keep && c->response.keep_alive && h->idle_count < h->o.most) {
        c->flight = NULL;
        c->probe = NULL;
        h->idle[h->idle_count++] = c;
    } else {
        conn_close(c);
    }
    tell_end(f, p);
}

static void on_read(struct bufferevent *bev, void *conn)
{
    struct conn *c = conn;
    struct error err;
    struct evbuffer *in = bufferevent_get_input(bev);
    c->now_ns = clock_now_ns();
    if (!c->flight && !c->probe) {
        conn_close(c); /* bytes that nobody has asked for */
        return;
    }
    if (!c->heard)
        buf_clear(&c->request);
    c->heard = true;
    size_t len = evbuffer_get_length(in);
    const char *data = (const char *)evbuffer_pullup(in, -1);
    for (size_t at = 0, used; at < len && !c->response.done; at += used) {
        const char *body;
        size_t body_len;
        enum status st = load_response_feed(&c->response, data + at, len - at, &used, &body,
                                            &body_len, &err);
        if (st == OK && body_len > 0)
            st = take_body(c, body, body_len, &err);
        if (st != OK) {
            conn_fail(c, LOAD_MALFORMED, err.msg);
            return;
        }
    }
    evbuffer_drain(in, len);
    if (c->response.done)
        conn_done(c, true);
}

/* What ended a connection. */
static void say_why(const struct conn *c, short what, char *words, size_t size)
{
    int e = EVUTIL_SOCKET_ERROR();
    unsigned long code = c->h->tls ? bufferevent_get_openssl_error(c->bev) : 0;
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    long verdict = X509_V_OK;
    if (c->h->tls && !c->h->o.insecure)
        verdict = SSL_get_verify_result(bufferevent_openssl_get_ssl(c->bev));
    if (verdict != X509_V_OK)
        snprintf(words, size, "%.100s: TLS: %s", c->h->url.authority,
                 X509_verify_cert_error_string(verdict));
    else if (reason)
        snprintf(words, size, "%.100s: TLS: %s", c->h->url.authority, reason);
    else if (what & BEV_EVENT_ERROR)
        snprintf(words, size, "%.100s: %s", c->h->url.authority,
                 e ? evutil_socket_error_to_string(e) : "the connection broke");
    else
        snprintf(words, size, "%.100s: the server closed the connection", c->h->url.authority);
}

static void conn_over(struct conn *c, short what)
{
    struct error err;
    char words[200];
    say_why(c, what, words, sizeof words);
    if (!c->flight && !c->probe) {
        conn_close(c);
    } else if (!c->connected) {
        conn_fail(c, LOAD_UNREACHABLE, words);
    } else if (!c->heard && c->kept) {
        send_again(c);
    } else if ((what & BEV_EVENT_EOF) && load_response_end(&c->response, &err) == OK) {
        conn_done(c, false);
    } else {
        snprintf(words + strlen(words), sizeof words - strlen(words), " %s",
                 c->response.head_done ? "in the middle of the answer" : "before an answer");
        conn_fail(c, LOAD_LOST, words);
    }
}

static void on_event(struct bufferevent *bev, short what, void *conn)
{
    struct conn *c = conn;
    if (what & BEV_EVENT_CONNECTED) {
        int on = 1;
        c->connected = true;
        setsockopt(bufferevent_getfd(bev), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return;
    }
    conn_over(c, what);
}

/* --- requests ----------------------------------------------------------------------------------
 */

static struct conn *take_conn(struct load_http *h)
{
    if (h->idle_count == 0)
        return conn_create(h);
    struct conn *c = h->idle[--h->idle_count];
    c->kept = true;
    c->heard = false;
    buf_clear(&c->request);
    buf_clear(&c->body);
    load_response_reset(&c->response);
    load_sse_reset(&c->sse);
    c->answer = (struct load_answer){0};
    return c;
}

static enum status write_head(struct conn *c, const char *method, const char *path, size_t len,
                              struct error *err)
{
    const struct load_http *h = c->h;
    TRY(buf_printf(&c->request, err, "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: witan-bench\r\n",
                   method, h->url.path, path, h->url.authority));
    if (h->o.authorization)
        TRY(buf_printf(&c->request, err, "Authorization: %s\r\n", h->o.authorization));
    if (len > 0)
        TRY(buf_printf(&c->request, err,
                       "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n",
                       len));
    return buf_puts(&c->request, "\r\n", err);
}

static const char *path_of(const struct load_http_options *o)
{
    return o->chat ? "/v1/chat/completions" : "/v1/completions";
}

static void start(struct load_client *client, struct load_flight *f, const struct load_request *r)
{
    struct load_http *h = (struct load_http *)client;
    struct conn *c = take_conn(h);
    struct error err;
    struct buf body;
    buf_init(&body, MAX_REQUEST_BYTES);
    c->flight = f;
    f->call = c;
    enum status st = load_http_body(&h->o, r, &body, &err);
    if (st == OK)
        st = write_head(c, "POST", path_of(&h->o), body.len, &err);
    if (st == OK)
        st = buf_append(&c->request, body.data, body.len, &err);
    buf_fini(&body);
    if (st == OK)
        conn_send(c);
    else
        conn_fail(c, LOAD_MALFORMED, err.msg);
}

static void cancel(struct load_client *client, struct load_flight *f, const char *kind,
                   const char *words)
{
    (void)client;
    if (f->call)
        conn_fail(f->call, kind, words);
}

/* --- the models --------------------------------------------------------------------------------
 */

static void give_up(evutil_socket_t fd, short what, void *conn)
{
    (void)fd, (void)what;
    conn_fail(conn, LOAD_TIMEOUT, "no answer to GET /v1/models");
}

static enum status ask(struct load_http *h, const char *path, struct probe *p, struct error *err)
{
    struct conn *c = take_conn(h);
    struct timeval wait = {.tv_sec = h->o.timeout_ms / 1000,
                           .tv_usec = h->o.timeout_ms % 1000 * 1000};
    c->probe = p;
    TRY(write_head(c, "GET", path, 0, err));
    struct event *timer = evtimer_new(h->base, give_up, c);
    CHECK(timer, "no memory for a timer");
    evtimer_add(timer, &wait);
    conn_send(c);
    while (!p->over)
        event_base_loop(h->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY);
    event_free(timer);
    return OK;
}

/* Asks each of the host's addresses in turn, and stays with the first that answers. */
static enum status ask_any(struct load_http *h, struct probe *p, struct error *err)
{
    for (h->address = 0; h->address < h->url.address_count; h->address++) {
        p->over = false;
        *p->kind = '\0';
        TRY(ask(h, "/v1/models", p, err));
        if (strcmp(p->kind, LOAD_UNREACHABLE) != 0)
            break;
    }
    if (h->address == h->url.address_count)
        h->address = 0;
    return *p->kind
               ? error_set(err, ERR_PEER, "%s: %s: is the server running there?", p->kind, p->words)
               : OK;
}

enum status load_http_models(struct load_http *h, char *name, size_t size, struct error *err)
{
    struct probe p = {0};
    json_t *o = NULL;
    buf_init(&p.body, MAX_BODY_BYTES);
    *name = '\0';
    enum status st = ask_any(h, &p, err);
    if (st == OK && p.status == 401)
        st = error_set(err, ERR_INVALID,
                       "%s: GET /v1/models: 401: --key-file or WITAN_API_KEY gives a key",
                       h->url.authority);
    if (st == OK && p.status == 200 &&
        json_parse("models", p.body.data, p.body.len, &o, NULL) == OK) {
        const json_t *first = json_array_get(json_object_get(o, "data"), 0);
        const char *id = json_string_value(json_object_get(first, "id"));
        snprintf(name, size, "%s", id ? id : "");
    }
    json_decref(o);
    buf_fini(&p.body);
    return st;
}

/* --- life --------------------------------------------------------------------------------------
 */

static enum status make_room(int32_t most, struct error *err)
{
    struct rlimit limit;
    rlim_t need = (rlim_t)most + SPARE_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
        return OK;
    limit.rlim_cur = limit.rlim_max < need ? limit.rlim_max : need;
    if (limit.rlim_cur == need && setrlimit(RLIMIT_NOFILE, &limit) == 0)
        return OK;
    return error_set(err, ERR_LIMIT,
                     "%d requests at once need %" PRIu64 " open files, and the limit is %" PRIu64
                     ": raise it (ulimit -Hn) or ask for fewer at once",
                     (int)most, (uint64_t)need, (uint64_t)limit.rlim_max);
}

enum status load_http_create(struct event_base *base, const struct load_http_options *o,
                             struct load_http **out, struct error *err)
{
    struct load_http *h = check_calloc(1, sizeof *h);
    h->client = (struct load_client){.start = start, .cancel = cancel, .most = o->most};
    h->o = *o;
    h->base = base;
    h->idle = check_calloc((size_t)o->most, sizeof *h->idle);
    enum status st = load_url_parse(o->url, &h->url, err);
    if (st == OK)
        st = load_url_resolve(&h->url, err);
    if (st == OK && h->url.tls)
        st = load_tls_create(o->ca, o->insecure, &h->tls, err);
    if (st == OK)
        st = make_room(o->most, err);
    if (st != OK) {
        load_http_destroy(h);
        return st;
    }
    snprintf(h->words, sizeof h->words, "%s://%.100s%.100s%s", h->url.tls ? "https" : "http",
             h->url.authority, h->url.path, path_of(&h->o));
    *out = h;
    return OK;
}

void load_http_destroy(struct load_http *h)
{
    if (!h)
        return;
    for (struct conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        conn_close(c);
    }
    SSL_CTX_free(h->tls);
    free(h->idle);
    free(h);
}

struct load_client *load_http_client(struct load_http *h)
{
    return &h->client;
}

const char *load_http_words(const struct load_http *h)
{
    return h->words;
}
