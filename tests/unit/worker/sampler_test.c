/*
 * The sampler against a naive one that sorts everything in double precision and adds the same
 * noise: the drawn token must be equal for every seed. Noise against Random123's published vectors,
 * frequencies against probabilities.
 */
#include "tests/unit/unit.h"

#include "base/check.h"
#include "tests/unit/random.h"
#include "tests/unit/sets.h"
#include "tests/unit/worker/sampler_reference.h"
#include "worker/cpu/ops.h"
#include "worker/detmath.h"
#include "worker/sampler.h"

#include <math.h>

enum { MOST = 6000 };

static struct sampler *sampler_of(int32_t vocab)
{
    struct sampler *s = NULL;
    struct error err;
    if (sampler_create(cpu_ops_portable()->rows, vocab, &s, &err) != OK)
        fail_msg("%s", err.msg);
    return s;
}

/* Random123's kat_vectors for philox4x32 with 10 rounds. */
static void philox_gives_the_published_numbers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, /* digits of pi */
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        uint32_t out[4];
        philox4x32(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* The noise as the header states it. */
static double noise(uint64_t seed, int32_t position, int32_t id)
{
    const uint32_t counter[] = {(uint32_t)id, (uint32_t)position, 0, 0};
    const uint32_t key[] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t r[4];
    philox4x32(counter, key, r);
    double u = ((double)(((uint64_t)r[0] << 32 | r[1]) >> 11) + 0.5) * 0x1p-53;
    return -det_log(-det_log(u));
}

struct token {
    double logit;
    int32_t id;
};

static int by_logit(const void *a, const void *b)
{
    const struct token *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* The set that the filters leave, ordered; -1 when a border lies too near a token to decide it in
 * another arithmetic. */
static int32_t reference_set(const float *logits, int32_t vocab, const struct sampling *p,
                             struct token *t)
{
    for (int32_t i = 0; i < vocab; i++)
        t[i] = (struct token){(double)logits[i], i};
    qsort(t, (size_t)vocab, sizeof *t, by_logit);
    int32_t n = p->top_k > 0 && p->top_k < vocab ? p->top_k : vocab, kept = n;
    double total = 0.0, sum = 0.0, max = t[0].logit, temperature = (double)p->temperature;
    for (int32_t i = 0; i < n; i++)
        total += exp((t[i].logit - max) / temperature);
    double target = (double)p->top_p * total, margin = 1e-6 * total;
    for (int32_t i = 0; p->top_p < 1.0f && i < n; i++) {
        sum += exp((t[i].logit - max) / temperature);
        if (fabs(sum - target) < margin)
            return -1;
        if (sum >= target) {
            kept = i + 1;
            break;
        }
    }
    while (kept > 0 && p->min_p > 0.0f) {
        double share = exp((t[kept - 1].logit - max) / temperature);
        if (fabs(share - (double)p->min_p) < 1e-6 && kept > 1)
            return -1;
        if (share >= (double)p->min_p)
            break;
        kept--;
    }
    return kept;
}

static int32_t reference_draw(const struct token *t, int32_t n, const struct sampling *p,
                              int32_t position)
{
    int32_t drawn = -1;
    double top = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        double score = t[i].logit / (double)p->temperature + noise(p->seed, position, t[i].id);
        if (score > top || (score == top && t[i].id < drawn)) {
            top = score;
            drawn = t[i].id;
        }
    }
    return drawn;
}

/* Draws with several seeds; returns the set's size, or -1 where it was undecided. */
static int32_t check_draws(struct sampler *s, const float *logits, int32_t vocab, struct sampling p,
                           int draws)
{
    static struct token t[MOST];
    int32_t n = reference_set(logits, vocab, &p, t);
    for (int i = 0; n > 0 && i < draws; i++, p.seed = p.seed * 3 + 1) {
        int32_t found = sampler_draw(s, logits, vocab, &p, i);
        int32_t expected = reference_draw(t, n, &p, i);
        if (found != expected)
            fail_msg("vocab %d, temperature %g, top_k %d, top_p %g, min_p %g: drew %d, expected "
                     "%d of %d candidates",
                     vocab, (double)p.temperature, p.top_k, (double)p.top_p, (double)p.min_p, found,
                     expected, n);
    }
    return n;
}

static struct sampling random_params(uint64_t *rng)
{
    static const float temperatures[] = {0.001f, 0.1f, 0.6f, 1.0f, 2.0f, 1000.0f};
    return (struct sampling){
        .temperature = temperatures[random_int(rng, 0, 5)],
        .top_p = random_int(rng, 0, 2) ? (float)(0.01 + 0.98 * random_unit(rng)) : 1.0f,
        .min_p = random_int(rng, 0, 2) ? 0.0f : (float)(0.5 * random_unit(rng)),
        .top_k = random_int(rng, 0, 1) ? random_int(rng, 1, 80) : 0,
        .seed = random_u64(rng),
    };
}

static void draws_equal_a_naive_sampler(void **state)
{
    (void)state;
    uint64_t rng = 1;
    struct sampler *s = sampler_of(MOST);
    static float logits[MOST];
    int decided = 0;
    for (int trial = 0; trial < 1500; trial++) {
        int32_t vocab = random_int(&rng, 0, 9) ? random_int(&rng, 1, 300)
                                               : random_int(&rng, 1, MOST);
        double scale = 1.0 + 20.0 * random_unit(&rng);
        bool ties = random_int(&rng, 0, 3) == 0;
        for (int32_t i = 0; i < vocab; i++) {
            logits[i] = random_float(&rng, scale);
            if (ties)
                logits[i] = rintf(logits[i]);
            if (random_int(&rng, 0, 19) == 0 && i > 0)
                logits[i] = -INFINITY;
        }
        decided += check_draws(s, logits, vocab, random_params(&rng), 5) >= 0;
    }
    print_message("%d sets\n", decided);
    assert_true(decided > 1300);
    sampler_destroy(s);
}

/* Flat rows need longer prefixes than the sampler's first guesses of 64 and 1024. */
static void the_nucleus_grows(void **state)
{
    (void)state;
    uint64_t rng = 2;
    struct sampler *s = sampler_of(MOST);
    static float logits[MOST];
    for (int32_t i = 0; i < MOST; i++)
        logits[i] = random_float(&rng, 0.5);
    struct sampling p = {.temperature = 1.0f, .seed = 5, .top_p = 0.005f};
    int32_t n = check_draws(s, logits, MOST, p, 20);
    assert_true(n > 5 && n < 64);
    p.top_p = 0.05f;
    n = check_draws(s, logits, MOST, p, 20);
    assert_true(n > 64 && n < 1024);
    p.top_p = 0.5f;
    n = check_draws(s, logits, MOST, p, 20);
    assert_true(n > 1024);
    p.top_p = 0.99999f;
    n = check_draws(s, logits, MOST, p, 5);
    assert_true(n > 5900);
    sampler_destroy(s);
}

static void greedy_ties_go_to_the_lower_id(void **state)
{
    (void)state;
    uint64_t rng = 3;
    struct sampler *s = sampler_of(500);
    for (int trial = 0; trial < 2000; trial++) {
        float logits[500];
        int32_t vocab = random_int(&rng, 1, 500), best = 0;
        for (int32_t i = 0; i < vocab; i++) {
            logits[i] = (float)random_int(&rng, -3, 3);
            best = logits[i] > logits[best] ? i : best;
        }
        struct sampling p = {
            .temperature = 0.0f, .top_p = 0.5f, .top_k = 3, .seed = (uint64_t)trial};
        assert_int_equal(sampler_draw(s, logits, vocab, &p, trial), best);
        p = (struct sampling){
            .temperature = 1.0f, .top_p = 1.0f, .top_k = 1, .seed = (uint64_t)trial};
        assert_int_equal(sampler_draw(s, logits, vocab, &p, trial), best);
        p = (struct sampling){.temperature = 1.0f, .top_p = 1e-9f, .seed = (uint64_t)trial};
        assert_int_equal(sampler_draw(s, logits, vocab, &p, trial), best);
    }
    sampler_destroy(s);
}

/* Chi-square of 20,000 draws; `by_seed`: a new seed a draw, or one seed and many positions. */
static double chi_square(const float *logits, int32_t vocab, struct sampling p, bool by_seed)
{
    enum { DRAWS = 20000 };
    struct sampler *s = sampler_of(vocab);
    double total = 0.0, chi = 0.0;
    int32_t count[16] = {0};
    for (int32_t i = 0; i < vocab; i++)
        total += exp((double)logits[i] / (double)p.temperature);
    for (int i = 0; i < DRAWS; i++) {
        p.seed = by_seed ? (uint64_t)i : 12345;
        count[sampler_draw(s, logits, vocab, &p, by_seed ? 7 : i)]++;
    }
    for (int32_t i = 0; i < vocab; i++) {
        double expected = DRAWS * exp((double)logits[i] / (double)p.temperature) / total;
        chi += (count[i] - expected) * (count[i] - expected) / expected;
    }
    sampler_destroy(s);
    return chi;
}

static void frequencies_follow_probabilities(void **state)
{
    (void)state;
    const float logits[] = {1.0f, 0.0f, -1.0f, 2.0f, 0.5f, 0.5f, -2.0f, 1.5f};
    const float temperatures[] = {0.6f, 1.0f, 1.7f, 1000.0f};
    for (size_t i = 0; i < COUNT_OF(temperatures); i++) {
        struct sampling p = {.temperature = temperatures[i], .top_p = 1.0f};
        for (int by_seed = 0; by_seed < 2; by_seed++) {
            /* 7 degrees of freedom: above 24.3 with probability 0.001. */
            double chi = chi_square(logits, 8, p, by_seed);
            print_message("temperature %g: chi-square %.2f\n", (double)temperatures[i], chi);
            assert_true(chi < 24.3);
        }
    }
}

static void padding_is_never_drawn(void **state)
{
    (void)state;
    struct sampler *s = sampler_of(100);
    float logits[100];
    for (int32_t i = 0; i < 100; i++)
        logits[i] = i < 60 ? 0.0f : i < 80 ? -INFINITY : 50.0f;
    for (int i = 0; i < 3000; i++) {
        struct sampling p = {.temperature = i % 2 ? 1000.0f : 1.0f,
                             .top_p = i % 3 ? 1.0f : 0.999f,
                             .top_k = i % 5 ? 0 : 90,
                             .seed = (uint64_t)i};
        /* -infinity inside the row, anything at all behind it. */
        int32_t drawn = sampler_draw(s, logits, 80, &p, i);
        assert_in_range(drawn, 0, 59);
    }
    sampler_destroy(s);
}

/* As the header states it, in double precision where that is exact. */
static void edits_change_a_draw_and_nothing_else(void **state)
{
    (void)state;
    struct sampler *s = sampler_of(8);
    const float row[8] = {4.0f, -4.0f, 0.0f, 3.0f, 2.0f, -INFINITY, 1.0f, 9.0f};
    const struct logit_edit edits[] = {{0, 0.0f, 1}, {1, 0.5f, 1}, {2, -1.0f, 0},
                                       {4, 2.5f, 1}, {5, 5.0f, 1}, {6, -INFINITY, 0}};
    const float expected[8] = {2.0f, -7.5f, -1.0f, 3.0f, 3.5f, -INFINITY, -INFINITY, 9.0f};
    const struct sampling greedy = {.top_p = 1.0f};
    float logits[8];
    memcpy(logits, row, sizeof row);
    sampler_edit(s, logits, edits, COUNT_OF(edits), 2.0f);
    assert_memory_equal(logits, expected, sizeof expected);
    assert_int_equal(sampler_draw(s, logits, 7, &greedy, 0), 4);
    sampler_restore(s, logits, edits, COUNT_OF(edits));
    assert_memory_equal(logits, row, sizeof row);
    assert_int_equal(sampler_draw(s, logits, 7, &greedy, 0), 0);
    sampler_edit(s, logits, NULL, 0, 0.0f);
    assert_memory_equal(logits, row, sizeof row);
    /* All tokens forbidden: there is none to draw. */
    struct logit_edit bans[7];
    for (int32_t i = 0; i < 7; i++)
        bans[i] = (struct logit_edit){i, -INFINITY, 0};
    sampler_edit(s, logits, bans, 7, 1.0f);
    assert_int_equal(sampler_draw(s, logits, 7, &greedy, 0), -1);
    sampler_destroy(s);
}

static const struct sampling ways[] = {
    {.temperature = 0.0f, .top_p = 1.0f},
    {.temperature = 1.0f, .top_p = 1.0f},
    {.temperature = 1.0f, .top_p = 0.9f},
    {.temperature = 1.0f, .top_p = 1.0f, .top_k = 3},
    {.temperature = 1.0f, .top_p = 0.5f, .top_k = 20, .min_p = 0.1f},
};

static void broken_rows_draw_nothing(void **state)
{
    (void)state;
    struct sampler *s = sampler_of(40);
    float logits[40];
    for (size_t w = 0; w < COUNT_OF(ways); w++) {
        const float all[] = {NAN, INFINITY, -INFINITY};
        for (size_t a = 0; a < COUNT_OF(all); a++) {
            for (int32_t i = 0; i < 40; i++)
                logits[i] = all[a];
            assert_int_equal(sampler_draw(s, logits, 40, &ways[w], 0), -1);
        }
        /* One broken number among sound ones, at each place. */
        for (int32_t at = 0; at < 40; at++)
            for (size_t a = 0; a < 2; a++) {
                for (int32_t i = 0; i < 40; i++)
                    logits[i] = (float)(i % 7);
                logits[at] = all[a];
                assert_int_equal(sampler_draw(s, logits, 40, &ways[w], 0), -1);
            }
    }
    sampler_destroy(s);
}

static void draws_depend_on_nothing_else(void **state)
{
    (void)state;
    uint64_t rng = 4;
    struct sampler *a = sampler_of(1000), *b = sampler_of(5000);
    float logits[1000], other[1000];
    for (int32_t i = 0; i < 1000; i++) {
        logits[i] = random_float(&rng, 5.0);
        other[i] = random_float(&rng, 5.0);
    }
    int differ = 0;
    for (int i = 0; i < 200; i++) {
        struct sampling p = random_params(&rng), q = random_params(&rng);
        int32_t first = sampler_draw(a, logits, 1000, &p, i);
        sampler_draw(a, other, 777, &q, i + 1);
        assert_int_equal(sampler_draw(a, logits, 1000, &p, i), first);
        assert_int_equal(sampler_draw(b, logits, 1000, &p, i), first);
        /* The high half of the seed and the position matter. */
        p = (struct sampling){.temperature = 1.0f, .top_p = 1.0f, .seed = (uint64_t)i};
        first = sampler_draw(a, logits, 1000, &p, i);
        p.seed += UINT64_C(1) << 32;
        differ += sampler_draw(a, logits, 1000, &p, i) != first;
        p.seed -= UINT64_C(1) << 32;
        differ += sampler_draw(a, logits, 1000, &p, i + 1) != first;
    }
    assert_true(differ > 300);
    sampler_destroy(a);
    sampler_destroy(b);
}

static void extreme_logits_and_temperatures(void **state)
{
    (void)state;
    struct sampler *s = sampler_of(4);
    const float far[] = {-3e38f, 3e38f, 0.0f, 2.9e38f}, near[] = {1.0f, 1.0000001f, 0.5f, 0.9f};
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct sampling p = {.temperature = 0.001f, .top_p = 0.9999f, .seed = seed};
        assert_int_equal(sampler_draw(s, far, 4, &p, 0), 1);
        p.temperature = 1000.0f;
        assert_int_equal(sampler_draw(s, far, 4, &p, 0), 1);
        p.temperature = 0.001f; /* the two nearly equal ones share the mass */
        assert_in_range(sampler_draw(s, near, 4, &p, 0), 0, 1);
    }
    const float one[] = {-7.0f};
    struct sampling p = {.temperature = 1.0f, .top_p = 0.1f, .top_k = 9, .min_p = 1.0f};
    assert_int_equal(sampler_draw(s, one, 1, &p, INT32_MAX), 0);
    sampler_destroy(s);
}

