/* int8 layers of up to a thousand rows, where a matrix product of the library is over before it has
 * begun, or what comes before and after it costs more: several layers of one input in one launch,
 * and the epilogue at once. Tiles of 32 x 32 results as long as there are few, so that all of the
 * GPU has some; else of 64 x 64, which read less. Weights are asked for before the input is
 * there. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/product_tile.cuh"

enum { MOST_ROWS = 1024 };

/* Beyond so many products and sums, larger tiles and fewer bytes matter more than launches, and
 * sums of codes in memory between two of them; but not of few rows. */
#define MOST_OPERATIONS 0x1.8p31

/* ---- outliers -------------------------------------------------------------------------------- */

/* What a thread sums: results of outlier columns, or of their codes. */
union outlier_sums {
    float more[4];
    int32_t taken[4];
};

/* The outlier columns of a sequence: multiplied in 16 bits by the first four warps, a quarter of
 * the tile each, and their codes by the others. */
template <typename S>
static __device__ __forceinline__ void
add_sequence(const cuda_tile_args &a, const cuda_matrix &w, int sequence, size_t row, size_t col,
             __half *room, outlier_sums sums[S::TILE / 32][S::TILE / 16])
{
    typedef typename S::outliers T;
    constexpr int CODE_PITCH = S::CODE_PITCH, QUARTER = S::TILE / 2;
    const int warp = (int)threadIdx.x / WARP;
    const int above = warp / 2 % 2 * QUARTER, beside = warp % 2 * QUARTER;
    const cuda_quantized &q = a.quantized;
    const outlier_columns o = columns_of(q, sequence, a.cols);
    const row_range rows = rows_of(q, sequence, a.n_rows);
    char *codes = (char *)(room + 2 * T::SIZE), *other = codes + S::TILE * CODE_PITCH;
    const uint2 nothing = make_uint2(0, 0);
    const uint4 zeros = make_uint4(0, 0, 0, 0);
    uint2 left[T::LOADS], right[T::LOADS];
    each_outlier_chunk<T>(
        o.n, room,
        [&](int place, int i, int k) {
            const size_t m = row + (size_t)i;
            left[place] = nothing;
            if (m < rows.begin || m >= rows.end) return zeros;
            left[place] = outlier_codes(q.codes + m * a.cols, o, k);
            return outlier_inputs(a.in + m * a.cols, o, k);
        },
        [&](int place, int i, int k) {
            const size_t c = col + (size_t)i;
            right[place] = nothing;
            if (c >= w.rows) return zeros;
            right[place] = outlier_codes((const int8_t *)w.codes + c * a.cols, o, k);
            return outlier_weights(right[place], w.scales[c]);
        },
        [&] {
#pragma unroll
            for (int i = 0; i < T::LOADS; i++) {
                const int at = (int)threadIdx.x + i * THREADS;
                const int to = at / T::EIGHTS * CODE_PITCH + at % T::EIGHTS * 8;
                *(uint2 *)(codes + to) = left[i];
                *(uint2 *)(other + to) = right[i];
            }
        },
        [&] {
            uint32_t x[4], y[4];
#pragma unroll
            for (int i = 0; i < QUARTER; i += 16)
#pragma unroll
                for (int j = 0; j < QUARTER; j += 16) {
                    if (warp < 4) {
#pragma unroll
                        for (int step = 0; step < T::CHUNK; step += 16) {
                            load_a(x, room + (above + i) * T::PITCH + step, T::PITCH);
                            load_b_pair(y, room + T::SIZE + (beside + j) * T::PITCH + step,
                                        T::PITCH);
                            mma_half(sums[i / 16][j / 8].more, x, y);
                            mma_half(sums[i / 16][j / 8 + 1].more, x, y + 2);
                        }
                        continue;
                    }
#pragma unroll
                    for (int step = 0; step < T::CHUNK; step += 32) {
                        load_a(x, (const __half *)(codes + (above + i) * CODE_PITCH + step),
                               CODE_PITCH / 2);
                        load_b_pair(y, (const __half *)(other + (beside + j) * CODE_PITCH + step),
                                    CODE_PITCH / 2);
                        mma_codes(sums[i / 16][j / 8].taken, x, y);
                        mma_codes(sums[i / 16][j / 8 + 1].taken, x, y + 2);
                    }
                }
        });
}

