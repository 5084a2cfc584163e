/*
 * Groups and ranks: see members.h. Everything here runs on the loop thread; a group's state changes
 * in set_state alone.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/audit_request.h"
#include "coordinator/members_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Cluster__V1__RankMessage rank_message;
typedef Witan__Cluster__V1__CoordinatorMessage coordinator_message;

const char *group_state_name(enum group_state s)
{
    static const char *const names[] = {
        [GROUP_WAITING] = "waiting for ranks", [GROUP_LOADING] = "loading",
        [GROUP_PROVING] = "proving",           [GROUP_READY] = "ready",
        [GROUP_STOPPING] = "stopping",         [GROUP_LOST] = "lost",
    };
    return names[s];
}

const char *phase_name(int phase)
{
    static const char *const names[] = {"starting", "loading", "idle",
                                        "waiting",  "forward", "stopping"};
    return phase >= 0 && phase < (int)COUNT_OF(names) ? names[phase] : "unknown";
}

int32_t group_world(const struct group *g)
{
    return g->deployment.plan->world;
}

static void set_state(struct group *g, enum group_state state, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void set_state(struct group *g, enum group_state state, const char *fmt, ...)
{
    static const char *const told[] = {"waiting", "loading", NULL, "ready", "stopping", "lost"};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(g->message, sizeof g->message, fmt, ap);
    va_end(ap);
    g->state = state;
    g->since_ns = clock_now_ns();
    g->times_ready += state == GROUP_READY;
    log_line(state == GROUP_LOST && !g->members->stopping ? LOG_ERROR : LOG_INFO,
             "group %s: %s%s%s", g->config->name, group_state_name(state), *g->message ? ": " : "",
             g->message);
    events_tell(&g->members->events, g->config->name, group_state_name(state), g->message);
    group_drain_state(g);
    share_group_changed(g->members->share, g);
    if (told[state])
        g->members->notify(g->config->name, told[state], g->message);
}

/* "rank 1 (node2, pid 4711)" */
static void describe(const struct member *r, char *out, size_t size)
{
    snprintf(out, size, "rank %u (%s, pid %llu)", r->hello->rank, r->hello->host,
             (unsigned long long)r->hello->pid);
}

void member_send(struct member *r, const coordinator_message *message)
{
    struct error err;
    if (r && r->call && rpc_send(r->call, &message->base, &err) == ERR_LIMIT)
        rpc_finish(r->call, RPC_RESOURCE_EXHAUSTED, "this rank does not read what it is sent");
}

/* --- losing a group ----------------------------------------------------------------------------
 */

/* The first rank that fails says why; the others are sent home, and the requests told. `code` tells
 * ranks that have loaded what to do: ABORTED: attach again as they are; FAILED_PRECONDITION: end.
 */
static void lose_by(struct group *g, enum rpc_code code, const char *why)
{
    if (g->state == GROUP_LOST)
        return;
    g->losses += g->state == GROUP_READY;
    g->failed_starts += g->state != GROUP_READY;
    set_state(g, GROUP_LOST, "%s", why);
    joules_lost(&g->joules);
    memcpy(g->last_loss, g->message, sizeof g->last_loss);
    g->last_loss_ns = g->since_ns;
    for (int32_t i = 0; i < group_world(g); i++)
        if (g->ranks[i])
            rpc_finish(g->ranks[i]->call, code, g->message);
    generation_lost(g->members->core, g, g->config->name, g->message);
}

/* Something is wrong with the group that attaching again would not mend. */
static void lose(struct group *g, const char *why)
{
    lose_by(g, RPC_FAILED_PRECONDITION, why);
}

void group_lose(struct group *g, enum rpc_code code, const char *why)
{
    lose_by(g, code, why);
}

/* No rank is left: the group may come again. */
static void reset(struct group *g)
{
    char last[sizeof g->message];
    memcpy(last, g->message, sizeof last);
    g->incarnation = 0;
    g->loaded = 0;
    g->wake = 0;
    g->proven_ns = g->probe_ns = 0;
    g->tokens = 0;
    g->running = g->waiting = g->kv_blocks_free = g->kv_blocks = 0;
    experts_forget(&g->experts);
    joules_lost(&g->joules);
    if (g->prefixes)
        prefixes_forget(g->prefixes);
    g->deployment.limits.kv_blocks = g->members->core->config->limits.kv_blocks;
    g->deployment.limits.max_seqs = g->members->core->config->limits.sequences;
    g->others = 0;
    g->via_wait_s = 0;
    if (!g->members->stopping)
        set_state(g, GROUP_WAITING, "%s", last);
    share_offer(g->members->share, g);
}

