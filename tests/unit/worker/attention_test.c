/*
 * The CPU backend's attention against the arithmetic that attention_ops.h states, written out one
 * number after the other: the same bits in every instruction set, whoever shares a tile with whom
 * and however many threads there are.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "base/pool.h"
#include "tests/unit/random.h"
#include "tests/unit/sets.h"
#include "worker/cpu/vec.h"
#include "worker/detmath_inline.h"
#include "worker/kernels.h"

enum { MAX_ROWS = 96, MAX_SEQS = 5, MAX_TILES = 8, MAX_HD = 256 };

/* A step of rows of some sequences over a cache. */
struct step {
    struct attention a;
    struct kv_layer kv;
    float *q, *expected; /* [rows][query heads][row], [rows][query heads][head_dim] */
    int32_t rows, sequences, blocks;
    int32_t length[MAX_SEQS]; /* positions that are in the cache */
    int32_t tables[MAX_SEQS][MAX_TILES];
    int32_t pos[MAX_ROWS];
    const int32_t *table[MAX_ROWS];
};

/* --- the reference -------------------------------------------------------------------------- */

static float element(const struct step *s, const char *tile, int64_t i)
{
    if (s->kv.dtype == KV_INT8)
        return (float)((const int8_t *)tile)[i];
    return s->kv.dtype == KV_F32 ? ((const float *)(const void *)tile)[i]
                                 : bf16_to_f32(((const uint16_t *)(const void *)tile)[i]);
}

static float scale(const struct step *s, char *tile, int32_t d, int32_t p)
{
    return bf16_to_f32(kv8_scales(tile, s->kv.row)[d / KV8_GROUP * KV_BLOCK + p]);
}

static float score(const struct step *s, const float *q, char *k, int32_t p)
{
    float all = 0.0f;
    for (int32_t d = 0; d < s->kv.row;) {
        int32_t end = s->kv.dtype == KV_INT8 && d + KV8_GROUP < s->kv.row ? d + KV8_GROUP
                                                                          : s->kv.row;
        float sum = 0.0f, factor = s->kv.dtype == KV_INT8 ? scale(s, k, d, p) : 1.0f;
        for (; d < end; d++)
            sum = fmaf(q[d], element(s, k, (int64_t)d * KV_BLOCK + p), sum);
        all = s->kv.dtype == KV_INT8 ? fmaf(sum, factor, all) : sum;
    }
    return all;
}

/* 16 -> 8 -> 4 by adding the upper half to the lower, then (0 + 2) + (1 + 3). */
static float lanes_sum(float *x)
{
    for (int n = 8; n >= 4; n /= 2)
        for (int i = 0; i < n; i++)
            x[i] += x[i + n];
    return (x[0] + x[2]) + (x[1] + x[3]);
}

struct seen {
    float m, l, o[MAX_HD];
};

static struct seen see_tile(const struct step *s, const float *q, char *k, int32_t count)
{
    float p[KV_BLOCK] = {0}, lanes[16] = {0};
    char *v = k + kv_tile_bytes(s->kv.dtype, s->kv.row);
    struct seen x;
    for (int32_t i = 0; i < count; i++)
        p[i] = score(s, q, k, i);
    x.m = p[0];
    for (int32_t i = 1; i < count; i++)
        x.m = p[i] > x.m ? p[i] : x.m;
    for (int32_t i = 0; i < count; i++) {
        p[i] = detmath_expf(p[i] - x.m);
        lanes[i % 16] += p[i];
    }
    x.l = lanes_sum(lanes);
    for (int32_t d = 0; d < s->kv.row; d++) {
        x.o[d] = 0.0f;
        for (int32_t i = 0; i < count; i++) {
            float w = s->kv.dtype == KV_INT8 ? p[i] * scale(s, v, d, i) : p[i];
            x.o[d] = fmaf(w, element(s, v, (int64_t)i * s->kv.row + d), x.o[d]);
        }
    }
    return x;
}

static void join(const struct step *s, struct seen *all, const struct seen *x)
{
    float top = x->m > all->m ? x->m : all->m;
    float was = detmath_expf(all->m - top), now = detmath_expf(x->m - top);
    all->m = top;
    all->l = fmaf(all->l, was, x->l * now);
    for (int32_t d = 0; d < s->kv.row; d++)
        all->o[d] = fmaf(all->o[d], was, x->o[d] * now);
}

