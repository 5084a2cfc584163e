/*
 * CUDA's names for kernels that are compiled as host C++ (worker/cuda/device.cuh includes this
 * where there is no nvcc; kernels include only that). One CUDA thread is a fiber; whatever orders
 * threads is a call into the emulator (tests/simt/runtime.h), and the compiler's instrumentation of
 * loads and stores calls it for the rest. Tests steer it through tests/simt/control.h.
 *
 * Contract: see README.md beside this file.
 */
#ifndef WITAN_TESTS_SIMT_H
#define WITAN_TESTS_SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ const
/* So far apart that an index just past an array's end meets no other array, save in sizes that are
 * multiples of this. */
#define __shared__ static __attribute__((aligned(256)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define SIMT_INLINE static inline __attribute__((always_inline, unused))
#define DEVICE SIMT_INLINE

/* Where in a kernel a call stands: default arguments, filled in at the call. */
#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ---- Vector types: one access of their whole size, aligned to it, as on the device. ---- */

typedef uint32_t simt_raw16 __attribute__((vector_size(16)));
typedef uint32_t simt_raw8 __attribute__((vector_size(8)));
simt_raw16 simt_load16(const void *p);
simt_raw8 simt_load8(const void *p);
void simt_store16(void *p, simt_raw16 v);
void simt_store8(void *p, simt_raw8 v);

template <class T> SIMT_INLINE uint32_t simt_bits(T x)
{
    return __builtin_bit_cast(uint32_t, x);
}

#define SIMT_VECTOR2(NAME, T)                                                                      \
    struct alignas(8) NAME {                                                                       \
        T x, y;                                                                                    \
        NAME() = default;                                                                          \
        __forceinline__ NAME(T x_, T y_) : x(x_), y(y_)                                            \
        {                                                                                          \
        }                                                                                          \
        __forceinline__ NAME(const NAME &o)                                                        \
        {                                                                                          \
            simt_raw8 v = simt_load8(&o);                                                          \
            x = __builtin_bit_cast(T, (uint32_t)v[0]), y = __builtin_bit_cast(T, (uint32_t)v[1]);  \
        }                                                                                          \
        __forceinline__ NAME &operator=(const NAME &o)                                             \
        {                                                                                          \
            simt_store8(this, simt_load8(&o));                                                     \
            return *this;                                                                          \
        }                                                                                          \
    };                                                                                             \
    SIMT_INLINE NAME make_##NAME(T x, T y)                                                         \
    {                                                                                              \
        return NAME(x, y);                                                                         \
    }

#define SIMT_VECTOR4(NAME, T)                                                                      \
    struct alignas(16) NAME {                                                                      \
        T x, y, z, w;                                                                              \
        NAME() = default;                                                                          \
        __forceinline__ NAME(T x_, T y_, T z_, T w_) : x(x_), y(y_), z(z_), w(w_)                  \
        {                                                                                          \
        }                                                                                          \
        __forceinline__ NAME(const NAME &o)                                                        \
        {                                                                                          \
            simt_raw16 v = simt_load16(&o);                                                        \
            x = __builtin_bit_cast(T, (uint32_t)v[0]), y = __builtin_bit_cast(T, (uint32_t)v[1]);  \
            z = __builtin_bit_cast(T, (uint32_t)v[2]), w = __builtin_bit_cast(T, (uint32_t)v[3]);  \
        }                                                                                          \
        __forceinline__ NAME &operator=(const NAME &o)                                             \
        {                                                                                          \
            simt_store16(this, simt_load16(&o));                                                   \
            return *this;                                                                          \
        }                                                                                          \
    };                                                                                             \
    SIMT_INLINE NAME make_##NAME(T x, T y, T z, T w)                                               \
    {                                                                                              \
        return NAME(x, y, z, w);                                                                   \
    }

SIMT_VECTOR2(float2, float)
SIMT_VECTOR2(int2, int)
SIMT_VECTOR2(uint2, unsigned)
SIMT_VECTOR4(float4, float)
SIMT_VECTOR4(int4, int)
SIMT_VECTOR4(uint4, unsigned)

