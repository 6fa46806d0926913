/* LLM.int8()'s layers of many rows on a Hopper GPU: products of codes by warpgroups, and what
 * becomes of their sums in registers: scales, outlier columns, a residual, or the gate of another
 * layer of the same input. A library's product writes the sums to memory for another kernel.
 *
 * Outlier columns, gathered as binary16, are more stages of the same tile behind those of the
 * codes, so many as its sequence has; sequences begin where clusters' tiles do. Results until then
 * are binary16 already: two in a register, they leave room for the outliers' sums. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/outliers.cuh"
#include "backend/cuda/wide.cuh"

enum {
    CHUNK = DEPTH_BYTES / 2, /* outlier columns of a stage */
    PAIRS = SUMS / 2,        /* of results */
    LEAD = 2,                /* stages that the first warpgroup is ahead */
};

struct int8_args {
    CUtensorMap x, w[2], outlier_x, outlier_w[2];
    cuda_finish_args of;
};

/* ---- tiles ----------------------------------------------------------------------------------- */

/* Of so many outlier columns; none if they are more than were gathered: such a tile is crowded. */
static __device__ __forceinline__ int outlier_stages(const cuda_quantized &q, int outliers)
{
    return (size_t)outliers > q.room ? 0 : (outliers + CHUNK - 1) / CHUNK;
}

/* `outliers`: for each stage with which a tile begins, how many columns it has of them. Who
 * multiplies finds them there, and need not wait for memory. */
template <bool GATED>
static __device__ __forceinline__ void bring_tiles(const int8_args &a, const ring &r, int *outliers)
{
    const tile_range tiles = tiles_of(a.of.n_rows, a.of.n, GATED);
    const int rank = (int)rank_in_cluster(), matrix = GATED ? rank : 0;
    const size_t rows = (matrix ? a.of.other.w : a.of.w).rows;
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        const tile_place p = place_of(tiles, t);
        const int sequence = sequence_of(a.of.quantized, (size_t)p.row);
        const int n = a.of.quantized.n_outliers[sequence], more = outlier_stages(a.of.quantized, n);
        const int row = p.row + rank * ROWS, col = p.col + (GATED ? 0 : rank * HALF_COLS);
        await_room(r, s);
        outliers[s.i] = n;
        for (int k = 0; k < (int)a.of.w.cols; k += DEPTH_BYTES)
            bring_stage(r, s, &a.x, row, &a.w[matrix], col, k);
        const int gathered = sequence * (int)rows + (int)a.of.first + col;
        for (int half = 0; half < 2; half++) /* of the results */
            for (int i = 0; i < more; i++)
                bring_stage(r, s, &a.outlier_x, row, &a.outlier_w[matrix], gathered, i * CHUNK);
    }
}

/* ---- results --------------------------------------------------------------------------------- */

static __device__ __forceinline__ float2 floats_of(uint32_t pair)
{
    return __half22float2(*(const __half2 *)&pair);
}

/* The first row of a thread's results, and the layer's column that is the tile's first. */
struct own_place {
    size_t row;
    int col;
};

/* Sums of codes as results, rounded: pair 2j + r is of columns 8j + lane % 4 * 2 and the next, of
 * the second row where r. */
template <bool GATED>
static __device__ __forceinline__ void dequantize(const cuda_finish_args &a,
                                                  const int32_t (&sums)[SUMS], own_place own,
                                                  uint32_t (&y)[PAIRS])
{
    const size_t last = a.n_rows - 1;
    float absmax[2];
#pragma unroll
    for (int r = 0; r < 2; r++)
        absmax[r] = a.quantized.absmax[own.row + r * 8 < last ? own.row + r * 8 : last];
#pragma unroll
    for (int j = 0; j < PAIRS / 2; j++) {
        const bool other = GATED && j >= PAIRS / 4;
        const float *scales = other ? a.other.w.scales : a.w.scales;
        const int c = own.col + (j - (other ? PAIRS / 4 : 0)) * 8 + (int)threadIdx.x % 4 * 2;
        const float2 scale = *(const float2 *)(scales + c);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int k = j * 4 + r * 2;
            y[j * 2 + r] = pair_of((float)sums[k] * absmax[r] * scale.x * INT8_SCALE,
                                   (float)sums[k + 1] * absmax[r] * scale.y * INT8_SCALE);
        }
    }
}

/* Adds sums over outlier columns to half of a thread's results. */
template <int HALF>
static __device__ __forceinline__ void add_outliers(uint32_t (&y)[PAIRS],
                                                    const float (&sums)[SUMS / 2])
{
#pragma unroll
    for (int i = 0; i < PAIRS / 2; i++) {
        uint32_t &pair = y[HALF * PAIRS / 2 + i];
        const float2 own = floats_of(pair);
        pair = pair_of(own.x + sums[i * 2], own.y + sums[i * 2 + 1]);
    }
}

