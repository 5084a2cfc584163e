/* The plug-in's table: see plugin.h. No state. */
#include "worker/cuda/plugin.h"
#include "worker/cuda/device.cuh"

#include <string.h>

static const char *error_text(int code)
{
    return device_error_text(code);
}

#if defined(__CUDACC__)

static const int32_t architectures[] = {__CUDA_ARCH_LIST__, 0};
enum { RUNTIME = CUDART_VERSION };

static int driver(int *version)
{
    return (int)cudaDriverGetVersion(version);
}

static int device_count(int *count)
{
    return (int)cudaGetDeviceCount(count);
}

static int use(int device)
{
    return (int)cudaSetDevice(device);
}

static void uuid_text(const cudaUUID_t *uuid, char *out, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    strncpy(out, "GPU", size);
    n = 3;
    for (int i = 0; i < 16; i++) {
        unsigned byte = (unsigned char)uuid->bytes[i];
        if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10)
            out[n++] = '-';
        out[n++] = digits[byte >> 4];
        out[n++] = digits[byte & 15];
    }
    out[n] = '\0';
}

static int device_info(int device, struct cuda_device_info *out)
{
    cudaDeviceProp p;
    size_t free_bytes = 0, bytes = 0;
    memset(out, 0, sizeof *out);
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e == cudaSuccess)
        e = cudaDriverGetVersion(&out->driver);
    if (e == cudaSuccess)
        e = cudaDeviceGetPCIBusId(out->pci, (int)sizeof out->pci, device);
    if (e == cudaSuccess)
        e = cudaMemGetInfo(&free_bytes, &bytes);
    if (e != cudaSuccess)
        return (int)e;
    strncpy(out->name, p.name, sizeof out->name - 1);
    uuid_text(&p.uuid, out->uuid, sizeof out->uuid);
    out->major = p.major;
    out->minor = p.minor;
    out->bytes = bytes;
    out->free_bytes = free_bytes;
    out->block_shared = (int32_t)p.sharedMemPerBlockOptin;
    return 0;
}

static __global__ void nothing()
{
}

static int runs()
{
    cudaFuncAttributes a;
    int e = (int)cudaFuncGetAttributes(&a, nothing);
    (void)cudaGetLastError(); /* not the next launch's */
    return e;
}

static int stream_create(cuda_stream *out)
{
    cudaStream_t s;
    cudaError_t e = cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    *out = s;
    return (int)e;
}

static int stream_destroy(cuda_stream stream)
{
    return (int)cudaStreamDestroy((cudaStream_t)stream);
}

static int query(cuda_stream stream, bool *done)
{
    cudaError_t e = cudaStreamQuery((cudaStream_t)stream);
    *done = e == cudaSuccess;
    return e == cudaErrorNotReady ? 0 : (int)e;
}

static int event_create(cuda_event *out)
{
    cudaEvent_t e = NULL;
    cudaError_t code = cudaEventCreateWithFlags(&e, cudaEventDisableTiming);
    *out = e;
    return (int)code;
}

static int event_destroy(cuda_event event)
{
    return (int)cudaEventDestroy((cudaEvent_t)event);
}

static int event_record(cuda_event event, cuda_stream stream)
{
    return (int)cudaEventRecord((cudaEvent_t)event, (cudaStream_t)stream);
}

static int event_wait(cuda_event event)
{
    return (int)cudaEventSynchronize((cudaEvent_t)event);
}

static int event_query(cuda_event event, bool *done)
{
    cudaError_t e = cudaEventQuery((cudaEvent_t)event);
    *done = e == cudaSuccess;
    return e == cudaErrorNotReady ? 0 : (int)e;
}

static int put(void *to, size_t to_stride, const void *from, size_t from_stride, size_t run,
               size_t rows, cuda_stream stream)
{
    cudaStream_t s = (cudaStream_t)stream;
    if (rows == 1)
        return (int)cudaMemcpyAsync(to, from, run, cudaMemcpyHostToDevice, s);
    return (int)cudaMemcpy2DAsync(to, to_stride, from, from_stride, run, rows,
                                  cudaMemcpyHostToDevice, s);
}

#else /* the emulator: one device, whose stream does everything at once */

static const int32_t architectures[] = {900, 0};
enum { RUNTIME = 13000 };

static int driver(int *version)
{
    *version = RUNTIME;
    return 0;
}

static int device_count(int *count)
{
    *count = 1;
    return 0;
}

static int use(int device)
{
    return device == 0 ? 0 : 1;
}