struct alignas(16) double2 {
    double x, y;
    double2() = default;
    __forceinline__ double2(double x_, double y_) : x(x_), y(y_)
    {
    }
    __forceinline__ double2(const double2 &o)
    {
        simt_raw16 v = simt_load16(&o);
        memcpy(this, &v, sizeof v);
    }
    __forceinline__ double2 &operator=(const double2 &o)
    {
        simt_store16(this, simt_load16(&o));
        return *this;
    }
};
SIMT_INLINE double2 make_double2(double x, double y)
{
    return double2(x, y);
}

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* ---- Who am I ---- */

uint3 simt_thread_index() __attribute__((const));
uint3 simt_block_index() __attribute__((const));
uint3 simt_block_dim() __attribute__((const));
uint3 simt_grid_dim() __attribute__((const));
int simt_lane() __attribute__((const));
void *simt_dynamic_shared();
#define threadIdx simt_thread_index()
#define blockIdx simt_block_index()
#define blockDim simt_block_dim()
#define gridDim simt_grid_dim()
static constexpr int warpSize = 32;

SIMT_INLINE int lane_id()
{
    return simt_lane();
}
#define SHARED_DYNAMIC(type, name) type *name = (type *)simt_dynamic_shared()

/* Ends the launch with a report. */
void simt_trap(const char *file, int line) __attribute__((noreturn));
SIMT_INLINE void __trap(SIMT_HERE)
{
    simt_trap(file, line);
}

/* ---- Barriers and fences ---- */

/* Barrier `id` for `threads` of the block's threads; 0 is __syncthreads' and all of them. `wait`
 * false: arrive and go on. Returns the sum over all of `value`. */
int simt_barrier(int id, int threads, bool wait, int value, const char *file, int line);
void simt_fence();

SIMT_INLINE void __syncthreads(SIMT_HERE)
{
    simt_barrier(0, 0, true, 0, file, line);
}
SIMT_INLINE int __syncthreads_count(int predicate, SIMT_HERE)
{
    return simt_barrier(0, 0, true, predicate != 0, file, line);
}
SIMT_INLINE int __syncthreads_or(int predicate, SIMT_HERE)
{
    return simt_barrier(0, 0, true, predicate != 0, file, line) != 0;
}
SIMT_INLINE int __syncthreads_and(int predicate, SIMT_HERE)
{
    return simt_barrier(0, 0, true, predicate == 0, file, line) == 0;
}
SIMT_INLINE void named_barrier_sync(int id, int threads, SIMT_HERE)
{
    simt_barrier(id, threads, true, 0, file, line);
}
SIMT_INLINE void named_barrier_arrive(int id, int threads, SIMT_HERE)
{
    simt_barrier(id, threads, false, 0, file, line);
}
SIMT_INLINE void __threadfence()
{
    simt_fence();
}
SIMT_INLINE void __threadfence_block()
{
}
SIMT_INLINE void __threadfence_system()
{
    simt_fence();
}

/* ---- Warps: every operation is a meeting of the lanes in its mask (tests/simt/warp.cc) ---- */

enum simt_warp_op {
    SIMT_SYNC,
    SIMT_SHUFFLE,
    SIMT_BALLOT,
    SIMT_MATCH,
    SIMT_REDUCE_ADD,
    SIMT_REDUCE_MIN,
    SIMT_REDUCE_MAX,
    SIMT_REDUCE_MIN_SIGNED,
    SIMT_REDUCE_MAX_SIGNED,
    SIMT_REDUCE_AND,
    SIMT_REDUCE_OR,
    SIMT_REDUCE_XOR,
    SIMT_LDMATRIX,
    SIMT_LDMATRIX_TRANS,
    SIMT_MMA_BF16,
    SIMT_MMA_F16,
    SIMT_MMA_E4M3,
    SIMT_MMA_S8
};
/* One lane's part. Shuffle: value from lane `from`. Others: value in, result out. */
struct simt_lane_call {
    uint64_t value, result;
    int from;       /* shuffle: the lane to read; ldmatrix: how many matrices */
    const void *in; /* ldmatrix: this lane's row; mma: registers of A */
    const void *b;  /* mma: registers of B */
    void *out;      /* ldmatrix: registers; mma: D, which is C too */
};
void simt_warp(enum simt_warp_op op, unsigned mask, simt_lane_call *call, const char *file,
               int line);