/* A lane and its neighbour exchange pairs, so that each has four columns in a row. */
static __device__ __forceinline__ float4 four_of(uint32_t u, uint32_t v, bool odd)
{
    const uint32_t other = __shfl_xor_sync(0xFFFFFFFF, odd ? u : v, 1);
    const float2 low = floats_of(odd ? other : u), high = floats_of(odd ? v : other);
    return make_float4(low.x, low.y, high.x, high.y);
}

static __device__ __forceinline__ float4 gated(float4 gate, float4 up)
{
    const float4 y = round_four(activate_each<BG_ACTIVATION_SILU>(true, gate));
    return round_four(make_float4(y.x * up.x, y.y * up.y, y.z * up.z, y.w * up.w));
}

/* Writes what a thread has, with the residual, which is asked for a batch ahead. */
template <bool GATED>
static __device__ __forceinline__ void finish(const cuda_finish_args &a, const uint32_t (&y)[PAIRS],
                                              own_place own)
{
    enum { FOURS = 4, OF_ROW = (GATED ? 8 : 16) / FOURS, BATCHES = 2 * OF_ROW, UP = PAIRS / 2 };
    const cuda_epilogue &e = a.epilogue;
    const int lane = (int)threadIdx.x % WARP, odd = lane % 2;
    const int first = own.col + odd * 8 + (lane % 4 - odd) * 2;
    float4 residual[2][FOURS];
    const auto load = [&](int batch) {
        const size_t m = own.row + (size_t)(batch / OF_ROW * 8);
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const int c = first + (batch % OF_ROW * FOURS + i) * 16;
            if (m < a.n_rows)
                residual[batch % 2][i] =
                    *(const float4 *)(e.residual + m * e.residual_stride + (size_t)c);
        }
    };
    if (!GATED && e.residual) load(0);
#pragma unroll
    for (int batch = 0; batch < BATCHES; batch++) {
        const int r = batch / OF_ROW;
        const size_t m = own.row + (size_t)(r * 8);
        if (!GATED && e.residual && batch + 1 < BATCHES) load(batch + 1);
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const int j = batch % OF_ROW * FOURS + i, k = j * 4 + r, c = first + j * 16;
            float4 four = four_of(y[k], y[k + 2], odd);
            if (GATED) four = gated(four, four_of(y[k + UP], y[k + 2 + UP], odd));
            if (m >= a.n_rows) continue;
            if (!GATED && e.residual) four = round_four(sum_of(four, residual[batch % 2][i]));
            *(float4 *)(e.out + m * e.out_stride + (size_t)c) = four;
        }
    }
}

/* ---- crowded tiles --------------------------------------------------------------------------- */

/* Four results of a thread before their activation, where a warp's sums over eight columns from c
 * on have them. `m`: the thread's first row. By a whole warp, slowly: factors come straight from
 * memory. Outliers are added in the order of all kernels of many rows. */
static __device__ __forceinline__ void crowded_results(const cuda_finish_args &a,
                                                       const cuda_matrix &w,
                                                       const outlier_columns &o, size_t m, size_t c,
                                                       float (&y)[4])
{
    const int lane = (int)threadIdx.x % WARP, own = lane % 4 * 2;
    const size_t last = a.n_rows - 1, rows[2] = {min(m, last), min(m + 8, last)};
    const int8_t *codes = (const int8_t *)w.codes + (c + (size_t)(lane / 4)) * w.cols;
    const float scale = w.scales[c + (size_t)(lane / 4)];
    int32_t sums[4] = {};
#pragma unroll 1
    for (size_t k = (size_t)own * 2; k < w.cols; k += 32) {
        uint32_t left[4], right[2];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const size_t at = k + (size_t)(i / 2 * 16);
            const int8_t *x = a.quantized.codes + rows[i % 2] * w.cols + at;
            left[i] = at < w.cols ? *(const uint32_t *)x : 0;
            if (i % 2 == 0) right[i / 2] = at < w.cols ? *(const uint32_t *)(codes + at) : 0;
        }
        mma_codes(sums, left, right);
    }
    float more[4] = {};
