/* Programs of int8 weights. */
#include "backend/cuda/program_kernel.cuh"

cudaError_t program_int8_packed(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_INT8, true>(args, room, l);
}

cudaError_t program_int8(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_INT8, false>(args, room, l);
}
