/*
 * The plan's properties, over thousands of random shapes with every layout that is legal for them
 * and over the released models' numbers: what must be cut is covered exactly once, what must be
 * whole is whole, refusals name what does not divide, and bytes add up.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "partition/plan.h"
#include "tests/unit/random.h"

enum { MAX_W = 64 };

static struct model_config random_config(uint64_t *rng)
{
    struct model_config c = {
        .hidden = random_int(rng, 1, 300),
        .layers = random_int(rng, 1, 5),
        .kv_heads = random_int(rng, 1, 6),
        .head_dim = 2 * random_int(rng, 1, 20),
        .vocab = random_int(rng, 1, 400),
        .experts = random_int(rng, 0, 3) ? random_int(rng, 1, 12) : 0,
        .moe_intermediate = random_int(rng, 1, 900),
        .intermediate = random_int(rng, 1, 900),
        .tied_embeddings = random_int(rng, 0, 1),
        .attention_bias = random_int(rng, 0, 1),
        .qk_norm = random_int(rng, 0, 1),
    };
    c.q_heads = c.kv_heads * random_int(rng, 1, 6);
    c.top_k = c.experts ? random_int(rng, 1, c.experts) : 0;
    for (int32_t i = 0; i < c.layers; i++)
        c.layer_is_moe[i] = c.experts > 0 && random_int(rng, 0, 3);
    return c;
}

static struct model_config released(int32_t hidden, int32_t layers, int32_t q_heads, int32_t kv,
                                    int32_t experts, int32_t moe_intermediate)
{
    struct model_config c = {.hidden = hidden,
                             .layers = layers,
                             .q_heads = q_heads,
                             .kv_heads = kv,
                             .head_dim = 128,
                             .vocab = 151936,
                             .experts = experts,
                             .top_k = 8,
                             .moe_intermediate = moe_intermediate,
                             .intermediate = 3 * hidden,
                             .max_position = 40960,
                             .qk_norm = true};
    memset(c.layer_is_moe, experts > 0, (size_t)layers);
    return c;
}

static bool any_moe(const struct model_config *c)
{
    return memchr(c->layer_is_moe, 1, (size_t)c->layers) != NULL;
}

static struct inventory *inventory_of(const struct model_config *c)
{
    struct inventory *inv = NULL;
    struct error err;
    if (inventory_create(c, &inv, &err) != OK)
        fail_msg("%s", err.msg);
    return inv;
}

static struct plan *plan_of(const struct model_config *c, const struct inventory *inv,
                            struct layout l)
{
    struct plan *p = NULL;
    struct error err;
    if (plan_create(c, inv, l, &p, &err) != OK)
        fail_msg("%s", err.msg);
    return p;
}

/* Do the ranges tile [0, n) with no overlap and no hole? Empty ones count for nothing. */
static void assert_tiles(const struct range *given, int count, int32_t n, const char *what)
{
    struct range r[MAX_W];
    int kept = 0;
    assert_true(count <= MAX_W);
    for (int i = 0; i < count; i++) {
        if (given[i].begin >= given[i].end)
            continue;
        int j = kept++;
        for (; j > 0 && r[j - 1].begin > given[i].begin; j--)
            r[j] = r[j - 1];
        r[j] = given[i];
    }
    int32_t at = 0;
    for (int i = 0; i < kept; i++) {
        if (r[i].begin != at)
            fail_msg("%s: expected a range from %d, found [%d, %d)", what, at, r[i].begin,
                     r[i].end);
        at = r[i].end;
    }
    if (at != n)
        fail_msg("%s: ranges end at %d, expected %d", what, at, n);
}

/* What each rank of one stage holds of one weight; empty ranges where it holds nothing. */
struct held {
    struct range rows[MAX_W], cols[MAX_W];
};

static bool whole(struct range r, int64_t n)
{
    return r.begin == 0 && r.end == n;
}

