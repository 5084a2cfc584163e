/*
 * A server of three methods and a client for the tests of the RPC runtime. Each side of a call
 * writes down what it sees in a `struct seen`, and tests wait for it.
 *
 *   ListModels: one model, named world.reply.
 *   Generate: as many deltas as max_tokens asks, ids counting from 0, sent as the queue drains;
 *     model "open": none, and no end.
 *   Attach: each Heartbeat comes back as a Wake of the same number; ends when the client has sent
 *     all.
 */
#ifndef WITAN_TESTS_RPC_FIXTURE_H
#define WITAN_TESTS_RPC_FIXTURE_H

#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/clock.h"
#include "proto/cluster.pb-c.h"
#include "proto/health.pb-c.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define GENERATE "/witan.inference.v1.Inference/Generate"
#define LIST_MODELS "/witan.inference.v1.Inference/ListModels"
#define ATTACH "/witan.cluster.v1.Cluster/Attach"

enum { WAIT_MS = 20000 }; /* what must happen happens long before */

struct seen {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int opened, messages, half_closes, drained, closed;
    int code;
    char text[512];
    uint64_t next; /* the number that the next message must carry */
    bool out_of_order;
    struct rpc_call *call; /* with a reference; server: of the last call opened */
    int64_t closed_ns;
};

static inline void seen_init(struct seen *s)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
}

static inline void seen_fini(struct seen *s)
{
    rpc_call_unref(s->call);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
}

