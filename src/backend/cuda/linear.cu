/* Linear layers of few rows: which kernel, and the one that takes any shape. */
#include "backend/cuda/linear.cuh"

static const struct {
    const char *name;
    linear_launch launch;
    size_t whole; /* row lengths that the kernel takes are multiples of it */
} formats[BG_FORMAT_COUNT] = {
    {"matvec_fp32_cuda", linear_f32, 4},   {"matvec_fp16_cuda", linear_f16, 8},
    {"matvec_bf16_cuda", linear_bf16, 8},  {"matvec_int8_cuda", linear_int8, 16},
    {"matvec_4bit_cuda", linear_4bit, 64}, {"matvec_4bit_cuda", linear_4bit_dq, 64},
    {"matvec_4bit_cuda", linear_4bit, 64}, {"matvec_4bit_cuda", linear_4bit_dq, 64},
    {"matvec_int8_cuda", linear_int8, 16},
};

const char *bg_cuda_linear_name(bg_format_id format)
{
    return formats[format].name;
}

/* Bytes of shared memory for a value of the longest row: what int8 takes for one. */
enum { SHARED_PER_VALUE = 9 };

bool bg_cuda_linear_merges(bg_format_id format, size_t cols, const cuda_launch *l)
{
    return cols % formats[format].whole == 0 &&
           (cols + 1024) * SHARED_PER_VALUE + 4096 <= (size_t)l->max_shared;
}

/* A warp for each output, one value at a time. */
static __global__ void linear_any(cuda_linear_args a)
{
    wait_for_earlier();
    let_next_start();
    const unsigned lane = threadIdx.x % WARP;
    const size_t row = blockIdx.x * (size_t)(blockDim.x / WARP) + threadIdx.x / WARP,
                 m = row_of_grid();
    const cuda_matrix &w = a.w[0];
    const cuda_epilogue &e = a.epilogue[0];
    const bool int8 = w.threshold > 0;
    if (row >= w.rows || m >= a.n_rows) return;
    const float *x = a.in + m * a.cols;
    float y;
    if (int8) {
        const int8_t *codes = (const int8_t *)w.codes + row * a.cols;
        const int8_t *other = a.quantized.codes + m * a.cols;
        int sum = 0;
        for (size_t k = lane; k < a.cols; k += WARP) sum += codes[k] * other[k];
        y = (float)warp_sum(sum) * a.quantized.absmax[m] * w.scales[row];
    } else {
        float sum = 0;
        for (size_t k = lane; k < a.cols; k += WARP)
            sum = __fmaf_rn(decode_value(w, row * a.cols + k), x[k], sum);
        y = warp_sum(sum);
    }
    y = add_bias(e, int8, row, y);
    if (int8 && *a.quantized.n_outliers > 0) {
        y += warp_sum(sum_outliers(w, x, a.quantized.outliers, *a.quantized.n_outliers, row,
                                   (int)lane, WARP));
        y = round_if(e.half, y);
    }
    if (lane == 0) finish(e, m, row, y);
}

bool bg_cuda_linear_needs_program(const cuda_linear_args *a, const cuda_launch *l)
{
    const bool quantizes = a->w[0].threshold > 0 && !a->quantized.codes;
    if (a->n_rows > 1 && a->norm.weight) return true;
    return quantizes && (a->n_rows > 1 || !bg_cuda_linear_merges(a->w[0].format, a->cols, l));
}

cudaError_t bg_cuda_linear(const cuda_linear_args *a, const cuda_launch *l)
{
    const bg_format_id format = a->w[0].format;
    if (bg_cuda_linear_needs_program(a, l)) return cudaErrorInvalidValue;
    if (bg_cuda_linear_merges(format, a->cols, l)) return formats[format].launch(*a, l);
    return launch(linear_any, grid_of_rows(blocks_for(a->w[0].rows, 8), a->n_rows), 8 * WARP, 0, *a,
                  l);
}
