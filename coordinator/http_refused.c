/*
 * What evhttp refuses by itself, before there is an exchange (a body over the limit, bytes that are
 * no request), it answers with a page of HTML. Clients of an API read JSON: such an answer is taken
 * out of the connection's output, where it lies whole until the event loop next writes, and said
 * again. It has the shape of OpenAI's errors and of Anthropic's at once, since the request and its
 * path are gone by then. See http_private.h; no state but a connection's.
 */
#include "coordinator/http_private.h"
#include "base/check.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATUS_BYTES = 20 }; /* at least "HTTP/1.1 413" */

void conn_on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *conn)
{
    struct conn *c = conn;
    (void)output;
    if (info->n_added == 0 || c->answering || c->refused)
        return;
    c->refused = true;
    event_active(c->http->reword, EV_TIMEOUT, 0);
}

/* The front of a socket's output is frozen but while it is written; TLS freezes nothing. */
static void take_out(struct evbuffer *output, size_t len)
{
    if (evbuffer_drain(output, len) == 0)
        return;
    evbuffer_unfreeze(output, 1);
    CHECK(evbuffer_drain(output, len) == 0, "output that stays");
    evbuffer_freeze(output, 1);
}

static void describe(const struct http *h, int code, char *words, size_t size)
{
    if (code == 413)
        snprintf(words, size, "the body is over %d KiB (limits.body_kb)",
                 (int)h->core->config->limits.body_kb);
    else if (code == 417)
        snprintf(words, size, "expect: 100-continue is all that can be expected");
    else
        snprintf(words, size, "this is no request of HTTP/1.1, or its headers are over %d KiB",
                 (int)HTTP_MAX_HEADERS_BYTES >> 10);
}

static void reword(struct conn *c)
{
    struct evbuffer *output = bufferevent_get_output(c->bev);
    char status[STATUS_BYTES + 1] = "", words[160], body[320];
    size_t len = evbuffer_get_length(output);
    evbuffer_copyout(output, status, STATUS_BYTES);
    const char *space = strchr(status, ' '); /* its version is the request's, such as 1.10 */
    int code = strncmp(status, "HTTP/1.", 7) == 0 && space ? atoi(space + 1) : 0;
    if (code < 400) /* 100 Continue */
        return;
    describe(c->http, code, words, sizeof words);
    int n = snprintf(
        body, sizeof body,
        "{\"type\":\"error\",\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,"
        "\"code\":\"%s\"}}",
        words, code == 413 ? "request_too_large" : "invalid_request_error",
        code == 413 ? "request_too_large" : "bad_request");
    take_out(output, len);
    CHECK(evbuffer_add_printf(
              output,
              "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
              "Content-Length: %d\r\n\r\n%s",
              code, code == 413 ? "Content Too Large" : "Bad Request", n, body) > 0,
          "no memory for an answer");
    metrics_http(&c->http->core->metrics, code);
}

void conn_reword(evutil_socket_t fd, short what, void *http)
{
    struct http *h = http;
    (void)fd;
    (void)what;
    for (struct conn *c = h->conns; c; c = c->next) {
        if (c->refused)
            reword(c);
        c->refused = false;
    }
}
