/*
 * How near the CPU's attention comes to what the machine can do, which is measured in the same run:
 * decode to reading the KV cache once, or to the fused multiply-adds that it takes, whichever is
 * longer; prefill to the latter. Through the backend's stage, on a pool of threads.
 *
 *   attention_bench [KERNELS [THREADS [bf16|f32|int8]]]
 */
#include "base/check.h"
#include "base/pool.h"
#include "tests/kernels/peak.h"
#include "worker/cpu/vec.h"
#include "worker/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    CACHE_MIB = 256, /* no cache of the processor holds it */
    HEAD_DIM = 128,
    KV_HEADS = 4,
    MAX_HEADS = 32,
    MAX_ROWS = 2048,
    MAX_BLOCKS = 4096 / KV_BLOCK, /* of a sequence */
    ROUNDS = 40,
};

static const double ROUND_S = 0.004, SHAPE_S = 0.5;

static struct {
    const struct kernels *kernels;
    struct backend *backend;
    struct pool *pool;
    int threads;
    struct kv_layer kv;
    int32_t blocks, next; /* of the cache; where the next call's begin */
    float *q, *out;
    int32_t token[MAX_ROWS], pos[MAX_ROWS];
    const int32_t *table[MAX_ROWS];
    int32_t tables[MAX_ROWS][MAX_BLOCKS];
    double read, flops; /* bytes and operations a second */
} w;

struct shape {
    int32_t sequences, rows, context; /* rows of each, the last at `context` */
};

/* --- the machine ---------------------------------------------------------------------------- */

static void read_part(void *arg, int thread)
{
    size_t part = (size_t)CACHE_MIB * 1024 * 1024 / (size_t)w.threads / 64 * 64;
    (void)arg;
    peak_read(w.kv.data + part * (size_t)thread, part);
}

static void multiply_add(void *arg, int thread)
{
    (void)thread;
    peak_fma(*(const int *)arg);
}

/* One thread's own time, so that others on the machine disturb little; the world's, of several. */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(w.threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The shortest of many. */
static double shortest(void (*fn)(void *arg, int thread), void *arg)
{
    double best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        double start = seconds();
        pool_run(w.pool, fn, arg);
        double t = seconds() - start;
        best = t < best ? t : best;
    }
    return best;
}

static void measure_machine(void)
{
    w.read = (double)CACHE_MIB * 1024 * 1024 / shortest(read_part, NULL);
    for (int lanes = 8; lanes <= 16; lanes += 8) {
        double each = peak_fma(lanes) * w.threads;
        double flops = each > 0 ? each / shortest(multiply_add, &lanes) : 0.0;
        w.flops = flops > w.flops ? flops : w.flops;
    }
    printf("%d threads: read %.2f GB/s, at most %.1f GFLOP/s\n", w.threads, w.read * 1e-9,
           w.flops * 1e-9);
}

/* --- attention ------------------------------------------------------------------------------ */

/* Sequences of blocks that the call before had not. */
static struct batch next_batch(const struct shape *s)
{
    int32_t blocks = (s->context + KV_BLOCK - 1) / KV_BLOCK;
    for (int32_t i = 0; i < s->sequences; i++) {
        for (int32_t t = 0; t < blocks; t++)
            w.tables[i][t] = w.next++ % w.blocks;
        for (int32_t r = 0; r < s->rows; r++) {
            w.table[i * s->rows + r] = w.tables[i];
            w.pos[i * s->rows + r] = s->context - s->rows + r;
        }
    }
    return (struct batch){
        .rows = s->sequences * s->rows, .token = w.token, .pos = w.pos, .block_table = w.table};
}

static double seconds_of(const struct shape *s, const struct attention *a)
{
    double best = 1e9, end = seconds() + SHAPE_S, now;
    do {
        double start = seconds();
        int calls = 0;
        do {
            struct batch b = next_batch(s);
            w.kernels->attention(w.backend, &b, a, w.q, &w.kv, w.out);
            calls++;
            now = seconds();
        } while (now - start < ROUND_S);
        best = (now - start) / calls < best ? (now - start) / calls : best;
    } while (now < end);
    return best;
}

