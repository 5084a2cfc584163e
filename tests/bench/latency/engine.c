/* The engine alone, in this process, as `witan run --requests` runs it: see latency.h. */
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/text/chat_text.h"
#include "tests/bench/latency/latency.h"
#include "worker/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench;

struct stream {
    struct bench *bench;
    int number;
};

struct bench {
    const struct place *place;
    const struct chat_text *text;
    struct stream streams[LATENCY_MAX_STREAMS];
    struct arrivals arrivals;
};

enum { STEP_TOKENS = 512, MAX_PROMPT = 1024 };

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct stream *s = user;
    (void)finish;
    if (token >= 0)
        arrivals_add(&s->bench->arrivals, s->number, clock_now_ns());
}

static enum status submit(struct bench *b, struct engine *e, int i, struct error *err)
{
    char prompt[LATENCY_PATH];
    struct token_ids ids;
    prompt_of(i, prompt);
    b->streams[i] = (struct stream){.bench = b, .number = i};
    token_ids_init(&ids, MAX_PROMPT);
    enum status st = tokenizer_encode(b->text->tokenizer, b->text->scratch, prompt, strlen(prompt),
                                      TOKENIZER_PLAIN, &ids, err);
    struct request request = {.prompt = (const int32_t *)ids.data,
                              .prompt_len = (int32_t)ids.len,
                              .max_tokens = b->arrivals.tokens,
                              .ignore_eos = true,
                              .sampling = {.top_p = 1.0f},
                              .on_token = on_token,
                              .user = &b->streams[i]};
    if (st == OK)
        st = engine_submit(e, &request, NULL, err);
    token_ids_fini(&ids);
    return st;
}

static enum status run_steps(struct bench *b, struct engine *e, struct error *err)
{
    for (int i = 0; i < b->arrivals.streams; i++)
        TRY(submit(b, e, i, err));
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
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

static double mean_gap_ms(const struct arrivals *a)
{
    double sum = 0;
    for (int i = 0; i < a->streams; i++) {
        const int64_t *ns = a->ns + (ptrdiff_t)i * a->tokens;
        CHECK(a->count[i] == a->tokens, "stream %d has %d tokens", i, a->count[i]);
        sum += (double)(ns[a->tokens - 1] - ns[0]) * 1e-6 / (a->tokens - 1);
    }
    return sum / a->streams;
}

enum status engine_gap_ms(const struct place *p, int streams, int tokens, double *ms,
                          struct error *err)
{
    struct chat_text *text;
    TRY(chat_text_load(p->model, false, &text, err));
    struct bench b = {.place = p, .text = text};
    arrivals_init(&b.arrivals, streams, tokens);
    enum status st = comm_local_run(1, rank_main, &b, err);
    if (st == OK)
        *ms = mean_gap_ms(&b.arrivals);
    arrivals_fini(&b.arrivals);
    chat_text_destroy(text);
    return st;
}
