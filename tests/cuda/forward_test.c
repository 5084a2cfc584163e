/*
 * The whole forward pass on the CUDA kernels, under the emulator: near the CPU backend's logits,
 * and bit for bit the same whatever the chunking, the batch and the layout of ranks.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "tests/fake_nccl/fake_nccl.h"
#include "tests/cuda/any_gpu.h"
#include "worker/cpu/ops.h"
#include "worker/cuda_backend.h"
#include "worker/engine.h"
#include "worker/sampler.h"

#include <dlfcn.h>
#include <math.h>

enum { MAX_SEQS = 3, MAX_LEN = 96, MAX_VOCAB = 600, MAX_STEPS = 8, STEP_TIMEOUT_S = 1 };

/* Launches of kernels so far; 0 where nobody counts them. */
#ifdef WITAN_EMULATED
uint64_t simt_launches(void);
bool simt_record(int (*fn)(const void *arg), const void *arg, size_t bytes);
#else
static uint64_t simt_launches(void)
{
    return 0;
}
#endif

#ifdef WITAN_EMULATED

static struct fake_nccl *fake(void)
{
    struct fake_nccl *(*get)(void) = NULL;
    void *so = dlopen(FAKE_NCCL, RTLD_NOW | RTLD_LOCAL);
    void *symbol = so ? dlsym(so, "fake_nccl") : NULL;
    assert_non_null(symbol);
    memcpy(&get, &symbol, sizeof get);
    return get();
}

static const char *nccl_library(void)
{
    return FAKE_NCCL;
}

/* --- many GPUs of the one that the emulator has --- */

static int many_count(int *count)
{
    *count = 8;
    return 0;
}

static int many_use(int device)
{
    return witan_cuda_plugin(CUDA_PLUGIN_VERSION)->use(device < 8 ? 0 : device);
}

static int many_info(int device, struct cuda_device_info *out)
{
    int e = witan_cuda_plugin(CUDA_PLUGIN_VERSION)->device_info(0, out);
    snprintf(out->uuid, sizeof out->uuid, "GPU-emulator-%d", device);
    return e;
}

/* An operation that the fake one never does holds the stream up. */
static int many_query(cuda_stream stream, bool *done)
{
    int e = witan_cuda_plugin(CUDA_PLUGIN_VERSION)->query(stream, done);
    *done = *done && !fake()->busy();
    return e;
}

static int many_event_query(cuda_event event, bool *done)
{
    int e = witan_cuda_plugin(CUDA_PLUGIN_VERSION)->event_query(event, done);
    *done = *done && !fake()->busy();
    return e;
}

static const struct cuda_plugin *gpus(int count)
{
    static struct cuda_plugin many;
    assert_in_range(count, 1, 8);
    many = *witan_cuda_plugin(CUDA_PLUGIN_VERSION);
    many.device_count = many_count;
    many.use = many_use;
    many.device_info = many_info;
    many.query = many_query;
    many.event_query = many_event_query;
    fake()->record = simt_record;
    return &many;
}

#else

static const char *nccl_library(void)
{
    return NULL;
}

/* NULL: there are not so many. */
static const struct cuda_plugin *gpus(int count)
{
    const struct cuda_plugin *p = witan_cuda_plugin(CUDA_PLUGIN_VERSION);
    int found = 0;
    return p->device_count(&found) == 0 && found >= count ? p : NULL;
}

#endif

/* A model of random bf16 weights, and what it is asked. */
struct shape {
    const char *flags; /* of make_checkpoint */
    int32_t vocab;
    const char *dir; /* set by make_model */
};

struct ask {
    int32_t prompt[MAX_LEN];
    int32_t prompt_len, max_tokens;
    struct sampling sampling;
};

/* What one request got: logits of every position that was computed, and tokens. */
struct answer {
    float *logits; /* [MAX_LEN, vocab] */
    bool seen[MAX_LEN];
    int32_t drawn[MAX_LEN];
    int32_t count, vocab;
    enum finish finish;
};

