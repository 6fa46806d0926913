/* The weights' way to shared memory. COPY_WARPS warps of a block walk through the linear layers of
 * a program as those that multiply do, but wait for nothing but room: they copy a piece of a tile
 * to each slot of a ring, one after the other, so that memory is busy whatever the other warps wait
 * for.
 *
 * A tile is 16 rows of a matrix, or fewer where blocks would have unequal shares otherwise. Its
 * product goes over the rows in steps of 64 bytes of each; a piece is a few steps of a tile, step
 * by step, and in a step row by row; or, with 4 bits, half as many of each of two tiles, for which
 * a warp loads its activations once. The warps that multiply take the pieces in turn. A slot has
 * two barriers (mbarrier, compute capability 8.0 and later): `full` when all bytes of a piece have
 * come, `empty` when its warp has read it. */
#ifndef BG_BACKEND_CUDA_PROGRAM_RING_CUH
#define BG_BACKEND_CUDA_PROGRAM_RING_CUH

#include "backend/cuda/program.cuh"

enum kind { KIND_F16, KIND_BF16, KIND_INT8, KIND_4BIT, KIND_4BIT_DQ };

__host__ __device__ constexpr bool is_4bit(kind k)
{
    return k == KIND_4BIT || k == KIND_4BIT_DQ;
}

/* Whether blocks may have some of a layer's columns each: int8's rows are quantized whole. */
__host__ __device__ constexpr bool has_shares(kind k)
{
    return k != KIND_INT8;
}

enum { TILE = 16, STEP_BYTES = 64, MOST_STEPS = CUDA_MOST_STEPS, SHORT_STEPS = CUDA_SHORT_STEPS };

/* Of a barrier's phases only two can be told apart: a warp must know that what it waits for is at
 * most one phase away, of a slot's fillings and emptyings. A warp that multiplies knows of its own
 * pieces, each STEP_WARPS after the last, that they have come, and so of those before them by the
 * same copying warp, each COPY_WARPS after the last; one that copies, the other way round. So a
 * slot's pieces must be so far apart that one gets from one to the other by both kinds of steps. */
enum { LEAST_SLOTS = STEP_WARPS + COPY_WARPS, MOST_SLOTS = 32 };

static inline bool is_ring_length(unsigned slots)
{
    for (unsigned n = STEP_WARPS; n < slots; n += STEP_WARPS)
        if ((slots - n) % COPY_WARPS == 0) return true;
    return false;
}

template <kind K> struct step_shape {
    static constexpr int BITS = is_4bit(K) ? 4 : K == KIND_INT8 ? 8 : 16;
    static constexpr int COLS = STEP_BYTES * 8 / BITS;
    /* In a slot: 16 rows, and 8 bytes for each with 4 bits: two scales, or two codes of scales and
     * their absmax. Steps an odd number of 64 bytes apart are written without sharing banks. */
    static constexpr int SCALES_AT = TILE * STEP_BYTES;
    static constexpr int PITCH = SCALES_AT + (is_4bit(K) ? TILE * 8 : 0) + 64;
};

/* ---- a block's tiles ------------------------------------------------------------------------- */

/* A layer's tiles, as a warp has them at hand: what lies in shared memory is read again after every
 * barrier. */
struct tiling {
    bool paired;
    unsigned block, blocks; /* among those that have tiles of its share, and how many these are */
    unsigned share, first_step, row_steps; /* of the columns; of all columns */
    unsigned tile_rows, first_tile[CUDA_MAX_PARTS];
    unsigned n_tiles; /* the block's */
    /* Where the block has one for each warp, tiles go through the ring abreast, a piece of each in
     * turn, so that a warp has a whole tile, or of each two, so that it has half of the steps of
     * two; the rest one after the other. */
    unsigned abreast;
    unsigned piece_steps, steps, pieces; /* of a tile */
};

/* Steps of either tile in a piece of two that are multiplied at once, as 4-bit ones are that are
 * abreast, where the program is for that, JOINT in all that follows: where all of their steps fall
 * into such halves of pieces. */
enum { JOINT_STEPS = SHORT_STEPS / 2 };

