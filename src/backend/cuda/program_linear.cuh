/* Linear layers of a program: up to MOST_ROWS rows of activations times a matrix. The block's warps
 * take pieces of its tiles in turn; their sums meet in shared memory. */
#ifndef BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH
#define BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH

#include "backend/cuda/program_tile.cuh"

/* ---- sums ------------------------------------------------------------------------------------ */

/* The sums of a tile, (TILE << row_shift) each: one where tiles are abreast, else one of each piece
 * or of each warp. */
struct tile_sums {
    unsigned first, count, each;
};

static __device__ __forceinline__ tile_sums sums_of(const cuda_linear_args &a, unsigned tile,
                                                    unsigned abreast)
{
    const unsigned each = TILE << a.row_shift,
                   most = min(max(a.pieces[0], a.pieces[1]), (unsigned)STEP_WARPS);
    if (tile < abreast) return {tile * each, 1, each};
    return {(abreast + (tile - abreast) * most) * each,
            min(pieces_of(a, tile), (unsigned)STEP_WARPS), each};
}

/* ---- the output ------------------------------------------------------------------------------ */

/* Output number o of the block: its tile, row of the matrix and of the activations, and number in
 * the tile. */
struct output_place {
    unsigned tile, part, row, m, at;
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
    p.tile = tile;
    p.at = o % (TILE << shift);
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

/* What a product takes besides its sums. */
struct product_ends {
    float scale, bias; /* of the row */
    bool biased, half;
};

/* An output's product; `others` are those with outlier columns, NULL where there are none. */
template <kind K>
static __device__ __forceinline__ float product_of(const tile_sums &t, unsigned at,
                                                   const float *sums, const float *others,
                                                   float input_scale, const product_ends &e)
{
    typedef typename sum_of<K>::type T;
    const T *all = (const T *)sums + t.first + at;
    T v[STEP_WARPS];
#pragma unroll
    for (unsigned k = 0; k < STEP_WARPS; k++) v[k] = k < t.count ? all[k * t.each] : 0;
#pragma unroll
    for (unsigned n = STEP_WARPS / 2; n > 0; n /= 2)
#pragma unroll
        for (unsigned k = 0; k < n; k++) v[k] += v[k + n];
    const T sum = v[0];
    if constexpr (K == KIND_INT8) {
        float y = (float)sum * input_scale * e.scale;
        y = e.biased ? __fmaf_rn(y, INT8_SCALE, e.bias) : y * INT8_SCALE;
        y = round_if(e.half, y);
        return others ? round_if(e.half, y + others[at]) : y;
    } else {
        const float y = sum * input_scale;
        return round_if(e.half, e.biased ? y + e.bias : y);
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
static __device__ __forceinline__ void multiply_outliers(const cuda_linear_args &a,
                                                         unsigned n_tiles, unsigned rows,
                                                         outlier_list one, outlier_list two,
                                                         float *others)
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
                sum += round_half(x[quad_place(c / 4) * 4 + c % 4]) * round_half(weight);
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
    const unsigned each = TILE << a.row_shift, abreast = tiles_abreast(a, n_tiles);
    const unsigned count = (paired ? n_tiles / 2 : n_tiles) * each;
    const float unit = is_4bit(K) ? pair_scale : 1;
    for (unsigned o = threadIdx.x; o < count; o += STEP_THREADS) {
        if (o != threadIdx.x) {
            p = output_of(a, o, rows, n_tiles);
            x = load_ends<K>(a, p, first);
        }
        if (!p.there) continue;
        const cuda_epilogue &e = a.epilogue[p.part];
        const input_rooms &input = rooms[a.paired == CUDA_ADDED];
        const size_t m = first + p.m;
        const float *other_products = others + p.tile * each;
        float y = product_of<K>(sums_of(a, p.tile, abreast), p.at, sums,
                                input.n_outliers > 0 ? other_products : NULL,
                                input.scale[p.m] * unit, {x.scale, x.bias, e.bias != NULL, e.half});
        if (paired) {
            const cuda_epilogue &f = a.epilogue[0];
            const float other = product_of<K>(
                sums_of(a, p.tile - 1, abreast), p.at, sums,
                rooms[0].n_outliers > 0 ? other_products - each : NULL, rooms[0].scale[p.m] * unit,
                {x.first_scale, x.first_bias, f.bias != NULL, f.half});
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

template <kind K, bool PACKED>
static __device__ __forceinline__ void
multiply_piece(const cuda_linear_args &a, unsigned part, unsigned piece, const char *in,
               const char *tables, ring &weights, warp_tile<K, PACKED> &now)
{
    const unsigned lane = threadIdx.x % WARP, first = piece * a.piece_steps;
    const unsigned count = min(steps_of<K>(a, part) - first, a.piece_steps);
    const char *slot = weights.wait_full();
#pragma unroll(is_4bit(K) ? 2 : 4)
    for (unsigned i = 0; i < count; i++)
        now.multiply_step(in, slot + i * step_shape<K>::PITCH, first + i, lane, tables);
    weights.give_back();
}

/* The warp's pieces, as their weights come. The columns are column_of's, the second that of an
 * added part's own input. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void multiply_pieces(const cuda_linear_args &a, unsigned rows,
                                                       unsigned n_tiles, ring &weights,
                                                       const char *tables, const char *first_column,
                                                       const char *second_column, float *sums)
{
    const unsigned abreast = tiles_abreast(a, n_tiles), warp = threadIdx.x / WARP;
    const unsigned mine = (warp - weights.turn) % STEP_WARPS;
    const char *in = first_column;
    warp_tile<K, PACKED> now;
#pragma unroll 1
    for (unsigned tile = mine; tile < abreast; tile += STEP_WARPS) {
        const tile_place at = place_of(a, tile);
        now.begin(a, at);
#pragma unroll 1
        for (unsigned i = 0; i < a.pieces[0]; i++)
            multiply_piece(a, at.part, i, in, tables, weights, now);
        now.put(rows, a.row_shift, sums + sums_of(a, tile, abreast).first);
    }
    /* The rest: pieces that are STEP_WARPS apart, of one tile or of the next. */
    unsigned tile = abreast, piece = mine, all = 0;
#pragma unroll 1
    for (; tile < n_tiles; tile++) {
        const unsigned pieces = pieces_of(a, tile);
        all += pieces;
        if (piece >= pieces) {
            piece -= pieces;
            continue;
        }
        const tile_place at = place_of(a, tile);
        const tile_sums to = sums_of(a, tile, abreast);
        const unsigned number = pieces < STEP_WARPS ? piece : warp;
        in = a.paired == CUDA_ADDED && at.part ? second_column : first_column;
        now.begin(a, at);
#pragma unroll 1
        for (; piece < pieces; piece += STEP_WARPS)
            multiply_piece(a, at.part, piece, in, tables, weights, now);
        piece -= pieces;
        now.put(rows, a.row_shift, sums + to.first + number * to.each);
    }
    weights.turn = (weights.turn + all) % STEP_WARPS;
}

/* `tables`: tile_shape's; `room`: for sums and inputs. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_rows(const cuda_linear_args &a, unsigned first, unsigned rows, const all_blocks *blocks,
         ring &weights, const char *tables, float pair_scale, char *room, input_rooms rooms[2])
{
    using shape = tile_shape<K>;
    const unsigned n_tiles = tiles_of_block(a);
    const output_place p = output_of(a, threadIdx.x, rows, n_tiles);
    ask_for_ends<K>(a, p);
    unsigned m;
    const team t = team_of(a.row_shift, &m);
    ready_norm ready;
    get_norm_ready(a.norm, (unsigned)a.cols, t, ready);
    if (threadIdx.x < 2) rooms[threadIdx.x].has_outliers = rooms[threadIdx.x].n_outliers = 0;
    if (blocks) blocks->wait();

    float *sums = (float *)room;
    float *others = sums + sums_of(a, n_tiles, tiles_abreast(a, n_tiles)).first;
    room += a.sums_bytes;
    char *second_room = room + staged_bytes(shape::PARTS, rows, (unsigned)a.cols);
    const bool added = a.paired == CUDA_ADDED;
    const output_ends ends = load_ends<K>(a, p, first);
#pragma unroll 1
    for (int i = 0; i <= (int)added; i++) {
        const unsigned cols = (unsigned)(i ? a.w[1].cols : a.cols);
        stage_input<shape::PARTS>(i ? a.second_in : a.in, cols, a, t, m, ready, first, rows,
                                  staged_at(i ? second_room : room, shape::PARTS, rows, cols),
                                  rooms[i], tables);
    }
    const staged_input one = staged_at(room, shape::PARTS, rows, (unsigned)a.cols);
    const staged_input two = staged_at(second_room, shape::PARTS, rows, (unsigned)a.w[1].cols);
    multiply_pieces<K, PACKED>(a, rows, n_tiles, weights, tables, column_of<K>(one, rows, PACKED),
                               column_of<K>(two, rows, PACKED), sums);
    step_sync();
    if (K == KIND_INT8 && (rooms[0].n_outliers > 0 || (added && rooms[1].n_outliers > 0))) {
        const outlier_list ones = {one.outliers, one.quads, one.pitch, rooms[0].n_outliers};
        const outlier_list twos = {two.outliers, two.quads, two.pitch, rooms[1].n_outliers};
        multiply_outliers(a, n_tiles, rows, ones, twos, others);
        step_sync();
    }
    write_outputs<K>(a, first, rows, n_tiles, sums, others, rooms, pair_scale, p, ends);
}

template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_linear(const cuda_linear_args &a, const all_blocks &blocks, ring &weights, const char *tables,
           float pair_scale, char *room, input_rooms rooms[2])
{
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once) {
        if (first > 0) step_sync();
        run_rows<K, PACKED>(a, first, min((unsigned)a.n_rows - first, a.rows_at_once),
                            first == 0 ? &blocks : NULL, weights, tables, pair_scale, room, rooms);
    }
}

#endif
