/*
 * Hopper's own instructions (sm_90a), one wrapper each: products of warp groups (wgmma), tiles
 * copied by the tensor memory accelerator (TMA), barriers in shared memory that count bytes
 * (mbarrier). For files that nvcc alone compiles (WITAN_CUDA_DEVICE_ONLY in nvcc.cmake): the
 * emulator has none of this. On other architectures a wrapper traps; hosts choose by compute
 * capability.
 *
 * Tiles in shared memory: rows of 128 bytes (64 bf16 or 128 e4m3), k along the row, the tile at a
 * multiple of 1024 bytes. The 16-byte piece c of row r lies at 128 r + 16 (c ^ r % 8) ("128-byte
 * swizzle"): TMA writes it so and wgmma reads it so, where both are told.
 */
#ifndef WITAN_WORKER_CUDA_HOPPER_CUH
#define WITAN_WORKER_CUDA_HOPPER_CUH

#include "worker/cuda/device.cuh"

#include <cuda.h> /* CUtensorMap; nothing is linked to */

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER_CODE 1
#else
#define HOPPER_CODE 0
#endif

/* ---- Barriers in shared memory, 8 bytes, aligned ----
 *
 * A phase ends when `count` arrivals and all expected bytes have come; the next begins by itself.
 * Waiting names the phase by its parity: the first is 0. Waiting for parity 1 at a new barrier
 * returns at once: the phase before the first has ended. */

/* By one thread, which then calls mbarrier_init_fence; others may use it after __syncthreads. */
DEVICE void mbarrier_init(uint64_t *barrier, unsigned count)
{
#if HOPPER_CODE
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(device_shared_address(barrier)),
                 "r"(count)
                 : "memory");
#else
    __trap();
#endif
}

/* After the last mbarrier_init: threads and TMA will see them. */
DEVICE void mbarrier_init_fence()
{
#if HOPPER_CODE
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
    __trap();
#endif
}

DEVICE void mbarrier_arrive(uint64_t *barrier)
{
#if HOPPER_CODE
    asm volatile(
        "mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(device_shared_address(barrier))
        : "memory");
#else
    __trap();
#endif
}

/* Arrives and says that `bytes` are to come in this phase. */
DEVICE void mbarrier_arrive_expect(uint64_t *barrier, unsigned bytes)
{
#if HOPPER_CODE
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                     device_shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
#else
    __trap();
#endif
}

/* Whether the phase of that parity has ended; may wait a little. */
DEVICE bool mbarrier_try_wait(uint64_t *barrier, unsigned parity)
{
#if HOPPER_CODE
    uint32_t ended;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(ended)
                 : "r"(device_shared_address(barrier)), "r"(parity)
                 : "memory");
    return ended != 0;
#else
    __trap();
    return false;
#endif
}

/* Until it has. A wait of seconds is a fault of the kernel: it ends as an error, not as a hang. */
DEVICE void mbarrier_wait(uint64_t *barrier, unsigned parity)
{
    for (unsigned tries = 0; !mbarrier_try_wait(barrier, parity); tries++)
        if (tries == 1u << 26)
            __trap();
}

/* ---- Tiles by TMA ---- */

/* The box of a two-dimensional tensor map whose first element is (column, row), to a tile at
 * `shared`. What lies outside of the tensor is zeros, and counts among the barrier's bytes. By one
 * thread. The map is a __grid_constant__ parameter, or in global memory after tensor_map_acquire.
 */
DEVICE void tma_load(void *shared, const CUtensorMap *map, int column, int row, uint64_t *barrier)
{
#if HOPPER_CODE
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];" ::"r"(device_shared_address(shared)),
                 "l"(map), "r"(column), "r"(row), "r"(device_shared_address(barrier))
                 : "memory");
#else
    __trap();
#endif
}

/* Before a map in global memory is used, which the host wrote: TMA has a cache of its own. */
DEVICE void tensor_map_acquire(const CUtensorMap *map)
{
#if HOPPER_CODE
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
#else
    __trap();
#endif
}

/* ---- Products of a warp group: four warps, the first one's index a multiple of 4 ---- */

/* A tile of K-major rows at `shared`, any multiple of 8 rows into a tile, as an operand. Its
 * columns from 32 j bytes on: plus 2 j. Fields: address / 16 (bits 0-13), distance of groups of 8
 * rows / 16 (32-45), 128-byte swizzle (62-63); the distance along k (16-29) is not used here. */
