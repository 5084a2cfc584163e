/* Every planted fault is caught under every one of several schedules, by the emulator or, where the
 * accesses are all in order, by the comparison of numbers. */
#include "tests/simt/check.h"

#include "tests/simt/sample_cases.h"

#include <algorithm>

struct planted {
    enum fault_kind fault;
    const char *name;
    std::string (*run)(enum fault_kind);
    const char *reports; /* one of these, set apart by |, is in the report */
};

#define FAULT(fault, run, reports)                                                                 \
    {                                                                                              \
        fault, #fault, run, reports                                                                \
    }
static const struct planted planted[] = {
    FAULT(DROPPED_BARRIER, case_row_sum, "never written|race"),
    FAULT(BOUND_OFF_BY_ONE, case_row_sum, "out of bounds|numbers"),
    FAULT(NOT_IN_MASK, case_row_sum, "not in its mask"),
    FAULT(BARRIER_IN_BRANCH, case_row_sum, "barrier divergence"),
    FAULT(TWO_BARRIERS, case_row_sum, "barrier divergence"),
    FAULT(EXIT_BEFORE_BARRIER, case_row_sum, "barrier divergence|has exited"),
    FAULT(UNWRITTEN_SHARED, case_row_sum, "never written"),
    FAULT(SHUFFLE_IN_BRANCH, case_row_sum, "deadlock"),
    FAULT(SHUFFLE_FROM_ABSENT, case_row_sum, "not in the mask"),
    FAULT(PAST_SHARED, case_row_sum, "out of bounds"),
    FAULT(TOO_FEW_STEPS, case_row_sum, "numbers"),
    FAULT(NO_COPY_WAIT, case_gemm_bf16, "has not been waited for"),
    FAULT(WAIT_LEAVES_ONE, case_gemm_bf16, "has not been waited for"),
    FAULT(NO_BARRIER_AFTER_WAIT, case_gemm_bf16, "never written|not been waited for|race"),
    FAULT(NO_BARRIER_BEFORE_COPY, case_gemm_bf16, "race|not been waited for"),
    FAULT(WRONG_BUFFER, case_gemm_bf16, "has not been waited for"),
    FAULT(MISALIGNED_ROWS, case_gemm_bf16, "expected 16-byte alignment"),
    FAULT(TRANSPOSED_B, case_gemm_bf16, "numbers"),
    FAULT(PAST_LAST_ROW, case_gemm_bf16, "out of bounds|never written"),
    FAULT(PAST_LAST_K, case_gemm_bf16, "out of bounds"),
    FAULT(WRONG_STRIDE, case_gemm_bf16, "race"),
    FAULT(STORE_PAST_EDGE, case_gemm_bf16, "race|out of bounds"),
    FAULT(PAST_RAGGED_LENGTH, case_softmax_rows, "race|out of bounds"),
    FAULT(WRITES_INPUT, case_softmax_rows, "may only read"),
    FAULT(MISALIGNED_VECTOR, case_softmax_rows, "not aligned"),
    FAULT(WRONG_SCALE, case_softmax_rows, "numbers"),
    FAULT(NO_SYNCWARP, case_softmax_rows, "never written|race"),
    FAULT(ROW_OF_ANOTHER, case_softmax_rows, "race"),
    FAULT(PLAIN_ADD_SHARED, case_histogram, "race"),
    FAULT(PLAIN_ADD_GLOBAL, case_histogram, "race"),
    FAULT(NOT_CLEARED, case_histogram, "never written"),
    FAULT(NO_BARRIER_AFTER_CLEAR, case_histogram, "never written|race"),
    FAULT(HOST_POINTER, case_histogram, "not device memory"),
    FAULT(FREED_POINTER, case_histogram, "was freed"),
    FAULT(SHARED_TOO_SMALL, case_histogram, "out of bounds"),
    FAULT(NO_FENCE, case_total, "race"),
    FAULT(NO_ARRIVAL, case_handover, "divergence|deadlock"),
};
static const int COUNT = sizeof planted / sizeof *planted;

/* Is one of the alternatives in the report? */
static bool reported(const std::string &report, const std::string &alternatives)
{
    for (size_t at = 0; at <= alternatives.size();) {
        size_t end = std::min(alternatives.find('|', at), alternatives.size());
        if (report.find(alternatives.substr(at, end - at)) != std::string::npos)
            return true;
        at = end + 1;
    }
    return false;
}

static void every_planted_fault_is_caught(void **state)
{
    const int seeds = 5;
    int caught = 0;
    (void)state, (void)shared_path;
    simt_catch(true);
    for (const struct planted &p : planted) {
        int times = 0;
        std::string report;
        for (int seed = 1; seed <= seeds; seed++) {
            simt_seed((uint64_t)seed);
            report = p.run(p.fault);
            bool found = reported(report, p.reports);
            times += found;
            if (!found)
                print_message("%s, seed %d: missed: \"%s\"\n", p.name, seed, report.c_str());
        }
        caught += times == seeds;
        print_message("%s: %s\n", p.name, report.substr(0, report.find('\n')).c_str());
    }
    print_message("planted faults: %d of %d caught, each under %d schedules\n", caught, COUNT,
                  seeds);
    assert_int_equal(caught, COUNT);
}

static void every_kind_is_planted(void **state)
{
    (void)state;
    for (int kind = NO_FAULT + 1; kind < FAULT_KINDS; kind++)
        assert_int_equal(planted[kind - 1].fault, kind);
    assert_int_equal(COUNT, FAULT_KINDS - 1);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(every_planted_fault_is_caught),
    cmocka_unit_test(every_kind_is_planted),
};

UNIT_MAIN(tests)
