/*
 * Embedding, angles, norms and the finishing of q, k, v: bits of the CPU backend where stages.h
 * says so, else against the formula in double precision.
 */
#include "tests/cuda/batch.h"
#include "tests/cuda/cpu_reference.h"

#include "worker/kv8_inline.h"

#include <algorithm>

static void embedding_of_own_rows(void **state)
{
    (void)state;
    const int32_t first_row = 300, w_rows = 350, rows = 40;
    test_batch t({{0, rows, {0}}});
    for (int32_t hidden : {8, 136, 2056}) {
        std::vector<cuda_bf16> w = bf16_of(random_numbers(2, (size_t)(w_rows * hidden)));
        for (size_t i = 0; i < w.size(); i += 5)
            w[i] = 0x8000; /* -0 */
        device_array<cuda_bf16> dw(w);
        device_array<float> x((size_t)(rows * hidden));
        device_array<double> sum((size_t)(rows * hidden));
        assert_ran(cuda_embed(&t.b, {dw.p, w_rows, hidden}, first_row, x.p, sum.p, NULL));
        std::vector<double> expected;
        int here = 0;
        for (int32_t i = 0; i < rows; i++) {
            int32_t row = t.token[(size_t)i] - first_row;
            bool own = row >= 0 && row < w_rows;
            here += own;
            for (int32_t d = 0; d < hidden; d++)
                expected.push_back(own ? (double)bf16_value(w[(size_t)(row * hidden + d)]) + 0.0
                                       : 0.0);
        }
        assert_in_range(here, 1, rows - 1);
        assert_same(sum.read(), expected);
        assert_same(x.read(), std::vector<float>(x.n, 0.0f));
    }
}

static void angles_have_the_bits_of_the_cpu(void **state)
{
    (void)state;
    test_batch t({{0, 130, {0}}, {40957, 3, {0}}, {262142, 2, {0}}, {1048575, 1, {0}}});
    for (int32_t head_dim : {2, 16, 64, 80, 128})
        for (float scale : {1.0f, 1.2772588f}) {
            std::vector<float> frequency;
            for (int32_t d = 0; d < head_dim / 2; d++)
                frequency.push_back((float)pow(1e6, -2.0 * d / head_dim));
            device_array<float> df(frequency), rope((size_t)(t.b.rows * head_dim));
            std::vector<float> expected(rope.n);
            assert_ran(cuda_rope_angles(&t.b, df.p, scale, head_dim, rope.p, NULL));
            cpu_rope_reference(t.b.rows, t.pos.data(), frequency.data(), scale, head_dim,
                               expected.data());
            assert_same(rope.read(), expected);
        }
}

static std::vector<double> random_doubles(uint64_t seed, size_t n)
{
    std::vector<double> x(n);
    for (double &d : x)
        d = 2.0 * random_unit(&seed) - 1.0;
    return x;
}

static double scale_of(const float *x, int32_t n, double eps)
{
    double squares = 0.0;
    for (int32_t i = 0; i < n; i++)
        squares += (double)x[i] * (double)x[i];
    return 1.0 / sqrt(squares / n + eps);
}

static void residual_and_norm(void **state)
{
    (void)state;
    const int32_t rows = 5;
    const float eps = 1e-6f;
    for (int32_t hidden : {8, 264, 1024, 4104})
        for (bool summed : {true, false})
            for (uint64_t seed : {1, 2}) {
                simt_seed(seed);
                size_t n = (size_t)(rows * hidden);
                std::vector<float> x = random_numbers(seed, n);
                std::vector<float> norm = random_numbers(seed + 9, (size_t)hidden);
                std::vector<double> sum = random_doubles(seed + 5, n);
                device_array<float> dx(x), dnorm(norm);
                device_array<double> dsum(sum);
                device_array<cuda_bf16> xn(n);
                assert_ran(cuda_add_norm(rows, hidden, summed ? dsum.p : NULL, dx.p, dnorm.p, eps,
                                         xn.p, NULL));
                for (size_t i = 0; i < n && summed; i++)
                    x[i] += (float)sum[i];
                assert_same(dx.read(), x);
                assert_same(dsum.read(), summed ? std::vector<double>(n, 0.0) : sum);
                std::vector<cuda_bf16> found = xn.read();
                for (size_t i = 0; i < n; i++) {
                    size_t d = i % (size_t)hidden;
                    double r = scale_of(x.data() + (i - d), hidden, (double)eps);
                    double expected = (double)norm[d] * (double)x[i] * r;
                    assert_near(i, (double)bf16_value(found[i]), expected,
                                0x1.01p-8 * fabs(expected));
                }
            }
}

