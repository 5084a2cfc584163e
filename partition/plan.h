/*
 * The plan: which rank of a worker group holds which cut of which weight, which heads, experts and
 * vocabulary rows it computes, what memory it needs for what, and what it says to the others. Data,
 * made from the config alone; no network, no device, no weights. Any thread; immutable once made.
 *
 * World rank = stage * W + i. Inside a stage, for attention i = attn_dp * tp + attn_tp; for the FFN
 * i = moe_ep * moe_tp_size + moe_tp. Ranks of one attn_tp index in different attn_dp replicas
 * compute the same rows.
 */
#ifndef WITAN_PARTITION_PLAN_H
#define WITAN_PARTITION_PLAN_H

#include "partition/inventory.h"
#include "partition/panel.h"

enum {
    FFN_BLOCK = 128, /* columns of an intermediate dimension that no layout separates: a leaf */
    KV_BLOCK = 64,   /* positions of a KV block, and of an attention tile */
    LANES = 16,      /* virtual lanes of the CPU kernels; head rows are padded to them */
    ATTENTION_QUERIES = 32, /* of a KV head that a thread of the CPU works on together */
    KV8_GROUP = 32,         /* elements of a head that share a scale in an int8 KV cache */
    MAX_WORLD = 1024,
    MAX_GUESSES = 15, /* tokens that a sequence is guessed ahead in a step */
};

struct layout {
    int32_t pp;
    int32_t tp; /* attn_tp */
    int32_t ep; /* moe_ep; 0 = the largest that works */
    int32_t w;  /* ranks of a stage; 0 = max(tp, ep) */
};

/* How K and V are kept. The numbers travel in messages. */
enum kv_dtype { KV_BF16, KV_F32, KV_INT8 };

/* What a group is sized for. Every buffer of a rank follows from this and the plan. */
struct engine_limits {
    int32_t max_rows;    /* tokens of one step, over all sequences */
    int32_t max_seqs;    /* sequences running at once */
    int32_t max_logits;  /* rows of one step that want logits; max_seqs, or max_rows for --all */
    int32_t context;     /* tokens of one sequence, prompt and answer */
    int32_t kv_blocks;   /* KV blocks of the pool; 0 = max_seqs full contexts */
    int32_t threads;     /* compute threads of a rank */
    int32_t gpu_percent; /* of a GPU's memory that its ranks may fill with it; 0 = 90 */
    bool fast;           /* on GPUs: not the reproducible arithmetic (worker/cuda/fast.h) */
    enum kv_dtype kv_dtype;
};

/* [begin, end) */
struct range {
    int32_t begin;
    int32_t end;
};

/* The part of one weight that a rank holds: rows [row, row + rows), columns [col, col + cols). */
struct slice {
    int32_t weight; /* index in the inventory */
    int64_t row, rows;
    int64_t col, cols;
};

/* X(field, words): a rank's memory by purpose, in bytes. */
#define MEMORY_PURPOSES(X)                                                                         \
    X(weights, "weights")                                                                          \
    X(kv_cache, "KV cache")                                                                        \
    X(activations, "activations")                                                                  \
    X(logits, "logits")                                                                            \
    X(scratch, "scratch and tables")

struct memory_plan {
#define X(field, words) uint64_t field;
    MEMORY_PURPOSES(X)
#undef X
};

struct rank_plan {
    int32_t rank;
    int32_t stage;
    int32_t attn_tp, attn_dp; /* this rank's indices */
    int32_t moe_ep, moe_tp;
    struct range layers;
    struct range q_heads;
    struct range kv_heads; /* those that q_heads read: replicated where ranks share them */
    struct range vocab;    /* rows of embedding and lm_head, within the real vocabulary */
    int32_t vocab_padded;  /* rows of the padded shard: the same on every rank */
    struct range experts;
    struct range moe_cols;   /* columns of each expert's intermediate dimension */
    struct range dense_cols; /* columns of a dense layer's intermediate dimension */
    struct slice *slices;    /* [slice_count], in inventory order; owned by the plan */
    int32_t slice_count;
    uint64_t weight_elements;
};

