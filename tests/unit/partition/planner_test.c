/*
 * The survey of layouts: it lists every legal one and no other, adds up what ranks and collectives
 * say, knows which collectives leave a node, and sorts as planner.h says.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "partition/planner.h"

static struct model_config the_30b(void)
{
    struct model_config c = {.hidden = 2048,
                             .layers = 48,
                             .q_heads = 32,
                             .kv_heads = 4,
                             .head_dim = 128,
                             .vocab = 151936,
                             .experts = 128,
                             .top_k = 8,
                             .moe_intermediate = 768,
                             .max_position = 40960,
                             .dtype = DTYPE_BF16,
                             .qk_norm = true};
    memset(c.layer_is_moe, 1, (size_t)c.layers);
    return c;
}

static const struct planner_wish wish = {
    .sequences = 16, .context = 8192, .step_tokens = 512, .threads = 1, .kv_dtype = KV_BF16};
static const struct cluster_shape two_nodes = {2, 8, UINT64_C(72000000000)};

/* A model with its inventory, for one test. */
struct subject {
    struct model_config config;
    struct inventory *inv;
};

static struct subject subject(void)
{
    struct subject s = {.config = the_30b()};
    struct error err;
    assert_int_equal(inventory_create(&s.config, &s.inv, &err), OK);
    return s;
}

static struct survey *survey_of(const struct subject *s, const struct cluster_shape *cluster,
                                const struct planner_wish *w)
{
    struct survey *v = NULL;
    struct error err;
    if (planner_survey(&s->config, s->inv, cluster, w, &v, &err) != OK)
        fail_msg("%s", err.msg);
    return v;
}

static bool same(const struct layout *a, const struct layout *b)
{
    return a->pp == b->pp && a->tp == b->tp && a->ep == b->ep && a->w == b->w;
}

static int times_listed(const struct survey *v, const struct layout *l)
{
    int n = 0;
    for (int32_t i = 0; i < v->layout_count; i++)
        n += same(&v->layouts[i].layout, l);
    return n;
}

static int times_refused(const struct survey *v, const struct layout *l)
{
    int n = 0;
    for (int32_t i = 0; i < v->refusal_count; i++)
        n += same(&v->refusals[i].layout, l);
    return n;
}

/* Of 16 devices: each layout with w = max(tp, ep) once, legal or refused as layout_legal says. */
static void every_layout_is_listed_or_refused(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_wish all = wish;
    all.all = true;
    struct survey *v = survey_of(&s, &two_nodes, &all);
    int32_t legal = 0, refused = 0;
    for (int32_t pp = 1; pp <= 16; pp++)
        for (int32_t w = 1; w * pp <= 16; w++)
            for (int32_t tp = 1; tp <= w; tp++)
                for (int32_t ep = 1; ep <= w; ep++) {
                    struct layout l = {pp, tp, ep, w};
                    char why[LAYOUT_WHY_BYTES];
                    if ((tp != w && ep != w) || w % tp != 0 || w % ep != 0)
                        continue;
                    bool good = layout_legal(&s.config, &l, why);
                    assert_int_equal(times_listed(v, &l), good);
                    assert_int_equal(times_refused(v, &l), !good);
                    legal += good;
                    refused += !good;
                }
    assert_int_equal(v->layout_count, legal);
    assert_int_equal(v->refusal_count, refused);
    assert_true(legal > 50 && refused > 10);
    survey_destroy(v);
    inventory_destroy(s.inv);
}

static void what_is_left_open_is_what_the_wish_says(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_wish w = wish;
    w.layout = (struct layout){.tp = 4, .ep = 2};
    struct survey *v = survey_of(&s, &two_nodes, &w);
    assert_true(v->layout_count > 0);
    for (int32_t i = 0; i < v->layout_count; i++) {
        assert_int_equal(v->layouts[i].layout.tp, 4);
        assert_int_equal(v->layouts[i].layout.ep, 2);
        assert_int_equal(16 % (v->layouts[i].layout.pp * 4), 0);
    }
    survey_destroy(v);
    inventory_destroy(s.inv);
}

static void the_better_comes_first(void **state)
{
    (void)state;
    struct subject s = subject();
    struct survey *v = survey_of(&s, &two_nodes, &wish);
    for (int32_t i = 1; i < v->layout_count; i++) {
        const struct planner_layout *a = &v->layouts[i - 1], *b = &v->layouts[i];
        assert_true(a->fits >= b->fits);
        if (a->fits != b->fits)
            continue;
        assert_true(a->calls_cross <= b->calls_cross);
        if (a->calls_cross == b->calls_cross)
            assert_true(a->rank.sequences * a->replicas >= b->rank.sequences * b->replicas);
    }
    survey_destroy(v);
    inventory_destroy(s.inv);
}

