/*
 * One rank's control stream: see attach.h. State: atomics that the engine thread writes and the
 * tick sends; the mailbox; `call`, which the engine thread replaces under `lock`.
 */
#include "worker/control/attach.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/pki.h"
#include "proto/rpc.h"
#include "worker/control/addresses.h"
#include "worker/control/heartbeat.h"
#include "worker/control/hello.h"
#include "worker/cuda/plugin.h"
#include "worker/meter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#define METHOD "/witan.cluster.v1.Cluster/Attach"

struct attach {
    struct attach_options options;
    struct mailbox *mailbox;
    struct pki_files files;
    struct rpc *rpc;
    struct addresses addresses; /* of the engine thread, and to be read in on_closed */
    atomic_int closed_code;
    atomic_bool heard;         /* anything from the coordinator */
    atomic_bool closing;       /* attach_close is at work */
    atomic_bool again;         /* attach_again is */
    atomic_bool may_return;    /* the plan lets this rank attach again */
    bool loaded;               /* what the next hello says */
    bool left;                 /* this rank has left the last stream, where no plan came */
    int64_t planned_ns;        /* when the last plan came */
    int64_t lost_ns;           /* when the last good stream ended; 0: there was none */
    int64_t wait_ms;           /* before the next try to attach again */
    atomic_llong ended_ns;     /* 0: the stream has not */
    atomic_llong stop_ns;      /* when Stop came; 0: it has not */
    atomic_int heartbeat_ms;   /* 0: none yet */
    atomic_llong heartbeat_ns; /* of the last one */
    atomic_ullong steps;
    atomic_int phase;
    atomic_llong phase_ns; /* when it began */
    atomic_uint running, waiting, kv_blocks_free, kv_blocks;
    struct meter *meter;   /* of the GPU; NULL: none */
    struct energy *energy;
    pthread_mutex_t lock;  /* of: */
    struct rpc_call *call; /* a reference; NULL between two streams */
    bool has_figures;
    struct engine_figures figures;
    const struct expert_counts *experts; /* NULL: there are none to tell */
    uint64_t *expert_tokens;             /* a copy of them; owned */
    uint64_t expert_sum;                 /* of those last told */
    int64_t experts_ns;                  /* when last looked at; 0: not told on this stream */
};

/* --- the rpc thread --------------------------------------------------------------------------- */

static _Noreturn void give_up(const char *why, int after_ms)
{
    log_error("%s, and for %d s this rank has not come to notice: it ends", why, after_ms / 1000);
    _exit(1);
}

/* How long the engine thread may take to notice that the stream has ended. */
static int grace_ms(struct attach *a, int phase)
{
    int code = atomic_load(&a->closed_code);
    if (code == RPC_FAILED_PRECONDITION) /* the coordinator has given the group up */
        return ATTACH_LOST_MS;
    /* Between its own parts of a step a rank waits for another stage's. */
    bool step = phase == WITAN__CLUSTER__V1__PHASE__PHASE_FORWARD ||
                phase == WITAN__CLUSTER__V1__PHASE__PHASE_WAITING;
    return step && code != RPC_ABORTED && atomic_load(&a->may_return) ? ATTACH_STEP_MS
                                                                      : ATTACH_GRACE_MS;
}

/* Ends the process when the engine thread can no longer do so itself. */
static void watch(struct attach *a, int64_t now)
{
    const int64_t grace = (int64_t)ATTACH_GRACE_MS * 1000000;
    int64_t ended = atomic_load(&a->ended_ns), stop = atomic_load(&a->stop_ns);
    int phase = atomic_load(&a->phase); /* before its time: see attach_phase */
    int64_t since = atomic_load(&a->phase_ns), noticing = ended > since ? ended : since;
    if (atomic_load(&a->closing) || atomic_load(&a->again))
        return;
    if (stop == 0 && ended != 0 && now - noticing > (int64_t)grace_ms(a, phase) * 1000000)
        give_up("the stream to the coordinator has ended", grace_ms(a, phase));
    /* A step that runs is awaited, however long it takes while the coordinator listens; parked, the
     * engine thread counts itself. */
    if (stop != 0 && ended != 0 && now - noticing > (int64_t)ATTACH_STEP_MS * 1000000)
        give_up("the coordinator said to stop, and is gone", ATTACH_STEP_MS);
    if (stop != 0 && phase != WITAN__CLUSTER__V1__PHASE__PHASE_FORWARD &&
        phase != WITAN__CLUSTER__V1__PHASE__PHASE_IDLE && now - stop > grace && now - since > grace)
        give_up("the coordinator said to stop", ATTACH_GRACE_MS);
}

