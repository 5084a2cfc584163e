/*
 * Which accesses are ordered. What orders two threads of a block: a barrier that both took part in,
 * __syncwarp between lanes of a warp, and chains of these. Threads of different blocks of a launch:
 * only an atomic that both did on one address, the first after a __threadfence (the way in which
 * the last block to finish reads what the others wrote). Launches are ordered, but for one that may
 * overlap its predecessor (launch_shape), until grid_dependency_wait: before it nothing orders it
 * after any launch of a chain of these, which therefore all must wait.
 *
 * Exact for barriers and __syncwarp: each lane knows for each lane of its warp, and each warp for
 * each warp, the tick before which its accesses are ordered. See runtime.h for ticks and tags.
 */
#include "runtime.h"

#include <algorithm>
#include <string.h>
#include <unordered_map>

static struct launch &run = launch_now;

/* What a thread of a block has made known to others: what was ordered before `tick` of it. Known to
 * a block from a time (`at`) of one of its threads (`by`) on. */
struct release {
    int thread;
    tick_t tick, floor, seen[WARP], warps[MAX_WARPS];
    int by;
    tick_t at;
};
typedef std::unordered_map<size_t, release> releases;    /* by the block's place in run.starts */
static std::unordered_map<uintptr_t, releases> released; /* by the atomic's address */
static releases known;                                   /* to the running block */

/* All tags of earlier launches and blocks are older than every limit: forget them when ticks run
 * out. A block may use half of them. */
static void next_tick()
{
    if (++run.tick >= TICK_END - 1)
        fault(simt_self, {}, "more than %u barriers and __syncwarps in one block",
              (unsigned)TICK_END / 2);
}

static void forget_all()
{
    memory_forget_tags();
    run.tick = 1;
    run.launch_start = run.overlap_start = 1;
    run.starts.assign(run.starts.size(), 0);
    memset(run.warp_seen, 0, sizeof run.warp_seen);
    for (int i = 0; i < MAX_THREADS; i++)
        memset(threads[i].seen, 0, sizeof threads[i].seen);
}

static void set_tick(struct thread *t)
{
    t->tag = run.tick << TAG_SHIFT | (uint32_t)t->id;
}

void order_launch(bool overlap)
{
    if (run.tick >= TICK_END / 2)
        forget_all();
    /* Of the chain: a launch may start as soon as its predecessor has, which may overlap too. */
    tick_t before = run.overlap_start;
    next_tick();
    run.overlap_start = overlap && run.chained ? before : run.tick;
    run.chained = true;
    run.waited = !overlap;
    run.launch_start = run.tick;
    run.starts.clear();
    released.clear();
}

void order_host()
{
    run.chained = false;
}

void order_block()
{
    if (run.tick >= TICK_END / 2)
        forget_all();
    next_tick();
    run.block_start = run.floor = run.tick;
    run.starts.push_back(run.tick);
    known.clear();
    for (int i = 0; i < run.threads; i++) {
        set_tick(&threads[i]);
        threads[i].follows = run.overlap_start == run.launch_start;
    }
}

void order_barrier_all()
{
    bool follow = false;
    next_tick();
    run.floor = run.tick;
    for (int i = 0; i < run.threads; i++) {
        set_tick(&threads[i]);
        follow |= threads[i].follows;
    }
    for (int i = 0; i < run.threads; i++)
        threads[i].follows = follow;
}

void order_barrier_arrive(struct barrier *b, const struct thread *t)
{
    int warp = t->id / WARP;
    next_tick();
    for (int w = 0; w < MAX_WARPS; w++)
        b->contributed[w] = std::max(b->contributed[w], run.warp_seen[warp][w]);
    b->contributed[warp] = run.tick;
    b->follows |= t->follows;
    set_tick(&threads[t->id]);
}

void order_barrier_some(struct barrier *b)
{
    next_tick();
    for (int id : b->waiting) {
        struct thread *t = &threads[id];
        tick_t *seen = run.warp_seen[id / WARP];
        for (int w = 0; w < MAX_WARPS; w++)
            seen[w] = std::max(seen[w], b->contributed[w]);
        for (int lane = 0; lane < WARP; lane++)
            t->seen[lane] = run.tick;
        t->follows |= b->follows;
        set_tick(t);
    }
}

