/* One rank's engine: see engine.h. */
#include "worker/engine.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "worker/edits.h"

#include <stdlib.h>

/* Of a step, for its figures. */
struct step_traits {
    bool prompt;  /* it feeds one */
    bool follows; /* others ran just before: the time between is its own */
    int32_t sequences;
};

struct engine {
    struct model *model;
    struct comm *world;
    struct engine_options options;
    int drawer; /* the rank that draws tokens: the first of the last stage */
    int32_t vocab_limit;
    struct step step;
    struct scheduler *scheduler; /* rank 0 */
    struct masks *masks;         /* rank 0; NULL: it knows no tokens' bytes */
    struct batch flight;         /* where `flying`: of the step under way, its counts alone */
    bool flying;
    int64_t flight_ns; /* when it began */
    int64_t landed_ns; /* when the last step was done */
    /* Of the last step, on rank 0 and on the drawing rank. */
    const int32_t *drawn;
    const float *kept; /* logits [.., padded vocabulary]; NULL: none are */
    int32_t *received; /* [batch_max_draws]: rank 0's copy of what another drew */
    float *logits;     /* [max_logits, padded vocabulary]: a copy, where one has been needed */
    bool warned_range;
    struct step_traits next, flight_traits; /* rank 0: of the step to run, and of that under way */
    bool busy;                              /* there was more to run after the last step */
    int64_t landed_forward_ns;              /* stats.forward_ns when the last step was done */
    struct histogram prompt_step, decode_step, sequences, overhead;
    struct engine_stats stats;
};

