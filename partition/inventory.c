/*
 * Which weights a model has and where they lie: see inventory.h. An inventory is owned by its
 * creator and does not change after inventory_bind.
 *
 * The order within a layer is that of WEIGHT_ROLES: attention weights and norms, of which some
 * families lack some, then three of a dense FFN, or the router and three for each expert.
 */
#include "partition/inventory.h"
#include "base/check.h"
#include "partition/weight_format.h"
#include "partition/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The largest released model has 30,321; a config that asks for more than this is a mistake. */
enum { MAX_WEIGHTS = 1 << 21 };

enum {
    FFN_MATRICES = WEIGHT_FINAL_NORM - WEIGHT_GATE,
    NAME_BYTES = 128,
};

static const char *const role_words[] = {
#define X(role, words, split) [role] = words,
    WEIGHT_ROLES(X)
#undef X
};

static const enum weight_split role_splits[] = {
#define X(role, words, split) [role] = split,
    WEIGHT_ROLES(X)
#undef X
};

const char *weight_role_words(enum weight_role role)
{
    CHECK((unsigned)role < WEIGHT_ROLE_COUNT, "role %d", (int)role);
    return role_words[role];
}

enum weight_split weight_role_split(enum weight_role role)
{
    CHECK((unsigned)role < WEIGHT_ROLE_COUNT, "role %d", (int)role);
    return role_splits[role];
}

static bool is_bias(enum weight_role role)
{
    return role == WEIGHT_Q_BIAS || role == WEIGHT_K_BIAS || role == WEIGHT_V_BIAS;
}

bool weight_role_is_vector(enum weight_role role)
{
    return is_bias(role) || role == WEIGHT_INPUT_NORM || role == WEIGHT_POST_NORM ||
           role == WEIGHT_Q_NORM || role == WEIGHT_K_NORM || role == WEIGHT_FINAL_NORM;
}

static bool model_has(const struct model_config *c, enum weight_role role)
{
    if (is_bias(role))
        return c->attention_bias;
    return c->qk_norm || (role != WEIGHT_Q_NORM && role != WEIGHT_K_NORM);
}

static void set_shape(const struct model_config *c, struct weight *w)
{
    int64_t hidden = c->hidden, q = (int64_t)c->q_heads * c->head_dim;
    int64_t kv = (int64_t)c->kv_heads * c->head_dim;
    int64_t ffn = w->expert >= 0 ? c->moe_intermediate : c->intermediate;
    w->rows = 1;
    w->cols = is_bias(w->role) ? 1 : hidden;
    switch (w->role) {
    case WEIGHT_EMBED:
    case WEIGHT_LM_HEAD:
        w->rows = c->vocab;
        break;
    case WEIGHT_INPUT_NORM:
    case WEIGHT_POST_NORM:
    case WEIGHT_FINAL_NORM:
        break;
    case WEIGHT_Q_NORM:
    case WEIGHT_K_NORM:
        w->cols = c->head_dim;
        break;
    case WEIGHT_Q:
    case WEIGHT_Q_BIAS:
        w->rows = q;
        break;
    case WEIGHT_K:
    case WEIGHT_V:
    case WEIGHT_K_BIAS:
    case WEIGHT_V_BIAS:
        w->rows = kv;
        break;
    case WEIGHT_O:
        w->rows = hidden;
        w->cols = q;
        break;
    case WEIGHT_ROUTER:
        w->rows = c->experts;
        break;
    case WEIGHT_GATE:
    case WEIGHT_UP:
        w->rows = ffn;
        break;
    case WEIGHT_DOWN:
        w->rows = hidden;
        w->cols = ffn;
        break;
    case WEIGHT_ROLE_COUNT:
        CHECK(false, "not a role");
    }
}

static void add(struct inventory *inv, const struct model_config *c, enum weight_role role,
                int32_t layer, int32_t expert)
{
    struct weight *w = &inv->weights[inv->count++];
    *w = (struct weight){.role = role,
                         .layer = layer,
                         .expert = expert,
                         .quantized = weight_format_covers(&c->quant, role, layer),
                         .dtype = c->dtype,
                         .file = -1};
    set_shape(c, w);
}

