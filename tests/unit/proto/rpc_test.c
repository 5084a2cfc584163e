/* The RPC runtime over plaintext: calls of each kind, how they end, limits, servers that die. */
#include "tests/unit/proto/rpc_fixture.h"
#include "tests/unit/random.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int ms_since(int64_t ns)
{
    return (int)((clock_now_ns() - ns) / 1000000);
}

static void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

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

/* Opens a call of Generate that never ends by itself, and waits until the server has it. */
static void open_generate(struct world *w, int deadline_ms, struct seen *s)
{
    call_generate(w->channel, "open", 0, deadline_ms, s);
    assert_true(seen_reaches(&w->seen, &w->seen.messages, 1, WAIT_MS));
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

/* `bytes` of text; the caller frees it. */
static char *long_text(size_t bytes)
{
    char *text = check_calloc(bytes + 1, 1);
    memset(text, 'x', bytes);
    return text;
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
    list_models_works(w.channel);
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

/* A tick that holds the rpc thread while the test says so. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool shut, held;
    int ticks;
};

static void gate_tick(void *arg)
{
    struct gate *g = arg;
    pthread_mutex_lock(&g->mutex);
    g->ticks++;
    g->held = g->shut;
    pthread_cond_broadcast(&g->changed);
    while (g->shut)
        pthread_cond_wait(&g->changed, &g->mutex);
    g->held = false;
    pthread_mutex_unlock(&g->mutex);
}

static int gate_ticks(struct gate *g)
{
    pthread_mutex_lock(&g->mutex);
    int ticks = g->ticks;
    pthread_mutex_unlock(&g->mutex);
    return ticks;
}

/* Shut: returns when the rpc thread stands in the tick. */
static void gate_set(struct gate *g, bool shut)
{
    pthread_mutex_lock(&g->mutex);
    g->shut = shut;
    pthread_cond_broadcast(&g->changed);
    while (shut && !g->held)
        pthread_cond_wait(&g->changed, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
}

#define GATE_INIT                                                                                  \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                    \
    }

/* world_open with a gate on its runtime. */
static void world_open_gated(struct world *w, struct gate *g)
{
    struct error err = {0};
    memset(w, 0, sizeof *w);
    w->reply = "qwen3";
    seen_init(&w->seen);
    world_methods(w);
    assert_ok(rpc_create(10, gate_tick, g, &w->rpc, &err));
    assert_ok(rpc_server_create(w->rpc, "127.0.0.1:0", NULL, w->methods, COUNT_OF(w->methods),
                                &w->server, &err));
    snprintf(w->address, sizeof w->address, "127.0.0.1:%d", rpc_server_port(w->server));
    assert_ok(rpc_channel_create(w->rpc, w->address, NULL, &w->channel, &err));
}

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

/* --- the runtime --- */

static double cpu_ms(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-3;
}

static void tick_runs_while_idle_at_no_cost(void **state)
{
    (void)state;
    struct gate g = GATE_INIT;
    struct world w;
    world_open_gated(&w, &g);
    list_models_works(w.channel);
    sleep_ms(200);
    int before = gate_ticks(&g);
    double cpu = cpu_ms();
    sleep_ms(2000);
    cpu = cpu_ms() - cpu;
    int ticks = gate_ticks(&g) - before;
    assert_in_range(ticks, 60, 205); /* of 200: the machine may be busy */
    if (cpu > 100)
        fail_msg("%.0f ms of processor time in 2 s of idling", cpu);
    world_close(&w);
}

static void idle_without_tick_costs_nothing(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    open_generate(&w, 0, &s);
    sleep_ms(200);
    double cpu = cpu_ms();
    sleep_ms(2000);
    cpu = cpu_ms() - cpu;
    if (cpu > 50)
        fail_msg("%.0f ms of processor time in 2 s of idling", cpu);
    assert_int_equal(seen_get(&s, &s.closed), 0);
    rpc_cancel(s.call);
    seen_ended(&s, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

static void tick_runs_under_load(void **state)
{
    (void)state;
    struct gate g = GATE_INIT;
    struct world w;
    struct seen s;
    world_open_gated(&w, &g);
    call_generate(w.channel, "qwen3", 1 << 30, 0, &s);
    assert_true(seen_reaches(&s, &s.messages, 1, WAIT_MS));
    int before = gate_ticks(&g);
    sleep_ms(1000);
    assert_in_range(gate_ticks(&g) - before, 10, 110);
    rpc_cancel(s.call);
    seen_ended(&s, RPC_CANCELLED);
    seen_fini(&s);
    world_close(&w);
}

/* A batch started after the queue's shutdown would abort the process. */
static void destroy_right_after_cancel(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct world w;
        struct seen seen[20];
        world_open(&w);
        for (size_t i = 0; i < COUNT_OF(seen); i++)
            call_generate(w.channel, "qwen3", 1 << 30, 0, &seen[i]);
        sleep_ms(round);
        for (size_t i = 0; i < COUNT_OF(seen); i++)
            rpc_cancel(seen[i].call);
        rpc_channel_destroy(w.channel);
        w.channel = NULL;
        world_close(&w);
        for (size_t i = 0; i < COUNT_OF(seen); i++) {
            assert_int_equal(seen[i].closed, 1);
            seen_fini(&seen[i]);
        }
    }
}

static void destroy_waits_for_the_last_callback(void **state)
{
    (void)state;
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    seen_init(&s);
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, "127.0.0.1:1", NULL, &channel, &err));
    assert_ok(rpc_call_start(channel, ATTACH, &witan__cluster__v1__coordinator_message__descriptor,
                             &seen_handlers, &s, 300, true, NULL, &s.call, &err));
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
    assert_int_equal(s.closed, 1);
    assert_int_equal(s.code, RPC_DEADLINE_EXCEEDED);
    seen_fini(&s);
}

static void code_names(void **state)
{
    (void)state;
    assert_string_equal(rpc_code_name(RPC_OK), "OK");
    assert_string_equal(rpc_code_name(RPC_UNAVAILABLE), "UNAVAILABLE");
    assert_string_equal(rpc_code_name(RPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_non_null(rpc_code_name(17));
    assert_non_null(rpc_code_name(-1));
    assert_int_equal(rpc_code_of(OK), RPC_OK);
    assert_int_equal(rpc_code_of(ERR_INVALID), RPC_INVALID_ARGUMENT);
    assert_int_equal(rpc_code_of(ERR_PEER), RPC_UNAVAILABLE);
}

/* --- servers: ports, stopping --- */

static void port_in_use_is_said(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct rpc_server *second = NULL;
    world_open(&w);
    assert_int_equal(
        rpc_server_create(w.rpc, w.address, NULL, w.methods, COUNT_OF(w.methods), &second, &err),
        ERR_IO);
    assert_null(second);
    assert_non_null(strstr(err.msg, w.address));
    assert_non_null(strstr(err.msg, "in use"));
    list_models_works(w.channel);
    world_close(&w);
}

static void bad_addresses_are_said(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",       "localhost",     "127.0.0.1:",    ":50",           "127.0.0.1:65536",
        "::1:50", "127.0.0.1:-1",  "127.0.0.1:5 0", "unix:/tmp/x:1", "host:50/x",
        "[]:50",  "127.0.0.1:50x", "127.0.0.1: 50", "a:b:50",        "[::1]50",
    };
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_channel *channel;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        if (rpc_server_create(rpc, bad[i], NULL, NULL, 0, &server, &err) != ERR_INVALID ||
            rpc_channel_create(rpc, bad[i], NULL, &channel, &err) != ERR_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(err.msg, "expected host:port"));
    }
    assert_int_equal(rpc_server_create(rpc, "192.0.2.1:0", NULL, NULL, 0, &server, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "192.0.2.1:0: Cannot assign requested address"));
    rpc_destroy(rpc);
}

static void loopback_by_name_and_ipv6(void **state)
{
    (void)state;
    static const char *const hosts[] = {"localhost", "[::1]"};
    for (size_t i = 0; i < COUNT_OF(hosts); i++) {
        struct error err = {0};
        struct world w;
        char address[64];
        struct rpc_server *server;
        struct rpc_channel *channel;
        world_open(&w);
        snprintf(address, sizeof address, "%s:0", hosts[i]);
        enum status st = rpc_server_create(w.rpc, address, NULL, w.methods, COUNT_OF(w.methods),
                                           &server, &err);
        if (st == OK) { /* a machine may lack IPv6 */
            snprintf(address, sizeof address, "%s:%d", hosts[i], rpc_server_port(server));
            assert_ok(rpc_channel_create(w.rpc, address, NULL, &channel, &err));
            list_models_works(channel);
            rpc_channel_destroy(channel);
            rpc_server_stop(server, 1000);
        } else if (i == 0) {
            fail_msg("%s", err.msg);
        }
        world_close(&w);
    }
}

struct stopping {
    pthread_t thread;
    struct world *world;
    int grace_ms;
    _Atomic(int) took_ms; /* -1: not yet */
};

static void *stop_server(void *arg)
{
    struct stopping *s = arg;
    int64_t start = clock_now_ns();
    rpc_server_stop(s->world->server, s->grace_ms);
    s->took_ms = ms_since(start);
    return NULL;
}

static void stop_lets_open_calls_end(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s, late;
    world_open(&w);
    open_generate(&w, 0, &s);
    struct stopping stopping = {.world = &w, .grace_ms = WAIT_MS, .took_ms = -1};
    pthread_create(&stopping.thread, NULL, stop_server, &stopping);
    sleep_ms(200);
    assert_int_equal(stopping.took_ms, -1);
    call_list_models(w.channel, 0, &late);
    seen_ended(&late, RPC_UNAVAILABLE);
    assert_ok(send_id(w.seen.call, 0, &err));
    rpc_finish(w.seen.call, RPC_OK, NULL);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    pthread_join(stopping.thread, NULL);
    assert_in_range(stopping.took_ms, 150, 5000);
    w.server = NULL;
    seen_fini(&s);
    seen_fini(&late);
    world_close(&w);
}

static void stop_cancels_after_the_grace(void **state)
{
    (void)state;
    struct world w;
    struct seen open, flowing;
    world_open(&w);
    call_generate(w.channel, "qwen3", 1 << 30, 0, &flowing);
    open_generate(&w, 0, &open);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, 300);
    assert_in_range(ms_since(start), 290, 5000);
    w.server = NULL;
    assert_int_equal(w.seen.closed, 2);
    assert_int_equal(w.seen.code, RPC_CANCELLED);
    assert_true(seen_reaches(&open, &open.closed, 1, WAIT_MS));
    assert_true(seen_reaches(&flowing, &flowing.closed, 1, WAIT_MS));
    assert_int_not_equal(open.code, RPC_OK);
    assert_int_not_equal(flowing.code, RPC_OK);
    assert_false(flowing.out_of_order);
    seen_fini(&open);
    seen_fini(&flowing);
    world_close(&w);
}

