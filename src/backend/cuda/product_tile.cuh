/* A tile of an int8 layer's products: how its factors come to shared memory, and who multiplies
 * them. The warps of a small tile share its columns, every eighth step of them each, from a ring of
 * its own that nobody else waits for; those of a large one share its results, too, and wait for
 * each other. On a Hopper GPU a large one's warpgroups have half of the columns and all results. */
#ifndef BG_BACKEND_CUDA_PRODUCT_TILE_CUH
#define BG_BACKEND_CUDA_PRODUCT_TILE_CUH

#include "backend/cuda/copy.cuh"
#include "backend/cuda/outliers.cuh"
#include "backend/cuda/tensor_map.cuh"
#include "backend/cuda/wgmma.cuh"

enum {
    STAGES = 4,
    BROUGHT = 6, /* stages, to warpgroups: rows of 768 columns at once */
    SLOTS = 3,   /* of a warp's ring */
    WARPS = 8,
    THREADS = WARPS * WARP,
    BLOCKS = 2,  /* of a multiprocessor, by their registers */
    CORNER = 32, /* rows and columns of a warp's results */
    FOUR = 4,    /* results that a thread finishes at once, side by side */
};

static_assert((int)THREADS == (int)QUANTIZE_THREADS, "blocks that list outliers");

/* A tile of TILE x TILE results. Warps share its corners, and those of one corner a stage. */
template <int TILE_> struct tile_shape {
    static constexpr int TILE = TILE_, CORNERS = TILE / CORNER * (TILE / CORNER);
    static constexpr int SLICES = WARPS / CORNERS;          /* of a stage */
    static constexpr int BYTES = TILE == CORNER ? 64 : 128; /* codes of a row in a stage or slot */
    static constexpr int STEPS = BYTES / SLICES / 32;       /* of a warp in a stage */
    static constexpr int PITCH = BYTES + 16, CHUNKS = BYTES / 16;
    static constexpr int COPIES =
        TILE * CHUNKS / THREADS; /* of 16 codes by a thread, of a factor */
    static constexpr int STAGE = TILE * PITCH, SLOT = 2 * TILE * BYTES;
    static constexpr int PIPELINE = TILE == CORNER ? WARPS * SLOTS * SLOT : 2 * STAGES * STAGE;
    static constexpr int BY_GROUPS = 2 * BROUGHT * TILE * DEPTH_BYTES + STAGE_ALIGN;
    /* The slices' sums take its place; where there are outliers, behind the first slice's, which
     * then has those of all, their factors and sums. */
    static constexpr int SUM_PITCH = TILE + 8, SUM = TILE * SUM_PITCH;
    static constexpr int GROUPS = TILE * TILE / FOUR / THREADS; /* of results of a thread */
    typedef outlier_tile<TILE, THREADS> outliers;
    static constexpr int CODE_PITCH = outliers::CHUNK + 16;
    static constexpr int FACTORS = 4 * outliers::SIZE + 2 * TILE * CODE_PITCH;
    static constexpr int MORE = SUM * 4 + FACTORS, MORE_PITCH = TILE + 4;
    static_assert(SLICES * SUM * 4 <= PIPELINE && MORE + TILE * MORE_PITCH * 4 <= PIPELINE, "room");
};

struct tile_args {
    CUtensorMap x, w[CUDA_MAX_PARTS]; /* for products by warpgroups */
    cuda_tile_args a;
    unsigned fours; /* parts whose results can be written four by four, as bits */
};

/* What a thread copies of the codes of rows [row, row + TILE) of a matrix (rows, cols): the same
 * place of rows THREADS / CHUNKS apart in each stage. */
