/* A linear layer's end in two halves, what it reads and what it computes: the loads of several
 * results can be on their way at once, which stores between them would not allow. */
#ifndef BG_BACKEND_CUDA_EPILOGUE_CUH
#define BG_BACKEND_CUDA_EPILOGUE_CUH

#include "backend/cuda/device.cuh"

/* What belongs to one result besides its bias; 0 where there is none. */
struct epilogue_inputs {
    float multiplier, addend, residual;
};

/* `finish` of device.cuh, without the write. */
static __device__ __forceinline__ float finished(const cuda_epilogue &e, const epilogue_inputs &in,
                                                 float y)
{
    y = activate(e.activation, e.half, y);
    if (e.activation != BG_ACTIVATION_NONE) y = round_if(e.half, y);
    if (e.multiplier) y = round_if(e.half, y * in.multiplier);
    if (e.addend) y = round_if(e.half, y + in.addend);
    if (e.residual) y = round_if(e.half, y + in.residual);
    return y;
}

/* The same of four results in a row, where all of it is in line. */
struct four_inputs {
    float4 bias, multiplier, addend, residual;
};

/* All but the bias, which is that of all rows. MULTIPLIER: it is in memory, if there is one. */
template <bool MULTIPLIER = true>
static __device__ __forceinline__ void load_rows(const cuda_epilogue &e, size_t m, size_t col,
                                                 four_inputs &in)
{
    if (MULTIPLIER && e.multiplier)
        in.multiplier = *(const float4 *)(e.multiplier + m * e.multiplier_stride + col);
    if (e.addend) in.addend = *(const float4 *)(e.addend + m * e.addend_stride + col);
    if (e.residual) in.residual = *(const float4 *)(e.residual + m * e.residual_stride + col);
}

template <bool MULTIPLIER = true>
static __device__ __forceinline__ four_inputs load_four(const cuda_epilogue &e, size_t m,
                                                        size_t col)
{
    four_inputs in;
    if (e.bias) in.bias = *(const float4 *)(e.bias + col);
    load_rows<MULTIPLIER>(e, m, col, in);
    return in;
}

static __device__ __forceinline__ float4 round_four(float4 y)
{
    return make_float4(round_half(y.x), round_half(y.y), round_half(y.z), round_half(y.w));
}

template <bg_activation ACTIVATION>
static __device__ __forceinline__ float4 activate_each(bool half, float4 y)
{
    return make_float4(activate(ACTIVATION, half, y.x), activate(ACTIVATION, half, y.y),
                       activate(ACTIVATION, half, y.z), activate(ACTIVATION, half, y.w));
}

/* Which function it is is asked once, so that the four are computed side by side. Not inlined:
 * kernels that are short have many places for it. But for SiLU, which is silu_four. */
static __device__ __noinline__ float4 activate_four(bg_activation activation, bool half, float4 y)
{
    switch (activation) {
    case BG_ACTIVATION_RELU:
        y = activate_each<BG_ACTIVATION_RELU>(half, y);
        break;
    case BG_ACTIVATION_GELU:
        y = activate_each<BG_ACTIVATION_GELU>(half, y);
        break;
    case BG_ACTIVATION_GELU_NEW:
        y = activate_each<BG_ACTIVATION_GELU_NEW>(half, y);
        break;
    case BG_ACTIVATION_GELU_TANH:
        y = activate_each<BG_ACTIVATION_GELU_TANH>(half, y);
        break;
    case BG_ACTIVATION_TANH:
        y = activate_each<BG_ACTIVATION_TANH>(half, y);
        break;
    default:
        break;
    }
    return half ? round_four(y) : y;
}

/* Within three units in the last place; 0 from -87 down. */
static __device__ __forceinline__ float silu(float x)
{
    return __fdividef(x, 1.0f + expf(-x));
}

static __device__ __forceinline__ float4 silu_four(bool half, float4 y)
{
    return make_float4(round_if(half, silu(y.x)), round_if(half, silu(y.y)),
                       round_if(half, silu(y.z)), round_if(half, silu(y.w)));
}

static __device__ __forceinline__ float4 sum_of(float4 x, float4 y)
{
    return make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
}

/* `finished`. */
static __device__ __forceinline__ float4 finished_four(const cuda_epilogue &e,
                                                       const four_inputs &in, float4 y)
{
    if (e.activation == BG_ACTIVATION_SILU)
        y = silu_four(e.half, y);
    else if (e.activation != BG_ACTIVATION_NONE)
        y = activate_four(e.activation, e.half, y);
    if (e.multiplier) {
        const float4 &m = in.multiplier;
        y = make_float4(y.x * m.x, y.y * m.y, y.z * m.z, y.w * m.w);
        if (e.half) y = round_four(y);
    }
    if (e.addend) {
        y = sum_of(y, in.addend);
        if (e.half) y = round_four(y);
    }
    if (e.residual) {
        y = sum_of(y, in.residual);
        if (e.half) y = round_four(y);
    }
    return y;
}

static __device__ __forceinline__ float4 finish_four(const cuda_epilogue &e, const four_inputs &in,
                                                     float4 y)
{
    if (e.bias) y = sum_of(y, in.bias);
    if (e.half) y = round_four(y);
    return finished_four(e, in, y);
}

/* Whether n results from column `first` on are. */
static inline bool in_line(const float *p, size_t stride)
{
    return (uintptr_t)p % sizeof(float4) == 0 && stride % 4 == 0;
}

static inline bool fours_in_line(const cuda_epilogue *e, size_t first, size_t n)
{
    return n % 4 == 0 && first % 4 == 0 && in_line(e->bias, 0) && in_line(e->out, e->out_stride) &&
           in_line(e->multiplier, e->multiplier_stride) && in_line(e->addend, e->addend_stride) &&
           in_line(e->residual, e->residual_stride);
}

#endif
