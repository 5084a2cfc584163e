/*
 * The host side of Witan's CUDA kernels: one function launches what one stage of worker/kernels.h
 * needs. Plain C types, so that C may call them; they are compiled by nvcc for devices and by a
 * host compiler for the emulator (tests/simt).
 *
 * All pointers but structs' own are device memory. Functions launch on the stream and return at
 * once: 0, or CUDA's error. They allocate nothing, keep no state and wait for nothing, so they may
 * be captured in a graph. Any thread. Nothing to do (no rows, no columns) launches nothing.
 *
 * Arithmetic (numerics class "cuda-1" and the device's architecture):
 * - Activations that enter a matrix product (xn, q, attn, h) are bf16, rounded to nearest even from
 *   fp32; the residual stream, norms, angles and softmax are fp32.
 * - A dot product takes k in blocks of 32. Block b is two mma.sync.m16n8k16 into one fp32
 *   accumulator, in this order: of the eight elements 32 b + 8 t .. + 7 (t = 0..3) the first mma
 * takes the first four (as its k = 2t, 2t + 1, 2t + 8, 2t + 9), the second the last four. So 16
 *   consecutive bytes of a row are what a lane feeds to both. Elements past the end are zeros. The
 *   number of rows, tiles or blocks of threads changes none of this, and so no bit of a row.
 * - Weights may be packed (struct cuda_format): a value is scale x w, w a bf16 exactly. The product
 * is the same in blocks of 32, of w, in accumulators that begin at zero at every border of a
 * scale's group (and of a leaf); at the group's end sum = fma(scale, accumulator, sum) in fp32,
 * groups in ascending order, the sum beginning at zero. Activations and what follows are as with
 * bf16.
 * - A leaf is such a product over at most `leaf` columns, times a row's weight in fp32, rounded to
 * a multiple of 2^-32 (exact_round of worker/cpu/ops.h); leaves are added in fp64, exactly, so that
 *   atomics may add them in any order.
 * - exp and its kin are worker/detmath_inline.h's.
 * Rows of matrices and activations begin at multiples of 16 bytes: their lengths are multiples of 8
 * (the plug-in refuses a model whose are not).
 *
 * With each stage stand its two lower bounds, of R rows: bytes that must come from the device's
 * memory, and multiply-adds of the tensor cores.
 *
 * A decode step's layer is seven launches, collectives not counted: cuda_add_norm, cuda_qkv,
 * cuda_attention_run, cuda_gemm_leaf (o_proj), cuda_router (a dense layer: cuda_add_norm),
 * cuda_ffn_up, cuda_ffn_down. Each may start while the one before it runs (programmatic dependent
 * launch): it asks for its first weights, waits for that one to end (grid_dependency_wait), and
 * only then touches anything that a launch writes. So that the wait reaches back to all launches
 * before, every kernel waits. Times that are expected: docs/performance.md.
 */
#ifndef WITAN_WORKER_CUDA_STAGES_H
#define WITAN_WORKER_CUDA_STAGES_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *cuda_stream; /* cudaStream_t */
typedef uint16_t cuda_bf16;

enum {
    CUDA_KV_BLOCK = 64,
    CUDA_KV8_GROUP = 32,
    CUDA_FFN_BLOCK = 128,
    CUDA_MAX_HEAD = 128,
    CUDA_MAX_TOP_K = 16
};

/* What an initializer may leave out in C++ as in C. */
#ifdef __cplusplus
#define CUDA_NONE = {}
#else
#define CUDA_NONE
#endif

