/* Reports as text, for a terminal and to be pasted; see load_report.h. No state. */
#include "cli/load_report_private.h"

#include <math.h>
#include <string.h>

static void put_line(FILE *out, const char *name, const char *text)
{
    fprintf(out, "%-10s", name);
    load_put_words(out, text);
    fputc('\n', out);
}

/* What is the same for all runs is said once. */
void load_report_text_head(FILE *out, const struct load_report *report)
{
    char time[32];
    put_line(out, "command", report->command);
    put_line(out, "program", report->program);
    if (report->count == 0)
        return;
    load_words_of_time(report->runs[0].start_unix_s, time);
    put_line(out, "server", report->runs[0].server);
    put_line(out, "workload", report->runs[0].dataset);
    put_line(out, "started", time);
}

static void put_latencies(FILE *out, const struct load_run *run, const struct load_stats *s)
{
    char number[32];
    fprintf(out, "%-24s %10s %10s %10s %10s %10s\n", "", "mean", "p50", "p90", "p99", "max");
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++) {
        const struct load_dist *d = &s->dist[m];
        const double values[] = {d->mean, d->p50, d->p90, d->p99, d->max};
        if (m == LOAD_TTFT_SENT && run->mode == LOAD_CLOSED)
            continue; /* the same there */
        fprintf(out, "%s, ms%*s", load_measure_words((enum load_measure)m),
                20 - (int)strlen(load_measure_words((enum load_measure)m)), "");
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            fprintf(out, " %10s", load_number(values[i] * 1e3, number));
        fputc('\n', out);
    }
}

enum status load_report_text_run(FILE *out, const struct load_run *run, const struct load_slo *slo,
                                 struct error *err)
{
    struct load_stats s;
    struct load_rows rows;
    struct load_notes notes;
    TRY(load_stats_make(run, slo, &s, err));
    load_rows_make(run, &s, slo, &rows);
    load_notes_make(run, &s, &notes);
    fputc('\n', out);
    load_put_words(out, run->label);
    fputc('\n', out);
    put_latencies(out, run, &s);
    for (size_t i = 0; i < rows.count; i++)
        fprintf(out, "%-24s %s\n", rows.rows[i].words, rows.rows[i].value);
    for (size_t i = 0; i < notes.count; i++) {
        fputs("note: ", out);
        load_put_words(out, notes.notes[i]);
        fputc('\n', out);
    }
    return OK;
}

enum status load_report_text_sweep(FILE *out, const struct load_report *report, struct error *err)
{
    static const char *const heads[] = {"requests/s", "output tok/s", "TTFT p50", "TTFT p99",
                                        "ITL p50",    "ITL p99",      "failed"};
    char number[32];
    fprintf(out, "\n%-22s", "latencies in ms");
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        fprintf(out, " %*s", i == 1 ? 12 : 10, heads[i]);
    fputc('\n', out);
    for (size_t i = 0; i < report->count; i++) {
        const struct load_run *run = &report->runs[i];
        struct load_stats s;
        TRY(load_stats_make(run, &report->slo, &s, err));
        const double values[] = {s.dist[LOAD_TTFT].p50, s.dist[LOAD_TTFT].p99, s.dist[LOAD_ITL].p50,
                                 s.dist[LOAD_ITL].p99};
        load_put_cell(out, run->label, 22);
        fprintf(out, " %10s", load_number(s.requests_per_s, number));
        fprintf(out, " %12s", load_number(s.output_tokens_per_s, number));
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            fprintf(out, " %10s", load_number(values[v] * 1e3, number));
        fprintf(out, " %10zu\n", s.failed);
    }
    return OK;
}
