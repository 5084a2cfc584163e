/* How an OpenAI request wants its tokens drawn: see openai_fields.h. No state: one table of fields,
 * each with the function that reads it. */
#include "base/check.h"
#include "coordinator/openai_fields.h"
#include "partition/shown.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number as the sampler holds it, so that bounds are checked on the value that it uses. */
static enum status read_float(const char *path, const json_t *v, float *out, struct error *err)
{
    if (!json_is_number(v))
        return openai_mistyped(path, "a number", v, err);
    *out = (float)json_number_value(v);
    return OK;
}

static enum status out_of_bounds(const char *path, const char *bounds, const json_t *v,
                                 struct error *err)
{
    return error_set(err, ERR_INVALID, "%s: expected %s, found %g", path, bounds,
                     json_number_value(v));
}

static enum status read_between(const char *path, const json_t *v, float min, float max, float *out,
                                struct error *err)
{
    float x = 0;
    TRY(read_float(path, v, &x, err));
    if (!(x >= min && x <= max))
        return error_set(err, ERR_INVALID, "%s: expected %g to %g, found %g", path, (double)min,
                         (double)max, json_number_value(v));
    *out = x;
    return OK;
}

/* --- filters and seed --------------------------------------------------------------------------
 */

static enum status read_temperature(struct openai_request *r, const char *name, const json_t *v,
                                    struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x == 0.0f || (x >= 0.001f && x <= 1000.0f)))
        return out_of_bounds(name, "0 or 0.001 to 1000", v, err);
    r->sampling.temperature = fabsf(x); /* -0 is 0 */
    return OK;
}

static enum status read_top_p(struct openai_request *r, const char *name, const json_t *v,
                              struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x > 0.0f && x <= 1.0f))
        return out_of_bounds(name, "above 0, at most 1", v, err);
    r->sampling.top_p = x;
    return OK;
}

static enum status read_min_p(struct openai_request *r, const char *name, const json_t *v,
                              struct error *err)
{
    float x = 0;
    TRY(read_between(name, v, 0.0f, 1.0f, &x, err));
    r->sampling.min_p = fabsf(x);
    return OK;
}

/* -1 is what other servers take for off. */
static enum status read_top_k(struct openai_request *r, const char *name, const json_t *v,
                              struct error *err)
{
    int32_t x = 0;
    TRY(openai_read_int32(name, v, -1, INT32_MAX, &x, err));
    r->sampling.top_k = x > 0 ? x : 0;
    return OK;
}

static enum status read_seed(struct openai_request *r, const char *name, const json_t *v,
                             struct error *err)
{
    int64_t x = 0;
    TRY(openai_read_int(name, v, INT64_MIN, INT64_MAX, &x, err));
    r->sampling.seed = (uint64_t)x;
    r->has_seed = true;
    return OK;
}

/* --- penalties and biases ----------------------------------------------------------------------
 */

static enum status read_repetition(struct openai_request *r, const char *name, const json_t *v,
                                   struct error *err)
{
    float x = 0;
    TRY(read_float(name, v, &x, err));
    if (!(x > 0.0f && x <= 10.0f))
        return out_of_bounds(name, "above 0, at most 10", v, err);
    r->shaping.repetition_penalty = x;
    return OK;
}

static enum status read_presence(struct openai_request *r, const char *name, const json_t *v,
                                 struct error *err)
{
    return read_between(name, v, -2.0f, 2.0f, &r->shaping.presence_penalty, err);
}

static enum status read_frequency(struct openai_request *r, const char *name, const json_t *v,
                                  struct error *err)
{
    return read_between(name, v, -2.0f, 2.0f, &r->shaping.frequency_penalty, err);
}

/* The token id that a key spells, as JSON spells numbers: no sign, no zero before. */
static enum status read_key(const char *key, int32_t *id, struct error *err)
{
    char *end = NULL;
    bool digits = *key && strspn(key, "0123456789") == strlen(key) && (*key != '0' || !key[1]);
    errno = 0;
    long x = digits ? strtol(key, &end, 10) : -1;
    if (!digits || errno || x > INT32_MAX)
        return error_set(err, ERR_INVALID, "logit_bias: expected token ids as keys, found \"%s\"",
                         shown(key).s);
    *id = (int32_t)x;
    return OK;
}

