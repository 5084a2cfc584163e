/* Figures in words; see load_report.h. No state. */
#include "cli/load_report.h"
#include "base/check.h"
#include "cli/load_report_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void load_report_fini(struct load_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        load_run_fini(&report->runs[i]);
    free(report->runs);
    report->runs = NULL;
    report->count = 0;
}

/* --- the command --- */

static void put(char *words, size_t size, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends, cut at `size`. */
static void put(char *words, size_t size, const char *fmt, ...)
{
    size_t len = strlen(words);
    va_list args;
    va_start(args, fmt);
    vsnprintf(words + len, size - len, fmt, args);
    va_end(args);
}

static bool ends_in_key(const char *flag)
{
    size_t len = strlen(flag);
    return len > 5 && flag[0] == '-' && strcmp(flag + len - 3, "key") == 0;
}

static void put_quoted(char *words, size_t size, const char *arg)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-_./:=,+@%^";
    if (*arg && arg[strspn(arg, plain)] == '\0') {
        put(words, size, "%s", arg);
        return;
    }
    put(words, size, "'");
    for (; *arg; arg++)
        put(words, size, *arg == '\'' ? "'\\''" : "%c", *arg);
    put(words, size, "'");
}

void load_report_command(int argc, char *const *argv, char *words, size_t size)
{
    words[0] = '\0';
    for (int i = 0; i < argc; i++) {
        if (i > 0)
            put(words, size, " ");
        if (i > 0 && ends_in_key(argv[i - 1]))
            put(words, size, "...");
        else
            put_quoted(words, size, argv[i]);
    }
}

/* --- words --- */

void load_put_words(FILE *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        bool high = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* U+0080 to U+009F */
        fputc(*c < 0x20 || *c == 0x7f || high ? '?' : *c, out);
        c += high;
    }
}

void load_put_cell(FILE *out, const char *text, int width)
{
    char fits[256];
    int chars = 0;
    size_t len = 0;
    for (; text[len] && len < sizeof fits - 1; len++) {
        bool begins = ((unsigned char)text[len] & 0xc0) != 0x80;
        if (begins && chars++ == width) {
            chars--;
            break;
        }
    }
    memcpy(fits, text, len);
    fits[len] = '\0';
    load_put_words(out, fits);
    fprintf(out, "%*s", width - chars, "");
}

const char *load_number(double v, char *words)
{
    double size = fabs(v);
    int digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
    if (isnan(v))
        snprintf(words, 32, "-");
    else if (size == 0)
        snprintf(words, 32, "0");
    else if (size < 0.001 || size >= 1e15)
        snprintf(words, 32, "%.3g", v);
    else
        snprintf(words, 32, "%.*f", digits, v);
    return words;
}

void load_words_of_mode(const struct load_run *run, char *words, size_t size)
{
    if (run->mode == LOAD_CLOSED)
        snprintf(words, size, "closed loop, %d at once", run->concurrency);
    else if (isinf(run->rate))
        snprintf(words, size, "open loop, all at once");
    else if (run->rate > 0)
        snprintf(words, size, "open loop, %g requests/s", run->rate);
    else
        snprintf(words, size, "open loop, at the times of a trace");
}

void load_words_of_slo(const struct load_slo *slo, char *words, size_t size)
{
    const struct {
        const char *name;
        double bound;
    } bounds[] = {{"TTFT", slo->ttft_s}, {"TPOT", slo->tpot_s}, {"E2E", slo->e2e_s}};
    words[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        if (isfinite(bounds[i].bound))
            put(words, size, "%s%s <= %g ms", words[0] ? ", " : "", bounds[i].name,
                bounds[i].bound * 1e3);
    }
}

