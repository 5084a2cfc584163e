/* See load.h: brings options, dataset, client and loop together, load by load. State: struct bench,
 * main()'s. */
#include "cli/load.h"

#include "base/check.h"
#include "cli/flags.h"
#include "cli/load_grpc.h"
#include "cli/load_http.h"
#include "cli/load_options.h"
#include "cli/load_report.h"
#include "coordinator/text/tokenizer.h"
#include "proto/versions.h"

#include <event2/thread.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAX_KEY_BYTES = 4096, ASK_TIMEOUT_MS = 10000, MAX_STREAMS = 4096 };

struct bench {
    struct load_options o;
    char *authorization;
    char model[256];
    struct tokenizer *tokenizer;
    struct load_dataset *dataset;
    struct event_base *base;
    struct load_http_options http_options;
    struct load_http *http;
    struct load_grpc *grpc, *meter; /* the meter's is the first one where that is there */
    struct load_client *client;
    size_t cursor; /* of a file's requests: what was sent */
    struct load_report report;
};

/* --- making ready ------------------------------------------------------------------------------
 */

static enum status read_key(struct bench *b, struct error *err)
{
    const char *given = getenv("WITAN_API_KEY");
    char *text = NULL;
    size_t len = 0;
    if (b->o.key_file) {
        TRY(file_read_all(b->o.key_file, MAX_KEY_BYTES, &text, &len, err));
        text[strcspn(text, "\r\n")] = '\0';
        given = text;
    }
    if (given && *given)
        CHECK(asprintf(&b->authorization, "Bearer %s", given) > 0, "no memory for a key");
    bool legal = !b->authorization || !strpbrk(b->authorization, "\r\n");
    free(text);
    return legal ? OK : error_set(err, ERR_INVALID, "WITAN_API_KEY: expected one line");
}

/* What a load can have under way. */
static int32_t most(const struct load_options *o)
{
    double n = o->plan.mode == LOAD_OPEN ? o->plan.max_in_flight : o->plan.concurrency;
    for (int32_t i = 0; i < o->sweep_count; i++) {
        double one = o->sweep_mode == LOAD_OPEN ? o->plan.max_in_flight : o->sweep[i];
        n = one > n ? one : n;
    }
    return n < 16 ? 16 : (int32_t)n;
}

static enum status open_grpc(struct bench *b, const char *address, int32_t at_once, int timeout_ms,
                             struct load_grpc **out, struct error *err)
{
    if (at_once > MAX_STREAMS)
        return error_set(err, ERR_LIMIT,
                         "--grpc: expected at most %d requests at once (--concurrency, "
                         "--max-in-flight), found %d",
                         MAX_STREAMS, (int)at_once);
    struct load_grpc_options o = {
        .address = address,
        .ca = b->o.ca,
        .authorization = b->authorization,
        .most = at_once,
        .timeout_ms = timeout_ms,
        .model = b->model,
        .chat = b->o.chat,
        .ignore_eos = b->o.ignore_eos,
        .has_temperature = b->o.has_temperature,
        .temperature = (float)b->o.temperature,
    };
    enum status st = load_grpc_create(&o, out, err);
    if (st != OK)
        error_prefix(err, "%s: ", address);
    return st;
}

/* The temperature goes with --extra's members. */
static void join_members(struct load_options *o)
{
    char *all;
    if (!o->has_temperature)
        return;
    CHECK(asprintf(&all, "\"temperature\":%.9g%s%s", o->temperature, o->more ? "," : "",
                   o->more ? o->more : "") > 0,
          "no memory for a request's fields");
    free(o->more);
    o->more = all;
}

static enum status open_http(struct bench *b, struct error *err)
{
    join_members(&b->o);
    b->http_options = (struct load_http_options){
        .url = b->o.url,
        .ca = b->o.ca,
        .insecure = b->o.insecure,
        .authorization = b->authorization,
        .most = most(&b->o),
        .timeout_ms = ASK_TIMEOUT_MS,
        .model = b->model,
        .chat = b->o.chat,
        .ignore_eos = b->o.ignore_eos,
        .usage = b->o.usage,
        .more = b->o.more,
    };
    TRY(load_http_create(b->base, &b->http_options, &b->http, err));
    b->client = load_http_client(b->http);
    if (!b->o.status)
        return OK;
    return open_grpc(b, b->o.status, 1, ASK_TIMEOUT_MS, &b->meter, err);
}

/* Finds the server, and its first model where none was named. */
static enum status meet_server(struct bench *b, struct error *err)
{
    char name[sizeof b->model];
    int32_t vocabulary = 0;
    if (b->o.grpc) {
        int64_t timeout_ms = b->o.plan.timeout_ns / 1000000;
        TRY(open_grpc(b, b->o.grpc, most(&b->o), (int)timeout_ms, &b->grpc, err));
        b->client = load_grpc_client(b->grpc);
        b->meter = b->grpc;
        TRY(load_grpc_models(b->grpc, name, sizeof name, &vocabulary, err));
        if (b->o.dataset.vocabulary == 0)
            b->o.dataset.vocabulary = vocabulary;
    } else {
        TRY(open_http(b, err));
        TRY(load_http_models(b->http, name, sizeof name, err));
    }
    snprintf(b->model, sizeof b->model, "%s", b->o.model ? b->o.model : name);
    return *b->model ? OK
                     : error_set(err, ERR_INVALID,
                                 "the server lists no models: --model NAME says which to ask");
}

