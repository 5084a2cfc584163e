/*
 * The emulator's insides, shared by its files. A launch runs its blocks one after the other, in
 * random order, on the OS thread that launched; a lock makes launches of several OS threads take
 * turns, so all state here has one owner at a time.
 *
 *   fiber.cc    switching stacks
 *   block.cc    launches, blocks, the scheduler, barriers
 *   warp.cc     meetings of lanes: shuffles, votes, ldmatrix, mma
 *   memory.cc   allocations; every load and store is checked here
 *   order.cc    which accesses are ordered: the clocks behind races
 *   atomic.cc   atomics and asynchronous copies
 *   symbols.cc  names and lines; __shared__ variables
 *   counts.cc   bank conflicts and sectors
 *   record.cc   recordings, in place of graphs
 *   report.cc   faults
 */
#ifndef WITAN_TESTS_SIMT_RUNTIME_H
#define WITAN_TESTS_SIMT_RUNTIME_H

#include "control.h"
#include "simt.h"

#include <functional>
#include <mutex>
#include <string>
#include <vector>

enum { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = 32, NAMED_BARRIERS = 16 };

/* Bytes of a fiber's stack, a guard page included. */
enum { STACK_BYTES = 128 * 1024, GUARD_BYTES = 4096 };

/* A place in a kernel: a file and line, or an address in its code. */
struct place {
    const char *file;
    int line;
    const void *pc;
};

enum thread_state { READY, AT_BARRIER, IN_WARP_OP, EXITED };

struct async_copy {
    uintptr_t to, from;
    int size, bytes; /* bytes of the source; the rest of `size` is zeros */
    int group;
    struct place place;
};

/*
 * Time: a tick counts the events that order threads of the launch. An access is tagged with its
 * thread and the thread's tick, which is that of the last such event that it took part in.
 */
typedef uint32_t tick_t;
enum { TAG_ATOMIC = 1 << 10, TAG_THREAD = TAG_ATOMIC - 1, TAG_SHIFT = 11 };
static const tick_t TICK_END = 1u << (32 - TAG_SHIFT);

struct thread {
    uintptr_t stack; /* lowest address */
    uint32_t tag;    /* what it leaves in the shadow: tick << TAG_SHIFT | id */
    int id;
    void *context; /* while it does not run */
    uint3 index;
    enum thread_state state;
    struct place place; /* where it waits */
    enum simt_warp_op op;
    unsigned mask;
    simt_lane_call *call;
    int barrier, barrier_sum;
    bool fenced;       /* since its last atomic */
    bool follows;      /* the launch before has ended: waited for, or no overlap was allowed */
    tick_t seen[WARP]; /* accesses of these lanes of its warp before these ticks are ordered */
    std::vector<async_copy> copies;
    int copy_group; /* the open one */
};

struct barrier {
    int expected, arrived, sum;
    struct place place;       /* of the first that arrived */
    std::vector<int> waiting; /* threads */
    tick_t contributed[MAX_WARPS];
    bool follows; /* of one that arrived */
};

struct launch {
    const simt_kernel *kernel;
    dim3 grid, block;
    uint3 block_index;
    int threads; /* of a block */
    int exited;
    uint64_t seed, random;
    bool failed;
    void *context; /* the launching thread's, while fibers run */
    std::vector<int> ready;
    uint64_t idle;                                 /* atomics since something else happened */
    tick_t tick, launch_start, block_start, floor; /* floor: of the last barrier of all */
    tick_t overlap_start;        /* of the first launch that this one may overlap; or its own */
    bool waited;                 /* a thread of it, for the launch before */
    bool chained;                /* the last thing that the host did was a launch */
    std::vector<tick_t> starts;  /* of the blocks, in the order in which they run */
    std::vector<uint32_t> order; /* block numbers in that order */
    tick_t warp_seen[MAX_WARPS][MAX_WARPS];
    unsigned present[MAX_WARPS], waiting[MAX_WARPS]; /* lanes that have not exited; IN_WARP_OP */
    struct barrier barriers[NAMED_BARRIERS];
};

/* Variables' names are not mangled: these are kept apart from those of the C code linked beside. */
#define SIMT_SYMBOL(name) __asm__("simt_" #name)
extern std::mutex
    device_turns SIMT_SYMBOL(device_turns); /* held by a launch, and by the host's calls */
