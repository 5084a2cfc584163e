/* What attention's kernels share (stages.h says what they compute): tiles of K and V in shared
 * memory, products with them, and the joining of a row's splits. */
#ifndef WITAN_WORKER_CUDA_ATTENTION_CUH
#define WITAN_WORKER_CUDA_ATTENTION_CUH

#include "worker/cuda/common.cuh"

enum {
    ATTENTION_PITCH = CUDA_KV_BLOCK + 8, /* of K in shared memory: no bank conflicts */
    ATTENTION_RUN = 128,                 /* a block's pairs of row and query head, of a run */
};

/* Of a launch: parts (heads of rows x splits) and units whose splits are counted. */
static const int64_t ATTENTION_PARTS = 65536, ATTENTION_UNITS = CUDA_ATTENTION_ZEROS / 4;

struct attention_job {
    cuda_batch b;
    cuda_attention a;
    const cuda_bf16 *q;
    cuda_kv kv;
    unsigned *arrived; /* [units]: splits that are done; zero before and after a launch */
    float *o;          /* [parts, row]: weighted values */
    float2 *ml;        /* [parts]: maximum, sum of weights */
    cuda_bf16 *out;
    int32_t first, splits; /* the launch's first; splits of the longest row */
};

/* Launches the batch's runs (attention_runs.cu); j but for o, ml and first. */
int attention_runs(attention_job j, cuda_stream stream);

/* Elements of one tile in shared memory: K [ROW][ATTENTION_PITCH], V [CUDA_KV_BLOCK][ROW + 8]. Bank
 * conflicts, as the emulator counts them in whole tiles: none where ROW is 64 or 128; else copies
 * of V that go on in the next row take some passes more, of all a run's passes 3 % at 96 and 5 % at
 * 80. */
template <int ROW> struct attention_tile {
    enum { v = ROW * ATTENTION_PITCH, elements = v + CUDA_KV_BLOCK * (ROW + 8) };
};

/* An int8 tile as it lies in the cache: codes of K, their scales, the same of V. */
template <int ROW> struct int8_tile {
    enum {
        scales = CUDA_KV_BLOCK / 2 * ROW, /* elements of bf16 from K's, or V's, begin */
        v = scales + CUDA_KV_BLOCK * ((ROW + CUDA_KV8_GROUP - 1) / CUDA_KV8_GROUP),
        elements = 2 * v,
    };
};

/* A block of THREADS begins to copy the int8 tile of positions `at` on to `raw`. */
template <int ROW, int THREADS>
DEVICE void load_int8(const attention_job &j, int row, int kv_head, int at, cuda_bf16 *raw)
{
    const int pieces = int8_tile<ROW>::elements / 8;
    const cuda_bf16 *from = kv_tile(j.kv, j.b, row, at, kv_head);
    for (int i = threadIdx.x; i < pieces; i += THREADS)
        cp_async<16>(raw + 8 * i, from + 8 * i, 16);
}

/* Codes 2 i and 2 i + 1 of eight, times their scales. */
DEVICE uint32_t widened(uint2 codes, int i, uint32_t scales)
{
    uint32_t pair = (i < 2 ? codes.x : codes.y) >> (i % 2 * 16);
    return bf16x2_from_f32(__fmul_rn((float)(int8_t)pair, bf16_to_f32((uint16_t)scales)),
                           __fmul_rn((float)(int8_t)(pair >> 8), bf16_to_f32(scales >> 16)));
}

/* It widens the tile that came there into one of bf16, of which `count` positions are the
 * sequence's: as load_tile leaves them. */
template <int ROW, int THREADS>
DEVICE void widen_tile(const cuda_bf16 *raw, int count, cuda_bf16 *k)
{
    const int pieces = ROW * 8;
    cuda_bf16 *v = k + attention_tile<ROW>::v;
    for (int i = threadIdx.x; i < pieces; i += THREADS) {
        int d = i / 8, position = i % 8 * 8;
        const uint2 codes = *(const uint2 *)(raw + 4 * i);
        const uint4 s = *(const uint4 *)(raw + int8_tile<ROW>::scales +
                                         d / CUDA_KV8_GROUP * CUDA_KV_BLOCK + position);
        *(uint4 *)(k + d * ATTENTION_PITCH +
                   position) = make_uint4(widened(codes, 0, s.x), widened(codes, 1, s.y),
                                          widened(codes, 2, s.z), widened(codes, 3, s.w));
    }
    raw += int8_tile<ROW>::v;
    for (int i = threadIdx.x; i < pieces; i += THREADS) {
        int position = i / (ROW / 8), d = i % (ROW / 8) * 8;
        const uint2 codes = *(const uint2 *)(raw + 4 * i);
        uint32_t s = raw[int8_tile<ROW>::scales + d / CUDA_KV8_GROUP * CUDA_KV_BLOCK + position];
        s |= s << 16;
        uint4 x = make_uint4(widened(codes, 0, s), widened(codes, 1, s), widened(codes, 2, s),
                             widened(codes, 3, s));
        if (position >= count)
            x = make_uint4(0, 0, 0, 0);
        *(uint4 *)(v + position * (ROW + 8) + d) = x;
    }
}

/* A block of THREADS begins to copy the tile of positions `at` on, of row's sequence. Positions
 * from `end` on are another sequence's or nobody's: V is zero there, for 0 x NaN were NaN; K may
 * hold up to seven of them, whose scores nobody reads. */
