/*
 * GET /admin/status: what Admin's GetStatus says, as JSON for the web page and for scripts, and
 * what belongs beside it: layouts in numbers, time by phase, requests, recent events. Fields stand
 * in docs/page.md. What is not known is null, never 0. And GET /admin/experts/GROUP, the tokens of
 * each expert: apart, since they are many. On the loop thread.
 */
#ifndef WITAN_COORDINATOR_STATUS_JSON_H
#define WITAN_COORDINATOR_STATUS_JSON_H

#include "base/buf.h"
#include "coordinator/core.h"

enum { STATUS_JSON_MAX_BYTES = 64 << 20 };

/* Appends one JSON object. ERR_LIMIT when it does not fit. */
enum status status_json(const struct core *core, struct buf *out, struct error *err);
/* The same of a group's experts. ERR_NOT_FOUND: no such group, or it has none. */
enum status status_experts(const struct core *core, const char *group, struct buf *out,
                           struct error *err);

#endif
