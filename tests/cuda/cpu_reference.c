#include "tests/cuda/cpu_reference.h"

#include "base/check.h"
#include "base/pool.h"
#include "worker/kernels.h"

void cpu_rope_reference(int32_t rows, const int32_t *pos, const float *frequency, float scale,
                        int32_t head_dim, float *rope)
{
    struct error err;
    struct pool *pool = NULL;
    struct backend *be = NULL;
    const struct kernels *k = NULL;
    CHECK(pool_create(1, false, &pool, &err) == OK, "the CPU backend for a test");
    CHECK(cpu_backend_create("portable", pool, 1 << 16, &k, &be, &err) == OK,
          "the CPU backend for a test");
    struct batch b = {.rows = rows, .pos = pos};
    k->rope_angles(be, &b, frequency, scale, head_dim, rope);
    k->destroy(be);
    pool_destroy(pool);
}
