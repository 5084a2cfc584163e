/*
 * What the tests of kernels share: device arrays of std::vectors, random numbers, comparisons. With
 * nvcc the same tests run on a GPU.
 */
#ifndef WITAN_TESTS_SIMT_CHECK_H
#define WITAN_TESTS_SIMT_CHECK_H

#include "worker/cuda/device.cuh"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <vector>

extern "C" { /* cmocka's header does not say so itself */
#include "tests/unit/unit.h"
}
#include "tests/unit/random.h"

#if defined(__CUDACC__)

/* A GPU has no schedules to choose and no reports. */
static inline void simt_seed(uint64_t)
{
}
static inline void simt_catch(bool)
{
}
static inline void simt_protect(const void *, bool)
{
}
static inline const char *simt_report()
{
    return NULL;
}

/* Without a GPU a test counts as skipped. */
#define KERNEL_MAIN(tests)                                                                         \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        int devices = 0;                                                                           \
        if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {                         \
            fprintf(stderr, "skipped: there is no GPU\n");                                         \
            return 77;                                                                             \
        }                                                                                          \
        if (argc > 1)                                                                              \
            cmocka_set_test_filter(argv[1]);                                                       \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }

#else
#include "tests/simt/control.h"
#define KERNEL_MAIN(tests) UNIT_MAIN(tests)
#endif

/* An array on the device, from the host's values or (a count alone) never written. */
template <class T> struct device_array {
    T *p;
    size_t n;
    explicit device_array(size_t count) : p(NULL), n(count)
    {
        void *out;
        assert_int_equal(device_alloc(&out, n * sizeof(T)), 0);
        p = (T *)out;
    }
    explicit device_array(const std::vector<T> &values) : device_array(values.size())
    {
        assert_int_equal(device_write(p, values.data(), n * sizeof(T), NULL), 0);
        assert_int_equal(device_wait(NULL), 0);
    }
    ~device_array()
    {
        device_free(p);
    }
    device_array(const device_array &) = delete;
    device_array &operator=(const device_array &) = delete;
    std::vector<T> read() const
    {
        std::vector<T> out(n);
        assert_int_equal(device_read(out.data(), p, n * sizeof(T), NULL), 0);
        assert_int_equal(device_wait(NULL), 0);
        return out;
    }
};

/* A launch, whose code this is, is to have run without a fault. */
static inline void assert_ran(int code)
{
    const char *report = simt_report();
    (void)shared_path;
    code = code ? code : device_wait(NULL);
    if (report || code != 0)
        fail_msg("code %d: %s", code, report ? report : "no report");
}

/* In [-1, 1). */
static inline std::vector<float> random_numbers(uint64_t seed, size_t n)
{
    std::vector<float> x(n);
    for (float &f : x)
        f = random_float(&seed, 1.0);
    return x;
}

/* The fp32 number of a bf16. */
static inline float bf16_value(uint16_t code)
{
    uint32_t bits = (uint32_t)code << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Where `found` leaves `expected` by more than `bound`, or nowhere: -1. */
static inline long differs(const std::vector<float> &found, const std::vector<float> &expected,
                           double bound)
{
    for (size_t i = 0; i < expected.size(); i++)
        if (!(fabs((double)found[i] - (double)expected[i]) <= bound))
            return (long)i;
    return -1;
}

#endif
