/*
 * A rank's weights in memory: its slices of the plan, read from the checkpoint once at start, then
 * read-only. The names that the forward pass uses are bound here once; nothing is looked up by name
 * after.
 */
#ifndef WITAN_WORKER_WEIGHTS_H
#define WITAN_WORKER_WEIGHTS_H

#include "partition/plan.h"
#include "partition/weight_pack.h"
#include "worker/loader.h"

/* Of what the arena holds: goes up whenever one manifest and plan would give other bytes or other
 * places than before, so that no cache of before is taken (weights_cache.h). */
enum { WEIGHTS_FORMAT = 1 };

/* [rows, cols] of dtype, row-major and dense (row stride = cols); or packed (weight_pack.h), with
 * the scales behind the rows; or in panels (panel.h), `data` the first. */
struct matrix {
    const void *data;
    enum dtype dtype;
    int32_t rows;
    int32_t cols;
    struct weight_shape shape; /* FORM_VALUES but where a backend reads other forms */
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
    uint64_t bytes;         /* of matrices, each on a border of 64 */
    uint64_t vector_bytes;  /* of norms and biases */
    uint64_t loading_bytes; /* of buffers that the machine's ranks shared while they read */
    /* owned, of `memory` but for the table of blocks */
    struct memory *memory;
    void *arena;    /* [bytes + vector_bytes], with room up to a border of FILE_PAGE */
    bool mapped;    /* the arena is a file's pages, read-only (weights_map) */
    float *vectors; /* behind the matrices */
    struct ffn *ffns;
};

/* Room for this rank's slices in `memory`, and the names bound to it; the values are not there yet.
 * weights_destroy releases. */
enum status weights_create(const struct model_config *config, const struct inventory *inv,
                           const struct plan *plan, const struct rank_plan *rank,
                           struct memory *memory, struct weights **out, struct error *err);

/*
 * Reads this rank's slices; quantised ones become fp32, or packed or panels as inv->mode says.
 * Collective over `world`, the plan's ranks; those of `node`, its part on this machine, read each
 * byte of the checkpoint once together (loader.h). Both NULL: this rank reads alone. `inv` is
 * bound; `ck` is read by chunks. A failure is every rank's, and the values are then any; errors
 * name file and tensor.
 */
enum status weights_load(struct weights *w, const struct inventory *inv, struct checkpoint *ck,
                         const struct plan *plan, const struct rank_plan *rank, struct comm *world,
                         struct comm *node, load_progress progress, void *progress_arg,
                         struct error *err);

/* Instead of weights_load, for benchmarks: random numbers that keep activations' size, norms and
 * biases of 1. Of bf16, fp32, packed and panels; ERR_UNSUPPORTED for others. Not collective. */
enum status weights_random(struct weights *w, uint64_t seed, struct error *err);

/* Makes the arena the file's pages from `offset` on, a border of FILE_PAGE, locked in memory as
 * they are touched and then read-only; nothing is read yet. What cannot be changes nothing:
 * ERR_UNSUPPORTED for memory that is not the host's, ERR_LIMIT where memory may not be locked, and
 * others. Not collective. */
enum status weights_map(struct weights *w, int fd, uint64_t offset, struct error *err);
void weights_unmap(struct weights *w); /* the arena is memory as it was, of any bytes */

void weights_destroy(struct weights *w);

#endif