static __host__ __device__ __forceinline__ bool may_be_joint(unsigned steps, unsigned piece_steps)
{
    return piece_steps == SHORT_STEPS && steps % SHORT_STEPS == 0;
}

template <kind K> static __device__ __forceinline__ tiling tiling_of(const cuda_linear_args &a)
{
    tiling t;
    t.paired = a.paired;
    t.block = blockIdx.x - a.first_block; /* those before it have large numbers */
    t.blocks = a.share_blocks;
    t.share = t.first_step = 0;
    t.row_steps = t.steps = (unsigned)a.cols / step_shape<K>::COLS;
    if (has_shares(K) && a.shares > 1) {
        t.share = divide(t.block, a.share_inverse);
        if (t.share < a.shares) t.block -= t.share * t.blocks;
        t.steps = a.share_steps;
        t.first_step = t.share * t.steps;
    }
    t.tile_rows = a.tile_rows;
#pragma unroll
    for (unsigned i = 0; i < CUDA_MAX_PARTS; i++) t.first_tile[i] = a.first_tile[i];
    t.n_tiles = t.block < t.blocks ? a.tiles_each + (t.block < a.tiles_extra) : 0;
    if (t.paired) t.n_tiles *= 2;
    t.abreast = t.n_tiles / STEP_WARPS * STEP_WARPS;
    t.piece_steps = a.piece_steps;
    t.pieces = a.pieces;
    return t;
}

struct tile_place {
    unsigned part, row; /* of the first row */
};

/* The block's tile number j: tiles of all parts go round the blocks; of paired parts, one of each
 * in turn. */
static __device__ __forceinline__ tile_place place_of(const tiling &t, unsigned j)
{
    if (t.paired) return {j & 1, ((j >> 1) * t.blocks + t.block) * t.tile_rows};
    const unsigned tile = j * t.blocks + t.block;
    unsigned part = 0, first = 0;
#pragma unroll
    for (unsigned i = 1; i < CUDA_MAX_PARTS; i++)
        if (tile >= t.first_tile[i]) {
            part = i;
            first = t.first_tile[i];
        }
    return {part, (tile - first) * t.tile_rows};
}

/* Where in a step 16 bytes of a row lie. With 4 bits lanes of four rows want half of each at once,
 * and the halves of every other two rows change places; codes of int8 are wanted of eight rows at
 * once, and no two may share banks. */
template <kind K>
static __device__ __forceinline__ unsigned place_in_step(unsigned row, unsigned piece)
{
    const unsigned turned = is_4bit(K) ? row & 2 : K == KIND_INT8 ? row >> 1 & 3 : 0;
    return row * STEP_BYTES + (piece ^ turned) * 16;
}

/* ---- barriers -------------------------------------------------------------------------------- */

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

/* Lanes that say that their warp has read a slot. compute-sanitizer's racecheck does not know what
 * __syncwarp does for the others, and wants all of them. */
#ifdef BG_RACECHECK
enum { READERS = WARP };
#else
enum { READERS = 1 };
#endif

struct ring_barriers {
    uint64_t full[MOST_SLOTS], empty[MOST_SLOTS];
};

/* The ring as a warp sees it, and where its next piece is. */
struct ring {
    char *slots;
    ring_barriers *barriers;
    unsigned slot_bytes, n_slots, slot, parity;
    unsigned turn; /* the warp that a node's, or tile's, first piece is for */

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
        if (threadIdx.x % WARP < READERS) barrier_arrive(&barriers->empty[slot]);
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
        barrier_init(&r.barriers->full[i], WARP);
        barrier_init(&r.barriers->empty[i], READERS);
    }
}

/* ---- copying --------------------------------------------------------------------------------- */

/* Without a branch. */
static __device__ __forceinline__ void copy_16_if(bool wanted, uint32_t to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("{.reg .pred wanted;\n"
                 "setp.ne.u32 wanted, %2, 0;\n"
                 "@wanted cp.async.cg.shared.global.L2::128B [%0], [%1], 16;}" ::"r"(to),
                 "l"(from), "r"((unsigned)wanted));
#endif
}

template <int BYTES> static __device__ __forceinline__ void copy_few(uint32_t to, const void *from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(BYTES));
#endif
}

