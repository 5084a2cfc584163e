/*
 * A request on its way through the scheduler: what worker/scheduler.c and worker/queue.c both know.
 * Owned by the scheduler, from submission to the end of the last step that feeds it.
 */
#ifndef WITAN_WORKER_SEQUENCE_H
#define WITAN_WORKER_SEQUENCE_H

#include "worker/blocks.h"
#include "worker/edits.h"
#include "worker/guess.h"
#include "worker/scheduler.h"

struct tenant;

struct sequence {
    struct request request;
    uint64_t id;
    struct tenant *tenant;
    struct edits *edits;            /* of its logits; NULL: none, ever */
    struct constraint_state form;   /* with a constraint: after the known tokens */
    bool thinks;                    /* what ends a thought may come behind them, or its rest */
    struct sequence *next, *before; /* of its class and tenant, by id; and */
    struct sequence *newer, *older; /* of all, by when they came; both while it waits */
    int32_t slot;
    int32_t flights;    /* steps in flight that feed it */
    uint64_t fed_in;    /* the last step that was made to feed it */
    bool started;       /* its request has been told so */
    bool ended;         /* told so; released when no flight feeds it any more */
    bool preempted;     /* waits again when no flight feeds it any more */
    bool all_rows;      /* logits of every row of the prompt are wanted */
    bool needs_history; /* a step that draws from it must know all its tokens */
    int32_t computed;   /* tokens whose K and V are in the cache, once all flights have landed */
    int32_t length;     /* tokens: prompt, drawn, and one that a flight is to draw */
    int32_t known;      /* of these, from the first on: the others stand as step_drawn_token */
    struct guess guess; /* where it tries: a step that draws from it must know all its tokens too */
    int32_t told;       /* with all_rows: rows of the prompt whose logits have been handed over */
    int32_t block_count;
    int32_t sent_blocks;  /* of its blocks, those that the ranks know */
    int32_t kept_blocks;  /* and those that the prefix cache has, or has the like of */
    struct prefix prefix; /* what the next of them follows */
    int32_t *blocks;      /* [of prompt_len + max_tokens tokens], behind the tokens */
    int32_t tokens[];     /* [prompt_len + max_tokens] */
};

/* A copy of the request with what it points to, which nothing is known of yet. `ends`: the model's
 * end-of-sequence tokens. ERR_NO_MEMORY. */
enum status sequence_create(const struct request *request, const int32_t *ends, int32_t end_count,
                            struct sequence **out, struct error *err);
void sequence_destroy(struct sequence *q);

/* CHECKs that blocks that two running ones hold have the same tokens behind them, in one domain,
 * and that neither still writes there. */
void sequence_check_shared(const struct sequence *a, const struct sequence *b);

static inline int32_t sequence_blocks(int64_t tokens)
{
    return (int32_t)((tokens + KV_BLOCK - 1) / KV_BLOCK);
}

/* Who is served first where both cannot be. */
static inline bool sequence_goes_before(const struct sequence *a, const struct sequence *b)
{
    return a->request.priority != b->request.priority ? a->request.priority < b->request.priority
                                                      : a->id < b->id;
}

#endif
