#include "backend/cpu/cpu.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <cblas.h>
#include <string.h>

void *cpu_alloc(cpu_backend *cpu, bg_use use, size_t bytes, const char *what, bg_error *err)
{
    void *p = bg_alloc_aligned(bytes);
    if (p)
        bg_tally_add(&cpu->held, use, bytes);
    else
        bg_fail_memory(err, bytes, what);
    return p;
}

void cpu_release(cpu_backend *cpu, bg_use use, void *p, size_t bytes)
{
    if (!p) return;
    bg_free_aligned(p, bytes);
    bg_tally_drop(&cpu->held, use, bytes);
}

bg_status cpu_reserve(cpu_backend *cpu, cpu_scratch *scratch, size_t count, bg_error *err)
{
    if (count <= scratch->count) return BG_OK;
    cpu_release(cpu, BG_USE_WORKSPACE, scratch->data, scratch->count * sizeof(float));
    *scratch = (cpu_scratch){0};
    scratch->data = cpu_alloc(cpu, BG_USE_WORKSPACE, count * sizeof(float), "working memory", err);
    if (!scratch->data) return BG_ERR_MEMORY;
    scratch->count = count;
    return BG_OK;
}

bg_status cpu_reserve_own(cpu_backend *cpu, size_t count, bg_error *err)
{
    for (int i = 0; i < bg_threads_count(cpu->threads); i++)
        BG_TRY(cpu_reserve(cpu, &cpu->own[i], count, err));
    return BG_OK;
}

static void cpu_free(bg_backend *backend);

static const char *cpu_isa(const bg_backend *backend)
{
    return ((const cpu_backend *)(const void *)backend)->kernels->isa;
}

static int cpu_threads(const bg_backend *backend)
{
    return bg_threads_count(((const cpu_backend *)(const void *)backend)->threads);
}

static const char *cpu_kernel(const bg_backend *backend, bg_format_id format, bool several_rows)
{
    const bg_cpu_kernels *k = ((const cpu_backend *)(const void *)backend)->kernels;
    if (!several_rows) return k->format[format].name;
    return bg_format_is_int8(format) ? k->matmul_int8_name : "sgemm_openblas";
}

static size_t cpu_rows_at_once(const bg_backend *backend)
{
    (void)backend;
    return 1;
}

static void cpu_usage(bg_backend *backend, bg_usage *out)
{
    *out = (bg_usage){.held = ((const cpu_backend *)(const void *)backend)->held};
}

static void cpu_expect(bg_backend *backend, size_t bytes)
{
    (void)backend;
    (void)bytes;
}

/* A counter and a clock that the processor does not have. */
static double cpu_nothing(bg_backend *backend)
{
    (void)backend;
    return -1;
}

bg_status cpu_act_create(bg_backend *backend, size_t rows, size_t cols, bool half, bg_act **out,
                         bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    size_t count, bytes;
    *out = NULL;
    if (!bg_mul_size(rows, cols, &count) || !bg_mul_size(count, sizeof(float), &bytes))
        return bg_fail(err, BG_ERR_MEMORY, "an activation of %zu by %zu is too large", rows, cols);
    cpu_act *act = bg_calloc(1, sizeof *act);
    if (!act) return bg_fail_memory(err, sizeof *act, "an activation");
    act->base = (bg_act){rows, cols, half};
    act->values = cpu_alloc(cpu, BG_USE_ACTIVATIONS, bytes, "activations", err);
    if (!act->values) {
        bg_free(act);
        return BG_ERR_MEMORY;
    }
    *out = &act->base;
    return BG_OK;
}

static void cpu_act_free(bg_backend *backend, bg_act *act)
{
    if (!act) return;
    cpu_release((cpu_backend *)backend, BG_USE_ACTIVATIONS, cpu_values(act),
                act->rows * act->cols * sizeof(float));
    bg_free(act);
}

static bg_status cpu_act_write(bg_backend *backend, bg_act *act, size_t n_rows, const float *values,
                               bg_error *err)
{
    (void)err;
    const size_t n = n_rows * act->cols;
    memcpy(cpu_values(act), values, n * sizeof(float));
    if (act->half)
        ((cpu_backend *)backend)->kernels->round_half(cpu_values(act), cpu_values(act), n);
    return BG_OK;
}

static bg_status cpu_act_read(bg_backend *backend, const bg_act *act, size_t n_rows, float *values,
                              bg_error *err)
{
    (void)backend;
    (void)err;
    memcpy(values, cpu_values(act), n_rows * act->cols * sizeof(float));
    return BG_OK;
}

static void cpu_cache_free(bg_backend *backend, bg_cache *cache)
{
    if (!cache) return;
    cpu_cache *c = (cpu_cache *)cache;
    cpu_release((cpu_backend *)backend, BG_USE_CACHES, c->keys, cache->bytes / 2);
    cpu_release((cpu_backend *)backend, BG_USE_CACHES, c->values, cache->bytes / 2);
    bg_free(c);
}