/*
 * How weights lie. Packed rows are of units of 64 bytes, the last filled up with any finite values:
 * of four pieces of 16 bytes, one for t = 0..3, which hold of each of the unit's blocks of 32
 * columns the eight elements 32 b + 8 t .. + 7, in little-endian words of 32 bits:
 *   e4m3  64 columns: words 2 b and 2 b + 1 of a piece hold four of the eight each, element i in
 *         byte i (i = 0, 3), 2 (i = 1), 1 (i = 2). scale: fp32 [ceil(rows / scale_rows), groups]
 *   int4  128 columns: word b; element i of it in bits 4 (i / 2) + 16 (i % 2) and up: q, unsigned.
 *         scale: [ceil(rows / scale_rows), groups] words: fp32 but for the lowest bits, which are
 *         taken for zeros and hold `zero` (at most 16); w = q - zero
 * groups = ceil(cols / 2^group_shift); a leaf is of a multiple of 32 columns, group_shift 5 to 30.
 */
enum cuda_weights { CUDA_BF16, CUDA_E4M3, CUDA_INT4 };
enum { CUDA_INT4_ZERO = 31 };

struct cuda_format {
    int32_t type; /* enum cuda_weights; of bf16 there is nothing more to say */
    int32_t group_shift, scale_rows;
};

/* [rows, cols], row-major: dense in bf16, or packed. */
struct cuda_matrix {
    const cuda_bf16 *data;
    int32_t rows, cols;
    const void *scale CUDA_NONE;
    struct cuda_format format CUDA_NONE;
};

/* Rows [row, row + rows) of a step: one sequence's, at positions that ascend by one. */
struct cuda_unit {
    int32_t row, rows;
};

/* The rows of one step. */
struct cuda_batch {
    int32_t rows;
    const int32_t *token;     /* [rows]; -1 - i: drawn[i] */
    const int32_t *pos;       /* [rows] */
    const int32_t *table;     /* [rows]: where in `blocks` the row's sequence begins */
    const int32_t *blocks;    /* the sequences' KV blocks, of CUDA_KV_BLOCK positions each */
    int32_t longest;          /* the largest pos + 1, or more (on the host: sizes grids) */
    int32_t logits;           /* rows that want logits */
    const int32_t *logit_row; /* [logits], ascending */
    /* [1]: so many rows count; those after are copies of the last, with tables of their own, that
     * write nothing into the cache. NULL: all count. */
    const int32_t *live;
    /* [runs + alone]: every row once, as cuda_attention_units cuts them, first `runs` units of
     * several rows. runs 0: all rows stand alone, and unit is not read. runs and alone are on the
     * host: they size grids. */
    const struct cuda_unit *unit;
    int32_t runs, alone;
    const int32_t *drawn; /* what the step before drew (one that was not to be drawn: below 0) */
};

/* One rank's attention: query heads [q_begin, q_begin + q_heads) of the model; query head h reads
 * KV head h / group; local KV head 0 is kv_begin. row: head_dim rounded up to a multiple of 16; its
 * padding is zero in q and in the cache. */
struct cuda_attention {
    int32_t q_begin, q_heads;
    int32_t kv_begin, kv_heads;
    int32_t group, head_dim, row;
    float eps;
};

/* One layer's cache of bf16: [blocks][kv_heads][K: [row][KV_BLOCK], V: [KV_BLOCK][row]]
 * (worker/kv.h). What lies beyond a sequence's positions is never part of a result, be it NaN.
 * int8: codes and then scales of K, the same of V. */
struct cuda_kv {
    cuda_bf16 *data;
    int32_t heads, row;
    bool int8 CUDA_NONE;
};

/* Slots by local expert, rows ascending (struct route of worker/kernels.h). */
struct cuda_route {
    int32_t *chosen;      /* [rows, top_k] */
    float *chosen_weight; /* [rows, top_k] */
    int32_t *first;       /* [experts + 1] */
    int32_t *row;         /* [slots] */
    float *weight;        /* [slots] */
};

/* One local expert's matrices: gate and up [columns, hidden], down [hidden, columns]. */
struct cuda_ffn {
    const cuda_bf16 *gate, *up, *down;
    /* Of packed ones. */
    const void *gate_scale CUDA_NONE, *up_scale CUDA_NONE, *down_scale CUDA_NONE;
};

/* --- elements, attention, routing (elements.cu, attention.cu, routing.cu) --- */

