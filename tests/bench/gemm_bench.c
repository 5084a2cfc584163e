/*
 * How near gemm and gemm_leaf over bf16 and fp32 weights come to what this machine does in the same
 * run: reading memory in one stream a thread (few rows: decode) and fma in registers (many rows:
 * prefill). Everything takes turns, and of each the best turn counts, so that others on the machine
 * disturb little. Of large products a part of the columns is computed.
 *
 *   gemm_bench [KERNELS [THREADS [SECONDS]]]
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"
#include "worker/cpu/ops.h"
#include "worker/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    WEIGHTS_MIB = 256, /* that no cache holds */
    MAX_M = 512,
    MAX_N = 32768,
    MAX_K = 4096,
    GRAIN = 4,
    CHAINS = 12,
    FMA_ROUNDS = 100000,
};

static const struct {
    const char *name;
    int32_t n, k, leaf; /* leaf 0: gemm */
} shapes[] = {
    {"gate/up 384x1024", 384, 1024, 0},     {"down 1024x384, leaves", 1024, 384, FFN_BLOCK},
    {"gate/up 768x2048", 768, 2048, 0},     {"down 2048x768, leaves", 2048, 768, FFN_BLOCK},
    {"q_proj 4096x2048", 4096, 2048, 0},    {"o_proj 2048x4096, leaves", 2048, 4096, 128},
    {"lm_head 32768x1024", 32768, 1024, 0},
};
static const int32_t row_counts[] = {1, 2, 4, 16, 64, 512};

struct bench {
    const struct cpu_ops *ops;
    struct pool *pool;
    char *weights;
    size_t at; /* the next matrix: each call takes another one */
    float *x, *y;
    double *sum;
    struct matrix w;
    int32_t m, leaf;
    volatile double sink;
};

/* As wide as may be for a compiler to make of it what the processor has. */
typedef uint64_t words __attribute__((vector_size(64), may_alias));

#if defined(__x86_64__) && defined(__GLIBC__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static void
read_thread(void *arg, int thread)
{
    struct bench *b = arg;
    int64_t begin, end;
    words s[4] = {0};
    pool_part((int64_t)WEIGHTS_MIB * 1024 * 1024, 4096, pool_threads(b->pool), thread, &begin,
              &end);
    for (int64_t i = begin; i < end; i += (int64_t)sizeof s)
        for (int j = 0; j < 4; j++)
            s[j] ^= ((const words *)(const void *)(b->weights + i))[j];
    s[0] ^= s[1] ^ s[2] ^ s[3];
    b->sink = (double)s[0][0];
}

#if defined(__x86_64__)
#define FMA_PEAK(name, flags, type, op)                                                            \
    __attribute__((target(flags))) static void name(void *arg, int thread)                         \
    {                                                                                              \
        type a[CHAINS], b = op##_set1_ps(0.999f), c = op##_set1_ps(0.001f);                        \
        (void)thread;                                                                              \
        for (int i = 0; i < CHAINS; i++)                                                           \
            a[i] = op##_set1_ps((float)i);                                                         \
        for (int r = 0; r < FMA_ROUNDS; r++)                                                       \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++)                              \
                a[i] = op##_fmadd_ps(a[i], b, c);                                                  \
        for (int i = 1; i < CHAINS; i++)                                                           \
            a[0] = op##_add_ps(a[0], a[i]);                                                        \
        ((struct bench *)arg)->sink = (double)a[0][0];                                             \
    }
FMA_PEAK(fma_256, "avx2,fma", __m256, _mm256)
FMA_PEAK(fma_512, "avx512f", __m512, _mm512)
#endif

static void gemm_thread(void *arg, int thread)
{
    struct bench *b = arg;
    int32_t n = b->w.rows, k = b->w.cols;
    int64_t begin, end;
    pool_part(n, GRAIN, pool_threads(b->pool), thread, &begin, &end);
    if (b->leaf)
        b->ops->gemm_leaf(b->x, k, b->m, &b->w, b->leaf, (int32_t)begin, (int32_t)end,
                          (struct ahead){0}, NULL, NULL, b->sum + begin, n);
    else
        b->ops->gemm(b->x, k, NULL, b->m, &b->w, (int32_t)begin, (int32_t)end, (struct ahead){0},
                     b->y + begin, n);
}