/* The split dimension, and whether the other one is whole wherever a rank holds anything. */
static const struct range *split_dimension(const struct held *h, const struct weight *w, int ranks,
                                           int32_t *n)
{
    enum weight_split split = weight_role_split(w->role);
    bool by_cols = split == SPLIT_Q_COLS || split == SPLIT_FFN_COLS;
    for (int i = 0; i < ranks; i++) {
        struct range other = by_cols ? h->rows[i] : h->cols[i];
        if (range_size(h->rows[i]) > 0)
            assert_true(whole(other, by_cols ? w->rows : w->cols));
    }
    *n = (int32_t)(by_cols ? w->cols : w->rows);
    return by_cols ? h->cols : h->rows;
}

/* KV heads of a rank: all that its query heads read, no other. */
static void check_kv(const struct model_config *c, const struct rank_plan *r, struct range rows)
{
    int32_t group = c->q_heads / c->kv_heads, low = c->kv_heads, high = -1;
    for (int32_t q = r->q_heads.begin; q < r->q_heads.end; q++) {
        low = q / group < low ? q / group : low;
        high = q / group > high ? q / group : high;
    }
    assert_int_equal(r->kv_heads.begin, low);
    assert_int_equal(r->kv_heads.end, high + 1);
    assert_int_equal(rows.begin, low * c->head_dim);
    assert_int_equal(rows.end, (high + 1) * c->head_dim);
}

static void check_held(const struct model_config *c, const struct plan *p,
                       const struct rank_plan *ranks, const struct weight *w, const struct held *h)
{
    int32_t n, tp = p->layout.tp;
    const struct range *cut = split_dimension(h, w, p->layout.w, &n);
    switch (weight_role_split(w->role)) {
    case SPLIT_NONE:
        for (int i = 0; i < p->layout.w; i++)
            assert_true(whole(h->rows[i], w->rows) && whole(h->cols[i], w->cols));
        break;
    case SPLIT_KV_ROWS:
        for (int i = 0; i < p->layout.w; i++)
            check_kv(c, &ranks[i], cut[i]);
        break;
    case SPLIT_Q_ROWS:
    case SPLIT_Q_COLS: /* once in each replica of attention */
        for (int replica = 0; replica < p->layout.w / tp; replica++)
            assert_tiles(cut + replica * tp, tp, n, weight_role_words(w->role));
        break;
    case SPLIT_VOCAB:
        assert_tiles(cut, p->layout.w, n, weight_role_words(w->role));
        break;
    case SPLIT_FFN_ROWS:
    case SPLIT_FFN_COLS:
        assert_tiles(cut, p->layout.w, n, weight_role_words(w->role));
        for (int i = 0; i < p->layout.w; i++)
            assert_true(cut[i].begin % FFN_BLOCK == 0 || cut[i].begin == n);
        break;
    }
}

/* Does the stage hold the weight? The rule of the design, written apart from the plan's. */
static bool stage_holds(const struct model_config *c, const struct plan *p,
                        const struct rank_plan *first, const struct weight *w)
{
    bool last = first->stage == p->layout.pp - 1;
    if (w->layer >= 0)
        return w->layer >= first->layers.begin && w->layer < first->layers.end;
    if (w->role == WEIGHT_EMBED)
        return first->stage == 0 || (last && c->tied_embeddings);
    return last;
}

