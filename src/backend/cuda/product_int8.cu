/* Around the library's int8 product of many rows: the outlier columns, gathered before it, and its
 * end, which is what LLM.int8() does to the sums of codes, and the outlier columns multiplied in 16
 * bits. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/outliers.cuh"

enum {
    TILE = 64, /* rows and columns of a block */
    THREADS = 128,
    COLUMNS = TILE / 8,   /* eights of columns of a warp, which has 16 rows */
    SUM_PITCH = TILE + 4, /* of the outliers' sums */
    BLOCKS = 5,           /* of a multiprocessor */
    GATHER_THREADS = 256,
};

/* What a number stays the same with when it is added, zeros with their signs, too. */
#define NOTHING (-0.0f)

typedef outlier_tile<TILE, THREADS> tile_of_outliers;

/* ---- gathering ------------------------------------------------------------------------------- */

/* How many columns lie gathered for n: up to a chunk with zeros. */
static __device__ __forceinline__ int gathered(int n)
{
    return (n + tile_of_outliers::CHUNK - 1) / tile_of_outliers::CHUNK * tile_of_outliers::CHUNK;
}

static __device__ __forceinline__ void gather_input(const cuda_gather_args &a, size_t row)
{
    const cuda_quantized &q = a.quantized;
    const size_t cols = a.w.cols;
    const outlier_columns o = columns_of(q, sequence_of(q, row), cols);
    const bool fits = (size_t)o.n <= q.room;
    __half *to = (__half *)q.outlier_in + row * q.room;
    for (int i = (int)threadIdx.x; i < gathered(o.n); i += GATHER_THREADS) {
        const size_t at = row * cols + (size_t)(i < o.n ? o.list[i] : 0);
        if (fits) to[i] = __float2half_rn(i < o.n ? a.in[at] : 0);
        if (i < o.n) q.codes[at] = 0;
    }
}

static __device__ __forceinline__ void gather_weights(const cuda_gather_args &a, size_t row)
{
    const cuda_quantized &q = a.quantized;
    const int8_t *codes = (const int8_t *)a.w.codes + row * a.w.cols;
    const float scale = a.w.scales[row];
    /* A warp for each sequence: of one alone there are seldom many columns. */
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    for (int s = warp; s < q.n_sequences; s += GATHER_THREADS / WARP) {
        const outlier_columns o = columns_of(q, s, a.w.cols);
        if ((size_t)o.n > q.room) continue;
        uint4 *to = (uint4 *)((__half *)q.outlier_weights + ((size_t)s * a.w.rows + row) * q.room);
        for (int i = lane; i < gathered(o.n) / 8; i += WARP)
            to[i] = outlier_weights(outlier_codes(codes, o, i * 8), scale);
    }
}

/* Rows of the input, then of the weights, in turn. */
static __global__ void __launch_bounds__(GATHER_THREADS) gather_outliers(cuda_gather_args a)
{
    wait_for_earlier();
    let_next_start();
    int some = 0;
    for (int s = (int)threadIdx.x; s < a.quantized.n_sequences; s += GATHER_THREADS)
        some |= a.quantized.n_outliers[s];
    if (!__syncthreads_or(some)) return;
    const size_t inputs = a.input ? a.n_rows : 0;
    for (size_t r = blockIdx.x; r < inputs + a.w.rows; r += gridDim.x) {
        if (r < inputs)
            gather_input(a, r);
        else
            gather_weights(a, r - inputs);
    }
}