SIMT_INLINE uint64_t simt_warp_value(enum simt_warp_op op, unsigned mask, uint64_t value,
                                     const char *file, int line)
{
    simt_lane_call call = {value, 0, 0, NULL, NULL, NULL};
    simt_warp(op, mask, &call, file, line);
    return call.result;
}
SIMT_INLINE void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE)
{
    simt_warp_value(SIMT_SYNC, mask, 0, file, line);
}
template <class T>
SIMT_INLINE T simt_shuffle(unsigned mask, T x, int from, const char *file, int line)
{
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4, "a type that CUDA shuffles");
    simt_lane_call call = {0, 0, from, NULL, NULL, NULL};
    memcpy(&call.value, &x, sizeof x);
    simt_warp(SIMT_SHUFFLE, mask, &call, file, line);
    memcpy(&x, &call.result, sizeof x);
    return x;
}
template <class T>
SIMT_INLINE T __shfl_sync(unsigned mask, T x, int source, int width = 32, SIMT_HERE)
{
    int first = lane_id() & ~(width - 1);
    return simt_shuffle(mask, x, first | (source & (width - 1)), file, line);
}
template <class T>
SIMT_INLINE T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32, SIMT_HERE)
{
    int lane = lane_id(), from = lane - (int)delta;
    return simt_shuffle(mask, x, from < (lane & ~(width - 1)) ? lane : from, file, line);
}
template <class T>
SIMT_INLINE T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32, SIMT_HERE)
{
    int lane = lane_id(), from = lane + (int)delta;
    return simt_shuffle(mask, x, from > (lane | (width - 1)) ? lane : from, file, line);
}
template <class T>
SIMT_INLINE T __shfl_xor_sync(unsigned mask, T x, int lanes, int width = 32, SIMT_HERE)
{
    int lane = lane_id(), from = lane ^ lanes;
    return simt_shuffle(mask, x, from > (lane | (width - 1)) ? lane : from, file, line);
}
SIMT_INLINE unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE)
{
    return (unsigned)simt_warp_value(SIMT_BALLOT, mask, predicate != 0, file, line);
}
SIMT_INLINE int __any_sync(unsigned mask, int predicate, SIMT_HERE)
{
    return simt_warp_value(SIMT_BALLOT, mask, predicate != 0, file, line) != 0;
}
SIMT_INLINE int __all_sync(unsigned mask, int predicate, SIMT_HERE)
{
    return simt_warp_value(SIMT_BALLOT, mask, predicate == 0, file, line) == 0;
}
template <class T> SIMT_INLINE unsigned __match_any_sync(unsigned mask, T x, SIMT_HERE)
{
    uint64_t value = 0;
    memcpy(&value, &x, sizeof x);
    return (unsigned)simt_warp_value(SIMT_MATCH, mask, value, file, line);
}

#define SIMT_REDUCE(NAME, T, OP)                                                                   \
    SIMT_INLINE T __reduce_##NAME##_sync(unsigned mask, T x, SIMT_HERE)                            \
    {                                                                                              \
        return (T)simt_warp_value(OP, mask, (unsigned)x, file, line);                              \
    }
SIMT_REDUCE(add, unsigned, SIMT_REDUCE_ADD)
SIMT_REDUCE(add, int, SIMT_REDUCE_ADD)
SIMT_REDUCE(min, unsigned, SIMT_REDUCE_MIN)
SIMT_REDUCE(max, unsigned, SIMT_REDUCE_MAX)
SIMT_REDUCE(min, int, SIMT_REDUCE_MIN_SIGNED)
SIMT_REDUCE(max, int, SIMT_REDUCE_MAX_SIGNED)
SIMT_REDUCE(and, unsigned, SIMT_REDUCE_AND)
SIMT_REDUCE(or, unsigned, SIMT_REDUCE_OR)
SIMT_REDUCE(xor, unsigned, SIMT_REDUCE_XOR)

