/* Functions that several kernels are made of. Built without contraction to fused operations
 * (-fmad=false), so that what is written is what is computed, as on the CPU; inner loops ask for
 * fused operations by name. */
#ifndef BG_BACKEND_CUDA_DEVICE_CUH
#define BG_BACKEND_CUDA_DEVICE_CUH

extern "C" {
#include "backend/cuda/kernels.h"
}

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { WARP = 32, NORM_THREADS = 256 };

/* ---- launching ------------------------------------------------------------------------------- */

/* Everything that earlier kernels wrote may be read after this, and not before; but for what is
 * known to be over by then (ahead.c). */
static __device__ __forceinline__ void wait_for_earlier()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel may start to load what is older than all that is queued: its blocks do so when
 * all of this one's have called this. Before wait_for_earlier where blocks are small and their work
 * is short, in norms and attention: the next one's weights then come while this one waits. Kernels
 * end in their order all the same, as some block of each waits before it ends. */
static __device__ __forceinline__ void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

template <typename Args>
static cudaError_t launch(void (*kernel)(Args), dim3 grid, unsigned threads, size_t shared,
                          const Args &args, const cuda_launch *l)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
    if (shared > 48 << 10) {
        cudaError_t e = cudaFuncSetAttribute(
            (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (e != cudaSuccess) return e;
    }
    /* The same split of a multiprocessor's memory for all: changing it, kernels cannot overlap. */
    cudaError_t split =
        cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared);
    if (split != cudaSuccess) return split;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = l->stream;
    config.attrs = &attribute;
    config.numAttrs = l->overlap ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, args);
}

/* Shared memory to ask for so that no two of a kernel's blocks lie on one multiprocessor, as long
 * as there are enough of these: two go to an empty one before any goes to where another kernel's
 * block is, and then share what it reads from the second-level cache. More than half of the 228 KB,
 * and so little more that a block of 112 KB has room beside it. Measured on compute capability 9.0.
 */
enum { ALONE_SHARED = 114 << 10 };

static inline size_t shared_alone(size_t shared, dim3 grid, const cuda_launch *l)
{
    const size_t blocks = (size_t)grid.x * grid.y * grid.z;
    const bool enough = l->overlap && l->warpgroups && blocks <= (size_t)l->multiprocessors;
    return enough && shared < ALONE_SHARED ? ALONE_SHARED : shared;
}

static inline unsigned blocks_for(size_t n, size_t each)
{
    return (unsigned)((n + each - 1) / each);
}

/* x blocks for each of n rows; a grid's second dimension ends at 65535. */
enum { MOST_GRID = 65535 };

static inline dim3 grid_of_rows(unsigned x, size_t n)
{
    return dim3(x, (unsigned)(n < MOST_GRID ? n : MOST_GRID), blocks_for(n, MOST_GRID));
}

/* The block's row; may lie behind the last. */
static __device__ __forceinline__ size_t row_of_grid()
{
    return blockIdx.z * (size_t)MOST_GRID + blockIdx.y;
}

/* ---- loads ----------------------------------------------------------------------------------- */

template <int BYTES> struct words {
    uint32_t w[BYTES / 4];
};

/* Weights are read once in a step: they need not stay in the first-level cache. */
template <int BYTES> static __device__ __forceinline__ words<BYTES> load_weights(const void *p)
{
    words<BYTES> v;
    if constexpr (BYTES == 16)
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                     : "l"(p));
    else if constexpr (BYTES == 8)
        asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                     : "=r"(v.w[0]), "=r"(v.w[1])
                     : "l"(p));
    else
        asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v.w[0]) : "l"(p));
    return v;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* By the conversion of two, which has a fast unit of its own. */
static __device__ __forceinline__ float round_half(float x)
{
    return __low2float(__floats2half2_rn(x, 0));
}

static __device__ __forceinline__ float round_if(bool half, float x)
{
    return half ? round_half(x) : x;
}

/* bg_block_scale */
static __device__ __forceinline__ float block_scale(const cuda_matrix &w, size_t block)
{
    if (w.scales) return w.scales[block];
    return w.scale_map[w.scale_codes[block]] * w.scale_absmax[block / BG_SCALE_BLOCK] +
           w.scale_offset;
}

/* 1 / x within 2^-23 of itself, 0 where it would be subnormal: the instruction whose results
 * bg_gpu_reciprocal was read from, on a GPU that has it so, and what the table gives for every
 * binary16 number, without looking. */
static __device__ __forceinline__ float hopper_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* bg_gpu_reciprocal: from a table of this very CPU function for short mantissas, so that every GPU
 * gives what the one does that it was read from. */
