/*
 * A coordinator's core without a network: the functions of proto/rpc.h that it uses, played by the
 * fuzzer, so that bytes go through unpacking, the service's callbacks and the event loop's work as
 * they would, in one thread. (Linked statically, these take the place of the runtime's own.)
 */
#ifndef WITAN_TESTS_FUZZ_FAKE_RPC_H
#define WITAN_TESTS_FUZZ_FAKE_RPC_H

#include "base/check.h"
#include "base/log.h"
#include "coordinator/inference.h"
#include "coordinator/members.h"
#include "proto/cluster.pb-c.h"
#include "proto/rpc.h"

#include <stdlib.h>
#include <string.h>

struct rpc_call {
    const struct rpc_method *method;
    void *user;
    bool finished;
    size_t sent;
    ProtobufCMessage *last; /* what was sent last, read back; NULL unless it keeps it */
    bool keeps;
    bool full; /* nobody reads what is sent */
};

static const struct rpc_method *fake_methods; /* of the server created last */

enum status rpc_server_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                              const struct rpc_method *methods, size_t method_count,
                              struct rpc_server **out, struct error *err)
{
    (void)r, (void)address, (void)tls, (void)method_count, (void)err;
    fake_methods = methods;
    *out = NULL;
    return OK;
}

int rpc_server_port(const struct rpc_server *s)
{
    (void)s;
    return 1;
}

void rpc_server_set_serving(struct rpc_server *s, bool serving)
{
    (void)s, (void)serving;
}

void rpc_server_stop(struct rpc_server *s, int grace_ms)
{
    (void)s, (void)grace_ms;
}

struct rpc_call *rpc_call_ref(struct rpc_call *call)
{
    return call;
}

void rpc_call_unref(struct rpc_call *call)
{
    (void)call;
}

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    call->user = user;
}

const char *rpc_peer(const struct rpc_call *call)
{
    (void)call;
    return "a fuzzer";
}

const char *rpc_peer_uris(const struct rpc_call *call)
{
    (void)call;
    return "urn:witan:worker:*:*:\nurn:witan:coordinator";
}

uint32_t rpc_deadline_ms(const struct rpc_call *call)
{
    (void)call;
    return 0;
}

const char *rpc_metadata(const struct rpc_call *call, const char *key)
{
    (void)call, (void)key;
    return NULL;
}

const char *rpc_code_name(int code)
{
    (void)code;
    return "CODE";
}

enum rpc_code rpc_code_of(enum status st)
{
    return st == OK ? RPC_OK : RPC_INTERNAL;
}

/* What is sent must pack. */
enum status rpc_send(struct rpc_call *call, const ProtobufCMessage *message, struct error *err)
{
    if (call->finished)
        return error_set(err, ERR_CANCELLED, "the call has ended");
    if (call->full)
        return error_set(err, ERR_LIMIT, "the call's queue is full");
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes && protobuf_c_message_pack(message, bytes) == size, "%zu bytes", size);
    if (call->last)
        protobuf_c_message_free_unpacked(call->last, NULL);
    call->last = call->keeps ? protobuf_c_message_unpack(message->descriptor, NULL, size, bytes)
                             : NULL;
    CHECK(!call->keeps || call->last, "what was packed does not unpack");
    free(bytes);
    call->sent++;
    return OK;
}

void rpc_finish(struct rpc_call *call, enum rpc_code code, const char *message)
{
    (void)code;
    CHECK(!message || !strchr(message, '\n'), "a message of several lines");
    call->finished = true;
}

void rpc_cancel(struct rpc_call *call)
{
    call->finished = true;
}

int64_t rpc_stalled_ns(struct rpc_call *call)
{
    (void)call;
    return 0;
}

void rpc_finish_retry(struct rpc_call *call, enum rpc_code code, const char *message, int retry_ms)
{
    CHECK(retry_ms > 0, "%d ms", retry_ms);
    rpc_finish(call, code, message);
}

/* --- the client's side: one call at a time ---------------------------------------------------- */

static struct rpc_call fake_client; /* the call that was started last */

enum status rpc_channel_create(struct rpc *r, const char *address, const struct rpc_tls *tls,
                               struct rpc_channel **out, struct error *err)
{
    (void)r, (void)address, (void)tls, (void)err;
    *out = NULL;
    return OK;
}