void group_through(struct group *g, const char *address)
{
    set_state(g, GROUP_READY, "through %s", address);
    generation_resume(g->members->core);
}

void group_lose_through(struct group *g, const char *why)
{
    g->via = NULL;
    lose_by(g, RPC_ABORTED, why);
    reset(g);
}

/* --- hello and plan ----------------------------------------------------------------------------
 */

void member_refuse(struct member *r, enum rpc_code code, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_warn("refused %s: %s", rpc_peer(r->call), text);
    rpc_finish(r->call, code, text);
}

static void start_loading(struct group *g)
{
    struct error err;
    enum status st = OK;
    uint64_t *share = check_calloc((size_t)group_world(g), sizeof *share);
    for (int32_t i = 0; i < group_world(g); i++) {
        const Witan__Cluster__V1__Hardware *hw = g->ranks[i]->hello->hardware;
        uint32_t ranks = hw && hw->ranks_here ? hw->ranks_here : 1;
        share[i] = hw ? hw->memory_bytes / ranks : 0;
    }
    if (!config_cuda(g->members->core->config)) /* GPUs: the ranks see what is free there */
        st = deployment_size_cache(&g->deployment, share, &err);
    free(share);
    if (st != OK) {
        lose(g, err.msg);
        return;
    }
    int32_t loaded = 0;
    for (int32_t i = 0; i < group_world(g); i++)
        loaded += g->ranks[i]->hello->loaded;
    set_state(g, GROUP_LOADING,
              loaded == group_world(g) ? "all %d ranks are there, and loaded"
                                       : "all %d ranks are there",
              group_world(g));
    for (int32_t i = 0; i < group_world(g); i++) {
        watch_anew(g->ranks[i]); /* the first may have waited long for the last */
        member_send_plan(g, g->ranks[i]);
    }
}

static void on_hello(struct member *r, rank_message *message)
{
    member_plain_hello(message->hello);
    struct group *g = r->group ? NULL : member_admit(r, message->hello);
    if (r->group)
        member_refuse(r, RPC_INVALID_ARGUMENT, "a second hello on one stream");
    if (!g)
        return;
    r->hello = message->hello;
    message->hello = NULL;
    message->body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY__NOT_SET;
    r->group = g;
    r->heartbeat_ns = clock_now_ns();
    r->host_share = 1;
    watch_hello(r);
    g->incarnation = r->hello->incarnation;
    if (g->attached == 0 || r->hello->protocol_version < g->protocol)
        g->protocol = r->hello->protocol_version;
    g->ranks[r->hello->rank] = r;
    if (g->attached++ == 0)
        g->since_ns = clock_now_ns(); /* limits.start_timeout_s counts from the first rank on */
    if (r->hello->rank == 0) {
        backlog_attached(&g->backlog);
        g->constraints = r->hello->constraints;
        g->words_sent = false;
        g->thinking = r->hello->thinking;
        g->heard = true;
    }
    log_info("group %s: rank %u attached%s from %s (%s, %u cores, %s)", g->config->name,
             r->hello->rank, r->hello->loaded ? " again" : "", r->hello->host,
             r->hello->hardware ? r->hello->hardware->processor : "unknown processor",
             r->hello->hardware ? r->hello->hardware->cores : 0,
             r->hello->hardware ? r->hello->hardware->kernels : "unknown kernels");
    const Witan__Cluster__V1__Device *d = r->hello->hardware ? r->hello->hardware->device : NULL;
    if (d)
        log_info("group %s: rank %u computes on %s %s (compute capability %u.%u, %.1f GB, driver "
                 "for CUDA %u.%u)",
                 g->config->name, r->hello->rank, d->name, d->uuid, d->major, d->minor,
                 (double)d->memory_bytes * 1e-9, d->cuda_driver / 1000, d->cuda_driver % 1000 / 10);
    audit_rank(g->members->core, "rank_joined", r, NULL);
    if (g->attached == group_world(g))
        start_loading(g);
}

/* --- what ranks tell ---------------------------------------------------------------------------
 */

