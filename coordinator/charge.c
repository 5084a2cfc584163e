/* Quotas in the words of the doors: see charge.h. No state. */
#include "coordinator/charge.h"

#include "base/clock.h"

#include <stdio.h>

/* Names the limit as the keys' file and cluster.yaml call it. */
static void describe(const struct quota_refusal *r, char *words, size_t size)
{
    const char *who = r->tenant ? "tenant" : "key";
    long long used = r->used, most = r->most;
    switch (r->limit) {
    case QUOTA_REQUESTS:
        snprintf(words, size,
                 "this %s has made %lld requests in the last minute, of %lld that it may "
                 "(requests_per_minute)",
                 who, used, most);
        break;
    case QUOTA_TOKENS:
        snprintf(words, size,
                 "this %s has used or reserved %lld tokens in the last minute, of %lld that it "
                 "may, and the request needs %lld (tokens_per_minute)",
                 who, used, most, (long long)r->wanted);
        break;
    case QUOTA_CONCURRENT:
        snprintf(words, size,
                 "%lld requests of this %s are under way, of %lld that may be (concurrent)", used,
                 who, most);
        break;
    default:
        snprintf(words, size, "%lld keys and tenants with quotas have asked in the last minute",
                 most);
    }
}

static enum status refuse(struct core *core, const struct quota_refusal *r, struct error *err)
{
    static const enum metrics_limit limits[] = {
        [QUOTA_REQUESTS] = METRICS_LIMIT_QUOTA_REQUESTS,
        [QUOTA_TOKENS] = METRICS_LIMIT_QUOTA_TOKENS,
        [QUOTA_CONCURRENT] = METRICS_LIMIT_QUOTA_CONCURRENT,
        [QUOTA_FULL] = METRICS_LIMIT_QUOTA_CONCURRENT,
    };
    char words[300];
    describe(r, words, sizeof words);
    if (r->wait_ns == 0)
        return core_refuse(core, limits[r->limit], 0.0, err, "%s", words);
    /* Exactly known, and nobody else waits for it: no chance is added. */
    core->metrics.refused[limits[r->limit]]++;
    core->retry_s = (int32_t)((r->wait_ns + 999999999) / 1000000000);
    return error_set(err, ERR_NO_MEMORY, "%s: try again in %d s", words, core->retry_s);
}

enum status charge_check(struct core *core, const struct auth_caller *caller, struct error *err)
{
    struct quota_refusal why;
    if (!core->quota)
        return OK;
    if (quota_check(core->quota, &caller->quota, caller->tenant, clock_now_ns(), &why))
        return OK;
    return refuse(core, &why, err);
}

enum status charge_take(struct core *core, const struct generation_params *p, int32_t max_tokens,
                        struct quota_ticket *ticket, struct error *err)
{
    struct quota_refusal why;
    const struct quota_ask ask = {
        .prompt = p->same_prompt ? 0 : p->prompt_len,
        .answer = max_tokens,
        /* One that takes another's place has used some of what that one had reserved. */
        .open = p->default_max_tokens || p->max_tokens == 0 || p->replaces,
        .request = !p->accepted,
    };
    *ticket = (struct quota_ticket){0};
    if (!core->quota)
        return OK;
    if (quota_take(core->quota, &p->quota, p->tenant, &ask, clock_now_ns(), ticket, &why))
        return OK;
    return refuse(core, &why, err);
}
