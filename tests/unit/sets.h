/* The instruction sets that this build has and this processor runs, for tests that compare them. */
#ifndef WITAN_TESTS_UNIT_SETS_H
#define WITAN_TESTS_UNIT_SETS_H

#include "base/check.h"
#include "worker/cpu/ops.h"

#include <stdio.h>

struct test_set {
    const char *name; /* for cpu_ops_choose */
    const struct cpu_ops *ops;
};

enum { MAX_SETS = 16 };

/* The portable one first. `plain`: without those that differ from others in kernels of panels
 * alone. Returns how many. */
static inline int test_sets(bool plain, struct test_set out[MAX_SETS])
{
    static bool said;
    int count = 1;
    out[0] = (struct test_set){"portable", cpu_ops_portable()};
    for (int i = 0; cpu_ops_name(i); i++) {
        struct test_set set = {.name = cpu_ops_name(i)};
        struct error err;
        if (cpu_ops_choose(set.name, &set.ops, &err) != OK) {
            if (!said)
                fprintf(stderr, "left out: %s\n", err.msg);
            continue;
        }
        bool known = set.ops == out[0].ops;
        for (int j = 0; j < count; j++)
            known = known || (plain && out[j].ops->gemm == set.ops->gemm);
        CHECK(known || count < MAX_SETS, "more than %d sets", MAX_SETS);
        if (!known)
            out[count++] = set;
    }
    said = true;
    return count;
}

#endif
