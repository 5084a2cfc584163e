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
    struct batch flight;         /* where `flying`: of the step under way, its counts alone */
    bool flying;
    /* Of the last step, on rank 0 and on the drawing rank. */
    const int32_t *drawn;
    const float *kept; /* logits [.., padded vocabulary]; NULL: none are */
    int32_t *received; /* [max_seqs]: rank 0's copy of what another drew */
    float *logits;     /* [max_logits, padded vocabulary]: a copy, where one has been needed */
    bool warned_range;
    struct engine_stats stats;
};

static enum status create_here(struct engine *e, const struct engine_options *o, struct error *err)
{
    const struct model *m = e->model;
    TRY(step_init(&e->step, &m->limits, err));
    e->received = calloc((size_t)m->limits.max_seqs, sizeof *e->received);
    if (!e->received)
        return error_set(err, ERR_NO_MEMORY, "no memory for the engine");
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
    if (e->flying) /* within its deadline; freeing the memory would wait for it without one */
        e->model->kernels->finish(e->model->backend, NULL);
    sched_destroy(e->scheduler);
    step_fini(&e->step);
    free(e->received);
    free(e->logits);
    free(e);
}

/* The first step that keeps logits pays for a copy of them. */
static enum status reserve_logits(struct engine *e, struct error *err)
{
    if (e->logits)
        return OK;
    size_t n = (size_t)e->model->limits.max_logits * (size_t)model_vocab_padded(e->model);
    e->logits = calloc(n, sizeof *e->logits);
    return e->logits ? OK : error_set(err, ERR_NO_MEMORY, "no memory for %zu logits", n);
}

/* The drawing rank's logits in the host's memory. */
static enum status kept_logits(struct engine *e, const struct batch *b, const float **out,
                               struct error *err)
{
    *out = model_logits_in_place(e->model);
    if (*out)
        return OK;
    TRY(reserve_logits(e, err));
    *out = e->logits;
    return model_read_logits(e->model, b, e->logits, err);
}

/* What the drawing rank sends to rank 0 where they differ: tokens, and logits if it keeps them. */
static enum status hand_over(struct engine *e, const struct batch *b, bool keeps, struct error *err)
{
    struct comm *w = e->world;
    size_t tokens = (size_t)b->draws * sizeof *e->drawn;
    size_t bytes = (size_t)b->logits * (size_t)model_vocab_padded(e->model) * sizeof(float);
    bool keep = keeps && bytes > 0;
    e->kept = NULL;
    if (w->rank == e->drawer) {
        e->drawn = e->model->kernels->drawn(e->model->backend);
        if (keep)
            TRY(kept_logits(e, b, &e->kept, err));
        if (e->drawer != 0 && tokens > 0)
            TRY(w->ops->send(w, 0, e->drawn, tokens, err));
        return e->drawer != 0 && keep ? w->ops->send(w, 0, e->kept, bytes, err) : OK;
    }
    if (w->rank != 0)
        return OK;
    e->drawn = e->received;
    if (tokens > 0)
        TRY(w->ops->recv(w, e->drawer, e->received, tokens, err));
    if (!keep)
        return OK;
    e->kept = e->logits;
    return w->ops->recv(w, e->drawer, e->logits, bytes, err);
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

/* On devices all ranks of the last stage draw, the same tokens: it costs nothing, and they are then
 * where the next step may want them. */
static bool draws_here(const struct engine *e)
{
    return e->world->rank == e->drawer || (e->world->rank > e->drawer && !e->model->memory->host);
}

/* Runs the step that was broadcast, or where the backend works ahead begins it. */
static enum status begin_step(struct engine *e, struct batch *b, struct error *err)
{
    tell_phase(e, ENGINE_FORWARD);
    int64_t start = clock_now_ns();
    step_batch(&e->step, b);
    int32_t draws = b->draws;
    if (!draws_here(e))
        b->draws = 0;
    TRY(model_forward(e->model, b, err));
    b->draws = draws;
    e->stats.forward_ns += clock_now_ns() - start;
    e->stats.steps++;
    e->stats.rows += (uint64_t)b->rows;
    if (e->world->rank == e->drawer)
        e->stats.drawn += (uint64_t)draws;
    return OK;
}

/* Waits for the oldest step that has begun, of batch `b`; its tokens and logits are on rank 0. */
static enum status finish_step(struct engine *e, const struct batch *b, bool keeps,
                               struct error *err)
{
    int64_t start = clock_now_ns();
    TRY(e->model->kernels->finish(e->model->backend, err));
    e->stats.forward_ns += clock_now_ns() - start;
    warn_range(e);
    TRY(hand_over(e, b, keeps, err));
    if (e->world->rank == 0)
        sched_done(e->scheduler, e->drawn, e->kept, model_vocab_padded(e->model),
                   e->model->config.vocab);
    return OK;
}

/* The step that is under way, if one is. */
static enum status land(struct engine *e, struct error *err)
{
    if (!e->flying)
        return OK;
    e->flying = false;
    return finish_step(e, &e->flight, false, err);
}

/* The next step: it begins while the one before is under way, which is then waited for; and is
 * itself left under way, unless somebody wants its logits, which the one after would overwrite. */
static enum status fly(struct engine *e, struct error *err)
{
    struct batch b;
    bool keeps = e->step.header.keep_logits != 0;
    TRY(begin_step(e, &b, err));
    TRY(land(e, err));
    if (e->model->kernels->ahead && e->drawer == 0 && !keeps) {
        e->flight = b;
        e->flying = true;
        return OK;
    }
    return finish_step(e, &b, keeps, err);
}

enum status engine_follow(struct engine *e, enum engine_left *why, struct error *err)
{
    for (;;) {
        TRY(step_broadcast(&e->step, e->world, err));
        if (e->step.header.kind != STEP_RUN) {
            *why = e->step.header.kind == STEP_PARK ? ENGINE_PARKED : ENGINE_STOPPED;
            return land(e, err);
        }
        TRY(fly(e, err));
        tell_phase(e, ENGINE_WAITING);
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
    if (request->on_logits && !model_logits_in_place(e->model))
        TRY(reserve_logits(e, err));
    return sched_submit(e->scheduler, request, id, err);
}

bool engine_cancel(struct engine *e, uint64_t id)
{
    return sched_cancel(e->scheduler, id);
}

enum status engine_step(struct engine *e, bool *ran, struct error *err)
{
    bool next = sched_next(e->scheduler, &e->step, e->vocab_limit);
    *ran = next || e->flying;
    if (next)
        TRY(step_broadcast(&e->step, e->world, err));
    TRY(next ? fly(e, err) : land(e, err));
    if (*ran)
        tell_phase(e, ENGINE_WAITING);
    return OK;
}

enum status engine_stop(struct engine *e, struct error *err)
{
    TRY(land(e, err));
    step_begin(&e->step, STEP_STOP, e->vocab_limit, false);
    return step_broadcast(&e->step, e->world, err);
}

enum status engine_park(struct engine *e, struct error *err)
{
    TRY(land(e, err));
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
