/*
 * The energy that one rank counts: its host's processors (worker/rapl.h), where it is the rank of
 * the host that counts them, and its GPU (worker/meter.h); in all, and while steps ran. So ranks'
 * figures add up, and nothing is in two of them.
 *
 * Processors are read when a step begins and ends. A GPU's figure comes about once a second: of a
 * second with steps and pauses, the pauses take what the GPU took in the last second without a
 * step, at most all of it; before there was one, by time.
 *
 * Any thread.
 */
#ifndef WITAN_WORKER_ENERGY_H
#define WITAN_WORKER_ENERGY_H

#include "base/error.h"
#include "worker/meter.h"

#include <stdbool.h>

struct energy_options {
    const char *root; /* of the processors' counters; NULL: RAPL_ROOT */
    bool host;        /* this rank counts the host's processors */
    bool gpu;         /* and a GPU, by `meter` */
    struct meter *meter;
};

/* In joules, of the processors and the GPU; 0 for what is not this rank's to count. */
struct energy_reading {
    double host, host_steps;
    double gpu, gpu_steps;
};

struct energy;

/* One warning says so where processors count and may not be read, one info line where they do not
 * count; energy_read is then false. ERR_NO_MEMORY. */
enum status energy_create(const struct energy_options *o, struct energy **out, struct error *err);
void energy_destroy(struct energy *e); /* NULL is fine; before the meter */

/* A step begins or ends. NULL is fine. */
void energy_phase(struct energy *e, bool in_step);

/* Since it was created, as of now. False: some of what this rank counts is not known. NULL is fine:
 * false. */
bool energy_read(struct energy *e, struct energy_reading *out);
/* As of the last call of any of these: reads no counter. */
bool energy_last(struct energy *e, struct energy_reading *out);

#endif
