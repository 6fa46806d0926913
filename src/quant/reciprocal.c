#include "quant/reciprocal.h"

#include "quant/half.h"

#include <math.h>

/* The mantissas 1 + i/1024, bit i % 32 of word i / 32, whose reciprocal the hardware gives one unit
 * in the last place above or below the correctly rounded one. Read off a Hopper GPU, all 1024; the
 * result does not depend on the exponent. */
static const uint32_t above[32] = {
    0x00160800, 0x00010000, 0x08000000, 0x00020306, 0x02180400, 0x00000000, 0x00021800, 0x10000006,
    0x00000010, 0x00030500, 0x04000000, 0x00080000, 0x03081804, 0x00800202, 0x00080462, 0x0a040102,
    0x80090380, 0x00180008, 0x00000000, 0x00080000, 0x08000d80, 0x30008018, 0x01100000, 0x00000000,
    0x002e0000, 0x008020a0, 0x00000000, 0x20005500, 0x09000000, 0x00010001, 0x18000100, 0x00000020,
};
static const uint32_t below[32] = {
    0x00004040, 0x40004001, 0x01c02040, 0xc0000000, 0x00000080, 0x00090001, 0x28400000, 0x00000000,
    0x80040000, 0x00000000, 0x20000020, 0x00000000, 0x80020000, 0x28000000, 0x06000000, 0x00000000,
    0x00000000, 0x00004000, 0x00000000, 0x00000040, 0x00000000, 0x00000000, 0x00000000, 0x00008000,
    0x00008000, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x34400000, 0x00000020, 0x01040000,
};

float bg_gpu_reciprocal(float x)
{
    if (!(x > 0) || isinf(x)) return 1.0f / x;
    int exponent;
    float mantissa = 2 * frexpf(x, &exponent); /* in [1, 2) */
    float index = (mantissa - 1) * 1024;
    uint32_t bits = bg_bits_from_float(1 / mantissa);
    if (index == floorf(index)) {
        unsigned i = (unsigned)index;
        bits += above[i / 32] >> i % 32 & 1;
        bits -= below[i / 32] >> i % 32 & 1;
    }
    return ldexpf(bg_float_from_bits(bits), 1 - exponent);
}
