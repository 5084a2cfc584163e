/*
 * `witan bench --report FILE` and `--compare A B`: reports of earlier runs shown again, as a page,
 * or side by side. No state.
 */
#include "base/check.h"
#include "cli/flags.h"
#include "cli/load_report.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: witan bench --report FILE [--html FILE] [--goodput BOUNDS]\n"
    "       witan bench --compare FILE FILE... [--html FILE] [--goodput BOUNDS]\n"
    "                   [--different-workloads]\n"
    "Shows reports that `witan bench --json` wrote, one or several side by side.\n"
    "  --html FILE            a page instead of the text\n"
    "  --goodput BOUNDS       in ms, of requests that count: ttft:200,tpot:50,e2e:5000\n"
    "  --different-workloads  compares loads that are not the same\n";

struct asked {
    const char *names[LOAD_COMPARE_MAX], *html, *goodput;
    size_t count;
    bool compare, unlike;
};

static bool take(struct asked *a, int argc, char **argv)
{
    a->compare = strcmp(argv[1], "--compare") == 0;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--different-workloads") == 0 && a->compare)
            a->unlike = true;
        else if (strcmp(argv[i], "--html") == 0 && i + 1 < argc && !a->html)
            a->html = argv[++i];
        else if (strcmp(argv[i], "--goodput") == 0 && i + 1 < argc && !a->goodput)
            a->goodput = argv[++i];
        else if (argv[i][0] != '-' && a->count < (a->compare ? LOAD_COMPARE_MAX : 1))
            a->names[a->count++] = argv[i];
        else
            return false;
    }
    return a->count >= (a->compare ? 2 : 1);
}

static enum status show(const struct asked *a, const struct load_report *report, struct error *err)
{
    if (a->html)
        return load_report_write_html(report, a->html, err);
    load_report_text_head(stdout, report);
    for (size_t i = 0; i < report->count; i++)
        TRY(load_report_text_run(stdout, &report->runs[i], &report->slo, err));
    return report->count > 1 ? load_report_text_sweep(stdout, report, err) : OK;
}

static enum status compare(const struct asked *a, const struct load_report *reports,
                           struct error *err)
{
    if (a->html)
        return load_report_compare_html(a->html, reports, a->names, a->count, a->unlike, err);
    return load_report_compare(stdout, reports, a->names, a->count, a->unlike, err);
}

static enum status run(const struct asked *a, struct error *err)
{
    struct load_report reports[LOAD_COMPARE_MAX];
    struct load_slo slo;
    size_t count = 0;
    enum status st = OK;
    if (a->goodput && load_slo_parse(a->goodput, &slo, err) != OK) {
        error_prefix(err, "--goodput: ");
        return err->code;
    }
    for (; st == OK && count < a->count; count += st == OK)
        st = load_report_read_json(a->names[count], &reports[count], err);
    for (size_t i = 0; i < count && a->goodput; i++)
        reports[i].slo = slo;
    if (st == OK)
        st = a->compare ? compare(a, reports, err) : show(a, &reports[0], err);
    while (count > 0)
        load_report_fini(&reports[--count]);
    return st;
}

int load_report_main(int argc, char **argv)
{
    struct asked a = {.count = 0};
    struct error err;
    if (flags_ask_help(argc, argv)) {
        fputs(usage, stdout);
        return 0;
    }
    if (!take(&a, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (run(&a, &err) != OK) {
        fprintf(stderr, "witan bench: %s\n", err.msg);
        return 1;
    }
    return 0;
}
