#include "quant/format.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "quant/blockwise.h"
#include "quant/dynamic_map.h"
#include "quant/float.h"

#include <string.h>

#define FOUR_BIT(name_, code_, double_quant_)                                                      \
    {                                                                                              \
        .name = name_, .bits = 4, .blockwise = true, .double_quant = double_quant_,                \
        .code = bg_##code_##_code, .encode = bg_##code_##_encode, .decode = bg_blockwise_decode    \
    }

const bg_format bg_formats[BG_FORMAT_COUNT] = {
    [BG_FORMAT_F32] = {"fp32", 32, .encode = bg_f32_encode, .decode = bg_f32_decode},
    [BG_FORMAT_F16] = {"fp16", 16, .encode = bg_f16_encode, .decode = bg_f16_decode},
    [BG_FORMAT_BF16] = {"bf16", 16, .encode = bg_bf16_encode, .decode = bg_bf16_decode},
    [BG_FORMAT_INT8] = {"int8", 8, .encode = bg_int8_encode, .decode = bg_int8_decode,
                        .outlier_threshold = 6},
    [BG_FORMAT_NF4] = FOUR_BIT("nf4", nf4, false),
    [BG_FORMAT_NF4_DQ] = FOUR_BIT("nf4-dq", nf4, true),
    [BG_FORMAT_FP4] = FOUR_BIT("fp4", fp4, false),
    [BG_FORMAT_FP4_DQ] = FOUR_BIT("fp4-dq", fp4, true),
    [BG_FORMAT_INT8_PLAIN] = {"int8-plain", 8, .encode = bg_int8_encode, .decode = bg_int8_decode,
                              .outlier_threshold = INFINITY, .on_request = true},
};

const bg_format *bg_format_by_name(const char *name)
{
    for (int i = 0; i < BG_FORMAT_COUNT; i++)
        if (strcmp(bg_formats[i].name, name) == 0) return &bg_formats[i];
    return NULL;
}

bool bg_packed_measure(bg_format_id id, size_t rows, size_t cols, bg_packed_bytes *bytes)
{
    const bg_format *format = &bg_formats[id];
    *bytes = (bg_packed_bytes){0};
    size_t n;
    if (!bg_mul_size(rows, cols, &n) || n > SIZE_MAX / 64) return false;
    bytes->codes = format->blockwise ? (n + 1) / 2 : n * (size_t)(format->bits / 8);
    if (format->blockwise) {
        size_t blocks = (n + BG_BLOCK - 1) / BG_BLOCK;
        if (format->double_quant) {
            bytes->scale_codes = blocks;
            bytes->scale_absmax = (blocks + BG_SCALE_BLOCK - 1) / BG_SCALE_BLOCK * sizeof(float);
        } else {
            bytes->scales = blocks * sizeof(float);
        }
    } else if (bg_format_is_int8(id)) {
        bytes->scales = rows * sizeof(float);
    }
    bytes->total = bytes->codes + bytes->scales + bytes->scale_codes + bytes->scale_absmax +
                   (format->double_quant ? sizeof(float) : 0);
    return true;
}

/* Bytes allocated for scales: of a double-quantized matrix only while it is encoded. */
static size_t plain_scale_bytes(const bg_packed *matrix, const bg_packed_bytes *bytes)
{
    return bg_formats[matrix->format].double_quant ? bg_packed_blocks(matrix) * sizeof(float)
                                                   : bytes->scales;
}

bg_status bg_packed_alloc(bg_format_id format, size_t rows, size_t cols, bg_packed *out,
                          bg_error *err)
{
    *out = (bg_packed){.format = format, .rows = rows, .cols = cols};
    bg_packed_bytes bytes;
    if (!bg_packed_measure(format, rows, cols, &bytes))
        return bg_fail(err, BG_ERR_MEMORY, "a matrix of %zu by %zu is too large for this machine",
                       rows, cols);
    size_t scales = plain_scale_bytes(out, &bytes);
    out->codes = bg_alloc_aligned(bytes.codes);
    if (bg_formats[format].double_quant) out->scale_map = bg_dynamic_map();
    bool ok = out->codes != NULL;
    if (ok && scales) ok = (out->scales = bg_alloc_aligned(scales)) != NULL;
    if (ok && bytes.scale_codes) {
        ok = (out->scale_codes = bg_alloc_aligned(bytes.scale_codes)) != NULL &&
             (out->scale_absmax = bg_alloc_aligned(bytes.scale_absmax)) != NULL;
    }
    if (ok) return BG_OK;
    bg_packed_free(out);
    return bg_fail_memory(err, bytes.total, "a weight matrix");
}

void bg_packed_free(bg_packed *matrix)
{
    bg_packed_bytes bytes;
    if (!bg_packed_measure(matrix->format, matrix->rows, matrix->cols, &bytes)) return;
    bg_free_aligned(matrix->codes, bytes.codes);
    bg_free_aligned(matrix->scales, plain_scale_bytes(matrix, &bytes));
    bg_free_aligned(matrix->scale_codes, bytes.scale_codes);
    bg_free_aligned(matrix->scale_absmax, bytes.scale_absmax);
    *matrix = (bg_packed){0};
}
