/* A warp's part of a linear layer of a program, on tensor cores (mma.sync, compute capability 8.0
 * and later).
 *
 * A lane multiplies 16 or 8 bytes of rows g and g + 8 of a step (g = lane / 4) at columns of its
 * own (lane % 4); which columns of the matrix an instruction calls its first, second, ... does not
 * matter as long as the activations are taken in the same order. (int8's weights come in the
 * instruction's order, by ldmatrix, and activations' codes lie so that a lane has its own in a
 * row.) 4-bit codes are looked up two at a
 * time, in a table of 256 pairs of fp16 values that has an entry for each lane, so that no two
 * lanes want the same bank; the sum of a block of 64 codes is multiplied by the block's scale in
 * fp32.
 *
 * Activations have a high and a low half (program_input.cuh). With up to PACKED_ROWS rows these are
 * columns of one instruction; with more, there are two instructions. */
#ifndef BG_BACKEND_CUDA_PROGRAM_TILE_CUH
#define BG_BACKEND_CUDA_PROGRAM_TILE_CUH

#include "backend/cuda/mma.cuh"
#include "backend/cuda/program_input.cuh"
#include "backend/cuda/program_ring.cuh"

/* Before everything else in shared memory: the table of pairs and double quantization's map, or
 * int8's reciprocals. */
enum { PAIR_TABLE_BYTES = 256 * WARP * 4, SCALE_MAP_BYTES = 256 * 4, RECIPROCAL_BYTES = 1024 * 4 };

template <kind K> struct tile_shape {
    static constexpr part_type PARTS = K == KIND_INT8   ? CODES_INT8
                                       : K == KIND_BF16 ? PARTS_BF16
                                                        : PARTS_F16;
    static constexpr int TABLES = K == KIND_4BIT      ? PAIR_TABLE_BYTES
                                  : K == KIND_4BIT_DQ ? PAIR_TABLE_BYTES + SCALE_MAP_BYTES
                                  : K == KIND_INT8    ? RECIPROCAL_BYTES
                                                      : 0;
};

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

/* ---- a step ---------------------------------------------------------------------------------- */

/* Where a lane finds its column of activations: high halves, or low ones; or codes. Lanes whose
 * columns are of no row take the first one's: what becomes of theirs is not read. */
template <kind K>
static __device__ __forceinline__ const char *column_of(const staged_input &s, unsigned rows,
                                                        bool packed)
{
    const unsigned g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
    const unsigned m = packed && K != KIND_INT8 ? g / 2 : g, row = m < rows ? m : 0;
    if constexpr (K == KIND_INT8) return s.codes + row * s.code_pitch + t * 16;
    return s.quads + row * s.pitch + (packed ? g % 2 * 8 : 0) + (is_4bit(K) ? t * 64 : 0);
}

/* Where in a step of int8 a lane's row of load_tiles begins: of rows 0 to 7 and 8 to 15, of
 * their first 16 bytes and of the next; 32 bytes on lies at the place with that bit turned. */
static __device__ __forceinline__ unsigned code_row(unsigned lane)
{
    return place_in_step<KIND_INT8>(lane % 16, lane / 16);
}

/* Two values from byte i of a word of 4-bit codes, the high half of the byte first; `table` is the
 * lane's address in shared memory. */
