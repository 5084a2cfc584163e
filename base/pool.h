/*
 * A fixed team of threads that run one function together: the CPU kernels' and the loader's
 * parallelism. The caller is thread 0, so a pool of one has no other threads. One caller at a time.
 *
 * Why not OpenMP: ranks are threads of one process under the local transport, each with its own
 * team; ThreadSanitizer cannot see into libgomp; and how long a waiting thread spins must be ours
 * to choose when ranks outnumber cores (docs/decisions.md).
 */
#ifndef WITAN_BASE_POOL_H
#define WITAN_BASE_POOL_H

#include "base/error.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pool;

enum { POOL_MAX_THREADS = 256 };

/* `threads` 1..POOL_MAX_THREADS. `spin`: waiting threads spin for some microseconds before they
 * sleep; false where threads outnumber cores. */
enum status pool_create(int threads, bool spin, struct pool **out, struct error *err);
void pool_destroy(struct pool *p);
int pool_threads(const struct pool *p);

/* Runs fn(arg, thread) once on each thread and waits for all. Allocates nothing. */
void pool_run(struct pool *p, void (*fn)(void *arg, int thread), void *arg);

/* In a job: waits until all threads of the pool have come as far. Each of them calls it, or none:
 * what they wrote before, all read after. */
void pool_meet(struct pool *p);

/* Tasks of a job that whichever thread is free takes, each once: {.count}. */
struct pool_tasks {
    int64_t count;
    _Alignas(64) atomic_llong next;
};

/* The next task, in order, or -1 where none is left. */
static inline int64_t pool_take(struct pool_tasks *t)
{
    int64_t i = atomic_fetch_add_explicit(&t->next, 1, memory_order_relaxed);
    return i < t->count ? i : -1;
}

/* One more before the last one taken is done, so that what it reads can be asked for meanwhile. It
 * is this thread's then: where tasks are few, -1, and it is taken when the thread is free. */
static inline int64_t pool_take_ahead(struct pool_tasks *t, int threads)
{
    return t->count > 4 * (int64_t)threads ? pool_take(t) : -1;
}

/* The part of [0, n) that `thread` of `threads` takes, in multiples of `grain`. */
static inline void pool_part(int64_t n, int64_t grain, int threads, int thread, int64_t *begin,
                             int64_t *end)
{
    int64_t units = (n + grain - 1) / grain;
    int64_t b = units * thread / threads * grain, e = units * (thread + 1) / threads * grain;
    *begin = b < n ? b : n;
    *end = e < n ? e : n;
}

/* Processors that this process may run on. */
int cpu_count(void);

/* How many threads each of `processes` alike on this machine takes: *threads where it is not 0,
 * else an equal share of the processors; and whether they may spin. */
void pool_size(int processes, int32_t *threads, bool *spin);

#endif
