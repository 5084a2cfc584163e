/* Servers: accepting calls, finding their methods, stopping in order. See rpc.h. */
#include "proto/rpc_private.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <grpc/support/alloc.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ACCEPTS_OUT = 8, HANDSHAKE_MS = 10000 };

struct rpc_server {
    struct rpc *rpc;
    grpc_server *grpc;
    const struct rpc_method *methods;
    size_t method_count;
    struct rpc_health *health;
    int port;
    atomic_bool stopping;
    struct rpc_tag stopped_tag;
    size_t calls; /* open ones and accepts that are out; rpc.mutex */
    bool stopped; /* gRPC has closed all connections; rpc.mutex */
};

int rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}

struct rpc_health *rpc_server_health(struct rpc_server *s)
{
    return s->health;
}

void rpc_server_set_serving(struct rpc_server *s, bool serving)
{
    rpc_health_set(s->health, serving);
}

const char *rpc_peer(const struct rpc_call *call)
{
    return call->peer;
}

const char *rpc_peer_uris(const struct rpc_call *call)
{
    return call->peer_uris;
}

const char *rpc_metadata(const struct rpc_call *call, const char *key)
{
    for (const struct rpc_metadata *m = call->metadata; m; m = m->next)
        if (strcmp(m->key, key) == 0)
            return m->value;
    return NULL;
}

/* --- accepting --- */

static bool slice_is(grpc_slice slice, const char *text)
{
    size_t n = strlen(text);
    return GRPC_SLICE_LENGTH(slice) == n && memcmp(GRPC_SLICE_START_PTR(slice), text, n) == 0;
}

static const struct rpc_method *find_method(const struct rpc_server *s, grpc_slice name)
{
    for (size_t i = 0; i < s->method_count; i++)
        if (slice_is(name, s->methods[i].name))
            return &s->methods[i];
    for (size_t i = 0; i < rpc_health_method_count; i++)
        if (slice_is(name, rpc_health_methods[i].name))
            return &rpc_health_methods[i];
    return NULL;
}

static bool service_of(const char *method, const char *service)
{
    size_t n = strlen(service);
    return method[0] == '/' && strncmp(method + 1, service, n) == 0 && method[1 + n] == '/';
}

bool rpc_server_has_service(const struct rpc_server *s, const char *service)
{
    for (size_t i = 0; i < s->method_count; i++)
        if (service_of(s->methods[i].name, service))
            return true;
    return service_of(rpc_health_methods[0].name, service);
}

static void copy_metadata(struct rpc_call *call)
{
    struct rpc_metadata **tail = &call->metadata;
    for (size_t i = 0; i < call->initial.count; i++) {
        grpc_slice key = call->initial.metadata[i].key, value = call->initial.metadata[i].value;
        size_t k = GRPC_SLICE_LENGTH(key), v = GRPC_SLICE_LENGTH(value);
        struct rpc_metadata *m = check_calloc(1, sizeof *m + k + 1 + v + 1);
        m->key = (char *)(m + 1);
        m->value = m->key + k + 1;
        memcpy(m->key, GRPC_SLICE_START_PTR(key), k);
        memcpy(m->value, GRPC_SLICE_START_PTR(value), v);
        *tail = m;
        tail = &m->next;
    }
}

static void copy_peer(struct rpc_call *call)
{
    char *peer = grpc_call_get_peer(call->grpc);
    call->peer = strdup(peer);
    CHECK(call->peer, "no memory for a peer's name");
    gpr_free(peer);
    call->peer_uris = rpc_tls_peer_uris(call->grpc);
}

static void accept_next(struct rpc_server *s);

static void on_opened(void *owner, bool ok)
{
    struct rpc_call *call = owner;
    struct rpc_server *s = call->server;
    if (!ok) { /* the server stops */
        rpc_call_discard(call);
        return;
    }
    if (!atomic_load(&s->stopping))
        accept_next(s);
    copy_peer(call);
    copy_metadata(call);
    rpc_call_watch_end(call);
    const struct rpc_method *m = find_method(s, call->request.method);
    if (!m) {
        rpc_finish(call, RPC_UNIMPLEMENTED, "there is no such method here");
        return;
    }
    call->method = m;
    call->incoming = m->request;
    call->handlers = m->handlers;
    if (m->on_open)
        m->on_open(call, m->arg);
    if (rpc_call_is_deaf(call))
        return;
    call->receiving = true;
    rpc_call_receive(call);
}

/* Without an accept that is out, calls would wait unanswered, those of unknown methods too. */
static void accept_next(struct rpc_server *s)
{
    struct rpc_call *call = rpc_call_create(s->rpc);
    call->server = s;
    call->opened = (struct rpc_tag){on_opened, call};
    pthread_mutex_lock(&s->rpc->mutex);
    s->calls++;
    pthread_mutex_unlock(&s->rpc->mutex);
    RPC_HAND_OVER(&call->opened);
    grpc_call_error e = grpc_server_request_call(s->grpc, &call->grpc, &call->request,
                                                 &call->initial, s->rpc->queue, s->rpc->queue,
                                                 &call->opened);
    CHECK(e == GRPC_CALL_OK, "accepting: %s", grpc_call_error_to_string(e));
}

