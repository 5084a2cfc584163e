/* Routing against softmax in double precision and a plain sort. */
#include "tests/cuda/batch.h"

#include <algorithm>
#include <numeric>

struct routing {
    int32_t rows, experts, top_k, begin, end;
    bool renormalise;
};

struct routed {
    std::vector<int32_t> chosen, first, row;
    std::vector<float> chosen_weight, weight;
};

static routed run(const routing &c, const std::vector<float> &logits)
{
    size_t choices = (size_t)(c.rows * c.top_k);
    device_array<float> dl(logits), chosen_weight(choices), weight(choices);
    device_array<int32_t> chosen(choices), first((size_t)(c.end - c.begin + 1)), row(choices);
    simt_protect(dl.p, true);
    assert_ran(cuda_route_experts(c.rows, c.experts, c.top_k, c.renormalise, c.begin, c.end, dl.p,
                                  {chosen.p, chosen_weight.p, first.p, row.p, weight.p}, NULL));
    routed r = {chosen.read(), first.read(), {}, chosen_weight.read(), {}};
    size_t slots = (size_t)r.first.back(); /* what lies behind them was never written */
    if (slots > 0) {
        r.row.resize(slots);
        r.weight.resize(slots);
        assert_int_equal(device_read(r.row.data(), row.p, slots * 4, NULL), 0);
        assert_int_equal(device_read(r.weight.data(), weight.p, slots * 4, NULL), 0);
    }
    return r;
}

/* Multiples of 1/8, so that two are alike in every precision or far apart. */
static std::vector<float> coarse_logits(uint64_t seed, int32_t rows, int32_t experts, int32_t range)
{
    std::vector<float> x((size_t)(rows * experts));
    for (float &f : x)
        f = 0.125f * (float)random_int(&seed, -range, range);
    return x;
}

static void check_choice(const routing &c, const float *logits, const int32_t *chosen,
                         const float *weight)
{
    std::vector<int32_t> order((size_t)c.experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    double top = (double)logits[order[0]], all = 0.0, picked = 0.0;
    for (int32_t e = 0; e < c.experts; e++)
        all += exp((double)logits[e] - top);
    for (int32_t k = 0; k < c.top_k; k++)
        picked += exp((double)logits[order[(size_t)k]] - top);
    for (int32_t k = 0; k < c.top_k; k++) {
        assert_int_equal(chosen[k], order[(size_t)k]);
        double expected = exp((double)logits[chosen[k]] - top) / (c.renormalise ? picked : all);
        /* e^x within 2 units, sums of at most 4096 in fp32; e^-87 stands for what is smaller. */
        assert_near((size_t)k, (double)weight[k], expected, 4e-6 * expected + 2e-38);
    }
}

static void check_slots(const routing &c, const routed &r)
{
    size_t slot = 0;
    for (int32_t e = c.begin; e < c.end; e++) {
        assert_int_equal(r.first[(size_t)(e - c.begin)], slot);
        for (size_t i = 0; i < r.chosen.size(); i++) {
            if (r.chosen[i] != e)
                continue;
            assert_true(slot < r.row.size());
            assert_int_equal(r.row[slot], i / (size_t)c.top_k);
            assert_memory_equal(&r.weight[slot], &r.chosen_weight[i], 4);
            slot++;
        }
    }
    assert_int_equal(r.first.back(), slot);
}

static void check(const routing &c, const std::vector<float> &logits)
{
    routed r = run(c, logits);
    for (int32_t i = 0; i < c.rows; i++)
        check_choice(c, logits.data() + i * c.experts, r.chosen.data() + i * c.top_k,
                     r.chosen_weight.data() + i * c.top_k);
    check_slots(c, r);
}

static void experts_and_top_k(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int32_t experts : {1, 2, 31, 32, 33, 128, 160, 300})
        for (int32_t top_k = 1; top_k <= CUDA_MAX_TOP_K && top_k <= experts; top_k++)
            for (bool renormalise : {false, true}) {
                simt_seed(++seed);
                int32_t begin = experts > 40 ? experts - 20 : 0; /* sorting all would take long */
                check({7, experts, top_k, begin, experts, renormalise},
                      coarse_logits(seed, 7, experts, 40));
            }
}

static void local_ranges(void **state)
{
    (void)state;
    for (uint64_t seed : {1, 2, 3})
        for (int32_t rows : {1, 5, 1100}) {
            std::vector<float> logits = coarse_logits(seed, rows, 64, 30);
            simt_seed(seed);
            check({rows, 64, 8, 0, 0, true}, logits);   /* none */
            check({rows, 64, 8, 64, 64, true}, logits); /* none, at the end */
            check({rows, 64, 8, 21, 40, true}, logits);
            check({rows, 64, 8, 63, 64, false}, logits);
        }
}

