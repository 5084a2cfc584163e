/* partition/config: what config.json and generation_config.json may say, and what is refused. */
#include "tests/unit/partition/folder.h"

#include "partition/config.h"

#define HEAD "\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\","
#define SIZES                                                                                      \
    "\"hidden_size\":64,\"num_hidden_layers\":4,\"vocab_size\":300,"                               \
    "\"max_position_embeddings\":128,\"rms_norm_eps\":1e-6,"
#define HEADS "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":24,"
#define ROPE "\"rope_theta\":10000.0,"
#define FFN                                                                                        \
    "\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":32,"                    \
    "\"intermediate_size\":96,"
#define END "\"use_cache\":true}"

/* A case of one config: refused with the status, naming file, field, and all the words given. */
#define REFUSES(case_name, text, status, ...)                                                      \
    static void case_name(void **state)                                                            \
    {                                                                                              \
        (void)state;                                                                               \
        struct error err;                                                                          \
        struct model_config c = {.layers = -7};                                                    \
        SAYS(config_parse("config.json", text, sizeof(text) - 1, &c, &err), status, &err,          \
             "config.json: ", __VA_ARGS__);                                                        \
        assert_int_equal(c.layers, -7);                                                            \
    }

/* The sound config with these fields more. */
#define WITH(fields) "{" HEAD SIZES HEADS ROPE FFN fields "," END

/* The dense families, with these fields more, each followed by a comma; no head_dim. */
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\","
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\","
#define DENSE(family, fields)                                                                      \
    "{" family SIZES ROPE "\"num_attention_heads\":4,\"num_key_value_heads\":2,"                   \
    "\"intermediate_size\":96," fields END

REFUSES(other_model_type,
        "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen2_moe\"}",
        ERR_UNSUPPORTED, "model_type", "expected \"qwen3_moe\"", "found \"qwen2_moe\"")
REFUSES(other_architecture,
        "{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3_moe\"}", ERR_UNSUPPORTED,
        "architectures", "expected \"Qwen3MoeForCausalLM\"", "found \"Qwen3ForCausalLM\"")
REFUSES(dense_architecture_of_another_task,
        "{\"architectures\":[\"Qwen3Model\"],\"model_type\":\"qwen3\"}", ERR_UNSUPPORTED,
        "architectures", "expected \"Qwen3ForCausalLM\"", "found \"Qwen3Model\"")
REFUSES(qwen2_of_another_type,
        "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2_vl\"}", ERR_UNSUPPORTED,
        "model_type", "expected \"qwen3_moe\" or \"qwen3\" or \"qwen2\"", "found \"qwen2_vl\"")
REFUSES(no_architecture, "{\"architectures\":[],\"model_type\":\"qwen3_moe\"}", ERR_UNSUPPORTED,
        "architectures", "found none")
REFUSES(architectures_missing, "{\"model_type\":\"qwen3_moe\"}", ERR_INVALID, "architectures",
        "expected an array", "found nothing")
REFUSES(architecture_of_wrong_type, "{\"architectures\":[3],\"model_type\":\"qwen3_moe\"}",
        ERR_INVALID, "architectures[0]", "expected a string", "found an integer")
REFUSES(model_type_missing, "{}", ERR_INVALID, "model_type", "expected a string", "found nothing")
REFUSES(not_an_object, "[]", ERR_INVALID, "expected an object", "found an array")
REFUSES(not_json, "{\"a\":}", ERR_INVALID, "line 1 column 6")
REFUSES(empty_text, "", ERR_INVALID, "line 1")
REFUSES(field_twice, "{\"a\":1,\"a\":1}", ERR_INVALID, "duplicate")
/* Found by config_fuzz: jansson quotes the text, and with it a newline behind a backslash. */
REFUSES(regression_newline_in_quoted_json, "{\"a\": 4, \"rope_par`\\\n\003\": null}", ERR_INVALID,
        "invalid escape near")

REFUSES(size_missing, "{" HEAD "\"vocab_size\":300," END, ERR_INVALID, "hidden_size",
        "expected an integer", "found nothing")
REFUSES(size_of_wrong_type, "{" HEAD "\"hidden_size\":\"64\"," END, ERR_INVALID, "hidden_size",
        "expected an integer", "found a string")
REFUSES(size_negative, "{" HEAD "\"hidden_size\":-64," END, ERR_INVALID, "hidden_size",
        "expected 1 to", "found -64")
