/* Choosing the next token: see sampler.h. State: scratch for candidates only. */
#include "worker/sampler.h"
#include "base/check.h"
#include "worker/cpu/rows.h"
#include "worker/sampler_inline.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int32_t id;
};

/* What is in the way of most tokens' ever being drawn, so that few need logarithms. */
enum { GUMBEL_MOST = 37 }; /* noise is at most 36.74 */

struct sampler {
    const struct cpu_rows *rows;
    int32_t cap;
    float *saved;                  /* [cap]: logits that were edited */
    float *maxima;                 /* [cap / ROW_BLOCK, rounded up]: of the row at hand */
    struct candidate candidates[]; /* [cap]; the two above lie behind */
};

static int32_t blocks_of(int32_t vocab)
{
    return (vocab + ROW_BLOCK - 1) / ROW_BLOCK;
}

enum status sampler_create(const struct cpu_rows *rows, int32_t vocab, struct sampler **out,
                           struct error *err)
{
    size_t n = (size_t)vocab, floats = n + (size_t)blocks_of(vocab);
    struct sampler *s = malloc(sizeof *s + n * sizeof s->candidates[0] + floats * sizeof(float));
    if (!s)
        return error_set(err, ERR_NO_MEMORY, "no memory for the sampler");
    s->rows = rows;
    s->cap = vocab;
    s->saved = (float *)(void *)(s->candidates + vocab);
    s->maxima = s->saved + vocab;
    *out = s;
    return OK;
}

void sampler_destroy(struct sampler *s)
{
    free(s);
}

void sampler_edit(struct sampler *s, float *logits, const struct logit_edit *edit, int32_t edits,
                  float repetition_penalty)
{
    CHECK(edits <= s->cap, "%d edits of %d logits", edits, s->cap);
    for (int32_t i = 0; i < edits; i++) {
        float *l = &logits[edit[i].id];
        s->saved[i] = *l;
        *l = sampler_edited(*l, edit[i].add, edit[i].repeated, repetition_penalty);
    }
}

void sampler_restore(struct sampler *s, float *logits, const struct logit_edit *edit, int32_t edits)
{
    for (int32_t i = 0; i < edits; i++)
        logits[edit[i].id] = s->saved[i];
}

