/* `witan plan --json`: see plan_view.h. Bytes are numbers, ranges [begin, end). No state. */
#include "cli/json_put.h"
#include "cli/plan_view.h"
#include "partition/weight_format.h"

static void put_range(json_t *object, const char *key, struct range r)
{
    json_put(object, key, json_pack("[i, i]", r.begin, r.end));
}

static json_t *layout_object(const struct layout *l)
{
    return json_pack("{s:i, s:i, s:i, s:i}", "pp", l->pp, "tp", l->tp, "ep", l->ep, "w", l->w);
}

static json_t *memory_object(const struct memory_plan *m)
{
    json_t *o = json_object();
#define X(field, words) json_put_int(o, #field, (int64_t)m->field);
    MEMORY_PURPOSES(X)
#undef X
    json_put_int(o, "total", (int64_t)memory_plan_total(m));
    return o;
}

/* A count that may not be known. */
static void put_sequences(json_t *object, int64_t n)
{
    json_put(object, "sequences_fit", n == INT64_MAX ? json_null() : json_integer(n));
}

static json_t *model_object(const struct plan_view *v)
{
    const struct model_config *c = v->config;
    json_t *o = json_object();
    json_put(o, "path", json_string(v->path));
    json_put(o, "weight_format", json_string(weight_format_name(c->quant.format)));
    json_put(o, "dtype", json_string(dtype_name(c->dtype)));
    json_put(o, "weights_from", json_string(v->from_headers ? "headers" : "config"));
    json_put_int(o, "parameters", (int64_t)plan_parameters(v));
    json_put_int(o, "layers", c->layers);
    json_put_int(o, "hidden", c->hidden);
    json_put_int(o, "q_heads", c->q_heads);
    json_put_int(o, "kv_heads", c->kv_heads);
    json_put_int(o, "head_dim", c->head_dim);
    json_put_int(o, "experts", c->experts);
    json_put_int(o, "top_k", c->top_k);
    json_put_int(o, "moe_intermediate", c->moe_intermediate);
    json_put_int(o, "vocab", c->vocab);
    return o;
}

static json_t *asked_object(const struct plan_view *v)
{
    json_t *o = json_object();
    json_put_int(o, "nodes", v->cluster.nodes);
    json_put_int(o, "devices_a_node", v->cluster.devices);
    json_put_int(o, "device_bytes", (int64_t)v->device_bytes);
    json_put_int(o, "usable_bytes", (int64_t)v->cluster.memory_bytes);
    json_put_int(o, "sequences", v->wish.sequences);
    json_put_int(o, "context", v->wish.context);
    json_put_int(o, "step_tokens", v->wish.step_tokens);
    json_put_int(o, "threads", v->wish.threads);
    json_put(o, "weights",
             json_string(weight_mode_name(v->inv->mode == WEIGHTS_PACKED ? WEIGHTS_PUBLISHED
                                                                         : v->inv->mode)));
    json_put(o, "kv", json_string(kv_dtype_name(v->wish.kv_dtype)));
    return o;
}

static json_t *head(const struct plan_view *v)
{
    json_t *o = json_object();
    json_put(o, "model", model_object(v));
    json_put(o, "asked", asked_object(v));
    return o;
}

static json_t *layout_summary(const struct planner_layout *p)
{
    json_t *o = layout_object(&p->layout);
    json_put_int(o, "groups", p->replicas);
    json_put(o, "fits", json_boolean(p->fits));
    json_put_int(o, "sequences_asked", p->share);
    put_sequences(o, p->rank.sequences);
    json_put_int(o, "fullest_rank", p->fullest);
    json_put(o, "memory", memory_object(&p->rank.memory));
    json_put_int(o, "collectives", p->calls);
    json_put_int(o, "collectives_between_nodes", p->calls_cross);
    json_put_int(o, "bytes_a_row", (int64_t)p->bytes_a_row);
    json_put(o, "tp_between_nodes", json_boolean(p->tp_crosses));
    return o;
}

static json_t *refusal_object(const struct planner_refusal *r)
{
    json_t *o = layout_object(&r->layout), *nearest = json_array();
    for (int i = 0; i < r->nearest_count; i++)
        json_add(nearest, layout_object(&r->nearest[i]));
    json_put(o, "why", json_string(r->why));
    json_put(o, "nearest", nearest);
    return o;
}

json_t *plan_json_survey(const struct plan_view *v, const struct survey *s)
{
    json_t *o = head(v), *layouts = json_array(), *refused = json_array();
    for (int32_t i = 0; i < s->layout_count; i++)
        json_add(layouts, layout_summary(&s->layouts[i]));
    for (int32_t i = 0; i < s->refusal_count; i++)
        json_add(refused, refusal_object(&s->refusals[i]));
    json_put(o, "layouts", layouts);
    json_put(o, "refused", refused);
    return o;
}

static json_t *collectives_array(const struct plan_view *v, const struct plan_shown *shown,
                                 const struct rank_plan *r)
{
    struct plan_collective c[PLAN_MAX_COLLECTIVES];
    int n = plan_collectives(v->config, shown->plan, r, c);
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        bool cross = planner_crosses(shown->plan, r, c[i].comm, &v->cluster,
                                     shown->layout->replicas);
        json_t *o = json_object();
        json_put(o, "name", json_string(c[i].name));
        json_put_int(o, "ranks", c[i].ranks);
        json_put_int(o, "count", c[i].count);
        json_put_int(o, "bytes_a_row", (int64_t)c[i].bytes_a_row);
        json_put(o, "between_nodes", json_boolean(cross));
        json_add(list, o);
    }
    return list;
}

static json_t *rank_object(const struct plan_view *v, const struct plan_shown *shown, int32_t rank)
{
    const struct rank_plan *r = &shown->plan->ranks[rank];
    struct engine_limits limits = plan_view_limits(v, shown->layout);
    struct planner_rank needs = planner_rank_of(v->config, v->inv, shown->plan, r, &limits,
                                                &v->cluster);
    json_t *o = json_object();
    json_put_int(o, "rank", rank);
    json_put_int(o, "node", plan_view_node(v, rank));
    json_put_int(o, "stage", r->stage);
    put_range(o, "layers", r->layers);
    put_range(o, "q_heads", r->q_heads);
    put_range(o, "kv_heads", r->kv_heads);
    put_range(o, "experts", r->experts);
    put_range(o, "expert_columns", r->moe_cols);
    put_range(o, "dense_columns", r->dense_cols);
    put_range(o, "vocabulary", r->vocab);
    json_put(o, "memory", memory_object(&needs.memory));
    put_sequences(o, needs.sequences);
    json_put(o, "collectives", collectives_array(v, shown, r));
    return o;
}

json_t *plan_json_layout(const struct plan_view *v, const struct plan_shown *shown)
{
    json_t *o = head(v), *ranks = json_array();
    for (int32_t i = 0; i < shown->plan->world; i++)
        json_add(ranks, rank_object(v, shown, i));
    json_put(o, "layout", layout_summary(shown->layout));
    json_put(o, "ranks", ranks);
    return o;
}