REFUSES(size_huge, "{" HEAD "\"hidden_size\":4611686018427387904," END, ERR_INVALID, "hidden_size",
        "expected 1 to 1048576", "found 4611686018427387904")
REFUSES(too_many_layers, "{" HEAD "\"hidden_size\":64,\"num_hidden_layers\":513," END, ERR_INVALID,
        "num_hidden_layers", "expected 1 to 512", "found 513")
REFUSES(heads_that_do_not_divide,
        "{" HEAD SIZES "\"num_attention_heads\":6,\"num_key_value_heads\":4," ROPE FFN END,
        ERR_INVALID, "num_key_value_heads", "divisor of num_attention_heads = 6", "found 4")
REFUSES(more_kv_heads_than_heads,
        "{" HEAD SIZES "\"num_attention_heads\":4,\"num_key_value_heads\":8," ROPE FFN END,
        ERR_INVALID, "num_key_value_heads", "expected 1 to 4", "found 8")
REFUSES(odd_head_dim,
        "{" HEAD SIZES
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":25," ROPE FFN END,
        ERR_INVALID, "head_dim", "an even number", "found 25")
REFUSES(head_dim_that_hidden_size_cannot_give,
        "{" HEAD SIZES "\"num_attention_heads\":5,\"num_key_value_heads\":1," ROPE FFN END,
        ERR_INVALID, "head_dim", "num_attention_heads = 5", "hidden_size = 64", "found nothing")

#define YARN(fields) WITH("\"rope_scaling\":{\"rope_type\":\"yarn\"," fields "}")
#define FOUR "\"factor\":4.0,\"original_max_position_embeddings\":64"

REFUSES(other_rope_type, WITH("\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":4.0}"),
        ERR_UNSUPPORTED, "rope_scaling", "expected rope_type \"default\" or \"yarn\"",
        "found \"longrope\"")
REFUSES(old_spelling_of_rope_type, WITH("\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"),
        ERR_UNSUPPORTED, "rope_scaling", "found \"linear\"")
REFUSES(dynamic_in_rope_parameters,
        "{" HEAD SIZES HEADS
        "\"rope_parameters\":{\"rope_type\":\"dynamic\",\"rope_theta\":1e6}," FFN END,
        ERR_UNSUPPORTED, "rope_parameters", "found \"dynamic\"")
REFUSES(yarn_without_factor, YARN("\"original_max_position_embeddings\":64"), ERR_INVALID,
        "rope_scaling: factor", "expected a number", "found nothing")
REFUSES(yarn_without_trained_length, YARN("\"factor\":4.0"), ERR_INVALID,
        "rope_scaling: original_max_position_embeddings", "expected an integer", "found nothing")
REFUSES(yarn_of_another_field, YARN(FOUR ",\"finetuned\":true"), ERR_UNSUPPORTED, "rope_scaling",
        "expected no field but those of YaRN", "found \"finetuned\"")
REFUSES(yarn_factor_below_one, YARN("\"factor\":0.5,\"original_max_position_embeddings\":64"),
        ERR_INVALID, "rope_scaling: factor", "expected 1 to 1024", "found 0.5")
REFUSES(yarn_factor_of_wrong_type, YARN("\"factor\":\"4\",\"original_max_position_embeddings\":64"),
        ERR_INVALID, "rope_scaling: factor", "expected a number", "found a string")
REFUSES(yarn_trained_length_not_whole,
        YARN("\"factor\":4,\"original_max_position_embeddings\":64.5"), ERR_INVALID,
        "original_max_position_embeddings", "expected an integer", "found a real")
REFUSES(yarn_betas_exchanged, YARN(FOUR ",\"beta_fast\":1,\"beta_slow\":32"), ERR_INVALID,
        "rope_scaling: beta_fast", "expected 32 to", "found 1")
REFUSES(yarn_attention_factor_zero, YARN(FOUR ",\"attention_factor\":0"), ERR_INVALID,
        "attention_factor", "expected 0.001 to 1000", "found 0")
REFUSES(yarn_truncate_of_wrong_type, YARN(FOUR ",\"truncate\":1"), ERR_INVALID, "truncate",
        "expected true or false", "found an integer")
REFUSES(yarn_with_partial_rotary, YARN(FOUR ",\"partial_rotary_factor\":0.25"), ERR_UNSUPPORTED,
        "partial_rotary_factor", "expected 1", "found 0.25")
