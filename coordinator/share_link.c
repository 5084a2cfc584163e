/*
 * Peers that this coordinator dials, and the groups that are served through them: see share.h.
 * Callbacks run on the rpc thread and hand over; all else is on the loop thread.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/share_private.h"
#include "proto/pki.h"
#include "proto/versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Cluster__V1__ShareRequest share_request;
typedef Witan__Cluster__V1__ShareReply share_reply;
typedef Witan__Cluster__V1__GroupState group_state_message;

const char *share_address(const struct share_link *via)
{
    return via->address;
}

/* --- groups that are served through a peer ----------------------------------------------------
 */

static const group_state_message *said_of(const struct share_link *l, const struct group *g)
{
    return l->up && !l->ended ? l->said[g - g->members->groups] : NULL;
}

/* All groups answer under one name, so they must compute the same bits. */
static bool class_agrees(const struct group *g, const group_state_message *said)
{
    const struct members *m = g->members;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *other = &m->groups[i];
        if (other != g && (other->attached > 0 || other->via) &&
            strcmp(other->class, said->numerics_class) != 0)
            return false;
    }
    return true;
}

static void apply(struct group *g, const group_state_message *said)
{
    const uint32_t most = MEMBERS_MOST_WAITING * 4;
    bool opened = said->takes_new && !g->via_takes;
    g->via_takes = said->takes_new;
    g->via_wait_s = said->wait_ms * 1e-3;
    g->others = (int32_t)(said->others < most ? said->others : most);
    g->protocol = said->protocol;
    g->constraints = said->constraints;
    g->thinking = said->thinking;
    g->heard = true;
    g->running = said->running;
    g->waiting = said->waiting;
    g->kv_blocks_free = said->kv_blocks_free;
    g->kv_blocks = said->kv_blocks;
    g->proven_ns = clock_now_ns() - (said->proven_ms > 0 ? said->proven_ms : 0) * 1000000;
    if (said->max_seqs > 0 && said->max_seqs <= MEMBERS_MOST_WAITING)
        g->deployment.limits.max_seqs = (int32_t)said->max_seqs;
    backlog_fed(&g->backlog, said->prompt_rows);
    if (opened && g->state == GROUP_READY)
        generation_resume(g->members->core);
}

void share_offer(struct share *s, struct group *g)
{
    if (!s || s->stopping || s->leaving || g->via || g->state != GROUP_WAITING || g->attached > 0)
        return;
    for (uint32_t i = 0; i < s->links_count; i++) {
        struct share_link *l = &s->links[i];
        const group_state_message *said = said_of(l, g);
        if (!said || !said->ready)
            continue;
        if (!class_agrees(g, said)) {
            if (!l->strange)
                log_warn("peer %s: group %s computes there in numerics class %s, other groups in "
                         "another: it is not used through it",
                         l->address, g->config->name, said->numerics_class);
            l->strange = true;
            continue;
        }
        g->via = l;
        g->via_start = said->start;
        snprintf(g->class, sizeof g->class, "%s", said->numerics_class);
        snprintf(s->members->core->served.numerics_class,
                 sizeof s->members->core->served.numerics_class, "%s", g->class);
        backlog_attached(&g->backlog);
        apply(g, said);
        group_through(g, l->address);
        return;
    }
}

static void lose_group(struct share_link *l, struct group *g, const char *why)
{
    char text[900];
    snprintf(text, sizeof text, "it was served through the coordinator at %s: %.600s", l->address,
             why);
    group_lose_through(g, text);
}

void share_link_lose(struct share_link *l, const char *why)
{
    struct members *m = l->share->members;
    l->up = false;
    for (uint32_t i = 0; i < m->count; i++) {
        if (l->said[i])
            witan__cluster__v1__group_state__free_unpacked(l->said[i], NULL);
        l->said[i] = NULL;
    }
    for (uint32_t i = 0; i < m->count && !l->share->stopping; i++)
        if (m->groups[i].via == l)
            lose_group(l, &m->groups[i], why);
}

