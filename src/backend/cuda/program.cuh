/* A step in one launch: a kernel that stays on every multiprocessor, one block on each, and runs a
 * list of nodes one after the other. Between two nodes the blocks wait for each other. The weights
 * know nothing of that: warps of their own copy all nodes' weights to shared memory, as far ahead
 * of the warps that multiply as there is room.
 *
 *   program.cuh            blocks and warps that wait for each other; loads and sums
 *   program_ring.cuh       the weights' way to shared memory
 *   program_row.cuh        a row of activations, and its norm
 *   program_input.cuh      a linear layer's input: normed, split or quantized
 *   program_tile.cuh       a warp's tiles of a matrix, on tensor cores
 *   program_linear.cuh     linear layers: tiles to outputs
 *   program_cache.cuh      keys and values on their way to shared memory
 *   program_attention.cuh  attention of one query of each sequence
 *   program_rows.cuh       embeddings, norms, copies
 *   program_kernel.cuh     the kernel; a file for each family of formats instantiates it
 *   program.cu             which nodes a program takes, and in what pieces */
#ifndef BG_BACKEND_CUDA_PROGRAM_CUH
#define BG_BACKEND_CUDA_PROGRAM_CUH

#include "backend/cuda/copy.cuh"
#include "backend/cuda/device.cuh"
#include "backend/cuda/program.h"

/* For lambdas, whose captured variables would be in memory otherwise. */
#define INLINE __attribute__((always_inline))

/* Warps that run nodes, the block's first; warps that copy weights for them; and one that watches
 * for the other blocks. */
enum { WARPS_SHIFT = 3, STEP_WARPS = 1 << WARPS_SHIFT, STEP_THREADS = STEP_WARPS * WARP };
enum { COPY_WARPS = 3, COPY_THREADS = COPY_WARPS * WARP };
enum { BLOCK_THREADS = STEP_THREADS + COPY_THREADS + WARP };

/* ---- a block's warps ------------------------------------------------------------------------- */

/* What __syncthreads is, for the warps that run nodes, and for those that copy; where the former
 * wait for the one that watches, and where they tell it that a node is done. */
enum { STEP_BARRIER = 1, COPY_BARRIER, NODE_BARRIER, DONE_BARRIER };

static __device__ __forceinline__ void step_sync()
{
    asm volatile("bar.sync %0, %1;" ::"n"((int)STEP_BARRIER), "n"((int)STEP_THREADS) : "memory");
}

static __device__ __forceinline__ void copy_sync()
{
    asm volatile("bar.sync %0, %1;" ::"n"((int)COPY_BARRIER), "n"((int)COPY_THREADS) : "memory");
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* A barrier of all blocks, which counts their arrivals. What a block wrote before it arrived every
 * block may read after `wait`, by load_fresh. The watching warp tells the others of its block's
 * arrival, which takes until what was written has come to memory, and looks at the count, while the
 * warps that run nodes prepare for what they wait for. Of each node these call wait and, but for
 * the last, done at its end, of an attention and what runs beside it once; and that one arrive and
 * watch. (With a `done` that waits for nobody, warps
 * that prepare were in the way of those that still wrote.) */
struct all_blocks {
    unsigned *arrived;

    __device__ __forceinline__ void done() const
    {
        asm volatile("bar.sync %0, %1;" ::"n"((int)DONE_BARRIER), "n"((int)STEP_THREADS + WARP)
                     : "memory");
    }
    __device__ __forceinline__ void wait() const
    {
        asm volatile("bar.sync %0, %1;" ::"n"((int)NODE_BARRIER), "n"((int)STEP_THREADS + WARP)
                     : "memory");
    }
    __device__ __forceinline__ void arrive() const
    {
        done();
        if (threadIdx.x % WARP == 0)
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
    }
    /* Until the blocks have arrived `times`. */
    __device__ __forceinline__ void watch(unsigned times) const
    {
        unsigned n;
        do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(n) : "l"(arrived) : "memory");
        while (n < times * gridDim.x);
        __syncwarp();
        asm volatile("bar.arrive %0, %1;" ::"n"((int)NODE_BARRIER), "n"((int)STEP_THREADS + WARP)
                     : "memory");
    }
};

/* ---- memory ---------------------------------------------------------------------------------- */

/* What another block may have written in this launch: not from the first-level cache. */
template <typename T> static __device__ __forceinline__ T load_fresh(const T *p)
{
    return __ldcg(p);
}

/* A value that is worked out where this is, and not again wherever it is used. */
template <typename T> static __device__ __forceinline__ T settled(T x)
{
    if constexpr (sizeof(T) == 8)
        asm volatile("" : "+l"(x));
    else
        asm volatile("" : "+r"(x));
    return x;
}

/* The same of a place in shared memory: its address takes a special register, which takes its time.
 */
template <typename T> static __device__ __forceinline__ T *settled_room(T *p)
{
    return (T *)__cvta_shared_to_generic(settled(shared_address(p)));
}

/* Until all that the thread has asked for by copy_16 has come; others may read it after a barrier
 * besides. */
static __device__ __forceinline__ void wait_for_copies()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* x / n by a multiplication, for x n < 2^32; inverse = inverse_of(n). Divisions take as long as all
 * the rest of a node's preparations. */
