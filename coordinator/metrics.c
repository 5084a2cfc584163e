/* Figures over time, and their text format: see metrics.h. */
#include "coordinator/metrics.h"
#include "base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- counting ----------------------------------------------------------------------------------
 */

void metrics_init(struct metrics *m)
{
    *m = (struct metrics){0};
    struct histogram *seconds[] = {&m->first_token, &m->per_token, &m->between_tokens, &m->whole,
                                   &m->broken};
    for (size_t i = 0; i < COUNT_OF(seconds); i++)
        histogram_init(seconds[i], &histogram_seconds);
    histogram_init(&m->prompt_size, &histogram_sizes);
    histogram_init(&m->answer_size, &histogram_sizes);
}

void metrics_http(struct metrics *m, int code)
{
    if (code >= 0 && code < METRICS_HTTP_CODES)
        m->http[code]++;
}

void metrics_grpc(struct metrics *m, int code)
{
    if (code >= 0 && code < METRICS_GRPC_CODES)
        m->grpc[code]++;
}

void metrics_begin(struct metrics *m, struct metrics_request *r, int32_t prompt_tokens,
                   int64_t now_ns)
{
    *r = (struct metrics_request){.begun_ns = now_ns};
    m->prompt_tokens += (uint64_t)prompt_tokens;
    histogram_add(&m->prompt_size, prompt_tokens);
}

void metrics_tokens(struct metrics *m, struct metrics_request *r, int32_t count, int64_t now_ns)
{
    if (count <= 0)
        return;
    if (r->tokens == 0) {
        r->first_ns = r->last_ns = now_ns;
        histogram_add(&m->first_token, (double)(now_ns - r->begun_ns) * 1e-9);
    }
    double apart = (double)(now_ns - r->last_ns) * 1e-9 / count;
    for (int32_t i = r->tokens == 0 ? 1 : 0; i < count; i++)
        histogram_add(&m->between_tokens, apart);
    r->last_ns = now_ns;
    r->tokens += count;
    m->generated_tokens += (uint64_t)count;
}

void metrics_end(struct metrics *m, const struct metrics_request *r, enum metrics_end end,
                 int64_t now_ns)
{
    m->ended[end]++;
    if (end != METRICS_STOP && end != METRICS_LENGTH)
        return;
    histogram_add(&m->whole, (double)(now_ns - r->begun_ns) * 1e-9);
    histogram_add(&m->answer_size, r->tokens);
    if (r->tokens > 1)
        histogram_add(&m->per_token, (double)(r->last_ns - r->first_ns) * 1e-9 / (r->tokens - 1));
}

/* --- the text format ---------------------------------------------------------------------------
 */

static void put(struct metrics_page *p, const char *text)
{
    if (p->status == OK)
        p->status = buf_puts(p->out, text, NULL);
}

