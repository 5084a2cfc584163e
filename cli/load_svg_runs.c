/* See load_svg_runs.h. No state. */
#include "cli/load_svg_runs.h"
#include "base/check.h"
#include "cli/load_report_private.h"
#include "cli/load_svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CDF_POINTS = 201,
    HISTOGRAM_BINS = 40,
    TIME_BINS = 60,
};

/* --- throughput against latency --- */

static void point_label(const struct load_run *run, char label[24])
{
    if (run->mode == LOAD_CLOSED)
        snprintf(label, 24, "%d", run->concurrency);
    else if (isinf(run->rate))
        snprintf(label, 24, "all");
    else
        snprintf(label, 24, "%.3g/s", run->rate);
}

/* What the points' labels are. */
static const char *labels_words(const struct load_svg_runs *r)
{
    bool closed = false, open = false;
    for (size_t i = 0; i < r->count; i++) {
        closed |= r->runs[i]->mode == LOAD_CLOSED;
        open |= r->runs[i]->mode == LOAD_OPEN;
    }
    return closed && open ? "load" : closed ? "concurrency" : "request rate";
}

/* One report's points. */
struct curve {
    double x[LOAD_REPORT_MAX_RUNS], p50[LOAD_REPORT_MAX_RUNS], p99[LOAD_REPORT_MAX_RUNS];
    char labels[LOAD_REPORT_MAX_RUNS][24], name50[80], name99[80];
    size_t count;
};

static enum status fill_curve(struct curve *c, const struct load_svg_runs *r, enum load_measure m,
                              struct error *err)
{
    c->count = 0;
    for (size_t i = 0; i < r->count && c->count < LOAD_REPORT_MAX_RUNS; i++) {
        struct load_stats s;
        TRY(load_stats_make(r->runs[i], NULL, &s, err));
        if (s.dist[m].count == 0)
            continue;
        c->x[c->count] = s.output_tokens_per_s;
        c->p50[c->count] = s.dist[m].p50 * 1e3;
        c->p99[c->count] = s.dist[m].p99 * 1e3;
        point_label(r->runs[i], c->labels[c->count++]);
    }
    snprintf(c->name50, sizeof c->name50, "%.40s%sp50", r->name ? r->name : "", r->name ? " " : "");
    snprintf(c->name99, sizeof c->name99, "%.40s%sp99", r->name ? r->name : "", r->name ? " " : "");
    return OK;
}

static void draw_curves(FILE *out, struct curve *c, size_t count, enum load_measure m,
                        const char *by)
{
    struct load_svg_series series[LOAD_SVG_SERIES];
    char title[80], words[40], said[160];
    double least = INFINITY, most = 0;
    bool p99 = 2 * count <= LOAD_SVG_SERIES;
    size_t n = 0;
    for (size_t i = 0; i < count && n < LOAD_SVG_SERIES; i++) {
        struct load_svg_series s = {.kind = LOAD_SVG_POINTS, .x = c[i].x, .count = c[i].count};
        s.name = c[i].name50, s.y = c[i].p50, s.labels = c[i].labels;
        s.colour = (int)i, s.dash = LOAD_SVG_SOLID;
        series[n++] = s;
        s.name = c[i].name99, s.y = c[i].p99, s.labels = NULL;
        s.colour = count == 1 ? 1 : (int)i, s.dash = LOAD_SVG_DASHED;
        if (p99)
            series[n++] = s;
        for (size_t k = 0; k < c[i].count; k++) {
            least = fmin(least, c[i].p50[k]);
            most = fmax(most, p99 ? c[i].p99[k] : c[i].p50[k]);
        }
    }
    snprintf(title, sizeof title, "%s against throughput, by %s", load_measure_words(m), by);
    snprintf(words, sizeof words, "%s, ms", load_measure_words(m));
    snprintf(said, sizeof said, "%s in ms over output tokens/s, a point a load",
             load_measure_words(m));
    const struct load_svg_chart chart = {
        .title = title,
        .said = said,
        .x = {.words = "output tokens/s", .from_zero = true},
        .y = {.words = words, .log = least > 0 && most > 20 * least, .from_zero = true},
        .series = series,
        .count = n};
    load_svg_chart(out, &chart);
}

