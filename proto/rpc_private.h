/*
 * What the files of the RPC runtime share. Owners: the runtime lives from rpc_create to
 * rpc_destroy; a call holds one reference on itself from its start until its on_closed has
 * returned.
 *
 * gRPC aborts the process when a batch is started after its queue was shut down. So everything
 * that may start one is counted in rpc.live, and rpc_destroy shuts the queue down at zero.
 */
#ifndef WITAN_PROTO_RPC_PRIVATE_H
#define WITAN_PROTO_RPC_PRIVATE_H

#include "proto/rpc.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdatomic.h>

/* ThreadSanitizer does not see into gRPC: what happened before an operation was handed over
 * happens before its completion. */
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define RPC_HAND_OVER(tag) __tsan_release(tag)
#define RPC_TAKE_BACK(tag) __tsan_acquire(tag)
#else
#define RPC_HAND_OVER(tag) ((void)(tag))
#define RPC_TAKE_BACK(tag) ((void)(tag))
#endif

/* What goes through the completion queue. `done` runs on the rpc thread. */
struct rpc_tag {
    void (*done)(void *owner, bool ok);
    void *owner;
};

struct rpc_event {
    struct rpc_tag *tag;
    bool ok;
};

struct rpc {
    grpc_completion_queue *queue;
    pthread_t thread;
    int64_t tick_ns;
    void (*tick)(void *arg);
    void *tick_arg;

    pthread_mutex_t mutex; /* also of every server's `calls` and `stopped` */
    pthread_cond_t changed;
    size_t live; /* calls not yet closed, accepts that are out */

    struct rpc_event *events; /* the rpc thread's */
    size_t kept, kept_cap;
};

/* --- rpc.c --- */

enum { RPC_COMMON_ARGS = 9, RPC_MAX_ARGS = 24 };

/* Fills the first RPC_COMMON_ARGS of `args`: limits and keep-alive, as both sides have them. */
void rpc_common_args(grpc_arg *args);
grpc_arg rpc_int_arg(const char *key, int value);

/* "host:port", "[::1]:port": the host without brackets into `host`, the port by its digits. */
enum status rpc_split_address(const char *address, char host[256], int *port, struct error *err);

/* --- rpc_call.c --- */

struct rpc_metadata {
    struct rpc_metadata *next;
    char *key, *value; /* both in this allocation */
};

struct rpc_unsent {
    struct rpc_unsent *next;
    grpc_byte_buffer *buffer;
    size_t bytes;
};

struct rpc_call {
    struct rpc *rpc;
    struct rpc_server *server;       /* NULL: a client's call */
    const struct rpc_method *method; /* server; NULL: one that is not there */
    const ProtobufCMessageDescriptor *incoming;
    struct rpc_call_handlers handlers;
    _Atomic(void *) user;
    atomic_int refs;
    grpc_call *grpc; /* until closed */

    /* Three batches at most are out at once, one of each kind. */
    struct rpc_tag opened, received, sent, ended;

    /* The rpc thread's alone, once the call has started. */
    grpc_byte_buffer *in;
    ProtobufCMessage *delivering; /* within on_message, unless it was kept */
    bool receiving, asked_metadata, got_message;
    int cancelled;                         /* server: how the call ended */
    grpc_status_code status;               /* client: the same */
    grpc_slice details;                    /* client */
    grpc_metadata_array initial, trailing; /* initial: server: the client's */
    grpc_call_details request;             /* server */
    grpc_metadata *authorization;          /* client: until the first batch is out; may be NULL */
    uint32_t initial_flags;                /* client */

    /* Server; fixed when the call is opened. */
    char *peer, *peer_uris;
    struct rpc_metadata *metadata;

    pthread_mutex_t mutex; /* of all below */
    struct rpc_unsent *head, **tail;
    size_t queued, queued_bytes;
    struct rpc_unsent *in_flight; /* the message of the batch that is out */
    bool sending;                 /* a batch is out, or about to be */
    bool sent_metadata;           /* server */
    bool last_asked; /* rpc_finish or rpc_half_close was called: nothing may be queued */
    bool last_sent;  /* and the batch that says so was started */
    bool broken;     /* cancelled, over, or a batch failed: nothing more is sent */
    bool deaf;       /* cancelled here: nothing more is delivered */
    bool over;       /* gRPC has told the end: no batch may start */
    enum rpc_code finish_code;
    char *finish_message;
    int64_t handed_ns;     /* when in_flight was given to the transport */
    int retry_ms;          /* told beside them; 0: not */
    enum rpc_code refused; /* not RPC_OK: the runtime ended the call for what came in */
};

/* A handle with one reference, counted in rpc.live. */
struct rpc_call *rpc_call_create(struct rpc *r);
/* Undoes it for a call that never began. */
void rpc_call_discard(struct rpc_call *call);
/* Both sides: posts the batch that completes when the call ends. */
void rpc_call_watch_end(struct rpc_call *call);
/* Posts the next RECV_MESSAGE; `receiving` was set before. A client's first carries its metadata.
 */
void rpc_call_receive(struct rpc_call *call);
/* Cancelled here, or finished: no more messages are to be delivered. (The last ones may well come
 * after the end: completions are not ordered.) */
bool rpc_call_is_deaf(struct rpc_call *call);

/* --- rpc_server.c --- */

void rpc_server_call_gone(struct rpc_server *s); /* rpc.mutex is held */
/* Whether a method of this service ("witan.cluster.v1.Cluster") is served here. */
bool rpc_server_has_service(const struct rpc_server *s, const char *service);
struct rpc_health *rpc_server_health(struct rpc_server *s);

/* --- rpc_health.c: the standard health service --- */

struct rpc_health;
extern const struct rpc_method rpc_health_methods[];
extern const size_t rpc_health_method_count;

struct rpc_health *rpc_health_create(void);
void rpc_health_destroy(struct rpc_health *h);
void rpc_health_set(struct rpc_health *h, bool serving);
/* NOT_SERVING from now on; ends the watching calls. */
void rpc_health_stop(struct rpc_health *h);

/* --- rpc_texts.c --- */

/* Whether no string of a packed message has a NUL in it, those of the messages in it included.
 * False too for what is no message. */
bool rpc_texts_are_whole(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t len);

/* --- rpc_tls.c --- */

/* NULL or without any text: plaintext. Says by name which text does not parse. */
enum status rpc_tls_server_credentials(const struct rpc_tls *tls, grpc_server_credentials **out,
                                       struct error *err);
enum status rpc_tls_channel_credentials(const struct rpc_tls *tls, grpc_channel_credentials **out,
                                        struct error *err);
/* The URI names of the peer's certificate, '\n' between them; malloc'd. */
char *rpc_tls_peer_uris(grpc_call *call);

#endif
