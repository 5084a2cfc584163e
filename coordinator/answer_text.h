/*
 * The text of one answer, from the ids that are drawn: whole characters, reasoning told from
 * content, ended by a stop string, tool calls told from content. Logprobs of tokens wait here until
 * the text that their token begins is told, so that the two stay together. One thread.
 */
#ifndef WITAN_COORDINATOR_ANSWER_TEXT_H
#define WITAN_COORDINATOR_ANSWER_TEXT_H

#include "coordinator/calls.h"
#include "coordinator/reasoning.h"
#include "coordinator/stop.h"

struct held_token;

struct answer_text {
    bool split;
    struct detok detok;
    struct reasoning reasoning;
    struct stop stop;
    struct calls calls;         /* its pieces are what answer_text_settle gives of calls */
    struct told_piece *told;    /* what answer_text_pieces gave last */
    struct buf raw, plain;      /* on their way through the stages */
    struct buf thought, answer; /* certain and not yet told: what answer_text_settle gives; where
                                   calls are told apart, `answer` is on its way too */
    int64_t plain_bytes;        /* of content that has come to the stop strings */
    int64_t told_bytes;         /* of content that has passed them */
    int64_t chars;              /* of all text */
    int32_t reasoning_tokens;   /* drawn inside the thought */
    struct held_token *held;    /* [held_cap] ring; NULL until there are logprobs */
    size_t held_at, held_count, held_cap;
};

/* By what `p` says of reasoning, stop strings and calls. ERR_INVALID: stop strings. */
enum status answer_text_init(struct answer_text *t, const struct tokenizer *tokenizer,
                             const struct generation_params *p, struct error *err);
void answer_text_fini(struct answer_text *t);

/* What it takes in memory. */
int64_t answer_text_bytes(const struct answer_text *t);

/* One more id. `end`: it ends the answer and says nothing. `logprobs` NULL: none are wanted. */
enum status answer_text_push(struct answer_text *t, int32_t id, bool end,
                             const struct token_logprobs *logprobs, struct error *err);

/* After a step's pushes: `thought` and `answer` are what is certain now. `last`: nothing follows,
 * so that all is. *stopped: a stop string appeared, and the answer ends before it; or a call that
 * ends it is whole. */
enum status answer_text_settle(struct answer_text *t, bool last, bool *stopped, struct error *err);

/* The next token of this part whose text begins in what is certain, or which has none before it;
 * false: there is no other now. Pieces of a character go with the character; what lies behind a
 * stop string is never told. *out is valid until the next push. */
bool answer_text_next(struct answer_text *t, enum part part, struct told_token *out);

/* Content and calls that are certain, in order; none where calls are not told apart. Valid until
 * the next settle. */
const struct told_piece *answer_text_pieces(struct answer_text *t, int32_t *count);

/* The texts were told; or all but the thought. */
void answer_text_clear(struct answer_text *t);
void answer_text_clear_content(struct answer_text *t);

#endif