REFUSES(yarn_said_twice,
        WITH("\"rope_scaling\":{\"type\":\"yarn\"," FOUR "},"
             "\"rope_parameters\":{\"rope_type\":\"yarn\"," FOUR "}"),
        ERR_INVALID, "rope_parameters", "expected no YaRN beside that of rope_scaling")
REFUSES(yarn_with_theta_one,
        "{" HEAD SIZES HEADS "\"rope_theta\":1.0,"
        "\"rope_scaling\":{\"type\":\"yarn\"," FOUR "}," FFN END,
        ERR_INVALID, "rope_theta", "expected 1.5 or more with YaRN", "found 1")
REFUSES(rope_without_type, WITH("\"rope_scaling\":{}"), ERR_INVALID, "rope_scaling: rope_type",
        "expected a string", "found nothing")
REFUSES(rope_of_wrong_type, WITH("\"rope_scaling\":\"yarn\""), ERR_INVALID, "rope_scaling",
        "expected an object", "found a string")
REFUSES(rope_theta_missing, "{" HEAD SIZES HEADS FFN END, ERR_INVALID, "rope_theta",
        "expected a number", "found nothing")
REFUSES(rope_theta_said_twice,
        WITH("\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":500}"), ERR_INVALID,
        "rope_theta", "expected 500 as in rope_parameters", "found 10000")
REFUSES(partial_rotary,
        WITH("\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}"),
        ERR_UNSUPPORTED, "rope_parameters: partial_rotary_factor", "expected 1", "found 0.5")

#define QUANT(fields) WITH("\"quantization_config\":{" fields "}")
#define FP8 "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]"
#define GPTQ "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128"

REFUSES(quantization_of_an_unknown_method, QUANT("\"quant_method\":\"bitsandbytes\""),
        ERR_UNSUPPORTED, "quantization_config: quant_method",
        "expected \"fp8\", \"gptq\" or \"awq\"",
        "found \"bitsandbytes\": take the model plain, as GGUF, or quantised as is expected here")
REFUSES(quantization_without_name, QUANT(""), ERR_INVALID, "quantization_config: quant_method",
        "expected a string", "found nothing")
REFUSES(quantization_of_wrong_type, WITH("\"quantization_config\":\"fp8\""), ERR_INVALID,
        "quantization_config", "expected an object", "found a string")
REFUSES(fp8_without_blocks, QUANT("\"quant_method\":\"fp8\",\"weight_block_size\":null"),
        ERR_UNSUPPORTED, "weight_block_size", "expected an array of rows and columns", "found null")
REFUSES(fp8_blocks_of_one_number, QUANT("\"quant_method\":\"fp8\",\"weight_block_size\":[128]"),
        ERR_INVALID, "weight_block_size", "an array of another length")
REFUSES(fp8_blocks_of_wrong_type,
        QUANT("\"quant_method\":\"fp8\",\"weight_block_size\":[128,\"a\"]"), ERR_INVALID,
        "weight_block_size[1]", "expected an integer", "found a string")
REFUSES(fp8_blocks_of_nothing, QUANT("\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]"),
        ERR_INVALID, "weight_block_size[0]", "expected 1 to 65536", "found 0")
REFUSES(fp8_of_another_kind, QUANT(FP8 ",\"fmt\":\"e5m2\""), ERR_UNSUPPORTED, "fmt",
        "expected \"e4m3\"", "found \"e5m2\"")
REFUSES(fp8_with_static_activations, QUANT(FP8 ",\"activation_scheme\":\"static\""),
        ERR_UNSUPPORTED, "activation_scheme", "expected \"dynamic\"", "found \"static\"")
REFUSES(gptq_without_bits, QUANT("\"quant_method\":\"gptq\",\"group_size\":128"), ERR_INVALID,
        "bits", "expected an integer", "found nothing")
REFUSES(gptq_of_three_bits, QUANT("\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128"),
        ERR_UNSUPPORTED, "bits", "expected 4 or 8", "found 3")
REFUSES(awq_of_eight_bits, QUANT("\"quant_method\":\"awq\",\"bits\":8,\"group_size\":128"),
        ERR_UNSUPPORTED, "bits", "expected 4", "found 8")
REFUSES(awq_in_another_packing,
        QUANT("\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"version\":\"gemv\""),
        ERR_UNSUPPORTED, "version", "expected \"gemm\"", "found \"gemv\"")
REFUSES(group_of_nothing, QUANT("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0"),
        ERR_INVALID, "group_size", "expected -1 or a multiple of 8", "found 0")