/* Every weight of one stage, from the slices of its ranks. */
static void check_stage(const struct model_config *c, const struct inventory *inv,
                        const struct plan *p, int stage)
{
    const struct rank_plan *ranks = p->ranks + stage * p->layout.w;
    int32_t at[MAX_W] = {0};
    assert_true(p->layout.w <= MAX_W);
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        struct held h = {0};
        bool any = false;
        for (int r = 0; r < p->layout.w; r++) {
            if (at[r] == ranks[r].slice_count || ranks[r].slices[at[r]].weight != i)
                continue;
            const struct slice *s = &ranks[r].slices[at[r]++];
            assert_true(s->row >= 0 && s->rows > 0 && s->row + s->rows <= w->rows);
            assert_true(s->col >= 0 && s->cols > 0 && s->col + s->cols <= w->cols);
            h.rows[r] = (struct range){(int32_t)s->row, (int32_t)(s->row + s->rows)};
            h.cols[r] = (struct range){(int32_t)s->col, (int32_t)(s->col + s->cols)};
            any = true;
        }
        assert_int_equal(any, stage_holds(c, p, ranks, w));
        if (any)
            check_held(c, p, ranks, w, &h);
    }
    for (int r = 0; r < p->layout.w; r++)
        assert_int_equal(at[r], ranks[r].slice_count);
}

static void check_rank(const struct model_config *c, const struct inventory *inv,
                       const struct plan *p, int rank)
{
    const struct rank_plan *r = &p->ranks[rank];
    const struct layout *l = &p->layout;
    int i = rank % l->w;
    assert_int_equal(r->rank, rank);
    assert_int_equal(r->stage, rank / l->w);
    assert_int_equal(r->attn_dp * l->tp + r->attn_tp, i);
    assert_int_equal(r->moe_ep * p->moe_tp_size + r->moe_tp, i);
    assert_true(range_size(r->q_heads) == c->q_heads / l->tp);
    assert_true((int64_t)r->vocab_padded * l->w >= c->vocab);
    assert_true(range_size(r->vocab) <= r->vocab_padded);
    assert_int_equal(r->vocab_padded, p->ranks[0].vocab_padded);
    assert_true(r->vocab.begin == i * r->vocab_padded || r->vocab.begin == c->vocab);
    if (any_moe(c))
        assert_int_equal(range_size(r->experts), c->experts / l->ep);
    uint64_t elements = 0;
    for (int32_t s = 0; s < r->slice_count; s++)
        elements += (uint64_t)r->slices[s].rows * (uint64_t)r->slices[s].cols;
    assert_int_equal(r->weight_elements, elements);
    assert_true(r->slice_count <= inv->count);
}

static void check_plan(const struct model_config *c, const struct inventory *inv,
                       struct layout layout)
{
    struct plan *p = plan_of(c, inv, layout);
    struct range layers[MAX_LAYERS];
    assert_int_equal(p->world, p->layout.pp * p->layout.w);
    assert_int_equal(p->moe_tp_size * p->layout.ep, p->layout.w);
    for (int i = 0; i < p->world; i++)
        check_rank(c, inv, p, i);
    assert_true(p->layout.pp <= MAX_W);
    for (int s = 0; s < p->layout.pp; s++) {
        layers[s] = p->ranks[s * p->layout.w].layers;
        assert_true(range_size(layers[s]) > 0);
        check_stage(c, inv, p, s);
    }
    assert_tiles(layers, p->layout.pp, c->layers, "layers");
    plan_destroy(p);
}

/* What layout_check must answer, from the header's words. */
static bool legal(const struct model_config *c, const struct layout *l)
{
    return l->pp >= 1 && l->pp <= c->layers && l->w % l->tp == 0 && l->w % l->ep == 0 &&
           c->q_heads % l->tp == 0 && (!any_moe(c) || c->experts % l->ep == 0) && l->w <= c->vocab;
}

static void covers_random_shapes(void **state)
{
    (void)state;
    uint64_t rng = 1, plans = 0;
    for (int trial = 0; trial < 2000; trial++) {
        struct model_config c = random_config(&rng);
        struct inventory *inv = inventory_of(&c);
        int32_t most = random_int(&rng, 1, 8);
        for (int32_t w = 1; w <= most; w++)
            for (int32_t tp = 1; tp <= w; tp++)
                for (int32_t ep = 1; ep <= w; ep++) {
                    struct layout l = {.pp = random_int(&rng, 1, 6), .tp = tp, .ep = ep, .w = w};
                    struct layout checked = l;
                    struct error err;
                    bool works = legal(&c, &l);
                    /* Refusing searches for layouts that work, so not every refusal is asked for.
                     */
                    if (works || random_int(&rng, 0, 15) == 0)
                        assert_int_equal(layout_check(&c, &checked, &err) == OK, works);
                    if (!works)
                        continue;
                    check_plan(&c, inv, l);
                    plans++;
                }
        inventory_destroy(inv);
    }
    print_message("%llu plans\n", (unsigned long long)plans);
    assert_true(plans > 3000);
}

