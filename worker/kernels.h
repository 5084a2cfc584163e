/*
 * The engine's operations as a table of fused stages, implemented by each backend (worker/cpu;
 * worker/cuda is a plug-in with the same table). model.c and moe.c call them in order and meet
 * other ranks between them.
 *
 * Contract: called from the rank's engine thread. A stage reads and writes only the buffers it is
 * given, in the memory of its backend (but for a step's batch, which is the host's), and may return
 * before it has run (a backend with a stream orders its stages; `finish` waits, and says what went
 * wrong in any). It allocates nothing. Row counts may differ at every call and never change a row's
 * arithmetic. What lies in activations is the backend's affair: one may keep them narrower than the
 * types here.
 */
#ifndef WITAN_WORKER_KERNELS_H
#define WITAN_WORKER_KERNELS_H

#include "worker/kv.h"
#include "worker/memory.h"
#include "worker/sampler.h"
#include "worker/weights.h"

/* A token to draw. */
struct draw {
    int32_t row;      /* of the batch's logits */
    int32_t position; /* of the token in its sequence */
    struct sampling sampling;
    /* [edits], ids ascending and below vocab_limit. With any, no other draw is of this row. */
    const struct logit_edit *edit;
    int32_t edits;
    float repetition_penalty;
    /* NULL, or a bit for each token below vocab_limit: 0 is not drawn, as if its logit, after the
     * edits, were -infinity. Then no other draw is of this row. */
    const uint64_t *mask;
};

/* Edits of one step: those of one sequence, which may name each of its tokens, each biased one and
 * each that may end it; and of many sequences some thousands each. */
static inline int32_t batch_max_edits(const struct engine_limits *l)
{
    int64_t many = (int64_t)l->max_seqs * 4096;
    int64_t one = (int64_t)l->context + SAMPLING_MAX_BIASES + SAMPLING_MAX_STOP_IDS + MAX_EOS;
    many = many < 65536 ? 65536 : many > 1 << 20 ? 1 << 20 : many;
    return (int32_t)(one > many ? one : many);
}

/* Tokens that one step draws: one a sequence, or more of those that guess ahead. */
static inline int32_t batch_max_draws(const struct engine_limits *l)
{
    return l->max_logits > l->max_seqs ? l->max_logits : l->max_seqs;
}

/* The rows of one step: every token of every sequence that it feeds. Arrays live as long as the
 * step. */
struct batch {
    int32_t rows;
    const int32_t *token;              /* [rows]; below 0: step_drawn_token, where `ahead` */
    const int32_t *pos;                /* [rows]: position in its sequence */
    const int32_t *const *block_table; /* [rows]: KV block of each KV_BLOCK positions */
    int32_t logits;                    /* rows that want logits */
    const int32_t *logit_row;          /* [logits], ascending */
    int32_t draws;                     /* tokens to draw, at most batch_max_draws */
    const struct draw *draw;           /* [draws] */
    int32_t vocab_limit;               /* ids from here on are never drawn */
};

/* Attention of one layer on one rank. */
struct attention {
    struct range q_heads;  /* of the model, on this rank */
    struct range kv_heads; /* those that they read */
    int32_t group;         /* query heads a KV head, in the model */
    int32_t leaves;        /* query heads of the model: leaves of one exact sum */
    int32_t head_dim;
    int32_t row; /* head_row(head_dim): floats of a head in q and in the cache */
    float eps;
};

/* What add_norm is given, for a stage that begins with it. */
struct residual {
    int32_t hidden;
    double *sum;
    float *x;
    const float *norm;
    float eps;
    float *xn;
};

/* Who computes what in an FFN: the slots (row, weight) of each local expert, by expert, rows
 * ascending. A dense layer is one expert with every row at weight 1. */
struct route {
    int32_t *chosen;      /* [rows, top_k]: expert ids of the model */
    float *chosen_weight; /* [rows, top_k] */
    int32_t *first;       /* [local experts + 1]: first slot of each */
    int32_t *row;         /* [slots] */
    float *weight;        /* [slots] */
};

struct backend;

struct kernels {
    const char *name;
    /* A step may begin before the one before is finished, and feed tokens that that one draws. */
    bool ahead;
    bool masks; /* `draw` knows draw.mask */

    /* Where everything but the batch lies; the backend's. */
    struct memory *(*memory)(struct backend *be);

    /* Once, after loading, before any stage: weights stay where they are. */
    enum status (*prepare)(struct backend *be, const struct weights *w, struct error *err);

    /* First in a step, whose stages are all given this batch. */
    void (*begin)(struct backend *be, const struct batch *b);

    /* NULL, or: the i-th step that is worth recording, for which stages are called once in advance
     * and nothing runs; false: there are no more. Of its batch only the counts are set. */
    bool (*record)(struct backend *be, int32_t i, struct batch *b);

    /* Before a collective over this memory, with a backend that records. `captured`: the collective
     * puts itself on the backend's stream and may be recorded. False: it is not to be done now. */
    bool (*meet)(struct backend *be, bool captured);

    /* sum[rows, hidden] (f64) = the embedding rows held here (vocabulary rows from first_row), zero
     * for tokens of other ranks; x[rows, hidden] = 0. */
    void (*embed)(struct backend *be, const struct batch *b, const struct matrix *w,
                  int32_t first_row, int32_t hidden, float *x, double *sum);

