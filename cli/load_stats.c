/* Statistics of a load; see load_stats.h. No state. */
#include "cli/load_stats.h"
#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *load_measure_key(enum load_measure m)
{
    static const char *const keys[] = {
#define X(name, key, words) key,
        LOAD_MEASURES(X)
#undef X
    };
    return keys[m];
}

const char *load_measure_words(enum load_measure m)
{
    static const char *const all[] = {
#define X(name, key, words) words,
        LOAD_MEASURES(X)
#undef X
    };
    return all[m];
}

/* --- bounds --- */

bool load_slo_set(const struct load_slo *slo)
{
    return isfinite(slo->ttft_s) || isfinite(slo->tpot_s) || isfinite(slo->e2e_s);
}

/* One "name:milliseconds" of `len` bytes. */
static bool take_bound(const char *at, size_t len, struct load_slo *slo)
{
    const struct {
        const char *name;
        double *bound;
    } bounds[] = {{"ttft:", &slo->ttft_s}, {"tpot:", &slo->tpot_s}, {"e2e:", &slo->e2e_s}};
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        size_t name = strlen(bounds[i].name);
        if (len <= name || strncmp(at, bounds[i].name, name) != 0)
            continue;
        char *end;
        double ms = strtod(at + name, &end);
        if (end != at + len || !(ms > 0) || ms > 1e9 || isfinite(*bounds[i].bound))
            return false;
        *bounds[i].bound = ms * 1e-3;
        return true;
    }
    return false;
}

enum status load_slo_parse(const char *text, struct load_slo *slo, struct error *err)
{
    struct load_slo made = LOAD_SLO_NONE;
    const char *at = text;
    for (;;) {
        size_t len = strcspn(at, ",");
        if (!take_bound(at, len, &made))
            return error_set(err, ERR_INVALID,
                             "expected bounds in ms like ttft:200,tpot:50,e2e:5000, each once, "
                             "found %.100s",
                             text);
        if (!at[len])
            break;
        at += len + 1;
    }
    *slo = made;
    return OK;
}

/* --- samples --- */

static bool counts(const struct load_record *r)
{
    return !r->warm_up && !r->error[0];
}

/* The sample of a record that counts, or NAN; not ITL. */
static double sample_of(const struct load_record *r, enum load_measure m)
{
    if (r->first_ns == 0)
        return NAN;
    switch (m) {
    case LOAD_TTFT:
        return (double)(r->first_ns - r->intended_ns) * 1e-9;
    case LOAD_TTFT_SENT:
        return (double)(r->first_ns - r->sent_ns) * 1e-9;
    case LOAD_TPOT:
        return r->output_tokens < 2
                   ? NAN
                   : (double)(r->last_ns - r->first_ns) * 1e-9 / (r->output_tokens - 1);
    default:
        return (double)(r->last_ns - r->intended_ns) * 1e-9;
    }
}

static size_t most_samples(const struct load_run *run, enum load_measure m)
{
    size_t n = 0;
    for (size_t i = 0; i < run->count; i++) {
        const struct load_record *r = &run->records[i];
        if (counts(r))
            n += m != LOAD_ITL ? 1 : r->chunks > 1 ? (size_t)r->chunks - 1 : 0;
    }
    return n;
}

static int upwards(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum status load_samples(const struct load_run *run, enum load_measure m, double **values,
                         size_t *count, struct error *err)
{
    size_t most = most_samples(run, m), n = 0;
    *values = NULL;
    *count = 0;
    if (most == 0)
        return OK;
    double *v = malloc(most * sizeof *v);
    if (!v)
        return error_set(err, ERR_NO_MEMORY, "no memory for %zu samples of %s", most,
                         load_measure_words(m));
    for (size_t i = 0; i < run->count; i++) {
        const struct load_record *r = &run->records[i];
        if (!counts(r))
            continue;
        for (int32_t c = 1; m == LOAD_ITL && c < r->chunks; c++)
            v[n++] = (double)(r->chunk_ns[c] - r->chunk_ns[c - 1]) * 1e-9;
        double one = m == LOAD_ITL ? NAN : sample_of(r, m);
        if (!isnan(one))
            v[n++] = one;
    }
    qsort(v, n, sizeof *v, upwards);
    *values = v;
    *count = n;
    return OK;
}

double load_quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1), below = floor(at), t = at - below;
    double a = sorted[(size_t)below], b = sorted[(size_t)below + 1 < n ? (size_t)below + 1 : n - 1];
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t);
}