REFUSES(group_that_splits_words, QUANT("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":100"),
        ERR_INVALID, "group_size", "expected -1 or a multiple of 8", "found 100")
REFUSES(quantized_lm_head, QUANT(GPTQ ",\"lm_head\":true"), ERR_UNSUPPORTED, "lm_head",
        "expected false", "found true")
REFUSES(gptq_of_chosen_modules, QUANT(GPTQ ",\"modules_in_block_to_quantize\":[[\"mlp\"]]"),
        ERR_UNSUPPORTED, "modules_in_block_to_quantize", "expected nothing", "found an array")
REFUSES(plain_modules_of_wrong_type, QUANT(FP8 ",\"modules_to_not_convert\":\"lm_head\""),
        ERR_INVALID, "modules_to_not_convert", "expected an array", "found a string")
REFUSES(plain_module_of_wrong_type, QUANT(FP8 ",\"modules_to_not_convert\":[\"lm_head\",4]"),
        ERR_INVALID, "modules_to_not_convert[1]", "expected a string", "found an integer")
REFUSES(plain_module_by_expression, QUANT(FP8 ",\"modules_to_not_convert\":[\"re:.*gate$\"]"),
        ERR_UNSUPPORTED, "modules_to_not_convert[0]", "expected names of modules",
        "found \"re:.*gate$\"")
REFUSES(plain_module_of_one_expert,
        QUANT(FP8 ",\"modules_to_not_convert\":[\"model.layers.1.mlp.experts.3.up_proj\"]"),
        ERR_UNSUPPORTED, "expected modules of whole layers", "of one expert")
REFUSES(dynamic_of_wrong_type, QUANT(GPTQ ",\"dynamic\":[]"), ERR_INVALID, "dynamic",
        "expected an object", "found an array")
REFUSES(dynamic_that_changes_bits, QUANT(GPTQ ",\"dynamic\":{\"+:.*down_proj\":{\"bits\":8}}"),
        ERR_UNSUPPORTED, "dynamic", "expected modules left out", "found \"+:.*down_proj\"")
REFUSES(dynamic_with_a_real_expression, QUANT(GPTQ ",\"dynamic\":{\"-:.*(q|k)_proj\":{}}"),
        ERR_UNSUPPORTED, "dynamic", "expected names of modules", "found \"(q|k)_proj\"")
REFUSES(dtype_of_wrong_type, WITH("\"torch_dtype\":16"), ERR_INVALID, "torch_dtype",
        "expected a string", "found an integer")
REFUSES(attention_bias, WITH("\"attention_bias\":true"), ERR_UNSUPPORTED, "attention_bias",
        "expected false", "found true")
REFUSES(attention_bias_of_wrong_type, WITH("\"attention_bias\":1"), ERR_INVALID, "attention_bias",
        "expected true or false", "found an integer")
REFUSES(dense_attention_bias, DENSE(QWEN3, "\"attention_bias\":true,"), ERR_UNSUPPORTED,
        "attention_bias", "expected false", "found true")
REFUSES(qwen2_without_its_bias, DENSE(QWEN2, "\"attention_bias\":false,"), ERR_UNSUPPORTED,
        "attention_bias", "expected true", "found false")
REFUSES(qwen2_with_sliding_window, DENSE(QWEN2, "\"use_sliding_window\":true,"), ERR_UNSUPPORTED,
        "use_sliding_window", "expected false", "found true")
REFUSES(dense_without_its_size, "{" QWEN3 SIZES HEADS ROPE END, ERR_INVALID, "intermediate_size",
        "expected an integer", "found nothing")
REFUSES(sliding_window, WITH("\"use_sliding_window\":true"), ERR_UNSUPPORTED, "use_sliding_window",
        "expected false", "found true")
REFUSES(sliding_layer_type, WITH("\"layer_types\":[\"full_attention\",\"sliding_attention\"]"),
        ERR_UNSUPPORTED, "layer_types[1]", "expected \"full_attention\"", "found sliding_attention")
REFUSES(other_activation, WITH("\"hidden_act\":\"gelu\""), ERR_UNSUPPORTED, "hidden_act",
        "expected \"silu\"", "found \"gelu\"")

REFUSES(experts_missing, "{" HEAD SIZES HEADS ROPE "\"num_experts_per_tok\":2," END, ERR_INVALID,
        "num_experts", "expected an integer", "found nothing")
REFUSES(experts_said_twice, WITH("\"num_local_experts\":4"), ERR_INVALID, "num_experts",
        "expected 4 as in num_local_experts", "found 8")
REFUSES(more_per_token_than_experts,
        "{" HEAD SIZES HEADS ROPE "\"num_experts\":8,\"num_experts_per_tok\":9," END, ERR_INVALID,
        "num_experts_per_tok", "expected 1 to 8", "found 9")
REFUSES(mlp_only_layer_beyond_the_last, WITH("\"mlp_only_layers\":[0,4]"), ERR_INVALID,
        "mlp_only_layers[1]", "expected 0 to 3", "found 4")
REFUSES(mlp_only_layer_negative, WITH("\"mlp_only_layers\":[-1]"), ERR_INVALID,
        "mlp_only_layers[0]", "expected 0 to 3", "found -1")
REFUSES(mlp_only_layer_of_wrong_type, WITH("\"mlp_only_layers\":[\"0\"]"), ERR_INVALID,
        "mlp_only_layers[0]", "expected an integer", "found a string")
REFUSES(mlp_only_layers_of_wrong_type, WITH("\"mlp_only_layers\":0"), ERR_INVALID,
        "mlp_only_layers", "expected an array", "found an integer")
REFUSES(sparse_step_zero, WITH("\"decoder_sparse_step\":0"), ERR_INVALID, "decoder_sparse_step",
        "expected 1 to", "found 0")
REFUSES(dense_layer_without_its_size,
        "{" HEAD SIZES HEADS ROPE
        "\"num_experts\":8,\"num_experts_per_tok\":2,\"moe_intermediate_size\":32,"
        "\"mlp_only_layers\":[1]," END,
        ERR_INVALID, "intermediate_size", "expected an integer", "found nothing")

REFUSES(eos_beyond_the_vocabulary, WITH("\"eos_token_id\":300"), ERR_INVALID, "eos_token_id",
        "expected 0 to 299", "found 300")
REFUSES(eos_of_wrong_type, WITH("\"eos_token_id\":[1,\"2\"]"), ERR_INVALID, "eos_token_id",
        "expected an integer or a list", "found a string")
REFUSES(too_many_eos, WITH("\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]"),
        ERR_LIMIT, "eos_token_id", "at most 16", "found more")
REFUSES(control_characters_are_not_shown, WITH("\"hidden_act\":\"a\\nb\""), ERR_UNSUPPORTED,
        "hidden_act", "found \"a?b\"")

static struct model_config parsed(const char *text)
{
    struct model_config c;
    struct error err;
    if (config_parse("config.json", text, strlen(text), &c, &err) != OK)
        fail_msg("%s", err.msg);
    return c;
}

static void published_config_is_read(void **state)
{
    (void)state;
    struct model_config c = parsed(
        WITH("\"norm_topk_prob\":true,\"tie_word_embeddings\":true,\"rope_scaling\":null,"
             "\"quantization_config\":null,\"hidden_act\":\"silu\",\"eos_token_id\":7,"
             "\"sliding_window\":4096,\"use_sliding_window\":false,\"torch_dtype\":\"?\""));
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.layers, 4);
    assert_int_equal(c.q_heads, 4);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.head_dim, 24);
    assert_int_equal(c.vocab, 300);
    assert_int_equal(c.experts, 8);
    assert_int_equal(c.top_k, 2);
    assert_int_equal(c.moe_intermediate, 32);
    assert_int_equal(c.intermediate, 96);
    assert_int_equal(c.max_position, 128);
    assert_true(c.rms_eps == 1e-6f);
    assert_true(c.rope_theta == 10000);
    assert_true(c.norm_topk_prob);
    assert_true(c.tied_embeddings);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos[0], 7);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.layer_is_moe[i], 1);
}