struct plan {
    struct layout layout;    /* w filled in */
    int32_t world;           /* pp * w */
    int32_t moe_tp_size;     /* w / ep */
    struct rank_plan *ranks; /* [world] */
};

/* Fills in layout->w and layout->ep and refuses what cannot work, in one line that also names the
 * nearest layouts that can: tp divides the query heads, ep the experts, both divide w, pp at most
 * the layers. Quantised weights are cut on the borders of their blocks alone, and experts into
 * equal shares. Where w/ep exceeds the blocks of an expert that is not quantised, some ranks hold
 * no FFN columns and only wait: legal, not quick. */
enum status layout_check(const struct model_config *config, struct layout *layout,
                         struct error *err);

enum { LAYOUT_WHY_BYTES = 256 };

/* The same for a layout with w and ep filled in, taken apart: false with the reason in `why`; and
 * the nearest that work, of the same number of ranks first, at most `most`: returns how many. */
bool layout_legal(const struct model_config *config, const struct layout *layout,
                  char why[LAYOUT_WHY_BYTES]);
int layout_nearest(const struct model_config *config, const struct layout *wish, int most,
                   struct layout *out);

/* The plan of every rank. The inventory may be unbound. */
enum status plan_create(const struct model_config *config, const struct inventory *inv,
                        struct layout layout, struct plan **out, struct error *err);
void plan_destroy(struct plan *plan);

/* The same without slices (NULL, 0 of them): who stands where, for surveys of many layouts. */
enum status plan_sketch(const struct model_config *config, struct layout layout, struct plan **out,
                        struct error *err);

/*
 * The engine's buffers that scale with the limits, in bytes. The worker allocates exactly these
 * (worker/model.c), so plan and process cannot disagree.
 */
#define WORKSPACE_BUFFERS(X)                                                                       \
    X(x)       /* f32 [max_rows, hidden]: the residual stream */                                   \
    X(xn)      /* f32 [max_rows, hidden]: its norm */                                              \
    X(sum)     /* f64 [max_rows, hidden]: exact sums on their way through an all-reduce */         \
    X(q)       /* f32 [max_rows, q_heads of the rank, head row] */                                 \
    X(kv)      /* f32 [max_rows, 2 x kv_heads of the rank, head row]: before the cache write */    \
    X(attn)    /* f32 [max_rows, q_heads of the rank x head_dim] */                                \
    X(rope)    /* f32 [max_rows, head_dim]: cosines, then sines, of each row's position */         \
    X(router)  /* f32 [max_rows, experts] */                                                       \
    X(route)   /* slots: expert, row, weight of each (row, chosen expert), sorted by expert */     \
    X(h)       /* f32 [slots, columns of the rank]: silu(gate) * up */                             \
    X(logits)  /* f32 [max_logits, vocabulary padded]; shard and gathered */                       \
    X(scratch) /* f32 a thread */

struct workspace_bytes {
#define X(name) uint64_t name;
    WORKSPACE_BUFFERS(X)
#undef X
};

struct workspace_bytes plan_workspace(const struct model_config *config, const struct plan *plan,
                                      const struct rank_plan *rank,
                                      const struct engine_limits *limits);

/* Rows of a step that want logits, in l->max_rows: one a sequence, and one for each token that is
 * guessed ahead of it. */
int32_t plan_max_logits(const struct engine_limits *l, int32_t speculate);

/* Bytes of thread scratch a thread, shared between plan_workspace and the kernels. */
uint64_t plan_thread_scratch(const struct model_config *config, const struct rank_plan *rank);

/* What a CPU that multiplies weights in panels (panel.h) keeps as codes beside a step's
 * activations, in blocks of PANEL_BLOCK columns. */
