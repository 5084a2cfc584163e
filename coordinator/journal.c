/* What a request is asked again with: see journal.h. */
#include "coordinator/journal.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A page: growing in small pieces, thousands of answers at once leave as many holes behind. */
enum { FIRST_TOKENS = 1024 };

void journal_init(struct journal *j, const struct generation_params *params, int32_t max_tokens,
                  int64_t now_ns)
{
    const struct shaping *s = &params->shaping;
    size_t biases = (size_t)s->bias_count * sizeof *s->bias;
    size_t prompt = (size_t)params->prompt_len * sizeof *params->prompt;
    size_t stops = (size_t)s->stop_id_count * sizeof *s->stop_ids;
    size_t form = params->constraint.text_len;
    char *at = check_calloc(1, biases + prompt + stops + form);
    *j = (struct journal){.params = *params, .max_tokens = max_tokens, .memory = at};
    j->accepted = params->accepted || params->replaces;
    j->params.shaping.bias = (const struct logit_bias *)(const void *)at;
    j->params.prompt = (const int32_t *)(const void *)(at + biases);
    j->params.shaping.stop_ids = (const int32_t *)(const void *)(at + biases + prompt);
    if (biases > 0)
        memcpy(at, s->bias, biases);
    memcpy(at + biases, params->prompt, prompt);
    if (stops > 0)
        memcpy(at + biases + prompt, s->stop_ids, stops);
    if (form > 0) {
        char *text = at + biases + prompt + stops;
        memcpy(text, params->constraint.text, form);
        j->params.constraint.text = text;
    }
    if (params->numerics_class)
        snprintf(j->class, sizeof j->class, "%s", params->numerics_class);
    j->params.numerics_class = NULL;
    j->params.stop = NULL;
    j->params.tools = NULL;
    j->params.origin = (struct request_origin){0};
    j->params.stop_count = 0;
    j->prompt_told = params->prompt_logprobs > 0 ? 1 : 0;
    if (params->deadline_ms > 0)
        j->deadline_ns = now_ns + (int64_t)params->deadline_ms * 1000000;
}

void journal_fini(struct journal *j)
{
    free(j->memory);
    free(j->answer);
    *j = (struct journal){0};
}

static void grow(struct journal *j, int32_t least)
{
    int64_t cap = j->answer_cap > 0 ? 2 * (int64_t)j->answer_cap : FIRST_TOKENS;
    while (cap < least)
        cap *= 2;
    cap = cap < j->max_tokens ? cap : j->max_tokens;
    int32_t *more = realloc(j->answer, (size_t)cap * sizeof *more);
    CHECK(more, "no memory for an answer of %lld tokens", (long long)cap);
    j->answer = more;
    j->answer_cap = (int32_t)cap;
}

void journal_add(struct journal *j, const int32_t *ids, int32_t count)
{
    CHECK(count >= 0 && count <= j->max_tokens - j->answer_len, "%d tokens behind %d, of %d", count,
          j->answer_len, j->max_tokens);
    if (count == 0)
        return;
    if (j->answer_len + count > j->answer_cap)
        grow(j, j->answer_len + count);
    memcpy(j->answer + j->answer_len, ids, (size_t)count * sizeof *ids);
    j->answer_len += count;
}

int64_t journal_bytes(const struct journal *j)
{
    const struct generation_params *p = &j->params;
    return ((int64_t)p->prompt_len + j->answer_cap + p->shaping.stop_id_count) *
               (int64_t)sizeof(int32_t) +
           p->shaping.bias_count * (int64_t)sizeof *p->shaping.bias + p->constraint.text_len;
}

int64_t journal_left_ms(const struct journal *j, int64_t now_ns)
{
    if (j->deadline_ns == 0)
        return 0;
    if (j->deadline_ns <= now_ns)
        return -1;
    return (j->deadline_ns - now_ns + 999999) / 1000000;
}
