/* Tokens of experts over time: the window that fades, what it comes to, and its JSON. */
#include "tests/unit/coordinator/json_at.h"
#include "tests/unit/unit.h"

#include "base/check.h"
#include "coordinator/experts.h"

#include <math.h>

/* Layers 0, 2 and 3 have experts; two stages of two layers, ep 2. */
enum { LAYERS = 4, EXPERTS = 4, STAGE = 2 * EXPERTS };

static const int64_t s = 1000000000;

static struct model_config config = {
    .layers = LAYERS, .experts = EXPERTS, .top_k = 2, .layer_is_moe = {1, 0, 1, 1}};
static const struct plan plan = {.layout = {2, 1, 2, 2}};
static const struct rank_plan stages[] = {{.layers = {0, 2}}, {.rank = 2, .layers = {2, 4}}};

static bool tell(struct experts *x, int stage, const uint64_t tokens[STAGE], int64_t now_ns)
{
    Witan__Cluster__V1__ExpertLoad m = WITAN__CLUSTER__V1__EXPERT_LOAD__INIT;
    uint64_t copy[STAGE];
    memcpy(copy, tokens, sizeof copy);
    m.first_layer = (uint32_t)stages[stage].layers.begin;
    m.experts = EXPERTS;
    m.n_tokens = STAGE;
    m.tokens = copy;
    return experts_heard(x, &stages[stage], &m, now_ns);
}

static struct experts_summary summary(const struct experts *x, int64_t now_ns)
{
    struct experts_summary out;
    experts_summary(x, &plan, now_ns, &out);
    return out;
}

static void near(double found, double expected)
{
    if (fabs(found - expected) > 1e-9)
        fail_msg("expected %.9f, found %.9f", expected, found);
}

static const uint64_t none[STAGE];

static void nothing_is_known_before_a_rank_tells(void **state)
{
    (void)state;
    struct experts x;
    experts_init(&x, &config);
    struct experts_summary got = summary(&x, 5 * s);
    assert_int_equal(got.layers, 3);
    assert_int_equal(got.known, 0);
    assert_false(got.enough);
    near(got.mean + got.worst + got.shares, 0);
    assert_true(tell(&x, 0, none, 5 * s));
    got = summary(&x, 5 * s);
    assert_int_equal(got.known, 1); /* and of those no token yet */
    near(got.tokens + got.mean + got.worst, 0);
    experts_fini(&x);
}

static void the_window_fades(void **state)
{
    (void)state;
    struct experts x;
    const uint64_t told[STAGE] = {60, 20, 10, 10}, more[STAGE] = {160, 20, 10, 10};
    experts_init(&x, &config);
    tell(&x, 0, none, s);
    tell(&x, 0, told, 4 * s);
    struct experts_summary got = summary(&x, 4 * s);
    near(got.tokens, 50);
    near(got.mean, 60.0 / 25);
    near(got.worst, got.mean);
    near(got.shares, 80.0 / 50);
    assert_int_equal(got.worst_layer, 0);
    assert_int_equal(got.worst_expert, 0);
    assert_true(got.enough);
    got = summary(&x, (4 + 2 * EXPERTS_HALF_LIFE_S) * s); /* a ratio stays, its weight goes */
    near(got.tokens, 12.5);
    near(got.mean, 60.0 / 25);
    assert_false(got.enough);
    tell(&x, 0, more, (4 + EXPERTS_HALF_LIFE_S) * s);
    got = summary(&x, (4 + EXPERTS_HALF_LIFE_S) * s);
    near(got.tokens, 25 + 50);
    near(got.mean, 130.0 * 4 / 150);
    experts_fini(&x);
}

static void stages_tell_for_themselves(void **state)
{
    (void)state;
    struct experts x;
    const uint64_t first[STAGE] = {25, 25, 25, 25}, second[STAGE] = {0, 50, 50, 0, 0, 0, 0, 100};
    experts_init(&x, &config);
    tell(&x, 0, none, s);
    tell(&x, 0, first, 2 * s);
    tell(&x, 1, none, 2 * s);
    tell(&x, 1, second, 2 * s);
    struct experts_summary got = summary(&x, 2 * s);
    assert_int_equal(got.known, 3);
    near(got.mean, (1.0 + 2.0 + 4.0) / 3);
    near(got.shares, (1.0 + 1.0 + 2.0) / 3);
    near(got.worst, 4);
    assert_int_equal(got.worst_layer, 3);
    assert_int_equal(got.worst_expert, 3);
    experts_fini(&x);
}

