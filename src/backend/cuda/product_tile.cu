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
    WARPS = BYTES / 32, /* each with all of the tile's results and 32 codes of a stage */
    THREADS = WARPS * WARP,
    BLOCKS = 3, /* of a multiprocessor */
    CHUNKS = BYTES / 16,
    COPIES = TILE * CHUNKS / THREADS, /* of 16 codes by a thread, of either factor in a stage */
    SUM_PITCH = TILE + 8,
    EACH = TILE * TILE / THREADS, /* results of a thread, side by side */
    MOST_ROWS = 256,
};

static_assert(EACH == 4, "a thread's results are read and written at once");

/* Beyond so many products and sums, larger tiles and fewer bytes matter more than launches. */
#define MOST_OPERATIONS 0x1p29

/* A stage of either factor, all of the pipeline, and the warps' sums, which take its place. */
enum { STAGE = TILE * PITCH, PIPELINE = 2 * STAGES * STAGE, SUMS = WARPS * TILE * SUM_PITCH * 4 };

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

/* What a thread copies of the codes of rows [row, row + TILE) of a matrix (rows, cols): the same
 * place of rows THREADS / CHUNKS apart in each stage. */
struct tile_source {
    const char *from[COPIES];
    bool there[COPIES];

    __device__ __forceinline__ tile_source(const void *codes, size_t row, size_t rows, size_t cols)
    {
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const size_t r = row + threadIdx.x / CHUNKS + (size_t)(i * (THREADS / CHUNKS));
            there[i] = r < rows;
            from[i] = (const char *)codes + (there[i] ? r : 0) * cols + threadIdx.x % CHUNKS * 16;
        }
    }

    __device__ __forceinline__ void copy(char *to, int step, int cols) const
    {
        const int k = step * BYTES;
        const bool within = k + (int)threadIdx.x % CHUNKS * 16 < cols;
        to += threadIdx.x / CHUNKS * PITCH + threadIdx.x % CHUNKS * 16;
#pragma unroll
        for (int i = 0; i < COPIES; i++)
            copy_16(to + i * (THREADS / CHUNKS) * PITCH, from[i] + (within ? k : 0),
                    within && there[i]);
    }
};

/* What outlier columns add to a tile's results, and what their codes have added that must not be
 * there; both in shared memory. */
struct outlier_sums {
    static constexpr int PITCH = TILE + 4;
    float more[TILE * PITCH];
    int32_t taken[TILE * PITCH];
};

/* The outlier columns of a sequence: multiplied in 16 bits by the first four warps, 16 x 16 results
 * each, and their codes by the others. */
static __device__ __forceinline__ void add_sequence(const cuda_tile_args &a, const cuda_matrix &w,
                                                    int sequence, size_t row, size_t col,
                                                    __half *room, float more[2][4],
                                                    int32_t taken[2][4])
{
    typedef outlier_tile<TILE, THREADS> T;
    constexpr int CODE_PITCH = T::CHUNK + 16;
    static_assert(T::LOADS == 1, "a thread has eight numbers of either factor");
    const int warp = (int)threadIdx.x / WARP;
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
            if (warp < 4) {
#pragma unroll
                for (int step = 0; step < T::CHUNK; step += 16) {
                    load_a(x, room + above * T::PITCH + step, T::PITCH);
                    load_b_pair(y, room + T::SIZE + beside * T::PITCH + step, T::PITCH);
                    mma_half(more[0], x, y);
                    mma_half(more[1], x, y + 2);
                }
                return;
            }
#pragma unroll
            for (int step = 0; step < T::CHUNK; step += 32) {
                load_a(x, (const __half *)(codes + above * CODE_PITCH + step), CODE_PITCH / 2);
                load_b_pair(y, (const __half *)(other + beside * CODE_PITCH + step),
                            CODE_PITCH / 2);
                mma_codes(taken[0], x, y);
                mma_codes(taken[1], x, y + 2);
            }
        });
}

/* Not inlined: it is seldom that there are some, and takes registers. `room` begins with the sums;
 * false where the tile has no outliers. */
static __device__ __noinline__ bool sum_outliers(const cuda_tile_args &a, int part, size_t row,
                                                 size_t col, char *room)
{
    const cuda_quantized &q = a.quantized;
    const size_t last = (row + TILE < a.n_rows ? row + TILE : a.n_rows) - 1;
    const int begin = sequence_of(q, row), end = sequence_of(q, last) + 1;
    bool some = false;
    for (int s = begin; s < end; s++) some |= q.n_outliers[s] > 0;
    if (!some) return false;
    outlier_sums &sums = *(outlier_sums *)room;
    float more[2][4] = {};
    int32_t taken[2][4] = {};
    __syncthreads();
    for (int s = begin; s < end; s++)
        if (q.n_outliers[s] > 0)
            add_sequence(a, a.w[part], s, row, col, (__half *)(room + sizeof sums), more, taken);
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int above = warp / 2 % 2 * 16 + lane / 4, beside = warp % 2 * 16 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int at = (above + i % 4 / 2 * 8) * sums.PITCH + beside + i / 4 * 8 + i % 2;
        if (warp < 4)
            sums.more[at] = more[i / 4][i % 4];
        else
            sums.taken[at] = taken[i / 4][i % 4];
    }
    __syncthreads();
    return true;
}

