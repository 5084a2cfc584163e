/* Cutting a model over ranks: see plan.h. Pure. */
#include "partition/plan.h"
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t blocks_of(int32_t columns)
{
    return (columns + FFN_BLOCK - 1) / FFN_BLOCK;
}

static bool has_dense_layers(const struct model_config *c)
{
    for (int32_t i = 0; i < c->layers; i++)
        if (!c->layer_is_moe[i])
            return true;
    return false;
}

static bool has_moe_layers(const struct model_config *c)
{
    for (int32_t i = 0; i < c->layers; i++)
        if (c->layer_is_moe[i])
            return true;
    return false;
}

/* Why a layout cannot work, or NULL. `why` is the caller's buffer. */
static const char *layout_fault(const struct model_config *c, const struct layout *l, char *why,
                                size_t size)
{
    why[0] = '\0';
    if (l->pp < 1 || l->tp < 1 || l->ep < 1 || l->w < 1)
        snprintf(why, size, "pp, tp, ep and w must be at least 1");
    else if ((int64_t)l->pp * l->w > MAX_WORLD)
        snprintf(why, size, "pp x w = %lld ranks, at most %d", (long long)l->pp * (long long)l->w,
                 MAX_WORLD);
    else if (l->pp > c->layers)
        snprintf(why, size, "pp %d exceeds the %d layers", l->pp, c->layers);
    else if (l->w % l->tp != 0 || l->w % l->ep != 0)
        snprintf(why, size, "tp %d and ep %d must both divide the %d ranks of a stage", l->tp,
                 l->ep, l->w);
    else if (c->q_heads % l->tp != 0)
        snprintf(why, size, "tp %d does not divide the %d query heads", l->tp, c->q_heads);
    else if (has_moe_layers(c) && c->experts % l->ep != 0)
        snprintf(why, size, "ep %d does not divide the %d experts", l->ep, c->experts);
    else if (l->w > c->vocab)
        snprintf(why, size, "w %d exceeds the vocabulary of %d", l->w, c->vocab);
    return why[0] ? why : NULL;
}

/* Appends up to `most` legal layouts of exactly `world` ranks, those nearest to `wish` in tp and ep
 * first being not worth a sort: few exist. Returns how many. */
static int list_legal(const struct model_config *c, const struct layout *wish, int32_t world,
                      int most, char *out, size_t size)
{
    int found = 0;
    char why[256];
    for (int32_t pp = 1; pp <= world && found < most; pp++) {
        if (world % pp != 0 ||
            (wish->pp >= 1 && wish->pp <= c->layers && pp != wish->pp && world % wish->pp == 0))
            continue;
        int32_t w = world / pp;
        for (int32_t tp = w; tp >= 1 && found < most; tp--) {
            for (int32_t ep = w; ep >= 1 && found < most; ep--) {
                struct layout l = {.pp = pp, .tp = tp, .ep = ep, .w = w};
                if ((tp != w && ep != w) || layout_fault(c, &l, why, sizeof why))
                    continue;
                size_t n = strlen(out);
                snprintf(out + n, size - n, "%spp %d tp %d ep %d", n ? ", " : "", pp, tp, ep);
                found++;
            }
        }
    }
    return found;
}

enum status layout_check(const struct model_config *config, struct layout *layout,
                         struct error *err)
{
    if (layout->w == 0)
        layout->w = layout->tp > layout->ep ? layout->tp : layout->ep;
    char why[256];
    if (layout->ep == 0) {
        /* Whole experts over as many ranks as they divide into; their columns over the rest. */
        layout->ep = layout->w < 1 ? 1 : layout->w < MAX_WORLD ? layout->w : MAX_WORLD;
        while (layout->ep > 1 && layout_fault(config, layout, why, sizeof why))
            layout->ep--;
    }
    if (!layout_fault(config, layout, why, sizeof why))
        return OK;
    char near[400] = "";
    int64_t world = (int64_t)layout->pp * layout->w;
    int found = 0;
    /* The same number of ranks first, then the next smaller numbers. */
    world = world < 1 ? 1 : world < MAX_WORLD ? world : MAX_WORLD;
    for (int64_t n = world; n >= 1 && found < 4; n--)
        found += list_legal(config, layout, (int32_t)n, 4 - found, near, sizeof near);
    return error_set(err, ERR_INVALID, "layout pp %d tp %d ep %d: %s; nearest that work: %s",
                     layout->pp, layout->tp, layout->ep, why, near);
}

