/* What this process takes, and may take. Any thread. */
#ifndef WITAN_BASE_PROCESS_H
#define WITAN_BASE_PROCESS_H

#include "base/error.h"

#include <stdint.h>

/* Memory that is resident now; 0 where the system does not say. */
uint64_t process_resident_bytes(void);

/* Descriptors that are open; 0 where the system does not say. */
int process_open_files(void);

/* Memory that this process could still take without pushing others out: what the machine has
 * available, swap included, and its cgroup (version 2) leaves. 0 where the system does not say. */
uint64_t process_available_bytes(void);

/* No core file of this process and of those that it starts (RLIMIT_CORE). Nothing in builds with
 * sanitizers, here and below: their runtimes look into processes themselves. */
void process_no_core_files(void);

/* The same, nor does a program get the core (core_pattern with "|"), and no other process of the
 * same user may look into this one's memory and descriptors (PR_SET_DUMPABLE). */
void process_no_dumps(void);

/* Keeps all memory of this process, now and later, out of swap. ERR_LIMIT, with figures and what to
 * do, where RLIMIT_MEMLOCK is below what it has mapped and `more_bytes`. Before other threads. */
enum status process_lock_memory(uint64_t more_bytes, struct error *err);

#endif
