/* See primitives.cuh. */
#include "tests/simt/primitives.cuh"

#include "worker/cuda/device.cuh"

static const unsigned ALL = 0xffffffffu;

static __global__ void shuffles(const int *x, int by, int width, int *out)
{
    int lane = lane_id(), v = x[lane];
    out[lane] = __shfl_sync(ALL, v, by, width);
    out[32 + lane] = __shfl_up_sync(ALL, v, by, width);
    out[64 + lane] = __shfl_down_sync(ALL, v, by, width);
    out[96 + lane] = __shfl_xor_sync(ALL, v, by, width);
    out[128 + lane] = (int)__shfl_sync(ALL, (double)v + 0.5, by, width);
}

int run_shuffles(const int *x, int by, int width, int *out)
{
    return launch(shuffles, {dim3(1), dim3(32), 0, nullptr, false}, x, by, width, out);
}

static __global__ void votes(const int *x, unsigned mask, int *out)
{
    int lane = lane_id(), v = x[lane];
    for (int i = 0; i < VOTES; i++)
        out[32 * i + lane] = -1;
    if (!(mask >> lane & 1))
        return;
    out[32 * VOTE_BALLOT + lane] = (int)__ballot_sync(mask, v & 1);
    out[32 * VOTE_ANY + lane] = __any_sync(mask, v == 3) != 0;
    out[32 * VOTE_ALL + lane] = __all_sync(mask, v != 3) != 0;
    out[32 * VOTE_MATCH + lane] = (int)__match_any_sync(mask, v);
    out[32 * VOTE_ADD + lane] = __reduce_add_sync(mask, v);
    out[32 * VOTE_MIN + lane] = __reduce_min_sync(mask, v);
    out[32 * VOTE_MAX + lane] = __reduce_max_sync(mask, v);
    out[32 * VOTE_UMIN + lane] = (int)__reduce_min_sync(mask, (unsigned)v);
    out[32 * VOTE_UMAX + lane] = (int)__reduce_max_sync(mask, (unsigned)v);
    out[32 * VOTE_AND + lane] = (int)__reduce_and_sync(mask, (unsigned)v);
    out[32 * VOTE_OR + lane] = (int)__reduce_or_sync(mask, (unsigned)v);
    out[32 * VOTE_XOR + lane] = (int)__reduce_xor_sync(mask, (unsigned)v);
}

int run_votes(const int *x, unsigned mask, int *out)
{
    return launch(votes, {dim3(1), dim3(32), 0, nullptr, false}, x, mask, out);
}

static __global__ void mma(mma_kind kind, const uint32_t *a, const uint32_t *b, uint32_t *d)
{
    int lane = lane_id();
    uint32_t fa[4], fb[2];
    int32_t words[4];
    float numbers[4];
    for (int i = 0; i < 4; i++) {
        fa[i] = a[4 * lane + i];
        words[i] = (int32_t)d[4 * lane + i];
        numbers[i] = __uint_as_float(d[4 * lane + i]);
    }
    for (int i = 0; i < 2; i++)
        fb[i] = b[2 * lane + i];
    if (kind == MMA_BF16)
        mma_m16n8k16_bf16(numbers, fa, fb);
    else if (kind == MMA_F16)
        mma_m16n8k16_f16(numbers, fa, fb);
    else if (kind == MMA_E4M3)
        mma_m16n8k32_e4m3(numbers, fa, fb);
    else
        mma_m16n8k32_s8(words, fa, fb);
    for (int i = 0; i < 4; i++)
        d[4 * lane + i] = kind == MMA_S8 ? (uint32_t)words[i] : __float_as_uint(numbers[i]);
}

int run_mma(enum mma_kind kind, const uint32_t *a, const uint32_t *b, uint32_t *d)
{
    return launch(mma, {dim3(1), dim3(32), 0, nullptr, false}, kind, a, b, d);
}

