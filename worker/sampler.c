/* Choosing the next token: see sampler.h. State: scratch for candidates only. */
#include "worker/sampler.h"
#include "worker/sampler_inline.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    int32_t cap;
    struct candidate candidates[]; /* [cap] */
};

enum status sampler_create(int32_t vocab, struct sampler **out, struct error *err)
{
    struct sampler *s = malloc(sizeof *s + (size_t)vocab * sizeof s->candidates[0]);
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for the sampler");
    s->cap = vocab;
    *out = s;
    return OK;
}

void sampler_destroy(struct sampler *s)
{
    free(s);
}

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    sampler_philox(counter, key, out);
}

/* Is a before b in descending order of logits, ties by ascending id? */
static bool before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return before(*x, *y) ? -1 : before(*y, *x) ? 1 : 0;
}

/* Restores the heap whose root is the candidate that goes first when a better one comes. */
static void sift_down(struct candidate *heap, int32_t n, int32_t i)
{
    for (;;) {
        int32_t worst = i, l = 2 * i + 1, r = l + 1;
        if (l < n && before(heap[worst], heap[l]))
            worst = l;
        if (r < n && before(heap[worst], heap[r]))
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
static int32_t select_top(struct sampler *s, const float *logits, int32_t vocab, int32_t k)
{
    struct candidate *c = s->candidates;
    k = k < vocab ? k : vocab;
    for (int32_t i = 0; i < k; i++)
        c[i] = (struct candidate){logits[i], i};
    if (k < vocab) {
        for (int32_t i = k / 2 - 1; i >= 0; i--)
            sift_down(c, k, i);
        for (int32_t i = k; i < vocab; i++) {
            if (logits[i] > c[0].logit) { /* an equal one has the higher id and stays out */
                c[0] = (struct candidate){logits[i], i};
                sift_down(c, k, 0);
            }
        }
    }
    qsort(c, (size_t)k, sizeof *c, compare);
    return k;
}

/* Length of the shortest prefix of n ordered candidates that holds `target`; 0 when all fall short.
 */
static int32_t nucleus(const struct sampler *s, int32_t n, float temperature, double target)
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
static int32_t nucleus_of_all(struct sampler *s, const float *logits, int32_t vocab, float max,
                              const struct sampling *p)
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

int32_t sampler_draw(struct sampler *s, const float *logits, int32_t vocab,
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