static void stop_while_idle_is_quick(void **state)
{
    (void)state;
    struct world w;
    world_open(&w);
    list_models_works(w.channel);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, WAIT_MS);
    assert_in_range(ms_since(start), 0, 2000);
    w.server = NULL;
    world_close(&w);
}

static void server_comes_back_on_its_port(void **state)
{
    (void)state;
    struct error err = {0};
    struct world w;
    struct seen s;
    world_open(&w);
    list_models_works(w.channel);
    rpc_server_stop(w.server, 1000);
    call_list_models(w.channel, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    seen_fini(&s);
    seen_init(&s);
    Witan__Inference__V1__ListModelsRequest request =
        WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    assert_ok(rpc_call_start(w.channel, LIST_MODELS,
                             &witan__inference__v1__list_models_response__descriptor,
                             &seen_handlers, &s, WAIT_MS, true, NULL, &s.call, &err));
    assert_ok(rpc_send(s.call, &request.base, &err));
    sleep_ms(300);
    assert_int_equal(seen_get(&s, &s.closed), 0);
    int64_t start = clock_now_ns();
    assert_ok(
        rpc_server_create(w.rpc, w.address, NULL, w.methods, COUNT_OF(w.methods), &w.server, &err));
    seen_ended(&s, RPC_OK);
    assert_in_range(ms_since(start), 0, 3000);
    seen_fini(&s);
    world_close(&w);
}

static void nobody_listens(void **state)
{
    (void)state;
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, "127.0.0.1:1", NULL, &channel, &err));
    int64_t start = clock_now_ns();
    call_list_models(channel, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    assert_in_range(ms_since(start), 0, 2000);
    seen_fini(&s);
    rpc_channel_destroy(channel);
    rpc_destroy(rpc);
}

