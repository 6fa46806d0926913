/* Which 4-bit code a value scaled to [-1, 1] gets: the borders of src/quant/nf4.c and fp4.c, which
 * tests/backend/test_cuda.c holds equal, value by value. */
#ifndef BG_BACKEND_CUDA_CODES_CUH
#define BG_BACKEND_CUDA_CODES_CUH

#include <stdint.h>

static __constant__ float nf4_borders[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f,
};

static __device__ uint8_t nf4_nibble(float x)
{
    uint8_t code = 0;
    for (int i = 0; i < 15; i++) code += x > nf4_borders[i];
    return code;
}

static __constant__ float fp4_borders[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                            0.4166667f,  0.583333f,  0.8333333f};
static __constant__ uint8_t fp4_codes[8] = {0, 1, 6, 7, 4, 5, 2, 3};

static __device__ uint8_t fp4_nibble(float x)
{
    float magnitude = fabsf(x);
    int step = 0;
    for (int i = 0; i < 7; i++) step += magnitude > fp4_borders[i];
    return x < 0 ? fp4_codes[step] | 8 : fp4_codes[step];
}

#endif
