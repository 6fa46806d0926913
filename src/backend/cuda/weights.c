/* Weights, encoded on the device from panels of the source, so that there is never a second copy of
 * the matrix; activations; caches. */
#include "backend/cuda/cuda.h"

#include "core/alloc.h"
#include "core/checked.h"
#include "quant/widen.h"

#include <string.h>

/* Values of a panel, and the rows that a panel's number of rows is a multiple of: so many rows
 * begin with a whole block of 64 whatever their length. */
enum { PANEL_VALUES = 8 << 20, PANEL_ROWS = 64, ALIGN = 256 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* One piece of memory for all arrays of a matrix. */
static bg_status allocate(cuda_backend *cuda, const bg_source *source, bg_format_id format,
                          cuda_weight *weight, bg_error *err)
{
    const size_t rows = source->rows, cols = source->cols;
    bg_packed_bytes bytes;
    if (!bg_packed_measure(format, rows, cols, &bytes))
        return bg_fail(err, BG_ERR_MEMORY, "a matrix of %zu by %zu is too large", rows, cols);
    weight->held = aligned(bytes.codes) + aligned(bytes.scales) + aligned(bytes.scale_codes) +
                   bytes.scale_absmax;
    char *p = weight->memory = cuda_take(cuda, BG_USE_WEIGHTS, weight->held, source->name, err);
    if (!p) return BG_ERR_MEMORY;
    cuda_matrix *m = &weight->matrix;
    m->format = format;
    m->threshold = bg_formats[format].outlier_threshold;
    m->rows = rows;
    m->cols = cols;
    m->codes = p;
    p += aligned(bytes.codes);
    if (bytes.scales) m->scales = (const float *)(const void *)p;
    p += aligned(bytes.scales);
    if (bg_formats[format].double_quant) {
        m->scale_codes = (const uint8_t *)p;
        m->scale_absmax = (const float *)(const void *)(p + aligned(bytes.scale_codes));
        m->scale_map = cuda_map(cuda);
    }
    if (bg_formats[format].blockwise) m->code = cuda_code(cuda, format);
    weight->base = (bg_weight){format, rows, cols, bytes.total};
    return BG_OK;
}

static bool same_type(bg_dtype dtype, bg_format_id format)
{
    return (dtype == BG_F32 && format == BG_FORMAT_F32) ||
           (dtype == BG_F16 && format == BG_FORMAT_F16) ||
           (dtype == BG_BF16 && format == BG_FORMAT_BF16);
}

/* Panel by panel: the source's bytes to `operand`, as floats to `panel`, then encoded. */
static bg_status encode(cuda_backend *cuda, const bg_source *s, cuda_encode_args *a, bg_error *err)
{
    const cudaStream_t stream = cuda->launch.stream;
    const size_t size = bg_dtypes[s->dtype].size;
    const size_t fitting = PANEL_VALUES / s->cols / PANEL_ROWS * PANEL_ROWS;
    const size_t most = bg_min_size(bg_max_size(fitting, PANEL_ROWS), s->rows);
    BG_TRY(cuda_reserve(cuda, &cuda->operand[0], most * s->cols * size, err));
    BG_TRY(cuda_reserve(cuda, &cuda->panel, most * s->cols * sizeof(float), err));
    a->dtype = s->dtype;
    a->source = cuda->operand[0].data;
    a->transposed = s->transposed;
    a->values = cuda->panel.data;
    a->reciprocals = cuda_reciprocals(cuda);
    for (a->first = 0; a->first < s->rows; a->first += most) {
        const size_t n = a->n_rows = bg_min_size(most, s->rows - a->first);
        const char *data = s->data;
        cudaError_t e;
        if (s->transposed)
            e = cudaMemcpy2DAsync(cuda->operand[0].data, n * size, data + a->first * size,
                                  s->rows * size, n * size, s->cols, cudaMemcpyHostToDevice,
                                  stream);
        else
            e = cudaMemcpyAsync(cuda->operand[0].data, data + a->first * s->cols * size,
                                n * s->cols * size, cudaMemcpyHostToDevice, stream);
        if (e == cudaSuccess) e = bg_cuda_encode(a, &cuda->launch);
        BG_TRY(cuda_check(e, "encoding weights", err));
    }
    return BG_OK;
}

/* The mean is summed on the host, one scale after the other, since its last bit decides codes. */
static bg_status quantize_scales(cuda_backend *cuda, cuda_matrix *m, const float *scales,
                                 size_t blocks, bg_error *err)
{
    const cudaStream_t stream = cuda->launch.stream;
    float *values = bg_alloc_array(blocks, sizeof *values);
    if (!values) return bg_fail_memory(err, blocks * sizeof *values, "scales");
    cudaError_t e =
        cudaMemcpyAsync(values, scales, blocks * sizeof *values, cudaMemcpyDeviceToHost, stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    double sum = 0;
    for (size_t i = 0; i < blocks && e == cudaSuccess; i++) sum += values[i];
    bg_free(values);
    m->scale_offset = blocks ? (float)sum * (1.0f / (float)blocks) : 0;
    const cuda_double_quant_args args = {.scales = scales,
                                         .blocks = blocks,
                                         .offset = m->scale_offset,
                                         .map = cuda_map(cuda),
                                         .scale_codes = (uint8_t *)(uintptr_t)m->scale_codes,
                                         .scale_absmax = (float *)(uintptr_t)m->scale_absmax};
    if (e == cudaSuccess) e = bg_cuda_double_quant(&args, &cuda->launch);
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    return cuda_check(e, "encoding scales", err);
}

static bg_status fill(cuda_backend *cuda, const bg_source *s, cuda_weight *weight, bg_error *err)
{
    cuda_matrix *m = &weight->matrix;
    if (s->rows == 0 || s->cols == 0) return BG_OK;
    if (same_type(s->dtype, m->format) && !s->transposed)
        return cuda_check(cudaMemcpyAsync(weight->memory, s->data,
                                          s->rows * s->cols * bg_dtypes[s->dtype].size,
                                          cudaMemcpyHostToDevice, cuda->launch.stream),
                          "copying weights", err);
    const size_t blocks = (s->rows * s->cols + BG_BLOCK - 1) / BG_BLOCK;
    const bool twice = bg_formats[m->format].double_quant;
    cuda_encode_args args = {
        .w = *m, .codes = weight->memory, .scales = (float *)(uintptr_t)m->scales};
    float *scales = NULL;
    if (twice) {
        args.scales = scales = cuda_alloc(cuda, blocks * sizeof *scales, "scales", err);
        if (!scales) return BG_ERR_MEMORY;
    }
    bg_status status = encode(cuda, s, &args, err);
    if (status == BG_OK && twice) status = quantize_scales(cuda, m, scales, blocks, err);
    cuda_release(cuda, scales, blocks * sizeof *scales);
    return status;
}

/* In a model with inputs longer than that, a few rows in tiles are over before a program is, which
 * multiplies each by itself and at int8 quantizes it as well: so measured on compute
 * capability 9.0, and done there alone. */
enum { LONG_COLS = 4096, LEAST_LONG_ROWS = 4, LEAST_LONG_ROWS_INT8 = 3 };

static void see_length(cuda_backend *cuda, const bg_source *source, bg_format_id format)
{
    const size_t rows = bg_format_is_int8(format) ? LEAST_LONG_ROWS_INT8 : LEAST_LONG_ROWS;
    if (cuda->launch.warpgroups && source->rows > 1 && source->cols > LONG_COLS)
        cuda->least_rows = bg_min_size(cuda->least_rows, rows);
}

bg_status cuda_weight_create(bg_backend *backend, const bg_source *source, bg_format_id format,
                             bg_weight **out, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    *out = NULL;
    if (!bg_widen[source->dtype])
        return bg_fail(err, BG_ERR_UNSUPPORTED,
                       "tensor \"%s\" has type %s, which cannot be a weight; the checkpoint is "
                       "quantized already or damaged",
                       source->name, bg_dtypes[source->dtype].name);
    cuda_weight *weight = bg_calloc(1, sizeof *weight);
    if (!weight) return bg_fail_memory(err, sizeof *weight, source->name);
    bg_status status = allocate(cuda, source, format, weight, err);
    if (status == BG_OK) status = fill(cuda, source, weight, err);
    /* The source may go when this returns. */
    cudaError_t e = cudaStreamSynchronize(cuda->launch.stream);
    if (status == BG_OK) status = cuda_check(e, "encoding weights", err);
    if (status != BG_OK) {
        cuda_give(cuda, BG_USE_WEIGHTS, weight->memory, weight->held);
        bg_free(weight);
        return bg_error_context(err, "tensor \"%s\"", source->name);
    }
    see_length(cuda, source, format);
    *out = &weight->base;
    return BG_OK;
}

void cuda_weight_free(bg_backend *backend, bg_weight *weight)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_weight *w = (cuda_weight *)weight;
    if (!weight) return;
    cuda_run_first(cuda);
    cuda_give(cuda, BG_USE_WEIGHTS, w->memory, w->held);
    bg_free(w);
}

/* ---- activations and caches ------------------------------------------------------------------ */

enum {
    FEW_VALUES = 1024,
    UNWRITTEN = -0x2152 /* as a number it is none, and another than a GPU's own */
};

void cuda_end_loading(cuda_backend *cuda)
{
    cuda_room *const rooms[] = {&cuda->operand[0], &cuda->panel};
    cuda_run_first(cuda);
    for (size_t i = 0; i < 2; i++) {
        cuda_release(cuda, rooms[i]->data, rooms[i]->bytes);
        *rooms[i] = (cuda_room){0};
    }
}

bg_status cuda_act_create(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                          bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    size_t count, bytes;
    *out = NULL;
    if (!bg_mul_size(rows, cols, &count) || !bg_mul_size(count, sizeof(float), &bytes))
        return bg_fail(err, BG_ERR_MEMORY, "an activation of %zu by %zu is too large", rows, cols);
    cuda_end_loading(cuda);
    cuda_act *act = bg_calloc(1, sizeof *act);
    if (!act) return bg_fail_memory(err, sizeof *act, "an activation");
    act->base = (bg_act){rows, cols, half};
    cuda->widest = bg_max_size(cuda->widest, cols);
    act->values = cuda_take(cuda, BG_USE_ACTIVATIONS, bytes, "activations", err);
    bg_status status = act->values ? BG_OK : BG_ERR_MEMORY;
    if (status == BG_OK)
        status = cuda_check(cudaMemsetAsync(act->values, 0, bytes, cuda->launch.stream),
                            "clearing activations", err);
    if (status != BG_OK) {
        cuda_give(cuda, BG_USE_ACTIVATIONS, act->values, bytes);
        bg_free(act);
        return status;
    }
    *out = &act->base;
    return BG_OK;
}

void cuda_act_free(bg_backend *backend, bg_act *act)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (!act) return;
    cuda_run_first(cuda);
    cuda_give(cuda, BG_USE_ACTIVATIONS, cuda_values(act), act->rows * act->cols * sizeof(float));
    bg_free(act);
}

