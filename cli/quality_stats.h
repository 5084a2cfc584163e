/*
 * What narrower weights or a narrower cache cost in answers: next-token distributions of two models
 * over the same text, position by position. P are the logits of the published weights, Q the
 * other's; all sums are of doubles. One thread at a time.
 */
#ifndef WITAN_CLI_QUALITY_STATS_H
#define WITAN_CLI_QUALITY_STATS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QUALITY_MAX_POSITIONS = 1 << 24 };

/* Of one sequence. Positions of one text depend on each other, texts do not: errors of means are
 * taken over sequences. */
struct quality_sequence {
    size_t positions;
    double kl;   /* sum over its positions */
    double rise; /* sum of log p - log q of the token that follows */
};

struct quality {
    double *kl; /* [positions] owned */
    size_t positions, kl_cap;
    struct quality_sequence *sequence; /* [sequences] owned */
    size_t sequences, sequence_cap;
    double surprise, surprise_other; /* sums of -log p, -log q of the token that follows */
    double square, square_apart;     /* sums of p's logits and of their differences, squared */
    size_t same_top;
};

struct quality_figures {
    size_t positions, sequences;
    double perplexity, perplexity_other; /* e^(mean -log p of the token that follows) */
    double rise, rise_error;             /* mean of log p - log q: log of the ratio of both */
    double kl, kl_error;                 /* mean of sum p (log p - log q), in nats */
    double kl_p99, kl_max;
    double same_top;       /* share of positions with the same likeliest token */
    double relative_error; /* sqrt(sum (q's logits - p's)^2 / sum p's^2) */
};

void quality_init(struct quality *q);
void quality_fini(struct quality *q);

/* What is added next is of another text. */
enum status quality_begin(struct quality *q, struct error *err);

/* One position: the logits of both, [vocab], and the token that follows in the text, below vocab;
 * of equal logits the lower id counts as the likelier. ERR_INVALID where a logit is no finite
 * number. */
enum status quality_add(struct quality *q, const float *p, const float *other, int32_t vocab,
                        int32_t next, struct error *err);

/* Of at least one position. Errors are standard errors of a ratio of sums over sequences; NAN with
 * fewer than two. Sorts q->kl. */
void quality_figures(struct quality *q, struct quality_figures *out);

#endif
