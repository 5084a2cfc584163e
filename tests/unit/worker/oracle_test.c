/*
 * The forward pass against the logits that Transformers computed in fp32 (tests/golden/oracle): the
 * prompt in one step, then one token at a time, as a request runs. With an fp32 KV cache the
 * largest difference must stay below 2e-4 of the largest |logit| and the greedy tokens must be the
 * reference's. Rounding keys and values to bf16 changes which experts some rows of these random
 * models choose, and then all their logits, so with a bf16 cache the median row of the prompt is
 * bounded.
 */
#include "tests/unit/worker/oracle.h"

/* `bound` holds for the largest difference of all rows (fp32) or of the median row (bf16). */
static void compare(const struct golden *g, const char *dir, const char *name, struct layout layout,
                    enum kv_dtype kv, double bound)
{
    static struct case_run r;
    r = (struct case_run){.g = g, .dir = dir, .layout = layout, .kv = kv};
    struct oracle_result found = oracle_run(&r, name);
    assert_true((kv == KV_F32 ? found.largest : found.median) <= bound);
    assert_true(kv != KV_F32 || found.same == g->greedy_len);
}

/* `model` and `figures`: folders of the checkpoint and of its golden, from the top of the tree;
 * `cut`: a layout of several ranks. */
static void check_cut(const char *name, const char *model, const char *figures, struct layout cut)
{
    char dir[1024];
    static struct golden g;
    const struct layout one = {.pp = 1, .tp = 1, .ep = 1, .w = 1};
    oracle_find(model, figures, dir, &g);
    compare(&g, dir, name, one, KV_F32, 2e-4);
    compare(&g, dir, name, one, KV_BF16, 3e-2);
    compare(&g, dir, name, one, KV_INT8, 9e-2);
    compare(&g, dir, name, cut, KV_F32, 2e-4);
    free(g.logits);
}

static void check(const char *name, const char *model)
{
    char figures[256];
    snprintf(figures, sizeof figures, "tests/golden/oracle/%s", name);
    check_cut(name, model, figures, (struct layout){.pp = 2, .tp = 2, .ep = 2, .w = 2});
}

#define ORACLE(name)                                                                               \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        check(#name, "tests/golden/oracle/" #name);                                                \
    }
ORACLE(dense)
ORACLE(fused)
ORACLE(gqa16)
ORACLE(headdim)
ORACLE(nonorm)
ORACLE(odd)
ORACLE(qwen2)
ORACLE(qwen3)
ORACLE(qwen3tied)
ORACLE(sharded)
ORACLE(tied)
ORACLE(yarn)

#define QUANTISED(name, ...)                                                                       \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        check_cut(#name, "tests/golden/quantised/" #name, "tests/golden/quantised/" #name,         \
                  (struct layout){__VA_ARGS__});                                                   \
    }
QUANTISED(fp8, .pp = 2, .tp = 2, .ep = 1, .w = 2)
QUANTISED(gptq, .pp = 2, .tp = 2, .ep = 1, .w = 2)
QUANTISED(gptq_order, .pp = 2, .tp = 1, .ep = 2, .w = 2)
QUANTISED(awq, .pp = 2, .tp = 2, .ep = 2, .w = 2)
QUANTISED(gguf, .pp = 2, .tp = 2, .ep = 1, .w = 2)
QUANTISED(gguf_k, .pp = 1, .tp = 4, .ep = 2, .w = 4)

static void lexicon(void **state)
{
    (void)state;
    check("lexicon", "deploy/lexicon/model");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(dense),   cmocka_unit_test(fused),  cmocka_unit_test(gqa16),
    cmocka_unit_test(headdim), cmocka_unit_test(nonorm), cmocka_unit_test(odd),
    cmocka_unit_test(qwen2),   cmocka_unit_test(qwen3),  cmocka_unit_test(qwen3tied),
    cmocka_unit_test(sharded), cmocka_unit_test(tied),   cmocka_unit_test(yarn),
    cmocka_unit_test(fp8),     cmocka_unit_test(gptq),   cmocka_unit_test(gptq_order),
    cmocka_unit_test(awq),     cmocka_unit_test(gguf),   cmocka_unit_test(gguf_k),
    cmocka_unit_test(lexicon),
};

UNIT_MAIN(tests)
