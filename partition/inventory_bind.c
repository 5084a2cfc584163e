/*
 * Finding a model's weights in a checkpoint: see inventory_bind in inventory.h.
 *
 * Names: Hugging Face Transformers' modules; for GGUF llama.cpp's. A quantised module has, in place
 * of `weight`: fp8 `weight` (e4m3) and `weight_scale_inv`; gptq and awq `qweight`, `qzeros` and
 * `scales`, gptq also `g_idx` where it was written.
 */
#include "base/check.h"
#include "partition/inventory.h"
#include "partition/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 128, FFN_MATRICES = WEIGHT_FINAL_NORM - WEIGHT_GATE };

/* One inventory_bind: the checkpoint's tensors, and which of them a weight has used. */
struct binding {
    const struct checkpoint *ck;
    const struct quantization *quant;
    const struct tensor_entry *tensors;
    size_t count;
    uint8_t *used; /* [count] */
};

/* The module that Transformers keeps a weight in (not fused). */
static void module_of(const struct weight *w, char name[NAME_BYTES])
{
    const char *words = weight_role_words(w->role);
    bool attention = w->role >= WEIGHT_Q && w->role <= WEIGHT_O;
    if (w->role == WEIGHT_LM_HEAD)
        snprintf(name, NAME_BYTES, "lm_head");
    else if (w->layer < 0)
        snprintf(name, NAME_BYTES, "model.%s", words);
    else if (w->expert >= 0)
        snprintf(name, NAME_BYTES, "model.layers.%d.mlp.experts.%d.%s", w->layer, w->expert, words);
    else
        snprintf(name, NAME_BYTES, "model.layers.%d.%s%s", w->layer,
                 attention                ? "self_attn."
                 : w->role >= WEIGHT_GATE ? "mlp."
                                          : "",
                 words);
}

static enum status use(struct binding *b, const char *name, int dims, const int64_t *shape,
                       const struct tensor_entry **t, struct error *err)
{
    TRY(checkpoint_require(b->ck, name, dims, shape, t, err));
    b->used[*t - b->tensors] = 1;
    return OK;
}

static enum status use_dtype(struct binding *b, const char *name, const char *dtype, int dims,
                             const int64_t *shape, const struct tensor_entry **t, struct error *err)
{
    TRY(checkpoint_require_dtype(b->ck, name, dtype, dims, shape, t, err));
    b->used[*t - b->tensors] = 1;
    return OK;
}

/* `skip` elements into the tensor. */
static void place(struct weight *w, const struct tensor_entry *t, int64_t skip)
{
    uint64_t size = dtype_size(t->dtype);
    w->dtype = t->dtype;
    w->store = STORE_PLAIN;
    w->file = t->file;
    w->offset = t->offset + (uint64_t)skip * size;
    w->row_stride = (uint64_t)w->cols * size;
}

static enum status bind_plain(struct binding *b, struct weight *w, const char *name,
                              struct error *err)
{
    const struct tensor_entry *t = NULL;
    int64_t matrix[] = {w->rows, w->cols}, vector = w->rows * w->cols;
    if (weight_role_is_vector(w->role))
        TRY(use(b, name, 1, &vector, &t, err));
    else
        TRY(use(b, name, 2, matrix, &t, err));
    place(w, t, 0);
    return OK;
}

/* --- quantised modules -------------------------------------------------------------------------
 */

/* The tensor MODULE.PART of [rows, cols] (cols 0: one dimension) and of this dtype; NULL: of one
 * that enum dtype has. */
static enum status use_part(struct binding *b, const char *module, const char *part,
                            const char *dtype, int64_t rows, int64_t cols,
                            const struct tensor_entry **t, struct error *err)
{
    char name[NAME_BYTES + 32];
    int64_t shape[] = {rows, cols};
    int dims = cols ? 2 : 1;
    snprintf(name, sizeof name, "%s.%s", module, part);
    return dtype ? use_dtype(b, name, dtype, dims, shape, t, err)
                 : use(b, name, dims, shape, t, err);
}

