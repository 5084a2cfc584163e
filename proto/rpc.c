/* The runtime: one completion queue, its thread, the tick; names and limits. See rpc.h. */
#include "proto/rpc_private.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { HANDLED_BEFORE_POLL = 256, POLLS = 32 };

const char *rpc_code_name(int code)
{
    static const char *const names[] = {
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    };
    return code >= 0 && code < (int)COUNT_OF(names) ? names[code] : "a code that gRPC lacks";
}

enum rpc_code rpc_code_of(enum status st)
{
    static const enum rpc_code codes[] = {
        [OK] = RPC_OK,
        [ERR_INVALID] = RPC_INVALID_ARGUMENT,
        [ERR_UNSUPPORTED] = RPC_UNIMPLEMENTED,
        [ERR_NOT_FOUND] = RPC_NOT_FOUND,
        [ERR_IO] = RPC_INTERNAL,
        [ERR_NO_MEMORY] = RPC_RESOURCE_EXHAUSTED,
        [ERR_LIMIT] = RPC_RESOURCE_EXHAUSTED,
        [ERR_CANCELLED] = RPC_CANCELLED,
        [ERR_PEER] = RPC_UNAVAILABLE,
        [ERR_CONFLICT] = RPC_ABORTED,
    };
    return codes[st];
}

grpc_arg rpc_int_arg(const char *key, int value)
{
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
    return arg;
}

void rpc_common_args(grpc_arg *args)
{
    const grpc_arg common[RPC_COMMON_ARGS] = {
        rpc_int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MAX_MESSAGE_BYTES),
        rpc_int_arg(GRPC_ARG_MAX_METADATA_SIZE, RPC_MAX_METADATA_BYTES),
        rpc_int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, RPC_KEEPALIVE_MS),
        rpc_int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, RPC_KEEPALIVE_TIMEOUT_MS),
        rpc_int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        rpc_int_arg(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0), /* 0: any number */
        rpc_int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, RPC_KEEPALIVE_MS / 4),
        rpc_int_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0), /* 0: any number */
        rpc_int_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
    };
    memcpy(args, common, sizeof common);
}

enum status rpc_split_address(const char *address, char host[256], int *port, struct error *err)
{
    const char *colon = strrchr(address, ':');
    const char *begin = address, *end = colon;
    if (colon && address[0] == '[' && colon > address + 1 && colon[-1] == ']') {
        begin++;
        end--;
    } else if (!colon || memchr(address, ':', (size_t)(colon - address))) {
        return error_set(err, ERR_INVALID,
                         "address \"%s\": expected host:port (IPv6 in brackets: [::1]:port)",
                         address);
    }
    char *rest;
    long number = strtol(colon + 1, &rest, 10);
    if (end == begin || end - begin > 255 || strpbrk(address, "/%, \t") || colon[1] < '0' ||
        colon[1] > '9' || *rest || number > 65535)
        return error_set(err, ERR_INVALID, "address \"%s\": expected host:port, port up to 65535",
                         address);
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    *port = (int)number;
    return OK;
}

/* gRPC prints errors that it also returns: they are for who debugs. */
static void log_for_debugging(gpr_log_func_args *args)
{
    const char *file = strrchr(args->file, '/');
    log_debug("grpc: %s:%d: %s", file ? file + 1 : args->file, args->line, args->message);
}

/* gRPC's threads for timers are detached and may end after grpc_shutdown_blocking (1.51), so also
 * while the process exits. OpenSSL's cleanup at exit would free the lists by which such a thread
 * frees its random generators and errors: it is left out. The first use of OpenSSL decides, so
 * before main. */
__attribute__((constructor)) static void keep_openssl_at_exit(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

/* Once, before gRPC starts. It takes the choice of its resolver from the environment alone: the
 * system's own, since c-ares knows nothing of nsswitch.conf, and leaks (1.18). */
static void prepare_grpc(void)
{
    gpr_set_log_function(log_for_debugging);
    setenv("GRPC_DNS_RESOLVER", "native", 0);
}

static void handle(struct rpc_event event)
{
    RPC_TAKE_BACK(event.tag);
    event.tag->done(event.tag->owner, event.ok);
}

static void keep_event(struct rpc *r, struct rpc_event event)
{
    if (r->kept == r->kept_cap) {
        r->kept_cap = r->kept_cap ? 2 * r->kept_cap : 256;
        r->events = realloc(r->events, r->kept_cap * sizeof *r->events);
        CHECK(r->events, "no memory for %zu events", r->kept_cap);
    }
    r->events[r->kept++] = event;
}

/* The queue returns what it holds before it polls. So events whose handling makes new ones at once
 * (a stream that flows) would keep it from all sockets, keep-alive pings among them. Here what it
 * holds is set aside until it has polled some times, each of which serves one socket that is ready.
 * (It holds three events a call at most.) */
static void poll_sockets(struct rpc *r)
{
    for (int polls = 0; polls < POLLS;) {
        grpc_event event = grpc_completion_queue_next(r->queue, gpr_inf_past(GPR_CLOCK_MONOTONIC),
                                                      NULL);
        if (event.type == GRPC_OP_COMPLETE)
            keep_event(r, (struct rpc_event){event.tag, event.success != 0});
        else
            polls++;
    }
    for (size_t i = 0; i < r->kept; i++)
        handle(r->events[i]);
    r->kept = 0;
}

static void *rpc_thread(void *arg)
{
    struct rpc *r = arg;
    int64_t next_ns = clock_now_ns() + r->tick_ns;
    for (int handled = 0;;) {
        gpr_timespec until = r->tick ? gpr_time_from_nanos(next_ns, GPR_CLOCK_MONOTONIC)
                                     : gpr_inf_future(GPR_CLOCK_MONOTONIC);
        grpc_event event = grpc_completion_queue_next(r->queue, until, NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type == GRPC_OP_COMPLETE)
            handle((struct rpc_event){event.tag, event.success != 0});
        if (++handled >= HANDLED_BEFORE_POLL) {
            handled = 0;
            poll_sockets(r);
        }
        if (r->tick && clock_now_ns() >= next_ns) {
            r->tick(r->tick_arg);
            next_ns = clock_now_ns() + r->tick_ns;
        }
    }
}

static void release(struct rpc *r)
{
    grpc_completion_queue_destroy(r->queue);
    grpc_shutdown_blocking();
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
    free(r->events);
    free(r);
}

enum status rpc_create(int tick_ms, void (*tick)(void *arg), void *arg, struct rpc **out,
                       struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(!tick || tick_ms > 0, "a tick every %d ms", tick_ms);
    pthread_once(&once, prepare_grpc);
    struct rpc *r = check_calloc(1, sizeof *r);
    r->tick_ns = (int64_t)tick_ms * 1000000;
    r->tick = tick;
    r->tick_arg = arg;
    pthread_mutex_init(&r->mutex, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);

    /* Signals are for the program's own threads, not for gRPC's, which inherit the mask. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    grpc_init();
    r->queue = grpc_completion_queue_create_for_next(NULL);
    int error = pthread_create(&r->thread, NULL, rpc_thread, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        grpc_completion_queue_shutdown(r->queue);
        release(r);
        return error_errno(err, error, "starting the rpc thread");
    }
    *out = r;
    return OK;
}

void rpc_destroy(struct rpc *r)
{
    if (!r)
        return;
    CHECK(!pthread_equal(pthread_self(), r->thread), "rpc_destroy in a callback");
    pthread_mutex_lock(&r->mutex);
    while (r->live > 0)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
    grpc_completion_queue_shutdown(r->queue);
    pthread_join(r->thread, NULL);
    release(r);
}
