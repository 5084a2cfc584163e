/* Launches, blocks, the scheduler and barriers. See runtime.h. */
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

struct launch launch_now;
struct thread threads[MAX_THREADS];
struct simt_counts counts_now;
__thread struct thread *simt_self;

std::mutex device_turns;
static uint64_t seed_base, seed_launches;
static struct launch &run = launch_now;

/* What an atomic's spin may last before it counts as a deadlock. */
static const uint64_t SPIN_LIMIT = 20000000;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void simt_seed(uint64_t seed)
{
    seed_base = seed;
    seed_launches = 0;
}

uint64_t random_next()
{
    run.random += 0x9e3779b97f4a7c15u;
    return mix(run.random);
}

/* ---- The scheduler ---- */

static struct thread *pick()
{
    size_t n = run.ready.size();
    if (n == 0)
        return NULL;
    size_t i = (size_t)(((random_next() >> 32) * n) >> 32);
    int id = run.ready[i];
    run.ready[i] = run.ready[n - 1];
    run.ready.pop_back();
    return &threads[id];
}

/* Saves the running context in *save and goes on with a thread that is ready or, if there is none,
 * with the launch. */
static void switch_on(void **save)
{
    struct thread *next = pick();
    if (next && save == &next->context)
        return; /* its own turn again */
    counts_now.switches++;
    simt_self = next;
    context_switch(save, next ? next->context : run.context);
}

void thread_wait(enum thread_state state, struct place place)
{
    struct thread *t = simt_self;
    t->state = state;
    t->place = place;
    if (state == EXITED) {
        run.exited++;
        run.idle = 0;
        warp_exited(t);
    }
    switch_on(&t->context);
}

void thread_ready(struct thread *t)
{
    t->state = READY;
    run.ready.push_back(t->id);
    run.idle = 0;
}

void thread_yield()
{
    struct thread *t = simt_self;
    if (++run.idle > SPIN_LIMIT)
        fault(t, t->place, "deadlock: %llu atomics without any other progress in the block",
              (unsigned long long)SPIN_LIMIT);
    if (run.ready.empty() || (random_next() & 3) != 0)
        return;
    run.ready.push_back(t->id);
    switch_on(&t->context);
}

void launch_abandon()
{
    void *nowhere;
    run.failed = true;
    simt_self = NULL;
    context_switch(&nowhere, run.context);
    abort();
}

/* ---- Barriers ---- */

static bool same_place(struct place a, struct place b)
{
    return a.line == b.line && strcmp(a.file, b.file) == 0;
}

static void barrier_complete(struct barrier *b, bool all)
{
    if (all)
        order_barrier_all();
    else
        order_barrier_some(b);
    for (int id : b->waiting) {
        threads[id].barrier_sum = b->sum;
        thread_ready(&threads[id]);
    }
    b->waiting.clear();
    b->arrived = b->sum = 0;
}

static void barrier_open(struct thread *t, struct barrier *b, int id, int expected,
                         struct place place)
{
    if (b->arrived == 0) {
        b->expected = expected;
        b->place = place;
        memset(b->contributed, 0, sizeof b->contributed);
        b->follows = false;
        return;
    }
    if (id == 0 && !same_place(b->place, place))
        fault(t, place, "barrier divergence: waits at this __syncthreads while others wait at %s",
              symbols_place(b->place).c_str());
    if (b->expected != expected)
        fault(t, place, "barrier %d is for %d threads here and for %d at %s", id, expected,
              b->expected, symbols_place(b->place).c_str());
}

int simt_barrier(int id, int count, bool wait, int value, const char *file, int line)
{
    struct thread *t = simt_self;
    struct place place = {file, line, NULL};
    bool all = id == 0 && count == 0;
    if (!all && (id < 1 || id >= NAMED_BARRIERS || count < WARP || count % WARP != 0 ||
                 count > (run.threads + WARP - 1) / WARP * WARP))
        fault(t, place, "barrier %d for %d threads: expected 1 to 15, and whole warps of the block",
              id, count);
    struct barrier *b = &run.barriers[id];
    barrier_open(t, b, id, all ? run.threads : count, place);
    b->arrived++;
    b->sum += value;
    if (!all)
        order_barrier_arrive(b, t);
    if (wait) {
        b->waiting.push_back(t->id);
        t->barrier = id;
    }
    bool done = b->arrived == b->expected;
    if (done)
        barrier_complete(b, all);
    if (wait)
        thread_wait(done ? READY : AT_BARRIER, place);
    return t->barrier_sum;
}

/* ---- What is wrong when no thread can go on ---- */

static std::string waiting_text(const struct thread *t)
{
    std::string at = t->place.file ? " at " + symbols_place(t->place) : "";
    if (t->state == EXITED)
        return "has exited";
    if (t->state == AT_BARRIER)
        return (t->barrier ? "waits at barrier " + std::to_string(t->barrier)
                           : std::string("waits at __syncthreads")) +
               at;
    char mask[32];
    snprintf(mask, sizeof mask, " with mask 0x%08x", t->mask);
    return std::string("waits in ") + warp_op_name(t->op) + mask + at;
}

static std::string name_text(const struct thread *t)
{
    return tag_text(t->tag);
}

static void explain_warp_op(const struct thread *t)
{
    for (int lane = 0; lane < WARP; lane++) {
        const struct thread *other = lane_of(t, lane);
        if (!(t->mask >> lane & 1) || !(warp_present(t) >> lane & 1) ||
            (other->state == IN_WARP_OP && other->op == t->op && other->mask == t->mask))
            continue;
        fault(t, t->place, "deadlock: %s with mask 0x%08x waits for lane %d, which %s",
              warp_op_name(t->op), t->mask, lane, waiting_text(other).c_str());
        return;
    }
}

