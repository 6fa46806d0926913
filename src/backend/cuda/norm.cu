/* Norms of many rows: a block has one at a time, which it reads once and keeps in registers, up to
 * 8,192 columns. Of more rows than there are blocks at once, of up to 2,048 columns each, a block
 * has several, and reads the next one while it sums up the one before: else all would wait for
 * memory at the same time, and then none. Longer ones have a block each. */
#include "backend/cuda/operand.cuh"
#include "backend/cuda/quantize.cuh"

static_assert((int)NORM_THREADS == (int)QUANTIZE_THREADS, "a row in the same registers");

enum {
    MOST_KEPT = 8,    /* fours of values that a thread keeps */
    AHEAD_KEPT = 2,   /* up to which there are registers for another row's */
    AHEAD_BLOCKS = 4, /* of a multiprocessor then */
};

/* N sums over the block, of threads' `x`. `room` holds N for each warp, and nobody reads what was
 * there before. */
template <int N, typename T> static __device__ __forceinline__ void kept_sums(T x[N], T *room)
{
    enum { WARPS = NORM_THREADS / WARP };
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
#pragma unroll
        for (int i = 0; i < N; i++) x[i] += __shfl_xor_sync(0xFFFFFFFF, x[i], step);
    if (threadIdx.x % WARP == 0)
#pragma unroll
        for (int i = 0; i < N; i++) room[i * WARPS + threadIdx.x / WARP] = x[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        T all[WARPS];
#pragma unroll
        for (int k = 0; k < WARPS; k++) all[k] = room[i * WARPS + k];
#pragma unroll
        for (int n = WARPS / 2; n > 0; n /= 2)
#pragma unroll
            for (int k = 0; k < n; k++) all[k] += all[k + n];
        x[i] = all[0];
    }
}

/* Sums are of type T: in a 16-bit model of double precision, so that they round as on the CPU.
 * There, differences to the mean need not be summed by themselves: what is lost where squares
 * nearly cancel is far behind what a float has. */
template <typename T, int KEPT>
static __device__ __forceinline__ norm_state kept_norm(const cuda_norm_args &a,
                                                       const float4 x[KEPT], double inverse,
                                                       double *room)
{
    constexpr bool EXACT = sizeof(T) == sizeof(double);
    const cuda_norm &norm = a.norm;
    const size_t fours = a.cols / 4;
    norm_state s = {0, 0};
    T sums[2] = {0, 0}; /* and of squares */
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const T p = (T)x[i].x, q = (T)x[i].y, r = (T)x[i].z, t = (T)x[i].w;
        sums[0] += (p + q) + (r + t);
        sums[1] += (p * p + q * q) + (r * r + t * t);
    }
    kept_sums<2>(sums, (T *)room);
    if (norm.kind == BG_NORM_LAYER) {
        s.mean = (float)(EXACT ? sums[0] * (T)inverse : sums[0] / (T)a.cols);
        const T mean = (T)s.mean;
        if (EXACT) {
            sums[1] += mean * (mean * (T)a.cols - 2 * sums[0]);
            if (sums[1] < 0) sums[1] = 0;
        } else {
            sums[1] = 0;
#pragma unroll
            for (int i = 0; i < KEPT; i++) {
                if (threadIdx.x + i * NORM_THREADS >= fours) continue;
                const T p = (T)x[i].x - mean, q = (T)x[i].y - mean;
                const T r = (T)x[i].z - mean, t = (T)x[i].w - mean;
                sums[1] += (p * p + q * q) + (r * r + t * t);
            }
            kept_sums<1>(sums + 1, (T *)room + 2 * NORM_THREADS / WARP);
        }
    }
    if (EXACT)
        s.scale = exact_scale((double)sums[1], inverse, norm.eps);
    else
        s.scale = 1.0f / sqrtf((float)sums[1] / (float)a.cols + norm.eps);
    /* The next float towards zero, of one that is positive. */
    if (norm.kind == BG_NORM_LAYER && a.half)
        s.scale = __uint_as_float(__float_as_uint(s.scale) - 1);
    return s;
}

/* One value, as `norm_apply` of device.cuh has it; `weight` with its offset. */
static __device__ __forceinline__ float normed_value(const norm_state &s, bool inner, bool half,
                                                     bool biased, float x, float weight, float bias)
{
    const float y = round_if(inner, (x - s.mean) * s.scale);
    return round_if(half, biased ? __fmaf_rn(y, weight, bias) : y * weight);
}

template <int KEPT>
static __device__ __forceinline__ void load_row(const cuda_norm_args &a, size_t row, float4 x[KEPT])
{
    const unsigned fours = (unsigned)a.cols / 4;
    const float4 *in = (const float4 *)a.in + row * fours;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const unsigned q = threadIdx.x + i * NORM_THREADS;
        x[i] = q < fours ? in[q] : make_float4(0, 0, 0, 0);
    }
}

/* What is the same for all rows. */
template <int KEPT> struct norm_weights {
    float4 w[KEPT], b[KEPT];
    bool biased, inner;
    double inverse;
};

