/*
 * Ranks under a coordinator that the test plays: the whole way from hello to goodbye, with the
 * ranks as threads of the test, and the tokens of the engine asked directly.
 */
#include "tests/unit/partition/signed_folder.h"
#include "tests/unit/worker/control/fake_coordinator.h"

#include "base/log.h"
#include "proto/versions.h"
#include "worker/control/serve.h"
#include "worker/cuda_backend.h"
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

static enum status group_rank(struct comm *world, void *arg, struct error *err)
{
    const struct group *g = arg;
    enum serve_scope scope;
    log_set_rank(world->rank);
    return serve(world, &g->options, &scope, err);
}

static void *group_thread(void *arg)
{
    struct group *g = arg;
    g->status = comm_local_run(g->world, group_rank, g, &g->err);
    return NULL;
}

static void group_run(struct group *g, const struct fake *f, int world,
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
static void group_start_trusting(struct group *g, const struct fake *f, int world,
                                 const char *trust, int threshold)
{
    group_run(g, f, world, (struct serve_options){.trust = trust, .threshold = threshold});
}

static void group_start_on(struct group *g, const struct fake *f, int world, bool cuda)
{
    group_run(g, f, world, (struct serve_options){.cuda = cuda});
}

static void group_start(struct group *g, const struct fake *f, int world)
{
    group_start_trusting(g, f, world, NULL, 0);
}

static void group_wait(struct group *g, enum status expected)
{
    pthread_join(g->thread, NULL);
    if (g->status != expected)
        fail_msg("expected %s, found %s: %s", status_name(expected), status_name(g->status),
                 g->err.msg);
}

static struct fake_plan plan_for(struct layout layout)
{
    return (struct fake_plan){.dir = MODEL,
                              .layout = layout,
                              .max_seqs = 3,
                              .context = CONTEXT,
                              .rows = 16,
                              .wrong_rank = -1};
}

/* A coordinator whose group of this layout serves. */
static struct fake *group_up(struct group *g, struct layout layout)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(layout);
    group_start(g, f, layout.w);
    fake_bring_up(f, &p);
    return f;
}

/* Both end in order. */
static void group_down(struct group *g, struct fake *f)
{
    fake_stop(f, g->world);
    group_wait(g, OK);
    fake_end(f);
}

/* --- the same asked of an engine directly --- */

struct reference {
    struct fake_request request;
    int32_t ids[ANSWER];
    int count;
};

static void reference_token(void *user, int32_t token, enum finish finish)
{
    struct reference *r = user;
    (void)finish;
    if (token >= 0 && r->count < ANSWER)
        r->ids[r->count++] = token;
}

static enum status reference_rank(struct comm *world, void *arg, struct error *err)
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

static void assert_answer(struct fake *f, const struct fake_request *q)
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

/* --- the cases --- */

static void hello_says_who_and_where(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    char host[256] = "";
    group_start(&g, f, 2);
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    gethostname(host, sizeof host - 1);
    for (uint32_t i = 0; i < 2; i++) {
        const struct fake_rank *r = &f->ranks[i];
        assert_int_equal(r->protocol, CLUSTER_PROTOCOL_VERSION);
        assert_int_equal(r->rank, i);
        assert_int_equal(r->world, 2);
        assert_int_equal(r->ranks_here, 2);
        assert_string_equal(r->group, "left");
        assert_string_equal(r->region, "north");
        assert_string_equal(r->class, "cpu-1");
        assert_string_equal(r->host, host);
        assert_int_equal(r->pid, getpid());
        assert_true(r->cores > 0 && r->memory > 1 << 20);
        assert_true(strlen(r->processor) > 0 && strlen(r->kernels) > 0);
        assert_string_equal(r->device, "");
        assert_int_not_equal(r->incarnation, 0);
    }
    assert_int_equal(f->ranks[0].incarnation, f->ranks[1].incarnation);
    fake_stop(f, 2); /* before there is a plan */
    group_wait(&g, OK);
    fake_end(f);
}

