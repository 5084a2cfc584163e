/* partition/inventory: which weights a config means, and binding them to a checkpoint's tensors. */
#include "tests/unit/partition/folder.h"

#include "base/buf.h"
#include "partition/inventory.h"

#include <glob.h>

/* hidden 8, 2 query heads on 1 of 4, vocabulary 10, 3 experts of 6, dense layers of 5. */
static struct model_config small(void)
{
    struct model_config c = {.hidden = 8,
                             .layers = 3,
                             .q_heads = 2,
                             .kv_heads = 1,
                             .head_dim = 4,
                             .vocab = 10,
                             .experts = 3,
                             .top_k = 2,
                             .moe_intermediate = 6,
                             .intermediate = 5,
                             .qk_norm = true};
    c.layer_is_moe[0] = 1;
    c.layer_is_moe[2] = 1; /* layer 1 is dense */
    return c;
}

/* A header under construction, BF16 throughout, the data in order. */
struct writer {
    struct buf text;
    uint64_t end;
};

static void put(struct writer *w, const char *name, int dims, const int64_t *shape)
{
    struct error err;
    uint64_t bytes = 2;
    buf_printf(&w->text, &err, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", w->end ? "," : "{",
               name);
    for (int i = 0; i < dims; i++) {
        buf_printf(&w->text, &err, "%s%lld", i ? "," : "", (long long)shape[i]);
        bytes *= (uint64_t)shape[i];
    }
    buf_printf(&w->text, &err, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)w->end,
               (unsigned long long)(w->end + bytes));
    w->end += bytes;
}

#define PUT(w, name, ...)                                                                          \
    put(w, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                        \
        (int64_t[]){__VA_ARGS__})

struct variant {
    const char *leave_out; /* a tensor that is not written */
    bool fused;
    bool tied;
    bool biases;    /* those of Qwen2, and no norms of q and k */
    int64_t q_rows; /* in place of 8 */
    int64_t k_bias; /* in place of 4 */
    int64_t gate_up[3];
    const char *extra; /* a tensor more, [8] */
};

static void put_unless(struct writer *w, const struct variant *v, const char *prefix,
                       const char *name, int dims, const int64_t *shape)
{
    char full[128];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    if (!v->leave_out || strcmp(v->leave_out, full) != 0)
        put(w, full, dims, shape);
}

#define PUT_UNLESS(w, v, prefix, name, ...)                                                        \
    put_unless(w, v, prefix, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),      \
               (int64_t[]){__VA_ARGS__})

static void put_ffn(struct writer *w, const struct variant *v, const char *at, int64_t inner)
{
    PUT_UNLESS(w, v, at, "gate_proj.weight", inner, 8);
    PUT_UNLESS(w, v, at, "up_proj.weight", inner, 8);
    PUT_UNLESS(w, v, at, "down_proj.weight", 8, inner);
}

static void put_layer(struct writer *w, const struct variant *v, int layer)
{
    char at[64], expert[96];
    snprintf(at, sizeof at, "model.layers.%d.", layer);
    PUT_UNLESS(w, v, at, "input_layernorm.weight", 8);
    PUT_UNLESS(w, v, at, "self_attn.q_proj.weight", v->q_rows ? v->q_rows : 8, 8);
    PUT_UNLESS(w, v, at, "self_attn.k_proj.weight", 4, 8);
    PUT_UNLESS(w, v, at, "self_attn.v_proj.weight", 4, 8);
    if (v->biases) {
        PUT_UNLESS(w, v, at, "self_attn.q_proj.bias", 8);
        PUT_UNLESS(w, v, at, "self_attn.k_proj.bias", v->k_bias ? v->k_bias : 4);
        PUT_UNLESS(w, v, at, "self_attn.v_proj.bias", 4);
    } else {
        PUT_UNLESS(w, v, at, "self_attn.q_norm.weight", 4);
        PUT_UNLESS(w, v, at, "self_attn.k_norm.weight", 4);
    }
    PUT_UNLESS(w, v, at, "self_attn.o_proj.weight", 8, 8);
    PUT_UNLESS(w, v, at, "post_attention_layernorm.weight", 8);
    if (layer == 1) {
        snprintf(expert, sizeof expert, "%smlp.", at);
        put_ffn(w, v, expert, 5);
        return;
    }
    PUT_UNLESS(w, v, at, "mlp.gate.weight", 3, 8);
    if (v->fused) {
        static const int64_t usual[] = {3, 12, 8};
        put_unless(w, v, at, "mlp.experts.gate_up_proj", 3, v->gate_up[0] ? v->gate_up : usual);
        PUT_UNLESS(w, v, at, "mlp.experts.down_proj", 3, 8, 6);
        return;
    }
    for (int e = 0; e < 3; e++) {
        snprintf(expert, sizeof expert, "%smlp.experts.%d.", at, e);
        put_ffn(w, v, expert, 6);
    }
}