template <typename S> struct tile_source {
    static constexpr int APART = THREADS / S::CHUNKS;
    const char *from; /* its first piece */
    int rows;         /* from its row on */
    int whole;        /* up to this column a stage has all rows and columns */

    __device__ __forceinline__ tile_source(const void *codes, size_t row, size_t n_rows, int cols)
    {
        const size_t first = row + threadIdx.x / S::CHUNKS;
        from = (const char *)codes + first * (size_t)cols + threadIdx.x % S::CHUNKS * 16;
        rows = (int)n_rows - (int)first;
        whole = n_rows - row >= S::TILE ? cols - S::BYTES : -1;
    }

    __device__ __forceinline__ void copy(char *to, int step, int cols) const
    {
        const int k = step * S::BYTES;
        to += threadIdx.x / S::CHUNKS * S::PITCH + threadIdx.x % S::CHUNKS * 16;
        if (k <= whole) {
            const char *at = from + k;
#pragma unroll
            for (int i = 0; i < S::COPIES; i++, at += APART * (size_t)cols)
                copy_16(to + i * APART * S::PITCH, at);
            return;
        }
        const bool within = k + (int)threadIdx.x % S::CHUNKS * 16 < cols;
#pragma unroll 1
        for (int i = 0; i < S::COPIES; i++) {
            const bool there = within && i * APART < rows;
            copy_or_clear_16(to + i * APART * S::PITCH,
                             from + (there ? (size_t)(i * APART) * (size_t)cols + (size_t)k : 0),
                             there);
        }
    }
};

/* The same of one warp, to a slot of its ring. */
template <typename S> struct slot_source {
    static constexpr int APART = WARP / S::CHUNKS;
    const char *from;
    int rows, columns; /* from its own on */
    int whole;

    __device__ __forceinline__ slot_source(const void *codes, size_t row, size_t n_rows, int cols)
    {
        const int lane = (int)threadIdx.x % WARP, piece = lane % S::CHUNKS * 16;
        const size_t first = row + (size_t)(lane / S::CHUNKS);
        from = (const char *)codes + first * (size_t)cols + piece;
        rows = (int)n_rows - (int)first;
        columns = cols - piece;
        whole = n_rows - row >= S::TILE ? cols - S::BYTES : -1;
    }

    /* Where a row's piece is in a slot: pieces of eight rows that are read at once are in different
     * banks. */
    static __device__ __forceinline__ int place_of(int row, int piece)
    {
        static_assert(S::BYTES == 64, "two rows side by side");
        return row * S::BYTES + ((piece ^ row / 2) & (S::CHUNKS - 1)) * 16;
    }

    __device__ __forceinline__ void copy(char *to, int k, int cols) const
    {
        static_assert(APART == 8, "pieces of rows so far apart are in the same order");
        const int lane = (int)threadIdx.x % WARP;
        const char *at = from + k;
        to += place_of(lane / S::CHUNKS, lane % S::CHUNKS);
        if (k <= whole) {
#pragma unroll
            for (int i = 0; i < S::TILE; i += APART, at += APART * (size_t)cols)
                copy_16(to + i * S::BYTES, at);
            return;
        }
#pragma unroll 1
        for (int i = 0; i < S::TILE; i += APART, at += APART * (size_t)cols) {
            const bool there = i < rows && k < columns;
            copy_or_clear_16(to + i * S::BYTES, there ? at : from, there);
        }
    }
};

/* ---- multiplying ----------------------------------------------------------------------------- */

/* 32 columns of a warp's results. */
static __device__ __forceinline__ void
multiply_corner(int32_t sum[2][4][4], const uint32_t left[2][4], const uint32_t right[2][4])
{
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_codes(sum[i][j], left[i], right[j / 2] + j % 2 * 2);
}

/* Stages of both factors that all warps read: each has a corner of the tile and a slice of the
 * stage. */
