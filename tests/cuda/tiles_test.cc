/*
 * Tiles of many rows (worker/cuda/tiles.cu) on the emulator: bit for bit what the kernels for few
 * rows give (worker/cuda/products.cu, which products_test.cc holds against double precision), over
 * ragged shapes; what lies beside rows is never part of a result.
 */
#include "tests/cuda/batch.h"
#include "worker/cuda/tiles.h"

typedef std::vector<uint16_t> halves;

enum { FEW = 8 }; /* rows that products.cu takes itself */

static const std::vector<int> all_tokens = {64, 128, 256}, leaf_tokens = {64, 128};

/* n random bf16 between two guards of NaN, which lie where a row past the edge would. */
struct guarded {
    size_t before, n;
    device_array<uint16_t> a;
    guarded(const halves &x, size_t row)
        : before((row + 7) / 8 * 8), n(x.size()), a(fenced(x, before))
    {
    }
    uint16_t *p() const
    {
        return a.p + before;
    }
    static halves fenced(const halves &x, size_t guard)
    {
        halves out(guard, 0x7fc0);
        out.insert(out.end(), x.begin(), x.end());
        out.insert(out.end(), guard, 0x7fc0);
        return out;
    }
};

static halves random_halves(uint64_t seed, size_t n, float scale = 1.0f)
{
    halves out;
    for (float x : random_numbers(seed, n))
        out.push_back(bf16_of(x * scale));
    return out;
}

/* ---- cuda_gemm ---- */

struct gemm_case {
    int m, cols;
    std::vector<int> rows; /* of each part */
    bool index, bias;
};

/* The parts' results after each other; tokens 0: by the kernels for few rows. */
static std::vector<float> gemm(const struct gemm_case &c, int tokens, uint64_t seed)
{
    const int ldy = 7; /* more than rows */
    guarded x(random_halves(seed, (size_t)(c.m * c.cols)), (size_t)c.cols);
    std::vector<int32_t> index;
    for (int i = 0; i < c.m; i++)
        index.push_back(i * 5 % c.m);
    device_array<int32_t> di(index);
    std::vector<guarded *> w;
    std::vector<device_array<float> *> y, bias;
    std::vector<struct cuda_part> parts;
    for (int rows : c.rows) {
        w.push_back(new guarded(random_halves(++seed, (size_t)(rows * c.cols)), (size_t)c.cols));
        bias.push_back(new device_array<float>(random_numbers(++seed, (size_t)rows)));
        y.push_back(
            new device_array<float>(std::vector<float>((size_t)(c.m * (rows + ldy)), 3.0f)));
        parts.push_back({bf16_matrix(w.back()->p(), rows, c.cols),
                         c.bias && rows % 2 ? bias.back()->p : NULL, y.back()->p, rows + ldy});
    }
    int32_t count = (int32_t)parts.size();
    if (tokens)
        assert_ran(
            tiles_gemm(tokens, x.p(), c.index ? di.p : NULL, c.m, parts.data(), count, NULL));
    for (int i = 0; !tokens && i < c.m; i += FEW) {
        std::vector<struct cuda_part> some = parts;
        for (struct cuda_part &p : some)
            p.y += i * p.ldy;
        const uint16_t *from = c.index ? x.p() : x.p() + (size_t)(i * c.cols);
        int m = c.m - i < FEW ? c.m - i : FEW;
        assert_ran(cuda_gemm(from, c.index ? di.p + i : NULL, m, some.data(), count, NULL));
    }
    std::vector<float> all;
    for (size_t p = 0; p < parts.size(); p++) {
        std::vector<float> one = y[p]->read();
        all.insert(all.end(), one.begin(), one.end());
        delete w[p], delete y[p], delete bias[p];
    }
    return all;
}

static void gemm_is_that_of_few_rows(void **state)
{
    (void)state;
    const std::vector<struct gemm_case> cases = {
        {1, 8, {1}, false, false},        {9, 40, {17}, true, true},
        {65, 72, {130}, false, true},     {130, 64, {5, 128, 1}, true, true},
        {300, 136, {129}, false, false},  {64, 256, {256}, false, false},
        {128, 24, {127, 3}, true, false}, {257, 32, {8, 300, 40}, false, true},
    };
    uint64_t seed = 1;
    for (const struct gemm_case &c : cases) {
        std::vector<float> expected = gemm(c, 0, seed);
        for (int tokens : all_tokens) {
            simt_seed(seed + (uint64_t)tokens);
            assert_same(gemm(c, tokens, seed), expected);
        }
        seed += 10;
    }
}

