/* The sample kernels without a fault, under many schedules: right numbers and no report. */
#include "tests/simt/check.h"

#include "tests/simt/sample_cases.h"

static void runs_clean(std::string (*run)(enum fault_kind))
{
    (void)shared_path;
    simt_catch(true);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        simt_seed(seed);
        std::string found = run(NO_FAULT);
        if (!found.empty())
            fail_msg("seed %d: %s", (int)seed, found.c_str());
    }
}

static void block_reduction(void **state)
{
    (void)state;
    runs_clean(case_row_sum);
}

static void tiled_gemm(void **state)
{
    (void)state;
    runs_clean(case_gemm_bf16);
}

static void ragged_softmax(void **state)
{
    (void)state;
    runs_clean(case_softmax_rows);
}

static void histogram_by_atomics(void **state)
{
    (void)state;
    runs_clean(case_histogram);
}

static void last_block_reduction(void **state)
{
    (void)state;
    runs_clean(case_total);
}

static void named_barriers(void **state)
{
    (void)state;
    runs_clean(case_handover);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(block_reduction),      cmocka_unit_test(tiled_gemm),
    cmocka_unit_test(ragged_softmax),       cmocka_unit_test(histogram_by_atomics),
    cmocka_unit_test(last_block_reduction), cmocka_unit_test(named_barriers),
};

KERNEL_MAIN(tests)
