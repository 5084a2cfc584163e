/*
 * What a decode step costs outside the forward pass, on a leader of one rank: making the step,
 * drawing its tokens (which the forward pass does last, and which counts as outside here), telling
 * the requests, and packing the message that goes to the coordinator. engine_bench MODEL_DIR
 * [--random-weights] [--batch N] [--steps N] [--threads N] Each way of sampling runs over the same
 * prompts, after warm-up. Times are of the wall clock: other load on the machine spoils them, but
 * shares less than times.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/control/answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PROMPT = 32, WARM_STEPS = 3, MAX_STEPS = 100000, MAX_BATCH = 4096 };

struct bench {
    const char *dir;
    bool random_weights;
    int32_t batch, steps, threads;
};

/* One way of sampling. */
struct mix {
    const char *name;
    struct sampling sampling;
    struct shaping shaping;
    int32_t logprobs;
};

/* Of the measured steps, nanoseconds together. */
struct times {
    int64_t step, draw, message;
    int64_t forward; /* without drawing */
};

/* --- the forward pass and drawing: clocks around the backend's own ----------------------------
 */

static const struct kernels *real;
static bool by_wall;
static int64_t begun_ns, forward_ns, draw_ns;

static int64_t now_ns(void)
{
    struct timespec t;
    if (by_wall || clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0)
        return clock_now_ns();
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void timed_begin(struct backend *be, const struct batch *b)
{
    begun_ns = now_ns();
    real->begin(be, b);
}

static void timed_draw(struct backend *be, const struct batch *b, float *logits, int32_t shards,
                       int32_t shard)
{
    int64_t start = now_ns();
    real->draw(be, b, logits, shards, shard);
    draw_ns += now_ns() - start;
}

static void timed_end(struct backend *be)
{
    real->end(be);
    forward_ns += now_ns() - begun_ns;
}

/* --- requests and their steps ------------------------------------------------------------------
 */

/* As the coordinator submits one. */
static enum status submit(const struct bench *b, const struct model *m, const struct mix *mix,
                          uint64_t number, struct answers *a, struct engine *e, struct error *err)
{
    struct command c = {.kind = COMMAND_SUBMIT,
                        .key = {.request_id = number + 1, .attempt = 1, .epoch = 1},
                        .prompt_len = PROMPT,
                        .ignore_eos = true,
                        .sampling = mix->sampling,
                        .shaping = mix->shaping,
                        .logprobs = mix->logprobs};
    c.max_tokens = b->steps + 4 * WARM_STEPS + b->batch;
    c.prompt = check_calloc(PROMPT, sizeof *c.prompt);
    for (uint64_t i = 0; i < PROMPT; i++)
        c.prompt[i] = (int32_t)((number * 7919 + i * 104729 + 1) % (uint64_t)m->config.vocab);
    c.sampling.seed = number;
    enum status st = answers_submit(a, e, &c, err);
    free(c.prompt);
    return st;
}

/* What the leader does of a step's answers before they are the RPC thread's. */
static void pack(struct answers *a, uint64_t step, uint8_t **buffer, size_t *cap)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    const Witan__Cluster__V1__Tokens *tokens = answers_message(a, step);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_TOKENS;
    m.tokens = (Witan__Cluster__V1__Tokens *)(uintptr_t)tokens;
    size_t size = witan__cluster__v1__rank_message__get_packed_size(&m);
    if (size > *cap) {
        free(*buffer);
        *buffer = check_calloc(1, size);
        *cap = size;
    }
    witan__cluster__v1__rank_message__pack(&m, *buffer);
    answers_clear(a);
}

static enum status step(struct answers *a, struct engine *e, struct times *t, uint8_t **buffer,
                        size_t *cap, struct error *err)
{
    bool ran;
    int64_t forward = forward_ns, drawing = draw_ns, start = now_ns();
    TRY(engine_step(e, &ran, err));
    int64_t computed = now_ns();
    if (!ran)
        return error_set(err, ERR_INVALID, "the requests have ended before they were measured");
    pack(a, engine_stats(e)->steps, buffer, cap);
    int64_t end = now_ns();
    t->step += end - start;
    t->message += end - computed;
    t->draw += draw_ns - drawing;
    t->forward += forward_ns - forward - (draw_ns - drawing);
    return OK;
}

/* All decode, and then some. */
static enum status warm_up(const struct bench *b, struct answers *a, struct engine *e,
                           uint8_t **buffer, size_t *cap, struct error *err)
{
    struct times ignored = {0};
    uint64_t rows = (uint64_t)b->batch * PROMPT;
    while (engine_stats(e)->sched.prompt_rows < rows)
        TRY(step(a, e, &ignored, buffer, cap, err));
    for (int32_t i = 0; i < WARM_STEPS; i++)
        TRY(step(a, e, &ignored, buffer, cap, err));
    return OK;
}

static void print(const struct bench *b, const struct mix *mix, const struct times *t)
{
    double n = b->steps, ms = 1e-6 / n;
    double outside = (double)(t->step - t->forward);
    printf("  %-34s %9.3f %9.3f %8.3f %8.3f %8.3f %7.2f %%\n", mix->name, (double)t->step * ms,
           (double)t->forward * ms, (double)t->draw * ms, (double)t->message * ms,
           (outside - (double)t->draw - (double)t->message) * ms, 100 * outside / (double)t->step);
    fflush(stdout);
}

