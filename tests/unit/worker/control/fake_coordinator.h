/*
 * A coordinator that a test plays: it takes the ranks of one group, keeps what they say, sends what
 * the test wants and forwards wakes. The rpc thread writes, under `mutex`; tests wait for what they
 * expect with FAKE_WAIT.
 */
#ifndef WITAN_TESTS_FAKE_COORDINATOR_H
#define WITAN_TESTS_FAKE_COORDINATOR_H

#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/clock.h"
#include "partition/plan.h"
#include "proto/cluster.pb-c.h"
#include "proto/pki.h"
#include "proto/rpc.h"

#include <pthread.h>

enum { FAKE_RANKS = 4, FAKE_TOKENS = 4096, FAKE_EPOCH = 77, FAKE_WAIT_MS = 60000 };

struct fake_token {
    uint64_t request_id, epoch, step;
    uint32_t attempt;
    int32_t position, ids, id; /* how many ids; the first, or -1 */
    int finish;
    char error[256];
    int64_t at_ns;
};

struct fake_rank {
    struct fake *of;
    struct rpc_call *call;     /* NULL: never attached */
    bool hello, ready, closed; /* of the last stream */
    int hellos;                /* streams so far */
    bool loaded, reattached;   /* as its last hello and Ready say */
    double load_seconds;
    uint32_t protocol, rank, world, cores, ranks_here;
    uint64_t incarnation, pid, memory;
    char group[64], host[256], region[64], class[32], processor[128], kernels[32];
    char device[128], uuid[64], pci[32]; /* "": on its processor */
    uint64_t planned_bytes, resident_bytes;
    int purposes;
    int heartbeats;
    uint64_t steps, kv_blocks_free, kv_blocks;
    int phase;
    uint64_t wakes; /* generation of the last WakePeers */
    char failed[1024], manifest[80];
    bool engine; /* a heartbeat has told of it: what the last one said */
    double forward_seconds, collective_seconds;
    uint64_t prompt_rows, decode_rows, drawn;
    uint64_t prompt_steps, decode_steps, batches, queued, overheads; /* counts of histograms */
    bool gpu; /* a heartbeat has told of it: what the last one said */
    bool has[9];
    double figure[9];
    uint64_t xid_count;
    uint32_t xid;     /* the last */
    int expert_loads; /* messages, of all streams; what the last one said: */
    uint32_t first_layer, experts;
    size_t expert_counts;
    uint64_t expert_sum;
};

struct fake {
    char dir[64]; /* certificates */
    char address[64];
    struct rpc_method attach;
    struct rpc *rpc;
    struct rpc_server *server;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int refuse_code; /* not 0: every stream is refused so */
    uint64_t epoch;  /* of plans and requests; FAKE_EPOCH at first */
    bool beside;     /* another one's: its certificates are */
    struct fake_rank ranks[FAKE_RANKS];
    struct fake_rank nobody; /* a stream without a hello */
    struct fake_token tokens[FAKE_TOKENS];
    int count;    /* of them */
    int messages; /* that they came in */
};

/* Waits, holding the mutex only here, until `cond` (about *f) holds. */
#define FAKE_WAIT(f, cond)                                                                         \
    do {                                                                                           \
        struct timespec until_;                                                                    \
        clock_gettime(CLOCK_REALTIME, &until_);                                                    \
        until_.tv_sec += FAKE_WAIT_MS / 1000;                                                      \
        int late_ = 0;                                                                             \
        pthread_mutex_lock(&(f)->mutex);                                                           \
        while (!(cond) && !late_)                                                                  \
            late_ = pthread_cond_timedwait(&(f)->changed, &(f)->mutex, &until_);                   \
        bool holds_ = (cond);                                                                      \
        pthread_mutex_unlock(&(f)->mutex);                                                         \
        if (!holds_)                                                                               \
            fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #cond);                               \
    } while (0)

#define FAKE_COPY(to, from) snprintf(to, sizeof(to), "%s", from)

/* --- the rpc thread --- */