static void check_released(const struct model_config *c, const struct layout *layouts, int count)
{
    struct inventory *inv = inventory_of(c);
    for (int i = 0; i < count; i++)
        check_plan(c, inv, layouts[i]);
    inventory_destroy(inv);
}

static void covers_30b(void **state)
{
    (void)state;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    static const struct layout layouts[] = {
        {1, 1, 0, 0},  {1, 2, 0, 0}, {1, 4, 0, 0},  {1, 8, 0, 0}, {1, 16, 0, 0},
        {1, 4, 1, 0},  {1, 8, 2, 0}, {1, 4, 2, 8},  {3, 2, 4, 0}, {7, 1, 2, 0},
        {48, 1, 1, 0}, {2, 1, 8, 0}, {1, 32, 0, 0}, {1, 1, 1, 5}};
    check_released(&c, layouts, COUNT_OF(layouts));
}

static void covers_235b(void **state)
{
    (void)state;
    struct model_config c = released(4096, 94, 64, 4, 128, 1536);
    static const struct layout layouts[] = {{1, 8, 0, 0}, {1, 16, 0, 0}, {2, 8, 0, 0},
                                            {4, 4, 0, 0}, {1, 8, 4, 0},  {3, 2, 8, 0}};
    check_released(&c, layouts, COUNT_OF(layouts));
}

static void covers_480b(void **state)
{
    (void)state;
    struct model_config c = released(6144, 62, 96, 8, 160, 2560);
    static const struct layout layouts[] = {{1, 8, 0, 0},  {1, 3, 0, 15}, {2, 4, 5, 20},
                                            {1, 12, 4, 0}, {1, 6, 1, 0},  {1, 2, 10, 0}};
    check_released(&c, layouts, COUNT_OF(layouts));
}

/* Every layout that a refusal lists must be one that layout_check takes. */
static int check_listed(const struct model_config *c, const char *msg)
{
    const char *at = strstr(msg, "nearest that work: ");
    assert_non_null(at);
    int found = 0;
    at += strlen("nearest that work: ");
    for (struct layout l = {0}; sscanf(at, "pp %d tp %d ep %d", &l.pp, &l.tp, &l.ep) == 3;
         l = (struct layout){0}) {
        struct error err;
        if (layout_check(c, &l, &err) != OK)
            fail_msg("listed, but refused: %s", err.msg);
        found++;
        at = strchr(at, ',');
        if (!at)
            break;
        at += 2;
    }
    return found;
}

static void refuses(const struct model_config *c, struct layout l, const char *words)
{
    struct error err;
    if (layout_check(c, &l, &err) != ERR_INVALID)
        fail_msg("accepted, expected \"%s\"", words);
    if (!strstr(err.msg, words))
        fail_msg("expected \"%s\" in: %s", words, err.msg);
    if (check_listed(c, err.msg) == 0)
        fail_msg("lists no layout that works: %s", err.msg);
}

