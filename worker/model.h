/*
 * One rank's share of the model: its weights, KV cache, buffers and communicators, and the forward
 * pass over them. Created by every rank of a group together; used by the rank's engine thread
 * alone.
 */
#ifndef WITAN_WORKER_MODEL_H
#define WITAN_WORKER_MODEL_H

#include "transport/transport.h"
#include "worker/expert_counts.h"
#include "worker/kernels.h"
#include "worker/progress.h"

/* Buffers of a step, in the backend's memory; sizes by plan_workspace. */
struct workspace {
    float *x;      /* [rows, hidden]: the residual stream */
    float *xn;     /* [rows, hidden]: its norm */
    double *sum;   /* [rows, hidden]: exact sums; zero at first, and then as kernels.h says */
    float *q;      /* [rows, local q heads, head row] */
    float *kv;     /* [rows, 2, local kv heads, head_dim]: before the cache */
    float *attn;   /* [rows, local q heads * head_dim] */
    float *rope;   /* [rows, head_dim] */
    float *router; /* [rows, experts] */
    float *h;      /* [slots, local FFN columns] */
    float *shard;  /* [logits, vocabulary of a rank]; last stage */
    float *logits; /* [ranks of the stage][logits, vocabulary of a rank]; last stage */
    struct route route;
    struct route dense; /* every dense layer's; NULLs where there is none */
};

struct cuda_plugin;
struct manifest;
struct nccl;

enum {
    MODEL_MAX_COMMS = 8,
    MODEL_STAGE_BYTES = 4 << 20,
    MODEL_STEP_TIMEOUT_S = 60,     /* what commands take where nobody says otherwise */
    MODEL_CONNECT_TIMEOUT_S = 120, /* for NCCL's inits */
};

struct model {
    struct model_config config;
    struct plan *plan;
    const struct rank_plan *rank;
    struct engine_limits limits;
    enum weight_mode mode; /* what the weights have become */
    struct weights *weights;
    struct kv_cache kv;
    const struct kernels *kernels;
    struct backend *backend;
    struct memory *memory; /* the backend's */
    struct pool *pool;
    struct workspace ws;
    float *frequency;   /* [head_dim / 2]: RoPE's inverse frequencies (worker/rope.h) */
    float rope_scale;   /* on its cosines and sines */
    struct comm *world; /* the runner's */
    struct comm *node;  /* the ranks of this machine */
    struct comm *stage; /* the W ranks of this pipeline stage */
    struct comm *attn;  /* the attn_tp ranks that share an o_proj sum */
    struct comm *pipe;  /* the world, for what lies in the backend's memory */
    struct comm *owned[MODEL_MAX_COMMS]; /* those of the above to be destroyed, last first */
    int owned_count;
    const struct cuda_plugin *cuda; /* options' */
    int32_t device;                 /* with cuda: of this machine's, from 0 */
    struct nccl *nccl;              /* NULL: ranks do not meet by it */
    bool captured;      /* ranks meet on the backend's stream alone, in recordings too */
    void *stage_buffer; /* of the host: sums on their way between a device and other ranks */
    struct memory_plan memory_plan; /* what the plan says this rank takes */
    /* In the collectives of model_forward, waiting for other ranks included; next to nothing where
     * they run on a device's stream. */
    int64_t collective_ns;
    struct expert_counts *expert_counts; /* NULL: this rank counts none, as none on a device does */
    struct rank_progress *progress;      /* options', or: */
    struct rank_progress unwatched;
};

/* What the operator chose; everything else follows from the checkpoint and the plan. */
struct model_options {
    const char *dir; /* the checkpoint's folder */
    const struct manifest
        *manifest;             /* of that folder (NULL: none): what is read must be as signed */
    const char *weights_cache; /* a folder (weights_cache.h), with a manifest; NULL: none */
    enum weight_mode weights;  /* what they become: published, int8 or int4; on GPUs published */
    bool random_weights;       /* none are read: `dir` needs its config.json alone (benchmarks) */
    struct layout layout;
    /* kv_blocks 0: enough for max_seqs full contexts; on a GPU, of that what it has room for */
    struct engine_limits limits;
    const char *kernels;            /* for cpu_ops_choose */
    const struct cuda_plugin *cuda; /* NULL: compute on this processor; else the machine's ranks
                                       take its GPUs in turn, */
    int32_t first_gpu;              /* from this one on */
    /* How ranks on GPUs meet: "nccl", "staged" (by way of the host's memory) or "auto" (NULL too):
     * by NCCL where it serves them, else staged, saying why. */
    const char *collectives;
    const char *nccl;       /* its library; NULL: libnccl.so.2 from where the loader looks */
    int32_t step_timeout_s; /* with NCCL: a rank waits so long for its GPU; 0: for ever */
    bool spin;              /* compute threads may spin (threads of all ranks fit the cores) */
    bool progress;          /* rank 0 shows loading on standard error */
    struct rank_progress *watched; /* is told how far the engine thread is; NULL: nobody looks */
};

/*
 * Collective over `world`, whose size must be the layout's. Refuses bad input before it allocates.
 * A failure of one rank is every rank's, with the message of the lowest that failed.
 */
enum status model_create(const struct model_options *options, struct comm *world,
                         struct model **out, struct error *err);
void model_destroy(struct model *m);

/*
 * One step over all rows of the batch, collective over the group. Ranks of the last stage then have
 * its logits, the same bits on each, and the tokens that their batch asks for
 * (kernels->drawn), once kernels->finish has returned. A failed collective gives ERR_PEER and the
 * model is unusable.
 */
enum status model_forward(struct model *m, const struct batch *b, struct error *err);

/* The exact sum of x[count] over the ranks of `c`; model_forward's and ffn_forward's. */
enum status model_sum(struct model *m, struct comm *c, double *x, size_t count, struct error *err);

/* After a step, on ranks of the last stage: its logits as rows[batch->logits, model_vocab_padded]
 * in the host's memory. Entries from config.vocab on are -infinity. NULL in model_logits_in_place:
 * they do not lie so already and must be read. */
enum status model_read_logits(struct model *m, const struct batch *b, float *rows,
                              struct error *err);
const float *model_logits_in_place(const struct model *m);
int32_t model_vocab_padded(const struct model *m);

/* The FFN of one layer, dense or MoE, with the norm before it: takes ws.sum into ws.x; the FFN's
 * own sum into ws.sum, reduced over the stage (moe.c). */
enum status ffn_forward(struct model *m, const struct layer_weights *w, bool moe, int32_t rows,
                        struct error *err);

#endif
