/* Searching layouts for a cluster: see planner.h. No state. */
#include "partition/planner.h"
#include "base/check.h"

#include <stdlib.h>
#include <string.h>

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

struct engine_limits planner_limits(const struct planner_wish *wish, int32_t replicas)
{
    int32_t share = (wish->sequences + replicas - 1) / replicas;
    return (struct engine_limits){
        .max_rows = max_i32(wish->step_tokens, share),
        .max_seqs = share,
        .max_logits = share,
        .context = wish->context,
        .threads = wish->threads,
        .kv_dtype = wish->kv_dtype,
    };
}

struct planner_rank planner_rank_of(const struct model_config *config, const struct inventory *inv,
                                    const struct plan *plan, const struct rank_plan *rank,
                                    const struct engine_limits *limits,
                                    const struct cluster_shape *cluster)
{
    struct planner_rank r = {.memory = plan_memory(config, inv, plan, rank, limits),
                             .sequences = INT64_MAX};
    uint64_t blocks = ((uint64_t)limits->context + KV_BLOCK - 1) / KV_BLOCK;
    uint64_t one = blocks * plan_kv_block_bytes(config, rank, limits->kv_dtype);
    uint64_t fixed = memory_plan_total(&r.memory), most = cluster->memory_bytes;
    if (most > 0)
        r.sequences = most > fixed ? (int64_t)((most - fixed) / one) : 0;
    r.memory.kv_cache = one * (uint64_t)limits->max_seqs;
    return r;
}

bool planner_crosses(const struct plan *plan, const struct rank_plan *rank, enum plan_comm comm,
                     const struct cluster_shape *cluster, int32_t replicas)
{
    const struct layout *l = &plan->layout;
    int32_t stage = rank->stage * l->w, first = stage, last = stage + l->w - 1;
    if (comm == PLAN_ATTN) {
        first = stage + rank->attn_dp * l->tp;
        last = first + l->tp - 1;
    } else if (comm != PLAN_STAGE) {
        first = comm == PLAN_NEXT ? rank->rank : rank->rank - l->w;
        last = first + l->w;
    }
    for (int32_t g = 0; g < replicas; g++) {
        int32_t at = g * plan->world;
        if ((at + first) / cluster->devices != (at + last) / cluster->devices)
            return true;
    }
    return false;
}

/* Does any rank of the stage have this collective between nodes? */
static bool stage_crosses(const struct plan *plan, int32_t stage, enum plan_comm comm,
                          const struct cluster_shape *cluster, int32_t replicas)
{
    for (int32_t i = 0; i < plan->layout.w; i++)
        if (planner_crosses(plan, &plan->ranks[stage * plan->layout.w + i], comm, cluster,
                            replicas))
            return true;
    return false;
}

/* What one step says, stage after stage; a send and its receive are one. */
static void count_collectives(const struct model_config *config, const struct plan *plan,
                              const struct cluster_shape *cluster, struct planner_layout *out)
{
    for (int32_t s = 0; s < plan->layout.pp; s++) {
        struct plan_collective c[PLAN_MAX_COLLECTIVES];
        int n = plan_collectives(config, plan, &plan->ranks[s * plan->layout.w], c);
        for (int i = 0; i < n; i++) {
            if (c[i].comm == PLAN_PREVIOUS)
                continue;
            bool cross = stage_crosses(plan, s, c[i].comm, cluster, out->replicas);
            out->calls += c[i].count;
            out->calls_cross += cross ? c[i].count : 0;
            out->bytes_a_row += (uint64_t)c[i].count * c[i].bytes_a_row;
            out->tp_crosses = out->tp_crosses || (cross && c[i].comm == PLAN_ATTN);
        }
    }
}

static void find_fullest(const struct model_config *config, const struct inventory *inv,
                         const struct plan *plan, const struct cluster_shape *cluster,
                         const struct engine_limits *limits, struct planner_layout *out)
{
    uint64_t most = 0;
    int64_t sequences = INT64_MAX;
    for (int32_t i = 0; i < plan->world; i++) {
        struct planner_rank r = planner_rank_of(config, inv, plan, &plan->ranks[i], limits,
                                                cluster);
        uint64_t total = memory_plan_total(&r.memory);
        sequences = r.sequences < sequences ? r.sequences : sequences;
        if (total > most) {
            most = total;
            out->fullest = i;
            out->rank = r;
        }
    }
    out->rank.sequences = sequences;
    out->fits = sequences >= out->share;
}

enum status planner_layout_of(const struct model_config *config, const struct inventory *inv,
                              const struct cluster_shape *cluster, const struct planner_wish *wish,
                              struct layout layout, struct planner_layout *out,
                              struct plan **plan_out, struct error *err)
{
    TRY(layout_check(config, &layout, err));
    int32_t ranks = layout.pp * layout.w, devices = cluster->nodes * cluster->devices;
    if (ranks > devices)
        return error_set(err, ERR_INVALID,
                         "layout pp %d tp %d ep %d: expected at most %d ranks, one a device, found "
                         "%d",
                         layout.pp, layout.tp, layout.ep, devices, ranks);
    struct plan *plan = NULL;
    TRY(plan_sketch(config, layout, &plan, err));
    *out = (struct planner_layout){.layout = layout, .replicas = devices / ranks};
    struct engine_limits limits = planner_limits(wish, out->replicas);
    out->share = limits.max_seqs;
    find_fullest(config, inv, plan, cluster, &limits, out);
    count_collectives(config, plan, cluster, out);
    if (plan_out)
        *plan_out = plan;
    else
        plan_destroy(plan);
    return OK;
}

