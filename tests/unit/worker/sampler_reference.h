/* The sampler as its header states it, token by token: what worker/sampler.c, which leaves out all
 * that it can, must agree with in every bit. */
#ifndef WITAN_TESTS_SAMPLER_REFERENCE_H
#define WITAN_TESTS_SAMPLER_REFERENCE_H

#include "base/check.h"
#include "worker/sampler.h"
#include "worker/sampler_inline.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int32_t id;
};

struct ref_scratch {
    struct candidate *candidates; /* [vocab] */
};

/* Is a before b in descending order of logits, ties by ascending id? */
static inline bool ref_before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static inline int ref_compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return ref_before(*x, *y) ? -1 : ref_before(*y, *x) ? 1 : 0;
}

/* Restores the heap whose root is the candidate that goes first when a better one comes. */
static inline void ref_sift(struct candidate *heap, int32_t n, int32_t i)
{
    for (;;) {
        int32_t worst = i, l = 2 * i + 1, r = l + 1;
        if (l < n && ref_before(heap[worst], heap[l]))
            worst = l;
        if (r < n && ref_before(heap[worst], heap[r]))
            worst = r;
        if (worst == i)
            return;
        struct candidate t = heap[i];
        heap[i] = heap[worst];
        heap[worst] = t;
        i = worst;
    }
}

/* The k likeliest tokens in order; returns how many (k or fewer). */
static inline int32_t select_top(struct ref_scratch *s, const float *logits, int32_t vocab,
                                 int32_t k)
{
    struct candidate *c = s->candidates;
    k = k < vocab ? k : vocab;
    for (int32_t i = 0; i < k; i++)
        c[i] = (struct candidate){logits[i], i};
    if (k < vocab) {
        for (int32_t i = k / 2 - 1; i >= 0; i--)
            ref_sift(c, k, i);
        for (int32_t i = k; i < vocab; i++) {
            if (logits[i] > c[0].logit) { /* an equal one has the higher id and stays out */
                c[0] = (struct candidate){logits[i], i};
                ref_sift(c, k, 0);
            }
        }
    }
    qsort(c, (size_t)k, sizeof *c, ref_compare);
    return k;
}

/* Length of the shortest prefix of n ordered candidates that holds `target`; 0 when all fall short.
 */
static inline int32_t nucleus(const struct ref_scratch *s, int32_t n, float temperature,
                              double target)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += sampler_mass(s->candidates[i].logit, s->candidates[0].logit, temperature);
        if (sum >= target)
            return i + 1;
    }
    return 0;
}

/* top_p with top_k off: the whole mass first, then ever longer prefixes until one holds enough. */
static inline int32_t nucleus_of_all(struct ref_scratch *s, const float *logits, int32_t vocab,
                                     float max, const struct sampling *p)
{
    double total = 0.0;
    for (int32_t i = 0; i < vocab; i++)
        total += sampler_mass(logits[i], max, p->temperature);
    for (int32_t k = 64;; k *= 16) {
        int32_t n = select_top(s, logits, vocab, k);
        int32_t cut = nucleus(s, n, p->temperature, (double)p->top_p * total);
        if (cut > 0)
            return cut;
        if (n == vocab)
            return n;
    }
}

static inline int32_t ref_draw(struct ref_scratch *s, const float *logits, int32_t vocab,
                               const struct sampling *p, int32_t position)
{
    int32_t best = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (logits[i] != logits[i])
            return -1;
        if (logits[i] > logits[best])
            best = i;
    }
    float max = logits[best];
    if (!isfinite(max))
        return -1;
    if (p->temperature == 0.0f)
        return best;
    int32_t n = vocab;
    bool listed = true;
    if (p->top_k > 0) {
        n = select_top(s, logits, vocab, p->top_k);
        if (p->top_p < 1.0f) {
            double total = 0.0;
            for (int32_t i = 0; i < n; i++)
                total += sampler_mass(s->candidates[i].logit, max, p->temperature);
            int32_t cut = nucleus(s, n, p->temperature, (double)p->top_p * total);
            n = cut > 0 ? cut : n;
        }
    } else if (p->top_p < 1.0f) {
        n = nucleus_of_all(s, logits, vocab, max, p);
    } else {
        listed = false;
    }
    int32_t drawn = best;
    double top = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        struct candidate c = listed ? s->candidates[i] : (struct candidate){logits[i], i};
        if (p->min_p > 0.0f && sampler_mass(c.logit, max, p->temperature) < (double)p->min_p)
            continue;
        double score = (double)c.logit / (double)p->temperature +
                       sampler_gumbel(sampler_bits(p->seed, position, c.id));
        if (score > top || (score == top && c.id < drawn)) {
            top = score;
            drawn = c.id;
        }
    }
    return drawn;
}

static inline int32_t sampler_reference(const float *logits, int32_t vocab,
                                        const struct sampling *p, int32_t position)
{
    struct candidate *candidates = check_calloc((size_t)vocab, sizeof *candidates);
    struct ref_scratch scratch = {candidates};
    int32_t token = ref_draw(&scratch, logits, vocab, p, position);
    free(candidates);
    return token;
}

#endif
