/* What this process takes: see process.h. Sources: proc(5), /proc/self/statm, /proc/meminfo; the
 * kernel's "Control Group v2", memory.max, memory.current, memory.stat. */
#include "base/process.h"

#include "base/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

uint64_t process_resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%*u %llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

int process_open_files(void)
{
    int count = 0;
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        count += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return count > 0 ? count - 1 : 0; /* but for the folder itself */
}

/* The number after the first line's `key` ("" where the file is one number), or `none`. */
static uint64_t number_in(const char *path, const char *key, uint64_t none)
{
    char line[256];
    unsigned long long n = 0;
    uint64_t found = none;
    size_t len = strlen(key);
    FILE *f = fopen(path, "re");
    while (f && found == none && fgets(line, sizeof line, f))
        if (strncmp(line, key, len) == 0 && sscanf(line + len, "%llu", &n) == 1)
            found = n;
    if (f)
        fclose(f);
    return found;
}

static void cgroup_path(char path[PATH_MAX])
{
    char line[PATH_MAX];
    FILE *f = fopen("/proc/self/cgroup", "re");
    path[0] = '\0';
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "0::", 3) == 0)
            snprintf(path, PATH_MAX, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    if (f)
        fclose(f);
}

/* What the cgroup leaves; its clean page cache can go. UINT64_MAX: no limit. */
static uint64_t cgroup_available(void)
{
    static const char root[] = "/sys/fs/cgroup";
    char group[PATH_MAX], path[PATH_MAX + 64];
    cgroup_path(group);
    snprintf(path, sizeof path, "%s%s/memory.max", root, group);
    uint64_t max = number_in(path, "", UINT64_MAX);
    snprintf(path, sizeof path, "%s%s/memory.current", root, group);
    uint64_t used = number_in(path, "", 0);
    snprintf(path, sizeof path, "%s%s/memory.stat", root, group);
    uint64_t cache = number_in(path, "inactive_file ", 0);
    used -= cache < used ? cache : used;
    return max == UINT64_MAX ? max : used < max ? max - used : 1;
}

uint64_t process_available_bytes(void)
{
    uint64_t machine = 1024 * (number_in("/proc/meminfo", "MemAvailable:", 0) +
                               number_in("/proc/meminfo", "SwapFree:", 0));
    uint64_t group = cgroup_available();
    return machine == 0 || machine < group ? machine : group;
}

void process_no_core_files(void)
{
    const struct rlimit none = {0};
    if (sandbox_here())
        setrlimit(RLIMIT_CORE, &none);
}

void process_no_dumps(void)
{
    process_no_core_files();
    if (sandbox_here())
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* May it lock memory without a limit? */
static bool may_lock(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    return syscall(SYS_capget, &head, data) == 0 && (data[0].effective & (1u << CAP_IPC_LOCK)) != 0;
}

enum status process_lock_memory(uint64_t more_bytes, struct error *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
        return error_errno(err, errno, "RLIMIT_MEMLOCK");
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
    uint64_t mapped = 1024 * number_in("/proc/self/status", "VmSize:", 0),
             need = mapped + more_bytes;
    if (!may_lock() && limit.rlim_max != RLIM_INFINITY && limit.rlim_max < need)
        return error_set(err, ERR_LIMIT,
                         "retention.mlock: expected RLIMIT_MEMLOCK of %llu MiB or more, or "
                         "CAP_IPC_LOCK, found %llu MiB: raise it (`ulimit -l unlimited`; systemd: "
                         "LimitMEMLOCK=infinity; limits.conf: memlock), or set retention.mlock: "
                         "false and switch swap off",
                         (unsigned long long)(need >> 20),
                         (unsigned long long)(limit.rlim_max >> 20));
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        return error_errno(err, errno, "retention.mlock: mlockall");
    return OK;
}
