/* One row of LLM.int8()'s input by a block: its codes, its absmax, and which of its columns have an
 * outlier. Codes do not wait for the other rows: an outlier's own is 0, and what else is in its
 * column is taken out later by who multiplies. The block that finishes a sequence last lists the
 * columns of all its rows. */
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

/* The masks of a sequence's rows together, a word for each thread from word `begin` on. What other
 * blocks have written is read past the first-level cache. */
static __device__ __forceinline__ uint32_t join_masks(const cuda_quantize_args &a, row_range rows,
                                                      size_t words, size_t begin, int *room)
{
    __shared__ int32_t marked[QUANTIZE_THREADS];
    const size_t word = begin + threadIdx.x;
    uint32_t mask = 0;
    for (size_t first = rows.begin; first < rows.end; first += QUANTIZE_THREADS) {
        const size_t r = first + threadIdx.x;
        const int own = r < rows.end && __ldcg(a.out.marked + r);
        int n;
        const int at = before_this(own, room, &n);
        if (own) marked[at] = (int32_t)r;
        __syncthreads();
        if (word < words)
#pragma unroll 8
            for (int i = 0; i < n; i++)
                mask |= __ldcg(a.out.masks + (size_t)marked[i] * words + word);
    }
    return mask;
}

static __device__ __noinline__ void list_outliers(const cuda_quantize_args &a, int sequence,
                                                  row_range rows, bool some)
{
    __shared__ int room[QUANTIZE_THREADS / WARP];
    const size_t words = (a.cols + MASK_BITS - 1) / MASK_BITS;
    int32_t *list = a.out.outliers + (size_t)sequence * a.cols;
    int n = 0;
    for (size_t begin = 0; some && begin < words; begin += QUANTIZE_THREADS) {
        uint32_t mask = join_masks(a, rows, words, begin, room);
        int more, at = n + before_this(__popc(mask), room, &more);
        for (; mask; mask &= mask - 1)
            list[at++] = (int32_t)((begin + threadIdx.x) * MASK_BITS) + __ffs((int)mask) - 1;
        n += more;
    }
    if (threadIdx.x == 0) a.out.n_outliers[sequence] = n;
    if (!a.clear || n == 0) return;
    __syncthreads();
    for (size_t i = threadIdx.x; i < (rows.end - rows.begin) * (size_t)n; i += QUANTIZE_THREADS)
        a.out.codes[(rows.begin + i / (size_t)n) * a.cols + (size_t)list[i % (size_t)n]] = 0;
}

/* A row is done, `marked` or not. Rows are counted in the low half of a number, those that are
 * marked in the high half; the last one makes it 0 again. */
static __device__ __forceinline__ void finish_row(const cuda_quantize_args &a, size_t row,
                                                  bool marked)
{
    __shared__ unsigned long long count;
    const int sequence = a.out.starts ? sequence_of(a.out, row) : 0;
    const row_range rows = rows_of(a.out, sequence, a.n_rows);
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned long long own = 1 + ((unsigned long long)marked << 32);
        count = own + atomicAdd(a.out.arrived + sequence, own);
    }
    __syncthreads();
    if ((uint32_t)count != rows.end - rows.begin) return;
    __threadfence();
    if (threadIdx.x == 0) a.out.arrived[sequence] = 0;
    list_outliers(a, sequence, rows, count >> 32 != 0);
}

/* ---- codes ----------------------------------------------------------------------------------- */

static __device__ __forceinline__ float below(float x, float threshold)
{
    x = round_half(x);
    return fabsf(x) < threshold ? x : 0;
}

static __device__ __forceinline__ uint32_t code_of(float x, float threshold, float factor)
{
    return (uint32_t)(int)rintf(below(x, threshold) * factor) & 0xFF;
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

/* The row's absmax and the factor of its codes, from each thread's most. */
static __device__ __forceinline__ float row_factor(const cuda_quantize_args &a, size_t row,
                                                   float most)
{
    __shared__ float room[QUANTIZE_THREADS / WARP];
    most = block_max(most, room);
    if (threadIdx.x == 0) a.out.absmax[row] = most;
    return most > 0 ? 127 * reciprocal(a.reciprocals, most) : 0;
}

static __device__ __forceinline__ uint32_t *clear_mask(const cuda_quantize_args &a, size_t row)
{
    const size_t words = (a.cols + MASK_BITS - 1) / MASK_BITS;
    uint32_t *mask = a.out.masks + row * words;
    for (size_t i = threadIdx.x; i < words; i += QUANTIZE_THREADS) mask[i] = 0;
    __syncthreads();
    return mask;
}

/* A row that lies in registers: of thread t, fours t, t + QUANTIZE_THREADS, ..., zeros behind its
 * end. Its length is a multiple of 4. */
template <int FOURS>
static __device__ __forceinline__ void quantize_kept(const cuda_quantize_args &a, size_t row,
                                                     const float4 x[FOURS])
{
    const size_t fours = a.cols / 4;
    float most = 0;
    bool own = false;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        most = fmaxf(most, most_of(x[i], a.threshold));
        own |= outliers_of(x[i], a.threshold) != 0;
    }
    const float factor = row_factor(a, row, most);
    uint32_t *codes = (uint32_t *)(a.out.codes + row * a.cols);
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const size_t q = threadIdx.x + i * QUANTIZE_THREADS;
        if (q >= fours) continue;
        codes[q] =
            code_of(x[i].x, a.threshold, factor) | code_of(x[i].y, a.threshold, factor) << 8 |
            code_of(x[i].z, a.threshold, factor) << 16 | code_of(x[i].w, a.threshold, factor) << 24;
    }
    const bool marked = __syncthreads_or(own);
    if (threadIdx.x == 0) a.out.marked[row] = marked;
    if (marked) {
        uint32_t *mask = clear_mask(a, row);
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const unsigned q = threadIdx.x + i * QUANTIZE_THREADS;
            const uint32_t bits = outliers_of(x[i], a.threshold);
            if (bits) atomicOr(mask + q / 8, bits << q % 8 * 4);
        }
    }
    finish_row(a, row, marked);
}

#endif
