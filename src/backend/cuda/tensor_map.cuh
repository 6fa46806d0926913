/* What the tensor memory accelerator is told of a matrix: the host's side. */
#ifndef BG_BACKEND_CUDA_TENSOR_MAP_CUH
#define BG_BACKEND_CUDA_TENSOR_MAP_CUH

#include <cstring>
#include <cuda.h>
#include <cuda_runtime_api.h>

enum { DEPTH_BYTES = 128 }; /* of a row in a tile */

/* (rows, cols) of so many bytes each, in tiles of so many rows, as products want them. */
static cudaError_t describe(CUtensorMap *map, const void *values, CUtensorMapDataType type,
                            size_t size, size_t rows, size_t cols, unsigned tile_rows)
{
    static __typeof__(&cuTensorMapEncodeTiled) encode;
    const cuuint64_t sizes[2] = {cols, rows}, strides[1] = {cols * size};
    const cuuint32_t tile[2] = {(cuuint32_t)(DEPTH_BYTES / size), tile_rows}, steps[2] = {1, 1};
    if (!encode) {
        void *function = NULL;
        cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
        cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                         cudaEnableDefault, &found);
#else
        cudaError_t e =
            cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
        if (e != cudaSuccess) return e;
        if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
        memcpy(&encode, &function, sizeof encode);
    }
    const CUresult r =
        encode(map, type, 2, (void *)values, sizes, strides, tile, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#endif
