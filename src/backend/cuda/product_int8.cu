/* The end of an int8 product of many rows: what LLM.int8() does to the sums of codes, and the
 * outlier columns, multiplied in 16 bits on tensor cores where there are some. Their number is
 * known on the device alone. */
#include "backend/cuda/device.cuh"
#include "backend/cuda/mma.cuh"

enum {
    TILE = 64,     /* rows and columns of a block */
    OUTLIERS = 32, /* at a time */
    PITCH = OUTLIERS + 8,
    THREADS = 128,
    COLUMNS = TILE / 8, /* eights of columns of a warp, which has 16 rows */
};

/* Outlier columns [k, k + OUTLIERS) of the block's rows of the input, and of its rows of weights,
 * decoded to binary16 as bitsandbytes does; behind the last one there are zeros. */
static __device__ void stage_outliers(const cuda_finish_args &a, int k, int n, size_t row,
                                      size_t col, __half *x, __half *w, int *columns)
{
    __syncthreads();
    if (threadIdx.x < OUTLIERS)
        columns[threadIdx.x] =
            k + (int)threadIdx.x < n ? a.quantized.outliers[k + (int)threadIdx.x] : -1;
    __syncthreads();
    const int c = columns[threadIdx.x % OUTLIERS];
#pragma unroll 8
    for (int i = (int)threadIdx.x / OUTLIERS; i < TILE; i += THREADS / OUTLIERS) {
        const size_t m = row + (size_t)i, out = col + (size_t)i;
        float value = 0, weight = 0;
        if (c >= 0 && m < a.n_rows) value = a.in[m * a.in_stride + (size_t)c];
        if (c >= 0 && out < a.first + a.n)
            weight = (float)((const int8_t *)a.w.codes)[out * a.w.cols + (size_t)c] *
                     a.w.scales[out] * 7.874015718698502e-3f;
        x[i * PITCH + (int)threadIdx.x % OUTLIERS] = __float2half_rn(value);
        w[i * PITCH + (int)threadIdx.x % OUTLIERS] = __float2half_rn(weight);
    }
    __syncthreads();
}

static __device__ __forceinline__ void add_outliers(const cuda_finish_args &a, int n, size_t row,
                                                    size_t col, float sum[COLUMNS][4])
{
    __shared__ __align__(16) __half x[TILE * PITCH], w[TILE * PITCH];
    __shared__ int columns[OUTLIERS];
    const int warp = (int)threadIdx.x / WARP;
    for (int k = 0; k < n; k += OUTLIERS) {
        stage_outliers(a, k, n, row, col, x, w, columns);
#pragma unroll
        for (int step = 0; step < OUTLIERS; step += 16) {
            uint32_t rows[4];
            load_a(rows, x + warp * 16 * PITCH + step, PITCH);
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 2) {
                uint32_t cols[4];
                load_b_pair(cols, w + j * 8 * PITCH + step, PITCH);
                mma_half(sum[j], rows, cols);
                mma_half(sum[j + 1], rows, cols + 2);
            }
        }
    }
}

static __device__ __forceinline__ void finish_one(const cuda_finish_args &a, size_t m, size_t col,
                                                  int32_t product, float absmax, bool outliers,
                                                  float sum)
{
    float y = (float)product * absmax * a.w.scales[col];
    y = add_bias(a.epilogue, true, col, y);
    if (outliers) y = round_if(a.epilogue.half, y + sum);
    finish(a.epilogue, m, col, y);
}

static __global__ void __launch_bounds__(THREADS) finish_int8(cuda_finish_args a)
{
    wait_for_earlier();
    let_next_start();
    const int n = *a.quantized.n_outliers;
    const size_t row = blockIdx.y * (size_t)TILE, col = a.first + blockIdx.x * (size_t)TILE;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sum[COLUMNS][4] = {};
    if (n > 0) add_outliers(a, n, row, col, sum);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const size_t m = row + warp * 16 + half * 8 + lane / 4;
        if (m >= a.n_rows) break;
        const float absmax = a.quantized.absmax[m];
        const int32_t *product = (const int32_t *)a.product + m * a.n;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const size_t c = col + j * 8 + lane % 4 * 2;
            if (c >= a.first + a.n) break;
            const int2 p = *(const int2 *)(product + (c - a.first));
            finish_one(a, m, c, p.x, absmax, n > 0, sum[j][half * 2]);
            finish_one(a, m, c + 1, p.y, absmax, n > 0, sum[j][half * 2 + 1]);
        }
    }
}

cudaError_t bg_cuda_finish_int8(const cuda_finish_args *a, const cuda_launch *l)
{
    const dim3 grid(blocks_for(a->n, TILE), blocks_for(a->n_rows, TILE));
    return launch(finish_int8, grid, THREADS, 0, *a, l);
}
