/* The host's memory: see memory.h. No state. */
#include "worker/memory.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, HUGE_PAGE = 2 << 20 };

static void *host_alloc(struct memory *m, uint64_t bytes, bool zero)
{
    (void)m;
    if (bytes > SIZE_MAX - HUGE_PAGE)
        return NULL;
    uint64_t align = bytes < FILE_PAGE ? ALIGN : bytes < HUGE_PAGE ? FILE_PAGE : HUGE_PAGE;
    uint64_t whole = (bytes + align - 1) / align * align;
    void *p = aligned_alloc(align, whole ? whole : ALIGN);
    if (p && align == HUGE_PAGE)
        madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* no matter where it cannot */
    if (p && zero)
        memset(p, 0, bytes);
    return p;
}

static void host_free(struct memory *m, void *p)
{
    (void)m;
    free(p);
}

static enum status host_put(struct memory *m, void *to, uint64_t to_stride, const void *from,
                            uint64_t from_stride, uint64_t run, uint64_t rows, struct error *err)
{
    (void)m;
    (void)err;
    for (uint64_t r = 0; r < rows; r++)
        memcpy((char *)to + r * to_stride, (const char *)from + r * from_stride, run);
    return OK;
}

static enum status host_get(struct memory *m, void *to, const void *from, uint64_t bytes,
                            struct error *err)
{
    (void)m;
    (void)err;
    memcpy(to, from, bytes);
    return OK;
}

static enum status host_clear(struct memory *m, void *p, uint64_t bytes, struct error *err)
{
    (void)m;
    (void)err;
    memset(p, 0, bytes);
    return OK;
}

struct memory *memory_host(void)
{
    static struct memory host = {true, host_alloc, host_free, host_put, host_get, host_clear};
    return &host;
}