template <int KEPT>
static __device__ __forceinline__ norm_weights<KEPT> load_norm(const cuda_norm_args &a)
{
    const unsigned fours = (unsigned)a.cols / 4;
    const float offset = a.norm.kind == BG_NORM_RMS_OFFSET ? 1 : 0;
    norm_weights<KEPT> n;
    n.biased = a.norm.kind == BG_NORM_LAYER && a.norm.bias;
    n.inner = a.half && a.norm.kind == BG_NORM_RMS;
    n.inverse = 1 / (double)a.cols;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const unsigned q = threadIdx.x + i * NORM_THREADS;
        float4 w = n.b[i] = make_float4(0, 0, 0, 0);
        if (q < fours) w = ((const float4 *)a.norm.weight)[q];
        n.w[i] = make_float4(w.x + offset, w.y + offset, w.z + offset, w.w + offset);
        if (q < fours && n.biased) n.b[i] = ((const float4 *)a.norm.bias)[q];
    }
    return n;
}

template <typename T, int KEPT, bool QUANTIZED>
static __device__ __forceinline__ void norm_row(const cuda_norm_args &a,
                                                const norm_weights<KEPT> &n, unsigned row,
                                                float4 x[KEPT], double *room)
{
    const unsigned fours = (unsigned)a.cols / 4;
    const size_t first = row * (size_t)fours;
    const norm_state s = kept_norm<T, KEPT>(a, x, n.inverse, room);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const unsigned q = threadIdx.x + i * NORM_THREADS;
        if (q >= fours) continue; /* what it has of x are zeros */
        float4 y;
        y.x = normed_value(s, n.inner, a.half, n.biased, x[i].x, n.w[i].x, n.b[i].x);
        y.y = normed_value(s, n.inner, a.half, n.biased, x[i].y, n.w[i].y, n.b[i].y);
        y.z = normed_value(s, n.inner, a.half, n.biased, x[i].z, n.w[i].z, n.b[i].z);
        y.w = normed_value(s, n.inner, a.half, n.biased, x[i].w, n.w[i].w, n.b[i].w);
        if (!a.operand.alone) ((float4 *)a.out)[first + q] = y;
        if (a.operand.out) put_four(a.operand.type, a.operand.out, (first + q) * 4, y);
        x[i] = y;
    }
    if (QUANTIZED) quantize_kept<KEPT>(a.quantize, row, x);
}

template <typename T, int KEPT, bool QUANTIZED>
static __global__ void __launch_bounds__(NORM_THREADS, KEPT <= AHEAD_KEPT ? AHEAD_BLOCKS : 2)
    norm_kept(const __grid_constant__ cuda_norm_args a)
{
    /* Rows take turns: a warp may be at the next one while another still reads sums. */
    __shared__ double room[2][2 * NORM_THREADS / WARP];
    const norm_weights<KEPT> n = load_norm<KEPT>(a);
    float4 x[KEPT];
    let_next_start();
    wait_for_earlier();
    load_row<KEPT>(a, blockIdx.x, x);
    if constexpr (KEPT > AHEAD_KEPT) {
        norm_row<T, KEPT, QUANTIZED>(a, n, blockIdx.x, x, room[0]);
    } else {
        const unsigned n_rows = (unsigned)a.n_rows, step = gridDim.x;
#pragma unroll 1
        for (unsigned row = blockIdx.x, turn = 0; row < n_rows; row += step, turn ^= 1) {
            float4 next[KEPT];
            if (row + step < n_rows) load_row<KEPT>(a, row + step, next);
            norm_row<T, KEPT, QUANTIZED>(a, n, row, x, room[turn]);
#pragma unroll
            for (int i = 0; i < KEPT; i++) x[i] = next[i];
        }
    }
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

template <typename T, int KEPT>
static cudaError_t launch_kept(const cuda_norm_args *a, const cuda_launch *l)
{
    const unsigned rows = (unsigned)a->n_rows,
                   at_once = AHEAD_BLOCKS * (unsigned)l->multiprocessors;
    const unsigned blocks = KEPT <= AHEAD_KEPT && rows > at_once ? at_once : rows;
    return launch(a->quantize.out.codes ? norm_kept<T, KEPT, true> : norm_kept<T, KEPT, false>,
                  dim3(blocks), NORM_THREADS, 0, *a, l);
}

template <int KEPT> static cudaError_t launch_kept(const cuda_norm_args *a, const cuda_launch *l)
{
    return a->half ? launch_kept<double, KEPT>(a, l) : launch_kept<float, KEPT>(a, l);
}

bool bg_cuda_norm_quantizes(size_t cols)
{
    return cols % 4 == 0 && cols <= MOST_KEPT * NORM_THREADS * 4;
}

cudaError_t bg_cuda_norm_many(const cuda_norm_args *a, const cuda_launch *l)
{
    if (!bg_cuda_norm_quantizes(a->cols))
        return launch(norm_any, dim3((unsigned)a->n_rows), NORM_THREADS, 0, *a, l);
    if (a->cols <= NORM_THREADS * 4) return launch_kept<1>(a, l);
    return a->cols <= 2 * NORM_THREADS * 4 ? launch_kept<2>(a, l) : launch_kept<MOST_KEPT>(a, l);
}
