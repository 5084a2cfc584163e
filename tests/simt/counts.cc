/*
 * What a GPU's memory system would have been asked for: passes over shared memory's 32 banks of 4
 * bytes, and 32-byte sectors of global memory, warp request by warp request. The n-th access of
 * each lane at one place in the code is taken for one request. See runtime.h.
 */
#include "runtime.h"

#include <algorithm>
#include <map>
#include <stdlib.h>
#include <string.h>
#include <unordered_map>

bool counting;
static bool printing, asked;
static simt_counts finished;

struct access {
    uintptr_t address;
    uint64_t key; /* of the place */
    uint8_t size;
    bool shared;
};
static std::vector<access> logs[MAX_THREADS];
static size_t logged;
static const size_t LOG_LIMIT = 1 << 20; /* then it is counted, though lanes may be apart */

struct request {
    int lanes, size;
    bool shared;
    uintptr_t address[WARP];
};
struct excess {
    struct place place;
    uint64_t shared, global;
};
static std::unordered_map<uint64_t, excess> by_place;

void simt_count(bool on)
{
    counting = on;
}

const struct simt_counts *simt_last_counts()
{
    return &finished;
}

void counts_launch()
{
    if (!asked) {
        asked = true;
        printing = getenv("SIMT_STATS") != NULL;
        counting |= printing;
    }
    by_place.clear();
}

static uint64_t key_of(struct place place)
{
    return place.pc ? (uint64_t)(uintptr_t)place.pc
                    : (uint64_t)(uintptr_t)place.file << 16 | (uint64_t)place.line;
}

void counts_access(const struct thread *t, uintptr_t a, unsigned size, bool in_shared,
                   struct place place)
{
    uint64_t key = key_of(place);
    logs[t->id].push_back({a, key, (uint8_t)size, in_shared});
    by_place.insert({key, {place, 0, 0}});
    if (++logged > LOG_LIMIT)
        counts_flush();
}

static size_t distinct(uintptr_t *values, size_t n)
{
    std::sort(values, values + n);
    return (size_t)(std::unique(values, values + n) - values);
}

/* Lanes that the banks serve at once: 128 bytes' worth. */
static void count_shared(const struct request *r, excess *e)
{
    int at_once = WARP * 4 / std::max(r->size, 4);
    for (int first = 0; first < r->lanes; first += at_once) {
        uintptr_t words[WARP];
        size_t n = 0;
        int banks[32] = {};
        for (int i = first; i < std::min(first + at_once, r->lanes); i++)
            for (int byte = 0; byte < r->size; byte += 4)
                words[n++] = (r->address[i] + (uintptr_t)byte) / 4;
        n = distinct(words, n);
        for (size_t i = 0; i < n; i++)
            banks[words[i] % 32]++;
        uint64_t passes = (uint64_t)*std::max_element(banks, banks + 32), ideal = (n + 31) / 32;
        counts_now.shared_passes += passes;
        counts_now.shared_ideal += ideal;
        e->shared += passes - ideal;
    }
    counts_now.shared_requests++;
}

static void count_global(const struct request *r, excess *e)
{
    uintptr_t sectors[WARP], addresses[WARP];
    for (int i = 0; i < r->lanes; i++) {
        addresses[i] = r->address[i];
        sectors[i] = r->address[i] / 32;
    }
    uint64_t bytes = distinct(addresses, (size_t)r->lanes) * (uint64_t)r->size;
    uint64_t touched = distinct(sectors, (size_t)r->lanes), ideal = (bytes + 31) / 32;
    counts_now.global_requests++;
    counts_now.global_sectors += touched;
    counts_now.global_ideal += ideal;
    e->global += touched - std::min(ideal, touched);
}

static void flush_warp(int first)
{
    std::map<std::pair<uint64_t, int>, request> requests;
    for (int lane = 0; lane < WARP; lane++) {
        std::unordered_map<uint64_t, int> times;
        for (const access &a : logs[first + lane]) {
            request &r = requests[{a.key, times[a.key]++}];
            r.size = a.size;
            r.shared = a.shared;
            r.address[r.lanes++] = a.address;
        }
        logs[first + lane].clear();
    }
    for (auto &entry : requests) {
        excess *e = &by_place[entry.first.first];
        if (entry.second.shared)
            count_shared(&entry.second, e);
        else
            count_global(&entry.second, e);
    }
}

void counts_flush()
{
    for (int first = 0; first < MAX_THREADS; first += WARP)
        flush_warp(first);
    logged = 0;
}

static void worst(char *out, size_t size, uint64_t excess::*which)
{
    const excess *top = NULL;
    for (const auto &entry : by_place)
        if (entry.second.*which > (top ? top->*which : 0))
            top = &entry.second;
    out[0] = '\0';
    if (top)
        snprintf(out, size, "%llu too many at %s", (unsigned long long)(top->*which),
                 symbols_place(top->place).c_str());
}

void counts_finish()
{
    if (launch_now.failed)
        for (auto &log : logs)
            log.clear();
    if (counting) {
        worst(counts_now.worst_shared, sizeof counts_now.worst_shared, &excess::shared);
        worst(counts_now.worst_global, sizeof counts_now.worst_global, &excess::global);
    }
    finished = counts_now;
    if (!printing)
        return;
    const simt_counts &s = finished;
    fprintf(stderr,
            "simt: %s: %llu accesses, %llu switches; shared: %llu requests, %llu passes (ideal "
            "%llu) %s; global: %llu requests, %llu sectors (ideal %llu) %s\n",
            symbols_function(launch_now.kernel->function).c_str(), (unsigned long long)s.accesses,
            (unsigned long long)s.switches, (unsigned long long)s.shared_requests,
            (unsigned long long)s.shared_passes, (unsigned long long)s.shared_ideal, s.worst_shared,
            (unsigned long long)s.global_requests, (unsigned long long)s.global_sectors,
            (unsigned long long)s.global_ideal, s.worst_global);
}
