/*
 * What batching, chunked prompts and the prefix cache bring, on an engine of one rank in this
 * process: serving_bench MODEL_DIR [--random-weights] [--answer N] [--requests N] [--uncached N]
 *
 *   batch    tokens a second of 1, 16 and 64 sequences that decode together
 *   stall    the time between two tokens of 8 sequences while prompts of 2000 tokens come: each in
 *            one step, in chunks of 512, and in chunks bounded as stall_ms bounds them
 *   prefix   the time to the first token of requests that share a prompt of 1500 tokens and have 20
 *            of their own, one after the other, with the prefix cache and without
 *   guess    tokens a second of one sequence whose prompt repeats itself, with and without guesses
 *
 * One thread computes, and times are of the processor: other load on the machine touches them
 * little. (The bound itself goes by the wall clock, as it does for those who wait.)
 */
#include "base/check.h"
#include "base/log.h"
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CONTEXT = 2304,
    SHARED = 1500,
    OWN = 20,
    LONG_PROMPT = 2000,
    SHORT_PROMPT = 32,
    DECODING = 8,
    CHUNK = 512,     /* step_tokens of cluster.yaml */
    MAX_ROWS = 2048, /* a long prompt and those that decode beside it */
    PERIOD = 16,     /* of a prompt that repeats itself */
    GUESS_PROMPT = 256,
    STALL_MS = 100, /* of cluster.yaml */
    MAX_GAPS = 1 << 16,
    MAX_SEQS = 64,
};

struct bench {
    const char *dir;
    bool random_weights;
    int32_t answer, requests, uncached;
};

static int64_t now_ns(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0, "no clock of the processor");
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- samples and requests ----------------------------------------------------------------------
 */

struct samples {
    double ms[MAX_GAPS];
    int32_t count;
};

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double percentile(struct samples *s, double p)
{
    qsort(s->ms, (size_t)s->count, sizeof *s->ms, by_size);
    return s->count > 0 ? s->ms[(int32_t)(p * (s->count - 1) + 0.5)] : 0;
}

/* One sequence; `gaps` (may be NULL) takes the time from each of its tokens to the next. */
struct stream {
    int64_t first_ns, last_ns;
    int32_t count;
    bool ended;
    struct samples *gaps;
};

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct stream *s = user;
    int64_t now = now_ns();
    if (token >= 0 && s->count++ == 0)
        s->first_ns = now;
    else if (token >= 0 && s->gaps && s->gaps->count < MAX_GAPS)
        s->gaps->ms[s->gaps->count++] = (double)(now - s->last_ns) * 1e-6;
    s->last_ns = now;
    s->ended = finish != FINISH_NONE;
}

/* A prompt whose first `shared` tokens all have, and whose others only `number` has. */
static enum status submit(struct engine *e, const struct model *m, uint64_t number, int32_t shared,
                          int32_t length, int32_t answer, struct stream *s, struct error *err)
{
    int32_t prompt[LONG_PROMPT];
    for (int32_t i = 0; i < length; i++) {
        uint64_t x = i < shared ? (uint64_t)i * 104729 : (uint64_t)i * 7919 + number * 15485863;
        prompt[i] = (int32_t)((x + 1) % (uint64_t)(m->config.vocab * 9 / 10));
    }
    const struct request r = {.prompt = prompt,
                              .prompt_len = length,
                              .max_tokens = answer,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1},
                              .on_token = on_token,
                              .user = s};
    return engine_submit(e, &r, NULL, err);
}

static enum status drain(struct engine *e, struct error *err)
{
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
    return OK;
}

typedef enum status (*part)(const struct bench *b, struct model *m, struct engine *e, void *arg,
                            struct error *err);

/* In an engine of its own, which has seen nothing. */
static enum status with_engine(const struct bench *b, struct model *m,
                               const struct engine_options *options, part run, void *arg,
                               struct error *err)
{
    struct engine *e = NULL;
    TRY(engine_create(m, options, &e, err));
    enum status st = run(b, m, e, arg, err);
    engine_destroy(e);
    return st;
}

/* --- batch -------------------------------------------------------------------------------------
 */

struct batch_run {
    int32_t sequences;
    double tokens_s;
};

static enum status run_batch(const struct bench *b, struct model *m, struct engine *e, void *arg,
                             struct error *err)
{
    struct batch_run *r = arg;
    struct stream s[MAX_SEQS] = {0};
    for (int32_t i = 0; i < r->sequences; i++)
        TRY(submit(e, m, (uint64_t)i, 0, SHORT_PROMPT, b->answer + MAX_SEQS, &s[i], err));
    bool ran = true;
    while (s[r->sequences - 1].count < 1)
        TRY(engine_step(e, &ran, err));
    int64_t start = now_ns();
    int32_t before = s[0].count, steps = b->answer;
    while (s[0].count < before + steps && !s[0].ended)
        TRY(engine_step(e, &ran, err));
    r->tokens_s = (double)steps * r->sequences / ((double)(now_ns() - start) * 1e-9);
    return OK;
}