bg_status cuda_act_write(bg_backend *backend, bg_act *act, size_t n_rows, const float *values,
                         bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const size_t n = n_rows * act->cols;
    BG_TRY(cuda_flush(cuda, err));
    cudaError_t e = cudaMemcpyAsync(cuda_values(act), values, n * sizeof *values,
                                    cudaMemcpyHostToDevice, cuda->launch.stream);
    if (e == cudaSuccess && act->half) e = bg_cuda_round(cuda_values(act), n, &cuda->launch);
    if (e == cudaSuccess) e = cudaStreamSynchronize(cuda->launch.stream);
    return cuda_check(e, "writing activations", err);
}

/* Where there are few values, a kernel behind what is queued writes them where the host looks for
 * them: a copy would begin after the host has waited for the kernels, and be waited for, too. */
static bg_status read_few(cuda_backend *cuda, const bg_act *act, size_t n_rows, float *values,
                          bg_error *err)
{
    const size_t n = n_rows * act->cols;
    BG_TRY(cuda_reserve_results(cuda, FEW_VALUES * sizeof *values, err));
    BG_TRY(cuda_begin(cuda, 0, 1, err));
    cuda_copy_args *a = &cuda_push(cuda, NODE_COPY)->args.copy;
    a->in = cuda_values(act);
    a->out = (float *)(void *)cuda->results;
    a->n_rows = n_rows;
    a->cols = act->cols;
    a->scale = 1;
    int32_t *seen = (int32_t *)(void *)cuda->results;
    for (size_t i = 0; i < n; i++) seen[i] = UNWRITTEN;
    BG_TRY(cuda_start(cuda, err));
    for (size_t i = 0; i < n; i++) BG_TRY(cuda_look_for(cuda, &seen[i], UNWRITTEN, err));
    cuda_has_finished(cuda);
    memcpy(values, seen, n * sizeof *values);
    return BG_OK;
}

