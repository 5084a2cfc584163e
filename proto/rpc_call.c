/*
 * A call, the same on both sides. At most one batch of each kind is out: one that receives (its
 * completion posts the next), one that sends (whoever finds none out starts it, in his own thread,
 * and its completion starts the next), and one that completes when the call is over. The call is
 * closed when it is over and the other two are back; on_closed and all others run on the rpc
 * thread.
 */
#include "proto/rpc_private.h"

#include "base/check.h"
#include "base/clock.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STATUS_TEXT = 2048 }; /* its metadata grows by up to three when encoded */

static void on_received(void *owner, bool ok);
static void on_sent(void *owner, bool ok);
static void on_ended(void *owner, bool ok);

/* --- life --- */

struct rpc_call *rpc_call_create(struct rpc *r)
{
    struct rpc_call *call = check_calloc(1, sizeof *call);
    call->rpc = r;
    call->received = (struct rpc_tag){on_received, call};
    call->sent = (struct rpc_tag){on_sent, call};
    call->ended = (struct rpc_tag){on_ended, call};
    call->tail = &call->head;
    call->details = grpc_empty_slice();
    grpc_metadata_array_init(&call->initial);
    grpc_metadata_array_init(&call->trailing);
    grpc_call_details_init(&call->request);
    atomic_init(&call->refs, 1);
    atomic_init(&call->user, NULL);
    pthread_mutex_init(&call->mutex, NULL);
    pthread_mutex_lock(&r->mutex);
    r->live++;
    pthread_mutex_unlock(&r->mutex);
    return call;
}

struct rpc_call *rpc_call_ref(struct rpc_call *call)
{
    atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
    return call;
}

void rpc_call_unref(struct rpc_call *call)
{
    if (!call || atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (struct rpc_metadata *m = call->metadata; m;) {
        struct rpc_metadata *next = m->next;
        free(m);
        m = next;
    }
    pthread_mutex_destroy(&call->mutex);
    free(call->peer);
    free(call->peer_uris);
    free(call->finish_message);
    free(call);
}

uint32_t rpc_deadline_ms(const struct rpc_call *call)
{
    gpr_timespec end = call->request.deadline;
    if (gpr_time_cmp(end, gpr_inf_future(end.clock_type)) == 0)
        return 0;
    int32_t left = gpr_time_to_millis(gpr_time_sub(end, gpr_now(end.clock_type)));
    return left < 1 ? 1 : (uint32_t)left;
}

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    atomic_store(&call->user, user);
}

void *rpc_call_user(const struct rpc_call *call)
{
    return atomic_load(&call->user);
}

