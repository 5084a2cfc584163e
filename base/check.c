/* CHECK() and memory that must be there: see check.h. No state. */
#include "base/check.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
{
    char words[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(words, sizeof words, fmt, ap);
    va_end(ap);
    fprintf(stderr, "witan: rank %d: %s:%d: broken invariant (%s): %s\n", log_rank(), file, line,
            cond, words);
    abort();
}

void *check_calloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    CHECK(p != NULL, "no memory for %zu x %zu bytes", count, size);
    return p;
}

void *aligned_zalloc(size_t size_bytes)
{
    if (size_bytes > SIZE_MAX - 63)
        return NULL;
    size_t rounded = (size_bytes + 63) & ~(size_t)63;
    void *p = aligned_alloc(64, rounded ? rounded : 64);
    if (p)
        memset(p, 0, rounded);
    return p;
}
