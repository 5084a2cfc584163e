/* Answers without a stream: see http_answer.h. No state. */
#include "base/check.h"
#include "coordinator/http_answer.h"

#include <stdlib.h>

static double likelihood(const struct choice *c)
{
    return c->drawn > 0 ? c->logprob / (double)c->drawn : 0.0;
}

/* Likeliest a token first; of equals the one that was begun first. */
static int by_likelihood(const void *left, const void *right)
{
    const struct choice *a = *(const struct choice *const *)left;
    const struct choice *b = *(const struct choice *const *)right;
    double x = likelihood(a), y = likelihood(b);
    return x != y ? (x < y) - (x > y) : (a->index > b->index) - (a->index < b->index);
}

int32_t answer_choose(struct answer *a, struct choice **chosen)
{
    int32_t count = 0;
    for (int32_t p = 0; p < a->prompt_count; p++) {
        for (int32_t i = 0; i < a->best_of; i++)
            chosen[count + i] = &a->choices[p * a->best_of + i];
        if (a->best_of > a->n)
            qsort(&chosen[count], (size_t)a->best_of, sizeof chosen[0], by_likelihood);
        count += a->n; /* what is left behind them is written over */
    }
    return count;
}

/* The prompt's text and tokens before the choice's own. */
static enum status put_echo(struct answer *a, struct choice *const *chosen, int32_t count,
                            struct openai_choice *out, struct buf *texts,
                            struct openai_logprobs *logprobs, struct error *err)
{
    for (int32_t i = 0; i < count; i++) {
        const struct choice *c = chosen[i];
        const struct told_prompt *p = c->prompt;
        TRY(buf_append(&texts[i], p->text.data ? p->text.data : "", p->text.len, err));
        TRY(buf_append(&texts[i], c->content.data ? c->content.data : "", c->content.len, err));
        out[i].content = texts[i].data;
        out[i].content_len = texts[i].len;
        TRY(openai_logprobs_join(&logprobs[i], &p->echoed, err));
        TRY(openai_logprobs_join(&logprobs[i], &c->logprobs, err));
        out[i].logprobs = a->logprobs > 0 ? &logprobs[i] : NULL;
    }
    return OK;
}

static enum status write_echoing(struct answer *a, struct choice *const *chosen, int32_t count,
                                 struct openai_choice *out, struct error *err)
{
    struct buf *texts = check_calloc((size_t)count, sizeof *texts);
    struct openai_logprobs *logprobs = check_calloc((size_t)count, sizeof *logprobs);
    for (int32_t i = 0; i < count; i++) {
        buf_init(&texts[i], 2 * HTTP_MAX_TEXT_BYTES);
        openai_logprobs_init(&logprobs[i], false, a->logprobs > 1, 2 * HTTP_MAX_TEXT_BYTES);
    }
    enum status st = put_echo(a, chosen, count, out, texts, logprobs, err);
    if (st == OK)
        st = a->x->dialect->answer(&a->out, &a->head, out, count, &a->usage, err);
    for (int32_t i = 0; i < count; i++) {
        buf_fini(&texts[i]);
        openai_logprobs_fini(&logprobs[i]);
    }
    free(texts);
    free(logprobs);
    return st;
}

enum status answer_write(struct answer *a, struct choice *const *chosen, int32_t count,
                         struct error *err)
{
    struct openai_choice *out = check_calloc((size_t)count, sizeof *out);
    for (int32_t i = 0; i < count; i++) {
        const struct choice *c = chosen[i];
        out[i] = (struct openai_choice){
            .index = i,
            .content = c->content.data,
            .content_len = c->content.len,
            .reasoning = c->reasoning.data,
            .reasoning_len = c->reasoning.len,
            .calls = http_calls_kept(&c->calls),
            .call_count = c->calls.count,
            .finish = c->finish,
            .logprobs = a->logprobs > 0 ? &c->logprobs : NULL,
            .prompt_logprobs = c->prompt->own_top >= 0 ? &c->prompt->own : NULL,
        };
    }
    enum status st = a->prompts[0].echo
                         ? write_echoing(a, chosen, count, out, err)
                         : a->x->dialect->answer(&a->out, &a->head, out, count, &a->usage, err);
    for (int32_t i = 0; i < count; i++)
        free((struct openai_piece *)out[i].calls);
    free(out);
    return st;
}
