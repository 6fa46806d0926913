/* Few rows of activations times int8 weights: LLM.int8(), products in int32. */
#include "backend/cuda/linear.cuh"

cudaError_t linear_int8(const cuda_linear_args &a, const cuda_launch *l)
{
    return choose_width<KIND_INT8>(a, l);
}
