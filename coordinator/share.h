/*
 * Several coordinators of the same groups. Each rank attaches to one of them, its group's home; the
 * others reach the group through it. Each coordinator dials each of config's `peers` (a link,
 * share_link.c) and is dialled by them (a stream, share_home.c): a group that has no ranks here and
 * that a peer says is ready is served through that link; what a peer submits here is relayed to
 * the group's rank 0 and its tokens back (share_relay.c).
 *
 * A relayed request is fenced twice, by the ids, attempts and epoch of the one that submitted it
 * and by the home's own. It is never relayed a second time. Owned by the loop thread.
 */
#ifndef WITAN_COORDINATOR_SHARE_H
#define WITAN_COORDINATOR_SHARE_H

#include "coordinator/metrics.h"
#include "proto/cluster.pb-c.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stdint.h>

struct group;
struct members;
struct share;
struct share_link;

/* Fills *method, which must outlive the server; peers are dialled from the first share_watch on.
 * `tls`: a coordinator's, as its server has it. */
enum status share_create(struct members *m, struct rpc *rpc, const struct rpc_tls *tls,
                         struct rpc_method *method, struct share **out, struct error *err);
/* Ends what is open and waits for it. After the server has stopped; NULL is fine. */
void share_destroy(struct share *s);

/* --- on the loop thread --- */

/* Peers submit nothing new here from now on; what they have submitted may end. */
void share_leave(struct share *s);
/* Requests of peers that run here. */
int32_t share_relays(const struct share *s);
/* Is another coordinator there? */
bool share_linked(const struct share *s);
/* Ends links and streams; share_gone tells when the last has closed. */
void share_stop(struct share *s, const char *reason);
bool share_gone(const struct share *s);

/* Each HANG_TICK_MS: dials, tells peers what has changed, closes links that are silent. `now_ns`:
 * of the members' hang_clock. */
void share_watch(struct share *s, int64_t now_ns);

/* The group's state has changed: peers are told, and where it is not ready their requests on it are
 * dropped. Before there is a share (NULL) nothing happens. */
void share_group_changed(struct share *s, struct group *g);
/* The group has no ranks here: it is served through a peer that says it is ready, if there is one.
 */
void share_offer(struct share *s, struct group *g);
/* Its requests of peers are given up and go on elsewhere. */
void share_return_all(struct share *s, struct group *g, const char *why);
/* Were these tokens of a request of a peer? Then they are taken; share_flush sends them on. */
bool share_tokens(struct share *s, struct group *g, Witan__Cluster__V1__SequenceTokens *t);
void share_flush(struct share *s);

/* A group that is served through a link. Errors as rpc_send's. */
enum status share_submit(struct share_link *via, const struct group *g,
                         Witan__Cluster__V1__Submit *submit, struct error *err);
void share_cancel(struct share_link *via, Witan__Cluster__V1__Cancel *cancel);
/* "HOST:PORT" as config has it. */
const char *share_address(const struct share_link *via);

/* For a rank that says hello: should it attach elsewhere, as its group is ready at a peer, or the
 * group's rank 0 of that incarnation is there? NULL: no; else the peer's address. */
const char *share_elsewhere(const struct share *s, const struct group *g, uint64_t incarnation,
                            uint32_t rank);

void share_metrics(struct metrics_page *p, const struct share *s);

#endif