static void expect_head(const struct step *s, int32_t row, int32_t head)
{
    int32_t heads = range_size(s->a.q_heads), length = s->pos[row] + 1;
    int32_t kv_head = (s->a.q_heads.begin + head) / s->a.group - s->a.kv_heads.begin;
    const float *q = s->q + ((int64_t)row * heads + head) * s->a.row;
    struct seen all = {0};
    for (int32_t t = 0; t * KV_BLOCK < length; t++) {
        int32_t count = length - t * KV_BLOCK < KV_BLOCK ? length - t * KV_BLOCK : KV_BLOCK;
        struct seen x = see_tile(s, q, kv_tile(&s->kv, s->table[row][t], kv_head), count);
        if (t == 0)
            all = x;
        else
            join(s, &all, &x);
    }
    for (int32_t d = 0; d < s->a.head_dim; d++)
        s->expected[((int64_t)row * heads + head) * s->a.head_dim + d] = all.o[d] / all.l;
}

/* --- steps ---------------------------------------------------------------------------------- */

static const uint16_t BF16_NAN = 0x7fc0;

/* Element d at a position of K or V: NaN where no row may look. */
static void put(const struct step *s, char *tile, bool key, int32_t p, int32_t d, bool seen,
                uint64_t *rng)
{
    int64_t i = key ? (int64_t)d * KV_BLOCK + p : (int64_t)p * s->kv.row + d;
    float x = random_float(rng, 1.0);
    x = seen ? x : bf16_to_f32(BF16_NAN);
    if (s->kv.dtype == KV_F32)
        ((float *)(void *)tile)[i] = x;
    else if (s->kv.dtype == KV_BF16)
        ((uint16_t *)(void *)tile)[i] = f32_to_bf16(x);
    else
        ((int8_t *)tile)[i] = (int8_t)random_int(rng, -127, 127);
    if (s->kv.dtype == KV_INT8 && d % KV8_GROUP == 0)
        kv8_scales(tile, s->kv.row)[d / KV8_GROUP * KV_BLOCK + p] =
            seen ? f32_to_bf16(random_float(rng, 0.01)) : BF16_NAN;
}

static void fill_cache(struct step *s, uint64_t *rng)
{
    size_t bytes = kv_tile_bytes(s->kv.dtype, s->kv.row);
    s->kv.data = check_calloc((size_t)s->blocks * (size_t)s->kv.heads * 2, bytes);
    for (int32_t i = 0; i < s->sequences; i++)
        for (int32_t p = 0; p < MAX_TILES * KV_BLOCK; p++) {
            int32_t block = s->tables[i][p / KV_BLOCK];
            for (int32_t h = 0; block < s->blocks && h < s->kv.heads; h++)
                for (int32_t d = 0; d < s->kv.row; d++) {
                    char *k = kv_tile(&s->kv, block, h);
                    bool seen = p < s->length[i];
                    put(s, k, true, p % KV_BLOCK, d, seen, rng);
                    put(s, k + bytes, false, p % KV_BLOCK, d, seen, rng);
                }
        }
}

/* A sequence's rows one after the other, mostly, and here and there a row of another between. */
static void add_rows(struct step *s, uint64_t *rng)
{
    int32_t fed[MAX_SEQS];
    for (int32_t i = 0; i < s->sequences; i++) {
        int32_t most = random_int(rng, 0, 2) ? 20 : 1;
        fed[i] = random_int(rng, 1, s->length[i] < most ? s->length[i] : most);
    }
    for (int32_t left = 1, i = 0; left > 0;) {
        left = 0;
        for (int32_t n = random_int(rng, 1, 30); n > 0 && fed[i] > 0; n--, fed[i]--) {
            s->table[s->rows] = s->tables[i];
            s->pos[s->rows++] = s->length[i] - fed[i];
        }
        i = (i + 1) % s->sequences;
        for (int32_t k = 0; k < s->sequences; k++)
            left += fed[k];
    }
}