/* A tile's place in memory. Finding it takes longer than copying a piece: each lane finds that of
 * one tile, for the whole warp. */
struct tile_source {
    const char *codes;
    unsigned part, row, rows;
};

static __device__ __forceinline__ tile_source source_of(const cuda_linear_args &a, const tiling &t,
                                                        unsigned tile)
{
    if (tile >= t.n_tiles) return {NULL, 0, 0, 0};
    const tile_place at = place_of(t, tile);
    const cuda_matrix &w = a.w[at.part];
    const size_t row_bytes = (size_t)t.row_steps * STEP_BYTES;
    return {(const char *)w.codes + at.row * row_bytes, at.part, at.row,
            min(t.tile_rows, (unsigned)w.rows - at.row)};
}

static __device__ __forceinline__ tile_source source_with(const tile_source &mine, unsigned lane)
{
    const unsigned long long codes =
        __shfl_sync(0xFFFFFFFF, (unsigned long long)(uintptr_t)mine.codes, lane);
    return {(const char *)(uintptr_t)codes, __shfl_sync(0xFFFFFFFF, mine.part, lane),
            __shfl_sync(0xFFFFFFFF, mine.row, lane), __shfl_sync(0xFFFFFFFF, mine.rows, lane)};
}

/* ROWS rows of a tile, `apart` bytes from each other, of which `rows` are there; a lane 16 bytes of
 * each. */
template <kind K, unsigned ROWS>
static __device__ __forceinline__ void copy_rows(const char *p, unsigned apart, unsigned rows,
                                                 uint32_t to)
{
#pragma unroll
    for (unsigned r = 0; r < ROWS; r++) {
        copy_16_if(r < rows, to + place_in_step<K>(r, threadIdx.x % 4), p);
        p += apart;
    }
}

/* The scales of up to 1 << STEPS_SHIFT steps of a tile from `step` on, of which n are there. */
template <kind K, unsigned STEPS_SHIFT>
static __device__ __forceinline__ void copy_scales(const cuda_matrix &w, const tile_source &from,
                                                   unsigned steps, unsigned step, unsigned n,
                                                   uint32_t to)
{
    if constexpr (is_4bit(K)) {
        const unsigned lane = threadIdx.x % WARP, k = lane & ((1u << STEPS_SHIFT) - 1);
        to += k * step_shape<K>::PITCH + step_shape<K>::SCALES_AT;
#pragma unroll
        for (unsigned r = lane >> STEPS_SHIFT; r < TILE; r += WARP >> STEPS_SHIFT) {
            if (k >= n || r >= from.rows) break;
            const size_t at = (size_t)(from.row + r) * steps + step + k;
            if constexpr (K == KIND_4BIT) {
                copy_few<8>(to + r * 8, w.scales + at * 2);
            } else {
                /* The four codes that these two are among, and their absmax. */
                copy_few<4>(to + r * 8, w.scale_codes + (at * 2 & ~(size_t)3));
                copy_few<4>(to + r * 8 + 4, w.scale_absmax + at * 2 / BG_SCALE_BLOCK);
            }
        }
    }
}

/* Steps [step, step + n) of a tile of rows of `steps`, by one warp; of few steps, half of the rows
 * by each half of it. */
template <kind K>
static __device__ __forceinline__ void copy_piece(const cuda_linear_args &a,
                                                  const tile_source &from, unsigned steps,
                                                  unsigned step, unsigned n, uint32_t to)
{
    using shape = step_shape<K>;
    enum { HALF_TILE = TILE / 2, STEPS_SHIFT = 3 };
    static_assert(1 << STEPS_SHIFT == MOST_STEPS, "a lane for each step");
    const unsigned lane = threadIdx.x % WARP, row_bytes = steps * STEP_BYTES;
    const char *p =
        from.codes + (step * STEP_BYTES + lane % (n > SHORT_STEPS ? WARP : WARP / 2) * 16);
    const unsigned s = lane / 4;
    if (n > SHORT_STEPS) {
        copy_rows<K, TILE>(p, row_bytes, s < n ? from.rows : 0, to + s * shape::PITCH);
    } else {
        const unsigned first = s < SHORT_STEPS ? 0 : HALF_TILE;
        copy_rows<K, HALF_TILE>(p + first * row_bytes, row_bytes,
                                s % SHORT_STEPS < n && first < from.rows ? from.rows - first : 0,
                                to + s % SHORT_STEPS * shape::PITCH + first * STEP_BYTES);
    }
    copy_scales<K, STEPS_SHIFT>(a.w[from.part], from, steps, step, n, to);
}

