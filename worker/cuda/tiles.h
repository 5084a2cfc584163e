/*
 * The products of stages.h for steps of many rows: tiles of TILE_ROWS weight rows and 64 to 256
 * tokens a block, at the speed of the tensor cores. The arithmetic is stages.h's, so that these
 * and the kernels of products.cu, which stream weights past few tokens, may take each other's
 * place: not a bit differs. products.cu asks tiles_choose which of them a stage takes.
 *
 * Functions as in stages.h; `tokens` is the largest tile's: 64, 128 or, but for exact sums, 256.
 * sum is zero where leaves are added to it.
 *
 * The bounds are stages.h's; beside each function stands the share of the tensor cores' peak (989
 * TFLOP/s of an H200) that is predicted for large steps, and what bounds it (tiles.cu). None is
 * measured.
 */
#ifndef WITAN_WORKER_CUDA_TILES_H
#define WITAN_WORKER_CUDA_TILES_H

#include "worker/cuda/stages.h"

#include <stdbool.h>

/* A stage's size: `groups` of `tokens` each, each group with its own `rows` x `cols` weights. */
struct tiles_work {
    int64_t groups, tokens, rows, cols;
    bool exact; /* leaves are added in fp64 */
};

/* The tokens of the tiles that are expected to be fastest, or 0: the kernels of products.cu are.
 */
int tiles_choose(struct tiles_work work);

/* 50 % at 256 tokens, 37 % at 128, 25 % at 64: what the L2 cache feeds. */
int tiles_gemm(int tokens, const cuda_bf16 *x, const int32_t *index, int32_t m,
               const struct cuda_part *parts, int32_t count, cuda_stream stream);

/* 19 % at 128 tokens: the L2 cache, then conversions and additions in fp64 that nothing hides. */
int tiles_gemm_leaf(int tokens, const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaf,
                    int32_t leaves, double *sum, unsigned long long *out_of_range,
                    cuda_stream stream);

/* As tiles_gemm, less what is empty in each expert's last tile: at 512 slots an expert about 10 %.
 * The grid is the worst case of `slots` over `count` experts, whatever route holds. */
int tiles_ffn_up(int tokens, const struct cuda_ffn *ffn, int32_t count, int32_t slots,
                 int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                 cuda_bf16 *h, cuda_stream stream);

/* As tiles_gemm_leaf, with fewer empty places than tiles_ffn_up, and an fp64
 * atomic for each element of a slot. */
int tiles_ffn_down(int tokens, const struct cuda_ffn *ffn, int32_t count, int32_t slots,
                   int32_t columns, int32_t hidden, struct cuda_route route, int32_t leaves,
                   const cuda_bf16 *h, double *sum, unsigned long long *out_of_range,
                   cuda_stream stream);

#endif
