/*
 * Where a backend keeps weights, KV cache and activations: the host's memory, or a device's. Owned
 * by the backend; any thread.
 */
#ifndef WITAN_WORKER_MEMORY_H
#define WITAN_WORKER_MEMORY_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct memory {
    bool host; /* may be read and written in place; then put and get are copies */
    /* At least `bytes`, aligned for the kernels; NULL when there is no more. `zero`: touched and
     * zeroed, else as it comes. */
    void *(*alloc)(struct memory *m, uint64_t bytes, bool zero);
    void (*free)(struct memory *m, void *p); /* NULL is fine */
    /* `rows` runs of `run` bytes, from the host's memory, which is the caller's again on return. */
    enum status (*put)(struct memory *m, void *to, uint64_t to_stride, const void *from,
                       uint64_t from_stride, uint64_t run, uint64_t rows, struct error *err);
    /* `bytes` to the host's memory, after all stages that were called. */
    enum status (*get)(struct memory *m, void *to, const void *from, uint64_t bytes,
                       struct error *err);
    /* Zeroes `bytes`, after all stages that were called and before those that follow. */
    enum status (*clear)(struct memory *m, void *p, uint64_t bytes, struct error *err);
};

/* The host's memory. Pieces of a page and more begin on a page; large ones lie on huge pages, for
 * fewer faults and misses. */
struct memory *memory_host(void);

#endif