static void streams_over_the_limit_wait(void **state)
{
    (void)state;
    enum { OVER = 20 };
    struct error err = {0};
    struct world w;
    struct seen s;
    static struct rpc_call *calls[RPC_MAX_STREAMS + OVER];
    world_open(&w);
    list_models_works(w.channel); /* the limit is known once the connection stands */
    seen_init(&s);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        assert_ok(rpc_call_start(w.channel, ATTACH,
                                 &witan__cluster__v1__coordinator_message__descriptor,
                                 &seen_handlers, &s, 0, false, NULL, &calls[i], &err));
    assert_true(seen_reaches(&w.seen, &w.seen.opened, 1 + RPC_MAX_STREAMS, 3 * WAIT_MS));
    sleep_ms(100);
    assert_int_equal(seen_get(&w.seen, &w.seen.opened), 1 + RPC_MAX_STREAMS);
    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        rpc_cancel(calls[i]);
        rpc_call_unref(calls[i]);
    }
    assert_true(seen_reaches(&s, &s.closed, COUNT_OF(calls), 3 * WAIT_MS));
    seen_fini(&s);
    world_close(&w);
}

/* --- health --- */

enum { UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN }; /* as health.proto numbers them */

static void ask_health(struct world *w, const char *method, const char *service, struct seen *s)
{
    struct error err = {0};
    Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
    request.service = (char *)service;
    call_method(w->channel, method, &grpc__health__v1__health_check_response__descriptor, 0, s);
    assert_ok(rpc_send(s->call, &request.base, &err));
    rpc_half_close(s->call);
}

