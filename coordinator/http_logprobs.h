/*
 * Prompts of an HTTP answer as it tells them, echoed and with logprobs, and logprobs of tokens with
 * the tokens' bytes. On the loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_LOGPROBS_H
#define WITAN_COORDINATOR_HTTP_LOGPROBS_H

#include "coordinator/core.h"
#include "coordinator/openai_logprobs.h"
#include "coordinator/openai_request.h"

enum { HTTP_MAX_TEXT_BYTES = 64 << 20 /* of one choice, or one of its lists */ };

/* A prompt, told once for all choices that continue it. */
struct told_prompt {
    const struct core *core;
    struct token_ids ids;
    bool echo;
    struct buf text;               /* with echo */
    int64_t chars;                 /* of the text */
    int32_t wanted;                /* as generation_params.prompt_logprobs */
    int32_t echo_top, own_top;     /* likeliest tokens of each of these lists; -1: not wanted */
    struct openai_logprobs echoed; /* echo's tokens, of completions */
    struct buf own;                /* elements of prompt_logprobs */
    struct detok detok;            /* over the tokens echoed so far */
    struct buf piece;
    int64_t piece_chars;
};

/* Takes the ids over. */
void told_prompt_init(struct told_prompt *p, const struct core *core,
                      const struct openai_request *r, struct token_ids *ids);
void told_prompt_fini(struct told_prompt *p);
/* Once the ids are known to exist; before the first told_prompt_take. */
enum status told_prompt_begin(struct told_prompt *p, struct error *err);

/* As generation_sink.on_prompt. */
enum status told_prompt_take(struct told_prompt *p, int32_t position,
                             const struct token_logprobs *logprobs, int32_t count,
                             struct error *err);

/* One token with at most `top` of the likeliest beside; the bytes are the tokenizer's. */
enum status told_logprob(const struct core *core, int32_t id, const struct token_logprobs *l,
                         int32_t top, struct openai_logprob *out, struct error *err);

#endif