static __device__ float reciprocal(const float *table, float x)
{
    if (!(x > 0) || isinf(x)) return 1.0f / x;
#if __CUDA_ARCH__ == 900
    if ((__float_as_uint(x) & 0x1FFF) == 0 && x >= 0x1p-24f && x < 0x1p16f)
        return hopper_reciprocal(x);
#endif
    int exponent;
    float mantissa = 2 * frexpf(x, &exponent), index = (mantissa - 1) * 1024;
    float inverse = index == floorf(index) ? table[(int)index] : __frcp_rn(mantissa);
    return ldexpf(inverse, 1 - exponent);
}

/* bg_gpu_reciprocal of an fp16 number: the table has all mantissas. */
static __device__ __forceinline__ float half_reciprocal(const float *table, float x)
{
#if __CUDA_ARCH__ == 900
    return hopper_reciprocal(x);
#else
    const uint32_t bits = __float_as_uint(x);
    if (!(x > 0) || isinf(x)) return 1.0f / x;
    return table[bits >> 13 & 1023] * __uint_as_float((254 - (bits >> 23)) << 23);
#endif
}

/* Value i of the flattened matrix, as bg_formats[].decode has it. */
static __device__ float decode_value(const cuda_matrix &w, size_t i)
{
    if (w.threshold > 0) return (float)((const int8_t *)w.codes)[i] * (w.scales[i / w.cols] / 127);
    switch (w.format) {
    case BG_FORMAT_F32:
        return ((const float *)w.codes)[i];
    case BG_FORMAT_F16:
        return __half2float(((const __half *)w.codes)[i]);
    case BG_FORMAT_BF16:
        return __bfloat162float(((const __nv_bfloat16 *)w.codes)[i]);
    default: {
        uint8_t pair = ((const uint8_t *)w.codes)[i / 2];
        return w.code[i % 2 ? pair & 15 : pair >> 4] * block_scale(w, i / BG_BLOCK);
    }
    }
}

/* The table's row; an id that was chosen where logits are NaN has none. */
static __device__ __forceinline__ size_t looked_up(const cuda_embed_args &a, size_t k, size_t row)
{
    const uint32_t id = (uint32_t)a.ids[k][row];
    return id < a.tables[k].rows ? id : 0;
}

/* ---- activations ----------------------------------------------------------------------------- */

static __device__ float gelu_tanh_half(float x)
{
    float t = round_half(x * x);
    t = round_half(t * x);
    t = round_half(t * 0.044715f);
    t = round_half(t + x);
    t = round_half(t * 0.7978845608f);
    t = round_half(tanhf(t));
    t = round_half(t + 1.0f);
    return round_half(round_half(x * 0.5f) * t);
}

