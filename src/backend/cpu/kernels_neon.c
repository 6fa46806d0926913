/* AArch64 with Advanced SIMD: four floats a register. */
#include "backend/cpu/kernels.h"
#include "quant/half.h"

#include <arm_neon.h>

static void round_half(const float *in, float *out, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vcvt_f16_f32(vld1q_f32(in + i))));
    for (; i < n; i++) out[i] = bg_f16_to_f32(bg_f32_to_f16(in[i]));
}

#include "backend/cpu/elementwise.h"

static inline float32x4_t load_f32(const float *p)
{
    return vld1q_f32(p);
}
static inline float one_f32(float v)
{
    return v;
}
static inline float32x4_t load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline float one_f16(uint16_t v)
{
    return bg_f16_to_f32(v);
}
static inline float32x4_t load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
static inline float one_bf16(uint16_t v)
{
    return bg_bf16_to_f32(v);
}

#define MATVEC_FLOAT(type, suffix)                                                                 \
    static void matvec_##suffix(const bg_packed *w, const bg_cpu_input *in, float *y,              \
                                size_t begin, size_t end)                                          \
    {                                                                                              \
        const size_t n = w->cols, whole = n / 8 * 8;                                               \
        const float *x = in->values;                                                               \
        for (size_t r = begin; r < end; r++) {                                                     \
            const type *row = (const type *)w->codes + r * n;                                      \
            float32x4_t a = vdupq_n_f32(0), b = a;                                                 \
            for (size_t i = 0; i < whole; i += 8) {                                                \
                a = vfmaq_f32(a, load_##suffix(row + i), vld1q_f32(x + i));                        \
                b = vfmaq_f32(b, load_##suffix(row + i + 4), vld1q_f32(x + i + 4));                \
            }                                                                                      \
            float sum = vaddvq_f32(vaddq_f32(a, b));                                               \
            for (size_t i = whole; i < n; i++) sum += one_##suffix(row[i]) * x[i];                 \
            y[r - begin] = sum;                                                                    \
        }                                                                                          \
    }                                                                                              \
    static void decode_##suffix(const bg_packed *w, float *values, size_t begin, size_t end)       \
    {                                                                                              \
        const type *p = (const type *)w->codes + begin * w->cols;                                  \
        size_t n = (end - begin) * w->cols, i = 0;                                                 \
        for (; i + 4 <= n; i += 4) vst1q_f32(values + i, load_##suffix(p + i));                    \
        for (; i < n; i++) values[i] = one_##suffix(p[i]);                                         \
    }

MATVEC_FLOAT(float, f32)
MATVEC_FLOAT(uint16_t, f16)
MATVEC_FLOAT(uint16_t, bf16)

/* The sixteen values of a code are the 64 bytes of one table look-up. */
static inline uint8x16x4_t table_of(const bg_packed *w)
{
    const uint8_t *code = (const uint8_t *)bg_formats[w->format].code;
    return (uint8x16x4_t){
        {vld1q_u8(code), vld1q_u8(code + 16), vld1q_u8(code + 32), vld1q_u8(code + 48)}};
}

/* Four codes, one in each 32-bit lane, as values: the index of byte j of value c is 4 c + j. */
static inline float32x4_t look_up(uint8x16x4_t t, uint32x4_t codes)
{
    uint32x4_t index = vaddq_u32(vmulq_n_u32(codes, 0x04040404), vdupq_n_u32(0x03020100));
    return vreinterpretq_f32_u8(vqtbl4q_u8(t, vreinterpretq_u8_u32(index)));
}

/* Eight codes, in four bytes: values at even and at odd places. */
static inline void unpack(const uint8_t *p, uint8x16x4_t t, float32x4_t *even, float32x4_t *odd)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    uint32x4_t bytes = vmovl_u16(vget_low_u16(wide));
    *even = look_up(t, vshrq_n_u32(bytes, 4));
    *odd = look_up(t, vandq_u32(bytes, vdupq_n_u32(15)));
}

static void matvec_4bit(const bg_packed *w, const bg_cpu_input *in, float *y, size_t begin,
                        size_t end)
{
    const uint8x16x4_t t = table_of(w);
    const size_t blocks = w->cols / BG_BLOCK;
    for (size_t r = begin; r < end; r++) {
        const uint8_t *p = (const uint8_t *)w->codes + r * (w->cols / 2);
        const float *x = in->paired;
        float32x4_t sum = vdupq_n_f32(0);
        for (size_t block = r * blocks; block < (r + 1) * blocks; block++) {
            float32x4_t a = vdupq_n_f32(0), b = a, even, odd;
            for (int part = 0; part < 8; part++, p += 4, x += 8) {
                unpack(p, t, &even, &odd);
                a = vfmaq_f32(a, even, vld1q_f32(x));
                b = vfmaq_f32(b, odd, vld1q_f32(x + 4));
            }
            sum = vfmaq_n_f32(sum, vaddq_f32(a, b), bg_block_scale(w, block));
        }
        y[r - begin] = vaddvq_f32(sum);
    }
}

static void decode_4bit(const bg_packed *w, float *values, size_t begin, size_t end)
{
    size_t first = begin * w->cols, n = (end - begin) * w->cols;
    if (first % BG_BLOCK || n % BG_BLOCK) {
        decode_reference(w, values, begin, end);
        return;
    }
    const uint8x16x4_t t = table_of(w);
    const uint8_t *p = (const uint8_t *)w->codes + first / 2;
    for (size_t i = 0; i < n; i += 8, p += 4) {
        float scale = bg_block_scale(w, (first + i) / BG_BLOCK);
        float32x4x2_t both;
        unpack(p, t, &both.val[0], &both.val[1]);
        both.val[0] = vmulq_n_f32(both.val[0], scale);
        both.val[1] = vmulq_n_f32(both.val[1], scale);
        vst2q_f32(values + i, both);
    }
}

enum { TILE = 2 };

static inline int32x4_t products(int32x4_t sum, int8x16_t a, int8x16_t b)
{
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    return vpadalq_s16(sum, vmull_high_s8(a, b));
}

static inline int32_t dot_int8(const int8_t *a, const int8_t *b, size_t n)
{
    int32x4_t sum = vdupq_n_s32(0);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) sum = products(sum, vld1q_s8(a + i), vld1q_s8(b + i));
    int32_t rest = 0;
    for (; i < n; i++) rest += a[i] * b[i];
    return vaddvq_s32(sum) + rest;
}

static inline void dots(const int8_t *const *a, const int8_t *const *b, size_t n,
                        int32_t out[TILE][TILE])
{
    for (int k = 0; k < TILE; k++)
        for (int j = 0; j < TILE; j++) out[k][j] = dot_int8(a[k], b[j], n);
}

#include "backend/cpu/int8_blocked.h"

static void matmul_int8(const bg_packed *w, const int8_t *codes, const float *absmax, size_t n_rows,
                        float *y, size_t stride, size_t begin, size_t end)
{
    matmul_int8_tiles(w, codes, absmax, n_rows, y, stride, begin, end);
}

static bool supported(void)
{
    return true;
}

const bg_cpu_kernels bg_cpu_neon = {
    .isa = "neon",
    .supported = supported,
    .pair_lanes = 4,
    FORMAT_KERNELS("neon", "neon"),
    ELEMENTWISE_KERNELS,
};
