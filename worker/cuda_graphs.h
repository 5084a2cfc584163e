/*
 * Decode steps of the CUDA backend, recorded when it starts and run again by one call: a launch of
 * a graph costs the host less than those of some hundred kernels. A recording is for a number of
 * rows and a longest sequence; a step takes the smallest that holds it, and copies of its last row
 * fill it up. Where ranks meet otherwise than on the stream, a recording is cut into segments.
 *
 * One backend's, for its thread.
 */
#ifndef WITAN_WORKER_CUDA_GRAPHS_H
#define WITAN_WORKER_CUDA_GRAPHS_H

#include "worker/cuda/plugin.h"
#include "worker/kernels.h"

struct recorded_step {
    int32_t rows, longest;
    int32_t count, room;  /* segments */
    cuda_graph *segments; /* [room] */
    int32_t nodes;        /* of all */
};

/* The steps worth recording, none of which is yet, by rows and then by longest, ascending. */
struct cuda_graphs {
    int32_t count;
    struct recorded_step *steps; /* [count] */
};

/* Steps of at most `limits` rows, sequences, logits and context. ERR_NO_MEMORY. */
enum status cuda_graphs_init(struct cuda_graphs *g, const struct engine_limits *limits,
                             struct error *err);
void cuda_graphs_fini(struct cuda_graphs *g, const struct cuda_plugin *cuda);

/* The smallest recorded step that holds this one; NULL: none. */
struct recorded_step *cuda_graphs_find(const struct cuda_graphs *g, int32_t rows, int32_t longest);

/* Ends the segment that is being recorded on the stream and keeps it: 0, or CUDA's error. */
int recorded_step_cut(struct recorded_step *s, const struct cuda_plugin *cuda, cuda_stream stream);

#endif
