/*
 * Matrix products for steps of many rows that give up the reproducible arithmetic of stages.h for
 * speed: Hopper's wgmma and TMA (hopper.cu), which the emulator does not have. Numerics class
 * "cuda-1-sm90-fast"; chosen by --fast alone. As in stages.h: device pointers, a stream, 0 or
 * CUDA's error, nothing allocated, nothing waited for; on other devices than compute capability 9.0
 * they fail.
 *
 * Arithmetic: activations and weights are bf16; a product adds k in ascending order, sixteen at a
 * time, as wgmma does in fp32. A row's bits depend neither on the number of rows nor on its place
 * among them. What is lost: o_proj and ffn_down are one product over all of a rank's columns, not
 * a sum of leaves, so that another cut into ranks gives other bits, and so does a step of few rows,
 * which goes to the kernels of stages.h. Over ranks sums stay exact: each rank's share is rounded
 * to a multiple of 2^-32 first.
 *
 * Rows of matrices are multiples of 16 bytes apart and begin at such.
 */
#ifndef WITAN_WORKER_CUDA_FAST_H
#define WITAN_WORKER_CUDA_FAST_H

#include "worker/cuda/stages.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows from which on these pay (by sizes alone, not measured), and a rank's experts at most. */
enum { CUDA_FAST_ROWS = 256, CUDA_FAST_EXPERTS = 512 };

/* How TMA finds a matrix: CUDA's CUtensorMap, at a multiple of 64 bytes in device memory. */
struct cuda_map {
    uint64_t opaque[16];
};

struct cuda_fast_ffn {
    struct cuda_map gate, up, down;
};

/* out[count] (of the host, any alignment), to be copied to the device, of ffn[count] (of the host;
 * its pointers are the device's). Calls the driver and touches no device memory. */
int cuda_fast_maps(const struct cuda_ffn *ffn, int32_t count, int32_t columns, int32_t hidden,
                   struct cuda_fast_ffn *out);

/* As cuda_gemm without an index. Bytes: weights and x once, y once; m x rows x cols
 * multiply-adds. */
int cuda_fast_gemm(const cuda_bf16 *x, int32_t m, const struct cuda_part *parts, int32_t count,
                   cuda_stream stream);

/* As cuda_gemm_leaf with one leaf of all columns; sum is written, not added to. Elements not below
 * 2^20 / leaves are counted. */
int cuda_fast_gemm_sum(const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaves,
                       double *sum, unsigned long long *out_of_range, cuda_stream stream);

/* As cuda_ffn_up, for at most CUDA_FAST_EXPERTS, with cuda_fast_maps' maps. packed: workspace of
 * [slots, hidden]: the slots' rows of xn, one after the other, since TMA copies neighbouring rows
 * alone. Bytes: xn's rows of the slots three times besides (read, written, read). */
int cuda_fast_ffn_up(const struct cuda_fast_ffn *maps, int32_t count, int32_t slots,
                     int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                     cuda_bf16 *packed, cuda_bf16 *h, cuda_stream stream);

/* As cuda_ffn_down: y[slots, hidden] fp32, workspace, gets every slot's product; then a row's slots
 * are added as cuda_combine_slots says. Bytes: y twice besides. */
int cuda_fast_ffn_down(int32_t rows, const struct cuda_fast_ffn *maps, int32_t count, int32_t slots,
                       int32_t columns, int32_t hidden, struct cuda_route route, int32_t leaves,
                       const cuda_bf16 *h, float *y, double *sum, unsigned long long *out_of_range,
                       cuda_stream stream);

/* --- what needs no Hopper (slots.cu) --- */

/* out row i = x row index[i], of `cols` bf16, for i below m and, where `live` is not NULL, below
 * *live. Bytes: m x cols x 4. */
int cuda_pack_rows(const cuda_bf16 *x, const int32_t *index, const int32_t *live, int32_t m,
                   int32_t cols, cuda_bf16 *out, cuda_stream stream);

/* sum[rows, hidden] = the sum over a row's slots, experts ascending, of weight x y[slot], in fp32,
 * then rounded to a multiple of 2^-32: bits of the row's slots alone. A row has at most
 * CUDA_MAX_TOP_K slots, the rank at most CUDA_FAST_EXPERTS experts. leaves, *out_of_range: as in
 * cuda_gemm_leaf, of the whole sum. Bytes: slots x hidden x 4 + rows x hidden x 8. */
int cuda_combine_slots(int32_t rows, int32_t count, int32_t hidden, struct cuda_route route,
                       int32_t leaves, const float *y, double *sum,
                       unsigned long long *out_of_range, cuda_stream stream);

#ifdef __cplusplus
}
#endif

#endif