/* Gives back all that is gRPC's: the handle may outlive the runtime. */
void rpc_call_discard(struct rpc_call *call)
{
    struct rpc *r = call->rpc;
    struct rpc_server *s = call->server;
    if (call->grpc)
        grpc_call_unref(call->grpc);
    call->grpc = NULL;
    grpc_metadata_array_destroy(&call->initial);
    grpc_metadata_array_destroy(&call->trailing);
    grpc_call_details_destroy(&call->request);
    grpc_slice_unref(call->details);
    rpc_call_unref(call);
    pthread_mutex_lock(&r->mutex);
    r->live--;
    if (s)
        rpc_server_call_gone(s);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

static void start_batch(struct rpc_call *call, const grpc_op *ops, size_t count,
                        struct rpc_tag *tag)
{
    grpc_call *grpc = call->grpc; /* the call may be closed before the last line returns */
    RPC_HAND_OVER(tag);
    grpc_call_error e = grpc_call_start_batch(grpc, ops, count, tag, NULL);
    CHECK(e == GRPC_CALL_OK, "a batch of %zu: %s", count, grpc_call_error_to_string(e));
}

/* --- the end --- */

static void tell_closed(struct rpc_call *call)
{
    if (!call->handlers.on_closed)
        return;
    void *user = rpc_call_user(call);
    if (call->server) {
        enum rpc_code code = call->refused     ? call->refused
                             : call->cancelled ? RPC_CANCELLED
                                               : RPC_OK;
        call->handlers.on_closed(call, user, (int)code, code == RPC_OK ? "" : "the call was ended");
        return;
    }
    char *details = grpc_slice_to_c_string(call->details);
    call->handlers.on_closed(call, user, (int)call->status, details);
    gpr_free(details);
}

static void close_if_done(struct rpc_call *call)
{
    pthread_mutex_lock(&call->mutex);
    bool done = call->over && !call->sending && !call->receiving;
    pthread_mutex_unlock(&call->mutex);
    if (!done)
        return;
    tell_closed(call);
    rpc_call_discard(call);
}

/* The mutex is held. */
static void drop_queue(struct rpc_call *call)
{
    while (call->head) {
        struct rpc_unsent *m = call->head;
        call->head = m->next;
        grpc_byte_buffer_destroy(m->buffer);
        free(m);
    }
    call->tail = &call->head;
    call->queued = call->queued_bytes = 0;
}

static void on_ended(void *owner, bool ok)
{
    (void)ok;
    struct rpc_call *call = owner;
    pthread_mutex_lock(&call->mutex);
    call->over = call->broken = true;
    drop_queue(call);
    pthread_mutex_unlock(&call->mutex);
    close_if_done(call);
}

void rpc_call_watch_end(struct rpc_call *call)
{
    grpc_op op = {0};
    if (call->server) {
        op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        op.data.recv_close_on_server.cancelled = &call->cancelled;
    } else {
        op.op = GRPC_OP_RECV_STATUS_ON_CLIENT;
        op.data.recv_status_on_client.trailing_metadata = &call->trailing;
        op.data.recv_status_on_client.status = &call->status;
        op.data.recv_status_on_client.status_details = &call->details;
    }
    start_batch(call, &op, 1, &call->ended);
}

/* Under the mutex, so that the call is not closed meanwhile: gRPC calls nothing back from here. */
static void cancel(struct rpc_call *call, enum rpc_code code, const char *why)
{
    pthread_mutex_lock(&call->mutex);
    if (!call->over && !call->broken) {
        call->broken = call->deaf = true;
        drop_queue(call);
        grpc_call_cancel_with_status(call->grpc, (grpc_status_code)code, why, NULL);
    }
    pthread_mutex_unlock(&call->mutex);
}

void rpc_cancel(struct rpc_call *call)
{
    cancel(call, RPC_CANCELLED, "cancelled");
}

bool rpc_call_is_deaf(struct rpc_call *call)
{
    pthread_mutex_lock(&call->mutex);
    bool deaf = call->deaf || (call->server && call->last_asked);
    pthread_mutex_unlock(&call->mutex);
    return deaf;
}

/* --- sending --- */

/* What the next batch of sending holds; the mutex is held. */
struct outgoing {
    bool metadata, last;
    struct rpc_unsent *message;
    uint32_t flags;
};

static bool take_outgoing(struct rpc_call *call, struct outgoing *out)
{
    *out = (struct outgoing){.message = call->head};
    if (call->sending || call->broken)
        return false;
    bool more = out->message && out->message->next;
    out->last = call->last_asked && !call->last_sent && !more;
    if (!out->message && !out->last)
        return false;
    if (out->message) {
        call->head = out->message->next;
        if (!call->head)
            call->tail = &call->head;
        call->queued--;
        call->queued_bytes -= out->message->bytes;
        out->flags = more ? GRPC_WRITE_BUFFER_HINT : 0;
    }
    out->metadata = call->server && !call->sent_metadata;
    call->in_flight = out->message;
    call->handed_ns = clock_now_ns();
    call->sending = call->sent_metadata = true;
    call->last_sent |= out->last;
    return true;
}

/* Starts the next batch if there is something to send and none is out. In its last batch a call's
 * finish_code and finish_message are fixed. */
static void pump(struct rpc_call *call)
{
    struct outgoing out;
    pthread_mutex_lock(&call->mutex);
    bool any = take_outgoing(call, &out);
    pthread_mutex_unlock(&call->mutex);
    if (!any)
        return;
    grpc_op ops[3] = {0};
    size_t count = 0;
    grpc_slice text = grpc_empty_slice();
    grpc_metadata trailer = {.key = grpc_empty_slice(), .value = grpc_empty_slice()};
    char retry[16];
    if (out.metadata)
        ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (out.message) {
        ops[count].op = GRPC_OP_SEND_MESSAGE;
        ops[count].flags = out.flags;
        ops[count++].data.send_message.send_message = out.message->buffer;
    }
    if (out.last && call->server) {
        if (call->finish_message)
            text = grpc_slice_from_copied_string(call->finish_message);
        ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
        ops[count].data.send_status_from_server.status = (grpc_status_code)call->finish_code;
        ops[count].data.send_status_from_server.status_details = &text;
        if (call->retry_ms > 0) {
            snprintf(retry, sizeof retry, "%d", call->retry_ms);
            trailer.key = grpc_slice_from_static_string("grpc-retry-pushback-ms");
            trailer.value = grpc_slice_from_copied_string(retry);
            ops[count].data.send_status_from_server.trailing_metadata_count = 1;
            ops[count].data.send_status_from_server.trailing_metadata = &trailer;
        }
        count++;
    } else if (out.last) {
        ops[count++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    }
    start_batch(call, ops, count, &call->sent);
    grpc_slice_unref(trailer.value);
    grpc_slice_unref(text);
}

static void on_sent(void *owner, bool ok)
{
    struct rpc_call *call = owner;
    pthread_mutex_lock(&call->mutex);
    struct rpc_unsent *m = call->in_flight;
    call->in_flight = NULL;
    call->sending = false;
    if (!ok) { /* the stream is gone; its end is on the way */
        call->broken = true;
        drop_queue(call);
    }
    bool drained = m && !call->broken && !call->head && !call->last_asked;
    pthread_mutex_unlock(&call->mutex);
    if (m) {
        grpc_byte_buffer_destroy(m->buffer);
        free(m);
    }
    pump(call);
    if (drained && call->handlers.on_drained)
        call->handlers.on_drained(call, rpc_call_user(call));
    close_if_done(call);
}

static struct rpc_unsent *pack(const ProtobufCMessage *message, size_t bytes)
{
    grpc_slice slice = grpc_slice_malloc(bytes);
    protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    struct rpc_unsent *m = check_calloc(1, sizeof *m);
    m->buffer = grpc_raw_byte_buffer_create(&slice, 1);
    m->bytes = bytes;
    grpc_slice_unref(slice);
    return m;
}

static enum status enqueue(struct rpc_call *call, struct rpc_unsent *m, struct error *err)
{
    if (call->broken || call->last_asked)
        return error_set(err, ERR_CANCELLED, "the call has ended");
    if (call->queued >= RPC_MAX_QUEUED || call->queued_bytes + m->bytes > RPC_MAX_QUEUED_BYTES)
        return error_set(err, ERR_LIMIT,
                         "the call's queue is full: %zu messages of %zu bytes wait for the peer",
                         call->queued, call->queued_bytes);
    *call->tail = m;
    call->tail = &m->next;
    call->queued++;
    call->queued_bytes += m->bytes;
    return OK;
}

enum status rpc_send(struct rpc_call *call, const ProtobufCMessage *message, struct error *err)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    if (bytes > RPC_MAX_QUEUED_BYTES)
        return error_set(err, ERR_LIMIT, "a message of %zu bytes: at most %d are sent", bytes,
                         RPC_MAX_QUEUED_BYTES);
    struct rpc_unsent *m = pack(message, bytes);
    pthread_mutex_lock(&call->mutex);
    enum status st = enqueue(call, m, err);
    pthread_mutex_unlock(&call->mutex);
    if (st == OK) {
        pump(call);
        return OK;
    }
    grpc_byte_buffer_destroy(m->buffer);
    free(m);
    return st;
}

size_t rpc_queued(struct rpc_call *call)
{
    pthread_mutex_lock(&call->mutex);
    size_t queued = call->queued + (call->in_flight ? 1 : 0);
    pthread_mutex_unlock(&call->mutex);
    return queued;
}

int64_t rpc_stalled_ns(struct rpc_call *call)
{
    pthread_mutex_lock(&call->mutex);
    int64_t since = call->in_flight ? call->handed_ns : 0;
    pthread_mutex_unlock(&call->mutex);
    return since > 0 ? clock_now_ns() - since : 0;
}

/* A copy of at most MAX_STATUS_TEXT bytes, cut between characters. */
static char *status_text(const char *message)
{
    size_t n = strlen(message);
    if (n > MAX_STATUS_TEXT) {
        n = MAX_STATUS_TEXT;
        while (n > 0 && ((unsigned char)message[n] & 0xc0) == 0x80)
            n--;
    }
    char *text = check_calloc(n + 1, 1);
    memcpy(text, message, n);
    return text;
}

static void finish(struct rpc_call *call, enum rpc_code code, const char *message, bool refuse)
{
    pthread_mutex_lock(&call->mutex);
    if (!call->broken && !call->last_asked) {
        call->last_asked = true;
        call->finish_code = code;
        call->finish_message = message ? status_text(message) : NULL;
        call->refused = refuse ? code : RPC_OK;
    }
    pthread_mutex_unlock(&call->mutex);
    pump(call);
}

void rpc_finish(struct rpc_call *call, enum rpc_code code, const char *message)
{
    CHECK(call->server, "rpc_finish on a client's call");
    finish(call, code, message, false);
}

void rpc_finish_retry(struct rpc_call *call, enum rpc_code code, const char *message, int retry_ms)
{
    pthread_mutex_lock(&call->mutex);
    if (!call->last_asked)
        call->retry_ms = retry_ms;
    pthread_mutex_unlock(&call->mutex);
    rpc_finish(call, code, message);
}

void rpc_half_close(struct rpc_call *call)
{
    CHECK(!call->server, "rpc_half_close on a server's call");
    finish(call, RPC_OK, NULL, false);
}

/* --- receiving --- */

void rpc_call_receive(struct rpc_call *call)
{
    grpc_op ops[3] = {0};
    size_t count = 0;
    if (!call->server && !call->asked_metadata) {
        call->asked_metadata = true;
        ops[count].op = GRPC_OP_SEND_INITIAL_METADATA;
        ops[count].flags = call->initial_flags;
        ops[count].data.send_initial_metadata.count = call->authorization ? 1 : 0;
        ops[count++].data.send_initial_metadata.metadata = call->authorization;
        ops[count].op = GRPC_OP_RECV_INITIAL_METADATA;
        ops[count++].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
    }
    ops[count].op = GRPC_OP_RECV_MESSAGE;
    ops[count++].data.recv_message.recv_message = &call->in;
    start_batch(call, ops, count, &call->received);
}

static ProtobufCMessage *unpack_slice(const ProtobufCMessageDescriptor *type, grpc_slice slice)
{
    const uint8_t *data = GRPC_SLICE_START_PTR(slice);
    size_t len = GRPC_SLICE_LENGTH(slice);
    return rpc_texts_are_whole(type, data, len) ? protobuf_c_message_unpack(type, NULL, len, data)
                                                : NULL;
}

/* NULL when it does not parse. A message in one slice, as most are, is not copied. */
static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *type, grpc_byte_buffer *buffer)
{
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, buffer))
        return NULL;
    ProtobufCMessage *message;
    grpc_slice *only;
    if (grpc_byte_buffer_reader_peek(&reader, &only) &&
        GRPC_SLICE_LENGTH(*only) == grpc_byte_buffer_length(buffer)) {
        message = unpack_slice(type, *only);
    } else {
        grpc_byte_buffer_reader_destroy(&reader);
        if (!grpc_byte_buffer_reader_init(&reader, buffer))
            return NULL;
        grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
        message = unpack_slice(type, all);
        grpc_slice_unref(all);
    }
    grpc_byte_buffer_reader_destroy(&reader);
    return message;
}

