/*
 * Attention of rows that follow one another in a sequence: see stages.h. A block takes up to
 * ATTENTION_RUN pairs of such a row and a query head of one KV head, a warp 16 of them, which are
 * the rows of its mma; tiles of K and V go through shared memory once for all. A pair goes through
 * the very operations that attention.cu takes it through, in their order: a warp has all 64
 * positions of a tile, but sums weights apart for each 16 of them, as four warps do there.
 *
 * Where there are blocks enough each goes over all of its positions and joins a split with those
 * before it by way of shared memory; else a block takes one split, and the last one joins them.
 */
#include "worker/cuda/attention.cuh"

enum {
    WARPS = ATTENTION_RUN / 16,
    THREADS = 32 * WARPS,
    /* Blocks that fill a large GPU, each going over all of its positions. */
    ENOUGH_BLOCKS = 128,
    PITCH = ATTENTION_PITCH,
};

/* One block's work: local query heads [head, head + heads) of rows [row, row + rows) of the batch,
 * the first at position `pos`; positions [begin, end). A pair is row x heads + head. */
struct run_part {
    int row, rows, kv_head, head, heads, pos, begin, end;
};

/* What a lane holds of pairs 16 warp + lane / 4 (h = 0) and the eighth after it (h = 1). */
template <int STEPS> struct run_state {
    uint32_t q[STEPS][4];
    int pos[2];            /* -1: there is no such pair */
    float m[2];            /* the running maximum */
    float l[2][4];         /* this lane's part of the sum of weights, of each 16 positions */
    float o[2 * STEPS][4]; /* columns 8 n .. + 7 */
};

/* Of the splits so far. */
struct run_sums {
    float m[2], l[2];
};

DEVICE run_part run_part_of(const attention_job &j)
{
    const cuda_attention &a = j.a;
    int pair = j.first + blockIdx.x;
    const cuda_unit unit = j.b.unit[pair / a.kv_heads];
    run_part p;
    p.row = unit.row, p.rows = unit.rows, p.kv_head = pair % a.kv_heads;
    int first = (a.kv_begin + p.kv_head) * a.group - a.q_begin;
    p.head = max(first, 0);
    p.heads = min(first + a.group, a.q_heads) - p.head;
    p.pos = j.b.pos[p.row];
    p.begin = blockIdx.z * CUDA_SPLIT;
    p.end = p.pos + p.rows;
    if (j.o)
        p.end = min(p.begin + CUDA_SPLIT, p.end);
    return p;
}

/* The position of a pair, or -1. */
DEVICE int position(const run_part &p, int pair)
{
    return pair < p.rows * p.heads ? p.pos + pair / p.heads : -1;
}

DEVICE int lane_pair(int h)
{
    return threadIdx.x / 32 * 16 + lane_id() / 4 + 8 * h;
}

template <int STEPS> DEVICE void split_begins(run_state<STEPS> &s)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        s.m[h] = -INFINITY;
#pragma unroll
        for (int w = 0; w < 4; w++)
            s.l[h][w] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s.o[n][i] = 0.0f;
}

template <int STEPS>
DEVICE void load_run(const attention_job &j, const run_part &p, run_state<STEPS> &s)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int pair = lane_pair(h), row = pair / p.heads, head = pair % p.heads;
        s.pos[h] = position(p, pair);
        const cuda_bf16 *q = j.q + ((size_t)(p.row + row) * j.a.q_heads + p.head + head) * j.a.row +
                             lane_id() % 4 * 2;
#pragma unroll
        for (int k = 0; k < STEPS; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                s.q[k][h + 2 * i] = s.pos[h] < 0 ? 0 : *(const uint32_t *)(q + 16 * k + 8 * i);
    }
}

/* The weights of the tile from position `at` on, as A of the products with V. Rescales what was
 * summed up. MASKED: some pair of the warp does not see all of the tile; one that sees nothing
 * stays as it is. */