/* NULL: nothing has been told yet. */
static Witan__Cluster__V1__Engine *fill_engine(struct attach *a, struct engine_beat *b)
{
    pthread_mutex_lock(&a->lock);
    bool any = a->has_figures;
    b->figures = a->figures;
    pthread_mutex_unlock(&a->lock);
    return any ? heartbeat_engine(b, a->options.rank == 0) : NULL;
}

/* NULL: not known. A step's end has just been read. */
static Witan__Cluster__V1__Energy *fill_energy(struct attach *a, bool step, struct energy_beat *b)
{
    bool known = step ? energy_last(a->energy, &b->reading) : energy_read(a->energy, &b->reading);
    return known ? heartbeat_energy(b, a->options.counts_host, a->options.counts_gpu) : NULL;
}

static void send_heartbeat(struct attach *a, int64_t now)
{
    struct gpu_beat gpu;
    struct engine_beat engine;
    struct energy_beat energy;
    Witan__Cluster__V1__Heartbeat beat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    int64_t ms = (now - atomic_load(&a->phase_ns)) / 1000000;
    beat.step = atomic_load(&a->steps);
    beat.phase = (Witan__Cluster__V1__Phase)atomic_load(&a->phase);
    beat.phase_ms = ms > 0 ? (uint64_t)ms : 0;
    beat.running = atomic_load(&a->running);
    beat.waiting = atomic_load(&a->waiting);
    beat.kv_blocks_free = atomic_load(&a->kv_blocks_free);
    beat.kv_blocks = atomic_load(&a->kv_blocks);
    beat.gpu = heartbeat_gpu(a->meter, &gpu);
    beat.engine = fill_engine(a, &engine);
    beat.energy = fill_energy(a, false, &energy);
    if (a->options.progress) {
        beat.progress = atomic_load(&a->options.progress->count) + 1;
        beat.layer = (uint32_t)atomic_load(&a->options.progress->layer);
        beat.meets = atomic_load(&a->options.progress->meets) > 0;
    }
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &beat;
    struct error ignored; /* a stream that has ended, or is full, says so elsewhere */
    pthread_mutex_lock(&a->lock);
    if (a->call && atomic_load(&a->heartbeat_ms) != 0)
        rpc_send(a->call, &m.base, &ignored);
    pthread_mutex_unlock(&a->lock);
}

/* Under the lock; `call` is open. */
static void tell_experts(struct attach *a, int64_t now)
{
    Witan__Cluster__V1__ExpertLoad load = WITAN__CLUSTER__V1__EXPERT_LOAD__INIT;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    uint64_t sum = expert_counts_read(a->experts, a->expert_tokens);
    bool told = a->experts_ns != 0 && sum == a->expert_sum;
    a->experts_ns = now;
    if (told)
        return;
    load.first_layer = (uint32_t)a->experts->layers.begin;
    load.experts = (uint32_t)a->experts->experts;
    load.n_tokens = (size_t)expert_counts_size(a->experts);
    load.tokens = a->expert_tokens;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_EXPERT_LOAD;
    m.expert_load = &load;
    struct error ignored; /* as of heartbeats */
    if (rpc_send(a->call, &m.base, &ignored) == OK)
        a->expert_sum = sum;
    else
        a->experts_ns = 0; /* again at the next tick */
}

static void send_experts(struct attach *a, int64_t now)
{
    const int64_t every = (int64_t)ATTACH_EXPERTS_MS * 1000000;
    pthread_mutex_lock(&a->lock);
    if (a->experts && a->call && atomic_load(&a->heartbeat_ms) != 0 &&
        (a->experts_ns == 0 || now - a->experts_ns >= every))
        tell_experts(a, now);
    pthread_mutex_unlock(&a->lock);
}

static void on_tick(void *arg)
{
    struct attach *a = arg;
    int64_t now = clock_now_ns(), every = atomic_load(&a->heartbeat_ms);
    log_set_rank(a->options.rank);
    watch(a, now);
    send_experts(a, now);
    if (every == 0 || now - atomic_load(&a->heartbeat_ns) < every * 1000000)
        return;
    atomic_store(&a->heartbeat_ns, now);
    send_heartbeat(a, now);
}

