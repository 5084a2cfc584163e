/*
 * A rank 0 without a model: attaches to the real coordinator and, instead of computing, gives every
 * request the last token of its prompt again and again, at times that it remembers. See latency.h.
 */
#include "base/check.h"
#include "base/clock.h"
#include "proto/cluster.pb-c.h"
#include "proto/pki.h"
#include "proto/versions.h"
#include "tests/bench/latency/latency.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ATTACH "/witan.cluster.v1.Cluster/Attach"

enum { TICK_MS = 200, MEMORY_GB = 64 };

typedef Witan__Cluster__V1__SequenceTokens sequence_tokens;

/* One sequence that was submitted. */
struct answer {
    uint64_t request_id, epoch;
    uint32_t attempt;
    int32_t token;
};

struct leader {
    struct rpc *rpc;
    struct rpc_channel *channel;
    struct pki_files files;
    struct rpc_call *call; /* a reference */
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct answer answers[LATENCY_MAX_STREAMS];
    int count;
    bool attached; /* there is a plan: heartbeats are due */
    bool closed;
};

/* --- what it says ------------------------------------------------------------------------------
 */

static enum status say_hello(struct leader *l, struct error *err)
{
    Witan__Cluster__V1__Hardware hardware = WITAN__CLUSTER__V1__HARDWARE__INIT;
    Witan__Cluster__V1__Hello hello = WITAN__CLUSTER__V1__HELLO__INIT;
    Witan__Cluster__V1__RankMessage message = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    hardware.processor = hardware.kernels = "none";
    hardware.cores = hardware.ranks_here = 1;
    hardware.memory_bytes = (uint64_t)MEMORY_GB << 30;
    hello.protocol_version = CLUSTER_PROTOCOL_VERSION;
    hello.software_version = WITAN_VERSION;
    hello.group = "g0";
    hello.incarnation = (uint64_t)clock_now_ns();
    hello.world = 1;
    hello.host = "bench";
    hello.pid = (uint64_t)getpid();
    hello.numerics_class = NUMERICS_CLASS_CPU;
    hello.hardware = &hardware;
    message.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    return rpc_send(l->call, &message.base, err);
}

static enum status say_ready(struct rpc_call *call, struct error *err)
{
    Witan__Cluster__V1__Ready ready = WITAN__CLUSTER__V1__READY__INIT;
    Witan__Cluster__V1__RankMessage message = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    message.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY;
    message.ready = &ready;
    return rpc_send(call, &message.base, err);
}

/* One step: token number `position` of all these answers. */
static enum status say_tokens(struct rpc_call *call, const struct answer *answers, int count,
                              int position, bool last, struct error *err)
{
    sequence_tokens all[LATENCY_MAX_STREAMS], *list[LATENCY_MAX_STREAMS];
    int32_t ids[LATENCY_MAX_STREAMS];
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__RankMessage message = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    for (int i = 0; i < count; i++) {
        sequence_tokens *s = list[i] = &all[i];
        witan__cluster__v1__sequence_tokens__init(s);
        ids[i] = answers[i].token;
        s->request_id = answers[i].request_id;
        s->attempt = answers[i].attempt;
        s->epoch = answers[i].epoch;
        s->position = position;
        s->ids = &ids[i];
        s->n_ids = 1;
        s->finish = last ? WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH
                         : WITAN__CLUSTER__V1__FINISH__FINISH_NONE;
    }
    tokens.sequences = list;
    tokens.n_sequences = (size_t)count;
    tokens.step = (uint64_t)position;
    message.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    message.tokens = &tokens;
    return rpc_send(call, &message.base, err);
}

static void on_tick(void *arg)
{
    struct leader *l = arg;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__RankMessage message = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    beat.phase = WITAN__CLUSTER__V1__PHASE__PHASE_IDLE;
    message.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    message.heartbeat = &beat;
    pthread_mutex_lock(&l->mutex);
    bool due = l->attached && !l->closed;
    pthread_mutex_unlock(&l->mutex);
    if (due)
        rpc_send(l->call, &message.base, NULL); /* a stream that has ended says so itself */
}

/* --- what it hears: the rpc thread -------------------------------------------------------------
 */