/* A warp's sums to shared memory. */
static __device__ __forceinline__ void keep_sums(int32_t *to, const int32_t sum[2][4][4])
{
    const int lane = (int)threadIdx.x % WARP;
    to += lane / 4 * SUM_PITCH + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int32_t *at = to + i * 16 * SUM_PITCH + j * 8;
            *(int2 *)at = make_int2(sum[i][j][0], sum[i][j][1]);
            *(int2 *)(at + 8 * SUM_PITCH) = make_int2(sum[i][j][2], sum[i][j][3]);
        }
}

static __global__ void __launch_bounds__(THREADS, BLOCKS)
    product_tile(const __grid_constant__ cuda_tile_args a)
{
    if (!MMA) return; /* bg_cuda_product_tiles says no then */
    extern __shared__ __align__(16) char room[];
    char *xs = room, *ws = room + STAGES * STAGE;
    size_t tile = blockIdx.x;
    int part = 0;
    while (part + 1 < a.n_parts && tile >= (a.w[part].rows + TILE - 1) / TILE)
        tile -= (a.w[part++].rows + TILE - 1) / TILE;
    const cuda_matrix &w = a.w[part];
    const cuda_epilogue &e = a.epilogue[part];
    const size_t row = blockIdx.y * (size_t)TILE, col = tile * TILE;
    const int cols = (int)a.cols, steps = (cols + BYTES - 1) / BYTES;
    const int warp = (int)threadIdx.x / WARP;

    const tile_source weights(w.codes, col, w.rows, a.cols);
    const tile_source inputs(a.quantized.codes, row, a.n_rows, a.cols);
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < steps) weights.copy(ws + s * STAGE, s, cols);
    wait_for_earlier();
    let_next_start();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) inputs.copy(xs + s * STAGE, s, cols);
        end_stage();
    }
    /* What the end reads, too, is on its way. */
    const size_t own_row = row + threadIdx.x / (TILE / EACH);
    const size_t own_col = col + threadIdx.x % (TILE / EACH) * EACH;
    const bool own = own_row < a.n_rows && own_col < w.rows;
    const float absmax = own ? a.quantized.absmax[own_row] : 0;
    epilogue_inputs in[EACH] = {};
    float scales[EACH] = {};
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (!own) break;
        in[i] = load_inputs(e, own_row, own_col + (size_t)i);
        scales[i] = w.scales[own_col + (size_t)i];
    }
    int32_t sum[2][4][4] = {};
    for (int step = 0; step < steps; step++) {
        const int stage = step % STAGES * STAGE, ahead = step + STAGES - 1;
        wait_for_stage();
        __syncthreads();
        if (ahead < steps) {
            weights.copy(ws + ahead % STAGES * STAGE, ahead, cols);
            inputs.copy(xs + ahead % STAGES * STAGE, ahead, cols);
        }
        end_stage();
        uint32_t left[2][4], right[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int at = stage + i * 16 * PITCH + warp * 32;
            load_a(left[i], (const __half *)(xs + at), PITCH / 2);
            load_b_pair(right[i], (const __half *)(ws + at), PITCH / 2);
        }
#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) mma_codes(sum[i][j], left[i], right[j / 2] + j % 2 * 2);
    }
    __syncthreads();
    keep_sums((int32_t *)room + warp * TILE * SUM_PITCH, sum);
    const bool outliers = sum_outliers(a, part, row, col, room + SUMS);
    __syncthreads();
    if (!own) return;
    const bool some = outliers && a.quantized.n_outliers[sequence_of(a.quantized, own_row)] > 0;
    const outlier_sums &more = *(const outlier_sums *)(room + SUMS);
    const int r = (int)(own_row - row), c = (int)(own_col - col);
    int32_t product[EACH] = {};
#pragma unroll
    for (int k = 0; k < WARPS; k++) {
        const int4 v = *(const int4 *)((const int32_t *)room + (k * TILE + r) * SUM_PITCH + c);
        product[0] += v.x;
        product[1] += v.y;
        product[2] += v.z;
        product[3] += v.w;
    }
    float out[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int at = r * more.PITCH + c + i;
        if (some) product[i] -= more.taken[at];
        float y = biased(e, true, in[i], (float)product[i] * absmax * scales[i]);
        if (some) y = round_if(e.half, y + more.more[at]);
        out[i] = finished(e, in[i], y);
    }
    float *to = e.out + own_row * e.out_stride + own_col;
    if ((uintptr_t)to % sizeof(float4) == 0) {
        *(float4 *)to = make_float4(out[0], out[1], out[2], out[3]);
    } else {
#pragma unroll
        for (int i = 0; i < EACH; i++) to[i] = out[i];
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
