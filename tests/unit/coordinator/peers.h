/*
 * What tests of coordinators that share groups have: answers, a peer that dials and a home that is
 * dialled, both played by the test over the real protocol.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_PEERS_H
#define WITAN_TESTS_UNIT_COORDINATOR_PEERS_H

#include "tests/unit/coordinator/cluster.h"

#include "coordinator/share_private.h"

typedef Witan__Cluster__V1__CoordinatorMessage told;
typedef Witan__Cluster__V1__ShareRequest share_request;
typedef Witan__Cluster__V1__ShareReply share_reply;

enum {
    SUBMIT = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT,
    CANCEL = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL,
    DEADLINE_S = 60,
};

/* --- answers ---------------------------------------------------------------------------------- */

struct answer {
    struct cluster *c;
    struct generation *g;
    enum status started;
    struct error err;
    int32_t ids, max_tokens, prompt_len;
    bool ended;
    struct generation_end end;
};

static void answer_text(void *user, enum part part, const char *text, size_t len)
{
    (void)user, (void)part, (void)text, (void)len;
}

static void answer_ids(void *user, const int32_t *ids, const struct token_logprobs *logprobs,
                       int32_t count)
{
    (void)ids, (void)logprobs;
    ((struct answer *)user)->ids += count;
}

static void answer_end(void *user, const struct generation_end *end)
{
    struct answer *a = user;
    a->ended = true;
    a->end = *end;
}

static inline void answer_start(void *arg)
{
    static const struct generation_sink sink = {
        .on_text = answer_text, .on_ids = answer_ids, .on_end = answer_end};
    static const int32_t prompt[64] = {65, 66, 67};
    struct answer *a = arg;
    struct generation_params p = {.prompt = prompt,
                                  .prompt_len = a->prompt_len ? a->prompt_len : 3,
                                  .max_tokens = a->max_tokens ? a->max_tokens : 4,
                                  .sampling = {.top_p = 1}};
    a->started = generation_start(a->c->core, &p, &sink, a, &a->g, &a->err);
}

static inline void answer_cancel(void *arg)
{
    generation_cancel(((struct answer *)arg)->g);
}

/* --- waiting: time goes on in all clusters meanwhile -------------------------------------------
 */

static void peers_time(void *arg)
{
    struct cluster *c = arg;
    members_watch(c->core->members);
    members_tick(c->core->members);
    generation_tick(c->core);
}

struct until {
    bool (*met)(struct cluster *c, const void *arg);
    struct cluster *c;
    const void *arg;
    bool seen;
};

static void until_look(void *arg)
{
    struct until *u = arg;
    u->seen = u->met(u->c, u->arg);
}

/* `others` (may be NULL): one more whose time goes on. */
static inline void until(struct cluster *c, struct cluster *other,
                         bool (*met)(struct cluster *c, const void *arg), const void *arg)
{
    struct until u = {met, c, arg, false};
    int64_t end = clock_now_ns() + (int64_t)DEADLINE_S * 1000000000;
    while (clock_now_ns() < end) {
        on_loop(c, peers_time, c);
        if (other)
            on_loop(other, peers_time, other);
        on_loop(c, until_look, &u);
        if (u.seen)
            return;
        usleep(3000);
    }
    fail_msg("what was waited for did not come within %d s", (int)DEADLINE_S);
}

static inline bool has_ended(struct cluster *c, const void *arg)
{
    (void)c;
    return ((const struct answer *)arg)->ended;
}

static inline bool has_ids(struct cluster *c, const void *arg)
{
    (void)c;
    return ((const struct answer *)arg)->ids > 0;
}

static inline bool is_through(struct cluster *c, const void *arg)
{
    const struct group *g = &c->core->members->groups[arg ? *(const int *)arg : 0];
    return g->via && g->state == GROUP_READY;
}

static inline bool is_not_through(struct cluster *c, const void *arg)
{
    return !is_through(c, arg);
}

static inline bool is_held(struct cluster *c, const void *arg)
{
    return c->core->held == *(const int *)arg;
}

static inline bool relays_are(struct cluster *c, const void *arg)
{
    return members_relays(c->core->members) == *(const int *)arg;
}

static inline bool nothing_runs(struct cluster *c, const void *arg)
{
    (void)arg;
    return c->core->running == 0;
}

static inline bool stream_count(struct cluster *c, const void *arg)
{
    return c->core->members->share->streams_count == *(const int *)arg;
}

/* --- a peer that dials -------------------------------------------------------------------------
 */

struct fake_peer {
    struct rpc_channel *channel;
    struct rpc_call *call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    share_reply *got[8192];
    int count, taken;
    bool closed;
    int code;
    char message[2100];
};

static void peer_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct fake_peer *p = user;
    pthread_mutex_lock(&p->lock);
    CHECK(p->count < (int)COUNT_OF(p->got), "too many messages");
    p->got[p->count++] = (share_reply *)rpc_keep_message(call, message);
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void peer_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct fake_peer *p = user;
    (void)call;
    pthread_mutex_lock(&p->lock);
    p->closed = true;
    p->code = code;
    snprintf(p->message, sizeof p->message, "%s", message ? message : "");
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

