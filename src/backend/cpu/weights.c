/* From a checkpoint's bytes to packed weights: in panels of rows, so that no second copy of the
 * matrix is ever there. */
#include "backend/cpu/cpu.h"
#include "core/alloc.h"
#include "core/checked.h"
#include "quant/half.h"

#include <string.h>

/* Element i of an array of some type, wherever it lies, as a float. */
typedef void (*widen_fn)(const uint8_t *data, size_t first, size_t stride, size_t n, float *out);

#define WIDEN(name, type, expression)                                                              \
    static void name(const uint8_t *data, size_t first, size_t stride, size_t n, float *out)       \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            type v;                                                                                \
            memcpy(&v, data + (first + i * stride) * sizeof v, sizeof v);                          \
            out[i] = (expression);                                                                 \
        }                                                                                          \
    }
WIDEN(widen_f64, double, (float)v)
WIDEN(widen_f32, float, v)
WIDEN(widen_f16, uint16_t, bg_f16_to_f32(v))
WIDEN(widen_bf16, uint16_t, bg_bf16_to_f32(v))

static const widen_fn widen[BG_DTYPE_COUNT] = {
    [BG_F64] = widen_f64,
    [BG_F32] = widen_f32,
    [BG_F16] = widen_f16,
    [BG_BF16] = widen_bf16,
};

/* 64 rows start on a multiple of 64 values whatever the row's length: 4-bit blocks need that. */
enum { PANEL = 64 };

typedef struct {
    cpu_backend *cpu;
    const bg_source *source;
    bg_packed *packed;
} pack_loop;

static void pack_panels(void *context, size_t begin, size_t end, int thread)
{
    const pack_loop *a = context;
    const bg_source *s = a->source;
    float *values = a->cpu->own[thread].data;
    for (size_t panel = begin; panel < end; panel++) {
        size_t first = panel * PANEL, n = bg_min_size(PANEL, s->rows - first);
        if (!s->transposed) {
            widen[s->dtype](s->data, first * s->cols, 1, n * s->cols, values);
        } else {
            /* Along the source's rows, which are this weight's columns. */
            float line[PANEL];
            for (size_t c = 0; c < s->cols; c++) {
                widen[s->dtype](s->data, c * s->rows + first, 1, n, line);
                for (size_t r = 0; r < n; r++) values[r * s->cols + c] = line[r];
            }
        }
        bg_formats[a->packed->format].encode(a->packed, values, first * s->cols, n * s->cols);
    }
}

bg_status cpu_weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                            bg_weight **out, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    *out = NULL;
    if (!widen[source->dtype])
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "tensor \"%s\" has type %s, which cannot be a weight; the checkpoint is "
                       "quantized already or damaged",
                       source->name, bg_dtypes[source->dtype].name);
    cpu_weight *weight = bg_calloc(1, sizeof *weight);
    if (!weight) return bg_fail_memory(err, sizeof *weight, source->name);
    bg_status status = bg_packed_alloc(format, source->rows, source->cols, &weight->packed, err);
    if (status == BG_OK) status = cpu_reserve_own(cpu, PANEL * source->cols, err);
    if (status != BG_OK) {
        bg_packed_free(&weight->packed);
        bg_free(weight);
        return bg_error_context(err, "tensor \"%s\"", source->name);
    }
    pack_loop loop = {cpu, source, &weight->packed};
    bg_parallel_for(cpu->threads, (source->rows + PANEL - 1) / PANEL, 1, pack_panels, &loop);
    bg_packed_finish(&weight->packed);

    bg_packed_bytes bytes;
    bg_packed_measure(format, source->rows, source->cols, &bytes);
    weight->base = (bg_weight){format, source->rows, source->cols, bytes.total};
    cpu->allocated += bytes.total;
    *out = &weight->base;
    return BG_OK;
}

void cpu_weight_free(bg_backend *backend, bg_weight *weight)
{
    if (!weight) return;
    ((cpu_backend *)backend)->allocated -= weight->bytes;
    bg_packed_free(&((cpu_weight *)weight)->packed);
    bg_free(weight);
}
