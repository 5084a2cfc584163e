/* GET /admin/status: the same as `witan status` is told, and null for what is not known. */
#include "tests/unit/coordinator/cluster.h"
#include "tests/unit/coordinator/json_at.h"

#include "coordinator/status_json.h"

#include <math.h>

struct ask {
    const struct cluster *c;
    json_t *root;
};

static void take(void *arg)
{
    struct ask *a = arg;
    struct buf b;
    struct error err;
    buf_init(&b, STATUS_JSON_MAX_BYTES);
    if (status_json(a->c->core, &b, &err) != OK ||
        json_parse("status", b.data, b.len, &a->root, &err) != OK)
        fail_msg("%s", err.msg);
    buf_fini(&b);
}

static json_t *status_of(struct cluster *c)
{
    struct ask a = {.c = c};
    on_loop(c, take, &a);
    return a.root;
}

static const char *words_at(const json_t *root, const char *path)
{
    const json_t *v = at(root, path);
    if (!json_is_string(v))
        fail_msg("%s: expected a string", path);
    return json_string_value(v);
}

static int64_t number_at(const json_t *root, const char *path)
{
    const json_t *v = at(root, path);
    if (!json_is_integer(v))
        fail_msg("%s: expected a number", path);
    return json_integer_value(v);
}

static void assert_unknown(const json_t *root, const char *path)
{
    if (!json_is_null(at(root, path)))
        fail_msg("%s: expected null", path);
}

/* Steps, a histogram that a rank could make up, and what is measured of nothing. */
static void say_heartbeat(struct fake_rank *r)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__Heartbeat h = WITAN__CLUSTER__V1__HEARTBEAT__INIT;
    Witan__Cluster__V1__Engine e = WITAN__CLUSTER__V1__ENGINE__INIT;
    Witan__Cluster__V1__Histogram steps = WITAN__CLUSTER__V1__HISTOGRAM__INIT;
    double bounds[] = {0.01};
    uint64_t counts[] = {3, 1};
    steps.bounds = bounds;
    steps.n_bounds = 1;
    steps.counts = counts;
    steps.n_counts = 2;
    steps.sum = 0.25;
    e.decode_step_seconds = &steps;
    e.forward_seconds = 2;
    e.collective_seconds = 0.5;
    e.prefix_asked = 100;
    e.prefix_found = 25;
    h.step = 4;
    h.running = 2;
    h.kv_blocks = 64;
    h.kv_blocks_free = 60;
    h.engine = &e;
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_HEARTBEAT;
    m.heartbeat = &h;
    fake_send(r, &m);
}

static json_t *wait_for_steps(struct cluster *c)
{
    for (int i = 0; i < 3000; i++) {
        json_t *root = status_of(c);
        if (json_is_object(at(root, "groups.0.steps.decode")))
            return root;
        json_decref(root);
        usleep(1000);
    }
    fail_msg("no heartbeat was heard");
    return NULL;
}

static void what_is_not_known_is_null(void **state)
{
    (void)state;
    static const char *const unknown[] = {"manifest",
                                          "groups.0.running",
                                          "groups.0.waiting",
                                          "groups.0.tokens",
                                          "groups.0.kv_blocks",
                                          "groups.0.kv_blocks_free",
                                          "groups.0.queue",
                                          "groups.0.prefix_hit_rate",
                                          "groups.0.proven_seconds_ago",
                                          "groups.0.through",
                                          "groups.0.last_loss",
                                          "groups.0.last_loss_seconds_ago",
                                          "groups.0.steps.decode",
                                          "groups.0.numerics_class"};
    struct cluster c;
    cluster_start(&c, "");
    json_t *root = status_of(&c);
    assert_string_equal(words_at(root, "model"), "lexicon");
    assert_string_equal(words_at(root, "groups.0.state"), "waiting for ranks");
    assert_int_equal(number_at(root, "groups.0.layout.ranks"), 1);
    assert_int_equal(json_array_size(at(root, "groups.0.ranks")), 0);
    assert_int_equal(number_at(root, "requests.refused.waiting"), 0); /* that is known */
    for (size_t i = 0; i < COUNT_OF(unknown); i++)
        assert_unknown(root, unknown[i]);
    json_decref(root);
    cluster_stop(&c);
}

static void what_a_rank_says_is_told(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    fake_serve_with(&c, &r, (struct fake_hello){.host = "node\xff\"<b>"}, "");
    cluster_wait_ready(&c, true);
    say_heartbeat(&r);
    json_t *root = wait_for_steps(&c);
    assert_string_equal(words_at(root, "groups.0.state"), "ready");
    assert_string_equal(words_at(root, "groups.0.ranks.0.host"), "node\xef\xbf\xbd\"<b>");
    assert_int_equal(number_at(root, "groups.0.ranks.0.pid"), 4711);
    assert_int_equal(number_at(root, "groups.0.running"), 2);
    assert_int_equal(number_at(root, "groups.0.kv_blocks_free"), 60);
    assert_int_equal(number_at(root, "groups.0.steps.decode.count"), 4);
    assert_true(json_real_value(at(root, "groups.0.steps.decode.seconds")) == 0.25);
    assert_true(json_real_value(at(root, "groups.0.prefix_hit_rate")) == 0.25);
    assert_true(json_real_value(at(root, "groups.0.ranks.0.collective_seconds")) == 0.5);
    assert_unknown(root, "groups.0.steps.prompt");
    assert_unknown(root, "groups.0.ranks.0.gpu");
    assert_unknown(root, "groups.0.ranks.0.slowness");
    assert_unknown(root, "groups.0.ranks.0.resident_bytes");
    json_decref(root);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    cluster_stop(&c);
}

