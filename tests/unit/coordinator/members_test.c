/* Groups and ranks, with ranks that the test plays over the real protocol: who may attach, what
 * they are told. What becomes of requests: generation_test.c. */
#include "tests/unit/coordinator/cluster.h"
#include "tests/unit/partition/signed_folder.h"

typedef Witan__Cluster__V1__CoordinatorMessage told;

/* --- attaching --- */

static void gives_each_rank_its_plan(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    cluster_start(&c,
                  "groups: [{name: g0, tp: 2}]\nlimits: {sequences: 4, context: 256, stall_ms: 7, "
                  "speculate: 3, prefix_cache: 'off', kv: int8}\n");
    for (uint32_t i = 0; i < 2; i++) {
        fake_open_on(&r[i], c.channel);
        fake_say_hello(&r[i], (struct fake_hello){.rank = i, .world = 2});
    }
    for (int i = 0; i < 2; i++) {
        const told *m = fake_next(&r[i]);
        assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN);
        assert_int_equal(m->plan->layout->tp, 2);
        assert_int_equal(m->plan->limits->context, 256);
        assert_int_equal(m->plan->limits->kv_blocks, 4 * 256 / KV_BLOCK);
        assert_int_equal(m->plan->stall_ms, 7);
        assert_int_equal(m->plan->speculate, 3);
        assert_true(m->plan->no_prefix_cache);
        assert_int_equal(m->plan->limits->kv_dtype, KV_INT8);
        assert_int_equal(m->plan->weights, WEIGHTS_PUBLISHED);
        assert_false(m->plan->limits->kv_f32);
        assert_string_equal(m->plan->model_dir, LEXICON);
        assert_int_equal(m->plan->slices->q_heads->begin,
                         i * m->plan->slices->q_heads->end / (i + 1));
        assert_true(m->plan->epoch > 0);
    }
    assert_string_equal(cluster_states, "g0 loading;");
    fake_release(&r[0]);
    assert_int_equal(fake_wait_closed(&r[1]), RPC_ABORTED);
    assert_non_null(strstr(r[1].message, "rank 0 (test, pid 4711)"));
    fake_release(&r[1]);
    cluster_stop(&c);
}

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        struct fake_hello hello;
        int code;
        const char *words;
    } cases[] = {
        {{.group = "g7", .world = 1}, RPC_NOT_FOUND, "no group \"g7\""},
        {{.world = 2}, RPC_FAILED_PRECONDITION, "rank 0 of 2 attaches, but the layout of group g0"},
        {{.world = 1, .rank = 1}, RPC_FAILED_PRECONDITION, "rank 1 of 1"},
        {{.world = 1, .version = 99}, RPC_FAILED_PRECONDITION, "speaks protocol version 99"},
        {{.group = "a\nb", .world = 1}, RPC_NOT_FOUND, "\"a?b\""},
    };
    struct cluster c;
    cluster_start(&c, "");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fake_rank r;
        fake_open_on(&r, c.channel);
        fake_say_hello(&r, cases[i].hello);
        assert_int_equal(fake_wait_closed(&r), cases[i].code);
        if (!strstr(r.message, cases[i].words))
            fail_msg("expected \"%s\", found \"%s\"", cases[i].words, r.message);
        fake_release(&r);
    }
    assert_string_equal(cluster_states, "");
    cluster_stop(&c);
}

struct status_ask {
    const struct cluster *cluster;
    Witan__Inference__V1__GetStatusResponse *out;
};

static void ask_status(void *arg)
{
    struct status_ask *a = arg;
    members_status(a->cluster->core->members, a->out);
}

/* As an answer to a client: to be freed by free_unpacked. */
static Witan__Inference__V1__GetStatusResponse *status_of(struct cluster *c)
{
    struct status_ask a = {.cluster = c, .out = malloc(sizeof *a.out)};
    assert_non_null(a.out);
    witan__inference__v1__get_status_response__init(a.out);
    on_loop(c, ask_status, &a);
    return a.out;
}

static void wait_attached(struct cluster *c, size_t ranks)
{
    size_t there = 0;
    for (int i = 0; i < 3000 && there != ranks; i++) {
        Witan__Inference__V1__GetStatusResponse *s = status_of(c);
        there = s->groups[0]->n_ranks;
        witan__inference__v1__get_status_response__free_unpacked(s, NULL);
        usleep(1000);
    }
    assert_int_equal(there, ranks);
}