static inline void fake_hello(struct fake *f, struct rpc_call *call,
                              const Witan__Cluster__V1__Hello *h)
{
    CHECK(h->rank < FAKE_RANKS && h->hardware, "rank %u", h->rank);
    struct fake_rank *r = &f->ranks[h->rank];
    if (r->call)
        rpc_call_unref(r->call);
    r->call = rpc_call_ref(call);
    rpc_call_set_user(call, r);
    r->hello = true;
    r->hellos++;
    r->loaded = h->loaded;
    r->ready = r->closed = false;
    r->protocol = h->protocol_version;
    r->rank = h->rank;
    r->world = h->world;
    r->incarnation = h->incarnation;
    r->pid = h->pid;
    r->cores = h->hardware->cores;
    r->ranks_here = h->hardware->ranks_here;
    r->memory = h->hardware->memory_bytes;
    FAKE_COPY(r->group, h->group);
    FAKE_COPY(r->host, h->host);
    FAKE_COPY(r->region, h->region);
    FAKE_COPY(r->class, h->numerics_class);
    FAKE_COPY(r->processor, h->hardware->processor);
    FAKE_COPY(r->kernels, h->hardware->kernels);
    if (h->hardware->device) {
        FAKE_COPY(r->device, h->hardware->device->name);
        FAKE_COPY(r->uuid, h->hardware->device->uuid);
        FAKE_COPY(r->pci, h->hardware->device->pci);
    }
}

static inline void fake_ready(struct fake_rank *r, const Witan__Cluster__V1__Ready *m)
{
    r->planned_bytes = 0;
    r->load_seconds = m->load_seconds;
    r->reattached = m->reattached;
    for (size_t i = 0; i < m->n_memory; i++)
        r->planned_bytes += m->memory[i]->bytes;
    r->purposes = (int)m->n_memory;
    r->resident_bytes = m->resident_bytes;
    FAKE_COPY(r->manifest, m->manifest_digest);
    r->ready = true;
}

static inline uint64_t fake_count(const Witan__Cluster__V1__Histogram *h)
{
    uint64_t count = 0;
    CHECK(!h || (h->n_bounds > 0 && h->n_counts == h->n_bounds + 1), "a histogram");
    for (size_t i = 0; h && i < h->n_counts; i++)
        count += h->counts[i];
    return count;
}

static inline void fake_engine(struct fake_rank *r, const Witan__Cluster__V1__Engine *m)
{
    r->engine = true;
    r->forward_seconds = m->forward_seconds;
    r->collective_seconds = m->collective_seconds;
    r->prompt_rows = m->prompt_rows;
    r->decode_rows = m->decode_rows;
    r->drawn = m->drawn;
    r->prompt_steps = fake_count(m->prompt_step_seconds);
    r->decode_steps = fake_count(m->decode_step_seconds);
    r->batches = fake_count(m->batch_sequences);
    r->queued = fake_count(m->queue_seconds);
    r->overheads = fake_count(m->overhead_seconds);
}

static inline void fake_beat(struct fake_rank *r, const Witan__Cluster__V1__Heartbeat *m)
{
    r->heartbeats++;
    r->steps = m->step;
    r->phase = (int)m->phase;
    r->kv_blocks_free = m->kv_blocks_free;
    r->kv_blocks = m->kv_blocks;
    if (m->engine)
        fake_engine(r, m->engine);
    r->gpu |= m->gpu != NULL;
    for (size_t i = 0; m->gpu && i < m->gpu->n_figures; i++) {
        CHECK(m->gpu->figures[i]->kind < COUNT_OF(r->figure), "a kind of figure");
        r->has[m->gpu->figures[i]->kind] = true;
        r->figure[m->gpu->figures[i]->kind] = m->gpu->figures[i]->value;
    }
    if (m->gpu && m->gpu->n_xids > 0) {
        r->xid_count = m->gpu->xid_count;
        r->xid = m->gpu->xids[m->gpu->n_xids - 1];
    }
}

static inline void fake_expert_load(struct fake_rank *r, const Witan__Cluster__V1__ExpertLoad *m)
{
    r->expert_loads++;
    r->first_layer = m->first_layer;
    r->experts = m->experts;
    r->expert_counts = m->n_tokens;
    r->expert_sum = 0;
    for (size_t i = 0; i < m->n_tokens; i++)
        r->expert_sum += m->tokens[i];
}