/* Two ranks of a machine with two GPUs. */
static void hello_says_which_gpu(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_COUNT", "2", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK); /* for good */
    group_start_on(&g, f, 2, true);
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(f->ranks[i].class, "cuda-1-sm90");
        assert_string_equal(f->ranks[i].kernels, "cuda");
        assert_string_equal(f->ranks[i].device, "Fake GPU");
        assert_string_equal(f->ranks[i].uuid, i == 0 ? "GPU-00000000-0000-0000-0000-000000000000"
                                                     : "GPU-00000000-0000-0000-0000-000000000001");
    }
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

/* Another group has the first two of three: one rank takes the third, the next the first again. */
static void later_groups_take_later_gpus(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_COUNT", "3", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK);
    group_run(&g, f, 2, (struct serve_options){.cuda = true, .first_gpu = 2});
    FAKE_WAIT(f, f->ranks[0].hello && f->ranks[1].hello);
    assert_string_equal(f->ranks[0].pci, "00000000:03:00.0");
    assert_string_equal(f->ranks[1].pci, "00000000:01:00.0");
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

/* Nobody is told of a rank that has no GPU. */
static void no_gpu_no_hello(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct error err;
    const struct cuda_plugin *plugin;
    setenv("FAKE_CUDA_DRIVER", "0", 1);
    assert_int_equal(cuda_plugin_open(FAKE_CUDA_PLUGIN, &plugin, &err), OK);
    group_start_on(&g, f, 1, true);
    group_wait(&g, ERR_NOT_FOUND);
    assert_non_null(strstr(g.err.msg, "no GPU: expected NVIDIA's driver, found none"));
    assert_false(f->ranks[0].hello);
    fake_end(f);
}

static void tokens_are_the_engine_s(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    assert_true(f->ranks[0].purposes >= 5 && f->ranks[0].planned_bytes > 0);
    assert_true(f->ranks[0].resident_bytes > 0);
    const struct fake_request greedy = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    const struct fake_request warm = {.id = 2,
                                      .prompt = prompt + 1,
                                      .prompt_len = PROMPT - 3,
                                      .max_tokens = ANSWER - 4,
                                      .temperature = 0.8f,
                                      .seed = 4711};
    fake_submit(f, &greedy);
    fake_submit(f, &warm);
    assert_answer(f, &greedy);
    assert_answer(f, &warm);
    assert_int_equal(f->ranks[0].wakes, 0); /* there is nobody to wake */
    FAKE_WAIT(f, f->ranks[0].phase == WITAN__CLUSTER__V1__PHASE__PHASE_IDLE &&
                     f->ranks[0].steps >= ANSWER && f->ranks[0].kv_blocks > 0 &&
                     f->ranks[0].kv_blocks_free == f->ranks[0].kv_blocks);
    group_down(&g, f);
}

static void one_message_a_step(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    for (uint64_t id = 1; id <= 3; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = 2, .max_tokens = ANSWER};
        fake_submit(f, &q);
    }
    for (uint64_t id = 1; id <= 3; id++)
        FAKE_WAIT(f, fake_ended(f, id));
    assert_true(f->messages <= (int)f->tokens[f->count - 1].step);
    assert_int_equal(f->count, 3 * ANSWER);
    group_down(&g, f);
}

/* The heartbeat after the next says what comes after LEAD_IDLE_MS. */
static void wait_parked(struct fake *f, const struct fake_rank *r)
{
    pthread_mutex_lock(&f->mutex);
    int seen = r->heartbeats;
    pthread_mutex_unlock(&f->mutex);
    FAKE_WAIT(f, r->heartbeats >= seen + 2 && r->phase == WITAN__CLUSTER__V1__PHASE__PHASE_IDLE);
}

