/*
 * Requests against the quotas of their key and tenant (quota.h), in the words of the doors. On the
 * loop thread.
 */
#ifndef WITAN_COORDINATOR_CHARGE_H
#define WITAN_COORDINATOR_CHARGE_H

#include "coordinator/core.h"

/* Is there anything left? Before a request is read. ERR_NO_MEMORY, as core_refuse has it: no. */
enum status charge_check(struct core *core, const struct auth_caller *caller, struct error *err);

/* Takes what a request may use; the ticket is the generation's to settle. */
enum status charge_take(struct core *core, const struct generation_params *params,
                        int32_t max_tokens, struct quota_ticket *ticket, struct error *err);

#endif
