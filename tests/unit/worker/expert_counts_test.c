/*
 * Counts of tokens by expert against a recount of the routes that the CPU backend made, rank by
 * rank: for batches, chunks and threads, and for every kind of layout, which all give the same.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/log.h"
#include "worker/engine.h"

#include <stdlib.h>

enum { REQUESTS = 5, DRAWN = 6, LAYERS = 8, EXPERTS = 64, RANKS = 8 };

struct run {
    const char *dir;
    struct layout layout;
    int32_t threads, rows, seqs, chunk;
    /* Of each rank: what its routes say of its own experts, and what it has counted. */
    uint64_t routed[RANKS][LAYERS][EXPERTS], counted[RANKS][LAYERS][EXPERTS];
    bool counts[RANKS], expected[RANKS];
    uint64_t fed; /* rows of all steps */
    int32_t top_k, layers, experts;
    uint8_t moe[LAYERS];
};

/* The rank that is this thread, and its backend's router. */
static _Thread_local struct {
    struct run *run;
    const struct rank_plan *rank;
    int32_t moe; /* layers with experts that this step has routed */
    void (*router)(struct backend *be, int32_t rows, const struct residual *r,
                   const struct matrix *w, int32_t top_k, bool renormalise, struct range local,
                   float *logits, struct route *route);
} here;

/* The next layer of this rank's that has experts, of the model. */
static int32_t next_layer(void)
{
    int32_t found = -1, all = 0;
    for (int32_t i = here.rank->layers.begin; i < here.rank->layers.end; i++)
        if (here.run->moe[i])
            found = all++ == here.moe ? i : found;
    here.moe = (here.moe + 1) % all;
    return found;
}

static void watched_router(struct backend *be, int32_t rows, const struct residual *r,
                           const struct matrix *w, int32_t top_k, bool renormalise,
                           struct range local, float *logits, struct route *route)
{
    here.router(be, rows, r, w, top_k, renormalise, local, logits, route);
    uint64_t *routed = here.run->routed[here.rank->rank][next_layer()];
    for (int32_t e = local.begin; e < local.end; e++)
        routed[e] += (uint64_t)(route->first[e - local.begin + 1] - route->first[e - local.begin]);
}

static void on_token(void *user, int32_t token, enum finish finish)
{
    (void)user;
    (void)token;
    (void)finish;
}

static enum status lead(struct engine *e, struct run *r, struct error *err)
{
    int32_t prompt[64];
    for (int32_t i = 0; i < REQUESTS; i++) {
        int32_t len = 1 + i * 13;
        for (int32_t k = 0; k < len; k++)
            prompt[k] = (i * 31 + k * 17 + 5) % 250;
        const struct request q = {.prompt = prompt,
                                  .prompt_len = len,
                                  .max_tokens = DRAWN,
                                  .ignore_eos = true,
                                  .sampling = {.top_p = 1.0f},
                                  .on_token = on_token};
        TRY(engine_submit(e, &q, NULL, err));
    }
    for (bool ran = true; ran;)
        TRY(engine_step(e, &ran, err));
    r->fed = engine_stats(e)->rows;
    return engine_stop(e, err);
}

static void keep_counts(struct run *r, const struct model *m, int rank)
{
    const struct expert_counts *c = m->expert_counts;
    uint64_t out[LAYERS * EXPERTS], sum = 0;
    r->counts[rank] = c != NULL;
    for (int32_t i = m->rank->layers.begin; i < m->rank->layers.end; i++)
        r->expected[rank] |= rank % r->layout.w == 0 && r->moe[i];
    if (!c)
        return;
    CHECK(c->layers.begin == m->rank->layers.begin && c->layers.end == m->rank->layers.end &&
              c->experts == m->config.experts,
          "layers %d to %d", c->layers.begin, c->layers.end);
    uint64_t told = expert_counts_read(c, out);
    for (int32_t i = 0; i < expert_counts_size(c); i++) {
        r->counted[rank][c->layers.begin + i / c->experts][i % c->experts] = out[i];
        sum += out[i];
    }
    CHECK(told == sum, "%llu in all, not %llu", (unsigned long long)told, (unsigned long long)sum);
}

static enum status rank_main(struct comm *world, void *arg, struct error *err)
{
    struct run *r = arg;
    const struct model_options options = {
        .dir = r->dir,
        .layout = r->layout,
        .limits = {.max_rows = r->rows,
                   .max_logits = r->seqs,
                   .max_seqs = r->seqs,
                   .context = 64 + DRAWN,
                   .threads = r->threads,
                   .kv_dtype = KV_BF16},
        .kernels = "auto",
    };
    const struct engine_options eo = {.no_prefix_cache = true, .chunk = r->chunk};
    struct model *m = NULL;
    struct engine *e = NULL;
    TRY(model_create(&options, world, &m, err));
    struct kernels watched = *m->kernels;
    here.run = r;
    here.rank = m->rank;
    here.moe = 0;
    here.router = watched.router;
    watched.router = watched_router;
    m->kernels = &watched;
    enum status st = engine_create(m, &eo, &e, err);
    if (world->rank == 0) { /* before the others route anything: a step comes from here */
        r->top_k = m->config.top_k;
        r->layers = m->config.layers;
        r->experts = m->config.experts;
    }
    if (st == OK && world->rank == 0) {
        st = lead(e, r, err);
    } else if (st == OK) {
        enum engine_left ignored;
        st = engine_follow(e, &ignored, err);
    }
    keep_counts(r, m, world->rank);
    engine_destroy(e);
    model_destroy(m);
    return st;
}

