/*
 * Requests and answers: see http_exchange.h and http_private.h. An exchange belongs to its
 * connection (conn->x) from dispatch until its answer is given.
 */
#include "coordinator/http_private.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/dialect.h"
#include "coordinator/http_api.h"
#include "coordinator/jwt.h"
#include "coordinator/openai_request.h"

#include <ctype.h>
#include <event2/buffer.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

enum {
    MAX_ERROR_BYTES = 16 << 10,
    MAX_REQUEST_ID = 64,
    MAX_CREDENTIALS = JWT_MAX_BYTES + 64,
    UNAVAILABLE_S = 5,
};

static const char *phrase(int code)
{
    static const struct {
        int code;
        const char *words;
    } phrases[] = {
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {429, "Too Many Requests"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
    };
    for (size_t i = 0; i < COUNT_OF(phrases); i++)
        if (phrases[i].code == code)
            return phrases[i].words;
    return "Unknown";
}

const char *http_error_type(int code)
{
    switch (code) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return code >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* --- a request ---------------------------------------------------------------------------------
 */

static struct exchange *create(struct conn *c, struct evhttp_request *req)
{
    struct exchange *x = check_calloc(1, sizeof *x);
    unsigned char random[12];
    CHECK(getrandom(random, sizeof random, 0) == (ssize_t)sizeof random, "no random numbers");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(x->id + 2 * i, 3, "%02x", random[i]);
    x->core = c->http->core;
    x->conn = c;
    x->req = req;
    x->route = "-";
    /* Until a route has its own. */
    x->dialect = evhttp_find_header(evhttp_request_get_input_headers(req), "anthropic-version")
                     ? &dialect_anthropic
                     : &dialect_openai_chat;
    x->key = "-";
    c->x = x;
    return x;
}

static void destroy(struct exchange *x)
{
    x->conn->x = NULL;
    free(x->rest);
    free(x);
}

void exchange_lost(struct exchange *x)
{
    void (*gone)(void *user) = x->gone;
    void *user = x->user;
    /* evhttp lets go of a request whose client left before its answer ended. */
    if (!evhttp_request_get_connection(x->req))
        evhttp_request_free(x->req);
    destroy(x);
    if (gone)
        gone(user);
}

static bool all_of(const char *s, int (*is)(int c), const char *others)
{
    if (!*s)
        return false;
    for (; *s; s++)
        if (!is((unsigned char)*s) && !strchr(others, *s))
            return false;
    return true;
}

/* Of no other does evhttp read the body: it would be taken for the next request. */
enum {
    HAVE_BODY = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH |
                EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS
};

/* What two readers of one byte stream could understand differently is refused, and the connection
 * closed: RFC 9112, sections 5.1, 6.1 and 6.3. NULL when there is nothing. */
static const char *framing_fault(const struct evhttp_request *req)
{
    const struct evkeyval *h;
    int lengths = 0, encodings = 0;
    bool may_have_body = req->type & HAVE_BODY;
    TAILQ_FOREACH(h, req->input_headers, next)
    {
        if (!all_of(h->key, isalnum, "!#$%&'*+-.^_`|~"))
            return "a header's name has a character that none may have";
        if (strcasecmp(h->key, "content-length") == 0) {
            lengths++;
            if (!all_of(h->value, isdigit, ""))
                return "content-length: expected a number";
            if (!may_have_body && strcmp(h->value, "0") != 0)
                return "content-length: this method has no body";
        } else if (strcasecmp(h->key, "transfer-encoding") == 0) {
            encodings++;
            if (strcasecmp(h->value, "chunked") != 0 || !may_have_body)
                return "transfer-encoding: expected chunked";
        }
    }
    if (lengths + encodings > 1)
        return "content-length and transfer-encoding: expected one";
    return req->major == 1 && req->minor >= 0 ? NULL : "expected HTTP/1.1 or HTTP/1.0";
}

/* --- headers -----------------------------------------------------------------------------------
 */

enum status exchange_request_header(struct exchange *x, const char *name, const char **value,
                                    struct error *err)
{
    const struct evkeyval *h;
    *value = NULL;
    TAILQ_FOREACH(h, evhttp_request_get_input_headers(x->req), next)
    {
        if (strcasecmp(h->key, name) != 0)
            continue;
        if (*value)
            return error_set(err, ERR_INVALID, "%s: expected one, found two", name);
        *value = h->value;
    }
    return OK;
}

void exchange_header(struct exchange *x, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(x->req), name, value);
}

void exchange_come_again(struct exchange *x)
{
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", admission_spread_s(UNAVAILABLE_S, core_draw_seed()));
    exchange_header(x, "Retry-After", seconds);
}

static void close_after(struct exchange *x)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(x->req);
    evhttp_remove_header(headers, "Connection");
    evhttp_add_header(headers, "Connection", "close");
}