void load_words_of_time(int64_t unix_s, char *words)
{
    time_t t = (time_t)unix_s;
    struct tm utc;
    if (!gmtime_r(&t, &utc) || strftime(words, 32, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        snprintf(words, 32, "-");
}

/* --- rows --- */

static void add_text(struct load_rows *r, const char *words, const char *value)
{
    CHECK(r->count < LOAD_MAX_ROWS, "%zu rows", r->count);
    struct load_row *row = &r->rows[r->count++];
    snprintf(row->words, sizeof row->words, "%s", words);
    snprintf(row->value, sizeof row->value, "%s", value);
}

static void add_number(struct load_rows *r, const char *words, double value)
{
    char number[32];
    add_text(r, words, load_number(value, number));
}

static void add_tokens(struct load_rows *r, const struct load_stats *s)
{
    char words[80];
    snprintf(words, sizeof words, "%" PRId64 " in, %" PRId64 " out", s->prompt_tokens,
             s->output_tokens);
    add_text(r, "tokens", words);
    if (!(s->cached_share > 0))
        return;
    snprintf(words, sizeof words, "%.1f %%", s->cached_share * 100);
    add_text(r, "prompt tokens from cache", words);
}

void load_rows_make(const struct load_run *run, const struct load_stats *s,
                    const struct load_slo *slo, struct load_rows *r)
{
    char words[80];
    r->count = 0;
    load_words_of_mode(run, words, sizeof words);
    add_text(r, "load", words);
    snprintf(words, sizeof words, "%" PRIu64, run->seed);
    add_text(r, "seed", words);
    snprintf(words, sizeof words, "%zu of %zu succeeded%s", s->succeeded, s->counted,
             s->warm_ups > 0 ? ", after warm-up" : "");
    add_text(r, "requests", words);
    snprintf(words, sizeof words, "%.2f s", s->window_s);
    add_text(r, "window", words);
    add_tokens(r, s);
    add_number(r, "requests/s", s->requests_per_s);
    add_number(r, "output tokens/s", s->output_tokens_per_s);
    add_number(r, "total tokens/s", s->total_tokens_per_s);
    add_number(r, "requests at once, mean", s->in_flight);
    if (!isnan(s->goodput)) {
        char bounds[80];
        load_words_of_slo(slo, bounds, sizeof bounds);
        add_number(r, "goodput, requests/s", s->goodput);
        add_text(r, "goodput's bounds", bounds);
    }
    if (isnan(s->joules_per_token))
        return;
    add_number(r, "energy, J/output token", s->joules_per_token);
    add_number(r, "energy, Wh/1000 output tokens", s->wh_output);
    add_number(r, "energy, Wh/1000 tokens", s->wh_total);
}

/* --- notes --- */

static void note(struct load_notes *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void note(struct load_notes *n, const char *fmt, ...)
{
    if (n->count == LOAD_MAX_NOTES)
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(n->notes[n->count++], sizeof n->notes[0], fmt, args);
    va_end(args);
}

static void note_failures(struct load_notes *n, const struct load_stats *s)
{
    for (size_t i = 0; i < s->failure_kinds; i++) {
        const struct load_failure *f = &s->failures[i];
        note(n, "%zu failed, %s; one of them: %s", f->count, f->kind, f->example);
    }
}

void load_notes_make(const struct load_run *run, const struct load_stats *s, struct load_notes *n)
{
    n->count = 0;
    if (run->interrupted)
        note(n, "Interrupted: these are the requests until then.");
    if (run->cpu_share > 0.8)
        note(n, "This program took %.0f %% of a core: latencies may be its own.",
             run->cpu_share * 100);
    if (run->held_back > 0)
        note(n, "%d requests went out later than intended; that is in TTFT and E2E.",
             run->held_back);
    if (s->succeeded > 0 && !s->usage)
        note(n, "The server does not say how many tokens it sent: chunks are counted.");
    if (s->usage && s->tokens_per_chunk > 1.05)
        note(n, "A chunk holds %.2f tokens on average: ITL is between chunks.",
             s->tokens_per_chunk);
    if (s->silent > 0)
        note(n, "Answers without a token: %zu; they have no latency.", s->silent);
    if (s->succeeded > 0 && s->succeeded < 100)
        note(n, "p99 of %zu request%s is nearly the maximum.", s->succeeded,
             s->succeeded > 1 ? "s" : "");
    note_failures(n, s);
}

/* --- workloads --- */

bool load_same_pace(const struct load_run *a, const struct load_run *b)
{
    if (a->mode != b->mode)
        return false;
    return a->mode == LOAD_CLOSED ? a->concurrency == b->concurrency
                                  : !(a->rate < b->rate) && !(a->rate > b->rate);
}

static size_t counted(const struct load_run *run)
{
    size_t n = 0;
    for (size_t i = 0; i < run->count; i++)
        n += !run->records[i].warm_up;
    return n;
}

bool load_same_workload(const struct load_run *a, const struct load_run *b)
{
    return load_same_pace(a, b) && a->seed == b->seed && strcmp(a->dataset, b->dataset) == 0 &&
           counted(a) == counted(b);
}