/* NaNs and infinities within, too, stay in their rows. */
static void gemm_keeps_what_is_not_finite_apart(void **state)
{
    (void)state;
    const int m = 70, rows = 140, cols = 72;
    halves x = random_halves(1, m * cols), w = random_halves(2, rows * cols);
    x[3 * cols + 71] = 0x7fc0, x[69 * cols] = 0x7f80;
    w[139 * cols + 5] = 0xff80, w[0] = 0x7fc0;
    guarded dx(x, cols), dw(w, cols);
    device_array<float> tiled((size_t)(m * rows)), few((size_t)(m * rows));
    for (int i = 0; i < m; i += FEW) {
        struct cuda_part part = {bf16_matrix(dw.p(), rows, cols), NULL, few.p + i * rows, rows};
        assert_ran(cuda_gemm(dx.p() + i * cols, NULL, m - i < FEW ? m - i : FEW, &part, 1, NULL));
    }
    for (int tokens : all_tokens) {
        struct cuda_part part = {bf16_matrix(dw.p(), rows, cols), NULL, tiled.p, rows};
        assert_ran(tiles_gemm(tokens, dx.p(), NULL, m, &part, 1, NULL));
        std::vector<float> found = tiled.read(), expected = few.read();
        for (size_t i = 0; i < found.size(); i++) {
            assert_int_equal(isfinite(found[i]),
                             i / rows != 3 && i / rows != 69 && i % rows != 139 && i % rows != 0);
            assert_true(isnan(expected[i]) ? isnan(found[i]) : found[i] == expected[i]);
        }
    }
}

/* ---- cuda_gemm_leaf ---- */

struct exact {
    std::vector<double> sum;
    unsigned long long out_of_range;
};