static enum status refuse_on(struct rpc_call *call, const struct request_key *key, const char *why,
                             struct error *err)
{
    Witan__Cluster__V1__SequenceTokens one = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    Witan__Cluster__V1__SequenceTokens *all[] = {&one};
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    one.request_id = key->request_id;
    one.attempt = key->attempt;
    one.epoch = key->epoch;
    one.finish = WITAN__CLUSTER__V1__FINISH__FINISH_ERROR;
    one.error = (char *)(uintptr_t)why; /* the generated struct lacks the const */
    tokens.n_sequences = COUNT_OF(all);
    tokens.sequences = all;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &tokens;
    return rpc_send(call, &m.base, err);
}

static void on_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct attach *a = user;
    const Witan__Cluster__V1__CoordinatorMessage *m =
        (const Witan__Cluster__V1__CoordinatorMessage *)message;
    struct error err;
    atomic_store(&a->heard, true);
    if (m->body_case == WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP)
        atomic_store(&a->stop_ns, clock_now_ns());
    if (mailbox_put(a->mailbox, m, &err) == OK)
        return;
    if (m->body_case == WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WORDS)
        log_warn("%s", err.msg);
    if (m->body_case != WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT)
        return;
    const struct request_key key = {.request_id = m->submit->request_id,
                                    .attempt = m->submit->attempt,
                                    .epoch = m->submit->epoch};
    struct error ignored; /* what is not delivered ends with the stream */
    refuse_on(call, &key, err.msg, &ignored);
}

static void on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct attach *a = user;
    struct error why;
    (void)call;
    if (code == RPC_OK)
        error_set(&why, ERR_IO, "coordinator %s: ended the stream", addresses_at(&a->addresses));
    else
        error_set(&why, ERR_IO, "coordinator %s: %s: %s", addresses_at(&a->addresses),
                  rpc_code_name(code), message ? message : "");
    atomic_store(&a->closed_code, code);
    atomic_store(&a->ended_ns, clock_now_ns());
    mailbox_end(a->mailbox, &why);
}

/* --- the engine thread ------------------------------------------------------------------------ */

static enum status send_hello(struct attach *a, struct error *err)
{
    struct hello hello;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    TRY(hello_fill(&a->options, &hello, err));
    hello.message.loaded = a->loaded;
    hello.message.coordinators = (uint32_t)a->addresses.count;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO;
    m.hello = &hello.message;
    return rpc_send(a->call, &m.base, err);
}

static void replace_call(struct attach *a, struct rpc_call *call)
{
    pthread_mutex_lock(&a->lock);
    struct rpc_call *old = a->call;
    a->call = call;
    a->experts_ns = 0;
    pthread_mutex_unlock(&a->lock);
    if (old)
        rpc_call_unref(old);
}

/* The stream before, if there was one, has ended. */
static enum status connect(struct attach *a, struct error *err)
{
    static const struct rpc_call_handlers handlers = {.on_message = on_message,
                                                      .on_closed = on_closed};
    struct rpc_call *call;
    atomic_store(&a->heartbeat_ms, 0); /* until there is a plan */
    replace_call(a, NULL);
    a->left = false;
    atomic_store(&a->ended_ns, 0);
    atomic_store(&a->heard, false);
    mailbox_reopen(a->mailbox);
    TRY(rpc_call_start(addresses_channel(&a->addresses), METHOD,
                       &witan__cluster__v1__coordinator_message__descriptor, &handlers, a, 0, false,
                       NULL, &call, err));
    replace_call(a, call);
    enum status st = send_hello(a, err);
    /* A stream that has ended already says better why. */
    return st == ERR_CANCELLED ? OK : st;
}

static enum status start_meters(struct attach *a, struct error *err)
{
    const struct attach_options *o = &a->options;
    if (o->device) {
        const struct meter_options m = {
            .library = o->nvml, .uuid = o->device->uuid, .pci = o->device->pci, .rank = o->rank};
        TRY(meter_create(&m, &a->meter, err));
    }
    const struct energy_options e = {
        .root = o->powercap, .host = o->counts_host, .gpu = o->counts_gpu, .meter = a->meter};
    return energy_create(&e, &a->energy, err);
}