static enum status measure_batch(const struct bench *b, struct model *m, struct error *err)
{
    const struct engine_options options = {.no_prefix_cache = true};
    static const int32_t sequences[] = {1, 16, 64};
    double one = 0;
    for (size_t i = 0; i < COUNT_OF(sequences); i++) {
        struct batch_run r = {.sequences = sequences[i]};
        TRY(with_engine(b, m, &options, run_batch, &r, err));
        one = i == 0 ? r.tokens_s : one;
        printf("batch: %2d sequences %10.2f tokens/s, %6.2f times one's\n", r.sequences, r.tokens_s,
               r.tokens_s / one);
        fflush(stdout);
    }
    return OK;
}

/* --- stall -------------------------------------------------------------------------------------
 */

/* Sequences decode all the while; a prompt comes when the one before has its first token. */
static enum status run_stall(const struct bench *b, struct model *m, struct engine *e, void *arg,
                             struct error *err)
{
    struct samples *gaps = arg;
    struct stream s[DECODING] = {0}, prompt = {0};
    int32_t answer = CONTEXT - SHORT_PROMPT;
    bool ran = true;
    for (int32_t i = 0; i < DECODING; i++)
        TRY(submit(e, m, (uint64_t)i, 0, SHORT_PROMPT, answer, &s[i], err));
    while (s[DECODING - 1].count < 20) /* the pace of steps is known */
        TRY(engine_step(e, &ran, err));
    for (int32_t i = 0; i < DECODING; i++)
        s[i].gaps = gaps;
    for (int32_t k = 0; k < b->uncached && !s[0].ended; k++) {
        prompt = (struct stream){0};
        TRY(submit(e, m, 1000 + (uint64_t)k, 0, LONG_PROMPT, 1, &prompt, err));
        while (!prompt.ended)
            TRY(engine_step(e, &ran, err));
    }
    return OK;
}

static enum status measure_stall(const struct bench *b, struct model *m, struct error *err)
{
    static struct samples gaps;
    static const struct {
        const char *name;
        struct engine_options options;
    } ways[] = {{"whole", {.no_prefix_cache = true}},
                {"chunks", {.no_prefix_cache = true, .chunk = CHUNK}},
                {"bounded", {.no_prefix_cache = true, .chunk = CHUNK, .stall_ms = STALL_MS}}};
    double worst = 0;
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        gaps.count = 0;
        TRY(with_engine(b, m, &ways[i].options, run_stall, &gaps, err));
        double median = percentile(&gaps, 0.5), p99 = percentile(&gaps, 0.99);
        worst = i == 0 ? p99 : worst;
        printf("stall: %-8s between two tokens: median %9.2f ms, p99 %9.2f ms (%.3f of whole), "
               "%d gaps\n",
               ways[i].name, median, p99, p99 / worst, gaps.count);
        fflush(stdout);
    }
    return OK;
}

/* --- prefix ------------------------------------------------------------------------------------
 */

struct prefix_run {
    int32_t requests;
    struct samples ttft;
};

static enum status run_prefix(const struct bench *b, struct model *m, struct engine *e, void *arg,
                              struct error *err)
{
    struct prefix_run *r = arg;
    (void)b;
    for (int32_t i = -1; i < r->requests; i++) { /* the first one fills the cache */
        struct stream s = {0};
        int64_t start = now_ns();
        TRY(submit(e, m, (uint64_t)(i + 1), SHARED, SHARED + OWN, 2, &s, err));
        TRY(drain(e, err));
        if (i >= 0)
            r->ttft.ms[r->ttft.count++] = (double)(s.first_ns - start) * 1e-6;
    }
    return OK;
}

static enum status measure_prefix(const struct bench *b, struct model *m, struct error *err)
{
    const struct engine_options with = {0}, without = {.no_prefix_cache = true};
    static struct prefix_run cached, fresh;
    cached.requests = b->requests;
    fresh.requests = b->uncached;
    TRY(with_engine(b, m, &without, run_prefix, &fresh, err));
    TRY(with_engine(b, m, &with, run_prefix, &cached, err));
    double median = percentile(&fresh.ttft, 0.5), hit = percentile(&cached.ttft, 0.5);
    printf("prefix: to the first token without the cache %.2f ms (%d requests), with it %.2f ms "
           "(%d): %.1f times (rows: at most %d)\n",
           median, fresh.ttft.count, hit, cached.ttft.count, median / hit,
           (SHARED + OWN) / (SHARED % KV_BLOCK + OWN));
    return OK;
}

/* --- guess -------------------------------------------------------------------------------------
 */

struct guess_run {
    int32_t answer;
    double tokens_s;
    uint64_t hash; /* of the answer */
    struct engine_stats stats;
};

