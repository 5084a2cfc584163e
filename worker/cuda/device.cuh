/*
 * What every kernel file includes, and all that it includes of CUDA: kernels are plain CUDA C++
 * that nvcc compiles for devices and a host compiler, unchanged, for the emulator (tests/simt,
 * where README.md says how to write them). Names that are not CUDA's own:
 *
 *   DEVICE                             a function for kernels alone, inlined
 *   launch, launch_shape               launching
 *   device_alloc ... device_wait       device memory from the host; 0, or an error's code
 *   device_record_begin ... graph_free  what a stream is given, recorded to be run again
 *   SHARED_DYNAMIC                     the block's dynamic shared memory
 *   bf16_, f16_, e4m3_                 numbers of 16 and 8 bits, held as integers
 *   ldmatrix_, mma_, cp_async_,        one PTX instruction each
 *   grid_dependency_, prefetch_l2, named_barrier_
 *   lane_id
 *
 * exp and its kin: worker/detmath_inline.h, whose bits are the same everywhere. CUDA's own are not.
 */
#ifndef WITAN_WORKER_CUDA_DEVICE_CUH
#define WITAN_WORKER_CUDA_DEVICE_CUH

#include "worker/detmath_inline.h"

#if !defined(__CUDACC__)
#include "tests/simt/simt.h"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <stdint.h>

#define DEVICE static __device__ __forceinline__

/* ---- Launching and memory, from the host ---- */

typedef cudaStream_t device_stream;

struct launch_shape {
    dim3 grid, block;
    size_t shared_bytes; /* dynamic; asked for where CUDA wants it: launch_allow_shared */
    device_stream stream;
    bool overlap; /* may start before its predecessor ends: see grid_dependency_wait */
};

/* Of the calling thread's device. */
static inline cudaError_t device_attribute(cudaDeviceAttr which, int *out)
{
    int device = 0;
    cudaError_t e = cudaGetDevice(&device);
    return e == cudaSuccess ? cudaDeviceGetAttribute(out, which, device) : e;
}

/* Lets the kernel have as much dynamic shared memory as the device gives beside its static one,
 * which counts towards the 48 KiB that need no asking. All launches ask for the same: what is
 * recorded in a graph, or about to be launched by another thread, finds nothing lowered. */
static inline cudaError_t launch_allow_shared(const void *kernel, size_t bytes)
{
    cudaFuncAttributes a = {};
    int most = 0;
    cudaError_t e = cudaFuncGetAttributes(&a, kernel);
    if (e != cudaSuccess || a.sharedSizeBytes + bytes <= 48 * 1024)
        return e;
    e = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &most);
    most -= (int)a.sharedSizeBytes;
    if (e != cudaSuccess || a.maxDynamicSharedSizeBytes == most)
        return e;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

/* Runs kernel(arguments...) on the stream. Returns 0, or CUDA's error. Any thread. */
template <class... P, class... A>
static inline int launch(void (*kernel)(P...), const launch_shape &shape, A &&...arguments)
{
    int major = 0; /* devices before 9 overlap nothing */
    cudaError_t e = cudaSuccess;
    if (shape.shared_bytes > 0)
        e = launch_allow_shared((const void *)kernel, shape.shared_bytes);
    if (e == cudaSuccess && shape.overlap)
        e = device_attribute(cudaDevAttrComputeCapabilityMajor, &major);
    if (e != cudaSuccess)
        return (int)e;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = shape.stream;
    config.attrs = &attribute;
    config.numAttrs = major >= 9 ? 1 : 0;
    return (int)cudaLaunchKernelEx(&config, kernel, (P)arguments...);
}

/* Memory of the device, aligned to 256 bytes, its contents undefined. */
static inline int device_alloc(void **out, size_t bytes)
{
    return (int)cudaMalloc(out, bytes);
}

/* Pinned memory of the host that kernels may use; to be freed by device_free_host. */
static inline int device_alloc_host(void **out, size_t bytes)
{
    return (int)cudaHostAlloc(out, bytes, cudaHostAllocMapped | cudaHostAllocPortable);
}