static __device__ __forceinline__ uint32_t decode_pair(uint32_t table, uint32_t word, int i)
{
    return load_shared(table + __byte_perm(word, 0, 0x4440 + i) * (WARP * 4));
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
    static constexpr int SUMS = K == KIND_INT8 ? 4 : 2;
    sum c[SUMS][4];
    unsigned first_block; /* double quantization: of row g, at step 0 */
    float offset;

    __device__ __forceinline__ void begin(const cuda_linear_args &a, const tiling &tiles,
                                          const tile_place &at)
    {
        for (int i = 0; i < SUMS; i++)
            for (int j = 0; j < 4; j++) c[i][j] = 0;
        if constexpr (K == KIND_4BIT_DQ) {
            const unsigned row = at.row + threadIdx.x % WARP / 4;
            first_block = (row * tiles.row_steps + tiles.first_step) * 2;
            offset = a.w[at.part].scale_offset;
        }
    }
    /* 16-bit weights: the lane's eight columns of a step are two quads. */
    __device__ __forceinline__ void multiply_halves(const char *in, const char *slot, unsigned step,
                                                    unsigned lane)
    {
        const uint4 w0 = *(const uint4 *)(slot + lane * 16);
        const uint4 w8 = *(const uint4 *)(slot + lane * 16 + 8 * STEP_BYTES);
        const char *x = in + quad_place(step * 8 + lane % 4 * 2) * 16;
#pragma unroll
        for (int half = 0; half < (PACKED ? 1 : 2); half++) {
            const uint2 b = *(const uint2 *)(x + half * 8);
            const uint2 d = *(const uint2 *)(x + half * 8 + 16);
            multiply<K>(c[0], w0.x, w8.x, w0.y, w8.y, b.x, b.y);
            multiply<K>(c[1], w0.z, w8.z, w0.w, w8.w, d.x, d.y);
        }
    }
    /* int8: `steps` steps, a few at a time, whose loads do not wait for each other; `in` and `slot`
     * are the lane's. */
    __device__ __forceinline__ void multiply_codes(const char *in, const char *slot, unsigned steps)
    {
        enum { AT_ONCE = 4, PITCH = step_shape<K>::PITCH };
        unsigned first = 0;
#pragma unroll 1
        do {
            uint32_t w[AT_ONCE][2][4];
            uint4 b[AT_ONCE];
#pragma unroll
            for (unsigned i = 0; i < AT_ONCE; i++) {
                const unsigned k = min(first + i, steps - 1); /* what is not there is not used */
                const uint32_t at = shared_address(slot) + k * PITCH;
                load_tiles(w[i][0], at);
                load_tiles(w[i][1], at ^ 32);
                b[i] = *(const uint4 *)(in + k * 64);
            }
#pragma unroll
            for (unsigned i = 0; i < AT_ONCE; i++) {
                if (i > 0 && first + i >= steps) continue;
                const unsigned k = i % (SUMS / 2) * 2;
                const uint32_t *u = w[i][0], *v = w[i][1];
                multiply<K>(c[k], u[0], u[1], u[2], u[3], b[i].x, b[i].y);
                multiply<K>(c[k + 1], v[0], v[1], v[2], v[3], b[i].z, b[i].w);
            }
            first += AT_ONCE;
        } while (first < steps);
    }
    /* Scales of the step's two blocks, of row g and of row g + 8. */
    __device__ __forceinline__ void scales_of(const char *slot, unsigned step, unsigned lane,
                                              const char *tables, float s0[2], float s8[2]) const
    {
        const char *scales = slot + step_shape<K>::SCALES_AT + lane / 4 * 8;
        if constexpr (K == KIND_4BIT) {
            *(float2 *)s0 = *(const float2 *)scales;
            *(float2 *)s8 = *(const float2 *)(scales + 64);
        } else {
            /* Two of four codes: the number of a block is even. */
            const float *map = (const float *)(tables + PAIR_TABLE_BYTES);
            const unsigned shift = (first_block + 2 * step) % 4 * 8; /* of row g + 8, too */
            const uint2 v0 = *(const uint2 *)scales, v8 = *(const uint2 *)(scales + 64);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                s0[i] = map[v0.x >> (shift + 8 * i) & 255] * __uint_as_float(v0.y) + offset;
                s8[i] = map[v8.x >> (shift + 8 * i) & 255] * __uint_as_float(v8.y) + offset;
            }
        }
    }
    /* 4 bits: two blocks of 64, of which a lane has 16 codes in 8 bytes. Of N tiles, whose steps
     * lie `pitch` apart. */
    template <int N>
    static __device__ __forceinline__ void
    multiply_pairs(warp_tile *tiles, const char *in, const char *slot, unsigned pitch,
                   unsigned step, unsigned lane, const char *tables)
    {
        const unsigned g = lane / 4, t = lane % 4;
        const uint32_t table = shared_address(tables) + lane * 4;
        uint2 w0[N][2], w8[N][2];
        float s0[N][2], s8[N][2];
#pragma unroll
        for (int n = 0; n < N; n++) {
            const char *at = slot + n * pitch;
#pragma unroll
            for (int block = 0; block < 2; block++) {
                const unsigned piece = block * 2 + t / 2;
                w0[n][block] = *(const uint2 *)(at + place_in_step<K>(g, piece) + t % 2 * 8);
                w8[n][block] = *(const uint2 *)(at + place_in_step<K>(g + 8, piece) + t % 2 * 8);
            }
            tiles[n].scales_of(at, step, lane, tables, s0[n], s8[n]);
        }
        /* The blocks' instructions in turn: one does not wait for the other. */
        float p[N][2][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int block = 0; block < 2; block++) {
                const char *x = in + step * 512 + block * 256 + (i ^ (int)(t & 2)) * 16;
                uint2 b[PACKED ? 1 : 2];
#pragma unroll
                for (int half = 0; half < (PACKED ? 1 : 2); half++)
                    b[half] = *(const uint2 *)(x + half * 8);
#pragma unroll
                for (int n = 0; n < N; n++) {
                    const uint32_t word0 = i < 2 ? w0[n][block].x : w0[n][block].y;
                    const uint32_t word8 = i < 2 ? w8[n][block].x : w8[n][block].y;
                    const uint32_t a0 = decode_pair(table, word0, i % 2 * 2);
                    const uint32_t a2 = decode_pair(table, word0, i % 2 * 2 + 1);
                    const uint32_t a1 = decode_pair(table, word8, i % 2 * 2);
                    const uint32_t a3 = decode_pair(table, word8, i % 2 * 2 + 1);
#pragma unroll
                    for (int half = 0; half < (PACKED ? 1 : 2); half++)
                        multiply<K>(p[n][block], a0, a1, a2, a3, b[half].x, b[half].y);
                }
            }
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int block = 0; block < 2; block++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    tiles[n].c[0][i] = __fmaf_rn(i < 2 ? s0[n][block] : s8[n][block],
                                                 p[n][block][i], tiles[n].c[0][i]);
    }
    /* Step number `step` of the tile, which lies at `slot`; not of int8. */
    __device__ __forceinline__ void multiply_step(const char *in, const char *slot, unsigned step,
                                                  unsigned lane, const char *tables)
    {
        if constexpr (is_4bit(K))
            multiply_pairs<1>(this, in, slot, 0, step, lane, tables);
        else
            multiply_halves(in, slot, step, lane);
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
                if (m >= rows) continue;
                sum all = c[0][i] + c[1][i];
                if constexpr (SUMS == 4) all += c[SUMS - 2][i] + c[SUMS - 1][i];
                ((sum *)to)[((g + i / 2 * 8) << shift) + m] = all;
            }
        }
    }
};

#endif
