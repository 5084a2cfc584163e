/*
 * The forward pass with weights of 8 and 4 bits: the same logits, bit for bit, alone and in
 * batches, in chunks, with any number of threads, in every layout and instruction set, whatever the
 * KV cache keeps; and near to those of the published weights. Ranks are threads here.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "worker/cpu/ops.h"
#include "worker/engine.h"

#include <math.h>
#include <stdlib.h>

enum { REQUESTS = 6, MOST = 96, DRAWN = 5, VOCAB = 2816 };

struct run {
    const char *dir, *kernels;
    enum weight_mode weights;
    enum kv_dtype kv;
    struct layout layout;
    int32_t threads, rows, seqs, chunk;
    int32_t filled[REQUESTS]; /* positions that have logits: all from 0 on */
    float logits[REQUESTS][MOST][VOCAB];
    int32_t vocab;
};

struct asked {
    struct run *run;
    int32_t number;
};

static int32_t prompt_len(int32_t number)
{
    return 1 + number * 17;
}

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct asked *a = user;
    int32_t *filled = &a->run->filled[a->number];
    CHECK(pos == *filled && pos < MOST && vocab <= VOCAB, "position %d of %d logits", pos, vocab);
    memcpy(a->run->logits[a->number][pos], logits, (size_t)vocab * sizeof *logits);
    a->run->vocab = vocab;
    (*filled)++;
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)user;
    (void)token;
    (void)finish;
}

static enum status lead(struct engine *e, struct run *r, struct error *err)
{
    static struct asked asked[REQUESTS];
    int32_t prompt[MOST];
    for (int32_t i = 0; i < REQUESTS; i++) {
        asked[i] = (struct asked){r, i};
        for (int32_t k = 0; k < prompt_len(i); k++)
            prompt[k] = (i * 31 + k * 17 + 5) % 250;
        const struct request q = {.prompt = prompt,
                                  .prompt_len = prompt_len(i),
                                  .max_tokens = DRAWN,
                                  .ignore_eos = true,
                                  .all_logits = true,
                                  .sampling = {.top_p = 1.0f},
                                  .on_logits = on_logits,
                                  .on_token = on_token,
                                  .user = &asked[i]};
        TRY(engine_submit(e, &q, NULL, err));
    }
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
    return engine_stop(e, err);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    const struct model_options options = {
        .dir = r->dir,
        .weights = r->weights,
        .layout = r->layout,
        .limits = {.max_rows = r->rows,
                   .max_logits = r->rows,
                   .max_seqs = r->seqs,
                   .context = MOST + DRAWN,
                   .threads = r->threads,
                   .kv_dtype = r->kv},
        .kernels = r->kernels,
    };
    const struct engine_options eo = {.no_prefix_cache = true, .chunk = r->chunk};
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &eo, &e, err);
    if (st == OK && world->rank == 0) {
        st = lead(e, r, err);
    } else if (st == OK) {
        enum engine_left ignored;
        st = engine_follow(e, &ignored, err);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void run(struct run *r)
{
    struct error err;
    log_set_level(LOG_ERROR);
    memset(r->filled, 0, sizeof r->filled);
    if (comm_local_run(r->layout.pp * r->layout.w, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
    for (int32_t i = 0; i < REQUESTS; i++)
        assert_int_equal(r->filled[i], prompt_len(i) + DRAWN - 1);
}

static const char lexicon[] = WITAN_SOURCE_DIR "/deploy/lexicon/model";
static const char dense[] = WITAN_SOURCE_DIR "/tests/golden/oracle/dense";
static const char tied[] = WITAN_SOURCE_DIR "/tests/golden/oracle/tied";

static struct run base, other;

/* One thread, one request at a time. */
static void run_base(const char *dir, enum weight_mode weights, enum kv_dtype kv)
{
    base = (struct run){.dir = dir,
                        .weights = weights,
                        .kv = kv,
                        .kernels = "auto",
                        .layout = {1, 1, 1, 1},
                        .threads = 1,
                        .rows = MOST,
                        .seqs = 1};
    run(&base);
}

static void same(const char *kernels, struct layout layout, int32_t threads, int32_t rows,
                 int32_t seqs, int32_t chunk)
{
    other.dir = base.dir;
    other.weights = base.weights;
    other.kv = base.kv;
    other.kernels = kernels;
    other.layout = layout;
    other.threads = threads;
    other.rows = rows;
    other.seqs = seqs;
    other.chunk = chunk;
    run(&other);
    for (int32_t i = 0; i < REQUESTS; i++)
        for (int32_t p = 0; p < base.filled[i]; p++)
            if (memcmp(base.logits[i][p], other.logits[i][p], (size_t)base.vocab * sizeof(float)) !=
                0)
                fail_msg("%s, %s, %s, pp %d tp %d ep %d, %d threads, %d rows, chunks of %d: "
                         "request %d's position %d has other logits than alone",
                         base.dir, weight_mode_name(base.weights), kernels, layout.pp, layout.tp,
                         layout.ep, threads, rows, chunk, i, p);
}

static const struct layout one = {1, 1, 1, 1};

static void check_equal(const char *dir, enum weight_mode weights, enum kv_dtype kv)
{
    run_base(dir, weights, kv);
    same("auto", one, 1, 300, REQUESTS, 0);
    same("auto", one, 2, 64, 3, 7);
    same("auto", one, 3, 33, REQUESTS, 0);
    same("auto", one, 4, 300, REQUESTS, 1);
    same("auto", (struct layout){1, 2, 2, 2}, 1, 100, REQUESTS, 0);
    same("auto", (struct layout){1, 2, 1, 2}, 2, 64, 3, 50);
    same("auto", (struct layout){1, 1, 2, 2}, 1, 300, REQUESTS, 0);
    same("auto", (struct layout){2, 1, 1, 1}, 2, 300, REQUESTS, 20);
}

static void int8_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    check_equal(lexicon, WEIGHTS_INT8, KV_BF16);
}

static void int4_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    check_equal(lexicon, WEIGHTS_INT4, KV_INT8);
}

/* Some matrices in panels and some not: o_proj and down of these have no whole blocks. */
static void mixed_forms_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    check_equal(dense, WEIGHTS_INT8, KV_F32);
    check_equal(dense, WEIGHTS_INT4, KV_INT8);
    check_equal(tied, WEIGHTS_INT4, KV_BF16);
}

