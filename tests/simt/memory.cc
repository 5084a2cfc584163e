/*
 * Device memory, and the check of every load and store of kernels: bounds, life, alignment, memory
 * never written, memory that may not be written, and races. See runtime.h.
 *
 * Allocations lie in one reserved range, each from a page of its own with a gap after it, and
 * addresses are not used twice, so a stale pointer is seen. Beside every byte: whether it was
 * written, and the tags of its last write and its last read. __shared__ variables are the program's
 * own static variables, with a shadow of the same kind. The last read only: a race with an earlier
 * reader alone is seen under another schedule, or another element shows it.
 */
#include "runtime.h"

#include <algorithm>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct launch &run = launch_now;

static const uintptr_t HEAP_BYTES = (uintptr_t)16 << 30;
enum {
    PAGE = 4096,
    PAGE_SHIFT = 12,
    GAP_PAGES = 16,
    SHARED_BYTES = 256 * 1024,
    SHARED_ALIGN = 256
};
enum { UNWRITTEN, WRITTEN, PENDING }; /* of a byte; what a fresh page of the shadow says first */
static const int POISON = 0xff;       /* what unwritten bytes hold: NaN, or -1 */

/* A range of addresses and its shadow. */
struct space {
    uintptr_t base, size;
    uint8_t *state;
    uint32_t *written, *read; /* tags */
    uint32_t *owner;          /* index in allocations, of each page (heap) or byte (variables) */
};
static struct space heap, variables;
static uintptr_t heap_used;
static uint64_t device_bytes = UINT64_MAX, device_used; /* simt_memory; of live allocations */
/* The first owns what is not allocated, the second is the block's dynamic shared memory. */
static std::vector<allocation> allocations;
enum { NOTHING, DYNAMIC_SHARED };

static void *reserve(uintptr_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr,
                "simt: cannot reserve %llu MiB of addresses: expected no limit on virtual memory "
                "(ulimit -v)\n",
                (unsigned long long)(bytes >> 20));
        abort();
    }
    return p;
}

static void space_create(struct space *s, uintptr_t base, uintptr_t size, uintptr_t owners)
{
    s->base = base;
    s->size = size;
    s->state = (uint8_t *)reserve(size);
    s->written = (uint32_t *)reserve(size * sizeof *s->written);
    s->read = (uint32_t *)reserve(size * sizeof *s->read);
    s->owner = (uint32_t *)reserve(owners * sizeof *s->owner);
}

static allocation *allocation_add(uintptr_t base, size_t bytes, const std::string &name,
                                  bool shared)
{
    allocations.push_back({base, base + bytes, name, shared, false, false, false, false, 0});
    return &allocations.back(); /* until the next is added */
}

static allocation *heap_add(size_t bytes, const std::string &name, bool shared)
{
    uintptr_t pages = (bytes + PAGE - 1) / PAGE + GAP_PAGES;
    if (bytes > HEAP_BYTES || heap_used + pages * PAGE > HEAP_BYTES)
        return NULL;
    allocation *al = allocation_add(heap.base + heap_used, bytes, name, shared);
    for (uintptr_t i = 0; i < pages; i++)
        heap.owner[(heap_used >> PAGE_SHIFT) + i] = (uint32_t)allocations.size() - 1;
    heap_used += pages * PAGE;
    return al;
}

static void variables_create()
{
    const std::vector<shared_variable> &all = symbols_shared();
    if (all.empty())
        return;
    uintptr_t base = all.front().base, end = all.back().end + SHARED_ALIGN;
    space_create(&variables, base, end - base, end - base);
    for (size_t i = 0; i < all.size(); i++) { /* each owns the gap up to the next, too */
        const shared_variable &v = all[i];
        uintptr_t next = i + 1 < all.size() ? all[i + 1].base : end;
        allocation_add(v.base, v.end - v.base, "__shared__ " + v.name, true);
        for (uintptr_t a = v.base; a < next; a++)
            variables.owner[a - base] = (uint32_t)allocations.size() - 1;
    }
}

static void memory_create()
{
    if (heap.base)
        return;
    space_create(&heap, (uintptr_t)reserve(HEAP_BYTES), HEAP_BYTES, HEAP_BYTES >> PAGE_SHIFT);
    heap_used = PAGE;
    allocation_add(1, 0, "nothing", false);
    heap_add(SHARED_BYTES, "dynamic shared memory", true);
    variables_create();
}

