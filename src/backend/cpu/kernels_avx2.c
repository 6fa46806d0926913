/* AVX2, FMA and F16C: eight floats a register. */
#include "backend/cpu/round_f16c.h"

#include "backend/cpu/elementwise.h"
#include "backend/cpu/int8_avx2.h"
#include "backend/cpu/kernels.h"

#include <immintrin.h>

static inline float sum_of(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Eight weights as floats, and one. */
static inline __m256 load_f32(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline float one_f32(float v)
{
    return v;
}
static inline __m256 load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline float one_f16(uint16_t v)
{
    return bg_f16_to_f32(v);
}
static inline __m256 load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline float one_bf16(uint16_t v)
{
    return bg_bf16_to_f32(v);
}

/* One row after the other: see kernels_avx512.c. */
#define MATVEC_FLOAT(type, suffix)                                                                 \
    static void matvec_##suffix(const bg_packed *w, const bg_cpu_input *in, float *y,              \
                                size_t begin, size_t end)                                          \
    {                                                                                              \
        const size_t n = w->cols;                                                                  \
        const float *x = in->values;                                                               \
        for (size_t r = begin; r < end; r++) {                                                     \
            const type *row = (const type *)w->codes + r * n;                                      \
            __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a;                                   \
            size_t i = 0;                                                                          \
            for (; i + 32 <= n; i += 32) {                                                         \
                a = _mm256_fmadd_ps(load_##suffix(row + i), _mm256_loadu_ps(x + i), a);            \
                b = _mm256_fmadd_ps(load_##suffix(row + i + 8), _mm256_loadu_ps(x + i + 8), b);    \
                c = _mm256_fmadd_ps(load_##suffix(row + i + 16), _mm256_loadu_ps(x + i + 16), c);  \
                d = _mm256_fmadd_ps(load_##suffix(row + i + 24), _mm256_loadu_ps(x + i + 24), d);  \
            }                                                                                      \
            for (; i + 8 <= n; i += 8)                                                             \
                a = _mm256_fmadd_ps(load_##suffix(row + i), _mm256_loadu_ps(x + i), a);            \
            float sum = sum_of(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)));           \
            for (; i < n; i++) sum += one_##suffix(row[i]) * x[i];                                 \
            y[r - begin] = sum;                                                                    \
        }                                                                                          \
    }                                                                                              \
    static void decode_##suffix(const bg_packed *w, float *values, size_t begin, size_t end)       \
    {                                                                                              \
        const type *p = (const type *)w->codes + begin * w->cols;                                  \
        size_t n = (end - begin) * w->cols, i = 0;                                                 \
        for (; i + 8 <= n; i += 8) _mm256_storeu_ps(values + i, load_##suffix(p + i));             \
        for (; i < n; i++) values[i] = one_##suffix(p[i]);                                         \
    }

MATVEC_FLOAT(float, f32)
MATVEC_FLOAT(uint16_t, f16)
MATVEC_FLOAT(uint16_t, bf16)

typedef struct {
    __m256 low, high; /* values of the codes 0 to 7 and 8 to 15 */
} code_table;

/* A permutation looks at three bits of the index; the fourth, moved to the sign, blends. */
static inline __m256 look_up(code_table t, __m256i index)
{
    __m256 low = _mm256_permutevar8x32_ps(t.low, index);
    __m256 high = _mm256_permutevar8x32_ps(t.high, index);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

static inline code_table table_of(const bg_packed *w)
{
    const float *code = bg_formats[w->format].code;
    return (code_table){_mm256_loadu_ps(code), _mm256_loadu_ps(code + 8)};
}

/* Sixteen codes, in eight bytes: values at even and at odd places. */
static inline void unpack(const uint8_t *p, code_table t, __m256 *even, __m256 *odd)
{
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    *even = look_up(t, _mm256_srli_epi32(bytes, 4));
    *odd = look_up(t, bytes);
}

static void matvec_4bit(const bg_packed *w, const bg_cpu_input *in, float *y, size_t begin,
                        size_t end)
{
    const code_table t = table_of(w);
    const size_t blocks = w->cols / BG_BLOCK;
    for (size_t r = begin; r < end; r++) {
        const uint8_t *p = (const uint8_t *)w->codes + r * (w->cols / 2);
        const float *x = in->paired;
        __m256 sum = _mm256_setzero_ps();
        for (size_t block = r * blocks; block < (r + 1) * blocks; block++) {
            __m256 a = _mm256_setzero_ps(), b = a, even, odd;
            for (int part = 0; part < 4; part++, p += 8, x += 16) {
                unpack(p, t, &even, &odd);
                a = _mm256_fmadd_ps(even, _mm256_loadu_ps(x), a);
                b = _mm256_fmadd_ps(odd, _mm256_loadu_ps(x + 8), b);
            }
            sum =
                _mm256_fmadd_ps(_mm256_add_ps(a, b), _mm256_set1_ps(bg_block_scale(w, block)), sum);
        }
        y[r - begin] = sum_of(sum);
    }
}

static void decode_4bit(const bg_packed *w, float *values, size_t begin, size_t end)
{
    size_t first = begin * w->cols, n = (end - begin) * w->cols;
    if (first % BG_BLOCK || n % BG_BLOCK) {
        decode_reference(w, values, begin, end);
        return;
    }
    const code_table t = table_of(w);
    const uint8_t *p = (const uint8_t *)w->codes + first / 2;
    for (size_t i = 0; i < n; i += 16, p += 8) {
        __m256 scale = _mm256_set1_ps(bg_block_scale(w, (first + i) / BG_BLOCK)), even, odd;
        unpack(p, t, &even, &odd);
        even = _mm256_mul_ps(even, scale);
        odd = _mm256_mul_ps(odd, scale);
        __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
        _mm256_storeu_ps(values + i, _mm256_permute2f128_ps(low, high, 0x20));
        _mm256_storeu_ps(values + i + 8, _mm256_permute2f128_ps(low, high, 0x31));
    }
}

/* Every processor with AVX2 has F16C, which compilers cannot all ask for by name. */
static bool supported(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const bg_cpu_kernels bg_cpu_avx2 = {
    .isa = "avx2",
    .supported = supported,
    .pair_lanes = 8,
    FORMAT_KERNELS("avx2", "avx2"),
    ELEMENTWISE_KERNELS,
};