/* The small model's file in a new folder, opened; the caller closes. */
static struct checkpoint *make(const struct variant *v)
{
    struct folder f = folder_make();
    struct writer w = {.end = 0};
    struct error err;
    struct checkpoint *ck = NULL;
    buf_init(&w.text, 1 << 20);
    PUT_UNLESS(&w, v, "", "model.embed_tokens.weight", 10, 8);
    for (int i = 0; i < 3; i++)
        put_layer(&w, v, i);
    PUT_UNLESS(&w, v, "", "model.norm.weight", 8);
    if (!v->tied)
        PUT_UNLESS(&w, v, "", "lm_head.weight", 10, 8);
    if (v->extra)
        PUT(&w, v->extra, 8);
    buf_puts(&w.text, "}", &err);
    folder_safetensors(&f, "model.safetensors", w.text.data, w.end);
    if (checkpoint_open(f.path, &ck, &err) != OK)
        fail_msg("%s", err.msg);
    buf_fini(&w.text);
    folder_remove(&f);
    return ck;
}

static enum status bind_variant(const struct variant *v, bool tied, struct error *err)
{
    struct model_config c = small();
    struct inventory *inv = NULL;
    c.tied_embeddings = tied;
    c.attention_bias = v->biases;
    c.qk_norm = !v->biases;
    struct checkpoint *ck = make(v);
    assert_int_equal(inventory_create(&c, &inv, err), OK);
    enum status st = inventory_bind(inv, &c, ck, err);
    inventory_destroy(inv);
    checkpoint_close(ck);
    return st;
}

static void weights_stand_in_their_order(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_int_equal(inv->count, 1 + 18 + 11 + 18 + 2);
    assert_int_equal(inv->layer_first[0], 1);
    assert_int_equal(inv->layer_first[1], 19);
    assert_int_equal(inv->layer_first[2], 30);
    assert_int_equal(inv->layer_first[3], 48);
    assert_int_equal(inv->weights[0].role, WEIGHT_EMBED);
    assert_int_equal(inv->weights[48].role, WEIGHT_FINAL_NORM);
    assert_int_equal(inv->weights[49].role, WEIGHT_LM_HEAD);
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        assert_int_equal(inventory_find(inv, w->role, w->layer, w->expert), i);
        assert_int_equal(w->file, -1);
    }
    inventory_destroy(inv);
}

static void assert_shape(const struct inventory *inv, enum weight_role role, int32_t layer,
                         int32_t expert, int64_t rows, int64_t cols)
{
    int32_t i = inventory_find(inv, role, layer, expert);
    assert_true(i >= 0);
    assert_int_equal(inv->weights[i].rows, rows);
    assert_int_equal(inv->weights[i].cols, cols);
}