/* The client's own id for the request when it is fit to be one, else ours; and ours where the API
 * has a header for it. */
static void name_request(struct exchange *x)
{
    const char *theirs = evhttp_find_header(evhttp_request_get_input_headers(x->req),
                                            "x-request-id");
    bool fit = theirs && strlen(theirs) <= MAX_REQUEST_ID && all_of(theirs, isalnum, "._-");
    exchange_header(x, "x-request-id", fit ? theirs : x->id);
    if (x->dialect->request_id)
        exchange_header(x, x->dialect->request_id, x->id);
}

/* --- answers -----------------------------------------------------------------------------------
 */

void exchange_body(struct exchange *x, const char **data, size_t *len)
{
    struct evbuffer *body = evhttp_request_get_input_buffer(x->req);
    *len = evbuffer_get_length(body);
    *data = *len ? (const char *)evbuffer_pullup(body, -1) : "";
    CHECK(*data, "no memory for a body of %zu bytes", *len);
}

static void drop_body(struct exchange *x)
{
    struct evbuffer *body = evhttp_request_get_input_buffer(x->req);
    evbuffer_drain(body, evbuffer_get_length(body));
}

void exchange_reply(struct exchange *x, int code, const char *content_type, const char *data,
                    size_t len)
{
    struct conn *c = x->conn;
    struct evhttp_request *req = x->req;
    struct evbuffer *body = evbuffer_new();
    CHECK(body, "no memory for an answer");
    name_request(x);
    if (content_type)
        exchange_header(x, "Content-Type", content_type);
    if (evhttp_request_get_command(req) == EVHTTP_REQ_HEAD) {
        char words[24]; /* evhttp would send the body, and no length */
        snprintf(words, sizeof words, "%zu", len);
        exchange_header(x, "Content-Length", words);
    } else {
        CHECK(evbuffer_add(body, data, len) == 0, "no memory for an answer of %zu bytes", len);
    }
    if (c->http->stopping)
        close_after(x);
    metrics_http(&x->core->metrics, code);
    log_debug("http: %s %s: %d, key %s", x->id, x->route, code, x->key);
    destroy(x);
    evhttp_request_set_on_complete_cb(req, conn_answered, c);
    evhttp_send_reply(req, code, phrase(code), body);
    conn_guard(c);
    evbuffer_free(body);
}

void exchange_fail(struct exchange *x, int code, const char *word, const char *message)
{
    char param[OPENAI_PARAM_BYTES] = "";
    struct buf b;
    struct error ignored;
    if (code == 400 || code == 404)
        openai_error_param(message, param);
    struct openai_failure f = {message, http_error_type(code), param, word, code, x->id};
    buf_init(&b, MAX_ERROR_BYTES);
    enum status st = x->dialect->error(&b, &f, &ignored);
    if (st == OK)
        exchange_reply(x, code, "application/json", b.data, b.len);
    else
        exchange_reply(x, code, NULL, "", 0);
    buf_fini(&b);
}

/* --- answers that take time --------------------------------------------------------------------
 */

void exchange_wait(struct exchange *x, void (*gone)(void *user), void *user)
{
    drop_body(x);
    x->gone = gone;
    x->user = user;
}

