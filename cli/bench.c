/*
 * `witan bench --offline`: decode and prefill on the engine itself, without a server, against the
 * bounds of partition/bounds.h. One process, ranks as threads.
 */
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "cli/flags.h"
#ifndef WITAN_ENGINE_ONLY
#include "cli/load.h"
#include "cli/load_report.h"
#include "cli/quality.h"
#endif
#include "partition/bounds.h"
#include "partition/weight_format.h"
#include "worker/cuda_backend.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char usage[] =
    "usage: witan bench --offline DIR [FLAG...]\n"
    "       witan bench --url URL | --grpc HOST:PORT [FLAG...]  (--url --help: these flags)\n"
    "       witan bench --quality DIR [FLAG...]  (--quality --help: these flags)\n"
    "       witan bench --report FILE [FLAG...]\n"
    "       witan bench --compare FILE FILE... [FLAG...]\n"
    "--offline: decodes at several batch sizes and fills prompts, prints tokens a second and the "
    "share of "
    "what\n"
    "the machine's memory and arithmetic allow.\n"
    "  --random-weights   none are read: DIR needs its config.json alone\n"
    "  --batch N[,N...]   sequences decoded at once (default: 1,8,64)\n"
    "  --depth N          positions before the first measured step (default: 1024)\n"
    "  --steps N          measured decode steps of each batch (default: 64)\n"
    "  --prefill N[,N...] prompts of so many tokens, alone (default: 4096)\n"
    "  --repeat N         times that each prompt is filled (default: 3)\n"
    "  --bandwidth N      GB/s that the memory gives (default: a known GPU's, else no bound)\n"
    "  --peak N           TFLOP/s that matrix products reach (the same)\n"
    "  --json FILE        the figures for programs\n"
    "  --turns            instead: cases one at a time from standard input, `prefill N`,\n"
    "                     `fill BATCH DEPTH`, `decode STEPS`, each answered with its seconds; the\n"
    "                     sizes are --context, --max-seqs and --step-tokens\n";

enum { WARM_STEPS = 3, MAX_STEPS = 4096, BENCH_METER_MS = 50 };

/* --- flags --- */

static bool wrong(const char *flag, const char *expected, const char *value)
{
    fprintf(stderr, "witan bench: %s: expected %s, found %s\n", flag, expected,
            value ? value : "nothing");
    return false;
}

static bool take_list(const char *flag, const char *value, int32_t max, int32_t *list,
                      int32_t *count)
{
    char words[64];
    const char *at = value;
    snprintf(words, sizeof words, "up to %d numbers of 1 to %d", BENCH_MAX_CASES, max);
    for (*count = 0; at && *count < BENCH_MAX_CASES; at++) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 1 || v > max || (*end && *end != ','))
            break;
        list[(*count)++] = (int32_t)v;
        at = end;
        if (!*at)
            return true;
    }
    return wrong(flag, words, value);
}

static bool take_int(const char *flag, const char *value, int32_t max, int32_t *out)
{
    int32_t list[BENCH_MAX_CASES], count;
    if (!take_list(flag, value, max, list, &count))
        return false;
    *out = list[0];
    return count == 1 || wrong(flag, "one number", value);
}

static bool take_rate(const char *flag, const char *value, double unit, double *out)
{
    char *end = NULL;
    double v = value ? strtod(value, &end) : 0;
    if (!value || end == value || *end || !(v > 0) || v > 1e9)
        return wrong(flag, "a rate above 0", value);
    *out = v * unit;
    return true;
}

