/* From a checkpoint's bytes to packed weights: in panels of rows, so that no second copy of the
 * matrix is ever there. */
#include "backend/cpu/cpu.h"
#include "core/alloc.h"
#include "core/checked.h"
#include "quant/widen.h"

#include <stdatomic.h>
#include <string.h>

/* 64 rows start on a multiple of 64 values whatever the row's length: 4-bit blocks need that. */
enum { PANEL = 64 };

typedef struct {
    cpu_backend *cpu;
    const bg_source *source;
    bg_packed *packed;
    atomic_bool not_finite;
} pack_loop;

/* Whether any of the values is NaN or infinite. */
static bool any_not_finite(const float *x, size_t n)
{
    uint32_t found = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & 0x7F800000u) == 0x7F800000u;
    }
    return found;
}

static void pack_panels(void *context, size_t begin, size_t end, int thread)
{
    pack_loop *a = context;
    const bg_source *s = a->source;
    float *values = a->cpu->own[thread].data;
    for (size_t panel = begin; panel < end; panel++) {
        size_t first = panel * PANEL, n = bg_min_size(PANEL, s->rows - first);
        if (!s->transposed) {
            bg_widen[s->dtype](s->data, first * s->cols, n * s->cols, values);
        } else {
            /* Along the source's rows, which are this weight's columns. */
            float line[PANEL];
            for (size_t c = 0; c < s->cols; c++) {
                bg_widen[s->dtype](s->data, c * s->rows + first, n, line);
                for (size_t r = 0; r < n; r++) values[r * s->cols + c] = line[r];
            }
        }
        /* At 4 bits a value that is none would become some number, and nobody would know. */
        if (any_not_finite(values, n * s->cols)) a->not_finite = true;
        bg_formats[a->packed->format].encode(a->packed, values, first * s->cols, n * s->cols);
    }
}

bg_status cpu_weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                            bg_weight **out, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    *out = NULL;
    if (!bg_widen[source->dtype])
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
    pack_loop loop = {cpu, source, &weight->packed, false};
    bg_parallel_for(cpu->threads, (source->rows + PANEL - 1) / PANEL, 1, pack_panels, &loop);
    if (loop.not_finite) {
        bg_packed_free(&weight->packed);
        bg_free(weight);
        return bg_fail(
            err, BG_ERR_FORMAT,
            "tensor \"%s\" holds NaN or infinity; the checkpoint is damaged, download it "
            "again",
            source->name);
    }
    bg_packed_finish(&weight->packed);

    bg_packed_bytes bytes;
    bg_packed_measure(format, source->rows, source->cols, &bytes);
    weight->base = (bg_weight){format, source->rows, source->cols, bytes.total};
    bg_tally_add(&cpu->held, BG_USE_WEIGHTS, bytes.total);
    *out = &weight->base;
    return BG_OK;
}

void cpu_weight_free(bg_backend *backend, bg_weight *weight)
{
    if (!weight) return;
    bg_tally_drop(&((cpu_backend *)backend)->held, BG_USE_WEIGHTS, weight->bytes);
    bg_packed_free(&((cpu_weight *)weight)->packed);
    bg_free(weight);
}
