/* What this process takes, and may take. Any thread. */
#ifndef WITAN_BASE_PROCESS_H
#define WITAN_BASE_PROCESS_H

#include <stdint.h>

/* Memory that is resident now; 0 where the system does not say. */
uint64_t process_resident_bytes(void);

/* Descriptors that are open; 0 where the system does not say. */
int process_open_files(void);

/* Memory that this process could still take without pushing others out: what the machine has
 * available, swap included, and its cgroup (version 2) leaves. 0 where the system does not say. */
uint64_t process_available_bytes(void);

#endif
