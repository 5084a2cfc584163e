/*
 * Writes a Qwen3-MoE checkpoint of any size with random bf16 weights, as Transformers lays one out:
 *   make_checkpoint FOLDER [--hidden N] [--layers N] ... (see `options` below)
 * The folder must exist. The same options give the same bytes. Memory and speed are tested with it:
 * its tokens mean nothing, but its weights are scaled so that logits stay finite.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shape {
    int hidden, layers, heads, kv_heads, head_dim, experts, top_k, moe_intermediate, vocab, context;
    int seed, dense; /* dense: so many first layers have no experts */
};

struct writer {
    FILE *out;
    bool header; /* writing the header, not the data */
    bool first;
    uint64_t offset;
    uint64_t state;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "make_checkpoint: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* xorshift64* (Vigna 2016). */
static uint32_t draw(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (uint32_t)((x * UINT64_C(2685821657736338717)) >> 32);
}

static uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float root(float x)
{
    float r = x > 1 ? x : 1;
    for (int i = 0; i < 40; i++)
        r = (r + x / r) / 2;
    return r;
}

/* `count` values, uniform in center +- width. */
static void write_values(struct writer *w, uint64_t count, float center, float width)
{
    uint16_t block[4096];
    while (count > 0) {
        size_t n = count < 4096 ? (size_t)count : 4096;
        for (size_t i = 0; i < n; i++) {
            float u = (float)(draw(&w->state) >> 8) * 0x1p-23f - 1.0f;
            block[i] = to_bf16(center + width * u);
        }
        if (fwrite(block, sizeof block[0], n, w->out) != n)
            die("model.safetensors");
        count -= n;
    }
}

/* One tensor: its line of the header, or its values. cols 0: a vector, of a norm. */
static void tensor(struct writer *w, const char *name, int rows, int cols)
{
    uint64_t count = (uint64_t)rows * (uint64_t)(cols ? cols : 1), end = w->offset + 2 * count;
    if (!w->header && cols) {
        write_values(w, count, 0, 1.7f / root((float)cols));
    } else if (!w->header) {
        write_values(w, count, 1, 0.25f);
    } else {
        fprintf(w->out, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%d", w->first ? "" : ",", name,
                rows);
        if (cols)
            fprintf(w->out, ",%d", cols);
        fprintf(w->out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", w->offset, end);
        w->first = false;
    }
    w->offset = end;
}

static void layer_tensor(struct writer *w, int layer, const char *part, int rows, int cols)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, part);
    tensor(w, name, rows, cols);
}

static void layer(struct writer *w, const struct shape *s, int i)
{
    char part[64];
    int q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    layer_tensor(w, i, "input_layernorm", s->hidden, 0);
    layer_tensor(w, i, "self_attn.q_proj", q, s->hidden);
    layer_tensor(w, i, "self_attn.k_proj", kv, s->hidden);
    layer_tensor(w, i, "self_attn.v_proj", kv, s->hidden);
    layer_tensor(w, i, "self_attn.o_proj", s->hidden, q);
    layer_tensor(w, i, "self_attn.q_norm", s->head_dim, 0);
    layer_tensor(w, i, "self_attn.k_norm", s->head_dim, 0);
    layer_tensor(w, i, "post_attention_layernorm", s->hidden, 0);
    if (i < s->dense) {
        layer_tensor(w, i, "mlp.gate_proj", 4 * s->moe_intermediate, s->hidden);
        layer_tensor(w, i, "mlp.up_proj", 4 * s->moe_intermediate, s->hidden);
        layer_tensor(w, i, "mlp.down_proj", s->hidden, 4 * s->moe_intermediate);
        return;
    }
    layer_tensor(w, i, "mlp.gate", s->experts, s->hidden);
    for (int e = 0; e < s->experts; e++) {
        snprintf(part, sizeof part, "mlp.experts.%d.gate_proj", e);
        layer_tensor(w, i, part, s->moe_intermediate, s->hidden);
        snprintf(part, sizeof part, "mlp.experts.%d.up_proj", e);
        layer_tensor(w, i, part, s->moe_intermediate, s->hidden);
        snprintf(part, sizeof part, "mlp.experts.%d.down_proj", e);
        layer_tensor(w, i, part, s->hidden, s->moe_intermediate);
    }
}

static void all_tensors(struct writer *w, const struct shape *s)
{
    w->offset = 0;
    tensor(w, "model.embed_tokens.weight", s->vocab, s->hidden);
    for (int i = 0; i < s->layers; i++)
        layer(w, s, i);
    tensor(w, "model.norm.weight", s->hidden, 0);
    tensor(w, "lm_head.weight", s->vocab, s->hidden);
}

