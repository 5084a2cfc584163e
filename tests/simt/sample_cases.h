/*
 * Each sample kernel on ragged inputs, compared with an independent statement of what it computes.
 * A case runs one kernel with one fault (or none) and tells what came of it.
 */
#ifndef WITAN_TESTS_SIMT_SAMPLE_CASES_H
#define WITAN_TESTS_SIMT_SAMPLE_CASES_H

#include "tests/simt/samples.cuh"

#include <string>

/* Empty: the kernel ran and its numbers are right. Else the emulator's report, or "numbers: ..."
 * where only the comparison shows the fault. */
std::string case_row_sum(enum fault_kind f);
std::string case_gemm_bf16(enum fault_kind f);
std::string case_softmax_rows(enum fault_kind f);
std::string case_histogram(enum fault_kind f);
std::string case_total(enum fault_kind f);
std::string case_handover(enum fault_kind f);

#endif