/* --- the search --------------------------------------------------------------------------------
 */

struct search {
    const struct model_config *config;
    const struct inventory *inv;
    const struct cluster_shape *cluster;
    const struct planner_wish *wish;
    struct survey *survey;
};

/* Room for one more at the end of `list`; capacities are powers of two. */
static void *grow(void *list, int32_t count, size_t each)
{
    if ((count & (count - 1)) != 0)
        return list;
    size_t room = count ? 2 * (size_t)count : 1;
    void *larger = realloc(list, room * each);
    CHECK(larger, "no memory for %zu layouts", room);
    return larger;
}

static void refuse(struct search *s, const struct layout *l, const char *why)
{
    struct survey *v = s->survey;
    v->refusals = grow(v->refusals, v->refusal_count, sizeof *v->refusals);
    struct planner_refusal *r = &v->refusals[v->refusal_count++];
    *r = (struct planner_refusal){.layout = *l};
    memcpy(r->why, why, sizeof r->why);
    r->nearest_count = layout_nearest(s->config, l, PLANNER_MAX_NEAREST, r->nearest);
}

static enum status consider(struct search *s, const struct layout *l, struct error *err)
{
    struct survey *v = s->survey;
    char why[LAYOUT_WHY_BYTES];
    if (!layout_legal(s->config, l, why)) {
        refuse(s, l, why);
        return OK;
    }
    v->layouts = grow(v->layouts, v->layout_count, sizeof *v->layouts);
    TRY(planner_layout_of(s->config, s->inv, s->cluster, s->wish, *l, &v->layouts[v->layout_count],
                          NULL, err));
    v->layout_count++;
    return OK;
}

static bool wanted(int32_t wish, int32_t found)
{
    return wish == 0 || wish == found;
}

/* Layouts of `ranks` ranks in `pp` stages. */
static enum status consider_stages(struct search *s, int32_t ranks, int32_t pp, struct error *err)
{
    const struct layout *wish = &s->wish->layout;
    int32_t w = ranks / pp;
    if (ranks % pp != 0 || !wanted(wish->pp, pp))
        return OK;
    for (int32_t tp = w; tp >= 1; tp--)
        for (int32_t ep = w; ep >= 1; ep--) {
            struct layout l = {.pp = pp, .tp = tp, .ep = ep, .w = w};
            bool here = w % tp == 0 && w % ep == 0 && (tp == w || ep == w);
            if (s->config->experts == 0 && wish->ep == 0) /* ep says nothing there */
                here = here && ep == w;
            if (here && wanted(wish->tp, tp) && wanted(wish->ep, ep))
                TRY(consider(s, &l, err));
        }
    return OK;
}

/* Replicas of so many ranks use every device, and none lies across a border that it could avoid. */
static bool tidy(const struct cluster_shape *c, int32_t ranks)
{
    return c->nodes * c->devices % ranks == 0 &&
           (c->devices % ranks == 0 || ranks % c->devices == 0);
}

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

/* How many contexts run at once; where memory is not known, fewer bytes stand for more. */
static int64_t capacity(const struct planner_layout *p)
{
    return p->rank.sequences == INT64_MAX ? -(int64_t)memory_plan_total(&p->rank.memory)
                                          : p->rank.sequences * p->replicas;
}

static int by_merit(const void *a, const void *b)
{
    const struct planner_layout *x = a, *y = b;
    const int order[] = {
        compare_i64(y->fits, x->fits),           compare_i64(x->calls_cross, y->calls_cross),
        compare_i64(capacity(y), capacity(x)),   compare_i64(x->calls, y->calls),
        compare_i64(x->layout.pp, y->layout.pp), compare_i64(y->layout.tp, x->layout.tp),
        compare_i64(y->layout.ep, x->layout.ep),
    };
    for (size_t i = 0; i < COUNT_OF(order); i++)
        if (order[i] != 0)
            return order[i];
    return 0;
}

enum status planner_survey(const struct model_config *config, const struct inventory *inv,
                           const struct cluster_shape *cluster, const struct planner_wish *wish,
                           struct survey **out, struct error *err)
{
    int32_t devices = cluster->nodes * cluster->devices;
    CHECK(cluster->nodes >= 1 && cluster->devices >= 1 && devices <= MAX_WORLD, "%d devices",
          devices);
    struct search s = {config, inv, cluster, wish, check_calloc(1, sizeof *s.survey)};
    enum status st = OK;
    for (int32_t ranks = 1; ranks <= devices; ranks++)
        for (int32_t pp = 1; st == OK && pp <= ranks; pp++)
            if (wish->all || tidy(cluster, ranks))
                st = consider_stages(&s, ranks, pp, err);
    if (st != OK) {
        survey_destroy(s.survey);
        return st;
    }
    if (s.survey->layout_count > 1)
        qsort(s.survey->layouts, (size_t)s.survey->layout_count, sizeof *s.survey->layouts,
              by_merit);
    *out = s.survey;
    return OK;
}

void survey_destroy(struct survey *s)
{
    if (!s)
        return;
    free(s->layouts);
    free(s->refusals);
    free(s);
}
