/*
 * Which tokens may be drawn next where an answer must be of a form (partition/constraint.h), as one
 * bit each. On rank 0, which sends the bits with the step (worker/step.h).
 *
 * Most states come again and again: the bits of the last MASKS_KEPT are kept. Owned by rank 0's
 * engine thread; allocates at creation only.
 */
#ifndef WITAN_WORKER_MASKS_H
#define WITAN_WORKER_MASKS_H

#include "worker/words.h"

enum { MASKS_KEPT = 256 };

struct masks;

/* A row of bits; valid until the next call. Two of one `name` are equal. */
struct mask {
    const uint64_t *allowed; /* [masks_row(vocab)] */
    uint64_t name;
};

/* Words of a row. */
static inline int32_t masks_row(int32_t vocab)
{
    return (vocab + 63) / 64;
}

/* `words` becomes the masks' on success. Tokens from `vocab` on are never allowed; `ends`: those
 * that end a sequence, and are all that is allowed when the answer is whole. ERR_UNSUPPORTED: there
 * is none. */
enum status masks_create(struct words *words, int32_t vocab, const int32_t *ends, int32_t end_count,
                         struct masks **out, struct error *err);
void masks_destroy(struct masks *m); /* NULL is fine */

const struct words *masks_words(const struct masks *m);
size_t masks_bytes(const struct masks *m); /* that it takes in memory, its words counted */

/* What may be drawn in state `s` where the answer has room for `left` tokens more, this one
 * counted: only what leaves room to end it. */
struct mask masks_of(struct masks *m, const struct constraint *c, const struct constraint_state *s,
                     int32_t left);

/* A token that was drawn. False: the form does not have it. */
bool masks_take(const struct masks *m, const struct constraint *c, int32_t token,
                struct constraint_state *s);

/* Times that a mask was not kept and had to be made. */
uint64_t masks_made(const struct masks *m);

#endif