void exchange_stream(struct exchange *x, void (*gone)(void *user), void *user)
{
    struct evhttp_request *req = x->req;
    exchange_wait(x, gone, user);
    x->streaming = true;
    x->last_sent_ns = clock_now_ns();
    name_request(x);
    exchange_header(x, "Content-Type", x->dialect->stream_type);
    exchange_header(x, "Cache-Control", "no-cache");
    exchange_header(x, "X-Accel-Buffering", "no");
    if (req->minor == 0) /* evhttp would promise a kept connection and a length of 0 */
        evhttp_remove_header(evhttp_request_get_input_headers(req), "Connection");
    if (req->minor == 0 || x->conn->http->stopping)
        close_after(x);
    metrics_http(&x->core->metrics, 200);
    log_debug("http: %s %s: streams, key %s", x->id, x->route, x->key);
    evhttp_send_reply_start(req, 200, "OK");
    conn_guard(x->conn);
}

/*
 * Writes one chunk to the socket at once. Through the event loop it would wait until all other
 * streams' chunks of the step have been made, and cost three more system calls. False: not now
 * (TLS, HTTP/1.0, something is still unsent, no room). What the socket does not take goes to the
 * event loop.
 */
static bool send_directly(struct exchange *x, const char *data, size_t len)
{
    struct conn *c = x->conn;
    struct evbuffer *unsent = bufferevent_get_output(c->bev);
    char size[20];
    int n = snprintf(size, sizeof size, "%zx\r\n", len);
    struct iovec parts[] = {{size, (size_t)n}, {(void *)(uintptr_t)data, len}, {"\r\n", 2}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = COUNT_OF(parts)};
    if (c->http->tls || !x->req->chunked || len == 0 || evbuffer_get_length(unsent) > 0)
        return false;
    ssize_t sent = sendmsg(bufferevent_getfd(c->bev), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        size_t gone = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
        sent -= (ssize_t)gone;
        CHECK(evbuffer_add(unsent, (char *)parts[i].iov_base + gone, parts[i].iov_len - gone) == 0,
              "no memory for a chunk");
    }
    x->last_sent_ns = clock_now_ns();
    return true;
}

static void send_chunk(struct exchange *x, const char *data, size_t len)
{
    if (send_directly(x, data, len))
        return;
    struct evbuffer *chunk = evbuffer_new();
    CHECK(chunk && evbuffer_add(chunk, data, len) == 0, "no memory for a chunk");
    evhttp_send_reply_chunk(x->req, chunk);
    conn_guard(x->conn);
    evbuffer_free(chunk);
    x->last_sent_ns = clock_now_ns();
}

bool exchange_send(struct exchange *x, const char *data, size_t len)
{
    struct conn *c = x->conn;
    /* Of what was told before: the client had no time yet to read the rest. */
    size_t unread = evbuffer_get_length(bufferevent_get_output(c->bev));
    send_chunk(x, data, len);
    if (unread <= HTTP_MAX_UNSENT_BYTES)
        return true;
    x->core->metrics.slow[METRICS_HTTP]++;
    log_info("http: %s: cut, its client left more than %d bytes unread", x->id,
             (int)HTTP_MAX_UNSENT_BYTES);
    conn_close(c);
    return false;
}

void exchange_comment(struct exchange *x, int64_t now_ns)
{
    const char *words = x->dialect->quiet;
    if (words && now_ns - x->last_sent_ns >= HTTP_COMMENT_S * (int64_t)1000000000)
        send_chunk(x, words, strlen(words));
}

void exchange_end(struct exchange *x)
{
    struct conn *c = x->conn;
    struct evhttp_request *req = x->req;
    bool chunked = req->minor > 0;
    evhttp_request_set_on_complete_cb(req, conn_answered, c);
    destroy(x);
    evhttp_send_reply_end(req); /* of HTTP/1.0: may close at once */
    if (chunked)
        conn_guard(c);
}

/* --- routing -----------------------------------------------------------------------------------
 */

/* A row for all paths that begin so and have none of their own. */
static bool is_pattern(const struct http_route *r)
{
    return r->path[strlen(r->path) - 1] == '*';
}

static bool matches(const struct http_route *r, const char *path)
{
    size_t len = strlen(r->path);
    if (is_pattern(r))
        return strncmp(path, r->path, len - 1) == 0 && path[len - 1];
    return strcmp(path, r->path) == 0;
}