/* The first of a rank, one that came again, one after all have gone: of no known time. */
static void totals_of_unknown_times_are_no_load(void **state)
{
    (void)state;
    struct experts x;
    const uint64_t long_ago[STAGE] = {1000, 2000, 3000, 4000}, on[STAGE] = {1010, 2000, 3000, 4000};
    const uint64_t again[STAGE] = {5, 0, 0, 0};
    experts_init(&x, &config);
    tell(&x, 0, long_ago, s);
    near(summary(&x, s).tokens, 0);
    tell(&x, 0, on, 2 * s);
    near(summary(&x, 2 * s).tokens, 5);
    tell(&x, 0, again, 3 * s);
    near(summary(&x, 3 * s).tokens, 0);
    experts_forget(&x);
    assert_int_equal(summary(&x, 4 * s).known, 0);
    tell(&x, 0, on, 4 * s);
    near(summary(&x, 4 * s).tokens, 0);
    experts_fini(&x);
}

static void what_does_not_hold_together_is_left_out(void **state)
{
    (void)state;
    struct experts x;
    uint64_t tokens[STAGE + 1] = {0};
    experts_init(&x, &config);
    static const struct {
        uint32_t first, experts;
        size_t count;
        uint64_t most;
    } wrong[] = {{2, EXPERTS, STAGE, 1},
                 {0, EXPERTS + 1, STAGE, 1},
                 {0, EXPERTS, STAGE - 1, 1},
                 {0, EXPERTS, STAGE + 1, 1},
                 {0, EXPERTS, 0, 1},
                 {0, EXPERTS, STAGE, EXPERTS_MOST_TOKENS + 1},
                 {0, EXPERTS, STAGE, UINT64_MAX}};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        Witan__Cluster__V1__ExpertLoad m = WITAN__CLUSTER__V1__EXPERT_LOAD__INIT;
        tokens[STAGE - 1] = wrong[i].most;
        m.first_layer = wrong[i].first;
        m.experts = wrong[i].experts;
        m.n_tokens = wrong[i].count;
        m.tokens = tokens;
        assert_false(experts_heard(&x, &stages[0], &m, s));
        assert_null(x.total);
    }
    static const struct model_config dense = {.layers = LAYERS};
    experts_init(&x, &dense);
    assert_false(tell(&x, 0, none, s));
    assert_int_equal(summary(&x, s).layers, 0);
    experts_fini(&x);
}

static void json_has_layers_with_experts(void **state)
{
    (void)state;
    struct experts x;
    struct buf b;
    struct error err;
    json_t *root;
    const uint64_t told[STAGE] = {EXPERTS_MOST_TOKENS, 3, 10, 0};
    const uint64_t more[STAGE] = {EXPERTS_MOST_TOKENS, 4, 21, 0};
    experts_init(&x, &config);
    tell(&x, 0, told, s);
    tell(&x, 0, more, 2 * s);
    buf_init(&b, 4096);
    assert_int_equal(experts_json(&x, &plan, "g\"0", (2 + EXPERTS_HALF_LIFE_S) * s, &b, &err), OK);
    assert_int_equal(json_parse("experts", b.data, b.len, &root, &err), OK);
    assert_string_equal(json_string_value(at(root, "group")), "g\"0");
    assert_int_equal(json_integer_value(at(root, "experts")), EXPERTS);
    assert_int_equal(json_integer_value(at(root, "top_k")), 2);
    assert_int_equal(json_integer_value(at(root, "ep")), 2);
    assert_int_equal(json_array_size(at(root, "layers")), 3);
    assert_int_equal(json_array_size(at(root, "layers.0.recent")), EXPERTS);
    assert_int_equal(json_integer_value(at(root, "layers.0.recent.0")), 0);
    near(json_number_value(at(root, "layers.0.recent.1")), 0.5);
    near(json_number_value(at(root, "layers.0.recent.2")), 5.5);
    assert_true(json_integer_value(at(root, "layers.0.total.0")) == (json_int_t)1 << 53);
    assert_int_equal(json_integer_value(at(root, "layers.0.total.2")), 21);
    assert_int_equal(json_integer_value(at(root, "layers.1.layer")), 2);
    assert_true(json_is_null(at(root, "layers.1.recent")));
    assert_true(json_is_null(at(root, "layers.2.total")));
    json_decref(root);
    buf_fini(&b);
    buf_init(&b, 100);
    assert_int_equal(experts_json(&x, &plan, "g0", 2 * s, &b, &err), ERR_LIMIT);
    buf_fini(&b);
    experts_fini(&x);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(nothing_is_known_before_a_rank_tells),
    cmocka_unit_test(the_window_fades),
    cmocka_unit_test(stages_tell_for_themselves),
    cmocka_unit_test(totals_of_unknown_times_are_no_load),
    cmocka_unit_test(what_does_not_hold_together_is_left_out),
    cmocka_unit_test(json_has_layers_with_experts),
};

UNIT_MAIN(tests)