static void on_guessed(void *user, int32_t token, enum finish finish)
{
    struct guess_run *r = user;
    (void)finish;
    r->hash = (r->hash ^ (uint32_t)token) * 0x100000001B3u;
}

static enum status run_guess(const struct bench *b, struct model *m, struct engine *e, void *arg,
                             struct error *err)
{
    struct guess_run *r = arg;
    int32_t prompt[GUESS_PROMPT];
    (void)b;
    for (int32_t i = 0; i < GUESS_PROMPT; i++)
        prompt[i] = (i % PERIOD * 7919 + 11) % (m->config.vocab * 9 / 10);
    const struct request q = {.prompt = prompt,
                              .prompt_len = GUESS_PROMPT,
                              .max_tokens = r->answer,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1},
                              .on_token = on_guessed,
                              .user = r};
    bool ran = true;
    TRY(engine_submit(e, &q, NULL, err));
    TRY(engine_step(e, &ran, err)); /* the prompt */
    int64_t start = now_ns();
    TRY(drain(e, err));
    r->tokens_s = (double)(r->answer - 1) / ((double)(now_ns() - start) * 1e-9);
    r->stats = *engine_stats(e);
    return OK;
}

static enum status measure_guess(const struct bench *b, struct model *m, struct error *err)
{
    static const int32_t guesses[] = {0, 2, 4, 8, 15};
    struct guess_run none = {0};
    for (size_t i = 0; i < COUNT_OF(guesses); i++) {
        const struct engine_options options = {.no_prefix_cache = true, .speculate = guesses[i]};
        struct guess_run r = {.answer = 4 * b->answer};
        TRY(with_engine(b, m, &options, run_guess, &r, err));
        none = i == 0 ? r : none;
        printf("guess: %2d tokens ahead %10.2f tokens/s, %5.2f times without; %llu steps, %llu of "
               "%llu guesses right\n",
               guesses[i], r.tokens_s, r.tokens_s / none.tokens_s,
               (unsigned long long)r.stats.steps, (unsigned long long)r.stats.sched.guessed_right,
               (unsigned long long)r.stats.sched.guessed);
        fflush(stdout);
        if (r.hash != none.hash)
            return error_set(err, ERR_INVALID, "guesses of %d tokens gave another answer",
                             guesses[i]);
    }
    return OK;
}

/* --- the command -------------------------------------------------------------------------------
 */

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct bench *b = arg;
    struct model *m = NULL;
    const struct model_options options = {
        .dir = b->dir,
        .random_weights = b->random_weights,
        .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
        .limits = {.max_rows = MAX_ROWS,
                   .max_seqs = MAX_SEQS,
                   .max_logits = MAX_SEQS,
                   .context = CONTEXT,
                   .kv_blocks = CONTEXT / KV_BLOCK * (DECODING + 4),
                   .threads = 1,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    TRY(model_create(&options, world, &m, err));
    enum status st = measure_batch(b, m, err);
    if (st == OK)
        st = measure_prefix(b, m, err);
    if (st == OK)
        st = measure_stall(b, m, err);
    if (st == OK)
        st = measure_guess(b, m, err);
    model_destroy(m);
    return st;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    const struct {
        const char *name;
        int32_t *out;
    } numbers[] = {
        {"--answer", &b->answer}, {"--requests", &b->requests}, {"--uncached", &b->uncached}};
    for (int i = 1; i < argc; i++) {
        bool taken = false;
        for (size_t k = 0; k < COUNT_OF(numbers) && i + 1 < argc && !taken; k++) {
            taken = strcmp(argv[i], numbers[k].name) == 0;
            if (taken)
                *numbers[k].out = atoi(argv[++i]);
        }
        if (!taken && strcmp(argv[i], "--random-weights") == 0)
            b->random_weights = true;
        else if (!taken && (argv[i][0] == '-' || b->dir))
            return false;
        else if (!taken)
            b->dir = argv[i];
    }
    return b->dir && b->answer > 0 && b->answer <= CONTEXT / 2 && b->requests > 0 &&
           b->requests <= MAX_GAPS && b->uncached > 0 && b->uncached <= MAX_GAPS;
}

int main(int argc, char **argv)
{
    struct error err;
    double load = 0;
    struct bench b = {.answer = 64, .requests = 100, .uncached = 10};
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "usage: serving_bench MODEL_DIR [--random-weights] [--answer N] "
                        "[--requests N] [--uncached N]\n");
        return 2;
    }
    log_set_level(LOG_WARN);
    if (getloadavg(&load, 1) != 1)
        load = 0;
    printf("%s: one rank with one thread, times of the processor; load %.1f before\n", b.dir, load);
    if (comm_local_run(1, rank_main, &b, &err) != OK) {
        fprintf(stderr, "serving_bench: %s\n", err.msg);
        return 1;
    }
    return 0;
}
