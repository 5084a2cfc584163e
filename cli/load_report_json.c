/* Reports as JSON, written; see load_report.h. No state. */
#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "cli/json_put.h"
#include "cli/load_report_private.h"
#include "coordinator/text/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_LIMIT = 512 << 20 }; /* bytes */

/* null where there is no number. */
static void put_real(json_t *object, const char *key, double value)
{
    json_put(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* Words from outside may be no UTF-8, which JSON is. */
static void put_string(json_t *object, const char *key, const char *text)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    CHECK(utf8_append_lossy(&b, text, strlen(text), NULL) == OK, "no memory for %s", key);
    json_put(object, key, json_stringn(b.data ? b.data : "", b.len));
    buf_fini(&b);
}

static json_t *dist_object(const struct load_dist *d)
{
    json_t *o = json_object();
    json_put_int(o, "count", (int64_t)d->count);
    put_real(o, "mean", d->mean * 1e3);
    put_real(o, "p50", d->p50 * 1e3);
    put_real(o, "p90", d->p90 * 1e3);
    put_real(o, "p99", d->p99 * 1e3);
    put_real(o, "max", d->max * 1e3);
    return o;
}

static json_t *failures_array(const struct load_stats *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->failure_kinds; i++) {
        json_t *o = json_object();
        put_string(o, "kind", s->failures[i].kind);
        put_string(o, "example", s->failures[i].example);
        json_put_int(o, "count", (int64_t)s->failures[i].count);
        json_add(list, o);
    }
    return list;
}

static json_t *figures_object(const struct load_stats *s)
{
    json_t *o = json_object(), *latencies = json_object();
    json_put_int(o, "counted", (int64_t)s->counted);
    json_put_int(o, "succeeded", (int64_t)s->succeeded);
    json_put_int(o, "failed", (int64_t)s->failed);
    json_put_int(o, "warm_up", (int64_t)s->warm_ups);
    json_put_int(o, "without_tokens", (int64_t)s->silent);
    put_real(o, "window_s", s->window_s);
    put_real(o, "requests_per_s", s->requests_per_s);
    put_real(o, "output_tokens_per_s", s->output_tokens_per_s);
    put_real(o, "total_tokens_per_s", s->total_tokens_per_s);
    put_real(o, "goodput_requests_per_s", s->goodput);
    put_real(o, "requests_at_once", s->in_flight);
    json_put_int(o, "prompt_tokens", s->prompt_tokens);
    json_put_int(o, "output_tokens", s->output_tokens);
    json_put_int(o, "cached_tokens", s->cached_tokens);
    json_put_int(o, "chunks", s->chunks);
    put_real(o, "joules_per_output_token", s->joules_per_token);
    put_real(o, "wh_per_1000_output_tokens", s->wh_output);
    put_real(o, "wh_per_1000_tokens", s->wh_total);
    for (int m = 0; m < LOAD_MEASURE_COUNT; m++)
        json_put(latencies, load_measure_key((enum load_measure)m), dist_object(&s->dist[m]));
    json_put(o, "latency_ms", latencies);
    json_put(o, "failures", failures_array(s));
    return o;
}

static json_t *run_object(const struct load_run *run, const struct load_stats *s)
{
    json_t *o = json_object();
    char time[32];
    load_words_of_time(run->start_unix_s, time);
    put_string(o, "label", run->label);
    put_string(o, "mode", run->mode == LOAD_CLOSED ? "closed" : "open");
    if (run->mode == LOAD_CLOSED)
        json_put_int(o, "concurrency", run->concurrency);
    else
        put_real(o, "rate", run->rate); /* null: all at once */
    json_put_int(o, "seed", (int64_t)run->seed);
    put_string(o, "dataset", run->dataset);
    put_string(o, "server", run->server);
    put_string(o, "start", time);
    json_put_int(o, "start_unix_s", run->start_unix_s);
    json_put_int(o, "window_ns", run->ended_ns - run->began_ns);
    put_real(o, "energy_j", run->energy_j);
    put_real(o, "cpu_share", run->cpu_share);
    json_put_int(o, "held_back", run->held_back);
    json_put(o, "interrupted", json_boolean(run->interrupted));
    json_put(o, "figures", figures_object(s));
    return o;
}

/* --- requests: a line each, written as they are, for there may be many chunks --- */

static enum status append_time(struct buf *b, const struct load_run *run, const char *key,
                               int64_t ns, struct error *err)
{
    return buf_printf(b, err, "\"%s\":%" PRId64 ",", key, ns - run->began_ns);
}

