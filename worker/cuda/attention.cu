/* Attention over the paged cache: see stages.h. A block takes one row, one KV head (at most HEADS
 * of the query heads that read it, which are the rows of one mma) and one split, tile after tile
 * with a running maximum; of a row with several splits the block that comes last joins them. What a
 * head's bits depend on is its q, its position and the cache alone. */
#include "worker/cuda/attention.cuh"

#include <algorithm>

enum {
    HEADS = 16,
    WARPS = 4, /* each has 16 positions of a tile's scores, every fourth 16 columns of values */
    THREADS = 32 * WARPS,
    PITCH = ATTENTION_PITCH, /* of the weights in shared memory too */
};

/* One block's work: local query heads [head, head + heads), positions [begin, end). */
struct attention_part {
    int row, kv_head, head, heads, begin, end;
};

DEVICE attention_part part_of(const attention_job &j)
{
    const cuda_attention &a = j.a;
    int tiles = (a.group + HEADS - 1) / HEADS;
    attention_part p;
    p.row = j.first + blockIdx.x;
    if (j.b.runs > 0)
        p.row = j.b.unit[j.b.runs + p.row].row;
    p.kv_head = blockIdx.y / tiles;
    int first = (a.kv_begin + p.kv_head) * a.group, last = first + a.group;
    first += blockIdx.y % tiles * HEADS;
    last = min(min(last, first + HEADS), a.q_begin + a.q_heads) - a.q_begin;
    p.head = max(first, a.q_begin) - a.q_begin;
    p.heads = last - p.head;
    p.begin = blockIdx.z * CUDA_SPLIT;
    p.end = min(p.begin + CUDA_SPLIT, j.b.pos[p.row] + 1);
    return p;
}

/* What a lane holds of heads lane / 4 (h = 0) and lane / 4 + 8 (h = 1). */
template <int STEPS> struct attention_state {
    enum { GROUPS = (STEPS + WARPS - 1) / WARPS };
    uint32_t q[STEPS][4];
    float m[2];            /* the running maximum, the same in all warps */
    float l[2];            /* this lane's part of the sum of weights */
    float o[GROUPS][2][4]; /* columns 16 (warp + WARPS i) .. + 15 */
};

struct attention_exchange { /* between warps */
    __align__(16) cuda_bf16 weight[HEADS * PITCH];
    float of_warp[WARPS][HEADS];
};

template <int STEPS>
DEVICE void load_q(const attention_job &j, const attention_part &p, attention_state<STEPS> &s)
{
    int lane = lane_id();
    const cuda_bf16 *q = j.q + ((size_t)p.row * j.a.q_heads + p.head) * j.a.row;
#pragma unroll
    for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int head = lane / 4 + i % 2 * 8, column = 16 * k + lane % 4 * 2 + i / 2 * 8;
            s.q[k][i] = 0;
            if (head < p.heads)
                s.q[k][i] = *(const uint32_t *)(q + head * 16 * STEPS + column);
        }
}

/* The next tile's weights into x.weight: its first `count` positions. Rescales what was summed up.
 */
template <int STEPS>
DEVICE void weigh(attention_state<STEPS> &s, attention_exchange &x, const cuda_bf16 *k, int count)
{
    int lane = lane_id(), warp = threadIdx.x / 32, column = 16 * warp + lane % 4 * 2;
    float score[2][4] = {};
#pragma unroll
    for (int i = 0; i < STEPS; i++)
        multiply(score[0], score[1], s.q[i], k + 16 * i * PITCH + 16 * warp, PITCH);

    for (int h = 0; h < 2; h++) {
        float top = -INFINITY;
        for (int n = 0; n < 2; n++)
            for (int i = 0; i < 2; i++)
                if (column + 8 * n + i < count)
                    top = max(top, score[n][2 * h + i]);
        top = lanes_max(top, 4);
        if (lane % 4 == 0)
            x.of_warp[warp][lane / 4 + 8 * h] = top;
    }
    __syncthreads();
    for (int h = 0; h < 2; h++) {
        int head = lane / 4 + 8 * h;
        float top = s.m[h];
        for (int w = 0; w < WARPS; w++)
            top = max(top, x.of_warp[w][head]);
        float scale = detmath_expf(__fsub_rn(s.m[h], top));
        s.m[h] = top;
        s.l[h] = __fmul_rn(s.l[h], scale);
        for (int n = 0; n < 2; n++) {
            float e[2];
            for (int i = 0; i < 2; i++)
                e[i] = column + 8 * n + i < count
                           ? detmath_expf(__fsub_rn(score[n][2 * h + i], top))
                           : 0.0f;
            uint32_t pair = bf16x2_from_f32(e[0], e[1]);
            *(uint32_t *)(x.weight + head * PITCH + column + 8 * n) = pair;
            /* The sum is that of the rounded weights, so that they add up to 1. */
            s.l[h] = __fadd_rn(s.l[h], bf16_to_f32((uint16_t)pair));
            s.l[h] = __fadd_rn(s.l[h], bf16_to_f32((uint16_t)(pair >> 16)));
        }
#pragma unroll
        for (int g = 0; g < attention_state<STEPS>::GROUPS; g++)
            for (int n = 0; n < 2; n++)
                for (int i = 0; i < 2; i++)
                    s.o[g][n][2 * h + i] = __fmul_rn(s.o[g][n][2 * h + i], scale);
    }
}