void order_lanes(const struct thread *t, unsigned mask)
{
    tick_t joined[WARP] = {};
    bool follow = false;
    next_tick();
    for (int lane = 0; lane < WARP; lane++)
        follow |= (mask >> lane & 1) && lane_of(t, lane)->follows;
    for (int lane = 0; lane < WARP; lane++)
        for (int other = 0; (mask >> lane & 1) && other < WARP; other++)
            joined[other] = std::max(joined[other], lane_of(t, lane)->seen[other]);
    for (int lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1)
            joined[lane] = run.tick;
    for (int lane = 0; lane < WARP; lane++)
        if (mask >> lane & 1) {
            memcpy(lane_of(t, lane)->seen, joined, sizeof joined);
            lane_of(t, lane)->follows = follow;
            set_tick(lane_of(t, lane));
        }
}

/* The block of an access, as a place in run.starts. */
static size_t block_of(tick_t tick)
{
    auto after = std::upper_bound(run.starts.begin(), run.starts.end(), tick);
    return (size_t)(after - run.starts.begin()) - 1;
}

/* Is an access of thread `id` before the tick of that of thread `me` who knows of this? */
static bool before(int me, tick_t floor, const tick_t *seen, const tick_t *warps, tick_t tick,
                   int id)
{
    if (tick < floor || id == me)
        return true;
    return tick < (id / WARP == me / WARP ? seen[id % WARP] : warps[id / WARP]);
}

static bool ordered_in_block(const struct thread *t, tick_t tick, int id)
{
    return before(t->id, run.floor, t->seen, run.warp_seen[t->id / WARP], tick, id);
}

static bool released_to(const struct thread *t, tick_t tick, int id)
{
    auto it = known.find(block_of(tick));
    if (it == known.end())
        return false;
    const release &r = it->second;
    return tick <= r.tick && before(r.thread, r.floor, r.seen, r.warps, tick, id) &&
           ordered_in_block(t, r.at, r.by);
}

bool ordered(const struct thread *t, uint32_t tag, bool shared)
{
    tick_t tick = tag >> TAG_SHIFT;
    int id = (int)(tag & TAG_THREAD);
    if (shared && tick < run.block_start)
        return true;
    if (tick < run.launch_start)
        return t->follows || tick < run.overlap_start;
    if (tick < run.block_start)
        return released_to(t, tick, id);
    return ordered_in_block(t, tick, id);
}

/* Every atomic learns what was published through its address, as the atomic of a thread that had
 * passed a __threadfence; what it learns or knew is published with its own. */
void order_atomic(struct thread *t, uintptr_t address)
{
    auto it = released.find(address);
    if (it != released.end())
        for (const auto &entry : it->second) {
            release r = entry.second;
            auto have = known.find(entry.first);
            if (have != known.end() && have->second.thread == r.thread &&
                have->second.tick == r.tick &&
                ordered_in_block(t, have->second.at, have->second.by))
                continue; /* learned before, and those who met since then know it too */
            r.by = t->id;
            r.at = t->tag >> TAG_SHIFT;
            known[entry.first] = r;
        }
    if (!t->fenced)
        return;
    t->fenced = false;
    releases &out = released[address];
    for (const auto &entry : known)
        if (ordered_in_block(t, entry.second.at, entry.second.by))
            out[entry.first] = entry.second;
    release r = {t->id, t->tag >> TAG_SHIFT, run.floor, {}, {}, 0, 0};
    memcpy(r.seen, t->seen, sizeof r.seen);
    memcpy(r.warps, run.warp_seen[t->id / WARP], sizeof r.warps);
    out[run.starts.size() - 1] = r;
    next_tick();
    set_tick(t);
}

void simt_dependency_wait()
{
    simt_self->follows = true;
    run.waited = true;
}

void simt_fence()
{
    simt_self->fenced = true;
}

std::string tag_text(uint32_t tag)
{
    if (tag >> TAG_SHIFT < run.launch_start)
        return "a launch before (this one may overlap it, and has not waited for it)";
    unsigned id = tag & TAG_THREAD;
    const dim3 &b = run.block, &g = run.grid;
    size_t place = block_of(tag >> TAG_SHIFT);
    unsigned block = place < run.order.size() ? run.order[place] : 0;
    char text[128];
    snprintf(text, sizeof text, "thread (%u,%u,%u) of block (%u,%u,%u)", id % b.x, id / b.x % b.y,
             id / (b.x * b.y), block % g.x, block / g.x % g.y, block / (g.x * g.y));
    return text;
}
