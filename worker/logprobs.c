/* Logarithms of probabilities: see logprobs.h. */
#include "worker/logprobs.h"
#include "base/check.h"
#include "worker/cpu/ops.h"
#include "worker/detmath.h"

#include <math.h>

static const struct cpu_rows *rows_here(void)
{
    const struct cpu_ops *ops;
    struct error err;
    CHECK(cpu_ops_choose("auto", &ops, &err) == OK, "%s", err.msg);
    return ops->rows;
}

/* Among the likeliest so far, most likely first; those of lower ids came before. */
static void place(struct logprobs *out, int32_t top, float logit, int32_t id)
{
    int32_t i = out->count < top ? out->count++ : top - 1;
    for (; i > 0 && logit > out->top[i - 1].logprob; i--)
        out->top[i] = out->top[i - 1];
    out->top[i].id = id;
    out->top[i].logprob = logit;
}

/* The likeliest tokens with their logits, and the largest logit; a NaN where the row has one. */
static float find_top(const struct cpu_rows *rows, const float *x, int32_t vocab, int32_t top,
                      struct logprobs *out)
{
    float max = -INFINITY;
    for (int32_t b = 0; b < vocab; b += ROW_BLOCK) {
        int32_t n = vocab - b < ROW_BLOCK ? vocab - b : ROW_BLOCK, ids[ROW_BLOCK];
        float largest, least = -INFINITY;
        if (!rows->maxima(x + b, n, &largest))
            return NAN;
        max = largest > max ? largest : max;
        if (top == 0)
            continue;
        if (out->count == top) {
            least = out->top[top - 1].logprob;
            if (largest <= least)
                continue;
        }
        n = rows->at_least(x + b, n, least, b, ids);
        for (int32_t i = 0; i < n; i++)
            if (out->count < top || x[ids[i]] > out->top[top - 1].logprob)
                place(out, top, x[ids[i]], ids[i]);
    }
    return max;
}

void logprobs_of(const float *logits, int32_t vocab, int32_t token, int32_t top,
                 struct logprobs *out)
{
    const struct cpu_rows *rows = rows_here();
    CHECK(token >= 0 && token < vocab && top >= 0 && top <= SAMPLING_MAX_LOGPROBS,
          "logprobs of token %d of %d and %d more", token, vocab, top);
    *out = (struct logprobs){.logprob = -INFINITY, .rank = 1};
    float max = find_top(rows, logits, vocab, top, out);
    if (!isfinite(max)) {
        out->count = 0;
        return;
    }
    double sum = det_log(rows->sum_exp(logits, vocab, max));
    out->logprob = (float)((double)logits[token] - (double)max - sum);
    out->rank = 1 + rows->before(logits, vocab, logits[token], token);
    for (int32_t i = 0; i < out->count; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - (double)max - sum);
}