/* JOINT_STEPS steps of one of two tiles that are multiplied at once, a quarter of the rows by each
 * quarter of the warp. */
template <kind K>
static __device__ __forceinline__ void copy_joint(const cuda_linear_args &a,
                                                  const tile_source &from, unsigned steps,
                                                  unsigned step, uint32_t to)
{
    enum { QUARTER = TILE / 4, STEPS_SHIFT = 1 };
    static_assert(1 << STEPS_SHIFT == JOINT_STEPS, "a lane for each step");
    const unsigned lane = threadIdx.x % WARP, row_bytes = steps * STEP_BYTES;
    const unsigned s = lane / 4 % JOINT_STEPS, first = lane / (4 * JOINT_STEPS) * QUARTER;
    copy_rows<K, QUARTER>(from.codes +
                              (first * row_bytes + (step + s) * STEP_BYTES + lane % 4 * 16),
                          row_bytes, first < from.rows ? from.rows - first : 0,
                          to + s * step_shape<K>::PITCH + first * STEP_BYTES);
    copy_scales<K, STEPS_SHIFT>(a.w[from.part], from, steps, step, JOINT_STEPS, to);
}

/* The copying warp's pieces of a layer, as often as its rows of activations are multiplied: of all
 * pieces, the warps take one in turn. */
template <kind K, bool JOINT>
static __device__ __forceinline__ void copy_weights(const cuda_linear_args &a, ring &to)
{
    const tiling t = tiling_of<K>(a);
    const unsigned warp = threadIdx.x / WARP - STEP_WARPS;
    /* As many bytes on their way. */
    const bool short_slots = to.slot_bytes <= SHORT_STEPS * step_shape<KIND_4BIT>::PITCH;
    tile_source mine;
#pragma unroll 1
    for (unsigned first = 0; first < (unsigned)a.n_rows; first += a.rows_at_once)
#pragma unroll 1
        for (unsigned tile = 0; tile < t.n_tiles;) {
            if (tile % WARP == 0) mine = source_of(a, t, tile + threadIdx.x % WARP);
            const unsigned shift = tile < t.abreast ? WARPS_SHIFT : 0, pieces = t.pieces << shift;
#pragma unroll 1
            for (unsigned i = (COPY_WARPS + warp - to.turn) % COPY_WARPS; i < pieces;
                 i += COPY_WARPS) {
                const uint32_t slot = shared_address(to.wait_empty());
                if (JOINT && tile < t.abreast) {
                    const unsigned two = tile + i % (STEP_WARPS / 2) * 2;
                    const unsigned step = i / (STEP_WARPS / 2) * JOINT_STEPS;
#pragma unroll
                    for (unsigned k = 0; k < 2; k++)
                        copy_joint<K>(a, source_with(mine, (two + k) % WARP), t.row_steps,
                                      t.first_step + step,
                                      slot + k * JOINT_STEPS * step_shape<K>::PITCH);
                } else {
                    const unsigned step = (i >> shift) * t.piece_steps;
                    const unsigned k = i & ((1u << shift) - 1);
                    copy_piece<K>(a, source_with(mine, (tile + k) % WARP), t.row_steps,
                                  t.first_step + step, min(t.steps - step, t.piece_steps), slot);
                }
                barrier_arrive_copied(&to.barriers->full[to.slot]);
                /* What is more on its way than keeps memory busy only makes others wait longer for
                 * what they read. */
                end_of_group();
                if (short_slots)
                    wait_for_groups<3>();
                else
                    wait_for_groups<1>();
                to.skip(COPY_WARPS);
            }
            to.turn = (to.turn + pieces) % COPY_WARPS;
            tile += 1u << shift;
        }
}

#endif
