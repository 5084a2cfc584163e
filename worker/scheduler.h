/*
 * Which tokens the next step feeds: continuous batching with chunked prefill, on rank 0 only.
 *
 * A sequence is admitted, first come first served, when a slot is free and the pool has the blocks
 * of its whole length (prompt and max_tokens), so a running sequence never lacks one. A step takes
 * one token of each decoding sequence, then prompt chunks of the others until max_rows are full.
 *
 * Owned by rank 0's engine thread. Allocates at submission, never in a step.
 */
#ifndef WITAN_WORKER_SCHEDULER_H
#define WITAN_WORKER_SCHEDULER_H

#include "worker/step.h"

enum finish {
    FINISH_NONE,
    FINISH_STOP,      /* an end-of-sequence token */
    FINISH_LENGTH,    /* max_tokens */
    FINISH_CANCELLED, /* by engine_cancel */
    FINISH_ERROR,     /* the model's logits were not finite */
};

struct request {
    const int32_t *prompt; /* copied at submission */
    int32_t prompt_len;    /* at least 1 */
    int32_t max_tokens;    /* at least 0; with 0 the prompt is run and nothing drawn */
    bool ignore_eos;
    bool all_logits; /* on_logits for every position of the prompt, not the last alone */
    struct sampling sampling;
    /* Called from rank 0's engine thread, in order of positions. on_token's last call has a finish
     * reason; with FINISH_CANCELLED, FINISH_ERROR, or LENGTH at max_tokens 0, token is -1. */
    void (*on_token)(void *user, int32_t token, enum finish finish);
    /* May be NULL. logits[vocab] that follow the token at `pos`; valid during the call. */
    void (*on_logits)(void *user, int32_t pos, const float *logits, int32_t vocab);
    void *user;
};

enum {
    SCHED_MAX_WAITING = 65536,
    SCHED_MAX_FLIGHTS = 2, /* steps that run while the next one is made */
};

struct scheduler;

/* `chunk`: most prompt tokens of one sequence a step (0: no bound but max_rows). */
enum status sched_create(const struct engine_limits *limits, int32_t chunk, const int32_t *eos,
                         int32_t eos_count, struct scheduler **out, struct error *err);
void sched_destroy(struct scheduler *s);

/* Queues a request; *id names it for sched_cancel. Refuses, with the numbers, what can never run:
 * an empty prompt, prompt + max_tokens over the context or the whole pool, a full queue. */
enum status sched_submit(struct scheduler *s, const struct request *request, uint64_t *id,
                         struct error *err);

/* Ends a request now, waiting or running. False when there is none of this id. Not from a request's
 * callback. */
bool sched_cancel(struct scheduler *s, uint64_t id);

/*
 * Writes the next step's sequences; false when there is nothing to feed. The step is then in
 * flight: another may be made before it has run, in which tokens that it is to draw stand as
 * step_drawn_token, and which may turn out to feed sequences that it ends: their rows are dropped.
 */
bool sched_next(struct scheduler *s, struct step *step, int32_t vocab_limit);

/* The oldest step in flight has run: `drawn` has one token for each sequence with `draw`, in the
 * step's order, and `logits` (may be NULL) the rows of the batch that wanted them, `stride` apart.
 * Ends sequences; their blocks are free when no step in flight feeds them. */
void sched_done(struct scheduler *s, const int32_t *drawn, const float *logits, int64_t stride,
                int32_t vocab);

/* Sequences that hold a slot, those that have ended in flight too. */
int32_t sched_running(const struct scheduler *s);
int32_t sched_waiting(const struct scheduler *s);
int32_t sched_free_blocks(const struct scheduler *s);

#endif
