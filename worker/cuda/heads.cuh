/* What happens to a head of q, k or v between its product and attention (stages.h, cuda_qkv). A
 * warp a head of a row; a lane has up to PAIRS pairs (d, d + half). */
#ifndef WITAN_WORKER_CUDA_HEADS_CUH
#define WITAN_WORKER_CUDA_HEADS_CUH

#include "worker/cuda/common.cuh"
#include "worker/cuda/norm.cuh"

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
