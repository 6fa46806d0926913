/* Functions of vectors that are the same text for every instruction set: included once by each
 * kernels_<isa>.c, whose compiler options turn the loops into that set's vectors. No branches in
 * the loops, so that they vectorize. Before it is included there must be
 *     static void round_half(const float *in, float *out, size_t n);
 * to binary16 and back, each instruction set's own. Accuracy: exp within 2 units in the last place,
 * erf within 1.5e-7. */
#ifndef BG_BACKEND_CPU_ELEMENTWISE_H
#define BG_BACKEND_CPU_ELEMENTWISE_H

#include "backend/cpu/kernels.h"
#include "quant/half.h"

#include <math.h>
#include <stddef.h>

/* exp(x) = 2^n exp(r), |r| <= ln(2)/2, exp(r) by its Taylor polynomial of degree 7. */
static inline float fast_exp(float x)
{
    x = x < -87.0f ? -87.0f : x; /* not fmaxf, which is a call: comparisons become vectors */
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * bg_float_from_bits((uint32_t)((int)n + 127) << 23);
}

static inline float fast_tanh(float x)
{
    return 1.0f - 2.0f / (fast_exp(2.0f * x) + 1.0f);
}

/* Abramowitz and Stegun, 7.1.26. */
static inline float fast_erf(float x)
{
    float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    return copysignf(1.0f - p * t * fast_exp(-a * a), x);
}

static void activation_none(float *x, size_t n)
{
    (void)x;
    (void)n;
}

static void activation_relu(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] = x[i] > 0 ? x[i] : 0;
}

static void activation_gelu(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] = 0.5f * x[i] * (1.0f + fast_erf(x[i] * 0.70710678f));
}

static void activation_gelu_tanh(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        x[i] = 0.5f * v * (1.0f + fast_tanh(0.79788456f * (v + 0.044715f * v * v * v)));
    }
}

/* In a 16-bit model, transformers' "gelu_new" is eight operations, and each rounds its result:
 * 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
static void gelu_tanh_half(float *x, size_t n)
{
    enum { CHUNK = 256 };
    float t[CHUNK];
    for (size_t start = 0; start < n; start += CHUNK) {
        float *v = x + start;
        size_t count = n - start < CHUNK ? n - start : CHUNK;
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] = v[i] * v[i];
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] *= v[i];
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] *= 0.044715f;
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] += v[i];
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] *= 0.7978845608f;
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) t[i] = fast_tanh(t[i]);
        round_half(t, t, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            t[i] += 1.0f;
            v[i] *= 0.5f;
        }
        round_half(t, t, count);
        round_half(v, v, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) v[i] *= t[i];
        round_half(v, v, count);
    }
}

static void activation_tanh(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] = fast_tanh(x[i]);
}

static void activation_silu(float *x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] = x[i] / (1.0f + fast_exp(-x[i]));
}

/* Sums in double precision: norms come out alike on every instruction set. In a 16-bit model the
 * scale is one unit in the last place below the rounded one. That choice is fitted: the GPU's
 * reciprocal square root (on an H200) is off by a unit in either direction, for a sixth of the rows
 * down and a tenth up, and which it is decides, now and then, the code that LLM.int8() gives an
 * activation. Of the four prompts whose logits are recorded, three come out the same either way;
 * one is 0.001 from the record (root mean square) with this choice and 0.033 without it. */
static void layer_norm(const float *in, const float *weight, const float *bias, float eps,
                       bool half, float *out, size_t n)
{
    double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += (double)in[i];
    float mean = (float)(sum / (double)n);
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < n; i++) {
        double d = (double)in[i] - (double)mean;
        squares += d * d;
    }
    float variance = (float)(squares / (double)n) + eps,
          scale = (float)(1 / sqrt((double)variance));
    if (half) scale = nextafterf(scale, 0);
    if (bias) {
#pragma omp simd
        for (size_t i = 0; i < n; i++) out[i] = fmaf((in[i] - mean) * scale, weight[i], bias[i]);
    } else {
#pragma omp simd
        for (size_t i = 0; i < n; i++) out[i] = (in[i] - mean) * scale * weight[i];
    }
    if (half) round_half(out, out, n);
}

