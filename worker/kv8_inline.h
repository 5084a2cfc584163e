/*
 * How the int8 KV cache rounds, as detmath_inline.h is written: for the CPU's stages and, with the
 * same bits, for kernels. Each group of KV8_GROUP elements of a head at one position has a scale of
 * its own in bf16, the greatest of their absolute values over 127, rounded up; an element is kept
 * as the nearest multiple of it, ties to even. Groups of zeros have scale 0, and those with an
 * infinity or NaN in them have scale NaN: whatever reads them gets NaN, as from a cache of bf16.
 */
#ifndef WITAN_WORKER_KV8_INLINE_H
#define WITAN_WORKER_KV8_INLINE_H

#include "worker/detmath_inline.h"

/* |x| as bits, which are in the order of the values, above them infinity, above it NaN: so that a
 * group's greatest does not depend on the order in which it is sought. */
DETMATH uint32_t kv8_magnitude(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}

/* The scale of a group whose greatest magnitude this is: a bf16, the nearest that is not below the
 * quotient. */
DETMATH float kv8_scale(uint32_t greatest)
{
    if (greatest >= 0x7f800000u)
        greatest = 0x7fc00000u;
    uint32_t bits;
    float scale;
    memcpy(&scale, &greatest, sizeof scale);
    scale = scale / 127.0f;
    memcpy(&bits, &scale, sizeof bits);
    bits = (bits + 0xffffu) & 0xffff0000u;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

/* x as a multiple of its group's scale: in [-127, 127], as the scale is large enough. */
DETMATH int8_t kv8_code(float x, float scale)
{
    if (!(scale > 0.0f))
        return 0;
    const float round = 12582912.0f; /* 1.5 x 2^23: adding it rounds to an integer */
    return (int8_t)((x / scale + round) - round);
}

#endif