struct run {
    const struct shape *shape;
    const struct cuda_plugin *cuda; /* NULL: the CPU backend */
    struct layout layout;
    const char *collectives; /* NULL: staged */
    const char *library;     /* NCCL's; NULL: the fake one on the emulator, else the installed */
    int32_t chunk;
    const struct ask *asks;
    int32_t ask_count;
    bool ahead;           /* nobody wants logits: a step begins before the one before is done */
    int32_t cancel_after; /* steps, and then the first request is given up; 0: never */
    int32_t vocab_limit, speculate;
    struct sched_stats stats;
    struct answer answers[MAX_SEQS];
    int32_t launches[MAX_STEPS], steps;    /* of each step; of one rank */
    int32_t nodes[MAX_SEQS + 1], segments; /* of rank 0's recorded steps, by rows */
};

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct answer *a = user;
    assert_true(pos >= 0 && pos < MAX_LEN && vocab == a->vocab);
    memcpy(a->logits + (size_t)pos * (size_t)vocab, logits, (size_t)vocab * sizeof *logits);
    a->seen[pos] = true;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct answer *a = user;
    assert_int_not_equal(finish, FINISH_ERROR);
    a->finish = finish;
    if (token >= 0)
        a->drawn[a->count++] = token;
}

static enum status answer_all(struct engine *e, struct run *r, struct error *err)
{
    uint64_t ids[MAX_SEQS] = {0};
    for (int32_t i = 0; i < r->ask_count; i++) {
        struct request q = {
            .prompt = r->asks[i].prompt,
            .prompt_len = r->asks[i].prompt_len,
            .max_tokens = r->asks[i].max_tokens,
            .ignore_eos = true,
            .all_logits = !r->ahead,
            .sampling = r->asks[i].sampling,
            .on_token = on_token,
            .on_logits = r->ahead ? NULL : on_logits,
            .user = &r->answers[i],
        };
        TRY(engine_submit(e, &q, &ids[i], err));
    }
    for (bool ran = true; ran;) {
        uint64_t before = simt_launches();
        TRY(engine_step(e, &ran, err));
        if (ran && r->steps < MAX_STEPS)
            r->launches[r->steps++] = (int32_t)(simt_launches() - before);
        if (r->cancel_after > 0 && --r->cancel_after == 0)
            assert_true(engine_cancel(e, ids[0]));
    }
    r->stats = engine_stats(e)->sched;
    return engine_stop(e, err);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    const struct model_options o = {
        .dir = r->shape->dir,
        .layout = r->layout,
        .limits = {.max_rows = MAX_LEN,
                   .max_seqs = MAX_SEQS + 2, /* steps of three are recorded as four rows */
                   .max_logits = MAX_LEN,
                   .context = MAX_LEN,
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
        .cuda = r->cuda,
        .collectives = r->collectives ? r->collectives : "staged",
        .nccl = r->library ? r->library : nccl_library(),
        .step_timeout_s = STEP_TIMEOUT_S,
    };
    const struct engine_options eo = {
        .chunk = r->chunk, .vocab_limit = r->vocab_limit, .speculate = r->speculate};
    enum engine_left left;
    TRY(model_create(&o, world, &m, err));
    for (int32_t i = 1; world->rank == 0 && r->cuda && i <= MAX_SEQS; i++)
        r->nodes[i] = cuda_backend_recorded(m->backend, i, MAX_LEN, &r->segments);
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK)
        st = world->rank == 0 ? answer_all(e, r, err) : engine_follow(e, &left, err);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static int ranks_of(const struct layout *l)
{
    return l->pp * (l->w > 0 ? l->w : l->tp > l->ep ? l->tp : l->ep);
}

static enum status try_it(struct run *r, struct error *err)
{
    for (int32_t i = 0; i < r->ask_count; i++) {
        r->answers[i] = (struct answer){.vocab = r->shape->vocab};
        r->answers[i].logits = calloc((size_t)MAX_LEN * (size_t)r->shape->vocab, sizeof(float));
        assert_non_null(r->answers[i].logits);
    }
    return comm_local_run(ranks_of(&r->layout), rank_main, r, err);
}

static void run_it(struct run *r)
{
    struct error err;
    if (try_it(r, &err) != OK)
        fail_msg("%s", err.msg);
}

static void run_fini(struct run *r)
{
    for (int32_t i = 0; i < r->ask_count; i++)
        free(r->answers[i].logits);
}

static void make_model(struct shape *s, char dir[64])
{
    char command[1024];
    snprintf(dir, 64, "/tmp/witan_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    s->dir = dir;
    snprintf(command, sizeof command, "%s %s --vocab %d %s", MAKE_CHECKPOINT, dir, s->vocab,
             s->flags);
    assert_int_equal(system(command), 0);
}

static void remove_model(const struct shape *s)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", s->dir);
    assert_int_equal(system(command), 0);
}

static void make_asks(struct ask *asks, int32_t count, int32_t vocab)
{
    static const int32_t lengths[MAX_SEQS] = {70, 5, 1};
    static const struct sampling ways[MAX_SEQS] = {
        {.temperature = 1.0f, .top_p = 1.0f, .seed = 7},
        {.temperature = 0.8f, .top_p = 0.9f, .top_k = 50, .seed = 8},
        {.temperature = 0.0f, .top_p = 1.0f},
    };
    for (int32_t i = 0; i < count; i++) {
        asks[i].prompt_len = lengths[i];
        asks[i].max_tokens = 3;
        asks[i].sampling = ways[i];
        for (int32_t k = 0; k < lengths[i]; k++)
            asks[i].prompt[k] = (k * 37 + i * 11 + 5) % vocab;
    }
}

/* The largest difference of any logit over the largest logit. */
static double distance(const struct answer *a, const struct answer *b)
{
    double worst = 0, largest = 0;
    int rows = 0;
    for (int32_t p = 0; p < MAX_LEN; p++) {
        if (!a->seen[p] || !b->seen[p])
            continue;
        rows++;
        for (int32_t v = 0; v < a->vocab; v++) {
            double x = a->logits[p * a->vocab + v], y = b->logits[p * b->vocab + v];
            assert_true(isfinite(x) && isfinite(y));
            worst = fmax(worst, fabs(x - y));
            largest = fmax(largest, fabs(x));
        }
    }
    assert_true(rows > 0 && largest > 0);
    return worst / largest;
}

/* Each token is the one that worker/sampler.h draws from the logits before it. */
static void assert_drawn(const struct answer *a, const struct ask *q)
{
    struct error err;
    struct sampler *s = NULL;
    assert_int_equal(sampler_create(cpu_ops_portable()->rows, a->vocab, &s, &err), OK);
    assert_int_equal(a->count, q->max_tokens);
    for (int32_t t = 0; t < a->count; t++) {
        int32_t position = q->prompt_len + t;
        assert_true(a->seen[position - 1]);
        assert_int_equal(a->drawn[t], sampler_draw(s, a->logits + (position - 1) * a->vocab,
                                                   a->vocab, &q->sampling, position));
    }
    sampler_destroy(s);
}

static void assert_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->drawn, b->drawn, (size_t)a->count * sizeof *a->drawn);
    for (int32_t p = 0; p < MAX_LEN; p++) {
        assert_int_equal(a->seen[p], b->seen[p]);
        assert_memory_equal(a->logits + p * a->vocab, b->logits + p * b->vocab,
                            (size_t)a->vocab * sizeof *a->logits);
    }
}