void rpc_channel_destroy(struct rpc_channel *c)
{
    (void)c;
}

enum status rpc_call_start(struct rpc_channel *c, const char *method,
                           const ProtobufCMessageDescriptor *reply,
                           const struct rpc_call_handlers *handlers, void *user, int deadline_ms,
                           bool wait_ready, const char *authorization, struct rpc_call **out,
                           struct error *err)
{
    static struct rpc_method played; /* as a server's call has it */
    (void)c, (void)method, (void)deadline_ms, (void)wait_ready, (void)authorization, (void)err;
    played = (struct rpc_method){.request = reply, .handlers = *handlers};
    fake_client = (struct rpc_call){.method = &played, .user = user};
    *out = &fake_client;
    return OK;
}

void rpc_half_close(struct rpc_call *call)
{
    call->finished = true;
}

static ProtobufCMessage *fake_kept; /* the message that is being delivered, unless it was kept */

ProtobufCMessage *rpc_keep_message(struct rpc_call *call, const ProtobufCMessage *message)
{
    (void)call;
    CHECK(fake_kept == message, "another message");
    fake_kept = NULL;
    return (ProtobufCMessage *)message;
}

/* --- what fuzzers call --- */

/* `more`: of cluster.yaml. */
static struct core *fake_core_of(void (*notify)(const char *group, const char *state,
                                                const char *message),
                                 const char *more)
{
    static struct config config;
    struct error err;
    struct loop *loop;
    struct core *core;
    char yaml[4096];
    log_set_level(LOG_ERROR + 1);
    snprintf(yaml, sizeof yaml,
             "model: {path: %s, name: lexicon}\nlimits: {context: 128, "
             "requests: 8}\n%s",
             WITAN_SOURCE_DIR "/deploy/lexicon/model", more);
    CHECK(config_init(&config, &err) == OK &&
              config_read_text("fuzz", yaml, strlen(yaml), &config, &err) == OK &&
              config_check(&config, &err) == OK && loop_create(&loop, &err) == OK &&
              core_create(&config, loop, &core, &err) == OK,
          "%s", err.msg);
    CHECK(members_create(core, NULL, NULL, notify, &core->members, &err) == OK, "%s", err.msg);
    return core;
}

static inline struct core *fake_core(void (*notify)(const char *group, const char *state,
                                                    const char *message))
{
    return fake_core_of(notify, "");
}

static void fake_open(struct rpc_call *call, const struct rpc_method *method, struct core *core)
{
    *call = (struct rpc_call){.method = method};
    method->on_open(call, method->arg);
    loop_drain(core->loop);
}

/* Unpacks and delivers as the runtime does; false when the bytes are no message. */
static bool fake_deliver(struct rpc_call *call, const uint8_t *bytes, size_t len, struct core *core)
{
    ProtobufCMessage *m = protobuf_c_message_unpack(call->method->request, NULL, len, bytes);
    if (!m)
        return false;
    fake_kept = m;
    if (!call->finished)
        call->method->handlers.on_message(call, call->user, m);
    if (fake_kept)
        protobuf_c_message_free_unpacked(m, NULL);
    fake_kept = NULL;
    loop_drain(core->loop);
    return true;
}

static void fake_close(struct rpc_call *call, struct core *core)
{
    call->method->handlers.on_closed(call, call->user, RPC_CANCELLED, "");
    loop_drain(core->loop);
}

/* Packs and delivers. */
static inline void fake_deliver_message(struct rpc_call *call, const ProtobufCMessage *m,
                                        struct core *core)
{
    uint8_t bytes[65536];
    size_t len = protobuf_c_message_get_packed_size(m);
    CHECK(len <= sizeof bytes, "%zu bytes", len);
    protobuf_c_message_pack(m, bytes);
    CHECK(fake_deliver(call, bytes, len, core), "it packs but does not unpack");
}

/* The next piece of the input: two bytes of length, then so many bytes (or what is left). */
static inline bool fake_piece(const uint8_t **data, size_t *size, const uint8_t **piece,
                              size_t *len)
{
    if (*size < 2)
        return false;
    *len = (size_t)(*data)[0] << 8 | (*data)[1];
    *len = *len < *size - 2 ? *len : *size - 2;
    *piece = *data + 2;
    *data += 2 + *len;
    *size -= 2 + *len;
    return true;
}

#endif
