/* Reports as JSON, read back: the figures in them are not looked at but made again from the
 * requests. See load_report.h. No state. */
#include "base/json.h"
#include "cli/load_report_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { READ_LIMIT = 512 << 20, MAX_REQUESTS = 1 << 22, MAX_CHUNKS = 1 << 22 };

#define SPAN_NS (INT64_C(1) << 52)  /* of any time to the run's begin: 52 days */
#define BEGAN_NS (INT64_C(1) << 60) /* where a run that was read begins: no time of it is 0 */

/* Fields of one object, until the first error. */
struct reader {
    const json_t *o;
    const char *what;
    enum status st;
    struct error *err;
};

static int64_t take_int(struct reader *r, const char *key, bool required, int64_t min, int64_t max,
                        int64_t otherwise)
{
    int64_t v = otherwise;
    if (r->st == OK)
        r->st = json_get_int(r->o, r->what, key, required, min, max, &v, r->err);
    return v;
}

static double take_real(struct reader *r, const char *key, double min, double max, double otherwise)
{
    double v = otherwise;
    if (r->st == OK)
        r->st = json_get_real(r->o, r->what, key, false, min, max, &v, r->err);
    return v;
}

static bool take_bool(struct reader *r, const char *key)
{
    bool v = false;
    if (r->st == OK)
        r->st = json_get_bool(r->o, r->what, key, false, &v, r->err);
    return v;
}

/* Cut at `size`. */
static void take_string(struct reader *r, const char *key, bool required, char *out, size_t size)
{
    const char *v = "";
    if (r->st == OK)
        r->st = json_get_string(r->o, r->what, key, required, &v, r->err);
    snprintf(out, size, "%s", v);
}

static const json_t *take_array(struct reader *r, const char *key, size_t max)
{
    const json_t *v = json_object_get(r->o, key);
    if (r->st != OK)
        return NULL;
    if (!json_is_array(v))
        r->st = error_set(r->err, ERR_INVALID, "%s: %s: expected an array, found %s", r->what, key,
                          json_type_words(v));
    else if (json_array_size(v) > max)
        r->st = error_set(r->err, ERR_INVALID, "%s: %s: expected at most %zu entries, found %zu",
                          r->what, key, max, json_array_size(v));
    return r->st == OK ? v : NULL;
}

/* --- a request --- */

/* Times of the chunks from the first one's and the gaps after it; the record owns them. */
static void take_chunks(struct reader *r, struct load_record *record)
{
    const json_t *gaps = take_array(r, "gaps_ns", MAX_CHUNKS);
    if (!gaps)
        return;
    if (record->first_ns == 0) {
        if (json_array_size(gaps) > 0)
            r->st = error_set(r->err, ERR_INVALID,
                              "%s: gaps_ns: expected none where first_ns is absent, found %zu",
                              r->what, json_array_size(gaps));
        return;
    }
    size_t count = json_array_size(gaps) + 1;
    int64_t *at = malloc(count * sizeof *at);
    if (!at) {
        r->st = error_set(r->err, ERR_NO_MEMORY, "%s: no memory for %zu chunks", r->what, count);
        return;
    }
    record->chunk_ns = at;
    record->chunks = (int32_t)count;
    at[0] = record->first_ns;
    for (size_t i = 1; i < count; i++) {
        const json_t *gap = json_array_get(gaps, i - 1);
        int64_t ns = json_integer_value(gap);
        if (!json_is_integer(gap) || ns < 0 || ns > record->last_ns - at[i - 1]) {
            r->st = error_set(r->err, ERR_INVALID,
                              "%s: gaps_ns: expected integers from 0 that end at last_ns", r->what);
            return;
        }
        at[i] = at[i - 1] + ns;
    }
    if (at[count - 1] != record->last_ns)
        r->st = error_set(r->err, ERR_INVALID,
                          "%s: gaps_ns: expected last_ns at their end, found %" PRId64 " ns less",
                          r->what, record->last_ns - at[count - 1]);
}

/* Times stand from the run's begin. The record is the run's to release, however this ends. */
static enum status read_record(const json_t *o, const char *what, struct load_record *record,
                               struct error *err)
{
    struct reader r = {.o = o, .what = what, .err = err};
    int64_t intended = take_int(&r, "intended_ns", true, -SPAN_NS, SPAN_NS, 0);
    int64_t sent = take_int(&r, "sent_ns", true, -SPAN_NS, SPAN_NS, 0);
    int64_t first = take_int(&r, "first_ns", false, sent, SPAN_NS, INT64_MIN);
    int64_t last = take_int(&r, "last_ns", first != INT64_MIN, first, SPAN_NS, INT64_MIN);
    *record = (struct load_record){
        .intended_ns = BEGAN_NS + intended,
        .sent_ns = BEGAN_NS + sent,
        .first_ns = first == INT64_MIN ? 0 : BEGAN_NS + first,
        .last_ns = first == INT64_MIN ? 0 : BEGAN_NS + last,
        .prompt_tokens = (int32_t)take_int(&r, "prompt_tokens", true, 0, INT32_MAX, 0),
        .output_tokens = (int32_t)take_int(&r, "output_tokens", true, 0, INT32_MAX, 0),
        .cached_tokens = (int32_t)take_int(&r, "cached_tokens", false, 0, INT32_MAX, 0),
        .http_status = (int)take_int(&r, "http_status", false, 0, 999, 0),
        .warm_up = take_bool(&r, "warm_up"),
        .usage = take_bool(&r, "usage"),
    };
    take_string(&r, "error", false, record->error, sizeof record->error);
    take_chunks(&r, record);
    return r.st;
}

