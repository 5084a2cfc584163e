/*
 * A coordinator's core on a loop thread of its own, with the shipped model, and ranks that the test
 * plays itself over the real protocol.
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CLUSTER_H
#define WITAN_TESTS_UNIT_COORDINATOR_CLUSTER_H

#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/members.h"
#include "partition/plan.h"
#include "proto/cluster.pb-c.h"
#include "proto/pki.h"
#include "proto/versions.h"

#include <pthread.h>
#include <stdatomic.h>

#define LEXICON WITAN_SOURCE_DIR "/deploy/lexicon/model"

struct cluster {
    char dir[64];  /* of the certificates */
    bool borrowed; /* of another one, which removes it */
    struct config config;
    struct loop *loop;
    struct rpc *rpc;
    struct core *core;
    pthread_t thread;
    struct rpc_channel *channel;
};

/* What a fake rank has been told; filled by the rpc thread. */
struct fake_rank {
    struct rpc_call *call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    Witan__Cluster__V1__CoordinatorMessage *got[3 * 4096];
    int count, taken;
    bool closed;
    int code;
    char message[512];
};

/* "g0 waiting;g0 loading;..." in order; of the loop thread, or of those of several clusters */
static char cluster_states[4096];
static pthread_mutex_t cluster_states_lock = PTHREAD_MUTEX_INITIALIZER;

static void cluster_notify(const char *group, const char *state, const char *message)
{
    (void)message;
    pthread_mutex_lock(&cluster_states_lock);
    size_t n = strlen(cluster_states);
    snprintf(cluster_states + n, sizeof cluster_states - n, "%s %s;", group, state);
    pthread_mutex_unlock(&cluster_states_lock);
}

static void *cluster_thread(void *arg)
{
    struct cluster *c = arg;
    loop_run(c->loop);
    return NULL;
}

