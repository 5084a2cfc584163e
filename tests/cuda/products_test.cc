/*
 * The matrix products of worker/cuda/products.cu on the emulator, against sums in double precision
 * and, bit for bit, against themselves: a row is to be the same alone and in any batch, by any
 * kernel, and exact sums the same however columns, experts and slots are cut.
 */
#include "tests/cuda/batch.h"
#include "tests/cuda/slots.h"

typedef std::vector<uint16_t> halves;

/* ---- Numbers ---- */

static halves random_halves(uint64_t seed, size_t n)
{
    return bf16_of(random_numbers(seed, n));
}

static double exactly_rounded(double x)
{
    return ldexp(rint(ldexp(x, 32)), -32);
}

/* Columns [begin, end) of x's row i . w's row j, and what it may be off by: every one of its mma
 * rounds a sum no larger than that of the magnitudes, to the 24 bits of fp32 or, on a device, to
 * about 23. */
struct judged {
    double value, slack;
};
static struct judged dot(const uint16_t *x, const uint16_t *w, int begin, int end)
{
    double sum = 0.0, magnitude = 0.0;
    for (int k = begin; k < end; k++) {
        double p = (double)bf16_value(x[k]) * (double)bf16_value(w[k]);
        sum += p;
        magnitude += fabs(p);
    }
    return {sum, ((end - begin) / 16 + 2) * magnitude * 0x1p-22};
}

static void assert_near(double found, struct judged expected)
{
    if (!(fabs(found - expected.value) <= expected.slack))
        fail_msg("expected %.9g +- %.3g, found %.9g", expected.value, expected.slack, found);
}

/* ---- Matrices ---- */

struct matrix {
    int rows, cols;
    halves x;
};

static struct matrix random_matrix(uint64_t seed, int rows, int cols)
{
    return {rows, cols, random_halves(seed, (size_t)rows * (size_t)cols)};
}

/* So small that a leaf has bits below 2^-32. */
static struct matrix small_matrix(uint64_t seed, int rows, int cols)
{
    struct matrix m = random_matrix(seed, rows, cols);
    for (uint16_t &x : m.x)
        x = bf16_of(bf16_value(x) * 0x1p-9f);
    return m;
}

static const uint16_t *row_of(const struct matrix &m, int i)
{
    return m.x.data() + (size_t)i * (size_t)m.cols;
}

static struct matrix rows_of(const struct matrix &m, int first, int n)
{
    size_t cols = (size_t)m.cols;
    return {n, m.cols, part(m.x, (size_t)first * cols, (size_t)n * cols)};
}

static struct matrix columns_of(const struct matrix &m, int first, int n)
{
    struct matrix out = {m.rows, n, {}};
    for (int i = 0; i < m.rows; i++)
        for (int k = 0; k < n; k++)
            out.x.push_back(row_of(m, i)[first + k]);
    return out;
}

/* ---- cuda_gemm ---- */

static std::vector<float> gemm(const struct matrix &x, const struct matrix &w,
                               const std::vector<int32_t> &index = {},
                               const std::vector<float> &bias = {})
{
    int32_t m = index.empty() ? x.rows : (int32_t)index.size();
    device_array<uint16_t> dx(x.x), dw(w.x);
    device_array<int32_t> di(index);
    device_array<float> db(bias), y((size_t)(m * w.rows));
    struct cuda_part part = {bf16_matrix(dw.p, w.rows, w.cols), bias.empty() ? NULL : db.p, y.p,
                             w.rows};
    assert_ran(cuda_gemm(dx.p, index.empty() ? NULL : di.p, m, &part, 1, NULL));
    return y.read();
}

static void gemm_of_any_shape(void **state)
{
    (void)state;
    const int shapes[][3] = {{1, 8, 1},     {16, 32, 8},   {17, 24, 9},  {40, 96, 3},
                             {33, 40, 17},  {5, 8, 65},    {48, 256, 7}, {15, 288, 1},
                             {100, 56, 33}, {16, 320, 64}, {31, 136, 24}};
    uint64_t seed = 1;
    for (const int *shape : shapes) {
        simt_seed(seed);
        struct matrix w = random_matrix(seed++, shape[0], shape[1]);
        struct matrix x = random_matrix(seed++, shape[2], shape[1]);
        std::vector<float> bias = random_numbers(seed++, (size_t)w.rows);
        std::vector<int32_t> index;
        for (int i = 0; i < x.rows; i += 2)
            index.push_back(x.rows - 1 - i);
        std::vector<float> y = gemm(x, w), biased = gemm(x, w, {}, bias), some = gemm(x, w, index);
        for (int i = 0; i < x.rows; i++)
            for (int j = 0; j < w.rows; j++) {
                size_t at = (size_t)(i * w.rows + j);
                assert_near((double)y[at], dot(row_of(x, i), row_of(w, j), 0, w.cols));
                assert_true(biased[at] == y[at] + bias[(size_t)j]);
            }
        for (size_t i = 0; i < index.size(); i++)
            assert_same(part(some, i * (size_t)w.rows, (size_t)w.rows),
                        part(y, (size_t)(index[i] * w.rows), (size_t)w.rows));
    }
}

