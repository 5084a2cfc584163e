/* Which slots a test's experts have. */
#ifndef WITAN_TESTS_CUDA_SLOTS_H
#define WITAN_TESTS_CUDA_SLOTS_H

#include "tests/simt/check.h"
#include "worker/cuda/stages.h"

/* Slots by expert, as struct cuda_route has them: row[s], weight[s]. */
struct slots {
    std::vector<int32_t> first, row;
    std::vector<float> weight;
};

/* Every row in slots of the experts for which `takes` says so. */
template <class F> static struct slots slots_of(int experts, int rows, F takes)
{
    struct slots s = {{0}, {}, {}};
    for (int e = 0; e < experts; e++) {
        for (int i = 0; i < rows; i++)
            if (takes(e, i)) {
                s.row.push_back(i);
                s.weight.push_back((float)(1 + (7 * e + 3 * i) % 16) / 11.0f);
            }
        s.first.push_back((int32_t)s.row.size());
    }
    return s;
}

struct device_slots {
    device_array<int32_t> first, row;
    device_array<float> weight;

    explicit device_slots(const struct slots &s) : first(s.first), row(s.row), weight(s.weight)
    {
    }
    struct cuda_route route() const
    {
        return {NULL, NULL, first.p, row.p, weight.p};
    }
};

#endif