/* Part `i` of `n` of [0, total), contiguous, sizes differing by one at most, larger ones first. */
static struct range part(int32_t total, int32_t n, int32_t i)
{
    int32_t each = total / n, more = total % n;
    int32_t begin = i * each + (i < more ? i : more);
    return (struct range){begin, begin + each + (i < more ? 1 : 0)};
}

/* Columns of part `i` of `n` of an intermediate dimension, cut on block borders. */
static struct range block_columns(int32_t columns, int32_t n, int32_t i)
{
    struct range b = part(blocks_of(columns), n, i);
    int32_t begin = b.begin * FFN_BLOCK, end = b.end * FFN_BLOCK;
    return (struct range){begin < columns ? begin : columns, end < columns ? end : columns};
}

static struct rank_plan place(const struct model_config *c, const struct plan *p, int32_t rank)
{
    const struct layout *l = &p->layout;
    int32_t i = rank % l->w;
    struct rank_plan r = {
        .rank = rank,
        .stage = rank / l->w,
        .attn_tp = i % l->tp,
        .attn_dp = i / l->tp,
        .moe_ep = i / p->moe_tp_size,
        .moe_tp = i % p->moe_tp_size,
    };
    r.layers = part(c->layers, l->pp, r.stage);
    r.q_heads = part(c->q_heads, l->tp, r.attn_tp);
    int32_t group = c->q_heads / c->kv_heads;
    r.kv_heads = (struct range){r.q_heads.begin / group, (r.q_heads.end - 1) / group + 1};
    r.vocab_padded = (c->vocab + l->w - 1) / l->w;
    int32_t v0 = i * r.vocab_padded, v1 = v0 + r.vocab_padded;
    r.vocab = (struct range){v0 < c->vocab ? v0 : c->vocab, v1 < c->vocab ? v1 : c->vocab};
    if (has_moe_layers(c)) {
        r.experts = part(c->experts, l->ep, r.moe_ep);
        r.moe_cols = block_columns(c->moe_intermediate, p->moe_tp_size, r.moe_tp);
    }
    if (has_dense_layers(c))
        r.dense_cols = block_columns(c->intermediate, l->w, i);
    return r;
}

/* The rank's cut of a weight; rows or cols 0 when it holds none of it. */
static struct slice cut(const struct model_config *c, const struct plan *p,
                        const struct rank_plan *r, const struct inventory *inv, int32_t index)
{
    const struct weight *w = &inv->weights[index];
    struct slice s = {.weight = index, .rows = w->rows, .cols = w->cols};
    struct range ffn = w->expert >= 0 ? r->moe_cols : r->dense_cols;
    struct range rows = {0, (int32_t)w->rows}, cols = {0, (int32_t)w->cols};
    switch (weight_role_split(w->role)) {
    case SPLIT_NONE:
        break;
    case SPLIT_VOCAB:
        rows = r->vocab;
        break;
    case SPLIT_Q_ROWS:
        rows = (struct range){r->q_heads.begin * c->head_dim, r->q_heads.end * c->head_dim};
        break;
    case SPLIT_Q_COLS:
        cols = (struct range){r->q_heads.begin * c->head_dim, r->q_heads.end * c->head_dim};
        break;
    case SPLIT_KV_ROWS:
        rows = (struct range){r->kv_heads.begin * c->head_dim, r->kv_heads.end * c->head_dim};
        break;
    case SPLIT_FFN_ROWS:
        rows = ffn;
        break;
    case SPLIT_FFN_COLS:
        cols = ffn;
        break;
    }
    bool here = w->expert < 0 || (w->expert >= r->experts.begin && w->expert < r->experts.end);
    if (w->layer >= 0)
        here = here && w->layer >= r->layers.begin && w->layer < r->layers.end;
    else if (w->role == WEIGHT_EMBED)
        /* A tied embedding is the lm_head too, so the last stage holds it as well. */
        here = r->stage == 0 || (c->tied_embeddings && r->stage == p->layout.pp - 1);
    else
        here = r->stage == p->layout.pp - 1;
    s.row = rows.begin;
    s.rows = here ? range_size(rows) : 0;
    s.col = cols.begin;
    s.cols = range_size(cols);
    return s;
}

