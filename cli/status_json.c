/* What a coordinator says of its groups and ranks, for programs: see status.h. */
#include "cli/status.h"

#include "base/check.h"

typedef Witan__Inference__V1__GetStatusResponse reply;
typedef Witan__Inference__V1__Group group;
typedef Witan__Inference__V1__Rank rank;

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

/* null where the rank computes on its processor. */
static json_t *device_json(const Witan__Inference__V1__Device *d)
{
    if (!d)
        return json_null();
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s}", "name", d->name, "compute_capability",
                     d->compute_capability, "memory_bytes", number(d->memory_bytes), "cuda_driver",
                     d->cuda_driver, "uuid", d->uuid, "pci", d->pci);
}

/* What is measured alone; null without a GPU. */
static json_t *gpu_json(const rank *r)
{
    if (!r->device)
        return json_null();
    json_t *o = json_object(), *reasons = json_array(), *xids = json_array();
    for (size_t i = 0; i < r->n_figures; i++)
        json_object_set_new(o, r->figures[i]->name, json_real(r->figures[i]->value));
    for (size_t i = 0; i < r->n_held_down_by; i++)
        json_array_append_new(reasons, json_string(r->held_down_by[i]));
    for (size_t i = 0; i < r->n_xids; i++)
        json_array_append_new(xids, number(r->xids[i]));
    json_object_set_new(o, "held_down_by", reasons);
    json_object_set_new(o, "xids", xids);
    return o;
}

static json_t *rank_json(const rank *r)
{
    json_t *memory = json_object();
    for (size_t i = 0; i < r->n_memory; i++)
        json_object_set_new(memory, r->memory[i]->name, number(r->memory[i]->bytes));
    return json_pack(
        "{s:o, s:s, s:o, s:s, s:s, s:o, s:f, s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:f}", "rank",
        number(r->rank), "host", r->host, "pid", number(r->pid), "region", r->region, "phase",
        r->phase, "step", number(r->step), "heartbeat_seconds_ago", r->heartbeat_seconds_ago,
        "processor", r->processor, "kernels", r->kernels, "memory_bytes", memory, "resident_bytes",
        number(r->resident_bytes), "holds", r->holds, "manifest_digest", r->manifest_digest,
        "device", device_json(r->device), "gpu", gpu_json(r), "slowness", r->slowness);
}

/* In joules; null where it is not counted. */
static json_t *energy_json(const Witan__Inference__V1__Energy *e)
{
    if (!e)
        return json_null();
    return json_pack("{s:b, s:f, s:f, s:f, s:f, s:f}", "known", e->known, "all", e->all, "requests",
                     e->requests, "idle", e->idle, "other", e->other, "pending", e->pending);
}

/* Seconds are negative where it was never lost. */
static void put_losses_json(const group *g, json_t *out)
{
    json_object_set_new(out, "losses", number(g->losses));
    json_object_set_new(out, "failed_starts", number(g->failed_starts));
    json_object_set_new(out, "last_loss", json_string(g->last_loss));
    json_object_set_new(out, "last_loss_seconds_ago", json_real(g->last_loss_seconds_ago));
}

/* null: too little is known. */
static json_t *experts_json(const Witan__Inference__V1__ExpertUse *e)
{
    if (!e)
        return json_null();
    return json_pack("{s:f, s:f, s:o, s:o, s:o}", "mean", e->mean, "worst", e->worst, "worst_layer",
                     number(e->worst_layer), "worst_expert", number(e->worst_expert), "shares",
                     e->shares > 0 ? json_real(e->shares) : json_null());
}

static json_t *group_json(const group *g)
{
    json_t *ranks = json_array();
    for (size_t i = 0; i < g->n_ranks; i++)
        json_array_append_new(ranks, rank_json(g->ranks[i]));
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:f, s:o, s:b, "
        "s:b, s:o, s:o, s:o, s:f}",
        "name", g->name, "state", g->state, "message", g->message, "layout", g->layout,
        "numerics_class", g->numerics_class, "through", g->through, "running", number(g->running),
        "waiting", number(g->waiting), "kv_blocks_free", number(g->kv_blocks_free), "kv_blocks",
        number(g->kv_blocks), "tokens", number(g->tokens), "proven_seconds_ago",
        g->proven_seconds_ago, "preempted", number(g->preempted), "kv_blocks_cached",
        number(g->kv_blocks_cached), "prefix_hit_rate", g->prefix_hit_rate, "ranks", ranks,
        "drained", g->drained, "restarting", g->restarting, "requests", number(g->requests),
        "times_ready", number(g->times_ready), "waiting_tokens", number(g->waiting_tokens),
        "wait_seconds", g->wait_seconds);
}

json_t *status_json(const reply *r, json_t *serve)
{
    json_t *groups = json_array();
    for (size_t i = 0; i < r->n_groups; i++) {
        json_t *o = group_json(r->groups[i]);
        put_losses_json(r->groups[i], o);
        json_object_set_new(o, "energy", energy_json(r->groups[i]->energy));
        json_object_set_new(o, "experts", experts_json(r->groups[i]->experts));
        json_array_append_new(groups, o);
    }
    json_t *manifest = r->manifest ? json_pack("{s:s, s:s}", "digest", r->manifest->digest,
                                               "signers", r->manifest->signers)
                                   : json_null();
    json_t *all = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:O?}", "version", r->version,
                            "model", r->model, "model_dir", r->model_dir, "manifest", manifest,
                            "uptime_seconds", number(r->uptime_seconds), "requests_running",
                            number(r->requests_running), "requests_done", number(r->requests_done),
                            "groups", groups, "serve", serve);
    CHECK(all, "no memory for the status");
    return all;
}
