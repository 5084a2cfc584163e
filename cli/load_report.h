/*
 * What `witan bench` says of the loads that it ran: text for people, JSON for programs, one HTML
 * page that needs nothing but itself, and two or more reports side by side. The JSON holds every
 * record, so all of it can be made again from that file, with other bounds too. Reports may come
 * from elsewhere: their words are nobody's to trust. One thread; reads records, measures nothing.
 */
#ifndef WITAN_CLI_LOAD_REPORT_H
#define WITAN_CLI_LOAD_REPORT_H

#include "base/error.h"
#include "cli/load_record.h"
#include "cli/load_stats.h"

#include <stdio.h>

enum { LOAD_REPORT_VERSION = 1, LOAD_REPORT_MAX_RUNS = 64 };

struct load_report {
    char program[64];   /* "witan 0.1.0" */
    char command[1000]; /* as it was typed, without secrets */
    struct load_slo slo;
    struct load_run *runs; /* [count], owned: from malloc, in the order in which they ran */
    size_t count;
};

/* Releases the runs. */
void load_report_fini(struct load_report *report);

/* A command line for `command`: arguments quoted where a shell needs it, what follows --api-key (or
 * any flag that ends in "key") left out; cut at `size`. */
void load_report_command(int argc, char *const *argv, char *words, size_t size);

/* --- text: the head once, a block for each run, a table of all where there are several --- */

void load_report_text_head(FILE *out, const struct load_report *report);
enum status load_report_text_run(FILE *out, const struct load_run *run, const struct load_slo *slo,
                                 struct error *err);
enum status load_report_text_sweep(FILE *out, const struct load_report *report, struct error *err);

/* --- JSON: docs/benchmarking.md has its fields --- */

/* The file is written beside its place and moved there. */
enum status load_report_write_json(const struct load_report *report, const char *path,
                                   struct error *err);

/* Every field checked; load_report_fini(report) after OK alone. */
enum status load_report_read_json(const char *path, struct load_report *report, struct error *err);

/* --- HTML --- */

enum status load_report_write_html(const struct load_report *report, const char *path,
                                   struct error *err);

/* --- side by side --- */

enum { LOAD_COMPARE_MAX = 6 };

/*
 * Figures of each load of `reports`[count] (2 to LOAD_COMPARE_MAX) and their ratios to the first
 * one's; `names` tells them apart. Loads are the same where mode, concurrency or rate, data set,
 * seed and number of requests are. ERR_INVALID where a report lacks a load that the first has,
 * unless `unlike`: then loads are paired by mode and concurrency or rate alone, single runs always,
 * and those without a partner are left out. Nothing is printed before all is known to be the same.
 */
enum status load_report_compare(FILE *out, const struct load_report *reports,
                                const char *const *names, size_t count, bool unlike,
                                struct error *err);

/* The same as a page, with the loads' curves in one drawing. */
enum status load_report_compare_html(const char *path, const struct load_report *reports,
                                     const char *const *names, size_t count, bool unlike,
                                     struct error *err);

/* `witan bench --report ...` and `--compare ...`: argv[1] is one of these. The process's exit code.
 */
int load_report_main(int argc, char **argv);

#endif
