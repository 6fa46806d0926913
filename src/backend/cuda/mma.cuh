/* Products of tiles of binary16 numbers by a warp, summed in fp32: on tensor cores from compute
 * capability 8.0 on, value by value before. A thread's place in a tile is the one that PTX gives
 * for mma.m16n8k16: of the sums it has rows lane / 4 and that plus 8, columns lane % 4 * 2 and the
 * one after it. */
#ifndef BG_BACKEND_CUDA_MMA_CUH
#define BG_BACKEND_CUDA_MMA_CUH

#include "backend/cuda/device.cuh"

/* Whether there is more than mma_half: what else uses tensor cores is left out where there is not.
 */
#if __CUDA_ARCH__ >= 800
static constexpr bool MMA = true;
#else
static constexpr bool MMA = false;
#endif

#if __CUDA_ARCH__ < 800
/* Not inlined: there is much of it. */
static __device__ __noinline__ float4 mma_by_value(float4 sums, uint4 left_words, uint2 right_words)
{
    float sum[4] = {sums.x, sums.y, sums.z, sums.w};
    const uint32_t a[4] = {left_words.x, left_words.y, left_words.z, left_words.w};
    const uint32_t b[2] = {right_words.x, right_words.y};
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < 16; k++) {
        /* Element (r, k) of a: thread r % 8 * 4 + k % 8 / 2, word r / 8 + k / 8 * 2. */
        float left[2], right[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t x = __shfl_sync(0xFFFFFFFF, a[i + k / 8 * 2], lane / 4 * 4 + k % 8 / 2);
            const uint32_t y =
                __shfl_sync(0xFFFFFFFF, b[k / 8], (lane % 4 * 2 + i) * 4 + k % 8 / 2);
            left[i] = __half2float(__ushort_as_half((unsigned short)(x >> k % 2 * 16)));
            right[i] = __half2float(__ushort_as_half((unsigned short)(y >> k % 2 * 16)));
        }
        sum[0] = __fmaf_rn(left[0], right[0], sum[0]);
        sum[1] = __fmaf_rn(left[0], right[1], sum[1]);
        sum[2] = __fmaf_rn(left[1], right[0], sum[2]);
        sum[3] = __fmaf_rn(left[1], right[1], sum[3]);
    }
    return make_float4(sum[0], sum[1], sum[2], sum[3]);
}
#endif

/* sum (16, 8) += a (16, 16) b (8, 16)^T. */
static __device__ __forceinline__ void mma_half(float sum[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const float4 y = mma_by_value(make_float4(sum[0], sum[1], sum[2], sum[3]),
                                  make_uint4(a[0], a[1], a[2], a[3]), make_uint2(b[0], b[1]));
    sum[0] = y.x;
    sum[1] = y.y;
    sum[2] = y.z;
    sum[3] = y.w;
#endif
}

/* The same of bfloat16 numbers, and of 32 columns of codes, summed as integers; both only where
 * MMA. */
static __device__ __forceinline__ void mma_bfloat(float sum[4], const uint32_t a[4],
                                                  const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

static __device__ __forceinline__ void mma_codes(int32_t sum[4], const uint32_t a[4],
                                                 const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* Four 8 x 8 tiles of shared memory; `at` is where row lane % 8 of tile lane / 8 begins. Compute
 * capability 7.5 and later. */
static __device__ __forceinline__ void load_tiles(uint32_t out[4], uint32_t at)
{
#if __CUDA_ARCH__ >= 750
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
#endif
}

/* The same, or transposed, of any GPU. */
static __device__ __forceinline__ void load_tiles(uint32_t out[4], const __half *row,
                                                  bool transposed)
{
#if __CUDA_ARCH__ >= 750
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at)
                     : "memory");
    else
        load_tiles(out, at);
#else
    const int r = (int)threadIdx.x % WARP / 4, c = (int)threadIdx.x % 4 * 2;
    for (int tile = 0; tile < 4; tile++) {
        const uint64_t p = (uint64_t)row;
        uint32_t pair = 0;
        for (int i = 0; i < 2; i++) {
            const int from = tile * 8 + (transposed ? c + i : r), col = transposed ? r : c + i;
            const uint64_t begin = __shfl_sync(0xFFFFFFFF, p, from);
            pair |= (uint32_t)__half_as_ushort(((const __half *)begin)[col]) << i * 16;
        }
        out[tile] = pair;
    }
#endif
}

/* The left factor (16, 16), rows `pitch` apart. */
static __device__ __forceinline__ void load_a(uint32_t out[4], const __half *a, int pitch)
{
    const int lane = (int)threadIdx.x % WARP;
    load_tiles(out, a + lane % 16 * pitch + lane / 16 * 8, false);
}

/* Two right factors, (8, 16) each, one below the other. */
static __device__ __forceinline__ void load_b_pair(uint32_t out[4], const __half *b, int pitch)
{
    const int lane = (int)threadIdx.x % WARP;
    load_tiles(out, b + (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8, false);
}

/* The same from a matrix (16, 16) whose columns are the factors' rows. */
static __device__ __forceinline__ void load_b_pair_transposed(uint32_t out[4], const __half *b,
                                                              int pitch)
{
    const int lane = (int)threadIdx.x % WARP;
    load_tiles(out, b + lane % 16 * pitch + lane / 16 * 8, true);
}

#endif