const char *share_elsewhere(const struct share *s, const struct group *g, uint64_t incarnation,
                            uint32_t rank)
{
    for (uint32_t i = 0; s && i < s->links_count; i++) {
        const group_state_message *said = said_of(&s->links[i], g);
        bool there = said && (said->ready ||
                              (said->has_leader && rank != 0 && said->incarnation == incarnation));
        if (there)
            return s->links[i].address;
    }
    return NULL;
}

/* --- what a peer says -------------------------------------------------------------------------
 */

/* Something is wrong with what it says. */
static void refuse(struct share_link *l, const char *why)
{
    if (l->ended)
        return;
    log_warn("peer %s: its link is closed: %s", l->address, why);
    snprintf(l->logged, sizeof l->logged, "%s", why);
    l->ended = true;
    rpc_cancel(l->call);
    l->retry_ns = clock_now_ns() + (int64_t)SHARE_REFUSED_MS * 1000000;
    share_link_lose(l, why);
}

/* Takes the state over from the message. */
static void on_group(struct share_link *l, share_reply *m)
{
    struct members *all = l->share->members;
    group_state_message *said = m->group;
    struct group *g = members_find(all, said->group);
    plain_text(said->message, MEMBERS_MAX_WORD);
    plain_text(said->numerics_class, sizeof g->class);
    if (!g) {
        plain_text(said->group, MEMBERS_MAX_WORD);
        if (!l->strange)
            log_warn("peer %s: it has group \"%s\", which this cluster has not: give both the same "
                     "groups",
                     l->address, said->group);
        l->strange = true;
        return;
    }
    if (said->ready && !*said->numerics_class) {
        refuse(l, "a group that is ready without a numerics class");
        return;
    }
    group_state_message **at = &l->said[g - all->groups];
    if (*at)
        witan__cluster__v1__group_state__free_unpacked(*at, NULL);
    *at = said;
    m->group = NULL;
    m->body_case = WITAN__CLUSTER__V1__SHARE_REPLY__BODY__NOT_SET;
    if (g->via == l && (!said->ready || said->start != g->via_start ||
                        strcmp(said->numerics_class, g->class) != 0))
        lose_group(l, g, *said->message ? said->message : "it has been lost there and is back");
    else if (g->via == l)
        apply(g, said);
    else if (said->ready || said->has_leader)
        group_send_elsewhere(g);
    share_offer(l->share, g);
}

/* Of requests that were sent through this link, and no others. */
static void on_tokens(struct share_link *l, const Witan__Cluster__V1__Tokens *t)
{
    struct core *core = l->share->members->core;
    char why[300];
    for (size_t i = 0; i < t->n_sequences && !l->ended; i++) {
        const Witan__Cluster__V1__SequenceTokens *q = t->sequences[i];
        const char *wrong = tokens_wrong(q);
        const struct group *g = generation_group(core, q->request_id, q->attempt);
        if (wrong) {
            snprintf(why, sizeof why, "tokens of request %llu: %s",
                     (unsigned long long)q->request_id, wrong);
            refuse(l, why);
        } else if (g && g->via == l) {
            plain_text(q->error, MEMBERS_MAX_WORD);
            tokens_tell(core, q);
        }
    }
}

/* Until it says again that it takes requests, it is asked no more. */
static void on_returned(struct share_link *l, Witan__Cluster__V1__Returned *q)
{
    struct core *core = l->share->members->core;
    const struct group *g = generation_group(core, q->request_id, q->attempt);
    if (!g || g->via != l)
        return;
    plain_text(q->why, MEMBERS_MAX_WORD);
    l->share->members->groups[g - l->share->members->groups].via_takes = false;
    generation_returned(core, q->request_id, q->attempt, q->why);
}

static void on_welcome(struct share_link *l, const Witan__Cluster__V1__ShareWelcome *w)
{
    plain_text(w->software_version, 40);
    l->up = true;
    l->epoch = w->epoch;
    l->backoff_ms = 0;
    l->logged[0] = '\0';
    log_info("peer %s: linked (witan %s)", l->address, w->software_version);
}