/* The sequences that have rows in a tile. */
struct sequence_range {
    int first, last;
};

/* By whole warps, a lane for each sequence: a search would wait for memory at every step. */
static __device__ __forceinline__ sequence_range sequences_of(const cuda_tile_args &a, size_t row,
                                                              int tile)
{
    const cuda_quantized &q = a.quantized;
    if (!q.starts) return {0, 0};
    const size_t end = row + (size_t)tile < a.n_rows ? row + (size_t)tile : a.n_rows;
    sequence_range r = {-1, -1};
#pragma unroll 1
    for (int first = 0; first < q.n_sequences; first += WARP) {
        const int own = first + (int)threadIdx.x % WARP;
        const size_t start = own < q.n_sequences ? (size_t)q.starts[own] : SIZE_MAX;
        r.first += __popc(__ballot_sync(0xFFFFFFFF, start <= row));
        r.last += __popc(__ballot_sync(0xFFFFFFFF, start < end));
    }
    return r;
}

/* What the thread sees of their masks, which most have one word of. */
static __device__ __forceinline__ uint32_t look_for_outliers(const cuda_tile_args &a,
                                                             sequence_range s)
{
    const unsigned words = words_of(a.cols), n = (unsigned)(s.last - s.first + 1) * words;
    const uint32_t *masks = a.quantized.mask + (size_t)s.first * words;
    uint32_t some = threadIdx.x < n ? masks[threadIdx.x] : 0;
#pragma unroll 1
    for (unsigned i = threadIdx.x + THREADS; i < n; i += THREADS) some |= masks[i];
    return some;
}

/* What outlier columns add to a tile's results, to shared memory, and what their codes have added
 * that must not be there, out of the sums again. Not inlined: it is seldom wanted, and takes
 * registers. */
template <typename S>
static __device__ __noinline__ void sum_outliers(const cuda_tile_args &a, int part, size_t row,
                                                 size_t col, char *room)
{
    constexpr int QUARTER = S::TILE / 2;
    const sequence_range sequences = sequences_of(a, row, S::TILE);
    int32_t *sums = (int32_t *)room;
    for (int i = (int)threadIdx.x; i < S::TILE * S::TILE; i += THREADS) {
        const int at = i / S::TILE * S::SUM_PITCH + i % S::TILE;
        int32_t sum = 0;
        for (int k = 0; k < S::SLICES; k++) sum += sums[k * S::SUM + at];
        sums[at] = sum;
    }
    __syncthreads();
    outlier_sums own[QUARTER / 16][QUARTER / 8] = {};
    for (int s = sequences.first; s <= sequences.last; s++)
        if (list_columns(a.quantized, s, a.cols) > 0)
            add_sequence<S>(a, a.w[part], s, row, col, (__half *)(room + S::SUM * 4), own);
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int above = warp / 2 % 2 * QUARTER + lane / 4, beside = warp % 2 * QUARTER + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < QUARTER / 16; i++)
#pragma unroll
        for (int j = 0; j < QUARTER / 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int r = above + i * 16 + k / 2 * 8, c = beside + j * 8 + k % 2;
                if (warp < 4)
                    ((float *)(room + S::MORE))[r * S::MORE_PITCH + c] = own[i][j].more[k];
                else
                    sums[r * S::SUM_PITCH + c] -= own[i][j].taken[k];
            }
    __syncthreads();
}

/* ---- the product ----------------------------------------------------------------------------- */

/* A warp's sums to shared memory: those of a corner. */
template <typename S>
static __device__ __forceinline__ void keep_sums(int32_t *to, const int32_t (&sum)[2][4][4])
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int above = warp % S::CORNERS / 2 * CORNER, beside = warp % S::CORNERS % 2 * CORNER;
    to += warp / S::CORNERS * S::SUM + above * S::SUM_PITCH + beside;
    to += lane / 4 * S::SUM_PITCH + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int32_t *at = to + i * 16 * S::SUM_PITCH + j * 8;
            *(int2 *)at = make_int2(sum[i][j][0], sum[i][j][1]);
            *(int2 *)(at + 8 * S::SUM_PITCH) = make_int2(sum[i][j][2], sum[i][j][3]);
        }
}

