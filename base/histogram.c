/* Counts of values by size: see histogram.h. No state of its own. */
#include "base/histogram.h"

#include <string.h>

const struct histogram_bounds histogram_seconds = {
    .count = 24,
    .at = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2,
           0.1,  0.2,  0.5,  1,    2,    5,    10,   20,   50,   100,  300,  1000},
};

const struct histogram_bounds histogram_sizes = {
    .count = 17,
    .at = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536},
};

void histogram_init(struct histogram *h, const struct histogram_bounds *bounds)
{
    *h = (struct histogram){.bounds = bounds};
}

void histogram_add(struct histogram *h, double value)
{
    int32_t low = 0, high = h->bounds->count;
    if (value != value)
        return;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (value <= h->bounds->at[middle])
            high = middle;
        else
            low = middle + 1;
    }
    h->counts[low]++;
    h->sum += value;
}

static bool alike(const struct histogram_bounds *a, const struct histogram_bounds *b)
{
    return a == b ||
           (a->count == b->count && memcmp(a->at, b->at, (size_t)a->count * sizeof *a->at) == 0);
}

bool histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (!alike(into->bounds, from->bounds))
        return false;
    for (int32_t i = 0; i <= into->bounds->count; i++)
        into->counts[i] += from->counts[i];
    into->sum += from->sum;
    return true;
}

uint64_t histogram_total(const struct histogram *h)
{
    uint64_t total = 0;
    for (int32_t i = 0; i <= h->bounds->count; i++)
        total += h->counts[i];
    return total;
}