static __device__ float activate(bg_activation activation, bool half, float x)
{
    switch (activation) {
    case BG_ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case BG_ACTIVATION_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case BG_ACTIVATION_GELU_NEW:
        if (half) return gelu_tanh_half(x);
        /* fall through */
    case BG_ACTIVATION_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case BG_ACTIVATION_SILU:
        return x / (1.0f + expf(-x));
    case BG_ACTIVATION_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

/* ---- a linear layer's end -------------------------------------------------------------------- */

/* bitsandbytes' own constant for 1 / 127^2. */
#define INT8_SCALE 6.200012e-05f

/* The products of one output with LLM.int8()'s outlier columns number begin, begin + step, ... */
static __device__ float sum_outliers(const cuda_matrix &w, const float *x, const int32_t *outliers,
                                     int n, size_t row, int begin, int step)
{
    const int8_t *codes = (const int8_t *)w.codes + row * w.cols;
    const float scale = w.scales[row];
    float sum = 0;
    for (int i = begin; i < n; i += step) {
        int c = outliers[i];
        float weight = (float)codes[c] * scale * 7.874015718698502e-3f;
        sum += round_half(x[c]) * round_half(weight);
    }
    return sum;
}

/* Bias and rounding of the product for output column `col`; for int8 also its scale. */
static __device__ __forceinline__ float add_bias(const cuda_epilogue &e, bool int8, size_t col,
                                                 float y)
{
    if (int8)
        y = e.bias ? __fmaf_rn(y, INT8_SCALE, e.bias[col]) : y * INT8_SCALE;
    else if (e.bias)
        y += e.bias[col];
    return round_if(e.half, y);
}

/* All that follows, and the write. */
static __device__ __forceinline__ void finish(const cuda_epilogue &e, size_t m, size_t col, float y)
{
    y = activate(e.activation, e.half, y);
    if (e.activation != BG_ACTIVATION_NONE) y = round_if(e.half, y);
    if (e.multiplier) y = round_if(e.half, y * e.multiplier[m * e.multiplier_stride + col]);
    if (e.addend) y = round_if(e.half, y + e.addend[m * e.addend_stride + col]);
    if (e.residual) y = round_if(e.half, y + e.residual[m * e.residual_stride + col]);
    e.out[m * e.out_stride + col] = y;
}

/* ---- sums over a block ----------------------------------------------------------------------- */

template <typename T> static __device__ __forceinline__ T warp_sum(T x)
{
    for (int i = WARP / 2; i > 0; i /= 2) x += __shfl_xor_sync(0xFFFFFFFF, x, i);
    return x;
}

static __device__ __forceinline__ float warp_max(float x)
{
    for (int i = WARP / 2; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, i));
    return x;
}

/* `room` holds one T for each warp, and nobody reads what was there before. The whole block calls
 * it, and gets the sum. */
template <typename T> static __device__ __forceinline__ T first_block_sum(T x, T *room)
{
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = x;
    __syncthreads();
    T total = 0;
    for (unsigned i = 0; i < blockDim.x / WARP; i++) total += room[i];
    return total;
}

/* The same with room that was used before. */
template <typename T> static __device__ T block_sum(T x, T *room)
{
    __syncthreads();
    return first_block_sum(x, room);
}

static __device__ float block_max(float x, float *room)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = x;
    __syncthreads();
    float most = room[0];
    for (unsigned i = 1; i < blockDim.x / WARP; i++) most = fmaxf(most, room[i]);
    return most;
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* What a row's values are moved and scaled by. */
struct norm_state {
    float mean, scale;
};

static __device__ __forceinline__ float norm_scale(double squares, size_t n, float eps)
{
    float mean = (float)(squares / (double)n) + eps;
    return (float)(1 / sqrt((double)mean));
}

static __device__ __forceinline__ float approximate_rsqrt(float x)
{
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / sqrt(squares / n + eps), as norm_scale has it; `inverse`: 1 / n. What makes it that of the
 * CPU comes from 1 - x y^2, which fused operations give to 46 bits without double precision: for
 * every normal x it is the rounded root's inverse, if the approximation is no more than a unit off;
 * two units off, for all but one or two of 2^24. */
static __device__ __forceinline__ float exact_scale(double squares, double inverse, float eps)
{
    const float x = (float)(squares * inverse) + eps, y = approximate_rsqrt(x);
    const float square = y * y, rest = __fmaf_rn(y, y, -square);
    const float off = __fmaf_rn(-x, rest, __fmaf_rn(-x, square, 1));
    return __fmaf_rn(y * off, __fmaf_rn(0.375f, off, 0.5f), y);
}

/* One value of a normed row; the CPU's layer_norm and rms_norm say why each step is as it is. */
static __device__ __forceinline__ float norm_apply(bg_norm_kind kind, bool biased,
                                                   const norm_state &s, bool half, float x,
                                                   float weight, float bias)
{
    if (kind == BG_NORM_LAYER) {
        float y = (x - s.mean) * s.scale;
        return round_if(half, biased ? __fmaf_rn(y, weight, bias) : y * weight);
    }
    const bool offset = kind == BG_NORM_RMS_OFFSET;
    float y = round_if(half && !offset, x * s.scale);
    return round_if(half, y * (weight + (offset ? 1.0f : 0.0f)));
}

static __device__ __forceinline__ float norm_value(const cuda_norm &norm, const norm_state &s,
                                                   bool half, float x, size_t i)
{
    return norm_apply(norm.kind, norm.bias != NULL, s, half, x, norm.weight[i],
                      norm.bias ? norm.bias[i] : 0);
}

/* By the whole block, over x (n); sums in double precision, as on the CPU. */
static __device__ norm_state block_norm(const cuda_norm &norm, bool half, const float *x, size_t n,
                                        double *room)
{
    norm_state s = {0, 0};
    if (norm.kind == BG_NORM_LAYER) {
        double sum = 0;
        for (size_t i = threadIdx.x; i < n; i += blockDim.x) sum += (double)x[i];
        s.mean = (float)(block_sum(sum, room) / (double)n);
    }
    double squares = 0;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        double d = (double)x[i] - (double)s.mean;
        squares += d * d;
    }
    s.scale = norm_scale(block_sum(squares, room), n, norm.eps);
    if (norm.kind == BG_NORM_LAYER && half) s.scale = nextafterf(s.scale, 0);
    return s;
}

#endif
