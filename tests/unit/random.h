/*
 * Pseudo-random numbers for tests: the same on every machine, from a seed that the test writes
 * down. SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
 */
#ifndef WITAN_TESTS_UNIT_RANDOM_H
#define WITAN_TESTS_UNIT_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* In [low, high], both included. */
static inline int32_t random_int(uint64_t *state, int32_t low, int32_t high)
{
    return low + (int32_t)(random_u64(state) % ((uint64_t)(high - low) + 1));
}

/* In [0, 1), with 53 bits. */
static inline double random_unit(uint64_t *state)
{
    return (double)(random_u64(state) >> 11) * 0x1p-53;
}

/* In [-scale, scale). */
static inline float random_float(uint64_t *state, double scale)
{
    return (float)((2.0 * random_unit(state) - 1.0) * scale);
}

#endif