template <int N>
SIMT_INLINE void simt_ldmatrix(enum simt_warp_op op, uint32_t (&r)[N], const void *row,
                               const char *file, int line)
{
    simt_lane_call call = {0, 0, N, row, NULL, r};
    simt_warp(op, 0xffffffffu, &call, file, line);
}
#define SIMT_LOAD_MATRIX(N)                                                                        \
    SIMT_INLINE void ldmatrix_x##N(uint32_t(&r)[N], const void *row, SIMT_HERE)                    \
    {                                                                                              \
        simt_ldmatrix(SIMT_LDMATRIX, r, row, file, line);                                          \
    }                                                                                              \
    SIMT_INLINE void ldmatrix_x##N##_trans(uint32_t(&r)[N], const void *row, SIMT_HERE)            \
    {                                                                                              \
        simt_ldmatrix(SIMT_LDMATRIX_TRANS, r, row, file, line);                                    \
    }
SIMT_LOAD_MATRIX(1)
SIMT_LOAD_MATRIX(2)
SIMT_LOAD_MATRIX(4)

#define SIMT_MMA(NAME, D, OP)                                                                      \
    SIMT_INLINE void NAME(D(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2], SIMT_HERE)       \
    {                                                                                              \
        simt_lane_call call = {0, 0, 0, a, b, d};                                                  \
        simt_warp(OP, 0xffffffffu, &call, file, line);                                             \
    }
SIMT_MMA(mma_m16n8k16_bf16, float, SIMT_MMA_BF16)
SIMT_MMA(mma_m16n8k16_f16, float, SIMT_MMA_F16)
SIMT_MMA(mma_m16n8k32_e4m3, float, SIMT_MMA_E4M3)
SIMT_MMA(mma_m16n8k32_s8, int32_t, SIMT_MMA_S8)

/* ---- Asynchronous copies ---- */

void simt_copy_async(void *shared, const void *global, int size, int bytes, const char *file,
                     int line);
void simt_copy_commit();
void simt_copy_wait(int groups);

template <int SIZE>
SIMT_INLINE void cp_async(void *shared, const void *global, int bytes = SIZE, SIMT_HERE)
{
    static_assert(SIZE == 4 || SIZE == 8 || SIZE == 16, "cp.async copies 4, 8 or 16 bytes");
    simt_copy_async(shared, global, SIZE, bytes, file, line);
}
SIMT_INLINE void cp_async_cached(void *shared, const void *global, int bytes = 16, SIMT_HERE)
{
    simt_copy_async(shared, global, 16, bytes, file, line);
}
SIMT_INLINE void cp_async_commit()
{
    simt_copy_commit();
}
template <int GROUPS> SIMT_INLINE void cp_async_wait()
{
    simt_copy_wait(GROUPS);
}
SIMT_INLINE void cp_async_wait_all()
{
    simt_copy_commit();
    simt_copy_wait(0);
}
void simt_dependency_wait();
SIMT_INLINE void grid_dependency_wait()
{
    simt_dependency_wait();
}
SIMT_INLINE void grid_dependency_launch()
{
}
SIMT_INLINE void prefetch_l2(const void *)
{
}

/* ---- Atomics ---- */

enum simt_atomic_op {
    SIMT_ADD,
    SIMT_MIN,
    SIMT_MAX,
    SIMT_AND,
    SIMT_OR,
    SIMT_EXCHANGE,
    SIMT_COMPARE
};
/* Instances for int, unsigned, unsigned long long, float and double (tests/simt/atomic.cc). */
template <class T>
T simt_atomic(enum simt_atomic_op op, T *p, T x, T compare, const char *file, int line);