static inline void fake_take_tokens(struct fake *f, const Witan__Cluster__V1__Tokens *m)
{
    f->messages++;
    for (size_t i = 0; i < m->n_sequences && f->count < FAKE_TOKENS; i++) {
        const Witan__Cluster__V1__SequenceTokens *s = m->sequences[i];
        struct fake_token *t = &f->tokens[f->count++];
        *t = (struct fake_token){.request_id = s->request_id,
                                 .epoch = s->epoch,
                                 .step = m->step,
                                 .attempt = s->attempt,
                                 .position = s->position,
                                 .ids = (int32_t)s->n_ids,
                                 .id = s->n_ids > 0 ? s->ids[0] : -1,
                                 .finish = (int)s->finish,
                                 .at_ns = clock_now_ns()};
        FAKE_COPY(t->error, s->error);
    }
}

static inline void fake_forward(struct fake *f, struct fake_rank *from, uint64_t generation)
{
    Witan__Cluster__V1__Wake wake = WITAN__CLUSTER__V1__WAKE__INIT;
    Witan__Cluster__V1__CoordinatorMessage m = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    struct error ignored;
    wake.generation = generation;
    m.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_WAKE;
    m.wake = &wake;
    from->wakes = generation;
    for (int i = 0; i < FAKE_RANKS; i++)
        if (f->ranks[i].call && &f->ranks[i] != from)
            rpc_send(f->ranks[i].call, &m.base, &ignored);
}

static inline void fake_on_open(struct rpc_call *call, void *arg)
{
    struct fake *f = arg;
    pthread_mutex_lock(&f->mutex);
    rpc_call_set_user(call, &f->nobody);
    if (f->refuse_code)
        rpc_finish(call, (enum rpc_code)f->refuse_code, "as the test asks");
    pthread_mutex_unlock(&f->mutex);
}

static inline void fake_on_message(struct rpc_call *call, void *user,
                                   const ProtobufCMessage *message)
{
    const Witan__Cluster__V1__RankMessage *m = (const Witan__Cluster__V1__RankMessage *)message;
    struct fake_rank *r = user;
    struct fake *f = r->of;
    pthread_mutex_lock(&f->mutex);
    if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO)
        fake_hello(f, call, m->hello);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY)
        fake_ready(r, m->ready);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT)
        fake_beat(r, m->heartbeat);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS)
        fake_take_tokens(f, m->tokens);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_WAKE_PEERS)
        fake_forward(f, r, m->wake_peers->generation);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_FAILED)
        FAKE_COPY(r->failed, m->failed->message);
    else if (m->body_case == WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_EXPERT_LOAD)
        fake_expert_load(r, m->expert_load);
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
}

static inline void fake_on_half_close(struct rpc_call *call, void *user)
{
    (void)user;
    rpc_finish(call, RPC_OK, NULL);
}

static inline void fake_on_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    struct fake_rank *r = user;
    struct fake *f = r->of;
    (void)code;
    (void)message;
    pthread_mutex_lock(&f->mutex);
    if (r->call == call)
        r->closed = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->mutex);
}

/* --- the test's thread --- */

/* `port` 0: any. */
static inline void fake_listen(struct fake *f, int port)
{
    struct pki_files files;
    struct error err = {0};
    if (pki_load(f->dir, "coordinator", &files, &err) != OK)
        fail_msg("%s", err.msg);
    snprintf(f->address, sizeof f->address, "127.0.0.1:%d", port);
    const struct rpc_tls tls = {.ca = files.ca, .cert = files.cert, .key = files.key};
    if (rpc_server_create(f->rpc, f->address, &tls, &f->attach, 1, &f->server, &err) != OK)
        fail_msg("%s", err.msg);
    snprintf(f->address, sizeof f->address, "127.0.0.1:%d", rpc_server_port(f->server));
    pki_files_fini(&files);
}