enum status attach_create(const struct attach_options *o, struct attach **out, struct error *err)
{
    struct attach *a = check_calloc(1, sizeof *a);
    a->options = *o;
    pthread_mutex_init(&a->lock, NULL);
    atomic_store(&a->phase_ns, clock_now_ns());
    enum status st = mailbox_create(&a->mailbox, err);
    if (st == OK)
        st = addresses_init(&a->addresses, o->coordinator, err);
    if (st == OK)
        st = start_meters(a, err);
    if (st == OK)
        st = pki_load(o->tls_dir, "worker", &a->files, err);
    if (st == OK)
        st = rpc_create(ATTACH_TICK_MS, on_tick, a, &a->rpc, err);
    if (st == OK) {
        const struct rpc_tls tls = {.ca = a->files.ca,
                                    .cert = a->files.cert,
                                    .key = a->files.key,
                                    .peer_name = PKI_COORDINATOR_NAME};
        st = addresses_open(&a->addresses, a->rpc, &tls, err);
    }
    if (st == OK)
        st = connect(a, err);
    if (st != OK) {
        attach_close(a, NULL);
        return st;
    }
    *out = a;
    return OK;
}

/* Is it worth another try: nothing listens there, nobody has answered yet, or what is left of an
 * earlier start has not gone. */
static bool unreachable(struct attach *a)
{
    int code = atomic_load(&a->closed_code);
    return atomic_load(&a->ended_ns) != 0 && (code == RPC_UNAVAILABLE || code == RPC_ABORTED) &&
           !atomic_load(&a->heard);
}

/* Has the coordinator said that this rank, as it is, cannot attach? */
static bool refused(struct attach *a)
{
    switch (atomic_load(&a->closed_code)) {
    case RPC_INVALID_ARGUMENT:
    case RPC_NOT_FOUND:
    case RPC_PERMISSION_DENIED:
    case RPC_FAILED_PRECONDITION:
    case RPC_UNIMPLEMENTED:
    case RPC_UNAUTHENTICATED:
        return true;
    default:
        return false;
    }
}

/* 0 to `most`, by chance. */
static int64_t jitter(int64_t most)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = UINT32_MAX / 2; /* jitter is a courtesy */
    return (int64_t)((uint64_t)(most / 1000) * random >> 32) * 1000;
}

/* The other side lets go, or its time is over. */
static void end_stream(struct attach *a)
{
    rpc_half_close(a->call);
    if (mailbox_wait_end(a->mailbox, (int64_t)ATTACH_CLOSE_MS * 1000000))
        return;
    rpc_cancel(a->call);
    mailbox_wait_end(a->mailbox, -1);
}

/* Waits for a plan until `until` (below 0: for ever). Where there are several coordinators it
 * leaves one at which none has come for a while, since the other ranks may be elsewhere: ERR_IO. */
static enum status wait_plan(struct attach *a, int64_t until, struct assignment *out,
                             struct error *err)
{
    int64_t now = clock_now_ns(), wait = until < 0 ? -1 : until > now ? until - now : 0;
    int64_t gather = (a->loaded ? ATTACH_GATHER_MS : ATTACH_GATHER_FIRST_MS) * (int64_t)1000000;
    gather += jitter(gather / 2);
    bool leave = a->addresses.count > 1 && (wait < 0 || gather < wait);
    enum status st = mailbox_wait_plan(a->mailbox, leave ? gather : wait, out, err);
    if (st != ERR_LIMIT || !leave)
        return st;
    end_stream(a);
    a->left = true;
    error_set(err, ERR_IO, "coordinator %s: no plan came for %lld ms: not all ranks are there",
              addresses_at(&a->addresses), (long long)(gather / 1000000));
    log_info("%s; looking for them at the other coordinators", err->msg);
    return ERR_IO;
}

/* It was there when this rank left it. */
static bool answered(struct attach *a)
{
    return a->left && atomic_load(&a->closed_code) == RPC_OK;
}

/* After a stream that brought no plan: to the coordinator that is tried next. False: all have been,
 * and after a wait it is the first. */
static bool move_on(struct attach *a)
{
    bool passed = a->left || atomic_load(&a->closed_code) == RPC_UNAVAILABLE || refused(a);
    bool next = passed && !answered(a) && addresses_next(&a->addresses);
    if (!next)
        addresses_first(&a->addresses);
    return next || answered(a); /* the others may be at an earlier one */
}

