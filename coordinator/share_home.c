/*
 * Peers that have dialled this coordinator, whose groups they use: see share.h. Callbacks run on
 * the rpc thread and hand over; all else is on the loop thread.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/share_private.h"
#include "proto/pki.h"
#include "proto/versions.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Cluster__V1__ShareRequest share_request;
typedef Witan__Cluster__V1__ShareReply share_reply;
typedef Witan__Cluster__V1__GroupState group_state_message;

/* --- ending and sending -----------------------------------------------------------------------
 */

/* Its requests are called off by the next tick or when it has closed: callers may be among them. */
void share_stream_end(struct share_stream *st, enum rpc_code code, const char *why)
{
    if (st->ended)
        return;
    st->ended = true;
    rpc_finish(st->call, code, why);
}

void share_home_send(struct share_stream *st, const share_reply *reply)
{
    struct error err;
    if (st->ended || rpc_send(st->call, &reply->base, &err) != ERR_LIMIT)
        return;
    log_warn("coordinator %s does not read what it is sent: its stream is ended: %s", st->name,
             err.msg);
    st->ended = true;
    rpc_cancel(st->call);
}

static void call_off(struct share_stream *st)
{
    while (st->relays)
        relay_drop(st->relays, true);
}

/* Each difference is told once, however often the peer tries again. */
static void log_refusal(struct share *s, const struct share_stream *st, const char *text)
{
    char line[SHARE_MAX_TEXT];
    snprintf(line, sizeof line, "%.*s", (int)sizeof line - 1, text);
    for (uint32_t i = 0; i < SHARE_REFUSALS; i++)
        if (strcmp(s->refused[i], line) == 0)
            return;
    memcpy(s->refused[s->refusals++ % SHARE_REFUSALS], line, sizeof line);
    log_warn("refused coordinator %s: %s", st->name, text);
}

