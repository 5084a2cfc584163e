/* The bounds of the 30B model, against the figures of its shapes worked out by hand. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/buf.h"
#include "partition/bounds.h"

#include <math.h>
#include <stdlib.h>

struct bound_model {
    struct model_config config;
    struct inventory *inv;
    struct plan *plan;
};

static void open_model(struct bound_model *m, const char *name, struct layout layout)
{
    char path[512], *text = NULL;
    size_t len = 0;
    struct error err;
    snprintf(path, sizeof path, WITAN_SOURCE_DIR "/tests/golden/configs/%s.json", name);
    if (file_read_all(path, 1 << 20, &text, &len, &err) != OK ||
        config_parse(path, text, len, &m->config, &err) != OK ||
        inventory_create(&m->config, &m->inv, &err) != OK ||
        plan_create(&m->config, m->inv, layout, &m->plan, &err) != OK)
        fail_msg("%s", err.msg);
    free(text);
}

static void close_model(struct bound_model *m)
{
    plan_destroy(m->plan);
    inventory_destroy(m->inv);
}

static struct step_bounds bounds_of(const struct bound_model *m, int32_t rank,
                                    struct step_shape step)
{
    return plan_bounds(&m->config, m->inv, &m->plan->ranks[rank], KV_BF16, &step);
}

static void assert_about(double found, double expected)
{
    if (!(fabs(found / expected - 1) < 1e-3))
        fail_msg("expected %.6g, found %.6g", expected, found);
}

/* Of a layer: q and o 2048 x 4096, k and v 2048 x 512, the router 128 x 2048, experts of 3 x 2048 x
 * 768; the head 151936 x 2048; 2 x 4 x 128 numbers of bf16 a position and layer. */
enum { ATTENTION = 2 * 2048 * 4096 + 2 * 2048 * 512, EXPERT = 3 * 2048 * 768, LAYERS = 48 };
static const double router = 128.0 * 2048, head = 151936.0 * 2048, position = 48 * 2048.0;

static void decode_is_bound_by_memory(void **state)
{
    (void)state;
    struct bound_model m;
    open_model(&m, "30b-a3b", (struct layout){1, 1, 1, 0});
    struct step_bounds one = bounds_of(&m, 0, step_decode(1, 1024));
    assert_about(one.bytes, 2 * (LAYERS * (ATTENTION + router + 8.0 * EXPERT) + head + 2048) +
                                1024 * position);
    assert_about(one.flops, 2 * (LAYERS * (ATTENTION + router + 8.0 * EXPERT) + head) +
                                4.0 * 1024 * 4096 * 48);
    assert_about(4.3e12 / one.bytes, 695); /* tokens a second at 4.3 TB/s */
    assert_about(8 * 4.3e12 / bounds_of(&m, 0, step_decode(8, 1024)).bytes, 1291);
    assert_about(64 * 4.3e12 / bounds_of(&m, 0, step_decode(64, 1024)).bytes, 4173);
    assert_about(256 * 4.3e12 / bounds_of(&m, 0, step_decode(256, 1024)).bytes, 12769);
    close_model(&m);
}

static void prefill_is_bound_by_products(void **state)
{
    (void)state;
    struct bound_model m;
    open_model(&m, "30b-a3b", (struct layout){1, 1, 1, 0});
    struct step_bounds b = bounds_of(&m, 0, step_prefill(4096));
    assert_about(4096 * 790e12 / b.flops, 111700);
    assert_true(b.flops / 790e12 > b.bytes / 4.3e12);
    close_model(&m);
}

static void blocks_as_stored_count_as_such(void **state)
{
    (void)state;
    struct bound_model m;
    open_model(&m, "30b-a3b-fp8", (struct layout){1, 1, 1, 0});
    m.inv->mode = WEIGHTS_PACKED;
    assert_about(4.3e12 / bounds_of(&m, 0, step_decode(1, 1024)).bytes, 1241);
    assert_about(256 * 4.3e12 / bounds_of(&m, 0, step_decode(256, 1024)).bytes, 19547);
    close_model(&m);
}

/* 8.5 and 4.5 bits a weight, embedding and lm_head 8.5 in both; the router as published. What the
 * plan says is no less: with norms and all experts. */
static void panels_count_as_such(void **state)
{
    (void)state;
    static const struct {
        enum weight_mode mode;
        double bytes;
    } modes[] = {{WEIGHTS_INT8, 8.5 / 8}, {WEIGHTS_INT4, 4.5 / 8}};
    const struct engine_limits none = {.max_rows = 1, .max_seqs = 1, .max_logits = 1, .context = 1};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct bound_model m;
        double each = modes[i].bytes, norms = 2.0 * (LAYERS * (2 * 2048 + 2 * 128) + 2048);
        open_model(&m, "30b-a3b", (struct layout){1, 1, 1, 0});
        m.inv->mode = modes[i].mode;
        assert_about(bounds_of(&m, 0, step_decode(1, 1024)).bytes,
                     each * LAYERS * (ATTENTION + 8.0 * EXPERT) + 2 * LAYERS * router +
                         8.5 / 8 * (head + 2048) + 1024 * position);
        uint64_t planned = plan_memory(&m.config, m.inv, m.plan, m.plan->ranks, &none).weights;
        assert_true((double)planned == each * LAYERS * (ATTENTION + 128.0 * EXPERT) +
                                           2 * LAYERS * router + 8.5 / 8 * 2 * head + norms);
        close_model(&m);
    }
}

/* What every rank of a stage does again: k and v of shared heads, the router, the embedding's rows
 * are its own vocabulary's but may be any. */
static void ranks_share_the_work(void **state)
{
    (void)state;
    struct bound_model whole, cut;
    open_model(&whole, "30b-a3b", (struct layout){1, 1, 1, 0});
    open_model(&cut, "30b-a3b", (struct layout){1, 4, 4, 0});
    struct step_shape step = step_decode(8, 512);
    struct step_bounds all = bounds_of(&whole, 0, step), sum = {0};
    for (int32_t r = 0; r < 4; r++) {
        struct step_bounds b = bounds_of(&cut, r, step);
        sum.bytes += b.bytes;
        sum.flops += b.flops;
    }
    assert_about(sum.flops, all.flops + 3 * LAYERS * 2 * 8 * router);
    assert_about(sum.bytes, all.bytes + 3 * LAYERS * 2 * router + 3 * 8 * 2 * 2048);
    close_model(&whole);
    close_model(&cut);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(decode_is_bound_by_memory),
    cmocka_unit_test(prefill_is_bound_by_products),
    cmocka_unit_test(blocks_as_stored_count_as_such),
    cmocka_unit_test(panels_count_as_such),
    cmocka_unit_test(ranks_share_the_work),
};

UNIT_MAIN(tests)
