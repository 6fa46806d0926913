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

/* What few layers have. MULTIPLIER: it is in memory, if there is one. */
template <bool MULTIPLIER = true>
static __device__ __forceinline__ void load_factors(const cuda_epilogue &e, size_t m, size_t col,
                                                    four_inputs &in)
{
    if (MULTIPLIER && e.multiplier)
        in.multiplier = *(const float4 *)(e.multiplier + m * e.multiplier_stride + col);
    if (e.addend) in.addend = *(const float4 *)(e.addend + m * e.addend_stride + col);
}

/* All but the bias, which is that of all rows. */
template <bool MULTIPLIER = true>
static __device__ __forceinline__ void load_rows(const cuda_epilogue &e, size_t m, size_t col,
                                                 four_inputs &in)
{
    load_factors<MULTIPLIER>(e, m, col, in);
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

/* What a layer's end does, as bits. */
enum { END_HALF = 1, END_BIAS = 2, END_MULTIPLIER = 4, END_ADDEND = 8, END_RESIDUAL = 16 };

struct layer_end {
    unsigned does;
    bg_activation activation;
};

static __device__ __forceinline__ layer_end end_of(const cuda_epilogue &e)
{
    return {(e.half ? END_HALF : 0u) | (e.bias ? END_BIAS : 0u) |
                (e.multiplier ? END_MULTIPLIER : 0u) | (e.addend ? END_ADDEND : 0u) |
                (e.residual ? END_RESIDUAL : 0u),
            e.activation};
}

/* The same in registers, whatever the compiler makes of it: an argument of one of several layers
 * takes as long to read again as four results to finish. */
static __device__ __forceinline__ layer_end known_end_of(const cuda_epilogue &e)
{
    layer_end end = end_of(e);
    int activation = (int)end.activation;
    asm volatile("" : "+r"(end.does), "+r"(activation));
    end.activation = (bg_activation)activation;
    return end;
}

/* `finished`, behind the activation. */
static __device__ __forceinline__ float4 activated_four(unsigned does, const four_inputs &in,
                                                        float4 y)
{
    const bool half = does & END_HALF;
    if (does & END_MULTIPLIER) {
        const float4 &m = in.multiplier;
        y = make_float4(y.x * m.x, y.y * m.y, y.z * m.z, y.w * m.w);
        if (half) y = round_four(y);
    }
    if (does & END_ADDEND) {
        y = sum_of(y, in.addend);
        if (half) y = round_four(y);
    }
    if (does & END_RESIDUAL) {
        y = sum_of(y, in.residual);
        if (half) y = round_four(y);
    }
    return y;
}

static __device__ __forceinline__ float4 finished_four(const cuda_epilogue &e,
                                                       const four_inputs &in, float4 y)
{
    if (e.activation == BG_ACTIVATION_SILU)
        y = silu_four(e.half, y);
    else if (e.activation != BG_ACTIVATION_NONE)
        y = activate_four(e.activation, e.half, y);
    return activated_four(end_of(e).does, in, y);
}

/* The same for kernels that know the end and have this in one place: there the function of BERT's
 * layers need not be called either. */
static __device__ __forceinline__ float4 finished_four(const layer_end &end, const four_inputs &in,
                                                       float4 y)
{
    const bool half = end.does & END_HALF;
    if (end.activation == BG_ACTIVATION_GELU) {
        y = activate_each<BG_ACTIVATION_GELU>(half, y);
        if (half) y = round_four(y);
    } else if (end.activation == BG_ACTIVATION_SILU) {
        y = silu_four(half, y);
    } else if (end.activation != BG_ACTIVATION_NONE) {
        y = activate_four(end.activation, half, y);
    }
    return activated_four(end.does, in, y);
}

static __device__ __forceinline__ float4 finish_four(const cuda_epilogue &e, const four_inputs &in,
                                                     float4 y)
{
    if (e.bias) y = sum_of(y, in.bias);
    if (e.half) y = round_four(y);
    return finished_four(e, in, y);
}

static __device__ __forceinline__ float4 finish_four(const layer_end &end, const four_inputs &in,
                                                     float4 y)
{
    if (end.does & END_BIAS) y = sum_of(y, in.bias);
    if (end.does & END_HALF) y = round_four(y);
    return finished_four(end, in, y);
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
