/* The operator's status as JSON: see status_json.h. No state. */
#include "coordinator/status_json.h"
#include "base/check.h"
#include "base/clock.h"
#include "coordinator/inference_admin.h"
#include "coordinator/members_private.h"
#include "coordinator/text/utf8.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef Witan__Inference__V1__GetStatusResponse reply;
typedef Witan__Inference__V1__Group group_message;
typedef Witan__Inference__V1__Rank rank_message;

/* --- values ------------------------------------------------------------------------------------
 */

static void put(json_t *o, const char *name, json_t *value)
{
    CHECK(json_object_set_new(o, name, value) == 0, "no memory for a status");
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *number_if(bool known, uint64_t n)
{
    return known ? number(n) : json_null();
}

static json_t *real_if(bool known, double value)
{
    return known && isfinite(value) ? json_real(value) : json_null();
}

/* A rank's words may be no UTF-8. */
static json_t *text(const char *s)
{
    struct buf clean;
    size_t len = strlen(s);
    if (utf8_valid_prefix(s, len) == len)
        return json_stringn(s, len);
    buf_init(&clean, SIZE_MAX);
    CHECK(utf8_append_lossy(&clean, s, len, NULL) == OK, "no memory for a status");
    json_t *out = json_stringn(clean.data, clean.len);
    buf_fini(&clean);
    return out;
}

static json_t *text_or_null(const char *s)
{
    return *s ? text(s) : json_null();
}

/* --- a rank ------------------------------------------------------------------------------------
 */

static json_t *device_json(const Witan__Inference__V1__Device *d)
{
    if (!d)
        return json_null();
    json_t *o = json_object();
    put(o, "name", text(d->name));
    put(o, "compute_capability", text(d->compute_capability));
    put(o, "memory_bytes", number(d->memory_bytes));
    put(o, "cuda_driver", text(d->cuda_driver));
    put(o, "uuid", text(d->uuid));
    put(o, "pci", text(d->pci));
    return o;
}

/* What is measured alone; null without a GPU. */
static json_t *gpu_json(const rank_message *r)
{
    if (!r->device)
        return json_null();
    json_t *o = json_object(), *reasons = json_array(), *xids = json_array();
    for (size_t i = 0; i < r->n_figures; i++)
        put(o, r->figures[i]->name, real_if(true, r->figures[i]->value));
    for (size_t i = 0; i < r->n_held_down_by; i++)
        json_array_append_new(reasons, text(r->held_down_by[i]));
    for (size_t i = 0; i < r->n_xids; i++)
        json_array_append_new(xids, number(r->xids[i]));
    put(o, "held_down_by", reasons);
    put(o, "xids", xids);
    return o;
}

static json_t *memory_json(const rank_message *r)
{
    json_t *o = json_array();
    for (size_t i = 0; i < r->n_memory; i++) {
        json_t *p = json_object();
        put(p, "purpose", text(r->memory[i]->name));
        put(p, "bytes", number(r->memory[i]->bytes));
        json_array_append_new(o, p);
    }
    return o;
}

static json_t *rank_json(const rank_message *r, const struct member *m)
{
    const Witan__Cluster__V1__Engine *e = m->engine;
    json_t *o = json_object();
    put(o, "rank", number(r->rank));
    put(o, "host", text(r->host));
    put(o, "pid", number(r->pid));
    put(o, "region", text_or_null(r->region));
    put(o, "phase", text(r->phase));
    put(o, "step", number(r->step));
    put(o, "heartbeat_seconds_ago", real_if(true, r->heartbeat_seconds_ago));
    put(o, "processor", text_or_null(r->processor));
    put(o, "kernels", text_or_null(r->kernels));
    put(o, "holds", text(r->holds));
    put(o, "manifest_digest", text_or_null(r->manifest_digest));
    put(o, "memory", memory_json(r));
    put(o, "resident_bytes", number_if(r->resident_bytes > 0, r->resident_bytes));
    put(o, "forward_seconds", real_if(e, e ? e->forward_seconds : 0));
    put(o, "collective_seconds", real_if(e, e ? e->collective_seconds : 0));
    put(o, "slowness", real_if(r->slowness > 0, r->slowness));
    put(o, "device", device_json(r->device));
    put(o, "gpu", gpu_json(r));
    return o;
}

/* --- a group -----------------------------------------------------------------------------------
 */

/* Rank = stage x w + i; i = replica x tp + tp's index, and expert shard x moe_tp + its index. */
static json_t *layout_json(const struct plan *p)
{
    const struct layout *l = &p->layout;
    json_t *o = json_object();
    put(o, "pp", json_integer(l->pp));
    put(o, "tp", json_integer(l->tp));
    put(o, "ep", json_integer(l->ep));
    put(o, "w", json_integer(l->w));
    put(o, "moe_tp", json_integer(p->moe_tp_size));
    put(o, "ranks", json_integer(p->world));
    return o;
}

static json_t *steps_json(const Witan__Cluster__V1__Histogram *h)
{
    if (!h)
        return json_null();
    uint64_t count = 0;
    for (size_t i = 0; i < h->n_counts; i++)
        count += h->counts[i];
    json_t *o = json_object();
    put(o, "count", number(count));
    put(o, "seconds", real_if(true, h->sum));
    return o;
}

/* Of rank 0's last heartbeat: null before the first. */
static void put_engine(const group_message *g, const Witan__Cluster__V1__Engine *e, json_t *o)
{
    json_t *steps = json_object();
    put(steps, "prompt", steps_json(e ? e->prompt_step_seconds : NULL));
    put(steps, "decode", steps_json(e ? e->decode_step_seconds : NULL));
    put(steps, "overhead", steps_json(e ? e->overhead_seconds : NULL));
    put(o, "steps", steps);
    put(o, "queue", steps_json(e ? e->queue_seconds : NULL));
    put(o, "prompt_rows", number_if(e, e ? e->prompt_rows : 0));
    put(o, "decode_rows", number_if(e, e ? e->decode_rows : 0));
    put(o, "kv_blocks_cached", number_if(e, g->kv_blocks_cached));
    put(o, "preempted", number_if(e, g->preempted));
    put(o, "prefix_asked_tokens", number_if(e, e ? e->prefix_asked : 0));
    put(o, "prefix_found_tokens", number_if(e, e ? e->prefix_found : 0));
    put(o, "prefix_hit_rate", real_if(e && e->prefix_asked > 0, g->prefix_hit_rate));
}

static void put_load(const group_message *g, bool heard, json_t *o)
{
    put(o, "requests", number(g->requests));
    put(o, "running", number_if(heard, g->running));
    put(o, "waiting", number_if(heard, g->waiting));
    put(o, "waiting_tokens", number(g->waiting_tokens));
    put(o, "wait_seconds", real_if(heard, g->wait_seconds));
    put(o, "kv_blocks", number_if(heard, g->kv_blocks));
    put(o, "kv_blocks_free", number_if(heard, g->kv_blocks_free));
    put(o, "tokens", number_if(heard, g->tokens));
}

/* How evenly experts are used; null for a model without experts. */
static json_t *experts_summary_json(const struct group *from)
{
    struct experts_summary s;
    experts_summary(&from->experts, from->deployment.plan, clock_now_ns(), &s);
    if (s.layers == 0)
        return json_null();
    bool any = s.worst > 0;
    json_t *o = json_object(), *worst = any ? json_object() : json_null();
    if (any) {
        put(worst, "layer", json_integer(s.worst_layer));
        put(worst, "expert", json_integer(s.worst_expert));
        put(worst, "ratio", json_real(s.worst));
    }
    put(o, "count", json_integer(from->experts.config->experts));
    put(o, "top_k", json_integer(from->experts.config->top_k));
    put(o, "layers", json_integer(s.layers));
    put(o, "layers_known", json_integer(s.known));
    put(o, "recent_tokens", real_if(s.known > 0, s.tokens));
    put(o, "enough", json_boolean(s.enough));
    put(o, "imbalance", real_if(any, s.mean));
    put(o, "share_imbalance", real_if(any && s.shares > 0, s.shares));
    put(o, "worst", worst);
    return o;
}

/* In joules; null where it is not counted. */
static json_t *energy_json(const Witan__Inference__V1__Energy *e)
{
    if (!e)
        return json_null();
    json_t *o = json_object();
    put(o, "known", json_boolean(e->known));
    put(o, "all", json_real(e->all));
    put(o, "requests", json_real(e->requests));
    put(o, "idle", json_real(e->idle));
    put(o, "other", json_real(e->other));
    put(o, "pending", json_real(e->pending));
    return o;
}

static json_t *group_json(const group_message *g, const struct group *from)
{
    json_t *o = json_object(), *ranks = json_array();
    size_t told = 0;
    for (int32_t i = 0; i < group_world(from); i++)
        if (from->ranks[i])
            json_array_append_new(ranks, rank_json(g->ranks[told++], from->ranks[i]));
    put(o, "name", text(g->name));
    put(o, "state", text(g->state));
    put(o, "message", text(g->message));
    put(o, "external", json_boolean(from->config->external));
    put(o, "drained", json_boolean(g->drained));
    put(o, "restarting", json_boolean(g->restarting));
    put(o, "through", text_or_null(g->through));
    put(o, "numerics_class", text_or_null(g->numerics_class));
    put(o, "layout", layout_json(from->deployment.plan));
    put(o, "times_ready", number(g->times_ready));
    put(o, "losses", number(g->losses));
    put(o, "failed_starts", number(g->failed_starts));
    put(o, "last_loss", text_or_null(g->last_loss));
    put(o, "last_loss_seconds_ago",
        real_if(g->last_loss_seconds_ago >= 0, g->last_loss_seconds_ago));
    put(o, "proven_seconds_ago", real_if(g->proven_seconds_ago >= 0, g->proven_seconds_ago));
    put_load(g, g->kv_blocks > 0, o);
    put_engine(g, from->ranks[0] ? from->ranks[0]->engine : NULL, o);
    put(o, "experts", experts_summary_json(from));
    put(o, "energy", energy_json(g->energy));
    put(o, "ranks", ranks);
    return o;
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static json_t *histogram_json(const struct histogram *h)
{
    json_t *o = json_object();
    put(o, "count", number(histogram_total(h)));
    put(o, "seconds", real_if(true, h->sum));
    return o;
}

static json_t *requests_json(const struct core *core)
{
    const struct metrics *m = &core->metrics;
    json_t *o = json_object(), *ended = json_object(), *refused = json_object();
#define X(name, words) put(ended, words, number(m->ended[METRICS_##name]));
    METRICS_ENDS(X)
#undef X
#define X(name, words) put(refused, words, number(m->refused[METRICS_LIMIT_##name]));
    METRICS_LIMITS(X)
#undef X
    put(o, "running", json_integer(core->running));
    put(o, "held", json_integer(core->held));
    put(o, "done", number(core->done));
    put(o, "ended", ended);
    put(o, "refused", refused);
    put(o, "prompt_tokens", number(m->prompt_tokens));
    put(o, "generated_tokens", number(m->generated_tokens));
    put(o, "first_token", histogram_json(&m->first_token));
    put(o, "between_tokens", histogram_json(&m->between_tokens));
    return o;
}

static json_t *events_json(const struct events *e)
{
    json_t *all = json_array();
    for (uint32_t i = 0; i < events_kept(e); i++) {
        const struct event_told *t = events_at(e, i);
        json_t *o = json_object();
        put(o, "number", number(t->number));
        put(o, "unix_time", json_integer(t->unix_s));
        put(o, "group", text(t->group));
        put(o, "event", text(t->what));
        put(o, "message", text_or_null(t->words));
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *manifest_json(const Witan__Inference__V1__Manifest *m)
{
    if (!m)
        return json_null();
    json_t *o = json_object();
    put(o, "digest", text(m->digest));
    put(o, "signers", text(m->signers));
    return o;
}

static json_t *all_json(const struct core *core, const reply *r)
{
    json_t *o = json_object(), *groups = json_array();
    for (size_t i = 0; i < r->n_groups; i++)
        json_array_append_new(groups, group_json(r->groups[i], &core->members->groups[i]));
    put(o, "version", text(r->version));
    put(o, "model", text(r->model));
    put(o, "model_dir", text(r->model_dir));
    put(o, "context", json_integer(core->served.context));
    put(o, "manifest", manifest_json(r->manifest));
    put(o, "uptime_seconds", number(r->uptime_seconds));
    put(o, "requests", requests_json(core));
    put(o, "groups", groups);
    put(o, "events", events_json(&core->members->events));
    return o;
}

enum status status_json(const struct core *core, struct buf *out, struct error *err)
{
    reply *r = admin_status(core);
    json_t *all = all_json(core, r);
    witan__inference__v1__get_status_response__free_unpacked(r, NULL);
    char *words = json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(all);
    CHECK(words, "no memory for a status");
    enum status st = buf_puts(out, words, err);
    free(words);
    return st;
}

enum status status_experts(const struct core *core, const char *group, struct buf *out,
                           struct error *err)
{
    const struct group *g = members_find(core->members, group);
    if (!g)
        return error_set(err, ERR_NOT_FOUND, "no group of this name; GET /admin/status has all");
    if (g->experts.config->experts == 0)
        return error_set(err, ERR_NOT_FOUND, "this model has no experts");
    return experts_json(&g->experts, g->deployment.plan, g->config->name, clock_now_ns(), out, err);
}
