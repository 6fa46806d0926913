/* Products of int8 codes with AVX2: vpmaddubsw multiplies unsigned by signed bytes, so the sign of
 * one side is moved to the other. Codes lie in [-127, 127], and the sum of two products, at most
 * 2 * 127^2 = 32258, fits its 16 bits. */
#include <immintrin.h>

#define INT8_ISA "avx2"
enum { TILE = 2 };

static inline __m256i products(__m256i sum, __m256i a, __m256i b)
{
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline int32_t total(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
    return _mm_cvtsi128_si32(s);
}

static inline int32_t dot_int8(const int8_t *a, const int8_t *b, size_t n)
{
    __m256i sum = _mm256_setzero_si256(), sum2 = sum;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        sum = products(sum, _mm256_loadu_si256((const __m256i *)(a + i)),
                       _mm256_loadu_si256((const __m256i *)(b + i)));
        sum2 = products(sum2, _mm256_loadu_si256((const __m256i *)(a + i + 32)),
                        _mm256_loadu_si256((const __m256i *)(b + i + 32)));
    }
    int32_t rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return total(_mm256_add_epi32(sum, sum2)) + rest;
}

static inline void dots(const int8_t *const *a, const int8_t *const *b, size_t n,
                        int32_t out[TILE][TILE])
{
    __m256i sum[TILE][TILE];
    size_t i = 0;
    for (int k = 0; k < TILE; k++)
        for (int j = 0; j < TILE; j++) sum[k][j] = _mm256_setzero_si256();
    for (; i + 32 <= n; i += 32) {
        for (int k = 0; k < TILE; k++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(a[k] + i));
            for (int j = 0; j < TILE; j++)
                sum[k][j] = products(sum[k][j], v, _mm256_loadu_si256((const __m256i *)(b[j] + i)));
        }
    }
    for (int k = 0; k < TILE; k++)
        for (int j = 0; j < TILE; j++) {
            int32_t rest = 0;
            for (size_t t = i; t < n; t++) rest += a[k][t] * b[j][t];
            out[k][j] = total(sum[k][j]) + rest;
        }
}

#include "backend/cpu/int8_blocked.h"

static void matmul_int8(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        float *y, size_t stride, size_t begin, size_t end)
{
    matmul_int8_tiles(w, codes, absmax, n_rows, y, stride, begin, end);
}
