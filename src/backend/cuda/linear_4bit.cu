/* Few rows of activations times 4-bit weights; with double quantization, the scales are decoded,
 * too. */
#include "backend/cuda/linear.cuh"

cudaError_t linear_4bit(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_4BIT>(a, l);
}

cudaError_t linear_4bit_dq(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_4BIT_DQ>(a, l);
}
