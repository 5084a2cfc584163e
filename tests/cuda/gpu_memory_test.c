/*
 * A GPU's memory on the emulator, which is given a size: what the plan says against what is
 * allocated, the KV cache that takes what is left, and what is refused before anything is there.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/simt/control.h"
#include "worker/cuda_backend.h"
#include "worker/gpu_memory.h"

enum { CONTEXT = 512, SEQS = 8, MB = 1 << 20 };

static const char shape[] = "--hidden 256 --layers 2 --heads 4 --kv-heads 2 --head-dim 64 "
                            "--experts 4 --top-k 2 --moe-intermediate 256 --vocab 2000";

struct trial {
    const char *dir;
    int32_t world;
    struct engine_limits limits;
    struct error err;
    /* What came of it. */
    enum status status;
    uint64_t planned[2], kv_bytes[2]; /* of each rank, with the KV cache */
    int32_t kv_blocks[2];
    uint64_t allocated; /* on the device, by all */
};

static struct engine_limits limits(void)
{
    return (struct engine_limits){.max_rows = 64,
                                  .max_seqs = SEQS,
                                  .max_logits = SEQS,
                                  .context = CONTEXT,
                                  .threads = 1,
                                  .kv_dtype = KV_BF16};
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct trial *t = arg;
    struct model *m = NULL;
    const struct model_options o = {
        .dir = t->dir,
        .layout = {1, t->world, 1, 0},
        .limits = t->limits,
        .kernels = "auto",
        .cuda = witan_cuda_plugin(CUDA_PLUGIN_VERSION),
        .collectives = "staged",
    };
    TRY(model_create(&o, world, &m, err));
    t->planned[world->rank] = memory_plan_total(&m->memory_plan);
    t->kv_blocks[world->rank] = m->limits.kv_blocks;
    t->kv_bytes[world->rank] = (uint64_t)m->limits.kv_blocks *
                               plan_kv_block_bytes(&m->config, m->rank, m->limits.kv_dtype);
    enum status st = comm_agree(world, OK, err); /* all are there */
    if (world->rank == 0)
        t->allocated = simt_allocated();
    st = comm_agree(world, st, err);
    model_destroy(m);
    return st;
}

static void run(struct trial *t, uint64_t bytes)
{
    assert_int_equal(simt_allocated(), 0);
    simt_memory(bytes);
    t->status = comm_local_run(t->world, rank_main, t, &t->err);
    assert_int_equal(simt_allocated(), 0); /* given back, or never taken */
}

static void run_well(struct trial *t, uint64_t bytes)
{
    run(t, bytes);
    if (t->status != OK)
        fail_msg("%s", t->err.msg);
}