static bg_status cpu_cache_create(bg_backend *backend, size_t n_layers, size_t n_slots,
                                  size_t max_length, size_t n_heads, size_t head_dim,
                                  bg_cache **out, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    bg_cache base;
    *out = NULL;
    BG_TRY(bg_cache_measure(n_layers, n_slots, max_length, n_heads, head_dim, sizeof(float), &base,
                            err));
    cpu_cache *cache = bg_calloc(1, sizeof *cache);
    if (!cache) return bg_fail_memory(err, sizeof *cache, "a cache");
    cache->base = base;
    cache->keys = cpu_alloc(cpu, BG_USE_CACHES, base.bytes / 2, "the key cache", err);
    cache->values =
        cache->keys ? cpu_alloc(cpu, BG_USE_CACHES, base.bytes / 2, "the value cache", err) : NULL;
    if (!cache->values) {
        cpu_cache_free(backend, &cache->base);
        return BG_ERR_MEMORY;
    }
    *out = &cache->base;
    return BG_OK;
}

static void cpu_ids_free(bg_backend *backend, bg_ids *ids)
{
    if (!ids) return;
    cpu_release((cpu_backend *)backend, BG_USE_ACTIVATIONS, cpu_id_values(ids),
                ids->rows * sizeof(int32_t));
    bg_free(ids);
}

static bg_status cpu_ids_create(bg_backend *backend, size_t rows, bg_ids **out, bg_error *err)
{
    *out = NULL;
    cpu_ids *ids = bg_calloc(1, sizeof *ids);
    if (!ids) return bg_fail_memory(err, sizeof *ids, "token ids");
    ids->base.rows = rows;
    ids->values = cpu_alloc((cpu_backend *)backend, BG_USE_ACTIVATIONS, rows * sizeof *ids->values,
                            "token ids", err);
    if (!ids->values) {
        bg_free(ids);
        return BG_ERR_MEMORY;
    }
    *out = &ids->base;
    return BG_OK;
}

static bg_status cpu_ids_read(bg_backend *backend, bg_ids *ids, size_t n_rows, int32_t *values,
                              bg_error *err)
{
    (void)backend;
    (void)err;
    memcpy(values, cpu_id_values(ids), n_rows * sizeof *values);
    return BG_OK;
}

/* ---- embeddings and norms: rows in parallel -------------------------------------------------- */

typedef struct {
    const bg_lookup *lookups;
    size_t n_lookups, cols;
    float *out;
    bool half;
    cpu_backend *cpu;
} embed_loop;

static size_t id_of(const bg_lookup *lookup, size_t row)
{
    if (lookup->ids) return (size_t)lookup->ids[row];
    const int32_t id = cpu_id_values(lookup->chosen)[row];
    return id >= 0 && (size_t)id < lookup->table->rows ? (size_t)id : 0;
}

static void embed_rows(void *context, size_t begin, size_t end, int thread)
{
    const embed_loop *a = context;
    float *row = a->cpu->own[thread].data;
    for (size_t i = begin; i < end; i++) {
        float *out = a->out + i * a->cols;
        for (size_t k = 0; k < a->n_lookups; k++) {
            const bg_packed *table = cpu_packed(a->lookups[k].table);
            size_t id = id_of(&a->lookups[k], i);
            const bool plain = k == 0 && a->lookups[k].scale == 1;
            a->cpu->kernels->format[table->format].decode(table, plain ? out : row, id, id + 1);
            if (plain) continue;
            if (k == 0) memset(out, 0, a->cols * sizeof(float));
            a->cpu->kernels->axpy(a->lookups[k].scale, row, out, a->cols);
        }
        if (a->half) a->cpu->kernels->round_half(out, out, a->cols);
    }
}

static bg_status cpu_embed(bg_backend *backend, const bg_lookup *lookups, size_t n_lookups,
                           size_t n_rows, bg_act *out, bg_error *err)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    BG_TRY(cpu_reserve_own(cpu, out->cols, err));
    for (size_t i = 0; i < n_lookups; i++)
        if (lookups[i].table->cols != out->cols)
            return bg_fail(err, BG_ERR_INTERNAL, "embeddings of %zu values into rows of %zu",
                           lookups[i].table->cols, out->cols);
    embed_loop loop = {lookups, n_lookups, out->cols, cpu_values(out), out->half, cpu};
    bg_parallel_for(cpu->threads, n_rows, 16, embed_rows, &loop);
    return BG_OK;
}

typedef struct {
    cpu_backend *cpu;
    const bg_norm *norm;
    const float *in;
    float *out;
    size_t cols;
    bool half;
} norm_loop;

void cpu_norm_row(const cpu_backend *cpu, const bg_norm *norm, bool half, const float *in,
                  float *out, size_t n)
{
    const float *weight = cpu_vector(norm->weight), *bias = cpu_vector(norm->bias);
    if (norm->kind == BG_NORM_LAYER)
        cpu->kernels->layer_norm(in, weight, bias, norm->eps, half, out, n);
    else
        cpu->kernels->rms_norm(in, weight, norm->eps, norm->kind == BG_NORM_RMS_OFFSET, half, out,
                               n);
}

