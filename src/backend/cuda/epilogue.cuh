/* A linear layer's end in two halves, what it reads and what it computes: the loads of several
 * results can be on their way at once, which stores between them would not allow. */
#ifndef BG_BACKEND_CUDA_EPILOGUE_CUH
#define BG_BACKEND_CUDA_EPILOGUE_CUH

#include "backend/cuda/device.cuh"

/* What belongs to one result; 0 where there is none. */
struct epilogue_inputs {
    float bias, multiplier, addend, residual;
};

static __device__ __forceinline__ epilogue_inputs load_inputs(const cuda_epilogue &e, size_t m,
                                                              size_t col)
{
    epilogue_inputs in = {0, 0, 0, 0};
    if (e.bias) in.bias = e.bias[col];
    if (e.multiplier) in.multiplier = e.multiplier[m * e.multiplier_stride + col];
    if (e.addend) in.addend = e.addend[m * e.addend_stride + col];
    if (e.residual) in.residual = e.residual[m * e.residual_stride + col];
    return in;
}

/* `add_bias` of device.cuh. */
static __device__ __forceinline__ float biased(const cuda_epilogue &e, bool int8,
                                               const epilogue_inputs &in, float y)
{
    if (int8)
        y = e.bias ? __fmaf_rn(y, INT8_SCALE, in.bias) : y * INT8_SCALE;
    else if (e.bias)
        y += in.bias;
    return round_if(e.half, y);
}

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

#endif
