/* Writing a matrix product's operand, one or four values at a time. */
#ifndef BG_BACKEND_CUDA_OPERAND_CUH
#define BG_BACKEND_CUDA_OPERAND_CUH

#include "backend/cuda/device.cuh"

/* binary16's largest number for what is larger, but not for an infinity: one large entry of a row
 * should not make all of its results infinite. */
static __device__ __forceinline__ float within_half(float x)
{
    const float most = 65504.0f, magnitude = fabsf(x);
    return magnitude > most && magnitude < INFINITY ? copysignf(most, x) : x;
}

static __device__ __forceinline__ uint32_t pack_pair(cuda_type type, float x, float y)
{
    if (type == CUDA_BF16) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
        return *(const uint32_t *)&pair;
    }
    const __half2 pair = __floats2half2_rn(within_half(x), within_half(y));
    return *(const uint32_t *)&pair;
}

static __device__ __forceinline__ void put(cuda_type type, void *out, size_t i, float x)
{
    if (type == CUDA_F16)
        ((__half *)out)[i] = __float2half_rn(within_half(x));
    else if (type == CUDA_BF16)
        ((__nv_bfloat16 *)out)[i] = __float2bfloat16_rn(x);
    else
        ((float *)out)[i] = x;
}

/* Values i to i + 3, i a multiple of 4. */
static __device__ __forceinline__ void put_four(cuda_type type, void *out, size_t i, float4 x)
{
    if (type == CUDA_F32)
        ((float4 *)out)[i / 4] = x;
    else
        ((uint2 *)out)[i / 4] = make_uint2(pack_pair(type, x.x, x.y), pack_pair(type, x.z, x.w));
}

#endif