static void weights_have_their_shapes(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    c.head_dim = 6; /* heads x head_dim is not the hidden size */
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_shape(inv, WEIGHT_EMBED, -1, -1, 10, 8);
    assert_shape(inv, WEIGHT_LM_HEAD, -1, -1, 10, 8);
    assert_shape(inv, WEIGHT_FINAL_NORM, -1, -1, 1, 8);
    assert_shape(inv, WEIGHT_INPUT_NORM, 0, -1, 1, 8);
    assert_shape(inv, WEIGHT_POST_NORM, 0, -1, 1, 8);
    assert_shape(inv, WEIGHT_Q, 0, -1, 12, 8);
    assert_shape(inv, WEIGHT_K, 0, -1, 6, 8);
    assert_shape(inv, WEIGHT_V, 0, -1, 6, 8);
    assert_shape(inv, WEIGHT_O, 0, -1, 8, 12);
    assert_shape(inv, WEIGHT_Q_NORM, 0, -1, 1, 6);
    assert_shape(inv, WEIGHT_K_NORM, 0, -1, 1, 6);
    assert_shape(inv, WEIGHT_ROUTER, 0, -1, 3, 8);
    assert_shape(inv, WEIGHT_GATE, 2, 2, 6, 8);
    assert_shape(inv, WEIGHT_UP, 2, 0, 6, 8);
    assert_shape(inv, WEIGHT_DOWN, 2, 1, 8, 6);
    assert_shape(inv, WEIGHT_GATE, 1, -1, 5, 8);
    assert_shape(inv, WEIGHT_DOWN, 1, -1, 8, 5);
    inventory_destroy(inv);
}

static void families_have_biases_or_norms(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    c.head_dim = 6;
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    for (int role = WEIGHT_Q_BIAS; role <= WEIGHT_V_BIAS; role++)
        assert_int_equal(inventory_find(inv, role, 0, -1), -1);
    inventory_destroy(inv);
    c.attention_bias = true;
    c.qk_norm = false;
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_shape(inv, WEIGHT_Q_BIAS, 0, -1, 12, 1);
    assert_shape(inv, WEIGHT_K_BIAS, 1, -1, 6, 1);
    assert_shape(inv, WEIGHT_V_BIAS, 2, -1, 6, 1);
    assert_shape(inv, WEIGHT_ROUTER, 2, -1, 3, 8);
    assert_int_equal(inventory_find(inv, WEIGHT_Q_NORM, 0, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_K_NORM, 2, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_Q_BIAS, 0, 0), -1);
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        assert_int_equal(inventory_find(inv, w->role, w->layer, w->expert), i);
    }
    inventory_destroy(inv);
}

static void find_knows_what_is_not_there(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    c.tied_embeddings = true;
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_int_equal(inventory_find(inv, WEIGHT_LM_HEAD, -1, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_ROUTER, 1, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_GATE, 1, 0), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_GATE, 0, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_GATE, 0, 3), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_Q, 3, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_Q, -1, -1), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_Q, 0, 0), -1);
    assert_int_equal(inventory_find(inv, WEIGHT_EMBED, 0, -1), -1);
    inventory_destroy(inv);
}

static void model_with_too_many_weights(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    c.layers = MAX_LAYERS;
    c.experts = MAX_EXPERTS;
    memset(c.layer_is_moe, 1, sizeof c.layer_is_moe);
    SAYS(inventory_create(&c, &inv, &err), ERR_LIMIT, &err, "expected at most 2097152 weights",
         "found 6296067", "512 layers of 4096 experts");
}

static void roles_have_words_and_splits(void **state)
{
    (void)state;
    assert_string_equal(weight_role_words(WEIGHT_ROUTER), "mlp.gate");
    assert_int_equal(weight_role_split(WEIGHT_O), SPLIT_Q_COLS);
    int vectors = 0;
    for (int role = 0; role < WEIGHT_ROLE_COUNT; role++)
        vectors += weight_role_is_vector(role);
    assert_int_equal(vectors, 8);
}

static void binds_experts_stored_one_by_one(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    struct variant v = {0};
    struct checkpoint *ck = make(&v);
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_int_equal(inventory_bind(inv, &c, ck, &err), OK);
    const struct weight *w = &inv->weights[inventory_find(inv, WEIGHT_DOWN, 2, 1)];
    const struct tensor_entry *t = checkpoint_find(ck,
                                                   "model.layers.2.mlp.experts.1.down_proj.weight");
    assert_int_equal(w->file, 0);
    assert_int_equal(w->dtype, DTYPE_BF16);
    assert_int_equal(w->offset, t->offset);
    assert_int_equal(w->row_stride, 12);
    inventory_destroy(inv);
    checkpoint_close(ck);
}

