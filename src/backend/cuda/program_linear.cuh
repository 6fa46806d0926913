/* Linear layers of a program: up to MOST_ROWS rows of activations times a matrix. The block's warps
 * share a tile's steps (2^k_shift groups of them) and the block's tiles; their sums meet in shared
 * memory. */
#ifndef BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH
#define BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH

#include "backend/cuda/program_tile.cuh"

/* ---- the output ------------------------------------------------------------------------------ */

/* Output number o of the block: row of the matrix and of the activations, and where its sums lie.
 */
struct output_place {
    unsigned part, row, m, at;
    bool there;
};

static __device__ __forceinline__ output_place output_of(const cuda_linear_args &a, unsigned o,
                                                         unsigned rows, unsigned n_tiles)
{
    const unsigned paired = a.paired != CUDA_NOT_PAIRED, shift = a.row_shift;
    const unsigned tile = ((o >> shift) / TILE << paired) + paired;
    output_place p;
    p.m = o & ((1u << shift) - 1);
    p.there = tile < n_tiles && p.m < rows;
    if (!p.there) return p;
    const tile_place t = place_of(a, tile);
    p.part = t.part;
    p.row = t.row + (o >> shift) % TILE;
    p.at = (tile * TILE << shift) + o % (TILE << shift);
    p.there = p.row < (unsigned)a.w[p.part].rows;
    return p;
}

/* What an output takes besides its product. */
struct output_ends {
    float bias, first_bias, scale, first_scale, multiplier, addend, residual;
};

template <kind K>
static __device__ __forceinline__ output_ends load_ends(const cuda_linear_args &a,
                                                        const output_place &p, unsigned first)
{
    output_ends x = {0, 0, 1, 1, 1, 0, 0};
    if (!p.there) return x;
    const cuda_epilogue &e = a.epilogue[p.part];
    const size_t m = first + p.m;
    if (e.bias) x.bias = __ldg(e.bias + p.row);
    if (K == KIND_INT8) x.scale = __ldg(a.w[p.part].scales + p.row);
    if (a.paired != CUDA_NOT_PAIRED) {
        if (a.epilogue[0].bias) x.first_bias = __ldg(a.epilogue[0].bias + p.row);
        if (K == KIND_INT8) x.first_scale = __ldg(a.w[0].scales + p.row);
    } else {
        if (e.multiplier) x.multiplier = load_fresh(e.multiplier + m * e.multiplier_stride + p.row);
        if (e.addend) x.addend = load_fresh(e.addend + m * e.addend_stride + p.row);
    }
    if (e.residual) x.residual = load_fresh(e.residual + m * e.residual_stride + p.row);
    return x;
}

template <kind K>
static __device__ __forceinline__ float
product_of(const cuda_linear_args &a, const float *sums, const float *others, unsigned at,
           unsigned stride, float input_scale, bool outliers, float scale, float bias, bool biased,
           bool half)
{
    typename sum_of<K>::type sum = 0;
    const typename sum_of<K>::type *all = (const typename sum_of<K>::type *)sums + at;
    const unsigned groups = 1u << a.k_shift;
#pragma unroll 1
    for (unsigned k = 0; k < groups; k += 4) {
        typename sum_of<K>::type v[4];
#pragma unroll
        for (unsigned i = 0; i < 4; i++) v[i] = k + i < groups ? all[(k + i) * stride] : 0;
        sum += (v[0] + v[1]) + (v[2] + v[3]);
    }
    if constexpr (K == KIND_INT8) {
        float y = (float)sum * input_scale * scale;
        y = biased ? __fmaf_rn(y, INT8_SCALE, bias) : y * INT8_SCALE;
        y = round_if(half, y);
        return outliers ? round_if(half, y + others[at]) : y;
    } else {
        const float y = sum * input_scale;
        return round_if(half, biased ? y + bias : y);
    }
}

struct outlier_list {
    const uint16_t *columns;
    const char *quads;
    unsigned pitch;
    int n;
};

/* Products with LLM.int8()'s outlier columns, a warp for each output; `two` is the second part's
 * input where parts have inputs of their own. */
