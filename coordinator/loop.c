/* The event loop: see loop.h. State: a ring of posted work under a mutex, an eventfd that wakes the
 * loop. */
#include "coordinator/loop.h"
#include "base/check.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct task {
    void (*fn)(void *arg);
    void *arg;
};

struct loop {
    struct event_base *base;
    struct event *wake;
    int fd;
    pthread_mutex_t lock;
    uint32_t head, count; /* of the ring; under the lock */
    bool stop;            /* under the lock */
    struct task ring[LOOP_MAX_POSTED];
};

static bool take(struct loop *l, struct task *out)
{
    pthread_mutex_lock(&l->lock);
    bool any = l->count > 0;
    if (any) {
        *out = l->ring[l->head];
        l->head = (l->head + 1) % LOOP_MAX_POSTED;
        l->count--;
    } else if (l->stop) {
        event_base_loopbreak(l->base);
    }
    pthread_mutex_unlock(&l->lock);
    return any;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t ignored;
    struct task t;
    while (read(fd, &ignored, sizeof ignored) < 0 && errno == EINTR)
        ;
    while (take(arg, &t))
        t.fn(t.arg);
}

enum status loop_create(struct loop **out, struct error *err)
{
    struct loop *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(err, ERR_NO_MEMORY, "no memory for the event loop");
    pthread_mutex_init(&l->lock, NULL);
    l->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->base = evthread_use_pthreads() == 0 ? event_base_new() : NULL;
    l->wake = l->base && l->fd >= 0 ? event_new(l->base, l->fd, EV_READ | EV_PERSIST, on_wake, l)
                                    : NULL;
    if (!l->wake || event_add(l->wake, NULL) != 0) {
        loop_destroy(l);
        return error_errno(err, errno, "cannot make an event loop");
    }
    *out = l;
    return OK;
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    if (l->wake)
        event_free(l->wake);
    if (l->base)
        event_base_free(l->base);
    if (l->fd >= 0)
        close(l->fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

static void ring_bell(struct loop *l)
{
    uint64_t one = 1;
    while (write(l->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

enum status loop_post(struct loop *l, void (*fn)(void *arg), void *arg, struct error *err)
{
    pthread_mutex_lock(&l->lock);
    bool full = l->count == LOOP_MAX_POSTED, first = l->count == 0;
    if (!full)
        l->ring[(l->head + l->count++) % LOOP_MAX_POSTED] = (struct task){fn, arg};
    pthread_mutex_unlock(&l->lock);
    if (full)
        return error_set(err, ERR_LIMIT, "the event loop has %d pieces of work waiting",
                         (int)LOOP_MAX_POSTED);
    if (first)
        ring_bell(l);
    return OK;
}

void loop_drain(struct loop *l)
{
    struct task t;
    while (take(l, &t))
        t.fn(t.arg);
}

void loop_run(struct loop *l)
{
    event_base_dispatch(l->base);
}

void loop_stop(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_mutex_unlock(&l->lock);
    ring_bell(l);
}