DEVICE uint64_t wgmma_tile(const void *shared)
{
    return (uint64_t)(device_shared_address(shared) >> 4 & 0x3fff) | (uint64_t)1 << 16 |
           (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* Before the first product, and after registers of sums were touched otherwise. */
DEVICE void wgmma_fence()
{
#if HOPPER_CODE
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
    __trap();
#endif
}

DEVICE void wgmma_commit()
{
#if HOPPER_CODE
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
    __trap();
#endif
}

/* Until at most GROUPS committed groups are under way: the operands of the others may be written
 * again. */
template <int GROUPS> DEVICE void wgmma_wait()
{
#if HOPPER_CODE
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
#else
    __trap();
#endif
}

/* Operands %0, %1, ... of asm, and the registers that they stand for. */
#define HOPPER_NAMES_10(t)                                                                         \
    "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t         \
    "8, %" #t "9, "
#define HOPPER_NAMES_60                                                                            \
    HOPPER_NAMES_10()                                                                              \
    HOPPER_NAMES_10(1)                                                                             \
    HOPPER_NAMES_10(2) HOPPER_NAMES_10(3) HOPPER_NAMES_10(4) HOPPER_NAMES_10(5)
#define HOPPER_NAMES_64 HOPPER_NAMES_60 "%60, %61, %62, %63"
#define HOPPER_NAMES_128                                                                           \
    HOPPER_NAMES_60 HOPPER_NAMES_10(6) HOPPER_NAMES_10(7) HOPPER_NAMES_10(8) HOPPER_NAMES_10(9)    \
        HOPPER_NAMES_10(10) HOPPER_NAMES_10(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define HOPPER_SUMS_8(d, i)                                                                        \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define HOPPER_SUMS_64(d, i)                                                                       \
    HOPPER_SUMS_8(d, i), HOPPER_SUMS_8(d, i + 8), HOPPER_SUMS_8(d, i + 16),                        \
        HOPPER_SUMS_8(d, i + 24), HOPPER_SUMS_8(d, i + 32), HOPPER_SUMS_8(d, i + 40),              \
        HOPPER_SUMS_8(d, i + 48), HOPPER_SUMS_8(d, i + 56)

/* D[64, N] = A[64, k] . B[N, k]^T, plus D where `add` (else what D held is not read). a, b:
 * wgmma_tile. With w the warp's place in its group, g = lane / 4, t = lane % 4: d[4 i + j] is row
 * 16 w + g + 8 (j / 2), column 8 i + 2 t + j % 2. Under way until wgmma_wait_sums; the registers
 * are not to be touched before. */
DEVICE void wgmma_m64n256k16_bf16(float (&d)[128], uint64_t a, uint64_t b, bool add)
{
#if HOPPER_CODE
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" HOPPER_NAMES_128 "}, "
                 "%128, %129, p, 1, 1, 0, 0;\n"
                 "}"
                 : HOPPER_SUMS_64(d, 0), HOPPER_SUMS_64(d, 64)
                 : "l"(a), "l"(b), "r"((int)add));
#else
    __trap();
#endif
}

DEVICE void wgmma_m64n128k32_e4m3(float (&d)[64], uint64_t a, uint64_t b, bool add)
{
#if HOPPER_CODE
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 {" HOPPER_NAMES_64 "}, "
                 "%64, %65, p, 1, 1;\n"
                 "}"
                 : HOPPER_SUMS_64(d, 0)
                 : "l"(a), "l"(b), "r"((int)add));
#else
    __trap();
#endif
}

/* Until all products are done: their sums may be read. */
DEVICE void wgmma_wait_sums(float (&d)[128])
{
#if HOPPER_CODE
    asm volatile("wgmma.wait_group.sync.aligned 0;"
                 : HOPPER_SUMS_64(d, 0), HOPPER_SUMS_64(d, 64)
                 :
                 : "memory");
#else
    __trap();
#endif
}

DEVICE void wgmma_wait_sums(float (&d)[64])
{
#if HOPPER_CODE
    asm volatile("wgmma.wait_group.sync.aligned 0;" : HOPPER_SUMS_64(d, 0) : : "memory");
#else
    __trap();
#endif
}

/* ---- Registers: all warps of a warp group; the kernel has __launch_bounds__(threads, 1) ---- */

/* Gives registers back, down to COUNT a thread, a multiple of 8. */
template <int COUNT> DEVICE void registers_give()
{
#if HOPPER_CODE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#else
    __trap();
#endif
}

/* Takes registers, up to COUNT, once others have given enough. */
template <int COUNT> DEVICE void registers_take()
{
#if HOPPER_CODE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
#else
    __trap();
#endif
}

#endif