extern struct launch launch_now SIMT_SYMBOL(launch_now);
extern struct thread threads[MAX_THREADS] SIMT_SYMBOL(threads);
extern struct simt_counts counts_now SIMT_SYMBOL(counts_now);
extern __thread struct thread *simt_self; /* NULL outside kernels */

/* fiber.cc */
void fibers_create();
/* Prepares `t` to run `enter` with its own copy of the arguments. */
void fiber_prepare(struct thread *t, const void *arguments, size_t bytes,
                   void (*enter)(void *arguments));
void context_switch(void **save, void *to);

/* block.cc */
uint64_t random_next();
/* The current thread waits: others run. Returns when it is ready again. */
void thread_wait(enum thread_state state, struct place place);
void thread_ready(struct thread *t);
void thread_yield(); /* lets others run first, now and then */
/* Leaves the fiber for good: the launch has failed. */
void launch_abandon() __attribute__((noreturn));

/* Lanes of the thread's warp that have not exited. */
static inline unsigned warp_present(const struct thread *t)
{
    return launch_now.present[t->id / WARP];
}

static inline struct thread *lane_of(const struct thread *t, int lane)
{
    return &threads[(t->id & ~(WARP - 1)) + lane];
}

/* warp.cc */
/* A lane exited: those that wait may wait for none but it. */
void warp_exited(struct thread *t);
const char *warp_op_name(enum simt_warp_op op);

/* order.cc */
void order_launch(bool overlap);
void order_host(); /* a call of the host that waits for all launches */
void order_block();
/* The threads have met: what each did before is ordered before what each does after. */
void order_barrier_all();
void order_barrier_arrive(struct barrier *b, const struct thread *t);
void order_barrier_some(struct barrier *b);
void order_lanes(const struct thread *t, unsigned mask);
/* Is the access tagged `tag` ordered before the current thread's next one? */
bool ordered(const struct thread *t, uint32_t tag, bool shared);
void order_atomic(struct thread *t, uintptr_t address);
/* "thread (x,y,z) of block (x,y,z)" of a tag. */
std::string tag_text(uint32_t tag);

/* memory.cc */
enum access_kind { LOAD, STORE, ATOMIC };
struct allocation {
    uintptr_t base, end;
    std::string name;
    bool shared, freed, protected_now, protected_always;
    bool host;    /* the host's pinned memory */
    tick_t block; /* shared: the block's start tick when it was last cleared */
};
void memory_launch(size_t shared_bytes, const simt_kernel *kernel);
void memory_forget_tags();
void *memory_shared();
/* Checks one access of the current thread, of any size up to 16. */
void memory_check(uintptr_t a, unsigned size, enum access_kind kind, struct place place);
/* The bytes that a copy will bring: reading them before it is done is a fault. */
void memory_pend(uintptr_t a, unsigned size);
/* ... and it is there: written by the thread and at the time of `tag`. */
void memory_landed(uintptr_t a, unsigned size, uint32_t tag, struct place place);
bool memory_is_shared(uintptr_t a);
std::string address_text(uintptr_t a);

/* symbols.cc */
struct shared_variable {
    uintptr_t base, end;
    std::string name;
};
/* __shared__ variables of the program: static variables of functions; sorted. */
const std::vector<shared_variable> &symbols_shared();
bool symbols_constant(uintptr_t a); /* in a segment of the program that no one can write */
bool symbols_guard(uintptr_t a);    /* the compiler's own: "is this static initialised" */
std::string symbols_function(const void *function);
std::string symbols_place(struct place place);

/* counts.cc */
extern bool counting SIMT_SYMBOL(counting);
void counts_launch();
void counts_access(const struct thread *t, uintptr_t a, unsigned size, bool shared,
                   struct place place);
void counts_flush();
void counts_finish();

/* report.cc: a fault of thread `t` (NULL: of the host). Does not return when t is the current one.
 */
void fault(const struct thread *t, struct place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fault_other(struct place place); /* of the next fault: another line that it is about */
void report_launch();

/* record.cc: true where the calling thread records, and so nothing is done now; what may not be
 * done then gives an error, which the recording's end repeats. */
bool record_node(std::function<int()> node);
bool record_launch(const simt_kernel *kernel, const launch_shape *shape);
int record_forbids();

#endif