static enum status cut_all(const struct model_config *c, const struct plan *p, struct rank_plan *r,
                           const struct inventory *inv, struct error *err)
{
    r->slices = calloc((size_t)inv->count, sizeof *r->slices);
    if (!r->slices)
        return error_set(err, ERR_NO_MEMORY, "no memory for the plan of rank %d", r->rank);
    for (int32_t i = 0; i < inv->count; i++) {
        struct slice s = cut(c, p, r, inv, i);
        if (s.rows == 0 || s.cols == 0)
            continue;
        r->slices[r->slice_count++] = s;
        r->weight_elements += (uint64_t)s.rows * (uint64_t)s.cols;
    }
    return OK;
}

enum status plan_create(const struct model_config *config, const struct inventory *inv,
                        struct layout layout, struct plan **out, struct error *err)
{
    TRY(layout_check(config, &layout, err));
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(err, ERR_NO_MEMORY, "no memory for the plan");
    p->layout = layout;
    p->world = layout.pp * layout.w;
    p->moe_tp_size = layout.w / layout.ep;
    p->ranks = calloc((size_t)p->world, sizeof *p->ranks);
    enum status st = p->ranks ? OK
                              : error_set(err, ERR_NO_MEMORY, "no memory for %d ranks", p->world);
    for (int32_t i = 0; st == OK && i < p->world; i++) {
        p->ranks[i] = place(config, p, i);
        st = cut_all(config, p, &p->ranks[i], inv, err);
    }
    if (st != OK) {
        plan_destroy(p);
        return st;
    }
    *out = p;
    return OK;
}

void plan_destroy(struct plan *plan)
{
    if (!plan)
        return;
    for (int32_t i = 0; plan->ranks && i < plan->world; i++)
        free(plan->ranks[i].slices);
    free(plan->ranks);
    free(plan);
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t plan_thread_scratch(const struct model_config *config, const struct rank_plan *rank)
{
    (void)rank;
    /* One tile of scores and one partial output for each query head of a KV group, the running
     * output beside it; and a strip of gate and up for the FFN. */
    uint64_t group = (uint64_t)(config->q_heads / config->kv_heads);
    uint64_t attention = group * (KV_BLOCK + 2 * (uint64_t)head_row(config->head_dim) + 2 * LANES);
    return max_u64(attention * sizeof(float), 64 * 1024);
}

struct workspace_bytes plan_workspace(const struct model_config *config, const struct plan *plan,
                                      const struct rank_plan *rank,
                                      const struct engine_limits *limits)
{
    uint64_t rows = (uint64_t)limits->max_rows, f = sizeof(float);
    uint64_t hidden = (uint64_t)config->hidden, hd = (uint64_t)head_row(config->head_dim);
    uint64_t ql = (uint64_t)range_size(rank->q_heads), kvl = (uint64_t)range_size(rank->kv_heads);
    uint64_t top_k = config->top_k > 0 ? (uint64_t)config->top_k : 1;
    uint64_t moe = has_moe_layers(config) ? (uint64_t)range_size(rank->moe_cols) * top_k : 0;
    uint64_t dense = (uint64_t)range_size(rank->dense_cols);
    bool last = rank->stage == plan->layout.pp - 1;
    uint64_t vocab = (uint64_t)rank->vocab_padded;
    return (struct workspace_bytes){
        .x = rows * hidden * f,
        .xn = rows * hidden * f,
        .sum = rows * hidden * sizeof(double),
        .q = rows * ql * hd * f,
        .kv = rows * 2 * kvl * hd * f,
        .attn = rows * ql * (uint64_t)config->head_dim * f,
        .rope = rows * (uint64_t)config->head_dim * f,
        .router = rows * (uint64_t)config->experts * f,
        /* Slots twice (by row, by expert), an offset an expert. */
        .route = rows * top_k * 2 * 12 + ((uint64_t)config->experts + 2) * 8,
        .h = rows * max_u64(moe, dense) * f,
        .logits = last ? (uint64_t)limits->max_logits * vocab * f * (1 + (uint64_t)plan->layout.w)
                       : 0,
        .scratch = (uint64_t)limits->threads * plan_thread_scratch(config, rank),
    };
}

uint64_t plan_kv_block_bytes(const struct model_config *config, const struct rank_plan *rank,
                             enum kv_dtype kv_dtype)
{
    uint64_t each = kv_dtype == KV_F32 ? 4 : 2;
    return (uint64_t)range_size(rank->layers) * 2 * (uint64_t)range_size(rank->kv_heads) *
           KV_BLOCK * (uint64_t)head_row(config->head_dim) * each;
}

struct memory_plan plan_memory(const struct model_config *config, const struct inventory *inv,
                               const struct plan *plan, const struct rank_plan *rank,
                               const struct engine_limits *limits)
{
    struct memory_plan m = {0};
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        m.weights += (uint64_t)s->rows * (uint64_t)s->cols *
                     dtype_size(inv->weights[s->weight].dtype);
    }
    struct workspace_bytes w = plan_workspace(config, plan, rank, limits);
    m.kv_cache = (uint64_t)limits->kv_blocks * plan_kv_block_bytes(config, rank, limits->kv_dtype);
    m.activations = w.x + w.xn + w.sum + w.q + w.kv + w.attn + w.router + w.route + w.h;
    m.logits = w.logits;
    m.scratch = w.scratch + w.rope;
    return m;
}