static enum status append_error(struct buf *b, const struct load_record *r, struct error *err)
{
    struct buf words;
    buf_init(&words, 4 * sizeof r->error);
    enum status st = utf8_append_lossy(&words, r->error, strlen(r->error), err);
    if (st == OK)
        st = buf_puts(b, "\"error\":", err);
    if (st == OK)
        st = buf_json_string(b, words.data, words.len, err);
    if (st == OK)
        st = buf_puts(b, ",", err);
    buf_fini(&words);
    return st;
}

static enum status append_record(struct buf *b, const struct load_run *run,
                                 const struct load_record *r, struct error *err)
{
    TRY(buf_puts(b, "{", err));
    TRY(append_time(b, run, "intended_ns", r->intended_ns, err));
    TRY(append_time(b, run, "sent_ns", r->sent_ns, err));
    if (r->first_ns != 0) {
        TRY(append_time(b, run, "first_ns", r->first_ns, err));
        TRY(append_time(b, run, "last_ns", r->last_ns, err));
    }
    TRY(buf_printf(b, err,
                   "\"prompt_tokens\":%d,\"output_tokens\":%d,\"cached_tokens\":%d,"
                   "\"http_status\":%d,",
                   r->prompt_tokens, r->output_tokens, r->cached_tokens, r->http_status));
    if (r->error[0])
        TRY(append_error(b, r, err));
    TRY(buf_printf(b, err, "\"warm_up\":%s,\"usage\":%s,\"gaps_ns\":[",
                   r->warm_up ? "true" : "false", r->usage ? "true" : "false"));
    for (int32_t i = 1; i < r->chunks; i++)
        TRY(buf_printf(b, err, "%s%" PRId64, i > 1 ? "," : "",
                       r->chunk_ns[i] - r->chunk_ns[i - 1]));
    return buf_puts(b, "]}", err);
}

/* The fields of `o`, which it takes, without the object's braces. */
static enum status append_fields(struct buf *b, json_t *o, struct error *err)
{
    char *text = json_dumps(o, JSON_INDENT(1) | JSON_EMBED);
    json_decref(o);
    if (!text)
        return error_set(err, ERR_NO_MEMORY, "no memory for a report");
    enum status st = buf_puts(b, text, err);
    free(text);
    return st;
}

static enum status append_run(struct buf *b, const struct load_report *report,
                              const struct load_run *run, struct error *err)
{
    struct load_stats s;
    TRY(load_stats_make(run, &report->slo, &s, err));
    TRY(buf_puts(b, "{", err));
    TRY(append_fields(b, run_object(run, &s), err));
    TRY(buf_puts(b, ",\n \"requests\": [", err));
    for (size_t i = 0; i < run->count; i++) {
        TRY(buf_puts(b, i > 0 ? ",\n  " : "\n  ", err));
        TRY(append_record(b, run, &run->records[i], err));
    }
    return buf_puts(b, "\n ]}", err);
}

static json_t *head_object(const struct load_report *report)
{
    json_t *o = json_object(), *slo = json_object();
    put_string(o, "schema", "witan-bench");
    json_put_int(o, "version", LOAD_REPORT_VERSION);
    put_string(o, "program", report->program);
    put_string(o, "command", report->command);
    put_real(slo, "ttft", report->slo.ttft_s * 1e3);
    put_real(slo, "tpot", report->slo.tpot_s * 1e3);
    put_real(slo, "e2e", report->slo.e2e_s * 1e3);
    json_put(o, "goodput_bounds_ms", slo);
    return o;
}

static enum status append_report(struct buf *b, const struct load_report *report, struct error *err)
{
    TRY(buf_puts(b, "{", err));
    TRY(append_fields(b, head_object(report), err));
    TRY(buf_puts(b, ",\n\"runs\": [", err));
    for (size_t i = 0; i < report->count; i++) {
        TRY(buf_puts(b, i > 0 ? ",\n" : "\n", err));
        TRY(append_run(b, report, &report->runs[i], err));
    }
    return buf_puts(b, "\n]}\n", err);
}

enum status load_report_write_json(const struct load_report *report, const char *path,
                                   struct error *err)
{
    struct buf b;
    buf_init(&b, REPORT_LIMIT);
    enum status st = append_report(&b, report, err);
    if (st == OK)
        st = file_write(path, b.data, b.len, 0644, true, err);
    else
        error_prefix(err, "%s: ", path);
    buf_fini(&b);
    return st;
}
