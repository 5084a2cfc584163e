/* Streams of Inference.Generate over the RPC runtime: see latency.h. */
#include "base/check.h"
#include "base/clock.h"
#include "proto/inference.pb-c.h"
#include "tests/bench/latency/latency.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define GENERATE "/witan.inference.v1.Inference/Generate"

struct client {
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct arrivals *arrivals; /* of the rpc thread, until all calls have ended */
    pthread_mutex_t mutex;     /* guards what follows */
    pthread_cond_t changed;
    int open;
    int code; /* of the first call that failed */
    char message[256];
};

struct stream {
    struct client *client;
    int number;
};

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct stream *s = user;
    const Witan__Inference__V1__GenerateResponse *response =
        (const Witan__Inference__V1__GenerateResponse *)message;
    int64_t now = clock_now_ns();
    (void)call;
    if (response->body_case != WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA)
        return;
    for (size_t i = 0; i < response->delta->n_ids; i++)
        arrivals_add(s->client->arrivals, s->number, now);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct stream *s = user;
    struct client *c = s->client;
    (void)call;
    pthread_mutex_lock(&c->mutex);
    c->open--;
    if (code != RPC_OK && c->code == RPC_OK) {
        c->code = code;
        snprintf(c->message, sizeof c->message, "%s", message);
    }
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

static enum status ask(struct client *c, struct stream *s, struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    char prompt[LATENCY_PATH];
    struct rpc_call *call;
    Witan__Inference__V1__Float zero = WITAN__INFERENCE__V1__FLOAT__INIT;
    Witan__Inference__V1__Sampling sampling = WITAN__INFERENCE__V1__SAMPLING__INIT;
    Witan__Inference__V1__GenerateRequest request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    prompt_of(s->number, prompt);
    sampling.temperature = &zero;
    request.sampling = &sampling;
    request.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TEXT;
    request.text = prompt;
    request.max_tokens = c->arrivals->tokens;
    request.ignore_eos = true;
    TRY(rpc_call_start(c->channel, GENERATE, &witan__inference__v1__generate_response__descriptor,
                       &handlers, s, LATENCY_WAIT_S * 1000, true, NULL, &call, err));
    pthread_mutex_lock(&c->mutex);
    c->open++;
    pthread_mutex_unlock(&c->mutex);
    enum status st = rpc_send(call, &request.base, err);
    rpc_half_close(call);
    rpc_call_unref(call);
    return st;
}

/* Calls have a deadline, so all end. */
static void wait_for_end(struct client *c)
{
    pthread_mutex_lock(&c->mutex);
    while (c->open > 0)
        pthread_cond_wait(&c->changed, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
}

enum status grpc_run(const char *address, struct arrivals *a, struct error *err)
{
    struct client c = {
        .arrivals = a, .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct stream *streams = check_calloc((size_t)a->streams, sizeof *streams);
    enum status st = rpc_create(1000, NULL, NULL, &c.rpc, err);
    if (st == OK)
        st = rpc_channel_create(c.rpc, address, NULL, &c.channel, err);
    for (int i = 0; st == OK && i < a->streams; i++) {
        streams[i] = (struct stream){.client = &c, .number = i};
        st = ask(&c, &streams[i], err);
    }
    wait_for_end(&c);
    if (st == OK && c.code != RPC_OK)
        st = error_set(err, ERR_PEER, "Generate: %s: %s", rpc_code_name(c.code), c.message);
    rpc_channel_destroy(c.channel);
    if (c.rpc)
        rpc_destroy(c.rpc);
    free(streams);
    return st;
}
