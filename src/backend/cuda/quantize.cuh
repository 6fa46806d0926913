/* One row of LLM.int8()'s input by a block: its codes, its absmax, and which of its columns have an
 * outlier. Codes do not wait for the other rows: an outlier's own is 0, and what else is in its
 * column is taken out later by who multiplies. Rows set bits in the mask of their sequence, and
 * wait for nothing; who needs the columns lists them from it. */
#ifndef BG_BACKEND_CUDA_QUANTIZE_CUH
#define BG_BACKEND_CUDA_QUANTIZE_CUH

#include "backend/cuda/device.cuh"

enum { QUANTIZE_THREADS = 256, MASK_BITS = 32 };

/* ---- sequences ------------------------------------------------------------------------------- */

static __device__ __forceinline__ int sequence_of(const cuda_quantized &q, size_t row)
{
    int low = 0, high = q.n_sequences - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if ((size_t)q.starts[middle] <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Rows [begin, end) of a sequence. */
struct row_range {
    size_t begin, end;
};

static __device__ __forceinline__ row_range rows_of(const cuda_quantized &q, int sequence,
                                                    size_t n_rows)
{
    if (!q.starts) return {0, n_rows};
    return {(size_t)q.starts[sequence], (size_t)q.starts[sequence + 1]};
}

/* ---- the list -------------------------------------------------------------------------------- */

/* How much the threads before this one have, and all together. `room`: an int for each warp. */
static __device__ __forceinline__ int before_this(int own, int *room, int *total)
{
    int sum = own, before = 0;
    for (int i = 1; i < WARP; i *= 2) {
        const int other = __shfl_up_sync(0xFFFFFFFF, sum, i);
        if (threadIdx.x % WARP >= (unsigned)i) sum += other;
    }
    __syncthreads();
    if (threadIdx.x % WARP == WARP - 1) room[threadIdx.x / WARP] = sum;
    __syncthreads();
    *total = 0;
    for (unsigned i = 0; i < QUANTIZE_THREADS / WARP; i++) {
        if (i < threadIdx.x / WARP) before += room[i];
        *total += room[i];
    }
    return before + sum - own;
}

static __device__ __forceinline__ unsigned words_of(size_t cols)
{
    return (unsigned)(cols + MASK_BITS - 1) / MASK_BITS;
}

/* By a whole block: writes the list of a sequence's outlier columns, and how many they are, which
 * it returns. Several blocks may do so at once: they write the same. */
static __device__ __forceinline__ int list_columns(const cuda_quantized &q, int sequence,
                                                   size_t cols)
{
    __shared__ int room[QUANTIZE_THREADS / WARP];
    const unsigned words = words_of(cols);
    const uint32_t *masks = q.mask + (size_t)sequence * words;
    int32_t *list = q.outliers + (size_t)sequence * cols;
    int n = 0;
    for (unsigned begin = 0; begin < words; begin += QUANTIZE_THREADS) {
        const unsigned word = begin + threadIdx.x;
        uint32_t mask = word < words ? masks[word] : 0;
        int more, at = n + before_this(__popc(mask), room, &more);
        for (; mask; mask &= mask - 1)
            list[at++] = (int32_t)(word * MASK_BITS) + __ffs((int)mask) - 1;
        n += more;
    }
    if (threadIdx.x == 0) q.n_outliers[sequence] = n;
    __syncthreads();
    return n;
}

/* ---- codes ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ float below(float x, float threshold)
{
    x = round_half(x);
    return fabsf(x) < threshold ? x : 0;
}

static __device__ __forceinline__ uint32_t code_of(float x, float threshold, float factor)
{
    /* Beside 1.5 * 2^23 there is room for whole numbers alone, the nearest even one. */
    return __float_as_uint(below(x, threshold) * factor + 12582912.0f) & 0xFF;
}

static __device__ __forceinline__ uint32_t codes_of(float4 v, float threshold, float factor)
{
    return code_of(v.x, threshold, factor) | code_of(v.y, threshold, factor) << 8 |
           code_of(v.z, threshold, factor) << 16 | code_of(v.w, threshold, factor) << 24;
}

static __device__ __forceinline__ float most_of(float4 v, float threshold)
{
    return fmaxf(fmaxf(fabsf(below(v.x, threshold)), fabsf(below(v.y, threshold))),
                 fmaxf(fabsf(below(v.z, threshold)), fabsf(below(v.w, threshold))));
}

/* Which of four are outliers, the first one's bit the lowest. */
static __device__ __forceinline__ uint32_t outliers_of(float4 v, float threshold)
{
    return (uint32_t)(fabsf(v.x) >= threshold) | (uint32_t)(fabsf(v.y) >= threshold) << 1 |
           (uint32_t)(fabsf(v.z) >= threshold) << 2 | (uint32_t)(fabsf(v.w) >= threshold) << 3;
}

/* The largest number of a warp's, none of which is negative. */
static __device__ __forceinline__ float most_of_warp(float x)
{
#if __CUDA_ARCH__ >= 800
    /* Their bits are in the same order. */
    return __uint_as_float(__reduce_max_sync(0xFFFFFFFF, __float_as_uint(x)));
#else
    return warp_max(x);
#endif
}

/* The same of a block's. Once between two of its barriers. */
static __device__ __forceinline__ float row_max(float x)
{
    __shared__ float room[WARP];
    const unsigned lane = threadIdx.x % WARP;
    x = most_of_warp(x);
    if (lane == 0) room[threadIdx.x / WARP] = x;
    __syncthreads();
    return most_of_warp(lane < blockDim.x / WARP ? room[lane] : 0);
}

/* The row's absmax and the factor of its codes, from each thread's most. */
static __device__ __forceinline__ float row_factor(const cuda_quantize_args &a, size_t row,
                                                   float most)
{
    most = row_max(most);
    if (threadIdx.x == 0) a.out.absmax[row] = most;
    return most > 0 ? 127 * half_reciprocal(a.reciprocals, most) : 0;
}

/* Columns of a row that have outliers: bits of a word of its sequence's mask. Not inlined: it is
 * seldom wanted, and code that is jumped over is fetched for nothing. */
static __device__ __noinline__ void mark(const cuda_quantize_args &a, size_t row, size_t word,
                                         uint32_t bits)
{
    const int sequence = a.out.starts ? sequence_of(a.out, row) : 0;
    atomicOr(a.out.mask + (size_t)sequence * words_of(a.cols) + word, bits);
}

/* A row that lies in registers: of thread t, fours t, t + QUANTIZE_THREADS, ..., zeros behind its
 * end; where a thread has one, blocks may be of any size. Its length is a multiple of 4. */
template <int FOURS>
static __device__ __forceinline__ void quantize_kept(const cuda_quantize_args &a, size_t row,
                                                     const float4 x[FOURS])
{
    const size_t fours = a.cols / 4;
    float most = 0;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const unsigned q = threadIdx.x + i * QUANTIZE_THREADS;
        const uint32_t bits = outliers_of(x[i], a.threshold);
        most = fmaxf(most, most_of(x[i], a.threshold));
        if (bits) mark(a, row, q / 8, bits << q % 8 * 4);
    }
    const float factor = row_factor(a, row, most);
    uint32_t *codes = (uint32_t *)(a.out.codes + row * a.cols);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const size_t q = threadIdx.x + i * QUANTIZE_THREADS;
        if (q >= fours) continue;
        codes[q] = codes_of(x[i], a.threshold, factor);
    }
}

#endif
