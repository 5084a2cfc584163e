/* What a machine can do: see peak.h. */
#include "tests/kernels/peak.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* So that nothing is left out; a thread's own. */
static _Thread_local volatile double sink;

void peak_read(const void *p, size_t bytes)
{
    const uint64_t *w = p;
    uint64_t s[8] = {0};
    for (size_t i = 0; i < bytes / sizeof *w; i += 8)
        for (size_t j = 0; j < 8; j++)
            s[j] += w[i + j];
    sink = (double)(s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7]);
}

enum { FMA_ROUNDS = 100000, FMA_CHAINS = 12 };

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void fma_512(void)
{
    __m512 a[FMA_CHAINS], b = _mm512_set1_ps(0.999f), c = _mm512_set1_ps(0.001f);
    for (int i = 0; i < FMA_CHAINS; i++)
        a[i] = _mm512_set1_ps((float)i);
    for (int r = 0; r < FMA_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < FMA_CHAINS; i++)
            a[i] = _mm512_fmadd_ps(a[i], b, c);
    for (int i = 1; i < FMA_CHAINS; i++)
        a[0] = _mm512_add_ps(a[0], a[i]);
    float f[16];
    _mm512_storeu_ps(f, a[0]);
    sink = (double)f[0];
}

__attribute__((target("avx2,fma"))) static void fma_256(void)
{
    __m256 a[FMA_CHAINS], b = _mm256_set1_ps(0.999f), c = _mm256_set1_ps(0.001f);
    for (int i = 0; i < FMA_CHAINS; i++)
        a[i] = _mm256_set1_ps((float)i);
    for (int r = 0; r < FMA_ROUNDS; r++)
#pragma GCC unroll 12
        for (int i = 0; i < FMA_CHAINS; i++)
            a[i] = _mm256_fmadd_ps(a[i], b, c);
    for (int i = 1; i < FMA_CHAINS; i++)
        a[0] = _mm256_add_ps(a[0], a[i]);
    float f[8];
    _mm256_storeu_ps(f, a[0]);
    sink = (double)f[0];
}
#endif

double peak_fma(int lanes)
{
#if defined(__x86_64__)
    const double each = 2.0 * FMA_ROUNDS * FMA_CHAINS;
    if (lanes == 8 && __builtin_cpu_supports("fma")) {
        fma_256();
        return each * 8;
    }
    if (lanes == 16 && __builtin_cpu_supports("avx512f")) {
        fma_512();
        return each * 16;
    }
#endif
    (void)lanes;
    return 0.0;
}
