/*
 * The CUDA backend's fast products (worker/cuda/fast.h): whether this model and this device can
 * have them, the maps of experts on the device, a workspace. Part of one backend; its thread.
 */
#ifndef WITAN_WORKER_CUDA_FAST_BACKEND_H
#define WITAN_WORKER_CUDA_FAST_BACKEND_H

#include "worker/cuda/plugin.h"
#include "worker/weights.h"

/* All zero: off. */
struct cuda_fast {
    const struct cuda_fast_table *table; /* NULL: off */
    struct memory *memory;
    struct cuda_fast_ffn *maps; /* on the device, as weights->ffns */
    /* On the device: rows packed for ffn_up and lm_head; then the slots' products of ffn_down. */
    void *work;
};

/*
 * Turns it on. ERR_UNSUPPORTED, in one line: the plug-in has no such products, `device`, the one
 * in use, is not of compute capability 9.0. `plugin` and `memory`, the backend's, live longer.
 */
enum status cuda_fast_init(struct cuda_fast *f, const struct cuda_plugin *plugin, int device,
                           struct memory *memory, struct error *err);
void cuda_fast_fini(struct cuda_fast *f);

/* What cuda_fast_prepare allocates for a rank of so many experts and dense blocks, all layers'. */
uint64_t cuda_fast_bytes(const struct model_config *config, const struct engine_limits *limits,
                         uint64_t ffns);

/* Where it is on: maps of the experts and a workspace for steps within the limits.
 * ERR_UNSUPPORTED: weights that are not bf16, or more experts than CUDA_FAST_EXPERTS. */
enum status cuda_fast_prepare(struct cuda_fast *f, const struct model_config *config,
                              const struct engine_limits *limits, const struct weights *w,
                              struct error *err);

/* Whether a product of so many rows is for the fast kernels. */
bool cuda_fast_takes(const struct cuda_fast *f, int32_t rows);

#endif