static void norm_rows(void *context, size_t begin, size_t end, int thread)
{
    (void)thread;
    const norm_loop *a = context;
    for (size_t i = begin; i < end; i++)
        cpu_norm_row(a->cpu, a->norm, a->half, a->in + i * a->cols, a->out + i * a->cols, a->cols);
}

static bg_status cpu_norm(bg_backend *backend, const bg_norm *norm, const bg_act *in, size_t n_rows,
                          bg_act *out, bg_error *err)
{
    (void)err;
    cpu_backend *cpu = (cpu_backend *)backend;
    norm_loop loop = {cpu, norm, cpu_values(in), cpu_values(out), in->cols, out->half};
    bg_parallel_for(cpu->threads, n_rows, 8, norm_rows, &loop);
    return BG_OK;
}

static bg_status cpu_copy_rows(bg_backend *backend, const bg_act *in, const size_t *in_rows,
                               bg_act *out, const size_t *out_rows, size_t n_rows, float scale,
                               bg_error *err)
{
    const bg_cpu_kernels *kernels = ((cpu_backend *)backend)->kernels;
    const size_t cols = in->cols;
    if (out->cols != cols)
        return bg_fail(err, BG_ERR_INTERNAL, "rows of %zu values into rows of %zu", cols,
                       out->cols);
    for (size_t i = 0; i < n_rows; i++) {
        const float *from = cpu_values(in) + (in_rows ? in_rows[i] : i) * cols;
        float *to = cpu_values(out) + (out_rows ? out_rows[i] : i) * cols;
        if (scale == 1) {
            memcpy(to, from, cols * sizeof(float));
            continue;
        }
        memset(to, 0, cols * sizeof(float));
        kernels->axpy(scale, from, to, cols);
        if (out->half) kernels->round_half(to, to, cols);
    }
    return BG_OK;
}

static bg_status cpu_synchronize(bg_backend *backend, bg_error *err)
{
    (void)backend;
    (void)err;
    return BG_OK;
}

static const bg_backend_ops ops = {
    .name = "cpu",
    .free = cpu_free,
    .isa = cpu_isa,
    .threads = cpu_threads,
    .kernel = cpu_kernel,
    .rows_at_once = cpu_rows_at_once,
    .usage = cpu_usage,
    .joules = cpu_nothing,
    .device_seconds = cpu_nothing,
    .expect = cpu_expect,
    .weight_create = cpu_weight_create,
    .weight_free = cpu_weight_free,
    .act_create = cpu_act_create,
    .act_free = cpu_act_free,
    .act_write = cpu_act_write,
    .act_read = cpu_act_read,
    .cache_create = cpu_cache_create,
    .cache_free = cpu_cache_free,
    .ids_create = cpu_ids_create,
    .ids_free = cpu_ids_free,
    .ids_read = cpu_ids_read,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .linear = cpu_linear,
    .attention = cpu_attention,
    .store = cpu_store,
    .copy_rows = cpu_copy_rows,
    .logits = cpu_logits,
    .choose = cpu_choose,
    .score = cpu_score,
    .synchronize = cpu_synchronize,
};

static void cpu_free(bg_backend *backend)
{
    cpu_backend *cpu = (cpu_backend *)backend;
    if (cpu->logits) cpu_act_free(backend, &cpu->logits->base);
    cpu_release(cpu, BG_USE_WORKSPACE, cpu->shared.data, cpu->shared.count * sizeof(float));
    cpu_release(cpu, BG_USE_WORKSPACE, cpu->int8.data, cpu->int8.count * sizeof(float));
    for (int i = 0; cpu->own && i < bg_threads_count(cpu->threads); i++)
        cpu_release(cpu, BG_USE_WORKSPACE, cpu->own[i].data, cpu->own[i].count * sizeof(float));
    bg_free(cpu->own);
    bg_threads_free(cpu->threads);
    bg_free(cpu);
}

bg_status bg_cpu_open(const char *device, int threads, bg_backend **out, bg_error *err)
{
    (void)device;
    const bg_cpu_kernels *kernels;
    BG_TRY(bg_cpu_kernels_choose(&kernels, err));
    cpu_backend *cpu = bg_calloc(1, sizeof *cpu);
    if (!cpu) return bg_fail_memory(err, sizeof *cpu, "the CPU backend");
    cpu->base.ops = &ops;
    cpu->kernels = kernels;
    bg_status status = bg_threads_create(threads, &cpu->threads, err);
    if (status == BG_OK) {
        size_t n = (size_t)bg_threads_count(cpu->threads);
        cpu->own = bg_calloc(n, sizeof *cpu->own);
        if (!cpu->own) status = bg_fail_memory(err, n * sizeof *cpu->own, "the CPU backend");
    }
    if (status != BG_OK) {
        bg_threads_free(cpu->threads);
        bg_free(cpu);
        return status;
    }
    /* The library's products are called from our threads, each on its own part. */
    openblas_set_num_threads(1);
    *out = &cpu->base;
    return BG_OK;
}