static void two_ranks_park_and_wake(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    for (uint64_t id = 1; id <= 5; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = id};
        fake_submit(f, &q);
        assert_answer(f, &q);
        assert_int_equal(f->ranks[0].wakes, id);
        for (int i = 0; i < 2; i++)
            wait_parked(f, &f->ranks[i]);
    }
    assert_int_equal(f->ranks[1].wakes, 0);
    fake_stop(f, 2);
    group_wait(&g, OK);
    assert_int_equal(f->ranks[0].wakes, 6); /* to let the other go */
    fake_end(f);
}

static void heartbeats_tell_of_the_engine(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    for (uint64_t id = 1; id <= 2; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = id};
        fake_submit(f, &q);
        FAKE_WAIT(f, fake_ended(f, id));
    }
    for (int i = 0; i < 2; i++)
        wait_parked(f, &f->ranks[i]);
    pthread_mutex_lock(&f->mutex);
    const struct fake_rank lead = f->ranks[0], other = f->ranks[1];
    pthread_mutex_unlock(&f->mutex);
    assert_true(lead.engine && other.engine);
    assert_true(lead.collective_seconds > 0 && lead.collective_seconds <= lead.forward_seconds);
    assert_true(other.collective_seconds > 0 && other.collective_seconds <= other.forward_seconds);
    assert_int_equal(lead.decode_rows, 2 * (ANSWER - 1));
    assert_in_range(lead.prompt_rows, PROMPT, 2 * PROMPT); /* the second may find the first's */
    assert_int_equal(lead.drawn, 2 * ANSWER);
    assert_in_range(lead.prompt_steps, 2, 2 * PROMPT);
    assert_int_equal(lead.prompt_steps + lead.decode_steps, lead.steps);
    assert_int_equal(lead.batches, lead.steps);
    assert_int_equal(lead.queued, 2);
    assert_int_equal(lead.overheads, lead.steps - 2); /* but for the first after a pause */
    assert_int_equal(other.batches + other.queued + other.prompt_rows, 0);
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
}

static void a_plan_that_differs_is_refused(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    p.wrong_rank = 1;
    group_start(&g, f, 2);
    fake_plan(f, &p);
    group_wait(&g, ERR_INVALID);
    assert_non_null(strstr(g.err.msg, "plan: slices.q_heads: the coordinator says"));
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].closed);
        assert_non_null(strstr(f->ranks[i].failed, "slices.q_heads"));
    }
    assert_memory_equal(f->ranks[0].failed, "rank 1: ", 8);
    fake_end(f);
}

static void an_unreadable_model_is_told(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    group_start(&g, f, 1);
    FAKE_WAIT(f, f->ranks[0].hello);
    static const struct rank_plan nothing;
    p.dir = "no/such/folder";
    fake_send_plan(f, &p, &nothing, false);
    group_wait(&g, ERR_NOT_FOUND);
    assert_non_null(strstr(g.err.msg, "no/such/folder/config.json"));
    assert_string_equal(f->ranks[0].failed, g.err.msg);
    fake_end(f);
}

/* --- manifests --- */

#define OTHER_DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* The model, listed and signed by alice, and what a coordinator says of it. */
struct proof {
    struct signed_folder s;
    char digest[MANIFEST_DIGEST_HEX + 1];
    Witan__Cluster__V1__Manifest message;
};

static void proof_make(struct proof *p)
{
    struct manifest *m = NULL;
    struct error err;
    p->s = signed_make();
    signed_create_of(&p->s, WITAN_SOURCE_DIR "/" MODEL);
    signed_by(&p->s, "alice");
    must(manifest_open(p->s.manifest, WITAN_SOURCE_DIR "/" MODEL, p->s.trust, 1, &m, &err), &err);
    strcpy(p->digest, manifest_digest(m));
    manifest_close(m);
    p->message = (Witan__Cluster__V1__Manifest)WITAN__CLUSTER__V1__MANIFEST__INIT;
    p->message.path = p->s.manifest;
    p->message.trust = p->s.trust;
    p->message.threshold = 1;
    p->message.digest = p->digest;
}

