/* One rank's engine: see engine.h. */
#include "worker/engine.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

struct engine {
    struct model *model;
    struct comm *world;
    struct engine_options options;
    int drawer; /* the rank that draws tokens: the first of the last stage */
    int32_t vocab_limit;
    struct step step;
    struct scheduler *scheduler; /* rank 0 */
    struct sampler *sampler;     /* the drawing rank */
    int32_t *drawn;              /* [max_seqs] */
    float *logits; /* [max_logits, padded vocabulary]: rank 0's copy where it does not draw */
    bool warned_range;
    struct engine_stats stats;
};

static enum status create_here(struct engine *e, const struct engine_options *o, struct error *err)
{
    const struct model *m = e->model;
    TRY(step_init(&e->step, &m->limits, err));
    e->drawn = calloc((size_t)m->limits.max_seqs, sizeof *e->drawn);
    if (!e->drawn)
        return error_set(err, ERR_NO_MEMORY, "no memory for the engine");
    if (e->world->rank == e->drawer)
        TRY(sampler_create(m->config.vocab, &e->sampler, err));
    if (e->world->rank == 0)
        TRY(sched_create(&m->limits, o->chunk, m->config.eos, m->config.eos_count, &e->scheduler,
                         err));
    return OK;
}

enum status engine_create(struct model *model, const struct engine_options *options,
                          struct engine **out, struct error *err)
{
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return error_set(err, ERR_NO_MEMORY, "no memory for the engine");
    e->model = model;
    e->world = model->world;
    e->options = *options;
    e->drawer = (model->plan->layout.pp - 1) * model->plan->layout.w;
    e->vocab_limit = options->vocab_limit > 0 && options->vocab_limit < model->config.vocab
                         ? options->vocab_limit
                         : model->config.vocab;
    enum status st = comm_agree(e->world, create_here(e, options, err), err);
    if (st != OK) {
        engine_destroy(e);
        return st;
    }
    *out = e;
    return OK;
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    sched_destroy(e->scheduler);
    sampler_destroy(e->sampler);
    step_fini(&e->step);
    free(e->drawn);
    free(e->logits);
    free(e);
}

/* One token for each sequence that draws, from the last of its logits rows. */
static int32_t draw(struct engine *e)
{
    const struct step *s = &e->step;
    int64_t start = clock_now_ns(), stride = model_vocab_padded(e->model);
    const float *row = e->model->ws.logits;
    int32_t n = 0;
    for (int32_t i = 0; i < s->header.seqs; i++) {
        const struct step_seq *q = &s->seqs[i];
        int32_t rows = q->logits == STEP_LOGITS_ALL    ? q->count
                       : q->logits == STEP_LOGITS_LAST ? 1
                                                       : 0;
        row += (int64_t)rows * stride;
        if (q->draw)
            e->drawn[n++] = sampler_draw(e->sampler, row - stride, s->header.vocab_limit,
                                         &q->sampling, q->pos + q->count);
    }
    e->stats.draw_ns += clock_now_ns() - start;
    e->stats.drawn += (uint64_t)n;
    return n;
}

static int32_t draws_of(const struct step *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->header.seqs; i++)
        n += s->seqs[i].draw;
    return n;
}

/* What the drawing rank sends to rank 0 where they differ: tokens, and logits if it keeps them. */
static enum status hand_over(struct engine *e, const struct batch *b, struct error *err)
{
    struct comm *w = e->world;
    int32_t n = draws_of(&e->step);
    size_t tokens = (size_t)n * sizeof *e->drawn;
    size_t logits = (size_t)b->logits * (size_t)model_vocab_padded(e->model) * sizeof(float);
    bool keep = e->step.header.keep_logits && logits > 0;
    if (e->drawer == 0)
        return OK;
    if (w->rank == e->drawer) {
        if (tokens > 0)
            TRY(w->ops->send(w, 0, e->drawn, tokens, err));
        return keep ? w->ops->send(w, 0, e->model->ws.logits, logits, err) : OK;
    }
    if (w->rank != 0)
        return OK;
    if (tokens > 0)
        TRY(w->ops->recv(w, e->drawer, e->drawn, tokens, err));
    return keep ? w->ops->recv(w, e->drawer, e->logits, logits, err) : OK;
}

