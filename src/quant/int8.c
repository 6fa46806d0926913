/* LLM.int8() weights (Dettmers et al. 2022, arXiv:2208.07339): each row scaled by its absmax to
 * codes from -127 to 127, bit-exact with bitsandbytes on an NVIDIA GPU. */
#include "quant/float.h"
#include "quant/format.h"
#include "quant/half.h"
#include "quant/reciprocal.h"

#include <math.h>

float bg_int8_factor(float absmax)
{
    return absmax > 0 ? 127 * bg_gpu_reciprocal(absmax) : 0;
}

/* Weights are rounded to binary16 first, as bitsandbytes does whatever their type. */
static float as_half(float x)
{
    return bg_f16_to_f32(bg_f32_to_f16(fminf(fmaxf(x, -65504.0f), 65504.0f)));
}

void bg_int8_encode(bg_packed *matrix, const float *values, size_t first, size_t n)
{
    size_t cols = matrix->cols;
    for (size_t row = first / cols; row < (first + n) / cols; row++, values += cols) {
        int8_t *codes = (int8_t *)matrix->codes + row * cols;
        float absmax = 0;
        for (size_t c = 0; c < cols; c++) absmax = fmaxf(absmax, fabsf(as_half(values[c])));
        float factor = bg_int8_factor(absmax);
        for (size_t c = 0; c < cols; c++) codes[c] = (int8_t)lrintf(as_half(values[c]) * factor);
        matrix->scales[row] = absmax;
    }
}

void bg_int8_decode(const bg_packed *matrix, float *values, size_t first, size_t n)
{
    const int8_t *codes = matrix->codes;
    for (size_t i = 0; i < n; i++)
        values[i] = (float)codes[first + i] * (matrix->scales[(first + i) / matrix->cols] / 127);
}
