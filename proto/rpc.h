/*
 * Asynchronous RPC over the gRPC C core, for coordinator, worker and cli: the only folder that sees
 * gRPC's headers.
 *
 * Threads: one `struct rpc` has one completion queue and one thread, the rpc thread, which calls
 * every callback; callbacks must not block and must not call rpc_destroy or rpc_server_stop. All
 * functions on calls may be called from any thread, from callbacks too.
 *
 * Messages are protobuf-c structs: packed into one slice when sent (the caller keeps its own),
 * unpacked before on_message and freed after it. A message that does not parse ends the call with
 * INVALID_ARGUMENT; one over the limit with RESOURCE_EXHAUSTED; a method that is not registered
 * gets UNIMPLEMENTED.
 *
 * A call, on either side, ends exactly once: on_closed is its last callback, whatever happened
 * before (end in order, cancellation, deadline, lost connection, shutdown). Sends go through a
 * bounded queue, since gRPC takes one message at a time.
 */
#ifndef WITAN_PROTO_RPC_H
#define WITAN_PROTO_RPC_H

#include "base/error.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rpc;
struct rpc_server;
struct rpc_channel;
struct rpc_call;

enum {
    RPC_MAX_MESSAGE_BYTES = 16 << 20, /* received; over it: RESOURCE_EXHAUSTED */
    RPC_MAX_QUEUED = 4096,            /* messages of one call waiting to be sent */
    RPC_MAX_QUEUED_BYTES = 64 << 20,
    RPC_MAX_STREAMS = 4096, /* calls at once on one connection */
    RPC_KEEPALIVE_MS = 2000,
    /* Longer than a coordinator may be stopped without losing its groups; ranks that are cut off
     * are known sooner, by their heartbeats (coordinator/hang.h). */
    RPC_KEEPALIVE_TIMEOUT_MS = 10000,
    RPC_MAX_METADATA_BYTES = 16 << 10,
};

/* gRPC's status codes, as numbered by its specification (doc/statuscodes.md). */
enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_UNAUTHENTICATED = 16,
};

/* "UNAVAILABLE", ...; static. And what a status of ours is to a client. */
const char *rpc_code_name(int code);
enum rpc_code rpc_code_of(enum status st);

/* PEM texts in memory. All NULL: plaintext. Else TLS: a server needs cert and key, a client ca, and
 * cert and key together or neither. */
struct rpc_tls {
    const char *ca;        /* trusted roots; server: of clients (NULL: none demanded) */
    const char *cert;      /* own chain */
    const char *key;       /* own private key */
    const char *peer_name; /* client: DNS name that the server's certificate must carry, whatever
                              host is dialled; NULL: the host's own */
};

/* --- the runtime --- */

/* Starts the rpc thread, which takes no signals. `tick` (may be NULL) is called on it about every
 * tick_ms. The first call sets GRPC_DNS_RESOLVER in the environment where it is not set: best made
 * while the program has one thread. */
enum status rpc_create(int tick_ms, void (*tick)(void *arg), void *arg, struct rpc **out,
                       struct error *err);
/* After every server is stopped and every channel destroyed. Waits for open calls' last callbacks,
 * then joins the thread. Not from a callback. NULL is fine. */
void rpc_destroy(struct rpc *r);

/* --- calls --- */

struct rpc_call_handlers {
    /* Each may be NULL. `call` is valid in every callback; it is released after on_closed unless
     * rpc_call_ref holds it. */
    void (*on_message)(struct rpc_call *call, void *user, const ProtobufCMessage *message);
    void (*on_half_close)(struct rpc_call *call, void *user); /* server: client has sent all */
    /* The queue of unsent messages has become empty. Not after rpc_finish or rpc_half_close. */
    void (*on_drained)(struct rpc_call *call, void *user);
    /* `code` and `message`: client: the call's status; server: RPC_OK when the status that
     * rpc_finish gave was delivered to the transport, RPC_CANCELLED when the client went away,
     * cancelled or passed its deadline, RPC_INVALID_ARGUMENT when it sent what does not parse. */
    void (*on_closed)(struct rpc_call *call, void *user, int code, const char *message);
};

void rpc_call_set_user(struct rpc_call *call, void *user);
void *rpc_call_user(const struct rpc_call *call);

/* Within on_message alone: the message outlives the callback. The caller frees it, in any thread,
 * by protobuf_c_message_free_unpacked(m, NULL). */
