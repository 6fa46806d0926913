/* AVX-512 F, BW, DQ, VL. Sixteen floats a register; the sixteen values of a 4-bit code fit into
 * one, so that decoding sixteen codes is one permutation. */
#include "backend/cpu/round_f16c.h"

#include "backend/cpu/elementwise.h"
#include "backend/cpu/kernels.h"

#include <immintrin.h>

static inline __mmask16 tail_mask(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

/* Sixteen weights from place i of a row, as floats; the masked forms read only the lanes set. */
static inline __m512 load_f32(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline __m512 mask_f32(__mmask16 m, const float *p)
{
    return _mm512_maskz_loadu_ps(m, p);
}
static inline __m512 load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline __m512 mask_f16(__mmask16 m, const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p));
}
static inline __m512 widen_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline __m512 load_bf16(const uint16_t *p)
{
    return widen_bf16(_mm256_loadu_si256((const __m256i *)p));
}
static inline __m512 mask_bf16(__mmask16 m, const uint16_t *p)
{
    return widen_bf16(_mm256_maskz_loadu_epi16(m, p));
}

/* One row after the other, so that the weights are one stream, which the processor fetches ahead
 * best; four sums, so that no addition waits for the one before. */
#define MATVEC_FLOAT(type, suffix)                                                                 \
    static void matvec_##suffix(const bg_packed *w, const bg_cpu_input *in, float *y,              \
                                size_t begin, size_t end)                                          \
    {                                                                                              \
        const size_t n = w->cols, whole = n / 16 * 16;                                             \
        const __mmask16 tail = tail_mask(n - whole);                                               \
        const float *x = in->values;                                                               \
        for (size_t r = begin; r < end; r++) {                                                     \
            const type *row = (const type *)w->codes + r * n;                                      \
            __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;                                   \
            size_t i = 0;                                                                          \
            for (; i + 64 <= n; i += 64) {                                                         \
                a = _mm512_fmadd_ps(load_##suffix(row + i), _mm512_loadu_ps(x + i), a);            \
                b = _mm512_fmadd_ps(load_##suffix(row + i + 16), _mm512_loadu_ps(x + i + 16), b);  \
                c = _mm512_fmadd_ps(load_##suffix(row + i + 32), _mm512_loadu_ps(x + i + 32), c);  \
                d = _mm512_fmadd_ps(load_##suffix(row + i + 48), _mm512_loadu_ps(x + i + 48), d);  \
            }                                                                                      \
            for (; i < whole; i += 16)                                                             \
                a = _mm512_fmadd_ps(load_##suffix(row + i), _mm512_loadu_ps(x + i), a);            \
            if (tail)                                                                              \
                b = _mm512_fmadd_ps(mask_##suffix(tail, row + whole),                              \
                                    _mm512_maskz_loadu_ps(tail, x + whole), b);                    \
            y[r - begin] =                                                                         \
                _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));     \
        }                                                                                          \
    }                                                                                              \
    static void decode_##suffix(const bg_packed *w, float *values, size_t begin, size_t end)       \
    {                                                                                              \
        const type *p = (const type *)w->codes + begin * w->cols;                                  \
        size_t n = (end - begin) * w->cols, i = 0;                                                 \
        for (; i + 16 <= n; i += 16) _mm512_storeu_ps(values + i, load_##suffix(p + i));           \
        if (i < n)                                                                                 \
            _mm512_mask_storeu_ps(values + i, tail_mask(n - i),                                    \
                                  mask_##suffix(tail_mask(n - i), p + i));                         \
    }

MATVEC_FLOAT(float, f32)
MATVEC_FLOAT(uint16_t, f16)
MATVEC_FLOAT(uint16_t, bf16)

/* Thirty-two codes, in sixteen bytes, as values: those at even places and those at odd ones. A
 * permutation looks at the low four bits of an index only, so the low nibble needs no mask. */
static inline void unpack(const uint8_t *p, __m512 code, __m512 *even, __m512 *odd)
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    *even = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), code);
    *odd = _mm512_permutexvar_ps(bytes, code);
}

static inline __m512 block_product(const uint8_t *p, __m512 code, const float *x)
{
    __m512 even, odd, even2, odd2;
    unpack(p, code, &even, &odd);
    unpack(p + 16, code, &even2, &odd2);
    __m512 a = _mm512_mul_ps(even, _mm512_loadu_ps(x));
    __m512 b = _mm512_mul_ps(odd, _mm512_loadu_ps(x + 16));
    a = _mm512_fmadd_ps(even2, _mm512_loadu_ps(x + 32), a);
    b = _mm512_fmadd_ps(odd2, _mm512_loadu_ps(x + 48), b);
    return _mm512_add_ps(a, b);
}

static void matvec_4bit(const bg_packed *w, const bg_cpu_input *in, float *y, size_t begin,
                        size_t end)
{
    const __m512 code = _mm512_loadu_ps(bg_formats[w->format].code);
    const size_t blocks = w->cols / BG_BLOCK;
    for (size_t r = begin; r < end; r++) {
        const uint8_t *p = (const uint8_t *)w->codes + r * (w->cols / 2);
        const float *x = in->paired;
        __m512 a = _mm512_setzero_ps(), b = a;
        size_t i = 0, first = r * blocks;
        for (; i + 2 <= blocks; i += 2, p += 64, x += 128) {
            __m512 s0 = _mm512_set1_ps(bg_block_scale(w, first + i));
            __m512 s1 = _mm512_set1_ps(bg_block_scale(w, first + i + 1));
            a = _mm512_fmadd_ps(block_product(p, code, x), s0, a);
            b = _mm512_fmadd_ps(block_product(p + 32, code, x + 64), s1, b);
        }
        if (i < blocks)
            a = _mm512_fmadd_ps(block_product(p, code, x),
                                _mm512_set1_ps(bg_block_scale(w, first + i)), a);
        y[r - begin] = _mm512_reduce_add_ps(_mm512_add_ps(a, b));
    }
}

static void decode_4bit(const bg_packed *w, float *values, size_t begin, size_t end)
{
    size_t first = begin * w->cols, n = (end - begin) * w->cols;
    if (first % BG_BLOCK || n % BG_BLOCK) {
        decode_reference(w, values, begin, end);
        return;
    }
    const __m512 code = _mm512_loadu_ps(bg_formats[w->format].code);
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    const uint8_t *p = (const uint8_t *)w->codes + first / 2;
    for (size_t i = 0; i < n; i += BG_BLOCK, p += 32) {
        __m512 scale = _mm512_set1_ps(bg_block_scale(w, (first + i) / BG_BLOCK)), even, odd;
        for (int half = 0; half < 2; half++) {
            float *out = values + i + 32 * half;
            unpack(p + 16 * half, code, &even, &odd);
            even = _mm512_mul_ps(even, scale);
            odd = _mm512_mul_ps(odd, scale);
            _mm512_storeu_ps(out, _mm512_permutex2var_ps(even, low, odd));
            _mm512_storeu_ps(out + 16, _mm512_permutex2var_ps(even, high, odd));
        }
    }
}

static bool supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Without VNNI, integer products are no better at 512 bits than at 256: INT8_KERNELS are AVX2's. */
#if defined(__AVX512VNNI__)
#include "backend/cpu/int8_vnni.h"
#define ISA   "avx512-vnni"
#define TABLE bg_cpu_avx512_vnni
static bool supported_here(void)
{
    return supported() && __builtin_cpu_supports("avx512vnni");
}
#else
#include "backend/cpu/int8_avx2.h"
#define ISA   "avx512"
#define TABLE bg_cpu_avx512
static bool supported_here(void)
{
    return supported();
}
#endif

const bg_cpu_kernels TABLE = {
    .isa = ISA,
    .supported = supported_here,
    .pair_lanes = 16,
    FORMAT_KERNELS("avx512", INT8_ISA),
    ELEMENTWISE_KERNELS,
};