/* NULL when none has path and method; `allow` then lists the methods of the path, "" for none. */
static const struct http_route *find(const char *path, enum evhttp_cmd_type method, char *allow,
                                     size_t allow_size)
{
    allow[0] = '\0';
    for (size_t i = 0; i < http_route_count; i++) {
        const struct http_route *r = &http_routes[i];
        bool get = r->method == HTTP_GET;
        if (!matches(r, path) || (*allow && is_pattern(r)))
            continue;
        if (get ? method == EVHTTP_REQ_GET || method == EVHTTP_REQ_HEAD : method == EVHTTP_REQ_POST)
            return r;
        snprintf(allow, allow_size, "%s, OPTIONS", get ? "GET, HEAD" : "POST");
    }
    return NULL;
}

static void no_route(struct exchange *x, const char *allow)
{
    if (!*allow) {
        exchange_fail(x, 404, "not_found", "no such URL: GET / lists what there is");
        return;
    }
    exchange_header(x, "Allow", allow);
    if (evhttp_request_get_command(x->req) == EVHTTP_REQ_OPTIONS) {
        exchange_reply(x, 204, NULL, "", 0);
        return;
    }
    char words[128];
    snprintf(words, sizeof words, "this URL takes %s", allow);
    exchange_fail(x, 405, "method_not_allowed", words);
}

/* Authorization, or what stands for it: Anthropic's clients send the key alone, as x-api-key. */
static const char *credentials(struct exchange *x, char out[MAX_CREDENTIALS])
{
    const struct evkeyvalq *headers = evhttp_request_get_input_headers(x->req);
    const char *header = evhttp_find_header(headers, "Authorization");
    const char *key = header ? NULL : evhttp_find_header(headers, "x-api-key");
    if (!key)
        return header;
    snprintf(out, MAX_CREDENTIALS, "Bearer %s",
             key); /* a cut one is refused: all that are good are shorter */
    return out;
}

/* False: answered with 401 or 403. */
static bool authorised(struct exchange *x, const struct http_route *r)
{
    struct error err;
    char words[160], header[MAX_CREDENTIALS];
    if (r->scope == 0)
        return true;
    if (identity_check(x->core->identity, credentials(x, header), time(NULL), &x->caller, &err) !=
        OK) {
        bool token = err.code == ERR_INVALID;
        exchange_header(x, "WWW-Authenticate",
                        token ? "Bearer realm=\"witan\", error=\"invalid_token\""
                              : "Bearer realm=\"witan\"");
        exchange_fail(x, 401, token ? "invalid_token" : "invalid_api_key", err.msg);
        return false;
    }
    x->scopes = x->caller.scopes;
    x->key = x->caller.id;
    x->tenant = x->caller.tenant;
    if ((x->scopes & r->scope) == r->scope)
        return true;
    snprintf(words, sizeof words, "this key lacks the scope %s",
             r->scope & AUTH_ADMIN ? "admin" : "generate");
    exchange_fail(x, 403, "insufficient_scope", words);
    return false;
}

static void route(struct exchange *x, const char *path)
{
    char allow[32];
    enum evhttp_cmd_type method = evhttp_request_get_command(x->req);
    const struct http_route *r = find(path, method, allow, sizeof allow);
    if (!r) {
        no_route(x, allow);
        return;
    }
    x->route = r->path;
    if (r->dialect)
        x->dialect = r->dialect;
    if (x->conn->http->stopping && strcmp(r->path, "/health/live") != 0) {
        exchange_come_again(x);
        exchange_fail(x, 503, "stopping", "the server is being stopped");
        return;
    }
    if (is_pattern(r)) {
        x->rest = evhttp_uridecode(path + strlen(r->path) - 1, 0, NULL);
        CHECK(x->rest, "no memory for a path");
    }
    if (authorised(x, r))
        r->handle(x);
}

void exchange_dispatch(struct evhttp_request *req, void *http)
{
    struct evhttp_connection *evcon = evhttp_request_get_connection(req);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    struct conn *c = conn_of(http, evcon);
    if (!c) { /* a bufferevent that conn_arrive did not make */
        evhttp_connection_free(evcon);
        return;
    }
    conn_begin_answer(c);
    struct exchange *x = create(c, req);
    const char *fault = framing_fault(req);
    if (req->major != 1 || req->minor < 0)
        req->major = req->minor = 1; /* what the answer is */
    if (fault) {
        close_after(x);
        exchange_fail(x, 400, "bad_framing", fault);
        return;
    }
    route(x, path && *path ? path : "/");
}
