/* Tokens drawn on the device against worker/sampler.c, on the same rows: the same ones, always. */
#include "tests/cuda/batch.h"
#include "tests/cuda/cpu_reference.h"

/* Rows of logits of `vocab` tokens, and NaNs, which no draw may meet, behind them. */
struct rows {
    int32_t count, vocab, shards, cols;
    std::vector<float> x; /* [count][vocab] */

    rows(int32_t count_, int32_t vocab_, int32_t shards_ = 1, int32_t padding = 0)
        : count(count_), vocab(vocab_), shards(shards_),
          cols((vocab_ + padding + shards_ - 1) / shards_), x((size_t)(count_ * vocab_))
    {
    }
    float *operator[](int32_t row)
    {
        return x.data() + (size_t)row * (size_t)vocab;
    }
    /* As ranks gather them. */
    std::vector<float> gathered() const
    {
        std::vector<float> out((size_t)shards * (size_t)count * (size_t)cols, NAN);
        for (int32_t r = 0; r < count; r++)
            for (int32_t v = 0; v < vocab; v++)
                out[((size_t)(v / cols) * (size_t)count + (size_t)r) * (size_t)cols +
                    (size_t)(v % cols)] = x[(size_t)r * (size_t)vocab + (size_t)v];
        return out;
    }
};

static std::vector<int32_t> sample(const rows &r, const std::vector<cuda_draw> &draws, bool cuts,
                                   const std::vector<cuda_edit> &edits = {})
{
    std::vector<float> before = r.gathered();
    device_array<float> logits(before);
    device_array<cuda_draw> draw(draws);
    device_array<cuda_edit> edit(edits);
    device_array<int32_t> drawn(draws.size());
    int32_t n = (int32_t)draws.size();
    device_array<char> work((size_t)cuda_sample_bytes(n, r.shards));
    simt_protect(logits.p, edits.empty());
    simt_protect(draw.p, true);
    const cuda_logits l = {logits.p, r.count, r.cols};
    assert_ran(cuda_sample(n, draw.p, edits.empty() ? NULL : edit.p, &l, r.vocab, cuts, work.p,
                           drawn.p, NULL));
    std::vector<float> after = logits.read();
    assert_memory_equal(after.data(), before.data(), before.size() * sizeof(float));
    return drawn.read();
}

static bool has_cut(const cuda_draw &d)
{
    return d.top_k > 0 || d.top_p < 1.0f;
}

/* Every draw as the CPU's; returns the tokens. */
static std::vector<int32_t> check(rows &r, const std::vector<cuda_draw> &draws,
                                  const std::vector<cuda_edit> &edits = {})
{
    bool cuts = false;
    for (const cuda_draw &d : draws)
        cuts |= has_cut(d);
    std::vector<int32_t> found = sample(r, draws, cuts, edits);
    for (size_t i = 0; i < draws.size(); i++) {
        const cuda_draw &d = draws[i];
        int32_t expected = cpu_sample_reference(r[d.row], r.vocab, &d, edits.data());
        if (found[i] != expected)
            fail_msg("draw %zu of row %d of %d logits, temperature %g, top_k %d, top_p %g, min_p "
                     "%g, seed %llu: expected %d, found %d",
                     i, d.row, r.vocab, (double)d.temperature, d.top_k, (double)d.top_p,
                     (double)d.min_p, (unsigned long long)d.seed, expected, found[i]);
    }
    return found;
}

template <class T, size_t N> static T one_of(uint64_t *seed, const T (&list)[N])
{
    return list[random_int(seed, 0, (int32_t)N - 1)];
}

