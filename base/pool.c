/* A team of threads: see pool.h. State: the job's number (a generation), how many have ended it,
 * and the number of the meeting within jobs. */
#include "base/pool.h"
#include "base/beat.h"
#include "base/check.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <linux/futex.h>

enum { SPINS = 4000 };

_Thread_local atomic_ullong *beat_count;

struct pool_thread {
    struct pool *pool;
    int index;
    pthread_t id;
};

/* A word that threads wait on. Waking is a system call, for those alone that sleep. */
struct waited {
    _Alignas(64) atomic_uint word; /* futex */
    atomic_uint sleepers;
};

struct pool {
    int threads;
    int spins;
    int rank; /* of the creating thread, for its helpers' log lines */
    void (*fn)(void *arg, int thread);
    void *arg;
    bool stop;
    struct waited generation;         /* raised when a job starts */
    struct waited running;            /* helpers that have not ended the job */
    struct waited meeting;            /* raised when all have met */
    _Alignas(64) atomic_uint arrived; /* at the meeting */
    struct pool_thread helpers[];     /* [threads - 1] */
};

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Waits until the word differs from `old`, spinning first. */
static unsigned wait_change(struct waited *w, unsigned old, int spins)
{
    unsigned now;
    for (int i = 0; i < spins; i++) {
        now = atomic_load_explicit(&w->word, memory_order_acquire);
        if (now != old)
            return now;
        pause_cpu();
    }
    /* Either the one who changes the word sees a sleeper, or the sleeper sees the change: all four
     * accesses are sequentially consistent. */
    atomic_fetch_add(&w->sleepers, 1);
    while ((now = atomic_load(&w->word)) == old)
        syscall(SYS_futex, (void *)&w->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&w->sleepers, 1);
    return now;
}

/* After a change of the word. */
static void wake_all(struct waited *w)
{
    if (atomic_load(&w->sleepers) > 0)
        syscall(SYS_futex, (void *)&w->word, FUTEX_WAKE_PRIVATE, POOL_MAX_THREADS, NULL, NULL, 0);
}

static void *helper_main(void *arg)
{
    struct pool_thread *self = arg;
    struct pool *p = self->pool;
    log_set_rank(p->rank);
    unsigned seen = 0;
    for (;;) {
        seen = wait_change(&p->generation, seen, p->spins);
        if (p->stop)
            return NULL;
        p->fn(p->arg, self->index);
        if (atomic_fetch_sub(&p->running.word, 1) == 1)
            wake_all(&p->running);
    }
}

static void start_job(struct pool *p)
{
    atomic_store_explicit(&p->running.word, (unsigned)p->threads - 1, memory_order_relaxed);
    atomic_fetch_add(&p->generation.word, 1);
    wake_all(&p->generation);
}

enum status pool_create(int threads, bool spin, struct pool **out, struct error *err)
{
    CHECK(threads >= 1 && threads <= POOL_MAX_THREADS, "%d threads", threads);
    size_t size = sizeof(struct pool) + (size_t)(threads - 1) * sizeof(struct pool_thread);
    struct pool *p = aligned_zalloc(size);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for a pool of %d threads", threads);
    p->threads = 1;
    p->spins = spin ? SPINS : 0;
    p->rank = log_rank();
    for (int i = 0; i < threads - 1; i++) {
        p->helpers[i] = (struct pool_thread){.pool = p, .index = i + 1};
        int e = pthread_create(&p->helpers[i].id, NULL, helper_main, &p->helpers[i]);
        if (e != 0) {
            pool_destroy(p);
            return error_errno(err, e, "cannot start compute thread %d of %d", i + 1, threads);
        }
        p->threads++;
    }
    *out = p;
    return OK;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    p->stop = true;
    atomic_fetch_add(&p->generation.word, 1);
    wake_all(&p->generation);
    for (int i = 0; i < p->threads - 1; i++)
        pthread_join(p->helpers[i].id, NULL);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p->threads;
}

void pool_run(struct pool *p, void (*fn)(void *arg, int thread), void *arg)
{
    beat();
    if (p->threads == 1) {
        fn(arg, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    start_job(p);
    fn(arg, 0);
    unsigned left;
    while ((left = atomic_load_explicit(&p->running.word, memory_order_acquire)) != 0)
        wait_change(&p->running, left, p->spins);
}

void pool_meet(struct pool *p)
{
    if (p->threads == 1)
        return;
    /* No meeting ends before this thread has come, so the number is of this one. */
    unsigned meeting = atomic_load_explicit(&p->meeting.word, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1 <
        (unsigned)p->threads) {
        wait_change(&p->meeting, meeting, p->spins);
        return;
    }
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_fetch_add(&p->meeting.word, 1);
    wake_all(&p->meeting);
}

int cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

void pool_size(int processes, int32_t *threads, bool *spin)
{
    int cores = cpu_count();
    if (*threads == 0)
        *threads = cores / processes > 0 ? cores / processes : 1;
    *spin = (int64_t)*threads * processes <= cores;
}