static void norm_without_output(void **state)
{
    (void)state;
    const size_t n = 3 * 72;
    std::vector<float> x = random_numbers(1, n);
    std::vector<double> sum = random_doubles(2, n);
    device_array<float> dx(x);
    device_array<double> dsum(sum);
    assert_ran(cuda_add_norm(3, 72, dsum.p, dx.p, NULL, 1e-6f, NULL, NULL));
    for (size_t i = 0; i < n; i++)
        x[i] += (float)sum[i];
    assert_same(dx.read(), x);
    assert_same(dsum.read(), std::vector<double>(n, 0.0));
}

static void a_row_alone_has_the_same_norm(void **state)
{
    (void)state;
    const int32_t rows = 9, hidden = 1032;
    std::vector<float> x = random_numbers(3, (size_t)(rows * hidden));
    device_array<float> together(x), norm(random_numbers(4, (size_t)hidden));
    device_array<cuda_bf16> xn(x.size()), one((size_t)hidden);
    assert_ran(cuda_add_norm(rows, hidden, NULL, together.p, norm.p, 1e-6f, xn.p, NULL));
    std::vector<cuda_bf16> all = xn.read();
    for (int32_t i = 0; i < rows; i++) {
        simt_seed((uint64_t)i + 70);
        device_array<float> alone(part(x, (size_t)(i * hidden), (size_t)hidden));
        assert_ran(cuda_add_norm(1, hidden, NULL, alone.p, norm.p, 1e-6f, one.p, NULL));
        assert_same(one.read(), part(all, (size_t)(i * hidden), (size_t)hidden));
    }
}

/* --- q, k, v --- */

struct qkv_case {
    int32_t q_heads, kv_heads, head_dim, row;
    bool normed;
    bool int8 = false;
};

static std::vector<test_sequence> three_sequences()
{
    return {{0, 3, {4}}, {63, 2, {2, 0}}, {191, 1, {7, 7, 5}}};
}

enum { BLOCKS = 8 };

struct qkv_result {
    std::vector<cuda_bf16> q, cache;
};

/* Rows [first, first + t.b.rows) of the inputs. */
static qkv_result finish(const qkv_case &c, const test_batch &t, const std::vector<float> &rope,
                         const std::vector<float> &q_tmp, const std::vector<float> &kv_tmp)
{
    cuda_attention a = {0, c.q_heads, 0, c.kv_heads, 1, c.head_dim, c.row, 1e-6f};
    device_array<float> drope(rope), dq(q_tmp), dkv(kv_tmp);
    device_array<float> q_norm(random_numbers(21, (size_t)c.head_dim));
    device_array<float> k_norm(random_numbers(22, (size_t)c.head_dim));
    device_array<cuda_bf16> q((size_t)(t.b.rows * c.q_heads * c.row));
    device_array<cuda_bf16> cache(
        std::vector<cuda_bf16>((size_t)(BLOCKS * c.kv_heads * 2 * CUDA_KV_BLOCK * c.row), 0x7fff));
    for (const float *p : {drope.p, dq.p, dkv.p})
        simt_protect(p, true);
    assert_ran(cuda_finish_qkv(&t.b, &a, c.normed ? q_norm.p : NULL, c.normed ? k_norm.p : NULL,
                               drope.p, dq.p, dkv.p, q.p, {cache.p, c.kv_heads, c.row, c.int8},
                               NULL));
    return {q.read(), cache.read()};
}