/* 1: taken; 0: not a flag of bench; -1: bad, said. */
static int take_flag(struct bench *b, char **argv, int *i)
{
    const char *flag = argv[*i], *value = argv[*i + 1];
    bool good;
    struct {
        const char *name;
        bool *out;
    } switches[] = {{"--offline", &b->offline},
                    {"--random-weights", &b->group.random_weights},
                    {"--turns", &b->turns}};
    for (size_t k = 0; k < COUNT_OF(switches); k++) {
        if (strcmp(flag, switches[k].name) != 0)
            continue;
        *switches[k].out = true;
        return 1;
    }
    if (strcmp(flag, "--batch") == 0)
        good = take_list(flag, value, BENCH_MAX_BATCH, b->batches, &b->batch_count);
    else if (strcmp(flag, "--prefill") == 0)
        good = take_list(flag, value, BENCH_MAX_TOKENS, b->prompts, &b->prompt_count);
    else if (strcmp(flag, "--depth") == 0)
        good = take_int(flag, value, BENCH_MAX_TOKENS, &b->depth);
    else if (strcmp(flag, "--steps") == 0)
        good = take_int(flag, value, MAX_STEPS, &b->steps);
    else if (strcmp(flag, "--repeat") == 0)
        good = take_int(flag, value, 1000, &b->repeat);
    else if (strcmp(flag, "--bandwidth") == 0)
        good = take_rate(flag, value, 1e9, &b->bandwidth);
    else if (strcmp(flag, "--peak") == 0)
        good = take_rate(flag, value, 1e12, &b->peak);
    else if (strcmp(flag, "--json") == 0)
        good = (b->json_path = value) != NULL || wrong(flag, "a path", NULL);
    else
        return 0;
    ++*i;
    return good ? 1 : -1;
}

static bool parse(struct bench *b, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int taken = group_flag(&b->group, argc, argv, &i);
        if (taken == 0)
            taken = take_flag(b, argv, &i);
        if (taken < 0)
            return false;
        if (taken > 0)
            continue;
        if (argv[i][0] == '-' || b->group.dir) {
            fprintf(stderr, "%s%s", usage, group_help);
            return false;
        }
        b->group.dir = argv[i];
    }
    if (!b->group.dir || !b->offline) {
        fprintf(stderr, "%s%s", usage, group_help);
        return false;
    }
    return true;
}

/* --- sizes --- */

static int32_t most_of(const int32_t *list, int32_t count)
{
    int32_t most = 0;
    for (int32_t i = 0; i < count; i++)
        most = list[i] > most ? list[i] : most;
    return most;
}

/* Tokens that the first of a batch's sequences gets at most: those that it decodes while the others
 * are still being filled, too. */
static int64_t decoded(const struct bench *b, int32_t batch)
{
    int64_t fill = (int64_t)batch * b->depth / b->group.limits.max_rows + 2 + batch;
    return fill + WARM_STEPS + b->steps + 1;
}

static int64_t blocks_of(int64_t tokens)
{
    return (tokens + KV_BLOCK - 1) / KV_BLOCK;
}

/* What the cases need, where no flag said otherwise. */
static bool size_group(struct bench *b)
{
    struct engine_limits *l = &b->group.limits;
    int32_t batch = most_of(b->batches, b->batch_count);
    int64_t prompt = most_of(b->prompts, b->prompt_count), context = prompt + 1, blocks;
    if (l->max_rows == 0)
        l->max_rows = prompt > 8192 ? 8192 : prompt > 2048 ? (int32_t)prompt : 2048;
    if (l->max_rows < batch)
        l->max_rows = batch;
    blocks = blocks_of(context);
    for (int32_t i = 0; i < b->batch_count; i++) {
        int64_t tokens = b->depth + decoded(b, b->batches[i]);
        context = tokens > context ? tokens : context;
        if (b->batches[i] * blocks_of(tokens) > blocks)
            blocks = b->batches[i] * blocks_of(tokens);
    }
    l->max_seqs = batch;
    if (l->context == 0)
        l->context = (int32_t)(context < INT32_MAX ? context : INT32_MAX);
    l->kv_blocks = (int32_t)(blocks < INT32_MAX ? blocks : INT32_MAX);
    return l->context >= context || wrong("--context", "room for every case", "too little");
}

/* Rates that GPUs' memories and bf16 matrix products were measured to reach (copy counting both
 * ways; products of 8192 x 8192 x 8192 on random data), by parts of their names. Others: flags. */
static void fill_rates(struct bench *b)
{
    static const struct {
        const char *name;
        double bandwidth, peak;
    } known[] = {{"H200", 4.3e12, 790e12}};
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (!strstr(b->device, known[i].name))
            continue;
        b->bandwidth = b->bandwidth > 0 ? b->bandwidth : known[i].bandwidth;
        b->peak = b->peak > 0 ? b->peak : known[i].peak;
    }
}

/* --- cases --- */