static void add_layer(struct inventory *inv, const struct model_config *c, int32_t layer)
{
    inv->layer_first[layer] = inv->count;
    for (int role = WEIGHT_INPUT_NORM; role < WEIGHT_ROUTER; role++)
        if (inv->place[role] >= 0)
            add(inv, c, role, layer, -1);
    if (c->layer_is_moe[layer])
        add(inv, c, WEIGHT_ROUTER, layer, -1);
    int32_t first = c->layer_is_moe[layer] ? 0 : -1;
    int32_t end = c->layer_is_moe[layer] ? c->experts : 0;
    for (int32_t e = first; e < end; e++)
        for (int role = WEIGHT_GATE; role <= WEIGHT_DOWN; role++)
            add(inv, c, role, layer, e);
}

/* Fills `place` with where each weight before the FFN stands in its layer; returns how many. */
static int32_t place_common(const struct model_config *c, int32_t place[WEIGHT_ROUTER])
{
    int32_t n = 0;
    for (int role = 0; role < WEIGHT_ROUTER; role++)
        place[role] = role >= WEIGHT_INPUT_NORM && model_has(c, role) ? n++ : -1;
    return n;
}

static int64_t count_weights(const struct model_config *c, int32_t common)
{
    int64_t n = c->tied_embeddings ? 2 : 3;
    for (int32_t i = 0; i < c->layers; i++)
        n += common +
             (c->layer_is_moe[i] ? 1 + (int64_t)FFN_MATRICES * c->experts : (int64_t)FFN_MATRICES);
    return n;
}

enum status inventory_create(const struct model_config *config, struct inventory **out,
                             struct error *err)
{
    int32_t place[WEIGHT_ROUTER], common = place_common(config, place);
    int64_t count = count_weights(config, common);
    if (count > MAX_WEIGHTS)
        return error_set(err, ERR_LIMIT,
                         "model: expected at most %d weights, found %lld from %d layers of %d "
                         "experts",
                         MAX_WEIGHTS, (long long)count, config->layers, config->experts);
    struct inventory *inv = calloc(1, sizeof *inv);
    if (inv) {
        inv->weights = calloc((size_t)count, sizeof *inv->weights);
        inv->layer_first = calloc((size_t)config->layers + 1, sizeof *inv->layer_first);
    }
    if (!inv || !inv->weights || !inv->layer_first) {
        inventory_destroy(inv);
        return error_set(err, ERR_NO_MEMORY, "model: no memory for a list of %lld weights",
                         (long long)count);
    }
    memcpy(inv->place, place, sizeof place);
    inv->common = common;
    inv->experts = config->experts;
    inv->layers = config->layers;
    add(inv, config, WEIGHT_EMBED, -1, -1);
    for (int32_t i = 0; i < config->layers; i++)
        add_layer(inv, config, i);
    inv->layer_first[config->layers] = inv->count;
    add(inv, config, WEIGHT_FINAL_NORM, -1, -1);
    if (!config->tied_embeddings)
        add(inv, config, WEIGHT_LM_HEAD, -1, -1);
    CHECK(inv->count == count, "%d weights of %lld", inv->count, (long long)count);
    *out = inv;
    return OK;
}

void inventory_destroy(struct inventory *inv)
{
    if (!inv)
        return;
    free(inv->weights);
    free(inv->layer_first);
    free(inv);
}

static bool layer_is_moe(const struct inventory *inv, int32_t layer)
{
    return inv->weights[inv->layer_first[layer] + inv->common].role == WEIGHT_ROUTER;
}

static int32_t find_in_layer(const struct inventory *inv, enum weight_role role, int32_t layer,
                             int32_t expert)
{
    if (layer < 0 || layer >= inv->layers)
        return -1;
    int32_t first = inv->layer_first[layer];
    bool moe = layer_is_moe(inv, layer);
    if (role < WEIGHT_ROUTER)
        return expert == -1 && inv->place[role] >= 0 ? first + inv->place[role] : -1;
    first += inv->common;
    if (role == WEIGHT_ROUTER)
        return expert == -1 && moe ? first : -1;
    int32_t ffn = (int32_t)(role - WEIGHT_GATE);
    if (!moe)
        return expert == -1 ? first + ffn : -1;
    if (expert < 0 || expert >= inv->experts)
        return -1;
    return first + 1 + FFN_MATRICES * expert + ffn;
}

