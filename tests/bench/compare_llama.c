/*
 * A libllama, ours to order about: tests/bench/compare compiles this against llama.cpp's public
 * header, or that of a fork (PEER_REPACK where the model's parameters have `repack_tensors`), and
 * speaks with it as with `witan bench --offline --turns`, whose lines these are. compare_llama
 * MODEL.gguf THREADS STEP_TOKENS repack|plain [layer|tensor ENDPOINT...] Tokens are random ones, so
 * that experts are chosen as for any text; weights are repacked at load where the library can, or
 * left as the file has them. With endpoints (PEER_RPC) all layers lie on those RPC servers, split
 * as told.
 */
#include <llama.h>
#ifdef PEER_RPC
#include <ggml-rpc.h>
#endif

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_SEQS = 64, MOST_TOKENS = 1 << 20, WARM_STEPS = 3, ROOM = 2048, MOST_SERVERS = 16 };

struct peer {
    struct llama_model *model;
    struct llama_context *context;
    int32_t seqs, room; /* what the context has been made for */
    int32_t filled;     /* sequences that decode */
    int32_t depth;      /* of each */
    int32_t threads, step_tokens, vocab;
    uint64_t state;
};

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "compare_llama: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* Of the wall and of all this process's threads. */
struct seconds {
    double wall, processor;
};

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct seconds begin(void)
{
    return (struct seconds){now(CLOCK_MONOTONIC), now(CLOCK_PROCESS_CPUTIME_ID)};
}

static void say(struct seconds start)
{
    struct seconds end = begin();
    printf("{\"seconds\": %.9f, \"processor\": %.9f}\n", end.wall - start.wall,
           end.processor - start.processor);
    fflush(stdout);
}

/* xorshift64* (Vigna 2016). */
static llama_token draw(struct peer *p)
{
    p->state ^= p->state >> 12;
    p->state ^= p->state << 25;
    p->state ^= p->state >> 27;
    return (llama_token)(((p->state * UINT64_C(2685821657736338717)) >> 33) % (uint64_t)p->vocab);
}

static void forget(struct peer *p)
{
#ifdef PEER_REPACK
    llama_kv_cache_clear(p->context);
#else
    llama_memory_clear(llama_get_memory(p->context), true);
#endif
    p->filled = p->depth = 0;
}

#ifdef PEER_RPC
/* All layers on the RPC servers of those endpoints; `devices` outlives the model. */
static void spread(struct llama_model_params *options, const char *split, int count,
                   char **endpoints, ggml_backend_dev_t devices[MOST_SERVERS + 1])
{
    for (int i = 0; i < count; i++) {
        ggml_backend_reg_t server = ggml_backend_rpc_add_server(endpoints[i]);
        if (!server)
            die("%s: no RPC server answers", endpoints[i]);
        devices[i] = ggml_backend_reg_dev_get(server, 0);
    }
    devices[count] = NULL;
    options->devices = devices;
    options->n_gpu_layers = -1;
    options->split_mode = strcmp(split, "tensor") == 0 ? LLAMA_SPLIT_MODE_TENSOR
                                                       : LLAMA_SPLIT_MODE_LAYER;
}
#endif

/* `more`: how to split and the endpoints, `count` words or none. */
static void open_model(struct peer *p, const char *path, bool repack, int count, char **more)
{
    struct llama_model_params options = llama_model_default_params();
#ifdef PEER_REPACK
    options.repack_tensors = repack;
    options.use_mmap = !repack;
#else
    options.use_extra_bufts = repack;
#endif
#ifdef PEER_RPC
    static ggml_backend_dev_t devices[MOST_SERVERS + 1];
    if (count > 1)
        spread(&options, more[0], count - 1, more + 1, devices);
#else
    if (count > 0)
        die("%s: expected a library with RPC, found none", more[0]);
#endif
    p->model = llama_model_load_from_file(path, options);
    if (!p->model)
        die("%s: not loaded", path);
#ifdef PEER_REPACK
    p->vocab = llama_n_vocab(p->model);
#else
    p->vocab = llama_vocab_n_tokens(llama_model_get_vocab(p->model));
#endif
    if (p->vocab < 1)
        die("%s: expected a vocabulary, found none", path);
}

