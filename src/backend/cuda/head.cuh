/* The order of logits. */
#ifndef BG_BACKEND_CUDA_HEAD_CUH
#define BG_BACKEND_CUDA_HEAD_CUH

#include "backend/cuda/device.cuh"

/* Order of floats as that of unsigned integers, and the lower column first on a tie. */
static __device__ __forceinline__ uint64_t sort_key(float x, size_t col)
{
    uint32_t bits = __float_as_uint(x);
    bits = bits & 0x80000000 ? ~bits : bits | 0x80000000;
    if (isnan(x)) bits = 0;
    return (uint64_t)bits << 32 | (0xFFFFFFFFu - (uint32_t)col);
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