static void check_health(struct world *w, const char *service, int status)
{
    struct seen s;
    ask_health(w, "/grpc.health.v1.Health/Check", service, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    assert_int_equal(s.next, status + 1);
    seen_fini(&s);
}

static void health_check(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    world_open(&w);
    check_health(&w, "", NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    check_health(&w, "", SERVING);
    check_health(&w, "witan.inference.v1.Inference", SERVING);
    check_health(&w, "grpc.health.v1.Health", SERVING);
    rpc_server_set_serving(w.server, false);
    check_health(&w, "witan.cluster.v1.Cluster", NOT_SERVING);
    ask_health(&w, "/grpc.health.v1.Health/Check", "witan.inference", &s);
    seen_ended(&s, RPC_NOT_FOUND);
    seen_fini(&s);
    world_close(&w);
}

/* The `count`-th message of a watch says `status`. */
static void watch_says(struct seen *s, int count, int status)
{
    assert_true(seen_reaches(s, &s->messages, count, WAIT_MS));
    pthread_mutex_lock(&s->mutex);
    assert_int_equal(s->messages, count);
    assert_int_equal(s->next, status + 1);
    pthread_mutex_unlock(&s->mutex);
}

static void health_watch(void **state)
{
    (void)state;
    struct world w;
    struct seen all, unknown, cancelled;
    world_open(&w);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "", &all);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "no.such.Service", &unknown);
    ask_health(&w, "/grpc.health.v1.Health/Watch", "witan.cluster.v1.Cluster", &cancelled);
    watch_says(&all, 1, NOT_SERVING);
    watch_says(&unknown, 1, SERVICE_UNKNOWN);
    watch_says(&cancelled, 1, NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    watch_says(&all, 2, SERVING);
    watch_says(&cancelled, 2, SERVING);
    rpc_cancel(cancelled.call);
    seen_ended(&cancelled, RPC_CANCELLED);
    rpc_server_set_serving(w.server, true);
    rpc_server_set_serving(w.server, false);
    watch_says(&all, 3, NOT_SERVING);
    rpc_server_set_serving(w.server, true);
    watch_says(&all, 4, SERVING);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, WAIT_MS); /* ends the watches, so it need not wait */
    assert_in_range(ms_since(start), 0, 5000);
    w.server = NULL;
    seen_ended(&all, RPC_UNAVAILABLE);
    assert_int_equal(all.next, NOT_SERVING + 1);
    seen_ended(&unknown, RPC_UNAVAILABLE);
    assert_int_equal(unknown.messages, 1);
    seen_fini(&all);
    seen_fini(&unknown);
    seen_fini(&cancelled);
    world_close(&w);
}

/* --- other processes --- */

struct child {
    pid_t pid;
    int output; /* what it prints */
};