/* With every expert chosen rounding cannot change the choice, and all rows stay near. */
static void near_the_cpu(void **state)
{
    (void)state;
    static const char *const flags[] = {
        "--hidden 64 --layers 2 --heads 4 --kv-heads 2 --head-dim 32 --experts 4 --top-k 4 "
        "--moe-intermediate 136",
        "--hidden 64 --layers 3 --heads 4 --kv-heads 2 --head-dim 32 --experts 4 --top-k 4 "
        "--moe-intermediate 64 --dense 2",
        "--hidden 128 --layers 1 --heads 8 --kv-heads 1 --head-dim 128 --experts 2 --top-k 2 "
        "--moe-intermediate 256",
    };
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        char dir[64];
        struct shape s = {.flags = flags[i], .vocab = 256};
        struct ask asks[MAX_SEQS];
        make_model(&s, dir);
        make_asks(asks, MAX_SEQS, s.vocab);
        asks[0].max_tokens = asks[1].max_tokens = asks[2].max_tokens = 0;
        struct run gpu = {.shape = &s,
                          .cuda = plugin(),
                          .layout = {1, 1, 1, 0},
                          .asks = asks,
                          .ask_count = MAX_SEQS};
        struct run cpu = gpu;
        cpu.cuda = NULL;
        run_it(&gpu);
        run_it(&cpu);
        for (int32_t k = 0; k < MAX_SEQS; k++) {
            double d = distance(&gpu.answers[k], &cpu.answers[k]);
            print_message("request %d: %.2e of the largest logit\n", k, d);
            assert_true(d < 2e-2); /* activations of 8 bits of mantissa, some rounded a few times */
        }
        run_fini(&gpu);
        run_fini(&cpu);
        remove_model(&s);
    }
}

