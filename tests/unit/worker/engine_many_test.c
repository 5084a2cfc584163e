/*
 * Many requests at once, of every length and sampling, arriving at random in a cache that is far
 * too small for them, some cancelled: each is told what it is told alone. Alone is an engine that
 * has room for one sequence, whole prompts in one step, and keeps nothing of what has ended.
 *
 * Compared are token ids and, bit for bit, logits and log probabilities where a request wants them,
 * each with its position, so that one too many or one too few shows as well.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/random.h"
#include "worker/engine.h"

#include <sys/stat.h>

enum {
    REQUESTS = 500,
    LONGEST = 2000, /* prompt and answer */
    PREFIXES = 8,
    TENANTS = 4,
    BIASES = 6,
    STOPS = 16,
    VOCAB = 512,
};

/* What a request is told. */
struct heard {
    int32_t *ids; /* [max_tokens], the job's or its twin's */
    int32_t count;
    int32_t finishes;
    enum finish finish;
    int32_t cached;    /* -1: never started */
    uint64_t logits;   /* hash of all that on_logits was given */
    uint64_t logprobs; /* and on_logprobs */
    int32_t logprob_count;
};

struct job {
    struct request request; /* without callbacks */
    int32_t *prompt;
    struct logit_bias bias[BIASES];
    int32_t stop_ids[STOPS];
    bool wants_logits;
    int32_t cancel_after; /* tokens that it draws before; -1: it is not cancelled */
    int32_t pause;        /* steps from the arrival before to its own */
    struct heard alone, together;
};

/* One run of all jobs. */
struct run {
    struct job *jobs;
    int32_t count, vocab;
    uint64_t seed;
    const char *dir;
    bool random_weights, alone;
    struct layout layout;
    int32_t threads, kv_blocks, max_seqs, max_rows, chunk, stall_ms, speculate;
    struct heard *current; /* alone: whose turn it is */
    struct engine_stats stats;
    struct engine_load load; /* at the end */
};

/* --- what requests ask ------------------------------------------------------------------------ */

/* 1 to `most`, as many of each magnitude. */
static int32_t log_uniform(uint64_t *state, int32_t most)
{
    int32_t below = 1;
    while (below < most && random_int(state, 0, 3) != 0)
        below *= 2;
    return random_int(state, 1, below < most ? below : most);
}

/* What many prompts begin with, 70 to 1500 tokens. */
struct prefixes {
    int32_t length[PREFIXES];
    int32_t ids[PREFIXES][LONGEST];
};

static void make_prefixes(struct prefixes *p, uint64_t *state, int32_t vocab)
{
    for (int32_t i = 0; i < PREFIXES; i++) {
        p->length[i] = i == 0 ? 1500 : random_int(state, 70, 260);
        for (int32_t k = 0; k < p->length[i]; k++)
            p->ids[i][k] = random_int(state, 0, vocab - 1);
    }
}

/* Those that arrive near each other mostly share one. */
static int32_t prefix_of(int32_t i, uint64_t *state)
{
    return random_int(state, 0, 9) == 0 ? random_int(state, 0, PREFIXES - 1) : i / 40 % PREFIXES;
}

static void make_prompt(struct job *j, int32_t i, const struct prefixes *p, uint64_t *state,
                        int32_t vocab)
{
    int32_t length = j->request.prompt_len, shared = 0;
    j->prompt = check_calloc((size_t)length, sizeof *j->prompt);
    if (random_int(state, 0, 7) != 0) {
        int32_t of = prefix_of(i, state);
        shared = p->length[of] < length ? p->length[of] : length;
        memcpy(j->prompt, p->ids[of], (size_t)shared * sizeof *j->prompt);
    }
    for (int32_t k = shared; k < length; k++)
        j->prompt[k] = random_int(state, 0, vocab - 1);
    j->request.prompt = j->prompt;
}

static void make_sampling(struct sampling *s, uint64_t *state)
{
    static const float temperatures[] = {0, 0, 0.5f, 0.7f, 1, 1, 1.5f, 3};
    static const float top_ps[] = {1, 1, 0.95f, 0.5f};
    static const float min_ps[] = {0, 0, 0.02f, 0.2f};
    static const int32_t top_ks[] = {0, 0, 1, 7, 40};
    *s = (struct sampling){.temperature = temperatures[random_int(state, 0, 7)],
                           .top_p = top_ps[random_int(state, 0, 3)],
                           .min_p = min_ps[random_int(state, 0, 3)],
                           .top_k = top_ks[random_int(state, 0, 4)],
                           .seed = random_u64(state)};
}

