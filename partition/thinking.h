/*
 * How long a model may think: so many tokens, then the thought is ended for it by tokens that stand
 * there whatever is drawn, and the answer goes on behind them.
 *
 * Where they stand follows from the answer's tokens alone, so it is the same wherever and however
 * often these are computed. Tokens tell where a thought begins and ends, not text: the tag spelled
 * out letter by letter is not one. Pure.
 */
#ifndef WITAN_PARTITION_THINKING_H
#define WITAN_PARTITION_THINKING_H

#include "partition/constraint.h"

enum { THINKING_MAX_END = 128 }; /* tokens that end a thought */

struct thinking {
    int32_t count;                 /* of `ids`; 0: no bound, and nothing else here counts */
    int32_t most;                  /* tokens of a thought before them; 0 to max_tokens */
    int32_t open, close;           /* <think> and </think> */
    bool inside;                   /* the answer begins in a thought; else it may, with `open` */
    int32_t ids[THINKING_MAX_END]; /* `close` is one of them, `open` none */
};

/* Where `ids` begin, as an index into the answer, if the thought is open until then and not ended
 * there by what is drawn. */
static inline int32_t thinking_end(const struct thinking *t)
{
    return t->most + !t->inside;
}

/* What stands as the answer's index-th token where `token` was drawn. `open`: thinking_after of the
 * token before; of the first, whether there is a bound. */
int32_t thinking_token(const struct thinking *t, bool open, int32_t index, int32_t token);

/* May `ids` still come, after `token` as the index-th? */
bool thinking_after(const struct thinking *t, bool open, int32_t index, int32_t token);

/* ERR_INVALID: it does not hold together; token ids are below `vocab`. With a constraint, what ends
 * the thought and what follows it need room in max_tokens: */
enum status thinking_check(const struct thinking *t, const struct constraint *c, int32_t vocab,
                           int32_t max_tokens, struct error *err);
/* the most that a thought may have then; below 0: there is no room at all. */
int32_t thinking_room(const struct thinking *t, const struct constraint *c, int32_t max_tokens);

#endif