template <int STEPS, bool MASKED>
DEVICE void weigh(run_state<STEPS> &s, uint32_t (&weight)[4][4], const cuda_bf16 *k, int at)
{
    float score[8][4] = {}, scale[2];
#pragma unroll
    for (int i = 0; i < STEPS; i++)
#pragma unroll
        for (int n = 0; n < 4; n++)
            multiply(score[2 * n], score[2 * n + 1], s.q[i], k + 16 * i * PITCH + 16 * n, PITCH);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int count = s.pos[h] + 1 - at - lane_id() % 4 * 2;
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++)
                if (!MASKED || 8 * n + i < count)
                    top = max(top, score[n][2 * h + i]);
        top = max(s.m[h], lanes_max(top, 4));
        scale[h] = MASKED && s.pos[h] < at ? 1.0f : detmath_expf(__fsub_rn(s.m[h], top));
        s.m[h] = top;
#pragma unroll
        for (int w = 0; w < 4; w++)
            s.l[h][w] = __fmul_rn(s.l[h][w], scale[h]);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            float e[2];
#pragma unroll
            for (int i = 0; i < 2; i++)
                e[i] = !MASKED || 8 * n + i < count
                           ? detmath_expf(__fsub_rn(score[n][2 * h + i], top))
                           : 0.0f;
            uint32_t pair = bf16x2_from_f32(e[0], e[1]);
            weight[n / 2][n % 2 * 2 + h] = pair;
            s.l[h][n / 2] = __fadd_rn(s.l[h][n / 2], bf16_to_f32((uint16_t)pair));
            s.l[h][n / 2] = __fadd_rn(s.l[h][n / 2], bf16_to_f32((uint16_t)(pair >> 16)));
        }
    }
    /* Most tiles have no new maximum. */
    if (__any_sync(ALL_LANES, scale[0] != 1.0f || scale[1] != 1.0f)) {
#pragma unroll
        for (int n = 0; n < 2 * STEPS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s.o[n][i] = __fmul_rn(s.o[n][i], scale[i / 2]);
    }
}

/* o += weights . V. What a pair does not see has weight 0 and must be finite. */
template <int STEPS>
DEVICE void add_values(run_state<STEPS> &s, const uint32_t (&weight)[4][4], const cuda_bf16 *v)
{
    const int pitch = 16 * STEPS + 8;
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int n = 0; n < STEPS; n++)
            multiply(s.o[2 * n], s.o[2 * n + 1], weight[k], v + 16 * k * pitch + 16 * n, pitch);
}

/* The same where V has infinities or NaN: position by position of the warp's pairs, [low, high],
 * with zeros for what those at this one do not see. */
template <int STEPS>
DEVICE void add_values_apart(run_state<STEPS> &s, const uint32_t (&weight)[4][4],
                             const cuda_bf16 *v, int at, int low, int high)
{
    const int pitch = 16 * STEPS + 8;
    int lane = lane_id();
    for (int pos = max(low, at); pos <= high; pos++) {
        int count = pos + 1 - at - lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < STEPS; n++) {
            float d[2][4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                d[0][i] = s.o[2 * n][i], d[1][i] = s.o[2 * n + 1][i];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint32_t r[4];
                ldmatrix_x4_trans(r, v + (16 * k + lane % 16) * pitch + 16 * n + lane / 16 * 8);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    r[i] &= (16 * k + i % 2 * 8 < count ? 0xffffu : 0) |
                            (16 * k + i % 2 * 8 + 1 < count ? 0xffff0000u : 0);
                const uint32_t low_columns[2] = {r[0], r[1]}, high_columns[2] = {r[2], r[3]};
                mma_m16n8k16_bf16(d[0], weight[k], low_columns);
                mma_m16n8k16_bf16(d[1], weight[k], high_columns);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (s.pos[i / 2] == pos)
                    s.o[2 * n][i] = d[0][i], s.o[2 * n + 1][i] = d[1][i];
        }
    }
}

DEVICE bool not_finite(uint32_t pair)
{
    return (pair & 0x7f80u) == 0x7f80u || (pair & 0x7f800000u) == 0x7f800000u;
}