/* With the fewest digits that give the same double back. */
static void put_number(struct metrics_page *p, double value)
{
    char text[40];
    if (isnan(value) || isinf(value)) {
        put(p, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put(p, text);
}

void metrics_family(struct metrics_page *p, const char *name, enum metrics_type type,
                    const char *help)
{
    static const char *const words[] = {"counter", "gauge", "histogram"};
    const char *const parts[] = {"# HELP ", name, " ",         help, "\n# TYPE ",
                                 name,      " ",  words[type], "\n", NULL};
    CHECK(!strpbrk(help, "\\\n"), "help that would need escapes: %s", help);
    p->family = name;
    for (int i = 0; parts[i]; i++)
        put(p, parts[i]);
}

/* "name_suffix{labels,last="bound"} " */
static void put_series(struct metrics_page *p, const char *suffix,
                       const struct metrics_labels *labels, const double *bound)
{
    bool some = labels && labels->len > 0;
    put(p, p->family);
    put(p, suffix);
    if (some || bound)
        put(p, "{");
    if (some)
        put(p, labels->text);
    if (bound) {
        put(p, some ? ",le=\"" : "le=\"");
        put_number(p, *bound);
        put(p, "\"");
    }
    put(p, some || bound ? "} " : " ");
}

void metrics_sample(struct metrics_page *p, const struct metrics_labels *labels, double value)
{
    put_series(p, "", labels, NULL);
    put_number(p, value);
    put(p, "\n");
}

void metrics_buckets(struct metrics_page *p, const struct metrics_labels *labels,
                     const double *bounds, const uint64_t *counts, size_t count, double sum)
{
    uint64_t below = 0;
    for (size_t i = 0; i <= count; i++) {
        double bound = i < count ? bounds[i] : INFINITY;
        below += counts[i];
        put_series(p, "_bucket", labels, &bound);
        put_number(p, (double)below);
        put(p, "\n");
    }
    put_series(p, "_sum", labels, NULL);
    put_number(p, sum);
    put(p, "\n");
    put_series(p, "_count", labels, NULL);
    put_number(p, (double)below);
    put(p, "\n");
}

void metrics_histogram(struct metrics_page *p, const struct metrics_labels *labels,
                       const struct histogram *h)
{
    metrics_buckets(p, labels, h->bounds->at, h->counts, (size_t)h->bounds->count, h->sum);
}

void metrics_label(struct metrics_labels *l, const char *name, const char *value)
{
    char *begin = l->text + l->len, *end = l->text + sizeof l->text;
    int n = snprintf(begin, (size_t)(end - begin), "%s%s=\"", l->len > 0 ? "," : "", name);
    char *at = n < end - begin ? begin + n : end;
    for (; *value && end - at > 3; value++) { /* room for an escape, a quote and the end */
        if (*value == '\\' || *value == '"' || *value == '\n')
            *at++ = '\\';
        *at++ = *value == '\n' ? 'n' : *value;
    }
    if (*value || end - at < 2) {
        *begin = '\0';
        return;
    }
    *at++ = '"';
    *at = '\0';
    l->len = (size_t)(at - l->text);
}

void metrics_label_int(struct metrics_labels *l, const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    metrics_label(l, name, text);
}

/* --- what is counted here ----------------------------------------------------------------------
 */

void metrics_one(struct metrics_page *p, const char *name, enum metrics_type type, const char *help,
                 double value)
{
    metrics_family(p, name, type, help);
    metrics_sample(p, NULL, value);
}

static void write_by_word(struct metrics_page *p, const char *label, const char *const *words,
                          const uint64_t *counts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct metrics_labels l = {0};
        metrics_label(&l, label, words[i]);
        metrics_sample(p, &l, (double)counts[i]);
    }
}

/* Those that there have been. */
static void write_by_code(struct metrics_page *p, const uint64_t *counts, int count)
{
    for (int i = 0; i < count; i++) {
        struct metrics_labels l = {0};
        metrics_label_int(&l, "code", i);
        if (counts[i] > 0)
            metrics_sample(p, &l, (double)counts[i]);
    }
}

static void write_counts(struct metrics_page *p, const struct metrics *m)
{
    static const char *const ends[] = {
#define X(name, words) words,
        METRICS_ENDS(X)
#undef X
    };
    static const char *const limits[] = {
#define X(name, words) words,
        METRICS_LIMITS(X)
#undef X
    };
    static const char *const doors[] = {"http", "grpc"};
    static const char *const routes[] = {"prefix", "load"};
    metrics_family(p, "witan_requests_finished_total", METRICS_COUNTER,
                   "Requests that have ended, by how.");
    write_by_word(p, "reason", ends, m->ended, COUNT_OF(ends));
    metrics_family(p, "witan_requests_refused_total", METRICS_COUNTER,
                   "Requests refused because too many were under way, by the limit.");
    write_by_word(p, "limit", limits, m->refused, COUNT_OF(limits));
    metrics_family(p, "witan_http_responses_total", METRICS_COUNTER, "HTTP answers, by status.");
    write_by_code(p, m->http, METRICS_HTTP_CODES);
    metrics_family(p, "witan_grpc_calls_total", METRICS_COUNTER,
                   "gRPC calls that have ended, by status (0 is OK).");
    write_by_code(p, m->grpc, METRICS_GRPC_CODES);
    metrics_family(p, "witan_slow_clients_total", METRICS_COUNTER,
                   "Clients cut off because they did not read, by door.");
    write_by_word(p, "door", doors, m->slow, COUNT_OF(doors));
    metrics_one(p, "witan_http_connections", METRICS_GAUGE, "Connections of the HTTP door.",
                m->connections);
    metrics_one(p, "witan_prompt_tokens_total", METRICS_COUNTER, "Tokens of accepted prompts.",
                (double)m->prompt_tokens);
    metrics_one(p, "witan_generated_tokens_total", METRICS_COUNTER, "Tokens of answers.",
                (double)m->generated_tokens);
    metrics_family(p, "witan_requests_routed_total", METRICS_COUNTER,
                   "Requests sent to a group, by what it was chosen for: a prefix that it has "
                   "cached, or its load alone.");
    write_by_word(p, "by", routes, m->routed, COUNT_OF(routes));
    metrics_one(p, "witan_requests_moved_total", METRICS_COUNTER,
                "Requests that went on elsewhere because their group was drained or restarted.",
                (double)m->moved);
    metrics_one(p, "witan_requests_resumed_total", METRICS_COUNTER,
                "Times that a request went on after its group was lost.", (double)m->resumed);
}

void metrics_write(struct metrics_page *p, const struct metrics *m)
{
    const struct {
        const char *name, *help;
        const struct histogram *h;
    } all[] = {
        {"witan_time_to_first_token_seconds", "From a request's acceptance to its first token.",
         &m->first_token},
        {"witan_time_per_output_token_seconds",
         "Of an answer, from its first token to its last over the tokens after the first.",
         &m->per_token},
        {"witan_inter_token_latency_seconds", "Between one token of an answer and the next.",
         &m->between_tokens},
        {"witan_request_seconds", "From a request's acceptance to the end of its answer.",
         &m->whole},
        {"witan_failover_seconds",
         "From the loss of a request's group to the next token of its answer.", &m->broken},
        {"witan_request_prompt_tokens", "Tokens of a prompt.", &m->prompt_size},
        {"witan_request_generated_tokens", "Tokens of an answer.", &m->answer_size},
    };
    write_counts(p, m);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        metrics_family(p, all[i].name, METRICS_HISTOGRAM, all[i].help);
        metrics_histogram(p, NULL, all[i].h);
    }
}
