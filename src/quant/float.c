#include "quant/float.h"

#include "quant/half.h"

#include <string.h>

void bg_f32_encode(bg_packed *matrix, const float *values, size_t first, size_t n)
{
    memcpy((float *)matrix->codes + first, values, n * sizeof(float));
}

void bg_f32_decode(const bg_packed *matrix, float *values, size_t first, size_t n)
{
    memcpy(values, (const float *)matrix->codes + first, n * sizeof(float));
}

void bg_f16_encode(bg_packed *matrix, const float *values, size_t first, size_t n)
{
    uint16_t *codes = (uint16_t *)matrix->codes + first;
    for (size_t i = 0; i < n; i++) codes[i] = bg_f32_to_f16(values[i]);
}

void bg_f16_decode(const bg_packed *matrix, float *values, size_t first, size_t n)
{
    const uint16_t *codes = (const uint16_t *)matrix->codes + first;
    for (size_t i = 0; i < n; i++) values[i] = bg_f16_to_f32(codes[i]);
}

void bg_bf16_encode(bg_packed *matrix, const float *values, size_t first, size_t n)
{
    uint16_t *codes = (uint16_t *)matrix->codes + first;
    for (size_t i = 0; i < n; i++) codes[i] = bg_f32_to_bf16(values[i]);
}

void bg_bf16_decode(const bg_packed *matrix, float *values, size_t first, size_t n)
{
    const uint16_t *codes = (const uint16_t *)matrix->codes + first;
    for (size_t i = 0; i < n; i++) values[i] = bg_bf16_to_f32(codes[i]);
}