/* This program again, as `mode` with an argument. */
static struct child spawn(const char *mode, const char *arg)
{
    struct child c;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        fail_msg("pipe: %s", strerror(errno));
    c.pid = fork();
    if (c.pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "rpc_test", mode, arg, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    c.output = ends[0];
    return c;
}

static void child_line(struct child *c, char *line, size_t size)
{
    size_t n = 0;
    while (n + 1 < size && read(c->output, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = '\0';
}

static void child_end(struct child *c, int signal)
{
    if (signal)
        kill(c->pid, signal);
    assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
    close(c->output);
}

/* "--serve": a server that says its port and serves until it is killed. */
_Noreturn static void serve(void)
{
    struct world w;
    world_serve(&w, NULL);
    printf("%d\n", rpc_server_port(w.server));
    fflush(stdout);
    for (;;)
        pause();
}

/* "--attach ADDRESS": a client that holds an open call of Attach. */
_Noreturn static void attach(const char *address)
{
    struct error err = {0};
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen s;
    assert_ok(rpc_create(0, NULL, NULL, &rpc, &err));
    assert_ok(rpc_channel_create(rpc, address, NULL, &channel, &err));
    call_attach(channel, &s);
    assert_ok(send_heartbeat(s.call, 0, &err));
    for (;;)
        pause();
}

/* "--descriptors": prints how many are open. */
static int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    printf("%d\n", count);
    return 0;
}

static int descriptors_of_a_child(void)
{
    char line[32];
    struct child c = spawn("--descriptors", "");
    child_line(&c, line, sizeof line);
    child_end(&c, 0);
    return atoi(line);
}

/* A client of a server in a process of its own. */
struct remote {
    struct child child;
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct seen seen; /* of one call of Attach that has exchanged a message */
};

static void remote_open(struct remote *r)
{
    struct error err = {0};
    char line[32], address[64];
    r->child = spawn("--serve", "");
    child_line(&r->child, line, sizeof line);
    snprintf(address, sizeof address, "127.0.0.1:%s", line);
    assert_ok(rpc_create(0, NULL, NULL, &r->rpc, &err));
    assert_ok(rpc_channel_create(r->rpc, address, NULL, &r->channel, &err));
    call_attach(r->channel, &r->seen);
    assert_ok(send_heartbeat(r->seen.call, 0, &err));
    assert_true(seen_reaches(&r->seen, &r->seen.messages, 1, WAIT_MS));
}

static void remote_close(struct remote *r)
{
    seen_fini(&r->seen);
    rpc_channel_destroy(r->channel);
    rpc_destroy(r->rpc);
}

static void killed_server_is_noticed_within_a_second(void **state)
{
    (void)state;
    struct remote r;
    remote_open(&r);
    int64_t start = clock_now_ns();
    child_end(&r.child, SIGKILL);
    seen_ended(&r.seen, RPC_UNAVAILABLE);
    assert_in_range((r.seen.closed_ns - start) / 1000000, 0, 1000);
    remote_close(&r);
}

static void stopped_server_is_noticed_by_keepalive(void **state)
{
    (void)state;
    struct remote r;
    remote_open(&r);
    int64_t start = clock_now_ns();
    kill(r.child.pid, SIGSTOP);
    seen_ended(&r.seen, RPC_UNAVAILABLE);
    assert_in_range((r.seen.closed_ns - start) / 1000000, RPC_KEEPALIVE_TIMEOUT_MS / 2,
                    RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS + 2000);
    child_end(&r.child, SIGKILL);
    remote_close(&r);
}

static void client_in_another_process_ends(int signal, int within_ms)
{
    struct world w;
    world_serve(&w, NULL);
    struct child c = spawn("--attach", w.address);
    assert_true(seen_reaches(&w.seen, &w.seen.messages, 1, WAIT_MS));
    int64_t start = clock_now_ns();
    kill(c.pid, signal);
    seen_ended(&w.seen, RPC_CANCELLED);
    assert_int_equal(w.seen.half_closes, 0);
    assert_in_range((w.seen.closed_ns - start) / 1000000, 0, within_ms);
    child_end(&c, SIGKILL);
    world_close(&w);
}

static void killed_client_is_noticed_within_a_second(void **state)
{
    (void)state;
    client_in_another_process_ends(SIGKILL, 1000);
}

static void stopped_client_is_noticed_by_keepalive(void **state)
{
    (void)state;
    client_in_another_process_ends(SIGSTOP, RPC_KEEPALIVE_MS + RPC_KEEPALIVE_TIMEOUT_MS + 2000);
}

static void fork_and_exec_between_calls(void **state)
{
    (void)state;
    struct world w;
    struct seen s;
    int before = descriptors_of_a_child();
    world_open(&w);
    open_generate(&w, 0, &s);
    struct rpc_call *open = rpc_call_ref(w.seen.call);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(descriptors_of_a_child(), before); /* no socket of ours is inherited */
        list_models_works(w.channel);
    }
    rpc_finish(open, RPC_OK, NULL);
    rpc_call_unref(open);
    seen_ended(&s, RPC_OK);
    seen_fini(&s);
    world_close(&w);
}

/* --- hostile and unlucky --- */

static int connect_raw(const struct world *w)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)rpc_server_port(w->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

/* Bytes at random, behind a part of what HTTP/2 begins with. */
static void send_garbage(int fd, uint64_t *random)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                  "\0\0\0\4\0\0\0\0\0"; /* and SETTINGS */
    uint8_t bytes[2000];
    size_t begin = (size_t)random_int(random, 0, sizeof preface - 1);
    size_t n = (size_t)random_int(random, (int)begin, sizeof bytes);
    memcpy(bytes, preface, begin);
    for (size_t i = begin; i < n; i++)
        bytes[i] = (uint8_t)random_int(random, 0, random_int(random, 0, 1) ? 255 : 9);
    send(fd, bytes, n, MSG_NOSIGNAL);
}

