/*
 * Choosing the next token from a row of logits. A pure function of (row, parameters, position): no
 * state between calls, so that a request gives the same tokens after a failover, in any batch and
 * on any layout.
 *
 * The arithmetic does not depend on how a vocabulary is cut: probabilities are rounded to multiples
 * of 2^-32, so their sums are exact; the draw is an argmax of logit / T + Gumbel noise, the noise a
 * function of (seed, position, token id) by Philox4x32-10 (Salmon et al., SC11).
 */
#ifndef WITAN_WORKER_SAMPLER_H
#define WITAN_WORKER_SAMPLER_H

#include "partition/sampling.h"

struct cpu_rows;
struct sampler;

/* A change of one logit before a draw: sampler_edited of sampler_inline.h. */
struct logit_edit {
    int32_t id;
    float add;
    int32_t repeated; /* the draw's repetition penalty comes before */
};

/* `rows`: whose passes over a row (worker/cpu/ops.h) are taken, with the same results. `vocab`: the
 * longest row. One a thread. */
enum status sampler_create(const struct cpu_rows *rows, int32_t vocab, struct sampler **out,
                           struct error *err);
void sampler_destroy(struct sampler *s);

/*
 * The next token: an id below `vocab`, or -1 when the row holds a NaN or no finite maximum (a
 * broken model).
 * Filters act in the order top_k, top_p (over what top_k left), min_p; ties go to the lower id.
 * `position`: index of the token being drawn in its sequence.
 */
int32_t sampler_draw(struct sampler *s, const float *logits, int32_t vocab,
                     const struct sampling *params, int32_t position);

/* Around a draw: changes the row by `edits` of ids below the row's end, none twice, and makes it
 * again what it was. */
void sampler_edit(struct sampler *s, float *logits, const struct logit_edit *edit, int32_t edits,
                  float repetition_penalty);
void sampler_restore(struct sampler *s, float *logits, const struct logit_edit *edit,
                     int32_t edits);

/* -infinity where a token's bit is 0; the row is a copy. */
void sampler_mask(float *logits, int32_t vocab, const uint64_t *allowed);

/* 128 pseudo-random bits of Philox4x32-10. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
