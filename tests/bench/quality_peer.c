/*
 * What libllama makes of a model, for tests/bench/quality_peers, which compiles this against
 * llama.cpp's public header. `quality_peer quantise IN.gguf OUT.gguf TYPE`: by its own quantiser.
 * `quality_peer logits MODEL.gguf IDS OUT THREADS`: IDS are int32, each sequence after its length;
 * OUT gets the float32 logits of every position, [vocabulary] each. The KV cache is fp32 and
 * attention is not fused, so that of its rounding only weights and activations are left.
 */
#include <llama.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 4096 };

static _Noreturn void die(const char *what, const char *of)
{
    fprintf(stderr, "quality_peer: %s: %s\n", of, what);
    exit(1);
}

static void quantise(char **argv)
{
    static const struct {
        const char *name;
        enum llama_ftype type;
    } types[] = {{"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},     {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},
                 {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M}, {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
                 {"Q4_K_S", LLAMA_FTYPE_MOSTLY_Q4_K_S}, {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0}};
    struct llama_model_quantize_params p = llama_model_quantize_default_params();
    size_t i = 0;
    while (i < sizeof types / sizeof *types && strcmp(argv[4], types[i].name) != 0)
        i++;
    if (i == sizeof types / sizeof *types)
        die("expected a type that is known", argv[4]);
    p.ftype = types[i].type;
    p.nthread = 1;
    if (llama_model_quantize(argv[2], argv[3], &p) != 0)
        die("not quantised", argv[2]);
}

/* One sequence's length and ids; false at the end. */
static bool read_sequence(FILE *in, const char *path, int32_t *length, llama_token *ids)
{
    if (fread(length, sizeof *length, 1, in) != 1)
        return false;
    if (*length < 1 || *length > CONTEXT ||
        fread(ids, sizeof *ids, (size_t)*length, in) != (size_t)*length)
        die("expected sequences", path);
    return true;
}

static void feed(struct llama_context *context, struct llama_batch *b, int32_t length,
                 const llama_token *ids)
{
    llama_memory_clear(llama_get_memory(context), true);
    b->n_tokens = length;
    for (int32_t i = 0; i < length; i++) {
        b->token[i] = ids[i];
        b->pos[i] = i;
        b->n_seq_id[i] = 1;
        b->seq_id[i][0] = 0;
        b->logits[i] = 1;
    }
    if (llama_decode(context, *b) != 0)
        die("not decoded", "a sequence");
}

static void logits(char **argv)
{
    static llama_token ids[CONTEXT];
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (!model)
        die("not loaded", argv[2]);
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = p.n_batch = CONTEXT;
    p.n_threads = p.n_threads_batch = atoi(argv[5]);
    p.type_k = p.type_v = GGML_TYPE_F32;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    struct llama_context *context = llama_init_from_model(model, p);
    FILE *in = fopen(argv[3], "rb"), *out = fopen(argv[4], "wb");
    if (!context || !in || !out)
        die("not opened", argv[3]);
    size_t vocab = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct llama_batch b = llama_batch_init(CONTEXT, 0, 1);
    for (int32_t length; read_sequence(in, argv[3], &length, ids);) {
        feed(context, &b, length, ids);
        for (int32_t i = 0; i < length; i++)
            if (fwrite(llama_get_logits_ith(context, i), sizeof(float), vocab, out) != vocab)
                die("not written", argv[4]);
    }
    if (fclose(out) != 0)
        die("not written", argv[4]);
    fclose(in);
    llama_batch_free(b);
    llama_free(context);
    llama_model_free(model);
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    if (argc != (argc > 1 && strcmp(argv[1], "logits") == 0 ? 6 : 5)) {
        fprintf(stderr,
                "usage: quality_peer quantise IN OUT TYPE | logits MODEL IDS OUT THREADS\n");
        return 2;
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    if (strcmp(argv[1], "quantise") == 0)
        quantise(argv);
    else
        logits(argv);
    llama_backend_free();
    return 0;
}
