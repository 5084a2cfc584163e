/*
 * What tests against Transformers' logits share (tests/golden/oracle): a model's golden, and a run
 * over its prompt and then token by token that compares each row of logits.
 */
#ifndef WITAN_TESTS_UNIT_WORKER_ORACLE_H
#define WITAN_TESTS_UNIT_WORKER_ORACLE_H

#include "tests/unit/unit.h"

#include "base/json.h"
#include "base/log.h"
#include "worker/engine.h"

#include <math.h>

enum { MAX_IDS = 1024 };

struct golden {
    int32_t prompt[MAX_IDS], greedy[MAX_IDS], at[2 * MAX_IDS];
    int32_t prompt_len, greedy_len, rows;
    int32_t vocab;
    double max_abs;
    float *logits; /* [rows, vocab]: of position at[row] */
};

struct case_run {
    const struct golden *g;
    const char *dir;
    struct layout layout;
    enum kv_dtype kv;
    const struct cuda_plugin *cuda; /* NULL: the CPU backend */
    int32_t drawn[MAX_IDS];
    int32_t count;
    int32_t compared;          /* rows */
    double worst[2 * MAX_IDS]; /* [compared]: largest difference in each row */
};

static int32_t read_ids(const json_t *array, int32_t *out, int32_t cap)
{
    assert_true(json_is_array(array) && json_array_size(array) <= (size_t)cap);
    for (size_t i = 0; i < json_array_size(array); i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return (int32_t)json_array_size(array);
}

static void read_golden(const char *dir, struct golden *g)
{
    char path[1100];
    struct error err;
    json_t *root;
    int64_t vocab = 0;
    snprintf(path, sizeof path, "%s/golden.json", dir);
    assert_int_equal(json_parse_file(path, 1 << 24, &root, &err), OK);
    g->prompt_len = read_ids(json_object_get(root, "prompt"), g->prompt, MAX_IDS);
    g->greedy_len = read_ids(json_object_get(root, "greedy"), g->greedy, MAX_IDS);
    g->rows = read_ids(json_object_get(root, "logits_at"), g->at, 2 * MAX_IDS);
    assert_int_equal(json_get_int(root, path, "vocab_size", true, 1, 1 << 24, &vocab, &err), OK);
    assert_int_equal(json_get_real(root, path, "max_abs", true, 0, 1e9, &g->max_abs, &err), OK);
    json_decref(root);
    g->vocab = (int32_t)vocab;
    assert_true(g->prompt_len >= 64);
    snprintf(path, sizeof path, "%s/logits.f32", dir);
    FILE *f = fopen(path, "rb");
    size_t n = (size_t)g->rows * (size_t)g->vocab;
    g->logits = malloc(n * sizeof *g->logits);
    assert_true(f && g->logits);
    assert_int_equal(fread(g->logits, sizeof *g->logits, n, f), n);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

static void on_logits(void *user, int32_t pos, const float *logits, int32_t vocab)
{
    struct case_run *r = user;
    const struct golden *g = r->g;
    int32_t row = 0;
    assert_int_equal(vocab, g->vocab);
    while (row < g->rows && g->at[row] != pos)
        row++;
    if (row == g->rows)
        return;
    assert_true(r->compared < 2 * MAX_IDS);
    double *worst = &r->worst[r->compared++];
    for (int32_t i = 0; i < vocab; i++) {
        double d = fabs((double)logits[i] - (double)g->logits[(size_t)row * (size_t)vocab + i]);
        assert_false(isnan(d));
        *worst = d > *worst ? d : *worst;
    }
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    struct case_run *r = user;
    (void)finish;
    if (token >= 0 && r->count < MAX_IDS)
        r->drawn[r->count++] = token;
}

/* Draws the whole continuation, one more than its last token needs so that its row is seen too. */
static enum status ask(struct engine *e, struct case_run *r, bool all, struct error *err)
{
    const struct golden *g = r->g;
    struct request q = {
        .prompt = g->prompt,
        .prompt_len = g->prompt_len,
        .max_tokens = all ? 0 : g->greedy_len + 1,
        .ignore_eos = true,
        .all_logits = all,
        .sampling = {.top_p = 1.0f},
        .on_token = on_token,
        .on_logits = on_logits,
        .user = r,
    };
    TRY(engine_submit(e, &q, NULL, err));
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
    return OK;
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct case_run *r = arg;
    struct model_options options = {
        .dir = r->dir,
        .layout = r->layout,
        .limits = {.max_rows = MAX_IDS,
                   .max_logits = MAX_IDS,
                   .max_seqs = 1,
                   .context = r->g->prompt_len + r->g->greedy_len + 1,
                   .threads = 1,
                   .kv_dtype = r->kv},
        .kernels = "auto",
        .cuda = r->cuda,
        .collectives = "staged",
    };
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    enum status st = engine_create(m, &(struct engine_options){0}, &e, err);
    if (st == OK && world->rank == 0) {
        st = ask(e, r, true, err);
        if (st == OK)
            st = ask(e, r, false, err);
        struct error ignored;
        engine_stop(e, &ignored);
    } else if (st == OK) {
        enum engine_left ignored;
        st = engine_follow(e, &ignored, err);
    }
    engine_destroy(e);
    model_destroy(m);
    return st;
}

/* Rows compared in the pass over all positions of the prompt. */
static int32_t rows_of_prompt(const struct golden *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->rows; i++)
        n += g->at[i] < g->prompt_len;
    return n;
}

/* And in all: the prompt's last position again and every later one while decoding. */
static int32_t rows_expected(const struct golden *g)
{
    int32_t n = rows_of_prompt(g);
    for (int32_t i = 0; i < g->rows; i++)
        n += g->at[i] >= g->prompt_len - 1;
    return n;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What came of a run, as parts of the largest |logit| of the reference. */
struct oracle_result {
    double largest, median; /* of the rows' largest differences */
    int32_t rows, same;     /* rows compared; greedy tokens that are the reference's */
};

static struct oracle_result oracle_run(struct case_run *r, const char *name)
{
    const struct golden *g = r->g;
    struct error err = {0};
    enum status st = comm_local_run(r->layout.pp * r->layout.w, rank_main, r, &err);
    if (st != OK)
        fail_msg("%s: %s", name, err.msg);
    int32_t same = 0;
    while (same < g->greedy_len && r->drawn[same] == g->greedy[same])
        same++;
    assert_int_equal(r->count, g->greedy_len + 1);
    assert_int_equal(r->compared, rows_expected(g));
    /* Rows after a token that differs answer another text. The first pass fed the reference's. */
    int32_t rows = same == g->greedy_len ? r->compared : rows_of_prompt(g);
    qsort(r->worst, (size_t)rows, sizeof r->worst[0], by_size);
    struct oracle_result result = {r->worst[rows - 1] / g->max_abs, r->worst[rows / 2] / g->max_abs,
                                   rows, same};
    fprintf(stderr,
            "%s, %s KV, pp %d tp %d ep %d: of the largest logit at most %.2g, median row %.2g, in "
            "%d rows; %d of %d greedy tokens\n",
            name, kv_dtype_name(r->kv), r->layout.pp, r->layout.tp, r->layout.ep, result.largest,
            result.median, rows, same, g->greedy_len);
    return result;
}

/* The golden of a folder from the top of the tree, for a checkpoint at `model` there, whose path is
 * put into dir; counts as skipped where one is absent. */
static void oracle_find(const char *model, const char *figures, char dir[1024], struct golden *g)
{
    char golden[1024];
    snprintf(dir, 1024, "%s/%s", WITAN_SOURCE_DIR, model);
    snprintf(golden, sizeof golden, "%s/%s", WITAN_SOURCE_DIR, figures);
    if (access(dir, R_OK) != 0 || access(golden, R_OK) != 0) {
        fprintf(stderr, "skipped: %s or its golden folder is absent\n", model);
        exit(77);
    }
    log_set_level(LOG_WARN);
    read_golden(golden, g);
}

#endif
