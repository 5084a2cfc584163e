/* Cutting a model over ranks: see plan.h. Pure. */
#include "partition/plan.h"
#include "base/check.h"
#include "partition/weight_format.h"
#include "partition/weight_pack.h"

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

/* The first layer of the kind (MoE or dense) whose weight of this role is quantised; -1 if none. */
static int32_t quantized_layer(const struct model_config *c, enum weight_role role, bool moe)
{
    bool ffn = role >= WEIGHT_GATE;
    for (int32_t i = 0; i < c->layers; i++)
        if ((!ffn || (c->layer_is_moe[i] != 0) == moe) && weight_format_covers(&c->quant, role, i))
            return i;
    return -1;
}

static bool quantized_attention(const struct model_config *c, enum weight_role role)
{
    return quantized_layer(c, role, false) >= 0;
}

/* Says that a cut of a weight falls inside its blocks; block 0: there is only one. */
static void say_inside(const struct model_config *c, const char *cut, const char *dimension,
                       int32_t block, char why[LAYOUT_WHY_BYTES])
{
    const char *format = weight_format_name(c->quant.format);
    if (block > 0)
        snprintf(why, LAYOUT_WHY_BYTES, "%s, inside a block of %d %s (%s)", cut, block, dimension,
                 format);
    else
        snprintf(why, LAYOUT_WHY_BYTES, "%s, but its blocks span all %s (%s)", cut, dimension,
                 format);
}

/* Query heads over tp, and the KV heads that they read. */
static void attention_fault(const struct model_config *c, const struct layout *l,
                            char why[LAYOUT_WHY_BYTES])
{
    const struct quantization *q = &c->quant;
    int32_t heads = c->q_heads / l->tp, rows = heads * c->head_dim;
    int64_t all = (int64_t)c->q_heads * c->head_dim, all_kv = (int64_t)c->kv_heads * c->head_dim;
    char cut[LAYOUT_WHY_BYTES / 2];
    if (l->tp == 1)
        return;
    snprintf(cut, sizeof cut, "tp %d cuts q_proj after %d rows", l->tp, rows);
    if (quantized_attention(c, WEIGHT_Q) && !weight_format_row_border(q, rows, all))
        say_inside(c, cut, "rows", weight_format_block_rows(q), why);
    snprintf(cut, sizeof cut, "tp %d cuts o_proj after %d columns", l->tp, rows);
    if (!why[0] && quantized_attention(c, WEIGHT_O) && !weight_format_column_border(q, rows, all))
        say_inside(c, cut, "columns", weight_format_block_columns(q), why);
    if (!quantized_attention(c, WEIGHT_K) && !quantized_attention(c, WEIGHT_V))
        return;
    int32_t group = c->q_heads / c->kv_heads;
    for (int32_t i = 0; i < l->tp && !why[0]; i++) {
        const int32_t borders[] = {i * heads / group, ((i + 1) * heads - 1) / group + 1};
        for (int b = 0; b < 2; b++) {
            int64_t at = (int64_t)borders[b] * c->head_dim;
            snprintf(cut, sizeof cut, "tp %d cuts k_proj and v_proj after %lld rows", l->tp,
                     (long long)at);
            if (!weight_format_row_border(q, at, all_kv))
                say_inside(c, cut, "rows", weight_format_block_rows(q), why);
        }
    }
}

/* What of the FFNs of a kind of layers is quantised: rows of gate or up, columns of down. */
struct ffn_cut {
    const struct quantization *q;
    bool rows, cols;
    int32_t columns; /* of the intermediate dimension */
};

static bool ffn_border(const struct ffn_cut *f, int32_t at)
{
    return (!f->rows || weight_format_row_border(f->q, at, f->columns)) &&
           (!f->cols || weight_format_column_border(f->q, at, f->columns));
}

static int32_t ffn_block(const struct ffn_cut *f)
{
    return f->cols ? weight_format_block_columns(f->q) : weight_format_block_rows(f->q);
}

