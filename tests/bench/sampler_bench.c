/*
 * How long drawing a token takes, and its logprobs, against reading the row's bytes once: rows like
 * a model's over Qwen3's vocabulary, one thread, more rows than its cache holds. One line each;
 * then a step of 64 draws on a pool of two threads.
 *
 *   sampler_bench [KERNELS]
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"
#include "worker/cpu/ops.h"
#include "worker/logprobs.h"
#include "worker/sampler.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { VOCAB = 151936, ROWS = 64, ROUNDS = 15, THREADS = 2 };

static float *rows;              /* [ROWS][VOCAB] */
static volatile uint64_t result; /* so that nothing is left out */

static const struct way {
    const char *name;
    struct sampling sampling;
} ways[] = {
    {"greedy", {.top_p = 1.0f}},
    {"T 0.7, top_p 0.8, top_k 20", {.temperature = 0.7f, .top_p = 0.8f, .top_k = 20}},
    {"T 1", {.temperature = 1.0f, .top_p = 1.0f}},
    {"T 1, min_p 0.05", {.temperature = 1.0f, .top_p = 1.0f, .min_p = 0.05f}},
    {"T 1, top_p 0.95", {.temperature = 1.0f, .top_p = 0.95f}},
};

/* Sums of four uniform numbers, three apart on average, and a few that lead as in text. */
static void make_rows(void)
{
    uint64_t x = 88172645463325252u;
    rows = check_calloc((size_t)ROWS * VOCAB, sizeof *rows);
    for (size_t i = 0; i < (size_t)ROWS * VOCAB; i++) {
        float sum = -2.0f;
        for (int k = 0; k < 4; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            sum += (float)(x >> 40) * 0x1p-24f;
        }
        rows[i] = sum * 5.0f + (x % 30000 == 0 ? 16.0f : 0.0f);
    }
}

static double read_row(int row)
{
    const uint64_t *p = (const uint64_t *)(const void *)(rows + (size_t)row * VOCAB);
    uint64_t a = 0, b = 0, c = 0, d = 0;
    int64_t start = clock_now_ns();
    for (int i = 0; i + 4 <= VOCAB / 2; i += 4)
        a ^= p[i], b ^= p[i + 1], c ^= p[i + 2], d ^= p[i + 3];
    result += a ^ b ^ c ^ d;
    return (double)(clock_now_ns() - start);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return x[n / 2];
}

static void print_way(const char *name, double *ns, double *read_ns, int n)
{
    double each = median(ns, n) * 1e-3, once = median(read_ns, n) * 1e-3;
    printf("%-28s %8.1f us, reading %6.1f us: %5.1f times\n", name, each, once, each / once);
}

static void time_draws(struct sampler *s, const struct way *w)
{
    static double ns[ROUNDS * ROWS], read_ns[ROUNDS * ROWS];
    struct sampling p = w->sampling;
    int n = 0;
    for (int round = 0; round < ROUNDS; round++)
        for (int row = 0; row < ROWS; row++, n++) {
            read_ns[n] = read_row((row + ROWS / 2) % ROWS);
            p.seed = (uint64_t)n;
            int64_t start = clock_now_ns();
            result += (uint64_t)sampler_draw(s, rows + (size_t)row * VOCAB, VOCAB, &p, round);
            ns[n] = (double)(clock_now_ns() - start);
        }
    print_way(w->name, ns, read_ns, n);
}

static void time_logprobs(int32_t top)
{
    static double ns[ROUNDS * ROWS], read_ns[ROUNDS * ROWS];
    struct logprobs l;
    char name[40];
    int n = 0;
    for (int round = 0; round < ROUNDS; round++)
        for (int row = 0; row < ROWS; row++, n++) {
            read_ns[n] = read_row((row + ROWS / 2) % ROWS);
            int64_t start = clock_now_ns();
            logprobs_of(rows + (size_t)row * VOCAB, VOCAB, n * 151 % VOCAB, top, &l);
            ns[n] = (double)(clock_now_ns() - start);
            result += (uint64_t)l.rank;
        }
    snprintf(name, sizeof name, "logprob and the top %d", top);
    print_way(name, ns, read_ns, n);
}

struct team {
    struct sampler *samplers[THREADS];
    struct sampling sampling;
    atomic_int next;
};

static void draw_some(void *arg, int thread)
{
    struct team *s = arg;
    for (int i; (i = atomic_fetch_add(&s->next, 1)) < ROWS;)
        result += (uint64_t)sampler_draw(s->samplers[thread], rows + (size_t)i * VOCAB, VOCAB,
                                         &s->sampling, i);
}

static void time_step(struct team *s, struct pool *pool, const struct way *w)
{
    double ms[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        s->sampling = w->sampling;
        s->sampling.seed = (uint64_t)round;
        atomic_store(&s->next, 0);
        int64_t start = clock_now_ns();
        pool_run(pool, draw_some, s);
        ms[round] = (double)(clock_now_ns() - start) * 1e-6;
    }
    printf("%-28s %d draws on %d threads: %.2f ms\n", w->name, ROWS, THREADS, median(ms, ROUNDS));
}

int main(int argc, char **argv)
{
    const struct cpu_ops *ops;
    struct pool *pool;
    struct error err;
    struct team step = {0};
    enum status st = cpu_ops_choose(argc > 1 ? argv[1] : "auto", &ops, &err);
    if (st == OK)
        st = pool_create(THREADS, true, &pool, &err);
    for (int i = 0; st == OK && i < THREADS; i++)
        st = sampler_create(ops->rows, VOCAB, &step.samplers[i], &err);
    if (st != OK) {
        fprintf(stderr, "sampler_bench: %s\n", err.msg);
        return 1;
    }
    make_rows();
    printf("rows of %d logits, kernels %s\n", (int)VOCAB, ops->name);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        time_draws(step.samplers[0], &ways[i]);
    time_logprobs(0);
    time_logprobs(20);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        time_step(&step, pool, &ways[i]);
    for (int i = 0; i < THREADS; i++)
        sampler_destroy(step.samplers[i]);
    pool_destroy(pool);
    free(rows);
    return 0;
}