/* Whether this thread's share of V has infinities or NaN. */
template <int ROW> DEVICE bool odd_values(const cuda_bf16 *v)
{
    bool odd = false;
    for (int i = threadIdx.x; i < ROW * 8; i += THREADS) {
        const uint4 x = *(const uint4 *)(v + i / (ROW / 8) * (ROW + 8) + i % (ROW / 8) * 8);
        odd |= not_finite(x.x) || not_finite(x.y) || not_finite(x.z) || not_finite(x.w);
    }
    return odd;
}

/* A pair's whole sum of weights, from its lanes. */
DEVICE float whole_sum(const float (&l)[4])
{
    float sum = lanes_sum(l[0], 4);
#pragma unroll
    for (int w = 1; w < 4; w++)
        sum = __fadd_rn(sum, lanes_sum(l[w], 4));
    return sum;
}

/* The split that began at `begin` joins those before it, whose values are `kept`: into s.o, t. */
template <int STEPS>
DEVICE void join_run(run_state<STEPS> &s, run_sums &t, const float4 *kept, int begin)
{
    attention_factors f[2] = {};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float l = whole_sum(s.l[h]);
        if (begin == 0)
            t.m[h] = s.m[h], t.l[h] = l;
        else if (s.pos[h] >= begin)
            f[h] = join_sums(t.m[h], t.l[h], make_float2(s.m[h], l));
    }
    if (begin == 0)
        return;
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++) {
        const float4 v = kept[n * THREADS + threadIdx.x];
        const float before[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            s.o[n][i] = s.pos[i / 2] >= begin ? join_values(before[i], s.o[n][i], f[i / 2])
                                              : before[i];
    }
}

template <int STEPS> DEVICE void keep(const run_state<STEPS> &s, float4 *kept)
{
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++)
        kept[n * THREADS + threadIdx.x] = make_float4(s.o[n][0], s.o[n][1], s.o[n][2], s.o[n][3]);
}

DEVICE cuda_bf16 *run_out(const attention_job &j, const run_part &p, int pair)
{
    size_t row = p.row + pair / p.heads, head = p.head + pair % p.heads;
    return j.out + (row * j.a.q_heads + head) * j.a.head_dim;
}

/* Where the first part of one of this block's pairs is. */
DEVICE size_t run_part_at(const attention_job &j, int pair)
{
    return ((size_t)blockIdx.x * ATTENTION_RUN + pair) * j.splits;
}

/* What is done goes out; of pairs with several splits in several blocks, their parts. */
template <int STEPS>
DEVICE void store(const attention_job &j, const run_part &p, const run_state<STEPS> &s,
                  const run_sums &t)
{
    int lane = lane_id();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int pair = lane_pair(h);
        bool done = !j.o || s.pos[h] < CUDA_SPLIT;
        if (s.pos[h] < p.begin)
            continue;
        size_t at = run_part_at(j, pair) + blockIdx.z;
        if (!done && lane % 4 == 0)
            j.ml[at] = make_float2(t.m[h], t.l[h]);
        cuda_bf16 *out = run_out(j, p, pair);
#pragma unroll
        for (int n = 0; n < 2 * STEPS; n++) {
            int d = 8 * n + lane % 4 * 2;
            float low = s.o[n][2 * h], high = s.o[n][2 * h + 1];
            if (done && d < j.a.head_dim)
                put_pair(out + d, low, high, t.l[h]);
            if (!done)
                *(float2 *)(j.o + at * 16 * STEPS + d) = make_float2(low, high);
        }
    }
}

/* The unit's last block joins splits of pairs that have several. */
DEVICE void join(const attention_job &j, const run_part &p)
{
    int most = (p.pos + p.rows - 1) / CUDA_SPLIT + 1, pieces = j.a.row / 4;
    if (!j.o || most == 1 || !last_split(j.arrived + blockIdx.x, most))
        return;
    for (int i = threadIdx.x; i < p.rows * p.heads * pieces; i += THREADS) {
        int pair = i / pieces, splits = position(p, pair) / CUDA_SPLIT + 1;
        if (splits > 1)
            join_splits(j, run_part_at(j, pair), splits, i % pieces * 4, run_out(j, p, pair));
    }
}

