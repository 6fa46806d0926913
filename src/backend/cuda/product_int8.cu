/* The end of an int8 product of many rows: what LLM.int8() does to the sums of codes, and the
 * outlier columns, multiplied in 16 bits on tensor cores where there are some. Their number is
 * known on the device alone. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/outliers.cuh"

enum {
    TILE = 64, /* rows and columns of a block */
    THREADS = 128,
    COLUMNS = TILE / 8, /* eights of columns of a warp, which has 16 rows */
    GATHER_THREADS = 256,
};

/* ---- gathering ------------------------------------------------------------------------------- */

struct gather_args {
    const float *in;
    size_t n_rows, cols;
    cuda_matrix w[CUDA_MAX_PARTS];
    int n_matrices;
    cuda_quantized q;
};

/* Rows of the input, then of the weights, in turn; up to a multiple of a chunk with zeros. Weights
 * are decoded as bitsandbytes does it. */
static __global__ void __launch_bounds__(GATHER_THREADS) gather_outliers(gather_args a)
{
    typedef outlier_tile<TILE, THREADS> T;
    wait_for_earlier();
    let_next_start();
    const int n = *a.q.n_outliers;
    if (n == 0) return;
    const size_t whole = ((size_t)n + T::CHUNK - 1) / T::CHUNK * T::CHUNK;
    const size_t columns = whole < a.cols ? whole : a.cols;
    size_t rows = a.n_rows;
    for (int i = 0; i < a.n_matrices; i++) rows += a.w[i].rows;
    for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const bool input = r < a.n_rows;
        size_t own = input ? r : r - a.n_rows;
        int part = 0;
        while (!input && own >= a.w[part].rows) own -= a.w[part++].rows;
        const cuda_matrix &w = a.w[part];
        const float scale = input ? 0 : w.scales[own];
        __half *to = input ? (__half *)a.q.outlier_in + r * a.cols
                           : (__half *)a.q.outlier_weights + (r - a.n_rows) * a.cols;
#pragma unroll 4
        for (size_t i = threadIdx.x; i < columns; i += GATHER_THREADS) {
            float value = 0;
            if (i < (size_t)n) {
                const size_t c = (size_t)a.q.outliers[i];
                value = input ? a.in[r * a.cols + c]
                              : (float)((const int8_t *)w.codes)[own * a.cols + c] * scale *
                                    7.874015718698502e-3f;
            }
            to[i] = __float2half_rn(value);
        }
    }
}

cudaError_t bg_cuda_gather_outliers(const float *in, size_t n_rows, const cuda_matrix *w,
                                    int n_matrices, const cuda_quantized *q, const cuda_launch *l)
{
    gather_args a = {in, n_rows, w[0].cols, {}, n_matrices, *q};
    if (!q->outlier_in) return cudaSuccess;
    for (int i = 0; i < n_matrices; i++) a.w[i] = w[i];
    return launch(gather_outliers, dim3(4 * (unsigned)l->multiprocessors), GATHER_THREADS, 0, a, l);
}

/* ---- the end --------------------------------------------------------------------------------- */

static __device__ __forceinline__ void add_outliers(const cuda_finish_args &a, int n, size_t row,
                                                    size_t col, float sum[COLUMNS][4])
{
    typedef outlier_tile<TILE, THREADS> T;
    __shared__ __align__(16) __half room[2 * T::SIZE];
    const int warp = (int)threadIdx.x / WARP;
    each_outlier_chunk<T>(a.quantized.outlier_in, row, a.n_rows, a.quantized.outlier_weights, col,
                          a.first + a.n, a.w.cols, n, room, [&] {
#pragma unroll
                              for (int step = 0; step < T::CHUNK; step += 16) {
                                  uint32_t rows[4];
                                  load_a(rows, room + warp * 16 * T::PITCH + step, T::PITCH);
#pragma unroll
                                  for (int j = 0; j < COLUMNS; j += 2) {
                                      uint32_t cols[4];
                                      load_b_pair(cols, room + T::SIZE + j * 8 * T::PITCH + step,
                                                  T::PITCH);
                                      mma_half(sum[j], rows, cols);
                                      mma_half(sum[j + 1], rows, cols + 2);
                                  }
                              }
                          });
}

/* So many pairs of results of a row at once: what they read is on its way together. */
enum { PAIRS = 4 };

/* Results c, c + 1, c + 8, c + 9, ... of row m. */
static __device__ __forceinline__ void finish_pairs(const cuda_finish_args &a, size_t m, size_t c,
                                                    float absmax, bool outliers,
                                                    const float sum[PAIRS][4], int half)
{
    const cuda_epilogue &e = a.epilogue;
    const int32_t *product = (const int32_t *)a.product + m * a.n;
    const size_t end = a.first + a.n;
    int2 p[PAIRS];
    float2 scale[PAIRS];
    epilogue_inputs in[PAIRS][2];
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const size_t col = c + (size_t)j * 8;
        if (col >= end) continue;
        p[j] = *(const int2 *)(product + (col - a.first));
        scale[j] = *(const float2 *)(a.w.scales + col);
        in[j][0] = load_inputs(e, m, col);
        in[j][1] = load_inputs(e, m, col + 1);
    }
#pragma unroll
    for (int j = 0; j < PAIRS; j++) {
        const size_t col = c + (size_t)j * 8;
        if (col >= end) continue;
        float y[2] = {(float)p[j].x * absmax * scale[j].x, (float)p[j].y * absmax * scale[j].y};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            y[i] = biased(e, true, in[j][i], y[i]);
            if (outliers) y[i] = round_if(e.half, y[i] + sum[j][half * 2 + i]);
            y[i] = finished(e, in[j][i], y[i]);
        }
        float *out = e.out + m * e.out_stride + col;
        if ((uintptr_t)out % sizeof(float2) == 0) {
            *(float2 *)out = make_float2(y[0], y[1]);
        } else {
            out[0] = y[0];
            out[1] = y[1];
        }
    }
}

static __global__ void __launch_bounds__(THREADS) finish_int8(cuda_finish_args a)
{
    wait_for_earlier();
    let_next_start();
    const int n = a.quantized.outlier_in ? *a.quantized.n_outliers : 0;
    const size_t row = blockIdx.y * (size_t)TILE, col = a.first + blockIdx.x * (size_t)TILE;
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float sum[COLUMNS][4] = {};
    if (n > 0) add_outliers(a, n, row, col, sum);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const size_t m = row + warp * 16 + half * 8 + lane / 4;
        if (m >= a.n_rows) break;
        const float absmax = a.quantized.absmax[m];
#pragma unroll
        for (int j = 0; j < COLUMNS; j += PAIRS)
            finish_pairs(a, m, col + (size_t)j * 8 + lane % 4 * 2, absmax, n > 0, sum + j, half);
    }
}

cudaError_t bg_cuda_finish_int8(const cuda_finish_args *a, const cuda_launch *l)
{
    /* All of the weights' rows with the first panel. */
    if (a->first == 0) {
        const cudaError_t e = bg_cuda_gather_outliers(a->in, a->n_rows, &a->w, 1, &a->quantized, l);
        if (e != cudaSuccess) return e;
    }
    const dim3 grid(blocks_for(a->n, TILE), blocks_for(a->n_rows, TILE));
    return launch(finish_int8, grid, THREADS, 0, *a, l);
}