/* One head by the formula; `norm` empty: none. */
static std::vector<double> head_by_formula(const float *x, const std::vector<float> &norm,
                                           const float *rope, int32_t head_dim)
{
    int32_t half = head_dim / 2;
    double r = norm.empty() ? 1.0 : scale_of(x, head_dim, (double)1e-6f);
    std::vector<double> n, y;
    for (int32_t d = 0; d < head_dim; d++)
        n.push_back((double)x[d] * (norm.empty() ? 1.0 : r * (double)norm[(size_t)d]));
    for (int32_t d = 0; d < head_dim; d++) {
        double c = (double)rope[d % half], s = (double)rope[half + d % half];
        double a = n[(size_t)(d % half)], b = n[(size_t)(d % half + half)];
        y.push_back(d < half ? a * c - b * s : b * c + a * s);
    }
    return y;
}

/* found[d * stride], and zeros up to row. */
static void assert_head(const cuda_bf16 *found, size_t stride, const std::vector<double> &expected,
                        double scale, int32_t row)
{
    for (size_t d = 0; d < (size_t)row; d++) {
        double e = d < expected.size() ? expected[d] * scale : 0.0;
        /* Rounding to bf16, and a difference of products in fp32. */
        double bound = d < expected.size() ? 0x1.01p-8 * fabs(e) + 0x1p-20 * scale : 0.0;
        assert_near(d, (double)bf16_value(found[d * stride]), e, bound);
    }
}

static void check_qkv(const qkv_case &c)
{
    test_batch t(three_sequences());
    size_t rows = (size_t)t.b.rows, hd = (size_t)c.head_dim, row = (size_t)c.row;
    size_t qh = (size_t)c.q_heads, kvh = (size_t)c.kv_heads;
    std::vector<float> rope = random_numbers(11, rows * hd),
                       q_tmp = random_numbers(12, rows * qh * hd);
    std::vector<float> kv_tmp = random_numbers(13, rows * 2 * kvh * hd);
    qkv_result r = finish(c, t, rope, q_tmp, kv_tmp);
    std::vector<float> none, q_norm = random_numbers(21, hd), k_norm = random_numbers(22, hd);
    std::vector<uint8_t> touched(r.cache.size(), 0);
    for (size_t i = 0; i < rows; i++) {
        for (size_t h = 0; h < qh; h++)
            assert_head(r.q.data() + (i * qh + h) * row, 1,
                        head_by_formula(q_tmp.data() + (i * qh + h) * hd, c.normed ? q_norm : none,
                                        rope.data() + i * hd, c.head_dim),
                        1.0 / sqrt((double)hd), c.row);
        size_t slot = (size_t)t.pos[i] % CUDA_KV_BLOCK;
        size_t block = (size_t)t.blocks[(size_t)(t.table[i] + t.pos[i] / CUDA_KV_BLOCK)];
        for (size_t h = 0; h < kvh; h++) {
            const float *k = kv_tmp.data() + (i * 2 * kvh + h) * hd, *v = k + kvh * hd;
            size_t k_at = (block * kvh + h) * 2 * CUDA_KV_BLOCK * row,
                   v_at = k_at + CUDA_KV_BLOCK * row;
            assert_head(
                r.cache.data() + k_at + slot, CUDA_KV_BLOCK,
                head_by_formula(k, c.normed ? k_norm : none, rope.data() + i * hd, c.head_dim), 1.0,
                c.row);
            for (size_t d = 0; d < row; d++) {
                assert_int_equal(r.cache[v_at + slot * row + d], d < hd ? bf16_of(v[d]) : 0);
                touched[k_at + d * CUDA_KV_BLOCK + slot] = touched[v_at + slot * row + d] = 1;
            }
        }
    }
    for (size_t i = 0; i < touched.size(); i++)
        assert_true(touched[i] || r.cache[i] == 0x7fff);
}

/* What int8 keeps of K (of_k) or V, read back from a tile and held against the formula: half a step
 * of the group's scale off at most, and V's codes and scales exact. */
