/*
 * Quantised checkpoints: what their config.json comes to, which weights are covered, what cuts of
 * them weigh and where they may lie. Refusals of bad fields are in config_test.c.
 */
#include "tests/unit/unit.h"

#include "base/buf.h"
#include "base/check.h"
#include "partition/plan.h"
#include "partition/weight_format.h"

enum { FILE_LIMIT = 1 << 20 };

static struct model_config golden(const char *name)
{
    char path[4096], *text;
    size_t len;
    struct model_config c;
    struct error err;
    snprintf(path, sizeof path, WITAN_SOURCE_DIR "/tests/golden/configs/%s.json", name);
    if (file_read_all(path, FILE_LIMIT, &text, &len, &err) != OK ||
        config_parse(name, text, len, &c, &err) != OK)
        fail_msg("%s", err.msg);
    free(text);
    return c;
}

/* A small model of two MoE layers and a dense one with this quantization_config. */
static struct model_config small(const char *quantization)
{
    char text[4096];
    struct model_config c;
    struct error err;
    snprintf(text, sizeof text,
             "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\","
             "\"hidden_size\":512,\"num_hidden_layers\":12,\"vocab_size\":300,"
             "\"max_position_embeddings\":128,\"rms_norm_eps\":1e-6,\"rope_theta\":1e4,"
             "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"head_dim\":64,"
             "\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":256,"
             "\"intermediate_size\":1024,\"mlp_only_layers\":[1],\"quantization_config\":{%s}}",
             quantization);
    if (config_parse("small", text, strlen(text), &c, &err) != OK)
        fail_msg("%s", err.msg);
    return c;
}

#define FP8 "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]"
#define GPTQ "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128"
#define AWQ "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128"

static void formats_are_read(void **state)
{
    (void)state;
    struct model_config c = golden("235b-a22b-fp8");
    assert_int_equal(c.quant.format, FORMAT_FP8);
    assert_int_equal(c.quant.bits, 8);
    assert_int_equal(c.quant.block_rows, 128);
    assert_int_equal(c.quant.block_cols, 128);
    c = golden("30b-a3b-gptq");
    assert_int_equal(c.quant.format, FORMAT_GPTQ);
    assert_int_equal(c.quant.bits, 4);
    assert_int_equal(c.quant.block_cols, 128);
    assert_int_equal(c.quant.block_rows, 8);
    c = small(AWQ ",\"version\":\"gemm\",\"modules_to_not_convert\":[\"mlp.gate\"]");
    assert_int_equal(c.quant.format, FORMAT_AWQ);
    assert_true(weight_format_covers(&c.quant, WEIGHT_GATE, 0));
    c = golden("30b-a3b");
    assert_int_equal(c.quant.format, FORMAT_PLAIN);
    assert_int_equal(c.dtype, DTYPE_BF16);
    assert_false(weight_format_covers(&c.quant, WEIGHT_Q, 0));
}

static void outside_the_linear_layers_nothing_is_covered(void **state)
{
    (void)state;
    struct model_config c = small(FP8);
    static const enum weight_role plain[] = {WEIGHT_INPUT_NORM, WEIGHT_Q_NORM,    WEIGHT_K_NORM,
                                             WEIGHT_POST_NORM,  WEIGHT_ROUTER,    WEIGHT_EMBED,
                                             WEIGHT_LM_HEAD,    WEIGHT_FINAL_NORM};
    static const enum weight_role covered[] = {WEIGHT_Q,    WEIGHT_K,  WEIGHT_V,   WEIGHT_O,
                                               WEIGHT_GATE, WEIGHT_UP, WEIGHT_DOWN};
    for (size_t i = 0; i < COUNT_OF(plain); i++)
        assert_false(weight_format_covers(&c.quant, plain[i], plain[i] == WEIGHT_EMBED ? -1 : 0));
    for (size_t i = 0; i < COUNT_OF(covered); i++)
        assert_true(weight_format_covers(&c.quant, covered[i], 0));
}