/* Those that a warp has of its warpgroup's, which are all of the tile. */
template <typename S>
static __device__ __forceinline__ void keep_sums(int32_t *to,
                                                 const int32_t (&sum)[S::TILE * S::TILE / GROUP])
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x % GROUP / WARP;
    to += (int)threadIdx.x / GROUP * S::SUM + warp * 16 * S::SUM_PITCH;
    to += lane / 4 * S::SUM_PITCH + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < S::TILE / 8; j++) {
        *(int2 *)(to + j * 8) = make_int2(sum[j * 4], sum[j * 4 + 1]);
        *(int2 *)(to + 8 * S::SUM_PITCH + j * 8) = make_int2(sum[j * 4 + 2], sum[j * 4 + 3]);
    }
}

/* What most results of a thread are made of besides their sums: GROUPS times four side by side, in
 * the same columns of every APARTth row. What the layer's arguments say is read once. */
template <typename S> struct four_results {
    static constexpr int APART = THREADS * FOUR / S::TILE; /* rows */
    static_assert(THREADS * FOUR % S::TILE == 0, "the same columns");
    size_t col;
    four_inputs in;
    float4 scales;
    float absmax[S::GROUPS]; /* of the next rows */
    float4 residual[S::GROUPS];
    /* What is known when the sums are: */
    layer_end end;
    int rows; /* from the next one on */
    float *out;
    size_t apart;

    __device__ __forceinline__ void load(const cuda_tile_args &a, int part, size_t first_row,
                                         size_t first_col)
    {
        const cuda_epilogue &e = a.epilogue[part];
        const size_t row = first_row + threadIdx.x * FOUR / S::TILE;
        col = first_col + threadIdx.x * FOUR % S::TILE;
        if (col >= a.w[part].rows) return;
        scales = *(const float4 *)(a.w[part].scales + col);
        if (e.bias) in.bias = *(const float4 *)(e.bias + col);
        absmax[0] = a.quantized.absmax[min(row, a.n_rows - 1)];
        if (e.residual && row < a.n_rows)
            residual[0] = *(const float4 *)(e.residual + row * e.residual_stride + col);
    }

    /* What there were no registers for while codes were multiplied is asked for now, all at once.
     */
    __device__ __forceinline__ void begin(const cuda_tile_args &a, int part, size_t first_row)
    {
        const cuda_epilogue &e = a.epilogue[part];
        const size_t row = first_row + threadIdx.x * FOUR / S::TILE;
        end = known_end_of(e);
        const bool there = col < a.w[part].rows && row < a.n_rows;
        rows = there ? (int)min(a.n_rows - row, (size_t)S::TILE) : 0;
        apart = APART * e.out_stride;
        out = e.out + row * e.out_stride + col;
        const float *from = e.residual + row * e.residual_stride + col;
#pragma unroll
        for (int g = 1; g < S::GROUPS; g++) {
            if (g * APART >= rows) continue;
            absmax[g] = a.quantized.absmax[row + (size_t)(g * APART)];
            if (end.does & END_RESIDUAL)
                residual[g] = *(const float4 *)(from + (size_t)(g * APART) * e.residual_stride);
        }
    }

    /* Writes the next row's; more: of outliers, if there are some. */
    __device__ __forceinline__ void finish(const cuda_epilogue &e, size_t m, int4 sums, bool some,
                                           const float *more)
    {
        const bool half = end.does & END_HALF;
        const float4 &b = in.bias;
        in.residual = residual[0];
        float4 y =
            make_float4((float)sums.x * absmax[0] * scales.x, (float)sums.y * absmax[0] * scales.y,
                        (float)sums.z * absmax[0] * scales.z, (float)sums.w * absmax[0] * scales.w);
        if (end.does & END_BIAS)
            y = make_float4(__fmaf_rn(y.x, INT8_SCALE, b.x), __fmaf_rn(y.y, INT8_SCALE, b.y),
                            __fmaf_rn(y.z, INT8_SCALE, b.z), __fmaf_rn(y.w, INT8_SCALE, b.w));
        else
            y = make_float4(y.x * INT8_SCALE, y.y * INT8_SCALE, y.z * INT8_SCALE, y.w * INT8_SCALE);
        if (half) y = round_four(y);
        if (some) {
            y = make_float4(y.x + more[0], y.y + more[1], y.z + more[2], y.w + more[3]);
            if (half) y = round_four(y);
        }
        if (end.does & (END_MULTIPLIER | END_ADDEND)) load_factors(e, m, col, in);
        /* Divided as kernels of fewer and of more rows do: a text's results are those that it has
         * alone. */
        if (end.activation == BG_ACTIVATION_SILU) {
            y = activate_each<BG_ACTIVATION_SILU>(half, y);
            *(float4 *)out = activated_four(end.does, in, half ? round_four(y) : y);
        } else {
            *(float4 *)out = finished_four(end, in, y);
        }
        rows -= APART;
        out += apart;
#pragma unroll
        for (int i = 1; i < S::GROUPS; i++) {
            absmax[i - 1] = absmax[i];
            residual[i - 1] = residual[i];
        }
    }
};

