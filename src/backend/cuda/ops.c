/* The table of operations, and the short ones. */
#include "backend/cuda/cuda.h"
#include "backend/cuda/program.h"

#include "core/alloc.h"
#include "core/checked.h"

static const char *cuda_isa(const bg_backend *backend)
{
    return ((const cuda_backend *)(const void *)backend)->isa;
}

static int cuda_threads(const bg_backend *backend)
{
    (void)backend;
    return 1; /* of the host, which queues */
}

/* Whether tiles take some rows of a layer of usual widths. */
static bool has_tiles(const cuda_backend *cuda, bg_format_id format)
{
    enum { USUAL = 2048, SOME = 64 };
    const cuda_matrix w = {.format = format,
                           .rows = USUAL,
                           .cols = USUAL,
                           .threshold = bg_format_is_int8(format) ? 1 : 0};
    const cuda_type type = format == BG_FORMAT_BF16 ? CUDA_BF16 : CUDA_F16;
    return bg_cuda_product_tiles(&w, SOME, &cuda->launch) ||
           bg_cuda_product_mma_fits(&w, SOME, type, &cuda->launch);
}

/* What several rows may be multiplied by, as far as either is there. */
enum { BY_TILES = 1, BY_LIBRARY = 2 };
#define SEVERAL(type)                                                                              \
    {                                                                                              \
        [BY_TILES] = "matmul_" type "_tiles", [BY_LIBRARY] = "matmul_" type "_cublaslt",           \
        [BY_TILES | BY_LIBRARY] = "matmul_" type "_tiles_cublaslt"                                 \
    }

static const char *cuda_kernel(const bg_backend *backend, bg_format_id format, bool several_rows)
{
    static const char *const several[BG_FORMAT_COUNT][4] = {
        SEVERAL("fp32"), SEVERAL("fp16"), SEVERAL("bf16"), SEVERAL("int8"), SEVERAL("4bit"),
        SEVERAL("4bit"), SEVERAL("4bit"), SEVERAL("4bit"), SEVERAL("int8")};
    const cuda_backend *cuda = (const cuda_backend *)(const void *)backend;
    const int by =
        (has_tiles(cuda, format) ? BY_TILES : 0) | (cuda_matmul_exists() ? BY_LIBRARY : 0);
    const char *program = bg_cuda_program_name(format, &cuda->launch);
    if (several_rows && by) return several[format][by];
    return program ? program : bg_cuda_linear_name(format);
}

/* Biases and norms are not among what is announced, nor where each weight begins: without some room
 * for them the last matrix would need a piece of its own. */
static void cuda_expect(bg_backend *backend, size_t bytes)
{
    const size_t rest = bg_min_size(bytes / 256, 1 << 20);
    ((cuda_backend *)backend)->weights.expected = bytes < SIZE_MAX - rest ? bytes + rest : bytes;
}

static size_t cuda_rows_at_once(const bg_backend *backend)
{
    (void)backend;
    return 4096;
}

static bg_status cuda_embed(bg_backend *backend, const bg_lookup *lookups, size_t n_lookups,
                            size_t n_rows, bg_act *out, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (n_lookups > CUDA_MAX_LOOKUPS)
        return bg_fail(err, BG_ERR_INTERNAL, "an embedding of %zu tables", n_lookups);
    const size_t bytes = n_rows * sizeof(int32_t);
    for (size_t i = 0; i < n_lookups; i++)
        if (!lookups[i].ids && n_rows > lookups[i].chosen->rows)
            return bg_fail(err, BG_ERR_INTERNAL, "an embedding of %zu ids of %zu", n_rows,
                           lookups[i].chosen->rows);
    BG_TRY(cuda_begin(cuda, n_lookups * bytes, 1, err));
    cuda_embed_args *a = &cuda_push(cuda, NODE_EMBED)->args.embed;
    for (size_t i = 0; i < n_lookups; i++) {
        a->tables[i] = *cuda_matrix_of(lookups[i].table);
        a->ids[i] = lookups[i].ids ? cuda_put(cuda, lookups[i].ids, bytes)
                                   : cuda_ids_of(lookups[i].chosen)->values;
        a->scales[i] = lookups[i].scale;
    }
    a->n_lookups = n_lookups;
    a->n_rows = n_rows;
    a->cols = out->cols;
    a->out = cuda_values(out);
    a->half = out->half;
    return BG_OK;
}