static void send_probe(struct group *g)
{
    int32_t token = 0;
    Witan__Cluster__V1__Sampling sampling = WITAN__CLUSTER__V1__SAMPLING__INIT;
    Witan__Cluster__V1__Submit submit = WITAN__CLUSTER__V1__SUBMIT__INIT;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    sampling.top_p = 1.0f;
    submit.epoch = g->members->core->epoch;
    submit.prompt = &token;
    submit.n_prompt = 1;
    submit.max_tokens = 1;
    submit.ignore_eos = true;
    submit.sampling = &sampling;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT;
    message.submit = &submit;
    g->probe_ns = clock_now_ns();
    member_send(g->ranks[0], &message);
}

/* All groups answer under one name, so every rank must hold what this coordinator has opened. */
static bool same_weights(struct member *r, Witan__Cluster__V1__Ready *ready)
{
    const struct manifest *m = r->members->core->served.manifest;
    const char *own = m ? manifest_digest(m) : "";
    char who[320], why[1000];
    plain_text(ready->manifest_digest, MANIFEST_DIGEST_HEX + 1);
    if (strcmp(ready->manifest_digest, own) == 0)
        return true;
    describe(r, who, sizeof who);
    snprintf(why, sizeof why,
             "%s: manifest: expected the coordinator's (SHA-256 %s), found %s: give every host the "
             "same release, folder and manifest, and start the coordinator again after a change",
             who, m ? own : "none", *ready->manifest_digest ? ready->manifest_digest : "none");
    lose(r->group, why);
    return false;
}

static void on_ready(struct member *r, rank_message *message)
{
    struct group *g = r->group;
    if (g->state != GROUP_LOADING || r->ready) {
        member_refuse(r, RPC_FAILED_PRECONDITION, "ready, but no plan is open");
        return;
    }
    if (!same_weights(r, message->ready))
        return;
    watch_anew(r);
    r->ready = message->ready;
    message->ready = NULL;
    message->body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY__NOT_SET;
    audit_rank(g->members->core, "weights", r, NULL);
    if (++g->loaded < group_world(g))
        return;
    set_state(g, GROUP_PROVING, "%s in %.1f s",
              g->ranks[0]->ready->reattached ? "attached again; loaded before" : "loaded",
              g->ranks[0]->ready->load_seconds);
    send_probe(g);
}

static void hear_gpu(struct member *r, const Witan__Cluster__V1__Gpu *gpu)
{
    char rank[320], who[400];
    describe(r, rank, sizeof rank);
    snprintf(who, sizeof who, "group %.70s: %s", r->group->config->name, rank);
    gpu_heard(&r->gpu, who, gpu, clock_now_ns());
}

/* Takes the figures over from the message. */
static void hear_engine(struct member *r, Witan__Cluster__V1__Heartbeat *h)
{
    if (!h->engine)
        return;
    if (r->engine)
        witan__cluster__v1__engine__free_unpacked(r->engine, NULL);
    r->engine = h->engine;
    h->engine = NULL;
}

/* Of the processors of a rank's host: as many shares as groups have ranks there that count. */
static double host_share(const struct member *r)
{
    const struct members *m = r->members;
    int32_t groups = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct group *g = &m->groups[i];
        bool here = g == r->group;
        for (int32_t k = 0; k < group_world(g) && !here; k++)
            here = g->ranks[k] && g->joules.ranks[k].host.counts &&
                   strcmp(g->ranks[k]->hello->host, r->hello->host) == 0;
        groups += here;
    }
    return 1.0 / groups;
}

static void on_heartbeat(struct member *r, Witan__Cluster__V1__Heartbeat *h)
{
    struct group *g = r->group;
    r->heartbeat_ns = clock_now_ns();
    r->step = h->step;
    r->phase = (int)h->phase;
    watch_heartbeat(r, h);
    hear_gpu(r, h->gpu);
    hear_engine(r, h);
    r->host_share = host_share(r);
    joules_heard(&g->joules, (int32_t)r->hello->rank, h->energy, r->host_share);
    if (r->hello->rank != 0)
        return;
    g->running = h->running;
    g->waiting = h->waiting;
    if (r->engine)
        backlog_fed(&g->backlog, r->engine->prompt_rows);
    g->kv_blocks_free = h->kv_blocks_free;
    g->kv_blocks = h->kv_blocks;
}