/* `other` (may be NULL): one whose certificates are used, and which ends later. */
static inline struct fake *fake_start_beside(const struct fake *other)
{
    struct fake *f = check_calloc(1, sizeof *f);
    struct error err = {0};
    f->epoch = FAKE_EPOCH;
    f->attach = (struct rpc_method){
        .name = "/witan.cluster.v1.Cluster/Attach",
        .request = &witan__cluster__v1__rank_message__descriptor,
        .client_streams = true,
        .on_open = fake_on_open,
        .handlers = {.on_message = fake_on_message,
                     .on_half_close = fake_on_half_close,
                     .on_closed = fake_on_closed},
        .arg = f,
    };
    f->nobody.of = f;
    for (int i = 0; i < FAKE_RANKS; i++)
        f->ranks[i].of = f;
    pthread_mutex_init(&f->mutex, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->beside = other != NULL;
    FAKE_COPY(f->dir, other ? other->dir : "/tmp/witan-test-XXXXXX");
    if (!other) {
        assert_non_null(mkdtemp(f->dir));
        if (pki_ephemeral(f->dir, &err) != OK)
            fail_msg("%s", err.msg);
    }
    if (rpc_create(0, NULL, NULL, &f->rpc, &err) != OK)
        fail_msg("%s", err.msg);
    fake_listen(f, 0);
    return f;
}

static inline struct fake *fake_start(void)
{
    return fake_start_beside(NULL);
}

static inline void fake_refuse(struct fake *f, enum rpc_code code)
{
    pthread_mutex_lock(&f->mutex);
    f->refuse_code = (int)code;
    pthread_mutex_unlock(&f->mutex);
}

/* One rank loses its stream. */
static inline void fake_cut(struct fake *f, int rank, enum rpc_code code)
{
    rpc_finish(f->ranks[rank].call, code, "as the test asks");
}

/* Ranks whose streams are open lose them. */
static inline void fake_vanish(struct fake *f)
{
    rpc_server_stop(f->server, 0);
    f->server = NULL;
}

static inline void fake_end(struct fake *f)
{
    char command[128];
    rpc_server_stop(f->server, 1000);
    for (int i = 0; i < FAKE_RANKS; i++)
        if (f->ranks[i].call)
            rpc_call_unref(f->ranks[i].call);
    rpc_destroy(f->rpc);
    snprintf(command, sizeof command, "rm -r '%s'", f->dir);
    if (!f->beside)
        assert_int_equal(system(command), 0);
    free(f);
}

static inline void fake_send(struct fake *f, int rank, int body_case, void *body)
{
    Witan__Cluster__V1__CoordinatorMessage m = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    struct error err;
    m.body_case = (Witan__Cluster__V1__CoordinatorMessage__BodyCase)body_case;
    m.plan = body; /* the members of the union are all pointers */
    assert_int_equal(rpc_send(f->ranks[rank].call, &m.base, &err), OK);
}

struct fake_plan {
    const char *dir; /* from the top of the tree */
    struct layout layout;
    int32_t max_seqs, context, rows;
    int32_t reattach_timeout_s;
    int wrong_rank;                         /* this rank's query heads are wrong; -1: none's */
    Witan__Cluster__V1__Manifest *manifest; /* NULL: none */
};

static inline Witan__Cluster__V1__Range fake_range(struct range r)
{
    Witan__Cluster__V1__Range out = WITAN__CLUSTER__V1__RANGE__INIT;
    out.begin = r.begin;
    out.end = r.end;
    return out;
}

static inline void fake_send_plan(struct fake *f, const struct fake_plan *p,
                                  const struct rank_plan *r, bool wrong)
{
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/%s", WITAN_SOURCE_DIR, p->dir);
    Witan__Cluster__V1__Range layers = fake_range(r->layers), q = fake_range(r->q_heads),
                              kv = fake_range(r->kv_heads), experts = fake_range(r->experts),
                              moe = fake_range(r->moe_cols), dense = fake_range(r->dense_cols),
                              vocab = fake_range(r->vocab);
    Witan__Cluster__V1__Slices slices = WITAN__CLUSTER__V1__SLICES__INIT;
    Witan__Cluster__V1__Layout layout = WITAN__CLUSTER__V1__LAYOUT__INIT;
    Witan__Cluster__V1__Limits limits = WITAN__CLUSTER__V1__LIMITS__INIT;
    Witan__Cluster__V1__Plan plan = WITAN__CLUSTER__V1__PLAN__INIT;
    q.end += wrong;
    slices.stage = r->stage;
    slices.layers = &layers, slices.q_heads = &q, slices.kv_heads = &kv;
    slices.experts = &experts, slices.moe_cols = &moe, slices.dense_cols = &dense;
    slices.vocab = &vocab;
    layout.pp = p->layout.pp, layout.tp = p->layout.tp;
    layout.ep = p->layout.ep, layout.w = p->layout.w;
    limits.max_rows = p->rows, limits.max_seqs = p->max_seqs;
    limits.context = p->context, limits.threads = 1;
    plan.model_dir = dir;
    plan.epoch = f->epoch;
    plan.reattach_timeout_s = (uint32_t)p->reattach_timeout_s;
    plan.layout = &layout, plan.limits = &limits, plan.slices = &slices;
    plan.heartbeat_ms = 100;
    plan.manifest = p->manifest;
    fake_send(f, r->rank, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN, &plan);
}

/* Waits for all hellos, then sends each rank its plan. */
static inline void fake_plan(struct fake *f, const struct fake_plan *p)
{
    static struct model_config config;
    struct generation_config ignored;
    struct inventory *inv;
    struct plan *plan;
    struct error err = {0};
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/%s", WITAN_SOURCE_DIR, p->dir);
    if (config_load(dir, &config, &ignored, &err) != OK ||
        inventory_create(&config, &inv, &err) != OK ||
        plan_create(&config, inv, p->layout, &plan, &err) != OK) {
        fail_msg("%s", err.msg);
        return;
    }
    for (int i = 0; i < plan->world; i++)
        FAKE_WAIT(f, f->ranks[i].hello);
    for (int i = 0; i < plan->world; i++)
        fake_send_plan(f, p, &plan->ranks[i], i == p->wrong_rank);
    plan_destroy(plan);
    inventory_destroy(inv);
}

/* Waits until the group is loaded. */
static inline void fake_bring_up(struct fake *f, const struct fake_plan *p)
{
    fake_plan(f, p);
    for (int i = 0; i < p->layout.pp * p->layout.w; i++)
        FAKE_WAIT(f, f->ranks[i].ready);
}

struct fake_request {
    uint64_t id, epoch;
    const int32_t *prompt;
    int32_t prompt_len, max_tokens;
    float temperature;
    uint64_t seed;
};

static inline void fake_submit(struct fake *f, const struct fake_request *q)
{
    Witan__Cluster__V1__Sampling sampling = WITAN__CLUSTER__V1__SAMPLING__INIT;
    Witan__Cluster__V1__Submit submit = WITAN__CLUSTER__V1__SUBMIT__INIT;
    sampling.temperature = q->temperature;
    sampling.top_p = 1;
    sampling.seed = q->seed;
    submit.request_id = q->id;
    submit.attempt = 3;
    submit.epoch = q->epoch ? q->epoch : f->epoch;
    submit.prompt = (int32_t *)(uintptr_t)q->prompt;
    submit.n_prompt = (size_t)q->prompt_len;
    submit.max_tokens = q->max_tokens;
    submit.sampling = &sampling;
    submit.ignore_eos = true;
    fake_send(f, 0, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT, &submit);
}

static inline void fake_cancel(struct fake *f, uint64_t id)
{
    Witan__Cluster__V1__Cancel cancel = WITAN__CLUSTER__V1__CANCEL__INIT;
    cancel.request_id = id;
    cancel.attempt = 3;
    cancel.epoch = f->epoch;
    fake_send(f, 0, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_CANCEL, &cancel);
}

/* A rank that is told after another may have gone with it by then. */
static inline void fake_stop(struct fake *f, int world)
{
    Witan__Cluster__V1__CoordinatorMessage m = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__INIT;
    Witan__Cluster__V1__Stop stop = WITAN__CLUSTER__V1__STOP__INIT;
    struct error err;
    m.body_case = WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_STOP;
    m.stop = &stop;
    for (int i = 0; i < world; i++)
        if (rpc_send(f->ranks[i].call, &m.base, &err) != OK)
            assert_true(i > 0);
}

/* The last thing said about a request, once it has ended (under the mutex), else NULL. */
static inline const struct fake_token *fake_ended(const struct fake *f, uint64_t id)
{
    for (int i = 0; i < f->count; i++)
        if (f->tokens[i].request_id == id && f->tokens[i].finish != 0)
            return &f->tokens[i];
    return NULL;
}

/* Its tokens; checks that positions count up from 0 and that keys are the request's. */
static inline int fake_answer(struct fake *f, uint64_t id, int32_t *out, int cap)
{
    int n = 0;
    pthread_mutex_lock(&f->mutex);
    for (int i = 0; i < f->count; i++) {
        const struct fake_token *t = &f->tokens[i];
        if (t->request_id != id)
            continue;
        assert_int_equal(t->attempt, 3);
        assert_int_equal(t->epoch, f->epoch);
        assert_int_equal(t->position, n);
        for (int k = 0; k < t->ids && n < cap; k++)
            out[n++] = t->id;
    }
    pthread_mutex_unlock(&f->mutex);
    return n;
}

#endif