struct names {
    char s[600];
};

/* "no coordinator", or none of these. */
static struct names nobody(const struct attach *a)
{
    struct names n = {"no coordinator"};
    char list[512];
    addresses_list(&a->addresses, list, sizeof list);
    if (a->addresses.count > 1)
        snprintf(n.s, sizeof n.s, "none of the coordinators %s", list);
    return n;
}

static void take_plan(struct attach *a, const struct assignment *plan)
{
    a->loaded = true; /* it will have, before this stream can end and another one follow */
    a->planned_ns = clock_now_ns();
    atomic_store(&a->may_return, plan->reattach_timeout_s > 0);
    atomic_store(&a->heartbeat_ms, plan->heartbeat_ms);
}

/* A refusal by the first is the answer; one by another may be that one's mistake. */
static bool worth_another(struct attach *a, enum status st)
{
    return st == ERR_IO && (a->left || a->addresses.at > 0 || unreachable(a));
}

enum status attach_wait_plan(struct attach *a, struct assignment *out, struct error *err)
{
    const int64_t time = (int64_t)ATTACH_CONNECT_MS * 1000000;
    int64_t until = clock_now_ns() + time;
    bool told = false, late = false;
    enum status st;
    while ((st = wait_plan(a, -1, out, err)) != OK && worth_another(a, st)) {
        if (answered(a)) /* time counts anew */
            until = clock_now_ns() + time;
        if (!move_on(a)) {
            late = clock_now_ns() >= until;
            if (late)
                break;
            if (!told)
                log_warn("%s; trying again for %d s", err->msg, ATTACH_CONNECT_MS / 1000);
            told = true;
            usleep(ATTACH_RETRY_MS * 1000);
        }
        TRY(connect(a, err));
    }
    if (st == OK)
        take_plan(a, out);
    else if (late && a->addresses.count > 1)
        error_prefix(err, "%s has taken this rank within %d s; last: ", nobody(a).s,
                     ATTACH_CONNECT_MS / 1000);
    return st;
}

/* A stream that ended soon after its plan counts with the one before. */
static void begin_again(struct attach *a)
{
    int64_t now = clock_now_ns();
    if (a->lost_ns != 0 && now - a->planned_ns < (int64_t)ATTACH_AGAIN_SOUND_MS * 1000000)
        return;
    a->lost_ns = now;
    a->wait_ms = ATTACH_AGAIN_FIRST_MS;
}

/* False: the time is over. */
static bool wait_again(struct attach *a, int64_t until)
{
    int64_t wait_ns = a->wait_ms * 500000;
    wait_ns += jitter(wait_ns);
    a->wait_ms = 2 * a->wait_ms < ATTACH_AGAIN_MOST_MS ? 2 * a->wait_ms : ATTACH_AGAIN_MOST_MS;
    if (clock_now_ns() + wait_ns >= until)
        return false;
    usleep((useconds_t)(wait_ns / 1000));
    return true;
}

/* Tries until there is a plan, a refusal, a Stop (ERR_CANCELLED) or no time left (ERR_LIMIT). */
static enum status try_again(struct attach *a, int64_t until, struct assignment *out,
                             struct error *err)
{
    enum status st = ERR_IO; /* a stream that ends says so */
    bool at_once = false;
    if (refused(a)) /* by its coordinator, whichever that was */
        return err->code;
    addresses_first(&a->addresses);
    while (st == ERR_IO) {
        if (!at_once && !wait_again(a, until))
            return ERR_LIMIT;
        TRY(connect(a, err));
        struct error why;
        st = wait_plan(a, until, out, &why);
        if (st != OK && st != ERR_LIMIT)
            *err = why;
        if (st == ERR_IO && a->addresses.at == 0 && refused(a))
            return err->code;
        at_once = st == ERR_IO && move_on(a);
    }
    return st;
}

enum status attach_again(struct attach *a, int32_t timeout_s, struct assignment *out,
                         struct error *err)
{
    struct error last = *err;
    enum log_level level = a->options.rank == 0 ? LOG_WARN : LOG_INFO;
    atomic_store(&a->again, true);
    begin_again(a);
    log_line(level, "%s; this rank keeps its weights and attaches again, trying for %d s", err->msg,
             timeout_s);
    enum status st = try_again(a, a->lost_ns + (int64_t)timeout_s * 1000000000, out, &last);
    atomic_store(&a->again, false);
    if (st == OK)
        take_plan(a, out);
    else if (st == ERR_LIMIT)
        error_set(err, ERR_LIMIT,
                  "%s has taken this rank back within %d s (limits.reattach_timeout_s): it ends; "
                  "last: %s",
                  nobody(a).s, timeout_s, last.msg);
    else
        *err = last;
    if (st == OK && a->addresses.count > 1)
        log_line(level, "attached again, to coordinator %s", addresses_at(&a->addresses));
    return st;
}