static void on_probe(struct group *g, const Witan__Cluster__V1__SequenceTokens *s)
{
    if (s->finish == WITAN__CLUSTER__V1__FINISH__FINISH_ERROR) {
        char why[700];
        snprintf(why, sizeof why, "the first forward pass failed: %s", s->error);
        lose(g, why);
        return;
    }
    g->probe_ns = 0;
    if (g->state == GROUP_PROVING)
        set_state(g, GROUP_READY, "%s", "");
    generation_resume(g->members->core);
}

static void take_tokens(struct member *r, Witan__Cluster__V1__Tokens *t)
{
    struct group *g = r->group;
    struct core *core = g->members->core;
    if (g->state == GROUP_STOPPING)
        return; /* of requests that have been called off */
    if (r->hello->rank != 0 || (g->state != GROUP_READY && g->state != GROUP_PROVING)) {
        member_refuse(r, RPC_FAILED_PRECONDITION, "tokens from a rank that has none to give");
        return;
    }
    /* A step is collective: whatever it drew, it crossed every rank. */
    g->proven_ns = clock_now_ns();
    joules_step(&g->joules, t, r->host_share);
    for (size_t i = 0; i < t->n_sequences && g->state != GROUP_LOST; i++) {
        Witan__Cluster__V1__SequenceTokens *s = t->sequences[i];
        const char *wrong = tokens_wrong(s);
        if (wrong) {
            member_refuse(r, RPC_INVALID_ARGUMENT, "tokens of request %llu: %s",
                          (unsigned long long)s->request_id, wrong);
            return;
        }
        bool probe = s->request_id == 0 && s->epoch == core->epoch;
        g->tokens += probe ? 0 : s->n_ids;
        if (probe && (s->n_ids > 0 || s->finish != WITAN__CLUSTER__V1__FINISH__FINISH_NONE))
            on_probe(g, s);
        bool taken = !probe && (share_tokens(g->members->share, g, s) || tokens_tell(core, s));
        joules_told(&g->joules, s, taken);
    }
}

static void on_tokens(struct member *r, Witan__Cluster__V1__Tokens *t)
{
    take_tokens(r, t);
    share_flush(r->members->share);
}

static void on_wake_peers(struct member *r, const Witan__Cluster__V1__WakePeers *w)
{
    struct group *g = r->group;
    if (r->hello->rank != 0 || w->generation <= g->wake)
        return;
    g->wake = w->generation;
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    wake.generation = g->wake;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    message.wake = &wake;
    for (int32_t i = 1; i < group_world(g); i++)
        member_send(g->ranks[i], &message);
}

/* Figures are not worth a group: what does not hold together is left out. */
static void on_expert_load(struct member *r, const Witan__Cluster__V1__ExpertLoad *load)
{
    struct group *g = r->group;
    const struct rank_plan *plan = &g->deployment.plan->ranks[r->hello->rank];
    if (plan->rank % g->deployment.plan->layout.w == 0)
        experts_heard(&g->experts, plan, load, clock_now_ns());
}

static void on_failed(struct member *r, Witan__Cluster__V1__Failed *f)
{
    char who[320], why[1000];
    plain_text(f->message, sizeof r->failed);
    describe(r, who, sizeof who);
    snprintf(r->failed, sizeof r->failed, "%s", f->message);
    snprintf(why, sizeof why, "%s: %s", who, f->message);
    lose(r->group, why);
}

static void take_message(struct member *r, rank_message *message)
{
    switch ((int)message->body_case) {
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY:
        on_ready(r, message);
        break;
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT:
        on_heartbeat(r, message->heartbeat);
        break;
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS:
        on_tokens(r, message->tokens);
        break;
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_WAKE_PEERS:
        on_wake_peers(r, message->wake_peers);
        break;
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_FAILED:
        on_failed(r, message->failed);
        break;
    case WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_EXPERT_LOAD:
        on_expert_load(r, message->expert_load);
        break;
    default:
        break; /* a later release's: what it says is not needed by this one */
    }
}

void member_opened(struct member *r)
{
    r->next = r->members->open;
    r->members->open = r;
}

void member_message(struct member *r, rank_message *message)
{
    if (message->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO)
        on_hello(r, message);
    else if (!r->group)
        member_refuse(r, RPC_INVALID_ARGUMENT, "the first message of a stream must be a hello");
    else if (r->group->state != GROUP_LOST)
        take_message(r, message);
    witan__cluster__v1__rank_message__free_unpacked(message, NULL);
}

