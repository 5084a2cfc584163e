/*
 * What the records of a load come to: latencies and their percentiles, throughput, failures by
 * kind, goodput under bounds. Pure functions of a run (cli/load_record.h); any thread. Seconds
 * everywhere, NAN where there is nothing to say.
 *
 * Counted are requests that are not of the warm-up. Latencies and tokens are of those that
 * succeeded; rates are over the run's window, from the first counted request's intended time to the
 * last counted end, failed ones included, so that a server gains nothing by failing.
 */
#ifndef WITAN_CLI_LOAD_STATS_H
#define WITAN_CLI_LOAD_STATS_H

#include "base/error.h"
#include "cli/load_record.h"

#include <math.h>

/*
 * X(enumerator, key in JSON, words). A request gives at most one sample of each but ITL:
 * TTFT       first chunk - intended; with no chunk none
 * TTFT_SENT  first chunk - sent: what generators that forget their own lateness print
 * TPOT       (last chunk - first chunk) / (output tokens - 1); of one token none
 * ITL        each gap between two chunks, of all requests together; a chunk may hold several tokens
 * E2E        last chunk - intended; with no chunk none
 */
#define LOAD_MEASURES(X)                                                                           \
    X(LOAD_TTFT, "ttft", "TTFT")                                                                   \
    X(LOAD_TTFT_SENT, "ttft_from_send", "TTFT from send")                                          \
    X(LOAD_TPOT, "tpot", "TPOT")                                                                   \
    X(LOAD_ITL, "itl", "ITL")                                                                      \
    X(LOAD_E2E, "e2e", "E2E")

enum load_measure {
#define X(name, key, words) name,
    LOAD_MEASURES(X)
#undef X
        LOAD_MEASURE_COUNT
};

const char *load_measure_key(enum load_measure m);
const char *load_measure_words(enum load_measure m);

/* All NAN where count is 0. */
struct load_dist {
    size_t count;
    double mean, p50, p90, p99, max;
};

/* Upper bounds that a request must keep, all of them; INFINITY: none. */
struct load_slo {
    double ttft_s, tpot_s, e2e_s;
};

#define LOAD_SLO_NONE ((struct load_slo){INFINITY, INFINITY, INFINITY})

/* "ttft:200,tpot:50,e2e:5000", bounds in ms, each at most once. */
enum status load_slo_parse(const char *text, struct load_slo *slo, struct error *err);

bool load_slo_set(const struct load_slo *slo); /* is there any bound? */

enum { LOAD_MAX_KINDS = 8 };

struct load_failure {
    char kind[64];     /* the error up to its first colon; "other" for all past the most frequent */
    char example[160]; /* the first whole error of this kind */
    size_t count;
};

struct load_stats {
    size_t counted, succeeded, failed, warm_ups;
    size_t silent;   /* succeeded without a token */
    bool usage;      /* the server counted the tokens of all that succeeded */
    double window_s; /* > 0, or 0 where nothing was counted; then all rates are 0 */
    struct load_dist dist[LOAD_MEASURE_COUNT];
    double requests_per_s, output_tokens_per_s, total_tokens_per_s; /* of those that succeeded */
    double in_flight; /* requests at once, on average: the sum of E2E over the window */
    int64_t prompt_tokens, output_tokens, cached_tokens, chunks;
    double cached_share;     /* of prompt tokens; NAN without any */
    double tokens_per_chunk; /* NAN without chunks */
    double goodput;          /* requests/s that kept all bounds; NAN where none is set */
    double joules_per_token; /* of output; NAN without a meter or tokens */
    double wh_output,
        wh_total; /* Wh a thousand tokens of output; of prompts and output; the same */
    struct load_failure failures[LOAD_MAX_KINDS]; /* [failure_kinds], most frequent first */
    size_t failure_kinds;
};

/*
 * The samples of one measure, sorted upwards; the caller frees *values (NULL where there are none).
 */
enum status load_samples(const struct load_run *run, enum load_measure m, double **values,
                         size_t *count, struct error *err);

/*
 * The q-quantile (0 <= q <= 1) of n > 0 sorted values: at place (n - 1) q, between two values on
 * the straight line between them (Hyndman and Fan's type 7; numpy.percentile's default, with its
 * rounding).
 */
double load_quantile(const double *sorted, size_t n, double q);

/* `slo` may be NULL: no bounds. Fails for want of memory alone. */
enum status load_stats_make(const struct load_run *run, const struct load_slo *slo,
                            struct load_stats *stats, struct error *err);

#endif
