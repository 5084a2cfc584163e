/* Reports side by side as a page; see load_report.h. No state. */
#include "base/check.h"
#include "cli/load_report_private.h"
#include "cli/load_svg_runs.h"
#include "cli/svg.h"

#include <math.h>

/* What a page is made of. */
struct compared {
    const struct load_report *reports; /* [count] */
    const char *const *names;
    size_t count;
    struct load_pairing pairs[LOAD_REPORT_MAX_RUNS]; /* [found] */
    size_t found;
};

static const char *const letters[] = {"A", "B", "C", "D", "E", "F"};
_Static_assert(COUNT_OF(letters) == LOAD_COMPARE_MAX, "a letter for each report");

static void put_facts(FILE *out, const struct compared *c)
{
    char words[600], time[32];
    fputs("<dl>\n", out);
    for (size_t i = 0; i < c->count; i++) {
        const struct load_run *run = &c->reports[i].runs[0];
        load_words_of_time(run->start_unix_s, time);
        snprintf(words, sizeof words, "%.150s: %.60s; %.280s; %s", c->names[i],
                 c->reports[i].program, run->server, time);
        load_page_fact(out, letters[i], words, false);
        if (i == 0 || !load_same_workload(run, &c->reports[0].runs[0]))
            load_page_fact(out, "", run->dataset, false);
    }
    fputs("</dl>\n", out);
}

/* --- a load --- */

static void put_ratio(FILE *out, double first, double v)
{
    if (first > 0 && !isnan(v))
        fprintf(out, "<td>%.3f</td>", v / first);
    else
        fputs("<td>-</td>", out);
}

static enum status put_table(FILE *out, const struct load_pairing *p, const struct load_slo *slo,
                             struct error *err)
{
    struct load_compared rows[LOAD_COMPARED];
    size_t count;
    TRY(load_compare(p, slo, rows, &count, err));
    fputs("<div class=\"t\"><table>\n<tr><th></th>", out);
    for (size_t i = 0; i < p->count; i++)
        fprintf(out, "<th>%s</th>", letters[i]);
    for (size_t i = 1; i < p->count; i++)
        fprintf(out, "<th>%s/A</th>", letters[i]);
    fputs("</tr>\n", out);
    for (size_t r = 0; r < count; r++) {
        fprintf(out, "<tr><td>%s</td>", rows[r].words);
        for (size_t i = 0; i < p->count; i++)
            load_page_cell(out, rows[r].values[i]);
        for (size_t i = 1; i < p->count; i++)
            put_ratio(out, rows[r].values[0], rows[r].values[i]);
        fputs("</tr>\n", out);
    }
    fputs("</table></div>\n", out);
    return OK;
}

static enum status put_load(FILE *out, const struct load_pairing *p, const struct load_slo *slo,
                            struct error *err)
{
    fputs("<section>\n<h2>", out);
    svg_escaped(out, p->runs[0]->label);
    fputs("</h2>\n", out);
    TRY(put_table(out, p, slo, err));
    fputs("<div class=\"a\">\n", out);
    LOAD_FIGURE(out, TRY(load_svg_cdf(out, p->runs, letters, p->count, false, LOAD_TTFT, err)));
    LOAD_FIGURE(out, TRY(load_svg_cdf(out, p->runs, letters, p->count, false, LOAD_ITL, err)));
    fputs("</div>\n</section>\n", out);
    return OK;
}

/* --- all of them --- */

static enum status put_curves(FILE *out, const struct compared *c, struct error *err)
{
    const struct load_run *runs[LOAD_COMPARE_MAX][LOAD_REPORT_MAX_RUNS];
    struct load_svg_runs lines[LOAD_COMPARE_MAX];
    for (size_t i = 0; i < c->count; i++) {
        for (size_t k = 0; k < c->found; k++)
            runs[i][k] = c->pairs[k].runs[i];
        lines[i] = (struct load_svg_runs){letters[i], runs[i], c->found};
    }
    fputs("<section>\n<h2>All loads</h2>\n<div class=\"a\">\n", out);
    LOAD_FIGURE(out, TRY(load_svg_curve(out, lines, c->count, LOAD_TTFT, err)));
    LOAD_FIGURE(out, TRY(load_svg_curve(out, lines, c->count, LOAD_ITL, err)));
    fputs("</div>\n</section>\n", out);
    return OK;
}

static enum status put_page(FILE *out, const void *arg, struct error *err)
{
    const struct compared *c = arg;
    load_page_begin(out, "side by side");
    put_facts(out, c);
    if (c->found > 1)
        TRY(put_curves(out, c, err));
    for (size_t i = 0; i < c->found; i++)
        TRY(put_load(out, &c->pairs[i], &c->reports[0].slo, err));
    load_page_end(out);
    return OK;
}

enum status load_report_compare_html(const char *path, const struct load_report *reports,
                                     const char *const *names, size_t count, bool unlike,
                                     struct error *err)
{
    struct compared c = {.reports = reports, .names = names, .count = count};
    TRY(load_pair(reports, names, count, unlike, c.pairs, &c.found, err));
    return load_page_write(path, put_page, &c, err);
}