/* The allocation whose addresses these are, or the one that owns nothing. */
static allocation *find(uintptr_t a, struct space **s)
{
    *s = &heap;
    if (a - heap.base < heap.size)
        return &allocations[heap.owner[(a - heap.base) >> PAGE_SHIFT]];
    if (a - variables.base < variables.size) {
        *s = &variables;
        return &allocations[variables.owner[a - variables.base]];
    }
    return &allocations[NOTHING];
}

std::string address_text(uintptr_t a)
{
    struct space *s;
    const allocation *al = find(a, &s);
    char text[64];
    if (al == &allocations[NOTHING]) {
        snprintf(text, sizeof text, "0x%llx", (unsigned long long)a);
        return text;
    }
    snprintf(text, sizeof text, " + %lld (of %llu bytes)", (long long)(a - al->base),
             (unsigned long long)(al->end - al->base));
    return al->name + text;
}

/* ---- The host's side ---- */

static int alloc(void **out, size_t bytes, const char *kind, bool host)
{
    if (int code = record_forbids())
        return code;
    std::lock_guard<std::mutex> guard(device_turns);
    memory_create();
    *out = NULL;
    if (!host && (device_used > device_bytes || bytes > device_bytes - device_used))
        return 2; /* as cudaErrorMemoryAllocation */
    std::string name = kind + std::to_string(allocations.size());
    allocation *al = heap_add(bytes, name, false);
    if (!al)
        return 2;
    al->host = host;
    device_used += host ? 0 : bytes;
    memset((void *)al->base, POISON, bytes);
    if (host)
        memset(heap.state + (al->base - heap.base), WRITTEN, bytes);
    *out = (void *)al->base;
    return 0;
}

int device_alloc(void **out, size_t bytes)
{
    return alloc(out, bytes, "allocation ", false);
}

int device_alloc_host(void **out, size_t bytes)
{
    return alloc(out, bytes, "host allocation ", true);
}

/* A live allocation that holds [a, a + bytes), or a fault. */
static allocation *host_range(const void *p, size_t bytes, const char *what)
{
    uintptr_t a = (uintptr_t)p;
    struct space *s;
    memory_create();
    order_host();
    allocation *al = find(a, &s);
    if (al == &allocations[NOTHING] || al->shared)
        fault(NULL, {}, "%s: %s: expected device memory", what, address_text(a).c_str());
    else if (al->freed)
        fault(NULL, {}, "%s: %s: it was freed", what, address_text(a).c_str());
    else if (a < al->base || bytes > al->end - a)
        fault(NULL, {}, "%s: %zu bytes at %s", what, bytes, address_text(a).c_str());
    else
        return al;
    report_launch();
    return NULL;
}

int device_free(void *p)
{
    if (int code = record_forbids())
        return code;
    std::lock_guard<std::mutex> guard(device_turns);
    if (!p)
        return 0;
    allocation *al = host_range(p, 0, "device_free");
    if (!al)
        return 1;
    size_t bytes = al->end - al->base, offset = al->base - heap.base;
    al->freed = true;
    device_used -= al->host ? 0 : bytes;
    madvise((void *)al->base, bytes, MADV_DONTNEED);
    madvise(heap.state + offset, bytes, MADV_DONTNEED);
    madvise(heap.written + offset, bytes * sizeof *heap.written, MADV_DONTNEED);
    madvise(heap.read + offset, bytes * sizeof *heap.read, MADV_DONTNEED);
    return 0;
}

int device_free_host(void *p)
{
    return device_free(p);
}

void device_memory(uint64_t *bytes, uint64_t *free_bytes)
{
    std::lock_guard<std::mutex> guard(device_turns);
    *bytes = *free_bytes = device_bytes;
    if (device_bytes != UINT64_MAX)
        *free_bytes = device_bytes > device_used ? device_bytes - device_used : 0;
}

void simt_memory(uint64_t bytes)
{
    std::lock_guard<std::mutex> guard(device_turns);
    device_bytes = bytes;
}

uint64_t simt_allocated(void)
{
    std::lock_guard<std::mutex> guard(device_turns);
    return device_used;
}

static bool is_device(const void *p)
{
    return heap.base && (uintptr_t)p - heap.base < heap.size;
}

static void mark_written(void *p, size_t bytes)
{
    memset(heap.state + ((uintptr_t)p - heap.base), WRITTEN, bytes);
}

/* Between host and device, or on the device: a copy takes along what was never written. */
int device_write(void *to, const void *from, size_t bytes, device_stream stream)
{
    if (record_node([=] { return device_write(to, from, bytes, stream); }))
        return 0;
    std::lock_guard<std::mutex> guard(device_turns);
    if (!host_range(to, bytes, "device_write"))
        return 1;
    if (is_device(from)) {
        if (!host_range(from, bytes, "device_write"))
            return 1;
        memmove(heap.state + ((uintptr_t)to - heap.base),
                heap.state + ((uintptr_t)from - heap.base), bytes);
    } else {
        mark_written(to, bytes);
    }
    memmove(to, from, bytes);
    return 0;
}

