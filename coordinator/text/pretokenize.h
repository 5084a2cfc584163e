/*
 * The pre-tokeniser: cuts text into the pieces that BPE works on, by the regular expression of
 * tokenizer.json (Split, behaviour Isolated: each match is a piece, and so is what lies between two
 * matches). Immutable once created, any number of threads; the scratch belongs to one at a time.
 */
#ifndef WITAN_COORDINATOR_TEXT_PRETOKENIZE_H
#define WITAN_COORDINATOR_TEXT_PRETOKENIZE_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

struct pretokenizer;
struct pretokenizer_scratch;

/* Takes the part of the regex language in which PCRE2 and the reference's engine (Oniguruma) agree:
 * literals, classes, alternation, quantifiers, (?:) (?i:) (?=) (?!), \s \S \r \n \t \p{L} \p{N}.
 * ERR_UNSUPPORTED names anything else, ERR_INVALID what does not compile. `flags`:
 * unicode_flags_create's, borrowed. */
enum status pretokenizer_create(const char *pattern, const uint8_t *flags,
                                struct pretokenizer **out, struct error *err);
void pretokenizer_destroy(struct pretokenizer *p);

enum status pretokenizer_scratch_create(const struct pretokenizer *p,
                                        struct pretokenizer_scratch **out, struct error *err);
void pretokenizer_scratch_destroy(struct pretokenizer_scratch *s);

/* Starts on `len` bytes of valid UTF-8, borrowed until the last call of pretokenizer_next;
 * `text_flags` are its unicode_flags_of_text. */
enum status pretokenizer_start(const struct pretokenizer *p, struct pretokenizer_scratch *s,
                               const char *text, size_t len, unsigned text_flags,
                               struct error *err);

/* The next piece: *len is 0 at the end. ERR_LIMIT when the pattern backtracks without end. */
enum status pretokenizer_next(const struct pretokenizer *p, struct pretokenizer_scratch *s,
                              const char **piece, size_t *len, struct error *err);

/* Gives back the memory that a huge text needed; the scratch stays usable. */
void pretokenizer_end(struct pretokenizer_scratch *s);

#endif
