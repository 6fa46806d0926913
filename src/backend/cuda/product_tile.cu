/* Products of a hundred rows or two, where a matrix product of the library is over before it has
 * begun: tiles of 32 x 32 results, so that all of the GPU has some, up to three layers of one input
 * in one launch, weights decoded on their way, and the epilogue at once. Weights are asked for
 * before the input is there. */
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/outliers.cuh"

enum {
    TILE = 32,   /* rows and columns */
    BYTES = 256, /* of a row of input in a stage */
    PITCH = BYTES + 16,
    STAGES = 4,
    WARPS = 4, /* with 16 x 16 results each, twice: for either half of a stage */
    THREADS = 2 * WARPS * WARP,
    MOST_ROWS = 256,
};

/* Beyond so many products and sums, larger tiles and fewer bytes matter more than launches. */
#define MOST_OPERATIONS 0x1p29

/* Weights as they lie in memory. STEP: columns of a stage; ROW: bytes of a row of weights. */
struct half_weights {
    static constexpr int STEP = BYTES / 2, ROW = BYTES;
    static constexpr bool INT8 = false, PACKED = false;
    typedef float sum;
};

struct packed_weights {
    static constexpr int STEP = BYTES / 2, ROW = STEP / 2;
    static constexpr bool INT8 = false, PACKED = true;
    typedef float sum;
};

struct int8_weights {
    static constexpr int STEP = BYTES, ROW = BYTES;
    static constexpr bool INT8 = true, PACKED = false;
    typedef int32_t sum;
};

template <typename W> struct tile_room {
    static constexpr int W_PITCH = W::ROW + 16;
    static constexpr int X_STAGE = TILE * PITCH, W_STAGE = TILE * W_PITCH;
    static constexpr int SIZE = STAGES * (X_STAGE + W_STAGE) + (W::PACKED ? X_STAGE : 0);
};

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

