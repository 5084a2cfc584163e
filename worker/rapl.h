/*
 * The energy of a host's processors, as Linux counts it (powercap, "intel-rapl", which AMD's
 * processors have too: Documentation/power/powercap): each package, and its memory where that is
 * counted apart. Files are opened once and read again at each call, some microseconds each. Their
 * counters begin anew at max_energy_range_uj, within minutes at the earliest: whoever wants sums
 * reads more often.
 *
 * One thread at a time.
 */
#ifndef WITAN_WORKER_RAPL_H
#define WITAN_WORKER_RAPL_H

#include "base/error.h"

#define RAPL_ROOT "/sys/class/powercap"

enum { RAPL_MAX_ZONES = 64 };

struct rapl;

/* `root`: RAPL_ROOT, or a folder like it. ERR_UNSUPPORTED: this host counts nothing (a virtual
 * machine, or no driver); ERR_IO: it does and may not be read; both with what to do. */
enum status rapl_open(const char *root, struct rapl **out, struct error *err);
void rapl_close(struct rapl *r); /* NULL is fine */

/* *joules: since it was opened. ERR_IO: a counter could not be read, which stays so. */
enum status rapl_read(struct rapl *r, double *joules, struct error *err);

#endif
