/* What the scheduler's files share: worker/scheduler.c makes steps, worker/scheduler_land.c takes
 * in what came of them. */
#ifndef WITAN_WORKER_SCHEDULER_PRIVATE_H
#define WITAN_WORKER_SCHEDULER_PRIVATE_H

#include "worker/pace.h"
#include "worker/queue.h"

/* What a step feeds, until it has run. */
struct flight_part {
    struct sequence *sequence;
    int32_t pos, count;
    int32_t logits; /* enum step_logits */
    int32_t draw;
    bool decodes; /* its tokens are drawn ones, and guesses */
};

struct flight {
    int32_t count, draws;
    int32_t prompt_rows;
    int32_t vocab_limit;
    struct flight_part *parts; /* [max_seqs] */
};

struct scheduler {
    struct engine_limits limits;
    int32_t chunk, speculate;
    int32_t eos[MAX_EOS];
    int32_t eos_count;
    struct queue *queue;
    struct blocks *blocks;
    struct sequence **running; /* [max_seqs] as sequence_goes_before */
    int32_t running_count;
    struct sequence **by_slot; /* [max_seqs] */
    int32_t *free_slots;       /* stack */
    int32_t free_slot_count;
    struct flight flights[SCHED_MAX_FLIGHTS]; /* the oldest first */
    int32_t flight_count;
    uint64_t next_id;
    uint64_t steps;      /* made so far */
    int32_t turn;        /* the slot whose sequence decodes first when not all can */
    int64_t deadline_ns; /* none has one before; INT64_MAX: none has one */
    struct pace pace;
    struct masks *masks; /* the engine's; NULL: no form is known */
    struct sched_stats stats;
};

/* Fed no more, and about to give up what it holds. */
static inline bool sched_leaves(const struct sequence *q)
{
    return q->ended || q->preempted;
}

/* What stands as its token at `at`, which follows the known ones, where `token` was drawn; below 0:
 * none could be. */
static inline int32_t sched_token(const struct sequence *q, int32_t at, int32_t token)
{
    const struct request *r = &q->request;
    return token < 0 ? token : thinking_token(&r->thinking, q->thinks, at - r->prompt_len, token);
}

/* Takes it into what its answer must be. False: its form does not have it. */
bool sched_take(const struct scheduler *s, struct sequence *q, int32_t at, int32_t token);

/* Its request has been told. What is in flight still writes to its blocks. */
void sched_end(struct scheduler *s, struct sequence *q);

/* It has been preempted, and no step in flight feeds it. */
void sched_wait_again(struct scheduler *s, struct sequence *q);

/* Gives the prefix cache the blocks that are full of tokens which are known. They may be found
 * before the step that fills them has run: it runs before any that is made later; and in one step
 * every row's K and V of a layer are written before any row's attention reads them. */
void sched_keep_blocks(struct scheduler *s, struct sequence *q);

#endif