/* Where ranks compute is the cluster's to say, and all of them compute the same bits. */
static void refuses_other_devices(void **state)
{
    (void)state;
    static const struct {
        bool cuda;
        struct fake_hello hello;
        const char *words;
    } cases[] = {
        {false,
         {.world = 2, .device = "A GPU"},
         "rank 0 computes on a GPU, and model.device is cpu: start witan-worker with --device cpu"},
        {true, {.world = 2}, "rank 0 computes on its processor, and model.device is cuda"},
        {true, {.world = 2, .device = "A GPU", .class = "cuda-2-sm90"}, "numerics class cuda-2-"},
        {false, {.world = 2, .class = "cpu-10"}, "numerics class cpu-10: this coordinator serves"},
        {true,
         {.world = 2, .device = "A GPU", .class = "cuda-1-sm100"},
         "numerics class cuda-1-sm100: rank 1 of group g0 has cuda-1-sm90"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cluster c;
        struct fake_rank r, first;
        bool cuda = cases[i].cuda;
        cluster_start_model(&c, cuda ? ", device: cuda" : "", "groups: [{name: g0, tp: 2}]\n");
        fake_open_on(&first, c.channel);
        fake_say_hello(&first,
                       (struct fake_hello){.rank = 1, .world = 2, .device = cuda ? "A GPU" : NULL});
        wait_attached(&c, 1);
        fake_open_on(&r, c.channel);
        fake_say_hello(&r, cases[i].hello);
        assert_int_equal(fake_wait_closed(&r), RPC_FAILED_PRECONDITION);
        if (!strstr(r.message, cases[i].words))
            fail_msg("expected \"%s\", found \"%s\"", cases[i].words, r.message);
        fake_release(&r);
        fake_release(&first);
        cluster_stop(&c);
    }
}

/* Ranks are told, and their class says so beside that of the cache. */
static void tells_what_weights_become(void **state)
{
    (void)state;
    static const struct {
        const char *model, *limits, *class;
        enum weight_mode weights;
    } cases[] = {
        {", weights: int8", "limits: {sequences: 4, context: 256}\n", "cpu-1-int8", WEIGHTS_INT8},
        {", weights: int4", "limits: {sequences: 4, context: 256, kv: int8}\n", "cpu-1-int4-kv8",
         WEIGHTS_INT4},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct cluster c;
        struct fake_rank r;
        cluster_start_model(&c, cases[i].model, cases[i].limits);
        fake_open_on(&r, c.channel);
        fake_say_hello(&r, (struct fake_hello){.world = 1});
        const told *m = fake_next(&r);
        assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN);
        assert_int_equal(m->plan->weights, cases[i].weights);
        Witan__Inference__V1__GetStatusResponse *s = status_of(&c);
        assert_string_equal(s->groups[0]->numerics_class, cases[i].class);
        witan__inference__v1__get_status_response__free_unpacked(s, NULL);
        fake_release(&r);
        cluster_stop(&c);
    }
}

static void shows_the_gpu_of_a_rank(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start_model(&c, ", device: cuda",
                        "limits: {sequences: 4, context: 256, gpu_percent: 70, kv: int8}\n");
    fake_open_on(&r, c.channel);
    fake_say_hello(&r, (struct fake_hello){.world = 1, .device = "NVIDIA\nH200"});
    const told *m = fake_next(&r);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN);
    assert_int_equal(m->plan->limits->kv_blocks, 0); /* the rank's to choose */
    assert_int_equal(m->plan->limits->gpu_percent, 70);
    Witan__Inference__V1__GetStatusResponse *s = status_of(&c);
    assert_int_equal(s->n_groups, 1);
    assert_string_equal(s->groups[0]->numerics_class, "cuda-1-sm90-kv8");
    const Witan__Inference__V1__Device *d = s->groups[0]->ranks[0]->device;
    assert_non_null(d);
    assert_string_equal(d->name, "NVIDIA?H200"); /* one line */
    assert_string_equal(d->compute_capability, "9.0");
    assert_string_equal(d->cuda_driver, "13.1");
    assert_string_equal(d->uuid, "GPU-1");
    assert_string_equal(d->pci, "00000000:18:00.0");
    assert_int_equal(d->memory_bytes, (uint64_t)80 << 30);
    witan__inference__v1__get_status_response__free_unpacked(s, NULL);
    /* And what its heartbeats say of it. */
    Witan__Cluster__V1__RankMessage beat = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat heartbeat = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Gpu gpu = WITAN__CLUSTER__V1__GPU__INIT;
    Witan__Cluster__V1__Figure power = WITAN__CLUSTER__V1__FIGURE__INIT, *figures[] = {&power};
    power.kind = WITAN__CLUSTER__V1__FIGURE_KIND__FIGURE_POWER_W;
    power.value = 250;
    gpu.figures = figures;
    gpu.n_figures = 1;
    heartbeat.gpu = &gpu;
    heartbeat.step = 7;
    beat.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    beat.heartbeat = &heartbeat;
    fake_send(&r, &beat);
    for (uint64_t step = 0; step != 7;) {
        s = status_of(&c);
        const Witan__Inference__V1__Rank *rank = s->groups[0]->ranks[0];
        step = rank->step;
        assert_int_equal(rank->n_figures, step == 7 ? 1 : 0);
        if (step == 7)
            assert_true(rank->figures[0]->value == 250);
        witan__inference__v1__get_status_response__free_unpacked(s, NULL);
        usleep(1000);
    }
    fake_release(&r);
    cluster_stop(&c);
}

