/*
 * Reading config.json and generation_config.json: see config.h. No state.
 *
 * What may be absent, and what it then means, follows the defaults of Transformers'
 * Qwen3MoeConfig, Qwen3Config and Qwen2Config; sizes without which there is no model are demanded.
 */
#include "partition/config.h"
#include "base/file.h"
#include "base/json.h"
#include "partition/gguf.h"
#include "partition/manifest.h"
#include "partition/weight_format.h"
#include "partition/shown.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_FILE_BYTES = 16 << 20,
    MAX_WIDTH = 1 << 20, /* of any dimension of a weight but the vocabulary */
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_VOCAB = 1 << 24,
    MAX_POSITION = 1 << 30,
};

/* What sets one family apart from the others, beyond what config.json states. */
struct family {
    const char *model_type;
    const char *architecture;
    bool experts;     /* config.json has num_experts, ... */
    bool bias;        /* of the q, k and v projections, in the module whatever config.json says */
    bool qk_norm;     /* RMSNorm of each head of q and k */
    int32_t head_dim; /* where config.json states none; 0: hidden_size / num_attention_heads */
};

static const struct family families[] = {
    {"qwen3_moe", "Qwen3MoeForCausalLM", .experts = true, .qk_norm = true},
    {"qwen3", "Qwen3ForCausalLM", .qk_norm = true, .head_dim = 128},
    {"qwen2", "Qwen2ForCausalLM", .bias = true},
};

enum { FAMILIES = sizeof families / sizeof *families };

static enum status get_int32(const json_t *obj, const char *what, const char *key, bool required,
                             int64_t min, int64_t max, int32_t *out, struct error *err)
{
    int64_t v = *out;
    TRY(json_get_int(obj, what, key, required, min, max, &v, err));
    *out = (int32_t)v;
    return OK;
}

static enum status find_family(const char *what, const json_t *root, const struct family **out,
                               struct error *err)
{
    const char *type = NULL;
    char known[128] = "";
    size_t len = 0;
    TRY(json_get_string(root, what, "model_type", true, &type, err));
    for (size_t i = 0; i < FAMILIES; i++) {
        *out = &families[i];
        if (strcmp(type, families[i].model_type) == 0)
            return OK;
        len += (size_t)snprintf(known + len, sizeof known - len, "%s\"%s\"", i ? " or " : "",
                                families[i].model_type);
    }
    return error_set(err, ERR_UNSUPPORTED, "%s: model_type: expected %s, found \"%s\"", what, known,
                     shown(type).s);
}

