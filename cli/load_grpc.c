/* See load_grpc.h. State: struct load_grpc; a call's is the rpc thread's until it has closed, but
 * for `cancelled`. */
#include "cli/load_grpc.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/config.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PEM_BYTES = 4 << 20 };

static const char system_roots[] = "/etc/ssl/certs/ca-certificates.crt";

typedef Witan__Inference__V1__GenerateRequest generate_request;
typedef Witan__Inference__V1__GenerateResponse generate_response;

struct load_grpc {
    struct load_client client;
    struct load_grpc_options o;
    struct rpc *rpc;
    struct rpc_channel *channel;
};

/* One request's call. */
struct call {
    struct load_flight *flight;
    struct rpc_call *rpc;
    _Atomic(const char *) cancelled; /* the kind; static */
    char words[64];                  /* written before it */
    bool finished;
};

/* --- a request's call --------------------------------------------------------------------------
 */

static void on_message(struct rpc_call *rpc, void *user, const ProtobufCMessage *message)
{
    int64_t now = clock_now_ns();
    (void)rpc;
    struct call *call = user;
    struct load_record *r = &call->flight->record;
    const generate_response *m = (const generate_response *)message;
    if (m->body_case == WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_DELTA) {
        if (m->delta->n_ids > 0 || *m->delta->text || *m->delta->reasoning)
            load_flight_chunk(call->flight, now);
    } else if (m->body_case == WITAN__INFERENCE__V1__GENERATE_RESPONSE__BODY_FINISHED) {
        call->finished = true;
        r->usage = true;
        r->prompt_tokens = m->finished->prompt_tokens;
        r->output_tokens = m->finished->completion_tokens;
        r->cached_tokens = m->finished->cached_tokens;
    }
}

/* UNAVAILABLE is the server's word that it takes no more, and the runtime's for having lost it or
 * never met it; its words tell which. */
static const char *unavailable(const struct call *call, const char *words)
{
    static const char *const broken[] = {"Socket closed", "Connection reset", "Broken pipe",
                                         "GOAWAY",        "keepalive",        "Keepalive",
                                         "recvmsg",       "Transport closed"};
    if (strstr(words, "failed to connect") || strstr(words, "onnections to all backends failing"))
        return LOAD_UNREACHABLE;
    for (size_t i = 0; i < COUNT_OF(broken); i++)
        if (strstr(words, broken[i]))
            return LOAD_LOST;
    return call->flight->record.chunks > 0 ? LOAD_LOST : NULL;
}

static void judge(struct call *call, int code, const char *message)
{
    const char *kind = atomic_load(&call->cancelled);
    const char *words = message ? message : "";
    char answered[48];
    if (code == RPC_OK && !call->finished)
        load_flight_fail(call->flight, LOAD_LOST, "the call ended before the answer did");
    if (code == RPC_OK)
        return;
    if (kind)
        words = call->words;
    else if (code == RPC_DEADLINE_EXCEEDED)
        kind = LOAD_TIMEOUT;
    else if (code == RPC_UNAVAILABLE)
        kind = unavailable(call, words);
    if (!kind) {
        bool refused = code == RPC_RESOURCE_EXHAUSTED || code == RPC_UNAVAILABLE;
        snprintf(answered, sizeof answered, "%s %s", refused ? LOAD_REFUSED : LOAD_ANSWERED,
                 rpc_code_name(code));
        kind = answered;
    }
    load_flight_fail(call->flight, kind, "%s", words);
}

static void on_closed(struct rpc_call *rpc, void *user, int code, const char *message)
{
    (void)rpc;
    struct call *call = user;
    judge(call, code, message);
    load_flight_end(call->flight);
}

static void fill_input(const struct load_grpc *g, const struct load_request *r,
                       generate_request *request, Witan__Inference__V1__TokenIds *ids,
                       Witan__Inference__V1__Conversation *talk,
                       Witan__Inference__V1__Message *message)
{
    if (r->input == LOAD_IDS) {
        ids->ids = (int32_t *)r->ids;
        ids->n_ids = (size_t)r->id_count;
        request->token_ids = ids;
        request->input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TOKEN_IDS;
    } else if (!g->o.chat) {
        request->text = (char *)r->text;
        request->input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_TEXT;
    } else {
        message->role = (char *)"user";
        message->content = (char *)r->text;
        request->conversation = talk;
        request->input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION;
    }
}