static void refuses(struct sampling p, const char *words)
{
    struct error err;
    assert_int_equal(sampling_check(&p, &err), ERR_INVALID);
    if (!strstr(err.msg, words))
        fail_msg("expected \"%s\" in: %s", words, err.msg);
}

static void parameters_out_of_bounds_are_refused(void **state)
{
    (void)state;
    const struct sampling good = {.temperature = 1.0f, .top_p = 1.0f};
    struct error err;
    assert_int_equal(sampling_check(&good, &err), OK);
    const float temperatures[] = {-1.0f, 0.0009f, 1000.1f, NAN, INFINITY};
    for (size_t i = 0; i < COUNT_OF(temperatures); i++)
        refuses((struct sampling){temperatures[i], 1.0f, 0.0f, 0, 0}, "temperature");
    const float shares[] = {-0.1f, 1.1f, NAN};
    for (size_t i = 0; i < COUNT_OF(shares); i++) {
        refuses((struct sampling){1.0f, shares[i], 0.0f, 0, 0}, "top_p");
        refuses((struct sampling){1.0f, 1.0f, shares[i], 0, 0}, "min_p");
    }
    refuses((struct sampling){1.0f, 0.0f, 0.0f, 0, 0}, "top_p 0: expected above 0");
    refuses((struct sampling){1.0f, 1.0f, 0.0f, -1, 0}, "top_k -1");
}