/* No id twice. */
static void make_biases(struct job *j, uint64_t *state, int32_t vocab)
{
    int32_t stride = vocab / BIASES;
    for (int32_t i = 0; i < BIASES; i++)
        j->bias[i] = (struct logit_bias){.id = i * stride + random_int(state, 0, stride - 1),
                                         .bias = i == 0 ? -100 : random_float(state, 8)};
    j->request.shaping.bias = j->bias;
    j->request.shaping.bias_count = BIASES;
}

static void make_shaping(struct job *j, uint64_t *state, int32_t vocab)
{
    struct shaping *s = &j->request.shaping;
    if (random_int(state, 0, 3) == 0)
        s->repetition_penalty = random_int(state, 0, 1) ? 1.3f : 0.8f;
    if (random_int(state, 0, 3) == 0)
        s->presence_penalty = random_float(state, 2);
    if (random_int(state, 0, 3) == 0)
        s->frequency_penalty = random_float(state, 2);
    if (random_int(state, 0, 4) == 0)
        s->min_tokens = random_int(state, 1, 8) < j->request.max_tokens ? random_int(state, 1, 8)
                                                                        : 0;
    if (random_int(state, 0, 4) == 0)
        make_biases(j, state, vocab);
    if (random_int(state, 0, 4) != 0)
        return;
    for (int32_t i = 0; i < STOPS; i++)
        j->stop_ids[i] = random_int(state, 0, vocab - 1);
    s->stop_ids = j->stop_ids;
    s->stop_id_count = STOPS;
}

/* Waves of short prompts with long answers, which are let in and then want more blocks than there
 * are; between them those that share prefixes. */
static bool grows(int32_t i)
{
    return i / 30 % 2 == 1;
}

/* The first few stand at the ends of what is allowed. */
static void make_lengths(struct job *j, int32_t i, uint64_t *state)
{
    static const int32_t ends[][2] = {{1, 1},      {LONGEST - 1, 1}, {1, LONGEST - 1},
                                      {1500, 500}, {LONGEST, 0},     {1, 0}};
    struct request *r = &j->request;
    if (i < (int32_t)COUNT_OF(ends)) {
        r->prompt_len = ends[i][0];
        r->max_tokens = ends[i][1];
        return;
    }
    if (i % 25 == 0) {
        r->prompt_len = random_int(state, 1, LONGEST - 100);
        r->max_tokens = log_uniform(state, 100);
    } else if (grows(i)) {
        r->prompt_len = random_int(state, 1, 180);
        r->max_tokens = random_int(state, 150, 600);
    } else {
        r->prompt_len = random_int(state, 0, 3) ? random_int(state, 100, 400)
                                                : log_uniform(state, 100);
        r->max_tokens = log_uniform(state, 100);
    }
}

static void make_job(struct job *j, int32_t i, const struct prefixes *p, uint64_t *state,
                     int32_t vocab)
{
    struct request *r = &j->request;
    make_lengths(j, i, state);
    make_prompt(j, i, p, state, vocab);
    make_sampling(&r->sampling, state);
    if (i % 2)
        make_shaping(j, state, vocab);
    r->ignore_eos = grows(i) || random_int(state, 0, 1) == 1;
    r->tenant = (uint64_t)random_int(state, 1, TENANTS);
    r->prefix_domain = r->tenant % 2; /* tenants 1 and 3 share */
    r->priority = random_int(state, 0, 5) == 0 ? random_int(state, -1, 1) : 0;
    r->logprobs = random_int(state, 0, 4) == 0 ? random_int(state, 1, 6) : 0;
    r->prompt_logprobs = random_int(state, 0, 9) == 0 ? random_int(state, 1, 4) : 0;
    j->wants_logits = random_int(state, 0, 3) == 0;
    r->all_logits = j->wants_logits && random_int(state, 0, 3) == 0;
    j->cancel_after = i >= 8 && random_int(state, 0, 11) == 0
                          ? random_int(state, 0, r->max_tokens < 40 ? r->max_tokens : 40)
                          : -1;
    j->pause = !grows(i) && random_int(state, 0, 3) == 0 ? random_int(state, 1, 24) : 0;
    j->alone.ids = check_calloc((size_t)r->max_tokens + 1, sizeof(int32_t));
    j->together.ids = check_calloc((size_t)r->max_tokens + 1, sizeof(int32_t));
}

