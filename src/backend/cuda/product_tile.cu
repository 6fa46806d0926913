/* int8 layers of a hundred rows or two, where a matrix product of the library is over before it has
 * begun: tiles of 32 x 32 results, so that all of the GPU has some, up to three layers of one input
 * in one launch, and the epilogue at once. Weights are asked for before the input is there. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/outliers.cuh"

enum {
    TILE = 32,   /* rows and columns */
    BYTES = 256, /* codes of a row in a stage */
    PITCH = BYTES + 16,
    STAGES = 4,
    WARPS = 4, /* with 16 x 16 results each, twice: for either half of a stage */
    THREADS = 2 * WARPS * WARP,
    BLOCKS = 3, /* of a multiprocessor */
    MOST_ROWS = 256,
};

/* Beyond so many products and sums, larger tiles and fewer bytes matter more than launches. */
#define MOST_OPERATIONS 0x1p29

/* A stage of either factor, and all of the pipeline. */
enum { STAGE = TILE * PITCH, PIPELINE = 2 * STAGES * STAGE };

/* 16 bytes on their way to shared memory, or zeros. */
static __device__ __forceinline__ void copy_16(char *to, const void *from, bool there)
{
#if __CUDA_ARCH__ >= 800
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(to);
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes)
                 : "memory");
#endif
}

static __device__ __forceinline__ void end_stage()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

static __device__ __forceinline__ void wait_for_stage()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
#endif
}

static __device__ __forceinline__ void wait_for_all()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/* Rows [row, row + TILE) of a matrix of codes (rows, cols), columns [k, k + BYTES). */
static __device__ __forceinline__ void copy_tile(char *to, const void *from, size_t row,
                                                 size_t rows, size_t k, size_t cols)
{
    constexpr int CHUNKS = BYTES / 16;
#pragma unroll
    for (int i = (int)threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS * 16;
        const bool there = row + (size_t)r < rows && k + (size_t)c < cols;
        const size_t at = there ? (row + (size_t)r) * cols + k + (size_t)c : 0;
        copy_16(to + r * PITCH + c, (const char *)from + at, there);
    }
}

/* The outlier columns of a sequence: multiplied in 16 bits by the warps of the first half; those of
 * the second take what their codes have come to out of the sums again. `room` has the pipeline's
 * memory, which is done with. */
static __device__ __forceinline__ void add_sequence(const cuda_tile_args &a, const cuda_matrix &w,
                                                    int sequence, size_t row, size_t col,
                                                    __half *room, int32_t sum[2][4],
                                                    float more[2][4])
{
    typedef outlier_tile<TILE, THREADS> T;
    constexpr int CODE_PITCH = T::CHUNK + 16;
    static_assert(T::LOADS == 1, "a thread has eight numbers of either factor");
    const int warp = (int)threadIdx.x / WARP, half = warp / WARPS;
    const int above = warp / 2 % 2 * 16, beside = warp % 2 * 16;
    const cuda_quantized &q = a.quantized;
    const outlier_columns o = columns_of(q, sequence, a.cols);
    const row_range rows = rows_of(q, sequence, a.n_rows);
    char *codes = (char *)(room + 2 * T::SIZE), *other = codes + TILE * CODE_PITCH;
    uint2 left = make_uint2(0, 0), right = left;
    each_outlier_chunk<T>(
        o.n, room,
        [&](int i, int k) {
            const size_t m = row + (size_t)i;
            left = make_uint2(0, 0);
            if (m < rows.begin || m >= rows.end) return make_uint4(0, 0, 0, 0);
            left = outlier_codes(q.codes + m * a.cols, o, k);
            return outlier_inputs(a.in + m * a.cols, o, k);
        },
        [&](int i, int k) {
            const size_t c = col + (size_t)i;
            right = make_uint2(0, 0);
            if (c >= w.rows) return make_uint4(0, 0, 0, 0);
            right = outlier_codes((const int8_t *)w.codes + c * a.cols, o, k);
            return outlier_weights(right, w.scales[c]);
        },
        [&] {
            const int at =
                (int)threadIdx.x / T::EIGHTS * CODE_PITCH + (int)threadIdx.x % T::EIGHTS * 8;
            *(uint2 *)(codes + at) = left;
            *(uint2 *)(other + at) = right;
        },
        [&] {
            uint32_t x[4], y[4];
            if (half == 0) {
#pragma unroll
                for (int step = 0; step < T::CHUNK; step += 16) {
                    load_a(x, room + above * T::PITCH + step, T::PITCH);
                    load_b_pair(y, room + T::SIZE + beside * T::PITCH + step, T::PITCH);
                    mma_half(more[0], x, y);
                    mma_half(more[1], x, y + 2);
                }
                return;
            }
            int32_t taken[2][4] = {};
#pragma unroll
            for (int step = 0; step < T::CHUNK; step += 32) {
                load_a(x, (const __half *)(codes + above * CODE_PITCH + step), CODE_PITCH / 2);
                load_b_pair(y, (const __half *)(other + beside * CODE_PITCH + step),
                            CODE_PITCH / 2);
                mma_codes(taken[0], x, y);
                mma_codes(taken[1], x, y + 2);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) sum[i / 4][i % 4] -= taken[i / 4][i % 4];
        });
}

