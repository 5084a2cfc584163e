/* A report of what tenants used, as text, CSV or JSON: see usage.h. No state. */
#include "coordinator/usage.h"
#include "base/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Columns of figures, in order; `known` false: nothing stands there. */
enum { MAX_COLUMNS = 16 };

struct cell {
    const char *name;
    bool whole, known;
    int64_t count;
    double real;
};

static size_t put_cells(struct usage *u, const struct usage_counts *c, const struct usage_prices *p,
                        struct cell out[MAX_COLUMNS])
{
    bool metered = c->metered > 0;
    double tokens = usage_cost_tokens(c, p), energy = usage_cost_energy(c, p);
    const struct cell cells[] = {
        {"requests", true, true, c->requests, 0},
        {"unfinished", true, true, c->requests - c->finished, 0},
        {"refused", true, usage_has_refusals(u), c->refused, 0},
        {"prompt_tokens", true, true, c->prompt_tokens, 0},
        {"cached_tokens", true, true, c->cached_tokens, 0},
        {"completion_tokens", true, true, c->completion_tokens, 0},
        {"reasoning_tokens", true, true, c->reasoning_tokens, 0},
        {"metered_requests", true, true, c->metered, 0},
        {"joules", false, metered, 0, c->joules},
        {"wh", false, metered, 0, c->joules / 3600},
        {"cost_tokens", false, true, 0, tokens},
        {"cost_energy", false, metered, 0, energy},
        {"cost", false, true, 0, tokens + (metered ? energy : 0)},
    };
    size_t count = COUNT_OF(cells) - (*p->currency ? 0 : 3);
    memcpy(out, cells, count * sizeof *cells);
    return count;
}

/* --- CSV ---------------------------------------------------------------------------------------
 */

/* In quotes; what a spreadsheet would take for a formula begins with an apostrophe. */
static enum status put_text(struct buf *b, const char *s, struct error *err)
{
    TRY(buf_puts(b, *s && strchr("=+-@\t\r", *s) ? "\"'" : "\"", err));
    for (; *s; s++)
        TRY(*s == '"' ? buf_puts(b, "\"\"", err) : buf_append(b, s, 1, err));
    return buf_puts(b, "\"", err);
}

static enum status put_csv_cell(struct buf *b, const struct cell *c, struct error *err)
{
    if (!c->known)
        return buf_puts(b, ",", err);
    return c->whole ? buf_printf(b, err, ",%" PRId64, c->count)
                    : buf_printf(b, err, ",%.6f", c->real);
}

static enum status write_csv(struct usage *u, const struct usage_prices *p, struct buf *b,
                             struct error *err)
{
    struct cell cells[MAX_COLUMNS];
    struct usage_counts none = {0};
    size_t rows, columns = put_cells(u, &none, p, cells);
    const struct usage_row *row = usage_rows(u, &rows);
    TRY(buf_puts(b, "day,tenant", err));
    for (size_t i = 0; i < columns; i++)
        TRY(buf_printf(b, err, ",%s", cells[i].name));
    TRY(buf_puts(b, *p->currency ? ",currency\n" : "\n", err));
    for (size_t i = 0; i < rows; i++) {
        TRY(buf_printf(b, err, "%s,", row[i].day));
        TRY(put_text(b, row[i].tenant, err));
        put_cells(u, &row[i].counts, p, cells);
        for (size_t k = 0; k < columns; k++)
            TRY(put_csv_cell(b, &cells[k], err));
        if (*p->currency) {
            TRY(buf_puts(b, ",", err));
            TRY(put_text(b, p->currency, err));
        }
        TRY(buf_puts(b, "\n", err));
    }
    return OK;
}

/* --- JSON --------------------------------------------------------------------------------------
 */

static void put_figures(struct usage *u, const struct usage_counts *c, const struct usage_prices *p,
                        json_t *o)
{
    struct cell cells[MAX_COLUMNS];
    size_t columns = put_cells(u, c, p, cells);
    for (size_t i = 0; i < columns; i++)
        json_object_set_new(o, cells[i].name,
                            !cells[i].known  ? json_null()
                            : cells[i].whole ? json_integer(cells[i].count)
                                             : json_real(cells[i].real));
}

