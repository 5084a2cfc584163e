/* See load_options.h. No state. */
#include "cli/load_options.h"

#include "base/check.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char load_usage[] =
    "usage: witan bench --url URL | --grpc HOST:PORT [FLAG...]\n"
    "Sends requests to a server and measures its answers. --url: any server of OpenAI's API, as\n"
    "http[s]://HOST[:PORT]; --grpc: one of ours.\n"
    "The load:\n"
    "  --concurrency N    closed loop: N requests at once, one after another (default: 16)\n"
    "  --rate R           open loop: R requests a second, whatever the server does; inf: at once\n"
    "  --arrivals HOW     of the open loop: poisson (default), constant, burst:N\n"
    "  --max-in-flight N  bound of the open loop; what goes out late for it still counts from its\n"
    "                     time (default: 4096)\n"
    "  --requests N       (default: 100, or all of a file's)\n"
    "  --duration S       seconds to send for; those under way then are waited for\n"
    "  --warm-up N        requests before, not counted (default: 0)\n"
    "  --timeout S        of one request (default: 600)\n"
    "  --sweep KIND:A,B.. several loads in turn: concurrency:1,2,4 or rate:0.5,1,2\n"
    "What is asked:\n"
    "  --dataset SET      random (default), sharegpt:FILE, trace:FILE, prompts:FILE\n"
    "  --input LENGTH     random: tokens of a prompt (default: 512): N, uniform:FROM:TO,\n"
    "                     normal:MEAN:DEVIATION, lognormal:MEAN:DEVIATION\n"
    "  --output LENGTH    tokens of an answer (default: 128, or what the file says)\n"
    "  --prefix-tokens N, --prefix-groups G\n"
    "                     random: before each prompt, one of G (default: 1) prefixes of N tokens\n"
    "  --prompts KIND     random, trace: ids (default), or text: words of --tokenizer's\n"
    "  --tokenizer DIR    the model's folder with its tokenizer\n"
    "  --vocab N          random, trace: ids are below N, where there is no --tokenizer\n"
    "  --block-tokens N   trace: of one hash id (default: 512)\n"
    "  --speed X          trace: X times as fast (default: 1)\n"
    "  --seed N           the same load again (default: drawn)\n"
    "  --api API          completions, or chat (the default of sharegpt and prompts)\n"
    "  --ignore-eos yes|no   answers of exactly the length asked for (default: yes for random and\n"
    "                     trace; no leaves the field out)\n"
    "  --usage yes|no     ask for token counts in the stream (default: yes)\n"
    "  --temperature X    (default: the server's)\n"
    "  --extra JSON       an object whose members join each request's body (--url)\n"
    "The server:\n"
    "  --model NAME       (default: the first that the server lists)\n"
    "  --ca FILE          PEM roots to trust (default: the system's)\n"
    "  --insecure         TLS to whoever answers\n"
    "  --key-file FILE    the API key (default: the environment's WITAN_API_KEY)\n"
    "  --status HOST:PORT with --url: the gRPC door that tells our ranks' energy\n"
    "The report:\n"
    "  --goodput BOUNDS   in ms, of requests that count: ttft:200,tpot:50,e2e:5000\n"
    "  --json FILE        everything, for programs\n"
    "  --html FILE        a page\n"
    "Exit code 0: all requests were answered or refused as busy (429, 503); 1: some were not, or\n"
    "none was answered; 2: wrong usage.\n";

/* --- values ------------------------------------------------------------------------------------
 */

static enum status wrong(const char *flag, const char *expected, const char *value,
                         struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found \"%.200s\"", flag, expected, value);
}

static enum status take_real(const char *flag, const char *value, double min, double max,
                             double *out, struct error *err)
{
    char words[80], *end;
    double x = strtod(value, &end);
    if (end != value && !*end && x >= min && x <= max) {
        *out = x;
        return OK;
    }
    snprintf(words, sizeof words, "a number of %g to %g", min, max);
    return wrong(flag, words, value, err);
}

static enum status take_int(const char *flag, const char *value, int64_t min, int64_t max,
                            int64_t *out, struct error *err)
{
    char words[80];
    size_t digits = strspn(value, "0123456789");
    int64_t x = digits > 0 && digits < 19 && !value[digits] ? strtoll(value, NULL, 10) : -1;
    if (x >= min && x <= max) {
        *out = x;
        return OK;
    }
    snprintf(words, sizeof words, "a whole number of %lld to %lld", (long long)min, (long long)max);
    return wrong(flag, words, value, err);
}

static enum status take_int32(const char *flag, const char *value, int32_t min, int32_t max,
                              int32_t *out, struct error *err)
{
    int64_t x = 0;
    TRY(take_int(flag, value, min, max, &x, err));
    *out = (int32_t)x;
    return OK;
}