static __global__ void load_matrix(int count, bool trans, const uint16_t *x, uint32_t *out)
{
    __shared__ __align__(16) uint16_t tile[4 * 64];
    int lane = lane_id();
    for (int i = lane; i < 64 * count; i += 32)
        tile[i] = x[i];
    __syncwarp();
    uint32_t r1[1], r2[2], r4[4], *r = count == 1 ? r1 : count == 2 ? r2 : r4;
    const uint16_t *row = tile + lane % (8 * count) * 8;
    if (count == 1 && !trans)
        ldmatrix_x1(r1, row);
    else if (count == 1)
        ldmatrix_x1_trans(r1, row);
    else if (count == 2 && !trans)
        ldmatrix_x2(r2, row);
    else if (count == 2)
        ldmatrix_x2_trans(r2, row);
    else if (!trans)
        ldmatrix_x4(r4, row);
    else
        ldmatrix_x4_trans(r4, row);
    for (int i = 0; i < count; i++)
        out[lane * count + i] = r[i];
}

int run_ldmatrix(int count, bool trans, const uint16_t *x, uint32_t *out)
{
    return launch(load_matrix, {dim3(1), dim3(32), 0, nullptr, false}, count, trans, x, out);
}

template <int SIZE, bool CACHED>
static __global__ void copies(const uint8_t *x, const int *bytes, uint8_t *out)
{
    SHARED_DYNAMIC(uint8_t, smem); /* [threads][16] */
    int t = threadIdx.x;
    uint8_t *mine = smem + 16 * t;
    for (int i = 0; i < 16; i += SIZE) {
        int left = max(0, min(bytes[t] - i, SIZE));
        if (CACHED)
            cp_async_cached(mine + i, x + 16 * t + i, left);
        else
            cp_async<SIZE>(mine + i, x + 16 * t + i, left);
        cp_async_commit();
        if (i > 0)
            cp_async_wait<1>(); /* all but the one just begun */
        for (int j = 0; j < i; j++)
            out[16 * t + j] = mine[j];
    }
    cp_async_wait_all();
    __syncthreads();
    int other = blockDim.x - 1 - t;
    for (int i = 0; i < 16; i++)
        out[16 * other + i] = smem[16 * other + i];
}

int run_copies(int size, bool cached, const uint8_t *x, const int *bytes, uint8_t *out, int threads)
{
    launch_shape shape = {dim3(1), dim3(threads), (size_t)threads * 16, nullptr, false};
    if (size == 4)
        return launch(copies<4, false>, shape, x, bytes, out);
    if (size == 8)
        return launch(copies<8, false>, shape, x, bytes, out);
    if (cached)
        return launch(copies<16, true>, shape, x, bytes, out);
    return launch(copies<16, false>, shape, x, bytes, out);
}

static __global__ void narrow(const float *x, int n, uint16_t *bf16, uint16_t *f16, uint8_t *e4m3,
                              uint32_t *bf16_pairs, uint32_t *f16_pairs)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        bf16[i] = bf16_from_f32(x[i]);
        f16[i] = f16_from_f32(x[i]);
        e4m3[i] = e4m3_from_f32(x[i]);
        bf16_pairs[i] = bf16x2_from_f32(x[i], x[n - 1 - i]);
        f16_pairs[i] = f16x2_from_f32(x[i], x[n - 1 - i]);
    }
}

int run_narrow(const float *x, int n, uint16_t *bf16, uint16_t *f16, uint8_t *e4m3,
               uint32_t *bf16_pairs, uint32_t *f16_pairs)
{
    return launch(narrow, {dim3(8), dim3(128), 0, nullptr, false}, x, n, bf16, f16, e4m3,
                  bf16_pairs, f16_pairs);
}

static __global__ void bf16_fma(const uint32_t *a, const uint32_t *b, const uint32_t *c, int n,
                                uint32_t *out)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = bf16x2_fma(a[i], b[i], c[i]);
}

int run_bf16_fma(const uint32_t *a, const uint32_t *b, const uint32_t *c, int n, uint32_t *out)
{
    return launch(bf16_fma, {dim3(8), dim3(128), 0, nullptr, false}, a, b, c, n, out);
}

