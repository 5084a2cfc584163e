/*
 * The worker groups and their ranks: who has attached, what each was told to hold, how it fares.
 * Owned by the loop thread; the rpc thread only hands messages over.
 *
 * A group is `waiting` until every rank of one incarnation is there, `loading` after the plan has
 * gone out, `ready` once every rank has loaded and a forward pass has crossed them all, and `lost`
 * from the first rank that fails until the last has gone; then it waits again. A rank that has
 * loaded and whose stream alone has ended keeps its weights and attaches again: `loading` then
 * takes a moment.
 */
#ifndef WITAN_COORDINATOR_MEMBERS_H
#define WITAN_COORDINATOR_MEMBERS_H

#include "coordinator/core.h"
#include "coordinator/journal.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

struct group;

/* Listens for ranks. `tls` is mutual. `notify` is told of each change of a group's state
 * ("waiting", "loading", "ready", "stopping", "lost") with a message for the operator; and of
 * "drained" and "undrained", which are no states but what was asked for (drain.h). */
enum status members_create(struct core *core, struct rpc *rpc, const struct rpc_tls *tls,
                           void (*notify)(const char *group, const char *state,
                                          const char *message),
                           struct members **out, struct error *err);
/* After members_stop has found all streams closed, or given up. Stops the server. */
void members_destroy(struct members *m);
int members_port(const struct members *m);

/* Tells every group to end in order; ranks of external ones go to another coordinator, where there
 * is one. members_gone tells when the last stream has closed. */
void members_stop(struct members *m, const char *reason);
bool members_gone(const struct members *m);
/* Before that: peers (share.h) submit nothing new here any more. And how many of their requests
 * run. */
void members_leave(struct members *m);
int members_relays(const struct members *m);
bool members_all_ready(const struct members *m);

/* Sends a request to a ready group, which it chooses (routing.c): *group is the one. One that has
 * begun goes to a group of its numerics class alone; else the group's is noted in the journal.
 * ERR_PEER: none is ready, and why; ERR_NO_MEMORY: no group has room in its queue; ERR_CONFLICT:
 * those that are ready compute in another class. What comes back is told by generation_tokens and
 * generation_lost. */
enum status members_submit(struct members *m, uint64_t id, uint32_t attempt, struct journal *j,
                           struct group **group, struct error *err);
/* Tokens that the KV cache of the ready group with the largest one holds: a sequence of more can
 * never run. 0: not known yet. */
int64_t members_capacity(const struct members *m);
void members_cancel(struct group *group, uint64_t id, uint32_t attempt);
/* Would some ready group take a request of this priority, tenant and deadline into its queue? Asked
 * before its prompt is known, so that most of those that are refused cost little. ERR_NO_MEMORY: by
 * none, counted and with the time to come again; OK where no group is ready. */
enum status members_admit(const struct members *m, const struct generation_params *p,
                          struct error *err);
/* Its prompt has been computed: the first token is there, or its end without one. It waits no
 * longer in its group's queue. */
void members_prefilled(struct group *group, struct journal *j);
/* The request has ended, or its group is lost: it weighs no longer on it. */
void members_done(struct group *group, struct journal *j);

/* Fills the groups of a status reply; protobuf_c_message_free_unpacked frees all of it. */
void members_status(const struct members *m, Witan__Inference__V1__GetStatusResponse *out);

/* Called about once a second. */
void members_tick(struct members *m);
/* Loses groups that stand still, and warns of slow ranks. Called each HANG_TICK_MS (hang.h). */
void members_watch(struct members *m);

/* --- what members tell generations (generation.c) --- */

/* Valid during the call. */
struct drawn {
    uint64_t id, epoch;
    uint32_t attempt;
    int32_t position; /* in the answer, of the first of ids */
    const int32_t *ids;
    int32_t count;
    const struct token_logprobs *logprobs; /* [count]; NULL: none are told */
    const struct token_logprobs *prompt_logprobs;
    int32_t prompt_position; /* in the prompt, of the first of them */
    int32_t prompt_count;
    int32_t cached_tokens; /* with position 0: of the prompt, those that the prefix cache had */
    bool stopped, full, failed; /* it is over: by an end token, by max_tokens, by `error` */
    bool late;                  /* failed, because its deadline has passed */
    const char *error;
    bool metered; /* `joules` is known: what the steps took that are told of */
    double joules;
};

/* False: it is over; what it took is nobody's. */
bool generation_tokens(struct core *core, const struct drawn *d);
/* Does a request of this tenant wait for its first token? A look through all of them. */
bool generation_waits(const struct core *core, uint64_t tenant);
/* Everything that runs on this group has lost it: each goes on in another one, or waits until one
 * is ready. `why`: one line. */
void generation_lost(struct core *core, struct group *group, const char *name, const char *why);
/* The same of a group that is taken out of service on purpose and still there: it is told to give
 * its requests up, and none of limits.failovers is spent. */
void generation_moved(struct core *core, struct group *group, const char *name);
/* The group that this attempt was sent to; NULL: it is over. */
const struct group *generation_group(struct core *core, uint64_t id, uint32_t attempt);
/* Another coordinator has not taken this attempt, or has given it up: this request alone goes on
 * elsewhere, and none of limits.failovers is spent. */
void generation_returned(struct core *core, uint64_t id, uint32_t attempt, const char *why);
/* What generation_start demands of parameters, but for the room that there is: ERR_INVALID. */
enum status generation_check(const struct core *core, const struct generation_params *p,
                             struct error *err);
/* A group has become ready: what waits for one goes on. */
void generation_resume(struct core *core);
/* The coordinator ends: what waits for a group ends now, with an error, unless one is ready, and so
 * does what loses its group from here on. */
void generation_end_held(struct core *core);
/* The audit log has changed: what waited for it is told, or ends where it cannot be written. */
void generation_audited(struct core *core);
/* Ends what has taken too long, and tries again with what waits. Called about once a second. */
void generation_tick(struct core *core);

#endif
