/*
 * What the CPU's kernels of 8-bit and 4-bit weights (worker/cpu/panels.c) reach of what this
 * machine can do in the same run: reading memory, for one row; multiplying and adding bytes in
 * registers with the same instructions, for many. For one thread and for two, which share each
 * matrix as the stages do; the quickest of many short bursts each.
 *
 *   panels_bench [SET...]    sets of worker/cpu/choose.c; default: all that this processor runs
 *   panels_bench --limits N  only what the machine can do with N threads and the set that is chosen
 *                            by itself, for programs
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/pool.h"
#include "worker/cpu/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    POOL_MIB = 384, /* weights that no cache holds */
    MAX_ROWS = 512,
    MAX_COLS = 2048,
    MAX_OUT = 32768,
    THREADS = 2,
    CHAINS = 12,
    ROUNDS = 60000,
    MEASURE_MS = 400,
    BURST_MS = 3,
};

static volatile uint64_t sink;

/* What threads do together: `fn` for each of `calls` pieces of work. */
struct work {
    void (*fn)(struct work *w, int64_t call, int thread);
    int64_t calls;
    int threads;
    double seconds[THREADS]; /* of each thread's own time, so that others disturb little */
    const struct cpu_ops *ops;
    struct act x;
    float *y; /* [THREADS][MAX_ROWS][..] */
    void *scratch[THREADS];
    char *pool;
    int32_t m, n, k;
    int bits;
};

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void work_thread(void *arg, int thread)
{
    struct work *w = arg;
    double start = thread_seconds();
    for (int64_t i = 0; i < w->calls; i++)
        w->fn(w, i, thread);
    w->seconds[thread] = thread_seconds() - start;
}

/* The slower thread's seconds. */
static double run_once(struct pool *pool, struct work *w)
{
    double most = 0.0;
    pool_run(pool, work_thread, w);
    for (int i = 0; i < w->threads; i++)
        most = w->seconds[i] > most ? w->seconds[i] : most;
    return most;
}

/* Seconds a call: the quickest of bursts. */
static double measure(struct pool *pool, struct work *w)
{
    double best = 1e9;
    w->calls = 1;
    run_once(pool, w);
    double first = run_once(pool, w);
    w->calls = first < BURST_MS * 1e-3 ? (int64_t)(BURST_MS * 1e-3 / first) + 1 : 1;
    for (int64_t start = clock_now_ns(); clock_now_ns() - start < MEASURE_MS * 1000000LL;) {
        double t = run_once(pool, w) / (double)w->calls;
        best = t < best ? t : best;
    }
    return best;
}

enum { READ_MIB = 64 };

