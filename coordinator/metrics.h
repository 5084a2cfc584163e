/*
 * Figures over time, for GET /metrics: what the doors and generations count here, and how it is
 * written in Prometheus' text format ("Exposition formats", version 0.0.4). Times are seconds,
 * counters only grow, and no label has values that clients can choose. The page itself, with the
 * groups' and this process' own figures, is metrics_page.c's.
 *
 * Owned by the loop thread. Allocates nothing but the page.
 */
#ifndef WITAN_COORDINATOR_METRICS_H
#define WITAN_COORDINATOR_METRICS_H

#include "base/buf.h"
#include "base/histogram.h"

#include <stddef.h>

/* X(NAME, words): how requests end. */
#define METRICS_ENDS(X)                                                                            \
    X(STOP, "stop")                                                                                \
    X(LENGTH, "length")                                                                            \
    X(CANCELLED, "cancelled") /* by their client, or because it reads nothing */                   \
    X(TIMED_OUT, "timeout")                                                                        \
    X(FAILED, "error")

/* X(NAME, words): by which limit they are refused. */
#define METRICS_LIMITS(X)                                                                          \
    X(REQUESTS, "requests")                                                                        \
    X(WAITING, "waiting")                                                                          \
    X(WAITING_TOKENS, "waiting_tokens")                                                            \
    X(WAITING_MS, "waiting_ms")                                                                    \
    X(DEADLINE, "deadline") /* the request's own, which the wait alone would pass */               \
    X(MEMORY, "memory_mb")                                                                         \
    X(TENANT, "tenant_requests")                                                                   \
    X(QUOTA_REQUESTS, "requests_per_minute")                                                       \
    X(QUOTA_TOKENS, "tokens_per_minute")                                                           \
    X(QUOTA_CONCURRENT, "concurrent")                                                              \
    X(CONNECTIONS, "connections")

enum metrics_end {
#define X(name, words) METRICS_##name,
    METRICS_ENDS(X)
#undef X
        METRICS_END_COUNT,
};
enum metrics_limit {
#define X(name, words) METRICS_LIMIT_##name,
    METRICS_LIMITS(X)
#undef X
        METRICS_LIMIT_COUNT,
};

/* Why a request went to its group: its prompt's beginning is cached there, or load alone. */
enum metrics_route { METRICS_BY_PREFIX, METRICS_BY_LOAD, METRICS_ROUTE_COUNT };

enum metrics_door { METRICS_HTTP, METRICS_GRPC, METRICS_DOOR_COUNT };

enum { METRICS_HTTP_CODES = 600, METRICS_GRPC_CODES = 17 };

struct metrics {
    uint64_t ended[METRICS_END_COUNT];
    uint64_t refused[METRICS_LIMIT_COUNT];
    uint64_t http[METRICS_HTTP_CODES]; /* answers by status */
    uint64_t grpc[METRICS_GRPC_CODES]; /* calls by status */
    uint64_t slow[METRICS_DOOR_COUNT]; /* clients cut off because they did not read */
    int32_t connections;               /* of the HTTP door, now */
    uint64_t prompt_tokens, generated_tokens;
    uint64_t routed[METRICS_ROUTE_COUNT];
    uint64_t moved;          /* requests that their group gave away on purpose */
    uint64_t resumed;        /* attempts that went on with an answer */
    struct histogram broken; /* seconds from the loss of a group to an answer's next token */
    struct histogram first_token, per_token, between_tokens, whole; /* seconds of a request */
    struct histogram prompt_size, answer_size;                      /* tokens of one */
};

void metrics_init(struct metrics *m);

void metrics_http(struct metrics *m, int code);
void metrics_grpc(struct metrics *m, int code);

/* One request as it goes on; part of its generation. */
struct metrics_request {
    int64_t begun_ns, first_ns, last_ns; /* 0: no token yet */
    int32_t tokens;
};

void metrics_begin(struct metrics *m, struct metrics_request *r, int32_t prompt_tokens,
                   int64_t now_ns);
/* `count` tokens have come together; tokens that come so share the time since those before. */
void metrics_tokens(struct metrics *m, struct metrics_request *r, int32_t count, int64_t now_ns);
/* Times are taken of answers that were given to their end alone. */
void metrics_end(struct metrics *m, const struct metrics_request *r, enum metrics_end end,
                 int64_t now_ns);

/* --- the text format ---------------------------------------------------------------------------
 */

/* A page that is being written; the first failure, which can be of its size alone, stays. */
struct metrics_page {
    struct buf *out;
    enum status status;
    const char *family;
};

/* Label names and values, in order; values are escaped. */
struct metrics_labels {
    char text[512];
    size_t len;
};

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

/* All samples of one family follow it, each with labels of its own (NULL: none). */
void metrics_family(struct metrics_page *p, const char *name, enum metrics_type type,
                    const char *help);
void metrics_sample(struct metrics_page *p, const struct metrics_labels *labels, double value);
/* A family of one sample without labels. */
void metrics_one(struct metrics_page *p, const char *name, enum metrics_type type, const char *help,
                 double value);
/* counts[count + 1], not cumulated; bounds[count]. */
void metrics_buckets(struct metrics_page *p, const struct metrics_labels *labels,
                     const double *bounds, const uint64_t *counts, size_t count, double sum);
void metrics_histogram(struct metrics_page *p, const struct metrics_labels *labels,
                       const struct histogram *h);

/* `*l` of zeros has none. One that has no room is left out whole. */
void metrics_label(struct metrics_labels *l, const char *name, const char *value);
void metrics_label_int(struct metrics_labels *l, const char *name, int64_t value);

/* What this struct counts. */
void metrics_write(struct metrics_page *p, const struct metrics *m);

/* --- the page: metrics_page.c --- */

struct core;
enum { METRICS_MAX_PAGE_BYTES = 64 << 20 };
/* Appends all there is. ERR_LIMIT when it does not fit. */
enum status metrics_page(const struct core *core, struct buf *out, struct error *err);

#endif