static void refusals_name_what_does_not_divide(void **state)
{
    (void)state;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    refuses(&c, (struct layout){1, 3, 0, 0}, "tp 3 does not divide the 32 query heads");
    refuses(&c, (struct layout){1, 1, 3, 0}, "ep 3 does not divide the 128 experts");
    refuses(&c, (struct layout){49, 1, 1, 0}, "pp 49 exceeds the 48 layers");
    refuses(&c, (struct layout){1, 4, 3, 0}, "tp 4 and ep 3 must both divide the 4 ranks");
    refuses(&c, (struct layout){0, 1, 1, 0}, "at least 1");
    refuses(&c, (struct layout){1, 0, 1, 0}, "at least 1");
    refuses(&c, (struct layout){1, -1, 0, 0}, "at least 1");
    refuses(&c, (struct layout){1, 1, -1, 0}, "at least 1");
    refuses(&c, (struct layout){1, 1, 1, -5}, "at least 1");
    refuses(&c, (struct layout){2, 1, 1, 513}, "= 1026 ranks, at most 1024");
    c.vocab = 3;
    refuses(&c, (struct layout){1, 4, 1, 0}, "w 4 exceeds the vocabulary of 3");
}

static void refusals_of_random_layouts_list_legal_ones(void **state)
{
    (void)state;
    uint64_t rng = 2;
    int refused = 0;
    for (int trial = 0; trial < 1500; trial++) {
        struct model_config c = random_config(&rng);
        struct layout l = {random_int(&rng, -1, 7), random_int(&rng, -1, 9),
                           random_int(&rng, -1, 9), random_int(&rng, 0, 12)};
        struct error err;
        if (layout_check(&c, &l, &err) == OK)
            continue;
        refused++;
        assert_true(check_listed(&c, err.msg) > 0);
    }
    assert_true(refused > 500);
}

static void ep_zero_takes_the_largest(void **state)
{
    (void)state;
    uint64_t rng = 3;
    for (int trial = 0; trial < 2000; trial++) {
        struct model_config c = random_config(&rng);
        struct layout l = {1, random_int(&rng, 1, 8), 0, 0}, filled = l;
        l.w = l.tp * random_int(&rng, 1, 3);
        filled.w = l.w;
        struct error err;
        if (layout_check(&c, &filled, &err) != OK)
            continue;
        for (l.ep = l.w; l.ep > 1 && !legal(&c, &l);)
            l.ep--;
        assert_int_equal(filled.ep, l.ep);
        assert_int_equal(filled.w, l.w);
    }
}

/* How often the elements of a weight lie on ranks, from the header's words. */
static uint64_t copies_in_stage(const struct model_config *c, const struct plan *p,
                                const struct weight *w)
{
    switch (weight_role_split(w->role)) {
    case SPLIT_NONE:
        return (uint64_t)w->rows * (uint64_t)w->cols * (uint64_t)p->layout.w;
    case SPLIT_Q_ROWS:
    case SPLIT_Q_COLS:
        return (uint64_t)w->rows * (uint64_t)w->cols * (uint64_t)(p->layout.w / p->layout.tp);
    case SPLIT_KV_ROWS: {
        uint64_t heads = 0;
        for (int32_t i = 0; i < p->layout.w; i++)
            heads += (uint64_t)range_size(p->ranks[i].kv_heads);
        return heads * (uint64_t)c->head_dim * (uint64_t)w->cols;
    }
    default:
        return (uint64_t)w->rows * (uint64_t)w->cols;
    }
}

static void bind_by_hand(struct inventory *inv, int files)
{
    for (int32_t i = 0; i < inv->count; i++) {
        inv->weights[i].file = i % files;
        inv->weights[i].dtype = (enum dtype)(i % 3);
    }
}

