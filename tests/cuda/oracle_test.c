/*
 * The CUDA backend against the logits that Transformers computed in fp32 (tests/golden/oracle),
 * where the checkpoint is one that it reads.
 */
#include "tests/unit/worker/oracle.h"

#include "tests/cuda/any_gpu.h"
#include "worker/cuda_backend.h"

static struct case_run *make_run(const char *name, const char *folder, char dir[1024],
                                 struct golden *g)
{
    static struct case_run r;
    char path[256];
    r = (struct case_run){.g = g,
                          .dir = dir,
                          .layout = {.pp = 1, .tp = 1, .ep = 1, .w = 1},
                          .kv = KV_BF16,
                          .cuda = plugin()};
    snprintf(path, sizeof path, "tests/golden/%s/%s", folder, name);
    oracle_find(path, path, dir, g);
    return &r;
}

/*
 * `median` and `largest`: bounds, as parts of the largest |logit|, of the median row's largest
 * difference and of any row's. Both kinds round what enters products, and keys and values, to bf16
 * (2^-9 of a number), some six times a layer: in models of two to five layers a hundredth is what
 * this comes to. Where experts are chosen it changes some rows' choice, and then all their logits,
 * so the median alone is bounded closely there, and more loosely where more layers choose.
 */
static void check(const char *name, const char *folder, double median, double largest)
{
    static struct golden g;
    char dir[1024];
    struct case_run *r = make_run(name, folder, dir, &g);
    struct oracle_result found = oracle_run(r, name);
    assert_true(found.median <= median);
    assert_true(found.largest <= largest);
    free(g.logits);
}

/* An int8 cache rounds the largest of 32 elements by 2^-8 of it. */
static void int8(void **state)
{
    (void)state;
    static struct golden g;
    char dir[1024];
    struct case_run *r = make_run("qwen3", "oracle", dir, &g);
    r->kv = KV_INT8;
    assert_true(oracle_run(r, "qwen3").median <= 4e-2);
    free(g.logits);
}

#define DENSE(name)                                                                                \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        check(#name, "oracle", 1.5e-2, 4e-2);                                                      \
    }
#define SPARSE(name, folder)                                                                       \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        check(#name, folder, 4e-2, 0.7);                                                           \
    }
DENSE(qwen3)
SPARSE(headdim, "oracle")
SPARSE(odd, "oracle")
SPARSE(sharded, "oracle")
SPARSE(tied, "oracle")
SPARSE(fp8, "quantised")
SPARSE(gptq, "quantised")
SPARSE(awq, "quantised")

/* What rows of 16 bytes cannot hold is refused: heads of 12 columns, and
 * experts of 20. */
static void shapes_that_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"qwen2", "gqa16"};
    static const char *const words[] = {
        "attention heads: expected a head_dim that is a multiple of 8, found 12",
        "expected a multiple of 8 columns, found 20",
    };
    for (int i = 0; i < 2; i++) {
        static struct golden g;
        char dir[1024];
        struct error err = {0};
        struct case_run *r = make_run(names[i], "oracle", dir, &g);
        assert_int_equal(comm_local_run(1, rank_main, r, &err), ERR_UNSUPPORTED);
        assert_non_null(strstr(err.msg, words[i]));
        assert_non_null(strstr(err.msg, "on CPUs"));
        free(g.logits);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(shapes_that_are_refused),
    cmocka_unit_test(qwen3),
    cmocka_unit_test(int8),
    cmocka_unit_test(headdim),
    cmocka_unit_test(odd),
    cmocka_unit_test(sharded),
    cmocka_unit_test(tied),
    cmocka_unit_test(fp8),
    cmocka_unit_test(gptq),
    cmocka_unit_test(awq),
};

UNIT_MAIN(tests)