static void gemm_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    for (int cols : {8, 40, 96, 416}) {
        struct matrix w = random_matrix(1, 21, cols), x = random_matrix(2, 65, cols);
        size_t n = (size_t)w.rows;
        std::vector<float> all = gemm(x, w);
        for (int m : {1, 3, 8, 9, 17, 31, 64}) {
            simt_seed((uint64_t)m);
            assert_same(gemm(rows_of(x, 0, m), w), part(all, 0, (size_t)m * n));
        }
        for (int i : {0, 1, 7, 8, 33, 64})
            assert_same(gemm(rows_of(x, i, 1), w), part(all, (size_t)i * n, n));
        for (int j : {0, 15, 16, 20}) { /* nor do the weights' other rows matter */
            std::vector<float> alone = gemm(x, rows_of(w, j, 1));
            for (size_t i = 0; i < 65; i++)
                assert_true(alone[i] == all[i * n + (size_t)j]);
        }
    }
}

/* Parts of one launch, each into its own columns of a wider y or into a y of its own. */
static void gemm_parts_are_what_they_are_alone(void **state)
{
    (void)state;
    const int rows[] = {20, 1, 33}, cols = 72;
    for (int m : {1, 9, 40}) {
        struct matrix x = random_matrix(3, m, cols);
        std::vector<struct cuda_part> parts;
        std::vector<float> untouched((size_t)m * 60, 7.0f);
        device_array<float> wide(untouched), own((size_t)(m * rows[2])),
            bias(std::vector<float>(1, 0.5f));
        std::vector<struct matrix> w;
        for (int p = 0; p < 3; p++)
            w.push_back(random_matrix(10 + (uint64_t)p, rows[p], cols));
        device_array<uint16_t> dx(x.x), w0(w[0].x), w1(w[1].x), w2(w[2].x);
        parts.push_back({bf16_matrix(w0.p, rows[0], cols), NULL, wide.p + 2, 60});
        parts.push_back({bf16_matrix(w1.p, rows[1], cols), bias.p, wide.p + 30, 60});
        parts.push_back({bf16_matrix(w2.p, rows[2], cols), NULL, own.p, rows[2]});
        assert_ran(cuda_gemm(dx.p, NULL, m, parts.data(), 3, NULL));
        std::vector<float> y = wide.read(), y0 = gemm(x, w[0]), y1 = gemm(x, w[1]);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < 60; j++) {
                float expected = j >= 2 && j < 22 ? y0[(size_t)(i * 20 + j - 2)]
                                 : j == 30        ? y1[(size_t)i] + 0.5f
                                                  : 7.0f;
                assert_true(y[(size_t)(i * 60 + j)] == expected);
            }
        assert_same(own.read(), gemm(x, w[2]));
    }
}

static void gemm_of_nothing(void **state)
{
    (void)state;
    struct cuda_part none = {bf16_matrix(NULL, 0, 32), NULL, NULL, 0};
    assert_ran(cuda_gemm(NULL, NULL, 4, &none, 1, NULL));
    none.w.rows = 3;
    assert_ran(cuda_gemm(NULL, NULL, 0, &none, 1, NULL));
    assert_ran(cuda_fill_padding(0, 1, 4, NULL, 9, NULL));
    assert_ran(cuda_fill_padding(2, 4, 4, NULL, 9, NULL));
    device_array<uint16_t> x(random_halves(1, 64)), w(random_halves(2, 96));
    device_array<float> y(6);
    const struct cuda_part both[] = {{bf16_matrix(NULL, 0, 32), NULL, NULL, 0},
                                     {bf16_matrix(w.p, 3, 32), NULL, y.p, 3}};
    assert_ran(cuda_gemm(x.p, NULL, 2, both, 2, NULL));
    assert_same(y.read(), gemm({2, 32, x.read()}, {3, 32, w.read()}));
}