static void binds_experts_stored_fused(void **state)
{
    (void)state;
    struct model_config c = small();
    struct inventory *inv = NULL;
    struct error err;
    struct variant v = {.fused = true};
    struct checkpoint *ck = make(&v);
    assert_int_equal(inventory_create(&c, &inv, &err), OK);
    assert_int_equal(inventory_bind(inv, &c, ck, &err), OK);
    const struct tensor_entry *gate_up = checkpoint_find(ck,
                                                         "model.layers.2.mlp.experts.gate_up_proj");
    const struct tensor_entry *down = checkpoint_find(ck, "model.layers.2.mlp.experts.down_proj");
    for (int e = 0; e < 3; e++) {
        const struct weight *g = &inv->weights[inventory_find(inv, WEIGHT_GATE, 2, e)];
        const struct weight *u = &inv->weights[inventory_find(inv, WEIGHT_UP, 2, e)];
        const struct weight *d = &inv->weights[inventory_find(inv, WEIGHT_DOWN, 2, e)];
        assert_int_equal(g->offset, gate_up->offset + (uint64_t)e * 12 * 8 * 2);
        assert_int_equal(u->offset, gate_up->offset + (uint64_t)e * 12 * 8 * 2 + 6 * 8 * 2);
        assert_int_equal(d->offset, down->offset + (uint64_t)e * 8 * 6 * 2);
        assert_int_equal(g->row_stride, 16);
        assert_int_equal(u->row_stride, 16);
        assert_int_equal(d->row_stride, 12);
    }
    inventory_destroy(inv);
    checkpoint_close(ck);
}

static void fused_experts_transposed(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.fused = true, .gate_up = {3, 8, 12}};
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err,
         "model.safetensors: tensor model.layers.0.mlp.experts.gate_up_proj", "expected [3, 12, 8]",
         "found [3, 8, 12]");
}

static void fused_experts_by_half(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.fused = true, .leave_out = "model.layers.2.mlp.experts.down_proj"};
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err,
         "tensor model.layers.2.mlp.experts.down_proj", "expected shape [3, 8, 6]",
         "found no such tensor");
    v.leave_out = "model.layers.2.mlp.experts.gate_up_proj";
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err,
         "tensor model.layers.2.mlp.experts.0.gate_proj.weight", "expected shape [6, 8]",
         "found no such tensor");
}

static void experts_stored_both_ways(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.fused = true, .extra = "model.layers.0.mlp.experts.0.gate_proj.weight"};
    SAYS(bind_variant(&v, false, &err), ERR_UNSUPPORTED, &err,
         "tensor model.layers.0.mlp.experts.0.gate_proj.weight", "found one that is none of them");
}

static void every_tensor_left_out_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.1.self_attn.v_proj.weight",
        "model.layers.1.self_attn.q_norm.weight",
        "model.layers.1.self_attn.k_norm.weight",
        "model.layers.1.self_attn.o_proj.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.2.post_attention_layernorm.weight",
        "model.layers.2.mlp.gate.weight",
        "model.layers.2.mlp.experts.2.down_proj.weight",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct error err;
        struct variant v = {.leave_out = names[i]};
        SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err, names[i], "expected shape [",
             "found no such tensor");
    }
}

static void shape_other_than_the_config_says(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.q_rows = 16};
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err,
         "model.safetensors: tensor model.layers.0.self_attn.q_proj.weight", "expected [8, 8]",
         "found [16, 8]");
}

static void tensor_that_the_model_does_not_need(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.extra = "model.layers.3.input_layernorm.weight"};
    SAYS(bind_variant(&v, false, &err), ERR_UNSUPPORTED, &err,
         "model.safetensors: tensor model.layers.3.input_layernorm.weight", "expected only",
         "3 layers", "found one that is none of them");
    v.extra = "model.layers.0.self_attn.q_proj.bias";
    SAYS(bind_variant(&v, false, &err), ERR_UNSUPPORTED, &err, "q_proj.bias");
}

static void biases_are_bound_and_demanded(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.biases = true};
    assert_int_equal(bind_variant(&v, false, &err), OK);
    v.leave_out = "model.layers.1.self_attn.v_proj.bias";
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err, v.leave_out, "expected shape [4]",
         "found no such tensor");
    v = (struct variant){.biases = true, .k_bias = 8};
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err,
         "model.safetensors: tensor model.layers.0.self_attn.k_proj.bias", "expected [4]",
         "found [8]");
    v = (struct variant){.biases = true, .extra = "model.layers.0.self_attn.q_norm.weight"};
    SAYS(bind_variant(&v, false, &err), ERR_UNSUPPORTED, &err, v.extra,
         "found one that is none of them");
    v.extra = "model.layers.2.self_attn.o_proj.bias";
    SAYS(bind_variant(&v, false, &err), ERR_UNSUPPORTED, &err, v.extra,
         "found one that is none of them");
}