/* `role`: whose certificate it has. */
static inline void peer_open(struct cluster *c, struct fake_peer *p, const char *role)
{
    static const struct rpc_call_handlers handlers = {.on_message = peer_message,
                                                      .on_closed = peer_closed};
    struct error err;
    struct pki_files files;
    char address[32];
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    snprintf(address, sizeof address, "127.0.0.1:%d", members_port(c->core->members));
    assert_int_equal(pki_load(c->dir, role, &files, &err), OK);
    struct rpc_tls tls = {
        .ca = files.ca, .cert = files.cert, .key = files.key, .peer_name = PKI_COORDINATOR_NAME};
    assert_int_equal(rpc_channel_create(c->rpc, address, &tls, &p->channel, &err), OK);
    pki_files_fini(&files);
    assert_int_equal(rpc_call_start(p->channel, "/witan.cluster.v1.Cluster/Share",
                                    &witan__cluster__v1__share_reply__descriptor, &handlers, p, 0,
                                    false, NULL, &p->call, &err),
                     OK);
}

/* The next message but for states of groups, unless they are asked for. */
static inline const share_reply *peer_next(struct fake_peer *p, bool states)
{
    const share_reply *m = NULL;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&p->lock);
    while (!m) {
        while (p->taken == p->count && !p->closed)
            if (pthread_cond_timedwait(&p->changed, &p->lock, &t) != 0)
                break;
        if (p->taken == p->count)
            break;
        m = p->got[p->taken++];
        if (!states && m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP)
            m = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    if (!m)
        fail_msg("no message: %s", p->closed ? p->message : "none came");
    return m;
}

static inline int peer_wait_closed(struct fake_peer *p)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += DEADLINE_S;
    pthread_mutex_lock(&p->lock);
    while (!p->closed)
        if (pthread_cond_timedwait(&p->changed, &p->lock, &t) != 0)
            break;
    bool closed = p->closed;
    pthread_mutex_unlock(&p->lock);
    assert_true(closed);
    return p->code;
}

static inline void peer_send(struct fake_peer *p, const share_request *m)
{
    struct error err;
    enum status st = rpc_send(p->call, &m->base, &err);
    if (st == ERR_CANCELLED)
        peer_wait_closed(p);
    else if (st != OK)
        fail_msg("%s", err.msg);
}

static inline void peer_release(struct fake_peer *p)
{
    rpc_cancel(p->call);
    peer_wait_closed(p);
    rpc_call_unref(p->call);
    rpc_channel_destroy(p->channel);
    for (int i = 0; i < p->count; i++)
        witan__cluster__v1__share_reply__free_unpacked(p->got[i], NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->changed);
}

/* What a coordinator of this very cluster would say, but for its epoch. */
static inline void peer_say_hello(struct cluster *c, struct fake_peer *p,
                                  void (*change)(Witan__Cluster__V1__ShareHello *h))
{
    char shape[SHARE_MAX_TEXT];
    share_request m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    Witan__Cluster__V1__ShareHello hello;
    share_hello_fill(c->core, &hello, shape);
    hello.epoch = 7;
    if (change)
        change(&hello);
    m.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_HELLO;
    m.hello = &hello;
    peer_send(p, &m);
}

/* A peer that is welcome; the state of the first group. */
static inline const Witan__Cluster__V1__GroupState *peer_link(struct cluster *c,
                                                              struct fake_peer *p)
{
    peer_open(c, p, "coordinator");
    peer_say_hello(c, p, NULL);
    assert_int_equal(peer_next(p, true)->body_case, WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME);
    const share_reply *m = peer_next(p, true);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP);
    return m->group;
}

/* A whole request of three tokens' prompt, which `change` (may be NULL) spoils. */
static inline void peer_say_submit(struct fake_peer *p, uint64_t id, uint32_t attempt,
                                   uint64_t start,
                                   void (*change)(Witan__Cluster__V1__ShareSubmit *m))
{
    int32_t prompt[] = {65, 66, 67};
    Witan__Cluster__V1__Sampling sampling = WITAN__CLUSTER__V1__SAMPLING__INIT;
    Witan__Cluster__V1__Submit submit = WITAN__CLUSTER__V1__SUBMIT__INIT;
    Witan__Cluster__V1__ShareSubmit wrapped = WITAN__CLUSTER__V1__SHARE_SUBMIT__INIT;
    share_request m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    sampling.top_p = 1;
    submit.request_id = id;
    submit.attempt = attempt;
    submit.epoch = 7;
    submit.prompt = prompt;
    submit.n_prompt = 3;
    submit.max_tokens = 4;
    submit.sampling = &sampling;
    wrapped.group = "g0";
    wrapped.submit = &submit;
    wrapped.start = start;
    if (change)
        change(&wrapped);
    m.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_SUBMIT;
    m.submit = &wrapped;
    peer_send(p, &m);
}

static inline void peer_say_cancel(struct fake_peer *p, uint64_t id, uint32_t attempt,
                                   uint64_t epoch)
{
    Witan__Cluster__V1__Cancel cancel = WITAN__CLUSTER__V1__CANCEL__INIT;
    share_request m = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    cancel.request_id = id;
    cancel.attempt = attempt;
    cancel.epoch = epoch;
    m.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_CANCEL;
    m.cancel = &cancel;
    peer_send(p, &m);
}

#endif
