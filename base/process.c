/* What this process takes: see process.h. Source: proc(5), /proc/self/statm. */
#include "base/process.h"

#include <stdio.h>
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
