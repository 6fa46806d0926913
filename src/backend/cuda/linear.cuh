/* A linear layer of few rows: matrix times vector. The packed weights are read once, 4 to 16 bytes
 * a lane, and decoded in registers; a warp takes R rows of the matrix at a time, so that an
 * activation read from shared memory serves R weights, and MT rows of activations, so that a
 * decoded weight serves MT of them. The next weights are on their way while the last are
 * multiplied, and the first are asked for before the kernel waits for its input.
 *
 * Included by one file for each family of formats, which instantiates `linear` for it. */
#ifndef BG_BACKEND_CUDA_LINEAR_CUH
#define BG_BACKEND_CUDA_LINEAR_CUH

#include "backend/cuda/linear_input.cuh"

enum kind { KIND_F32, KIND_F16, KIND_BF16, KIND_INT8, KIND_4BIT, KIND_4BIT_DQ };

__host__ __device__ constexpr int kind_bits(kind k)
{
    return k == KIND_F32 ? 32 : k == KIND_INT8 ? 8 : k < KIND_INT8 ? 16 : 4;
}

__host__ __device__ constexpr bool is_4bit(kind k)
{
    return k == KIND_4BIT || k == KIND_4BIT_DQ;
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* Four values number 4j to 4j + 3 of a lane's words. 4-bit codes are looked up in a table that has
 * every entry once for each lane, so that no two lanes want the same bank of shared memory. */
template <kind K, int BYTES>
static __device__ __forceinline__ void decode_four(const words<BYTES> &v, int j, const float *table,
                                                   float out[4])
{
    if constexpr (K == KIND_F32) {
        for (int i = 0; i < 4; i++) out[i] = __uint_as_float(v.w[4 * j + i]);
    } else if constexpr (K == KIND_F16) {
        for (int i = 0; i < 2; i++) {
            float2 f = __half22float2(*(const __half2 *)&v.w[2 * j + i]);
            out[2 * i] = f.x;
            out[2 * i + 1] = f.y;
        }
    } else if constexpr (K == KIND_BF16) {
        for (int i = 0; i < 2; i++) {
            out[2 * i] = __uint_as_float(v.w[2 * j + i] << 16);
            out[2 * i + 1] = __uint_as_float(v.w[2 * j + i] & 0xFFFF0000);
        }
    } else {
        const uint32_t w = v.w[j / 2] >> (j % 2 * 16);
        for (int i = 0; i < 4; i++) {
            /* The first of two values is in the high half of its byte. An entry of the table is
             * 128 bytes wide. */
            const int shift = i / 2 * 8 + (i % 2 ? 0 : 4);
            const uint32_t at = (shift >= 7 ? w >> (shift - 7) : w << (7 - shift)) & 0x780;
            out[i] = *(const float *)((const char *)table + at);
        }
    }
}

/* ---- the kernel ------------------------------------------------------------------------------ */

template <kind K, int BYTES, int MT, int R> struct linear_shape {
    static constexpr int VALUES = BYTES * 8 / kind_bits(K); /* of a lane in a pass */
    static constexpr int FOURS = VALUES < 4 ? 1 : VALUES / 4;
    static constexpr int PASS = WARP * VALUES;
    /* Passes on their way at once. Where decoding weights or activations takes registers and time,
     * more warps serve better than more loads of each. */
    static constexpr int STAGE = MT > 1 ? 2 : (kind_bits(K) <= 8 ? 4 : 8) / R;

    static __host__ __device__ size_t passes(size_t cols) { return (cols + PASS - 1) / PASS; }
    /* Shared memory: activations, padded with zeros to whole passes; for int8 codes as well, and
     * fp32 only where one row is quantized here. */
    static size_t shared(size_t cols)
    {
        const size_t padded = passes(cols) * PASS;
        const size_t values = K == KIND_INT8 ? padded * MT + (MT == 1 ? padded * 4 + padded * 4 : 0)
                                             : padded * 4 * MT;
        return values + (is_4bit(K) ? 16 * WARP * sizeof(float) : 0);
    }
};

/* Where a warp's rows lie: in one part, or, gated, half of them in each of two. */
struct row_set {
    size_t first;
    int part;
};

template <int R>
static __host__ __device__ __forceinline__ size_t groups_of(const cuda_linear_args &a)
{
    constexpr int HALF = R > 1 ? R / 2 : 1;
    size_t groups = 0;
    if (a.paired) return (a.w[0].rows + HALF - 1) / HALF;
    for (int i = 0; i < a.n_parts; i++) groups += (a.w[i].rows + R - 1) / R;
    return groups;
}

template <int R>
static __device__ __forceinline__ row_set rows_of(const cuda_linear_args &a, size_t group)
{
    row_set s = {group * (a.paired ? R / 2 : R), 0};
    if (a.paired) return s;
    for (; s.part < a.n_parts - 1; s.part++) {
        const size_t groups = (a.w[s.part].rows + R - 1) / R;
        if (group < groups) break;
        group -= groups;
    }
    s.first = group * R;
    return s;
}

/* Matrix and row of a warp's row number r; rows behind the last are the last again. */
template <int R>
static __device__ __forceinline__ const cuda_matrix &row_of(const cuda_linear_args &a, row_set s,
                                                            int r, size_t *row)
{
    const int part = a.paired ? r / (R > 1 ? R / 2 : 1) : s.part;
    const cuda_matrix &w = a.w[part];
    *row = s.first + (a.paired ? r % (R > 1 ? R / 2 : 1) : r);
    if (*row >= w.rows) *row = w.rows - 1;
    return w;
}

template <kind K, int BYTES, int MT, int R> struct stage {
    words<BYTES> w[linear_shape<K, BYTES, MT, R>::STAGE][R];
    float scale[is_4bit(K) ? linear_shape<K, BYTES, MT, R>::STAGE : 1][R];
    uint8_t code[K == KIND_4BIT_DQ ? linear_shape<K, BYTES, MT, R>::STAGE : 1][R];
};

template <kind K, int BYTES, int MT, int R>
static __device__ __forceinline__ void load_stage(const cuda_linear_args &a, size_t group,
                                                  unsigned pass, stage<K, BYTES, MT, R> &s)
{
    using shape = linear_shape<K, BYTES, MT, R>;
    const row_set set = rows_of<R>(a, group);
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (int r = 0; r < R; r++) {
        size_t row;
        const cuda_matrix &w = row_of<R>(a, set, r, &row);
        const char *codes = (const char *)w.codes + row * a.cols * kind_bits(K) / 8;
#pragma unroll
        for (int u = 0; u < shape::STAGE; u++) {
            const unsigned at = (pass + u) * WARP + lane, k = at * shape::VALUES;
            const bool there = k < a.cols;
            if (there)
                s.w[u][r] = load_weights<BYTES>(codes + (size_t)at * BYTES);
            else
                s.w[u][r] = {};
            if constexpr (is_4bit(K)) {
                const size_t block = (row * a.cols + k) / BG_BLOCK;
                if constexpr (K == KIND_4BIT_DQ) {
                    s.code[u][r] = there ? w.scale_codes[block] : 0;
                    s.scale[u][r] = there ? w.scale_absmax[block / BG_SCALE_BLOCK] : 0;
                } else {
                    s.scale[u][r] = there ? w.scales[block] : 0;
                }
            }
        }
    }
}

template <kind K> struct sum_type {
    typedef float type;
};
template <> struct sum_type<KIND_INT8> {
    typedef int type;
};

template <kind K, int BYTES, int MT, int R>
static __device__ __forceinline__ void
multiply_stage(const cuda_linear_args &a, unsigned pass, row_set set,
               const stage<K, BYTES, MT, R> &s, const char *x, size_t x_stride, const float *table,
               typename sum_type<K>::type sums[R][MT])
{
    using shape = linear_shape<K, BYTES, MT, R>;
    const unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (int u = 0; u < shape::STAGE; u++) {
        if ((pass + u) * shape::PASS >= a.cols) break;
        if constexpr (K == KIND_INT8) {
#pragma unroll
            for (int m = 0; m < MT; m++) {
                const words<BYTES> v =
                    *(const words<BYTES> *)(x + m * x_stride +
                                            ((size_t)(pass + u) * WARP + lane) * BYTES);
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < BYTES / 4; i++)
                        sums[r][m] = __dp4a((int)s.w[u][r].w[i], (int)v.w[i], sums[r][m]);
            }
        } else {
            float part[R][MT] = {};
#pragma unroll
            for (int j = 0; j < shape::FOURS; j++) {
                float w[R][4];
#pragma unroll
                for (int r = 0; r < R; r++) decode_four<K, BYTES>(s.w[u][r], j, table, w[r]);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    const float4 v =
                        ((const float4
                              *)(x + m * x_stride))[((pass + u) * shape::FOURS + j) * WARP + lane];
#pragma unroll
                    for (int r = 0; r < R; r++) {
                        float p = __fmaf_rn(w[r][0], v.x, part[r][m]);
                        p = __fmaf_rn(w[r][1], v.y, p);
                        p = __fmaf_rn(w[r][2], v.z, p);
                        part[r][m] = __fmaf_rn(w[r][3], v.w, p);
                    }
                }
            }
#pragma unroll
            for (int r = 0; r < R; r++) {
                float scale = 1;
                if constexpr (K == KIND_4BIT) scale = s.scale[u][r];
                if constexpr (K == KIND_4BIT_DQ) {
                    size_t row;
                    const cuda_matrix &w = row_of<R>(a, set, r, &row);
                    scale = w.scale_map[s.code[u][r]] * s.scale[u][r] + w.scale_offset;
                }
#pragma unroll
                for (int m = 0; m < MT; m++) sums[r][m] = __fmaf_rn(scale, part[r][m], sums[r][m]);
            }
        }
    }
}

