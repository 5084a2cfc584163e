/* Logprobs against sums in long double and a sort. */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "tests/unit/sets.h"
#include "worker/cpu/ops.h"
#include "worker/logprobs.h"
#include "worker/sampler_inline.h"

#include <math.h>

enum { VOCAB = 151936 };

static const float *sorted_row;

static int likelier(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sorted_row[x] != sorted_row[y])
        return sorted_row[x] > sorted_row[y] ? -1 : 1;
    return (x > y) - (x < y);
}

static void check_row(const float *x, int32_t vocab, uint64_t *rng)
{
    int32_t *order = check_calloc((size_t)vocab, sizeof *order);
    long double sum = 0.0L;
    for (int32_t i = 0; i < vocab; i++)
        order[i] = i;
    sorted_row = x;
    qsort(order, (size_t)vocab, sizeof *order, likelier);
    for (int32_t i = 0; i < vocab; i++)
        sum += expl((long double)x[i] - (long double)x[order[0]]);
    for (int trial = 0; trial < 12; trial++) {
        struct logprobs l;
        int32_t at = trial < 6 ? random_int(rng, 0, vocab - 1) : trial - 6;
        int32_t top = trial % 3 == 0 ? 20 : trial % 3 == 1 ? 0 : random_int(rng, 1, 20);
        at = at < vocab ? at : 0;
        logprobs_of(x, vocab, order[at], top, &l);
        long double exact = (long double)x[order[at]] - (long double)x[order[0]] - logl(sum);
        if (fabsl((long double)l.logprob - exact) > 2e-6L + 1.2e-7L * fabsl(exact))
            fail_msg("vocab %d: expected %.9Lg, found %.9g", vocab, exact, (double)l.logprob);
        assert_int_equal(l.rank, at + 1);
        assert_int_equal(l.count, top < vocab ? top : vocab);
        for (int32_t i = 0; i < l.count; i++) {
            assert_int_equal(l.top[i].id, order[i]);
            if (i == at)
                assert_true(l.top[i].logprob == l.logprob);
            assert_true(i == 0 || l.top[i].logprob <= l.top[i - 1].logprob);
        }
    }
    free(order);
}

static void as_sums_in_long_double(void **state)
{
    (void)state;
    uint64_t rng = 1;
    float *x = check_calloc(VOCAB, sizeof *x);
    for (int trial = 0; trial < 120; trial++) {
        int32_t vocab = trial % 40 == 0 ? VOCAB : random_int(&rng, 1, 3000);
        double scale = trial % 5 ? 1.0 + 10.0 * random_unit(&rng) : 1e-3;
        for (int32_t i = 0; i < vocab; i++) {
            x[i] = random_float(&rng, scale) + random_float(&rng, scale);
            x[i] = trial % 4 == 0 ? rintf(x[i]) : x[i]; /* ties */
        }
        check_row(x, vocab, &rng);
    }
    free(x);
}

static double masses_of(const float *x, int32_t n, float max, float temperature)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++)
        sum += sampler_mass(x[i], max, temperature);
    return sum;
}

/* The passes over a row have the same results in every instruction set. */
static void the_same_bits_in_every_set(void **state)
{
    (void)state;
    struct test_set sets[MAX_SETS];
    int set_count = test_sets(true, sets);
    const struct cpu_rows *p = cpu_ops_portable()->rows;
    uint64_t rng = 2;
    static float x[5000], a[20], b[20];
    for (int n = 1; n < set_count; n++) {
        const struct cpu_rows *o = sets[n].ops->rows;
        for (int trial = 0; trial < 300; trial++) {
            int32_t count = random_int(&rng, 1, 5000), ids[ROW_BLOCK], others[ROW_BLOCK];
            for (int32_t i = 0; i < count; i++)
                x[i] = random_int(&rng, 0, 30) ? random_float(&rng, 9.0) : -INFINITY;
            x[0] = 1.0f;
            x[random_int(&rng, 0, count - 1)] = trial % 5 ? 2.0f : NAN;
            bool sound = p->maxima(x, count, a);
            assert_int_equal(o->maxima(x, count, b), sound);
            if (!sound)
                continue;
            assert_memory_equal(a, b, (size_t)(count + ROW_BLOCK - 1) / ROW_BLOCK * sizeof *a);
            assert_true(p->sum_exp(x, count, 9.5f) == o->sum_exp(x, count, 9.5f));
            float t = trial % 2 ? 0.25f + (float)random_unit(&rng) : 1.0f;
            assert_true(o->mass(x, count, 9.5f, t) == masses_of(x, count, 9.5f, t));
            assert_true(p->mass(x, count, 9.5f, t) == masses_of(x, count, 9.5f, t));
            int32_t at = random_int(&rng, 0, count - 1);
            assert_int_equal(p->before(x, count, x[at], at), o->before(x, count, x[at], at));
            int32_t some = count < ROW_BLOCK ? count : random_int(&rng, 1, ROW_BLOCK);
            int32_t found = p->at_least(x, some, x[at], 100, ids);
            assert_int_equal(o->at_least(x, some, x[at], 100, others), found);
            assert_memory_equal(ids, others, (size_t)found * sizeof *ids);
        }
    }
}

static void broken_rows_have_no_probabilities(void **state)
{
    (void)state;
    float x[300];
    const float broken[] = {NAN, INFINITY};
    struct logprobs l;
    for (int32_t i = 0; i < 300; i++)
        x[i] = -INFINITY;
    logprobs_of(x, 300, 5, 4, &l);
    assert_true(l.logprob == -INFINITY && l.count == 0);
    for (int i = 0; i < 2; i++) {
        for (int32_t k = 0; k < 300; k++)
            x[k] = (float)(k % 9);
        x[280] = broken[i];
        logprobs_of(x, 300, 5, 4, &l);
        assert_true(l.logprob == -INFINITY && l.count == 0);
    }
    x[280] = -INFINITY; /* a token that cannot be */
    logprobs_of(x, 300, 280, 1, &l);
    assert_true(l.logprob == -INFINITY && l.rank == 300 && l.count == 1 && l.top[0].id == 8);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(as_sums_in_long_double),
    cmocka_unit_test(the_same_bits_in_every_set),
    cmocka_unit_test(broken_rows_have_no_probabilities),
};

UNIT_MAIN(tests)
