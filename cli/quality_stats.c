/* Comparing next-token distributions: see quality_stats.h. */
#include "cli/quality_stats.h"
#include "base/check.h"
#include "cli/load_stats.h"

#include <math.h>
#include <stdlib.h>

void quality_init(struct quality *q)
{
    *q = (struct quality){0};
}

void quality_fini(struct quality *q)
{
    free(q->kl);
    free(q->sequence);
    quality_init(q);
}

/* Room for one more of `size` bytes in *list; `*cap` entries have it already. */
static enum status grow(void **list, size_t count, size_t *cap, size_t size, struct error *err)
{
    if (count < *cap)
        return OK;
    if (count >= QUALITY_MAX_POSITIONS)
        return error_set(err, ERR_LIMIT, "text: expected at most %d positions, found more",
                         QUALITY_MAX_POSITIONS);
    size_t more = *cap ? *cap * 2 : 1024;
    void *grown = realloc(*list, more * size);
    if (!grown)
        return error_set(err, ERR_NO_MEMORY, "no memory for the figures of %zu positions", more);
    *list = grown;
    *cap = more;
    return OK;
}

enum status quality_begin(struct quality *q, struct error *err)
{
    void *list = q->sequence;
    TRY(grow(&list, q->sequences, &q->sequence_cap, sizeof *q->sequence, err));
    q->sequence = list;
    q->sequence[q->sequences++] = (struct quality_sequence){0};
    return OK;
}

/* The largest logit's id and log of the sum of e^logit. */
static int32_t normaliser(const float *logits, int32_t vocab, double *log_sum)
{
    int32_t top = 0;
    for (int32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[top])
            top = i;
    double sum = 0;
    for (int32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - (double)logits[top]);
    *log_sum = (double)logits[top] + log(sum);
    return top;
}

enum status quality_add(struct quality *q, const float *p, const float *other, int32_t vocab,
                        int32_t next, struct error *err)
{
    CHECK(q->sequences > 0 && next >= 0 && next < vocab, "next token %d of %d", next, vocab);
    for (int32_t i = 0; i < vocab; i++)
        if (!isfinite(p[i]) || !isfinite(other[i]))
            return error_set(err, ERR_INVALID, "logit %d of position %zu is no finite number", i,
                             q->positions);
    void *list = q->kl;
    TRY(grow(&list, q->positions, &q->kl_cap, sizeof *q->kl, err));
    q->kl = list;
    double log_p, log_q, kl = 0;
    q->same_top += normaliser(p, vocab, &log_p) == normaliser(other, vocab, &log_q);
    for (int32_t i = 0; i < vocab; i++) {
        double a = (double)p[i], apart = (double)other[i] - a;
        kl -= exp(a - log_p) * (apart + (log_p - log_q));
        q->square += a * a;
        q->square_apart += apart * apart;
    }
    kl = kl > 0 ? kl : 0; /* below 0 by rounding alone */
    double surprise = log_p - (double)p[next], found = log_q - (double)other[next];
    struct quality_sequence *s = &q->sequence[q->sequences - 1];
    q->kl[q->positions++] = kl;
    q->surprise += surprise;
    q->surprise_other += found;
    s->positions++;
    s->kl += kl;
    s->rise += found - surprise;
    return OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* sqrt(S / (S - 1) sum (x - mean n)^2) / sum n, over S sequences of n positions whose sum is x. */
static double ratio_error(const struct quality *q, bool of_kl, double mean)
{
    double sum = 0, count = (double)q->sequences;
    for (size_t i = 0; i < q->sequences; i++) {
        const struct quality_sequence *s = &q->sequence[i];
        double apart = (of_kl ? s->kl : s->rise) - mean * (double)s->positions;
        sum += apart * apart;
    }
    return q->sequences < 2 ? NAN : sqrt(count / (count - 1) * sum) / (double)q->positions;
}

void quality_figures(struct quality *q, struct quality_figures *out)
{
    CHECK(q->positions > 0, "figures of no position");
    double n = (double)q->positions, kl = 0;
    for (size_t i = 0; i < q->positions; i++)
        kl += q->kl[i];
    qsort(q->kl, q->positions, sizeof *q->kl, ascending);
    double rise = (q->surprise_other - q->surprise) / n;
    *out = (struct quality_figures){
        .positions = q->positions,
        .sequences = q->sequences,
        .perplexity = exp(q->surprise / n),
        .perplexity_other = exp(q->surprise_other / n),
        .rise = rise,
        .rise_error = ratio_error(q, false, rise),
        .kl = kl / n,
        .kl_error = ratio_error(q, true, kl / n),
        .kl_p99 = load_quantile(q->kl, q->positions, 0.99),
        .kl_max = q->kl[q->positions - 1],
        .same_top = (double)q->same_top / n,
        .relative_error = q->square > 0 ? sqrt(q->square_apart / q->square) : 0,
    };
}
