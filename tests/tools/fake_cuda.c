/*
 * A CUDA plug-in without a GPU, whose answers a test chooses: what `witan` says to machines on
 * which it cannot run. It computes nothing. State: the environment, read at each call:
 * FAKE_CUDA_VERSION, _DRIVER, _DRIVER_ERROR, _COUNT, _COUNT_ERROR, _MAJOR, _MINOR, _RUNS, _SHARED;
 * and where FAKE_CUDA_HOLD names a file, how often this process has asked for a device: from the
 * second time on, in loading, the answer waits until the file is gone, and is then an error.
 */
#include "worker/cuda/plugin.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int answer(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static const char *error_text(int code)
{
    return code == 100 ? "no CUDA-capable device is detected" : "another error";
}

static int driver(int *version)
{
    *version = answer("FAKE_CUDA_DRIVER", 13000);
    return answer("FAKE_CUDA_DRIVER_ERROR", 0);
}

static int device_count(int *count)
{
    *count = answer("FAKE_CUDA_COUNT", 1);
    return answer("FAKE_CUDA_COUNT_ERROR", 0);
}

static int use(int device)
{
    return device < answer("FAKE_CUDA_COUNT", 1) ? 0 : 101;
}

static bool fails_now(void)
{
    static atomic_int asked;
    const char *hold = getenv("FAKE_CUDA_HOLD");
    if (!hold || atomic_fetch_add(&asked, 1) == 0)
        return false;
    while (access(hold, F_OK) == 0)
        usleep(10000);
    return true;
}

static int device_info(int device, struct cuda_device_info *out)
{
    if (fails_now())
        return 46;
    *out = (struct cuda_device_info){.name = "Fake GPU",
                                     .major = answer("FAKE_CUDA_MAJOR", 9),
                                     .minor = answer("FAKE_CUDA_MINOR", 0),
                                     .driver = answer("FAKE_CUDA_DRIVER", 13000),
                                     .bytes = UINT64_C(80) << 30,
                                     .free_bytes = UINT64_C(79) << 30,
                                     .block_shared = answer("FAKE_CUDA_SHARED", 227 << 10)};
    snprintf(out->uuid, sizeof out->uuid, "GPU-00000000-0000-0000-0000-%012d", device);
    snprintf(out->pci, sizeof out->pci, "00000000:%02x:00.0", device + 1);
    return 0;
}

static int runs(void)
{
    return answer("FAKE_CUDA_RUNS", 0);
}

const struct cuda_plugin *witan_cuda_plugin(uint32_t version)
{
    static const int32_t architectures[] = {800, 900, 1000, 0};
    static const struct cuda_plugin table = {
        .version = CUDA_PLUGIN_VERSION,
        .bytes = sizeof table,
        .runtime = 13000,
        .architectures = architectures,
        .error_text = error_text,
        .driver = driver,
        .device_count = device_count,
        .use = use,
        .device_info = device_info,
        .runs = runs,
    };
    return version == (uint32_t)answer("FAKE_CUDA_VERSION", CUDA_PLUGIN_VERSION) ? &table : NULL;
}
