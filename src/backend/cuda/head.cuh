/* The order of logits. */
#ifndef BG_BACKEND_CUDA_HEAD_CUH
#define BG_BACKEND_CUDA_HEAD_CUH

#include "backend/cuda/device.cuh"

static constexpr uint64_t NAN_KEY = (uint64_t)0xFFFFFFFFu << 32;

/* Order of floats as that of unsigned integers, and the lower column first on a tie; NaN before
 * all, and without a column. */
static __device__ __forceinline__ uint64_t sort_key(float x, uint32_t col)
{
    uint32_t bits = __float_as_uint(x + 0.0f); /* of two zeros the lower one, too */
    bits = bits & 0x80000000 ? ~bits : bits | 0x80000000;
    if (isnan(x)) return NAN_KEY;
    return (uint64_t)bits << 32 | ~col;
}

/* The key of a logit where some columns are forbidden. */
static __device__ __forceinline__ uint64_t choice_key(const cuda_choice &a, float x, uint32_t col)
{
    for (size_t i = 0; i < a.n_forbidden; i++)
        if ((uint32_t)a.forbidden[i] == col && !isnan(x)) x = -INFINITY;
    return sort_key(x, col);
}

/* The column; -1 where there was NaN. The host waits for what is seen to change. */
static __device__ __forceinline__ void write_choice(const cuda_choice &a, size_t row, uint64_t key)
{
    a.ids[row] = (int32_t) ~(uint32_t)key;
    *(volatile int32_t *)(a.seen + row) = (int32_t) ~(uint32_t)key;
}

static __device__ __forceinline__ uint64_t warp_largest(uint64_t best)
{
    for (int i = WARP / 2; i > 0; i /= 2) {
        uint64_t other = __shfl_xor_sync(0xFFFFFFFF, best, i);
        best = other > best ? other : best;
    }
    return best;
}

/* The largest of a block's keys, for every thread; room has a place for each warp. */
static __device__ __forceinline__ uint64_t block_largest(uint64_t best, uint64_t *room)
{
    best = warp_largest(best);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = best;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / WARP; i++) best = room[i] > best ? room[i] : best;
    return best;
}

#endif
