/*
 * What `witan doctor` finds on a host: one line a check, with what to do. `root` stands before
 * /proc and /sys, "" for this machine's own: a copy of another's, or a test's. What is asked of the
 * kernel and not read there (clock, Landlock, ports, interfaces) is of this machine always.
 */
#ifndef WITAN_CLI_DOCTOR_H
#define WITAN_CLI_DOCTOR_H

#include "coordinator/config.h"

#include <stdbool.h>
#include <stdint.h>

enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };
enum { DOCTOR_MAX = 256, DOCTOR_LINE = 256 };

struct doctor_finding {
    enum doctor_level level;
    const char *check; /* static: "memory" */
    char found[400];
    char advice[400]; /* "": nothing is to be done */
};

struct doctor {
    const char *root;
    const struct config *config; /* checked; NULL: none was named */
    uint64_t weights_bytes;      /* of its model's files, once looked at */
    struct doctor_finding finding[DOCTOR_MAX];
    int count;
};

/* One finding more, with what was found; those beyond DOCTOR_MAX are dropped. */
void doctor_say(struct doctor *d, enum doctor_level level, const char *check, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What to do about the last one. */
void doctor_advise(struct doctor *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The first line of a file below the root, without its end; false where there is none. */
bool doctor_line(const struct doctor *d, const char *path, char line[DOCTOR_LINE]);
/* The number behind `key` in the file; `none` where there is none. */
uint64_t doctor_number(const struct doctor *d, const char *path, const char *key, uint64_t none);

void doctor_files(struct doctor *d);   /* cli/doctor_files.c: model, keys, certificates, disks */
void doctor_host(struct doctor *d);    /* cli/doctor_host.c: processor, memory, limits, kernel */
void doctor_network(struct doctor *d); /* cli/doctor_network.c: ports, interfaces, launcher */
void doctor_gpu(struct doctor *d);     /* cli/doctor_gpu.c: driver, libraries, devices */

#endif
