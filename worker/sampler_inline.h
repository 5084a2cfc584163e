/*
 * The sampler's arithmetic (sampler.h), as detmath_inline.h is written: for sampler.c and, with the
 * same bits, for kernels.
 */
#ifndef WITAN_WORKER_SAMPLER_INLINE_H
#define WITAN_WORKER_SAMPLER_INLINE_H

#include "worker/detmath_inline.h"

/* 128 pseudo-random bits of Philox4x32-10. */
DETMATH void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The random bits of a token, of which the noise takes the upper 53. */
DETMATH uint64_t sampler_bits(uint64_t seed, int32_t position, int32_t id)
{
    const uint32_t counter[4] = {(uint32_t)id, (uint32_t)position, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t r[4];
    sampler_philox(counter, key, r);
    return (uint64_t)r[0] << 32 | r[1];
}

/* -log(-log(u)), u uniform in (0, 1) with 53 bits: at most 36.74. */
DETMATH double sampler_gumbel(uint64_t bits)
{
    double u = ((double)(bits >> 11) + 0.5) * 0x1p-53;
    return -detmath_log(-detmath_log(u));
}

/* A token's probability over the likeliest one's, rounded to a multiple of 2^-32 (exact_round of
 * worker/cpu/ops.h). */
DETMATH double sampler_mass(float logit, float max, float temperature)
{
    const double shift = 1572864.0;
    double m = detmath_exp((double)logit / (double)temperature - (double)max / (double)temperature);
    return (m + shift) - shift;
}

/* A logit as it is drawn from: a repeated token's is divided by the penalty where it is above 0,
 * else multiplied by it; then the addition. */
DETMATH float sampler_edited(float logit, float add, int32_t repeated, float penalty)
{
    if (repeated)
        logit = logit > 0.0f ? logit / penalty : logit * penalty;
    return logit + add;
}

#endif
