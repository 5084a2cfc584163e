/* Slots packed and combined (worker/cuda/slots.cu), bit for bit against plain loops. */
#include "tests/cuda/batch.h"
#include "tests/cuda/slots.h"
#include "worker/cuda/fast.h"

/* ---- cuda_pack_rows ---- */

static void rows_are_packed(void **state)
{
    (void)state;
    for (int cols : {8, 264, 1000})
        for (int m : {1, 7, 8, 30})
            for (int live : {-1, 0, 1, m / 2, m, m + 3}) {
                const size_t n = (size_t)cols;
                std::vector<uint16_t> x, before((size_t)m * n, 7);
                std::vector<int32_t> index;
                for (size_t i = 0; i < 11 * n; i++)
                    x.push_back((uint16_t)(i * 31 + 5));
                for (int i = 0; i < m; i++)
                    index.push_back(live >= 0 && i >= live ? 1 << 30 : i * 4 % 11);
                device_array<uint16_t> dx(x), out(before);
                device_array<int32_t> di(index), dl(std::vector<int32_t>(1, live));
                simt_seed((uint64_t)(cols + m));
                assert_ran(
                    cuda_pack_rows(dx.p, di.p, live < 0 ? NULL : dl.p, m, cols, out.p, NULL));
                std::vector<uint16_t> found = out.read();
                for (size_t i = 0; i < (size_t)m; i++) {
                    bool is_live = live < 0 || (int)i < live;
                    size_t from = is_live ? (size_t)index[i] * n : 0;
                    assert_same(part(found, i * n, n), part(is_live ? x : before, from, n));
                }
            }
}

/* ---- cuda_combine_slots ---- */

static double rounded(float x)
{
    return ldexp(rint(ldexp((double)x, 32)), -32);
}

struct combined {
    std::vector<double> sum;
    unsigned long long out_of_range;
};

static struct combined combine(const struct slots &s, int rows, int hidden, int leaves,
                               const std::vector<float> &y)
{
    device_slots slots(s);
    device_array<float> dy(y);
    device_array<double> sum((size_t)(rows * hidden));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 1000));
    assert_ran(cuda_combine_slots(rows, (int)s.first.size() - 1, hidden, slots.route(), leaves,
                                  dy.p, sum.p, beyond.p, NULL));
    return {sum.read(), beyond.read()[0] - 1000};
}

/* In the order of experts, every product and every sum rounded. */
static struct combined expected(const struct slots &s, int rows, int hidden, int leaves,
                                const std::vector<float> &y)
{
    struct combined out = {std::vector<double>((size_t)(rows * hidden)), 0};
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < hidden; j++) {
            float sum = 0.0f;
            for (size_t slot = 0; slot < s.row.size(); slot++)
                if (s.row[slot] == i) {
                    volatile float product = s.weight[slot] * y[slot * (size_t)hidden + (size_t)j];
                    sum += product;
                }
            out.out_of_range += !(fabsf(sum) < 1048576.0f / (float)leaves);
            out.sum[(size_t)(i * hidden + j)] = rounded(sum);
        }
    return out;
}

static void slots_are_combined_in_order(void **state)
{
    (void)state;
    const int shapes[][3] = {{1, 1, 8}, {4, 9, 24}, {33, 40, 1032}, {300, 17, 16}, {512, 5, 8}};
    uint64_t seed = 1;
    for (const int *shape : shapes) {
        int experts = shape[0], rows = shape[1], hidden = shape[2], apart = experts / 8 + 1;
        struct slots s = slots_of(experts, rows, [&](int e, int i) {
            return i % 5 != 3 && e % apart == i % apart; /* every fifth row has none */
        });
        std::vector<float> y = random_numbers(seed, s.row.size() * (size_t)hidden);
        simt_seed(seed++);
        struct combined found = combine(s, rows, hidden, 3, y);
        assert_same(found.sum, expected(s, rows, hidden, 3, y).sum);
        assert_int_equal(found.out_of_range, 0);
    }
}

static void a_row_is_combined_alone_as_among_others(void **state)
{
    (void)state;
    const int experts = 40, rows = 21, hidden = 40;
    auto takes = [](int e, int i) { return (e * 7 + i) % 5 == 0; };
    struct slots s = slots_of(experts, rows, takes);
    std::vector<float> y = random_numbers(9, s.row.size() * hidden);
    std::vector<double> all = combine(s, rows, hidden, 1, y).sum;
    for (int i : {0, 4, 20}) {
        struct slots one = {{0}, {}, {}};
        std::vector<float> mine;
        for (int e = 0; e < experts; e++) {
            for (int32_t slot = s.first[(size_t)e]; slot < s.first[(size_t)e + 1]; slot++)
                if (s.row[(size_t)slot] == i) {
                    one.row.push_back(0);
                    one.weight.push_back(s.weight[(size_t)slot]);
                    for (int j = 0; j < hidden; j++)
                        mine.push_back(y[(size_t)(slot * hidden + j)]);
                }
            one.first.push_back((int32_t)one.row.size());
        }
        assert_same(combine(one, 1, hidden, 1, mine).sum, part(all, (size_t)(i * hidden), hidden));
    }
}

static void sums_out_of_range_are_counted(void **state)
{
    (void)state;
    const int rows = 6, hidden = 16, leaves = 4;
    struct slots s = slots_of(3, rows, [](int e, int i) { return e != 1 || i == 2; });
    std::vector<float> y = random_numbers(11, s.row.size() * hidden);
    y[(size_t)(4 * hidden + 3)] = NAN;                /* row 4, of expert 0 */
    y[(size_t)(6 * hidden)] = -1048576.0f;            /* row 2, of expert 1: weight 14 / 11 */
    y[(size_t)(s.first[2] * hidden + 15)] = INFINITY; /* row 0, of expert 2 */
    struct combined found = combine(s, rows, hidden, leaves, y);
    assert_int_equal(found.out_of_range, 3);
    std::vector<double> should = expected(s, rows, hidden, leaves, y).sum;
    for (size_t i = 0; i < should.size(); i++)
        if (isfinite(should[i]) && fabs(should[i]) < 0x1p18)
            assert_true(found.sum[i] == should[i]);
        else
            assert_false(fabs(found.sum[i]) < 0x1p18);
    assert_false(isfinite(found.sum[4 * hidden + 3]) || isfinite(found.sum[15]));
}

static void slots_of_nothing(void **state)
{
    (void)state;
    const struct cuda_route none = {};
    device_array<double> sum(std::vector<double>(16, 3.0));
    device_array<unsigned long long> beyond(std::vector<unsigned long long>(1, 0));
    assert_ran(cuda_combine_slots(0, 2, 8, none, 1, NULL, sum.p, beyond.p, NULL));
    assert_ran(cuda_pack_rows(NULL, NULL, NULL, 0, 8, NULL, NULL));
    assert_same(sum.read(), std::vector<double>(16, 3.0));
    assert_ran(cuda_combine_slots(2, 0, 8, none, 1, NULL, sum.p, beyond.p, NULL));
    assert_same(sum.read(), std::vector<double>(16, 0.0));
    assert_int_equal(beyond.read()[0], 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(rows_are_packed),
    cmocka_unit_test(slots_are_combined_in_order),
    cmocka_unit_test(a_row_is_combined_alone_as_among_others),
    cmocka_unit_test(sums_out_of_range_are_counted),
    cmocka_unit_test(slots_of_nothing),
};

KERNEL_MAIN(tests)
