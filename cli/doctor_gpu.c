/* What `witan doctor` finds of GPUs: driver, NVML, the CUDA plug-in, NCCL. See doctor.h. */
#include "cli/doctor.h"

#include "worker/cuda_backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { NCCL_LEAST = 21800 }; /* 2.18: ncclCommInitRankConfig and non-blocking errors */

static void driver(struct doctor *d, bool wanted)
{
    char line[DOCTOR_LINE];
    bool there = doctor_line(d, "/proc/driver/nvidia/version", line);
    const char *words = there ? strstr(line, "Kernel Module") : NULL;
    doctor_say(d, there || !wanted ? DOCTOR_OK : DOCTOR_FAIL, "gpu driver", "%s",
               words   ? words
               : there ? line
                       : "none");
    if (!there && wanted)
        doctor_advise(d, "model.device: cuda wants NVIDIA's driver; containers want its runtime "
                         "(--gpus, nvidia.com/gpu)");
}

static void library(struct doctor *d, const char *name, const char *lacks)
{
    void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    doctor_say(d, so ? DOCTOR_OK : DOCTOR_WARN, "gpu library", "%s%s", name,
               so ? "" : " cannot be loaded");
    if (so)
        dlclose(so);
    else
        doctor_advise(d, "%s", lacks);
}

static void nccl(struct doctor *d)
{
    int (*version_of)(int *) = NULL;
    int version = 0;
    bool staged = strcmp(d->config->model.collectives, "staged") == 0;
    void *so = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    void *symbol = so ? dlsym(so, "ncclGetVersion") : NULL;
    memcpy(&version_of, &symbol, sizeof version_of);
    if (version_of)
        version_of(&version);
    if (so)
        dlclose(so);
    bool good = version >= NCCL_LEAST || staged;
    bool demanded = strcmp(d->config->model.collectives, "nccl") == 0;
    enum doctor_level level = good ? DOCTOR_OK : demanded ? DOCTOR_FAIL : DOCTOR_WARN;
    if (version > 0)
        doctor_say(d, level, "nccl", "%d.%d.%d", version / 10000, version / 100 % 100,
                   version % 100);
    else
        doctor_say(d, level, "nccl", "none");
    if (!good)
        doctor_advise(d,
                      "libnccl2 2.18 or later: without it ranks meet by way of the host's memory, "
                      "which is slow");
}

static void devices(struct doctor *d)
{
    const struct cuda_plugin *plugin = NULL;
    struct cuda_device_info info;
    struct error err;
    int count = 0;
    enum status st = cuda_plugin_open(NULL, &plugin, &err);
    if (st == OK)
        st = cuda_plugin_devices(plugin, &count, &err);
    for (int i = 0; i < count && st == OK; i++) {
        st = cuda_plugin_device(plugin, i, &info, &err);
        if (st == OK)
            doctor_say(d, DOCTOR_OK, "gpu", "%d: %s, compute capability %d.%d", i, info.name,
                       info.major, info.minor);
    }
    if (st != OK)
        doctor_say(d, DOCTOR_FAIL, "gpu", "%s", err.msg);
}

void doctor_gpu(struct doctor *d)
{
    bool wanted = d->config && config_cuda(d->config);
    driver(d, wanted);
    if (!wanted)
        return;
    library(d, "libnvidia-ml.so.1", "without it there are no figures of power, clocks and errors");
    nccl(d);
    devices(d);
}