static void buffers_and_tied_heads_are_ignored(void **state)
{
    (void)state;
    struct error err;
    struct variant v = {.extra = "model.layers.0.self_attn.rotary_emb.inv_freq"};
    assert_int_equal(bind_variant(&v, false, &err), OK);
    assert_int_equal(bind_variant(&v, true, &err), OK); /* tied, and lm_head in the file */
    v.tied = true;
    assert_int_equal(bind_variant(&v, true, &err), OK);
    SAYS(bind_variant(&v, false, &err), ERR_INVALID, &err, "tensor lm_head.weight",
         "found no such tensor");
}

/* Every byte of a bound checkpoint belongs to one weight. */
static void assert_covers(const struct inventory *inv, const struct checkpoint *ck)
{
    size_t count;
    uint64_t stored = 0, bound = 0;
    const struct tensor_entry *t = checkpoint_tensors(ck, &count);
    for (size_t i = 0; i < count; i++)
        stored += t[i].bytes;
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        uint64_t bytes = (uint64_t)w->rows * w->row_stride;
        assert_true(w->offset + bytes <= checkpoint_file_bytes(ck, w->file));
        bound += bytes;
    }
    assert_int_equal(bound, stored);
}

static void accept(const char *dir)
{
    struct model_config c;
    struct generation_config g;
    struct checkpoint *ck = NULL;
    struct inventory *inv = NULL;
    struct error err;
    if (config_load(dir, &c, &g, &err) != OK || checkpoint_open(dir, &ck, &err) != OK ||
        inventory_create(&c, &inv, &err) != OK || inventory_bind(inv, &c, ck, &err) != OK) {
        fail_msg("%s", err.msg);
        return; /* for analysers: fail_msg does not return */
    }
    assert_covers(inv, ck);
    inventory_destroy(inv);
    checkpoint_close(ck);
}

static void golden_checkpoints_are_accepted(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob(WITAN_SOURCE_DIR "/tests/golden/oracle/*/config.json", 0, NULL, &found),
                     0);
    assert_true(found.gl_pathc >= 11);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char *slash = strrchr(found.gl_pathv[i], '/');
        *slash = '\0';
        accept(found.gl_pathv[i]);
        *slash = '/';
    }
    globfree(&found);
}

static void shipped_model_is_accepted(void **state)
{
    (void)state;
    if (access(WITAN_SOURCE_DIR "/deploy/lexicon/model/config.json", R_OK) != 0) {
        fprintf(stderr, "skipped: deploy/lexicon/model is absent\n");
        exit(77);
    }
    accept(WITAN_SOURCE_DIR "/deploy/lexicon/model");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(weights_stand_in_their_order),
    cmocka_unit_test(weights_have_their_shapes),
    cmocka_unit_test(families_have_biases_or_norms),
    cmocka_unit_test(find_knows_what_is_not_there),
    cmocka_unit_test(model_with_too_many_weights),
    cmocka_unit_test(roles_have_words_and_splits),
    cmocka_unit_test(binds_experts_stored_one_by_one),
    cmocka_unit_test(binds_experts_stored_fused),
    cmocka_unit_test(fused_experts_transposed),
    cmocka_unit_test(fused_experts_by_half),
    cmocka_unit_test(experts_stored_both_ways),
    cmocka_unit_test(every_tensor_left_out_is_named),
    cmocka_unit_test(shape_other_than_the_config_says),
    cmocka_unit_test(tensor_that_the_model_does_not_need),
    cmocka_unit_test(biases_are_bound_and_demanded),
    cmocka_unit_test(buffers_and_tied_heads_are_ignored),
    cmocka_unit_test(golden_checkpoints_are_accepted),
    cmocka_unit_test(shipped_model_is_accepted),
};

UNIT_MAIN(tests)
