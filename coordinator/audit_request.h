/*
 * What the audit log says of requests, groups and ranks (docs/audit.md lists every field). No text,
 * no token ids: counts, settings, and HMACs of ids under the auditor's key. On the loop thread; all
 * do nothing without a log.
 */
#ifndef WITAN_COORDINATOR_AUDIT_REQUEST_H
#define WITAN_COORDINATOR_AUDIT_REQUEST_H

#include "coordinator/audit.h"
#include "coordinator/journal.h"

struct group;
struct member;

/* Opens the log that the configuration names, if any, and records the start. `audited` becomes the
 * core's. */
enum status audit_start(struct core *core, void (*audited)(struct core *core), struct error *err);

/* A request goes to its first group, or, with none ready, waits for one (`group` NULL). A ticket as
 * audit_event gives it. */
uint64_t audit_request_start(const struct core *core, uint64_t id,
                             const struct generation_params *params, const struct journal *j,
                             const struct group *group);

/* It goes on in another one. `why`: what became of the one before. */
void audit_request_moved(const struct core *core, uint64_t id, const struct group *group,
                         const char *why);

struct audit_ended {
    const struct journal *journal;
    const struct generation_end *end;
    const struct group *group; /* NULL: it had none at its end */
    enum metrics_end how;
    uint32_t failovers, moves;
    int64_t began_ns, first_ns; /* monotonic; first_ns 0: no token came */
    double joules;              /* below 0: not known */
};
void audit_request_end(const struct core *core, const struct audit_ended *e);

/* kind: "rank_joined", "rank_left" (with why), "weights": what a rank has loaded and proven. */
void audit_rank(const struct core *core, const char *kind, const struct member *r, const char *why);

/* What an operator did: action "drain", ...; by whose key; `why` NULL: it was done. */
void audit_admin(const struct core *core, const char *action, const char *target, const char *key,
                 bool force, const char *why);

#endif
