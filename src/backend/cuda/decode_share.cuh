/* Decoding the 4-bit weights of layers to come (ahead.c), in blocks of a kernel that have nothing
 * else to do: those layers then read binary16 numbers, from the GPU's cache. */
#ifndef BG_BACKEND_CUDA_DECODE_SHARE_CUH
#define BG_BACKEND_CUDA_DECODE_SHARE_CUH

#include "backend/cuda/code_bytes.cuh"
#include "backend/cuda/copy.cuh"

enum {
    SHARE_CODE_BYTES = BG_BLOCK / 2,
    SHARE_BYTES =
        SHARE_CODE_BYTES + 4,    /* of shared memory for a block of codes: these, its scale */
    SHARE_LANES = 4,             /* for a block of codes */
    SHARE_PIECES = BG_BLOCK / 8, /* of 16 bytes, of a block's numbers; words of its codes */
};

/* f(i, first, n, at) for each matrix that has some of `n` blocks of codes from number `first` on of
 * all: n of its own from its `first` on, number `at` of those. */
template <typename F>
static __device__ __forceinline__ void each_run(const cuda_coming &c, unsigned first, unsigned n,
                                                F f)
{
    unsigned begin = 0; /* the matrix's first */
#pragma unroll 1
    for (unsigned i = 0; i < c.n; i++) {
        const unsigned end = begin + c.w[i].blocks;
        const unsigned from = max(first, begin), to = min(first + n, end);
        if (from < to) f(i, from - begin, to - from, from - first);
        begin = end;
    }
}

/* What block_scale wants of one. */
static __device__ __forceinline__ cuda_matrix scales_of(const cuda_coming &c, unsigned i)
{
    cuda_matrix w;
    w.scales = c.w[i].scales;
    w.scale_codes = c.w[i].scale_codes;
    w.scale_absmax = c.w[i].scale_absmax;
    w.scale_map = c.scale_map;
    w.scale_offset = c.w[i].scale_offset;
    return w;
}

/* The share of decoder `decoder`, a block of threads; nothing where there are not so many. Codes
 * are older than all that is queued, and no kernel that may still run reads what they are decoded
 * to (ahead.c): it does not wait. */
template <int THREADS>
static __device__ __noinline__ void decode_share(const cuda_coming &c, unsigned decoder)
{
    extern __shared__ __align__(16) uint32_t share_room[];
    const unsigned each = (c.blocks + c.decoders - 1) / c.decoders, first = decoder * each;
    const unsigned n = first < c.blocks ? min(each, c.blocks - first) : 0;
    uint32_t *const codes = share_room;
    float *const scales = (float *)(codes + each * SHARE_PIECES);
    let_next_start();
    if (n == 0) return;
    float code[16];
#pragma unroll
    for (int i = 0; i < 16; i++) code[i] = c.code[i];
    each_run(c, first, n, [&](unsigned k, unsigned from, unsigned count, unsigned at) {
        const char *own = (const char *)c.w[k].codes + (size_t)from * SHARE_CODE_BYTES;
        const cuda_matrix w = scales_of(c, k);
        for (unsigned i = threadIdx.x; i < count * 2; i += THREADS)
            copy_16(codes + at * SHARE_PIECES + i * 4, own + i * 16);
        for (unsigned i = threadIdx.x; i < count; i += THREADS)
            scales[at + i] = block_scale(w, from + i);
    });
    end_of_group();
    wait_for_groups<0>();
    __syncthreads();
    /* Four lanes have a block: of its eight words each has one of the first four and one of the
     * last, so that they write 64 bytes at once. */
    each_run(c, first, n, [&](unsigned k, unsigned from, unsigned count, unsigned at) {
        uint4 *const to = (uint4 *)c.w[k].out + (size_t)from * SHARE_PIECES;
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < count * SHARE_LANES; i += THREADS) {
            const unsigned block = i / SHARE_LANES, piece = block * SHARE_PIECES + i % SHARE_LANES;
            const code_bytes table = scaled_codes(code, scales[at + block]);
            uint32_t x[4], y[4];
            decode_eight(table, codes[at * SHARE_PIECES + piece], x);
            decode_eight(table, codes[at * SHARE_PIECES + piece + SHARE_LANES], y);
            to[piece] = make_uint4(x[0], x[1], x[2], x[3]);
            to[piece + SHARE_LANES] = make_uint4(y[0], y[1], y[2], y[3]);
        }
    });
}

#endif