static void padding_is_minus_infinity(void **state)
{
    (void)state;
    device_array<float> y(std::vector<float>(3 * 600, 1.0f));
    assert_ran(cuda_fill_padding(2, 5, 599, y.p, 600, NULL));
    std::vector<float> found = y.read();
    for (size_t i = 0; i < 3 * 600; i++)
        assert_true(found[i] == (i < 1200 && i % 600 >= 5 && i % 600 < 599 ? -INFINITY : 1.0f));
}

/* A NaN or an infinity stays in its row of x or of w. */
static void gemm_keeps_what_is_not_finite_apart(void **state)
{
    (void)state;
    struct matrix w = random_matrix(5, 20, 40), x = random_matrix(6, 9, 40);
    std::vector<float> clean = gemm(x, w);
    w.x[3 * 40 + 39] = 0x7fc0;                   /* NaN */
    x.x[5 * 40] = 0x7f80;                        /* infinity */
    w.x[7 * 40] = 0x8000;                        /* -0 x infinity: NaN */
    memset(&x.x[8 * 40], 0, 40 * sizeof x.x[0]); /* a row of zeros */
    std::vector<float> y = gemm(x, w);
    for (int i = 0; i < 9; i++)
        for (int j = 0; j < 20; j++) {
            float f = y[(size_t)(i * 20 + j)];
            if (j == 3 || (i == 5 && j == 7))
                assert_true(f != f);
            else if (i == 5)
                assert_true(f == (w.x[(size_t)j * 40] & 0x8000 ? -INFINITY : INFINITY));
            else if (i == 8)
                assert_true(f == 0.0f && !signbit(f));
            else if (j != 7)
                assert_true(f == clean[(size_t)(i * 20 + j)]);
        }
}

/* ---- cuda_gemm_leaf ---- */

struct exact {
    std::vector<double> sum;
    unsigned long long out_of_range;
};

static struct exact gemm_leaf(const struct matrix &x, const struct matrix &w, int leaf, int leaves)
{
    device_array<uint16_t> dx(x.x), dw(w.x);
    device_array<double> sum(std::vector<double>((size_t)(x.rows * w.rows), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 100));
    assert_ran(cuda_gemm_leaf(dx.p, x.rows, bf16_matrix(dw.p, w.rows, w.cols), leaf, leaves, sum.p,
                              beyond.p, NULL));
    return {sum.read(), beyond.read()[0] - 100};
}

static void leaves_of_any_shape(void **state)
{
    (void)state;
    const int shapes[][4] = {{16, 128, 1, 128}, {20, 160, 9, 40}, {5, 512, 3, 128}, {33, 24, 17, 8},
                             {17, 144, 65, 64}, {40, 96, 33, 96}, {1, 640, 8, 80}};
    uint64_t seed = 20;
    for (const int *shape : shapes) {
        simt_seed(seed);
        struct matrix w = random_matrix(seed++, shape[0], shape[1]);
        struct matrix x = small_matrix(seed++, shape[2], shape[1]);
        int leaf = shape[3], leaves = (w.cols + leaf - 1) / leaf;
        struct exact found = gemm_leaf(x, w, leaf, leaves);
        assert_int_equal(found.out_of_range, 0);
        for (int i = 0; i < x.rows; i++)
            for (int j = 0; j < w.rows; j++) {
                struct judged all = {0.0, leaves * 0x1p-32};
                for (int k = 0; k < w.cols; k += leaf) {
                    int end = k + leaf < w.cols ? k + leaf : w.cols;
                    struct judged d = dot(row_of(x, i), row_of(w, j), k, end);
                    all.value += d.value, all.slack += d.slack;
                }
                double s = found.sum[(size_t)(i * w.rows + j)];
                assert_near(s, all);
                assert_true(s == exactly_rounded(s));
            }
    }
}

/* One leaf is what cuda_gemm gives, rounded: the same product in both. */
static void a_leaf_is_a_product(void **state)
{
    (void)state;
    for (int m : {1, 12, 40}) {
        struct matrix w = random_matrix(30, 37, 104), x = small_matrix(31, m, 104);
        std::vector<double> expected;
        for (float f : gemm(x, w))
            expected.push_back(exactly_rounded((double)f) + 0.0);
        assert_same(gemm_leaf(x, w, 104, 1).sum, expected);
    }
}