static void say_failed(struct attach *a, const struct error *failed)
{
    Witan__Cluster__V1__Failed body = WITAN__CLUSTER__V1__FAILED__INIT;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    struct error copy = *failed, ignored; /* whoever cannot be told sees the stream end */
    body.message = copy.msg;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_FAILED;
    m.failed = &body;
    rpc_send(a->call, &m.base, &ignored);
}

void attach_close(struct attach *a, const struct error *failed)
{
    if (!a)
        return;
    atomic_store(&a->closing, true);
    if (a->call) {
        if (failed)
            say_failed(a, failed);
        end_stream(a);
        atomic_store(&a->heartbeat_ms, 0);
    }
    addresses_fini(&a->addresses);
    rpc_destroy(a->rpc);
    energy_destroy(a->energy);
    meter_destroy(a->meter);
    if (a->call)
        rpc_call_unref(a->call);
    pki_files_fini(&a->files);
    mailbox_destroy(a->mailbox);
    pthread_mutex_destroy(&a->lock);
    free(a->expert_tokens);
    free(a);
}

struct mailbox *attach_mailbox(struct attach *a)
{
    return a->mailbox;
}

void attach_phase(struct attach *a, Witan__Cluster__V1__Phase phase)
{
    atomic_store(&a->phase_ns, clock_now_ns()); /* first: no phase is seen with a time before it */
    atomic_store(&a->phase, (int)phase);
    energy_phase(a->energy, phase == WITAN__CLUSTER__V1__PHASE__PHASE_FORWARD);
}

bool attach_metered(struct attach *a)
{
    struct energy_reading ignored;
    return energy_last(a->energy, &ignored);
}

void attach_stepped(struct attach *a)
{
    atomic_fetch_add(&a->steps, 1);
    meter_stepped(a->meter);
}

void attach_load(struct attach *a, const struct attach_load *load)
{
    atomic_store(&a->running, load->running);
    atomic_store(&a->waiting, load->waiting);
    atomic_store(&a->kv_blocks_free, load->kv_blocks_free);
    atomic_store(&a->kv_blocks, load->kv_blocks);
}

void attach_figures(struct attach *a, const struct engine_figures *figures)
{
    pthread_mutex_lock(&a->lock);
    a->figures = *figures;
    a->has_figures = true;
    pthread_mutex_unlock(&a->lock);
}

void attach_experts(struct attach *a, const struct expert_counts *counts)
{
    if (!counts)
        return;
    pthread_mutex_lock(&a->lock);
    a->expert_tokens = check_calloc((size_t)expert_counts_size(counts), sizeof *a->expert_tokens);
    a->experts = counts;
    pthread_mutex_unlock(&a->lock);
}

/* The generated structs lack the const of what is only read. */
enum status attach_send_ready(struct attach *a, const Witan__Cluster__V1__Ready *ready,
                              struct error *err)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY;
    m.ready = (Witan__Cluster__V1__Ready *)(uintptr_t)ready;
    return rpc_send(a->call, &m.base, err);
}

enum status attach_send_tokens(struct attach *a, const Witan__Cluster__V1__Tokens *tokens,
                               struct error *err)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Tokens body = *tokens;
    struct energy_beat energy;
    body.energy = fill_energy(a, true, &energy);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &body;
    return rpc_send(a->call, &m.base, err);
}

enum status attach_send_wake_peers(struct attach *a, uint64_t generation, struct error *err)
{
    Witan__Cluster__V1__WakePeers body = WITAN__CLUSTER__V1__WAKE_PEERS__INIT;
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    body.generation = generation;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_WAKE_PEERS;
    m.wake_peers = &body;
    return rpc_send(a->call, &m.base, err);
}

enum status attach_refuse(struct attach *a, const struct request_key *key, const char *why,
                          struct error *err)
{
    return refuse_on(a->call, key, why, err);
}
