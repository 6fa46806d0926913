/* LLM.int8()'s input, several rows: a block for each. */
#include "backend/cuda/quantize.cuh"

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
    bool own = false;
    for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS) {
        most = fmaxf(most, fabsf(below(x[c], a.threshold)));
        own |= fabsf(x[c]) >= a.threshold;
    }
    const float factor = row_factor(a, row, most);
    for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
        a.out.codes[row * a.cols + c] = (int8_t)code_of(x[c], a.threshold, factor);
    const bool marked = __syncthreads_or(own);
    if (threadIdx.x == 0) a.out.marked[row] = marked;
    if (marked) {
        uint32_t *mask = clear_mask(a, row);
        for (size_t c = threadIdx.x; c < a.cols; c += QUANTIZE_THREADS)
            if (fabsf(x[c]) >= a.threshold) atomicOr(mask + c / MASK_BITS, 1u << c % MASK_BITS);
    }
    finish_row(a, row, marked);
}

cudaError_t bg_cuda_quantize(const cuda_quantize_args *a, const cuda_launch *l)
{
    const dim3 rows((unsigned)a->n_rows);
    const size_t fours = (a->cols / 4 + QUANTIZE_THREADS - 1) / QUANTIZE_THREADS;
    void (*kernel)(cuda_quantize_args) = quantize_any;
    if (a->cols % 4 == 0 && fours <= 16)
        kernel = fours <= 1   ? quantize_fours<1>
                 : fours <= 2 ? quantize_fours<2>
                 : fours <= 4 ? quantize_fours<4>
                 : fours <= 8 ? quantize_fours<8>
                              : quantize_fours<16>;
    return launch(kernel, rows, QUANTIZE_THREADS, 0, *a, l);
}
