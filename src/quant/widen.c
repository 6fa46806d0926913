#include "quant/widen.h"

#include "quant/half.h"

#define WIDEN(name, type, expression)                                                              \
    static void name(const void *data, size_t first, size_t n, float *out)                         \
    {                                                                                              \
        const char *p = (const char *)data + first * sizeof(type);                                 \
        for (size_t i = 0; i < n; i++) {                                                           \
            type v;                                                                                \
            memcpy(&v, p + i * sizeof v, sizeof v);                                                \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }

WIDEN(widen_f64, double, (float)v)
WIDEN(widen_f32, float, v)
WIDEN(widen_f16, uint16_t, bg_f16_to_f32(v))
WIDEN(widen_bf16, uint16_t, bg_bf16_to_f32(v))

const bg_widen_fn bg_widen[BG_DTYPE_COUNT] = {
    [BG_F64] = widen_f64,
    [BG_F32] = widen_f32,
    [BG_F16] = widen_f16,
    [BG_BF16] = widen_bf16,
};
