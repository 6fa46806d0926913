/* Kernels that go over rows: embeddings, norms, copies. */
#include "backend/cuda/device.cuh"

static __device__ __forceinline__ float add_lookup(const cuda_embed_args &a, size_t k, float sum,
                                                   float value)
{
    return k == 0 && a.scales[k] == 1 ? value : sum + a.scales[k] * value;
}

static __global__ void embed_rows(cuda_embed_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.x;
    for (size_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
        float sum = 0;
        for (size_t k = 0; k < a.n_lookups; k++)
            sum =
                add_lookup(a, k, sum, decode_value(a.tables[k], looked_up(a, k, row) * a.cols + c));
        a.out[row * a.cols + c] = round_if(a.half, sum);
    }
}

/* Tables of binary16, four columns by a thread, all tables' rows on their way at once. */
static __global__ void embed_halves(const __grid_constant__ cuda_embed_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.x, fours = a.cols / 4;
    for (size_t q = threadIdx.x; q < fours; q += blockDim.x) {
        uint2 found[CUDA_MAX_LOOKUPS];
#pragma unroll
        for (size_t k = 0; k < CUDA_MAX_LOOKUPS; k++)
            if (k < a.n_lookups)
                found[k] = ((const uint2 *)a.tables[k].codes)[looked_up(a, k, row) * fours + q];
        float sum[4] = {0, 0, 0, 0};
#pragma unroll
        for (size_t k = 0; k < CUDA_MAX_LOOKUPS; k++) {
            if (k >= a.n_lookups) break;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t pair = i < 2 ? found[k].x : found[k].y;
                const unsigned short bits = (unsigned short)(pair >> i % 2 * 16);
                sum[i] = add_lookup(a, k, sum[i], __half2float(__ushort_as_half(bits)));
            }
        }
        ((float4 *)a.out)[row * fours + q] =
            make_float4(round_if(a.half, sum[0]), round_if(a.half, sum[1]),
                        round_if(a.half, sum[2]), round_if(a.half, sum[3]));
    }
}

cudaError_t bg_cuda_embed(const cuda_embed_args *a, const cuda_launch *l)
{
    bool halves = a->cols % 4 == 0;
    for (size_t k = 0; k < a->n_lookups; k++) halves &= a->tables[k].format == BG_FORMAT_F16;
    return launch(halves ? embed_halves : embed_rows, dim3((unsigned)a->n_rows), 256, 0, *a, l);
}

static __global__ void __launch_bounds__(NORM_THREADS) norm_rows(cuda_norm_args a)
{
    __shared__ double room[NORM_THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const float *in = a.in + blockIdx.x * a.cols;
    float *out = a.out + blockIdx.x * a.cols;
    norm_state s = block_norm(a.norm, a.half, in, a.cols, room);
    for (size_t i = threadIdx.x; i < a.cols; i += blockDim.x)
        out[i] = norm_value(a.norm, s, a.half, in[i], i);
}

cudaError_t bg_cuda_norm_rows(const cuda_norm_args *a, const cuda_launch *l)
{
    return launch(norm_rows, dim3((unsigned)a->n_rows), NORM_THREADS, 0, *a, l);
}

static __global__ void copy_rows(cuda_copy_args a)
{
    wait_for_earlier();
    let_next_start();
    const size_t i = blockIdx.x;
    const float *from = a.in + (a.in_rows ? (size_t)a.in_rows[i] : i) * a.cols;
    float *to = a.out + (a.out_rows ? (size_t)a.out_rows[i] : i) * a.cols;
    for (size_t c = threadIdx.x; c < a.cols; c += blockDim.x)
        to[c] = a.scale == 1 ? from[c] : round_if(a.half, a.scale * from[c]);
}

cudaError_t bg_cuda_copy_rows(const cuda_copy_args *a, const cuda_launch *l)
{
    return launch(copy_rows, dim3((unsigned)a->n_rows), 256, 0, *a, l);
}

struct round_args {
    float *values;
    size_t n;
};

static __global__ void round_values(round_args a)
{
    wait_for_earlier();
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < a.n;
         i += (size_t)gridDim.x * blockDim.x)
        a.values[i] = round_half(a.values[i]);
}

cudaError_t bg_cuda_round(float *values, size_t n, const cuda_launch *l)
{
    round_args a = {values, n};
    unsigned blocks = blocks_for(n, 256);
    return launch(round_values, dim3(blocks < 4096 ? blocks : 4096), 256, 0, a, l);
}