/* --- against the same sampler without its short cuts, in every instruction set --- */

enum kind {
    LIKE_A_MODEL,
    FEW_VALUES,
    ALL_EQUAL,
    MOSTLY_MINUS_INFINITY,
    HUGE_RANGE,
    RISING,
    ONE_FAR_ABOVE,
    ZEROS_OF_BOTH_SIGNS,
    KINDS
};

static void fill_row(float *x, int32_t vocab, enum kind kind, uint64_t *rng)
{
    for (int32_t i = 0; i < vocab; i++) {
        x[i] = random_float(rng, 4.0) + random_float(rng, 4.0) + random_float(rng, 4.0);
        if (kind == FEW_VALUES)
            x[i] = 0.25f * (float)random_int(rng, -4, 4);
        else if (kind == ALL_EQUAL)
            x[i] = -1.5f;
        else if (kind == MOSTLY_MINUS_INFINITY)
            x[i] = i > 0 && random_int(rng, 0, 9) ? -INFINITY : x[i];
        else if (kind == HUGE_RANGE)
            x[i] *= powf(10.0f, (float)random_int(rng, -30, 36));
        else if (kind == RISING)
            x[i] = (float)i * 1e-3f;
        else if (kind == ZEROS_OF_BOTH_SIGNS)
            x[i] = random_int(rng, 0, 1) ? 0.0f : -0.0f;
    }
    if (kind == ONE_FAR_ABOVE)
        x[random_int(rng, 0, vocab - 1)] = 60.0f;
}

