/* What is a Hopper GPU's own: tiles that the tensor memory accelerator brings to shared memory, for
 * both blocks of a cluster where both read them, barriers that say when they have come and when
 * they are done with, and products of tiles as they lie there (PTX ISA, "wgmma"). */
#ifndef BG_BACKEND_CUDA_WGMMA_CUH
#define BG_BACKEND_CUDA_WGMMA_CUH

#include "backend/cuda/copy.cuh"
#include "backend/cuda/device.cuh"

#include <cuda.h>

/* These instructions are of capability 9.0 alone, and in code for "sm_90a" alone. */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BG_WGMMA_HERE 1
#else
#define BG_WGMMA_HERE 0
#endif

enum {
    GROUP = 128,        /* threads of a warpgroup */
    STAGE_ALIGN = 1024, /* where swizzled rows begin again */
};

/* ---- barriers -------------------------------------------------------------------------------- */

static __device__ __forceinline__ void barrier_create(uint32_t barrier, int arrivals)
{
#if BG_WGMMA_HERE
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
#endif
}

/* Makes those that a thread has created known to the cluster and to copies. */
static __device__ __forceinline__ void barriers_are_created()
{
#if BG_WGMMA_HERE
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/* Arrives, and says how many bytes the copies will bring that complete it. */
static __device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes)
{
#if BG_WGMMA_HERE
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
#endif
}

/* Arrives at the same barrier of a block of the cluster. */
static __device__ __forceinline__ void barrier_arrive(uint32_t barrier, unsigned block)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
                 "r"(block)
                 : "memory");
#endif
}

/* Until the phase of this parity is over; no phase behind it may be. */
static __device__ __forceinline__ void barrier_wait(uint32_t barrier, unsigned parity)
{
#if BG_WGMMA_HERE
    uint32_t over;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(over)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!over);
#endif
}

/* All threads of a cluster. What they wrote is not made known by this. */
static __device__ __forceinline__ void cluster_wait()
{
#if BG_WGMMA_HERE
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                     : "memory");
#endif
}

/* The same when all that a thread has told another block of the cluster has come there. */
static __device__ __forceinline__ void cluster_end()
{
#if BG_WGMMA_HERE
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
#endif
}

static __device__ __forceinline__ unsigned rank_in_cluster()
{
    unsigned rank = 0;
#if BG_WGMMA_HERE
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* A tile of a matrix, from a column and row on, to this block's shared memory. */
static __device__ __forceinline__ void copy_tile(uint32_t to, const CUtensorMap *from,
                                                 uint32_t barrier, int col, int row)
{
#if BG_WGMMA_HERE
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
                 "l"(from), "r"(barrier), "r"(col), "r"(row)
                 : "memory");
#endif
}

/* The same to both blocks of a cluster of two, at the same place; each one's barrier is told. */
static __device__ __forceinline__ void copy_tile_to_both(uint32_t to, const CUtensorMap *from,
                                                         uint32_t barrier, int col, int row)
{
#if BG_WGMMA_HERE
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(from), "r"(barrier), "r"(col), "r"(row), "h"((uint16_t)3)
                 : "memory");
#endif
}

/* ---- products -------------------------------------------------------------------------------- */