struct code_blocks {
    uint64_t norm;  /* [max_rows, hidden] */
    uint64_t attn;  /* [max_rows, q_heads of the rank x head_dim] */
    uint64_t h;     /* [slots, columns of the rank] */
    int32_t hidden; /* columns */
    int32_t widest; /* columns of any of them */
};
enum { CODE_BLOCK_BYTES = PANEL_BLOCK + 8 }; /* of a block: a scale and a sum */

struct code_blocks plan_code_blocks(const struct model_config *config, const struct rank_plan *rank,
                                    const struct engine_limits *limits);

/* Bytes of one KV block of the rank, K and V over all its layers and KV heads. */
uint64_t plan_kv_block_bytes(const struct model_config *config, const struct rank_plan *rank,
                             enum kv_dtype kv_dtype);

/* "bf16", "f32" or "int8", and back: false for anything else. */
const char *kv_dtype_name(enum kv_dtype dtype);
bool kv_dtype_named(const char *name, enum kv_dtype *out);

/* Does the model read contexts of so many tokens? `what` names where they were asked for.
 * ERR_INVALID says how far it reads; where YaRN may reach them, what config.json would have to
 * state, and what one such sequence takes of the KV cache, over all ranks of a group that share no
 * KV head. */
enum status plan_check_context(const struct model_config *config, const char *what, int64_t context,
                               enum kv_dtype kv_dtype, struct error *err);

/* Memory by purpose: plain weights in the dtype that `inv` was bound to or, unbound, the config's;
 * quantised ones as fp32, which the CPU engine makes of them, or packed or in panels as inv->mode
 * says. */
struct memory_plan plan_memory(const struct model_config *config, const struct inventory *inv,
                               const struct plan *plan, const struct rank_plan *rank,
                               const struct engine_limits *limits);
uint64_t memory_plan_total(const struct memory_plan *m);

/* Bytes that the rank reads of each file of the checkpoint. `bytes` has one entry a file. */
void plan_file_bytes(const struct inventory *inv, const struct rank_plan *rank, int file_count,
                     uint64_t *bytes);

/* Between whom a collective goes. */
enum plan_comm {
    PLAN_STAGE,    /* the W ranks of the stage */
    PLAN_ATTN,     /* the tp ranks of one attn_dp replica */
    PLAN_PREVIOUS, /* with the rank that many ranks before: pp receives */
    PLAN_NEXT,     /* and after: pp sends */
};

/* A step's collectives of one rank, a row of the batch each unless said otherwise. */
struct plan_collective {
    const char *name;
    enum plan_comm comm;
    int32_t ranks;        /* size of the communicator */
    int32_t count;        /* a step */
    uint64_t bytes_a_row; /* payload of one of them, for one row */
};

enum { PLAN_MAX_COLLECTIVES = 6 };

/* Fills `out` and returns how many kinds there are. */
int plan_collectives(const struct model_config *config, const struct plan *plan,
                     const struct rank_plan *rank,
                     struct plan_collective out[PLAN_MAX_COLLECTIVES]);

/* head_dim rounded up to LANES: floats of one head's row in q and in the KV cache. */
static inline int32_t head_row(int32_t head_dim)
{
    return (head_dim + LANES - 1) / LANES * LANES;
}

/* Groups of KV8_GROUP elements in a head's row; the last may be of half of them. */
static inline int32_t kv8_groups(int32_t row)
{
    return (row + KV8_GROUP - 1) / KV8_GROUP;
}

/* Bytes of K, or of V, of one block and KV head: its elements and, of int8, their scales in bf16,
 * one a position and group. */
static inline size_t kv_tile_bytes(enum kv_dtype dtype, int32_t row)
{
    size_t each = dtype == KV_F32 ? 4 : dtype == KV_BF16 ? 2 : 1;
    size_t scales = dtype == KV_INT8 ? (size_t)kv8_groups(row) * 2 : 0;
    return KV_BLOCK * ((size_t)row * each + scales);
}

static inline int32_t range_size(struct range r)
{
    return r.end - r.begin;
}

#endif