/* sum[rows, hidden] = embedding rows [first_row, first_row + w.rows) where the token is of these,
 * zero elsewhere; x[rows, hidden] = 0. Bytes: R x hidden x (2 + 8 + 4). */
int cuda_embed(const struct cuda_batch *b, struct cuda_matrix w, int32_t first_row, float *x,
               double *sum, cuda_stream stream);

/* rope[rows, head_dim]: cosines, then sines, of pos x frequency[head_dim / 2], times scale: the
 * bits that the CPU backend gives. */
int cuda_rope_angles(const struct cuda_batch *b, const float *frequency, float scale,
                     int32_t head_dim, float *rope, cuda_stream stream);

/* x += sum (may be NULL), rounded to fp32, and sum = 0 for the leaves that come next; then xn =
 * bf16(rms_norm(x) * norm) where norm is not NULL: norm[i] * (x[i] * r), r = 1 / sqrt(mean(x^2) +
 * eps). The order of the mean's sum is that of `hidden` alone. Bytes: R x hidden x (8 + 8 + 4 + 4 +
 * 2). */
int cuda_add_norm(int32_t rows, int32_t hidden, double *sum, float *x, const float *norm, float eps,
                  cuda_bf16 *xn, cuda_stream stream);

/* From the products q_tmp[rows, q_heads x head_dim] and kv_tmp[rows, 2 x kv_heads x head_dim] (k
 * heads, then v heads), fp32: q and k normed by head (where a norm is given), rotated by halves, q
 * scaled by 1 / sqrt(head_dim) into q[rows, q_heads, row] bf16; k and v into the cache, as bf16 or
 * as worker/kv8_inline.h rounds them, its padding as zeros. Bytes: R x (q_heads + 2 x kv_heads) x
 * (4 x head_dim + 2 x row); K of a row alone, and in int8 of every row, takes a sector of
 * 32 bytes for each column. */
int cuda_finish_qkv(const struct cuda_batch *b, const struct cuda_attention *a, const float *q_norm,
                    const float *k_norm, const float *rope, const float *q_tmp, const float *kv_tmp,
                    cuda_bf16 *q, struct cuda_kv kv, cuda_stream stream);

/* out[rows, q_heads x head_dim] bf16 = attention of q over positions 0..pos of the cache. Tiles of
 * CUDA_KV_BLOCK positions in the order of the sequence within splits of CUDA_SPLIT positions;
 * splits joined in their order. All are fixed by the position alone. Scores and weighted values are
 * mma.sync products, k (columns, then positions) in steps of 16 in ascending order; maxima and sums
 * are fp32. Weights e^(score - running maximum) are rounded to bf16, and it is the rounded ones
 * that are summed up; what was summed before is rescaled at each tile. A result of zero is +0.
 * Of an int8 cache codes times scales are rounded to bf16, and all else is as with those.
 * partial: workspace of cuda_attention_bytes; NULL will do where that is 0. Whoever allocates it
 * sets its first CUDA_ATTENTION_ZEROS bytes to zero, once: a launch leaves them so, also one that a
 * graph replays. One launch at a time may use it.
 *
 * One launch for rows that stand alone, and one for runs of rows of one sequence, which give a row
 * the same bits; more launches where `partial` would grow. Bytes: the cache of the positions seen,
 * once a sequence; and once a run from the L2 cache, which makes P^2 / (2 n) x 4 x row a KV head of
 * a prompt of P rows in runs of n = 128 / group. Multiply-adds: q_heads x 2 x row for each row and
 * position that it sees. */
enum { CUDA_SPLIT = 512, CUDA_ATTENTION_ZEROS = 256 * 1024 };
int cuda_attention_run(const struct cuda_batch *b, const struct cuda_attention *a,
                       const cuda_bf16 *q, struct cuda_kv kv, void *partial, cuda_bf16 *out,
                       cuda_stream stream);
/* Cuts a step's rows, whose positions and tables are given, into units for cuda_batch: runs of at
 * most as many rows as a block takes, the later ones of a sequence first for they take longest;
 * then rows alone. All pointers are to the host's memory; unit: [rows]. Returns how many are runs.
 */
