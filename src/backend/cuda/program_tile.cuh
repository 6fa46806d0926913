/* A warp's part of a linear layer of a program, on tensor cores (mma.sync, compute capability 8.0
 * and later).
 *
 * A tile is 16 rows of the matrix. Its product goes over the rows in steps of 64 bytes of each,
 * which a warp copies to a ring in its part of shared memory, so early that many steps are on their
 * way at any time, the first since before the wait for the node before. A lane multiplies pieces of
 * rows g and g + 8 (g = lane / 4) at columns of its own (lane % 4); which columns of the matrix an
 * instruction calls its first, second, ... does not matter as long as the activations are taken in
 * the same order. 4-bit codes are looked up two at a time, in a table of 256 pairs of fp16 values
 * that has an entry for each lane, so that no two lanes want the same bank; the sum of a block of
 * 64 codes is multiplied by the block's scale in fp32.
 *
 * Activations have a high and a low half (program_input.cuh). With up to PACKED_ROWS rows these are
 * columns of one instruction; with more, there are two instructions. */
#ifndef BG_BACKEND_CUDA_PROGRAM_TILE_CUH
#define BG_BACKEND_CUDA_PROGRAM_TILE_CUH

#include "backend/cuda/mma.cuh"
#include "backend/cuda/program_input.cuh"

enum kind { KIND_F16, KIND_BF16, KIND_INT8, KIND_4BIT, KIND_4BIT_DQ };

__host__ __device__ constexpr bool is_4bit(kind k)
{
    return k == KIND_4BIT || k == KIND_4BIT_DQ;
}

enum { TILE = 16, STEP_BYTES = 64, PAIR_TABLE_BYTES = 256 * WARP * 4, SCALE_MAP_BYTES = 256 * 4 };

template <kind K> struct tile_shape {
    static constexpr int BITS = is_4bit(K) ? 4 : K == KIND_INT8 ? 8 : 16;
    static constexpr int STEP = STEP_BYTES * 8 / BITS; /* columns of a step */
    /* Of a step in the ring: 16 rows, and 8 bytes for each with 4 bits: two scales, or two codes of
     * scales and their absmax. */
    static constexpr int SCALES_AT = TILE * STEP_BYTES;
    static constexpr int SLOT = SCALES_AT + (is_4bit(K) ? TILE * 8 : 0);
    static constexpr part_type PARTS = K == KIND_INT8   ? CODES_INT8
                                       : K == KIND_BF16 ? PARTS_BF16
                                                        : PARTS_F16;
    /* Before everything else: the table of pairs, and double quantization's map. */
    static constexpr int TABLES =
        (is_4bit(K) ? PAIR_TABLE_BYTES : 0) + (K == KIND_4BIT_DQ ? SCALE_MAP_BYTES : 0);
};

/* Steps in the ring: many rows of activations need the room. */
__host__ __device__ constexpr int ring_slots(bool packed)
{
    return packed ? 6 : 4;
}

template <kind K> __host__ __device__ constexpr size_t ring_bytes(bool packed)
{
    return (size_t)STEP_WARPS * ring_slots(packed) * tile_shape<K>::SLOT;
}

