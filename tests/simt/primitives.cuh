/* Kernels that do little but call one primitive each, for primitives_test.cc and emulator_test.cc.
 * All pointers are the device's; each returns launch's code. */
#ifndef WITAN_TESTS_SIMT_PRIMITIVES_CUH
#define WITAN_TESTS_SIMT_PRIMITIVES_CUH

#include <stddef.h>
#include <stdint.h>

/* out[kind][lane], kinds: idx, up, down, xor of x[lane] by `by` in groups of `width`; then a double
 * by idx (its value, truncated). */
enum { SHUFFLE_KINDS = 5 };
int run_shuffles(const int *x, int by, int width, int *out);

/* out[what][lane] of x[lane] by the lanes of `mask` (the others call nothing and leave -1). */
enum vote {
    VOTE_BALLOT,
    VOTE_ANY,
    VOTE_ALL,
    VOTE_MATCH,
    VOTE_ADD,
    VOTE_MIN,
    VOTE_MAX,
    VOTE_UMIN,
    VOTE_UMAX,
    VOTE_AND,
    VOTE_OR,
    VOTE_XOR,
    VOTES
};
int run_votes(const int *x, unsigned mask, int *out);

enum mma_kind { MMA_BF16, MMA_F16, MMA_E4M3, MMA_S8 };
/* Registers: a[lane][4], b[lane][2], d[lane][4] (fp32 or int32), in and out. */
int run_mma(enum mma_kind kind, const uint32_t *a, const uint32_t *b, uint32_t *d);

/* out[lane][count]: ldmatrix of x[8 count][8], `count` 1, 2 or 4. */
int run_ldmatrix(int count, bool trans, const uint16_t *x, uint32_t *out);

/* Copies of 4, 8 and 16 bytes (cached: 16, by cp_async_cached): thread t's first `bytes[t]` of x,
 * by cp.async; out[t][16]. Two groups under way at a time. */
int run_copies(int size, bool cached, const uint8_t *x, const int *bytes, uint8_t *out,
               int threads);

/* x[n] in 16 and 8 bits; pairs: of x[i] and x[n - 1 - i]. */
int run_narrow(const float *x, int n, uint16_t *bf16, uint16_t *f16, uint8_t *e4m3,
               uint32_t *bf16_pairs, uint32_t *f16_pairs);
/* All codes to fp32: [65536], [65536], [256]. */
int run_widen(float *bf16, float *f16, float *e4m3);

/* Each of `threads` in each of `blocks` does each atomic once on its own cell. */
enum atomic_cell {
    CELL_ADD,
    CELL_MIN,
    CELL_MAX,
    CELL_OR,
    CELL_AND,
    CELL_CAS_MAX,
    CELL_EXCH,
    CELLS
};
int run_atomics(int *cells, unsigned long long *wide, float *sum, double *wide_sum, int blocks,
                int threads);

/* out[3]: count, or, and of x[thread] != 0 over the block. */
int run_block_votes(const int *x, int threads, int *out);

/* out[thread][6]: threadIdx.x, y, z, lane, blockIdx.x, blockDim.y. */
int run_indices(unsigned x, unsigned y, unsigned z, int blocks, int *out);

/* out[i] = bf16x2_fma(a[i], b[i], c[i]). */
int run_bf16_fma(const uint32_t *a, const uint32_t *b, const uint32_t *c, int n, uint32_t *out);

/* Integer and floating-point helpers, out[HELPERS][n]. */
enum { HELPERS = 15 };
int run_helpers(const float *a, const float *b, int n, uint32_t *out);

/* detmath_inline.h: exp, log, sin, cos (double), and expf, of x[n]. */
int run_detmath(const double *x, int n, double *out, float *single);

/* y[i] = x[n - 1 - i] as float4, by way of shared memory; n a multiple of 128 a block. */
int run_vectors(const float *x, int n, float *y);

/* y[i] = x[n - 1 - i] as double2; n a multiple of 64 a block. */
int run_double_vectors(const double *x, int n, double *y);

/* order[i] = the thread that came i-th to an atomic. */
int run_race_to_atomic(unsigned *ticket, int *order, int threads);

/* Every block waits `barriers` times and counts its rounds in out[block]. */
int run_many_barriers(int blocks, int barriers, int *out);

/* out[i] = x[column-wise i] of a 32 x 32 matrix through shared memory rows of `pitch` floats; reads
 * global memory at a stride of `stride` floats. */
int run_transpose(const float *x, float *out, int pitch, int stride);

/* Spins on a flag that nobody sets; where it is negative, gives up. */
int run_spin(int *flag);

/* Writes out[i] through a struct of pointers. */
struct pointers {
    const float *in;
    float *out;
};
int run_struct(struct pointers p, int n);

/* b[i] += a[i]; both may lie in one allocation. */
int run_axpy(const float *a, float *b, int n);

#endif