void sampler_mask(float *logits, int32_t vocab, const uint64_t *allowed)
{
    for (int32_t first = 0; first < vocab; first += 64) {
        uint64_t out = ~allowed[first / 64];
        int32_t count = vocab - first < 64 ? vocab - first : 64;
        if (count < 64)
            out &= (UINT64_C(1) << count) - 1;
        for (int32_t i = 0; out == UINT64_MAX && i < 64; i++)
            logits[first + i] = -INFINITY;
        for (; out != UINT64_MAX && out != 0; out &= out - 1)
            logits[first + __builtin_ctzll(out)] = -INFINITY;
    }
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

/* The likeliest of what is offered, in order of ids, are kept in a heap. */
struct heap {
    struct candidate *c;
    int32_t count, most;
};

static void offer(struct heap *h, float logit, int32_t id)
{
    if (h->count == h->most) {
        if (logit > h->c[0].logit) { /* an equal one has the higher id and stays out */
            h->c[0] = (struct candidate){logit, id};
            sift_down(h->c, h->most, 0);
        }
        return;
    }
    h->c[h->count++] = (struct candidate){logit, id};
    if (h->count == h->most)
        for (int32_t i = h->most / 2 - 1; i >= 0; i--)
            sift_down(h->c, h->most, i);
}

/* A logit that the k likeliest tokens reach: that of the block whose largest is the k-th. */
static float floor_of_top(struct sampler *s, int32_t blocks, int32_t k)
{
    struct heap h = {s->candidates, 0, k};
    if (k > blocks)
        return -INFINITY;
    for (int32_t b = 0; b < blocks; b++)
        offer(&h, s->maxima[b], b);
    return h.c[0].logit;
}

/* The k likeliest tokens in order; returns how many (k or fewer). */
static int32_t select_top(struct sampler *s, const float *logits, int32_t vocab, int32_t k)
{
    k = k < vocab ? k : vocab;
    float least = floor_of_top(s, blocks_of(vocab), k);
    struct heap h = {s->candidates, 0, k};
    for (int32_t b = 0; b < blocks_of(vocab); b++) {
        int32_t ids[ROW_BLOCK], first = b * ROW_BLOCK;
        if (s->maxima[b] < least || (h.count == k && s->maxima[b] <= h.c[0].logit))
            continue;
        int32_t n = vocab - first < ROW_BLOCK ? vocab - first : ROW_BLOCK;
        n = s->rows->at_least(logits + first, n, least, first, ids);
        for (int32_t i = 0; i < n; i++)
            offer(&h, logits[ids[i]], ids[i]);
    }
    qsort(s->candidates, (size_t)k, sizeof s->candidates[0], compare);
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

/* A logit so far below the maximum that its mass is rounded to zero (e^-22.88 is 2^-33). */
static bool massless(float logit, float max, float temperature)
{
    return (double)max - (double)logit > 22.95 * (double)temperature;
}

static double mass_of_all(const struct sampler *s, const float *logits, int32_t vocab, float max,
                          float temperature)
{
    double total = 0.0;
    for (int32_t b = 0; b < blocks_of(vocab); b++) {
        int32_t end = vocab - b * ROW_BLOCK < ROW_BLOCK ? vocab : (b + 1) * ROW_BLOCK;
        if (!massless(s->maxima[b], max, temperature))
            total += s->rows->mass(logits + b * ROW_BLOCK, end - b * ROW_BLOCK, max, temperature);
    }
    return total;
}

/* top_p with top_k off: the whole mass first, then ever longer prefixes until one holds enough. */
static int32_t nucleus_of_all(struct sampler *s, const float *logits, int32_t vocab, float max,
                              const struct sampling *p)
{
    double total = mass_of_all(s, logits, vocab, max, p->temperature);
    for (int32_t k = 64;; k *= 16) {
        int32_t n = select_top(s, logits, vocab, k);
        int32_t cut = nucleus(s, n, p->temperature, (double)p->top_p * total);
        if (cut > 0)
            return cut;
        if (n == vocab)
            return n;
    }
}

/* --- the draw ---------------------------------------------------------------------------------
 */

/* The likeliest token, ties to the lower id; -1: there is none to draw. Leaves the blocks' maxima.
 */
static int32_t likeliest(struct sampler *s, const float *logits, int32_t vocab)
{
    int32_t best = 0, place;
    if (!s->rows->maxima(logits, vocab, s->maxima))
        return -1;
    for (int32_t b = 1; b < blocks_of(vocab); b++)
        if (s->maxima[b] > s->maxima[best])
            best = b;
    if (!isfinite(s->maxima[best]))
        return -1;
    for (place = best * ROW_BLOCK; logits[place] != s->maxima[best];)
        place++;
    return place;
}

/* A draw under way: the best score so far, and whose it is. */
struct contest {
    const struct sampling *p;
    int32_t position;
    float max; /* logit of the likeliest token */
    int32_t drawn;
    double top;
};

static void compete(struct contest *c, float logit, int32_t id)
{
    const struct sampling *p = c->p;
    double a = (double)logit / (double)p->temperature;
    if (a + GUMBEL_MOST < c->top)
        return;
    double score = a + sampler_gumbel(sampler_bits(p->seed, c->position, id));
    if (!(score > c->top || (score == c->top && id < c->drawn)))
        return;
    if (p->min_p > 0.0f && sampler_mass(logit, c->max, p->temperature) < (double)p->min_p)
        return;
    c->top = score;
    c->drawn = id;
}

/*
 * Upper 32 random bits below this cannot win where logit / T is at most `a`. Noise is -log(-log u)
 * <= -log(1 - u), so a token beats `top` only where 1 - u <= e^(a - top); 1 - u is at least
 * (2^32 - 1 - bits) / 2^32. `slack` and the factor are far more than all roundings.
 */
static uint32_t least_luck(double a, double top)
{
    double slack = 1e-6 + 1e-12 * (fabs(a) + fabs(top)), gap = top - a - slack;
    if (!(gap > 0.01))
        return 0;
    double miss = 1.001 * detmath_exp(-gap) * 0x1p32 + 1.0;
    return miss >= 0x1p32 ? 0 : UINT32_MAX - (uint32_t)miss;
}

/* Among all tokens. Few of a block have the luck to beat the best so far. */
static void compete_all(const struct sampler *s, const float *logits, int32_t vocab,
                        struct contest *c)
{
    const struct sampling *p = c->p;
    for (int32_t b = 0; b < blocks_of(vocab); b++) {
        int32_t ids[ROW_BLOCK], first = b * ROW_BLOCK;
        double a = (double)s->maxima[b] / (double)p->temperature;
        if (a + GUMBEL_MOST < c->top)
            continue;
        int32_t n = vocab - first < ROW_BLOCK ? vocab - first : ROW_BLOCK;
        n = s->rows->lucky(p->seed, c->position, first, n, least_luck(a, c->top), ids);
        for (int32_t i = 0; i < n; i++)
            compete(c, logits[ids[i]], ids[i]);
    }
}

/* The tokens that top_k and top_p leave, in order; -1: all. */
static int32_t filter(struct sampler *s, const float *logits, int32_t vocab, float max,
                      const struct sampling *p)
{
    if (p->top_k == 0)
        return p->top_p < 1.0f ? nucleus_of_all(s, logits, vocab, max, p) : -1;
    int32_t n = select_top(s, logits, vocab, p->top_k);
    if (!(p->top_p < 1.0f))
        return n;
    double total = 0.0;
    for (int32_t i = 0; i < n; i++)
        total += sampler_mass(s->candidates[i].logit, max, p->temperature);
    int32_t cut = nucleus(s, n, p->temperature, (double)p->top_p * total);
    return cut > 0 ? cut : n;
}

int32_t sampler_draw(struct sampler *s, const float *logits, int32_t vocab,
                     const struct sampling *p, int32_t position)
{
    int32_t best = likeliest(s, logits, vocab);
    if (best < 0 || p->temperature == 0.0f)
        return best;
    struct contest c = {p, position, logits[best], best, -INFINITY};
    int32_t n = filter(s, logits, vocab, c.max, p);
    compete(&c, c.max, best); /* which all filters leave: the others have it to beat */
    if (n < 0)
        compete_all(s, logits, vocab, &c);
    for (int32_t i = 0; i < n; i++)
        if (s->candidates[i].id != best)
            compete(&c, s->candidates[i].logit, s->candidates[i].id);
    return c.drawn;
}