static void named_modules_stay_plain(void **state)
{
    (void)state;
    struct model_config c = small(FP8 ",\"modules_to_not_convert\":[\"lm_head\",\"mlp.gate\","
                                      "\"model.layers.1\",\"model.layers.0.self_attn.q_proj\","
                                      "\"o_proj\",\"model.layers.2.mlp.experts\"]");
    const struct quantization *q = &c.quant;
    assert_false(weight_format_covers(q, WEIGHT_Q, 0));
    assert_true(weight_format_covers(q, WEIGHT_K, 0));
    assert_true(weight_format_covers(q, WEIGHT_GATE, 0)); /* mlp.gate is the router */
    for (enum weight_role role = WEIGHT_Q; role <= WEIGHT_DOWN; role++)
        assert_false(weight_format_covers(q, role, 1));
    for (int32_t i = 0; i < c.layers; i++)
        assert_false(weight_format_covers(q, WEIGHT_O, i));
    assert_false(weight_format_covers(q, WEIGHT_DOWN, 2));
    assert_true(weight_format_covers(q, WEIGHT_Q, 2));
    assert_true(weight_format_covers(q, WEIGHT_Q, 10)); /* not layers.1 */
    assert_true(weight_format_covers(q, WEIGHT_DOWN, 10));
}

static void kinds_of_layers_are_told_apart(void **state)
{
    (void)state;
    struct model_config c = small(FP8 ",\"modules_to_not_convert\":[\"mlp.gate_proj\"]");
    assert_true(weight_format_covers(&c.quant, WEIGHT_GATE, 0));
    assert_false(weight_format_covers(&c.quant, WEIGHT_GATE, 1)); /* dense */
    c = small(FP8 ",\"modules_to_not_convert\":[\"experts\"]");
    assert_false(weight_format_covers(&c.quant, WEIGHT_GATE, 0));
    assert_true(weight_format_covers(&c.quant, WEIGHT_GATE, 1));
}

static void dynamic_leaves_modules_out(void **state)
{
    (void)state;
    struct model_config c = small(
        GPTQ ",\"dynamic\":{\"-:.*mlp\\\\.gate$\":{},\"-:^.*\\\\.v_proj.*\":{}}");
    assert_true(weight_format_covers(&c.quant, WEIGHT_GATE, 0));
    assert_false(weight_format_covers(&c.quant, WEIGHT_V, 0));
    assert_true(weight_format_covers(&c.quant, WEIGHT_K, 0));
}

static void a_cut_weighs_its_values_and_scales(void **state)
{
    (void)state;
    struct model_config c = small(FP8);
    /* [256, 512]: 2 x 4 blocks of fp32 scales. */
    assert_int_equal(weight_format_bytes(&c.quant, 0, 256, 0, 512), 256 * 512 + 8 * 4);
    assert_int_equal(weight_format_bytes(&c.quant, 128, 128, 0, 512), 128 * 512 + 4 * 4);
    assert_int_equal(weight_format_bytes(&c.quant, 0, 100, 0, 130), 100 * 130 + 2 * 4);
    c = small(GPTQ);
    /* Values, fp16 scales, zeros by 8 rows a word, an index a column. */
    assert_int_equal(weight_format_bytes(&c.quant, 0, 256, 0, 512),
                     256 * 512 / 2 + 256 * 4 * 2 + 32 * 4 * 4 + 512 * 4);
    c = small(AWQ);
    assert_int_equal(weight_format_bytes(&c.quant, 0, 256, 128, 128),
                     256 * 128 / 2 + 256 * 2 + 32 * 4);
    c = small("\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1");
    assert_int_equal(weight_format_bytes(&c.quant, 0, 256, 128, 128),
                     256 * 128 + 256 * 2 + 64 * 4 + 128 * 4);
}

static void borders_are_those_of_blocks(void **state)
{
    (void)state;
    struct model_config c = small(FP8);
    assert_true(weight_format_row_border(&c.quant, 128, 300));
    assert_false(weight_format_row_border(&c.quant, 192, 300));
    assert_true(weight_format_column_border(&c.quant, 300, 300));
    c = small(GPTQ);
    assert_true(weight_format_row_border(&c.quant, 8, 300));
    assert_false(weight_format_row_border(&c.quant, 4, 300));
    assert_false(weight_format_column_border(&c.quant, 64, 300));
    c = small(GPTQ ",\"desc_act\":true");
    assert_false(weight_format_column_border(&c.quant, 128, 300));
    assert_true(weight_format_column_border(&c.quant, 300, 300));
}