static enum status take_rate(const char *flag, const char *value, double *out, struct error *err)
{
    if (strcmp(value, "inf") == 0) {
        *out = INFINITY;
        return OK;
    }
    return take_real(flag, value, 1e-6, 1e6, out, err);
}

/* One of two words. */
static enum status take_choice(const char *flag, const char *value, const char *yes, const char *no,
                               bool *out, struct error *err)
{
    char words[64];
    *out = strcmp(value, yes) == 0;
    if (*out || strcmp(value, no) == 0)
        return OK;
    snprintf(words, sizeof words, "%s or %s", yes, no);
    return wrong(flag, words, value, err);
}

static enum status take_length(const char *flag, const char *value, struct load_length *out,
                               struct error *err)
{
    enum status st = load_length_parse(value, out, err);
    if (st != OK)
        error_prefix(err, "%s: ", flag);
    return st;
}

static enum status take_sweep(struct load_options *o, const char *flag, const char *value,
                              struct error *err)
{
    static const char expected[] = "concurrency:N,N... or rate:R,R..., at most 32 of them";
    const char *at = strchr(value, ':');
    bool rate = strncmp(value, "rate:", 5) == 0;
    if (!rate && strncmp(value, "concurrency:", 12) != 0)
        return wrong(flag, expected, value, err);
    o->sweep_count = 0;
    o->sweep_mode = rate ? LOAD_OPEN : LOAD_CLOSED;
    while (at && o->sweep_count < LOAD_MAX_SWEEP) {
        char one[32];
        int64_t n = 0;
        size_t len = strcspn(at + 1, ",");
        snprintf(one, sizeof one, "%.*s", (int)(len < 31 ? len : 31), at + 1);
        if (rate)
            TRY(take_rate(flag, one, &o->sweep[o->sweep_count], err));
        else
            TRY(take_int(flag, one, 1, LOAD_MAX_AT_ONCE, &n, err));
        if (!rate)
            o->sweep[o->sweep_count] = (double)n;
        o->sweep_count++;
        at = strchr(at + 1, ',');
    }
    return at ? wrong(flag, expected, value, err) : OK;
}

static enum status take_dataset(struct load_options *o, const char *flag, const char *value,
                                struct error *err)
{
    static const struct {
        const char *prefix;
        enum load_dataset_kind kind;
    } kinds[] = {{"sharegpt:", LOAD_SHAREGPT}, {"trace:", LOAD_TRACE}, {"prompts:", LOAD_PROMPTS}};
    o->dataset.kind = LOAD_RANDOM;
    if (strcmp(value, "random") == 0)
        return OK;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        size_t len = strlen(kinds[i].prefix);
        if (strncmp(value, kinds[i].prefix, len) != 0 || !value[len])
            continue;
        o->dataset.kind = kinds[i].kind;
        o->dataset.path = value + len;
        return OK;
    }
    return wrong(flag, "random, sharegpt:FILE, trace:FILE or prompts:FILE", value, err);
}

static enum status take_arrivals(struct load_options *o, const char *flag, const char *value,
                                 struct error *err)
{
    enum status st = load_arrivals_parse(value, &o->plan.arrivals, err);
    if (st != OK)
        error_prefix(err, "%s: ", flag);
    return st;
}

static enum status take_extra(struct load_options *o, const char *flag, const char *value,
                              struct error *err)
{
    static const char *const ours[] = {"model",  "prompt",         "messages",   "max_tokens",
                                       "stream", "stream_options", "ignore_eos", "temperature"};
    json_t *object;
    enum status st = json_parse(flag, value, strlen(value), &object, err);
    if (st != OK)
        return st;
    if (!json_is_object(object))
        st = wrong(flag, "a JSON object", value, err);
    for (size_t i = 0; st == OK && i < COUNT_OF(ours); i++)
        if (json_object_get(object, ours[i]))
            st = error_set(err, ERR_INVALID,
                           "%s: %s: expected a field that `witan bench` does not "
                           "send itself",
                           flag, ours[i]);
    char *text = st == OK && json_object_size(object) > 0 ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        return st;
    text[strlen(text) - 1] = '\0'; /* the members, without the braces */
    memmove(text, text + 1, strlen(text));
    free(o->more);
    o->more = text;
    return OK;
}

/* --- flags -------------------------------------------------------------------------------------
 */

/* Which flags were given, where that is not seen in what they set. */
struct seen {
    bool concurrency, rate, requests, api, ignore_eos, text, input, arrivals, speed;
};

