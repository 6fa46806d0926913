/* Programs of 16-bit weights. */
#include "backend/cuda/program_kernel.cuh"

cudaError_t program_f16_packed(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_F16, true>(args, room, l);
}

cudaError_t program_f16(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_F16, false>(args, room, l);
}

cudaError_t program_bf16_packed(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_BF16, true>(args, room, l);
}

cudaError_t program_bf16(const program_args &args, size_t room, const cuda_launch *l)
{
    return launch_program<KIND_BF16, false>(args, room, l);
}
