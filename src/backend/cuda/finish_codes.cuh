/* Sums of codes as a linear layer's results, four side by side: what is decided once is decided for
 * all of them, and what they read is on its way together. */
#ifndef BG_BACKEND_CUDA_FINISH_CODES_CUH
#define BG_BACKEND_CUDA_FINISH_CODES_CUH

#include "backend/cuda/device.cuh"

/* ---- reading and writing --------------------------------------------------------------------- */

/* Whether all fours of columns of what is read and written are aligned. */
static __device__ __forceinline__ bool in_line(const cuda_epilogue &e)
{
    const uintptr_t places = (uintptr_t)e.bias | (uintptr_t)e.out | (uintptr_t)e.multiplier |
                             (uintptr_t)e.addend | (uintptr_t)e.residual;
    const size_t strides = e.out_stride | e.multiplier_stride | e.addend_stride | e.residual_stride;
    return places % sizeof(float4) == 0 && strides % 4 == 0;
}

static __device__ __forceinline__ bool in_line(const cuda_matrix &w)
{
    return (uintptr_t)w.scales % sizeof(float4) == 0;
}

static __device__ __forceinline__ float4 load_four(const float *p, bool aligned)
{
    return aligned ? *(const float4 *)p : make_float4(p[0], p[1], p[2], p[3]);
}

static __device__ __forceinline__ void store_four(float *p, bool aligned, float4 v)
{
    if (aligned) {
        *(float4 *)p = v;
    } else {
        p[0] = v.x;
        p[1] = v.y;
        p[2] = v.z;
        p[3] = v.w;
    }
}

/* ---- computing ------------------------------------------------------------------------------- */

static __device__ __forceinline__ float4 round_four(bool half, float4 v)
{
    if (!half) return v;
    return make_float4(round_half(v.x), round_half(v.y), round_half(v.z), round_half(v.w));
}

static __device__ __forceinline__ float4 add_four(bool half, float4 v, float4 w)
{
    return round_four(half, make_float4(v.x + w.x, v.y + w.y, v.z + w.z, v.w + w.w));
}

/* With a layer's scales and bias, as `add_bias` of device.cuh. */
static __device__ __forceinline__ float4 dequantize_four(bool half, int4 sums, float absmax,
                                                         float4 scales, bool biased, float4 bias)
{
    float4 y = make_float4((float)sums.x * absmax * scales.x, (float)sums.y * absmax * scales.y,
                           (float)sums.z * absmax * scales.z, (float)sums.w * absmax * scales.w);
    if (biased)
        y = make_float4(__fmaf_rn(y.x, INT8_SCALE, bias.x), __fmaf_rn(y.y, INT8_SCALE, bias.y),
                        __fmaf_rn(y.z, INT8_SCALE, bias.z), __fmaf_rn(y.w, INT8_SCALE, bias.w));
    else
        y = make_float4(y.x * INT8_SCALE, y.y * INT8_SCALE, y.z * INT8_SCALE, y.w * INT8_SCALE);
    return round_four(half, y);
}

static __device__ __noinline__ float4 activate_codes(bg_activation activation, bool half, float4 v)
{
    return round_four(
        half, make_float4(activate(activation, half, v.x), activate(activation, half, v.y),
                          activate(activation, half, v.z), activate(activation, half, v.w)));
}

/* What is done to them after that, as `finish` of device.cuh has it. */
struct four_operands {
    float4 multiplier, addend, residual;

    __device__ __forceinline__ void load(const cuda_epilogue &e, size_t m, size_t col, bool aligned,
                                         bool gated)
    {
        if (e.multiplier && !gated)
            multiplier = load_four(e.multiplier + m * e.multiplier_stride + col, aligned);
        if (e.addend) addend = load_four(e.addend + m * e.addend_stride + col, aligned);
        if (e.residual) residual = load_four(e.residual + m * e.residual_stride + col, aligned);
    }

    __device__ __forceinline__ float4 finish(const cuda_epilogue &e, float4 y) const
    {
        if (e.activation != BG_ACTIVATION_NONE) y = activate_codes(e.activation, e.half, y);
        if (e.multiplier)
            y = round_four(e.half, make_float4(y.x * multiplier.x, y.y * multiplier.y,
                                               y.z * multiplier.z, y.w * multiplier.w));
        if (e.addend) y = add_four(e.half, y, addend);
        if (e.residual) y = add_four(e.half, y, residual);
        return y;
    }
};

#endif
