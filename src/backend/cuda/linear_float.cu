/* Few rows of activations times weights of 16 and 32 bits. */
#include "backend/cuda/linear.cuh"

cudaError_t linear_f32(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_F32>(a, l);
}

cudaError_t linear_f16(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_F16>(a, l);
}

cudaError_t linear_bf16(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_BF16>(a, l);
}