/* ---- the output ------------------------------------------------------------------------------ */

/* Lane r * MT + m ends up with the product of row r and activations m. What that takes besides the
 * product is asked for early: constants before the kernel waits for its input. */
struct lane_end {
    float bias, scale;
};

template <kind K, int MT, int R>
static __device__ __forceinline__ lane_end load_end(const cuda_linear_args &a, size_t group)
{
    const unsigned r = threadIdx.x % WARP / MT;
    lane_end end = {0, 0};
    if (r >= R) return end;
    const row_set set = rows_of<R>(a, group);
    size_t row;
    const cuda_matrix &w = row_of<R>(a, set, (int)r, &row);
    const float *bias = a.epilogue[a.paired ? r / (R > 1 ? R / 2 : 1) : set.part].bias;
    if (bias) end.bias = bias[row];
    if (K == KIND_INT8) end.scale = w.scales[row];
    return end;
}

template <kind K, int BYTES, int MT, int R>
static __global__ void __launch_bounds__(LINEAR_THREADS, 2) linear_few(cuda_linear_args a)
{
    using shape = linear_shape<K, BYTES, MT, R>;
    extern __shared__ __align__(16) char shared[];
    __shared__ double room[2 * LINEAR_THREADS / WARP];
    constexpr int HALF = R > 1 ? R / 2 : 1;
    const unsigned lane = threadIdx.x % WARP, my_r = lane / MT, my_m = lane % MT;
    const size_t step = gridDim.x * (blockDim.x / WARP), first = blockIdx.y * MT;
    const size_t padded = shape::passes(a.cols) * shape::PASS;
    const unsigned fours = (unsigned)padded / 4;
    const size_t groups = groups_of<R>(a);
    size_t group = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;

    /* What does not depend on earlier kernels is done before the wait for them. */
    stage<K, BYTES, MT, R> now, next;
    lane_end end = {0, 0};
    if (group < groups) {
        load_stage<K, BYTES, MT, R>(a, group, 0, now);
        end = load_end<K, MT, R>(a, group);
    }
    const bool kept = MT == 1 && fours <= (a.norm.weight ? KEPT_NORM : KEPT) * blockDim.x;
    norm_weights weights;
    if (kept && a.norm.weight) load_norm<shape>(a, fours, weights);
    float *table = (float *)(shared + padded * 4 * MT);
    if constexpr (is_4bit(K))
        for (unsigned i = threadIdx.x; i < 16 * WARP; i += blockDim.x)
            table[i] = a.w[0].code[i / WARP];
    wait_for_earlier();
    let_next_start();

    const char *x = shared;
    size_t x_stride = padded * 4;
    float4 row_values[KEPT];
    const bool own = MT == 1 && a.n_rows == 1;
    if (kept && (own || K != KIND_INT8)) {
        load_row<shape>(a, first, fours, weights, room, row_values);
    }
    int8_row one = {};
    if constexpr (K == KIND_INT8) {
        x_stride = padded;
        if (own) {
            one.values = (float *)shared;
            one.outliers = (int32_t *)(shared + padded * 4);
            one.codes = (int8_t *)(shared + padded * 8);
            x = (const char *)one.codes;
            quantize_one<shape>(a, padded, kept, row_values, one, room);
        } else {
            for (int m = 0; m < MT; m++)
                for (size_t k = threadIdx.x * 4; k < padded; k += blockDim.x * 4)
                    *(uint32_t *)(shared + m * padded + k) =
                        k < a.cols && first + m < a.n_rows
                            ? *(const uint32_t *)(a.quantized.codes + (first + m) * a.cols + k)
                            : 0;
            one.n_outliers = *a.quantized.n_outliers;
            one.outliers = a.quantized.outliers;
            one.absmax = first + my_m < a.n_rows ? a.quantized.absmax[first + my_m] : 0;
        }
    } else if (kept) {
#pragma unroll
        for (int i = 0; i < KEPT; i++) {
            const unsigned q = threadIdx.x + i * blockDim.x;
            if (q < fours) ((float4 *)shared)[q] = row_values[i];
        }
    } else {
        stage_rows<shape, MT>(a, first, fours, (float *)shared, room);
    }
    __syncthreads();

    const unsigned passes = (unsigned)shape::passes(a.cols);
    for (; group < groups; group += step) {
        const row_set set = rows_of<R>(a, group);
        const int part = a.paired ? 1 : set.part;
        const cuda_epilogue &e = a.epilogue[part];
        const size_t my_row = set.first + my_r;
        const bool mine =
            my_r < (a.paired ? HALF : R) && first + my_m < a.n_rows && my_row < a.w[part].rows;
        const size_t m = first + my_m;
        float factor = 1, addend = 0, residual = 0;
        if (mine && !a.paired) {
            if (e.multiplier) factor = e.multiplier[m * e.multiplier_stride + my_row];
            if (e.addend) addend = e.addend[m * e.addend_stride + my_row];
            if (e.residual) residual = e.residual[m * e.residual_stride + my_row];
        }
        typename sum_type<K>::type sums[R][MT] = {};
        lane_end next_end = end;
        for (unsigned pass = 0; pass < passes; pass += shape::STAGE) {
            const bool last = pass + shape::STAGE >= passes;
            if (!last) {
                load_stage<K, BYTES, MT, R>(a, group, pass + shape::STAGE, next);
            } else if (group + step < groups) {
                load_stage<K, BYTES, MT, R>(a, group + step, 0, next);
                next_end = load_end<K, MT, R>(a, group + step);
            }
            multiply_stage<K, BYTES, MT, R>(a, pass, set, now, x, x_stride, table + lane, sums);
            now = next;
        }

        float y = 0, outliers = 0;
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int i = 0; i < MT; i++) {
                const float sum = (float)warp_sum(sums[r][i]);
                if (lane == r * MT + i) y = sum;
                if constexpr (K == KIND_INT8) {
                    if (one.n_outliers == 0) continue;
                    size_t row;
                    const cuda_matrix &w = row_of<R>(a, set, r, &row);
                    const float *values =
                        own ? one.values : a.in + (first + i < a.n_rows ? first + i : 0) * a.cols;
                    const float other = warp_sum(sum_outliers(
                        w, values, one.outliers, one.n_outliers, row, (int)lane, WARP));
                    if (lane == r * MT + i) outliers = other;
                }
            }
        }
        const cuda_epilogue &mine_e = a.epilogue[a.paired ? (my_r >= HALF) : set.part];
        if constexpr (K == KIND_INT8) {
            y = y * one.absmax * end.scale;
            y = mine_e.bias ? __fmaf_rn(y, INT8_SCALE, end.bias) : y * INT8_SCALE;
            y = round_if(e.half, y);
            if (one.n_outliers > 0) y = round_if(e.half, y + outliers);
        } else {
            if (mine_e.bias) y += end.bias;
            y = round_if(e.half, y);
        }
        end = next_end;
        if (a.paired) {
            factor = y; /* of the first part */
            y = __shfl_down_sync(0xFFFFFFFF, y, HALF * MT);
        }
        if (!mine) continue;
        y = activate(e.activation, e.half, y);
        if (e.activation != BG_ACTIVATION_NONE) y = round_if(e.half, y);
        if (a.paired || e.multiplier) y = round_if(e.half, y * factor);
        if (e.addend) y = round_if(e.half, y + addend);
        if (e.residual) y = round_if(e.half, y + residual);
        e.out[m * e.out_stride + my_row] = y;
    }
}

