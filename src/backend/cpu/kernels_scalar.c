/* The kernels in plain C, one value at a time: they say what the others compute, and run where no
 * better table fits. */
#include "backend/cpu/kernels.h"
#include "quant/half.h"

static void round_half(const float *in, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = bg_f16_to_f32(bg_f32_to_f16(in[i]));
}

#include "backend/cpu/elementwise.h"

static void matvec_float(const bg_packed *w, const bg_cpu_input *x, float *y, size_t begin,
                         size_t end)
{
    float values[64];
    for (size_t r = begin; r < end; r++) {
        float sum = 0;
        for (size_t c = 0; c < w->cols; c += 64) {
            size_t n = w->cols - c < 64 ? w->cols - c : 64;
            bg_formats[w->format].decode(w, values, r * w->cols + c, n);
            for (size_t i = 0; i < n; i++) sum += values[i] * x->values[c + i];
        }
        y[r - begin] = sum;
    }
}

static int32_t dot_int8(const int8_t *a, const int8_t *b, size_t n)
{
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void matvec_int8(const bg_packed *w, const bg_cpu_input *x, float *y, size_t begin,
                        size_t end)
{
    const int8_t *codes = w->codes;
    for (size_t r = begin; r < end; r++)
        y[r - begin] =
            (float)dot_int8(codes + r * w->cols, x->codes, w->cols) * x->absmax * w->scales[r];
}

static void matmul_int8(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        float *y, size_t stride, size_t begin, size_t end)
{
    const int8_t *rows = w->codes;
    for (size_t r = begin; r < end; r++)
        for (size_t m = 0; m < n_rows; m++) {
            int32_t sum = dot_int8(rows + r * w->cols, codes + m * w->cols, w->cols);
            y[m * stride + r - begin] = (float)sum * absmax[m] * w->scales[r];
        }
}

static bool supported(void)
{
    return true;
}

const bg_cpu_kernels bg_cpu_scalar = {
    .isa = "scalar",
    .supported = supported,
    .pair_lanes = 1,
    .format =
        {
            [BG_FORMAT_F32] = {"matvec_fp32_scalar", matvec_float, decode_reference},
            [BG_FORMAT_F16] = {"matvec_fp16_scalar", matvec_float, decode_reference},
            [BG_FORMAT_BF16] = {"matvec_bf16_scalar", matvec_float, decode_reference},
            [BG_FORMAT_INT8] = {"matvec_int8_scalar", matvec_int8, decode_reference},
            [BG_FORMAT_NF4] = {"matvec_4bit_scalar", matvec_float, decode_reference},
            [BG_FORMAT_NF4_DQ] = {"matvec_4bit_scalar", matvec_float, decode_reference},
            [BG_FORMAT_FP4] = {"matvec_4bit_scalar", matvec_float, decode_reference},
            [BG_FORMAT_FP4_DQ] = {"matvec_4bit_scalar", matvec_float, decode_reference},
            [BG_FORMAT_INT8_PLAIN] = {"matvec_int8_scalar", matvec_int8, decode_reference},
        },
    .matmul_int8 = matmul_int8,
    .matmul_int8_name = "matmul_int8_scalar",
    ELEMENTWISE_KERNELS,
};