static enum status take_load(struct load_options *o, struct seen *s, const char *flag,
                             const char *value, bool *taken, struct error *err)
{
    struct load_plan *p = &o->plan;
    double seconds = 0;
    *taken = true;
    if (strcmp(flag, "--concurrency") == 0) {
        s->concurrency = true;
        return take_int32(flag, value, 1, LOAD_MAX_AT_ONCE, &p->concurrency, err);
    }
    if (strcmp(flag, "--rate") == 0) {
        s->rate = true;
        return take_rate(flag, value, &p->arrivals.rate, err);
    }
    if (strcmp(flag, "--arrivals") == 0) {
        s->arrivals = true;
        return take_arrivals(o, flag, value, err);
    }
    if (strcmp(flag, "--max-in-flight") == 0)
        return take_int32(flag, value, 1, LOAD_MAX_AT_ONCE, &p->max_in_flight, err);
    if (strcmp(flag, "--requests") == 0) {
        s->requests = true;
        return take_int(flag, value, 1, 1000000000, &p->requests, err);
    }
    if (strcmp(flag, "--warm-up") == 0)
        return take_int32(flag, value, 0, 1000000, &p->warm_up, err);
    if (strcmp(flag, "--sweep") == 0)
        return take_sweep(o, flag, value, err);
    if (strcmp(flag, "--duration") == 0 || strcmp(flag, "--timeout") == 0) {
        TRY(take_real(flag, value, 0.1, 1e6, &seconds, err));
        *(flag[2] == 'd' ? &p->duration_ns : &p->timeout_ns) = (int64_t)(seconds * 1e9);
        return OK;
    }
    *taken = false;
    return OK;
}

static enum status take_asked(struct load_options *o, struct seen *s, const char *flag,
                              const char *value, bool *taken, struct error *err)
{
    struct load_dataset_options *d = &o->dataset;
    int64_t seed = 0;
    *taken = true;
    if (strcmp(flag, "--dataset") == 0)
        return take_dataset(o, flag, value, err);
    if (strcmp(flag, "--input") == 0) {
        s->input = true;
        return take_length(flag, value, &d->input, err);
    }
    if (strcmp(flag, "--output") == 0) {
        d->has_output = true;
        return take_length(flag, value, &d->output, err);
    }
    if (strcmp(flag, "--prefix-tokens") == 0)
        return take_int32(flag, value, 1, LOAD_MAX_LENGTH, &d->prefix_tokens, err);
    if (strcmp(flag, "--prefix-groups") == 0)
        return take_int32(flag, value, 1, 1000000, &d->prefix_groups, err);
    if (strcmp(flag, "--vocab") == 0)
        return take_int32(flag, value, 2, 1 << 24, &d->vocabulary, err);
    if (strcmp(flag, "--block-tokens") == 0)
        return take_int32(flag, value, 1, LOAD_MAX_LENGTH, &d->block_tokens, err);
    if (strcmp(flag, "--prompts") == 0)
        return take_choice(flag, value, "text", "ids", &d->as_text, err);
    if (strcmp(flag, "--speed") == 0) {
        s->speed = true;
        return take_real(flag, value, 1e-3, 1e6, &o->plan.speed, err);
    }
    if (strcmp(flag, "--seed") == 0) {
        o->has_seed = true;
        TRY(take_int(flag, value, 0, INT64_MAX >> 11, &seed, err));
        d->seed = (uint64_t)seed;
        return OK;
    }
    *taken = false;
    return OK;
}

static enum status take_request(struct load_options *o, struct seen *s, const char *flag,
                                const char *value, bool *taken, struct error *err)
{
    *taken = true;
    if (strcmp(flag, "--api") == 0) {
        s->api = true;
        return take_choice(flag, value, "chat", "completions", &o->chat, err);
    }
    if (strcmp(flag, "--ignore-eos") == 0) {
        s->ignore_eos = true;
        return take_choice(flag, value, "yes", "no", &o->ignore_eos, err);
    }
    if (strcmp(flag, "--usage") == 0)
        return take_choice(flag, value, "yes", "no", &o->usage, err);
    if (strcmp(flag, "--temperature") == 0) {
        o->has_temperature = true;
        return take_real(flag, value, 0, 1000, &o->temperature, err);
    }
    if (strcmp(flag, "--extra") == 0)
        return take_extra(o, flag, value, err);
    *taken = false;
    return OK;
}

static enum status take_text(struct load_options *o, const char *flag, const char *value,
                             bool *taken, struct error *err)
{
    const struct {
        const char *name;
        const char **out;
    } texts[] = {{"--url", &o->url},           {"--grpc", &o->grpc},
                 {"--model", &o->model},       {"--ca", &o->ca},
                 {"--key-file", &o->key_file}, {"--status", &o->status},
                 {"--json", &o->json},         {"--html", &o->html},
                 {"--goodput", &o->goodput},   {"--tokenizer", &o->tokenizer}};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        if (strcmp(flag, texts[i].name) != 0)
            continue;
        *taken = true;
        *texts[i].out = value;
        return *value ? OK : wrong(flag, "a value", value, err);
    }
    *taken = false;
    return OK;
}

