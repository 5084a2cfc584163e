/*
 * An HTTP server that answers each request, in the order of their arrival, with the bytes that a
 * script says. A thread a connection; the script waits for requests and not for times, so that what
 * came before what is certain.
 */
#ifndef WITAN_TESTS_UNIT_CLI_FAKE_SERVER_H
#define WITAN_TESTS_UNIT_CLI_FAKE_SERVER_H

#include "base/check.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum fake_what {
    FAKE_END,
    FAKE_SEND,  /* text */
    FAKE_AWAIT, /* until n requests have arrived, this one included */
    FAKE_TELL,  /* what is before it was sent */
    FAKE_HEAR,  /* until n have told */
    FAKE_CLOSE, /* in order */
    FAKE_RESET,
    FAKE_HANG, /* until the client closes */
};

struct fake_step {
    enum fake_what what;
    const char *text;
    int n;
};

enum { FAKE_MAX_REQUESTS = 256, FAKE_MAX_CONNECTIONS = 256 };

struct fake_seen {
    int64_t received_ns;
    int connection;
    char text[4096]; /* of the request, cut */
};

struct fake_server {
    int listener, port;
    const struct fake_step *const *scripts; /* [script_count], the last for all that follow */
    int script_count;
    pthread_t acceptor, threads[FAKE_MAX_CONNECTIONS];
    int fds[FAKE_MAX_CONNECTIONS], connections;
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    struct fake_seen seen[FAKE_MAX_REQUESTS];
    int requests, told;
    bool over;
};

struct fake_conn {
    struct fake_server *server;
    int fd, number;
};

/* The next request's number, -1 when the client has gone. */
static int fake_receive(struct fake_conn *c)
{
    char text[65536] = "";
    size_t len = 0, need = 0;
    while (need == 0 || len < need) {
        ssize_t n = recv(c->fd, text + len, sizeof text - 1 - len, 0);
        if (n <= 0)
            return -1;
        len += (size_t)n;
        text[len] = '\0';
        char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        if (end)
            need = (size_t)(end + 4 - text) +
                   (length && length < end ? strtoul(length + 16, NULL, 10) : 0);
    }
    struct fake_server *s = c->server;
    pthread_mutex_lock(&s->lock);
    int number = s->requests++;
    CHECK(number < FAKE_MAX_REQUESTS, "more requests than the test is for");
    s->seen[number].received_ns = clock_now_ns();
    s->seen[number].connection = c->number;
    snprintf(s->seen[number].text, sizeof s->seen[number].text, "%.4000s", text);
    pthread_cond_broadcast(&s->arrived);
    pthread_mutex_unlock(&s->lock);
    return number;
}

static void fake_tell(struct fake_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->told++;
    pthread_cond_broadcast(&s->arrived);
    pthread_mutex_unlock(&s->lock);
}

/* Until so many requests have arrived, and so many steps have told. */
static void fake_await(struct fake_server *s, int requests, int told)
{
    pthread_mutex_lock(&s->lock);
    while ((s->requests < requests || s->told < told) && !s->over)
        pthread_cond_wait(&s->arrived, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* False: the connection is over. */
static bool fake_play(struct fake_conn *c, const struct fake_step *step)
{
    static const struct linger now = {.l_onoff = 1};
    char sink[256];
    for (; step->what != FAKE_END; step++) {
        if (step->what == FAKE_SEND) {
            if (send(c->fd, step->text, strlen(step->text), MSG_NOSIGNAL) < 0)
                return false;
        } else if (step->what == FAKE_AWAIT) {
            fake_await(c->server, step->n, 0);
        } else if (step->what == FAKE_HEAR) {
            fake_await(c->server, 0, step->n);
        } else if (step->what == FAKE_TELL) {
            fake_tell(c->server);
        } else if (step->what == FAKE_HANG) {
            while (recv(c->fd, sink, sizeof sink, 0) > 0)
                ;
            return false;
        } else {
            if (step->what == FAKE_RESET)
                setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            return false;
        }
    }
    return true;
}

static void *fake_serve(void *arg)
{
    struct fake_conn c = *(struct fake_conn *)arg;
    struct fake_server *s = c.server;
    free(arg);
    for (int number; (number = fake_receive(&c)) >= 0;) {
        int script = number < s->script_count ? number : s->script_count - 1;
        if (!fake_play(&c, s->scripts[script]))
            break;
    }
    pthread_mutex_lock(&s->lock);
    s->fds[c.number] = -1;
    close(c.fd);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void *fake_accept(void *arg)
{
    struct fake_server *s = arg;
    for (int fd, on = 1; (fd = accept(s->listener, NULL, NULL)) >= 0;) {
        struct fake_conn *c = check_calloc(1, sizeof *c);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        pthread_mutex_lock(&s->lock);
        int i = s->connections++;
        CHECK(i < FAKE_MAX_CONNECTIONS, "more connections than the test is for");
        *c = (struct fake_conn){.server = s, .fd = fd, .number = i};
        s->fds[i] = fd;
        CHECK(pthread_create(&s->threads[i], NULL, fake_serve, c) == 0, "no thread");
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static void fake_start(struct fake_server *s, const struct fake_step *const *scripts, int count)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    *s = (struct fake_server){.scripts = scripts, .script_count = count};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->arrived, NULL);
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(s->listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(s->listener, 64) == 0,
          "no listener");
    getsockname(s->listener, (struct sockaddr *)&a, &len);
    s->port = ntohs(a.sin_port);
    CHECK(pthread_create(&s->acceptor, NULL, fake_accept, s) == 0, "no thread");
}

/* Takes no more connections: who comes is refused. */
static void fake_refuse(struct fake_server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    close(s->listener);
    s->listener = -1;
}

static void fake_stop(struct fake_server *s)
{
    if (s->listener >= 0)
        fake_refuse(s);
    pthread_mutex_lock(&s->lock);
    s->over = true;
    pthread_cond_broadcast(&s->arrived);
    for (int i = 0; i < s->connections; i++)
        if (s->fds[i] >= 0)
            shutdown(s->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->connections; i++)
        pthread_join(s->threads[i], NULL);
    pthread_cond_destroy(&s->arrived);
    pthread_mutex_destroy(&s->lock);
}

#endif
