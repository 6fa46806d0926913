/* Layers of product_mma.cuh with 4-bit weights whose rows are short, in as many tiles as fill the
 * GPU once: all of a tile's codes are decoded to shared memory before the input is there. Most
 * blocks start microseconds before what they wait for, which hides most of that.
 *
 * GROUPS of warps have as many rows each of the same outputs, so that codes are decoded for 128
 * rows at once; a group's warps share the columns that are summed over.
 *
 * What is done once is short of instructions rather than of time: they come from memory for every
 * kernel anew, and loops are loops. */
#ifndef BG_BACKEND_CUDA_PRODUCT_DECODED_CUH
#define BG_BACKEND_CUDA_PRODUCT_DECODED_CUH

#include "backend/cuda/product_mma.cuh"

template <int M_, int N_, int SHARE_, int GROUPS_> struct decoded_shape {
    static constexpr int M = M_, N = N_, OUTPUTS = 16 * M, ROWS = 8 * N; /* of a warp */
    static constexpr int SHARE = SHARE_, GROUPS = GROUPS_, ALL_ROWS = GROUPS * ROWS;
    static constexpr int WARPS = SHARE * GROUPS, THREADS = WARPS * WARP, BLOCKS = 1;
    static constexpr int SLOT = ROWS * ROW_BYTES, SLOTS = 2, RINGS = WARPS * SLOTS * SLOT;
    static constexpr int PITCH = OUTPUTS + 4, SUMS = WARPS * ROWS * PITCH * (int)sizeof(float);
    static constexpr size_t SHARED = RINGS > SUMS ? RINGS : SUMS;
};

/* ---- decoding -------------------------------------------------------------------------------- */

/* Pieces of a row lie in an order of the row's own, and of the step's: what a warp reads at once,
 * of rows of a step, is in different banks, and most of what it writes at once, of a row's steps.
 */
static __device__ __forceinline__ int decoded_place(int row, int piece, int step)
{
    return row * ROW_BYTES + ((piece ^ row ^ step) & (PIECES - 1)) * 16;
}

/* All weights of the tile that begins with row `output`, to `to`: its steps one behind the other.
 * `room`: for the codes until then; a thread decodes the blocks that it has asked for. */
template <typename S>
static __device__ __forceinline__ void decode_tile(char *to, char *room, const float code[16],
                                                   const cuda_matrix &w, size_t output)
{
    const unsigned blocks = (unsigned)w.cols / STEP, most = S::OUTPUTS * blocks;
    const unsigned n = (unsigned)min((size_t)S::OUTPUTS, w.rows - output) * blocks;
    const size_t first = output * blocks;
    char *const halves[2] = {room, room + most * 16};
    float *const scales = (float *)(room + most * 32);
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < n; i += S::THREADS) {
        const char *from = (const char *)w.codes + (first + i) * CODE_BYTES;
        copy_16(halves[0] + i * 16, from);
        copy_16(halves[1] + i * 16, from + 16);
        if (w.scales) copy_4(scales + i, w.scales + first + i);
    }
    end_of_group();
    const unsigned rows_on = S::THREADS / blocks, steps_on = S::THREADS % blocks;
    unsigned row = threadIdx.x / blocks, step = threadIdx.x % blocks;
    wait_for_groups<0>();
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < n; i += S::THREADS) {
        const float scale = w.scales ? scales[i] : block_scale(w, first + i);
        const code_bytes table = scaled_codes(code, scale);
        char *const at = to + step * (S::OUTPUTS * ROW_BYTES);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint4 v = *(const uint4 *)(halves[half] + i * 16);
            const uint32_t eights[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint32_t x[4];
                decode_eight(table, eights[k], x);
                *(uint4 *)(at + decoded_place((int)row, half * 4 + k, (int)step)) =
                    make_uint4(x[0], x[1], x[2], x[3]);
            }
        }
        row += rows_on;
        step += steps_on;
        if (step >= blocks) {
            step -= blocks;
            row++;
        }
    }
    __syncthreads(); /* `room` is the input's now */
}

/* ---- multiplying ----------------------------------------------------------------------------- */

template <typename S>
static __device__ __forceinline__ void multiply_decoded(const char *input, const char *weights,
                                                        int step, float sum[S::M][S::N][4])
{
    const int lane = (int)threadIdx.x % WARP;
    weights += step * (S::OUTPUTS * ROW_BYTES);
#pragma unroll
    for (int k = 0; k < PIECES; k += 2) {
        uint32_t a[S::M][4];
#pragma unroll
        for (int m = 0; m < S::M; m++)
            load_tiles(a[m], shared_address(weights + m * 16 * ROW_BYTES +
                                            decoded_place(lane % 16, k + lane / 16, step)));
#pragma unroll
        for (int n = 0; n < S::N; n += 2) {
            uint32_t b[4];
            load_tiles(b, shared_address(input + n * 8 * ROW_BYTES +
                                         place_of(lane % 8 + lane / 16 * 8, k + lane / 8 % 2)));
#pragma unroll
            for (int m = 0; m < S::M; m++) {
                mma_half(sum[m][n], a[m], b);
                mma_half(sum[m][n + 1], a[m], b + 2);
            }
        }
    }
}

template <typename S, bool DECODES>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    product_decoded(const __grid_constant__ product_args p)
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
    char *const weights = room + S::SHARED;
    const size_t first = t.row + (size_t)(warp / S::SHARE * S::ROWS);
    const source input = source_of<false, S::ROWS>(a.x, first, a.n_rows, a.cols);
    const int begin = warp % S::SHARE * STEP;
    decode_tile<S>(weights, room, p.code, w, t.output);
    wait_for_earlier();
    let_next_start(); /* not before: ahead.c */
    int ask = begin;  /* the column that is asked for next */
#pragma unroll 1
    for (char *slot = ring; slot < end; slot += S::SLOT, ask += S::SHARE * STEP) {
        if (ask < cols) ask_numbers<S::ROWS>(slot, input, ask);
        end_of_group();
    }
    float sum[S::M][S::N][4] = {};
    char *slot = ring;
#pragma unroll 1
    for (int k = begin; k < cols; k += S::SHARE * STEP, ask += S::SHARE * STEP) {
        wait_for_groups<S::SLOTS - 1>();
        __syncwarp();
        multiply_decoded<S>(slot, weights, k / STEP, sum);
        __syncwarp();
        if (ask < cols) ask_numbers<S::ROWS>(slot, input, ask);
        end_of_group();
        slot = slot + S::SLOT == end ? ring : slot + S::SLOT;
    }
    write_tile<S>(p, t, room, sum);
}

#endif
