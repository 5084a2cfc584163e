/*
 * The standard health service (grpc/grpc: doc/health-checking.md): "" and every service that the
 * server has are in one and the same state; others are unknown to it.
 */
#include "proto/rpc_private.h"

#include "base/check.h"
#include "proto/health.pb-c.h"

#include <stdlib.h>

struct watcher {
    struct watcher *next, **link;
    struct rpc_call *call; /* leaves the list before the call is gone */
    bool known;
    int told; /* the last status sent; -1: none */
};

struct rpc_health {
    pthread_mutex_t mutex; /* taken before any call's */
    struct watcher *watchers;
    bool serving, stopping;
};

struct rpc_health *rpc_health_create(void)
{
    struct rpc_health *h = check_calloc(1, sizeof *h);
    pthread_mutex_init(&h->mutex, NULL);
    return h;
}

void rpc_health_destroy(struct rpc_health *h)
{
    CHECK(!h->watchers, "a health watch is still open");
    pthread_mutex_destroy(&h->mutex);
    free(h);
}

static enum status send_status(struct rpc_call *call, int status)
{
    Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    reply.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    return rpc_send(call, &reply.base, NULL);
}

/* All below: the mutex is held. */
static int status_now(const struct rpc_health *h)
{
    return h->serving && !h->stopping
               ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
               : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

/* One message at most waits for a slow watcher; on_drained comes back here for what it missed. */
static void tell(struct rpc_health *h, struct watcher *w)
{
    int status = w->known
                     ? status_now(h)
                     : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    bool idle = rpc_queued(w->call) == 0 || h->stopping;
    if (status != w->told && idle && send_status(w->call, status) == OK)
        w->told = status;
    if (h->stopping)
        rpc_finish(w->call, RPC_UNAVAILABLE, "the server stops");
}

static void tell_all(struct rpc_health *h)
{
    for (struct watcher *w = h->watchers; w; w = w->next)
        tell(h, w);
}

void rpc_health_set(struct rpc_health *h, bool serving)
{
    pthread_mutex_lock(&h->mutex);
    h->serving = serving;
    tell_all(h);
    pthread_mutex_unlock(&h->mutex);
}

void rpc_health_stop(struct rpc_health *h)
{
    pthread_mutex_lock(&h->mutex);
    h->stopping = true;
    tell_all(h);
    pthread_mutex_unlock(&h->mutex);
}

static bool is_known(struct rpc_call *call, const ProtobufCMessage *message)
{
    const char *service = ((const Grpc__Health__V1__HealthCheckRequest *)message)->service;
    return service[0] == '\0' || rpc_server_has_service(call->server, service);
}

static void on_check(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user;
    struct rpc_health *h = rpc_server_health(call->server);
    if (!is_known(call, message)) {
        rpc_finish(call, RPC_NOT_FOUND, "there is no such service here");
        return;
    }
    pthread_mutex_lock(&h->mutex);
    int status = status_now(h);
    pthread_mutex_unlock(&h->mutex);
    send_status(call, status);
    rpc_finish(call, RPC_OK, NULL);
}

static void on_watch(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)user;
    struct rpc_health *h = rpc_server_health(call->server);
    struct watcher *w = check_calloc(1, sizeof *w);
    w->call = call;
    w->known = is_known(call, message);
    w->told = -1;
    rpc_call_set_user(call, w);
    pthread_mutex_lock(&h->mutex);
    w->next = h->watchers;
    w->link = &h->watchers;
    if (w->next)
        w->next->link = &w->next;
    h->watchers = w;
    tell(h, w);
    pthread_mutex_unlock(&h->mutex);
}

static void on_watch_drained(struct rpc_call *call, void *user)
{
    struct rpc_health *h = rpc_server_health(call->server);
    pthread_mutex_lock(&h->mutex);
    tell(h, user);
    pthread_mutex_unlock(&h->mutex);
}

static void on_watch_closed(struct rpc_call *call, void *user, int code, const char *text)
{
    (void)code, (void)text;
    struct watcher *w = user;
    if (!w)
        return;
    struct rpc_health *h = rpc_server_health(call->server);
    pthread_mutex_lock(&h->mutex);
    *w->link = w->next;
    if (w->next)
        w->next->link = w->link;
    pthread_mutex_unlock(&h->mutex);
    free(w);
}

const struct rpc_method rpc_health_methods[] = {
    {.name = "/grpc.health.v1.Health/Check",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .handlers = {.on_message = on_check}},
    {.name = "/grpc.health.v1.Health/Watch",
     .request = &grpc__health__v1__health_check_request__descriptor,
     .handlers = {.on_message = on_watch,
                  .on_drained = on_watch_drained,
                  .on_closed = on_watch_closed}},
};
const size_t rpc_health_method_count = COUNT_OF(rpc_health_methods);