static struct ffn_cut ffn_cut_of(const struct model_config *c, bool moe)
{
    return (struct ffn_cut){
        .q = &c->quant,
        .rows = quantized_layer(c, WEIGHT_GATE, moe) >= 0 ||
                quantized_layer(c, WEIGHT_UP, moe) >= 0,
        .cols = quantized_layer(c, WEIGHT_DOWN, moe) >= 0,
        .columns = moe ? c->moe_intermediate : c->intermediate,
    };
}

/* Experts: equal shares on borders. (With a larger ep as many ranks always have that.) */
static void expert_fault(const struct model_config *c, const struct layout *l,
                         char why[LAYOUT_WHY_BYTES])
{
    struct ffn_cut f = ffn_cut_of(c, true);
    int32_t n = l->w / l->ep, share = f.columns / n;
    bool good = f.columns % n == 0 && ffn_border(&f, share);
    for (int32_t i = 0; i < n && good; i++)
        good = ffn_border(&f, block_columns(f.columns, n, i).end);
    char cut[LAYOUT_WHY_BYTES / 2];
    if (good || n == 1 || (!f.rows && !f.cols))
        return;
    snprintf(cut, sizeof cut, "%d columns of an expert over w / ep = %d ranks are %.6g each",
             f.columns, n, (double)f.columns / n);
    say_inside(c, cut, "columns", ffn_block(&f), why);
}

/* Dense layers have no ep: their shares may differ by a block. */
static void dense_fault(const struct model_config *c, const struct layout *l,
                        char why[LAYOUT_WHY_BYTES])
{
    struct ffn_cut f = ffn_cut_of(c, false);
    char cut[LAYOUT_WHY_BYTES / 2];
    for (int32_t i = 0; i < l->w && !why[0]; i++) {
        int32_t end = block_columns(f.columns, l->w, i).end;
        snprintf(cut, sizeof cut, "%d ranks cut a dense layer's FFN after %d columns", l->w, end);
        if (!ffn_border(&f, end))
            say_inside(c, cut, "columns", ffn_block(&f), why);
    }
}

static void quantization_fault(const struct model_config *c, const struct layout *l,
                               char why[LAYOUT_WHY_BYTES])
{
    attention_fault(c, l, why);
    if (!why[0] && has_moe_layers(c))
        expert_fault(c, l, why);
    if (!why[0] && has_dense_layers(c))
        dense_fault(c, l, why);
}

bool layout_legal(const struct model_config *c, const struct layout *l, char why[LAYOUT_WHY_BYTES])
{
    enum { SIZE = LAYOUT_WHY_BYTES };
    why[0] = '\0';
    if (l->pp < 1 || l->tp < 1 || l->ep < 1 || l->w < 1)
        snprintf(why, SIZE, "pp, tp, ep and w must be at least 1");
    else if ((int64_t)l->pp * l->w > MAX_WORLD)
        snprintf(why, SIZE, "pp x w = %lld ranks, at most %d", (long long)l->pp * (long long)l->w,
                 MAX_WORLD);
    else if (l->pp > c->layers)
        snprintf(why, SIZE, "pp %d exceeds the %d layers", l->pp, c->layers);
    else if (l->w % l->tp != 0 || l->w % l->ep != 0)
        snprintf(why, SIZE, "tp %d and ep %d must both divide the %d ranks of a stage", l->tp,
                 l->ep, l->w);
    else if (c->q_heads % l->tp != 0)
        snprintf(why, SIZE, "tp %d does not divide the %d query heads", l->tp, c->q_heads);
    else if (has_moe_layers(c) && c->experts % l->ep != 0)
        snprintf(why, SIZE, "ep %d does not divide the %d experts", l->ep, c->experts);
    else if (l->w > c->vocab)
        snprintf(why, SIZE, "w %d exceeds the vocabulary of %d", l->w, c->vocab);
    else if (c->quant.format != FORMAT_PLAIN)
        quantization_fault(c, l, why);
    return !why[0];
}