/* The sum over ranks, each with a run of heads, added in any order; and rows alone. */
static void exact_sums_are_the_same_in_any_cut(void **state)
{
    (void)state;
    const int leaf = 40, heads = 7, cols = leaf * heads, m = 20;
    struct matrix w = random_matrix(40, 19, cols), x = small_matrix(41, m, cols);
    std::vector<double> all = gemm_leaf(x, w, leaf, heads).sum;
    const std::vector<std::vector<int>> cuts = {
        {0, 7}, {0, 1, 7}, {0, 3, 5, 7}, {0, 1, 2, 3, 4, 5, 6, 7}};
    uint64_t seed = 1;
    for (const std::vector<int> &cut : cuts) {
        std::vector<double> sum(all.size(), 0.0);
        for (size_t rank = cut.size() - 1; rank-- > 0;) {
            int first = cut[rank] * leaf, n = (cut[rank + 1] - cut[rank]) * leaf;
            simt_seed(seed++);
            std::vector<double> share =
                gemm_leaf(columns_of(x, first, n), columns_of(w, first, n), leaf, heads).sum;
            for (size_t i = 0; i < sum.size(); i++)
                sum[i] += share[i];
        }
        assert_same(sum, all);
    }
    for (int count : {1, 3, 8, 9, 17})
        assert_same(gemm_leaf(rows_of(x, m - count, count), w, leaf, heads).sum,
                    part(all, (size_t)(m - count) * 19, (size_t)count * 19));
}

/* Of so many rows that a warp takes several leaves, or all: as when it takes one. */
static void leaves_are_the_same_in_any_run(void **state)
{
    (void)state;
    const int leaf = 40, cols = 2 * leaf + 24;
    for (int strips : {1040, 2060})
        for (int m : {1, 9, 20}) {
            struct matrix w = random_matrix(45, 16 * strips + 5, cols);
            struct matrix x = small_matrix(46, m, cols);
            std::vector<double> all = gemm_leaf(x, w, leaf, 3).sum;
            for (int first : {0, 8000, w.rows - 21}) {
                std::vector<double> some = gemm_leaf(x, rows_of(w, first, 21), leaf, 3).sum;
                for (int i = 0; i < m; i++)
                    assert_same(part(all, (size_t)(i * w.rows + first), 21),
                                part(some, (size_t)(i * 21), 21));
            }
            x.x[(size_t)leaf] = 0x7fc0; /* a NaN in one leaf is none in the leaf before it */
            assert_int_equal(gemm_leaf(x, w, leaf, 3).out_of_range, w.rows);
        }
}

/* 2^20 over the leaves of all ranks is the limit; a leaf that is not a number is beyond it, too. */
static void leaves_out_of_range_are_counted(void **state)
{
    (void)state;
    const int leaf = 32, m = 10;
    struct matrix w = {18, 64, halves(18 * 64, 0)},
                  x = {m, 64, halves((size_t)m * 64, bf16_of(1.0f))};
    assert_int_equal(gemm_leaf(x, w, leaf, 4).out_of_range, 0);
    w.x[2 * 64 + 5] = bf16_of(262144.0f);     /* row 2, leaf 0: 2^18, the limit of four leaves */
    w.x[17 * 64 + 40] = bf16_of(-1048576.0f); /* row 17, leaf 1 */
    w.x[9 * 64 + 1] = bf16_of(261120.0f);     /* row 9: just below */
    assert_int_equal(gemm_leaf(x, w, leaf, 4).out_of_range, 2 * m);
    assert_int_equal(gemm_leaf(x, w, leaf, 2).out_of_range, m);
    assert_int_equal(gemm_leaf(x, w, leaf, 1).out_of_range, m);
    x.x[3 * 64] = 0x7fc0; /* a NaN in token 3's leaf 0, of all 18 rows; row 2's was counted */
    struct exact found = gemm_leaf(x, w, leaf, 4);
    assert_int_equal(found.out_of_range, 2 * m + 17);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < 18; j++)
            assert_true(isnan(found.sum[(size_t)(i * 18 + j)]) == (i == 3));
}

/* ---- Experts ---- */

struct expert {
    struct matrix gate, up, down;
};

struct experts {
    std::vector<struct expert> of;
    int columns, hidden;
};

static struct experts random_experts(uint64_t seed, int count, int columns, int hidden)
{
    struct experts e = {{}, columns, hidden};
    for (int i = 0; i < count; i++, seed += 3)
        e.of.push_back({random_matrix(seed, columns, hidden),
                        random_matrix(seed + 1, columns, hidden),
                        random_matrix(seed + 2, hidden, columns)});
    return e;
}