static void check_memory(const struct model_config *c, const struct inventory *inv,
                         const struct plan *p, const struct rank_plan *r, uint64_t weight_bytes)
{
    struct engine_limits limits = {.max_rows = 37,
                                   .max_seqs = 5,
                                   .max_logits = 7,
                                   .context = 200,
                                   .kv_blocks = 20,
                                   .threads = 3,
                                   .kv_dtype = KV_F32};
    struct memory_plan m = plan_memory(c, inv, p, r, &limits);
    struct workspace_bytes w = plan_workspace(c, p, r, &limits);
    uint64_t buffers = 0;
#define X(name) buffers += w.name;
    WORKSPACE_BUFFERS(X)
#undef X
    assert_int_equal(m.weights, weight_bytes);
    assert_int_equal(m.kv_cache, 20 * plan_kv_block_bytes(c, r, KV_F32));
    assert_int_equal(plan_kv_block_bytes(c, r, KV_F32), 2 * plan_kv_block_bytes(c, r, KV_BF16));
    /* int8: a byte an element, and a bf16 for each 32 of a head's row or what is left of it. */
    uint64_t row = (uint64_t)head_row(c->head_dim), heads = (uint64_t)range_size(r->kv_heads);
    assert_int_equal(plan_kv_block_bytes(c, r, KV_INT8), (uint64_t)range_size(r->layers) * heads *
                                                             2 * KV_BLOCK *
                                                             (row + (row + 31) / 32 * 2));
    assert_int_equal(memory_plan_total(&m), weight_bytes + m.kv_cache + buffers);
    assert_true(r->stage == p->layout.pp - 1 ? w.logits > 0 : w.logits == 0);
}

static void check_bytes(const struct model_config *c, const struct inventory *inv,
                        struct layout layout)
{
    enum { FILES = 3 };
    struct plan *p = plan_of(c, inv, layout);
    uint64_t expected = 0, found = 0, file_expected[FILES] = {0}, file_found[FILES] = {0};
    for (int32_t i = 0; i < inv->count; i++) {
        const struct weight *w = &inv->weights[i];
        uint64_t stages = w->role == WEIGHT_EMBED && c->tied_embeddings && p->layout.pp > 1 ? 2 : 1;
        uint64_t bytes = stages * copies_in_stage(c, p, w) * dtype_size(w->dtype);
        file_expected[w->file] += bytes;
        expected += bytes;
    }
    for (int i = 0; i < p->world; i++) {
        uint64_t files[FILES], sum = 0;
        plan_file_bytes(inv, &p->ranks[i], FILES, files);
        for (int f = 0; f < FILES; f++) {
            file_found[f] += files[f];
            sum += files[f];
        }
        check_memory(c, inv, p, &p->ranks[i], sum);
        found += sum;
    }
    assert_int_equal(found, expected);
    assert_memory_equal(file_found, file_expected, sizeof file_found);
    plan_destroy(p);
}

static void bytes_add_up(void **state)
{
    (void)state;
    uint64_t rng = 4;
    int plans = 0;
    for (int trial = 0; trial < 2000; trial++) {
        struct model_config c = random_config(&rng);
        struct layout l = {random_int(&rng, 1, 4), random_int(&rng, 1, 6), random_int(&rng, 0, 6),
                           0};
        struct error err;
        struct layout checked = l;
        if (layout_check(&c, &checked, &err) != OK)
            continue;
        struct inventory *inv = inventory_of(&c);
        bind_by_hand(inv, 3);
        check_bytes(&c, inv, l);
        inventory_destroy(inv);
        plans++;
    }
    assert_true(plans > 300);
}

/* Qwen3-30B-A3B as published: 30.5 billion parameters, 61.06 GB in bf16. */
static void the_30b_has_its_published_size(void **state)
{
    (void)state;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    struct inventory *inv = inventory_of(&c);
    struct plan *p = plan_of(&c, inv, (struct layout){1, 1, 1, 0});
    assert_int_equal(p->ranks[0].weight_elements, UINT64_C(30532122624));
    plan_destroy(p);
    inventory_destroy(inv);
}

/* Qwen3-0.6B (596,049,920 parameters, embeddings tied) and Qwen2.5-7B (7,615,616,512), as
 * published. */