template <int ROW, int THREADS>
DEVICE void load_tile(const attention_job &j, int row, int kv_head, int at, int end, cuda_bf16 *k)
{
    const int pieces = ROW * 8, each = (pieces + THREADS - 1) / THREADS; /* of K, and of V */
    cuda_bf16 *v = k + attention_tile<ROW>::v;
    const cuda_bf16 *from = kv_tile(j.kv, j.b, row, at, kv_head);
#pragma unroll
    for (int n = 0; n < each; n++) {
        int i = threadIdx.x + n * THREADS;
        if (pieces % THREADS == 0 || i < pieces)
            cp_async<16>(k + i / 8 * ATTENTION_PITCH + i % 8 * 8, from + 8 * i,
                         at + i % 8 * 8 < end ? 16 : 0);
    }
    from += ROW * CUDA_KV_BLOCK;
#pragma unroll
    for (int n = 0; n < each; n++) {
        int i = threadIdx.x + n * THREADS, position = i / (ROW / 8), piece = i % (ROW / 8);
        if (pieces % THREADS == 0 || i < pieces)
            cp_async<16>(v + position * (ROW + 8) + piece * 8, from + 8 * i,
                         at + position < end ? 16 : 0);
    }
}

/* Tiles come one after the other through two buffers in shared memory: of bf16 in turn, of int8 as
 * they lie in the second and widened in the first. Begins to copy the tile of `at`,
 * if it is before `end`. */
template <int ROW, int THREADS, bool INT8>
DEVICE void next_tile(const attention_job &j, int row, int kv_head, int at, int end,
                      cuda_bf16 *tiles, int turn)
{
    const int buffer = attention_tile<ROW>::elements;
    if (at < end && INT8)
        load_int8<ROW, THREADS>(j, row, kv_head, at, tiles + buffer);
    else if (at < end)
        load_tile<ROW, THREADS>(j, row, kv_head, at, end, tiles + turn * buffer);
    cp_async_commit();
}

/* Waits for the tile of `at`, that was begun last, and begins to copy the next one. */
template <int ROW, int THREADS, bool INT8>
DEVICE const cuda_bf16 *take_tile(const attention_job &j, int row, int kv_head, int at, int end,
                                  cuda_bf16 *tiles, int turn)
{
    const int buffer = attention_tile<ROW>::elements;
    cp_async_wait_all();
    __syncthreads();
    if (INT8) {
        widen_tile<ROW, THREADS>(tiles + buffer, end - at, tiles);
        __syncthreads();
    }
    next_tile<ROW, THREADS, INT8>(j, row, kv_head, at + CUDA_KV_BLOCK, end, tiles, turn ^ 1);
    return tiles + (INT8 ? 0 : turn * buffer);
}

/* d[n] += a . b for the 16 rows of b from `b` on and its 16 columns 8 n .. + 7. */
DEVICE void multiply(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4], const cuda_bf16 *b,
                     int pitch)
{
    int lane = lane_id();
    uint32_t r[4];
    ldmatrix_x4_trans(r, b + lane % 16 * pitch + lane / 16 * 8);
    const uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
    mma_m16n8k16_bf16(d0, a, low);
    mma_m16n8k16_bf16(d1, a, high);
}

/* The weighted mean; a zero is +0, so that no bit tells how many zeros were added to it. */
DEVICE float attention_mean(float o, float l)
{
    return __fadd_rn(__fdiv_rn(o, l), 0.0f);
}

DEVICE void put_pair(cuda_bf16 *out, float low, float high, float l)
{
    *(uint32_t *)out = bf16x2_from_f32(attention_mean(low, l), attention_mean(high, l));
}

/* Whether this block is the last of its unit's `splits` to come here; it may then read what the
 * others wrote. */
DEVICE bool last_split(unsigned *arrived, int splits)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(arrived, 1u) == (unsigned)splits - 1;
        if (last)
            atomicExch(arrived, 0u);
        __threadfence();
    }
    __syncthreads();
    return last;
}

/* m, l, o of the positions so far, and x (with its own m, l) of the split that follows. */
struct attention_factors {
    float mine, other;
};
DEVICE attention_factors join_sums(float &m, float &l, float2 ml)
{
    float top = max(m, ml.x);
    attention_factors f = {detmath_expf(__fsub_rn(m, top)), detmath_expf(__fsub_rn(ml.x, top))};
    m = top;
    l = __fmaf_rn(ml.y, f.other, __fmul_rn(l, f.mine));
    return f;
}
DEVICE float join_values(float o, float x, attention_factors f)
{
    return __fmaf_rn(x, f.other, __fmul_rn(o, f.mine));
}

/* Columns d .. d + 3 of one head of a row, whose parts are [at, at + splits). out: of the head. */
DEVICE void join_splits(const attention_job &j, size_t at, int splits, int d, cuda_bf16 *out)
{
    float2 first = j.ml[at];
    float m = first.x, l = first.y;
    const float *from = j.o + at * j.a.row + d;
    float4 o = *(const float4 *)from;
#pragma unroll 8
    for (int i = 1; i < splits; i++) {
        attention_factors f = join_sums(m, l, j.ml[at + i]);
        float4 x = *(const float4 *)(from + (size_t)i * j.a.row);
        o.x = join_values(o.x, x.x, f), o.y = join_values(o.y, x.y, f);
        o.z = join_values(o.z, x.z, f), o.w = join_values(o.w, x.w, f);
    }
    if (d < j.a.head_dim)
        put_pair(out + d, o.x, o.y, l);
    if (d + 2 < j.a.head_dim)
        put_pair(out + d + 2, o.z, o.w, l);
}

#endif