static cuda_draw random_draw(uint64_t *seed, int32_t rows, int32_t vocab)
{
    static const float temperatures[] = {0.0f, 0.001f, 0.3f, 0.7f, 1.0f, 1.0f, 5.0f, 1000.0f};
    static const float top_ps[] = {1.0f, 1.0f, 0.9999999f, 0.95f, 0.8f, 0.5f, 0.1f, 1e-6f};
    static const float min_ps[] = {0.0f, 0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-10f, 1.9e-10f, 4e-10f};
    const int32_t top_ks[] = {0, 0, 1, 2, 5, 20, vocab / 2, vocab - 1, vocab, vocab + 9};
    cuda_draw d = {};
    d.row = random_int(seed, 0, rows - 1);
    d.position = random_int(seed, 0, 100000);
    d.seed = random_u64(seed);
    d.temperature = one_of(seed, temperatures);
    d.top_p = one_of(seed, top_ps);
    d.min_p = one_of(seed, min_ps);
    d.top_k = one_of(seed, top_ks);
    return d;
}

/* Somewhat like a normal distribution. */
static float bell(uint64_t *seed, double scale)
{
    double x = -2.0;
    for (int i = 0; i < 4; i++)
        x += random_unit(seed);
    return (float)(x * scale);
}

enum kind {
    LIKE_A_MODEL,
    FEW_VALUES,
    ALL_EQUAL,
    MOSTLY_MINUS_INFINITY,
    ONE_FINITE,
    HUGE_RANGE,
    NEAR_THE_LARGEST,
    SUBNORMAL,
    ZEROS_OF_BOTH_SIGNS,
    FEW_UNITS_APART,
    ONE_NAN,
    ONE_INFINITY,
    ALL_MINUS_INFINITY,
    KINDS
};

static float logit_of_kind(enum kind kind, uint64_t *seed)
{
    switch (kind) {
    case FEW_VALUES:
        return 0.25f * (float)random_int(seed, -4, 4);
    case ALL_EQUAL:
        return -1.5f;
    case MOSTLY_MINUS_INFINITY:
        return random_int(seed, 0, 9) ? -INFINITY : bell(seed, 4.0);
    case ONE_FINITE:
    case ALL_MINUS_INFINITY:
        return -INFINITY;
    case HUGE_RANGE:
        return bell(seed, 1.0) * powf(10.0f, (float)random_int(seed, -30, 37));
    case NEAR_THE_LARGEST:
        return 3.4e38f - 2e31f * (float)random_int(seed, 0, 3);
    case SUBNORMAL:
        return 1e-45f * (float)random_int(seed, -50, 50);
    case ZEROS_OF_BOTH_SIGNS:
        return random_int(seed, 0, 1) ? 0.0f : -0.0f;
    case FEW_UNITS_APART:
        return 3000.0f + 0.000244140625f * (float)random_int(seed, -3, 3);
    default:
        return bell(seed, 5.0);
    }
}

static void fill_row(float *x, int32_t vocab, enum kind kind, uint64_t *seed)
{
    for (int32_t v = 0; v < vocab; v++)
        x[v] = logit_of_kind(kind, seed);
    int32_t at = random_int(seed, 0, vocab - 1);
    if (kind == ONE_FINITE)
        x[at] = 0.5f;
    if (kind == ONE_NAN)
        x[at] = random_int(seed, 0, 1) ? NAN : -NAN;
    if (kind == ONE_INFINITY)
        x[at] = INFINITY;
}

static void fill(rows &r, uint64_t *seed)
{
    for (int32_t i = 0; i < r.count; i++)
        fill_row(r[i], r.vocab, (enum kind)(i % KINDS), seed);
}

/* Every kind of row under every mixture of filters. */
static void as_the_cpu_draws(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int32_t vocab : {1, 2, 3, 31, 200, 513, 1999})
        for (int round = 0; round < 2; round++) {
            rows r(2 * KINDS, vocab, 1, round * 5);
            std::vector<cuda_draw> draws;
            fill(r, &seed);
            for (int32_t i = 0; i < 130; i++) {
                draws.push_back(random_draw(&seed, r.count, vocab));
                draws.back().row = i % r.count;
            }
            simt_seed(++seed);
            check(r, draws);
        }
}

