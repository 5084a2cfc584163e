/*
 * Where a step's time goes on the CPU: the stages of worker/kernels.h by the clock, with random
 * weights. stages_bench MODEL_DIR [--weights published|int8|int4] [--kernels SET] [--threads N]
 *                       [--batch N] [--prompt N]
 * First prompts of --prompt tokens, alone, then decode steps of --batch sequences. The fastest of
 * many steps counts, each stage with its time in that step: other load on the machine spoils less.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPTS = 6, STEPS = 60, SHORT = 32 };

struct bench {
    const char *dir, *kernels;
    enum weight_mode weights;
    int32_t threads, batch, prompt;
};

/* X(stage, its parameters, their names) */
#define STAGES(X)                                                                                  \
    X(embed,                                                                                       \
      (struct backend * be, const struct batch *b, const struct matrix *w, int32_t first,          \
       int32_t hidden, float *x, double *sum),                                                     \
      (be, b, w, first, hidden, x, sum))                                                           \
    X(rope_angles,                                                                                 \
      (struct backend * be, const struct batch *b, const float *f, float scale, int32_t hd,        \
       float *rope),                                                                               \
      (be, b, f, scale, hd, rope))                                                                 \
    X(add_norm,                                                                                    \
      (struct backend * be, int32_t rows, int32_t hidden, double *sum, float *x,                   \
       const float *norm, float eps, float *xn),                                                   \
      (be, rows, hidden, sum, x, norm, eps, xn))                                                   \
    X(qkv,                                                                                         \
      (struct backend * be, const struct batch *b, const struct attention *a,                      \
       const struct layer_weights *w, const float *xn, const float *rope, float *q_tmp,            \
       float *kv_tmp, float *q, const struct kv_layer *kv),                                        \
      (be, b, a, w, xn, rope, q_tmp, kv_tmp, q, kv))                                               \
    X(attention,                                                                                   \
      (struct backend * be, const struct batch *b, const struct attention *a, const float *q,      \
       const struct kv_layer *kv, float *out),                                                     \
      (be, b, a, q, kv, out))                                                                      \
    X(o_proj,                                                                                      \
      (struct backend * be, int32_t rows, const struct attention *a, const struct matrix *o,       \
       const float *attn, double *sum),                                                            \
      (be, rows, a, o, attn, sum))                                                                 \
    X(router,                                                                                      \
      (struct backend * be, int32_t rows, const struct residual *r, const struct matrix *w,        \
       int32_t top_k, bool renormalise, struct range local, float *logits, struct route *route),   \
      (be, rows, r, w, top_k, renormalise, local, logits, route))                                  \
    X(ffn_up,                                                                                      \
      (struct backend * be, const struct ffn *ffn, int32_t count, const struct route *route,       \
       int32_t hidden, const float *xn, float *h),                                                 \
      (be, ffn, count, route, hidden, xn, h))                                                      \
    X(ffn_down,                                                                                    \
      (struct backend * be, int32_t rows, const struct ffn *ffn, int32_t count,                    \
       const struct route *route, int32_t hidden, int32_t leaves, const float *h, double *sum),    \
      (be, rows, ffn, count, route, hidden, leaves, h, sum))                                       \
    X(lm_head,                                                                                     \
      (struct backend * be, const struct batch *b, const struct matrix *w, int32_t padded,         \
       const float *xn, int32_t hidden, float *logits),                                            \
      (be, b, w, padded, xn, hidden, logits))                                                      \
    X(draw,                                                                                        \
      (struct backend * be, const struct batch *b, float *logits, int32_t shards, int32_t padded), \
      (be, b, logits, shards, padded))

enum stage {
#define X(name, params, args) STAGE_##name,
    STAGES(X)
#undef X
};

static const char *const names[] = {
#define X(name, params, args) #name,
    STAGES(X)
#undef X
};

enum { STAGE_COUNT = COUNT_OF(names) };

static const struct kernels *real;
static int64_t spent[STAGE_COUNT]; /* in the step under way */

#define X(name, params, args)                                                                      \
    static void timed_##name params                                                                \
    {                                                                                              \
        int64_t start = clock_now_ns();                                                            \
        real->name args;                                                                           \
        spent[STAGE_##name] += clock_now_ns() - start;                                             \
    }
STAGES(X)
#undef X

struct fastest {
    int64_t step;
    int64_t spent[STAGE_COUNT];
};

static enum status timed_step(struct engine *e, bool *ran, struct fastest *f, struct error *err)
{
    memset(spent, 0, sizeof spent);
    int64_t start = clock_now_ns();
    TRY(engine_step(e, ran, err));
    int64_t took = clock_now_ns() - start;
    if (*ran && f && (f->step == 0 || took < f->step)) {
        f->step = took;
        memcpy(f->spent, spent, sizeof spent);
    }
    return OK;
}

static void print(const char *what, int32_t rows, const struct fastest *f)
{
    int64_t stages = 0;
    printf("%s: %.3f ms a step, %.1f tokens/s\n", what, (double)f->step * 1e-6,
           rows * 1e9 / (double)f->step);
    for (int i = 0; i < STAGE_COUNT; i++) {
        stages += f->spent[i];
        printf("  %-12s %9.3f ms %6.1f %%\n", names[i], (double)f->spent[i] * 1e-6,
               100.0 * (double)f->spent[i] / (double)f->step);
    }
    printf("  %-12s %9.3f ms %6.1f %%\n", "others", (double)(f->step - stages) * 1e-6,
           100.0 * (double)(f->step - stages) / (double)f->step);
    fflush(stdout);
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)user;
    (void)token;
    (void)finish;
}