struct mixed {
    halves h;
    std::vector<double> sum;
    unsigned long long out_of_range;
    uint64_t up_sectors, down_sectors; /* where simt_count is on */
};

static uint64_t sectors()
{
#if defined(__CUDACC__)
    return 0;
#else
    return simt_last_counts()->global_sectors;
#endif
}

/* Both halves of the FFN. `spare`: how many more slots the host allows than there are. */
static struct mixed mix(const struct experts &all, const struct slots &s, const struct matrix &xn,
                        int leaves, int spare = 0)
{
    std::vector<device_array<uint16_t> *> data;
    std::vector<struct cuda_ffn> table;
    auto keep = [&](const struct matrix &m) {
        data.push_back(new device_array<uint16_t>(m.x));
        return (const uint16_t *)data.back()->p;
    };
    for (const struct expert &e : all.of)
        table.push_back({keep(e.gate), keep(e.up), keep(e.down), NULL, NULL, NULL});
    device_array<struct cuda_ffn> ffn(table);
    device_array<int32_t> first(s.first), row(s.row);
    device_array<float> weight(s.weight);
    device_array<uint16_t> x(xn.x), h(s.row.size() * (size_t)all.columns);
    device_array<double> sum(std::vector<double>((size_t)(xn.rows * all.hidden), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    struct cuda_route route = {NULL, NULL, first.p, row.p, weight.p};
    int32_t count = (int32_t)all.of.size(), slots = (int32_t)s.row.size() + spare;
    assert_ran(
        cuda_ffn_up(ffn.p, {}, count, slots, all.columns, all.hidden, route, x.p, h.p, NULL));
    uint64_t up_sectors = sectors();
    assert_ran(cuda_ffn_down(xn.rows, ffn.p, {}, count, slots, all.columns, all.hidden, route,
                             leaves, h.p, sum.p, beyond.p, NULL));
    for (device_array<uint16_t> *d : data)
        delete d;
    return {h.read(), sum.read(), beyond.read()[0], up_sectors, sectors()};
}

/* The routes that a step may bring, of 4 experts. */
static bool takes_some(int e, int i)
{
    return e != 1 && (i + e) % 3 != 0; /* expert 1 has none */
}

struct ffn_shape {
    int columns, hidden, rows;
};
static const std::vector<struct ffn_shape> ffn_shapes = {
    {128, 64, 1}, {40, 96, 5}, {136, 24, 14}, {264, 40, 70}, {8, 8, 33}};

static void experts_against_double(void **state)
{
    (void)state;
    uint64_t seed = 50;
    for (const auto &shape : ffn_shapes) {
        simt_seed(seed);
        struct experts e = random_experts(seed, 4, shape.columns, shape.hidden);
        struct matrix xn = random_matrix(seed += 20, shape.rows, shape.hidden);
        struct slots s = slots_of(4, shape.rows, takes_some);
        struct mixed found = mix(e, s, xn, 12, 9);
        std::vector<struct judged> sum((size_t)(shape.rows * shape.hidden), {0.0, 0.0});
        assert_int_equal(found.out_of_range, 0);
        for (int x = 0; x < 4; x++)
            for (int slot = s.first[(size_t)x]; slot < s.first[(size_t)x + 1]; slot++) {
                const struct expert &of = e.of[(size_t)x];
                int row = s.row[(size_t)slot];
                const uint16_t *h = found.h.data() + (size_t)slot * (size_t)shape.columns;
                for (int j = 0; j < shape.columns; j++) {
                    struct judged g = dot(row_of(xn, row), row_of(of.gate, j), 0, shape.hidden);
                    struct judged u = dot(row_of(xn, row), row_of(of.up, j), 0, shape.hidden);
                    double silu = g.value / (1.0 + exp(-g.value)), value = silu * u.value;
                    double slack = 1.1 * g.slack * fabs(u.value) + fabs(silu) * u.slack;
                    assert_near((double)bf16_value(h[j]),
                                {value, slack + fabs(value) * (0x1p-8 + 0x1p-20) + 0x1p-80});
                }
                for (int j = 0; j < shape.hidden; j++)
                    for (int k = 0; k < shape.columns; k += CUDA_FFN_BLOCK) {
                        int end = k + CUDA_FFN_BLOCK < shape.columns ? k + CUDA_FFN_BLOCK
                                                                     : shape.columns;
                        struct judged d = dot(h, row_of(of.down, j), k, end),
                                      *to = &sum[(size_t)(row * shape.hidden + j)];
                        double weight = (double)s.weight[(size_t)slot];
                        to->value += weight * d.value;
                        to->slack += weight * d.slack + 0x1p-24 * fabs(weight * d.value) + 0x1p-32;
                    }
            }
        for (size_t i = 0; i < sum.size(); i++)
            assert_near(found.sum[i], sum[i]);
    }
}

/* gate and up are cuda_gemm's products, and each expert's leaves cuda_gemm_leaf's. */
static void experts_are_products(void **state)
{
    (void)state;
    std::vector<struct ffn_shape> shapes = ffn_shapes;
    /* So many strips that a warp goes over several tiles of slots, or leaves. */
    shapes.push_back({16 * 2050 + 8, 8, 70});
    shapes.push_back({264, 16 * 1040 + 8, 70});
    for (const auto &shape : shapes) {
        struct experts e = random_experts(70, 1, shape.columns, shape.hidden);
        struct matrix xn = random_matrix(80, shape.rows, shape.hidden);
        struct slots s = slots_of(1, shape.rows, [](int, int) { return true; });
        s.weight.assign(s.weight.size(), 1.0f);
        struct mixed found = mix(e, s, xn, 3);
        std::vector<float> g = gemm(xn, e.of[0].gate), u = gemm(xn, e.of[0].up);
        halves h;
        for (size_t i = 0; i < g.size(); i++)
            h.push_back(bf16_of(g[i] / (1.0f + detmath_expf(0.0f - g[i])) * u[i]));
        assert_same(found.h, h);
        assert_same(found.sum,
                    gemm_leaf({shape.rows, shape.columns, h}, e.of[0].down, CUDA_FFN_BLOCK, 3).sum);
    }
}

/* A slot's bits do not depend on the others, nor a row's sum on what other rows choose. */
static void a_row_is_the_same_among_any_others(void **state)
{
    (void)state;
    const int rows = 70, columns = 136, hidden = 40;
    struct experts e = random_experts(90, 3, columns, hidden);
    struct matrix xn = random_matrix(99, rows, hidden);
    auto takes = [](int x, int i) { return (i + x) % 2 == 0 || x == 2; };
    struct slots s = slots_of(3, rows, takes);
    struct mixed all = mix(e, s, xn, 6);
    for (int i : {0, 5, 8, 37, 69}) {
        simt_seed((uint64_t)i + 1);
        struct slots one = slots_of(3, rows, [&](int x, int r) { return r == i && takes(x, r); });
        struct mixed alone = mix(e, one, xn, 6, 3);
        assert_same(part(alone.sum, (size_t)(i * hidden), (size_t)hidden),
                    part(all.sum, (size_t)(i * hidden), (size_t)hidden));
        for (size_t slot = 0; slot < one.row.size(); slot++) {
            size_t same = 0; /* the slot of that row and expert among all */
            while (s.row[same] != i || s.weight[same] != one.weight[slot])
                same++;
            assert_same(part(alone.h, slot * (size_t)columns, (size_t)columns),
                        part(all.h, same * (size_t)columns, (size_t)columns));
        }
        for (size_t k = 0; k < alone.sum.size(); k++)
            assert_true(k / (size_t)hidden == (size_t)i ||
                        (alone.sum[k] == 0.0 && !signbit(alone.sum[k])));
    }
}

/* Whole experts over ranks, and the blocks of 128 columns of each over ranks. */
static void ranks_add_up_to_the_same(void **state)
{
    (void)state;
    const int rows = 11, columns = 264, hidden = 24;
    struct experts e = random_experts(110, 5, columns, hidden);
    struct matrix xn = random_matrix(130, rows, hidden);
    auto takes = [](int x, int i) { return (i * 3 + x) % 4 < 2; };
    struct mixed all = mix(e, slots_of(5, rows, takes), xn, 15);
    uint64_t seed = 1;
    for (const std::vector<int> &cut : std::vector<std::vector<int>>{{0, 1, 5}, {0, 2, 3, 5}}) {
        std::vector<double> sum(all.sum.size(), 0.0);
        struct slots whole = slots_of(5, rows, takes);
        for (size_t rank = 0; rank + 1 < cut.size(); rank++) {
            size_t from = (size_t)cut[rank], n = (size_t)(cut[rank + 1] - cut[rank]);
            struct experts mine = {part(e.of, from, n), columns, hidden};
            struct slots s = slots_of((int)n, rows,
                                      [&](int x, int i) { return takes(x + (int)from, i); });
            s.weight = part(whole.weight, (size_t)whole.first[from], s.row.size());
            simt_seed(seed++);
            std::vector<double> share = mix(mine, s, xn, 15).sum;
            for (size_t i = 0; i < sum.size(); i++)
                sum[i] += share[i];
        }
        assert_same(sum, all.sum);
    }
    std::vector<double> sum(all.sum.size(), 0.0);
    for (int first : {128, 256, 0}) {
        int n = first == 256 ? 8 : 128;
        struct experts mine = {{}, n, hidden};
        for (const struct expert &x : e.of)
            mine.of.push_back(
                {rows_of(x.gate, first, n), rows_of(x.up, first, n), columns_of(x.down, first, n)});
        std::vector<double> share = mix(mine, slots_of(5, rows, takes), xn, 15).sum;
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] += share[i];
    }
    assert_same(sum, all.sum);
}

static void experts_out_of_range_are_counted(void **state)
{
    (void)state;
    struct experts e = random_experts(140, 2, 256, 24);
    struct matrix xn = random_matrix(150, 6, 24);
    struct slots s = slots_of(2, 6, [](int x, int i) { return x == 0 || i < 2; });
    assert_int_equal(mix(e, s, xn, 4).out_of_range, 0);
    e.of[1].down.x[23 * 256 + 200] = 0x7fc0; /* hidden row 23, leaf 1, of expert 1's two slots */
    s.weight[4] = INFINITY;                  /* every leaf of expert 0's slot 4 */
    struct mixed found = mix(e, s, xn, 4);
    assert_int_equal(found.out_of_range, 2 + 24 * 2);
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 24; j++)
            assert_true(isfinite(found.sum[(size_t)(i * 24 + j)]) ==
                        !(i == 4 || (i < 2 && j == 23)));
}