static void refuses_a_rank_twice(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank a, b;
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\n");
    fake_open_on(&a, c.channel);
    fake_say_hello(&a, (struct fake_hello){.world = 2});
    wait_attached(&c, 1);
    fake_open_on(&b, c.channel);
    fake_say_hello(&b, (struct fake_hello){.world = 2});
    assert_int_equal(fake_wait_closed(&b), RPC_ALREADY_EXISTS);
    fake_release(&b);
    fake_open_on(&b, c.channel);
    fake_say_hello(&b, (struct fake_hello){.world = 2, .rank = 1, .incarnation = 2});
    assert_int_equal(fake_wait_closed(&b), RPC_ABORTED);
    fake_release(&b);
    fake_release(&a);
    cluster_stop(&c);
}

/* A rank of a group of two says hello. */
static void attach_one_of_two(struct cluster *c, struct fake_rank *r, uint32_t rank, bool loaded,
                              uint64_t incarnation)
{
    fake_open_on(r, c->channel);
    fake_say_hello(r, (struct fake_hello){
                          .rank = rank, .world = 2, .loaded = loaded, .incarnation = incarnation});
}

/* Both ranks are there: plan, Ready, and the probe answered. */
static void serve_two(struct cluster *c, struct fake_rank r[2])
{
    int32_t zero = 0;
    for (int i = 0; i < 2; i++) {
        const told *m = fake_next(&r[i]);
        assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_PLAN);
        assert_int_equal(m->plan->reattach_timeout_s, 300);
        fake_say_ready(&r[i]);
    }
    const told *m = fake_next(&r[0]);
    assert_int_equal(m->body_case, WITAN__CLUSTER__V1__COORDINATOR_MESSAGE__BODY_SUBMIT);
    fake_say_tokens(&r[0], 0, m->submit->attempt, m->submit->epoch, 0, &zero, 1,
                    WITAN__CLUSTER__V1__FINISH__FINISH_LENGTH);
    cluster_wait_ready(c, true);
}

/* A stream that ends loses the group; its ranks, which live, come back, and none of another start
 * comes between them. */
static void takes_back_ranks_that_have_loaded(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2], other;
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\n");
    for (uint32_t i = 0; i < 2; i++)
        attach_one_of_two(&c, &r[i], i, false, 8);
    serve_two(&c, r);
    fake_release(&r[1]);
    assert_int_equal(fake_wait_closed(&r[0]), RPC_ABORTED);
    fake_release(&r[0]);
    wait_attached(&c, 0);
    attach_one_of_two(&c, &r[0], 0, true, 8);
    wait_attached(&c, 1);
    attach_one_of_two(&c, &other, 1, true, 9);
    assert_int_equal(fake_wait_closed(&other), RPC_ABORTED);
    fake_release(&other);
    fake_release(&r[0]); /* its link is bad: nothing is lost by that now */
    wait_attached(&c, 0);
    for (uint32_t i = 0; i < 2; i++)
        attach_one_of_two(&c, &r[i], i, true, 8);
    serve_two(&c, r);
    assert_string_equal(cluster_states, "g0 loading;g0 ready;g0 lost;g0 waiting;g0 waiting;"
                                        "g0 loading;g0 ready;");
    for (int i = 0; i < 2; i++)
        fake_release(&r[i]);
    cluster_stop(&c);
}

