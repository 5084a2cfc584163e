/*
 * Writes a plain Qwen3-MoE checkpoint of safetensors as the GGUF that llama.cpp's converter would
 * make of it, with its tokenizer and chat template, every weight in its own dtype: make_gguf MODEL
 * FOLDER writes FOLDER/model.gguf. What the two compute must be the same bits.
 */
#include "base/json.h"
#include "tests/tools/gguf_writer.h"
#include "tests/tools/model_source.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const names[WEIGHT_ROLE_COUNT] = {
    [WEIGHT_EMBED] = "token_embd",   [WEIGHT_FINAL_NORM] = "output_norm",
    [WEIGHT_LM_HEAD] = "output",     [WEIGHT_INPUT_NORM] = "attn_norm",
    [WEIGHT_Q] = "attn_q",           [WEIGHT_K] = "attn_k",
    [WEIGHT_V] = "attn_v",           [WEIGHT_O] = "attn_output",
    [WEIGHT_Q_NORM] = "attn_q_norm", [WEIGHT_K_NORM] = "attn_k_norm",
    [WEIGHT_POST_NORM] = "ffn_norm", [WEIGHT_ROUTER] = "ffn_gate_inp",
    [WEIGHT_GATE] = "ffn_gate_exps", [WEIGHT_UP] = "ffn_up_exps",
    [WEIGHT_DOWN] = "ffn_down_exps",
};

static void put_bytes_of(const struct model_source *s, const struct weight *w, struct buf *to)
{
    struct error err;
    size_t n = (size_t)w->rows * (size_t)w->cols * dtype_size(w->dtype);
    void *bytes = malloc(n);
    CHECK(bytes && w->store == STORE_PLAIN, "%s of layer %d", weight_role_words(w->role), w->layer);
    model_must(checkpoint_read(s->ck, w->file, w->offset, bytes, n, &err), &err);
    gguf_put_bytes(to, bytes, n);
    free(bytes);
}

/* The tensor that begins with this weight: all experts' where it is an expert's. */
static void put_weight(const struct model_source *s, const struct weight *w,
                       struct gguf_writer *out)
{
    static const uint64_t types[] = {[DTYPE_F32] = 0, [DTYPE_F16] = 1, [DTYPE_BF16] = 30};
    char name[64];
    bool vector = weight_role_is_vector(w->role);
    uint64_t sizes[] = {(uint64_t)(vector ? w->rows * w->cols : w->cols), (uint64_t)w->rows,
                        (uint64_t)s->inv->experts};
    CHECK(names[w->role], "%s in a mixture of experts", weight_role_words(w->role));
    if (w->layer < 0)
        snprintf(name, sizeof name, "%s.weight", names[w->role]);
    else
        snprintf(name, sizeof name, "blk.%d.%s.weight", w->layer, names[w->role]);
    gguf_put_padding(&out->data);
    gguf_put_tensor(&out->tensors, name,
                    vector          ? 1
                    : w->expert < 0 ? 2
                                    : 3,
                    sizes, types[w->dtype], out->data.len);
    out->tensor_count++;
    for (int32_t i = 0; i < s->inv->count; i++) {
        const struct weight *other = &s->inv->weights[i];
        if (other->role == w->role && other->layer == w->layer)
            put_bytes_of(s, other, &out->data);
    }
}

static void put_int(struct gguf_writer *w, const char *key, int64_t v)
{
    gguf_put_int(&w->entries, key, (uint64_t)v);
    w->entry_count++;
}

static void put_config(const struct model_config *c, struct gguf_writer *w)
{
    put_int(w, "qwen3moe.embedding_length", c->hidden);
    put_int(w, "qwen3moe.block_count", c->layers);
    put_int(w, "qwen3moe.attention.head_count", c->q_heads);
    put_int(w, "qwen3moe.attention.head_count_kv", c->kv_heads);
    put_int(w, "qwen3moe.attention.key_length", c->head_dim);
    put_int(w, "qwen3moe.context_length", c->max_position);
    put_int(w, "qwen3moe.expert_count", c->experts);
    put_int(w, "qwen3moe.expert_used_count", c->top_k);
    put_int(w, "qwen3moe.expert_feed_forward_length", c->moe_intermediate);
    CHECK(c->eos_count > 0, "a model that ends");
    put_int(w, "tokenizer.ggml.eos_token_id", c->eos[0]);
    gguf_put_text(&w->entries, "general.architecture", "qwen3moe");
    gguf_put_float(&w->entries, "qwen3moe.attention.layer_norm_rms_epsilon", c->rms_eps);
    gguf_put_float(&w->entries, "qwen3moe.rope.freq_base", (float)c->rope_theta);
    w->entry_count += 3;
}

static void put_words(const char *model, uint32_t rows, struct gguf_writer *w)
{
    char path[4096];
    struct error err;
    json_t *root = NULL;
    snprintf(path, sizeof path, "%s/tokenizer.json", model);
    model_must(json_parse_file(path, 1 << 28, &root, &err), &err);
    gguf_put_tokenizer(w, root, rows, true);
    json_decref(root);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", model);
    model_must(json_parse_file(path, 1 << 24, &root, &err), &err);
    const char *template = json_string_value(json_object_get(root, "chat_template"));
    if (template) {
        gguf_put_text(&w->entries, "tokenizer.chat_template", template);
        w->entry_count++;
    }
    json_decref(root);
}

static void write_file(const char *folder, const struct buf *b)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(b->data, 1, b->len, out) != b->len || fclose(out) != 0) {
        perror(path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: make_gguf MODEL FOLDER\n");
        return 2;
    }
    struct model_source s;
    struct gguf_writer w;
    struct buf file;
    model_open(&s, argv[1]);
    gguf_writer_init(&w);
    put_config(&s.config, &w);
    put_words(argv[1], (uint32_t)s.config.vocab, &w);
    for (int32_t i = 0; i < s.inv->count; i++)
        if (s.inv->weights[i].expert <= 0)
            put_weight(&s, &s.inv->weights[i], &w);
    gguf_writer_end(&w, &file);
    write_file(argv[2], &file);
    buf_fini(&file);
    model_close(&s);
    return 0;
}