/* ---- choosing -------------------------------------------------------------------------------- */

template <kind K, int BYTES, int MT, int R>
static cudaError_t launch_few(const cuda_linear_args &a, const cuda_launch *l)
{
    const size_t shared = linear_shape<K, BYTES, MT, R>::shared(a.cols);
    const size_t groups = groups_of<R>(a);
    /* Blocks that all run at once, each warp with the same number of groups, nearly. */
    const unsigned threads =
        groups < (size_t)l->multiprocessors * 8 && a.cols <= KEPT_NORM * 4 * LINEAR_THREADS / 2
            ? LINEAR_THREADS / 2
            : LINEAR_THREADS;
    int resident = 1;
    if (shared > 48 << 10) {
        cudaError_t e =
            cudaFuncSetAttribute((const void *)linear_few<K, BYTES, MT, R>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (e != cudaSuccess) return e;
    }
    cudaError_t e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &resident, linear_few<K, BYTES, MT, R>, (int)threads, shared);
    if (e != cudaSuccess) return e;
    const size_t warps = threads / WARP;
    const size_t at_once =
        (size_t)l->multiprocessors * (size_t)(resident > 0 ? resident : 1) * warps;
    const size_t rounds = (groups + at_once - 1) / at_once;
    const dim3 grid(blocks_for(groups, rounds * warps), blocks_for(a.n_rows, MT));
    return launch(linear_few<K, BYTES, MT, R>, grid, threads, shared, a, l);
}