static enum status check_architecture(const char *what, const json_t *root,
                                      const char *architecture, struct error *err)
{
    const json_t *list = json_object_get(root, "architectures");
    if (!json_is_array(list))
        return error_set(err, ERR_INVALID, "%s: architectures: expected an array, found %s", what,
                         json_type_words(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return error_set(err, ERR_INVALID,
                             "%s: architectures[%zu]: expected a string, found %s", what, i,
                             json_type_words(json_array_get(list, i)));
        if (strcmp(name, architecture) == 0)
            return OK;
    }
    const char *first = json_string_value(json_array_get(list, 0));
    return error_set(err, ERR_UNSUPPORTED, "%s: architectures: expected \"%s\", found %s%s%s", what,
                     architecture, first ? "\"" : "", first ? shown(first).s : "none",
                     first ? "\"" : "");
}

/* A field that may be absent and must not say the opposite. */
static enum status demand_bool(const char *what, const json_t *root, const char *key, bool expected,
                               struct error *err)
{
    bool found = expected;
    TRY(json_get_bool(root, what, key, false, &found, err));
    if (found != expected)
        return error_set(err, ERR_UNSUPPORTED, "%s: %s: expected %s, found %s", what, key,
                         expected ? "true" : "false", found ? "true" : "false");
    return OK;
}

static enum status check_layer_types(const char *what, const json_t *root, struct error *err)
{
    const json_t *list = json_object_get(root, "layer_types");
    if (!list || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return error_set(err, ERR_INVALID, "%s: layer_types: expected an array, found %s", what,
                         json_type_words(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *type = json_string_value(json_array_get(list, i));
        if (!type || strcmp(type, "full_attention") != 0)
            return error_set(err, type ? ERR_UNSUPPORTED : ERR_INVALID,
                             "%s: layer_types[%zu]: expected \"full_attention\", found %s", what, i,
                             type ? shown(type).s : json_type_words(json_array_get(list, i)));
    }
    return OK;
}

/* What the engine does not compute is refused by name. */
static enum status check_features(const char *what, const json_t *root, const struct family *f,
                                  struct error *err)
{
    TRY(demand_bool(what, root, "attention_bias", f->bias, err));
    TRY(demand_bool(what, root, "use_sliding_window", false, err));
    TRY(check_layer_types(what, root, err));
    const char *act = "silu";
    TRY(json_get_string(root, what, "hidden_act", false, &act, err));
    if (strcmp(act, "silu") != 0)
        return error_set(err, ERR_UNSUPPORTED, "%s: hidden_act: expected \"silu\", found \"%s\"",
                         what, shown(act).s);
    return OK;
}

static enum status refuse_other_fields(const char *at, const json_t *obj, const char *const *known,
                                       size_t count, struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)obj, key, value)
    {
        size_t i = 0;
        while (i < count && strcmp(key, known[i]) != 0)
            i++;
        if (i == count)
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: expected no field but those of YaRN, found \"%s\"", at,
                             shown(key).s);
    }
    return OK;
}

/* Fields and their defaults: Transformers' _validate_yarn_rope_parameters and
 * _compute_yarn_parameters (modeling_rope_utils.py). */
static enum status parse_yarn(const char *at, const json_t *rope, struct yarn *out,
                              struct error *err)
{
    static const char *const known[] = {
        "type",
        "rope_type",
        "rope_theta",
        "partial_rotary_factor",
        "factor",
        "beta_fast",
        "beta_slow",
        "original_max_position_embeddings",
        "attention_factor",
        "mscale",
        "mscale_all_dim",
        "truncate",
    };
    struct yarn y = {.beta_fast = 32, .beta_slow = 1, .truncate = true};
    TRY(refuse_other_fields(at, rope, known, sizeof known / sizeof *known, err));
    TRY(json_get_real(rope, at, "factor", true, 1, YARN_MAX_FACTOR, &y.factor, err));
    TRY(get_int32(rope, at, "original_max_position_embeddings", true, 1, MAX_POSITION, &y.original,
                  err));
    TRY(json_get_real(rope, at, "beta_slow", false, 1e-3, 1e6, &y.beta_slow, err));
    TRY(json_get_real(rope, at, "beta_fast", false, y.beta_slow, 1e6, &y.beta_fast, err));
    TRY(json_get_real(rope, at, "attention_factor", false, 1e-3, 1e3, &y.attention_factor, err));
    TRY(json_get_real(rope, at, "mscale", false, 0, 1e3, &y.mscale, err));
    TRY(json_get_real(rope, at, "mscale_all_dim", false, 0, 1e3, &y.mscale_all_dim, err));
    TRY(json_get_bool(rope, at, "truncate", false, &y.truncate, err));
    *out = y;
    return OK;
}

/* rope_scaling (older) or rope_parameters (newer Transformers): absent, null, of type "default",
 * which scales nothing, or of type "yarn". *theta is set where the object holds a rope_theta. */
