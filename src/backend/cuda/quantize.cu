/* LLM.int8()'s input, several rows: a block for each. */
#include "backend/cuda/quantize.cuh"

enum {
    MOST_THREADS = 1024,
    MOST_RESIDENT = 2048, /* of a multiprocessor */
};

/* Rows of as many fours of values as the block has threads, or fewer: what a thread does is little
 * then, and so are its instructions, which are fetched for a few microseconds. For so few rows that
 * all of them are there at once; of more, fewer threads for each keep more of them on their way. */
static __global__ void __launch_bounds__(MOST_THREADS)
    quantize_four(const __grid_constant__ cuda_quantize_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t fours = a.cols / 4;
    float4 x[1] = {{0, 0, 0, 0}};
    if (threadIdx.x < fours) x[0] = ((const float4 *)a.in)[blockIdx.x * fours + threadIdx.x];
    quantize_kept<1>(a, blockIdx.x, x);
}

/* Rows of up to FOURS * QUANTIZE_THREADS fours of values. */
template <int FOURS>
static __global__ void __launch_bounds__(QUANTIZE_THREADS)
    quantize_fours(const __grid_constant__ cuda_quantize_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t fours = a.cols / 4;
    float4 x[FOURS];
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const size_t q = threadIdx.x + i * QUANTIZE_THREADS;
        x[i] = q < fours ? ((const float4 *)a.in)[blockIdx.x * fours + q] : float4{0, 0, 0, 0};
    }
    quantize_kept<FOURS>(a, blockIdx.x, x);
}

/* Rows of any length. */
static __global__ void __launch_bounds__(QUANTIZE_THREADS)
    quantize_any(const __grid_constant__ cuda_quantize_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.x;
    const float *x = a.in + row * a.cols;
    float most = 0;
    for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS) {
        most = fmaxf(most, fabsf(below(x[c], a.threshold)));
        if (fabsf(x[c]) >= a.threshold) mark(a, row, c / MASK_BITS, 1u << c % MASK_BITS);
    }
    const float factor = row_factor(a, row, most);
    for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
        a.out.codes[row * a.cols + c] = (int8_t)code_of(x[c], a.threshold, factor);
}

cudaError_t bg_cuda_quantize(const cuda_quantize_args *a, const cuda_launch *l)
{
    const dim3 rows((unsigned)a->n_rows);
    const size_t fours = (a->cols / 4 + QUANTIZE_THREADS - 1) / QUANTIZE_THREADS;
    void (*kernel)(cuda_quantize_args) = quantize_any;
    unsigned threads = QUANTIZE_THREADS;
    const size_t one_each = blocks_for(a->cols / 4, WARP) * WARP;
    const bool at_once = a->n_rows * one_each <= MOST_RESIDENT * (size_t)l->multiprocessors;
    if (a->cols % 4 == 0 && a->cols / 4 <= MOST_THREADS && (at_once || fours == 1)) {
        kernel = quantize_four;
        threads = (unsigned)one_each;
    } else if (a->cols % 4 == 0 && fours <= 4) {
        kernel = fours <= 2 ? quantize_fours<2> : quantize_fours<4>;
    } else if (a->cols % 4 == 0 && fours <= 16) {
        kernel = fours <= 8 ? quantize_fours<8> : quantize_fours<16>;
    }
    return launch(kernel, rows, threads, 0, *a, l);
}

/* A block for each sequence. */
static __global__ void __launch_bounds__(QUANTIZE_THREADS)
    list_outliers(const __grid_constant__ cuda_list_args a)
{
    wait_for_earlier();
    let_next_start();
    const int sequence = (int)blockIdx.x;
    const size_t n = (size_t)list_columns(a.quantized, sequence, a.cols);
    if (!a.clear || n == 0) return;
    const row_range rows = rows_of(a.quantized, sequence, a.n_rows);
    const int32_t *list = a.quantized.outliers + (size_t)sequence * a.cols;
    for (size_t i = threadIdx.x; i < (rows.end - rows.begin) * n; i += QUANTIZE_THREADS)
        a.quantized.codes[(rows.begin + i / n) * a.cols + (size_t)list[i % n]] = 0;
}

cudaError_t bg_cuda_list(const cuda_list_args *a, const cuda_launch *l)
{
    return launch(list_outliers, dim3((unsigned)a->quantized.n_sequences), QUANTIZE_THREADS, 0, *a,
                  l);
}
