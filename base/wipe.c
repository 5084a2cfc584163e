/* Memory wiped when it is freed: see wipe.h. State: whether, and the functions behind ours. */
#include "base/wipe.h"
#include "base/sandbox.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__) ||        \
    defined(__clang__)

bool wipe_on_free(void)
{
    return false;
}

#else

#include <dlfcn.h>
#include <malloc.h>

/* Larger pieces come from the kernel and go back to it, which wipes (mallopt's M_MMAP_THRESHOLD
 * goes no higher than 32 MiB by itself). */
enum { MOST_BYTES = 64 << 20 };

static atomic_bool wiping;

static void wipe(void *p)
{
    size_t n = malloc_usable_size(p);
    if (n <= MOST_BYTES)
        explicit_bzero(p, n);
}

/* The allocator's own, which another one may stand for (LD_PRELOAD). */
static void *behind(_Atomic(void *) *known, const char *name)
{
    static _Thread_local bool asking;
    void *f = atomic_load_explicit(known, memory_order_acquire);
    if (f || asking) /* what dlsym itself frees, before the first answer, stays */
        return f;
    asking = true;
    f = dlsym(RTLD_NEXT, name);
    asking = false;
    atomic_store_explicit(known, f, memory_order_release);
    return f;
}

static void free_behind(void *p)
{
    static _Atomic(void *) known;
    void (*f)(void *) = NULL;
    void *symbol = behind(&known, "free");
    memcpy(&f, &symbol, sizeof f); /* POSIX: the way from void * to a function */
    if (f)
        f(p);
}

static void *realloc_behind(void *p, size_t n)
{
    static _Atomic(void *) known;
    void *(*f)(void *, size_t) = NULL;
    void *symbol = behind(&known, "realloc");
    memcpy(&f, &symbol, sizeof f);
    return f ? f(p, n) : NULL;
}

/* Before there are threads: asked as one ends, dlsym would let go of its error while the thread's
 * own end does so too. */
__attribute__((constructor)) static void ask(void)
{
    void *p = realloc_behind(malloc(1), 2);
    free_behind(p);
}

void free(void *p)
{
    if (!p)
        return;
    if (atomic_load_explicit(&wiping, memory_order_relaxed))
        wipe(p);
    free_behind(p);
}

void *realloc(void *p, size_t n)
{
    if (!p || !atomic_load_explicit(&wiping, memory_order_relaxed))
        return realloc_behind(p, n);
    size_t old = malloc_usable_size(p);
    if (n <= old || old > MOST_BYTES) {
        if (n < old && old <= MOST_BYTES)
            explicit_bzero((char *)p + n, old - n);
        return realloc_behind(p, n);
    }
    void *q = malloc(n);
    if (!q)
        return NULL;
    memcpy(q, p, old);
    free(p);
    return q;
}

bool wipe_on_free(void)
{
    atomic_store(&wiping, true);
    return true;
}

#endif