template <typename S> struct tile_stages {
    typedef int32_t sums[2][4][4];
    const tile_source<S> weights, inputs;
    char *xs, *ws;
    const int cols;

    __device__ __forceinline__ tile_stages(char *room, const tile_args &args, int part, size_t row,
                                           size_t col)
        : weights(args.a.w[part].codes, col, args.a.w[part].rows, (int)args.a.cols),
          inputs(args.a.quantized.codes, row, args.a.n_rows, (int)args.a.cols), xs(room),
          ws(room + STAGES * S::STAGE), cols((int)args.a.cols)
    {
    }

    __device__ __forceinline__ int steps() const { return (cols + S::BYTES - 1) / S::BYTES; }

    __device__ __forceinline__ void ask_weights() const
    {
#pragma unroll 1
        for (int s = 0; s < STAGES - 1; s++)
            if (s < steps()) weights.copy(ws + s * S::STAGE, s, cols);
    }

    __device__ __forceinline__ void ask_inputs() const
    {
#pragma unroll 1
        for (int s = 0; s < STAGES - 1; s++) {
            if (s < steps()) inputs.copy(xs + s * S::STAGE, s, cols);
            end_of_group();
        }
    }

    __device__ __forceinline__ void multiply(sums &sum) const
    {
        const int warp = (int)threadIdx.x / WARP, slice = warp / S::CORNERS;
        const int above = warp % S::CORNERS / 2 * CORNER, beside = warp % S::CORNERS % 2 * CORNER;
        const int n = steps();
#pragma unroll 1
        for (int step = 0; step < n; step++) {
            const int stage = step % STAGES * S::STAGE, ahead = step + STAGES - 1;
            wait_for_groups<STAGES - 2>();
            __syncthreads();
#pragma unroll
            for (int k = 0; k < S::STEPS; k++) {
                const int at = stage + (slice * S::STEPS + k) * 32;
                uint32_t left[2][4], right[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    load_a(left[i], (const __half *)(xs + at + (above + i * 16) * S::PITCH),
                           S::PITCH / 2);
                    load_b_pair(right[i], (const __half *)(ws + at + (beside + i * 16) * S::PITCH),
                                S::PITCH / 2);
                }
                multiply_corner(sum, left, right);
            }
            /* Tensor cores are at work meanwhile. */
            if (ahead < n) {
                weights.copy(ws + ahead % STAGES * S::STAGE, ahead, cols);
                inputs.copy(xs + ahead % STAGES * S::STAGE, ahead, cols);
            }
            end_of_group();
        }
    }
};

#if BG_WGMMA_HERE
/* The same brought by the tensor memory accelerator, whom the first thread asks: each warpgroup has
 * all of the tile and a slice of a stage. */
