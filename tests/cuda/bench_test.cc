/* The stages that tests/bench/cuda_bench times: each runs on a small model without a fault, and its
 * bytes and operations are what a pencil makes of them. */
#include "tests/bench/cuda_stages.h"
#include "tests/simt/check.h"

/* 4 query heads of 32 on 2 KV heads; 8 experts, top 2, of 64 columns; 200 words. */
static const struct bench_shape small = {64, 3, 4, 2, 32, 8, 2, 64, 200};

struct expected {
    const char *stage;
    double bytes, flops; /* bytes below 0: they depend on the experts met, at most these */
    int32_t times;
};

static void check(const bench_case &c, const std::vector<expected> &stages)
{
    bench_stages all(small, c, 16384, 2);
    std::vector<bench_result> r = all.run();
    assert_int_equal(r.size(), stages.size());
    for (size_t i = 0; i < r.size(); i++) {
        assert_string_equal(r[i].stage.c_str(), stages[i].stage);
        if (stages[i].bytes >= 0)
            assert_true(r[i].bytes == stages[i].bytes);
        else
            assert_true(r[i].bytes > 0 && r[i].bytes <= -stages[i].bytes);
        assert_true(r[i].flops == stages[i].flops);
        assert_int_equal(r[i].times, stages[i].times);
        assert_int_equal(r[i].samples, 2);
        assert_true(r[i].median_s > 0 && r[i].min_s > 0 && r[i].min_s <= r[i].median_s);
    }
    assert_null(simt_report());
}

static void decode(void **state)
{
    (void)state;
    const double n = 3, depth = 70, expert = 64 * 64;
    check({3, 70}, {{"add_norm", n * 64 * 26, 0, 4},
                    {"finish_qkv", n * 8 * (4 * 32 + 2 * 32), 0, 0},
                    {"qkv", 256 * 64 * 2 + n * 8 * 64, 2 * n * 256 * 64, 3},
                    {"attention", n * depth * 2 * 2 * 32 * 2, 2 * n * depth * 4 * 2 * 32, 3},
                    {"o_proj", 64 * 128 * 2 + n * 64 * 8, 2 * n * 64 * 128, 3},
                    {"router", 8 * 64 * 2 + n * 64 * 26, 2 * n * 8 * 64, 3},
                    {"ffn_up", -6 * 2 * expert * 2, 2 * 2 * 6 * expert, 3},
                    {"ffn_down", -(6 * expert * 2 + 6 * 64 * 8), 2 * 6 * expert, 3},
                    {"lm_head", 200 * 64 * 2, 2 * n * 200 * 64, 1},
                    {"sample", n * 200 * 4, 0, 1},
                    {"sample top_p", n * 200 * 4, 0, 0}});
}

/* One row chooses just top_k experts. */
static void one_row(void **state)
{
    (void)state;
    const double expert = 64 * 64;
    bench_stages all(small, {1, 5}, 0, 1);
    std::vector<bench_result> r = all.run();
    assert_int_equal(r.size(), 11);
    assert_true(r[6].bytes == 2 * 2 * expert * 2);
    assert_true(r[7].bytes == 2 * expert * 2 + 2 * 64 * 8);
}

static void prompt(void **state)
{
    (void)state;
    const double n = 90, expert = 64 * 64;
    check({90, 0}, {{"add_norm", n * 64 * 26, 0, 4},
                    {"finish_qkv", n * 8 * (4 * 32 + 2 * 32), 0, 0},
                    {"qkv", 256 * 64 * 2 + n * 8 * 64, 2 * n * 256 * 64, 3},
                    {"attention", n * 2 * 2 * 32 * 2, 2 * (n * 91 / 2) * 4 * 2 * 32, 3},
                    {"o_proj", 64 * 128 * 2 + n * 64 * 8, 2 * n * 64 * 128, 3},
                    {"router", 8 * 64 * 2 + n * 64 * 26, 2 * n * 8 * 64, 3},
                    {"ffn_up", -8 * 2 * expert * 2, 2 * 2 * 180 * expert, 3},
                    {"ffn_down", -(8 * expert * 2 + 180 * 64 * 8), 2 * 180 * expert, 3}});
}

/* A stage's limit is the later of its two, and the step's line adds up what a step takes. */
static void what_is_printed(void **state)
{
    (void)state;
    const std::vector<bench_result> r = {{"qkv", {8, 16}, 1e6, 1e6, 4e-6, 3e-6, 5, 48},
                                         {"lm_head", {8, 16}, 1e6, 8e9, 20e-6, 18e-6, 5, 1}};
    const struct bench_rates rates = {1e12, 1e15}, none = {0, 0};
    char text[2048];
    assert_true(bench_least(r[0], rates) == 1e-6 && bench_least(r[1], rates) == 8e-6);
    assert_true(bench_least(r[0], none) == 0);
    FILE *f = tmpfile();
    assert_non_null(f);
    bench_print(f, r, rates);
    bench_json(f, r, rates, false);
    rewind(f);
    size_t got = fread(text, 1, sizeof text - 1, f);
    text[got] = 0;
    fclose(f);
    assert_non_null(
        strstr(text, "4.00 us       3.00 us    250.0 GB/s     0.25 TFLOP/s   25.0% of memory\n"));
    assert_non_null(strstr(text, "40.0% of arithmetic\n"));
    assert_non_null(strstr(text, "212.00 us   26.4%, 37735.8 tokens/s\n")); /* (48 + 8) / 212 */
    assert_non_null(strstr(text, "\"stage\": \"qkv\", \"median_us\": 4.0000"));
    assert_non_null(strstr(text, "\"share_of_bound\": 0.400000}"));
    assert_null(
        strstr(text, ",\n{\"phase\": \"decode\", \"rows\": 8, \"depth\": 16, \"stage\": \"qkv\""));
    assert_non_null(strstr(
        text, ",\n{\"phase\": \"decode\", \"rows\": 8, \"depth\": 16, \"stage\": \"lm_head\""));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(decode),
    cmocka_unit_test(one_row),
    cmocka_unit_test(prompt),
    cmocka_unit_test(what_is_printed),
};

KERNEL_MAIN(tests)
