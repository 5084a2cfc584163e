/*
 * What a checkpoint folder's config.json says about the model: every number that the engine uses is
 * read from here, none from a table in code. Pure; any thread.
 *
 * Field names and meanings: Hugging Face Transformers, configuration_qwen3_moe, _qwen3 (dense:
 * every layer has one FFN) and _qwen2 (dense too: biases on q, k and v, no norms of q and k).
 */
#ifndef WITAN_PARTITION_CONFIG_H
#define WITAN_PARTITION_CONFIG_H

#include "base/error.h"
#include "partition/checkpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct manifest;

enum { MAX_LAYERS = 512, MAX_EXPERTS = 4096, MAX_TOP_K = 64, MAX_EOS = 16 };

/* How the linear weights of the layers are stored; see weight_format.h. */
enum weight_format { FORMAT_PLAIN, FORMAT_FP8, FORMAT_GPTQ, FORMAT_AWQ };

/* quantization_config. All zero for plain weights. */
struct quantization {
    enum weight_format format;
    int32_t bits;               /* of one weight */
    int32_t block_rows;         /* rows of a scale (fp8) or of a packed word (gptq, awq) */
    int32_t block_cols;         /* columns of a scale; 0 = the whole row */
    bool act_order;             /* desc_act: the columns of a group lie anywhere */
    uint16_t plain[MAX_LAYERS]; /* modules_to_not_convert: bit role - WEIGHT_Q of a layer */
};

enum { YARN_MAX_FACTOR = 1024 };

/* YaRN as rope_scaling states it, for every position of every prompt (static scaling). */
struct yarn {
    double factor;           /* 1 or more; 0: none, and nothing below means anything */
    int32_t original;        /* original_max_position_embeddings: the trained length */
    double beta_fast;        /* turns over the trained length from which on a wave is kept */
    double beta_slow;        /* and below which it is slowed down by the factor */
    double attention_factor; /* on cosines and sines; 0: from factor and the two below */
    double mscale;           /* 0: not stated */
    double mscale_all_dim;   /* 0: not stated */
    bool truncate;           /* the ramp's ends are whole dimensions */
};

struct model_config {
    int32_t hidden;           /* hidden_size */
    int32_t layers;           /* num_hidden_layers, 1..MAX_LAYERS */
    int32_t q_heads;          /* num_attention_heads */
    int32_t kv_heads;         /* num_key_value_heads; divides q_heads */
    int32_t head_dim;         /* head_dim, or what its family has where absent; even */
    int32_t vocab;            /* vocab_size: rows of the embedding, padding included */
    int32_t experts;          /* num_experts or num_local_experts; 0 when every layer is dense */
    int32_t top_k;            /* num_experts_per_tok, 1..experts */
    int32_t moe_intermediate; /* moe_intermediate_size */
    int32_t intermediate;     /* intermediate_size, of dense layers */
    int32_t max_position;     /* max_position_embeddings, or as far as YaRN reaches, if further */
    enum dtype dtype;         /* torch_dtype or dtype: of weights not quantised, unless they say */
    float rms_eps;
    double rope_theta;
    struct yarn yarn;
    bool attention_bias; /* of the q, k and v projections; none has one of o */
    bool qk_norm;        /* RMSNorm of each head of q and k */
    bool norm_topk_prob;
    bool tied_embeddings;             /* lm_head is the embedding */
    uint8_t layer_is_moe[MAX_LAYERS]; /* by mlp_only_layers and decoder_sparse_step */
    int32_t eos[MAX_EOS]; /* eos_token_id of generation_config.json, else of config.json */
    int32_t eos_count;
    struct quantization quant;
};

/* Sampling defaults of generation_config.json; what it does not say keeps the field's neutral value
 * (temperature 1, top_p 1, top_k 0 = off, min_p 0). do_sample false gives temperature 0 (greedy).
 */
struct generation_config {
    float temperature;
    float top_p;
    float min_p;
    int32_t top_k;
    float repetition_penalty; /* 1 = off */
};

/*
 * Reads DIR/config.json, or the metadata where the weights are GGUF (gguf.h), and, where present,
 * DIR/generation_config.json. Refuses in one line naming file, field, expected and found: another
 * model_type or an architecture that is not its own, a missing or mistyped field, a size out of
 * range, heads that do not divide, an odd head_dim, any rope_scaling but null, "default" and "yarn"
 * (named), a field of YaRN that is not known, an attention_bias that is not the family's, a
 * hidden_act but silu, sliding windows in use, a quantization_config that weight_format.h does not
 * name.
 */
enum status config_load(const char *dir, struct model_config *config,
                        struct generation_config *generation, struct error *err);

/* The same with a manifest of the folder (NULL: none): what is read must be as it says. */
enum status config_load_proven(const char *dir, const struct manifest *manifest,
                               struct model_config *config, struct generation_config *generation,
                               struct error *err);

/* The same from text, for tests and fuzzers; `what` names it in messages. */
enum status config_parse(const char *what, const char *text, size_t len,
                         struct model_config *config, struct error *err);

/* generation_config.json's text over what `config` (eos alone) and `generation` hold already;
 * fields that it lacks stay, and so does everything on failure. */
enum status config_parse_generation(const char *what, const char *text, size_t len,
                                    struct model_config *config,
                                    struct generation_config *generation, struct error *err);

#endif
