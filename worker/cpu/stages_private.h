/*
 * What the files of the CPU backend's stages share: stages.c, products.c,
 * ffn.c and attention.c. For nobody else.
 */
#ifndef WITAN_WORKER_CPU_STAGES_PRIVATE_H
#define WITAN_WORKER_CPU_STAGES_PRIVATE_H

#include "base/pool.h"
#include "worker/cpu/ops.h"
#include "worker/kernels.h"

#include <stdatomic.h>

struct drawer;

struct backend {
    const struct cpu_ops *ops;
    struct pool *pool;
    int threads;
    char *scratch; /* [threads][scratch_bytes + panel_bytes]; owned */
    uint64_t scratch_bytes, panel_bytes;
    /* Activations in codes, where there is room for them: of what add_norm made last (xn), and of
     * the input of o_proj or ffn_down, where those are in panels. */
    struct act norm, attn, h;
    struct code_blocks room; /* of each, in blocks */
    void *codes;             /* theirs; owned */
    atomic_ullong range_exceeded;
    int32_t draws;          /* at most */
    int32_t *drawn;         /* [draws] */
    struct drawer *drawers; /* [threads]; NULL: this rank draws nothing */
};

static inline float *scratch_of(struct backend *be, int thread)
{
    return (float *)(void *)(be->scratch + (size_t)thread * (be->scratch_bytes + be->panel_bytes));
}

/* For the panels' kernels. */
static inline void *panel_scratch_of(struct backend *be, int thread)
{
    return (char *)scratch_of(be, thread) + be->scratch_bytes;
}

static inline bool in_panels(const struct matrix *w)
{
    return weight_panel_bits(w->shape.form) != 0;
}

/* products.c: products with weights of either kind, cut at units of PANEL_ROWS rows of the matrix.
 * ------------------------------------------------------------------------------------------- */

static inline int32_t unit_end(const struct matrix *w, int32_t unit)
{
    return unit * PANEL_ROWS < w->rows ? unit * PANEL_ROWS : w->rows;
}

/* Units of matrices like `w` that make a task with m rows, where there are `units` in all. */
int32_t task_units(const struct backend *be, const struct matrix *w, int64_t units, int32_t m);

/* Rows [begin, end) of x[, n] become codes. */
void quantise_rows(const struct backend *be, const float *x, int32_t n, int32_t leaf,
                   const struct act *out, int64_t begin, int64_t end);

/* The thread's share of all of them. */
void quantise_part(const struct backend *be, int thread, const float *x, int64_t rows, int32_t n,
                   int32_t leaf, const struct act *out);

/* What a product with units of w from `unit` on reads first; nothing where there is none of them.
 */
struct ahead ahead_of(const struct matrix *w, int32_t unit);

/* y = units [u0, u1) of w with the normed rows xn, of which add_norm has made codes: gemm of ops.h,
 * y at the first unit's column. */
void multiply(struct backend *be, int thread, const float *xn, const int32_t *rows, int32_t m,
              const struct matrix *w, int32_t u0, int32_t u1, struct ahead next, float *y,
              int64_t ldy);

/* gemm_leaf with rows from `first` on, of x or of its codes. */
float multiply_leaf(struct backend *be, int thread, const float *x, const struct act *codes,
                    int64_t first, int32_t m, const struct matrix *w, int32_t leaf, int32_t u0,
                    int32_t u1, struct ahead next, const float *scale, const int32_t *out,
                    double *sum, int64_t ldsum);

/* --- stages.c ----------------------------------------------------------------------------------
 */

/* x += sum and xn = norm(x), in codes too where there is room, for rows [begin, end). */
void add_norm_rows(struct backend *be, const struct residual *r, int64_t begin, int64_t end);

/* Stages of worker/kernels.h. attention.c: */
void cpu_attention(struct backend *be, const struct batch *b, const struct attention *a,
                   const float *q, const struct kv_layer *kv, float *out);

/* ffn.c: */
void cpu_o_proj(struct backend *be, int32_t rows, const struct attention *a, const struct matrix *o,
                const float *attn, double *sum);
void cpu_router(struct backend *be, int32_t rows, const struct residual *r, const struct matrix *w,
                int32_t top_k, bool renormalise, struct range local, float *logits,
                struct route *route);
void cpu_route_dense(struct backend *be, int32_t rows, struct route *route);
void cpu_ffn_up(struct backend *be, const struct ffn *ffn, int32_t count, const struct route *route,
                int32_t hidden, const float *xn, float *h);
void cpu_ffn_down(struct backend *be, int32_t rows, const struct ffn *ffn, int32_t count,
                  const struct route *route, int32_t hidden, int32_t leaves, const float *h,
                  double *sum);

#endif