#define SIMT_ATOMIC(NAME, T, OP)                                                                   \
    SIMT_INLINE T NAME(T *p, T x, SIMT_HERE)                                                       \
    {                                                                                              \
        return simt_atomic<T>(OP, p, x, x, file, line);                                            \
    }
#define SIMT_ATOMICS(T)                                                                            \
    SIMT_ATOMIC(atomicAdd, T, SIMT_ADD)                                                            \
    SIMT_ATOMIC(atomicMin, T, SIMT_MIN)                                                            \
    SIMT_ATOMIC(atomicMax, T, SIMT_MAX)                                                            \
    SIMT_ATOMIC(atomicAnd, T, SIMT_AND)                                                            \
    SIMT_ATOMIC(atomicOr, T, SIMT_OR)                                                              \
    SIMT_ATOMIC(atomicExch, T, SIMT_EXCHANGE)                                                      \
    SIMT_INLINE T atomicCAS(T *p, T compare, T x, SIMT_HERE)                                       \
    {                                                                                              \
        return simt_atomic<T>(SIMT_COMPARE, p, x, compare, file, line);                            \
    }
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(unsigned long long)
SIMT_ATOMIC(atomicAdd, float, SIMT_ADD)
SIMT_ATOMIC(atomicAdd, double, SIMT_ADD)
SIMT_ATOMIC(atomicExch, float, SIMT_EXCHANGE)

/* ---- Loads with hints ---- */

template <class T> SIMT_INLINE T __ldg(const T *p)
{
    return *p;
}
template <class T> SIMT_INLINE T __ldcs(const T *p)
{
    return *p;
}
template <class T> SIMT_INLINE void __stcs(T *p, T x)
{
    *p = x;
}

/* ---- Arithmetic: each one correctly rounded operation ---- */

#define SIMT_BINARY(T, SUFFIX)                                                                     \
    SIMT_INLINE T __##SUFFIX##add_rn(T a, T b)                                                     \
    {                                                                                              \
        return a + b;                                                                              \
    }                                                                                              \
    SIMT_INLINE T __##SUFFIX##sub_rn(T a, T b)                                                     \
    {                                                                                              \
        return a - b;                                                                              \
    }                                                                                              \
    SIMT_INLINE T __##SUFFIX##mul_rn(T a, T b)                                                     \
    {                                                                                              \
        return a * b;                                                                              \
    }                                                                                              \
    SIMT_INLINE T __##SUFFIX##div_rn(T a, T b)                                                     \
    {                                                                                              \
        return a / b;                                                                              \
    }
SIMT_BINARY(float, f)
SIMT_BINARY(double, d)
SIMT_INLINE float __fmaf_rn(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
SIMT_INLINE double __fma_rn(double a, double b, double c)
{
    return __builtin_fma(a, b, c);
}
SIMT_INLINE float __fsqrt_rn(float a)
{
    return __builtin_sqrtf(a);
}
SIMT_INLINE double __dsqrt_rn(double a)
{
    return __builtin_sqrt(a);
}
SIMT_INLINE float __frcp_rn(float a)
{
    return 1.0f / a;
}
SIMT_INLINE int __float2int_rn(float a)
{
    return (int)__builtin_rintf(a);
}
#define SIMT_BITCAST(NAME, TO, FROM)                                                               \
    SIMT_INLINE TO NAME(FROM x)                                                                    \
    {                                                                                              \
        return __builtin_bit_cast(TO, x);                                                          \
    }
SIMT_BITCAST(__float_as_uint, unsigned, float)
SIMT_BITCAST(__float_as_int, int, float)
SIMT_BITCAST(__uint_as_float, float, unsigned)
SIMT_BITCAST(__int_as_float, float, int)
SIMT_BITCAST(__double_as_longlong, long long, double)
SIMT_BITCAST(__longlong_as_double, double, long long)

SIMT_INLINE int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
SIMT_INLINE int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
SIMT_INLINE int __ffs(int x)
{
    return __builtin_ffs(x);
}
SIMT_INLINE unsigned __brev(unsigned x)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= ((x >> i) & 1u) << (31 - i);
    return r;
}
SIMT_INLINE unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
/* Bytes 0 to 3 of a and 4 to 7 of b, chosen by the low 3 bits of each digit of `which`. */
SIMT_INLINE unsigned __byte_perm(unsigned a, unsigned b, unsigned which)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++)
        r |= (unsigned)(bytes >> (which >> 4 * i & 7u) * 8 & 0xffu) << 8 * i;
    return r;
}
SIMT_INLINE int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}
#define SIMT_MIN_MAX(T)                                                                            \
    SIMT_INLINE T min(T a, T b)                                                                    \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    SIMT_INLINE T max(T a, T b)                                                                    \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
