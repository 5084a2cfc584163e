/*
 * The worker groups and their ranks: who has attached, what each was told to hold, how it fares.
 * Owned by the loop thread; the rpc thread only hands messages over.
 *
 * A group is `waiting` until every rank of one incarnation is there, `loading` after the plan has
 * gone out, `ready` once every rank has loaded and a forward pass has crossed them all, and `lost`
 * from the first rank that fails until the last has gone; then it waits again.
 */
#ifndef WITAN_COORDINATOR_MEMBERS_H
#define WITAN_COORDINATOR_MEMBERS_H

#include "coordinator/core.h"
#include "proto/inference.pb-c.h"
#include "proto/rpc.h"

struct group;

/* Listens for ranks. `tls` is mutual. `notify` is told of each change of a group's state
 * ("waiting", "loading", "ready", "lost", "failed") with a message for the operator. */
enum status members_create(struct core *core, struct rpc *rpc, const struct rpc_tls *tls,
                           void (*notify)(const char *group, const char *state,
                                          const char *message),
                           struct members **out, struct error *err);
/* After members_stop has found all streams closed, or given up. Stops the server. */
void members_destroy(struct members *m);
int members_port(const struct members *m);

/* Tells every group to end in order. members_gone tells when the last stream has closed. */
void members_stop(struct members *m, const char *reason);
bool members_gone(const struct members *m);
bool members_all_ready(const struct members *m);

/* Sends a request to a ready group, which it chooses: *group is the one. ERR_PEER: none is ready,
 * and why. What comes back is told by generation_tokens and generation_lost. */
enum status members_submit(struct members *m, uint64_t id, uint32_t attempt,
                           const struct generation_params *params, int32_t max_tokens,
                           struct group **group, struct error *err);
void members_cancel(struct group *group, uint64_t id, uint32_t attempt);
/* The request has ended: it weighs no longer on its group. */
void members_done(struct group *group);

/* Fills the groups of a status reply; protobuf_c_message_free_unpacked frees all of it. */
void members_status(const struct members *m, Witan__Inference__V1__GetStatusResponse *out);

/* Called about once a second. */
void members_tick(struct members *m);

/* --- what members tell generations (generation.c) --- */

struct drawn {
    uint64_t id, epoch;
    uint32_t attempt;
    int32_t position; /* in the answer, of the first of ids */
    const int32_t *ids;
    int32_t count;
    bool stopped, full, failed; /* it is over: by an end token, by max_tokens, by `error` */
    const char *error;
};

void generation_tokens(struct core *core, const struct drawn *d);
/* Everything that runs on this group has lost it. */
void generation_lost(struct core *core, const struct group *group, const struct error *why);
/* Ends what has taken too long. Called about once a second. */
void generation_tick(struct core *core);

#endif
