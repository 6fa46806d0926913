/* Linear layers of a program: up to MOST_ROWS rows of activations times a matrix. The block's warps
 * take pieces of its tiles in turn; their sums meet in shared memory. */
#ifndef BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH
#define BG_BACKEND_CUDA_PROGRAM_LINEAR_CUH

#include "backend/cuda/head.cuh"
#include "backend/cuda/program_tile.cuh"

/* ---- sums ------------------------------------------------------------------------------------ */

/* The sums of a tile, TILE << shift numbers each: one of each warp that has it where tiles are
 * abreast, else one of each piece or of each warp. */
struct tile_sums {
    unsigned first, count; /* the first's place */
};

template <bool JOINT>
static __device__ __forceinline__ tile_sums sums_of(const tiling &t, unsigned tile, unsigned shift)
{
    constexpr unsigned ABREAST = JOINT ? 2 : 1;
    const unsigned each = TILE << shift;
    const unsigned count = min(t.pieces, (unsigned)STEP_WARPS);
    if (tile < t.abreast) return {tile * ABREAST * each, ABREAST};
    return {(t.abreast * ABREAST + (tile - t.abreast) * count) * each, count};
}

/* ---- the output ------------------------------------------------------------------------------ */

/* What a product takes besides its sums: the row's scale and bias. */
struct product_ends {
    float scale, bias;
    bool biased;
};

/* An output of the block and what it takes. What other blocks write is read after the wait. */
struct output {
    bool there, half, gated, multiplied, added, kept;
    bg_activation activation;
    unsigned part, m;
    unsigned at, count, others;    /* its sums, and its place among products with outlier columns */
    product_ends ends, first_ends; /* the latter of a pair's first part */
    float *out;
    const float *residual;
    float multiplier, addend, remainder;
};

template <kind K>
static __device__ __forceinline__ product_ends ends_of(const cuda_linear_args &a, const tiling &t,
                                                       unsigned part, unsigned row)
{
    const bool biased = a.epilogue[part].bias != NULL && t.share == 0;
    product_ends e = {1, 0, biased};
    if (e.biased) e.bias = __ldg(a.epilogue[part].bias + row);
    if (K == KIND_INT8) e.scale = __ldg(a.w[part].scales + row);
    return e;
}

/* Output number o of the block. HALF: it may be of a 16-bit model, where each result is rounded. */
template <kind K, bool HALF, bool JOINT>
static __device__ __forceinline__ output output_of(const cuda_linear_args &a, const tiling &t,
                                                   unsigned o, unsigned first, unsigned rows)
{
    const unsigned shift = a.row_shift, r = (o >> shift) % TILE;
    const unsigned tile = ((o >> shift) / TILE << t.paired) + t.paired;
    output x = {};
    x.m = o & ((1u << shift) - 1);
    if (tile >= t.n_tiles || x.m >= rows || r >= t.tile_rows) return x;
    const tile_place place = place_of(t, tile);
    const unsigned row = place.row + r;
    x.part = place.part;
    if (row >= (unsigned)a.w[x.part].rows) return x;
    const cuda_epilogue &e = a.epilogue[x.part];
    const unsigned m = first + x.m;
    x.there = true;
    x.half = HALF && e.half;
    x.activation = e.activation;
    const tile_sums sums = sums_of<JOINT>(t, tile, shift);
    const unsigned at = o % (TILE << shift);
    x.at = sums.first + at;
    x.count = sums.count;
    x.others = tile * (TILE << shift) + at;
    x.ends = ends_of<K>(a, t, x.part, row);
    x.out = e.out + (m * (unsigned)e.out_stride + row);
    if (has_shares(K)) x.out += t.share * a.share_stride;
    if (t.paired) {
        x.first_ends = ends_of<K>(a, t, 0, row);
        x.gated = true;
    }
    x.multiplied = !t.paired && e.multiplier;
    x.added = !t.paired && e.addend;
    x.kept = e.residual != NULL;
    x.residual = e.residual + (m * (unsigned)e.residual_stride + row);
    return x;
}

