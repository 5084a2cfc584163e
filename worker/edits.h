/*
 * Which logits of a sequence are changed before its next draw (struct shaping): the tokens that it
 * has seen, biases, and the ends that min_tokens forbids. On rank 0, which sends the list with the
 * step (worker/step.h).
 *
 * Owned by its sequence. Allocates at creation only.
 */
#ifndef WITAN_WORKER_EDITS_H
#define WITAN_WORKER_EDITS_H

#include "worker/sampler.h"

struct edits;

/* *out NULL: there is never anything to change. `ends`: the end-of-sequence tokens that end this
 * answer. At most max_tokens are told to edits_drew. ERR_NO_MEMORY. */
enum status edits_create(const struct shaping *s, const int32_t *prompt, int32_t prompt_len,
                         int32_t max_tokens, const int32_t *ends, int32_t end_count,
                         struct edits **out, struct error *err);
void edits_destroy(struct edits *e);

/* A token of the answer. */
void edits_drew(struct edits *e, int32_t token);

/* Entries that edits_write may write now. */
int32_t edits_most(const struct edits *e);

/* The changes for the answer's token `index`, ids ascending and below `vocab`; returns how many.
 * What depends on tokens before is that of those told. */
int32_t edits_write(const struct edits *e, int32_t index, int32_t vocab, struct logit_edit *out);
float edits_penalty(const struct edits *e); /* of those that are `repeated` */

/* Tokens that are forbidden for a draw, at most; so many of a small vocabulary may be all of it. */
int32_t edits_most_bans(const struct shaping *s, int32_t end_count);

#endif