static inline int device_free(void *p)
{
    return (int)cudaFree(p);
}

static inline int device_free_host(void *p)
{
    return (int)cudaFreeHost(p);
}

/* In the order of the stream; the host's memory may be used again after device_wait. */
static inline int device_write(void *to, const void *from, size_t bytes, device_stream stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}

static inline int device_read(void *to, const void *from, size_t bytes, device_stream stream)
{
    return (int)cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
}

static inline int device_fill(void *to, int byte, size_t bytes, device_stream stream)
{
    return (int)cudaMemsetAsync(to, byte, bytes, stream);
}

/* All of the stream's work is done; returns the first error of any. */
static inline int device_wait(device_stream stream)
{
    return (int)cudaStreamSynchronize(stream);
}

/* Between these the calling thread's work on the stream is recorded, not done; memory may be
 * neither allocated nor waited for. *nodes: kernels, copies and fills. */
typedef cudaGraphExec_t device_graph;

static inline int device_record_begin(device_stream stream)
{
    return (int)cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}

static inline int device_record_end(device_stream stream, device_graph *out, int *nodes)
{
    cudaGraph_t graph = NULL;
    size_t count = 0;
    *out = NULL;
    cudaError_t e = cudaStreamEndCapture(stream, &graph);
    if (e == cudaSuccess)
        e = cudaGraphGetNodes(graph, NULL, &count);
    if (e == cudaSuccess)
        e = cudaGraphInstantiate(out, graph, 0);
    if (e == cudaSuccess)
        e = cudaGraphUpload(*out, stream);
    if (graph)
        cudaGraphDestroy(graph);
    *nodes = (int)count;
    return (int)e;
}

/* Once again all that was recorded, in the order of the stream. */
static inline int device_graph_run(device_graph graph, device_stream stream)
{
    return (int)cudaGraphLaunch(graph, stream);
}

static inline int device_graph_free(device_graph graph)
{
    return (int)cudaGraphExecDestroy(graph);
}

static inline const char *device_error_text(int code)
{
    return cudaGetErrorString((cudaError_t)code);
}

/* ---- Threads ---- */

#define SHARED_DYNAMIC(type, name)                                                                 \
    extern __shared__ __align__(128) unsigned char device_shared[];                                \
    type *name = reinterpret_cast<type *>(device_shared)

DEVICE int lane_id()
{
    unsigned lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return (int)lane;
}

/* Barriers 1 to 15 for some of a block's warps: `threads` counts all that take part, both those
 * that wait and those that only arrive. Whole warps, not diverged. */
DEVICE void named_barrier_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

DEVICE void named_barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- Numbers of few bits. From fp32: to nearest, ties to even; a NaN's payload is lost. ---- */

DEVICE float bf16_to_f32(uint16_t x)
{
    return __uint_as_float((unsigned)x << 16);
}

DEVICE uint16_t bf16_from_f32(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

DEVICE float f16_to_f32(uint16_t x)
{
    return __half2float(__ushort_as_half(x));
}

DEVICE uint16_t f16_from_f32(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}

DEVICE float e4m3_to_f32(uint8_t x)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, __NV_E4M3)));
}

/* Beyond the range, infinities too: +-448. */
DEVICE uint8_t e4m3_from_f32(float x)
{
    return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/* Two of 16 bits in a register, the first in the low half. */
DEVICE uint32_t bf16x2_from_f32(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

DEVICE uint32_t f16x2_from_f32(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/* a * b + c of two bf16 each, rounded once; subnormals are kept. */
DEVICE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}

/* ---- Matrices: all 32 lanes of a warp together ---- */

DEVICE uint32_t device_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* N matrices of 8 x 8 numbers of 16 bits. Lane 8 m + r gives the address of row r of matrix m in
 * shared memory, 16 bytes, aligned. Of matrix m, lane l receives in r[m] elements 2 (l % 4) and the
 * next of row l / 4; with _trans, of column l / 4. */
#define DEVICE_LDMATRIX(N, OUT, ...)                                                               \
    DEVICE void ldmatrix_x##N(uint32_t(&r)[N], const void *row)                                    \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x" #N ".shared.b16 " OUT ";"                      \
                     : __VA_ARGS__                                                                 \
                     : "r"(device_shared_address(row))                                             \
                     : "memory");                                                                  \
    }                                                                                              \
    DEVICE void ldmatrix_x##N##_trans(uint32_t(&r)[N], const void *row)                            \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x" #N ".trans.shared.b16 " OUT ";"                \
                     : __VA_ARGS__                                                                 \
                     : "r"(device_shared_address(row))                                             \
                     : "memory");                                                                  \
    }
