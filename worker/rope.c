/* RoPE's inverse frequencies: see rope.h. No state. */
#include "worker/rope.h"
#include "worker/detmath.h"

#include <math.h>

/* The dimension whose wave turns `rotations` times over the trained positions. */
static double turning_dimension(const struct model_config *c, double rotations)
{
    const double pi = 0x1.921fb54442d18p1;
    double turns = (double)c->yarn.original / (rotations * 2 * pi);
    return (double)c->head_dim * det_log(turns) / (2 * det_log(c->rope_theta));
}

/* Pairs below `low` keep their frequency, those above `high` are slowed down by the factor, and
 * between them is a ramp. */
struct ramp {
    double low, high;
};

static struct ramp yarn_ramp(const struct model_config *c)
{
    struct ramp r = {turning_dimension(c, c->yarn.beta_fast),
                     turning_dimension(c, c->yarn.beta_slow)};
    if (c->yarn.truncate) {
        r.low = floor(r.low);
        r.high = ceil(r.high);
    }
    r.low = r.low > 0 ? r.low : 0;
    r.high = r.high < c->head_dim - 1 ? r.high : c->head_dim - 1;
    if (r.low == r.high)
        r.high += 0.001;
    return r;
}

static double mscale_of(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * det_log(factor) + 1;
}

static float yarn_scale(const struct yarn *y)
{
    if (y->attention_factor != 0)
        return (float)y->attention_factor;
    if (y->mscale != 0 && y->mscale_all_dim != 0)
        return (float)(mscale_of(y->factor, y->mscale) / mscale_of(y->factor, y->mscale_all_dim));
    return (float)mscale_of(y->factor, 1);
}

/* `wave`: theta^(2i / head_dim), the reciprocal of the frequency without YaRN. */
static float yarn_frequency(const struct ramp *r, float factor, int32_t i, float wave)
{
    float slowed = ((float)i - (float)r->low) / (float)(r->high - r->low);
    slowed = slowed < 0 ? 0 : slowed > 1 ? 1 : slowed;
    float kept = 1.0f - slowed;
    return 1.0f / (factor * wave) * (1.0f - kept) + 1.0f / wave * kept;
}

float rope_frequencies(const struct model_config *config, float *frequency)
{
    bool yarn = config->yarn.factor != 0;
    struct ramp ramp = yarn ? yarn_ramp(config) : (struct ramp){0};
    double log_theta = det_log(config->rope_theta);
    for (int32_t i = 0; i < config->head_dim / 2; i++) {
        float exponent = (float)(2 * i) / (float)config->head_dim;
        float wave = (float)det_exp((double)exponent * log_theta);
        frequency[i] = yarn ? yarn_frequency(&ramp, (float)config->yarn.factor, i, wave)
                            : 1.0f / wave;
    }
    return yarn ? yarn_scale(&config->yarn) : 1.0f;
}
