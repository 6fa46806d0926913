/* Programs of 4-bit weights whose scales are quantized, too. */
#include "backend/cuda/program_kernel.cuh"

cudaError_t program_4bit_dq_packed(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_4BIT_DQ, true>(args, room, l);
}

cudaError_t program_4bit_dq(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_4BIT_DQ, false>(args, room, l);
}
