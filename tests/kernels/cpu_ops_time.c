/*
 * Measures the CPU operations on one thread, with the shapes of Qwen3-30B-A3B, beside what this
 * machine can do in the same run: reading a large buffer, and fused multiply-adds in registers. The
 * ratio is the point: decode (one row) should come near the first limit, prefill near the second.
 */
#include "tests/kernels/cpu_ops.h"
#include "tests/kernels/peak.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "worker/cpu/vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    POOL_MIB = 256, /* weights that no cache holds */
    HEAD_DIM = 128,
    GROUP = 8,
    MAX_ROWS = 128,
    MAX_COLS = 4096,
};

static const double MEASURE_S = 0.4, BATCH_S = 0.004;

struct limits {
    double read;  /* bytes a second */
    double flops; /* a second */
};

/* What a measured call works on. */
struct work {
    const struct cpu_ops *ops;
    char *pool; /* POOL_MIB of weights */
    size_t at;  /* next matrix: each call reads another one */
    float *x, *y;
    double *sum;
    int32_t m, n, k;
};

typedef void (*work_fn)(struct work *w);

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds a call: the quickest of many batches, in this thread's own time, so that others on the
 * machine disturb little. */
static double measure(work_fn fn, struct work *w)
{
    double best = 1e9, start = thread_seconds(), first;
    fn(w);
    first = thread_seconds() - start;
    int calls = first < BATCH_S ? (int)(BATCH_S / (first + 1e-9)) + 1 : 1;
    for (start = thread_seconds(); thread_seconds() - start < MEASURE_S;) {
        double before = thread_seconds();
        for (int i = 0; i < calls; i++)
            fn(w);
        double t = (thread_seconds() - before) / calls;
        best = t < best ? t : best;
    }
    return best;
}

static void read_pool(struct work *w)
{
    peak_read(w->pool, (size_t)POOL_MIB * 1024 * 1024);
}

static void fma_8(struct work *w)
{
    (void)w;
    peak_fma(8);
}

static void fma_16(struct work *w)
{
    (void)w;
    peak_fma(16);
}

/* The faster of the vector widths that this processor has; 0 where none is written for it. */
static double peak_flops(struct work *w)
{
    double narrow = peak_fma(8), wide = peak_fma(16);
    narrow = narrow > 0 ? narrow / measure(fma_8, w) : 0.0;
    wide = wide > 0 ? wide / measure(fma_16, w) : 0.0;
    return wide > narrow ? wide : narrow;
}

static struct matrix next_matrix(struct work *w)
{
    size_t bytes = (size_t)w->n * (size_t)w->k * 2;
    if (w->at + bytes > (size_t)POOL_MIB * 1024 * 1024)
        w->at = 0;
    struct matrix m = {.data = w->pool + w->at, .dtype = DTYPE_BF16, .rows = w->n, .cols = w->k};
    w->at += bytes;
    return m;
}

static void run_gemm(struct work *w)
{
    struct matrix m = next_matrix(w);
    w->ops->gemm(w->x, w->k, NULL, w->m, &m, 0, w->n, (struct ahead){0}, w->y, w->n);
}

static void run_leaf(struct work *w)
{
    struct matrix m = next_matrix(w);
    w->ops->gemm_leaf(w->x, w->k, w->m, &m, FFN_BLOCK, 0, w->n, (struct ahead){0}, NULL, NULL,
                      w->sum, w->n);
}

/* A KV head's query heads over w->n positions. */
static void run_attention(struct work *w, enum kv_dtype kv)
{
    size_t bytes = kv_tile_bytes(kv, HEAD_DIM);
    int32_t count[GROUP];
    float m[LANES], l[LANES];
    struct attention_queries a = {.n = GROUP,
                                  .hd = HEAD_DIM,
                                  .q = w->x,
                                  .count = count,
                                  .m = m,
                                  .l = l,
                                  .o = w->y,
                                  .scratch = w->y + GROUP * HEAD_DIM};
    for (int i = 0; i < GROUP; i++)
        count[i] = KV_BLOCK;
    for (int32_t at = 0; at < w->n; at += KV_BLOCK, w->at += 2 * bytes) {
        if (w->at + 4 * bytes > (size_t)POOL_MIB * 1024 * 1024)
            w->at = 0;
        const char *k = w->pool + w->at;
        w->ops->attention->tile(&a, k, k + bytes, kv, at == 0, (int64_t)(2 * bytes));
    }
}

static void run_attention_bf16(struct work *w)
{
    run_attention(w, KV_BF16);
}

static void run_attention_int8(struct work *w)
{
    run_attention(w, KV_INT8);
}

static void run_norm(struct work *w)
{
    w->ops->rms_norm(w->x, w->x, w->n, 1e-6f, w->y);
}

static void run_silu(struct work *w)
{
    memcpy(w->y, w->x, (size_t)w->n * sizeof *w->y);
    w->ops->silu_mul(w->y, w->x, w->n);
}

static void run_softmax(struct work *w)
{
    memcpy(w->y, w->x, (size_t)w->n * sizeof *w->y);
    w->ops->softmax(w->y, w->n);
}