static void cluster_remove(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* Runs fn(arg) on the loop thread and waits for it. */
struct cluster_ask {
    void (*fn)(void *arg);
    void *arg;
    atomic_bool done;
};

static void cluster_run_ask(void *arg)
{
    struct cluster_ask *a = arg;
    a->fn(a->arg);
    atomic_store(&a->done, true);
}

static void on_loop(struct cluster *c, void (*fn)(void *arg), void *arg)
{
    struct cluster_ask a = {.fn = fn, .arg = arg};
    assert_int_equal(loop_post(c->loop, cluster_run_ask, &a, NULL), OK);
    while (!atomic_load(&a.done))
        usleep(200);
}

static void cluster_issue(struct cluster *c)
{
    struct error err;
    strcpy(c->dir, "/tmp/witan-cluster-XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    assert_int_equal(rmdir(c->dir), 0);
    if (pki_init(c->dir, "test", &err) != OK ||
        pki_issue_coordinator(c->dir, c->dir, "coordinator", 1, &err) != OK ||
        pki_issue_worker(c->dir, c->dir, "worker", "*", "*", "", 1, &err) != OK)
        fail_msg("%s", err.msg);
}

/* `model`: more keys of the model (", manifest: ..."); `yaml`: over the defaults; both may be "".
 * `other`: whose certificates it shares; NULL: it has its own. */
static void cluster_start_beside(struct cluster *c, const struct cluster *other, const char *model,
                                 const char *yaml)
{
    struct error err;
    struct pki_files files, mine;
    char address[32];
    memset(c, 0, sizeof *c);
    pthread_mutex_lock(&cluster_states_lock);
    cluster_states[0] = '\0';
    pthread_mutex_unlock(&cluster_states_lock);
    log_set_level(LOG_ERROR + 1);
    if (other)
        strcpy(c->dir, other->dir);
    else
        cluster_issue(c);
    c->borrowed = other != NULL;
    char text[2048];
    snprintf(text, sizeof text,
             "model: {path: %s, name: lexicon%s}\nlisten: {cluster: \"127.0.0.1:0\"}\n"
             "pki: %s\n%s",
             LEXICON, model, c->dir, yaml);
    assert_int_equal(config_init(&c->config, &err), OK);
    if (config_read_text("test", text, strlen(text), &c->config, &err) != OK ||
        config_check(&c->config, &err) != OK)
        fail_msg("%s", err.msg);
    if (!strstr(yaml, "failover")) /* what is lost ends soon */
        c->config.limits.failover_timeout_s = 1;
    assert_int_equal(loop_create(&c->loop, &err), OK);
    assert_int_equal(rpc_create(1000, NULL, NULL, &c->rpc, &err), OK);
    if (core_create(&c->config, c->loop, &c->core, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(pki_load(c->dir, "coordinator", &files, &err), OK);
    struct rpc_tls tls = {.ca = files.ca, .cert = files.cert, .key = files.key};
    if (members_create(c->core, c->rpc, &tls, cluster_notify, &c->core->members, &err) != OK)
        fail_msg("%s", err.msg);
    snprintf(address, sizeof address, "127.0.0.1:%d", members_port(c->core->members));
    assert_int_equal(pki_load(c->dir, "worker", &mine, &err), OK);
    struct rpc_tls client = {
        .ca = mine.ca, .cert = mine.cert, .key = mine.key, .peer_name = PKI_COORDINATOR_NAME};
    assert_int_equal(rpc_channel_create(c->rpc, address, &client, &c->channel, &err), OK);
    pki_files_fini(&files);
    pki_files_fini(&mine);
    assert_int_equal(pthread_create(&c->thread, NULL, cluster_thread, c), 0);
}

static inline void cluster_start_model(struct cluster *c, const char *model, const char *yaml)
{
    cluster_start_beside(c, NULL, model, yaml);
}

static inline void cluster_start(struct cluster *c, const char *yaml)
{
    cluster_start_model(c, "", yaml);
}

/* Every fake rank must have been let go. */
static void cluster_stop(struct cluster *c)
{
    loop_stop(c->loop);
    pthread_join(c->thread, NULL);
    members_destroy(c->core->members);
    rpc_channel_destroy(c->channel);
    rpc_destroy(c->rpc);
    core_destroy(c->core);
    loop_destroy(c->loop);
    config_fini(&c->config);
    if (!c->borrowed)
        cluster_remove(c->dir);
}

/* --- fake ranks --- */

static void fake_message(struct rpc_call *call, void *user, const ProtobufCMessage *message)
{
    struct fake_rank *r = user;
    pthread_mutex_lock(&r->lock);
    CHECK(r->count < (int)COUNT_OF(r->got), "too many messages");
    r->got[r->count++] = (Witan__Cluster__V1__CoordinatorMessage *)rpc_keep_message(call, message);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void fake_closed(struct rpc_call *call, void *user, int code, const char *message)
{
    (void)call;
    struct fake_rank *r = user;
    pthread_mutex_lock(&r->lock);
    r->closed = true;
    r->code = code;
    snprintf(r->message, sizeof r->message, "%s", message ? message : "");
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void fake_open_on(struct fake_rank *r, struct rpc_channel *channel)
{
    static const struct rpc_call_handlers handlers = {.on_message = fake_message,
                                                      .on_closed = fake_closed};
    struct error err;
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    if (rpc_call_start(channel, "/witan.cluster.v1.Cluster/Attach",
                       &witan__cluster__v1__coordinator_message__descriptor, &handlers, r, 0, false,
                       NULL, &r->call, &err) != OK)
        fail_msg("%s", err.msg);
}

static void fake_deadline(struct timespec *t)
{
    clock_gettime(CLOCK_REALTIME, t);
    t->tv_sec += 30;
}

/* The next message; fails the test when the stream ends instead. */
static const Witan__Cluster__V1__CoordinatorMessage *fake_next(struct fake_rank *r)
{
    struct timespec t;
    fake_deadline(&t);
    pthread_mutex_lock(&r->lock);
    while (r->taken == r->count && !r->closed)
        if (pthread_cond_timedwait(&r->changed, &r->lock, &t) != 0)
            break;
    bool any = r->taken < r->count;
    const Witan__Cluster__V1__CoordinatorMessage *m = any ? r->got[r->taken++] : NULL;
    pthread_mutex_unlock(&r->lock);
    if (!m)
        fail_msg("no message: %s", r->closed ? r->message : "none came");
    return m;
}

/* Waits for the stream's end; gives its code. */
static int fake_wait_closed(struct fake_rank *r)
{
    struct timespec t;
    fake_deadline(&t);
    pthread_mutex_lock(&r->lock);
    while (!r->closed)
        if (pthread_cond_timedwait(&r->changed, &r->lock, &t) != 0)
            break;
    bool closed = r->closed;
    pthread_mutex_unlock(&r->lock);
    assert_true(closed);
    return r->code;
}

static void fake_release(struct fake_rank *r)
{
    rpc_cancel(r->call);
    fake_wait_closed(r);
    rpc_call_unref(r->call);
    for (int i = 0; i < r->count; i++)
        witan__cluster__v1__coordinator_message__free_unpacked(r->got[i], NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
}

/* A call that was refused meanwhile takes nothing more: then it must have ended. */
static void fake_send(struct fake_rank *r, Witan__Cluster__V1__RankMessage *m)
{
    struct error err;
    enum status st = rpc_send(r->call, &m->base, &err);
    if (st == ERR_CANCELLED)
        fake_wait_closed(r);
    else if (st != OK)
        fail_msg("%s", err.msg);
}

struct fake_hello {
    const char *group;
    uint32_t rank, world, version, oldest, coordinators;
    uint64_t incarnation;
    const char *device; /* the GPU's name; NULL: on its processor */
    const char *class;  /* NULL: as of the device */
    const char *host;   /* NULL: "test" */
    bool loaded;
    bool constraints; /* it can hold answers to a form */
    bool thinking;    /* it can end thoughts */
};

static void fake_say_hello(struct fake_rank *r, struct fake_hello h)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Hello hello = WITAN__CLUSTER__V1__HELLO__INIT;
    Witan__Cluster__V1__Hardware hw = WITAN__CLUSTER__V1__HARDWARE__INIT;
    hw.processor = "a test";
    hw.kernels = "none";
    hw.cores = 2;
    hw.ranks_here = h.world;
    hw.memory_bytes = (uint64_t)16 << 30;
    hello.protocol_version = h.version ? h.version : CLUSTER_PROTOCOL_VERSION;
    hello.protocol_oldest = h.oldest;
    hello.software_version = WITAN_VERSION;
    hello.group = (char *)(h.group ? h.group : "g0");
    hello.incarnation = h.incarnation ? h.incarnation : 1;
    hello.rank = h.rank;
    hello.world = h.world;
    hello.host = (char *)(h.host ? h.host : "test");
    hello.pid = 4711;
    Witan__Cluster__V1__Device device = WITAN__CLUSTER__V1__DEVICE__INIT;
    device.name = (char *)h.device;
    device.major = 9;
    device.memory_bytes = (uint64_t)80 << 30;
    device.cuda_driver = 13010;
    device.uuid = "GPU-1";
    device.pci = "00000000:18:00.0";
    hw.device = h.device ? &device : NULL;
    hello.numerics_class = (char *)(h.class    ? h.class
                                    : h.device ? NUMERICS_CLASS_CUDA "90"
                                               : NUMERICS_CLASS_CPU);
    hello.hardware = &hw;
    hello.loaded = h.loaded;
    hello.constraints = h.constraints;
    hello.thinking = h.thinking;
    hello.coordinators = h.coordinators;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HELLO;
    m.hello = &hello;
    fake_send(r, &m);
}

static void fake_say_ready_by(struct fake_rank *r, const char *manifest_digest)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Ready ready = WITAN__CLUSTER__V1__READY__INIT;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_READY;
    m.ready = &ready;
    ready.manifest_digest = (char *)manifest_digest;
    fake_send(r, &m);
}

static inline void fake_say_ready(struct fake_rank *r)
{
    fake_say_ready_by(r, "");
}

/* What a step drew, of one sequence alone. */
static void fake_say_sequence(struct fake_rank *r, Witan__Cluster__V1__SequenceTokens *s)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Tokens tokens = WITAN__CLUSTER__V1__TOKENS__INIT;
    tokens.sequences = &s;
    tokens.n_sequences = 1;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = &tokens;
    fake_send(r, &m);
}

/* Tokens for one request. */
static void fake_say_tokens(struct fake_rank *r, uint64_t id, uint32_t attempt, uint64_t epoch,
                            int32_t position, const int32_t *ids, size_t count,
                            Witan__Cluster__V1__Finish finish)
{
    Witan__Cluster__V1__SequenceTokens s = WITAN__CLUSTER__V1__SEQUENCE_TOKENS__INIT;
    s.request_id = id;
    s.attempt = attempt;
    s.epoch = epoch;
    s.position = position;
    s.ids = (int32_t *)ids;
    s.n_ids = count;
    s.finish = finish;
    fake_say_sequence(r, &s);
}

/* Hello, plan, ready, and the probe answered: a group of one rank that serves. */
static void fake_serve_with(struct cluster *c, struct fake_rank *r, struct fake_hello hello,
                            const char *manifest_digest)
{
    int32_t zero = 0;
    hello.world = 1;
    fake_open_on(r, c->channel);
    fake_say_hello(r, hello);
    const Witan__Cluster__V1__CoordinatorMessage *m = fake_next(r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN);
    fake_say_ready_by(r, manifest_digest);
    m = fake_next(r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
    fake_say_tokens(r, 0, m->submit->attempt, m->submit->epoch, 0, &zero, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
}

static inline void fake_serve_by(struct cluster *c, struct fake_rank *r,
                                 const char *manifest_digest)
{
    fake_serve_with(c, r, (struct fake_hello){0}, manifest_digest);
}

static inline void fake_serve(struct cluster *c, struct fake_rank *r)
{
    fake_serve_by(c, r, "");
}

static void cluster_ask_ready(void *arg)
{
    struct cluster *c = *(struct cluster **)arg;
    struct error err;
    ((struct cluster **)arg)[1] = core_ready(c->core, &err) == OK ? c : NULL;
}

static void cluster_wait_ready(struct cluster *c, bool ready)
{
    struct cluster *ask[2] = {c, NULL};
    for (int i = 0; i < 3000; i++) {
        on_loop(c, cluster_ask_ready, ask);
        if ((ask[1] != NULL) == ready)
            return;
        usleep(10000);
    }
    fail_msg("the group does not become %s", ready ? "ready" : "unready");
}

#endif