/* A thread alone is timed in its own time, which others on the machine do not spend. */
static int64_t now_ns(const struct bench *b)
{
    struct timespec t;
    if (pool_threads(b->pool) > 1)
        return clock_now_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void keep_best(const struct bench *b, double *best, int64_t start, int calls)
{
    double s = (double)(now_ns(b) - start) * 1e-9 / calls;
    if (*best == 0.0 || s < *best)
        *best = s;
}

/* Rows of weights in a call: all, or as many as keep a turn short. */
static int32_t rows_of(size_t shape, int32_t m)
{
    int64_t most = ((int64_t)1 << 28) / m / shapes[shape].k / 64 * 64;
    most = most < 64 ? 64 : most;
    return shapes[shape].n < most ? shapes[shape].n : (int32_t)most;
}

/* One turn of one shape: some calls, each with weights that no cache holds. */
static void turn(struct bench *b, size_t shape, int32_t m, enum dtype t, double *best)
{
    int32_t n = rows_of(shape, m), k = shapes[shape].k;
    size_t bytes = (size_t)n * (size_t)k * dtype_size(t);
    int calls = (int)(((int64_t)1 << 22) / ((int64_t)n * k * (m < 8 ? 1 : m / 8))) + 1;
    b->m = m;
    b->leaf = shapes[shape].leaf;
    int64_t start = now_ns(b);
    for (int i = 0; i < calls; i++) {
        if (b->at + bytes > (size_t)WEIGHTS_MIB * 1024 * 1024)
            b->at = 0;
        b->w = (struct matrix){.data = b->weights + b->at, .dtype = t, .rows = n, .cols = k};
        b->at += bytes;
        pool_run(b->pool, gemm_thread, b);
    }
    keep_best(b, best, start, calls);
}

struct result {
    double s[COUNT_OF(shapes)][COUNT_OF(row_counts)][2]; /* the last: bf16, fp32 */
    double read_s, fma_s;
    int fma_floats;
};

static void limits(struct bench *b, struct result *r)
{
    int64_t start = now_ns(b);
    pool_run(b->pool, read_thread, b);
    keep_best(b, &r->read_s, start, 1);
#if defined(__x86_64__)
    bool wide = strncmp(b->ops->name, "avx512", 6) == 0;
    if (!wide && strcmp(b->ops->name, "avx2") != 0)
        return;
    r->fma_floats = wide ? 16 : 8;
    start = now_ns(b);
    pool_run(b->pool, wide ? fma_512 : fma_256, b);
    keep_best(b, &r->fma_s, start, 1);
#endif
}

static void measure(struct bench *b, double seconds, struct result *r)
{
    int64_t until = clock_now_ns() + (int64_t)(seconds * 1e9);
    do
        for (size_t s = 0; s < COUNT_OF(shapes); s++) {
            limits(b, r);
            for (size_t i = 0; i < COUNT_OF(row_counts); i++)
                for (int t = 0; t < 2; t++)
                    turn(b, s, row_counts[i], t ? DTYPE_F32 : DTYPE_BF16, &r->s[s][i][t]);
        }
    while (clock_now_ns() < until);
}

static void print(const struct bench *b, const struct result *r)
{
    double read = WEIGHTS_MIB * 1048576.0 / r->read_s, fma = 0.0;
    if (r->fma_s > 0.0)
        fma = 2.0 * FMA_ROUNDS * CHAINS * r->fma_floats * pool_threads(b->pool) / r->fma_s;
    printf("kernels %s, %d threads: reading %.1f GB/s, fma %.1f GFLOP/s\n", b->ops->name,
           pool_threads(b->pool), read * 1e-9, fma * 1e-9);
    printf("%-26s %5s %5s %10s %8s %8s\n", "", "m", "", "us", "of read", "of fma");
    for (size_t s = 0; s < COUNT_OF(shapes); s++)
        for (size_t i = 0; i < COUNT_OF(row_counts); i++)
            for (int t = 0; t < 2; t++) {
                double weights = (double)rows_of(s, row_counts[i]) * shapes[s].k,
                       each = r->s[s][i][t];
                printf("%-26s %5d %5s %10.1f %7.0f%% %7.0f%%\n", shapes[s].name, row_counts[i],
                       t ? "fp32" : "bf16", each * 1e6, 100.0 * weights * (t ? 4 : 2) / each / read,
                       fma > 0.0 ? 200.0 * weights * row_counts[i] / each / fma : 0.0);
            }
}

static void fill(struct bench *b)
{
    struct memory *host = memory_host();
    b->weights = host->alloc(host, (uint64_t)WEIGHTS_MIB * 1024 * 1024, true);
    b->x = host->alloc(host, (uint64_t)MAX_M * MAX_K * sizeof *b->x, true);
    b->y = host->alloc(host, (uint64_t)MAX_M * MAX_N * sizeof *b->y, true);
    b->sum = host->alloc(host, (uint64_t)MAX_M * MAX_K * sizeof *b->sum, true);
    CHECK(b->weights && b->x && b->y && b->sum, "no memory for %d MiB of weights", WEIGHTS_MIB);
    uint16_t *h = (uint16_t *)(void *)b->weights;
    for (size_t i = 0; i < (size_t)WEIGHTS_MIB * 1024 * 512; i++)
        h[i] = (uint16_t)(0x3c00u + (uint32_t)(i * 2654435761u >> 20) % 256u); /* about 0.01 */
    for (size_t i = 0; i < (size_t)MAX_M * MAX_K; i++)
        b->x[i] = (float)(i % 17) * 0.1f - 0.8f;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    static struct result r;
    struct error err;
    enum status st = cpu_ops_choose(argc > 1 ? argv[1] : "auto", &b.ops, &err);
    if (st == OK)
        st = pool_create(argc > 2 ? atoi(argv[2]) : 1, true, &b.pool, &err);
    if (st != OK) {
        fprintf(stderr, "gemm_bench: %s\n", err.msg);
        return 1;
    }
    fill(&b);
    measure(&b, argc > 3 ? atof(argv[3]) : 10.0, &r);
    print(&b, &r);
    struct memory *host = memory_host();
    host->free(host, b.weights);
    host->free(host, b.x);
    host->free(host, b.y);
    host->free(host, b.sum);
    pool_destroy(b.pool);
    return 0;
}