static enum status take_flag(struct load_options *o, struct seen *s, const char *flag,
                             const char *value, struct error *err)
{
    bool taken = false;
    if (!value)
        return error_set(err, ERR_INVALID, "%s: expected a value, found nothing", flag);
    TRY(take_load(o, s, flag, value, &taken, err));
    if (!taken)
        TRY(take_asked(o, s, flag, value, &taken, err));
    if (!taken)
        TRY(take_request(o, s, flag, value, &taken, err));
    if (!taken)
        TRY(take_text(o, flag, value, &taken, err));
    return taken ? OK
                 : error_set(err, ERR_INVALID,
                             "unknown flag %s; `witan bench --url --help` lists "
                             "them",
                             flag);
}

/* --- together ----------------------------------------------------------------------------------
 */

static enum status check_load(struct load_options *o, const struct seen *s, struct error *err)
{
    bool trace = o->dataset.kind == LOAD_TRACE;
    struct load_plan *p = &o->plan;
    if ((s->concurrency ? 1 : 0) + (s->rate ? 1 : 0) + (o->sweep_count > 0) > 1)
        return error_set(err, ERR_INVALID,
                         "expected one of --concurrency, --rate and --sweep, found several");
    p->traced = trace && !s->concurrency && !s->rate && o->sweep_count == 0;
    p->mode = s->rate || p->traced ? LOAD_OPEN : LOAD_CLOSED;
    if (s->arrivals && !s->rate && !(o->sweep_count > 0 && o->sweep_mode == LOAD_OPEN))
        return error_set(err, ERR_INVALID, "--arrivals: expected --rate with it, found none");
    if (s->speed && !p->traced)
        return error_set(err, ERR_INVALID,
                         "--speed: expected a trace that keeps its own times, found --concurrency, "
                         "--rate or another dataset");
    if (p->traced)
        p->arrivals.rate = 0;
    if (!s->requests) /* a file's count is filled in when it is known */
        p->requests = p->duration_ns > 0 ? INT64_MAX : o->dataset.kind == LOAD_RANDOM ? 100 : 0;
    return OK;
}

static enum status check_asked(struct load_options *o, const struct seen *s, struct error *err)
{
    struct load_dataset_options *d = &o->dataset;
    bool made_up = d->kind == LOAD_RANDOM || d->kind == LOAD_TRACE;
    if (!s->api)
        o->chat = !made_up;
    if (!s->ignore_eos)
        o->ignore_eos = made_up;
    d->messages = o->chat;
    if (o->chat && made_up && !d->as_text)
        return error_set(err, ERR_INVALID,
                         "--api chat: expected --prompts text with it: chats have no token ids");
    if (d->as_text && !o->tokenizer)
        return error_set(err, ERR_INVALID,
                         "--prompts text: expected --tokenizer DIR, whose words are used");
    if ((s->input || d->prefix_tokens > 0) && d->kind != LOAD_RANDOM)
        return error_set(err, ERR_INVALID, "%s: expected --dataset random with it",
                         s->input ? "--input" : "--prefix-tokens");
    if (d->kind == LOAD_RANDOM && !d->has_output)
        d->output = (struct load_length){.a = 128};
    return OK;
}

static enum status check_server(const struct load_options *o, struct error *err)
{
    if (!o->url == !o->grpc)
        return error_set(err, ERR_INVALID, "expected one of --url and --grpc, found %s",
                         o->url ? "both" : "neither");
    if (o->grpc && (o->more || o->insecure || o->status))
        return error_set(err, ERR_INVALID, "%s: expected --url with it, found --grpc",
                         o->more       ? "--extra"
                         : o->insecure ? "--insecure"
                                       : "--status");
    return OK;
}

enum status load_options_read(int argc, char **argv, struct load_options *o, struct error *err)
{
    struct seen s = {0};
    *o = (struct load_options){
        .usage = true,
        .dataset = {.input = {.a = 512}, .prefix_groups = 1, .block_tokens = 512},
        .plan = {.concurrency = 16,
                 .arrivals = {.kind = LOAD_ARRIVALS_POISSON, .burst = 1},
                 .speed = 1,
                 .max_in_flight = 4096,
                 .timeout_ns = 600000000000},
    };
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--insecure") == 0) {
            o->insecure = true;
            continue;
        }
        if (argv[i][0] != '-')
            return error_set(err, ERR_INVALID, "one argument too many: %s", argv[i]);
        TRY(take_flag(o, &s, argv[i], argv[i + 1], err));
        i++;
    }
    TRY(check_server(o, err));
    TRY(check_load(o, &s, err));
    return check_asked(o, &s, err);
}

void load_options_fini(struct load_options *o)
{
    free(o->more);
    o->more = NULL;
}