static enum status read_records(struct reader *r, struct load_run *run)
{
    const json_t *list = take_array(r, "requests", MAX_REQUESTS);
    size_t n = json_array_size(list);
    char what[200];
    if (r->st != OK)
        return r->st;
    run->records = calloc(n > 0 ? n : 1, sizeof *run->records);
    if (!run->records)
        return error_set(r->err, ERR_NO_MEMORY, "%s: no memory for %zu requests", r->what, n);
    for (size_t i = 0; i < n; i++) {
        snprintf(what, sizeof what, "%.150s: requests[%zu]", r->what, i);
        run->count++;
        TRY(read_record(json_array_get(list, i), what, &run->records[i], r->err));
    }
    return OK;
}

/* --- a run --- */

static void take_pace(struct reader *r, struct load_run *run)
{
    char mode[16];
    take_string(r, "mode", true, mode, sizeof mode);
    if (r->st != OK)
        return;
    if (strcmp(mode, "closed") == 0) {
        run->mode = LOAD_CLOSED;
        run->concurrency = (int32_t)take_int(r, "concurrency", true, 1, INT32_MAX, 0);
    } else if (strcmp(mode, "open") == 0) {
        run->mode = LOAD_OPEN;
        run->rate = take_real(r, "rate", 0, 1e9, INFINITY);
    } else {
        r->st = error_set(r->err, ERR_INVALID, "%s: mode: expected closed or open, found %s",
                          r->what, mode);
    }
}

/* The run is the report's to release, however this ends. */
static enum status read_run(const json_t *o, const char *what, struct load_run *run,
                            struct error *err)
{
    struct reader r = {.o = o, .what = what, .err = err};
    take_string(&r, "label", true, run->label, sizeof run->label);
    take_pace(&r, run);
    run->seed = (uint64_t)take_int(&r, "seed", true, INT64_MIN, INT64_MAX, 0);
    take_string(&r, "dataset", true, run->dataset, sizeof run->dataset);
    take_string(&r, "server", true, run->server, sizeof run->server);
    run->start_unix_s = take_int(&r, "start_unix_s", true, 0, INT64_C(253402300799), 0);
    run->began_ns = BEGAN_NS;
    run->ended_ns = BEGAN_NS + take_int(&r, "window_ns", true, 0, SPAN_NS, 0);
    run->energy_j = take_real(&r, "energy_j", 0, 1e15, NAN);
    run->cpu_share = take_real(&r, "cpu_share", 0, 1e6, 0);
    run->held_back = (int32_t)take_int(&r, "held_back", false, 0, INT32_MAX, 0);
    run->interrupted = take_bool(&r, "interrupted");
    return read_records(&r, run);
}

static enum status read_head(struct reader *r, struct load_report *report)
{
    char schema[32];
    take_string(r, "schema", true, schema, sizeof schema);
    if (r->st == OK && strcmp(schema, "witan-bench") != 0)
        return error_set(r->err, ERR_INVALID,
                         "%s: schema: expected witan-bench, found %s: is it a report of witan "
                         "bench --json?",
                         r->what, schema);
    int64_t version = take_int(r, "version", true, 1, INT32_MAX, 0);
    if (r->st == OK && version != LOAD_REPORT_VERSION)
        return error_set(r->err, ERR_UNSUPPORTED, "%s: version: expected %d, found %" PRId64,
                         r->what, LOAD_REPORT_VERSION, version);
    take_string(r, "program", true, report->program, sizeof report->program);
    take_string(r, "command", true, report->command, sizeof report->command);
    const json_t *slo = json_object_get(r->o, "goodput_bounds_ms");
    if (r->st != OK || !json_is_object(slo))
        return r->st;
    struct reader bounds = {.o = slo, .what = r->what, .err = r->err};
    report->slo.ttft_s = take_real(&bounds, "ttft", 0, 1e9, INFINITY) * 1e-3;
    report->slo.tpot_s = take_real(&bounds, "tpot", 0, 1e9, INFINITY) * 1e-3;
    report->slo.e2e_s = take_real(&bounds, "e2e", 0, 1e9, INFINITY) * 1e-3;
    return bounds.st;
}

static enum status read_report(const json_t *root, const char *path, struct load_report *report,
                               struct error *err)
{
    struct reader r = {.o = root, .what = path, .err = err};
    char what[200];
    if (!json_is_object(root))
        return error_set(err, ERR_INVALID, "%s: expected an object, found %s", path,
                         json_type_words(root));
    TRY(read_head(&r, report));
    const json_t *runs = take_array(&r, "runs", LOAD_REPORT_MAX_RUNS);
    TRY(r.st);
    size_t n = json_array_size(runs);
    report->runs = calloc(n > 0 ? n : 1, sizeof *report->runs);
    if (!report->runs)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for %zu runs", path, n);
    for (size_t i = 0; i < n; i++) {
        snprintf(what, sizeof what, "%.150s: runs[%zu]", path, i);
        report->count++;
        TRY(read_run(json_array_get(runs, i), what, &report->runs[i], err));
    }
    return OK;
}

enum status load_report_read_json(const char *path, struct load_report *report, struct error *err)
{
    json_t *root = NULL;
    *report = (struct load_report){.slo = LOAD_SLO_NONE};
    TRY(json_parse_file(path, READ_LIMIT, &root, err));
    enum status st = read_report(root, path, report, err);
    json_decref(root);
    if (st != OK)
        load_report_fini(report);
    return st;
}