static enum status make_dist(const struct load_run *run, enum load_measure m,
                             struct load_dist *dist, struct error *err)
{
    double *v, sum = 0;
    size_t n;
    *dist = (struct load_dist){0, NAN, NAN, NAN, NAN, NAN};
    TRY(load_samples(run, m, &v, &n, err));
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    if (n > 0)
        *dist = (struct load_dist){.count = n,
                                   .mean = sum / (double)n,
                                   .p50 = load_quantile(v, n, 0.50),
                                   .p90 = load_quantile(v, n, 0.90),
                                   .p99 = load_quantile(v, n, 0.99),
                                   .max = v[n - 1]};
    free(v);
    return OK;
}

/* --- counts --- */

static void count_failure(struct load_stats *s, const char *error)
{
    char kind[sizeof s->failures[0].kind];
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(error, ":"), error);
    size_t i = 0;
    while (i < s->failure_kinds && strcmp(s->failures[i].kind, kind) != 0)
        i++;
    if (i == LOAD_MAX_KINDS) {
        i--;
        snprintf(s->failures[i].kind, sizeof s->failures[i].kind, "other");
    } else if (i == s->failure_kinds) {
        struct load_failure *f = &s->failures[s->failure_kinds++];
        *f = (struct load_failure){.count = 0};
        memcpy(f->kind, kind, sizeof kind);
        snprintf(f->example, sizeof f->example, "%s", error);
    }
    s->failures[i].count++;
}

static int by_count(const void *a, const void *b)
{
    const struct load_failure *x = a, *y = b;
    return (x->count < y->count) - (x->count > y->count);
}

/* A request without tokens, whose TTFT nobody knows, keeps no bound. */
static bool keeps(const struct load_record *r, const struct load_slo *slo)
{
    double tpot = sample_of(r, LOAD_TPOT);
    return sample_of(r, LOAD_TTFT) <= slo->ttft_s && sample_of(r, LOAD_E2E) <= slo->e2e_s &&
           (isnan(tpot) || tpot <= slo->tpot_s);
}

static void count_record(struct load_stats *s, const struct load_record *r)
{
    if (r->warm_up) {
        s->warm_ups++;
        return;
    }
    s->counted++;
    if (r->error[0]) {
        s->failed++;
        count_failure(s, r->error);
        return;
    }
    s->succeeded++;
    s->silent += r->first_ns == 0;
    s->usage &= r->usage;
    s->prompt_tokens += r->prompt_tokens;
    s->output_tokens += r->output_tokens;
    s->cached_tokens += r->cached_tokens;
    s->chunks += r->chunks;
}

static double ratio(double a, double b, double otherwise)
{
    return b > 0 ? a / b : otherwise;
}

enum status load_stats_make(const struct load_run *run, const struct load_slo *slo,
                            struct load_stats *s, struct error *err)
{
    size_t kept = 0;
    *s = (struct load_stats){.usage = true};
    for (size_t i = 0; i < run->count; i++) {
        const struct load_record *r = &run->records[i];
        count_record(s, r);
        kept += slo && counts(r) && keeps(r, slo);
    }
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++)
        TRY(make_dist(run, (enum load_measure)m, &s->dist[m], err));
    if (s->counted > 0 && run->ended_ns > run->began_ns)
        s->window_s = (double)(run->ended_ns - run->began_ns) * 1e-9;
    const struct load_dist *e2e = &s->dist[LOAD_E2E];
    double prompt = (double)s->prompt_tokens, output = (double)s->output_tokens;
    s->requests_per_s = ratio((double)s->succeeded, s->window_s, 0);
    s->output_tokens_per_s = ratio(output, s->window_s, 0);
    s->total_tokens_per_s = ratio(prompt + output, s->window_s, 0);
    s->in_flight = e2e->count > 0 ? ratio(e2e->mean * (double)e2e->count, s->window_s, 0) : 0;
    s->cached_share = ratio((double)s->cached_tokens, prompt, NAN);
    s->tokens_per_chunk = ratio(output, (double)s->chunks, NAN);
    s->goodput = slo && load_slo_set(slo) ? ratio((double)kept, s->window_s, 0) : NAN;
    s->joules_per_token = ratio(run->energy_j, output, NAN);
    s->wh_output = ratio(run->energy_j / 3.6, output, NAN); /* 1000 of 3600 */
    s->wh_total = ratio(run->energy_j / 3.6, prompt + output, NAN);
    qsort(s->failures, s->failure_kinds, sizeof s->failures[0], by_count);
    return OK;
}