static struct job *make_jobs(uint64_t seed, int32_t count, int32_t vocab)
{
    struct job *jobs = check_calloc((size_t)count, sizeof *jobs);
    struct prefixes *p = check_calloc(1, sizeof *p);
    make_prefixes(p, &seed, vocab);
    for (int32_t i = 0; i < count; i++)
        make_job(&jobs[i], i, p, &seed, vocab);
    free(p);
    return jobs;
}

static void free_jobs(struct job *jobs, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        free(jobs[i].prompt);
        free(jobs[i].alone.ids);
        free(jobs[i].together.ids);
    }
    free(jobs);
}

/* --- what they are told ----------------------------------------------------------------------- */

/* FNV-1a, 64 bits. */
static void mix(uint64_t *hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        *hash = (*hash ^ p[i]) * UINT64_C(1099511628211);
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct heard *h = user;
    CHECK(h->finishes == 0, "a token after the end");
    if (token >= 0)
        h->ids[h->count++] = token;
    if (finish != FINISH_NONE)
        h->finishes++;
    h->finish = finish;
}

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct heard *h = user;
    mix(&h->logits, &pos, sizeof pos);
    mix(&h->logits, logits, (size_t)vocab * sizeof *logits);
}

static void on_logprobs(void *user, int32_t pos, const struct logprobs *l)
{
    struct heard *h = user;
    h->logprob_count++;
    mix(&h->logprobs, &pos, sizeof pos);
    mix(&h->logprobs, &l->logprob, sizeof l->logprob);
    mix(&h->logprobs, &l->rank, sizeof l->rank);
    mix(&h->logprobs, &l->count, sizeof l->count);
    for (int32_t i = 0; i < l->count; i++) {
        mix(&h->logprobs, &l->top[i].id, sizeof l->top[i].id);
        mix(&h->logprobs, &l->top[i].logprob, sizeof l->top[i].logprob);
    }
}

static void on_start(void *user, int32_t cached)
{
    struct heard *h = user;
    CHECK(h->cached == -1, "it starts twice");
    h->cached = cached;
}

static enum status submit(struct engine *e, const struct job *j, struct heard *h, uint64_t *id,
                          struct error *err)
{
    struct request r = j->request;
    h->cached = -1;
    r.on_token = on_token;
    r.on_start = on_start;
    r.on_logits = j->wants_logits ? on_logits : NULL;
    r.on_logprobs = r.logprobs > 0 || r.prompt_logprobs > 0 ? on_logprobs : NULL;
    r.user = h;
    return engine_submit(e, &r, id, err);
}

/* --- running them ----------------------------------------------------------------------------- */

/* Each when the one before has ended. */
static enum status run_alone(struct run *r, struct engine *e, struct error *err)
{
    for (int32_t i = 0; i < r->count; i++) {
        TRY(submit(e, &r->jobs[i], &r->jobs[i].alone, NULL, err));
        for (bool ran = true; ran;)
            TRY(engine_step(e, &ran, err));
    }
    return OK;
}

/* Those whose time has come: it does before their first token, too. */
static void cancel_due(const struct run *r, struct engine *e, const uint64_t *ids, int32_t arrived)
{
    for (int32_t i = 0; i < arrived; i++) {
        const struct job *j = &r->jobs[i];
        if (j->cancel_after >= 0 && j->together.finishes == 0 &&
            j->together.count >= j->cancel_after)
            CHECK(engine_cancel(e, ids[i]), "request %d cannot be cancelled", i);
    }
}

static enum status run_together(struct run *r, struct engine *e, struct error *err)
{
    uint64_t ids[REQUESTS];
    int32_t arrived = 0, pause = 0;
    for (bool ran = true; ran || arrived < r->count;) {
        while (arrived < r->count && (pause <= 0 || !ran)) {
            struct job *j = &r->jobs[arrived];
            TRY(submit(e, j, &j->together, &ids[arrived], err));
            arrived++;
            ran = true;
            pause = arrived < r->count ? r->jobs[arrived].pause : 0;
        }
        pause--;
        TRY(engine_step(e, &ran, err));
        cancel_due(r, e, ids, arrived);
    }
    return OK;
}

static enum status lead(struct run *r, struct engine *e, struct error *err)
{
    TRY(r->alone ? run_alone(r, e, err) : run_together(r, e, err));
    r->stats = *engine_stats(e);
    engine_load(e, &r->load);
    return engine_stop(e, err);
}

