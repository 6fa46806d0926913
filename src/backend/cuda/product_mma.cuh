/* Linear layers of a few to some hundred rows, where a matrix product of the library is over before
 * it has begun and what is done to its result costs as much again: up to four layers of one input
 * in one launch, weights of 16 bits as they lie in memory or of 4 bits decoded in registers, the
 * epilogue at once.
 *
 * A block has a tile of results, and its warps share the columns that are summed over: each takes
 * every fourth or eighth step of 64 of them, for the whole tile, from a ring in shared memory of
 * its own that nobody else waits for. So a number is read from shared memory once, and 4-bit codes
 * are decoded once. Weights are asked for before the input is there, those that the rings have no
 * room for into the GPU's cache, and scales are computed. The warps' sums meet at the end.
 *
 * Weights are the left factor of an instruction (16 outputs), the input is the right one (8 rows).
 * Which columns it calls its first, second, ... does not matter as long as both factors are taken
 * in the same order: beside codes, lane t of the four that share a row has columns 16 t to 16 t +
 * 15 of a step, two pieces of 16 bytes, or 8 bytes of codes. Codes are looked up as bytes in
 * registers; the sum of a block of 64 is multiplied by the block's scale in fp32.
 *
 * Blocks behind those of the tiles decode weights of layers to come (ahead.c).
 *
 * The kernel is over in microseconds, of which fetching its instructions is part: loops are left as
 * loops where they are not the innermost one. */
#ifndef BG_BACKEND_CUDA_PRODUCT_MMA_CUH
#define BG_BACKEND_CUDA_PRODUCT_MMA_CUH

#include "backend/cuda/code_bytes.cuh"
#include "backend/cuda/copy.cuh"
#include "backend/cuda/decode_share.cuh"
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/operand.cuh"

enum {
    STEP = 64,               /* columns; a block of codes */
    ROW_BYTES = STEP * 2,    /* of a row of 16-bit numbers in a slot of the ring */
    PIECES = ROW_BYTES / 16, /* in it */
    CODE_BYTES = STEP / 2,
    ROWS_AT_ONCE = WARP / PIECES, /* that a warp asks for with one instruction */
    MOST_SHARED = 112 << 10,      /* so that a multiprocessor has two blocks, maybe of two layers */
    MOST_ALONE = 140 << 10,       /* of one block, and one of attention */
    MOST_SLOTS = 4,
};

enum weight_kind { WEIGHTS_F16, WEIGHTS_BF16, WEIGHTS_4BIT };

/* Tiles of 16 M outputs for 8 N rows, by four warps where a multiprocessor has two blocks, by eight
 * where it has one. */
template <int M_, int N_, weight_kind W_, int WARPS_> struct mma_shape {
    static constexpr int M = M_, N = N_, OUTPUTS = 16 * M, ROWS = 8 * N, ALL_ROWS = ROWS;
    static constexpr int WARPS = WARPS_, THREADS = WARPS * WARP, BLOCKS = 8 / WARPS;
    static constexpr int SHARE = WARPS; /* that sum up columns of the same results */
    static constexpr weight_kind W = W_;
    static constexpr bool CODES = W == WEIGHTS_4BIT;
    static constexpr bool DECODES = W != WEIGHTS_BF16; /* for the layers behind */
    static constexpr int WEIGHTS_AT = ROWS * ROW_BYTES;
    static constexpr int SLOT = WEIGHTS_AT + OUTPUTS * (CODES ? CODE_BYTES : ROW_BYTES);
    static constexpr int FIT = (BLOCKS > 1 ? MOST_SHARED : MOST_ALONE) / (WARPS * SLOT);
    static constexpr int SLOTS = FIT < MOST_SLOTS ? FIT : MOST_SLOTS;
    /* Of a row of the sums as they meet: lanes that write at once do so to different banks. */
    static constexpr int PITCH = OUTPUTS + 4;
    static constexpr int SUMS = WARPS * ROWS * PITCH * (int)sizeof(float);
    static constexpr size_t SHARED = WARPS * SLOTS * SLOT > SUMS ? WARPS *SLOTS *SLOT : SUMS;
};

/* What the kernel gets: the codes' values, these in binary16, and what those are to be multiplied
 * by. */
struct product_args {
    cuda_mma_args a;
    float code[16];
    code_bytes codes;
    float unit;
    unsigned row_tiles;
    unsigned fours; /* parts whose results can be written four by four, as bits */
};