static void absent_fields_mean_what_transformers_says(void **state)
{
    (void)state;
    struct model_config c = parsed(
        "{" HEAD SIZES "\"num_attention_heads\":4,\"num_key_value_heads\":2," ROPE FFN END);
    assert_int_equal(c.head_dim, 16);
    assert_false(c.norm_topk_prob);
    assert_false(c.tied_embeddings);
    assert_int_equal(c.eos_count, 0);
}

static void dense_families_are_read(void **state)
{
    (void)state;
    struct model_config c = parsed(DENSE(QWEN3, "\"attention_bias\":false,\"head_dim\":24,"
                                                "\"tie_word_embeddings\":true,"
                                                "\"layer_types\":[\"full_attention\"],"));
    assert_false(c.attention_bias);
    assert_true(c.qk_norm);
    assert_true(c.tied_embeddings);
    assert_int_equal(c.head_dim, 24);
    assert_int_equal(c.experts, 0);
    assert_int_equal(c.top_k, 0);
    assert_int_equal(c.intermediate, 96);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.layer_is_moe[i], 0);
    c = parsed(DENSE(QWEN3, ""));
    assert_int_equal(c.head_dim, 128);
    c = parsed(DENSE(QWEN2, "\"sliding_window\":131072,\"max_window_layers\":2,"
                            "\"use_sliding_window\":false,"));
    assert_true(c.attention_bias);
    assert_false(c.qk_norm);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.layer_is_moe[3], 0);
    assert_true(parsed(WITH("\"eos_token_id\":7")).qk_norm);
    assert_false(parsed(WITH("\"eos_token_id\":7")).attention_bias);
}