/* Up to `most` legal layouts of exactly `world` ranks, with the wish's stages where they can be. */
static int list_legal(const struct model_config *c, const struct layout *wish, int32_t world,
                      int most, struct layout *out)
{
    int found = 0;
    char why[LAYOUT_WHY_BYTES];
    for (int32_t pp = 1; pp <= world && found < most; pp++) {
        if (world % pp != 0 ||
            (wish->pp >= 1 && wish->pp <= c->layers && pp != wish->pp && world % wish->pp == 0))
            continue;
        int32_t w = world / pp;
        for (int32_t tp = w; tp >= 1 && found < most; tp--) {
            if (w % tp != 0 || c->q_heads % tp != 0) /* most, so not worth their words */
                continue;
            /* w = max(tp, ep): with a smaller tp, ep is w. */
            for (int32_t ep = w; ep >= (tp == w ? 1 : w) && found < most; ep--) {
                struct layout l = {.pp = pp, .tp = tp, .ep = ep, .w = w};
                if (layout_legal(c, &l, why))
                    out[found++] = l;
            }
        }
    }
    return found;
}

int layout_nearest(const struct model_config *config, const struct layout *wish, int most,
                   struct layout *out)
{
    int64_t world = (int64_t)wish->pp * wish->w;
    int found = 0;
    world = world < 1 ? 1 : world < MAX_WORLD ? world : MAX_WORLD;
    for (int64_t n = world; n >= 1 && found < most; n--)
        found += list_legal(config, wish, (int32_t)n, most - found, out + found);
    return found;
}

enum status layout_check(const struct model_config *config, struct layout *layout,
                         struct error *err)
{
    enum { NEAREST = 4 };
    char why[LAYOUT_WHY_BYTES];
    if (layout->w == 0)
        layout->w = layout->tp > layout->ep ? layout->tp : layout->ep;
    if (layout->ep == 0) {
        /* Whole experts over as many ranks as they divide into; their columns over the rest. */
        layout->ep = layout->w < 1 ? 1 : layout->w < MAX_WORLD ? layout->w : MAX_WORLD;
        while (layout->ep > 1 && !layout_legal(config, layout, why))
            layout->ep--;
    }
    if (layout_legal(config, layout, why))
        return OK;
    struct layout near[NEAREST];
    char list[400] = "";
    int found = layout_nearest(config, layout, NEAREST, near);
    for (int i = 0; i < found; i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%spp %d tp %d ep %d", n ? ", " : "", near[i].pp,
                 near[i].tp, near[i].ep);
    }
    return error_set(err, ERR_INVALID, "layout pp %d tp %d ep %d: %s; nearest that work: %s",
                     layout->pp, layout->tp, layout->ep, why, list);
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

/* The weights that a rank may hold a cut of: before the layers, the stage's layers, after the
 * layers. */
struct held {
    struct range parts[3]; /* indices of the inventory */
};

static struct held held_by(const struct inventory *inv, const struct rank_plan *r)
{
    return (struct held){{
        {0, inv->layer_first[0]},
        {inv->layer_first[r->layers.begin], inv->layer_first[r->layers.end]},
        {inv->layer_first[inv->layers], inv->count},
    }};
}

static enum status cut_all(const struct model_config *c, const struct plan *p, struct rank_plan *r,
                           const struct inventory *inv, struct error *err)
{
    struct held held = held_by(inv, r);
    r->slices = calloc((size_t)inv->count, sizeof *r->slices);
    if (!r->slices)
        return error_set(err, ERR_NO_MEMORY, "no memory for the plan of rank %d", r->rank);
    for (size_t k = 0; k < COUNT_OF(held.parts); k++)
        for (int32_t i = held.parts[k].begin; i < held.parts[k].end; i++) {
            struct slice s = cut(c, p, r, inv, i);
            if (s.rows == 0 || s.cols == 0)
                continue;
            r->slices[r->slice_count++] = s;
            r->weight_elements += (uint64_t)s.rows * (uint64_t)s.cols;
        }
    return OK;
}

