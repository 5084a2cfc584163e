/*
 * The CUDA backend: the stages of kernels.h over the plug-in's kernels (worker/cuda/stages.h).
 */
#ifndef WITAN_WORKER_CUDA_BACKEND_H
#define WITAN_WORKER_CUDA_BACKEND_H

#include "worker/cuda/plugin.h"
#include "worker/kernels.h"

/*
 * Loads the plug-in from the file, or where `path` is NULL from ../lib beside this program, then
 * from where the loader looks; once a process, it stays loaded. What is missing (the file, a
 * driver, a library that it needs) is one line that says what to do. Any thread.
 */
enum status cuda_plugin_open(const char *path, const struct cuda_plugin **out, struct error *err);

/* How many GPUs there are, at least one; ERR_NOT_FOUND says why there is none. Any thread. */
enum status cuda_plugin_devices(const struct cuda_plugin *plugin, int *out, struct error *err);

/*
 * What device `device` (from 0) is, which the calling thread uses from now on. ERR_UNSUPPORTED
 * where the plug-in holds no code for it.
 */
enum status cuda_plugin_device(const struct cuda_plugin *plugin, int device,
                               struct cuda_device_info *out, struct error *err);

/* What a backend allocates on its device for itself, in bytes. */
struct cuda_backend_bytes {
    uint64_t batch;    /* a step's numbers */
    uint64_t tables;   /* where the experts' weights lie, and a counter */
    uint64_t sampling; /* drawn tokens, and cuda_sample_bytes */
    uint64_t partial;  /* of attention (cuda_attention_bytes) */
    uint64_t fast;     /* of products that are not reproducible; 0 without limits->fast */
};

/* Any thread. */
struct cuda_backend_bytes cuda_backend_bytes(const struct cuda_plugin *plugin,
                                             const struct model_config *config,
                                             const struct rank_plan *rank,
                                             const struct engine_limits *limits);

/*
 * A backend on the device, for a model and a rank's part of it. ERR_UNSUPPORTED for what these
 * kernels do not do: weights other than bf16, rows whose length is not a multiple of 8, heads above
 * CUDA_MAX_HEAD, a KV cache of fp32; and for limits->fast, numerics class "cuda-1-sm90-fast"
 * (worker/cuda/fast.h), on other GPUs than Hopper. `plugin` lives longer. The stages are for the
 * thread that creates it.
 */
enum status cuda_backend_create(const struct cuda_plugin *plugin, int device,
                                const struct model_config *config, const struct rank_plan *rank,
                                const struct engine_limits *limits, const struct kernels **kernels,
                                struct backend **out, struct error *err);

/* What all stages are put on. */
cuda_stream cuda_backend_stream(const struct backend *be);

/* Looks after others' work on the stream: called again and again while the backend waits for it to
 * run `what`, by that thread. Not OK: the wait is given up with this error, and a step is not
 * finished ever. */
struct cuda_watch {
    enum status (*look)(void *arg, const char *what, int64_t waited_ms, struct error *err);
    void *arg;
};

void cuda_backend_watch(struct backend *be, const struct cuda_watch *watch);

/* Kernels, copies and fills of the recorded step that a decode step of so many rows and positions
 * runs, and its segments; 0: there is none. */
int32_t cuda_backend_recorded(const struct backend *be, int32_t rows, int32_t longest,
                              int32_t *segments);

#endif