static void take_message(struct share_link *l, share_reply *m)
{
    struct members *all = l->share->members;
    l->heard_ns = hang_clock_now(&all->clock, clock_now_ns());
    if (m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME && !l->up)
        on_welcome(l, m->welcome);
    else if (!l->up || m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_WELCOME)
        refuse(l, "the first message of a stream must be a welcome, and no other");
    else if (m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_GROUP)
        on_group(l, m);
    else if (m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_TOKENS)
        on_tokens(l, m->tokens);
    else if (m->body_case == WITAN__CLUSTER__V1__SHARE_REPLY__BODY_RETURNED)
        on_returned(l, m->returned);
    /* else a later release's: what it says is not needed by this one */
}

/* --- what a peer is asked ---------------------------------------------------------------------
 */

enum status share_submit(struct share_link *via, const struct group *g,
                         Witan__Cluster__V1__Submit *submit, struct error *err)
{
    Witan__Cluster__V1__ShareSubmit wrapped = WITAN__CLUSTER__V1__SHARE_SUBMIT__INIT;
    share_request message = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    if (!via->up || via->ended)
        return error_set(err, ERR_CANCELLED, "the link is closed");
    wrapped.group = g->config->name;
    wrapped.submit = submit;
    wrapped.start = g->via_start;
    message.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_SUBMIT;
    message.submit = &wrapped;
    return rpc_send(via->call, &message.base, err);
}

void share_cancel(struct share_link *via, Witan__Cluster__V1__Cancel *cancel)
{
    struct error err;
    share_request message = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    if (!via->up || via->ended)
        return;
    message.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_CANCEL;
    message.cancel = cancel;
    if (rpc_send(via->call, &message.base, &err) != ERR_LIMIT)
        return;
    /* Its groups are lost when the call has closed: callers are in the midst of their requests. */
    log_warn("peer %s: its link is closed: it does not read what it is sent", via->address);
    via->ended = true;
    rpc_cancel(via->call);
    via->retry_ns = clock_now_ns() + (int64_t)SHARE_REFUSED_MS * 1000000;
}

/* --- dialling ---------------------------------------------------------------------------------
 */

static bool by_operator_alone(int code)
{
    return code == RPC_FAILED_PRECONDITION || code == RPC_PERMISSION_DENIED ||
           code == RPC_UNIMPLEMENTED || code == RPC_UNAUTHENTICATED || code == RPC_INVALID_ARGUMENT;
}

/* Doubled each time, by a quarter more or less, so that coordinators do not move in step. */
static int64_t next_pause_ns(struct share_link *l, int code)
{
    int64_t ms = SHARE_REFUSED_MS;
    if (!by_operator_alone(code)) {
        l->backoff_ms = l->backoff_ms ? 2 * l->backoff_ms : SHARE_RETRY_MIN_MS;
        if (l->backoff_ms > SHARE_RETRY_MAX_MS)
            l->backoff_ms = SHARE_RETRY_MAX_MS;
        ms = l->backoff_ms;
    }
    return (ms * 3 / 4 + (int64_t)(core_draw_seed() % (uint64_t)(ms / 2))) * 1000000;
}

/* Each failure once, however often it is met: where nobody answers, the words change. */
static void log_failure(struct share_link *l, int code, const char *text)
{
    char line[SHARE_MAX_TEXT];
    snprintf(line, sizeof line, "%s: %.500s", rpc_code_name(code),
             by_operator_alone(code) ? text : "");
    if (strcmp(line, l->logged) == 0)
        return;
    memcpy(l->logged, line, sizeof line);
    if (code == RPC_UNIMPLEMENTED)
        log_warn("peer %s: it is of a release whose coordinators share no groups: install witan %s "
                 "there",
                 l->address, WITAN_VERSION);
    else
        log_warn("peer %s: not linked: %s, %s%s", l->address, rpc_code_name(code), text,
                 by_operator_alone(code) ? "" : " (it is dialled again until it answers)");
}

static void closed(struct share_link *l, int code, char *text)
{
    struct share *s = l->share;
    char why[SHARE_MAX_TEXT];
    bool was_up = l->up;
    plain_text(text, SHARE_MAX_TEXT - 100);
    snprintf(why, sizeof why, "the link has ended: %s%s%.400s", rpc_code_name(code),
             *text ? ", " : "", text);
    rpc_call_unref(l->call);
    l->call = NULL;
    if (was_up)
        log_warn("peer %s: %s", l->address, why);
    else if (!l->ended && !s->stopping)
        log_failure(l, code, text);
    if (!l->ended)
        l->retry_ns = clock_now_ns() + next_pause_ns(l, code);
    share_link_lose(l, why);
}