/* Roles and contents stay the dataset's. ERR_INVALID where a content is no text. */
static enum status fill_messages(const json_t *list, Witan__Inference__V1__Conversation *talk,
                                 struct error *err)
{
    size_t i;
    const json_t *m;
    talk->n_messages = json_array_size(list);
    talk->messages = check_calloc(talk->n_messages, sizeof *talk->messages);
    Witan__Inference__V1__Message *messages = check_calloc(talk->n_messages, sizeof *messages);
    json_array_foreach(list, i, m)
    {
        const char *content = json_string_value(json_object_get(m, "content"));
        witan__inference__v1__message__init(&messages[i]);
        talk->messages[i] = &messages[i];
        messages[i].role = (char *)json_string_value(json_object_get(m, "role"));
        messages[i].content = (char *)content;
        if (!content || !messages[i].role) {
            free(messages);
            free(talk->messages);
            talk->messages = NULL;
            return error_set(err, ERR_INVALID, "messages[%zu].content: gRPC takes a string alone",
                             i);
        }
    }
    return OK;
}

static enum status send(struct load_grpc *g, struct call *call, const generate_request *request,
                        struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    TRY(rpc_call_start(g->channel, "/witan.inference.v1.Inference/Generate",
                       &witan__inference__v1__generate_response__descriptor, &handlers, call,
                       g->o.timeout_ms, false, g->o.authorization, &call->rpc, err));
    if (rpc_send(call->rpc, &request->base, NULL) == OK)
        rpc_half_close(call->rpc);
    else
        rpc_cancel(call->rpc); /* it has ended, or the message is too large for any queue */
    return OK;
}

static void start(struct load_client *client, struct load_flight *f, const struct load_request *r)
{
    struct load_grpc *g = (struct load_grpc *)client;
    generate_request request = WITAN__INFERENCE__V1__GENERATE_REQUEST__INIT;
    Witan__Inference__V1__TokenIds ids = WITAN__INFERENCE__V1__TOKEN_IDS__INIT;
    Witan__Inference__V1__Conversation talk = WITAN__INFERENCE__V1__CONVERSATION__INIT;
    Witan__Inference__V1__Message message = WITAN__INFERENCE__V1__MESSAGE__INIT, *one = &message;
    Witan__Inference__V1__Sampling sampling = WITAN__INFERENCE__V1__SAMPLING__INIT;
    Witan__Inference__V1__Float temperature = WITAN__INFERENCE__V1__FLOAT__INIT;
    struct error err;
    enum status st = OK;
    struct call *call = check_calloc(1, sizeof *call);
    call->flight = f;
    f->call = call;
    if (r->input == LOAD_MESSAGES) {
        st = fill_messages(r->messages, &talk, &err);
        request.conversation = &talk;
        request.input_case = WITAN__INFERENCE__V1__GENERATE_REQUEST__INPUT_CONVERSATION;
    } else {
        talk.messages = &one;
        talk.n_messages = 1;
        fill_input(g, r, &request, &ids, &talk, &message);
    }
    request.model = (char *)g->o.model;
    request.max_tokens = r->max_tokens;
    request.ignore_eos = g->o.ignore_eos;
    request.sampling = &sampling;
    temperature.value = g->o.temperature;
    sampling.temperature = g->o.has_temperature ? &temperature : NULL;
    if (st == OK)
        st = send(g, call, &request, &err);
    if (r->input == LOAD_MESSAGES && talk.messages) {
        free(talk.messages[0]);
        free(talk.messages);
    }
    if (st == OK)
        return;
    load_flight_fail(f, LOAD_MALFORMED, "%s", err.msg);
    load_flight_end(f);
}

static void cancel(struct load_client *client, struct load_flight *f, const char *kind,
                   const char *words)
{
    (void)client;
    struct call *call = f->call;
    if (!call->rpc || atomic_load(&call->cancelled))
        return;
    snprintf(call->words, sizeof call->words, "%s", words);
    atomic_store(&call->cancelled, kind);
    rpc_cancel(call->rpc);
}

static void release(struct load_client *client, struct load_flight *f)
{
    (void)client;
    struct call *call = f->call;
    if (call->rpc)
        rpc_call_unref(call->rpc);
    free(call);
}

/* --- questions of our own ----------------------------------------------------------------------
 */

struct question {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void (*on_reply)(void *out, const ProtobufCMessage *reply);
    void *out;
    bool closed;
    int code;
    char words[256];
};

static void on_reply(struct rpc_call *rpc, void *user, const ProtobufCMessage *message)
{
    (void)rpc;
    struct question *q = user;
    q->on_reply(q->out, message);
}