static struct weight_part part_of(const struct tensor_entry *t)
{
    return (struct weight_part){.file = t->file, .offset = t->offset, .dtype = t->dtype};
}

static int64_t blocks(int64_t total, int64_t block)
{
    return block > 0 ? (total + block - 1) / block : 1;
}

static void place_main(struct weight *w, const struct tensor_entry *t, enum weight_store store)
{
    w->dtype = DTYPE_F32;
    w->store = store;
    w->file = t->file;
    w->offset = t->offset;
    w->row_stride = t->bytes / (uint64_t)t->shape[0];
    w->scales.file = w->zeros.file = w->order.file = -1;
}

static enum status bind_fp8(struct binding *b, struct weight *w, const char *module,
                            struct error *err)
{
    const struct tensor_entry *t = NULL, *scale = NULL;
    const struct quantization *q = b->quant;
    TRY(use_part(b, module, "weight", "F8_E4M3", w->rows, w->cols, &t, err));
    TRY(use_part(b, module, "weight_scale_inv", NULL, blocks(w->rows, q->block_rows),
                 blocks(w->cols, q->block_cols), &scale, err));
    place_main(w, t, STORE_FP8);
    w->scales = part_of(scale);
    return OK;
}

static enum status bind_groups(struct binding *b, struct weight *w, const char *module,
                               struct error *err)
{
    const struct tensor_entry *t = NULL, *scales = NULL, *zeros = NULL, *order = NULL;
    const struct quantization *q = b->quant;
    bool gptq = q->format == FORMAT_GPTQ;
    int64_t a_word = 32 / q->bits, groups = blocks(w->cols, q->block_cols);
    if (w->rows % a_word != 0 || (gptq && w->cols % a_word != 0))
        return error_set(err, ERR_INVALID,
                         "%s.qweight: expected outputs%s in whole words of %lld, found %lld of "
                         "%lld inputs",
                         module, gptq ? " and inputs" : "", (long long)a_word, (long long)w->rows,
                         (long long)w->cols);
    if (gptq)
        TRY(use_part(b, module, "qweight", "I32", w->cols / a_word, w->rows, &t, err));
    else
        TRY(use_part(b, module, "qweight", "I32", w->cols, w->rows / a_word, &t, err));
    TRY(use_part(b, module, "qzeros", "I32", groups, w->rows / a_word, &zeros, err));
    TRY(use_part(b, module, "scales", NULL, groups, w->rows, &scales, err));
    place_main(w, t, STORE_GROUPS);
    w->scales = part_of(scales);
    w->zeros = part_of(zeros);
    char name[NAME_BYTES + 32];
    snprintf(name, sizeof name, "%s.g_idx", module);
    if (gptq && (q->act_order || checkpoint_find(b->ck, name))) {
        TRY(use_part(b, module, "g_idx", "I32", w->cols, 0, &order, err));
        w->order = part_of(order);
    }
    return OK;
}

static enum status bind_one(struct binding *b, struct weight *w, struct error *err)
{
    char module[NAME_BYTES], name[NAME_BYTES + 32];
    module_of(w, module);
    if (w->quantized)
        return b->quant->format == FORMAT_FP8 ? bind_fp8(b, w, module, err)
                                              : bind_groups(b, w, module, err);
    bool bias = w->cols == 1 && weight_role_is_vector(w->role); /* its words end in ".bias" */
    snprintf(name, sizeof name, "%s%s", module, bias ? "" : ".weight");
    return bind_plain(b, w, name, err);
}

/* --- fused experts -----------------------------------------------------------------------------
 */

static void fused_name(char name[NAME_BYTES], int32_t layer, const char *words)
{
    snprintf(name, NAME_BYTES, "model.layers.%d.mlp.experts.%s", layer, words);
}

