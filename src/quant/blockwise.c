#include "quant/blockwise.h"

#include "core/checked.h"
#include "quant/reciprocal.h"

#include <math.h>

void bg_blockwise_encode(bg_packed *matrix, const float *values, size_t first, size_t n,
                         bg_nibble_encoder nibble)
{
    uint8_t *codes = matrix->codes;
    for (size_t start = 0; start < n; start += BG_BLOCK) {
        const float *x = values + start;
        size_t count = bg_min_size(BG_BLOCK, n - start);
        float absmax = 0;
        for (size_t i = 0; i < count; i++) absmax = fmaxf(absmax, fabsf(x[i]));
        matrix->scales[(first + start) / BG_BLOCK] = absmax;
        /* One division, then products: bitsandbytes does so, and values on the border between two
         * codes come out alike. In a block of zeros every product is NaN. */
        float inverse = bg_gpu_reciprocal(absmax);
        uint8_t *out = codes + (first + start) / 2;
        for (size_t i = 0; i < count; i += 2) {
            uint8_t high = nibble(x[i] * inverse);
            uint8_t low = i + 1 < count ? nibble(x[i + 1] * inverse) : 0;
            out[i / 2] = (uint8_t)(high << 4 | low);
        }
    }
}

void bg_blockwise_decode(const bg_packed *matrix, float *values, size_t first, size_t n)
{
    const uint8_t *codes = matrix->codes;
    const float *code = bg_formats[matrix->format].code;
    size_t block = SIZE_MAX;
    float scale = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = first + i;
        if (at / BG_BLOCK != block) {
            block = at / BG_BLOCK;
            scale = bg_block_scale(matrix, block);
        }
        uint8_t pair = codes[at / 2];
        values[i] = code[at % 2 ? pair & 15 : pair >> 4] * scale;
    }
}
