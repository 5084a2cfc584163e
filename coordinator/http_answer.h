/*
 * Inside the HTTP door's answers: one exchange, one generation a choice (http_generate.c), and how
 * they become one object without a stream (http_whole.c). On the loop thread.
 */
#ifndef WITAN_COORDINATOR_HTTP_ANSWER_H
#define WITAN_COORDINATOR_HTTP_ANSWER_H

#include "coordinator/dialect.h"
#include "coordinator/http_calls.h"
#include "coordinator/http_exchange.h"
#include "coordinator/http_logprobs.h"
#include "coordinator/http_resume.h"

enum { HTTP_MAX_ID = 48 };

struct choice {
    struct answer *answer;
    struct generation *generation; /* NULL: not started, or over */
    struct told_prompt *prompt;    /* of the answer */
    struct resume_at at;           /* how far it is drawn */
    int32_t index;
    bool tells_prompt; /* the first of its prompt, which usage counts once */
    uint64_t seed;
    int64_t drawn;
    double logprob;                  /* of all drawn, for best_of */
    struct buf content, reasoning;   /* without a stream */
    struct http_calls calls;         /* the same */
    struct openai_logprobs logprobs; /* of all tokens; in a stream of those not yet sent */
    const char *finish;
};

struct answer {
    struct exchange *x;
    struct core *core;
    struct openai_head head;
    struct http_resume *resume; /* owned; NULL: a request without a key */
    char id[HTTP_MAX_ID];
    bool stream;
    bool replaces;      /* an older answer to the same request */
    int32_t n, best_of; /* best_of are drawn for each prompt, the n likeliest told */
    int32_t logprobs;   /* as openai_request has it */
    int64_t listed;     /* tokens in lists of logprobs that are kept */
    struct openai_usage usage, so_far;
    int32_t running;
    struct telling telling;
    struct buf out;              /* events or the whole answer, written here first */
    struct told_prompt *prompts; /* [prompt_count], owned; the first `encoded` are there */
    int32_t prompt_count, encoded;
    int32_t count;
    struct choice choices[]; /* [count] = prompt_count x best_of */
};

/* What is told, in order; returns how many. chosen[OPENAI_MAX_CHOICES] */
int32_t answer_choose(struct answer *a, struct choice **chosen);

/* Writes these choices as one object to a->out. */
enum status answer_write(struct answer *a, struct choice *const *chosen, int32_t count,
                         struct error *err);

#endif
