/*
 * The bytes of every token, sorted, so that those which may follow in some state (partition/
 * constraint.h) are found without trying each: tokens that begin alike are refused together.
 *
 * Immutable; any thread.
 */
#ifndef WITAN_WORKER_WORDS_H
#define WITAN_WORKER_WORDS_H

#include "partition/constraint.h"

#include <stddef.h>

enum word_kind {
    WORD_PLAIN, /* of the vocabulary: its bytes stand wherever they may */
    WORD_ADDED, /* a tag: only in a thought, or before one */
    WORD_NEVER, /* special, or nothing */
    WORD_KINDS,
};

enum {
    WORDS_MAX = 1 << 20,       /* tokens */
    WORDS_MAX_BYTES = 256,     /* of a token: longer ones are never allowed */
    WORDS_MAX_TEXT = 15 << 20, /* of all */
};

struct words;

/* text: the bytes of all tokens by id, lengths[count], kinds[count] of enum word_kind; copied.
 * ERR_INVALID: they do not fit together; ERR_UNSUPPORTED: some byte is no token of its own, so that
 * not every answer could be ended. */
enum status words_create(const char *text, size_t text_len, const uint32_t *lengths,
                         const uint8_t *kinds, size_t count, struct words **out, struct error *err);
void words_destroy(struct words *w); /* NULL is fine */

size_t words_bytes(const struct words *w); /* that it takes in memory */

/* Takes a token's bytes. False: they cannot stand here, or there is no such token. */
bool words_take(const struct words *w, const struct constraint *c, int32_t token,
                struct constraint_state *s);

/* Sets in `allowed`, [(vocab + 63) / 64] words of zeros, the bit of each token below `vocab` that
 * may follow in state `s` and after which at most `most` bytes end the answer. Returns the most
 * that any which may follow needs, those beyond `most` too; -1: there are none. */
int32_t words_allowed(const struct words *w, const struct constraint *c,
                      const struct constraint_state *s, int32_t most, int32_t vocab,
                      uint64_t *allowed);

#endif
