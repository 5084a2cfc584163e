/* What tenants used: see usage.h. State: the struct. */
#include "coordinator/usage.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PRICES_BYTES = 64 << 10 };

struct usage {
    char from[USAGE_DAY_BYTES + 1], to[USAGE_DAY_BYTES + 1]; /* "": no bound */
    struct usage_row *rows;                                  /* [cap], as they came */
    size_t count, cap;
    json_t *index;          /* "DAY TENANT" to its row's number */
    json_t *open;           /* a request's id to its row's number */
    struct usage_row *told; /* of the last usage_rows; owned */
    bool refusals;
};

/* --- prices ------------------------------------------------------------------------------------
 */

static enum status read_prices(const char *path, const json_t *root, struct usage_prices *p,
                               struct error *err)
{
    static const char *const known[] = {"currency", "prompt", "cached", "completion", "kwh"};
    const char *currency = NULL, *key;
    json_t *value;
    json_object_foreach((json_t *)root, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < COUNT_OF(known); i++)
            found = found || strcmp(key, known[i]) == 0;
        if (!found)
            return error_set(err, ERR_INVALID,
                             "%s: %.60s: not a price: expected currency, prompt, cached, "
                             "completion, kwh",
                             path, key);
    }
    TRY(json_get_string(root, path, "currency", true, &currency, err));
    if (strlen(currency) < 1 || strlen(currency) >= sizeof p->currency)
        return error_set(err, ERR_INVALID, "%s: currency: expected 1 to 7 characters", path);
    snprintf(p->currency, sizeof p->currency, "%s", currency);
    TRY(json_get_real(root, path, "prompt", false, 0, 1e9, &p->prompt, err));
    p->cached = p->prompt;
    TRY(json_get_real(root, path, "cached", false, 0, 1e9, &p->cached, err));
    TRY(json_get_real(root, path, "completion", false, 0, 1e9, &p->completion, err));
    return json_get_real(root, path, "kwh", false, 0, 1e9, &p->kwh, err);
}

enum status usage_prices_read(const char *path, struct usage_prices *out, struct error *err)
{
    json_t *root = NULL;
    *out = (struct usage_prices){0};
    TRY(json_parse_file(path, MAX_PRICES_BYTES, &root, err));
    enum status st = json_is_object(root)
                         ? read_prices(path, root, out, err)
                         : error_set(err, ERR_INVALID, "%s: expected an object", path);
    json_decref(root);
    return st;
}

double usage_cost_tokens(const struct usage_counts *c, const struct usage_prices *p)
{
    return ((double)(c->prompt_tokens - c->cached_tokens) * p->prompt +
            (double)c->cached_tokens * p->cached + (double)c->completion_tokens * p->completion) *
           1e-6;
}

double usage_cost_energy(const struct usage_counts *c, const struct usage_prices *p)
{
    return c->joules / 3.6e6 * p->kwh;
}

/* --- days --------------------------------------------------------------------------------------
 */

/* "2026-01-31", as far as a reader can tell. */
static bool is_day(const char *s, size_t len)
{
    static const char form[] = "dddd-dd-dd";
    if (len < sizeof form - 1)
        return false;
    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != form[i])
            return false;
    int month = (s[5] - '0') * 10 + s[6] - '0', day = (s[8] - '0') * 10 + s[9] - '0';
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

static enum status take_bound(const char *name, const char *day, char *out, struct error *err)
{
    if (!day)
        return OK;
    if (strlen(day) != USAGE_DAY_BYTES || !is_day(day, strlen(day)))
        return error_set(err, ERR_INVALID, "%s: expected a day like 2026-01-31, found %.40s", name,
                         day);
    memcpy(out, day, USAGE_DAY_BYTES + 1);
    return OK;
}

enum status usage_create(const char *from, const char *to, struct usage **out, struct error *err)
{
    struct usage *u = check_calloc(1, sizeof *u);
    u->index = json_object();
    u->open = json_object();
    enum status st = u->index && u->open ? take_bound("--from", from, u->from, err)
                                         : error_set(err, ERR_NO_MEMORY, "no memory for a report");
    if (st == OK)
        st = take_bound("--to", to, u->to, err);
    if (st == OK && *u->from && *u->to && strcmp(u->from, u->to) > 0)
        st = error_set(err, ERR_INVALID, "--to %s is before --from %s", u->to, u->from);
    if (st != OK) {
        usage_destroy(u);
        return st;
    }
    *out = u;
    return OK;
}

void usage_destroy(struct usage *u)
{
    if (!u)
        return;
    json_decref(u->index);
    json_decref(u->open);
    free(u->rows);
    free(u->told);
    free(u);
}

/* --- records -----------------------------------------------------------------------------------
 */

static enum status no_memory(struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for a report");
}

/* The row of a day and a tenant, made where there is none. */
static enum status find_row(struct usage *u, const char *time, const char *tenant, size_t *out,
                            struct error *err)
{
    char key[USAGE_DAY_BYTES + 1 + USAGE_MAX_TENANT + 1];
    if (!is_day(time, strlen(time)))
        return error_set(err, ERR_INVALID, "time: expected a day, found %.40s", time);
    if (!*tenant || strlen(tenant) >= USAGE_MAX_TENANT)
        return error_set(err, ERR_INVALID, "tenant: expected 1 to %d bytes", USAGE_MAX_TENANT - 1);
    snprintf(key, sizeof key, "%.10s %s", time, tenant);
    const json_t *at = json_object_get(u->index, key);
    if (at) {
        *out = (size_t)json_integer_value(at);
        return OK;
    }
    if (u->count == USAGE_MAX_ROWS)
        return error_set(err, ERR_LIMIT, "more than %d days and tenants: ask for fewer days",
                         (int)USAGE_MAX_ROWS);
    if (u->count == u->cap) {
        size_t cap = u->cap ? 2 * u->cap : 64;
        struct usage_row *rows = realloc(u->rows, cap * sizeof *rows);
        if (!rows)
            return no_memory(err);
        u->rows = rows;
        u->cap = cap;
    }
    *out = u->count++;
    struct usage_row *r = &u->rows[*out];
    *r = (struct usage_row){0};
    memcpy(r->day, time, USAGE_DAY_BYTES);
    snprintf(r->tenant, sizeof r->tenant, "%s", tenant);
    return json_object_set_new(u->index, key, json_integer((json_int_t)*out)) == 0 ? OK
                                                                                   : no_memory(err);
}

