/* Which instruction set's operations this processor runs: see ops.h. */
#include "worker/cpu/ops.h"

#include <stdio.h>
#include <string.h>

/* X86, ARM, SIMDE: rows of `sets` below, with the tables that this build has. */
#if defined(__x86_64__)
#include <cpuid.h>

#define X86(set) .name = #set, .ops = cpu_ops_##set, .runs = has_##set

const struct cpu_ops *cpu_ops_avx2(void);
const struct cpu_ops *cpu_ops_avxvnni(void);
const struct cpu_ops *cpu_ops_avx512(void);
const struct cpu_ops *cpu_ops_avx512vnni(void);

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

/* Asked of the processor for the same reason: leaf 7, subleaf 1, bit 4 of eax. */
static bool has_avxvnni(void)
{
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
#else
#define X86(set) .name = #set
#endif

#if defined(__aarch64__)
#include <sys/auxv.h>

#define ARM(set) .name = #set, .ops = cpu_ops_##set, .runs = has_##set

const struct cpu_ops *cpu_ops_neon(void);
const struct cpu_ops *cpu_ops_dotprod(void);
const struct cpu_ops *cpu_ops_i8mm(void);

static bool has_neon(void)
{
    return true;
}

static bool has_dotprod(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

static bool has_i8mm(void)
{
    return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}
#else
#define ARM(set) .name = #set
#endif

#if defined(WITAN_HAVE_SIMDE)
#define SIMDE(set)                                                                                 \
    .name = #set "-simde", .ops = cpu_ops_##set##_simde, .runs = has_avx2, .test = true

const struct cpu_ops *cpu_ops_avxvnni_simde(void);
const struct cpu_ops *cpu_ops_avx512_simde(void);
const struct cpu_ops *cpu_ops_avx512vnni_simde(void);
const struct cpu_ops *cpu_ops_neon_simde(void);
const struct cpu_ops *cpu_ops_dotprod_simde(void);
const struct cpu_ops *cpu_ops_i8mm_simde(void);
#else
#define SIMDE(set) .name = #set "-simde", .test = true
#endif

static bool has_portable(void)
{
    return true;
}

/* The best first. */
static const struct set {
    const char *name;
    const struct cpu_ops *(*ops)(void); /* NULL: not in this build */
    bool (*runs)(void);
    bool test; /* not what auto chooses */
} sets[] = {
    {X86(avx512vnni)}, {X86(avx512)},
    {X86(avxvnni)},    {X86(avx2)},
    {ARM(i8mm)},       {ARM(dotprod)},
    {ARM(neon)},       {.name = "portable", .ops = cpu_ops_portable, .runs = has_portable},
    {SIMDE(avx512)},   {SIMDE(avx512vnni)},
    {SIMDE(avxvnni)},  {SIMDE(neon)},
    {SIMDE(dotprod)},  {SIMDE(i8mm)},
};
enum { SETS = sizeof sets / sizeof sets[0] };

const char *cpu_ops_name(int i)
{
    return i < SETS ? sets[i].name : NULL;
}

static enum status unknown(const char *name, struct error *err)
{
    char names[200] = "";
    size_t n = 0;
    for (int i = 0; i < SETS && n < sizeof names; i++)
        n += (size_t)snprintf(names + n, sizeof names - n, ", %s", sets[i].name);
    return error_set(err, ERR_INVALID, "kernels %s: expected one of auto%s", name, names);
}

enum status cpu_ops_choose(const char *name, const struct cpu_ops **out, struct error *err)
{
    bool best = strcmp(name, "auto") == 0, known = best;
    *out = NULL;
    for (int i = 0; i < SETS && !*out; i++) {
        const struct set *s = &sets[i];
        bool named = strcmp(name, s->name) == 0;
        known = known || named;
        if ((named || (best && !s->test)) && s->ops && s->runs())
            *out = s->ops();
    }
    if (!known)
        return unknown(name, err);
    if (!*out)
        return error_set(err, ERR_UNSUPPORTED,
                         "kernels %s: this processor or this build does not run them; auto chooses "
                         "what it does run",
                         name);
    return OK;
}