static enum status read_bias(struct openai_request *r, const char *name, const json_t *v,
                             struct error *err)
{
    const char *key;
    json_t *bias;
    if (!json_is_object(v))
        return openai_mistyped(name, "an object of token ids and numbers", v, err);
    size_t count = json_object_size(v);
    if (count > SAMPLING_MAX_BIASES)
        return error_set(err, ERR_INVALID, "%s: expected at most %d tokens, found %zu", name,
                         (int)SAMPLING_MAX_BIASES, count);
    r->bias = check_calloc(count ? count : 1, sizeof *r->bias);
    r->shaping.bias = r->bias;
    json_object_foreach((json_t *)v, key, bias)
    {
        struct logit_bias *b = &r->bias[r->shaping.bias_count];
        char path[32];
        TRY(read_key(key, &b->id, err));
        snprintf(path, sizeof path, "logit_bias.%d", b->id);
        TRY(read_between(path, bias, -100.0f, 100.0f, &b->bias, err));
        r->shaping.bias_count++;
    }
    return OK;
}

/* --- where it ends -----------------------------------------------------------------------------
 */

static enum status read_min_tokens(struct openai_request *r, const char *name, const json_t *v,
                                   struct error *err)
{
    return openai_read_int32(name, v, 0, INT32_MAX, &r->shaping.min_tokens, err);
}

static enum status read_stop_ids(struct openai_request *r, const char *name, const json_t *v,
                                 struct error *err)
{
    if (!json_is_array(v))
        return openai_mistyped(name, "an array of token ids", v, err);
    size_t count = json_array_size(v);
    if (count > SAMPLING_MAX_STOP_IDS)
        return error_set(err, ERR_INVALID, "%s: expected at most %d, found %zu", name,
                         (int)SAMPLING_MAX_STOP_IDS, count);
    r->stop_ids = check_calloc(count ? count : 1, sizeof *r->stop_ids);
    r->shaping.stop_ids = r->stop_ids;
    for (size_t i = 0; i < count; i++) {
        char path[32];
        snprintf(path, sizeof path, "stop_token_ids[%zu]", i);
        TRY(openai_read_int32(path, json_array_get(v, i), 0, INT32_MAX, &r->stop_ids[i], err));
        r->shaping.stop_id_count++;
    }
    return OK;
}

static enum status read_ignore_eos(struct openai_request *r, const char *name, const json_t *v,
                                   struct error *err)
{
    return openai_read_bool(name, v, &r->ignore_eos, err);
}

/* --- what is told, and when --------------------------------------------------------------------
 */

static enum status read_prompt_logprobs(struct openai_request *r, const char *name, const json_t *v,
                                        struct error *err)
{
    int32_t top = 0;
    TRY(openai_read_int32(name, v, 0, SAMPLING_MAX_LOGPROBS, &top, err));
    r->prompt_logprobs = 1 + top;
    return OK;
}

static enum status read_priority(struct openai_request *r, const char *name, const json_t *v,
                                 struct error *err)
{
    return openai_read_int32(name, v, -1, 1, &r->priority, err);
}

static const struct {
    const char *name;
    enum status (*read)(struct openai_request *r, const char *name, const json_t *v,
                        struct error *err);
} fields[] = {
    {"temperature", read_temperature},
    {"top_p", read_top_p},
    {"top_k", read_top_k},
    {"min_p", read_min_p},
    {"seed", read_seed},
    {"repetition_penalty", read_repetition},
    {"presence_penalty", read_presence},
    {"frequency_penalty", read_frequency},
    {"logit_bias", read_bias},
    {"min_tokens", read_min_tokens},
    {"stop_token_ids", read_stop_ids},
    {"ignore_eos", read_ignore_eos},
    {"prompt_logprobs", read_prompt_logprobs},
    {"priority", read_priority},
};

enum status openai_sampling_field(struct openai_request *r, const char *name, const json_t *v,
                                  struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (strcmp(fields[i].name, name) == 0)
            return json_is_null(v) ? OK : fields[i].read(r, name, v, err);
    return ERR_NOT_FOUND;
}