static void dense_siblings_have_their_published_sizes(void **state)
{
    (void)state;
    struct model_config small = released(1024, 28, 16, 8, 0, 0),
                        large = released(3584, 28, 28, 4, 0, 0);
    small.tied_embeddings = true;
    large.vocab = 152064;
    large.intermediate = 18944;
    large.attention_bias = true;
    large.qk_norm = false;
    const struct model_config *both[] = {&small, &large};
    static const uint64_t published[] = {UINT64_C(596049920), UINT64_C(7615616512)};
    for (int i = 0; i < 2; i++) {
        struct inventory *inv = inventory_of(both[i]);
        struct plan *p = plan_of(both[i], inv, (struct layout){1, 1, 1, 0});
        assert_int_equal(p->ranks[0].weight_elements, published[i]);
        plan_destroy(p);
        inventory_destroy(inv);
    }
}

/* 262,144 tokens of a 30B-A3B at 96 KiB each (bf16): 24 GiB on one rank, a fourth over four. */
static void long_contexts_have_their_price(void **state)
{
    (void)state;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    struct inventory *inv = inventory_of(&c);
    for (int32_t tp = 1; tp <= 4; tp *= 4) {
        struct plan *p = plan_of(&c, inv, (struct layout){1, tp, 1, 0});
        struct engine_limits l = {.max_rows = 512,
                                  .max_seqs = 1,
                                  .max_logits = 1,
                                  .context = 262144,
                                  .kv_blocks = 262144 / KV_BLOCK,
                                  .threads = 1};
        struct memory_plan m = plan_memory(&c, inv, p, &p->ranks[0], &l);
        assert_int_equal(m.kv_cache, UINT64_C(262144) * 96 * 1024 / (uint64_t)tp);
        plan_destroy(p);
    }
    inventory_destroy(inv);
}

static void too_long(const struct model_config *c, int64_t context, const char *limit,
                     const char *advice)
{
    struct error err;
    assert_int_equal(plan_check_context(c, "asked", context, KV_BF16, &err), ERR_INVALID);
    if (strncmp(err.msg, limit, strlen(limit)) != 0 || !strstr(err.msg, advice))
        fail_msg("expected \"%s ... %s\", found \"%s\"", limit, advice, err.msg);
}

/* Factors are of the trained length, which 40,960 is not. */
static void contexts_too_long_say_how_far_yarn_reaches(void **state)
{
    (void)state;
    struct error err;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    c.max_position = 40960;
    assert_int_equal(plan_check_context(&c, "asked", 1, KV_BF16, &err), OK);
    assert_int_equal(plan_check_context(&c, "asked", 40960, KV_BF16, &err), OK);
    too_long(&c, 131072, "asked: expected 1 to 40960 (max_position_embeddings), found 131072: YaRN",
             "\"factor\": 4.0, \"original_max_position_embeddings\": 32768}; a sequence then takes "
             "12884.9 MB of KV cache in bf16");
    too_long(&c, 131073, "asked:", "\"factor\": 5.0, \"original_max_position_embeddings\": 32768}");
    c.max_position = 262144;
    too_long(&c, 1000000, "asked: expected 1 to 262144 (",
             "\"factor\": 4.0, \"original_max_position_embeddings\": 262144}");
    c.yarn = (struct yarn){.factor = 4, .original = 32768};
    c.max_position = 131072;
    assert_int_equal(plan_check_context(&c, "asked", 131072, KV_BF16, &err), OK);
    too_long(&c, 200000,
             "asked: expected 1 to 131072 (YaRN in config.json: 4 x 32768), found 200000",
             "\"factor\": 7.0, \"original_max_position_embeddings\": 32768}");
    assert_int_equal(plan_check_context(&c, "asked", INT64_MAX, KV_F32, &err), ERR_INVALID);
    assert_null(strstr(err.msg, "YaRN reaches it"));
    assert_int_equal(plan_check_context(&c, "asked", 0, KV_F32, &err), ERR_INVALID);
    assert_null(strstr(err.msg, "YaRN reaches it"));
}