cudaError_t bg_cuda_gather(const cuda_gather_args *a, const cuda_launch *l)
{
    return launch(gather_outliers, dim3(4 * (unsigned)l->multiprocessors), GATHER_THREADS, 0, *a,
                  l);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* Weights, and their outlier columns as they were gathered. */
struct factor {
    const cuda_matrix *w;
    const void *gathered;
};

/* The outliers of a sequence that has rows in the tile, added to a warp's sums. */
static __device__ __forceinline__ void add_sequence(const cuda_finish_args &a, factor f,
                                                    int sequence, size_t row, size_t col,
                                                    __half *room, float sum[COLUMNS][4])
{
    typedef tile_of_outliers T;
    const cuda_quantized &q = a.quantized;
    const size_t cols = f.w->cols;
    const outlier_columns o = columns_of(q, sequence, cols);
    const row_range rows = rows_of(q, sequence, a.n_rows);
    const bool direct = (size_t)o.n > q.room;
    const uint4 zeros = make_uint4(0, 0, 0, 0);
    each_outlier_chunk<T>(
        o.n, room,
        [&](int, int i, int k) {
            const size_t m = row + (size_t)i;
            if (m < rows.begin || m >= rows.end) return zeros;
            if (direct) return outlier_inputs(a.in + m * cols, o, k);
            return *(const uint4 *)((const __half *)q.outlier_in + m * q.room + (size_t)k);
        },
        [&](int, int i, int k) {
            const size_t c = col + (size_t)i;
            if (c >= f.w->rows) return zeros;
            if (direct)
                return outlier_weights(outlier_codes((const int8_t *)f.w->codes + c * cols, o, k),
                                       f.w->scales[c]);
            return *(const uint4 *)((const __half *)f.gathered +
                                    ((size_t)sequence * f.w->rows + c) * q.room + (size_t)k);
        },
        [] {},
        [&] {
            const int warp = (int)threadIdx.x / WARP;
#pragma unroll
            for (int step = 0; step < T::CHUNK; step += 16) {
                uint32_t left[4];
                load_a(left, room + warp * 16 * T::PITCH + step, T::PITCH);
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 2) {
                    uint32_t right[4];
                    load_b_pair(right, room + T::SIZE + j * 8 * T::PITCH + step, T::PITCH);
                    mma_half(sum[j], left, right);
                    mma_half(sum[j + 1], left, right + 2);
                }
            }
        });
}

/* Whether a row of the tile that begins with `row` has outliers. */
static __device__ __forceinline__ bool tile_has_outliers(const cuda_finish_args &a, size_t row)
{
    const cuda_quantized &q = a.quantized;
    const size_t last = (row + TILE < a.n_rows ? row + TILE : a.n_rows) - 1;
    bool some = false;
    for (int s = sequence_of(q, row), end = sequence_of(q, last); s <= end; s++)
        some |= q.n_outliers[s] > 0;
    return some;
}

/* The tile's sums over outlier columns, to shared memory; `sums` may be `room`. Not inlined: most
 * tiles have none, and more blocks fit without its registers. */
static __device__ __noinline__ void sum_tile(const cuda_finish_args &a, factor f, size_t row,
                                             size_t col, __half *room, float *sums)
{
    const cuda_quantized &q = a.quantized;
    const size_t last = (row + TILE < a.n_rows ? row + TILE : a.n_rows) - 1;
    float sum[COLUMNS][4] = {};
    for (int s = sequence_of(q, row), end = sequence_of(q, last); s <= end; s++)
        if (q.n_outliers[s] > 0) add_sequence(a, f, s, row, col, room, sum);
    __syncthreads();
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int own = warp * 16 + half * 8 + lane / 4;
        float *to = sums + own * SUM_PITCH + lane % 4 * 2;
        const size_t m = row + (size_t)own;
        const bool has = m < a.n_rows && q.n_outliers[sequence_of(q, m)] > 0;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) to[j * 8 + i] = has ? sum[j][half * 2 + i] : NOTHING;
    }
    __syncthreads();
}

template <int WIDTH> struct vector;
template <> struct vector<1> {
    typedef float floats;
    typedef int32_t ints;
};
template <> struct vector<4> {
    typedef float4 floats;
    typedef int4 ints;
};

/* WIDTH results side by side, and what they are made of. GATED: another layer's multiply them. */
template <int WIDTH, bool GATED> struct results {
    typedef typename vector<WIDTH>::floats floats;
    typedef typename vector<WIDTH>::ints ints;
    ints product, other;
    floats scale, other_scale, bias, other_bias, multiplier, addend, residual;
    float absmax;

    static __device__ __forceinline__ int32_t &part(ints &v, int i) { return ((int32_t *)&v)[i]; }
    static __device__ __forceinline__ float &part(floats &v, int i) { return ((float *)&v)[i]; }

    __device__ __forceinline__ void load(const cuda_finish_args &a, size_t m, size_t col)
    {
        const cuda_epilogue &e = a.epilogue;
        const size_t at = m * a.n + (col - a.first);
        product = *(const ints *)((const int32_t *)a.product + at);
        scale = *(const floats *)(a.w.scales + col);
        absmax = a.quantized.absmax[m];
        if (e.bias) bias = *(const floats *)(e.bias + col);
        if (GATED) {
            other = *(const ints *)((const int32_t *)a.other.product + at);
            other_scale = *(const floats *)(a.other.w.scales + col);
            if (a.other.bias) other_bias = *(const floats *)(a.other.bias + col);
        } else if (e.multiplier) {
            multiplier = *(const floats *)(e.multiplier + m * e.multiplier_stride + col);
        }
        if (e.addend) addend = *(const floats *)(e.addend + m * e.addend_stride + col);
        if (e.residual) residual = *(const floats *)(e.residual + m * e.residual_stride + col);
    }

    /* A sum of codes, and of outliers, as the layer's result before its activation. */
    static __device__ __forceinline__ float dequantize(bool half, int32_t sum, float absmax,
                                                       float scale, bool biased, float bias,
                                                       bool some, float outliers)
    {
        float y = (float)sum * absmax * scale;
        y = round_if(half, biased ? __fmaf_rn(y, INT8_SCALE, bias) : y * INT8_SCALE);
        return some ? round_if(half, y + outliers) : y;
    }

    /* Sums over outliers, if there are some. */
    __device__ __forceinline__ void finish(const cuda_finish_args &a, size_t m, size_t col,
                                           bool some, const float *outliers,
                                           const float *other_outliers)
    {
        const cuda_epilogue &e = a.epilogue;
        floats out;
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            epilogue_inputs in = {};
            if (GATED)
                in.multiplier =
                    dequantize(e.half, part(other, i), absmax, part(other_scale, i), a.other.bias,
                               part(other_bias, i), some, some ? other_outliers[i] : 0);
            else
                in.multiplier = part(multiplier, i);
            in.addend = part(addend, i);
            in.residual = part(residual, i);
            const float y = dequantize(e.half, part(product, i), absmax, part(scale, i), e.bias,
                                       part(bias, i), some, some ? outliers[i] : 0);
            part(out, i) = finished(e, in, y);
        }
        *(floats *)(e.out + m * e.out_stride + col) = out;
    }
};

