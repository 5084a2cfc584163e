/*
 * Which tokens the next step feeds: continuous batching with chunked prefill, on rank 0 only.
 *
 * A step takes one token of each decoding sequence, then prompt chunks until max_rows are full:
 * those of running sequences first, then those of newly admitted ones, which wait in the order of
 * worker/queue.h. Some rows are the prompts' even where decoding could fill all. Blocks are taken
 * as rows are fed (worker/blocks.h). Where one is wanted and none is free, the running sequence of
 * the latest class, and of these the newest, gives its own away and waits again: what it holds is
 * computed once more (preemption by recompute), no client sees it. The first of the first class is
 * never asked to, so somebody always comes to an end; and a request fits the pool when all others
 * have given way.
 *
 * Owned by rank 0's engine thread. Allocates at submission, never in a step.
 */
#ifndef WITAN_WORKER_SCHEDULER_H
#define WITAN_WORKER_SCHEDULER_H

#include "partition/thinking.h"
#include "worker/step.h"

enum finish {
    FINISH_NONE,
    FINISH_STOP,      /* an end-of-sequence token */
    FINISH_LENGTH,    /* max_tokens */
    FINISH_CANCELLED, /* by engine_cancel */
    FINISH_ERROR,     /* the model's logits were not finite */
    FINISH_DEADLINE,
};

/* Of one token; natural logarithms at temperature 1 of the logits as the model gave them. */
struct logprobs {
    float logprob;
    int32_t rank;  /* 1: it was the likeliest; ties go to the lower id */
    int32_t count; /* likeliest tokens, first first */
    struct {
        int32_t id;
        float logprob;
    } top[SAMPLING_MAX_LOGPROBS];
};

struct request {
    const int32_t *prompt; /* copied at submission */
    int32_t prompt_len;    /* at least 1 */
    int32_t max_tokens;    /* at least 0; with 0 the prompt is run and nothing drawn */
    /* [answer_len], copied: the first tokens of the answer, drawn elsewhere. Only what follows is
     * told; what is drawn is as if these had been drawn here. Fewer than max_tokens. */
    const int32_t *answer;
    int32_t answer_len;
    int32_t prompt_told; /* on_logprobs of the prompt goes on at this position; without answer */
    bool ignore_eos;
    bool all_logits; /* on_logits for every position of the prompt, not the last alone */
    struct sampling sampling;
    struct shaping shaping;       /* its arrays are copied */
    struct constraint constraint; /* what the answer must be; needs sched_masks */
    struct thinking thinking;     /* where a thought in it is ended */
    /* Where wanted, 1 + how many of the likeliest tokens to list beside; 0: none are. */
    int32_t logprobs;
    int32_t prompt_logprobs;
    uint64_t tenant;        /* whose it is: tenants get equal shares of the rows */
    uint64_t prefix_domain; /* prefixes are shared within it alone */
    int32_t priority;       /* -1 goes before 0 goes before 1 */
    int64_t deadline_ns;    /* clock_now_ns() at which it ends, done or not; 0: none */
    /* Called from rank 0's engine thread, in order of positions. on_token's last call has a finish
     * reason; with FINISH_CANCELLED, FINISH_ERROR, FINISH_DEADLINE, or LENGTH at max_tokens 0,
     * token is -1. */
    void (*on_token)(void *user, int32_t token, enum finish finish);
    /* May be NULL. logits[vocab] that follow the token at `pos`; valid during the call. */
    void (*on_logits)(void *user, int32_t pos, const float *logits, int32_t vocab);
    /* May be NULL. Seconds of a step that fed it: its share, just before what the step drew. */
    void (*on_share)(void *user, double seconds);
    /* May be NULL. Before its first step: how many tokens of the prompt the prefix cache had. */
    void (*on_start)(void *user, int32_t cached);
    /* May be NULL. Of the token at `pos`: of the prompt, from its second on, once each and in
     * order; or drawn, just before its on_token. Valid during the call. */
    void (*on_logprobs)(void *user, int32_t pos, const struct logprobs *l);
    void *user;
};

enum {
    SCHED_MAX_WAITING = 65536,
    SCHED_MAX_FLIGHTS = 2, /* steps that run while the next one is made */
};

struct scheduler;

struct sched_options {
    int32_t chunk; /* most prompt tokens of one sequence a step; 0: no bound but max_rows */
    /* In a step in which others decode, prompts get so many rows that they are likely to lengthen
     * it by this, or by half where that is more, but at least 16; 0: no bound. Chunks change no
     * token, so time may decide. */
    int32_t stall_ms;
    bool no_prefix_cache;
    bool wipe; /* steps zero the KV blocks that nobody has any more */
    /* Tokens guessed ahead of each sequence a step (worker/guess.h), within the limits' rows and
     * logits; 0: none, MAX_GUESSES at most. No token changes by it. */
    int32_t speculate;
    const int32_t *eos; /* [eos_count], copied */
    int32_t eos_count;  /* at most MAX_EOS */
};

/* Since creation. */
struct sched_stats {
    uint64_t prompt_rows;   /* tokens fed: of prompts, and again after a preemption; */
    uint64_t decode_rows;   /* and drawn ones */
    uint64_t drawn;         /* tokens that requests were told */
    uint64_t preempted;     /* times that a sequence gave its blocks away */
    uint64_t prefix_asked;  /* tokens of prompts looked up in the prefix cache, */
    uint64_t prefix_found;  /* and found there */
    uint64_t evicted;       /* blocks that the prefix cache gave up */
    uint64_t guessed;       /* tokens fed before they were drawn, */
    uint64_t guessed_right; /* and drawn then */
};

/* Where answers must be of a form: whose masks they are drawn by, which stay the caller's. Before
 * any request with a constraint. */
void sched_masks(struct scheduler *s, struct masks *masks);

enum status sched_create(const struct engine_limits *limits, const struct sched_options *options,
                         struct scheduler **out, struct error *err);
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
 * Ends requests whose deadline is not after `now_ns` (clock_now_ns), at most max_seqs a call.
 */
bool sched_next(struct scheduler *s, struct step *step, int32_t vocab_limit, int64_t now_ns);
/* Hands the blocks that are to be wiped to a step that runs nothing; sched_next does so itself. */
void sched_wipe(struct scheduler *s, struct step *step);

/* The oldest step in flight has run: `drawn` has the tokens of each sequence with `draw`, in the
 * step's order, and `logits` (may be NULL) the rows of the batch that wanted them, `stride` apart.
 * Ends sequences; their blocks are free when no step in flight feeds them. `step_ns`: how long the
 * step took, for stall_ms; 0: not known. */
void sched_done(struct scheduler *s, const int32_t *drawn, const float *logits, int64_t stride,
                int32_t vocab, int64_t step_ns);

/* Sequences that hold a slot, those that have ended in flight too. */
int32_t sched_running(const struct scheduler *s);
int32_t sched_waiting(const struct scheduler *s);
int32_t sched_free_blocks(const struct scheduler *s);   /* those cached counted */
int32_t sched_cached_blocks(const struct scheduler *s); /* free, and kept for their prefix */
struct sched_stats sched_stats(const struct scheduler *s);

/* CHECKs its books: blocks, slots, queue. Slow and allocates: for tests. */
void sched_check(const struct scheduler *s);

#endif
