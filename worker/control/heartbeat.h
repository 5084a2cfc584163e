/*
 * The parts of a rank's heartbeat that figures fill: of its GPU, and of its engine. What is filled
 * points into the caller's struct, which must live until the message is sent.
 */
#ifndef WITAN_WORKER_CONTROL_HEARTBEAT_H
#define WITAN_WORKER_CONTROL_HEARTBEAT_H

#include "proto/cluster.pb-c.h"
#include "worker/energy.h"
#include "worker/engine.h"
#include "worker/meter.h"

/* About the GPU, and what it points to. */
struct gpu_beat {
    Witan__Cluster__V1__Gpu gpu;
    Witan__Cluster__V1__Figure figures[METER_COUNT], *list[METER_COUNT];
    struct meter_reading reading;
};

/* About the engine. `figures` is the caller's to fill. */
struct engine_beat {
    Witan__Cluster__V1__Engine engine;
    Witan__Cluster__V1__Histogram prompt_step, decode_step, sequences, queue, overhead;
    struct engine_figures figures;
};

/* About energy. `reading` is the caller's to fill. */
struct energy_beat {
    Witan__Cluster__V1__Energy energy;
    Witan__Cluster__V1__Joules host, gpu;
    struct energy_reading reading;
};

/* Of b->reading. `host`, `gpu`: the rank counts these. */
Witan__Cluster__V1__Energy *heartbeat_energy(struct energy_beat *b, bool host, bool gpu);

/* NULL: nothing is measured. `m` may be NULL. */
Witan__Cluster__V1__Gpu *heartbeat_gpu(struct meter *m, struct gpu_beat *b);
/* Of b->figures; `leader`: with rank 0's histograms. */
Witan__Cluster__V1__Engine *heartbeat_engine(struct engine_beat *b, bool leader);

#endif
