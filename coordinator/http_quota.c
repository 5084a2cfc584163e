/* What is left of the caller's quotas, in headers of the answer. No state. */
#include "base/clock.h"
#include "coordinator/auth.h"
#include "coordinator/dialect.h"
#include "coordinator/http_api.h"

#include <stdio.h>
#include <time.h>

/* OpenAI's names end in what is counted, Anthropic's in what is told of it. */
static void tell(struct exchange *x, const char *what, const char *word, const char *value)
{
    char name[64];
    if (x->dialect == &dialect_anthropic)
        snprintf(name, sizeof name, "anthropic-ratelimit-%s-%s", what, word);
    else
        snprintf(name, sizeof name, "x-ratelimit-%s-%s", word, what);
    exchange_header(x, name, value);
}

static void tell_one(struct exchange *x, const char *what, const struct quota_left *q)
{
    char value[AUTH_TIME_BYTES];
    int64_t seconds = (q->reset_ns + 999999999) / 1000000000;
    if (q->limit == 0)
        return;
    snprintf(value, sizeof value, "%lld", (long long)q->limit);
    tell(x, what, "limit", value);
    snprintf(value, sizeof value, "%lld", (long long)q->left);
    tell(x, what, "remaining", value);
    if (x->dialect == &dialect_anthropic)
        auth_print_time(time(NULL) + seconds, value);
    else
        snprintf(value, sizeof value, "%llds", (long long)seconds);
    tell(x, what, "reset", value);
}

void http_tell_quota(struct exchange *x)
{
    struct quota_left requests, tokens;
    if (!x->core->quota)
        return;
    quota_look(x->core->quota, &x->caller.quota, x->caller.tenant, clock_now_ns(), &requests,
               &tokens);
    tell_one(x, "requests", &requests);
    tell_one(x, "tokens", &tokens);
}