/* Ranks in their places, without slices; NULL when there is no memory. */
static struct plan *places(const struct model_config *config, const struct layout *layout)
{
    struct plan *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->layout = *layout;
    p->world = layout->pp * layout->w;
    p->moe_tp_size = layout->w / layout->ep;
    p->ranks = calloc((size_t)p->world, sizeof *p->ranks);
    if (!p->ranks) {
        free(p);
        return NULL;
    }
    for (int32_t i = 0; i < p->world; i++)
        p->ranks[i] = place(config, p, i);
    return p;
}

static enum status no_memory(const struct layout *l, struct error *err)
{
    return error_set(err, ERR_NO_MEMORY, "no memory for the plan of %d ranks", l->pp * l->w);
}

enum status plan_sketch(const struct model_config *config, struct layout layout, struct plan **out,
                        struct error *err)
{
    TRY(layout_check(config, &layout, err));
    struct plan *p = places(config, &layout);
    if (!p)
        return no_memory(&layout, err);
    *out = p;
    return OK;
}

enum status plan_create(const struct model_config *config, const struct inventory *inv,
                        struct layout layout, struct plan **out, struct error *err)
{
    TRY(layout_check(config, &layout, err));
    struct plan *p = places(config, &layout);
    if (!p)
        return no_memory(&layout, err);
    enum status st = OK;
    for (int32_t i = 0; st == OK && i < p->world; i++)
        st = cut_all(config, p, &p->ranks[i], inv, err);
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

int32_t plan_max_logits(const struct engine_limits *l, int32_t speculate)
{
    int64_t wanted = (int64_t)l->max_seqs * (1 + speculate);
    return wanted < l->max_rows ? (int32_t)wanted : l->max_rows;
}

uint64_t plan_thread_scratch(const struct model_config *config, const struct rank_plan *rank)
{
    (void)rank;
    /* Queries of a KV head, what they have seen of it, and a tile's scores; or a strip of gate and
     * up for the FFN. */
    uint64_t group = (uint64_t)(config->q_heads / config->kv_heads);
    uint64_t n = max_u64(group + LANES - 1, ATTENTION_QUERIES) / LANES * LANES;
    uint64_t attention = n * (KV_BLOCK + 2 * (uint64_t)head_row(config->head_dim)) +
                         5 * (n + LANES); /* and five numbers for each */
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
        /* Slots twice (by row, by expert), an offset an expert; a dense layer's rows. */
        .route = rows * top_k * 2 * 12 + ((uint64_t)config->experts + 2) * 8 + 8 + rows * 8,
        .h = rows * max_u64(moe, dense) * f,
        /* A rank's own columns, and where there are others those of all. */
        .logits = last ? (uint64_t)limits->max_logits * vocab * f *
                             (plan->layout.w > 1 ? 1 + (uint64_t)plan->layout.w : 1)
                       : 0,
        .scratch = (uint64_t)limits->threads * plan_thread_scratch(config, rank),
    };
}

struct code_blocks plan_code_blocks(const struct model_config *config, const struct rank_plan *rank,
                                    const struct engine_limits *limits)
{
    uint64_t rows = (uint64_t)limits->max_rows;
    uint64_t top_k = config->top_k > 0 ? (uint64_t)config->top_k : 1;
    int32_t attn = range_size(rank->q_heads) * config->head_dim;
    int32_t moe = has_moe_layers(config) ? range_size(rank->moe_cols) : 0;
    int32_t dense = range_size(rank->dense_cols), ffn = moe > dense ? moe : dense;
    int32_t widest = config->hidden > attn ? config->hidden : attn;
    return (struct code_blocks){
        .norm = rows * (uint64_t)panel_blocks(config->hidden),
        .attn = rows * (uint64_t)panel_blocks(attn),
        .h = rows * max_u64(top_k * (uint64_t)panel_blocks(moe), (uint64_t)panel_blocks(dense)),
        .hidden = config->hidden,
        .widest = widest > ffn ? widest : ffn,
    };
}