bg_status cuda_act_read(bg_backend *backend, const bg_act *act, size_t n_rows, float *values,
                        bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const size_t n = n_rows * act->cols;
    if (n > 0 && n <= FEW_VALUES) return read_few(cuda, act, n_rows, values, err);
    BG_TRY(cuda_flush(cuda, err));
    cudaError_t e = cudaMemcpyAsync(values, cuda_values(act), n * sizeof *values,
                                    cudaMemcpyDeviceToHost, cuda->launch.stream);
    if (e == cudaSuccess) e = cudaStreamSynchronize(cuda->launch.stream);
    return cuda_check(e, "reading activations", err);
}

void cuda_cache_free(bg_backend *backend, bg_cache *cache)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    cuda_cache *c = (cuda_cache *)cache;
    if (!cache) return;
    cuda_run_first(cuda);
    cuda_give(cuda, BG_USE_CACHES, c->keys, cache->bytes / 2);
    cuda_give(cuda, BG_USE_CACHES, c->values, cache->bytes / 2);
    bg_free(c);
}

/* In fp32, as on the CPU: at 4 and at 8 bits the comparison with it is then one of weights alone.
 */
bg_status cuda_cache_create(bg_backend *backend, size_t n_layers, size_t n_slots, size_t max_length,
                            size_t n_heads, size_t head_dim, bg_cache **out, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    bg_cache base;
    *out = NULL;
    BG_TRY(bg_cache_measure(n_layers, n_slots, max_length, n_heads, head_dim, sizeof(float), &base,
                            err));
    cuda_cache *cache = bg_calloc(1, sizeof *cache);
    if (!cache) return bg_fail_memory(err, sizeof *cache, "a cache");
    cache->base = base;
    cache->keys = cuda_take(cuda, BG_USE_CACHES, base.bytes / 2, "the key cache", err);
    cache->values =
        cache->keys ? cuda_take(cuda, BG_USE_CACHES, base.bytes / 2, "the value cache", err) : NULL;
    if (!cache->values) {
        cuda_cache_free(backend, &cache->base);
        return BG_ERR_MEMORY;
    }
    *out = &cache->base;
    return BG_OK;
}
