#include "tests/cuda/cpu_reference.h"

#include "base/check.h"
#include "base/pool.h"
#include "worker/kernels.h"
#include "worker/sampler.h"

void cpu_rope_reference(int32_t rows, const int32_t *pos, const float *frequency, float scale,
                        int32_t head_dim, float *rope)
{
    struct error err;
    struct pool *pool = NULL;
    struct backend *be = NULL;
    const struct kernels *k = NULL;
    CHECK(pool_create(1, false, &pool, &err) == OK, "the CPU backend for a test");
    CHECK(cpu_backend_create("portable", pool, 1 << 16, 0, 0, &k, &be, &err) == OK,
          "the CPU backend for a test");
    struct batch b = {.rows = rows, .pos = pos};
    k->rope_angles(be, &b, frequency, scale, head_dim, rope);
    k->destroy(be);
    pool_destroy(pool);
}

int32_t cpu_sample_reference(const float *logits, int32_t vocab, const struct cuda_draw *draw)
{
    struct error err;
    struct sampler *sampler = NULL;
    const struct sampling p = {.temperature = draw->temperature,
                               .top_p = draw->top_p,
                               .min_p = draw->min_p,
                               .top_k = draw->top_k,
                               .seed = draw->seed};
    CHECK(sampler_create(vocab, &sampler, &err) == OK, "the sampler for a test");
    int32_t token = sampler_draw(sampler, logits, vocab, &p, draw->position);
    sampler_destroy(sampler);
    return token;
}