static enum status parse_scaling(const char *what, const json_t *root, const char *key,
                                 double *theta, struct yarn *yarn, struct error *err)
{
    const json_t *rope = json_object_get(root, key);
    if (!rope || json_is_null(rope))
        return OK;
    if (!json_is_object(rope))
        return error_set(err, ERR_INVALID, "%s: %s: expected an object, found %s", what, key,
                         json_type_words(rope));
    char at[512];
    snprintf(at, sizeof at, "%s: %s", what, key);
    const char *type = NULL;
    TRY(json_get_string(rope, at, "type", false, &type, err));
    TRY(json_get_string(rope, at, "rope_type", type == NULL, &type, err));
    if (strcmp(type, "yarn") == 0)
        TRY(parse_yarn(at, rope, yarn, err));
    else if (strcmp(type, "default") != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected rope_type \"default\" or \"yarn\", found \"%s\"", at,
                         shown(type).s);
    double part = 1;
    TRY(json_get_real(rope, at, "partial_rotary_factor", false, 0, 1, &part, err));
    if (part != 1)
        return error_set(err, ERR_UNSUPPORTED, "%s: partial_rotary_factor: expected 1, found %g",
                         at, part);
    return json_get_real(rope, at, "rope_theta", false, 1, 1e15, theta, err);
}

static enum status parse_rope(const char *what, const json_t *root, struct model_config *c,
                              struct error *err)
{
    double theta = 0;
    struct yarn scaling = {0}, parameters = {0};
    TRY(parse_scaling(what, root, "rope_scaling", &theta, &scaling, err));
    TRY(parse_scaling(what, root, "rope_parameters", &theta, &parameters, err));
    if (scaling.factor != 0 && parameters.factor != 0)
        return error_set(err, ERR_INVALID,
                         "%s: rope_parameters: expected no YaRN beside that of rope_scaling, found "
                         "factor %g and %g",
                         what, parameters.factor, scaling.factor);
    c->yarn = scaling.factor != 0 ? scaling : parameters;
    c->rope_theta = theta;
    TRY(json_get_real(root, what, "rope_theta", theta == 0, 1, 1e15, &c->rope_theta, err));
    if (theta != 0 && theta != c->rope_theta)
        return error_set(err, ERR_INVALID,
                         "%s: rope_theta: expected %g as in rope_parameters, found %g", what, theta,
                         c->rope_theta);
    if (c->yarn.factor == 0)
        return OK;
    if (c->rope_theta < 1.5) /* the ramp divides by its logarithm */
        return error_set(err, ERR_INVALID,
                         "%s: rope_theta: expected 1.5 or more with YaRN, found %g", what,
                         c->rope_theta);
    double reach = c->yarn.factor * c->yarn.original;
    reach = reach < MAX_POSITION ? reach : MAX_POSITION;
    c->max_position = reach > c->max_position ? (int32_t)reach : c->max_position;
    return OK;
}

static enum status parse_attention(const char *what, const json_t *root, const struct family *f,
                                   struct model_config *c, struct error *err)
{
    c->attention_bias = f->bias;
    c->qk_norm = f->qk_norm;
    TRY(get_int32(root, what, "num_attention_heads", true, 1, MAX_HEADS, &c->q_heads, err));
    TRY(get_int32(root, what, "num_key_value_heads", true, 1, c->q_heads, &c->kv_heads, err));
    if (c->q_heads % c->kv_heads != 0)
        return error_set(err, ERR_INVALID,
                         "%s: num_key_value_heads: expected a divisor of num_attention_heads = %d, "
                         "found %d",
                         what, c->q_heads, c->kv_heads);
    c->head_dim = f->head_dim;
    TRY(get_int32(root, what, "head_dim", false, 2, MAX_HEAD_DIM, &c->head_dim, err));
    if (c->head_dim == 0) {
        if (c->hidden % c->q_heads != 0)
            return error_set(err, ERR_INVALID,
                             "%s: head_dim: expected a number, since num_attention_heads = %d does "
                             "not divide hidden_size = %d, found nothing",
                             what, c->q_heads, c->hidden);
        c->head_dim = c->hidden / c->q_heads;
    }
    if (c->head_dim % 2 != 0)
        return error_set(err, ERR_INVALID, "%s: head_dim: expected an even number, found %d", what,
                         c->head_dim);
    return OK;
}

