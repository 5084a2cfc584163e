/*
 * Broken invariants: CHECK() is always on. It prints rank, file, line, the condition and the values
 * given, then aborts. Use it for what no input can cause; what input can cause is an error
 * (error.h).
 */
#ifndef WITAN_BASE_CHECK_H
#define WITAN_BASE_CHECK_H

#include <stddef.h>

/* Does not return. */
_Noreturn void check_failed(const char *file, int line, const char *cond, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            check_failed(__FILE__, __LINE__, #cond, __VA_ARGS__);                                  \
    } while (0)

/* Memory that start-up cannot do without: aborts with the size when there is none. Zeroed. */
void *check_calloc(size_t count, size_t size);

/* 64-byte aligned and zeroed, for kernels' buffers; free() releases it. NULL when there is none. */
void *aligned_zalloc(size_t size_bytes);

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