static void report(const struct shape *s, int32_t heads)
{
    struct attention a = {.q_heads = {0, heads},
                          .kv_heads = {0, KV_HEADS},
                          .group = heads / KV_HEADS,
                          .head_dim = HEAD_DIM,
                          .row = HEAD_DIM};
    double seen = 0.0; /* positions, of all rows */
    for (int32_t r = 0; r < s->rows; r++)
        seen += (double)(s->context - r) * s->sequences;
    double flops = 4.0 * seen * heads * HEAD_DIM;
    double bytes = 2.0 * (double)kv_tile_bytes(w.kv.dtype, HEAD_DIM) / KV_BLOCK * KV_HEADS *
                   s->context * s->sequences;
    double t = seconds_of(s, &a), read = bytes / t / w.read;
    double sums = w.flops > 0 ? flops / t / w.flops : 0.0;
    printf("%2d/%d heads, %2d x %4d rows at %4d %10.1f us %8.2f GB/s %6.2f %9.1f GFLOP/s %6.2f\n",
           heads, KV_HEADS, s->sequences, s->rows, s->context, t * 1e6, bytes / t * 1e-9, read,
           flops / t * 1e-9, sums);
}

static const struct shape shapes[] = {
    {1, 1, 512},   {1, 1, 2048},  {1, 1, 4096},  {16, 1, 512},
    {16, 1, 2048}, {16, 1, 4096}, {1, 512, 512}, {1, 2048, 2048},
};

/* Numbers that are finite in each type, and not all alike. */
static void fill(enum kv_dtype dtype)
{
    size_t bytes = (size_t)CACHE_MIB * 1024 * 1024;
    w.kv = (struct kv_layer){
        .data = aligned_zalloc(bytes), .dtype = dtype, .heads = KV_HEADS, .row = HEAD_DIM};
    CHECK(w.kv.data, "no memory for %d MiB", CACHE_MIB);
    w.blocks = (int32_t)(bytes / (2 * KV_HEADS * kv_tile_bytes(dtype, HEAD_DIM)));
    uint16_t *h = (uint16_t *)(void *)w.kv.data;
    float *f = (float *)(void *)w.kv.data;
    for (size_t i = 0; i < bytes / (dtype == KV_F32 ? 4 : 2); i++) {
        float x = (float)(i * 2654435761u % 2001) * 0.001f - 1.0f;
        if (dtype == KV_F32)
            f[i] = x;
        else
            h[i] = f32_to_bf16(x);
    }
    w.q = check_calloc((size_t)MAX_ROWS * MAX_HEADS * HEAD_DIM, sizeof *w.q);
    w.out = check_calloc((size_t)MAX_ROWS * MAX_HEADS * HEAD_DIM, sizeof *w.out);
    for (size_t i = 0; i < (size_t)MAX_ROWS * MAX_HEADS * HEAD_DIM; i++)
        w.q[i] = (float)(i * 40503u % 1999) * 0.0001f - 0.1f;
}

int main(int argc, char **argv)
{
    struct error err;
    enum kv_dtype dtype = KV_BF16;
    w.threads = argc > 2 ? atoi(argv[2]) : cpu_count();
    CHECK(w.threads > 0 && w.threads <= POOL_MAX_THREADS, "%d threads", w.threads);
    CHECK(argc <= 3 || kv_dtype_named(argv[3], &dtype), "%s: no type of a cache", argv[3]);
    struct model_config c = {.q_heads = MAX_HEADS, .kv_heads = KV_HEADS, .head_dim = HEAD_DIM};
    if (pool_create(w.threads, true, &w.pool, &err) != OK ||
        cpu_backend_create(argc > 1 ? argv[1] : "auto", w.pool,
                           plan_thread_scratch(&c, &(struct rank_plan){0}), NULL, 0, 0, &w.kernels,
                           &w.backend, &err) != OK) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    fill(dtype);
    measure_machine();
    printf("%-36s %13s %13s %6s %17s %6s\n", "", "a call", "KV cache", "share", "", "share");
    for (int32_t heads = 16; heads <= MAX_HEADS; heads += 16)
        for (size_t i = 0; i < COUNT_OF(shapes); i++)
            report(&shapes[i], heads);
    w.kernels->destroy(w.backend);
    pool_destroy(w.pool);
    free(w.kv.data);
    free(w.q);
    free(w.out);
    return 0;
}