static void yarn_is_read(void **state)
{
    (void)state;
    assert_true(parsed(WITH("\"rope_scaling\":null")).yarn.factor == 0);
    struct model_config c = parsed(YARN(FOUR));
    assert_true(c.yarn.factor == 4 && c.yarn.original == 64);
    assert_true(c.yarn.beta_fast == 32 && c.yarn.beta_slow == 1);
    assert_true(c.yarn.attention_factor == 0 && c.yarn.mscale == 0 && c.yarn.mscale_all_dim == 0);
    assert_true(c.yarn.truncate);
    c = parsed(YARN(FOUR
                    ",\"beta_fast\":16,\"beta_slow\":2.5,\"attention_factor\":0.5,\"mscale\":0.7,"
                    "\"mscale_all_dim\":1.3,\"truncate\":false"));
    assert_true(c.yarn.beta_fast == 16 && c.yarn.beta_slow == 2.5);
    assert_true(c.yarn.attention_factor == 0.5);
    assert_true(c.yarn.mscale == 0.7 && c.yarn.mscale_all_dim == 1.3);
    assert_false(c.yarn.truncate);
    c = parsed("{" HEAD SIZES HEADS FFN
               "\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":5e4," FOUR "}," END);
    assert_true(c.yarn.factor == 4 && c.rope_theta == 5e4);
}

/* The config's max_position_embeddings is 128. */
static void yarn_reaches_as_far_as_it_says(void **state)
{
    (void)state;
    assert_int_equal(parsed(YARN(FOUR)).max_position, 256);
    assert_int_equal(
        parsed(YARN("\"factor\":1.5,\"original_max_position_embeddings\":64")).max_position, 128);
    assert_int_equal(
        parsed(YARN("\"factor\":8,\"original_max_position_embeddings\":32768")).max_position,
        262144);
    assert_int_equal(parsed(YARN("\"factor\":1024,\"original_max_position_embeddings\":1073741824"))
                         .max_position,
                     1 << 30);
}

static void current_transformers_names_are_read(void **state)
{
    (void)state;
    struct model_config c = parsed(
        "{" HEAD SIZES HEADS "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":5e4},"
        "\"num_local_experts\":6,\"num_experts_per_tok\":2,\"moe_intermediate_size\":32,"
        "\"layer_types\":[\"full_attention\"],\"dtype\":\"bfloat16\"," END);
    assert_true(c.rope_theta == 5e4);
    assert_int_equal(c.experts, 6);
}

static void architecture_may_stand_among_others(void **state)
{
    (void)state;
    parsed("{\"architectures\":[\"Custom\",\"Qwen3MoeForCausalLM\"],\"model_type\":\"qwen3_moe\","
           "" SIZES HEADS ROPE FFN END);
}

static void layer_kinds_follow_step_and_list(void **state)
{
    (void)state;
    struct model_config c = parsed(WITH("\"decoder_sparse_step\":2,\"mlp_only_layers\":[3]"));
    static const uint8_t expected[] = {0, 1, 0, 0};
    assert_memory_equal(c.layer_is_moe, expected, 4);
    c = parsed("{" HEAD SIZES HEADS ROPE "\"num_experts\":0,\"intermediate_size\":96," END);
    static const uint8_t dense[] = {0, 0, 0, 0};
    assert_memory_equal(c.layer_is_moe, dense, 4);
    assert_int_equal(c.top_k, 0);
}

/* A folder with the sound config (eos 7) and, unless NULL, this generation_config.json. */
static enum status load(const char *generation, struct model_config *c, struct generation_config *g,
                        struct error *err)
{
    struct folder f = folder_make();
    folder_puts(&f, "config.json", WITH("\"eos_token_id\":7"));
    if (generation)
        folder_puts(&f, "generation_config.json", generation);
    enum status st = config_load(f.path, c, g, err);
    folder_remove(&f);
    return st;
}

