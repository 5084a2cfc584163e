/*
 * What a request must be asked again with when its group is lost: all that its first group was
 * asked, and the tokens of its answer so far. Text is not here: what was told is told.
 *
 * Four bytes a token of prompt and answer, which the context bounds, for each of limits.requests.
 * Owned by its generation, on the loop thread.
 */
#ifndef WITAN_COORDINATOR_JOURNAL_H
#define WITAN_COORDINATOR_JOURNAL_H

#include "coordinator/core.h"

struct journal {
    struct generation_params params; /* arrays are copies, in `memory`; no stop strings */
    int32_t max_tokens;              /* of the whole answer */
    int32_t *answer;                 /* [answer_len] of [answer_cap]; owned */
    int32_t answer_len, answer_cap;
    int32_t prompt_told; /* prompt_logprobs up to this position; 0: none are wanted */
    int32_t owed;        /* tokens of the prompt that its group has to compute yet: routing.c's */
    bool accepted;       /* let in: bounds of queues are for others */
    int32_t waits;       /* tokens with which it waits in its group's queue; 0: it does not */
    int64_t deadline_ns; /* monotonic; 0: none */
    char class[64];      /* numerics class that it begins or began in; "": any */
    void *memory;
};

void journal_init(struct journal *j, const struct generation_params *params, int32_t max_tokens,
                  int64_t now_ns);
void journal_fini(struct journal *j);

/* Tokens that were drawn; at most max_tokens together. */
void journal_add(struct journal *j, const int32_t *ids, int32_t count);

/* What it takes in memory. */
int64_t journal_bytes(const struct journal *j);

/* Milliseconds to the deadline, at least 1 before it has passed; 0: there is none; -1: it has. */
int64_t journal_left_ms(const struct journal *j, int64_t now_ns);

#endif
