/* The first message: see hello.h. */
#include "worker/control/hello.h"
#include "base/pool.h"
#include "partition/constraint.h"
#include "proto/versions.h"
#include "worker/cpu/ops.h"
#include "worker/cuda/plugin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* /proc/cpuinfo's "model name"; other architectures do not have one. */
static void processor_name(char *out, size_t size)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(out, size, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f)
        fclose(f);
}

static uint64_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

/* The generated structs lack the const of what is only read. */
static char *text(const char *s)
{
    return (char *)(uintptr_t)(s ? s : "");
}

/* A device's arithmetic is a class of its own for each compute capability. */
static void fill_device(const struct cuda_device_info *d, struct hello *out)
{
    out->device = (Witan__Cluster__V1__Device)WITAN__CLUSTER__V1__DEVICE__INIT;
    out->device.name = text(d->name);
    out->device.major = (uint32_t)d->major;
    out->device.minor = (uint32_t)d->minor;
    out->device.memory_bytes = d->bytes;
    out->device.cuda_driver = (uint32_t)d->driver;
    out->device.uuid = text(d->uuid);
    out->device.pci = text(d->pci);
    out->hardware.device = &out->device;
    out->hardware.kernels = text("cuda");
    snprintf(out->class, sizeof out->class, "%s%d%d", NUMERICS_CLASS_CUDA, d->major, d->minor);
}

enum status hello_fill(const struct attach_options *o, struct hello *out, struct error *err)
{
    const struct cpu_ops *ops;
    TRY(cpu_ops_choose("auto", &ops, err));
    processor_name(out->processor, sizeof out->processor);
    out->hardware = (Witan__Cluster__V1__Hardware)WITAN__CLUSTER__V1__HARDWARE__INIT;
    out->hardware.processor = out->processor;
    out->hardware.kernels = text(ops->name);
    out->hardware.cores = (uint32_t)cpu_count();
    out->hardware.ranks_here = (uint32_t)o->ranks_here;
    out->hardware.memory_bytes = memory_bytes();
    snprintf(out->class, sizeof out->class, "%s", NUMERICS_CLASS_CPU);
    if (o->device)
        fill_device(o->device, out);
    Witan__Cluster__V1__Hello *m = &out->message;
    *m = (Witan__Cluster__V1__Hello)WITAN__CLUSTER__V1__HELLO__INIT;
    m->protocol_version = CLUSTER_PROTOCOL_VERSION;
    m->protocol_oldest = CLUSTER_PROTOCOL_OLDEST;
    m->software_version = text(WITAN_VERSION);
    m->group = text(o->group);
    m->incarnation = o->incarnation;
    m->rank = (uint32_t)o->rank;
    m->world = (uint32_t)o->world;
    m->host = text(o->host);
    m->pid = (uint64_t)getpid();
    m->region = text(o->region);
    m->numerics_class = out->class;
    m->hardware = &out->hardware;
    m->thinking = true;
    m->wipes = true;
    m->constraints = o->device ? CONSTRAINT_NONE : CONSTRAINT_KINDS - 1; /* struct kernels' masks */
    return OK;
}

enum status host_ranks(struct comm *world, char host[HOST_NAME_BYTES], int *ranks_here,
                       int *rank_here, struct error *err)
{
    memset(host, 0, HOST_NAME_BYTES);
    if (gethostname(host, HOST_NAME_BYTES - 1) != 0)
        snprintf(host, HOST_NAME_BYTES, "unknown");
    *ranks_here = 1;
    *rank_here = 0;
    if (world->size == 1)
        return OK;
    char *all = calloc((size_t)world->size, HOST_NAME_BYTES);
    enum status st = all ? OK : error_set(err, ERR_NO_MEMORY, "no memory for host names");
    st = comm_agree(world, st, err);
    if (st == OK)
        st = world->ops->allgather(world, host, HOST_NAME_BYTES, all, err);
    *ranks_here = 0;
    for (int i = 0; st == OK && all && i < world->size; i++) {
        bool here = strcmp(all + (size_t)i * HOST_NAME_BYTES, host) == 0;
        *ranks_here += here;
        *rank_here += here && i < world->rank;
    }
    free(all);
    return st;
}
