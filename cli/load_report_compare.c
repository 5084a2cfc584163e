/* Reports side by side; see load_report.h. No state. */
#include "base/check.h"
#include "cli/load_report_private.h"

#include <math.h>
#include <string.h>

static const struct load_run *find(const struct load_report *in, const struct load_run *like,
                                   bool unlike, bool single)
{
    if (unlike && single && in->count == 1)
        return &in->runs[0];
    for (size_t i = 0; i < in->count; i++) {
        const struct load_run *run = &in->runs[i];
        if (unlike ? load_same_pace(run, like) : load_same_workload(run, like))
            return run;
    }
    return NULL;
}

/* Why no run of `in` is the load of `like`: the nearest one's first difference. */
static enum status refuse(const struct load_report *in, const char *name,
                          const struct load_run *like, struct error *err)
{
    const struct load_run *near = NULL;
    for (size_t i = 0; i < in->count && !near; i++)
        near = load_same_pace(&in->runs[i], like) ? &in->runs[i] : NULL;
    if (!near)
        error_set(err, ERR_INVALID, "%s: expected a run of \"%s\", found none", name, like->label);
    else if (strcmp(near->dataset, like->dataset) != 0)
        error_set(err, ERR_INVALID, "%s: %s: expected the data set \"%s\", found \"%s\"", name,
                  like->label, like->dataset, near->dataset);
    else if (near->seed != like->seed)
        error_set(err, ERR_INVALID, "%s: %s: expected the seed %llu, found %llu", name, like->label,
                  (unsigned long long)like->seed, (unsigned long long)near->seed);
    else
        error_set(err, ERR_INVALID, "%s: %s: expected as many requests, found others", name,
                  like->label);
    return error_advise(err, ERR_INVALID,
                        "the loads differ; --different-workloads compares them all the same");
}

static bool whole(const struct load_pairing *p)
{
    for (size_t i = 0; i < p->count; i++) {
        if (!p->runs[i])
            return false;
    }
    return true;
}

enum status load_pair(const struct load_report *reports, const char *const *names, size_t count,
                      bool unlike, struct load_pairing pairs[LOAD_REPORT_MAX_RUNS], size_t *found,
                      struct error *err)
{
    *found = 0;
    CHECK(count >= 2 && count <= LOAD_COMPARE_MAX, "%zu reports", count);
    for (size_t i = 0; i < count; i++) {
        if (reports[i].count == 0 || !reports[i].runs)
            return error_set(err, ERR_INVALID, "%s: expected runs, found none", names[i]);
    }
    for (size_t k = 0; k < reports[0].count && k < LOAD_REPORT_MAX_RUNS; k++) {
        const struct load_run *like = &reports[0].runs[k];
        struct load_pairing *p = &pairs[*found];
        *p = (struct load_pairing){.runs = {like}, .count = count};
        for (size_t i = 1; i < count; i++) {
            p->runs[i] = find(&reports[i], like, unlike, reports[0].count == 1);
            if (!p->runs[i] && !unlike)
                return refuse(&reports[i], names[i], like, err);
        }
        *found += whole(p);
    }
    if (*found == 0)
        return error_set(err, ERR_INVALID,
                         "expected a concurrency or rate that all reports have, found none");
    return OK;
}

/* --- figures --- */

/* A row, where any report has the figure; the values are the next row's already. */
static void keep(struct load_compared *rows, size_t *count, size_t reports, const char *words)
{
    bool any = false;
    for (size_t i = 0; i < reports; i++)
        any |= !isnan(rows[*count].values[i]);
    if (any)
        snprintf(rows[(*count)++].words, sizeof rows->words, "%s", words);
}

static void keep_latencies(struct load_compared *rows, size_t *count, const struct load_stats *s,
                           size_t reports, enum load_measure m)
{
    char words[40];
    for (size_t i = 0; i < reports; i++)
        rows[*count].values[i] = s[i].dist[m].p50 * 1e3;
    snprintf(words, sizeof words, "%s p50, ms", load_measure_words(m));
    keep(rows, count, reports, words);
    for (size_t i = 0; i < reports; i++)
        rows[*count].values[i] = s[i].dist[m].p99 * 1e3;
    snprintf(words, sizeof words, "%s p99, ms", load_measure_words(m));
    keep(rows, count, reports, words);
}

