/* Around the library's matrix product of many rows: its operands, and what becomes of the result.
 */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/operand.cuh"

enum {
    THREADS = 256,
    MOST_BLOCKS = 1 << 16,
    ROWS = 4,  /* of a thread of finish_fours, their loads on their way at once */
    WORDS = 4, /* of a thread of decode_4bit */
};

static unsigned some_blocks(size_t n)
{
    const unsigned blocks = blocks_for(n, THREADS);
    return blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS;
}

static __global__ void convert(cuda_convert_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t step = (size_t)gridDim.x * THREADS, begin = blockIdx.x * (size_t)THREADS;
    for (size_t i = begin + threadIdx.x; i < a.count / 4; i += step)
        put_four(a.type, a.out, i * 4, ((const float4 *)a.in)[i]);
    for (size_t i = a.count / 4 * 4 + begin + threadIdx.x; i < a.count; i += step)
        put(a.type, a.out, i, a.in[i]);
}

cudaError_t bg_cuda_convert(const cuda_convert_args *a, const cuda_launch *l)
{
    return launch(convert, dim3(some_blocks((a->count + 3) / 4)), THREADS, 0, *a, l);
}

static __global__ void decode(cuda_decode_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t first = a.first * a.w.cols, n = a.n_rows * a.w.cols;
    for (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < n;
         i += (size_t)gridDim.x * THREADS)
        put(a.type, a.out, i, decode_value(a.w, first + i));
}

/* Eight values from one word, which is the weights' word number i. */
static __device__ __forceinline__ void decode_word(const cuda_decode_args &a, const float *table,
                                                   uint32_t word, float scale, size_t i)
{
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const uint32_t code = word >> (k / 2 * 8 + (k % 2 ? 0 : 4)) & 15;
        v[k] = table[code * WARP] * scale;
    }
    if (a.type == CUDA_F32) {
        float4 *to = (float4 *)a.out + 2 * i;
        to[0] = make_float4(v[0], v[1], v[2], v[3]);
        to[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        uint32_t packed[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            __half2 h = __floats2half2_rn(v[2 * k], v[2 * k + 1]);
            packed[k] = *(uint32_t *)&h;
        }
        ((uint4 *)a.out)[i] = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
}

/* The panel begins with a whole block of 64. Weights are older than all that is queued, of which
 * the kernel before may still read what the panel was. */
static __global__ void __launch_bounds__(THREADS)
    decode_4bit(const __grid_constant__ cuda_decode_args a)
{
    __shared__ float table[16 * WARP];
    for (unsigned i = threadIdx.x; i < 16 * WARP; i += THREADS) table[i] = a.w.code[i / WARP];
    const size_t first = a.first * a.w.cols / 8, n = a.n_rows * a.w.cols / 8;
    const size_t begin = blockIdx.x * (size_t)(THREADS * WORDS) + threadIdx.x;
    uint32_t words[WORDS];
    float scales[WORDS];
#pragma unroll
    for (int k = 0; k < WORDS; k++) {
        const size_t i = begin + k * THREADS;
        if (i >= n) continue;
        words[k] = ((const uint32_t *)a.w.codes)[first + i];
        scales[k] = block_scale(a.w, (first + i) / (BG_BLOCK / 8));
    }
    __syncthreads();
    wait_for_earlier();
    let_next_start();
#pragma unroll
    for (int k = 0; k < WORDS; k++) {
        const size_t i = begin + k * THREADS;
        if (i < n) decode_word(a, table + threadIdx.x % WARP, words[k], scales[k], i);
    }
}

cudaError_t bg_cuda_decode(const cuda_decode_args *a, const cuda_launch *l)
{
    const size_t n = a->n_rows * a->w.cols;
    if (bg_formats[a->w.format].blockwise && n % BG_BLOCK == 0 &&
        a->first * a->w.cols % BG_BLOCK == 0 && a->type != CUDA_BF16)
        return launch(decode_4bit, dim3(blocks_for(n / 8, THREADS * WORDS)), THREADS, 0, *a, l);
    return launch(decode, dim3(some_blocks(n)), THREADS, 0, *a, l);
}

/* Four results of a product that was written as binary16. */
static __device__ __forceinline__ float4 halves_at(const void *product, size_t i)
{
    const uint2 pairs = *(const uint2 *)((const __half *)product + i);
    const float2 x = __half22float2(*(const __half2 *)&pairs.x);
    const float2 y = __half22float2(*(const __half2 *)&pairs.y);
    const float scale = 1 / CUDA_HALF_SCALE;
    return make_float4(x.x * scale, x.y * scale, y.x * scale, y.y * scale);
}

/* GATED: another product of binary16 multiplies it. */
template <bool GATED>
static __global__ void finish_fours(const __grid_constant__ cuda_finish_args a)
{
    wait_for_earlier();
    let_next_start();
    const cuda_epilogue &e = a.epilogue;
    const size_t first = row_of_grid() * ROWS, i = (blockIdx.x * (size_t)THREADS + threadIdx.x) * 4;
    if (i >= a.n) return;
    const size_t col = a.first + i;
    four_inputs in[ROWS];
    float4 y[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const size_t m = first + r;
        if (m >= a.n_rows) break;
        in[r] = load_four<!GATED>(e, m, col);
        if (GATED) {
            in[r].multiplier = halves_at(a.other.product, m * a.n + i);
            y[r] = halves_at(a.product, m * a.n + i);
        } else {
            y[r] = *(const float4 *)((const float *)a.product + m * a.n + i);
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const size_t m = first + r, at = m * e.out_stride + col;
        if (m >= a.n_rows) break;
        if (GATED && a.other.bias)
            in[r].multiplier = sum_of(in[r].multiplier, *(const float4 *)(a.other.bias + col));
        y[r] = finish_four(e, in[r], y[r]);
        if (!a.operand.alone) *(float4 *)(e.out + at) = y[r];
        if (a.operand.out) put_four(a.operand.type, a.operand.out, at, y[r]);
    }
}

static __global__ void finish_any(cuda_finish_args a)
{
    wait_for_earlier();
    let_next_start();
    const cuda_epilogue &e = a.epilogue;
    const size_t m = row_of_grid(), i = blockIdx.x * (size_t)THREADS + threadIdx.x;
    if (i >= a.n || m >= a.n_rows) return;
    const size_t col = a.first + i, at = m * e.out_stride + col;
    finish(e, m, col, add_bias(e, false, col, ((const float *)a.product)[m * a.n + i]));
    if (a.operand.out) put(a.operand.type, a.operand.out, at, e.out[at]);
}

cudaError_t bg_cuda_finish(const cuda_finish_args *a, const cuda_launch *l)
{
    const cuda_epilogue *e = &a->epilogue;
    if (a->w.threshold > 0 && !a->product) return bg_cuda_wide_int8(a, l);
    if (a->w.threshold > 0) return bg_cuda_finish_int8(a, l);
    const dim3 by_four = grid_of_rows(blocks_for(a->n, THREADS * 4), blocks_for(a->n_rows, ROWS));
    const bool by_fours = fours_in_line(e, a->first, a->n) && in_line(a->other.bias, 0);
    if (a->other.product && !by_fours) return cudaErrorInvalidConfiguration;
    if (by_fours)
        return launch(a->other.product ? finish_fours<true> : finish_fours<false>, by_four, THREADS,
                      0, *a, l);
    const dim3 one_by_one = grid_of_rows(blocks_for(a->n, THREADS), a->n_rows);
    return launch(finish_any, one_by_one, THREADS, 0, *a, l);
}