int32_t cuda_attention_units(const struct cuda_attention *a, int32_t rows, const int32_t *pos,
                             const int32_t *table, struct cuda_unit *unit, int32_t *alone);
/* Bytes of `partial` for steps of at most `rows` rows over at most `context` positions; either 0 or
 * more than CUDA_ATTENTION_ZEROS. */
uint64_t cuda_attention_bytes(int32_t rows, int32_t context, const struct cuda_attention *a);

/* From logits [rows, experts] (of the model), fp32: softmax, the top_k largest in descending order
 * (ties to the lower id), renormalised if asked; then the slots of experts [begin, end). top_k is
 * at most CUDA_MAX_TOP_K and experts. As on the CPU, exp is not below e^-87. */
int cuda_route_experts(int32_t rows, int32_t experts, int32_t top_k, int32_t renormalise,
                       int32_t begin, int32_t end, const float *logits, struct cuda_route route,
                       cuda_stream stream);

/* One expert, every row, weight 1. */
int cuda_route_dense(int32_t rows, struct cuda_route route, cuda_stream stream);

/* --- matrix products (products.cu for few rows, tiles.cu for many) --- */

/* One weight of a product: y[i * ldy + j] = x row i . w row j (+ bias[j]), fp32. */
struct cuda_part {
    struct cuda_matrix w;
    const float *bias; /* NULL: none */
    float *y;
    int64_t ldy;
};

enum { CUDA_MAX_PARTS = 3 };

/* `count` products (at most CUDA_MAX_PARTS, of equal cols) in one launch. x row i of m is x +
 * index[i] x cols, or x + i x cols where index is NULL. Products of weights of different formats
 * are launches of their own. Bytes: all weights and scales once; m x rows x cols multiply-adds. */
int cuda_gemm(const cuda_bf16 *x, const int32_t *index, int32_t m, const struct cuda_part *parts,
              int32_t count, cuda_stream stream);

/* The products of q, k and v (parts, in this order; k's and v's y: kv_tmp and so many columns on)
 * and then cuda_finish_qkv: of at most CUDA_QKV_ROWS rows in one launch, which leaves the parts' y
 * alone. Bytes: all weights once, the rows of q and of the cache; R x rows x cols multiply-adds. */
enum { CUDA_QKV_ROWS = 64 };
int cuda_qkv(const struct cuda_batch *b, const struct cuda_attention *a, const cuda_bf16 *xn,
             const struct cuda_part *parts, const float *q_norm, const float *k_norm,
             const float *rope, cuda_bf16 *q, struct cuda_kv kv, cuda_stream stream);

/* cuda_add_norm, the product with the router's weights w [experts, hidden] into logits [rows,
 * experts], and cuda_route_experts: of at most CUDA_ROUTER_ROWS rows (and where eight of them fit
 * into shared memory) in one launch. zeros: CUDA_ROUTER_ZEROS bytes, which whoever allocates them
 * sets to zero, once, and a launch leaves zero; one launch at a time may use them. Bytes: w once,
 * and cuda_add_norm's; R x experts x hidden multiply-adds. */
enum { CUDA_ROUTER_ROWS = 128, CUDA_ROUTER_ZEROS = 256 };
int cuda_router(int32_t rows, int32_t hidden, double *sum, float *x, const float *norm, float eps,
                struct cuda_matrix w, int32_t top_k, int32_t renormalise, int32_t begin,
                int32_t end, void *zeros, cuda_bf16 *xn, float *logits, struct cuda_route route,
                cuda_stream stream);

/* y[i, j] = -infinity for j in [begin, end), i < m. */
int cuda_fill_padding(int32_t m, int32_t begin, int32_t end, float *y, int64_t ldy,
                      cuda_stream stream);

