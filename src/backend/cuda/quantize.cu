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

/* The marked columns in ascending order, by one block: each thread has a piece of them. */
static __device__ void list_outliers(const cuda_quantize_args &a)
{
    __shared__ int ends[QUANTIZE_THREADS / WARP];
    const size_t begin = a.cols * threadIdx.x / QUANTIZE_THREADS;
    const size_t end = a.cols * (threadIdx.x + 1) / QUANTIZE_THREADS;
    int n = 0;
#pragma unroll 4
    for (size_t c = begin; c < end; c++) n += a.out.is_outlier[c];
    int before = n;
    for (int i = 1; i < WARP; i *= 2) {
        const int other = __shfl_up_sync(0xFFFFFFFF, before, i);
        if (threadIdx.x % WARP >= i) before += other;
    }
    if (threadIdx.x % WARP == WARP - 1) ends[threadIdx.x / WARP] = before;
    __syncthreads();
    before -= n;
    for (unsigned i = 0; i < threadIdx.x / WARP; i++) before += ends[i];
    if (threadIdx.x == QUANTIZE_THREADS - 1) *a.out.n_outliers = before + n;
    if (n == 0) return;
    for (size_t c = begin; c < end; c++)
        if (a.out.is_outlier[c]) a.out.outliers[before++] = (int32_t)c;
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
        list_outliers(a);
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
            const uint8_t *mark = a.out.is_outlier + q * 4;
            ((uint32_t *)codes)[q] = code_of(v.x, mark[0], a.threshold, factor) |
                                     code_of(v.y, mark[1], a.threshold, factor) << 8 |
                                     code_of(v.z, mark[2], a.threshold, factor) << 16 |
                                     code_of(v.w, mark[3], a.threshold, factor) << 24;
        }
    else
        for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
            codes[c] = (int8_t)code_of(x[c], a.out.is_outlier[c], a.threshold, factor);
}

cudaError_t bg_cuda_quantize(const cuda_quantize_args *a, const cuda_launch *l)
{
    const unsigned lanes = a->n_rows < MOST_LANES ? (unsigned)a->n_rows : MOST_LANES;
    cudaError_t e = launch(mark_outliers, dim3(blocks_for(a->cols, WARP)), lanes * WARP, 0, *a, l);
    if (e != cudaSuccess) return e;
    return launch(quantize_rows, dim3((unsigned)a->n_rows + 1), QUANTIZE_THREADS, 0, *a, l);
}
