/*
 * What the OpenAI-compatible door answers, written as JSON: answers whole and in chunks, models,
 * errors. Each function appends to `b`; its only failures are the buffer's. Pure; any thread.
 *
 * Field names and meanings: OpenAI API reference (chat, completions, models); reasoning_content and
 * the tokenizer's answers as vLLM has them.
 */
#ifndef WITAN_COORDINATOR_OPENAI_RESPONSE_H
#define WITAN_COORDINATOR_OPENAI_RESPONSE_H

#include "coordinator/openai_logprobs.h"

#include <stdbool.h>
#include <stdint.h>

struct openai_usage {
    int64_t prompt_tokens;
    int64_t cached_tokens; /* of the prompt's, those that the prefix cache had; -1: not yet known,
                              nor what follows below completion_tokens */
    int64_t completion_tokens;
    int64_t reasoning_tokens;
    double joules; /* not above 0, or no number: not known */
};

struct telling; /* dialect.h */

/* What every object of one answer says. */
struct openai_head {
    const char *id; /* "chatcmpl-..." */
    const char *model;
    const char *fingerprint; /* numerics class; "": null */
    int64_t created;         /* unix time */
    bool chat;               /* chat.completion, else text_completion */
    bool usage;              /* a stream whose last chunk tells usage: the others say null, or: */
    const struct openai_usage *so_far; /* usage that chunks tell; NULL: none */
    const char *position; /* the id of the next event, one line; NULL: events have none */
    /* For other APIs than OpenAI's: */
    int64_t prompt_tokens;
    struct telling *telling;
};

/* Some of a message whose tool calls are told apart. */
struct openai_piece {
    int32_t call;          /* which of the message's, from 0; -1: content */
    const char *id, *name; /* of the call, with its first piece alone; else NULL */
    const char *text;      /* of the content, or JSON of the call's arguments */
    size_t len;
    bool end; /* in a stream: the call is whole; of one that broke off never */
};

/* One answer of several; text is UTF-8 and may be NULL when its length is 0. */
struct openai_choice {
    int32_t index;
    const char *content;
    size_t content_len;
    const char *reasoning; /* chat alone */
    size_t reasoning_len;
    const struct openai_piece *calls; /* [call_count], all there is of each */
    int32_t call_count;
    const char *finish;                     /* "stop", "length", "tool_calls" */
    const struct openai_logprobs *logprobs; /* NULL: not asked for */
    /* Elements of vLLM's prompt_logprobs; chat tells those of the first choice. NULL: not asked
     * for. */
    const struct buf *prompt_logprobs;
};

/* --- whole answers: one JSON object --- */

enum status openai_write_answer(struct buf *b, const struct openai_head *head,
                                const struct openai_choice *choices, int32_t count,
                                const struct openai_usage *usage, struct error *err);

/* --- streams: each one event, "data: ...\n\n" --- */

/* The first of a choice: who speaks. Nothing for text_completion. */
enum status openai_write_first(struct buf *b, const struct openai_head *head, int32_t index,
                               struct error *err);
/* More text; `reasoning`: of the thought, chat alone. `logprobs` (NULL: not asked for) of the
 * tokens whose text begins in it. */
enum status openai_write_text(struct buf *b, const struct openai_head *head, int32_t index,
                              bool reasoning, const char *text, size_t len,
                              const struct openai_logprobs *logprobs, struct error *err);
/* Content and calls in one event, so that a stream is never cut between them: `content` of all
 * content, and each call once in `tool_calls`. Nothing where they say nothing. */
enum status openai_write_pieces(struct buf *b, const struct openai_head *head, int32_t index,
                                const struct openai_piece *pieces, int32_t count,
                                const struct openai_logprobs *logprobs, struct error *err);
/* `logprobs`: of tokens without text of their own that are left. */
enum status openai_write_finish(struct buf *b, const struct openai_head *head, int32_t index,
                                const char *finish, const struct openai_logprobs *logprobs,
                                struct error *err);
enum status openai_write_usage(struct buf *b, const struct openai_head *head,
                               const struct openai_usage *usage, struct error *err);
enum status openai_write_done(struct buf *b, struct error *err);

/* --- errors --- */

/* `param` and `code` may be NULL or "" for null. */
struct openai_failure {
    const char *message;
    const char *type;
    const char *param;
    const char *code;
    /* For other APIs than OpenAI's: */
    int status;          /* HTTP's */
    const char *request; /* id; NULL: not told */
};

enum status openai_write_error(struct buf *b, const struct openai_failure *f, struct error *err);
/* The same as an event of a stream. */
enum status openai_write_error_event(struct buf *b, const struct openai_failure *f,
                                     struct error *err);

/* --- the rest --- */

struct openai_model {
    const char *id;
    int64_t created;
    int32_t max_model_len;
    const char *digest, *signers; /* of its manifest; NULL: none */
};

enum status openai_write_model(struct buf *b, const struct openai_model *m, struct error *err);
/* The list of the one model that is served. */
enum status openai_write_models(struct buf *b, const struct openai_model *m, struct error *err);

enum status openai_write_tokens(struct buf *b, const uint32_t *ids, size_t count,
                                int32_t max_model_len, struct error *err);
enum status openai_write_prompt(struct buf *b, const char *text, size_t len, struct error *err);

#endif