static enum status measure(const struct bench *b, struct model *m, const struct mix *mix,
                           struct answers *a, struct engine *e, struct error *err)
{
    uint8_t *buffer = NULL;
    size_t cap = 0;
    struct times t = {0};
    enum status st = OK;
    for (int32_t i = 0; i < b->batch && st == OK; i++)
        st = submit(b, m, mix, (uint64_t)i, a, e, err);
    if (st == OK)
        st = warm_up(b, a, e, &buffer, &cap, err);
    for (int32_t i = 0; i < b->steps && st == OK; i++)
        st = step(a, e, &t, &buffer, &cap, err);
    free(buffer);
    if (st == OK)
        print(b, mix, &t);
    return st;
}

/* An engine of its own for each, so that none finds the others' prompts. */
static enum status measure_mix(const struct bench *b, struct model *m, const struct mix *mix,
                               struct error *err)
{
    const struct engine_options options = {.no_prefix_cache = true};
    struct answers *a = NULL;
    struct engine *e = NULL;
    enum status st = engine_create(m, &options, &e, err);
    if (st == OK)
        st = answers_create(&m->limits, &a, err);
    if (st == OK)
        st = measure(b, m, mix, a, e, err);
    engine_destroy(e);
    answers_destroy(a);
    return st;
}

static const struct logit_bias biases[] = {{3, 2.0f}, {17, -2.0f}, {101, -100.0f}};

static const struct mix mixes[] = {
    {.name = "greedy", .sampling = {.top_p = 1}},
    {.name = "temperature 1", .sampling = {.temperature = 1, .top_p = 1}},
    {.name = "temperature 0.6, top_p 0.95, top_k 20",
     .sampling = {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20}},
    {.name = "the same, penalties and bias",
     .sampling = {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
     .shaping = {.repetition_penalty = 1.1f,
                 .presence_penalty = 0.5f,
                 .frequency_penalty = 0.5f,
                 .bias_count = COUNT_OF(biases),
                 .bias = biases}},
    {.name = "greedy, 5 logprobs", .sampling = {.top_p = 1}, .logprobs = 6},
};

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct bench *b = arg;
    struct model *m = NULL;
    const struct model_options options = {
        .dir = b->dir,
        .random_weights = b->random_weights,
        .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
        .limits = {.max_rows = b->batch > 512 ? b->batch : 512,
                   .max_seqs = b->batch,
                   .max_logits = b->batch,
                   .context = PROMPT + b->steps + 4 * WARM_STEPS + b->batch,
                   .threads = b->threads,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    TRY(model_create(&options, world, &m, err));
    real = m->kernels;
    struct kernels timed = *real;
    timed.begin = timed_begin;
    timed.draw = timed_draw;
    timed.end = timed_end;
    by_wall = b->threads > 1;
    m->kernels = &timed;
    printf("  %-34s %9s %9s %8s %8s %8s %9s\n", "ms a step", "step", "forward", "draw", "message",
           "others", "outside");
    enum status st = OK;
    for (size_t i = 0; i < COUNT_OF(mixes) && st == OK; i++)
        st = measure_mix(b, m, &mixes[i], err);
    m->kernels = real;
    model_destroy(m);
    return st;
}

/* --- the command -------------------------------------------------------------------------------
 */

static bool take_number(const char *flag, const char *value, const char *name, int32_t most,
                        int32_t *out)
{
    if (strcmp(flag, name) != 0 || !value)
        return false;
    char *end;
    long n = strtol(value, &end, 10);
    if (*end || n < 1 || n > most) {
        fprintf(stderr, "engine_bench: %s: expected 1 to %d, found %s\n", name, most, value);
        exit(2);
    }
    *out = (int32_t)n;
    return true;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(flag, "--random-weights") == 0)
            b->random_weights = true;
        else if (take_number(flag, value, "--batch", MAX_BATCH, &b->batch) ||
                 take_number(flag, value, "--steps", MAX_STEPS, &b->steps) ||
                 take_number(flag, value, "--threads", 1024, &b->threads))
            i++;
        else if (flag[0] != '-' && !b->dir)
            b->dir = flag;
        else
            return false;
    }
    return b->dir != NULL;
}

int main(int argc, char **argv)
{
    struct error err;
    double load = 0;
    struct bench b = {.batch = 64, .steps = 50, .threads = 1};
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "usage: engine_bench MODEL_DIR [--random-weights] [--batch N] [--steps N] "
                        "[--threads N]\n");
        return 2;
    }
    log_set_level(LOG_WARN);
    if (getloadavg(&load, 1) != 1)
        load = 0;
    printf("%s: %d sequences, %d steps, one rank with %d threads (%s clock); load %.1f before\n",
           b.dir, b.batch, b.steps, b.threads, b.threads > 1 ? "wall" : "processor", load);
    if (comm_local_run(1, rank_main, &b, &err) != OK) {
        fprintf(stderr, "engine_bench: %s\n", err.msg);
        return 1;
    }
    return 0;
}
