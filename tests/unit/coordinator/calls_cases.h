/*
 * All cases of what models write where they may call tools (calls_case.h): made up by what they are
 * known to do wrong, and recorded. Cases named vllm_19056 and the like are what that issue of
 * another project is about. Of the issues that docs and facts of this project name, these are not
 * of parsers and have no case here:
 * - how weights are cut: vllm 17569, 17604, 25292, 52435; distributed-llama 270
 * - dead ranks, starts that hang, loading: vllm 11996, 26318, 26899, 44878, 45094, 48720, 53157;
 *   sglang 7478, 12289, 18124; TensorRT-LLM 16338
 * - memory, determinism: vllm 18446, 23138, 47069
 * - a constraint that begins in the thought (vllm 18819, 50948): constraint_test.c
 */
#ifndef WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASES_H
#define WITAN_TESTS_UNIT_COORDINATOR_CALLS_CASES_H

#include "tests/unit/coordinator/calls_cases_coder.h"
#include "tests/unit/coordinator/calls_cases_hermes.h"
#include "tests/unit/coordinator/calls_cases_thought.h"
#include "tests/unit/coordinator/calls_recorded.h"

#endif