static json_t *prices_json(const struct usage_prices *p)
{
    if (!*p->currency)
        return json_null();
    return json_pack("{s:s, s:f, s:f, s:f, s:f}", "currency", p->currency, "prompt", p->prompt,
                     "cached", p->cached, "completion", p->completion, "kwh", p->kwh);
}

static enum status write_json(struct usage *u, const struct usage_prices *p, struct buf *b,
                              struct error *err)
{
    json_t *all = json_object(), *list = json_array(), *total = json_object();
    struct usage_counts sum = usage_total(u);
    size_t rows;
    const struct usage_row *row = usage_rows(u, &rows);
    for (size_t i = 0; i < rows; i++) {
        json_t *o = json_pack("{s:s, s:s}", "day", row[i].day, "tenant", row[i].tenant);
        if (o)
            put_figures(u, &row[i].counts, p, o);
        json_array_append_new(list, o);
    }
    put_figures(u, &sum, p, total);
    json_object_set_new(all, "prices", prices_json(p));
    json_object_set_new(all, "rows", list);
    json_object_set_new(all, "total", total);
    char *text = json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    json_decref(all);
    CHECK(text, "no memory for a report");
    enum status st = buf_printf(b, err, "%s\n", text);
    free(text);
    return st;
}

/* --- text --------------------------------------------------------------------------------------
 */

static enum status put_line(struct usage *u, const char *day, const char *tenant,
                            const struct usage_counts *c, const struct usage_prices *p,
                            struct buf *b, struct error *err)
{
    TRY(buf_printf(b, err, "%-10s  %-20.20s %9" PRId64 " %12" PRId64 " %12" PRId64 " %12" PRId64,
                   day, tenant, c->requests, c->prompt_tokens, c->cached_tokens,
                   c->completion_tokens));
    TRY(c->metered > 0 ? buf_printf(b, err, " %12.3f", c->joules / 3600)
                       : buf_printf(b, err, " %12s", "not known"));
    TRY(usage_has_refusals(u) ? buf_printf(b, err, " %9" PRId64, c->refused)
                              : buf_printf(b, err, " %9s", "-"));
    if (*p->currency)
        TRY(buf_printf(b, err, " %12.4f",
                       usage_cost_tokens(c, p) + (c->metered > 0 ? usage_cost_energy(c, p) : 0)));
    return buf_puts(b, "\n", err);
}

static enum status write_text(struct usage *u, const struct usage_prices *p, struct buf *b,
                              struct error *err)
{
    struct usage_counts sum = usage_total(u);
    size_t rows;
    const struct usage_row *row = usage_rows(u, &rows);
    TRY(buf_printf(b, err, "%-10s  %-20s %9s %12s %12s %12s %12s %9s", "day", "tenant", "requests",
                   "prompt", "of it cached", "completion", "Wh", "refused"));
    TRY(*p->currency ? buf_printf(b, err, " %12s\n", p->currency) : buf_puts(b, "\n", err));
    for (size_t i = 0; i < rows; i++)
        TRY(put_line(u, row[i].day, row[i].tenant, &row[i].counts, p, b, err));
    TRY(put_line(u, "all", "", &sum, p, b, err));
    if (sum.requests > sum.finished)
        TRY(buf_printf(b, err, "%" PRId64 " requests have no end in this log.\n",
                       sum.requests - sum.finished));
    if (sum.metered < sum.finished)
        TRY(buf_printf(b, err,
                       "The energy of %" PRId64 " of %" PRId64 " requests is not known, and in no "
                       "figure.\n",
                       sum.finished - sum.metered, sum.finished));
    return OK;
}

enum status usage_write(struct usage *u, const struct usage_prices *p, enum usage_format format,
                        struct buf *out, struct error *err)
{
    static enum status (*const writers[])(struct usage * u, const struct usage_prices *p,
                                          struct buf *b, struct error *err) = {
        [USAGE_TEXT] = write_text, [USAGE_CSV] = write_csv, [USAGE_JSON] = write_json};
    return writers[format](u, p, out, err);
}