static void assert_int8(const cuda_bf16 *tile, size_t slot, bool of_k, const float *v,
                        const std::vector<double> &expected, size_t row)
{
    const int8_t *codes = (const int8_t *)tile;
    for (size_t g = 0; g < row; g += CUDA_KV8_GROUP) {
        float scale = bf16_value(
            tile[CUDA_KV_BLOCK / 2 * row + g / CUDA_KV8_GROUP * CUDA_KV_BLOCK + slot]);
        double greatest = 0.0;
        uint32_t magnitude = 0;
        for (size_t d = g; d < std::min(g + CUDA_KV8_GROUP, expected.size()); d++) {
            greatest = std::max(greatest, fabs(expected[d]));
            magnitude = std::max(magnitude, kv8_magnitude(v[d]));
        }
        assert_true((double)scale >= greatest / 127.0 * (1 - 0x1p-20));
        assert_true((double)scale <= greatest / 127.0 * (1 + 0x1.01p-7));
        assert_true(of_k || scale == kv8_scale(magnitude));
        for (size_t d = g; d < std::min(g + CUDA_KV8_GROUP, row); d++) {
            int code = codes[of_k ? d * CUDA_KV_BLOCK + slot : slot * row + d];
            double e = d < expected.size() ? expected[d] : 0.0;
            assert_near(d, code * (double)scale, e, 0.5001 * (double)scale);
            assert_true(of_k || code == (d < expected.size() ? kv8_code(v[d], scale) : 0));
        }
    }
}

static void heads_in_int8(void **state)
{
    (void)state;
    for (const qkv_case &c : {qkv_case{3, 2, 64, 64, true, true},
                              {1, 1, 8, 16, false, true},
                              {5, 1, 24, 32, true, true},
                              {2, 3, 80, 80, false, true},
                              {4, 2, 128, 128, true, true}}) {
        test_batch t(three_sequences());
        simt_seed((uint64_t)c.row);
        size_t rows = (size_t)t.b.rows, hd = (size_t)c.head_dim, row = (size_t)c.row;
        size_t kvh = (size_t)c.kv_heads, groups = (row + 31) / 32, tile = 32 * (row + 2 * groups);
        std::vector<float> rope = random_numbers(11, rows * hd), none;
        std::vector<float> q_tmp = random_numbers(12, rows * (size_t)c.q_heads * hd);
        std::vector<float> kv_tmp = random_numbers(13, rows * 2 * kvh * hd);
        qkv_result r = finish(c, t, rope, q_tmp, kv_tmp);
        for (size_t i = 0; i < rows; i++)
            for (size_t h = 0; h < kvh; h++) {
                const float *k = kv_tmp.data() + (i * 2 * kvh + h) * hd, *v = k + kvh * hd;
                size_t block = (size_t)t.blocks[(size_t)(t.table[i] + t.pos[i] / CUDA_KV_BLOCK)];
                const cuda_bf16 *at = r.cache.data() + (block * kvh + h) * 2 * tile;
                size_t slot = (size_t)t.pos[i] % CUDA_KV_BLOCK;
                std::vector<double> whole(v, v + hd);
                assert_int8(at, slot, true, k,
                            head_by_formula(k, c.normed ? random_numbers(22, hd) : none,
                                            rope.data() + i * hd, c.head_dim),
                            row);
                assert_int8(at + tile, slot, false, v, whole, row);
            }
    }
}

static void heads_normed_and_rotated(void **state)
{
    (void)state;
    for (uint64_t seed : {1, 2, 3})
        for (bool normed : {true, false}) {
            simt_seed(seed);
            check_qkv({3, 2, 64, 64, normed});
            check_qkv({1, 1, 8, 16, normed});
            check_qkv({5, 1, 24, 32, normed});
            check_qkv({2, 3, 80, 80, normed});
            check_qkv({4, 2, 128, 128, normed});
        }
}