#pragma unroll 1
    for (int k = 0; k < o.n; k += 16) {
        uint32_t left[4], right[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = k + i * 8 + own;
            const bool some = at < o.n, both = at + 1 < o.n;
            const int first = some ? o.list[at] : 0, second = both ? o.list[at + 1] : 0;
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float *x = a.in + rows[r] * a.in_stride;
                left[i * 2 + r] = pair_of(some ? x[first] : 0, both ? x[second] : 0);
            }
            const uint32_t pair = (some ? (uint32_t)(uint8_t)codes[first] : 0) |
                                  (both ? (uint32_t)(uint8_t)codes[second] : 0) << 8;
            right[i] = outlier_weights(make_uint2(pair, 0), scale).x;
        }
        mma_half(more, left, right);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float part = (float)sums[i] * a.quantized.absmax[rows[i / 2]];
        y[i] = round_half(part * w.scales[c + (size_t)(own + i % 2)] * INT8_SCALE);
        y[i] = round_half(y[i] + more[i]);
    }
}

/* A thread's results of a tile. */
template <bool GATED>
static __device__ __forceinline__ void finish_crowded_tile(const cuda_finish_args &a,
                                                           const outlier_columns &o, own_place own)
{
    const cuda_epilogue &e = a.epilogue;
    for (int j = 0; j < (GATED ? HALF_COLS : COLS); j += 8) {
        const size_t first = (size_t)(own.col + j);
        float y[4], up[4];
        crowded_results(a, a.w, o, own.row, first, y);
        if (GATED) crowded_results(a, a.other.w, o, own.row, first, up);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const size_t m = own.row + (size_t)(i / 2 * 8);
            const size_t c = first + (size_t)((int)threadIdx.x % 4 * 2 + i % 2);
            if (m >= a.n_rows) continue;
            if (GATED)
                y[i] = round_half(round_half(activate(BG_ACTIVATION_SILU, true, y[i])) * up[i]);
            if (!GATED && e.residual)
                y[i] = round_half(y[i] + e.residual[m * e.residual_stride + c]);
            e.out[m * e.out_stride + c] = y[i];
        }
        __syncwarp();
    }
}

/* Those of the block's tiles that have more outliers than were gathered, behind all others: among
 * them it would cost registers that those need. */
template <bool GATED>
static __device__ __forceinline__ void finish_crowded(const cuda_finish_args &a,
                                                      const tile_range &tiles, int within)
{
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        const tile_place p = place_of(tiles, t);
        const int sequence = sequence_of(a.quantized, (size_t)p.row);
        const outlier_columns o = columns_of(a.quantized, sequence, a.w.cols);
        if ((size_t)o.n > a.quantized.room)
            finish_crowded_tile<GATED>(a, o, {(size_t)(p.row + within), (int)a.first + p.col});
    }
}

/* ---- the product ----------------------------------------------------------------------------- */

/* The first warpgroup is so many stages ahead of the second from the first tile on, so that one
 * multiplies while the other finishes its sums; side by side they would finish at the same time,
 * and nothing be multiplied then. */
static __device__ __forceinline__ void lead_group()
{
    asm volatile("bar.arrive 1, %0;" ::"n"(GROUPS * GROUP) : "memory");
}

static __device__ __forceinline__ void follow_group()
{
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * GROUP) : "memory");
}

/* So many stages of a tile, by its weights from a row on; `leads`: the other warpgroup waits. */
template <int FIRST, typename T, int N>
static __device__ __forceinline__ void multiply_stages(const ring &r, stage &s, int group, int n,
                                                       bool leads, T (&sums)[N])
{
    enum { INSTRUCTIONS = DEPTH_BYTES / 32, WEIGHTS = FIRST * DEPTH_BYTES / 16 };
    int before = 0;
    /* Not by the first product, of which the compiler has it that it reads them: their registers
     * would never be free for others. */
#pragma unroll
    for (int i = 0; i < N; i++) sums[i] = 0;
    for (int k = 0; k < n; k++) {
        const stage_tiles tile = await_stage(r, s, group);
        begin_products();
#pragma unroll
        for (int i = 0; i < INSTRUCTIONS; i++)
            multiply_tiles(sums, tile.x + i * 2, tile.w + WEIGHTS + i * 2);
        end_of_products();
        if (leads && k == min((int)LEAD, n - 1)) lead_group();
        /* These run; the ones before are over. */
        wait_for_products<1>();
        if (k > 0) release(r, before);
        before = s.i;
        advance(s);
    }
    wait_for_products<0>();
    release(r, before);
    keep_behind(sums);
}

