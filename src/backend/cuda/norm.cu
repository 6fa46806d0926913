/* Norms of many rows: a block for each, which reads its row once and keeps it in registers. */
#include "backend/cuda/operand.cuh"
#include "backend/cuda/quantize.cuh"

static_assert((int)NORM_THREADS == (int)QUANTIZE_THREADS, "a row in the same registers");

enum { KEPT = 8 }; /* fours of values that a thread keeps */

/* Sums are of type T: in a 16-bit model of double precision, so that they round as on the CPU. */
template <typename T>
static __device__ __forceinline__ norm_state kept_norm(const cuda_norm_args &a,
                                                       const float4 x[KEPT], double *room)
{
    const cuda_norm &norm = a.norm;
    const size_t fours = a.cols / 4;
    norm_state s = {0, 0};
    T *sums = (T *)room, total = 0;
    if (norm.kind == BG_NORM_LAYER) {
#pragma unroll
        for (int i = 0; i < KEPT; i++) total += ((T)x[i].x + (T)x[i].y) + ((T)x[i].z + (T)x[i].w);
        s.mean = (float)(first_block_sum(total, sums) / (T)a.cols);
        sums += NORM_THREADS / WARP;
    }
    total = 0;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        if (threadIdx.x + i * NORM_THREADS >= fours) continue;
        const T p = (T)x[i].x - (T)s.mean, q = (T)x[i].y - (T)s.mean;
        const T r = (T)x[i].z - (T)s.mean, t = (T)x[i].w - (T)s.mean;
        total += (p * p + q * q) + (r * r + t * t);
    }
    total = first_block_sum(total, sums);
    if (sizeof(T) == sizeof(double))
        s.scale = norm_scale((double)total, a.cols, norm.eps);
    else
        s.scale = 1.0f / sqrtf((float)total / (float)a.cols + norm.eps);
    if (norm.kind == BG_NORM_LAYER && a.half) s.scale = nextafterf(s.scale, 0);
    return s;
}

template <typename T, bool QUANTIZED>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_kept(const __grid_constant__ cuda_norm_args a)
{
    __shared__ double room[2 * NORM_THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const size_t fours = a.cols / 4, first = blockIdx.x * fours;
    float4 x[KEPT];
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const size_t q = threadIdx.x + i * NORM_THREADS;
        x[i] = q < fours ? ((const float4 *)a.in)[first + q] : make_float4(0, 0, 0, 0);
    }
    const norm_state s = kept_norm<T>(a, x, room);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const size_t q = threadIdx.x + i * NORM_THREADS;
        if (q >= fours) continue; /* what it has of x are zeros */
        const float4 w = ((const float4 *)a.norm.weight)[q];
        const bool biased = a.norm.bias;
        float4 b = make_float4(0, 0, 0, 0), y;
        if (biased) b = ((const float4 *)a.norm.bias)[q];
        y.x = norm_apply(a.norm.kind, biased, s, a.half, x[i].x, w.x, b.x);
        y.y = norm_apply(a.norm.kind, biased, s, a.half, x[i].y, w.y, b.y);
        y.z = norm_apply(a.norm.kind, biased, s, a.half, x[i].z, w.z, b.z);
        y.w = norm_apply(a.norm.kind, biased, s, a.half, x[i].w, w.w, b.w);
        ((float4 *)a.out)[first + q] = y;
        if (a.operand.out) put_four(a.operand.type, a.operand.out, (first + q) * 4, y);
        x[i] = y;
    }
    if (QUANTIZED) quantize_kept<KEPT>(a.quantize, blockIdx.x, x);
}

/* Rows of any length. */
static __global__ void __launch_bounds__(NORM_THREADS) norm_any(cuda_norm_args a)
{
    __shared__ double room[NORM_THREADS / WARP];
    wait_for_earlier();
    let_next_start();
    const size_t first = blockIdx.x * a.cols;
    const norm_state s = block_norm(a.norm, a.half, a.in + first, a.cols, room);
    for (size_t i = threadIdx.x; i < a.cols; i += blockDim.x) {
        const float y = norm_value(a.norm, s, a.half, a.in[first + i], i);
        a.out[first + i] = y;
        if (a.operand.out) put(a.operand.type, a.operand.out, first + i, y);
    }
}

bool bg_cuda_norm_quantizes(size_t cols)
{
    return cols % 4 == 0 && cols <= KEPT * NORM_THREADS * 4;
}

cudaError_t bg_cuda_norm_many(const cuda_norm_args *a, const cuda_launch *l)
{
    const dim3 grid((unsigned)a->n_rows);
    if (!bg_cuda_norm_quantizes(a->cols)) return launch(norm_any, grid, NORM_THREADS, 0, *a, l);
    void (*kernel)(cuda_norm_args);
    if (a->quantize.out.codes)
        kernel = a->half ? norm_kept<double, true> : norm_kept<float, true>;
    else
        kernel = a->half ? norm_kept<double, false> : norm_kept<float, false>;
    return launch(kernel, grid, NORM_THREADS, 0, *a, l);
}
