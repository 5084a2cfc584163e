/* What tests of whole forward passes begin with: a plug-in, or a reason to skip. */
#ifndef WITAN_TESTS_CUDA_ANY_GPU_H
#define WITAN_TESTS_CUDA_ANY_GPU_H

#include "tests/unit/unit.h"
#include "worker/cuda_backend.h"

/* The emulator has a GPU always, a machine perhaps. */
static inline const struct cuda_plugin *plugin(void)
{
    const struct cuda_plugin *p = witan_cuda_plugin(CUDA_PLUGIN_VERSION);
    struct error err;
    int devices = 0;
    assert_non_null(p);
    if (cuda_plugin_devices(p, &devices, &err) == OK)
        return p;
    printf("skipped: %s\n", err.msg);
    exit(77);
}

#endif