int device_read(void *to, const void *from, size_t bytes, device_stream stream)
{
    if (record_node([=] { return device_read(to, from, bytes, stream); }))
        return 0;
    std::lock_guard<std::mutex> guard(device_turns);
    if (!host_range(from, bytes, "device_read"))
        return 1;
    memcpy(to, from, bytes);
    return 0;
}

int device_fill(void *to, int byte, size_t bytes, device_stream stream)
{
    if (record_node([=] { return device_fill(to, byte, bytes, stream); }))
        return 0;
    std::lock_guard<std::mutex> guard(device_turns);
    if (!host_range(to, bytes, "device_fill"))
        return 1;
    memset(to, byte, bytes);
    mark_written(to, bytes);
    return 0;
}

int device_wait(device_stream stream)
{
    (void)stream;
    return record_forbids();
}

const char *device_error_text(int code)
{
    return code == 0     ? "no error"
           : code == 2   ? "out of device memory"
           : code >= 900 ? "not allowed in a recording"
                         : "a fault in a kernel or a bad argument";
}

void simt_protect(const void *p, bool read_only)
{
    std::lock_guard<std::mutex> guard(device_turns);
    allocation *al = host_range(p, 0, "simt_protect");
    if (al)
        al->protected_always = read_only;
}

/* ---- A launch's side ---- */

static allocation *argument_allocation(const void *p)
{
    struct space *s;
    return is_device(p) ? find((uintptr_t)p, &s) : &allocations[NOTHING];
}

void memory_launch(size_t shared_bytes, const simt_kernel *kernel)
{
    memory_create();
    allocations[DYNAMIC_SHARED].end = allocations[DYNAMIC_SHARED].base + shared_bytes;
    for (allocation &al : allocations) {
        al.protected_now = al.protected_always;
        al.block = 0;
    }
    for (const void *const *p = kernel->read_only; *p && !kernel->opaque; p++)
        argument_allocation(*p)->protected_now = true;
    for (const void *const *p = kernel->written; *p; p++)
        argument_allocation(*p)->protected_now = argument_allocation(*p)->protected_always;
}

void memory_forget_tags()
{
    madvise(heap.written, heap_used * sizeof *heap.written, MADV_DONTNEED);
    madvise(heap.read, heap_used * sizeof *heap.read, MADV_DONTNEED);
    madvise(variables.written, variables.size * sizeof *heap.written, MADV_DONTNEED);
    madvise(variables.read, variables.size * sizeof *heap.read, MADV_DONTNEED);
    for (allocation &al : allocations)
        al.block = 0;
}

/* A block's first access to a shared allocation finds it as at the block's start. */
static void clear_shared(struct space *s, allocation *al)
{
    size_t bytes = al->end - al->base;
    memset((void *)al->base, POISON, bytes);
    memset(s->state + (al->base - s->base), UNWRITTEN, bytes);
    al->block = run.block_start;
}

void *simt_dynamic_shared()
{
    return (void *)allocations[DYNAMIC_SHARED].base;
}

bool memory_is_shared(uintptr_t a)
{
    struct space *s;
    return find(a, &s)->shared;
}

static const char *verb(enum access_kind kind)
{
    static const char *const verbs[] = {"reads", "writes", "does an atomic on"};
    return verbs[kind];
}

static void fault_bounds(const struct thread *t, uintptr_t a, unsigned size, enum access_kind kind,
                         const allocation *al, struct place place)
{
    if (al->freed)
        fault(t, place, "%s %u bytes at %s, which was freed", verb(kind), size,
              address_text(a).c_str());
    if (al != &allocations[NOTHING])
        fault(t, place, "%s %u bytes at %s: out of bounds", verb(kind), size,
              address_text(a).c_str());
    fault(t, place, "%s %u bytes at 0x%llx, which is not device memory", verb(kind), size,
          (unsigned long long)a);
}

/* What is not the device's, but may be touched: constants, and what the compiler added. */
static bool harmless(uintptr_t a, enum access_kind kind)
{
    return (kind == LOAD && symbols_constant(a)) || symbols_guard(a);
}

static void check_written(const struct thread *t, const uint8_t *state, uintptr_t a, unsigned size,
                          enum access_kind kind, struct place place)
{
    for (unsigned i = 0; i < size; i++)
        if (state[i] == PENDING)
            fault(t, place, "%s %u bytes at %s: a cp.async into it has not been waited for",
                  verb(kind), size, address_text(a).c_str());
        else if (state[i] == UNWRITTEN && kind != STORE)
            fault(t, place, "%s %u bytes at %s: never written", verb(kind), size,
                  address_text(a).c_str());
}