static struct sampling any_params(uint64_t *rng, int32_t vocab)
{
    static const float temperatures[] = {0.0f, 0.001f, 0.3f, 0.7f, 1.0f, 1.0f, 5.0f, 1000.0f};
    static const float top_ps[] = {1.0f, 1.0f, 1.0f, 0.9999999f, 0.95f, 0.8f, 0.1f, 1e-6f};
    static const float min_ps[] = {0.0f, 0.0f, 0.0f, 0.05f, 1.0f, 1e-10f};
    const int32_t top_ks[] = {0, 0, 0, 1, 2, 20, vocab / 2, vocab - 1, vocab, vocab + 9};
    return (struct sampling){.temperature = temperatures[random_int(rng, 0, 7)],
                             .top_p = top_ps[random_int(rng, 0, 7)],
                             .min_p = min_ps[random_int(rng, 0, 5)],
                             .top_k = top_ks[random_int(rng, 0, 9)],
                             .seed = random_u64(rng)};
}

static void check_set(const struct cpu_ops *ops, int32_t most, int rounds)
{
    uint64_t rng = 11;
    struct sampler *s = NULL;
    struct error err;
    float *x = check_calloc((size_t)most, sizeof *x);
    assert_int_equal(sampler_create(ops->rows, most, &s, &err), OK);
    for (int i = 0; i < rounds; i++) {
        enum kind kind = (enum kind)(i % KINDS);
        int32_t vocab = i % 3 ? random_int(&rng, 1, most < 1200 ? most : 1200)
                              : random_int(&rng, 1, most);
        fill_row(x, vocab, kind, &rng);
        for (int draw = 0; draw < 6; draw++) {
            struct sampling p = any_params(&rng, vocab);
            int32_t position = random_int(&rng, 0, 200000);
            int32_t found = sampler_draw(s, x, vocab, &p, position);
            int32_t expected = sampler_reference(x, vocab, &p, position);
            if (found != expected)
                fail_msg("%s: row of kind %d, vocab %d, temperature %g, top_k %d, top_p %g, min_p "
                         "%g, seed %llu, position %d: drew %d, expected %d",
                         ops->name, (int)kind, vocab, (double)p.temperature, p.top_k,
                         (double)p.top_p, (double)p.min_p, (unsigned long long)p.seed, position,
                         found, expected);
        }
    }
    free(x);
    sampler_destroy(s);
}

