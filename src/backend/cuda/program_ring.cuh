/* The weights' way to shared memory. COPY_WARPS warps of a block walk through the linear layers of
 * a program as those that multiply do, but wait for nothing but room: they copy a piece of a tile
 * to each slot of a ring, one after the other, so that memory is busy whatever the other warps wait
 * for.
 *
 * A tile is 16 rows of a matrix. Its product goes over the rows in steps of 64 bytes of each; a
 * piece is a few steps of a tile, step by step, and in a step row by row. The warps that multiply
 * take the pieces in turn. A slot has two barriers (mbarrier, compute capability 8.0 and later):
 * `full` when all bytes of a piece have come, `empty` when its warp has read it. */
#ifndef BG_BACKEND_CUDA_PROGRAM_RING_CUH
#define BG_BACKEND_CUDA_PROGRAM_RING_CUH

#include "backend/cuda/program.cuh"

enum kind { KIND_F16, KIND_BF16, KIND_INT8, KIND_4BIT, KIND_4BIT_DQ };

__host__ __device__ constexpr bool is_4bit(kind k)
{
    return k == KIND_4BIT || k == KIND_4BIT_DQ;
}

enum { TILE = 16, STEP_BYTES = 64, MOST_STEPS = 8 }; /* of a piece */

/* Of a barrier's phases only two can be told apart: a warp must not wait for a slot that may have
 * been filled twice. As its pieces are always STEP_WARPS apart, from node to node, too, a ring of
 * that many slots is long enough. */
enum { LEAST_SLOTS = STEP_WARPS, MOST_SLOTS = 32 };

template <kind K> struct step_shape {
    static constexpr int BITS = is_4bit(K) ? 4 : K == KIND_INT8 ? 8 : 16;
    static constexpr int COLS = STEP_BYTES * 8 / BITS;
    /* In a slot: 16 rows, and 8 bytes for each with 4 bits: two scales, or two codes of scales and
     * their absmax. Steps an odd number of 64 bytes apart are written without sharing banks. */
    static constexpr int SCALES_AT = TILE * STEP_BYTES;
    static constexpr int PITCH = SCALES_AT + (is_4bit(K) ? TILE * 8 : 0) + 64;
};

/* ---- a block's tiles ------------------------------------------------------------------------- */

struct tile_place {
    unsigned part, row; /* of the first row */
};

/* The block's tile number j: tiles of all parts go round the blocks; of paired parts, one of each
 * in turn. */
static __device__ __forceinline__ tile_place place_of(const cuda_linear_args &a, unsigned j)
{
    if (a.paired != CUDA_NOT_PAIRED) return {j & 1, ((j >> 1) * gridDim.x + blockIdx.x) * TILE};
    const unsigned tile = j * gridDim.x + blockIdx.x;
    unsigned part = 0;
#pragma unroll
    for (unsigned i = 1; i < CUDA_MAX_PARTS; i++) part += tile >= a.first_tile[i];
    return {part, (tile - a.first_tile[part]) * TILE};
}

static __device__ __forceinline__ unsigned tiles_of_block(const cuda_linear_args &a)
{
    const unsigned n = a.tiles_each + (blockIdx.x < a.tiles_extra);
    return a.paired != CUDA_NOT_PAIRED ? 2 * n : n;
}

/* Pieces of a tile. */
static __device__ __forceinline__ unsigned pieces_of(const cuda_linear_args &a, unsigned tile)
{
    return a.pieces[a.paired == CUDA_ADDED && tile & 1];
}

/* Where the block has one for each warp, tiles go through the ring abreast, a piece of each in
 * turn, so that a warp has a whole tile; the rest, and added parts, whose widths differ, one after
 * the other. */
static __device__ __forceinline__ unsigned tiles_abreast(const cuda_linear_args &a,
                                                         unsigned n_tiles)
{
    return a.paired == CUDA_ADDED ? 0 : n_tiles / STEP_WARPS * STEP_WARPS;
}

template <kind K>
static __device__ __forceinline__ unsigned steps_of(const cuda_linear_args &a, unsigned part)
{
    return (unsigned)(a.paired == CUDA_ADDED && part ? a.w[1].cols : a.cols) / step_shape<K>::COLS;
}

/* Where in a step 16 bytes of a row lie: with 4 bits lanes of four rows want half of each at once,
 * and the halves of every other two rows change places. */
template <kind K>
static __device__ __forceinline__ unsigned place_in_step(unsigned row, unsigned piece)
{
    return row * STEP_BYTES + (is_4bit(K) ? piece ^ (row & 2) : piece) * 16;
}

/* ---- barriers -------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* A word that no barrier has to do with. */
static __device__ __forceinline__ uint32_t load_shared(uint32_t address)
{
    uint32_t word;
    asm("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
}

static __device__ __forceinline__ void barrier_init(uint64_t *b, unsigned arrivals)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
                 : "memory");
#endif
}

static __device__ __forceinline__ void barrier_arrive(uint64_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "{.reg .b64 state; mbarrier.arrive.shared.b64 state, [%0];}" ::"r"(shared_address(b))
        : "memory");
#endif
}

/* One arrival, when all that the thread has asked for before has come. */
static __device__ __forceinline__ void barrier_arrive_copied(uint64_t *b)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(b))
                 : "memory");
#endif
}

