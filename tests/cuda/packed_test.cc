/*
 * Products with packed weights (worker/cuda/packed.cuh): every code, and, bit for bit, all stages
 * against what stages.h makes of them: cuda_gemm over the columns of each scale's group in bf16,
 * scaled and added here. So no shape, number of rows or cut may change a bit of them either.
 */
#include "tests/cuda/batch.h"

#include <memory>

typedef std::vector<uint16_t> halves;

/* ---- Weights ---- */

/* [rows, cols]: codes as published, the numbers w that they stand for, and their scales' words. */
struct packed {
    struct cuda_format format;
    int rows, cols;
    std::vector<uint8_t> code; /* e4m3, or 4 bits */
    std::vector<uint32_t> scale;
};

static int groups_of(const struct packed &p)
{
    return ((p.cols - 1) >> p.format.group_shift) + 1;
}

static uint32_t scale_word(const struct packed &p, int row, int col)
{
    return p
        .scale[(size_t)(row / p.format.scale_rows * groups_of(p) + (col >> p.format.group_shift))];
}

static float scale_of(const struct packed &p, int row, int col)
{
    uint32_t word = scale_word(p, row, col);
    float f;
    if (p.format.type == CUDA_INT4)
        word &= ~(uint32_t)CUDA_INT4_ZERO;
    memcpy(&f, &word, sizeof f);
    return f;
}

static float e4m3_value(uint8_t code)
{
    int e = code >> 3 & 15, m = code & 7;
    if ((code & 127) == 127)
        return NAN;
    float f = ldexpf((float)(e ? m | 8 : m), (e ? e : 1) - 10);
    return code & 128 ? -f : f;
}

static float value_of(const struct packed &p, int row, int col)
{
    uint8_t code = p.code[(size_t)(row * p.cols + col)];
    if (p.format.type == CUDA_E4M3)
        return e4m3_value(code);
    return (float)(code - (int)(scale_word(p, row, col) & CUDA_INT4_ZERO));
}

static struct packed random_packed(uint64_t seed, int type, int rows, int cols, int shift,
                                   int scale_rows)
{
    struct packed p = {{type, shift, scale_rows}, rows, cols, {}, {}};
    for (int i = 0; i < rows * cols; i++) {
        uint8_t code = (uint8_t)random_int(&seed, 0, type == CUDA_E4M3 ? 255 : 15);
        p.code.push_back((code & 127) == 127 ? 0 : code);
    }
    for (int i = 0; i < (rows + scale_rows - 1) / scale_rows * groups_of(p); i++) {
        float f = (float)random_int(&seed, 1025, 2047) * (type == CUDA_E4M3 ? 0x1p-19f : 0x1p-15f);
        uint32_t word;
        memcpy(&word, &f, sizeof word);
        p.scale.push_back(word + (type == CUDA_INT4 ? (uint32_t)random_int(&seed, 0, 16) : 0));
    }
    return p;
}

/* Both formats, with groups smaller and larger than a unit. */
static std::vector<struct packed> some_packed(uint64_t seed, int rows, int cols)
{
    std::vector<struct packed> all;
    for (int shift : {7, 6, 5, 8, 30})
        all.push_back(random_packed(seed++, CUDA_INT4, rows, cols, shift, 1));
    all.push_back(random_packed(seed++, CUDA_E4M3, rows, cols, 7, 128));
    all.push_back(random_packed(seed++, CUDA_E4M3, rows, cols, 5, 24));
    return all;
}

/* As stages.h says. */
static std::vector<uint16_t> rows_packed(const struct packed &p)
{
    const bool e4m3 = p.format.type == CUDA_E4M3;
    const int unit = e4m3 ? 64 : 128, units = (p.cols + unit - 1) / unit;
    std::vector<uint8_t> bytes((size_t)(p.rows * units * 64), 0);
    for (int i = 0; i < p.rows; i++)
        for (int k = 0; k < p.cols; k++) {
            int block = k % unit / 32, t = k % 32 / 8, e = k % 8;
            uint8_t *piece = &bytes[(size_t)((i * units + k / unit) * 64 + t * 16)];
            uint8_t code = p.code[(size_t)(i * p.cols + k)];
            if (e4m3)
                piece[8 * block + e / 4 * 4 + (e % 4 == 1 ? 2 : e % 4 == 2 ? 1 : e % 4)] = code;
            else
                piece[4 * block + e / 2 / 2 + e % 2 * 2] |= (uint8_t)(code << e / 2 % 2 * 4);
        }
    halves out(bytes.size() / 2);
    memcpy(out.data(), bytes.data(), bytes.size());
    return out;
}

