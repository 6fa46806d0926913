/* The inner loops, once for each instruction set. A bg_cpu_kernels is a table of them; the scalar
 * table is the reference that the others are tested against. */
#ifndef BG_BACKEND_CPU_KERNELS_H
#define BG_BACKEND_CPU_KERNELS_H

#include "backend/backend.h"
#include "quant/format.h"

/* One row of activations as the matrix-vector kernels want it. */
typedef struct {
    const float *values; /* (cols) */
    /* The same, in groups of 2 * pair_lanes: first the values at even places, then those at odd
     * ones, so that the high and low nibbles of packed bytes meet them without a shuffle. Filled
     * for blockwise formats whose cols is a multiple of 64. */
    const float *paired;
    /* int8: codes (cols), zero where the column is an outlier, and their absmax. */
    const int8_t *codes;
    float absmax;
} bg_cpu_input;

/* y[r - begin] = sum over c of W[r][c] x[c] for r in [begin, end). */
typedef void (*bg_matvec)(const bg_packed *w, const bg_cpu_input *x, float *y, size_t begin,
                          size_t end);

typedef struct {
    const char *isa;
    bool (*supported)(void);
    size_t pair_lanes; /* floats in a vector register */

    struct {
        const char *name; /* "matvec_nf4_avx512" */
        bg_matvec matvec; /* blockwise: cols must be a multiple of 64 */
        /* Rows [begin, end) as floats. */
        void (*decode)(const bg_packed *w, float *values, size_t begin, size_t end);
    } format[BG_FORMAT_COUNT];

    /* LLM.int8() for several rows of activations: y[m * stride + r - begin] is the product of row
     * m of `codes` (n_rows, cols) with row r of w, times both absmax. matvec gives the same for one
     * row. finish_int8 does the rest. */
    void (*matmul_int8)(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        float *y, size_t stride, size_t begin, size_t end);
    const char *matmul_int8_name;

    /* Quantizes one row of activations for LLM.int8(): values are rounded to binary16; an entry of
     * magnitude `threshold` or more is left out of the absmax, and coded 0 as is every entry of a
     * column marked in `is_outlier`. The same codes on every instruction set. */
    void (*quantize_row)(const float *values, size_t n, float threshold, const uint8_t *is_outlier,
                         int8_t *codes, float *absmax);
    /* Marks the columns in which a row has an entry of that magnitude. */
    void (*mark_outliers)(const float *values, size_t n, float threshold, uint8_t *is_outlier);

    /* y[i] = y[i] / 127^2 + bias[i], rounded once; bias may be NULL. */
    void (*finish_int8)(float *y, const float *bias, size_t n);

    /* out[i] = in[i] rounded to binary16; out may be in. */
    void (*round_half)(const float *in, float *out, size_t n);
    /* y[i] *= x[i] */
    void (*multiply)(const float *x, float *y, size_t n);
    /* gelu_tanh of values in binary16, each step rounded to it: PyTorch's "gelu_new". */
    void (*gelu_tanh_half)(float *x, size_t n);

    /* Sum of x[i] y[i]. */
    float (*dot)(const float *x, const float *y, size_t n);
    /* The same, summed in double precision and rounded once. */
    float (*dot_exact)(const float *x, const float *y, size_t n);
    /* y[i] += a x[i]. */
    void (*axpy)(float a, const float *x, float *y, size_t n);
    /* x[i] = f(x[i]) */
    void (*activation[BG_ACTIVATION_COUNT])(float *x, size_t n);
    /* bias may be NULL; `out` may be `in`. `half`: as in a 16-bit model, and rounded to binary16.
     */
    void (*layer_norm)(const float *in, const float *weight, const float *bias, float eps,
                       bool half, float *out, size_t n);
    /* `offset`: weights are 1 + weight, and in a 16-bit model nothing is rounded before the end. */
    void (*rms_norm)(const float *in, const float *weight, float eps, bool offset, bool half,
                     float *out, size_t n);
    /* Turns the pairs (x[i], x[i + n]), i < n, by angles of the given cosines and sines. */
    void (*rotate)(float *x, const float *cosines, const float *sines, bool half, size_t n);
    /* x = softmax(x) in place. */
    void (*softmax)(float *x, size_t n);
    /* x = exp(x - max) rounded to binary16; returns the sum of what was not yet rounded. */
    float (*exp_half)(float *x, size_t n);
    /* log of the sum of exp(x[i]). */
    double (*log_sum_exp)(const float *x, size_t n);
} bg_cpu_kernels;

/* Tables that this build has, best last; ends with NULL. */
extern const bg_cpu_kernels *const bg_cpu_kernel_tables[];

/* The best table that this processor supports; BITGAUGE_ISA in the environment names another. */
bg_status bg_cpu_kernels_choose(const bg_cpu_kernels **out, bg_error *err);

extern const bg_cpu_kernels bg_cpu_scalar;
extern const bg_cpu_kernels bg_cpu_avx2, bg_cpu_avx512, bg_cpu_avx512_vnni;
extern const bg_cpu_kernels bg_cpu_neon;

#endif