static enum status check_vocabulary(const struct bench *b, struct error *err)
{
    const struct load_dataset_options *d = &b->o.dataset;
    bool made_up = d->kind == LOAD_RANDOM || d->kind == LOAD_TRACE;
    if (b->o.grpc || !made_up || b->tokenizer || d->vocabulary > 0)
        return OK;
    return error_set(err, ERR_INVALID,
                     "prompts of random ids need to know how many there are: expected --tokenizer "
                     "DIR, the model's folder, or --vocab N");
}

/* The dataset before the server, which need not be there for its faults to be told. */
static enum status make_ready(struct bench *b, struct error *err)
{
    struct load_options *o = &b->o;
    if (o->goodput && load_slo_parse(o->goodput, &b->report.slo, err) != OK) {
        error_prefix(err, "--goodput: ");
        return err->code;
    }
    TRY(read_key(b, err));
    if (o->tokenizer)
        TRY(tokenizer_load(o->tokenizer, &b->tokenizer, err));
    o->dataset.tokenizer = b->tokenizer;
    TRY(check_vocabulary(b, err));
    if (o->dataset.kind != LOAD_RANDOM)
        TRY(load_dataset_open(&o->dataset, &b->dataset, err));
    b->base = evthread_use_pthreads() == 0 ? event_base_new() : NULL;
    if (!b->base)
        return error_set(err, ERR_NO_MEMORY, "no event loop");
    TRY(meet_server(b, err));
    if (!b->dataset)
        return load_dataset_open(&o->dataset, &b->dataset, err);
    load_dataset_set_vocabulary(b->dataset, o->dataset.vocabulary);
    return OK;
}

/* --- one load ----------------------------------------------------------------------------------
 */

static void name_run(const struct bench *b, const struct load_plan *p, struct load_run *run)
{
    const char *words = b->http ? load_http_words(b->http) : b->o.grpc;
    if (p->mode == LOAD_CLOSED)
        snprintf(run->label, sizeof run->label, "concurrency %d", (int)p->concurrency);
    else if (p->traced)
        snprintf(run->label, sizeof run->label, "trace's times, speed %g", p->speed);
    else if (isinf(p->arrivals.rate))
        snprintf(run->label, sizeof run->label, "all at once");
    else
        snprintf(run->label, sizeof run->label, "%g requests/s", p->arrivals.rate);
    snprintf(run->dataset, sizeof run->dataset, "%s", load_dataset_words(b->dataset));
    snprintf(run->server, sizeof run->server, "%s%.150s, model %.100s", b->http ? "" : "gRPC ",
             words, b->model);
}

/* A sweep's loads are each another seed's: the cache that one has filled is not for the next. */
static struct load_plan plan_run(struct bench *b, size_t index, struct load_run *run)
{
    struct load_plan p = b->o.plan;
    size_t count = load_dataset_count(b->dataset);
    bool made_up = b->o.dataset.kind == LOAD_RANDOM || b->o.dataset.kind == LOAD_TRACE;
    run->seed = b->o.dataset.seed + index;
    load_dataset_reseed(b->dataset, run->seed);
    load_rng_init(&p.arrivals.rng, run->seed, UINT64_MAX);
    if (b->o.sweep_count > 0) {
        p.mode = b->o.sweep_mode;
        p.arrivals.rate = b->o.sweep[index];
        p.concurrency = (int32_t)(p.mode == LOAD_CLOSED ? b->o.sweep[index] : 0);
    }
    if (p.requests == 0 || (p.traced && p.requests > (int64_t)count))
        p.requests = (int64_t)count;
    if (!made_up)
        p.first = (size_t)p.warm_up + b->cursor;
    p.progress = isatty(STDERR_FILENO);
    return p;
}

static enum status drive(struct bench *b, const struct load_plan *p, struct load_run *run,
                         struct error *err)
{
    struct load_drive *d = load_drive_create(b->base, p, b->client, b->dataset);
    enum status st = load_drive_warm_up(d, err);
    double before = b->meter ? load_grpc_energy(b->meter) : NAN;
    if (st == OK)
        st = load_drive_measure(d, err);
    run->energy_j = b->meter ? load_grpc_energy(b->meter) - before : NAN;
    load_drive_take(d, run);
    load_drive_destroy(d);
    return st;
}

/* --- what is said of it ------------------------------------------------------------------------
 */

/* A file that was too short for the load. */
static void note_repeats(const struct bench *b, size_t counted)
{
    size_t count = load_dataset_count(b->dataset);
    if (b->o.dataset.kind != LOAD_RANDOM && counted > count)
        fprintf(stderr,
                "witan bench: note: the file's %zu requests were sent more than once, which a "
                "prefix cache sees\n",
                count);
}