static void garbage_on_the_port(void **state)
{
    (void)state;
    uint64_t random = 1;
    struct world w;
    world_open(&w);
    for (int round = 0; round < 200; round++) {
        int fd = connect_raw(&w);
        send_garbage(fd, &random);
        if (random_int(&random, 0, 1))
            send_garbage(fd, &random);
        if (random_int(&random, 0, 1))
            shutdown(fd, SHUT_WR);
        close(fd);
    }
    list_models_works(w.channel);
    world_close(&w);
}

static void stop_with_silent_connections(void **state)
{
    (void)state;
    struct world w;
    int fds[10];
    world_open(&w);
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = connect_raw(&w);
    list_models_works(w.channel);
    int64_t start = clock_now_ns();
    rpc_server_stop(w.server, 500);
    assert_in_range(ms_since(start), 0, 5000);
    w.server = NULL;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    world_close(&w);
}

/* gRPC's own log lines are for debugging: nothing appears unasked. */
static void nothing_is_printed(void **state)
{
    (void)state;
    struct error err = {0};
    uint64_t random = 2;
    FILE *file = tmpfile();
    int before = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    struct world w;
    struct seen s;
    struct rpc_channel *nobody;
    world_open(&w);
    for (int i = 0; i < 20; i++) {
        int fd = connect_raw(&w);
        send_garbage(fd, &random);
        close(fd);
    }
    assert_ok(rpc_channel_create(w.rpc, "127.0.0.1:1", NULL, &nobody, &err));
    call_list_models(nobody, 0, &s);
    seen_ended(&s, RPC_UNAVAILABLE);
    rpc_channel_destroy(nobody);
    seen_fini(&s);
    world_close(&w);
    dup2(before, STDERR_FILENO);
    close(before);
    assert_int_equal(lseek(fileno(file), 0, SEEK_END), 0);
    fclose(file);
}

/* Threads that open calls of all kinds, send on some, and cancel or leave them. */
struct stress {
    pthread_t thread;
    struct world *world;
    struct seen seen;
    uint64_t random;
    int started;
    int64_t until_ns;
};