template <int WIDTH, bool GATED>
static __global__ void __launch_bounds__(THREADS, BLOCKS)
    finish_int8(const __grid_constant__ cuda_finish_args a)
{
    constexpr int EACH = TILE * TILE / WIDTH / THREADS, ACROSS = TILE / WIDTH, TOGETHER = 2;
    __shared__ __align__(16) __half room[2 * tile_of_outliers::SIZE];
    __shared__ float other_sums[GATED ? TILE * SUM_PITCH : 1];
    float *sums = (float *)room;
    static_assert(sizeof room >= TILE * SUM_PITCH * sizeof *sums, "sums lie where factors were");
    wait_for_earlier();
    let_next_start();
    const size_t row = blockIdx.y * (size_t)TILE, col = a.first + blockIdx.x * (size_t)TILE;
    const bool some = tile_has_outliers(a, row);
    if (some && GATED)
        sum_tile(a, {&a.other.w, a.other.outlier_weights}, row, col, room, other_sums);
    if (some) sum_tile(a, {&a.w, a.quantized.outlier_weights}, row, col, room, sums);
    for (int i = 0; i < EACH; i += TOGETHER) {
        results<WIDTH, GATED> r[TOGETHER];
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int at = (i + k) * THREADS + (int)threadIdx.x;
            const size_t m = row + at / ACROSS, c = col + at % ACROSS * WIDTH;
            if (m < a.n_rows && c < a.first + a.n) r[k].load(a, m, c);
        }
#pragma unroll
        for (int k = 0; k < TOGETHER; k++) {
            const int at = (i + k) * THREADS + (int)threadIdx.x;
            const int own_row = at / ACROSS, own_col = at % ACROSS * WIDTH;
            const size_t m = row + own_row, c = col + own_col;
            const int place = own_row * SUM_PITCH + own_col;
            if (m < a.n_rows && c < a.first + a.n)
                r[k].finish(a, m, c, some, sums + place, GATED ? other_sums + place : sums);
        }
    }
}

static bool fours(const float *p, size_t stride)
{
    return (uintptr_t)p % sizeof(float4) == 0 && stride % 4 == 0;
}

cudaError_t bg_cuda_finish_int8(const cuda_finish_args *a, const cuda_launch *l)
{
    const cuda_epilogue *e = &a->epilogue;
    const dim3 grid(blocks_for(a->n, TILE), blocks_for(a->n_rows, TILE));
    const bool gated = a->other.product;
    const bool wide = a->n % 4 == 0 && a->first % 4 == 0 && fours(a->w.scales, 0) &&
                      fours(e->bias, 0) && fours(e->out, e->out_stride) &&
                      fours(a->other.w.scales, 0) && fours(a->other.bias, 0) &&
                      fours(e->multiplier, e->multiplier_stride) &&
                      fours(e->addend, e->addend_stride) && fours(e->residual, e->residual_stride);
    void (*kernel)(cuda_finish_args);
    if (gated)
        kernel = wide ? finish_int8<4, true> : finish_int8<1, true>;
    else
        kernel = wide ? finish_int8<4, false> : finish_int8<1, false>;
    return launch(kernel, grid, THREADS, 0, *a, l);
}