static __device__ __noinline__ void multiply_outliers(const cuda_linear_args &a, unsigned n_tiles,
                                                      unsigned rows, outlier_list one,
                                                      outlier_list two, float *others)
{
    const unsigned lane = threadIdx.x % WARP, shift = a.row_shift, each = TILE << shift;
    for (unsigned o = threadIdx.x / WARP; o < n_tiles * each; o += STEP_WARPS) {
        const tile_place t = place_of(a, o >> shift >> 4);
        const unsigned row = t.row + (o >> shift) % TILE, m = o & ((1u << shift) - 1);
        const bool second = a.paired == CUDA_ADDED && t.part == 1;
        const cuda_matrix &w = a.w[t.part];
        float sum = 0;
        if (row < (unsigned)w.rows && m < rows) {
            const int8_t *codes = (const int8_t *)w.codes + (size_t)row * w.cols;
            const uint16_t *columns = second ? two.columns : one.columns;
            const float *x =
                (const float *)(second ? two.quads + m * two.pitch : one.quads + m * one.pitch);
            const float scale = __ldg(w.scales + row);
            for (int i = (int)lane; i < (second ? two.n : one.n); i += WARP) {
                const unsigned c = columns[i];
                const float weight = (float)__ldg(codes + c) * scale * 7.874015718698502e-3f;
                sum += x[quad_place(c / 4) * 4 + c % 4] * round_half(weight);
            }
        }
        sum = warp_sum(sum);
        if (lane == 0) others[o] = sum;
    }
}

template <kind K>
static __device__ __forceinline__ void
write_outputs(const cuda_linear_args &a, unsigned first, unsigned rows, unsigned n_tiles,
              const float *sums, const float *others, const input_rooms *rooms, float pair_scale,
              output_place p, output_ends x)
{
    const bool paired = a.paired != CUDA_NOT_PAIRED;
    const unsigned each = TILE << a.row_shift, stride = n_tiles * each;
    const unsigned count = (paired ? n_tiles / 2 : n_tiles) * each;
    for (unsigned o = threadIdx.x; o < count; o += STEP_THREADS) {
        if (o != threadIdx.x) {
            p = output_of(a, o, rows, n_tiles);
            x = load_ends<K>(a, p, first);
        }
        if (!p.there) continue;
        const cuda_epilogue &e = a.epilogue[p.part];
        const unsigned input = a.paired == CUDA_ADDED ? 1 : 0;
        const size_t m = first + p.m;
        const float unit = is_4bit(K) ? pair_scale : 1;
        float y =
            product_of<K>(a, sums, others, p.at, stride, rooms[input].scale[p.m] * unit,
                          rooms[input].n_outliers > 0, x.scale, x.bias, e.bias != NULL, e.half);
        if (paired) {
            const cuda_epilogue &f = a.epilogue[0];
            const float other = product_of<K>(a, sums, others, p.at - each, stride,
                                              rooms[0].scale[p.m] * unit, rooms[0].n_outliers > 0,
                                              x.first_scale, x.first_bias, f.bias != NULL, f.half);
            if (a.paired == CUDA_ADDED) {
                x.addend = other;
                f.out[m * f.out_stride + p.row] = other;
            } else {
                x.multiplier = other;
            }
        }
        y = activate(e.activation, e.half, y);
        if (e.activation != BG_ACTIVATION_NONE) y = round_if(e.half, y);
        if (a.paired == CUDA_GATED || e.multiplier) y = round_if(e.half, y * x.multiplier);
        if (a.paired == CUDA_ADDED || e.addend) y = round_if(e.half, y + x.addend);
        if (e.residual) y = round_if(e.half, y + x.residual);
        e.out[m * e.out_stride + p.row] = y;
    }
}

