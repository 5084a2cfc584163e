/* Finding the CUDA plug-in: see cuda_backend.h. State: the plug-in, once it was found. */
#include "worker/cuda_backend.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
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

enum status cuda_plugin_devices(const struct cuda_plugin *plugin, int *out, struct error *err)
{
    int count = 0, e = plugin->device_count(&count);
    *out = count;
    if (e == 0 && count > 0)
        return OK;
    return error_set(err, ERR_NOT_FOUND,
                     "no GPU: %s: look at `nvidia-smi`; the driver must know the CUDA version that "
                     "Witan was built with, and containers need the NVIDIA runtime",
                     e == 0 ? "the driver sees none" : plugin->error_text(e));
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
