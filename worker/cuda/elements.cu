/* Embedding, angles, norms, and what happens to q, k and v between their products and attention:
 * see stages.h. What is summed here is summed in an order that the vector's length alone fixes. */
#include "worker/cuda/common.cuh"
#include "worker/cuda/heads.cuh"
#include "worker/cuda/norm.cuh"

enum { THREADS = NORM_THREADS, WARPS = THREADS / 32 };

/* ---- Embedding: a block a row ---- */

static __global__ void embed(const int32_t *token, const int32_t *drawn, cuda_matrix w,
                             int32_t first_row, float *x, double *sum)
{
    grid_dependency_wait();
    grid_dependency_launch();
    int id = token[blockIdx.x];
    int row = (id < 0 ? drawn[-1 - id] : id) - first_row;
    bool here = row >= 0 && row < w.rows;
    const cuda_bf16 *from = w.data + (size_t)(here ? row : 0) * w.cols;
    x += (size_t)blockIdx.x * w.cols;
    sum += (size_t)blockIdx.x * w.cols;
    for (int i = 4 * threadIdx.x; i < w.cols; i += 4 * THREADS) {
        uint2 v = make_uint2(0, 0);
        if (here)
            v = *(const uint2 *)(from + i);
        *(float4 *)(x + i) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        /* + 0 makes -0 what a sum over ranks makes it */
        *(double2 *)(sum + i) = make_double2((double)bf16_to_f32((uint16_t)v.x) + 0.0,
                                             (double)bf16_to_f32((uint16_t)(v.x >> 16)) + 0.0);
        *(double2 *)(sum + i + 2) = make_double2((double)bf16_to_f32((uint16_t)v.y) + 0.0,
                                                 (double)bf16_to_f32((uint16_t)(v.y >> 16)) + 0.0);
    }
}

int cuda_embed(const struct cuda_batch *b, struct cuda_matrix w, int32_t first_row, float *x,
               double *sum, cuda_stream stream)
{
    if (b->rows == 0)
        return 0;
    return launch(embed, {dim3(b->rows), dim3(THREADS), 0, (device_stream)stream, true}, b->token,
                  b->drawn, w, first_row, x, sum);
}

/* ---- RoPE's angles: a thread an angle ---- */

static __global__ void rope_angles(const int32_t *pos, const float *frequency, float scale,
                                   int32_t rows, int32_t half, float *rope)
{
    grid_dependency_wait();
    grid_dependency_launch();
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t row = at / half, d = at % half;
    if (row >= rows)
        return;
    float angle = __fmul_rn((float)pos[row], frequency[d]);
    double sine, cosine;
    detmath_sincos((double)angle, &sine, &cosine);
    rope[row * 2 * half + d] = __fmul_rn((float)cosine, scale);
    rope[row * 2 * half + half + d] = __fmul_rn((float)sine, scale);
}

int cuda_rope_angles(const struct cuda_batch *b, const float *frequency, float scale,
                     int32_t head_dim, float *rope, cuda_stream stream)
{
    if (b->rows == 0)
        return 0;
    dim3 grid((unsigned)(((int64_t)b->rows * (head_dim / 2) + THREADS - 1) / THREADS));
    return launch(rope_angles, {grid, dim3(THREADS), 0, (device_stream)stream, true}, b->pos,
                  frequency, scale, b->rows, head_dim / 2, rope);
}

/* ---- Residual and norm: a block a row ---- */

/* Of the whole block; its warps' sums are added in their order. */
DEVICE float block_sum(float x)
{
    __shared__ float of_warp[WARPS];
    x = lanes_sum(x, 32);
    if (lane_id() == 0)
        of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = of_warp[0];
    for (int i = 1; i < WARPS; i++)
        sum = __fadd_rn(sum, of_warp[i]);
    return sum;
}

static __global__ void __launch_bounds__(THREADS)
    add_norm(int32_t hidden, double *sum, float *x, const float *norm, float eps, cuda_bf16 *xn)
{
    grid_dependency_wait();
    grid_dependency_launch();
    size_t row = (size_t)blockIdx.x * hidden;
    x += row;
    float squares = 0.0f;
    for (int i = 4 * threadIdx.x; i < hidden; i += 4 * THREADS) {
        float4 v = *(const float4 *)(x + i);
        if (sum) {
            double2 *from = (double2 *)(sum + row + i);
            v = add_rounded(v, from[0], from[1]);
            *(float4 *)(x + i) = v;
            from[0] = make_double2(0.0, 0.0);
            from[1] = make_double2(0.0, 0.0);
        }
        squares = norm_add_squares(v, squares);
    }
    if (!norm)
        return;
    float r = rms_scale(block_sum(squares), hidden, eps);
    for (int i = 4 * threadIdx.x; i < hidden; i += 4 * THREADS) { /* each thread its own again */
        *(uint2 *)(xn + row + i) = normed(*(const float4 *)(x + i), *(const float4 *)(norm + i), r);
    }
}