/* A block's tile: its first row, and its first output of one of the layers. */
struct tile_place {
    int part;
    size_t row, output;
};

template <typename S>
static __device__ __forceinline__ tile_place place_of_tile(const product_args &p)
{
    const cuda_mma_args &a = p.a;
    unsigned tile = blockIdx.x / p.row_tiles;
    int part = 0;
    while (part + 1 < a.n_parts && tile >= ((unsigned)a.w[part].rows + S::OUTPUTS - 1) / S::OUTPUTS)
        tile -= ((unsigned)a.w[part++].rows + S::OUTPUTS - 1) / S::OUTPUTS;
    return {part, blockIdx.x % p.row_tiles * (size_t)S::ALL_ROWS, tile * (size_t)S::OUTPUTS};
}

/* ---- a warp's ring --------------------------------------------------------------------------- */

/* What a lane asks for of a matrix's rows `first` and behind: one piece of every ROWS_AT_ONCE'th,
 * or half of the codes of every sixteenth. Rows behind the last are zeros, and so are columns: but
 * most tiles have all of theirs, and there nothing is asked. */
struct source {
    const char *at; /* its first piece of the step at column 0 */
    size_t next;    /* bytes to its next row */
    int rows;       /* how far behind `first` the last is, counted from the lane's first */
    int columns;    /* from its first on */
    int whole;      /* up to this column a step has all rows and columns */
};

template <bool CODES, int ROWS>
static __device__ __forceinline__ source source_of(const void *matrix, size_t first, size_t n_rows,
                                                   size_t cols)
{
    const int lane = (int)threadIdx.x % WARP, pieces = CODES ? 2 : PIECES;
    const int row = lane / pieces, piece = lane % pieces, bits = CODES ? 4 : 16;
    const size_t row_bytes = cols * (size_t)bits / 8;
    return {(const char *)matrix + (first + (size_t)row) * row_bytes + piece * 16,
            row_bytes * (size_t)(WARP / pieces), (int)(n_rows - first) - row,
            (int)cols - piece * 128 / bits,
            first < n_rows && n_rows - first >= ROWS ? (int)cols - STEP : -1};
}

/* Pieces of a row lie in an order of the row's own: those that are read at once, of different rows,
 * are in different banks. */
static __device__ __forceinline__ int place_of(int row, int piece)
{
    return row * ROW_BYTES + ((piece ^ row) & (PIECES - 1)) * 16;
}

template <int ROWS>
static __device__ __forceinline__ void ask_numbers(char *to, const source &s, int k)
{
    const int lane = (int)threadIdx.x % WARP, row = lane / PIECES, piece = lane % PIECES;
    const char *from = s.at + (size_t)k * 2;
    if (k <= s.whole) {
        /* The order of pieces is that of eight rows before. */
        char *const even = to + place_of(row, piece), *const odd = to + place_of(row + 4, piece);
        static_assert(ROWS_AT_ONCE == 4, "rows in turn");
#pragma unroll
        for (int i = 0; i < ROWS; i += 8, from += s.next) {
            copy_16(even + i * ROW_BYTES, from);
            copy_16(odd + i * ROW_BYTES, from += s.next);
        }
        return;
    }
#pragma unroll 1
    for (int i = 0; i < ROWS; i += ROWS_AT_ONCE, from += s.next) {
        const bool there = i < s.rows && k < s.columns;
        copy_or_clear_16(to + place_of(row + i, piece), there ? from : s.at, there);
    }
}

template <int ROWS>
static __device__ __forceinline__ void ask_codes(char *to, const source &s, int k)
{
    const int lane = (int)threadIdx.x % WARP;
    const char *from = s.at + k / 2;
    if (k <= s.whole) {
#pragma unroll
        for (int i = 0; i < ROWS; i += WARP / 2, from += s.next)
            copy_16(to + i * CODE_BYTES + lane * 16, from);
        return;
    }
#pragma unroll 1
    for (int i = 0; i < ROWS; i += WARP / 2, from += s.next)
        copy_or_clear_16(to + i * CODE_BYTES + lane * 16, i < s.rows ? from : s.at, i < s.rows);
}

template <typename S>
static __device__ __forceinline__ void ask_weights(char *slot, const source &s, int k)
{
    if (S::CODES)
        ask_codes<S::OUTPUTS>(slot + S::WEIGHTS_AT, s, k);
    else
        ask_numbers<S::OUTPUTS>(slot + S::WEIGHTS_AT, s, k);
}

