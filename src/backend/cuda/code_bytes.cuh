/* 4-bit codes to binary16 numbers, eight at a time: the low and the high byte of each are looked up
 * in registers by permutations of bytes. */
#ifndef BG_BACKEND_CUDA_CODE_BYTES_CUH
#define BG_BACKEND_CUDA_CODE_BYTES_CUH

#include "backend/cuda/device.cuh"

/* The sixteen numbers that codes stand for: their low bytes and their high ones. */
struct code_bytes {
    uint32_t low[4], high[4];
};

/* A block's: code * scale, as fp32 has it, rounded to binary16. */
static __device__ __forceinline__ code_bytes scaled_codes(const float code[16], float scale)
{
    code_bytes t;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __half2 x = __floats2half2_rn(code[4 * i] * scale, code[4 * i + 1] * scale);
        const __half2 y = __floats2half2_rn(code[4 * i + 2] * scale, code[4 * i + 3] * scale);
        t.low[i] = __byte_perm(*(const uint32_t *)&x, *(const uint32_t *)&y, 0x6420);
        t.high[i] = __byte_perm(*(const uint32_t *)&x, *(const uint32_t *)&y, 0x7531);
    }
    return t;
}

/* A permutation whose digits from 8 on take a byte's highest bit eight times, which __byte_perm
 * does not. */
static __device__ __forceinline__ uint32_t highest_bits(uint32_t x, uint32_t y, uint32_t which)
{
    uint32_t out;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(x), "r"(y), "r"(which));
    return out;
}

/* Four bytes, each one of sixteen that a digit of `which` and a byte of `beyond` choose. */
static __device__ __forceinline__ uint32_t look_up(const uint32_t table[4], uint32_t which,
                                                   uint32_t beyond)
{
    const uint32_t first = __byte_perm(table[0], table[1], which);
    const uint32_t last = __byte_perm(table[2], table[3], which);
    return (first & ~beyond) | (last & beyond);
}

/* Four pairs of numbers: of each byte the high four bits come first. A permutation that repeats the
 * highest bit of bytes makes a code's highest one a byte of them. */
static __device__ __forceinline__ void decode_eight(const code_bytes &t, uint32_t codes,
                                                    uint32_t out[4])
{
    const uint32_t digits = codes & 0x77777777, raised = codes * 16;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t which = digits >> i * 16;
        const uint32_t beyond = highest_bits(raised, codes, i ? 0xFBEA : 0xD9C8);
        const uint32_t x = look_up(t.low, which, beyond), y = look_up(t.high, which, beyond);
        out[2 * i] = __byte_perm(x, y, 0x4051);
        out[2 * i + 1] = __byte_perm(x, y, 0x6273);
    }
}

#endif