static int device_info(int, struct cuda_device_info *out)
{
    memset(out, 0, sizeof *out);
    strncpy(out->name, "emulator", sizeof out->name - 1);
    strncpy(out->uuid, "GPU-emulator", sizeof out->uuid - 1);
    strncpy(out->pci, "00000000:00:00.0", sizeof out->pci - 1);
    out->major = 9;
    out->driver = RUNTIME;
    out->block_shared = CUDA_MIN_SHARED;
    device_memory(&out->bytes, &out->free_bytes);
    return 0;
}

static int runs()
{
    return 0;
}

static int stream_create(cuda_stream *out)
{
    *out = NULL;
    return 0;
}

static int stream_destroy(cuda_stream)
{
    return 0;
}

static int query(cuda_stream stream, bool *done)
{
    int e = device_wait((device_stream)stream);
    *done = e == 0;
    return e;
}

static int event_create(cuda_event *out)
{
    static int any;
    *out = &any;
    return 0;
}

static int event_destroy(cuda_event)
{
    return 0;
}

static int event_record(cuda_event, cuda_stream)
{
    return 0;
}

static int event_wait(cuda_event)
{
    return device_wait(NULL);
}

static int event_query(cuda_event, bool *done)
{
    return query(NULL, done);
}

static int put(void *to, size_t to_stride, const void *from, size_t from_stride, size_t run,
               size_t rows, cuda_stream stream)
{
    int e = 0;
    for (size_t r = 0; e == 0 && r < rows; r++)
        e = device_write((char *)to + r * to_stride, (const char *)from + r * from_stride, run,
                         (device_stream)stream);
    return e;
}

#endif

static int alloc(void **out, size_t bytes)
{
    return device_alloc(out, bytes);
}

static int release(void *p)
{
    return device_free(p);
}

static int alloc_host(void **out, size_t bytes)
{
    return device_alloc_host(out, bytes);
}

static int release_host(void *p)
{
    return device_free_host(p);
}

static int get(void *to, const void *from, size_t bytes, cuda_stream stream)
{
    return device_read(to, from, bytes, (device_stream)stream);
}

static int zero(void *to, size_t bytes, cuda_stream stream)
{
    return device_fill(to, 0, bytes, (device_stream)stream);
}

static int wait(cuda_stream stream)
{
    return device_wait((device_stream)stream);
}

static int record_begin(cuda_stream stream)
{
    return device_record_begin((device_stream)stream);
}

static int record_end(cuda_stream stream, cuda_graph *out, int *nodes)
{
    device_graph graph;
    int e = device_record_end((device_stream)stream, &graph, nodes);
    *out = graph;
    return e;
}

static int graph_run(cuda_graph graph, cuda_stream stream)
{
    return device_graph_run((device_graph)graph, (device_stream)stream);
}

static int graph_free(cuda_graph graph)
{
    return device_graph_free((device_graph)graph);
}

#if defined(__CUDACC__)
static const struct cuda_fast_table fast_products = {
    cuda_fast_maps,     cuda_fast_gemm, cuda_fast_gemm_sum, cuda_fast_ffn_up,
    cuda_fast_ffn_down, cuda_pack_rows, cuda_finish_qkv,
};
static const struct cuda_fast_table *const fast_table = &fast_products;
#else
static const struct cuda_fast_table *const fast_table = NULL;
#endif

const struct cuda_plugin *witan_cuda_plugin(uint32_t version)
{
    static const struct cuda_plugin table = {
        CUDA_PLUGIN_VERSION,
        sizeof table,
        RUNTIME,
        architectures,
        error_text,
        driver,
        device_count,
        use,
        device_info,
        runs,
        stream_create,
        stream_destroy,
        alloc,
        release,
        alloc_host,
        release_host,
        put,
        get,
        zero,
        wait,
        query,
        event_create,
        event_destroy,
        event_record,
        event_wait,
        event_query,
        record_begin,
        record_end,
        graph_run,
        graph_free,
        cuda_embed,
        cuda_rope_angles,
        cuda_add_norm,
        cuda_attention_run,
        cuda_attention_units,
        cuda_attention_bytes,
        cuda_route_dense,
        cuda_gemm,
        cuda_qkv,
        cuda_router,
        cuda_fill_padding,
        cuda_gemm_leaf,
        cuda_ffn_up,
        cuda_ffn_down,
        cuda_sample,
        cuda_sample_bytes,
        fast_table,
    };
    return version == CUDA_PLUGIN_VERSION ? &table : NULL;
}