int cuda_add_norm(int32_t rows, int32_t hidden, double *sum, float *x, const float *norm, float eps,
                  cuda_bf16 *xn, cuda_stream stream)
{
    if (rows == 0)
        return 0;
    return launch(add_norm, {dim3(rows), dim3(THREADS), 0, (device_stream)stream, true}, hidden,
                  sum, x, norm, eps, xn);
}

/* ---- q, k, v: a warp a head of a row; where a step has runs, whose rows' K lies side by side in
 * the cache, of bf16 the first blocks take K_ROWS rows of a K head each ---- */

struct finish_job {
    struct head_job h;
    const float *q_tmp, *kv_tmp;
    int k_blocks;
};

enum { K_ROWS = 64, K_PITCH = K_ROWS + 2 }; /* no bank conflicts, by rows and by columns */

DEVICE const float *kv_product(const finish_job &j, int row, int head)
{
    return j.kv_tmp + ((size_t)row * 2 * j.h.a.kv_heads + head) * j.h.a.head_dim;
}

/* Where K's first column of a row goes; NULL: nowhere. */
DEVICE cuda_bf16 *k_place(const head_job &h, int row, int head)
{
    if (row >= h.b.rows || (h.b.live && row >= *h.b.live))
        return NULL;
    int pos = h.b.pos[row];
    return kv_tile(h.kv, h.b, row, pos, head) + pos % CUDA_KV_BLOCK;
}

/* K of rows from `first` on, through shared memory, so that a warp writes a column of them. */
DEVICE void finish_k(const finish_job &j, int first, int head)
{
    __shared__ __align__(16) cuda_bf16 tile[CUDA_MAX_HEAD * K_PITCH];
    const cuda_attention &a = j.h.a;
    int warp = threadIdx.x / 32, i = 2 * lane_id();
    for (int r = warp; r < K_ROWS && first + r < j.h.b.rows; r += WARPS) {
        const float *rope = j.h.rope + (size_t)(first + r) * a.head_dim;
        float y[PAIRS][2];
        norm_and_rotate(kv_product(j, first + r, head), j.h.k_norm, rope, a.head_dim, a.eps, y);
        put_head(y, 1.0f, a.head_dim, a.row, tile + r, K_PITCH);
    }
    __syncthreads();
    cuda_bf16 *low = k_place(j.h, first + i, head), *high = k_place(j.h, first + i + 1, head);
    bool pair = low && high == low + 1 && (uintptr_t)low % 4 == 0;
    for (int d = warp; d < a.row; d += WARPS) {
        const cuda_bf16 *from = tile + d * K_PITCH + i;
        int at = d * CUDA_KV_BLOCK;
        if (pair)
            *(uint32_t *)(low + at) = *(const uint32_t *)from;
        if (!pair && low)
            low[at] = from[0];
        if (!pair && high)
            high[at] = from[1];
    }
}

static __global__ void __launch_bounds__(THREADS) finish_qkv(finish_job j)
{
    grid_dependency_wait();
    grid_dependency_launch();
    const cuda_attention &a = j.h.a;
    int block = (int)blockIdx.x;
    if (block < j.k_blocks) {
        finish_k(j, block / a.kv_heads * K_ROWS, block % a.kv_heads);
        return;
    }
    int64_t item = (int64_t)(block - j.k_blocks) * WARPS + threadIdx.x / 32;
    int64_t row = item % j.h.b.rows;
    int head = (int)(item / j.h.b.rows);
    if (j.k_blocks > 0 && head >= a.q_heads)
        head += a.kv_heads;
    if (head >= a.q_heads + 2 * a.kv_heads)
        return;
    const float *q = j.q_tmp + (row * a.q_heads + head) * a.head_dim;
    head_finish(j.h, (int)row, head,
                head < a.q_heads ? q : kv_product(j, (int)row, head - a.q_heads));
}

int cuda_finish_qkv(const struct cuda_batch *b, const struct cuda_attention *a, const float *q_norm,
                    const float *k_norm, const float *rope, const float *q_tmp, const float *kv_tmp,
                    cuda_bf16 *q, struct cuda_kv kv, cuda_stream stream)
{
    if (b->rows == 0)
        return 0;
    finish_job j = {head_job_of(b, a, q_norm, k_norm, rope, q, kv), q_tmp, kv_tmp, 0};
    if (b->runs > 0 && !kv.int8)
        j.k_blocks = (b->rows + K_ROWS - 1) / K_ROWS * a->kv_heads;
    int64_t items = (int64_t)b->rows * (a->q_heads + (j.k_blocks > 0 ? 1 : 2) * a->kv_heads);
    dim3 grid((unsigned)(j.k_blocks + (items + WARPS - 1) / WARPS));
    return launch(finish_qkv, {grid, dim3(THREADS), 0, (device_stream)stream, true}, j);
}