struct tally {
    size_t counted, succeeded, failed;
    const char *example; /* of a failure */
};

static struct tally tally(const struct load_run *run)
{
    struct tally t = {0};
    for (size_t i = 0; i < run->count; i++) {
        const struct load_record *r = &run->records[i];
        bool refused = strncmp(r->error, LOAD_REFUSED, strlen(LOAD_REFUSED)) == 0;
        if (r->warm_up)
            continue;
        t.counted++;
        t.succeeded += !*r->error;
        t.failed += *r->error && !refused;
        if (*r->error && (!t.example || !refused))
            t.example = t.example && t.failed > 1 ? t.example : r->error;
    }
    return t;
}

/* False, with a line, when the process is to say that something went wrong. */
static bool judge(const struct load_run *run, const struct tally *t)
{
    if (t->counted == 0 || (t->failed == 0 && t->succeeded > 0))
        return true;
    fprintf(stderr, "witan bench: %s: %zu of %zu requests %s%s%s\n", run->label,
            t->failed > 0 ? t->failed : t->counted, t->counted,
            t->failed > 0 ? "failed" : "were refused", t->example ? ", for instance: " : "",
            t->example ? t->example : "");
    return false;
}

/* One load, from its plan to its text. False: it went wrong, as was said. */
static bool run_one(struct bench *b, size_t index, enum status *st, struct error *err)
{
    struct load_report *report = &b->report;
    struct load_run *run = &report->runs[report->count++];
    struct load_plan p = plan_run(b, index, run);
    name_run(b, &p, run);
    *st = drive(b, &p, run, err);
    struct tally t = tally(run);
    b->cursor += t.counted;
    if (index == 0)
        load_report_text_head(stdout, report);
    struct error why;
    if (load_report_text_run(stdout, run, &report->slo, &why) != OK && *st == OK) {
        *err = why;
        *st = why.code;
    }
    fflush(stdout);
    note_repeats(b, t.counted);
    return judge(run, &t);
}

static enum status write_reports(const struct bench *b, struct error *err)
{
    const struct load_report *report = &b->report;
    if (report->count > 1)
        TRY(load_report_text_sweep(stdout, report, err));
    if (b->o.json)
        TRY(load_report_write_json(report, b->o.json, err));
    return b->o.html ? load_report_write_html(report, b->o.html, err) : OK;
}

/* All loads, or those until the server was lost or Ctrl-C; what there is is reported. */
static bool run_all(struct bench *b, struct error *err)
{
    size_t count = b->o.sweep_count > 0 ? (size_t)b->o.sweep_count : 1;
    bool good = true;
    enum status st = OK;
    b->report.runs = check_calloc(count, sizeof *b->report.runs);
    for (size_t i = 0; i < count && st == OK; i++)
        good = run_one(b, i, &st, err) && good;
    if (st != OK)
        fprintf(stderr, "witan bench: %s\n", err->msg);
    if (write_reports(b, err) == OK)
        return good && st == OK;
    fprintf(stderr, "witan bench: %s\n", err->msg);
    return false;
}

/* --- the command -------------------------------------------------------------------------------
 */

static void bench_fini(struct bench *b)
{
    load_report_fini(&b->report);
    load_http_destroy(b->http);
    if (b->meter != b->grpc)
        load_grpc_destroy(b->meter);
    load_grpc_destroy(b->grpc);
    load_dataset_destroy(b->dataset);
    tokenizer_destroy(b->tokenizer);
    if (b->base)
        event_base_free(b->base);
    load_options_fini(&b->o);
    free(b->authorization);
}

static void note_skipped(const struct bench *b)
{
    size_t skipped = load_dataset_skipped(b->dataset);
    if (skipped > 0)
        fprintf(stderr,
                "witan bench: note: %zu conversations without a question that is answered were "
                "left out\n",
                skipped);
}

int load_main(int argc, char **argv)
{
    struct bench b = {.report = {.program = "witan " WITAN_VERSION, .slo = LOAD_SLO_NONE}};
    struct error err;
    if (flags_ask_help(argc, argv)) {
        fputs(load_usage, stdout);
        return 0;
    }
    if (load_options_read(argc, argv, &b.o, &err) != OK) {
        fprintf(stderr, "witan bench: %s\n", err.msg);
        load_options_fini(&b.o);
        return 2;
    }
    if (!b.o.has_seed)
        CHECK(getentropy(&b.o.dataset.seed, 4) == 0, "no seed");
    memcpy(b.report.command, "witan ", 6);
    load_report_command(argc, argv, b.report.command + 6, sizeof b.report.command - 6);
    bool good = make_ready(&b, &err) == OK;
    if (!good) {
        fprintf(stderr, "witan bench: %s\n", err.msg);
    } else {
        note_skipped(&b);
        good = run_all(&b, &err);
    }
    bench_fini(&b);
    return good ? 0 : 1;
}