static __device__ __forceinline__ void mma_codes(int32_t sum[4], const uint32_t a[4],
                                                 const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

static __device__ __forceinline__ void multiply(float sum[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    mma_half(sum, a, b);
}

static __device__ __forceinline__ void multiply(int32_t sum[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    mma_codes(sum, a, b);
}

/* Rows [row, row + TILE) of a matrix of `rows` rows of `row_bytes`, bytes [byte, byte + WIDTH). */
template <int WIDTH, int TO_PITCH>
static __device__ __forceinline__ void copy_tile(char *to, const void *from, size_t row,
                                                 size_t rows, size_t byte, size_t row_bytes)
{
    constexpr int CHUNKS = WIDTH / 16;
#pragma unroll
    for (int i = (int)threadIdx.x; i < TILE * CHUNKS; i += THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS * 16;
        const bool there = row + (size_t)r < rows && byte + (size_t)c < row_bytes;
        const size_t at = there ? (row + (size_t)r) * row_bytes + byte + (size_t)c : 0;
        copy_16(to + r * TO_PITCH + c, (const char *)from + at, there);
    }
}

/* A stage's 4-bit codes as binary16: each thread has 16 values of one row. */
static __device__ __forceinline__ void decode_stage(const char *codes, int pitch, float scale,
                                                    const float *table, char *out)
{
    const int r = (int)threadIdx.x / 8, part = (int)threadIdx.x % 8;
    const uint2 words = *(const uint2 *)(codes + r * pitch + part * 8);
    const uint32_t word[2] = {words.x, words.y};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t pair[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const uint32_t byte = word[i] >> k * 8 & 0xFF;
            pair[k] = pack_pair(CUDA_F16, table[byte >> 4] * scale, table[byte & 15] * scale);
        }
        *(uint4 *)(out + r * PITCH + part * 32 + i * 16) =
            make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
}

/* The scale of the values that this thread decodes in the stage that begins with column k. */
static __device__ __forceinline__ float stage_scale(const cuda_matrix &w, size_t row, size_t k)
{
    const size_t r = row + threadIdx.x / 8, c = k + threadIdx.x % 8 * 16;
    return r < w.rows && c < w.cols ? block_scale(w, (r * w.cols + c) / BG_BLOCK) : 0;
}

/* Outlier columns, added to a warp's sums. `room` has the pipeline's memory, which is done with;
 * `before` is how many rows of weights other parts have gathered before. */
static __device__ __forceinline__ void add_outliers(const cuda_tile_args &a, size_t before,
                                                    size_t n_out, int n, size_t row, size_t col,
                                                    __half *room, float sum[2][4])
{
    typedef outlier_tile<TILE, THREADS> T;
    const int warp = (int)threadIdx.x / WARP, half = warp / WARPS;
    each_outlier_chunk<T>(
        a.quantized.outlier_in, row, a.n_rows,
        (const __half *)a.quantized.outlier_weights + before * a.cols, col, n_out, a.cols, n, room,
        [&] {
#pragma unroll
            for (int step = half * T::CHUNK / 2; step < (half + 1) * T::CHUNK / 2; step += 16) {
                uint32_t left[4], right[4];
                load_a(left, room + warp / 2 % 2 * 16 * T::PITCH + step, T::PITCH);
                load_b_pair(right, room + T::SIZE + warp % 2 * 16 * T::PITCH + step, T::PITCH);
                mma_half(sum[0], left, right);
                mma_half(sum[1], left, right + 2);
            }
        });
}

/* The halves of the sums come together: the first half's warps get rows lane / 4 of their tiles,
 * the others the rows 8 below. */
template <typename W>
static __device__ __forceinline__ void exchange(char *room, int half, int place,
                                                typename W::sum sum[2][4],
                                                const typename W::sum other[2][4], float more[2][4])
{
    typedef typename W::sum T;
    T *sums = (T *)room;
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
            if (W::INT8) rest[at] = more[j][i];
        }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = (i / 2 * 4 + j * 2 + i % 2) * WARPS * WARP + place;
            if (i / 2 != half) continue;
            sum[j][i] += sums[at];
            if (W::INT8) more[j][i] += rest[at];
        }
}

static __device__ __forceinline__ float
product_of(const cuda_epilogue &e, const epilogue_inputs &in, float, float, float sum, bool, float)
{
    return biased(e, false, in, sum);
}

static __device__ __forceinline__ float product_of(const cuda_epilogue &e,
                                                   const epilogue_inputs &in, float absmax,
                                                   float scale, int32_t sum, bool outliers,
                                                   float more)
{
    const float y = biased(e, true, in, (float)sum * absmax * scale);
    return outliers ? round_if(e.half, y + more) : y;
}

template <typename W>
static __global__ void __launch_bounds__(THREADS) product_tile(cuda_tile_args a)
{
    if (!MMA) return; /* bg_cuda_product_tiles says no then */
    typedef tile_room<W> R;
    extern __shared__ __align__(16) char room[];
    __shared__ float table[16];
    char *xs = room, *ws = room + STAGES * R::X_STAGE, *decoded = ws + STAGES * R::W_STAGE;
    size_t tile = blockIdx.x;
    int part = 0;
    size_t before = 0; /* rows of other parts */
    while (part + 1 < a.n_parts && tile >= (a.w[part].rows + TILE - 1) / TILE) {
        before += a.w[part].rows;
        tile -= (a.w[part++].rows + TILE - 1) / TILE;
    }
    const cuda_matrix &w = a.w[part];
    const cuda_epilogue &e = a.epilogue[part];
    const size_t row = blockIdx.y * (size_t)TILE, col = tile * TILE;
    const size_t w_bytes = W::PACKED ? a.cols / 2 : W::INT8 ? a.cols : a.cols * 2;
    const size_t x_bytes = W::INT8 ? a.cols : a.cols * 2;
    const int steps = (int)((a.cols + W::STEP - 1) / W::STEP);
    const int warp = (int)threadIdx.x / WARP, half = warp / WARPS, lane = (int)threadIdx.x % WARP;

    if (W::PACKED && threadIdx.x < 16) table[threadIdx.x] = w.code[threadIdx.x];
    for (int s = 0; s < STAGES - 1; s++)
        copy_tile<W::ROW, R::W_PITCH>(ws + s * R::W_STAGE, w.codes, col, w.rows,
                                      (size_t)(s * W::ROW), w_bytes);
    wait_for_earlier();
    let_next_start();
    for (int s = 0; s < STAGES - 1; s++) {
        copy_tile<BYTES, PITCH>(xs + s * R::X_STAGE, a.x, row, a.n_rows, (size_t)(s * BYTES),
                                x_bytes);
        end_stage();
    }
    /* What the end reads, too, is on its way. */
    const size_t own_row = row + (size_t)(warp / 2 % 2 * 16 + half * 8 + lane / 4);
    const size_t own_col = col + (size_t)(warp % 2 * 16 + lane % 4 * 2);
    epilogue_inputs in[2][2] = {};
    float scales[2][2] = {};
    const float absmax = W::INT8 && own_row < a.n_rows ? a.quantized.absmax[own_row] : 0;
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t c = own_col + (size_t)(j * 8 + i);
            if (own_row >= a.n_rows || c >= w.rows) continue;
            in[j][i] = load_inputs(e, own_row, c);
            if (W::INT8) scales[j][i] = w.scales[c];
        }
    typename W::sum sum[2][4] = {}, other[2][4] = {};
    float scale = W::PACKED ? stage_scale(w, col, 0) : 0;
    for (int step = 0; step < steps; step++) {
        const int stage = step % STAGES, ahead = step + STAGES - 1, to = ahead % STAGES;
        wait_for_stage();
        __syncthreads();
        copy_tile<W::ROW, R::W_PITCH>(ws + to * R::W_STAGE, w.codes, col, w.rows,
                                      (size_t)ahead * W::ROW, w_bytes);
        copy_tile<BYTES, PITCH>(xs + to * R::X_STAGE, a.x, row, a.n_rows, (size_t)ahead * BYTES,
                                x_bytes);
        end_stage();
        const char *right = ws + stage * R::W_STAGE;
        if (W::PACKED) {
            decode_stage(right, R::W_PITCH, scale, table, decoded);
            scale = stage_scale(w, col, (size_t)(step + 1) * W::STEP);
            right = decoded;
            __syncthreads();
        }
        const int place = half * BYTES / 2; /* where this warp's half begins */
        const char *x = xs + stage * R::X_STAGE + warp / 2 % 2 * 16 * PITCH + place;
        const char *y = right + warp % 2 * 16 * PITCH + place;
#pragma unroll
        for (int k = 0; k < BYTES / 2; k += 64) {
            uint32_t left[4], both[4];
            load_a(left, (const __half *)(x + k), PITCH / 2);
            load_b_pair(both, (const __half *)(y + k), PITCH / 2);
            multiply(sum[0], left, both);
            multiply(sum[1], left, both + 2);
            load_a(left, (const __half *)(x + k + 32), PITCH / 2);
            load_b_pair(both, (const __half *)(y + k + 32), PITCH / 2);
            multiply(other[0], left, both);
            multiply(other[1], left, both + 2);
        }
    }
    wait_for_all(); /* the last stages were zeros, but what follows uses their memory */
    const int n = W::INT8 && a.quantized.outlier_in ? *a.quantized.n_outliers : 0;
    float more[2][4] = {};
    if (W::INT8 && n > 0) add_outliers(a, before, w.rows, n, row, col, (__half *)room, more);
    exchange<W>(room, half, warp % WARPS * WARP + lane, sum, other, more);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const size_t c = own_col + (size_t)(j * 8 + i), at = own_row * e.out_stride + c;
            if (own_row >= a.n_rows || c >= w.rows) continue;
            /* Not an index that is known only when it runs: the sums stay in registers. */
            const typename W::sum s = half ? sum[j][2 + i] : sum[j][i];
            const float rest = half ? more[j][2 + i] : more[j][i];
            const float y = finished(e, in[j][i],
                                     product_of(e, in[j][i], absmax, scales[j][i], s, n > 0, rest));
            e.out[at] = y;
            if (a.operand.out) put(a.operand.type, a.operand.out, at, y);
        }
}