static void ranks_prove_their_weights_and_say_by_what(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct proof proof;
    struct fake_plan p = plan_for(two);
    proof_make(&proof);
    p.manifest = &proof.message;
    group_start(&g, f, 2);
    fake_bring_up(f, &p);
    for (int i = 0; i < 2; i++)
        assert_string_equal(f->ranks[i].manifest, proof.digest);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &q);
    assert_answer(f, &q);
    for (int i = 0; i < 2; i++) /* or rank 1 may have gone before it is told to */
        wait_parked(f, &f->ranks[i]);
    fake_stop(f, 2);
    group_wait(&g, OK);
    fake_end(f);
    signed_remove(&proof.s);
}

/* Ranks with these keys of their own refuse the plan with all the words, before they load. */
static void assert_plan_refused(const Witan__Cluster__V1__Manifest *m, const char *trust,
                                int threshold, const char *first, const char *second)
{
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    Witan__Cluster__V1__Manifest message;
    if (m) {
        message = *m;
        p.manifest = &message;
    }
    group_start_trusting(&g, f, 2, trust, threshold);
    fake_plan(f, &p);
    pthread_join(g.thread, NULL);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].closed);
        const char *said = f->ranks[i].failed;
        if (!strstr(said, first) || !strstr(said, second))
            fail_msg("expected \"%s\" and \"%s\", found \"%s\"", first, second, said);
        assert_false(f->ranks[i].ready);
    }
    fake_end(f);
}

/* Another folder on this host than on the coordinator's: both digests are named. */
static void another_manifest_is_refused(void **state)
{
    (void)state;
    struct proof proof;
    proof_make(&proof);
    proof.message.digest = (char *)OTHER_DIGEST;
    assert_plan_refused(&proof.message, NULL, 0,
                        "m.json: expected the manifest that the coordinator has opened (SHA-256 "
                        "" OTHER_DIGEST "), found ",
                        proof.digest);
    signed_remove(&proof.s);
}

/* Keys on a rank's command line count, whatever the coordinator says. */
static void own_keys_come_first(void **state)
{
    (void)state;
    struct group g;
    struct proof proof;
    struct fake_plan p = plan_for(one);
    char alice[512], eve[512];
    proof_make(&proof);
    snprintf(alice, sizeof alice, "%s", beside(&proof.s, "alice.pem"));
    snprintf(eve, sizeof eve, "%s", beside(&proof.s, "eve.pem"));
    assert_plan_refused(NULL, alice, 0, "expected one, as this rank was started with --trust",
                        "found none: give the coordinator model.manifest and model.trust");
    assert_plan_refused(&proof.message, eve, 0, "found 0", "not by: eve");
    assert_plan_refused(&proof.message, proof.s.trust, 2, "found 1", "not by: bob");
    proof.message.trust = eve;
    assert_plan_refused(&proof.message, NULL, 0, "found 0", "not by: eve");
    struct fake *f = fake_start();
    p.manifest = &proof.message;
    group_start_trusting(&g, f, 1, alice, 1);
    fake_bring_up(f, &p);
    assert_string_equal(f->ranks[0].manifest, proof.digest);
    fake_stop(f, 1);
    group_wait(&g, OK);
    fake_end(f);
    signed_remove(&proof.s);
}

static void a_broken_plan_of_a_manifest_is_refused(void **state)
{
    (void)state;
    struct proof proof;
    static char empty[] = "", upper[] = "ABCD", hex[] = OTHER_DIGEST "00";
    proof_make(&proof);
    Witan__Cluster__V1__Manifest m = proof.message;
    m.threshold = 0;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.threshold: expected 1 to 64", "found 0");
    m = proof.message;
    m.path = empty;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.path: expected a path", "found nothing");
    m = proof.message;
    m.trust = empty;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.trust: expected a path", "found nothing");
    m = proof.message;
    m.digest = upper;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.digest: expected 64 hex digits", "\"ABCD\"");
    m.digest = hex;
    assert_plan_refused(&m, NULL, 0, "plan: manifest.digest: expected at most 64", "found 66");
    signed_remove(&proof.s);
}