static __global__ void widen(float *bf16, float *f16, float *e4m3)
{
    for (int i = threadIdx.x; i < 65536; i += blockDim.x) {
        bf16[i] = bf16_to_f32((uint16_t)i);
        f16[i] = f16_to_f32((uint16_t)i);
        if (i < 256)
            e4m3[i] = e4m3_to_f32((uint8_t)i);
    }
}

int run_widen(float *bf16, float *f16, float *e4m3)
{
    return launch(widen, {dim3(1), dim3(256), 0, nullptr, false}, bf16, f16, e4m3);
}

static __global__ void atomics(int *cells, unsigned long long *wide, float *sum, double *wide_sum)
{
    int me = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&cells[CELL_ADD], me);
    atomicMin(&cells[CELL_MIN], -me);
    atomicMax(&cells[CELL_MAX], me);
    atomicOr(&cells[CELL_OR], 1 << (me % 31));
    atomicAnd(&cells[CELL_AND], ~(1 << (me % 31)));
    int seen = atomicAdd(&cells[CELL_CAS_MAX], 0);
    while (seen < me) {
        int found = atomicCAS(&cells[CELL_CAS_MAX], seen, me);
        if (found == seen)
            break;
        seen = found;
    }
    atomicAdd(wide, (unsigned long long)atomicExch(&cells[CELL_EXCH], me));
    atomicAdd(sum, 0.5f);
    atomicAdd(wide_sum, 0.25);
}

int run_atomics(int *cells, unsigned long long *wide, float *sum, double *wide_sum, int blocks,
                int threads)
{
    return launch(atomics, {dim3(blocks), dim3(threads), 0, nullptr, false}, cells, wide, sum,
                  wide_sum);
}

static __global__ void block_votes(const int *x, int *out)
{
    int v = x[threadIdx.x];
    int count = __syncthreads_count(v), any = __syncthreads_or(v), all = __syncthreads_and(v);
    if (threadIdx.x == blockDim.x - 1) {
        out[0] = count;
        out[1] = any != 0;
        out[2] = all != 0;
    }
}

int run_block_votes(const int *x, int threads, int *out)
{
    return launch(block_votes, {dim3(1), dim3(threads), 0, nullptr, false}, x, out);
}

static __global__ void indices(int *out)
{
    int threads = blockDim.x * blockDim.y * blockDim.z;
    int me = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int *o = out + 6 * (blockIdx.x * threads + me);
    o[0] = threadIdx.x;
    o[1] = threadIdx.y;
    o[2] = threadIdx.z;
    o[3] = lane_id();
    o[4] = blockIdx.x;
    o[5] = blockDim.y;
}

int run_indices(unsigned x, unsigned y, unsigned z, int blocks, int *out)
{
    return launch(indices, {dim3(blocks), dim3(x, y, z), 0, nullptr, false}, out);
}

static __global__ void helpers(const float *a, const float *b, int n, uint32_t *out)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        uint32_t bits = __float_as_uint(a[i]), other = __float_as_uint(b[i]);
        uint32_t results[HELPERS] = {
            (uint32_t)__popc(bits),
            (uint32_t)__clz((int)bits),
            (uint32_t)__ffs((int)bits),
            __brev(bits),
            __float_as_uint(__fmaf_rn(a[i], b[i], 1.0f)),
            __float_as_uint(__fadd_rn(a[i], b[i])),
            __float_as_uint(__fmul_rn(a[i], b[i])),
            __float_as_uint(__fdiv_rn(a[i], b[i])),
            __float_as_uint(min(a[i], b[i])),
            __float_as_uint(max(a[i], b[i])),
            (uint32_t)min((int)bits, 77),
            max(bits, 77u),
            __umulhi(bits, other),
            __byte_perm(bits, other, 0x2705),
            (uint32_t)__dp4a((int)bits, (int)other, -5),
        };
        for (int h = 0; h < HELPERS; h++)
            out[h * n + i] = results[h];
    }
}

int run_helpers(const float *a, const float *b, int n, uint32_t *out)
{
    return launch(helpers, {dim3(1), dim3(64), 0, nullptr, false}, a, b, n, out);
}