/* The header is written twice: its length comes before it. */
static void write_weights(const char *folder, const struct shape *s)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    struct writer w = {.state = (uint64_t)s->seed * 2 + 1, .header = true, .first = true};
    w.out = fopen(path, "wb");
    if (!w.out || fwrite("\0\0\0\0\0\0\0\0{", 1, 9, w.out) != 9)
        die(path);
    all_tensors(&w, s);
    fputc('}', w.out);
    uint64_t length = (uint64_t)ftell(w.out) - 8;
    for (; length % 8 != 0; length++)
        fputc(' ', w.out);
    unsigned char word[8];
    for (int i = 0; i < 8; i++)
        word[i] = (unsigned char)(length >> (8 * i));
    if (fseek(w.out, 0, SEEK_SET) != 0 || fwrite(word, 1, 8, w.out) != 8 ||
        fseek(w.out, 0, SEEK_END) != 0)
        die(path);
    w.header = false;
    all_tensors(&w, s);
    if (fclose(w.out) != 0)
        die(path);
}

static void write_config(const char *folder, const struct shape *s)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "wb");
    if (!f)
        die(path);
    fprintf(f,
            "{\n  \"architectures\": [\"Qwen3MoeForCausalLM\"],\n  \"model_type\": \"qwen3_moe\",\n"
            "  \"attention_bias\": false,\n  \"decoder_sparse_step\": 1,\n"
            "  \"hidden_act\": \"silu\",\n"
            "  \"norm_topk_prob\": true,\n  \"rms_norm_eps\": 1e-06,\n"
            "  \"rope_scaling\": null,\n  \"rope_theta\": 1000000.0,\n"
            "  \"tie_word_embeddings\": false,\n  \"torch_dtype\": \"bfloat16\",\n"
            "  \"bos_token_id\": 0,\n  \"eos_token_id\": 1,\n"
            "  \"hidden_size\": %d,\n  \"num_hidden_layers\": %d,\n"
            "  \"num_attention_heads\": %d,\n  \"num_key_value_heads\": %d,\n"
            "  \"head_dim\": %d,\n  \"num_experts\": %d,\n  \"num_experts_per_tok\": %d,\n"
            "  \"moe_intermediate_size\": %d,\n  \"intermediate_size\": %d,\n"
            "  \"vocab_size\": %d,\n  \"max_position_embeddings\": %d,\n",
            s->hidden, s->layers, s->heads, s->kv_heads, s->head_dim, s->experts, s->top_k,
            s->moe_intermediate, 4 * s->moe_intermediate, s->vocab, s->context);
    fprintf(f, "  \"mlp_only_layers\": [");
    for (int i = 0; i < s->dense; i++)
        fprintf(f, "%s%d", i ? ", " : "", i);
    fprintf(f, "]\n}\n");
    if (fclose(f) != 0)
        die(path);
}

int main(int argc, char **argv)
{
    struct shape s = {.hidden = 1024,
                      .layers = 8,
                      .heads = 16,
                      .kv_heads = 4,
                      .head_dim = 64,
                      .experts = 32,
                      .top_k = 4,
                      .moe_intermediate = 512,
                      .vocab = 32000,
                      .context = 4096,
                      .seed = 1};
    const struct {
        const char *name;
        int *value;
    } options[] = {
        {"--hidden", &s.hidden},     {"--layers", &s.layers},
        {"--heads", &s.heads},       {"--kv-heads", &s.kv_heads},
        {"--head-dim", &s.head_dim}, {"--experts", &s.experts},
        {"--top-k", &s.top_k},       {"--moe-intermediate", &s.moe_intermediate},
        {"--vocab", &s.vocab},       {"--context", &s.context},
        {"--seed", &s.seed},         {"--dense", &s.dense},
    };
    enum { OPTIONS = sizeof options / sizeof options[0] };
    bool good = argc >= 2 && argc % 2 == 0;
    for (int i = 2; good && i < argc; i += 2) {
        int k = 0;
        while (k < OPTIONS && strcmp(argv[i], options[k].name) != 0)
            k++;
        good = k < OPTIONS && atoi(argv[i + 1]) > 0;
        if (good)
            *options[k].value = atoi(argv[i + 1]);
    }
    if (!good) {
        fprintf(stderr, "usage: make_checkpoint FOLDER [--NAME N]... with the names");
        for (int k = 0; k < OPTIONS; k++)
            fprintf(stderr, " %s", options[k].name);
        fprintf(stderr, "\n");
        return 2;
    }
    write_weights(argv[1], &s);
    write_config(argv[1], &s);
    return 0;
}