static enum status add_start(struct usage *u, const char *time, const json_t *f, struct error *err)
{
    const char *id = NULL, *tenant = NULL;
    size_t row = 0;
    TRY(json_get_string(f, "request_start", "id", true, &id, err));
    TRY(json_get_string(f, "request_start", "tenant", true, &tenant, err));
    if (json_object_size(u->open) >= USAGE_MAX_OPEN)
        return error_set(err, ERR_LIMIT, "more than %d requests without an end",
                         (int)USAGE_MAX_OPEN);
    TRY(find_row(u, time, tenant, &row, err));
    u->rows[row].counts.requests++;
    return json_object_set_new(u->open, id, json_integer((json_int_t)row)) == 0 ? OK
                                                                                : no_memory(err);
}

/* The row that a request began in, which is forgotten. */
static enum status close_request(struct usage *u, const char *id, const char *time, size_t *row,
                                 struct error *err)
{
    const json_t *at = json_object_get(u->open, id);
    if (at) {
        *row = (size_t)json_integer_value(at);
        json_object_del(u->open, id);
        return OK;
    }
    TRY(find_row(u, time, "unknown", row, err));
    u->rows[*row].counts.requests++;
    return OK;
}

static enum status add_end(struct usage *u, const char *time, const json_t *f, struct error *err)
{
    static const char what[] = "request_end";
    struct usage_counts n = {.joules = -1};
    const char *id = NULL;
    size_t row = 0;
    const struct {
        const char *key;
        int64_t *to;
    } counts[] = {{"prompt_tokens", &n.prompt_tokens},
                  {"cached_tokens", &n.cached_tokens},
                  {"completion_tokens", &n.completion_tokens},
                  {"reasoning_tokens", &n.reasoning_tokens}};
    TRY(json_get_string(f, what, "id", true, &id, err));
    for (size_t i = 0; i < COUNT_OF(counts); i++)
        TRY(json_get_int(f, what, counts[i].key, true, 0, INT32_MAX, counts[i].to, err));
    TRY(json_get_real(f, what, "joules", false, 0, 1e15, &n.joules, err));
    TRY(close_request(u, id, time, &row, err));
    struct usage_counts *c = &u->rows[row].counts;
    c->finished++;
    c->prompt_tokens += n.prompt_tokens;
    c->cached_tokens += n.cached_tokens;
    c->completion_tokens += n.completion_tokens;
    c->reasoning_tokens += n.reasoning_tokens;
    c->metered += n.joules >= 0;
    c->joules += n.joules >= 0 ? n.joules : 0;
    return OK;
}

static enum status add_refusal(struct usage *u, const char *time, const json_t *f,
                               struct error *err)
{
    const char *tenant = "unknown";
    size_t row = 0;
    u->refusals = true;
    TRY(json_get_string(f, "request_refused", "tenant", false, &tenant, err));
    TRY(find_row(u, time, tenant, &row, err));
    u->rows[row].counts.refused++;
    return OK;
}

enum status usage_add(struct usage *u, const char *kind, const char *time, const json_t *fields,
                      struct error *err)
{
    if (strcmp(kind, "request_start") == 0)
        return add_start(u, time, fields, err);
    if (strcmp(kind, "request_end") == 0)
        return add_end(u, time, fields, err);
    if (strcmp(kind, "request_refused") == 0)
        return add_refusal(u, time, fields, err);
    return OK;
}

/* --- what comes of it --------------------------------------------------------------------------
 */

static int by_day(const void *a, const void *b)
{
    const struct usage_row *x = a, *y = b;
    int order = strcmp(x->day, y->day);
    return order ? order : strcmp(x->tenant, y->tenant);
}

const struct usage_row *usage_rows(struct usage *u, size_t *count)
{
    free(u->told);
    u->told = check_calloc(u->count + 1, sizeof *u->told);
    *count = 0;
    for (size_t i = 0; i < u->count; i++) {
        const struct usage_row *r = &u->rows[i];
        if ((!*u->from || strcmp(r->day, u->from) >= 0) && (!*u->to || strcmp(r->day, u->to) <= 0))
            u->told[(*count)++] = *r;
    }
    qsort(u->told, *count, sizeof *u->told, by_day);
    return u->told;
}

struct usage_counts usage_total(struct usage *u)
{
    struct usage_counts sum = {0};
    size_t count;
    const struct usage_row *rows = usage_rows(u, &count);
    for (size_t i = 0; i < count; i++) {
        const struct usage_counts *c = &rows[i].counts;
        sum.requests += c->requests;
        sum.finished += c->finished;
        sum.refused += c->refused;
        sum.prompt_tokens += c->prompt_tokens;
        sum.cached_tokens += c->cached_tokens;
        sum.completion_tokens += c->completion_tokens;
        sum.reasoning_tokens += c->reasoning_tokens;
        sum.metered += c->metered;
        sum.joules += c->joules;
    }
    return sum;
}

bool usage_has_refusals(const struct usage *u)
{
    return u->refusals;
}