/* The most rows of activations that a pass over the weights can serve. */
template <kind K, int BYTES>
static cudaError_t choose_rows(const cuda_linear_args &a, const cuda_launch *l)
{
    const size_t most = (size_t)l->max_shared - 1024;
    size_t rows = 0;
    for (int i = 0; i < (a.paired ? 2 : a.n_parts); i++) rows += a.w[i].rows;
    if (a.n_rows > 4 && linear_shape<K, BYTES, 8, 2>::shared(a.cols) <= most)
        return launch_few<K, BYTES, 8, 2>(a, l);
    if (a.n_rows > 2 && linear_shape<K, BYTES, 4, 2>::shared(a.cols) <= most)
        return launch_few<K, BYTES, 4, 2>(a, l);
    if (a.n_rows > 1 && linear_shape<K, BYTES, 2, 2>::shared(a.cols) <= most)
        return launch_few<K, BYTES, 2, 2>(a, l);
    const size_t units = (size_t)l->multiprocessors;
    /* Warps enough to keep the memory busy come first, then rows that share an activation, which
     * decoding 4 bits profits from more. */
    const size_t enough = units * (is_4bit(K) ? 8 : 14);
    if (rows / 4 >= enough) return launch_few<K, BYTES, 1, 4>(a, l);
    if (a.paired || rows / 2 >= enough) return launch_few<K, BYTES, 1, 2>(a, l);
    return launch_few<K, BYTES, 1, 1>(a, l);
}