/* layer_is_moe, as Transformers' Qwen3MoeDecoderLayer decides it. */
static enum status parse_layer_kinds(const char *what, const json_t *root, struct model_config *c,
                                     struct error *err)
{
    int32_t step = 1;
    TRY(get_int32(root, what, "decoder_sparse_step", false, 1, INT32_MAX, &step, err));
    for (int32_t i = 0; i < c->layers; i++)
        c->layer_is_moe[i] = c->experts > 0 && (i + 1) % step == 0;
    const json_t *list = json_object_get(root, "mlp_only_layers");
    if (!list || json_is_null(list))
        return OK;
    if (!json_is_array(list))
        return error_set(err, ERR_INVALID, "%s: mlp_only_layers: expected an array, found %s", what,
                         json_type_words(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v))
            return error_set(err, ERR_INVALID,
                             "%s: mlp_only_layers[%zu]: expected an integer, found %s", what, i,
                             json_type_words(v));
        json_int_t layer = json_integer_value(v);
        if (layer < 0 || layer >= c->layers)
            return error_set(err, ERR_INVALID,
                             "%s: mlp_only_layers[%zu]: expected 0 to %d, found %lld", what, i,
                             c->layers - 1, (long long)layer);
        c->layer_is_moe[layer] = 0;
    }
    return OK;
}

/* num_experts, which Transformers 5 writes as num_local_experts. */
static enum status parse_experts(const char *what, const json_t *root, struct model_config *c,
                                 struct error *err)
{
    int32_t local = -1;
    TRY(get_int32(root, what, "num_local_experts", false, 0, MAX_EXPERTS, &local, err));
    c->experts = local;
    TRY(get_int32(root, what, "num_experts", local < 0, 0, MAX_EXPERTS, &c->experts, err));
    if (local >= 0 && local != c->experts)
        return error_set(err, ERR_INVALID,
                         "%s: num_experts: expected %d as in num_local_experts, found %d", what,
                         local, c->experts);
    return OK;
}

static enum status parse_ffn(const char *what, const json_t *root, const struct family *f,
                             struct model_config *c, struct error *err)
{
    if (f->experts) {
        TRY(parse_experts(what, root, c, err));
        TRY(parse_layer_kinds(what, root, c, err));
    }
    bool moe = c->experts > 0;
    if (moe) {
        int32_t most = c->experts < MAX_TOP_K ? c->experts : MAX_TOP_K;
        TRY(get_int32(root, what, "num_experts_per_tok", true, 1, most, &c->top_k, err));
        TRY(get_int32(root, what, "moe_intermediate_size", true, 1, MAX_WIDTH, &c->moe_intermediate,
                      err));
        TRY(json_get_bool(root, what, "norm_topk_prob", false, &c->norm_topk_prob, err));
    }
    bool dense = false;
    for (int32_t i = 0; i < c->layers; i++)
        dense = dense || !c->layer_is_moe[i];
    return get_int32(root, what, "intermediate_size", dense, dense ? 1 : 0, MAX_WIDTH,
                     &c->intermediate, err);
}

static enum status eos_add(const char *what, const json_t *v, struct model_config *c,
                           struct error *err)
{
    if (!json_is_integer(v))
        return error_set(err, ERR_INVALID,
                         "%s: eos_token_id: expected an integer or a list of "
                         "them, found %s",
                         what, json_type_words(v));
    json_int_t id = json_integer_value(v);
    if (id < 0 || id >= c->vocab)
        return error_set(err, ERR_INVALID, "%s: eos_token_id: expected 0 to %d, found %lld", what,
                         c->vocab - 1, (long long)id);
    if (c->eos_count == MAX_EOS)
        return error_set(err, ERR_LIMIT, "%s: eos_token_id: expected at most %d ids, found more",
                         what, MAX_EOS);
    c->eos[c->eos_count++] = (int32_t)id;
    return OK;
}