/* The halves of the sums come together: the first half's warps get rows lane / 4 of their tiles,
 * the others the rows 8 below. */
static __device__ __forceinline__ void exchange(char *room, int half, int place, int32_t sum[2][4],
                                                const int32_t other[2][4], float more[2][4])
{
    int32_t *sums = (int32_t *)room;
    float *rest = (float *)(sums + 8 * WARPS * WARP);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[j][i] += other[j][i];
            const int at = (i / 2 * 4 + j * 2 + i % 2) * WARPS * WARP + place;
            if (i / 2 == half) continue;
            sums[at] = sum[j][i];
            rest[at] = more[j][i];
        }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = (i / 2 * 4 + j * 2 + i % 2) * WARPS * WARP + place;
            if (i / 2 != half) continue;
            sum[j][i] += sums[at];
            more[j][i] += rest[at];
        }
}

static __global__ void __launch_bounds__(THREADS, BLOCKS) product_tile(cuda_tile_args a)
{
    if (!MMA) return; /* bg_cuda_product_tiles says no then */
    extern __shared__ __align__(16) char room[];
    char *xs = room, *ws = room + STAGES * STAGE;
    size_t tile = blockIdx.x;
    int part = 0;
    while (part + 1 < a.n_parts && tile >= (a.w[part].rows + TILE - 1) / TILE) {
        tile -= (a.w[part++].rows + TILE - 1) / TILE;
    }
    const cuda_matrix &w = a.w[part];
    const cuda_epilogue &e = a.epilogue[part];
    const size_t row = blockIdx.y * (size_t)TILE, col = tile * TILE;
    const int steps = (int)((a.cols + BYTES - 1) / BYTES);
    const int warp = (int)threadIdx.x / WARP, half = warp / WARPS, lane = (int)threadIdx.x % WARP;

    for (int s = 0; s < STAGES - 1; s++)
        copy_tile(ws + s * STAGE, w.codes, col, w.rows, (size_t)(s * BYTES), a.cols);
    wait_for_earlier();
    let_next_start();
    for (int s = 0; s < STAGES - 1; s++) {
        copy_tile(xs + s * STAGE, a.quantized.codes, row, a.n_rows, (size_t)(s * BYTES), a.cols);
        end_stage();
    }
    /* What the end reads, too, is on its way. */
    const size_t own_row = row + (size_t)(warp / 2 % 2 * 16 + half * 8 + lane / 4);
    const size_t own_col = col + (size_t)(warp % 2 * 16 + lane % 4 * 2);
    const float absmax = own_row < a.n_rows ? a.quantized.absmax[own_row] : 0;
    epilogue_inputs in[2][2] = {};
    float scales[2][2] = {};
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t c = own_col + (size_t)(j * 8 + i);
            if (own_row >= a.n_rows || c >= w.rows) continue;
            in[j][i] = load_inputs(e, own_row, c);
            scales[j][i] = w.scales[c];
        }
    int32_t sum[2][4] = {}, other[2][4] = {};
    for (int step = 0; step < steps; step++) {
        const int stage = step % STAGES, ahead = step + STAGES - 1, to = ahead % STAGES;
        wait_for_stage();
        __syncthreads();
        copy_tile(ws + to * STAGE, w.codes, col, w.rows, (size_t)ahead * BYTES, a.cols);
        copy_tile(xs + to * STAGE, a.quantized.codes, row, a.n_rows, (size_t)ahead * BYTES, a.cols);
        end_stage();
        const int place = half * BYTES / 2; /* where this warp's half begins */
        const char *x = xs + stage * STAGE + warp / 2 % 2 * 16 * PITCH + place;
        const char *y = ws + stage * STAGE + warp % 2 * 16 * PITCH + place;
#pragma unroll
        for (int k = 0; k < BYTES / 2; k += 64) {
            uint32_t left[4], both[4];
            load_a(left, (const __half *)(x + k), PITCH / 2);
            load_b_pair(both, (const __half *)(y + k), PITCH / 2);
            mma_codes(sum[0], left, both);
            mma_codes(sum[1], left, both + 2);
            load_a(left, (const __half *)(x + k + 32), PITCH / 2);
            load_b_pair(both, (const __half *)(y + k + 32), PITCH / 2);
            mma_codes(other[0], left, both);
            mma_codes(other[1], left, both + 2);
        }
    }
    wait_for_all(); /* the last stages were zeros, but what follows uses their memory */
    float more[2][4] = {};
    const size_t last = (row + TILE < a.n_rows ? row + TILE : a.n_rows) - 1;
    for (int q = sequence_of(a.quantized, row), end = sequence_of(a.quantized, last); q <= end; q++)
        if (a.quantized.n_outliers[q] > 0)
            add_sequence(a, w, q, row, col, (__half *)room, sum, more);
    const bool some =
        own_row < a.n_rows && a.quantized.n_outliers[sequence_of(a.quantized, own_row)] > 0;
    exchange(room, half, warp % WARPS * WARP + lane, sum, other, more);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t c = own_col + (size_t)(j * 8 + i);
            if (own_row >= a.n_rows || c >= w.rows) continue;
            /* Not an index that is known only when it runs: the sums stay in registers. */
            const int32_t product = half ? sum[j][2 + i] : sum[j][i];
            float y = biased(e, true, in[j][i], (float)product * absmax * scales[j][i]);
            if (some) y = round_if(e.half, y + (half ? more[j][2 + i] : more[j][i]));
            e.out[own_row * e.out_stride + c] = finished(e, in[j][i], y);
        }
}

cudaError_t bg_cuda_product_tile(const cuda_tile_args *a, const cuda_launch *l)
{
    size_t tiles = 0;
    for (int i = 0; i < a->n_parts; i++) tiles += blocks_for(a->w[i].rows, TILE);
    const dim3 grid((unsigned)tiles, blocks_for(a->n_rows, TILE));
    return launch(product_tile, grid, THREADS, PIPELINE, *a, l);
}

bool bg_cuda_product_tiles(const cuda_matrix *w, size_t n_rows, const cuda_launch *l)
{
    const double operations = (double)n_rows * (double)w->rows * (double)w->cols;
    return w->threshold > 0 && l->tensor_cores && n_rows <= MOST_ROWS &&
           operations <= MOST_OPERATIONS && w->cols % 16 == 0 &&
           (size_t)PIPELINE <= (size_t)l->max_shared;
}