/* Several blocks and several ranks' columns a row. */
static void shards_and_blocks(void **state)
{
    (void)state;
    uint64_t seed = 2;
    for (int32_t shards : {1, 2, 3, 8})
        for (int32_t vocab : {40, 4096, 9001}) {
            rows r(KINDS, vocab, shards, 3);
            std::vector<cuda_draw> draws;
            fill(r, &seed);
            for (int32_t i = 0; i < 2 * KINDS; i++) {
                draws.push_back(random_draw(&seed, r.count, vocab));
                draws.back().row = i % r.count;
            }
            simt_seed(++seed);
            check(r, draws);
        }
}

/* Qwen3's vocabulary, one draw and a few. */
static void a_large_vocabulary(void **state)
{
    (void)state;
    static const struct {
        float temperature, top_p, min_p;
        int32_t top_k;
    } ways[] = {{0.0f, 1.0f, 0.0f, 0},    {1.0f, 1.0f, 0.0f, 0},  {0.6f, 0.95f, 0.0f, 20},
                {0.7f, 0.8f, 0.0f, 0},    {1.0f, 1.0f, 0.05f, 0}, {2.0f, 1.0f, 0.0f, 100000},
                {1.5f, 0.99f, 0.0f, 5000}};
    uint64_t seed = 3;
    rows r(2, 151669, 1, 267);
    fill_row(r[0], r.vocab, LIKE_A_MODEL, &seed);
    fill_row(r[1], r.vocab, FEW_VALUES, &seed);
    std::vector<cuda_draw> draws;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        for (int32_t row = 0; row < 2; row++)
            draws.push_back({row, (int32_t)i, random_u64(&seed), ways[i].temperature, ways[i].top_p,
                             ways[i].min_p, ways[i].top_k, 0, 0, 0.0f, 0});
    std::vector<int32_t> all = check(r, draws);
    for (size_t i : {2, 4}) /* alone as among others */
        assert_int_equal(check(r, {draws[i]})[0], all[i]);
}

/* Over many draws of one row: noise that wins by little, tokens of every rank, a cut that is off by
 * little. */
static void many_draws_of_a_row(void **state)
{
    (void)state;
    uint64_t seed = 4;
    rows r(3, 300);
    fill_row(r[0], r.vocab, ALL_EQUAL, &seed);
    fill_row(r[1], r.vocab, LIKE_A_MODEL, &seed);
    fill_row(r[2], r.vocab, FEW_VALUES, &seed);
    std::vector<cuda_draw> draws;
    for (int32_t i = 0; i < 1500; i++)
        draws.push_back({i % 3, i / 3, 77, i % 2 ? 1.0f : 2.5f, i % 3 == 2 ? 0.6f : 1.0f, 0.0f, 0,
                         0, 0, 0.0f, 0});
    std::vector<int32_t> found = check(r, draws);
    std::vector<int> seen(300);
    for (size_t i = 0; i < found.size(); i += 3)
        seen[(size_t)found[i]] = 1;
    int different = 0;
    for (int s : seen)
        different += s;
    assert_in_range(different, 230, 260); /* 500 draws of 300 alike: 243 are expected */
}

/* The cut falls among tokens of one logit: the lower ids stay. */
static void ties_at_the_cut(void **state)
{
    (void)state;
    uint64_t seed = 5;
    rows r(2, 5000);
    fill_row(r[0], r.vocab, ALL_EQUAL, &seed);
    fill_row(r[1], r.vocab, FEW_VALUES, &seed);
    std::vector<cuda_draw> draws;
    for (int32_t row = 0; row < 2; row++)
        for (int32_t top_k : {0, 1, 2, 513, 1024, 4999})
            for (float top_p : {1.0f, 0.7f, 0.01f})
                draws.push_back(
                    {row, 9, random_u64(&seed), 1.0f, top_p, 0.0f, top_k, 0, 0, 0.0f, 0});
    std::vector<int32_t> found = check(r, draws);
    for (size_t i = 0; i < 18; i++)
        if (draws[i].top_k > 0)
            assert_true(found[i] < draws[i].top_k);
}