static void know_layers(struct run *r)
{
    static struct model_config config;
    struct generation_config ignored;
    struct error err;
    if (config_load(r->dir, &config, &ignored, &err) != OK)
        fail_msg("%s", err.msg);
    assert_true(config.layers <= LAYERS && config.experts <= EXPERTS);
    memcpy(r->moe, config.layer_is_moe, (size_t)config.layers);
}

static struct run base, other;

/* Each expert's tokens are those of the routes of a rank that has it whole or its first columns. */
static void check_recount(const struct run *r)
{
    int32_t w = r->layout.w, moe_tp = w / r->layout.ep;
    for (int32_t rank = 0; rank < r->layout.pp * w; rank++)
        assert_int_equal(r->counts[rank], r->expected[rank]);
    for (int32_t layer = 0; layer < r->layers; layer++) {
        uint64_t sum = 0;
        for (int32_t e = 0; e < r->experts; e++) {
            uint64_t routed = 0, counted = 0;
            for (int32_t rank = 0; rank < r->layout.pp * w; rank++) {
                counted += r->counted[rank][layer][e];
                if (rank % moe_tp == 0)
                    routed += r->routed[rank][layer][e];
            }
            if (counted != routed)
                fail_msg("layer %d, expert %d: counted %llu tokens, routed %llu", layer, e,
                         (unsigned long long)counted, (unsigned long long)routed);
            sum += counted;
        }
        assert_int_equal(sum, r->moe[layer] ? r->fed * (uint64_t)r->top_k : 0);
    }
}

static void run(struct run *r)
{
    struct error err;
    log_set_level(LOG_ERROR);
    know_layers(r);
    if (comm_local_run(r->layout.pp * r->layout.w, rank_main, r, &err) != OK)
        fail_msg("%s", err.msg);
    assert_true(r->fed >= REQUESTS * DRAWN);
    check_recount(r);
}

/* All stages' counts, by layer. */
static uint64_t counted(const struct run *r, int32_t layer, int32_t e)
{
    uint64_t n = 0;
    for (int32_t rank = 0; rank < RANKS; rank++)
        n += r->counted[rank][layer][e];
    return n;
}

static void same(struct layout layout, int32_t threads, int32_t rows, int32_t seqs, int32_t chunk)
{
    other = (struct run){.dir = base.dir,
                         .layout = layout,
                         .threads = threads,
                         .rows = rows,
                         .seqs = seqs,
                         .chunk = chunk};
    run(&other);
    assert_int_equal(base.fed, other.fed);
    for (int32_t layer = 0; layer < base.layers; layer++)
        for (int32_t e = 0; e < base.experts; e++)
            assert_int_equal(counted(&base, layer, e), counted(&other, layer, e));
}

static void check_model(const char *dir)
{
    const struct layout one = {1, 1, 1, 1};
    base = (struct run){.dir = dir, .layout = one, .threads = 1, .rows = 64, .seqs = 1};
    run(&base);
    same(one, 2, 100, REQUESTS, 0);
    same(one, 3, 17, 3, 5);
    same((struct layout){1, 2, 1, 2}, 1, 64, REQUESTS, 0);
    same((struct layout){1, 1, 2, 2}, 1, 64, REQUESTS, 7);
    same((struct layout){1, 2, 2, 4}, 1, 64, 3, 0);
    same((struct layout){2, 2, 2, 2}, 2, 64, REQUESTS, 0);
}

static void counts_are_those_of_the_routes(void **state)
{
    (void)state;
    check_model(WITAN_SOURCE_DIR "/tests/golden/oracle/odd");
}

static void dense_layers_have_none(void **state)
{
    (void)state;
    check_model(WITAN_SOURCE_DIR "/tests/golden/oracle/dense");
}

static void a_model_without_experts_counts_nothing(void **state)
{
    (void)state;
    static struct model_config config = {.layers = 2};
    const struct plan plan = {.layout = {1, 1, 1, 1}};
    const struct rank_plan rank = {.layers = {0, 2}};
    struct expert_counts *c;
    struct error err;
    assert_int_equal(expert_counts_create(&config, &plan, &rank, &c, &err), OK);
    assert_null(c);
    config.layer_is_moe[1] = 1;
    config.experts = EXPERT_COUNTS_MAX / 2 + 1; /* more than are kept */
    assert_int_equal(expert_counts_create(&config, &plan, &rank, &c, &err), OK);
    assert_null(c);
    config.experts--;
    assert_int_equal(expert_counts_create(&config, &plan, &rank, &c, &err), OK);
    assert_non_null(c);
    assert_int_equal(expert_counts_size(c), EXPERT_COUNTS_MAX);
    expert_counts_destroy(c);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(counts_are_those_of_the_routes),
    cmocka_unit_test(dense_layers_have_none),
    cmocka_unit_test(a_model_without_experts_counts_nothing),
};

UNIT_MAIN(tests)