/* Layouts that published engines accept until they load, or until the first request: vllm#17569,
 * #25292, #17604. */
static const struct {
    const char *name;
    struct layout layout;
    const char *words; /* NULL = legal */
} cuts[] = {
    {"235b-a22b-fp8",
     {1, 8, 1, 0},
     "over w / ep = 8 ranks are 192 each, inside a block of 128 columns (fp8)"},
    {"30b-a3b-fp8",
     {1, 4, 1, 0},
     "over w / ep = 4 ranks are 192 each, inside a block of 128 columns (fp8)"},
    {"480b-coder-fp8", {1, 8, 1, 0}, "over w / ep = 8 ranks are 320 each, inside a block"},
    {"235b-gptq",
     {1, 8, 1, 0},
     "over w / ep = 8 ranks are 192 each, inside a block of 128 columns (gptq)"},
    {"30b-a3b-gptq", {1, 8, 1, 0}, "over w / ep = 8 ranks are 96 each, inside a block"},
    {"480b-coder-fp8", {1, 3, 1, 0}, "over w / ep = 3 ranks are 853.333 each"},
    {"235b-a22b-fp8", {1, 4, 1, 0}, NULL},
    {"235b-a22b-fp8", {1, 8, 2, 0}, NULL},
    {"235b-a22b-fp8", {1, 8, 8, 0}, NULL},
    {"30b-a3b-fp8", {1, 4, 2, 0}, NULL},
    {"30b-a3b-fp8", {1, 2, 1, 0}, NULL},
    {"480b-coder-fp8", {1, 8, 2, 0}, NULL},
    {"480b-coder-fp8", {1, 4, 1, 0}, NULL},
    {"235b-gptq", {1, 8, 8, 0}, NULL},
    {"235b-a22b", {1, 8, 1, 0}, NULL},
    {"30b-a3b", {1, 4, 1, 0}, NULL},
};

static void cuts_inside_blocks_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        struct model_config c = golden(cuts[i].name);
        struct layout l = cuts[i].layout;
        struct error err = {.msg = ""};
        enum status st = layout_check(&c, &l, &err);
        if ((st == OK) != (cuts[i].words == NULL))
            fail_msg("%s pp %d tp %d ep %d: %s", cuts[i].name, l.pp, l.tp, l.ep, err.msg);
        if (cuts[i].words && !strstr(err.msg, cuts[i].words))
            fail_msg("expected \"%s\" in: %s", cuts[i].words, err.msg);
        assert_true(st == OK || strstr(err.msg, "nearest that work: pp 1 tp ") != NULL);
    }
}

static void refuses(const char *quantization, struct layout l, const char *words)
{
    struct model_config c = small(quantization);
    struct error err;
    if (layout_check(&c, &l, &err) != ERR_INVALID)
        fail_msg("accepted, expected \"%s\"", words);
    if (!strstr(err.msg, words))
        fail_msg("expected \"%s\" in: %s", words, err.msg);
}

/* Heads of 64 in blocks of 128: two heads must stay together. */
static void heads_inside_blocks_are_refused(void **state)
{
    (void)state;
    struct model_config c = small(FP8);
    struct error err;
    refuses(FP8, (struct layout){1, 8, 8, 0}, "tp 8 cuts q_proj after 64 rows, inside a block");
    refuses(FP8, (struct layout){1, 2, 2, 0}, "tp 2 cuts k_proj and v_proj after 64 rows");
    refuses(FP8 ",\"modules_to_not_convert\":[\"q_proj\",\"k_proj\",\"v_proj\"]",
            (struct layout){1, 8, 8, 0}, "tp 8 cuts o_proj after 64 columns");
    refuses(GPTQ, (struct layout){1, 8, 8, 0}, "o_proj after 64 columns, inside a block");
    refuses(GPTQ ",\"desc_act\":true", (struct layout){1, 2, 2, 0},
            "o_proj after 256 columns, but its blocks span all columns (gptq)");
    c = small(FP8 ",\"modules_to_not_convert\":[\"self_attn\"]");
    assert_int_equal(layout_check(&c, &(struct layout){1, 8, 8, 0}, &err), OK);
}