uint64_t plan_kv_block_bytes(const struct model_config *config, const struct rank_plan *rank,
                             enum kv_dtype kv_dtype)
{
    return (uint64_t)range_size(rank->layers) * 2 * (uint64_t)range_size(rank->kv_heads) *
           kv_tile_bytes(kv_dtype, head_row(config->head_dim));
}

static const char *const kv_names[] = {[KV_BF16] = "bf16", [KV_F32] = "f32", [KV_INT8] = "int8"};

const char *kv_dtype_name(enum kv_dtype dtype)
{
    return kv_names[dtype];
}

bool kv_dtype_named(const char *name, enum kv_dtype *out)
{
    for (size_t i = 0; i < COUNT_OF(kv_names); i++)
        if (strcmp(name, kv_names[i]) == 0) {
            *out = (enum kv_dtype)i;
            return true;
        }
    return false;
}

/* The positions that a model was trained on, of which factors of YaRN are multiples. Qwen3 as first
 * released states 40,960: 32,768 and room for the answer (its model cards). */
static int32_t trained_positions(const struct model_config *c)
{
    enum { STATED = 40960, TRAINED = 32768 };
    if (c->yarn.factor != 0)
        return c->yarn.original;
    return c->max_position == STATED ? TRAINED : c->max_position;
}

enum status plan_check_context(const struct model_config *config, const char *what, int64_t context,
                               enum kv_dtype kv_dtype, struct error *err)
{
    if (context >= 1 && context <= config->max_position)
        return OK;
    char limit[128] = "max_position_embeddings";
    if (config->yarn.factor != 0)
        snprintf(limit, sizeof limit, "YaRN in config.json: %g x %d", config->yarn.factor,
                 config->yarn.original);
    error_set(err, ERR_INVALID, "%s: expected 1 to %d (%s), found %lld", what, config->max_position,
              limit, (long long)context);
    int64_t trained = trained_positions(config),
            factor = context / trained + (context % trained > 0);
    if (context < 1 || factor > YARN_MAX_FACTOR)
        return ERR_INVALID;
    const struct rank_plan whole = {.layers = {0, config->layers},
                                    .kv_heads = {0, config->kv_heads}};
    double blocks = (double)((context - 1) / KV_BLOCK + 1);
    double bytes = blocks * (double)plan_kv_block_bytes(config, &whole, kv_dtype);
    return error_advise(
        err, ERR_INVALID,
        "YaRN reaches it, at some cost to short prompts, where config.json (not a "
        "GGUF's) has \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": %lld.0, "
        "\"original_max_position_embeddings\": %lld}; a sequence then takes %.1f MB "
        "of KV cache in %s",
        (long long)factor, (long long)trained, bytes * 1e-6, kv_dtype_name(kv_dtype));
}

/* What the rank's cut takes in memory. */
static uint64_t cut_bytes(const struct model_config *c, const struct plan *p,
                          const struct rank_plan *r, const struct inventory *inv, int32_t index)
{
    const struct weight *w = &inv->weights[index];
    struct slice s = cut(c, p, r, inv, index);
    if (s.rows == 0 || s.cols == 0)
        return 0;
    const struct quant_rect rect = {s.row, s.rows, s.col, s.cols};
    if (weight_form(inv, w) != FORM_VALUES)
        return weight_shape(inv, w, s.rows, s.cols).bytes;
    if (inv->mode == WEIGHTS_PACKED)
        return weight_stored_bytes(inv, w, &rect);
    size_t each = w->quantized ? sizeof(float) : dtype_size(w->dtype); /* GGML's are F32 if bound */
    return (uint64_t)s.rows * (uint64_t)s.cols * each;
}

