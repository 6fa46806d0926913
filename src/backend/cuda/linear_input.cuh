/* The input of a linear layer of few rows, as every block puts it into shared memory for itself:
 * normed where a norm is merged with the layer, and for LLM.int8() quantized. A `Shape` is a
 * linear_shape of linear.cuh. */
#ifndef BG_BACKEND_CUDA_LINEAR_INPUT_CUH
#define BG_BACKEND_CUDA_LINEAR_INPUT_CUH

#include "backend/cuda/device.cuh"

enum { LINEAR_THREADS = 256 };

/* Up to so many fours of values of one row a thread keeps in registers, and fewer where it needs a
 * norm's weights beside them. */
enum { KEPT = 8, KEPT_NORM = 4 };

/* A norm's weights: asked for before the kernel waits for its input. */
struct norm_weights {
    float4 weight[KEPT_NORM], bias[KEPT_NORM];
};

/* Number of the first of the four columns that place q of the staged input holds: lanes take their
 * values pass by pass, four at a time. */
template <typename Shape> static __device__ __forceinline__ unsigned column_of(unsigned q)
{
    return (q / (Shape::FOURS * WARP) * WARP + q % WARP) * Shape::VALUES +
           q / WARP % Shape::FOURS * 4;
}

static __device__ __forceinline__ float &part_of(float4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* The norm of a row in registers. Sums are of type T: in a 16-bit model of double precision, so
 * that they round as on the CPU. */
template <typename T>
static __device__ __forceinline__ norm_state row_state(const cuda_linear_args &a, float4 x[KEPT],
                                                       const bool there[KEPT], double *room)
{
    norm_state s = {0, 0};
    T *sums = (T *)room, total = 0;
    if (a.norm.kind == BG_NORM_LAYER) {
#pragma unroll
        for (int i = 0; i < KEPT_NORM; i++)
            total += ((T)x[i].x + (T)x[i].y) + ((T)x[i].z + (T)x[i].w);
        s.mean = (float)(first_block_sum(total, sums) / (T)a.cols);
        sums += LINEAR_THREADS / WARP;
    }
    total = 0;
#pragma unroll
    for (int i = 0; i < KEPT_NORM; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const T d = (T)part_of(x[i], j) - (T)s.mean;
            if (there[i]) total += d * d;
        }
    total = first_block_sum(total, sums);
    if (sizeof(T) == sizeof(double))
        s.scale = norm_scale((double)total, a.cols, a.norm.eps);
    else
        s.scale = 1.0f / sqrtf((float)total / (float)a.cols + a.norm.eps);
    if (a.norm.kind == BG_NORM_LAYER && a.norm_half) s.scale = nextafterf(s.scale, 0);
    return s;
}

/* One row of input in registers, normed where there is a norm. Threads take places of the staged
 * input in turn; places behind the end of the row are zeros. */
template <typename Shape>
static __device__ __forceinline__ void load_row(const cuda_linear_args &a, size_t row,
                                                unsigned fours, const norm_weights &n, double *room,
                                                float4 x[KEPT])
{
    bool there[KEPT];
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const unsigned q = threadIdx.x + i * blockDim.x, k = column_of<Shape>(q);
        there[i] = q < fours && k < a.cols;
        x[i] = there[i] ? *(const float4 *)(a.in + row * a.cols + k) : make_float4(0, 0, 0, 0);
    }
    if (!a.norm.weight) return;
    const norm_state s =
        a.norm_half ? row_state<double>(a, x, there, room) : row_state<float>(a, x, there, room);
#pragma unroll
    for (int i = 0; i < KEPT_NORM; i++) {
        if (!there[i]) continue;
        float4 w = n.weight[i], b = n.bias[i];
#pragma unroll
        for (int j = 0; j < 4; j++)
            part_of(x[i], j) = norm_apply(a.norm.kind, a.norm.bias != NULL, s, a.norm_half,
                                          part_of(x[i], j), part_of(w, j), part_of(b, j));
        if (blockIdx.x == 0)
            *(float4 *)(a.normed + column_of<Shape>(threadIdx.x + i * blockDim.x)) = x[i];
    }
}

template <typename Shape>
static __device__ __forceinline__ void load_norm(const cuda_linear_args &a, unsigned fours,
                                                 norm_weights &n)
{
#pragma unroll
    for (int i = 0; i < KEPT_NORM; i++) {
        const unsigned q = threadIdx.x + i * blockDim.x, k = column_of<Shape>(q);
        const bool there = q < fours && k < a.cols && a.norm.weight;
        n.weight[i] = there ? *(const float4 *)(a.norm.weight + k) : make_float4(0, 0, 0, 0);
        n.bias[i] =
            there && a.norm.bias ? *(const float4 *)(a.norm.bias + k) : make_float4(0, 0, 0, 0);
    }
}