template <int STEPS, bool INT8>
static __global__ void __launch_bounds__(THREADS, 1) attend_run(attention_job j)
{
    const int row = 16 * STEPS, buffer = attention_tile<row>::elements;
    SHARED_DYNAMIC(cuda_bf16, tiles); /* [2 buffers][K, V], what join_run keeps */
    float4 *kept = (float4 *)(tiles + 2 * buffer);
    grid_dependency_wait();
    grid_dependency_launch();
    const run_part p = run_part_of(j);
    if (p.begin >= p.end || p.heads <= 0)
        return;
    /* Positions of the warp's pairs: [low, high]; none where low > high. */
    int first = (int)threadIdx.x / 32 * 16, low = p.pos + first / p.heads;
    int high = p.pos + min((first + 15) / p.heads, p.rows - 1);
    next_tile<row, THREADS, INT8>(j, p.row, p.kv_head, p.begin, p.end, tiles, 0);
    run_state<STEPS> s;
    run_sums t = {};
    load_run(j, p, s);
    split_begins(s);
    int turn = 0, split = p.begin;
    for (int at = p.begin; at < p.end; at += CUDA_KV_BLOCK, turn ^= 1) {
        const cuda_bf16 *k = take_tile<row, THREADS, INT8>(j, p.row, p.kv_head, at, p.end, tiles,
                                                           turn);
        const cuda_bf16 *v = k + attention_tile<row>::v;
        bool odd = false;
        if (at + CUDA_KV_BLOCK > p.pos + 1) /* the same for all threads */
            odd = __syncthreads_or(odd_values<row>(v));
        if (max(low, at) > high)
            continue;
        if (at == split + CUDA_SPLIT) {
            join_run(s, t, kept, split);
            keep(s, kept);
            split_begins(s);
            split = at;
        }
        uint32_t weight[4][4];
        if (at + CUDA_KV_BLOCK <= low + 1)
            weigh<STEPS, false>(s, weight, k, at);
        else
            weigh<STEPS, true>(s, weight, k, at);
        if (odd && at + CUDA_KV_BLOCK > low + 1)
            add_values_apart(s, weight, v, at, low, high);
        else
            add_values(s, weight, v);
    }
    join_run(s, t, kept, j.o ? 0 : split);
    store(j, p, s, t);
    join(j, p);
}

template <int STEPS>
static int launch_run(const attention_job &j, dim3 grid, bool keeps, cuda_stream stream)
{
    size_t bytes = 2 * attention_tile<16 * STEPS>::elements * sizeof(cuda_bf16);
    bytes += keeps ? 2 * STEPS * THREADS * sizeof(float4) : 0;
    return launch(j.kv.int8 ? attend_run<STEPS, true> : attend_run<STEPS, false>,
                  {grid, dim3(THREADS), bytes, (device_stream)stream, true}, j);
}

int attention_runs(attention_job j, cuda_stream stream)
{
    static int (*const by_row[])(const attention_job &, dim3, bool, cuda_stream) = {
        launch_run<1>, launch_run<2>, launch_run<3>, launch_run<4>,
        launch_run<5>, launch_run<6>, launch_run<7>, launch_run<8>};
    int64_t units = (int64_t)j.b.runs * j.a.kv_heads, parts = (int64_t)ATTENTION_RUN * j.splits;
    bool whole = j.splits == 1 || units >= ENOUGH_BLOCKS;
    int64_t at_once = whole ? units : parts < ATTENTION_PARTS ? ATTENTION_PARTS / parts : 1;
    for (int64_t first = 0; first < units; first += at_once) {
        int64_t count = units - first < at_once ? units - first : at_once;
        j.first = (int32_t)first;
        j.o = whole ? NULL : (float *)(j.arrived + ATTENTION_UNITS);
        j.ml = whole ? NULL : (float2 *)(j.o + count * parts * j.a.row);
        dim3 grid((unsigned)count, 1, whole ? 1 : (unsigned)j.splits);
        int e = by_row[j.a.row / 16 - 1](j, grid, whole && j.splits > 1, stream);
        if (e)
            return e;
    }
    return 0;
}