static void on_answered(struct rpc_call *rpc, void *user, int code, const char *message)
{
    (void)rpc;
    struct question *q = user;
    pthread_mutex_lock(&q->lock);
    q->code = code;
    snprintf(q->words, sizeof q->words, "%s", message ? message : "");
    q->closed = true;
    pthread_cond_signal(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

static enum status ask(struct load_grpc *g, const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *reply,
                       void (*take)(void *out, const ProtobufCMessage *reply), void *out,
                       struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_reply,
                                                      .on_closed = on_answered};
    struct question q = {.lock = PTHREAD_MUTEX_INITIALIZER,
                         .changed = PTHREAD_COND_INITIALIZER,
                         .on_reply = take,
                         .out = out};
    struct rpc_call *call;
    TRY(rpc_call_start(g->channel, method, reply, &handlers, &q, g->o.timeout_ms, false,
                       g->o.authorization, &call, err));
    if (rpc_send(call, request, NULL) == OK)
        rpc_half_close(call);
    else
        rpc_cancel(call);
    pthread_mutex_lock(&q.lock);
    while (!q.closed)
        pthread_cond_wait(&q.changed, &q.lock);
    pthread_mutex_unlock(&q.lock);
    rpc_call_unref(call);
    if (q.code == RPC_OK)
        return OK;
    if (q.code == RPC_UNAUTHENTICATED || q.code == RPC_PERMISSION_DENIED)
        return error_set(err, ERR_INVALID, "%s: %s: --key-file or WITAN_API_KEY gives a key",
                         g->o.address, q.words);
    return error_set(err, ERR_PEER, "%s: %s: %s: is the server running there?", g->o.address,
                     rpc_code_name(q.code), q.words);
}

struct models {
    char *name;
    size_t size;
    int32_t vocabulary;
};

static void take_models(void *out, const ProtobufCMessage *reply)
{
    struct models *m = out;
    const Witan__Inference__V1__ListModelsResponse *r =
        (const Witan__Inference__V1__ListModelsResponse *)reply;
    if (r->n_models == 0)
        return;
    snprintf(m->name, m->size, "%s", r->models[0]->name);
    m->vocabulary = r->models[0]->vocabulary;
}

enum status load_grpc_models(struct load_grpc *g, char *name, size_t size, int32_t *vocabulary,
                             struct error *err)
{
    Witan__Inference__V1__ListModelsRequest request =
        WITAN__INFERENCE__V1__LIST_MODELS_REQUEST__INIT;
    struct models m = {.name = name, .size = size};
    *name = '\0';
    TRY(ask(g, "/witan.inference.v1.Inference/ListModels", &request.base,
            &witan__inference__v1__list_models_response__descriptor, take_models, &m, err));
    *vocabulary = m.vocabulary;
    return OK;
}

static void take_energy(void *out, const ProtobufCMessage *reply)
{
    double *sum = out;
    const Witan__Inference__V1__GetStatusResponse *r =
        (const Witan__Inference__V1__GetStatusResponse *)reply;
    for (size_t i = 0; i < r->n_groups; i++) {
        const Witan__Inference__V1__Energy *all = r->groups[i]->energy;
        if (all && all->known)
            *sum = (isnan(*sum) ? 0 : *sum) + all->all;
        for (size_t k = 0; k < r->groups[i]->n_ranks && !(all && all->known); k++) {
            const Witan__Inference__V1__Rank *rank = r->groups[i]->ranks[k];
            for (size_t n = 0; n < rank->n_figures; n++)
                if (strcmp(rank->figures[n]->name, "energy_j") == 0)
                    *sum = (isnan(*sum) ? 0 : *sum) + rank->figures[n]->value;
        }
    }
}

double load_grpc_energy(struct load_grpc *g)
{
    Witan__Inference__V1__GetStatusRequest request = WITAN__INFERENCE__V1__GET_STATUS_REQUEST__INIT;
    double joules = NAN;
    if (ask(g, "/witan.inference.v1.Admin/GetStatus", &request.base,
            &witan__inference__v1__get_status_response__descriptor, take_energy, &joules,
            NULL) != OK)
        return NAN;
    return joules;
}

/* --- life --------------------------------------------------------------------------------------
 */

static enum status open_channel(struct load_grpc *g, struct error *err)
{
    char host[256], *ca = NULL;
    int port;
    size_t len;
    TRY(address_split(g->o.address, host, &port, err));
    if (g->o.ca || !address_is_loopback(g->o.address))
        TRY(file_read_all(g->o.ca ? g->o.ca : system_roots, MAX_PEM_BYTES, &ca, &len, err));
    struct rpc_tls tls = {.ca = ca};
    enum status st = rpc_channel_create(g->rpc, g->o.address, ca ? &tls : NULL, &g->channel, err);
    free(ca);
    return st;
}

enum status load_grpc_create(const struct load_grpc_options *o, struct load_grpc **out,
                             struct error *err)
{
    struct load_grpc *g = check_calloc(1, sizeof *g);
    g->client = (struct load_client){
        .start = start,
        .cancel = cancel,
        .release = release,
        .most = o->most,
    };
    g->o = *o;
    enum status st = rpc_create(1000, NULL, NULL, &g->rpc, err);
    if (st == OK)
        st = open_channel(g, err);
    if (st != OK) {
        load_grpc_destroy(g);
        return st;
    }
    *out = g;
    return OK;
}

void load_grpc_destroy(struct load_grpc *g)
{
    if (!g)
        return;
    rpc_channel_destroy(g->channel);
    if (g->rpc)
        rpc_destroy(g->rpc);
    free(g);
}

struct load_client *load_grpc_client(struct load_grpc *g)
{
    return &g->client;
}