struct shape {
    const char *name;
    work_fn fn;
    int32_t m, n, k;
    double bytes, flops; /* a call; bytes that come from memory */
};

static void report(const struct shape *s, struct work *w, const struct limits *limits)
{
    w->m = s->m;
    w->n = s->n;
    w->k = s->k;
    w->at = 0;
    double t = measure(s->fn, w);
    printf("%-9s %-30s %10.2f %8.2f %6.2f %8.2f %6.2f\n", w->ops->name, s->name, t * 1e6,
           s->bytes / t * 1e-9, s->bytes / t / limits->read, s->flops / t * 1e-9,
           limits->flops > 0 ? s->flops / t / limits->flops : 0.0);
}

#define GEMM(words, fn, m, n, k)                                                                   \
    {                                                                                              \
        words, fn, m, n, k, 2.0 * (n) * (k), 2.0 * (m) * (n) * (k)                                 \
    }

#define INT8 (1.0 + 2.0 / KV8_GROUP)

/* Of `each` bytes an element. */
#define ATTENTION(words, fn, positions, each)                                                      \
    {                                                                                              \
        words, fn, 1, positions, HEAD_DIM, 2.0 * (positions)*HEAD_DIM *(each),                     \
            4.0 * GROUP *(positions)*HEAD_DIM                                                      \
    }

static const struct shape shapes[] = {
    GEMM("gate/up decode 768x2048", run_gemm, 1, 768, 2048),
    GEMM("q_proj decode 4096x2048", run_gemm, 1, 4096, 2048),
    GEMM("down decode 2048x768 leaf", run_leaf, 1, 2048, 768),
    GEMM("o_proj decode 2048x4096 leaf", run_leaf, 1, 2048, 4096),
    GEMM("gate/up prefill m=128", run_gemm, 128, 768, 2048),
    GEMM("q_proj prefill m=128", run_gemm, 128, 4096, 2048),
    GEMM("down prefill m=128 leaf", run_leaf, 128, 2048, 768),
    GEMM("o_proj prefill m=128 leaf", run_leaf, 128, 2048, 4096),
    ATTENTION("attention 8x128 of 1024, bf16", run_attention_bf16, 1024, 2.0),
    ATTENTION("attention 8x128 of 1024, int8", run_attention_int8, 1024, INT8),
    ATTENTION("attention 8x128 of 8192, bf16", run_attention_bf16, 8192, 2.0),
    ATTENTION("attention 8x128 of 8192, int8", run_attention_int8, 8192, INT8),
    {"rms_norm 2048 (cached)", run_norm, 1, 2048, 1, 3 * 4.0 * 2048, 4.0 * 2048},
    {"silu_mul 768 (cached)", run_silu, 1, 768, 1, 3 * 4.0 * 768, 15.0 * 768},
    {"softmax 128 (cached)", run_softmax, 1, 128, 1, 2 * 4.0 * 128, 13.0 * 128},
};

static void fill(struct work *w)
{
    uint64_t rng = 1;
    uint16_t *h = (uint16_t *)(void *)w->pool;
    uint16_t some[4096];
    for (size_t i = 0; i < COUNT_OF(some); i++)
        some[i] = f32_to_bf16(random_float(&rng, 0.05));
    for (size_t i = 0; i < (size_t)POOL_MIB * 1024 * 1024 / 2; i += COUNT_OF(some))
        memcpy(h + i, some, sizeof some);
    for (size_t i = 0; i < (size_t)MAX_ROWS * MAX_COLS; i++)
        w->x[i] = random_float(&rng, 1.0);
}

int time_operations(void)
{
    const struct cpu_ops *sets[MAX_SETS];
    int count = available_sets(sets);
    struct work w = {.pool = aligned_zalloc((size_t)POOL_MIB * 1024 * 1024),
                     .x = check_calloc((size_t)MAX_ROWS * MAX_COLS, sizeof(float)),
                     .y = check_calloc((size_t)MAX_ROWS * MAX_COLS, sizeof(float)),
                     .sum = check_calloc((size_t)MAX_ROWS * MAX_COLS, sizeof(double))};
    CHECK(w.pool, "no memory for %d MiB", POOL_MIB);
    fill(&w);
    struct limits limits = {.read = (double)POOL_MIB * 1024 * 1024 / measure(read_pool, &w),
                            .flops = peak_flops(&w)};
    printf("one thread: reads %.2f GB/s, at most %.1f GFLOP/s (fma in registers)\n\n",
           limits.read * 1e-9, limits.flops * 1e-9);
    printf("%-9s %-30s %10s %8s %6s %8s %6s\n", "set", "operation", "us", "GB/s", "ratio",
           "GFLOP/s", "ratio");
    for (int s = 0; s < count; s++) {
        w.ops = sets[s];
        /* The emulated sets are for checks; of the portable one decode is enough. */
        if (strstr(sets[s]->name, "simde"))
            continue;
        for (size_t i = 0; i < COUNT_OF(shapes); i++)
            if (s > 0 || shapes[i].m == 1)
                report(&shapes[i], &w, &limits);
    }
    free(w.pool);
    free(w.x);
    free(w.y);
    free(w.sum);
    return 0;
}