/* Words of rows g and g + 8, and the lane's column of activations. */
template <kind K, typename T>
static __device__ __forceinline__ void multiply(T sum[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                                uint32_t a3, uint32_t b0, uint32_t b1)
{
    const uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    if constexpr (K == KIND_INT8)
        mma_codes(sum, a, b);
    else if constexpr (K == KIND_BF16)
        mma_bfloat(sum, a, b);
    else
        mma_half(sum, a, b);
}

/* ---- a warp's way through its tiles ---------------------------------------------------------- */

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

/* Which part of the block's work is a warp's: every `tile_groups`th tile, and of its steps the
 * k_group's share. */
struct warp_share {
    unsigned n_tiles, k_group, k_shift, tile_group, tile_groups;

    __device__ __forceinline__ unsigned first_step(unsigned steps) const
    {
        return steps * k_group >> k_shift;
    }
    __device__ __forceinline__ unsigned end_step(unsigned steps) const
    {
        return steps * (k_group + 1) >> k_shift;
    }
};

static __device__ __forceinline__ warp_share share_of(const cuda_linear_args &a)
{
    const unsigned warp = threadIdx.x / WARP, shift = a.k_shift;
    return {tiles_of_block(a), warp & ((1u << shift) - 1), shift, warp >> shift,
            (unsigned)STEP_WARPS >> shift};
}

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

static __device__ __forceinline__ void end_of_step()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All but the last N steps are there, for the whole warp. */
template <int N> static __device__ __forceinline__ void wait_for_step()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
    __syncwarp();
}

/* Where in a step a piece of 16 bytes lies: with 4 bits lanes of four rows want half of each at
 * once, and the halves of every other two rows change places. */
template <kind K>
static __device__ __forceinline__ unsigned piece_place(unsigned row, unsigned piece)
{
    return row * STEP_BYTES + (is_4bit(K) ? piece ^ (row & 2) : piece) * 16;
}

/* The steps that a warp asks for, one after the other. A lane copies a piece of row lane / 4 and
 * one of the row 8 behind it. */
template <kind K> struct loader {
    unsigned tile, step, end;
    const char *piece0, *piece8, *scale;
    unsigned block; /* double quantization: its number, and where codes and absmax lie */
    const uint8_t *codes;

    __device__ __forceinline__ void begin(const cuda_linear_args &a, const warp_share &w)
    {
        using shape = tile_shape<K>;
        if (tile >= w.n_tiles) return;
        const unsigned lane = threadIdx.x % WARP;
        const tile_place at = place_of(a, tile);
        const cuda_matrix &m = a.w[at.part];
        const unsigned last = (unsigned)m.rows - 1, steps = (unsigned)m.cols / shape::STEP;
        const size_t row_bytes = (size_t)steps * STEP_BYTES;
        step = w.first_step(steps);
        end = w.end_step(steps);
        const char *piece = (const char *)m.codes + (size_t)step * STEP_BYTES + lane % 4 * 16;
        piece0 = piece + min(at.row + lane / 4, last) * row_bytes;
        piece8 = piece + min(at.row + lane / 4 + 8, last) * row_bytes;
        const unsigned row = min(at.row + lane % TILE, last);
        if constexpr (K == KIND_4BIT)
            scale = (const char *)m.scales + ((size_t)row * steps + step) * 8;
        if constexpr (K == KIND_4BIT_DQ) {
            block = (row * steps + step) * 2;
            codes = m.scale_codes;
            scale = (const char *)m.scale_absmax;
        }
    }
    /* Asks for the next step, to a slot of the ring; for none if there is none. */
    __device__ __forceinline__ void next(const cuda_linear_args &a, const warp_share &w,
                                         uint32_t slot)
    {
        using shape = tile_shape<K>;
        if (tile < w.n_tiles) {
            const unsigned lane = threadIdx.x % WARP;
            copy_16(slot + piece_place<K>(lane / 4, lane % 4), piece0);
            copy_16(slot + piece_place<K>(lane / 4 + 8, lane % 4), piece8);
            piece0 += STEP_BYTES;
            piece8 += STEP_BYTES;
            const uint32_t to = slot + shape::SCALES_AT + lane % TILE * 8;
            if constexpr (K == KIND_4BIT) {
                if (lane < TILE) copy_few<8>(to, scale);
                scale += 8;
            }
            if constexpr (K == KIND_4BIT_DQ) {
                /* The four codes that these two are among. */
                if (lane < TILE)
                    copy_few<4>(to, codes + (block & ~3u));
                else
                    copy_few<4>(to + 4, scale + (size_t)(block / BG_SCALE_BLOCK) * 4);
                block += 2;
            }
            if (++step == end) {
                tile += w.tile_groups;
                begin(a, w);
            }
        }
        end_of_step();
    }
};