/* Rank 0 of a pipeline has no logits of its own; the first request that asks for them pays. */
static enum status reserve_logits(struct engine *e, struct error *err)
{
    if (e->drawer == 0 || e->logits)
        return OK;
    size_t n = (size_t)e->model->limits.max_logits * (size_t)model_vocab_padded(e->model);
    e->logits = calloc(n, sizeof *e->logits);
    return e->logits ? OK : error_set(err, ERR_NO_MEMORY, "no memory for %zu logits", n);
}

static void warn_range(struct engine *e)
{
    uint64_t n = e->model->kernels->range_exceeded(e->model->backend);
    if (n == 0 || e->warned_range)
        return;
    e->warned_range = true;
    log_warn("activations left the range in which sums are exact (%llu times): this model's "
             "results may differ in their last bits between layouts",
             (unsigned long long)n);
}

static void tell_phase(struct engine *e, enum engine_phase phase)
{
    if (e->options.on_phase)
        e->options.on_phase(e->options.user, phase);
}

static enum status run_step(struct engine *e, struct batch *b, struct error *err)
{
    tell_phase(e, ENGINE_FORWARD);
    int64_t start = clock_now_ns();
    step_batch(&e->step, b);
    TRY(model_forward(e->model, b, err));
    e->stats.forward_ns += clock_now_ns() - start;
    e->stats.steps++;
    e->stats.rows += (uint64_t)b->rows;
    if (e->world->rank == e->drawer)
        draw(e);
    warn_range(e);
    TRY(hand_over(e, b, err));
    tell_phase(e, ENGINE_WAITING);
    return OK;
}

enum status engine_follow(struct engine *e, enum engine_left *why, struct error *err)
{
    for (;;) {
        struct batch b;
        TRY(step_broadcast(&e->step, e->world, err));
        if (e->step.header.kind != STEP_RUN) {
            *why = e->step.header.kind == STEP_PARK ? ENGINE_PARKED : ENGINE_STOPPED;
            return OK;
        }
        TRY(run_step(e, &b, err));
    }
}

enum status engine_submit(struct engine *e, const struct request *request, uint64_t *id,
                          struct error *err)
{
    for (int32_t i = 0; i < request->prompt_len; i++)
        if (request->prompt[i] < 0 || request->prompt[i] >= e->model->config.vocab)
            return error_set(err, ERR_INVALID, "token %d of the prompt is %d: expected 0 to %d", i,
                             request->prompt[i], e->model->config.vocab - 1);
    if (request->all_logits && e->model->limits.max_logits < e->model->limits.max_rows)
        return error_set(err, ERR_INVALID, "logits of every position need max_logits = max_rows");
    if (request->on_logits)
        TRY(reserve_logits(e, err));
    return sched_submit(e->scheduler, request, id, err);
}

bool engine_cancel(struct engine *e, uint64_t id)
{
    return sched_cancel(e->scheduler, id);
}

enum status engine_step(struct engine *e, bool *ran, struct error *err)
{
    *ran = sched_next(e->scheduler, &e->step, e->vocab_limit);
    if (!*ran)
        return OK;
    struct batch b;
    TRY(step_broadcast(&e->step, e->world, err));
    TRY(run_step(e, &b, err));
    const float *logits = e->drawer == 0 ? e->model->ws.logits : e->logits;
    sched_done(e->scheduler, &e->step, e->drawn, e->step.header.keep_logits ? logits : NULL,
               model_vocab_padded(e->model), e->model->config.vocab);
    return OK;
}

enum status engine_stop(struct engine *e, struct error *err)
{
    step_begin(&e->step, STEP_STOP, e->vocab_limit, false);
    return step_broadcast(&e->step, e->world, err);
}

enum status engine_park(struct engine *e, struct error *err)
{
    step_begin(&e->step, STEP_PARK, e->vocab_limit, false);
    return step_broadcast(&e->step, e->world, err);
}

void engine_load(const struct engine *e, struct engine_load *out)
{
    *out = (struct engine_load){.running = sched_running(e->scheduler),
                                .waiting = sched_waiting(e->scheduler),
                                .kv_blocks_free = sched_free_blocks(e->scheduler),
                                .kv_blocks = e->model->limits.kv_blocks};
}

const struct engine_stats *engine_stats(const struct engine *e)
{
    return &e->stats;
}