static void make_step(struct step *s, uint64_t *rng, int32_t group, int32_t head_dim,
                      enum kv_dtype dtype)
{
    int32_t kv_heads = random_int(rng, 1, 3), first = random_int(rng, 0, 2);
    *s = (struct step){.kv = {.dtype = dtype, .heads = kv_heads, .row = head_row(head_dim)}};
    /* A rank may hold a part of the first and of the last head's group. */
    s->a = (struct attention){
        .kv_heads = {first, first + kv_heads},
        .q_heads = {first * group + random_int(rng, 0, group - 1), (first + kv_heads) * group},
        .group = group,
        .head_dim = head_dim,
        .row = head_row(head_dim)};
    s->a.q_heads.end -= kv_heads > 1 ? random_int(rng, 0, group - 1) : 0;
    s->sequences = random_int(rng, 1, MAX_SEQS);
    for (int32_t i = 0; i < s->sequences; i++) {
        s->length[i] = random_int(rng, 1, random_int(rng, 0, 1) ? KV_BLOCK : 200);
        for (int32_t t = 0; t < MAX_TILES; t++)
            s->tables[i][t] = t * KV_BLOCK < s->length[i] ? s->blocks++ : INT32_MAX;
    }
    fill_cache(s, rng);
    add_rows(s, rng);
    int64_t heads = (int64_t)s->rows * range_size(s->a.q_heads);
    s->q = check_calloc((size_t)(heads * s->a.row), sizeof *s->q);
    s->expected = check_calloc((size_t)(heads * head_dim), sizeof *s->expected);
    double size = random_int(rng, 0, 1) ? 0.1 : 2.0;
    for (int64_t i = 0; i < heads * s->a.row; i++)
        s->q[i] = i % s->a.row < head_dim ? random_float(rng, size) : 0.0f;
    for (int64_t i = 0; i < heads; i++)
        expect_head(s, (int32_t)(i / range_size(s->a.q_heads)),
                    (int32_t)(i % range_size(s->a.q_heads)));
}

static void step_free(struct step *s)
{
    free(s->q);
    free(s->expected);
    free(s->kv.data);
}

static void check_step(const struct step *s, const char *set, int threads)
{
    struct error err;
    struct pool *pool = NULL;
    struct backend *backend = NULL;
    const struct kernels *kernels = NULL;
    struct model_config c = {.q_heads = s->a.group, .kv_heads = 1, .head_dim = s->a.head_dim};
    assert_int_equal(pool_create(threads, false, &pool, &err), OK);
    uint64_t scratch = plan_thread_scratch(&c, &(struct rank_plan){0});
    assert_int_equal(cpu_backend_create(set, pool, scratch, NULL, 0, 0, &kernels, &backend, &err),
                     OK);
    int64_t n = (int64_t)s->rows * range_size(s->a.q_heads) * s->a.head_dim;
    float *out = check_calloc((size_t)n, sizeof *out);
    struct batch b = {.rows = s->rows, .pos = s->pos, .block_table = s->table};
    kernels->attention(backend, &b, &s->a, s->q, &s->kv, out);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&out[i], &s->expected[i], sizeof *out) != 0)
            fail_msg("%s, %d threads, %d rows, group %d, head_dim %d: element %lld is %a, "
                     "expected %a",
                     set, threads, s->rows, s->a.group, s->a.head_dim, (long long)i, (double)out[i],
                     (double)s->expected[i]);
    free(out);
    kernels->destroy(backend);
    pool_destroy(pool);
}

static void check_type(enum kv_dtype dtype)
{
    struct test_set sets[MAX_SETS];
    int count = test_sets(true, sets);
    static const int32_t dims[] = {16, 32, 64, 80, 96, 128, 256, 40, 100};
    uint64_t rng = 11 + (uint64_t)dtype;
    for (int trial = 0; trial < 36; trial++) {
        int32_t group = trial % 12 < 9 ? trial % 12 + 1 : random_int(&rng, 10, 40);
        int32_t dim = dims[trial % COUNT_OF(dims)];
        struct step s;
        make_step(&s, &rng, group, group > 9 && dim > 64 ? 64 : dim, dtype);
        for (int i = 0; i < count; i++)
            check_step(&s, sets[i].name, 1 + (trial + i) % 5);
        step_free(&s);
    }
}

static void bf16_has_the_stated_bits(void **state)
{
    (void)state;
    check_type(KV_BF16);
}

static void f32_has_the_stated_bits(void **state)
{
    (void)state;
    check_type(KV_F32);
}

static void int8_has_the_stated_bits(void **state)
{
    (void)state;
    check_type(KV_INT8);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(bf16_has_the_stated_bits),
    cmocka_unit_test(f32_has_the_stated_bits),
    cmocka_unit_test(int8_has_the_stated_bits),
};

UNIT_MAIN(tests)
