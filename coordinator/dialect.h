/*
 * The APIs that the HTTP door speaks: for each a table of what it calls things and how it writes
 * them. Answers are told in OpenAI's terms (openai_response.h); a dialect turns them into its own.
 * Pure; any thread.
 *
 * A stream is first (of each choice), text, ..., finish (of each choice), end. Every function
 * appends to `b` and may write several events or none.
 */
#ifndef WITAN_COORDINATOR_DIALECT_H
#define WITAN_COORDINATOR_DIALECT_H

#include "coordinator/openai_response.h"

struct dialect {
    const char *id;          /* ids of answers begin so: "chatcmpl" */
    const char *stream_type; /* content type of a stream */
    const char *quiet;       /* said in a stream that was quiet for long; NULL: nothing */
    enum status (*first)(struct buf *b, const struct openai_head *h, int32_t index,
                         struct error *err);
    enum status (*text)(struct buf *b, const struct openai_head *h, int32_t index, bool reasoning,
                        const char *text, size_t len, const struct openai_logprobs *logprobs,
                        struct error *err);
    /* Content and tool calls, in order, instead of text that is no reasoning; see
     * openai_write_pieces. NULL: this API tells no calls; they are content. */
    enum status (*pieces)(struct buf *b, const struct openai_head *h, int32_t index,
                          const struct openai_piece *pieces, int32_t count,
                          const struct openai_logprobs *logprobs, struct error *err);
    enum status (*finish)(struct buf *b, const struct openai_head *h, int32_t index,
                          const char *finish, const struct openai_logprobs *logprobs,
                          struct error *err);
    /* What stands behind all choices: usage, and that this is the end. */
    enum status (*end)(struct buf *b, const struct openai_head *h, const struct openai_usage *usage,
                       struct error *err);
    /* A whole answer: JSON. */
    enum status (*answer)(struct buf *b, const struct openai_head *h,
                          const struct openai_choice *choices, int32_t count,
                          const struct openai_usage *usage, struct error *err);
    /* An error instead of an answer, and in a stream that has begun. */
    enum status (*error)(struct buf *b, const struct openai_failure *f, struct error *err);
    enum status (*stream_error)(struct buf *b, const struct openai_head *h,
                                const struct openai_failure *f, struct error *err);
};

extern const struct dialect dialect_openai_chat, dialect_openai_completion;

#endif
