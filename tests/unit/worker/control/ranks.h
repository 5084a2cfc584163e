/*
 * Ranks under a coordinator that the test plays: the whole way from hello to goodbye, with the
 * ranks as threads of the test, and the tokens of the engine asked directly. For one test program
 * each.
 */
#ifndef WITAN_TESTS_UNIT_WORKER_CONTROL_RANKS_H
#define WITAN_TESTS_UNIT_WORKER_CONTROL_RANKS_H

#include "tests/unit/worker/control/fake_coordinator.h"

#include "base/log.h"
#include "worker/control/serve.h"
#include "worker/engine.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define MODEL "tests/golden/oracle/odd"

enum { PROMPT = 40, ANSWER = 24, CONTEXT = 128 };

static const struct layout one = {1, 1, 1, 1}, two = {1, 1, 2, 2};

static int32_t prompt[PROMPT];

/* --- the group under test --- */

struct group {
    int world;
    struct serve_options options;
    enum status status;
    struct error err;
    pthread_t thread;
};

static inline enum status group_rank(struct comm *world, void *arg, struct error *err)
{
    const struct group *g = arg;
    enum serve_scope scope;
    log_set_rank(world->rank);
    return serve(world, &g->options, &scope, err);
}

static inline void *group_thread(void *arg)
{
    struct group *g = arg;
    g->status = comm_local_run(g->world, group_rank, g, &g->err);
    return NULL;
}

static inline void group_run(struct group *g, const struct fake *f, int world,
                             struct serve_options options)
{
    for (int32_t i = 0; i < PROMPT; i++)
        prompt[i] = (i * 37 + 11) % 150;
    log_set_level(LOG_WARN);
    options.coordinator = f->address;
    options.group = "left";
    options.tls_dir = f->dir;
    options.region = "north";
    *g = (struct group){.world = world, .options = options};
    assert_int_equal(pthread_create(&g->thread, NULL, group_thread, g), 0);
}

/* `trust` and `threshold`: what the ranks are started with (NULL, 0: nothing). */
static inline void group_start_trusting(struct group *g, const struct fake *f, int world,
                                        const char *trust, int threshold)
{
    group_run(g, f, world, (struct serve_options){.trust = trust, .threshold = threshold});
}

static inline void group_start_on(struct group *g, const struct fake *f, int world, bool cuda)
{
    group_run(g, f, world, (struct serve_options){.cuda = cuda});
}

static inline void group_start(struct group *g, const struct fake *f, int world)
{
    group_start_trusting(g, f, world, NULL, 0);
}

static inline void group_wait(struct group *g, enum status expected)
{
    pthread_join(g->thread, NULL);
    if (g->status != expected)
        fail_msg("expected %s, found %s: %s", status_name(expected), status_name(g->status),
                 g->err.msg);
}

static inline struct fake_plan plan_for(struct layout layout)
{
    return (struct fake_plan){.dir = MODEL,
                              .layout = layout,
                              .max_seqs = 3,
                              .context = CONTEXT,
                              .rows = 16,
                              .wrong_rank = -1};
}

/* A coordinator whose group of this layout serves. */
static inline struct fake *group_up(struct group *g, struct layout layout)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(layout);
    group_start(g, f, layout.pp * layout.w);
    fake_bring_up(f, &p);
    return f;
}

/* Both end in order. */
static inline void group_down(struct group *g, struct fake *f)
{
    fake_stop(f, g->world);
    group_wait(g, OK);
    fake_end(f);
}

/* The heartbeat after the next says what comes after LEAD_IDLE_MS. */
static inline void wait_parked(struct fake *f, const struct fake_rank *r)
{
    pthread_mutex_lock(&f->mutex);
    int seen = r->heartbeats;
    pthread_mutex_unlock(&f->mutex);
    FAKE_WAIT(f, r->heartbeats >= seen + 2 && r->phase == WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
}

/* A port at which nobody listens, kept from other processes. */
static inline int hold_port(int port)
{
    const struct sockaddr_in at = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* --- the same asked of an engine directly --- */

struct reference {
    struct fake_request request;
    int32_t ids[ANSWER];
    int count;
};

static inline void reference_token(void *user, int32_t token, enum finish finish)
{
    struct reference *r = user;
    (void)finish;
    if (token >= 0 && r->count < ANSWER)
        r->ids[r->count++] = token;
}

static inline enum status reference_rank(struct comm *world, void *arg, struct error *err)
{
    struct reference *r = arg;
    struct model_options options = {
        .dir = WITAN_SOURCE_DIR "/" MODEL,
        .layout = one,
        .limits = {.max_rows = 64,
                   .max_logits = 1,
                   .max_seqs = 1,
                   .context = CONTEXT,
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct request q = {
        .prompt = r->request.prompt,
        .prompt_len = r->request.prompt_len,
        .max_tokens = r->request.max_tokens,
        .ignore_eos = true,
        .sampling = {.temperature = r->request.temperature, .top_p = 1.0f, .seed = r->request.seed},
        .on_token = reference_token,
        .user = r,
    };
    struct model *m = NULL;
    struct engine *e = NULL;
    bool ran = true;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &(struct engine_options){0}, &e, err);
    if (st == OK)
        st = engine_submit(e, &q, NULL, err);
    while (st == OK && ran)
        st = engine_step(e, &ran, err);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static inline void assert_answer(struct fake *f, const struct fake_request *q)
{
    struct reference r = {.request = *q};
    struct error err;
    int32_t ids[ANSWER];
    FAKE_WAIT(f, fake_ended(f, q->id));
    int n = fake_answer(f, q->id, ids, ANSWER);
    if (comm_local_run(1, reference_rank, &r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(n, q->max_tokens);
    assert_int_equal(r.count, n);
    assert_memory_equal(r.ids, ids, (size_t)n * sizeof *ids);
    assert_int_equal(fake_ended(f, q->id)->finish, WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
}

#endif