static int32_t random_token(struct bench *b)
{
    b->state ^= b->state >> 12;
    b->state ^= b->state << 25;
    b->state ^= b->state >> 27;
    return (int32_t)((b->state * UINT64_C(2685821657736338717)) >> 33) % b->model->config.vocab;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct bench *b = user;
    b->drawn += token >= 0;
    b->ended += finish != FINISH_NONE;
    b->failed |= finish == FINISH_ERROR;
}

enum status bench_submit(struct bench *b, int32_t length, int64_t max_tokens, uint64_t *id,
                         struct error *err)
{
    int32_t *prompt = malloc((size_t)length * sizeof *prompt);
    if (!prompt)
        return error_set(err, ERR_NO_MEMORY, "no memory for a prompt");
    for (int32_t i = 0; i < length; i++)
        prompt[i] = random_token(b);
    const struct request q = {.prompt = prompt,
                              .prompt_len = length,
                              .max_tokens = (int32_t)max_tokens,
                              .ignore_eos = true,
                              .sampling = {.temperature = 1.0f, .top_p = 1.0f, .seed = b->state},
                              .on_token = on_token,
                              .user = b};
    enum status st = engine_submit(b->engine, &q, id, err);
    free(prompt);
    return st;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Since the start; NAN where it is not known. */
static double joules(struct bench *b)
{
    struct energy_reading r;
    return energy_read(b->energy, &r) ? r.host + r.gpu : NAN;
}

/* Says and keeps one case: `seconds` of each step or prompt, all of `tokens` tokens; `energy` in J
 * of all of them. */
static enum status report(struct bench *b, const char *what, int32_t size, double tokens,
                          double *seconds, int32_t count, double energy,
                          const struct step_shape *shape, struct error *err)
{
    struct step_bounds bound = plan_bounds(&b->model->config, b->inv, b->model->rank,
                                           b->model->limits.kv_dtype, shape);
    double memory = b->bandwidth > 0 ? bound.bytes / b->bandwidth : 0;
    double arithmetic = b->peak > 0 ? bound.flops / b->peak : 0;
    double least = memory > arithmetic ? memory : arithmetic;
    qsort(seconds, (size_t)count, sizeof *seconds, by_value);
    double median = seconds[count / 2], p99 = seconds[(count * 99 - 1) / 100];
    printf("%-8s %6d %12.1f %10.3f %10.3f", what, size, tokens / median, median * 1e3, p99 * 1e3);
    if (least > 0)
        printf(" %12.1f %6.1f%%  %s", tokens / least, least / median * 100,
               memory > arithmetic ? "memory" : "arithmetic");
    printf(" %8.1f GB/s %8.2f TFLOP/s", bound.bytes / median * 1e-9, bound.flops / median * 1e-12);
    if (!isnan(energy))
        printf(" %9.4f Wh/1000 tokens", energy / (tokens * count) / 3.6);
    printf("\n");
    fflush(stdout);
    json_t *o = json_pack("{s:s, s:i, s:f, s:f, s:f, s:i, s:f, s:f}", "case", what, "size",
                          (int)size, "tokens_per_s", tokens / median, "median_ms", median * 1e3,
                          "p99_ms", p99 * 1e3, "samples", (int)count, "bytes", bound.bytes, "flops",
                          bound.flops);
    if (o && !isnan(energy) &&
        (json_object_set_new(o, "joules_per_token", json_real(energy / (tokens * count))) != 0 ||
         json_object_set_new(o, "wh_per_1000_tokens", json_real(energy / (tokens * count) / 3.6)) !=
             0))
        o = NULL;
    if (o && least > 0 &&
        (json_object_set_new(o, "bound_tokens_per_s", json_real(tokens / least)) != 0 ||
         json_object_set_new(o, "share_of_bound", json_real(least / median)) != 0))
        o = NULL;
    return o && json_array_append_new(b->cases, o) == 0
               ? OK
               : error_set(err, ERR_NO_MEMORY, "no memory for figures");
}

enum status bench_step(struct bench *b, double *seconds, int64_t *rows, struct error *err)
{
    uint64_t before = engine_stats(b->engine)->rows;
    int64_t start = clock_now_ns();
    bool ran;
    TRY(engine_step(b->engine, &ran, err));
    *seconds = (double)(clock_now_ns() - start) * 1e-9;
    *rows = (int64_t)(engine_stats(b->engine)->rows - before);
    if (b->failed)
        return error_set(err, ERR_INVALID, "the model's logits are not finite");
    return ran ? OK : error_set(err, ERR_INVALID, "a request ended before its case");
}

/* `batch` sequences of `depth` tokens; measured are the steps in which all decode. */
static enum status decode(struct bench *b, int32_t batch, struct error *err)
{
    uint64_t *ids = calloc((size_t)batch, sizeof *ids);
    double *seconds = calloc((size_t)b->steps, sizeof *seconds);
    enum status st = ids && seconds ? OK : error_set(err, ERR_NO_MEMORY, "no memory for a case");
    for (int32_t i = 0; st == OK && i < batch; i++)
        st = bench_submit(b, b->depth, decoded(b, batch), &ids[i], err);
    int64_t fed = 0;
    double energy = NAN;
    for (int32_t n = -WARM_STEPS; st == OK && n < b->steps;) {
        int64_t rows = 0, drawn = b->drawn;
        double s = 0;
        st = bench_step(b, &s, &rows, err);
        fed += rows;
        if (rows != batch || b->drawn - drawn != batch)
            continue;
        if (n >= 0)
            seconds[n] = s;
        if (++n == 0)
            energy = joules(b);
    }
    energy = joules(b) - energy;
    if (st == OK) {
        double depth = (double)fed / batch - 0.5 * b->steps; /* in the middle of the measured */
        struct step_shape shape = step_decode(batch, depth);
        st = report(b, "decode", batch, batch, seconds, b->steps, energy, &shape, err);
    }
    for (int32_t i = 0; ids && i < batch; i++)
        engine_cancel(b->engine, ids[i]);
    free(ids);
    free(seconds);
    return st;
}

/* From the prompt's first step to its last, with the token drawn after it. */
static enum status prefill(struct bench *b, int32_t tokens, struct error *err)
{
    double *seconds = calloc((size_t)b->repeat, sizeof *seconds);
    enum status st = seconds ? OK : error_set(err, ERR_NO_MEMORY, "no memory for a case");
    double energy = NAN;
    for (int32_t n = -1; st == OK && n < b->repeat; n++) { /* one to warm up */
        energy = n == 0 ? joules(b) : energy;
        int64_t ended = b->ended;
        uint64_t id;
        double sum = 0;
        st = bench_submit(b, tokens, 1, &id, err);
        while (st == OK && b->ended == ended) {
            int64_t rows = 0;
            double s = 0;
            st = bench_step(b, &s, &rows, err);
            sum += s;
        }
        if (n >= 0)
            seconds[n] = sum;
    }
    energy = joules(b) - energy;
    struct step_shape shape = step_prefill(tokens);
    if (st == OK)
        st = report(b, "prefill", tokens, tokens, seconds, b->repeat, energy, &shape, err);
    free(seconds);
    return st;
}

/* --- the run --- */

/* What cannot be measured is left out; of several GPUs nothing is. */
static enum status open_energy(struct bench *b, struct error *err)
{
    const struct cuda_plugin *p = NULL;
    struct cuda_device_info info;
    struct energy_options o = {.root = getenv("WITAN_POWERCAP"), .host = true};
    if (b->group.cuda && b->model->world->size > 1)
        return OK;
    if (b->group.cuda) {
        TRY(cuda_plugin_open(NULL, &p, err));
        if (p->device_info(0, &info) != 0)
            return OK;
        const struct meter_options m = {
            .uuid = info.uuid, .pci = info.pci, .period_ms = BENCH_METER_MS};
        TRY(meter_create(&m, &b->meter, err));
        o.gpu = true;
        o.meter = b->meter;
    }
    return energy_create(&o, &b->energy, err);
}

static enum status name_device(struct bench *b, struct error *err)
{
    const struct cuda_plugin *p = NULL;
    struct cuda_device_info info;
    snprintf(b->device, sizeof b->device, "cpu (%s), %d threads", b->group.kernels,
             b->model->limits.threads);
    if (!b->group.cuda)
        return OK;
    TRY(cuda_plugin_open(NULL, &p, err));
    int code = p->device_info(0, &info);
    if (code != 0)
        return error_set(err, ERR_IO, "GPU 0: %s", p->error_text(code));
    snprintf(b->device, sizeof b->device, "%s", info.name);
    return OK;
}

static enum status run_cases(struct bench *b, struct error *err)
{
    fill_rates(b);
    printf("%s, %s%s, tp %d ep %d pp %d, depth %d\n", b->device,
           weight_format_name(b->model->config.quant.format),
           b->group.random_weights ? ", random weights" : "", b->group.layout.tp,
           b->group.layout.ep, b->group.layout.pp, b->depth);
    printf("%-8s %6s %12s %10s %10s", "case", "size", "tokens/s", "median ms", "p99 ms");
    if (b->bandwidth > 0 || b->peak > 0)
        printf(" %12s %7s  %s", "bound tok/s", "share", "bound by");
    printf("\n");
    for (int32_t i = 0; i < b->batch_count; i++)
        TRY(decode(b, b->batches[i], err));
    for (int32_t i = 0; i < b->prompt_count; i++)
        TRY(prefill(b, b->prompts[i], err));
    return OK;
}

static enum status write_json(const struct bench *b, struct error *err)
{
    char date[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:b, s:i, s:i, s:i, s:i, s:f, s:f, s:O}", "date",
                            date, "device", b->device, "model", b->group.dir, "weights",
                            weight_format_name(b->model->config.quant.format), "random_weights",
                            (int)b->group.random_weights, "tp", (int)b->group.layout.tp, "ep",
                            (int)b->group.layout.ep, "pp", (int)b->group.layout.pp, "depth",
                            (int)b->depth, "bandwidth_bytes_per_s", b->bandwidth, "peak_flop_per_s",
                            b->peak, "cases", b->cases);
    int failed = !all || json_dump_file(all, b->json_path, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    int e = errno;
    json_decref(all);
    return failed ? error_errno(err, e, "%s", b->json_path) : OK;
}

static enum status rank0(struct engine *e, struct model *m, void *arg, struct error *err)
{
    struct bench *b = arg;
    b->engine = e;
    b->model = m;
    if (b->turns)
        return bench_turns(b, err);
    TRY(name_device(b, err));
    TRY(open_energy(b, err));
    TRY(inventory_create(&m->config, &b->inv, err));
    b->inv->mode = m->mode;
    b->cases = json_array();
    enum status st = b->cases ? OK : error_set(err, ERR_NO_MEMORY, "no memory for figures");
    if (st == OK)
        st = run_cases(b, err);
    if (st == OK && b->json_path)
        st = write_json(b, err);
    json_decref(b->cases);
    inventory_destroy(b->inv);
    energy_destroy(b->energy);
    meter_destroy(b->meter);
    return st;
}

#ifndef WITAN_ENGINE_ONLY
static bool has_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return true;
    return false;
}
#endif

int cmd_bench(int argc, char **argv)
{
#ifndef WITAN_ENGINE_ONLY
    if (argc > 1 && (strcmp(argv[1], "--report") == 0 || strcmp(argv[1], "--compare") == 0))
        return load_report_main(argc, argv);
    if (has_word(argc, argv, "--quality"))
        return quality_main(argc, argv);
    if (has_word(argc, argv, "--url") || has_word(argc, argv, "--grpc"))
        return load_main(argc, argv);
#endif
    if (flags_ask_help(argc, argv)) {
        printf("%s%s", usage, group_help);
        return 0;
    }
    struct bench b = {.batches = {1, 8, 64},
                      .batch_count = 3,
                      .prompts = {4096},
                      .prompt_count = 1,
                      .depth = 1024,
                      .steps = 64,
                      .repeat = 3,
                      .state = 88172645463325252};
    group_init(&b.group);
    if (!parse(&b, argc, argv) || (!b.turns && !size_group(&b)))
        return 2;
    struct error err;
    enum status st = group_run(&b.group, argv - 1, 0, rank0, &b, &err);
    group_fini(&b.group);
    if (st == OK)
        return 0;
    fprintf(stderr, "witan bench: %s\n", err.msg);
    return 1;
}
