/* Calls to a coordinator's gRPC door: see client.h. */
#include "cli/client.h"

#include "base/buf.h"
#include "base/check.h"
#include "coordinator/config.h"
#include "proto/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char client_help[] =
    "  --address H:P      the coordinator's gRPC door (default 127.0.0.1:8001); --url is the same\n"
    "  --ca FILE          PEM roots to trust; off loopback TLS is used, by default with the "
    "system's,\n"
    "                     but for an address that begins with http://\n"
    "  --key-file FILE    the API key (default: the environment's WITAN_API_KEY)\n";

static const char system_roots[] = "/etc/ssl/certs/ca-certificates.crt";

enum { MAX_PEM_BYTES = 4 << 20, MAX_KEY_BYTES = 4096, LOOK_MS = 50 };

struct client {
    struct rpc *rpc;
    struct rpc_channel *channel;
    char address[300];
    char *authorization; /* "Bearer KEY"; NULL: none */
};

void client_init(struct client_options *o)
{
    *o = (struct client_options){.address = "127.0.0.1:8001"};
}

/* "https://host:port/" is as good as "host:port". */
static const char *without_scheme(const char *url)
{
    const char *colon = strstr(url, "://");
    return colon ? colon + 3 : url;
}

int client_flag(struct client_options *o, int argc, char **argv, int *i)
{
    const struct {
        const char *name;
        const char **out;
    } flags[] = {{"--address", &o->address},
                 {"--url", &o->address},
                 {"--ca", &o->ca},
                 {"--key-file", &o->key_file}};
    for (size_t k = 0; k < COUNT_OF(flags); k++) {
        if (strcmp(argv[*i], flags[k].name) != 0)
            continue;
        const char *value = *i + 1 < argc ? argv[*i + 1] : NULL;
        if (!value || !*value) {
            fprintf(stderr, "witan: %s: expected a value, found nothing\n", argv[*i]);
            return -1;
        }
        ++*i;
        *flags[k].out = value;
        return 1;
    }
    return 0;
}

/* --- opening -----------------------------------------------------------------------------------
 */

static enum status read_key(const struct client_options *o, char **authorization, struct error *err)
{
    const char *given = getenv("WITAN_API_KEY");
    char *text = NULL;
    size_t len = 0;
    if (o->key_file) {
        TRY(file_read_all(o->key_file, MAX_KEY_BYTES, &text, &len, err));
        text[strcspn(text, "\r\n")] = '\0';
        given = text;
    }
    if (given && *given && asprintf(authorization, "Bearer %s", given) < 0)
        *authorization = NULL;
    free(text);
    return OK;
}

static enum status open_channel(struct client *c, const struct client_options *o, struct error *err)
{
    size_t len;
    char *ca = NULL;
    bool plain = strncmp(o->address, "http://", 7) == 0 || address_is_loopback(c->address);
    if (o->ca || !plain)
        TRY(file_read_all(o->ca ? o->ca : system_roots, MAX_PEM_BYTES, &ca, &len, err));
    struct rpc_tls tls = {.ca = ca};
    enum status st = rpc_channel_create(c->rpc, c->address, ca ? &tls : NULL, &c->channel, err);
    free(ca);
    return st;
}

enum status client_open(const struct client_options *o, struct client **out, struct error *err)
{
    struct client *c = check_calloc(1, sizeof *c);
    snprintf(c->address, sizeof c->address, "%s", without_scheme(o->address));
    c->address[strcspn(c->address, "/")] = '\0';
    char host[256];
    int port;
    enum status st = address_split(c->address, host, &port, err);
    if (st == OK)
        st = read_key(o, &c->authorization, err);
    if (st == OK)
        st = rpc_create(1000, NULL, NULL, &c->rpc, err);
    if (st == OK)
        st = open_channel(c, o, err);
    if (st != OK) {
        client_close(c);
        return st;
    }
    *out = c;
    return OK;
}

void client_close(struct client *c)
{
    if (!c)
        return;
    rpc_channel_destroy(c->channel);
    if (c->rpc)
        rpc_destroy(c->rpc);
    free(c->authorization);
    free(c);
}

/* --- calling -----------------------------------------------------------------------------------
 */

/* One call under way: written by the rpc thread, read when `closed`. */
struct pending {
    const struct client_call *call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
    int code;
    char message[512];
};

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)call;
    struct pending *p = user;
    p->call->on_message(p->call->user, message);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call;
    struct pending *p = user;
    pthread_mutex_lock(&p->lock);
    p->code = code;
    snprintf(p->message, sizeof p->message, "%s", message ? message : "");
    p->closed = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* A signal handler cannot wake us, so we look now and then. */
static void wait_closed(struct pending *p, struct rpc_call *call)
{
    bool cancelled = false;
    pthread_mutex_lock(&p->lock);
    while (!p->closed) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += LOOK_MS * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&p->changed, &p->lock, &until);
        if (!cancelled && p->call->interrupted && *p->call->interrupted) {
            rpc_cancel(call);
            cancelled = true;
        }
    }
    pthread_mutex_unlock(&p->lock);
}

static enum status outcome(const struct client *c, const struct pending *p, struct error *err)
{
    switch (p->code) {
    case RPC_OK:
        return OK;
    case RPC_CANCELLED:
        return error_set(err, ERR_CANCELLED, "cancelled");
    case RPC_UNAVAILABLE:
        return error_set(err, ERR_PEER, "%s: %s", c->address, p->message);
    case RPC_DEADLINE_EXCEEDED:
        return error_set(err, ERR_LIMIT, "%s: %s", c->address, p->message);
    case RPC_UNAUTHENTICATED:
    case RPC_PERMISSION_DENIED:
        return error_set(err, ERR_INVALID, "%s (--key-file or WITAN_API_KEY gives a key)",
                         p->message);
    default:
        return error_set(err, ERR_INVALID, "%s: %s", rpc_code_name(p->code), p->message);
    }
}

enum status client_call(struct client *c, const struct client_call *call, struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    struct pending p = {
        .call = call, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct rpc_call *started = NULL;
    TRY(rpc_call_start(c->channel, call->method, call->reply, &handlers, &p, call->timeout_ms,
                       false, c->authorization, &started, err));
    if (rpc_send(started, call->request, NULL) == OK)
        rpc_half_close(started);
    else
        rpc_cancel(started); /* it has ended, or the message is too large for any queue */
    wait_closed(&p, started);
    rpc_call_unref(started);
    pthread_cond_destroy(&p.changed);
    pthread_mutex_destroy(&p.lock);
    return outcome(c, &p, err);
}
