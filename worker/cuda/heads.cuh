/* What happens to a head of q, k or v between its product and attention (stages.h, cuda_qkv). A
 * warp a head of a row; a lane has up to PAIRS pairs (d, d + half). */
#ifndef WITAN_WORKER_CUDA_HEADS_CUH
#define WITAN_WORKER_CUDA_HEADS_CUH

#include "worker/cuda/common.cuh"
#include "worker/cuda/norm.cuh"
#include "worker/kv8_inline.h"

enum { PAIRS = CUDA_MAX_HEAD / 2 / 32 };

struct head_job {
    cuda_batch b;
    cuda_attention a;
    const float *q_norm, *k_norm, *rope;
    cuda_bf16 *q;
    cuda_kv kv;
    float q_scale;
};

static inline struct head_job head_job_of(const struct cuda_batch *b,
                                          const struct cuda_attention *a, const float *q_norm,
                                          const float *k_norm, const float *rope, cuda_bf16 *q,
                                          struct cuda_kv kv)
{
    float q_scale = 1.0f / __builtin_sqrtf((float)a->head_dim);
    return {*b, *a, q_norm, k_norm, rope, q, kv, q_scale};
}

/* A head normed (where `norm` is not NULL) and rotated: y[p][0] is element d = lane + 32 p, y[p][1]
 * element d + half. */
DEVICE void norm_and_rotate(const float *x, const float *norm, const float *rope, int head_dim,
                            float eps, float (&y)[PAIRS][2])
{
    int half = head_dim / 2, lane = lane_id();
    float squares = 0.0f;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        int d = lane + 32 * p;
        y[p][0] = d < half ? x[d] : 0.0f;
        y[p][1] = d < half ? x[d + half] : 0.0f;
        squares = __fmaf_rn(y[p][0], y[p][0], squares);
        squares = __fmaf_rn(y[p][1], y[p][1], squares);
    }
    float r = norm ? rms_scale(lanes_sum(squares, 32), head_dim, eps) : 1.0f;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        int d = lane + 32 * p;
        if (d >= half)
            continue;
        float a = norm ? __fmul_rn(norm[d], __fmul_rn(y[p][0], r)) : y[p][0];
        float b = norm ? __fmul_rn(norm[d + half], __fmul_rn(y[p][1], r)) : y[p][1];
        float c = rope[d], s = rope[d + half];
        y[p][0] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
        y[p][1] = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
    }
}

/* to[d * stride] = y, and zeros from head_dim to row. */
DEVICE void put_head(const float (&y)[PAIRS][2], float scale, int head_dim, int row, cuda_bf16 *to,
                     int stride)
{
    int half = head_dim / 2;
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        int d = lane_id() + 32 * p;
        if (d < half) {
            to[d * stride] = bf16_from_f32(__fmul_rn(y[p][0], scale));
            to[(d + half) * stride] = bf16_from_f32(__fmul_rn(y[p][1], scale));
        }
    }
    for (int d = head_dim + lane_id(); d < row; d += 32)
        to[d * stride] = 0;
}

/* One position's K, or V, in int8: element d goes to to[d * stride]; the lane has elements lane +
 * 32 p (y[p][0]) and `half` further on (y[p][1]), where lane + 32 p is below `half`. */
DEVICE void put_head_int8(const float (&y)[PAIRS][2], int half, int row, int8_t *to, int stride,
                          cuda_bf16 *scale)
{
    for (int group = 0; group < kv8_groups(row); group++) {
        uint32_t greatest = 0;
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; i++) {
            int d = lane_id() + 32 * (i / 2);
            if (d < half && (d + i % 2 * half) / CUDA_KV8_GROUP == group)
                greatest = max(greatest, kv8_magnitude(y[i / 2][i % 2]));
        }
        for (int step = 16; step > 0; step /= 2)
            greatest = max(greatest, __shfl_xor_sync(ALL_LANES, greatest, step));
        float s = kv8_scale(greatest);
        if (lane_id() == 0)
            scale[group * CUDA_KV_BLOCK] = bf16_from_f32(s);
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; i++) {
            int d = lane_id() + 32 * (i / 2), at = d + i % 2 * half;
            if (d < half && at / CUDA_KV8_GROUP == group)
                to[at * stride] = kv8_code(y[i / 2][i % 2], s);
        }
    }
    for (int d = 2 * half + lane_id(); d < row; d += 32)
        to[d * stride] = 0;
}

/* A head of k or v in an int8 cache, from its product. */
DEVICE void head_finish_int8(const head_job &j, int row, int pos, int head, const float *from)
{
    const cuda_attention &a = j.a;
    bool of_k = head < a.kv_heads;
    int half = a.head_dim / 2, slot = pos % CUDA_KV_BLOCK;
    cuda_bf16 *tile = kv_tile(j.kv, j.b, row, pos, of_k ? head : head - a.kv_heads);
    tile += of_k ? 0 : kv_tile_size(j.kv);
    int8_t *to = (int8_t *)tile + (of_k ? slot : slot * a.row);
    float y[PAIRS][2];
    if (of_k) {
        norm_and_rotate(from, j.k_norm, j.rope + (size_t)row * a.head_dim, a.head_dim, a.eps, y);
    } else {
#pragma unroll
        for (int i = 0; i < 2 * PAIRS; i++) {
            int d = lane_id() + 32 * (i / 2);
            y[i / 2][i % 2] = d < half ? from[d + i % 2 * half] : 0.0f;
        }
    }
    put_head_int8(y, half, a.row, to, of_k ? CUDA_KV_BLOCK : 1,
                  tile + CUDA_KV_BLOCK / 2 * a.row + slot);
}

/* Head `head` of q's, then k's, then v's of a row, from its product. */
DEVICE void head_finish(const head_job &j, int row, int head, const float *from)
{
    const cuda_attention &a = j.a;
    const float *rope = j.rope + (size_t)row * a.head_dim;
    float y[PAIRS][2];
    if (head < a.q_heads) {
        norm_and_rotate(from, j.q_norm, rope, a.head_dim, a.eps, y);
        put_head(y, j.q_scale, a.head_dim, a.row, j.q + ((size_t)row * a.q_heads + head) * a.row,
                 1);
        return;
    }
    if (j.b.live && row >= *j.b.live)
        return;
    head -= a.q_heads;
    int pos = j.b.pos[row], slot = pos % CUDA_KV_BLOCK, kv_head = head % a.kv_heads;
    if (j.kv.int8) {
        head_finish_int8(j, row, pos, head, from);
        return;
    }
    cuda_bf16 *k = kv_tile(j.kv, j.b, row, pos, kv_head), *v = k + CUDA_KV_BLOCK * a.row;
    if (head < a.kv_heads) {
        norm_and_rotate(from, j.k_norm, rope, a.head_dim, a.eps, y);
        put_head(y, 1.0f, a.head_dim, a.row, k + slot, CUDA_KV_BLOCK);
        return;
    }
    for (int d = lane_id(); d < a.row; d += 32)
        v[slot * a.row + d] = d < a.head_dim ? bf16_from_f32(from[d]) : (cuda_bf16)0;
}

#endif
