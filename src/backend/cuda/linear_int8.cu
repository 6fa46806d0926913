/* Few rows of activations times int8 weights: LLM.int8(), products in int32. */
#include "backend/cuda/linear.cuh"
#include "backend/cuda/quantize.cuh"

/* ---- one short row --------------------------------------------------------------------------- */

/* A layer of one row that nothing is merged with, as a classifier has them, behind a pass of many
 * rows. What it does is over in a microsecond; what it costs is fetching its instructions, and
 * linear_few, for all that may be merged, has some 5,000 of them. A warp has an output. */
enum {
    SHORT_THREADS = 128,
    SHORT_WARPS = SHORT_THREADS / WARP,
    SHORT_COLS = 1024,
    SHORT_FOURS = SHORT_COLS / 4 / SHORT_THREADS, /* of the row, that a thread quantizes */
    SHORT_WORDS = SHORT_COLS / 4 / WARP,          /* of codes, that a lane multiplies */
};

/* What outlier columns add to an output, with them listed by every warp for itself. Not inlined: it
 * is seldom wanted. */
static __device__ __noinline__ float short_outliers(const cuda_linear_args &a, size_t row,
                                                    int32_t *list)
{
    const unsigned lane = threadIdx.x % WARP;
    int n = 0;
    for (unsigned k = lane; k - lane < a.cols; k += WARP) {
        const bool outlier = k < a.cols && fabsf(a.in[k]) >= a.w[0].threshold;
        const unsigned all = __ballot_sync(0xFFFFFFFF, outlier);
        if (outlier) list[n + __popc(all & ((1u << lane) - 1))] = (int32_t)k;
        n += __popc(all);
    }
    __syncwarp();
    return warp_sum(sum_outliers(a.w[0], a.in, list, n, row, (int)lane, WARP));
}

/* Not inlined: one activation is wanted, and mostly it is ReLU or none. */
static __device__ __noinline__ float activate_short(bg_activation activation, bool half, float y)
{
    return round_if(half, activate(activation, half, y));
}

static __device__ __forceinline__ int sum_of_warp(int x)
{
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(0xFFFFFFFF, x);
#else
    return warp_sum(x);
#endif
}

static __global__ void __launch_bounds__(SHORT_THREADS)
    linear_short(const __grid_constant__ cuda_linear_args a)
{
    __shared__ uint32_t codes[SHORT_COLS / 4];
    __shared__ int32_t outliers[SHORT_WARPS][SHORT_COLS];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned fours = (unsigned)a.cols / 4;
    const size_t row = blockIdx.x * (size_t)SHORT_WARPS + warp;
    const bool there = row < a.w[0].rows;
    const cuda_epilogue &e = a.epilogue[0];
    const float threshold = a.w[0].threshold;
    uint32_t weights[SHORT_WORDS];
#pragma unroll
    for (int i = 0; i < SHORT_WORDS; i++) {
        const unsigned k = lane + i * WARP;
        weights[i] = 0;
        if (there && k < fours) weights[i] = ((const uint32_t *)a.w[0].codes)[row * fours + k];
    }
    const float scale = there ? a.w[0].scales[row] : 0;
    const float bias = there && e.bias ? e.bias[row] : 0;
    wait_for_earlier();
    let_next_start();

    float4 x[SHORT_FOURS];
    float most = 0;
    uint32_t any = 0;
#pragma unroll
    for (int i = 0; i < SHORT_FOURS; i++) {
        const unsigned q = threadIdx.x + i * SHORT_THREADS;
        x[i] = make_float4(0, 0, 0, 0);
        if (q < fours) x[i] = ((const float4 *)a.in)[q];
    }
#pragma unroll
    for (int i = 0; i < SHORT_FOURS; i++) {
        most = fmaxf(most, most_of(x[i], threshold));
        any |= outliers_of(x[i], threshold);
    }
    most = row_max(most);
    const float factor = most > 0 ? 127 * half_reciprocal(a.reciprocals, most) : 0;
#pragma unroll
    for (int i = 0; i < SHORT_FOURS; i++)
        codes[threadIdx.x + i * SHORT_THREADS] = codes_of(x[i], threshold, factor);
    const bool some = __syncthreads_or(any != 0);
    int sum = 0;
#pragma unroll
    for (int i = 0; i < SHORT_WORDS; i++)
        sum = __dp4a((int)weights[i], (int)codes[lane + i * WARP], sum);
    sum = sum_of_warp(sum);
    if (!there) return;
    float y = (float)sum * most * scale;
    y = round_if(e.half, e.bias ? __fmaf_rn(y, INT8_SCALE, bias) : y * INT8_SCALE);
    if (some) y = round_if(e.half, y + short_outliers(a, row, outliers[warp]));
    if (e.activation == BG_ACTIVATION_RELU)
        y = fmaxf(y, 0);
    else if (e.activation != BG_ACTIVATION_NONE)
        y = activate_short(e.activation, e.half, y);
    if (lane == 0) e.out[row] = y;
}

static bool is_short(const cuda_linear_args &a)
{
    const cuda_epilogue &e = a.epilogue[0];
    return a.n_rows == 1 && a.n_parts == 1 && !a.norm.weight && a.cols % 4 == 0 &&
           a.cols <= SHORT_COLS && !e.multiplier && !e.addend && !e.residual;
}

cudaError_t linear_int8(const cuda_linear_args &a, const cuda_launch *l)
{
    if (is_short(a))
        return launch(linear_short, dim3(blocks_for(a.w[0].rows, SHORT_WARPS)), SHORT_THREADS, 0, a,
                      l);
    return choose_width<KIND_INT8>(a, l);
}