ProtobufCMessage *rpc_keep_message(struct rpc_call *call, const ProtobufCMessage *message);

/* Holds the handle beyond on_closed (functions on it then fail or do nothing). */
struct rpc_call *rpc_call_ref(struct rpc_call *call);
void rpc_call_unref(struct rpc_call *call);

/* Queues a message. ERR_LIMIT when the queue is full (the call goes on), ERR_CANCELLED when it has
 * ended, or after rpc_finish or rpc_half_close. */
enum status rpc_send(struct rpc_call *call, const ProtobufCMessage *message, struct error *err);
/* Messages that the transport has not taken yet. */
size_t rpc_queued(struct rpc_call *call);
/* How long the oldest of them has waited for the peer to make room; 0: none does. */
int64_t rpc_stalled_ns(struct rpc_call *call);

/* Server: ends the call after what is queued. Further sends fail; what the client still sends is
 * not delivered. `message` may be NULL; it is cut after 2048 bytes. */
void rpc_finish(struct rpc_call *call, enum rpc_code code, const char *message);
/* The same with the metadata by which a client that retries is told when to: see gRFC A6, "Server
 * Pushback". */
void rpc_finish_retry(struct rpc_call *call, enum rpc_code code, const char *message, int retry_ms);
/* Client: no more messages will be sent. */
void rpc_half_close(struct rpc_call *call);
/* Either side: ends now, dropping what is queued; no message is delivered any more, on_closed
 * follows with RPC_CANCELLED. */
void rpc_cancel(struct rpc_call *call);

/* Server. The peer's address ("ipv4:127.0.0.1:5000"), a metadata value (NULL when absent; case of
 * the key: lower), the URI names of its certificate, '\n' between them ("" without TLS). All valid
 * as long as the call. */
const char *rpc_peer(const struct rpc_call *call);
const char *rpc_metadata(const struct rpc_call *call, const char *key);
const char *rpc_peer_uris(const struct rpc_call *call);
/* Server: milliseconds to the client's deadline, at least 1; 0: it gave none. */
uint32_t rpc_deadline_ms(const struct rpc_call *call);

/* --- servers --- */

struct rpc_method {
    const char *name; /* "/witan.inference.v1.Inference/Generate" */
    const ProtobufCMessageDescriptor *request;
    bool client_streams; /* many requests; else exactly one, and on_half_close is not called */
    /* A new call, before its first message. Sets the user pointer; may refuse by rpc_finish. */
    void (*on_open)(struct rpc_call *call, void *arg);
    struct rpc_call_handlers handlers;
    void *arg; /* of the service */
};

/*
 * Listens on "host:port" (port 0: any; rpc_server_port tells). `methods` stay the caller's and
 * must outlive the server. The health service is always there: rpc_server_set_serving. A port that
 * is in use, an address that is not here, a certificate that does not parse: said by name.
 */
enum status rpc_server_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                              const struct rpc_method *methods, size_t method_count,
                              struct rpc_server **out, struct error *err);
int rpc_server_port(const struct rpc_server *s);
/* What the health service says of "" and of every service; before the first call: NOT_SERVING. */
void rpc_server_set_serving(struct rpc_server *s, bool serving);
/* Takes no more calls, waits up to grace_ms for those that are open, cancels the rest, releases the
 * server. Not from a callback. NULL is fine. */
void rpc_server_stop(struct rpc_server *s, int grace_ms);

/* --- clients --- */

/* Connects lazily, to "host:port". */
enum status rpc_channel_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                               struct rpc_channel **out, struct error *err);
void rpc_channel_destroy(struct rpc_channel *c); /* calls on it must have closed; NULL is fine */

/* Starts a call. `deadline_ms` 0: none. `authorization` (may be NULL): that metadata's value.
 * `reply` describes the messages that come back. wait_ready: while the server cannot be reached,
 * wait until the deadline instead of failing. Unary and server-stream calls: rpc_send once, then
 * rpc_half_close. The caller has a reference of its own: rpc_call_unref when done with *out. */
enum status rpc_call_start(struct rpc_channel *c, const char *method,
                           const ProtobufCMessageDescriptor *reply,
                           const struct rpc_call_handlers *handlers, void *user, int deadline_ms,
                           bool wait_ready, const char *authorization, struct rpc_call **out,
                           struct error *err);

#endif
