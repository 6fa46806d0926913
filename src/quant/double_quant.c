/* Double quantization (QLoRA, arXiv:2305.14314, section 3): the scales of the 4-bit blocks, less
 * their mean, are themselves quantized to 8 bits in blocks of 256, with the dynamic data type. */
#include "core/alloc.h"
#include "core/checked.h"
#include "quant/dynamic_map.h"
#include "quant/format.h"

#include <math.h>

/* The index of the nearest value of the map. */
static uint8_t nearest(const float *values, float x)
{
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (x >= values[middle])
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(x - values[low] <= values[high] - x ? low : high);
}

void bg_packed_finish(bg_packed *matrix)
{
    if (!bg_formats[matrix->format].double_quant) return;
    const float *values = bg_dynamic_map();
    size_t blocks = bg_packed_blocks(matrix);
    double sum = 0;
    for (size_t i = 0; i < blocks; i++) sum += matrix->scales[i];
    /* As PyTorch takes a mean on a GPU: a product with the reciprocal of the count. */
    float offset = blocks ? (float)sum * (1.0f / (float)blocks) : 0;
    for (size_t start = 0; start < blocks; start += BG_SCALE_BLOCK) {
        size_t end = bg_min_size(start + BG_SCALE_BLOCK, blocks);
        float absmax = 0;
        for (size_t i = start; i < end; i++)
            absmax = fmaxf(absmax, fabsf(matrix->scales[i] - offset));
        matrix->scale_absmax[start / BG_SCALE_BLOCK] = absmax;
        float inverse = absmax > 0 ? 1.0f / absmax : 0;
        for (size_t i = start; i < end; i++)
            matrix->scale_codes[i] = nearest(values, (matrix->scales[i] - offset) * inverse);
    }
    matrix->scale_offset = offset;
    bg_free_aligned(matrix->scales, blocks * sizeof(float));
    matrix->scales = NULL;
}
