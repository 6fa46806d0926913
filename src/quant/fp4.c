/* 4-bit floating point as bitsandbytes has it: a sign, and eight magnitudes of an e2m1 format with
 * a bias of 3, divided by the largest (12) so that they end at 1. Bits: sign, two of exponent, one
 * of mantissa. */
#include "quant/blockwise.h"

#include <math.h>

const float bg_fp4_code[16] = {
    0.0f,
    0.0052083334885537624f,
    0.6666666865348816f,
    1.0f,
    0.3333333432674408f,
    0.5f,
    0.1666666716337204f,
    0.25f,
    -0.0f,
    -0.0052083334885537624f,
    -0.6666666865348816f,
    -1.0f,
    -0.3333333432674408f,
    -0.5f,
    -0.1666666716337204f,
    -0.25f,
};

/* The magnitudes in ascending order: above which |x| each begins, and its code. The borders are
 * bitsandbytes' own decimals, which for three of them are not quite the middle. */
static const struct {
    float above;
    uint8_t code;
} steps[8] = {
    {-1.0f, 0},       {0.00260417f, 1}, {0.0859375f, 6}, {0.20833333f, 7},
    {0.29166667f, 4}, {0.4166667f, 5},  {0.583333f, 2},  {0.8333333f, 3},
};

static uint8_t nibble(float x)
{
    float magnitude = fabsf(x);
    uint8_t code = 0;
    for (int i = 1; i < 8; i++)
        if (magnitude > steps[i].above) code = steps[i].code;
    return x < 0 ? code | 8 : code;
}

void bg_fp4_encode(bg_packed *matrix, const float *values, size_t first, size_t n)
{
    bg_blockwise_encode(matrix, values, first, n, nibble);
}