/* A number or a list; where the field is absent, eos stays as it was. */
static enum status parse_eos(const char *what, const json_t *root, struct model_config *c,
                             struct error *err)
{
    const json_t *v = json_object_get(root, "eos_token_id");
    if (!v || json_is_null(v))
        return OK;
    c->eos_count = 0;
    if (!json_is_array(v))
        return eos_add(what, v, c, err);
    for (size_t i = 0; i < json_array_size(v); i++)
        TRY(eos_add(what, json_array_get(v, i), c, err));
    return OK;
}

/* torch_dtype, which newer Transformers writes as dtype. Other names than these change nothing:
 * what the tensors say wins. */
static enum status parse_dtype(const char *what, const json_t *root, struct model_config *c,
                               struct error *err)
{
    const char *key = json_object_get(root, "dtype") ? "dtype" : "torch_dtype", *name = "";
    TRY(json_get_string(root, what, key, false, &name, err));
    c->dtype = strcmp(name, "float32") == 0   ? DTYPE_F32
               : strcmp(name, "float16") == 0 ? DTYPE_F16
                                              : DTYPE_BF16;
    return OK;
}

static enum status parse_fields(const char *what, const json_t *root, struct model_config *c,
                                struct error *err)
{
    const struct family *f;
    TRY(find_family(what, root, &f, err));
    TRY(check_architecture(what, root, f->architecture, err));
    TRY(check_features(what, root, f, err));
    TRY(get_int32(root, what, "hidden_size", true, 1, MAX_WIDTH, &c->hidden, err));
    TRY(get_int32(root, what, "num_hidden_layers", true, 1, MAX_LAYERS, &c->layers, err));
    TRY(get_int32(root, what, "vocab_size", true, 1, MAX_VOCAB, &c->vocab, err));
    TRY(get_int32(root, what, "max_position_embeddings", true, 1, MAX_POSITION, &c->max_position,
                  err));
    double eps = 0;
    TRY(json_get_real(root, what, "rms_norm_eps", true, 1e-30, 1, &eps, err));
    c->rms_eps = (float)eps;
    TRY(json_get_bool(root, what, "tie_word_embeddings", false, &c->tied_embeddings, err));
    TRY(parse_attention(what, root, f, c, err));
    TRY(parse_rope(what, root, c, err));
    TRY(parse_ffn(what, root, f, c, err));
    TRY(parse_dtype(what, root, c, err));
    TRY(weight_format_parse(what, root, c, err));
    return parse_eos(what, root, c, err);
}

static enum status parse_object(const char *what, const char *text, size_t len, json_t **root,
                                struct error *err)
{
    TRY(json_parse(what, text, len, root, err));
    if (json_is_object(*root))
        return OK;
    enum status st = error_set(err, ERR_INVALID, "%s: expected an object, found %s", what,
                               json_type_words(*root));
    json_decref(*root);
    return st;
}

enum status config_parse(const char *what, const char *text, size_t len,
                         struct model_config *config, struct error *err)
{
    json_t *root = NULL;
    TRY(parse_object(what, text, len, &root, err));
    struct model_config c = {0};
    enum status st = parse_fields(what, root, &c, err);
    json_decref(root);
    if (st == OK)
        *config = c;
    return st;
}

static enum status get_float(const json_t *root, const char *what, const char *key, double min,
                             double max, float *out, struct error *err)
{
    double v = *out;
    TRY(json_get_real(root, what, key, false, min, max, &v, err));
    *out = (float)v;
    return OK;
}