/* After the wait. */
static __device__ __forceinline__ void load_others(const cuda_linear_args &a, unsigned first,
                                                   output &x)
{
    if (x.kept) x.remainder = load_fresh(x.residual);
    if (!x.multiplied && !x.added) return;
    const cuda_epilogue &e = a.epilogue[x.part];
    const unsigned m = first + x.m;
    const unsigned row = (unsigned)(x.out - e.out) - m * (unsigned)e.out_stride;
    if (x.multiplied)
        x.multiplier = load_fresh(e.multiplier + (m * (unsigned)e.multiplier_stride + row));
    if (!x.added) return;
    const float *addend = e.addend + (m * (unsigned)e.addend_stride + row);
    float more[CUDA_MOST_SHARES - 1];
    x.addend = load_fresh(addend);
#pragma unroll
    for (unsigned i = 0; i < CUDA_MOST_SHARES - 1; i++)
        more[i] = i < a.more_addends ? load_fresh(addend += a.addends_stride) : 0;
#pragma unroll
    for (unsigned i = 0; i < CUDA_MOST_SHARES - 1; i++) x.addend += more[i];
}

/* An output's product of its sums, `each` apart; `others`: that with outlier columns, where there
 * are any. */
template <kind K>
static __device__ __forceinline__ float product_of(const product_ends &e, bool half, unsigned each,
                                                   const float *sums, unsigned count, bool outliers,
                                                   const float *others, float input_scale)
{
    typedef typename sum_of<K>::type T;
    T v[STEP_WARPS];
#pragma unroll
    for (unsigned k = 0; k < STEP_WARPS; k++) v[k] = k < count ? ((const T *)sums)[k * each] : 0;
#pragma unroll
    for (unsigned n = STEP_WARPS / 2; n > 0; n /= 2)
#pragma unroll
        for (unsigned k = 0; k < n; k++) v[k] += v[k + n];
    const T sum = v[0];
    if constexpr (K == KIND_INT8) {
        float y = (float)sum * input_scale * e.scale;
        y = e.biased ? __fmaf_rn(y, INT8_SCALE, e.bias) : y * INT8_SCALE;
        y = round_if(half, y);
        return outliers ? round_if(half, y + *others) : y;
    } else {
        const float y = sum * input_scale;
        return round_if(half, e.biased ? y + e.bias : y);
    }
}

struct outlier_list {
    const uint16_t *columns;
    const char *quads;
    unsigned pitch;
    int n;
};

/* Products with LLM.int8()'s outlier columns, a warp for each output. */
static __device__ __forceinline__ void multiply_outliers(const cuda_linear_args &a, const tiling &t,
                                                         unsigned rows, outlier_list list,
                                                         float *others)
{
    const unsigned lane = threadIdx.x % WARP, shift = a.row_shift, each = TILE << shift;
    for (unsigned o = threadIdx.x / WARP; o < t.n_tiles * each; o += STEP_WARPS) {
        const unsigned tile = o >> shift >> 4, r = (o >> shift) % TILE;
        const tile_place place = place_of(t, tile);
        const unsigned row = place.row + r, m = o & ((1u << shift) - 1);
        const cuda_matrix &w = a.w[place.part];
        float sum = 0;
        if (r < t.tile_rows && row < (unsigned)w.rows && m < rows) {
            const int8_t *codes = (const int8_t *)w.codes + (size_t)row * w.cols;
            const float *x = (const float *)(list.quads + m * list.pitch);
            const float scale = __ldg(w.scales + row);
            for (int i = (int)lane; i < list.n; i += WARP) {
                const unsigned c = list.columns[i];
                const float weight = (float)__ldg(codes + c) * scale * 7.874015718698502e-3f;
                sum += round_half(x[quad_place(c / 4) * 4 + c % 4]) * round_half(weight);
            }
        }
        sum = warp_sum(sum);
        if (lane == 0) others[o] = sum;
    }
}

/* Tells which of the block's outputs, if they are logits, is a row's largest: `best` is that of a
 * thread's, all of which are of one row. A warp's keys take the place of sums. */