/* --- requests --- */

static void bad_requests_are_answered(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, one);
    static int32_t bad[2] = {3, 1 << 20};
    const struct {
        struct fake_request q;
        const char *words;
    } cases[] = {
        {{.id = 1, .epoch = 12, .prompt = prompt, .prompt_len = 4, .max_tokens = 4}, "epoch"},
        {{.id = 2, .prompt = bad, .prompt_len = 2, .max_tokens = 4}, "token 1 of the prompt"},
        {{.id = 3, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = CONTEXT}, "context"},
        {{.id = 4, .prompt = prompt, .prompt_len = 0, .max_tokens = 4}, "empty"},
        {{.id = 5, .prompt = prompt, .prompt_len = 4, .max_tokens = -1}, "max_tokens"},
        {{.id = 6, .prompt = prompt, .prompt_len = 4, .max_tokens = 4, .temperature = -1},
         "temperature"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct fake_request *q = &cases[i].q;
        fake_submit(f, q);
        FAKE_WAIT(f, fake_ended(f, q->id));
        const struct fake_token *t = fake_ended(f, q->id);
        assert_int_equal(t->finish, WITAN__CLUSTER__V1__FINISH__FINISH_ERROR);
        assert_int_equal(t->epoch, q->epoch ? q->epoch : FAKE_EPOCH);
        assert_int_equal(t->ids, 0);
        assert_non_null(strstr(t->error, cases[i].words));
    }
    const struct fake_request good = {
        .id = 9, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER};
    fake_submit(f, &good);
    assert_answer(f, &good);
    group_down(&g, f);
}

static void a_cancelled_request_ends(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    p.dir = "deploy/lexicon/model"; /* slow enough to be caught */
    p.max_seqs = 1;
    p.context = 1024;
    group_start(&g, f, 1);
    fake_bring_up(f, &p);
    for (uint64_t id = 1; id <= 3; id++) { /* one runs, two wait */
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
        fake_submit(f, &q);
    }
    FAKE_WAIT(f, f->count > 2);
    fake_cancel(f, 3);
    fake_cancel(f, 99); /* none of this id */
    fake_cancel(f, 1);
    FAKE_WAIT(f, fake_ended(f, 1) && fake_ended(f, 3));
    FAKE_WAIT(f, f->tokens[f->count - 1].request_id == 2);
    fake_cancel(f, 2);
    FAKE_WAIT(f, fake_ended(f, 2));
    for (uint64_t id = 1; id <= 3; id++) {
        static int32_t ids[FAKE_TOKENS];
        assert_int_equal(fake_ended(f, id)->finish, WITAN__CLUSTER__V1__FINISH__FINISH_CANCELLED);
        int n = fake_answer(f, id, ids, FAKE_TOKENS); /* checks the positions */
        assert_int_equal(n == 0, id == 3);
    }
    group_down(&g, f);
}

static void a_refusal_is_the_error(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    fake_refuse(f, RPC_PERMISSION_DENIED);
    group_start(&g, f, 1);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "PERMISSION_DENIED: as the test asks"));
    fake_end(f);
}

/* A port at which nobody listens, kept from other processes. */
static int hold_port(int port)
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

static void a_late_coordinator_is_found(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(one);
    int port = rpc_server_port(f->server);
    fake_vanish(f);
    int held = hold_port(port);
    group_start(&g, f, 1);
    usleep(1500000);
    close(held);
    fake_listen(f, port);
    fake_bring_up(f, &p);
    group_down(&g, f);
}

static void stopping_waits_for_no_request(void **state)
{
    (void)state;
    struct fake *f = fake_start();
    struct group g;
    struct fake_plan p = plan_for(two);
    p.dir = "deploy/lexicon/model";
    p.context = 1024;
    group_start(&g, f, 2);
    fake_bring_up(f, &p);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
    fake_submit(f, &q);
    FAKE_WAIT(f, f->count > 2);
    fake_stop(f, 2);
    group_wait(&g, OK);
    assert_true(f->count < 900);
    fake_end(f);
}

