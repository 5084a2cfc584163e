/*
 * Requests together in a KV cache that is too small for them, sharing what they begin with and
 * giving way to one another, draw the tokens that each draws alone; with tokens guessed ahead too,
 * with weights and a KV cache of fewer bits, and going on behind what another engine has drawn.
 * Ranks are threads here.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "tests/unit/random.h"
#include "worker/engine.h"

enum { REQUESTS = 40, MOST = 400, SYSTEM = 130, FEW = 5 /* tokens: random weights repeat them */ };

struct ask {
    int32_t prompt[MOST];
    int32_t prompt_len, max_tokens;
    struct sampling sampling;
    struct shaping shaping;
    int32_t logprobs, prompt_logprobs;
    int32_t scored; /* tokens, each once and in order */
    float score[MOST];
    int32_t rank[MOST], first[MOST]; /* and the likeliest there */
    int32_t ids[MOST];
    int32_t count;
    int32_t answered, prompt_told; /* of these and of the prompt's scores: told by another engine */
    enum finish finish;
};

struct run {
    const char *dir;
    struct layout layout;
    enum weight_mode weights;
    enum kv_dtype kv;
    int32_t speculate, vocab_limit;
    bool alone; /* one after the other, nothing kept */
    int32_t kv_blocks;
    const struct run
        *broken; /* whose requests this one goes on with, in their middle; NULL: none */
    struct ask asks[REQUESTS];
    struct engine_stats stats;
    struct engine_load load;
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct ask *a = user;
    if (token >= 0 && a->count < MOST)
        a->ids[a->count++] = token;
    a->finish = finish;
}

static void on_logprobs(void *user, int32_t pos, const struct logprobs *l)
{
    struct ask *a = user;
    bool prompt = pos < a->prompt_len;
    int32_t top = (prompt ? a->prompt_logprobs : a->logprobs) - 1;
    if (a->scored == 0)
        a->scored = a->prompt_logprobs > 0 ? 1 : a->prompt_len;
    CHECK(pos == a->scored && l->count == top && pos < MOST, "position %d, expected %d", pos,
          a->scored);
    CHECK(prompt || pos == a->prompt_len + a->count, "position %d before its token", pos);
    a->score[pos] = l->logprob;
    a->rank[pos] = l->rank;
    a->first[pos] = l->count > 0 ? l->top[0].id : -1;
    a->scored++;
}

static bool changed; /* some have penalties, some want logprobs: those are not guessed ahead of */
static int32_t known = 250; /* ids in prompts are below */
/* How the model is kept. */
static enum weight_mode weights = WEIGHTS_PUBLISHED;
static enum kv_dtype kv = KV_BF16;

/* Half of them begin with one of two texts; greedy and sampled ones. */
static void make_asks(struct run *r)
{
    uint64_t rng = 11;
    for (int32_t i = 0; i < REQUESTS; i++) {
        struct ask *a = &r->asks[i];
        bool begins = random_int(&rng, 0, 1);
        int32_t text = random_int(&rng, 0, 1);
        a->prompt_len = (begins ? SYSTEM : 0) + random_int(&rng, 1, 60);
        a->max_tokens = random_int(&rng, 1, 170);
        for (int32_t k = 0; k < a->prompt_len; k++)
            a->prompt[k] = begins && k < SYSTEM ? (text * 37 + k * 13) % known
                                                : random_int(&rng, 0, known - 1);
        a->sampling = (struct sampling){.top_p = 1.0f};
        if (i % 2)
            a->sampling = (struct sampling){
                .temperature = 0.8f, .top_p = 0.95f, .top_k = 50, .seed = (uint64_t)i};
        if (!changed)
            continue;
        if (i % 3 == 0)
            a->shaping = (struct shaping){.repetition_penalty = 1.3f,
                                          .presence_penalty = 0.5f,
                                          .frequency_penalty = i % 2 ? 0.2f : -0.1f};
        a->logprobs = i % 4 == 0 ? 1 + i % 7 : 0;
        a->prompt_logprobs = i % 5 == 0 ? 1 + i % 3 : 0;
    }
}

/* As if `from` had been lost after some tokens of each; of every sixth in the middle of its prompt.
 */
static void break_off(struct ask *a, const struct ask *from, int32_t i)
{
    a->answered = i % 6 == 0 ? 0 : from->max_tokens * (i % 7) / 7;
    bool begun = a->answered == 0 && a->prompt_logprobs > 0;
    a->prompt_told = begun ? 1 + a->prompt_len * (i % 4) / 4 : 0;
    a->count = a->answered;
    memcpy(a->ids, from->ids, (size_t)a->answered * sizeof *a->ids);
    a->scored = begun ? a->prompt_told : a->answered > 0 ? a->prompt_len + a->answered : 0;
    if (a->logprobs == 0 && a->answered > 0)
        a->scored = from->scored;
    for (int32_t k = 0; k < a->scored; k++) {
        a->score[k] = from->score[k];
        a->rank[k] = from->rank[k];
        a->first[k] = from->first[k];
    }
}