static void refuse(struct rpc_call *call, enum rpc_code code, const char *why)
{
    if (call->server)
        finish(call, code, why, true);
    else
        cancel(call, code, why);
}

static void deliver(struct rpc_call *call, grpc_byte_buffer *buffer)
{
    if (rpc_call_is_deaf(call))
        return;
    ProtobufCMessage *message = unpack(call->incoming, buffer);
    if (!message) {
        char why[256];
        snprintf(why, sizeof why, "the message is not a %s", call->incoming->name);
        refuse(call, RPC_INVALID_ARGUMENT, why);
        return;
    }
    call->delivering = message;
    if (call->handlers.on_message)
        call->handlers.on_message(call, rpc_call_user(call), message);
    protobuf_c_message_free_unpacked(call->delivering, NULL);
    call->delivering = NULL;
}

ProtobufCMessage *rpc_keep_message(struct rpc_call *call, const ProtobufCMessage *message)
{
    ProtobufCMessage *kept = call->delivering;
    CHECK(kept && kept == message, "not the message that is being delivered");
    call->delivering = NULL;
    return kept;
}

/* The client has sent all; or the call failed, which on_ended will tell. */
static void deliver_half_close(struct rpc_call *call, bool ok)
{
    if (!call->server || !ok || grpc_call_failed_before_recv_message(call->grpc) ||
        rpc_call_is_deaf(call))
        return;
    if (!call->method->client_streams)
        refuse(call, RPC_INVALID_ARGUMENT, "the call carries no message");
    else if (call->handlers.on_half_close)
        call->handlers.on_half_close(call, rpc_call_user(call));
}

static void on_received(void *owner, bool ok)
{
    struct rpc_call *call = owner;
    grpc_byte_buffer *buffer = call->in;
    call->in = NULL;
    if (!buffer) { /* after the last message, and on failure */
        call->receiving = false;
        deliver_half_close(call, ok);
        close_if_done(call);
        return;
    }
    deliver(call, buffer);
    grpc_byte_buffer_destroy(buffer);
    /* A client reads to the end, since the status comes after; a server may leave the rest. */
    if (call->server && (!call->method->client_streams || rpc_call_is_deaf(call))) {
        call->receiving = false;
        close_if_done(call);
    } else {
        rpc_call_receive(call);
    }
}