/* In a 16-bit model what is normed is rounded before it is multiplied, but not where the weights
 * are offsets from 1: those are Gemma's, which multiplies in fp32. */
static void rms_norm(const float *in, const float *weight, float eps, bool offset, bool half,
                     float *out, size_t n)
{
    double squares = 0;
#pragma omp simd reduction(+ : squares)
    for (size_t i = 0; i < n; i++) squares += (double)in[i] * (double)in[i];
    float mean = (float)(squares / (double)n) + eps, scale = (float)(1 / sqrt((double)mean));
    const float one = offset ? 1.0f : 0.0f;
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] = in[i] * scale;
    if (half && !offset) round_half(out, out, n);
#pragma omp simd
    for (size_t i = 0; i < n; i++) out[i] *= weight[i] + one;
    if (half) round_half(out, out, n);
}

/* transformers' apply_rotary_pos_emb: x cos + rotate_half(x) sin, in a 16-bit model rounded at each
 * of the three operations. */
static void rotate(float *x, const float *cosines, const float *sines, bool half, size_t n)
{
    enum { CHUNK = 64 };
    float a[CHUNK], b[CHUNK], c[CHUNK], d[CHUNK];
    for (size_t start = 0; start < n; start += CHUNK) {
        size_t count = n - start < CHUNK ? n - start : CHUNK;
        float *u = x + start, *v = x + n + start;
        const float *cosine = cosines + start, *sine = sines + start;
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            a[i] = u[i] * cosine[i];
            b[i] = -v[i] * sine[i];
            c[i] = v[i] * cosine[i];
            d[i] = u[i] * sine[i];
        }
        if (half) {
            round_half(a, a, count);
            round_half(b, b, count);
            round_half(c, c, count);
            round_half(d, d, count);
        }
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            u[i] = a[i] + b[i];
            v[i] = c[i] + d[i];
        }
        if (half) {
            round_half(u, u, count);
            round_half(v, v, count);
        }
    }
}

static void multiply(const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] *= x[i];
}

/* Sixteen maxima side by side: compilers make vectors of them without being told that there is no
 * NaN. */
static float largest(const float *x, size_t n)
{
    enum { LANES = 16 };
    float max[LANES], most = -INFINITY;
    for (size_t k = 0; k < LANES; k++) max[k] = -INFINITY;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t k = 0; k < LANES; k++) max[k] = x[i + k] > max[k] ? x[i + k] : max[k];
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    for (size_t k = 0; k < LANES; k++) most = max[k] > most ? max[k] : most;
    return most;
}

static void softmax(float *x, size_t n)
{
    float max = largest(x, n), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        x[i] = fast_exp(x[i] - max);
        sum += x[i];
    }
    float scale = 1.0f / sum;
#pragma omp simd
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

/* Flash attention's softmax in a 16-bit model: the weights are rounded before the product with the
 * values, but their sum, which divides it, is not made of rounded ones. */
static float exp_half(float *x, size_t n)
{
    float max = largest(x, n), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        x[i] = fast_exp(x[i] - max);
        sum += x[i];
    }
    round_half(x, x, n);
    return sum;
}

/* The sum runs over a vocabulary: in pieces, so that 50,000 small terms do not drown in one float.
 */
static double log_sum_exp(const float *x, size_t n)
{
    float max = largest(x, n);
    double total = 0;
    for (size_t start = 0; start < n; start += 512) {
        size_t end = start + 512 < n ? start + 512 : n;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = start; i < end; i++) sum += fast_exp(x[i] - max);
        total += (double)sum;
    }
    return (double)max + log(total);
}