/* The layer's experts out of its two fused tensors. A transposed export ([E, H, 2 x I]) has another
 * shape and is refused; where 2 x I = H the shapes are equal and Transformers' order is taken. */
static enum status bind_fused(struct binding *b, struct inventory *inv, int32_t layer,
                              struct error *err)
{
    char name[NAME_BYTES];
    struct weight *experts = &inv->weights[inv->layer_first[layer] + inv->common + 1];
    int64_t inner = experts[0].rows, hidden = experts[0].cols, size = inner * hidden;
    const struct tensor_entry *gate_up = NULL, *down = NULL;
    fused_name(name, layer, "gate_up_proj");
    TRY(use(b, name, 3, (int64_t[]){inv->experts, 2 * inner, hidden}, &gate_up, err));
    fused_name(name, layer, "down_proj");
    TRY(use(b, name, 3, (int64_t[]){inv->experts, hidden, inner}, &down, err));
    for (int32_t e = 0; e < inv->experts; e++) {
        struct weight *w = &experts[FFN_MATRICES * e];
        place(&w[0], gate_up, 2 * e * size);
        place(&w[1], gate_up, (2 * e + 1) * size);
        place(&w[2], down, e * size);
    }
    return OK;
}

static enum status bind_layer(struct binding *b, struct inventory *inv, int32_t layer,
                              struct error *err)
{
    int32_t first = inv->layer_first[layer], end = inv->layer_first[layer + 1];
    if (inventory_layer_is_moe(inv, layer)) {
        char name[NAME_BYTES];
        fused_name(name, layer, "gate_up_proj");
        if (checkpoint_find(b->ck, name)) {
            TRY(bind_fused(b, inv, layer, err));
            end = first + inv->common + 1;
        }
    }
    for (int32_t i = first; i < end; i++)
        TRY(bind_one(b, &inv->weights[i], err));
    return OK;
}

/* --- GGUF --------------------------------------------------------------------------------------
 */

/* Experts are one tensor [experts, rows, columns] for each of gate, up and down: "ffn_gate_exps".
 */
static void gguf_name(const struct weight *w, char name[NAME_BYTES])
{
    static const char *const names[WEIGHT_ROLE_COUNT] = {
        [WEIGHT_EMBED] = "token_embd.weight",
        [WEIGHT_INPUT_NORM] = "attn_norm.weight",
        [WEIGHT_Q] = "attn_q.weight",
        [WEIGHT_K] = "attn_k.weight",
        [WEIGHT_V] = "attn_v.weight",
        [WEIGHT_Q_BIAS] = "attn_q.bias",
        [WEIGHT_K_BIAS] = "attn_k.bias",
        [WEIGHT_V_BIAS] = "attn_v.bias",
        [WEIGHT_Q_NORM] = "attn_q_norm.weight",
        [WEIGHT_K_NORM] = "attn_k_norm.weight",
        [WEIGHT_O] = "attn_output.weight",
        [WEIGHT_POST_NORM] = "ffn_norm.weight",
        [WEIGHT_ROUTER] = "ffn_gate_inp.weight",
        [WEIGHT_GATE] = "ffn_gate",
        [WEIGHT_UP] = "ffn_up",
        [WEIGHT_DOWN] = "ffn_down",
        [WEIGHT_FINAL_NORM] = "output_norm.weight",
        [WEIGHT_LM_HEAD] = "output.weight",
    };
    bool ffn = w->role >= WEIGHT_GATE && w->role <= WEIGHT_DOWN;
    if (w->layer < 0)
        snprintf(name, NAME_BYTES, "%s", names[w->role]);
    else
        snprintf(name, NAME_BYTES, "blk.%d.%s%s", w->layer, names[w->role],
                 !ffn             ? ""
                 : w->expert >= 0 ? "_exps.weight"
                                  : ".weight");
}

