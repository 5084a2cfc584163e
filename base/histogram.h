/*
 * Counts of values by size, for the figures that are shown over time: bounds that are fixed when it
 * is made, a count for each, and the sum of all values. Allocates nothing; a plain struct that may
 * be copied. One thread at a time.
 */
#ifndef WITAN_BASE_HISTOGRAM_H
#define WITAN_BASE_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

enum { HISTOGRAM_MAX_BOUNDS = 24 };

/* Upper bounds, which belong to what they bound: ascending, finite. Must outlive its histograms. */
struct histogram_bounds {
    int32_t count; /* 1 to HISTOGRAM_MAX_BOUNDS */
    double at[HISTOGRAM_MAX_BOUNDS];
};

/* Seconds from 10 us to 1000 s; things from 1 to 65536 by powers of two. */
extern const struct histogram_bounds histogram_seconds, histogram_sizes;

struct histogram {
    const struct histogram_bounds *bounds;
    /* [bounds->count + 1]: values up to bound i and over bound i - 1; the last those over all. */
    uint64_t counts[HISTOGRAM_MAX_BOUNDS + 1];
    double sum;
};

void histogram_init(struct histogram *h, const struct histogram_bounds *bounds);
/* A NaN counts for nothing. */
void histogram_add(struct histogram *h, double value);
/* All that is in `from` too. False, and nothing changed, where their bounds differ. */
bool histogram_merge(struct histogram *into, const struct histogram *from);
uint64_t histogram_total(const struct histogram *h);

#endif