/* On a device. */
struct placed {
    device_array<uint16_t> data;
    device_array<uint32_t> scale;
    struct cuda_matrix w;

    explicit placed(const struct packed &p) : data(rows_packed(p)), scale(p.scale)
    {
        w = {data.p, p.rows, p.cols, scale.p, p.format};
    }
};

/* ---- Activations ---- */

struct tokens {
    int rows, cols;
    halves x;
};

static struct tokens random_tokens(uint64_t seed, int rows, int cols, float by = 1.0f)
{
    std::vector<float> x = random_numbers(seed, (size_t)(rows * cols));
    for (float &f : x)
        f *= by;
    return {rows, cols, bf16_of(x)};
}

static struct tokens tokens_columns(const struct tokens &x, int first, int n)
{
    struct tokens out = {x.rows, n, {}};
    for (int i = 0; i < x.rows; i++)
        for (int k = first; k < first + n; k++)
            out.x.push_back(x.x[(size_t)(i * x.cols + k)]);
    return out;
}

/* ---- What is expected ---- */

/* Columns [begin, end) as one leaf. */
static std::vector<float> expected_leaf(const struct tokens &x, const struct packed &p, int begin,
                                        int end)
{
    std::vector<float> sum((size_t)(x.rows * p.rows), 0.0f);
    for (int k = begin, next; k < end; k = next) {
        next = ((k >> p.format.group_shift) + 1) << p.format.group_shift;
        next = next > end || p.format.group_shift == 30 ? end : next;
        std::vector<float> w;
        for (int j = 0; j < p.rows; j++)
            for (int c = k; c < next; c++)
                w.push_back(value_of(p, j, c));
        device_array<uint16_t> dx(tokens_columns(x, k, next - k).x), dw(bf16_of(w));
        device_array<float> y(sum.size());
        struct cuda_part part = {bf16_matrix(dw.p, p.rows, next - k), NULL, y.p, p.rows};
        assert_ran(cuda_gemm(dx.p, NULL, x.rows, &part, 1, NULL));
        std::vector<float> dot = y.read();
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] = fmaf(scale_of(p, (int)(i % (size_t)p.rows), k), dot[i], sum[i]);
    }
    return sum;
}

static std::vector<float> gemm(const struct tokens &x, const struct packed &p)
{
    device_array<uint16_t> dx(x.x);
    placed w(p);
    device_array<float> y((size_t)(x.rows * p.rows));
    struct cuda_part part = {w.w, NULL, y.p, p.rows};
    assert_ran(cuda_gemm(dx.p, NULL, x.rows, &part, 1, NULL));
    return y.read();
}

