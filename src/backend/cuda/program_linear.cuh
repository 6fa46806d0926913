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

/* The second input of added parts is a layer's input by itself. */
template <kind K>
static __device__ __forceinline__ void stage_all(const cuda_linear_args &a, unsigned first,
                                                 unsigned rows, const staged_input &one,
                                                 const staged_input &two, input_rooms rooms[2])
{
    constexpr part_type PARTS = tile_shape<K>::PARTS;
    stage_input<PARTS>(a.in, (unsigned)a.cols, a, first, rows, one, rooms[0]);
    if (a.paired == CUDA_ADDED)
        stage_input<PARTS>(a.second_in, (unsigned)a.w[1].cols, a, first, rows, two, rooms[1]);
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* `tables`: of pairs, with 4 bits; `shared`: the ring, sums, and inputs. */
template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_rows(const cuda_linear_args &a, unsigned first, unsigned rows, const all_blocks *blocks,
         const char *tables, float pair_scale, char *shared, input_rooms rooms[2])
{
    using shape = tile_shape<K>;
    constexpr int SLOTS = ring_slots(PACKED);
    const unsigned lane = threadIdx.x % WARP, each = TILE << a.row_shift;
    const warp_share w = share_of(a);
    const char *ring = shared + threadIdx.x / WARP * SLOTS * shape::SLOT;
    const uint32_t ring_at = (uint32_t)__cvta_generic_to_shared(ring);
    loader<K> load;
    load.tile = w.tile_group;
    load.begin(a, w);
#pragma unroll 1
    for (unsigned i = 0; i < SLOTS - 1; i++) load.next(a, w, ring_at + i * shape::SLOT);
    const output_place p = output_of(a, threadIdx.x, rows, w.n_tiles);
    ask_for_ends<K>(a, p);
    unsigned m;
    const team t = team_of(a.row_shift, &m);
    ready_norm ready;
    get_norm_ready(a, t, ready);
    if (blocks) blocks->wait();

    float *sums = (float *)(shared + ring_bytes<K>(PACKED));
    float *others = sums + (w.n_tiles * each << a.k_shift);
    char *room = (char *)sums + a.sums_bytes;
    const staged_input one = staged_at(room, shape::PARTS, rows, (unsigned)a.cols);
    room += staged_bytes(shape::PARTS, rows, (unsigned)a.cols);
    const staged_input two = staged_at(room, shape::PARTS, rows, (unsigned)a.w[1].cols);
    const output_ends ends = load_ends<K>(a, p, first);
#pragma unroll 1
    for (int i = 0; i < (a.paired == CUDA_ADDED ? 2 : 1); i++)
        stage_input<shape::PARTS>(i ? a.second_in : a.in, (unsigned)(i ? a.w[1].cols : a.cols), a,
                                  t, m, ready, first, rows, i ? two : one, rooms[i]);

    warp_tile<K, PACKED> now;
    unsigned slot = 0;
    now.tile = w.tile_group;
    now.begin(a, w, rows, one, two);
#pragma unroll 1
    while (now.tile < w.n_tiles) {
        wait_for_step<SLOTS - 2>();
        const char *step = ring + slot * shape::SLOT;
        if constexpr (K == KIND_INT8)
            now.multiply_codes(step, lane);
        else if constexpr (is_4bit(K))
            now.multiply_pairs(step, lane, tables);
        else
            now.multiply_halves(step, lane);
        load.next(a, w, ring_at + (slot == 0 ? SLOTS - 1 : slot - 1) * shape::SLOT);
        slot = slot == SLOTS - 1 ? 0 : slot + 1;
        if (++now.step < now.end) continue;
        now.put(rows, a.row_shift, sums + (w.k_group * w.n_tiles + now.tile) * each);
        now.tile += w.tile_groups;
        now.begin(a, w, rows, one, two);
    }
    __syncthreads();
    if (K == KIND_INT8 &&
        (rooms[0].n_outliers > 0 || (a.paired == CUDA_ADDED && rooms[1].n_outliers > 0))) {
        const outlier_list ones = {one.outliers, one.quads, one.pitch, rooms[0].n_outliers};
        const outlier_list twos = {two.outliers, two.quads, two.pitch, rooms[1].n_outliers};
        multiply_outliers(a, w.n_tiles, rows, ones, twos, others);
        __syncthreads();
    }
    write_outputs<K>(a, first, rows, w.n_tiles, sums, others, rooms, pair_scale, p, ends);
}

template <kind K, bool PACKED>
static __device__ __forceinline__ void
run_linear(const cuda_linear_args &a, const all_blocks &blocks, const char *table, float pair_scale,
           char *shared, input_rooms rooms[2])
{
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once) {
        if (first > 0) __syncthreads();
        run_rows<K, PACKED>(a, first, min((unsigned)a.n_rows - first, a.rows_at_once),
                            first == 0 ? &blocks : NULL, table, pair_scale, shared, rooms);
    }
}

#endif