/* ---- a step ---------------------------------------------------------------------------------- */

/* Where a lane finds its column of activations. */
struct lane_input {
    const char *at; /* high halves, or low ones; or codes */
    bool there;
};

template <kind K>
static __device__ __forceinline__ lane_input input_of(const staged_input &s, unsigned rows,
                                                      bool packed)
{
    const unsigned g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    lane_input in;
    if constexpr (K == KIND_INT8) {
        in.there = g < rows;
        in.at = s.codes + (in.there ? g : 0) * s.code_pitch + t * 16;
    } else {
        const unsigned m = packed ? g / 2 : g;
        in.there = m < rows;
        in.at = s.quads + (in.there ? m : 0) * s.pitch + (packed ? g % 2 * 8 : 0);
        if (is_4bit(K)) in.at += t * 64;
    }
    return in;
}

template <typename T> static __device__ __forceinline__ T read_input(bool there, const char *p)
{
    return there ? *(const T *)p : T{};
}

/* Two values from byte i of a word of 4-bit codes, the high half of the byte first. */
static __device__ __forceinline__ uint32_t decode_pair(const char *table, uint32_t lane4,
                                                       uint32_t word, int i)
{
    const uint32_t moved = i == 0 ? word << 7 : word >> (8 * i - 7);
    return *(const uint32_t *)(table + ((moved & 0x7F80) | lane4));
}

template <kind K> struct sum_of {
    typedef float type;
};
template <> struct sum_of<KIND_INT8> {
    typedef int type;
};

/* The tile that a warp is at. Sums are of row g (0, 1) and g + 8 (2, 3), and of the instruction's
 * columns 2t and 2t + 1. */
template <kind K, bool PACKED> struct warp_tile {
    typedef typename sum_of<K>::type sum;
    unsigned tile, step, end;
    lane_input in;
    sum c[2][4];
    unsigned first_block; /* double quantization: of row g, at step 0 */
    float offset;

    __device__ __forceinline__ void begin(const cuda_linear_args &a, const warp_share &w,
                                          unsigned rows, const staged_input &one,
                                          const staged_input &two)
    {
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 4; j++) c[i][j] = 0;
        if (tile >= w.n_tiles) return;
        const tile_place at = place_of(a, tile);
        const unsigned part = at.part, steps = (unsigned)a.w[part].cols / tile_shape<K>::STEP;
        if constexpr (K == KIND_4BIT_DQ) {
            first_block = (at.row + threadIdx.x % WARP / 4) * steps * 2;
            offset = a.w[part].scale_offset;
        }
        step = w.first_step(steps);
        end = w.end_step(steps);
        in = input_of<K>(a.paired == CUDA_ADDED && part == 1 ? two : one, rows, PACKED);
    }
    /* 16-bit weights: the lane's eight columns of a step are two quads. */
    __device__ __forceinline__ void multiply_halves(const char *slot, unsigned lane)
    {
        const uint4 w0 = *(const uint4 *)(slot + lane * 16);
        const uint4 w8 = *(const uint4 *)(slot + lane * 16 + 8 * STEP_BYTES);
        const char *x = in.at + quad_place(step * 8 + lane % 4 * 2) * 16;
#pragma unroll
        for (int half = 0; half < (PACKED ? 1 : 2); half++) {
            const uint2 b = read_input<uint2>(in.there, x + half * 8);
            const uint2 d = read_input<uint2>(in.there, x + half * 8 + 16);
            multiply<K>(c[0], w0.x, w8.x, w0.y, w8.y, b.x, b.y);
            multiply<K>(c[1], w0.z, w8.z, w0.w, w8.w, d.x, d.y);
        }
    }
    __device__ __forceinline__ void multiply_codes(const char *slot, unsigned lane)
    {
        const uint4 w0 = *(const uint4 *)(slot + lane * 16);
        const uint4 w8 = *(const uint4 *)(slot + lane * 16 + 8 * STEP_BYTES);
        const uint4 b = read_input<uint4>(in.there, in.at + step * 64);
        multiply<K>(c[0], w0.x, w8.x, w0.y, w8.y, b.x, b.y);
        multiply<K>(c[1], w0.z, w8.z, w0.w, w8.w, b.z, b.w);
    }
    /* 4 bits: two blocks of 64, of which a lane has 16 codes in 8 bytes. */
    __device__ __forceinline__ void multiply_pairs(const char *slot, unsigned lane,
                                                   const char *table)
    {
        const unsigned g = lane / 4, t = lane % 4;
        const char *scales = slot + tile_shape<K>::SCALES_AT + g * 8;
        float s0[2], s8[2];
        if constexpr (K == KIND_4BIT) {
            *(float2 *)s0 = *(const float2 *)scales;
            *(float2 *)s8 = *(const float2 *)(scales + 64);
        } else {
            /* Two of four codes: the number of a block is even. */
            const float *map = (const float *)(table + PAIR_TABLE_BYTES);
            const unsigned shift = (first_block + 2 * step) % 4 * 8; /* of row g + 8, too */
            const uint2 v0 = *(const uint2 *)scales, v8 = *(const uint2 *)(scales + 64);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                s0[i] = map[v0.x >> (shift + 8 * i) & 255] * __uint_as_float(v0.y) + offset;
                s8[i] = map[v8.x >> (shift + 8 * i) & 255] * __uint_as_float(v8.y) + offset;
            }
        }