/* The widest loads whose passes end where the row ends. */
template <kind K> static cudaError_t choose_width(const cuda_linear_args &a, const cuda_launch *l)
{
    if (a.cols % linear_shape<K, 16, 1, 1>::PASS == 0) return choose_rows<K, 16>(a, l);
    if constexpr (kind_bits(K) <= 8) {
        if (a.cols % linear_shape<K, 8, 1, 1>::PASS == 0) return choose_rows<K, 8>(a, l);
    }
    if constexpr (is_4bit(K)) {
        if (a.cols % linear_shape<K, 4, 1, 1>::PASS == 0) return choose_rows<K, 4>(a, l);
    }
    return choose_rows<K, 16>(a, l);
}

typedef cudaError_t (*linear_launch)(const cuda_linear_args &a, const cuda_launch *l);

/* One for each family, in the file of its own. */
cudaError_t linear_f32(const cuda_linear_args &a, const cuda_launch *l);
cudaError_t linear_f16(const cuda_linear_args &a, const cuda_launch *l);
cudaError_t linear_bf16(const cuda_linear_args &a, const cuda_launch *l);
cudaError_t linear_int8(const cuda_linear_args &a, const cuda_launch *l);
cudaError_t linear_4bit(const cuda_linear_args &a, const cuda_launch *l);
cudaError_t linear_4bit_dq(const cuda_linear_args &a, const cuda_launch *l);

#endif