static void stress_one(struct stress *t, struct rpc_call **out)
{
    static const char *const methods[] = {ATTACH, GENERATE, LIST_MODELS, "/no/Such"};
    struct error err = {0};
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    int kind = random_int(&t->random, 0, COUNT_OF(methods) - 1);
    request.model = random_int(&t->random, 0, 1) ? "open" : "";
    request.max_tokens = random_int(&t->random, 0, 300);
    enum status st = rpc_call_start(
        t->world->channel, methods[kind],
        kind ? &witan__inference__v1__generate_response__descriptor
             : &witan__cluster__v1__coordinator_message__descriptor,
        &seen_handlers, &t->seen, random_int(&t->random, 0, 9) ? 1000 : 1, false, NULL, out, &err);
    CHECK(st == OK, "%s", err.msg);
    t->started++;
    for (int n = random_int(&t->random, 0, 20); n > 0; n--)
        if (kind == 0)
            send_heartbeat(*out, 0, NULL);
        else
            rpc_send(*out, &request.base, NULL);
    if (random_int(&t->random, 0, 1))
        rpc_half_close(*out);
}

static void *stress_thread(void *arg)
{
    enum { OPEN = 50 };
    struct stress *t = arg;
    struct rpc_call *open[OPEN] = {0};
    while (clock_now_ns() < t->until_ns) {
        struct rpc_call **call = &open[random_int(&t->random, 0, OPEN - 1)];
        if (!*call) {
            stress_one(t, call);
            while (seen_get(&t->seen, &t->seen.closed) + 500 < t->started)
                sleep_ms(1);
            continue;
        }
        if (random_int(&t->random, 0, 3))
            rpc_cancel(*call);
        rpc_call_unref(*call);
        *call = NULL;
    }
    for (int i = 0; i < OPEN; i++) {
        if (open[i])
            rpc_cancel(open[i]);
        rpc_call_unref(open[i]);
    }
    return NULL;
}

static void calls_opened_and_cancelled_at_random(void **state)
{
    (void)state;
    struct world w;
    struct stress threads[3];
    world_open(&w);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        struct stress *t = &threads[i];
        t->world = &w;
        t->random = 100 + i;
        t->started = 0;
        t->until_ns = clock_now_ns() + 2000000000;
        seen_init(&t->seen);
        pthread_create(&t->thread, NULL, stress_thread, t);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        struct stress *t = &threads[i];
        pthread_join(t->thread, NULL);
        assert_true(seen_reaches(&t->seen, &t->seen.closed, t->started, WAIT_MS));
        assert_int_equal(t->seen.closed, t->started);
        seen_fini(&t->seen);
    }
    list_models_works(w.channel);
    rpc_server_stop(w.server, 1000);
    w.server = NULL;
    assert_int_equal(w.seen.opened, w.seen.closed);
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
    cmocka_unit_test(tick_runs_while_idle_at_no_cost),
    cmocka_unit_test(idle_without_tick_costs_nothing),
    cmocka_unit_test(tick_runs_under_load),
    cmocka_unit_test(destroy_right_after_cancel),
    cmocka_unit_test(destroy_waits_for_the_last_callback),
    cmocka_unit_test(code_names),
    cmocka_unit_test(port_in_use_is_said),
    cmocka_unit_test(bad_addresses_are_said),
    cmocka_unit_test(loopback_by_name_and_ipv6),
    cmocka_unit_test(stop_lets_open_calls_end),
    cmocka_unit_test(stop_cancels_after_the_grace),
    cmocka_unit_test(stop_while_idle_is_quick),
    cmocka_unit_test(server_comes_back_on_its_port),
    cmocka_unit_test(nobody_listens),
    cmocka_unit_test(streams_over_the_limit_wait),
    cmocka_unit_test(health_check),
    cmocka_unit_test(health_watch),
    cmocka_unit_test(killed_server_is_noticed_within_a_second),
    cmocka_unit_test(stopped_server_is_noticed_by_keepalive),
    cmocka_unit_test(killed_client_is_noticed_within_a_second),
    cmocka_unit_test(stopped_client_is_noticed_by_keepalive),
    cmocka_unit_test(fork_and_exec_between_calls),
    cmocka_unit_test(garbage_on_the_port),
    cmocka_unit_test(stop_with_silent_connections),
    cmocka_unit_test(nothing_is_printed),
    cmocka_unit_test(calls_opened_and_cancelled_at_random),
};

/* A test that needs another process starts this program again. */
int main(int argc, char **argv)
{
    (void)shared_path;
    if (argc > 2 && strcmp(argv[1], "--serve") == 0)
        serve();
    if (argc > 2 && strcmp(argv[1], "--attach") == 0)
        attach(argv[2]);
    if (argc > 2 && strcmp(argv[1], "--descriptors") == 0)
        return count_descriptors();
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