static void every_instruction_set_has_the_same_bits(void **state)
{
    (void)state;
    for (int four = 0; four < 2; four++) {
        run_base(lexicon, four ? WEIGHTS_INT4 : WEIGHTS_INT8, KV_BF16);
        for (int i = 0; cpu_ops_name(i); i++) {
            const struct cpu_ops *ops;
            struct error err;
            if (cpu_ops_choose(cpu_ops_name(i), &ops, &err) != OK) {
                fprintf(stderr, "left out: %s\n", err.msg);
                continue;
            }
            same(cpu_ops_name(i), one, 2, 100, REQUESTS, 0);
        }
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* |logits - published ones| over |published ones|: the median of the prompts' positions, since
 * where rounding changes an expert the difference says nothing of its size. */
static double error_of(enum weight_mode weights)
{
    static double errors[REQUESTS * MOST];
    int count = 0;
    other = (struct run){.dir = base.dir,
                         .weights = weights,
                         .kv = base.kv,
                         .kernels = "auto",
                         .layout = one,
                         .threads = 2,
                         .rows = 300,
                         .seqs = REQUESTS};
    run(&other);
    for (int32_t i = 0; i < REQUESTS; i++)
        for (int32_t p = 0; p < prompt_len(i); p++) {
            double difference = 0, size = 0;
            for (int32_t v = 0; v < base.vocab; v++) {
                double x = (double)base.logits[i][p][v], y = (double)other.logits[i][p][v];
                difference += (x - y) * (x - y);
                size += x * x;
            }
            errors[count++] = sqrt(difference / size);
        }
    qsort(errors, (size_t)count, sizeof *errors, ascending);
    return errors[count / 2];
}

static void logits_are_near_to_the_published_weights(void **state)
{
    (void)state;
    static const struct {
        const char *dir;
        double int8, int4; /* at most; a scale that is wrong by a half is above */
    } bounds[] = {{lexicon, 0.06, 0.5}, {dense, 0.06, 0.5}, {tied, 0.06, 0.5}};
    for (size_t i = 0; i < COUNT_OF(bounds); i++) {
        run_base(bounds[i].dir, WEIGHTS_PUBLISHED, KV_BF16);
        double int8 = error_of(WEIGHTS_INT8), int4 = error_of(WEIGHTS_INT4);
        fprintf(stderr, "%s: int8 %.5f, int4 %.5f\n", bounds[i].dir, int8, int4);
        assert_true(int8 > 0 && int8 < bounds[i].int8);
        assert_true(int4 > int8 && int4 < bounds[i].int4);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(int8_has_the_same_bits_everywhere),
    cmocka_unit_test(int4_has_the_same_bits_everywhere),
    cmocka_unit_test(mixed_forms_have_the_same_bits_everywhere),
    cmocka_unit_test(every_instruction_set_has_the_same_bits),
    cmocka_unit_test(logits_are_near_to_the_published_weights),
};

UNIT_MAIN(tests)