/* One that holds `seqs` sequences of `tokens` and what they decode; kept while it fits. */
static void open_context(struct peer *p, int32_t seqs, int32_t tokens)
{
    if (p->context && p->seqs == seqs && p->room >= tokens + ROOM / seqs / 2) {
        forget(p);
        return;
    }
    if (p->context)
        llama_free(p->context);
    struct llama_context_params options = llama_context_default_params();
    p->seqs = seqs;
    p->room = tokens + ROOM / seqs;
    options.n_ctx = (uint32_t)(seqs * p->room);
    options.n_batch = (uint32_t)p->room;
    options.n_ubatch = (uint32_t)p->step_tokens;
    options.n_seq_max = (uint32_t)seqs;
    options.n_threads = p->threads;
    options.n_threads_batch = p->threads;
    p->context = llama_init_from_model(p->model, options);
    if (!p->context)
        die("no context of %d sequences of %d tokens", seqs, tokens);
    p->filled = p->depth = 0;
}

/* Tokens of sequences `first` to `first` + `seqs` at `at`; logits of each one's last. */
static void feed(struct peer *p, int32_t first, int32_t seqs, int32_t at, int32_t tokens)
{
    struct llama_batch b = llama_batch_init(seqs * tokens, 0, 1);
    for (int32_t s = 0; s < seqs; s++)
        for (int32_t i = 0; i < tokens; i++) {
            int32_t n = b.n_tokens++;
            b.token[n] = draw(p);
            b.pos[n] = at + i;
            b.n_seq_id[n] = 1;
            b.seq_id[n][0] = first + s;
            b.logits[n] = i == tokens - 1;
        }
    int code = llama_decode(p->context, b);
    llama_synchronize(p->context);
    if (code != 0)
        die("llama_decode of %d tokens at %d: %d", b.n_tokens, at, code);
    llama_batch_free(b);
}

static void decode(struct peer *p, int32_t steps)
{
    for (int32_t i = 0; i < steps; i++)
        feed(p, 0, p->filled, p->depth++, 1);
}

/* A prompt alone; what a library makes ready at its first step is none's. */
static void prefill(struct peer *p, int32_t tokens)
{
    open_context(p, 1, tokens);
    feed(p, 0, 1, 0, 1);
    forget(p);
    struct seconds start = begin();
    feed(p, 0, 1, 0, tokens);
    say(start);
}

static void fill(struct peer *p, int32_t seqs, int32_t depth)
{
    open_context(p, seqs, depth);
    struct seconds start = begin();
    for (int32_t s = 0; s < seqs; s++)
        feed(p, s, 1, 0, depth);
    p->filled = seqs;
    p->depth = depth;
    decode(p, WARM_STEPS);
    say(start);
}

/* False when the line is none of ours. */
static bool take_turn(struct peer *p, const char *line)
{
    char word[16] = "", rest;
    int first = 0, second = 0;
    int found = sscanf(line, "%15s %d %d %c", word, &first, &second, &rest);
    if (first < 1 || first > MOST_TOKENS)
        return false;
    if (strcmp(word, "decode") == 0 && found == 2 && p->filled > 0) {
        struct seconds start = begin();
        decode(p, first);
        say(start);
    } else if (strcmp(word, "prefill") == 0 && found == 2) {
        prefill(p, first);
    } else if (strcmp(word, "fill") == 0 && found == 3 && first <= MOST_SEQS && second >= 1 &&
               second <= MOST_TOKENS) {
        fill(p, first, second);
    } else {
        return false;
    }
    return true;
}

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    char line[80];
    struct peer p = {.state = 88172645463325252};
    if (argc < 5 || argc > 6 + MOST_SERVERS || (p.threads = atoi(argv[2])) < 1 ||
        (p.step_tokens = atoi(argv[3])) < 1)
        die("usage: compare_llama MODEL.gguf THREADS STEP_TOKENS repack|plain [layer|tensor "
            "ENDPOINT...]");
    llama_log_set(quiet, NULL);
    llama_backend_init();
    open_model(&p, argv[1], strcmp(argv[4], "repack") == 0, argc - 5, argv + 5);
    while (fgets(line, sizeof line, stdin))
        if (!take_turn(&p, line))
            die("standard input: expected `prefill N`, `fill BATCH DEPTH` or, after it, `decode "
                "STEPS`, "
                "found %s",
                line);
    if (p.context)
        llama_free(p.context);
    return 0;
}