/* So many strips that blocks have several warps, in the last block some without work. */
static void blocks_of_several_warps(void **state)
{
    (void)state;
    struct matrix x = random_matrix(200, 9, 8);
    for (int strips : {1025, 2049}) {
        struct matrix w = random_matrix(201, 16 * strips, 8);
        size_t n = (size_t)w.rows;
        std::vector<float> y = gemm(rows_of(x, 0, 1), w);
        std::vector<double> sum = gemm_leaf(x, w, 8, 1).sum;
        for (int j = 0; j < w.rows; j++)
            assert_near((double)y[(size_t)j], dot(row_of(x, 0), row_of(w, j), 0, 8));
        for (size_t j : {(size_t)0, (size_t)17, n / 2, n - 16, n - 1})
            assert_same(part(sum, 8 * n + j, 1),
                        gemm_leaf(rows_of(x, 8, 1), rows_of(w, (int)j, 1), 8, 1).sum);
    }
    const int count = 9, columns = 16 * 15, hidden = 16 * 117;
    struct experts e = random_experts(202, count, columns, hidden);
    struct matrix xn = random_matrix(250, count, hidden);
    struct mixed all = mix(e, slots_of(count, count, [](int k, int i) { return k == i; }), xn, 2);
    for (int k : {0, 5, 8}) { /* row k goes to expert k alone */
        struct mixed one = mix({{e.of[(size_t)k]}, columns, hidden},
                               {{0, 1}, {0}, {(float)(1 + 10 * k % 16) / 11.0f}}, rows_of(xn, k, 1),
                               2);
        assert_same(one.h, part(all.h, (size_t)(k * columns), (size_t)columns));
        assert_same(one.sum, part(all.sum, (size_t)(k * hidden), (size_t)hidden));
    }
}