/* o += weights . V */
template <int STEPS>
DEVICE void add_values(attention_state<STEPS> &s, const attention_exchange &x, const cuda_bf16 *v)
{
    const int pitch = 16 * STEPS + 8;
    int lane = lane_id(), warp = threadIdx.x / 32;
#pragma unroll
    for (int k = 0; k < CUDA_KV_BLOCK; k += 16) {
        uint32_t weight[4];
        ldmatrix_x4(weight, x.weight + lane % 16 * PITCH + k + lane / 16 * 8);
#pragma unroll
        for (int g = 0; g < attention_state<STEPS>::GROUPS; g++)
            if (warp + WARPS * g < STEPS)
                multiply(s.o[g][0], s.o[g][1], weight, v + k * pitch + 16 * (warp + WARPS * g),
                         pitch);
    }
}

/* The whole sums of weights, from all lanes and warps. */
template <int STEPS> DEVICE void add_sums(attention_state<STEPS> &s, attention_exchange &x)
{
    int lane = lane_id(), warp = threadIdx.x / 32;
    for (int h = 0; h < 2; h++) { /* the maxima were read before the last barrier */
        float l = lanes_sum(s.l[h], 4);
        if (lane % 4 == 0)
            x.of_warp[warp][lane / 4 + 8 * h] = l;
    }
    __syncthreads();
    for (int h = 0; h < 2; h++) {
        s.l[h] = x.of_warp[0][lane / 4 + 8 * h];
        for (int w = 1; w < WARPS; w++)
            s.l[h] = __fadd_rn(s.l[h], x.of_warp[w][lane / 4 + 8 * h]);
    }
}

/* Where the first part of a local head of this block's row is. */
DEVICE size_t part_at(const attention_job &j, int head)
{
    return ((size_t)blockIdx.x * j.a.q_heads + head) * j.splits;
}

/* A row of one split is done; of several, join goes on. */
template <int STEPS>
DEVICE void store(const attention_job &j, const attention_part &p, const attention_state<STEPS> &s)
{
    int lane = lane_id(), warp = threadIdx.x / 32;
    bool done = j.b.pos[p.row] < CUDA_SPLIT;
    for (int h = 0; h < 2; h++) {
        int head = p.head + lane / 4 + 8 * h;
        if (lane / 4 + 8 * h >= p.heads)
            continue;
        size_t at = part_at(j, head) + blockIdx.z;
        cuda_bf16 *out = j.out + ((size_t)p.row * j.a.q_heads + head) * j.a.head_dim;
        if (!done && warp == 0 && lane % 4 == 0)
            j.ml[at] = make_float2(s.m[h], s.l[h]);
#pragma unroll
        for (int i = 0; i < 2 * attention_state<STEPS>::GROUPS; i++) {
            int g = i / 2, n = i % 2, group = warp + WARPS * g;
            int d = 16 * group + 8 * n + lane % 4 * 2;
            float low = s.o[g][n][2 * h], high = s.o[g][n][2 * h + 1];
            if (done && d < j.a.head_dim)
                put_pair(out + d, low, high, s.l[h]);
            if (!done && group < STEPS)
                *(float2 *)(j.o + at * 16 * STEPS + d) = make_float2(low, high);
        }
    }
}

/* The row's last block joins its splits, if there are several. */
DEVICE void join(const attention_job &j, const attention_part &p)
{
    int splits = j.b.pos[p.row] / CUDA_SPLIT + 1, pieces = j.a.row / 4;
    if (splits == 1 || !last_split(j.arrived + blockIdx.x * gridDim.y + blockIdx.y, splits))
        return;
    for (int i = threadIdx.x; i < p.heads * pieces; i += THREADS) {
        int head = p.head + i / pieces;
        cuda_bf16 *out = j.out + ((size_t)p.row * j.a.q_heads + head) * j.a.head_dim;
        join_splits(j, part_at(j, head), splits, i % pieces * 4, out);
    }
}