/* How many partial sums there are: those of the slices, or where there are outliers of all. */
template <typename S> static __device__ __forceinline__ int slices_of(bool outliers)
{
    return outliers ? 1 : S::SLICES;
}

/* A tile's results one by one, where four are not in line. */
template <typename S>
static __device__ __noinline__ void write_ones(const cuda_tile_args &a, int part, size_t row,
                                               size_t col, bool outliers, const char *room)
{
    const cuda_matrix &w = a.w[part];
    const cuda_epilogue &e = a.epilogue[part];
#pragma unroll 1
    for (int at = (int)threadIdx.x; at < S::TILE * S::TILE; at += THREADS) {
        const int r = at / S::TILE, c = at % S::TILE;
        const size_t m = row + (size_t)r, n = col + (size_t)c;
        if (m >= a.n_rows || n >= w.rows) continue;
        int32_t sum = 0;
        for (int k = 0; k < slices_of<S>(outliers); k++)
            sum += ((const int32_t *)room)[k * S::SUM + r * S::SUM_PITCH + c];
        float y = add_bias(e, true, n, (float)sum * a.quantized.absmax[m] * w.scales[n]);
        if (outliers && a.quantized.n_outliers[sequence_of(a.quantized, m)] > 0)
            y = round_if(e.half, y + ((const float *)(room + S::MORE))[r * S::MORE_PITCH + c]);
        finish(e, m, n, y);
    }
}

template <typename S>
static __global__ void __launch_bounds__(THREADS, BLOCKS)
    product_tile(const __grid_constant__ tile_args args)
{
    const cuda_tile_args &a = args.a;
    if (!MMA) return; /* bg_cuda_product_tiles says no then */
    extern __shared__ __align__(16) char room[];
    size_t tile = blockIdx.x;
    int part = 0;
    while (part + 1 < a.n_parts && tile >= (a.w[part].rows + S::TILE - 1) / S::TILE)
        tile -= (a.w[part++].rows + S::TILE - 1) / S::TILE;
    const cuda_epilogue &e = a.epilogue[part];
    const bool fours = args.fours >> part & 1;
    /* An activation takes so long that the next kernel's blocks, with nothing to do before they
     * have their input, would crowd on the few multiprocessors that have no tile. */
    const bool next_late = e.activation != BG_ACTIVATION_NONE;
    const size_t row = blockIdx.y * (size_t)S::TILE, col = tile * S::TILE;
    typedef typename pipeline_of<S::TILE>::type tile_pipeline;
    const tile_pipeline pipeline(room, args, part, row, col);
    pipeline.ask_weights();
    wait_for_earlier();
    if (!next_late) let_next_start();
    pipeline.ask_inputs();
    const uint32_t some = look_for_outliers(a, sequences_of(a, row, S::TILE));
    /* What the first results are made of comes meanwhile. */
    four_results<S> own;
    if (fours) own.load(a, part, row, col);
    typename tile_pipeline::sums sums = {};
    pipeline.multiply(sums);
    if (next_late) let_next_start();
    __syncthreads();
    keep_sums<S>((int32_t *)room, sums);
    const bool outliers = __syncthreads_or(some != 0);
    if (outliers) sum_outliers<S>(a, part, row, col, room);
    if (!fours) return write_ones<S>(a, part, row, col, outliers, room);
    if (outliers) own.load(a, part, row, col);
    own.begin(a, part, row);
    const int c = (int)threadIdx.x * FOUR % S::TILE;
#pragma unroll 1
    for (int r = (int)threadIdx.x * FOUR / S::TILE; r < S::TILE && own.rows > 0;
         r += four_results<S>::APART) {
        const size_t m = row + (size_t)r;
        int4 product = make_int4(0, 0, 0, 0);
#pragma unroll
        for (int k = 0; k < S::SLICES; k++) {
            if (k >= slices_of<S>(outliers)) break;
            const int32_t *of_slice = (const int32_t *)room + k * S::SUM;
            const int4 v = *(const int4 *)(of_slice + r * S::SUM_PITCH + c);
            product.x += v.x;
            product.y += v.y;
            product.z += v.z;
            product.w += v.w;
        }
        const bool has = outliers && a.quantized.n_outliers[sequence_of(a.quantized, m)] > 0;
        own.finish(e, m, product, has, (const float *)(room + S::MORE) + r * S::MORE_PITCH + c);
    }
}

