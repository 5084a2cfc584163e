/*
 * Sample kernels, in the manner that worker/cuda's are to be written in, and the faults that can be
 * planted in them: samples_test.cc runs them as they are, faults_test.cc with each fault in turn.
 */
#ifndef WITAN_TESTS_SIMT_SAMPLES_CUH
#define WITAN_TESTS_SIMT_SAMPLES_CUH

#include <stddef.h>
#include <stdint.h>

enum fault_kind {
    NO_FAULT,
    /* row_sum */
    DROPPED_BARRIER,     /* between the warps' sums and their sum */
    BOUND_OFF_BY_ONE,    /* reads one element past the row */
    NOT_IN_MASK,         /* lanes shuffle under a mask that leaves them out */
    BARRIER_IN_BRANCH,   /* only some threads reach it */
    TWO_BARRIERS,        /* the branches of an if wait at different ones */
    EXIT_BEFORE_BARRIER, /* threads without work return early */
    UNWRITTEN_SHARED,    /* sums more warps than there are */
    SHUFFLE_IN_BRANCH,   /* full mask, but lanes are missing */
    SHUFFLE_FROM_ABSENT, /* reads a lane that its mask leaves out */
    PAST_SHARED,         /* writes behind a __shared__ array */
    TOO_FEW_STEPS,       /* one step of the butterfly is missing */
    /* gemm_bf16 */
    NO_COPY_WAIT,           /* cp.async is not waited for */
    WAIT_LEAVES_ONE,        /* the last tile's copy is still under way */
    NO_BARRIER_AFTER_WAIT,  /* others' copies are not */
    NO_BARRIER_BEFORE_COPY, /* a buffer is filled while others still read it */
    WRONG_BUFFER,           /* computes on the buffer that is being filled */
    MISALIGNED_ROWS,        /* ldmatrix on rows whose pitch is no multiple of 16 */
    TRANSPOSED_B,           /* .trans where it is wrong */
    PAST_LAST_ROW,          /* the rows beyond a ragged edge are read */
    PAST_LAST_K,            /* the columns beyond are */
    WRONG_STRIDE,           /* C's rows one element too close */
    STORE_PAST_EDGE,        /* C's columns beyond its edge are written */
    /* softmax_rows */
    PAST_RAGGED_LENGTH, /* the padding behind a row is read */
    WRITES_INPUT,       /* through a cast */
    MISALIGNED_VECTOR,  /* 16-byte loads of rows that begin anywhere */
    WRONG_SCALE,        /* the next row's */
    NO_SYNCWARP,        /* lanes read what others of the warp wrote */
    ROW_OF_ANOTHER,     /* two warps write one row */
    /* histogram */
    PLAIN_ADD_SHARED, /* no atomic */
    PLAIN_ADD_GLOBAL, /* no atomic between blocks */
    NOT_CLEARED,      /* counts begin with what was there */
    NO_BARRIER_AFTER_CLEAR,
    HOST_POINTER,     /* the input is the host's */
    FREED_POINTER,    /* the input was freed */
    SHARED_TOO_SMALL, /* launched with less dynamic shared memory than it uses */
    /* total: the last block adds what the others left */
    NO_FENCE,
    /* handover: one warp produces, others consume */
    NO_ARRIVAL,
    FAULT_KINDS
};

/* All pointers are the device's. Each returns launch's code. */

/* out[row] = sum of x[row][0 .. columns - 1]; `threads` a block. */
int run_row_sum(enum fault_kind f, const float *x, int rows, int columns, float *out, int threads);

/* c[m, n] (fp32) = a[m, k] . b[n, k], both bf16; k a multiple of 8. */
int run_gemm_bf16(enum fault_kind f, const uint16_t *a, const uint16_t *b, float *c, int m, int n,
                  int k);

/* For each row: y = softmax(scale[row] * x) over its elements first[row] .. first[row + 1] - 1. */
int run_softmax_rows(enum fault_kind f, const float *x, const int *first, const float *scale,
                     int rows, float *y);

/* counts[b] += how many of x[n] are b, for b < bins. */
int run_histogram(enum fault_kind f, const uint8_t *x, int n, int bins, int *counts);

/* *out = sum of x[n] by `blocks` blocks; partial[blocks] and *ticket, which is 0, are scratch. */
int run_total(enum fault_kind f, const float *x, int n, float *partial, unsigned *ticket,
              float *out, int blocks);

/* y[32 r + i] = 2 x[32 r + 31 - i], r < rounds, i < 32, by way of shared memory and named barriers.
 */
int run_handover(enum fault_kind f, const float *x, int rounds, float *y);

#endif
