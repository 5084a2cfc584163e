/*
 * The weights that a model of this config has, each as a matrix [rows, cols] (a norm is one row, a
 * bias one column), and where each lies in the checkpoint. The plan cuts these; the loader reads
 * the cuts.
 *
 * Index order is fixed: embedding, then layer by layer, then final norm and lm_head; inventory_find
 * is arithmetic or a table, not a search by name. Pure but for inventory_bind; any thread.
 */
#ifndef WITAN_PARTITION_INVENTORY_H
#define WITAN_PARTITION_INVENTORY_H

#include "partition/checkpoint.h"
#include "partition/config.h"
#include "partition/quant.h"

/* X(enumerator, words for messages, how the plan splits it) */
#define WEIGHT_ROLES(X)                                                                            \
    X(WEIGHT_EMBED, "embed_tokens", SPLIT_VOCAB)                                                   \
    X(WEIGHT_INPUT_NORM, "input_layernorm", SPLIT_NONE)                                            \
    X(WEIGHT_Q, "q_proj", SPLIT_Q_ROWS)                                                            \
    X(WEIGHT_K, "k_proj", SPLIT_KV_ROWS)                                                           \
    X(WEIGHT_V, "v_proj", SPLIT_KV_ROWS)                                                           \
    X(WEIGHT_Q_BIAS, "q_proj.bias", SPLIT_Q_ROWS)                                                  \
    X(WEIGHT_K_BIAS, "k_proj.bias", SPLIT_KV_ROWS)                                                 \
    X(WEIGHT_V_BIAS, "v_proj.bias", SPLIT_KV_ROWS)                                                 \
    X(WEIGHT_Q_NORM, "q_norm", SPLIT_NONE)                                                         \
    X(WEIGHT_K_NORM, "k_norm", SPLIT_NONE)                                                         \
    X(WEIGHT_O, "o_proj", SPLIT_Q_COLS)                                                            \
    X(WEIGHT_POST_NORM, "post_attention_layernorm", SPLIT_NONE)                                    \
    X(WEIGHT_ROUTER, "mlp.gate", SPLIT_NONE)                                                       \
    X(WEIGHT_GATE, "gate_proj", SPLIT_FFN_ROWS)                                                    \
    X(WEIGHT_UP, "up_proj", SPLIT_FFN_ROWS)                                                        \
    X(WEIGHT_DOWN, "down_proj", SPLIT_FFN_COLS)                                                    \
    X(WEIGHT_FINAL_NORM, "norm", SPLIT_NONE)                                                       \
    X(WEIGHT_LM_HEAD, "lm_head", SPLIT_VOCAB)

enum weight_role {
#define X(role, words, split) role,
    WEIGHT_ROLES(X)
#undef X
        WEIGHT_ROLE_COUNT
};

enum weight_split {
    SPLIT_NONE,     /* every rank of the stage holds it whole */
    SPLIT_VOCAB,    /* rows over the stage's W ranks, padded */
    SPLIT_Q_ROWS,   /* rows by query heads over attn_tp */
    SPLIT_Q_COLS,   /* columns by query heads over attn_tp */
    SPLIT_KV_ROWS,  /* rows by KV heads that the rank's query heads read */
    SPLIT_FFN_ROWS, /* rows by blocks of FFN_BLOCK of the intermediate dimension */
    SPLIT_FFN_COLS, /* columns by the same blocks */
};

const char *weight_role_words(enum weight_role role);
enum weight_split weight_role_split(enum weight_role role);

/* Norms and biases: tensors of one dimension, which a rank keeps in fp32. */
bool weight_role_is_vector(enum weight_role role);

/* How a weight lies in its file. All but plain ones are fp32 in memory (weight_read.h), or as
 * weight_pack.h says. */
enum weight_store {
    STORE_PLAIN,  /* of dtype; the bytes at (r, c) lie at offset + r * row_stride + c * size */
    STORE_FP8,    /* rows of e4m3, and `scales` of blocks */
    STORE_GROUPS, /* GPTQ or AWQ: words of qweight, `scales` and `zeros` of groups, `order` */
    STORE_GGML,   /* rows of blocks of type `ggml` */
};

