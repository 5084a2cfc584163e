#include "tests/cuda/cpu_reference.h"

#include "base/check.h"
#include "base/pool.h"
#include "worker/cpu/ops.h"
#include "worker/kernels.h"
#include "worker/sampler.h"

#include <stdlib.h>

void cpu_rope_reference(int32_t rows, const int32_t *pos, const float *frequency, float scale,
                        int32_t head_dim, float *rope)
{
    struct error err;
    struct pool *pool = NULL;
    struct backend *be = NULL;
    const struct kernels *k = NULL;
    CHECK(pool_create(1, false, &pool, &err) == OK, "the CPU backend for a test");
    CHECK(cpu_backend_create("portable", pool, 1 << 16, NULL, 0, 0, &k, &be, &err) == OK,
          "the CPU backend for a test");
    struct batch b = {.rows = rows, .pos = pos};
    k->rope_angles(be, &b, frequency, scale, head_dim, rope);
    k->destroy(be);
    pool_destroy(pool);
}

int32_t cpu_sample_reference(float *logits, int32_t vocab, const struct cuda_draw *draw,
                             const struct cuda_edit *edit)
{
    struct error err;
    struct sampler *sampler = NULL;
    const struct sampling p = {.temperature = draw->temperature,
                               .top_p = draw->top_p,
                               .min_p = draw->min_p,
                               .top_k = draw->top_k,
                               .seed = draw->seed};
    CHECK(sampler_create(cpu_ops_portable()->rows, vocab, &sampler, &err) == OK,
          "the sampler for a test");
    struct logit_edit *edits = check_calloc((size_t)draw->edits + 1, sizeof *edits);
    for (int32_t i = 0; i < draw->edits; i++) {
        const struct cuda_edit *e = &edit[draw->first_edit + i];
        edits[i] = (struct logit_edit){e->id, e->add, e->repeated};
    }
    sampler_edit(sampler, logits, edits, draw->edits, draw->repetition_penalty);
    int32_t token = sampler_draw(sampler, logits, vocab, &p, draw->position);
    sampler_restore(sampler, logits, edits, draw->edits);
    free(edits);
    sampler_destroy(sampler);
    return token;
}
