/*
 * Groups taken out of service on purpose: draining (a group finishes what runs there and takes
 * nothing new), ending (and then its ranks end, whose job is over) and restarting (drain, end, and
 * come again, with whatever programs lie on its hosts then). At most one group restarts at a time,
 * and none whose absence would leave nobody to answer, unless forced.
 *
 * What still runs after limits.drain_timeout_s goes on in another group, by the way that failover
 * goes; no token is lost or changed.
 *
 * Owned by the loop thread.
 */
#ifndef WITAN_COORDINATOR_DRAIN_H
#define WITAN_COORDINATOR_DRAIN_H

#include "coordinator/members.h"

/* The group takes nothing new from now on, until `undo`; that is kept over its loss and forgotten
 * with this coordinator, unless who starts the next one was notified and says so again
 * (`witan-coordinator --drained`). *requests: how many it still runs. ERR_NOT_FOUND: no such group;
 * ERR_INVALID: it is the only one that takes requests, or it restarts. */
enum status drain_group(struct members *m, const char *name, bool undo, bool force,
                        uint32_t *requests, struct error *err);

/* The same, and once nothing runs there its ranks, which others have started (`external`), are told
 * to end: a job hands over to the next one, say. What still runs there after `within_s` seconds (0:
 * limits.drain_timeout_s) goes on elsewhere, or waits for a group where no other takes requests. It
 * is drained no more when its ranks have gone, so that those that come next serve. Asked again, the
 * last `within_s` counts. Errors as above; ERR_INVALID too when it is not ready. */
enum status drain_stop(struct members *m, const char *name, uint32_t within_s, bool force,
                       uint32_t *requests, struct error *err);

/* Begins to restart it: it is drained, told to end, and awaited. Whoever has started its ranks
 * starts them again. With `force`, the only group that takes requests: they are held meanwhile, new
 * ones too, up to limits.failover_timeout_s. Errors as above; ERR_INVALID too while another one
 * restarts, or when it is not ready. */
enum status drain_restart(struct members *m, const char *name, bool force, uint32_t *requests,
                          struct error *err);

/* One of the groups restarts, so that a request may wait for it where no other is ready. */
bool drain_restarting(const struct members *m);

#endif