int32_t inventory_find(const struct inventory *inv, enum weight_role role, int32_t layer,
                       int32_t expert)
{
    if (role >= WEIGHT_INPUT_NORM && role <= WEIGHT_DOWN)
        return find_in_layer(inv, role, layer, expert);
    if (layer != -1 || expert != -1)
        return -1;
    int32_t final_norm = inv->layer_first[inv->layers];
    if (role == WEIGHT_EMBED)
        return 0;
    if (role == WEIGHT_FINAL_NORM)
        return final_norm;
    return role == WEIGHT_LM_HEAD && inv->count > final_norm + 1 ? final_norm + 1 : -1;
}

/* One inventory_bind: the checkpoint's tensors, and which of them a weight has used. */
struct binding {
    const struct checkpoint *ck;
    const struct tensor_entry *tensors;
    size_t count;
    uint8_t *used; /* [count] */
};

/* The name under which Transformers stores a weight (not fused). */
static void name_of(const struct weight *w, char name[NAME_BYTES])
{
    const char *words = role_words[w->role];
    bool attention = w->role >= WEIGHT_Q && w->role <= WEIGHT_O;
    if (w->role == WEIGHT_LM_HEAD)
        snprintf(name, NAME_BYTES, "lm_head.weight");
    else if (w->layer < 0)
        snprintf(name, NAME_BYTES, "model.%s.weight", words);
    else if (w->expert >= 0)
        snprintf(name, NAME_BYTES, "model.layers.%d.mlp.experts.%d.%s.weight", w->layer, w->expert,
                 words);
    else
        snprintf(name, NAME_BYTES, "model.layers.%d.%s%s%s", w->layer,
                 attention                ? "self_attn."
                 : w->role >= WEIGHT_GATE ? "mlp."
                                          : "",
                 words, is_bias(w->role) ? "" : ".weight");
}

static enum status use(struct binding *b, const char *name, int dims, const int64_t *shape,
                       const struct tensor_entry **t, struct error *err)
{
    TRY(checkpoint_require(b->ck, name, dims, shape, t, err));
    b->used[*t - b->tensors] = 1;
    return OK;
}

/* `skip` elements into the tensor. */
static void place(struct weight *w, const struct tensor_entry *t, int64_t skip)
{
    uint64_t size = dtype_size(t->dtype);
    w->dtype = t->dtype;
    w->file = t->file;
    w->offset = t->offset + (uint64_t)skip * size;
    w->row_stride = (uint64_t)w->cols * size;
}

static enum status bind_one(struct binding *b, struct weight *w, struct error *err)
{
    char name[NAME_BYTES];
    const struct tensor_entry *t = NULL;
    name_of(w, name);
    int64_t matrix[] = {w->rows, w->cols}, vector = w->rows * w->cols;
    if (weight_role_is_vector(w->role))
        TRY(use(b, name, 1, &vector, &t, err));
    else
        TRY(use(b, name, 2, matrix, &t, err));
    place(w, t, 0);
    return OK;
}

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
    if (layer_is_moe(inv, layer)) {
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
                             "%s: tensor %s: expected only the weights of %d layers of this "
                             "config.json, found one that is none of them",
                             checkpoint_file_name(b->ck, t->file), shown(t->name).s, c->layers);
    }
    return OK;
}

enum status inventory_bind(struct inventory *inv, const struct model_config *config,
                           const struct checkpoint *ck, struct error *err)
{
    CHECK(inv->layers == config->layers && inv->experts == config->experts,
          "%d layers of %d experts, config has %d of %d", inv->layers, inv->experts, config->layers,
          config->experts);
    enum status st = OK;
    struct binding b = {.ck = ck};
    b.tensors = checkpoint_tensors(ck, &b.count);
    b.used = calloc(b.count + 1, 1);
    if (!b.used)
        return error_set(err, ERR_NO_MEMORY, "model: no memory for %zu tensors", b.count);
    TRY_OUT(st, bind_one(&b, &inv->weights[0], err));
    for (int32_t i = 0; i < inv->layers; i++)
        TRY_OUT(st, bind_layer(&b, inv, i, err));
    for (int32_t i = inv->layer_first[inv->layers]; i < inv->count; i++)
        TRY_OUT(st, bind_one(&b, &inv->weights[i], err));
    TRY_OUT(st, refuse_unused(&b, config, err));
out:
    free(b.used);
    return st;
}
