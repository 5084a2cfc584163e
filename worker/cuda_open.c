/* Finding the CUDA plug-in: see cuda_backend.h. State: the plug-in, once it was found. */
#include "worker/cuda_backend.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char file_name[] = "witan_cuda.so";

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct cuda_plugin *found;

/* ../lib/witan_cuda.so from this program's folder; false where the system does not say. */
static bool beside_program(char path[PATH_MAX])
{
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return false;
    exe[n] = '\0';
    char *end = strrchr(exe, '/');
    if (!end)
        return false;
    *end = '\0';
    return snprintf(path, PATH_MAX, "%s/../lib/%s", exe, file_name) < PATH_MAX;
}

static enum status load(const char *path, struct error *err)
{
    const struct cuda_plugin *(*open)(uint32_t) = NULL;
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return error_set(
            err, ERR_NOT_FOUND,
            "the CUDA plug-in cannot be loaded: %s: build Witan where the CUDA toolkit "
            "is, and install CUDA's run-time library here",
            dlerror());
    void *symbol = dlsym(so, "witan_cuda_plugin");
    memcpy(&open, &symbol, sizeof open); /* POSIX: the way from void * to a function */
    const struct cuda_plugin *p = open ? open(CUDA_PLUGIN_VERSION) : NULL;
    if (!p || p->bytes != sizeof *p) {
        dlclose(so);
        return error_set(
            err, ERR_UNSUPPORTED,
            "%s: expected version %d of the CUDA plug-in: install the one of this build", path,
            CUDA_PLUGIN_VERSION);
    }
    found = p;
    return OK;
}

/* A driver runs what was built with any release of the same or an older major version of CUDA. */
static enum status check_driver(const struct cuda_plugin *plugin, struct error *err)
{
    int driver = 0, e = plugin->driver(&driver), built = plugin->runtime;
    if (e != 0)
        return OK; /* counting the devices says better why */
    if (driver == 0)
        return error_set(err, ERR_NOT_FOUND,
                         "no GPU: expected NVIDIA's driver, found none: install one that knows "
                         "CUDA %d, and start containers with the NVIDIA runtime",
                         built / 1000);
    if (driver / 1000 < built / 1000)
        return error_set(err, ERR_UNSUPPORTED,
                         "no GPU: expected a driver that knows CUDA %d or later, found one for "
                         "CUDA %d.%d: install a newer driver (`nvidia-smi` shows what it knows)",
                         built / 1000, driver / 1000, driver % 1000 / 10);
    return OK;
}

enum status cuda_plugin_devices(const struct cuda_plugin *plugin, int *out, struct error *err)
{
    *out = 0;
    TRY(check_driver(plugin, err));
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    int count = 0, e = plugin->device_count(&count);
    *out = count;
    if (e == 0 && count > 0)
        return OK;
    if (visible)
        return error_set(err, ERR_NOT_FOUND,
                         "no GPU: CUDA_VISIBLE_DEVICES=\"%.60s\" leaves none: unset it, or name "
                         "there what `nvidia-smi -L` lists",
                         visible);
    return error_set(err, ERR_NOT_FOUND,
                     "no GPU: %s: look at `nvidia-smi`; the driver must know the CUDA version that "
                     "Witan was built with, and containers need the NVIDIA runtime",
                     e == 0 ? "the driver sees none" : plugin->error_text(e));
}

/* "8.0, 9.0": what the plug-in holds code for. */
static void list_architectures(const struct cuda_plugin *plugin, char *out, size_t size)
{
    size_t n = 0;
    *out = '\0';
    for (const int32_t *a = plugin->architectures; *a && n < size; a++)
        n += (size_t)snprintf(out + n, size - n, "%s%d.%d", n > 0 ? ", " : "", *a / 100,
                              *a % 100 / 10);
}

enum status cuda_plugin_device(const struct cuda_plugin *plugin, int device,
                               struct cuda_device_info *out, struct error *err)
{
    int e = plugin->use(device);
    if (e == 0)
        e = plugin->device_info(device, out);
    if (e != 0)
        return error_set(err, ERR_IO,
                         "GPU %d: opening it: %s: look at `nvidia-smi` and the kernel's log",
                         device, plugin->error_text(e));
    if (out->major < CUDA_MIN_MAJOR)
        return error_set(
            err, ERR_UNSUPPORTED,
            "GPU %d (%s): expected compute capability %d.0 or later, found %d.%d: hide "
            "it by CUDA_VISIBLE_DEVICES, or run on CPUs (--device cpu)",
            device, out->name, CUDA_MIN_MAJOR, out->major, out->minor);
    if (plugin->runs() == 0 && out->block_shared >= CUDA_MIN_SHARED)
        return OK;
    if (plugin->runs() == 0)
        return error_set(err, ERR_UNSUPPORTED,
                         "GPU %d (%s, %d.%d): expected %d KiB of shared memory a block, as GPUs of "
                         "data centres have, found %d: hide it by CUDA_VISIBLE_DEVICES, or run on "
                         "CPUs (--device cpu)",
                         device, out->name, out->major, out->minor, CUDA_MIN_SHARED >> 10,
                         out->block_shared >> 10);
    char held[128];
    list_architectures(plugin, held, sizeof held);
    return error_set(err, ERR_UNSUPPORTED,
                     "GPU %d (%s): expected compute capability %s, which the CUDA plug-in holds "
                     "code for, found %d.%d: build Witan with -DWITAN_CUDA_ARCHITECTURES=%d%d",
                     device, out->name, held, out->major, out->minor, out->major, out->minor);
}

enum status cuda_plugin_open(const char *path, const struct cuda_plugin **out, struct error *err)
{
    char beside[PATH_MAX];
    enum status st = OK;
    pthread_mutex_lock(&lock);
    if (!found && path)
        st = load(path, err);
    else if (!found && beside_program(beside) && access(beside, R_OK) == 0)
        st = load(beside, err);
    else if (!found)
        st = load(file_name, err);
    if (st == OK)
        *out = found;
    pthread_mutex_unlock(&lock);
    return st;
}