/* One that has loaded waits for another of its start, which is gone for good; meanwhile a launcher
 * has started the group anew, and that start tries again. */
static void a_new_start_is_not_kept_out(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank old, r[2];
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\n");
    attach_one_of_two(&c, &old, 0, true, 8);
    wait_attached(&c, 1);
    attach_one_of_two(&c, &r[1], 1, false, 9);
    assert_int_equal(fake_wait_closed(&r[1]), RPC_ABORTED);
    fake_release(&r[1]);
    assert_int_equal(fake_wait_closed(&old), RPC_FAILED_PRECONDITION);
    assert_string_equal(old.message, "its group has been started anew meanwhile: this rank ends");
    fake_release(&old);
    wait_attached(&c, 0);
    for (uint32_t i = 0; i < 2; i++)
        attach_one_of_two(&c, &r[i], i, false, 9);
    serve_two(&c, r);
    assert_string_equal(cluster_states, "g0 waiting;g0 loading;g0 ready;");
    for (int i = 0; i < 2; i++)
        fake_release(&r[i]);
    cluster_stop(&c);
}

/* Ranks that have not loaded wait as long as any: another start comes after them. */
static void a_start_that_waits_is_not_sent_home(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2], other;
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\n");
    attach_one_of_two(&c, &r[0], 0, false, 8);
    wait_attached(&c, 1);
    for (int loaded = 0; loaded < 2; loaded++) {
        attach_one_of_two(&c, &other, 1, loaded, 9);
        assert_int_equal(fake_wait_closed(&other), RPC_ABORTED);
        fake_release(&other);
    }
    attach_one_of_two(&c, &r[1], 1, false, 8);
    serve_two(&c, r);
    for (int i = 0; i < 2; i++)
        fake_release(&r[i]);
    cluster_stop(&c);
}

/* One that has waited for the others may look for them at another coordinator, and say so: that is
 * no loss, and the others wait on. */
static void one_that_leaves_while_it_waits_is_no_loss(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\n");
    attach_one_of_two(&c, &r[0], 0, false, 8);
    wait_attached(&c, 1);
    rpc_half_close(r[0].call);
    assert_int_equal(fake_wait_closed(&r[0]), RPC_OK);
    fake_release(&r[0]);
    wait_attached(&c, 0);
    for (uint32_t i = 0; i < 2; i++)
        attach_one_of_two(&c, &r[i], i, false, 8);
    serve_two(&c, r);
    assert_string_equal(cluster_states, "g0 waiting;g0 loading;g0 ready;");
    for (int i = 0; i < 2; i++)
        fake_release(&r[i]);
    cluster_stop(&c);
}

/* --- silence --- */

static void do_watch(void *arg)
{
    members_watch(arg);
}

/* limits.step_timeout_s of a second goes by, and half of one more. */
static void watch_a_timeout(struct cluster *c)
{
    for (int i = 0; i < 15; i++) {
        usleep(100000);
        on_loop(c, do_watch, c->core->members);
    }
}

/* No rank sends a heartbeat before its plan, which waits for the last of them. */
static void a_rank_that_waits_for_others_is_not_silent(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r[2];
    cluster_start(&c, "groups: [{name: g0, tp: 2}]\nlimits: {step_timeout_s: 1}\n");
    attach_one_of_two(&c, &r[0], 0, true, 8);
    wait_attached(&c, 1);
    watch_a_timeout(&c);
    attach_one_of_two(&c, &r[1], 1, true, 8);
    serve_two(&c, r);
    on_loop(&c, do_watch, c.core->members);
    assert_string_equal(cluster_states, "g0 loading;g0 ready;");
    watch_a_timeout(&c); /* but now it is */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fake_wait_closed(&r[i]), RPC_FAILED_PRECONDITION);
        fake_release(&r[i]);
    }
    cluster_stop(&c);
}