static void generation_defaults_are_neutral(void **state)
{
    (void)state;
    struct model_config c;
    struct generation_config g;
    struct error err;
    assert_int_equal(load(NULL, &c, &g, &err), OK);
    assert_true(g.temperature == 1 && g.top_p == 1 && g.min_p == 0 && g.top_k == 0);
    assert_true(g.repetition_penalty == 1);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(load("{\"temperature\":null}", &c, &g, &err), OK);
    assert_true(g.temperature == 1);
    assert_int_equal(c.eos[0], 7);
}

static void generation_config_wins(void **state)
{
    (void)state;
    struct model_config c;
    struct generation_config g;
    struct error err;
    assert_int_equal(load("{\"do_sample\":true,\"temperature\":0.6,\"top_p\":0.95,\"top_k\":20,"
                          "\"min_p\":0.05,\"repetition_penalty\":1.05,\"eos_token_id\":[9,8]}",
                          &c, &g, &err),
                     OK);
    assert_true(g.temperature == 0.6f && g.top_p == 0.95f && g.min_p == 0.05f && g.top_k == 20);
    assert_true(g.repetition_penalty == 1.05f);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos[0], 9);
    assert_int_equal(c.eos[1], 8);
    assert_int_equal(
        load("{\"do_sample\":false,\"temperature\":0.6,\"eos_token_id\":3}", &c, &g, &err), OK);
    assert_true(g.temperature == 0);
    assert_int_equal(c.eos_count, 1);
    assert_int_equal(c.eos[0], 3);
}

static void generation_config_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field, *found;
    } bad[] = {
        {"{\"temperature\":-1}", "temperature: expected 0 to 100", "found -1"},
        {"{\"temperature\":\"hot\"}", "temperature: expected a number", "found a string"},
        {"{\"top_p\":1.5}", "top_p: expected 0 to 1", "found 1.5"},
        {"{\"top_k\":-1}", "top_k: expected 0 to", "found -1"},
        {"{\"min_p\":2}", "min_p: expected 0 to 1", "found 2"},
        {"{\"repetition_penalty\":0}", "repetition_penalty: expected 0.001 to", "found 0"},
        {"{\"do_sample\":1}", "do_sample: expected true or false", "found an integer"},
        {"{\"eos_token_id\":[300]}", "eos_token_id: expected 0 to 299", "found 300"},
        {"[]", "expected an object", "found an array"},
        {"{", "line 1", "'}'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct model_config c = {.layers = -7};
        struct generation_config g = {.top_k = -7};
        struct error err;
        SAYS(load(bad[i].text, &c, &g, &err), ERR_INVALID, &err,
             "/generation_config.json: ", bad[i].field, bad[i].found);
        assert_int_equal(c.layers, -7);
        assert_int_equal(g.top_k, -7);
    }
}