/* Until the barrier's phases of this parity are over. */
static __device__ __forceinline__ void barrier_wait(uint64_t *b, unsigned parity)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("{.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again;}" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
#elif __CUDA_ARCH__ >= 800
    asm volatile("{.reg .pred done;\n"
                 "again: mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again;}" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
#endif
}

/* ---- the ring -------------------------------------------------------------------------------- */

struct ring_barriers {
    uint64_t full[MOST_SLOTS], empty[MOST_SLOTS];
};

/* The ring as a warp sees it, and where its next piece is. */
struct ring {
    char *slots;
    ring_barriers *barriers;
    unsigned slot_bytes, n_slots, slot, parity;
    unsigned turn; /* the warp that a node's first piece is for */

    __device__ __forceinline__ void skip(unsigned n)
    {
        slot += n;
        if (slot < n_slots) return;
        slot -= n_slots;
        parity ^= 1;
    }
    __device__ __forceinline__ const char *wait_full() const
    {
        barrier_wait(&barriers->full[slot], parity);
        return slots + slot * slot_bytes;
    }
    /* The warp has read the slot; its next. */
    __device__ __forceinline__ void give_back()
    {
        __syncwarp();
        if (threadIdx.x % WARP == 0) barrier_arrive(&barriers->empty[slot]);
        skip(STEP_WARPS);
    }
    __device__ __forceinline__ char *wait_empty() const
    {
        barrier_wait(&barriers->empty[slot], parity ^ 1);
        return slots + slot * slot_bytes;
    }
};

static __device__ __forceinline__ void init_ring(const ring &r)
{
    for (unsigned i = threadIdx.x; i < r.n_slots; i += STEP_THREADS) {
        barrier_init(&r.barriers->full[i], COPY_THREADS);
        barrier_init(&r.barriers->empty[i], 1);
    }
}

/* ---- copying --------------------------------------------------------------------------------- */

static __device__ __forceinline__ void copy_16(uint32_t to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from));
#endif
}

template <int BYTES> static __device__ __forceinline__ void copy_few(uint32_t to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES));
#endif
}

/* Steps [step, step + n) of a tile whose first row is `row`: each copying warp its half of the
 * rows, a lane 16 bytes of each. */
template <kind K>
static __device__ __forceinline__ void copy_piece(const cuda_matrix &w, unsigned row, unsigned step,
                                                  unsigned n, uint32_t to)
{
    using shape = step_shape<K>;
    enum { ROWS = TILE / COPY_WARPS };
    const unsigned lane = threadIdx.x % WARP, last = (unsigned)w.rows - 1;
    const unsigned first = (threadIdx.x / WARP - STEP_WARPS) * ROWS;
    const unsigned steps = (unsigned)w.cols / shape::COLS, row_bytes = steps * STEP_BYTES;
    if (lane / 4 < n) {
        const char *from = (const char *)w.codes + step * STEP_BYTES + lane * 16;
        const uint32_t there = to + lane / 4 * shape::PITCH;
#pragma unroll
        for (unsigned r = 0; r < ROWS; r++)
            copy_16(there + place_in_step<K>(first + r, lane % 4),
                    from + (size_t)min(row + first + r, last) * row_bytes);
    }
    if constexpr (is_4bit(K)) {
        const unsigned s = lane % MOST_STEPS;
#pragma unroll
        for (unsigned r = lane / MOST_STEPS; r < ROWS; r += WARP / MOST_STEPS) {
            if (s >= n) break;
            const size_t at = (size_t)min(row + first + r, last) * steps + step + s;
            const uint32_t there = to + s * shape::PITCH + shape::SCALES_AT + (first + r) * 8;
            if constexpr (K == KIND_4BIT) {
                copy_few<8>(there, w.scales + at * 2);
            } else {
                /* The four codes that these two are among, and their absmax. */
                copy_few<4>(there, w.scale_codes + (at * 2 & ~(size_t)3));
                copy_few<4>(there + 4, w.scale_absmax + at * 2 / BG_SCALE_BLOCK);
            }
        }
    }
}

template <kind K>
static __device__ __forceinline__ void copy_next(const cuda_linear_args &a, unsigned tile,
                                                 unsigned piece, ring &to)
{
    const tile_place at = place_of(a, tile);
    const unsigned step = piece * a.piece_steps, steps = steps_of<K>(a, at.part);
    copy_piece<K>(a.w[at.part], at.row, step, min(steps - step, a.piece_steps),
                  shared_address(to.wait_empty()));
    barrier_arrive_copied(&to.barriers->full[to.slot]);
    to.skip(1);
}

/* All weights of a layer, as often as its rows of activations are multiplied. */
template <kind K>
static __device__ __forceinline__ void copy_weights(const cuda_linear_args &a, ring &to)
{
    const unsigned n_tiles = tiles_of_block(a), abreast = tiles_abreast(a, n_tiles);
#pragma unroll 1
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once)
#pragma unroll 1
        for (unsigned tile = 0; tile < n_tiles;) {
            const unsigned pieces = pieces_of(a, tile), n = tile < abreast ? STEP_WARPS : 1;
#pragma unroll 1
            for (unsigned i = 0; i < pieces; i++)
#pragma unroll 1
                for (unsigned k = 0; k < n; k++) copy_next<K>(a, tile + k, i, to);
            tile += n;
        }
}

#endif