static enum ggml_type ggml_type_of(const struct tensor_entry *t)
{
    for (uint32_t type = 0; type <= GGML_BF16; type++)
        if (ggml_layout(type) && strcmp(ggml_layout(type)->name, t->other_dtype) == 0)
            return (enum ggml_type)type;
    CHECK(false, "%s in a GGUF", t->other_dtype);
}

static enum status bind_gguf(struct binding *b, const struct inventory *inv, struct weight *w,
                             struct error *err)
{
    char name[NAME_BYTES];
    const struct tensor_entry *t = NULL;
    gguf_name(w, name);
    if (weight_role_is_vector(w->role))
        return bind_plain(b, w, name, err);
    int64_t one[] = {w->rows, w->cols}, all[] = {inv->experts, w->rows, w->cols};
    bool expert = w->expert >= 0;
    TRY(use_dtype(b, name, NULL, expert ? 3 : 2, expert ? all : one, &t, err));
    if (!t->other_dtype) {
        place(w, t, expert ? w->expert * w->rows * w->cols : 0);
        return OK;
    }
    place_main(w, t, STORE_GGML);
    w->ggml = ggml_type_of(t);
    if (expert) {
        w->row_stride /= (uint64_t)w->rows;
        w->offset += (uint64_t)w->expert * (uint64_t)w->rows * w->row_stride;
    }
    return OK;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

/* Tensors that old or tied exports carry and that no model computes with. */
static bool ignorable(const char *name, const struct model_config *c)
{
    static const char rotary[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name), m = sizeof rotary - 1;
    return (n > m && strcmp(name + n - m, rotary) == 0) ||
           (c->tied_embeddings && strcmp(name, "lm_head.weight") == 0);
}

static enum status refuse_unused(const struct binding *b, const struct model_config *c,
                                 struct error *err)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct tensor_entry *t = &b->tensors[i];
        if (!b->used[i] && !ignorable(t->name, c))
            return error_set(err, ERR_UNSUPPORTED,
                             "%s: tensor %s: expected only the weights of %d layers of this %s, "
                             "found one that is none of them",
                             checkpoint_file_name(b->ck, t->file), shown(t->name).s, c->layers,
                             checkpoint_gguf(b->ck) ? "GGUF" : "config.json");
    }
    return OK;
}

static enum status bind_all(struct binding *b, struct inventory *inv, struct error *err)
{
    if (checkpoint_gguf(b->ck)) {
        for (int32_t i = 0; i < inv->count; i++)
            TRY(bind_gguf(b, inv, &inv->weights[i], err));
        return OK;
    }
    TRY(bind_one(b, &inv->weights[0], err));
    for (int32_t i = 0; i < inv->layers; i++)
        TRY(bind_layer(b, inv, i, err));
    for (int32_t i = inv->layer_first[inv->layers]; i < inv->count; i++)
        TRY(bind_one(b, &inv->weights[i], err));
    return OK;
}

enum status inventory_bind(struct inventory *inv, const struct model_config *config,
                           const struct checkpoint *ck, struct error *err)
{
    CHECK(inv->layers == config->layers && inv->experts == config->experts,
          "%d layers of %d experts, config has %d of %d", inv->layers, inv->experts, config->layers,
          config->experts);
    struct binding b = {.ck = ck, .quant = &inv->quant};
    b.tensors = checkpoint_tensors(ck, &b.count);
    b.used = calloc(b.count + 1, 1);
    if (!b.used)
        return error_set(err, ERR_NO_MEMORY, "model: no memory for %zu tensors", b.count);
    enum status st = bind_all(&b, inv, err);
    if (st == OK)
        st = refuse_unused(&b, config, err);
    if (st != OK)
        error_advise(err, st,
                     checkpoint_gguf(ck) ? "fetch the file again, or convert the model anew"
                                         : "fetch config.json and weights again, of one revision");
    free(b.used);
    return st;
}