/* sum[m, w.rows], which is zero, += exact sum over leaves of `leaf` columns of x . w (o_proj: leaf
 * = head_dim). x is [m, w.cols]. To *out_of_range is added how many elements of leaves are not
 * below 2^20 / leaves in magnitude; `leaves`: those of all ranks. Bytes: w once, sum once for each
 * run of leaves; m x w.rows x w.cols multiply-adds. */
int cuda_gemm_leaf(const cuda_bf16 *x, int32_t m, struct cuda_matrix w, int32_t leaf,
                   int32_t leaves, double *sum, unsigned long long *out_of_range,
                   cuda_stream stream);

/* h[slots, columns] bf16 = silu(gate . xn[row]) * (up . xn[row]) of `count` local experts' slots,
 * at most `slots` of them. silu(g) = g / (1 + e^-g) in fp32. ffn: [count], gate and up of `format`.
 * Bytes: gate and up of an expert with slots; 2 x slots x columns x hidden multiply-adds. */
int cuda_ffn_up(const struct cuda_ffn *ffn, struct cuda_format format, int32_t count, int32_t slots,
                int32_t columns, int32_t hidden, struct cuda_route route, const cuda_bf16 *xn,
                cuda_bf16 *h, cuda_stream stream);

/* sum[rows, hidden], which is zero, += exact sum over slots and leaves of CUDA_FFN_BLOCK columns of
 * weight x (down . h). `leaves` and *out_of_range: as above; down is of `format`. Bytes: down
 * of an expert with slots, sum once a slot and run of leaves; slots x columns x hidden
 * multiply-adds. */
int cuda_ffn_down(int32_t rows, const struct cuda_ffn *ffn, struct cuda_format format,
                  int32_t count, int32_t slots, int32_t columns, int32_t hidden,
                  struct cuda_route route, int32_t leaves, const cuda_bf16 *h, double *sum,
                  unsigned long long *out_of_range, cuda_stream stream);

/* --- drawing tokens (sampling.cu) --- */

/* One token to draw (struct sampling of partition/sampling.h). */
struct cuda_draw {
    int32_t row;      /* of the logits */
    int32_t position; /* of the token in its sequence */
    uint64_t seed;
    float temperature, top_p, min_p;
    int32_t top_k;
    /* Edits of its row, which is then no other draw's: a run of cuda_sample's. */
    int32_t first_edit, edits;
    float repetition_penalty;
    int32_t reserved;
};

/* As struct logit_edit of worker/sampler.h. */
struct cuda_edit {
    int32_t id;
    float add;
    int32_t repeated;
};

/* Rows as ranks gather them, [shards][rows][cols]: the logit of token v is column v % cols of shard
 * v / cols. */
struct cuda_logits {
    float *data;
    int32_t rows, cols;
};

/* drawn[draws]: for each of draw[draws] the token that worker/sampler.c draws from its row's first
 * `vocab` logits, in all bits: -1 where one is a NaN or the largest not finite. draw is read by the
 * device, so that a captured launch draws what it says later; `cuts` 0 promises that none of it has
 * top_k or top_p and saves five launches (of each 128 draws). work: cuda_sample_bytes; nothing is
 * kept in it between calls. Bytes, of R draws: R x vocab x 4 from the device's memory, a second
 * time for temperature and 3 or 5 times more for top_k, top_p or both (of few rows these come from
 * its cache). No tensor cores: R x vocab x 20 wide multiplications of noise where nothing cuts, R x
 * vocab exponentials in fp64 (30 multiply-adds) a digit of top_p. `edit` (NULL: no draw has any)
 * are the device's and overwritten; logits are changed by them for the draw, and then again what
 * they were: two launches more (of each 128 draws). */
int cuda_sample(int32_t draws, const struct cuda_draw *draw, struct cuda_edit *edit,
                const struct cuda_logits *logits, int32_t vocab, int32_t cuts, void *work,
                int32_t *drawn, cuda_stream stream);
/* Bytes of `work` for at most so many draws of rows in so many shards. */
uint64_t cuda_sample_bytes(int32_t draws, int32_t shards);

#ifdef __cplusplus
}
#endif

#endif