static void the_end_of_the_stream_ends_a_parked_group(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = group_up(&g, two);
    fake_vanish(f);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "coordinator 127.0.0.1:"));
    fake_end(f);
}

/* --- streams that end ---------------------------------------------------------------------------
 */

/* Two ranks that may attach again, and a request that would run for long, begun. */
static struct fake *busy_up(struct group *g, int32_t timeout_s, bool busy)
{
    struct fake *f = fake_start();
    struct fake_plan p = plan_for(two);
    p.reattach_timeout_s = timeout_s;
    p.dir = "deploy/lexicon/model";
    p.context = 1024;
    group_start(g, f, 2);
    fake_bring_up(f, &p);
    const struct fake_request q = {
        .id = 1, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = 900};
    if (busy) {
        fake_submit(f, &q);
        FAKE_WAIT(f, f->count > 2);
    }
    return f;
}

/* The same plan again, with another epoch: the next `stream` of each rank. */
static void plan_again(struct fake *f, int stream, struct fake_plan *p)
{
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].hellos == stream);
        assert_true(f->ranks[i].loaded);
        assert_int_equal(f->ranks[i].incarnation, f->ranks[0].incarnation);
    }
    f->epoch++;
    p->reattach_timeout_s = 60;
    p->dir = "deploy/lexicon/model";
    p->context = 1024;
    fake_plan(f, p);
}

/* Ranks serve again, having loaded nothing: the same tokens in another epoch. */
static void assert_serves_again(struct fake *f, int stream, const double load_seconds[2])
{
    struct fake_plan p = plan_for(two);
    plan_again(f, stream, &p);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, f->ranks[i].ready);
        assert_true(f->ranks[i].reattached);
        assert_true(f->ranks[i].load_seconds == load_seconds[i]);
    }
    pthread_mutex_lock(&f->mutex);
    uint64_t wakes = f->ranks[0].wakes;
    f->count = 0; /* what the epoch before drew */
    pthread_mutex_unlock(&f->mutex);
    static int32_t first[ANSWER], again[ANSWER];
    for (uint64_t id = 10; id < 12; id++) {
        const struct fake_request q = {
            .id = id, .prompt = prompt, .prompt_len = PROMPT, .max_tokens = ANSWER, .seed = 5};
        fake_submit(f, &q);
        FAKE_WAIT(f, fake_ended(f, id));
        assert_int_equal(fake_answer(f, id, id == 10 ? first : again, ANSWER), ANSWER);
        for (int i = 0; i < 2; i++)
            wait_parked(f, &f->ranks[i]);
    }
    assert_memory_equal(first, again, sizeof first);
    for (int i = 0; i < f->count; i++)
        assert_true(f->tokens[i].request_id >= 10); /* nothing of the request before runs */
    assert_int_equal(f->ranks[0].wakes, wakes + 2); /* both sides have counted on */
}

static void ranks_attach_again_and_keep_what_they_hold(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, true);
    const double load_seconds[2] = {f->ranks[0].load_seconds, f->ranks[1].load_seconds};
    int port = rpc_server_port(f->server);
    for (int stream = 2; stream < 4; stream++) { /* in the middle of a step, then parked */
        fake_vanish(f);
        int held = hold_port(port);
        usleep(300000);
        close(held);
        fake_listen(f, port);
        assert_serves_again(f, stream, load_seconds);
    }
    group_down(&g, f);
}

/* The coordinator sends the others home, and all come again. */
static void one_stream_s_end_ends_no_rank(void **state)
{
    (void)state;
    for (int cut = 0; cut < 2; cut++) {
        struct group g;
        struct fake *f = busy_up(&g, 60, true);
        const double load_seconds[2] = {f->ranks[0].load_seconds, f->ranks[1].load_seconds};
        fake_cut(f, cut, RPC_UNAVAILABLE);
        FAKE_WAIT(f, f->ranks[cut].closed || f->ranks[cut].hellos == 2);
        fake_cut(f, 1 - cut, RPC_ABORTED);
        assert_serves_again(f, 2, load_seconds);
        group_down(&g, f);
    }
}