/* A thread's part of the next READ_MIB of the pool. */
static void read_memory(struct work *w, int64_t call, int thread)
{
    const size_t bytes = (size_t)READ_MIB << 20;
    const char *from = w->pool + (size_t)(call % (POOL_MIB / READ_MIB)) * bytes;
    const uint64_t *p = (const uint64_t *)(const void *)(from + bytes / (size_t)w->threads *
                                                                    (size_t)thread);
    uint64_t s[8] = {0};
    for (size_t i = 0; i < bytes / (size_t)w->threads / sizeof *p; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += p[i + (size_t)j];
    sink = s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

/* Multiplications of codes in registers: each instruction set's dot_add (worker/cpu/dot.h). */
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static void
peak_vnni(struct work *w, int64_t call, int thread)
{
    __m512i a[CHAINS], b = _mm512_set1_epi8(3), c = _mm512_set1_epi8((char)call);
    (void)w, (void)thread;
    for (int i = 0; i < CHAINS; i++)
        a[i] = _mm512_set1_epi32(i);
    for (int r = 0; r < ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            a[i] = _mm512_dpbusd_epi32(a[i], b, c);
    for (int i = 1; i < CHAINS; i++)
        a[0] = _mm512_add_epi32(a[0], a[i]);
    sink = (uint64_t)_mm512_reduce_add_epi32(a[0]);
}

/* Two products each, as both halves of an activation have one. The factor must change, or the
 * compiler multiplies once. */
__attribute__((target("avx512f,avx512bw"))) static void peak_avx512(struct work *w, int64_t call,
                                                                    int thread)
{
    __m512i a[CHAINS], b = _mm512_set1_epi8(3), c = _mm512_set1_epi8((char)call);
    (void)w, (void)thread;
    for (int i = 0; i < CHAINS; i++)
        a[i] = _mm512_set1_epi16((short)i);
    for (int r = 0; r < ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            __asm__("" : "+v"(c));
            a[i] = _mm512_add_epi16(a[i], _mm512_maddubs_epi16(b, c));
        }
    for (int i = 1; i < CHAINS; i++)
        a[0] = _mm512_add_epi16(a[0], a[i]);
    sink = (uint64_t)_mm512_reduce_add_epi32(a[0]);
}

__attribute__((target("avx2"))) static void peak_avx2(struct work *w, int64_t call, int thread)
{
    __m256i a[CHAINS], b = _mm256_set1_epi8(3), c = _mm256_set1_epi8((char)call);
    (void)w, (void)thread;
    for (int i = 0; i < CHAINS; i++)
        a[i] = _mm256_set1_epi16((short)i);
    for (int r = 0; r < ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) {
            __asm__("" : "+x"(c));
            a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(b, c));
        }
    for (int i = 1; i < CHAINS; i++)
        a[0] = _mm256_add_epi16(a[0], a[i]);
    sink = (uint64_t)_mm256_extract_epi32(a[0], 0);
}
#endif

/* Multiply-adds a second; 0 where none is written. */
static double peak(struct pool *pool, struct work *w)
{
    double each = 0.0; /* of a chain's step: columns times rows of weights */
    w->fn = NULL;
#if defined(__x86_64__)
    if (strcmp(w->ops->name, "avx512vnni") == 0)
        w->fn = peak_vnni, each = 64;
    else if (strcmp(w->ops->name, "avx512") == 0)
        w->fn = peak_avx512, each = 64 / 2.0;
    else if (strcmp(w->ops->name, "avx2") == 0)
        w->fn = peak_avx2, each = 32 / 2.0;
#endif
    return w->fn ? each * CHAINS * ROUNDS * w->threads / measure(pool, w) : 0.0;
}

static struct matrix matrix_of(const struct work *w, int64_t call)
{
    uint64_t bytes = panel_bytes(w->k, w->bits) * (uint64_t)panel_count(w->n);
    uint64_t count = ((uint64_t)POOL_MIB << 20) / bytes;
    return (struct matrix){.data = w->pool + (uint64_t)call % count * bytes,
                           .rows = w->n,
                           .cols = w->k,
                           .shape = {.form = w->bits == 4 ? FORM_PANELS4 : FORM_PANELS8}};
}

static void multiply(struct work *w, int64_t call, int thread)
{
    struct matrix one = matrix_of(w, call);
    int64_t p0, p1;
    pool_part(panel_count(w->n), 1, w->threads, thread, &p0, &p1);
    w->ops->gemm_panels(&w->x, NULL, w->m, &one, (int32_t)p0, (int32_t)p1, (struct ahead){0},
                        w->y + p0 * PANEL_ROWS, w->n, w->scratch[thread]);
}

static const struct shape {
    const char *name;
    int32_t n, k;
} shapes[] = {
    {"expert 384x1024", 384, 1024},
    {"expert 768x2048", 768, 2048},
    {"q_proj 4096x2048", 4096, 2048},
    {"lm_head 32768x1024", 32768, 1024},
};
static const int32_t row_counts[] = {1, 2, 4, 8, 16, 32, 64, 512};

static void measure_shape(struct pool *pool, struct work *w, const struct shape *s, double read,
                          double most)
{
    w->fn = multiply;
    w->n = s->n;
    w->k = s->k;
    w->x.blocks = panel_blocks(s->k);
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        w->m = row_counts[i];
        if ((int64_t)w->m * w->n > (int64_t)MAX_ROWS * 4096)
            continue;
        double t = measure(pool, w);
        double bytes = (double)panel_bytes(w->k, w->bits) * panel_count(w->n);
        double sums = (double)w->m * w->n * w->k;
        printf("%-10s %d  %-18s %d  %4d %10.1f %8.2f %5.2f %9.1f %5.2f\n", w->ops->name, w->threads,
               s->name, w->bits, w->m, t * 1e6, bytes / t * 1e-9, bytes / t / read, sums / t * 1e-9,
               most > 0.0 ? sums / t / most : 0.0);
        fflush(stdout);
    }
}

/* Bytes that as bf16 are scales near 0.01; activations are quantised by the set itself. */
static void fill(struct work *w)
{
    uint16_t *half = (uint16_t *)(void *)w->pool;
    uint64_t x = 88172645463325252u;
    float *row = check_calloc(MAX_COLS, sizeof *row);
    for (size_t i = 0; i < ((size_t)POOL_MIB << 20) / 2; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        half[i] = (uint16_t)(0x3c00u | (x & 0x7f));
    }
    w->x.blocks = panel_blocks(MAX_COLS);
    for (int32_t i = 0; i < MAX_ROWS; i++) {
        for (int32_t k = 0; k < MAX_COLS; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            row[k] = (float)(x >> 40) * 0x1p-24f - 0.5f;
        }
        cpu_ops_portable()->quantise(row, MAX_COLS, 0, &w->x, i);
    }
    free(row);
}

static void *room(size_t bytes)
{
    void *p = aligned_alloc(1u << 21, (bytes + (1u << 21) - 1) >> 21 << 21);
    CHECK(p, "no memory for %zu bytes", bytes);
    memset(p, 0, bytes);
    return p;
}

/* Bytes and multiply-adds a second of so many threads, which are kept: NULL where the set does not
 * run here. */
static struct pool *measure_limits(struct work *w, const char *name, int threads, double *read,
                                   double *most)
{
    struct error err;
    struct pool *pool;
    if (cpu_ops_choose(name, &w->ops, &err) != OK) {
        fprintf(stderr, "%s\n", err.msg);
        return NULL;
    }
    CHECK(pool_create(threads, true, &pool, &err) == OK, "%s", err.msg);
    w->threads = threads;
    w->fn = read_memory;
    *read = ((double)READ_MIB * (1 << 20)) / measure(pool, w);
    *most = peak(pool, w);
    return pool;
}

static void say_limits(struct work *w, int threads)
{
    double read, most;
    struct pool *pool = measure_limits(w, "auto", threads, &read, &most);
    CHECK(pool, "no set of kernels");
    printf("{\"kernels\": \"%s\", \"read_bytes_per_s\": %.0f, \"multiply_adds_per_s\": %.0f}\n",
           w->ops->name, read, most);
    pool_destroy(pool);
}

static void measure_set(struct work *w, const char *name, int threads)
{
    double read, most;
    struct pool *pool = measure_limits(w, name, threads, &read, &most);
    if (!pool)
        return;
    printf("%s, %d threads: reads %.2f GB/s; in registers %.1f G multiply-adds/s\n", name, threads,
           read * 1e-9, most * 1e-9);
    for (w->bits = 8; w->bits >= 4; w->bits -= 4)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            measure_shape(pool, w, &shapes[i], read, most);
    pool_destroy(pool);
}

static void measure_all(struct work *w, int count, char *const *names)
{
    printf("%-10s %-2s %-18s %s %5s %10s %8s %5s %9s %5s\n", "set", "T", "shape", "b", "rows", "us",
           "GB/s", "share", "G/s", "share");
    for (int threads = 1; threads <= THREADS; threads++)
        for (int i = 0; i < count; i++)
            measure_set(w, names[i], threads);
}

int main(int argc, char **argv)
{
    static char *const all[] = {"avx512vnni", "avx512", "avx2"};
    char *const *names = argc > 1 ? argv + 1 : all;
    int count = argc > 1 ? argc - 1 : (int)(sizeof all / sizeof *all);
    struct work w = {.pool = room((size_t)POOL_MIB << 20)};
    w.x.code = room((size_t)MAX_ROWS * MAX_COLS);
    w.x.scale = room((size_t)MAX_ROWS * MAX_COLS / PANEL_BLOCK * sizeof(float));
    w.x.bias = room((size_t)MAX_ROWS * MAX_COLS / PANEL_BLOCK * sizeof(int32_t));
    w.y = room((size_t)MAX_ROWS * 4096 * sizeof(float));
    for (int i = 0; i < THREADS; i++)
        w.scratch[i] = room(panel_scratch_bytes(MAX_COLS));
    fill(&w);
    if (argc == 3 && strcmp(argv[1], "--limits") == 0)
        say_limits(&w, atoi(argv[2]) == 1 ? 1 : THREADS);
    else
        measure_all(&w, count, names);
    free(w.pool);
    free(w.x.code);
    free(w.x.scale);
    free(w.x.bias);
    free(w.y);
    for (int i = 0; i < THREADS; i++)
        free(w.scratch[i]);
    return 0;
}
