/* Which instruction set's operations this processor runs: see ops.h. */
#include "worker/cpu/ops.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

#ifndef WITAN_HAVE_SIMDE
const struct cpu_ops *cpu_ops_avx512_simde(void)
{
    return NULL;
}
#endif

/* Asked of the processor itself, since clang 14's __builtin_cpu_supports does not know f16c. That
 * the system saves the registers is what the test for avx2 includes. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#else
/* Only the portable table exists elsewhere. */
const struct cpu_ops *cpu_ops_avx2(void)
{
    return NULL;
}

const struct cpu_ops *cpu_ops_avx512(void)
{
    return NULL;
}

const struct cpu_ops *cpu_ops_avx512_simde(void)
{
    return NULL;
}

static bool has_avx2(void)
{
    return false;
}

static bool has_avx512(void)
{
    return false;
}
#endif

enum status cpu_ops_choose(const char *name, const struct cpu_ops **out, struct error *err)
{
    bool best = strcmp(name, "auto") == 0;
    *out = NULL;
    if (strcmp(name, "portable") == 0)
        *out = cpu_ops_portable();
    else if (strcmp(name, "avx512") == 0 || (best && has_avx512()))
        *out = has_avx512() ? cpu_ops_avx512() : NULL;
    else if (strcmp(name, "avx2") == 0 || (best && has_avx2()))
        *out = has_avx2() ? cpu_ops_avx2() : NULL;
    else if (strcmp(name, "avx512-simde") == 0)
        *out = has_avx2() ? cpu_ops_avx512_simde() : NULL;
    else if (best)
        *out = cpu_ops_portable();
    else
        return error_set(err, ERR_INVALID,
                         "kernels %s: expected auto, avx512, avx2, avx512-simde or portable", name);
    if (!*out)
        return error_set(err, ERR_UNSUPPORTED,
                         "kernels %s: this processor or this build does not run them; auto chooses "
                         "what it does run",
                         name);
    return OK;
}