struct way {
    struct layout layout;
    int32_t chunk;
};

/* The same requests over other layouts and chunks, ranks meeting so; how many there are GPUs for.
 */
static int same_in_all_ways(const struct run *one, const struct way *ways, size_t count,
                            const char *collectives)
{
    int ran = 0;
    for (size_t i = 0; i < count; i++) {
        struct run other = *one;
        other.layout = ways[i].layout;
        other.chunk = ways[i].chunk;
        other.collectives = collectives;
        if (strcmp(collectives, "nccl") == 0)
            other.cuda = gpus(ranks_of(&other.layout));
        if (!other.cuda)
            continue;
        ran++;
        run_it(&other);
        for (int32_t k = 0; k < MAX_SEQS; k++)
            assert_same(&one->answers[k], &other.answers[k]);
        run_fini(&other);
    }
    return ran;
}

static const char eight_experts[] = "--hidden 64 --layers 2 --heads 4 --kv-heads 2 --head-dim 32 "
                                    "--experts 8 --top-k 2 --moe-intermediate 256";

/* One rank with everything at once, against chunks, requests alone and layouts of ranks. */
static void check_ways(const struct shape *s)
{
    static const struct way ways[] = {{{1, 1, 1, 0}, 7}, {{1, 2, 1, 0}, 0}, {{1, 2, 2, 0}, 33},
                                      {{1, 1, 4, 0}, 0}, {{2, 1, 2, 0}, 0}, {{1, 4, 2, 0}, 0}};
    struct ask asks[MAX_SEQS];
    make_asks(asks, MAX_SEQS, s->vocab);
    struct run all = {
        .shape = s, .cuda = plugin(), .layout = {1, 1, 1, 0}, .asks = asks, .ask_count = MAX_SEQS};
    run_it(&all);
    for (int32_t k = 0; k < MAX_SEQS; k++)
        assert_drawn(&all.answers[k], &asks[k]);
    assert_int_equal(same_in_all_ways(&all, ways, COUNT_OF(ways), "staged"), COUNT_OF(ways));
    for (int32_t k = 0; k < MAX_SEQS; k++) {
        struct run alone = all;
        alone.asks = asks + k;
        alone.ask_count = 1;
        run_it(&alone);
        assert_same(&all.answers[k], &alone.answers[0]);
        run_fini(&alone);
    }
    run_fini(&all);
}

static void the_same_bits(void **state)
{
    (void)state;
    char dir[64];
    struct shape s = {.flags = eight_experts, .vocab = 200};
    make_model(&s, dir);
    check_ways(&s);
    remove_model(&s);
}

/* A golden checkpoint of tests/golden/quantised whose experts are all chosen, for near_the_cpu's
 * reason. */