/* Unbound experts of a layer are alike: one stands for all that the rank holds. */
static uint64_t weight_bytes(const struct model_config *c, const struct plan *p,
                             const struct rank_plan *r, const struct inventory *inv)
{
    struct held held = held_by(inv, r);
    uint64_t bytes = 0;
    for (size_t k = 0; k < COUNT_OF(held.parts); k++)
        for (int32_t i = held.parts[k].begin; i < held.parts[k].end; i++) {
            const struct weight *w = &inv->weights[i];
            if (w->expert < 0 || w->file >= 0) {
                bytes += cut_bytes(c, p, r, inv, i);
                continue;
            }
            int32_t first = inventory_find(inv, WEIGHT_GATE, w->layer, r->experts.begin);
            for (int32_t m = 0; m <= WEIGHT_DOWN - WEIGHT_GATE; m++)
                bytes += (uint64_t)range_size(r->experts) * cut_bytes(c, p, r, inv, first + m);
            i = inv->layer_first[w->layer + 1] - 1; /* on to the next layer */
        }
    return bytes;
}

struct memory_plan plan_memory(const struct model_config *config, const struct inventory *inv,
                               const struct plan *plan, const struct rank_plan *rank,
                               const struct engine_limits *limits)
{
    struct workspace_bytes w = plan_workspace(config, plan, rank, limits);
    uint64_t codes = 0, panels = 0; /* with weights in panels */
    if (inv->mode == WEIGHTS_INT8 || inv->mode == WEIGHTS_INT4) {
        struct code_blocks b = plan_code_blocks(config, rank, limits);
        codes = (b.norm + b.attn + b.h) * CODE_BLOCK_BYTES;
        panels = (uint64_t)limits->threads * panel_scratch_bytes(b.widest);
    }
    return (struct memory_plan){
        .weights = weight_bytes(config, plan, rank, inv),
        .kv_cache = (uint64_t)limits->kv_blocks *
                    plan_kv_block_bytes(config, rank, limits->kv_dtype),
        .activations = w.x + w.xn + w.sum + w.q + w.kv + w.attn + w.router + w.route + w.h + codes,
        .logits = w.logits,
        .scratch = w.scratch + w.rope + panels,
    };
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
        bytes[w->file] += weight_stored_bytes(
            inv, w, &(struct quant_rect){s->row, s->rows, s->col, s->cols});
    }
}

int plan_collectives(const struct model_config *config, const struct plan *plan,
                     const struct rank_plan *rank, struct plan_collective out[PLAN_MAX_COLLECTIVES])
{
    const struct layout *l = &plan->layout;
    int n = 0;
    uint64_t hidden = (uint64_t)config->hidden;
    if (rank->stage == 0 && l->w > 1)
        out[n++] = (struct plan_collective){"all-reduce embedding", PLAN_STAGE, l->w, 1,
                                            hidden * 8};
    if (l->tp > 1)
        out[n++] = (struct plan_collective){"all-reduce attention", PLAN_ATTN, l->tp,
                                            range_size(rank->layers), hidden * 8};
    if (l->w > 1)
        out[n++] = (struct plan_collective){"all-reduce FFN", PLAN_STAGE, l->w,
                                            range_size(rank->layers), hidden * 8};
    if (l->pp > 1 && rank->stage > 0)
        out[n++] = (struct plan_collective){"receive residual", PLAN_PREVIOUS, 2, 1, hidden * 4};
    if (l->pp > 1 && rank->stage < l->pp - 1)
        out[n++] = (struct plan_collective){"send residual", PLAN_NEXT, 2, 1, hidden * 4};
    if (rank->stage == l->pp - 1 && l->w > 1)
        out[n++] = (struct plan_collective){"all-gather logits (rows that sample)", PLAN_STAGE,
                                            l->w, 1, (uint64_t)rank->vocab_padded * 4};
    return n;
}