/* The sketch that surveys are made from weighs what the slices weigh, rank by rank. */
static void fullest_rank_is_the_fullest_of_the_plan(void **state)
{
    (void)state;
    struct subject s = subject();
    static const struct layout layouts[] = {
        {1, 8, 8, 8}, {3, 2, 4, 4}, {1, 4, 1, 4}, {16, 1, 1, 1}};
    for (size_t i = 0; i < COUNT_OF(layouts); i++) {
        struct planner_layout p;
        struct plan *plan = NULL;
        struct error err;
        assert_int_equal(
            planner_layout_of(&s.config, s.inv, &two_nodes, &wish, layouts[i], &p, NULL, &err), OK);
        assert_int_equal(plan_create(&s.config, s.inv, layouts[i], &plan, &err), OK);
        struct engine_limits limits = planner_limits(&wish, p.replicas);
        limits.kv_blocks = limits.max_seqs * 128;
        uint64_t most = 0;
        for (int32_t r = 0; r < plan->world; r++) {
            struct memory_plan m = plan_memory(&s.config, s.inv, plan, &plan->ranks[r], &limits);
            assert_int_equal(m.weights, 2 * plan->ranks[r].weight_elements);
            most = memory_plan_total(&m) > most ? memory_plan_total(&m) : most;
        }
        assert_int_equal(memory_plan_total(&p.rank.memory), most);
        assert_true(p.rank.sequences > 0 && p.fits == (p.rank.sequences >= p.share));
        plan_destroy(plan);
    }
    inventory_destroy(s.inv);
}

/* So many contexts fit that one more would pass the memory. */
static void as_many_fit_as_there_is_room(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_layout p;
    struct error err;
    struct layout l = {1, 1, 1, 1};
    assert_int_equal(planner_layout_of(&s.config, s.inv, &two_nodes, &wish, l, &p, NULL, &err), OK);
    uint64_t one = p.rank.memory.kv_cache / (uint64_t)p.share;
    uint64_t fixed = memory_plan_total(&p.rank.memory) - p.rank.memory.kv_cache;
    assert_int_equal(one, UINT64_C(98304) * 8192); /* 96 KiB a token */
    assert_true(fixed + (uint64_t)p.rank.sequences * one <= two_nodes.memory_bytes);
    assert_true(fixed + (uint64_t)(p.rank.sequences + 1) * one > two_nodes.memory_bytes);
    inventory_destroy(s.inv);
}

static struct planner_layout on_two_nodes(const struct subject *s, struct layout l)
{
    struct planner_layout p;
    struct error err;
    if (planner_layout_of(&s->config, s->inv, &two_nodes, &wish, l, &p, NULL, &err) != OK)
        fail_msg("%s", err.msg);
    return p;
}

static void collectives_between_nodes_are_counted(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_layout p = on_two_nodes(&s, (struct layout){1, 8, 8, 8});
    assert_int_equal(p.replicas, 2);
    assert_int_equal(p.calls, 1 + 48 + 48 + 1);
    assert_int_equal(p.calls_cross, 0);
    assert_false(p.tp_crosses);
    p = on_two_nodes(&s, (struct layout){2, 8, 8, 8}); /* a stage a node */
    assert_int_equal(p.calls, 1 + 48 + 48 + 1 + 1);
    assert_int_equal(p.calls_cross, 1);
    p = on_two_nodes(&s, (struct layout){1, 16, 16, 16});
    assert_int_equal(p.calls_cross, p.calls);
    assert_true(p.tp_crosses);
    p = on_two_nodes(&s, (struct layout){1, 8, 16, 16}); /* attention stays in the node */
    assert_int_equal(p.calls_cross, 1 + 48 + 1);
    assert_false(p.tp_crosses);
    inventory_destroy(s.inv);
}

/* Groups of 3 over nodes of 8: the third lies across the border. */
static void groups_across_nodes_are_seen(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_layout p = on_two_nodes(&s, (struct layout){3, 1, 1, 1});
    assert_int_equal(p.replicas, 5);
    assert_int_equal(p.calls, 2);
    assert_int_equal(p.calls_cross, 1); /* from the second stage of it to the third */
    inventory_destroy(s.inv);
}

static void more_ranks_than_devices_are_refused(void **state)
{
    (void)state;
    struct subject s = subject();
    struct planner_layout p;
    struct error err;
    struct layout l = {4, 8, 8, 8};
    assert_int_equal(planner_layout_of(&s.config, s.inv, &two_nodes, &wish, l, &p, NULL, &err),
                     ERR_INVALID);
    assert_non_null(strstr(err.msg, "expected at most 16 ranks, one a device, found 32"));
    inventory_destroy(s.inv);
}

static void unknown_memory_fits_everything(void **state)
{
    (void)state;
    struct subject s = subject();
    struct cluster_shape cluster = {1, 2, 0};
    struct survey *v = survey_of(&s, &cluster, &wish);
    for (int32_t i = 0; i < v->layout_count; i++)
        assert_true(v->layouts[i].fits && v->layouts[i].rank.sequences == INT64_MAX);
    assert_true(v->layout_count >= 4);
    survey_destroy(v);
    inventory_destroy(s.inv);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_layout_is_listed_or_refused),
    cmocka_unit_test(what_is_left_open_is_what_the_wish_says),
    cmocka_unit_test(the_better_comes_first),
    cmocka_unit_test(fullest_rank_is_the_fullest_of_the_plan),
    cmocka_unit_test(as_many_fit_as_there_is_room),
    cmocka_unit_test(collectives_between_nodes_are_counted),
    cmocka_unit_test(groups_across_nodes_are_seen),
    cmocka_unit_test(more_ranks_than_devices_are_refused),
    cmocka_unit_test(unknown_memory_fits_everything),
};

UNIT_MAIN(tests)
