/*
 * The leader's requests in flight, and what they drew in the step at hand: the way from the
 * scheduler's callbacks to one Tokens message a step. All memory is taken at creation, but for that
 * of logprobs, taken once when the first request asks for them. Owned by the leader's engine
 * thread.
 */
#ifndef WITAN_WORKER_CONTROL_ANSWERS_H
#define WITAN_WORKER_CONTROL_ANSWERS_H

#include "worker/control/command.h"
#include "worker/engine.h"

enum {
    ANSWERS_WAITING = 4096,                /* requests in flight beyond those that run */
    ANSWERS_STEP_TOKENS = 1 + MAX_GUESSES, /* most that a step draws for one sequence */
};

struct answers;

enum status answers_create(const struct engine_limits *limits, struct answers **out,
                           struct error *err);
void answers_destroy(struct answers *a);

/* Hands a Submit to the engine, its callbacks to this table. ERR_LIMIT when the table is full; a
 * refusal's message is for the coordinator. A request that is in flight already is OK and ignored.
 */
enum status answers_submit(struct answers *a, struct engine *e, const struct command *c,
                           struct error *err);
/* Ends the request, which then draws FINISH_CANCELLED; nothing when there is none. */
void answers_cancel(struct answers *a, struct engine *e, const struct command *c);

/* Whether the message also says of each request that a step feeds what its share of it was, from
 * the next step on; at first it does not. */
void answers_tell_shares(struct answers *a, bool tell);

/* Ends all requests, whoever they are from, and forgets what was drawn: nobody is left to tell. */
void answers_abandon(struct answers *a, struct engine *e);

/* What sequences drew, and which ended, since answers_clear, as a message that points into the
 * table; positions of a sequence follow one another. There is always room for one call of
 * engine_step after a clear, which may land all steps in flight and end every request;
 * answers_full says when there is for no cancel more. */
const Witan__Cluster__V1__Tokens *answers_message(struct answers *a, uint64_t step);
bool answers_full(const struct answers *a);
void answers_clear(struct answers *a);

/* Seconds that requests have waited from their submission to their first step. */
const struct histogram *answers_queue(const struct answers *a);

#endif
