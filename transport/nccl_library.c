/* Opening NCCL: see nccl_library.h. No state: the loader counts, and it is never unloaded. */
#include "transport/nccl_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static const char default_name[] = "libnccl.so.2";

void nccl_version_text(int version, char out[24])
{
    snprintf(out, 24, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

/* POSIX: the way from void * to a function. */
static enum status find(void *so, const char *path, const char *symbol, void *field,
                        struct error *err)
{
    void *found = dlsym(so, symbol);
    if (!found)
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: expected %s in it, found none: install NCCL 2.18 or later, or run "
                         "with --collectives staged",
                         path, symbol);
    memcpy(field, &found, sizeof found);
    return OK;
}

static enum status check_version(const char *path, struct nccl_library *l, struct error *err)
{
    char found[24], oldest[24];
    int result = l->get_version(&l->version);
    if (result != NCCL_OK)
        return error_set(err, ERR_UNSUPPORTED, "%s: ncclGetVersion: %s", path,
                         l->error_text(result));
    if (l->version >= NCCL_OLDEST)
        return OK;
    nccl_version_text(l->version, found);
    nccl_version_text(NCCL_OLDEST, oldest);
    return error_set(err, ERR_UNSUPPORTED,
                     "%s: expected NCCL %s or later, found %s: install a later one, or run with "
                     "--collectives staged",
                     path, oldest, found);
}

enum status nccl_library_open(const char *path, struct nccl_library *out, struct error *err)
{
    const char *name = path ? path : default_name;
    void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return error_set(err, ERR_NOT_FOUND,
                         "NCCL cannot be loaded: %s: install it (package libnccl2) or put its "
                         "folder into LD_LIBRARY_PATH, or run with --collectives staged",
                         dlerror());
#define X(field, symbol, result, arguments) TRY(find(so, name, #symbol, &out->field, err));
    NCCL_FUNCTIONS(X)
#undef X
    return check_version(name, out, err);
}