enum status load_compare(const struct load_pairing *p, const struct load_slo *slo,
                         struct load_compared rows[LOAD_COMPARED], size_t *count, struct error *err)
{
    static const struct {
        const char *words;
        size_t at; /* of a double in struct load_stats */
    } rates[] = {
        {"requests/s", offsetof(struct load_stats, requests_per_s)},
        {"output tokens/s", offsetof(struct load_stats, output_tokens_per_s)},
        {"total tokens/s", offsetof(struct load_stats, total_tokens_per_s)},
        {"goodput, requests/s", offsetof(struct load_stats, goodput)},
        {"energy, J/output token", offsetof(struct load_stats, joules_per_token)},
        {"energy, Wh/1000 tokens", offsetof(struct load_stats, wh_total)},
    };
    struct load_stats s[LOAD_COMPARE_MAX];
    _Static_assert(COUNT_OF(rates) + 2 * LOAD_MEASURE_COUNT + 1 <= LOAD_COMPARED, "room for all");
    *count = 0;
    for (size_t i = 0; i < p->count; i++)
        TRY(load_stats_make(p->runs[i], slo, &s[i], err));
    for (size_t r = 0; r < COUNT_OF(rates); r++) {
        for (size_t i = 0; i < p->count; i++)
            memcpy(&rows[*count].values[i], (const char *)&s[i] + rates[r].at, sizeof(double));
        keep(rows, count, p->count, rates[r].words);
    }
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++) {
        if (m != LOAD_TTFT_SENT)
            keep_latencies(rows, count, s, p->count, (enum load_measure)m);
    }
    for (size_t i = 0; i < p->count; i++)
        rows[*count].values[i] = (double)s[i].failed;
    keep(rows, count, p->count, "failed requests");
    return OK;
}

/* --- text --- */

/* Each report's figure, then its ratio to the first. */
static void put_row(FILE *out, const struct load_compared *row, size_t count)
{
    char number[32];
    fprintf(out, "%-24s", row->words);
    for (size_t i = 0; i < count; i++)
        fprintf(out, " %10s", load_number(row->values[i], number));
    for (size_t i = 1; i < count; i++) {
        if (row->values[0] > 0 && !isnan(row->values[i]))
            fprintf(out, " %8.3f", row->values[i] / row->values[0]);
        else
            fprintf(out, " %8s", "-");
    }
    fputc('\n', out);
}

static enum status put_pairing(FILE *out, const struct load_pairing *p, const struct load_slo *slo,
                               struct error *err)
{
    struct load_compared rows[LOAD_COMPARED];
    size_t count;
    int wide = (int)strlen(p->runs[0]->label);
    TRY(load_compare(p, slo, rows, &count, err));
    fputc('\n', out);
    load_put_words(out, p->runs[0]->label);
    fprintf(out, "%*s", wide < 24 ? 24 - wide : 0, "");
    for (size_t i = 0; i < p->count; i++)
        fprintf(out, " %10c", 'A' + (char)i);
    for (size_t i = 1; i < p->count; i++)
        fprintf(out, "      %c/A", 'A' + (char)i);
    fputc('\n', out);
    for (size_t i = 0; i < count; i++)
        put_row(out, &rows[i], p->count);
    return OK;
}

/* "A  file: program; server; when". */
static void put_name(FILE *out, char letter, const char *name, const struct load_report *report)
{
    char time[32];
    load_words_of_time(report->runs[0].start_unix_s, time);
    fprintf(out, "%c  %s: ", letter, name);
    load_put_words(out, report->program);
    fputs("; ", out);
    load_put_words(out, report->runs[0].server);
    fprintf(out, "; %s\n", time);
}

static void put_workload(FILE *out, const char *before, const struct load_run *run)
{
    fputs(before, out);
    load_put_words(out, run->dataset);
    fprintf(out, ", seed %llu\n", (unsigned long long)run->seed);
}

static void put_names(FILE *out, const struct load_report *reports, const char *const *names,
                      size_t count, bool unlike)
{
    for (size_t i = 0; i < count; i++) {
        put_name(out, (char)('A' + (char)i), names[i], &reports[i]);
        if (unlike)
            put_workload(out, "   ", &reports[i].runs[0]);
    }
    if (!unlike)
        put_workload(out, "workload: ", &reports[0].runs[0]);
}

enum status load_report_compare(FILE *out, const struct load_report *reports,
                                const char *const *names, size_t count, bool unlike,
                                struct error *err)
{
    struct load_pairing pairs[LOAD_REPORT_MAX_RUNS];
    size_t found;
    TRY(load_pair(reports, names, count, unlike, pairs, &found, err));
    put_names(out, reports, names, count, unlike);
    for (size_t i = 0; i < found; i++)
        TRY(put_pairing(out, &pairs[i], &reports[0].slo, err));
    return OK;
}
