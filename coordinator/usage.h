/*
 * What tenants used, by day, from the records of an audit log: requests, tokens, refusals, energy,
 * and what that comes to by a table of prices. A request counts on the day on which it began (UTC),
 * one whose end is not in the log as unfinished; one whose start is not as of the tenant "unknown"
 * on the day of its end. What the log does not say is not made up: figures of energy cover those
 * requests alone that have one, and their number stands beside.
 *
 * One thread.
 */
#ifndef WITAN_COORDINATOR_USAGE_H
#define WITAN_COORDINATOR_USAGE_H

#include "base/buf.h"
#include "base/json.h"

enum {
    USAGE_MAX_ROWS = 1 << 20, /* days x tenants */
    USAGE_MAX_OPEN = 1 << 20, /* requests under way at once, or without an end */
    USAGE_DAY_BYTES = 10,     /* "2026-01-31" */
    USAGE_MAX_TENANT = 128,
};

struct usage_counts {
    int64_t requests, finished, refused;
    int64_t prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens;
    int64_t metered; /* requests whose energy is known */
    double joules;   /* of these */
};

struct usage_row {
    char day[USAGE_DAY_BYTES + 1], tenant[USAGE_MAX_TENANT];
    struct usage_counts counts;
};

/* Of a million tokens, and of a kilowatt-hour. */
struct usage_prices {
    char currency[8]; /* "EUR"; "": no prices */
    double prompt, cached, completion, kwh;
};

/* {"currency": "EUR", "prompt": 0.5, "cached": 0.1, "completion": 1.5, "kwh": 0.3}: `cached` is
 * `prompt` where it is absent, the others 0. ERR_INVALID names the field. */
enum status usage_prices_read(const char *path, struct usage_prices *out, struct error *err);

struct usage;

/* Days from `from` to `to`, both included ("2026-01-31"); NULL: no bound. ERR_INVALID: no day. */
enum status usage_create(const char *from, const char *to, struct usage **out, struct error *err);
void usage_destroy(struct usage *u); /* NULL is fine */

/* One record; kinds that say nothing of requests are passed over. `time` as audit_line.h has it.
 * ERR_INVALID: a field is missing or no figure; ERR_LIMIT. */
enum status usage_add(struct usage *u, const char *kind, const char *time, const json_t *fields,
                      struct error *err);

/* By day and tenant; valid until the next call. Those in the bounds alone. */
const struct usage_row *usage_rows(struct usage *u, size_t *count);
struct usage_counts usage_total(struct usage *u);
/* Does this log record refusals at all? Else their count is not known. */
bool usage_has_refusals(const struct usage *u);

/* What tokens and energy cost; energy that is not known costs nothing. */
double usage_cost_tokens(const struct usage_counts *c, const struct usage_prices *p);
double usage_cost_energy(const struct usage_counts *c, const struct usage_prices *p);

enum usage_format { USAGE_TEXT, USAGE_CSV, USAGE_JSON };
enum status usage_write(struct usage *u, const struct usage_prices *p, enum usage_format format,
                        struct buf *out, struct error *err);

#endif
