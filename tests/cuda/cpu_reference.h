/* The CPU backend's stages for tests in C++, which cannot include the engine's headers. */
#ifndef WITAN_TESTS_CUDA_CPU_REFERENCE_H
#define WITAN_TESTS_CUDA_CPU_REFERENCE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* rope[rows, head_dim] for positions pos[rows], as worker/kernels.h says; all on the host. */
void cpu_rope_reference(int32_t rows, const int32_t *pos, const float *frequency, float scale,
                        int32_t head_dim, float *rope);

#ifdef __cplusplus
}
#endif

#endif