/* In an ordered end ranks leave one by one; otherwise one that leaves takes its group with it. */
static void leave(struct member *r, int code, const char *text)
{
    struct group *g = r->group;
    char who[320], why[1000];
    describe(r, who, sizeof who);
    g->ranks[r->hello->rank] = NULL;
    g->attached--;
    joules_gone(&g->joules, (int32_t)r->hello->rank);
    snprintf(why, sizeof why,
             "%s is gone in phase %s at step %llu: its control stream ended: %s%s%s", who,
             phase_name(r->phase), (unsigned long long)r->step, rpc_code_name(code),
             *text ? ", " : "", text);
    audit_rank(g->members->core, "rank_left", r, *r->failed ? r->failed : why);
    /* One that only waited for the others to attach again, or looks for them at another
     * coordinator, has served nobody. */
    if (g->state == GROUP_WAITING && (r->hello->loaded || code == RPC_OK))
        log_warn("group %s: %s", g->config->name, why);
    else if (!g->members->stopping && g->state != GROUP_STOPPING)
        lose_by(g, RPC_ABORTED, why);
    if (g->attached == 0)
        reset(g);
}

void member_closed(struct member *r, int code, const char *message)
{
    struct member **at = &r->members->open;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    if (r->group)
        leave(r, code, message);
    if (r->hello)
        witan__cluster__v1__hello__free_unpacked(r->hello, NULL);
    if (r->ready)
        witan__cluster__v1__ready__free_unpacked(r->ready, NULL);
    if (r->engine)
        witan__cluster__v1__engine__free_unpacked(r->engine, NULL);
    rpc_call_unref(r->call);
    free(r->uris);
    free(r);
}

/* --- time --------------------------------------------------------------------------------------
 */

static void tick_group(struct group *g, int64_t now)
{
    const struct config *c = g->members->core->config;
    char why[400];
    bool starting = g->state == GROUP_LOADING || g->state == GROUP_PROVING ||
                    (g->state == GROUP_WAITING && g->attached > 0);
    if (starting && now - g->since_ns > (int64_t)c->limits.start_timeout_s * 1000000000) {
        struct error err;
        group_why_not(g, &err);
        snprintf(why, sizeof why, "not ready after %d s (limits.start_timeout_s): %.300s",
                 c->limits.start_timeout_s, err.msg);
        lose(g, why);
    } else if (g->state == GROUP_STOPPING &&
               now - g->since_ns > (int64_t)GROUP_STOP_S * 1000000000) {
        snprintf(why, sizeof why, "%d of its ranks have not ended within %d s of being told to",
                 g->attached, (int)GROUP_STOP_S);
        lose(g, why);
    } else if (g->state == GROUP_READY && !g->via && g->probe_ns == 0 &&
               now - g->proven_ns > (int64_t)c->limits.probe_s * 1000000000) {
        send_probe(g);
    }
}

void members_tick(struct members *m)
{
    int64_t now = clock_now_ns();
    for (struct member *r = m->open; r; r = r->next)
        if (!r->group && now - r->opened_ns > (int64_t)HELLO_TIMEOUT_S * 1000000000)
            member_refuse(r, RPC_DEADLINE_EXCEEDED, "no hello within %d s", (int)HELLO_TIMEOUT_S);
    for (uint32_t i = 0; i < m->count && !m->stopping; i++)
        tick_group(&m->groups[i], now);
    for (uint32_t i = 0; i < m->count && !m->stopping; i++)
        group_drain_tick(&m->groups[i], now);
}

/* --- start and stop ----------------------------------------------------------------------------
 */