uint64_t memory_plan_total(const struct memory_plan *m)
{
    uint64_t total = 0;
#define X(field, words) total += m->field;
    MEMORY_PURPOSES(X)
#undef X
    return total;
}

void plan_file_bytes(const struct inventory *inv, const struct rank_plan *rank, int file_count,
                     uint64_t *bytes)
{
    memset(bytes, 0, (size_t)file_count * sizeof *bytes);
    for (int32_t i = 0; i < rank->slice_count; i++) {
        const struct slice *s = &rank->slices[i];
        const struct weight *w = &inv->weights[s->weight];
        CHECK(w->file >= 0 && w->file < file_count, "weight %d lies in file %d of %d", s->weight,
              w->file, file_count);
        bytes[w->file] += (uint64_t)s->rows * (uint64_t)s->cols * dtype_size(w->dtype);
    }
}

int plan_collectives(const struct model_config *config, const struct plan *plan,
                     const struct rank_plan *rank, struct plan_collective out[PLAN_MAX_COLLECTIVES])
{
    const struct layout *l = &plan->layout;
    int n = 0;
    uint64_t hidden = (uint64_t)config->hidden;
    if (rank->stage == 0 && l->w > 1)
        out[n++] = (struct plan_collective){"all-reduce embedding", l->w, 1, hidden * 8};
    if (l->tp > 1)
        out[n++] = (struct plan_collective){"all-reduce attention", l->tp, range_size(rank->layers),
                                            hidden * 8};
    if (l->w > 1)
        out[n++] = (struct plan_collective){"all-reduce FFN", l->w, range_size(rank->layers),
                                            hidden * 8};
    if (l->pp > 1 && rank->stage > 0)
        out[n++] = (struct plan_collective){"receive residual", 2, 1, hidden * 4};
    if (l->pp > 1 && rank->stage < l->pp - 1)
        out[n++] = (struct plan_collective){"send residual", 2, 1, hidden * 4};
    if (rank->stage == l->pp - 1 && l->w > 1)
        out[n++] = (struct plan_collective){"all-gather logits (rows that sample)", l->w, 1,
                                            (uint64_t)rank->vocab_padded * 4};
    return n;
}
