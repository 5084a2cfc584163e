/* Streams of server-sent events over plain sockets, all in one epoll loop: see latency.h. */
#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "tests/bench/latency/latency.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_LIMIT = 1 << 20, READ_BYTES = 1 << 14 };

struct stream {
    int fd;
    bool done;
    struct buf line; /* what came since the last line's end */
};

struct sse {
    int epoll;
    int open; /* streams that have not ended */
    struct stream *streams;
    struct arrivals *arrivals;
};

static enum status dial(const char *address, int *fd, struct error *err)
{
    char host[128];
    snprintf(host, sizeof host, "%s", address);
    char *colon = strrchr(host, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    *colon = '\0';
    int code = getaddrinfo(host, colon + 1, &hints, &found);
    if (code != 0)
        return error_set(err, ERR_IO, "%s: %s", address, gai_strerror(code));
    *fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    bool there = *fd >= 0 && connect(*fd, found->ai_addr, found->ai_addrlen) == 0 &&
                 setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0;
    freeaddrinfo(found);
    return there ? OK : error_errno(err, errno, "%s", address);
}

static enum status ask(struct sse *s, const char *address, int i, struct error *err)
{
    char prompt[LATENCY_PATH], body[2 * LATENCY_PATH], request[4 * LATENCY_PATH];
    struct stream *stream = &s->streams[i];
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
    prompt_of(i, prompt);
    int body_len = snprintf(body, sizeof body,
                            "{\"prompt\": \"%s\", \"max_tokens\": %d, \"temperature\": 0, "
                            "\"ignore_eos\": true, \"stream\": true}",
                            prompt, s->arrivals->tokens);
    int len = snprintf(request, sizeof request,
                       "POST /v1/completions HTTP/1.1\r\nHost: %s\r\n"
                       "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                       address, body_len, body);
    TRY(dial(address, &stream->fd, err));
    if (write(stream->fd, request, (size_t)len) != len)
        return error_errno(err, errno, "%s", address);
    if (fcntl(stream->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(s->epoll, EPOLL_CTL_ADD, stream->fd, &event) != 0)
        return error_errno(err, errno, "epoll");
    s->open++;
    return OK;
}

static void end(struct sse *s, struct stream *stream)
{
    if (!stream->done)
        s->open--;
    stream->done = true;
}

static enum status take_line(struct sse *s, int i, char *line, int64_t now, struct error *err)
{
    static const char prefix[] = "data: ";
    if (strncmp(line, "HTTP/1.1 ", 9) == 0 && strncmp(line + 9, "200", 3) != 0)
        return error_set(err, ERR_PEER, "the server answers %.100s", line);
    if (strncmp(line, prefix, sizeof prefix - 1) != 0)
        return OK;
    if (line[sizeof prefix - 1] == '{')
        arrivals_add(s->arrivals, i, now);
    else
        end(s, &s->streams[i]); /* [DONE] */
    return OK;
}

/* Cuts what has come into lines; the rest stays. */
static enum status take(struct sse *s, int i, int64_t now, struct error *err)
{
    struct buf *b = &s->streams[i].line;
    char *at = b->data, *stop = b->data + b->len;
    for (char *line_end; (line_end = memchr(at, '\n', (size_t)(stop - at))); at = line_end + 1) {
        *line_end = '\0';
        TRY(take_line(s, i, at, now, err));
    }
    b->len = (size_t)(stop - at);
    memmove(b->data, at, b->len);
    return OK;
}

static enum status on_readable(struct sse *s, int i, struct error *err)
{
    char bytes[READ_BYTES];
    struct stream *stream = &s->streams[i];
    ssize_t n = read(stream->fd, bytes, sizeof bytes);
    int64_t now = clock_now_ns();
    if (n < 0 && errno == EAGAIN)
        return OK;
    if (n < 0)
        return error_errno(err, errno, "stream %d", i);
    if (n == 0) {
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, stream->fd, NULL);
        return stream->done ? OK : error_set(err, ERR_PEER, "stream %d was cut off", i);
    }
    TRY(buf_append(&stream->line, bytes, (size_t)n, err));
    return take(s, i, now, err);
}

static enum status loop(struct sse *s, struct error *err)
{
    struct epoll_event ready[64];
    while (s->open > 0) {
        int n = epoll_wait(s->epoll, ready, COUNT_OF(ready), LATENCY_WAIT_S * 1000);
        if (n <= 0)
            return error_set(err, ERR_LIMIT, "no event in %d s", (int)LATENCY_WAIT_S);
        for (int k = 0; k < n; k++)
            TRY(on_readable(s, (int)ready[k].data.u32, err));
    }
    return OK;
}

enum status sse_run(const char *address, struct arrivals *a, struct error *err)
{
    struct sse s = {.arrivals = a};
    enum status st = OK;
    s.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s.epoll < 0)
        return error_errno(err, errno, "epoll");
    s.streams = check_calloc((size_t)a->streams, sizeof *s.streams);
    for (int i = 0; i < a->streams; i++) {
        s.streams[i].fd = -1;
        buf_init(&s.streams[i].line, ANSWER_LIMIT);
    }
    for (int i = 0; st == OK && i < a->streams; i++)
        st = ask(&s, address, i, err);
    if (st == OK)
        st = loop(&s, err);
    for (int i = 0; i < a->streams; i++) {
        if (s.streams[i].fd >= 0)
            close(s.streams[i].fd);
        buf_fini(&s.streams[i].line);
    }
    free(s.streams);
    close(s.epoll);
    return st;
}