template <bool GATED>
static __device__ __forceinline__ void multiply(const int8_args &a, const ring &r,
                                                const int *outliers)
{
    const int group = (int)threadIdx.x / GROUP - 1, lane = (int)threadIdx.x % WARP;
    const int within = (int)rank_in_cluster() * ROWS + group * GROUP_ROWS +
                       (int)threadIdx.x % GROUP / WARP * 16 + lane / 4;
    const int stages = ((int)a.of.w.cols + DEPTH_BYTES - 1) / DEPTH_BYTES;
    const tile_range tiles = tiles_of(a.of.n_rows, a.of.n, GATED);
    bool crowded = false;
    stage s = {0, 0};
    for (int t = blockIdx.x / CLUSTER; t < tiles.n; t += gridDim.x / CLUSTER) {
        const tile_place p = place_of(tiles, t);
        const own_place own = {(size_t)(p.row + within), (int)a.of.first + p.col};
        const bool first = t == (int)blockIdx.x / CLUSTER;
        if (first && group > 0) follow_group();
        await_stage(r, s, group);
        const int n = outliers[s.i], more = outlier_stages(a.of.quantized, n);
        uint32_t y[PAIRS];
        {
            int32_t sums[SUMS];
            multiply_stages<0>(r, s, group, stages, first && group == 0, sums);
            dequantize<GATED>(a.of, sums, own, y);
        }
        if ((size_t)n > a.of.quantized.room) {
            crowded = true;
            continue;
        }
        if (more > 0) {
            float sums[SUMS / 2];
            multiply_stages<0>(r, s, group, more, false, sums);
            add_outliers<0>(y, sums);
            multiply_stages<HALF_COLS>(r, s, group, more, false, sums);
            add_outliers<1>(y, sums);
        }
        finish<GATED>(a.of, y, own);
    }
    if (crowded) finish_crowded<GATED>(a.of, tiles, within);
}

template <bool GATED>
static __global__ void __launch_bounds__(THREADS, 1)
    product_int8(const __grid_constant__ int8_args a)
{
    if (!BG_WGMMA_HERE) __trap(); /* the driver took code for another architecture */
    extern __shared__ char room[];
    __shared__ __align__(8) uint64_t barriers[2 * STAGES];
    __shared__ int outliers[STAGES];
    const ring r = begin_wide(room, barriers);
    if (threadIdx.x < GROUP) {
        give_registers<24>();
        if (threadIdx.x == 0) bring_tiles<GATED>(a, r, outliers);
        __syncwarp();
    } else {
        take_registers<240>();
        multiply<GATED>(a, r, outliers);
    }
    cluster_end(); /* the other block may still write here */
}

/* ---- launching ------------------------------------------------------------------------------- */

static cudaError_t describe_weights(CUtensorMap *codes, CUtensorMap *outliers,
                                    const cuda_finish_args *a, const cuda_matrix *w,
                                    const void *gathered)
{
    const cuda_quantized *q = &a->quantized;
    cudaError_t e = describe(codes, (const int8_t *)w->codes + a->first * w->cols,
                             CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, a->n, w->cols, HALF_COLS);
    if (e == cudaSuccess)
        e = describe_halves(outliers, gathered, (size_t)q->n_sequences * w->rows, q->room,
                            HALF_COLS);
    return e;
}

static_assert((int)CUDA_WIDE_ROWS == CLUSTER * ROWS, "sequences begin with tiles");

bool bg_cuda_wide_int8_fits(const cuda_finish_args *a, const cuda_launch *l)
{
    const cuda_epilogue *e = &a->epilogue;
    const bool gated = e->multiplier;
    return e->half && !e->bias && !a->other.bias && !e->addend && !(gated && e->residual) &&
           e->activation == (gated ? BG_ACTIVATION_SILU : BG_ACTIVATION_NONE) &&
           fours_in_line(e, a->first, a->n) && a->n % (gated ? HALF_COLS : COLS) == 0 &&
           a->w.cols % 16 == 0 && bg_cuda_wide_fits(a->n_rows, a->n, a->w.cols, gated, l);
}

cudaError_t bg_cuda_wide_int8(const cuda_finish_args *a, const cuda_launch *l)
{
    const bool gated = a->other.w.codes;
    const cuda_quantized *q = &a->quantized;
    int8_args args = {.of = *a};
    cudaError_t e =
        describe(&args.x, q->codes, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, a->n_rows, a->w.cols, ROWS);
    if (e == cudaSuccess)
        e = describe_halves(&args.outlier_x, q->outlier_in, a->n_rows, q->room, ROWS);
    if (e == cudaSuccess)
        e = describe_weights(&args.w[0], &args.outlier_w[0], a, &a->w, q->outlier_weights);
    if (e == cudaSuccess && gated)
        e = describe_weights(&args.w[1], &args.outlier_w[1], a, &a->other.w,
                             a->other.outlier_weights);
    if (e != cudaSuccess) return e;
    return gated ? launch_wide(product_int8<true>, args, l)
                 : launch_wide(product_int8<false>, args, l);
}