/* Registers of each of a warpgroup's threads from now on. */
template <int N> static __device__ __forceinline__ void take_registers()
{
#if BG_WGMMA_HERE
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

template <int N> static __device__ __forceinline__ void give_registers()
{
#if BG_WGMMA_HERE
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

/* What a product is told of a tile of 64 binary16 columns, swizzled in groups of eight rows of 128
 * bytes: where it begins, the bytes from a group to the next, and how it is swizzled; where columns
 * are outputs and there are more of them, also the bytes from 64 columns to the next. It begins in
 * units of 16 bytes: columns 16 to 31 two units further, rows 16 to 31 128 units. */
static __device__ __forceinline__ uint64_t tile_at(uint32_t p, uint64_t columns = 16)
{
    const uint64_t group = 1024 >> 4, swizzle_128 = 1;
    return (uint64_t)((p & 0x3FFFF) >> 4) | columns >> 4 << 16 | group << 32 | swizzle_128 << 62;
}

/* What a thread has written to shared memory may be read by the products of its block after this
 * and a wait of the block. */
static __device__ __forceinline__ void show_to_products()
{
#if BG_WGMMA_HERE
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* Sums are not read before this, which is behind a wait for their products. */
template <int N> static __device__ __forceinline__ void keep_behind(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

template <int N> static __device__ __forceinline__ void keep_behind(int32_t (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+r"(x[i])::"memory");
}

static __device__ __forceinline__ void begin_products()
{
#if BG_WGMMA_HERE
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

static __device__ __forceinline__ void end_of_products()
{
#if BG_WGMMA_HERE
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

/* Until all but the last N groups are done. */
template <int N> static __device__ __forceinline__ void wait_for_products()
{
#if BG_WGMMA_HERE
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}

#define SUMS_OF(type, i)                                                                           \
    "+" type(sums[i]), "+" type(sums[i + 1]), "+" type(sums[i + 2]), "+" type(sums[i + 3])
#define SUMS_4(i)  SUMS_OF("f", i)
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
#define SUMS_64(i) SUMS_16(i), SUMS_16(i + 16), SUMS_16(i + 32), SUMS_16(i + 48)
#define INTS_4(i)  SUMS_OF("r", i)
#define INTS_16(i) INTS_4(i), INTS_4(i + 4), INTS_4(i + 8), INTS_4(i + 12)
#define INTS_64(i) INTS_16(i), INTS_16(i + 16), INTS_16(i + 32), INTS_16(i + 48)

#define NUMBERS_64                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "  \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "   \
    "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "   \
    "%56, %57, %58, %59, %60, %61, %62, %63}, "

#define NUMBERS_128                                                                                \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "  \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, "   \
    "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "   \
    "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, "   \
    "%74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "   \
    "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, "     \
    "%108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, "   \
    "%123, %124, %125, %126, %127}, "

/* A warpgroup's sums of 64 rows of x by 256 of w: thread t's are of rows 16 * (t / 32) + t % 32 / 4
 * and the eighth behind it, [4j], [4j + 1] and [4j + 2], [4j + 3], columns 8j + t % 4 * 2 and the
 * next. 16 products are added to each, or take its place. */
static __device__ __forceinline__ void multiply_tiles(float (&sums)[128], uint64_t x, uint64_t w,
                                                      bool adds)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 " NUMBERS_128
                 "%128, %129, p, 1, 1, 0, 0;\n}"
                 : SUMS_64(0), SUMS_64(64)
                 : "l"(x), "l"(w), "r"((int)adds));
#endif
}

/* The same of int8: 32 products are added to each. */
static __device__ __forceinline__ void multiply_tiles(int32_t (&sums)[128], uint64_t x, uint64_t w)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k32.s32.s8.s8 " NUMBERS_128
                 "%128, %129, p;\n}"
                 : INTS_64(0), INTS_64(64)
                 : "l"(x), "l"(w), "r"(1));
#endif
}

/* Of binary16 by 128 rows of w: 16 products are added to each. */
static __device__ __forceinline__ void multiply_tiles(float (&sums)[64], uint64_t x, uint64_t w)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " NUMBERS_64
                 "%64, %65, p, 1, 1, 0, 0;\n}"
                 : SUMS_64(0)
                 : "l"(x), "l"(w), "r"(1));
#endif
}

#define NUMBERS_32                                                                                 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "  \
    "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "

/* The same by 64 rows of w. */
static __device__ __forceinline__ void multiply_tiles(float (&sums)[32], uint64_t x, uint64_t w,
                                                      bool adds)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " NUMBERS_32
                 "%32, %33, p, 1, 1, 0, 0;\n}"
                 : SUMS_16(0), SUMS_16(16)
                 : "l"(x), "l"(w), "r"((int)adds));
#endif
}

static __device__ __forceinline__ void multiply_tiles(int32_t (&sums)[32], uint64_t x, uint64_t w)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 " NUMBERS_32 "%32, %33, p;\n}"
                 : INTS_16(0), INTS_16(16)
                 : "l"(x), "l"(w), "r"(1));
#endif
}

/* Adds x w of 16 rows of w, (16, 64) and (16, 128), to sums. x is in registers, two binary16 in
 * each: [0] and [1] are columns t % 4 * 2 and the next of both rows, [2] and [3] those eight
 * columns further. (They must not be wanted again: ptxas 13.0 gives away factors' registers though
 * a loop's next turn reads them.) */
static __device__ __forceinline__ void multiply_rows(float (&sums)[32], const uint32_t (&x)[4],
                                                     uint64_t w)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 " NUMBERS_32
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
                 : SUMS_16(0), SUMS_16(16)
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(w), "r"(1));
#endif
}

static __device__ __forceinline__ void multiply_rows(float (&sums)[64], const uint32_t (&x)[4],
                                                     uint64_t w)
{
#if BG_WGMMA_HERE
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " NUMBERS_64
                 "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
                 : SUMS_64(0)
                 : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "l"(w), "r"(1));
#endif
}

#undef NUMBERS_32
#undef NUMBERS_64
#undef NUMBERS_128
#undef INTS_64
#undef INTS_16
#undef INTS_4
#undef SUMS_64
#undef SUMS_16
#undef SUMS_4
#undef SUMS_OF

#endif