template <typename S> struct tile_by_groups {
    static constexpr int STAGE = S::TILE * DEPTH_BYTES, SLICE = DEPTH_BYTES / (THREADS / GROUP);
    static_assert(S::BY_GROUPS >= S::PIPELINE, "room for sums");
    typedef int32_t sums[S::TILE * S::TILE / GROUP];
    const CUtensorMap *weights, *inputs;
    const int row, col, steps;
    const uint32_t xs, ws, full; /* barriers: a stage has come */

    static __device__ __forceinline__ uint32_t new_barriers()
    {
        __shared__ __align__(8) uint64_t barriers[BROUGHT];
        const uint32_t first = shared_address(barriers);
        if (threadIdx.x > 0) return first;
        for (int s = 0; s < BROUGHT; s++) barrier_create(first + s * 8, 1);
        barriers_are_created();
        show_to_products();
        return first;
    }

    __device__ __forceinline__ tile_by_groups(char *room, const tile_args &args, int part,
                                              size_t first_row, size_t first_col)
        : weights(&args.w[part]), inputs(&args.x), row((int)first_row), col((int)first_col),
          steps(((int)args.a.cols + DEPTH_BYTES - 1) / DEPTH_BYTES),
          xs((shared_address(room) + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN),
          ws(xs + BROUGHT * STAGE), full(new_barriers())
    {
    }

    /* By the first thread. */
    __device__ __forceinline__ void ask_weights(int step) const
    {
        const uint32_t barrier = full + step % BROUGHT * 8;
        barrier_expect(barrier, 2 * STAGE);
        copy_tile(ws + step % BROUGHT * STAGE, weights, barrier, step * DEPTH_BYTES, col);
    }

    __device__ __forceinline__ void ask_inputs(int step) const
    {
        copy_tile(xs + step % BROUGHT * STAGE, inputs, full + step % BROUGHT * 8,
                  step * DEPTH_BYTES, row);
    }

    __device__ __forceinline__ void ask_weights() const
    {
        if (threadIdx.x > 0) return;
#pragma unroll 1
        for (int s = 0; s < min((int)BROUGHT, steps); s++) ask_weights(s);
    }

    __device__ __forceinline__ void ask_inputs() const
    {
        if (threadIdx.x > 0) return;
#pragma unroll 1
        for (int s = 0; s < min((int)BROUGHT, steps); s++) ask_inputs(s);
    }

    __device__ __forceinline__ void multiply(sums &sum) const
    {
        const uint64_t slice = threadIdx.x / GROUP * (SLICE / 16);
        const uint64_t x = tile_at(xs) + slice, w = tile_at(ws) + slice;
        __syncthreads(); /* there are barriers */
#pragma unroll 1
        for (int step = 0; step < steps; step++) {
            const uint64_t stage = (uint64_t)(step % BROUGHT * (STAGE / 16));
            barrier_wait(full + step % BROUGHT * 8, step / BROUGHT & 1);
            begin_products();
#pragma unroll
            for (uint64_t k = 0; k < SLICE / 32; k++)
                multiply_tiles(sum, x + stage + k * 2, w + stage + k * 2);
            end_of_products();
            /* These run meanwhile; another stage takes the place of the one before. */
            const int ahead = step - 1 + BROUGHT;
            if (step == 0 || ahead >= steps) continue;
            wait_for_products<1>();
            __syncthreads();
            if (threadIdx.x == 0) {
                ask_weights(ahead);
                ask_inputs(ahead);
            }
            __syncwarp();
        }
        wait_for_products<0>();
        keep_behind(sum);
    }
};
#endif

/* Each warp's ring: it has all of the tile, and every eighth step of the columns. */
template <typename S> struct tile_rings {
    typedef int32_t sums[2][4][4];
    static constexpr int WEIGHTS_AT = S::TILE * S::BYTES, APART = WARPS * S::BYTES;
    const slot_source<S> weights, inputs;
    char *ring;
    const int first, cols; /* columns: the warp's first, and all */

    __device__ __forceinline__ tile_rings(char *room, const tile_args &args, int part, size_t row,
                                          size_t col)
        : weights(args.a.w[part].codes, col, args.a.w[part].rows, (int)args.a.cols),
          inputs(args.a.quantized.codes, row, args.a.n_rows, (int)args.a.cols),
          ring(room + (int)threadIdx.x / WARP * (SLOTS * S::SLOT)),
          first((int)threadIdx.x / WARP * S::BYTES), cols((int)args.a.cols)
    {
    }

    __device__ __forceinline__ void ask_weights() const
    {
#pragma unroll 1
        for (int s = 0, k = first; s < SLOTS; s++, k += APART)
            if (k < cols) weights.copy(ring + s * S::SLOT + WEIGHTS_AT, k, cols);
    }

    __device__ __forceinline__ void ask_inputs() const
    {
#pragma unroll 1
        for (int s = 0, k = first; s < SLOTS; s++, k += APART) {
            if (k < cols) inputs.copy(ring + s * S::SLOT, k, cols);
            end_of_group();
        }
    }

    __device__ __forceinline__ void multiply(sums &sum) const
    {
        const int lane = (int)threadIdx.x % WARP;
        char *slot = ring;
#pragma unroll 1
        for (int k = first; k < cols; k += APART) {
            wait_for_groups<SLOTS - 1>();
            __syncwarp();
#pragma unroll
            for (int piece = 0; piece < S::CHUNKS; piece += 2) {
                const int x = slot_source<S>::place_of(lane % 16, piece + lane / 16);
                const int y =
                    slot_source<S>::place_of(lane % 8 + lane / 16 * 8, piece + lane / 8 % 2);
                uint32_t left[2][4], right[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    load_tiles(left[i], (const __half *)(slot + x + i * 16 * S::BYTES), false);
                    load_tiles(right[i],
                               (const __half *)(slot + WEIGHTS_AT + y + i * 16 * S::BYTES), false);
                }
                multiply_corner(sum, left, right);
            }
            __syncwarp();
            if (k + SLOTS * APART < cols) {
                weights.copy(slot + WEIGHTS_AT, k + SLOTS * APART, cols);
                inputs.copy(slot, k + SLOTS * APART, cols);
            }
            end_of_group();
            slot = slot + S::SLOT == ring + SLOTS * S::SLOT ? ring : slot + S::SLOT;
        }
    }
};

template <int TILE> struct pipeline_of {
#if BG_WGMMA_HERE
    typedef tile_by_groups<tile_shape<TILE>> type;
#else
    typedef tile_stages<tile_shape<TILE>> type;
#endif
};
template <> struct pipeline_of<CORNER> {
    typedef tile_rings<tile_shape<CORNER>> type;
};

#endif
