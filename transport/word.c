/* Waiting for a word by looking, yielding and futex: see word.h. */
#include "transport/word.h"

#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct word_patience word_patience(int ranks, int cores)
{
    /* Every rank has a core, or so it seems: another process may have taken it, so spin little.
     * Waking a sleeper costs more than the ranks' usual skew. */
    static const struct word_patience own_core = {30, 200};
    /* Ranks share cores: let the others work. */
    static const struct word_patience crowded = {0, 8};
    return ranks <= cores ? own_core : crowded;
}

static void word_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps until it is woken, or for nothing. */
static void word_sleep(struct word *w, uint32_t seen, bool shared, int ms)
{
    const struct timespec most = {ms / 1000, ms % 1000 * 1000000L};
    syscall(SYS_futex, &w->value, shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, seen,
            ms > 0 ? &most : NULL, NULL, 0);
}

uint32_t word_wait(struct word *w, uint32_t seen, struct word_patience p, bool shared, int ms)
{
    uint32_t now;
    for (int i = 0; i < p.spins; i++) {
        if ((now = atomic_load_explicit(&w->value, memory_order_acquire)) != seen)
            return now;
        word_pause();
    }
    for (int i = 0; i < p.yields; i++) {
        if ((now = atomic_load_explicit(&w->value, memory_order_acquire)) != seen)
            return now;
        sched_yield();
    }
    /* Sequentially consistent with word_wake: either it sees the sleeper or we see its value. */
    atomic_fetch_add(&w->sleepers, 1);
    while ((now = atomic_load(&w->value)) == seen) {
        word_sleep(w, seen, shared, ms);
        if (ms > 0)
            break;
    }
    atomic_fetch_sub(&w->sleepers, 1);
    return ms > 0 ? atomic_load(&w->value) : now;
}

void word_wake(struct word *w, bool shared)
{
    if (atomic_load(&w->sleepers) > 0)
        syscall(SYS_futex, &w->value, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, INT32_MAX, NULL,
                NULL, 0);
}