DEVICE_LDMATRIX(1, "{%0}, [%1]", "=r"(r[0]))
DEVICE_LDMATRIX(2, "{%0, %1}, [%2]", "=r"(r[0]), "=r"(r[1]))
DEVICE_LDMATRIX(4, "{%0, %1, %2, %3}, [%4]", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]))

/* D[16, 8] += A[16, k] . B[k, 8]. With g = lane / 4, t = lane % 4 and `per` elements a register (2
 * of 16 bits, 4 of 8), element i of: a[j]: row g + 8 (j % 2), column per (t + 4 (j / 2)) + i b[j]:
 * row per (t + 4 j) + i, column g d[j]: row g + 8 (j / 2), column 2 t + j % 2 */
#define DEVICE_MMA(NAME, TYPE, D, LETTER)                                                          \
    DEVICE void NAME(D(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2])                       \
    {                                                                                              \
        asm volatile("mma.sync.aligned." TYPE " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "    \
                     "{%0, %1, %2, %3};"                                                           \
                     : "+" LETTER(d[0]), "+" LETTER(d[1]), "+" LETTER(d[2]), "+" LETTER(d[3])      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));          \
    }
DEVICE_MMA(mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32", float, "f")
DEVICE_MMA(mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32", float, "f")
DEVICE_MMA(mma_m16n8k32_s8, "m16n8k32.row.col.s32.s8.s8.s32", int32_t, "r")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
DEVICE_MMA(mma_m16n8k32_e4m3, "m16n8k32.row.col.f32.e4m3.e4m3.f32", float, "f")
#else /* the host chooses another kernel for such a device */
DEVICE void mma_m16n8k32_e4m3(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2])
{
    __trap();
}
#endif

/* ---- Asynchronous copies from global to shared memory ---- */

/* Copies `bytes` of SIZE (4, 8 or 16, to which both are aligned) and fills the rest with zeros. Its
 * thread may read the target after cp_async_wait, others after a barrier besides. */
template <int SIZE> DEVICE void cp_async(void *shared, const void *global, int bytes = SIZE)
{
    static_assert(SIZE == 4 || SIZE == 8 || SIZE == 16, "cp.async copies 4, 8 or 16 bytes");
    if constexpr (SIZE == 16)
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(device_shared_address(shared)),
            "l"(__cvta_generic_to_global(global)), "r"(bytes)
            : "memory");
    else
        asm volatile(
            "cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(device_shared_address(shared)),
            "l"(__cvta_generic_to_global(global)), "n"(SIZE), "r"(bytes)
            : "memory");
}

/* The same of 16 bytes by way of the L1 cache, for what several warps read. */
DEVICE void cp_async_cached(void *shared, const void *global, int bytes = 16)
{
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(device_shared_address(shared)),
        "l"(__cvta_generic_to_global(global)), "r"(bytes)
        : "memory");
}

DEVICE void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until at most GROUPS of the thread's committed groups are under way. */
template <int GROUPS> DEVICE void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}

DEVICE void cp_async_wait_all()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Into the L2 cache: the line that holds p. A hint. */
DEVICE void prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(p)));
}

/* In a kernel launched with `overlap`: before it touches what its predecessor writes; and: its
 * successor may start. Nothing on devices that cannot overlap. */
DEVICE void grid_dependency_wait()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE void grid_dependency_launch()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif /* __CUDACC__ */
#endif