static void ties_go_to_the_lower_id(void **state)
{
    (void)state;
    check({3, 160, 8, 0, 160, true}, std::vector<float>(3 * 160, 1.5f)); /* all alike */
    for (uint64_t seed = 1; seed <= 8; seed++) {
        simt_seed(seed);
        check({33, 128, 8, 32, 64, true}, coarse_logits(seed, 33, 128, 2));
    }
}

static void logits_of_minus_infinity(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        std::vector<float> logits = coarse_logits(seed, 9, 40, 20);
        for (size_t i = 0; i < logits.size(); i++)
            if (random_int(&seed, 0, 9) > 1)
                logits[i] = -INFINITY;
        for (size_t i = 0; i < 9; i++)
            logits[40 * i + 3 * i] = 0.5f; /* one at least is finite */
        check({9, 40, 8, 0, 40, true}, logits);
        check({9, 40, 8, 0, 40, false}, logits);
    }
}

/* A row of NaN stays within bounds and shows; the others are as without it. */
static void a_row_of_nan(void **state)
{
    (void)state;
    const routing c = {5, 33, 4, 0, 33, true};
    std::vector<float> logits = coarse_logits(4, 5, 33, 30);
    routed clean = run(c, logits);
    for (size_t e = 0; e < 33; e += 2)
        logits[2 * 33 + e] = NAN;
    routed r = run(c, logits);
    for (size_t i = 0; i < 20; i++)
        if (i / 4 == 2) {
            assert_in_range(r.chosen[i], 0, 32);
            assert_true(isnan(r.chosen_weight[i]));
            for (size_t j = 8; j < i; j++)
                assert_int_not_equal(r.chosen[i], r.chosen[j]);
        } else {
            assert_int_equal(r.chosen[i], clean.chosen[i]);
            assert_true(r.chosen_weight[i] == clean.chosen_weight[i]);
        }
    check_slots(c, r);
}

static void a_row_alone_goes_the_same_way(void **state)
{
    (void)state;
    const int32_t rows = 13, experts = 128;
    std::vector<float> logits = random_numbers(8, (size_t)(rows * experts));
    routed all = run({rows, experts, 8, 0, experts, true}, logits);
    for (int32_t i = 0; i < rows; i++) {
        simt_seed((uint64_t)i + 5);
        routed r = run({1, experts, 8, 0, experts, true},
                       part(logits, (size_t)(i * experts), (size_t)experts));
        assert_same(r.chosen, part(all.chosen, (size_t)(8 * i), 8));
        assert_same(r.chosen_weight, part(all.chosen_weight, (size_t)(8 * i), 8));
    }
}

static void the_largest_step(void **state)
{
    (void)state;
    const int32_t rows = 8192, experts = 16;
    check({rows, experts, 8, 5, 8, true}, coarse_logits(6, rows, experts, 30));
}

/* --- norm, router and routes in one launch --- */

struct router_shape {
    int32_t rows, hidden, experts, top_k, begin, end;
};

struct router_result {
    std::vector<float> x, logits;
    std::vector<double> sum;
    std::vector<cuda_bf16> xn;
    routed r;
};

static router_result run_router(const router_shape &c, bool fused, bool summed, int32_t times)
{
    size_t n = (size_t)(c.rows * c.hidden), choices = (size_t)(c.rows * c.top_k);
    std::vector<float> halves = random_numbers(3, n);
    std::vector<double> sum_values(halves.begin(), halves.end());
    device_array<float> x(random_numbers(1, n)), norm(random_numbers(2, (size_t)c.hidden));
    device_array<double> sum(sum_values);
    device_array<cuda_bf16> w(bf16_of(random_numbers(4, (size_t)(c.experts * c.hidden)))), xn(n);
    device_array<float> logits((size_t)(c.rows * c.experts)), chosen_weight(choices);
    device_array<float> weight(choices);
    device_array<int32_t> chosen(choices), first((size_t)(c.end - c.begin + 1)), row(choices);
    device_array<uint8_t> zeros(std::vector<uint8_t>(CUDA_ROUTER_ZEROS, 0));
    struct cuda_route route = {chosen.p, chosen_weight.p, first.p, row.p, weight.p};
    struct cuda_matrix m = {};
    m.data = w.p, m.rows = c.experts, m.cols = c.hidden;
    double *s = summed ? sum.p : NULL;
    for (int32_t i = 0; i < times; i++) {
        if (fused) {
            assert_ran(cuda_router(c.rows, c.hidden, s, x.p, norm.p, 1e-6f, m, c.top_k, 1, c.begin,
                                   c.end, zeros.p, xn.p, logits.p, route, NULL));
            continue;
        }
        const struct cuda_part part = {m, NULL, logits.p, c.experts};
        assert_ran(cuda_add_norm(c.rows, c.hidden, s, x.p, norm.p, 1e-6f, xn.p, NULL));
        assert_ran(cuda_gemm(xn.p, NULL, c.rows, &part, 1, NULL));
        assert_ran(cuda_route_experts(c.rows, c.experts, c.top_k, 1, c.begin, c.end, logits.p,
                                      route, NULL));
    }
    assert_same(zeros.read(), std::vector<uint8_t>(CUDA_ROUTER_ZEROS, 0));
    router_result out = {x.read(), logits.read(), sum.read(), xn.read(), {}};
    out.r = {chosen.read(), first.read(), {}, chosen_weight.read(), {}};
    size_t slots = (size_t)out.r.first.back();
    out.r.row.resize(slots), out.r.weight.resize(slots);
    if (slots > 0) {
        assert_int_equal(device_read(out.r.row.data(), row.p, slots * 4, NULL), 0);
        assert_int_equal(device_read(out.r.weight.data(), weight.p, slots * 4, NULL), 0);
    }
    return out;
}

