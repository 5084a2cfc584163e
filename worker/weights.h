/*
 * A rank's weights in memory: its slices of the plan, read from the checkpoint once at start, then
 * read-only. The names that the forward pass uses are bound here once; nothing is looked up by name
 * after.
 */
#ifndef WITAN_WORKER_WEIGHTS_H
#define WITAN_WORKER_WEIGHTS_H

#include "partition/plan.h"
#include "worker/loader.h"

/* [rows, cols] of dtype, row-major and dense (row stride = cols). */
struct matrix {
    const void *data;
    enum dtype dtype;
    int32_t rows;
    int32_t cols;
};

/* One SwiGLU feed-forward block, or this rank's columns of it: y = down(silu(gate x) * (up x)). */
struct ffn {
    struct matrix gate; /* [columns, hidden] */
    struct matrix up;   /* [columns, hidden] */
    struct matrix down; /* [hidden, columns] */
};

struct layer_weights {
    const float *input_norm; /* [hidden] */
    const float *post_norm;  /* [hidden] */
    const float *q_norm;     /* [head_dim]; NULL where the model has none */
    const float *k_norm;     /* [head_dim]; the same */
    struct matrix q;         /* [local q heads * head_dim, hidden] */
    struct matrix k;         /* [local kv heads * head_dim, hidden] */
    struct matrix v;         /* the same */
    const float *q_bias;     /* [rows of q]; NULL where the model has none, like the two below */
    const float *k_bias;     /* [rows of k] */
    const float *v_bias;     /* [rows of v] */
    struct matrix o;         /* [hidden, local q heads * head_dim] */
    struct matrix router;    /* [experts, hidden]; no data in a dense layer */
    struct ffn *ffn;         /* [ffn_count]: this rank's experts, or the one dense block */
    int32_t ffn_count;
};

struct weights {
    struct matrix embed;          /* [local vocabulary rows, hidden]; first stage */
    struct matrix lm_head;        /* the same; last stage */
    const float *final_norm;      /* [hidden]; last stage */
    struct layer_weights *layers; /* [layers of the rank] */
    int32_t layer_count;
    uint64_t bytes;         /* allocated for matrices */
    uint64_t loading_bytes; /* of buffers that the machine's ranks shared while they read */
    /* owned, of `memory` but for the table of blocks */
    struct memory *memory;
    void *arena;
    float *vectors; /* norms and biases */
    struct ffn *ffns;
};

/*
 * Reads this rank's slices into `memory`; quantised ones become fp32. Collective over `world`, the
 * plan's ranks; those of `node`, its part on this machine, read each byte of the checkpoint once
 * together (loader.h). Both NULL: this rank reads alone. `inv` is bound; `ck` is read by chunks. A
 * failure is every rank's, and nothing is kept; errors name file and tensor. weights_destroy
 * releases.
 */
enum status weights_load(const struct model_config *config, const struct inventory *inv,
                         struct checkpoint *ck, const struct plan *plan,
                         const struct rank_plan *rank, struct memory *memory, struct comm *world,
                         struct comm *node, load_progress progress, void *progress_arg,
                         struct weights **out, struct error *err);
void weights_destroy(struct weights *w);

#endif