static enum status create_groups(struct members *m, struct error *err)
{
    struct core *core = m->core;
    const struct config *c = core->config;
    struct inventory *inv = NULL;
    struct checkpoint *ck = NULL;
    enum status st = inventory_create(&core->served.config, &inv, err);
    if (st == OK) {
        inv->mode = config_cuda(c) ? WEIGHTS_PACKED : core->served.weights;
        st = checkpoint_open_proven(c->model.path, core->served.manifest, &ck, err);
    }
    if (st == OK)
        st = inventory_bind(inv, &core->served.config, ck, err);
    for (uint32_t i = 0; st == OK && i < c->groups_count; i++) {
        struct group *g = &m->groups[m->count++];
        g->members = m;
        g->config = &c->groups[i];
        g->since_ns = clock_now_ns();
        st = deployment_init(&g->deployment, &core->served.config, inv, c, g->config,
                             core->served.context, err);
        experts_init(&g->experts, &core->served.config);
        if (st == OK)
            joules_init(&g->joules, group_world(g));
        g->backlog.step_tokens = c->limits.step_tokens;
        g->backlog.slots = c->limits.sequences;
        if (st == OK)
            g->ranks = check_calloc((size_t)group_world(g), sizeof *g->ranks);
        if (st == OK && m->hashes)
            g->prefixes = prefixes_create(core_draw_seed());
        if (st != OK)
            error_prefix(err, "group %s: ", g->config->name);
    }
    checkpoint_close(ck);
    inventory_destroy(inv);
    return st;
}

enum status members_create(struct core *core, struct rpc *rpc, const struct rpc_tls *tls,
                           void (*notify)(const char *group, const char *state,
                                          const char *message),
                           struct members **out, struct error *err)
{
    struct members *m = check_calloc(1, sizeof *m);
    m->core = core;
    m->notify = notify;
    m->groups = check_calloc(core->config->groups_count, sizeof *m->groups);
    attach_service(m, &m->methods[0]);
    if (core->config->groups_count > 1 && strcmp(core->config->limits.prefix_cache, "off") != 0)
        m->hashes = check_calloc(PREFIXES_CHAIN, sizeof *m->hashes);
    enum status st = create_groups(m, err);
    if (st == OK)
        st = share_create(m, rpc, tls, &m->methods[1], &m->share, err);
    if (st == OK)
        st = rpc_server_create(rpc, core->config->listen.cluster, tls, m->methods,
                               COUNT_OF(m->methods), &m->server, err);
    if (st != OK) {
        members_destroy(m);
        return st;
    }
    rpc_server_set_serving(m->server, true);
    *out = m;
    return OK;
}

void members_destroy(struct members *m)
{
    if (!m)
        return;
    m->stopping = true;
    rpc_server_stop(m->server, 0);
    loop_drain(m->core->loop);
    share_destroy(m->share);
    for (uint32_t i = 0; i < m->count; i++) {
        deployment_fini(&m->groups[i].deployment);
        prefixes_destroy(m->groups[i].prefixes);
        experts_fini(&m->groups[i].experts);
        joules_fini(&m->groups[i].joules);
        free(m->groups[i].ranks);
    }
    free(m->groups);
    free(m->hashes);
    free(m);
}

int members_port(const struct members *m)
{
    return rpc_server_port(m->server);
}

/* All ranks; of one group alone where it is not NULL. */
static void say_stop(const struct members *m, const struct group *g, const char *reason)
{
    Witan__Cluster__V1__Stop stop = WITAN__CLUSTER__V1__STOP__INIT;
    coordinator_message message = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    stop.reason = (char *)reason;
    message.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP;
    message.stop = &stop;
    for (struct member *r = m->open; r; r = r->next)
        if (!g || r->group == g)
            member_send(r, &message);
}

void group_stop(struct group *g, const char *reason)
{
    set_state(g, GROUP_STOPPING, "%s", reason);
    say_stop(g->members, g, reason);
}

/* Ranks that were started elsewhere, and that a coordinator beside this one can take, go there;
 * those that know no other are told to stop. */
static void let_go(struct members *m)
{
    for (struct member *r = m->open; r; r = r->next)
        if (r->group && r->group->config->external && r->hello->coordinators > 1)
            rpc_finish(r->call, RPC_UNAVAILABLE, "this coordinator ends: attach to another");
}

void members_stop(struct members *m, const char *reason)
{
    m->stopping = true;
    if (share_linked(m->share))
        let_go(m);
    share_stop(m->share, reason);
    say_stop(m, NULL, reason);
}

void members_leave(struct members *m)
{
    share_leave(m->share);
}

int members_relays(const struct members *m)
{
    return share_relays(m->share);
}

bool members_gone(const struct members *m)
{
    return m->open == NULL && share_gone(m->share);
}

bool members_all_ready(const struct members *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->groups[i].state != GROUP_READY)
            return false;
    return true;
}
