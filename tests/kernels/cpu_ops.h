/*
 * What the two halves of the CPU operations' program share: checks (cpu_ops_test.c) and
 * measurements (cpu_ops_time.c).
 */
#ifndef WITAN_TESTS_KERNELS_CPU_OPS_H
#define WITAN_TESTS_KERNELS_CPU_OPS_H

#include "tests/unit/sets.h"

/* The instruction sets that this build has and this processor runs, the portable one first. */
int available_sets(const struct cpu_ops *sets[MAX_SETS]);

/* Prints a table; returns main's status. */
int time_operations(void);

#endif
