/*
 * What NVIDIA's management library (NVML) says of a rank's GPU: power and energy, clocks and what
 * holds them down, temperature, memory errors, the driver's error reports (Xid). A thread of its
 * own asks once a period, so that a library that hangs holds up nothing but its figures; what has
 * not been measured is absent, never 0.
 *
 * Created and destroyed by one thread; the rest any thread.
 */
#ifndef WITAN_WORKER_METER_H
#define WITAN_WORKER_METER_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

/* X(NAME): in the order of cluster.proto's FigureKind. */
#define METER_FIGURES(X)                                                                           \
    X(POWER_W)                                                                                     \
    X(ENERGY_J) /* since the meter was created */                                                  \
    X(STEP_J)   /* of one step, over those of the last period that had any */                      \
    X(SM_MHZ)                                                                                      \
    X(MEMORY_MHZ)                                                                                  \
    X(TEMPERATURE_C)                                                                               \
    X(ECC_CORRECTED)   /* memory errors since the driver was loaded */                             \
    X(ECC_UNCORRECTED) /* the same */                                                              \
    X(THROTTLE)        /* NVML's bits of why clocks are lower than they could be */

enum meter_figure {
#define X(name) METER_##name,
    METER_FIGURES(X)
#undef X
        METER_COUNT
};

enum {
    METER_PERIOD_MS = 1000,
    METER_STALE_MS = 5000, /* older figures are none */
    METER_CLOSE_MS = 1000, /* a thread that does not end by then is left to itself */
    METER_XIDS = 16,       /* the last ones are kept */
};

struct meter_reading {
    bool has[METER_COUNT];
    double value[METER_COUNT];
    uint64_t xid_count;        /* since the meter was created */
    uint32_t xids[METER_XIDS]; /* the last of them, oldest first */
    int32_t xids_held;
};

struct meter_options {
    const char *library; /* NULL: libnvidia-ml.so.1 */
    const char *uuid;    /* of the GPU: by this or, where NVML does not know it, */
    const char *pci;     /* by this */
    int rank;            /* for log lines */
    int32_t period_ms;   /* 0: METER_PERIOD_MS */
};

struct meter;

/* Does not wait for NVML: where there is none, one info line says so and there are no figures. The
 * options' texts are copied. ERR_NO_MEMORY. */
enum status meter_create(const struct meter_options *o, struct meter **out, struct error *err);
void meter_destroy(struct meter *m); /* NULL is fine */

void meter_stepped(struct meter *m); /* one step more; NULL is fine */

/* The newest reading; false where there is none younger than METER_STALE_MS, with one warning line
 * each time that NVML has begun to hang. NULL is fine. */
bool meter_read(struct meter *m, struct meter_reading *out);

#endif