static void experts_of_nothing(void **state)
{
    (void)state;
    const struct cuda_route none = {};
    device_array<double> sum(std::vector<double>(12, 3.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    assert_ran(cuda_ffn_up(NULL, {}, 0, 8, 16, 6, none, NULL, NULL, NULL));
    assert_ran(cuda_ffn_up(NULL, {}, 2, 0, 16, 6, none, NULL, NULL, NULL));
    assert_ran(cuda_ffn_up(NULL, {}, 2, 8, 0, 6, none, NULL, NULL, NULL));
    assert_ran(cuda_ffn_down(0, NULL, {}, 2, 8, 16, 6, none, 4, NULL, sum.p, beyond.p, NULL));
    assert_ran(cuda_ffn_down(2, NULL, {}, 0, 8, 16, 6, none, 4, NULL, sum.p, beyond.p, NULL));
    assert_same(sum.read(), std::vector<double>(12, 3.0)); /* other ranks add to it */
    struct experts e = random_experts(160, 2, 16, 8);
    struct matrix xn = random_matrix(161, 3, 8);
    struct slots s = slots_of(2, 3, [](int, int) { return false; });
    s.row.push_back(0), s.weight.push_back(1.0f); /* not of any expert */
    assert_same(mix(e, s, xn, 4).sum, std::vector<double>(24, 0.0));
}

#if !defined(__CUDACC__)
/* Every sector of the weights is asked for once a tile of tokens (of 64 in cuda_gemm, of 32 in the
 * exact sums), every sector of a token once a strip of 16 weight rows, and all of them are whole.
 */
static void weights_stream_once(void **state)
{
    (void)state;
    const uint64_t rows = 80, cols = 512, leaves = cols / 128;
    const uint64_t weights = rows * cols * 2 / 32, token = rows / 16 * cols * 2 / 32;
    simt_count(true);
    for (uint64_t m : {1, 8, 16, 32, 64}) {
        struct matrix w = random_matrix(170, (int)rows, (int)cols);
        struct matrix x = random_matrix(171, (int)m, (int)cols);
        gemm(x, w);
        const struct simt_counts *c = simt_last_counts();
        assert_int_equal(c->global_sectors, weights + m * token + m * rows * 4 / 32);
        assert_int_equal(c->shared_passes, c->shared_ideal);
        gemm_leaf(x, w, 128, (int)leaves); /* so few strips: each leaf has a warp of its own */
        c = simt_last_counts();
        assert_int_equal(c->global_sectors,
                         (m + 31) / 32 * weights + m * token + leaves * m * rows * 8 / 32);
        assert_int_equal(c->shared_passes, c->shared_ideal);
    }
    simt_count(false);
}

static void experts_stream_once(void **state)
{
    (void)state;
    const int columns = 256, hidden = 64;
    struct experts e = random_experts(180, 1, columns, hidden);
    for (int m : {1, 8, 32}) {
        struct matrix xn = random_matrix(190, m, hidden);
        struct slots s = slots_of(1, m, [](int, int) { return true; });
        simt_count(true);
        struct mixed found = mix(e, s, xn, 4);
        simt_count(false);
        uint64_t weights = (uint64_t)(columns * hidden * 2 / 32), slots = (uint64_t)m;
        /* xn's rows, h in halves of sectors; h's rows, a sum for each of two leaves. */
        uint64_t up = 2 * weights + slots * (uint64_t)(columns / 16 * (hidden * 2 / 32 + 2));
        uint64_t down = weights +
                        slots * (uint64_t)(hidden / 16 * columns * 2 / 32 + 2 * hidden * 8 / 32);
        assert_in_range(found.up_sectors, up, up + up / 10 + 40); /* first, row, ffn besides */
        assert_in_range(found.down_sectors, down, down + down / 10 + 40);
    }
}
#endif

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gemm_of_any_shape),
    cmocka_unit_test(gemm_row_is_the_same_in_any_batch),
    cmocka_unit_test(gemm_parts_are_what_they_are_alone),
    cmocka_unit_test(gemm_of_nothing),
    cmocka_unit_test(padding_is_minus_infinity),
    cmocka_unit_test(gemm_keeps_what_is_not_finite_apart),
    cmocka_unit_test(leaves_of_any_shape),
    cmocka_unit_test(a_leaf_is_a_product),
    cmocka_unit_test(exact_sums_are_the_same_in_any_cut),
    cmocka_unit_test(leaves_are_the_same_in_any_run),
    cmocka_unit_test(leaves_out_of_range_are_counted),
    cmocka_unit_test(experts_against_double),
    cmocka_unit_test(experts_are_products),
    cmocka_unit_test(a_row_is_the_same_among_any_others),
    cmocka_unit_test(ranks_add_up_to_the_same),
    cmocka_unit_test(experts_out_of_range_are_counted),
    cmocka_unit_test(experts_of_nothing),
    cmocka_unit_test(blocks_of_several_warps),
#if !defined(__CUDACC__)
    cmocka_unit_test(weights_stream_once),
    cmocka_unit_test(experts_stream_once),
#endif
};

KERNEL_MAIN(tests)