static enum status submit(struct engine *e, const struct model *m, int32_t number, int32_t length,
                          int32_t tokens, struct error *err)
{
    int32_t *prompt = check_calloc((size_t)length, sizeof *prompt);
    for (int32_t i = 0; i < length; i++)
        prompt[i] = (int32_t)(((int64_t)number * 7919 + (int64_t)i * 104729 + 1) % m->config.vocab);
    const struct request q = {.prompt = prompt,
                              .prompt_len = length,
                              .max_tokens = tokens,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1},
                              .on_token = on_token};
    enum status st = engine_submit(e, &q, NULL, err);
    free(prompt);
    return st;
}

static enum status measure(const struct bench *b, const struct model *m, struct engine *e,
                           struct error *err)
{
    struct fastest prefill = {0}, decode = {0};
    bool ran = true;
    for (int32_t i = 0; i < PROMPTS; i++) {
        TRY(submit(e, m, i, b->prompt, 1, err));
        for (ran = true; ran;)
            TRY(timed_step(e, &ran, &prefill, err));
    }
    print("prefill", b->prompt, &prefill);
    for (int32_t i = 0; i < b->batch; i++)
        TRY(submit(e, m, PROMPTS + i, SHORT, STEPS + b->batch, err));
    while (engine_stats(e)->sched.prompt_rows <
           (uint64_t)PROMPTS * (uint64_t)b->prompt + (uint64_t)b->batch * SHORT)
        TRY(timed_step(e, &ran, NULL, err));
    for (int i = 0; i < STEPS - 1; i++)
        TRY(timed_step(e, &ran, i < 3 ? NULL : &decode, err));
    print("decode", b->batch, &decode);
    return OK;
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    const struct bench *b = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    const struct model_options options = {
        .dir = b->dir,
        .random_weights = true,
        .weights = b->weights,
        .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
        .limits = {.max_rows = b->prompt > b->batch ? b->prompt : b->batch,
                   .max_seqs = b->batch,
                   .max_logits = b->batch,
                   .context = b->prompt + SHORT + STEPS + b->batch,
                   .threads = b->threads,
                   .kv_dtype = KV_BF16},
        .kernels = b->kernels,
        .spin = b->threads <= cpu_count(),
    };
    const struct engine_options eo = {.no_prefix_cache = true};
    TRY(model_create(&options, world, &m, err));
    real = m->kernels;
    struct kernels timed = *real;
#define X(name, params, args) timed.name = timed_##name;
    STAGES(X)
#undef X
    m->kernels = &timed;
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK)
        st = measure(b, m, e, err);
    engine_destroy(e);
    m->kernels = real;
    model_destroy(m);
    return st;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        int32_t *number = strcmp(flag, "--threads") == 0  ? &b->threads
                          : strcmp(flag, "--batch") == 0  ? &b->batch
                          : strcmp(flag, "--prompt") == 0 ? &b->prompt
                                                          : NULL;
        if (flag[0] != '-') {
            b->dir = flag;
            continue;
        }
        if (number)
            *number = atoi(value);
        else if (strcmp(flag, "--kernels") == 0)
            b->kernels = value;
        else if (strcmp(flag, "--weights") != 0 || !weight_mode_named(value, &b->weights))
            return false;
        i++;
    }
    return b->dir && b->threads > 0 && b->batch > 0 && b->prompt > 0;
}

int main(int argc, char **argv)
{
    struct bench b = {.kernels = "auto", .threads = cpu_count(), .batch = 1, .prompt = 512};
    struct error err;
    if (!parse(&b, argc, argv)) {
        fprintf(stderr, "usage: stages_bench MODEL_DIR [--weights published|int8|int4] "
                        "[--kernels SET] [--threads N] [--batch N] [--prompt N]\n");
        return 2;
    }
    log_set_level(LOG_WARN);
    printf("%s, %s weights, %d threads\n", b.dir, weight_mode_name(b.weights), b.threads);
    if (comm_local_run(1, rank_main, &b, &err) != OK) {
        fprintf(stderr, "stages_bench: %s\n", err.msg);
        return 1;
    }
    return 0;
}