static void refuse(struct share_stream *st, enum rpc_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct share_stream *st, enum rpc_code code, const char *fmt, ...)
{
    struct error err;
    char text[sizeof err.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    error_set(&err, ERR_INVALID, "%s", text); /* one line */
    if (!st->ended)
        log_refusal(st->share, st, err.msg);
    share_stream_end(st, code, err.msg);
}

/* --- groups' states ---------------------------------------------------------------------------
 */

static bool at_home(const struct group *g)
{
    return g->state == GROUP_READY && !g->via && !g->members->stopping;
}

static bool has_room(const struct group *g)
{
    struct generation_params p = {.prompt_len = 1};
    struct room r = group_room(g, &p, true);
    return room_is_there(&r);
}

static struct share_told state_of(const struct share *s, const struct group *g)
{
    struct share_told t = {.ready = at_home(g), .start = g->times_ready};
    bool most = s->relays >= (int32_t)MEMBERS_MOST_WAITING;
    t.takes_new = t.ready && !s->leaving && !most && group_takes_new(g) && has_room(g);
    t.has_leader = g->ranks[0] != NULL;
    if (g->attached > 0)
        t.incarnation = g->incarnation;
    return t;
}

static bool same_state(const struct share_told *a, const struct share_told *b)
{
    return a->ready == b->ready && a->takes_new == b->takes_new && a->has_leader == b->has_leader &&
           a->start == b->start && a->incarnation == b->incarnation;
}

static int32_t relays_on(const struct share_stream *st, const struct group *g)
{
    int32_t count = 0;
    for (const struct relay *r = st->relays; r; r = r->next)
        count += r->group == g;
    return count;
}

static void fill_ready(const struct share_stream *st, const struct group *g,
                       group_state_message *out)
{
    int64_t now = clock_now_ns();
    double wait_ms = backlog_wait_s(&g->backlog, 0, now) * 1e3;
    const Witan__Cluster__V1__Engine *e = g->ranks[0] ? g->ranks[0]->engine : NULL;
    out->numerics_class = (char *)g->class; /* packed, not changed */
    out->protocol = g->protocol;
    /* What this coordinator knows itself: it passes requests on. */
    out->constraints = g->constraints < CONSTRAINT_KINDS ? g->constraints : CONSTRAINT_KINDS - 1;
    out->thinking = g->thinking;
    out->max_seqs = (uint32_t)g->deployment.limits.max_seqs;
    out->context = (uint32_t)g->members->core->served.context;
    out->running = g->running;
    out->waiting = g->waiting;
    out->kv_blocks_free = g->kv_blocks_free;
    out->kv_blocks = g->kv_blocks ? g->kv_blocks : (uint32_t)g->deployment.limits.kv_blocks;
    out->others = (uint32_t)(g->active - relays_on(st, g));
    out->wait_ms = wait_ms < 1e9 ? (uint32_t)wait_ms : 1000000000u;
    out->prompt_rows = e ? e->prompt_rows : 0;
    out->proven_ms = (now - g->proven_ns) / 1000000;
}

static void tell(struct share_stream *st, const struct group *g, bool all)
{
    const struct members *m = g->members;
    group_state_message message = WITAN__CLUSTER__V1__GROUP_STATE__INIT;
    share_reply reply = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    struct share_told now = state_of(st->share, g), *told = &st->told[g - m->groups];
    struct error why;
    if (!st->epoch || st->ended || (!all && same_state(&now, told)))
        return;
    *told = now;
    message.group = g->config->name;
    message.ready = now.ready;
    message.takes_new = now.takes_new;
    message.has_leader = now.has_leader;
    message.start = now.start;
    message.incarnation = now.incarnation;
    if (now.ready)
        fill_ready(st, g, &message);
    if (m->stopping)
        message.message = "the coordinator is stopping";
    else if (!now.ready && group_why_not(g, &why) == ERR_PEER)
        message.message = why.msg;
    reply.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP;
    reply.group = &message;
    share_home_send(st, &reply);
}

void share_home_tell(struct share *s, const struct group *g, bool all)
{
    for (struct share_stream *st = s->streams; st; st = st->next)
        tell(st, g, all);
}

void share_home_tick(struct share *s)
{
    int64_t now = clock_now_ns();
    bool all = now - s->told_ns >= (int64_t)SHARE_TELL_MS * 1000000;
    if (all)
        s->told_ns = now;
    for (uint32_t i = 0; i < s->members->count; i++)
        share_home_tell(s, &s->members->groups[i], all);
    for (struct share_stream *st = s->streams; st; st = st->next) {
        if (st->ended)
            call_off(st);
        else if (!st->epoch && now - st->opened_ns > (int64_t)SHARE_HELLO_S * 1000000000)
            refuse(st, RPC_DEADLINE_EXCEEDED, "no hello within %d s", (int)SHARE_HELLO_S);
    }
}

/* --- hello ------------------------------------------------------------------------------------
 */

/* The same coordinator has dialled again: what it submitted on the older stream it has given up. */
static void end_older(struct share_stream *st, uint64_t epoch)
{
    for (struct share_stream *old = st->share->streams; old; old = old->next)
        if (old != st && old->epoch == epoch && !old->ended) {
            share_stream_end(old, RPC_ABORTED, "the same coordinator has dialled again");
            call_off(old);
        }
}

static void on_hello(struct share_stream *st, const Witan__Cluster__V1__ShareHello *h)
{
    struct share *s = st->share;
    const struct core *core = s->members->core;
    struct error err;
    Witan__Cluster__V1__ShareWelcome welcome = WITAN__CLUSTER__V1__SHARE_WELCOME__INIT;
    share_reply reply = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    if (st->epoch) {
        refuse(st, RPC_INVALID_ARGUMENT, "a second hello on one stream");
    } else if (share_hello_check(core, h, &err) != OK) {
        refuse(st, RPC_FAILED_PRECONDITION, "%s", err.msg);
    } else if (h->epoch == 0) {
        refuse(st, RPC_INVALID_ARGUMENT, "epoch: expected 1 or more, found 0");
    } else if (s->stopping || s->leaving) {
        refuse(st, RPC_UNAVAILABLE, "the coordinator is stopping");
    } else {
        end_older(st, h->epoch);
        st->epoch = h->epoch;
        log_info("coordinator %s uses the groups here", st->name);
        welcome.protocol_version = CLUSTER_PROTOCOL_VERSION;
        welcome.software_version = WITAN_VERSION;
        welcome.epoch = core->epoch;
        reply.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME;
        reply.welcome = &welcome;
        share_home_send(st, &reply);
        for (uint32_t i = 0; i < s->members->count; i++)
            tell(st, &s->members->groups[i], true);
    }
}

/* --- requests ---------------------------------------------------------------------------------
 */

void share_home_return(struct share_stream *st, uint64_t id, uint32_t attempt, const char *why)
{
    Witan__Cluster__V1__Returned returned = WITAN__CLUSTER__V1__RETURNED__INIT;
    share_reply reply = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    returned.request_id = id;
    returned.attempt = attempt;
    returned.why = (char *)why; /* packed, not changed */
    reply.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_RETURNED;
    reply.returned = &returned;
    share_home_send(st, &reply);
}

/* Asked what could not be let in here: that request has failed. */
static void fail(struct share_stream *st, const Witan__Cluster__V1__Submit *q, const char *why)
{
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT, *list = &s;
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    share_reply reply = WITAN__CLUSTER__V1__SHARE_REPLY__INIT;
    s.request_id = q->request_id;
    s.attempt = q->attempt;
    s.epoch = q->epoch;
    s.position = (int32_t)q->n_answer;
    s.finish = WITAN__CLUSTER__V1__FINISH__FINISH_ERROR;
    s.error = (char *)why; /* packed, not changed */
    tokens.sequences = &list;
    tokens.n_sequences = 1;
    reply.body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY_TOKENS;
    reply.tokens = &tokens;
    share_home_send(st, &reply);
}

/* ERR_PEER: why it cannot run here now; it is to go on elsewhere. */
static enum status can_run(const struct share *s, const struct group *g,
                           const Witan__Cluster__V1__ShareSubmit *q, struct error *err)
{
    struct share_told now;
    if (!g)
        return error_set(err, ERR_PEER, "group \"%.80s\" is not of that coordinator's cluster",
                         q->group);
    now = state_of(s, g);
    if (!now.ready)
        return error_set(err, ERR_PEER, "group %s is not ready there", g->config->name);
    if (q->start != now.start)
        return error_set(err, ERR_PEER, "group %s has been lost there meanwhile", g->config->name);
    if (!now.takes_new)
        return error_set(err, ERR_PEER, "group %s takes no more requests there", g->config->name);
    return OK;
}

/* Under an id of this coordinator's. The message is rewritten. */
static void relay(struct share_stream *st, struct group *g, Witan__Cluster__V1__Submit *q)
{
    struct error err;
    Witan__Cluster__V1__CoordinatorMessage message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    struct relay *r = relay_add(st, g, q);
    q->request_id = r->id;
    q->attempt = 1;
    q->epoch = st->share->members->core->epoch;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT;
    message.submit = q;
    if (words_send(g, q, &err) == OK && rpc_send(g->ranks[0]->call, &message.base, &err) == OK)
        return;
    share_home_return(st, r->peer_id, r->peer_attempt, err.msg);
    relay_drop(r, false);
}

static void on_submit(struct share_stream *st, const Witan__Cluster__V1__ShareSubmit *m)
{
    struct share *s = st->share;
    struct group *g = members_find(s->members, m->group);
    struct error err;
    Witan__Cluster__V1__Submit *q = m->submit;
    if (!q || q->epoch != st->epoch || q->request_id == 0) {
        refuse(st, RPC_INVALID_ARGUMENT, "a submit without id, or of another epoch");
        return;
    }
    struct relay *before = relay_find(st, q->request_id);
    if (before && before->peer_attempt == q->attempt) {
        refuse(st, RPC_INVALID_ARGUMENT, "attempt %u of request %llu is submitted twice",
               q->attempt, (unsigned long long)q->request_id);
        return;
    }
    if (before)
        relay_drop(before, true);
    if (can_run(s, g, m, &err) != OK)
        share_home_return(st, q->request_id, q->attempt, err.msg);
    else if (share_submit_check(s->members->core, q, &err) != OK)
        fail(st, q, err.msg);
    else
        relay(st, g, q);
}

static void on_cancel(struct share_stream *st, const Witan__Cluster__V1__Cancel *c)
{
    struct relay *r = relay_find(st, c->request_id);
    if (r && c->epoch == st->epoch && c->attempt == r->peer_attempt)
        relay_drop(r, true);
}

static void take_message(struct share_stream *st, share_request *m)
{
    if (m->body_case == WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_HELLO)
        on_hello(st, m->hello);
    else if (!st->epoch)
        refuse(st, RPC_INVALID_ARGUMENT, "the first message of a stream must be a hello");
    else if (m->body_case == WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_SUBMIT)
        on_submit(st, m->submit);
    else if (m->body_case == WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_CANCEL)
        on_cancel(st, m->cancel);
    /* else a later release's: what it says is not needed by this one */
}

/* --- streams: from the rpc thread to the loop thread ------------------------------------------
 */

struct handed {
    struct share_stream *stream;
    share_request *message;
};

static void run_opened(void *arg)
{
    struct share_stream *st = arg;
    struct share *s = st->share;
    struct error err;
    st->next = s->streams;
    s->streams = st;
    s->streams_count++;
    if (pki_check_coordinator(st->uris, &err) != OK)
        refuse(st, RPC_PERMISSION_DENIED, "%s", err.msg);
    else if (s->streams_count > (int32_t)SHARE_MOST_STREAMS)
        refuse(st, RPC_RESOURCE_EXHAUSTED, "%d streams of coordinators are open, as many as may be",
               (int)SHARE_MOST_STREAMS);
}

static void run_message(void *arg)
{
    struct handed *h = arg;
    if (!h->stream->ended)
        take_message(h->stream, h->message);
    witan__cluster__v1__share_request__free_unpacked(h->message, NULL);
    free(h);
}

static void run_closed(void *arg)
{
    struct share_stream *st = arg, **at = &st->share->streams;
    while (*at != st)
        at = &(*at)->next;
    *at = st->next;
    st->share->streams_count--;
    if (st->epoch)
        log_info("coordinator %s has gone: %d of its requests ran here, and are called off",
                 st->name, st->count);
    call_off(st);
    rpc_call_unref(st->call);
    free(st->uris);
    free(st);
}

static void post(struct share_stream *st, void (*fn)(void *arg), void *arg)
{
    struct error err;
    enum status st_ = loop_post(st->share->members->core->loop, fn, arg, &err);
    CHECK(st_ == OK, "%s", err.msg);
}

static void on_open(struct rpc_call *call, void *arg)
{
    struct share_stream *st = check_calloc(1, sizeof *st);
    st->share = arg;
    st->call = rpc_call_ref(call);
    st->opened_ns = clock_now_ns();
    st->uris = strdup(rpc_peer_uris(call));
    CHECK(st->uris, "no memory");
    snprintf(st->name, sizeof st->name, "%s", rpc_peer(call));
    rpc_call_set_user(call, st);
    post(st, run_opened, st);
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct handed *h = check_calloc(1, sizeof *h);
    h->stream = user;
    h->message = (share_request *)rpc_keep_message(call, message);
    post(user, run_message, h);
}

static void on_half_close(struct rpc_call *call, void *user)
{
    (void)user;
    rpc_finish(call, RPC_OK, NULL);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call, (void)code, (void)message;
    post(user, run_closed, user);
}

void share_home_service(struct share *s, struct rpc_method *method)
{
    *method = (struct rpc_method){
        .name = "/witan.cluster.v1.Cluster/Share",
        .request = &witan__cluster__v1__share_request__descriptor,
        .client_streams = true,
        .on_open = on_open,
        .handlers = {.on_message = on_message,
                     .on_half_close = on_half_close,
                     .on_closed = on_closed},
        .arg = s,
    };
}
