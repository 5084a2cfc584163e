/*
 * The charts of a report, drawn from its runs; each writes one <svg> (cli/load_svg.h). They fail
 * for want of memory alone. One thread.
 */
#ifndef WITAN_CLI_LOAD_SVG_RUNS_H
#define WITAN_CLI_LOAD_SVG_RUNS_H

#include "cli/load_stats.h"

#include <stdio.h>

/* Loads of one report, which a line connects; `name` where there are several reports. */
struct load_svg_runs {
    const char *name;
    const struct load_run *const *runs; /* [count], at most LOAD_REPORT_MAX_RUNS */
    size_t count;
};

/* p50 and p99 of a measure against output tokens/s, a point a run with its concurrency or rate. Of
 * more reports than drawn lines allow for: p50 alone. */
enum status load_svg_curve(FILE *out, const struct load_svg_runs *reports, size_t count,
                           enum load_measure m, struct error *err);

/* What share of a measure's samples is at most so long, a line a run: LOAD_SVG_SERIES of them, the
 * first and the last among these. `ordered`: they rise, as a sweep does. */
enum status load_svg_cdf(FILE *out, const struct load_run *const *runs, const char *const *names,
                         size_t count, bool ordered, enum load_measure m, struct error *err);

/* How many samples are how long; the longest 1 % may lie outside and is counted in words. */
enum status load_svg_histogram(FILE *out, const struct load_run *run, enum load_measure m,
                               struct error *err);

/* Output tokens/s of counted requests that succeeded, over the run's window. */
void load_svg_rate(FILE *out, const struct load_run *run);

/* Counted requests between sending and their last token, over the run's window. */
void load_svg_in_flight(FILE *out, const struct load_run *run);

#endif