static void make_model(char dir[64])
{
    char command[1024];
    snprintf(dir, 64, "/tmp/witan_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "%s %s %s", MAKE_CHECKPOINT, dir, shape);
    assert_int_equal(system(command), 0);
}

static void remove_model(const char *dir)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* Within a hundredth and a page: borders between weights are not in the plan. */
static void near_the_plan(const struct trial *t)
{
    uint64_t planned = t->planned[0] + (t->world > 1 ? t->planned[1] : 0);
    if (t->allocated < planned / 100 * 99 || t->allocated > planned / 100 * 101 + 8192)
        fail_msg("planned %llu bytes, allocated %llu", (unsigned long long)planned,
                 (unsigned long long)t->allocated);
}

static void as_planned(void **state)
{
    (void)state;
    char dir[64];
    make_model(dir);
    for (int32_t world = 1; world <= 2; world++) {
        struct trial t = {.dir = dir, .world = world, .limits = limits()};
        run_well(&t, UINT64_MAX); /* as a device that does not say */
        assert_int_equal(t.kv_blocks[0], SEQS * CONTEXT / KV_BLOCK);
        near_the_plan(&t);
        struct trial fixed = t;
        fixed.limits.kv_blocks = 11;
        run_well(&fixed, (uint64_t)100 * MB);
        assert_int_equal(fixed.kv_blocks[0], 11);
        near_the_plan(&fixed);
    }
    remove_model(dir);
}

/* A device that holds three and a half sequences beside the rest, for one rank and for two. */
static void the_cache_takes_what_is_left(void **state)
{
    (void)state;
    static const int32_t percents[] = {0, 50}; /* 0: 90 */
    char dir[64];
    make_model(dir);
    for (int32_t world = 1; world <= 2; world++)
        for (size_t i = 0; i < COUNT_OF(percents); i++) {
            struct trial all = {.dir = dir, .world = world, .limits = limits()};
            run_well(&all, UINT64_MAX);
            uint64_t cache = all.kv_bytes[0] + all.kv_bytes[1], rest = all.allocated - cache;
            struct trial t = all;
            t.limits.gpu_percent = percents[i];
            uint64_t percent = percents[i] > 0 ? (uint64_t)percents[i] : 90;
            uint64_t bytes = (rest + cache * 7 / 16) * 100 / percent + 100;
            run_well(&t, bytes);
            assert_int_equal(t.kv_blocks[0], all.kv_blocks[0] * 7 / 16);
            assert_int_equal(t.kv_blocks[world - 1], t.kv_blocks[0]);
            assert_true(t.allocated <= bytes / 100 * percent);
            near_the_plan(&t);
        }
    remove_model(dir);
}

static void has_words(const struct trial *t, const char *words)
{
    if (!strstr(t->err.msg, words) || strchr(t->err.msg, '\n'))
        fail_msg("expected one line with \"%s\", found \"%s\"", words, t->err.msg);
}

static void refused_before_anything_is_there(void **state)
{
    (void)state;
    char dir[64];
    make_model(dir);
    for (int32_t world = 1; world <= 2; world++) {
        struct trial t = {.dir = dir, .world = world, .limits = limits()};
        run(&t, 4 * MB);
        assert_int_equal(t.status, ERR_NO_MEMORY);
        has_words(&t, world == 1 ? "GPU 0 (emulator): 1 rank needs "
                                 : "GPU 0 (emulator): 2 ranks need ");
        has_words(&t, "expected at most 3.8 MB (90 % of 4.2 MB, less 0.0 MB that CUDA");
        has_words(&t, ": weights ");
        has_words(&t, ", KV cache ");
        has_words(&t, ", attention partials ");
        has_words(&t, "with a KV cache of one full context: use more GPUs");
    }
    remove_model(dir);
}

/* What takes the memory is the logits of many sequences: fewer fit, and they do. */
static void says_how_many_sequences_fit(void **state)
{
    (void)state;
    char dir[64];
    make_model(dir);
    struct trial t = {.dir = dir, .world = 1, .limits = limits()};
    t.limits.max_seqs = t.limits.max_logits = t.limits.max_rows = 2000;
    run(&t, 24 * MB);
    assert_int_equal(t.status, ERR_NO_MEMORY);
    const char *fit = strstr(t.err.msg, "one full context: ");
    int seqs = 0;
    assert_non_null(fit);
    assert_int_equal(sscanf(fit, "one full context: %d sequences", &seqs), 1);
    assert_true(seqs >= 1 && seqs < 2000);
    t.limits.max_seqs = t.limits.max_logits = t.limits.max_rows = seqs;
    run_well(&t, 24 * MB + 16384); /* room for the borders, as near_the_plan has it */
    t.limits.max_seqs = t.limits.max_logits = t.limits.max_rows = seqs + 20;
    run(&t, 24 * MB);
    assert_int_equal(t.status, ERR_NO_MEMORY);
    remove_model(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(as_planned),
    cmocka_unit_test(the_cache_takes_what_is_left),
    cmocka_unit_test(refused_before_anything_is_there),
    cmocka_unit_test(says_how_many_sequences_fit),
};

UNIT_MAIN(tests)