static void short_cuts_change_no_draw(void **state)
{
    (void)state;
    struct test_set sets[MAX_SETS];
    int count = test_sets(true, sets);
    for (int i = 0; i < count; i++) {
        check_set(sets[i].ops, 5000, 400);
        if (!strstr(sets[i].name, "simde"))
            check_set(sets[i].ops, 151936, 16);
    }
}

/* A token for which the likeliest of many alike are few: noise that wins by little, everywhere. */
static void many_draws_of_a_flat_row(void **state)
{
    (void)state;
    enum { FLAT = 3000 };
    const struct cpu_ops *ops;
    struct sampler *s = NULL;
    struct error err;
    static float x[FLAT];
    uint64_t rng = 12;
    assert_int_equal(cpu_ops_choose("auto", &ops, &err), OK);
    assert_int_equal(sampler_create(ops->rows, FLAT, &s, &err), OK);
    fill_row(x, FLAT, FEW_VALUES, &rng);
    for (int i = 0; i < 3000; i++) {
        struct sampling p = {
            .temperature = i % 2 ? 1.0f : 7.0f, .top_p = 1.0f, .seed = (uint64_t)i * 77};
        assert_int_equal(sampler_draw(s, x, FLAT, &p, i), sampler_reference(x, FLAT, &p, i));
    }
    sampler_destroy(s);
}

