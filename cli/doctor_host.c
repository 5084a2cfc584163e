/* What `witan doctor` finds of processor, memory, limits and kernel: see doctor.h. Sources:
 * proc(5), sysfs, the kernel's "Control Group v2", adjtimex(2), core(5). */
#include "cli/doctor.h"

#include "base/check.h"
#include "base/pool.h"
#include "worker/cpu/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif

enum {
    FILES_MORE = 256,    /* descriptors beside those of connections */
    LANDLOCK_FULL = 6,   /* the ABI that has all that we ask for (base/sandbox.c) */
    CLOCK_MAX_US = 50000 /* of its estimated error */
};

static double gib(uint64_t bytes)
{
    return (double)bytes / (1 << 30);
}

static void kernel(struct doctor *d)
{
    char release[DOCTOR_LINE];
    int major = 0, minor = 0;
    bool known = doctor_line(d, "/proc/sys/kernel/osrelease", release) &&
                 sscanf(release, "%d.%d", &major, &minor) == 2;
    bool old = major < 5 || (major == 5 && minor < 14);
    doctor_say(d, !known || old ? DOCTOR_WARN : DOCTOR_OK, "kernel", "Linux %s",
               known ? release : "of an unknown release");
    if (old && known)
        doctor_advise(d, "5.14 or later maps kept weights; 5.13 or later has Landlock");
}

static void processor(struct doctor *d)
{
    const struct cpu_ops *ops;
    struct error err;
    const char *wanted = d->config ? d->config->limits.kernels : "auto";
    if (cpu_ops_choose(wanted, &ops, &err) != OK) {
        doctor_say(d, DOCTOR_FAIL, "processor", "%s", err.msg);
        doctor_advise(d, "limits.kernels: auto");
        return;
    }
    bool slow = strcmp(ops->name, "portable") == 0;
    doctor_say(d, slow ? DOCTOR_WARN : DOCTOR_OK, "processor",
               "%d cores to this process, kernels %s", cpu_count(), ops->name);
    if (slow)
        doctor_advise(d, "AVX2, AVX-512 or NEON is many times as fast: another machine, or a "
                         "hypervisor that passes them on");
    char governor[DOCTOR_LINE];
    if (doctor_line(d, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor) &&
        strcmp(governor, "powersave") == 0) {
        doctor_say(d, DOCTOR_WARN, "clocks", "cpufreq governor powersave");
        doctor_advise(d, "cpupower frequency-set -g performance, where joules matter less than "
                         "seconds");
    }
}

static void memory(struct doctor *d)
{
    uint64_t total = 1024 * doctor_number(d, "/proc/meminfo", "MemTotal:", 0);
    uint64_t available = 1024 * doctor_number(d, "/proc/meminfo", "MemAvailable:", 0);
    if (total == 0) {
        doctor_say(d, DOCTOR_WARN, "memory", "unknown: no /proc/meminfo");
        return;
    }
    bool here = d->weights_bytes > 0 && !config_cuda(d->config);
    bool bad = here && d->weights_bytes > available;
    doctor_say(d, bad ? DOCTOR_WARN : DOCTOR_OK, "memory", "%.1f of %.1f GiB available%s",
               gib(available), gib(total), here ? "" : "; no model to hold against it");
    if (!here)
        return;
    size_t n = strlen(d->finding[d->count - 1].found);
    snprintf(d->finding[d->count - 1].found + n, sizeof d->finding[0].found - n,
             "; the model's files have %.1f GiB", gib(d->weights_bytes));
    if (bad)
        doctor_advise(d,
                      "one copy does not fit here: more hosts (groups.hosts), model.weights: int8 "
                      "or int4, or more memory; `witan plan` shows what each rank takes");
}

static void cgroup(struct doctor *d)
{
    char line[DOCTOR_LINE], path[2 * DOCTOR_LINE], max[DOCTOR_LINE];
    if (!doctor_line(d, "/proc/self/cgroup", line) || strncmp(line, "0::", 3) != 0)
        return;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", line + 3);
    if (doctor_line(d, path, max) && strcmp(max, "max") != 0) {
        uint64_t bytes = strtoull(max, NULL, 10);
        bool bad = d->weights_bytes > bytes && !config_cuda(d->config);
        doctor_say(d, bad ? DOCTOR_FAIL : DOCTOR_OK, "cgroup", "memory.max %.1f GiB", gib(bytes));
        if (bad)
            doctor_advise(d,
                          "the model's %.1f GiB do not fit: raise it (systemd: MemoryMax=, "
                          "Kubernetes: limits.memory)",
                          gib(d->weights_bytes));
    }
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", line + 3);
    if (doctor_line(d, path, max) && strncmp(max, "max", 3) != 0) {
        doctor_say(d, DOCTOR_WARN, "cgroup",
                   "cpu.max %s: compute threads are stopped when it is used "
                   "up",
                   max);
        doctor_advise(d, "no quota, or limits.threads at what it leaves");
    }
}

static void pages(struct doctor *d)
{
    char line[DOCTOR_LINE];
    if (!doctor_line(d, "/sys/kernel/mm/transparent_hugepage/enabled", line)) {
        doctor_say(d, DOCTOR_WARN, "huge pages", "not in this kernel");
        return;
    }
    bool never = strstr(line, "[never]") != NULL;
    doctor_say(d, never ? DOCTOR_WARN : DOCTOR_OK, "huge pages", "%s", line);
    if (never)
        doctor_advise(d, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: weights are "
                         "read faster from large pages");
}