static enum status submit(struct engine *e, struct ask *a, struct error *err)
{
    const struct request q = {.prompt = a->prompt,
                              .prompt_len = a->prompt_len,
                              .max_tokens = a->max_tokens,
                              .answer = a->ids,
                              .answer_len = a->answered,
                              .prompt_told = a->prompt_told,
                              .ignore_eos = true,
                              .sampling = a->sampling,
                              .shaping = a->shaping,
                              .logprobs = a->logprobs,
                              .prompt_logprobs = a->prompt_logprobs,
                              .on_logprobs = on_logprobs,
                              .on_token = on_token,
                              .user = a};
    return engine_submit(e, &q, NULL, err);
}

static enum status lead(struct engine *e, struct run *r, struct error *err)
{
    uint64_t rng = 3;
    bool ran = true;
    for (int32_t i = 0; i < REQUESTS || ran;) {
        for (int32_t n = r->alone ? 1 : random_int(&rng, 0, 3); n > 0 && i < REQUESTS; n--) {
            if (r->broken)
                break_off(&r->asks[i], &r->broken->asks[i], i);
            TRY(submit(e, &r->asks[i++], err));
        }
        do
            TRY(engine_step(e, &ran, err));
        while (r->alone && ran);
    }
    r->stats = *engine_stats(e);
    engine_load(e, &r->load);
    return engine_stop(e, err);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    const struct model_options options = {
        .dir = r->dir,
        .weights = r->weights,
        .layout = r->layout,
        .limits = {.max_rows = 96,
                   .max_logits = 12 * (1 + r->speculate),
                   .max_seqs = 12,
                   .context = MOST,
                   .kv_blocks = r->kv_blocks,
                   .threads = 1,
                   .kv_dtype = r->kv},
        .kernels = "auto",
    };
    const struct engine_options eo = {.no_prefix_cache = r->alone,
                                      .chunk = r->alone ? 0 : 50,
                                      .speculate = r->speculate,
                                      .vocab_limit = r->vocab_limit};
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK && world->rank == 0) {
        st = lead(e, r, err);
    } else if (st == OK) {
        enum engine_left ignored;
        st = engine_follow(e, &ignored, err);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void run(struct run *r, const char *dir, struct layout layout, bool alone, int32_t speculate,
                int32_t vocab_limit)
{
    struct error err;
    const struct run *broken = r->broken;
    memset(r, 0, sizeof *r);
    r->broken = broken;
    r->dir = dir;
    r->layout = layout;
    r->weights = weights;
    r->kv = kv;
    r->speculate = speculate;
    r->vocab_limit = vocab_limit;
    r->alone = alone;
    r->kv_blocks = alone ? 48 : 8;
    make_asks(r);
    log_set_level(LOG_WARN);
    if (comm_local_run(layout.pp * layout.w, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
}

static void compare(const struct run *a, const struct run *b)
{
    for (int32_t i = 0; i < REQUESTS; i++) {
        assert_int_equal(a->asks[i].count, a->asks[i].max_tokens);
        assert_int_equal(a->asks[i].finish, FINISH_LENGTH);
        assert_int_equal(b->asks[i].count, a->asks[i].count);
        assert_memory_equal(a->asks[i].ids, b->asks[i].ids, sizeof a->asks[i].ids);
        assert_int_equal(a->asks[i].scored, b->asks[i].scored);
        assert_memory_equal(a->asks[i].score, b->asks[i].score, sizeof a->asks[i].score);
        assert_memory_equal(a->asks[i].rank, b->asks[i].rank, sizeof a->asks[i].rank);
        assert_memory_equal(a->asks[i].first, b->asks[i].first, sizeof a->asks[i].first);
    }
}

static void check_small(const struct run *r)
{
    const struct sched_stats *s = &r->stats.sched;
    fprintf(stderr, "%llu preemptions, %llu of %llu tokens found, %llu blocks evicted\n",
            (unsigned long long)s->preempted, (unsigned long long)s->prefix_found,
            (unsigned long long)s->prefix_asked, (unsigned long long)s->evicted);
    assert_true(s->preempted >= 3 && s->prefix_found >= 10 * 64 && s->evicted >= 10);
    assert_int_equal(s->prompt_rows + s->decode_rows, r->stats.rows);
    assert_int_equal(r->load.kv_blocks_free, r->load.kv_blocks);
    assert_in_range(r->load.kv_blocks_cached, 1, r->load.kv_blocks);
}

static const char odd[] = WITAN_SOURCE_DIR "/tests/golden/oracle/odd";
static const char dense[] = WITAN_SOURCE_DIR "/tests/golden/oracle/dense";
static const char lexicon[] = WITAN_SOURCE_DIR "/deploy/lexicon/model";
static const char gptq[] = WITAN_SOURCE_DIR "/tests/golden/quantised/gptq";
static const char fp8[] = WITAN_SOURCE_DIR "/tests/golden/quantised/fp8";
static const struct layout one = {1, 1, 1, 1}, two = {1, 2, 2, 2}, stages = {2, 1, 1, 1};

static void a_small_cache_changes_no_token(void **state)
{
    (void)state;
    static struct run alone, small;
    changed = true;
    run(&alone, odd, one, true, 0, 0);
    assert_int_equal(alone.stats.sched.preempted, 0);
    assert_int_equal(alone.stats.sched.prefix_found, 0);
    run(&small, odd, one, false, 0, 0);
    check_small(&small);
    compare(&alone, &small);
    run(&small, odd, two, false, 0, 0);
    check_small(&small);
    compare(&alone, &small);
    run(&small, odd, stages, false, 0, 0);
    check_small(&small);
    compare(&alone, &small);
    changed = false;
}

static void an_answer_goes_on_elsewhere(void **state)
{
    (void)state;
    static struct run whole, rest;
    changed = true;
    run(&whole, odd, one, true, 0, 0);
    rest.broken = &whole;
    run(&rest, odd, one, false, 0, 0);
    compare(&whole, &rest);
    assert_true(rest.stats.sched.drawn < whole.stats.sched.drawn * 3 / 4);
    run(&rest, odd, two, false, 0, 0);
    compare(&whole, &rest);
    changed = false;
    run(&whole, odd, one, true, 0, FEW);
    run(&rest, odd, stages, false, 3, FEW); /* guesses look at what was drawn elsewhere too */
    compare(&whole, &rest);
    rest.broken = NULL;
}

static void check_guesses(const struct run *alone, const struct run *r, uint64_t least_right)
{
    const struct sched_stats *s = &r->stats.sched;
    fprintf(stderr, "%llu of %llu guesses right, %llu steps\n",
            (unsigned long long)s->guessed_right, (unsigned long long)s->guessed,
            (unsigned long long)r->stats.steps);
    assert_true(s->guessed_right >= least_right && s->guessed >= s->guessed_right + 10);
    check_small(r);
    compare(alone, r);
}

static void guesses_change_no_token(void **state)
{
    (void)state;
    static struct run alone, guessing;
    run(&alone, odd, one, true, 0, FEW);
    assert_int_equal(alone.stats.sched.guessed, 0);
    run(&guessing, odd, one, false, 4, FEW);
    check_guesses(&alone, &guessing, 100);
    run(&guessing, odd, two, false, 15, FEW);
    check_guesses(&alone, &guessing, 100);
    run(&guessing, odd, stages, false, 1, FEW);
    check_guesses(&alone, &guessing, 100);
    run(&alone, dense, one, true, 0, FEW);
    run(&guessing, dense, two, false, 7, FEW);
    check_guesses(&alone, &guessing, 100);
}

static void guesses_change_no_token_of_lexicon(void **state)
{
    (void)state;
    static struct run alone, guessing;
    run(&alone, lexicon, one, true, 0, 0);
    run(&guessing, lexicon, one, false, 5, 0);
    check_guesses(&alone, &guessing, 100);
    run(&guessing, lexicon, two, false, 15, 0);
    check_guesses(&alone, &guessing, 100);
}

/* Every matrix of these becomes panels. */
static void check_panels(const char *dir, enum weight_mode mode)
{
    static struct run alone, small;
    known = 128;
    weights = mode;
    changed = true;
    run(&alone, dir, one, true, 0, 0);
    assert_int_equal(alone.stats.sched.preempted, 0);
    run(&small, dir, one, false, 0, 0);
    check_small(&small);
    compare(&alone, &small);
    run(&small, dir, two, false, 0, 0);
    check_small(&small);
    compare(&alone, &small);
    changed = false;
    kv = KV_INT8;
    run(&alone, dir, one, true, 0, FEW);
    run(&small, dir, one, false, 4, FEW);
    check_guesses(&alone, &small, 100);
    run(&small, dir, stages, false, 7, FEW);
    check_guesses(&alone, &small, 100);
    kv = KV_BF16;
    weights = WEIGHTS_PUBLISHED;
    known = 250;
}

static void int8_weights_change_no_token(void **state)
{
    (void)state;
    check_panels(gptq, WEIGHTS_INT8);
}

static void int4_weights_change_no_token(void **state)
{
    (void)state;
    check_panels(fp8, WEIGHTS_INT4);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_small_cache_changes_no_token),
    cmocka_unit_test(an_answer_goes_on_elsewhere),
    cmocka_unit_test(guesses_change_no_token),
    cmocka_unit_test(guesses_change_no_token_of_lexicon),
    cmocka_unit_test(int8_weights_change_no_token),
    cmocka_unit_test(int4_weights_change_no_token),
};

UNIT_MAIN(tests)
