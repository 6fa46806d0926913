/* Rounding to binary16 and back with F16C, for the instruction sets of x86. */
#ifndef BG_BACKEND_CPU_ROUND_F16C_H
#define BG_BACKEND_CPU_ROUND_F16C_H

#include "quant/half.h"

#include <immintrin.h>
#include <stddef.h>

static void round_half(const float *in, float *out, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(in + i), 0)));
    for (; i < n; i++) out[i] = bg_f16_to_f32(bg_f32_to_f16(in[i]));
}

#endif