/* A tensor beside a quantised weight. */
struct weight_part {
    int file; /* -1: there is none */
    uint64_t offset;
    enum dtype dtype; /* of scales */
};

/* What matrices become in memory: weight_pack.h; the first three numbers travel in messages.
 * X(enumerator, the operator's word) */
#define WEIGHT_MODES(X)                                                                            \
    X(WEIGHTS_PUBLISHED, "published") /* as stored; quantised ones fp32 */                         \
    X(WEIGHTS_INT8, "int8")           /* 8-bit panels */                                           \
    X(WEIGHTS_INT4, "int4")           /* 4-bit panels; embedding and lm_head 8-bit ones */         \
    X(WEIGHTS_PACKED, "packed")       /* as published, quantised ones as GPUs multiply them */

enum weight_mode {
#define X(mode, word) mode,
    WEIGHT_MODES(X)
#undef X
};

/* The word, and back of those that an operator may choose: all but "packed". False for others. */
const char *weight_mode_name(enum weight_mode mode);
bool weight_mode_named(const char *name, enum weight_mode *out);

/* One weight matrix. */
struct weight {
    enum weight_role role;
    int32_t layer;  /* -1 outside layers */
    int32_t expert; /* -1 in dense layers and outside the FFN */
    int64_t rows;
    int64_t cols;
    bool quantized; /* stored as the config's quantization_config says */
    /* Bound by inventory_bind; before, file is -1 and dtype the config's. */
    enum dtype dtype; /* in memory */
    enum weight_store store;
    int file;
    uint64_t offset;
    uint64_t row_stride; /* bytes from a row of the tensor to the next; of qweight: of words */
    enum ggml_type ggml;
    struct weight_part scales, zeros, order;
};

struct inventory {
    struct weight *weights; /* owned */
    int32_t count;
    int32_t *layer_first;         /* [layers + 1]: index of the layer's first weight; owned */
    int32_t common;               /* weights of a layer before its router or FFN */
    int32_t place[WEIGHT_ROUTER]; /* of those, by role, in their layer; -1: the model has none */
    int32_t experts;
    int32_t layers;
    int32_t head_dim;
    struct quantization quant; /* the config's */
    enum weight_mode mode;     /* WEIGHTS_PUBLISHED until somebody says otherwise */
};

bool inventory_layer_is_moe(const struct inventory *inv, int32_t layer);

/* All weights of the config with their shapes, unbound (file -1). */
enum status inventory_create(const struct model_config *config, struct inventory **out,
                             struct error *err);
void inventory_destroy(struct inventory *inv);

/* The index of a weight, or -1 when the model has none such (tied lm_head, router of a dense
 * layer). */
int32_t inventory_find(const struct inventory *inv, enum weight_role role, int32_t layer,
                       int32_t expert);

/*
 * Finds each weight in the checkpoint and demands its shape and a dtype that the engine reads.
 * Experts may be stored one tensor each (`mlp.experts.E.gate_proj.weight`, ...) or fused
 * (`mlp.experts.gate_up_proj` [E, 2 x I, H] gate rows first, `mlp.experts.down_proj` [E, H, I]).
 * A quantised weight comes with all its parts: `weight_scale_inv` (FP8), `qzeros` and `scales`, and
 * `g_idx` where columns are in activation order. GGUF goes by llama.cpp's names for qwen3moe.
 * A tensor missing, of another shape or dtype is one line naming it, expected and found. Tensors
 * that the model does not need are refused too, by name, since serving a part of a checkpoint in
 * silence is wrong (rotary_emb.inv_freq buffers of old exports and lm_head where embeddings are
 * tied are ignored).
 */
enum status inventory_bind(struct inventory *inv, const struct model_config *config,
                           const struct checkpoint *ck, struct error *err);

#endif