static enum status create_here(struct engine *e, const struct engine_options *o, struct error *err)
{
    const struct model *m = e->model;
    TRY(step_init(&e->step, &m->limits, e->vocab_limit, err));
    e->received = calloc((size_t)batch_max_draws(&m->limits), sizeof *e->received);
    if (!e->received)
        return error_set(err, ERR_NO_MEMORY, "no memory for the engine");
    const struct sched_options so = {.chunk = o->chunk,
                                     .stall_ms = o->stall_ms,
                                     .no_prefix_cache = o->no_prefix_cache,
                                     .wipe = o->wipe,
                                     .speculate = o->speculate,
                                     .eos = m->config.eos,
                                     .eos_count = m->config.eos_count};
    return e->world->rank == 0 ? sched_create(&m->limits, &so, &e->scheduler, err) : OK;
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
    histogram_init(&e->prompt_step, &histogram_seconds);
    histogram_init(&e->decode_step, &histogram_seconds);
    histogram_init(&e->overhead, &histogram_seconds);
    histogram_init(&e->sequences, &histogram_sizes);
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
    masks_destroy(e->masks);
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

/* The next step, from rank 0 to all. */
static enum status tell_step(struct engine *e, struct error *err)
{
    progress_meets(e->model->progress, 1);
    enum status st = step_broadcast(&e->step, e->world, err);
    progress_meets(e->model->progress, -1);
    if (st == OK && e->step.header.wipes > 0)
        st = kv_wipe(&e->model->kv, e->step.wipes, e->step.header.wipes, err);
    if (st == OK && e->options.wipe && e->step.header.kind != STEP_RUN)
        step_forget(&e->step);
    return st;
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
    progress_step(e->model->progress);
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
    progress_layer(e->model->progress, 0);
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

/* `took_ns`: the step; `since_ns`: since the one before was done. */
static void record_step(struct engine *e, const struct step_traits *t, int64_t took_ns,
                        int64_t since_ns)
{
    int64_t forward = e->stats.forward_ns - e->landed_forward_ns;
    histogram_add(t->prompt ? &e->prompt_step : &e->decode_step, (double)took_ns * 1e-9);
    histogram_add(&e->sequences, t->sequences);
    if (t->follows)
        histogram_add(&e->overhead, since_ns > forward ? (double)(since_ns - forward) * 1e-9 : 0);
    e->landed_forward_ns = e->stats.forward_ns;
}

/* Waits for the oldest step that has begun, of batch `b`, at `begun_ns`; its tokens and logits are
 * on rank 0. */
static enum status finish_step(struct engine *e, const struct batch *b, bool keeps,
                               int64_t begun_ns, const struct step_traits *traits,
                               struct error *err)
{
    int64_t start = clock_now_ns();
    TRY(e->model->kernels->finish(e->model->backend, err));
    e->stats.forward_ns += clock_now_ns() - start;
    warn_range(e);
    progress_meets(e->model->progress, 1);
    TRY(hand_over(e, b, keeps, err));
    progress_meets(e->model->progress, -1);
    if (e->world->rank != 0)
        return OK;
    int64_t now = clock_now_ns(), free = e->landed_ns; /* two steps under way run in turn */
    sched_done(e->scheduler, e->drawn, e->kept, model_vocab_padded(e->model),
               e->model->config.vocab, now - (begun_ns > free ? begun_ns : free));
    record_step(e, traits, now - (begun_ns > free ? begun_ns : free), now - free);
    e->landed_ns = now;
    return OK;
}

/* The step that is under way, if one is. */
static enum status land(struct engine *e, struct error *err)
{
    if (!e->flying)
        return OK;
    e->flying = false;
    return finish_step(e, &e->flight, false, e->flight_ns, &e->flight_traits, err);
}

/* The next step: it begins while the one before is under way, which is then waited for; and is
 * itself left under way, unless somebody wants its logits, which the one after would overwrite, or
 * rank 0 its tokens before it makes that one. */
static enum status fly(struct engine *e, struct error *err)
{
    struct batch b;
    bool keeps = e->step.header.keep_logits != 0;
    int64_t begun_ns = clock_now_ns();
    const struct step_traits traits = e->next;
    TRY(begin_step(e, &b, err));
    TRY(land(e, err));
    if (e->model->kernels->ahead && e->drawer == 0 && !keeps && !e->step.header.settle) {
        e->flight = b;
        e->flight_ns = begun_ns;
        e->flight_traits = traits;
        e->flying = true;
        return OK;
    }
    return finish_step(e, &b, keeps, begun_ns, &traits, err);
}

enum status engine_follow(struct engine *e, enum engine_left *why, struct error *err)
{
    for (;;) {
        TRY(tell_step(e, err));
        if (e->step.header.kind != STEP_RUN) {
            *why = e->step.header.kind == STEP_PARK ? ENGINE_PARKED : ENGINE_STOPPED;
            return land(e, err);
        }
        TRY(fly(e, err));
        tell_phase(e, ENGINE_WAITING);
    }
}

/* Padding has no bias, and something is left to draw. */
static enum status check_shaping(const struct engine *e, const struct shaping *s, struct error *err)
{
    TRY(shaping_check(s, e->vocab_limit, err));
    if (edits_most_bans(s, e->model->config.eos_count) < e->vocab_limit)
        return OK;
    return error_set(err, ERR_INVALID,
                     "logit_bias: expected a token that may be drawn, found all %d forbidden",
                     e->vocab_limit);
}

enum status engine_words(struct engine *e, struct words *words, struct error *err)
{
    const struct model_config *c = &e->model->config;
    enum status st = OK;
    if (!e->model->kernels->masks)
        st = error_set(err, ERR_UNSUPPORTED,
                       "response_format: ranks that compute on GPUs cannot hold an answer to JSON");
    else if (!e->masks)
        st = masks_create(words, e->vocab_limit, c->eos, c->eos_count, &e->masks, err);
    if (st != OK || masks_words(e->masks) != words)
        words_destroy(words);
    if (st != OK)
        return st;
    sched_masks(e->scheduler, e->masks);
    log_info("tokens' bytes, to hold answers to JSON: %.1f MB",
             (double)masks_bytes(e->masks) * 1e-6);
    return OK;
}

enum status engine_submit(struct engine *e, const struct request *request, uint64_t *id,
                          struct error *err)
{
    for (int32_t i = 0; i < request->prompt_len; i++)
        if (request->prompt[i] < 0 || request->prompt[i] >= e->model->config.vocab)
            return error_set(err, ERR_INVALID, "token %d of the prompt is %d: expected 0 to %d", i,
                             request->prompt[i], e->model->config.vocab - 1);
    for (int32_t i = 0; i < request->answer_len; i++)
        if (request->answer[i] < 0 || request->answer[i] >= e->model->config.vocab)
            return error_set(err, ERR_INVALID, "token %d of the answer is %d: expected 0 to %d", i,
                             request->answer[i], e->model->config.vocab - 1);
    TRY(check_shaping(e, &request->shaping, err));
    TRY(constraint_check(&request->constraint, &request->shaping, request->ignore_eos,
                         request->max_tokens, err));
    TRY(thinking_check(&request->thinking, &request->constraint, e->model->config.vocab,
                       request->max_tokens, err));
    bool keeps = request->on_logits || request->logprobs > 0 || request->prompt_logprobs > 0;
    if (keeps && !model_logits_in_place(e->model))
        TRY(reserve_logits(e, err));
    return sched_submit(e->scheduler, request, id, err);
}

bool engine_cancel(struct engine *e, uint64_t id)
{
    return sched_cancel(e->scheduler, id);
}

enum status engine_step(struct engine *e, bool *ran, struct error *err)
{
    uint64_t fed = e->stats.sched.prompt_rows;
    bool next = sched_next(e->scheduler, &e->step, e->vocab_limit, clock_now_ns());
    e->next = (struct step_traits){.prompt = sched_stats(e->scheduler).prompt_rows > fed,
                                   .follows = e->busy,
                                   .sequences = e->step.header.seqs};
    *ran = next || e->flying;
    if (next)
        TRY(tell_step(e, err));
    TRY(next ? fly(e, err) : land(e, err));
    e->stats.sched = sched_stats(e->scheduler);
    e->busy = e->flying || sched_running(e->scheduler) + sched_waiting(e->scheduler) > 0;
    if (*ran)
        tell_phase(e, ENGINE_WAITING);
    return OK;
}

enum status engine_stop(struct engine *e, struct error *err)
{
    TRY(land(e, err));
    step_begin(&e->step, STEP_STOP, e->vocab_limit, false);
    sched_wipe(e->scheduler, &e->step);
    return tell_step(e, err);
}

enum status engine_park(struct engine *e, struct error *err)
{
    TRY(land(e, err));
    step_begin(&e->step, STEP_PARK, e->vocab_limit, false);
    sched_wipe(e->scheduler, &e->step);
    return tell_step(e, err);
}

void engine_load(const struct engine *e, struct engine_load *out)
{
    *out = (struct engine_load){.running = sched_running(e->scheduler),
                                .waiting = sched_waiting(e->scheduler),
                                .kv_blocks_free = sched_free_blocks(e->scheduler),
                                .kv_blocks_cached = sched_cached_blocks(e->scheduler),
                                .kv_blocks = e->model->limits.kv_blocks};
}

const struct engine_stats *engine_stats(const struct engine *e)
{
    return &e->stats;
}

void engine_figures(const struct engine *e, struct engine_figures *out)
{
    *out = (struct engine_figures){
        .stats = e->stats,
        .collective_ns = e->model->collective_ns,
        .kv_blocks_cached = e->scheduler ? sched_cached_blocks(e->scheduler) : 0,
        .prompt_step = e->prompt_step,
        .decode_step = e->decode_step,
        .sequences = e->sequences,
        .overhead = e->overhead,
    };
    histogram_init(&out->queue, &histogram_seconds);
}