/* This host's own network is cut: ranks are to keep their weights. */
static void ranks_come_back_when_all_were_silent(void **state)
{
    (void)state;
    static const char *const words = "all ranks of all groups have been silent for ";
    struct cluster c;
    struct fake_rank r[2];
    cluster_start(&c, "groups: [{name: g0}, {name: g1}]\nlimits: {step_timeout_s: 1}\n");
    fake_serve_with(&c, &r[0], (struct fake_hello){.group = "g0", .host = "node1"}, "");
    fake_serve_with(&c, &r[1], (struct fake_hello){.group = "g1", .host = "node2"}, "");
    cluster_wait_ready(&c, true);
    watch_a_timeout(&c);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fake_wait_closed(&r[i]), RPC_ABORTED);
        assert_memory_equal(r[i].message, words, strlen(words));
        fake_release(&r[i]);
    }
    cluster_stop(&c);
}

static void wants_a_hello_first(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    fake_open_on(&r, c.channel);
    fake_say_ready(&r);
    assert_int_equal(fake_wait_closed(&r), RPC_INVALID_ARGUMENT);
    fake_release(&r);
    cluster_stop(&c);
}

/* Attaches with the worker's certificate in `dir`; gives the code that refuses it. */
static int attach_with(struct cluster *c, const char *dir, const char *role, char *message)
{
    struct fake_rank r;
    struct error err;
    struct pki_files f;
    struct rpc_channel *channel;
    char address[32];
    if (pki_load(dir, role, &f, &err) != OK)
        fail_msg("%s", err.msg);
    struct rpc_tls tls = {
        .ca = f.ca, .cert = f.cert, .key = f.key, .peer_name = PKI_COORDINATOR_NAME};
    snprintf(address, sizeof address, "127.0.0.1:%d", members_port(c->core->members));
    assert_int_equal(rpc_channel_create(c->rpc, address, &tls, &channel, &err), OK);
    fake_open_on(&r, channel);
    fake_say_hello(&r, (struct fake_hello){.world = 1});
    int code = fake_wait_closed(&r);
    strcpy(message, r.message);
    fake_release(&r);
    rpc_channel_destroy(channel);
    pki_files_fini(&f);
    return code;
}

/* The certificate says who may be what. */
static void only_the_right_certificate_joins(void **state)
{
    (void)state;
    struct cluster c;
    struct error err;
    char message[512], other[] = "/tmp/witan-root-XXXXXX";
    cluster_start(&c, "");
    assert_int_equal(pki_issue_worker(c.dir, c.dir, "stray", "g9", "*", "", 1, &err), OK);
    assert_int_equal(attach_with(&c, c.dir, "stray", message), RPC_PERMISSION_DENIED);
    assert_non_null(strstr(message, "g9"));
    assert_int_equal(pki_issue_worker(c.dir, c.dir, "second", "g0", "1", "", 1, &err), OK);
    assert_int_equal(attach_with(&c, c.dir, "second", message), RPC_PERMISSION_DENIED);
    /* A coordinator's is for other calls; with one of another root there is no connection at all.
     */
    assert_int_equal(attach_with(&c, c.dir, "coordinator", message), RPC_PERMISSION_DENIED);
    assert_non_null(strstr(message, "found no worker's name (\"urn:witan:coordinator\")"));
    assert_non_null(mkdtemp(other));
    assert_int_equal(rmdir(other), 0);
    assert_int_equal(pki_init(other, "test", &err), OK);
    assert_int_equal(pki_issue_worker(other, other, "worker", "*", "*", "", 1, &err), OK);
    assert_int_equal(attach_with(&c, other, "worker", message), RPC_UNAVAILABLE);
    assert_string_equal(cluster_states, "");
    cluster_stop(&c);
    cluster_remove(other);
}

/* --- manifests --- */

#define OTHER_DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* The shipped model, listed and signed by alice, in a cluster that demands it. */
static struct signed_folder start_signed(struct cluster *c, char *digest, const char *yaml)
{
    struct signed_folder s = signed_make();
    struct manifest *m = NULL;
    struct error err;
    char words[512];
    signed_create_of(&s, LEXICON);
    signed_by(&s, "alice");
    must(manifest_open(s.manifest, LEXICON, s.trust, 1, &m, &err), &err);
    strcpy(digest, manifest_digest(m));
    manifest_close(m);
    snprintf(words, sizeof words, ", manifest: %s, trust: %s", s.manifest, s.trust);
    cluster_start_model(c, words, yaml);
    return s;
}