/* The last accesses, so that a race can tell of both of its lines. */
struct trace {
    uintptr_t address;
    const void *where; /* a file with `line`, or with 0 an address in the code */
    int line;
    uint32_t tag;
    uint16_t size;
    bool wrote;
};
enum { TRACES = 1 << 16 };
static struct trace traces[TRACES];
static size_t traced;

static inline void trace_add(uintptr_t a, unsigned size, bool wrote, uint32_t tag,
                             struct place place)
{
    const void *where = place.file ? (const void *)place.file : place.pc;
    traces[traced++ % TRACES] = {a, where, place.line, tag, (uint16_t)size, wrote};
}

/* Where the access of a byte with this tag was, or nowhere. */
static struct place trace_find(uintptr_t a, bool wrote, uint32_t tag)
{
    for (size_t i = 0; i < TRACES && i < traced; i++) {
        const struct trace &e = traces[(traced - 1 - i) % TRACES];
        if (e.tag == tag && e.wrote == wrote && a - e.address < e.size)
            return e.line ? place{(const char *)e.where, e.line, NULL} : place{NULL, 0, e.where};
    }
    return {};
}

static void check_order(const struct thread *t, const uint32_t *tags, bool was_write, uintptr_t a,
                        unsigned size, enum access_kind kind, bool shared, struct place place)
{
    for (unsigned i = 0; i < size; i++)
        if (!(kind == ATOMIC && (tags[i] & TAG_ATOMIC)) && !ordered(t, tags[i], shared)) {
            fault_other(trace_find(a + i, was_write, tags[i]));
            fault(t, place, "race: %s %u bytes at %s, which %s %s: nothing orders the two",
                  verb(kind), size, address_text(a).c_str(), tag_text(tags[i]).c_str(),
                  was_write ? "wrote" : "read");
        }
}

/* Do any of these tags need a look? Those below the limit are ordered, and so are one's own. */
template <unsigned SIZE>
static inline bool recent(const uint32_t *tags, uint32_t limit, uint32_t own)
{
    unsigned any = 0;
    for (unsigned i = 0; i < SIZE; i++)
        any |= (unsigned)(tags[i] >= limit) & (unsigned)(tags[i] != own);
    return any;
}

template <unsigned SIZE> static inline bool all_written(const uint8_t *state)
{
    unsigned bad = 0;
    for (unsigned i = 0; i < SIZE; i++)
        bad |= state[i] ^ (unsigned)WRITTEN;
    return bad == 0;
}

template <unsigned SIZE>
static inline void check(uintptr_t a, enum access_kind kind, bool aligned, struct place place)
{
    struct thread *t = simt_self;
    if (!t || a - t->stack < STACK_BYTES)
        return;
    counts_now.accesses++;
    struct space *s;
    allocation *al = find(a, &s);
    if (__builtin_expect(a < al->base || a + SIZE > al->end || al->freed, 0)) {
        if (harmless(a, kind))
            return;
        fault_bounds(t, a, SIZE, kind, al, place);
    }
    if (__builtin_expect(aligned && a % SIZE != 0, 0))
        fault(t, place, "%s %u bytes at %s: not aligned to their size", verb(kind), SIZE,
              address_text(a).c_str());
    if (__builtin_expect(kind != LOAD && al->protected_now, 0))
        fault(t, place, "%s %u bytes at %s, which this kernel may only read", verb(kind), SIZE,
              address_text(a).c_str());
    if (__builtin_expect(al->shared && al->block != run.block_start, 0))
        clear_shared(s, al);
    if (__builtin_expect(counting, 0))
        counts_access(t, a, SIZE, al->shared, place);

    size_t offset = a - s->base;
    uint8_t *state = s->state + offset;
    uint32_t *written = s->written + offset, *read = s->read + offset;
    tick_t start = t->follows ? run.launch_start : run.overlap_start;
    uint32_t limit = (al->shared ? run.floor : start) << TAG_SHIFT;
    uint32_t own = t->tag | (kind == ATOMIC ? (uint32_t)TAG_ATOMIC : 0);
    if (__builtin_expect(!all_written<SIZE>(state), 0))
        check_written(t, state, a, SIZE, kind, place);
    if (recent<SIZE>(written, limit, own))
        check_order(t, written, true, a, SIZE, kind, al->shared, place);
    trace_add(a, SIZE, kind != LOAD, own, place);
    if (kind == LOAD) {
        for (unsigned i = 0; i < SIZE; i++)
            read[i] = own;
        return;
    }
    if (recent<SIZE>(read, limit, own))
        check_order(t, read, false, a, SIZE, kind, al->shared, place);
    for (unsigned i = 0; i < SIZE; i++)
        written[i] = own;
    memset(state, WRITTEN, SIZE);
}