enum status load_svg_curve(FILE *out, const struct load_svg_runs *reports, size_t count,
                           enum load_measure m, struct error *err)
{
    struct curve curves[LOAD_SVG_SERIES];
    CHECK(count <= LOAD_SVG_SERIES, "%zu reports", count);
    for (size_t i = 0; i < count; i++)
        TRY(fill_curve(&curves[i], &reports[i], m, err));
    draw_curves(out, curves, count, m, labels_words(&reports[0]));
    return OK;
}

/* --- distributions --- */

/* Samples in ms; a logarithmic axis has no zero: a microsecond in its place. */
static enum status samples_ms(const struct load_run *run, enum load_measure m, double **v,
                              size_t *n, struct error *err)
{
    TRY(load_samples(run, m, v, n, err));
    for (size_t i = 0; i < *n; i++)
        (*v)[i] = fmax((*v)[i] * 1e3, 1e-3);
    return OK;
}

/* The `i`th of at most LOAD_SVG_SERIES runs that are shown of `count`. */
static size_t shown_run(size_t i, size_t count)
{
    return count <= LOAD_SVG_SERIES ? i : i * (count - 1) / (LOAD_SVG_SERIES - 1);
}

/* *n: CDF_POINTS of x and y (in %), or 0 without samples. */
static enum status fill_cdf(const struct load_run *run, enum load_measure m, double *x, double *y,
                            size_t *n, struct error *err)
{
    double *v;
    TRY(samples_ms(run, m, &v, n, err));
    /* Chunks that were read together are nearly 0 apart, which would be most of the axis. */
    double least = *n > 0 ? load_quantile(v, *n, 0.5) / 100 : 0;
    for (size_t k = 0; *n > 0 && k < CDF_POINTS; k++) {
        y[k] = (double)k / (CDF_POINTS - 1) * 100;
        x[k] = fmax(load_quantile(v, *n, y[k] / 100), least);
    }
    *n = *n > 0 ? CDF_POINTS : 0;
    free(v);
    return OK;
}

enum status load_svg_cdf(FILE *out, const struct load_run *const *runs, const char *const *names,
                         size_t count, bool ordered, enum load_measure m, struct error *err)
{
    double x[LOAD_SVG_SERIES][CDF_POINTS], y[CDF_POINTS];
    struct load_svg_series series[LOAD_SVG_SERIES];
    char title[80], words[40], said[160];
    size_t lines = count < LOAD_SVG_SERIES ? count : LOAD_SVG_SERIES;
    for (size_t i = 0; i < lines; i++) {
        size_t at = shown_run(i, count), n = 0;
        TRY(fill_cdf(runs[at], m, x[i], y, &n, err));
        series[i] = (struct load_svg_series){.name = count > 1 ? names[at] : NULL,
                                             .kind = LOAD_SVG_LINE,
                                             .colour = count > 1 ? (int)i : 0,
                                             .ordered = count > 1 && ordered,
                                             .x = x[i],
                                             .y = y,
                                             .count = n};
    }
    snprintf(title, sizeof title, "%s, cumulative", load_measure_words(m));
    if (lines < count)
        snprintf(title, sizeof title, "%s, cumulative: %zu of %zu loads", load_measure_words(m),
                 lines, count);
    snprintf(words, sizeof words, "%s, ms", load_measure_words(m));
    snprintf(said, sizeof said, "share of samples of %s at most so long; %zu loads",
             load_measure_words(m), lines);
    const struct load_svg_chart chart = {
        .title = title,
        .said = said,
        .x = {.words = words, .log = true},
        .y = {.words = "share at most so long, %", .from_zero = true},
        .series = series,
        .count = lines};
    load_svg_chart(out, &chart);
    return OK;
}

/* Counts `v` [n], sorted, in bins from `edges`[0]; returns how many lie past the last. */
static size_t fill_bins(const double *v, size_t n, double edges[HISTOGRAM_BINS + 1],
                        double counts[HISTOGRAM_BINS + 1])
{
    double lo = v[0], hi = load_quantile(v, n, 0.99), past = 0;
    hi = n < 100 ? v[n - 1] : hi;
    if (!(hi > lo)) {
        lo *= 0.9;
        hi = hi * 1.1;
    }
    for (int i = 0; i <= HISTOGRAM_BINS; i++) {
        edges[i] = lo + (hi - lo) * i / HISTOGRAM_BINS;
        counts[i] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        int bin = (int)((v[i] - lo) / (hi - lo) * HISTOGRAM_BINS);
        if (v[i] > hi)
            past++;
        else
            counts[bin < HISTOGRAM_BINS ? bin : HISTOGRAM_BINS - 1]++;
    }
    return (size_t)past;
}