static void ranks_are_told_the_manifest(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    char digest[MANIFEST_DIGEST_HEX + 1];
    struct signed_folder s = start_signed(&c, digest, "");
    assert_string_equal(manifest_digest(c.core->served.manifest), digest);
    assert_string_equal(manifest_signers(c.core->served.manifest), "alice");
    fake_serve_by(&c, &r, digest);
    cluster_wait_ready(&c, true);
    const Witan__Cluster__V1__Plan *plan = r.got[0]->plan;
    assert_non_null(plan->manifest);
    assert_string_equal(plan->manifest->path, s.manifest);
    assert_string_equal(plan->manifest->trust, s.trust);
    assert_int_equal(plan->manifest->threshold, 1);
    assert_string_equal(plan->manifest->digest, digest);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
    signed_remove(&s);
}

static void ask_waiting(void *arg)
{
    static const char last[] = "g1 waiting;";
    size_t n = strlen(cluster_states);
    *(bool *)arg = n >= sizeof last - 1 &&
                   strcmp(cluster_states + n - (sizeof last - 1), last) == 0;
}

/* Until group g1 may come again. */
static void wait_waiting(struct cluster *c)
{
    bool waiting = false;
    for (int i = 0; i < 3000 && !waiting; i++) {
        on_loop(c, ask_waiting, &waiting);
        usleep(1000);
    }
    assert_true(waiting);
}

/* A rank that says `theirs` where `own` is demanded takes its group out of service. */
static void assert_held_out(struct cluster *c, const char *theirs, const char *own,
                            const char *found)
{
    struct fake_rank r;
    char words[400];
    fake_open_on(&r, c->channel);
    fake_say_hello(&r, (struct fake_hello){.group = "g1", .world = 1});
    fake_next(&r);
    fake_say_ready_by(&r, theirs);
    assert_int_equal(fake_wait_closed(&r), RPC_FAILED_PRECONDITION); /* it need not come again */
    snprintf(words, sizeof words,
             "rank 0 (test, pid 4711): manifest: expected the coordinator's (SHA-256 %s), found "
             "%s: give every host the same release, folder and manifest",
             own, found);
    if (!strstr(r.message, words))
        fail_msg("expected \"%s\", found \"%s\"", words, r.message);
    fake_release(&r);
    wait_waiting(c);
}

/* One model name, one set of weights: the group that has another never serves, the sound one goes
 * on. */
static void groups_of_other_weights_are_held_out(void **state)
{
    (void)state;
    static const char two_groups[] = "groups: [{name: g0}, {name: g1}]\n";
    struct cluster c;
    struct fake_rank r;
    char digest[MANIFEST_DIGEST_HEX + 1];
    struct signed_folder s = start_signed(&c, digest, two_groups);
    fake_serve_by(&c, &r, digest);
    cluster_wait_ready(&c, true);
    assert_held_out(&c, OTHER_DIGEST, digest, OTHER_DIGEST);
    assert_held_out(&c, "", digest, "none");
    assert_held_out(&c, "a\nb", digest, "a?b");
    cluster_wait_ready(&c, true);
    assert_string_equal(cluster_states, "g0 loading;g0 ready;g1 loading;g1 lost;g1 waiting;"
                                        "g1 loading;g1 lost;g1 waiting;g1 loading;g1 lost;"
                                        "g1 waiting;");
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
    signed_remove(&s);
    /* And without a manifest here none is taken from there. */
    cluster_start(&c, two_groups);
    assert_held_out(&c, digest, "none", digest);
    cluster_stop(&c);
}
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gives_each_rank_its_plan),
    cmocka_unit_test(refuses_by_name),
    cmocka_unit_test(refuses_other_devices),
    cmocka_unit_test(tells_what_weights_become),
    cmocka_unit_test(shows_the_gpu_of_a_rank),
    cmocka_unit_test(refuses_a_rank_twice),
    cmocka_unit_test(takes_back_ranks_that_have_loaded),
    cmocka_unit_test(a_new_start_is_not_kept_out),
    cmocka_unit_test(a_start_that_waits_is_not_sent_home),
    cmocka_unit_test(one_that_leaves_while_it_waits_is_no_loss),
    cmocka_unit_test(a_rank_that_waits_for_others_is_not_silent),
    cmocka_unit_test(ranks_come_back_when_all_were_silent),
    cmocka_unit_test(wants_a_hello_first),
    cmocka_unit_test(only_the_right_certificate_joins),
    cmocka_unit_test(ranks_are_told_the_manifest),
    cmocka_unit_test(groups_of_other_weights_are_held_out),
};

UNIT_MAIN(tests)