static void config_missing(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct model_config c;
    struct generation_config g;
    struct error err;
    SAYS(config_load(f.path, &c, &g, &err), ERR_NOT_FOUND, &err, "/config.json", "No such file");
    folder_remove(&f);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(other_model_type),
    cmocka_unit_test(other_architecture),
    cmocka_unit_test(dense_architecture_of_another_task),
    cmocka_unit_test(qwen2_of_another_type),
    cmocka_unit_test(no_architecture),
    cmocka_unit_test(architectures_missing),
    cmocka_unit_test(architecture_of_wrong_type),
    cmocka_unit_test(model_type_missing),
    cmocka_unit_test(not_an_object),
    cmocka_unit_test(not_json),
    cmocka_unit_test(empty_text),
    cmocka_unit_test(field_twice),
    cmocka_unit_test(regression_newline_in_quoted_json),
    cmocka_unit_test(size_missing),
    cmocka_unit_test(size_of_wrong_type),
    cmocka_unit_test(size_negative),
    cmocka_unit_test(size_huge),
    cmocka_unit_test(too_many_layers),
    cmocka_unit_test(heads_that_do_not_divide),
    cmocka_unit_test(more_kv_heads_than_heads),
    cmocka_unit_test(odd_head_dim),
    cmocka_unit_test(head_dim_that_hidden_size_cannot_give),
    cmocka_unit_test(other_rope_type),
    cmocka_unit_test(old_spelling_of_rope_type),
    cmocka_unit_test(dynamic_in_rope_parameters),
    cmocka_unit_test(yarn_without_factor),
    cmocka_unit_test(yarn_without_trained_length),
    cmocka_unit_test(yarn_of_another_field),
    cmocka_unit_test(yarn_factor_below_one),
    cmocka_unit_test(yarn_factor_of_wrong_type),
    cmocka_unit_test(yarn_trained_length_not_whole),
    cmocka_unit_test(yarn_betas_exchanged),
    cmocka_unit_test(yarn_attention_factor_zero),
    cmocka_unit_test(yarn_truncate_of_wrong_type),
    cmocka_unit_test(yarn_with_partial_rotary),
    cmocka_unit_test(yarn_said_twice),
    cmocka_unit_test(yarn_with_theta_one),
    cmocka_unit_test(rope_without_type),
    cmocka_unit_test(rope_of_wrong_type),
    cmocka_unit_test(rope_theta_missing),
    cmocka_unit_test(rope_theta_said_twice),
    cmocka_unit_test(partial_rotary),
    cmocka_unit_test(quantization_of_an_unknown_method),
    cmocka_unit_test(quantization_without_name),
    cmocka_unit_test(quantization_of_wrong_type),
    cmocka_unit_test(fp8_without_blocks),
    cmocka_unit_test(fp8_blocks_of_one_number),
    cmocka_unit_test(fp8_blocks_of_wrong_type),
    cmocka_unit_test(fp8_blocks_of_nothing),
    cmocka_unit_test(fp8_of_another_kind),
    cmocka_unit_test(fp8_with_static_activations),
    cmocka_unit_test(gptq_without_bits),
    cmocka_unit_test(gptq_of_three_bits),
    cmocka_unit_test(awq_of_eight_bits),
    cmocka_unit_test(awq_in_another_packing),
    cmocka_unit_test(group_of_nothing),
    cmocka_unit_test(group_that_splits_words),
    cmocka_unit_test(quantized_lm_head),
    cmocka_unit_test(gptq_of_chosen_modules),
    cmocka_unit_test(plain_modules_of_wrong_type),
    cmocka_unit_test(plain_module_of_wrong_type),
    cmocka_unit_test(plain_module_by_expression),
    cmocka_unit_test(plain_module_of_one_expert),
    cmocka_unit_test(dynamic_of_wrong_type),
    cmocka_unit_test(dynamic_that_changes_bits),
    cmocka_unit_test(dynamic_with_a_real_expression),
    cmocka_unit_test(dtype_of_wrong_type),
    cmocka_unit_test(attention_bias),
    cmocka_unit_test(attention_bias_of_wrong_type),
    cmocka_unit_test(dense_attention_bias),
    cmocka_unit_test(qwen2_without_its_bias),
    cmocka_unit_test(qwen2_with_sliding_window),
    cmocka_unit_test(dense_without_its_size),
    cmocka_unit_test(sliding_window),
    cmocka_unit_test(sliding_layer_type),
    cmocka_unit_test(other_activation),
    cmocka_unit_test(experts_missing),
    cmocka_unit_test(experts_said_twice),
    cmocka_unit_test(more_per_token_than_experts),
    cmocka_unit_test(mlp_only_layer_beyond_the_last),
    cmocka_unit_test(mlp_only_layer_negative),
    cmocka_unit_test(mlp_only_layer_of_wrong_type),
    cmocka_unit_test(mlp_only_layers_of_wrong_type),
    cmocka_unit_test(sparse_step_zero),
    cmocka_unit_test(dense_layer_without_its_size),
    cmocka_unit_test(eos_beyond_the_vocabulary),
    cmocka_unit_test(eos_of_wrong_type),
    cmocka_unit_test(too_many_eos),
    cmocka_unit_test(control_characters_are_not_shown),
    cmocka_unit_test(published_config_is_read),
    cmocka_unit_test(absent_fields_mean_what_transformers_says),
    cmocka_unit_test(dense_families_are_read),
    cmocka_unit_test(yarn_is_read),
    cmocka_unit_test(yarn_reaches_as_far_as_it_says),
    cmocka_unit_test(current_transformers_names_are_read),
    cmocka_unit_test(architecture_may_stand_among_others),
    cmocka_unit_test(layer_kinds_follow_step_and_list),
    cmocka_unit_test(generation_defaults_are_neutral),
    cmocka_unit_test(generation_config_wins),
    cmocka_unit_test(generation_config_refused),
    cmocka_unit_test(config_missing),
};

UNIT_MAIN(tests)
