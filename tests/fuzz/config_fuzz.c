/*
 * Any bytes as config.json and as generation_config.json. What is accepted must lie within the
 * bounds of config.h and, where it is small, have an inventory; what is refused must say why in one
 * line.
 */
#include "base/check.h"
#include "partition/plan.h"
#include "partition/weight_format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_config(const struct model_config *c)
{
    CHECK(c->hidden > 0 && c->vocab > 0 && c->max_position > 0 && c->rms_eps > 0, "sizes");
    CHECK(c->layers > 0 && c->layers <= MAX_LAYERS, "%d layers", c->layers);
    CHECK(c->kv_heads > 0 && c->q_heads % c->kv_heads == 0, "heads");
    CHECK(c->head_dim > 0 && c->head_dim % 2 == 0, "head_dim %d", c->head_dim);
    CHECK(c->rope_theta >= 1, "rope_theta %g", c->rope_theta);
    CHECK(c->yarn.factor == 0 || (c->yarn.factor >= 1 && c->yarn.original > 0 && c->rope_theta > 1),
          "YaRN of factor %g", c->yarn.factor);
    CHECK(c->experts >= 0 && c->experts <= MAX_EXPERTS && c->top_k <= c->experts, "experts");
    CHECK(c->eos_count >= 0 && c->eos_count <= MAX_EOS, "%d ends", c->eos_count);
    for (int32_t i = 0; i < c->eos_count; i++)
        CHECK(c->eos[i] >= 0 && c->eos[i] < c->vocab, "end %d", c->eos[i]);
    for (int32_t i = 0; i < c->layers; i++)
        CHECK(c->layer_is_moe[i] ? c->top_k > 0 && c->moe_intermediate > 0 : c->intermediate > 0,
              "layer %d", i);
}

static void check_quantization(const struct model_config *c)
{
    const struct quantization *q = &c->quant;
    bool plain = q->format == FORMAT_PLAIN;
    CHECK(plain ? q->bits == 0 : q->bits == 4 || q->bits == 8, "%d bits", q->bits);
    CHECK(plain || (q->block_rows > 0 && q->block_cols >= 0), "blocks");
    for (int32_t i = 0; i < c->layers; i++)
        CHECK(!weight_format_covers(q, WEIGHT_ROUTER, i), "layer %d", i);
    struct error err;
    for (int32_t tp = 1; tp <= 8; tp++) {
        struct layout l = {.pp = 1, .tp = tp};
        enum status st = layout_check(c, &l, &err);
        CHECK(st == OK || strstr(err.msg, "; nearest that work: pp 1 "), "%s", err.msg);
    }
}

static void check_inventory(const struct model_config *c)
{
    if ((int64_t)c->layers * c->experts > 1000)
        return;
    struct inventory *inv = NULL;
    struct error err;
    CHECK(inventory_create(c, &inv, &err) == OK, "%s", err.msg);
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        CHECK(inventory_find(inv, w->role, w->layer, w->expert) == i, "weight %d", i);
        CHECK(w->rows > 0 && w->cols > 0 && w->file == -1, "weight %d", i);
    }
    inventory_destroy(inv);
}

static void check_refusal(enum status st, const struct error *err)
{
    CHECK(err->code == st && strncmp(err->msg, "c.json: ", 8) == 0, "%s", err->msg);
    CHECK(!strchr(err->msg, '\n') && strlen(err->msg) < sizeof err->msg - 1, "%s", err->msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {.code = OK};
    struct model_config config = {.vocab = 1000};
    struct generation_config generation = {.temperature = 1};
    enum status st = config_parse("c.json", (const char *)data, size, &config, &err);
    if (st == OK) {
        check_config(&config);
        check_inventory(&config);
        check_quantization(&config);
    } else {
        check_refusal(st, &err);
    }
    st = config_parse_generation("c.json", (const char *)data, size, &config, &generation, &err);
    if (st != OK)
        check_refusal(st, &err);
    else
        CHECK(generation.temperature >= 0 && generation.top_k >= 0, "generation");
    return 0;
}