/* What warpgroups are brought, in tiles of so many rows. */
static cudaError_t describe_codes(tile_args &args, unsigned rows)
{
    const cuda_tile_args &a = args.a;
    cudaError_t e = describe(&args.x, a.quantized.codes, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, a.n_rows,
                             a.cols, rows);
    for (int i = 0; i < a.n_parts && e == cudaSuccess; i++)
        e = describe(&args.w[i], a.w[i].codes, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, a.w[i].rows,
                     a.cols, rows);
    return e;
}

template <typename S> static cudaError_t launch_tiles(const cuda_tile_args *a, const cuda_launch *l)
{
    size_t tiles = 0;
    tile_args args = {};
    args.a = *a;
#ifdef BG_WGMMA
    const bool by_groups = S::TILE > CORNER && l->warpgroups;
#else
    const bool by_groups = false;
#endif
    if (by_groups) {
        const cudaError_t e = describe_codes(args, S::TILE);
        if (e != cudaSuccess) return e;
    }
    for (int i = 0; i < a->n_parts; i++) {
        const bool fours = fours_in_line(&a->epilogue[i], 0, a->w[i].rows);
        args.fours |= (unsigned)(fours && in_line(a->w[i].scales, 0)) << i;
        tiles += blocks_for(a->w[i].rows, S::TILE);
    }
    const dim3 grid((unsigned)tiles, blocks_for(a->n_rows, S::TILE));
    const size_t shared = shared_alone(by_groups ? S::BY_GROUPS : S::PIPELINE, grid, l);
    return launch(product_tile<S>, grid, THREADS, shared, args, l);
}

cudaError_t bg_cuda_product_tile(const cuda_tile_args *a, const cuda_launch *l)
{
    size_t tiles = 0;
    for (int i = 0; i < a->n_parts; i++) tiles += blocks_for(a->w[i].rows, CORNER);
    tiles *= blocks_for(a->n_rows, CORNER);
    /* All of them run at once where a multiprocessor's shared memory has room for BLOCKS; where it
     * has not, as on GPUs with less than 200 KB, one behind the other. */
    const size_t most = (size_t)BLOCKS * (size_t)l->multiprocessors;
    return tiles <= most ? launch_tiles<tile_shape<32>>(a, l) : launch_tiles<tile_shape<64>>(a, l);
}

bool bg_cuda_product_tiles(const cuda_matrix *w, size_t n_rows, const cuda_launch *l)
{
    const double operations = (double)n_rows * (double)w->rows * (double)w->cols;
    constexpr int ROOM = tile_shape<32>::PIPELINE > tile_shape<64>::PIPELINE
                             ? tile_shape<32>::PIPELINE
                             : tile_shape<64>::PIPELINE;
    /* Rows and columns in sixteens, as the library's int8 products, which follow, have them. */
    return w->threshold > 0 && l->tensor_cores && n_rows <= MOST_ROWS &&
           (n_rows <= CUDA_FEW_ROWS || operations <= MOST_OPERATIONS) && w->cols % 16 == 0 &&
           w->rows % 16 == 0 && (size_t)ROOM <= (size_t)l->max_shared;
}