/* Asks for the constants that an output takes. */
template <kind K>
static __device__ __forceinline__ void ask_for_ends(const cuda_linear_args &a,
                                                    const output_place &p)
{
    if (!p.there) return;
    if (a.epilogue[p.part].bias) ask_for(a.epilogue[p.part].bias + p.row);
    if (K == KIND_INT8) ask_for(a.w[p.part].scales + p.row);
    if (a.paired == CUDA_NOT_PAIRED) return;
    if (a.epilogue[0].bias) ask_for(a.epilogue[0].bias + p.row);
    if (K == KIND_INT8) ask_for(a.w[0].scales + p.row);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* The block's tiles, as their weights come: this warp's share of each product to `sums`. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void
multiply_pass(const cuda_linear_args &a, unsigned rows, const tile_order &o, const warp_team &t,
              unsigned pass, ring<K> &weights, const char *tables, const staged_input &input,
              float *sums)
{
    const unsigned each = TILE << a.row_shift, steps = steps_of<K>(a, pass);
    const unsigned lane = threadIdx.x % WARP;
    const char *in = column_of<K>(input, rows, PACKED);
    warp_tile<K, PACKED> now;
#pragma unroll 1
    for (unsigned group = 0; group < o.n_tiles; group += o.count) {
        const unsigned n = min(o.count, o.n_tiles - group);
        if (t.number >= n) {
            weights.skip(n * pieces_of(steps));
            continue;
        }
        const unsigned j = o.tile(pass, group + t.number);
        now.begin(a, place_of(a, j));
        weights.skip(t.number);
        unsigned step = t.member;
#pragma unroll 1
        for (unsigned piece = 0; piece < steps; piece += SLOT_STEPS) {
            const char *slot = weights.wait_full();
            const unsigned end = min(piece + SLOT_STEPS, steps);
#pragma unroll is_4bit(K) ? 1 : 2
            for (; step < end; step += 1u << t.shift)
                now.multiply_step(in, slot + (step - piece) * step_shape<K>::PITCH, step, lane,
                                  tables);
            weights.give_back(o.count);
            weights.skip(piece + SLOT_STEPS < steps ? n : n - t.number);
        }
        now.put(rows, a.row_shift, sums + (t.member * o.n_tiles * o.n_passes + j) * each);
    }
}

/* `tables`: tile_shape's; `room`: for sums and inputs. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_rows(const cuda_linear_args &a, unsigned first, unsigned rows, const all_blocks *blocks,
         ring<K> &weights, const char *tables, float pair_scale, char *room, input_rooms rooms[2])
{
    using shape = tile_shape<K>;
    const unsigned n_tiles = tiles_of_block(a), each = TILE << a.row_shift;
    const tile_order order = order_of(a);
    const warp_team warps = warp_team_of(a);
    const output_place p = output_of(a, threadIdx.x, rows, n_tiles);
    ask_for_ends<K>(a, p);
    unsigned m;
    const team t = team_of(a.row_shift, &m);
    ready_norm ready;
    get_norm_ready(a.norm, (unsigned)a.cols, t, ready);
    if (threadIdx.x < 2) rooms[threadIdx.x].has_outliers = rooms[threadIdx.x].n_outliers = 0;
    if (blocks) blocks->wait();

    float *sums = (float *)room;
    float *others = sums + (n_tiles * each << a.k_shift);
    room += a.sums_bytes;
    const staged_input one = staged_at(room, shape::PARTS, rows, (unsigned)a.cols);
    room += staged_bytes(shape::PARTS, rows, (unsigned)a.cols);
    const staged_input two = staged_at(room, shape::PARTS, rows, (unsigned)a.w[1].cols);
    const output_ends ends = load_ends<K>(a, p, first);
#pragma unroll 1
    for (int i = 0; i < (a.paired == CUDA_ADDED ? 2 : 1); i++)
        stage_input<shape::PARTS>(i ? a.second_in : a.in, (unsigned)(i ? a.w[1].cols : a.cols), a,
                                  t, m, ready, first, rows, i ? two : one, rooms[i], tables);

#pragma unroll 1
    for (unsigned pass = 0; pass < order.n_passes; pass++) {
        if (pass > 0) step_sync(); /* a team may have skipped many slots */
        multiply_pass<K, PACKED>(a, rows, order, warps, pass, weights, tables, pass ? two : one,
                                 sums);
    }
    step_sync();
    if (K == KIND_INT8 &&
        (rooms[0].n_outliers > 0 || (a.paired == CUDA_ADDED && rooms[1].n_outliers > 0))) {
        const outlier_list ones = {one.outliers, one.quads, one.pitch, rooms[0].n_outliers};
        const outlier_list twos = {two.outliers, two.quads, two.pitch, rooms[1].n_outliers};
        multiply_outliers(a, n_tiles, rows, ones, twos, others);
        step_sync();
    }
    write_outputs<K>(a, first, rows, n_tiles, sums, others, rooms, pair_scale, p, ends);
}

template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_linear(const cuda_linear_args &a, const all_blocks &blocks, ring<K> &weights,
           const char *tables, float pair_scale, char *room, input_rooms rooms[2])
{
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once) {
        if (first > 0) step_sync();
        run_rows<K, PACKED>(a, first, min((unsigned)a.n_rows - first, a.rows_at_once),
                            first == 0 ? &blocks : NULL, weights, tables, pair_scale, room, rooms);
    }
}

#endif
