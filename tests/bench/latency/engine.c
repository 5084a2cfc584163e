/* The engine alone, in this process, as `witan run --requests` runs it: see latency.h. */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/text/chat_text.h"
#include "tests/bench/latency/latency.h"
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    const struct place *place;
    const struct chat_text *text;
    int streams, tokens;
    int64_t *steps_ns; /* [steps], room for the prompts' steps too */
    int steps;
    int drawn;
};

enum { PROMPT_STEPS = 64, STEP_TOKENS = 512, MAX_PROMPT = 1024 };

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct bench *b = user;
    (void)finish;
    b->drawn += token >= 0;
}

static enum status submit(struct bench *b, struct engine *e, int i, struct error *err)
{
    char prompt[LATENCY_PATH];
    struct token_ids ids;
    prompt_of(i, prompt);
    token_ids_init(&ids, MAX_PROMPT);
    enum status st = tokenizer_encode(b->text->tokenizer, b->text->scratch, prompt, strlen(prompt),
                                      TOKENIZER_PLAIN, &ids, err);
    struct request request = {.prompt = (const int32_t *)ids.data,
                              .prompt_len = (int32_t)ids.len,
                              .max_tokens = b->tokens,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1.0f},
                              .on_token = on_token,
                              .user = b};
    if (st == OK)
        st = engine_submit(e, &request, NULL, err);
    token_ids_fini(&ids);
    return st;
}

static enum status run_steps(struct bench *b, struct engine *e, struct error *err)
{
    for (int i = 0; i < b->streams; i++)
        TRY(submit(b, e, i, err));
    for (bool ran = true; ran;) {
        int64_t before = clock_now_ns();
        TRY(engine_step(e, &ran, err));
        if (ran && b->steps < b->tokens + PROMPT_STEPS)
            b->steps_ns[b->steps++] = clock_now_ns() - before;
    }
    if (b->drawn != b->streams * b->tokens)
        return error_set(err, ERR_INVALID, "the engine drew %d tokens of %d", b->drawn,
                         b->streams * b->tokens);
    return engine_stop(e, err);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct bench *b = arg;
    struct model *m = NULL;
    struct engine *e = NULL;
    const struct model_options options = {
        .dir = b->place->model,
        .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
        .limits = {.max_rows = STEP_TOKENS,
                   .max_seqs = LATENCY_SEQUENCES,
                   .max_logits = LATENCY_SEQUENCES,
                   .context = LATENCY_CONTEXT,
                   .threads = b->place->threads,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct engine_options engine_options = {.vocab_limit = chat_vocab(b->text)};
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &engine_options, &e, err);
    if (st == OK)
        st = run_steps(b, e, err);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum status engine_step_ms(const struct place *p, int streams, int tokens, double *median,
                           struct error *err)
{
    struct chat_text *text;
    TRY(chat_text_load(p->model, false, &text, err));
    struct bench b = {.place = p, .text = text, .streams = streams, .tokens = tokens};
    b.steps_ns = check_calloc((size_t)tokens + PROMPT_STEPS, sizeof *b.steps_ns);
    enum status st = comm_local_run(1, rank_main, &b, err);
    if (st == OK) {
        qsort(b.steps_ns, (size_t)b.steps, sizeof *b.steps_ns, by_size);
        int middle = b.steps / 2;
        *median = (double)b.steps_ns[middle] * 1e-6;
    }
    free(b.steps_ns);
    chat_text_destroy(text);
    return st;
}