enum status load_svg_histogram(FILE *out, const struct load_run *run, enum load_measure m,
                               struct error *err)
{
    double edges[HISTOGRAM_BINS + 1], counts[HISTOGRAM_BINS + 1], *v;
    char title[80], words[40], name[80], said[160], number[32];
    size_t n, past = 0;
    TRY(samples_ms(run, m, &v, &n, err));
    if (n > 0)
        past = fill_bins(v, n, edges, counts);
    snprintf(name, sizeof name, "%zu samples", n);
    if (past > 0)
        snprintf(name, sizeof name, "%zu samples; %zu above %s ms are not drawn", n, past,
                 load_number(edges[HISTOGRAM_BINS], number));
    free(v);
    snprintf(title, sizeof title, "%s", load_measure_words(m));
    snprintf(words, sizeof words, "%s, ms", load_measure_words(m));
    snprintf(said, sizeof said, "histogram of %s in ms: %s", load_measure_words(m), name);
    const struct load_svg_series series = {.name = name,
                                           .kind = LOAD_SVG_BARS,
                                           .x = edges,
                                           .y = counts,
                                           .count = n > 0 ? HISTOGRAM_BINS + 1 : 0};
    const struct load_svg_chart chart = {
        .title = title,
        .said = said,
        .x = {.words = words},
        .y = {.words = m == LOAD_ITL ? "gaps" : "requests", .from_zero = true},
        .series = &series,
        .count = 1};
    load_svg_chart(out, &chart);
    return OK;
}

/* --- over time --- */

/* The run's window in bins. */
struct timeline {
    double edges[TIME_BINS + 1], values[TIME_BINS + 1]; /* s; each bin's sum */
    double width_s;
};

static struct timeline timeline_of(const struct load_run *run)
{
    struct timeline t = {.width_s = (double)(run->ended_ns - run->began_ns) * 1e-9 / TIME_BINS};
    for (int i = 0; i <= TIME_BINS; i++)
        t.edges[i] = t.width_s * i;
    return t;
}

static bool is_drawn(const struct load_record *r)
{
    return !r->warm_up && !r->error[0] && r->first_ns != 0;
}

static void put_timeline(FILE *out, const struct timeline *t, const char *title, const char *words,
                         int colour)
{
    double sum = 0;
    for (int i = 0; i < TIME_BINS; i++)
        sum += t->values[i];
    const struct load_svg_series series = {.kind = LOAD_SVG_BARS,
                                           .colour = colour,
                                           .x = t->edges,
                                           .y = t->values,
                                           .count = sum > 0 ? TIME_BINS + 1 : 0};
    const struct load_svg_chart chart = {.title = title,
                                         .said = title,
                                         .x = {.words = "time, s", .from_zero = true},
                                         .y = {.words = words, .from_zero = true},
                                         .series = &series,
                                         .count = 1};
    load_svg_chart(out, &chart);
}

void load_svg_rate(FILE *out, const struct load_run *run)
{
    struct timeline t = timeline_of(run);
    for (size_t i = 0; i < run->count && t.width_s > 0; i++) {
        const struct load_record *r = &run->records[i];
        double tokens = r->chunks > 0 ? (double)r->output_tokens / r->chunks : 0;
        for (int32_t c = 0; is_drawn(r) && c < r->chunks; c++) {
            int bin = (int)((double)(r->chunk_ns[c] - run->began_ns) * 1e-9 / t.width_s);
            if (bin >= 0 && bin <= TIME_BINS)
                t.values[bin < TIME_BINS ? bin : TIME_BINS - 1] += tokens / t.width_s;
        }
    }
    put_timeline(out, &t, "Output tokens/s over time", "output tokens/s", 0);
}

void load_svg_in_flight(FILE *out, const struct load_run *run)
{
    struct timeline t = timeline_of(run);
    for (size_t i = 0; i < run->count && t.width_s > 0; i++) {
        const struct load_record *r = &run->records[i];
        double from = (double)(r->sent_ns - run->began_ns) * 1e-9;
        double to = (double)(r->last_ns - run->began_ns) * 1e-9;
        if (!is_drawn(r))
            continue;
        for (int b = 0; b < TIME_BINS; b++)
            t.values[b] += fmax(fmin(to, t.edges[b + 1]) - fmax(from, t.edges[b]), 0) / t.width_s;
    }
    put_timeline(out, &t, "Requests in flight over time", "requests at once", 2);
}
