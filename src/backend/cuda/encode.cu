/* From a checkpoint's values to packed weights, bit for bit as src/quant encodes them. */
#include "backend/cuda/codes.cuh"
#include "backend/cuda/device.cuh"

/* ---- widening, and turning round ------------------------------------------------------------- */

static __device__ float widen(bg_dtype dtype, const void *data, size_t i)
{
    switch (dtype) {
    case BG_F64:
        return (float)((const double *)data)[i];
    case BG_F16: {
        /* Not the intrinsic, which makes every NaN the same one. */
        uint32_t bits = ((const uint16_t *)data)[i];
        if ((bits & 0x7C00) == 0x7C00)
            return __uint_as_float((bits & 0x8000) << 16 | 0x7F800000 | (bits & 0x3FF) << 13);
        return __half2float(((const __half *)data)[i]);
    }
    case BG_BF16:
        return __uint_as_float((uint32_t)((const uint16_t *)data)[i] << 16);
    default:
        return ((const float *)data)[i];
    }
}

static __global__ void widen_panel(cuda_encode_args a)
{
    const size_t cols = a.w.cols, n = a.n_rows * cols;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        a.values[i] = widen(a.dtype, a.source, a.transposed ? i % cols * a.n_rows + i / cols : i);
}

/* ---- each format's encoder ------------------------------------------------------------------- */

static __device__ uint16_t to_f16(float x)
{
    return isnan(x) ? (uint16_t)((__float_as_uint(x) >> 16 & 0x8000) | 0x7E00)
                    : __half_as_ushort(__float2half_rn(x));
}

static __device__ uint16_t to_bf16(float x)
{
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16) | 0x40;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static __global__ void encode_floats(cuda_encode_args a)
{
    const size_t first = a.first * a.w.cols, n = a.n_rows * a.w.cols;
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x) {
        float x = a.values[i];
        if (a.w.format == BG_FORMAT_F32)
            ((float *)a.codes)[first + i] = x;
        else
            ((uint16_t *)a.codes)[first + i] = a.w.format == BG_FORMAT_F16 ? to_f16(x) : to_bf16(x);
    }
}

static __device__ float clamped_half(float x)
{
    return round_half(fminf(fmaxf(x, -65504.0f), 65504.0f));
}

/* A block for each row. */
static __global__ void encode_int8(cuda_encode_args a)
{
    __shared__ float room[256 / WARP];
    const size_t cols = a.w.cols, row = a.first + blockIdx.x;
    const float *x = a.values + blockIdx.x * cols;
    int8_t *codes = (int8_t *)a.codes + row * cols;
    float absmax = 0;
    for (size_t c = threadIdx.x; c < cols; c += blockDim.x)
        absmax = fmaxf(absmax, fabsf(clamped_half(x[c])));
    absmax = block_max(absmax, room);
    float factor = absmax > 0 ? 127 * reciprocal(a.reciprocals, absmax) : 0;
    for (size_t c = threadIdx.x; c < cols; c += blockDim.x)
        codes[c] = (int8_t)(int)rintf(clamped_half(x[c]) * factor);
    if (threadIdx.x == 0) a.scales[row] = absmax;
}

/* A warp for each block of 64: two values, one byte, for each lane. */
static __global__ void encode_4bit(cuda_encode_args a)
{
    const size_t first = a.first * a.w.cols, n = a.n_rows * a.w.cols;
    const size_t block = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) / WARP;
    const size_t i = block * BG_BLOCK + threadIdx.x % WARP * 2;
    if (block * BG_BLOCK >= n) return;
    const float high = i < n ? a.values[i] : 0, low = i + 1 < n ? a.values[i + 1] : 0;
    const float absmax = warp_max(fmaxf(fmaxf(0, fabsf(high)), fabsf(low)));
    const float inverse = reciprocal(a.reciprocals, absmax);
    uint8_t (*nibble)(float) =
        a.w.format == BG_FORMAT_NF4 || a.w.format == BG_FORMAT_NF4_DQ ? nf4_nibble : fp4_nibble;
    if (threadIdx.x % WARP == 0) a.scales[first / BG_BLOCK + block] = absmax;
    if (i >= n) return;
    uint8_t pair = (uint8_t)(nibble(high * inverse) << 4);
    if (i + 1 < n) pair |= nibble(low * inverse);
    ((uint8_t *)a.codes)[(first + i) / 2] = pair;
}

cudaError_t bg_cuda_encode(const cuda_encode_args *a, const cuda_launch *l)
{
    const size_t n = a->n_rows * a->w.cols;
    const unsigned blocks = blocks_for(n, 256) < 8192 ? blocks_for(n, 256) : 8192;
    if (n == 0) return cudaSuccess;
    widen_panel<<<blocks, 256, 0, l->stream>>>(*a);
    if (bg_formats[a->w.format].blockwise)
        encode_4bit<<<blocks_for(n, BG_BLOCK * 8), 256, 0, l->stream>>>(*a);
    else if (a->w.threshold > 0)
        encode_int8<<<(unsigned)a->n_rows, 256, 0, l->stream>>>(*a);
    else
        encode_floats<<<blocks, 256, 0, l->stream>>>(*a);
    return cudaGetLastError();
}

/* ---- double quantization --------------------------------------------------------------------- */

/* The index of the nearest value of the map, ascending, of 256. */
static __device__ uint8_t nearest(const float *map, float x)
{
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (x >= map[middle])
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(x - map[low] <= map[high] - x ? low : high);
}

/* One thread for each scale, one block for each block of scales. */
static __global__ void quantize_scales(cuda_double_quant_args a)
{
    __shared__ float room[BG_SCALE_BLOCK / WARP];
    const size_t i = blockIdx.x * (size_t)BG_SCALE_BLOCK + threadIdx.x;
    const float x = i < a.blocks ? a.scales[i] - a.offset : 0;
    const float absmax = block_max(fmaxf(0, fabsf(x)), room);
    const float inverse = absmax > 0 ? __fdiv_rn(1.0f, absmax) : 0;
    if (threadIdx.x == 0) a.scale_absmax[blockIdx.x] = absmax;
    if (i < a.blocks) a.scale_codes[i] = nearest(a.map, x * inverse);
}

cudaError_t bg_cuda_double_quant(const cuda_double_quant_args *a, const cuda_launch *l)
{
    if (a->blocks == 0) return cudaSuccess;
    quantize_scales<<<blocks_for(a->blocks, BG_SCALE_BLOCK), BG_SCALE_BLOCK, 0, l->stream>>>(*a);
    return cudaGetLastError();
}

/* ---- loading them ---------------------------------------------------------------------------- */

cudaError_t bg_cuda_encode_load(void)
{
    static const void *const kernels[] = {
        (const void *)widen_panel, (const void *)encode_floats,   (const void *)encode_int8,
        (const void *)encode_4bit, (const void *)quantize_scales,
    };
    for (const void *kernel : kernels) {
        cudaFuncAttributes attributes;
        const cudaError_t e = cudaFuncGetAttributes(&attributes, kernel);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}