    /* rope[rows, head_dim]: cos, then sin, of pos * frequency, times scale, head_dim / 2 each.
     * Angles, cosines and sines are rounded to fp32 as the reference's are. */
    void (*rope_angles)(struct backend *be, const struct batch *b, const float *frequency,
                        float scale, int32_t head_dim, float *rope);

    /* x += sum (where sum is not NULL), then xn = rms_norm(x) * norm (where norm is not NULL).
     * x, xn: [rows, hidden]. A sum that was taken in may be left zero: see o_proj. */
    void (*add_norm)(struct backend *be, int32_t rows, int32_t hidden, double *sum, float *x,
                     const float *norm, float eps, float *xn);

    /* q, k, v = projections of xn, plus biases in fp32; q and k normed by head and rotated; q
     * scaled by 1/sqrt(head_dim) into q [rows, local heads, row]; k, v rounded into the cache. tmp:
     * as large as q and kv. */
    void (*qkv)(struct backend *be, const struct batch *b, const struct attention *a,
                const struct layer_weights *w, const float *xn, const float *rope, float *q_tmp,
                float *kv_tmp, float *q, const struct kv_layer *kv);

    /* out[rows, local heads * head_dim] = attention of q over the cache, positions 0..pos. */
    void (*attention)(struct backend *be, const struct batch *b, const struct attention *a,
                      const float *q, const struct kv_layer *kv, float *out);

    /* sum[rows, hidden] (f64) = exact sum over local heads of attn . o. Here and in ffn_down a
     * backend may overwrite `sum`, or add to it: it is zero when a step begins (one that fails ends
     * the engine), embed alone sets it, and add_norm takes it in, and leaves it zero, before
     * another stage of these. */
    void (*o_proj)(struct backend *be, int32_t rows, const struct attention *a,
                   const struct matrix *o, const float *attn, double *sum);

    /* add_norm; then softmax(router . xn), top_k largest (ties to the lower id), renormalised if
     * `renormalise`; then the slots of experts [local.begin, local.end). */
    void (*router)(struct backend *be, int32_t rows, const struct residual *r,
                   const struct matrix *w, int32_t top_k, bool renormalise, struct range local,
                   float *logits, struct route *route);

    /* One expert, every row, weight 1: once a step, for all dense layers. */
    void (*route_dense)(struct backend *be, int32_t rows, struct route *route);

    /* h[slots, columns] = silu(gate . xn[row]) * (up . xn[row]) */
    void (*ffn_up)(struct backend *be, const struct ffn *ffn, int32_t count,
                   const struct route *route, int32_t hidden, const float *xn, float *h);

    /* sum[rows, hidden] (f64) = exact sum over slots and FFN_BLOCK columns of weight * (down . h).
     * `leaves`: how many the whole model adds to one element, for the range check. */
    void (*ffn_down)(struct backend *be, int32_t rows, const struct ffn *ffn, int32_t count,
                     const struct route *route, int32_t hidden, int32_t leaves, const float *h,
                     double *sum);

    /* logits[logits, padded] of the batch's logit rows over this rank's vocabulary rows; -infinity
     * in the padding. */
    void (*lm_head)(struct backend *be, const struct batch *b, const struct matrix *w,
                    int32_t padded, const float *xn, int32_t hidden, float *logits);

    /* Last in a step: draws the batch's tokens (worker/sampler.h) from its logits as the stage's
     * ranks gather them: [shards][logits][padded], a token's column being its id. Edits of logits
     * are undone, and masks leave none. */
    void (*draw)(struct backend *be, const struct batch *b, float *logits, int32_t shards,
                 int32_t padded);

    /* What the step last finished drew, [draws] in the host's memory, and, unless another has begun
     * since, its logits copied there as rows[logits, shards * padded]. */
    const int32_t *(*drawn)(const struct backend *be);
    enum status (*read_logits)(struct backend *be, const struct batch *b, const float *logits,
                               int32_t shards, int32_t padded, float *rows, struct error *err);

    /* Last of a step's calls: no stage of it follows. */
    void (*end)(struct backend *be);

    /* All of the oldest step that has ended and was not finished has run. At most one has ended
     * besides, and only with `ahead`. */
    enum status (*finish)(struct backend *be, struct error *err);

    /* Leaves beyond the range in which sums are exact (2^20 over the number of leaves), counted
     * since creation. Not zero: layouts may differ in their last bits; the engine warns. */
    uint64_t (*range_exceeded)(const struct backend *be);

    void (*destroy)(struct backend *be);
};

/* The CPU backend. `ops`: a name for cpu_ops_choose. The pool stays the caller's; `scratch_bytes`
 * for each of its threads is the backend's, and so is room for activations as codes, which weights
 * in panels take (`codes` NULL: there are none). A step draws at most `draws` tokens (0: this rank
 * draws none) from rows of at most `vocab` logits, padding included. */
enum status cpu_backend_create(const char *ops, struct pool *pool, uint64_t scratch_bytes,
                               const struct code_blocks *codes, int32_t draws, int32_t vocab,
                               const struct kernels **kernels, struct backend **out,
                               struct error *err);

#endif
