/* What the reports' files share: figures as rows of words, and what to know before one believes
 * them. */
#ifndef WITAN_CLI_LOAD_REPORT_PRIVATE_H
#define WITAN_CLI_LOAD_REPORT_PRIVATE_H

#include "cli/load_report.h"

enum { LOAD_MAX_ROWS = 20, LOAD_MAX_NOTES = 12 };

/* One figure of a run in words: "output tokens/s", "1234". */
struct load_row {
    char words[40], value[80];
};

struct load_rows {
    struct load_row rows[LOAD_MAX_ROWS];
    size_t count;
};

/* Everything but latencies. */
void load_rows_make(const struct load_run *run, const struct load_stats *s,
                    const struct load_slo *slo, struct load_rows *rows);

struct load_notes {
    char notes[LOAD_MAX_NOTES][260];
    size_t count;
};

/* What makes a run's figures less than they seem; failures by kind among it. */
void load_notes_make(const struct load_run *run, const struct load_stats *s,
                     struct load_notes *notes);

/* "closed loop, 8 at once", "open loop, 4 requests/s". */
void load_words_of_mode(const struct load_run *run, char *words, size_t size);

/* "TTFT <= 200 ms, TPOT <= 50 ms". */
void load_words_of_slo(const struct load_slo *slo, char *words, size_t size);

/* "2026-01-31T12:00:00Z" into `words`[32]. */
void load_words_of_time(int64_t unix_s, char *words);

/* Text from outside on a terminal: control characters become '?'. */
void load_put_words(FILE *out, const char *text);

/* The same as a column of a table: `width` characters at most, then spaces up to it. */
void load_put_cell(FILE *out, const char *text, int width);

/* A number with three or four digits that matter: "0.123", "12.3", "1234"; "-" for NAN. Into
 * `words`[32], which is returned. */
const char *load_number(double v, char *words);

/* Do the two put the same load on their servers? */
bool load_same_workload(const struct load_run *a, const struct load_run *b);

/* By mode and concurrency or rate alone. */
bool load_same_pace(const struct load_run *a, const struct load_run *b);

/* --- pages --- */

void load_page_begin(FILE *out, const char *title);
void load_page_end(FILE *out); /* with what the figures are */

/* Of a <dl>; `code`: as a command. */
void load_page_fact(FILE *out, const char *name, const char *words, bool code);
void load_page_cell(FILE *out, double v); /* of a table's row */

#define LOAD_FIGURE(out, draw)                                                                     \
    do {                                                                                           \
        fputs("<figure>", out);                                                                    \
        draw;                                                                                      \
        fputs("</figure>\n", out);                                                                 \
    } while (0)

typedef enum status (*load_page_fn)(FILE *out, const void *arg, struct error *err);

/* What `put` writes, as a file. */
enum status load_page_write(const char *path, load_page_fn put, const void *arg, struct error *err);

/* A load_page_fn: the page of a struct load_report. */
enum status load_report_put_page(FILE *out, const void *report, struct error *err);

/* --- side by side --- */

/* The same load in each of several reports. */
struct load_pairing {
    const struct load_run *runs[LOAD_COMPARE_MAX];
    size_t count;
};

/* Pairs every load of the first report: see load_report_compare. */
enum status load_pair(const struct load_report *reports, const char *const *names, size_t count,
                      bool unlike, struct load_pairing pairs[LOAD_REPORT_MAX_RUNS], size_t *found,
                      struct error *err);

enum { LOAD_COMPARED = 20 };

/* One figure of each report; NAN where one has none. */
struct load_compared {
    char words[40];
    double values[LOAD_COMPARE_MAX];
};

/* Figures that at least one has; *count of them. */
enum status load_compare(const struct load_pairing *pairing, const struct load_slo *slo,
                         struct load_compared rows[LOAD_COMPARED], size_t *count,
                         struct error *err);

#endif
