/*
 * Attention over tiles of the KV cache (worker/kv.h) on one thread, one table an instruction set
 * (cpu_ops' `attention`), all giving the same bits.
 *
 * Arithmetic, fixed for the numerics class cpu-1, of one query and one tile: a score is, from 0, a
 * chain of fma(q[d], k[d][p], score) in the order of d; m is the largest of the positions that the
 * query sees, p = e^(score - m), l the sum of p by lanes (position mod 16) and the tree of v_sum;
 * o[d] is, from 0, a chain of fma(p, v[p][d], o[d]) in the order of positions. Over an int8 cache a
 * score is, group by group, that chain over the codes, times the group's scale, added by fma to the
 * groups before it; a value is a chain of fma of the codes and the weights times their positions'
 * scales. Tiles are joined in the order of the sequence (see `join`). How many queries share a
 * tile, and in which of its parts, changes none of this.
 */
#ifndef WITAN_WORKER_CPU_ATTENTION_OPS_H
#define WITAN_WORKER_CPU_ATTENTION_OPS_H

#include "partition/plan.h"

#include <stdbool.h>
#include <stdint.h>

/* Queries that read the same KV head, and what they have seen of it so far. `m` and `l` have room
 * for n rounded up to 16. */
struct attention_queries {
    int32_t n;
    int32_t hd;           /* a multiple of 16 */
    const float *q;       /* [n][hd], scaled */
    const int32_t *count; /* [n]: the tile's positions that each sees, 1..KV_BLOCK, ascending */
    float *m, *l;         /* [n]: largest score, and sum of exponentials */
    float *o;             /* [n][hd]: weighted values */
    float *scratch;       /* attention_scratch(n) floats */
};

/* Scores, and the two factors of a join. */
static inline int64_t attention_scratch(int64_t n)
{
    return n * KV_BLOCK + (n + LANES - 1) / LANES * (2 * LANES);
}

struct cpu_attention {
    /* One tile for n queries: k [hd][KV_BLOCK] (transposed), v [KV_BLOCK][hd], of kv_dtype. It
     * becomes (m, l, o) where it is their first, and is joined to them where not. `ahead`: bytes
     * from this tile to the one that is wanted next, which is brought nearer; 0: none. */
    void (*tile)(const struct attention_queries *a, const void *k, const void *v,
                 enum kv_dtype kv_dtype, bool first, int64_t ahead);

    /* Joins a tile's (m, l, o) to the running (rm, rl, ro) of one query: both are rescaled by
     * e^(their maximum - the larger one). */
    void (*join)(float m, float l, const float *o, int32_t hd, float *rm, float *rl, float *ro);
};

#endif