static __host__ __device__ __forceinline__ uint32_t inverse_of(size_t n)
{
    return n > 1 ? (uint32_t)(((uint64_t)1 << 32) / n + 1) : 0;
}

static __device__ __forceinline__ unsigned divide(unsigned x, uint32_t inverse)
{
    return inverse ? __umulhi(x, inverse) : x;
}

/* ---- sums over a team of warps --------------------------------------------------------------- */

/* The block's warps in 1, 2, 4 or 8 teams, one for each row of activations. */
struct team {
    unsigned first_warp, warps;
    unsigned lane, threads; /* a thread's number in its team, and how many there are */
};

/* `shift`: of the number of teams. */
static __device__ __forceinline__ team team_of(unsigned shift, unsigned *number)
{
    const unsigned threads = STEP_THREADS >> shift, warps = STEP_WARPS >> shift;
    *number = threadIdx.x / WARP >> (WARPS_SHIFT - shift);
    return {*number * warps, warps, threadIdx.x & (threads - 1), threads};
}

/* Whether tensor cores add in double precision as fast as they should. */
#if __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900
static constexpr bool DOUBLE_MMA = true;
#else
static constexpr bool DOUBLE_MMA = false;
#endif

/* c (8, 8) += a (8, 4) b (4, 8). A lane has row lane / 4 of a and c and column lane / 4 of b;
 * column lane % 4 of a, row lane % 4 of b, and columns lane % 4 * 2 and the next one of c. */
static __device__ __forceinline__ void mma_double(double c[2], double a, double b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+d"(c[0]), "+d"(c[1])
                 : "d"(a), "d"(b));
#endif
}

/* Of four lanes side by side. */
static __device__ __forceinline__ double four_sum(double x)
{
    double c[2] = {0, 0};
    mma_double(c, x, 1);
    return c[0];
}

/* What all lanes of a warp have, to each of them: two instructions instead of five rounds of
 * shuffles. */
template <typename T> static __device__ __forceinline__ T lanes_sum(T x)
{
    if constexpr (!DOUBLE_MMA || sizeof(T) < sizeof(double)) {
        return warp_sum(x);
    } else {
        double eights[2] = {0, 0};
        mma_double(eights, 1, x);
        return four_sum(eights[0] + eights[1]);
    }
}

/* The sum of what a team's warps have put into room (STEP_WARPS). */
template <typename T> static __device__ __forceinline__ T warps_sum(const team &t, const T *room)
{
    if constexpr (!DOUBLE_MMA || sizeof(T) < sizeof(double)) {
        T x = room[t.first_warp + (threadIdx.x & (t.warps - 1))];
#pragma unroll
        for (unsigned i = STEP_WARPS / 2; i > 0; i /= 2) {
            const T other = __shfl_xor_sync(0xFFFFFFFF, x, (int)i);
            if (i < t.warps) x += other;
        }
        return x;
    } else {
        const unsigned i = threadIdx.x % 4;
        double x = i < t.warps ? room[t.first_warp + i] : 0;
        if (i + 4 < t.warps) x += room[t.first_warp + i + 4];
        return four_sum(x);
    }
}

/* All warps that run nodes call these; room (STEP_WARPS) is not read by anybody who is still in the
 * last call with the same room: two calls in turn have two rooms. */
template <typename T> static __device__ __forceinline__ T team_sum(const team &t, T x, T *room)
{
    x = lanes_sum(x);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = x;
    step_sync();
    return warps_sum(t, room);
}

/* Floats in the order of integers, and back. */
static __device__ __forceinline__ int ordered(int bits)
{
    return bits ^ (bits >> 31 & 0x7FFFFFFF);
}

/* NaN is never the largest. */
static __device__ __forceinline__ float team_max(const team &t, float x, int *room)
{
#if __CUDA_ARCH__ >= 800
    int most = __reduce_max_sync(0xFFFFFFFF, ordered(__float_as_int(fmaxf(x, -INFINITY))));
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = most;
    step_sync();
    most = room[t.first_warp + (threadIdx.x & (t.warps - 1))];
    return __int_as_float(ordered(__reduce_max_sync(0xFFFFFFFF, most)));
#else
    return x;
#endif
}

/* The largest of a team, of numbers that are not negative: their bits are in the same order. And
 * that of all teams. */
static __device__ __forceinline__ float team_most(const team &t, float x, int *room, float *all)
{
#if __CUDA_ARCH__ >= 800
    int most = __reduce_max_sync(0xFFFFFFFF, __float_as_int(x));
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = most;
    step_sync();
    most = room[t.first_warp + (threadIdx.x & (t.warps - 1))];
    *all = __int_as_float(__reduce_max_sync(0xFFFFFFFF, room[threadIdx.x % STEP_WARPS]));
    return __int_as_float(__reduce_max_sync(0xFFFFFFFF, most));
#else
    return *all = x;
#endif
}

/* Two sums at once: room (2 * STEP_WARPS). */
template <typename T>
static __device__ __forceinline__ void team_sums(const team &t, T &x, T &y, T *room)
{
    x = lanes_sum(x);
    y = lanes_sum(y);
    if (threadIdx.x % WARP == 0) {
        room[threadIdx.x / WARP] = x;
        room[STEP_WARPS + threadIdx.x / WARP] = y;
    }
    step_sync();
    x = warps_sum(t, room);
    y = warps_sum(t, room + STEP_WARPS);
}

#endif