static void explain_deadlock()
{
    for (int i = 0; i < run.threads; i++)
        if (threads[i].state == IN_WARP_OP) {
            explain_warp_op(&threads[i]);
            return;
        }
    for (int i = 0; i < run.threads; i++) {
        const struct thread *t = &threads[i];
        if (t->state != AT_BARRIER)
            continue;
        for (int j = 0; j < run.threads; j++)
            if (threads[j].state != AT_BARRIER || threads[j].barrier != t->barrier) {
                fault(t, t->place, "barrier divergence: waits here, but %s %s",
                      name_text(&threads[j]).c_str(), waiting_text(&threads[j]).c_str());
                return;
            }
        fault(t, t->place, "deadlock: barrier %d has %d of %d threads", t->barrier,
              run.barriers[t->barrier].arrived, run.barriers[t->barrier].expected);
        return;
    }
}

/* ---- Launches ---- */

static uint3 unfold(unsigned i, dim3 d)
{
    return {i % d.x, i / d.x % d.y, i / (d.x * d.y)};
}

static void start_thread(int i)
{
    struct thread *t = &threads[i];
    t->index = unfold((unsigned)i, run.block);
    t->fenced = false;
    t->copies.clear();
    t->copy_group = 0;
    fiber_prepare(t, run.kernel->arguments, run.kernel->argument_bytes, run.kernel->enter);
    thread_ready(t);
}

static void run_block(uint32_t number)
{
    run.block_index = unfold(number, run.grid);
    run.exited = 0;
    run.ready.clear();
    for (int i = 0; i < NAMED_BARRIERS; i++) {
        run.barriers[i].arrived = run.barriers[i].sum = 0;
        run.barriers[i].waiting.clear();
    }
    order_block();
    memset(run.present, 0, sizeof run.present);
    memset(run.waiting, 0, sizeof run.waiting);
    for (int i = 0; i < run.threads; i++) {
        run.present[i / WARP] |= 1u << (i % WARP);
        start_thread(i);
    }
    switch_on(&run.context);
    simt_self = NULL;
    if (!run.failed && run.exited < run.threads)
        explain_deadlock();
    if (!run.failed && counting)
        counts_flush();
}

/* Random order by Fisher and Yates. */
static void shuffle_blocks()
{
    size_t blocks = (size_t)run.grid.x * run.grid.y * run.grid.z;
    run.order.resize(blocks);
    for (size_t i = 0; i < blocks; i++)
        run.order[i] = (uint32_t)i;
    for (size_t i = blocks; i > 1; i--)
        std::swap(run.order[i - 1], run.order[random_next() % i]);
}

static bool shape_valid(const launch_shape *s)
{
    const dim3 &g = s->grid, &b = s->block;
    const size_t shared_limit = 227 * 1024; /* of sm_90 and sm_100 */
    if (b.x * b.y * b.z == 0 || b.x > 1024 || b.y > 1024 || b.z > 64 || b.x * b.y * b.z > 1024)
        fault(NULL, {}, "a block of (%u,%u,%u) threads: expected 1 to 1024", b.x, b.y, b.z);
    else if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535)
        fault(NULL, {}, "a grid of (%u,%u,%u) blocks: expected 1 to (2^31-1,65535,65535)", g.x, g.y,
              g.z);
    else if (s->shared_bytes > shared_limit)
        fault(NULL, {}, "%zu bytes of dynamic shared memory: expected at most %zu", s->shared_bytes,
              shared_limit);
    else
        return true;
    return false;
}

static void seed_launch()
{
    if (seed_base == 0) {
        const char *text = getenv("SIMT_SEED");
        seed_base = text ? strtoull(text, NULL, 0) : 1;
    }
    run.seed = seed_base;
    run.random = mix(seed_base * 0x9e3779b97f4a7c15u + seed_launches++);
}

static uint64_t launches;

uint64_t simt_launches(void)
{
    std::lock_guard<std::mutex> turn(device_turns);
    return launches;
}

int simt_launch(const simt_kernel *kernel, const launch_shape *shape)
{
    if (record_launch(kernel, shape))
        return 0;
    std::lock_guard<std::mutex> turn(device_turns);
    launches++;
    run.kernel = kernel;
    run.grid = shape->grid;
    run.block = shape->block;
    run.threads = (int)(shape->block.x * shape->block.y * shape->block.z);
    run.failed = false;
    run.idle = 0;
    counts_now = {};
    seed_launch();
    if (shape_valid(shape)) {
        fibers_create();
        memory_launch(shape->shared_bytes, kernel);
        order_launch(shape->overlap);
        counts_launch();
        shuffle_blocks();
        for (size_t i = 0; i < run.order.size() && !run.failed; i++)
            run_block(run.order[i]);
        if (!run.failed && !run.waited)
            fault(NULL, {},
                  "no thread waited for the launch before (grid_dependency_wait), which "
                  "this one may overlap: launches after it would not wait either");
        counts_finish();
    } else {
        run.failed = true;
    }
    report_launch();
    run.kernel = NULL;
    return run.failed ? 719 : 0; /* as cudaErrorLaunchFailure */
}

void simt_trap(const char *file, int line)
{
    fault(simt_self, {file, line, NULL}, "the kernel gives up: __trap");
    abort();
}

uint3 simt_thread_index()
{
    return simt_self->index;
}

uint3 simt_block_index()
{
    return run.block_index;
}

uint3 simt_block_dim()
{
    return {run.block.x, run.block.y, run.block.z};
}

uint3 simt_grid_dim()
{
    return {run.grid.x, run.grid.y, run.grid.z};
}

int simt_lane()
{
    return simt_self->id & (WARP - 1);
}