static void dense_layers_are_cut_on_borders(void **state)
{
    (void)state;
    struct model_config c = small(FP8 ",\"modules_to_not_convert\":[\"self_attn\"]");
    struct error err;
    /* 8 blocks of 128 over 5 ranks: uneven, but on borders. */
    c.experts = 5;
    assert_int_equal(layout_check(&c, &(struct layout){1, 1, 5, 0}, &err), OK);
    c.quant.block_rows = 256;
    assert_int_equal(layout_check(&c, &(struct layout){1, 1, 5, 0}, &err), ERR_INVALID);
    assert_non_null(strstr(err.msg, "5 ranks cut a dense layer's FFN after"));
}

/* All bytes of one rank, without the scales' few. */
static void checkpoints_have_their_published_sizes(void **state)
{
    (void)state;
    /* Parameters: 30.5, 235.1 and 480.2 billion (model cards); plain ones are embedding, lm_head,
     * routers and norms. In memory a group of 128 of 4 bits has 4 bytes of scale and zero. */
    static const struct {
        const char *name;
        double gb;
    } sizes[] = {{"30b-a3b", 61.1},      {"235b-a22b", 470.2},     {"480b-coder", 960.3},
                 {"30b-a3b-fp8", 31.2},  {"235b-a22b-fp8", 236.4}, {"480b-coder-fp8", 482.2},
                 {"30b-a3b-gptq", 17.2}, {"235b-gptq", 127.0}};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct model_config c = golden(sizes[i].name);
        struct inventory *inv = NULL;
        struct plan *p = NULL;
        struct error err;
        struct engine_limits limits = {.max_rows = 1, .max_seqs = 1, .max_logits = 1, .threads = 1};
        assert_int_equal(inventory_create(&c, &inv, &err), OK);
        assert_int_equal(plan_create(&c, inv, (struct layout){1, 1, 1, 0}, &p, &err), OK);
        inv->mode = WEIGHTS_PACKED;
        struct memory_plan m = plan_memory(&c, inv, p, &p->ranks[0], &limits);
        double gb = (double)m.weights * 1e-9;
        print_message("%s: %.2f GB\n", sizes[i].name, gb);
        assert_true(gb > sizes[i].gb * 0.99 && gb < sizes[i].gb * 1.01);
        plan_destroy(p);
        inventory_destroy(inv);
    }
}

/* The scales of the ranks together are those of one rank, when cuts lie on borders. */
static void cuts_add_up(void **state)
{
    (void)state;
    static const char *const names[] = {"30b-a3b-fp8", "480b-coder-fp8"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct model_config c = golden(names[i]);
        uint64_t whole = weight_format_bytes(&c.quant, 0, c.hidden, 0, c.moe_intermediate), sum = 0;
        for (int32_t at = 0; at < c.moe_intermediate; at += 2 * FFN_BLOCK)
            sum += weight_format_bytes(&c.quant, 0, c.hidden, at, 2 * FFN_BLOCK);
        assert_int_equal(sum, whole);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(formats_are_read),
    cmocka_unit_test(outside_the_linear_layers_nothing_is_covered),
    cmocka_unit_test(named_modules_stay_plain),
    cmocka_unit_test(kinds_of_layers_are_told_apart),
    cmocka_unit_test(dynamic_leaves_modules_out),
    cmocka_unit_test(a_cut_weighs_its_values_and_scales),
    cmocka_unit_test(borders_are_those_of_blocks),
    cmocka_unit_test(cuts_inside_blocks_are_refused),
    cmocka_unit_test(heads_inside_blocks_are_refused),
    cmocka_unit_test(dense_layers_are_cut_on_borders),
    cmocka_unit_test(checkpoints_have_their_published_sizes),
    cmocka_unit_test(cuts_add_up),
};

UNIT_MAIN(tests)