static struct exact gemm_leaf(const halves &x, const halves &w, int m, int rows, int cols, int leaf,
                              int leaves, int tokens)
{
    guarded dx(x, (size_t)cols), dw(w, (size_t)cols);
    device_array<double> sum(std::vector<double>((size_t)(m * rows), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    struct cuda_matrix matrix = bf16_matrix(dw.p(), rows, cols);
    if (tokens)
        assert_ran(tiles_gemm_leaf(tokens, dx.p(), m, matrix, leaf, leaves, sum.p, beyond.p, NULL));
    for (int i = 0; !tokens && i < m; i += FEW)
        assert_ran(cuda_gemm_leaf(dx.p() + i * cols, m - i < FEW ? m - i : FEW, matrix, leaf,
                                  leaves, sum.p + i * rows, beyond.p, NULL));
    return {sum.read(), beyond.read()[0]};
}

static void leaves_are_those_of_few_rows(void **state)
{
    (void)state;
    const int shapes[][4] = {{1, 128, 8, 8},    {33, 130, 160, 40}, {129, 5, 256, 128},
                             {70, 257, 96, 80}, {300, 20, 72, 24},  {64, 128, 384, 128}};
    uint64_t seed = 100;
    for (const int *shape : shapes) {
        int m = shape[0], rows = shape[1], cols = shape[2], leaf = shape[3];
        halves x = random_halves(seed, (size_t)(m * cols), 0x1p-9f);
        halves w = random_halves(seed + 1, (size_t)(rows * cols));
        struct exact expected = gemm_leaf(x, w, m, rows, cols, leaf, 9, 0);
        for (int tokens : leaf_tokens) {
            simt_seed(++seed);
            struct exact found = gemm_leaf(x, w, m, rows, cols, leaf, 9, tokens);
            assert_same(found.sum, expected.sum);
            assert_int_equal(found.out_of_range, 0);
        }
    }
}

/* So many tiles that one takes all leaves and stores what it has; a limit that many exceed. */
static void leaves_of_one_run(void **state)
{
    (void)state;
    const int m = 66, rows = 128 * 66 + 3, shapes[][2] = {{16, 8}, {104, 40}};
    for (const int *shape : shapes) {
        int cols = shape[0], leaf = shape[1];
        halves x = random_halves(130, (size_t)(m * cols));
        halves w = random_halves(131, (size_t)(rows * cols));
        x[(size_t)(5 * cols)] = 0x7fc0;
        w[(size_t)((rows - 1) * cols + 9)] = 0x7f80;
        for (int i = 0; i < cols; i++)
            w[(size_t)(300 * cols + i)] = bf16_of(65536.0f);
        struct exact expected = gemm_leaf(x, w, m, rows, cols, leaf, 16, 0);
        assert_true(expected.out_of_range > (unsigned long long)(rows + m));
        for (int tokens : leaf_tokens) {
            struct exact found = gemm_leaf(x, w, m, rows, cols, leaf, 16, tokens);
            assert_int_equal(found.out_of_range, expected.out_of_range);
            for (size_t i = 0; i < found.sum.size(); i++)
                assert_true(isnan(expected.sum[i]) ? isnan(found.sum[i])
                                                   : found.sum[i] == expected.sum[i]);
        }
    }
}

/* ---- Experts ---- */

struct ffn_case {
    int columns, hidden, rows;
    std::vector<int> slots; /* of each expert */
};

struct mixed {
    halves h;
    std::vector<double> sum;
    unsigned long long out_of_range;
    int slots;
};

/* An expert at a time and FEW rows at a time where `tokens` is 0. `spare`: how many more slots the
 * host allows than there are. */
static struct mixed mix(const struct ffn_case &c, int tokens, int spare, uint64_t seed)
{
    std::vector<guarded *> data;
    std::vector<struct cuda_ffn> table;
    std::vector<int32_t> first = {0}, row;
    std::vector<float> weight;
    auto keep = [&](int rows, int cols) {
        data.push_back(new guarded(random_halves(++seed, (size_t)(rows * cols)), (size_t)cols));
        return (const uint16_t *)data.back()->p();
    };
    for (int n : c.slots) {
        const uint16_t *gate = keep(c.columns, c.hidden), *up = keep(c.columns, c.hidden);
        table.push_back({gate, up, keep(c.hidden, c.columns), NULL, NULL, NULL});
        for (int i = 0; i < n; i++) {
            row.push_back(c.rows - n + i);
            weight.push_back((float)(1 + row.size() % 13) / 11.0f);
        }
        first.push_back((int32_t)row.size());
    }
    int32_t count = (int32_t)table.size(), slots = (int32_t)row.size();
    for (int i = 0; i < spare; i++)
        row.push_back(-1000000), weight.push_back(NAN);
    guarded x(random_halves(seed + 1, (size_t)(c.rows * c.hidden)), (size_t)c.hidden);
    device_array<struct cuda_ffn> ffn(table);
    device_array<int32_t> dfirst(first), drow(row);
    device_array<float> dweight(weight);
    device_array<uint16_t> h((size_t)slots * (size_t)c.columns);
    device_array<double> sum(std::vector<double>((size_t)(c.rows * c.hidden), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    if (tokens) {
        struct cuda_route route = {NULL, NULL, dfirst.p, drow.p, dweight.p};
        assert_ran(tiles_ffn_up(tokens, ffn.p, count, slots + spare, c.columns, c.hidden, route,
                                x.p(), h.p, NULL));
        assert_ran(tiles_ffn_down(tokens < 128 ? tokens : 128, ffn.p, count, slots + spare,
                                  c.columns, c.hidden, route, 40, h.p, sum.p, beyond.p, NULL));
    }
    for (int e = 0; !tokens && e < count; e++)
        for (int i = first[(size_t)e]; i < first[(size_t)e + 1]; i += FEW) {
            int n = first[(size_t)e + 1] - i;
            n = n < FEW ? n : FEW;
            device_array<int32_t> of(std::vector<int32_t>{0, n});
            struct cuda_route route = {NULL, NULL, of.p, drow.p + i, dweight.p + i};
            uint16_t *to = h.p + (size_t)i * (size_t)c.columns;
            assert_ran(
                cuda_ffn_up(ffn.p + e, {}, 1, n, c.columns, c.hidden, route, x.p(), to, NULL));
            assert_ran(cuda_ffn_down(c.rows, ffn.p + e, {}, 1, n, c.columns, c.hidden, route, 40,
                                     to, sum.p, beyond.p, NULL));
        }
    for (guarded *d : data)
        delete d;
    return {h.read(), sum.read(), beyond.read()[0], slots};
}

static void experts_are_those_of_few_rows(void **state)
{
    (void)state;
    const std::vector<struct ffn_case> cases = {
        {136, 72, 130, {0, 1, 7, 8, 9, 130}},  {40, 200, 70, {0, 0, 70, 65, 0, 64, 3}},
        {264, 40, 300, {257, 0, 300}},         {8, 8, 5, {5}},
        {64, 128, 3, std::vector<int>(70, 2)}, /* more experts than a warp has lanes */
    };
    uint64_t seed = 200;
    for (const struct ffn_case &c : cases) {
        struct mixed expected = mix(c, 0, 0, seed);
        for (int tokens : all_tokens) {
            simt_seed(seed + (uint64_t)tokens);
            struct mixed found = mix(c, tokens, tokens == 128 ? 0 : 77, seed);
            assert_same(found.h, expected.h);
            assert_same(found.sum, expected.sum);
            assert_int_equal(found.out_of_range, expected.out_of_range);
        }
        seed += 500;
    }
}

/* So many tiles that each takes all of an expert's leaves. */
static void leaves_of_an_expert_in_one_run(void **state)
{
    (void)state;
    const struct ffn_case c = {136, 128 * 70 + 8, 2, {1, 2}};
    struct mixed expected = mix(c, 0, 0, 900), found = mix(c, 64, 0, 900);
    assert_same(found.h, expected.h);
    assert_same(found.sum, expected.sum);
}

static void tiles_of_nothing(void **state)
{
    (void)state;
    const struct cuda_route none = {};
    struct cuda_part part = {bf16_matrix(NULL, 0, 32), NULL, NULL, 0};
    for (int tokens : leaf_tokens) {
        assert_ran(tiles_gemm(tokens, NULL, NULL, 4, &part, 1, NULL));
        assert_ran(
            tiles_gemm_leaf(tokens, NULL, 0, bf16_matrix(NULL, 4, 8), 8, 1, NULL, NULL, NULL));
        assert_ran(tiles_ffn_up(tokens, NULL, 2, 0, 8, 8, none, NULL, NULL, NULL));
        assert_ran(tiles_ffn_down(tokens, NULL, 0, 9, 8, 8, none, 4, NULL, NULL, NULL, NULL));
    }
    struct ffn_case c = {16, 8, 3, {0, 0}};
    assert_same(mix(c, 64, 40, 950).sum, std::vector<double>(24, 0.0));
}

/* ---- Which kernels ---- */

static int chosen(int64_t groups, int64_t tokens, int64_t rows, int64_t cols, bool exact = false)
{
    return tiles_choose({groups, tokens, rows, cols, exact});
}

/* Of the shapes of a model of 128 experts: few rows stay with products.cu, many do not, and those
 * between never get smaller tiles for more rows of full waves. */
static void the_larger_the_step_the_larger_the_tile(void **state)
{
    (void)state;
    for (int64_t m : {0, 1, 8, 16})
        for (bool exact : {false, true}) {
            assert_int_equal(chosen(1, m, 5120, 2048, exact), 0);
            assert_int_equal(chosen(1, m, 151936, 2048, exact), 0);
            assert_int_equal(chosen(128, m, 1536, 2048, exact), 0);
        }
    assert_int_equal(chosen(1, 8192, 5120, 2048), 256);
    assert_int_equal(chosen(1, 8192, 2048, 4096, true), 128);
    assert_int_equal(chosen(128, 512, 1536, 2048), 256);
    assert_int_equal(chosen(128, 512, 2048, 768, true), 128);
    assert_int_equal(chosen(128, 64, 1536, 2048), 64);
    assert_int_equal(chosen(0, 0, 0, 0), 0);
}

#if !defined(__CUDACC__)
/* Which kernel a stage launches: it is given no memory, and the report of that names it. */
static void assert_launches(const char *kernel, int code)
{
    const char *report = simt_report();
    assert_true(code != 0 && report);
    if (!strstr(report, kernel))
        fail_msg("expected %s, found: %s", kernel, report);
}

static void large_steps_take_tiles(void **state)
{
    (void)state;
    const struct cuda_route none = {};
    const struct cuda_matrix q = bf16_matrix(NULL, 4096, 2048), kv = bf16_matrix(NULL, 512, 2048),
                             o = bf16_matrix(NULL, 2048, 4096);
    const struct cuda_part parts[] = {{q, NULL, NULL, 0}, {kv, NULL, NULL, 0}, {kv, NULL, NULL, 0}};
    simt_catch(true);
    for (int m : {1, 2048}) {
        bool few = m == 1;
        assert_launches(few ? "gemm<weights_bf16, 1>" : "tile_gemm<256>",
                        cuda_gemm(NULL, NULL, m, parts, 3, NULL));
        assert_launches(few ? "gemm_leaf<weights_bf16, 1>" : "tile_gemm_leaf<128>",
                        cuda_gemm_leaf(NULL, m, o, 128, 32, NULL, NULL, NULL));
        assert_launches(few ? "ffn_up<weights_bf16, 1>" : "tile_ffn_up<128>",
                        cuda_ffn_up(NULL, {}, 128, 8 * m, 768, 2048, none, NULL, NULL, NULL));
        assert_launches(
            few ? "ffn_down<weights_bf16, 1>" : "tile_ffn_down<128>",
            cuda_ffn_down(m, NULL, {}, 128, 8 * m, 768, 2048, none, 768, NULL, NULL, NULL, NULL));
    }
    simt_catch(false);
}

/* No bank conflicts, neither of loads nor of copies; every sector of the weights once a tile of
 * tokens, and of the tokens once a strip. */
static void tiles_stream_whole_sectors(void **state)
{
    (void)state;
    const int m = 256, rows = 256, cols = 128;
    guarded x(random_halves(1, m * cols), cols), w(random_halves(2, rows * cols), cols);
    device_array<float> y(m * rows);
    device_array<double> sum(std::vector<double>(m * rows, 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    struct cuda_part part = {bf16_matrix(w.p(), rows, cols), NULL, y.p, rows};
    for (int tokens : all_tokens) {
        simt_count(true);
        assert_ran(tiles_gemm(tokens, x.p(), NULL, m, &part, 1, NULL));
        struct simt_counts c = *simt_last_counts();
        simt_count(false);
        uint64_t read = (uint64_t)((m / tokens) * rows + rows / 128 * m) * cols * 2 / 32;
        assert_int_equal(c.global_sectors, read + m * rows * 4 / 32);
        assert_int_equal(c.shared_passes, c.shared_ideal);
    }
    for (int tokens : leaf_tokens) {
        simt_count(true);
        assert_ran(tiles_gemm_leaf(tokens, x.p(), m, part.w, 64, 2, sum.p, beyond.p, NULL));
        struct simt_counts c = *simt_last_counts();
        simt_count(false);
        uint64_t read = (uint64_t)((m / tokens) * rows + rows / 128 * m) * cols * 2 / 32;
        assert_int_equal(c.global_sectors, read + 2 * m * rows * 8 / 32); /* two runs */
        assert_int_equal(c.shared_passes, c.shared_ideal);
    }
}
#endif

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(gemm_is_that_of_few_rows),
    cmocka_unit_test(gemm_keeps_what_is_not_finite_apart),
    cmocka_unit_test(leaves_are_those_of_few_rows),
    cmocka_unit_test(leaves_of_one_run),
    cmocka_unit_test(experts_are_those_of_few_rows),
    cmocka_unit_test(leaves_of_an_expert_in_one_run),
    cmocka_unit_test(tiles_of_nothing),
    cmocka_unit_test(the_larger_the_step_the_larger_the_tile),
#if !defined(__CUDACC__)
    cmocka_unit_test(large_steps_take_tiles),
    cmocka_unit_test(tiles_stream_whole_sectors),
#endif
};

KERNEL_MAIN(tests)