#pragma unroll
        for (int block = 0; block < 2; block++) {
            float p[2][4] = {};
            const unsigned piece = block * 2 + t / 2;
            const uint2 w0 = *(const uint2 *)(slot + piece_place<K>(g, piece) + t % 2 * 8);
            const uint2 w8 = *(const uint2 *)(slot + piece_place<K>(g + 8, piece) + t % 2 * 8);
            const char *quads = in.at + step * 512 + block * 256;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t word0 = i < 2 ? w0.x : w0.y, word8 = i < 2 ? w8.x : w8.y;
                const uint32_t a0 = decode_pair(table, lane * 4, word0, i % 2 * 2);
                const uint32_t a2 = decode_pair(table, lane * 4, word0, i % 2 * 2 + 1);
                const uint32_t a1 = decode_pair(table, lane * 4, word8, i % 2 * 2);
                const uint32_t a3 = decode_pair(table, lane * 4, word8, i % 2 * 2 + 1);
                const char *x = quads + (i ^ (int)(t & 2)) * 16; /* quad_place */
#pragma unroll
                for (int half = 0; half < (PACKED ? 1 : 2); half++) {
                    const uint2 b = read_input<uint2>(in.there, x + half * 8);
                    multiply<K>(p[i % 2], a0, a1, a2, a3, b.x, b.y);
                }
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                c[0][i] = __fmaf_rn(i < 2 ? s0[block] : s8[block], p[0][i] + p[1][i], c[0][i]);
        }
    }
    /* The warp's share of the tile to shared memory: to[(r << shift) + m]. */
    __device__ __forceinline__ void put(unsigned rows, unsigned shift, float *to) const
    {
        const unsigned g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
        if constexpr (K != KIND_INT8 && PACKED) {
            if (t >= rows) return;
            to[(g << shift) + t] = (c[0][0] + c[0][1]) + (c[1][0] + c[1][1]);
            to[((g + 8) << shift) + t] = (c[0][2] + c[0][3]) + (c[1][2] + c[1][3]);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned m = 2 * t + (i & 1);
                if (m < rows) ((sum *)to)[((g + i / 2 * 8) << shift) + m] = c[0][i] + c[1][i];
            }
        }
    }
};

#endif