struct handed {
    struct share_link *link;
    share_reply *message;
    int code;
    char text[512];
};

static void run_message(void *arg)
{
    struct handed *h = arg;
    if (!h->link->ended)
        take_message(h->link, h->message);
    witan__cluster__v1__share_reply__free_unpacked(h->message, NULL);
    free(h);
}

static void run_closed(void *arg)
{
    struct handed *h = arg;
    closed(h->link, h->code, h->text);
    free(h);
}

static void post(struct share_link *l, void (*fn)(void *arg), void *arg)
{
    struct error err;
    enum status st = loop_post(l->share->members->core->loop, fn, arg, &err);
    CHECK(st == OK, "%s", err.msg);
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct handed *h = check_calloc(1, sizeof *h);
    h->link = user;
    h->message = (share_reply *)rpc_keep_message(call, message);
    post(user, run_message, h);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call;
    struct handed *h = check_calloc(1, sizeof *h);
    h->link = user;
    h->code = code;
    snprintf(h->text, sizeof h->text, "%s", message ? message : "");
    post(user, run_closed, h);
}

static void dial(struct share_link *l, int64_t now_ns)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    char shape[SHARE_MAX_TEXT];
    Witan__Cluster__V1__ShareHello hello;
    share_request message = WITAN__CLUSTER__V1__SHARE_REQUEST__INIT;
    struct error err;
    enum status st = rpc_call_start(l->channel, "/witan.cluster.v1.Cluster/Share",
                                    &witan__cluster__v1__share_reply__descriptor, &handlers, l, 0,
                                    false, NULL, &l->call, &err);
    CHECK(st == OK, "%s", err.msg); /* it fails for its authorization alone */
    l->up = l->ended = l->strange = false;
    l->heard_ns = now_ns;
    share_hello_fill(l->share->members->core, &hello, shape);
    message.body_case = WITAN__CLUSTER__V1__SHARE_REQUEST__BODY_HELLO;
    message.hello = &hello;
    rpc_send(l->call, &message.base, &err); /* if it fails, on_closed tells */
}

static void watch_silence(struct share_link *l, int64_t now_ns)
{
    int64_t timeout = l->share->members->core->config->limits.step_timeout_s;
    char why[100];
    if (timeout < SHARE_SILENT_S)
        timeout = SHARE_SILENT_S;
    if (!l->up)
        timeout = SHARE_HELLO_S;
    if (l->ended || now_ns - l->heard_ns <= timeout * 1000000000)
        return;
    snprintf(why, sizeof why, "it has been silent for %lld s", (long long)timeout);
    if (l->up || !*l->logged)
        log_warn("peer %s: its link is closed: %s", l->address, why);
    snprintf(l->logged, sizeof l->logged, "%s", why);
    l->ended = true;
    rpc_cancel(l->call);
    l->retry_ns = clock_now_ns() + next_pause_ns(l, RPC_UNAVAILABLE);
    share_link_lose(l, why);
}

/* A coordinator takes one stream of another's and ends the older: is it dialled by another address?
 */
static bool dialled_already(struct share_link *l)
{
    const struct share *s = l->share;
    for (uint32_t i = 0; i < s->links_count; i++) {
        const struct share_link *other = &s->links[i];
        if (other == l || !other->up || other->epoch != l->epoch || l->epoch == 0)
            continue;
        if (!l->twice)
            log_warn("peer %s: it is the coordinator at %s: name each once in peers", l->address,
                     other->address);
        l->twice = true;
        l->retry_ns = clock_now_ns() + (int64_t)SHARE_REFUSED_MS * 1000000;
        return true;
    }
    l->twice = false;
    return false;
}

void share_links_tick(struct share *s, int64_t now_ns)
{
    int64_t now = clock_now_ns();
    for (uint32_t i = 0; i < s->links_count && !s->stopping; i++) {
        struct share_link *l = &s->links[i];
        if (l->call)
            watch_silence(l, now_ns);
        else if (now >= l->retry_ns && !s->leaving && !dialled_already(l))
            dial(l, now_ns);
    }
}
