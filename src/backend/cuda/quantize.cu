/* LLM.int8()'s input, several rows: which columns hold an outlier, and the codes of the others. */
#include "backend/cuda/device.cuh"

enum { MOST_LANES = 32, QUANTIZE_THREADS = 256 };

/* A block for each 32 columns; its warps share the rows. */
static __global__ void mark_outliers(cuda_quantize_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t c = blockIdx.x * (size_t)WARP + threadIdx.x % WARP, lanes = blockDim.x / WARP;
    __shared__ uint8_t marks[WARP];
    if (threadIdx.x < WARP) marks[threadIdx.x] = 0;
    __syncthreads();
    bool outlier = false;
    if (c < a.cols) {
#pragma unroll 8
        for (size_t m = threadIdx.x / WARP; m < a.n_rows; m += lanes)
            outlier |= fabsf(a.in[m * a.cols + c]) >= a.threshold;
        if (outlier) marks[threadIdx.x % WARP] = 1;
    }
    __syncthreads();
    if (threadIdx.x < WARP && c < a.cols) a.out.is_outlier[c] = marks[threadIdx.x];
}

/* Marks of columns c to c + 3, a byte each. */
static __device__ __forceinline__ uint32_t four_marks(const cuda_quantize_args &a, size_t c)
{
    const uint8_t *marks = a.out.is_outlier + c;
    uint32_t four = 0;
    if (!isfinite(a.threshold)) return 0;
    for (int i = 0; i < 4; i++)
        if (c + (size_t)i < a.cols) four |= (uint32_t)marks[i] << i * 8;
    return four;
}

/* The marked columns in ascending order, by one block: fours of columns, a round of loads at a
 * time. */
static __device__ void list_outliers(const cuda_quantize_args &a)
{
    constexpr int FOURS = 8;
    __shared__ int ends[QUANTIZE_THREADS / WARP];
    int n = 0;
    for (size_t begin = 0; begin < a.cols; begin += FOURS * QUANTIZE_THREADS * 4) {
        uint32_t marks[FOURS];
#pragma unroll
        for (int k = 0; k < FOURS; k++)
            marks[k] = four_marks(a, begin + (k * QUANTIZE_THREADS + threadIdx.x) * (size_t)4);
        for (int k = 0; k < FOURS; k++) {
            const int own = __popc(marks[k]);
            if (!__syncthreads_or(own)) continue;
            int before = own;
            for (int i = 1; i < WARP; i *= 2) {
                const int other = __shfl_up_sync(0xFFFFFFFF, before, i);
                if (threadIdx.x % WARP >= i) before += other;
            }
            if (threadIdx.x % WARP == WARP - 1) ends[threadIdx.x / WARP] = before;
            __syncthreads();
            int at = n + before - own;
            for (unsigned i = 0; i < QUANTIZE_THREADS / WARP; i++) {
                if (i < threadIdx.x / WARP) at += ends[i];
                n += ends[i];
            }
            const size_t c = begin + (k * QUANTIZE_THREADS + threadIdx.x) * (size_t)4;
            for (int i = 0; i < 4; i++)
                if (marks[k] >> i * 8 & 1) a.out.outliers[at++] = (int32_t)(c + (size_t)i);
        }
    }
    if (threadIdx.x == 0) *a.out.n_outliers = n;
}

static __device__ __forceinline__ float below(float x, float threshold)
{
    x = round_half(x);
    return fabsf(x) < threshold ? x : 0;
}

static __device__ __forceinline__ uint32_t code_of(float x, uint32_t outlier, float threshold,
                                                   float factor)
{
    return outlier ? 0 : (uint32_t)(int)rintf(below(x, threshold) * factor) & 0xFF;
}

/* A block for each row, and one that lists the outliers. */
static __global__ void __launch_bounds__(QUANTIZE_THREADS) quantize_rows(cuda_quantize_args a)
{
    __shared__ float room[QUANTIZE_THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    if (blockIdx.x == a.n_rows) {
        if (isfinite(a.threshold))
            list_outliers(a);
        else if (threadIdx.x == 0)
            *a.out.n_outliers = 0;
        return;
    }
    const float *x = a.in + blockIdx.x * a.cols;
    int8_t *codes = a.out.codes + blockIdx.x * a.cols;
    const bool fours = a.cols % 4 == 0;
    float most = 0;
    if (fours)
#pragma unroll 4
        for (size_t q = threadIdx.x; q < a.cols / 4; q += QUANTIZE_THREADS) {
            const float4 v = ((const float4 *)x)[q];
            most = fmaxf(
                fmaxf(most, fmaxf(fabsf(below(v.x, a.threshold)), fabsf(below(v.y, a.threshold)))),
                fmaxf(fabsf(below(v.z, a.threshold)), fabsf(below(v.w, a.threshold))));
        }
    else
        for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
            most = fmaxf(most, fabsf(below(x[c], a.threshold)));
    most = block_max(most, room);
    const float factor = most > 0 ? 127 * reciprocal(a.reciprocals, most) : 0;
    if (threadIdx.x == 0) a.out.absmax[blockIdx.x] = most;
    if (fours)
#pragma unroll 4
        for (size_t q = threadIdx.x; q < a.cols / 4; q += QUANTIZE_THREADS) {
            const float4 v = ((const float4 *)x)[q];
            const uint32_t marks = four_marks(a, q * 4);
            ((uint32_t *)codes)[q] = code_of(v.x, marks & 0xFF, a.threshold, factor) |
                                     code_of(v.y, marks & 0xFF00, a.threshold, factor) << 8 |
                                     code_of(v.z, marks & 0xFF0000, a.threshold, factor) << 16 |
                                     code_of(v.w, marks & 0xFF000000, a.threshold, factor) << 24;
        }
    else
        for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
            codes[c] = (int8_t)code_of(x[c], isfinite(a.threshold) && a.out.is_outlier[c],
                                       a.threshold, factor);
}

cudaError_t bg_cuda_quantize(const cuda_quantize_args *a, const cuda_launch *l)
{
    if (!isfinite(a->threshold))
        return launch(quantize_rows, dim3((unsigned)a->n_rows + 1), QUANTIZE_THREADS, 0, *a, l);
    const unsigned lanes = a->n_rows < MOST_LANES ? (unsigned)a->n_rows : MOST_LANES;
    cudaError_t e = launch(mark_outliers, dim3(blocks_for(a->cols, WARP)), lanes * WARP, 0, *a, l);
    if (e != cudaSuccess) return e;
    return launch(quantize_rows, dim3((unsigned)a->n_rows + 1), QUANTIZE_THREADS, 0, *a, l);
}