static float dot(const float *x, const float *y, size_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static float dot_exact(const float *x, const float *y, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    return (float)sum;
}

static void axpy(float a, const float *x, float *y, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* bitsandbytes' dequantization, with its own constant for 1 / 127^2. */
static void finish_int8(float *y, const float *bias, size_t n)
{
    const float scale = 6.200012e-05f;
    if (bias) {
#pragma omp simd
        for (size_t i = 0; i < n; i++) y[i] = fmaf(y[i], scale, bias[i]);
    } else {
#pragma omp simd
        for (size_t i = 0; i < n; i++) y[i] *= scale;
    }
}

static void quantize_row(const float *values, size_t n, float threshold, const uint8_t *is_outlier,
                         int8_t *codes, float *absmax)
{
    enum { CHUNK = 256 };
    float max = 0, rounded[CHUNK];
    for (size_t start = 0; start < n; start += CHUNK) {
        size_t count = n - start < CHUNK ? n - start : CHUNK;
        round_half(values + start, rounded, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            float a = fabsf(rounded[i]);
            rounded[i] = a < threshold ? a : 0;
        }
        float most = largest(rounded, count);
        max = most > max ? most : max;
    }
    float factor = bg_int8_factor(max);
    for (size_t start = 0; start < n; start += CHUNK) {
        size_t count = n - start < CHUNK ? n - start : CHUNK;
        round_half(values + start, rounded, count);
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            float v = rounded[i];
            v = fabsf(v) < threshold ? v : 0;
            codes[start + i] = (int8_t)(is_outlier[start + i] ? 0 : (int)rintf(v * factor));
        }
    }
    *absmax = max;
}

static void mark_outliers(const float *values, size_t n, float threshold, uint8_t *is_outlier)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) is_outlier[i] |= fabsf(values[i]) >= threshold;
}

/* The rows of a kernel table that these functions fill. */
#define ELEMENTWISE_KERNELS                                                                        \
    .dot = dot, .dot_exact = dot_exact, .axpy = axpy, .layer_norm = layer_norm,                    \
    .rms_norm = rms_norm, .rotate = rotate, .multiply = multiply, .softmax = softmax,              \
    .log_sum_exp = log_sum_exp, .quantize_row = quantize_row, .mark_outliers = mark_outliers,      \
    .finish_int8 = finish_int8, .round_half = round_half, .exp_half = exp_half,                    \
    .gelu_tanh_half = gelu_tanh_half,                                                              \
    .activation = {[BG_ACTIVATION_NONE] = activation_none,                                         \
                   [BG_ACTIVATION_RELU] = activation_relu,                                         \
                   [BG_ACTIVATION_GELU] = activation_gelu,                                         \
                   [BG_ACTIVATION_GELU_TANH] = activation_gelu_tanh,                               \
                   [BG_ACTIVATION_GELU_NEW] = activation_gelu_tanh,                                \
                   [BG_ACTIVATION_SILU] = activation_silu,                                         \
                   [BG_ACTIVATION_TANH] = activation_tanh}

/* Formats that need no decoder of their own: rows are decoded by the format's scalar one. */
static void decode_reference(const bg_packed *w, float *values, size_t begin, size_t end)
{
    bg_formats[w->format].decode(w, values, begin * w->cols, (end - begin) * w->cols);
}

/* The rows of a kernel table that the formats fill, from functions of the usual names. */
#define FORMAT_KERNELS(isa, int8_isa)                                                              \
    .format =                                                                                      \
        {                                                                                          \
            [BG_FORMAT_F32] = {"matvec_fp32_" isa, matvec_f32, decode_f32},                        \
            [BG_FORMAT_F16] = {"matvec_fp16_" isa, matvec_f16, decode_f16},                        \
            [BG_FORMAT_BF16] = {"matvec_bf16_" isa, matvec_bf16, decode_bf16},                     \
            [BG_FORMAT_INT8] = {"matvec_int8_" int8_isa, matvec_int8, decode_reference},           \
            [BG_FORMAT_NF4] = {"matvec_4bit_" isa, matvec_4bit, decode_4bit},                      \
            [BG_FORMAT_NF4_DQ] = {"matvec_4bit_" isa, matvec_4bit, decode_4bit},                   \
            [BG_FORMAT_FP4] = {"matvec_4bit_" isa, matvec_4bit, decode_4bit},                      \
            [BG_FORMAT_FP4_DQ] = {"matvec_4bit_" isa, matvec_4bit, decode_4bit},                   \
            [BG_FORMAT_INT8_PLAIN] = {"matvec_int8_" int8_isa, matvec_int8, decode_reference},     \
    },                                                                                             \
    .matmul_int8 = matmul_int8, .matmul_int8_name = "matmul_int8_" int8_isa

#endif