/* Rows [first, first + MT) to shared memory, straight from where they lie; zeros behind the last.
 * Any length. */
template <typename Shape, int MT>
static __device__ void stage_rows(const cuda_linear_args &a, size_t first, unsigned fours, float *x,
                                  double *room)
{
    norm_state state = {};
    const bool normed = MT == 1 && a.norm.weight;
    if (normed) state = block_norm(a.norm, a.norm_half, a.in, a.cols, room);
    for (int m = 0; m < MT; m++) {
        const float *in = a.in + (first + m) * a.cols;
        for (unsigned q = threadIdx.x; q < fours; q += blockDim.x) {
            const unsigned k = column_of<Shape>(q);
            float4 v = make_float4(0, 0, 0, 0);
            if (k < a.cols && first + m < a.n_rows) v = *(const float4 *)(in + k);
            if (normed && k < a.cols) {
                for (int j = 0; j < 4; j++)
                    part_of(v, j) =
                        norm_value(a.norm, state, a.norm_half, part_of(v, j), k + (unsigned)j);
                if (blockIdx.x == 0) *(float4 *)(a.normed + k) = v;
            }
            ((float4 *)x)[m * fours + q] = v;
        }
    }
}

/* LLM.int8()'s input of one row, by every block for itself. */
struct int8_row {
    int8_t *codes;     /* (padded) */
    float *values;     /* (padded) */
    int32_t *outliers; /* (padded) their columns, ascending */
    float absmax;
    int n_outliers;
};

static __device__ __forceinline__ float without_outlier(float v, float threshold)
{
    v = round_half(v);
    return fabsf(v) < threshold ? v : 0;
}

static __device__ __forceinline__ uint32_t int8_code(float v, float threshold, float factor)
{
    if (fabsf(v) >= threshold) return 0;
    return (uint32_t)(int)rintf(without_outlier(v, threshold) * factor) & 0xFF;
}

/* With the row in registers (KEPT), or in x.values already. */
template <typename Shape>
static __device__ void quantize_one(const cuda_linear_args &a, size_t padded, bool kept,
                                    float4 v[KEPT], int8_row &x, double *room)
{
    const unsigned fours = (unsigned)padded / 4;
    const float threshold = a.w[0].threshold;
    float most = 0;
    bool any = false;
    if (kept) {
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            const unsigned q = threadIdx.x + i * blockDim.x;
            if (i * blockDim.x >= fours) break; /* one branch: each is fetched for the first time */
            if (q < fours) *(float4 *)(x.values + column_of<Shape>(q)) = v[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                most = fmaxf(most, fabsf(without_outlier(part_of(v[i], j), threshold)));
                any |= fabsf(part_of(v[i], j)) >= threshold;
            }
        }
    } else {
        norm_state state = {};
        if (a.norm.weight) state = block_norm(a.norm, a.norm_half, a.in, a.cols, room);
        for (unsigned k = threadIdx.x; k < padded; k += blockDim.x) {
            float y = k < a.cols ? a.in[k] : 0;
            if (a.norm.weight && k < a.cols) {
                y = norm_value(a.norm, state, a.norm_half, y, k);
                if (blockIdx.x == 0) a.normed[k] = y;
            }
            x.values[k] = y;
            most = fmaxf(most, fabsf(without_outlier(y, threshold)));
            any |= fabsf(y) >= threshold;
        }
    }
    x.absmax = block_max(most, (float *)room);
    const float factor = x.absmax > 0 ? 127 * reciprocal(a.reciprocals, x.absmax) : 0;
    if (kept) {
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            const unsigned q = threadIdx.x + i * blockDim.x;
            if (i * blockDim.x >= fours) break;
            if (q >= fours) continue;
            *(uint32_t *)(x.codes + column_of<Shape>(q)) =
                int8_code(v[i].x, threshold, factor) | int8_code(v[i].y, threshold, factor) << 8 |
                int8_code(v[i].z, threshold, factor) << 16 |
                int8_code(v[i].w, threshold, factor) << 24;
        }
    } else {
        for (unsigned k = threadIdx.x; k < padded; k += blockDim.x)
            x.codes[k] = (int8_t)int8_code(x.values[k], threshold, factor);
    }
    x.n_outliers = 0;
    if (!__syncthreads_or(any)) return;
    if (threadIdx.x < WARP) {
        int n = 0;
        for (size_t k = threadIdx.x; k < padded; k += WARP) {
            const bool outlier = fabsf(x.values[k]) >= threshold;
            const unsigned all = __ballot_sync(0xFFFFFFFF, outlier);
            if (outlier) x.outliers[n + __popc(all & ((1u << threadIdx.x) - 1))] = (int32_t)k;
            n += __popc(all);
        }
        if (threadIdx.x == 0) ((int *)room)[0] = n;
    }
    __syncthreads();
    x.n_outliers = ((int *)room)[0];
}

#endif
