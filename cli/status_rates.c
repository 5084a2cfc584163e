/* What came to pass between two replies: see status.h. A count that is less than it was belongs to
 * another life of what is counted, and gives no rate. */
#include "cli/status.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

typedef Witan__Inference__V1__GetStatusResponse reply;
typedef Witan__Inference__V1__Group group;
typedef Witan__Inference__V1__Rank rank;

static bool has_past(const struct status_page *p)
{
    return p->past && p->past->reply && p->past->seconds > 0;
}

static const group *past_group(const struct status_page *p, const char *name)
{
    if (!has_past(p))
        return NULL;
    for (size_t i = 0; i < p->past->reply->n_groups; i++)
        if (strcmp(p->past->reply->groups[i]->name, name) == 0)
            return p->past->reply->groups[i];
    return NULL;
}

static const rank *past_rank(const group *g, const rank *r)
{
    for (size_t i = 0; g && i < g->n_ranks; i++) {
        const rank *old = g->ranks[i];
        if (old->rank == r->rank && old->pid == r->pid && strcmp(old->host, r->host) == 0)
            return old;
    }
    return NULL;
}

/* "12.3 tokens/s", or "- tokens/s" where none is known. */
static void put_rate(const struct status_page *p, bool known, uint64_t now, uint64_t then,
                     const char *unit)
{
    if (known && now >= then)
        fprintf(p->f, "%.1f %s/s", (double)(now - then) / p->past->seconds, unit);
    else
        fprintf(p->f, "- %s/s", unit);
}

void status_show_rates(const struct status_page *p, const reply *r)
{
    if (!p->past)
        return;
    uint64_t tokens = 0, waiting = 0, requests = has_past(p) ? p->past->reply->requests_done : 0;
    for (size_t i = 0; i < r->n_groups; i++) {
        const group *old = past_group(p, r->groups[i]->name);
        tokens += old && r->groups[i]->tokens >= old->tokens ? r->groups[i]->tokens - old->tokens
                                                             : 0;
        waiting += r->groups[i]->waiting;
    }
    fputs("in all ", p->f);
    put_rate(p, has_past(p), tokens, 0, "tokens");
    fputs(", ", p->f);
    put_rate(p, has_past(p), r->requests_done, requests, "requests");
    fprintf(p->f, ", %" PRIu64 " waiting\n", waiting);
}

void status_show_group_rates(const struct status_page *p, const group *g)
{
    if (!p->past)
        return;
    const group *old = past_group(p, g->name);
    fputs("  now: ", p->f);
    put_rate(p, old, g->tokens, old ? old->tokens : 0, "tokens");
    if (g->kv_blocks > 0)
        fprintf(p->f, ", %.0f %% of the KV cache in use",
                100.0 * (double)(g->kv_blocks - g->kv_blocks_free) / g->kv_blocks);
    fprintf(p->f, ", %" PRIu64 " tokens of waiting requests\n", g->waiting_tokens);
}

/* Steps are counted as heartbeats tell them, so a rate of a second or two is a coarse one. */
void status_show_rank_rates(const struct status_page *p, const char *group_name, const rank *r)
{
    const rank *old = past_rank(past_group(p, group_name), r);
    if (!old || r->step < old->step)
        return;
    uint64_t steps = r->step - old->step;
    if (steps == 0)
        fprintf(p->f, "           no step in %.1f s\n", p->past->seconds);
    else
        fprintf(p->f, "           %.1f steps/s, at most %.2f ms each\n",
                (double)steps / p->past->seconds, p->past->seconds * 1e3 / (double)steps);
}