void memory_check(uintptr_t a, unsigned size, enum access_kind kind, struct place place)
{
    if (size == 16)
        check<16>(a, kind, true, place);
    else if (size == 8)
        check<8>(a, kind, true, place);
    else if (size == 4)
        check<4>(a, kind, true, place);
    else
        for (unsigned i = 0; i < size; i++)
            check<1>(a + i, kind, true, place);
}

void memory_pend(uintptr_t a, unsigned size)
{
    struct space *s;
    find(a, &s);
    memset(s->state + (a - s->base), PENDING, size);
}

void memory_landed(uintptr_t a, unsigned size, uint32_t tag, struct place place)
{
    struct space *s;
    find(a, &s);
    memset(s->state + (a - s->base), WRITTEN, size);
    for (unsigned i = 0; i < size; i++)
        s->written[a - s->base + i] = tag;
    trace_add(a, size, true, tag, place);
}

/* ---- What the compiler's instrumentation and the vector types call ---- */

#define HERE                                                                                       \
    place                                                                                          \
    {                                                                                              \
        NULL, 0, __builtin_return_address(0)                                                       \
    }
#define HOOK(NAME, SIZE, KIND, ALIGNED)                                                            \
    extern "C" void __tsan_##NAME(void *p);                                                        \
    extern "C" void __tsan_##NAME(void *p)                                                         \
    {                                                                                              \
        check<SIZE>((uintptr_t)p, KIND, ALIGNED, HERE);                                            \
    }
#define HOOKS(SIZE)                                                                                \
    HOOK(read##SIZE, SIZE, LOAD, true)                                                             \
    HOOK(write##SIZE, SIZE, STORE, true)
/* The compiler says so where it knows of no alignment, as after a memcpy: a device would read
 * bytes. */
#define UNALIGNED_HOOKS(SIZE)                                                                      \
    HOOK(unaligned_read##SIZE, SIZE, LOAD, false)                                                  \
    HOOK(unaligned_write##SIZE, SIZE, STORE, false)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
UNALIGNED_HOOKS(2)
UNALIGNED_HOOKS(4)
UNALIGNED_HOOKS(8)
UNALIGNED_HOOKS(16)

extern "C" void __tsan_init();
extern "C" void __tsan_init()
{
}

/* Copies of whole structs. */
static void check_range(void *p, size_t bytes, enum access_kind kind, struct place place)
{
    struct thread *t = simt_self;
    if (!t || (uintptr_t)p - t->stack < STACK_BYTES)
        return;
    for (size_t i = 0; i < bytes; i++)
        check<1>((uintptr_t)p + i, kind, false, place);
}
extern "C" void __tsan_read_range(void *p, size_t bytes);
extern "C" void __tsan_read_range(void *p, size_t bytes)
{
    check_range(p, bytes, LOAD, HERE);
}
extern "C" void __tsan_write_range(void *p, size_t bytes);
extern "C" void __tsan_write_range(void *p, size_t bytes)
{
    check_range(p, bytes, STORE, HERE);
}
/* clang turns such copies into calls of its own. */
extern "C" void *__tsan_memcpy(void *to, const void *from, size_t bytes);
extern "C" void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    check_range((void *)(uintptr_t)from, bytes, LOAD, HERE);
    check_range(to, bytes, STORE, HERE);
    return memcpy(to, from, bytes);
}
extern "C" void *__tsan_memset(void *to, int byte, size_t bytes);
extern "C" void *__tsan_memset(void *to, int byte, size_t bytes)
{
    check_range(to, bytes, STORE, HERE);
    return memset(to, byte, bytes);
}

simt_raw16 simt_load16(const void *p)
{
    check<16>((uintptr_t)p, LOAD, true, HERE);
    simt_raw16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

simt_raw8 simt_load8(const void *p)
{
    check<8>((uintptr_t)p, LOAD, true, HERE);
    simt_raw8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

void simt_store16(void *p, simt_raw16 v)
{
    check<16>((uintptr_t)p, STORE, true, HERE);
    memcpy(p, &v, sizeof v);
}

void simt_store8(void *p, simt_raw8 v)
{
    check<8>((uintptr_t)p, STORE, true, HERE);
    memcpy(p, &v, sizeof v);
}