/* --- experts: lexicon has 4 layers of 16, and 2 are chosen --- */

enum { LAYERS = 4, EXPERTS = 16 };

static void say_experts(struct fake_rank *r, uint64_t each, uint64_t first)
{
    Witan__Cluster__V1__RankMessage m = WITAN__CLUSTER__V1__RANK_MESSAGE__INIT;
    Witan__Cluster__V1__ExpertLoad load = WITAN__CLUSTER__V1__EXPERT_LOAD__INIT;
    uint64_t tokens[LAYERS * EXPERTS];
    for (int i = 0; i < LAYERS * EXPERTS; i++)
        tokens[i] = each + (i == 2 * EXPERTS + 5 ? first : 0);
    load.experts = EXPERTS;
    load.tokens = tokens;
    load.n_tokens = COUNT_OF(tokens);
    m.body_case = WITAN__CLUSTER__V1__RANK_MESSAGE__BODY_EXPERT_LOAD;
    m.expert_load = &load;
    fake_send(r, &m);
}

static json_t *wait_for_experts(struct cluster *c)
{
    for (int i = 0; i < 3000; i++) {
        json_t *root = status_of(c);
        if (json_is_object(at(root, "groups.0.experts.worst")))
            return root;
        json_decref(root);
        usleep(1000);
    }
    fail_msg("no load of experts was heard");
    return NULL;
}

struct experts_ask {
    const struct cluster *c;
    const char *group;
    enum status st;
    struct error err;
    json_t *root;
};

static void take_experts(void *arg)
{
    struct experts_ask *a = arg;
    struct buf b;
    buf_init(&b, STATUS_JSON_MAX_BYTES);
    a->st = status_experts(a->c->core, a->group, &b, &a->err);
    if (a->st == OK && json_parse("experts", b.data, b.len, &a->root, &a->err) != OK)
        fail_msg("%s", a->err.msg);
    buf_fini(&b);
}

static void experts_are_told(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    json_t *root = status_of(&c);
    assert_int_equal(number_at(root, "groups.0.experts.count"), EXPERTS);
    assert_int_equal(number_at(root, "groups.0.experts.layers_known"), 0);
    assert_unknown(root, "groups.0.experts.imbalance");
    assert_unknown(root, "groups.0.experts.recent_tokens");
    json_decref(root);
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    say_experts(&r, 1000, 0);
    say_experts(&r, 1100, 300);
    root = wait_for_experts(&c);
    assert_int_equal(number_at(root, "groups.0.experts.layers_known"), LAYERS);
    assert_int_equal(number_at(root, "groups.0.experts.worst.layer"), 2);
    assert_int_equal(number_at(root, "groups.0.experts.worst.expert"), 5);
    double worst = 400.0 * EXPERTS / (EXPERTS * 100 + 300);
    assert_true(fabs(json_real_value(at(root, "groups.0.experts.worst.ratio")) - worst) < 1e-6);
    assert_true(fabs(json_real_value(at(root, "groups.0.experts.imbalance")) - (3 + worst) / 4) <
                1e-6);
    assert_unknown(root, "groups.0.experts.share_imbalance");
    json_decref(root);
    struct experts_ask a = {.c = &c, .group = "g0"};
    on_loop(&c, take_experts, &a);
    assert_int_equal(a.st, OK);
    assert_int_equal(json_array_size(at(a.root, "layers")), LAYERS);
    assert_int_equal(number_at(a.root, "layers.2.total.5"), 1400);
    json_decref(a.root);
    a.group = "g1";
    on_loop(&c, take_experts, &a);
    assert_int_equal(a.st, ERR_NOT_FOUND);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    for (int i = 0; i < 3000; i++) { /* they went with the rank */
        root = status_of(&c);
        int64_t known = number_at(root, "groups.0.experts.layers_known");
        json_decref(root);
        if (known == 0)
            break;
        usleep(1000);
        assert_int_not_equal(i, 2999);
    }
    cluster_stop(&c);
}

static bool has_event(const json_t *root, const char *what)
{
    const json_t *e;
    size_t i;
    int64_t before = 0;
    bool found = false;
    json_array_foreach(json_object_get(root, "events"), i, e)
    {
        assert_true(number_at(e, "number") > before);
        before = number_at(e, "number");
        assert_string_equal(words_at(e, "group"), "g0");
        found = found || strcmp(words_at(e, "event"), what) == 0;
    }
    return found;
}

static void losses_and_starts_are_events(void **state)
{
    (void)state;
    struct cluster c;
    struct fake_rank r;
    cluster_start(&c, "");
    fake_serve(&c, &r);
    cluster_wait_ready(&c, true);
    json_t *root = status_of(&c);
    assert_true(has_event(root, "loading") && has_event(root, "ready"));
    assert_false(has_event(root, "lost"));
    json_decref(root);
    fake_release(&r);
    cluster_wait_ready(&c, false);
    root = status_of(&c);
    assert_true(has_event(root, "lost"));
    assert_int_equal(number_at(root, "groups.0.losses"), 1);
    assert_non_null(strstr(words_at(root, "groups.0.last_loss"), "rank 0"));
    json_decref(root);
    cluster_stop(&c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(what_is_not_known_is_null),
    cmocka_unit_test(what_a_rank_says_is_told),
    cmocka_unit_test(experts_are_told),
    cmocka_unit_test(losses_and_starts_are_events),
};

UNIT_MAIN(tests)