template <typename W> static cudaError_t launch_tiles(const cuda_tile_args *a, const cuda_launch *l)
{
    size_t tiles = 0;
    for (int i = 0; i < a->n_parts; i++) tiles += blocks_for(a->w[i].rows, TILE);
    return launch(product_tile<W>, dim3((unsigned)tiles, blocks_for(a->n_rows, TILE)), THREADS,
                  tile_room<W>::SIZE, *a, l);
}

cudaError_t bg_cuda_product_tile(const cuda_tile_args *a, const cuda_launch *l)
{
    if (a->w[0].threshold > 0) {
        const cudaError_t e =
            bg_cuda_gather_outliers(a->in, a->n_rows, a->w, a->n_parts, &a->quantized, l);
        return e == cudaSuccess ? launch_tiles<int8_weights>(a, l) : e;
    }
    return bg_formats[a->w[0].format].blockwise ? launch_tiles<packed_weights>(a, l)
                                                : launch_tiles<half_weights>(a, l);
}

bool bg_cuda_product_tiles(const cuda_matrix *w, size_t n_rows, const cuda_launch *l)
{
    const double operations = (double)n_rows * (double)w->rows * (double)w->cols;
    const bool blockwise = bg_formats[w->format].blockwise;
    const size_t whole = blockwise ? BG_BLOCK : 16;
    return l->tensor_cores && n_rows <= MOST_ROWS && operations <= MOST_OPERATIONS &&
           w->cols % whole == 0 && w->threshold > 0 &&
           (size_t)tile_room<half_weights>::SIZE <= (size_t)l->max_shared;
}
