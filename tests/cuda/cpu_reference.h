/* The CPU backend's stages for tests in C++, which cannot include the engine's headers. */
#ifndef WITAN_TESTS_CUDA_CPU_REFERENCE_H
#define WITAN_TESTS_CUDA_CPU_REFERENCE_H

#include "worker/cuda/stages.h"

#ifdef __cplusplus
extern "C" {
#endif

/* rope[rows, head_dim] for positions pos[rows], as worker/kernels.h says; all on the host. */
void cpu_rope_reference(int32_t rows, const int32_t *pos, const float *frequency, float scale,
                        int32_t head_dim, float *rope);

/* What worker/sampler.c draws from logits[vocab], changed by those of `edit` that are the draw's
 * and restored; draw->row is not read. */
int32_t cpu_sample_reference(float *logits, int32_t vocab, const struct cuda_draw *draw,
                             const struct cuda_edit *edit);

#ifdef __cplusplus
}
#endif

#endif