static void on_submit(struct leader *l, struct rpc_call *call,
                      const Witan__Cluster__V1__Submit *submit)
{
    struct answer answer = {.request_id = submit->request_id,
                            .epoch = submit->epoch,
                            .attempt = submit->attempt,
                            .token = submit->prompt[submit->n_prompt - 1]};
    bool is_probe = submit->request_id == 0;
    if (is_probe)
        say_tokens(call, &answer, 1, 0, true, NULL);
    pthread_mutex_lock(&l->mutex);
    if (!is_probe && l->count < LATENCY_MAX_STREAMS)
        l->answers[l->count++] = answer;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct leader *l = user;
    const Witan__Cluster__V1__CoordinatorMessage *m =
        (const Witan__Cluster__V1__CoordinatorMessage *)message;
    switch ((int)m->body_case) {
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN:
        pthread_mutex_lock(&l->mutex);
        l->attached = true;
        pthread_mutex_unlock(&l->mutex);
        say_ready(call, NULL);
        break;
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT:
        on_submit(l, call, m->submit);
        break;
    case WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP:
        rpc_half_close(call);
        break;
    default:
        break; /* nobody cancels here, and there are no peers to wake */
    }
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct leader *l = user;
    (void)call;
    if (code != RPC_OK && code != RPC_CANCELLED)
        fprintf(stderr, "the leader's stream ended: %s: %s\n", rpc_code_name(code), message);
    pthread_mutex_lock(&l->mutex);
    l->closed = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->mutex);
}

/* --- the bench's threads -----------------------------------------------------------------------
 */

static enum status wait_for_requests(struct leader *l, int requests, struct error *err)
{
    struct timespec until;
    int code = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LATENCY_WAIT_S;
    pthread_mutex_lock(&l->mutex);
    while (code == 0 && !l->closed && l->count < requests)
        code = pthread_cond_timedwait(&l->changed, &l->mutex, &until);
    bool closed = l->closed;
    int count = l->count;
    pthread_mutex_unlock(&l->mutex);
    if (code == 0 && !closed)
        return OK;
    return error_set(err, ERR_PEER, "the coordinator %s, with %d requests of %d",
                     closed ? "let the leader go" : "is silent", count, requests);
}

static enum status connect(const struct cluster *c, struct leader *l, struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    char pki[LATENCY_PATH];
    snprintf(pki, sizeof pki, "%s/pki", c->dir);
    TRY(pki_load(pki, "worker", &l->files, err));
    const struct rpc_tls tls = {.ca = l->files.ca,
                                .cert = l->files.cert,
                                .key = l->files.key,
                                .peer_name = PKI_COORDINATOR_NAME};
    TRY(rpc_create(TICK_MS, on_tick, l, &l->rpc, err));
    TRY(rpc_channel_create(l->rpc, c->ranks, &tls, &l->channel, err));
    TRY(rpc_call_start(l->channel, ATTACH, &witan__cluster__v1__coordinator_message__descriptor,
                       &handlers, l, 0, true, NULL, &l->call, err));
    return say_hello(l, err);
}

enum status leader_attach(const struct cluster *c, struct leader **out, struct error *err)
{
    struct leader *l = check_calloc(1, sizeof *l);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->changed, NULL);
    enum status st = connect(c, l, err);
    if (st != OK) {
        leader_detach(l);
        return st;
    }
    *out = l;
    return OK;
}

enum status leader_pace(struct leader *l, int streams, int tokens, int step_us, int64_t *sent_ns,
                        struct error *err)
{
    struct answer answers[LATENCY_MAX_STREAMS];
    struct timespec next;
    TRY(wait_for_requests(l, streams, err));
    pthread_mutex_lock(&l->mutex);
    for (int i = 0; i < streams; i++)
        answers[i] = l->answers[i];
    l->count = 0;
    pthread_mutex_unlock(&l->mutex);
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int k = 0; k < tokens; k++) {
        next.tv_nsec += step_us * 1000L;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
            continue;
        sent_ns[k] = clock_now_ns();
        TRY(say_tokens(l->call, answers, streams, k, k + 1 == tokens, err));
    }
    return OK;
}

void leader_detach(struct leader *l)
{
    if (!l)
        return;
    if (l->call) {
        rpc_cancel(l->call);
        pthread_mutex_lock(&l->mutex);
        while (!l->closed)
            pthread_cond_wait(&l->changed, &l->mutex);
        pthread_mutex_unlock(&l->mutex);
    }
    rpc_channel_destroy(l->channel);
    if (l->rpc)
        rpc_destroy(l->rpc);
    rpc_call_unref(l->call);
    pki_files_fini(&l->files);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}