static __device__ __forceinline__ void tell_largest(const cuda_choice &choice, unsigned first,
                                                    unsigned rows, unsigned shift, uint64_t best,
                                                    uint64_t *keys)
{
    static_assert(STEP_WARPS * sizeof(uint64_t) <= TILE * sizeof(float), "room in a tile's sums");
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (unsigned i = WARP / 2; i >> shift > 0; i /= 2) {
        const uint64_t other = __shfl_xor_sync(0xFFFFFFFF, best, (int)i);
        best = other > best ? other : best;
    }
    step_sync();
    if (lane >> shift == 0) keys[(warp << shift) + lane] = best;
    step_sync();
    if (threadIdx.x >= rows) return;
    for (unsigned i = 1; i < STEP_WARPS; i++) {
        const uint64_t other = keys[(i << shift) + lane];
        best = other > best ? other : best;
    }
    atomicMax((unsigned long long *)choice.largest + first + lane, best);
}

/* The block's outputs; `x` is the thread's first. `shift`: a.row_shift, which would have to be read
 * again; `others`: products with outlier columns, where there are any. */
template <kind K, bool HALF, bool JOINT>
static __device__ __forceinline__ void
write_outputs(const cuda_linear_args &a, const tiling &t, unsigned first, unsigned rows,
              unsigned shift, float *sums, bool outliers, const float *others,
              const input_rooms &rooms, float pair_scale, output x)
{
    const unsigned each = TILE << shift;
    const unsigned count = (t.paired ? t.n_tiles / 2 : t.n_tiles) * each;
    const float unit = is_4bit(K) ? pair_scale : 1;
    constexpr bool IS_HEAD = K == KIND_F16 || K == KIND_BF16; /* it may be */
    uint64_t best = 0;
    for (unsigned o = threadIdx.x;;) { /* behind the last there is none */
        if (x.there) {
            const float *other = others + x.others;
            const float scale = rooms.scale[x.m] * unit;
            const float *own = sums + x.at;
            float y = product_of<K>(x.ends, x.half, each, own, x.count, outliers, other, scale);
            if (t.paired) /* the first part's tile is the one before, with as many sums */
                x.multiplier = product_of<K>(x.first_ends, x.half, each, own - x.count * each,
                                             x.count, outliers, other - each, scale);
            if (x.activation != BG_ACTIVATION_NONE)
                y = round_if(x.half, activate(x.activation, x.half, y));
            if (x.gated || x.multiplied) y = round_if(x.half, y * x.multiplier);
            if (x.added) y = round_if(x.half, y + x.addend);
            if (x.kept) y = round_if(x.half, y + x.remainder);
            *x.out = y;
            if (IS_HEAD && a.choice.ids) {
                const cuda_epilogue &e = a.epilogue[0];
                const size_t col = (size_t)(x.out - e.out) - (first + x.m) * e.out_stride;
                const uint64_t key = choice_key(a.choice, y, (uint32_t)col);
                best = key > best ? key : best;
            }
        }
        o += STEP_THREADS;
        if (o >= count) break;
        x = output_of<K, HALF, JOINT>(a, t, o, first, rows);
        if (x.there) load_others(a, first, x);
    }
    if (IS_HEAD && a.choice.ids) tell_largest(a.choice, first, rows, shift, best, (uint64_t *)sums);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* Piece number `piece` of a tile. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void multiply_piece(const tiling &t, unsigned piece,
                                                      const char *in, const char *tables,
                                                      ring &weights, warp_tile<K, PACKED> &now)
{
    const unsigned lane = threadIdx.x % WARP, first = piece * t.piece_steps;
    const unsigned count = min(t.steps - first, t.piece_steps);
    const char *slot = weights.wait_full();
#pragma unroll(is_4bit(K) ? 1 : 4)
    for (unsigned i = 0; i < count; i++)
        now.multiply_step(in, slot + i * step_shape<K>::PITCH, first + i, lane, tables);
    weights.give_back();
}

/* The warp's share of tiles that are abreast and multiplied two at once: every other piece. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void
multiply_joint(const cuda_linear_args &a, const tiling &t, unsigned mine, unsigned rows,
               unsigned shift, ring &weights, const char *tables, const char *in, float *sums)
{
    typedef warp_tile<K, PACKED> tile_of_warp;
    constexpr unsigned PAIRS = STEP_WARPS / 2, PITCH = step_shape<K>::PITCH;
    const unsigned lane = threadIdx.x % WARP, half = mine / PAIRS;
#pragma unroll 1
    for (unsigned tile = mine % PAIRS * 2; tile < t.abreast; tile += STEP_WARPS) {
        tile_of_warp now[2];
#pragma unroll
        for (unsigned k = 0; k < 2; k++) now[k].begin(a, t, place_of(t, tile + k));
#pragma unroll 1
        for (unsigned step = half * JOINT_STEPS; step < t.steps; step += 2 * JOINT_STEPS) {
            const char *slot = weights.wait_full();
#pragma unroll 1
            for (unsigned i = 0; i < JOINT_STEPS; i++)
                tile_of_warp::template multiply_pairs<2>(
                    now, in, slot + i * PITCH, JOINT_STEPS * PITCH, step + i, lane, tables);
            weights.give_back();
        }
        float *to = sums + sums_of<true>(t, tile, shift).first + half * (TILE << shift);
#pragma unroll
        for (unsigned k = 0; k < 2; k++) now[k].put(rows, shift, to + k * (2 * TILE << shift));
    }
}

/* The warp's pieces, as their weights come; `in` is column_of's. */
template <kind K, bool PACKED, bool JOINT>
static __device__ __forceinline__ void
multiply_pieces(const cuda_linear_args &a, const tiling &t, unsigned rows, unsigned shift,
                ring &weights, const char *tables, const char *in, float *sums)
{
    const unsigned warp = threadIdx.x / WARP, mine = (warp - weights.turn) % STEP_WARPS;
    warp_tile<K, PACKED> now;
    if constexpr (JOINT) {
        multiply_joint<K, PACKED>(a, t, mine, rows, shift, weights, tables, in, sums);
    } else {
#pragma unroll 1
        for (unsigned tile = mine; tile < t.abreast; tile += STEP_WARPS) {
            now.begin(a, t, place_of(t, tile));
#pragma unroll 1
            for (unsigned i = 0; i < t.pieces; i++) multiply_piece(t, i, in, tables, weights, now);
            now.put(rows, shift, sums + sums_of<JOINT>(t, tile, shift).first);
        }
    }
    /* The rest: pieces that are STEP_WARPS apart, of one tile or of the next. */
    unsigned piece = mine;
#pragma unroll 1
    for (unsigned tile = t.abreast; tile < t.n_tiles; tile++) {
        if (piece >= t.pieces) {
            piece -= t.pieces;
            continue;
        }
        const unsigned number = t.pieces < STEP_WARPS ? piece : warp;
        float *to = sums + sums_of<JOINT>(t, tile, shift).first + number * (TILE << shift);
        now.begin(a, t, place_of(t, tile));
#pragma unroll 1
        for (; piece < t.pieces; piece += STEP_WARPS)
            multiply_piece(t, piece, in, tables, weights, now);
        piece -= t.pieces;
        now.put(rows, shift, to);
    }
    weights.turn = (weights.turn + (t.n_tiles - t.abreast) * t.pieces) % STEP_WARPS;
}

/* ---- LLM.int8()'s pieces --------------------------------------------------------------------- */

/* A warp's piece and what it takes: of whole tiles, where these are abreast, or else STEP_WARPS
 * pieces after its last one, of the same tile or of the next. That of the first is known before the
 * row is, and as a rule there is no other: from a row's codes to its sums it is a short way. */
struct warp_work {
    unsigned left; /* pieces, with this one */
    unsigned tile, piece, steps;
    const char *in, *slot; /* the lane's */
    float *to;
    bool ends; /* the warp's share of the tile */
};

static __device__ __forceinline__ unsigned pieces_of_rest(const tiling &t)
{
    return (t.n_tiles - t.abreast) * t.pieces;
}

/* The warp's turn among the rest's pieces. */
static __device__ __forceinline__ unsigned turn_of_warp(const ring &weights)
{
    /* Not in registers all the time for this. */
    return (settled(threadIdx.x) / WARP - weights.turn) % STEP_WARPS;
}

/* Of the rest, the piece that so many are before, from the first of a tile on. */
static __device__ __forceinline__ void find_piece(const tiling &t, unsigned tile, unsigned piece,
                                                  warp_work &w)
{
#pragma unroll 1
    for (; piece >= t.pieces; tile++) piece -= t.pieces;
    w.tile = tile;
    w.piece = piece;
}

/* `in`: column_of's. */
static __device__ __forceinline__ void get_ready(const tiling &t, unsigned shift,
                                                 const ring &weights, const char *in, float *sums,
                                                 warp_work &w)
{
    const bool whole = w.tile < t.abreast;
    const unsigned thread = settled(threadIdx.x), first = w.piece * t.piece_steps;
    const unsigned number = whole ? 0 : t.pieces < STEP_WARPS ? w.piece : thread / WARP;
    w.steps = min(t.steps - first, t.piece_steps);
    w.in = in + first * STEP_BYTES;
    w.slot = weights.slots + weights.slot * weights.slot_bytes + code_row(thread % WARP);
    w.to = sums + sums_of<false>(t, w.tile, shift).first + number * (TILE << shift);
    w.ends = w.piece + (whole ? 1 : STEP_WARPS) >= t.pieces;
}

static __device__ __forceinline__ warp_work first_work(const tiling &t, unsigned shift,
                                                       const ring &weights, const char *in,
                                                       float *sums)
{
    const unsigned mine = turn_of_warp(weights), rest = pieces_of_rest(t);
    warp_work w = {};
    w.left = t.abreast / STEP_WARPS * t.pieces + (rest + STEP_WARPS - 1 - mine) / STEP_WARPS;
    w.tile = mine;
    if (t.abreast == 0) find_piece(t, 0, mine, w);
    get_ready(t, shift, weights, in, sums, w);
    w.left = settled(w.left);
    w.tile = settled(w.tile);
    w.piece = settled(w.piece);
    w.steps = settled(w.steps);
    w.in = settled_room(w.in);
    w.slot = settled_room(w.slot);
    w.to = settled_room(w.to);
    w.ends = settled((unsigned)w.ends);
    return w;
}

/* Goes on to the warp's next piece, if there is one. */
static __device__ __forceinline__ void next_work(const tiling &t, unsigned shift,
                                                 const ring &weights, const char *in, float *sums,
                                                 warp_work &w)
{
    if (w.tile >= t.abreast) {
        find_piece(t, w.tile, w.piece + STEP_WARPS, w);
    } else if (!w.ends) {
        w.piece++;
    } else {
        w.tile += STEP_WARPS;
        w.piece = 0;
        if (w.tile >= t.abreast) find_piece(t, t.abreast, turn_of_warp(weights), w);
    }
    get_ready(t, shift, weights, in, sums, w);
}

template <kind K, bool PACKED>
static __device__ __forceinline__ void multiply_codes(const cuda_linear_args &a, const tiling &t,
                                                      unsigned rows, unsigned shift, ring &weights,
                                                      const char *in, float *sums, warp_work w)
{
    warp_tile<K, PACKED> now;
    if (w.left > 0) {
        now.begin(a, t, {});
#pragma unroll 1
        for (;;) {
            weights.wait_full();
            now.multiply_codes(w.in, w.slot, w.steps);
            weights.give_back();
            w.left--;
            if (w.ends) {
                now.put(rows, shift, w.to);
                if (w.left == 0) break;
                now.begin(a, t, {});
            }
            next_work(t, shift, weights, in, sums, w);
        }
    }
    weights.turn = (weights.turn + pieces_of_rest(t)) % STEP_WARPS;
}

/* HALF: activations are those of a 16-bit model, but for the head's results. `tables`:
 * tile_shape's; `room`: for sums and the input. `blocks` NULL: what it reads is there. */
template <kind K, bool PACKED, bool HALF, int Q, bool JOINT>
static __device__ __forceinline__ void
run_rows(const cuda_linear_args &a, unsigned first, unsigned rows, const all_blocks *blocks,
         ring &weights, const char *tables, float pair_scale, char *room, input_rooms &rooms)
{
    using shape = tile_shape<K>;
    /* All that can be known before the other blocks are done. */
    const tiling t = tiling_of<K>(a);
    output x = output_of<K, HALF, JOINT>(a, t, threadIdx.x, first, rows);
    const unsigned shift = a.row_shift, cols = t.steps * step_shape<K>::COLS;
    const layer_input input = {a.in, a.normed, a.norm, a.w[0].threshold};
    const unsigned writes = settled(writes_normed(input.norm) ? 1u : 0u);
    unsigned m;
    const team team = team_of(shift, &m);
    ready_norm<Q> ready;
    get_norm_ready(input.norm, cols, a.inverse, team, ready);
    float *sums = (float *)room;
    room += a.sums_bytes;
    const staged_input staged = staged_at(room, shape::PARTS, rows, cols);
    const input_row<Q> row = row_of<Q>(a.in + t.first_step * step_shape<K>::COLS, (unsigned)a.cols,
                                       cols, team, m, first, rows, staged);
    code_places places = {};
    warp_work work = {};
    const char *in = K == KIND_INT8 ? column_of<K>(staged, rows, PACKED) : NULL;
    if constexpr (K == KIND_INT8) {
        places = code_places_of(row, team, m, staged, rooms);
        work = first_work(t, shift, weights, in, sums);
    }
    if (input.norm.weight && rows > 1) {
        share_norm(input.norm, cols, (float *)(room + staged_bytes(shape::PARTS, rows, cols)),
                   ready);
        wait_for_copies();
    }
    float4 quads[Q];
    if constexpr (K == KIND_INT8) {
        /* All have a value here: what is loaded in part would be in registers all the time. */
#pragma unroll
        for (unsigned i = 0; i < Q; i++)
            quads[i] = as_float4(settled(0u), settled(0u), settled(0u), settled(0u));
    }
    if (blocks)
        blocks->wait();
    else
        step_sync();
    wait_for_copies(); /* of the next node, long since */
    if (t.n_tiles == 0 && !writes) return;

    /* The row first: the compiler has what comes next wait for what was asked for before. */
    ask_row(row, quads);
    if (x.there) load_others(a, first, x);
    bool outliers = stage_input<shape::PARTS, HALF>(row, quads, cols, input, writes, team, m, ready,
                                                    places, staged, rooms, tables);
    if constexpr (K == KIND_INT8)
        multiply_codes<K, PACKED>(a, t, rows, shift, weights, in, sums, work);
    else
        multiply_pieces<K, PACKED, JOINT>(a, t, rows, shift, weights, tables,
                                          column_of<K>(staged, rows, PACKED), sums);
    step_sync();
    float *others = sums + sums_of<JOINT>(t, t.n_tiles, shift).first;
    if (outliers) {
        const outlier_list list = {staged.outliers, staged.quads, staged.pitch, rooms.n_outliers};
        outliers = list.n > 0;
        if (outliers) {
            multiply_outliers(a, t, rows, list, others);
            step_sync();
        }
    }
    write_outputs<K, HALF, JOINT>(a, t, first, rows, shift, sums, outliers, others, rooms,
                                  pair_scale, x);
}

/* `waits`: what it reads other blocks may still write; `tells`: that the block is done, at once:
 * the way from here to a common end is a few lines of instructions that must be fetched. */
template <kind K, bool PACKED, bool HALF, int Q, bool JOINT>
static __device__ __forceinline__ void
run_linear(const cuda_linear_args &a, bool waits, bool tells, const all_blocks &blocks,
           ring &weights, const char *tables, float pair_scale, char *room, input_rooms &rooms)
{
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once)
        run_rows<K, PACKED, HALF, Q, JOINT>(
            a, first, min((unsigned)a.n_rows - first, a.rows_at_once),
            first == 0 && waits ? &blocks : NULL, weights, tables, pair_scale, room, rooms);
    if (tells) blocks.done();
}

#endif