template <int STEPS, bool INT8>
static __global__ void __launch_bounds__(THREADS) attend(attention_job j)
{
    const int row = 16 * STEPS;
    SHARED_DYNAMIC(cuda_bf16, tiles); /* [2 buffers][K, V] */
    __shared__ attention_exchange x;
    grid_dependency_wait();
    grid_dependency_launch();
    attention_part p = part_of(j);
    if (p.begin >= p.end || p.heads <= 0)
        return;
    next_tile<row, THREADS, INT8>(j, p.row, p.kv_head, p.begin, p.end, tiles, 0);
    attention_state<STEPS> s = {};
    s.m[0] = s.m[1] = -INFINITY;
    load_q(j, p, s);
    int turn = 0;
    for (int at = p.begin; at < p.end; at += CUDA_KV_BLOCK, turn ^= 1) {
        const cuda_bf16 *k = take_tile<row, THREADS, INT8>(j, p.row, p.kv_head, at, p.end, tiles,
                                                           turn);
        weigh(s, x, k, p.end - at);
        __syncthreads();
        add_values(s, x, k + attention_tile<row>::v);
    }
    add_sums(s, x);
    store(j, p, s);
    join(j, p);
}

template <int STEPS> static int launch_attend(const attention_job &j, dim3 grid, cuda_stream stream)
{
    size_t bytes = 2 * attention_tile<16 * STEPS>::elements * sizeof(cuda_bf16);
    return launch(j.kv.int8 ? attend<STEPS, true> : attend<STEPS, false>,
                  {grid, dim3(THREADS), bytes, (device_stream)stream, true}, j);
}

static int64_t splits_of(int32_t positions)
{
    return ((int64_t)positions + CUDA_SPLIT - 1) / CUDA_SPLIT;
}

/* Rows of a launch with `parts` each and `heads` units each. */
static int64_t most_rows(int64_t parts, int64_t heads)
{
    int64_t rows = ATTENTION_PARTS / parts, units = ATTENTION_UNITS / heads;
    rows = rows < units ? rows : units;
    return rows > 0 ? rows : 1;
}

int cuda_attention_run(const struct cuda_batch *b, const struct cuda_attention *a,
                       const cuda_bf16 *q, struct cuda_kv kv, void *partial, cuda_bf16 *out,
                       cuda_stream stream)
{
    static int (*const by_row[])(const attention_job &, dim3, cuda_stream) = {
        launch_attend<1>, launch_attend<2>, launch_attend<3>, launch_attend<4>,
        launch_attend<5>, launch_attend<6>, launch_attend<7>, launch_attend<8>};
    if (b->rows == 0 || a->q_heads == 0)
        return 0;
    int64_t splits = splits_of(b->longest), parts = a->q_heads * splits;
    unsigned heads = (unsigned)(a->kv_heads * ((a->group + HEADS - 1) / HEADS));
    int64_t alone = b->runs > 0 ? b->alone : b->rows;
    int64_t at_once = splits == 1 ? alone : most_rows(parts, heads);
    attention_job j = {*b, *a, q, kv, (unsigned *)partial, NULL, NULL, out, 0, (int32_t)splits};
    int e = attention_runs(j, stream);
    for (int64_t row = 0; row < alone && e == 0; row += at_once) {
        int64_t rows = alone - row < at_once ? alone - row : at_once;
        j.first = (int32_t)row;
        if (splits > 1) {
            j.o = (float *)(j.arrived + ATTENTION_UNITS);
            j.ml = (float2 *)(j.o + rows * parts * a->row);
        }
        dim3 grid((unsigned)rows, heads, (unsigned)splits);
        e = by_row[a->row / 16 - 1](j, grid, stream);
    }
    return e;
}

/* Rows of a run that one block takes. */
static int32_t run_rows(const struct cuda_attention *a)
{
    int32_t heads = a->group < a->q_heads ? a->group : a->q_heads;
    return heads > 0 && heads < ATTENTION_RUN ? ATTENTION_RUN / heads : 1;
}

int32_t cuda_attention_units(const struct cuda_attention *a, int32_t rows, const int32_t *pos,
                             const int32_t *table, struct cuda_unit *unit, int32_t *alone)
{
    int32_t most = run_rows(a), runs = 0, single = 0;
    for (int32_t i = 0, n; i < rows; i += n) {
        for (n = 1; n < most && i + n < rows; n++)
            if (table[i + n] != table[i] || pos[i + n] != pos[i] + n)
                break;
        if (n > 1)
            unit[runs++] = {i, n};
        else
            unit[rows - ++single] = {i, 1};
    }
    std::reverse(unit, unit + runs);
    std::reverse(unit + rows - single, unit + rows);
    std::move(unit + rows - single, unit + rows, unit + runs);
    *alone = single;
    return runs;
}

uint64_t cuda_attention_bytes(int32_t rows, int32_t context, const struct cuda_attention *a)
{
    int64_t splits = splits_of(context), one = a->q_heads * splits;
    if (rows == 0 || splits <= 1)
        return 0;
    int64_t run = ATTENTION_RUN * splits, most = rows * one > rows / 2 * a->kv_heads * run
                                                     ? rows * one
                                                     : rows / 2 * a->kv_heads * run;
    int64_t parts = most < ATTENTION_PARTS ? most : ATTENTION_PARTS;
    parts = parts > one ? parts : one;
    parts = rows > 1 && parts < run ? run : parts;
    return CUDA_ATTENTION_ZEROS + (uint64_t)parts * (uint64_t)(a->row + 2) * sizeof(float);
}