static void check_router(const router_shape &c, bool summed = true, int32_t times = 1)
{
    simt_seed((uint64_t)(c.rows + c.hidden));
    router_result one = run_router(c, true, summed, times);
    router_result four = run_router(c, false, summed, times);
    assert_same(one.x, four.x);
    assert_same(one.sum, four.sum);
    assert_same(one.xn, four.xn);
    assert_same(one.logits, four.logits);
    assert_same(one.r.chosen, four.r.chosen);
    assert_same(one.r.chosen_weight, four.r.chosen_weight);
    assert_same(one.r.first, four.r.first);
    assert_same(one.r.row, four.r.row);
    assert_same(one.r.weight, four.r.weight);
}

static void router_in_one_launch_has_the_same_bits(void **state)
{
    (void)state;
    check_router({1, 64, 8, 2, 0, 8});
    check_router({3, 8, 4, 4, 0, 4});
    check_router({8, 1032, 33, 5, 7, 30});
    check_router({9, 264, 128, 8, 0, 128});
    check_router({17, 2080, 40, 3, 32, 40}); /* more columns than are on their way at once */
    check_router({33, 72, 160, 8, 0, 160});
    check_router({65, 40, 16, 16, 3, 16});
    check_router({CUDA_ROUTER_ROWS, 32, 64, 8, 0, 64});
    check_router({CUDA_ROUTER_ROWS + 1, 32, 64, 8, 0, 64}); /* in four launches again */
}

static void router_of_no_sum_and_no_experts(void **state)
{
    (void)state;
    check_router({5, 136, 24, 4, 0, 24}, false);
    check_router({5, 136, 24, 4, 24, 24}); /* none are local */
    check_router({5, 136, 24, 4, 8, 8});
    assert_int_equal(
        cuda_router(0, 8, NULL, NULL, NULL, 0.0f, {}, 1, 1, 0, 1, NULL, NULL, NULL, {}, NULL), 0);
}

/* What a launch leaves serves the next one. */
static void router_again_and_again(void **state)
{
    (void)state;
    check_router({20, 136, 48, 4, 0, 48}, true, 3);
}

static void dense(void **state)
{
    (void)state;
    assert_int_equal(cuda_route_dense(0, {}, NULL), 0);
    for (int32_t rows : {1, 255, 256, 700}) {
        device_array<int32_t> first(2), row((size_t)rows);
        device_array<float> weight((size_t)rows);
        assert_ran(cuda_route_dense(rows, {NULL, NULL, first.p, row.p, weight.p}, NULL));
        std::vector<int32_t> expected((size_t)rows);
        std::iota(expected.begin(), expected.end(), 0);
        assert_same(first.read(), {0, rows});
        assert_same(row.read(), expected);
        assert_same(weight.read(), std::vector<float>((size_t)rows, 1.0f));
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(experts_and_top_k),
    cmocka_unit_test(local_ranges),
    cmocka_unit_test(ties_go_to_the_lower_id),
    cmocka_unit_test(logits_of_minus_infinity),
    cmocka_unit_test(a_row_of_nan),
    cmocka_unit_test(a_row_alone_goes_the_same_way),
    cmocka_unit_test(the_largest_step),
    cmocka_unit_test(router_in_one_launch_has_the_same_bits),
    cmocka_unit_test(router_of_no_sum_and_no_experts),
    cmocka_unit_test(router_again_and_again),
    cmocka_unit_test(dense),
};

KERNEL_MAIN(tests)
