/* Programs of 4-bit weights. */
#include "backend/cuda/program_kernel.cuh"

cudaError_t program_4bit_packed(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_4BIT, true>(args, room, l);
}

cudaError_t program_4bit(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_4BIT, false>(args, room, l);
}