static void make_quantised(struct shape *s, const char *name, char dir[64])
{
    char command[2048];
    snprintf(dir, 64, "/tmp/witan_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    *s = (struct shape){.vocab = 128, .dir = dir};
    snprintf(command, sizeof command,
             "cp %s/tests/golden/quantised/%s/* %s && "
             "sed -i 's/\"num_experts_per_tok\": 2/\"num_experts_per_tok\": 4/' %s/config.json",
             WITAN_SOURCE_DIR, name, dir, dir);
    assert_int_equal(system(command), 0);
}

/* Weights that stay packed, and (gptq_order) some that become bf16. The CPU has activations in
 * fp32; measured on the emulator: 1.9e-2 (fp8) to 2.4e-2 (gptq_order, whose weights are rounded
 * too). */
static void check_quantised(const char *name)
{
    char dir[64];
    struct shape s;
    struct ask asks[MAX_SEQS];
    make_quantised(&s, name, dir);
    make_asks(asks, MAX_SEQS, s.vocab);
    for (int k = 0; k < MAX_SEQS; k++)
        asks[k].max_tokens = 0;
    struct run gpu = {
        .shape = &s, .cuda = plugin(), .layout = {1, 1, 1, 0}, .asks = asks, .ask_count = MAX_SEQS};
    struct run cpu = gpu;
    cpu.cuda = NULL;
    run_it(&gpu);
    run_it(&cpu);
    for (int32_t k = 0; k < MAX_SEQS; k++) {
        double d = distance(&gpu.answers[k], &cpu.answers[k]);
        print_message("%s, request %d: %.2e of the largest logit\n", name, k, d);
        assert_true(d < 4e-2);
    }
    run_fini(&gpu);
    run_fini(&cpu);
    if (strcmp(name, "gptq_order") != 0) /* no cut lies between blocks there */
        check_ways(&s);
    remove_model(&s);
}

static void quantised_fp8(void **state)
{
    (void)state;
    check_quantised("fp8");
}

static void quantised_gptq(void **state)
{
    (void)state;
    check_quantised("gptq");
}

static void quantised_awq(void **state)
{
    (void)state;
    check_quantised("awq");
}

static void quantised_in_activation_order(void **state)
{
    (void)state;
    check_quantised("gptq_order");
}

/* Ranks that meet by NCCL, against one rank. */
static void the_same_bits_by_nccl(void **state)
{
    (void)state;
    static const struct way ways[] = {{{1, 2, 1, 0}, 0}, {{1, 2, 2, 0}, 33}, {{1, 1, 4, 0}, 0},
                                      {{2, 1, 2, 0}, 7}, {{1, 4, 2, 0}, 0},  {{2, 2, 2, 0}, 0}};
    char dir[64];
    struct shape s = {.flags = eight_experts, .vocab = 200};
    struct ask asks[MAX_SEQS];
    make_model(&s, dir);
    make_asks(asks, MAX_SEQS, s.vocab);
    struct run one = {
        .shape = &s, .cuda = plugin(), .layout = {1, 1, 1, 0}, .asks = asks, .ask_count = MAX_SEQS};
    run_it(&one);
    int ran = same_in_all_ways(&one, ways, COUNT_OF(ways), "nccl");
    run_fini(&one);
    remove_model(&s);
    if (ran == 0) {
        printf("skipped: fewer than two GPUs\n");
        exit(77);
    }
#ifdef WITAN_EMULATED
    assert_int_equal(ran, COUNT_OF(ways));
    assert_true(fake()->operations > 100);
    assert_int_equal(fake()->inits, fake()->destroyed);
    assert_int_equal(fake()->aborted, 0);
#endif
}

#ifdef WITAN_EMULATED

/* A small model over two ranks. */
static enum status try_two(struct run *r, struct error *err)
{
    char dir[64];
    struct shape s = {.flags = "--hidden 64 --layers 1 --heads 2 --kv-heads 1 --head-dim 32 "
                               "--experts 4 --top-k 2 --moe-intermediate 128",
                      .vocab = 64};
    struct ask asks[1];
    make_model(&s, dir);
    make_asks(asks, 1, s.vocab);
    r->shape = &s;
    r->layout = (struct layout){1, 2, 1, 0};
    r->asks = asks;
    r->ask_count = 1;
    enum status st = try_it(r, err);
    run_fini(r);
    remove_model(&s);
    return st;
}

/* The stream never runs a sum: every rank gives up in time, says so, and comes down. */
static void a_step_that_hangs(void **state)
{
    struct error err;
    (void)state;
    struct run r = {.cuda = gpus(2), .collectives = "nccl"};
    fake()->stream_hangs = true;
    fake()->at = 4 + 1; /* after those that try the ranks, and the first step's first */
    assert_int_equal(try_two(&r, &err), ERR_PEER);
    assert_non_null(strstr(err.msg, "has not finished a stage of this step within 1 s"));
    assert_non_null(strstr(err.msg, "an all-gather of"));
    assert_int_equal(fake()->aborted, 2);
    assert_int_equal(fake()->destroyed, 0);
}

/* Found before anything is served. */
static void sums_that_are_wrong(void **state)
{
    struct error err;
    (void)state;
    struct run r = {.cuda = gpus(2), .collectives = "nccl"};
    fake()->sums_wrong = true;
    assert_int_equal(try_two(&r, &err), ERR_IO);
    assert_non_null(strstr(err.msg, "the sum of ones of 2 ranks: expected 2, found 3"));
    assert_int_equal(fake()->inits, fake()->destroyed + fake()->aborted);
}

/* Refused, and nothing of it is left: this thread can start again. */
static void a_recording_that_fails(void **state)
{
    struct error err;
    (void)state;
    struct run r = {.cuda = gpus(2), .collectives = "nccl"};
    fake()->record_fails = true;
    assert_int_equal(try_two(&r, &err), ERR_PEER);
    assert_non_null(strstr(err.msg, "NCCL: an all-reduce among the 2 ranks of its stage"));
    fake()->record_fails = false;
    if (try_two(&r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(r.answers[0].count, 3);
}

static int older_on_one(int device, struct cuda_device_info *out)
{
    int e = many_info(device, out);
    out->driver = device == 1 ? 12020 : 12030;
    return e;
}

/* No rank records where one cannot: the others' steps would have other rows. */
static void an_older_driver_on_one_rank(void **state)
{
    struct error err;
    (void)state;
    struct cuda_plugin p = *gpus(2);
    p.device_info = older_on_one;
    struct run r = {.cuda = &p, .collectives = "nccl"};
    if (try_two(&r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(r.answers[0].count, 3);
    assert_int_equal(r.nodes[1], 0);
    r.cuda = gpus(2);
    if (try_two(&r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_true(r.nodes[1] > 0);
}

/* Without NCCL, or with GPUs that it cannot serve: refused, or by way of the host. */
static void collectives_that_do_not_serve(void **state)
{
    static const struct {
        const char *library, *words;
        bool shared; /* all ranks on one GPU */
        enum status refused;
    } cases[] = {
        {"/nowhere/libnccl.so.2", "NCCL cannot be loaded", false, ERR_NOT_FOUND},
        {NULL, "under both rank 0", true, ERR_UNSUPPORTED},
    };
    struct error err;
    (void)state;
    log_set_level(LOG_ERROR);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct run r = {.cuda = cases[i].shared ? plugin() : gpus(2),
                        .collectives = "nccl",
                        .library = cases[i].library};
        assert_int_equal(try_two(&r, &err), cases[i].refused);
        assert_non_null(strstr(err.msg, cases[i].words));
        r.collectives = "auto";
        if (try_two(&r, &err) != OK)
            fail_msg("%s", err.msg);
        assert_int_equal(r.answers[0].count, 3);
        assert_int_equal(fake()->inits, 0);
    }
}

static void auto_takes_nccl(void **state)
{
    struct error err;
    (void)state;
    struct run r = {.cuda = gpus(2), .collectives = "auto"};
    if (try_two(&r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(r.answers[0].count, 3);
    assert_int_equal(fake()->inits, 2);
    /* On two ranks: two sums and two gathers that try them, and three steps of three and a gather,
     * each once, whether it was recorded or not. */
    assert_int_equal(fake()->operations, 2 * (2 + 2 + 3 * (3 + 1)));
}

#endif

/* A step of three rows, and what is recorded of one, two and three: so many launches a layer, and
 * besides: embed, angles, the last norm, logits. Two draw, not recorded, and five more where a
 * request asks for top_k or top_p. */
static void launches_of_a_step(void **state)
{
    (void)state;
    static const struct {
        const char *flags;
        int32_t layers, each, fixed;
        bool cuts;
    } cases[] = {{"--hidden 64 --layers 2 --heads 4 --kv-heads 2 --head-dim 32 --experts 8 "
                  "--top-k 2 --moe-intermediate 128",
                  2, 7, 4, true},
                 {"--hidden 64 --layers 3 --heads 4 --kv-heads 2 --head-dim 32 --experts 8 "
                  "--top-k 2 --moe-intermediate 64 --dense 2", /* and the route of both of them */
                  3, 7, 4 + 1, false}};
    enum { DRAW = 2, CUTS = 5 };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char dir[64];
        struct shape s = {.flags = cases[i].flags, .vocab = 256};
        struct ask asks[MAX_SEQS];
        make_model(&s, dir);
        make_asks(asks, MAX_SEQS, s.vocab);
        if (!cases[i].cuts)
            asks[1].sampling = asks[0].sampling;
        struct run r = {.shape = &s,
                        .cuda = plugin(),
                        .layout = {1, 1, 1, 0},
                        .asks = asks,
                        .ask_count = MAX_SEQS};
        run_it(&r);
        assert_int_equal(r.steps, 3);
        for (int32_t rows = 1; rows <= MAX_SEQS; rows++)
            assert_int_equal(r.nodes[rows], cases[i].layers * cases[i].each + cases[i].fixed);
        for (int32_t step = 1; step < r.steps; step++)
            if (simt_launches() > 0)
                assert_int_equal(r.launches[step], cases[i].layers * cases[i].each +
                                                       cases[i].fixed + DRAW +
                                                       (cases[i].cuts ? CUTS : 0));
        run_fini(&r);
        remove_model(&s);
    }
}

/* What a decode step gave from its recording, against the same positions in a prompt. */
static void recorded_steps_give_the_same_bits(void **state)
{
    (void)state;
    static const struct {
        struct layout layout;
        const char *collectives;
        int32_t segments;
    } ways[] = {
        {{1, 1, 1, 0}, "staged", 1},
        /* Cut by every sum of 2 layers, and where logits are gathered. */
        {{1, 2, 1, 0}, "staged", 2 * 2 + 1 + 1 + 1},
        {{2, 1, 1, 0}, "staged", 2},
        {{1, 2, 1, 0}, "nccl", 1}, /* which holds the sums and the gather */
        {{2, 1, 2, 0}, "nccl", 1},
    };
    char dir[64];
    struct shape s = {.flags = eight_experts, .vocab = 200};
    make_model(&s, dir);
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        struct ask asks[MAX_SEQS], longer[MAX_SEQS];
        bool nccl = strcmp(ways[i].collectives, "nccl") == 0;
        const struct cuda_plugin *cuda = nccl ? gpus(ranks_of(&ways[i].layout)) : plugin();
        if (!cuda)
            continue;
        make_asks(asks, MAX_SEQS, s.vocab);
        for (int32_t k = 0; k < MAX_SEQS; k++)
            asks[k].max_tokens = 3 + 3 * k; /* steps of three sequences, of two and of one */
        struct run decode = {.shape = &s,
                             .cuda = cuda,
                             .collectives = ways[i].collectives,
                             .layout = ways[i].layout,
                             .asks = asks,
                             .ask_count = MAX_SEQS};
        run_it(&decode);
        assert_int_equal(decode.segments, ways[i].segments);
        for (int32_t k = 0; k < MAX_SEQS; k++) {
            const struct answer *a = &decode.answers[k];
            assert_true(decode.nodes[k + 1] > 0);
            assert_int_equal(a->count, asks[k].max_tokens);
            longer[k] = asks[k];
            for (int32_t t = 0; t + 1 < a->count; t++)
                longer[k].prompt[longer[k].prompt_len++] = a->drawn[t];
            longer[k].max_tokens = 1;
            struct run prompt = decode;
            prompt.asks = &longer[k];
            prompt.ask_count = 1;
            run_it(&prompt);
            const struct answer *b = &prompt.answers[0];
            assert_int_equal(b->drawn[0], a->drawn[a->count - 1]);
            for (int32_t p = 0; p < longer[k].prompt_len; p++)
                assert_memory_equal(a->logits + p * s.vocab, b->logits + p * s.vocab,
                                    (size_t)s.vocab * sizeof *a->logits);
            run_fini(&prompt);
        }
        run_fini(&decode);
    }
    remove_model(&s);
}

/* Tokens that stay on the device until the next step has begun with them, and sequences given up
 * while a step feeds them. */
static void steps_ahead_draw_the_same_tokens(void **state)
{
    (void)state;
    static const struct layout layouts[] = {{1, 1, 1, 0}, {1, 2, 2, 0}, {2, 1, 1, 0}};
    char dir[64];
    struct shape s = {.flags = "--hidden 64 --layers 2 --heads 4 --kv-heads 2 --head-dim 32 "
                               "--experts 8 --top-k 2 --moe-intermediate 128",
                      .vocab = 200};
    struct ask asks[MAX_SEQS];
    make_model(&s, dir);
    make_asks(asks, MAX_SEQS, s.vocab);
    for (int32_t k = 0; k < MAX_SEQS; k++)
        asks[k].max_tokens = 9 - 2 * k;
    struct run waits = {
        .shape = &s, .cuda = plugin(), .layout = {1, 1, 1, 0}, .asks = asks, .ask_count = MAX_SEQS};
    run_it(&waits);
    for (size_t i = 0; i < COUNT_OF(layouts); i++)
        for (int32_t give_up = 0; give_up < 5; give_up += 4) {
            struct run r = waits;
            r.layout = layouts[i];
            r.ahead = true;
            r.cancel_after = give_up;
            run_it(&r);
            for (int32_t k = 0; k < MAX_SEQS; k++) {
                const struct answer *a = &r.answers[k], *b = &waits.answers[k];
                bool given_up = k == 0 && give_up > 0;
                assert_int_equal(a->finish, given_up ? FINISH_CANCELLED : FINISH_LENGTH);
                assert_true(given_up ? a->count >= 2 && a->count < b->count : a->count == b->count);
                assert_memory_equal(a->drawn, b->drawn, (size_t)a->count * sizeof *a->drawn);
            }
            run_fini(&r);
        }
    run_fini(&waits);
    remove_model(&s);
}

/* Several tokens of a sequence drawn in one step, more than there are sequences; a vocabulary of
 * three repeats itself soon. */
static void guesses_draw_the_same_tokens(void **state)
{
    (void)state;
    static const struct layout layouts[] = {{1, 1, 1, 0}, {1, 2, 2, 0}};
    char dir[64];
    struct shape s = {.flags = "--hidden 64 --layers 2 --heads 4 --kv-heads 2 --head-dim 32 "
                               "--experts 8 --top-k 2 --moe-intermediate 128",
                      .vocab = 200};
    struct ask asks[MAX_SEQS];
    make_model(&s, dir);
    make_asks(asks, MAX_SEQS, s.vocab);
    for (int32_t k = 0; k < MAX_SEQS; k++)
        asks[k].max_tokens = 24;
    struct run plain = {.shape = &s,
                        .cuda = plugin(),
                        .layout = {1, 1, 1, 0},
                        .asks = asks,
                        .ask_count = MAX_SEQS,
                        .ahead = true,
                        .vocab_limit = 3};
    run_it(&plain);
    for (size_t i = 0; i < COUNT_OF(layouts); i++) {
        struct run r = plain;
        r.layout = layouts[i];
        r.speculate = 5;
        run_it(&r);
        fprintf(stderr, "%d of %d guesses right\n", (int)r.stats.guessed_right,
                (int)r.stats.guessed);
        assert_true(r.stats.guessed_right > 3 && r.stats.guessed > r.stats.guessed_right + 3);
        for (int32_t k = 0; k < MAX_SEQS; k++) {
            const struct answer *a = &r.answers[k], *b = &plain.answers[k];
            assert_int_equal(a->count, b->count);
            assert_memory_equal(a->drawn, b->drawn, (size_t)a->count * sizeof *a->drawn);
        }
        run_fini(&r);
    }
    run_fini(&plain);
    remove_model(&s);
}

/* clang-format off */
static const struct CMUnitTest tests[] = {
    cmocka_unit_test(near_the_cpu),
    cmocka_unit_test(the_same_bits),
    cmocka_unit_test(quantised_fp8),
    cmocka_unit_test(quantised_gptq),
    cmocka_unit_test(quantised_awq),
    cmocka_unit_test(quantised_in_activation_order),
    cmocka_unit_test(the_same_bits_by_nccl),
    cmocka_unit_test(launches_of_a_step),
    cmocka_unit_test(recorded_steps_give_the_same_bits),
    cmocka_unit_test(steps_ahead_draw_the_same_tokens),
    cmocka_unit_test(guesses_draw_the_same_tokens),
#ifdef WITAN_EMULATED
    cmocka_unit_test(a_step_that_hangs),
    cmocka_unit_test(sums_that_are_wrong),
    cmocka_unit_test(a_recording_that_fails),
    cmocka_unit_test(an_older_driver_on_one_rank),
    cmocka_unit_test(collectives_that_do_not_serve),
    cmocka_unit_test(auto_takes_nccl),
#endif
};
/* clang-format on */

UNIT_MAIN(tests)