/* The random words of whole blocks and parts of them, from any id on, as Philox gives them. */
static void luck_is_philox(void **state)
{
    (void)state;
    struct test_set sets[MAX_SETS];
    int set_count = test_sets(true, sets);
    for (int n = 0; n < set_count; n++) {
        const struct cpu_ops *ops = sets[n].ops;
        uint64_t rng = 13;
        for (int trial = 0; trial < 300; trial++) {
            uint64_t seed = random_u64(&rng);
            int32_t position = random_int(&rng, 0, INT32_MAX), first = random_int(&rng, 0, 200000);
            int32_t count = random_int(&rng, 1, ROW_BLOCK), ids[ROW_BLOCK], at = 0;
            uint32_t least = trial % 10 ? (uint32_t)random_u64(&rng) : 0;
            int32_t found = ops->rows->lucky(seed, position, first, count, least, ids);
            for (int32_t id = first; id < first + count; id++)
                if (sampler_bits(seed, position, id) >> 32 >= least)
                    assert_true(at < found && ids[at++] == id);
            assert_int_equal(at, found);
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(philox_gives_the_published_numbers),
    cmocka_unit_test(draws_equal_a_naive_sampler),
    cmocka_unit_test(the_nucleus_grows),
    cmocka_unit_test(greedy_ties_go_to_the_lower_id),
    cmocka_unit_test(frequencies_follow_probabilities),
    cmocka_unit_test(padding_is_never_drawn),
    cmocka_unit_test(edits_change_a_draw_and_nothing_else),
    cmocka_unit_test(broken_rows_draw_nothing),
    cmocka_unit_test(draws_depend_on_nothing_else),
    cmocka_unit_test(extreme_logits_and_temperatures),
    cmocka_unit_test(short_cuts_change_no_draw),
    cmocka_unit_test(many_draws_of_a_flat_row),
    cmocka_unit_test(luck_is_philox),
    cmocka_unit_test(parameters_out_of_bounds_are_refused),
};

UNIT_MAIN(tests)
