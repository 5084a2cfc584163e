/* Which experts a row goes to, and the rows of each local expert: see stages.h. */
#include "worker/cuda/routing.cuh"

enum { CHOOSE_WARPS = 4, SORT_THREADS = 1024, SORT_WARPS = SORT_THREADS / 32 };

/* A warp a row. */
static __global__ void __launch_bounds__(32 * CHOOSE_WARPS)
    choose(int32_t rows, int32_t experts, int32_t top_k, int32_t renormalise, const float *logits,
           int32_t *chosen, float *chosen_weight)
{
    SHARED_DYNAMIC(unsigned, keys); /* [CHOOSE_WARPS][experts] */
    grid_dependency_wait();
    grid_dependency_launch();
    int warp = threadIdx.x / 32, row = blockIdx.x * CHOOSE_WARPS + warp;
    if (row >= rows)
        return;
    route_choose(logits + (size_t)row * experts, experts, top_k, renormalise, keys + warp * experts,
                 chosen + (size_t)row * top_k, chosen_weight + (size_t)row * top_k);
}

/* A block an expert, and one for the end. Every block counts the choices of the experts before its
 * own and so knows where its slots begin; each of its warps has a stretch of the choices, whose
 * slots follow those of the warps before. */
static __global__ void __launch_bounds__(SORT_THREADS)
    sort_slots(int32_t choices, int32_t top_k, int32_t begin, const int32_t *chosen,
               const float *chosen_weight, int32_t *first, int32_t *rows, float *weights)
{
    __shared__ int before[SORT_WARPS], own[SORT_WARPS];
    grid_dependency_wait();
    grid_dependency_launch();
    int expert = begin + blockIdx.x, warp = threadIdx.x / 32, lane = lane_id();
    bool end = blockIdx.x == gridDim.x - 1; /* no expert's: `first` alone */
    int stretch = (choices + SORT_THREADS - 1) / SORT_THREADS * 32;
    int from = min(warp * stretch, choices), to = min(from + stretch, choices);

    int less = 0, equal = 0;
    for (int i = from + lane; i < to; i += 32) {
        int e = chosen[i];
        less += e >= begin && e < expert;
        equal += e == expert;
    }
    less = __reduce_add_sync(ALL_LANES, less);
    equal = __reduce_add_sync(ALL_LANES, equal);
    if (lane == 0) {
        before[warp] = less;
        own[warp] = equal;
    }
    __syncthreads();
    int slot = 0, ahead = 0;
    for (int w = 0; w < SORT_WARPS; w++) {
        slot += before[w];
        ahead += w < warp ? own[w] : 0;
    }
    if (threadIdx.x == 0)
        first[blockIdx.x] = slot;
    if (end || equal == 0)
        return;

    slot += ahead;
    for (int i = from; i < to; i += 32) {
        bool mine = i + lane < to && chosen[i + lane] == expert;
        unsigned all = __ballot_sync(ALL_LANES, mine);
        if (mine) {
            int at = slot + __popc(all & ((1u << lane) - 1u));
            rows[at] = (i + lane) / top_k;
            weights[at] = chosen_weight[i + lane];
        }
        slot += __popc(all);
    }
}

int cuda_route_experts(int32_t rows, int32_t experts, int32_t top_k, int32_t renormalise,
                       int32_t begin, int32_t end, const float *logits, struct cuda_route route,
                       cuda_stream stream)
{
    if (rows == 0)
        return 0;
    dim3 grid((unsigned)(rows + CHOOSE_WARPS - 1) / CHOOSE_WARPS);
    size_t bytes = (size_t)CHOOSE_WARPS * (size_t)experts * sizeof(unsigned);
    int e = launch(choose, {grid, dim3(32 * CHOOSE_WARPS), bytes, (device_stream)stream, true},
                   rows, experts, top_k, renormalise, logits, route.chosen, route.chosen_weight);
    if (e)
        return e;
    return launch(sort_slots,
                  {dim3(end - begin + 1), dim3(SORT_THREADS), 0, (device_stream)stream, true},
                  rows * top_k, top_k, begin, route.chosen, route.chosen_weight, route.first,
                  route.row, route.weight);
}

static __global__ void route_dense(int32_t rows, int32_t *first, int32_t *row, float *weight)
{
    grid_dependency_wait();
    grid_dependency_launch();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) {
        first[0] = 0;
        first[1] = rows;
    }
    if (i < rows) {
        row[i] = i;
        weight[i] = 1.0f;
    }
}

int cuda_route_dense(int32_t rows, struct cuda_route route, cuda_stream stream)
{
    if (rows == 0)
        return 0;
    return launch(route_dense,
                  {dim3((unsigned)(rows + 255) / 256), dim3(256), 0, (device_stream)stream, true},
                  rows, route.first, route.row, route.weight);
}