static __global__ void detmath(const double *x, int n, double *out, float *single)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        double sine, cosine;
        out[i] = detmath_exp(x[i]);
        out[n + i] = detmath_log(x[i] < 0.0 ? -x[i] : x[i]);
        detmath_sincos(x[i], &sine, &cosine);
        out[2 * n + i] = sine;
        out[3 * n + i] = cosine;
        single[i] = detmath_expf((float)x[i]);
    }
}

int run_detmath(const double *x, int n, double *out, float *single)
{
    return launch(detmath, {dim3(1), dim3(128), 0, nullptr, false}, x, n, out, single);
}

static __global__ void vectors(const float *x, int n, float *y)
{
    __shared__ float4 tile[32];
    const float4 *from = (const float4 *)x + blockIdx.x * 32;
    float4 v = __ldg(from + threadIdx.x);
    tile[threadIdx.x] = v;
    __syncwarp();
    v = tile[31 - threadIdx.x];
    float2 low = make_float2(v.w, v.z);
    float4 back = {low.x, low.y, v.y, v.x};
    ((float4 *)y)[n / 4 - 32 * (blockIdx.x + 1) + threadIdx.x] = back;
}

int run_vectors(const float *x, int n, float *y)
{
    return launch(vectors, {dim3(n / 128), dim3(32), 0, nullptr, false}, x, n, y);
}

static __global__ void double_vectors(const double *x, int n, double *y)
{
    int i = blockIdx.x * 32 + threadIdx.x;
    double2 v = ((const double2 *)x)[i];
    ((double2 *)y)[n / 2 - 1 - i] = make_double2(v.y, v.x);
}

int run_double_vectors(const double *x, int n, double *y)
{
    return launch(double_vectors, {dim3(n / 64), dim3(32), 0, nullptr, false}, x, n, y);
}

static __global__ void race_to_atomic(unsigned *ticket, int *order)
{
    order[atomicAdd(ticket, 1u)] = threadIdx.x;
}

int run_race_to_atomic(unsigned *ticket, int *order, int threads)
{
    return launch(race_to_atomic, {dim3(1), dim3(threads), 0, nullptr, false}, ticket, order);
}

static __global__ void many_barriers(int barriers, int *out)
{
    __shared__ int rounds;
    for (int i = 0; i < barriers; i++) {
        if (threadIdx.x == 0)
            rounds = i + 1;
        __syncthreads();
    }
    if (threadIdx.x == 1)
        out[blockIdx.x] = rounds;
}

int run_many_barriers(int blocks, int barriers, int *out)
{
    return launch(many_barriers, {dim3(blocks), dim3(2), 0, nullptr, false}, barriers, out);
}

static __global__ void transpose(const float *x, float *out, int pitch, int stride)
{
    SHARED_DYNAMIC(float, tile); /* [32][pitch] */
    int lane = lane_id();
    for (int row = 0; row < 32; row++)
        tile[row * pitch + lane] = x[(32 * row + lane) * stride];
    __syncwarp();
    for (int row = 0; row < 32; row++)
        out[32 * row + lane] = tile[lane * pitch + row];
}

int run_transpose(const float *x, float *out, int pitch, int stride)
{
    return launch(transpose, {dim3(1), dim3(32), (size_t)pitch * 128, nullptr, false}, x, out,
                  pitch, stride);
}

static __global__ void spin(int *flag)
{
    if (atomicAdd(flag, 0) < 0)
        __trap();
    while (atomicAdd(flag, 0) == 0)
        ;
}

int run_spin(int *flag)
{
    return launch(spin, {dim3(1), dim3(32), 0, nullptr, false}, flag);
}

static __global__ void through_struct(pointers p, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        p.out[i] = p.in[i];
}

int run_struct(struct pointers p, int n)
{
    return launch(through_struct, {dim3((n + 31) / 32), dim3(32), 0, nullptr, false}, p, n);
}

static __global__ void axpy(const float *a, float *b, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        b[i] = __fadd_rn(a[i], b[i]);
}

int run_axpy(const float *a, float *b, int n)
{
    return launch(axpy, {dim3((n + 31) / 32), dim3(32), 0, nullptr, false}, a, b, n);
}