/* Adds one to a counter of `s`. */
static inline void seen_count(struct seen *s, int *counter)
{
    pthread_mutex_lock(&s->mutex);
    ++*counter;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

/* Whether *counter reaches `least` within `ms`. */
static inline bool seen_reaches(struct seen *s, const int *counter, int least, int ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_mutex_lock(&s->mutex);
    int rc = 0;
    while (*counter < least && rc == 0)
        rc = pthread_cond_timedwait(&s->changed, &s->mutex, &until);
    bool reached = *counter >= least;
    pthread_mutex_unlock(&s->mutex);
    return reached;
}

static inline int seen_get(struct seen *s, const int *counter)
{
    pthread_mutex_lock(&s->mutex);
    int value = *counter;
    pthread_mutex_unlock(&s->mutex);
    return value;
}

/* The call has ended with `code`, once. */
static inline void seen_ended(struct seen *s, int code)
{
    assert_true(seen_reaches(s, &s->closed, 1, WAIT_MS));
    if (s->code != code)
        fail_msg("ended with %s (%s), not %s", rpc_code_name(s->code), s->text,
                 rpc_code_name(code));
    assert_int_equal(seen_get(s, &s->closed), 1);
}

static inline void on_half_close_seen(struct rpc_call *call, void *user)
{
    (void)call;
    struct seen *s = user;
    seen_count(s, &s->half_closes);
}

static inline void on_drained_seen(struct rpc_call *call, void *user)
{
    (void)call;
    struct seen *s = user;
    seen_count(s, &s->drained);
}

static inline void on_closed_seen(struct rpc_call *call, void *user, int code, const char *text)
{
    (void)call;
    struct seen *s = user;
    pthread_mutex_lock(&s->mutex);
    s->code = code;
    snprintf(s->text, sizeof s->text, "%s", text);
    s->closed_ns = clock_now_ns();
    s->closed++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

/* A message that carries `number`: they must come in order. */
static inline void seen_number(struct seen *s, uint64_t number)
{
    pthread_mutex_lock(&s->mutex);
    s->out_of_order |= number != s->next;
    s->next = number + 1;
    s->messages++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

/* --- the server --- */

struct world {
    struct rpc *rpc;
    struct rpc_server *server;
    struct rpc_channel *channel;
    struct seen seen; /* of the server's calls, all together */
    char address[64];
    const char *reply; /* the name of the model that ListModels knows */
    struct rpc_method methods[3];
};

/* One call being served. */
struct served {
    struct world *world;
    int sent, count; /* of Generate */
    uint64_t next;   /* of Attach: the number expected */
};

static inline void on_open_served(struct rpc_call *call, void *arg)
{
    struct world *w = arg;
    struct served *served = check_calloc(1, sizeof *served);
    served->world = w;
    rpc_call_set_user(call, served);
    pthread_mutex_lock(&w->seen.mutex);
    rpc_call_unref(w->seen.call);
    w->seen.call = rpc_call_ref(call);
    w->seen.opened++;
    pthread_cond_broadcast(&w->seen.changed);
    pthread_mutex_unlock(&w->seen.mutex);
}

static inline void on_closed_served(struct rpc_call *call, void *user, int code, const char *text)
{
    struct served *served = user;
    on_closed_seen(call, &served->world->seen, code, text);
    free(served);
}

static inline enum status send_id(struct rpc_call *call, int32_t id, struct error *err)
{
    Witan__Inference__V1__GenerateResponse reply = WITAN__INFERENCE__V1__GENERATE_RESPONSE__INIT;
    Witan__Inference__V1__Delta delta = WITAN__INFERENCE__V1__DELTA__INIT;
    reply.body_case = WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA;
    reply.delta = &delta;
    delta.ids = &id;
    delta.n_ids = 1;
    return rpc_send(call, &reply.base, err);
}

static inline void generate_more(struct rpc_call *call, struct served *served)
{
    for (; served->sent < served->count; served->sent++) {
        enum status st = send_id(call, served->sent, NULL);
        if (st == ERR_LIMIT)
            return; /* on_drained goes on */
        if (st != OK)
            break;
    }
    rpc_finish(call, RPC_OK, NULL);
}

static inline void on_generate(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    const Witan__Inference__V1__GenerateRequest *request = (const void *)message;
    struct served *served = user;
    seen_count(&served->world->seen, &served->world->seen.messages);
    if (strcmp(request->model, "open") == 0)
        return;
    served->count = request->max_tokens;
    generate_more(call, served);
}

static inline void on_drained_served(struct rpc_call *call, void *user)
{
    struct served *served = user;
    seen_count(&served->world->seen, &served->world->seen.drained);
    if (served->count > 0)
        generate_more(call, served);
}

static inline void on_list_models(struct rpc_call *call, void *user,
                                  const ProtobufCMessage *message)
{
    (void)message;
    struct served *served = user;
    Witan__Inference__V1__ListModelsResponse reply =
        WITAN__INFERENCE__V1__LIST_MODELS_RESPONSE__INIT;
    Witan__Inference__V1__Model model = WITAN__INFERENCE__V1__MODEL__INIT, *models = &model;
    model.name = (char *)served->world->reply;
    reply.models = &models;
    reply.n_models = 1;
    seen_count(&served->world->seen, &served->world->seen.messages);
    rpc_send(call, &reply.base, NULL);
    rpc_finish(call, RPC_OK, NULL);
}

static inline enum status send_wake(struct rpc_call *call, uint64_t number, struct error *err)
{
    Witan__Cluster__V1__CoordinatorMessage m = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    m.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    m.wake = &wake;
    wake.generation = number;
    return rpc_send(call, &m.base, err);
}

static inline void on_attach(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    const Witan__Cluster__V1__RankMessage *m = (const void *)message;
    struct served *served = user;
    uint64_t number = m->heartbeat ? m->heartbeat->step : UINT64_MAX;
    pthread_mutex_lock(&served->world->seen.mutex);
    served->world->seen.out_of_order |= number != served->next++;
    pthread_mutex_unlock(&served->world->seen.mutex);
    seen_count(&served->world->seen, &served->world->seen.messages);
    send_wake(call, number, NULL);
}

static inline void on_attach_half_close(struct rpc_call *call, void *user)
{
    struct served *served = user;
    seen_count(&served->world->seen, &served->world->seen.half_closes);
    rpc_finish(call, RPC_OK, NULL);
}

static inline void world_methods(struct world *w)
{
    w->methods[0] = (struct rpc_method){
        .name = LIST_MODELS,
        .request = &witan__inference__v1__list_models_request__descriptor,
        .on_open = on_open_served,
        .handlers = {.on_message = on_list_models, .on_closed = on_closed_served},
        .arg = w};
    w->methods[1] = (struct rpc_method){
        .name = GENERATE,
        .request = &witan__inference__v1__generate_request__descriptor,
        .on_open = on_open_served,
        .handlers = {.on_message = on_generate,
                     .on_drained = on_drained_served,
                     .on_closed = on_closed_served},
        .arg = w};
    w->methods[2] = (struct rpc_method){.name = ATTACH,
                                        .request = &witan__cluster__v1__rank_message__descriptor,
                                        .client_streams = true,
                                        .on_open = on_open_served,
                                        .handlers = {.on_message = on_attach,
                                                     .on_half_close = on_attach_half_close,
                                                     .on_closed = on_closed_served},
                                        .arg = w};
}

/* With an `err` in scope. */
#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        enum status st_ = (expr);                                                                  \
        if (st_ != OK)                                                                             \
            fail_msg("%s: %s: %s", #expr, status_name(st_), err.msg);                              \
    } while (0)

/* A server on a free port. */
static inline void world_serve(struct world *w, const struct rpc_tls *tls)
{
    struct error err = {0};
    memset(w, 0, sizeof *w);
    w->reply = "qwen3";
    seen_init(&w->seen);
    world_methods(w);
    assert_ok(rpc_create(0, NULL, NULL, &w->rpc, &err));
    assert_ok(rpc_server_create(w->rpc, "127.0.0.1:0", tls, w->methods, COUNT_OF(w->methods),
                                &w->server, &err));
    snprintf(w->address, sizeof w->address, "127.0.0.1:%d", rpc_server_port(w->server));
}

/* And a client of it over the same runtime. */
static inline void world_open(struct world *w)
{
    struct error err = {0};
    world_serve(w, NULL);
    assert_ok(rpc_channel_create(w->rpc, w->address, NULL, &w->channel, &err));
}

static inline void world_close(struct world *w)
{
    rpc_server_stop(w->server, 2000);
    rpc_channel_destroy(w->channel);
    rpc_destroy(w->rpc);
    seen_fini(&w->seen);
}

/* --- clients --- */

static inline void on_reply_seen(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    (void)call;
    struct seen *s = user;
    uint64_t number = 0;
    if (message->descriptor == &witan__cluster__v1__coordinator_message__descriptor) {
        const Witan__Cluster__V1__CoordinatorMessage *m = (const void *)message;
        number = m->wake ? m->wake->generation : UINT64_MAX;
    } else if (message->descriptor == &witan__inference__v1__generate_response__descriptor) {
        const Witan__Inference__V1__GenerateResponse *m = (const void *)message;
        number = m->delta && m->delta->n_ids == 1 ? (uint64_t)m->delta->ids[0] : UINT64_MAX;
    } else if (message->descriptor == &grpc__health__v1__health_check_response__descriptor) {
        number = ((const Grpc__Health__V1__HealthCheckResponse *)message)->status;
    } else {
        const Witan__Inference__V1__ListModelsResponse *m = (const void *)message;
        snprintf(s->text, sizeof s->text, "%s", m->n_models == 1 ? m->models[0]->name : "");
    }
    seen_number(s, number);
}

static const struct rpc_call_handlers seen_handlers = {
    .on_message = on_reply_seen,
    .on_half_close = on_half_close_seen,
    .on_drained = on_drained_seen,
    .on_closed = on_closed_seen,
};

/* Starts a call of ListModels, Generate, Attach or another, with `s` to tell of it. */
static inline void call_method(struct rpc_channel *c, const char *method,
                               const ProtobufCMessageDescriptor *reply, int deadline_ms,
                               struct seen *s)
{
    struct error err = {0};
    seen_init(s);
    assert_ok(rpc_call_start(c, method, reply, &seen_handlers, s, deadline_ms, false, NULL,
                             &s->call, &err));
}

/* The only request of a call. Where nobody listens the call may have ended already. */
static inline void send_only(struct seen *s, const ProtobufCMessage *request)
{
    struct error err = {0};
    if (rpc_send(s->call, request, &err) != OK && err.code != ERR_CANCELLED)
        fail_msg("%s", err.msg);
    rpc_half_close(s->call);
}

static inline void call_list_models(struct rpc_channel *c, int deadline_ms, struct seen *s)
{
    Witan__Inference__V1__ListModelsRequest request =
        WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    call_method(c, LIST_MODELS, &witan__inference__v1__list_models_response__descriptor,
                deadline_ms, s);
    send_only(s, &request.base);
}

static inline void call_generate(struct rpc_channel *c, const char *model, int count,
                                 int deadline_ms, struct seen *s)
{
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    request.model = (char *)model;
    request.max_tokens = count;
    call_method(c, GENERATE, &witan__inference__v1__generate_response__descriptor, deadline_ms, s);
    send_only(s, &request.base);
}

static inline void call_attach(struct rpc_channel *c, struct seen *s)
{
    call_method(c, ATTACH, &witan__cluster__v1__coordinator_message__descriptor, 0, s);
}

static inline enum status send_heartbeat(struct rpc_call *call, uint64_t number, struct error *err)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat heartbeat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &heartbeat;
    heartbeat.step = number;
    return rpc_send(call, &m.base, err);
}

/* One whole unary call that must succeed. */
static inline void list_models_works(struct rpc_channel *c)
{
    struct seen s;
    call_list_models(c, WAIT_MS, &s);
    seen_ended(&s, RPC_OK);
    assert_int_equal(s.messages, 1);
    seen_fini(&s);
}

/* Opens a call of Generate that never ends by itself, and waits until the server has it. */
static inline void open_generate(struct world *w, int deadline_ms, struct seen *s)
{
    call_generate(w->channel, "open", 0, deadline_ms, s);
    assert_true(seen_reaches(&w->seen, &w->seen.messages, 1, WAIT_MS));
}

/* --- helpers --- */

static inline int ms_since(int64_t ns)
{
    return (int)((clock_now_ns() - ns) / 1000000);
}

static inline void sleep_ms(int ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* `bytes` of text; the caller frees it. */
static inline char *long_text(size_t bytes)
{
    char *text = check_calloc(bytes + 1, 1);
    memset(text, 'x', bytes);
    return text;
}

/* A tick that holds the rpc thread while the test says so. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool shut, held;
    int ticks;
};

static inline void gate_tick(void *arg)
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

static inline int gate_ticks(struct gate *g)
{
    pthread_mutex_lock(&g->mutex);
    int ticks = g->ticks;
    pthread_mutex_unlock(&g->mutex);
    return ticks;
}

/* Shut: returns when the rpc thread stands in the tick. */
static inline void gate_set(struct gate *g, bool shut)
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
static inline void world_open_gated(struct world *w, struct gate *g)
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

#endif