void rpc_server_call_gone(struct rpc_server *s)
{
    s->calls--;
}

/* --- creating --- */

/* gRPC says only that it could not listen: a socket of ours learns why. */
static enum status probe_one(const struct addrinfo *a, const char *address, struct error *err)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0)
        return error_errno(err, errno, "listening on %s", address);
    int on = 1;
    enum status st = OK;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 1) != 0)
        st = error_errno(err, errno, "listening on %s", address);
    close(fd);
    return st;
}

static enum status probe(const char *address, struct error *err)
{
    char host[256], service[16];
    int port;
    TRY(rpc_split_address(address, host, &port, err));
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *all;
    int rc = getaddrinfo(host, service, &hints, &all);
    if (rc != 0)
        return error_set(err, ERR_INVALID, "listening on %s: %s", address, gai_strerror(rc));
    enum status st = OK;
    for (const struct addrinfo *a = all; a && st == OK; a = a->ai_next)
        st = probe_one(a, address, err);
    freeaddrinfo(all);
    return st;
}

static grpc_server *create_grpc_server(void)
{
    grpc_arg list[RPC_MAX_ARGS];
    size_t n = RPC_COMMON_ARGS;
    rpc_common_args(list);
    list[n++] = rpc_int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0);
    list[n++] = rpc_int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, RPC_MAX_STREAMS);
    list[n++] = rpc_int_arg(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_MS);
    grpc_channel_args args = {n, list};
    return grpc_server_create(&args, NULL);
}

static void on_stopped(void *owner, bool ok)
{
    (void)ok;
    struct rpc_server *s = owner;
    pthread_mutex_lock(&s->rpc->mutex);
    s->stopped = true;
    pthread_cond_broadcast(&s->rpc->changed);
    pthread_mutex_unlock(&s->rpc->mutex);
}

enum status rpc_server_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                              const struct rpc_method *methods, size_t method_count,
                              struct rpc_server **out, struct error *err)
{
    TRY(probe(address, err));
    grpc_server_credentials *credentials;
    TRY(rpc_tls_server_credentials(tls, &credentials, err));
    grpc_server *grpc = create_grpc_server();
    grpc_server_register_completion_queue(grpc, r->queue, NULL);
    int port = grpc_server_add_http2_port(grpc, address, credentials);
    grpc_server_credentials_release(credentials);
    if (port <= 0) {
        grpc_server_destroy(grpc);
        return error_set(err, ERR_IO, "listening on %s: gRPC refuses; is the address in use?",
                         address);
    }
    struct rpc_server *s = check_calloc(1, sizeof *s);
    s->rpc = r;
    s->grpc = grpc;
    s->methods = methods;
    s->method_count = method_count;
    s->health = rpc_health_create();
    s->port = port;
    s->stopped_tag = (struct rpc_tag){on_stopped, s};
    grpc_server_start(grpc);
    for (int i = 0; i < ACCEPTS_OUT; i++)
        accept_next(s);
    *out = s;
    return OK;
}

/* --- stopping --- */

/* Whether the server has come to rest within `ms` (negative: whenever). */
static bool wait_for_rest(struct rpc_server *s, int ms)
{
    int64_t until_ns = clock_now_ns() + (int64_t)ms * 1000000;
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    pthread_mutex_lock(&s->rpc->mutex);
    int rc = 0;
    while ((!s->stopped || s->calls > 0) && rc != ETIMEDOUT)
        rc = ms < 0 ? pthread_cond_wait(&s->rpc->changed, &s->rpc->mutex)
                    : pthread_cond_timedwait(&s->rpc->changed, &s->rpc->mutex, &until);
    bool rests = s->stopped && s->calls == 0;
    pthread_mutex_unlock(&s->rpc->mutex);
    return rests;
}

/* The order that gRPC demands: no new calls; time for those that are open; cancel the rest; only
 * when the last has told its end is the server destroyed. */
void rpc_server_stop(struct rpc_server *s, int grace_ms)
{
    if (!s)
        return;
    CHECK(!pthread_equal(pthread_self(), s->rpc->thread), "rpc_server_stop in a callback");
    atomic_store(&s->stopping, true);
    rpc_health_stop(s->health);
    RPC_HAND_OVER(&s->stopped_tag);
    grpc_server_shutdown_and_notify(s->grpc, s->rpc->queue, &s->stopped_tag);
    if (!wait_for_rest(s, grace_ms > 0 ? grace_ms : 0)) {
        log_debug("rpc: cancelling the calls that are open");
        grpc_server_cancel_all_calls(s->grpc);
        wait_for_rest(s, -1);
    }
    grpc_server_destroy(s->grpc);
    rpc_health_destroy(s->health);
    free(s);
}
