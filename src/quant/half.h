/* 16-bit floating point: IEEE 754 binary16 and bfloat16, to and from binary32. Conversions to 16
 * bits round to nearest, ties to even, as the hardware's and PyTorch's do. */
#ifndef BG_QUANT_HALF_H
#define BG_QUANT_HALF_H

#include <stdint.h>
#include <string.h>

static inline float bg_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bg_bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bg_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7FFF;
    if (rest >= 0x7C00) return bg_float_from_bits(sign | 0x7F800000 | (rest & 0x3FF) << 13);
    /* Shifted into place, the exponent is too small by 127 - 15; multiplying by 2^112 mends it and
     * normalises subnormals on the way. */
    float magnitude = bg_float_from_bits(rest << 13) * 0x1p112f;
    return bg_float_from_bits(sign | bg_bits_from_float(magnitude));
}

static inline uint16_t bg_f32_to_f16(float value)
{
    uint32_t bits = bg_bits_from_float(value), magnitude = bits & 0x7FFFFFFF;
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
    if (magnitude > 0x7F800000) return sign | 0x7E00;  /* not a number */
    if (magnitude >= 0x477FF000) return sign | 0x7C00; /* rounds to 65536 or more: infinity */
    if (magnitude < 0x38800000) {
        /* Subnormal: adding 0.5 puts the last bit that fits at the end of the mantissa, and the
         * addition rounds as wanted. */
        float shifted = bg_float_from_bits(magnitude) + 0.5f;
        return sign | (uint16_t)(bg_bits_from_float(shifted) - 0x3F000000);
    }
    uint32_t rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
    return sign | (uint16_t)((rounded >> 13) - (112 << 10));
}

static inline float bg_bf16_to_f32(uint16_t half)
{
    return bg_float_from_bits((uint32_t)half << 16);
}

static inline uint16_t bg_f32_to_bf16(float value)
{
    uint32_t bits = bg_bits_from_float(value);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16) | 0x40;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

#endif
