/* Products of int8 codes with AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so one
 * side is shifted up by 128 and 128 times the sum of the other side taken off again. */
#include <immintrin.h>

#define INT8_ISA "avx512_vnni"
enum { TILE = 4 };

static inline __m512i load_codes(const int8_t *p, size_t i, size_t n)
{
    size_t left = n - i;
    __mmask64 mask = left >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    return _mm512_maskz_loadu_epi8(mask, p + i);
}

static inline int32_t dot_int8(const int8_t *w, const int8_t *x, size_t n)
{
    const __m512i shift = _mm512_set1_epi8((char)0x80);
    __m512i sum = _mm512_setzero_si512(), offset = sum, sum2 = sum, offset2 = sum;
    size_t i = 0;
    for (; i + 128 <= n; i += 128) {
        __m512i a = _mm512_loadu_si512(w + i), a2 = _mm512_loadu_si512(w + i + 64);
        __m512i b = _mm512_loadu_si512(x + i), b2 = _mm512_loadu_si512(x + i + 64);
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(b, shift), a);
        offset = _mm512_dpbusd_epi32(offset, shift, a);
        sum2 = _mm512_dpbusd_epi32(sum2, _mm512_xor_si512(b2, shift), a2);
        offset2 = _mm512_dpbusd_epi32(offset2, shift, a2);
    }
    for (; i < n; i += 64) {
        __m512i a = load_codes(w, i, n), b = load_codes(x, i, n);
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(b, shift), a);
        offset = _mm512_dpbusd_epi32(offset, shift, a);
    }
    return _mm512_reduce_add_epi32(
        _mm512_sub_epi32(_mm512_add_epi32(sum, sum2), _mm512_add_epi32(offset, offset2)));
}

static inline void dots(const int8_t *const *a, const int8_t *const *b, size_t n,
                        int32_t out[TILE][TILE])
{
    const __m512i shift = _mm512_set1_epi8((char)0x80);
    __m512i sum[TILE][TILE], offset[TILE];
    for (int k = 0; k < TILE; k++) {
        offset[k] = _mm512_setzero_si512();
        for (int j = 0; j < TILE; j++) sum[k][j] = _mm512_setzero_si512();
    }
    for (size_t i = 0; i < n; i += 64) {
        __m512i x[TILE];
#pragma GCC unroll 4
        for (int j = 0; j < TILE; j++) x[j] = _mm512_xor_si512(load_codes(b[j], i, n), shift);
#pragma GCC unroll 4
        for (int k = 0; k < TILE; k++) {
            __m512i v = load_codes(a[k], i, n);
            offset[k] = _mm512_dpbusd_epi32(offset[k], shift, v);
#pragma GCC unroll 4
            for (int j = 0; j < TILE; j++) sum[k][j] = _mm512_dpbusd_epi32(sum[k][j], x[j], v);
        }
    }
    for (int k = 0; k < TILE; k++)
        for (int j = 0; j < TILE; j++)
            out[k][j] = _mm512_reduce_add_epi32(_mm512_sub_epi32(sum[k][j], offset[k]));
}

#include "backend/cpu/int8_blocked.h"