static std::vector<double> gemm_leaf(const struct tokens &x, const struct packed &p, int leaf)
{
    device_array<uint16_t> dx(x.x);
    placed w(p);
    device_array<double> sum(std::vector<double>((size_t)(x.rows * p.rows), 0.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    assert_ran(
        cuda_gemm_leaf(dx.p, x.rows, w.w, leaf, (p.cols + leaf - 1) / leaf, sum.p, beyond.p, NULL));
    assert_int_equal(beyond.read()[0], 0);
    return sum.read();
}

static std::vector<double> expected_leaves(const struct tokens &x, const struct packed &p, int leaf)
{
    std::vector<double> sum((size_t)(x.rows * p.rows), 0.0);
    for (int k = 0; k < p.cols; k += leaf) {
        std::vector<float> one = expected_leaf(x, p, k, k + leaf < p.cols ? k + leaf : p.cols);
        for (size_t i = 0; i < sum.size(); i++)
            sum[i] += ldexp(rint(ldexp((double)one[i], 32)), -32);
    }
    return sum;
}

/* ---- Tests ---- */

/* A token that is one in one column alone gives that column's values. */
static std::vector<float> all_values(const struct packed &p)
{
    struct tokens x = {p.cols, p.cols, halves((size_t)(p.cols * p.cols), 0)};
    for (int k = 0; k < p.cols; k++)
        x.x[(size_t)(k * p.cols + k)] = bf16_of(1.0f);
    return gemm(x, p);
}

static void every_code_of_e4m3(void **state)
{
    (void)state;
    const int rows = 19;
    struct packed p = random_packed(1, CUDA_E4M3, rows, 256, 7, 16);
    for (int i = 0; i < rows * 256; i++) {
        uint8_t code = (uint8_t)(i % 256 + i / 256 * 37); /* each code in every place of a piece */
        p.code[(size_t)i] = (code & 127) == 127 ? 0 : code;
    }
    std::vector<float> y = all_values(p);
    for (int k = 0; k < 256; k++)
        for (int j = 0; j < rows; j++)
            assert_true(y[(size_t)(k * rows + j)] == scale_of(p, j, k) * value_of(p, j, k));
    for (int nan : {0x7f, 0xff})
        for (int k = 0; k < 256; k += 13) { /* a NaN stays in its row, wherever it stands */
            struct packed bad = p;
            struct tokens x = random_tokens(2, 3, 256);
            bad.code[(size_t)(k % rows * 256 + k)] = (uint8_t)nan;
            std::vector<float> clean = gemm(x, p), found = gemm(x, bad);
            for (int i = 0; i < 3; i++)
                for (int j = 0; j < rows; j++) {
                    size_t at = (size_t)(i * rows + j);
                    assert_true(j == k % rows ? isnan(found[at]) != 0 : found[at] == clean[at]);
                }
        }
}

static void every_code_of_4_bits(void **state)
{
    (void)state;
    const int rows = 18, cols = 17 * 32; /* a group for each zero */
    struct packed p = random_packed(3, CUDA_INT4, rows, cols, 5, 1);
    for (int j = 0; j < rows; j++)
        for (int k = 0; k < cols; k++)
            p.code[(size_t)(j * cols + k)] = (uint8_t)((j + k) % 16);
    for (size_t i = 0; i < p.scale.size(); i++)
        p.scale[i] = (p.scale[i] & ~31u) | (uint32_t)(i % 17);
    std::vector<float> y = all_values(p);
    for (int k = 0; k < cols; k++)
        for (int j = 0; j < rows; j++) {
            int q = (j + k) % 16 - (j * 17 + k / 32) % 17;
            assert_true(y[(size_t)(k * rows + j)] == scale_of(p, j, k) * (float)q);
        }
}

static void products_of_any_shape(void **state)
{
    (void)state;
    const int shapes[][3] = {{1, 8, 1},     {16, 128, 8},  {17, 64, 9},
                             {33, 160, 17}, {48, 512, 3},  {100, 56, 33},
                             {15, 296, 65}, {130, 384, 2}, {5, 1152, 1}};
    uint64_t seed = 10;
    for (const int *shape : shapes)
        for (const struct packed &p : some_packed(seed += 20, shape[0], shape[1])) {
            simt_seed(seed);
            struct tokens x = random_tokens(seed + 10, shape[2], shape[1]);
            std::vector<float> y = gemm(x, p);
            assert_same(y, expected_leaf(x, p, 0, p.cols));
            double exact = 0, most = 0; /* and it is the product */
            for (int k = 0; k < p.cols; k++) {
                double v = (double)scale_of(p, 0, k) * (double)value_of(p, 0, k) *
                           (double)bf16_value(x.x[(size_t)k]);
                exact += v, most += fabs(v);
            }
            assert_true(fabs((double)y[0] - exact) <= most * (double)p.cols * 0x1p-24 + 0x1p-40);
        }
}

static void leaves_of_any_shape(void **state)
{
    (void)state;
    const int shapes[][4] = {{16, 128, 1, 128}, {20, 320, 9, 64},   {5, 512, 3, 128},
                             {33, 96, 17, 32},  {17, 136, 33, 128}, {40, 288, 33, 96}};
    uint64_t seed = 300;
    for (const int *shape : shapes)
        for (const struct packed &p : some_packed(seed += 20, shape[0], shape[1])) {
            simt_seed(seed);
            struct tokens x = random_tokens(seed + 10, shape[2], shape[1], 0x1p-7f);
            assert_same(gemm_leaf(x, p, shape[3]), expected_leaves(x, p, shape[3]));
        }
}

/* Of so many rows that a warp takes several leaves: as of few, whose leaves are warps' own. */
static void leaves_are_the_same_in_any_run(void **state)
{
    (void)state;
    const int rows = 16 * 2060, cols = 160, leaf = 32, few = 21;
    for (int type : {CUDA_E4M3, CUDA_INT4}) {
        struct packed p = random_packed(5, type, rows, cols, 6, 1), some = p;
        some.rows = few;
        some.code.resize((size_t)(few * cols));
        some.scale.resize((size_t)(few * groups_of(p)));
        for (int m : {1, 9}) {
            struct tokens x = random_tokens(6, m, cols, 0x1p-7f);
            std::vector<double> all = gemm_leaf(x, p, leaf), alone = gemm_leaf(x, some, leaf);
            for (int i = 0; i < m; i++)
                assert_same(part(all, (size_t)(i * rows), few),
                            part(alone, (size_t)(i * few), few));
        }
    }
}

/* q, k and v of a layer, of which one is not packed. */
static void parts_of_several_formats(void **state)
{
    (void)state;
    const int cols = 192, m = 5;
    struct tokens x = random_tokens(7, m, cols);
    struct packed a = random_packed(8, CUDA_E4M3, 20, cols, 7, 128),
                  b = random_packed(9, CUDA_INT4, 17, cols, 6, 1);
    struct tokens c = random_tokens(10, 9, cols);
    placed pa(a), pb(b);
    device_array<uint16_t> dx(x.x), dc(c.x);
    device_array<float> ya(m * 20), yb(m * 17), yc(m * 9), alone(m * 9);
    const struct cuda_part parts[] = {{pa.w, NULL, ya.p, 20},
                                      {bf16_matrix(dc.p, 9, cols), NULL, yc.p, 9},
                                      {pb.w, NULL, yb.p, 17}};
    const struct cuda_part plain = {bf16_matrix(dc.p, 9, cols), NULL, alone.p, 9};
    assert_ran(cuda_gemm(dx.p, NULL, m, parts, 3, NULL));
    assert_ran(cuda_gemm(dx.p, NULL, m, &plain, 1, NULL));
    assert_same(ya.read(), gemm(x, a));
    assert_same(yb.read(), gemm(x, b));
    assert_same(yc.read(), alone.read());
}

/* Experts whose slots are all rows: gate and up are cuda_gemm's products, the sum over experts is
 * that of cuda_gemm_leaf's. */
static void experts_are_products(void **state)
{
    (void)state;
    const int shapes[][3] = {{128, 64, 1}, {256, 192, 9}, {136, 40, 20}, {8, 256, 70}};
    uint64_t seed = 600;
    for (const int *shape : shapes)
        for (int type : {CUDA_E4M3, CUDA_INT4})
            for (int shift : {7, 5}) {
                const int columns = shape[0], hidden = shape[1], rows = shape[2], count = 2;
                struct cuda_format format = {type, shift, type == CUDA_E4M3 ? 128 : 1};
                std::vector<std::unique_ptr<placed>> on_device;
                std::vector<struct cuda_ffn> table;
                struct tokens xn = random_tokens(seed += 10, rows, hidden);
                std::vector<double> sum((size_t)(rows * hidden), 0.0);
                halves h;
                std::vector<int32_t> first = {0}, row;
                simt_seed(seed);
                for (int e = 0; e < count; e++) {
                    auto make = [&](int r, int c) {
                        return random_packed(seed++, type, r, c, shift, format.scale_rows);
                    };
                    struct packed gate = make(columns, hidden), up = make(columns, hidden),
                                  down = make(hidden, columns);
                    for (const struct packed *p : {&gate, &up, &down})
                        on_device.emplace_back(new placed(*p));
                    const struct cuda_matrix *m[3];
                    for (size_t i = 0; i < 3; i++)
                        m[i] = &on_device[on_device.size() - 3 + i]->w;
                    table.push_back({m[0]->data, m[1]->data, m[2]->data, m[0]->scale, m[1]->scale,
                                     m[2]->scale});
                    std::vector<float> g = gemm(xn, gate), u = gemm(xn, up);
                    halves mine;
                    for (size_t i = 0; i < g.size(); i++)
                        mine.push_back(bf16_of(g[i] / (1.0f + detmath_expf(0.0f - g[i])) * u[i]));
                    h.insert(h.end(), mine.begin(), mine.end());
                    std::vector<double> share = expected_leaves({rows, columns, mine}, down,
                                                                CUDA_FFN_BLOCK);
                    for (size_t i = 0; i < sum.size(); i++)
                        sum[i] += share[i];
                    for (int i = 0; i < rows; i++)
                        row.push_back(i);
                    first.push_back((int32_t)row.size());
                }
                device_array<struct cuda_ffn> ffn(table);
                device_array<int32_t> dfirst(first), drow(row);
                device_array<float> weight(std::vector<float>(row.size(), 1.0f));
                device_array<uint16_t> x(xn.x), dh(h.size());
                device_array<double> found(std::vector<double>(sum.size(), 0.0));
                device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
                struct cuda_route route = {NULL, NULL, dfirst.p, drow.p, weight.p};
                int32_t slots = (int32_t)row.size() + 3;
                assert_ran(cuda_ffn_up(ffn.p, format, count, slots, columns, hidden, route, x.p,
                                       dh.p, NULL));
                assert_ran(cuda_ffn_down(rows, ffn.p, format, count, slots, columns, hidden, route,
                                         4, dh.p, found.p, beyond.p, NULL));
                assert_same(dh.read(), h);
                assert_same(found.read(), sum);
            }
}

#if !defined(__CUDACC__)
/* Every sector of weights and of scales is asked for once a tile of tokens, but for scales that
 * several units share, which come from the cache. */
static void weights_stream_once(void **state)
{
    (void)state;
    const int rows = 80, cols = 512;
    for (int type : {CUDA_E4M3, CUDA_INT4}) {
        struct packed p = random_packed(700, type, rows, cols, 7, type == CUDA_E4M3 ? 128 : 1);
        struct tokens x = random_tokens(701, 8, cols);
        simt_count(true);
        gemm(x, p);
        const struct simt_counts *c = simt_last_counts();
        simt_count(false);
        uint64_t units = (uint64_t)(cols / (type == CUDA_E4M3 ? 64 : 128));
        uint64_t weights = (uint64_t)rows * units * 2, tokens = 8 * cols * 2 / 32 * rows / 16;
        /* e4m3: one for both halves of a strip; 4 bits: four a row, so of two rows in a sector. */
        uint64_t scales = units * (uint64_t)(type == CUDA_E4M3 ? 2 * rows / 16 : rows / 2);
        uint64_t out = 8 * rows * 4 / 32;
        assert_int_equal(c->global_sectors, weights + tokens + scales + out);
        assert_int_equal(c->shared_passes, c->shared_ideal);
    }
}
#endif

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_code_of_e4m3),
    cmocka_unit_test(every_code_of_4_bits),
    cmocka_unit_test(products_of_any_shape),
    cmocka_unit_test(leaves_of_any_shape),
    cmocka_unit_test(leaves_are_the_same_in_any_run),
    cmocka_unit_test(parts_of_several_formats),
    cmocka_unit_test(experts_are_products),
#if !defined(__CUDACC__)
    cmocka_unit_test(weights_stream_once),
#endif
};

KERNEL_MAIN(tests)