static void a_row_alone_has_the_same_heads(void **state)
{
    (void)state;
    const qkv_case c = {3, 2, 80, 80, true};
    test_batch t(three_sequences());
    size_t rows = (size_t)t.b.rows, per_q = 3 * 80, per_kv = 4 * 80;
    std::vector<float> rope = random_numbers(11, rows * 80),
                       q_tmp = random_numbers(12, rows * per_q);
    std::vector<float> kv_tmp = random_numbers(13, rows * per_kv);
    qkv_result together = finish(c, t, rope, q_tmp, kv_tmp);
    std::vector<cuda_bf16> cache(together.cache.size(), 0x7fff);
    for (size_t i = 0; i < rows; i++) {
        int32_t begin = t.table[i], blocks = t.pos[i] / CUDA_KV_BLOCK + 1;
        test_batch one({{t.pos[i], 1, part(t.blocks, (size_t)begin, (size_t)blocks)}});
        qkv_result r = finish(c, one, part(rope, i * 80, 80), part(q_tmp, i * per_q, per_q),
                              part(kv_tmp, i * per_kv, per_kv));
        assert_same(r.q, part(together.q, i * per_q, per_q));
        for (size_t j = 0; j < cache.size(); j++)
            if (r.cache[j] != 0x7fff)
                cache[j] = r.cache[j];
    }
    assert_same(cache, together.cache);
}

/* K goes through tiles of 64 rows where a step has runs: the same bits in the same places. */
static void runs_have_the_heads_of_rows(void **state)
{
    (void)state;
    const qkv_case cases[] = {{3, 2, 80, 80, true},
                              {2, 1, 24, 32, false},
                              {1, 3, 128, 128, true},
                              {1, 2, 80, 80, true, true}};
    const std::vector<std::vector<test_sequence>> steps = {
        {{0, 70, {4, 1}}, {37, 75, {2, 0}}, {191, 1, {7, 7, 5}}, {64, 3, {6, 3}}},
        {{63, 2, {3, 1}}, {62, 1, {5}}, {20, 40, {0}}, {1, 1, {6}}, {59, 60, {4, 2}}}};
    for (const qkv_case &c : cases)
        for (const std::vector<test_sequence> &sequences : steps) {
            test_batch apart(sequences), together(sequences);
            size_t rows = apart.pos.size();
            int32_t live = (int32_t)rows - 7;
            device_array<int32_t> counted(std::vector<int32_t>(1, live));
            together.cut({0, c.q_heads, 0, c.kv_heads, 1, c.head_dim, c.row, 1e-6f});
            assert_true(together.b.runs > 0);
            size_t per = (size_t)c.head_dim;
            std::vector<float> rope = random_numbers(11, rows * per);
            std::vector<float> q_tmp = random_numbers(12, rows * per * (size_t)c.q_heads);
            std::vector<float> kv_tmp = random_numbers(13, rows * per * 2 * (size_t)c.kv_heads);
            for (const int32_t *only : {(const int32_t *)NULL, (const int32_t *)counted.p}) {
                apart.b.live = together.b.live = only;
                qkv_result expected = finish(c, apart, rope, q_tmp, kv_tmp);
                qkv_result found = finish(c, together, rope, q_tmp, kv_tmp);
                assert_same(found.q, expected.q);
                assert_same(found.cache, expected.cache);
            }
        }
}

static void nothing_to_do(void **state)
{
    (void)state;
    cuda_batch b = {};
    cuda_attention a = {};
    assert_int_equal(cuda_embed(&b, {NULL, 0, 8}, 0, NULL, NULL, NULL), 0);
    assert_int_equal(cuda_rope_angles(&b, NULL, 1.0f, 8, NULL, NULL), 0);
    assert_int_equal(cuda_add_norm(0, 8, NULL, NULL, NULL, 0.0f, NULL, NULL), 0);
    assert_int_equal(
        cuda_finish_qkv(&b, &a, NULL, NULL, NULL, NULL, NULL, NULL, {NULL, 0, 0}, NULL), 0);
    assert_null(simt_report());
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(embedding_of_own_rows),
    cmocka_unit_test(angles_have_the_bits_of_the_cpu),
    cmocka_unit_test(residual_and_norm),
    cmocka_unit_test(norm_without_output),
    cmocka_unit_test(a_row_alone_has_the_same_norm),
    cmocka_unit_test(heads_in_int8),
    cmocka_unit_test(heads_normed_and_rotated),
    cmocka_unit_test(a_row_alone_has_the_same_heads),
    cmocka_unit_test(runs_have_the_heads_of_rows),
    cmocka_unit_test(nothing_to_do),
};

KERNEL_MAIN(tests)
