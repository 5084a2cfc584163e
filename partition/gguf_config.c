/*
 * What a qwen3moe GGUF says about the model: see gguf.h. Its metadata are written out as the
 * config.json that they stand for, and that is read as any other, so that one place knows what a
 * model may be.
 *
 * Keys and meanings: ggml's gguf.md and llama.cpp's qwen3moe.
 */
#include "base/buf.h"
#include "base/json.h"
#include "partition/gguf.h"
#include "partition/shown.h"

#include <math.h>
#include <string.h>

#define ARCH "qwen3moe"

/* Sizes: GGUF's key after the architecture, config.json's. */
static const struct {
    const char *key, *field;
    bool required;
} sizes[] = {
    {ARCH ".embedding_length", "hidden_size", true},
    {ARCH ".block_count", "num_hidden_layers", true},
    {ARCH ".attention.head_count", "num_attention_heads", true},
    {ARCH ".attention.head_count_kv", "num_key_value_heads", true},
    {ARCH ".attention.key_length", "head_dim", false},
    {ARCH ".context_length", "max_position_embeddings", true},
    {ARCH ".expert_count", "num_experts", true},
    {ARCH ".expert_used_count", "num_experts_per_tok", true},
    {ARCH ".expert_feed_forward_length", "moe_intermediate_size", true},
    {ARCH ".feed_forward_length", "intermediate_size", false},
};

static enum status check_kind(const struct gguf *g, const char *what, struct error *err)
{
    const char *arch = NULL, *scaling = "none";
    TRY(gguf_get_string(g, what, "general.architecture", true, &arch, err));
    if (strcmp(arch, ARCH) != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: general.architecture: expected \"%s\", found \"%s\"", what, ARCH,
                         shown(arch).s);
    TRY(gguf_get_string(g, what, ARCH ".rope.scaling.type", false, &scaling, err));
    if (strcmp(scaling, "none") != 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s.rope.scaling.type: expected \"none\", found \"%s\"", what, ARCH,
                         shown(scaling).s);
    int64_t key = 0, value = 0;
    TRY(gguf_get_int(g, what, ARCH ".attention.key_length", false, 0, INT32_MAX, &key, err));
    value = key;
    TRY(gguf_get_int(g, what, ARCH ".attention.value_length", false, 0, INT32_MAX, &value, err));
    if (value != key)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: %s.attention.value_length: expected %lld as key_length, found %lld",
                         what, ARCH, (long long)key, (long long)value);
    return OK;
}

static enum status put_sizes(const struct gguf *g, const char *what, struct buf *b,
                             struct error *err)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t n = -1;
        TRY(gguf_get_int(g, what, sizes[i].key, sizes[i].required, 0, INT32_MAX, &n, err));
        if (n >= 0)
            TRY(buf_printf(b, err, ",\"%s\":%lld", sizes[i].field, (long long)n));
    }
    return OK;
}

static enum status put_real(const struct gguf *g, const char *what, struct buf *b, const char *key,
                            const char *field, struct error *err)
{
    double x = 0;
    TRY(gguf_get_real(g, what, key, true, &x, err));
    if (!isfinite(x))
        return error_set(err, ERR_INVALID, "%s: %s: expected a finite number, found none", what,
                         key);
    return buf_printf(b, err, ",\"%s\":%.17g", field, x);
}

static enum status put_ends(const struct gguf *g, const char *what, struct buf *b,
                            struct error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    const char *comma = "";
    TRY(buf_puts(b, ",\"eos_token_id\":[", err));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id = -1;
        TRY(gguf_get_int(g, what, keys[i], false, 0, INT32_MAX, &id, err));
        if (id >= 0)
            TRY(buf_printf(b, err, "%s%lld", comma, (long long)id));
        if (id >= 0)
            comma = ",";
    }
    return buf_puts(b, "]", err);
}

static enum status put_all(const struct gguf *g, const char *what, int64_t vocab, bool tied,
                           struct buf *b, struct error *err)
{
    TRY(buf_printf(b, err,
                   "{\"model_type\":\"qwen3_moe\",\"architectures\":[\"Qwen3MoeForCausalLM\"],"
                   "\"norm_topk_prob\":true,\"vocab_size\":%lld,\"tie_word_embeddings\":%s",
                   (long long)vocab, tied ? "true" : "false"));
    TRY(put_sizes(g, what, b, err));
    TRY(put_real(g, what, b, ARCH ".attention.layer_norm_rms_epsilon", "rms_norm_eps", err));
    TRY(put_real(g, what, b, ARCH ".rope.freq_base", "rope_theta", err));
    TRY(put_ends(g, what, b, err));
    return buf_puts(b, "}", err);
}

enum status gguf_config(const struct gguf *g, const char *what, int64_t vocab, bool tied,
                        struct model_config *config, struct error *err)
{
    struct buf b;
    TRY(check_kind(g, what, err));
    buf_init(&b, 1 << 16);
    enum status st = put_all(g, what, vocab, tied, &b, err);
    if (st == OK)
        st = config_parse(what, b.data, b.len, config, err);
    buf_fini(&b);
    if (st == ERR_INVALID)
        error_advise(err, st, "fetch the file again, or convert the model anew");
    return st;
}