enum status config_parse_generation(const char *what, const char *text, size_t len,
                                    struct model_config *config,
                                    struct generation_config *generation, struct error *err)
{
    json_t *root = NULL;
    TRY(parse_object(what, text, len, &root, err));
    enum status st;
    struct model_config c = *config;
    struct generation_config g = *generation;
    bool sample = true;
    TRY_OUT(st, get_float(root, what, "temperature", 0, 100, &g.temperature, err));
    TRY_OUT(st, get_float(root, what, "top_p", 0, 1, &g.top_p, err));
    TRY_OUT(st, get_float(root, what, "min_p", 0, 1, &g.min_p, err));
    TRY_OUT(st, get_int32(root, what, "top_k", false, 0, INT32_MAX, &g.top_k, err));
    TRY_OUT(st, get_float(root, what, "repetition_penalty", 1e-3, 1e3, &g.repetition_penalty, err));
    TRY_OUT(st, json_get_bool(root, what, "do_sample", false, &sample, err));
    TRY_OUT(st, parse_eos(what, root, &c, err));
    if (!sample)
        g.temperature = 0;
    *config = c;
    *generation = g;
out:
    json_decref(root);
    return st;
}

static enum status path_of(const char *dir, const char *file, char path[PATH_MAX],
                           struct error *err)
{
    int n = snprintf(path, PATH_MAX, "%s/%s", dir, file);
    if (n < 0 || n >= PATH_MAX)
        return error_set(err, ERR_INVALID, "%s: path: expected fewer than %d bytes, found more",
                         file, PATH_MAX);
    return OK;
}

static enum status load_generation(const char *dir, const struct file_proof *proof,
                                   struct model_config *config,
                                   struct generation_config *generation, struct error *err)
{
    *generation = (struct generation_config){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    char path[PATH_MAX];
    TRY(path_of(dir, "generation_config.json", path, err));
    char *text;
    size_t len;
    enum status st = file_read_proven(dir, "generation_config.json", proof, MAX_FILE_BYTES, &text,
                                      &len, err);
    if (st == ERR_NOT_FOUND)
        return OK;
    TRY(st);
    st = config_parse_generation(path, text, len, config, generation, err);
    free(text);
    return st;
}

static enum status load_gguf(const char *dir, const struct manifest *manifest,
                             struct model_config *config, struct error *err)
{
    struct checkpoint *ck = NULL;
    char path[PATH_MAX];
    TRY(checkpoint_open_proven(dir, manifest, &ck, err));
    enum status st = path_of(dir, checkpoint_file_name(ck, 0), path, err);
    const struct tensor_entry *embed = checkpoint_find(ck, "token_embd.weight");
    if (st == OK && (!embed || embed->dims != 2))
        st = error_set(err, ERR_INVALID,
                       "%s: tensor token_embd.weight: expected rows and columns, found %s", path,
                       embed ? "another shape" : "no such tensor");
    if (st == OK)
        st = gguf_config(checkpoint_gguf(ck), path, embed->shape[0],
                         !checkpoint_find(ck, "output.weight"), config, err);
    checkpoint_close(ck);
    return st;
}

enum status config_load_proven(const char *dir, const struct manifest *manifest,
                               struct model_config *config, struct generation_config *generation,
                               struct error *err)
{
    char path[PATH_MAX];
    char *text;
    size_t len;
    struct model_config c;
    struct generation_config g;
    const struct file_proof *proof = manifest_proof(manifest);
    if (checkpoint_is_gguf(dir, manifest)) {
        TRY(load_gguf(dir, manifest, &c, err));
    } else {
        TRY(path_of(dir, "config.json", path, err));
        TRY(file_read_proven(dir, "config.json", proof, MAX_FILE_BYTES, &text, &len, err));
        enum status st = config_parse(path, text, len, &c, err);
        free(text);
        TRY(st);
    }
    TRY(load_generation(dir, proof, &c, &g, err));
    *config = c;
    *generation = g;
    return OK;
}

enum status config_load(const char *dir, struct model_config *config,
                        struct generation_config *generation, struct error *err)
{
    return config_load_proven(dir, NULL, config, generation, err);
}
