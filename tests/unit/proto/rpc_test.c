/* The RPC runtime over plaintext: calls of each kind, how they end, what comes in, the send queue.
 */
#include "tests/unit/proto/rpc_fixture.h"

/* --- calls --- */

static void unary_call(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_list_models(w.channel, WAIT_MS, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void server_stream_in_order(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_generate(w.channel, "qwen3", 20000, 0, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 20000);
    assert_false(s.out_of_order);
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void bidi_ping_pong(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    call_attach(w.channel, &s);
    for (int i = 0; i < 1000; i++) {
        assert_ok(send_heartbeat(s.call, (uint64_t)i, &err));
        assert_true(seen_reaches(&s, &s.messages, i + 1, WAIT_MS));
    }
    assert_int_equal(seen_get(&s, &s.closed), 0);
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    seen_ended(&w.seen, RPC_OK);
    assert_false(s.out_of_order);
    assert_false(w.seen.out_of_order);
    assert_int_equal(w.seen.half_closes, 1);
    seen_fini(&s);
    world_close(&w);
}

static void half_close_alone(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_attach(w.channel, &s);
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 0);
    assert_int_equal(w.seen.half_closes, 1);
    seen_fini(&s);
    world_close(&w);
}

static void unary_without_message_is_invalid(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    call_method(w.channel, LIST_MODELS, &witan__inference__v1__list_models_response__descriptor, 0,
                &s);
    rpc_half_close(s.call);
    seen_ended(&s, RPC_INVALID_ARGUMENT);
    seen_ended(&w.seen, RPC_INVALID_ARGUMENT);
    seen_fini(&s);
    world_close(&w);
}

static void status_and_text_of_the_server(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    rpc_finish(w.seen.call, RPC_NOT_FOUND, "no model \"Bär\" here\n100 %");
    rpc_finish(w.seen.call, RPC_INTERNAL, "a second end does nothing");
    seen_ended(&s, RPC_NOT_FOUND);
    assert_string_equal(s.text, "no model \"Bär\" here\n100 %");
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void long_status_text_is_cut(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    static char text[60001];
    for (int i = 0; i < 60000; i += 3)
        memcpy(text + i, "€", 3);
    world_open(&w);
    open_generate(&w, 0, &s);
    rpc_finish(w.seen.call, RPC_INTERNAL, text);
    seen_ended(&s, RPC_INTERNAL);
    assert_int_equal(strncmp(s.text, text, 500), 0);
    seen_fini(&s);
    world_close(&w);
}

static void deadline_ends_both_sides(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    int64_t start = clock_now_ns();
    open_generate(&w, 300, &s);
    seen_ended(&s, RPC_DEADLINE_EXCEEDED);
    assert_in_range(ms_since(start), 290, 5000);
    seen_ended(&w.seen, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

static void client_cancels(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    rpc_cancel(s.call);
    assert_int_equal(send_heartbeat(s.call, 0, &err), ERR_CANCELLED);
    seen_ended(&s, RPC_CANCELLED);
    seen_ended(&w.seen, RPC_CANCELLED);
    assert_int_equal(send_id(w.seen.call, 0, &err), ERR_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

static void server_cancels(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    rpc_cancel(w.seen.call);
    rpc_cancel(w.seen.call);
    seen_ended(&s, RPC_CANCELLED);
    seen_ended(&w.seen, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

static void refuse_in_open(struct rpc_call *call, void *arg)
{
    on_open_served(call, arg);
    rpc_finish(call, RPC_UNAUTHENTICATED, "a key is needed");
}

static void refused_when_opened(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    w.methods[2].on_open = refuse_in_open;
    call_attach(w.channel, &s);
    for (int i = 0; i < 100 && send_heartbeat(s.call, 0, &err) == OK; i++)
        sleep_ms(1);
    seen_ended(&s, RPC_UNAUTHENTICATED);
    assert_string_equal(s.text, "a key is needed");
    seen_ended(&w.seen, RPC_OK);
    assert_int_equal(w.seen.messages, 0);
    seen_fini(&s);
    world_close(&w);
}

static void unknown_method_is_refused_at_once(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    int64_t start = clock_now_ns();
    call_method(w.channel, "/witan.inference.v1.Inference/Nothing",
                &witan__inference__v1__list_models_response__descriptor, 0, &s);
    seen_ended(&s, RPC_UNIMPLEMENTED);
    assert_in_range(ms_since(start), 0, 2000);
    seen_fini(&s);
    /* And there are accepts left for more such calls than are out at once. */
    for (int i = 0; i < 50; i++) {
        call_method(w.channel, "/", &witan__inference__v1__list_models_response__descriptor, 0, &s);
        seen_ended(&s, RPC_UNIMPLEMENTED);
        seen_fini(&s);
    }
    assert_int_equal(w.seen.opened, 0);
    list_models_works(w.channel);
    world_close(&w);
}

/* --- what comes in --- */

static void garbage_from_client_is_invalid(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    /* Field 1 of a Wake is a number, of a GenerateRequest a string. */
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    wake.generation = 7;
    world_open(&w);
    call_method(w.channel, GENERATE, &witan__inference__v1__generate_response__descriptor, 0, &s);
    assert_ok(rpc_send(s.call, &wake.base, &err));
    seen_ended(&s, RPC_INVALID_ARGUMENT);
    assert_non_null(strstr(s.text, "GenerateRequest"));
    seen_ended(&w.seen, RPC_INVALID_ARGUMENT);
    assert_int_equal(w.seen.messages, 0);
    seen_fini(&s);
    world_close(&w);
}

static void truncated_message_is_invalid(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    uint8_t length_without_bytes[] = {0xff, 0xff, 0xff, 0x07};
    ProtobufCMessageUnknownField field = {1, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
                                          sizeof length_without_bytes, length_without_bytes};
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    m.base.unknown_fields = &field;
    m.base.n_unknown_fields = 1;
    world_open(&w);
    call_attach(w.channel, &s);
    assert_ok(rpc_send(s.call, &m.base, &err));
    seen_ended(&s, RPC_INVALID_ARGUMENT);
    seen_ended(&w.seen, RPC_INVALID_ARGUMENT);
    seen_fini(&s);
    world_close(&w);
}

static void garbage_from_server_is_invalid(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    request.max_tokens = 1000;
    world_open(&w);
    call_method(w.channel, GENERATE, &witan__cluster__v1__wake__descriptor, 0, &s);
    assert_ok(rpc_send(s.call, &request.base, &err));
    seen_ended(&s, RPC_INVALID_ARGUMENT);
    assert_int_equal(s.messages, 0);
    assert_true(seen_reaches(&w.seen, &w.seen.closed, 1, WAIT_MS));
    seen_fini(&s);
    world_close(&w);
}

static void oversized_request_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    char *text = long_text(RPC_MAX_MESSAGE_BYTES);
    world_open(&w);
    call_generate(w.channel, text, 0, 0, &s);
    seen_ended(&s, RPC_RESOURCE_EXHAUSTED);
    seen_ended(&w.seen, RPC_CANCELLED);
    assert_int_equal(w.seen.messages, 0);
    seen_fini(&s);
    list_models_works(w.channel);
    world_close(&w);
    free(text);
}

static void oversized_reply_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    char *text = long_text(RPC_MAX_MESSAGE_BYTES);
    world_open(&w);
    w.reply = text;
    call_list_models(w.channel, 0, &s);
    seen_ended(&s, RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(s.messages, 0);
    assert_true(seen_reaches(&w.seen, &w.seen.closed, 1, WAIT_MS));
    seen_fini(&s);
    world_close(&w);
    free(text);
}

static void message_just_under_the_limit(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    char *text = long_text(RPC_MAX_MESSAGE_BYTES - 64);
    world_open(&w);
    call_generate(w.channel, text, 3, 0, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 3);
    seen_fini(&s);
    world_close(&w);
    free(text);
}

static void metadata_and_peer_reach_the_server(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    seen_init(&s);
    assert_ok(rpc_call_start(w.channel, ATTACH,
                             &witan__cluster__v1__coordinator_message__descriptor, &seen_handlers,
                             &s, 0, false, "Bearer k-123", &s.call, &err));
    assert_true(seen_reaches(&w.seen, &w.seen.opened, 1, WAIT_MS));
    assert_string_equal(rpc_metadata(w.seen.call, "authorization"), "Bearer k-123");
    assert_null(rpc_metadata(w.seen.call, "cookie"));
    assert_int_equal(strncmp(rpc_peer(w.seen.call), "ipv4:127.0.0.1:", 15), 0);
    assert_string_equal(rpc_peer_uris(w.seen.call), "");
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    assert_string_equal(rpc_metadata(w.seen.call, "authorization"), "Bearer k-123");
    seen_fini(&s);
    world_close(&w);
}

static void illegal_authorization_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct rpc_call *call = NULL;
    world_open(&w);
    assert_int_equal(rpc_call_start(w.channel, ATTACH,
                                    &witan__cluster__v1__coordinator_message__descriptor,
                                    &seen_handlers, NULL, 0, false, "Bearer a\nb", &call, &err),
                     ERR_INVALID);
    assert_null(call);
    world_close(&w);
}

static void oversized_metadata_is_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    struct rpc_channel *other;
    char *text = long_text(RPC_MAX_METADATA_BYTES);
    world_open(&w);
    seen_init(&s);
    assert_ok(rpc_call_start(w.channel, ATTACH,
                             &witan__cluster__v1__coordinator_message__descriptor, &seen_handlers,
                             &s, 0, false, text, &s.call, &err));
    assert_true(seen_reaches(&s, &s.closed, 1, WAIT_MS));
    assert_int_not_equal(s.code, RPC_OK);
    assert_int_equal(w.seen.opened, 0);
    seen_fini(&s);
    /* gRPC may close the whole connection over it; others are not touched. */
    assert_ok(rpc_channel_create(w.rpc, w.address, NULL, &other, &err));
    list_models_works(other);
    rpc_channel_destroy(other);
    world_close(&w);
    free(text);
}

struct kept {
    struct seen seen; /* first: the handlers of the fixture see this */
    ProtobufCMessage *message;
};

static void on_message_keep(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct kept *k = user;
    k->message = rpc_keep_message(call, message);
    on_reply_seen(call, user, k->message);
}

static void kept_message_outlives_the_call(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct kept k = {0};
    struct rpc_call_handlers handlers = {.on_message = on_message_keep,
                                         .on_closed = on_closed_seen};
    Witan__Inference__V1__ListModelsRequest request =
        WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    world_open(&w);
    seen_init(&k.seen);
    assert_ok(rpc_call_start(w.channel, LIST_MODELS,
                             &witan__inference__v1__list_models_response__descriptor, &handlers, &k,
                             0, false, NULL, &k.seen.call, &err));
    assert_ok(rpc_send(k.seen.call, &request.base, &err));
    seen_ended(&k.seen, RPC_OK);
    world_close(&w);
    const Witan__Inference__V1__ListModelsResponse *m = (const void *)k.message;
    assert_string_equal(m->models[0]->name, "qwen3");
    protobuf_c_message_free_unpacked(k.message, NULL);
    seen_fini(&k.seen);
}

/* --- sending --- */

static void full_queue_is_told_and_the_call_goes_on(void **state)
{
    (void)state;
    struct error err = {0};
    struct gate g = GATE_INIT;
    struct world w;
    struct seen s;
    world_open_gated(&w, &g);
    open_generate(&w, 0, &s);
    gate_set(&g, true);
    for (int i = 0; i < 1 + RPC_MAX_QUEUED; i++)
        assert_ok(send_id(w.seen.call, i, &err));
    assert_int_equal(rpc_queued(w.seen.call), 1 + RPC_MAX_QUEUED);
    assert_int_equal(send_id(w.seen.call, 0, &err), ERR_LIMIT);
    assert_non_null(strstr(err.msg, "full"));
    gate_set(&g, false);
    assert_true(seen_reaches(&s, &s.messages, 1 + RPC_MAX_QUEUED, WAIT_MS));
    assert_true(seen_reaches(&w.seen, &w.seen.drained, 1, WAIT_MS));
    assert_int_equal(rpc_queued(w.seen.call), 0);
    assert_ok(send_id(w.seen.call, 1 + RPC_MAX_QUEUED, &err));
    rpc_finish(w.seen.call, RPC_OK, NULL);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 2 + RPC_MAX_QUEUED);
    assert_false(s.out_of_order);
    seen_fini(&s);
    world_close(&w);
}

static void queue_is_bounded_in_bytes(void **state)
{
    (void)state;
    struct error err = {0};
    struct gate g = GATE_INIT;
    struct world w;
    struct seen s;
    char *text = long_text(15 << 20);
    Witan__Inference__V1__GenerateResponse reply = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    Witan__Inference__V1__Delta delta = WITAN__INFERENCE__V1__DELTA__INIT;
    reply.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA;
    reply.delta = &delta;
    delta.text = text;
    world_open_gated(&w, &g);
    open_generate(&w, 0, &s);
    gate_set(&g, true);
    for (int i = 0; i < 5; i++)
        assert_ok(rpc_send(w.seen.call, &reply.base, &err));
    assert_int_equal(rpc_send(w.seen.call, &reply.base, &err), ERR_LIMIT);
    gate_set(&g, false);
    rpc_finish(w.seen.call, RPC_OK, NULL);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 5);
    seen_fini(&s);
    world_close(&w);
    free(text);
}

static void finish_flushes_the_queue(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    for (int i = 0; i < 2000; i++)
        assert_ok(send_id(w.seen.call, i, &err));
    rpc_finish(w.seen.call, RPC_ABORTED, "after all");
    assert_int_equal(send_id(w.seen.call, 0, &err), ERR_CANCELLED);
    seen_ended(&s, RPC_ABORTED);
    assert_int_equal(s.messages, 2000);
    assert_false(s.out_of_order);
    seen_ended(&w.seen, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

static void half_close_flushes_the_queue(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    call_attach(w.channel, &s);
    for (int i = 0; i < 2000; i++)
        assert_ok(send_heartbeat(s.call, (uint64_t)i, &err));
    rpc_half_close(s.call);
    assert_int_equal(send_heartbeat(s.call, 0, &err), ERR_CANCELLED);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 2000);
    assert_false(s.out_of_order);
    assert_false(w.seen.out_of_order);
    seen_fini(&s);
    world_close(&w);
}

static void handle_outlives_everything(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    struct rpc_call *server_call = rpc_call_ref(w.seen.call), *client_call = rpc_call_ref(s.call);
    rpc_finish(server_call, RPC_OK, NULL);
    seen_ended(&s, RPC_OK);
    seen_fini(&s);
    world_close(&w);
    assert_int_equal(send_id(server_call, 0, &err), ERR_CANCELLED);
    assert_int_equal(send_heartbeat(client_call, 0, &err), ERR_CANCELLED);
    rpc_finish(server_call, RPC_OK, NULL);
    rpc_half_close(client_call);
    rpc_cancel(server_call);
    rpc_cancel(client_call);
    assert_int_equal(rpc_queued(server_call), 0);
    assert_non_null(rpc_peer(server_call));
    rpc_call_unref(server_call);
    rpc_call_unref(client_call);
}

enum { SENDERS = 4, SENT_EACH = 3000, SENDER_STRIDE = 100000 };

struct sender {
    pthread_t thread;
    struct rpc_call *call;
    int number;
};

static void *send_many(void *arg)
{
    struct sender *sender = arg;
    for (int i = 0; i < SENT_EACH; i++) {
        enum status st;
        while ((st = send_id(sender->call, sender->number * SENDER_STRIDE + i, NULL)) == ERR_LIMIT)
            sleep_ms(1);
        CHECK(st == OK, "%s", status_name(st));
    }
    return NULL;
}

struct sorted {
    struct seen seen; /* first */
    int next[SENDERS];
};

static void on_message_sort(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)call;
    struct sorted *s = user;
    int id = ((const Witan__Inference__V1__GenerateResponse *)message)->delta->ids[0];
    int sender = id / SENDER_STRIDE;
    pthread_mutex_lock(&s->seen.mutex);
    s->seen.out_of_order |= s->next[sender]++ != id % SENDER_STRIDE;
    s->seen.messages++;
    pthread_mutex_unlock(&s->seen.mutex);
}

static void several_threads_send(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct sorted s = {0};
    struct sender senders[SENDERS];
    struct rpc_call_handlers handlers = {.on_message = on_message_sort,
                                         .on_closed = on_closed_seen};
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    request.model = "open";
    world_open(&w);
    seen_init(&s.seen);
    assert_ok(rpc_call_start(w.channel, GENERATE,
                             &witan__inference__v1__generate_response__descriptor, &handlers, &s, 0,
                             false, NULL, &s.seen.call, &err));
    assert_ok(rpc_send(s.seen.call, &request.base, &err));
    assert_true(seen_reaches(&w.seen, &w.seen.messages, 1, WAIT_MS));
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.call = w.seen.call, .number = i};
        pthread_create(&senders[i].thread, NULL, send_many, &senders[i]);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    rpc_finish(w.seen.call, RPC_OK, NULL);
    seen_ended(&s.seen, RPC_OK);
    assert_int_equal(s.seen.messages, SENDERS * SENT_EACH);
    assert_false(s.seen.out_of_order);
    seen_fini(&s.seen);
    world_close(&w);
}

/* I/O advances only while somebody is inside gRPC: the sender's own thread writes. */
static void sending_needs_no_rpc_thread(void **state)
{
    (void)state;
    struct error err = {0};
    struct gate g = GATE_INIT;
    struct world w;
    struct seen s;
    struct rpc *rpc;
    struct rpc_channel *channel;
    world_serve(&w, NULL);
    assert_ok(rpc_create(10, gate_tick, &g, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, w.address, NULL, &channel, &err));
    call_attach(channel, &s);
    assert_ok(send_heartbeat(s.call, 0, &err));
    assert_true(seen_reaches(&s, &s.messages, 1, WAIT_MS));
    while (rpc_queued(s.call) > 0)
        sleep_ms(1);
    gate_set(&g, true);
    assert_ok(send_heartbeat(s.call, 1, &err));
    assert_true(seen_reaches(&w.seen, &w.seen.messages, 2, WAIT_MS));
    gate_set(&g, false);
    rpc_half_close(s.call);
    seen_ended(&s, RPC_OK);
    seen_fini(&s);
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
    world_close(&w);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(unary_call),
    cmocka_unit_test(server_stream_in_order),
    cmocka_unit_test(bidi_ping_pong),
    cmocka_unit_test(half_close_alone),
    cmocka_unit_test(unary_without_message_is_invalid),
    cmocka_unit_test(status_and_text_of_the_server),
    cmocka_unit_test(long_status_text_is_cut),
    cmocka_unit_test(deadline_ends_both_sides),
    cmocka_unit_test(client_cancels),
    cmocka_unit_test(server_cancels),
    cmocka_unit_test(refused_when_opened),
    cmocka_unit_test(unknown_method_is_refused_at_once),
    cmocka_unit_test(garbage_from_client_is_invalid),
    cmocka_unit_test(truncated_message_is_invalid),
    cmocka_unit_test(garbage_from_server_is_invalid),
    cmocka_unit_test(oversized_request_is_refused),
    cmocka_unit_test(oversized_reply_is_refused),
    cmocka_unit_test(message_just_under_the_limit),
    cmocka_unit_test(metadata_and_peer_reach_the_server),
    cmocka_unit_test(illegal_authorization_is_refused),
    cmocka_unit_test(oversized_metadata_is_refused),
    cmocka_unit_test(kept_message_outlives_the_call),
    cmocka_unit_test(full_queue_is_told_and_the_call_goes_on),
    cmocka_unit_test(queue_is_bounded_in_bytes),
    cmocka_unit_test(finish_flushes_the_queue),
    cmocka_unit_test(half_close_flushes_the_queue),
    cmocka_unit_test(handle_outlives_everything),
    cmocka_unit_test(several_threads_send),
    cmocka_unit_test(sending_needs_no_rpc_thread),
};

UNIT_MAIN(tests)