SIMT_INLINE float min(float a, float b)
{
    return __builtin_fminf(a, b);
}
SIMT_INLINE float max(float a, float b)
{
    return __builtin_fmaxf(a, b);
}

/* ---- Numbers of few bits: as device.cuh says ---- */

/* |x| finite, as sign and magnitude in `mantissa` bits and an exponent whose least is `least`,
 * which is that of the subnormals too: to nearest, ties to even; it may carry beyond the largest.
 */
SIMT_INLINE uint32_t simt_narrow(float x, int mantissa, int least)
{
    int e;
    x = __builtin_fabsf(x);
    __builtin_frexpf(x, &e);
    e = x == 0.0f || e - 1 < least ? least : e - 1;
    uint32_t units = (uint32_t)__builtin_rintf(__builtin_ldexpf(x, mantissa - e));
    return ((uint32_t)(e - least) << mantissa) + units;
}
SIMT_INLINE float bf16_to_f32(uint16_t x)
{
    return __uint_as_float((uint32_t)x << 16);
}
SIMT_INLINE uint16_t bf16_from_f32(float x)
{
    uint32_t bits = __float_as_uint(x);
    return (uint16_t)(x != x ? 0x7fffu : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
SIMT_INLINE float f16_to_f32(uint16_t x)
{
    uint32_t e = (x >> 10) & 31u, m = x & 0x3ffu, sign = (uint32_t)(x & 0x8000u) << 16;
    float f = e == 31 ? __uint_as_float(0x7f800000u | m << 13)
                      : __builtin_ldexpf((float)(e ? m | 0x400u : m), (int)(e ? e : 1) - 25);
    return __uint_as_float(sign | __float_as_uint(f));
}
SIMT_INLINE uint16_t f16_from_f32(float x)
{
    uint32_t sign = __float_as_uint(x) >> 16 & 0x8000u;
    if (x != x)
        return 0x7fff;
    return (uint16_t)(sign | (__builtin_fabsf(x) >= 65520.0f ? 0x7c00u : simt_narrow(x, 10, -14)));
}
SIMT_INLINE float e4m3_to_f32(uint8_t x)
{
    int e = (x >> 3) & 15, m = x & 7;
    float f = (x & 127) == 127 ? __uint_as_float(0x7fffffffu)
                               : __builtin_ldexpf((float)(e ? m | 8 : m), (e ? e : 1) - 10);
    return x & 128 ? -f : f;
}
SIMT_INLINE uint8_t e4m3_from_f32(float x)
{
    uint32_t sign = __float_as_uint(x) >> 24 & 0x80u;
    if (x != x)
        return 0x7f;
    return (uint8_t)(sign | (__builtin_fabsf(x) >= 448.0f ? 0x7eu : simt_narrow(x, 3, -6)));
}
SIMT_INLINE uint32_t bf16x2_from_f32(float low, float high)
{
    return bf16_from_f32(low) | (uint32_t)bf16_from_f32(high) << 16;
}
SIMT_INLINE uint32_t f16x2_from_f32(float low, float high)
{
    return f16_from_f32(low) | (uint32_t)f16_from_f32(high) << 16;
}

/* a * b is exact in a double; where a * b + c is not, its last bit is set, so that the roundings to
 * come go the way of the whole sum. */
SIMT_INLINE uint16_t simt_bf16_fma(uint16_t a, uint16_t b, uint16_t c)
{
    double p = (double)bf16_to_f32(a) * (double)bf16_to_f32(b), d = (double)bf16_to_f32(c);
    double s = p + d, q = s - p, rest = (p - (s - q)) + (d - q);
    union {
        double d;
        uint64_t bits;
    } odd = {s};
    if (rest != 0.0 && !(odd.bits & 1)) /* not for NaNs, whose rest is one */
        odd.bits += (rest > 0.0) == (s > 0.0) ? 1 : rest == rest ? (uint64_t)-1 : 0;
    s = odd.d;
    int e;
    __builtin_frexp(s, &e);
    if (!__builtin_isfinite(s) || s == 0.0)
        return bf16_from_f32((float)s);
    e = e - 1 < -126 ? -126 : e - 1;
    return bf16_from_f32((float)__builtin_ldexp(__builtin_rint(__builtin_ldexp(s, 7 - e)), e - 7));
}
SIMT_INLINE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return simt_bf16_fma((uint16_t)a, (uint16_t)b, (uint16_t)c) |
           (uint32_t)simt_bf16_fma((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16))
               << 16;
}

/* ---- Launching and memory, as device.cuh declares them for both sides ---- */

typedef struct simt_stream *device_stream; /* launches run at once, one after the other */

struct launch_shape {
    dim3 grid, block;
    size_t shared_bytes;
    device_stream stream;
    bool overlap;
};

struct simt_kernel {
    const void *function;
    void (*enter)(void *arguments); /* on the fiber, with its own copy of the arguments */
    const void *arguments;
    size_t argument_bytes;
    const void *const *read_only; /* pointers to const; NULL-terminated */
    const void *const *written;   /* other pointers */
    bool opaque; /* an argument is a struct, which may hold any pointer: nothing is read-only */
};
int simt_launch(const simt_kernel *kernel, const launch_shape *shape);

template <class... P> struct simt_arguments {
    void (*function)(P...);
    std::tuple<P...> values;
    static void enter(void *self)
    {
        simt_arguments *a = (simt_arguments *)self;
        std::apply(a->function, a->values);
    }
};

template <class... P, class... A>
static inline int launch(void (*function)(P...), const launch_shape &shape, A &&...values)
{
    simt_arguments<P...> arguments = {function, std::tuple<P...>((P)values...)};
    const void *read_only[sizeof...(P) + 1] = {}, *written[sizeof...(P) + 1] = {};
    int reads = 0, writes = 0;
    bool opaque = false;
    auto sort = [&](auto value) {
        typedef decltype(value) T;
        if constexpr (!std::is_pointer<T>::value)
            opaque |= std::is_class<T>::value;
        else if (std::is_const<typename std::remove_pointer<T>::type>::value)
            read_only[reads++] = (const void *)value;
        else
            written[writes++] = (const void *)value;
    };
    std::apply([&](auto... v) { (sort(v), ...); }, arguments.values);
    (void)sort, (void)reads, (void)writes;
    simt_kernel kernel = {(const void *)function,
                          simt_arguments<P...>::enter,
                          &arguments,
                          sizeof arguments,
                          read_only,
                          written,
                          opaque};
    return simt_launch(&kernel, &shape);
}

int device_alloc(void **out, size_t bytes);
int device_alloc_host(void **out, size_t bytes);
int device_free(void *p);
int device_free_host(void *p);
/* What the device has (see simt_memory), and what of it is free. */
void device_memory(uint64_t *bytes, uint64_t *free_bytes);
int device_write(void *to, const void *from, size_t bytes, device_stream stream);
int device_read(void *to, const void *from, size_t bytes, device_stream stream);
int device_fill(void *to, int byte, size_t bytes, device_stream stream);
int device_wait(device_stream stream);
typedef struct simt_graph *device_graph;
int device_record_begin(device_stream stream);
int device_record_end(device_stream stream, device_graph *out, int *nodes);
int device_graph_run(device_graph graph, device_stream stream);
int device_graph_free(device_graph graph);
const char *device_error_text(int code);

#endif