/* Nobody has anything any more, and nothing is kept. */
static void check_wiped(const struct kv_cache *kv)
{
    uint64_t bytes = (uint64_t)kv->layers * (uint64_t)kv->blocks * (uint64_t)kv->heads * 2 *
                     kv_tile_bytes(kv->dtype, kv->row);
    for (uint64_t i = 0; i < bytes; i++)
        CHECK(kv->data[i] == 0, "byte %llu of the KV cache is not wiped", (unsigned long long)i);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    enum engine_left why;
    const struct model_options options = {
        .dir = r->dir,
        .random_weights = r->random_weights,
        .layout = r->layout,
        .limits = {.max_rows = r->max_rows,
                   .max_logits = r->max_rows,
                   .max_seqs = r->max_seqs,
                   .context = LONGEST,
                   .kv_blocks = r->kv_blocks,
                   .threads = r->threads,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct engine_options eo = {.chunk = r->chunk,
                                      .stall_ms = r->stall_ms,
                                      .speculate = r->alone ? 0 : r->speculate,
                                      .no_prefix_cache = r->alone,
                                      .wipe = true};
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK)
        st = world->rank == 0 ? lead(r, e, err) : engine_follow(e, &why, err);
    if (st == OK && r->alone)
        check_wiped(&m->kv);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void run(struct run *r)
{
    struct error err;
    log_set_level(LOG_WARN);
    if (comm_local_run(r->layout.pp * r->layout.w, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_int_equal(r->load.running, 0);
    assert_int_equal(r->load.waiting, 0);
    assert_int_equal(r->load.kv_blocks_free, r->load.kv_blocks);
}

/* --- the comparison --------------------------------------------------------------------------- */

/* For another run. */
static void forget(struct heard *h)
{
    *h = (struct heard){.ids = h->ids};
}

/* One for each token of a prompt but its first, and for each drawn. */
static int32_t logprobs_due(const struct request *r, const struct heard *h)
{
    return (r->prompt_logprobs > 0 ? r->prompt_len - 1 : 0) + (r->logprobs > 0 ? h->count : 0);
}

/* One that was cancelled was told the begin of it. */
static void compare(const struct job *j, int32_t i)
{
    const struct heard *a = &j->alone, *t = &j->together;
    bool cancelled = t->finish == FINISH_CANCELLED;
    assert_int_equal(a->finishes, 1);
    assert_int_equal(t->finishes, 1);
    assert_true(cancelled ? j->cancel_after >= 0 && t->count <= a->count : t->count == a->count);
    for (int32_t k = 0; k < t->count; k++)
        if (t->ids[k] != a->ids[k])
            fail_msg("request %d (%d + %d tokens, %d cached): token %d is %d, alone %d", i,
                     j->request.prompt_len, j->request.max_tokens, t->cached, k, t->ids[k],
                     a->ids[k]);
    if (cancelled)
        return;
    assert_int_equal(t->logprob_count, logprobs_due(&j->request, t));
    assert_int_equal(t->finish, a->finish);
    if (t->logits != a->logits || t->logprobs != a->logprobs ||
        t->logprob_count != a->logprob_count)
        fail_msg("request %d (%d + %d tokens, %d cached): logits %s, %d logprobs %s, alone %d", i,
                 j->request.prompt_len, j->request.max_tokens, t->cached,
                 t->logits == a->logits ? "are the same" : "differ", t->logprob_count,
                 t->logprobs == a->logprobs ? "are the same" : "differ", a->logprob_count);
}

/* Every kind of end and of sampling must have been there. */
static void compare_all(const struct run *r)
{
    int32_t finishes[FINISH_DEADLINE + 1] = {0}, cached = 0;
    for (int32_t i = 0; i < r->count; i++) {
        compare(&r->jobs[i], i);
        finishes[r->jobs[i].together.finish]++;
        cached += r->jobs[i].together.cached > 0;
    }
    printf("%d requests: %d stopped, %d at their length, %d cancelled; %d found a prefix, "
           "%llu of %llu tokens; %llu times one gave way; %llu steps\n",
           r->count, finishes[FINISH_STOP], finishes[FINISH_LENGTH], finishes[FINISH_CANCELLED],
           cached, (unsigned long long)r->stats.sched.prefix_found,
           (unsigned long long)r->stats.sched.prefix_asked,
           (unsigned long long)r->stats.sched.preempted, (unsigned long long)r->stats.steps);
    assert_true(finishes[FINISH_STOP] > 20 && finishes[FINISH_LENGTH] > 100);
    assert_true(finishes[FINISH_CANCELLED] > 15);
    assert_true(r->stats.sched.preempted >= 50 && cached >= 100);
    if (r->speculate > 0) {
        printf("guessed %llu tokens, %llu right\n", (unsigned long long)r->stats.sched.guessed,
               (unsigned long long)r->stats.sched.guessed_right);
        assert_true(r->stats.sched.guessed_right > 100);
        assert_true(r->stats.sched.guessed > r->stats.sched.guessed_right);
    }
}

static const struct layout one = {.pp = 1, .tp = 1, .ep = 1, .w = 1};

static struct run run_of(const char *dir, struct job *jobs, int32_t vocab)
{
    return (struct run){
        .jobs = jobs, .count = REQUESTS, .vocab = vocab, .dir = dir, .layout = one, .threads = 1};
}

static void alone_of(struct run r)
{
    r.alone = true;
    r.kv_blocks = 0;
    r.max_seqs = 1;
    r.max_rows = LONGEST;
    run(&r);
}

/* The pool holds one of the longest and little besides. */
static void together_of(struct run r, struct layout layout, int32_t chunk)
{
    for (int32_t i = 0; i < r.count; i++)
        forget(&r.jobs[i].together);
    r.layout = layout;
    r.kv_blocks = LONGEST / KV_BLOCK + 6;
    r.max_seqs = 24;
    r.max_rows = 192;
    r.chunk = chunk;
    run(&r);
    compare_all(&r);
}

/* --- models ----------------------------------------------------------------------------------- */

/* A tiny model with random weights, whose context is long enough. */
static void write_config(char *dir)
{
    char path[256];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f,
            "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\",\n"
            " \"vocab_size\": %d, \"hidden_size\": 64, \"num_hidden_layers\": 2,\n"
            " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 16,\n"
            " \"num_experts\": 8, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 128,\n"
            " \"intermediate_size\": 128, \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0,\n"
            " \"max_position_embeddings\": 4096, \"hidden_act\": \"silu\",\n"
            " \"decoder_sparse_step\": 1, \"mlp_only_layers\": [], \"norm_topk_prob\": true,\n"
            " \"tie_word_embeddings\": false, \"attention_bias\": false,\n"
            " \"torch_dtype\": \"bfloat16\", \"eos_token_id\": [5, 77, 150, 151, 333, 480]}\n",
            (int)VOCAB);
    assert_int_equal(fclose(f), 0);
}

static void remove_config(const char *dir)
{
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void tiny_model(void **state)
{
    (void)state;
    char dir[] = "/tmp/witan-many-XXXXXX";
    write_config(dir);
    struct job *jobs = make_jobs(20251121, REQUESTS, VOCAB);
    struct run r = run_of(dir, jobs, VOCAB);
    r.random_weights = true;
    alone_of(r);
    together_of(r, one, 0);
    r.speculate = 3;
    together_of(r, one, 50);
    free_jobs(jobs, REQUESTS);
    remove_config(dir);
}

static void check_shipped(uint64_t seed, const struct layout *layouts, int count)
{
    enum { KNOWN = 2756 }; /* ids from here on are special or padding */
    struct job *jobs = make_jobs(seed, REQUESTS, KNOWN);
    struct run r = run_of(WITAN_SOURCE_DIR "/deploy/lexicon/model", jobs, KNOWN);
    alone_of(r);
    for (int i = 0; i < count; i++)
        together_of(r, layouts[i], i % 2 ? 50 : 0);
    free_jobs(jobs, REQUESTS);
}

/* Minutes: with --long alone, as what follows. */
static void shipped_model(void **state)
{
    (void)state;
    check_shipped(6, &one, 1);
}

static void shipped_model_layouts(void **state)
{
    (void)state;
    static const struct layout layouts[] = {{.pp = 1, .tp = 1, .ep = 1, .w = 1},
                                            {.pp = 1, .tp = 2, .ep = 2, .w = 2},
                                            {.pp = 2, .tp = 2, .ep = 1, .w = 2}};
    check_shipped(66, layouts, COUNT_OF(layouts));
    check_shipped(67, layouts, COUNT_OF(layouts));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(tiny_model),
    cmocka_unit_test(shipped_model),
    cmocka_unit_test(shipped_model_layouts),
};

UNIT_MAIN(tests)