static void collectives_count_layers(void **state)
{
    (void)state;
    struct model_config c = released(2048, 48, 32, 4, 128, 768);
    struct inventory *inv = inventory_of(&c);
    struct plan_collective out[PLAN_MAX_COLLECTIVES];
    struct plan *p = plan_of(&c, inv, (struct layout){1, 1, 1, 0});
    assert_int_equal(plan_collectives(&c, p, &p->ranks[0], out), 0);
    plan_destroy(p);
    p = plan_of(&c, inv, (struct layout){3, 2, 4, 0});
    for (int i = 0; i < p->world; i++) {
        int n = plan_collectives(&c, p, &p->ranks[i], out);
        assert_true(n >= 3 && n <= PLAN_MAX_COLLECTIVES);
        for (int j = 0; j < n; j++) {
            assert_true(out[j].ranks == 2 || out[j].ranks == 4);
            assert_true(out[j].count == 1 || out[j].count == 16);
            assert_true(out[j].bytes_a_row > 0);
        }
    }
    plan_destroy(p);
    inventory_destroy(inv);
}

/* The widest config that config.c takes, and layouts of any numbers: no overflow (UBSan), no crash.
 */
static void hostile_numbers_do_not_overflow(void **state)
{
    (void)state;
    struct model_config c = {.hidden = 1 << 20,
                             .layers = 1,
                             .q_heads = 4096,
                             .kv_heads = 1,
                             .head_dim = 4096,
                             .vocab = 1 << 24,
                             .experts = MAX_EXPERTS,
                             .top_k = MAX_TOP_K,
                             .moe_intermediate = 1 << 20,
                             .intermediate = 1 << 20,
                             .layer_is_moe = {1}};
    static const int32_t numbers[] = {INT32_MIN, -1, 0, 1, 2, 1024, 1025, 65536, INT32_MAX};
    struct error err;
    for (size_t i = 0; i < COUNT_OF(numbers) * COUNT_OF(numbers); i++)
        for (size_t j = 0; j < COUNT_OF(numbers) * COUNT_OF(numbers); j++) {
            struct layout l = {numbers[i % COUNT_OF(numbers)], numbers[i / COUNT_OF(numbers)],
                               numbers[j % COUNT_OF(numbers)], numbers[j / COUNT_OF(numbers)]};
            if (layout_check(&c, &l, &err) == OK)
                assert_true((int64_t)l.pp * l.w <= MAX_WORLD);
        }
    struct inventory *inv = inventory_of(&c);
    bind_by_hand(inv, 1);
    struct plan *p = plan_of(&c, inv, (struct layout){1, 64, 0, 0});
    struct engine_limits limits = {1 << 20, 1 << 16, 1 << 20, 1 << 30, 1 << 24,
                                   256,     100,     false,   KV_F32};
    for (int i = 0; i < p->world; i++) {
        struct memory_plan m = plan_memory(&c, inv, p, &p->ranks[i], &limits);
        assert_true(m.activations > m.weights / 1024 && memory_plan_total(&m) > m.weights);
    }
    assert_int_equal(p->ranks[63].vocab.end, 1 << 24);
    plan_destroy(p);
    inventory_destroy(inv);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(covers_random_shapes),
    cmocka_unit_test(covers_30b),
    cmocka_unit_test(covers_235b),
    cmocka_unit_test(covers_480b),
    cmocka_unit_test(refusals_name_what_does_not_divide),
    cmocka_unit_test(refusals_of_random_layouts_list_legal_ones),
    cmocka_unit_test(ep_zero_takes_the_largest),
    cmocka_unit_test(bytes_add_up),
    cmocka_unit_test(the_30b_has_its_published_size),
    cmocka_unit_test(dense_siblings_have_their_published_sizes),
    cmocka_unit_test(long_contexts_have_their_price),
    cmocka_unit_test(contexts_too_long_say_how_far_yarn_reaches),
    cmocka_unit_test(collectives_count_layers),
    cmocka_unit_test(hostile_numbers_do_not_overflow),
};

UNIT_MAIN(tests)