/* What of the tile's weights the rings have no room for yet, into the GPU's cache. */
template <typename S>
static __device__ __forceinline__ void announce(const cuda_matrix &w, size_t output)
{
    enum { LINE = 128 };
    const unsigned row_bytes = (unsigned)w.cols * (S::CODES ? 4 : 16) / 8;
    constexpr unsigned ASKED = S::SLOTS * S::WARPS * (S::CODES ? CODE_BYTES : ROW_BYTES);
#pragma unroll 1
    for (unsigned at = ASKED + threadIdx.x / S::OUTPUTS * LINE; at < row_bytes;
         at += S::THREADS / S::OUTPUTS * LINE) {
        const size_t row = output + threadIdx.x % S::OUTPUTS;
        if (row >= w.rows) return;
#if __CUDA_ARCH__ >= 800
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"((const char *)w.codes + row * row_bytes + at));
#endif
    }
}

/* f(i, block) for the thread's of a tile's blocks (steps, OUTPUTS): which of the tile's it is, and
 * of the matrix's. */
template <typename S, typename F>
static __device__ __forceinline__ void each_block(const cuda_matrix &w, size_t output, F f)
{
    const int steps = (int)w.cols / STEP;
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < steps * S::OUTPUTS; i += S::THREADS) {
        const size_t row = min(output + (size_t)(i % S::OUTPUTS), w.rows - 1);
        f(i, row * (size_t)steps + (size_t)(i / S::OUTPUTS));
    }
}

/* The scales of all of the tile's blocks, asked for where they are numbers in memory: nobody waits
 * for them before the first step. */
template <typename S>
static __device__ __forceinline__ void ask_scales(float *to, const cuda_matrix &w, size_t output)
{
    each_block<S>(w, output, [&](int i, size_t block) { copy_4(to + i, w.scales + block); });
}

/* The same where they are quantized themselves. */
template <typename S>
static __device__ __forceinline__ void put_scales(float *to, const cuda_matrix &w, size_t output)
{
    each_block<S>(w, output, [&](int i, size_t block) { to[i] = block_scale(w, block); });
}

/* ---- multiplying ----------------------------------------------------------------------------- */

template <weight_kind W>
static __device__ __forceinline__ void multiply(float sum[4], const uint32_t a[4],
                                                const uint32_t b[2])
{
    if (W == WEIGHTS_BF16)
        mma_bfloat(sum, a, b);
    else
        mma_half(sum, a, b);
}

/* A step of 16-bit weights. */
template <typename S>
static __device__ __forceinline__ void multiply_numbers(const char *slot, float sum[S::M][S::N][4])
{
    const int lane = (int)threadIdx.x % WARP;
    const char *weights = slot + S::WEIGHTS_AT;
#pragma unroll
    for (int k = 0; k < PIECES; k += 2) {
        uint32_t a[S::M][4];
#pragma unroll
        for (int m = 0; m < S::M; m++)
            load_tiles(
                a[m],
                (const __half *)(weights + m * 16 * ROW_BYTES + place_of(lane % 16, k + lane / 16)),
                false);
#pragma unroll
        for (int n = 0; n < S::N; n += 2) {
            uint32_t b[4];
            load_tiles(b,
                       (const __half *)(slot + n * 8 * ROW_BYTES +
                                        place_of(lane % 8 + lane / 16 * 8, k + lane / 8 % 2)),
                       false);
#pragma unroll
            for (int m = 0; m < S::M; m++) {
                multiply<S::W>(sum[m][n], a[m], b);
                multiply<S::W>(sum[m][n + 1], a[m], b + 2);
            }
        }
    }
}

