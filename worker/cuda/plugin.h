/*
 * The CUDA backend's plug-in, witan_cuda.so: everything that needs CUDA, behind one versioned
 * table, so that one build of Witan serves machines with and without it. worker/cuda_backend.c
 * makes a backend of the table; tests make the same of the emulator's (tests/simt).
 *
 * Functions return 0 or CUDA's error, for error_text. All but the first four are for a thread that
 * has called use().
 */
#ifndef WITAN_WORKER_CUDA_PLUGIN_H
#define WITAN_WORKER_CUDA_PLUGIN_H

#include "worker/cuda/fast.h"
#include "worker/cuda/stages.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_PLUGIN_VERSION = 3 };

enum { CUDA_MIN_MAJOR = 8 };          /* compute capability: below it there is no bf16 product */
enum { CUDA_MIN_SHARED = 163 << 10 }; /* bytes of a block, which an A100 has; tiles want them */

typedef void *cuda_graph; /* cudaGraphExec_t */
typedef void *cuda_event; /* cudaEvent_t */

struct cuda_device_info {
    char name[256];
    char uuid[48];        /* "GPU-8d6b...", as `nvidia-smi -L` prints it */
    char pci[32];         /* "00000000:18:00.0" */
    int32_t major, minor; /* compute capability */
    int32_t driver;       /* version of CUDA that the driver knows, 13000 for 13.0 */
    uint64_t bytes, free_bytes;
    int32_t block_shared; /* bytes of shared memory that a block may have */
};

/* Of fast.h, by their names there without "cuda_fast_" and "cuda_". */
struct cuda_fast_table {
    __typeof__(cuda_fast_maps) *maps;
    __typeof__(cuda_fast_gemm) *gemm;
    __typeof__(cuda_fast_gemm_sum) *gemm_sum;
    __typeof__(cuda_fast_ffn_up) *ffn_up;
    __typeof__(cuda_fast_ffn_down) *ffn_down;
    __typeof__(cuda_pack_rows) *pack_rows;
    __typeof__(cuda_finish_qkv) *finish_qkv;
};

struct cuda_plugin {
    uint32_t version; /* CUDA_PLUGIN_VERSION */
    uint32_t bytes;   /* of this struct */
    int32_t runtime;  /* version of CUDA that it was built with, 13000 for 13.0 */
    /* Compute capabilities that it holds code for, 900 for 9.0, up to a 0. */
    const int32_t *architectures;

    const char *(*error_text)(int code); /* static */
    int (*driver)(int *version);         /* of CUDA that the driver knows; 0: there is no driver */
    int (*device_count)(int *count);
    int (*use)(int device); /* the calling thread's device from now on */

    int (*device_info)(int device, struct cuda_device_info *out); /* of the device in use */
    int (*runs)(void); /* 0: the plug-in holds code for the device in use */
    int (*stream_create)(cuda_stream *out);
    int (*stream_destroy)(cuda_stream stream);
    int (*alloc)(void **out, size_t bytes); /* at multiples of 256 bytes, contents undefined */
    int (*free)(void *p);
    int (*alloc_host)(void **out, size_t bytes); /* pinned */
    int (*free_host)(void *p);
    /* On the stream. `rows` runs of `run` bytes from the host's memory. */
    int (*put)(void *to, size_t to_stride, const void *from, size_t from_stride, size_t run,
               size_t rows, cuda_stream stream);
    int (*get)(void *to, const void *from, size_t bytes, cuda_stream stream);
    int (*zero)(void *to, size_t bytes, cuda_stream stream);
    /* All of the stream has run: the first error of any of it. */
    int (*wait)(cuda_stream stream);
    int (*query)(cuda_stream stream, bool *done); /* has it? Without waiting. */
    int (*event_create)(cuda_event *out);
    int (*event_destroy)(cuda_event event);
    int (*event_record)(cuda_event event, cuda_stream stream);
    int (*event_wait)(cuda_event event); /* all before it has run: the first error of any of it */
    int (*event_query)(cuda_event event, bool *done);
    /* Between these two the calling thread's work on the stream is kept instead of done; `wait`,
     * allocating and freeing are errors then. *nodes: kernels, copies and fills; a graph may be of
     * none. */
    int (*record_begin)(cuda_stream stream);
    int (*record_end)(cuda_stream stream, cuda_graph *out, int *nodes);
    int (*graph_run)(cuda_graph graph, cuda_stream stream); /* what was kept, in its order */
    int (*graph_free)(cuda_graph graph);

    /* The stages, by their names in stages.h without "cuda_". */
    __typeof__(cuda_embed) *embed;
    __typeof__(cuda_rope_angles) *rope_angles;
    __typeof__(cuda_add_norm) *add_norm;
    __typeof__(cuda_attention_run) *attention_run;
    __typeof__(cuda_attention_units) *attention_units;
    __typeof__(cuda_attention_bytes) *attention_bytes;
    __typeof__(cuda_route_dense) *route_dense;
    __typeof__(cuda_gemm) *gemm;
    __typeof__(cuda_qkv) *qkv;
    __typeof__(cuda_router) *router;
    __typeof__(cuda_fill_padding) *fill_padding;
    __typeof__(cuda_gemm_leaf) *gemm_leaf;
    __typeof__(cuda_ffn_up) *ffn_up;
    __typeof__(cuda_ffn_down) *ffn_down;
    __typeof__(cuda_sample) *sample;
    __typeof__(cuda_sample_bytes) *sample_bytes;

    const struct cuda_fast_table *fast; /* NULL: none, as in the emulator; for 9.0 alone */
};

/* What the plug-in exports, by this name: NULL where it does not know the version. */
const struct cuda_plugin *witan_cuda_plugin(uint32_t version);

#ifdef __cplusplus
}
#endif

#endif
