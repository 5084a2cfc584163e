/*
 * Passes over a row of logits, one table an instruction set (cpu_ops' `rows`), all with the same
 * results: the sampler's and the logprobs' inner loops. Rows are looked at in blocks of ROW_BLOCK
 * entries, of which the last may be shorter.
 */
#ifndef WITAN_WORKER_CPU_ROWS_H
#define WITAN_WORKER_CPU_ROWS_H

#include <stdbool.h>
#include <stdint.h>

enum { ROW_BLOCK = 256 };

struct cpu_rows {
    /* maxima[i]: the largest of block i of x[n]. False where one of x is a NaN. */
    bool (*maxima)(const float *x, int32_t n, float *maxima);

    /* Writes, ascending, i + first for each x[i] >= least; n at most ROW_BLOCK. Returns how many.
     */
    int32_t (*at_least)(const float *x, int32_t n, float least, int32_t first, int32_t *ids);

    /* The sum of e^(x - max), block after block in fp64: those of a block by lanes in fp32 and the
     * tree of v_sum. x at most `max`; -infinity counts as nothing. */
    double (*sum_exp)(const float *x, int32_t n, float max);

    /* The sum of sampler_mass (sampler_inline.h) of x[n], at most `max`: exact, so of any order.
     * Where `max - x` is above 22.95 T a mass is known to be zero: those are not asked. */
    double (*mass)(const float *x, int32_t n, float max, float temperature);

    /* How many of x[n] are larger than `y`, or equal to it and before entry `place`. */
    int32_t (*before)(const float *x, int32_t n, float y, int32_t place);

    /* Writes, ascending, those of [first, first + n) whose sampler_bits (sampler_inline.h) have
     * upper 32 bits of at least `least`; n at most ROW_BLOCK. Returns how many. */
    int32_t (*lucky)(uint64_t seed, int32_t position, int32_t first, int32_t n, uint32_t least,
                     int32_t *ids);
};

#endif
