/* How a row chooses its experts, whichever kernel asks. */
#ifndef WITAN_WORKER_CUDA_ROUTING_CUH
#define WITAN_WORKER_CUDA_ROUTING_CUH

#include "worker/cuda/common.cuh"

/* The order of probabilities as unsigned integers above 0, a NaN the largest: 0 is for those that
 * were chosen before. */
DEVICE unsigned order_of(float p)
{
    return (__float_as_uint(p) & 0x7fffffffu) + 1u;
}

/* The largest of a warp's keys, the lowest index where several have it. */
DEVICE int arg_max(const unsigned *key, int n)
{
    unsigned best = 0;
    int at = n;
    for (int e = lane_id(); e < n; e += 32)
        if (key[e] > best) {
            best = key[e];
            at = e;
        }
    unsigned top = __reduce_max_sync(ALL_LANES, best);
    return __reduce_min_sync(ALL_LANES, best == top ? at : n);
}

/* A warp's row: its choices and their weights, [top_k] each. key: [experts] of shared memory. */
DEVICE void route_choose(const float *logits, int experts, int top_k, int renormalise,
                         unsigned *key, int32_t *chosen, float *weights)
{
    int lane = lane_id();
    float top = -INFINITY, sum = 0.0f;
    for (int e = lane; e < experts; e += 32)
        top = max(top, logits[e]);
    top = lanes_max(top, 32);
    for (int e = lane; e < experts; e += 32)
        sum = __fadd_rn(sum, detmath_expf(__fsub_rn(logits[e], top)));
    sum = lanes_sum(sum, 32);
    for (int e = lane; e < experts; e += 32)
        key[e] = order_of(__fdiv_rn(detmath_expf(__fsub_rn(logits[e], top)), sum));
    __syncwarp();

    float total = 0.0f, weight = 0.0f; /* of lane k: its k-th choice */
    int expert = 0;
    for (int k = 0; k < top_k; k++) {
        int e = arg_max(key, experts);
        float p = __uint_as_float(key[e] - 1u);
        total = __fadd_rn(total, p);
        weight = lane == k ? p : weight;
        expert = lane == k ? e : expert;
        __syncwarp();
        if (lane == 0)
            key[e] = 0;
        __syncwarp();
    }
    if (lane < top_k) {
        chosen[lane] = expert;
        weights[lane] = renormalise ? __fdiv_rn(weight, total) : weight;
    }
}

#endif
