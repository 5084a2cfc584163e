/* Versions that travel in protocol messages. */
#ifndef WITAN_PROTO_VERSIONS_H
#define WITAN_PROTO_VERSIONS_H

#define WITAN_VERSION "0.1.0"

enum {
    CLUSTER_PROTOCOL_VERSION = 2,
    CLUSTER_PROTOCOL_OLDEST = 1, /* that this release still understands: the release before */
    /* From which on ranks know what they are asked. */
    CLUSTER_PROTOCOL_ANSWERS = 2, /* to go on with an answer: Submit.answer, prompt_told */
};

/* Bits of cpu arithmetic: raised whenever any result may change (docs/decisions.md). */
#define NUMERICS_CLASS_CPU "cpu-1"
/* The same of the CUDA kernels; the GPU's compute capability follows: "cuda-1-sm90". */
#define NUMERICS_CLASS_CUDA "cuda-1-sm"

#endif
