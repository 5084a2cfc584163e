/*
 * Which weights a model has: see inventory.h; inventory_bind.c finds where they lie. An inventory
 * is owned by its creator and does not change after inventory_bind.
 *
 * The order within a layer is that of WEIGHT_ROLES: attention weights and norms, of which some
 * families lack some, then three of a dense FFN, or the router and three for each expert.
 */
#include "partition/inventory.h"
#include "base/check.h"
#include "partition/weight_format.h"

#include <stdlib.h>
#include <string.h>

/* The largest released model has 30,321; a config that asks for more than this is a mistake. */
enum { MAX_WEIGHTS = 1 << 21 };

enum { FFN_MATRICES = WEIGHT_FINAL_NORM - WEIGHT_GATE };

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

static const char *const mode_names[] = {
#define X(mode, word) word,
    WEIGHT_MODES(X)
#undef X
};

const char *weight_mode_name(enum weight_mode mode)
{
    return mode_names[mode];
}

bool weight_mode_named(const char *name, enum weight_mode *out)
{
    for (int i = 0; i < WEIGHTS_PACKED; i++)
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (enum weight_mode)i;
            return true;
        }
    return false;
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
    inv->quant = config->quant;
    inv->experts = config->experts;
    inv->layers = config->layers;
    inv->head_dim = config->head_dim;
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

bool inventory_layer_is_moe(const struct inventory *inv, int32_t layer)
{
    return inv->weights[inv->layer_first[layer] + inv->common].role == WEIGHT_ROUTER;
}

static int32_t find_in_layer(const struct inventory *inv, enum weight_role role, int32_t layer,
                             int32_t expert)
{
    if (layer < 0 || layer >= inv->layers)
        return -1;
    int32_t first = inv->layer_first[layer];
    bool moe = inventory_layer_is_moe(inv, layer);
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