/* A step of codes, a block of each row of weights. */
template <typename S>
static __device__ __forceinline__ void multiply_codes(const product_args &p, const char *slot,
                                                      const float *scales, float sum[S::M][S::N][4])
{
    const int lane = (int)threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const char *weights = slot + S::WEIGHTS_AT + g * CODE_BYTES + t * 8;
    uint4 x[S::N][2];
#pragma unroll
    for (int n = 0; n < S::N; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
            x[n][i] = *(const uint4 *)(slot + n * 8 * ROW_BYTES + place_of(g, t * 2 + i));
#pragma unroll
    for (int m = 0; m < S::M; m++) {
        const uint2 one = *(const uint2 *)(weights + m * 16 * CODE_BYTES);
        const uint2 other = *(const uint2 *)(weights + (m * 16 + 8) * CODE_BYTES);
        float block[S::N][4] = {};
#pragma unroll
        for (int i = 0; i < 2; i++) {
            uint32_t u[4], v[4]; /* of rows g and g + 8 */
            decode_eight(p.codes, i ? one.y : one.x, u);
            decode_eight(p.codes, i ? other.y : other.x, v);
            const uint32_t first[4] = {u[0], v[0], u[1], v[1]}, last[4] = {u[2], v[2], u[3], v[3]};
#pragma unroll
            for (int n = 0; n < S::N; n++) mma_half(block[n], first, &x[n][i].x);
#pragma unroll
            for (int n = 0; n < S::N; n++) mma_half(block[n], last, &x[n][i].z);
        }
        const float low = scales[m * 16 + g] * p.unit, high = scales[m * 16 + g + 8] * p.unit;
#pragma unroll
        for (int n = 0; n < S::N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[m][n][i] = __fmaf_rn(block[n][i], i < 2 ? low : high, sum[m][n][i]);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

/* The warps' sums (ROWS, OUTPUTS), one behind the other in the rings' memory, which is done with.
 */
template <typename S>
static __device__ __forceinline__ void put_sums(char *room, const float sum[S::M][S::N][4])
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    float *own = (float *)room + (warp * S::ROWS + lane % 4 * 2) * S::PITCH + lane / 4;
    __syncthreads();
#pragma unroll
    for (int n = 0; n < S::N; n++)
#pragma unroll
        for (int m = 0; m < S::M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                own[(n * 8 + i % 2) * S::PITCH + m * 16 + i / 2 * 8] = sum[m][n][i];
    __syncthreads();
}

/* Where the sums of a tile's row by the first of its warps are. */
template <typename S> static __device__ __forceinline__ int first_sum(int row)
{
    if (S::ALL_ROWS == S::ROWS) return row;
    return row / S::ROWS * (S::SHARE * S::ROWS) + row % S::ROWS;
}

template <typename S>
static __device__ __forceinline__ float4 total(const char *room, int row, int output)
{
    const float *at = (const float *)room + first_sum<S>(row) * S::PITCH + output;
    float4 y = *(const float4 *)at;
#pragma unroll
    for (int i = 1; i < S::SHARE; i++) {
        const float4 x = *(const float4 *)(at + i * S::ROWS * S::PITCH);
        y.x += x.x;
        y.y += x.y;
        y.z += x.z;
        y.w += x.w;
    }
    return y;
}

/* Results four by four; what the next ones want besides their sums is on its way. */
template <typename S>
static __device__ __forceinline__ void write_fours(const cuda_mma_args &a, const cuda_epilogue &e,
                                                   size_t outputs, size_t row, size_t output,
                                                   char *room, const float sum[S::M][S::N][4])
{
    constexpr int FOURS = S::OUTPUTS / 4, AT_ONCE = S::THREADS / FOURS; /* rows */
    static_assert(S::THREADS % FOURS == 0, "a thread has the same outputs of all rows");
    const int n = (int)min((size_t)S::ALL_ROWS, a.n_rows - row);
    const int y = (int)threadIdx.x % FOURS * 4;
    const size_t c = output + (size_t)y;
    int x = (int)threadIdx.x / FOURS;
    four_inputs next;
    if (x < n && c < outputs) next = load_four(e, row + (size_t)x, c);
    const layer_end end = known_end_of(e);
    const size_t apart = AT_ONCE * e.out_stride, residual_apart = AT_ONCE * e.residual_stride;
    size_t to = (row + (size_t)x) * e.out_stride + c;
    const float *residual = e.residual + (row + (size_t)x) * e.residual_stride + c;
    float *const out = e.out;
    put_sums<S>(room, sum);
    if (c >= outputs) return;
#pragma unroll 1
    for (int above = x; x < n; above = x, to += apart) {
        const four_inputs in = next;
        const float4 product = total<S>(room, above, y);
        x += AT_ONCE;
        residual += residual_apart;
        if (x < n && end.does & (END_MULTIPLIER | END_ADDEND))
            load_factors(e, row + (size_t)x, c, next);
        if (x < n && end.does & END_RESIDUAL) next.residual = *(const float4 *)residual;
        const float4 v = finish_four(end, in, product);
        *(float4 *)(out + to) = v;
        if (a.operand.out) put_four(a.operand.type, a.operand.out, to, v);
    }
}

/* The same one by one, where four are not in line. */
template <typename S>
static __device__ __noinline__ void write_ones(const cuda_mma_args &a, const cuda_epilogue &e,
                                               size_t outputs, size_t row, size_t output,
                                               const float *sums)
{
#pragma unroll 1
    for (int at = (int)threadIdx.x; at < S::ALL_ROWS * S::OUTPUTS; at += S::THREADS) {
        const int x = at / S::OUTPUTS, y = at % S::OUTPUTS;
        const size_t r = row + (size_t)x, c = output + (size_t)y, to = r * e.out_stride + c;
        if (r >= a.n_rows || c >= outputs) continue;
        float v = 0;
        for (int i = 0; i < S::SHARE; i++)
            v += sums[(first_sum<S>(x) + i * S::ROWS) * S::PITCH + y];
        finish(e, r, c, add_bias(e, false, c, v));
        if (a.operand.out) put(a.operand.type, a.operand.out, to, e.out[to]);
    }
}

template <typename S>
static __device__ __forceinline__ void write_tile(const product_args &p, const tile_place &t,
                                                  char *room, const float sum[S::M][S::N][4])
{
    const cuda_mma_args &a = p.a;
    const cuda_epilogue &e = a.epilogue[t.part];
    const size_t outputs = a.w[t.part].rows;
    if (p.fours >> t.part & 1) {
        write_fours<S>(a, e, outputs, t.row, t.output, room, sum);
    } else {
        put_sums<S>(room, sum);
        write_ones<S>(a, e, outputs, t.row, t.output, (const float *)room);
    }
}

/* ---- the kernel ------------------------------------------------------------------------------ */

/* DECODES: there are blocks that decode; without them a kernel is over some 0.1 us earlier. */
template <typename S, bool DECODES>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    product_mma(const __grid_constant__ product_args p)
{
    if (!MMA) return; /* bg_cuda_product_mma_fits says no then */
    extern __shared__ __align__(16) char room[];
    const cuda_mma_args &a = p.a;
    if (DECODES && blockIdx.x >= gridDim.x - a.coming.decoders) {
        decode_share<S::THREADS>(a.coming, blockIdx.x - (gridDim.x - a.coming.decoders));
        return;
    }
    const tile_place t = place_of_tile<S>(p);
    const cuda_matrix &w = a.w[t.part];
    const int warp = (int)threadIdx.x / WARP, cols = (int)a.cols;
    char *const ring = room + warp * (S::SLOTS * S::SLOT), *const end = ring + S::SLOTS * S::SLOT;
    const source weights = source_of<S::CODES, S::OUTPUTS>(w.codes, t.output, w.rows, a.cols);
    const source input = source_of<false, S::ROWS>(a.x, t.row, a.n_rows, a.cols);
    int ask = warp * STEP; /* the column that is asked for next */
    float *const scales = (float *)(room + S::SHARED);

#pragma unroll 1
    for (char *slot = ring; slot < end; slot += S::SLOT, ask += S::WARPS * STEP)
        if (ask < cols) ask_weights<S>(slot, weights, ask);
    ask = warp * STEP;
    if (t.row == 0) announce<S>(w, t.output);
    if (S::CODES && w.scales) ask_scales<S>(scales, w, t.output);
    wait_for_earlier();
    let_next_start(); /* not before: ahead.c */
#pragma unroll 1
    for (char *slot = ring; slot < end; slot += S::SLOT, ask += S::WARPS * STEP) {
        if (ask < cols) ask_numbers<S::ROWS>(slot, input, ask);
        end_of_group();
    }
    if (S::CODES) {
        if (!w.scales) put_scales<S>(scales, w, t.output);
        wait_for_groups<S::SLOTS - 1>(); /* the first one's are the scales as well */
        __syncthreads();
    }
    float sum[S::M][S::N][4] = {};
    char *slot = ring;
#pragma unroll 1
    for (int k = warp * STEP; k < cols; k += S::WARPS * STEP, ask += S::WARPS * STEP) {
        wait_for_groups<S::SLOTS - 1>();
        __syncwarp();
        if (S::CODES)
            multiply_codes<S>(p, slot, scales + k / STEP * S::OUTPUTS, sum);
        else
            multiply_numbers<S>(slot, sum);
        __syncwarp();
        if (ask < cols) {
            ask_weights<S>(slot, weights, ask);
            ask_numbers<S::ROWS>(slot, input, ask);
        }
        end_of_group();
        slot = slot + S::SLOT == end ? ring : slot + S::SLOT;
    }
    write_tile<S>(p, t, room, sum);
}

#endif