static void a_changed_plan_ends_the_group(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    struct fake_plan p = plan_for(two);
    p.max_seqs = 7;
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    plan_again(f, 2, &p);
    group_wait(&g, ERR_INVALID);
    for (int i = 0; i < 2; i++) {
        FAKE_WAIT(f, *f->ranks[i].failed);
        assert_string_equal(f->ranks[i].failed,
                            "plan: limits.max_seqs: this rank has loaded with 3, and the "
                            "coordinator now says 7: the group starts again");
        assert_false(f->ranks[i].ready);
    }
    fake_end(f);
}

/* No second try where the coordinator says that none will help. */
static void a_refusal_ends_a_loaded_rank(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    fake_refuse(f, RPC_PERMISSION_DENIED);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_UNAVAILABLE);
    group_wait(&g, ERR_IO);
    assert_non_null(strstr(g.err.msg, "PERMISSION_DENIED: as the test asks"));
    fake_end(f);
}

static void nobody_is_waited_for_for_ever(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 1, false);
    fake_vanish(f);
    group_wait(&g, ERR_LIMIT);
    assert_non_null(strstr(g.err.msg, "no coordinator has taken this rank back within 1 s "
                                      "(limits.reattach_timeout_s): it ends; last: coordinator "));
    fake_end(f);
}

static void stop_reaches_ranks_that_wait_for_their_plan(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    for (int i = 0; i < 2; i++)
        FAKE_WAIT(f, f->ranks[i].hellos == 2);
    group_down(&g, f);
}

/* Whether or not a rank has looked at its plan before: the others would wait for it. */
static void stop_behind_a_plan_ends_all_in_order(void **state)
{
    (void)state;
    struct group g;
    struct fake *f = busy_up(&g, 60, false);
    struct fake_plan p = plan_for(two);
    for (int i = 0; i < 2; i++)
        fake_cut(f, i, RPC_ABORTED);
    plan_again(f, 2, &p);
    group_down(&g, f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(hello_says_who_and_where),
    cmocka_unit_test(hello_says_which_gpu),
    cmocka_unit_test(later_groups_take_later_gpus),
    cmocka_unit_test(no_gpu_no_hello),
    cmocka_unit_test(tokens_are_the_engine_s),
    cmocka_unit_test(one_message_a_step),
    cmocka_unit_test(two_ranks_park_and_wake),
    cmocka_unit_test(heartbeats_tell_of_the_engine),
    cmocka_unit_test(a_plan_that_differs_is_refused),
    cmocka_unit_test(an_unreadable_model_is_told),
    cmocka_unit_test(ranks_prove_their_weights_and_say_by_what),
    cmocka_unit_test(another_manifest_is_refused),
    cmocka_unit_test(own_keys_come_first),
    cmocka_unit_test(a_broken_plan_of_a_manifest_is_refused),
    cmocka_unit_test(bad_requests_are_answered),
    cmocka_unit_test(a_cancelled_request_ends),
    cmocka_unit_test(a_refusal_is_the_error),
    cmocka_unit_test(a_late_coordinator_is_found),
    cmocka_unit_test(stopping_waits_for_no_request),
    cmocka_unit_test(the_end_of_the_stream_ends_a_parked_group),
    cmocka_unit_test(ranks_attach_again_and_keep_what_they_hold),
    cmocka_unit_test(one_stream_s_end_ends_no_rank),
    cmocka_unit_test(a_changed_plan_ends_the_group),
    cmocka_unit_test(a_refusal_ends_a_loaded_rank),
    cmocka_unit_test(nobody_is_waited_for_for_ever),
    cmocka_unit_test(stop_reaches_ranks_that_wait_for_their_plan),
    cmocka_unit_test(stop_behind_a_plan_ends_all_in_order),
};

UNIT_MAIN(tests)
