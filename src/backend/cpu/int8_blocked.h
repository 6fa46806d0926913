/* The loops around an integer dot product, for every instruction set that has one: included after
 *     static inline void dots(const int8_t *const *a, const int8_t *const *b, size_t n,
 *                             int32_t out[TILE][TILE]);
 * which computes TILE x TILE dot products of n codes, so that each register loaded serves TILE
 * products, and dot_int8, one of them. */
#ifndef BG_BACKEND_CPU_INT8_BLOCKED_H
#define BG_BACKEND_CPU_INT8_BLOCKED_H

#include "backend/cpu/elementwise.h"
#include "backend/cpu/kernels.h"
#include "core/checked.h"

static void matvec_int8(const bg_packed *w, const bg_cpu_input *x, float *y, size_t begin,
                        size_t end)
{
    const int8_t *codes = w->codes;
    for (size_t r = begin; r < end; r++)
        y[r - begin] =
            (float)dot_int8(codes + r * w->cols, x->codes, w->cols) * x->absmax * w->scales[r];
}

static void matmul_int8_tiles(const bg_packed *w, const int8_t *codes, const float *absmax,
                              size_t n_rows, float *y, size_t stride, size_t begin, size_t end)
{
    const size_t n = w->cols;
    const int8_t *rows = w->codes;
    for (size_t r = begin; r < end; r += TILE) {
        size_t n_r = bg_min_size(TILE, end - r);
        for (size_t m = 0; m < n_rows; m += TILE) {
            size_t n_m = bg_min_size(TILE, n_rows - m);
            const int8_t *a[TILE], *b[TILE];
            /* A tile at the edge repeats its last row. */
            for (size_t i = 0; i < TILE; i++) {
                a[i] = rows + (r + bg_min_size(i, n_r - 1)) * n;
                b[i] = codes + (m + bg_min_size(i, n_m - 1)) * n;
            }
            int32_t sums[TILE][TILE];
            dots(a, b, n, sums);
            for (size_t j = 0; j < n_m; j++)
                for (size_t i = 0; i < n_r; i++)
                    y[(m + j) * stride + r + i - begin] =
                        (float)sums[i][j] * absmax[m + j] * w->scales[r + i];
        }
    }
}

#endif
