/* A report as a page; see load_report.h. No state. */
#include "base/check.h"
#include "cli/load_report_private.h"
#include "cli/load_svg_runs.h"
#include "cli/svg.h"

static void put_facts(FILE *out, const struct load_report *report)
{
    char time[32];
    fputs("<dl>\n", out);
    if (report->count > 0) {
        load_words_of_time(report->runs[0].start_unix_s, time);
        load_page_fact(out, "server", report->runs[0].server, false);
        load_page_fact(out, "workload", report->runs[0].dataset, false);
        load_page_fact(out, "started", time, false);
    }
    load_page_fact(out, "program", report->program, false);
    load_page_fact(out, "command", report->command, true);
    fputs("</dl>\n", out);
}

/* --- one run --- */

static void put_latencies(FILE *out, const struct load_run *run, const struct load_stats *s)
{
    fputs("<div class=\"t\"><table>\n<tr><th>ms</th><th>mean</th><th>p50</th><th>p90</th>"
          "<th>p99</th><th>max</th></tr>\n",
          out);
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++) {
        const struct load_dist *d = &s->dist[m];
        const double values[] = {d->mean, d->p50, d->p90, d->p99, d->max};
        if (m == LOAD_TTFT_SENT && run->mode == LOAD_CLOSED)
            continue;
        fprintf(out, "<tr><td>%s</td>", load_measure_words((enum load_measure)m));
        for (size_t i = 0; i < COUNT_OF(values); i++)
            load_page_cell(out, values[i] * 1e3);
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
}

static void put_notes(FILE *out, const struct load_run *run, const struct load_stats *s)
{
    struct load_notes notes;
    load_notes_make(run, s, &notes);
    if (notes.count == 0)
        return;
    fputs("<ul class=\"n\">\n", out);
    for (size_t i = 0; i < notes.count; i++) {
        fputs("<li>", out);
        svg_escaped(out, notes.notes[i]);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n", out);
}

static enum status put_run(FILE *out, const struct load_report *report, const struct load_run *run,
                           struct error *err)
{
    struct load_stats s;
    struct load_rows rows;
    TRY(load_stats_make(run, &report->slo, &s, err));
    load_rows_make(run, &s, &report->slo, &rows);
    fputs("<section>\n<h2>", out);
    svg_escaped(out, run->label);
    fputs("</h2>\n", out);
    fputs("<div class=\"a\">\n", out);
    put_latencies(out, run, &s);
    fputs("<dl>\n", out);
    for (size_t i = 0; i < rows.count; i++)
        load_page_fact(out, rows.rows[i].words, rows.rows[i].value, false);
    fputs("</dl>\n</div>\n", out);
    put_notes(out, run, &s);
    fputs("<div class=\"a\">\n", out);
    LOAD_FIGURE(out, TRY(load_svg_histogram(out, run, LOAD_TTFT, err)));
    LOAD_FIGURE(out, TRY(load_svg_histogram(out, run, LOAD_ITL, err)));
    LOAD_FIGURE(out, load_svg_rate(out, run));
    LOAD_FIGURE(out, load_svg_in_flight(out, run));
    fputs("</div>\n</section>\n", out);
    return OK;
}

/* --- all runs --- */

static enum status put_summary_row(FILE *out, const struct load_report *report,
                                   const struct load_run *run, struct error *err)
{
    struct load_stats s;
    TRY(load_stats_make(run, &report->slo, &s, err));
    const struct load_dist *d = s.dist;
    fputs("<tr><td>", out);
    svg_escaped(out, run->label);
    fputs("</td>", out);
    load_page_cell(out, s.requests_per_s);
    load_page_cell(out, s.output_tokens_per_s);
    if (load_slo_set(&report->slo))
        load_page_cell(out, s.goodput);
    load_page_cell(out, d[LOAD_TTFT].p50 * 1e3);
    load_page_cell(out, d[LOAD_TTFT].p99 * 1e3);
    load_page_cell(out, d[LOAD_ITL].p50 * 1e3);
    load_page_cell(out, d[LOAD_ITL].p99 * 1e3);
    load_page_cell(out, d[LOAD_E2E].p50 * 1e3);
    fprintf(out, "<td>%zu</td></tr>\n", s.failed);
    return OK;
}

static enum status put_summary(FILE *out, const struct load_report *report, struct error *err)
{
    fprintf(out,
            "<div class=\"t\"><table>\n<tr><th>latencies in ms</th><th>requests/s</th>"
            "<th>output tokens/s</th>%s<th>TTFT p50</th><th>TTFT p99</th><th>ITL p50</th>"
            "<th>ITL p99</th><th>E2E p50</th><th>failed</th></tr>\n",
            load_slo_set(&report->slo) ? "<th>goodput, requests/s</th>" : "");
    for (size_t i = 0; i < report->count; i++)
        TRY(put_summary_row(out, report, &report->runs[i], err));
    fputs("</table></div>\n", out);
    return OK;
}

static enum status put_all(FILE *out, const struct load_report *report, struct error *err)
{
    bool several = report->count > 1;
    const struct load_run *runs[LOAD_REPORT_MAX_RUNS];
    const char *names[LOAD_REPORT_MAX_RUNS];
    for (size_t i = 0; i < report->count; i++) {
        runs[i] = &report->runs[i];
        names[i] = report->runs[i].label;
    }
    const struct load_svg_runs all = {.runs = runs, .count = report->count};
    fprintf(out, "<section>\n<h2>%s</h2>\n", several ? "All loads" : "Distributions");
    if (several)
        TRY(put_summary(out, report, err));
    fputs("<div class=\"a\">\n", out);
    if (several) {
        LOAD_FIGURE(out, TRY(load_svg_curve(out, &all, 1, LOAD_TTFT, err)));
        LOAD_FIGURE(out, TRY(load_svg_curve(out, &all, 1, LOAD_ITL, err)));
    }
    LOAD_FIGURE(out, TRY(load_svg_cdf(out, runs, names, report->count, true, LOAD_TTFT, err)));
    LOAD_FIGURE(out, TRY(load_svg_cdf(out, runs, names, report->count, true, LOAD_ITL, err)));
    fputs("</div>\n</section>\n", out);
    return OK;
}

enum status load_report_put_page(FILE *out, const void *arg, struct error *err)
{
    const struct load_report *report = arg;
    load_page_begin(out, report->count > 0 ? report->runs[0].server : report->command);
    put_facts(out, report);
    if (report->count > 0)
        TRY(put_all(out, report, err));
    for (size_t i = 0; i < report->count; i++)
        TRY(put_run(out, report, &report->runs[i], err));
    load_page_end(out);
    return OK;
}

enum status load_report_write_html(const struct load_report *report, const char *path,
                                   struct error *err)
{
    return load_page_write(path, load_report_put_page, report, err);
}
