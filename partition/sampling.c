/* Sampling parameters: see sampling.h. */
#include "partition/sampling.h"

#include <stdlib.h>

enum status sampling_check(const struct sampling *s, struct error *err)
{
    if (!(s->temperature == 0.0f || (s->temperature >= 0.001f && s->temperature <= 1000.0f)))
        return error_set(err, ERR_INVALID, "temperature %g: expected 0 or 0.001 to 1000",
                         (double)s->temperature);
    if (!(s->top_p > 0.0f && s->top_p <= 1.0f))
        return error_set(err, ERR_INVALID, "top_p %g: expected above 0, at most 1",
                         (double)s->top_p);
    if (!(s->min_p >= 0.0f && s->min_p <= 1.0f))
        return error_set(err, ERR_INVALID, "min_p %g: expected 0 to 1", (double)s->min_p);
    if (s->top_k < 0)
        return error_set(err, ERR_INVALID, "top_k %d: expected 0 (off) or more", s->top_k);
    return OK;
}

static enum status in_range(const char *name, float x, float min, float max, struct error *err)
{
    if (x >= min && x <= max)
        return OK;
    return error_set(err, ERR_INVALID, "%s %g: expected %g to %g", name, (double)x, (double)min,
                     (double)max);
}

static enum status check_id(const char *list, int32_t i, int32_t id, int32_t vocab,
                            struct error *err)
{
    if (id >= 0 && id < vocab)
        return OK;
    return error_set(err, ERR_INVALID, "%s[%d]: expected a token id from 0 to %d, found %d", list,
                     i, vocab - 1, id);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static enum status check_biases(const struct shaping *s, int32_t vocab, struct error *err)
{
    int32_t ids[SAMPLING_MAX_BIASES];
    if (s->bias_count < 0 || s->bias_count > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID, "logit_bias: expected at most %d tokens, found %d",
                         (int)SAMPLING_MAX_BIASES, s->bias_count);
    for (int32_t i = 0; i < s->bias_count; i++) {
        ids[i] = s->bias[i].id;
        TRY(check_id("logit_bias", i, ids[i], vocab, err));
        TRY(in_range("logit_bias", s->bias[i].bias, -100.0f, 100.0f, err));
    }
    qsort(ids, (size_t)s->bias_count, sizeof *ids, by_id);
    for (int32_t i = 1; i < s->bias_count; i++)
        if (ids[i] == ids[i - 1])
            return error_set(err, ERR_INVALID, "logit_bias: token %d is named twice", ids[i]);
    return OK;
}

enum status shaping_check(const struct shaping *s, int32_t vocab, struct error *err)
{
    if (!(s->repetition_penalty >= 0.0f && s->repetition_penalty <= 10.0f))
        return error_set(err, ERR_INVALID, "repetition_penalty %g: expected above 0, at most 10",
                         (double)s->repetition_penalty);
    TRY(in_range("presence_penalty", s->presence_penalty, -2.0f, 2.0f, err));
    TRY(in_range("frequency_penalty", s->frequency_penalty, -2.0f, 2.0f, err));
    if (s->min_tokens < 0)
        return error_set(err, ERR_INVALID, "min_tokens %d: expected 0 or more", s->min_tokens);
    TRY(check_biases(s, vocab, err));
    if (s->stop_id_count < 0 || s->stop_id_count > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID, "stop_token_ids: expected at most %d, found %d",
                         (int)SAMPLING_MAX_STOP_IDS, s->stop_id_count);
    for (int32_t i = 0; i < s->stop_id_count; i++)
        TRY(check_id("stop_token_ids", i, s->stop_ids[i], vocab, err));
    return OK;
}

bool shaping_needs_history(const struct shaping *s)
{
    return (s->repetition_penalty != 0.0f && s->repetition_penalty != 1.0f) ||
           s->presence_penalty != 0.0f || s->frequency_penalty != 0.0f;
}
