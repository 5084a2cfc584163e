/*
 * Logprobs as the OpenAI-compatible door tells them: lists that grow token by token, and their JSON
 * in whole answers and chunks. Pure; one thread at a time.
 *
 * A token is shown by the text of its own bytes. Bytes that are no whole character are shown as
 * \xHH, as OpenAI does (in completions after "bytes:"), so that such tokens can be told apart; the
 * list of chat has the exact bytes beside. Logprobs below -9999 are -9999.
 *
 * Formats: OpenAI API reference (choices[].logprobs of chat, and of the legacy completions);
 * prompt_logprobs: vLLM's documentation.
 */
#ifndef WITAN_COORDINATOR_OPENAI_LOGPROBS_H
#define WITAN_COORDINATOR_OPENAI_LOGPROBS_H

#include "base/buf.h"
#include "partition/sampling.h"

/* A token's own bytes, borrowed. */
struct openai_token {
    int32_t id;
    const char *bytes;
    size_t len;
    float logprob;
    int32_t rank; /* 1: the likeliest */
};

/* A token and the likeliest in its place. */
struct openai_logprob {
    struct openai_token token;
    int32_t top_count;
    struct openai_token top[SAMPLING_MAX_LOGPROBS]; /* likeliest first */
};

/* The logprobs of one choice, or of one chunk of it. */
struct openai_logprobs {
    bool chat;
    bool top; /* completions: likeliest tokens are listed; else their list is null */
    int32_t count;
    /* Chat: content and reasoning_content. Completions: tokens, token_logprobs, top_logprobs and
     * text_offset. Each what stands between its brackets. */
    struct buf lists[4];
};

void openai_logprobs_init(struct openai_logprobs *l, bool chat, bool top, size_t limit_bytes);
void openai_logprobs_fini(struct openai_logprobs *l);
void openai_logprobs_clear(struct openai_logprobs *l);

/* chat: one more token of the content, or of the thought. */
enum status openai_logprobs_add_chat(struct openai_logprobs *l, bool reasoning,
                                     const struct openai_logprob *t, struct error *err);
/* completions: one more, which begins at character `offset` of the text. `known` false: nothing
 * comes before it, so that it has no logprob. */
enum status openai_logprobs_add_text(struct openai_logprobs *l, const struct openai_logprob *t,
                                     bool known, int64_t offset, struct error *err);
/* Appends the tokens of `more`, of the same kind. */
enum status openai_logprobs_join(struct openai_logprobs *l, const struct openai_logprobs *more,
                                 struct error *err);

/* `,"logprobs":` and its value; null for NULL and, unless `always`, where there are no tokens. */
enum status openai_logprobs_write(struct buf *b, const struct openai_logprobs *l, bool always,
                                  struct error *err);

/* --- vLLM's prompt_logprobs: between the brackets of one list, one element a token --- */

/* `known` false: null, for the first. Else an object by token ids: the token itself, then the
 * likeliest but it. */
enum status openai_prompt_logprobs_add(struct buf *list, const struct openai_logprob *t, bool known,
                                       struct error *err);

#endif