/* Without cuts the launches that look for them change nothing. */
static void cuts_are_only_asked_for(void **state)
{
    (void)state;
    uint64_t seed = 6;
    rows r(KINDS, 700);
    fill(r, &seed);
    std::vector<cuda_draw> draws;
    for (int32_t i = 0; i < 3 * KINDS; i++)
        draws.push_back({i % KINDS, i, random_u64(&seed), i % 3 ? 0.8f : 0.0f, 1.0f,
                         i % 5 ? 0.0f : 0.1f, 0, 0, 0, 0.0f, 0});
    assert_same(sample(r, draws, true), sample(r, draws, false));
    assert_int_equal(cuda_sample(0, NULL, NULL, NULL, 700, 1, NULL, NULL, NULL), 0);
}

/* Of every `step`-th token from the row's first. */
static void add_edits(std::vector<cuda_edit> &edits, cuda_draw &d, int32_t vocab, int32_t step,
                      uint64_t *seed)
{
    static const float adds[] = {0.0f, -0.0f, 1.5f, -2.0f, -INFINITY, 100.0f, -1e-7f};
    static const float penalties[] = {1.0f, 1.05f, 0.5f, 3.0f};
    d.first_edit = (int32_t)edits.size();
    d.repetition_penalty = one_of(seed, penalties);
    for (int32_t id = random_int(seed, 0, step - 1); id < vocab; id += random_int(seed, 1, step)) {
        edits.push_back({id, one_of(seed, adds), random_int(seed, 0, 1)});
        d.edits++;
    }
}

/* Rows with and without edits, whole and in shards, of every kind. */
static void edited_as_the_cpu_edits(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int32_t shards : {1, 3})
        for (int32_t vocab : {5, 300, 9001}) {
            rows r(3 * KINDS, vocab, shards, 7);
            std::vector<cuda_draw> draws;
            std::vector<cuda_edit> edits;
            fill(r, &seed);
            for (int32_t i = 0; i < r.count; i++) {
                draws.push_back(random_draw(&seed, r.count, vocab));
                draws.back().row = r.count - 1 - i;
                if (i % 4 != 3)
                    add_edits(edits, draws.back(), vocab, i % 3 == 0 ? 2 : 40, &seed);
            }
            simt_seed(++seed);
            check(r, draws, edits);
        }
}

/* More draws than a launch has; the likeliest token forbidden in some rows, all but one in another.
 */
static void bans_of_many_rows(void **state)
{
    (void)state;
    uint64_t seed = 8;
    rows r(131, 90, 1, 6);
    std::vector<cuda_draw> draws;
    std::vector<cuda_edit> edits;
    for (int32_t i = 0; i < r.count; i++) {
        fill_row(r[i], r.vocab, LIKE_A_MODEL, &seed);
        r[i][33] = 50.0f;
        cuda_draw d = {};
        d.row = i;
        d.top_p = 1.0f;
        d.temperature = i % 3 ? 1.0f : 0.0f;
        d.first_edit = (int32_t)edits.size();
        if (i % 2)
            edits.push_back({33, -INFINITY, 0});
        for (int32_t id = 0; i == 130 && id < r.vocab; id++)
            if (id != 71)
                edits.push_back({id, -INFINITY, 0});
        d.edits = (int32_t)edits.size() - d.first_edit;
        draws.push_back(d);
    }
    std::vector<int32_t> found = check(r, draws, edits);
    for (size_t i = 0; i < 130; i++)
        assert_int_equal(found[i] == 33, i % 2 == 0);
    assert_int_equal(found[130], 71);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(as_the_cpu_draws),        cmocka_unit_test(shards_and_blocks),
    cmocka_unit_test(a_large_vocabulary),      cmocka_unit_test(many_draws_of_a_row),
    cmocka_unit_test(ties_at_the_cut),         cmocka_unit_test(cuts_are_only_asked_for),
    cmocka_unit_test(edited_as_the_cpu_edits), cmocka_unit_test(bans_of_many_rows),
};

KERNEL_MAIN(tests)