/* A pass of so many rows begins early where a norm follows so many nodes: nothing that is queued
 * becomes part of what comes then, even if attention is by warpgroups. */
enum { LONG_ROWS = 2048, LONG_NODES = 12 };

static bg_status cuda_norm_op(bg_backend *backend, const bg_norm *norm, const bg_act *in,
                              size_t n_rows, bg_act *out, bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    if (n_rows >= LONG_ROWS && cuda->n_nodes >= LONG_NODES) BG_TRY(cuda_start_early(cuda, err));
    BG_TRY(cuda_begin(cuda, 0, 1, err));
    const node_kind kind = n_rows > cuda->least_rows ? NODE_NORM_MANY : NODE_NORM;
    cuda_norm_args *a = &cuda_push(cuda, kind)->args.norm;
    a->norm = cuda_norm_of(norm);
    a->in = cuda_values(in);
    a->out = cuda_values(out);
    a->n_rows = n_rows;
    a->cols = in->cols;
    a->half = out->half;
    return BG_OK;
}

/* Row numbers as 32-bit ones in the step's data; NULL stays NULL. */
static bg_status put_rows(cuda_backend *cuda, const size_t *rows, size_t n, const int32_t **out,
                          bg_error *err)
{
    *out = NULL;
    if (!rows) return BG_OK;
    int32_t *narrow = bg_alloc_array(n, sizeof *narrow);
    if (!narrow) return bg_fail_memory(err, n * sizeof *narrow, "row numbers");
    for (size_t i = 0; i < n; i++) narrow[i] = (int32_t)rows[i];
    *out = cuda_put(cuda, narrow, n * sizeof *narrow);
    bg_free(narrow);
    return BG_OK;
}

static bg_status cuda_copy_rows(bg_backend *backend, const bg_act *in, const size_t *in_rows,
                                bg_act *out, const size_t *out_rows, size_t n_rows, float scale,
                                bg_error *err)
{
    cuda_backend *cuda = (cuda_backend *)backend;
    const int32_t *from, *to;
    if (n_rows == 0) return BG_OK;
    BG_TRY(cuda_begin(cuda, 2 * n_rows * sizeof(int32_t), 1, err));
    BG_TRY(put_rows(cuda, in_rows, n_rows, &from, err));
    BG_TRY(put_rows(cuda, out_rows, n_rows, &to, err));
    cuda_copy_args *a = &cuda_push(cuda, NODE_COPY)->args.copy;
    a->in = cuda_values(in);
    a->out = cuda_values(out);
    a->in_rows = from;
    a->out_rows = to;
    a->n_rows = n_rows;
    a->cols = in->cols;
    a->scale = scale;
    a->half = out->half;
    return BG_OK;
}

static bg_status cuda_synchronize(bg_backend *backend, bg_error *err)
{
    return cuda_flush((cuda_backend *)backend, err);
}

const bg_backend_ops cuda_ops = {
    .name = "cuda",
    .queues = true,
    .free = cuda_free,
    .isa = cuda_isa,
    .threads = cuda_threads,
    .kernel = cuda_kernel,
    .rows_at_once = cuda_rows_at_once,
    .usage = cuda_usage,
    .joules = cuda_joules,
    .device_seconds = cuda_device_seconds,
    .expect = cuda_expect,
    .weight_create = cuda_weight_create,
    .weight_free = cuda_weight_free,
    .act_create = cuda_act_create,
    .act_free = cuda_act_free,
    .act_write = cuda_act_write,
    .act_read = cuda_act_read,
    .cache_create = cuda_cache_create,
    .cache_free = cuda_cache_free,
    .ids_create = cuda_ids_create,
    .ids_free = cuda_ids_free,
    .ids_read = cuda_ids_read,
    .embed = cuda_embed,
    .norm = cuda_norm_op,
    .linear = cuda_linear_of_sequences,
    .attention = cuda_attention_op,
    .store = cuda_store,
    .copy_rows = cuda_copy_rows,
    .logits = cuda_logits,
    .choose = cuda_choose,
    .score = cuda_score,
    .synchronize = cuda_synchronize,
};