static void nodes(struct doctor *d)
{
    char path[80], balancing[DOCTOR_LINE];
    int count = -1;
    do
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/meminfo", ++count);
    while (count < 1024 && doctor_number(d, path, "Node ", UINT64_MAX) != UINT64_MAX);
    bool moves = doctor_line(d, "/proc/sys/kernel/numa_balancing", balancing) &&
                 strcmp(balancing, "0") != 0;
    if (count < 2)
        return;
    doctor_say(d, moves ? DOCTOR_WARN : DOCTOR_OK, "numa", "%d nodes%s", count,
               moves ? ", and the kernel moves pages between them" : "");
    doctor_advise(d, "a rank for each node reads its own memory alone: tp %d or more%s", count,
                  moves ? "; sysctl kernel.numa_balancing=0" : "");
}

/* The soft limit in /proc/self/limits; UINT64_MAX: none. */
static uint64_t limit(const struct doctor *d, const char *name)
{
    return doctor_number(d, "/proc/self/limits", name, UINT64_MAX);
}

static void say_limit(struct doctor *d, bool low, const char *check, uint64_t n, uint64_t unit,
                      const char *of)
{
    enum doctor_level level = low ? DOCTOR_WARN : DOCTOR_OK;
    if (n == UINT64_MAX)
        doctor_say(d, level, check, "no limit");
    else
        doctor_say(d, level, check, "%llu%s", (unsigned long long)(n / unit), of);
}

static void limits(struct doctor *d)
{
    uint64_t files = limit(d, "Max open files"), locked = limit(d, "Max locked memory");
    uint64_t wanted = (d->config ? (uint64_t)d->config->limits.connections : 4096) + FILES_MORE;
    say_limit(d, files < wanted, "open files", files, 1, "");
    if (files < wanted)
        doctor_advise(d, "limits.connections wants %llu: ulimit -n, systemd: LimitNOFILE=%llu",
                      (unsigned long long)wanted, (unsigned long long)wanted);
    bool lock = d->config && d->config->retention.mlock;
    bool map = d->config && d->config->model.weights_cache;
    bool few = locked != UINT64_MAX && (lock || map);
    say_limit(d, few, "locked memory", locked, 1024, " KiB");
    if (few)
        doctor_advise(d, "%s: ulimit -l unlimited, systemd: LimitMEMLOCK=infinity",
                      lock ? "retention.mlock wants all of the coordinator's memory"
                           : "kept weights are mapped where they may be locked, else read");
}

static void dumps(struct doctor *d)
{
    char pattern[DOCTOR_LINE];
    bool wanted = d->config && d->config->core_dumps;
    if (!doctor_line(d, "/proc/sys/kernel/core_pattern", pattern))
        return;
    doctor_say(d, wanted ? DOCTOR_WARN : DOCTOR_OK, "core dumps",
               "core_pattern \"%.100s\"; coordinator and ranks %s", pattern,
               wanted ? "write them, with prompts and answers" : "write none");
    if (wanted)
        doctor_advise(d, "core_dumps: false, once the fault has been found");
}

static void swap(struct doctor *d)
{
    uint64_t kib = doctor_number(d, "/proc/meminfo", "SwapTotal:", 0);
    bool locked = d->config && d->config->retention.mlock;
    bool bad = kib > 0 && !locked;
    doctor_say(d, bad ? DOCTOR_WARN : DOCTOR_OK, "swap", "%.1f GiB%s", gib(kib * 1024),
               kib > 0 && locked ? ", the coordinator's memory kept out of it (retention.mlock)"
                                 : "");
    if (bad)
        doctor_advise(d, "text of requests can reach the disk: retention.mlock: true for the "
                         "coordinator; swapoff -a, or encrypted swap, for token ids in ranks");
}

static void clock_sync(struct doctor *d)
{
    struct timex t = {0};
    int state = adjtimex(&t);
    bool bad = state < 0 || state == TIME_ERROR || (t.status & STA_UNSYNC) != 0;
    doctor_say(d, bad ? DOCTOR_WARN : DOCTOR_OK, "clock", "%ssynchronised", bad ? "not " : "");
    if (bad)
        doctor_advise(d,
                      "chrony or systemd-timesyncd: certificates and keys expire by it, and logs "
                      "of hosts are compared");
    else if (t.esterror > CLOCK_MAX_US)
        doctor_say(d, DOCTOR_WARN, "clock", "estimated error %ld us", (long)t.esterror);
}

static void sandbox(struct doctor *d)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, 1);
    char actions[DOCTOR_LINE];
    bool filters = doctor_line(d, "/proc/sys/kernel/seccomp/actions_avail", actions) &&
                   strstr(actions, "errno");
    bool off = d->config && !config_sandbox(d->config);
    doctor_say(d, off || abi < 1 || !filters ? DOCTOR_WARN : DOCTOR_OK, "sandbox",
               "%sseccomp %s, Landlock %s%ld", off ? "off by the configuration; " : "",
               filters ? "there" : "missing", abi < 1 ? "missing, ABI " : "ABI ",
               abi < 1 ? 0 : abi);
    if (off)
        doctor_advise(d, "sandbox: on");
    else if (abi < 1)
        doctor_advise(d, "a kernel with CONFIG_SECURITY_LANDLOCK and landlock in its lsm= list, or "
                         "systemd's hardening; files and connections are not restricted without");
    else if (!filters)
        doctor_advise(d, "a kernel with CONFIG_SECCOMP_FILTER");
    else if (abi < LANDLOCK_FULL)
        doctor_advise(d, "ABI 4 (Linux 6.7) restricts connections, 6 (6.12) signals");
}

void doctor_host(struct doctor *d)
{
    kernel(d);
    processor(d);
    memory(d);
    cgroup(d);
    pages(d);
    nodes(d);
    limits(d);
    swap(d);
    dumps(d);
    clock_sync(d);
    sandbox(d);
}
