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

/* For many rows of activations: the codes of 32 weight rows are laid side by side, four of a row to
 * a lane, so that one register holds four columns of sixteen rows and the sums need no folding. The
 * weights are the unsigned side here, shifted when they are laid out; the activations come as
 * broadcasts from memory. */
enum { WIDE = 32, TALL = 8, DEPTH = 1024, MANY = 256 };

/* Codes [first, first + 4 * groups) of WIDE rows, of which n_r are there. */
static void interleave(const int8_t *rows, size_t cols, size_t n_r, size_t first, size_t groups,
                       uint8_t *out)
{
    for (size_t r = 0; r < WIDE; r++) {
        const int8_t *p = rows + bg_min_size(r, n_r - 1) * cols + first;
        for (size_t g = 0; g < groups; g++) {
            uint32_t four;
            memcpy(&four, p + 4 * g, sizeof four);
            four ^= 0x80808080;
            memcpy(out + (g * WIDE + r) * 4, &four, sizeof four);
        }
    }
}

/* sums (TALL, WIDE) += products of TALL activation rows with the interleaved weights. */
static inline void accumulate(const uint8_t *weights, const int8_t *const x[TALL], size_t groups,
                              int32_t *sums)
{
    __m512i a[TALL], b[TALL];
#pragma GCC unroll 8
    for (int m = 0; m < TALL; m++) {
        a[m] = _mm512_loadu_si512(sums + m * WIDE);
        b[m] = _mm512_loadu_si512(sums + m * WIDE + 16);
    }
    for (size_t g = 0; g < groups; g++) {
        __m512i low = _mm512_loadu_si512(weights + g * WIDE * 4);
        __m512i high = _mm512_loadu_si512(weights + g * WIDE * 4 + 64);
#pragma GCC unroll 8
        for (int m = 0; m < TALL; m++) {
            int32_t four;
            memcpy(&four, x[m] + 4 * g, sizeof four);
            __m512i v = _mm512_set1_epi32(four);
            a[m] = _mm512_dpbusd_epi32(a[m], low, v);
            b[m] = _mm512_dpbusd_epi32(b[m], high, v);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < TALL; m++) {
        _mm512_storeu_si512(sums + m * WIDE, a[m]);
        _mm512_storeu_si512(sums + m * WIDE + 16, b[m]);
    }
}

/* At most MANY rows of activations; `offset` is 128 times the sum of each one's codes. */
static void matmul_wide(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        const int32_t *offset, float *y, size_t stride, size_t begin, size_t end)
{
    const size_t n = w->cols;
    _Alignas(64) uint8_t weights[DEPTH * WIDE];
    _Alignas(64) int32_t sums[MANY * WIDE];
    for (size_t r = begin; r < end; r += WIDE) {
        const size_t n_r = bg_min_size(WIDE, end - r);
        memset(sums, 0, sizeof sums);
        for (size_t first = 0; first < n; first += DEPTH) {
            const size_t groups = bg_min_size(DEPTH, n - first) / 4;
            interleave((const int8_t *)w->codes + r * n, n, n_r, first, groups, weights);
            for (size_t m = 0; m < n_rows; m += TALL) {
                const int8_t *x[TALL];
                for (size_t k = 0; k < TALL; k++)
                    x[k] = codes + bg_min_size(m + k, n_rows - 1) * n + first;
                accumulate(weights, x, groups, sums + m * WIDE);
            }
        }
        for (size_t m = 0; m < n_rows; m++)
            for (size_t i = 0; i < n_r; i++)
                y[m * stride + r + i - begin] =
                    (float)(sums[m * WIDE + i] - offset[m]) * absmax[m] * w->scales[r + i];
    }
}

static void matmul_int8(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        float *y, size_t stride, size_t begin, size_t end)
{
    const size_t n = w->cols;
    /* 255 * 127 * 65536 still fits a sum. */
    if (n_rows < 2 * TALL || n % 4 || n > 65536) {
        matmul_int8_tiles(w, codes, absmax, n_rows, y, stride, begin, end);
        return;
    }
    for (size_t m = 0; m < n_rows; m += MANY) {
        size_t many = bg_min_size(MANY, n_rows - m);
        int32_t offset[MANY];
        for (size_t k = 0; k < many; k++) {
            int32_t sum = 0;
            for (size_t i = 0; i < n; i++) sum += codes[(m + k) * n + i];
            offset[k] = 128 * sum;
        }
        matmul_wide(w, codes + m * n, absmax + m, many, offset, y + m * stride, stride, begin, end);
    }
}
